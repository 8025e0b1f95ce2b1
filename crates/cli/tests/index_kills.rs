//! Indexes whose making is interrupted: a real process, and `SIGKILL`.
//!
//! | variable | |
//! |---|---|
//! | `SETTEE_SEED=n` | begin with this seed |
//! | `SETTEE_INDEX_KILLS=n` | how many indexes are made, each with two kills; 3 if not given |

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod process;

use process::{PATIENCE, Server, number};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use settee::options::Update;
use settee::{Couch, Database};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

const DOCS: u64 = 20_000;
/// Rows of so many bytes: what is kept of the work so far are whole runs of 32 MiB.
const ROW: u64 = 5_000;
/// Documents whose rows are one run, and those that are under way between it and the next.
const RUN: u64 = (32 << 20) / ROW + 4_000;

/// How far the making of an index has come: documents done.
async fn progress(couch: &Couch) -> Option<u64> {
    let tasks = couch.active_tasks().await.unwrap();
    let task = tasks.iter().find(|task| task.kind == "indexer" && task.total_changes > 0);
    task.map(|task| task.changes_done)
}

/// Begins to make an index, or to go on with it, and waits until so many documents are done. Tells how
/// many were when it was first seen, and how many are.
async fn index(couch: &Couch, db: &Database, view: &str, far: u64) -> (u64, u64) {
    db.view(view).update(Update::After).limit(0).fetch().await.unwrap();
    let (began, mut first) = (Instant::now(), None);
    loop {
        assert!(began.elapsed() < PATIENCE, "it takes too long to index {far} documents");
        if let Some(done) = progress(couch).await {
            let first = *first.get_or_insert(done);
            if done >= far {
                return (first, done);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_goes_on_where_a_kill_interrupted_it() {
    let seed = number("SETTEE_SEED", u64::from(rand::random::<u32>()));
    println!("SETTEE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start();
    let couch = server.couch();
    let db = couch.create("db").await.unwrap();
    // What a naive reader of the documents would count.
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    for from in (0..DOCS).step_by(1000) {
        let docs = (from..from + 1000).map(|n| {
            let (id, group) = (format!("{n:06}"), random.random_range(0..10));
            groups.insert(id.clone(), group);
            json!({"_id": id, "group": group})
        });
        assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
    }
    for round in 0..number("SETTEE_INDEX_KILLS", 3) {
        let (name, view) = (format!("_design/d{round}"), format!("d{round}/v"));
        // Slow enough to be met in the middle.
        let map = format!(
            "doc => {{ for (let i = 0; i < 3000; i++) ; emit(doc.group, 'x'.repeat({ROW} + {round})) }}"
        );
        let design = json!({"_id": name, "views": {"v": {"map": map, "reduce": "_count"}}});
        db.put(design).await.unwrap();
        let far = random.random_range(RUN + 1_000..DOCS - 4_000);
        let (_, mut reached) = index(&couch, &db, &view, far).await;
        for _ in 0..2 {
            server.kill();
            server.revive();
            let far = random.random_range(0..DOCS - 2_000);
            let (first, now) = index(&couch, &db, &view, far).await;
            println!("round {round}: killed behind {reached} documents, goes on behind {first}");
            assert!(first > 0 && first >= reached.saturating_sub(RUN), "{first} of {reached}");
            reached = now;
            // What is written meanwhile counts too.
            let id = format!("{:06}", random.random_range(0..DOCS));
            if random.random_bool(0.5) && groups.remove(&id).is_some() {
                db.delete_current(&id).await.unwrap();
            } else {
                db.upsert(&id, json!({"group": 11})).await.unwrap();
                groups.insert(id, 11);
            }
        }
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        groups.values().for_each(|&group| *counts.entry(group).or_default() += 1);
        let rows = db.view(&view).group().fetch().await.unwrap();
        let rows = rows.rows_as::<u64, u64>().unwrap();
        let rows: BTreeMap<u64, u64> = rows.into_iter().map(|row| (row.key, row.value)).collect();
        assert_eq!(rows, counts);
        db.delete_current(&name).await.unwrap();
        db.view_cleanup().await.unwrap();
    }
    server.kill();
    let mut check = Command::new(env!("CARGO_BIN_EXE_settee"));
    let checked = check.arg("check").arg(server.path().join("data")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}
