//! Replication over bad lines: whatever fails at whatever step, databases that go on replicating end
//! up the same.
//!
//! A failure prints its seed, and `SETTEE_SEED=…` does the same again.

use crate::random::sequences;
use futures_executor::block_on;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use settee::local::{Local, LocalOptions};
use settee::options::{GetOptions, OpenRevs};
use settee::prelude::*;
use settee::replicate::{Backoff, ReplicateOptions, ReplicationStatus};
use settee::wire::{RevResult, Seq};
use settee::{Attachment, ErrorKind, Replication};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use testkit::faults::{Faults, Rates};
use testkit::time::{sleep, soon};

/// Short waits, and as many attempts as it takes.
pub(crate) fn persistent() -> ReplicateOptions {
    let mut options = ReplicateOptions::default();
    options.retry = true;
    options.retries = 1;
    options.backoff =
        Backoff { first: Duration::from_micros(100), longest: Duration::from_millis(2) };
    options.batch_size = 7;
    options
}

/// All documents as they are seen from outside: the winner, and every leaf with its history and its
/// attachments.
pub(crate) async fn everything(
    db: &Database,
) -> BTreeMap<String, (String, BTreeMap<String, String>)> {
    let mut all = BTreeMap::new();
    let options =
        GetOptions { revs: true, attachments: true, att_encoding_info: true, ..Default::default() };
    for change in db.changes().all_leaves().fetch().await.unwrap().changes {
        let leaves = db.adapter().open_revs(&change.id, &OpenRevs::All, &options).await.unwrap();
        let leaves = leaves.into_iter().map(|leaf| match leaf {
            RevResult::Found(doc) => (doc.rev.clone().unwrap().to_string(), doc.to_json()),
            RevResult::Missing(missing) => panic!("a leaf is not there: {missing:?}"),
        });
        all.insert(change.id, (change.revs[0].to_string(), leaves.collect()));
    }
    all
}

fn noise(random: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes[..]);
    bytes
}

/// One edit such as applications make, on a leaf that need not be the winner.
pub(crate) async fn edit(random: &mut StdRng, db: &Database, n: u64) {
    let id = match random.random_range(0..20) {
        0 => "_design/app".to_owned(),
        _ => format!("doc-{}", random.random_range(0..12)),
    };
    let leaves = match db.open_revs(&id, &OpenRevs::All).await {
        Ok(leaves) => leaves,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    let leaves: Vec<Document> = leaves
        .into_iter()
        .filter_map(|leaf| match leaf {
            RevResult::Found(doc) => Some(*doc),
            RevResult::Missing(_) => None,
        })
        .collect();
    let mut doc = leaves.choose(random).cloned().unwrap_or_else(|| Document::with_id(&id));
    let deletes = doc.rev.is_some() && random.random_bool(0.2);
    if deletes {
        doc.deleted = true;
        doc.attachments.clear();
    } else {
        doc.deleted = false;
        doc.set("n", n).unwrap();
        match random.random_range(0..10) {
            0 => doc.attachments.clear(),
            1..4 => {
                let name = ["a.txt", "b.bin"][random.random_range(0..2)];
                let content_type =
                    if name == "a.txt" { "text/plain" } else { "application/octet-stream" };
                let length = match random.random_range(0..4) {
                    0 => 400_000,
                    _ => random.random_range(0..2000),
                };
                let content = match name {
                    "a.txt" => format!("{n} ").repeat(length / 4).into_bytes(),
                    _ => noise(random, length),
                };
                doc.attachments.retain(|attachment| attachment.name != name);
                doc.attachments.push(Attachment::inline(name, content_type, content));
            }
            _ => {}
        }
    }
    // The leaf may be deleted already, or a plain edit may not go there.
    match db.put(doc).await {
        Ok(_) => {}
        Err(error) => assert!(
            error.is_conflict() || error.kind() == ErrorKind::BadRequest,
            "{error:?} of an edit"
        ),
    }
}

/// One of the databases that converge: where it is edited and compared, and how replications get to it.
pub(crate) struct Member {
    pub(crate) near: Database,
    pub(crate) reached: Database,
}

impl Member {
    pub(crate) fn local(place: &Local) -> Member {
        let near = Couch::from_host(Arc::new(place.clone())).db("db").unwrap();
        Member { reached: near.clone(), near }
    }
}

/// Databases edited at random, and replicated over lines where anything may fail. Between two
/// replications `disturb` may do what it likes to what is around them, and `calm` ends it.
pub(crate) async fn converge_all(
    random: &mut StdRng,
    members: &[Member],
    faults: &Faults,
    mut disturb: impl FnMut(&mut StdRng),
    calm: impl FnOnce(),
) {
    for member in members {
        member.near.create().await.unwrap();
    }
    for round in 0..12 {
        for n in 0..random.random_range(0..15) {
            let member = members.choose(random).unwrap();
            edit(random, &member.near, round * 100 + n).await;
        }
        disturb(random);
        let count = members.len();
        let (from, to) = (random.random_range(0..count), random.random_range(0..count));
        if from == to {
            members[from].near.compact().await.unwrap();
            continue;
        }
        let mut options = persistent();
        options.use_checkpoints = random.random_bool(0.8);
        options.batches_limit = random.random_range(1..5);
        options.batch_bytes = random.random_range(1..100_000);
        options.retry = random.random_bool(0.7);
        let (source, target) = (&members[from].reached, &members[to].reached);
        let run = Replication::new(faults.wrap(source), faults.wrap(target)).options(options);
        // Some are given up in the middle.
        if random.random_bool(0.2) {
            let (handle, task) = run.into_task();
            let patience = Duration::from_millis(random.random_range(0..20));
            let impatient = async {
                sleep(patience).await;
                handle.cancel();
            };
            let _ = futures_util::future::join(task, impatient).await;
        } else if let Err(error) = soon(run.run()).await {
            assert!(error.status() >= 500, "{error:?}");
        }
    }
    faults.set(Rates::default());
    calm();
    // Around until nobody has news for anybody.
    for pass in 0.. {
        assert!(pass < members.len() + 2, "there is always something new");
        let mut written = 0;
        for from in 0..members.len() {
            let target = &members[(from + 1) % members.len()].reached;
            let run = members[from].reached.replicate_to(target).options(persistent());
            let result = soon(run.run()).await.unwrap();
            assert!(result.ok, "{:?}", result.errors);
            written += result.counters.docs_written;
        }
        if written == 0 {
            break;
        }
    }
    let first = everything(&members[0].near).await;
    for member in &members[1..] {
        assert_eq!(first, everything(&member.near).await);
    }
}

/// In memory and on disk.
fn converge(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let places = [
        Local::memory().unwrap(),
        Local::open(dir.path(), &LocalOptions::default()).unwrap(),
        Local::memory().unwrap(),
    ];
    let members: Vec<Member> = places.iter().map(Member::local).collect();
    let faults = Faults::new(seed, Rates::all(random.random_range(0.0..0.15)));
    block_on(converge_all(&mut random, &members, &faults, |_| {}, || {}));
    for place in &places {
        assert_eq!(place.check().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn databases_behind_bad_lines_converge() {
    sequences(6, converge);
}

async fn loaded(count: usize) -> (Database, Database) {
    let couch = Couch::memory().unwrap();
    let (source, target) =
        (couch.create("source").await.unwrap(), couch.create("target").await.unwrap());
    let docs = (0..count).map(|n| json!({"_id": format!("{n:05}"), "n": n}));
    source.bulk_docs(docs, true).await.unwrap();
    (source, target)
}

/// A line that goes down in the middle: the replication waits, and goes on where it was.
#[test]
fn a_live_replication_outlives_a_partition() {
    block_on(async {
        let (source, target) = loaded(200).await;
        let faults = Faults::new(1, Rates::default());
        let mut options = persistent();
        options.live = true;
        let run = Replication::new(faults.wrap(&source), &target).options(options);
        let handle = run.start().unwrap();
        let mut events = handle.events();
        let arrived = async |id: &str| {
            while !target.contains(id).await.unwrap() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        soon(arrived("00199")).await;
        faults.set_down(true);
        source.put(json!({"_id": "late"})).await.unwrap();
        soon(async {
            while let Some(event) = events.next().await {
                if let settee::replicate::ReplicationEvent::Paused(Some(error)) = event {
                    assert_eq!(error.kind(), ErrorKind::Unreachable);
                    return;
                }
            }
            panic!("the replication has ended");
        })
        .await;
        assert!(!target.contains("late").await.unwrap());
        faults.set_down(false);
        soon(arrived("late")).await;
        handle.cancel();
        let result = soon(handle.wait()).await.unwrap();
        assert_eq!(result.status, ReplicationStatus::Cancelled);
    });
}

/// Cancelling must not wait for a line that is down.
#[test]
fn a_replication_that_waits_can_be_cancelled() {
    block_on(async {
        let (source, target) = loaded(1).await;
        let faults = Faults::new(1, Rates::default());
        faults.set_down(true);
        let mut options = persistent();
        options.backoff = Backoff { first: Duration::from_secs(60), longest: Duration::MAX };
        options.retries = 0;
        let handle =
            Replication::new(faults.wrap(&source), &target).options(options).start().unwrap();
        sleep(Duration::from_millis(20)).await;
        handle.cancel();
        let result = soon(handle.wait()).await.unwrap();
        assert_eq!(result.status, ReplicationStatus::Cancelled);
        assert_eq!(result.counters.docs_written, 0);
    });
}

#[test]
fn without_retry_the_first_lasting_failure_ends_it() {
    block_on(async {
        let (source, target) = loaded(10).await;
        let faults = Faults::new(1, Rates::default());
        faults.set_down(true);
        let error = source.replicate_to(faults.wrap(&target)).run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
    });
}

/// One answer that never comes does not hold a replication for ever.
#[test]
fn a_call_that_takes_too_long_fails() {
    block_on(async {
        let (source, target) = loaded(10).await;
        let slow = Rates { slow: 1.0, delay: Duration::from_secs(3600), ..Rates::default() };
        let faults = Faults::new(1, slow);
        let mut options = persistent();
        (options.retry, options.retries) = (false, 0);
        options.timeout = Duration::from_millis(30);
        let run = Replication::new(&source, faults.wrap(&target)).options(options);
        let error = soon(run.run()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
}

/// What has come across before a failure is not fetched again.
#[test]
fn a_replication_that_failed_goes_on_where_it_was() {
    block_on(async {
        let (source, target) = loaded(500).await;
        for seed in 0.. {
            let faults = Faults::new(seed, Rates { lost: 0.1, ..Rates::default() });
            let mut options = persistent();
            (options.retry, options.retries) = (false, 0);
            options.batches_limit = 1;
            let run = Replication::new(faults.wrap(&source), &target).options(options);
            let (handle, task) = run.into_task();
            if task.await.is_err() && handle.progress().checkpointed_seq != Seq::Number(0) {
                break;
            }
            assert!(seed < 100);
        }
        let there = target.len().await.unwrap();
        let result = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(result.counters.docs_written, 500 - there);
        assert!(result.counters.missing_checked < 500);
        assert_eq!(everything(&source).await, everything(&target).await);
    });
}

/// The target is replaced by an empty database while a replication follows the source: everything
/// comes again.
#[test]
fn a_target_that_was_replaced_is_filled_again() {
    block_on(async {
        let (source, target) = loaded(50).await;
        assert_eq!(source.replicate_to(&target).run().await.unwrap().counters.docs_written, 50);
        target.destroy().await.unwrap();
        target.create().await.unwrap();
        let result = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(result.counters.docs_written, 50);

        let mut options = persistent();
        options.live = true;
        options.checkpoint_interval = Duration::from_millis(1);
        let handle = Replication::new(&source, &target).options(options).start().unwrap();
        source.put(json!({"_id": "one more"})).await.unwrap();
        soon(async {
            while !target.contains("one more").await.unwrap() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        // Once it has nothing to do, it does not ask whether the target is there.
        soon(async {
            while handle.progress().checkpointed_seq != Seq::Number(51) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        target.destroy().await.unwrap();
        target.create().await.unwrap();
        for n in 0.. {
            source.put(json!({"_id": format!("again {n}")})).await.unwrap();
            sleep(Duration::from_millis(5)).await;
            if target.len().await.is_ok_and(|len| len > 51) {
                break;
            }
            assert!(n < 2000, "{handle:?}");
        }
        handle.cancel();
    });
}

/// An old copy of the target lacks what the checkpoint at the source speaks of; the histories tell how
/// far both agree.
#[test]
fn a_restored_target_is_brought_forward_from_the_common_checkpoint() {
    block_on(async {
        let (source, target) = loaded(50).await;
        let id = source.replicate_to(&target).run().await.unwrap().replication_id;
        let id = format!("_local/{id}");
        let old = target.get(&id).await.unwrap();
        source.put(json!({"_id": "later"})).await.unwrap();
        source.replicate_to(&target).run().await.unwrap();
        // The target is set back: its document, and its checkpoint.
        target.purge([("later", &target.get("later").await.unwrap().rev.unwrap())]).await.unwrap();
        let mut back = target.get(&id).await.unwrap();
        back.body = old.body.clone();
        target.put(back).await.unwrap();

        let result = source.replicate_to(&target).run().await.unwrap();
        assert_eq!(result.counters.missing_checked, 1, "it began at the common checkpoint");
        assert_eq!(result.counters.docs_written, 1);
        assert!(target.contains("later").await.unwrap());
    });
}

/// A source that may only be read keeps no checkpoint; the target's suffices.
#[test]
fn a_source_that_may_only_be_read_is_resumed_too() {
    block_on(async {
        let (source, target) = loaded(50).await;
        let read_only = testkit::faults::read_only(&source);
        let first = Replication::new(read_only.clone(), &target).run().await.unwrap();
        assert_eq!(first.counters.docs_written, 50);
        source.put(json!({"_id": "later"})).await.unwrap();
        let second = Replication::new(read_only, &target).run().await.unwrap();
        assert_eq!(second.counters.missing_checked, 1);
        assert_eq!(second.counters.docs_written, 1);
        let id = format!("_local/{}", second.replication_id);
        assert!(source.get(&id).await.unwrap_err().is_not_found());

        // The same name on another database is another source.
        source.destroy().await.unwrap();
        source.create().await.unwrap();
        source.put(json!({"_id": "new"})).await.unwrap();
        let read_only = testkit::faults::read_only(&source);
        let third = Replication::new(read_only, &target).run().await.unwrap();
        assert_eq!(third.counters.docs_written, 1);
    });
}

/// The checkpoint is CouchDB's.
#[test]
fn checkpoints_have_couchdbs_form() {
    block_on(async {
        let (source, target) = loaded(3).await;
        let result = source.replicate_to(&target).run().await.unwrap();
        let id = format!("_local/{}", result.replication_id);
        let log = source.get(&id).await.unwrap().body.to_value();
        assert_eq!(log, target.get(&id).await.unwrap().body.to_value());
        assert_eq!(log["session_id"], json!(result.session_id));
        assert_eq!(
            (&log["source_last_seq"], &log["replication_id_version"]),
            (&json!(3), &json!(4))
        );
        let entry = &log["history"][0];
        for (member, value) in [
            ("session_id", json!(result.session_id)),
            ("start_last_seq", json!(0)),
            ("end_last_seq", json!(3)),
            ("recorded_seq", json!(3)),
            ("missing_checked", json!(3)),
            ("missing_found", json!(3)),
            ("docs_read", json!(3)),
            ("docs_written", json!(3)),
            ("doc_write_failures", json!(0)),
        ] {
            assert_eq!(entry[member], value, "{member}");
        }
        assert!(entry["start_time"].as_str().unwrap().ends_with(" GMT"));
        let reply = result.to_couchdb();
        assert_eq!((&reply["ok"], &reply["history"]), (&json!(true), &log["history"]));
        assert_eq!(reply.get("no_changes"), None::<&Value>);
        assert_eq!(result.last_seq, Seq::Number(3));
    });
}
