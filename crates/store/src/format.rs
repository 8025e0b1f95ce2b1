//! The bytes of a data directory that this crate lays down: names, magic, version, private rows.
//!
//! ```text
//! <dir>/settee        marker: MAGIC, a space, VERSION in decimal, a newline
//! <dir>/lock          locked while the directory is open
//! <dir>/failed        there if a write or flush failed while it was open last
//! <dir>/data/         the storage engine's files
//! ```

use crate::Table;

/// Name of the file that marks a data directory.
pub(crate) const MARKER: &str = "settee";
/// What the marker begins with.
pub(crate) const MAGIC: &str = "settee-store";
/// Version of everything in the directory. One number; a reader knows it or refuses.
pub(crate) const VERSION: u32 = 1;
/// Name of the file that says that a write or flush failed while the directory was open last. It need
/// not outlive the system: neither does what it warns of.
pub(crate) const FAILED: &str = "failed";
/// Name of the file that is locked while the directory is open.
pub(crate) const LOCK: &str = "lock";
/// Directory of the engine's files.
pub(crate) const DATA: &str = "data";
/// Name of the marker until the engine's files have all been made.
pub(crate) const UNFINISHED: &str = "settee.new";

/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = u16::MAX as usize;
/// Longest value, in bytes: what one row may weigh in memory, well below the engine's own limit.
pub(crate) const MAX_VALUE: usize = 1 << 30;

/// Bytes of the owner's number at the front of a key.
pub(crate) const OWNER_LEN: usize = 4;

/// Name of a table's keyspace in the engine.
pub(crate) fn keyspace(table: Table) -> &'static str {
    match table {
        Table::Meta => "meta",
        Table::Docs => "docs",
        Table::Seqs => "seqs",
        Table::Bodies => "bodies",
        Table::Side => "side",
        Table::Chunks => "chunks",
        Table::Index => "index",
    }
}

/// Keyspace of the store's own rows.
pub(crate) const PRIVATE: &str = "store";
/// First byte of the keys of retired owners in [`PRIVATE`]; the owner's number follows, big-endian.
/// The value is empty.
pub(crate) const RETIRED: u8 = b'r';
/// Key of a row in [`PRIVATE`] that is written only so that there is something to write out.
pub(crate) const HORIZON: u8 = b'h';

/// The private key which says that an owner is retired.
pub(crate) fn retired_key(owner: u32) -> [u8; 1 + OWNER_LEN] {
    let [a, b, c, d] = owner.to_be_bytes();
    [RETIRED, a, b, c, d]
}

/// The owner which a key belongs to, if it is long enough to have one.
pub(crate) fn owner(key: &[u8]) -> Option<u32> {
    key.first_chunk::<OWNER_LEN>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// What the marker holds.
pub(crate) fn marker() -> String {
    format!("{MAGIC} {VERSION}\n")
}

/// Why a marker's contents are not those of this version, if they are not.
pub(crate) fn check_marker(contents: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(contents).unwrap_or_default();
    let version = text.strip_prefix(MAGIC).and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(other) => Err(format!("version {other}, but this program reads version {VERSION}")),
        None => Err("not a store's marker".to_owned()),
    }
}
