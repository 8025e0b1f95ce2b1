//! Replies read back: rows and results, each in one pass over its text.

use super::{Change, DocError, DocRow, ErrorBody, RevResult, Seq, ViewRow};
use crate::document::{Document, read_rev};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Limits, Parser};
use crate::rev::Rev;
use std::borrow::Cow;

fn bad_reply(reason: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::BadReply, reason)
}

/// What is wrong with a reply is not the caller's fault, so it is no bad request.
fn in_reply(error: Error) -> Error {
    let reason = error.to_string();
    bad_reply(reason).with_source(error)
}

/// Reads an object member by member.
fn object(
    text: &[u8],
    limits: &Limits,
    each: impl FnMut(&mut Parser<'_>, String) -> Result<()>,
) -> Result<()> {
    let read = || {
        let mut parser = Parser::new(text, limits)?;
        if parser.peek()? != b'{' {
            return Err(Error::bad_request("this should be a JSON object"));
        }
        parser.object(each)?;
        parser.end()
    };
    read().map_err(in_reply)
}

fn text_of(parser: &mut Parser<'_>) -> Result<String> {
    Ok(String::from_utf8(parser.value_text()?).unwrap_or_default())
}

fn string_of(parser: &mut Parser<'_>) -> Result<Option<String>> {
    Ok(json::string(&text_of(parser)?).map(Cow::into_owned))
}

/// The document, if there is one and not `null`.
fn doc_of(parser: &mut Parser<'_>) -> Result<Option<Box<Document>>> {
    if parser.peek()? == b'{' {
        return Ok(Some(Box::new(parser.document()?)));
    }
    parser.value_text()?;
    Ok(None)
}

impl Seq {
    /// Reads a sequence from its JSON: a number, text, or, from some old clusters, an array, which
    /// is as opaque as text. `null` is the start.
    ///
    /// ```
    /// use settee_core::wire::Seq;
    ///
    /// assert_eq!(Seq::from_json("12"), Some(Seq::Number(12)));
    /// assert_eq!(Seq::from_json("\"12-abc\""), Some(Seq::Opaque("12-abc".into())));
    /// assert_eq!(Seq::from_json("[12,\"abc\"]"), Some(Seq::Opaque("[12,\"abc\"]".into())));
    /// assert_eq!(Seq::from_json("true"), None);
    /// ```
    pub fn from_json(text: &str) -> Option<Seq> {
        if let Ok(number) = text.parse() {
            return Some(Seq::Number(number));
        }
        match text.as_bytes().first()? {
            b'"' => Some(Seq::Opaque(json::string(text)?.into_owned())),
            b'[' => Some(Seq::Opaque(text.to_owned())),
            _ => (text == "null").then_some(Seq::Number(0)),
        }
    }
}

impl DocRow {
    /// Reads a row of `_all_docs`, as [`DocRow::write_json`] writes it.
    ///
    /// ```
    /// use settee_core::json::Limits;
    /// use settee_core::wire::DocRow;
    ///
    /// let text = br#"{"id": "x", "key": "x", "value": {"rev": "1-abc"}, "doc": {"_id": "x", "n": 1}}"#;
    /// let row = DocRow::parse(text, &Limits::default())?;
    /// assert_eq!(row.doc.unwrap().get("n"), Some(1.into()));
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadReply` if it is no such row.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<DocRow> {
        let (mut id, mut key, mut rev, mut doc) = (None, None, None, None);
        let (mut deleted, mut error) = (false, false);
        object(text, limits, |parser, name| {
            match name.as_str() {
                "id" => id = string_of(parser)?,
                "key" => key = string_of(parser)?,
                "value" => {
                    for (name, value) in json::members(&text_of(parser)?) {
                        match name.as_ref() {
                            "rev" => rev = Some(read_rev(value)?),
                            "deleted" => deleted = value == "true",
                            _ => {}
                        }
                    }
                }
                "doc" => doc = doc_of(parser)?,
                "error" => {
                    parser.value_text()?;
                    error = true;
                }
                _ => drop(parser.value_text()?),
            }
            Ok(())
        })?;
        let id = id.or(key).ok_or_else(|| bad_reply("a row has no id"))?;
        if rev.is_none() && !error {
            return Err(bad_reply("a row has no revision"));
        }
        Ok(DocRow { id, rev, deleted, doc })
    }
}

impl ViewRow {
    /// Reads a row of a view, as [`ViewRow::write_json`] writes it.
    ///
    /// ```
    /// use settee_core::json::Limits;
    /// use settee_core::wire::ViewRow;
    ///
    /// let row = ViewRow::parse(br#"{"id": "x", "key": ["a", 1], "value": null}"#, &Limits::default())?;
    /// assert_eq!(format!("{row:?}"), r#"<Row id="x", key=["a",1], value=null>"#);
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadReply` if it is no such row.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<ViewRow> {
        let mut row = ViewRow::default();
        object(text, limits, |parser, name| {
            match name.as_str() {
                "id" => row.id = string_of(parser)?,
                "key" => row.key = parser.value_text()?.into(),
                "value" => row.value = parser.value_text()?.into(),
                "doc" => row.doc = doc_of(parser)?,
                "error" => row.error = string_of(parser)?,
                _ => drop(parser.value_text()?),
            }
            Ok(())
        })?;
        match !row.key.is_empty() && (!row.value.is_empty() || row.error.is_some()) {
            true => Ok(row),
            false => Err(bad_reply("a row has no key or no value")),
        }
    }
}

impl Change {
    /// Reads a row of `_changes`, as [`Change::write_json`] writes it.
    ///
    /// ```
    /// use settee_core::json::Limits;
    /// use settee_core::wire::Change;
    ///
    /// let text = br#"{"seq": "1-x", "id": "a", "changes": [{"rev": "1-abc"}], "deleted": true}"#;
    /// let change = Change::parse(text, &Limits::default())?;
    /// assert!(change.deleted);
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadReply` if it is no such row.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Change> {
        let (mut seq, mut id, mut revs, mut doc) = (None, None, Vec::new(), None);
        let mut deleted = false;
        object(text, limits, |parser, name| {
            match name.as_str() {
                "seq" => seq = Seq::from_json(&text_of(parser)?),
                "id" => id = string_of(parser)?,
                "changes" => {
                    for entry in json::elements(&text_of(parser)?) {
                        for (name, value) in json::members(entry) {
                            if name == "rev" {
                                revs.push(read_rev(value)?);
                            }
                        }
                    }
                }
                "deleted" => deleted = text_of(parser)? == "true",
                "doc" => doc = doc_of(parser)?,
                _ => drop(parser.value_text()?),
            }
            Ok(())
        })?;
        let seq = seq.ok_or_else(|| bad_reply("a change has no sequence"))?;
        let id = id.ok_or_else(|| bad_reply("a change has no document id"))?;
        Ok(Change { seq, id, revs, deleted, doc })
    }
}

impl RevResult {
    /// Reads an entry of `open_revs` or `_bulk_get`: `{"ok": …}`, `{"missing": …}`, `{"error": …}`.
    ///
    /// ```
    /// use settee_core::json::Limits;
    /// use settee_core::wire::RevResult;
    ///
    /// let missing = RevResult::parse(br#"{"missing": "1-abc"}"#, "x", &Limits::default())?;
    /// assert!(matches!(missing, RevResult::Missing(of) if of.id == "x"));
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadReply` if it is no such entry.
    pub fn parse(text: &[u8], id: &str, limits: &Limits) -> Result<RevResult> {
        let mut result = None;
        object(text, limits, |parser, name| {
            result = Some(rev_result(parser, &name, id)?);
            Ok(())
        })?;
        result.flatten().ok_or_else(|| bad_reply("an entry is neither a document nor missing"))
    }
}

fn rev_result(parser: &mut Parser<'_>, name: &str, id: &str) -> Result<Option<RevResult>> {
    let missing = |rev, error| RevResult::Missing(DocError { id: id.to_owned(), rev, error });
    Ok(match name {
        "ok" => doc_of(parser)?.map(RevResult::Found),
        "missing" => {
            let rev = read_rev(&text_of(parser)?).ok();
            Some(missing(rev, Error::missing()))
        }
        "error" => {
            let text = text_of(parser)?;
            let rev = json::members(&text).find(|member| member.0 == "rev");
            let rev = rev.and_then(|(_, rev)| read_rev(rev).ok());
            Some(missing(rev, row_error(&text)))
        }
        _ => {
            parser.value_text()?;
            None
        }
    })
}

/// One document of a `_bulk_get`'s reply: `{"id": …, "docs": […]}`.
///
/// ```
/// use settee_core::json::Limits;
/// use settee_core::wire::parse_bulk_get_result;
///
/// let text = br#"{"id": "x", "docs": [{"ok": {"_id": "x", "_rev": "1-abc"}}]}"#;
/// let (id, results) = parse_bulk_get_result(text, &Limits::default())?;
/// assert_eq!((id.as_str(), results.len()), ("x", 1));
/// # Ok::<(), settee_core::Error>(())
/// ```
///
/// # Errors
///
/// `BadReply` if it is no such entry.
pub fn parse_bulk_get_result(text: &[u8], limits: &Limits) -> Result<(String, Vec<RevResult>)> {
    let (mut id, mut results) = (None, Vec::new());
    object(text, limits, |parser, name| {
        match name.as_str() {
            "id" => id = string_of(parser)?,
            "docs" if parser.peek()? == b'[' => parser.array(|parser| {
                if parser.peek()? != b'{' {
                    return Err(Error::bad_request("this should be a JSON object"));
                }
                parser.object(|parser, name| {
                    results.extend(rev_result(parser, &name, "")?);
                    Ok(())
                })
            })?,
            _ => drop(parser.value_text()?),
        }
        Ok(())
    })?;
    let id = id.ok_or_else(|| bad_reply("a result has no document id"))?;
    for result in &mut results {
        if let RevResult::Missing(missing) = result {
            missing.id.clone_from(&id);
        }
    }
    Ok((id, results))
}

/// The error that an object with `error` and `reason` in a reply of status 200 speaks of.
///
/// ```
/// use settee_core::wire::row_error;
///
/// let error = row_error(r#"{"error":"conflict","reason":"Document update conflict."}"#);
/// assert!(error.is_conflict());
/// ```
pub fn row_error(text: &str) -> Error {
    let member = |name| {
        let found = json::members(text).find(|member| member.0 == name).map(|member| member.1);
        found.and_then(json::string).map(Cow::into_owned)
    };
    let error = member("error").unwrap_or_default();
    let status = ErrorKind::from_name(&error).status();
    ErrorBody { error, reason: member("reason") }.into_error(status)
}

/// One entry of the reply to a `_bulk_docs`.
#[derive(Debug)]
pub struct BulkResult {
    /// The document.
    pub id: String,
    /// The revision it has now, or should have had.
    pub rev: Option<Rev>,
    /// Why it was not written.
    pub error: Option<Error>,
}

impl BulkResult {
    /// Reads the reply to a `_bulk_docs`.
    ///
    /// ```
    /// use settee_core::json::Limits;
    /// use settee_core::wire::BulkResult;
    ///
    /// let text = br#"[{"ok": true, "id": "a", "rev": "1-abc"}, {"id": "b", "error": "conflict"}]"#;
    /// let results = BulkResult::parse_all(text, &Limits::default())?;
    /// assert!(results[0].error.is_none());
    /// assert!(results[1].error.as_ref().unwrap().is_conflict());
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadReply` if it is no such list.
    pub fn parse_all(text: &[u8], limits: &Limits) -> Result<Vec<BulkResult>> {
        let text = json::normalize(text, limits).map_err(in_reply)?;
        let text = std::str::from_utf8(&text).unwrap_or_default();
        if !text.starts_with('[') {
            return Err(bad_reply("this should be a JSON array"));
        }
        let read = |entry| {
            let member = |name| json::members(entry).find(|member| member.0 == name).map(|m| m.1);
            let id = member("id").and_then(json::string).unwrap_or_default().into_owned();
            let rev = member("rev").map(read_rev).transpose().map_err(in_reply)?;
            let error = member("error").map(|_| row_error(entry));
            Ok(BulkResult { id, rev, error })
        };
        json::elements(text).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 50, document: 1000, attachment: 1000 };

    #[test]
    fn rows_of_other_shapes_are_bad_replies() {
        for text in ["", "[]", "{}", "1", "{\"id\":1}", "{\"id\":\"a\",\"value\":{\"rev\":7}}", "{"]
        {
            let error = DocRow::parse(text.as_bytes(), &LIMITS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadReply, "{text}");
            let error = Change::parse(text.as_bytes(), &LIMITS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadReply, "{text}");
            let error = RevResult::parse(text.as_bytes(), "", &LIMITS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadReply, "{text}");
        }
    }

    #[test]
    fn a_row_of_an_unknown_key_has_no_revision() {
        let row = DocRow::parse(br#"{"key":"x","error":"not_found"}"#, &LIMITS).unwrap();
        assert_eq!((row.id.as_str(), row.rev, row.doc), ("x", None, None));
    }
}
