//! This node: <https://docs.couchdb.org/en/stable/api/server/configuration.html> and
//! <https://docs.couchdb.org/en/stable/api/server/common.html#node-node-name-stats>
//!
//! There is one node. The same functions answer the paths that 1.x had, without `/_node/{node}`.

use crate::auth::access::{Metrics, ServerAdmin};
use crate::call::Call;
use crate::config::{Live, check_change};
use crate::reply::{self, Response};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

/// This node's name: what CouchDB calls a node that is part of no cluster.
pub(crate) const NAME: &str = "nonode@nohost";

/// Refuses other nodes' names.
fn check_node(call: &Call) -> Result<()> {
    match call.param("node") {
        "" | "_local" | NAME => Ok(()),
        other => {
            Err(Error::new(ErrorKind::NotFound, format!("no such node: {}", other.escape_debug())))
        }
    }
}

/// `GET /_node`
pub(super) async fn incomplete(_: ServerAdmin, _: Arc<Call>) -> Result<Response> {
    Err(Error::bad_request("Incomplete path to _node request"))
}

/// `GET /_node/{node}`
pub(super) async fn name(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    reply::ok_json(&json!({"name": NAME}))
}

/// `GET /_node/{node}/_config`
pub(super) async fn config(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let sections = call
        .live
        .values
        .keys()
        .map(|section| (section.clone(), Value::Object(shown_section(&call.live, section))));
    reply::ok_json(&sections.collect::<Map<_, _>>())
}

/// `GET /_node/{node}/_config/{section}`
pub(super) async fn section(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    reply::ok_json(&shown_section(&call.live, call.param("section")))
}

fn shown_section(live: &Live, section: &str) -> Map<String, Value> {
    let shown =
        |(key, _): (&str, &str)| Some((key.to_owned(), Value::String(live.shown(section, key)?)));
    live.section(section).filter_map(shown).collect()
}

/// `GET /_node/{node}/_config/{section}/{key}`
pub(super) async fn value(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let value = call.live.shown(call.param("section"), call.param("key"));
    reply::ok_json(&value.ok_or_else(unknown)?)
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "unknown_config_value")
}

/// `PUT /_node/{node}/_config/{section}/{key}`
pub(super) async fn set(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let (section, key) = (call.param("section"), call.param("key"));
    check_change(section, key, None)?;
    let Value::String(value) = call.json().await? else {
        return Err(Error::bad_request("a JSON string expected"));
    };
    let value = value.trim();
    let old = call.live.shown(section, key).unwrap_or_default();
    if section == "admins" {
        set_admin(&call, key, value, persist(&call)).await?;
    } else {
        check_change(section, key, Some(value))?;
        call.app.config.set(section, key, value, persist(&call))?;
    }
    reply::ok_json(&old)
}

/// Sets a server admin's password, which is hashed before it goes anywhere.
pub(super) async fn set_admin(
    call: &Arc<Call>,
    name: &str,
    password: &str,
    persist: bool,
) -> Result<()> {
    check_change("admins", name, Some(password))?;
    let (worker, password) = (call.clone(), password.to_owned());
    let hash =
        tokio::task::spawn_blocking(move || {
            match crate::auth::password::PasswordHash::parse(&password) {
                Some(hash) => hash,
                None => worker.live.hash(&password),
            }
        });
    let hash = hash.await.map_err(Error::internal)?;
    call.app.config.set("admins", name, &hash.to_string(), persist)?;
    Ok(())
}

/// `DELETE /_node/{node}/_config/{section}/{key}`
pub(super) async fn unset(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let (section, key) = (call.param("section"), call.param("key"));
    check_change(section, key, None)?;
    let old = call.live.shown(section, key).ok_or_else(unknown)?;
    if section == "admins" && call.app.config.live().admins.len() == 1 {
        // Without one, nobody could ever administer this server again.
        return Err(Error::new(ErrorKind::Forbidden, "The last server admin cannot be removed."));
    }
    call.app.config.remove(section, key, persist(&call))?;
    reply::ok_json(&old)
}

/// Whether a change is to outlive the process.
fn persist(call: &Call) -> bool {
    call.header("x-couch-persist") != Some("false")
}

/// `POST /_node/{node}/_config/_reload`
pub(super) async fn reload(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    call.app.config.reload()?;
    Ok(reply::ok(StatusCode::OK))
}

/// `POST /_node/{node}/_restart`: what a restart is asked for, without one. The configuration is
/// read again and nobody stays logged in by memory.
pub(super) async fn restart(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    call.app.config.reload()?;
    call.app.auth.forget();
    Ok(reply::ok(StatusCode::OK))
}

/// `GET /_node/{node}/_stats`
pub(super) async fn stats(_: Metrics, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let stats = call.app.stats.to_json();
    let mut path = call.param("path").split('/').filter(|name| !name.is_empty());
    let found = path.try_fold(&stats, |stats, name| stats.get(name));
    reply::ok_json(found.ok_or_else(Error::missing)?)
}

/// `GET /_node/{node}/_prometheus`
pub(super) async fn prometheus(_: Metrics, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    let text = call.app.stats.to_prometheus(call.app.started.elapsed().as_secs());
    Ok(reply::full(StatusCode::OK, "text/plain; version=0.0.4", text))
}

/// `GET /_node/{node}/_system`
pub(super) async fn system(_: Metrics, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    reply::ok_json(&json!({
        "uptime": call.app.started.elapsed().as_secs(),
        "memory": {"other": 0, "processes": resident_memory()},
        "run_queue": 0,
        "run_queue_dirty_cpu": 0,
        "process_count": 1,
        "process_limit": 1,
        "os_proc_count": 0,
        "stale_proc_count": 0,
        "message_queues": {},
        "internal_replication_jobs": 0,
        "distribution": {},
    }))
}

/// The memory that this process holds, in bytes; 0 where the system does not say.
fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// `GET /_node/{node}/_versions`
pub(super) async fn versions(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    reply::ok_json(&json!({
        "settee": {"version": env!("CARGO_PKG_VERSION")},
        "collation_driver": {"name": "icu4x", "collation_algorithm_version": "root"},
        "javascript_engine": {"name": "quickjs"},
    }))
}

/// `GET /_node/{node}/_smoosh/status`
pub(super) async fn smoosh(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    check_node(&call)?;
    reply::ok_json(&json!({"channels": {}}))
}
