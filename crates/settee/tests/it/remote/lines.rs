//! What becomes of requests and feeds when lines break and servers come and go.

use super::fake::{Answer, Fake, json};
use super::line::Line;
use super::site::Site;
use serde_json::json;
use settee::adapter::ByteStream;
use settee::prelude::*;
use settee::remote::{ConnectionStatus, Remote, RemoteOptions};
use settee::{Attachment, ErrorKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::time::{sleep, soon};

fn couch(url: &str, options: &RemoteOptions) -> Couch {
    Couch::from_host(Arc::new(Remote::connect(url, options).unwrap()))
}

/// A server, a line to it, a database on either side of the line.
async fn site() -> (Site, Line, Database, Database) {
    let site = Site::start().await;
    let line = Line::to(site.address).await;
    let far = couch(&line.url(), &RemoteOptions::new()).create("db").await.unwrap();
    let near = Couch::from_host(Arc::new(site.local.clone())).db("db").unwrap();
    (site, line, far, near)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_reply_is_lost_is_done_once() {
    let (_site, line, far, near) = site().await;
    for lost in [1, 2] {
        let id = format!("doc-{lost}");
        let mut doc: Document = json!({"_id": id, "n": 1}).into_document().unwrap();
        line.lose(lost);
        far.save(&mut doc).await.unwrap();
        assert_eq!(doc.rev.as_ref().unwrap().pos, 1);
        assert_eq!(near.get(&id).await.unwrap().rev, doc.rev);

        doc.set("n", 2).unwrap();
        doc.attachments.push(Attachment::inline("t.txt", "text/plain", "text ".repeat(10_000)));
        line.lose(lost);
        far.save(&mut doc).await.unwrap();
        assert_eq!(doc.rev.as_ref().unwrap().pos, 2);

        // Somebody else's change is a conflict all the same.
        let mut stale = near.get(&id).await.unwrap();
        let mut other = stale.clone();
        other.set("n", "other").unwrap();
        near.save(&mut other).await.unwrap();
        stale.set("n", "mine").unwrap();
        line.lose(lost);
        assert!(far.save(&mut stale).await.unwrap_err().is_conflict());

        line.lose(lost);
        far.delete(&other).await.unwrap();
        assert_eq!(near.get(&id).await.unwrap_err().reason(), "deleted");
        // A new document in the place of the deleted one.
        line.lose(lost);
        let again = far.put(json!({"_id": id, "n": 5})).await.unwrap();
        assert_eq!(near.get(&id).await.unwrap().rev, Some(again.rev));

        line.lose(lost);
        let local = far.put(json!({"_id": format!("_local/{lost}"), "n": 1})).await.unwrap();
        assert_eq!(local.rev.to_string(), "0-1");
    }
    // One that has no id yet is one all the same.
    let before = near.len().await.unwrap();
    line.lose(1);
    let doc = json!({"n": 1}).into_document().unwrap();
    far.adapter().put(doc, None, &Default::default()).await.unwrap();
    assert_eq!(near.len().await.unwrap(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_writes_whose_reply_is_lost_are_done_once() {
    let (_site, line, far, near) = site().await;
    near.put(json!({"_id": "b", "by": "somebody else"})).await.unwrap();
    let docs = ["a", "b", "c"].map(|id| json!({"_id": id, "n": 1}));
    line.lose(1);
    let results = far.bulk_docs(docs, true).await.unwrap();
    let written: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(written, [true, false, true]);
    assert!(results[1].as_ref().unwrap_err().error.is_conflict());
    for id in ["a", "c"] {
        assert_eq!(near.get(id).await.unwrap().rev.unwrap().pos, 1);
    }
    line.lose(2);
    let docs = [json!({"_id": "d", "_rev": "7-abc"}), json!({"_id": "d", "_rev": "3-x"})];
    let results = far.bulk_docs(docs, false).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_repeated_and_streams_that_cannot_be_are_errors() {
    let (_site, line, far, near) = site().await;
    near.bulk_docs((0..3000).map(|n| json!({"_id": format!("{n:04}")})), true).await.unwrap();
    line.lose(2);
    assert_eq!(far.len().await.unwrap(), 3000);
    line.lose(1);
    assert_eq!(far.changes().fetch().await.unwrap().changes.len(), 3000);
    // A listing goes on behind the cut by itself; or says that it did not.
    let mut changes = far.changes().stream().await.unwrap();
    let mut ids = BTreeSet::new();
    for n in 0.. {
        if n == 5 {
            line.cut();
        }
        let Some(change) = soon(changes.try_next()).await.unwrap() else { break };
        ids.insert(change.id);
    }
    assert_eq!(ids.len(), 3000);

    let content: ByteStream = futures_util::stream::iter([Ok("x".into())]).boxed();
    let mut doc = Document::with_id("upload");
    line.lose(1);
    let error = far.put_attachment(&mut doc, "x", content, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_outlives_its_connections() {
    let (_site, line, far, near) = site().await;
    let remote = Remote::connect(&line.url(), &RemoteOptions::new()).unwrap();
    let far = Couch::from_host(Arc::new(remote.clone())).db(far.name()).unwrap();
    let mut feed = far.changes().live().await.unwrap();
    let writer = tokio::spawn({
        let near = near.clone();
        async move {
            for n in 0..200 {
                near.put(json!({"_id": format!("{n:03}")})).await.unwrap();
                if n % 50 == 10 {
                    line.cut();
                }
                if n % 50 == 20 {
                    line.lose(2);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            line
        }
    });
    let mut ids = BTreeSet::new();
    while ids.len() < 200 {
        ids.insert(soon(feed.try_next()).await.unwrap().unwrap().id);
    }
    let line = writer.await.unwrap();
    assert!(line.connections() > 4);
    assert_eq!(remote.connection_status(), ConnectionStatus::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_feed_and_a_subscription_outlive_the_server() {
    let site = Site::start().await;
    let address = site.address.to_string();
    let remote = site.remote();
    let couch = Couch::from_host(Arc::new(remote.clone()));
    let db = couch.create("db").await.unwrap();
    let mut feed = db.changes().since_now().live().await.unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let _subscription = db
        .changes()
        .since_now()
        .latency(Duration::ZERO)
        .subscribe(move |event| {
            for change in event.changes {
                let _ = send.send(change.id.clone());
            }
        })
        .await
        .unwrap();
    db.put(json!({"_id": "a"})).await.unwrap();
    assert_eq!(soon(feed.try_next()).await.unwrap().unwrap().id, "a");
    let mut statuses = remote.watch_connection();
    assert_eq!(statuses.next().await, Some(ConnectionStatus::Connected));

    let local = site.stop().await;
    let waiting = tokio::spawn(async move { (feed.try_next().await, feed) });
    assert_eq!(soon(statuses.next()).await, Some(ConnectionStatus::Disconnected));
    let near = Couch::from_host(Arc::new(local.clone())).db("db").unwrap();
    near.put(json!({"_id": "b"})).await.unwrap();
    let site = Site::over(local, &address).await;
    let (change, mut feed) = soon(waiting).await.unwrap();
    assert_eq!(change.unwrap().unwrap().id, "b");
    db.put(json!({"_id": "c"})).await.unwrap();
    assert_eq!(soon(feed.try_next()).await.unwrap().unwrap().id, "c");
    let ids: BTreeSet<String> = (0..3).map(|_| receive.recv().unwrap()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_without_a_heartbeat_is_begun_again() {
    let changes = |request: &super::fake::Request| match request.path.contains("feed=continuous") {
        true => Answer::Silent(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        false => json(200, r#"{"results":[],"last_seq":"7-x","pending":0}"#),
    };
    let fake = Fake::start(changes).await;
    let options = RemoteOptions::new().heartbeat(Duration::from_millis(20));
    let db = couch(&fake.url(), &options).db("db").unwrap();
    let mut feed = db.changes().live_batches().await.unwrap();
    for _ in 0..3 {
        let batch = soon(feed.try_next()).await.unwrap().unwrap();
        assert_eq!((batch.last_seq.to_string().as_str(), batch.changes.len()), ("7-x", 0));
    }
    let lines = fake.lines();
    let follows = lines.iter().filter(|line| line.contains("feed=continuous")).count();
    assert!(follows >= 2, "{lines:?}");
    assert!(lines.iter().skip(1).all(|line| line.contains("since=7-x")), "{lines:?}");
}

/// What a replication says of its feed counts more than what the connection says.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_says_how_often_its_source_shows_that_it_is_there() {
    let fake = Fake::start(|request| match request.path.split('?').next().unwrap() {
        "/db/_changes" if request.path.contains("feed=continuous") => {
            Answer::Silent(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())
        }
        "/db/_changes" => json(200, r#"{"results":[],"last_seq":"7-x","pending":0}"#),
        "/db" => {
            json(200, r#"{"db_name":"db","doc_count":0,"doc_del_count":0,"update_seq":"7-x"}"#)
        }
        path if path.starts_with("/db/_local/") && request.method == "PUT" => {
            json(201, r#"{"ok":true,"id":"_local/x","rev":"0-1"}"#)
        }
        _ => json(404, r#"{"error":"not_found","reason":"missing"}"#),
    })
    .await;
    let source = couch(&fake.url(), &RemoteOptions::new()).db("db").unwrap();
    let target = Couch::memory().unwrap().create("db").await.unwrap();
    let heartbeat = Duration::from_millis(30);
    let live = source.replicate_to(&target).live().heartbeat(heartbeat).start().unwrap();
    // Taken for dead without a sign, and made again.
    let follows = || fake.lines().into_iter().filter(|line| line.contains("feed=continuous"));
    soon(async {
        while follows().count() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    live.cancel();
    soon(live.wait()).await.unwrap();
    assert!(follows().all(|line| line.contains("heartbeat=30")), "{:?}", fake.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_is_an_error_after_some_attempts() {
    let start = Instant::now();
    let options = RemoteOptions::new().retries(2);
    let couch = couch("http://root:verysecret@127.0.0.1:9", &options);
    let error = couch.all_dbs().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unreachable, 502));
    assert!(!format!("{error:?} {error} {couch:?}").contains("verysecret"));
    assert!(error.reason().contains("127.0.0.1:9"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_is_asked_again_when_it_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let fake = Fake::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => super::fake::with(429, "Retry-After: 1\r\n", r#"{"error":"too_many_requests"}"#),
        1 => json(503, "<html>busy</html>"),
        _ if request.method == "PUT" => {
            json(202, r#"{"ok":true,"id":"a","rev":"1-967a00dff5e02add41819138abb3284d"}"#)
        }
        _ => json(404, r#"{"error":"not_found","reason":"missing"}"#),
    })
    .await;
    let db = couch(&fake.url(), &RemoteOptions::new()).db("db").unwrap();
    let start = Instant::now();
    db.put(json!({"_id": "a"})).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let methods: Vec<_> = fake.requests().into_iter().map(|request| request.method).collect();
    // After a 503 it is unknown what became of the write: one looks before one sends it again.
    assert_eq!(methods, ["PUT", "PUT", "GET", "PUT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let fake = Fake::start(|_| Answer::Silent(Vec::new())).await;
    let options = RemoteOptions::new().request_timeout(Duration::from_millis(50)).retries(1);
    let couch = couch(&fake.url(), &options);
    assert_eq!(couch.all_dbs().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn no_runtime_is_needed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = runtime.block_on(Site::start());
    let url = site.url();
    let without = std::thread::spawn(move || {
        futures_executor::block_on(async {
            let db = Couch::connect(&url).unwrap().create("db").await.unwrap();
            let mut feed = db.changes().since_now().live().await.unwrap();
            db.put(json!({"_id": "a"})).await.unwrap();
            assert_eq!(feed.try_next().await.unwrap().unwrap().id, "a");
            assert_eq!(db.all_docs().fetch().await.unwrap().rows.len(), 1);
            let db = Database::connect(&format!("{url}/db")).unwrap();
            assert!(db.contains("a").await.unwrap());
        });
    });
    without.join().unwrap();
}
