//! Requests as functions of design documents see them.

use crate::call::{self, Call};
use axum::http::header;
use serde_json::{Map, Value};
use settee::design::{Request, UserCtx, header_name};
use settee_core::Result;

/// The request that a function is called for. `body` is its body, where there is one.
pub(crate) async fn request(call: &Call, body: Option<String>) -> Result<Request> {
    let path = call::segments(call)?;
    let user = call.user();
    let uri = &call.parts.uri;
    let raw_path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
    let headers = call.parts.headers.iter().filter_map(|(name, value)| {
        Some((header_name(name.as_str()), value.to_str().ok()?.to_owned()))
    });
    Ok(Request {
        method: call.parts.method.to_string(),
        requested_path: call.requested_path().unwrap_or(&path).to_vec(),
        path,
        raw_path: raw_path.to_owned(),
        query: call.query.texts().map(|(name, text)| (name.to_owned(), text.into())).collect(),
        headers: headers.collect(),
        form: form(call, body.as_deref()),
        body,
        peer: call.peer.ip().map(|ip| ip.to_string()).unwrap_or_default(),
        uuid: call.app.host.uuids(1).await?.pop().unwrap_or_default(),
        user: UserCtx {
            db: call.param("db").to_owned(),
            name: user.name.clone(),
            roles: user.roles.clone(),
        },
        security: None,
    })
}

/// The fields of a form, if the body is one.
fn form(call: &Call, body: Option<&str>) -> Map<String, Value> {
    let media_type = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let body = body.filter(|_| media_type.starts_with("application/x-www-form-urlencoded"));
    let fields = form_urlencoded::parse(body.unwrap_or_default().as_bytes());
    fields.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect()
}
