//! Functions of design documents: <https://docs.couchdb.org/en/stable/api/ddoc/render.html>
//! and <https://docs.couchdb.org/en/stable/api/ddoc/rewrites.html>

use crate::auth::access::Member;
use crate::call::{self, Call};
use crate::functions;
use crate::reply::{self, Response};
use crate::routes::document::write_options;
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderName};
use axum::http::{Method, StatusCode};
use settee::design::{self, Functions, Target};
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

/// How often a request is rewritten at most, as long as the configuration says nothing.
const REWRITES: u64 = 100;

/// The name of a function, and the rest of the path behind it.
fn name_and_rest(call: &Call) -> (&str, Option<&str>) {
    let path = call.param("path");
    path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)))
}

/// `GET`, `POST /{db}/_design/{ddoc}/_show/{name}[/{id}]`
pub(super) async fn show(member: Member, call: Arc<Call>) -> Result<Response> {
    let request = functions::request(&call, call.text().await?).await?;
    let (name, id) = name_and_rest(&call);
    let functions = Functions::new(member.db().clone());
    respond(&call, functions.show(call.param("ddoc"), name, id, &request).await?)
}

/// `POST`, `PUT /{db}/_design/{ddoc}/_update/{name}[/{id}]`
pub(super) async fn update(member: Member, call: Arc<Call>) -> Result<Response> {
    let request = functions::request(&call, call.text().await?).await?;
    let (name, id) = name_and_rest(&call);
    let functions = Functions::new(member.db().clone());
    let mut update = functions.run_update(call.param("ddoc"), name, id, &request).await?;
    let response = match update.doc.take() {
        None => update.response,
        // Whoever calls the function must have the right to write what it makes.
        Some(doc) => {
            let saved = member.put(doc, None, &write_options(&call)).await?;
            update.saved(&saved)
        }
    };
    respond(&call, response)
}

/// `GET`, `POST /{db}/_design/{ddoc}/_list/{name}/[{other ddoc}/]{view}`
pub(super) async fn list(member: Member, call: Arc<Call>) -> Result<Response> {
    if call.method == Method::POST {
        call.require_json()?;
    }
    let request = functions::request(&call, call.text().await?).await?;
    let (name, view) = name_and_rest(&call);
    let functions = Functions::new(member.db().clone());
    let list = functions.list(call.param("ddoc"), name, view, &request).await?;
    answer(&call, list.code, &list.headers, Body::from_stream(list.body))
}

/// `/{db}/_design/{ddoc}/_show`, `_list` and `_update` without a function's name
pub(super) async fn nameless(_member: Member, call: Arc<Call>) -> Result<Response> {
    let path = call::segments(&call)?;
    let kind = path.last().map_or("", |segment| segment.trim_start_matches('_'));
    Err(Error::new(ErrorKind::NotFound, "Invalid path.").with_name(format!("{kind}_error")))
}

/// `/{db}/_design/{ddoc}/_rewrite/…`
pub(super) async fn rewrite(member: Member, call: Arc<Call>) -> Result<Response> {
    let most = call.live.number("httpd", "rewrite_limit", REWRITES);
    if u64::from(call.rewrites()) >= most {
        return Err(Error::bad_request("Exceeded rewrite recursion limit"));
    }
    let ddoc = call.param("ddoc");
    let rewrites = Functions::new(member.db().clone()).rewrites(ddoc).await?;
    // A rule does not look at the body, which then goes on as it comes.
    let is_function = rewrites.is_function();
    let body = if is_function { call.text().await? } else { None };
    let request = functions::request(&call, body).await?;
    match rewrites.apply(&request).await? {
        Target::Response(response) => respond(&call, response),
        Target::Request(target) => {
            let body = target.body.clone().filter(|_| is_function).map(Bytes::from);
            call::rewritten(&call, *target, body).await
        }
    }
}

fn respond(call: &Call, response: design::Response) -> Result<Response> {
    answer(call, response.code, &response.headers, Body::from(response.body))
}

/// A reply as a function wants it. How it is sent is not the function's to say.
fn answer(call: &Call, code: u16, headers: &[(String, String)], body: Body) -> Result<Response> {
    const OURS: &[HeaderName] =
        &[header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).map_err(Error::internal)?;
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(Error::internal)?;
        if !OURS.contains(&name) {
            reply.headers_mut().append(name, reply::header_value(value)?);
        }
    }
    // What somebody has stored must not run as a part of this site.
    if call.live.get("csp", "showlist_enable") != Some("false") {
        let policy = call.live.get("csp", "showlist_header_value").unwrap_or("sandbox");
        let policy = reply::header_value(policy)?;
        reply.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(reply)
}
