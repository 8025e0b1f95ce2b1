//! Documents: <https://docs.couchdb.org/en/stable/api/document/common.html>

use crate::auth::access::Member;
use crate::call::Call;
use crate::multipart::{self, Reader};
use crate::query::DocQuery;
use crate::related;
use crate::reply::{self, Response};
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use percent_encoding::percent_decode_str;
use settee::adapter::{Adapter, Part};
use settee_core::document::WriteJson;
use settee_core::id::check_doc_id;
use settee_core::options::{AttachmentOptions, Durability, GetOptions, OpenRevs, WriteOptions};
use settee_core::wire::{RevResult, Saved};
use settee_core::{Attachment, AttachmentData, Document, Error, ErrorKind, Result, Rev};
use std::sync::Arc;

/// The most that a form may bring: its files are held in memory.
const MAX_FORM: usize = 64 << 20;

/// The id of the document in the path.
pub(super) fn doc_id(call: &Call) -> String {
    match (call.param("ddoc"), call.param("local")) {
        ("", "") => call.param("id").to_owned(),
        ("", local) => format!("_local/{local}"),
        (ddoc, _) => format!("_design/{ddoc}"),
    }
}

/// How a read document is written.
pub(super) fn write_json(options: &GetOptions) -> WriteJson {
    WriteJson { att_encoding_info: options.att_encoding_info, ..WriteJson::default() }
}

/// `GET /{db}/{id}`
pub(super) async fn get(member: Member, call: Arc<Call>) -> Result<Response> {
    let id = doc_id(&call);
    if let Some(name) = call.param("id").strip_prefix("_design/") {
        // Written with `%2F`, a design document's attachments could not be told from its functions.
        let query = call.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        return reply::moved(&format!("{}{query}", call.location(&["_design", name])));
    }
    let DocQuery { options, open_revs } = DocQuery::parse(&call.query)?;
    call.app.stats.document_reads(1);
    match open_revs {
        Some(revs) => leaves(&call, member.db(), &id, &revs, options).await,
        None => one(&call, member.db(), &id, options).await,
    }
}

async fn one(
    call: &Call,
    db: &Arc<dyn Adapter>,
    id: &str,
    options: GetOptions,
) -> Result<Response> {
    let in_parts = options.attachments && call.asks_for("multipart/related");
    let doc = match in_parts {
        true => related::get(db, id, &options).await?,
        false => db.get(id, &options).await?,
    };
    // A tag names a revision, and what a read adds to it may change while it does not.
    let meta = &doc.meta;
    let is_plain = meta.revs_info.is_none()
        && meta.local_seq.is_none()
        && meta.conflicts.is_empty()
        && meta.deleted_conflicts.is_empty();
    let etag = doc.rev.as_ref().filter(|_| is_plain).map(reply::etag);
    if let Some(etag) = &etag
        && reply::matches_etag(call.header(header::IF_NONE_MATCH), etag)
    {
        return reply::not_modified(etag);
    }
    let reply = if in_parts && related::has_parts(&doc) {
        let boundary = multipart::new_boundary();
        let media_type = format!("multipart/related; boundary=\"{boundary}\"");
        reply::streamed(&media_type, related::write(db.clone(), doc, boundary))?
    } else {
        let mut text = Vec::new();
        doc.write_json(&mut text, &write_json(&options));
        reply::json_text(StatusCode::OK, text)
    };
    match etag {
        Some(etag) => reply::with(reply, header::ETAG, &etag),
        None => Ok(reply),
    }
}

/// Several revisions: a list, or parts.
async fn leaves(
    call: &Call,
    db: &Arc<dyn Adapter>,
    id: &str,
    revs: &OpenRevs,
    options: GetOptions,
) -> Result<Response> {
    if call.asks_for("multipart/mixed") {
        let leaves = related::open_revs(db, id, revs, &options).await?;
        let boundary = multipart::new_boundary();
        let media_type = format!("multipart/mixed; boundary=\"{boundary}\"");
        let body = related::write_mixed(db.clone(), leaves, boundary);
        return reply::streamed(&media_type, body);
    }
    let leaves = db.open_revs(id, revs, &options).await?;
    let how = write_json(&options);
    let items = stream::iter(leaves).map(move |leaf| {
        let mut text = Vec::new();
        match leaf {
            RevResult::Found(doc) => {
                text.extend_from_slice(br#"{"ok":"#);
                doc.write_json(&mut text, &how);
                text.push(b'}');
            }
            RevResult::Missing(missing) => {
                let rev = missing.rev.map(|rev| rev.to_string()).unwrap_or_default();
                text.extend_from_slice(br#"{"missing":"#);
                settee_core::json::write_string(&mut text, &rev);
                text.push(b'}');
            }
        }
        Ok(text)
    });
    reply::json_stream(reply::joined("[", ",", items, "]\n"))
}

/// How a request wants its write.
pub(super) fn write_options(call: &Call) -> WriteOptions {
    let deferred = call.query.get("batch") == Some("ok")
        || call.header("x-couch-full-commit") == Some("false");
    WriteOptions {
        new_edits: call.query.get("new_edits") != Some("false"),
        durability: if deferred { Durability::Deferred } else { Durability::Flush },
    }
}

/// The revision an edit is based on: from the body, the query or `If-Match`, which must agree.
pub(super) fn base_rev(call: &Call, body: Option<Rev>) -> Result<Option<Rev>> {
    let query = call.query.rev()?;
    let if_match = match call.header(header::IF_MATCH) {
        Some(tag) => Some(tag.trim().trim_matches('"').parse::<Rev>()?),
        None => None,
    };
    if body.is_some() && query.is_some() && body != query {
        return Err(Error::bad_request(
            "Document rev from request body and query string have different values",
        ));
    }
    match (body.or(query), if_match) {
        (Some(rev), Some(tag)) if rev != tag => {
            Err(Error::bad_request("Document rev and etag have different values"))
        }
        (rev, tag) => Ok(rev.or(tag)),
    }
}

/// The reply to a write.
fn saved(call: &Call, saved: &Saved, status: StatusCode) -> Result<Response> {
    let mut text = Vec::new();
    if call.query.get("batch") == Some("ok") {
        text.extend_from_slice(br#"{"ok":true,"id":"#);
        settee_core::json::write_string(&mut text, &saved.id);
        text.push(b'}');
        return Ok(reply::json_text(StatusCode::ACCEPTED, text));
    }
    saved.write_json(&mut text);
    let mut reply = reply::json_text(status, text);
    if call.method != Method::DELETE {
        reply = reply::with(reply, header::LOCATION, &call.location(&[&saved.id]))?;
    }
    // The URL of what was posted is another one, and has a tag of its own.
    match call.method == Method::POST {
        true => Ok(reply),
        false => reply::with(reply, header::ETAG, &reply::etag(&saved.rev)),
    }
}

/// `POST /{db}`
pub(super) async fn post(member: Member, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let doc = Document::parse(&call.bytes().await?, &call.limits())?;
    let options = WriteOptions { new_edits: true, ..write_options(&call) };
    saved(&call, &member.put(doc, None, &options).await?, StatusCode::CREATED)
}

/// `PUT /{db}/{id}`
pub(super) async fn put(member: Member, call: Arc<Call>) -> Result<Response> {
    let id = doc_id(&call);
    check_doc_id(&id)?;
    let media_type = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let (mut doc, parts) = match media_type.strip_prefix("multipart/related") {
        Some(_) => {
            let (doc, reader) = multipart_doc(&call, media_type).await?;
            (doc, Some(reader.into_parts()))
        }
        None => (Document::parse(&call.bytes().await?, &call.limits())?, None),
    };
    doc.id = Some(id);
    doc.rev = base_rev(&call, doc.rev.take())?;
    let options = write_options(&call);
    if !options.new_edits && doc.rev.is_none() {
        return Err(Error::bad_request(
            "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
        ));
    }
    let status = if doc.deleted { StatusCode::OK } else { StatusCode::CREATED };
    saved(&call, &member.put(doc, parts, &options).await?, status)
}

/// The document that a multipart body begins with.
async fn multipart_doc(call: &Call, media_type: &str) -> Result<(Document, Reader)> {
    let too_large = || Error::new(ErrorKind::TooLarge, "the request entity is too large");
    let boundary = multipart::boundary(media_type)?;
    let body = call.pieces(call.live.max_request, too_large)?;
    let mut reader = Reader::new(body, &boundary);
    if reader.part().await?.is_none() {
        return Err(Error::bad_request("The multipart body has no document."));
    }
    // White space and attachment stubs come on top of what the limit counts.
    let limit = usize::try_from(call.live.max_document.saturating_mul(2)).unwrap_or(usize::MAX);
    let text = reader.data(limit, too_large).await?;
    Ok((Document::parse(&text, &call.limits())?, reader))
}

/// `DELETE /{db}/{id}`
pub(super) async fn delete(member: Member, call: Arc<Call>) -> Result<Response> {
    let id = doc_id(&call);
    let rev = base_rev(&call, None)?;
    // What is not there, or not there any more, is not deleted once again, whatever its revision.
    member.db().get(&id, &GetOptions::default()).await?;
    // Local documents have no history that somebody could be behind.
    if rev.is_none() && call.param("local").is_empty() {
        return Err(Error::conflict());
    }
    let doc = Document { id: Some(id), rev, deleted: true, ..Document::default() };
    let options = WriteOptions { new_edits: true, ..write_options(&call) };
    let done = member.put(doc, None, &options).await?;
    saved(&call, &done, StatusCode::OK)
}

/// `COPY /{db}/{id}`
pub(super) async fn copy(member: Member, call: Arc<Call>) -> Result<Response> {
    let (target, target_rev) = destination(&call)?;
    check_doc_id(&target)?;
    let source = doc_id(&call);
    let options = GetOptions { rev: base_rev(&call, None)?, ..GetOptions::default() };
    let mut doc = member.db().get(&source, &options).await?;
    let rev = doc.rev.take();
    doc.id = Some(target);
    doc.rev = target_rev;
    doc.revisions = None;
    // The attachments' contents go from one document to the other in pieces.
    let names: Vec<String> = doc.attachments.iter().map(|att| att.name.clone()).collect();
    for attachment in &mut doc.attachments {
        attachment.data = AttachmentData::Follows;
        attachment.revpos = None;
    }
    let db = member.db().clone();
    let parts = stream::iter(names).then(move |name| {
        let (db, source, rev) = (db.clone(), source.clone(), rev.clone());
        async move {
            // As stored, so that the bytes stay what they are.
            let options = AttachmentOptions { rev, accept_gzip: true, ..Default::default() };
            let body = db.attachment(&source, &name, &options).await?.body;
            Ok(Part { name: Some(name), body })
        }
    });
    let has_parts = !doc.attachments.is_empty();
    let parts = has_parts.then(|| parts.boxed());
    let done = member.put(doc, parts, &WriteOptions::default()).await?;
    saved(&call, &done, StatusCode::CREATED)
}

/// The target of a copy: an id, perhaps with the revision it replaces.
fn destination(call: &Call) -> Result<(String, Option<Rev>)> {
    let Some(value) = call.parts.headers.get("destination") else {
        return Err(Error::bad_request("Destination header is mandatory for COPY."));
    };
    let invalid = || Error::bad_request("Invalid Destination header.");
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| invalid())?;
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(Error::bad_request("Destination URL must be relative."));
    }
    let (id, rev) = match text.split_once('?') {
        Some((id, query)) => {
            let rev = query.strip_prefix("rev=").ok_or_else(invalid)?;
            (id, Some(rev.parse()?))
        }
        None => (text, None),
    };
    let id = percent_decode_str(id).decode_utf8().map_err(|_| invalid())?;
    Ok((id.into_owned(), rev))
}

/// `POST /{db}/{id}`: a form of a web page, with files that become attachments.
pub(super) async fn upload(member: Member, call: Arc<Call>) -> Result<Response> {
    check_referer(&call)?;
    let id = doc_id(&call);
    check_doc_id(&id)?;
    let media_type = call.header(header::CONTENT_TYPE).unwrap_or_default();
    if !media_type.starts_with("multipart/form-data") {
        let reason = "Content-Type must be multipart/form-data";
        return Err(Error::new(ErrorKind::BadContentType, reason));
    }
    let form = Form::read(&call, media_type).await?;
    let mut doc = match (form.doc, form.rev) {
        (Some(text), _) => {
            let mut doc = Document::parse(&text, &call.limits())?;
            doc.rev = base_rev(&call, doc.rev.take())?;
            doc
        }
        (None, Some(rev)) => {
            let options = GetOptions { rev: Some(rev), ..GetOptions::default() };
            member.db().get(&id, &options).await?
        }
        (None, None) => return Err(Error::bad_request("Invalid rev format")),
    };
    doc.id = Some(id);
    doc.attachments.retain(|old| form.files.iter().all(|file| file.name != old.name));
    doc.attachments.splice(0..0, form.files);
    let done = member.put(doc, None, &WriteOptions::default()).await?;
    let mut text = Vec::new();
    done.write_json(&mut text);
    let reply = reply::json_text(StatusCode::CREATED, text);
    reply::with(reply, header::ETAG, &reply::etag(&done.rev))
}

/// Forms need no script, so any site's page could send one with a visitor's session. One that comes
/// from here says so.
fn check_referer(call: &Call) -> Result<()> {
    let Some(referer) = call.header(header::REFERER) else {
        return Err(Error::bad_request("Referer header required."));
    };
    let host = referer.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    match call.header(header::HOST) {
        Some(own) if own == host => Ok(()),
        _ => Err(Error::bad_request("Referer header must match host.")),
    }
}

/// What a form has brought.
#[derive(Default)]
struct Form {
    doc: Option<Bytes>,
    rev: Option<Rev>,
    files: Vec<Attachment>,
}

impl Form {
    async fn read(call: &Call, media_type: &str) -> Result<Form> {
        let too_large = || Error::new(ErrorKind::TooLarge, "the request entity is too large");
        let boundary = multipart::boundary(media_type)?;
        let limit = call.live.max_request.min(MAX_FORM as u64);
        let mut reader = Reader::new(call.pieces(limit, too_large)?, &boundary);
        let mut form = Form::default();
        while let Some(headers) = reader.part().await? {
            let data = reader.data(MAX_FORM, too_large).await?;
            match headers.disposition("name").as_deref() {
                Some("_doc") => form.doc = Some(data),
                Some("_rev") => {
                    let text = std::str::from_utf8(&data).unwrap_or_default();
                    form.rev = Some(text.trim().parse()?);
                }
                Some("_attachments") => {
                    let name = headers.disposition("filename").unwrap_or_default();
                    let media_type = headers.get("content-type").unwrap_or("text/plain");
                    form.files.push(Attachment::inline(name, media_type, data));
                }
                _ => {}
            }
        }
        Ok(form)
    }
}
