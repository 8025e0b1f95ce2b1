//! A document: what a write brings and what a read returns.
//!
//! The body is kept as normalised JSON text, never as a tree of values: a write stores that text, a
//! read returns it, and only who asks for a member parses it.

use crate::attachment::{Attachment, Digest};
use crate::error::{Error, ErrorKind, Result};
use crate::id::check_doc_id;
use crate::json::{self, Limits, Members, Parser, Specials, term, write_string};
use crate::rev::{Rev, RevId};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

/// A document's members, without those that begin with `_` (but for the few that CouchDB's
/// replicator keeps there).
///
/// Two bodies are equal if their texts are.
#[derive(Clone)]
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
///
/// ```
/// use settee_core::Document;
///
/// let mut doc: Document = r#"{"_id": "lackey-129", "first": "Oliver", "last": "Reeder"}"#.parse()?;
/// assert_eq!(doc.id.as_deref(), Some("lackey-129"));
/// doc.set("office", "Richmond Terrace")?;
/// assert_eq!(doc.get("first"), Some("Oliver".into()));
/// assert_eq!(
///     format!("{doc:?}"),
///     r#"<Document lackey-129 {first:"Oliver", last:"Reeder", office:"Richmond Terrace"}>"#,
/// );
/// # Ok::<(), settee_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
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

impl RevStatus {
    /// What `_revs_info` calls it.
    pub fn name(self) -> &'static str {
        match self {
            RevStatus::Available => "available",
            RevStatus::Missing => "missing",
            RevStatus::Deleted => "deleted",
        }
    }

    fn from_name(name: &str) -> Option<RevStatus> {
        [RevStatus::Available, RevStatus::Missing, RevStatus::Deleted]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// How to write a document as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteJson {
    /// Say of attachments how they are encoded.
    pub att_encoding_info: bool,
    /// Write attachments whose content is here as if it followed in parts of its own.
    pub follows: bool,
}

/// Members that begin with `_` and belong to the body all the same, with their quotes.
const KEPT: [&[u8]; 6] = [
    b"\"_access\"",
    b"\"_replication_id\"",
    b"\"_replication_state\"",
    b"\"_replication_state_reason\"",
    b"\"_replication_state_time\"",
    b"\"_replication_stats\"",
];

/// Members that are fields of [`Document`], with their quotes.
const SPECIAL: [&[u8]; 9] = [
    b"\"_id\"",
    b"\"_rev\"",
    b"\"_revisions\"",
    b"\"_deleted\"",
    b"\"_attachments\"",
    b"\"_local_seq\"",
    b"\"_revs_info\"",
    b"\"_conflicts\"",
    b"\"_deleted_conflicts\"",
];

/// Whether a member (its name in normalised text, with quotes) is a field of [`Document`].
pub(crate) fn is_special(name: &[u8]) -> bool {
    SPECIAL.contains(&name)
}

/// Whether a member (its name in normalised text, with quotes) that begins with `_` belongs to the
/// body.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    KEPT.contains(&name)
}

fn doc_validation(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::DocValidation, reason)
}

impl Default for Body {
    fn default() -> Body {
        Body { text: Bytes::from_static(b"{}"), term: Some(Bytes::from_static(term::EMPTY_OBJECT)) }
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self.text == other.text
    }
}

impl Eq for Body {}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Body {
    pub(crate) fn parsed(text: Bytes, term: Bytes) -> Body {
        Body { text, term: Some(term) }
    }

    /// A body from text that came from [`Body::text`] and was stored since. It is not checked
    /// again.
    pub fn from_stored(text: Bytes) -> Body {
        Body { text, term: None }
    }

    /// Normalised JSON text of an object, from `{` to `}`.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// [`Body::text`] as a string; empty if what was stored is damaged.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The body in Erlang's external term format, if it was parsed or had it computed.
    pub fn term(&self) -> Option<&Bytes> {
        self.term.as_ref()
    }

    /// The same body with its term, computed from the text where it is missing.
    ///
    /// # Errors
    ///
    /// `Internal` if the stored text is damaged.
    pub fn with_term(mut self) -> Result<Body> {
        if self.term.is_none() {
            self.term = Some(self.compute_term()?);
        }
        Ok(self)
    }

    fn compute_term(&self) -> Result<Bytes> {
        match &self.term {
            Some(term) => Ok(term.clone()),
            None => json::term_of(&self.text).map(Bytes::from).map_err(Error::internal),
        }
    }

    /// The members: names, and values as text.
    ///
    /// ```
    /// # use settee_core::Document;
    /// let doc: Document = r#"{"_id": "x", "a": [1, 2], "b": 2.50}"#.parse()?;
    /// let members: Vec<_> = doc.body.members().collect();
    /// assert_eq!(members, [("a".into(), "[1,2]"), ("b".into(), "2.5")]);
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    pub fn members(&self) -> Members<'_> {
        json::members(self.as_str())
    }

    /// A member's value as text, found without looking into the others.
    pub fn get(&self, member: &str) -> Option<&str> {
        let mut name = Vec::with_capacity(member.len() + 2);
        write_string(&mut name, member);
        let mut members = self.members();
        std::iter::from_fn(|| members.next_raw())
            .find(|(found, _)| found.as_bytes() == name)
            .map(|(_, value)| value)
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.text.len() <= 2
    }

    /// The body as a tree of values, nested however deep.
    pub fn to_value(&self) -> Value {
        json::to_value(self.as_str())
    }

    /// Replaces a member's value, or appends the member; with `None` removes it. All else stays as
    /// it is.
    fn put(&mut self, member: &str, value: Option<&str>) {
        let mut name = Vec::with_capacity(member.len() + 2);
        write_string(&mut name, member);
        let mut text = Vec::with_capacity(self.text.len() + name.len() + 8);
        let mut write = |name: &[u8], value: &str| {
            text.push(if text.is_empty() { b'{' } else { b',' });
            text.extend_from_slice(name);
            text.push(b':');
            text.extend_from_slice(value.as_bytes());
        };
        let mut members = self.members();
        let mut value = value;
        let mut found = false;
        while let Some((other, old)) = members.next_raw() {
            if other.as_bytes() != name {
                write(other.as_bytes(), old);
            } else {
                found = true;
                if let Some(value) = value.take() {
                    write(&name, value);
                }
            }
        }
        if let (false, Some(value)) = (found, value) {
            write(&name, value);
        }
        text.extend_from_slice(if text.is_empty() { b"{}" } else { b"}" });
        *self = Body { text: text.into(), term: None };
    }
}

impl Revisions {
    /// The revision itself.
    pub fn rev(&self) -> Option<Rev> {
        let id = self.ids.first()?.clone();
        Some(Rev { pos: self.start, id })
    }
}

impl Document {
    /// A document without id, revision or members.
    pub fn new() -> Document {
        Document::default()
    }

    /// A document with an id, and nothing else.
    pub fn with_id(id: impl Into<String>) -> Document {
        Document { id: Some(id.into()), ..Document::default() }
    }

    /// Reads a document from JSON, in one pass.
    ///
    /// ```
    /// use settee_core::Document;
    /// use settee_core::json::Limits;
    ///
    /// let doc = Document::parse(br#"{"_id": "x", "_deleted": true, "n": 1.50}"#, &Limits::default())?;
    /// assert!(doc.deleted);
    /// assert_eq!(doc.body.text(), r#"{"n":1.5}"#);
    ///
    /// let error = Document::parse(br#"{"_odd": 1}"#, &Limits::default()).unwrap_err();
    /// assert_eq!(error.to_string(), "doc_validation: Bad special document member: _odd");
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` if this is no JSON, nested too deep, or no object, or if a revision or an
    /// attachment is malformed; `IllegalDocId`; `DocValidation` if another member beginning with
    /// `_` is unknown or malformed; `DocumentTooLarge`; `AttachmentTooLarge`.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Document> {
        let mut parser = Parser::new(text, limits)?;
        let body = parser.document_body()?;
        // What is no JSON at all is refused as such, whatever else is wrong with it.
        parser.end()?;
        parser.finish_document(body)
    }

    /// A document from a tree of values.
    ///
    /// # Errors
    ///
    /// As [`Document::parse`] with default limits.
    pub fn from_value(value: Value) -> Result<Document> {
        Document::from_serialize(&value)
    }

    /// A document from whatever serialises as one.
    ///
    /// ```
    /// use settee_core::Document;
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Person {
    ///     #[serde(rename = "_id")]
    ///     id: String,
    ///     age: u32,
    /// }
    ///
    /// let doc = Document::from_serialize(&Person { id: "johndoe".into(), age: 42 })?;
    /// assert_eq!(doc.id.as_deref(), Some("johndoe"));
    /// let person: Person = doc.to()?;
    /// assert_eq!((person.id.as_str(), person.age), ("johndoe", 42));
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` if it cannot be serialised, else as [`Document::parse`] with default limits.
    pub fn from_serialize(value: &impl Serialize) -> Result<Document> {
        Document::parse(&serialize(value)?, &Limits::default())
    }

    /// The document as a tree of values, with its `_` members.
    pub fn to_value(&self) -> Value {
        json::to_value(&self.to_json())
    }

    /// The document as whatever deserialises from one; `_id`, `_rev` and the others are members.
    ///
    /// # Errors
    ///
    /// `DocValidation` if it has another shape.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.to_json();
        // serde_json reads no deeper than some levels from text, but any depth from values.
        serde_json::from_str(&text)
            .or_else(|error| {
                if error.is_data() { Err(error) } else { T::deserialize(json::to_value(&text)) }
            })
            .map_err(|error| doc_validation(error.to_string()).with_source(error))
    }

    /// A member's value; `_id` and the like are fields.
    pub fn get(&self, member: &str) -> Option<Value> {
        self.body.get(member).map(json::to_value)
    }

    /// Sets a member, which keeps its place or comes last. `_id`, `_rev` and the other members that
    /// are fields are set as [`Document::parse`] would.
    ///
    /// # Errors
    ///
    /// `BadRequest` if the value cannot be serialised; for names that begin with `_` as
    /// [`Document::parse`].
    pub fn set(&mut self, member: &str, value: impl Serialize) -> Result<()> {
        let limits = Limits::default();
        let text = json::normalize(&serialize(&value)?, &limits)?;
        let mut name = Vec::with_capacity(member.len() + 2);
        write_string(&mut name, member);
        if member.starts_with('_') && !is_kept(&name) {
            if member == "_rev" {
                self.revisions = None;
            }
            return self.set_special(&name, &text, &limits);
        }
        self.body.put(member, Some(utf8(&text)));
        Ok(())
    }

    /// Removes a member, and returns what it was.
    pub fn remove(&mut self, member: &str) -> Option<Value> {
        let old = self.get(member)?;
        self.body.put(member, None);
        Some(old)
    }

    /// The hash of the revision that an edit with this document makes: CouchDB's, byte for byte, so
    /// that the same edit made in two places is one revision.
    ///
    /// `parent` is the revision the edit is based on, and `attachments` are names, media types and
    /// digests of all the revision will have, in the document's order.
    ///
    /// ```
    /// use settee_core::{Document, Rev};
    ///
    /// let doc: Document = r#"{"foo": "bar"}"#.parse()?;
    /// let rev = Rev::new(1, doc.revision_hash(false, None, [].into_iter())?);
    /// assert_eq!(rev.to_string(), "1-4c6114c65e295552ab1019e2b046b10e");
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Internal` if the body was stored and its text is damaged.
    pub fn revision_hash<'a>(
        &self,
        deleted: bool,
        parent: Option<&Rev>,
        attachments: impl Iterator<Item = (&'a str, &'a str, &'a Digest)>,
    ) -> Result<[u8; 16]> {
        let body = self.body.compute_term()?;
        let mut term = Vec::with_capacity(64);
        term.push(term::VERSION);
        term::list(&mut term, 5);
        term::atom(&mut term, if deleted { "true" } else { "false" });
        match parent {
            Some(parent) => {
                // Generations fit in 48 bits.
                term::integer(&mut term, parent.pos as i64);
                term::binary(&mut term, parent.id.as_bytes());
            }
            None => {
                term::integer(&mut term, 0);
                term::integer(&mut term, 0);
            }
        }
        let mut hash = Md5::new();
        hash.update(&term);
        hash.update(&body);
        term.clear();
        let attachments: Vec<_> = attachments.collect();
        let list = term::open_list(&mut term);
        for (name, content_type, digest) in attachments.iter().rev() {
            term::tuple(&mut term, 3);
            term::binary(&mut term, name.as_bytes());
            term::binary(&mut term, content_type.as_bytes());
            term::binary(&mut term, &digest.0);
        }
        term::close_list(&mut term, list, attachments.len());
        term::nil(&mut term);
        hash.update(&term);
        Ok(hash.finalize().into())
    }

    /// The document as JSON: [`Document::write_json`] with its defaults.
    pub fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(self.body.text.len() + 128);
        self.write_json(&mut out, &WriteJson::default());
        String::from_utf8(out).unwrap_or_default()
    }

    /// Appends the document as JSON, as CouchDB's replies have it.
    ///
    /// Inline attachments are written with their content as it is here.
    ///
    /// ```
    /// use settee_core::document::{Document, WriteJson};
    ///
    /// let doc: Document = r#"{"n": 1, "_id": "x"}"#.parse()?;
    /// let mut out = Vec::new();
    /// doc.write_json(&mut out, &WriteJson::default());
    /// assert_eq!(out, br#"{"_id":"x","n":1}"#);
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    pub fn write_json(&self, out: &mut Vec<u8>, options: &WriteJson) {
        let mut members = Writer { out, empty: true };
        members.out.push(b'{');
        if let Some(id) = &self.id {
            write_string(members.member("_id"), id);
        }
        let revisions = self.revisions.as_ref();
        if let Some(rev) = self.rev.as_ref() {
            write_rev(members.member("_rev"), rev);
        }
        if !self.body.is_empty() {
            let inner = self.body.text.get(1..self.body.text.len() - 1).unwrap_or_default();
            members.separate().extend_from_slice(inner);
        }
        if self.deleted {
            members.member("_deleted").extend_from_slice(b"true");
        }
        if let Some(revisions) = revisions {
            let out = members.member("_revisions");
            let _ = write!(out, r#"{{"start":{},"ids":"#, revisions.start);
            write_array(out, &revisions.ids, write_rev_id);
            out.push(b'}');
        }
        if let Some(infos) = &self.meta.revs_info {
            write_array(members.member("_revs_info"), infos, |out, (rev, status)| {
                out.extend_from_slice(br#"{"rev":"#);
                write_rev(out, rev);
                let _ = write!(out, r#","status":"{}"}}"#, status.name());
            });
        }
        if !self.meta.conflicts.is_empty() {
            write_array(members.member("_conflicts"), &self.meta.conflicts, write_rev);
        }
        if !self.meta.deleted_conflicts.is_empty() {
            let revs = &self.meta.deleted_conflicts;
            write_array(members.member("_deleted_conflicts"), revs, write_rev);
        }
        if let Some(seq) = self.meta.local_seq {
            let _ = write!(members.member("_local_seq"), "{seq}");
        }
        if !self.attachments.is_empty() {
            let out = members.member("_attachments");
            let mut entries = Writer { out, empty: true };
            entries.out.push(b'{');
            for attachment in &self.attachments {
                attachment.write_json(entries.member(&attachment.name), options);
            }
            entries.out.push(b'}');
        }
        members.out.push(b'}');
    }

    /// A document from what the parser found.
    pub(crate) fn from_parts(body: Body, specials: &Specials, limits: &Limits) -> Result<Document> {
        let mut doc = Document { body, ..Document::default() };
        for (name, value) in specials.iter() {
            doc.set_special(name, value, limits)?;
        }
        if doc.body.text.len() > limits.document {
            let id = doc.id.unwrap_or_default();
            return Err(Error::new(ErrorKind::DocumentTooLarge, id));
        }
        Ok(doc)
    }

    /// Takes a member that begins with `_`, by its name with quotes and its value, both in
    /// normalised text.
    fn set_special(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        let name = json::string(utf8(name)).unwrap_or_default();
        let value = utf8(value);
        let bad = || Err(doc_validation(format!("Bad special document member: {name}")));
        match name.as_ref() {
            "_id" => {
                let id = json::string(value).ok_or_else(|| {
                    Error::new(ErrorKind::IllegalDocId, "Document id must be a string")
                })?;
                check_doc_id(&id)?;
                self.id = Some(id.into_owned());
            }
            // `_revisions` says more, and counts where they disagree.
            "_rev" if self.revisions.is_some() => {}
            "_rev" => self.rev = Some(read_rev(value)?),
            "_revisions" => {
                if !value.starts_with('{') {
                    return bad();
                }
                let revisions = read_revisions(value)?;
                self.rev = revisions.rev();
                self.revisions = Some(revisions);
            }
            "_deleted" => match json::boolean(value) {
                Some(deleted) => self.deleted = deleted,
                None => return bad(),
            },
            "_attachments" => {
                if !value.starts_with('{') {
                    return bad();
                }
                // As in CouchDB, entries that are no objects are ignored.
                self.attachments = json::members(value)
                    .filter(|(_, entry)| entry.starts_with('{'))
                    .map(|(name, entry)| Attachment::read(name.into_owned(), entry, limits))
                    .collect::<Result<_>>()?;
            }
            // A reply may have these, and who has read it may write it back: never an error.
            "_local_seq" => self.meta.local_seq = value.parse().ok(),
            "_revs_info" => self.meta.revs_info = read_revs_info(value),
            "_conflicts" => self.meta.conflicts = read_revs(value).unwrap_or_default(),
            "_deleted_conflicts" => {
                self.meta.deleted_conflicts = read_revs(value).unwrap_or_default();
            }
            _ => return bad(),
        }
        Ok(())
    }
}

fn serialize(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::bad_request(error.to_string()).with_source(error))
}

/// Text that is UTF-8 because it was parsed.
fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}

/// A revision from a JSON string.
pub(crate) fn read_rev(value: &str) -> Result<Rev> {
    json::string(value).ok_or_else(|| Error::bad_request("Invalid rev format"))?.parse()
}

/// Revisions from a JSON array of strings.
pub(crate) fn read_revs(value: &str) -> Result<Vec<Rev>> {
    if !value.starts_with('[') {
        return Err(Error::bad_request("Invalid list of revisions"));
    }
    json::elements(value).map(read_rev).collect()
}

fn read_revisions(value: &str) -> Result<Revisions> {
    let (mut start, mut ids) = (None, None);
    for (name, value) in json::members(value) {
        match name.as_ref() {
            "start" => start = value.parse().ok().filter(|&start: &u64| start < 1 << 48),
            "ids" if value.starts_with('[') => ids = Some(value),
            _ => {}
        }
    }
    let start = start.ok_or_else(|| doc_validation("_revisions.start isn't an integer."))?;
    let ids = ids.ok_or_else(|| doc_validation("_revisions.ids isn't a array."))?;
    let ids = json::elements(ids)
        .map(|id| {
            let id = json::string(id).ok_or_else(|| doc_validation("RevId isn't a string"))?;
            id.parse().map_err(|_| doc_validation("RevId isn't a valid hexadecimal"))
        })
        .collect::<Result<Vec<RevId>>>()?;
    // The first id has generation `start`, each next one less; local documents have generation 0.
    if ids.is_empty() || ids.len() as u64 > start.max(1) {
        return Err(doc_validation("_revisions.start doesn't match _revisions.ids."));
    }
    Ok(Revisions { start, ids })
}

fn read_revs_info(value: &str) -> Option<Vec<(Rev, RevStatus)>> {
    if !value.starts_with('[') {
        return None;
    }
    json::elements(value)
        .map(|entry| {
            let member = |name| json::members(entry).find(|member| member.0 == name).map(|m| m.1);
            let rev = read_rev(member("rev")?).ok()?;
            Some((rev, RevStatus::from_name(&json::string(member("status")?)?)?))
        })
        .collect()
}

/// Writes members of an object, with commas between them.
pub(crate) struct Writer<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) empty: bool,
}

impl Writer<'_> {
    /// Puts a comma unless this is the first member.
    pub(crate) fn separate(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out
    }

    /// Begins a member; its value comes next.
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }
}

pub(crate) fn write_array<T>(
    out: &mut Vec<u8>,
    elements: &[T],
    mut write: impl FnMut(&mut Vec<u8>, &T),
) {
    out.push(b'[');
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

/// Appends a revision as a JSON string.
pub(crate) fn write_rev(out: &mut Vec<u8>, rev: &Rev) {
    match &rev.id {
        RevId::Hash(hash) => {
            out.push(b'"');
            out.extend_from_slice(itoa::Buffer::new().format(rev.pos).as_bytes());
            out.push(b'-');
            write_hex(out, hash);
            out.push(b'"');
        }
        RevId::Text(_) => write_string(out, &rev.to_string()),
    }
}

fn write_rev_id(out: &mut Vec<u8>, id: &RevId) {
    match id {
        RevId::Hash(hash) => {
            out.push(b'"');
            write_hex(out, hash);
            out.push(b'"');
        }
        RevId::Text(text) => write_string(out, text),
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend(
        bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    );
}

impl FromStr for Document {
    type Err = Error;

    fn from_str(text: &str) -> Result<Document> {
        Document::parse(text.as_bytes(), &Limits::default())
    }
}

impl TryFrom<Value> for Document {
    type Error = Error;

    fn try_from(value: Value) -> Result<Document> {
        Document::from_value(value)
    }
}

/// As JSON text, to formats that are JSON.
impl Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_json())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// From JSON text, in formats that are JSON; read as [`Document::parse`] with default limits does.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        text.get().parse().map_err(serde::de::Error::custom)
    }
}

/// `<Document lackey-129[1] {first:"Oliver", last:"Reeder"}>`: id, generation, and the first 80
/// characters of the members.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PREVIEW: usize = 80;
        f.write_str("<Document ")?;
        if let Some(id) = &self.id {
            f.write_str(id)?;
            if let Some(rev) = &self.rev {
                write!(f, "[{}]", rev.pos)?;
            }
            f.write_str(" ")?;
        }
        let mut preview = String::from("{");
        for (name, value) in self.body.members() {
            if preview.len() > 1 {
                preview.push_str(", ");
            }
            preview.push_str(&name);
            preview.push(':');
            // Enough of it to be cut.
            preview.extend(value.chars().take(PREVIEW));
            if preview.len() > 4 * PREVIEW {
                break;
            }
        }
        preview.push('}');
        match preview.char_indices().nth(PREVIEW) {
            Some((end, _)) => write!(f, "{}...>", &preview[..end]),
            None => write!(f, "{preview}>"),
        }
    }
}
