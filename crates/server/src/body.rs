//! Request bodies: read within limits, in time, and decompressed where they come so.

use crate::call::Call;
use axum::body::{Body, Bytes};
use axum::http::Method;
use axum::http::header::{self, HeaderMap};
use bytes::BytesMut;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use settee::adapter::ByteStream;
use settee_core::json::Limits;
use settee_core::{Error, ErrorKind, Result};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How deep JSON may nest.
const MAX_DEPTH: usize = 500;

/// The largest body of a request that anybody may send.
const MAX_ANONYMOUS: u64 = 64 << 10;

/// A JSON value may take so many times the memory of its text.
const VALUE_WEIGHT: usize = 32;

/// How much of a body nobody wants is read all the same, and for how long.
const MAX_DRAIN: u64 = 1 << 20;
const MAX_DRAIN_TIME: Duration = Duration::from_secs(1);

/// A request's body, until somebody takes it.
pub(crate) struct Incoming {
    body: Mutex<Option<Body>>,
    length: Option<u64>,
    /// Whether the client sends the body only once it is asked for.
    waits: bool,
    /// How long reading it took, in milliseconds.
    millis: AtomicU64,
    /// How many of its bytes count as held in memory.
    held: AtomicU64,
}

impl Incoming {
    pub(crate) fn new(body: Body, headers: &HeaderMap) -> Incoming {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        Incoming {
            body: Mutex::new(Some(body)),
            length: length.and_then(|length| length.parse().ok()),
            waits: headers.contains_key(header::EXPECT),
            millis: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    pub(crate) fn millis(&self) -> u64 {
        self.millis.load(Relaxed)
    }

    /// How many of its bytes counted as held in memory, which they do no longer.
    pub(crate) fn let_go(&self) -> u64 {
        self.held.swap(0, Relaxed)
    }

    /// The length the client announced.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    fn take(&self) -> Option<Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads and drops what nobody took, within bounds.
    pub(crate) async fn drain(&self) {
        let Some(mut body) = self.take() else { return };
        // Reading would ask a client that waits for `100 Continue` to send what nobody wants.
        if self.waits || axum::body::HttpBody::is_end_stream(&body) {
            return;
        }
        let drain = async {
            let mut rest = MAX_DRAIN;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                rest = match rest.checked_sub(length) {
                    Some(rest) => rest,
                    None => break,
                };
            }
        };
        let _ = tokio::time::timeout(MAX_DRAIN_TIME, drain).await;
    }
}

/// The next piece of a body; `None` at its end.
async fn next_piece(body: &mut Body, patience: Duration) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, "The request body did not arrive in time.")
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(e)) => {
                return Err(Error::bad_request("The request body ended early.").with_source(e));
            }
            Some(Ok(frame)) => {
                // Trailers are not looked at.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

impl Call {
    /// Refuses a body that is not announced as JSON.
    pub(crate) fn require_json(&self) -> Result<()> {
        let media_type = self.header(header::CONTENT_TYPE).unwrap_or_default();
        if media_type.split(';').next().unwrap_or_default().trim() == "application/json" {
            return Ok(());
        }
        Err(Error::new(ErrorKind::BadContentType, "Content-Type must be application/json"))
    }

    /// Bounds on JSON documents.
    pub(crate) fn limits(&self) -> Limits {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Limits {
            depth: MAX_DEPTH,
            document: size(self.live.max_document),
            attachment: size(self.live.max_attachment),
        }
    }

    /// The whole body.
    pub(crate) async fn bytes(&self) -> Result<Bytes> {
        self.collect(self.live.max_request).await
    }

    /// The body as a function of a design document gets it: a text, and none where the method has
    /// none. It may be as long as a document.
    pub(crate) async fn text(&self) -> Result<Option<String>> {
        if self.method == Method::GET {
            return Ok(None);
        }
        let bytes = self.collect(self.live.max_document).await?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The whole body of a request that needs no rights.
    pub(crate) async fn small_bytes(&self) -> Result<Bytes> {
        self.collect(self.live.max_request.min(MAX_ANONYMOUS)).await
    }

    /// The whole body, as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.bytes().await?;
        self.hold(text.len().saturating_mul(VALUE_WEIGHT), u64::MAX)?;
        parse_json(&text)
    }

    /// The whole body, as a JSON object.
    pub(crate) async fn object(&self) -> Result<Map<String, Value>> {
        match self.json().await? {
            Value::Object(object) => Ok(object),
            _ => Err(Error::bad_request("Request body must be a JSON object")),
        }
    }

    /// The body in pieces. A body longer than the limit ends in the error given.
    pub(crate) fn pieces(
        &self,
        limit: u64,
        too_large: impl Fn() -> Error + Send + 'static,
    ) -> Result<ByteStream> {
        if self.body.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let body = self.body.take().unwrap_or_default();
        let patience = self.live.body_timeout;
        let pieces = stream::try_unfold((body, limit), move |(mut body, rest)| {
            let too_large = too_large();
            async move {
                let Some(piece) = next_piece(&mut body, patience).await? else { return Ok(None) };
                let rest = rest.checked_sub(piece.len() as u64).ok_or(too_large)?;
                Ok(Some((piece, (body, rest))))
            }
        });
        Ok(pieces.boxed())
    }

    async fn collect(&self, limit: u64) -> Result<Bytes> {
        let encoding = self.header(header::CONTENT_ENCODING).unwrap_or("identity").trim();
        let gzip = match encoding.to_ascii_lowercase().as_str() {
            "gzip" => true,
            "identity" | "" => false,
            other => {
                let reason = format!("{other} is not a supported content encoding.");
                return Err(Error::new(ErrorKind::BadContentType, reason));
            }
        };
        if self.body.length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let began = Instant::now();
        let body = self.body.take().unwrap_or_default();
        let bytes = self.collect_pieces(body, limit).await?;
        self.body.millis.store(began.elapsed().as_millis() as u64, Relaxed);
        if gzip { self.decompress(&bytes, limit) } else { Ok(bytes) }
    }

    async fn collect_pieces(&self, mut body: Body, limit: u64) -> Result<Bytes> {
        let patience = self.live.body_timeout;
        let Some(first) = next_piece(&mut body, patience).await? else { return Ok(Bytes::new()) };
        self.hold(first.len(), limit)?;
        let Some(second) = next_piece(&mut body, patience).await? else { return Ok(first) };
        // The announced length is a promise of the client's, so it is believed only so far.
        let expected = self.body.length().unwrap_or(0).min(1 << 20) as usize;
        let mut whole = BytesMut::with_capacity(expected.max(first.len() + second.len()));
        whole.extend_from_slice(&first);
        let mut piece = Some(second);
        while let Some(bytes) = piece {
            self.hold(bytes.len(), limit)?;
            whole.extend_from_slice(&bytes);
            piece = next_piece(&mut body, patience).await?;
        }
        Ok(whole.freeze())
    }

    /// Counts bytes as held in memory, for this request and for the server.
    fn hold(&self, length: usize, limit: u64) -> Result<()> {
        let length = length as u64;
        let held = self.body.held.fetch_add(length, Relaxed) + length;
        let all = self.app.hold(length);
        if held > limit {
            return Err(too_large());
        }
        if all > self.live.max_buffered {
            return Err(Error::new(
                ErrorKind::ServiceUnavailable,
                "Too much is being written at the moment. Try again later.",
            ));
        }
        Ok(())
    }

    /// Decompresses a body; the limit is on what comes out.
    fn decompress(&self, bytes: &[u8], limit: u64) -> Result<Bytes> {
        let mut reader = flate2::read::MultiGzDecoder::new(bytes);
        let mut whole = Vec::new();
        let mut piece = [0; 16 << 10];
        loop {
            let length = reader.read(&mut piece).map_err(|e| {
                Error::bad_request("Request body is not properly gzipped.").with_source(e)
            })?;
            if length == 0 {
                return Ok(whole.into());
            }
            self.hold(length, limit)?;
            whole.extend_from_slice(&piece[..length]);
        }
    }
}

pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::bad_request("invalid UTF-8 JSON").with_source(e))
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, "the request entity is too large")
}
