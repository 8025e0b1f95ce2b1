//! What the store does in a second on this machine.
//!
//! `cargo run --release -p settee-store --example measure [directory]`

#![allow(clippy::print_stdout)]

use bytes::Bytes;
use settee_store::{Durability, Result, Store, StoreError, StoreOptions, Table};
use std::io::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Rows of a bulk load, in three tables as documents are: by id, by sequence, body.
const DOCUMENTS: u64 = 200_000;
const GROUP: u64 = 1_000;
/// Argument of the process that is to stop hard.
const CRASH: &str = "--load-and-abort";
/// Argument of the process that opens what that one left.
const OPEN: &str = "--open";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    match (first.as_deref(), arguments.next()) {
        (Some(CRASH), Some(dir)) => return crash(Path::new(&dir)),
        (Some(OPEN), Some(dir)) => return open(Path::new(&dir)),
        _ => {}
    }
    let base = first.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("settee-measure-{}", std::process::id()));
    let outcome = measure(&dir);
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

fn measure(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let store = Store::open(dir, &StoreOptions::default())?;
    println!("create                        {:8.1} ms", millis(begun.elapsed()));
    println!("memory, idle                  {:8.1} MiB", memory());

    for _ in 0..3 {
        device(&dir.join("device"), 2_000).map_err(|e| StoreError::Io(e.to_string()))?;
        let begun = Instant::now();
        for _ in 0..2_000 {
            put(&store, random(), Durability::Flush)?;
        }
        rate("one writer, durable", 2_000, "tx", begun.elapsed());
    }

    for writers in [8, 64] {
        let begun = Instant::now();
        let each = 60_000 / writers;
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope
                    .spawn(|| (0..each).try_for_each(|_| put(&store, random(), Durability::Flush)));
            }
        });
        rate(&format!("{writers} writers, durable"), writers * each, "tx", begun.elapsed());
    }
    let begun = Instant::now();
    let (sender, receiver) = std::sync::mpsc::channel();
    for _ in 0..100_000 {
        let (sender, id) = (sender.clone(), random());
        store.submit(
            Durability::Flush,
            move |tx| -> Result<()> {
                tx.put(Table::Docs, key(id), value(id, 300));
                Ok(())
            },
            move |done| {
                let _ = sender.send(done);
            },
        );
    }
    drop(sender);
    receiver.iter().collect::<Result<Vec<()>>>()?;
    rate("submitted, durable", 100_000, "tx", begun.elapsed());

    let begun = Instant::now();
    load(&store, DOCUMENTS)?;
    rate("bulk, 1000 documents durable", DOCUMENTS, "docs", begun.elapsed());
    println!(
        "                              {:8.0} rows/s",
        3.0 * per_second(DOCUMENTS, begun.elapsed())
    );
    println!("memory, loaded                {:8.1} MiB", memory());

    reads(&store, "as loaded")?;
    let before = store.stats().disk;
    let begun = Instant::now();
    store.compact()?;
    println!("compact                       {:8.1} ms", millis(begun.elapsed()));
    println!(
        "disk                          {:8.1} -> {:.1} MiB",
        mib(before),
        mib(store.stats().disk)
    );
    reads(&store, "compacted")?;
    println!("{:?}", store.stats());
    drop(store);

    let begun = Instant::now();
    let store = Store::open(dir, &StoreOptions::default())?;
    println!("open                          {:8.1} ms", millis(begun.elapsed()));
    drop(store);

    // A gibibyte, by a process which then stops without closing the store.
    let dir = &dir.join("crashed");
    let program = std::env::current_exe().map_err(|e| StoreError::Io(e.to_string()))?;
    let status = std::process::Command::new(&program).arg(CRASH).arg(dir).status();
    println!("stopped hard                  {status:?}");
    for _ in 0..2 {
        let _ = std::process::Command::new(&program).arg(OPEN).arg(dir).status();
    }

    let store = Store::memory();
    let snapshots: Vec<_> = (0..10).map(|_| store.snapshot()).collect();
    let begun = Instant::now();
    for group in 0..1_000 {
        store.transact(Durability::Flush, move |tx| -> Result<()> {
            for number in group * 200..(group + 1) * 200_u64 {
                let id = mix(number);
                tx.put(Table::Docs, key(id), value(id, 200));
            }
            Ok(())
        })?;
    }
    rate("in memory, snapshots open", 200_000, "rows", begun.elapsed());
    drop(snapshots);
    Ok(())
}

/// What the device can do at most: append and flush.
fn device(path: &Path, count: u64) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.set_len(64 << 20)?;
    file.sync_all()?;
    let begun = Instant::now();
    for _ in 0..count {
        file.write_all(&[7; 400])?;
        file.sync_data()?;
    }
    rate("the device, append and flush", count, "flushes", begun.elapsed());
    Ok(())
}

fn load(store: &Store, documents: u64) -> Result<()> {
    for group in 0..documents / GROUP {
        store.transact(Durability::Flush, move |tx| -> Result<()> {
            for number in group * GROUP..(group + 1) * GROUP {
                let id = mix(number);
                tx.put(Table::Docs, key(id), value(id, 200));
                tx.put(Table::Seqs, key(number), value(id, 60));
                tx.put(Table::Bodies, key(number), value(id, 1_000));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Loads a gibibyte and stops as if it were killed.
fn crash(dir: &Path) -> Result<()> {
    let store = Store::open(dir, &StoreOptions::default())?;
    load(&store, 850_000)?;
    std::process::abort()
}

/// Opens what another process left.
fn open(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let store = Store::open(dir, &StoreOptions::default())?;
    println!("open                          {:8.1} ms", millis(begun.elapsed()));
    println!("memory                        {:8.1} MiB", memory());
    store.get(Table::Docs, &key(1))?;
    std::thread::sleep(Duration::from_secs(2));
    println!("memory, 2 s later             {:8.1} MiB", memory());
    Ok(())
}

fn reads(store: &Store, state: &str) -> Result<()> {
    for (name, table, random) in [
        ("get by id", Table::Docs, true),
        ("get by id, not there", Table::Side, true),
        ("get body", Table::Bodies, false),
    ] {
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < Duration::from_secs(1) {
            for _ in 0..100 {
                number += 1;
                let id = mix(number) % DOCUMENTS;
                let _ = store.get(table, &key(if random { mix(id) } else { id }))?;
            }
        }
        rate(&format!("{name}, {state}"), number, "gets", begun.elapsed());
    }
    for table in [Table::Seqs, Table::Docs, Table::Bodies] {
        let begun = Instant::now();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let rows = store.snapshot().range(table, all).inspect(|row| assert!(row.is_ok())).count();
        rate(&format!("scan {table:?}, {state}"), rows as u64, "rows", begun.elapsed());
    }
    Ok(())
}

fn put(store: &Store, id: u64, durability: Durability) -> Result<(), StoreError> {
    store.transact(durability, move |tx| {
        tx.put(Table::Docs, key(id), value(id, 300));
        Ok(())
    })
}

fn key(number: u64) -> Vec<u8> {
    let mut key = 7_u32.to_be_bytes().to_vec();
    key.extend(number.to_be_bytes());
    key
}

/// Half of it repeats, as JSON does.
fn value(seed: u64, len: usize) -> Bytes {
    let words = (0..len as u64).step_by(16).flat_map(|i| mix(seed ^ i).to_le_bytes());
    let mut value: Vec<u8> = words.flat_map(|byte| [byte, b'"']).collect();
    value.truncate(len);
    value.into()
}

fn random() -> u64 {
    rand::random()
}

fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn rate(what: &str, count: u64, unit: &str, time: Duration) {
    println!("{what:<30}{:8.0} {unit}/s", per_second(count, time));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident memory of this process in MiB, where the system tells.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
