//! A long random life of a store beside that of an ordered map.
//!
//! `SETTEE_SEED=n` replays a run, `SETTEE_MODEL_OPS=n` makes it that many operations long.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use bytes::Bytes;
use common::variable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use settee_store::{Durability, Snapshot, Store, StoreError, StoreOptions, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What a store should hold.
type Model = BTreeMap<(Table, Vec<u8>), Bytes>;

fn seed() -> u64 {
    variable("SETTEE_SEED").unwrap_or_else(rand::random)
}

/// Operations of a run that is not asked to be longer. Optimised builds do more in the same time.
fn operations() -> u64 {
    variable("SETTEE_MODEL_OPS").unwrap_or(if cfg!(debug_assertions) { 15_000 } else { 60_000 })
}

struct Life {
    rng: StdRng,
    store: Store,
    model: Model,
    /// Snapshots that are held, and what they should hold.
    held: Vec<(Snapshot, Model)>,
    /// Owners never come back once they are retired.
    owners: Vec<u32>,
    next_owner: u32,
}

#[test]
fn memory_behaves_like_a_map() {
    let seed = seed();
    println!("SETTEE_SEED={seed}");
    Life::new(seed, Store::memory()).live(operations(), &mut |_| {});
}

#[test]
fn disk_behaves_like_a_map() {
    let seed = seed();
    println!("SETTEE_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), &StoreOptions::default().cache(1 << 20)).unwrap();
    Life::new(seed, open()).live(operations(), &mut |life| {
        life.held.clear();
        // Handles are gone before it is opened again, because it is locked by them.
        life.store = Store::memory();
        life.store = open();
    });
}

impl Life {
    fn new(seed: u64, store: Store) -> Life {
        Life {
            rng: StdRng::seed_from_u64(seed),
            store,
            model: Model::new(),
            held: Vec::new(),
            owners: vec![0, 1, 2],
            next_owner: 3,
        }
    }

    fn live(&mut self, operations: u64, reopen: &mut dyn FnMut(&mut Life)) {
        for _ in 0..operations {
            match self.rng.random_range(0..1000) {
                0..600 => self.write(),
                600..750 => self.get(),
                750..900 => self.scan(),
                900..940 => {
                    if self.held.len() < 8 {
                        self.held.push((self.store.snapshot(), self.model.clone()));
                    }
                }
                940..980 => {
                    if !self.held.is_empty() {
                        let which = self.rng.random_range(0..self.held.len());
                        self.held.swap_remove(which);
                    }
                }
                980..985 => self.retire(),
                985..995 => self.store.flush().unwrap(),
                995..998 => self.store.compact().unwrap(),
                _ => reopen(self),
            }
        }
        let snapshot = self.store.snapshot();
        for table in Table::ALL {
            self.compare(
                &snapshot,
                &self.model,
                table,
                (Bound::Unbounded, Bound::Unbounded),
                false,
            );
        }
    }

    fn table(&mut self) -> Table {
        Table::ALL[self.rng.random_range(0..Table::ALL.len())]
    }

    /// Keys are few, so that they meet again, and of all lengths.
    fn key(&mut self, table: Table) -> Vec<u8> {
        let owner = match table {
            // Outlives all owners, so it would only grow.
            Table::Meta => 0,
            _ => self.owners[self.rng.random_range(0..self.owners.len())],
        };
        let mut key = owner.to_be_bytes().to_vec();
        let number = self.rng.random_range(0..400_u16);
        key.extend(number.to_be_bytes());
        key.resize(key.len() + usize::from(number % 5) * 7, b'x');
        key
    }

    fn value(&mut self) -> Bytes {
        let len = match self.rng.random_range(0..1000) {
            0..700 => self.rng.random_range(0..100),
            700..990 => self.rng.random_range(0..5_000),
            _ => self.rng.random_range(0..200_000),
        };
        let byte = self.rng.random();
        let mut value = vec![byte; len];
        let half = len / 2;
        self.rng.fill(&mut value[half..]);
        value.into()
    }

    /// One transaction of one to many writes, which now and then fails or panics.
    fn write(&mut self) {
        let count = match self.rng.random_range(0..100) {
            0..80 => 1,
            80..99 => self.rng.random_range(1..20),
            _ => self.rng.random_range(1..500),
        };
        let writes: Vec<(Table, Vec<u8>, Option<Bytes>)> = (0..count)
            .map(|_| {
                let value = self.rng.random_bool(0.75).then(|| self.value());
                let table = self.table();
                (table, self.key(table), value)
            })
            .collect();
        let fails = self.rng.random_range(0..40);
        let durability = match self.rng.random_range(0..20) {
            0 => Durability::Flush,
            _ => Durability::Deferred,
        };
        let kept = writes.clone();
        let result = self.store.transact(durability, move |tx| {
            let mut last = BTreeMap::new();
            for (table, key, value) in writes {
                last.insert((table, key.clone()), value.clone());
                match value {
                    Some(value) => tx.put(table, key, value),
                    None => tx.delete(table, key),
                }
            }
            for ((table, key), value) in last {
                assert_eq!(tx.get(table, &key)?, value);
                let bound = Bound::Included(&key[..]);
                let row = value.map(|value| (Bytes::from(key.clone()), value));
                assert_eq!(tx.range(table, (bound, bound), 2)?, Vec::from_iter(row));
            }
            match fails {
                0 => Err(StoreError::Io("on purpose".to_owned())),
                1 => std::panic::resume_unwind(Box::new("on purpose")),
                _ => Ok(()),
            }
        });
        match (fails, result) {
            (0, Err(StoreError::Io(why)) | Err(StoreError::Panicked(why)))
            | (1, Err(StoreError::Panicked(why))) => assert_eq!(why, "on purpose"),
            (_, result) => {
                result.unwrap();
                for (table, key, value) in kept {
                    match value {
                        Some(value) => self.model.insert((table, key), value),
                        None => self.model.remove(&(table, key)),
                    };
                }
            }
        }
    }

    fn retire(&mut self) {
        let which = self.rng.random_range(0..self.owners.len());
        let owner = std::mem::replace(&mut self.owners[which], self.next_owner);
        self.next_owner += 1;
        self.store
            .transact(Durability::Deferred, move |tx| {
                tx.retire(owner);
                Ok::<_, StoreError>(())
            })
            .unwrap();
        // Nobody may look at them any more, in snapshots neither.
        let dead = |(table, key): &(Table, Vec<u8>)| {
            *table != Table::Meta && key.starts_with(&owner.to_be_bytes())
        };
        self.model.retain(|key, _| !dead(key));
        self.held.retain(|(_, model)| !model.keys().any(dead));
    }

    fn get(&mut self) {
        let table = self.table();
        let key = self.key(table);
        let expected = self.model.get(&(table, key.clone()));
        assert_eq!(self.store.get(table, &key).unwrap().as_ref(), expected);
        if let Some((snapshot, model)) = self.held.last() {
            let expected = model.get(&(table, key.clone()));
            assert_eq!(snapshot.get(table, &key).unwrap().as_ref(), expected);
        }
    }

    fn scan(&mut self) {
        let table = self.table();
        let (low, high) = (self.bound(table), self.bound(table));
        let backward = self.rng.random();
        let range = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
        if self.held.is_empty() || self.rng.random_bool(0.3) {
            self.compare(&self.store.snapshot(), &self.model, table, range, backward);
        } else {
            let (snapshot, model) = &self.held[self.rng.random_range(0..self.held.len())];
            self.compare(snapshot, model, table, range, backward);
        }
    }

    fn bound(&mut self, table: Table) -> Bound<Vec<u8>> {
        match self.rng.random_range(0..4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key(table)),
            _ => Bound::Included(self.key(table)),
        }
    }

    /// Compares the rows of a range, but for those of retired owners, which may be there or not.
    fn compare(
        &self,
        snapshot: &Snapshot,
        model: &Model,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        backward: bool,
    ) {
        let alive: BTreeSet<[u8; 4]> = self.owners.iter().map(|o| o.to_be_bytes()).collect();
        let known = |key: &[u8]| table == Table::Meta || alive.contains(&key[..4]);
        let within = |key: &[u8]| {
            (match range.0 {
                Bound::Included(low) => key >= low,
                Bound::Excluded(low) => key > low,
                Bound::Unbounded => true,
            }) && (match range.1 {
                Bound::Included(high) => key <= high,
                Bound::Excluded(high) => key < high,
                Bound::Unbounded => true,
            })
        };
        let mut expected: Vec<(Bytes, Bytes)> = model
            .iter()
            .filter(|((of, key), _)| *of == table && within(key))
            .map(|((_, key), value)| (key.clone().into(), value.clone()))
            .collect();
        let rows = snapshot.range(table, range);
        let rows: Box<dyn Iterator<Item = _>> = if backward {
            expected.reverse();
            Box::new(rows.rev())
        } else {
            Box::new(rows)
        };
        let rows: Vec<_> = rows.map(Result::unwrap).filter(|row| known(&row.0)).collect();
        assert!(
            rows == expected,
            "{table:?} {range:?}: {} rows, not {}",
            rows.len(),
            expected.len()
        );
    }
}
