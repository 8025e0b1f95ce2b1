//! Replications that the server runs, whoever wants them: what `_scheduler/jobs` and `_active_tasks`
//! list. They end with the server.

use crate::config::Live;
use crate::routes::node;
use serde_json::{Map, Value, json};
use settee::replicate::{Replication, ReplicationHandle, rfc3339};
use settee_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the server waits at its end for replications' last checkpoints.
const GRACE: Duration = Duration::from_secs(5);

/// A replication as its lists show it. Nothing in it is secret.
pub(crate) struct Job {
    /// The replication's id, with what CouchDB has behind it.
    pub(crate) id: String,
    /// Where from: a name, or a URL without credentials.
    pub(crate) source: String,
    /// Where to.
    pub(crate) target: String,
    /// Who started it.
    pub(crate) user: Option<String>,
    /// Whether it goes on until it is cancelled.
    pub(crate) continuous: bool,
    /// The document that describes it: its database, and its id.
    pub(crate) document: Option<(String, String)>,
}

struct Running {
    job: Job,
    /// In microseconds since 1970.
    started: u64,
    handle: ReplicationHandle,
}

/// The replications that are under way.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<State>);

#[derive(Default)]
struct State {
    running: BTreeMap<u64, Running>,
    next: u64,
    closed: bool,
}

/// A replication that was started.
pub(crate) struct Started {
    /// Its id, with what CouchDB has behind it.
    pub(crate) id: String,
    pub(crate) handle: ReplicationHandle,
    /// The document that has had it running before, or `None` within if it was a request. The
    /// handle is then that one's.
    pub(crate) before: Option<Option<(String, String)>>,
}

impl Jobs {
    /// Starts a replication. One without end that runs already is not started again, nor is any that
    /// a document describes.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` if there are too many.
    pub(crate) fn start(
        self: &Arc<Self>,
        replication: Replication,
        job: Job,
        live: &Live,
    ) -> Result<Started> {
        let id = job.id.clone();
        let mut state = self.lock();
        let unique = job.continuous || job.document.is_some();
        let known = state
            .running
            .values()
            .find(|running| unique && running.job.id == id && running.handle.result().is_none());
        if let Some(known) = known {
            let before = Some(known.job.document.clone());
            return Ok(Started { id, handle: known.handle.clone(), before });
        }
        let max = live.number("replicator", "max_jobs", 500);
        if state.closed || state.running.len() as u64 >= max {
            let reason = "There are too many replications under way.";
            return Err(Error::new(ErrorKind::ServiceUnavailable, reason));
        }
        let (handle, task) = replication.into_task();
        let number = state.next;
        state.next += 1;
        let running = Running { job, started: now(), handle: handle.clone() };
        state.running.insert(number, running);
        drop(state);
        let entry = Entry { jobs: self.clone(), number };
        tokio::spawn(async move {
            let _entry = entry;
            if let Err(error) = task.await {
                tracing::warn!(%error, "a replication has failed");
            }
        });
        Ok(Started { id, handle, before: None })
    }

    /// Cancels every replication with this id that requests have started. Returns its id in full, if there is one.
    pub(crate) fn cancel(&self, id: &str) -> Option<String> {
        let base = |id: &str| id.split('+').next().unwrap_or_default().to_owned();
        let state = self.lock();
        let mut found = None;
        // What a document wants ends with the document.
        let requests = state.running.values().filter(|running| running.job.document.is_none());
        for running in requests.filter(|running| base(&running.job.id) == base(id)) {
            running.handle.cancel();
            found = Some(running.job.id.clone());
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
            let mut task = info(&running.handle);
            task.extend(running.names(*number));
            task.insert("type".to_owned(), "replication".into());
            task.insert("replication_id".to_owned(), running.job.id.as_str().into());
            task.insert("continuous".to_owned(), running.job.continuous.into());
            task.insert("started_on".to_owned(), (running.started / 1_000_000).into());
            task.insert("updated_on".to_owned(), (now() / 1_000_000).into());
            Value::Object(task)
        };
        state.running.iter().map(task).collect()
    }

    /// What `_scheduler/jobs` has.
    pub(crate) fn list(&self) -> Vec<Value> {
        let state = self.lock();
        let listed = state
            .running
            .iter()
            .filter(|(_, running)| running.job.continuous || running.job.document.is_some());
        let job = |(number, running): (&u64, &Running)| {
            let started = rfc3339(running.started);
            let mut job = running.names(*number);
            job.insert("id".to_owned(), running.job.id.as_str().into());
            job.insert("start_time".to_owned(), started.as_str().into());
            let history =
                ["started", "added"].map(|what| json!({"timestamp": started, "type": what}));
            job.insert("history".to_owned(), history.to_vec().into());
            job.insert("info".to_owned(), info(&running.handle).into());
            Value::Object(job)
        };
        listed.map(job).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// What it is.
    fn names(&self, number: u64) -> Map<String, Value> {
        let Job { source, target, user, document, .. } = &self.job;
        let (database, doc_id) = document.clone().unzip();
        Map::from_iter(
            [
                ("node", node::NAME.into()),
                ("pid", format!("<0.{number}.0>").into()),
                ("database", json!(database)),
                ("doc_id", json!(doc_id)),
                ("user", json!(user)),
                ("source", source.as_str().into()),
                ("target", target.as_str().into()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }
}

/// How far a replication is.
pub(crate) fn info(handle: &ReplicationHandle) -> Map<String, Value> {
    let progress = handle.progress();
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

/// A running replication's place in the list, which it leaves however it ends.
struct Entry {
    jobs: Arc<Jobs>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.jobs.lock().running.remove(&self.number);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
