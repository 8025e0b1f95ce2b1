//! Who one is, request by request.

use super::http::{Call, Http, bad_reply};
use super::options::{Identity, RemoteOptions};
use super::url::{Credentials, PathQuery};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use settee_core::{Error, ErrorKind, Result};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A session is renewed at this age. CouchDB's live for ten minutes unless configured otherwise.
const SESSION_AGE: Duration = Duration::from_secs(5 * 60);

/// What stands for a login: the value of CouchDB's `AuthSession` cookie. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// A token that was kept elsewhere.
    pub fn new(token: impl Into<String>) -> SessionToken {
        SessionToken(token.into())
    }

    /// The cookie's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// How requests say who sends them.
pub(crate) enum Auth {
    None,
    /// The same header each time.
    Fixed(HeaderName, HeaderValue),
    Session {
        credentials: Credentials,
        current: Mutex<Option<Session>>,
    },
}

pub(crate) struct Session {
    cookie: HeaderValue,
    since: Instant,
}

impl Auth {
    pub(crate) fn new(options: &RemoteOptions, in_url: Option<Credentials>) -> Result<Auth> {
        let in_url = in_url.map(Identity::Basic);
        let identity = match options.identity.clone().or(in_url) {
            Some(Identity::Basic(credentials)) if options.use_session => {
                Some(Identity::Session(credentials))
            }
            identity => identity,
        };
        Ok(match identity {
            None => Auth::None,
            Some(Identity::Basic(credentials)) => {
                Auth::Fixed(header::AUTHORIZATION, secret(credentials.basic())?)
            }
            Some(Identity::Bearer(token)) => {
                Auth::Fixed(header::AUTHORIZATION, secret(format!("Bearer {token}"))?)
            }
            Some(Identity::Token(token)) => Auth::Fixed(header::COOKIE, cookie(&token)?),
            Some(Identity::Session(credentials)) => {
                Auth::Session { credentials, current: Mutex::new(None) }
            }
        })
    }

    /// The header to send, after logging in if that is needed.
    pub(crate) async fn header(&self, http: &Http) -> Result<Option<(HeaderName, HeaderValue)>> {
        let (credentials, current) = match self {
            Auth::None => return Ok(None),
            Auth::Fixed(name, value) => return Ok(Some((name.clone(), value.clone()))),
            Auth::Session { credentials, current } => (credentials, current),
        };
        // Who comes while somebody logs in waits for that login.
        let mut current = current.lock().await;
        let fresh = current.as_ref().filter(|session| session.since.elapsed() < SESSION_AGE);
        let value = match fresh {
            Some(session) => session.cookie.clone(),
            None => {
                let token = log_in(http, credentials).await?;
                let value = cookie(token.as_str())?;
                *current = Some(Session { cookie: value.clone(), since: Instant::now() });
                value
            }
        };
        Ok(Some((header::COOKIE, value)))
    }

    /// Gives up a session that the server does not take; says whether a new one can be had.
    pub(crate) async fn forget(&self, used: Option<&(HeaderName, HeaderValue)>) -> bool {
        let Auth::Session { current, .. } = self else { return false };
        let mut current = current.lock().await;
        // Somebody may have renewed it meanwhile.
        if current.as_ref().map(|session| &session.cookie) == used.map(|(_, value)| value) {
            *current = None;
        }
        true
    }

    /// Takes the renewed cookie that a server sends along.
    pub(crate) fn seen(&self, headers: &HeaderMap) {
        let Auth::Session { current, .. } = self else { return };
        let Some(token) = session_cookie(headers).filter(|token| !token.is_empty()) else { return };
        // If it is locked, somebody logs in: that session is as good.
        if let (Ok(mut current), Ok(cookie)) = (current.try_lock(), cookie(&token)) {
            *current = Some(Session { cookie, since: Instant::now() });
        }
    }
}

/// Logs in: `POST /_session`.
pub(crate) async fn log_in(http: &Http, credentials: &Credentials) -> Result<SessionToken> {
    let form =
        PathQuery::new("").with("name", &credentials.name).with("password", &credentials.password);
    let form = form.as_str().trim_start_matches('?').to_owned();
    let path = PathQuery::new("_session");
    let target = format!("{}/{}", http.base, path.as_str());
    let mut call = Call::new(Method::POST, path).json(form);
    call = call.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response =
        super::runtime::with_runtime(Box::pin(http.once(&mut call, &target, true, None)));
    let response = response.await?;
    if response.status != StatusCode::OK {
        return Err(response.into_error(&Method::POST).await);
    }
    let token = session_cookie(&response.headers).filter(|token| !token.is_empty());
    // To its end, so that the connection can be used again.
    response.bytes(64 << 10).await?;
    token.map(SessionToken).ok_or_else(|| bad_reply("The login gave no session."))
}

/// The value of `AuthSession`, whichever header has it.
fn session_cookie(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::SET_COOKIE).iter().find_map(|cookie| {
        let value = cookie.to_str().ok()?.trim_start().strip_prefix("AuthSession=")?;
        Some(value.split(';').next().unwrap_or_default().trim_matches('"').to_owned())
    })
}

fn secret(text: String) -> Result<HeaderValue> {
    let illegal = |_| Error::new(ErrorKind::BadRequest, "The credentials are no legal header.");
    let mut value = HeaderValue::try_from(text).map_err(illegal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The header that a session's token travels in.
pub(crate) fn cookie(token: &str) -> Result<HeaderValue> {
    secret(format!("AuthSession={token}"))
}
