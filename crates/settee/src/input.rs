//! What the methods of [`Database`](crate::Database) take: documents in any form, references to
//! documents, and the content of attachments.

use crate::adapter::ByteStream;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use settee_core::json::Limits;
use settee_core::{Document, Error, Result, Rev};
use std::fmt;
use std::io::Read;

/// Whatever can be read as a document: JSON text, a [`Value`], a [`Document`], or a reference to
/// anything that serde can serialize to a JSON object.
///
/// ```
/// use serde_json::json;
/// use settee::IntoDocument;
///
/// #[derive(serde::Serialize)]
/// struct Person {
///     _id: &'static str,
///     born: u16,
/// }
///
/// let ada = r#"{"_id": "ada", "born": 1815}"#.into_document()?;
/// assert_eq!(json!({"_id": "ada", "born": 1815}).into_document()?, ada);
/// assert_eq!((&Person { _id: "ada", born: 1815 }).into_document()?, ada);
/// assert_eq!("[1, 2]".into_document().unwrap_err().status(), 400);
/// # Ok::<(), settee::Error>(())
/// ```
pub trait IntoDocument {
    /// The document.
    ///
    /// # Errors
    ///
    /// `BadRequest` if this is no JSON object, `DocValidation` if a member that begins with `_` is
    /// unknown or malformed.
    fn into_document(self) -> Result<Document>;
}

impl IntoDocument for Document {
    fn into_document(self) -> Result<Document> {
        Ok(self)
    }
}

impl IntoDocument for &str {
    fn into_document(self) -> Result<Document> {
        self.parse()
    }
}

impl IntoDocument for String {
    fn into_document(self) -> Result<Document> {
        self.as_str().into_document()
    }
}

impl IntoDocument for Value {
    fn into_document(self) -> Result<Document> {
        (&self).into_document()
    }
}

/// Anything that serde can serialize. A `&String` is JSON text, like a `String`.
impl<T: Serialize> IntoDocument for &T {
    fn into_document(self) -> Result<Document> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::bad_request(error.to_string()).with_source(error))?;
        match json.first() {
            Some(b'"') => serde_json::from_slice::<String>(&json)
                .map_err(|error| Error::bad_request(error.to_string()))?
                .into_document(),
            _ => Document::parse(&json, &Limits::default()),
        }
    }
}

/// A document by its id, or a revision of it.
///
/// Made from an id, from an id and a revision, or from a document (then it is the revision that the
/// document was read or saved as).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocRef<'a> {
    /// The document's id.
    pub id: &'a str,
    /// The revision, if it has to be that.
    pub rev: Option<&'a Rev>,
}

impl<'a> From<&'a str> for DocRef<'a> {
    fn from(id: &'a str) -> DocRef<'a> {
        DocRef { id, rev: None }
    }
}

impl<'a> From<&'a String> for DocRef<'a> {
    fn from(id: &'a String) -> DocRef<'a> {
        DocRef { id, rev: None }
    }
}

impl<'a> From<(&'a str, &'a Rev)> for DocRef<'a> {
    fn from((id, rev): (&'a str, &'a Rev)) -> DocRef<'a> {
        DocRef { id, rev: Some(rev) }
    }
}

/// A document without an id is referred to by the empty one, which no document has.
impl<'a> From<&'a Document> for DocRef<'a> {
    fn from(doc: &'a Document) -> DocRef<'a> {
        DocRef { id: doc.id.as_deref().unwrap_or_default(), rev: doc.rev.as_ref() }
    }
}

/// The content of an attachment to be written: bytes, text, or a stream of bytes.
pub struct AttachmentBody {
    /// How many bytes it has, where known.
    pub(crate) length: Option<u64>,
    pub(crate) stream: ByteStream,
}

impl AttachmentBody {
    /// Content that comes in pieces.
    pub fn from_stream<S, B, E>(pieces: S) -> AttachmentBody
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Into<Bytes> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let stream = pieces.map_ok(Into::into).map_err(Error::internal).boxed();
        AttachmentBody { length: None, stream }
    }

    /// The content of a file, or of anything else that is read in pieces.
    ///
    /// It is read on the thread that writes the attachment. Where that must not wait, as under an
    /// async runtime, use [`from_stream`](AttachmentBody::from_stream).
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::{AttachmentBody, Couch, Document};
    ///
    /// let db = Couch::memory()?.create("db").await?;
    /// let file = std::io::Cursor::new("Foo bar"); // or a `std::fs::File`
    /// let mut doc = Document::with_id("with-file");
    /// db.put_attachment(&mut doc, "foo.txt", AttachmentBody::from_reader(file), None).await?;
    ///
    /// let reader = db.attachment(&doc, "foo.txt").await?;
    /// assert_eq!((reader.length, reader.content_type.as_str()), (7, "text/plain"));
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub fn from_reader(reader: impl Read + Send + 'static) -> AttachmentBody {
        const PIECE: u64 = 64 * 1024;
        AttachmentBody::from_stream(stream::try_unfold(reader, |mut reader| async {
            let mut piece = Vec::new();
            let read = reader.by_ref().take(PIECE).read_to_end(&mut piece)?;
            Ok::<_, std::io::Error>((read > 0).then_some((piece, reader)))
        }))
    }
}

impl From<Bytes> for AttachmentBody {
    fn from(bytes: Bytes) -> AttachmentBody {
        let length = Some(bytes.len() as u64);
        AttachmentBody { length, stream: stream::iter([Ok(bytes)]).boxed() }
    }
}

impl From<Vec<u8>> for AttachmentBody {
    fn from(bytes: Vec<u8>) -> AttachmentBody {
        Bytes::from(bytes).into()
    }
}

impl From<String> for AttachmentBody {
    fn from(text: String) -> AttachmentBody {
        Bytes::from(text).into()
    }
}

impl From<&[u8]> for AttachmentBody {
    fn from(bytes: &[u8]) -> AttachmentBody {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl<const N: usize> From<&[u8; N]> for AttachmentBody {
    fn from(bytes: &[u8; N]) -> AttachmentBody {
        bytes.as_slice().into()
    }
}

impl From<&str> for AttachmentBody {
    fn from(text: &str) -> AttachmentBody {
        text.as_bytes().into()
    }
}

impl From<ByteStream> for AttachmentBody {
    fn from(stream: ByteStream) -> AttachmentBody {
        AttachmentBody { length: None, stream }
    }
}

impl fmt::Debug for AttachmentBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachmentBody").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The media type of a file by the ending of its name: the common ones.
pub(crate) fn guess_content_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "txt" | "text" | "log" => "text/plain",
        "css" => "text/css",
        "csv" => "text/csv",
        "htm" | "html" => "text/html",
        "md" => "text/markdown",
        "js" | "mjs" => "text/javascript",
        "xml" => "text/xml",
        "ics" => "text/calendar",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "tar" => "application/x-tar",
        "wasm" => "application/wasm",
        "bmp" => "image/bmp",
        "gif" => "image/gif",
        "ico" => "image/vnd.microsoft.icon",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "tif" | "tiff" => "image/tiff",
        "webp" => "image/webp",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/x-wav",
        "mp4" => "video/mp4",
        "mpg" | "mpeg" => "video/mpeg",
        "webm" => "video/webm",
        "ttf" => "font/ttf",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_follows_the_ending_whatever_its_case() {
        assert_eq!(guess_content_type("foo.txt"), "text/plain");
        assert_eq!(guess_content_type("a.b.PNG"), "image/png");
        assert_eq!(guess_content_type("README"), "application/octet-stream");
        assert_eq!(guess_content_type("what.ever"), "application/octet-stream");
    }
}
