//! Callbacks that are told of changes.

use futures_executor::block_on;
use serde_json::json;
use settee::options::Filter;
use settee::prelude::*;
use settee::{FeedStatus, Subscription};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use testkit::time::soon;

const SOON: Duration = Duration::from_secs(20);

/// Each call: the feed, and the ids it was told of.
type Told = Receiver<(String, Vec<String>)>;

async fn subscribe(changes: settee::Changes) -> (Subscription, Told) {
    let (send, receive) = channel();
    let callback = move |event: settee::FeedEvent<'_>| {
        let ids = event.changes.iter().map(|change| change.id.clone()).collect();
        let _ = send.send((event.feed_id.to_owned(), ids));
    };
    (changes.subscribe(callback).await.unwrap(), receive)
}

#[track_caller]
fn told(receive: &Told, ids: &[&str]) {
    assert_eq!(receive.recv_timeout(SOON).expect("the callback was not called").1, ids);
}

#[track_caller]
fn quiet(receive: &Told) {
    let nothing = receive.recv_timeout(Duration::from_millis(60));
    assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
}

async fn db() -> Database {
    Couch::memory().unwrap().create("db").await.unwrap()
}

async fn put(db: &Database, id: &str) {
    db.put_at(id, json!({})).await.unwrap();
}

#[test]
fn changes_are_gathered_for_a_while_and_then_told_at_once() {
    block_on(async {
        let db = db().await;
        let latency = Duration::from_millis(200);
        let (_subscription, receive) = subscribe(db.changes().since_now().latency(latency)).await;
        let start = Instant::now();
        for id in ["a", "b", "c"] {
            put(&db, id).await;
        }
        told(&receive, &["a", "b", "c"]);
        assert!(start.elapsed() >= latency);
        put(&db, "d").await;
        told(&receive, &["d"]);
    });
}

#[test]
fn subscriptions_with_one_filter_share_a_feed_and_leave_it_one_by_one() {
    block_on(async {
        let db = db().await;
        let now = || db.clone().changes().since_now().latency(Duration::ZERO);
        let (mut first, receive_first) = subscribe(now()).await;
        let (second, receive_second) = subscribe(now()).await;
        let (_design, receive_design) = subscribe(now().design_docs()).await;
        assert_eq!(
            (first.feed_id().as_str(), second.feed_id().as_str()),
            ("None__None", "None__None")
        );
        put(&db, "a").await;
        told(&receive_first, &["a"]);
        told(&receive_second, &["a"]);
        first.stop();
        first.stop();
        assert_eq!(first.status(), FeedStatus::Stopped);
        put(&db, "_design/b").await;
        told(&receive_second, &["_design/b"]);
        told(&receive_design, &["_design/b"]);
        assert_eq!(receive_design.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        quiet(&receive_first);
        // Who comes back is told what was missed.
        first.listen().unwrap();
        told(&receive_first, &["_design/b"]);
        drop(second);
        put(&db, "c").await;
        told(&receive_first, &["c"]);
        assert!(matches!(receive_second.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
    });
}

#[test]
fn a_feed_can_be_ended_for_everybody_by_its_filter() {
    block_on(async {
        let db = db().await;
        let now = || db.changes().since_now().latency(Duration::ZERO);
        let (subscription, receive) = subscribe(now()).await;
        let (other, receive_other) = subscribe(now().doc_ids(["b"])).await;
        subscription.detach();
        assert_eq!(db.unsubscribe(&Filter::None), 1);
        assert_eq!(db.unsubscribe(&Filter::None), 0);
        put(&db, "b").await;
        told(&receive_other, &["b"]);
        assert!(matches!(receive.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
        drop(other);
    });
}

#[test]
fn a_callback_may_unsubscribe_write_and_panic() {
    block_on(async {
        let db = db().await;
        let (send, receive) = channel();
        let inner = db.clone();
        let writing = db
            .changes()
            .since_now()
            .latency(Duration::ZERO)
            .subscribe(move |event| {
                if event.changes[0].id == "a" {
                    block_on(put(&inner, "b"));
                } else {
                    let _ = send.send(inner.unsubscribe(&Filter::None));
                }
            })
            .await
            .unwrap();
        let panicking = db.changes().since_now().design_docs().latency(Duration::ZERO);
        let panicking = panicking.subscribe(|_| panic!("this is part of the test")).await.unwrap();
        put(&db, "_design/x").await;
        let statuses: Vec<_> = soon(panicking.watch().collect()).await;
        assert_eq!(statuses.last(), Some(&FeedStatus::Stopped));
        put(&db, "a").await;
        receive.recv_timeout(SOON).unwrap();
        let statuses: Vec<_> = soon(writing.watch().collect()).await;
        assert_eq!(statuses.last(), Some(&FeedStatus::Stopped));
    });
}

#[test]
fn a_feed_ends_with_its_database_and_what_makes_no_sense_is_refused() {
    block_on(async {
        let db = db().await;
        let (subscription, receive) = subscribe(db.changes().latency(Duration::ZERO)).await;
        put(&db, "a").await;
        told(&receive, &["a"]);
        assert!(subscription.last_seq().is_some());
        let watching = subscription.watch();
        db.destroy().await.unwrap();
        let statuses: Vec<_> = soon(watching.collect()).await;
        assert_eq!(statuses.last(), Some(&FeedStatus::Stopped));
        let error = db.changes().descending().subscribe(|_| {}).await.unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(db.changes().since_now().subscribe(|_| {}).await.unwrap_err().is_not_found());
    });
}
