//! Querying: from what was asked for to rows, in batches.

use super::node::Row;
use super::reduce::Reducer;
use super::state::IndexState;
use super::tree::{Cut, Level, Tree};
use crate::adapter::ViewRows;
use crate::local::databases::Inner;
use crate::local::read::{self, Read};
use crate::local::schema::DbId;
use crate::local::{Fail, Result};
use futures_util::{StreamExt, stream};
use settee_core::collate::Collation;
use settee_core::options::{GetOptions, ViewOptions};
use settee_core::wire::{Seq, ViewRow};
use settee_core::{Document, Error, json};
use settee_store::Snapshot;
use std::ops::Range;

/// Rows in one batch, and with documents: some tenths of a millisecond of work.
const BATCH: usize = 256;
const BATCH_DOCS: usize = 64;

/// Behind every document id.
const BEHIND_IDS: &[u8] = &[0xff];

/// What is asked of a view, checked.
pub(crate) struct Plan {
    options: ViewOptions,
    /// How to group, if rows are to be reduced.
    level: Option<Level>,
    collation: Collation,
}

impl Plan {
    /// Checks options as CouchDB does, in the same order.
    ///
    /// # Errors
    ///
    /// `QueryParse`.
    pub(crate) fn new(
        mut options: ViewOptions,
        can_reduce: bool,
        collation: Collation,
    ) -> Result<Plan> {
        let refuse = |reason: &'static str| Err(Fail::from(Error::query_parse(reason)));
        // A single key is a range.
        if let Some([key]) = options.keys.as_deref()
            && [&options.start, &options.end].iter().all(|end| match end {
                None => true,
                Some(end) => end == key,
            })
        {
            options.start = Some(key.clone());
            options.end = Some(key.clone());
            options.keys = None;
        }
        let level = match (options.group, options.group_level) {
            (Some(false), Some(1..)) => {
                return refuse("Can't specify group=false and group_level>0 at the same time");
            }
            (Some(true), None) => Level::Exact,
            (_, None | Some(0)) => Level::All,
            (_, Some(level)) => Level::First(usize::try_from(level).unwrap_or(usize::MAX)),
        };
        let reduce = can_reduce && options.reduce != Some(false);
        if options.reduce == Some(true) && !can_reduce {
            return refuse("Reduce is invalid for map-only views.");
        }
        if reduce && level != Level::Exact && options.keys.is_some() {
            return refuse("Multi-key fetches for reduce views must use `group=true`");
        }
        if options.keys.as_ref().is_some_and(|keys| !keys.is_empty())
            && (options.start.is_some() || options.end.is_some())
        {
            return refuse("`keys` is incompatible with `key`, `start_key` and `end_key`");
        }
        if !reduce && level != Level::All {
            return refuse("Invalid use of grouping on a map view.");
        }
        if reduce && options.include_docs {
            return refuse("`include_docs` is invalid for reduce");
        }
        if reduce && options.doc.conflicts {
            return refuse("`conflicts` is invalid for reduce views.");
        }
        let plan = Plan { options, level: reduce.then_some(level), collation };
        plan.check_range()?;
        Ok(plan)
    }

    fn encode(&self, key: &str) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(key.len() + 8);
        self.collation.encode_key_text(key.as_bytes(), &mut out)?;
        Ok(out)
    }

    /// A range that ends before it begins is a mistake, and told.
    fn check_range(&self) -> Result<()> {
        let options = &self.options;
        let (Some(start), Some(end)) = (&options.start, &options.end) else { return Ok(()) };
        if start == end || options.keys.is_some() {
            return Ok(());
        }
        let id = |id: &Option<String>, lowest: bool| match id {
            Some(id) => id.clone().into_bytes(),
            None if lowest => Vec::new(),
            None => BEHIND_IDS.to_vec(),
        };
        let start = (self.encode(start)?, id(&options.start_docid, !options.descending));
        let end = (self.encode(end)?, id(&options.end_docid, options.descending));
        match (options.descending, start < end) {
            (false, false) => Err(Error::query_parse(
                "No rows can match your key range, reverse your start_key and end_key or set \
                 descending=true",
            )
            .into()),
            (true, true) => Err(Error::query_parse(
                "No rows can match your key range, reverse your start_key and end_key or set \
                 descending=false",
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// Where the rows from one key to another begin and end.
    fn cuts(&self, start: Option<&str>, end: Option<&str>) -> Result<(Cut, Cut)> {
        let ViewOptions { start_docid, end_docid, inclusive_end, descending, .. } = &self.options;
        let cut = |key: &str, id: &Option<String>, behind: bool| -> Result<Cut> {
            let mut sort = self.encode(key)?;
            match id {
                Some(id) => sort.extend_from_slice(id.as_bytes()),
                None if behind => sort.extend_from_slice(BEHIND_IDS),
                None => {}
            }
            Ok(Cut { sort, behind })
        };
        let first = || Cut { sort: Vec::new(), behind: false };
        let last = || Cut { sort: BEHIND_IDS.to_vec(), behind: true };
        // The end is behind its rows in the direction of reading, unless they are left out.
        let start = start.map(|key| cut(key, start_docid, *descending)).transpose()?;
        let end = end.map(|key| cut(key, end_docid, inclusive_end != descending)).transpose()?;
        let (low, high) = if *descending { (end, start) } else { (start, end) };
        Ok((low.unwrap_or_else(first), high.unwrap_or_else(last)))
    }

    /// The ranges of rows that are asked for, in their order.
    fn ranges(&self) -> Result<Vec<(Cut, Cut)>> {
        let options = &self.options;
        match &options.keys {
            None => Ok(vec![self.cuts(options.start.as_deref(), options.end.as_deref())?]),
            Some(keys) => {
                let ranges = keys.iter().map(|key| self.cuts(Some(key), Some(key)));
                let mut ranges: Vec<_> = ranges.collect::<Result<_>>()?;
                // As in CouchDB, rows come in the keys' order turned round, reductions do not.
                if options.descending && self.level.is_none() {
                    ranges.reverse();
                }
                Ok(ranges)
            }
        }
    }
}

/// Answers a query from an index as it is in a snapshot.
pub(crate) fn answer(
    inner: &Inner,
    db: DbId,
    snapshot: Snapshot,
    state: &IndexState,
    reducer: &Reducer,
    plan: Plan,
) -> Result<ViewRows> {
    let tree = state.open(inner, &snapshot);
    let update_seq = plan.options.update_seq.then_some(Seq::Number(state.seq));
    let mut ranges = plan.ranges()?.into_iter();
    let left = plan.options.limit.unwrap_or(u64::MAX);
    let skip = plan.options.skip;
    if let Some(level) = plan.level {
        let groups = Groups {
            tree,
            reducer: reducer.clone(),
            level,
            descending: plan.options.descending,
            ranges,
            range: 0..0,
            skip,
            left,
        };
        let rows = stream::unfold(groups, |mut groups| async {
            let batch = groups.batch();
            batches(batch, groups, |groups| groups.left = 0)
        });
        return Ok(ViewRows { total_rows: None, offset: None, update_seq, rows: rows.boxed() });
    }
    let total = tree.len()?;
    // The offset is that of the first row there is.
    let (mut range, mut before) = (0..0, 0);
    for (low, high) in ranges.by_ref() {
        range = tree.rank(&low)?..tree.rank(&high)?;
        before = if plan.options.descending { total - range.end } else { range.start };
        if !range.is_empty() {
            break;
        }
    }
    let listing = Listing {
        tree,
        snapshot,
        db,
        descending: plan.options.descending,
        docs: plan.options.include_docs.then_some(plan.options.doc),
        ranges,
        range,
        skip,
        left,
    };
    let rows = stream::unfold(listing, |mut listing| async {
        let batch = listing.batch();
        batches(batch, listing, |listing| listing.left = 0)
    });
    Ok(ViewRows {
        total_rows: Some(total),
        offset: Some(before.saturating_add(skip).min(total)),
        update_seq,
        rows: rows.boxed(),
    })
}

/// What a stream gives next: rows and what is left, or an error and then nothing.
#[allow(clippy::type_complexity, reason = "this is the shape that unfold takes")]
fn batches<S>(
    batch: Result<Vec<ViewRow>>,
    mut rest: S,
    end: impl FnOnce(&mut S),
) -> Option<(settee_core::Result<Vec<ViewRow>>, S)> {
    match batch {
        Ok(rows) if rows.is_empty() => None,
        Ok(rows) => Some((Ok(rows), rest)),
        Err(Fail(error)) => {
            end(&mut rest);
            Some((Err(error), rest))
        }
    }
}

/// Takes the first `count` off a range in the direction of reading.
fn take(range: &mut Range<u64>, count: u64, descending: bool) -> Range<u64> {
    let count = count.min(range.end.saturating_sub(range.start));
    match descending {
        false => {
            let taken = range.start..range.start + count;
            range.start = taken.end;
            taken
        }
        true => {
            let taken = range.end - count..range.end;
            range.end = taken.start;
            taken
        }
    }
}

struct Listing {
    tree: Tree,
    snapshot: Snapshot,
    db: DbId,
    descending: bool,
    /// How to read the documents, if they are asked for.
    docs: Option<GetOptions>,
    /// Ranges that are still to come.
    ranges: std::vec::IntoIter<(Cut, Cut)>,
    /// What is left of the current one.
    range: Range<u64>,
    skip: u64,
    left: u64,
}

impl Listing {
    fn batch(&mut self) -> Result<Vec<ViewRow>> {
        let size = if self.docs.is_some() { BATCH_DOCS } else { BATCH };
        let mut batch = Vec::new();
        while batch.len() < size && self.left > 0 {
            if self.range.is_empty() {
                let Some((low, high)) = self.ranges.next() else { break };
                self.range = self.tree.rank(&low)?..self.tree.rank(&high)?;
                continue;
            }
            let skipped = take(&mut self.range, self.skip, self.descending);
            self.skip -= skipped.end - skipped.start;
            let count = self.left.min((size - batch.len()) as u64);
            let rows = take(&mut self.range, count, self.descending);
            self.left -= rows.end - rows.start;
            for (leaf, i) in self.tree.rows(rows, self.descending)? {
                let row = leaf.row(i)?;
                let doc = match &self.docs {
                    None => None,
                    Some(options) => self.document(&row, options)?,
                };
                batch.push(ViewRow {
                    id: Some(row.id()?.to_owned()),
                    key: leaf.share(row.key),
                    value: leaf.share(row.value),
                    doc: doc.map(Box::new),
                    error: None,
                });
            }
        }
        Ok(batch)
    }

    /// The document of a row: the one that its value names, or else the one that emitted it.
    fn document(&self, row: &Row<'_>, options: &GetOptions) -> Result<Option<Document>> {
        let value = std::str::from_utf8(row.value).unwrap_or_default();
        let named = |name| json::members(value).find(|member| member.0 == name).map(|m| m.1);
        let id = match named("_id") {
            None => row.id()?.into(),
            Some(id) => match json::string(id) {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        let Some(row) = read::doc_row(&self.snapshot, self.db, &id)? else { return Ok(None) };
        let read = Read { snapshot: &self.snapshot, db: self.db, id: &id, row: &row };
        match named("_rev").and_then(json::string) {
            Some(rev) => match rev.parse() {
                Ok(rev) => read.revision(&row.tree()?, &rev, options),
                Err(_) => Ok(None),
            },
            None if row.deleted => Ok(None),
            None => read.winner(options).map(Some),
        }
    }
}

struct Groups {
    tree: Tree,
    reducer: Reducer,
    level: Level,
    descending: bool,
    ranges: std::vec::IntoIter<(Cut, Cut)>,
    range: Range<u64>,
    skip: u64,
    left: u64,
}

impl Groups {
    fn batch(&mut self) -> Result<Vec<ViewRow>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && self.left > 0 {
            if self.range.is_empty() {
                let Some((low, high)) = self.ranges.next() else { break };
                self.range = self.tree.rank(&low)?..self.tree.rank(&high)?;
                continue;
            }
            let limit = self.left.min((BATCH - batch.len()) as u64) as usize;
            let (range, skip) = (self.range.clone(), self.skip);
            let found =
                self.tree.groups(&self.reducer, range, self.descending, self.level, skip, limit)?;
            let seen = if found.done { u64::MAX } else { found.seen };
            take(&mut self.range, seen, self.descending);
            self.skip -= found.skipped;
            self.left -= found.rows.len() as u64;
            batch.extend(found.rows.into_iter().map(|(key, value)| ViewRow {
                key,
                value,
                ..ViewRow::default()
            }));
        }
        Ok(batch)
    }
}
