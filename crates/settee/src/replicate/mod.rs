//! Replication: CouchDB's protocol between any two databases.
//!
//! What the target lacks of the source is copied: documents with all their conflicts, deletions,
//! design documents and attachments, each revision as it is. Both keep a checkpoint, so the next
//! replication of the two reads on where the last one ended. Whatever is interrupted can be done
//! again, in any order and any number of times, and the databases converge.
//!
//! [`Replication`] is one direction, [`Sync`] is both. They run in place with `run`, or in the
//! background with `start`, which returns a handle.
//!
//! ```
//! # futures_executor::block_on(async {
//! use settee::Couch;
//! use settee::replicate::Replication;
//!
//! let couch = Couch::memory()?;
//! let (phone, desk) = (couch.create("phone").await?, couch.create("desk").await?);
//! phone.put(r#"{"_id": "milk"}"#).await?;
//! let result = Replication::new(&phone, &desk).run().await?;
//! assert_eq!(result.counters.docs_written, 1);
//!
//! // The second time there is nothing left to do.
//! let result = Replication::new(&phone, &desk).run().await?;
//! assert!(result.no_changes);
//! # Ok::<(), settee::Error>(()) }).unwrap();
//! ```

mod background;
mod backoff;
mod checkpoint;
mod dates;
mod document;
mod driver;
mod events;
mod id;
mod sync;
mod transfer;

pub use backoff::Backoff;
pub use dates::rfc3339;
pub use document::{ReplicatorDoc, ReplicatorEnd, ReplicatorState, ReplicatorStats};
pub use events::{
    Counters, Denied, Progress, ReplicationEvent, ReplicationResult, ReplicationStatus,
};
pub use sync::{Direction, Sync, SyncHandle, SyncResult};

use crate::adapter::{Adapter, Host};
use crate::database::Database;
use crate::env;
use driver::Driver;
use events::Control;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::FutureExt;
use settee_core::options::Filter;
use settee_core::selector::Selector;
use settee_core::wire::Seq;
use settee_core::{Error, ErrorKind, Result};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How to replicate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// Go on with changes as they happen, until cancelled.
    pub live: bool,
    /// After a failure that may pass, try again, however often.
    pub retry: bool,
    /// Where to begin if there is no checkpoint.
    pub since: Option<Seq>,
    /// Which documents.
    pub filter: Filter,
    /// Leave conflicting revisions behind.
    pub winning_revs_only: bool,
    /// Create the target if it is not there.
    pub create_target: bool,
    /// How many changes go through together.
    pub batch_size: usize,
    /// How many batches are on their way at once.
    pub batches_limit: usize,
    /// How many bytes of documents are written at once, roughly. With `batches_limit` this bounds
    /// the memory that is used.
    pub batch_bytes: usize,
    /// Remember at both ends how far this has come.
    pub use_checkpoints: bool,
    /// How long after a change a checkpoint speaks of it. There is one at the end in any case.
    pub checkpoint_interval: Duration,
    /// When live: how often the source's server shows that it is still there. If not given, as the
    /// connection to it says.
    pub heartbeat: Option<Duration>,
    /// How long either end may take for one answer.
    pub timeout: Duration,
    /// How often one batch is tried again before the replication has failed.
    pub retries: u32,
    /// How long to wait before trying again.
    pub backoff: Backoff,
    /// The id of the place that runs this, which is part of the replication's id. If not given, it is
    /// that of the database in this process.
    pub place: Option<String>,
}

impl Default for ReplicateOptions {
    fn default() -> ReplicateOptions {
        ReplicateOptions {
            live: false,
            retry: false,
            since: None,
            filter: Filter::None,
            winning_revs_only: false,
            create_target: false,
            batch_size: 250,
            batches_limit: 4,
            batch_bytes: 2 << 20,
            use_checkpoints: true,
            checkpoint_interval: Duration::from_secs(5),
            heartbeat: None,
            timeout: Duration::from_secs(120),
            retries: 3,
            backoff: Backoff::default(),
            place: None,
        }
    }
}

/// One end of a replication: a database, and the place that holds it if that is known.
#[derive(Debug, Clone)]
pub struct End {
    adapter: Arc<dyn Adapter>,
    place: Option<Arc<dyn Host>>,
}

impl From<Arc<dyn Adapter>> for End {
    fn from(adapter: Arc<dyn Adapter>) -> End {
        End { adapter, place: None }
    }
}

impl From<&Database> for End {
    fn from(database: &Database) -> End {
        let place = Some(database.couch().host().clone());
        End { adapter: database.adapter().clone(), place }
    }
}

impl From<Database> for End {
    fn from(database: Database) -> End {
        End::from(&database)
    }
}

/// A replication from one database to another, to be set up and then [run](Replication::run) or
/// [started](Replication::start).
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run` or `start`"]
pub struct Replication {
    source: End,
    target: End,
    options: ReplicateOptions,
}

impl Replication {
    /// From `source` to `target`.
    pub fn new(source: impl Into<End>, target: impl Into<End>) -> Replication {
        let (source, target) = (source.into(), target.into());
        Replication { source, target, options: ReplicateOptions::default() }
    }

    /// With these options instead of the usual ones.
    pub fn options(mut self, options: ReplicateOptions) -> Replication {
        self.options = options;
        self
    }

    /// Go on with changes as they happen, until cancelled, and try again after failures that may
    /// pass.
    pub fn live(mut self) -> Replication {
        self.options.live = true;
        self.retry(true)
    }

    /// Whether to try again, however often, after failures that may pass.
    pub fn retry(mut self, retry: bool) -> Replication {
        self.options.retry = retry;
        self
    }

    /// Begin behind this change of the source, unless there is a checkpoint.
    pub fn since(mut self, seq: impl Into<Seq>) -> Replication {
        self.options.since = Some(seq.into());
        self
    }

    /// Only these documents.
    pub fn doc_ids<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> Replication {
        self.filter(Filter::DocIds(Arc::new(ids.into_iter().map(Into::into).collect())))
    }

    /// Only documents that match.
    pub fn selector(self, selector: Selector) -> Replication {
        self.filter(Filter::Selector(Arc::new(selector)))
    }

    /// Only documents that a filter lets through, such as [`Filter::function`] of the source's design
    /// documents.
    pub fn filter(mut self, filter: Filter) -> Replication {
        self.options.filter = filter;
        self
    }

    /// Leave conflicting revisions behind.
    pub fn winning_revs_only(mut self) -> Replication {
        self.options.winning_revs_only = true;
        self
    }

    /// Create the target if it is not there. It has to be a [`Database`], which knows its place.
    pub fn create_target(mut self) -> Replication {
        self.options.create_target = true;
        self
    }

    /// How many changes go through together.
    pub fn batch_size(mut self, changes: usize) -> Replication {
        self.options.batch_size = changes;
        self
    }

    /// How many batches are on their way at once.
    pub fn batches_limit(mut self, batches: usize) -> Replication {
        self.options.batches_limit = batches;
        self
    }

    /// How long after a change a checkpoint speaks of it.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Replication {
        self.options.checkpoint_interval = interval;
        self
    }

    /// Remember nothing: the next replication begins from the beginning.
    pub fn without_checkpoints(mut self) -> Replication {
        self.options.use_checkpoints = false;
        self
    }

    /// When live: how often the source's server shows that it is still there. After three times as
    /// long without a sign the connection is taken for dead, and made again.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let couch = settee::Couch::memory()?;
    /// # let (a, b) = (couch.create("a").await?, couch.create("b").await?);
    /// use std::time::Duration;
    ///
    /// let live = a.replicate_to(&b).live().heartbeat(Duration::from_secs(20));
    /// let handle = live.timeout(Duration::from_secs(60)).start()?;
    /// handle.cancel();
    /// # handle.wait().await?;
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub fn heartbeat(mut self, interval: Duration) -> Replication {
        self.options.heartbeat = Some(interval);
        self
    }

    /// How long either end may take for one answer. Two minutes unless set.
    pub fn timeout(mut self, timeout: Duration) -> Replication {
        self.options.timeout = timeout;
        self
    }

    /// How often one batch is tried again before the replication has failed.
    pub fn retries(mut self, retries: u32) -> Replication {
        self.options.retries = retries;
        self
    }

    /// The id of the place that runs this, instead of that of the database in this process.
    pub fn place(mut self, place: impl Into<String>) -> Replication {
        self.options.place = Some(place.into());
        self
    }

    /// The replication's id: that of every replication of these databases with these options, and
    /// of no other. Its checkpoints bear it.
    ///
    /// # Errors
    ///
    /// Those of the source, if a function filters: its code is part of the id, and has to be read.
    pub async fn id(&self) -> Result<String> {
        let (source, target) = (&*self.source.adapter, &*self.target.adapter);
        id::replication_id(source, target, &self.options).await
    }

    /// The future that does it all, and the handle to it. For executors of one's own; others use
    /// [`run`](Replication::run) or [`start`](Replication::start).
    pub fn into_task(self) -> (ReplicationHandle, BoxFuture<'static, Result<ReplicationResult>>) {
        let control = Arc::new(Control::default());
        let driver = Driver {
            source: self.source.adapter,
            target: self.target.adapter,
            place: self.target.place,
            options: Arc::new(self.options),
            control: control.clone(),
        };
        // Should the task be dropped before its end, whoever waits for it must hear of it.
        let guard = Unfinished(control.clone());
        let task = async move {
            let _guard = guard;
            driver.run().await
        };
        (ReplicationHandle { control }, task.boxed())
    }

    /// Replicates, and returns when there is nothing left to do. A live replication never returns
    /// but for an error; use [`start`](Replication::start) for those.
    ///
    /// # Errors
    ///
    /// Those of either end. That the target refuses documents is none: they are counted, and listed
    /// in [`ReplicationResult::errors`].
    pub async fn run(self) -> Result<ReplicationResult> {
        self.into_task().1.await
    }

    /// Replicates in the background, on a thread of its own.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let couch = settee::Couch::memory()?;
    /// # let (a, b) = (couch.create("a").await?, couch.create("b").await?);
    /// use futures_util::StreamExt;
    /// use settee::replicate::ReplicationEvent;
    ///
    /// let live = a.replicate_to(&b).live().start()?;
    /// let mut events = live.events();
    /// a.put(r#"{"_id": "milk"}"#).await?;
    /// while let Some(event) = events.next().await {
    ///     if let ReplicationEvent::Change(progress) = event {
    ///         assert_eq!(progress.counters.docs_written, 1);
    ///         break;
    ///     }
    /// }
    /// live.cancel();
    /// assert_eq!(live.wait().await?.status.name(), "cancelled");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `Internal` if the system has no thread left.
    pub fn start(self) -> Result<ReplicationHandle> {
        let (handle, task) = self.into_task();
        background::spawn(task.map(drop).boxed())?;
        Ok(handle)
    }
}

/// Says that a replication was given up, if it has not ended otherwise.
struct Unfinished(Arc<Control>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let reason = "The replication was dropped before it ended.";
        self.0.finish(Err(Arc::new(Error::new(ErrorKind::ServiceUnavailable, reason))));
    }
}

/// A replication that runs elsewhere. It goes on when the handle is dropped.
#[derive(Clone)]
pub struct ReplicationHandle {
    control: Arc<Control>,
}

impl ReplicationHandle {
    /// Ends the replication, after a last checkpoint.
    pub fn cancel(&self) {
        self.control.order(|orders| orders.cancelled = true);
    }

    /// Stops reading further changes. What is on its way still arrives; then comes the event
    /// [`Paused`](ReplicationEvent::Paused).
    pub fn pause(&self) {
        self.control.order(|orders| orders.paused = true);
    }

    /// Goes on after a [`pause`](ReplicationHandle::pause).
    pub fn resume(&self) {
        self.control.order(|orders| orders.paused = false);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.control.progress()
    }

    /// Documents that the target has refused; at most a hundred.
    pub fn denied(&self) -> Vec<Denied> {
        self.control.denied()
    }

    /// What happens from now on, up to the end: the last event is `Complete` or `Error`.
    pub fn events(&self) -> BoxStream<'static, ReplicationEvent> {
        self.control.events()
    }

    /// What it came to, if it has ended.
    pub fn result(&self) -> Option<Result<ReplicationResult>> {
        self.control.outcome()
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// As [`Replication::run`].
    pub async fn wait(&self) -> Result<ReplicationResult> {
        self.control.finished().await
    }
}

impl fmt::Debug for ReplicationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.control.fmt(f)
    }
}

/// How long one answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    timeout: Duration,
}

impl Call {
    /// What a call returns, or `Timeout`.
    pub(crate) async fn run<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.run_while(call, || 0).await
    }

    /// The same for a call that takes as long as there is progress.
    pub(crate) async fn run_while<T>(
        self,
        call: impl Future<Output = Result<T>>,
        progress: impl Fn() -> u64,
    ) -> Result<T> {
        let mut call = pin!(call);
        // Most calls of a database in this process need no timer at all.
        let mut timer = None;
        let mut seen = 0;
        poll_fn(|cx| {
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            loop {
                let running = timer.get_or_insert_with(|| env::sleep(self.timeout));
                if running.poll_unpin(cx).is_pending() {
                    return Poll::Pending;
                }
                if progress() == seen {
                    let error = Error::new(ErrorKind::Timeout, "The other side took too long.");
                    return Poll::Ready(Err(error));
                }
                seen = progress();
                timer = None;
            }
        })
        .await
    }
}
