//! Views over HTTP.

use crate::{Client, Site, assert_error, put};
use serde_json::json as value;
use std::time::Duration;

const DESIGN: &str = r#"{"views": {
    "by_n": {"map": "function(doc) { emit(doc.n, doc.t); }"},
    "counted": {"map": "function(doc) { emit([doc.n % 2, doc.n]); }", "reduce": "_count"}
}}"#;

async fn site() -> (Site, Client) {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/_design/d", DESIGN).await;
    for n in 0..5 {
        put(&root, &format!("/db/{n}"), &format!(r#"{{"n":{n},"t":"t{n}"}}"#)).await;
    }
    (site, root)
}

#[tokio::test]
async fn rows_come_as_couchdb_writes_them() {
    let (_site, root) = site().await;
    let reply = root.get("/db/_design/d/_view/by_n?limit=2&skip=1").send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.text(),
        "{\"total_rows\":5,\"offset\":1,\"rows\":[\r\n\
         {\"id\":\"1\",\"key\":1,\"value\":\"t1\"},\r\n\
         {\"id\":\"2\",\"key\":2,\"value\":\"t2\"}\r\n]}\n"
    );
    let reply = root.get("/db/_design/d/_view/counted").send().await;
    assert_eq!(reply.text(), "{\"rows\":[\r\n{\"key\":null,\"value\":5}\r\n]}\n");
    let reply = root.get("/db/_design/d/_view/counted?group_level=1&update_seq=true").send().await;
    let reply = reply.value();
    assert_eq!(reply["rows"], value!([{"key": [0], "value": 3}, {"key": [1], "value": 2}]));
    assert!(reply.get("total_rows").is_none() && reply.get("update_seq").is_some());
    let path = "/db/_design/d/_view/by_n?startkey=1&endkey=3&inclusive_end=false&include_docs=true";
    let rows = root.value(path).await["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[1]["doc"]["t"]), (2, &value!("t2")));
}

#[tokio::test]
async fn parameters_may_come_in_the_body() {
    let (_site, root) = site().await;
    let post = async |body: &str| {
        root.post("/db/_design/d/_view/by_n").json(body).send().await.value()["rows"].clone()
    };
    let ids = |rows: serde_json::Value| -> Vec<String> {
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(post(r#"{"keys":[4,0]}"#).await), ["4", "0"]);
    assert_eq!(ids(post(r#"{"keys":[4]}"#).await), ["4"]);
    assert_eq!(ids(post(r#"{"start_key":3}"#).await), ["3", "4"]);
    assert_eq!(ids(post(r#"{"key":3,"descending":true}"#).await), ["3"]);
    let reply = root.post("/db/_design/d/_view/by_n").json(r#"{"queries":[]}"#).send().await;
    let reason = "The `queries` parameter is no longer supported at this endpoint";
    assert_error(&reply, 400, "bad_request", reason);
    let body = r#"{"queries":[{"limit":1},{"keys":[2,1]},{"skip":5}]}"#;
    let reply = root.post("/db/_design/d/_view/by_n/queries").json(body).send().await.value();
    let counts: Vec<_> = reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["rows"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [1, 2, 0]);
    assert_eq!(root.get("/db/_design/d/_view/by_n/queries").send().await.status, 405);
    let reply = root.post("/db/_design/d/_view/by_n/queries").json("{}").send().await;
    assert_error(&reply, 400, "bad_request", "POST body must include `queries` parameter.");
}

#[tokio::test]
async fn parameters_are_checked() {
    let (_site, root) = site().await;
    for (query, name, reason) in [
        ("limit=-1", "query_parse_error", "Invalid value for positive integer: \"-1\""),
        ("limit=x", "query_parse_error", "Invalid value for integer: \"x\""),
        ("stale=maybe", "query_parse_error", "Invalid value for `stale`."),
        ("update=maybe", "query_parse_error", "Invalid value for `update`."),
        ("descending=maybe", "query_parse_error", "Invalid boolean parameter: \"maybe\""),
        ("startkey=x", "bad_request", "invalid UTF-8 JSON"),
        ("limit=", "query_parse_error", "Invalid value for integer: []"),
        ("keys=3", "query_parse_error", "`keys` must be an array of strings."),
        ("keys=null", "query_parse_error", "`keys` must be an array of strings."),
        ("group=true", "query_parse_error", "Invalid use of grouping on a map view."),
    ] {
        let reply = root.get(&format!("/db/_design/d/_view/by_n?{query}")).send().await;
        assert_error(&reply, 400, name, reason);
    }
    for (body, name, reason) in [
        (r#"{"keys":"x"}"#, "bad_request", "`keys` member must be an array."),
        (r#"{"limit":"1"}"#, "query_parse_error", "Invalid value for integer: <<\"1\">>"),
        (r#"{"limit":-1}"#, "query_parse_error", "Invalid value for positive integer: -1"),
        (r#"{"descending":1}"#, "query_parse_error", "Invalid boolean parameter: 1"),
    ] {
        let reply = root.post("/db/_design/d/_view/by_n").json(body).send().await;
        assert_error(&reply, 400, name, reason);
    }
    let reply = root.post("/db/_design/d/_view/by_n/queries").json(r#"{"queries":1}"#).send().await;
    assert_error(&reply, 400, "bad_request", "`queries` member must be an array.");
    let unsorted = root.value("/db/_design/d/_view/by_n?sorted=false&limit=1").await;
    assert_eq!((unsorted.get("total_rows"), unsorted["rows"].as_array().unwrap().len()), (None, 1));
    let reply = root.get("/db/_design/d/_view/none").send().await;
    assert_error(&reply, 404, "not_found", "missing_named_view");
    let reply = root.get("/db/_design/none/_view/v").send().await;
    assert_error(&reply, 404, "not_found", "missing");
}

#[tokio::test]
async fn a_reduction_that_fails_has_a_status() {
    let (_site, root) = site().await;
    let design = r#"{"views": {"v": {"map": "function(doc) { emit(doc._id, 'text') }",
        "reduce": "_stats"}}}"#;
    root.put("/db/_design/stats").json(&design.replace('\n', " ")).send().await;
    for query in ["", "?group=true"] {
        let reply = root.get(&format!("/db/_design/stats/_view/v{query}")).send().await;
        assert_eq!((reply.status, &reply.value()["error"]), (500, &value!("invalid_value")));
    }
}

#[tokio::test]
async fn indexes_are_told_of_compacted_and_cleaned_up() {
    let (_site, root) = site().await;
    root.value("/db/_design/d/_view/by_n").await;
    let info = root.value("/db/_design/d/_info").await;
    assert_eq!(
        (&info["name"], &info["view_index"]["language"]),
        (&value!("d"), &value!("javascript"))
    );
    assert_eq!(info["view_index"]["compact_running"], value!(false));
    for path in ["/db/_compact/d", "/db/_view_cleanup"] {
        let reply = root.post(path).json("").send().await;
        assert_eq!((reply.status, reply.value()), (202, value!({"ok": true})), "{path}");
    }
    assert_eq!(root.post("/db/_compact/none").json("").send().await.status, 404);
    while root.value("/_active_tasks").await != value!([]) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn admins_may_ask_for_temporary_views() {
    let (site, root) = site().await;
    let body = r#"{"map":"function(doc) { emit(doc.n, doc.n); }","reduce":"_sum"}"#;
    let reply = root.post("/db/_temp_view").json(body).send().await;
    assert_eq!(reply.value()["rows"][0]["value"], 10);
    let reply = root.post("/db/_temp_view?reduce=false&limit=1").json(body).send().await;
    assert_eq!(reply.value()["total_rows"], 5);
    let body = r#"{"map":"function(doc) { emit(doc.n); }","keys":[3,9,1],"include_docs":true}"#;
    let rows = root.post("/db/_temp_view").json(body).send().await.value()["rows"].clone();
    assert_eq!((&rows[0]["doc"]["t"], &rows[1]["doc"]["t"]), (&value!("t3"), &value!("t1")));
    site.publish("db").await;
    let reply = site.anyone().post("/db/_temp_view").json(body).send().await;
    assert_error(&reply, 401, "unauthorized", "You are not a server admin.");
}

#[tokio::test]
async fn temporary_views_may_be_switched_off() {
    let site = Site::with(&[("settee", "temp_views", "false")]).await;
    let root = site.with_db().await;
    let reply = root.post("/db/_temp_view").json(r#"{"map":"function(doc) {}"}"#).send().await;
    assert_error(&reply, 410, "gone", "Temporary views are not supported in CouchDB");
}

#[tokio::test]
async fn indexes_follow_their_database_if_they_are_to() {
    let site = Site::with(&[("settee", "keep_indexed", "true")]).await;
    let root = site.with_db().await;
    let ddoc = r#"{"views": {"v": {"map": "doc => emit(doc._id)"}}}"#;
    put(&root, "/db/_design/followed", ddoc).await;
    let left = r#"{"autoupdate": false, "views": {"w": {"map": "doc => emit(doc._rev)"}}}"#;
    put(&root, "/db/_design/left", left).await;
    let pending = async |name: &str| {
        let info = root.value(&format!("/db/_design/{name}/_info")).await;
        info["view_index"]["updates_pending"]["total"].as_u64()
    };
    for n in 0..3 {
        put(&root, &format!("/db/{n}"), "{}").await;
        while pending("followed").await != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(pending("left").await, Some(5), "nobody has asked for it");
}

#[tokio::test]
async fn the_limit_may_be_called_count_as_it_was_once() {
    let (_site, root) = site().await;
    let rows = root.value("/db/_design/d/_view/by_n?count=2").await;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
}
