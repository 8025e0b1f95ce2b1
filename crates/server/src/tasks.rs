//! What the server is busy with besides requests: what `_active_tasks` lists.

use serde_json::{Value, json};
use settee::adapter::Host;
use settee_core::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Compactions that were started over HTTP and may still be under way.
#[derive(Default)]
pub(crate) struct Tasks {
    /// The database, and when it began, in seconds since 1970.
    compactions: Mutex<BTreeMap<String, u64>>,
}

impl Tasks {
    pub(crate) fn compaction_started(&self, database: &str) {
        self.lock().insert(database.to_owned(), now());
    }

    /// Everything that is under way. Compactions that have ended are forgotten.
    pub(crate) async fn list(&self, host: &dyn Host) -> Result<Vec<Value>> {
        let mut tasks = Vec::new();
        for task in host.active_tasks().await? {
            let mut task = serde_json::to_value(task).map_err(Error::internal)?;
            task["node"] = crate::routes::node::NAME.into();
            tasks.push(task);
        }
        let started: Vec<(String, u64)> =
            self.lock().iter().map(|(name, since)| (name.clone(), *since)).collect();
        for (database, since) in started {
            let info = match host.database(&database) {
                Ok(database) => database.info().await.ok(),
                Err(_) => None,
            };
            if info.is_some_and(|info| info.compact_running) {
                tasks.push(json!({
                    "type": "database_compaction",
                    "node": crate::routes::node::NAME,
                    "pid": format!("<0.0.{since}>"),
                    "database": database,
                    "started_on": since,
                    "updated_on": now(),
                }));
            } else {
                self.lock().remove(&database);
            }
        }
        Ok(tasks)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.compactions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
