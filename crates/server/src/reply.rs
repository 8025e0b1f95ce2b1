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
use std::task::Poll;

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

/// Small pieces that are there at once become one of about this size: what each costs on its way
/// (compression, framing) is paid for all of them.
const PIECE: usize = 32 << 10;

/// A body that is written as it comes. If it fails, the connection breaks: the status is gone
/// already, and half a reply must not look like a whole one.
pub(crate) fn streamed<S>(media_type: &str, body: S) -> Result<Response>
where
    S: Stream<Item = Result<Bytes>> + Send + 'static,
{
    let body = gathered(body).inspect(|piece| {
        if let Err(error) = piece {
            tracing::error!(%error, "a reply broke off");
        }
    });
    with(Response::new(Body::from_stream(body)), header::CONTENT_TYPE, media_type)
}

/// The same bytes in larger pieces. None waits for what is not there yet.
fn gathered<S>(pieces: S) -> impl Stream<Item = Result<Bytes>> + Send + 'static
where
    S: Stream<Item = Result<Bytes>> + Send + 'static,
{
    let mut pieces = Box::pin(pieces.fuse());
    let mut failed = None;
    stream::poll_fn(move |cx| {
        if let Some(error) = failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while first.len().max(all.len()) < PIECE {
            match pieces.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) if first.is_empty() => first = piece,
                Poll::Ready(Some(Ok(piece))) => {
                    if all.is_empty() {
                        all.reserve(PIECE + piece.len());
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&piece);
                }
                Poll::Ready(Some(Err(error))) => {
                    failed = Some(error);
                    break;
                }
                Poll::Ready(None) => break,
                Poll::Pending if first.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        let piece = if all.is_empty() { first } else { all.into() };
        match piece.is_empty() {
            false => Poll::Ready(Some(Ok(piece))),
            true => Poll::Ready(failed.take().map(Err)),
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn small_pieces_are_put_together_and_none_waits_for_the_next() {
        let piece = |text: &'static str| Poll::Ready(Some(Ok(Bytes::from(text))));
        let big = "x".repeat(PIECE);
        let mut script = vec![
            piece("a"),
            piece(""),
            piece("b"),
            Poll::Pending,
            piece("c"),
            Poll::Ready(Some(Ok(Bytes::from(big.clone())))),
            piece("d"),
            Poll::Ready(Some(Err(Error::internal("broken")))),
        ]
        .into_iter();
        let mut pieces = Box::pin(gathered(stream::poll_fn(move |cx| {
            let next = script.next().unwrap_or(Poll::Ready(None));
            if next.is_pending() {
                cx.waker().wake_by_ref();
            }
            next
        })));
        let mut next = || pieces.next().now_or_never().unwrap();
        assert_eq!(next().unwrap().unwrap(), "ab");
        assert_eq!(next().unwrap().unwrap(), format!("c{big}"));
        assert_eq!(next().unwrap().unwrap(), "d");
        assert_eq!(next().unwrap().unwrap_err().reason(), "broken");
        assert!(next().is_none());
    }
}
