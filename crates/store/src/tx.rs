//! A transaction's writes over the newest committed state.

use crate::engine::{Batch, Engine, View};
use crate::format::{MAX_KEY, MAX_VALUE};
use crate::table::{self, Range};
use crate::{Result, Row, StoreError, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A transaction, which runs alone: it sees everything before it and nothing beside it.
pub struct Tx<'a> {
    group: &'a mut Group,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("writes", &self.group.undo.len()).finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// The value of a key: what this transaction wrote last, or else what was there before it.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if it cannot be read.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        match self.group.tables[table.index()].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.group.engine.get(table, key),
        }
    }

    /// Writes a row, over the one that has this key if there is one.
    ///
    /// A key has 1 to 65,535 bytes, a value at most 1 GiB; otherwise the transaction fails with
    /// `TooLong` when it ends. The bytes are kept as they are until the engine has written them out,
    /// so a small slice of a large buffer keeps all of it in memory.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.group.write(table, key.into(), Some(value.into()));
    }

    /// Deletes a row, if there is one.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.group.write(table, key.into(), None);
    }

    /// Rows of a range, this transaction's own writes included, in ascending order; at most `limit`.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if they cannot be read.
    pub fn range(&mut self, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>> {
        self.group.range(table, range, limit)
    }

    /// Makes every row of an owner unreachable, now and for good. The number is never reused.
    ///
    /// Reading is not kept from finding them until compaction has dropped them, so whoever knows an
    /// owner's number must forget it; they may also vanish from snapshots taken earlier. The
    /// transaction is flushed even if it asked for less.
    pub fn retire(&mut self, owner: u32) {
        self.group.retired.push(owner);
    }
}

/// The writes of a group of transactions that are committed together.
pub(crate) struct Group {
    engine: Arc<dyn Engine>,
    /// Opened when a transaction first scans. Nothing is committed while a group is gathered.
    view: Option<Arc<dyn View>>,
    tables: [BTreeMap<Bytes, Option<Bytes>>; Table::ALL.len()],
    retired: Vec<u32>,
    /// What the running transaction wrote over: what the group had for the key before it.
    undo: Vec<(Table, Bytes, Option<Option<Bytes>>)>,
    undo_retired: usize,
    too_long: Option<String>,
    /// Bytes of keys and values written.
    pub(crate) bytes: usize,
}

impl Group {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Group {
        Group {
            engine,
            view: None,
            tables: Default::default(),
            retired: Vec::new(),
            undo: Vec::new(),
            undo_retired: 0,
            too_long: None,
            bytes: 0,
        }
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> Tx<'_> {
        self.undo.clear();
        self.undo_retired = self.retired.len();
        self.too_long = None;
        Tx { group: self }
    }

    /// Whether what the running transaction wrote can be stored.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.too_long.take().map_or(Ok(()), |what| Err(StoreError::TooLong(what)))
    }

    /// Takes back what the running transaction wrote.
    pub(crate) fn rollback(&mut self) {
        for (table, key, before) in self.undo.drain(..).rev() {
            let rows = &mut self.tables[table.index()];
            match before {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        self.retired.truncate(self.undo_retired);
    }

    /// What is to be committed.
    pub(crate) fn into_batch(self) -> Batch {
        let count = self.tables.iter().map(BTreeMap::len).sum();
        let mut writes = Vec::with_capacity(count);
        for (table, rows) in Table::ALL.into_iter().zip(self.tables) {
            writes.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
        }
        Batch { writes, retired: self.retired }
    }

    fn write(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let len = value.as_ref().map_or(0, Bytes::len);
        if key.is_empty() || key.len() > MAX_KEY || len > MAX_VALUE {
            self.too_long = Some(format!("{} bytes of key, {len} of value", key.len()));
            return;
        }
        self.bytes += key.len() + len;
        let before = self.tables[table.index()].insert(key.clone(), value);
        self.undo.push((table, key, before));
    }

    fn range(&mut self, table: Table, range: Range<'_>, limit: usize) -> Result<Vec<Row>> {
        if table::is_empty(&range) {
            return Ok(Vec::new());
        }
        let view = self.view.get_or_insert_with(|| self.engine.view()).clone();
        let mut stored = view.range(table, range).peekable();
        let mut written = self.tables[table.index()].range::<[u8], _>(range).peekable();
        let mut rows = Vec::new();
        while rows.len() < limit {
            // A write hides the stored row of the same key, and comes first if its key is lower.
            let hides = match (written.peek(), stored.peek()) {
                (None, None) => break,
                (_, Some(Err(_))) | (None, Some(_)) => None,
                (Some(_), None) => Some(false),
                (Some((key, _)), Some(Ok((other, _)))) => match (*key).cmp(other) {
                    std::cmp::Ordering::Less => Some(false),
                    std::cmp::Ordering::Equal => Some(true),
                    std::cmp::Ordering::Greater => None,
                },
            };
            match hides {
                None => rows.extend(stored.next().transpose()?),
                Some(hides) => {
                    if hides {
                        stored.next();
                    }
                    if let Some((key, Some(value))) = written.next() {
                        rows.push((key.clone(), value.clone()));
                    }
                }
            }
        }
        Ok(rows)
    }
}
