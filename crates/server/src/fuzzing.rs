//! What the fuzzer calls of this crate's insides.

use crate::multipart::{self, Reader};
use axum::body::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use settee_core::{Error, Result};

/// A multipart body, and its boundary as the first line: whatever pieces it comes in, it is the same
/// parts or an error.
///
/// # Panics
///
/// If it is not.
pub fn multipart(bytes: &[u8]) {
    let (line, body) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(0));
    let line = format!("multipart/related; boundary=\"{}\"", String::from_utf8_lossy(line));
    let Ok(boundary) = multipart::boundary(&line) else { return };
    let body = body.get(1..).unwrap_or_default();
    let whole = parts(body, body.len().max(1), &boundary);
    for size in [1, 2, 7, 64] {
        assert_eq!(parts(body, size, &boundary), whole, "in pieces of {size}");
    }
}

/// The parts' names and contents, or nothing if the body is refused.
fn parts(body: &[u8], size: usize, boundary: &str) -> Option<Vec<(Option<String>, Bytes)>> {
    let pieces: Vec<_> = body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut reader = Reader::new(stream::iter(pieces).boxed(), boundary);
    let read = async {
        let mut parts = Vec::new();
        while let Some(headers) = reader.part().await? {
            let name = headers.disposition("filename");
            let too_large = || Error::bad_request("too large");
            parts.push((name, reader.data(1 << 20, too_large).await?));
        }
        Ok(parts)
    };
    // Everything is there already, so nothing waits.
    let read: Option<Result<_>> = read.now_or_never();
    read.and_then(Result::ok)
}
