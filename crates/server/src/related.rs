//! Documents with their attachments in parts, `multipart/related` and `multipart/mixed`: written
//! piece by piece, so that what a reply holds in memory does not grow with the attachments.

use crate::multipart::{new_boundary, quoted};
use axum::body::Bytes;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use settee::adapter::Adapter;
use settee_core::document::WriteJson;
use settee_core::json::write_string;
use settee_core::options::{AttachmentOptions, GetOptions, OpenRevs};
use settee_core::wire::RevResult;
use settee_core::{AttachmentData, Document, Encoding, Result, Rev};
use std::sync::Arc;

/// The options that read the document alone, with what it takes to tell which parts are wanted.
pub(crate) fn without_content(options: &GetOptions) -> GetOptions {
    GetOptions {
        attachments: false,
        atts_since: Vec::new(),
        att_encoding_info: true,
        revs: options.revs || !options.atts_since.is_empty(),
        ..options.clone()
    }
}

/// Marks the attachments whose content is to follow: those that none of the revisions the client
/// knows had.
pub(crate) fn mark(doc: &mut Document, options: &GetOptions, atts_since: &[Rev]) {
    let known = doc.revisions.as_ref().and_then(|path| {
        let has = |rev: &&Rev| {
            let age = path.start.checked_sub(rev.pos).and_then(|age| usize::try_from(age).ok());
            age.and_then(|age| path.ids.get(age)) == Some(&rev.id)
        };
        atts_since.iter().filter(has).map(|rev| rev.pos).max()
    });
    for attachment in &mut doc.attachments {
        if attachment.revpos.unwrap_or(0) > known.unwrap_or(0) {
            attachment.data = AttachmentData::Follows;
        }
    }
    if !options.revs {
        doc.revisions = None;
    }
}

/// Whether there is content to follow.
pub(crate) fn has_parts(doc: &Document) -> bool {
    doc.attachments.iter().any(|attachment| attachment.data == AttachmentData::Follows)
}

/// Reads a document whose attachments are to follow.
pub(crate) async fn get(db: &Arc<dyn Adapter>, id: &str, options: &GetOptions) -> Result<Document> {
    let mut doc = db.get(id, &without_content(options)).await?;
    mark(&mut doc, options, &options.atts_since);
    Ok(doc)
}

/// Reads leaves whose attachments are to follow.
pub(crate) async fn open_revs(
    db: &Arc<dyn Adapter>,
    id: &str,
    revs: &OpenRevs,
    options: &GetOptions,
) -> Result<Vec<RevResult>> {
    let mut leaves = db.open_revs(id, revs, &without_content(options)).await?;
    for leaf in &mut leaves {
        if let RevResult::Found(doc) = leaf {
            mark(doc, options, &options.atts_since);
        }
    }
    Ok(leaves)
}

/// A document and the parts that follow, separated by a boundary.
pub(crate) fn write(
    db: Arc<dyn Adapter>,
    doc: Document,
    boundary: String,
) -> BoxStream<'static, Result<Bytes>> {
    let mut head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
    doc.write_json(&mut head, &WriteJson { att_encoding_info: true, follows: true });
    head.extend_from_slice(format!("\r\n--{boundary}").as_bytes());
    let (id, rev) = (doc.id.unwrap_or_default(), doc.rev);
    let names: Vec<String> = doc
        .attachments
        .into_iter()
        .filter(|attachment| attachment.data == AttachmentData::Follows)
        .map(|attachment| attachment.name)
        .collect();
    let parts = stream::iter(names).then(move |name| {
        let (db, id, rev, boundary) = (db.clone(), id.clone(), rev.clone(), boundary.clone());
        async move {
            let options = AttachmentOptions { rev, range: None, accept_gzip: true };
            let reader = db.attachment(&id, &name, &options).await?;
            let mut head = format!(
                "\r\nContent-Disposition: attachment; filename=\"{}\"\r\nContent-Type: {}\r\n",
                quoted(&name),
                quoted(&reader.content_type),
            );
            if let Some(length) = reader.body_length {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            if reader.encoding == Encoding::Gzip {
                head.push_str("Content-Encoding: gzip\r\n");
            }
            head.push_str("\r\n");
            let tail = format!("\r\n--{boundary}");
            Ok::<_, settee_core::Error>(piece(head).chain(reader.body).chain(piece(tail)))
        }
    });
    piece(head).chain(parts.try_flatten()).chain(piece("--")).boxed()
}

/// Documents and missing revisions, one part each.
pub(crate) fn write_mixed(
    db: Arc<dyn Adapter>,
    leaves: Vec<RevResult>,
    boundary: String,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let head = piece(format!("--{boundary}"));
    let parts = stream::iter(leaves).flat_map(move |leaf| {
        let part = match leaf {
            RevResult::Found(doc) => found(db.clone(), *doc, ""),
            RevResult::Missing(missing) => {
                let mut text = ERROR_HEAD.to_vec();
                text.extend_from_slice(br#"{"missing":"#);
                let rev = missing.rev.map(|rev| rev.to_string());
                write_string(&mut text, &rev.unwrap_or_default());
                text.push(b'}');
                piece(text).boxed()
            }
        };
        part.chain(piece(format!("\r\n--{boundary}")))
    });
    head.chain(parts).chain(piece("--"))
}

const ERROR_HEAD: &[u8] = b"\r\nContent-Type: application/json; error=\"true\"\r\n\r\n";

/// A document as a part: by itself, or with parts of its own.
pub(crate) fn found(
    db: Arc<dyn Adapter>,
    doc: Document,
    headers: &str,
) -> BoxStream<'static, Result<Bytes>> {
    if !has_parts(&doc) {
        let mut text = b"\r\nContent-Type: application/json\r\n\r\n".to_vec();
        doc.write_json(&mut text, &WriteJson { att_encoding_info: true, follows: true });
        return piece(text).boxed();
    }
    let boundary = new_boundary();
    let head =
        format!("\r\n{headers}Content-Type: multipart/related; boundary=\"{boundary}\"\r\n\r\n");
    piece(head).chain(write(db, doc, boundary)).boxed()
}

/// A failure as a part.
pub(crate) fn failed(json: &[u8]) -> BoxStream<'static, Result<Bytes>> {
    piece([ERROR_HEAD, json].concat()).boxed()
}

/// Text as a stream of one piece.
pub(crate) fn piece(text: impl Into<Bytes>) -> stream::Iter<std::option::IntoIter<Result<Bytes>>> {
    stream::iter(Some(Ok(text.into())))
}
