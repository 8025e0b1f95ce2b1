//! Listings of documents by id: `_all_docs`, `_design_docs`, `_local_docs`.

use super::databases::{as_slice, empty_range};
use super::read::{self, Read};
use super::schema::{self, DbId, DbState, DocHead, DocRow as Row, LocalRow, key, meta, side};
use super::{Fail, Result};
use crate::adapter::Rows;
use futures_util::{StreamExt, stream};
use settee_core::options::{AllDocsOptions, DocSet, GetOptions};
use settee_core::wire::{DocRow, Seq};
use settee_core::{Error, Rev, RevId};
use settee_store::{Snapshot, Store, Table};
use std::ops::Bound;

/// Rows in one batch: some tenths of a millisecond of work.
const BATCH: usize = 256;

/// So many rows before the first are counted to tell its offset; beyond that, there is none.
const OFFSET_LIMIT: u64 = 10_000;

/// Lists documents at one moment.
pub(crate) fn all_docs(store: &Store, db: DbId, options: AllDocsOptions) -> Result<Rows> {
    let snapshot = store.snapshot();
    let state = snapshot.get(Table::Meta, &meta::state(db))?.ok_or_else(Error::no_database)?;
    let state = DbState::decode(&state)?;
    let update_seq = options.update_seq.then_some(Seq::Number(state.update_seq));
    if let Some(keys) = options.keys.clone() {
        let total_rows = match options.set {
            DocSet::All => Some(state.doc_count),
            DocSet::Design => count_design(&snapshot, db)?,
            DocSet::Local => None,
        };
        let rows = by_keys(snapshot, db, keys, options);
        return Ok(Rows { total_rows, offset: None, update_seq, rows });
    }
    let range = Range::new(db, &options);
    let (total_rows, offset) = match options.set {
        DocSet::Local => (None, None),
        DocSet::Design => (count_design(&snapshot, db)?, offset(&snapshot, db, &options)?),
        DocSet::All => (Some(state.doc_count), offset(&snapshot, db, &options)?),
    };
    let offset = offset.map(|before| match total_rows {
        Some(total) => before.saturating_add(options.skip).min(total),
        None => before,
    });
    let listing = Listing {
        rows: range_of(&snapshot, &range, options.descending),
        snapshot,
        db,
        skip: options.skip,
        left: options.limit.unwrap_or(u64::MAX),
        options,
        prefix: range.prefix,
    };
    let rows = stream::unfold(listing, |mut listing| async {
        match listing.batch() {
            Ok(rows) if rows.is_empty() => None,
            Ok(rows) => Some((Ok(rows), listing)),
            Err(Fail(error)) => {
                listing.left = 0;
                Some((Err(error), listing))
            }
        }
    });
    Ok(Rows { total_rows, offset, update_seq, rows: rows.boxed() })
}

type RowIter = Box<dyn Iterator<Item = settee_store::Result<settee_store::Row>> + Send>;

/// The rows of a listing.
struct Range {
    table: Table,
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    /// How many bytes of a key come before the id.
    prefix: usize,
}

impl Range {
    fn new(db: DbId, options: &AllDocsOptions) -> Range {
        // Ids are listed as they are called; local documents' rows do not repeat `_local/`.
        let (table, prefix, first, behind) = match options.set {
            DocSet::All => (Table::Docs, 4, key(db, b""), following(&key(db, b""))),
            DocSet::Design => (Table::Docs, 4, key(db, b"_design/"), key(db, b"_design0")),
            DocSet::Local => {
                let first = side::local(db, "");
                let behind = following(&first);
                (Table::Side, first.len(), first, behind)
            }
        };
        let key_of = |id: &String| match options.set {
            DocSet::Local => match id.strip_prefix("_local/") {
                Some(id) => side::local(db, id),
                // Outside of `_local/`: before or behind all of it.
                None if id.as_str() < "_local/" => first.clone(),
                None => behind.clone(),
            },
            _ => key(db, id.as_bytes()),
        };
        let end = |id: &String, inclusive: bool| match inclusive {
            true => Bound::Included(key_of(id)),
            false => Bound::Excluded(key_of(id)),
        };
        let start = options.start.as_ref().map(|id| end(id, true));
        let end = options.end.as_ref().map(|id| end(id, options.inclusive_end));
        let (low, high) = if options.descending { (end, start) } else { (start, end) };
        // A range may not leave its set, whatever ids it names.
        let low = low.filter(|low| *key_in(low) > first).unwrap_or(Bound::Included(first.clone()));
        let high = high.filter(|high| *key_in(high) < behind).unwrap_or(Bound::Excluded(behind));
        Range { table, low, high, prefix }
    }
}

fn key_in(bound: &Bound<Vec<u8>>) -> &Vec<u8> {
    const NONE: &Vec<u8> = &Vec::new();
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => NONE,
    }
}

/// The first key behind all that begin with a prefix.
pub(crate) fn following(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            break;
        }
    }
    key
}

fn range_of(snapshot: &Snapshot, range: &Range, descending: bool) -> RowIter {
    if empty_range(&range.low, &range.high) {
        return Box::new(std::iter::empty());
    }
    let rows = snapshot.range(range.table, (as_slice(&range.low), as_slice(&range.high)));
    match descending {
        false => Box::new(rows),
        true => Box::new(rows.rev()),
    }
}

/// How many documents that are alive come before the first row, unless they are too many to count.
fn offset(snapshot: &Snapshot, db: DbId, options: &AllDocsOptions) -> Result<Option<u64>> {
    let Some(start) = &options.start else {
        return Ok(Some(0));
    };
    let before = AllDocsOptions {
        set: options.set,
        end: Some(start.clone()),
        inclusive_end: false,
        descending: options.descending,
        ..AllDocsOptions::default()
    };
    count_alive(range_of(snapshot, &Range::new(db, &before), options.descending), OFFSET_LIMIT)
}

fn count_design(snapshot: &Snapshot, db: DbId) -> Result<Option<u64>> {
    let all = AllDocsOptions { set: DocSet::Design, ..AllDocsOptions::default() };
    count_alive(range_of(snapshot, &Range::new(db, &all), false), u64::MAX)
}

fn count_alive(rows: RowIter, limit: u64) -> Result<Option<u64>> {
    let (mut alive, mut seen) = (0, 0);
    for row in rows {
        seen += 1;
        if seen > limit {
            return Ok(None);
        }
        if !DocHead::decode(&row?.1)?.deleted {
            alive += 1;
        }
    }
    Ok(Some(alive))
}

struct Listing {
    snapshot: Snapshot,
    db: DbId,
    rows: RowIter,
    options: AllDocsOptions,
    skip: u64,
    left: u64,
    prefix: usize,
}

impl Listing {
    fn batch(&mut self) -> Result<Vec<DocRow>> {
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(BATCH);
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size {
            let Some(row) = self.rows.next() else { break };
            let (key, value) = row?;
            let id = schema::id_in(&key, self.prefix)?;
            if self.options.set == DocSet::Local {
                if self.skip > 0 {
                    self.skip -= 1;
                    continue;
                }
                let id = format!("_local/{id}");
                let row = LocalRow::decode(&value)?;
                let rev = Rev { pos: 0, id: RevId::Text(row.rev.to_string().into()) };
                let doc = self.options.include_docs.then(|| read::local_document(id.clone(), row));
                batch.push(DocRow { id, rev: Some(rev), deleted: false, doc: doc.map(Box::new) });
                continue;
            }
            let head = DocHead::decode(&value)?;
            if head.deleted {
                continue;
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            let doc = match self.options.include_docs {
                false => None,
                true => {
                    let row = Row::decode(&value)?;
                    let read = Read { snapshot: &self.snapshot, db: self.db, id, row: &row };
                    Some(Box::new(read.winner(&self.options.doc)?))
                }
            };
            batch.push(DocRow { id: id.to_owned(), rev: Some(head.winner), deleted: false, doc });
        }
        self.left -= batch.len() as u64;
        Ok(batch)
    }
}

/// A row for each key of the set, found or not.
fn by_keys(
    snapshot: Snapshot,
    db: DbId,
    mut keys: Vec<String>,
    options: AllDocsOptions,
) -> stream::BoxStream<'static, settee_core::Result<Vec<DocRow>>> {
    if options.descending {
        keys.reverse();
    }
    let limit = options.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let skip = usize::try_from(options.skip).unwrap_or(usize::MAX);
    // What is not of the set is left out, and has counted all the same.
    let prefix = match options.set {
        DocSet::All => "",
        DocSet::Design => "_design/",
        DocSet::Local => "_local/",
    };
    let keys = keys.into_iter().skip(skip).take(limit).filter(move |key| key.starts_with(prefix));
    let row = move |id: String| -> Result<DocRow> {
        if options.set == DocSet::Local {
            let found = snapshot
                .get(Table::Side, &side::local(db, id.strip_prefix("_local/").unwrap_or(&id)))?;
            let doc = match found {
                Some(row) => Some(read::local_document(id.clone(), LocalRow::decode(&row)?)),
                None => None,
            };
            let rev = doc.as_ref().and_then(|doc| doc.rev.clone());
            let doc = doc.filter(|_| options.include_docs).map(Box::new);
            return Ok(DocRow { id, rev, deleted: false, doc });
        }
        let Some(row) = read::doc_row(&snapshot, db, &id)? else {
            return Ok(DocRow { id, rev: None, deleted: false, doc: None });
        };
        let doc = match options.include_docs && !row.deleted {
            false => None,
            true => {
                let read = Read { snapshot: &snapshot, db, id: &id, row: &row };
                let options: &GetOptions = &options.doc;
                Some(Box::new(read.winner(options)?))
            }
        };
        Ok(DocRow { id, rev: Some(row.winner), deleted: row.deleted, doc })
    };
    let batches = stream::unfold(Some((keys, row)), |state| async {
        let (mut keys, row) = state?;
        let batch: Result<Vec<_>> = keys.by_ref().take(BATCH).map(&row).collect();
        match batch {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => Some((Ok(batch), Some((keys, row)))),
            Err(Fail(error)) => Some((Err(error), None)),
        }
    });
    batches.boxed()
}
