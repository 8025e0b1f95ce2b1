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
