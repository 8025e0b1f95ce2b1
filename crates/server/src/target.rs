//! Addresses as people type them.
//!
//! `curl 'http://…/_all_docs?startkey="a"'` sends its quotes as they are, CouchDB takes them, and
//! its manual is full of them; the HTTP parser behind this does not, because they may not be in a
//! URI. So on the way in, they are percent-encoded: in the first lines of requests, and nowhere else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much of a header's line as is looked at.
const LOOKED_AT: usize = 128;

/// A stream of requests whose addresses are encoded as they should be.
pub(crate) struct Targets<S> {
    stream: S,
    scanner: Scanner,
    /// What has been read and encoded, and did not fit into the reader's buffer.
    rest: Vec<u8>,
}

impl<S> Targets<S> {
    pub(crate) fn new(stream: S) -> Targets<S> {
        Targets { stream, scanner: Scanner::default(), rest: Vec::new() }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..fits]);
        match fits == self.rest.len() {
            true => self.rest = Vec::new(),
            false => drop(self.rest.drain(..fits)),
        }
    }
}

/// Knows where in the stream of requests a byte is.
///
/// It must find the same requests as the parser behind it. Where there could be two opinions, it
/// has none, and leaves everything from there on as it is.
#[derive(Default)]
struct Scanner {
    place: Place,
    /// The line so far, of a header as much as is looked at.
    line: Vec<u8>,
    /// What the headers so far say of the body's length.
    length: Option<u64>,
    /// Whether the headers so far say that somebody else must know where the request ends.
    unclear: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request's first line, or an empty line before it.
    #[default]
    First,
    Headers,
    /// So many bytes of a body are to come.
    Body(u64),
    /// Not to be known.
    Unknown,
}

impl Scanner {
    /// Takes the next bytes; returns what they should be, if that is something else.
    fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut encoded: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let piece = match self.place {
                Place::Unknown => rest,
                Place::Body(left) => {
                    &rest[..usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())]
                }
                Place::First | Place::Headers => {
                    &rest[..memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)]
                }
            };
            if self.place == Place::First && piece.iter().any(must_be_encoded) {
                let encoded = encoded.get_or_insert_with(|| bytes[..at].to_vec());
                for byte in piece {
                    match must_be_encoded(byte) {
                        true => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                        false => encoded.push(*byte),
                    }
                }
            } else if let Some(encoded) = &mut encoded {
                encoded.extend_from_slice(piece);
            }
            self.pass(piece);
            at += piece.len();
        }
        encoded
    }

    /// Goes on behind a piece that does not go beyond the place.
    fn pass(&mut self, piece: &[u8]) {
        match self.place {
            Place::Unknown => {}
            Place::Body(left) if left <= piece.len() as u64 => self.place = Place::First,
            Place::Body(left) => self.place = Place::Body(left - piece.len() as u64),
            Place::First | Place::Headers => {
                let (text, ends) = match piece.strip_suffix(b"\n") {
                    Some(text) => (text, true),
                    None => (piece, false),
                };
                let room = LOOKED_AT - self.line.len();
                self.line.extend_from_slice(&text[..text.len().min(room)]);
                if ends {
                    let line = std::mem::take(&mut self.line);
                    self.end_line(line.strip_suffix(b"\r").unwrap_or(&line));
                }
            }
        }
    }

    fn end_line(&mut self, line: &[u8]) {
        match self.place {
            Place::First if line.is_empty() => {}
            Place::First => {
                (self.length, self.unclear) = (None, line.starts_with(b"CONNECT "));
                self.place = Place::Headers;
            }
            _ if line.is_empty() => {
                self.place = match (self.unclear, self.length) {
                    (true, _) => Place::Unknown,
                    (false, None | Some(0)) => Place::First,
                    (false, Some(length)) => Place::Body(length),
                };
            }
            _ => self.header(line),
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            self.unclear = true;
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = value.iter().all(u8::is_ascii_digit) && line.len() < LOOKED_AT;
            let length = std::str::from_utf8(value).ok().filter(|_| digits);
            let length = length.and_then(|length| length.parse().ok());
            self.unclear |= length.is_none() || self.length.is_some();
            self.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"upgrade")
            || name.first().is_none_or(u8::is_ascii_whitespace)
            || name.last().is_some_and(u8::is_ascii_whitespace)
        {
            self.unclear = true;
        }
    }
}

/// What the parser refuses in an address, and what CouchDB's clients put there.
fn must_be_encoded(byte: &u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`') || !byte.is_ascii()
}

impl<S: AsyncRead + Unpin> AsyncRead for Targets<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            match this.scanner.take(&buf.filled()[before..]) {
                None => return Poll::Ready(Ok(())),
                Some(encoded) => {
                    buf.set_filled(before);
                    this.rest = encoded;
                }
            }
        }
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Targets<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out, however the bytes are cut into pieces.
    fn through(bytes: &[u8]) -> Vec<u8> {
        let cut = |size: usize| {
            let mut scanner = Scanner::default();
            let pieces = bytes.chunks(size);
            pieces.flat_map(|piece| scanner.take(piece).unwrap_or(piece.to_vec())).collect()
        };
        let whole: Vec<u8> = cut(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(cut(size), whole, "{size}");
        }
        whole
    }

    #[test]
    fn addresses_are_encoded_and_nothing_else() {
        let text = "GET /a\u{e9}`?k=\"<>\" HTTP/1.1\r\nx: \"\r\ncontent-length: 4\r\n\r\n\"\n\"<\
                    \r\nGET /\"b\" HTTP/1.1\r\nx: \"\"\r\n\r\nGET /\"c\" HTTP/1.1\r\n";
        let encoded = "GET /a%C3%A9%60?k=%22%3C%3E%22 HTTP/1.1\r\nx: \"\r\ncontent-length: 4\r\n\r\n\
                       \"\n\"<\r\nGET /%22b%22 HTTP/1.1\r\nx: \"\"\r\n\r\nGET /%22c%22 HTTP/1.1\r\n";
        assert_eq!(String::from_utf8(through(text.as_bytes())).unwrap(), encoded);
    }

    #[test]
    fn behind_a_request_whose_end_is_not_sure_nothing_is_touched() {
        for header in [
            "Transfer-Encoding: chunked",
            "upgrade: h2c",
            "content-length: +4",
            "content-length: 4\r\nContent-Length: 4",
            "content-length: 4, 4",
            "content-length : 4",
            "content-length:4\r\n folded",
            "no colon",
        ] {
            let text = format!("PUT / HTTP/1.1\r\n{header}\r\n\r\n1234GET /\" HTTP/1.1\r\n\r\n");
            assert_eq!(through(text.as_bytes()), text.as_bytes(), "{header}");
        }
        let long = format!("content-length: {}4", " ".repeat(LOOKED_AT));
        let text = format!("PUT / HTTP/1.1\r\n{long}\r\n\r\n1234GET /\" HTTP/1.1\r\n\r\n");
        assert_eq!(through(text.as_bytes()), text.as_bytes());
        let text = "CONNECT a HTTP/1.1\r\n\r\nGET /\" HTTP/1.1\r\n\r\n";
        assert_eq!(through(text.as_bytes()), text.as_bytes());
    }
}
