//! Errors as replies.

use crate::call::Call;
use crate::reply::{self, Response};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use settee_core::wire::ErrorBody;
use settee_core::{Error, ErrorKind};

/// The reply that says what went wrong.
pub(crate) fn reply(call: &Call, error: &Error) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = ErrorBody::from(error);
    if error.kind() == ErrorKind::Internal {
        let path = call.parts.uri.path();
        // One with a name of its own is the failure of a function of a design document.
        if error.name() == ErrorKind::Internal.name() {
            tracing::error!(?error, path, "request failed");
            // The cause may name files or addresses; whoever runs the server finds it in the log.
            body.reason = Some("Internal error. The server's log says more.".to_owned());
        } else {
            tracing::warn!(%error, path, "a function failed");
        }
    }
    let text = serde_json::to_vec(&body).unwrap_or_default();
    let mut reply = reply::json_text(status, text);
    if error.kind() == ErrorKind::Unauthorized
        && let Some(challenge) = challenge(call)
    {
        reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    reply
}

/// What makes a browser ask for name and password: what the client or the configuration says, and
/// otherwise only where everyone must log in.
fn challenge(call: &Call) -> Option<HeaderValue> {
    let asked = call.parts.headers.get("x-couchdb-www-authenticate").cloned();
    let configured = || HeaderValue::from_str(call.live.http("WWW-Authenticate")?).ok();
    let required = || {
        let required = call.live.require_valid_user || call.live.require_valid_user_except_for_up;
        required.then(|| HeaderValue::from_static("Basic realm=\"server\""))
    };
    asked.or_else(configured).or_else(required)
}
