//! `validate_doc_update`: what design documents refuse is refused on every way in.

use crate::{Site, assert_error, put};
use serde_json::json as value;

const RULES: &str = r#"{"validate_doc_update": "function (doc, old, user) {
    if (doc.broken) undefined_function();
    if (user.name !== 'root') throw {unauthorized: 'not root'};
    if (doc._id !== 'test' && !doc._deleted) throw {forbidden: 'only a document named test'};
}"}"#;

#[tokio::test]
async fn what_a_design_document_forbids_is_refused_on_every_way_in() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/_design/rules", &RULES.replace('\n', " ").replace("'root'", "null")).await;
    // The rules hold for the administrator too: with `null`, nobody who is logged in may.
    let reply = root.put("/db/test").json("{}").send().await;
    assert_error(&reply, 401, "unauthorized", "not root");
    let rev = root.value("/db/_design/rules").await["_rev"].as_str().unwrap().to_owned();
    let rules = RULES.replace('\n', " ");
    put(&root, &format!("/db/_design/rules?rev={rev}"), &rules).await;

    let why = "only a document named test";
    assert_error(&root.put("/db/a").json("{}").send().await, 403, "forbidden", why);
    let reply = root.post("/db").json(r#"{"_id":"a"}"#).send().await;
    assert_error(&reply, 403, "forbidden", why);
    assert_error(&root.put("/db/a/file").body("x").send().await, 403, "forbidden", why);
    let bulk = r#"{"docs":[{"_id":"a"},{"_id":"test"}]}"#;
    let results = root.post("/db/_bulk_docs").json(bulk).send().await.value();
    assert_eq!(results[0], value!({"id": "a", "error": "forbidden", "reason": why}));
    assert_eq!(results[1]["ok"], true);
    let edits = r#"{"new_edits":false,"docs":[{"_id":"b","_rev":"1-abc"}]}"#;
    let results = root.post("/db/_bulk_docs").json(edits).send().await.value();
    assert_eq!(results[0]["error"], "forbidden");
    assert_eq!(root.get("/db/b").send().await.status, 404);
    // Local and design documents always pass, and a function that fails refuses.
    put(&root, "/db/_local/x", "{}").await;
    assert!(root.put("/db/c").json(r#"{"broken":true}"#).send().await.status >= 400);
    assert_eq!(root.get("/db/c").send().await.status, 404);
}
