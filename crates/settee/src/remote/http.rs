//! One HTTP exchange: connection pool, headers, redirects, repetition, errors.

use super::auth::Auth;
use super::body::Body;
use super::cache::DocCache;
use super::connect::Connector;
use super::options::{Identity, RemoteOptions};
use super::retry::{Backoff, retry_after};
use super::runtime::{self, with_runtime};
use super::status::StatusWatch;
use super::url::{BaseUrl, Credentials, PathQuery};
use crate::adapter::ByteStream;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use settee_core::wire::ErrorBody;
use settee_core::{Error, ErrorKind, Result};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The most of an error's body that is read.
const MAX_ERROR_BODY: usize = 64 << 10;

/// The most that a reply's head, or one piece of its body, takes.
const MAX_HEAD: usize = 256 << 10;

/// What is in memory is sent in pieces of this size.
const PIECE: usize = 256 << 10;

type SendBody = UnsyncBoxBody<Bytes, Error>;

/// The way to one server.
pub(crate) struct Http {
    client: Client<Connector, SendBody>,
    pub(crate) base: BaseUrl,
    pub(crate) options: RemoteOptions,
    pub(crate) auth: Auth,
    pub(crate) status: StatusWatch,
    /// Who is logged in.
    pub(crate) user: Option<String>,
    /// Sent with every request.
    headers: HeaderMap,
    /// Sent to this server alone: what one has added to the usual.
    own_headers: HeaderMap,
    proxy_authorization: Option<HeaderValue>,
    /// Whether to ask for compressed replies.
    gzip: bool,
    /// Whether the server stores attachments as they are encoded, once that is known.
    keeps_encodings: OnceLock<bool>,
    /// Documents that were read before.
    pub(crate) cache: DocCache,
}

/// What is sent.
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    /// Can be sent once.
    Stream {
        body: ByteStream,
        length: Option<u64>,
    },
}

/// Whether a request can be sent again when it may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same however often it is carried out.
    Safe,
    /// Only if it was surely not carried out.
    Unsent,
}

/// A request.
pub(crate) struct Call {
    method: Method,
    path: PathQuery,
    headers: HeaderMap,
    payload: Payload,
    repeat: Repeat,
    /// Take the body encoded, and decode it.
    decode: bool,
    /// Take whatever status comes, as a part of the answer.
    any_status: bool,
    idle: Option<Duration>,
    wait: Option<Duration>,
    tries: Option<u32>,
}

impl Call {
    pub(crate) fn new(method: Method, path: PathQuery) -> Call {
        let repeat = match method {
            Method::POST => Repeat::Unsent,
            _ => Repeat::Safe,
        };
        Call {
            method,
            path,
            headers: HeaderMap::new(),
            payload: Payload::None,
            repeat,
            decode: true,
            any_status: false,
            idle: None,
            wait: None,
            tries: None,
        }
    }

    pub(crate) fn get(path: PathQuery) -> Call {
        Call::new(Method::GET, path)
    }

    pub(crate) fn put(path: PathQuery) -> Call {
        Call::new(Method::PUT, path)
    }

    pub(crate) fn post(path: PathQuery) -> Call {
        Call::new(Method::POST, path)
    }

    pub(crate) fn delete(path: PathQuery) -> Call {
        Call::new(Method::DELETE, path)
    }

    pub(crate) fn json(mut self, body: impl Into<Bytes>) -> Call {
        self.payload = Payload::Bytes(body.into());
        self.header(header::CONTENT_TYPE, "application/json")
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Call {
        self.payload = payload;
        self
    }

    /// A header; values that no header can have are left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Call {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn repeat(mut self, repeat: Repeat) -> Call {
        self.repeat = repeat;
        self
    }

    /// Takes the body's bytes as they come.
    pub(crate) fn raw(mut self) -> Call {
        self.decode = false;
        self
    }

    /// Takes replies of any status as they are, redirections too.
    pub(crate) fn any_status(mut self) -> Call {
        self.any_status = true;
        self
    }

    fn takes(&self, status: StatusCode) -> bool {
        let unchanged = status == StatusCode::NOT_MODIFIED;
        self.any_status
            || status.as_u16() < 300
            || (unchanged && self.headers.contains_key(header::IF_NONE_MATCH))
    }

    /// How long the server may be silent within its reply.
    pub(crate) fn idle(mut self, idle: Duration) -> Call {
        self.idle = Some(idle);
        self
    }

    /// How long the server may take to begin its reply.
    pub(crate) fn wait(mut self, wait: Duration) -> Call {
        self.wait = Some(wait);
        self
    }

    /// A parameter.
    pub(crate) fn add(mut self, name: &str, value: impl fmt::Display) -> Call {
        self.path = self.path.with(name, value);
        self
    }

    pub(crate) fn target(&self, base: &BaseUrl) -> String {
        format!("{base}/{}", self.path.as_str())
    }

    /// How often to try again, if not as usual.
    pub(crate) fn retries(mut self, retries: u32) -> Call {
        self.tries = Some(retries);
        self
    }
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether it is known that the request was not carried out.
    pub(crate) undone: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// A reply whose body is still to come.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Response {
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All of the body, unless it is longer than a limit.
    pub(crate) async fn bytes(mut self, limit: usize) -> Result<Bytes> {
        let mut all = Vec::new();
        let mut first = Bytes::new();
        while let Some(chunk) = self.body.try_next().await? {
            if all.len() + first.len() + chunk.len() > limit {
                return Err(too_large(limit));
            }
            if first.is_empty() && all.is_empty() {
                first = chunk;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
                first = Bytes::new();
            }
            all.extend_from_slice(&chunk);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    /// The body as what it should be.
    pub(crate) async fn json<T: DeserializeOwned>(self, limit: usize) -> Result<T> {
        let bytes = self.bytes(limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            bad_reply(format!("The reply is not what it should be: {error}")).with_source(error)
        })
    }

    pub(crate) async fn into_error(self, method: &Method) -> Error {
        let status = self.status.as_u16();
        if self.status.is_redirection() {
            let kind = ErrorKind::BadReply;
            return Error::new(kind, "The server redirects, and this request does not follow.")
                .with_name("redirect");
        }
        let body = match *method {
            Method::HEAD => Bytes::new(),
            _ => self.bytes(MAX_ERROR_BODY).await.unwrap_or_default(),
        };
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => body.into_error(status),
            Err(_) => {
                let kind = ErrorKind::from_status(status, "");
                let text: String =
                    String::from_utf8_lossy(&body).trim().chars().take(300).collect();
                let reason = match (text.is_empty(), kind) {
                    (true, ErrorKind::NotFound) => "missing".to_owned(),
                    (true, _) => format!("The server answered with status {status}."),
                    (false, _) => text,
                };
                Error::new(kind, reason)
            }
        }
    }
}

pub(crate) fn bad_reply(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::BadReply, reason)
}

pub(crate) fn too_large(limit: usize) -> Error {
    bad_reply(format!("A part of the reply is larger than {limit} bytes."))
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.base)
    }
}

impl Http {
    pub(crate) fn new(
        base: BaseUrl,
        credentials: Option<Credentials>,
        options: RemoteOptions,
    ) -> Result<Http> {
        let user = match (&options.identity, &credentials) {
            (Some(Identity::Basic(own) | Identity::Session(own)), _) | (None, Some(own)) => {
                Some(own.name.clone())
            }
            _ => None,
        };
        let auth = Auth::new(&options, credentials)?;
        let mut headers = HeaderMap::new();
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| Error::bad_request("The user agent is no legal header."))?;
        headers.insert(header::USER_AGENT, user_agent);
        let mut own_headers = HeaderMap::new();
        if !options.full_commit {
            own_headers.insert(FULL_COMMIT, HeaderValue::from_static("false"));
        }
        for (name, value) in &options.headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| Error::bad_request("A header's name is not legal."))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| Error::bad_request("A header's value is not legal."))?;
            value.set_sensitive(true);
            own_headers.append(name, value);
        }
        let connector = Connector::new(&options)?;
        let proxy_authorization = match base.https {
            false => connector.proxy_authorization().cloned(),
            true => None,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(options.pool_idle_timeout)
            .pool_max_idle_per_host(options.pool_size)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        let status = StatusWatch::default();
        let near = base.is_loopback() && options.proxy.is_none();
        let gzip = options.gzip.unwrap_or(!near);
        Ok(Http {
            client,
            base,
            cache: DocCache::new(options.cache),
            options,
            auth,
            status,
            user,
            headers,
            own_headers,
            proxy_authorization,
            gzip,
            keeps_encodings: OnceLock::new(),
        })
    }

    /// Sends a request; errors the server answers with are errors.
    pub(crate) async fn send(&self, call: Call) -> Result<Response, Failure> {
        with_runtime(Box::pin(self.send_and_repeat(call))).await
    }

    /// Sends a request and reads the reply.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        self.send(call).await?.json(self.options.max_item).await
    }

    /// Whether the server takes the bytes of an attachment as they are encoded. Only CouchDB and who
    /// is like it does: others would store encoded bytes as if they were the content.
    pub(crate) async fn keeps_encodings(&self) -> Result<bool> {
        if let Some(keeps) = self.keeps_encodings.get() {
            return Ok(*keeps);
        }
        let welcome: serde_json::Value = self.fetch(Call::get(PathQuery::new(""))).await?;
        let keeps = welcome.get("couchdb").is_some();
        Ok(*self.keeps_encodings.get_or_init(|| keeps))
    }

    /// Sends a request whose reply says nothing.
    pub(crate) async fn run(&self, call: Call) -> Result<()> {
        // Read to its end, so that the connection can be used again.
        self.send(call).await?.bytes(MAX_ERROR_BODY).await.map(drop)
    }

    async fn send_and_repeat(&self, mut call: Call) -> Result<Response, Failure> {
        let mut backoff = Backoff::new();
        let mut left = call.tries.unwrap_or(self.options.retries);
        let mut renewed = false;
        // Whether any attempt may have been carried out.
        let mut undone = true;
        loop {
            let credentials = self.auth.header(self).await;
            let (outcome, credentials) = match credentials {
                Ok(credentials) => {
                    (self.follow(&mut call, credentials.as_ref()).await, credentials)
                }
                Err(error) => (Err(Failure { error, undone: true }), None),
            };
            let once = matches!(call.payload, Payload::Stream { .. });
            let (failure, pause) = match outcome {
                Ok(response) if response.status == StatusCode::UNAUTHORIZED => {
                    if !renewed && !once && self.auth.forget(credentials.as_ref()).await {
                        renewed = true;
                        continue;
                    }
                    if call.any_status {
                        return Ok(response);
                    }
                    let error = response.into_error(&call.method).await;
                    return Err(Failure { error, undone });
                }
                Ok(response) if call.takes(response.status) => return Ok(response),
                Ok(response) => {
                    let status = response.status.as_u16();
                    let pause = retry_after(&response.headers);
                    let passing = matches!(status, 429 | 502 | 503 | 504);
                    undone &= status < 500;
                    let error = response.into_error(&call.method).await;
                    let failure = Failure { error, undone };
                    if !passing {
                        return Err(failure);
                    }
                    (failure, pause)
                }
                Err(failure) => {
                    undone &= failure.undone;
                    let failure = Failure { error: failure.error, undone };
                    if !matches!(failure.error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout)
                    {
                        return Err(failure);
                    }
                    (failure, None)
                }
            };
            let repeatable = !once && (undone || call.repeat == Repeat::Safe);
            if left == 0 || !repeatable {
                return Err(failure);
            }
            left -= 1;
            let pause = backoff.next(pause);
            tracing::debug!(error = %failure.error, ?pause, "trying again");
            runtime::sleep(pause).await;
        }
    }

    /// Sends a request, and follows where reads are redirected to.
    async fn follow(
        &self,
        call: &mut Call,
        credentials: Option<&(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let mut base = self.base.clone();
        let mut target = call.target(&base);
        let reads = call.method == Method::GET || call.method == Method::HEAD;
        for _ in 0..=self.options.redirects {
            let ours = self.base.same_origin(&base);
            let response = self.once(call, &target, ours, credentials).await?;
            let moved = matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved || !reads || call.any_status {
                return Ok(response);
            }
            let location = response.header(header::LOCATION).unwrap_or_default();
            let (next, path) =
                resolve(&base, location).map_err(|error| Failure { error, undone: true })?;
            target = format!("{}{path}", BaseUrl { path: String::new(), ..next.clone() });
            base = next;
        }
        let error = bad_reply("The server redirects in circles.").with_name("redirect");
        Err(Failure { error, undone: true })
    }

    /// One exchange, with whatever status.
    pub(crate) async fn once(
        &self,
        call: &mut Call,
        target: &str,
        ours: bool,
        credentials: Option<&(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let refused = |error| Failure { error, undone: true };
        let uri = target.parse::<Uri>().map_err(|_| {
            refused(match target.len() >= usize::from(u16::MAX) {
                true => Error::new(ErrorKind::TooLong, "The request's URL is too long."),
                false => Error::bad_request("The request's URL is not legal."),
            })
        })?;
        // Counts what has been taken to be sent.
        let progress = Arc::new(AtomicU64::new(0));
        let counter = progress.clone();
        let frame = move |bytes: Bytes| {
            counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Frame::data(bytes)
        };
        let (body, length): (SendBody, _) = match &mut call.payload {
            Payload::None => (Empty::new().map_err(|never| match never {}).boxed_unsync(), None),
            Payload::Bytes(bytes) if bytes.len() <= PIECE => {
                let body = Full::new(bytes.clone()).map_err(|never| match never {});
                (body.boxed_unsync(), None)
            }
            Payload::Bytes(bytes) => {
                let length = Some(bytes.len() as u64);
                let body = stream::iter(pieces(bytes.clone())).map(move |bytes| Ok(frame(bytes)));
                (StreamBody::new(body).boxed_unsync(), length)
            }
            Payload::Stream { body, length } => {
                let body = std::mem::replace(body, Box::pin(stream::empty()));
                (StreamBody::new(body.map_ok(frame)).boxed_unsync(), *length)
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if ours {
            headers.extend(self.own_headers.clone());
            if let Some((name, value)) = credentials {
                headers.insert(name.clone(), value.clone());
            }
            if let Some(value) = &self.proxy_authorization {
                headers.insert(header::PROXY_AUTHORIZATION, value.clone());
            }
        }
        for (name, value) in &call.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        if call.decode {
            let encoding = if self.gzip { "gzip" } else { "identity" };
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        }
        let wait = call.wait.unwrap_or(self.options.request_timeout);
        let mut reply = pin!(self.client.request(request));
        let mut sent = 0;
        let reply = loop {
            let reply = tokio::time::timeout(wait, &mut reply).await;
            let sent_before = std::mem::replace(&mut sent, progress.load(Ordering::Relaxed));
            // A long request may take its time, as long as it moves.
            if reply.is_ok() || sent == sent_before {
                break reply;
            }
        };
        let reply = match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                self.status.set(false);
                let undone = error.is_connect();
                return Err(Failure { error: self.unreachable(error), undone });
            }
            Err(_) => {
                let reason = format!("{} did not answer in time.", self.base);
                return Err(Failure {
                    error: Error::new(ErrorKind::Timeout, reason),
                    undone: false,
                });
            }
        };
        self.status.set(true);
        let (head, incoming) = reply.into_parts();
        if ours {
            self.auth.seen(&head.headers);
        }
        let gzip = call.decode
            && head.headers.get(header::CONTENT_ENCODING).is_some_and(|it| it == "gzip");
        let idle = call.idle.unwrap_or(self.options.idle_timeout);
        let body = Body::new(incoming, idle, gzip);
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    fn unreachable(&self, error: hyper_util::client::legacy::Error) -> Error {
        // A body that was being sent may have failed by itself.
        let mut source = std::error::Error::source(&error);
        let mut why = error.to_string();
        while let Some(cause) = source {
            if let Some(own) = cause.downcast_ref::<Error>() {
                return Error::new(own.kind(), own.reason().to_owned())
                    .with_name(own.name().to_owned());
            }
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        let parse = why.contains("parse") || why.contains("message head is too large");
        if parse {
            return bad_reply(format!("{} does not speak HTTP: {why}", self.base))
                .with_source(error);
        }
        let reason = format!("No answer from {}: {why}", self.base);
        Error::new(ErrorKind::Unreachable, reason).with_source(error)
    }
}

/// Asks a CouchDB 1.x to acknowledge when, or before, a write is durable.
pub(crate) const FULL_COMMIT: HeaderName = HeaderName::from_static("x-couch-full-commit");

fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where a `Location` leads to: the server, and path and query as they are.
fn resolve(base: &BaseUrl, location: &str) -> Result<(BaseUrl, String)> {
    let bad = || bad_reply("The server redirects to nowhere.").with_name("redirect");
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok((base.clone(), location.to_owned()));
    }
    let absolute = match location.strip_prefix("//") {
        Some(rest) => format!("{}://{rest}", if base.https { "https" } else { "http" }),
        None => location.to_owned(),
    };
    let (next, _) = BaseUrl::parse(&absolute).map_err(|_| bad())?;
    let after_scheme = absolute.find("://").ok_or_else(bad)? + 3;
    let path = absolute[after_scheme..].find('/').map_or("/", |at| &absolute[after_scheme + at..]);
    Ok((next, path.split('#').next().unwrap_or_default().to_owned()))
}
