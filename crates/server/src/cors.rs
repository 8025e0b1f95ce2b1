//! Cross-origin requests: which web pages may talk to the server.
//!
//! Off unless `chttpd/enable_cors` is set. An origin is only ever allowed by its own name, never
//! by `*`, so that no page of any site can act with a visitor's session.

use crate::config::Live;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

const METHODS: &[&str] =
    &["CONNECT", "COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"];

const HEADERS: &[&str] = &[
    "accept",
    "accept-language",
    "authorization",
    "content-length",
    "content-range",
    "content-type",
    "destination",
    "expires",
    "if-match",
    "if-none-match",
    "last-event-id",
    "last-modified",
    "origin",
    "pragma",
    "x-couch-full-commit",
    "x-couch-id",
    "x-couch-persist",
    "x-couchdb-www-authenticate",
    "x-http-method-override",
    "x-requested-with",
    "x-couchdb-vhost-path",
];

const EXPOSED: &str = "content-type, cache-control, accept-ranges, etag, server, \
                       x-couch-request-id, x-couch-update-newrev, x-couchdb-body-time";

/// The rules in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cors {
    origins: Vec<String>,
    any_origin: bool,
    credentials: bool,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: String,
    max_age: String,
}

impl Cors {
    /// Reads the section `cors`. `None` if cross-origin requests are not allowed at all.
    pub(crate) fn from_config(live: &Live) -> Option<Cors> {
        if live.http("enable_cors") != Some("true") {
            return None;
        }
        let list = |key| live.get("cors", key).filter(|text| !text.is_empty()).map(split);
        let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
        let origins = list("origins").unwrap_or_default();
        Some(Cors {
            any_origin: origins.iter().any(|origin| origin == "*"),
            origins: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            credentials: live.get("cors", "credentials") == Some("true"),
            methods: list("methods").unwrap_or_else(|| owned(METHODS)),
            headers: list("headers").map_or_else(
                || owned(HEADERS),
                |list| list.iter().map(|header| header.to_ascii_lowercase()).collect(),
            ),
            exposed: live.get("cors", "exposed_headers").unwrap_or(EXPOSED).to_owned(),
            max_age: live.get("cors", "max_age").unwrap_or("600").to_owned(),
        })
    }

    /// Whether the origin may come, and whether with cookies. Under `*` anyone may come, but with
    /// cookies only who is also listed by name.
    fn allows(&self, origin: &HeaderValue) -> Option<bool> {
        let origin = origin.to_str().ok()?.to_ascii_lowercase();
        let listed = self.origins.contains(&origin);
        (listed || self.any_origin).then_some(listed && self.credentials)
    }

    /// The headers that answer a preflight request; `None` if it is none, or not allowed.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
        let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let wanted_text = wanted.map_or(Ok(""), HeaderValue::to_str).ok()?;
        let headers_are_fine = split(wanted_text)
            .iter()
            .all(|header| header.is_empty() || self.headers.contains(&header.to_ascii_lowercase()));
        if !headers_are_fine || !self.methods.iter().any(|allowed| allowed == method) {
            return None;
        }
        let mut reply = self.origin_headers(request)?;
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                reply.insert(name, value);
            }
        };
        put(header::ACCESS_CONTROL_MAX_AGE, &self.max_age);
        put(header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods.join(", "));
        put(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted_text);
        Some(reply)
    }

    /// Adds what a page of another origin needs to read the reply.
    pub(crate) fn decorate(&self, request: &HeaderMap, reply: &mut HeaderMap) {
        // Caches must not give one origin what another was answered.
        reply.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(headers) = self.origin_headers(request) {
            reply.extend(headers);
            if let Ok(exposed) = HeaderValue::from_str(&self.exposed) {
                reply.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
    }

    fn origin_headers(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let origin = request.get(header::ORIGIN)?;
        let credentials = self.allows(origin)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        Some(headers)
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_owned()).collect()
}
