//! Databases and what is set and asked about them as a whole.

use crate::{Site, assert_error, put};
use serde_json::json as value;

#[tokio::test]
async fn a_database_is_created_described_and_deleted() {
    let site = Site::start().await;
    let root = site.root();
    let reply = root.put("/db").send().await;
    assert_eq!((reply.status, reply.value()), (201, value!({"ok": true})));
    assert_eq!(reply.header("location"), Some("http://test/db"));
    assert_error(
        &root.put("/db").send().await,
        412,
        "file_exists",
        "The database could not be created, the file already exists.",
    );
    let info = root.value("/db").await;
    for member in [
        "db_name",
        "update_seq",
        "sizes",
        "doc_count",
        "doc_del_count",
        "purge_seq",
        "instance_start_time",
        "disk_format_version",
        "compact_running",
        "props",
        "cluster",
    ] {
        assert!(!info[member].is_null(), "{member}");
    }
    assert_eq!(root.head("/db").send().await.status, 200);
    // CouchDB's clients write a slash at the end.
    assert_eq!(root.value("/db/").await["db_name"], "db");
    let reply = root.delete("/db?rev=1-abc").send().await;
    let reason = "You tried to DELETE a database with a ?=rev parameter. \
                  Did you mean to DELETE a document instead?";
    assert_error(&reply, 400, "bad_request", reason);
    assert_eq!(root.delete("/db").send().await.value(), value!({"ok": true}));
    assert_error(&root.get("/db").send().await, 404, "not_found", "Database does not exist.");
    assert_eq!(root.delete("/db").send().await.status, 404);
    assert_eq!(root.head("/db").send().await.status, 404);
}

#[tokio::test]
async fn names_may_have_slashes_and_must_be_legal() {
    let site = Site::start().await;
    let root = site.root();
    let reply = root.put("/a%2Fb+c%2B(d)").send().await;
    assert_eq!(reply.status, 400, "a plus is a space: {reply:?}");
    let reply = root.put("/a%2Fb%2B(d)").send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(root.value("/a%2Fb%2B(d)").await["db_name"], "a/b+(d)");
    for name in ["Abc", "1a", "a.b", "a%20b", "_nope", "%C3%A4", "..", "a%00b", "a%5Cb"] {
        let reply = root.put(&format!("/{name}")).send().await;
        assert_eq!(
            (reply.status, reply.value()["error"].as_str()),
            (400, Some("illegal_database_name")),
            "{name}"
        );
        assert_eq!(root.get(&format!("/{name}")).send().await.status, 404, "{name}");
        assert_eq!(root.delete(&format!("/{name}")).send().await.status, 404, "{name}");
    }
    let reply = root.put(&format!("/{}", "a".repeat(300))).send().await;
    let reason = format!("At least one path segment of `{}` is too long.", "a".repeat(300));
    assert_error(&reply, 400, "database_name_too_long", &reason);
}

#[tokio::test]
async fn creation_options_are_checked() {
    let site = Site::start().await;
    let root = site.root();
    let reply = root.put("/db?q=0").send().await;
    let reason = "The `q` value should be a positive integer.";
    assert_error(&reply, 400, "bad_request", reason);
    let reply = root.put("/db?partitioned=x").send().await;
    assert_error(&reply, 400, "bad_request", "Invalid `partitioned` parameter");
    assert_eq!(root.put("/db?q=8&n=1&partitioned=false").send().await.status, 201);
}

#[tokio::test]
async fn new_databases_are_for_admins_until_somebody_says_otherwise() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let admin = value!({"names": [], "roles": ["_admin"]});
    let expected = value!({"admins": admin, "members": admin});
    assert_eq!(root.value("/db/_security").await, expected);
    assert_error(
        &site.anyone().get("/db").send().await,
        401,
        "unauthorized",
        "You are not authorized to access this db.",
    );
    site.publish("db").await;
    assert_eq!(site.anyone().get("/db").send().await.status, 200);
    let site = Site::with(&[("couchdb", "default_security", "everyone")]).await;
    site.with_db().await;
    assert_eq!(site.anyone().get("/db").send().await.status, 200);
}

#[tokio::test]
async fn security_objects_are_checked_and_kept() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let object = value!({
        "admins": {"names": ["anna"], "roles": []},
        "members": {"names": ["bert"], "roles": ["r"]},
        "cloudant": {"x": [1]},
    });
    let reply = root.put("/db/_security").json(&object.to_string()).send().await;
    assert_eq!((reply.status, reply.value()), (200, value!({"ok": true})));
    assert_eq!(root.value("/db/_security").await, object);
    for (body, reason) in [
        (r#"{"admins":[]}"#, "admins or members must be a JSON list of strings"),
        (r#"{"members":{"names":"x"}}"#, "names must be a JSON list of strings"),
        (r#"{"members":{"roles":[1]}}"#, "roles must be a JSON list of strings"),
        ("[]", "Request body must be a JSON object"),
    ] {
        let reply = root.put("/db/_security").json(body).send().await;
        assert_error(&reply, 400, "bad_request", reason);
    }
    let reply = root.post("/db/_security").send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only PUT,GET allowed");
    root.put("/_users").send().await;
    let reply = root.put("/_users/_security").json("{}").send().await;
    let reason = "You can't edit the security object of the user database.";
    assert_error(&reply, 403, "forbidden", reason);
}

#[tokio::test]
async fn limits_are_numbers() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for (path, default) in [("/db/_revs_limit", 1000), ("/db/_purged_infos_limit", 1000)] {
        let reply = root.get(path).send().await;
        assert_eq!(reply.text(), format!("{default}\n"), "{path}");
        assert_eq!(root.put(path).json("7").send().await.value(), value!({"ok": true}));
        assert_eq!(root.value(path).await, 7);
        for body in ["0", "-1", "\"x\"", "1.5", "{}", ""] {
            assert_eq!(root.put(path).json(body).send().await.status, 400, "{path} {body}");
        }
    }
}

#[tokio::test]
async fn upkeep_is_accepted() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let ok = value!({"ok": true});
    for path in ["/db/_compact", "/db/_view_cleanup", "/db/_sync_shards"] {
        let reply = root.post(path).json("").send().await;
        assert_eq!((reply.status, reply.value()), (202, ok.clone()), "{path}");
    }
    assert_eq!(root.post("/db/_compact").send().await.status, 415);
    assert_eq!(root.post("/db/_compact/none").json("").send().await.status, 404);
    put(&root, "/db/_design/d", "{}").await;
    assert_eq!(root.post("/db/_compact/d").json("").send().await.status, 202);
    let reply = root.post("/db/_ensure_full_commit").json("").send().await;
    assert_eq!((reply.status, reply.value()["ok"].as_bool()), (201, Some(true)));
    assert!(reply.value()["instance_start_time"].is_string());
    assert_eq!(root.post("/nope/_ensure_full_commit").json("").send().await.status, 404);
    let shards = root.value("/db/_shards").await;
    assert_eq!(shards["shards"]["00000000-ffffffff"], value!(["nonode@nohost"]));
    assert_eq!(root.value("/db/_shards/x").await["range"], "00000000-ffffffff");
}

#[tokio::test]
async fn missing_revisions_are_told() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/x", "{}").await;
    let body = value!({"x": [rev, "2-abc"], "y": ["1-def"]}).to_string();
    let reply = root.post("/db/_revs_diff").json(&body).send().await.value();
    assert_eq!(reply["x"], value!({"missing": ["2-abc"], "possible_ancestors": [rev]}));
    assert_eq!(reply["y"], value!({"missing": ["1-def"]}));
    let reply = root.post("/db/_missing_revs").json(&body).send().await.value();
    assert_eq!(reply, value!({"missing_revs": {"x": ["2-abc"], "y": ["1-def"]}}));
    let reply = root.post("/db/_revs_diff").body(body).send().await;
    assert_eq!(reply.status, 415);
    for body in ["[]", r#"{"x": "1-a"}"#, r#"{"x": ["nope"]}"#, "{"] {
        assert_eq!(root.post("/db/_revs_diff").json(body).send().await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn purged_revisions_are_gone() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/x", "{}").await;
    let body = value!({"x": [rev]}).to_string();
    let reply = root.post("/db/_purge").json(&body).send().await;
    assert_eq!((reply.status, reply.value()["purged"]["x"][0].as_str()), (201, Some(&*rev)));
    assert_error(&root.get("/db/x").send().await, 404, "not_found", "missing");
    let infos = root.value("/db/_purged_infos").await;
    assert_eq!(infos["purged_infos"][0], value!({"id": "x", "revs": [rev]}));
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let site = Site::with(&[("settee", "temp_views", "false")]).await;
    let root = site.with_db().await;
    let reply = root.post("/db/_temp_view").json("{}").send().await;
    assert_eq!((reply.status, reply.value()["error"].as_str()), (410, Some("gone")));
    let reply = root.get("/db/_partition/p").send().await;
    assert_error(&reply, 400, "bad_request", "database is not partitioned");
}
