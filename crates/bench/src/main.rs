//! Settee beside its peers and the limits of the device, in one run: `cargo xtask bench`.
//!
//! Each [`Work`] is measured on each [`Subject`] that can do it, in turns, round after round, so that
//! a machine whose speed drifts drifts for all of them. The median of the rounds is what counts. The
//! table goes to the terminal and, with `--write`, into `docs/performance.md`.

mod device;
mod embedded;
mod http;
mod pouchdb;
mod replication;
mod report;
mod rouch;
mod views;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// One writer, one document after the other, each durable.
    SinglePut,
    /// 64 writers at once, each durable.
    ManyWriters,
    /// Batches of 1,000 documents of 300 bytes, each batch durable.
    Bulk,
    /// One document after the other by its id, in random order.
    Get,
    /// Every id and revision in order.
    AllDocs,
    /// The same with the documents.
    AllDocsWithDocs,
    /// Every change in order.
    Changes,
    /// The same with the documents.
    ChangesWithDocs,
    /// One document 300 times.
    SameDocument,
    /// Bytes on disk per byte of JSON after compaction.
    Disk,
    /// Replication from a database to another one beside it.
    Replicate,
    /// Replication to a database of `settee serve`.
    ReplicateTo,
    /// Replication from a database of `settee serve`.
    ReplicateFrom,
    /// Replication from one `settee serve` to another.
    ReplicateServers,
    /// The first index of a map function in JavaScript.
    ViewBuild,
    /// One write, and a query that must see it.
    ViewUpdate,
    /// A sum for each of 1,000 groups.
    ViewGroups,
    /// The sum of a third of all rows.
    ViewRange,
    /// One row behind half of all.
    ViewSkip,
    /// Bytes of the index for each row of `emit(doc.name, 1)`.
    ViewSize,
}

impl Work {
    /// All of them, in the order of the table.
    pub const ALL: [Work; 20] = [
        Work::SinglePut,
        Work::ManyWriters,
        Work::Bulk,
        Work::Get,
        Work::AllDocs,
        Work::AllDocsWithDocs,
        Work::Changes,
        Work::ChangesWithDocs,
        Work::SameDocument,
        Work::Disk,
        Work::Replicate,
        Work::ReplicateTo,
        Work::ReplicateFrom,
        Work::ReplicateServers,
        Work::ViewBuild,
        Work::ViewUpdate,
        Work::ViewGroups,
        Work::ViewRange,
        Work::ViewSkip,
        Work::ViewSize,
    ];

    /// Whether a smaller figure is the better one.
    pub fn is_size(self) -> bool {
        matches!(self, Work::Disk | Work::ViewSize)
    }

    /// How the table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Work::SinglePut => "single put, durable, one writer (/s)",
            Work::ManyWriters => "single puts, durable, 64 writers (/s)",
            Work::Bulk => "bulk of 1,000 x 300 B, durable (docs/s)",
            Work::Get => "get by id (/s)",
            Work::AllDocs => "_all_docs (rows/s)",
            Work::AllDocsWithDocs => "_all_docs with documents (rows/s)",
            Work::Changes => "_changes (rows/s)",
            Work::ChangesWithDocs => "_changes with documents (rows/s)",
            Work::SameDocument => "300 edits of one document (/s)",
            Work::Disk => "disk, compacted (bytes per byte of JSON)",
            Work::Replicate => "replication, both ends in one place (docs/s)",
            Work::ReplicateTo => "replication to settee serve (docs/s)",
            Work::ReplicateFrom => "replication from settee serve (docs/s)",
            Work::ReplicateServers => "replication between two settee serve (docs/s)",
            Work::ViewBuild => "view: first index, JavaScript (docs/s)",
            Work::ViewUpdate => "view: a write and a query that sees it (/s)",
            Work::ViewGroups => "view: sums of 1,000 groups of all rows (/s)",
            Work::ViewRange => "view: sum of a third of the rows (/s)",
            Work::ViewSkip => "view: one row, half of them skipped (/s)",
            Work::ViewSize => "view: index (bytes per row)",
        }
    }
}

/// Figures of one round.
pub type Figures = BTreeMap<Work, f64>;

/// Who does the work.
struct Subject {
    name: &'static str,
    /// Measures everything it can, in a fresh directory.
    run: fn(&Path, usize) -> Result<Figures, String>,
}

const SUBJECTS: &[Subject] = &[
    Subject { name: "device", run: device::run },
    Subject { name: "settee", run: embedded::run },
    Subject { name: "settee over HTTP", run: http::run },
    Subject { name: "rouchdb 0.5", run: rouch::run },
    Subject { name: "PouchDB 9 (leveldb, not flushed)", run: pouchdb::run },
];

/// A document of 300 bytes.
pub fn document(number: usize) -> String {
    let mut text = format!(
        r#"{{"_id":"{}","type":"person","name":"John Doe {number}","number":{number},"tags":["a","b","c"],"score":1.5,"text":""#,
        id(number)
    );
    while text.len() < 298 {
        text.push(char::from(b'a' + (text.len() * 7 % 26) as u8));
    }
    text.push_str("\"}");
    text
}

/// The id of a document: in no order, as applications make them.
pub fn id(number: usize) -> String {
    format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// So many per second.
pub fn rate(count: usize, work: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
    let began = std::time::Instant::now();
    work()?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Anything that can go wrong, as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The files below a directory, in bytes.
pub fn disk_usage(dir: &Path) -> Result<u64, String> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(text)? {
        let entry = entry.map_err(text)?;
        let metadata = entry.metadata().map_err(text)?;
        bytes += if metadata.is_dir() { disk_usage(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[expect(clippy::print_stdout, reason = "this is a command")]
fn main() -> ExitCode {
    let mut rounds = 3;
    let mut docs = 100_000;
    let mut write = false;
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok());
        match arg.as_str() {
            "--rounds" => rounds = number().unwrap_or(rounds),
            "--docs" => docs = number().unwrap_or(docs),
            "--write" => write = true,
            name => wanted.push(name.to_lowercase()),
        }
    }
    let subjects: Vec<_> = SUBJECTS
        .iter()
        .filter(|subject| {
            let name = subject.name.to_lowercase();
            wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted))
        })
        .collect();
    let mut measured: BTreeMap<(&str, Work), Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for subject in &subjects {
            println!("round {round} of {rounds}: {}", subject.name);
            let figures =
                tempfile::tempdir().map_err(text).and_then(|dir| (subject.run)(dir.path(), docs));
            match figures {
                Ok(figures) => {
                    for (work, figure) in figures {
                        measured.entry((subject.name, work)).or_default().push(figure);
                    }
                }
                Err(why) => println!("  left out: {why}"),
            }
        }
    }
    let names: Vec<_> = subjects.iter().map(|subject| subject.name).collect();
    let table = report::table(&names, &measured);
    println!("\n{table}");
    if write && let Err(error) = report::write(&table, rounds, docs) {
        println!("docs/performance.md cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
