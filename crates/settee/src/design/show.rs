//! Shows: a document as anything.

use super::response::HTML;
use super::{Functions, Request, Response, text_of};
use md5::{Digest as _, Md5};
use settee_core::{Document, Result};

impl Functions {
    /// Answers `/{db}/_design/{ddoc}/_show/{name}[/{id}]`.
    ///
    /// # Errors
    ///
    /// As [`Database::show`](crate::Database::show).
    pub async fn show(
        &self,
        ddoc: &str,
        name: &str,
        id: Option<&str>,
        request: &Request,
    ) -> Result<Response> {
        let design = self.open(ddoc).await?;
        let doc = self.read(id).await?;
        let etag = etag(&design.doc, doc.as_ref(), request);
        if request.header("If-None-Match").is_some_and(|known| known == etag) {
            let headers = vec![("ETag".to_owned(), etag)];
            return Ok(Response { code: 304, headers, body: "".into() });
        }
        let object = self.request_object(request, id).await?;
        let text = text_of(doc.as_ref());
        let response = self.db.script()?.show(&design.source, name, text, object).await?;
        let mut response = Response::parse(&response, 200, HTML)?;
        // The function would have to run for its own tag to be known.
        response.set_header("ETag", &etag);
        response.set_header("Vary", "Accept");
        Ok(response)
    }

    /// The request object for a function.
    pub(super) async fn request_object(
        &self,
        request: &Request,
        id: Option<&str>,
    ) -> Result<String> {
        let info = self.db.info().await?;
        let security = self.db.security().await?;
        request.to_json(&info, &security, id)
    }
}

/// Names everything that a response depends on.
fn etag(design: &Document, doc: Option<&Document>, request: &Request) -> String {
    let rev = |doc: &Document| doc.rev.as_ref().map(ToString::to_string).unwrap_or_default();
    let parts = [
        rev(design),
        doc.map(rev).unwrap_or_default(),
        request.header("Accept").unwrap_or_default().to_owned(),
        request.user.name.clone().unwrap_or_default(),
        request.user.roles.join(" "),
        request.raw_path.clone(),
    ];
    format!("\"{}\"", crate::env::hex(&Md5::digest(parts.join("\n"))))
}
