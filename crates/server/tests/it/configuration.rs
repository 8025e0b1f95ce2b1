//! Configuration over HTTP.

use crate::{Site, assert_error};
use serde_json::json as value;
use settee_server::ConfigSource;

const CONFIG: &str = "/_node/_local/_config";

#[tokio::test]
async fn values_are_read_set_and_removed() {
    let site = Site::start().await;
    let root = site.root();
    let all = root.value(CONFIG).await;
    for section in ["admins", "chttpd", "chttpd_auth", "couchdb", "cors", "httpd"] {
        assert!(all[section].is_object(), "{section}: {all}");
    }
    let all_texts = all.as_object().unwrap().values().flat_map(|section| {
        section.as_object().unwrap().values().map(|value| value.is_string()).collect::<Vec<_>>()
    });
    assert!(all_texts.into_iter().all(|is_text| is_text));
    assert_eq!(root.value(&format!("{CONFIG}/cors")).await, value!({"credentials": "false"}));
    assert_eq!(root.value(&format!("{CONFIG}/none")).await, value!({}));
    let path = &format!("{CONFIG}/cors/max_age");
    assert_error(&root.get(path).send().await, 404, "not_found", "unknown_config_value");
    assert_eq!(root.put(path).json("\"60\"").send().await.text(), "\"\"\n");
    assert_eq!(root.put(path).json("\"61\"").send().await.text(), "\"60\"\n");
    assert_eq!(root.value(path).await, "61");
    assert_eq!(root.delete(path).send().await.text(), "\"61\"\n");
    assert_error(&root.delete(path).send().await, 404, "not_found", "unknown_config_value");
    let reply = root.put(path).json("61").send().await;
    assert_error(&reply, 400, "bad_request", "a JSON string expected");
    let reply = root.post(path).send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only GET,PUT,DELETE allowed");
    assert_eq!(root.get(&format!("{path}/more")).send().await.status, 404);
    // By the node's own name, and as in 1.x.
    assert_eq!(root.value("/_node/_local").await, value!({"name": "nonode@nohost"}));
    assert_eq!(root.value("/_node/nonode@nohost/_config").await, root.value("/_config").await);
    let reply = root.get("/_node/other/_config").send().await;
    assert_error(&reply, 404, "not_found", "no such node: other");
}

#[tokio::test]
async fn what_livesync_sets_up_takes_effect() {
    let site = Site::start().await;
    let root = site.root();
    for (key, text) in [
        ("chttpd/require_valid_user", "true"),
        ("chttpd_auth/require_valid_user", "true"),
        ("httpd/WWW-Authenticate", "Basic realm=\"couchdb\""),
        ("httpd/enable_cors", "true"),
        ("chttpd/enable_cors", "true"),
        ("chttpd/max_http_request_size", "4294967296"),
        ("couchdb/max_document_size", "50000000"),
        ("cors/credentials", "true"),
        ("cors/origins", "app://obsidian.md,capacitor://localhost,http://localhost"),
    ] {
        let body = serde_json::Value::from(text).to_string();
        let reply = root.put(&format!("{CONFIG}/{key}")).json(&body).send().await;
        assert_eq!(reply.status, 200, "{key}: {reply:?}");
    }
    let origin = "app://obsidian.md";
    let reply = root.get("/").header("origin", origin).send().await;
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
    assert_eq!(reply.header("access-control-allow-credentials"), Some("true"));
    let reply = site.anyone().get("/").send().await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"couchdb\""));
    let all = root.value(CONFIG).await;
    assert_eq!(all["couchdb"]["max_document_size"], "50000000");
    assert!(all["admins"]["root"].as_str().unwrap().starts_with("-pbkdf2:sha256-"));
}

#[tokio::test]
async fn nothing_that_runs_or_leaks_can_be_set_or_read() {
    let site = Site::start().await;
    let root = site.root();
    for path in
        ["query_servers/x", "os_daemons/x", "settee/max_connections", "couchdb/database_dir"]
    {
        let reply = root.put(&format!("{CONFIG}/{path}")).json("\"x\"").send().await;
        assert_eq!((reply.status, reply.value()["error"].as_str()), (403, Some("forbidden")));
        let reply = root.delete(&format!("{CONFIG}/{path}")).send().await;
        assert_eq!(reply.status, 403, "{path}");
    }
    assert_eq!(root.get(&format!("{CONFIG}/chttpd_auth/secret")).send().await.status, 404);
    assert!(!root.get(CONFIG).send().await.text().contains("\"secret\""));
    for (path, text) in [("chttpd/require_valid_user", "yes"), ("uuids/max_count", "many")] {
        let body = serde_json::Value::from(text).to_string();
        let reply = root.put(&format!("{CONFIG}/{path}")).json(&body).send().await;
        assert_eq!(reply.status, 400, "{path}");
    }
}

#[tokio::test]
async fn admins_come_and_go_but_never_all() {
    let site = Site::start().await;
    let root = site.root();
    let reply = root.put(&format!("{CONFIG}/admins/anna")).json("\"pw\"").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "\"\"\n"));
    let anna = site.anyone().login("anna", "pw");
    assert_eq!(anna.get("/_all_dbs").send().await.status, 200);
    let reply = anna.delete(&format!("{CONFIG}/admins/root")).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(root.get("/").send().await.status, 401);
    let reply = anna.delete(&format!("{CONFIG}/admins/anna")).send().await;
    assert_error(&reply, 403, "forbidden", "The last server admin cannot be removed.");
    assert_eq!(anna.put(&format!("{CONFIG}/admins/x")).json("\"\"").send().await.status, 400);
}

#[tokio::test]
async fn changes_outlive_the_server_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let source = || ConfigSource { data_dir: Some(dir.path().into()), ..ConfigSource::default() };
    let site = Site::from_source(source(), &[]).await;
    let set = async |key: &str, persist: &str| {
        let path = format!("{CONFIG}/cors/{key}");
        let request = site.root().put(&path).header("x-couch-persist", persist);
        assert_eq!(request.json("\"1\"").send().await.status, 200);
    };
    set("kept", "true").await;
    set("gone", "false").await;
    let reload = site.root().post("/_node/_local/_config/_reload").send().await;
    assert_eq!(reload.status, 200);
    let cors = site.root().value(&format!("{CONFIG}/cors")).await;
    assert_eq!((&cors["kept"], &cors["gone"]), (&value!("1"), &value!(null)));
    site.stop().await;
    let site = Site::from_source(source(), &[]).await;
    assert_eq!(site.root().value(&format!("{CONFIG}/cors")).await["kept"], "1");
}

#[tokio::test]
async fn the_node_tells_how_it_is() {
    let site = Site::start().await;
    let root = site.root();
    let stats = root.value("/_node/_local/_stats").await;
    assert_eq!(stats, {
        let mut again = root.value("/_stats").await;
        again["couchdb"]["httpd"]["requests"] = stats["couchdb"]["httpd"]["requests"].clone();
        let methods = &stats["couchdb"]["httpd_request_methods"];
        again["couchdb"]["httpd_request_methods"] = methods.clone();
        let codes = &stats["couchdb"]["httpd_status_codes"];
        again["couchdb"]["httpd_status_codes"] = codes.clone();
        again
    });
    let requests = root.value("/_node/_local/_stats/couchdb/httpd/requests").await;
    assert!(requests["value"].as_u64().unwrap() >= 3);
    assert_eq!(requests["type"], "counter");
    assert_eq!(root.get("/_node/_local/_stats/none").send().await.status, 404);
    let reply = root.get("/_node/_local/_prometheus").send().await;
    assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
    assert!(reply.text().contains("couchdb_httpd_request_methods{method=\"GET\"} "));
    let system = root.value("/_node/_local/_system").await;
    assert!(system["uptime"].is_u64() && system["memory"].is_object());
    assert!(root.value("/_node/_local/_versions").await["javascript_engine"].is_object());
    assert!(root.value("/_node/_local/_smoosh/status").await["channels"].is_object());
    assert_eq!(root.post("/_node/_local/_restart").send().await.value(), value!({"ok": true}));
    assert_eq!(root.post("/_restart").send().await.status, 200);
}
