//! Functions of design documents, which the server runs.

use super::database::{INDEXING, Shared};
use super::http::{Call, Payload, Repeat};
use super::url::encode;
use crate::adapter::ByteStream;
use crate::design::{FunctionKind, FunctionPath, Rendered, Request, Stub};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName};
use settee_core::wire::ErrorBody;
use settee_core::{Error, Result};

/// Headers that are between the two ends of a connection, or that the client has its own of.
const OURS: [HeaderName; 7] = [
    header::HOST,
    header::USER_AGENT,
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
];

/// Calls a function by the request that there is for it.
pub(crate) async fn call(db: &Shared, path: &FunctionPath, stub: &Stub) -> Result<Rendered> {
    let request = path.request(&db.name, stub)?;
    let response = db.http.send(write_call(db, path, request)?).await?;
    let (code, headers) = (response.status.as_u16(), response_headers(&response.headers));
    let body = match (path.kind, code) {
        (_, 400..) => {
            let body = response.bytes(db.limits().document).await?;
            if let Some(error) = server_error(&body, code) {
                return Err(error);
            }
            whole(body)
        }
        // As an embedded function's response is in memory, up to a bound.
        (FunctionKind::Show | FunctionKind::Update, _) => {
            whole(response.bytes(db.limits().document).await?)
        }
        (FunctionKind::List | FunctionKind::Rewrite, _) => response.body.boxed(),
    };
    Ok(Rendered { code, headers, body })
}

fn write_call(db: &Shared, path: &FunctionPath, request: Request) -> Result<Call> {
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| Error::bad_request("This is no method."))?;
    let rest: Vec<String> = path.rest.split('/').map(encode).collect();
    let (ddoc, function) = (encode(&path.ddoc), path.kind.segment());
    let mut target = db.path(&format!("_design/{ddoc}/{function}/{}", rest.join("/")));
    for (name, value) in &request.query {
        target = target.with(&encode(name), value.as_str().unwrap_or(&value.to_string()));
    }
    let repeat = match path.kind {
        FunctionKind::Show | FunctionKind::List => Repeat::Safe,
        FunctionKind::Rewrite if method == Method::GET || method == Method::HEAD => Repeat::Safe,
        FunctionKind::Rewrite | FunctionKind::Update => Repeat::Unsent,
    };
    let mut call = Call::new(method, target).any_status().repeat(repeat);
    if matches!(path.kind, FunctionKind::List | FunctionKind::Rewrite) {
        call = call.wait(INDEXING);
    }
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name)
            .map_err(|_| Error::bad_request("A header's name is not legal."))?;
        if !OURS.contains(&name) {
            call = call.header(name, value);
        }
    }
    Ok(match request.body {
        Some(body) => call.payload(Payload::Bytes(body.into())),
        None => call,
    })
}

fn response_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let headers = headers.iter().filter(|(name, _)| !OURS.contains(name));
    headers
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

fn whole(body: Bytes) -> ByteStream {
    stream::iter(Some(body).filter(|body| !body.is_empty()).map(Ok)).boxed()
}

/// What the server itself says went wrong, unless it is a function that speaks.
fn server_error(body: &[u8], code: u16) -> Option<Error> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    body.reason.is_some().then(|| body.into_error(code))
}
