//! The commit thread: it runs transactions one after the other and commits them in groups, so that
//! one flush serves everybody who waits for one.

use crate::engine::Engine;
use crate::tx::{Group, Tx};
use crate::{Durability, Result, StoreError};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// How long a deferred transaction may wait for the flush that makes it durable.
const DEFER: Duration = Duration::from_millis(900);
/// Transactions in a group. More would only make the first of them wait longer.
const GROUP_COUNT: usize = 1024;
/// Bytes written by a group after which no transaction is added. Bounds the memory of a commit.
const GROUP_BYTES: usize = 8 << 20;

/// What the commit thread is asked to do.
pub(crate) enum Message {
    Run(Durability, Box<dyn Job>),
    Stop,
}

/// A transaction whose types the commit thread need not know.
pub(crate) trait Job: Send {
    /// Runs it; tells whether its writes are to be kept. Never unwinds.
    fn run(&mut self, group: &mut Group) -> bool;
    /// Gives its caller the outcome: its own, or the error of the commit. Never unwinds.
    fn answer(&mut self, committed: Result<()>);
}

/// A transaction and who waits for it. Dropped unanswered, it answers `Closed`.
pub(crate) struct Transaction<F, T, E, D>
where
    D: FnOnce(Result<T, E>),
    E: From<StoreError>,
{
    run: Option<F>,
    outcome: Option<Result<T, E>>,
    done: Option<D>,
}

impl<F, T, E, D> Transaction<F, T, E, D>
where
    D: FnOnce(Result<T, E>),
    E: From<StoreError>,
{
    pub(crate) fn new(run: F, done: D) -> Self {
        Transaction { run: Some(run), outcome: None, done: Some(done) }
    }

    fn finish(&mut self, outcome: Result<T, E>) {
        if let Some(done) = self.done.take()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| done(outcome)))
        {
            tracing::error!(panic = message(&*panic), "the answer to a transaction panicked");
        }
    }
}

impl<F, T, E, D> Job for Transaction<F, T, E, D>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
    D: FnOnce(Result<T, E>) + Send,
{
    fn run(&mut self, group: &mut Group) -> bool {
        let Some(run) = self.run.take() else { return false };
        // Whatever the closure leaves behind when it unwinds is rolled back.
        let outcome = match catch_unwind(AssertUnwindSafe(|| run(&mut group.begin()))) {
            Ok(Ok(value)) => group.check().map(|()| value).map_err(E::from),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(StoreError::Panicked(message(&*panic).to_owned()).into()),
        };
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn answer(&mut self, committed: Result<()>) {
        let outcome = match (committed, self.outcome.take()) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::Closed.into()),
            (Err(error), _) => Err(error.into()),
        };
        self.finish(outcome);
    }
}

impl<F, T, E, D> Drop for Transaction<F, T, E, D>
where
    D: FnOnce(Result<T, E>),
    E: From<StoreError>,
{
    fn drop(&mut self) {
        if self.done.is_some() {
            self.finish(Err(StoreError::Closed.into()));
        }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Counters of what the commit thread did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

/// The commit thread's state.
pub(crate) struct Committer {
    engine: Arc<dyn Engine>,
    counters: Arc<Counters>,
    /// When the oldest commit that is not durable yet must be.
    flush_by: Option<Instant>,
    /// Set once it is unknown what reached the disk.
    poisoned: Option<StoreError>,
}

impl Committer {
    pub(crate) fn new(engine: Arc<dyn Engine>, counters: Arc<Counters>) -> Committer {
        Committer { engine, counters, flush_by: None, poisoned: None }
    }

    /// Serves until told to stop or until nobody is left who could ask.
    pub(crate) fn serve(mut self, queue: &Receiver<Message>) {
        loop {
            // With nothing to flush this blocks, so an idle store never wakes up.
            let message = match self.flush_by {
                None => queue.recv().map_err(RecvTimeoutError::from),
                Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let running = match message {
                Ok(message) => self.group(message, queue),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.flush() {
                        tracing::error!(%error, "deferred transactions could not be flushed");
                    }
                    true
                }
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !running {
                break;
            }
        }
        if self.flush_by.is_some()
            && let Err(error) = self.flush()
        {
            tracing::error!(%error, "deferred transactions could not be flushed on closing");
        }
    }

    /// Runs the transactions that wait, commits and answers them. False if it was told to stop.
    fn group(&mut self, first: Message, queue: &Receiver<Message>) -> bool {
        let mut group = Group::new(self.engine.clone());
        let mut jobs = Vec::new();
        let mut flush = false;
        let mut running = true;
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Run(durability, mut job)) => {
                    if job.run(&mut group) {
                        flush |= durability == Durability::Flush;
                        jobs.push((true, job));
                    } else {
                        group.rollback();
                        jobs.push((false, job));
                    }
                }
                Ok(Message::Stop) => {
                    running = false;
                    break;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    running = false;
                    break;
                }
            }
            if jobs.len() >= GROUP_COUNT || group.bytes >= GROUP_BYTES {
                break;
            }
            next = queue.try_recv();
        }
        let committed = self.commit(group, flush);
        if committed.is_ok() {
            let kept = jobs.iter().filter(|(kept, _)| *kept).count() as u64;
            self.counters.transactions.fetch_add(kept, Ordering::Relaxed);
        }
        // One that failed may have failed for what it read of the group, so it too is told if that
        // never came to be.
        for (_, mut job) in jobs {
            job.answer(committed.clone());
        }
        running
    }

    fn commit(&mut self, group: Group, flush: bool) -> Result<()> {
        let bytes = group.bytes as u64;
        let batch = group.into_batch();
        // Nor is anything called durable that was lost with an earlier flush.
        if let Some(error) = &self.poisoned
            && (flush || !batch.is_empty())
        {
            return Err(error.clone());
        }
        if batch.is_empty() {
            // Durable then means: what it saw is.
            return if flush && self.flush_by.is_some() { self.flush() } else { Ok(()) };
        }
        self.engine.ready(bytes, !batch.retired.is_empty())?;
        // Compaction drops the rows of a retired owner for good, so that must not be taken back.
        let flush = flush || !batch.retired.is_empty();
        let result = self.engine.commit(batch, flush);
        self.note(&result);
        result?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        if flush {
            self.flush_by = None;
            self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        } else if self.flush_by.is_none() {
            self.flush_by = Some(Instant::now() + DEFER);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.flush_by = None;
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        let result = self.engine.flush();
        self.note(&result);
        if result.is_err() && self.poisoned.is_none() {
            self.flush_by = Some(Instant::now() + DEFER);
        }
        result?;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After a failure that leaves it open what reached the disk, nothing more is written.
    fn note(&mut self, result: &Result<()>) {
        match result {
            Ok(()) | Err(StoreError::Full) => {}
            Err(error @ StoreError::Poisoned(_)) => self.poisoned = Some(error.clone()),
            Err(error) => self.poisoned = Some(StoreError::Poisoned(error.to_string())),
        }
    }
}
