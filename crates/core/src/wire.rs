//! What travels: the bodies of requests and replies, shared by server and remote client.

use crate::document::{Document, WriteJson, Writer, read_rev, read_revs, write_array, write_rev};
use crate::error::{Error, ErrorKind};
use crate::id::check_doc_id;
use crate::json::{self, Limits, Parser, write_string};
use crate::options::BulkGetItem;
use crate::rev::Rev;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

mod read;

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
/// assert_eq!(asked[1].as_ref().unwrap_err().error.reason(), "document id missed");
/// # Ok::<(), settee_core::Error>(())
/// ```
///
/// # Errors
///
/// `BadRequest` if there is no array `docs`.
pub fn parse_bulk_get(
    text: &[u8],
    limits: &Limits,
) -> Result<Vec<Result<BulkGetItem, DocError>>, Error> {
    let text = json::normalize(text, limits)?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    if !text.starts_with('{') {
        return Err(json::not_an_object());
    }
    let docs = json::members(text).find(|(name, _)| name == "docs").map(|(_, docs)| docs);
    let docs = docs
        .filter(|docs| docs.starts_with('['))
        .ok_or_else(|| Error::bad_request("Missing JSON list of 'docs'."))?;
    Ok(json::elements(docs).map(read_bulk_get_item).collect())
}

fn read_bulk_get_item(entry: &str) -> Result<BulkGetItem, DocError> {
    let mut item = BulkGetItem { id: String::new(), rev: None, atts_since: Vec::new() };
    let fail =
        |item: &BulkGetItem, error| DocError { id: item.id.clone(), rev: item.rev.clone(), error };
    let bad = |item: &BulkGetItem, reason| Err(fail(item, Error::bad_request(reason)));
    if !entry.starts_with('{') {
        return bad(&item, "document must be a JSON object");
    }
    let member = |name| json::members(entry).find(|member| member.0 == name).map(|m| m.1);
    match member("id") {
        None => return bad(&item, "document id missed"),
        Some(id) => {
            let Some(id) = json::string(id) else {
                let error = Error::new(ErrorKind::IllegalDocId, "Document id must be a string");
                return Err(fail(&item, error));
            };
            item.id = id.into_owned();
            check_doc_id(&item.id).map_err(|error| fail(&item, error))?;
        }
    }
    if let Some(rev) = member("rev") {
        item.rev = Some(read_rev(rev).map_err(|error| fail(&item, error))?);
    }
    if let Some(since) = member("atts_since") {
        if !since.starts_with('[') {
            return bad(&item, "att_since value must be array of revs.");
        }
        item.atts_since = read_revs(since).map_err(|error| fail(&item, error))?;
    }
    Ok(item)
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
