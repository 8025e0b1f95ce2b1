//! The changes feed: the `Seqs` table read forward, and a wait for writers at its end.
//!
//! An idle feed costs nothing: it is a listener in the database's [`Shared::changed`], and the
//! commit that has something for it wakes it.

use super::databases::{Inner, Shared};
use super::read::{self, Read};
use super::schema::{DbId, DbState, SeqRow, meta, seq_in, seq_key, side};
use super::{Fail, Result, time_seq};
use crate::adapter::{ChangesBatch, ChangesStream};
use futures_util::{StreamExt, stream};
use settee_core::options::{ChangesOptions, Filter, GetOptions, Since, Style};
use settee_core::wire::{Change, Seq};
use settee_core::{Error, ErrorKind};
use settee_store::{Snapshot, Table};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Rows looked at for one batch: some tenths of a millisecond of work.
const BATCH: u64 = 256;

/// Reads changes.
pub(crate) fn changes(
    inner: &Arc<Inner>,
    shared: Arc<Shared>,
    options: ChangesOptions,
) -> Result<ChangesStream> {
    let since = match &options.since {
        Since::Start => 0,
        Since::Now => state(&inner.store.snapshot(), shared.id)?.update_seq,
        Since::Seq(seq) => number(seq)?,
        Since::Time(time) => {
            let snapshot = inner.store.snapshot();
            match time_seq::read(&snapshot, shared.id)?.reached(*time) {
                Some(seq) => seq,
                None => state(&snapshot, shared.id)?.update_seq,
            }
        }
    };
    let left = options.limit.unwrap_or(u64::MAX);
    let feed = Feed {
        inner: inner.clone(),
        shared,
        options,
        last: since,
        left,
        phase: Phase::Reading,
        counted: None,
    };
    if feed.options.descending {
        return Ok(feed.descending());
    }
    let batches = stream::unfold(feed, |mut feed| async {
        let batch = feed.next().await?;
        if batch.is_err() {
            feed.phase = Phase::Ended;
        }
        Some((batch.map_err(|Fail(error)| error), feed))
    });
    Ok(batches.boxed())
}

/// A local sequence. Text that begins with the number is taken too, as clusters write theirs.
pub(crate) fn number(seq: &Seq) -> Result<u64> {
    match seq {
        Seq::Number(number) => Ok(*number),
        Seq::Opaque(text) => {
            let digits = text.split('-').next().unwrap_or_default();
            digits.parse().map_err(|_| {
                let reason = "Malformed sequence supplied in 'since' parameter.";
                Error::new(ErrorKind::BadRequest, reason).into()
            })
        }
    }
}

pub(crate) fn state(snapshot: &Snapshot, db: DbId) -> Result<DbState> {
    let state = snapshot.get(Table::Meta, &meta::state(db))?.ok_or_else(Error::no_database)?;
    Ok(DbState::decode(&state)?)
}

enum Phase {
    /// There may be more to read.
    Reading,
    /// Everything has been reported.
    CaughtUp,
    Ended,
}

struct Feed {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
    options: ChangesOptions,
    /// The last sequence that was reported or filtered out.
    last: u64,
    left: u64,
    phase: Phase,
    /// How many changes were counted behind `last`, and the state that they were counted in.
    counted: Option<(DbState, u64)>,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<ChangesBatch>> {
        match self.phase {
            Phase::Ended => None,
            Phase::Reading => Some(self.read()),
            Phase::CaughtUp => {
                loop {
                    let listener = self.shared.changed.listen();
                    if self.shared.deleted.load(Ordering::Acquire) {
                        return None;
                    }
                    let news = state(&self.inner.store.snapshot(), self.shared.id);
                    match news {
                        Err(Fail(error)) if error.is_not_found() => return None,
                        Err(error) => return Some(Err(error)),
                        Ok(state) if state.update_seq > self.last => break,
                        Ok(_) => listener.await,
                    }
                }
                Some(self.read())
            }
        }
    }

    /// The next batch, at this moment.
    fn read(&mut self) -> Result<ChangesBatch> {
        let snapshot = self.inner.store.snapshot();
        let db = self.shared.id;
        let state = state(&snapshot, db)?;
        let mut changes = Vec::new();
        let mut looked_at = 0;
        if self.last < state.update_seq && self.left > 0 {
            let low = seq_key(db, self.last);
            let high = seq_key(db, u64::MAX);
            let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
            for row in snapshot.range(Table::Seqs, range) {
                if looked_at == BATCH || self.left == 0 {
                    break;
                }
                looked_at += 1;
                let (key, value) = row?;
                self.last = seq_in(&key)?;
                if let Some(change) = self.change(&snapshot, self.last, &value)? {
                    changes.push(change);
                    self.left -= 1;
                }
            }
        }
        let full = looked_at == BATCH;
        if !full && self.left > 0 {
            // Sequences whose documents have changed again are in use no more.
            self.last = self.last.max(state.update_seq);
        }
        self.phase = match full && self.left > 0 {
            true => Phase::Reading,
            false if self.options.live && self.left > 0 => Phase::CaughtUp,
            false => Phase::Ended,
        };
        let pending = match self.counted.take() {
            _ if self.last >= state.update_seq => 0,
            // Nothing has been written since the batch before.
            Some((counted, pending)) if counted == state => pending.saturating_sub(looked_at),
            _ => count_after(&snapshot, db, self.last)?,
        };
        self.counted = Some((state, pending));
        Ok(ChangesBatch { changes, last_seq: Seq::Number(self.last), pending })
    }

    /// The change of one row, unless it is filtered out.
    fn change(&self, snapshot: &Snapshot, seq: u64, row: &[u8]) -> Result<Option<Change>> {
        let mut row = SeqRow::decode(row, self.options.style == Style::AllDocs)?;
        let doc_row = |id: &str| match read::doc_row(snapshot, self.shared.id, id)? {
            Some(doc) => Ok::<_, Fail>(doc),
            None => Err(super::corrupt("a change's document is missing").into()),
        };
        let winner = |id: &str, options: &GetOptions| {
            let row = &doc_row(id)?;
            Read { snapshot, db: self.shared.id, id, row }.winner(options)
        };
        let plain = GetOptions::default();
        let pass = match &self.options.filter {
            Filter::None => true,
            Filter::DocIds(ids) => ids.contains(&row.id),
            Filter::Design => row.id.starts_with("_design/"),
            Filter::Selector(selector) if row.leaves.len() == 1 => {
                selector.matches(&winner(&row.id, &plain)?.to_value())
            }
            Filter::Selector(selector) => {
                // Each leaf is judged for itself.
                let (id, doc) = (row.id.as_str(), &doc_row(&row.id)?);
                let read = Read { snapshot, db: self.shared.id, id, row: doc };
                let tree = doc.tree()?;
                let mut leaves = Vec::new();
                for rev in row.leaves {
                    let leaf = read.revision(&tree, &rev, &plain)?;
                    if leaf.is_some_and(|leaf| selector.matches(&leaf.to_value())) {
                        leaves.push(rev);
                    }
                }
                row.leaves = leaves;
                !row.leaves.is_empty()
            }
            // The adapter does not ask for it here.
            Filter::Function(_) => return Err(Error::internal("no place for a function").into()),
        };
        if !pass {
            return Ok(None);
        }
        let doc = match self.options.include_docs {
            true => Some(Box::new(winner(&row.id, &self.options.doc)?)),
            false => None,
        };
        let SeqRow { deleted, id, leaves } = row;
        Ok(Some(Change { seq: Seq::Number(seq), id, revs: leaves, deleted, doc }))
    }

    /// Newest first: all that there is now. As in CouchDB, `since` means nothing here, and the last
    /// sequence is that of the last change, behind which older ones are pending.
    fn descending(mut self) -> ChangesStream {
        let snapshot = self.inner.store.snapshot();
        let low = seq_key(self.shared.id, 0);
        let high = seq_key(self.shared.id, u64::MAX);
        let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
        let rows = snapshot.range(Table::Seqs, range).rev();
        let newest = state(&snapshot, self.shared.id).map(|state| state.update_seq);
        self.last = newest.unwrap_or(self.last);
        let start = (self, rows, snapshot, None, false);
        let batches = stream::unfold(start, move |state| async move {
            let (mut feed, mut rows, snapshot, mut pending, ended) = state;
            if ended {
                return None;
            }
            let mut changes = Vec::new();
            let batch = (|| -> Result<bool> {
                let pending = match &mut pending {
                    Some(pending) => pending,
                    none => none.insert(count_after(&snapshot, feed.shared.id, 0)?),
                };
                for _ in 0..BATCH {
                    if feed.left == 0 {
                        return Ok(true);
                    }
                    let Some(row) = rows.next() else { return Ok(true) };
                    let (key, value) = row?;
                    *pending = pending.saturating_sub(1);
                    feed.last = seq_in(&key)?;
                    if let Some(change) = feed.change(&snapshot, feed.last, &value)? {
                        changes.push(change);
                        feed.left -= 1;
                    }
                }
                Ok(false)
            })();
            let (ended, batch) = match batch {
                Ok(ended) => {
                    let (last_seq, pending) = (Seq::Number(feed.last), pending.unwrap_or(0));
                    (ended, Ok(ChangesBatch { changes, last_seq, pending }))
                }
                Err(Fail(error)) => (true, Err(error)),
            };
            Some((batch, (feed, rows, snapshot, pending, ended)))
        });
        batches.boxed()
    }
}

/// How many changes there are behind a sequence: the counts of the blocks behind it, and the rest of
/// its own block.
pub(crate) fn count_after(snapshot: &Snapshot, db: DbId, seq: u64) -> Result<u64> {
    let block = side::seq_block(seq);
    let low = seq_key(db, seq);
    let high = seq_key(db, super::schema::SEQ_BLOCK * (block + 1));
    let range = (Bound::Excluded(low.as_slice()), Bound::Excluded(high.as_slice()));
    let mut count = 0;
    for row in snapshot.range(Table::Seqs, range) {
        row?;
        count += 1;
    }
    let (low, high) = (side::seq_count(db, block + 1), side::seq_count(db, u64::MAX));
    let range = (Bound::Included(low.as_slice()), Bound::Included(high.as_slice()));
    for row in snapshot.range(Table::Side, range) {
        count += super::write::seq_count_in(&row?.1)?;
    }
    Ok(count)
}
