//! Power cuts in the middle of writing, on the fault file system.

use crate::block_on;
use crate::seed::{rng, rounds, seed};
use crate::workload::{Models, Step, create};
use rand::Rng;
use settee::adapter::Host;
use settee::local::{Local, LocalOptions};
use settee_core::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use testkit::faultfs::FaultFs;

const WRITERS: usize = 64;
/// Cuts that hit the same data, one after the other.
const LIVES: u64 = 5;

/// Opens a directory on a small disk, so nothing is held back. Waits while it is in use: a database
/// that was dropped may still be compacting by itself.
pub(crate) fn open(path: &Path) -> settee_core::Result<Local> {
    let mut options = LocalOptions::default();
    options.store = options.store.reserve(0);
    for _ in 0..10_000 {
        match Local::open(path, &options) {
            Err(error) if error.kind() == ErrorKind::ServiceUnavailable => {
                std::thread::sleep(Duration::from_millis(1));
            }
            outcome => return outcome,
        }
    }
    Local::open(path, &options)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_nothing_else_is_there_in_part() {
    let seed = seed();
    let rounds = rounds(50);
    let mut total = 0;
    let mut round = 0;
    while round < rounds {
        let Some(mut disk) = FaultFs::mount_or_skip() else { return };
        let mut models = Models::new(seed + round, WRITERS);
        let mut steps = vec![0; WRITERS];
        for life in 0..LIVES.min(rounds - round) {
            let (image, range) = one_life(disk, seed + round, life, &steps);
            total += range.iter().zip(&steps).map(|((done, _), from)| done - from).sum::<usize>();
            disk = FaultFs::mount_image(image.path()).unwrap();
            let local = open(disk.path()).unwrap_or_else(|error| panic!("life {life}: {error}"));
            create(&local, "db").unwrap();
            steps = models.verify(&local, "db", &range);
        }
        round += LIVES;
    }
    println!("{total} durable writes in {rounds} lives");
}

/// Writes until the power is cut. Returns what the disk holds then, and between how many and how many
/// steps each writer may have taken.
fn one_life(
    disk: FaultFs,
    seed: u64,
    life: u64,
    steps: &[usize],
) -> (tempfile::TempDir, Vec<(usize, usize)>) {
    let mut rng = rng(&[seed, life, 1]);
    let local = open(disk.path()).unwrap();
    create(&local, "db").unwrap();
    let wanted = rng.random_range(0..1_200);
    let pause = rng.random_range(0..3_000);
    let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (count, stop) = (&count, &stop);
    let (image, range) = std::thread::scope(|scope| {
        let writer = |(writer, &from): (usize, &usize)| {
            let db = local.database("db").unwrap();
            scope.spawn(move || {
                let (mut durable, mut number) = (from, from);
                loop {
                    let step = Step { seed, writer, number, defer: true };
                    // Everything fails after the cut.
                    if stop.load(Ordering::Relaxed) || block_on(step.take(&*db)).is_err() {
                        count.fetch_add(1_000_000, Ordering::Relaxed);
                        return (durable, number + 1);
                    }
                    number += 1;
                    if !step.deferred() {
                        durable = number;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let writers: Vec<_> = steps.iter().enumerate().map(writer).collect();
        let compaction = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                // It may meet the cut.
                let _ = local.compact();
            }
        });
        while count.load(Ordering::Relaxed) < wanted {
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(count.load(Ordering::Relaxed) < 1_000_000, "a write failed before the cut");
        std::thread::sleep(Duration::from_micros(pause));
        let image = disk.cut_power(seed ^ life).unwrap();
        stop.store(true, Ordering::Relaxed);
        let range = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        compaction.join().unwrap();
        (image, range)
    });
    drop(local);
    drop(disk);
    (image, range)
}
