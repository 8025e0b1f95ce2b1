//! `SIGKILL` in the middle of writing.

use crate::block_on;
use crate::child::{Process, say};
use crate::seed::{rng, rounds, seed};
use crate::workload::{Models, Step, create};
use rand::Rng;
use settee::adapter::Host;
use settee::local::{Local, LocalOptions};
use std::time::Duration;

const WRITERS: usize = 64;
/// Kills of processes that write to one directory, one after the other.
const LIVES: u64 = 10;

/// The child: writers that go on from where each of them was, until killed.
pub(crate) fn writers(argument: &str) {
    let mut words = argument.split(' ');
    let (dir, seed) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    create(&local, "db").unwrap();
    say("open");
    std::thread::scope(|scope| {
        for (writer, from) in words.enumerate() {
            let db = local.database("db").unwrap();
            let from = from.parse().unwrap();
            scope.spawn(move || {
                for number in from.. {
                    match block_on(Step { seed, writer, number, defer: true }.take(&*db)) {
                        Ok(()) => say(&format!("done {writer} {number}")),
                        Err(error) => say(&format!("failed {writer} {number}: {error}")),
                    }
                }
            });
        }
        // Compaction runs meanwhile.
        loop {
            std::thread::sleep(Duration::from_millis(60));
            if let Err(error) = local.compact() {
                say(&format!("failed to compact: {error}"));
            }
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_nothing_else_is_there_in_part() {
    let seed = seed();
    let rounds = rounds(50);
    let mut total = 0;
    let mut round = 0;
    while round < rounds {
        let dir = tempfile::tempdir().unwrap();
        let mut models = Models::new(seed + round, WRITERS);
        let mut steps = vec![0; WRITERS];
        for life in 0..LIVES.min(rounds - round) {
            let done = one_life(&dir, seed + round, life, &steps);
            total += done.iter().zip(&steps).map(|(done, from)| done - from).sum::<usize>();
            let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
            let range: Vec<_> = done.iter().map(|&done| (done, done + 1)).collect();
            create(&local, "db").unwrap();
            steps = models.verify(&local, "db", &range);
        }
        round += LIVES;
    }
    println!("{total} acknowledged writes in {rounds} lives");
}

/// Writes until killed, and returns how many steps of each writer were acknowledged.
fn one_life(dir: &tempfile::TempDir, seed: u64, life: u64, steps: &[usize]) -> Vec<usize> {
    let mut rng = rng(&[seed, life]);
    let mut argument = format!("{} {seed}", dir.path().display());
    for from in steps {
        argument += &format!(" {from}");
    }
    let mut child = Process::start("writers", &argument);
    let mut done = steps.to_vec();
    // Some die before they have opened the directory, most in the middle of writing.
    let acknowledgements = match rng.random_range(0..10) {
        0 => None,
        _ => Some(rng.random_range(0..1_500)),
    };
    let mut take = |line: String| {
        assert!(!line.starts_with("failed"), "{line}");
        if let Some(line) = line.strip_prefix("done ") {
            let (writer, number) = line.split_once(' ').unwrap();
            let (writer, number): (usize, usize) =
                (writer.parse().unwrap(), number.parse().unwrap());
            assert_eq!(number, done[writer]);
            done[writer] += 1;
        }
    };
    match acknowledgements {
        None => std::thread::sleep(Duration::from_millis(rng.random_range(0..60))),
        Some(wanted) => {
            let mut seen = 0;
            while seen < wanted {
                let line = child.line("").expect("the child process ended");
                seen += u32::from(line.starts_with("done"));
                take(line);
            }
            std::thread::sleep(Duration::from_micros(rng.random_range(0..3_000)));
        }
    }
    child.kill();
    while let Some(line) = child.line("") {
        take(line);
    }
    done
}
