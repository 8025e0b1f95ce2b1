//! The request object that functions see.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use settee_core::Result;
use settee_core::wire::{DatabaseInfo, Security};

/// What needs no escape in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Parameters whose values are JSON: functions see what they say.
const JSON_PARAMETERS: [&str; 4] = ["startkey", "endkey", "key", "descending"];

/// Headers that would give a function what it needs to act as the user.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "x-auth-couchdb-token"];

/// Who makes a request: `userCtx`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserCtx {
    /// The database.
    pub db: String,
    /// The user's name, if anybody is logged in.
    pub name: Option<String>,
    /// The user's roles; server admins have `_admin`.
    pub roles: Vec<String>,
}

impl UserCtx {
    /// Nobody in particular, who may do everything: whoever embeds a database.
    pub fn admin(db: &str) -> UserCtx {
        UserCtx { db: db.to_owned(), name: None, roles: vec!["_admin".to_owned()] }
    }
}

/// A request, as functions of design documents see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path's segments, decoded, beginning with the database.
    pub path: Vec<String>,
    /// The same as the client asked for it, before any rewrite.
    pub requested_path: Vec<String>,
    /// The path with its query, as it came.
    pub raw_path: String,
    /// The query's parameters; texts as they came, or any JSON.
    pub query: Map<String, Value>,
    /// The headers. Those that log a user in are never shown to a function.
    pub headers: Vec<(String, String)>,
    /// The body, if there is one.
    pub body: Option<String>,
    /// The members of a form in the body.
    pub form: Map<String, Value>,
    /// The client's address.
    pub peer: String,
    /// A fresh id for a document.
    pub uuid: String,
    /// Who asks.
    pub user: UserCtx,
    /// The database's security object, if it is to be another than the database has.
    pub security: Option<Security>,
}

/// What an embedded program says of a request; all else has CouchDB's defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stub {
    /// The method.
    pub method: Option<String>,
    /// The query's parameters.
    pub query: Map<String, Value>,
    /// Headers, besides those that are always there, or instead of them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<String>,
    /// The members of a form, which become the body if there is none.
    pub form: Map<String, Value>,
    /// Instead of the path that the call makes.
    pub path: Option<Vec<String>>,
    /// Instead of the path that the call makes.
    pub requested_path: Option<Vec<String>>,
    /// The client's address.
    pub peer: Option<String>,
    /// Who asks, if it is not [`UserCtx::admin`].
    pub user: Option<UserCtx>,
    /// Instead of the database's security object.
    pub security: Option<Security>,
}

impl Stub {
    /// The request for a path, whose segments begin with the database.
    pub(super) fn request(&self, path: Vec<String>, method: &str) -> Result<Request> {
        let db = path.first().cloned().unwrap_or_default();
        let mut requested = self.requested_path.clone().unwrap_or_else(|| path.clone());
        let path = self.path.clone().unwrap_or(path);
        let mut raw_path = format!("/{}", path.join("/"));
        let query = encode(&self.query);
        if !query.is_empty() {
            raw_path = format!("{raw_path}?{query}");
            if let Some(last) = requested.last_mut() {
                *last = format!("{last}?{query}");
            }
        }
        let mut request = Request {
            method: self.method.clone().unwrap_or_else(|| method.to_owned()),
            path,
            requested_path: requested,
            raw_path,
            query: self.query.clone(),
            headers: default_headers(),
            body: self.body.clone(),
            form: self.form.clone(),
            peer: self.peer.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
            uuid: uuid()?,
            user: self.user.clone().unwrap_or_else(|| UserCtx::admin(&db)),
            security: self.security.clone(),
        };
        if request.body.is_none() && !self.form.is_empty() {
            let body = encode(&self.form);
            request.set_header("Content-Type", "application/x-www-form-urlencoded");
            request.set_header("Content-Length", &body.len().to_string());
            request.body = Some(body);
        }
        let sends = ["POST", "PUT", "PATCH"].contains(&request.method.as_str());
        if request.body.is_some() && !sends {
            request.method = "POST".to_owned();
        }
        for (name, value) in &self.headers {
            request.set_header(&header_name(name), value);
        }
        Ok(request)
    }
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The object as a function gets it, as JSON.
    pub(super) fn to_json(
        &self,
        info: &DatabaseInfo,
        security: &Security,
        id: Option<&str>,
    ) -> Result<String> {
        let mut object = self.members(security)?;
        object.insert("info".to_owned(), to_value(info)?);
        object.insert("uuid".to_owned(), self.uuid.as_str().into());
        object.insert("id".to_owned(), id.into());
        object.insert("form".to_owned(), self.form.clone().into());
        Ok(Value::Object(object).to_string())
    }

    /// The object as a rewrite function gets it, as JSON: what does not need the database.
    pub(super) fn to_short_json(&self, security: &Security) -> Result<String> {
        Ok(Value::Object(self.members(security)?).to_string())
    }

    fn members(&self, security: &Security) -> Result<Map<String, Value>> {
        let headers = self.headers.iter().filter(|(name, _)| {
            !SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
        });
        let headers: Map<String, Value> =
            headers.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let query = self.query.iter().map(|(name, value)| {
            let decoded = value.as_str().filter(|_| JSON_PARAMETERS.contains(&name.as_str()));
            let decoded = decoded.and_then(|text| serde_json::from_str(text).ok());
            (name.clone(), decoded.unwrap_or_else(|| value.clone()))
        });
        let query: Map<String, Value> = query.collect();
        let object = json!({
            "method": self.method,
            "requested_path": self.requested_path,
            "path": self.path,
            "raw_path": self.raw_path,
            "query": query,
            "headers": headers,
            "body": self.body.as_deref().unwrap_or("undefined"),
            "peer": self.peer,
            // What logs a user in is nothing for functions.
            "cookie": {},
            "userCtx": to_value(&self.user)?,
            "secObj": to_value(self.security.as_ref().unwrap_or(security))?,
        });
        match object {
            Value::Object(members) => Ok(members),
            _ => Ok(Map::new()),
        }
    }
}

fn to_value(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(settee_core::Error::internal)
}

fn default_headers() -> Vec<(String, String)> {
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let agent = concat!("Settee/", env!("CARGO_PKG_VERSION"));
    [
        ("Host", "localhost:5984"),
        ("Accept", accept),
        ("Accept-Language", "en-us,en;q=0.5"),
        ("User-Agent", agent),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A UUID as CouchDB's request objects have it for embedded use: 36 characters.
fn uuid() -> Result<String> {
    let mut bytes = crate::env::random::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::env::hex(&bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(parts.join("-"))
}

/// A parameter's value as it is in a query.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text as a segment of a path, or a name or value of a query.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// `a=1&b=2`.
pub(super) fn encode(parameters: &Map<String, Value>) -> String {
    let pairs = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), escape(&plain(value))));
    pairs.collect::<Vec<_>>().join("&")
}

/// `content-type` as `Content-Type`, as functions are used to it.
pub fn header_name(name: &str) -> String {
    if name.eq_ignore_ascii_case("x-couchdb-requested-path") {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            c
        })
        .collect()
}
