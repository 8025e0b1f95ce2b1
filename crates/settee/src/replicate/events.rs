//! What a replication tells about itself while it runs, and how it is told what to do.

use event_listener::Event as Signal;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use settee_core::wire::{DocError, Seq};
use settee_core::{Error, Result, Rev};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a replication has done so far, counted over all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Revisions that the target was asked about.
    pub missing_checked: u64,
    /// Revisions that the target did not have.
    pub missing_found: u64,
    /// Revisions read from the source.
    pub docs_read: u64,
    /// Revisions written to the target.
    pub docs_written: u64,
    /// Revisions that the target refused.
    pub doc_write_failures: u64,
    /// Revisions that came many at a time.
    pub bulk_get_docs: u64,
    /// Revisions that were asked for many at a time.
    pub bulk_get_attempts: u64,
}

/// How far a replication is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it has done.
    pub counters: Counters,
    /// Everything of the source up to here is at the target.
    pub last_seq: Seq,
    /// Everything of the source up to here has been read.
    pub source_seq: Seq,
    /// The last checkpoint: where the replication would go on if it were started again.
    pub checkpointed_seq: Seq,
    /// How many changes there are behind `source_seq`, where the source says so.
    pub pending: Option<u64>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            counters: Counters::default(),
            last_seq: Seq::Number(0),
            source_seq: Seq::Number(0),
            checkpointed_seq: Seq::Number(0),
            pending: None,
        }
    }
}

/// How a replication ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationStatus {
    /// Everything there was has been replicated.
    Complete,
    /// Somebody cancelled it.
    Cancelled,
}

impl ReplicationStatus {
    /// PouchDB's word for it.
    pub fn name(self) -> &'static str {
        match self {
            ReplicationStatus::Complete => "complete",
            ReplicationStatus::Cancelled => "cancelled",
        }
    }
}

/// What a replication came to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReplicationResult {
    /// Whether every document was taken.
    pub ok: bool,
    /// What was done.
    pub counters: Counters,
    /// Everything of the source up to here is at the target.
    pub last_seq: Seq,
    /// When it began, in microseconds since 1970.
    pub start_time: u64,
    /// When it ended.
    pub end_time: u64,
    /// How it ended.
    pub status: ReplicationStatus,
    /// The documents that the target refused, and why, in CouchDB's words; at most a hundred.
    pub errors: Vec<Denied>,
    /// The replication's id, by which a later one like it finds its checkpoint.
    pub replication_id: String,
    /// Told this run from others in the checkpoint's history.
    pub session_id: String,
    /// The checkpoint's history, newest first, as CouchDB replies with it.
    pub history: Vec<Value>,
    /// Whether there was nothing to do since the last checkpoint.
    pub no_changes: bool,
}

impl ReplicationResult {
    /// The reply of CouchDB's `POST /_replicate`.
    pub fn to_couchdb(&self) -> Value {
        let mut reply = json!({
            "ok": true,
            "session_id": self.session_id,
            "source_last_seq": self.last_seq,
            "replication_id_version": super::id::VERSION,
            "history": self.history,
        });
        if self.no_changes {
            reply["no_changes"] = Value::Bool(true);
        } else if let ([], Value::Object(reply), Ok(Value::Object(counters))) =
            (&self.history[..], &mut reply, serde_json::to_value(self.counters))
        {
            // Without checkpoints there is no history to say it.
            reply.extend(counters);
        }
        reply
    }

    /// The result as PouchDB has it.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let couch = settee::Couch::memory()?;
    /// # let (a, b) = (couch.create("a").await?, couch.create("b").await?);
    /// let result = a.replicate_to(&b).run().await?;
    /// assert_eq!(result.to_pouchdb()["status"], "complete");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub fn to_pouchdb(&self) -> Value {
        let Counters { docs_read, docs_written, doc_write_failures, .. } = self.counters;
        json!({
            "ok": self.ok,
            "docs_read": docs_read,
            "docs_written": docs_written,
            "doc_write_failures": doc_write_failures,
            "missing_checked": self.counters.missing_checked,
            "missing_found": self.counters.missing_found,
            "last_seq": self.last_seq,
            "start_time": super::dates::rfc3339(self.start_time),
            "end_time": super::dates::rfc3339(self.end_time),
            "status": self.status.name(),
            "errors": self.errors.iter().map(Denied::to_value).collect::<Vec<_>>(),
        })
    }
}

/// A document that the target refused.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Denied {
    /// The document.
    pub id: String,
    /// The revision that was refused.
    pub rev: Option<Rev>,
    /// Why.
    pub error: Arc<Error>,
}

impl PartialEq for Denied {
    fn eq(&self, other: &Denied) -> bool {
        self.to_value() == other.to_value()
    }
}

impl Denied {
    fn to_value(&self) -> Value {
        json!({
            "id": self.id,
            "rev": self.rev,
            "error": self.error.name(),
            "reason": self.error.reason(),
        })
    }
}

impl From<DocError> for Denied {
    fn from(failed: DocError) -> Denied {
        Denied { id: failed.id, rev: failed.rev, error: Arc::new(failed.error) }
    }
}

/// What happened in a replication.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReplicationEvent {
    /// Changes have come across. Who is slow to listen hears of several at once.
    Change(Progress),
    /// It works, for the first time or again.
    Active,
    /// It waits: for changes, for [`resume`](super::ReplicationHandle::resume), or, after an error
    /// that may pass, to try again.
    Paused(Option<Arc<Error>>),
    /// The target refused a document.
    Denied(Denied),
    /// It has failed, and ended.
    Error(Arc<Error>),
    /// It has ended.
    Complete(Box<ReplicationResult>),
}

/// What a replication waits for between two pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Orders {
    pub(crate) paused: bool,
    pub(crate) cancelled: bool,
}

/// What a running replication and its handles share.
#[derive(Default)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// Notified when the orders change, and when the replication has ended.
    pub(crate) changed: Signal,
}

#[derive(Default)]
struct State {
    orders: Orders,
    progress: Progress,
    denied: Vec<Denied>,
    listeners: Vec<Weak<Queue>>,
    outcome: Option<Result<ReplicationResult, Arc<Error>>>,
}

/// How many refused documents are kept for the result, and how many events for a slow listener.
const KEPT: usize = 100;
const QUEUED: usize = 1000;

/// Events for one listener.
#[derive(Default)]
struct Queue {
    events: Mutex<VecDeque<ReplicationEvent>>,
    news: Signal,
}

impl Queue {
    fn push(&self, event: ReplicationEvent) {
        let mut events = lock(&self.events);
        let full = events.len() >= QUEUED;
        match (events.back_mut(), &event) {
            // Of what is merely progress, the latest counts.
            (Some(last @ ReplicationEvent::Change(_)), ReplicationEvent::Change(_)) => {
                *last = event;
            }
            (_, ReplicationEvent::Denied(_)) if full => {}
            _ => events.push_back(event),
        }
        drop(events);
        self.news.notify(usize::MAX);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(crate) fn orders(&self) -> Orders {
        lock(&self.state).orders
    }

    pub(crate) fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut lock(&self.state).orders);
        self.changed.notify(usize::MAX);
    }

    /// Waits until the orders are such.
    pub(crate) async fn ordered(&self, such: impl Fn(Orders) -> bool) {
        loop {
            let listener = self.changed.listen();
            if such(self.orders()) {
                return;
            }
            listener.await;
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.state).progress.clone()
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut lock(&self.state).progress)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.state).progress.counters);
    }

    pub(crate) fn denied(&self) -> Vec<Denied> {
        lock(&self.state).denied.clone()
    }

    pub(crate) fn deny(&self, denied: Denied) {
        let mut state = lock(&self.state);
        state.progress.counters.doc_write_failures += 1;
        if state.denied.len() < KEPT {
            state.denied.push(denied.clone());
        }
        drop(state);
        self.emit(&ReplicationEvent::Denied(denied));
    }

    pub(crate) fn emit(&self, event: &ReplicationEvent) {
        lock(&self.state).listeners.retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.push(event.clone());
                true
            }
            None => false,
        });
    }

    /// Tells everybody that it is over.
    pub(crate) fn finish(&self, outcome: Result<ReplicationResult, Arc<Error>>) {
        let event = match &outcome {
            Ok(result) => ReplicationEvent::Complete(Box::new(result.clone())),
            Err(error) => ReplicationEvent::Error(error.clone()),
        };
        let mut state = lock(&self.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let listeners = std::mem::take(&mut state.listeners);
        drop(state);
        for queue in listeners.iter().filter_map(Weak::upgrade) {
            queue.push(event.clone());
        }
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn outcome(&self) -> Option<Result<ReplicationResult>> {
        let outcome = lock(&self.state).outcome.clone();
        outcome.map(|outcome| outcome.map_err(|error| same_error(&error)))
    }

    /// Waits for the end.
    pub(crate) async fn finished(&self) -> Result<ReplicationResult> {
        loop {
            let listener = self.changed.listen();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            listener.await;
        }
    }

    /// What happens from now on; ends with `Error` or `Complete`.
    pub(crate) fn events(&self) -> BoxStream<'static, ReplicationEvent> {
        let queue = Arc::new(Queue::default());
        let mut state = lock(&self.state);
        match &state.outcome {
            None => state.listeners.push(Arc::downgrade(&queue)),
            Some(Ok(result)) => {
                queue.push(ReplicationEvent::Complete(Box::new(result.clone())));
            }
            Some(Err(error)) => queue.push(ReplicationEvent::Error(error.clone())),
        }
        drop(state);
        let events = stream::unfold(Some(queue), |queue| async {
            let queue = queue?;
            loop {
                let listener = queue.news.listen();
                if let Some(event) = { lock(&queue.events).pop_front() } {
                    let last =
                        matches!(event, ReplicationEvent::Error(_) | ReplicationEvent::Complete(_));
                    return Some((event, (!last).then_some(queue)));
                }
                listener.await;
            }
        });
        events.boxed()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Control")
            .field("orders", &state.orders)
            .field("progress", &state.progress)
            .field("outcome", &state.outcome)
            .finish_non_exhaustive()
    }
}

/// Another error that says the same.
pub(crate) fn same_error(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.reason().to_owned());
    match error.name() == error.kind().name() {
        true => same,
        false => same.with_name(error.name().to_owned()),
    }
}
