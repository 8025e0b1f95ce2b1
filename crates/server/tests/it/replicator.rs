//! The `_replicator` database: its documents, what is written into them, and `_scheduler/docs`.

use crate::{Client, Site, assert_error};
use serde_json::{Value, json};
use settee::Couch;
use settee_server::{Config, ConfigSource, Server};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Failures are tried again soon.
const HASTY: &[(&str, &str, &str)] =
    &[("replicator", "retry_wait", "20"), ("replicator", "retry_max_wait", "100")];

async fn site() -> (Site, Client) {
    let site = Site::with(HASTY).await;
    let root = site.with_db().await;
    for path in ["/_replicator", "/copy"] {
        assert_eq!(root.put(path).send().await.status, 201);
    }
    (site, root)
}

async fn put(client: &Client, path: &str, body: &Value) -> Value {
    let reply = client.put(path).json(&body.to_string()).send().await;
    assert_eq!(reply.status, 201, "{path} {reply:?}");
    reply.value()
}

/// What a path has once it is as wanted.
async fn until(client: &Client, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..800 {
        last = client.get(path).send().await.value();
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} stays {last}");
}

async fn until_state(client: &Client, id: &str, state: &str) -> Value {
    let path = format!("/_scheduler/docs/_replicator/{id}");
    until(client, &path, |doc| doc["state"] == state).await
}

#[tokio::test]
async fn a_document_is_a_replication_and_says_what_became_of_it() {
    let (_site, root) = site().await;
    put(&root, "/db/a", &json!({"n": 1})).await;
    put(&root, "/_replicator/once", &json!({"source": "db", "target": "copy"})).await;
    let shown = until_state(&root, "once", "completed").await;
    assert_eq!((&shown["database"], &shown["doc_id"]), (&json!("_replicator"), &json!("once")));
    assert_eq!((&shown["source"], &shown["target"]), (&json!("db"), &json!("copy")));
    assert_eq!((&shown["error_count"], &shown["info"]["docs_written"]), (&json!(0), &json!(1)));
    assert_eq!(root.value("/copy/a").await["n"], 1);

    let done = |doc: &Value| doc["_replication_state"] == "completed";
    let doc = until(&root, "/_replicator/once", done).await;
    assert_eq!(doc["_replication_id"], shown["id"]);
    assert_eq!(doc["_replication_stats"]["docs_written"], 1);
    let time = doc["_replication_state_time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!(doc.get("_replication_state_reason"), None);

    // It is done for good, until somebody takes the state away.
    put(&root, "/db/b", &json!({})).await;
    let again = json!({"_rev": doc["_rev"], "source": "db", "target": "copy"});
    put(&root, "/_replicator/once", &again).await;
    until(&root, "/copy/b", |doc| doc["_id"] == "b").await;
    until(&root, "/_replicator/once", done).await;
}

#[tokio::test]
async fn a_continuous_one_runs_until_its_document_is_gone() {
    let (_site, root) = site().await;
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    put(&root, "/_replicator/kept", &wish).await;
    let triggered = |doc: &Value| doc["_replication_state"] == "triggered";
    let doc = until(&root, "/_replicator/kept", triggered).await;
    let id = doc["_replication_id"].as_str().unwrap();
    assert!(id.ends_with("+continuous"), "{id}");
    put(&root, "/db/a", &json!({})).await;
    until(&root, "/copy/a", |doc| doc["_id"] == "a").await;
    let job = root.value(&format!("/_scheduler/jobs/{}", id.replace('+', "%2B"))).await;
    assert_eq!((&job["doc_id"], &job["database"]), (&json!("kept"), &json!("_replicator")));
    let tasks = root.value("/_active_tasks").await;
    assert_eq!((&tasks[0]["doc_id"], &tasks[0]["replication_id"]), (&json!("kept"), &json!(id)));
    // What a document wants, no request ends.
    let cancel = json!({"replication_id": id, "cancel": true}).to_string();
    assert_eq!(root.post("/_replicate").json(&cancel).send().await.status, 404);

    // Another direction.
    let doc = root.value("/_replicator/kept").await;
    let other = json!({"_rev": doc["_rev"], "source": "copy", "target": "db", "continuous": true});
    put(&root, "/_replicator/kept", &other).await;
    put(&root, "/copy/back", &json!({})).await;
    until(&root, "/db/back", |doc| doc["_id"] == "back").await;

    until(&root, "/_replicator/kept", |new| triggered(new) && new["_replication_id"] != id).await;
    let rev = root.value("/_replicator/kept").await["_rev"].as_str().unwrap().to_owned();
    let path = format!("/_replicator/kept?rev={rev}");
    assert_eq!(root.delete(&path).send().await.status, 200);
    until(&root, "/_active_tasks", |tasks| tasks == &json!([])).await;
    until(&root, "/_scheduler/docs", |docs| docs["total_rows"] == 0).await;
}

#[tokio::test]
async fn another_filter_function_is_another_replication() {
    let often = [HASTY, &[("replicator", "filter_interval", "30")]].concat();
    let site = Site::with(&often).await;
    let root = site.with_db().await;
    for path in ["/_replicator", "/copy"] {
        assert_eq!(root.put(path).send().await.status, 201);
    }
    let filter = |city: &str| {
        let code = format!("function(doc) {{ return doc.city === '{city}'; }}");
        json!({"filters": {"f": code}})
    };
    let mut design = filter("Paris");
    design["_rev"] = put(&root, "/db/_design/d", &design).await["rev"].clone();
    put(&root, "/db/a", &json!({"city": "Paris"})).await;
    put(&root, "/db/b", &json!({"city": "Rome"})).await;
    let wish = json!({"source": "db", "target": "copy", "continuous": true, "filter": "d/f"});
    put(&root, "/_replicator/some", &wish).await;
    until(&root, "/copy/a", |doc| doc["_id"] == "a").await;
    let triggered = |doc: &Value| doc["_replication_state"] == "triggered";
    let before = until(&root, "/_replicator/some", triggered).await["_replication_id"].clone();
    assert_eq!(root.get("/copy/b").send().await.status, 404);

    // All of it is read again.
    design["filters"] = filter("Rome")["filters"].clone();
    put(&root, "/db/_design/d", &design).await;
    until(&root, "/copy/b", |doc| doc["_id"] == "b").await;
    let other = |doc: &Value| triggered(doc) && doc["_replication_id"] != before;
    until(&root, "/_replicator/some", other).await;
}

#[tokio::test]
async fn what_fails_is_tried_again() {
    let (_site, root) = site().await;
    put(&root, "/db/a", &json!({})).await;
    put(&root, "/_replicator/early", &json!({"source": "db", "target": "late"})).await;
    let shown =
        until(&root, "/_scheduler/docs/_replicator/early", |doc| doc["error_count"] == 2).await;
    assert_eq!(shown["state"], "crashing");
    assert_eq!(shown["info"]["error"], "db_not_found: could not open late");
    let failed = |doc: &Value| doc["_replication_state"] == "error";
    let doc = until(&root, "/_replicator/early", failed).await;
    assert_eq!(doc["_replication_state_reason"], "db_not_found: could not open late");
    let crashing = root.value("/_scheduler/docs?states=crashing,failed").await;
    assert_eq!(crashing["docs"][0]["doc_id"], "early");
    assert_eq!(root.value("/_scheduler/docs?states=running").await["docs"], json!([]));
    assert_eq!(root.put("/late").send().await.status, 201);
    until_state(&root, "early", "completed").await;
    assert_eq!(root.value("/late/a").await["_id"], "a");
}

#[tokio::test]
async fn what_can_never_work_has_failed() {
    let (_site, root) = site().await;
    for (wish, reason) in [
        (json!({"source": "db"}), "A replication needs a source and a target."),
        (json!({"source": "db", "target": ""}), "A replication needs a source and a target."),
        (
            json!({"source": 1, "target": "copy"}),
            "The replication's members are not of the right types.",
        ),
        (
            json!({"source": "db", "target": "copy", "doc_ids": [], "selector": {}}),
            "`doc_ids`, `filter`, `selector` are mutually exclusive",
        ),
    ] {
        let reply = root.put("/_replicator/bad").json(&wish.to_string()).send().await;
        assert_error(&reply, 403, "forbidden", reason);
    }
    for (id, wish) in [
        ("illegal", json!({"source": "db", "target": "NO"})),
        ("inside", json!({"source": "db", "target": "http://x:secret@169.254.169.254/db"})),
        ("users", json!({"source": "db", "target": "_users"})),
    ] {
        put(&root, &format!("/_replicator/{id}"), &wish).await;
        let shown = until_state(&root, id, "failed").await;
        assert!(!shown.to_string().contains("secret"), "{shown}");
        let failed = |doc: &Value| doc["_replication_state"] == "failed";
        until(&root, &format!("/_replicator/{id}"), failed).await;
    }
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    put(&root, "/_replicator/first", &wish).await;
    until_state(&root, "first", "running").await;
    put(&root, "/_replicator/second", &wish).await;
    let shown = until_state(&root, "second", "failed").await;
    assert!(shown["info"]["error"].as_str().unwrap().contains("`first`"), "{shown}");
}

/// The documents hold passwords, and the server does what they say.
#[tokio::test]
async fn only_server_admins_enter_the_database() {
    let (site, root) = site().await;
    let open = json!({"members": {"roles": []}, "admins": {"roles": []}}).to_string();
    assert_eq!(root.put("/_replicator/_security").json(&open).send().await.status, 200);
    let anyone = site.anyone();
    let wish = json!({"source": "db", "target": "copy"}).to_string();
    for reply in [
        anyone.get("/_replicator").send().await,
        anyone.get("/_replicator/_all_docs").send().await,
        anyone.put("/_replicator/mine").json(&wish).send().await,
        anyone.get("/_scheduler/docs").send().await,
    ] {
        assert_eq!(reply.status, 401, "{reply:?}");
    }
}

/// A server on these databases, until told to stop.
async fn serve(couch: &Couch) -> (Client, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let mut source = ConfigSource::default();
    for (section, key, value) in
        [("chttpd_auth", "iterations", "10"), ("admins", "root", "secret")].iter().chain(HASTY)
    {
        source.overrides.push(((*section).into(), (*key).into(), (*value).into()));
    }
    let config = Config::open(source).unwrap();
    config.hash_plain_admins();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = Client::new(listener.local_addr().unwrap()).login("root", "secret");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = Server::new(couch.host().clone(), config).serve(listener, async {
        let _ = stopped.await;
    });
    (root, stop, tokio::spawn(async move { serving.await.unwrap() }))
}

#[tokio::test]
async fn replications_outlive_the_server() {
    let couch = Couch::memory().unwrap();
    let (root, stop, task) = serve(&couch).await;
    for path in ["/_replicator", "/db", "/copy"] {
        assert_eq!(root.put(path).send().await.status, 201);
    }
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    put(&root, "/_replicator/kept", &wish).await;
    put(&root, "/db/a", &json!({})).await;
    until(&root, "/copy/a", |doc| doc["_id"] == "a").await;
    put(&root, "/_replicator/once", &json!({"source": "copy", "target": "db"})).await;
    until_state(&root, "once", "completed").await;
    stop.send(()).unwrap();
    task.await.unwrap();

    let db = couch.db("db").unwrap();
    db.put(json!({"_id": "meanwhile"})).await.unwrap();
    let (root, stop, task) = serve(&couch).await;
    until(&root, "/copy/meanwhile", |doc| doc["_id"] == "meanwhile").await;
    assert_eq!(until_state(&root, "once", "completed").await["info"]["docs_written"], 0);
    // The checkpoint was kept: it did not begin again.
    let running = until_state(&root, "kept", "running").await;
    assert_eq!(running["info"]["revisions_checked"], 1, "{running}");
    stop.send(()).unwrap();
    task.await.unwrap();
}

/// With `update_docs` off, only the end is written.
#[tokio::test]
async fn documents_are_left_alone_where_that_is_wanted() {
    let site = Site::with(&[("replicator", "update_docs", "false")]).await;
    let root = site.with_db().await;
    for path in ["/_replicator", "/copy"] {
        assert_eq!(root.put(path).send().await.status, 201);
    }
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    let saved = put(&root, "/_replicator/kept", &wish).await;
    until_state(&root, "kept", "running").await;
    put(&root, "/_replicator/once", &json!({"source": "db", "target": "copy"})).await;
    until(&root, "/_replicator/once", |doc| doc["_replication_state"] == "completed").await;
    assert_eq!(root.value("/_replicator/kept").await["_rev"], saved["rev"]);
}
