//! Writes that are carried out once.
//!
//! When a connection breaks, it is unknown whether what was sent over it has been done. A document
//! that was given a base revision cannot be written twice: the second time is a conflict. So it is
//! sent again, and a conflict then leads to a look at what is there: if it is what was sent, the
//! first attempt had succeeded. A document without a base revision is looked for before it is sent
//! again, since somebody may have deleted it meanwhile.

use super::database::Shared;
use super::http::{Call, FULL_COMMIT, Failure, Payload, Repeat, Response, bad_reply};
use super::retry::Backoff;
use super::{body, multipart, runtime};
use crate::adapter::{Part, Parts};
use crate::env::IdGenerator;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::header::{self, HeaderName};
use serde::Deserialize;
use settee_core::document::WriteJson;
use settee_core::id::DocKind;
use settee_core::options::{Durability, GetOptions, OpenRevs, WriteOptions};
use settee_core::wire::{BulkResult, DocError, RevResult, Saved, WriteResult};
use settee_core::{Attachment, AttachmentData, Document, Encoding, Error, ErrorKind, Result, Rev};
use std::collections::VecDeque;

pub(crate) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Contents beyond this size do not travel as base64.
const INLINE: usize = 16 << 10;

/// How many documents are looked for at a time.
const AT_A_TIME: usize = 8;

/// Ids for documents that have none. They are made here: a server that makes them would make a
/// second document of a request that is repeated.
fn fresh_id() -> Result<String> {
    static IDS: IdGenerator = IdGenerator::new();
    IDS.next()
}

#[derive(Deserialize)]
struct Reply {
    id: Option<String>,
    rev: Option<Rev>,
}

/// The reply to a write.
pub(crate) async fn saved(response: Response, id: &str) -> Result<Saved> {
    saved_as(response, id, None).await
}

/// The same for a revision that is kept as it is, which not every server repeats.
async fn saved_as(response: Response, id: &str, kept: Option<Rev>) -> Result<Saved> {
    let Reply { id: named, rev } = response.json(1 << 20).await?;
    let rev = rev.or(kept).ok_or_else(|| bad_reply("The reply to the write has no revision."))?;
    Ok(Saved { id: named.unwrap_or_else(|| id.to_owned()), rev })
}

/// Leaves in a document what a write has to say.
fn ready(doc: &mut Document, options: &WriteOptions) -> Result<String> {
    doc.meta = Default::default();
    if options.new_edits {
        // The revision alone says what the edit is based on.
        doc.revisions = None;
    }
    let id = match doc.id.take() {
        Some(id) => id,
        None => fresh_id()?,
    };
    settee_core::id::check_doc_id(&id)?;
    doc.id = Some(id.clone());
    Ok(id)
}

fn full_commit(options: &WriteOptions) -> &'static str {
    match options.durability {
        Durability::Flush => "true",
        Durability::Deferred => "false",
    }
}

/// Turns encoded attachments into what the server keeps: what they are, if it does not know of
/// encodings.
async fn as_kept(db: &Shared, doc: &mut Document, parts: Option<Parts>) -> Result<Option<Parts>> {
    let encoded =
        |att: &Attachment| att.encoding == Encoding::Gzip && att.data != AttachmentData::Stub;
    if !doc.attachments.iter().any(encoded) || db.http.keeps_encodings().await? {
        return Ok(parts);
    }
    let mut order = VecDeque::new();
    for att in &mut doc.attachments {
        let is_encoded = encoded(att);
        if att.data == AttachmentData::Follows {
            order.push_back((att.name.clone(), is_encoded));
        }
        if !is_encoded {
            continue;
        }
        if let AttachmentData::Inline(data) = &att.data {
            let content = multipart::gunzip(data, db.limits().attachment)?;
            att.length = Some(content.len() as u64);
            att.data = AttachmentData::Inline(content);
        }
        att.encoding = Encoding::Identity;
        // Both are of the encoded bytes.
        (att.encoded_length, att.digest) = (None, None);
    }
    let decoded = parts.map(|parts| {
        let parts = parts.map_ok(move |part| {
            // A part without a name belongs to the next attachment.
            let named = order.iter().position(|(name, _)| part.name.as_ref() == Some(name));
            let is_encoded = order.remove(named.unwrap_or(0)).is_some_and(|(_, encoded)| encoded);
            let body = if is_encoded { body::gunzip(part.body) } else { part.body };
            Part { name: part.name, body }
        });
        parts.boxed()
    });
    Ok(decoded)
}

/// Whether another attempt may end better.
fn passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::ServiceUnavailable
    )
}

/// Writes one document.
pub(crate) async fn put(
    db: &Shared,
    mut doc: Document,
    parts: Option<Parts>,
    options: &WriteOptions,
) -> Result<Saved> {
    let id = ready(&mut doc, options)?;
    let parts = as_kept(db, &mut doc, parts).await?;
    let kept = doc.rev.clone().filter(|_| !options.new_edits);
    let follows = doc.attachments.iter().any(|att| att.data == AttachmentData::Follows);
    if follows {
        // What comes as a stream comes once.
        let call = with_parts(call(db, &doc, &id, options)?, &doc, parts).await?;
        return saved_as(db.http.send(call.repeat(Repeat::Unsent)).await?, &id, kept).await;
    }
    let mut backoff = Backoff::new();
    let mut left = db.http.options.retries;
    let mut ambiguous = false;
    loop {
        let mut call = call(db, &doc, &id, options)?;
        if in_parts(&doc) {
            call = with_parts(call, &doc, None).await?;
        } else if !is_local_deletion(&doc, &id) {
            let mut body = Vec::with_capacity(doc.body.text().len() + 256);
            doc.write_json(&mut body, &WriteJson::default());
            call = call.json(body);
        }
        let repeat = if options.new_edits { Repeat::Unsent } else { Repeat::Safe };
        let outcome = match db.http.send(call.repeat(repeat)).await {
            Ok(response) => {
                let saved = saved_as(response, &id, kept.clone()).await;
                saved.map_err(|error| Failure { error, undone: false })
            }
            Err(failure) => Err(failure),
        };
        let failure = match outcome {
            Ok(saved) => return Ok(saved),
            Err(failure) => failure,
        };
        if ambiguous && failure.error.is_conflict() {
            return match find_ours(db, &id, &doc).await? {
                Some(rev) => Ok(Saved { id, rev }),
                None => Err(failure.error),
            };
        }
        if failure.undone || left == 0 || !passing(&failure.error) {
            return Err(failure.error);
        }
        ambiguous = true;
        left -= 1;
        runtime::sleep(backoff.next(None)).await;
        if options.new_edits
            && doc.rev.is_none()
            && let Some(rev) = find_ours(db, &id, &doc).await?
        {
            return Ok(Saved { id, rev });
        }
    }
}

fn is_local_deletion(doc: &Document, id: &str) -> bool {
    doc.deleted && settee_core::id::check_doc_id(id).is_ok_and(|kind| kind == DocKind::Local)
}

/// The request, still without content.
fn call(db: &Shared, doc: &Document, id: &str, options: &WriteOptions) -> Result<Call> {
    let path = db.doc_path(id)?;
    if is_local_deletion(doc, id) {
        return Ok(Call::delete(path.maybe("rev", doc.rev.as_ref())));
    }
    let path = if options.new_edits { path } else { path.with("new_edits", false) };
    Ok(Call::put(path).header(FULL_COMMIT, full_commit(options)))
}

/// Whether a document travels better in parts: large contents, and such as JSON cannot say.
fn in_parts(doc: &Document) -> bool {
    let mut size = 0;
    let mut gzip = false;
    for att in &doc.attachments {
        if let AttachmentData::Inline(data) = &att.data {
            size += data.len();
            gzip |= att.encoding == Encoding::Gzip;
        }
    }
    gzip || size > INLINE
}

async fn with_parts(call: Call, doc: &Document, parts: Option<Parts>) -> Result<Call> {
    let mut doc = doc.clone();
    for att in &mut doc.attachments {
        // The lengths of what is here are known.
        if let AttachmentData::Inline(data) = &att.data {
            let length = Some(data.len() as u64);
            match att.encoding {
                Encoding::Identity => att.length = length,
                Encoding::Gzip => att.encoded_length = length,
            }
        }
    }
    let in_memory = parts.is_none();
    let upload = multipart::upload(doc, parts).await?;
    let payload = match in_memory {
        // So it can be sent again.
        true => Payload::Bytes(upload.body.try_collect::<Vec<_>>().await?.concat().into()),
        false => Payload::Stream { body: upload.body, length: Some(upload.length) },
    };
    Ok(call.header(header::CONTENT_TYPE, &upload.content_type).payload(payload))
}

/// The revision that an edit has made, if it was carried out.
async fn find_ours(db: &Shared, id: &str, doc: &Document) -> Result<Option<Rev>> {
    if id.starts_with("_local/") {
        return match db.get(id, &GetOptions::default()).await {
            Ok(there) if there.body == doc.body && !doc.deleted => Ok(there.rev),
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(None),
        };
    }
    let options = GetOptions { revs: true, ..GetOptions::default() };
    let leaves = match db.open_revs(id, &OpenRevs::All, &options).await {
        Ok(leaves) => leaves,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let base = doc.rev.as_ref();
    let expected = match doc.attachments.is_empty() {
        true => doc.revision_hash(doc.deleted, base, std::iter::empty()).ok(),
        false => None,
    };
    let expected = expected.map(|hash| Rev::new(base.map_or(0, |base| base.pos) + 1, hash));
    let ours = leaves.into_iter().find_map(|leaf| {
        let RevResult::Found(leaf) = leaf else { return None };
        let path = leaf.revisions.as_ref()?;
        let at = |pos: u64| {
            let age = usize::try_from(path.start.checked_sub(pos)?).ok()?;
            path.ids.get(age)
        };
        // Servers agree on the revisions of equal edits, or at least keep what they were given.
        if let Some(expected) = &expected
            && at(expected.pos) == Some(&expected.id)
        {
            return Some(expected.clone());
        }
        let parent =
            base.is_none_or(|base| path.start == base.pos + 1 && at(base.pos) == Some(&base.id));
        let names =
            |doc: &Document| doc.attachments.iter().map(|att| att.name.clone()).collect::<Vec<_>>();
        let same =
            leaf.body == doc.body && leaf.deleted == doc.deleted && names(&leaf) == names(doc);
        if parent && same { leaf.rev } else { None }
    });
    Ok(ours)
}

/// Writes documents.
pub(crate) async fn bulk_docs(
    db: &Shared,
    docs: Vec<Document>,
    options: &WriteOptions,
) -> Result<Vec<WriteResult>> {
    let mut results: Vec<Option<WriteResult>> = Vec::with_capacity(docs.len());
    // What is to be sent, with its place.
    let mut left: Vec<(usize, String, Document)> = Vec::with_capacity(docs.len());
    // What JSON cannot say, or not well, is sent by itself.
    let mut alone: Vec<(usize, String, Document)> = Vec::new();
    for (place, mut doc) in docs.into_iter().enumerate() {
        let named = doc.id.clone().unwrap_or_default();
        as_kept(db, &mut doc, None).await?;
        match ready(&mut doc, options).and_then(|id| check_inline(&doc).map(|()| id)) {
            Ok(id) => {
                results.push(None);
                match in_parts(&doc) {
                    true => alone.push((place, id, doc)),
                    false => left.push((place, id, doc)),
                }
            }
            Err(error) => results.push(Some(Err(DocError { id: named, rev: None, error }))),
        }
    }
    let mut backoff = Backoff::new();
    let mut tries = db.http.options.retries;
    let mut ambiguous = false;
    while !left.is_empty() {
        let outcome = bulk_once(db, &left, options).await;
        let failure = match outcome {
            Ok(outcomes) => {
                for ((place, id, doc), outcome) in left.into_iter().zip(outcomes) {
                    let outcome = match outcome {
                        Err(failed) if ambiguous && failed.error.is_conflict() => {
                            match find_ours(db, &id, &doc).await? {
                                Some(rev) => Ok(Saved { id, rev }),
                                None => Err(failed),
                            }
                        }
                        outcome => outcome,
                    };
                    results[place] = Some(outcome);
                }
                break;
            }
            Err(failure) => failure,
        };
        if failure.undone || tries == 0 || !passing(&failure.error) {
            return Err(failure.error);
        }
        tries -= 1;
        ambiguous = true;
        runtime::sleep(backoff.next(None)).await;
        if options.new_edits {
            let looked = stream::iter(left).map(|(place, id, doc)| async move {
                let found = find_ours(db, &id, &doc).await;
                (place, id, doc, found)
            });
            let looked: Vec<_> = looked.buffered(AT_A_TIME).collect().await;
            left = Vec::new();
            for (place, id, doc, found) in looked {
                match found? {
                    Some(rev) => results[place] = Some(Ok(Saved { id, rev })),
                    None => left.push((place, id, doc)),
                }
            }
        }
    }
    let alone = stream::iter(alone)
        .map(|(place, id, doc)| async move { (place, id, put(db, doc, None, options).await) });
    let alone: Vec<_> = alone.buffered(AT_A_TIME).collect().await;
    for (place, id, outcome) in alone {
        results[place] = Some(match outcome {
            Ok(saved) => Ok(saved),
            // A failure of the line or the server is not this document's alone.
            Err(error) if error.status() >= 500 => return Err(error),
            Err(error) => Err(DocError { id, rev: None, error }),
        });
    }
    let unanswered = || bad_reply("A write has no result.");
    results.into_iter().map(|result| result.ok_or_else(unanswered)).collect()
}

/// Nothing can follow a bulk write.
fn check_inline(doc: &Document) -> Result<()> {
    match doc.attachments.iter().any(|att| att.data == AttachmentData::Follows) {
        true => Err(Error::bad_request("Attachment is marked as following, but does not.")),
        false => Ok(()),
    }
}

/// One request, and a result for each document of it.
async fn bulk_once(
    db: &Shared,
    docs: &[(usize, String, Document)],
    options: &WriteOptions,
) -> Result<Vec<WriteResult>, Failure> {
    let size: usize = docs.iter().map(|(_, _, doc)| doc.body.text().len() + 128).sum();
    let mut body = Vec::with_capacity(size + 32);
    body.extend_from_slice(b"{\"docs\":[");
    for (place, (_, _, doc)) in docs.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        doc.write_json(&mut body, &WriteJson::default());
    }
    body.extend_from_slice(if options.new_edits { b"]}" } else { b"],\"new_edits\":false}" });
    let repeat = if options.new_edits { Repeat::Unsent } else { Repeat::Safe };
    let call = Call::post(db.path("_bulk_docs")).json(body).repeat(repeat);
    let response = db.http.send(call.header(FULL_COMMIT, full_commit(options))).await?;
    let limits = db.limits();
    let read = async {
        let text = response.bytes(limits.document).await?;
        BulkResult::parse_all(&text, &limits)
    };
    let replies = read.await.map_err(|error| Failure { error, undone: false })?;
    Ok(assign(docs, replies, options.new_edits))
}

/// Gives each document its reply.
fn assign(
    docs: &[(usize, String, Document)],
    replies: Vec<BulkResult>,
    new_edits: bool,
) -> Vec<WriteResult> {
    let mut replies: VecDeque<Option<BulkResult>> = replies.into_iter().map(Some).collect();
    let mut results: Vec<WriteResult> = Vec::with_capacity(docs.len());
    for (_, id, doc) in docs {
        let fits = |reply: &Option<BulkResult>| {
            reply.as_ref().is_some_and(|reply| {
                // One document may come in several revisions.
                let same_rev = new_edits || reply.rev.is_none() || reply.rev == doc.rev;
                reply.id == *id && same_rev
            })
        };
        while replies.front().is_some_and(Option::is_none) {
            replies.pop_front();
        }
        let reply = replies.iter().position(fits).and_then(|place| replies[place].take());
        // Of revisions as they are elsewhere, only failures are told.
        let kept = doc.rev.clone().filter(|_| !new_edits);
        let (error, rev) = match reply {
            None => (None, kept),
            Some(reply) => (reply.error, reply.rev.or(kept)),
        };
        results.push(match (error, rev) {
            (None, Some(rev)) => Ok(Saved { id: id.clone(), rev }),
            (error, _) => {
                let error = error.unwrap_or_else(|| bad_reply("A write has no result."));
                Err(DocError { id: id.clone(), rev: None, error })
            }
        });
    }
    results
}
