//! The server itself: <https://docs.couchdb.org/en/stable/api/server/common.html>

use crate::auth::access::{Anyone, DatabaseList, ServerAdmin};
use crate::call::{COUCHDB_VERSION, Call};
use crate::feed::{Feed, Patience, RowWriter, Source};
use crate::gzip;
use crate::query::{self, Feed as Format, UpdatesQuery};
use crate::reply::{self, Response};
use crate::routes::{database, node};
use axum::http::{HeaderValue, StatusCode, header};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use settee::adapter::{DbUpdate, DbUpdateKind};
use settee_core::json::write_string;
use settee_core::wire::Seq;
use settee_core::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A picture of one transparent point.
const FAVICON: &[u8] = &[
    0, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 32, 0, 48, 0, 0, 0, 22, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0,
    2, 0, 0, 0, 1, 0, 32, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// The databases that a set-up creates.
const SYSTEM_DATABASES: &[&str] = &["_users", "_replicator"];

/// `GET /`
pub(super) async fn welcome(_: Anyone, call: Arc<Call>) -> Result<Response> {
    #[derive(Serialize)]
    struct Welcome {
        couchdb: &'static str,
        version: &'static str,
        git_sha: &'static str,
        uuid: String,
        features: [&'static str; 0],
        vendor: Map<String, Value>,
    }
    let vendor = call.live.section("vendor").map(|(key, value)| (key.to_owned(), value.into()));
    let mut vendor: Map<String, Value> = vendor.collect();
    vendor.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    reply::ok_json(&Welcome {
        couchdb: "Welcome",
        version: COUCHDB_VERSION,
        git_sha: "settee",
        uuid: call.app.host.uuid().await?,
        features: [],
        vendor,
    })
}

/// `GET /favicon.ico`
pub(super) async fn favicon(_: Anyone, _: Arc<Call>) -> Result<Response> {
    let reply = reply::full(StatusCode::OK, "image/x-icon", FAVICON);
    reply::with(reply, header::CACHE_CONTROL, "public, max-age=31536000")
}

/// `GET /_utils`
pub(super) async fn utils(_: Anyone, call: Arc<Call>) -> Result<Response> {
    const PAGE: &str = "<!doctype html><meta charset=\"utf-8\"><title>Settee</title>\n\
        <p>Settee answers. It brings no administration interface; Fauxton can be pointed at it.\n";
    let path = call.parts.uri.path();
    if !path.ends_with('/') && call.param("path").is_empty() {
        return reply::moved(&call.absolute("/_utils/"));
    }
    if !matches!(call.param("path"), "" | "index.html") {
        return Err(Error::missing());
    }
    let reply = reply::full(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let reply = reply::with(reply, header::CONTENT_SECURITY_POLICY, "default-src 'none'")?;
    let reply = reply::with(reply, header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    reply::with(reply, header::CACHE_CONTROL, "private, must-revalidate")
}

/// `GET /_up`
pub(super) async fn up(_: Anyone, call: Arc<Call>) -> Result<Response> {
    match call.live.get("couchdb", "maintenance_mode") {
        Some("true") => reply::json(StatusCode::NOT_FOUND, &json!({"status": "maintenance_mode"})),
        Some("nolb") => reply::json(StatusCode::NOT_FOUND, &json!({"status": "nolb"})),
        _ => reply::ok_json(&json!({"status": "ok", "seeds": {}})),
    }
}

/// `GET /_all_dbs`
pub(super) async fn all_dbs(_: DatabaseList, call: Arc<Call>) -> Result<Response> {
    let names = call.app.host.all_dbs(&query::all_dbs(&call.query)?).await?;
    let body = serde_json::to_vec(&names).map_err(Error::internal)?;
    let etag = etag_of(&body);
    if reply::matches_etag(call.header(header::IF_NONE_MATCH), &etag) {
        return reply::not_modified(&etag);
    }
    reply::with(reply::json_text(StatusCode::OK, body), header::ETAG, &etag)
}

/// Behind a path that goes no further.
pub(super) async fn nothing(_: ServerAdmin, _: Arc<Call>) -> Result<Response> {
    Err(Error::missing())
}

/// `GET /_dbs_info`
pub(super) async fn dbs_info(_: DatabaseList, call: Arc<Call>) -> Result<Response> {
    let names = call.app.host.all_dbs(&query::all_dbs(&call.query)?).await?;
    // A database that is deleted meanwhile is left out.
    infos(call, names, |_| None)
}

/// `POST /_dbs_info`
pub(super) async fn dbs_info_of(_: DatabaseList, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let body = call.object().await?;
    let names = match body.get("keys") {
        None => return Err(Error::bad_request("`keys` member must exist.")),
        Some(Value::Array(names)) => names,
        Some(_) => return Err(Error::bad_request("`keys` member must be an array.")),
    };
    let most = call.live.number("chttpd", "max_db_number_for_dbs_info_req", 100);
    if names.len() as u64 > most {
        return Err(Error::bad_request("too_many_keys"));
    }
    let names = names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect();
    infos(call, names, |name| Some(json!({"key": name, "error": "not_found"})))
}

/// A list of what is known of databases, one by one.
fn infos(
    call: Arc<Call>,
    names: Vec<String>,
    missing: fn(&str) -> Option<Value>,
) -> Result<Response> {
    let entries = stream::iter(names).filter_map(move |name| {
        let call = call.clone();
        async move {
            let entry = match database::full_info(&call, &name).await {
                Ok(info) => json!({"key": name, "info": info}),
                Err(error) if error.status() < 500 => missing(&name)?,
                Err(error) => return Some(Err(error)),
            };
            Some(serde_json::to_vec(&entry).map_err(Error::internal))
        }
    });
    reply::json_stream(reply::joined("[", ",", entries, "]\n"))
}

/// `GET /_uuids`
pub(super) async fn uuids(_: Anyone, call: Arc<Call>) -> Result<Response> {
    let invalid = || Error::bad_request("count must be a positive integer");
    let count: i128 = call.query.get("count").unwrap_or("1").parse().map_err(|_| invalid())?;
    let count = u64::try_from(count).map_err(|_| invalid())?;
    if count > call.live.number("uuids", "max_count", 1000) {
        return Err(Error::bad_request("count parameter too large"));
    }
    let uuids = call.app.host.uuids(usize::try_from(count).unwrap_or(usize::MAX)).await?;
    let body = serde_json::to_vec(&json!({"uuids": uuids})).map_err(Error::internal)?;
    let etag = etag_of(&body);
    let mut reply = reply::with(reply::json_text(StatusCode::OK, body), header::ETAG, &etag)?;
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    let past = HeaderValue::from_static("Mon, 01 Jan 1990 00:00:00 GMT");
    headers.insert(header::EXPIRES, past);
    Ok(reply)
}

/// An entity tag made from a body.
pub(super) fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", crate::auth::password::hex(&Sha256::digest(body)[..16]))
}

/// `GET /_active_tasks`
pub(super) async fn active_tasks(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    let mut tasks = call.app.tasks.list(&*call.app.host).await?;
    tasks.extend(call.app.jobs.tasks());
    reply::ok_json(&tasks)
}

/// `GET /_membership`
pub(super) async fn membership(_: ServerAdmin, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&json!({"all_nodes": [node::NAME], "cluster_nodes": [node::NAME]}))
}

/// `POST /_reload_query_servers`
pub(super) async fn reload_query_servers(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    Ok(reply::ok(StatusCode::OK))
}

/// `GET /_cluster_setup`
pub(super) async fn setup_state(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    let mut enabled = true;
    for name in SYSTEM_DATABASES {
        enabled &= call.app.host.exists(name).await?;
    }
    let state = if enabled { "single_node_enabled" } else { "single_node_disabled" };
    reply::ok_json(&json!({"state": state}))
}

/// `POST /_cluster_setup`: of a cluster of one.
pub(super) async fn setup(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let body = call.object().await?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    match text("action").unwrap_or("missing") {
        "enable_single_node" | "finish_cluster" => {}
        "enable_cluster" | "add_node" | "remove_node" | "receive_cookie" => {
            return Err(Error::bad_request(
                "This server is a single node. Use enable_single_node.",
            ));
        }
        _ => return Err(Error::bad_request("Invalid Action'")),
    }
    if let (Some(name), Some(password)) = (text("username"), text("password")) {
        node::set_admin(&call, name, password, true).await?;
    }
    let listed = body.get("ensure_dbs_exist").and_then(Value::as_array);
    let names: Vec<&str> = match listed {
        Some(names) => names.iter().filter_map(Value::as_str).collect(),
        None => SYSTEM_DATABASES.to_vec(),
    };
    for name in names {
        match database::create_secured(&call.app, &call.live, name).await {
            Err(error) if error.kind() != ErrorKind::FileExists => return Err(error),
            _ => {}
        }
    }
    Ok(reply::ok(StatusCode::CREATED))
}

/// `GET /_db_updates`
pub(super) async fn db_updates(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    let query = UpdatesQuery::parse(&call.query, call.header("last-event-id"))?;
    let patience =
        Patience::of(query.feed, query.heartbeat, query.timeout, call.live.changes_timeout);
    let (host, live) = (&call.app.host, query.feed != Format::Normal);
    let since = match query.since {
        Some(since) => since,
        // What the feed ends with must be where the next one can go on, even if it saw nothing.
        None => {
            let past = host.db_updates(Some(Seq::default()), false).await?;
            past.try_fold(Seq::default(), |_, update| async move { Ok(update.seq) }).await?
        }
    };
    let source = Updates {
        updates: host.db_updates(Some(since.clone()), live).await?.ready_chunks(100),
        last: since,
        rest: query.limit.unwrap_or(u64::MAX),
    };
    feed_reply(Feed::new(&call.app, source, query.feed, patience), query.feed)
}

/// The reply that a feed is the body of.
pub(super) fn feed_reply<S: Source>(feed: Feed<S>, format: Format) -> Result<Response> {
    let media_type =
        if format == Format::EventSource { "text/event-stream" } else { "application/json" };
    let mut reply = reply::streamed(media_type, feed)?;
    if format != Format::Normal {
        reply.extensions_mut().insert(gzip::Live);
    }
    if format == Format::EventSource {
        return reply::with(reply, header::CACHE_CONTROL, "no-cache");
    }
    Ok(reply)
}

/// What happened to databases, as a feed.
struct Updates {
    updates: stream::ReadyChunks<BoxStream<'static, Result<DbUpdate>>>,
    last: Seq,
    rest: u64,
}

impl Source for Updates {
    type Batch = Vec<DbUpdate>;

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<DbUpdate>>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        self.updates.poll_next_unpin(cx).map(|batch| Some(batch?.into_iter().collect()))
    }

    fn write(&mut self, batch: Vec<DbUpdate>, rows: &mut RowWriter) -> bool {
        for update in batch {
            if self.rest == 0 {
                break;
            }
            self.rest -= 1;
            let kind = match update.kind {
                DbUpdateKind::Created => "created",
                DbUpdateKind::Deleted => "deleted",
                DbUpdateKind::Updated => "updated",
            };
            let json = |out: &mut Vec<u8>| {
                out.extend_from_slice(br#"{"db_name":"#);
                write_string(out, &update.db_name);
                out.extend_from_slice(format!(r#","type":"{kind}","seq":"#).as_bytes());
                update.seq.write_json(out);
                out.push(b'}');
            };
            rows.row(json, |out| update.seq.write_json(out));
            self.last = update.seq;
        }
        true
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""last_seq":"#);
        self.last.write_json(out);
    }
}
