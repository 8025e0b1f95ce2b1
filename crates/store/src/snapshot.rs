//! Consistent reads.

use crate::engine::{BoxRows, View};
use crate::table::{self, Range};
use crate::{Result, Row, Table};
use bytes::Bytes;
use std::sync::Arc;

/// A consistent view of the store at one moment.
///
/// Cheap to take and to clone. Space of rows that it still sees cannot be given back, and its
/// directory stays locked, while it lives.
#[derive(Clone)]
pub struct Snapshot {
    view: Arc<dyn View>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn new(view: Arc<dyn View>) -> Snapshot {
        Snapshot { view }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if it cannot be read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(table, key)
    }

    /// Whether there is a row with this key.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if it cannot be read.
    pub fn contains(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.view.get(table, key)?.is_some())
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if one cannot be read.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: Table,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        keys.into_iter().map(|key| self.view.get(table, key.as_ref())).collect()
    }

    /// Rows of a range, from either end.
    pub fn range(&self, table: Table, range: Range<'_>) -> Rows {
        if table::is_empty(&range) {
            return Rows(Box::new(std::iter::empty()));
        }
        Rows(self.view.clone().range(table, range))
    }
}

/// Rows of a range. Holds its snapshot.
pub struct Rows(BoxRows);

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.0.next()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Result<Row>> {
        self.0.next_back()
    }
}
