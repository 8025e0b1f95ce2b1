//! A document: what a write brings and what a read returns.
//!
//! The body is kept as normalised JSON text, never as a tree of values: a write stores that text, a
//! read returns it, and only who asks for a member parses it.

use crate::attachment::Attachment;
use crate::rev::{Rev, RevId};
use bytes::Bytes;

/// A document's members, without those that begin with `_`.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// Normalised JSON text of an object, from `{` to `}`.
    text: Bytes,
    /// The body in Erlang's external term format, which the revision hash is computed over.
    /// Present where the text has just been parsed for a write.
    term: Option<Bytes>,
}

/// A revision and its ancestors, as `_revisions` lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revisions {
    /// The generation of the first id.
    pub start: u64,
    /// The revision itself, then its parent, and so on.
    pub ids: Vec<RevId>,
}

/// A document with its id, revision, attachments and body.
///
/// In a write, [`rev`](Document::rev) is the revision the edit is based on (with `new_edits=false`:
/// the revision it has). In a read it is the revision that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// `_id`.
    pub id: Option<String>,
    /// `_rev`.
    pub rev: Option<Rev>,
    /// `_deleted`.
    pub deleted: bool,
    /// `_revisions`.
    pub revisions: Option<Revisions>,
    /// `_attachments`, in the document's order.
    pub attachments: Vec<Attachment>,
    /// Everything else that a read was asked to add.
    pub meta: Meta,
    /// The members that do not begin with `_`.
    pub body: Body,
}

/// What a read adds to a document when asked to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// `_local_seq`.
    pub local_seq: Option<u64>,
    /// `_revs_info`, newest first.
    pub revs_info: Option<Vec<(Rev, RevStatus)>>,
    /// `_conflicts`: the other leaves that are alive.
    pub conflicts: Vec<Rev>,
    /// `_deleted_conflicts`: the other leaves that are deleted.
    pub deleted_conflicts: Vec<Rev>,
}

/// What has become of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevStatus {
    /// Its body is here.
    Available,
    /// Its body was removed by compaction, or never came.
    Missing,
    /// It is a deletion.
    Deleted,
}

impl Default for Body {
    fn default() -> Body {
        Body { text: Bytes::from_static(b"{}"), term: None }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}
