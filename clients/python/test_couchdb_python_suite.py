"""couchdb-python's own tests, as its package ships them, against the server.

A test that is known not to pass is named below with the reason; if it passes after all, that is a
failure too, so that the list stays true.
"""

import os
import unittest
from urllib.parse import quote, urlsplit

url = urlsplit(os.environ["SETTEE_URL"])
name, password = quote(os.environ["SETTEE_NAME"]), quote(os.environ["SETTEE_PASSWORD"])
# The suite takes its server from here, and nothing else.
os.environ["COUCHDB_URL"] = f"{url.scheme}://{name}:{password}@{url.netloc}/"

from couchdb import client as couchdb_client  # noqa: E402  (reads the environment when imported)

couchdb_client.DEFAULT_BASE_URL = os.environ["COUCHDB_URL"]

from couchdb.tests import client, couch_tests, design, mapping  # noqa: E402

NO_VIEWS = "views are not there yet"
NO_FIND = "_find and _index are not there yet"
NO_DESIGN_FUNCTIONS = "show, list and update functions are not there yet"
NO_REPLICATION = "replication is not there yet"
NO_USERS = "the _users database is not there yet"

KNOWN = {
    "ServerTestCase.test_replicate": NO_REPLICATION,
    "ServerTestCase.test_replicate_continuous": NO_REPLICATION,
    "ServerTestCase.test_user_management": NO_USERS,
    "DatabaseTestCase.test_bulk_update_all_or_nothing": "all_or_nothing is gone since CouchDB 2",
    "DatabaseTestCase.test_find": NO_FIND,
    "DatabaseTestCase.test_explain": NO_FIND,
    "DatabaseTestCase.test_index": NO_FIND,
    "DatabaseTestCase.test_add_index": NO_FIND,
    "DatabaseTestCase.test_remove_index": NO_FIND,
}


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for module in (client, couch_tests, design, mapping):
        for group in loader.loadTestsFromModule(module):
            # The modules' own suites hold doctests for a server without credentials: leave them.
            for test in group:
                if isinstance(test, unittest.TestCase):
                    suite.addTest(known(test))
    return suite


def known(test):
    short = ".".join(test.id().split(".")[-2:])
    if short not in KNOWN:
        return test
    method = getattr(test, test._testMethodName)

    def fails():
        try:
            method()
        except unittest.SkipTest:
            raise
        except Exception as error:  # whatever the client makes of it
            raise unittest.SkipTest(KNOWN[short]) from error
        raise AssertionError(f"{short} passes: take it off the list")

    setattr(test, test._testMethodName, fails)
    return test
