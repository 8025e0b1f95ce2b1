//! Two servers that replicate: real processes, real sockets, and `SIGKILL`.
//!
//! | variable | |
//! |---|---|
//! | `SETTEE_SEED=n` | begin with this seed |
//! | `SETTEE_KILLS=n` | how often one of the servers is killed; 30 if not given |
//! | `SETTEE_PEER_DOCS=n` | how many documents with attachments go each way; 2,000 if not given |

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

use futures_util::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Value, json};
use settee::wire::Seq;
use settee::{Attachment, Database, Document};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

mod process;

use process::{PATIENCE, Server, number, until};

/// The ids, revisions and attachments' digests of everything, conflicts and deletions included.
async fn everything(db: &Database) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut changes = db.changes().all_leaves().include_docs().stream().await.unwrap();
    while let Some(change) = changes.try_next().await.unwrap() {
        let mut doc = change.doc.unwrap().to_value();
        doc["leaves"] = json!(change.revs);
        // Only whether it is the same matters, not since when it is there.
        all.insert(change.id, doc);
    }
    all
}

/// Documents with an attachment each, some of them compressible, some too large to be held.
fn documents(random: &mut StdRng, first: u64, count: u64) -> Vec<Document> {
    let one = |n| {
        let mut doc = Document::with_id(format!("{n:08}"));
        doc.set("n", n).unwrap();
        let mut bytes = vec![0; random.random_range(0..600)];
        random.fill_bytes(&mut bytes);
        doc.attachments = vec![match n % 3 {
            0 => Attachment::inline("a.txt", "text/plain", format!("{n} ").repeat(100)),
            _ => Attachment::inline("a.bin", "application/octet-stream", bytes),
        }];
        doc
    };
    (first..first + count).map(one).collect()
}

async fn fill(db: &Database, random: &mut StdRng, first: u64, count: u64) {
    for from in (first..first + count).step_by(500) {
        let docs = documents(random, from, 500.min(first + count - from));
        assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
    }
}

/// A document in `_replicator` of the one that pulls, and kills of either.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_outlives_kills_of_either_server() {
    let seed = number("SETTEE_SEED", u64::from(rand::random::<u32>()));
    println!("SETTEE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut servers = [Server::start(), Server::start()];
    let [source, target] = [servers[0].couch(), servers[1].couch()];
    let db = source.create("db").await.unwrap();
    let copy = target.create("copy").await.unwrap();
    let replicator = target.create("_replicator").await.unwrap();
    let wish = json!({
        "_id": "pull", "source": servers[0].url("db"), "target": "copy", "continuous": true,
        "checkpoint_interval": 100, "worker_batch_size": 20, "connection_timeout": 3000,
    });
    replicator.put(wish).await.unwrap();
    let mut written = 0;
    let kills = number("SETTEE_KILLS", 30);
    for _ in 0..kills {
        let count = random.random_range(50..400);
        fill(&db, &mut random, written, count).await;
        written += count;
        // Edits of what may be on its way.
        for _ in 0..5 {
            let id = format!("{:08}", random.random_range(0..written));
            if let Some(doc) = db.get_opt(&id).await.unwrap() {
                match random.random_bool(0.3) {
                    true => drop(db.delete(&doc).await.unwrap()),
                    false => {
                        drop(db.update_with(&id, |doc| doc.set("again", written)).await.unwrap())
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
        let victim = &mut servers[random.random_range(0..2)];
        victim.kill();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        victim.revive();
    }
    let equal = async || everything(&db).await == everything(&copy).await;
    until("both are equal", PATIENCE, equal).await;

    // It goes on from its checkpoint, not from the beginning.
    let wish = replicator.get("pull").await.unwrap();
    let id = wish.get("_replication_id").unwrap();
    let id = format!("_local/{}", id.as_str().unwrap().trim_end_matches("+continuous"));
    let checkpoint = async || match copy.get_opt(&id).await.unwrap() {
        Some(doc) => doc.body.to_value(),
        None => Value::Null,
    };
    let saved = async |seq: &Seq| checkpoint().await["source_last_seq"] == json!(seq);
    let reached = db.info().await.unwrap().update_seq;
    until("the checkpoint is written", PATIENCE, async || saved(&reached).await).await;
    servers[1].kill();
    servers[1].revive();
    db.put(json!({"_id": "one more"})).await.unwrap();
    let reached = db.info().await.unwrap().update_seq;
    until("it is written again", PATIENCE, async || saved(&reached).await).await;
    assert!(copy.contains("one more").await.unwrap());
    assert_eq!(checkpoint().await["history"][0]["missing_checked"], 1, "of {written}");
    servers.iter().for_each(Server::assert_discreet);
}

/// Both servers do it, each in its own way, and the command between them.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_exchange_documents_with_attachments() {
    let count = number("SETTEE_PEER_DOCS", 2_000);
    let mut random = StdRng::seed_from_u64(1);
    let servers = [Server::start(), Server::start()];
    let [one, other] = [servers[0].couch(), servers[1].couch()];
    let (ours, theirs) = (one.create("db").await.unwrap(), other.create("db").await.unwrap());
    fill(&ours, &mut random, 0, count).await;
    fill(&theirs, &mut random, count, count).await;
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_settee"))
        .args(["sync", &servers[0].url("db"), &servers[1].url("db")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{:?} for {count} documents each way", began.elapsed());
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains(&format!("push: complete: {count} documents read, {count} written")));
    assert!(said.contains(&format!("pull: complete: {count} documents read, {count} written")));
    assert_eq!(ours.len().await.unwrap(), 2 * count);
    let (first, second) = (everything(&ours).await, everything(&theirs).await);
    assert_eq!(first.len(), second.len());
    for (id, doc) in &first {
        assert_eq!(Some(doc), second.get(id), "{id}");
    }
    // What was attached is what is there.
    for n in [0, 1, count - 1, count, 2 * count - 1] {
        let id = format!("{n:08}");
        let name = if n % 3 == 0 { "a.txt" } else { "a.bin" };
        let here = ours.attachment(id.as_str(), name).await.unwrap().bytes().await.unwrap();
        let there = theirs.attachment(id.as_str(), name).await.unwrap().bytes().await.unwrap();
        assert_eq!(here, there, "{id}");
    }
}
