//! Listing documents.

use crate::adapter::{Adapter, Rows};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use settee_core::options::{AllDocsOptions, DocSet, GetOptions};
use settee_core::wire::{DocRow, Seq};
use settee_core::{Error, Result};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// A listing to be made, from [`Database::all_docs`](crate::Database::all_docs).
///
/// Ids are ordered by their bytes. Nothing is asked of the database before
/// [`fetch`](AllDocs::fetch) or [`stream`](AllDocs::stream).
///
/// ```
/// # futures_executor::block_on(async {
/// # let db = settee::Couch::memory()?.create("db").await?;
/// use settee::prelude::*;
///
/// for id in ["a", "b", "c", "d"] {
///     db.put_at(id, "{}").await?;
/// }
/// let listing = db.all_docs().range("b".."d").fetch().await?;
/// assert_eq!(listing.total_rows, Some(4));
/// assert_eq!(listing.ids().collect::<Vec<_>>(), ["b", "c"]);
///
/// // From high to low, the range begins with the highest.
/// let listing = db.all_docs().range("c"..).descending().limit(2).fetch().await?;
/// assert_eq!(listing.ids().collect::<Vec<_>>(), ["c", "b"]);
///
/// // With keys, missing documents have a row too.
/// let listing = db.all_docs().keys(["d", "x"]).include_docs().fetch().await?;
/// assert!(listing.rows[0].doc.is_some());
/// assert_eq!(listing.rows[1].rev, None);
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch` or `stream`"]
pub struct AllDocs {
    adapter: Arc<dyn Adapter>,
    options: AllDocsOptions,
    /// The range begins behind `options.start`, not with it.
    behind_start: bool,
}

/// Some rows of a listing, and what is known of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// How many documents there are, whatever the range.
    pub total_rows: Option<u64>,
    /// How many come before the first row, where known.
    pub offset: Option<u64>,
    /// The update sequence that the rows show, where asked for.
    pub update_seq: Option<Seq>,
    /// The rows.
    pub rows: Vec<DocRow>,
}

impl Listing {
    /// The rows' ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.id.as_str())
    }
}

impl AllDocs {
    pub(crate) fn new(adapter: Arc<dyn Adapter>, set: DocSet) -> AllDocs {
        let options = AllDocsOptions { set, ..Default::default() };
        AllDocs { adapter, options, behind_start: false }
    }

    /// Only the ids of a range, `startkey` and `endkey` of CouchDB: where the listing begins, and
    /// where it ends. When [`descending`](AllDocs::descending), it begins with the highest.
    pub fn range<S: AsRef<str>>(mut self, range: impl RangeBounds<S>) -> AllDocs {
        let text = |id: &S| id.as_ref().to_owned();
        (self.options.start, self.behind_start) = match range.start_bound() {
            Bound::Unbounded => (None, false),
            Bound::Included(id) => (Some(text(id)), false),
            Bound::Excluded(id) => (Some(text(id)), true),
        };
        (self.options.end, self.options.inclusive_end) = match range.end_bound() {
            Bound::Unbounded => (None, true),
            Bound::Included(id) => (Some(text(id)), true),
            Bound::Excluded(id) => (Some(text(id)), false),
        };
        self
    }

    /// Only the document with this id.
    pub fn key(self, id: impl AsRef<str>) -> AllDocs {
        let id = id.as_ref();
        self.range(id..=id)
    }

    /// Just these ids, in this order, with a row for those that are missing or deleted. Not together
    /// with a [`range`](AllDocs::range).
    pub fn keys<S: Into<String>>(mut self, ids: impl IntoIterator<Item = S>) -> AllDocs {
        self.options.keys = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    /// Return the documents too.
    pub fn include_docs(mut self) -> AllDocs {
        self.options.include_docs = true;
        self
    }

    /// Return the documents too, read with these options.
    pub fn include_docs_with(mut self, options: GetOptions) -> AllDocs {
        self.options.doc = options;
        self.include_docs()
    }

    /// At most so many rows.
    pub fn limit(mut self, limit: u64) -> AllDocs {
        self.options.limit = Some(limit);
        self
    }

    /// Leave out so many rows first.
    pub fn skip(mut self, skip: u64) -> AllDocs {
        self.options.skip = skip;
        self
    }

    /// From the last id to the first.
    pub fn descending(mut self) -> AllDocs {
        self.options.descending = true;
        self
    }

    /// Return the update sequence too.
    pub fn update_seq(mut self) -> AllDocs {
        self.options.update_seq = true;
        self
    }

    /// Makes the listing, all of it in memory.
    ///
    /// # Errors
    ///
    /// `QueryParse` if the options contradict each other.
    pub async fn fetch(self) -> Result<Listing> {
        let Rows { total_rows, offset, update_seq, rows } = self.start().await?;
        Ok(Listing { total_rows, offset, update_seq, rows: rows.try_concat().await? })
    }

    /// Makes the listing row by row, in little memory.
    ///
    /// # Errors
    ///
    /// As [`fetch`](AllDocs::fetch).
    pub async fn stream(self) -> Result<BoxStream<'static, Result<DocRow>>> {
        let batches = self.start().await?.rows;
        Ok(batches.map_ok(|rows| stream::iter(rows).map(Ok)).try_flatten().boxed())
    }

    async fn start(mut self) -> Result<Rows> {
        let AllDocsOptions { keys, start, end, .. } = &self.options;
        if keys.is_some() && (start.is_some() || end.is_some()) {
            let reason = "`keys` is incompatible with `key`, `start_key` and `end_key`";
            return Err(Error::query_parse(reason));
        }
        if self.behind_start {
            if self.options.descending {
                let reason = "a descending range must include its beginning";
                return Err(Error::query_parse(reason));
            }
            // No text lies between this one and its continuation by a zero byte.
            self.options.start.iter_mut().for_each(|start| start.push('\0'));
        }
        self.adapter.all_docs(&self.options).await
    }
}
