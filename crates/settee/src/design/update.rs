//! Updates: documents made from requests.

use super::request::escape;
use super::response::HTML;
use super::{Functions, Request, Response, text_of};
use settee_core::json::Limits;
use settee_core::options::WriteOptions;
use settee_core::wire::Saved;
use settee_core::{Document, Error, ErrorKind, Result};

impl Functions {
    /// Answers `/{db}/_design/{ddoc}/_update/{name}[/{id}]`, and writes the document that comes of
    /// it.
    ///
    /// # Errors
    ///
    /// As [`Database::run_update`](crate::Database::run_update).
    pub async fn update(
        &self,
        ddoc: &str,
        name: &str,
        id: Option<&str>,
        request: &Request,
        options: &WriteOptions,
    ) -> Result<Response> {
        let mut update = self.run_update(ddoc, name, id, request).await?;
        match update.doc.take() {
            None => Ok(update.response),
            Some(doc) => Ok(update.saved(&self.db.put(doc, None, options).await?)),
        }
    }

    /// Runs an update function; what it makes is the caller's to write.
    ///
    /// # Errors
    ///
    /// As [`update`](Functions::update), but for those of the write.
    pub async fn run_update(
        &self,
        ddoc: &str,
        name: &str,
        id: Option<&str>,
        request: &Request,
    ) -> Result<Update> {
        let design = self.open(ddoc).await?;
        let doc = self.read(id).await?;
        let object = self.request_object(request, id).await?;
        let text = text_of(doc.as_ref());
        let result = self.db.script()?.update(&design.source, name, text, object).await?;
        let usual = if result.doc.is_some() { 201 } else { 200 };
        let response = Response::parse(&result.response, usual, HTML)?;
        let parse = |doc: String| Document::parse(doc.as_bytes(), &Limits::default());
        let doc = result.doc.map(parse).transpose()?;
        if doc.as_ref().is_some_and(|doc| doc.id.is_none()) {
            return Err(Error::new(ErrorKind::IllegalDocId, "Document id must not be empty"));
        }
        Ok(Update { doc, response })
    }
}

/// What an update function has made.
#[derive(Debug, Clone)]
pub struct Update {
    /// The document to be written, if there is one.
    pub doc: Option<Document>,
    /// The response, as long as nothing has been written.
    pub response: Response,
}

impl Update {
    /// The response once the document has been written.
    pub fn saved(mut self, saved: &Saved) -> Response {
        self.response.set_header("X-Couch-Update-NewRev", &saved.rev.to_string());
        self.response.set_header("X-Couch-Id", &escape(&saved.id));
        self.response
    }
}
