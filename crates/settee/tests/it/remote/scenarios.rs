//! Scenarios of older libraries whose servers replicate, and of how servers and databases are named.
//! The numbers are those of the feature list (see `docs/compat.md`).

use super::site::Site;
use serde_json::{Value, json};
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions, Replicate};
use settee::replicate::{ReplicatorDoc, ReplicatorState};
use settee::{Database, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use testkit::time::{sleep, soon};

/// S-002, S-111, S-113: nothing is asked, and credentials are not shown.
#[test]
fn servers_and_databases_are_named_without_a_request() {
    for (url, shown) in [
        ("", "<Couch 'http://127.0.0.1:5984'>"),
        ("http://example.com:5984/", "<Couch 'http://example.com:5984'>"),
        ("https://username:password@example.com:5984/", "<Couch 'https://example.com:5984'>"),
        ("http://user:pass@127.0.0.1:5984", "<Couch 'http://127.0.0.1:5984'>"),
    ] {
        let remote = Remote::connect(url, &RemoteOptions::new()).unwrap();
        assert_eq!(format!("{remote:?}"), shown);
    }
    let options = RemoteOptions::new().basic("user", "pass");
    for url in ["", "http://127.0.0.1:5984"] {
        let remote = Remote::connect(url, &options).unwrap();
        assert_eq!(format!("{remote:?}"), "<Couch 'http://127.0.0.1:5984'>");
    }
    for name in ["some_db_name", "http://u:p@127.0.0.1:5984/some_db_name"] {
        let db = Database::connect(name).unwrap();
        assert_eq!(format!("{:?}", db.adapter()), "<Database 'some_db_name'>");
    }
}

/// S-112.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_opened_or_created() {
    let site = Site::start().await;
    let couch = Couch::from_host(Arc::new(site.remote()));
    assert_eq!(couch.open_db("mine").await.unwrap_err().kind(), ErrorKind::NotFound);
    let db = couch.create_if_missing("mine").await.unwrap();
    assert_eq!(db.name(), "mine");
    couch.open_db("mine").await.unwrap();
    couch.create_if_missing("mine").await.unwrap();
}

/// S-135, by the server itself and by the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied_into_a_new_one() {
    let site = Site::start().await;
    let remote = site.remote();
    let couch = Couch::from_host(Arc::new(remote.clone()));
    let old = couch.create("olddb").await.unwrap();
    for n in 0..20 {
        old.put(json!({"_id": format!("{n}"), "n": n})).await.unwrap();
    }
    let once = Replicate::new("olddb", "newdb");
    assert_eq!(remote.replicate(&once).await.unwrap_err().kind(), ErrorKind::NotFound);
    let report = remote.replicate(&once.create_target(true)).await.unwrap();
    assert_eq!((&report["ok"], &report["history"][0]["docs_written"]), (&json!(true), &json!(20)));
    let here = couch.replicate("olddb", "third").unwrap();
    assert!(here.clone().run().await.unwrap_err().is_not_found());
    assert_eq!(here.create_target().run().await.unwrap().counters.docs_written, 20);
    let rows = old.all_docs().fetch().await.unwrap().rows;
    for name in ["newdb", "third"] {
        assert_eq!(couch.db(name).unwrap().all_docs().fetch().await.unwrap().rows, rows);
    }
}

/// S-136.
#[tokio::test(flavor = "multi_thread")]
async fn push_and_pull_unite_a_local_and_a_remote_database() {
    let site = Site::start().await;
    let couch = Couch::memory().unwrap();
    let local = couch.create("local").await.unwrap();
    local.put(json!({"_id": "here"})).await.unwrap();
    let url = format!("{}/far", site.url());
    let far = Database::connect(&url).unwrap();
    let push = couch.replicate("local", &url).unwrap().create_target();
    assert!(push.run().await.unwrap().ok);
    far.put(json!({"_id": "there"})).await.unwrap();
    assert!(couch.replicate(&url, "local").unwrap().run().await.unwrap().ok);
    let ids =
        async |db: &Database| db.ids().await.unwrap().try_collect::<Vec<String>>().await.unwrap();
    assert_eq!(ids(&local).await, ["here", "there"]);
    assert_eq!(ids(&far).await, ["here", "there"]);
    // Both at once, and as handles.
    local.put(json!({"_id": "more"})).await.unwrap();
    let both = couch.sync("local", &url).unwrap().run().await.unwrap();
    assert_eq!((both.push.counters.docs_written, both.pull.counters.docs_written), (1, 0));
    assert!(local.sync(&far).run().await.unwrap().push.no_changes);
}

/// CD-12: the life of a replication as its document tells it, read and written by type.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_replications_have_a_type() {
    let site = Site::start().await;
    let couch = Couch::from_host(Arc::new(site.remote()));
    let source = couch.create("source").await.unwrap();
    source.put(json!({"_id": "a"})).await.unwrap();
    let replicator = couch.replicator().unwrap();
    replicator.create().await.unwrap();
    let until = async |id: &str, wanted: ReplicatorState| -> ReplicatorDoc {
        soon(async {
            loop {
                let doc: ReplicatorDoc = replicator.get(id).await.unwrap().to().unwrap();
                if doc.state.as_ref() == Some(&wanted) {
                    return doc;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    };
    let mut once = ReplicatorDoc::new("once", "source", "copy");
    once.create_target = true;
    replicator.put(&once).await.unwrap();
    let done = until("once", ReplicatorState::Completed).await;
    let stats = done.stats.clone().unwrap();
    assert_eq!((stats.docs_read, stats.docs_written, stats.doc_write_failures), (1, 1, 0));
    assert!(done.replication_id.is_some() && done.state_reason.is_none());
    let now = SystemTime::now();
    assert!(done.state_time.unwrap() > now - Duration::from_secs(600), "{done:?}");
    assert!(couch.db("copy").unwrap().contains("a").await.unwrap());

    // The same again, for what there is meanwhile. The server's own handle on its database reads it.
    source.put(json!({"_id": "b"})).await.unwrap();
    let local = Couch::from_host(Arc::new(site.local.clone()));
    let stored: ReplicatorDoc =
        local.replicator().unwrap().get("once").await.unwrap().to().unwrap();
    assert_eq!(stored, done);
    replicator.put(&done.again()).await.unwrap();
    soon(async {
        while !couch.db("copy").unwrap().contains("b").await.unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    // What cannot work says why.
    let loopback = format!("http://{}:1/none", site.address.ip());
    replicator.put(&ReplicatorDoc::new("never", "source", loopback)).await.unwrap();
    let failed = until("never", ReplicatorState::Failed).await;
    assert!(failed.state_reason.unwrap().contains("does not replicate with this address"));
    assert!(failed.stats.is_none());
}

/// S-137, S-138: a document in `_replicator`, made by hand or by a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_remembers_replications_and_says_how_they_are() {
    let site = Site::start().await;
    let remote = site.remote();
    let couch = Couch::from_host(Arc::new(remote.clone()));
    let local = couch.create("local").await.unwrap();
    let copies = ["one", "other"].map(|name| couch.db(name).unwrap());
    let replicator = couch.create("_replicator").await.unwrap();
    for db in &copies {
        db.create().await.unwrap();
    }
    let by_hand = json!({
        "_id": "local-to-one", "source": "local", "target": "one", "continuous": true,
    });
    replicator.put(by_hand).await.unwrap();
    let named = Replicate::new("local", "other").continuous(true);
    remote.replicate_as("local-to-other", &named).await.unwrap();
    local.put(json!({"_id": "a"})).await.unwrap();
    for (id, copy) in [("local-to-one", &copies[0]), ("local-to-other", &copies[1])] {
        soon(async {
            while !copy.contains("a").await.unwrap() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let doc: Value = replicator.get(id).await.unwrap().body.to_value();
        assert_eq!(doc["_replication_state"], "triggered", "{doc}");
        assert!(doc["_replication_id"].is_string() && doc["_replication_state_time"].is_string());
    }
    let error = remote.replicate_as("local-to-other", &named).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    remote.forget_replication("local-to-other").await.unwrap();
    assert!(!replicator.contains("local-to-other").await.unwrap());
    let error = remote.forget_replication("local-to-other").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
