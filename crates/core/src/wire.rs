//! What travels: the bodies of requests and replies, shared by server and remote client.

use crate::document::Document;
use crate::error::{Error, ErrorKind};
use crate::rev::Rev;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An update sequence: a dense number in a local database, opaque text from a remote one.
///
/// Only numbers can be compared; a text is handed back to the server it came from as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Seq {
    /// A local sequence, or one of a CouchDB 1.x.
    Number(u64),
    /// A remote sequence.
    Opaque(String),
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seq::Number(number) => write!(f, "{number}"),
            Seq::Opaque(text) => f.write_str(text),
        }
    }
}

impl From<u64> for Seq {
    fn from(number: u64) -> Seq {
        Seq::Number(number)
    }
}

impl Serialize for Seq {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Seq::Number(number) => serializer.serialize_u64(*number),
            Seq::Opaque(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Seq {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Seq, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Seq;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an update sequence")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Seq, E> {
                Ok(Seq::Number(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Seq, E> {
                Ok(Seq::Opaque(text.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Seq, E> {
                Ok(Seq::Number(0))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `GET /{db}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// The database's name.
    pub db_name: String,
    /// Documents that are not deleted, design documents included.
    pub doc_count: u64,
    /// Documents that are deleted.
    pub doc_del_count: u64,
    /// The sequence of the newest change.
    pub update_seq: Seq,
    /// How many purges there have been.
    pub purge_seq: Seq,
    /// Sizes in bytes.
    pub sizes: Sizes,
    /// When the database was created: microseconds since 1970, as text.
    pub instance_start_time: String,
    /// Whether a compaction is under way.
    #[serde(default)]
    pub compact_running: bool,
}

/// A database's sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// On disk. Databases share files, so this is an estimate: the store's size by share of
    /// `active`.
    #[serde(default)]
    pub file: u64,
    /// Documents and attachments as JSON and content, uncompressed.
    #[serde(default)]
    pub external: u64,
    /// What of the files is in use.
    #[serde(default)]
    pub active: u64,
}

/// A write that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The document's id.
    pub id: String,
    /// Its new revision.
    pub rev: Rev,
}

/// The outcome of one document of a bulk write.
pub type WriteResult = Result<Saved, DocError>;

/// A write or a read that failed, and of which document.
#[derive(Debug)]
pub struct DocError {
    /// The document's id.
    pub id: String,
    /// The revision that was asked for or written, where there was one.
    pub rev: Option<Rev>,
    /// Why.
    pub error: Error,
}

/// One leaf of an `open_revs` or a `_bulk_get`: the document, or the revision that is not here.
#[derive(Debug)]
pub enum RevResult {
    /// Here it is.
    Found(Box<Document>),
    /// It is not here.
    Missing(DocError),
}

/// One row of `_all_docs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocRow {
    /// The document's id.
    pub id: String,
    /// Its winning revision; `None` if there is no such document (a row of `keys` only).
    pub rev: Option<Rev>,
    /// Whether it is deleted (a row of `keys` only).
    pub deleted: bool,
    /// The document, where asked for and alive.
    pub doc: Option<Box<Document>>,
}

/// One document's latest change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its sequence.
    pub seq: Seq,
    /// The document's id.
    pub id: String,
    /// The winner, or every leaf, winner first.
    pub revs: Vec<Rev>,
    /// Whether the winner is a deletion.
    pub deleted: bool,
    /// The winner, where asked for.
    pub doc: Option<Box<Document>>,
}

/// Document ids with revisions: `_revs_diff`, `_missing_revs`, `_purge`.
pub type RevsByDoc = BTreeMap<String, Vec<Rev>>;

/// What of a document's revisions is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingRevs {
    /// These are not.
    pub missing: Vec<Rev>,
    /// These are, and the missing ones may descend from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub possible_ancestors: Vec<Rev>,
}

/// `POST /{db}/_purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The purge sequence after it; `null` from clusters.
    pub purge_seq: Option<Seq>,
    /// What is gone.
    pub purged: RevsByDoc,
}

/// `_security`: who may do what with a database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    /// Who may change design documents and this object.
    #[serde(default)]
    pub admins: Principals,
    /// Who may read and write.
    #[serde(default)]
    pub members: Principals,
    /// What else the object holds, kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Names and roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Principals {
    /// User names.
    #[serde(default)]
    pub names: Vec<String>,
    /// Roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// The body of an error reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What.
    pub error: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

impl ErrorBody {
    /// The error this body meant, coming with a status.
    pub fn into_error(self, status: u16) -> Error {
        let kind = ErrorKind::from_status(status, &self.error);
        let error = Error::new(kind, self.reason.unwrap_or_default());
        if kind.name() == self.error { error } else { error.with_name(self.error) }
    }
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> ErrorBody {
        ErrorBody { error: error.name().to_owned(), reason: Some(error.reason().to_owned()) }
    }
}
