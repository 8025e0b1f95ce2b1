//! The session cookie: base64 of `name:time:signature`, signed with the server's secret and the
//! salt of the user's password, so that a new password ends old sessions.

use crate::config::Live;
use axum::http::header::{COOKIE, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use settee_core::{Error, Result};
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NAME: &str = "AuthSession";

/// What a fresh cookie needs besides the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub salt: String,
}

/// A cookie as it came.
pub(super) struct Cookie {
    pub(super) name: String,
    time: String,
    signature: Vec<u8>,
}

impl Cookie {
    pub(super) fn parse(text: &str) -> Result<Cookie> {
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
            let mut parts = bytes.splitn(3, |&byte| byte == b':');
            let name = String::from_utf8(parts.next()?.to_vec()).ok()?;
            let time = String::from_utf8(parts.next()?.to_vec()).ok()?;
            Some(Cookie { name, time, signature: parts.next()?.to_vec() })
        };
        read().ok_or_else(|| {
            Error::bad_request("Malformed AuthSession cookie. Please clear your cookies.")
        })
    }

    /// How old the session is; `None` if it has ended or is not genuine.
    pub(super) fn age(&self, live: &Live, salt: &str) -> Option<Duration> {
        let mac = mac(live, salt, &self.name, &self.time)?;
        // Compares in constant time.
        mac.verify_slice(&self.signature).ok()?;
        let began = Duration::from_secs(u64::from_str_radix(&self.time, 16).ok()?);
        let age = now().saturating_sub(began);
        (age < live.session_timeout).then_some(age)
    }
}

/// The value of the session cookie among a request's cookies; `None` also if it is empty.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == NAME && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

/// `Set-Cookie` for a session that begins now.
pub(crate) fn begin(live: &Live, name: &str, salt: &str, secure: bool) -> Option<HeaderValue> {
    let time = format!("{:X}", now().as_secs());
    let signature = mac(live, salt, name, &time)?.finalize().into_bytes();
    let mut session = format!("{name}:{time}:").into_bytes();
    session.extend_from_slice(&signature);
    set_cookie(live, &URL_SAFE_NO_PAD.encode(session), secure)
}

/// `Set-Cookie` that ends a session.
pub(crate) fn end(live: &Live, secure: bool) -> Option<HeaderValue> {
    set_cookie(live, "", secure)
}

fn set_cookie(live: &Live, value: &str, secure: bool) -> Option<HeaderValue> {
    let mut text = format!("{NAME}={value}; Version=1; Path=/; HttpOnly");
    if value.is_empty() {
        text.push_str("; Max-Age=0");
    } else if live.auth("allow_persistent_cookies") != Some("false") {
        // Some clients' cookie jars know only the one, some only the other.
        let expires = httpdate::fmt_http_date(SystemTime::now() + live.session_timeout);
        let age = live.session_timeout.as_secs();
        text.push_str(&format!("; Expires={expires}; Max-Age={age}"));
    }
    if secure {
        text.push_str("; Secure");
    }
    match live.auth("same_site").map(str::to_ascii_lowercase).as_deref() {
        Some("lax") => text.push_str("; SameSite=Lax"),
        Some("strict") => text.push_str("; SameSite=Strict"),
        Some("none") => text.push_str("; SameSite=None"),
        _ => {}
    }
    if let Some(domain) = live.auth("cookie_domain").filter(|domain| !domain.is_empty()) {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    HeaderValue::from_str(&text).ok()
}

fn mac(live: &Live, salt: &str, name: &str, time: &str) -> Option<Hmac<Sha256>> {
    let key = format!("{}{salt}", live.secret);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(name.as_bytes());
    mac.update(b":");
    mac.update(time.as_bytes());
    Some(mac)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
