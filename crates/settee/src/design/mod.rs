//! Functions of design documents as CouchDB offers them over HTTP: shows, lists, updates, rewrites,
//! filters and validation.
//!
//! Programs call them on a [`Database`]: [`show`](Database::show), [`list`](Database::list),
//! [`run_update`](Database::run_update), [`rewrite`](Database::rewrite) and
//! [`validating`](Database::validating). Where a database is embedded its functions run in this
//! process; where it is a server's, the server runs them.
//!
//! What is here knows requests and responses, but no HTTP: [`Functions`] runs functions in this
//! process over any [`Adapter`], for the embedded engine and for servers alike.
//!
//! ```
//! # #[cfg(feature = "js")]
//! # futures_executor::block_on(async {
//! use settee::Couch;
//! use settee::design::Stub;
//!
//! let db = Couch::memory()?.create("people").await?;
//! db.put(r#"{"_id": "_design/people", "shows": {
//!     "hello": "function(doc, req) { return 'Hello ' + (doc ? doc.name : req.query.name) }"
//! }}"#).await?;
//! db.put(r#"{"_id": "ada", "name": "Ada"}"#).await?;
//!
//! let response = db.show("people/hello/ada", &Stub::default()).await?;
//! assert_eq!((response.code, &response.body[..]), (200, &b"Hello Ada"[..]));
//! # Ok::<(), settee::Error>(()) }).unwrap();
//! ```

mod check;
mod filter;
mod list;
mod path;
mod request;
mod response;
mod rewrite;
mod show;
mod update;
mod validate;

pub use filter::ChangesFilter;
pub use path::{FunctionKind, FunctionPath};
pub use request::{Request, Stub, UserCtx, header_name};
pub use response::{Rendered, Response};
pub use rewrite::{Rewrites, Target};
pub use update::Update;
pub use validate::{Validating, Validation, Validator};

use crate::Database;
use crate::adapter::Adapter;
use crate::script::{DesignSource, unknown_language};
use serde_json::{Map, Value};
use settee_core::options::{GetOptions, ViewOptions, WriteOptions};
use settee_core::parameters::Param;
use settee_core::{Document, Error, ErrorKind, Result, json};
use std::sync::Arc;

/// The functions of one database's design documents, run in this process by
/// [`Adapter::script`]. Cheap to clone.
///
/// What takes a [`Request`] is for servers.
#[derive(Debug, Clone)]
pub struct Functions {
    db: Arc<dyn Adapter>,
}

/// Functions of design documents.
///
/// A path names the design document and the function, and what it is called for:
/// `ddoc/function/docid`. It may as well be written as in a URL, `_design/ddoc/_show/function/docid`.
/// Of what a [`Stub`] says, a server is told what a request can carry: method, query, headers and
/// body; all else, such as who asks, it knows better.
///
/// An error that a function throws is an error here, and so is a function that is missing. Whatever
/// status a function itself gives its response, it is a response.
impl Database {
    /// Calls a show function: `ddoc/function` or `ddoc/function/docid`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document or function, `NotAcceptable` if the function
    /// provides no type that the request accepts, and whatever the function throws.
    pub async fn show(&self, path: &str, stub: &Stub) -> Result<Response> {
        self.call_function(FunctionKind::Show, path, stub).await?.collect().await
    }

    /// Calls a list function over a view: `ddoc/function/view`, or `ddoc/function/other/view` for a
    /// view of another design document. The view may be `_all_docs`. Its options are the query's
    /// parameters, and the members of a body in JSON.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document, view or function, `QueryParse` for options
    /// that make no sense, and whatever the function throws before its first output.
    ///
    /// ```
    /// # #[cfg(feature = "js")]
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("people").await?;
    /// use settee::design::Stub;
    ///
    /// let names = "function(head, req) { var row; while (row = getRow()) send(row.key + ' ') }";
    /// db.put(serde_json::json!({"_id": "_design/people", "lists": {"names": names}})).await?;
    /// db.put(r#"{"_id": "ada"}"#).await?;
    /// db.put(r#"{"_id": "grace"}"#).await?;
    ///
    /// let mut stub = Stub::default();
    /// stub.query.insert("startkey".into(), r#""a""#.into());
    /// let list = db.list("people/names/_all_docs", &stub).await?;
    /// assert_eq!(&list.collect().await?.body[..], b"ada grace ");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub async fn list(&self, path: &str, stub: &Stub) -> Result<Rendered> {
        self.call_function(FunctionKind::List, path, stub).await
    }

    /// Calls an update function, which makes a document of a request, and saves what it makes:
    /// `ddoc/function` or `ddoc/function/docid`.
    ///
    /// # Errors
    ///
    /// As [`show`](Database::show), and as [`put`](Database::put) for the document.
    pub async fn run_update(&self, path: &str, stub: &Stub) -> Result<Response> {
        self.call_function(FunctionKind::Update, path, stub).await?.collect().await
    }

    /// Rewrites a path below a design document (`ddoc/path`) and does what it is rewritten to.
    ///
    /// Of an embedded database that can be reading and writing documents, reading attachments, and
    /// calling functions and views.
    ///
    /// # Errors
    ///
    /// As [`rewrite_target`](Database::rewrite_target) and what is called; `MethodNotAllowed` and
    /// `NotImplemented` for what cannot be called so.
    pub async fn rewrite(&self, path: &str, stub: &Stub) -> Result<Rendered> {
        self.call_function(FunctionKind::Rewrite, path, stub).await
    }

    /// What a path below a design document is rewritten to: `ddoc/path`. Nothing is executed but the
    /// function that rewrites, if there is one, and that in this process.
    ///
    /// # Errors
    ///
    /// `NotFound` if no rule fits; 400 `rewrite_error` if the rules are no rules, and 500
    /// `invalid_rewrite_target` if one leads nowhere.
    pub async fn rewrite_target(&self, path: &str, stub: &Stub) -> Result<Target> {
        let path = FunctionPath::parse(FunctionKind::Rewrite, path)?;
        Functions::new(Arc::clone(self.adapter())).rewrite_target(&path, stub).await
    }

    async fn call_function(&self, kind: FunctionKind, path: &str, stub: &Stub) -> Result<Rendered> {
        self.adapter().call_function(&FunctionPath::parse(kind, path)?, stub).await
    }
}

/// A design document that is open.
#[derive(Debug)]
struct Design {
    doc: Document,
    source: DesignSource,
}

impl Functions {
    /// The functions of the design documents that a database has.
    pub fn new(db: Arc<dyn Adapter>) -> Functions {
        Functions { db }
    }

    /// Calls a function, as [`Adapter::call_function`] does.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn call(&self, path: &FunctionPath, stub: &Stub) -> Result<Rendered> {
        let request = path.request(self.db.name(), stub)?;
        let (ddoc, (name, rest)) = (path.ddoc.as_str(), path.name_and_rest());
        match path.kind {
            FunctionKind::Show => Ok(self.show(ddoc, name, rest, &request).await?.into()),
            FunctionKind::List => self.list(ddoc, name, rest, &request).await,
            FunctionKind::Update => {
                let options = WriteOptions::default();
                Ok(self.update(ddoc, name, rest, &request, &options).await?.into())
            }
            FunctionKind::Rewrite => self.rewrite(ddoc, &request).await,
        }
    }

    /// Reads a design document; `ddoc` comes without `_design/`.
    async fn open(&self, ddoc: &str) -> Result<Design> {
        let id = format!("_design/{ddoc}");
        let doc = self.db.get(&id, &GetOptions::default()).await?;
        let language = doc.body.get("language").and_then(json::string);
        check_language(language.as_deref())?;
        let source = DesignSource::new(self.db.name(), &id, doc.to_json());
        Ok(Design { doc, source })
    }

    /// Reads the document that a function is called with.
    async fn read(&self, id: Option<&str>) -> Result<Option<Document>> {
        let Some(id) = id else { return Ok(None) };
        let options = GetOptions { conflicts: true, revs: true, ..GetOptions::default() };
        match self.db.get(id, &options).await {
            Ok(doc) => Ok(Some(doc)),
            // `_design` alone is an id here too, of which there is no document.
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::IllegalDocId => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The options of a view: members of the body, if there is one, and parameters of the query.
fn view_options(request: &Request) -> Result<ViewOptions> {
    let mut options = ViewOptions::default();
    if let Some(body) = &request.body {
        let content_type = request.header("Content-Type").unwrap_or("application/json");
        let members = Some(body).filter(|_| content_type.starts_with("application/json"));
        let members = members.and_then(|body| serde_json::from_str::<Map<_, _>>(body).ok());
        let members = members.ok_or_else(|| Error::bad_request("invalid_json"))?;
        options.take_all(Param::members(&members))?;
    }
    options.take_all(request.query.iter().map(|(name, value)| match value {
        Value::String(text) => (name.as_str(), Param::Text(text)),
        value => (name.as_str(), Param::Json(value)),
    }))?;
    Ok(options)
}

fn check_language(language: Option<&str>) -> Result<()> {
    match language {
        None | Some("javascript") => Ok(()),
        Some(other) => Err(unknown_language(other)),
    }
}

/// A document as a function gets it.
fn text_of(doc: Option<&Document>) -> String {
    doc.map_or_else(|| "null".to_owned(), Document::to_json)
}
