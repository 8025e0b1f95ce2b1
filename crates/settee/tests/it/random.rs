//! Random operations on the embedded engine, compared with the testkit's model.
//!
//! A failure prints its seed, and `SETTEE_SEED=…` does the same again. `SETTEE_RUNS` is how many
//! sequences of operations there are; the more, the longer.

use futures_executor::block_on;
use rand::Rng;
use settee::local::{Local, LocalOptions};
use settee::prelude::*;
use std::path::Path;
use std::sync::Arc;
use testkit::conformance::compacted;
use testkit::model::{Model, Random, compare};

/// Operations in one sequence.
const STEPS: usize = 150;

pub(crate) fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Prints the seed if the test fails while this is alive.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with SETTEE_SEED={}", self.0);
        }
    }
}

pub(crate) fn sequences(runs: u64, run: impl Fn(u64)) {
    let seeds = match env("SETTEE_SEED") {
        Some(seed) => vec![seed],
        None => (0..env("SETTEE_RUNS").unwrap_or(runs)).map(|_| rand::random()).collect(),
    };
    for seed in seeds {
        let _seed = Seed(seed);
        run(seed);
    }
}

/// A place that can be closed and opened again, unless it is in memory.
struct Place<'d> {
    dir: Option<&'d Path>,
    local: Local,
}

impl Place<'_> {
    fn new(dir: Option<&Path>) -> Place<'_> {
        let local = match dir {
            Some(dir) => Local::open(dir, &LocalOptions::default()),
            None => Local::memory(),
        };
        Place { dir, local: local.unwrap() }
    }

    fn db(&self, name: &str) -> Database {
        Couch::from_host(Arc::new(self.local.clone())).db(name).unwrap()
    }

    fn reopen(self) -> Self {
        let dir = self.dir;
        if dir.is_none() {
            return self;
        }
        drop(self);
        Place::new(dir)
    }
}

/// Two databases, so that one's rows next to the other's would be noticed.
fn sequence(seed: u64, dir: Option<&Path>) {
    let mut random = Random::new(seed);
    let mut place = Place::new(dir);
    let names = ["one", "two"];
    let mut models = [Model::default(), Model::default()];
    for name in names {
        block_on(place.db(name).create()).unwrap();
    }
    for _ in 0..STEPS {
        let n = random.rng().random_range(0..2);
        let db = place.db(names[n]);
        block_on(random.step(&db, &mut models[n]));
        match random.rng().random_range(0..100) {
            0..10 => block_on(compare(&db, &models[n])),
            10..12 => {
                block_on(async {
                    db.compact().await.unwrap();
                    compacted(&db).await;
                });
                models[n].compact();
            }
            12..14 => {
                drop(db);
                place = place.reopen();
            }
            _ => {}
        }
    }
    place = place.reopen();
    for (name, model) in names.iter().zip(&models) {
        block_on(compare(&place.db(name), model));
    }
    assert_eq!(place.local.check().unwrap().problems, Vec::<String>::new());
}

/// Readers and writers on threads of their own, with compactions and purges between them.
#[test]
fn concurrent_writers_lose_nothing() {
    const WRITERS: u64 = 6;
    const EDITS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(Some(dir.path()));
    let db = place.db("shared");
    block_on(db.create()).unwrap();
    let ids = ["a", "b", "c"];
    for id in ids {
        block_on(db.put(serde_json::json!({"_id": id, "n": 0}))).unwrap();
    }
    let count = |doc: &Document| doc.get("n").and_then(|n| n.as_u64()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let db = &db;
            scope.spawn(move || {
                for edit in 0..EDITS {
                    let id = ids[((writer + edit) % 3) as usize];
                    let add = |doc: &mut Document| doc.set("n", count(doc) + 1);
                    block_on(db.update_with(id, add)).unwrap();
                    let own = block_on(db.post(serde_json::json!({"own": writer}))).unwrap();
                    match edit % 3 {
                        0 => drop(block_on(db.delete((own.id.as_str(), &own.rev))).unwrap()),
                        1 => drop(block_on(db.purge([(own.id.as_str(), &own.rev)])).unwrap()),
                        _ => {}
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..3 {
                block_on(db.compact()).unwrap();
                block_on(compacted(&db));
            }
        });
        scope.spawn(|| {
            for _ in 0..50 {
                let listing = block_on(db.all_docs().include_docs().fetch()).unwrap();
                assert!(listing.ids().is_sorted());
                assert!(listing.rows.iter().all(|row| row.doc.is_some()));
                block_on(db.changes().include_docs().fetch()).unwrap();
            }
        });
    });
    let sum: u64 = ids.iter().map(|id| count(&block_on(db.get(id)).unwrap())).sum();
    assert_eq!(sum, WRITERS * EDITS);
    let info = block_on(db.info()).unwrap();
    let thirds = WRITERS * EDITS / 3;
    assert_eq!((info.doc_count, info.doc_del_count), (3 + thirds, thirds));
    drop(db);
    let place = place.reopen();
    assert_eq!(place.local.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn memory_agrees_with_the_model() {
    sequences(60, |seed| sequence(seed, None));
}

#[test]
fn disk_agrees_with_the_model() {
    sequences(6, |seed| {
        let dir = tempfile::tempdir().unwrap();
        sequence(seed, Some(dir.path()));
    });
}
