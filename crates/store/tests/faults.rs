//! A store on a disk that fails. Skipped where the fault file system cannot be mounted.
//!
//! - `SETTEE_ALL_FAULTS=1` fails every single operation instead of a sample.
//! - `SETTEE_POWER_CUTS=n` cuts the power that many times; `SETTEE_SEED=n` begins with that seed.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{groups, variable, write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use settee_store::{Durability, Store, StoreError, StoreOptions, Table};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use testkit::faultfs::{Counts, Failure, Fault, FaultFs, Operation};

fn open(path: &Path) -> settee_store::Result<Store> {
    Store::open(path, &StoreOptions::default().reserve(0))
}

/// A fixed life: creates, writes, flushes, compacts, reopens. Returns the groups that were
/// acknowledged as durable, and those that failed.
fn life(path: &Path) -> (Vec<u32>, Vec<u32>) {
    let (mut durable, mut failed, mut deferred) = (Vec::new(), Vec::new(), Vec::new());
    let mut number = 0;
    for _ in 0..2 {
        let Ok(store) = open(path) else { return (durable, failed) };
        for turn in 0..6 {
            number += 1;
            let durability = if turn % 3 == 1 { Durability::Deferred } else { Durability::Flush };
            match (write(&store, number, durability), durability) {
                (Ok(()), Durability::Deferred) => deferred.push(number),
                (Ok(()), Durability::Flush) => {
                    durable.append(&mut deferred);
                    durable.push(number);
                }
                (Err(_), _) => {
                    // Nothing is said to be written after a failure, but reads go on.
                    failed.push(number);
                    let known = groups(&store);
                    assert!(durable.iter().all(|number| known.contains(number)));
                }
            }
            if turn == 3 {
                let _ = store.compact();
            }
        }
        if store.close().is_ok() {
            durable.append(&mut deferred);
        }
    }
    (durable, failed)
}

fn check(path: &Path, (durable, failed): &(Vec<u32>, Vec<u32>), context: &str) {
    let store = open(path).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = groups(&store);
    for number in durable {
        assert!(found.contains(number), "{context}: {number} is missing in {found:?}");
    }
    // The first that failed each time it was opened may be there; those after it were refused.
    let extra: Vec<_> = failed.iter().filter(|number| found.contains(number)).collect();
    assert!(extra.len() <= 2, "{context}: {extra:?} failed and are there");
    // And it works again.
    write(&store, 1_000, Durability::Flush).unwrap_or_else(|error| panic!("{context}: {error}"));
}

#[test]
fn every_write_may_fail() {
    every(Operation::Write, |counts| counts.writes);
}

#[test]
fn every_flush_may_fail() {
    every(Operation::Flush, |counts| counts.flushes);
}

#[test]
fn every_change_may_fail() {
    every(Operation::Change, |counts| counts.changes);
}

/// Counts the operations of a life, and lives it again for each of them with that one failing.
fn every(operation: Operation, count: impl Fn(Counts) -> u64) {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let (durable, failed) = life(disk.path());
    assert_eq!((durable.len(), failed.len()), (12, 0));
    println!("{:?}", disk.counts());
    let count = count(disk.counts());
    // Of many operations a sample, a different one each time.
    let every = if variable("SETTEE_ALL_FAULTS") == Some(1) { 1 } else { count.div_ceil(15) };
    for nth in (1 + rand::random::<u64>() % every..=count).step_by(every as usize) {
        for (lasting, torn) in [(false, false), (true, false), (false, true)] {
            if torn && operation != Operation::Write {
                continue;
            }
            let context = format!("{operation:?} {nth}, lasting {lasting}, torn {torn}");
            let disk = FaultFs::mount().unwrap();
            let mut fault = Fault::new(operation, nth);
            fault = if lasting { fault.lasting() } else { fault };
            fault = if torn { fault.torn() } else { fault };
            disk.inject(fault);
            let outcome = life(disk.path());
            disk.clear_faults();
            // The program is started again, or the machine is.
            if nth % 2 == 0 {
                check(disk.path(), &outcome, &context);
            } else {
                let image = disk.cut_power(nth).unwrap();
                check(image.path(), &outcome, &format!("{context}, power cut"));
            }
        }
    }
}

#[test]
fn a_commit_is_one_flush_for_the_device_too() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let store = open(disk.path()).unwrap();
    write(&store, 1, Durability::Flush).unwrap();
    let before = disk.counts();
    for number in 2..102 {
        write(&store, number, Durability::Flush).unwrap();
    }
    assert_eq!(disk.counts().flushes - before.flushes, 100);
}

#[test]
fn a_failed_flush_ends_all_writing_but_not_reading() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let store = open(disk.path()).unwrap();
    write(&store, 1, Durability::Flush).unwrap();
    disk.fail_flush(1);
    for number in 2..5 {
        for durability in [Durability::Flush, Durability::Deferred] {
            let result = write(&store, number, durability);
            assert!(matches!(result, Err(StoreError::Poisoned(_))), "{result:?}");
        }
        assert!(matches!(store.flush(), Err(StoreError::Poisoned(_)) | Ok(())));
    }
    assert_eq!(groups(&store), [1]);
    drop(store);
    let store = open(disk.path()).unwrap();
    write(&store, 9, Durability::Flush).unwrap();
    assert!(groups(&store).contains(&1));
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let Some(_) = FaultFs::mount_or_skip() else { return };
    let begin = variable("SETTEE_SEED").unwrap_or_else(rand::random);
    for round in 0..variable("SETTEE_POWER_CUTS").unwrap_or(6) {
        let seed = begin.wrapping_add(round);
        println!("SETTEE_SEED={seed} SETTEE_POWER_CUTS=1");
        power_cut(seed);
    }
}

/// Writers write, the power is cut, the store is opened and may lose power while it is, twice.
fn power_cut(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = FaultFs::mount().unwrap();
    let mut durable = BTreeSet::new();
    let mut next = 1;
    for _ in 0..3 {
        let writers = rng.random_range(1..9);
        let wait = Duration::from_micros(rng.random_range(0..300_000));
        let (sender, acknowledged) = channel();
        let image = match open(disk.path()) {
            // The power may be cut while it is opened; that is the other half of the rounds.
            Ok(store) if rng.random_bool(0.7) => {
                check_durable(&store, &durable, seed);
                std::thread::scope(|scope| {
                    for writer in 0..writers {
                        let (store, sender) = (store.clone(), sender.clone());
                        scope.spawn(move || {
                            for number in (next + writer..).step_by(16) {
                                let deferred = number % 5 == 0;
                                let durability = match deferred {
                                    true => Durability::Deferred,
                                    false => Durability::Flush,
                                };
                                if write(&store, number, durability).is_err() {
                                    return;
                                }
                                if !deferred {
                                    sender.send(number).unwrap();
                                }
                                if number % 640 == 1 {
                                    let _ = store.compact();
                                }
                            }
                        });
                    }
                    std::thread::sleep(wait);
                    // Taken first: what is acknowledged after the cut does not count.
                    durable.extend(acknowledged.try_iter());
                    disk.cut_power(rng.random()).unwrap()
                })
            }
            Ok(store) => {
                check_durable(&store, &durable, seed);
                disk.cut_power(rng.random()).unwrap()
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        next += 100_000;
        disk = FaultFs::mount_image(image.path()).unwrap();
        // Opening writes, and that may be cut off as well.
        let path = disk.path().to_owned();
        let opening = std::thread::spawn(move || drop(open(&path)));
        std::thread::sleep(Duration::from_micros(rng.random_range(0..10_000)));
        let image = disk.cut_power(rng.random()).unwrap();
        opening.join().unwrap();
        disk = FaultFs::mount_image(image.path()).unwrap();
    }
    let store = open(disk.path()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    check_durable(&store, &durable, seed);
    println!("{} acknowledged, {} found", durable.len(), groups(&store).len());
}

fn check_durable(store: &Store, durable: &BTreeSet<u32>, seed: u64) {
    let found = BTreeSet::from_iter(groups(store));
    let missing: Vec<_> = durable.difference(&found).collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?} of {} are missing", durable.len());
}

/// Writes until it fails, and returns the error and the number that failed.
fn fill(store: &Store, begin: u32) -> (u32, StoreError) {
    for number in begin.. {
        if let Err(error) = write(store, number, Durability::Flush) {
            return (number, error);
        }
    }
    unreachable!("a disk without end")
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let options = StoreOptions::default().reserve(8 << 20);
    let store = Store::open(disk.path(), &options).unwrap();
    let mut begin = 1;
    let mut expected = Vec::new();
    for _ in 0..3 {
        disk.limit_space(12 << 20);
        let (failed, error) = fill(&store, begin);
        assert!(matches!(error, StoreError::Full), "{error}");
        assert!(failed > begin + 10);
        expected.extend(begin..failed);
        assert_eq!(groups(&store), expected, "reads go on");
        assert!(matches!(write(&store, failed, Durability::Deferred), Err(StoreError::Full)));
        // What gives back space has some left for it.
        let retired = store.transact(Durability::Flush, |tx| -> settee_store::Result<()> {
            tx.retire(u32::MAX);
            Ok(())
        });
        retired.unwrap();
        store.compact().unwrap();
        disk.lift_space();
        begin = failed;
    }
    write(&store, begin, Durability::Flush).unwrap();
    expected.push(begin);
    let image = disk.cut_power(1).unwrap();
    assert_eq!(groups(&Store::open(image.path(), &options).unwrap()), expected);
}

/// Without a reserve the engine itself runs out of space, in the midst of what it does.
#[test]
fn a_store_that_broke_for_want_of_space_mends_itself() {
    let Some(_) = FaultFs::mount_or_skip() else { return };
    let mut rng = StdRng::seed_from_u64(variable("SETTEE_SEED").unwrap_or_else(rand::random));
    for _ in 0..6 {
        let disk = FaultFs::mount().unwrap();
        let store = open(disk.path()).unwrap();
        let mut begin = 1;
        let mut expected = Vec::new();
        for round in 0..4 {
            disk.limit_space(rng.random_range(0..3_000_000));
            if rng.random() {
                let _ = store.compact();
            }
            let deferred = write(&store, begin, Durability::Deferred).is_ok();
            expected.extend(deferred.then_some(begin));
            begin += 1;
            let (failed, error) = fill(&store, begin);
            assert!(matches!(error, StoreError::Full), "{error}");
            expected.extend(begin..failed);
            assert_eq!(groups(&store), expected, "reads go on");
            // It cannot mend itself while somebody reads what would be replaced.
            let snapshot = store.snapshot();
            disk.lift_space();
            let begun = Instant::now();
            let result = write(&store, failed, Durability::Flush);
            assert!(matches!(result, Ok(()) | Err(StoreError::Full)), "{result:?}");
            expected.extend(result.is_ok().then_some(failed));
            assert_eq!(
                snapshot.range(Table::Docs, (Bound::Unbounded, Bound::Unbounded)).count(),
                expected.len() - usize::from(result.is_ok())
            );
            drop(snapshot);
            begin = failed + 1;
            write(&store, begin, Durability::Flush).unwrap();
            expected.push(begin);
            begin += 1;
            assert_eq!(groups(&store), expected, "round {round}");
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        // What failed does not come back, neither after a restart nor after a power cut.
        disk.limit_space(rng.random_range(0..1_000_000));
        let (failed, _) = fill(&store, begin);
        expected.extend(begin..failed);
        drop(store);
        disk.lift_space();
        assert_eq!(groups(&open(disk.path()).unwrap()), expected);
        let image = disk.cut_power(rng.random()).unwrap();
        assert_eq!(groups(&open(image.path()).unwrap()), expected);
    }
}

/// Errors of other kinds are not taken for want of space.
#[test]
fn failures_behind_the_scenes_are_not_mended() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let store = open(disk.path()).unwrap();
    write(&store, 1, Durability::Flush).unwrap();
    disk.inject(Fault::new(Operation::Change, 1).because(Failure::Device).lasting());
    assert!(store.compact().is_err());
    disk.clear_faults();
    let result = write(&store, 2, Durability::Flush);
    assert!(matches!(result, Err(StoreError::Poisoned(_))), "{result:?}");
    assert_eq!(groups(&store), [1]);
}
