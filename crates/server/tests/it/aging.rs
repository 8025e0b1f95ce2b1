//! `_time_seq`, `_changes?since=TIME` and `_auto_purge`.

use crate::{Site, assert_error, put};
use serde_json::json as value;
use std::time::Duration;

#[tokio::test]
async fn changes_are_found_by_time() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/a", "{}").await;
    put(&root, "/db/b", "{}").await;
    let ids = async |since: &str| {
        let reply = root.value(&format!("/db/_changes?since={since}")).await;
        assert_eq!(reply["last_seq"], 2);
        reply["results"].as_array().unwrap().len()
    };
    assert_eq!(ids("2025-07-01T04:05:00Z").await, 2);
    assert_eq!(ids("3000-02-03T04:05:00Z").await, 0);
    let reply = root.get("/db/_changes?since=2025-01-01Txx:yy:00Z").send().await;
    assert_error(&reply, 400, "bad_request", "invalid_time_format");

    let times = root.value("/db/_time_seq").await;
    let bins = &times["time_seq"]["00000000-ffffffff"]["nonode@nohost"];
    assert_eq!(bins[0][1], 2, "{times}");
    assert!(bins[0][0].as_str().unwrap().ends_with(":00:00Z"), "{times}");
    assert_eq!(root.delete("/db/_time_seq").send().await.value(), value!({"ok": true}));
    let times = root.value("/db/_time_seq").await;
    assert_eq!(times["time_seq"]["00000000-ffffffff"]["nonode@nohost"], value!([]));
    let reply = root.put("/db/_time_seq").json("{}").send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only GET,DELETE allowed");
}

#[tokio::test]
async fn how_long_deletions_are_kept_is_given_back_as_it_was_set() {
    let site = Site::start().await;
    let root = site.with_db().await;
    assert_eq!(root.value("/db/_auto_purge").await, value!({}));
    for ttl in ["3_hour", "30_days", "infinity"] {
        let settings = value!({"deleted_document_ttl": ttl});
        let reply = root.put("/db/_auto_purge").json(&settings.to_string()).send().await;
        assert_eq!((reply.status, reply.value()), (201, value!({"ok": true})));
        assert_eq!(root.value("/db/_auto_purge").await, settings);
    }
    for (body, reason) in [
        (r#"{"deleted_document_ttl": 3}"#, "deleted_document_ttl must be a valid string"),
        (r#"{"deleted_document_ttl": "-3_hour"}"#, "deleted_document_ttl must be a valid string"),
        (r#"{"deleted_document_ttl": "3"}"#, "deleted_document_ttl must be a valid string"),
        (r#"{"ttl": "3_hour"}"#, "invalid auto purge property"),
    ] {
        let reply = root.put("/db/_auto_purge").json(body).send().await;
        assert_error(&reply, 400, "bad_request", reason);
    }
    assert_eq!(root.put("/db/_auto_purge").send().await.status, 415);
    let reply = root.delete("/db/_auto_purge").send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only GET,PUT,HEAD allowed");
    site.publish("db").await;
    assert_eq!(site.anyone().get("/db/_auto_purge").send().await.status, 200);
    let reply = site.anyone().put("/db/_auto_purge").json("{}").send().await;
    assert_eq!(reply.status, 401);
    assert_eq!(site.anyone().delete("/db/_time_seq").send().await.status, 401);
}

/// As in CouchDB a default below zero takes deletions for older than they are.
#[tokio::test]
async fn the_server_purges_deletions_that_have_served_their_time() {
    let section = "couch_auto_purge_plugin";
    let site =
        Site::with(&[(section, "deleted_document_ttl", "-6_hours"), (section, "repeat", "1_sec")])
            .await;
    let root = site.with_db().await;
    root.put("/kept").send().await;
    let forever = r#"{"deleted_document_ttl": "infinity"}"#;
    assert_eq!(root.put("/kept/_auto_purge").json(forever).send().await.status, 201);
    for db in ["db", "kept"] {
        put(&root, &format!("/{db}/alive"), "{}").await;
        put(&root, &format!("/{db}/gone"), r#"{"_deleted": true}"#).await;
    }
    while root.value("/db").await["doc_del_count"] != 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let purged = root.value("/db/_purged_infos").await;
    assert_eq!(purged["purged_infos"][0]["id"], "gone");
    assert_eq!(root.value("/db").await["doc_count"], 1);
    assert_eq!(root.value("/kept").await["doc_del_count"], 1);
    site.stop().await;
}
