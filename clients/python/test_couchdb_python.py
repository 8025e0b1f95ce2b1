"""What applications on couchdb-python do all day, against the server."""

import io
import threading
import unittest
import uuid

from server import FULL_URL, NAME, PASSWORD, PLAIN_URL
import couchdb
from couchdb.http import PreconditionFailed, ResourceConflict, ResourceNotFound, Unauthorized


class Case(unittest.TestCase):
    def setUp(self):
        self.server = couchdb.Server(FULL_URL)
        self.name = "py-" + uuid.uuid4().hex
        self.db = self.server.create(self.name)

    def tearDown(self):
        if self.name in self.server:
            self.server.delete(self.name)


class Servers(Case):
    def test_databases_are_listed_counted_and_found(self):
        self.assertIn(self.name, self.server)
        self.assertIn(self.name, list(self.server))
        self.assertEqual(len(self.server), len(list(self.server)))
        self.assertNotIn("no-such-database", self.server)
        with self.assertRaises(ResourceNotFound):
            self.server["no-such-database"]
        with self.assertRaises(PreconditionFailed) as caught:
            self.server.create(self.name)
        self.assertEqual(caught.exception.args[0][0], "file_exists")

    def test_names_with_slashes_are_names(self):
        name = self.name + "/a+b"
        self.server.create(name)
        self.assertIn(name, list(self.server))
        self.server[name]["x"] = {"n": 1}
        self.assertEqual(self.server[name]["x"]["n"], 1)
        del self.server[name]
        self.assertNotIn(name, self.server)

    def test_the_server_says_what_it_is(self):
        self.assertGreaterEqual(self.server.version_info(), (3, 5))
        self.assertEqual(len(self.server.uuids(count=7)), 7)
        self.assertEqual(self.server.tasks(), [])
        self.assertIn("couchdb", self.server.config())
        self.assertIsInstance(self.server.stats(), dict)

    def test_a_session_begins_and_ends(self):
        with self.assertRaises(Unauthorized):
            self.server.login(NAME, "not the password")
        token = self.server.login(NAME, PASSWORD)
        self.assertTrue(token)
        self.assertTrue(self.server.verify_token(token))
        self.assertTrue(self.server.logout(token))

    def test_without_credentials_nothing_opens(self):
        anonymous = couchdb.Server(PLAIN_URL)
        with self.assertRaises(Unauthorized):
            anonymous[self.name].info()


class Documents(Case):
    def test_a_document_lives(self):
        doc_id, rev = self.db.save({"type": "Person", "name": "John Doe"})
        doc = self.db[doc_id]
        self.assertEqual((doc.id, doc.rev, doc["name"]), (doc_id, rev, "John Doe"))
        self.assertTrue(rev.startswith("1-"))
        doc["name"] = "Mary Jane"
        self.db[doc.id] = doc
        self.assertTrue(doc.rev.startswith("2-"))
        self.assertIn(doc_id, self.db)
        self.assertEqual(len(self.db), 1)
        del self.db[doc_id]
        self.assertNotIn(doc_id, self.db)
        self.assertIsNone(self.db.get(doc_id))
        self.assertEqual(len(self.db), 0)

    def test_an_edit_of_an_old_revision_is_a_conflict(self):
        self.db["johndoe"] = {"type": "person"}
        first, second = self.db["johndoe"], self.db["johndoe"]
        second["age"] = 42
        self.db["johndoe"] = second
        with self.assertRaises(ResourceConflict) as caught:
            self.db.delete(first)
        self.assertEqual(caught.exception.args[0], ("conflict", "Document update conflict."))

    def test_bulk_writes_answer_one_by_one(self):
        docs = [couchdb.Document(_id=f"d{n}", n=n) for n in range(100)]
        self.assertTrue(all(ok for ok, _, _ in self.db.update(docs)))
        docs[7]["_rev"] = "1-" + "0" * 32
        results = self.db.update(docs)
        self.assertEqual([ok for ok, _, _ in results], [n != 7 for n in range(100)])
        self.assertIsInstance(results[7][2], ResourceConflict)
        self.assertEqual(self.db.info()["doc_count"], 100)

    def test_ids_of_every_kind_come_back(self):
        for doc_id in ["foo/bar", "föö", "a b", "a+b", "%2F", "a?b#c", "_design/x", "_local/y", "日本"]:
            with self.subTest(doc_id):
                self.db[doc_id] = {"id": doc_id}
                self.assertEqual(self.db[doc_id]["id"], doc_id)

    def test_numbers_and_order_survive(self):
        doc = {"_id": "n", "z": 1, "a": 1.0, "big": 12345678901234567890123, "e": 1e300, "nested": [[], {}]}
        self.db.save(doc)
        read = self.db["n"]
        self.assertEqual(list(read)[2:], ["z", "a", "big", "e", "nested"])
        self.assertEqual(read["big"], 12345678901234567890123)
        self.assertIsInstance(read["a"], float)

    def test_history_is_read_until_compaction(self):
        doc = {"_id": "h", "n": 0}
        for n in range(5):
            doc["n"] = n
            self.db.save(doc)
        self.assertEqual([d["n"] for d in self.db.revisions("h")], [4, 3, 2, 1, 0])
        self.assertTrue(self.db.compact())
        while self.db.info()["compact_running"]:
            pass
        self.assertEqual([d["n"] for d in self.db.revisions("h")], [4])

    def test_copy_purge_security_and_limits(self):
        self.db["a"] = {"n": 1}
        rev = self.db.copy("a", "b")
        self.assertEqual((self.db["b"].rev, self.db["b"]["n"]), (rev, 1))
        with self.assertRaises(ResourceConflict):
            self.db.copy("a", "b")
        purged = self.db.purge([self.db["b"]])
        self.assertEqual(purged["purged"], {"b": [rev]})
        self.assertNotIn("b", self.db)
        security = {"admins": {"names": ["jo"], "roles": []}, "members": {"names": [], "roles": ["r"]}}
        self.db.security = security
        self.assertEqual(self.db.security["admins"]["names"], ["jo"])
        self.assertEqual(self.db.commit()["ok"], True)
        self.assertTrue(self.db.cleanup())

    def test_listings_page_both_ways(self):
        self.db.update([{"_id": f"{n:03}", "n": n} for n in range(50)])
        rows = self.db.view("_all_docs", limit=10, skip=5, include_docs=True)
        self.assertEqual([row.id for row in rows], [f"{n:03}" for n in range(5, 15)])
        self.assertEqual([row.doc["n"] for row in rows], list(range(5, 15)))
        self.assertEqual((rows.total_rows, rows.offset), (50, 5))
        down = self.db.view("_all_docs", descending=True, startkey="010", endkey="008")
        self.assertEqual([row.id for row in down], ["010", "009", "008"])
        some = self.db.view("_all_docs", keys=["003", "nope", "001"])
        self.assertEqual([(row.key, row.get("error") if hasattr(row, "get") else row.error) for row in some],
                         [("003", None), ("nope", "not_found"), ("001", None)])
        self.assertEqual(len(list(self.db.iterview("_all_docs", 7))), 50)


class Attachments(Case):
    def test_attachments_live(self):
        doc = {"_id": "a"}
        self.db.save(doc)
        self.db.put_attachment(doc, "Hello, file!", "hello.txt", "text/plain")
        self.db.put_attachment(doc, io.BytesIO(bytes(range(256)) * 4096), "b/big.bin")
        stubs = self.db["a"]["_attachments"]
        self.assertEqual(stubs["hello.txt"]["length"], 12)
        self.assertEqual(stubs["hello.txt"]["content_type"], "text/plain")
        self.assertEqual(self.db.get_attachment("a", "hello.txt").read(), b"Hello, file!")
        self.assertEqual(self.db.get_attachment("a", "b/big.bin").read(), bytes(range(256)) * 4096)
        doc["changed"] = True
        doc["_attachments"] = stubs
        self.db.save(doc)
        self.assertEqual(set(self.db["a"]["_attachments"]), {"hello.txt", "b/big.bin"})
        self.db.delete_attachment(doc, "hello.txt")
        self.assertIsNone(self.db.get_attachment("a", "hello.txt"))
        self.assertEqual(set(self.db["a"]["_attachments"]), {"b/big.bin"})

    def test_inline_attachments_come_back_inline(self):
        self.db["a"] = {"_attachments": {"x": {"content_type": "text/plain", "data": "aGVsbG8="}}}
        self.assertEqual(self.db.get_attachment("a", "x").read(), b"hello")
        self.assertEqual(self.db.get("a", attachments=True)["_attachments"]["x"]["data"], "aGVsbG8=")


class Changes(Case):
    def test_changes_are_read_from_any_point(self):
        self.db.update([{"_id": f"{n:02}"} for n in range(20)])
        changes = self.db.changes()
        self.assertEqual([change["id"] for change in changes["results"]], [f"{n:02}" for n in range(20)])
        self.assertEqual(changes["last_seq"], self.db.info()["update_seq"])
        part = self.db.changes(since=changes["results"][9]["seq"], limit=5)
        self.assertEqual([change["id"] for change in part["results"]], [f"{n:02}" for n in range(10, 15)])
        self.assertEqual(part["pending"], 5)

    def test_a_continuous_feed_sees_what_is_written_meanwhile(self):
        self.db["first"] = {}
        since = self.db.info()["update_seq"]
        writer = threading.Timer(0.3, lambda: couchdb.Server(FULL_URL)[self.name].save({"_id": "second"}))
        writer.start()
        feed = self.db.changes(feed="continuous", since=since, heartbeat=100, timeout=5000)
        self.assertEqual(next(feed)["id"], "second")
        writer.join()

    def test_a_long_poll_waits_for_the_first_change(self):
        since = self.db.info()["update_seq"]
        writer = threading.Timer(0.3, lambda: couchdb.Server(FULL_URL)[self.name].save({"_id": "x"}))
        writer.start()
        changes = self.db.changes(feed="longpoll", since=since, timeout=10000)
        self.assertEqual([change["id"] for change in changes["results"]], ["x"])
        writer.join()


if __name__ == "__main__":
    unittest.main()
