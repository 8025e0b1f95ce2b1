//! Queries by selector, and their indexes.

use crate::adapter::Adapter;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use settee_core::selector::Selector;
use settee_core::{Document, Error, Result};
use std::fmt;
use std::sync::Arc;

pub use settee_core::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};

/// Documents in one request of a stream.
const PAGE: u64 = 200;

/// A query by selector, to be made: `POST /{db}/_find`, rows CP-47 and CP-48.
///
/// Servers answer it (CouchDB from 2.0 on); embedded databases and `settee serve` do not yet.
///
/// ```no_run
/// # async fn example(db: settee::Database) -> settee::Result<()> {
/// use serde_json::json;
/// use settee::{IndexDefinition, Selector, prelude::*};
///
/// db.create_index(&IndexDefinition::new(["age"]).ddoc("by-age")).await?;
/// let adults = Selector::parse(&json!({"age": {"$gte": 18}}))?;
/// let mut people = db.find(adults).sort("age").fields(["_id", "age"]).stream();
/// while let Some(person) = people.try_next().await? {
///     println!("{}", person.to_json());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `explain`"]
pub struct Find {
    adapter: Arc<dyn Adapter>,
    options: FindOptions,
}

impl fmt::Debug for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Find").field(&self.options).finish()
    }
}

impl Find {
    pub(crate) fn new(adapter: Arc<dyn Adapter>, selector: Selector) -> Find {
        Find { adapter, options: FindOptions::new(selector) }
    }

    /// Just these fields of each document.
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Find {
        self.options.fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }

    /// In the order of a field; called again, of a further one where that is equal. There must be an
    /// index that begins with these fields.
    pub fn sort(mut self, field: impl Into<String>) -> Find {
        self.options.sort.push((field.into(), false));
        self
    }

    /// As [`sort`](Find::sort), from the highest value to the lowest. All fields must go one way.
    pub fn sort_descending(mut self, field: impl Into<String>) -> Find {
        self.options.sort.push((field.into(), true));
        self
    }

    /// At most so many documents. Without it, CouchDB gives [`fetch`](Find::fetch) 25, and
    /// [`stream`](Find::stream) all.
    pub fn limit(mut self, limit: u64) -> Find {
        self.options.limit = Some(limit);
        self
    }

    /// Leave out so many first.
    pub fn skip(mut self, skip: u64) -> Find {
        self.options.skip = skip;
        self
    }

    /// Go on where an earlier answer ended.
    pub fn bookmark(mut self, bookmark: impl Into<String>) -> Find {
        self.options.bookmark = Some(bookmark.into());
        self
    }

    /// Use the index of a design document.
    pub fn use_index(mut self, ddoc: impl Into<String>) -> Find {
        self.options.use_index = Some((ddoc.into(), None));
        self
    }

    /// Use an index of a design document that has several.
    pub fn use_index_named(mut self, ddoc: impl Into<String>, name: impl Into<String>) -> Find {
        self.options.use_index = Some((ddoc.into(), Some(name.into())));
        self
    }

    /// Return the conflicts of each document too.
    pub fn conflicts(mut self) -> Find {
        self.options.conflicts = true;
        self
    }

    /// Answer from the index as it is.
    pub fn without_update(mut self) -> Find {
        self.options.update = false;
        self
    }

    /// Say what the answer cost.
    pub fn execution_stats(mut self) -> Find {
        self.options.execution_stats = true;
        self
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// `NotImplemented` on embedded databases. `BadRequest`, `no_usable_index`, if there is no index
    /// for the order that is asked for.
    pub async fn fetch(self) -> Result<Found> {
        self.adapter.find(&self.options).await
    }

    /// Asks for page after page, each behind the one before.
    ///
    /// The stream's errors are those of [`fetch`](Find::fetch).
    pub fn stream(self) -> BoxStream<'static, Result<Document>> {
        let left = self.options.limit.unwrap_or(u64::MAX);
        let pages = stream::try_unfold((self, left), |(mut find, left)| async move {
            if left == 0 {
                return Ok::<_, Error>(None);
            }
            let asked = left.min(PAGE);
            find.options.limit = Some(asked);
            let found = find.adapter.find(&find.options).await?;
            let count = found.docs.len() as u64;
            // Nothing is left behind a page that is not full.
            let left = if count < asked { 0 } else { left - count.min(left) };
            // PouchDB Server has no bookmarks.
            find.options.skip = match found.bookmark {
                Some(_) => 0,
                None => find.options.skip.saturating_add(count),
            };
            find.options.bookmark = found.bookmark;
            Ok(Some((stream::iter(found.docs).map(Ok), (find, left))))
        });
        pages.try_flatten().boxed()
    }

    /// How the server would answer: `POST /{db}/_explain`, with the index it chose under `index`.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Find::fetch).
    pub async fn explain(self) -> Result<Value> {
        self.adapter.explain(&self.options).await
    }
}
