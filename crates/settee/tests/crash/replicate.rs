//! Power cuts of either end in the middle of a replication, at any step of the protocol.
//!
//! What either end had not flushed may be gone, documents and checkpoints and sequences alike. Yet what
//! is replicated on from there must end the same everywhere.

use crate::block_on;
use crate::power::open;
use crate::seed::{rng, rounds, seed};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use settee::local::Local;
use settee::options::{GetOptions, OpenRevs};
use settee::replicate::{Backoff, ReplicateOptions};
use settee::wire::RevResult;
use settee::{Attachment, Couch, Database, Document, Replication};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use testkit::faultfs::FaultFs;
use testkit::faults::{Faults, Rates};

/// Cuts that hit the same two disks, one after the other.
const LIVES: u64 = 10;

/// A disk with a place of databases on it.
struct End {
    disk: Arc<FaultFs>,
    local: Local,
    db: Database,
}

impl End {
    fn on(disk: FaultFs) -> End {
        let local = open(disk.path()).unwrap();
        let db = Couch::from_host(Arc::new(local.clone())).db("db").unwrap();
        End { disk: Arc::new(disk), local, db }
    }
}

/// What the tests elsewhere call everything: each leaf with its history and its attachments.
async fn everything(db: &Database) -> BTreeMap<String, Vec<String>> {
    let options = GetOptions { revs: true, attachments: true, ..GetOptions::default() };
    let mut all = BTreeMap::new();
    for change in db.changes().all_leaves().fetch().await.unwrap().changes {
        let leaves = db.adapter().open_revs(&change.id, &OpenRevs::All, &options).await.unwrap();
        let leaf = |leaf| match leaf {
            RevResult::Found(doc) => match doc.to_json() {
                // A difference should fit on the screen.
                long if long.len() > 500 => {
                    let digest = Sha256::digest(long.as_bytes());
                    format!("{} {digest:x}", doc.rev.as_ref().unwrap())
                }
                short => short,
            },
            RevResult::Missing(missing) => panic!("a leaf is not there: {missing:?}"),
        };
        let mut leaves: Vec<String> = leaves.into_iter().map(leaf).collect();
        leaves.sort();
        leaves.push(format!("{} wins", change.revs[0]));
        all.insert(change.id, leaves);
    }
    all
}

/// New documents, edits, deletions, attachments; durable when they are done.
async fn edit(random: &mut StdRng, db: &Database, n: u64) {
    let id = format!("doc-{}", random.random_range(0..40));
    match db.get_opt(&id).await.unwrap() {
        Some(doc) if random.random_bool(0.2) => drop(db.delete(&doc).await.unwrap()),
        current => {
            let mut doc = current.unwrap_or_else(|| Document::with_id(&id));
            doc.set("n", n).unwrap();
            if random.random_bool(0.3) {
                let length = *[10, 5_000, 300_000].choose(random).unwrap();
                let content = n.to_string().repeat(length);
                doc.attachments = vec![Attachment::inline("a.txt", "text/plain", content)];
            }
            db.save(&mut doc).await.unwrap();
        }
    }
}

fn options(random: &mut StdRng) -> ReplicateOptions {
    let mut options = ReplicateOptions::default();
    options.backoff =
        Backoff { first: Duration::from_micros(100), longest: Duration::from_millis(2) };
    options.retries = 0;
    options.batch_size = random.random_range(1..10);
    options.batches_limit = random.random_range(1..4);
    options.checkpoint_interval = Duration::from_millis(random.random_range(0..5));
    options
}

/// Edits both ends, and replicates until the power of one of them is cut. Returns the ends as they
/// are when there is power again.
fn one_life(random: &mut StdRng, life: u64, mut ends: [End; 2]) -> [End; 2] {
    block_on(async {
        for n in 0..random.random_range(0..30) {
            let end = &ends[random.random_range(0..2)];
            edit(random, &end.db, life * 1000 + n).await;
        }
    });
    let victim = random.random_range(0..2);
    let image: Arc<Mutex<Option<TempDir>>> = Arc::default();
    let cut = {
        let (disk, image, seed) = (ends[victim].disk.clone(), image.clone(), random.random());
        move || {
            *image.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(disk.cut_power(seed).unwrap())
        }
    };
    let faults = Faults::new(life, Rates::default());
    faults.crash_after(random.random_range(0..60), cut);
    // Both ways, by turns, until it happens.
    for turn in 0..20 {
        let (from, to) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        let (source, target) = (faults.wrap(&ends[from].db), faults.wrap(&ends[to].db));
        let run = Replication::new(source, target).options(options(random));
        if block_on(run.run()).is_err() {
            break;
        }
        block_on(edit(random, &ends[from].db, life * 1000 + 500 + turn));
    }
    let Some(image) = image.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return ends;
    };
    let replaced = FaultFs::mount_image(image.path()).unwrap();
    let other = {
        let [zero, one] = ends;
        if victim == 0 { one } else { zero }
    };
    let back = End::on(replaced);
    ends = if victim == 0 { [back, other] } else { [other, back] };
    ends
}

#[test]
fn databases_converge_whenever_the_power_of_either_is_cut() {
    let seed = seed();
    let rounds = rounds(30);
    let mut round = 0;
    while round < rounds {
        let (Some(one), Some(other)) = (FaultFs::mount_or_skip(), FaultFs::mount_or_skip()) else {
            return;
        };
        let mut ends = [End::on(one), End::on(other)];
        for end in &ends {
            block_on(end.db.create()).unwrap();
        }
        let mut random = rng(&[seed + round]);
        for life in 0..LIVES.min(rounds - round) {
            ends = one_life(&mut random, life, ends);
        }
        block_on(async {
            for pass in 0.. {
                assert!(pass < 5, "there is always something new");
                let push = ends[0].db.replicate_to(&ends[1].db).run().await.unwrap();
                let pull = ends[1].db.replicate_to(&ends[0].db).run().await.unwrap();
                assert!(push.ok && pull.ok, "{:?} {:?}", push.errors, pull.errors);
                if push.counters.docs_written + pull.counters.docs_written == 0 {
                    break;
                }
            }
            assert_eq!(everything(&ends[0].db).await, everything(&ends[1].db).await);
        });
        for end in &ends {
            assert_eq!(end.local.check().unwrap().problems, Vec::<String>::new());
        }
        round += LIVES;
    }
}
