//! Sessions: <https://docs.couchdb.org/en/stable/api/server/authn.html>

use crate::auth::access::Anyone;
use crate::auth::session;
use crate::body::parse_json;
use crate::call::Call;
use crate::reply::{self, Response};
use axum::http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use settee_core::wire::ErrorBody;
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

/// `GET /_session`
pub(super) async fn show(_: Anyone, call: Arc<Call>) -> Result<Response> {
    let user = call.user();
    if user.name.is_none() && call.query.is("basic") {
        return Err(Error::new(ErrorKind::Unauthorized, "Please login."));
    }
    let mut info = Map::new();
    info.insert("authentication_handlers".to_owned(), json!(["cookie", "default"]));
    if let Some(handler) = user.handler {
        info.insert("authenticated".to_owned(), handler.into());
    }
    reply::ok_json(&json!({
        "ok": true,
        "userCtx": {"name": user.name, "roles": user.roles},
        "info": info,
    }))
}

/// `POST /_session`
pub(super) async fn begin(_: Anyone, call: Arc<Call>) -> Result<Response> {
    let (name, password) = credentials(&call).await?;
    let secure = call.peer.secure;
    match call.app.auth.login(&call.live, &name, &password, call.peer.ip()).await {
        Ok((user, hash)) => {
            let cookie = session::begin(&call.live, &name, hash.salt(), secure);
            let body = json!({"ok": true, "name": name, "roles": user.roles});
            finish(&call, "next", reply::ok_json(&body)?, cookie)
        }
        Err(failed) if failed.kind() == ErrorKind::Unauthorized => {
            let cookie = session::end(&call.live, secure);
            // Without a challenge, which would make browsers ask by themselves.
            let reply = reply::json(StatusCode::UNAUTHORIZED, &ErrorBody::from(&failed))?;
            finish(&call, "fail", reply, cookie)
        }
        Err(failed) => Err(failed),
    }
}

/// `DELETE /_session`
pub(super) async fn end(_: Anyone, call: Arc<Call>) -> Result<Response> {
    let cookie = session::end(&call.live, call.peer.secure);
    finish(&call, "next", reply::ok(StatusCode::OK), cookie)
}

/// The reply with its cookie, or one that leads to the address in a query parameter.
fn finish(
    call: &Call,
    parameter: &str,
    mut reply: Response,
    cookie: Option<HeaderValue>,
) -> Result<Response> {
    if let Some(path) = call.query.get(parameter) {
        // Only ever on this server: a login must not be a way to send people elsewhere.
        if !path.starts_with('/') || path.starts_with("//") || path.contains(['\\', '\r', '\n']) {
            return Err(Error::bad_request(format!("`{parameter}` must be a path.")));
        }
        *reply.status_mut() = StatusCode::FOUND;
        reply = reply::with(reply, header::LOCATION, &call.absolute(path))?;
    }
    if let Some(cookie) = cookie {
        // couchdb-python takes the first header for the cookie, whatever it is.
        let rest = std::mem::take(reply.headers_mut());
        reply.headers_mut().insert(header::SET_COOKIE, cookie);
        reply.headers_mut().extend(rest);
    }
    Ok(reply)
}

/// Name and password, from a form or a JSON object.
async fn credentials(call: &Call) -> Result<(String, String)> {
    let body = call.small_bytes().await?;
    let media_type = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let form: Vec<(String, String)> = match media_type.split(';').next().map(str::trim) {
        Some("application/x-www-form-urlencoded") => {
            form_urlencoded::parse(&body).into_owned().collect()
        }
        Some("application/json") => {
            let Value::Object(object) = parse_json(&body)? else {
                return Err(Error::bad_request("Request body must be a JSON object"));
            };
            let text = |(name, value)| match value {
                Value::String(value) => Some((name, value)),
                _ => None,
            };
            object.into_iter().filter_map(text).collect()
        }
        _ => {
            return Err(Error::new(
                ErrorKind::BadContentType,
                "Content-Type must be 'application/x-www-form-urlencoded' or 'application/json'",
            ));
        }
    };
    let field = |name: &str| form.iter().find(|field| field.0 == name).map(|field| &field.1);
    let name = match (field("username"), field("name")) {
        (None, None) => {
            return Err(Error::bad_request("request body must contain a username"));
        }
        (Some(one), Some(other)) if one != other => {
            return Err(Error::bad_request("request body contains different usernames"));
        }
        (Some(name), _) | (None, Some(name)) => name.clone(),
    };
    Ok((name, field("password").cloned().unwrap_or_default()))
}
