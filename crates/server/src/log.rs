//! One line per request. Paths come as they were sent, percent-encoded, so they cannot forge
//! lines; queries, headers and bodies may hold secrets and stay out.

use crate::call::Call;
use axum::http::StatusCode;
use std::time::Duration;

pub(crate) fn request(call: &Call, id: &str, status: StatusCode, took: Duration) {
    if !tracing::enabled!(target: "settee::http", tracing::Level::INFO) {
        return;
    }
    let user = call.user().name.as_deref().map(|name| name.escape_debug().to_string());
    tracing::info!(
        target: "settee::http",
        id,
        peer = call.peer.address.map(tracing::field::display),
        user,
        method = call.parts.method.as_str(),
        path = call.parts.uri.path(),
        status = status.as_u16(),
        ms = took.as_millis() as u64,
    );
}
