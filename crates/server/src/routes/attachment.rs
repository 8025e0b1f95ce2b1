//! Attachments: <https://docs.couchdb.org/en/stable/api/document/attachments.html>

use crate::auth::access::Member;
use crate::call::Call;
use crate::gzip;
use crate::reply::{self, Response};
use crate::routes::document::{base_rev, doc_id};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use settee::adapter::AttachmentReader;
use settee_core::id::{DocKind, check_doc_id};
use settee_core::options::{AttachmentHead, AttachmentOptions, ByteRange, GetOptions};
use settee_core::wire::Saved;
use settee_core::{Digest, Encoding, Error, ErrorKind, Result};
use std::sync::Arc;

/// `GET /{db}/{id}/{name}`
pub(super) async fn get(member: Member, call: Arc<Call>) -> Result<Response> {
    let (id, name) = (doc_id(&call), call.param("name"));
    let mut options = AttachmentOptions {
        rev: call.query.rev()?,
        range: call.header(header::RANGE).and_then(parse_range),
        accept_gzip: gzip::is_accepted(&call),
    };
    let mut reader = member.db().attachment(&id, name, &options).await?;
    let etag = format!("\"{}\"", reader.digest.base64());
    if reply::matches_etag(call.header(header::IF_NONE_MATCH), &etag) {
        return reply::not_modified(&etag);
    }
    // A range of something that has changed since is no use to who has the rest of what it was.
    let if_range = call.header(header::IF_RANGE);
    if reader.range.is_some() && if_range.is_some_and(|tag| tag != etag) {
        options.range = None;
        reader = member.db().attachment(&id, name, &options).await?;
    }
    write(&call, reader, &etag)
}

fn write(call: &Call, reader: AttachmentReader, etag: &str) -> Result<Response> {
    let mut reply = Response::new(Body::from_stream(reader.body));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type(&reader.content_type));
    headers.insert(header::ETAG, reply::header_value(etag)?);
    // What somebody has stored must not run as a part of this site.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if call.live.get("csp", "attachments_enable") != Some("false") {
        let policy = call.live.get("csp", "attachments_header_value").unwrap_or("sandbox");
        headers.insert(header::CONTENT_SECURITY_POLICY, reply::header_value(policy)?);
    }
    if reader.encoding == Encoding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let ranges = if reader.has_ranges { "bytes" } else { "none" };
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static(ranges));
    if let Some(length) = reader.body_length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some((first, last)) = reader.range {
        let range = format!("bytes {first}-{last}/{}", reader.length);
        headers.insert(header::CONTENT_RANGE, reply::header_value(&range)?);
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(reply)
}

/// A media type as it was stored, if it fits into a header.
fn media_type(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes())
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

/// One range of bytes. Several, or what is no range, means everything.
fn parse_range(text: &str) -> Option<ByteRange> {
    let (unit, range) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    match (first, last) {
        ("", last) => Some(ByteRange::Last(number(last)?)),
        (first, "") => Some(ByteRange::From(number(first)?)),
        (first, last) => Some(ByteRange::Within(number(first)?, number(last)?)),
    }
}

/// `PUT /{db}/{id}/{name}`
pub(super) async fn put(member: Member, call: Arc<Call>) -> Result<Response> {
    let (id, name) = (doc_id(&call), call.param("name"));
    check(&id, name)?;
    let rev = base_rev(&call, None)?;
    let encoding = call.header(header::CONTENT_ENCODING).unwrap_or("identity").trim();
    let encoding = match encoding.to_ascii_lowercase().as_str() {
        "identity" => Encoding::Identity,
        "gzip" => Encoding::Gzip,
        _ => {
            let reason = "Only gzip and identity content-encodings are supported";
            return Err(Error::new(ErrorKind::BadContentType, reason));
        }
    };
    let head = AttachmentHead {
        content_type: call.header(header::CONTENT_TYPE).map(str::to_owned),
        encoding,
        md5: call.header("content-md5").map(Digest::from_base64).transpose()?,
        length: call.body.length(),
    };
    let too_large = {
        let name = name.to_owned();
        move || Error::new(ErrorKind::AttachmentTooLarge, name.clone())
    };
    let limit = call.live.max_attachment.min(call.live.max_request);
    let body = call.pieces(limit, too_large)?;
    let done = member.put_attachment(&id, name, rev, head, body).await?;
    let reply = saved(&done, StatusCode::CREATED)?;
    reply::with(reply, header::LOCATION, &call.location(&[&id, name]))
}

/// `DELETE /{db}/{id}/{name}`
pub(super) async fn delete(member: Member, call: Arc<Call>) -> Result<Response> {
    let (id, name) = (doc_id(&call), call.param("name"));
    check(&id, name)?;
    let rev = base_rev(&call, None)?;
    let options = GetOptions { rev: rev.clone(), ..GetOptions::default() };
    let doc = member.db().get(&id, &options).await.map_err(|error| match options.rev {
        Some(_) if error.is_not_found() => Error::missing_rev(),
        _ => error,
    })?;
    if doc.attachments.iter().all(|attachment| attachment.name != name) {
        return Err(Error::new(ErrorKind::NotFound, "Document is missing attachment"));
    }
    saved(&member.delete_attachment(&id, name, rev).await?, StatusCode::OK)
}

fn check(id: &str, name: &str) -> Result<()> {
    match check_doc_id(id)? {
        DocKind::Local => {
            return Err(Error::bad_request("_local documents do not accept attachments."));
        }
        DocKind::Normal | DocKind::Design => {}
    }
    match name.starts_with('_') {
        true => Err(Error::bad_request(format!(
            "Attachment name '{name}' starts with prohibited character '_'"
        ))),
        false => Ok(()),
    }
}

fn saved(done: &Saved, status: StatusCode) -> Result<Response> {
    let mut text = Vec::new();
    done.write_json(&mut text);
    Ok(reply::json_text(status, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_one_or_none() {
        assert_eq!(parse_range("bytes=2-5"), Some(ByteRange::Within(2, 5)));
        assert_eq!(parse_range("Bytes=2-"), Some(ByteRange::From(2)));
        assert_eq!(parse_range("bytes=-5"), Some(ByteRange::Last(5)));
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}
