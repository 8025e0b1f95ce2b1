//! Many documents at once: <https://docs.couchdb.org/en/stable/api/database/bulk-api.html>

use crate::auth::access::Member;
use crate::call::Call;
use crate::multipart::new_boundary;
use crate::query::{AllDocsQuery, DocQuery};
use crate::related;
use crate::reply::{self, Response};
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use futures_core::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value};
use settee::adapter::{Adapter, Rows};
use settee_core::document::WriteJson;
use settee_core::json::{BulkDocs, write_string};
use settee_core::options::{
    AllDocsOptions, BulkGetItem, DocSet, Durability, GetOptions, WriteOptions,
};
use settee_core::parameters::Param;
use settee_core::wire::{BadItem, DocError, RevResult, WriteResult, parse_bulk_get};
use settee_core::{Error, Result, Rev};
use std::collections::VecDeque;
use std::sync::Arc;

/// `POST /{db}/_bulk_docs`
pub(super) async fn write(member: Member, call: Arc<Call>) -> Result<Response> {
    call.app.stats.bulk_request();
    call.require_json()?;
    let bulk = BulkDocs::parse(&call.bytes().await?, &call.limits())?;
    let deferred = call.header("x-couch-full-commit") == Some("false");
    let options = WriteOptions {
        new_edits: bulk.new_edits,
        durability: if deferred { Durability::Deferred } else { Durability::Flush },
    };
    let results = member.bulk_docs(bulk.docs, &options).await?;
    // As revisions from elsewhere, documents are only worth a word if they failed.
    let is_shown = |result: &&WriteResult| bulk.new_edits || result.is_err();
    let mut text = vec![b'['];
    for result in results.iter().filter(is_shown) {
        if text.len() > 1 {
            text.push(b',');
        }
        match result {
            Ok(saved) => saved.write_json(&mut text),
            Err(failed) => failed.write_json(&mut text),
        }
    }
    text.push(b']');
    Ok(reply::json_text(StatusCode::CREATED, text))
}

/// Parameters that `_bulk_get` does not take: its entries say that for themselves.
const NOT_OF_BULK_GET: &[&str] = &["open_revs", "new_edits", "w", "rev", "atts_since"];

/// What one entry of a `_bulk_get` has come to: its leaves, or why there are none.
type Got = std::result::Result<(String, Vec<RevResult>), BadItem>;

/// `POST /{db}/_bulk_get`
pub(super) async fn read(member: Member, call: Arc<Call>) -> Result<Response> {
    call.app.stats.bulk_request();
    call.require_json()?;
    let entries = parse_bulk_get(&call.bytes().await?, &call.limits())?;
    if let Some(name) = NOT_OF_BULK_GET.iter().find(|name| call.query.get(name).is_some()) {
        let reason = format!("\"{name}\" query parameter is not acceptable");
        return Err(Error::bad_request(reason));
    }
    let DocQuery { options, .. } = DocQuery::parse(&call.query)?;
    call.app.stats.document_reads(entries.len() as u64);
    let mixed = call.asks_for("multipart/mixed");
    let in_parts =
        !call.accepts("application/json") && (mixed || call.asks_for("multipart/related"));
    if in_parts {
        let kind = if mixed { "mixed" } else { "related" };
        return read_parts(&member, entries, options, kind).await;
    }
    let write = WriteJson { att_encoding_info: options.att_encoding_info, ..WriteJson::default() };
    let got = collect(&member, entries, &options).await?;
    let items = got.map_ok(move |got| {
        let mut text = br#"{"id":"#.to_vec();
        let (id, leaves) = match got {
            Ok(got) => got,
            Err(bad) => {
                text.extend_from_slice(bad.id.as_bytes());
                text.extend_from_slice(br#","docs":[{"error":"#);
                write_bad(&mut text, &bad);
                text.extend_from_slice(b"}]}");
                return text;
            }
        };
        write_string(&mut text, &id);
        text.extend_from_slice(br#","docs":["#);
        for (n, leaf) in leaves.iter().enumerate() {
            if n > 0 {
                text.push(b',');
            }
            match leaf {
                RevResult::Found(doc) => {
                    text.extend_from_slice(br#"{"ok":"#);
                    doc.write_json(&mut text, &write);
                }
                RevResult::Missing(missing) => {
                    text.extend_from_slice(br#"{"error":"#);
                    write_missing(&mut text, missing);
                }
            }
            text.push(b'}');
        }
        text.extend_from_slice(b"]}");
        text
    });
    reply::json_stream(reply::joined("{\"results\": [", ",", items, "]}\n"))
}

/// The error of a document. CouchDB names a revision always, if only as `undefined`.
fn write_missing(out: &mut Vec<u8>, missing: &DocError) {
    if missing.rev.is_some() {
        return missing.write_json(out);
    }
    let mut id = Vec::new();
    write_string(&mut id, &missing.id);
    write_error(out, &id, b"\"undefined\"", &missing.error);
}

fn write_bad(out: &mut Vec<u8>, bad: &BadItem) {
    write_error(out, bad.id.as_bytes(), bad.rev.as_bytes(), &bad.error);
}

fn write_error(out: &mut Vec<u8>, id: &[u8], rev: &[u8], error: &Error) {
    out.extend_from_slice(br#"{"id":"#);
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"rev\":");
    out.extend_from_slice(rev);
    out.extend_from_slice(b",\"error\":");
    write_string(out, error.name());
    out.extend_from_slice(b",\"reason\":");
    write_string(out, error.reason());
    out.push(b'}');
}

/// The entries' results as they come, those that were wrong to begin with in their places.
async fn collect(
    member: &Member,
    entries: Vec<std::result::Result<BulkGetItem, BadItem>>,
    options: &GetOptions,
) -> Result<impl Stream<Item = Result<Got>> + Send + use<>> {
    let mut places = VecDeque::with_capacity(entries.len());
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        match entry {
            Ok(item) => {
                places.push_back(None);
                items.push(item);
            }
            Err(bad) => places.push_back(Some(bad)),
        }
    }
    let results = member.db().bulk_get(items, options).await?;
    Ok(stream::try_unfold((places, results), |(mut places, mut results)| async move {
        let got = match places.pop_front() {
            None => return Ok(None),
            Some(Some(bad)) => Err(bad),
            Some(None) => {
                let result = results.try_next().await?;
                let (id, mut leaves) = result.ok_or_else(|| {
                    Error::internal("the adapter gave fewer results than were asked for")
                })?;
                if leaves.is_empty() {
                    let error = Error::missing();
                    let missing = DocError { id: id.clone(), rev: None, error };
                    leaves.push(RevResult::Missing(missing));
                }
                Ok((id, leaves))
            }
        };
        Ok(Some((got, (places, results))))
    }))
}

/// The reply in parts, one for each revision.
async fn read_parts(
    member: &Member,
    mut entries: Vec<std::result::Result<BulkGetItem, BadItem>>,
    options: GetOptions,
    kind: &str,
) -> Result<Response> {
    // The entries' own `atts_since` would have the adapter read contents that are to follow.
    let sinces: Vec<Vec<Rev>> = entries
        .iter()
        .map(|entry| entry.as_ref().map(|item| item.atts_since.clone()).unwrap_or_default())
        .collect();
    for item in entries.iter_mut().flatten() {
        item.atts_since.clear();
    }
    let any_since = sinces.iter().any(|since| !since.is_empty());
    let mut alone = related::without_content(&options);
    alone.revs |= any_since;
    let got = collect(member, entries, &alone).await?;
    let boundary = new_boundary();
    let media_type = format!("multipart/{kind}; boundary=\"{boundary}\"");
    let db = member.db().clone();
    let separator = format!("\r\n--{boundary}");
    let end = format!("\r\n--{boundary}--");
    let body = got.zip(stream::iter(sinces)).map(move |(got, since)| {
        let got = got?.map(|(_, leaves)| leaves);
        let wanted = options.attachments || !since.is_empty();
        Ok::<_, Error>(leaf_parts(db.clone(), got, &options, &since, wanted, &separator))
    });
    reply::streamed(&media_type, body.try_flatten().chain(related::piece(end)))
}

fn leaf_parts(
    db: Arc<dyn Adapter>,
    got: std::result::Result<Vec<RevResult>, BadItem>,
    options: &GetOptions,
    since: &[Rev],
    wanted: bool,
    separator: &str,
) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let part = |leaf| match leaf {
        RevResult::Found(mut doc) => {
            if wanted {
                related::mark(&mut doc, options, since);
            } else if !options.revs {
                doc.revisions = None;
            }
            let id = doc.id.clone().unwrap_or_default().replace(['\r', '\n'], "");
            let rev = doc.rev.as_ref().map(Rev::to_string).unwrap_or_default();
            let headers = format!("X-Doc-Id: {id}\r\nX-Rev-Id: {rev}\r\n");
            related::found(db.clone(), *doc, &headers)
        }
        RevResult::Missing(missing) => {
            let mut text = Vec::new();
            write_missing(&mut text, &missing);
            related::failed(&text)
        }
    };
    let parts: Vec<_> = match got {
        Ok(leaves) => leaves.into_iter().map(part).collect(),
        Err(bad) => {
            let mut text = Vec::new();
            write_bad(&mut text, &bad);
            vec![related::failed(&text)]
        }
    };
    let separator = separator.to_owned();
    let parts = parts.into_iter().map(move |part| related::piece(separator.clone()).chain(part));
    stream::iter(parts).flatten()
}

/// `GET`, `POST /{db}/_all_docs`
pub(super) async fn all_docs(member: Member, call: Arc<Call>) -> Result<Response> {
    list(&member, &call, DocSet::All).await
}

/// `GET`, `POST /{db}/_design_docs`
pub(super) async fn design_docs(member: Member, call: Arc<Call>) -> Result<Response> {
    list(&member, &call, DocSet::Design).await
}

/// `GET`, `POST /{db}/_local_docs`
pub(super) async fn local_docs(member: Member, call: Arc<Call>) -> Result<Response> {
    list(&member, &call, DocSet::Local).await
}

async fn list(member: &Member, call: &Call, set: DocSet) -> Result<Response> {
    let mut query = AllDocsQuery::new(AllDocsOptions { set, ..AllDocsOptions::default() });
    if call.method == Method::POST {
        call.require_json()?;
        let body = call.object().await?;
        query.take(Param::members(&body))?;
    }
    query.take(call.query.pairs())?;
    let options = query.finish()?;
    let rows = member.db().all_docs(&options).await?;
    reply::json_stream(write_rows(rows, &options).chain(related::piece("\n")))
}

/// `POST /{db}/_all_docs/queries`
pub(super) async fn queries(member: Member, call: Arc<Call>) -> Result<Response> {
    list_several(&member, &call, DocSet::All).await
}

/// `POST /{db}/_design_docs/queries`
pub(super) async fn design_queries(member: Member, call: Arc<Call>) -> Result<Response> {
    list_several(&member, &call, DocSet::Design).await
}

/// `POST /{db}/_local_docs/queries`
pub(super) async fn local_queries(member: Member, call: Arc<Call>) -> Result<Response> {
    list_several(&member, &call, DocSet::Local).await
}

/// The queries of a request for several listings.
pub(super) fn queries_in(body: &Map<String, Value>) -> Result<&[Value]> {
    match body.get("queries") {
        None => Err(Error::bad_request("POST body must include `queries` parameter.")),
        Some(Value::Array(queries)) => Ok(queries),
        Some(_) => Err(Error::bad_request("`queries` member must be an array.")),
    }
}

/// A query of such a request.
pub(super) fn members_of(query: &Value) -> Result<&Map<String, Value>> {
    query.as_object().ok_or_else(|| Error::bad_request("`queries` must be an array of objects."))
}

async fn list_several(member: &Member, call: &Call, set: DocSet) -> Result<Response> {
    let body = call.object().await?;
    let queries = queries_in(&body)?;
    let parse = |query: &Value| {
        let object = members_of(query)?;
        let mut query = AllDocsQuery::new(AllDocsOptions { set, ..AllDocsOptions::default() });
        query.take(call.query.pairs())?;
        query.take(Param::members(object))?;
        query.finish()
    };
    // All are understood before the first is answered.
    let queries = queries.iter().map(parse).collect::<Result<Vec<AllDocsOptions>>>()?;
    let db = member.db().clone();
    db.info().await?;
    let results = stream::iter(queries).enumerate().then(move |(n, options)| {
        let db = db.clone();
        async move {
            let rows = db.all_docs(&options).await?;
            let separator = if n == 0 { "\r\n" } else { ",\r\n" };
            Ok::<_, Error>(related::piece(separator).chain(write_rows(rows, &options)))
        }
    });
    let head = related::piece("{\"results\":[");
    reply::json_stream(head.chain(results.try_flatten()).chain(related::piece("\r\n]}\n")))
}

/// A listing as CouchDB writes it, one piece for each batch of rows.
fn write_rows(
    rows: Rows,
    options: &AllDocsOptions,
) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let Rows { total_rows, offset, update_seq, rows } = rows;
    let number = |number: Option<u64>| number.map_or("null".to_owned(), |n| n.to_string());
    let mut head = format!("{{\"total_rows\":{},\"offset\":{}", number(total_rows), number(offset))
        .into_bytes();
    if let Some(seq) = update_seq {
        head.extend_from_slice(b",\"update_seq\":");
        seq.write_json(&mut head);
    }
    head.extend_from_slice(b",\"rows\":[\r\n");
    let include_docs = options.include_docs;
    let write =
        WriteJson { att_encoding_info: options.doc.att_encoding_info, ..WriteJson::default() };
    reply::rows(head, rows, move |row, text| row.write_json(text, include_docs, &write))
}
