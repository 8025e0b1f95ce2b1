//! What can be asked of a database, as values with defaults.
//!
//! The server reads them from a request, the remote client writes them into one, and the embedded
//! engine takes them as they are.

use crate::attachment::{Digest, Encoding};
use crate::rev::Rev;
use crate::selector::Selector;
use crate::wire::Seq;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it would survive a power cut.
    #[default]
    Flush,
    /// When it is visible. It becomes durable with the next write that flushes, with
    /// `ensure_full_commit`, or within a second or so (`batch=ok`).
    Deferred,
}

/// How to read one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetOptions {
    /// This revision instead of the winner.
    pub rev: Option<Rev>,
    /// With `rev`: the leaf that descends from it, if it is no leaf itself.
    pub latest: bool,
    /// Add `_revisions`.
    pub revs: bool,
    /// Add `_revs_info`.
    pub revs_info: bool,
    /// Add `_conflicts`.
    pub conflicts: bool,
    /// Add `_deleted_conflicts`.
    pub deleted_conflicts: bool,
    /// Add `_local_seq`.
    pub local_seq: bool,
    /// Return the attachments' content, not stubs.
    pub attachments: bool,
    /// Return the content only of attachments that none of these revisions had.
    pub atts_since: Vec<Rev>,
    /// Say of attachments how they are encoded; with `attachments`, return them as stored.
    pub att_encoding_info: bool,
}

/// Which leaves to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenRevs {
    /// All of them.
    All,
    /// These, in this order.
    Revs(Vec<Rev>),
}

/// How to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// `true`: an edit, which makes a new revision. `false`: revisions as they are elsewhere.
    pub new_edits: bool,
    /// When to acknowledge.
    pub durability: Durability,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions { new_edits: true, durability: Durability::Flush }
    }
}

/// One entry of a `_bulk_get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkGetItem {
    /// The document.
    pub id: String,
    /// The revision; every leaf if not given.
    pub rev: Option<Rev>,
    /// As in [`GetOptions::atts_since`].
    pub atts_since: Vec<Rev>,
}

/// Which documents `_all_docs` and its relatives list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DocSet {
    /// `_all_docs`.
    #[default]
    All,
    /// `_design_docs`.
    Design,
    /// `_local_docs`.
    Local,
}

/// How to list documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllDocsOptions {
    /// Which documents.
    pub set: DocSet,
    /// Just these ids, in this order, with a row for those that are missing or deleted.
    pub keys: Option<Vec<String>>,
    /// The first id.
    pub start: Option<String>,
    /// The last id.
    pub end: Option<String>,
    /// Whether `end` itself belongs to the range.
    pub inclusive_end: bool,
    /// From the last id to the first; `start` is then the highest.
    pub descending: bool,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Leave out so many rows first.
    pub skip: u64,
    /// Return the documents too.
    pub include_docs: bool,
    /// With `include_docs`: how.
    pub doc: GetOptions,
    /// Return the update sequence too.
    pub update_seq: bool,
}

impl Default for AllDocsOptions {
    fn default() -> AllDocsOptions {
        AllDocsOptions {
            set: DocSet::All,
            keys: None,
            start: None,
            end: None,
            inclusive_end: true,
            descending: false,
            limit: None,
            skip: 0,
            include_docs: false,
            doc: GetOptions::default(),
            update_seq: false,
        }
    }
}

/// When an index is brought forward for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Update {
    /// Before: the answer shows every write that has returned (`update=true`).
    #[default]
    Before,
    /// After: the answer shows what is indexed, and indexing goes on (`update=lazy`).
    After,
    /// Not at all (`update=false`).
    Never,
}

/// How to query a view. Keys are JSON texts.
///
/// What contradicts itself is refused by the view, in CouchDB's words: so a value here is what was
/// asked for, not what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewOptions {
    /// Just the rows with these keys, in this order. One key is the same as `start` and `end`.
    pub keys: Option<Vec<String>>,
    /// The first key.
    pub start: Option<String>,
    /// Of the rows with the first key, the first document.
    pub start_docid: Option<String>,
    /// The last key.
    pub end: Option<String>,
    /// Of the rows with the last key, the last document.
    pub end_docid: Option<String>,
    /// Whether `end` itself belongs to the range.
    pub inclusive_end: bool,
    /// From the last key to the first; `start` is then the highest.
    pub descending: bool,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Leave out so many rows first.
    pub skip: u64,
    /// Whether to reduce; if not given, what the view is made for.
    pub reduce: Option<bool>,
    /// One row for each key.
    pub group: Option<bool>,
    /// One row for keys that agree in so many first elements.
    pub group_level: Option<u64>,
    /// Return the documents too, or those that the rows' values name as `_id`.
    pub include_docs: bool,
    /// With `include_docs`: how.
    pub doc: GetOptions,
    /// When to bring the index forward.
    pub update: Update,
    /// Ask the same copy of the data every time. Here there is only one.
    pub stable: bool,
    /// Rows must come in order. Here they always do.
    pub sorted: bool,
    /// Return the update sequence too.
    pub update_seq: bool,
}

impl Default for ViewOptions {
    fn default() -> ViewOptions {
        ViewOptions {
            keys: None,
            start: None,
            start_docid: None,
            end: None,
            end_docid: None,
            inclusive_end: true,
            descending: false,
            limit: None,
            skip: 0,
            reduce: None,
            group: None,
            group_level: None,
            include_docs: false,
            doc: GetOptions::default(),
            update: Update::Before,
            stable: false,
            sorted: true,
            update_seq: false,
        }
    }
}

/// Where a feed begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Since {
    /// With the first change.
    #[default]
    Start,
    /// Behind the newest change.
    Now,
    /// Behind this one.
    Seq(Seq),
    /// With the first change since then, or somewhat earlier: when changes were made is known
    /// roughly, the better the less time has passed.
    Time(SystemTime),
}

/// Which revisions a change lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// The winner.
    #[default]
    MainOnly,
    /// Every leaf.
    AllDocs,
}

/// Which changes a feed reports.
#[derive(Debug, Clone, Default)]
pub enum Filter {
    /// All.
    #[default]
    None,
    /// Those of these documents.
    DocIds(Arc<HashSet<String>>),
    /// Those of design documents.
    Design,
    /// Those whose document matches.
    Selector(Arc<Selector>),
    /// Those that a function of a design document lets through.
    Function(Arc<FilterFunction>),
}

impl Filter {
    /// A filter function of a design document, as `ddoc/name`, called without parameters.
    pub fn function(name: impl Into<String>) -> Filter {
        Filter::function_with(name, Map::new())
    }

    /// A filter function of a design document, as `ddoc/name`, and what it finds in `req.query`.
    pub fn function_with(name: impl Into<String>, query: Map<String, Value>) -> Filter {
        Filter::Function(Arc::new(FilterFunction { name: name.into(), query }))
    }

    /// Documents for which the map function of a view, as `ddoc/name`, emits something.
    pub fn view(name: impl Into<String>) -> Filter {
        let query = Map::from_iter([("view".to_owned(), Value::String(name.into()))]);
        Filter::function_with(FilterFunction::VIEW, query)
    }
}

/// A function of a design document that filters changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterFunction {
    /// The function as `ddoc/name`, or [`FilterFunction::VIEW`].
    pub name: String,
    /// What the function finds in `req.query`; the member `view` says whose map function is meant
    /// by [`FilterFunction::VIEW`].
    pub query: Map<String, Value>,
}

impl FilterFunction {
    /// The filter that asks whether a view's map function emits something.
    pub const VIEW: &'static str = "_view";

    /// The view that is asked.
    pub fn view(&self) -> Option<&str> {
        (self.name == FilterFunction::VIEW).then(|| self.query.get("view")?.as_str()).flatten()
    }
}

/// How to read changes.
#[derive(Debug, Clone, Default)]
pub struct ChangesOptions {
    /// Where to begin.
    pub since: Since,
    /// At most so many changes.
    pub limit: Option<u64>,
    /// Newest first. `since` means nothing then.
    pub descending: bool,
    /// Which revisions of each document.
    pub style: Style,
    /// Which documents.
    pub filter: Filter,
    /// Return the documents too.
    pub include_docs: bool,
    /// With `include_docs`: how.
    pub doc: GetOptions,
    /// Go on with changes as they happen, until the stream is dropped.
    pub live: bool,
    /// With `live`: how often the server shows that it is still there. If not given, as the
    /// connection to it says. A database of this process needs none.
    pub heartbeat: Option<Duration>,
}

/// How to read an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachmentOptions {
    /// Of this revision instead of the winner.
    pub rev: Option<Rev>,
    /// Just these bytes of the content: first and last, both inclusive, already checked by nobody.
    pub range: Option<ByteRange>,
    /// Return the bytes as stored if they are stored so; else the content.
    pub accept_gzip: bool,
}

/// A part of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first byte given to the end.
    From(u64),
    /// From the first to the last, both inclusive.
    Within(u64, u64),
    /// The last so many bytes.
    Last(u64),
}

/// What comes with an attachment's bytes on a write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachmentHead {
    /// The media type, `application/octet-stream` if not given.
    pub content_type: Option<String>,
    /// How the bytes that come are encoded.
    pub encoding: Encoding,
    /// What their MD5 must be.
    pub md5: Option<Digest>,
    /// How many there are, where known.
    pub length: Option<u64>,
}
