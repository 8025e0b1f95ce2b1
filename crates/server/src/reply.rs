//! Replies: JSON values, JSON that is written row by row, redirects.

use crate::related;
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{StatusCode, header::InvalidHeaderValue};
use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use settee_core::{Error, Result, Rev};

pub(crate) type Response = axum::http::Response<Body>;

/// No body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = status;
    reply
}

/// A body of a type.
pub(crate) fn full(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response {
    let mut reply = Response::new(Body::from(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// JSON text, without the line end that every body has.
pub(crate) fn json_text(status: StatusCode, mut text: Vec<u8>) -> Response {
    text.push(b'\n');
    full(status, "application/json", text)
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response> {
    Ok(json_text(status, serde_json::to_vec(value).map_err(Error::internal)?))
}

/// A value as JSON, 200.
pub(crate) fn ok_json(value: &impl Serialize) -> Result<Response> {
    json(StatusCode::OK, value)
}

/// `{"ok":true}`.
pub(crate) fn ok(status: StatusCode) -> Response {
    json_text(status, br#"{"ok":true}"#.to_vec())
}

/// 405, and what is allowed.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response {
    let body = format!(r#"{{"error":"method_not_allowed","reason":"Only {allow} allowed"}}"#);
    let mut reply = json_text(StatusCode::METHOD_NOT_ALLOWED, body.into_bytes());
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// 304, which repeats the tag.
pub(crate) fn not_modified(etag: &str) -> Result<Response> {
    with(empty(StatusCode::NOT_MODIFIED), header::ETAG, etag)
}

/// 301 to an address.
pub(crate) fn moved(location: &str) -> Result<Response> {
    with(empty(StatusCode::MOVED_PERMANENTLY), header::LOCATION, location)
}

/// The reply with one more header.
pub(crate) fn with(mut reply: Response, name: HeaderName, value: &str) -> Result<Response> {
    reply.headers_mut().insert(name, header_value(value)?);
    Ok(reply)
}

/// A header's value from text that may hold more than ASCII.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text)
        .or_else(|_| HeaderValue::from_bytes(text.as_bytes()))
        .map_err(|e: InvalidHeaderValue| Error::internal(e))
}

/// A body that is written as it comes. If it fails, the connection breaks: the status is gone
/// already, and half a reply must not look like a whole one.
pub(crate) fn streamed<S>(media_type: &str, body: S) -> Result<Response>
where
    S: Stream<Item = Result<Bytes>> + Send + 'static,
{
    let body = body.inspect(|piece| {
        if let Err(error) = piece {
            tracing::error!(%error, "a reply broke off");
        }
    });
    with(Response::new(Body::from_stream(body)), header::CONTENT_TYPE, media_type)
}

/// JSON that is written as it comes.
pub(crate) fn json_stream<S>(body: S) -> Result<Response>
where
    S: Stream<Item = Result<Bytes>> + Send + 'static,
{
    streamed("application/json", body)
}

/// The rows of a listing behind its head, as CouchDB writes them: one piece for each batch.
pub(crate) fn rows<T: Send + 'static>(
    head: Vec<u8>,
    rows: BoxStream<'static, Result<Vec<T>>>,
    write: impl Fn(&T, &mut Vec<u8>) + Send + 'static,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let mut any = false;
    let batches = rows.map_ok(move |batch| {
        let mut text = Vec::with_capacity(batch.len() * 128);
        for row in &batch {
            if std::mem::replace(&mut any, true) {
                text.extend_from_slice(b",\r\n");
            }
            write(row, &mut text);
        }
        Bytes::from(text)
    });
    related::piece(head).chain(batches).chain(related::piece("\r\n]}"))
}

/// Items as they come, with text before, between and behind them.
pub(crate) fn joined<S>(
    before: &'static str,
    between: &'static str,
    items: S,
    behind: &'static str,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static
where
    S: Stream<Item = Result<Vec<u8>>> + Send + 'static,
{
    let mut separator = before;
    let items = items.map(move |item| {
        let separator = std::mem::replace(&mut separator, between);
        item.map(|item| (separator, item))
    });
    let ends = stream::once(async { None });
    let mut any = false;
    items.map(Some).chain(ends).map(move |item| match item {
        Some(item) => {
            let (separator, item) = item?;
            any = true;
            Ok([separator.as_bytes(), &item].concat().into())
        }
        None if any => Ok(Bytes::from_static(behind.as_bytes())),
        None => Ok([before, behind].concat().into()),
    })
}

/// A document's entity tag.
pub(crate) fn etag(rev: &Rev) -> String {
    format!("\"{rev}\"")
}

/// Whether a list of entity tags, as `If-None-Match` has them, contains this one.
pub(crate) fn matches_etag(list: Option<&str>, etag: &str) -> bool {
    let strip = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    list.is_some_and(|list| list.split(',').any(|tag| strip(tag) == strip(etag)))
}
