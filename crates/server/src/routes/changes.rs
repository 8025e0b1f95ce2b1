//! Changes: <https://docs.couchdb.org/en/stable/api/database/changes.html>

use crate::auth::access::Member;
use crate::call::Call;
use crate::feed::{Feed, Patience, RowWriter, Source};
use crate::functions;
use crate::query::{ChangesQuery, Feed as Format};
use crate::reply::{self, Response};
use crate::routes::server::{etag_of, feed_reply};
use axum::http::{Method, header};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use settee::adapter::{ChangesBatch, ChangesStream};
use settee::design::{ChangesFilter, Functions};
use settee_core::document::WriteJson;
use settee_core::options::{Filter, GetOptions};
use settee_core::selector::Selector;
use settee_core::wire::Seq;
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::task::{Context, Poll};

/// `GET /{db}/_changes`
pub(super) async fn get(member: Member, call: Arc<Call>) -> Result<Response> {
    answer(&member, &call, Map::new()).await
}

/// `POST /{db}/_changes`
pub(super) async fn post(member: Member, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let body = match call.body.length() {
        Some(0) => Map::new(),
        _ => call.object().await?,
    };
    answer(&member, &call, body).await
}

async fn answer(member: &Member, call: &Call, body: Map<String, Value>) -> Result<Response> {
    let mut query = ChangesQuery::parse(&call.query, call.header("last-event-id"))?;
    let mut by_function = None;
    if let Some(name) = &query.filter {
        match filter(member, call, name, &body).await? {
            Which::BuiltIn(filter) => query.options.filter = filter,
            Which::Function(filter) => by_function = Some(filter),
        }
    }
    // A tag for a feed that ends: nothing new in the database, nothing new in the feed.
    let etag = match query.feed {
        Format::Normal => {
            let info = member.db().info().await?;
            Some(etag_of(
                format!("{}/{}/{}", info.instance_start_time, info.update_seq, info.purge_seq)
                    .as_bytes(),
            ))
        }
        _ => None,
    };
    if let Some(etag) = &etag
        && reply::matches_etag(call.header(header::IF_NONE_MATCH), etag)
    {
        return reply::not_modified(etag);
    }
    let patience =
        Patience::of(query.feed, query.heartbeat, query.timeout, call.live.changes_timeout);
    let stream = match &by_function {
        None => member.db().changes(&query.options).await?,
        Some(filter) => {
            let body = (!body.is_empty()).then(|| Value::Object(body).to_string());
            let request = functions::request(call, body).await?;
            let functions = Functions::new(member.db().clone());
            functions.changes(filter, &request, &query.options).await?
        }
    };
    let changes = Changes {
        stream,
        include_docs: query.options.include_docs,
        write: WriteJson {
            att_encoding_info: query.options.doc.att_encoding_info,
            ..WriteJson::default()
        },
        seq_interval: query.seq_interval,
        left: query.options.limit.unwrap_or(NO_LIMIT),
        last: None,
    };
    let reply = feed_reply(Feed::new(&call.app, changes, query.feed, patience), query.feed)?;
    match etag {
        Some(etag) => reply::with(reply, header::ETAG, &etag),
        None => Ok(reply),
    }
}

/// What decides which changes pass.
enum Which {
    BuiltIn(Filter),
    Function(ChangesFilter),
}

/// A filter by its name.
async fn filter(
    member: &Member,
    call: &Call,
    name: &str,
    body: &Map<String, Value>,
) -> Result<Which> {
    let filter = match name {
        "_doc_ids" => {
            let ids = match (body.get("doc_ids"), call.query.get("doc_ids")) {
                (Some(ids), _) => ids.clone(),
                (None, Some(text)) => crate::body::parse_json(text.as_bytes())?,
                (None, None) => Value::Null,
            };
            let ids = serde_json::from_value(ids).map_err(|_| {
                Error::bad_request("`doc_ids` filter parameter is not a list of doc ids.")
            })?;
            Filter::DocIds(Arc::new(ids))
        }
        "_design" => Filter::Design,
        "_selector" if call.method != Method::POST => {
            return Err(Error::bad_request("Selector must be specified in POST payload"));
        }
        "_selector" => match body.get("selector") {
            Some(selector @ Value::Object(_)) => {
                let selector = Selector::parse(selector);
                let selector =
                    selector.map_err(|error| Error::bad_request(error.reason().to_owned()))?;
                Filter::Selector(Arc::new(selector))
            }
            _ => return Err(Error::bad_request("Selector error: expected a JSON object")),
        },
        "_view" => {
            let Some(view) = call.query.get("view").filter(|view| !view.is_empty()) else {
                return Err(Error::bad_request("`view` filter parameter is not provided."));
            };
            let form = "`view` must be of the form `designname/viewname`";
            return function(member, view, "views", form).await;
        }
        _ if name.starts_with('_') => {
            return Err(Error::bad_request("unknown builtin filter name"));
        }
        _ => {
            let form = "`filter` must be of the form `designname/filtername`";
            return function(member, name, "filters", form).await;
        }
    };
    Ok(Which::BuiltIn(filter))
}

/// A filter that is a function of a design document, which is there.
async fn function(member: &Member, name: &str, members: &str, form: &'static str) -> Result<Which> {
    let mut parts = name.split('/').filter(|part| !part.is_empty());
    let (Some(ddoc), Some(function), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::bad_request(form));
    };
    let doc = member.db().get(&format!("_design/{ddoc}"), &GetOptions::default()).await?;
    let missing = |key| Err(Error::new(ErrorKind::NotFound, format!("missing json key: {key}")));
    match doc.get(members) {
        None => return missing(members),
        Some(functions) if functions.get(function).is_none() => return missing(function),
        Some(_) => {}
    }
    let (ddoc, name) = (ddoc.to_owned(), function.to_owned());
    Ok(Which::Function(match members {
        "views" => ChangesFilter::View { ddoc, name },
        _ => ChangesFilter::Function { ddoc, name },
    }))
}

/// How many rows a feed without a limit may have.
const NO_LIMIT: u64 = 10_000_000_000_000_000;

/// An adapter's changes, as rows of a feed.
struct Changes {
    stream: ChangesStream,
    include_docs: bool,
    write: WriteJson,
    seq_interval: u64,
    /// How many rows there may still be. As in CouchDB, where this is a multiple of the interval, a row
    /// has a sequence.
    left: u64,
    last: Option<(Seq, u64)>,
}

impl Source for Changes {
    type Batch = ChangesBatch;

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ChangesBatch>>> {
        self.stream.poll_next_unpin(cx)
    }

    fn write(&mut self, batch: ChangesBatch, rows: &mut RowWriter) -> bool {
        for change in &batch.changes {
            let hide_seq = !self.left.is_multiple_of(self.seq_interval);
            self.left = self.left.saturating_sub(1);
            let json = |out: &mut Vec<u8>| {
                let start = out.len();
                change.write_json(out, self.include_docs, &self.write);
                if hide_seq {
                    let mut seq = Vec::new();
                    change.seq.write_json(&mut seq);
                    let seq_at = start + br#"{"seq":"#.len();
                    out.splice(seq_at..seq_at + seq.len(), *b"null");
                }
            };
            rows.row(json, |out| change.seq.write_json(out));
        }
        let caught_up = batch.pending == 0;
        self.last = Some((batch.last_seq, batch.pending));
        caught_up
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        let (seq, pending) = self.last.clone().unwrap_or((Seq::Number(0), 0));
        out.extend_from_slice(b"\"last_seq\":");
        seq.write_json(out);
        out.extend_from_slice(format!(",\"pending\":{pending}").as_bytes());
    }
}
