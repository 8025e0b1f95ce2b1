//! What every store does, in memory and on disk.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use settee_store::{Durability, Store, StoreError, StoreOptions, Table};
use std::ops::Bound;
use std::path::Path;

/// Runs a test on both implementations.
fn each(test: impl Fn(&Store)) {
    test(&Store::memory());
    let dir = tempfile::tempdir().unwrap();
    test(&Store::open(dir.path(), &StoreOptions::default()).unwrap());
}

fn put(store: &Store, key: &'static str, value: &'static str) {
    store
        .transact(Durability::Flush, move |tx| {
            tx.put(Table::Docs, key, value);
            Ok::<_, StoreError>(())
        })
        .unwrap();
}

fn keys(rows: impl Iterator<Item = settee_store::Result<(Bytes, Bytes)>>) -> Vec<String> {
    rows.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect()
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => size(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

#[test]
fn reads_what_was_written() {
    each(|store| {
        put(store, "0001a", "1");
        put(store, "0001b", "2");
        assert_eq!(store.get(Table::Docs, b"0001a").unwrap().unwrap(), "1");
        assert_eq!(store.get(Table::Side, b"0001a").unwrap(), None);
        let values = store.multi_get(Table::Docs, ["0001b", "none", "0001a"]).unwrap();
        assert_eq!(values, [Some("2".into()), None, Some("1".into())]);
    });
}

#[test]
fn snapshots_stay_as_they_are() {
    each(|store| {
        put(store, "a", "1");
        put(store, "b", "1");
        let before = store.snapshot();
        put(store, "a", "2");
        put(store, "c", "2");
        store
            .transact(Durability::Flush, |tx| {
                tx.delete(Table::Docs, "b");
                Ok::<_, StoreError>(())
            })
            .unwrap();
        store.compact().unwrap();
        assert_eq!(before.get(Table::Docs, b"a").unwrap().unwrap(), "1");
        assert!(!before.contains(Table::Docs, b"c").unwrap());
        assert_eq!(keys(before.range(Table::Docs, ALL)), ["a", "b"]);
        assert_eq!(keys(store.snapshot().range(Table::Docs, ALL)), ["a", "c"]);
    });
}

#[test]
fn scans_from_both_ends() {
    each(|store| {
        store
            .transact(Durability::Flush, |tx| {
                for key in 0..1000_u32 {
                    tx.put(Table::Docs, key.to_be_bytes().to_vec(), "");
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
        let (low, high) = (10_u32.to_be_bytes(), 900_u32.to_be_bytes());
        let range = (Bound::Excluded(&low[..]), Bound::Included(&high[..]));
        let mut rows = store.snapshot().range(Table::Docs, range);
        for turn in 0..890_u32 {
            let (row, expected) = if turn % 2 == 0 {
                (rows.next(), 11 + turn / 2)
            } else {
                (rows.next_back(), 900 - turn / 2)
            };
            assert_eq!(row.unwrap().unwrap().0, &expected.to_be_bytes()[..]);
        }
        assert!(rows.next().is_none() && rows.next_back().is_none());
        let backward = (Bound::Included(&high[..]), Bound::Included(&low[..]));
        assert!(store.snapshot().range(Table::Docs, backward).next().is_none());
        let nothing = (Bound::Excluded(&low[..]), Bound::Excluded(&low[..]));
        assert!(store.snapshot().range(Table::Docs, nothing).next().is_none());
    });
}

#[test]
fn a_transaction_sees_its_own_writes() {
    each(|store| {
        put(store, "b", "old");
        put(store, "d", "old");
        let seen = store
            .transact(Durability::Flush, |tx| {
                tx.put(Table::Docs, "a", "new");
                tx.put(Table::Docs, "b", "new");
                tx.delete(Table::Docs, "d");
                tx.put(Table::Docs, "e", "new");
                assert_eq!(tx.get(Table::Docs, b"d")?, None);
                assert_eq!(tx.get(Table::Docs, b"b")?.unwrap(), "new");
                tx.range(Table::Docs, ALL, 10)
            })
            .unwrap();
        assert_eq!(keys(seen.into_iter().map(Ok)), ["a", "b", "e"]);
    });
}

#[test]
fn too_long_keys_and_values_are_refused() {
    each(|store| {
        for key in [vec![], vec![0; 65536]] {
            let result = store.transact(Durability::Flush, move |tx| {
                tx.put(Table::Docs, "beside", "");
                tx.put(Table::Docs, key, "");
                Ok::<_, StoreError>(())
            });
            assert!(matches!(result, Err(StoreError::TooLong(_))), "{result:?}");
        }
        assert_eq!(store.get(Table::Docs, b"beside").unwrap(), None);
        store
            .transact(Durability::Flush, |tx| {
                tx.put(Table::Docs, vec![0; 65535], "");
                Ok::<_, StoreError>(())
            })
            .unwrap();
    });
}

#[test]
fn closing_refuses_what_comes_after() {
    each(|store| {
        put(store, "a", "1");
        store.close().unwrap();
        let result = store.transact(Durability::Flush, |tx| {
            tx.put(Table::Docs, "b", "");
            Ok::<_, StoreError>(())
        });
        assert!(matches!(result, Err(StoreError::Closed)));
        assert!(matches!(store.close(), Err(StoreError::Closed)));
        assert_eq!(store.get(Table::Docs, b"a").unwrap().unwrap(), "1");
    });
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    put(&store, "a", "1");
    let second = Store::open(dir.path(), &StoreOptions::default());
    assert!(matches!(second, Err(StoreError::Locked)));
    drop(store);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    assert_eq!(store.get(Table::Docs, b"a").unwrap().unwrap(), "1");
}

#[test]
fn foreign_and_newer_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let result = Store::open(dir.path(), &StoreOptions::default());
    assert!(matches!(result, Err(StoreError::Format(_))), "{result:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was put there");

    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), &StoreOptions::default()).unwrap());
    for (marker, says) in [("settee-store 2\n", "version 2"), ("something else", "not a store's")] {
        std::fs::write(dir.path().join("settee"), marker).unwrap();
        match Store::open(dir.path(), &StoreOptions::default()) {
            Err(StoreError::Format(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_store_that_was_not_made_to_the_end_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), &StoreOptions::default()).unwrap());
    std::fs::rename(dir.path().join("settee"), dir.path().join("settee.new")).unwrap();
    std::fs::remove_file(dir.path().join("data/version")).unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    put(&store, "a", "1");
}

#[test]
fn retired_owners_give_back_their_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    let fill = |owner: u32| {
        store
            .transact(Durability::Flush, move |tx| {
                for row in 0..2000_u32 {
                    let key = [owner.to_be_bytes(), row.to_be_bytes()].concat();
                    let value: Vec<u8> = (0..1000_u32).map(|i| (i * row * owner) as u8).collect();
                    tx.put(Table::Chunks, key, value);
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
    };
    let rows = |store: &Store, owner: u32| {
        let (low, high) = (owner.to_be_bytes(), (owner + 1).to_be_bytes());
        let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
        store.snapshot().range(Table::Chunks, range).count()
    };
    fill(1);
    fill(2);
    fill(3);
    store.compact().unwrap();
    let full = store.stats().disk;
    store
        .transact(Durability::Deferred, |tx| {
            tx.retire(1);
            tx.put(Table::Meta, 1_u32.to_be_bytes().to_vec(), "stays");
            Ok::<_, StoreError>(())
        })
        .unwrap();
    // Known again after reopening, as well.
    drop(store);
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    store
        .transact(Durability::Flush, |tx| {
            tx.retire(3);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    store.compact().unwrap();
    let empty = store.stats().disk;
    assert!(full - empty > 3_500_000, "{full} -> {empty}");
    assert_eq!([1, 2, 3].map(|owner| rows(&store, owner)), [0, 2000, 0]);
    assert!(store.get(Table::Meta, &1_u32.to_be_bytes()).unwrap().is_some());
}

#[test]
fn compaction_gives_back_overwritten_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    for round in 0..5_u32 {
        store
            .transact(Durability::Flush, move |tx| {
                for row in 0..1000_u32 {
                    let value: Vec<u8> = (0..1000_u32).map(|i| (i * row * round) as u8).collect();
                    tx.put(Table::Chunks, row.to_be_bytes().to_vec(), value);
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
        store.compact().unwrap();
    }
    let tables = size(&dir.path().join("data/keyspaces"));
    assert!((1_000_000..1_300_000).contains(&tables), "{tables}");
}

/// The page within a long value is the one that did not reach the disk.
#[test]
fn a_hole_in_the_last_batch_drops_that_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    put(&store, "a", "1");
    store
        .transact(Durability::Flush, |tx| {
            tx.put(Table::Docs, "b", "2");
            tx.put(Table::Chunks, "b", vec![7; 50_000]);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    drop(store);
    let journal = dir.path().join("data/0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let begin = bytes.windows(100).position(|window| window == [7; 100]).unwrap();
    bytes[begin + 8192..begin + 12288].fill(0);
    std::fs::write(&journal, &bytes).unwrap();
    for _ in 0..2 {
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.get(Table::Docs, b"a").unwrap().unwrap(), "1");
        assert_eq!(store.get(Table::Docs, b"b").unwrap(), None);
        put(&store, "c", "3");
    }
    let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
    assert_eq!(store.get(Table::Docs, b"c").unwrap().unwrap(), "3");
}
