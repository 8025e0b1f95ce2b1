//! Functions of design documents over a database: requests in, responses out.

use futures_executor::block_on;
use futures_util::{TryStreamExt, stream};
use serde_json::{Map, Value, json};
use settee::adapter::{Adapter, ViewRows};
use settee::design::{
    ChangesFilter, Functions, Request, Response, Stub, Target, UserCtx, Validating,
};
use settee::local::{Local, LocalOptions};
use settee::options::{AttachmentHead, ChangesOptions, WriteOptions};
use settee::script::{JsEngine, ScriptEngine, ScriptOptions};
use settee::wire::ViewRow;
use settee::{Couch, Database, Document, Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// A database `test` with a design document `_design/test`.
struct Fixture {
    db: Database,
    functions: Functions,
}

fn fixture(design: Value) -> Fixture {
    fixture_with(design, ScriptOptions::default())
}

fn fixture_with(mut design: Value, script: ScriptOptions) -> Fixture {
    block_on(async {
        let mut options = LocalOptions::default();
        options.script = Some(Arc::new(JsEngine::new(script)));
        let couch = Couch::from_host(Arc::new(Local::memory_with(&options).unwrap()));
        let db = couch.create("test").await.unwrap();
        design["_id"] = "_design/test".into();
        db.put(design).await.unwrap();
        let functions = Functions::new(db.adapter().clone());
        Fixture { db, functions }
    })
}

fn query(query: Value) -> Stub {
    Stub { query: members(query), ..Stub::default() }
}

fn members(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn headers(name: &str, value: &str) -> Stub {
    Stub { headers: vec![(name.to_owned(), value.to_owned())], ..Stub::default() }
}

fn body(response: &Response) -> &str {
    std::str::from_utf8(&response.body).unwrap()
}

fn named(error: Error) -> (u16, String, String) {
    (error.status(), error.name().to_owned(), error.reason().to_owned())
}

impl Fixture {
    fn put(&self, doc: Value) {
        block_on(self.db.put(doc)).unwrap();
    }

    fn show(&self, path: &str, stub: &Stub) -> Result<Response, Error> {
        block_on(self.db.show(path, stub))
    }

    fn update(&self, path: &str, stub: &Stub) -> Result<Response, Error> {
        block_on(self.db.run_update(path, stub))
    }

    fn list(&self, path: &str, stub: &Stub) -> Result<Response, Error> {
        block_on(async { self.db.list(path, stub).await?.collect().await })
    }

    fn rewrite(&self, path: &str, stub: &Stub) -> Result<Response, Error> {
        block_on(async { self.db.rewrite(path, stub).await?.collect().await })
    }

    fn target(&self, path: &str, stub: &Stub) -> Result<Request, Error> {
        match block_on(self.db.rewrite_target(path, stub))? {
            Target::Request(request) => Ok(*request),
            Target::Response(response) => panic!("{response:?}"),
        }
    }
}

mod shows {
    use super::*;

    #[test]
    fn documents_ids_and_defaults() {
        let test = fixture(json!({"description": "DESC", "shows": {
            "myshow": "function(doc, req) { if (!doc) { return {body: 'no doc'} } else { return {body: doc.description} } };\n",
            "args": "function(doc, req) { return toJSON({doc: doc ? doc._id : doc, req: req}) }",
            "r": "function(doc, req) { return req.id + ':' + (req.query.r || '<default>') }",
        }}));
        let response = test.show("test/myshow", &Stub::default()).unwrap();
        assert_eq!((response.code, body(&response)), (200, "no doc"));
        assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(response.header("Vary"), Some("Accept"));
        assert_eq!(body(&test.show("test/myshow/_design/test", &Stub::default()).unwrap()), "DESC");
        let args = |path: &str| {
            let response = test.show(path, &Stub::default()).unwrap();
            let value: Value = serde_json::from_slice(&response.body).unwrap();
            value
        };
        let value = args("test/args/abc");
        assert_eq!((&value["doc"], &value["req"]["id"]), (&Value::Null, &json!("abc")));
        let value = args("test/args/_design/test");
        assert_eq!(
            (&value["doc"], &value["req"]["id"]),
            (&json!("_design/test"), &json!("_design/test"))
        );
        let value = args("test/args/_design");
        assert_eq!((&value["doc"], &value["req"]["id"]), (&Value::Null, &json!("_design")));
        assert_eq!(args("_design/test/args")["req"]["id"], Value::Null);

        // U-036.
        let r = |path: &str, stub: &Stub| body(&test.show(path, stub).unwrap()).to_owned();
        assert_eq!(r("test/r", &Stub::default()), "null:<default>");
        assert_eq!(r("test/r/1", &Stub::default()), "1:<default>");
        assert_eq!(r("test/r", &query(json!({"r": "abc"}))), "null:abc");
    }

    #[test]
    fn the_request_object() {
        let test = fixture(json!({"shows": {
            "args": "function(doc, req) { return toJSON(req) }",
        }}));
        let request = |stub: &Stub| -> Value {
            let response = test.show("test/args", stub).unwrap();
            serde_json::from_slice(&response.body).unwrap()
        };
        let path = json!(["test", "_design", "test", "_show", "args"]);
        let req = request(&Stub::default());
        for (member, wanted) in [
            ("body", json!("undefined")),
            ("cookie", json!({})),
            ("form", json!({})),
            ("id", Value::Null),
            ("method", json!("GET")),
            ("path", path.clone()),
            ("requested_path", path),
            ("raw_path", json!("/test/_design/test/_show/args")),
            ("peer", json!("127.0.0.1")),
            ("query", json!({})),
            ("userCtx", json!({"db": "test", "name": null, "roles": ["_admin"]})),
        ] {
            assert_eq!(req[member], wanted, "{member}");
        }
        assert_eq!(req["uuid"].as_str().unwrap().len(), 36);
        assert_eq!(req["headers"]["Host"], "localhost:5984");
        assert_eq!(req["info"]["db_name"], "test");
        assert_eq!(req["secObj"]["admins"], json!({"names": [], "roles": []}));

        let req = request(&query(json!({"a": 1})));
        assert_eq!(req["query"], json!({"a": 1}));
        assert!(req["raw_path"].as_str().unwrap().ends_with("?a=1"));
        assert_eq!(req["requested_path"][4], "args?a=1");
        assert_eq!(req["path"][4], "args");

        let req = request(&Stub { form: members(json!({"a": 1})), ..Stub::default() });
        assert_eq!((&req["body"], &req["method"]), (&json!("a=1"), &json!("POST")));
        assert_eq!(req["headers"]["Content-Type"], "application/x-www-form-urlencoded");
        assert_eq!(req["headers"]["Content-Length"], "3");
        assert_eq!(req["form"], json!({"a": 1}));

        let req = request(&headers("host", "example.com"));
        assert_eq!(req["headers"]["Host"], "example.com");
        assert!(req["headers"]["Accept-Language"].is_string());
        // What logs a user in is not for functions.
        for secret in ["Authorization", "Cookie", "X-Auth-CouchDB-Token"] {
            assert_eq!(request(&headers(secret, "s3cret"))["headers"][secret], Value::Null);
        }
        // JSON parameters are what they say.
        let req = request(&query(json!({"startkey": "[1]", "other": "[1]"})));
        assert_eq!(req["query"], json!({"startkey": [1], "other": "[1]"}));
    }

    #[test]
    fn types_are_negotiated() {
        let test = fixture(json!({"shows": {
            "usingProviders": "function(doc, req) {
                provides('json', function() { return toJSON({message: 'Hello World!'}) });
                provides('html', function() { log({type: 'is', func: 'html'}); return 'Hello World!' });
                provides('css', function() { return 'body {content: \"Hello World!\"}' });
                registerType('test', 'application/octet-stream', 'test');
                provides('test', function() {
                    return { base64: 'SGVsbG8gV29ybGQh' }
                });
            }",
        }}));
        let show = |stub: &Stub| test.show("test/usingProviders", stub);
        let response = show(&Stub::default()).unwrap();
        assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(body(&response), "Hello World!");
        let response = show(&query(json!({"format": "json"}))).unwrap();
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        assert_eq!(body(&response), r#"{"message":"Hello World!"}"#);
        let response = show(&headers("Accept", "text/css,*/*;q=0.1")).unwrap();
        assert_eq!(response.header("Content-Type"), Some("text/css"));
        assert!(body(&response).starts_with("body {"));
        let response = show(&headers("Accept", "application/octet-stream")).unwrap();
        assert_eq!(response.header("Content-Type"), Some("application/octet-stream"));
        assert_eq!(body(&response), "Hello World!");
        let error = show(&query(json!({"format": "text"}))).unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "render_error"));
        let error = show(&headers("Accept", "text/plain")).unwrap_err();
        assert_eq!((error.status(), error.name()), (406, "not_acceptable"));
        let wanted = "Content-Type(s) text/plain not supported, try one of: application/json, text/x-json, text/html";
        assert!(error.reason().starts_with(wanted), "{error}");
        // Preferences count, whatever their order.
        let response = show(&headers("Accept", "text/css;q=0.2, application/json;q=0.9")).unwrap();
        assert_eq!(response.header("Content-Type"), Some("application/json"));
    }

    #[test]
    fn results_of_every_kind() {
        let test = fixture(json!({"shows": {
            "json": "function() { return {json: {a: [1]}} }",
            "empty": "function(doc, req) {}",
            "no-function": "return 'Hello World!'",
            "syntax": "function(doc, req) { return 'Hello World! }",
            "throws": "function(doc, req) { throw new Error('Hello World!') }",
            "unknown": "function(doc, req) { return {abc: 'test'} }",
            "number": "function(doc, req) { return 42 }",
            "provided-number": "function(doc, req) { provides('html', function() { return 42 }) }",
            "own": "function() { return {code: 201, headers: {'Content-Type': 'text/x', 'X-Mine': 1}, body: 'x', stop: true} }",
            "base64": "function() { return {base64: 'AAEC'} }",
            "sends": "function() { start({headers: {'X-A': 'a'}}); send('one '); send('two '); return 'three' }",
            "split": "function() { return {headers: {'X-A': 'a\\r\\nSet-Cookie: b'}} }",
            "code": "function() { return {code: 'many'} }",
        }}));
        let show = |name: &str| test.show(&format!("test/{name}"), &Stub::default());
        let response = show("json").unwrap();
        assert_eq!(body(&response), "{\"a\":[1]}\n");
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        let response = show("empty").unwrap();
        assert_eq!((response.code, body(&response)), (200, ""));
        for name in ["no-function", "syntax"] {
            let error = show(name).unwrap_err();
            assert_eq!((error.status(), error.name()), (500, "compilation_error"));
        }
        let error = show("throws").unwrap_err();
        assert_eq!((error.status(), error.name(), error.reason()), (500, "Error", "Hello World!"));
        let (code, name, reason) = named(show("unknown").unwrap_err());
        assert_eq!((code, name.as_str()), (500, "external_response_error"));
        assert_eq!(reason, "Invalid data from external server: {<<\"abc\">>,<<\"test\">>}");
        assert_eq!(show("number").unwrap_err().name(), "render_error");
        let response = show("provided-number").unwrap();
        assert_eq!((response.code, body(&response)), (200, ""));
        let response = show("own").unwrap();
        assert_eq!((response.code, body(&response)), (201, "x"));
        assert_eq!(response.header("content-type"), Some("text/x"));
        assert_eq!(response.header("X-Mine"), Some("1"));
        let response = show("base64").unwrap();
        assert_eq!(&response.body[..], [0, 1, 2]);
        assert_eq!(response.header("Content-Type"), Some("application/binary"));
        let response = show("sends").unwrap();
        assert_eq!((body(&response), response.header("X-A")), ("one two three", Some("a")));
        assert_eq!(show("split").unwrap_err().name(), "external_response_error");
        assert_eq!(show("code").unwrap_err().name(), "external_response_error");
    }

    #[test]
    fn what_is_missing() {
        let test = fixture(json!({"shows": {
            "throws": "function(doc, req) { return doc.name }",
        }}));
        let error = test.show("abc/test", &Stub::default()).unwrap_err();
        assert_eq!((error.status(), error.name(), error.reason()), (404, "not_found", "missing"));
        let error = test.show("test/none", &Stub::default()).unwrap_err();
        assert_eq!(
            named(error),
            (
                404,
                "not_found".into(),
                "missing show function none on design doc _design/test".into()
            )
        );
        let error = test.update("test/none", &Stub::default()).unwrap_err();
        assert_eq!(error.reason(), "missing update function none on design doc _design/test");
        let error = test.list("test/none/_all_docs", &Stub::default()).unwrap_err();
        assert_eq!(error.reason(), "missing list function none on design doc _design/test");
        let error = test.show("test/throws/unknown", &Stub::default()).unwrap_err();
        assert_eq!((error.status(), error.reason()), (404, "document not found"));
        assert_eq!(test.show("test/throws", &Stub::default()).unwrap_err().name(), "TypeError");
    }

    #[test]
    fn a_known_response_is_not_made_again() {
        let test = fixture(json!({"shows": {"s": "function(doc) { return doc.n }"}}));
        test.put(json!({"_id": "x", "n": "1"}));
        let first = test.show("test/s/x", &Stub::default()).unwrap();
        let etag = first.header("ETag").unwrap();
        let again = headers("If-None-Match", etag);
        assert_eq!(test.show("test/s/x", &again).unwrap().code, 304);
        let rev = block_on(test.db.get("x")).unwrap().rev.unwrap().to_string();
        test.put(json!({"_id": "x", "_rev": rev, "n": "2"}));
        assert_eq!(body(&test.show("test/s/x", &again).unwrap()), "2");
    }

    #[test]
    fn another_language_is_unknown() {
        let test = fixture(json!({"language": "erlang", "shows": {"s": "function(doc) {}"}}));
        let error = test.show("test/s", &Stub::default()).unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "unknown_query_language"));
    }
}

mod updates {
    use super::*;

    #[test]
    fn documents_are_made_and_changed() {
        let test = fixture(json!({"updates": {
            "hello": "function(doc, req) {
                if (!doc) {
                    if (req.id) return [{_id: req.id}, 'new doc'];
                    return [null, 'empty doc'];
                }
                doc.world = 'hello';
                return [doc, 'hello doc'];
            }",
            "args": "function(doc, req) { return [null, toJSON({doc: doc, req: req})] }",
            "save": "function(doc, req) { return [JSON.parse(req.body), {code: 202, body: 'Hello World!'}] }",
            "throws": "function(doc, req) { return abc }",
            "nothing": "function(doc, req) {}",
            "no-id": "function(doc, req) { return [{}, 'x'] }",
            "bad-doc": "function(doc, req) { return [{_id: 'x', _odd: 1}, 'x'] }",
        }}));
        let update = |path: &str| test.update(path, &Stub::default());
        let response = update("test/hello").unwrap();
        assert_eq!((response.code, body(&response)), (200, "empty doc"));
        assert_eq!(response.header("X-Couch-Id"), None);
        let response = update("test/hello/a b").unwrap();
        assert_eq!((response.code, body(&response)), (201, "new doc"));
        assert_eq!(response.header("X-Couch-Id"), Some("a%20b"));
        assert!(response.header("X-Couch-Update-NewRev").unwrap().starts_with("1-"));
        let response = update("test/hello/a b").unwrap();
        assert_eq!((response.code, body(&response)), (201, "hello doc"));
        assert_eq!(block_on(test.db.get("a b")).unwrap().get("world"), Some("hello".into()));

        let response = test.update("test/args/mytest", &query(json!({"a": 3}))).unwrap();
        let args: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(args["req"]["raw_path"], "/test/_design/test/_update/args/mytest?a=3");
        assert_eq!((&args["doc"], &args["req"]["method"]), (&Value::Null, &json!("POST")));
        assert_eq!(args["req"].get("withValidation"), None);

        let stub = Stub { body: Some(r#"{"_id": "saved", "n": 1.5}"#.into()), ..Stub::default() };
        let response = test.update("test/save", &stub).unwrap();
        assert_eq!((response.code, body(&response)), (202, "Hello World!"));
        assert_eq!(block_on(test.db.get("saved")).unwrap().get("n"), Some(json!(1.5)));

        let error = update("test/throws").unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "ReferenceError"));
        assert!(error.reason().contains("abc"));
        assert_eq!(update("test/nothing").unwrap_err().name(), "render_error");
        assert_eq!(update("test/no-id").unwrap_err().kind(), ErrorKind::IllegalDocId);
        assert_eq!(update("test/bad-doc").unwrap_err().kind(), ErrorKind::DocValidation);
        let get = Stub { method: Some("GET".into()), ..Stub::default() };
        let error = test.update("test/hello", &get).unwrap_err();
        assert_eq!((error.status(), error.name()), (500, "method_not_allowed"));
    }
}

mod lists {
    use super::*;
    use bytes::Bytes;

    /// Rows as a view would give them.
    fn rows(rows: &[(&str, &str, &str)]) -> ViewRows {
        let count = rows.len() as u64;
        let rows: Vec<_> = rows
            .iter()
            .map(|&(id, key, value)| ViewRow {
                id: Some(id.to_owned()),
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::copy_from_slice(value.as_bytes()),
                ..ViewRow::default()
            })
            .collect();
        // In batches of one, with an empty one between.
        let batches = rows.into_iter().flat_map(|row| [Ok(vec![row]), Ok(Vec::new())]);
        let rows = Box::pin(stream::iter(batches.collect::<Vec<_>>()));
        ViewRows { total_rows: Some(count), offset: Some(0), update_seq: None, rows }
    }

    fn run(test: &Fixture, name: &str, view: ViewRows) -> Result<Response, Error> {
        block_on(async {
            let request = request(test);
            test.functions.list_rows("test", name, view, false, &request).await?.collect().await
        })
    }

    fn request(test: &Fixture) -> Request {
        let _ = test;
        Request {
            method: "GET".into(),
            path: vec![],
            requested_path: vec![],
            raw_path: "/".into(),
            query: Map::new(),
            headers: vec![("Accept".into(), "text/csv".into())],
            body: None,
            form: Map::new(),
            peer: "::1".into(),
            uuid: "u".into(),
            user: UserCtx::admin("test"),
            security: None,
        }
    }

    #[test]
    fn rows_go_through() {
        let test = fixture(json!({
            "lib": {"thingy": "exports.cool = 'Hello World!'"},
            "lists": {
                "args": "function(head, req) {
                    start({code: 500});
                    send(JSON.stringify(getRow()));
                    send('\\n');
                    send('test');
                    return 'Hello World!';
                }",
                "head": "function(head, req) { return toJSON(head) }",
                "all": "function(head, req) { var row, n = 0; while (row = getRow()) { n += 1; send(row.key + '\\r\\n') } send(n) }",
                "libs": "function(head, req) { return sum([1, 2, 3]) + ' - ' + require('lib/thingy').cool }",
                "provides": "function(head, req) { provides('csv', function() { var row; while (row = getRow()) send(row.id + ';'); return 'end' }) }",
                "late": "function(head, req) { getRow(); start({code: 418, headers: {'X-Late': 'y'}}); send('x'); getRow(); start({code: 500}); return 'y' }",
                "throws-early": "function(head, req) { getRow(); throw {forbidden: 'no'} }",
                "throws-late": "function(head, req) { send('x'); getRow(); throw new Error('late') }",
                "nothing": "function() {}",
                "behind": "function() { while (getRow()); return String(getRow()) + String(getRow()) }",
                "huge": "function() { var s = Array(1001).join('x'); for (var i = 0; i < 1000; i++) send(s) }",
            },
        }));
        let three = || rows(&[("a", "1", "null"), ("b", "2", "{\"x\":1}"), ("c", "3", "null")]);
        let response = run(&test, "args", three()).unwrap();
        assert_eq!(response.code, 500);
        assert_eq!(body(&response), "{\"id\":\"a\",\"key\":1,\"value\":null}\ntestHello World!");
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        assert_eq!(body(&run(&test, "head", three()).unwrap()), r#"{"total_rows":3,"offset":0}"#);
        assert_eq!(body(&run(&test, "all", three()).unwrap()), "1\r\n2\r\n3\r\n3");
        assert_eq!(body(&run(&test, "libs", three()).unwrap()), "6 - Hello World!");
        let response = run(&test, "provides", three()).unwrap();
        assert_eq!(
            (body(&response), response.header("Content-Type")),
            ("a;b;c;end", Some("text/csv"))
        );
        let response = run(&test, "late", three()).unwrap();
        assert_eq!((response.code, body(&response)), (418, "xy"));
        assert_eq!(response.header("X-Late"), Some("y"));
        let error = run(&test, "throws-early", three()).unwrap_err();
        assert_eq!((error.status(), error.reason()), (403, "no"));
        assert_eq!(run(&test, "throws-late", three()).unwrap_err().reason(), "late");
        assert_eq!(body(&run(&test, "nothing", three()).unwrap()), "");
        assert_eq!(body(&run(&test, "behind", three()).unwrap()), "nullnull");
        assert_eq!(run(&test, "huge", three()).unwrap().body.len(), 1_000_000);
    }

    #[test]
    fn an_error_of_the_view_ends_the_list() {
        let test = fixture(json!({"lists": {
            "all": "function() { var row; for (;;) { try { while (row = getRow()) send(row.key); return } catch (e) { send('hidden') } } }",
        }}));
        let failing = || {
            let row = ViewRow { key: "1".into(), value: "1".into(), ..ViewRow::default() };
            let batches = vec![Ok(vec![row]), Err(Error::new(ErrorKind::Timeout, "view failed"))];
            ViewRows { rows: Box::pin(stream::iter(batches)), ..rows(&[]) }
        };
        assert_eq!(run(&test, "all", failing()).unwrap_err().reason(), "view failed");
    }

    #[test]
    fn functions_and_readers_wait_for_each_other() {
        let test = fixture(json!({"lists": {
            "endless": "function() { for (;;) send('x') }",
            "all": "function() { var row; while (row = getRow()) send(row.key + ' ') }",
        }}));
        block_on(async {
            // A reader that goes away ends the function: there is a bound on how many run.
            for _ in 0..100 {
                let request = request(&test);
                let list = test.functions.list_rows("test", "endless", rows(&[]), false, &request);
                let mut list = list.await.unwrap();
                assert!(list.body.try_next().await.unwrap().is_some());
                drop(list);
            }
            // Rows are asked for as they are needed.
            let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counter = taken.clone();
            let endless = stream::iter(0..).map_n(move |n: u64| {
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let key = n.to_string().into();
                Ok(vec![ViewRow { key, value: "0".into(), ..ViewRow::default() }])
            });
            let view = ViewRows { rows: endless, ..rows(&[]) };
            let request = request(&test);
            let list = test.functions.list_rows("test", "all", view, false, &request).await;
            let mut list = list.unwrap();
            let first = list.body.try_next().await.unwrap().unwrap();
            assert!(first.starts_with(b"0 "));
            assert!(taken.load(std::sync::atomic::Ordering::SeqCst) < 10);
        });
    }

    #[test]
    fn all_docs_are_a_view_and_options_come_with_the_request() {
        let test = fixture(json!({"lists": {
            "csv": "function(head, req) {
                start({headers: {'Content-Type': 'text/csv'}});
                var header = req.query.include_header === 'true';
                if (header) send('id\\r\\n');
                var row;
                while (row = getRow()) send(row.id + (row.doc ? row.doc.name : '') + '\\r\\n');
            }",
        }}));
        test.put(json!({"_id": "1", "name": "one"}));
        test.put(json!({"_id": "2", "name": "two"}));
        let list = |stub: &Stub| body(&test.list("test/csv/_all_docs", stub).unwrap()).to_owned();
        let ids = json!({"startkey": "\"0\"", "endkey": "\"9\""});
        assert_eq!(list(&query(ids)), "1\r\n2\r\n");
        assert_eq!(list(&query(json!({"include_header": "true", "key": "\"1\""}))), "id\r\n1\r\n");
        assert_eq!(list(&query(json!({"keys": ["1"]}))), "1\r\n");
        assert_eq!(
            list(&query(json!({"startkey": "\"9\"", "descending": true, "limit": "1"}))),
            "2\r\n"
        );
        assert_eq!(list(&query(json!({"key": "\"2\"", "include_docs": "true"}))), "2two\r\n");
        let stub = Stub { body: Some(r#"{"keys": ["2"]}"#.into()), ..Stub::default() };
        assert_eq!(list(&stub), "2\r\n");
        // U-088.
        let stub = Stub {
            body: Some("{}".into()),
            headers: vec![("Content-Type".into(), "text/plain".into())],
            ..Stub::default()
        };
        let error = test.list("test/csv/_all_docs", &stub).unwrap_err();
        assert_eq!(named(error), (400, "bad_request".into(), "invalid_json".into()));
        let error = test.list("test/csv/_all_docs", &query(json!({"limit": "x"}))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QueryParse);
        assert_eq!(test.list("test/csv", &Stub::default()).unwrap_err().name(), "list_error");
    }

    #[test]
    fn an_endless_list_ends() {
        let options =
            ScriptOptions { timeout: Duration::from_millis(200), ..ScriptOptions::default() };
        let test = fixture_with(
            json!({"lists": {
                "loop": "function() { for (;;); }",
                "stuck": "function() { var a = Array(400000).join('a'); (a + a).indexOf(a + 'b') }",
            }}),
            options,
        );
        for name in ["loop", "stuck"] {
            let error = run(&test, name, rows(&[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{name}");
        }
    }

    /// `map` for streams that are boxed anyway.
    trait MapN: Sized {
        fn map_n<T, U>(
            self,
            f: impl FnMut(T) -> U + Send + 'static,
        ) -> futures_core_stream::Boxed<U>
        where
            Self: futures_util::Stream<Item = T> + Send + 'static,
            U: 'static;
    }

    impl<S> MapN for S {
        fn map_n<T, U>(
            self,
            f: impl FnMut(T) -> U + Send + 'static,
        ) -> futures_core_stream::Boxed<U>
        where
            S: futures_util::Stream<Item = T> + Send + 'static,
            U: 'static,
        {
            Box::pin(futures_util::StreamExt::map(self, f))
        }
    }

    mod futures_core_stream {
        pub(super) type Boxed<T> = std::pin::Pin<Box<dyn futures_util::Stream<Item = T> + Send>>;
    }
}

mod filters {
    use super::*;

    #[test]
    fn changes_are_filtered() {
        let test = fixture(json!({
            "filters": {
                "even": "function(doc, req) { if (doc.n === 13) throw 'no'; return doc.n % 2 === (+req.query.rest || 0) }",
                "bad": "function(",
            },
            "views": {"threes": {"map": "function(doc) { if (doc.n % 3 === 0) emit(doc.n) }"}},
        }));
        for n in 0..20 {
            test.put(json!({"_id": format!("{n:02}"), "n": n}));
        }
        let ids = |filter: &str, view: Option<&str>, rest: &str, options: ChangesOptions| {
            block_on(async {
                let filter = ChangesFilter::parse(filter, view)?;
                let mut request = lists_request();
                request.query = members(json!({"rest": rest}));
                let changes = test.functions.changes(&filter, &request, &options).await?;
                let batches: Vec<_> = changes.try_collect().await?;
                assert!(
                    batches
                        .iter()
                        .flat_map(|batch| &batch.changes)
                        .all(|change| change.doc.is_none())
                );
                let pending = batches.last().unwrap().pending;
                let changes = batches.into_iter().flat_map(|batch| batch.changes);
                Ok::<_, Error>((
                    changes.map(|change| change.id).collect::<Vec<_>>().join(" "),
                    pending,
                ))
            })
        };
        let all = ChangesOptions::default;
        assert_eq!(ids("test/even", None, "", all()).unwrap().0, "00 02 04 06 08 10 12 14 16 18");
        assert_eq!(ids("test/even", None, "1", all()).unwrap().0, "01 03 05 07 09 11 15 17 19");
        assert_eq!(ids("_view", Some("test/threes"), "", all()).unwrap().0, "00 03 06 09 12 15 18");
        let two = ChangesOptions { limit: Some(2), ..all() };
        assert_eq!(ids("test/even", None, "", two).unwrap(), ("00 02".into(), 17));
        assert_eq!(ids("test/none", None, "", all()).unwrap_err().status(), 404);
        assert_eq!(ids("none/even", None, "", all()).unwrap_err().status(), 404);
        assert_eq!(ids("test/bad", None, "", all()).unwrap_err().name(), "compilation_error");
        assert_eq!(ids("even", None, "", all()).unwrap_err().status(), 400);
        assert_eq!(ids("_view", None, "", all()).unwrap_err().status(), 400);
    }
}

fn lists_request() -> Request {
    Request {
        method: "GET".into(),
        path: vec![],
        requested_path: vec![],
        raw_path: "/".into(),
        query: Map::new(),
        headers: vec![],
        body: None,
        form: Map::new(),
        peer: "::1".into(),
        uuid: "u".into(),
        user: UserCtx::admin("test"),
        security: None,
    }
}

mod validation {
    use super::*;

    const ONLY_TEST: &str = "function (newDoc, oldDoc, userCtx, secObj) {
        if (newDoc._id !== 'test') throw({forbidden: 'only a document named \\'test\\' is allowed.'});
    }";

    fn validating(test: &Fixture) -> Validating {
        validating_as(test, UserCtx::admin("test"))
    }

    fn validating_as(test: &Fixture, user: UserCtx) -> Validating {
        Validating::new(test.db.adapter().clone(), Arc::default(), user)
    }

    fn doc(value: Value) -> Document {
        Document::from_value(value).unwrap()
    }

    fn put(db: &Validating, value: Value) -> Result<settee::Rev, Error> {
        Ok(block_on(db.put(doc(value), None, &WriteOptions::default()))?.rev)
    }

    #[test]
    fn writes_are_judged() {
        for (kind, code) in [("forbidden", 403), ("unauthorized", 401)] {
            let source = ONLY_TEST.replace("forbidden", kind);
            let test = fixture(json!({"validate_doc_update": source}));
            let db = validating(&test);
            let refused = |result: Result<settee::Rev, Error>| {
                let wanted = "only a document named 'test' is allowed.".to_owned();
                assert_eq!(named(result.unwrap_err()), (code, kind.to_owned(), wanted));
            };
            let rev = put(&db, json!({"_id": "test"})).unwrap();
            refused(put(&db, json!({"_id": "other"})));
            refused(put(&db, json!({})));
            put(&db, json!({"_id": "_local/x"})).unwrap();
            put(&db, json!({"_id": "_design/x"})).unwrap();

            test.put(json!({"_id": "there"}));
            let there = block_on(test.db.get("there")).unwrap().rev.unwrap();
            refused(put(&db, json!({"_id": "there", "_rev": there.to_string(), "_deleted": true})));
            let body = || Box::pin(stream::iter([Ok("x".into())]));
            let head = AttachmentHead::default;
            refused(
                block_on(db.put_attachment("there", "a", Some(there.clone()), head(), body()))
                    .map(|saved| saved.rev),
            );
            refused(
                block_on(db.put_attachment("new", "a", None, head(), body()))
                    .map(|saved| saved.rev),
            );
            block_on(db.put_attachment("test", "a", Some(rev), head(), body())).unwrap();

            let docs =
                [json!({"_id": "test2"}), json!({"_id": "_design/y"}), json!({"_id": "test3"})];
            let results =
                block_on(db.bulk_docs(docs.map(doc).into(), &WriteOptions::default())).unwrap();
            let results: Vec<_> = results
                .into_iter()
                .map(|result| result.map_err(|error| (error.id, error.error.status())))
                .collect();
            assert_eq!(results[0].as_ref().unwrap_err(), &("test2".to_owned(), code));
            assert_eq!(results[1].as_ref().unwrap().id, "_design/y");
            assert_eq!(results[2].as_ref().unwrap_err(), &("test3".to_owned(), code));
            assert!(block_on(test.db.get("test2")).is_err());
        }
    }

    #[test]
    fn functions_that_fail_refuse() {
        for (source, name) in [
            ("function (newDoc, oldDoc, userCtx) {}; garbage", "compilation_error"),
            ("return;", "compilation_error"),
            ("function () { return abc }", "ReferenceError"),
            ("function () { throw 'no' }", "unnamed_error"),
            ("function () { throw 1 }", "unnamed_error"),
            ("function () { throw {odd: 'x'} }", "unnamed_error"),
            ("function () { throw null }", "InternalError"),
            ("function () { for (;;); }", "timeout"),
            ("function () { var s = 'x'; for (;;) s += s }", "InternalError"),
            ("function () { (function f() { f() })() }", "RangeError"),
        ] {
            let options = ScriptOptions {
                timeout: Duration::from_millis(300),
                memory: 8 << 20,
                ..ScriptOptions::default()
            };
            let test = fixture_with(json!({"validate_doc_update": source}), options);
            let db = validating(&test);
            let error = put(&db, json!({"_id": "x"})).unwrap_err();
            assert_eq!((error.status(), error.name()), (500, name), "{source}: {error}");
            if name == "compilation_error" {
                assert!(
                    error.reason().contains("Expression does not eval to a function."),
                    "{error}"
                );
            }
            if name == "ReferenceError" {
                assert!(error.reason().contains("abc"), "{error}");
            }
            assert!(block_on(test.db.get("x")).is_err());
        }
    }

    #[test]
    fn arguments() {
        let test = fixture(json!({"validate_doc_update":
            "function (newDoc, oldDoc, userCtx, secObj) { throw({forbidden: toJSON([newDoc, oldDoc, userCtx, secObj, this._id])}) }"}));
        let db = validating(&test);
        let args = |db: &Validating, value: Value| -> Value {
            serde_json::from_str(put(db, value).unwrap_err().reason()).unwrap()
        };
        let all = args(&db, json!({"_id": "x", "n": 1}));
        assert_eq!(all[0], json!({"_id": "x", "n": 1, "_revisions": {"start": 0, "ids": []}}));
        assert_eq!(all[1], Value::Null);
        assert_eq!(all[2], json!({"db": "test", "name": null, "roles": ["_admin"]}));
        assert_eq!(
            all[3],
            json!({"admins": {"names": [], "roles": []}, "members": {"names": [], "roles": []}})
        );
        assert_eq!(all[4], "_design/test");

        test.put(json!({"_id": "y", "n": 1}));
        let rev = block_on(test.db.get("y")).unwrap().rev.unwrap();
        let all = args(&db, json!({"_id": "y", "_rev": rev.to_string(), "n": 2}));
        for n in [0, 1] {
            assert_eq!(all[n]["_revisions"], json!({"start": 1, "ids": [rev.id.to_string()]}));
        }
        assert_eq!((&all[0]["n"], &all[1]["n"]), (&json!(2), &json!(1)));

        let user = UserCtx { db: "test".into(), name: Some("ada".into()), roles: vec!["r".into()] };
        let security =
            serde_json::from_value(json!({"admins": {"names": ["ada"], "roles": []}})).unwrap();
        let db = validating_as(&test, user).with_security(security);
        let all = args(&db, json!({"_id": "x"}));
        assert_eq!(all[2], json!({"db": "test", "name": "ada", "roles": ["r"]}));
        assert_eq!(all[3]["admins"]["names"], json!(["ada"]));

        // U-074.
        let saved = block_on(test.db.adapter().put_attachment(
            "z",
            "a",
            None,
            AttachmentHead::default(),
            Box::pin(stream::iter([Ok("x".into())])),
        ))
        .unwrap();
        let error = block_on(db.delete_attachment("z", "a", Some(saved.rev))).unwrap_err();
        let all: Value = serde_json::from_str(error.reason()).unwrap();
        assert_eq!(all[0]["_attachments"], json!({}));
        assert_eq!(all[1]["_attachments"]["a"]["stub"], true);
    }

    #[test]
    fn conflicts_and_replication() {
        let test = fixture(json!({"validate_doc_update":
            "function (newDoc, oldDoc) { if (oldDoc && oldDoc.locked) throw({forbidden: 'locked'}) }"}));
        let db = validating(&test);
        let first = put(&db, json!({"_id": "x", "locked": true})).unwrap();
        let error = put(&db, json!({"_id": "x", "_rev": first.to_string()})).unwrap_err();
        assert_eq!(error.status(), 403);
        assert!(put(&db, json!({"_id": "x"})).unwrap_err().is_conflict());
        assert!(put(&db, json!({"_id": "x", "_rev": "1-abc"})).unwrap_err().is_conflict());
        assert!(put(&db, json!({"_id": "y", "_rev": "1-abc"})).unwrap_err().is_conflict());

        let replicated = WriteOptions { new_edits: false, ..WriteOptions::default() };
        let next = json!({"_id": "x", "_revisions": {"start": 2, "ids": ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", first.id.to_string()]}});
        let results = block_on(db.bulk_docs(vec![doc(next)], &replicated)).unwrap();
        assert_eq!(results[0].as_ref().unwrap_err().error.status(), 403);
        let other = json!({"_id": "z", "_revisions": {"start": 2, "ids": ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}});
        assert!(block_on(db.bulk_docs(vec![doc(other)], &replicated)).unwrap()[0].is_ok());
    }

    #[test]
    fn a_changed_function_counts_at_once() {
        let test = fixture(json!({"validate_doc_update": ONLY_TEST}));
        let db = validating(&test);
        assert!(put(&db, json!({"_id": "other"})).is_err());
        let design = block_on(test.db.get("_design/test")).unwrap();
        let rev = design.rev.unwrap().to_string();
        test.put(
            json!({"_id": "_design/test", "_rev": rev, "validate_doc_update": "function() {}"}),
        );
        put(&db, json!({"_id": "other"})).unwrap();
    }
}

mod rewrites {
    use super::*;

    fn rules() -> Value {
        json!({
            "rewrites": [
                {"from": "foo", "to": "foo.txt"},
                {"from": "foo2", "to": "foo.txt", "method": "GET"},
                {"from": "hello/:id", "to": "_update/hello/:id", "method": "PUT"},
                {"from": "/welcome", "to": "_show/welcome"},
                {"from": "/welcome/:name", "to": "_show/welcome", "query": {"name": ":name"}},
                {"from": "/welcome2", "to": "_show/welcome", "query": {"name": "user"}},
                {"from": "/welcome3/:name", "to": "_update/welcome2/:name", "method": "PUT"},
                {"from": "/welcome3/:name", "to": "_show/welcome2/:name", "method": "GET"},
                {"from": "/welcome4/*", "to": "_show/welcome3"},
                {"from": "/welcome5/*", "to": "_show/*", "query": {"name": "*"}},
                {"from": "basicView", "to": "_view/basicView"},
                {"from": "simpleForm/basicViewFixed", "to": "_list/simpleForm/basicView", "query": {"startkey": 3, "endkey": 8}},
                {"from": "simpleForm/basicViewPath/:start/:end", "to": "_list/simpleForm/basicView", "query": {"startkey": ":start", "endkey": ":end"}, "formats": {"start": "int", "end": "int"}},
                {"from": "simpleForm/complexView3", "to": "_list/simpleForm/complexView", "query": {"key": ["test", ":a"]}},
                {"from": "simpleForm/complexView6/:a/:b", "to": "_list/simpleForm/complexView", "query": {"key": [":a", ":b"]}},
                {"from": "simpleForm/complexView7/:a", "to": "_view/complexView", "query": {"key": {"c": 1}, "descending": true, "flag": ":a"}, "formats": {"a": "bool"}},
                {"from": "/", "to": "_view/basicView"},
                {"from": "/db/*", "to": "../../*"},
                {"from": "/out", "to": "../../../_all_dbs"},
                {"from": "/far", "to": "../../../../.."},
                {"from": "/again/:n", "to": "_rewrite/hello2/:n"},
                {"from": "/hello2/:n", "to": "_show/welcome2/:n"},
                {"from": "/loop", "to": "_rewrite/loop"},
            ],
            "shows": {
                "welcome": "function(doc, req) { return 'Welcome ' + req.query['name'] }",
                "welcome2": "function(doc, req) { return 'Welcome ' + doc.name }",
                "welcome3": "function(doc, req) { return 'Welcome ' + req.path.length }",
            },
            "updates": {
                "hello": "function(doc, req) { return [{_id: req.id}, 'hello doc'] }",
                "welcome2": "function(doc, req) { return [{_id: req.id, name: req.id}, 'New World'] }",
            },
        })
    }

    #[test]
    fn rules_are_applied() {
        let test = fixture(rules());
        let target = |path: &str, stub: &Stub| {
            let request = test.target(&format!("test/{path}"), stub).unwrap();
            format!("{} {}", request.method, request.raw_path)
        };
        let plain = Stub::default();
        let put = Stub { method: Some("PUT".into()), ..Stub::default() };
        assert_eq!(target("foo", &plain), "GET /test/_design/test/foo.txt");
        assert_eq!(
            target("hello/a%2Fb", &put),
            "PUT /test/_design/test/_update/hello/a%252Fb?id=a%252Fb"
        );
        assert_eq!(
            target("welcome", &query(json!({"name": "user"}))),
            "GET /test/_design/test/_show/welcome?name=user"
        );
        assert_eq!(
            target("welcome/user", &plain),
            "GET /test/_design/test/_show/welcome?name=user"
        );
        assert_eq!(
            target("welcome2", &query(json!({"name": "x", "y": "z"}))),
            "GET /test/_design/test/_show/welcome?name=user&y=z"
        );
        assert_eq!(
            target("welcome3/test", &put),
            "PUT /test/_design/test/_update/welcome2/test?name=test"
        );
        assert_eq!(
            target("welcome5/welcome3", &plain),
            "GET /test/_design/test/_show/welcome3?name=welcome3"
        );
        assert_eq!(target("", &plain), "GET /test/_design/test/_view/basicView");
        let fixed = "GET /test/_design/test/_list/simpleForm/basicView?startkey=3&endkey=8";
        assert_eq!(target("simpleForm/basicViewFixed", &plain), fixed);
        assert_eq!(target("simpleForm/basicViewFixed", &query(json!({"startkey": "4"}))), fixed);
        assert_eq!(
            target("simpleForm/basicViewPath/3/8", &plain),
            format!("{}&start=3&end=8", fixed)
                .replace("startkey=3&endkey=8&start=3&end=8", "start=3&end=8&startkey=3&endkey=8")
        );
        assert_eq!(
            target("simpleForm/complexView3", &query(json!({"a": "essai"}))),
            "GET /test/_design/test/_list/simpleForm/complexView?a=essai&key=%5B%22test%22%2C%22essai%22%5D"
        );
        assert_eq!(
            target("simpleForm/complexView6/x/y", &plain),
            "GET /test/_design/test/_list/simpleForm/complexView?a=x&b=y&key=%5B%22x%22%2C%22y%22%5D"
        );
        assert_eq!(
            target("simpleForm/complexView7/TRUE", &plain),
            "GET /test/_design/test/_view/complexView?a=TRUE&key=%7B%22c%22%3A1%7D&descending=true&flag=true"
        );
        assert_eq!(
            target("db/_design/test", &query(json!({"meh": "true"}))),
            "GET /test/_design/test?meh=true"
        );
        let out = test.target("test/out", &plain).unwrap();
        assert_eq!((out.path, out.raw_path.as_str()), (vec!["_all_dbs".to_owned()], "/_all_dbs"));
        let error = test.target("test/far", &plain).unwrap_err();
        assert_eq!((error.status(), error.reason()), (404, "missing"));
        // U-092.
        let test = fixture(json!({"rewrites": [{"from": "/test/all", "to": "_list/test/ids"}]}));
        let request = test.target("test/test/all", &query(json!({"k": "v"}))).unwrap();
        assert_eq!(request.raw_path, "/test/_design/test/_list/test/ids?k=v");
        assert_eq!(request.requested_path.last().unwrap(), "all?k=v");
    }

    #[test]
    fn a_server_stays_within_the_database() {
        let test = fixture(rules());
        let mut request = lists_request();
        request.path = ["test", "_design", "test", "_rewrite", "foo"].map(str::to_owned).into();
        let rewrites = block_on(test.functions.rewrites("test")).unwrap();
        let error = block_on(rewrites.apply(&request)).unwrap_err();
        assert_eq!((error.status(), error.name()), (404, "insecure_rewrite_rule"));
    }

    #[test]
    fn targets_are_executed() {
        let test = fixture(rules());
        let rewrite = |path: &str, stub: &Stub| test.rewrite(&format!("test/{path}"), stub);
        let plain = Stub::default();
        let method = |method: &str| Stub { method: Some(method.into()), ..Stub::default() };
        let text = |path: &str, stub: &Stub| {
            let response = rewrite(path, stub).unwrap();
            (response.code, body(&response).to_owned())
        };
        let rev = block_on(test.db.get("_design/test")).unwrap().rev;
        let foo =
            AttachmentHead { content_type: Some("text/plain".into()), ..AttachmentHead::default() };
        let content = Box::pin(stream::iter([Ok("This is a test".into())]));
        block_on(test.db.adapter().put_attachment("_design/test", "foo.txt", rev, foo, content))
            .unwrap();
        let response = rewrite("foo", &plain).unwrap();
        assert_eq!(
            (response.header("Content-Type"), body(&response)),
            (Some("text/plain"), "This is a test")
        );
        let error = rewrite("foo", &method("POST")).unwrap_err();
        assert_eq!((error.status(), error.reason()), (405, "method 'POST' not allowed."));
        assert_eq!(rewrite("foo2", &method("POST")).unwrap_err().status(), 404);
        assert_eq!(text("hello/new", &method("PUT")), (201, "hello doc".into()));
        assert_eq!(text("welcome/user", &plain), (200, "Welcome user".into()));
        assert_eq!(text("welcome2", &plain), (200, "Welcome user".into()));
        assert_eq!(text("welcome3/test", &method("PUT")), (201, "New World".into()));
        assert_eq!(text("welcome3/test", &plain), (200, "Welcome test".into()));
        assert_eq!(text("again/test", &plain), (200, "Welcome test".into()));
        let (code, doc) = text("db/test", &plain);
        assert_eq!((code, doc.contains("\"name\":\"test\"")), (200, true));
        let (code, all) = text("db/_all_docs", &plain);
        assert_eq!(
            (code, all.starts_with(r#"{"total_rows":3,"offset":0,"rows":[{"id":"_design/test""#)),
            (200, true),
            "{all}"
        );
        // What a database does, within the reach of a rule.
        let (code, info) = text("db", &plain);
        assert_eq!((code, info.contains("\"doc_count\":3")), (200, true), "{info}");
        let post = Stub { body: Some("{\"_id\":\"sent\"}".into()), ..method("POST") };
        assert_eq!(text("db", &post).0, 201);
        assert!(text("db/_design/test/_info", &plain).1.contains("\"language\":\"javascript\""));
        let rev = block_on(test.db.current_rev("sent")).unwrap().unwrap().to_string();
        let put = Stub { body: Some("content".into()), ..method("PUT") };
        let put = Stub { query: members(json!({"rev": rev})), ..put };
        let (code, saved) = text("db/sent/a.txt", &put);
        assert_eq!((code, text("db/sent/a.txt", &plain).1.as_str()), (201, "content"));
        let rev = serde_json::from_str::<Value>(&saved).unwrap()["rev"].clone();
        let delete = Stub { query: members(json!({"rev": rev})), ..method("DELETE") };
        assert_eq!(text("db/sent/a.txt", &delete).0, 200);
        assert_eq!(rewrite("db/sent/a.txt", &plain).unwrap_err().status(), 404);
        let keys = Stub { body: Some("{\"keys\":[\"sent\",\"no\"]}".into()), ..method("POST") };
        assert!(text("db/_all_docs", &keys).1.contains("\"key\":\"no\",\"error\":\"not_found\""));
        assert_eq!(rewrite("loop", &plain).unwrap_err().status(), 400);
        assert_eq!(rewrite("out", &plain).unwrap_err().kind(), ErrorKind::NotImplemented);
    }

    #[test]
    fn rules_that_make_no_sense() {
        let error = |design: Value| {
            named(fixture(design).rewrite("test/x/y", &Stub::default()).unwrap_err())
        };
        assert_eq!(error(json!({})), (404, "rewrite_error".into(), "Invalid path.".into()));
        let (code, name, _) = error(json!({"rewrites": {"a": 1}}));
        assert_eq!((code, name.as_str()), (400, "rewrite_error"));
        let (code, name, _) = error(json!({"rewrites": [{"from": "*"}]}));
        assert_eq!((code, name.as_str()), (500, "invalid_rewrite_target"));
        assert_eq!(error(json!({"rewrites": []})), (404, "not_found".into(), "missing".into()));
    }

    #[test]
    fn functions_rewrite_too() {
        let test = fixture(json!({
            "rewrites": "function(req) {
                switch (req.path[4]) {
                    case 'text': return '_show/echo?from=own';
                    case 'full': return {path: '../../_all_docs', method: 'POST', query: {limit: '1'}, headers: {'X-a': 'b'}, body: 'x'};
                    case 'code': return {code: 418, body: 'teapot', headers: {'X-A': 'b'}};
                    case 'bad': return {path: 7};
                    case 'no': throw {forbidden: 'not you'};
                    case 'err': return undefined_;
                }
            }",
            "shows": {"echo": "function(doc, req) { return toJSON(req.query) }"},
        }));
        let response = test.rewrite("test/text", &query(json!({"a": "1"}))).unwrap();
        assert_eq!(body(&response), r#"{"a":"1","from":"own"}"#);
        let request = test.target("test/full", &query(json!({"a": "1"}))).unwrap();
        assert_eq!(
            (request.method.as_str(), request.raw_path.as_str()),
            ("POST", "/test/_all_docs?limit=1")
        );
        assert_eq!((request.header("x-A"), request.body.as_deref()), (Some("b"), Some("x")));
        let response = test.rewrite("test/code", &Stub::default()).unwrap();
        assert_eq!(
            (response.code, body(&response), response.header("X-A")),
            (418, "teapot", Some("b"))
        );
        let error = |path: &str| named(test.rewrite(path, &Stub::default()).unwrap_err());
        assert_eq!(error("test/bad"), (400, "rewrite_error".into(), "bad path".into()));
        assert_eq!(error("test/no"), (403, "forbidden".into(), "not you".into()));
        assert_eq!(error("test/none"), (404, "rewrite_error".into(), "Invalid path.".into()));
        assert_eq!(error("test/err").1, "ReferenceError");
    }
}

#[test]
fn requests_leave_nothing_behind() {
    let test = fixture(json!({
        "lib": {"n": "var n = 0; exports.next = function() { n += 1; return n }"},
        "shows": {
            "global": "function() { n = typeof n === 'undefined' ? 1 : n + 1; return String(n) }",
            "module": "function() { return String(require('lib/n').next()) }",
            "design": "function() { this.n = (this.n || 0) + 1; this.lib.x = 1; return String(this.n) + this.lib.x }",
            "types": "function() { var e; try { provides('mine', function() { return 'x' }) } catch (e) {} registerType('html', 'text/x'); return '' }",
            "html": "function() { provides('html', function() { return 'h' }) }",
        },
    }));
    for _ in 0..4 {
        for (name, wanted) in
            [("global", "1"), ("module", "1"), ("design", "undefinedundefined"), ("html", "h")]
        {
            let response = test.show(&format!("test/{name}"), &Stub::default()).unwrap();
            assert_eq!(body(&response), wanted, "{name}");
        }
        let _ = test.show("test/types", &Stub::default());
        let response = test.show("test/html", &Stub::default()).unwrap();
        assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
    }
    let engine: Arc<dyn ScriptEngine> = Arc::new(JsEngine::default());
    assert_eq!(format!("{engine:?}"), "<JsEngine>");
}
