//! What is going on in the background: what `_active_tasks` lists.

use crate::env;
use settee_core::wire::ActiveTask;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The tasks that are under way.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    running: Arc<Mutex<BTreeMap<u64, Arc<Running>>>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Running {
    kind: &'static str,
    database: String,
    design_document: Option<String>,
    started_on: u64,
    updated_on: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
}

/// A task that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Task {
    number: u64,
    task: Arc<Running>,
    running: Arc<Mutex<BTreeMap<u64, Arc<Running>>>>,
}

fn now() -> u64 {
    env::now_micros() / 1_000_000
}

impl Tasks {
    /// Lists a task from now on.
    pub(crate) fn begin(
        &self,
        kind: &'static str,
        database: &str,
        design_document: Option<&str>,
    ) -> Task {
        let task = Arc::new(Running {
            kind,
            database: database.to_owned(),
            design_document: design_document.map(|name| format!("_design/{name}")),
            started_on: now(),
            updated_on: AtomicU64::new(now()),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(number, task.clone());
        Task { number, task, running: self.running.clone() }
    }

    /// The tasks, the oldest first.
    pub(crate) fn list(&self) -> Vec<ActiveTask> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = running.iter().map(|(number, task)| {
            let done = task.done.load(Ordering::Relaxed);
            let total = task.total.load(Ordering::Relaxed).max(done);
            let mut other = serde_json::Map::new();
            other.insert("pid".to_owned(), format!("<0.{number}.0>").into());
            ActiveTask {
                kind: task.kind.to_owned(),
                database: Some(task.database.clone()),
                design_document: task.design_document.clone(),
                changes_done: done,
                total_changes: total,
                progress: (done * 100).checked_div(total).unwrap_or(0),
                started_on: task.started_on,
                updated_on: task.updated_on.load(Ordering::Relaxed),
                other,
            }
        });
        tasks.collect()
    }
}

impl Task {
    /// Says how far it is.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        self.task.done.store(done, Ordering::Relaxed);
        self.task.total.store(total, Ordering::Relaxed);
        self.task.updated_on.store(now(), Ordering::Relaxed);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.number);
    }
}
