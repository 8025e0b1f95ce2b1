"""couchdb-python's own tests, as its package ships them, against the server.

A test that is known not to pass is named below with the reason; if it passes after all, that is a
failure too, so that the list stays true.
"""

import unittest

import server  # noqa: F401  (names the server before couchdb is imported)
import couchdb
from couchdb.tests import client, couch_tests, design, mapping

NO_VIEWS = "views are not there yet"
NO_FIND = "_find and _index are not there yet"
NO_DESIGN_FUNCTIONS = "show, list and update functions are not there yet"
NO_PARTY = "the test takes a server that lets everybody do everything"

KNOWN = {
    "ServerTestCase.test_basic_auth": "the test takes a server on port 5984",
    "ServerTestCase.test_server_stats": "the statistics have the names of CouchDB 2 and later",
    "DatabaseTestCase.test_name": NO_PARTY,
    "DatabaseTestCase.test_security": NO_PARTY,
    "DatabaseTestCase.test_changes_releases_conn": "the test takes a URL without credentials",
    "DatabaseTestCase.test_changes_releases_conn_when_lastseq": "the same",
    "DatabaseTestCase.test_bulk_update_all_or_nothing": "all_or_nothing is gone since CouchDB 2",
    "ViewTestCase.test_init_with_resource": NO_PARTY,
    "ViewTestCase.test_iter_view": NO_PARTY,
    "ViewTestCase.test_view_function_objects": "views in Python need a view server in Python",
    "DatabaseTestCase.test_find": NO_FIND,
    "DatabaseTestCase.test_explain": NO_FIND,
    "DatabaseTestCase.test_index": NO_FIND,
    "DatabaseTestCase.test_add_index": NO_FIND,
    "DatabaseTestCase.test_remove_index": NO_FIND,
    "DatabaseTestCase.test_include_docs": NO_VIEWS,
    "DatabaseTestCase.test_query_multi_get": NO_VIEWS,
    "ViewIterationTestCase.test_allrows": NO_VIEWS,
    "ViewIterationTestCase.test_batchsizes": NO_VIEWS,
    "ViewIterationTestCase.test_batchsizes_with_skip": NO_VIEWS,
    "ViewIterationTestCase.test_descending": NO_VIEWS,
    "ViewIterationTestCase.test_limit": NO_VIEWS,
    "ViewIterationTestCase.test_nullkeys": NO_VIEWS,
    "ViewIterationTestCase.test_startkey": NO_VIEWS,
    "ViewTestCase.test_ddoc_info": NO_VIEWS,
    "ViewTestCase.test_rowrepr": NO_VIEWS,
    "ViewTestCase.test_view_multi_get": NO_VIEWS,
    "CouchTests.test_basics": NO_VIEWS,
    "CouchTests.test_collation": NO_VIEWS,
    "CouchTests.test_design_docs": NO_VIEWS,
    "CouchTests.test_large_docs": NO_VIEWS,
    "CouchTests.test_lots_of_docs": NO_VIEWS,
    "CouchTests.test_multiple_rows": NO_VIEWS,
    "CouchTests.test_update_with_unsafe_doc_ids": NO_VIEWS,
    "CouchTests.test_utf8_encoding": NO_VIEWS,
    "WrappingTestCase.test_query": NO_VIEWS,
    "WrappingTestCase.test_view": NO_VIEWS,
    "WrappingTestCase.test_viewfield_property": NO_VIEWS,
    "ShowListTestCase.test_list": NO_DESIGN_FUNCTIONS,
    "ShowListTestCase.test_list_keys": NO_DESIGN_FUNCTIONS,
    "ShowListTestCase.test_list_view_params": NO_DESIGN_FUNCTIONS,
    "ShowListTestCase.test_show_docid": NO_DESIGN_FUNCTIONS,
    "ShowListTestCase.test_show_params": NO_DESIGN_FUNCTIONS,
    "ShowListTestCase.test_show_urls": NO_DESIGN_FUNCTIONS,
    "UpdateHandlerTestCase.test_empty_doc": NO_DESIGN_FUNCTIONS,
    "UpdateHandlerTestCase.test_new_doc": NO_DESIGN_FUNCTIONS,
    "UpdateHandlerTestCase.test_update_doc": NO_DESIGN_FUNCTIONS,
}


def load_tests(loader, _tests, _pattern):
    # Who sets a server up makes this one.
    if "_users" not in couchdb.Server():
        couchdb.Server().create("_users")
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
