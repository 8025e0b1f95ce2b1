//! Functions of design documents that answer requests, in JavaScript. Where no JavaScript runs, these
//! cases do nothing.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, doc, fails, with_design};
use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};
use settee::design::{Rendered, Response, Stub, UserCtx, Validation};
use settee::prelude::*;

macro_rules! with_design {
    ($place:expr, $($design:tt)*) => {
        match with_design(&$place, json!($($design)*)).await {
            Some(db) => db,
            None => return,
        }
    };
}

async fn put(db: &Database, docs: impl IntoIterator<Item = Value>) {
    for result in db.bulk_docs(docs.into_iter().map(doc), true).await.unwrap() {
        result.unwrap();
    }
}

fn members(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn query(query: Value) -> Stub {
    Stub { query: members(query), ..Stub::default() }
}

fn text(response: &Response) -> &str {
    response.text().unwrap()
}

async fn listed(db: &Database, path: &str, stub: &Stub) -> Result<Response> {
    db.list(path, stub).await?.collect().await
}

async fn rewritten(db: &Database, path: &str, stub: &Stub) -> Result<Response> {
    db.rewrite(path, stub).await?.collect().await
}

pub async fn s_132_a_show_makes_a_table_of_a_record(place: Place) {
    let db = with_design!(place, {"shows": {"csv": "function(doc, req) {
        var titles = ['artist', 'title', 'review', 'doc_id'];
        var row = [doc.artist, doc.title, doc.review, doc._id];
        var lines = req.query.include_titles ? [titles.join()] : [];
        return {headers: {'Content-Type': 'text/csv'}, body: lines.concat(row.join()).join('\\n')};
    }"}});
    let record = json!({
        "_id": "1978-wotw",
        "artist": "Jeff Wayne",
        "title": "War of the Worlds",
        "review": "Stimulating",
    });
    put(&db, [record]).await;
    let csv = db.show("d/csv/1978-wotw", &query(json!({"include_titles": "true"}))).await.unwrap();
    assert_eq!((csv.code, csv.header("Content-Type")), (200, Some("text/csv")));
    let row = "Jeff Wayne,War of the Worlds,Stimulating,1978-wotw";
    assert_eq!(text(&csv), format!("artist,title,review,doc_id\n{row}"));
    assert_eq!(text(&db.show("d/csv/1978-wotw", &Stub::default()).await.unwrap()), row);
}

pub async fn s_133_134_a_list_makes_a_page_of_any_view(place: Place) {
    let html = "function(head, req) {
        provides('html', function() {
            var row, items = '';
            while (row = getRow()) items += '<li>' + row.value + '</li>';
            return '<ul>' + items + '</ul>';
        });
    }";
    let by_letter = "function(doc) { if (doc.what) emit(doc.what.charAt(0), doc.what); }";
    let db =
        with_design!(place, {"lists": {"html": html}, "views": {"nomfup": {"map": by_letter}}});
    let by_day = "function(doc) { if (doc.day) emit(doc.day, doc.what); }";
    put(&db, [json!({"_id": "_design/bollockings", "views": {"byday": {"map": by_day}}})]).await;
    for (id, what, day) in [
        ("1", "nap", "2007-10-12"),
        ("2", "nod", "2007-10-13"),
        ("3", "note", "2007-10-13"),
        ("4", "number", "2007-10-14"),
        ("5", "other", "2007-10-13"),
    ] {
        put(&db, [json!({"_id": id, "what": what, "day": day})]).await;
    }
    let three = query(json!({"key": "\"n\"", "limit": 3, "descending": true}));
    let page = listed(&db, "d/html/nomfup", &three).await.unwrap();
    assert_eq!(text(&page), "<ul><li>number</li><li>note</li><li>nod</li></ul>");
    assert!(page.header("Content-Type").unwrap().starts_with("text/html"));
    let day = query(json!({"key": "\"2007-10-13\""}));
    let page = listed(&db, "d/html/bollockings/byday", &day).await.unwrap();
    assert_eq!(text(&page), "<ul><li>nod</li><li>note</li><li>other</li></ul>");
}

pub async fn u_037_a_list_has_all_the_options_of_its_view(place: Place) {
    let csv = "function(head, req) {
        start({headers: {'Content-Type': 'text/csv'}});
        if (req.query.include_header) send('id\\r\\n');
        var row;
        while (row = getRow()) send(row.id + '\\r\\n');
    }";
    let db = with_design!(place, {"lists": {"csv": csv}, "views": {
        "by_id": {"map": "function(doc) { if (doc.name) emit(doc._id, null); }"},
        "by_name": {"map": "function(doc) { if (doc.name) emit(doc.name, null); }"},
    }});
    put(&db, [json!({"_id": "1", "name": "one"}), json!({"_id": "2", "name": "two"})]).await;
    for (path, options, wanted) in [
        ("d/csv/by_id", json!({}), "1\r\n2\r\n"),
        ("_design/d/_list/csv/by_id", json!({}), "1\r\n2\r\n"),
        ("d/csv/by_id", json!({"include_header": "true"}), "id\r\n1\r\n2\r\n"),
        ("d/csv/by_id", json!({"keys": ["1"]}), "1\r\n"),
        ("d/csv/by_name", json!({"startkey": "\"o\"", "endkey": "\"p\""}), "1\r\n"),
        ("d/csv/by_name", json!({"descending": true}), "2\r\n1\r\n"),
        ("d/csv/by_name", json!({"skip": 1, "limit": 1}), "2\r\n"),
        ("d/csv/_all_docs", json!({"startkey": "\"1\"", "endkey": "\"2\""}), "1\r\n2\r\n"),
    ] {
        let page = listed(&db, path, &query(options.clone())).await.unwrap();
        assert_eq!(text(&page), wanted, "{path} {options}");
        assert_eq!(page.header("Content-Type"), Some("text/csv"));
    }
    let plain = "function(head) { while (getRow()); send('x'); }";
    put(&db, [json!({"_id": "_design/plain", "lists": {"plain": plain}})]).await;
    let page = listed(&db, "plain/plain/_all_docs", &Stub::default()).await.unwrap();
    assert_eq!((text(&page), page.header("Content-Type")), ("x", Some("application/json")));
    // Keys may come in the body.
    let body = Some(r#"{"keys": ["2", "1"]}"#.to_owned());
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    let stub = Stub { body, headers, ..Stub::default() };
    assert_eq!(text(&listed(&db, "d/csv/by_id", &stub).await.unwrap()), "2\r\n1\r\n");
    let refused = listed(&db, "d/csv/by_id", &query(json!({"limit": "x"}))).await;
    fails(refused, 400, "query_parse_error");
}

pub async fn u_038_an_update_makes_a_document_of_a_request(place: Place) {
    let db = with_design!(place, {"updates": {
        "bar": "function(doc, req) {
            if (!doc) {
                return req.id ? [{_id: req.id}, 'new doc'] : [null, 'empty doc'];
            }
            doc.world = 'hello';
            return [doc, 'hello doc'];
        }",
        "form": "function(doc, req) {
            return [null, {json: [req.method, req.form, req.query, req.body]}];
        }",
    }});
    let plain = Stub::default();
    let empty = db.run_update("d/bar", &plain).await.unwrap();
    assert_eq!((empty.code, text(&empty)), (200, "empty doc"));
    let new = db.run_update("d/bar/x%2F y", &plain).await.unwrap();
    assert_eq!((new.code, text(&new)), (201, "new doc"));
    let rev = db.get("x%2F y").await.unwrap().rev.unwrap().to_string();
    assert_eq!(new.header("X-Couch-Update-NewRev"), Some(rev.as_str()));
    let put = Stub { method: Some("PUT".to_owned()), ..Stub::default() };
    assert_eq!(text(&db.run_update("d/bar/x%2F y", &put).await.unwrap()), "hello doc");
    assert_eq!(db.get("x%2F y").await.unwrap().get("world"), Some(json!("hello")));

    // A form becomes the body.
    let (form, query) = (members(json!({"a": "1 +"})), members(json!({"q": "a&b"})));
    let stub = Stub { form, query, ..Stub::default() };
    let echoed = db.run_update("d/form", &stub).await.unwrap();
    let echoed: Value = echoed.json().unwrap();
    assert_eq!(echoed, json!(["POST", {"a": "1 +"}, {"q": "a&b"}, "a=1%20%2B"]));
}

pub async fn u_036_a_show_is_called_with_and_without_a_document(place: Place) {
    let show = "function(doc, req) { return req.id + ':' + (req.query.r || '<default>'); }";
    let db = with_design!(place, {"shows": {"bar": show}});
    let (plain, r) = (Stub::default(), query(json!({"r": "abc"})));
    for (path, stub, wanted) in [
        ("d/bar", &plain, "null:<default>"),
        ("d/bar/1", &plain, "1:<default>"),
        ("d/bar", &r, "null:abc"),
        ("_design/d/_show/bar", &r, "null:abc"),
        ("_design/d/_show/bar/1", &plain, "1:<default>"),
    ] {
        let response = db.show(path, stub).await.unwrap();
        assert_eq!(response.text().unwrap(), wanted, "{path}");
        let html = Some("text/html; charset=utf-8");
        assert_eq!(
            (response.header("Content-Type"), response.header("Vary")),
            (html, Some("Accept"))
        );
    }
}

pub async fn requests_are_shown_as_they_are_made(place: Place) {
    let db = with_design!(place, {"shows": {"args": "function(doc, req) {
        return {json: {id: doc && doc._id, method: req.method, query: req.query, req_id: req.id,
            path: req.path.slice(1), x: req.headers['X-Mine'], body: req.body}};
    }"}});
    put(&db, [json!({"_id": "a/b c"})]).await;
    let headers = vec![("x-mine".to_owned(), "here".to_owned())];
    let stub = Stub { headers, query: members(json!({"n": 1, "t": "ä"})), ..Stub::default() };
    for (path, id, req_id) in [
        ("d/args", json!(null), json!(null)),
        ("d/args/none", json!(null), json!("none")),
        ("_design/d/_show/args/a/b c", json!("a/b c"), json!("a/b c")),
        ("d/args/_design/d", json!("_design/d"), json!("_design/d")),
    ] {
        let response = db.show(path, &stub).await.unwrap();
        let shown: Value = response.json().unwrap();
        assert_eq!((&shown["id"], &shown["req_id"]), (&id, &req_id), "{path}");
        assert_eq!((&shown["method"], &shown["x"]), (&json!("GET"), &json!("here")));
        assert_eq!(shown["query"]["t"], "ä");
        assert_eq!(shown["path"][2], "_show");
    }
    let stub = Stub { body: Some("hello".to_owned()), ..Stub::default() };
    let response = db.show("d/args", &stub).await.unwrap();
    let shown: Value = response.json().unwrap();
    assert_eq!((&shown["method"], &shown["body"]), (&json!("POST"), &json!("hello")));
}

pub async fn a_function_says_what_status_and_headers_a_response_has(place: Place) {
    let db = with_design!(place, {"shows": {
        "of": "function(doc, req) {
            return {code: +req.query.code, headers: {'X-Made': 'here', Location: '/elsewhere'},
                body: 'made'};
        }",
        "bytes": "function() {
            return {base64: 'AP8=', headers: {'Content-Type': 'application/octet-stream'}};
        }",
        "json": "function() { return {code: 404, json: {error: 'mine', n: 1}}; }",
    }});
    for code in [200, 202, 302, 404, 500] {
        let response = db.show("d/of", &query(json!({"code": code}))).await.unwrap();
        assert_eq!((response.code, text(&response)), (code, "made"));
        assert_eq!(response.header("X-Made"), Some("here"));
        assert!(response.header("Location").is_some());
    }
    let bytes = db.show("d/bytes", &Stub::default()).await.unwrap();
    assert_eq!(&bytes.body[..], [0, 255]);
    assert_eq!(bytes.header("Content-Type"), Some("application/octet-stream"));
    let json = db.show("d/json", &Stub::default()).await.unwrap();
    let value: Value = json.json().unwrap();
    assert_eq!((json.code, value), (404, json!({"error": "mine", "n": 1})));
}

pub async fn what_a_function_throws_is_an_error(place: Place) {
    let db = with_design!(place, {
        "shows": {
            "forbids": "function() { throw(['error', 'forbidden', 'not you']); }",
            "own": "function() { throw({error: 'mine', reason: 'because'}); }",
            "html": "function(doc, req) { provides('html', function() { return 'h'; }); }",
        },
        "updates": {"forbids": "function() { throw(['error', 'unauthorized', 'who are you']); }"},
        "lists": {"forbids": "function() { throw(['error', 'forbidden', 'not you']); }"},
    });
    let plain = Stub::default();
    assert_eq!(fails(db.show("d/forbids", &plain).await, 403, "forbidden"), "not you");
    assert_eq!(fails(db.run_update("d/forbids", &plain).await, 401, "unauthorized"), "who are you");
    assert_eq!(fails(db.show("d/own", &plain).await, 500, "mine"), "because");
    let list = listed(&db, "d/forbids/_all_docs", &plain).await;
    assert_eq!(fails(list, 403, "forbidden"), "not you");
    let headers = vec![("Accept".to_owned(), "image/png".to_owned())];
    let stub = Stub { headers, ..Stub::default() };
    fails(db.show("d/html", &stub).await, 406, "not_acceptable");
}

pub async fn u_085_what_is_missing_is_an_error(place: Place) {
    let db = with_design!(place, {"lists": {"l": "function() {}"}});
    let plain = Stub::default();
    assert_eq!(fails(db.show("none/s", &plain).await, 404, "not_found"), "missing");
    for (result, kind) in [
        (db.show("d/none", &plain).await, "show"),
        (db.run_update("d/none", &plain).await, "update"),
        (listed(&db, "d/none/_all_docs", &plain).await, "list"),
    ] {
        let reason = fails(result, 404, "not_found");
        // CouchDB says of which member it is missing, PouchDB what it would be.
        let ours = format!("missing {kind} function none on design doc _design/d");
        assert!(reason == ours || reason.starts_with("missing json key: "), "{reason}");
    }
    fails(listed(&db, "d/l/none", &plain).await, 404, "not_found");
    fails(listed(&db, "d/l", &plain).await, 404, "list_error");
    assert_eq!(fails(db.show("", &plain).await, 404, "show_error"), "Invalid path.");
    fails(rewritten(&db, "d/none", &plain).await, 404, "rewrite_error");
}

pub async fn a_long_list_is_streamed(place: Place) {
    let db = with_design!(place, {"lists": {"long": "function(head, req) {
        var row;
        while (row = getRow()) send(row.key + ' ' + Array(1000).join('x') + '\\n');
    }"}});
    put(&db, (0..1000).map(|n| json!({"_id": format!("{n:04}")}))).await;
    let stub = query(json!({"endkey": "\"9999\""}));
    let Rendered { code, mut body, .. } = db.list("d/long/_all_docs", &stub).await.unwrap();
    assert_eq!(code, 200);
    let (mut chunks, mut whole) = (0, Vec::new());
    while let Some(chunk) = body.try_next().await.unwrap() {
        chunks += 1;
        whole.extend_from_slice(&chunk);
    }
    assert!(chunks > 1);
    let lines: Vec<&str> = std::str::from_utf8(&whole).unwrap().lines().collect();
    assert_eq!(lines.len(), 1000);
    assert!(lines.iter().enumerate().all(|(n, line)| line.starts_with(&format!("{n:04} x"))));
}

pub async fn rules_rewrite_paths(place: Place) {
    let db = with_design!(place, {
        "rewrites": [
            {"from": "/doc/:id", "to": "../../:id"},
            {"from": "/up/:id", "to": "_update/touch/:id", "method": "POST"},
            {"from": "/s/:id", "to": "_show/name/:id"},
            {"from": "/v", "to": "_view/by_n", "query": {"startkey": 2}},
            {"from": "/l/*", "to": "_list/keys/*"},
        ],
        "shows": {"name": "function(doc) { return 'I am ' + doc._id; }"},
        "updates": {"touch": "function(doc, req) { doc.touched = req.query.by; return [doc, 'touched']; }"},
        "lists": {"keys": "function() { var row; while (row = getRow()) send(row.key + ' '); }"},
        "views": {"by_n": {"map": "function(doc) { if (doc.n) emit(doc.n, null); }"}},
    });
    put(&db, (1..4).map(|n| json!({"_id": format!("d{n}"), "n": n}))).await;
    let plain = Stub::default();
    let found = rewritten(&db, "d/doc/d1", &plain).await.unwrap();
    let found: Value = found.json().unwrap();
    assert_eq!((&found["_id"], &found["n"]), (&json!("d1"), &json!(1)));
    assert_eq!(text(&rewritten(&db, "d/s/d2", &plain).await.unwrap()), "I am d2");
    let rows = rewritten(&db, "d/v", &plain).await.unwrap();
    let rows: Value = rows.json().unwrap();
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
    assert_eq!(text(&rewritten(&db, "d/l/by_n", &plain).await.unwrap()), "1 2 3 ");
    let by = Stub { method: Some("POST".to_owned()), ..query(json!({"by": "me"})) };
    let touched = rewritten(&db, "d/up/d3", &by).await.unwrap();
    assert_eq!((touched.code, text(&touched)), (201, "touched"));
    assert_eq!(db.get("d3").await.unwrap().get("touched"), Some(json!("me")));
    fails(rewritten(&db, "d/nowhere", &plain).await, 404, "not_found");

    // Where a path leads is known without going there.
    match db.rewrite_target("d/doc/d1", &query(json!({"k": "v"}))).await.unwrap() {
        settee::design::Target::Request(request) => {
            assert_eq!(request.path[1..], ["d1"]);
            assert!(
                request.raw_path.ends_with("/d1?id=d1&k=v")
                    || request.raw_path.ends_with("/d1?k=v&id=d1")
            );
        }
        other => panic!("{other:?}"),
    }
}

pub async fn validation_judges_what_is_written(place: Place) {
    let db = with_design!(place, {
        "validate_doc_update": "function(doc, old, user, sec) {
            if (doc.bad) throw({forbidden: 'bad'});
        }",
        "updates": {"make": "function(doc, req) { return [{_id: req.id, bad: !!req.query.bad}, 'made']; }"},
    });
    let db = db.validating(Validation::default());
    put(&db, [json!({"_id": "good"})]).await;
    assert_eq!(fails(db.put(doc(json!({"_id": "x", "bad": true}))).await, 403, "forbidden"), "bad");
    let results =
        db.bulk_docs([doc(json!({"_id": "y", "bad": true})), doc(json!({"_id": "z"}))], true);
    let results = results.await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().error.status(), 403);
    assert!(results[1].is_ok());
    assert_eq!(db.run_update("d/make/ok", &Stub::default()).await.unwrap().code, 201);
    let refused = db.run_update("d/make/not", &query(json!({"bad": 1}))).await;
    assert_eq!(fails(refused, 403, "forbidden"), "bad");
    assert!(!db.contains("not").await.unwrap());

    // Whoever wants to know before a server does may judge here.
    let rules = json!({"_id": "_design/rules", "validate_doc_update":
        "function(doc, old, user, sec) {
            if (user.name !== 'ada') throw({unauthorized: user.name + ' is not ada'});
        }"});
    let nobody =
        UserCtx { name: Some("bob".to_owned()), roles: vec![], ..UserCtx::admin(db.name()) };
    let check = Validation { user: Some(nobody), check_remote: true, ..Validation::default() };
    db.put(doc(rules)).await.unwrap();
    let refused = db.validating(check).put(doc(json!({"_id": "w"}))).await;
    assert_eq!(fails(refused, 401, "unauthorized"), "bob is not ada");
}
