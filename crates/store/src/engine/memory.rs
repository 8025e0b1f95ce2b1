//! A store in memory: ordered maps whose rows keep the versions that open views still see.

use super::{Batch, BoxRows, Engine, View};
use crate::format;
use crate::table::{self, Range};
use crate::{Result, Row, Table};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Rows that a scan takes under one lock.
const SCAN: usize = 64;

#[derive(Default)]
pub(crate) struct Memory {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: RwLock<State>,
    /// How many views are open at each commit number. Locked after `state`, never before.
    views: Mutex<BTreeMap<u64, usize>>,
}

#[derive(Default)]
struct State {
    /// Number of the newest commit.
    seq: u64,
    tables: [BTreeMap<Bytes, Versions>; Table::ALL.len()],
    /// Rows with versions that no view needs once all open views are at or past a commit, in the
    /// order of that commit.
    garbage: VecDeque<(u64, Table, Bytes)>,
}

/// The versions of a row: the newest, and before it those which a view may still see, oldest first.
struct Versions {
    seq: u64,
    value: Option<Bytes>,
    older: Vec<(u64, Option<Bytes>)>,
}

impl Versions {
    fn at(&self, seq: u64) -> Option<&Bytes> {
        if self.seq <= seq {
            return self.value.as_ref();
        }
        self.older.iter().rev().find(|version| version.0 <= seq).and_then(|v| v.1.as_ref())
    }

    /// Drops the versions that a view at `seq` or later cannot see; tells whether nothing is left.
    fn collect(&mut self, seq: u64) -> bool {
        if self.seq <= seq {
            self.older = Vec::new();
            return self.value.is_none();
        }
        // Of the versions up to `seq` only the last is visible.
        let visible = self.older.iter().rposition(|version| version.0 <= seq).unwrap_or(0);
        self.older.drain(..visible);
        false
    }
}

impl State {
    fn write(&mut self, table: Table, key: Bytes, value: Option<Bytes>, oldest: u64) {
        let seq = self.seq;
        let rows = &mut self.tables[table.index()];
        match rows.get_mut(&key) {
            Some(row) => {
                let old = std::mem::replace(&mut row.value, value);
                row.older.push((row.seq, old));
                row.seq = seq;
                row.collect(oldest);
                if row.value.is_none() || !row.older.is_empty() {
                    self.garbage.push_back((seq, table, key));
                }
            }
            // Deleting what is not there leaves nothing.
            None if value.is_none() => {}
            None => {
                rows.insert(key, Versions { seq, value, older: Vec::new() });
            }
        }
    }

    /// Drops what only views before `oldest` saw.
    fn collect(&mut self, oldest: u64) {
        while self.garbage.front().is_some_and(|entry| entry.0 <= oldest) {
            let Some((_, table, key)) = self.garbage.pop_front() else { return };
            let rows = &mut self.tables[table.index()];
            if rows.get_mut(&key).is_some_and(|row| row.collect(oldest)) {
                rows.remove(&key);
            }
        }
    }
}

// A thread that panicked cannot have left the maps half changed in a way that matters more than
// going on: all changes under these locks are plain map operations.
impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.shared.read().tables[table.index()].get(key).and_then(|row| row.value.clone()))
    }

    fn view(&self) -> Arc<dyn View> {
        // The read lock keeps a commit from collecting what this view sees before it is known.
        let state = self.shared.read();
        let seq = state.seq;
        *self.shared.views().entry(seq).or_default() += 1;
        drop(state);
        Arc::new(MemoryView { shared: self.shared.clone(), seq })
    }

    fn ready(&self, _bytes: u64, _frees: bool) -> Result<()> {
        Ok(())
    }

    fn commit(&self, batch: Batch, _flush: bool) -> Result<()> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.shared.views().keys().next().copied();
        state.seq += 1;
        let oldest = oldest.unwrap_or(state.seq);
        for (table, key, value) in batch.writes {
            state.write(table, key, value, oldest);
        }
        for owner in batch.retired {
            for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
                let first = owner.to_be_bytes();
                let keys: Vec<Bytes> = state.tables[table.index()]
                    .range::<[u8], _>((Bound::Included(&first[..]), Bound::Unbounded))
                    .take_while(|(key, _)| format::owner(key) == Some(owner))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    state.write(table, key, None, oldest);
                }
            }
        }
        state.collect(oldest);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.shared.views().keys().next().copied().unwrap_or(state.seq);
        state.collect(oldest);
        Ok(())
    }

    fn disk(&self) -> u64 {
        0
    }
}

struct MemoryView {
    shared: Arc<Shared>,
    seq: u64,
}

impl Drop for MemoryView {
    fn drop(&mut self) {
        let mut views = self.shared.views();
        if let Some(count) = views.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.seq);
            }
        }
    }
}

impl View for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let state = self.shared.read();
        Ok(state.tables[table.index()].get(key).and_then(|row| row.at(self.seq)).cloned())
    }

    fn range(self: Arc<Self>, table: Table, range: Range<'_>) -> BoxRows {
        let (low, high) = table::owned(&range);
        Box::new(MemoryRows {
            done: table::is_empty(&range),
            view: self,
            table,
            low,
            high,
            front: VecDeque::new(),
            back: VecDeque::new(),
        })
    }
}

/// A scan, which takes a few rows at a time so as not to hold up commits.
struct MemoryRows {
    view: Arc<MemoryView>,
    table: Table,
    /// What has not been taken yet.
    low: Bound<Bytes>,
    high: Bound<Bytes>,
    done: bool,
    /// Rows taken from either end, not handed out yet.
    front: VecDeque<Row>,
    back: VecDeque<Row>,
}

impl MemoryRows {
    fn fill(&mut self, backward: bool) {
        let range =
            (self.low.as_ref().map(|key| key.as_ref()), self.high.as_ref().map(|key| key.as_ref()));
        if self.done || table::is_empty(&range) {
            return;
        }
        let state = self.view.shared.read();
        let rows = state.tables[self.table.index()].range::<[u8], _>(range);
        let visible = |(key, row): (&Bytes, &Versions)| {
            row.at(self.view.seq).map(|value| (key.clone(), value.clone()))
        };
        let taken: Vec<Row> = if backward {
            rows.rev().filter_map(visible).take(SCAN).collect()
        } else {
            rows.filter_map(visible).take(SCAN).collect()
        };
        drop(state);
        self.done = taken.len() < SCAN;
        if let Some((key, _)) = taken.last() {
            if backward {
                self.high = Bound::Excluded(key.clone());
            } else {
                self.low = Bound::Excluded(key.clone());
            }
        }
        if backward {
            self.back.extend(taken);
        } else {
            self.front.extend(taken);
        }
    }
}

impl Iterator for MemoryRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.front.is_empty() {
            self.fill(false);
        }
        // What the other end took comes last.
        self.front.pop_front().or_else(|| self.back.pop_back()).map(Ok)
    }
}

impl DoubleEndedIterator for MemoryRows {
    fn next_back(&mut self) -> Option<Result<Row>> {
        if self.back.is_empty() {
            self.fill(true);
        }
        self.back.pop_front().or_else(|| self.front.pop_back()).map(Ok)
    }
}
