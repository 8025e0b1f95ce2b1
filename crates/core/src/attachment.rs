//! Attachments as documents carry them: metadata, and data or a stub for it.

use crate::document::{WriteJson, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Limits, write_string};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The media type of attachments that have none.
pub const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// base64 as Erlang reads it: bits behind the last byte are ignored.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

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

    /// Reads an entry of `_attachments` from the normalised text of its object.
    pub(crate) fn read(name: String, entry: &str, limits: &Limits) -> Result<Attachment> {
        if name.starts_with('_') {
            return Err(Error::bad_request(format!(
                "Attachment name '{name}' starts with prohibited character '_'"
            )));
        }
        let mut attachment = Attachment {
            name,
            content_type: DEFAULT_CONTENT_TYPE.to_owned(),
            revpos: None,
            digest: None,
            length: None,
            encoding: Encoding::Identity,
            encoded_length: None,
            data: AttachmentData::Stub,
        };
        let (mut stub, mut follows, mut data) = (false, false, None);
        for (member, value) in json::members(entry) {
            let invalid = || {
                Error::bad_request(format!("Invalid {member} of attachment {}", attachment.name))
            };
            let number = || match value {
                "null" => Ok(None),
                value => value.parse::<u64>().map(Some).map_err(|_| invalid()),
            };
            match member.as_ref() {
                "stub" => stub = value == "true",
                "follows" => follows = value == "true",
                "data" => data = Some(value),
                "content_type" => {
                    attachment.content_type = json::string(value).ok_or_else(invalid)?.into_owned();
                }
                "revpos" => attachment.revpos = number()?,
                "length" => attachment.length = number()?,
                "encoded_length" => attachment.encoded_length = number()?,
                "digest" => {
                    // Digests of other kinds mean nothing here.
                    let digest = json::string(value).unwrap_or_default();
                    attachment.digest = digest
                        .strip_prefix("md5-")
                        .map(|md5| Digest::from_base64(md5).map_err(|_| invalid()))
                        .transpose()?;
                }
                "encoding" => {
                    attachment.encoding = match value {
                        "\"gzip\"" => Encoding::Gzip,
                        "\"identity\"" => Encoding::Identity,
                        _ => return Err(invalid()),
                    }
                }
                _ => {}
            }
        }
        if stub {
            attachment.data = AttachmentData::Stub;
        } else if follows {
            attachment.data = AttachmentData::Follows;
        } else {
            let bytes = data.and_then(json::string).and_then(decode_base64).ok_or_else(|| {
                Error::bad_request(format!("Invalid attachment data for {}", attachment.name))
            })?;
            // What comes inline is the content itself, whatever else the entry says.
            attachment.encoding = Encoding::Identity;
            attachment.length = Some(bytes.len() as u64);
            attachment.data = AttachmentData::Inline(bytes.into());
        }
        if attachment.encoding == Encoding::Identity {
            attachment.encoded_length = None;
        }
        // A stub brings nothing, and may be of what was allowed once, or elsewhere.
        let too_large = attachment.length.is_some_and(|length| length > limits.attachment as u64);
        if too_large && attachment.data != AttachmentData::Stub {
            return Err(Error::new(ErrorKind::AttachmentTooLarge, attachment.name));
        }
        Ok(attachment)
    }

    /// Appends the entry's object as CouchDB's replies have it.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, options: &WriteJson) {
        let mut members = Writer { out, empty: true };
        members.out.push(b'{');
        write_string(members.member("content_type"), &self.content_type);
        let number = |members: &mut Writer<'_>, name, value: Option<u64>| {
            if let Some(value) = value {
                let mut buffer = itoa::Buffer::new();
                members.member(name).extend_from_slice(buffer.format(value).as_bytes());
            }
        };
        number(&mut members, "revpos", self.revpos);
        if let Some(digest) = &self.digest {
            let out = members.member("digest");
            out.extend_from_slice(b"\"md5-");
            write_base64(out, &digest.0);
            out.push(b'"');
        }
        match &self.data {
            AttachmentData::Inline(data) if !options.follows => {
                let out = members.member("data");
                out.push(b'"');
                write_base64(out, data);
                out.push(b'"');
            }
            AttachmentData::Stub => {
                number(&mut members, "length", self.length);
                members.member("stub").extend_from_slice(b"true");
            }
            AttachmentData::Follows | AttachmentData::Inline(_) => {
                number(&mut members, "length", self.length);
                members.member("follows").extend_from_slice(b"true");
            }
        }
        if options.att_encoding_info && self.encoding == Encoding::Gzip {
            members.member("encoding").extend_from_slice(b"\"gzip\"");
            number(&mut members, "encoded_length", self.encoded_length);
        }
        members.out.push(b'}');
    }
}

/// Decodes base64 as Erlang does: white space in it is ignored.
fn decode_base64(text: Cow<'_, str>) -> Option<Vec<u8>> {
    LENIENT.decode(text.as_bytes()).ok().or_else(|| {
        let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        LENIENT.decode(text).ok()
    })
}

/// Appends base64 without another copy.
fn write_base64(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    out.resize(start + base64::encoded_len(data.len(), true).unwrap_or(0), 0);
    let written = STANDARD.encode_slice(data, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}
