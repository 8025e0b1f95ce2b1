//! Every write and every flush may fail.

use crate::block_on;
use crate::power::open;
use crate::seed::variable;
use crate::workload::{self, Step, create};
use settee::adapter::Host;
use settee::local::Local;
use settee_core::options::{GetOptions, WriteOptions};
use settee_core::{Document, ErrorKind};
use std::path::Path;
use testkit::faultfs::{Fault, FaultFs, Operation};

/// The workload is always the same.
const SEED: u64 = 4;
const STEPS: usize = 16;

/// What is known of what was written.
#[derive(Default)]
struct Known {
    /// Steps that are there.
    there: Vec<usize>,
    /// Steps that failed since the directory was opened last. At most one of them is there.
    failed: Vec<usize>,
}

fn step(number: usize) -> Step {
    Step { seed: SEED, writer: 0, number, defer: false }
}

/// What the database holds after some steps.
fn after(steps: &[usize]) -> (workload::Documents, workload::Counters) {
    let model = Local::memory().unwrap();
    create(&model, "db").unwrap();
    let db = model.database("db").unwrap();
    for &number in steps {
        block_on(step(number).take(&*db)).unwrap();
    }
    let documents = workload::read(&*db, 1).unwrap().remove(0);
    (documents, workload::counters(&*db).unwrap())
}

impl Known {
    /// Compares what is known with what is there, and learns what became of the failed steps.
    fn verify(&mut self, local: &Local, context: &str) {
        assert_eq!(local.check().unwrap().problems, Vec::<String>::new(), "{context}");
        let db = local.database("db").unwrap();
        let found = match workload::read(&*db, 1) {
            Ok(mut found) => (found.remove(0), workload::counters(&*db).unwrap()),
            // If not even the database could be made.
            Err(error) if error.is_not_found() && self.there.is_empty() => Default::default(),
            Err(error) => panic!("{context}: {error}"),
        };
        let mut candidates = vec![self.there.clone()];
        candidates.extend(self.failed.iter().map(|&failed| {
            let mut there = self.there.clone();
            there.push(failed);
            there
        }));
        let right = candidates.iter().position(|there| after(there) == found);
        let Some(right) = right else {
            panic!(
                "{context}: of {:?}, with {:?} failed, this is there: {found:#?}",
                self.there, self.failed
            );
        };
        self.there = candidates.swap_remove(right);
        self.failed.clear();
    }
}

/// A fixed life: creates, writes, compacts, reopens, writes.
fn life(path: &Path) -> Known {
    let mut known = Known::default();
    for turn in 0..2 {
        let Ok(local) = open(path) else { return known };
        if turn > 0 {
            known.verify(&local, "reopened");
        }
        if create(&local, "db").is_err() {
            return known;
        }
        let db = local.database("db").unwrap();
        for number in turn * STEPS / 2..(turn + 1) * STEPS / 2 {
            match block_on(step(number).take(&*db)) {
                Ok(()) => known.there.push(number),
                Err(error) => {
                    assert!(error.status() >= 500, "{error}");
                    known.failed.push(number);
                    // Reads go on, and see nothing of what failed.
                    let documents = workload::read(&*db, 1).unwrap().remove(0);
                    assert_eq!(documents, after(&known.there).0, "after {number} failed: {error}");
                }
            }
            if number % 6 == 5 {
                let _ = local.compact();
            }
        }
    }
    known
}

#[test]
fn every_write_flush_and_change_may_fail_and_what_failed_is_there_as_a_whole_or_not_at_all() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let mut known = life(disk.path());
    assert_eq!(known.there.len(), STEPS);
    known.verify(&open(disk.path()).unwrap(), "without faults");
    let counts = disk.counts();
    println!("{counts:?}");
    // Of many operations a sample, a different one each time.
    let begin: u64 = rand::random();
    for (operation, count) in [
        (Operation::Write, counts.writes),
        (Operation::Flush, counts.flushes),
        (Operation::Change, counts.changes),
    ] {
        let every = if variable("SETTEE_ALL_FAULTS").is_some() { 1 } else { count.div_ceil(16) };
        for nth in (1 + begin % every..=count).step_by(every as usize) {
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
                let mut known = life(disk.path());
                disk.clear_faults();
                // The process goes on, or the machine starts again.
                let image = (begin ^ nth).is_multiple_of(2).then(|| disk.cut_power(nth).unwrap());
                let path = image.as_ref().map_or(disk.path(), |image| image.path());
                let context = format!("{context}, power cut {}", image.is_some());
                let local = open(path).unwrap_or_else(|e| panic!("{context}: {e}"));
                known.verify(&local, &context);
                // And it works again.
                create(&local, "db").unwrap();
                let db = local.database("db").unwrap();
                let doc = Document::with_id("w00-again");
                block_on(db.put(doc, None, &WriteOptions::default())).unwrap();
            }
        }
    }
}

#[test]
fn on_a_full_disk_writes_are_refused_reads_go_on_and_space_heals_it() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    let local = open(disk.path()).unwrap();
    create(&local, "db").unwrap();
    let db = local.database("db").unwrap();
    let put = |n: usize| {
        let mut doc = Document::with_id(format!("w00-{n}"));
        doc.set("text", "x".repeat(3_000)).unwrap();
        block_on(db.put(doc, None, &WriteOptions::default()))
    };
    let mut there = 0;
    for turn in 0..3 {
        disk.limit_space(1 << 20);
        let error = loop {
            match put(there) {
                Ok(_) => there += 1,
                Err(error) => break error,
            }
            assert!(there < 100_000);
        };
        for error in [error, put(there).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InsufficientStorage, "turn {turn}: {error}");
            assert_eq!((error.status(), error.name()), (507, "insufficient_storage"));
        }
        for n in 0..there {
            block_on(db.get(&format!("w00-{n}"), &GetOptions::default())).unwrap();
        }
        assert!(block_on(db.get(&format!("w00-{there}"), &GetOptions::default())).is_err());
        disk.lift_space();
        // Without being opened again.
        put(there).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        there += 1;
    }
    assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    let image = disk.cut_power(7).unwrap();
    let local = open(image.path()).unwrap();
    assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    let info = block_on(local.database("db").unwrap().info()).unwrap();
    assert_eq!(info.doc_count, there as u64);
}

#[test]
fn a_disk_without_room_for_the_journal_names_the_reason() {
    let Some(disk) = FaultFs::mount_or_skip() else { return };
    disk.limit_space(0);
    let error = open(disk.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InsufficientStorage, "{error}");
    disk.lift_space();
    open(disk.path()).unwrap();
}
