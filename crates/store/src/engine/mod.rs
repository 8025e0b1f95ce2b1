//! What a storage engine does for a store. Another engine is another module beside these.

pub(crate) mod fjall;
pub(crate) mod memory;

use crate::table::Range;
use crate::{Result, Row, Table};
use bytes::Bytes;
use std::sync::Arc;

/// Ordered tables with snapshots and atomic commits.
///
/// Only the commit thread calls [`commit`](Engine::commit) and [`flush`](Engine::flush).
pub(crate) trait Engine: Send + Sync {
    /// The newest committed value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// A view of the newest committed state.
    fn view(&self) -> Arc<dyn View>;

    /// Whether a commit of this many bytes would be accepted now; one that `frees` space has more
    /// of it. Waits if the engine is behind with its work, and mends it if it can be.
    fn ready(&self, bytes: u64, frees: bool) -> Result<()>;

    /// Makes a batch visible, all or nothing; durable too, by exactly one flush, if `flush` is set.
    ///
    /// After `Full` nothing of it is kept. After any other error that is unknown.
    fn commit(&self, batch: Batch, flush: bool) -> Result<()>;

    /// Makes every commit so far durable, by exactly one flush. After `Full` it can be tried again.
    fn flush(&self) -> Result<()>;

    /// Gives back the space of dead rows. Commits and reads go on meanwhile.
    fn compact(&self) -> Result<()>;

    /// Bytes on disk.
    fn disk(&self) -> u64;
}

/// A consistent state.
pub(crate) trait View: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;
    fn range(self: Arc<Self>, table: Table, range: Range<'_>) -> BoxRows;
}

/// Rows of a range, from either end.
pub(crate) type BoxRows = Box<dyn DoubleEndedIterator<Item = Result<Row>> + Send>;

/// What one commit writes. Every key occurs once, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Rows to put, or to delete where there is no value.
    pub(crate) writes: Vec<(Table, Bytes, Option<Bytes>)>,
    /// Owners to retire.
    pub(crate) retired: Vec<u32>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.retired.is_empty()
    }
}
