//! Updates: documents made from requests.

use super::request::escape;
use super::{Functions, Request, Response, Stub, split_path, text_of};
use settee_core::json::Limits;
use settee_core::options::WriteOptions;
use settee_core::{Document, Error, ErrorKind, Result};

impl Functions {
    /// Calls an update function, and saves the document that it returns: `ddoc/function` or
    /// `ddoc/function/docid`.
    ///
    /// # Errors
    ///
    /// As [`show`](Functions::show), and as [`put`](crate::Database::put) for the document.
    pub async fn update(&self, path: &str, stub: &Stub) -> Result<Response> {
        let (ddoc, name, id) = split_path(path, "update")?;
        let request = stub.request(self.path(ddoc, "_update", name, id), "POST")?;
        self.update_request(ddoc, name, id, &request, &WriteOptions::default()).await
    }

    /// Answers `/{db}/_design/{ddoc}/_update/{name}[/{id}]`.
    ///
    /// # Errors
    ///
    /// As [`update`](Functions::update).
    pub async fn update_request(
        &self,
        ddoc: &str,
        name: &str,
        id: Option<&str>,
        request: &Request,
        options: &WriteOptions,
    ) -> Result<Response> {
        let design = self.open(ddoc).await?;
        let doc = self.read(id).await?;
        let object = self.request_object(request, id).await?;
        let text = text_of(doc.as_ref());
        let result = self.engine.update(&design.source, name, text, object).await?;
        let usual = if result.doc.is_some() { 201 } else { 200 };
        let mut response = Response::parse(&result.response, usual)?;
        if let Some(doc) = result.doc {
            let doc = Document::parse(doc.as_bytes(), &Limits::default())?;
            if doc.id.is_none() {
                return Err(Error::new(ErrorKind::IllegalDocId, "Document id must not be empty"));
            }
            let saved = self.db.put(doc, None, options).await?;
            response.set_header("X-Couch-Update-NewRev", &saved.rev.to_string());
            response.set_header("X-Couch-Id", &escape(&saved.id));
        }
        Ok(response)
    }
}
