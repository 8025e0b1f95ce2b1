//! One request on its way: what handlers are given, and the frame around them (who is asking,
//! which route, what every reply carries).

use crate::app::App;
use crate::auth::{User, session};
use crate::body::Incoming;
use crate::config::Live;
use crate::error;
use crate::gzip;
use crate::listen::Peer;
use crate::query::Query;
use crate::reply::{self, Response};
use crate::routes::Found;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use settee::design;
use settee_core::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// CouchDB's version that this API is one of; clients decide by it what they may ask for.
macro_rules! couchdb_version {
    () => {
        "3.5.1"
    };
}
pub(crate) const COUCHDB_VERSION: &str = couchdb_version!();

static REQUEST_ID: HeaderName = HeaderName::from_static("x-couch-request-id");
static BODY_TIME: HeaderName = HeaderName::from_static("x-couchdb-body-time");
static METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// What stays as it is in a path segment, as CouchDB's clients write them.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// One request.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    /// The configuration as it was when the request came.
    pub(crate) live: Arc<Live>,
    /// The method that counts: `GET` for `HEAD`.
    pub(crate) method: Method,
    pub(crate) parts: Parts,
    pub(crate) query: Query,
    pub(crate) peer: Peer,
    pub(crate) body: Arc<Incoming>,
    rewrites: u32,
    /// The path's segments as the client asked for it, where it has been rewritten.
    requested_path: Option<Vec<String>>,
    id: String,
    params: Vec<(&'static str, String)>,
    route: &'static str,
    user: OnceLock<User>,
}

impl Call {
    /// How often this request has been rewritten.
    pub(crate) fn rewrites(&self) -> u32 {
        self.rewrites
    }

    /// The path's segments as the client asked for it, where it has been rewritten.
    pub(crate) fn requested_path(&self) -> Option<&[String]> {
        self.requested_path.as_deref()
    }

    /// A parameter of the route, decoded; empty if the route has no such parameter.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|param| param.0 == name).map_or("", |param| &param.1)
    }

    /// The route's path, as the table has it.
    pub(crate) fn route(&self) -> &'static str {
        self.route
    }

    /// Who is asking.
    pub(crate) fn user(&self) -> &User {
        self.user.get_or_init(User::default)
    }

    /// A header's value, if it is readable text.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// Whether the method is `HEAD`.
    pub(crate) fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// Whether the client named a media type in `Accept`, or would take any.
    pub(crate) fn accepts(&self, media_type: &str) -> bool {
        let Some(accept) = self.header(header::ACCEPT) else { return true };
        let family = media_type.split('/').next().unwrap_or_default();
        accept.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let refused = parts
                .any(|part| matches!(part.split_once('='), Some(("q", q)) if q.parse() == Ok(0.0)));
            let matches = range == "*/*"
                || range.eq_ignore_ascii_case(media_type)
                || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(family));
            matches && !refused
        })
    }

    /// Whether the client named this very media type in `Accept`.
    pub(crate) fn asks_for(&self, media_type: &str) -> bool {
        self.header(header::ACCEPT).is_some_and(|accept| {
            accept.split(',').any(|item| {
                item.split(';')
                    .next()
                    .is_some_and(|range| range.trim().eq_ignore_ascii_case(media_type))
            })
        })
    }

    /// An address on this server, as the client sees it.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let forwarded = |key, default: &str| {
            self.header(self.live.http(key).unwrap_or(default)).map(str::to_owned)
        };
        let host = forwarded("x_forwarded_host", "x-forwarded-host")
            .or_else(|| self.header(header::HOST).map(str::to_owned))
            .unwrap_or_else(|| "localhost".to_owned());
        let secure = forwarded("x_forwarded_ssl", "x-forwarded-ssl").as_deref() == Some("on")
            || forwarded("x_forwarded_proto", "x-forwarded-proto").as_deref() == Some("https")
            || self.peer.secure;
        let scheme = if secure { "https" } else { "http" };
        format!("{scheme}://{host}{path}")
    }

    /// The address of something in the database of this call.
    pub(crate) fn location(&self, segments: &[&str]) -> String {
        let mut path = format!("/{}", encode(self.param("db")));
        for segment in segments {
            path.push('/');
            path.push_str(&encode(segment));
        }
        self.absolute(&path)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.app.release(self.body.let_go());
    }
}

/// Encodes a path segment.
pub(crate) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// Answers a request. Never fails: what goes wrong becomes a reply.
pub(crate) async fn handle(app: Arc<App>, request: Request<Body>) -> Response {
    let began = Instant::now();
    app.begin();
    let (parts, body) = request.into_parts();
    let live = app.config.live();
    let call = Call {
        method: effective_method(&parts),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        peer: peer(&parts),
        body: Arc::new(Incoming::new(body, &parts.headers)),
        rewrites: 0,
        requested_path: None,
        id: request_id(&parts.headers),
        params: Vec::new(),
        route: "",
        user: OnceLock::new(),
        app,
        live,
        parts,
    };
    call.app.stats.request(&call.parts.method);
    let (call, outcome) = answer(call).await;
    // What the client is still sending is taken in, up to a point, so that it reads the reply
    // instead of a broken connection.
    call.body.drain().await;
    let reply = finish(&call, outcome);
    crate::log::request(&call, &call.id, reply.status(), began.elapsed());
    reply
}

/// The way to the handler: address, cross-origin, who, where to.
async fn answer(mut call: Call) -> (Arc<Call>, Result<Response>) {
    if let Err(error) = check_address(&call) {
        return (Arc::new(call), Err(error));
    }
    if let Some(preflight) = preflight(&call) {
        return (Arc::new(call), Ok(preflight));
    }
    match authenticate(&call).await {
        Ok(user) => call.user = OnceLock::from(user),
        Err(error) => return (Arc::new(call), Err(error)),
    }
    match segments(&call) {
        Ok(segments) => dispatch(call, &segments).await,
        Err(error) => (Arc::new(call), Err(error)),
    }
}

/// To the endpoint of a path.
async fn dispatch(mut call: Call, segments: &[String]) -> (Arc<Call>, Result<Response>) {
    let app = call.app.clone();
    match app.routes.find(segments, &call.method) {
        Found::Endpoint { endpoint, route, params } => {
            (call.route, call.params) = (route, params);
            let call = Arc::new(call);
            let outcome = endpoint.run(call.clone()).await;
            (call, outcome)
        }
        Found::OtherMethods(allow) => (Arc::new(call), Ok(reply::method_not_allowed(allow))),
        Found::Nothing => (Arc::new(call), Err(Error::missing())),
    }
}

/// Answers what a request has been rewritten to, for the same user. Its rights are checked again.
/// Without a `body` of its own it has that of the original.
pub(crate) async fn rewritten(
    call: &Call,
    target: design::Request,
    body: Option<Bytes>,
) -> Result<Response> {
    let bad = |_| Error::new(ErrorKind::BadRequest, "bad rewrite").with_name("rewrite_error");
    let mut parts = call.parts.clone();
    parts.uri = target.raw_path.parse().map_err(|_| bad(()))?;
    parts.method = Method::from_bytes(target.method.as_bytes()).map_err(|_| bad(()))?;
    parts.headers.clear();
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name).map_err(|_| bad(()))?;
        parts.headers.append(name, reply::header_value(value)?);
    }
    let body = match body {
        None => call.body.clone(),
        Some(bytes) => {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            Arc::new(Incoming::new(Body::from(bytes), &parts.headers))
        }
    };
    let next = Call {
        app: call.app.clone(),
        live: call.live.clone(),
        method: if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() },
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        peer: call.peer,
        body,
        rewrites: call.rewrites + 1,
        requested_path: Some(target.requested_path),
        id: call.id.clone(),
        params: Vec::new(),
        route: "",
        user: OnceLock::from(call.user().clone()),
        parts,
    };
    dispatch(next, &target.path).await.1
}

fn check_address(call: &Call) -> Result<()> {
    let uri = &call.parts.uri;
    let path_and_query = uri.path_and_query().map_or("", |both| both.as_str());
    if path_and_query.len() as u64 > call.live.max_uri {
        return Err(Error::new(ErrorKind::TooLong, "the request uri is too long"));
    }
    let mut rest = path_and_query.as_bytes();
    while let Some(at) = memchr::memchr(b'%', rest) {
        if !rest.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Error::bad_request("invalid_url_encoding"));
        }
        rest = &rest[at + 3..];
    }
    Ok(())
}

fn preflight(call: &Call) -> Option<Response> {
    if call.method != Method::OPTIONS {
        return None;
    }
    let headers = call.live.cors.as_ref()?.preflight(&call.parts.headers)?;
    let mut reply = reply::empty(StatusCode::NO_CONTENT);
    reply.headers_mut().extend(headers);
    Some(reply)
}

/// Who is asking; refuses who does not say so where everyone must.
async fn authenticate(call: &Call) -> Result<User> {
    let live = &call.live;
    let user = call.app.auth.identify(live, &call.parts.headers, call.peer.ip()).await?;
    if user.name.is_some() {
        return Ok(user);
    }
    let path = call.parts.uri.path().trim_matches('/');
    // Whoever must log in must be let through to do so.
    let is_login = path == "_session" && call.method == Method::POST;
    let required = live.require_valid_user || live.require_valid_user_except_for_up;
    let excepted = is_login || (path == "_up" && live.require_valid_user_except_for_up);
    match required && !excepted {
        true => Err(Error::new(ErrorKind::Unauthorized, "Authentication required.")),
        false => Ok(user),
    }
}

/// The path's segments, decoded. Empty ones do not count, as in CouchDB.
pub(crate) fn segments(call: &Call) -> Result<Vec<String>> {
    let plus = call.live.decode_plus_to_space;
    let decode = |segment: &str| {
        let spaced = if plus { segment.replace('+', " ") } else { segment.to_owned() };
        let decoded = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
        decoded.map_err(|_| Error::new(ErrorKind::IllegalDocId, "Document id must be valid UTF-8"))
    };
    call.parts.uri.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect()
}

fn effective_method(parts: &Parts) -> Method {
    const OVERRIDES: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "COPY"];
    let wanted = parts.headers.get(&METHOD_OVERRIDE).and_then(|value| value.to_str().ok());
    let method = match wanted.filter(|wanted| OVERRIDES.contains(wanted)) {
        Some(wanted) if parts.method == Method::POST => {
            Method::from_bytes(wanted.as_bytes()).unwrap_or(Method::POST)
        }
        _ => parts.method.clone(),
    };
    if method == Method::HEAD { Method::GET } else { method }
}

fn peer(parts: &Parts) -> Peer {
    let embedded = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let own = parts.extensions.get::<Peer>().copied();
    own.unwrap_or_else(|| Peer { address: embedded(), secure: false })
}

/// The client's own request id if it is one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let fine = |id: &&str| {
        (1..=36).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    given.filter(fine).map_or_else(|| format!("{:010x}", rand_u64() >> 24), str::to_owned)
}

fn rand_u64() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// What every reply carries.
fn finish(call: &Call, outcome: Result<Response>) -> Response {
    let mut reply = outcome.unwrap_or_else(|error| error::reply(call, &error));
    let headers = reply.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&call.id) {
        headers.insert(&REQUEST_ID, id);
    }
    headers.insert(&BODY_TIME, HeaderValue::from(call.body.millis()));
    headers.insert(header::SERVER, server_header(&call.live));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("must-revalidate"));
    }
    renew_session(call, headers);
    if let Some(cors) = &call.live.cors
        && call.parts.headers.contains_key(header::ORIGIN)
        && call.method != Method::OPTIONS
    {
        cors.decorate(&call.parts.headers, headers);
    }
    call.app.stats.reply(reply.status());
    let mut reply = gzip::maybe_compress(call, reply);
    prefer_minimal(call, reply.headers_mut());
    reply
}

fn server_header(live: &Live) -> HeaderValue {
    const FULL: &str =
        concat!("CouchDB/", couchdb_version!(), " (Settee/", env!("CARGO_PKG_VERSION"), ")");
    match live.http("server_header_versions") {
        Some("false") => HeaderValue::from_static("CouchDB"),
        _ => HeaderValue::from_static(FULL),
    }
}

fn renew_session(call: &Call, headers: &mut HeaderMap) {
    let User { name: Some(name), renewal: Some(renewal), .. } = call.user() else { return };
    if headers.contains_key(header::SET_COOKIE) {
        return;
    }
    if let Some(cookie) = session::begin(&call.live, name, &renewal.salt, call.peer.secure) {
        headers.insert(header::SET_COOKIE, cookie);
    }
}

/// `Prefer: return=minimal` asks for few headers.
fn prefer_minimal(call: &Call, headers: &mut HeaderMap) {
    let prefer = call.header("prefer").unwrap_or_default();
    if !prefer.eq_ignore_ascii_case("return=minimal") {
        return;
    }
    let keep = call.live.http("prefer_minimal").unwrap_or(
        "Cache-Control, Content-Length, Content-Range, Content-Type, ETag, Server, \
         Transfer-Encoding, Vary",
    );
    let keep: Vec<String> = keep.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let drop: Vec<HeaderName> = headers
        .keys()
        .filter(|name| !keep.iter().any(|kept| kept == name.as_str()))
        .cloned()
        .collect();
    for name in drop {
        headers.remove(name);
    }
}
