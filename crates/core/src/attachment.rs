//! Attachments as documents carry them: metadata, and data or a stub for it.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

/// The MD5 of an attachment's bytes as they are stored, written `md5-` and base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The base64 part alone: an attachment's ETag and `Content-MD5`.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads the base64 part alone.
    ///
    /// # Errors
    ///
    /// `BadRequest` if this is not the base64 of 16 bytes.
    pub fn from_base64(text: &str) -> Result<Digest> {
        STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| Some(Digest(bytes.try_into().ok()?)))
            .ok_or_else(|| Error::bad_request("Invalid attachment digest"))
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        Digest::from_base64(text.strip_prefix("md5-").unwrap_or(text))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md5-{}", self.base64())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How an attachment's stored bytes were made from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
    /// gzip.
    Gzip,
}

/// One entry of a document's `_attachments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The name, unique within the document.
    pub name: String,
    /// The media type, `application/octet-stream` unless given.
    pub content_type: String,
    /// The generation of the revision that brought this content.
    pub revpos: Option<u64>,
    /// The MD5 of the stored bytes.
    pub digest: Option<Digest>,
    /// The length of the content, in bytes, where known.
    pub length: Option<u64>,
    /// How the stored bytes were made.
    pub encoding: Encoding,
    /// The length of the stored bytes, where they are encoded and it is known.
    pub encoded_length: Option<u64>,
    /// The content, or where it is to come from.
    pub data: AttachmentData,
}

/// Where an attachment's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentData {
    /// Not here. In a write: what the document has under this name already.
    Stub,
    /// Here, as stored (that is, encoded if [`Attachment::encoding`] says so).
    Inline(Bytes),
    /// In a part of the same request that follows the document.
    Follows,
}

impl Attachment {
    /// An attachment with its content.
    pub fn inline(
        name: impl Into<String>,
        content_type: impl Into<String>,
        data: impl Into<Bytes>,
    ) -> Attachment {
        let data = data.into();
        Attachment {
            name: name.into(),
            content_type: content_type.into(),
            revpos: None,
            digest: None,
            length: Some(data.len() as u64),
            encoding: Encoding::Identity,
            encoded_length: None,
            data: AttachmentData::Inline(data),
        }
    }
}
