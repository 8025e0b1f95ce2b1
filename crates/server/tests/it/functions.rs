//! Shows, lists, updates and rewrites of design documents.

use crate::client::Client;
use crate::{Site, assert_error, put};
use serde_json::json as value;

/// A database with three documents and a design document.
async fn with_functions(site: &Site) -> Client {
    let root = site.with_db().await;
    for (id, kind) in [("a", "x"), ("b", "y"), ("c", "x")] {
        put(&root, &format!("/db/{id}"), &value!({"kind": kind}).to_string()).await;
    }
    let ddoc = value!({
        "views": {
            "by_kind": {"map": "doc => { if (doc.kind) emit(doc.kind, 1) }", "reduce": "_count"},
        },
        "shows": {
            "kind": "(doc, req) => doc ? doc.kind : 'nothing at ' + req.id",
            "request": "(doc, req) => ({json: req})",
            "page": "(doc, req) => ({code: 203, headers: {'X-Kind': 'page', 'Content-Length': '7', \
                     'Content-Type': 'text/plain'}, body: 'a page'})",
            "bytes": "(doc, req) => ({base64: 'AAEC'})",
            "fails": "(doc, req) => { throw new Error('on purpose') }",
            "refuses": "(doc, req) => { throw {forbidden: 'not you'} }",
            "provides": "function(doc, req) { provides('json', () => toJSON({as: 'json'})); \
                         provides('html', () => '<b>html</b>'); }",
        },
        "lists": {
            "lines": "function(head, req) { start({headers: {'Content-Type': 'text/plain'}}); \
                      var row; while (row = getRow()) send(row.key + ':' + row.id + '\\n'); \
                      return head.total_rows + ' in all'; }",
            "late": "function(head, req) { send('begun'); getRow(); throw new Error('too late') }",
        },
        "updates": {
            "new": "(doc, req) => [{_id: req.uuid, made: req.body}, 'made']",
            "touch": "(doc, req) => { if (!doc) return [null, 'no such document']; \
                      doc.by = req.form.by || req.query.by; \
                      return [doc, {code: 202, headers: {'X-By': doc.by}, json: {ok: 1}}] }",
            "design": "(doc, req) => [{_id: '_design/evil'}, 'done']",
        },
        "rewrites": [
            {"from": "/kinds/:kind", "to": "_list/lines/by_kind",
             "query": {"key": ":kind", "reduce": "false"}},
            {"from": "/doc/*", "to": "../../*"},
            {"from": "/show/:id", "to": "_show/request/:id"},
            {"from": "/loop", "to": "_rewrite/loop"},
            {"from": "/again/*", "to": "_rewrite/doc/*"},
            {"from": "", "to": "_show/page"},
        ],
    });
    put(&root, "/db/_design/d", &ddoc.to_string()).await;
    let other = value!({
        "views": {"ids": {"map": "doc => emit(doc._id)"}},
        "rewrites": "function(req) { \
            if (req.path[4] == 'stop') return {code: 418, headers: {'X-Pot': 'tea'}, body: 'no coffee'}; \
            if (req.path[4] == 'write') return {path: '../../' + req.query.id, method: 'PUT', \
                body: JSON.stringify({was: req.body}), headers: {'Content-Type': 'application/json'}}; \
            return {path: '../../' + req.path[4]}; }",
    });
    put(&root, "/db/_design/e", &other.to_string()).await;
    root
}

#[tokio::test]
async fn shows_make_pages_of_documents() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let show = "/db/_design/d/_show";
    let reply = root.get(&format!("{show}/kind/b")).send().await;
    assert_eq!((reply.status, reply.text()), (200, "y".to_owned()));
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
    assert_eq!(
        root.get(&format!("{show}/kind/no/where")).send().await.text(),
        "nothing at no/where"
    );
    assert_eq!(root.get(&format!("{show}/kind")).send().await.text(), "nothing at null");

    let etag = reply.header("etag").unwrap().to_owned();
    let again = root.get(&format!("{show}/kind/b")).header("if-none-match", &etag).send().await;
    assert_eq!((again.status, again.text()), (304, String::new()));

    let reply = root.get(&format!("{show}/page")).send().await;
    assert_eq!((reply.status, reply.text()), (203, "a page".to_owned()));
    assert_eq!(reply.header("x-kind"), Some("page"));
    assert_eq!(root.get(&format!("{show}/bytes")).send().await.body, [0, 1, 2]);
    assert_eq!(root.head(&format!("{show}/page")).send().await.status, 203);

    let json = root.get(&format!("{show}/provides")).header("accept", "application/json");
    assert_eq!(json.send().await.value(), value!({"as": "json"}));
    let html = root.get(&format!("{show}/provides?format=html")).send().await;
    assert_eq!(html.text(), "<b>html</b>");
    let none = root.get(&format!("{show}/provides")).header("accept", "image/png").send().await;
    assert_eq!(none.status, 406);

    assert_eq!(root.get(&format!("{show}/none")).send().await.status, 404);
    assert_eq!(root.get("/db/_design/none/_show/kind").send().await.status, 404);
    assert_error(&root.get(&format!("{show}/refuses")).send().await, 403, "forbidden", "not you");
    let failed = root.get(&format!("{show}/fails")).send().await;
    assert_eq!(failed.status, 500);
    assert!(failed.text().contains("on purpose"), "{failed:?}");
}

#[tokio::test]
async fn functions_see_the_request_but_nothing_that_logs_in() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let request = root
        .post("/db/_design/d/_show/request/a?one=1&key=%5B1%5D")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", "token=sesame")
        .header("x-own", "mine")
        .body("name=Ada+L&born=1815");
    let object = request.send().await.value();
    assert_eq!(object["method"], "POST", "{object}");
    assert_eq!(object["path"], value!(["db", "_design", "d", "_show", "request", "a"]));
    assert_eq!(object["raw_path"], "/db/_design/d/_show/request/a?one=1&key=%5B1%5D");
    assert_eq!(object["query"], value!({"one": "1", "key": [1]}));
    assert_eq!(object["form"], value!({"name": "Ada L", "born": "1815"}));
    assert_eq!(object["body"], "name=Ada+L&born=1815");
    assert_eq!(object["id"], "a");
    assert_eq!(object["headers"]["X-Own"], "mine");
    assert_eq!(object["userCtx"], value!({"db": "db", "name": "root", "roles": ["_admin"]}));
    assert_eq!(object["info"]["db_name"], "db");
    assert_eq!(object["peer"], "127.0.0.1");
    let text = object.to_string().to_lowercase();
    for secret in ["sesame", "basic ", "authorization"] {
        assert!(!text.contains(secret), "{secret}: {object}");
    }
}

#[tokio::test]
async fn lists_make_pages_of_views() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let list = "/db/_design/d/_list/lines";
    let reply = root.get(&format!("{list}/by_kind?reduce=false")).send().await;
    assert_eq!((reply.status, reply.text()), (200, "x:a\nx:c\ny:b\n3 in all".to_owned()));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let reply = root.get(&format!("{list}/by_kind?reduce=false&key=%22y%22")).send().await;
    assert_eq!(reply.text(), "y:b\n3 in all");
    let reply = root.post(&format!("{list}/by_kind?reduce=false")).json(r#"{"keys":["y"]}"#);
    assert_eq!(reply.send().await.text(), "y:b\n3 in all");
    let reply = root.get(&format!("{list}/e/ids?startkey=%22b%22&limit=1")).send().await;
    assert_eq!(reply.text(), "b:b\n3 in all");
    let reply = root.get(&format!("{list}/_all_docs?limit=1")).send().await;
    assert_eq!(reply.text(), "_design/d:_design/d\n5 in all");

    assert_eq!(root.get(&format!("{list}/none")).send().await.status, 404);
    assert_eq!(root.get("/db/_design/d/_list/none/by_kind").send().await.status, 404);
    let reply = root.get(&format!("{list}/by_kind?limit=x")).send().await;
    assert_eq!((reply.status, reply.value()["error"].clone()), (400, value!("query_parse_error")));
    for path in ["/db/_design/d/_list/lines", "/db/_design/d/_list/lines/a/b/c"] {
        assert_error(&root.get(path).send().await, 404, "list_error", "Invalid path.");
    }
    for (path, error) in [("_show", "show_error"), ("_list", "list_error")] {
        let reply = root.get(&format!("/db/_design/d/{path}")).send().await;
        assert_error(&reply, 404, error, "Invalid path.");
    }
    let reply = root.post("/db/_design/d/_update").send().await;
    assert_error(&reply, 404, "update_error", "Invalid path.");
    // What has been sent cannot be taken back: the connection breaks.
    let late = root.get("/db/_design/d/_list/late/by_kind?reduce=false");
    let late = late.open().await.read_raw().await;
    assert!(!late.contains("too late") && !late.ends_with("\r\n0\r\n\r\n"), "{late}");
}

#[tokio::test]
async fn updates_write_what_their_function_makes() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let update = "/db/_design/d/_update";
    let reply = root.post(&format!("{update}/new")).body("by post").send().await;
    assert_eq!((reply.status, reply.text()), (201, "made".to_owned()));
    let (id, rev) = (reply.header("x-couch-id").unwrap(), reply.header("x-couch-update-newrev"));
    let doc = root.value(&format!("/db/{id}")).await;
    assert_eq!((doc["made"].as_str(), doc["_rev"].as_str()), (Some("by post"), rev));

    let reply = root.put(&format!("{update}/touch/a?by=query")).send().await;
    assert_eq!((reply.status, reply.value()), (202, value!({"ok": 1})));
    assert_eq!(reply.header("x-by"), Some("query"));
    assert_eq!(root.value("/db/a").await["by"], "query");
    let form = root.put(&format!("{update}/touch/a")).body("by=form");
    let form = form.header("content-type", "application/x-www-form-urlencoded").send().await;
    assert_eq!(form.status, 202);
    assert_eq!(root.value("/db/a").await["by"], "form");
    let reply = root.post(&format!("{update}/touch")).send().await;
    assert_eq!((reply.status, reply.text()), (200, "no such document".to_owned()));
    assert_eq!(root.post(&format!("{update}/none")).send().await.status, 404);
    let reply = root.get(&format!("{update}/new")).send().await;
    assert_eq!(reply.status, 405);
}

/// A function does not lend its author's rights.
#[tokio::test]
async fn updates_write_only_what_their_caller_may() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    site.publish("db").await;
    let reply = site.anyone().post("/db/_design/d/_update/design").send().await;
    assert_eq!(reply.status, 401, "{reply:?}");
    assert_eq!(root.get("/db/_design/evil").send().await.status, 404);
    let rules =
        r#"{"validate_doc_update": "doc => { if (doc.made) throw {forbidden: 'unmade'} }"}"#;
    put(&root, "/db/_design/rules", rules).await;
    let reply = root.post("/db/_design/d/_update/new").body("x").send().await;
    assert_error(&reply, 403, "forbidden", "unmade");
    let reply = root.post("/db/_design/d/_update/design").send().await;
    assert_eq!((reply.status, reply.text()), (201, "done".to_owned()));
}

#[tokio::test]
async fn rules_rewrite_requests_within_their_database() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let rewrite = "/db/_design/d/_rewrite";
    let rows = root.get(&format!("{rewrite}/kinds/x")).send().await;
    assert_eq!((rows.status, rows.text()), (200, "x:a\nx:c\n3 in all".to_owned()));
    assert_eq!(root.value(&format!("{rewrite}/doc/b")).await["kind"], "y");
    assert_eq!(root.value(&format!("{rewrite}/again/b")).await["kind"], "y");
    let reply = root.get(rewrite).send().await;
    assert_eq!((reply.status, reply.text()), (203, "a page".to_owned()));

    // Writing goes the same way, with the body as it came.
    put(&root, &format!("{rewrite}/doc/new"), r#"{"by":"rewrite"}"#).await;
    assert_eq!(root.value("/db/new").await["by"], "rewrite");
    let png = root.put(&format!("{rewrite}/doc/file/a.png")).header("content-type", "image/png");
    assert_eq!(png.body([0, 159, 146, 150]).send().await.status, 201);
    assert_eq!(root.get("/db/file/a.png").send().await.body, [0, 159, 146, 150]);

    let object = root.value(&format!("{rewrite}/show/a")).await;
    assert_eq!(object["path"], value!(["db", "_design", "d", "_show", "request", "a"]));
    assert_eq!(object["requested_path"], value!(["db", "_design", "d", "_rewrite", "show", "a"]));

    let reply = root.get(&format!("{rewrite}/loop")).send().await;
    assert_error(&reply, 400, "bad_request", "Exceeded rewrite recursion limit");
    assert_eq!(root.get(&format!("{rewrite}/nothing/of/this")).send().await.status, 404);
    root.put("/other").send().await;
    put(&root, "/other/a", "{}").await;
    let out = r#"{"rewrites": [{"from": "/out", "to": "../../../other/a"}]}"#;
    put(&root, "/db/_design/out", out).await;
    let reply = root.get("/db/_design/out/_rewrite/out").send().await;
    assert_eq!(
        (reply.status, reply.value()["error"].clone()),
        (404, value!("insecure_rewrite_rule"))
    );
}

#[tokio::test]
async fn functions_rewrite_requests_or_answer_them() {
    let site = Site::start().await;
    let root = with_functions(&site).await;
    let rewrite = "/db/_design/e/_rewrite";
    let reply = root.get(&format!("{rewrite}/stop")).send().await;
    assert_eq!((reply.status, reply.text()), (418, "no coffee".to_owned()));
    assert_eq!(reply.header("x-pot"), Some("tea"));
    assert_eq!(root.value(&format!("{rewrite}/a")).await["kind"], "x");
    let reply = root.post(&format!("{rewrite}/write?id=fresh")).body("words").send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(root.value("/db/fresh").await["was"], "words");
    // The rights are those of who asks, not of who wrote the function.
    site.publish("db").await;
    let reply = site.anyone().post(&format!("{rewrite}/write?id=_design/x")).body("words");
    assert_eq!(reply.send().await.status, 401);
}

#[tokio::test]
async fn a_design_document_that_could_not_be_used_is_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let map = "doc => emit(doc._id)";
    for (design, error, reason) in [
        (value!({"views": 1}), "invalid_design_doc", "`views` field must have object type"),
        (value!({"views": {"v": {}}}), "invalid_design_doc", "View `v` must contain map function"),
        (
            value!({"views": {"v": {"map": map, "reduce": 1}}}),
            "invalid_design_doc",
            "`views.v.reduce` field must have string type",
        ),
        (
            value!({"views": {"v": {"map": map, "reduce": "_none"}}}),
            "invalid_design_doc",
            "`_none` is not a supported reduce function.",
        ),
        (
            value!({"lists": {"l": 1}}),
            "invalid_design_doc",
            "`lists.l` field must have string or object type",
        ),
        (
            value!({"options": {"partitioned": true}}),
            "invalid_design_doc",
            "partitioned option cannot be true in a non-partitioned database.",
        ),
        (value!({"views": {"v": {"map": "no function"}}}), "compilation_error", ""),
    ] {
        let reply = root.put("/db/_design/d").json(&design.to_string()).send().await;
        assert_eq!((reply.status, &reply.value()["error"]), (400, &value!(error)), "{design}");
        assert!(reply.value()["reason"].as_str().unwrap().contains(reason), "{design}");
        // Revisions from elsewhere too, and each for itself.
        let mut doc = design.clone();
        doc["_id"] = value!("_design/d");
        doc["_rev"] = value!("1-abc");
        let docs = value!({"new_edits": false, "docs": [doc, {"_id": "x", "_rev": "1-abc"}]});
        let reply = root.post("/db/_bulk_docs").json(&docs.to_string()).send().await;
        assert_eq!(reply.value().as_array().unwrap().len(), 1, "{design}");
        assert_eq!(reply.value()[0]["rev"], "1-abc", "{design}");
        assert_eq!(reply.value()[0]["error"], error, "{design}");
    }
    for (name, design) in [
        ("other", value!({"language": "erlang", "views": {"v": {"map": "fun() -> ok end."}}})),
        ("mango", value!({"language": "query", "views": {"v": {"map": {"fields": {}}}}})),
        ("gone", value!({"_deleted": true, "views": 1})),
    ] {
        let reply = root.put(&format!("/db/_design/{name}")).json(&design.to_string()).send().await;
        assert!(reply.status < 300, "{name}: {}", reply.text());
    }
    assert_eq!(root.get("/db/x").send().await.status, 200);
}
