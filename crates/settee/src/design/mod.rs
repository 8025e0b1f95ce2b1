//! Functions of design documents as CouchDB offers them over HTTP: shows, lists, updates, rewrites,
//! filters and validation.
//!
//! What is here knows requests and responses, but no HTTP: the server and embedded programs use it
//! alike, over any [`Adapter`] and any [`ScriptEngine`].
//!
//! ```
//! # #[cfg(feature = "js")]
//! # futures_executor::block_on(async {
//! use settee::design::Stub;
//! use settee::script::JsEngine;
//! use settee::Couch;
//! use std::sync::Arc;
//!
//! let db = Couch::memory()?.create("people").await?;
//! db.put(r#"{"_id": "_design/people", "shows": {
//!     "hello": "function(doc, req) { return 'Hello ' + (doc ? doc.name : req.query.name) }"
//! }}"#).await?;
//! db.put(r#"{"_id": "ada", "name": "Ada"}"#).await?;
//!
//! let functions = db.functions(Arc::new(JsEngine::default()));
//! let response = functions.show("people/hello/ada", &Stub::default()).await?;
//! assert_eq!((response.code, &response.body[..]), (200, &b"Hello Ada"[..]));
//! # Ok::<(), settee::Error>(()) }).unwrap();
//! ```

mod filter;
mod list;
mod options;
mod request;
mod response;
mod rewrite;
mod show;
mod update;
mod validate;

pub use filter::ChangesFilter;
pub use list::ListResponse;
pub use request::{Request, Stub, UserCtx};
pub use response::Response;
pub use rewrite::Target;
pub use update::Update;
pub use validate::{Validating, Validator};

use crate::Database;
use crate::adapter::Adapter;
use crate::script::{DesignSource, ScriptEngine};
use settee_core::options::GetOptions;
use settee_core::{Document, Error, ErrorKind, Result, json};
use std::sync::Arc;

/// The functions of one database's design documents. Cheap to clone; from
/// [`Database::functions`].
///
/// Methods that take a path are for programs; those that take a [`Request`] are for servers.
#[derive(Debug, Clone)]
pub struct Functions {
    db: Arc<dyn Adapter>,
    engine: Arc<dyn ScriptEngine>,
}

impl Database {
    /// The functions of the design documents, run by an engine.
    pub fn functions(&self, engine: Arc<dyn ScriptEngine>) -> Functions {
        Functions::new(self.adapter().clone(), engine)
    }
}

/// A design document that is open.
struct Design {
    doc: Document,
    source: DesignSource,
}

impl Functions {
    /// The functions of the design documents that a database has.
    pub fn new(db: Arc<dyn Adapter>, engine: Arc<dyn ScriptEngine>) -> Functions {
        Functions { db, engine }
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

fn check_language(language: Option<&str>) -> Result<()> {
    match language {
        None | Some("javascript") => Ok(()),
        Some(other) => {
            Err(Error::new(ErrorKind::Internal, other.to_owned())
                .with_name("unknown_query_language"))
        }
    }
}

/// A document as a function gets it.
fn text_of(doc: Option<&Document>) -> String {
    doc.map_or_else(|| "null".to_owned(), Document::to_json)
}

/// The parts of a path such as `ddoc/function/rest`, where the rest may have slashes of its own.
fn split_path<'a>(path: &'a str, what: &str) -> Result<(&'a str, &'a str, Option<&'a str>)> {
    let path = path.strip_prefix("_design/").unwrap_or(path);
    let mut parts = path.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next().filter(|rest| !rest.is_empty())) {
        (Some(ddoc), Some(name), rest) if !ddoc.is_empty() && !name.is_empty() => {
            Ok((ddoc, name, rest))
        }
        // As in PouchDB, a function may have the name of its design document.
        (Some(name), None, _) if !name.is_empty() => Ok((name, name, None)),
        _ => {
            Err(Error::new(ErrorKind::NotFound, "Invalid path.").with_name(format!("{what}_error")))
        }
    }
}
