//! Reading and following changes.

mod driver;
mod subscribe;

pub(crate) use subscribe::Feeds;
pub use subscribe::{FeedEvent, FeedStatus, Subscription};

use crate::adapter::{Adapter, ChangesBatch, ChangesStream};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use settee_core::options::{ChangesOptions, Filter, GetOptions, Since, Style};
use settee_core::selector::Selector;
use settee_core::wire::{Change, Seq};
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Changes to be read, from [`Database::changes`](crate::Database::changes).
///
/// Every document is reported once, with its newest change. Nothing is asked of the database before
/// [`fetch`](Changes::fetch) or one of the methods that return streams.
///
/// ```
/// # futures_executor::block_on(async {
/// # let db = settee::Couch::memory()?.create("db").await?;
/// use settee::prelude::*;
///
/// for id in ["a", "b", "c"] {
///     db.put_at(id, "{}").await?;
/// }
/// let first = db.changes().limit(2).fetch().await?;
/// assert_eq!((first.changes.len(), first.pending), (2, 1));
///
/// let rest = db.changes().since(first.last_seq).include_docs().fetch().await?;
/// assert_eq!(rest.changes[0].id, "c");
/// assert_eq!(rest.last_seq, db.info().await?.update_seq);
///
/// // What happens from now on, until the stream is dropped.
/// let mut live = db.changes().since_now().live().await?;
/// db.put_at("d", "{}").await?;
/// assert_eq!(live.try_next().await?.unwrap().id, "d");
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `live`"]
pub struct Changes {
    adapter: Arc<dyn Adapter>,
    options: ChangesOptions,
    feeds: Feeds,
    latency: Option<Duration>,
}

impl Changes {
    pub(crate) fn new(adapter: Arc<dyn Adapter>, feeds: Feeds) -> Changes {
        Changes { adapter, options: ChangesOptions::default(), feeds, latency: None }
    }

    /// Only changes behind this one, as [`ChangesBatch::last_seq`] or [`Change::seq`] gave it.
    pub fn since(mut self, seq: impl Into<Seq>) -> Changes {
        self.options.since = Since::Seq(seq.into());
        self
    }

    /// Only changes that have not happened yet.
    pub fn since_now(mut self) -> Changes {
        self.options.since = Since::Now;
        self
    }

    /// Only changes since then, and some from before: times are kept in intervals of three hours and
    /// more, and an interval that the time is in is reported whole. No change since then is left out.
    ///
    /// Databases of a CouchDB before 3.6 answer `BadRequest`.
    pub fn since_time(mut self, time: SystemTime) -> Changes {
        self.options.since = Since::Time(time);
        self
    }

    /// At most so many changes.
    pub fn limit(mut self, limit: u64) -> Changes {
        self.options.limit = Some(limit);
        self
    }

    /// Newest first. `since` means nothing then.
    pub fn descending(mut self) -> Changes {
        self.options.descending = true;
        self
    }

    /// Report every leaf of each document, not just the winner.
    pub fn all_leaves(mut self) -> Changes {
        self.options.style = Style::AllDocs;
        self
    }

    /// Only changes that a filter lets through.
    pub fn filter(mut self, filter: Filter) -> Changes {
        self.options.filter = filter;
        self
    }

    /// Only changes of these documents.
    pub fn doc_ids<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> Changes {
        self.filter(Filter::DocIds(Arc::new(ids.into_iter().map(Into::into).collect())))
    }

    /// Only changes of design documents.
    pub fn design_docs(self) -> Changes {
        self.filter(Filter::Design)
    }

    /// Only changes of documents that match.
    pub fn selector(self, selector: Selector) -> Changes {
        self.filter(Filter::Selector(Arc::new(selector)))
    }

    /// Return the documents too.
    pub fn include_docs(mut self) -> Changes {
        self.options.include_docs = true;
        self
    }

    /// Return the documents too, read with these options.
    pub fn include_docs_with(mut self, options: GetOptions) -> Changes {
        self.options.doc = options;
        self.include_docs()
    }

    /// When live: how often a server shows that it is still there. After three times as long without
    /// a sign the connection is taken for dead, and made again. As
    /// `RemoteOptions::heartbeat` says unless set.
    pub fn heartbeat(mut self, interval: Duration) -> Changes {
        self.options.heartbeat = Some(interval);
        self
    }

    /// With [`subscribe`](Changes::subscribe): how long changes are gathered, from the first one
    /// on, before the callback is told of all of them. One second unless set; zero to be told at
    /// once.
    pub fn latency(mut self, latency: Duration) -> Changes {
        self.latency = Some(latency);
        self
    }

    /// Has a callback told of changes, those there are and those that happen, until the
    /// subscription is dropped or stopped.
    ///
    /// The callback runs on a thread that all subscriptions share, so it should be quick. It is told
    /// of every change at least once: the feed outlives lost connections, and goes on behind the
    /// last change that was told.
    ///
    /// Subscriptions with the same options on clones of one [`Database`](crate::Database) share one
    /// feed, which begins where the first of them asked.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let (send, receive) = mpsc::channel();
    /// let mut subscription = db
    ///     .changes()
    ///     .since_now()
    ///     .latency(Duration::ZERO)
    ///     .subscribe(move |event| {
    ///         for change in event.changes {
    ///             send.send(change.id.clone()).unwrap();
    ///         }
    ///     })
    ///     .await?;
    /// db.put_at("a", "{}").await?;
    /// assert_eq!(receive.recv().unwrap(), "a");
    ///
    /// subscription.stop();
    /// db.put_at("b", "{}").await?;
    /// subscription.listen()?;
    /// assert_eq!(receive.recv().unwrap(), "b");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` with a limit or another direction, and as [`fetch`](Changes::fetch) if the feed
    /// is to begin now.
    pub async fn subscribe(
        self,
        callback: impl FnMut(FeedEvent<'_>) + Send + 'static,
    ) -> Result<Subscription> {
        let Changes { adapter, options, feeds, latency } = self;
        Subscription::new(adapter, feeds, options, latency, Box::new(callback)).await
    }

    /// Reads the changes there are, all of them into memory.
    ///
    /// # Errors
    ///
    /// `BadRequest` if `since` is no sequence of this database.
    pub async fn fetch(self) -> Result<ChangesBatch> {
        let mut batches = self.batches().await?;
        let Some(mut all) = batches.try_next().await? else {
            return Err(Error::new(ErrorKind::Internal, "the feed ended before it began"));
        };
        while let Some(mut next) = batches.try_next().await? {
            all.changes.append(&mut next.changes);
            (all.last_seq, all.pending) = (next.last_seq, next.pending);
        }
        Ok(all)
    }

    /// Reads the changes there are, one by one.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Changes::fetch).
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Change>>> {
        Ok(one_by_one(self.batches().await?))
    }

    /// Reads the changes there are, and goes on with changes as they happen, until the stream is
    /// dropped.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Changes::fetch).
    pub async fn live(self) -> Result<BoxStream<'static, Result<Change>>> {
        Ok(one_by_one(self.live_batches().await?))
    }

    /// As [`stream`](Changes::stream), in batches that say how far they bring the reader.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Changes::fetch).
    pub async fn batches(mut self) -> Result<ChangesStream> {
        self.options.live = false;
        self.adapter.changes(&self.options).await
    }

    /// As [`live`](Changes::live), in batches that say how far they bring the reader. A batch
    /// without changes comes when the reader has caught up.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Changes::fetch).
    pub async fn live_batches(mut self) -> Result<ChangesStream> {
        self.options.live = true;
        self.adapter.changes(&self.options).await
    }
}

fn one_by_one(batches: ChangesStream) -> BoxStream<'static, Result<Change>> {
    batches.map_ok(|batch| stream::iter(batch.changes).map(Ok)).try_flatten().boxed()
}
