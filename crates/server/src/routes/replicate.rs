//! Replication: <https://docs.couchdb.org/en/stable/api/server/common.html#replicate>

use crate::auth::access::ServerAdmin;
use crate::call::Call;
use crate::replication::{Job, Wish};
use crate::reply::{self, Response};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use settee::replicate::ReplicationStatus;
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

/// `POST /_replicate`
pub(super) async fn start(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let wish = Wish::parse(call.object().await?)?;
    let (app, live) = (&call.app, &call.live);
    if let (true, Some(id)) = (wish.cancel, &wish.replication_id) {
        return cancelled(app.jobs.cancel(id));
    }
    let prepared = wish.prepare(app, live).await?;
    if wish.cancel {
        return cancelled(app.jobs.cancel(&prepared.id));
    }
    prepared.open(app, live).await?;
    let job = Job {
        id: prepared.id.clone(),
        source: prepared.source().to_owned(),
        target: prepared.target().to_owned(),
        user: call.user().name.clone(),
        continuous: wish.continuous,
        document: None,
    };
    let started = app.jobs.start(prepared.replication, job, live)?;
    if wish.continuous {
        let reply = json!({"ok": true, "_local_id": started.id});
        return reply::json(StatusCode::ACCEPTED, &reply);
    }
    let result = started.handle.wait().await?;
    match result.status {
        ReplicationStatus::Complete => reply::ok_json(&result.to_couchdb()),
        ReplicationStatus::Cancelled => {
            let reason = "The replication was cancelled.";
            Err(Error::new(ErrorKind::ServiceUnavailable, reason))
        }
    }
}

fn cancelled(id: Option<String>) -> Result<Response> {
    match id {
        Some(id) => reply::ok_json(&json!({"ok": true, "_local_id": id})),
        None => Err(Error::missing()),
    }
}

/// `GET /_scheduler/jobs`
pub(super) async fn jobs(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    listing(&call, "jobs", call.app.jobs.list())
}

/// `GET /_scheduler/jobs/{id}`
pub(super) async fn job(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    // A plus sign in a path is one, but many clients mean it as a space, and some the other way.
    let id = call.param("id").replace(' ', "+");
    let mut jobs = call.app.jobs.list().into_iter();
    let found = jobs.find(|job| job["id"] == id.as_str()).ok_or_else(Error::missing)?;
    reply::ok_json(&found)
}

/// `GET /_scheduler/docs`: replications that documents describe.
pub(super) async fn docs(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    let mut docs = call.app.replicator.list();
    if let Some(states) = call.query.get("states") {
        let states: Vec<&str> = states.split(',').collect();
        docs.retain(|doc| doc["state"].as_str().is_some_and(|state| states.contains(&state)));
    }
    match call.param("path").split_once('/') {
        Some((database, id)) => {
            let this = |doc: &Value| doc["database"] == database && doc["doc_id"] == id;
            reply::ok_json(&docs.into_iter().find(this).ok_or_else(Error::missing)?)
        }
        None => {
            let database = call.param("path");
            docs.retain(|doc| database.is_empty() || doc["database"] == database);
            listing(&call, "docs", docs)
        }
    }
}

/// A part of a list.
fn listing(call: &Call, name: &str, rows: Vec<Value>) -> Result<Response> {
    let number = |name: &str, default: usize| match call.query.get(name) {
        None => Ok(default),
        Some(text) => {
            let wrong = |_| Error::query_parse(format!("`{name}` must be a number"));
            text.parse().map_err(wrong)
        }
    };
    let (skip, limit) = (number("skip", 0)?, number("limit", usize::MAX)?);
    let mut reply = Map::new();
    reply.insert("total_rows".to_owned(), rows.len().into());
    reply.insert("offset".to_owned(), skip.into());
    let rows: Vec<Value> = rows.into_iter().skip(skip).take(limit).collect();
    reply.insert(name.to_owned(), rows.into());
    reply::ok_json(&reply)
}
