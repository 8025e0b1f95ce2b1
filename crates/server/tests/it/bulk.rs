//! Many documents at once.

use crate::{Site, assert_error, put};
use serde_json::json as value;

#[tokio::test]
async fn documents_are_written_in_bulk_each_for_itself() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/b", "{}").await;
    let body = r#"{"docs":[{"_id":"a"},{"_id":"b"},{}]}"#;
    let reply = root.post("/db/_bulk_docs").json(body).send().await;
    assert_eq!(reply.status, 201);
    let results = reply.value();
    assert_eq!((&results[0]["ok"], &results[0]["id"]), (&value!(true), &value!("a")));
    assert_eq!(
        results[1],
        value!({"id": "b", "error": "conflict", "reason": "Document update conflict."})
    );
    assert_eq!(results[2]["id"].as_str().unwrap().len(), 32);
    assert_eq!(root.post("/db/_bulk_docs").json(r#"{"docs":[]}"#).send().await.value(), value!([]));
}

#[tokio::test]
async fn revisions_from_elsewhere_are_only_reported_when_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let body = r#"{"new_edits":false,"docs":[{"_id":"a","_rev":"1-abc"},{"_id":"b","_rev":"2-def",
        "_revisions":{"start":2,"ids":["def","abc"]}}]}"#;
    let reply = root.post("/db/_bulk_docs").json(body).send().await;
    assert_eq!((reply.status, reply.value()), (201, value!([])));
    assert_eq!(root.value("/db/b?revs=true").await["_revisions"]["start"], 2);
    let reply = root
        .post("/db/_bulk_docs")
        .json(r#"{"new_edits":false,"docs":[{"_id":"a"}]}"#)
        .send()
        .await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn bulk_bodies_are_checked() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.post("/nodb/_bulk_docs").json(r#"{"docs":[]}"#).send().await;
    assert_error(&reply, 404, "not_found", "Database does not exist.");
    for (body, reason) in [
        ("{}", "POST body must include `docs` parameter."),
        (r#"{"docs":1}"#, "`docs` parameter must be an array."),
        (r#"{"docs":[1]}"#, "Document must be a JSON object"),
        (r#"{"docs":[],"new_edits":1}"#, "`new_edits` parameter must be a boolean."),
        ("[]", "Request body must be a JSON object"),
        ("", "invalid UTF-8 JSON"),
    ] {
        let reply = root.post("/db/_bulk_docs").json(body).send().await;
        assert_error(&reply, 400, "bad_request", reason);
    }
    assert_eq!(root.post("/db/_bulk_docs").body("{}").send().await.status, 415);
    assert_eq!(root.get("/db/_bulk_docs").send().await.status, 405);
}

#[tokio::test]
async fn members_do_not_write_design_documents() {
    let site = Site::start().await;
    let root = site.with_db().await;
    site.publish("db").await;
    let anyone = site.anyone();
    let reason = "You are not a db or server admin.";
    let reply = anyone.put("/db/_design/d").json("{}").send().await;
    assert_error(&reply, 401, "unauthorized", reason);
    let body = r#"{"docs":[{"_id":"a"},{"_id":"_design/d"},{"_id":"_design/e"},{"_id":"b"}]}"#;
    let results = anyone.post("/db/_bulk_docs").json(body).send().await.value();
    assert_eq!(results[0]["id"], "a");
    assert_eq!(results[1], value!({"id": "_design/d", "error": "unauthorized", "reason": reason}));
    assert_eq!(results[2]["id"], "_design/e");
    assert_eq!((&results[3]["id"], &results[3]["ok"]), (&value!("b"), &value!(true)));
    assert_eq!(anyone.put("/db/_design/d/a").body("x").send().await.status, 401);
    assert_eq!(root.put("/db/_design/d").json("{}").send().await.status, 201);
    let copy = anyone.request("COPY", "/db/a").header("destination", "_design/z").send().await;
    assert_eq!(copy.status, 401);
    assert_eq!(anyone.delete("/db/_design/d?rev=1-a").send().await.status, 401);
}

#[tokio::test]
async fn documents_are_read_in_bulk() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/a", r#"{"n":1}"#).await;
    let body = value!({"docs": [
        {"id": "a"}, {"id": "a", "rev": rev}, {"id": "a", "rev": "9-abc"}, {"id": "none"}, {},
        {"id": "a", "rev": "x"}, {"rev": "1-a"}, {"id": "a", "atts_since": [5]}
    ]});
    let reply = root.post("/db/_bulk_get?revs=true").json(&body.to_string()).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let results = reply.value()["results"].clone();
    assert_eq!(results[0]["docs"][0]["ok"]["n"], 1);
    assert_eq!(results[1]["docs"][0]["ok"]["_revisions"]["start"], 1);
    let missing = |id: &str, rev: &str| value!({"error": {"id": id, "rev": rev, "error": "not_found", "reason": "missing"}});
    assert_eq!(results[2]["docs"][0], missing("a", "9-abc"));
    assert_eq!(results[3]["docs"][0], missing("none", "undefined"));
    let bad = |id: serde_json::Value, rev: serde_json::Value, reason: &str| {
        let error = value!({"id": id, "rev": rev, "error": "bad_request", "reason": reason});
        value!({"id": id, "docs": [{"error": error}]})
    };
    let null = || serde_json::Value::Null;
    assert_eq!(results[4], bad(null(), null(), "document must be a JSON object"));
    assert_eq!(results[5], bad("a".into(), "x".into(), "Invalid rev format"));
    assert_eq!(results[6], bad(null(), null(), "document id missed"));
    assert_eq!(results[7], bad("a".into(), 5.into(), "Invalid rev format"));
    for name in ["open_revs", "new_edits", "w", "rev", "atts_since"] {
        let path = format!("/db/_bulk_get?{name}=1-a");
        let reply = root.post(&path).json(r#"{"docs":[]}"#).send().await;
        let reason = format!("\"{name}\" query parameter is not acceptable");
        assert_error(&reply, 400, "bad_request", &reason);
    }
    let empty = root.post("/db/_bulk_get").json(r#"{"docs":[]}"#).send().await;
    assert_eq!(empty.value(), value!({"results": []}));
    let reply = root.post("/db/_bulk_get").json("{}").send().await;
    assert_error(&reply, 400, "bad_request", "Missing JSON list of 'docs'.");
    assert_eq!(root.post("/db/_bulk_get").body("{}").send().await.status, 415);
}

#[tokio::test]
async fn bulk_reads_come_in_parts_for_who_takes_no_json() {
    let site = Site::start().await;
    let root = site.with_db().await;
    root.put("/db/a/f").body("hello").send().await;
    put(&root, "/db/b", "{}").await;
    let body = r#"{"docs":[{"id":"a"},{"id":"b"},{"id":"none"},{}]}"#;
    let ask = async |accept: &str, query: &str| {
        let path = format!("/db/_bulk_get{query}");
        root.post(&path).json(body).header("accept", accept).send().await
    };
    let reply = ask("multipart/mixed", "?attachments=true").await;
    let media_type = reply.header("content-type").unwrap();
    let boundary = media_type.strip_prefix("multipart/mixed; boundary=").unwrap().trim_matches('"');
    let text = reply.text();
    assert_eq!(text.matches(&format!("\r\n--{boundary}\r\n")).count(), 4, "{text}");
    assert!(text.ends_with(&format!("\r\n--{boundary}--")), "{text}");
    assert!(text.contains("X-Doc-Id: a\r\n") && text.contains("hello"), "{text}");
    assert!(text.contains("error=\"true\"") && text.contains("\"rev\":\"undefined\""), "{text}");
    assert!(text.contains(r#"{"id":null,"rev":null,"error":"bad_request""#), "{text}");
    let reply = ask("multipart/related", "").await;
    assert!(reply.header("content-type").unwrap().starts_with("multipart/related"));
    assert!(!reply.text().contains("hello"));
    let reply = ask("multipart/mixed, application/json", "").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn documents_are_listed() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for id in ["a", "b", "c", "_design/d"] {
        put(&root, &format!("/db/{id}"), r#"{"n":1}"#).await;
    }
    let rev = root.value("/db/c").await["_rev"].as_str().unwrap().to_owned();
    root.delete(&format!("/db/c?rev={rev}")).send().await;
    let reply = root.get("/db/_all_docs").send().await;
    assert!(reply.text().starts_with("{\"total_rows\":3,\"offset\":0,\"rows\":[\r\n{\"id\":"));
    assert!(reply.text().ends_with("}}\r\n]}\n"), "{}", reply.text());
    let ids = async |query: &str| {
        let rows = root.value(&format!("/db/_all_docs{query}")).await["rows"].clone();
        let ids = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("").await, "_design/d a b");
    assert_eq!(ids("?startkey=%22a%22").await, "a b");
    assert_eq!(ids("?startkey=%22b%22&descending=true&limit=1").await, "b");
    assert_eq!(ids("?key=%22a%22").await, "a");
    assert_eq!(ids("?key=%22none%22").await, "");
    assert_eq!(ids("?skip=1&limit=1").await, "a");
    assert_eq!(root.value("/db/_all_docs?include_docs=true").await["rows"][1]["doc"]["n"], 1);
    assert!(root.value("/db/_all_docs?update_seq=true").await["update_seq"].is_u64());
    assert_eq!(root.value("/db/_design_docs").await["rows"][0]["id"], "_design/d");

    let post = async |body: &str| root.post("/db/_all_docs").json(body).send().await;
    let rows = post(r#"{"keys":["b","none","c","b"]}"#).await.value()["rows"].clone();
    assert_eq!(rows[0]["id"], "b");
    assert_eq!(rows[1], value!({"key": "none", "error": "not_found"}));
    assert_eq!(rows[2]["value"]["deleted"], true);
    assert_eq!(rows[3]["id"], "b");
    let reply = root.value("/db/_all_docs?keys=[%22none%22]").await;
    assert_eq!(reply["rows"][0]["error"], "not_found");
    assert_eq!(post(r#"{"startkey":"b","include_docs":true}"#).await.value()["rows"][0]["id"], "b");
    let reply = post(r#"{"keys":1}"#).await;
    assert_error(&reply, 400, "bad_request", "`keys` body member must be an array.");
    let reply = root.get("/db/_all_docs?keys=1").send().await;
    assert_error(&reply, 400, "bad_request", "`keys` parameter must be an array.");
    let reply = post(r#"{"keys":["a"],"startkey":"a"}"#).await;
    let reason = "`keys` is incompatible with `key`, `start_key` and `end_key`";
    assert_error(&reply, 400, "query_parse_error", reason);
    assert_eq!(root.get("/nodb/_all_docs").send().await.status, 404);
    assert_eq!(root.delete("/db/_all_docs").send().await.header("allow"), Some("GET,HEAD,POST"));
}

#[tokio::test]
async fn several_listings_come_at_once() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for id in ["a", "b", "_design/d"] {
        put(&root, &format!("/db/{id}"), "{}").await;
    }
    let post = async |path: &str, body: &str| root.post(path).json(body).send().await;
    let body = r#"{"queries":[{"keys":["a"]},{"limit":1,"skip":1},{"keys":[]}]}"#;
    let reply = post("/db/_all_docs/queries", body).await.value();
    assert_eq!(reply["results"][0]["rows"][0]["id"], "a");
    assert_eq!(reply["results"][1]["rows"][0]["id"], "a");
    assert_eq!(reply["results"][2]["rows"], value!([]));
    let reply = post("/db/_design_docs/queries", r#"{"queries":[{}]}"#).await.value();
    assert_eq!(reply["results"][0]["rows"].as_array().unwrap().len(), 1);
    let reply = root.post("/db/_all_docs/queries").body(r#"{"queries":[{}]}"#).send().await;
    assert_eq!(reply.status, 200, "a media type is not asked for: {reply:?}");
    let body = r#"{"keys":["a","_design/d","_design/none"]}"#;
    let reply = post("/db/_design_docs", body).await.value();
    assert_eq!((&reply["total_rows"], reply["rows"].as_array().unwrap().len()), (&value!(1), 2));
    let reply = post("/db/_local_docs", r#"{"keys":["a","_local/x"]}"#).await.value();
    assert_eq!(reply["rows"], value!([{"key": "_local/x", "error": "not_found"}]));
    for (query, reason) in [
        ("reduce=true", "Reduce is invalid for map-only views."),
        ("group=true", "Invalid use of grouping on a map view."),
        ("group_level=1", "Invalid use of grouping on a map view."),
    ] {
        let reply = root.get(&format!("/db/_all_docs?{query}")).send().await;
        assert_error(&reply, 400, "query_parse_error", reason);
    }
    assert_eq!(root.get("/db/_all_docs?reduce=false&group=false").send().await.status, 200);
    let reply = post("/db/_all_docs/queries", "{}").await;
    assert_error(&reply, 400, "bad_request", "POST body must include `queries` parameter.");
    assert_eq!(post("/db/_all_docs/queries", r#"{"queries":[{"limit":"x"}]}"#).await.status, 400);
    assert_eq!(post("/nodb/_all_docs/queries", r#"{"queries":[]}"#).await.status, 404);
}
