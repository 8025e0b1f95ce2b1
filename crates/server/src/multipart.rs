//! Multipart bodies: read piece by piece within bounds, and written with boundaries that cannot
//! occur in what they separate.

use crate::auth::random_hex;
use axum::body::Bytes;
use bytes::BytesMut;
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use memchr::memmem;
use settee::adapter::{ByteStream, Part, Parts};
use settee_core::{Error, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// The longest boundary; RFC 2046 says 70, PouchDB and CouchDB stay below.
const MAX_BOUNDARY: usize = 200;

/// The most bytes of a part's headers.
const MAX_PART_HEADERS: usize = 16 << 10;

/// The longest stretch before the first part.
const MAX_PREAMBLE: usize = 64 << 10;

/// The boundary of a `Content-Type`.
pub(crate) fn boundary(content_type: &str) -> Result<String> {
    let boundary = parameter(content_type, "boundary").unwrap_or_default();
    match boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        true => Err(bad("The multipart boundary is missing or too long.")),
        false => Ok(boundary),
    }
}

/// A parameter of a header like `text/plain; charset="utf-8"`.
pub(crate) fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let is_it = key.trim().eq_ignore_ascii_case(name);
        let after = after.trim_start();
        let (found, behind) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if is_it {
            return Some(found);
        }
        rest = behind.trim_start().strip_prefix(';')?;
    }
}

/// A quoted text whose opening quote is gone, and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((found, &text[at + 1..])),
            '\\' => found.push(chars.next()?.1),
            _ => found.push(c),
        }
    }
    None
}

fn bad(reason: &'static str) -> Error {
    Error::bad_request(reason)
}

/// A part's headers: names in lower case.
#[derive(Debug, Default)]
pub(crate) struct PartHeaders(Vec<(String, String)>);

impl PartHeaders {
    fn parse(text: &[u8]) -> Result<PartHeaders> {
        let text = std::str::from_utf8(text).map_err(|_| bad("A part's headers are not UTF-8."))?;
        let lines = text.split("\r\n").filter(|line| !line.is_empty());
        let header = |line: &str| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad("A part's header has no colon."))?;
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(PartHeaders(lines.map(header).collect::<Result<_>>()?))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// A parameter of `Content-Disposition`.
    pub(crate) fn disposition(&self, name: &str) -> Option<String> {
        parameter(self.get("content-disposition")?, name)
    }
}

/// Reads a multipart body part by part. A part's data must be read to its end before the next part
/// is asked for; asking early skips it.
pub(crate) struct Reader {
    body: ByteStream,
    buffer: BytesMut,
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first boundary.
    Preamble,
    /// Behind a boundary.
    Boundary,
    /// In a part's headers.
    Headers,
    /// In a part's data.
    Data,
    /// Behind the last boundary.
    Done,
}

impl Reader {
    pub(crate) fn new(body: ByteStream, boundary: &str) -> Reader {
        // As if a line end came before: the first boundary may stand at the very beginning.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Reader { body, buffer, delimiter, stage: Stage::Preamble }
    }

    /// Takes in more of the body. It is an error if there is none.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.body.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.buffer.extend_from_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(None) => {
                Poll::Ready(Err(bad("The multipart body ends before its last boundary.")))
            }
        }
    }

    /// The next part's headers; `None` behind the last part.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<PartHeaders>>> {
        loop {
            match self.stage {
                Stage::Done => return Poll::Ready(Ok(None)),
                Stage::Preamble | Stage::Data => match self.poll_data(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Ok(_)) | None) => {}
                },
                Stage::Boundary => {
                    if self.buffer.starts_with(b"--") {
                        self.stage = Stage::Done;
                    } else if let Some(end) = memmem::find(&self.buffer, b"\r\n") {
                        if self.buffer[..end].iter().any(|byte| !matches!(byte, b' ' | b'\t')) {
                            return Poll::Ready(Err(bad("A multipart boundary is malformed.")));
                        }
                        // The line end stays: headers end with two in a row, also if there are none.
                        let _ = self.buffer.split_to(end);
                        self.stage = Stage::Headers;
                    } else if self.buffer.len() > MAX_BOUNDARY {
                        return Poll::Ready(Err(bad("A multipart boundary is malformed.")));
                    } else {
                        match self.poll_more(cx) {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                }
                Stage::Headers => match memmem::find(&self.buffer, b"\r\n\r\n") {
                    Some(end) if end <= MAX_PART_HEADERS => {
                        let headers = self.buffer.split_to(end + 4);
                        self.stage = Stage::Data;
                        return Poll::Ready(PartHeaders::parse(&headers).map(Some));
                    }
                    None if self.buffer.len() <= MAX_PART_HEADERS => match self.poll_more(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    },
                    _ => return Poll::Ready(Err(bad("A part's headers are too long."))),
                },
            }
        }
    }

    /// Some of the current part's data; `None` at its end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if !matches!(self.stage, Stage::Data | Stage::Preamble) {
            return Poll::Ready(None);
        }
        let mut skipped = 0;
        loop {
            if let Some(at) = memmem::find(&self.buffer, &self.delimiter) {
                if at > 0 && self.stage == Stage::Data {
                    return Poll::Ready(Some(Ok(self.buffer.split_to(at).freeze())));
                }
                let _ = self.buffer.split_to(at + self.delimiter.len());
                self.stage = Stage::Boundary;
                return Poll::Ready(None);
            }
            // What may be the beginning of a boundary is kept until more is there.
            let safe = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                let data = self.buffer.split_to(safe).freeze();
                if self.stage == Stage::Data {
                    return Poll::Ready(Some(Ok(data)));
                }
                skipped += data.len();
                if skipped > MAX_PREAMBLE {
                    return Poll::Ready(Some(Err(bad("The multipart body has no boundary."))));
                }
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// [`Reader::poll_part`], awaited.
    pub(crate) async fn part(&mut self) -> Result<Option<PartHeaders>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    /// The rest of the current part, if it is no longer than this.
    pub(crate) async fn data(
        &mut self,
        limit: usize,
        too_large: impl Fn() -> Error,
    ) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_data(cx)).await {
            let piece = piece?;
            if whole.len() + piece.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The parts that are still to come, as attachments' contents.
    pub(crate) fn into_parts(self) -> Parts {
        let shared = Arc::new(Mutex::new(self));
        let parts = stream::poll_fn(move |cx| {
            let mut reader = shared.lock().unwrap_or_else(PoisonError::into_inner);
            reader.poll_part(cx).map(|part| {
                part.transpose().map(|headers| {
                    let headers = headers?;
                    let name = headers.disposition("filename");
                    Ok(Part { name, body: Data(shared.clone()).boxed() })
                })
            })
        });
        parts.boxed()
    }
}

/// One part's data.
struct Data(Arc<Mutex<Reader>>);

impl Stream for Data {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_data(cx)
    }
}

/// A boundary for a body that is written. It is random, so that nobody can have put it into a
/// document beforehand.
pub(crate) fn new_boundary() -> String {
    random_hex(16)
}

/// A text as a quoted parameter of a header: no quotes, no line ends.
pub(crate) fn quoted(text: &str) -> String {
    let escape = |c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => "_".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body that comes in pieces of a size.
    async fn read(body: &[u8], piece: usize) -> Result<Vec<(Option<String>, Vec<u8>)>> {
        let pieces: Vec<Result<Bytes>> =
            body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut reader = Reader::new(stream::iter(pieces).boxed(), "xx");
        let mut parts = Vec::new();
        while let Some(headers) = reader.part().await? {
            let data = reader.data(1 << 20, || bad("too large")).await?;
            parts.push((headers.disposition("filename"), data.to_vec()));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn parts_are_found_however_the_body_is_cut() {
        let body = b"preamble\r\n--xx\r\nContent-Type: application/json\r\n\r\n{}\r\n--xx \r\n\
            Content-Disposition: attachment; size=3; filename=\"a \\\"b\\\"; c\"\r\n\r\n\
            \r\n--x\r\n--xx\r\n\r\n\r\n--xx--\r\nepilogue";
        for piece in 1..body.len() {
            let parts = read(body, piece).await.unwrap();
            assert_eq!(parts.len(), 3, "{piece}");
            assert_eq!(parts[0], (None, b"{}".to_vec()));
            assert_eq!(parts[1], (Some("a \"b\"; c".into()), b"\r\n--x".to_vec()));
            assert_eq!(parts[2], (None, Vec::new()));
        }
    }

    #[tokio::test]
    async fn bodies_that_end_early_are_refused() {
        for body in [
            "",
            "--xx",
            "--xx\r\n",
            "--xx\r\nA: b",
            "--xx\r\nA: b\r\n\r\ndata",
            "--xx\r\nA: b\r\n\r\ndata\r\n--x",
            "--xxx\r\n\r\n\r\n--xx--",
            "--xx\r\nno colon\r\n\r\n\r\n--xx--",
        ] {
            assert_eq!(read(body.as_bytes(), 3).await.unwrap_err().status(), 400, "{body:?}");
        }
        let long = format!("--xx\r\nA: {}", "b".repeat(MAX_PART_HEADERS + 1));
        assert!(read(long.as_bytes(), 1000).await.is_err());
    }

    #[test]
    fn boundaries_are_found_in_their_header() {
        assert_eq!(boundary("multipart/related; boundary=abc").unwrap(), "abc");
        assert_eq!(boundary("multipart/related; type=x; Boundary=\"a;b\"; z=1").unwrap(), "a;b");
        assert!(boundary("multipart/related").is_err());
        assert!(boundary("multipart/related; boundary=").is_err());
        assert!(boundary(&format!("multipart/related; boundary={}", "a".repeat(300))).is_err());
    }
}
