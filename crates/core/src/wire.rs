//! What travels: the bodies of requests and replies, shared by server and remote client.

use crate::document::{Document, WriteJson, Writer, read_rev, read_revs, write_array, write_rev};
use crate::error::{Error, ErrorKind};
use crate::id::check_doc_id;
use crate::json::{self, Limits, Parser, write_string};
use crate::options::BulkGetItem;
use crate::rev::Rev;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

mod aging;
mod read;

pub use aging::{AutoPurge, TimeBin, TimeSeqReply, Ttl, TtlError, period};
pub use read::{BulkResult, parse_bulk_get_result, row_error};

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

impl Seq {
    /// Appends the sequence as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Seq::Number(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            }
            Seq::Opaque(text) => write_string(out, text),
        }
    }
}

/// Before the first change.
impl Default for Seq {
    fn default() -> Seq {
        Seq::Number(0)
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

impl Saved {
    /// Appends `{"ok":true,"id":…,"rev":…}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"ok":true,"id":"#);
        write_string(out, &self.id);
        out.extend_from_slice(br#","rev":"#);
        write_rev(out, &self.rev);
        out.push(b'}');
    }
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

impl DocError {
    /// Appends `{"id":…,["rev":…,]"error":…,"reason":…}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let mut members = Writer { out, empty: true };
        members.out.push(b'{');
        write_string(members.member("id"), &self.id);
        if let Some(rev) = &self.rev {
            write_rev(members.member("rev"), rev);
        }
        write_string(members.member("error"), self.error.name());
        write_string(members.member("reason"), self.error.reason());
        members.out.push(b'}');
    }
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

impl DocRow {
    /// Appends the row: `{"id":…,"key":…,"value":{"rev":…}}` and, where a document is given or
    /// `include_docs` says that one was asked for, `"doc"`; for an id that is not there
    /// `{"key":…,"error":"not_found"}`.
    ///
    /// ```
    /// use settee_core::document::WriteJson;
    /// use settee_core::wire::DocRow;
    ///
    /// let rev = Some("1-967a00dff5e02add41819138abb3284d".parse()?);
    /// let row = DocRow { id: "x".into(), rev, deleted: true, doc: None };
    /// let mut out = Vec::new();
    /// row.write_json(&mut out, true, &WriteJson::default());
    /// assert_eq!(
    ///     String::from_utf8_lossy(&out),
    ///     r#"{"id":"x","key":"x","value":{"rev":"1-967a00dff5e02add41819138abb3284d","deleted":true},"doc":null}"#,
    /// );
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    pub fn write_json(&self, out: &mut Vec<u8>, include_docs: bool, options: &WriteJson) {
        let Some(rev) = &self.rev else {
            out.extend_from_slice(br#"{"key":"#);
            write_string(out, &self.id);
            out.extend_from_slice(br#","error":"not_found"}"#);
            return;
        };
        out.extend_from_slice(br#"{"id":"#);
        let start = out.len();
        write_string(out, &self.id);
        let id = start..out.len();
        out.extend_from_slice(br#","key":"#);
        out.extend_from_within(id);
        out.extend_from_slice(br#","value":{"rev":"#);
        write_rev(out, rev);
        if self.deleted {
            out.extend_from_slice(br#","deleted":true"#);
        }
        out.push(b'}');
        write_doc(out, self.doc.as_deref(), include_docs, options);
        out.push(b'}');
    }
}

/// The `doc` at a row's end.
fn write_doc(out: &mut Vec<u8>, doc: Option<&Document>, include_docs: bool, options: &WriteJson) {
    match doc {
        Some(doc) => {
            out.extend_from_slice(br#","doc":"#);
            doc.write_json(out, options);
        }
        None if include_docs => out.extend_from_slice(br#","doc":null"#),
        None => {}
    }
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

impl Change {
    /// Appends the row: `{"seq":…,"id":…,"changes":[{"rev":…}]}`, with `"deleted":true` and `"doc"`
    /// as in [`DocRow::write_json`].
    pub fn write_json(&self, out: &mut Vec<u8>, include_docs: bool, options: &WriteJson) {
        out.extend_from_slice(br#"{"seq":"#);
        self.seq.write_json(out);
        out.extend_from_slice(br#","id":"#);
        write_string(out, &self.id);
        out.extend_from_slice(br#","changes":"#);
        write_array(out, &self.revs, |out, rev| {
            out.extend_from_slice(br#"{"rev":"#);
            write_rev(out, rev);
            out.push(b'}');
        });
        if self.deleted {
            out.extend_from_slice(br#","deleted":true"#);
        }
        write_doc(out, self.doc.as_deref(), include_docs, options);
        out.push(b'}');
    }
}

/// Reads [`RevsByDoc`], the body of `_revs_diff`, `_missing_revs` and `_purge`.
///
/// ```
/// use settee_core::json::Limits;
/// use settee_core::wire::parse_revs_by_doc;
///
/// let asked = parse_revs_by_doc(br#"{"x": ["1-abc", "2-def"]}"#, &Limits::default())?;
/// assert_eq!(asked["x"].len(), 2);
/// # Ok::<(), settee_core::Error>(())
/// ```
///
/// # Errors
///
/// `BadRequest` if it is no object of lists of revisions.
pub fn parse_revs_by_doc(text: &[u8], limits: &Limits) -> Result<RevsByDoc, Error> {
    let mut parser = Parser::new(text, limits)?;
    if parser.peek()? != b'{' {
        parser.whole_text()?;
        return Err(json::not_an_object());
    }
    let mut by_doc = RevsByDoc::new();
    // Of two members with one name the last counts, as everywhere.
    parser.object(|parser, id| {
        let revs = parser.value_text()?;
        by_doc.insert(id, read_revs(std::str::from_utf8(&revs).unwrap_or_default())?);
        Ok(())
    })?;
    parser.end()?;
    Ok(by_doc)
}

/// Reads the body of a `_bulk_get`. Each entry is good or bad for itself.
///
/// ```
/// use settee_core::json::Limits;
/// use settee_core::wire::parse_bulk_get;
///
/// let asked = parse_bulk_get(br#"{"docs": [{"id": "x", "rev": "1-abc"}, {}]}"#, &Limits::default())?;
/// assert_eq!(asked[0].as_ref().unwrap().id, "x");
/// assert_eq!(asked[1].as_ref().unwrap_err().error.reason(), "document must be a JSON object");
/// # Ok::<(), settee_core::Error>(())
/// ```
///
/// # Errors
///
/// `BadRequest` if there is no array `docs`.
pub fn parse_bulk_get(
    text: &[u8],
    limits: &Limits,
) -> Result<Vec<Result<BulkGetItem, BadItem>>, Error> {
    let text = json::normalize(text, limits)?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    if !text.starts_with('{') {
        return Err(json::not_an_object());
    }
    let docs = json::members(text).find(|(name, _)| name == "docs").map(|(_, docs)| docs);
    let docs = docs
        .filter(|docs| docs.starts_with('['))
        .ok_or_else(|| Error::bad_request("Missing JSON list of 'docs'."))?;
    let mut items = Vec::new();
    for entry in json::elements(docs) {
        items.push(read_bulk_get_item(entry));
    }
    Ok(items)
}

/// An entry of a `_bulk_get` that makes no sense, as the reply shows it.
#[derive(Debug)]
pub struct BadItem {
    /// The document's id as JSON text; `null` if there is none.
    pub id: String,
    /// The revision that is wrong as JSON text, or `null`.
    pub rev: String,
    /// What is wrong.
    pub error: Error,
}

/// Reads an entry of a `_bulk_get`.
fn read_bulk_get_item(entry: &str) -> Result<BulkGetItem, BadItem> {
    let bad =
        |id: &str, rev: &str, error| BadItem { id: id.to_owned(), rev: rev.to_owned(), error };
    if !entry.starts_with('{') || entry == "{}" {
        return Err(bad("null", "null", Error::bad_request("document must be a JSON object")));
    }
    let member = |name| json::members(entry).find(|member| member.0 == name).map(|m| m.1);
    let Some(text) = member("id") else {
        return Err(bad("null", "null", Error::bad_request("document id missed")));
    };
    let id = match json::string(text) {
        Some(id) => id.into_owned(),
        None => {
            let error = Error::new(ErrorKind::IllegalDocId, "Document id must be a string");
            return Err(bad(text, "null", error));
        }
    };
    check_doc_id(&id).map_err(|error| bad(text, "null", error))?;
    let rev = match member("rev") {
        Some(rev) => Some(read_rev(rev).map_err(|error| bad(text, rev, error))?),
        None => None,
    };
    let atts_since = match member("atts_since") {
        None => Vec::new(),
        Some(since) if since.starts_with('[') => {
            let revs = json::elements(since);
            let revs = revs.map(|rev| read_rev(rev).map_err(|error| bad(text, rev, error)));
            revs.collect::<Result<_, _>>()?
        }
        Some(since) => {
            let error = Error::bad_request("att_since value must be array of revs.");
            return Err(bad(text, since, error));
        }
    };
    Ok(BulkGetItem { id, rev, atts_since })
}

/// One row of a view.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ViewRow {
    /// The document that the row is of; `None` if it is reduced from many.
    pub id: Option<String>,
    /// The key, as JSON text.
    pub key: Bytes,
    /// The value, as JSON text.
    pub value: Bytes,
    /// The document, where asked for and alive.
    pub doc: Option<Box<Document>>,
    /// Why there is no such row (a row of `keys` of `_all_docs` only).
    pub error: Option<String>,
}

/// `<Row id="x", key=["a",1], value=null>`: what there is of it.
impl fmt::Debug for ViewRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Row ")?;
        if let Some(id) = &self.id {
            write!(f, "id={id:?}, ")?;
        }
        write!(f, "key={}", String::from_utf8_lossy(&self.key))?;
        if let Some(doc) = &self.doc {
            write!(f, ", doc={doc:?}")?;
        }
        match &self.error {
            Some(error) => write!(f, ", error={error:?}>"),
            None => write!(f, ", value={}>", String::from_utf8_lossy(&self.value)),
        }
    }
}

impl ViewRow {
    /// The key, as a value of some type.
    ///
    /// # Errors
    ///
    /// `BadReply` if it is something else.
    pub fn key_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        typed(&self.key)
    }

    /// The value, as a value of some type.
    ///
    /// # Errors
    ///
    /// `BadReply` if it is something else.
    pub fn value_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        typed(&self.value)
    }

    /// Appends the row: `{"id":…,"key":…,"value":…}` and, where `include_docs` says that one was
    /// asked for, `"doc"`.
    ///
    /// ```
    /// use settee_core::document::WriteJson;
    /// use settee_core::wire::ViewRow;
    ///
    /// let row = ViewRow { key: "null".into(), value: "42".into(), ..ViewRow::default() };
    /// let mut out = Vec::new();
    /// row.write_json(&mut out, false, &WriteJson::default());
    /// assert_eq!(out, br#"{"key":null,"value":42}"#);
    /// ```
    pub fn write_json(&self, out: &mut Vec<u8>, include_docs: bool, options: &WriteJson) {
        let mut members = Writer { out, empty: true };
        members.out.push(b'{');
        if let Some(id) = &self.id {
            write_string(members.member("id"), id);
        }
        members.member("key").extend_from_slice(&self.key);
        if let Some(error) = &self.error {
            write_string(members.member("error"), error);
        } else {
            members.member("value").extend_from_slice(&self.value);
            match &self.doc {
                Some(doc) => doc.write_json(members.member("doc"), options),
                None if include_docs => members.member("doc").extend_from_slice(b"null"),
                None => {}
            }
        }
        members.out.push(b'}');
    }
}

fn typed<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json)
        .map_err(|error| Error::new(ErrorKind::BadReply, error.to_string()).with_source(error))
}

/// A view that belongs to no design document: the body of a `_temp_view`.
///
/// ```
/// use settee_core::wire::TempView;
///
/// let view: TempView = serde_json::from_str(r#"{"map": "function(doc) { emit(doc.n) }"}"#)?;
/// assert_eq!(view.language, "javascript");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempView {
    /// What the functions are written in.
    #[serde(default = "javascript")]
    pub language: String,
    /// The source of the map function.
    pub map: String,
    /// The source of the reduce function, or the name of a built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<String>,
    /// As a design document's `options`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
}

fn javascript() -> String {
    "javascript".to_owned()
}

/// `GET /{db}/_design/{ddoc}/_info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesignInfo {
    /// The design document, without `_design/`.
    pub name: String,
    /// Its views' indexes.
    pub view_index: ViewIndexInfo,
}

/// What there is to know of a design document's indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewIndexInfo {
    /// Changes that are not indexed yet.
    #[serde(default)]
    pub updates_pending: UpdatesPending,
    /// Whether something is indexed but not durable.
    #[serde(default)]
    pub waiting_commit: bool,
    /// Queries that wait for an update.
    #[serde(default)]
    pub waiting_clients: u64,
    /// Whether an update is under way.
    #[serde(default)]
    pub updater_running: bool,
    /// Up to where changes are indexed.
    pub update_seq: Seq,
    /// Sizes in bytes.
    #[serde(default)]
    pub sizes: Sizes,
    /// Changes when the views do.
    pub signature: String,
    /// Up to where purges are indexed.
    #[serde(default)]
    pub purge_seq: Seq,
    /// What the views are written in.
    pub language: String,
    /// Whether a compaction is under way.
    #[serde(default)]
    pub compact_running: bool,
    /// Versions of the order of strings that are in use.
    #[serde(default)]
    pub collator_versions: Vec<String>,
}

/// Changes that are not indexed yet, by how a cluster counts its copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpdatesPending {
    /// On the copies that are ahead.
    #[serde(default)]
    pub minimum: u64,
    /// On the copies that would be asked.
    #[serde(default)]
    pub preferred: u64,
    /// On all copies.
    #[serde(default)]
    pub total: u64,
}

/// One entry of `GET /_active_tasks`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ActiveTask {
    /// What is being done: `indexer`, `database_compaction`, `view_compaction`, `replication`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In which database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// For which design document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub design_document: Option<String>,
    /// How many changes have been dealt with.
    #[serde(default)]
    pub changes_done: u64,
    /// How many there are to deal with.
    #[serde(default)]
    pub total_changes: u64,
    /// The same in percent.
    #[serde(default)]
    pub progress: u64,
    /// When it began, in seconds since 1970.
    #[serde(default)]
    pub started_on: u64,
    /// When this was last brought up to date, in seconds since 1970.
    #[serde(default)]
    pub updated_on: u64,
    /// What else the task says of itself.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
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
