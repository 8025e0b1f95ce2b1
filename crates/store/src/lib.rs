//! Ordered bytes with snapshots and durable group commit.
//!
//! The storage boundary of [`settee`](https://docs.rs/settee): it knows tables, keys and values, and
//! nothing of documents. The storage engine is named in this crate only.

use bytes::Bytes;
use std::ops::Bound;
use std::path::Path;

/// The tables of a store.
///
/// In all but [`Meta`](Table::Meta) the first four bytes of a key, big-endian, are the number of the
/// *owner* it belongs to, so that [`Tx::retire`] can drop everything of an owner at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Small rows that are read often and belong to the whole store. Never dropped by `retire`.
    Meta,
    /// Documents by id.
    Docs,
    /// Changes by sequence.
    Seqs,
    /// Bodies that are not in their document's row, by write order.
    Bodies,
    /// Everything else that is small: local documents, conflicts, purges, counts, blobs.
    Side,
    /// Attachment chunks.
    Chunks,
    /// Index rows.
    Index,
}

/// When a transaction is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive a power cut.
    Flush,
    /// When it is visible; it becomes durable with the next flush, at most about a second later.
    Deferred,
}

/// Why the store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the directory open.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The directory holds something else, or a newer format.
    #[error("not a data directory of this version: {0}")]
    Format(String),
    /// There is no room left. Writes fail until there is; reads go on.
    #[error("no space left on the device")]
    Full,
    /// A write or flush failed; what reached the disk is not known. Every further write is refused;
    /// reopen the store.
    #[error("an earlier write failed, reopen the store: {0}")]
    Poisoned(String),
    /// The device or the file system failed on a read.
    #[error("input/output error: {0}")]
    Io(String),
    /// Stored bytes are not what was written.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// A result with a [`StoreError`].
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Memory for cached blocks, in bytes. More makes reads of a large working set faster.
    pub cache: u64,
}

/// A store. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store;

/// A transaction, which runs alone: it sees everything before it and nothing beside it.
#[derive(Debug)]
pub struct Tx<'a> {
    _store: &'a Store,
}

/// A consistent view of the store at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot;

/// What a store has done since it was opened, and what it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Transactions that succeeded.
    pub transactions: u64,
    /// Engine commits they were grouped in.
    pub commits: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes on disk.
    pub disk: u64,
}

#[allow(unused_variables, missing_docs, clippy::todo, clippy::needless_pass_by_value)]
impl Store {
    /// Opens or creates a store in a directory, which it locks.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Store> {
        todo!()
    }
    /// A store in memory.
    pub fn memory() -> Store {
        todo!()
    }
    /// Runs `f` as a transaction on the commit thread and waits for it.
    ///
    /// If `f` fails, nothing of it is kept and its error is returned.
    pub fn transact<T, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        todo!()
    }
    /// As [`transact`](Store::transact), but returns at once; `done` is called with the outcome, on
    /// the commit thread, so it must be quick.
    pub fn submit<T, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        done: impl FnOnce(Result<T, E>) + Send + 'static,
    ) where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        todo!()
    }
    /// The newest committed value.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    /// Makes everything acknowledged so far durable.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
    /// Gives back the space of overwritten, deleted and retired rows. Blocks until done.
    pub fn compact(&self) -> Result<()> {
        todo!()
    }
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
}

#[allow(unused_variables, missing_docs, clippy::todo)]
impl Tx<'_> {
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        todo!()
    }
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        todo!()
    }
    /// Rows of a range, this transaction's own writes included, in ascending order; at most `limit`.
    pub fn range(
        &mut self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
    ) -> Result<Vec<Row>> {
        todo!()
    }
    /// Makes every row of an owner unreachable, now and for good. The number is never reused.
    pub fn retire(&mut self, owner: u32) {
        todo!()
    }
}

#[allow(unused_variables, missing_docs, clippy::todo)]
impl Snapshot {
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Rows of a range, from either end.
    pub fn range(&self, table: Table, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Rows {
        todo!()
    }
}

/// Rows of a range. Holds its snapshot.
#[derive(Debug)]
pub struct Rows;

impl Iterator for Rows {
    type Item = Result<Row>;
    fn next(&mut self) -> Option<Result<Row>> {
        None
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Result<Row>> {
        None
    }
}
