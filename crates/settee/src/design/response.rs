//! What functions return.

use crate::adapter::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use settee_core::{Error, ErrorKind, Result};
use std::fmt::Write as _;

/// What a response is if its function does not say.
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// A response that a function made, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub code: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A response whose body comes as it is read.
pub struct Rendered {
    /// The status.
    pub code: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: ByteStream,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendered")
            .field("code", &self.code)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl Rendered {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Waits for the whole body.
    ///
    /// # Errors
    ///
    /// Whatever goes wrong after the response has begun.
    pub async fn collect(self) -> Result<Response> {
        let mut chunks = self.body;
        let mut body = chunks.try_next().await?.unwrap_or_default();
        if let Some(second) = chunks.try_next().await? {
            let mut whole = Vec::from(body);
            whole.extend_from_slice(&second);
            while let Some(chunk) = chunks.try_next().await? {
                whole.extend_from_slice(&chunk);
            }
            body = whole.into();
        }
        Ok(Response { code: self.code, headers: self.headers, body })
    }
}

impl From<Response> for Rendered {
    fn from(response: Response) -> Rendered {
        let Response { code, headers, body } = response;
        let body = stream::iter(Some(body).filter(|body| !body.is_empty()).map(Ok)).boxed();
        Rendered { code, headers, body }
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

impl Response {
    /// Reads a response object: `code` unless it is the usual one, `headers`, and one of `body`,
    /// `json` and `base64`. `media_type` is what the content is if nothing says so.
    pub(super) fn parse(text: &str, code: u16, media_type: &'static str) -> Result<Response> {
        let object: Map<String, Value> = serde_json::from_str(text).map_err(Error::internal)?;
        let mut response = Response { code, headers: Vec::new(), body: Bytes::new() };
        let mut media_type = media_type;
        for (name, value) in &object {
            match (name.as_str(), value) {
                ("code", Value::Number(code)) => {
                    let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
                    let code = code.filter(|code| (200..600).contains(code));
                    response.code = code.ok_or_else(|| invalid(name, value))?;
                }
                ("stop", _) => {}
                ("json", value) => {
                    media_type = "application/json";
                    response.body = format!("{value}\n").into();
                }
                ("body", Value::String(body)) => {
                    media_type = HTML;
                    response.body = body.clone().into();
                }
                ("base64", Value::String(content)) => {
                    media_type = "application/binary";
                    let content = STANDARD.decode(content).map_err(|_| invalid(name, value))?;
                    response.body = content.into();
                }
                ("headers", Value::Object(headers)) => {
                    response.headers = read_headers(headers)?;
                }
                _ => return Err(invalid(name, value)),
            }
        }
        if response.header("Content-Type").is_none() {
            response.headers.push(("Content-Type".to_owned(), media_type.to_owned()));
        }
        Ok(response)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// `BadReply` if it is none.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(not_that)
    }

    /// The body, which is JSON, as a value of some type.
    ///
    /// # Errors
    ///
    /// `BadReply` if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(not_that)
    }

    pub(super) fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

fn not_that(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let reason = format!("The response is something else: {error}");
    Error::new(ErrorKind::BadReply, reason).with_source(error)
}

fn read_headers(headers: &Map<String, Value>) -> Result<Vec<(String, String)>> {
    let fine = |text: &str| !text.contains(['\r', '\n', '\0']);
    headers
        .iter()
        .map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => return Err(invalid(name, value)),
            };
            // One header must not become two.
            if name.is_empty() || !fine(name) || !fine(&text) {
                return Err(invalid(name, value));
            }
            Ok((name.clone(), text))
        })
        .collect()
}

/// CouchDB's error for a response that it does not understand.
fn invalid(name: &str, value: &Value) -> Error {
    let mut term = String::new();
    write_term(&mut term, value);
    let reason = format!("Invalid data from external server: {{<<\"{name}\">>,{term}}}");
    Error::new(ErrorKind::Internal, reason).with_name("external_response_error")
}

/// A value as CouchDB's messages show it.
fn write_term(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => _ = write!(out, "<<{text:?}>>"),
        Value::Array(elements) => {
            out.push('[');
            for (n, element) in elements.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                write_term(out, element);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("{[");
            for (n, (name, member)) in members.iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                _ = write!(out, "{comma}{{<<{name:?}>>,");
                write_term(out, member);
                out.push('}');
            }
            out.push_str("]}");
        }
        other => _ = write!(out, "{other}"),
    }
}
