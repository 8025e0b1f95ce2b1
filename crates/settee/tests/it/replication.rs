//! Replication between databases of one process: what comes across, what does not, what is remembered,
//! and that databases which replicate in any order end up the same.

use crate::random::sequences;
use futures_executor::block_on;
use futures_util::TryStreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use settee::local::{Local, LocalOptions};
use settee::options::OpenRevs;
use settee::prelude::*;
use settee::replicate::{ReplicationEvent, ReplicationStatus};
use settee::wire::RevResult;
use settee::{ErrorKind, Replication, Selector};
use std::collections::BTreeMap;
use std::sync::Arc;
use testkit::time::soon;

/// More than one piece of an attachment, and more than what goes through memory.
const LARGE: usize = 700_000;

async fn pair() -> (Database, Database) {
    let couch = Couch::memory().unwrap();
    (couch.create("source").await.unwrap(), couch.create("target").await.unwrap())
}

/// Bytes that do not repeat soon.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// A revision: whether it is a deletion, its members, and its attachments' bytes.
pub(crate) type Leaf = (bool, Value, BTreeMap<String, Vec<u8>>);

/// All documents with all their leaves, and of each the one that wins.
pub(crate) async fn everything(
    db: &Database,
) -> BTreeMap<String, (String, BTreeMap<String, Leaf>)> {
    let mut all = BTreeMap::new();
    let mut changes = db.changes().all_leaves().stream().await.unwrap();
    while let Some(change) = changes.try_next().await.unwrap() {
        let mut leaves = BTreeMap::new();
        for found in db.open_revs(&change.id, &OpenRevs::All).await.unwrap() {
            let RevResult::Found(doc) = found else { panic!("a leaf of {} is missing", change.id) };
            let rev = doc.rev.clone().unwrap();
            let mut attachments = BTreeMap::new();
            for attachment in &doc.attachments {
                let reader = db.attachment((change.id.as_str(), &rev), &attachment.name).await;
                let bytes = reader.unwrap().bytes().await.unwrap();
                attachments.insert(attachment.name.clone(), bytes.to_vec());
            }
            leaves.insert(rev.to_string(), (doc.deleted, doc.body.to_value(), attachments));
        }
        // The feed names the winner first.
        all.insert(change.id, (change.revs[0].to_string(), leaves));
    }
    all
}

/// A revision of its own beside those that are there.
pub(crate) async fn branch(db: &Database, id: &str, pos: u64, hash: char, members: Value) {
    let ids: Vec<String> = (0..pos)
        .map(|n| if n + 1 == pos { "0".repeat(32) } else { hash.to_string().repeat(32) })
        .collect();
    let mut doc = json!({"_id": id, "_revisions": {"start": pos, "ids": ids}});
    doc["_rev"] = format!("{pos}-{}", doc["_revisions"]["ids"][0].as_str().unwrap()).into();
    doc.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let results = db.bulk_docs([doc], false).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn everything_comes_across() {
    block_on(async {
        let (source, target) = pair().await;
        for n in 0..300 {
            source.put(json!({"_id": format!("doc-{n}"), "n": n})).await.unwrap();
        }
        source.put(json!({"_id": "_design/d", "language": "query"})).await.unwrap();
        // Conflicts, of which one is a deletion.
        for (pos, hash) in [(2, 'a'), (2, 'b'), (3, 'c')] {
            branch(&source, "torn", pos, hash, json!({"hash": hash.to_string()})).await;
        }
        branch(&source, "torn", 4, 'd', json!({"_deleted": true})).await;
        source.delete_current("doc-7").await.unwrap();
        source.put(json!({"_id": "att"})).await.unwrap();
        let mut doc = source.get("att").await.unwrap();
        for (name, length) in [("small", 100), ("medium", 50_000), ("large", LARGE), ("none", 0)] {
            let body = bytes(length, length as u64);
            source.put_attachment(&mut doc, name, body, Some("image/png")).await.unwrap();
        }
        // Compressed where it is stored.
        let text = "all work and no play ".repeat(40_000);
        source.put_attachment(&mut doc, "text.txt", text, None).await.unwrap();
        source.put(json!({"_id": "_local/mine"})).await.unwrap();

        let result = source.replicate_to(&target).run().await.unwrap();
        assert!(result.ok);
        assert_eq!(result.status, ReplicationStatus::Complete);
        let leaves: usize = everything(&source).await.values().map(|doc| doc.1.len()).sum();
        let counters = result.counters;
        assert_eq!(counters.docs_written, leaves as u64);
        assert_eq!((counters.docs_read, counters.doc_write_failures), (leaves as u64, 0));
        assert_eq!(everything(&target).await, everything(&source).await);
        assert_eq!(
            source.conflicts("torn").await.unwrap(),
            target.conflicts("torn").await.unwrap()
        );
        assert!(!target.contains("_local/mine").await.unwrap());
        let (digests, others) =
            (source.get("att").await.unwrap(), target.get("att").await.unwrap());
        assert_eq!(digests.attachments, others.attachments);
    });
}

#[test]
fn an_edit_brings_only_what_is_new() {
    block_on(async {
        let (source, target) = pair().await;
        source.put(json!({"_id": "a"})).await.unwrap();
        let mut doc = source.get("a").await.unwrap();
        source.put_attachment(&mut doc, "old", bytes(LARGE, 1), None).await.unwrap();
        source.replicate_to(&target).run().await.unwrap();
        let mut doc = source.get("a").await.unwrap();
        source.put_attachment(&mut doc, "new", bytes(LARGE, 2), None).await.unwrap();
        let result = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(result.counters.docs_written, 1);
        // And back: the deletion of an attachment, and of a document.
        let mut doc = target.get("a").await.unwrap();
        target.delete_attachment(&mut doc, "old").await.unwrap();
        target.replicate_to(&source).run().await.unwrap();
        assert_eq!(everything(&target).await, everything(&source).await);
        target.delete_current("a").await.unwrap();
        target.replicate_to(&source).run().await.unwrap();
        assert!(!source.contains("a").await.unwrap());
        assert_eq!(everything(&target).await, everything(&source).await);
    });
}

#[test]
fn the_next_run_goes_on_from_the_checkpoint() {
    block_on(async {
        let (source, target) = pair().await;
        for n in 0..20 {
            source.put(json!({"_id": format!("doc-{n}")})).await.unwrap();
        }
        let first = source.replicate_to(&target).batch_size(3).run().await.unwrap();
        assert!(!first.no_changes);
        assert_eq!(first.history[0]["docs_written"], 20);
        let second = source.replicate_to(&target).run().await.unwrap();
        assert!(second.no_changes);
        assert_eq!(second.counters, Default::default());
        assert_eq!(second.last_seq, first.last_seq);
        assert_eq!(second.replication_id, first.replication_id);
        source.put(json!({"_id": "one more"})).await.unwrap();
        let third = source.replicate_to(&target).run().await.unwrap();
        assert_eq!((third.counters.missing_checked, third.counters.docs_read), (1, 1));
        assert_eq!(third.history.len(), 2);
        // A target that was made anew knows nothing.
        target.destroy().await.unwrap();
        target.create().await.unwrap();
        let fourth = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(fourth.counters.docs_written, 21);
        // Who keeps no checkpoints asks again, and writes nothing.
        let fifth = source.replicate_to(&target).without_checkpoints().run().await.unwrap();
        assert_eq!((fifth.counters.missing_checked, fifth.counters.docs_written), (21, 0));
    });
}

#[test]
fn a_live_replication_follows_until_it_is_cancelled() {
    block_on(soon(async {
        let (source, target) = pair().await;
        source.put(json!({"_id": "before"})).await.unwrap();
        let live = source.replicate_to(&target).live().start().unwrap();
        let mut events = live.events();
        let mut arrived = target.changes().live().await.unwrap();
        assert_eq!(arrived.try_next().await.unwrap().unwrap().id, "before");
        for n in 0..10 {
            let id = format!("doc-{n}");
            source.put(json!({"_id": id})).await.unwrap();
            assert_eq!(arrived.try_next().await.unwrap().unwrap().id, id);
        }
        live.pause();
        while !matches!(events.next().await, Some(ReplicationEvent::Paused(None))) {}
        live.resume();
        source.delete_current("before").await.unwrap();
        assert!(arrived.try_next().await.unwrap().unwrap().deleted);
        live.cancel();
        let result = live.wait().await.unwrap();
        assert_eq!(result.status, ReplicationStatus::Cancelled);
        source.put(json!({"_id": "after"})).await.unwrap();
        let rest = source.replicate_to(&target).run().await.unwrap();
        // Cancelling leaves a checkpoint behind, but for what was on its way.
        assert!(rest.counters.missing_checked <= 2, "{rest:?}");
        assert_eq!(everything(&target).await, everything(&source).await);
    }));
}

#[test]
fn some_documents_only() {
    block_on(async {
        let (source, target) = pair().await;
        for n in 0..10 {
            source.put(json!({"_id": format!("doc-{n}"), "n": n})).await.unwrap();
        }
        let result =
            source.replicate_to(&target).doc_ids(["doc-1", "doc-3", "none"]).run().await.unwrap();
        assert_eq!(result.counters.docs_written, 2);
        assert!(target.contains("doc-1").await.unwrap());
        assert_eq!(target.len().await.unwrap(), 2);
        let selector = Selector::parse(&json!({"n": {"$gte": 7}})).unwrap();
        let run = || source.replicate_to(&target).selector(selector.clone());
        assert_eq!(run().run().await.unwrap().counters.docs_written, 3);
        assert_eq!(target.len().await.unwrap(), 5);
        // The choice has a checkpoint of its own.
        assert!(run().run().await.unwrap().no_changes);
        let all = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(all.counters.docs_written, 5);
    });
}

#[test]
fn winners_only_leave_conflicts_behind() {
    block_on(async {
        let (source, target) = pair().await;
        branch(&source, "torn", 2, 'a', json!({})).await;
        branch(&source, "torn", 3, 'b', json!({})).await;
        source.replicate_to(&target).winning_revs_only().run().await.unwrap();
        assert_eq!(target.conflicts("torn").await.unwrap(), []);
        assert_eq!(
            target.current_rev("torn").await.unwrap(),
            source.current_rev("torn").await.unwrap()
        );
    });
}

#[test]
fn refused_documents_are_counted_and_do_not_stop_the_others() {
    block_on(async {
        let source = Couch::memory().unwrap().create("source").await.unwrap();
        let mut options = LocalOptions::default();
        options.limits.document = 1000;
        let dir = tempfile::tempdir().unwrap();
        let target = Local::open(dir.path(), &options).unwrap();
        let target = Couch::from_host(Arc::new(target)).create("target").await.unwrap();
        for n in 0..20 {
            let pad = if n % 4 == 0 { 2000 } else { 10 };
            let doc = json!({"_id": format!("doc-{n}"), "pad": "x".repeat(pad)});
            source.put(doc).await.unwrap();
        }
        let result = source.replicate_to(&target).run().await.unwrap();
        assert!(!result.ok);
        assert_eq!(result.status, ReplicationStatus::Complete);
        let counters = result.counters;
        assert_eq!((counters.docs_read, counters.docs_written), (20, 15));
        assert_eq!(counters.doc_write_failures, 5);
        assert_eq!(result.errors.len(), 5);
        for denied in &result.errors {
            assert_eq!(denied.error.kind(), ErrorKind::DocumentTooLarge, "{denied:?}");
            assert!(denied.rev.is_some());
        }
        assert_eq!(target.len().await.unwrap(), 15);
        assert_eq!(result.to_pouchdb()["ok"], false);
        assert_eq!(result.to_couchdb()["history"][0]["doc_write_failures"], 5);
    });
}

#[test]
fn a_database_that_is_not_there_is_an_error() {
    block_on(async {
        let (source, target) = pair().await;
        target.destroy().await.unwrap();
        for (from, to) in [(&source, &target), (&target, &source)] {
            let error = Replication::new(from, to).run().await.unwrap_err();
            assert!(error.is_not_found());
        }
        let handle = target.replicate_to(&source).start().unwrap();
        assert!(handle.wait().await.unwrap_err().is_not_found());
    });
}

/// A random write.
async fn edit(random: &mut StdRng, db: &Database, n: u64) {
    let id = ["a", "b", "c", "d", "_design/e"][random.random_range(0..5)];
    let current = db.get_opt(id).await.unwrap();
    let choice = random.random_range(0..10);
    match (current, choice) {
        (Some(doc), 0..2) => drop(db.delete(&doc).await.unwrap()),
        (Some(mut doc), 2..5) => {
            let length = *[10, 3_000, LARGE].choose(random).unwrap();
            let name = if random.random() { "x" } else { "y.txt" };
            db.put_attachment(&mut doc, name, bytes(length, n), None).await.unwrap();
        }
        (Some(mut doc), 5..6) if !doc.attachments.is_empty() => {
            let name = doc.attachments[0].name.clone();
            db.delete_attachment(&mut doc, &name).await.unwrap();
        }
        (Some(mut doc), 6..9) => {
            doc.set("n", n).unwrap();
            db.save(&mut doc).await.unwrap();
        }
        // Some of it also becomes a conflict: another database has the same id.
        (None, _) => drop(db.put(json!({"_id": id, "n": n})).await.unwrap()),
        (Some(_), _) => {
            // A losing leaf goes.
            if let Some(rev) = db.conflicts(id).await.unwrap().choose(random) {
                db.delete((id, rev)).await.unwrap();
            }
        }
    }
}

fn converge(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    block_on(async {
        let mut dbs = Vec::new();
        for name in ["one", "two", "three"] {
            dbs.push(Couch::memory().unwrap().create(name).await.unwrap());
        }
        for n in 0..60 {
            let db = dbs.choose(&mut random).unwrap();
            edit(&mut random, db, n).await;
            match random.random_range(0..8) {
                0..2 => {
                    let between: Vec<_> = dbs.choose_multiple(&mut random, 2).collect();
                    let run = between[0].replicate_to(between[1]);
                    let batch = random.random_range(1..10);
                    run.batch_size(batch).run().await.unwrap();
                }
                2 => dbs.choose(&mut random).unwrap().compact().await.unwrap(),
                _ => {}
            }
        }
        // Around until nothing moves.
        for round in 0.. {
            assert!(round < 4, "it does not end");
            let mut written = 0;
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                let result = dbs[from].replicate_to(&dbs[to]).run().await.unwrap();
                assert!(result.ok, "{:?}", result.errors);
                written += result.counters.docs_written;
            }
            if written == 0 {
                break;
            }
        }
        let first = everything(&dbs[0]).await;
        for db in &dbs[1..] {
            assert_eq!(everything(db).await, first);
        }
    });
}

#[test]
fn databases_that_replicate_in_any_order_converge() {
    sequences(6, converge);
}
