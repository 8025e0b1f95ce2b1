//! Replications that documents describe: the database `_replicator`.
//!
//! A document there with a source and a target is a replication for as long as it is there. What
//! becomes of it is written into the document, as CouchDB does, and shown in `_scheduler/docs`. After
//! a restart of the server, everything that had not ended goes on. What fails is tried again, with
//! growing pauses; what can never work is said to have failed, once.
//!
//! ```text
//! changes of `_replicator` -> Replicator::changed -> one task per document -> Jobs
//! ```

use super::jobs::{self, Job};
use super::wish::Wish;
use crate::app::App;
use crate::routes::node;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use settee::adapter::{DbUpdateKind, Host};
use settee::replicate::{Backoff, ReplicationHandle, ReplicationStatus, rfc3339};
use settee_core::options::{ChangesOptions, GetOptions, WriteOptions};
use settee_core::wire::Change;
use settee_core::{Document, Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::AbortHandle;

/// The database whose documents are replications.
pub(crate) const DATABASE: &str = "_replicator";

/// What the members that are written here begin with.
const TOLD: &str = "_replication_";

/// How long to wait for a place among the replications that run, and after a failure of the
/// database itself.
const A_WHILE: Duration = Duration::from_secs(1);

/// How often a document is written again that others write at the same time.
const WRITES: u32 = 20;

/// The replications that documents describe.
#[derive(Default)]
pub(crate) struct Replicator(Mutex<State>);

#[derive(Default)]
struct State {
    docs: BTreeMap<String, Entry>,
    closed: bool,
}

/// One document.
struct Entry {
    /// What it says, without what was written here.
    members: Map<String, Value>,
    phase: Phase,
    /// The replication's id, and its ends without anything secret, once they are known.
    id: Option<String>,
    source: Option<String>,
    target: Option<String>,
    proxies: (Option<String>, Option<String>),
    /// Failures in a row.
    errors: u32,
    /// What there is to say of its end or its last failure.
    info: Value,
    /// In microseconds since 1970.
    started: u64,
    updated: u64,
    handle: Option<ReplicationHandle>,
    task: Option<AbortHandle>,
}

/// What a replication is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Initializing,
    /// It waits for a place among those that run.
    Pending,
    Running,
    /// It has failed, and will be tried again.
    Crashing,
    Completed,
    /// It can never work.
    Failed,
}

impl Phase {
    /// The state's name in `_scheduler/docs`.
    fn name(self) -> &'static str {
        match self {
            Phase::Initializing => "initializing",
            Phase::Pending => "pending",
            Phase::Running => "running",
            Phase::Crashing => "crashing",
            Phase::Completed => "completed",
            Phase::Failed => "failed",
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Phase::Completed | Phase::Failed)
    }
}

impl Entry {
    fn new(members: Map<String, Value>, phase: Phase, info: Value) -> Entry {
        Entry {
            members,
            phase,
            id: None,
            source: None,
            target: None,
            proxies: (None, None),
            errors: 0,
            info,
            started: now(),
            updated: now(),
            handle: None,
            task: None,
        }
    }

    /// Ends what runs for this document.
    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

/// How one attempt ended that did not fail.
enum Ended {
    /// The replication is done.
    Completed(Value),
    /// There is no place for it now.
    Full,
    /// Its filter is another function now.
    Superseded,
    /// It was cancelled, and whoever did that knows what comes next.
    Cancelled,
}

/// Why an attempt failed.
enum Fail {
    /// Another attempt would fail the same way.
    ForGood(Error),
    ForNow(Error),
}

impl Replicator {
    /// Ends everything, for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.docs.values().for_each(Entry::stop);
    }

    /// What `_scheduler/docs` has.
    pub(crate) fn list(&self) -> Vec<Value> {
        let state = self.lock();
        let entry = |(id, entry): (&String, &Entry)| {
            let info = match (&entry.handle, entry.phase) {
                (Some(handle), Phase::Running) => Value::Object(jobs::info(handle)),
                _ => entry.info.clone(),
            };
            json!({
                "database": DATABASE,
                "doc_id": id,
                "id": entry.id,
                "node": node::NAME,
                "source": entry.source,
                "source_proxy": entry.proxies.0,
                "target": entry.target,
                "target_proxy": entry.proxies.1,
                "state": entry.phase.name(),
                "info": info,
                "error_count": entry.errors,
                "start_time": rfc3339(entry.started),
                "last_updated": rfc3339(entry.updated),
            })
        };
        state.docs.iter().map(entry).collect()
    }

    /// Follows the database until the server is to stop, or nobody has it any more.
    pub(crate) fn run(app: &Arc<App>) -> impl Future<Output = ()> + Send + 'static {
        let closing = app.closing();
        let (host, app) = (app.host.clone(), Arc::downgrade(app));
        let follow = async move {
            loop {
                if let Err(error) = Replicator::follow(&*host, &app).await {
                    tracing::warn!(%error, "{DATABASE} cannot be followed");
                }
                let Some(app) = app.upgrade() else { return };
                // The database is gone, and with it what it described.
                app.replicator.clear();
                drop(app);
                tokio::time::sleep(A_WHILE).await;
            }
        };
        async move {
            tokio::select! {
                () = closing => {}
                () = follow => {}
            }
        }
    }

    /// Waits for the database, and follows it while it is there.
    async fn follow(host: &dyn Host, app: &Weak<App>) -> Result<()> {
        // First listen, then look: so nothing happens in between.
        let mut updates = host.db_updates(None, true).await?;
        while !host.exists(DATABASE).await? {
            loop {
                match updates.next().await.transpose()? {
                    None => return Ok(()),
                    Some(update) if update.db_name == DATABASE => break,
                    Some(_) => {}
                }
            }
        }
        let options = ChangesOptions { include_docs: true, live: true, ..Default::default() };
        let mut feed = host.database(DATABASE)?.changes(&options).await?;
        loop {
            tokio::select! {
                batch = feed.next() => match batch.transpose()? {
                    None => return Ok(()),
                    Some(batch) => {
                        let Some(app) = app.upgrade() else { return Ok(()) };
                        for change in batch.changes {
                            app.replicator.changed(&app, change);
                        }
                    }
                },
                update = updates.next() => match update.transpose()? {
                    Some(update) if update.db_name != DATABASE => {}
                    Some(update) if update.kind != DbUpdateKind::Deleted => {}
                    _ => return Ok(()),
                },
            }
        }
    }

    fn clear(&self) {
        let mut state = self.lock();
        state.docs.values().for_each(Entry::stop);
        state.docs.clear();
    }

    /// A document has changed.
    fn changed(&self, app: &Arc<App>, change: Change) {
        let Change { id, deleted, doc, .. } = change;
        if id.starts_with("_design/") {
            return;
        }
        let mut state = self.lock();
        let doc = doc.filter(|_| !deleted && !state.closed);
        let Some(doc) = doc else {
            if let Some(entry) = state.docs.remove(&id) {
                entry.stop();
            }
            return;
        };
        let (told, members) = split(&doc);
        let said = told.get("_replication_state").and_then(Value::as_str);
        if let Some(known) = state.docs.get(&id)
            && known.members == members
            // Whoever takes the state away wants it to begin again.
            && !(known.phase.has_ended() && said.is_none())
        {
            return;
        }
        if let Some(old) = state.docs.remove(&id) {
            old.stop();
        }
        let entry = match said {
            Some("completed") => {
                let stats = told.get("_replication_stats").cloned().unwrap_or_default();
                Entry::new(members, Phase::Completed, stats)
            }
            Some("failed") => {
                let reason = told.get("_replication_state_reason");
                Entry::new(members, Phase::Failed, json!({"error": reason}))
            }
            _ => {
                let mut entry = Entry::new(members.clone(), Phase::Initializing, Value::Null);
                let task = Task { app: Arc::downgrade(app), id: id.clone(), members };
                entry.task = Some(tokio::spawn(task.run()).abort_handle());
                entry
            }
        };
        state.docs.insert(id, entry);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a document says, after what was written here.
fn split(doc: &Document) -> (Map<String, Value>, Map<String, Value>) {
    match doc.body.to_value() {
        Value::Object(members) => members.into_iter().partition(|(name, _)| name.starts_with(TOLD)),
        _ => (Map::new(), Map::new()),
    }
}

/// Sees to one document's replication.
struct Task {
    /// Whose end is the end of this.
    app: Weak<App>,
    id: String,
    members: Map<String, Value>,
}

impl Task {
    async fn run(self) {
        let mut errors = 0;
        loop {
            let wait = match self.attempt().await {
                Ok(Ended::Cancelled) => return,
                Ok(Ended::Completed(stats)) => {
                    self.note(Phase::Completed, |entry| entry.info = stats.clone());
                    return self.tell("completed", None, Some(stats)).await;
                }
                Ok(Ended::Superseded) => continue,
                Ok(Ended::Full) => {
                    self.note(Phase::Pending, |_| {});
                    A_WHILE
                }
                Err(Fail::ForGood(error)) => {
                    tracing::warn!(%error, doc = self.id, "a replication can never work");
                    let reason = error.reason().to_owned();
                    self.note(Phase::Failed, |entry| entry.info = json!({"error": reason}));
                    return self.tell("failed", Some(reason), None).await;
                }
                Err(Fail::ForNow(error)) => {
                    errors = if self.has_run() { 1 } else { errors + 1 };
                    let reason = format!("{}: {}", error.name(), error.reason());
                    self.note(Phase::Crashing, |entry| {
                        entry.errors = errors;
                        entry.info = json!({"error": reason});
                    });
                    self.tell("error", Some(reason), None).await;
                    let Some(app) = self.app.upgrade() else { return };
                    let live = app.config.live();
                    let first = live.millis("replicator", "retry_wait", 5_000);
                    let longest = live.millis("replicator", "retry_max_wait", 3_600_000);
                    Backoff { first, longest }.wait(errors - 1)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self) -> Result<Ended, Fail> {
        let Some(app) = self.app.upgrade() else { return Ok(Ended::Cancelled) };
        let live = app.config.live();
        let wish = Wish::parse(self.members.clone()).map_err(Fail::ForGood)?;
        let prepared = wish.prepare(&app, &live).await.map_err(for_good)?;
        let id = prepared.id.clone();
        let (source, target) = (prepared.source().to_owned(), prepared.target().to_owned());
        self.note(Phase::Initializing, |entry| {
            entry.id = Some(id.clone());
            entry.source = Some(source.clone());
            entry.target = Some(target.clone());
            entry.proxies = prepared.proxies();
        });
        prepared.open(&app, &live).await.map_err(for_good)?;
        // Whether and when it is tried again is decided here, where it is seen.
        let replication = prepared.replication.retry(false);
        let job = Job {
            id,
            source,
            target,
            user: None,
            continuous: wish.continuous,
            document: Some((DATABASE.to_owned(), self.id.clone())),
        };
        let started = match app.jobs.start(replication, job, &live) {
            Ok(started) => started,
            Err(error) if error.kind() == ErrorKind::ServiceUnavailable => return Ok(Ended::Full),
            Err(error) => return Err(Fail::ForNow(error)),
        };
        drop((app, live));
        match started.before {
            None => {}
            // What ran for this document before it was changed has not quite ended.
            Some(Some((_, doc))) if doc == self.id => {
                started.handle.cancel();
                // However that one ended.
                let _ = started.handle.wait().await;
                return Ok(Ended::Full);
            }
            Some(Some((_, doc))) => {
                let reason = format!(
                    "Replication `{}` specified by document `{}` already started, triggered by \
                     document `{doc}` from db `{DATABASE}`",
                    started.id, self.id
                );
                return Err(Fail::ForGood(Error::new(ErrorKind::Conflict, reason)));
            }
            Some(None) => {
                let reason = "A request has started the same replication.";
                return Err(Fail::ForNow(Error::new(ErrorKind::Conflict, reason)));
            }
        }
        self.note(Phase::Running, |entry| entry.handle = Some(started.handle.clone()));
        self.tell("triggered", None, None).await;
        let outcome = tokio::select! {
            outcome = started.handle.wait() => outcome,
            () = self.function_changes(&wish, &started.id) => {
                started.handle.cancel();
                // However that one ended.
                let _ = started.handle.wait().await;
                return Ok(Ended::Superseded);
            }
        };
        let mut stats = jobs::info(&started.handle);
        let result = outcome.map_err(Fail::ForNow)?;
        match result.status {
            ReplicationStatus::Cancelled => Ok(Ended::Cancelled),
            ReplicationStatus::Complete => {
                stats.insert("start_time".to_owned(), rfc3339(result.start_time).into());
                Ok(Ended::Completed(Value::Object(stats)))
            }
        }
    }

    /// Waits until the function that filters is another one, and this another replication.
    async fn function_changes(&self, wish: &Wish, id: &str) {
        while wish.has_function() {
            let Some(app) = self.app.upgrade() else { break };
            let live = app.config.live();
            drop(app);
            tokio::time::sleep(live.millis("replicator", "filter_interval", 60_000)).await;
            let Some(app) = self.app.upgrade() else { break };
            // What cannot be read now may be the same as before.
            if wish.prepare(&app, &live).await.is_ok_and(|prepared| prepared.id != id) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Whether the last attempt got anything across.
    fn has_run(&self) -> bool {
        let Some(app) = self.app.upgrade() else { return false };
        let state = app.replicator.lock();
        let handle = state.docs.get(&self.id).and_then(|entry| entry.handle.as_ref());
        handle.is_some_and(|handle| handle.progress().counters.docs_written > 0)
    }

    fn note(&self, phase: Phase, change: impl FnOnce(&mut Entry)) {
        let Some(app) = self.app.upgrade() else { return };
        let mut state = app.replicator.lock();
        if let Some(entry) = state.docs.get_mut(&self.id) {
            entry.phase = phase;
            entry.updated = now();
            if phase != Phase::Running {
                entry.handle = None;
            }
            change(entry);
        }
    }

    /// Writes into the document what has become of it.
    async fn tell(&self, state: &'static str, reason: Option<String>, stats: Option<Value>) {
        let has_ended = matches!(state, "completed" | "failed");
        let Some(app) = self.app.upgrade() else { return };
        let update = app.config.live().get("replicator", "update_docs") != Some("false");
        if !update && !has_ended {
            return;
        }
        let id = app.replicator.lock().docs.get(&self.id).and_then(|entry| entry.id.clone());
        let told = [
            ("_replication_state", Some(Value::from(state))),
            ("_replication_state_reason", reason.map(Value::from)),
            ("_replication_stats", stats),
            ("_replication_id", id.map(Value::from)),
        ];
        for attempt in 1..=WRITES {
            match self.write(&*app.host, &told).await {
                Ok(()) => return,
                Err(error) if error.is_conflict() => {
                    tokio::time::sleep(Duration::from_millis(10) * attempt).await;
                }
                Err(error) => {
                    tracing::warn!(%error, doc = self.id, "a document cannot be told its state");
                    return;
                }
            }
        }
    }

    async fn write(&self, host: &dyn Host, told: &[(&str, Option<Value>)]) -> Result<()> {
        let db = host.database(DATABASE)?;
        let mut doc = match db.get(&self.id, &GetOptions::default()).await {
            Ok(doc) => doc,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        // Somebody has changed what it says: then this speaks of something else.
        let (old, members) = split(&doc);
        if members != self.members {
            return Ok(());
        }
        if told.iter().all(|(name, value)| old.get(*name) == value.as_ref()) {
            return Ok(());
        }
        for (name, value) in told {
            match value {
                Some(value) => doc.set(name, value)?,
                None => {
                    doc.remove(name);
                }
            }
        }
        if old.get("_replication_state") != told[0].1.as_ref() {
            doc.set("_replication_state_time", rfc3339(now()))?;
        }
        db.put(doc, None, &WriteOptions::default()).await.map(drop)
    }
}

/// Whether what failed before anything was copied would fail the same way again.
fn for_good(error: Error) -> Fail {
    match error.kind() {
        ErrorKind::BadRequest
        | ErrorKind::Forbidden
        | ErrorKind::IllegalDatabaseName
        | ErrorKind::DatabaseNameTooLong
        | ErrorKind::QueryParse
        | ErrorKind::NotImplemented => Fail::ForGood(error),
        _ => Fail::ForNow(error),
    }
}

/// Checks a document on its way into the database.
///
/// # Errors
///
/// `Forbidden` if it describes no replication.
pub(crate) fn before_write(doc: &Document) -> Result<()> {
    let id = doc.id.as_deref().unwrap_or_default();
    if doc.deleted || id.starts_with("_design/") || id.starts_with("_local/") {
        return Ok(());
    }
    let (told, members) = split(doc);
    if told.get("_replication_state").and_then(Value::as_str) == Some("failed") {
        return Ok(());
    }
    let wish = Wish::parse(members).and_then(|wish| wish.check());
    wish.map_err(|error| Error::new(ErrorKind::Forbidden, error.reason().to_owned()))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
