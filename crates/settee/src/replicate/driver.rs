//! The loop: reads changes, keeps some batches of them on their way, and writes checkpoints behind
//! them.
//!
//! ```text
//! changes of the source -> Reader -> batches -> Transfer, several at a time -> in order -> checkpoint
//! ```
//!
//! It is one future without tasks of its own, so it runs under any executor or none. Batches overlap:
//! while one waits for the target to commit, another reads from the source. They end in order, so
//! what the last one reached is what a checkpoint may say.

use super::backoff::is_transient;
use super::checkpoint::Checkpoint;
use super::events::{Control, ReplicationEvent, ReplicationResult, ReplicationStatus, same_error};
use super::id::replication_id;
use super::transfer::{Batch, Done, Transfer};
use super::{Call, ReplicateOptions};
use crate::adapter::{Adapter, ChangesStream, Host};
use crate::env::{self, Sleep};
use futures_core::future::BoxFuture;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use settee_core::options::{ChangesOptions, Since, Style};
use settee_core::wire::{Change, Seq};
use settee_core::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A replication that runs.
pub(crate) struct Driver {
    pub(crate) source: Arc<dyn Adapter>,
    pub(crate) target: Arc<dyn Adapter>,
    /// Where the target is, if that is known.
    pub(crate) place: Option<Arc<dyn Host>>,
    pub(crate) options: Arc<ReplicateOptions>,
    pub(crate) control: Arc<Control>,
}

/// How long the end of a cancelled or failed replication waits for its last checkpoint.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);

/// How many pieces of a feed without a change in them make a batch of their own.
const EMPTY_PIECES: u32 = 16;

/// How an attempt ended, if it did not fail.
struct Ended {
    status: ReplicationStatus,
    /// Unless it was cancelled before it began.
    checkpoint: Option<Checkpoint>,
    no_changes: bool,
}

impl Ended {
    fn cancelled(checkpoint: Option<Checkpoint>) -> Ended {
        Ended { status: ReplicationStatus::Cancelled, checkpoint, no_changes: false }
    }
}

impl Driver {
    /// Runs until there is nothing left to do, it is cancelled, or it fails for good.
    pub(crate) async fn run(self) -> Result<ReplicationResult> {
        let outcome = self.attempts().await;
        let shared = match &outcome {
            Ok(result) => Ok(result.clone()),
            Err(error) => Err(Arc::new(same_error(error))),
        };
        self.control.finish(shared);
        outcome
    }

    async fn attempts(&self) -> Result<ReplicationResult> {
        let start_time = env::now_micros();
        let mut replication_id = None;
        let mut failures = 0;
        let mut reached = None;
        let ended = loop {
            let before = self.control.progress().last_seq;
            let error = match self.attempt(&mut replication_id, reached.as_ref()).await {
                Ok(ended) => break ended,
                Err(error) => error,
            };
            let progress = self.control.progress();
            if progress.last_seq != before {
                // It was not in vain, so it need not wait long.
                failures = 0;
                reached = Some(progress.last_seq);
            }
            let retry = self.options.retry && is_transient(&error);
            if !retry {
                return Err(error);
            }
            tracing::info!(%error, failures, "a replication is tried again");
            self.control.emit(&ReplicationEvent::Paused(Some(Arc::new(error))));
            let wait = env::sleep(self.options.backoff.wait(failures));
            if let Either::Right(_) = select(pin!(wait), pin!(self.cancelled())).await {
                break Ended::cancelled(None);
            }
            failures += 1;
        };
        let Ended { status, checkpoint, no_changes } = ended;
        let progress = self.control.progress();
        let errors = self.control.denied();
        Ok(ReplicationResult {
            ok: progress.counters.doc_write_failures == 0,
            counters: progress.counters,
            last_seq: progress.last_seq,
            start_time,
            end_time: env::now_micros(),
            status,
            errors,
            replication_id: replication_id.unwrap_or_default(),
            session_id: checkpoint.as_ref().map_or("", Checkpoint::session).to_owned(),
            history: checkpoint.as_ref().map_or_else(Vec::new, Checkpoint::history),
            no_changes,
        })
    }

    /// Creates the target, unless it is there.
    async fn create_target(&self) -> Result<()> {
        let Some(place) = &self.place else {
            let reason = "Where the target is to be created is not known.";
            return Err(Error::new(ErrorKind::BadRequest, reason));
        };
        match place.create(self.target.name()).await {
            Err(error) if error.kind() != ErrorKind::FileExists => Err(error),
            _ => Ok(()),
        }
    }

    async fn cancelled(&self) {
        self.control.ordered(|orders| orders.cancelled).await;
    }

    /// From the last checkpoint to the end, or to the first failure.
    async fn attempt(&self, id: &mut Option<String>, reached: Option<&Seq>) -> Result<Ended> {
        let options = &*self.options;
        let call = Call { timeout: options.timeout };
        let id = match id {
            Some(id) => id,
            None => {
                let found = call.run(async {
                    if options.create_target {
                        self.create_target().await?;
                    }
                    replication_id(&*self.source, &*self.target, options).await
                });
                match select(pin!(found), pin!(self.cancelled())).await {
                    Either::Left((found, _)) => id.insert(found?),
                    Either::Right(_) => return Ok(Ended::cancelled(None)),
                }
            }
        };
        let since = match options.use_checkpoints {
            true => options.since.as_ref(),
            // Without checkpoints, what this run remembers is all there is to go on from.
            false => reached.or(options.since.as_ref()),
        };
        let opening = Checkpoint::open(
            self.source.clone(),
            self.target.clone(),
            id,
            options.use_checkpoints,
            since,
            call,
        );
        let checkpoint = match select(pin!(opening), pin!(self.cancelled())).await {
            Either::Left((checkpoint, _)) => checkpoint?,
            Either::Right(_) => return Ok(Ended::cancelled(None)),
        };
        let start = checkpoint.start().clone();
        self.control.update(|progress| {
            progress.last_seq = start.clone();
            progress.source_seq = start.clone();
            progress.checkpointed_seq = checkpoint.saved().clone();
        });
        let reading = ChangesOptions {
            since: match &start {
                Seq::Number(0) => Since::Start,
                seq => Since::Seq(seq.clone()),
            },
            style: if options.winning_revs_only { Style::MainOnly } else { Style::AllDocs },
            filter: options.filter.clone(),
            live: options.live,
            heartbeat: options.heartbeat,
            ..ChangesOptions::default()
        };
        let feed = call.run(self.source.changes(&reading));
        let feed = match select(pin!(feed), pin!(self.cancelled())).await {
            Either::Left((feed, _)) => feed?,
            Either::Right(_) => return Ok(Ended::cancelled(Some(checkpoint))),
        };
        let transfer = Transfer {
            source: self.source.clone(),
            target: self.target.clone(),
            control: self.control.clone(),
            options: self.options.clone(),
            call,
            bytes: AtomicUsize::new(options.batch_bytes.max(1)),
            target_empty: AtomicBool::new(checkpoint.target_is_empty()),
        };
        self.control.emit(&ReplicationEvent::Active);
        let run = Run { driver: self, transfer: &transfer, under_way: AtomicUsize::new(0) };
        run.to_end(feed, checkpoint, start).await
    }
}

/// One attempt, while it runs.
struct Run<'d> {
    driver: &'d Driver,
    transfer: &'d Transfer,
    /// Batches that have been read and are not done.
    under_way: AtomicUsize,
}

/// A checkpoint that is being written; it comes back with the outcome.
type Saving<'s> = BoxFuture<'s, (Checkpoint, Result<()>)>;

enum Wake {
    Done(Option<Result<Done>>),
    Saved(Box<Checkpoint>, Result<()>),
    Time,
    Orders,
}

impl Run<'_> {
    async fn to_end(
        &self,
        feed: ChangesStream,
        checkpoint: Checkpoint,
        start: Seq,
    ) -> Result<Ended> {
        let (control, options) = (&*self.driver.control, &*self.driver.options);
        let mut batches = self
            .batches(feed)
            .map_ok(|batch| self.transfer.batch(batch))
            .try_buffered(options.batches_limit.max(1))
            .boxed();
        let mut checkpoint = Some(checkpoint);
        let mut saving: Option<Saving<'_>> = None;
        let mut timer: Option<Sleep> = None;
        let mut through = start.clone();
        // What was said last: that it works, or that it waits.
        let mut waiting = false;
        let mut paused = false;
        let outcome = loop {
            let mut changed = Some(control.changed.listen());
            let orders = control.orders();
            if orders.cancelled {
                break Ok(ReplicationStatus::Cancelled);
            }
            if paused && !orders.paused {
                paused = false;
                control.emit(&ReplicationEvent::Active);
            }
            let idle = self.under_way.load(Ordering::Acquire) == 0;
            if orders.paused && !paused && idle {
                paused = true;
                control.emit(&ReplicationEvent::Paused(None));
            }
            let wake = poll_fn(|cx| {
                if let Some(save) = &mut saving
                    && let Poll::Ready((back, result)) = save.poll_unpin(cx)
                {
                    return Poll::Ready(Wake::Saved(Box::new(back), result));
                }
                if let Poll::Ready(done) = batches.poll_next_unpin(cx) {
                    return Poll::Ready(Wake::Done(done));
                }
                if let Some(time) = &mut timer
                    && time.poll_unpin(cx).is_ready()
                {
                    return Poll::Ready(Wake::Time);
                }
                if let Some(listener) = &mut changed
                    && listener.poll_unpin(cx).is_ready()
                {
                    changed = None;
                    return Poll::Ready(Wake::Orders);
                }
                Poll::Pending
            });
            match wake.await {
                Wake::Done(None) if options.live => {
                    let reason = "The source has ended its feed.";
                    break Err(Error::new(ErrorKind::ServiceUnavailable, reason));
                }
                Wake::Done(None) => break Ok(ReplicationStatus::Complete),
                Wake::Done(Some(Err(error))) => break Err(error),
                Wake::Done(Some(Ok(done))) => {
                    // Databases in this process may never make us wait; others want their turn.
                    yield_now().await;
                    let left = self.under_way.fetch_sub(1, Ordering::AcqRel) - 1;
                    through = done.through;
                    let progress = control.update(|progress| {
                        progress.last_seq = through.clone();
                        progress.clone()
                    });
                    if done.changes > 0 {
                        if std::mem::take(&mut waiting) {
                            control.emit(&ReplicationEvent::Active);
                        }
                        control.emit(&ReplicationEvent::Change(progress));
                    }
                    if done.caught_up && left == 0 && options.live && !waiting {
                        waiting = true;
                        control.emit(&ReplicationEvent::Paused(None));
                    }
                    if timer.is_none() && saving.is_none() {
                        timer = Some(env::sleep(options.checkpoint_interval));
                    }
                }
                Wake::Saved(back, result) => {
                    saving = None;
                    control.update(|progress| progress.checkpointed_seq = back.saved().clone());
                    if *back.saved() != through {
                        timer = Some(env::sleep(options.checkpoint_interval));
                    }
                    checkpoint = Some(*back);
                    if let Err(error) = result {
                        break Err(error);
                    }
                }
                Wake::Time => {
                    timer = None;
                    if let Some(checkpoint) = checkpoint.take() {
                        saving = Some(self.save(checkpoint, through.clone()));
                    }
                }
                Wake::Orders => {}
            }
        };
        // What is under way is dropped; it will come again.
        drop(batches);
        let last = async {
            let mut checkpoint = match (checkpoint, saving) {
                (Some(checkpoint), _) => checkpoint,
                (None, Some(saving)) => {
                    let (checkpoint, result) = saving.await;
                    result?;
                    checkpoint
                }
                (None, None) => {
                    return Err(Error::new(ErrorKind::Internal, "a checkpoint is lost"));
                }
            };
            checkpoint.save(&through, &control.progress().counters).await?;
            control.update(|progress| progress.checkpointed_seq = checkpoint.saved().clone());
            Ok::<_, Error>(checkpoint)
        };
        if let Ok(ReplicationStatus::Complete) = outcome {
            let status = ReplicationStatus::Complete;
            return Ok(Ended {
                status,
                checkpoint: Some(last.await?),
                no_changes: through == start,
            });
        }
        // What has come across should not come again. But it can, so nobody waits long for this.
        let checkpoint = match select(pin!(last), pin!(env::sleep(LAST_CHECKPOINT))).await {
            Either::Left((Ok(checkpoint), _)) => Some(checkpoint),
            Either::Left((Err(error), _)) => {
                tracing::debug!(%error, "no last checkpoint");
                None
            }
            Either::Right(_) => None,
        };
        outcome.map(|_| Ended::cancelled(checkpoint))
    }

    fn save(&self, mut checkpoint: Checkpoint, seq: Seq) -> Saving<'static> {
        let counters = self.driver.control.progress().counters;
        async move {
            let result = checkpoint.save(&seq, &counters).await;
            (checkpoint, result)
        }
        .boxed()
    }

    /// The feed, cut into batches.
    fn batches(
        &self,
        feed: ChangesStream,
    ) -> impl stream::Stream<Item = Result<Batch>> + Send + '_ {
        let reader = Reader {
            run: self,
            feed,
            changes: VecDeque::new(),
            last_seq: None,
            pending: 0,
            failed: None,
            ended: false,
        };
        stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|batch| (batch, reader)))
        })
    }
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Reads a feed.
struct Reader<'r, 'd> {
    run: &'r Run<'d>,
    feed: ChangesStream,
    /// Changes that have been read and are in no batch yet.
    changes: VecDeque<Change>,
    /// How far those bring us, unless that has been passed on.
    last_seq: Option<Seq>,
    pending: u64,
    failed: Option<Error>,
    ended: bool,
}

impl Reader<'_, '_> {
    /// The next batch: a full one, or what there is when no more comes at the moment.
    async fn next(&mut self) -> Result<Option<Batch>> {
        let Driver { control, options, .. } = self.run.driver;
        let size = options.batch_size.max(1);
        let mut empty = 0;
        while self.changes.len() < size
            && empty < EMPTY_PIECES
            && !self.ended
            && self.failed.is_none()
        {
            let caught_up = self.last_seq.is_some() && self.pending == 0;
            let next = match options.live && (caught_up || !self.changes.is_empty()) {
                // What is here should not wait for what may come.
                true => match self.feed.next().now_or_never() {
                    Some(next) => next.transpose(),
                    None => break,
                },
                false if options.live => self.feed.try_next().await,
                false => self.run.transfer.call.run(self.feed.try_next()).await,
            };
            match next {
                Ok(Some(batch)) => {
                    empty += u32::from(batch.changes.is_empty());
                    self.changes.extend(batch.changes);
                    self.last_seq = Some(batch.last_seq);
                    self.pending = batch.pending;
                }
                Ok(None) => self.ended = true,
                Err(error) => self.failed = Some(error),
            }
        }
        control.ordered(|orders| !orders.paused || orders.cancelled).await;
        let mut changes: Vec<Change> = Vec::with_capacity(size.min(self.changes.len()));
        changes.extend(self.changes.drain(..size.min(self.changes.len())));
        let through = match self.changes.is_empty() {
            // The feed may have come further than the last change that it let through.
            true => self.last_seq.take(),
            false => changes.last().map(|change| change.seq.clone()),
        };
        let Some(through) = through else {
            return match self.failed.take() {
                Some(error) => Err(error),
                None => Ok(None),
            };
        };
        let pending = self.pending + self.changes.len() as u64;
        control.update(|progress| {
            progress.source_seq = through.clone();
            progress.pending = Some(pending);
        });
        if pending == 0 {
            // From here on, somebody else may have been here.
            self.run.transfer.target_empty.store(false, Ordering::Relaxed);
        }
        self.run.under_way.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Batch { changes, through, caught_up: pending == 0 }))
    }
}
