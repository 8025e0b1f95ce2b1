//! Compressed replies, for clients that ask for them: piece by piece, so that what a reply has
//! written so far can be read so far.

use crate::call::Call;
use crate::reply::Response;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use std::io::Write as _;

/// Shorter replies stay as they are.
const MIN_LENGTH: u64 = 1400;

/// Marks replies that are not to be compressed: feeds that stay open, where an encoder each would
/// be most of what they cost.
#[derive(Clone, Copy)]
pub(crate) struct Live;

/// Compresses a reply if the client takes that and it is worth it.
pub(crate) fn maybe_compress(call: &Call, reply: Response) -> Response {
    let accepted = call.header(header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
    let known_length = axum::body::HttpBody::size_hint(reply.body()).exact();
    let headers = reply.headers();
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !accepted
        || !call.live.compress_replies
        || call.is_head()
        || reply.status() == StatusCode::PARTIAL_CONTENT
        || reply.extensions().get::<Live>().is_some()
        || headers.contains_key(header::CONTENT_ENCODING)
        || known_length.is_some_and(|length| length < MIN_LENGTH)
        // Attachments are stored compressed where that is worth it, and have ranges.
        || headers.contains_key(header::ACCEPT_RANGES)
        || media_type != Some(b"application/json")
    {
        return reply;
    }
    let (mut parts, body) = reply.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, compress(body))
}

fn compress(body: Body) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = Some((body.into_data_stream(), encoder));
    Body::from_stream(stream::try_unfold(state, |state| async move {
        let Some((mut pieces, mut encoder)) = state else { return Ok(None) };
        let more = match pieces.next().await {
            Some(piece) => {
                encoder.write_all(&piece?).and_then(|()| encoder.flush())?;
                let written = std::mem::take(encoder.get_mut());
                (Bytes::from(written), Some((pieces, encoder)))
            }
            None => (Bytes::from(encoder.finish()?), None),
        };
        Ok::<_, axum::BoxError>(Some(more))
    }))
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0))
        });
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

/// As above, for attachments, which may be stored compressed.
pub(crate) fn is_accepted(call: &Call) -> bool {
    call.header(header::ACCEPT_ENCODING).is_some_and(accepts_gzip)
}
