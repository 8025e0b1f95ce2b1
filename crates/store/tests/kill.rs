//! A process that writes is killed at any moment; what it had acknowledged is there afterwards.
//!
//! `SETTEE_KILLS=n` kills that many times.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{groups, variable, write};
use settee_store::{Durability, Store, StoreOptions};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the process to be killed where to write, and from which number on.
const CHILD: &str = "SETTEE_KILL_CHILD";

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..variable("SETTEE_KILLS").unwrap_or(8) as u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, format!("{} {}", round * 1_000_000, dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || -> Vec<u32> {
            lines.filter_map(|line| line.unwrap().strip_prefix("ok ")?.parse().ok()).collect()
        });
        std::thread::sleep(Duration::from_millis(rand::random_range(0..300)));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());

        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let found = BTreeSet::from_iter(groups(&store));
        let missing: Vec<_> = acknowledged.difference(&found).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} are missing");
    }
    println!("{} acknowledged", acknowledged.len());
    assert!(!acknowledged.is_empty());
}

/// Not a test: what the process does that is killed.
#[test]
#[ignore = "run by another test"]
fn writes_until_it_is_killed() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (begin, dir) = what.split_once(' ').unwrap();
    let begin: u32 = begin.parse().unwrap();
    let store = Store::open(Path::new(dir), &StoreOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for number in (begin + writer..).step_by(4) {
                    // The process is killed, not the machine, so these are as good.
                    let durability = match number % 3 {
                        0 => Durability::Deferred,
                        _ => Durability::Flush,
                    };
                    write(&store, number, durability).unwrap();
                    writeln!(std::io::stdout(), "ok {number}").unwrap();
                    if number % 500 == 499 {
                        store.compact().unwrap();
                    }
                }
            });
        }
    });
}
