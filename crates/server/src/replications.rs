//! Replications that the server runs: what `_replicate` starts, and `_scheduler/jobs` and
//! `_active_tasks` list. They end with the server.

use crate::routes::node;
use serde_json::{Map, Value, json};
use settee::replicate::{Replication, ReplicationHandle, ReplicationResult, rfc3339};
use settee_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// How long the server waits at its end for replications' last checkpoints.
const GRACE: Duration = Duration::from_secs(5);

/// What the id of a replication without end has behind it.
const CONTINUOUS: &str = "+continuous";

/// A replication as its lists show it. Nothing in it is secret.
pub(crate) struct Job {
    /// Where from: a name, or a URL without credentials.
    pub(crate) source: String,
    /// Where to.
    pub(crate) target: String,
    /// Who started it.
    pub(crate) user: Option<String>,
    /// Whether it goes on until it is cancelled.
    pub(crate) continuous: bool,
}

struct Running {
    job: Job,
    id: String,
    /// In microseconds since 1970.
    started: u64,
    handle: ReplicationHandle,
}

/// The replications that are under way.
#[derive(Default)]
pub(crate) struct Replications(Mutex<State>);

#[derive(Default)]
struct State {
    running: BTreeMap<u64, Running>,
    next: u64,
    closed: bool,
}

/// What starting came to.
pub(crate) enum Started {
    /// It runs, and ends with this.
    Once(JoinHandle<Result<ReplicationResult>>),
    /// It runs until it is cancelled, under this id. It may have been running before.
    Continuous(String),
}

impl Replications {
    /// Starts a replication. One without end that runs already is not started again.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` if there are too many.
    pub(crate) fn start(
        self: &Arc<Self>,
        replication: Replication,
        job: Job,
        max: u64,
    ) -> Result<Started> {
        let continuous = job.continuous;
        let id = format!("{}{}", replication.id(), if continuous { CONTINUOUS } else { "" });
        let mut state = self.lock();
        let known = |running: &Running| running.job.continuous && running.id == id;
        if continuous && state.running.values().any(known) {
            return Ok(Started::Continuous(id));
        }
        if state.closed || state.running.len() as u64 >= max {
            let reason = "There are too many replications under way.";
            return Err(Error::new(ErrorKind::ServiceUnavailable, reason));
        }
        let (handle, task) = replication.into_task();
        let number = state.next;
        state.next += 1;
        let running = Running { job, id: id.clone(), started: now(), handle };
        state.running.insert(number, running);
        drop(state);
        let entry = Entry { replications: self.clone(), number };
        let ended = tokio::spawn(async move {
            let _entry = entry;
            let outcome = task.await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a replication has failed");
            }
            outcome
        });
        Ok(match continuous {
            true => Started::Continuous(id),
            false => Started::Once(ended),
        })
    }

    /// Cancels every replication with this id. Returns its id in full, if there is one.
    pub(crate) fn cancel(&self, id: &str) -> Option<String> {
        let base = |id: &str| id.split('+').next().unwrap_or_default().to_owned();
        let state = self.lock();
        let mut found = None;
        for running in state.running.values().filter(|running| base(&running.id) == base(id)) {
            running.handle.cancel();
            found = Some(running.id.clone());
        }
        found
    }

    /// Cancels all, and starts no more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for running in state.running.values() {
            running.handle.cancel();
        }
    }

    /// Waits, but not for long, until all have ended.
    pub(crate) async fn ended(&self) {
        let handles: Vec<_> =
            self.lock().running.values().map(|running| running.handle.clone()).collect();
        let all = async {
            for handle in handles {
                // How it ended has been logged.
                let _ = handle.wait().await;
            }
        };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("some replications ended without a last checkpoint");
        }
    }

    /// What `_active_tasks` has.
    pub(crate) fn tasks(&self) -> Vec<Value> {
        let state = self.lock();
        let task = |(number, running): (&u64, &Running)| {
            let mut task = running.info();
            task.extend(running.names(*number));
            task.insert("type".to_owned(), "replication".into());
            task.insert("replication_id".to_owned(), running.id.as_str().into());
            task.insert("continuous".to_owned(), running.job.continuous.into());
            task.insert("started_on".to_owned(), (running.started / 1_000_000).into());
            task.insert("updated_on".to_owned(), (now() / 1_000_000).into());
            Value::Object(task)
        };
        state.running.iter().map(task).collect()
    }

    /// What `_scheduler/jobs` has.
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let state = self.lock();
        let continuous = state.running.iter().filter(|(_, running)| running.job.continuous);
        let job = |(number, running): (&u64, &Running)| {
            let started = rfc3339(running.started);
            let mut job = running.names(*number);
            job.insert("id".to_owned(), running.id.as_str().into());
            job.insert("start_time".to_owned(), started.as_str().into());
            let history =
                ["started", "added"].map(|what| json!({"timestamp": started, "type": what}));
            job.insert("history".to_owned(), history.to_vec().into());
            job.insert("info".to_owned(), running.info().into());
            Value::Object(job)
        };
        continuous.map(job).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// What it is.
    fn names(&self, number: u64) -> Map<String, Value> {
        let Job { source, target, user, .. } = &self.job;
        Map::from_iter(
            [
                ("node", node::NAME.into()),
                ("pid", format!("<0.{number}.0>").into()),
                ("database", Value::Null),
                ("doc_id", Value::Null),
                ("user", json!(user)),
                ("source", source.as_str().into()),
                ("target", target.as_str().into()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    /// How far it is.
    fn info(&self) -> Map<String, Value> {
        let progress = self.handle.progress();
        let counters = progress.counters;
        Map::from_iter(
            [
                ("checkpointed_source_seq", json!(progress.checkpointed_seq)),
                ("source_seq", json!(progress.source_seq)),
                ("through_seq", json!(progress.last_seq)),
                ("changes_pending", json!(progress.pending)),
                ("docs_read", counters.docs_read.into()),
                ("docs_written", counters.docs_written.into()),
                ("doc_write_failures", counters.doc_write_failures.into()),
                ("missing_revisions_found", counters.missing_found.into()),
                ("revisions_checked", counters.missing_checked.into()),
                ("bulk_get_attempts", counters.bulk_get_attempts.into()),
                ("bulk_get_docs", counters.bulk_get_docs.into()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }
}

/// A running replication's place in the list, which it leaves however it ends.
struct Entry {
    replications: Arc<Replications>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.replications.lock().running.remove(&self.number);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
