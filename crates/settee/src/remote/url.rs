//! URLs: where a server is, and how its paths are written.
//!
//! What is secret in a URL is taken out of it when it is read, so that nothing that is shown later
//! can hold it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use settee_core::{Error, ErrorKind, Result};
use std::fmt::{self, Display, Write};
use std::net::IpAddr;

/// Where a server is looked for if nothing says otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:5984";

/// The port of a server that is named without a scheme.
const DEFAULT_PORT: u16 = 5984;

/// Everything but the characters that mean nothing anywhere in a URL.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The place that a URL names, without the credentials that may stand in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    pub(crate) https: bool,
    /// Host and, unless it is the scheme's own, port.
    pub(crate) authority: String,
    /// The path that everything lies under, without a slash at its end.
    pub(crate) path: String,
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl Credentials {
    pub(crate) fn new(name: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials { name: name.into(), password: password.into() }
    }

    /// As HTTP's Basic scheme has them.
    pub(crate) fn basic(&self) -> String {
        use base64::Engine as _;
        let text = format!("{}:{}", self.name, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {}", self.name)
    }
}

impl Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Says nothing of the text: there may be a password in it.
fn bad_url(why: &'static str) -> Error {
    Error::new(ErrorKind::BadRequest, why).with_name("bad_url")
}

impl BaseUrl {
    /// Reads a URL with a scheme.
    pub(crate) fn parse(url: &str) -> Result<(BaseUrl, Option<Credentials>)> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| bad_url("The URL has no scheme."))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(bad_url("The URL is neither http nor https.")),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // A password may hold an @, a host may not.
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            Credentials::new(decode(name), decode(password))
        });
        let own_port = if https { ":443" } else { ":80" };
        let host = host.strip_suffix(own_port).unwrap_or(host).to_ascii_lowercase();
        let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        if port.is_some_and(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(bad_url("The URL's port is no number."));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._~:[]%".contains(c);
        if host.is_empty() || host.starts_with(':') || !host.chars().all(legal) {
            return Err(bad_url("The URL's host is missing or not legal."));
        }
        let mut clean = String::new();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            clean.push('/');
            clean.push_str(&encode(&decode(segment)));
        }
        Ok((BaseUrl { https, authority: host, path: clean }, credentials))
    }

    /// Reads what people write to say where a server is: a URL, `host` or `host:port`, or what lies
    /// below the default server.
    pub(crate) fn parse_server(text: &str) -> Result<(BaseUrl, Option<Credentials>)> {
        let text = text.trim();
        if text.is_empty() {
            return BaseUrl::parse(&default_url());
        }
        if text.contains("://") {
            return BaseUrl::parse(text);
        }
        let authority = text.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.contains(['.', ':']) || host == "localhost" {
            let (mut base, credentials) = BaseUrl::parse(&format!("http://{text}"))?;
            if !host.rsplit(']').next().unwrap_or_default().contains(':') {
                let _ = write!(base.authority, ":{DEFAULT_PORT}");
            }
            return Ok((base, credentials));
        }
        BaseUrl::parse(&format!("{}/{text}", default_url().trim_end_matches('/')))
    }

    /// Reads what people write to say where a database is: a URL that ends with its name, or its
    /// name alone, on the default server.
    pub(crate) fn parse_database(text: &str) -> Result<(BaseUrl, Option<Credentials>, String)> {
        if !text.contains("://") {
            let (base, credentials) = BaseUrl::parse_server("")?;
            return Ok((base, credentials, text.to_owned()));
        }
        let (mut base, credentials) = BaseUrl::parse(text)?;
        let (path, name) =
            base.path.rsplit_once('/').ok_or_else(|| bad_url("The URL names no database."))?;
        let name = decode(name);
        base.path = path.to_owned();
        Ok((base, credentials, name))
    }

    fn host_and_port(&self) -> (&str, Option<&str>) {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (&self.authority, None),
        }
    }

    /// Whether it says its port, because that is not its scheme's own.
    pub(crate) fn has_port(&self) -> bool {
        self.host_and_port().1.is_some()
    }

    /// Whether the server is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let (host, _) = self.host_and_port();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Whether what is meant for this server may be told to the other.
    pub(crate) fn same_origin(&self, other: &BaseUrl) -> bool {
        self.https == other.https && self.authority == other.authority
    }
}

fn default_url() -> String {
    let url = std::env::var("COUCHDB_URL").unwrap_or_default();
    if url.contains("://") { url } else { DEFAULT_URL.to_owned() }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// One segment of a path.
pub(crate) fn encode(segment: &str) -> String {
    match segment {
        // Which otherwise would mean this place and the one above.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(segment, ENCODED).to_string(),
    }
}

/// A document's id as a part of a path: `_design/…` and `_local/…` keep their slash.
pub(crate) fn encode_id(id: &str) -> String {
    for prefix in ["_design/", "_local/"] {
        if let Some(rest) = id.strip_prefix(prefix) {
            return format!("{prefix}{}", encode(rest));
        }
    }
    encode(id)
}

/// A path with parameters.
#[derive(Clone)]
pub(crate) struct PathQuery {
    text: String,
    query: bool,
}

impl PathQuery {
    pub(crate) fn new(path: impl Into<String>) -> PathQuery {
        let text: String = path.into();
        PathQuery { query: text.contains('?'), text }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> PathQuery {
        self.text.push(if self.query { '&' } else { '?' });
        self.query = true;
        self.text.push_str(name);
        self.text.push('=');
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{}", utf8_percent_encode(&value.to_string(), ENCODED));
        self
    }

    /// Adds a parameter that is true, if it is.
    pub(crate) fn flag(self, name: &str, value: bool) -> PathQuery {
        if value { self.with(name, true) } else { self }
    }

    /// Adds a parameter if there is a value for it.
    pub(crate) fn maybe(self, name: &str, value: Option<impl Display>) -> PathQuery {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_lose_their_credentials() {
        for (text, shown, name, password) in [
            ("http://localhost:5984/", "http://localhost:5984", "", ""),
            ("HTTPS://Example.com:443/a//b/", "https://example.com/a/b", "", ""),
            ("http://ad%40min:p%3Aw@[::1]:5984", "http://[::1]:5984", "ad@min", "p:w"),
            ("http://u:p@ss@h", "http://h", "u", "p@ss"),
        ] {
            let (base, credentials) = BaseUrl::parse(text).unwrap();
            let credentials = credentials.map(|c| (c.name, c.password)).unwrap_or_default();
            assert_eq!(base.to_string(), shown);
            assert_eq!(credentials, (name.to_owned(), password.to_owned()));
        }
        for text in ["x", "ftp://x", "http://", "http://u:secret@", "http://u:secret@h:x/"] {
            let error = BaseUrl::parse(text).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"));
        }
    }

    #[test]
    fn servers_of_this_machine_are_known() {
        for (url, near) in [
            ("http://localhost", true),
            ("http://127.0.0.2:5984", true),
            ("https://[::1]:6984/x", true),
            ("http://[::1]", true),
            ("http://127.0.0.1.example.com", false),
            ("http://10.0.0.1:5984", false),
        ] {
            assert_eq!(BaseUrl::parse(url).unwrap().0.is_loopback(), near, "{url}");
        }
    }

    #[test]
    fn servers_are_named_as_people_do() {
        for (text, shown) in [
            ("example.com", "http://example.com:5984"),
            ("me:pw@example.com/x", "http://example.com:5984/x"),
            ("localhost", "http://localhost:5984"),
            ("localhost:80", "http://localhost"),
            ("https://example.com", "https://example.com"),
        ] {
            assert_eq!(BaseUrl::parse_server(text).unwrap().0.to_string(), shown);
        }
    }

    #[test]
    fn databases_are_named_by_the_end_of_their_url() {
        let (base, _, name) = BaseUrl::parse_database("http://h/couch/a%2Fb/").unwrap();
        assert_eq!((base.to_string().as_str(), name.as_str()), ("http://h/couch", "a/b"));
        assert!(BaseUrl::parse_database("http://h/").is_err());
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("a/b+c é."), "a%2Fb%2Bc%20%C3%A9.");
        assert_eq!(encode(".."), "%2E%2E");
        assert_eq!(encode_id("_design/a/b"), "_design/a%2Fb");
        let path = PathQuery::new("x").flag("a", false).flag("b", true).with("c", "\"d&\"");
        assert_eq!(path.as_str(), "x?b=true&c=%22d%26%22");
    }
}
