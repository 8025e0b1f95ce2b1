//! Parameters of listings and views: texts of a query string, or members of an object in a body.
//!
//! Whoever reads them (the HTTP API, functions of design documents) reads them here, so that what is
//! understood, and CouchDB's words for what is not, are the same everywhere.

use crate::error::{Error, Result};
use crate::json;
use crate::options::{Update, ViewOptions};
use serde_json::Value;

/// A parameter's value: text from a query, or a JSON value from a body.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// Text, which may have to be JSON.
    Text(&'a str),
    /// The value itself.
    Json(&'a Value),
}

impl<'a> Param<'a> {
    /// The parameters of a JSON object.
    pub fn members(
        object: &'a serde_json::Map<String, Value>,
    ) -> impl Iterator<Item = (&'a str, Param<'a>)> {
        object.iter().map(|(name, value)| (name.as_str(), Param::Json(value)))
    }
}

impl Param<'_> {
    /// As CouchDB's messages show it: texts of a body otherwise than those of a query.
    fn shown(&self) -> String {
        match self {
            Param::Text("") => "[]".to_owned(),
            Param::Text(text) => format!("{text:?}"),
            Param::Json(Value::String(text)) => format!("<<{text:?}>>"),
            Param::Json(value) => value.to_string(),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// `QueryParse` if it is neither.
    pub fn boolean(&self) -> Result<bool> {
        let text = match self {
            Param::Json(Value::Bool(flag)) => return Ok(*flag),
            Param::Json(Value::String(text)) => text,
            Param::Json(_) => "",
            Param::Text(text) => *text,
        };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let shown = match self {
                    Param::Json(Value::String(text)) => format!("{text:?}"),
                    other => other.shown(),
                };
                Err(Error::query_parse(format!("Invalid boolean parameter: {shown}")))
            }
        }
    }

    /// A number that is not negative; one that is too large is the largest.
    ///
    /// # Errors
    ///
    /// `QueryParse` if it is no such number.
    pub fn number(&self) -> Result<u64> {
        let number: Option<i128> = match self {
            Param::Json(value) => value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)),
            Param::Text(text) => text.parse().ok(),
        };
        let Some(number) = number else {
            let reason = format!("Invalid value for integer: {}", self.shown());
            return Err(Error::query_parse(reason));
        };
        if number < 0 {
            let reason = format!("Invalid value for positive integer: {}", self.shown());
            return Err(Error::query_parse(reason));
        }
        Ok(u64::try_from(number).unwrap_or(u64::MAX))
    }

    /// The value itself: text of a query is JSON.
    ///
    /// # Errors
    ///
    /// `BadRequest` if the text is no JSON.
    pub fn value(&self) -> Result<Value> {
        match self {
            Param::Json(value) => Ok((*value).clone()),
            Param::Text(text) => serde_json::from_str(text).map_err(no_json),
        }
    }

    /// The value as JSON text, in the form that stored documents have.
    ///
    /// # Errors
    ///
    /// As [`value`](Param::value).
    pub fn json(&self) -> Result<String> {
        match self {
            Param::Json(value) => Ok(value.to_string()),
            Param::Text(text) => {
                let limits = json::Limits::default();
                let bytes = json::normalize(text.as_bytes(), &limits).map_err(no_json)?;
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
        }
    }

    /// The keys of a view, as JSON text.
    ///
    /// # Errors
    ///
    /// `QueryParse` and `BadRequest` if they are no list.
    pub fn keys(&self) -> Result<Vec<String>> {
        let text = self.json()?;
        match (text.starts_with('['), self) {
            (true, _) => Ok(json::elements(&text).map(str::to_owned).collect()),
            (false, Param::Text(_)) => {
                Err(Error::query_parse("`keys` must be an array of strings."))
            }
            (false, Param::Json(_)) => Err(Error::bad_request("`keys` member must be an array.")),
        }
    }

    /// A text.
    pub fn text(&self) -> String {
        match self {
            Param::Text(text) => (*text).to_owned(),
            Param::Json(Value::String(text)) => text.clone(),
            Param::Json(value) => value.to_string(),
        }
    }

    /// One of some texts; `name` is the parameter's.
    ///
    /// # Errors
    ///
    /// `QueryParse` if it is none of them.
    pub fn choice(&self, name: &str, choices: &[&str]) -> Result<String> {
        let text = self.text();
        match choices.contains(&text.as_str()) {
            true => Ok(text),
            false => Err(Error::query_parse(format!("Invalid value for `{name}`."))),
        }
    }
}

fn no_json(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::bad_request("invalid UTF-8 JSON").with_source(error)
}

impl ViewOptions {
    /// Takes a parameter; later ones win. What is no parameter of a view changes nothing.
    ///
    /// ```
    /// use settee_core::options::ViewOptions;
    /// use settee_core::parameters::Param;
    ///
    /// let mut options = ViewOptions::default();
    /// options.take("startkey", Param::Text("[1]"))?;
    /// assert_eq!(options.start.as_deref(), Some("[1]"));
    /// let error = options.take("limit", Param::Text("x")).unwrap_err();
    /// assert_eq!(error.reason(), "Invalid value for integer: \"x\"");
    /// # Ok::<(), settee_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `QueryParse` and `BadRequest` for values that make no sense.
    pub fn take(&mut self, name: &str, value: Param<'_>) -> Result<()> {
        match name {
            "key" => {
                self.start = Some(value.json()?);
                self.end.clone_from(&self.start);
            }
            "keys" => self.keys = Some(value.keys()?),
            "startkey" | "start_key" => self.start = Some(value.json()?),
            "endkey" | "end_key" => self.end = Some(value.json()?),
            "startkey_docid" | "start_key_doc_id" => self.start_docid = Some(value.text()),
            "endkey_docid" | "end_key_doc_id" => self.end_docid = Some(value.text()),
            "inclusive_end" => self.inclusive_end = value.boolean()?,
            "descending" => self.descending = value.boolean()?,
            // `count` is what it was called before 0.9.
            "limit" | "count" => self.limit = Some(value.number()?),
            "skip" => self.skip = value.number()?,
            "reduce" => self.reduce = Some(value.boolean()?),
            "group" => self.group = Some(value.boolean()?),
            "group_level" => self.group_level = Some(value.number()?),
            "include_docs" => self.include_docs = value.boolean()?,
            "conflicts" => self.doc.conflicts = value.boolean()?,
            "attachments" => self.doc.attachments = value.boolean()?,
            "att_encoding_info" => self.doc.att_encoding_info = value.boolean()?,
            "update_seq" => self.update_seq = value.boolean()?,
            "sorted" => self.sorted = value.boolean()?,
            "stable" => self.stable = value.choice(name, &["true", "false"])? == "true",
            "stale" => {
                self.stable = true;
                self.update = match value.choice(name, &["ok", "update_after"])?.as_str() {
                    "ok" => Update::Never,
                    _ => Update::After,
                };
            }
            "update" => {
                self.update = match value.choice(name, &["true", "false", "lazy"])?.as_str() {
                    "true" => Update::Before,
                    "false" => Update::Never,
                    _ => Update::After,
                };
            }
            "partition" => {
                return Err(Error::query_parse(
                    "`partition` parameter is not supported in this design doc",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes parameters, one after the other.
    ///
    /// # Errors
    ///
    /// As [`take`](ViewOptions::take).
    pub fn take_all<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = (&'a str, Param<'a>)>,
    ) -> Result<()> {
        parameters.into_iter().try_for_each(|(name, value)| self.take(name, value))
    }
}
