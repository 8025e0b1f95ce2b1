//! The bad lines that replication is tested with do what they say.

use crate::random::sequences;
use futures_executor::block_on;
use futures_util::future::join;
use futures_util::{FutureExt, TryStreamExt};
use serde_json::json;
use settee::options::{ChangesOptions, GetOptions, Since, WriteOptions};
use settee::{Couch, Database, Document};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use testkit::faults::{Faults, Rates};

async fn loaded(count: usize) -> Database {
    let db = Couch::memory().unwrap().create("db").await.unwrap();
    db.bulk_docs((0..count).map(|n| json!({"_id": n.to_string()})), true).await.unwrap();
    db
}

#[test]
fn an_answer_is_overtaken_by_the_next() {
    block_on(async {
        let db = loaded(2).await;
        let hours = Duration::from_secs(3600);
        let faults = Faults::new(1, Rates { reorder: 1.0, delay: hours, ..Rates::default() });
        let line = faults.wrap(&db);
        let options = GetOptions::default();
        let mut first = line.get("0", &options);
        assert!((&mut first).now_or_never().is_none());
        // Nothing holds this one up, and the other comes behind it.
        faults.set(Rates::default());
        let (first, second) = join(first, line.get("1", &options)).await;
        assert_eq!(
            (first.unwrap().id.unwrap(), second.unwrap().id.unwrap()),
            ("0".into(), "1".into())
        );
    });
}

#[test]
fn a_call_is_carried_out_twice_and_the_second_answer_arrives() {
    block_on(async {
        let db = loaded(1).await;
        let below = Faults::new(1, Rates::default());
        let above = Faults::new(1, Rates { duplicate: 1.0, ..Rates::default() });
        let line = above.wrap(below.wrap(&db));
        line.get("0", &GetOptions::default()).await.unwrap();
        line.info().await.unwrap();
        assert_eq!((above.calls("get"), below.calls("get"), below.calls("info")), (1, 2, 2));
        let checkpoint: Document = json!({"_id": "_local/x"}).to_string().parse().unwrap();
        line.put(checkpoint, None, &WriteOptions::default()).await.unwrap();
        // An edit is no such thing.
        let doc: Document = json!({"_id": "new"}).to_string().parse().unwrap();
        line.put(doc, None, &WriteOptions::default()).await.unwrap();
        assert_eq!((above.calls("put"), below.calls("put")), (2, 3));
    });
}

/// Whoever begins again behind any change of it misses none.
#[test]
fn a_feed_comes_in_another_order_and_can_be_resumed_anywhere() {
    sequences(4, |seed| {
        block_on(async {
            let db = loaded(12).await;
            let faults = Faults::new(seed, Rates { reorder: 1.0, ..Rates::default() });
            let line = faults.wrap(&db);
            let read = async |since: Since| {
                let options = ChangesOptions { since, ..ChangesOptions::default() };
                let batches: Vec<_> =
                    line.changes(&options).await.unwrap().try_collect().await.unwrap();
                let changes: Vec<_> = batches.into_iter().flat_map(|batch| batch.changes).collect();
                changes
            };
            let all = read(Since::Start).await;
            let ids: Vec<String> = all.iter().map(|change| change.id.clone()).collect();
            let written: Vec<String> = (0..12).map(|n| n.to_string()).collect();
            assert_ne!(ids, written);
            assert_eq!(BTreeSet::from_iter(&ids), BTreeSet::from_iter(&written));
            let mut rest = BTreeMap::new();
            for (n, change) in all.iter().enumerate() {
                let seq = change.seq.to_string();
                if !rest.contains_key(&seq) {
                    let changes = read(Since::Seq(change.seq.clone())).await;
                    let ids: BTreeSet<_> = changes.into_iter().map(|change| change.id).collect();
                    rest.insert(seq.clone(), ids);
                }
                assert!(ids[n + 1..].iter().all(|id| rest[&seq].contains(id)), "behind {seq}");
            }
        });
    });
}
