//! What several tests of the store share.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use settee_store::{Durability, Store, Table};
use std::ops::Bound;

/// A number in the environment.
pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Writes some rows under a number; a group of them is there as a whole or not at all.
pub fn write(store: &Store, number: u32, durability: Durability) -> settee_store::Result<()> {
    store.transact(durability, move |tx| {
        for (row, table) in (0..).zip(Table::ALL) {
            // Some values are so long that a torn page may lie inside of one.
            let len = [10, 1_000, 20_000][(number as usize + row) % 3];
            tx.put(table, number.to_be_bytes().to_vec(), vec![number as u8; len]);
        }
        tx.put(Table::Meta, "last", number.to_be_bytes().to_vec());
        Ok(())
    })
}

/// The numbers of the groups that are there, after checking that each is whole.
pub fn groups(store: &Store) -> Vec<u32> {
    let snapshot = store.snapshot();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let numbers = |table| -> Vec<u32> {
        snapshot
            .range(table, all)
            .map(|row| row.unwrap())
            .filter(|(key, _)| key.len() == 4 && &key[..] != b"last")
            .map(|(key, value)| {
                let number = u32::from_be_bytes(key[..].try_into().unwrap());
                assert!(value.iter().all(|byte| *byte == number as u8));
                number
            })
            .collect()
    };
    let docs = numbers(Table::Docs);
    for table in Table::ALL {
        assert_eq!(numbers(table), docs, "{table:?}");
    }
    docs
}
