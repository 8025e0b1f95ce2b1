//! Groups of transactions: how often they are flushed, what they see, what failing ones leave.

#![allow(clippy::unwrap_used)]

use settee_store::{Durability, Store, StoreError, StoreOptions, Table};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::{Duration, Instant};

fn each(test: impl Fn(&Store)) {
    test(&Store::memory());
    let dir = tempfile::tempdir().unwrap();
    test(&Store::open(dir.path(), &StoreOptions::default()).unwrap());
}

/// Keeps the commit thread busy until what it returns is dropped, so that everything asked for
/// meanwhile waits and then makes one group.
fn hold(store: &Store) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begin, begun) = sync_channel(1);
    store.submit(
        Durability::Deferred,
        |_| Ok::<_, StoreError>(()),
        move |_| {
            begin.send(()).unwrap();
            let _ = released.recv();
        },
    );
    begun.recv().unwrap();
    release
}

fn increment(store: &Store, durability: Durability) {
    store
        .transact(durability, |tx| {
            let count = tx.get(Table::Meta, b"count")?.map_or(0, |bytes| bytes[0]);
            tx.put(Table::Meta, "count", vec![count + 1]);
            Ok::<_, StoreError>(())
        })
        .unwrap();
}

#[test]
fn a_lone_writer_costs_one_flush_per_commit() {
    each(|store| {
        for _ in 0..10 {
            increment(store, Durability::Flush);
        }
        let stats = store.stats();
        assert_eq!((stats.transactions, stats.commits, stats.flushes), (10, 10, 10));
    });
}

#[test]
fn waiting_writers_share_a_commit_and_a_flush() {
    each(|store| {
        let held = hold(store);
        let (sender, receiver) = channel();
        for turn in 0..64_u8 {
            // One of them asks for a flush, and all are durable with it.
            let durability = if turn == 40 { Durability::Flush } else { Durability::Deferred };
            let sender = sender.clone();
            store.submit(
                durability,
                move |tx| {
                    let count = tx.get(Table::Meta, b"count")?.map_or(0, |bytes| bytes[0]);
                    assert_eq!(count, turn, "sees those before it, in their order");
                    tx.put(Table::Meta, "count", vec![count + 1]);
                    Ok::<_, StoreError>(turn)
                },
                move |outcome| sender.send(outcome.unwrap()).unwrap(),
            );
        }
        drop((held, sender));
        let answers: Vec<u8> = receiver.iter().collect();
        assert_eq!(answers, (0..64).collect::<Vec<u8>>(), "answered in their order");
        let stats = store.stats();
        assert_eq!((stats.transactions, stats.commits, stats.flushes), (65, 1, 1));
        assert_eq!(store.get(Table::Meta, b"count").unwrap().unwrap(), vec![64]);
    });
}

#[test]
fn what_fails_leaves_nothing_in_its_group() {
    each(|store| {
        let held = hold(store);
        let (sender, receiver) = channel();
        let submit = |fails: Option<&'static str>, key: &'static str, value: &'static str| {
            let sender = sender.clone();
            store.submit(
                Durability::Flush,
                move |tx| {
                    let before = tx.get(Table::Docs, b"shared")?;
                    tx.put(Table::Docs, key, value);
                    tx.put(Table::Docs, "shared", value);
                    tx.delete(Table::Docs, "doomed");
                    tx.put(Table::Docs, "doomed", "again");
                    if fails.is_some() {
                        tx.retire(u32::from_be_bytes(*b"shar"));
                    }
                    match fails {
                        Some("panic") => panic!("on purpose"),
                        Some(why) => Err(StoreError::Io(why.to_owned())),
                        None => Ok(before),
                    }
                },
                move |outcome| sender.send(outcome).unwrap(),
            );
        };
        submit(None, "a", "1");
        submit(Some("fails"), "b", "2");
        submit(Some("panic"), "c", "3");
        submit(None, "d", "4");
        drop(held);
        drop(sender);
        let answers: Vec<_> = receiver.iter().collect();
        assert!(matches!(&answers[0], Ok(None)));
        assert!(matches!(&answers[1], Err(StoreError::Io(why)) if why == "fails"));
        assert!(matches!(&answers[2], Err(StoreError::Panicked(why)) if why == "on purpose"));
        assert!(matches!(&answers[3], Ok(Some(value)) if value == "1"), "not 2 nor 3");
        let values = store.multi_get(Table::Docs, ["a", "b", "c", "d", "shared"]).unwrap();
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        assert_eq!(values, [Some(&b"1"[..]), None, None, Some(b"4"), Some(b"4")]);
        assert_eq!(store.stats().flushes, 1);
        // The thread lives on, and what failed has not retired anything.
        increment(store, Durability::Flush);
        store.compact().unwrap();
        assert!(store.get(Table::Docs, b"shared").unwrap().is_some());
    });
}

#[test]
fn a_panicking_answer_does_not_stop_the_store() {
    each(|store| {
        store.submit(Durability::Flush, |_| Ok::<_, StoreError>(()), |_| panic!("on purpose"));
        increment(store, Durability::Flush);
    });
}

#[test]
fn reading_transactions_cost_nothing() {
    each(|store| {
        increment(store, Durability::Flush);
        for _ in 0..5 {
            let read = store.transact(Durability::Flush, |tx| tx.get(Table::Meta, b"count"));
            assert_eq!(read.unwrap().unwrap(), vec![1]);
        }
        let stats = store.stats();
        assert_eq!((stats.transactions, stats.commits, stats.flushes), (6, 1, 1));
    });
}

#[test]
fn deferred_transactions_are_flushed_in_time() {
    each(|store| {
        increment(store, Durability::Deferred);
        increment(store, Durability::Deferred);
        assert_eq!(store.stats().flushes, 0);
        let begun = Instant::now();
        while store.stats().flushes == 0 {
            assert!(begun.elapsed() < Duration::from_secs(3));
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(store.stats().flushes, 1, "once is enough");
        increment(store, Durability::Deferred);
        store.flush().unwrap();
        store.flush().unwrap();
        assert_eq!(store.stats().flushes, 2);
    });
}

#[test]
fn every_answer_comes_exactly_once() {
    each(|store| {
        let (sender, receiver) = channel();
        for turn in 0..100 {
            let sender = sender.clone();
            let done = move |outcome: settee_store::Result<()>| {
                sender.send((turn, outcome.is_ok())).unwrap();
            };
            store.submit(Durability::Flush, |_| Ok(()), done);
            if turn == 50 {
                store.close().unwrap();
            }
        }
        drop(sender);
        let answers: Vec<(i32, bool)> = receiver.iter().collect();
        assert_eq!(answers, (0..100).map(|turn| (turn, turn <= 50)).collect::<Vec<_>>());
    });
}
