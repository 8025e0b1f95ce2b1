//! The one reading of JSON: a single pass that checks limits, splits off the `_` members, writes
//! normalised text and feeds the revision hash.
//!
//! Normalised text has no white space, no escapes but those that JSON demands, floats in their
//! shortest form, integers as they came, and no two members of one name in one object: of several,
//! the last counts, in its place. Everything that looks into a document later ([`members`],
//! [`elements`], [`string`], [`to_value`]) reads that text, so there are never two readings of one
//! document.

mod parser;
pub(crate) mod term;
mod text;

use crate::document::Document;
use crate::error::{Error, Result};
use bytes::Bytes;
pub(crate) use parser::{Parser, Specials};
use serde_json::Value;
use std::borrow::Cow;

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep arrays and objects may nest.
    pub depth: usize,
    /// The largest document, in bytes of normalised text (CouchDB's `max_document_size`).
    pub document: usize,
    /// The largest attachment that comes with a document, in bytes of content.
    pub attachment: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { depth: 500, document: 8_000_000, attachment: 1 << 30 }
    }
}

impl Limits {
    /// For text that was checked when it was stored.
    pub(crate) const NONE: Limits =
        Limits { depth: usize::MAX, document: usize::MAX, attachment: usize::MAX };
}

/// Checks a JSON value and writes it in normalised form.
///
/// ```
/// use settee_core::json::{Limits, normalize};
///
/// let text = normalize(br#" {"b": 1.50, "a": "\u00e9", "b": [ ]} "#, &Limits::default())?;
/// assert_eq!(text, r#"{"a":"é","b":[]}"#.as_bytes());
/// # Ok::<(), settee_core::Error>(())
/// ```
///
/// # Errors
///
/// `BadRequest` if this is not one JSON value in UTF-8, or is nested too deep.
pub fn normalize(text: &[u8], limits: &Limits) -> Result<Bytes> {
    Ok(Parser::new(text, limits)?.whole_text()?.into())
}

/// The term of a value, from its text.
pub(crate) fn term_of(text: &[u8]) -> Result<Vec<u8>> {
    Parser::new(text, &Limits::NONE)?.whole_term()
}

/// Appends a string as JSON.
///
/// ```
/// let mut out = Vec::new();
/// settee_core::json::write_string(&mut out, "a \"b\"\n");
/// assert_eq!(out, br#""a \"b\"\n""#);
/// ```
pub fn write_string(out: &mut Vec<u8>, content: &str) {
    text::escape(out, content.as_bytes());
}

/// Appends a float as JSON: the shortest decimal that reads back as this one and looks like a
/// float. What JSON cannot say (not a number, the infinities) becomes `null`.
pub fn write_float(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        text::float(out, number);
    } else {
        out.extend_from_slice(b"null");
    }
}

/// The body of a `_bulk_docs`.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkDocs {
    /// The documents, in the request's order.
    pub docs: Vec<Document>,
    /// Whether they are edits (`true` unless given), or revisions as they are elsewhere.
    pub new_edits: bool,
    /// CouchDB 1's `all_or_nothing`, where given.
    pub all_or_nothing: Option<bool>,
}

impl BulkDocs {
    /// Reads the body of a request, in one pass whatever the order of its members.
    ///
    /// ```
    /// use settee_core::json::{BulkDocs, Limits};
    ///
    /// let bulk = BulkDocs::parse(br#"{"docs": [{"_id": "a", "n": 1}]}"#, &Limits::default())?;
    /// assert_eq!(bulk.docs[0].id.as_deref(), Some("a"));
    /// assert!(bulk.new_edits);
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Document::parse`] for each document, and `BadRequest` if there is no array `docs`, if
    /// `new_edits` is no boolean, or if it is `false` and a document has no revision.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<BulkDocs> {
        let mut parser = Parser::new(text, limits)?;
        if parser.peek()? != b'{' {
            parser.whole_text()?;
            return Err(not_an_object());
        }
        let mut docs: Option<Result<Vec<Document>>> = None;
        let mut new_edits = None;
        let mut all_or_nothing = None;
        parser.object(|parser, name| {
            if name == "docs" {
                if parser.peek()? == b'[' {
                    let mut list = Vec::new();
                    parser.array(|parser| {
                        list.push(parser.document()?);
                        Ok(())
                    })?;
                    docs = Some(Ok(list));
                } else {
                    parser.value_text()?;
                    let reason = "`docs` parameter must be an array.";
                    docs = Some(Err(Error::bad_request(reason)));
                }
                return Ok(());
            }
            let value = parser.value_text()?;
            let value = std::str::from_utf8(&value).unwrap_or_default();
            match name.as_str() {
                "new_edits" => new_edits = Some(boolean(value)),
                "all_or_nothing" => all_or_nothing = boolean(value),
                _ => {}
            }
            Ok(())
        })?;
        parser.end()?;
        let docs =
            docs.ok_or_else(|| Error::bad_request("POST body must include `docs` parameter."))??;
        let new_edits = new_edits
            .unwrap_or(Some(true))
            .ok_or_else(|| Error::bad_request("`new_edits` parameter must be a boolean."))?;
        if !new_edits && docs.iter().any(|doc| doc.rev.is_none()) {
            return Err(Error::bad_request(
                "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
            ));
        }
        Ok(BulkDocs { docs, new_edits, all_or_nothing })
    }
}

/// What CouchDB answers where a request's body must be an object and is not.
pub(crate) fn not_an_object() -> Error {
    Error::bad_request("Request body must be a JSON object")
}

/// The members of an object: names, and values as text. Reads normalised text only as far as it is
/// asked; text of any other value has no members.
///
/// ```
/// let members: Vec<_> = settee_core::json::members(r#"{"a":[1,2],"b":"x"}"#).collect();
/// assert_eq!(members, [("a".into(), "[1,2]"), ("b".into(), "\"x\"")]);
/// ```
pub fn members(text: &str) -> Members<'_> {
    Members(inner(text, "{", "}"))
}

/// The elements of an array, as text. Reads normalised text only as far as it is asked; text of
/// any other value has no elements.
///
/// ```
/// let elements: Vec<_> = settee_core::json::elements(r#"[1,{"a":2},"x"]"#).collect();
/// assert_eq!(elements, ["1", r#"{"a":2}"#, "\"x\""]);
/// ```
pub fn elements(text: &str) -> Elements<'_> {
    Elements(inner(text, "[", "]"))
}

/// The content of a string in normalised text; `None` if it is any other value.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    text::string(text.as_bytes())
}

/// A boolean in normalised text; `None` if it is any other value.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn inner<'a>(text: &'a str, open: &str, close: &str) -> &'a str {
    text.strip_prefix(open).and_then(|text| text.strip_suffix(close)).unwrap_or_default()
}

/// Iterator over the members of an object, made by [`members`].
#[derive(Debug, Clone)]
pub struct Members<'a>(&'a str);

impl<'a> Members<'a> {
    /// The next member with its name as it is in the text, with quotes.
    pub(crate) fn next_raw(&mut self) -> Option<(&'a str, &'a str)> {
        let name = self.0.get(..value_end(self.0.as_bytes()))?;
        let rest = self.0[name.len()..].strip_prefix(':')?;
        let value = rest.get(..value_end(rest.as_bytes()))?;
        let rest = &rest[value.len()..];
        self.0 = rest.strip_prefix(',').unwrap_or(rest);
        Some((name, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_raw()?;
        Some((string(name)?, value))
    }
}

/// Iterator over the elements of an array, made by [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a>(&'a str);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let value = self.0.get(..value_end(self.0.as_bytes())).filter(|value| !value.is_empty())?;
        let rest = &self.0[value.len()..];
        self.0 = rest.strip_prefix(',').unwrap_or(rest);
        Some(value)
    }
}

/// Where the value that normalised text begins with ends.
fn value_end(text: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b',' | b':' if depth > 0 => {
                at += 1;
                continue;
            }
            b',' | b':' => return at,
            _ => {
                at += 1;
                while text.get(at).is_some_and(|byte| !b",:{}[]\"".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Where the string whose opening quote is at `at` ends.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at = text::plain_end(text, at);
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// A value from its normalised text, nested however deep. Integers that fit no 64 bits become
/// floats, which only their text avoids.
///
/// ```
/// use settee_core::json::to_value;
///
/// assert_eq!(to_value(r#"{"a":[1,2.0]}"#), serde_json::json!({"a": [1, 2.0]}));
/// ```
pub fn to_value(text: &str) -> Value {
    /// What has begun: what of it has been read, and the name of the member to come.
    enum Open {
        Object(serde_json::Map<String, Value>, Option<String>),
        Array(Vec<Value>),
    }
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        let start = at;
        at += 1;
        let value = match byte {
            b',' | b':' => continue,
            b'{' => {
                open.push(Open::Object(serde_json::Map::new(), None));
                continue;
            }
            b'[' => {
                open.push(Open::Array(Vec::new()));
                continue;
            }
            b'}' | b']' => match open.pop() {
                Some(Open::Object(members, _)) => Value::Object(members),
                Some(Open::Array(elements)) => Value::Array(elements),
                None => break,
            },
            b'"' => {
                at = string_end(text.as_bytes(), start);
                let content = text.get(start..at).and_then(string).unwrap_or_default().into_owned();
                if let Some(Open::Object(_, name @ None)) = open.last_mut() {
                    *name = Some(content);
                    continue;
                }
                Value::String(content)
            }
            _ => {
                at = start + value_end(&text.as_bytes()[start..]);
                match text.get(start..at) {
                    Some("true") => Value::Bool(true),
                    Some("false") => Value::Bool(false),
                    Some(digits) => number(digits),
                    None => Value::Null,
                }
            }
        };
        match open.last_mut() {
            None => return value,
            Some(Open::Array(elements)) => elements.push(value),
            Some(Open::Object(members, name)) => {
                members.insert(name.take().unwrap_or_default(), value);
            }
        }
    }
    Value::Null
}

fn number(text: &str) -> Value {
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    text.parse::<f64>().map_or(Value::Null, Value::from)
}
