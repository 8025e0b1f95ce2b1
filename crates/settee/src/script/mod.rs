//! Functions of design documents: what runs them, whatever language they are written in.
//!
//! [`ScriptEngine`] is the boundary. Everything goes in and comes out as JSON text, in batches where
//! there are many: no value of a script engine ever crosses it. With the feature `js`,
//! [`JsEngine`] runs JavaScript as CouchDB's query server does.
//!
//! What CouchDB's clients see of the functions (requests, responses, statuses) is in
//! `design`; indexes call [`Mapper`] and [`Reducer`] directly.

#[cfg(feature = "js")]
mod js;
mod mapped;

#[cfg(feature = "js")]
pub use js::JsEngine;
pub use mapped::{Failure, Mapped, MappedRows};

use async_trait::async_trait;
use settee_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// The engine for functions in JavaScript where a place of databases has none of its own.
pub(crate) fn usual_engine() -> Result<Arc<dyn ScriptEngine>> {
    #[cfg(feature = "js")]
    {
        static USUAL: std::sync::OnceLock<Arc<JsEngine>> = std::sync::OnceLock::new();
        Ok(USUAL.get_or_init(Arc::default).clone())
    }
    #[cfg(not(feature = "js"))]
    Err(unknown_language("javascript"))
}

/// CouchDB's error for functions in a language that nothing here runs.
pub(crate) fn unknown_language(language: &str) -> Error {
    Error::new(ErrorKind::Internal, language.to_owned()).with_name("unknown_query_language")
}

/// Bounds on what functions may take. A function that exceeds one fails, and nothing else does.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptOptions {
    /// How long one call may take (CouchDB's `os_process_timeout`): one document in one map function,
    /// one reduction, one request, one row of a list.
    pub timeout: Duration,
    /// How much memory the functions of one design document may use at a time, in bytes.
    pub memory: usize,
    /// How much stack a function may use, in bytes; 16 MiB at most.
    pub stack: usize,
    /// How much one call may return, in bytes.
    pub output: usize,
    /// How many threads run functions; one for each core unless given.
    pub threads: Option<usize>,
    /// How many design documents each thread keeps compiled.
    pub cached: usize,
    /// How many lists may run at a time, each of which has a thread of its own.
    pub lists: usize,
    /// Whether a reduction must be smaller than what it reduces (CouchDB's `reduce_limit`).
    pub reduce_limit: bool,
    /// The largest reduction that need not be (CouchDB's `reduce_limit_threshold`), in bytes.
    pub reduce_limit_threshold: usize,
    /// How many times smaller it must be (CouchDB's `reduce_limit_ratio`).
    pub reduce_limit_ratio: f64,
}

impl Default for ScriptOptions {
    fn default() -> ScriptOptions {
        ScriptOptions {
            timeout: Duration::from_secs(5),
            memory: 64 << 20,
            stack: 1 << 20,
            output: 16 << 20,
            threads: None,
            cached: 16,
            lists: 64,
            reduce_limit: true,
            reduce_limit_threshold: 5000,
            reduce_limit_ratio: 2.0,
        }
    }
}

/// Map functions to run together, over the same documents.
#[derive(Debug, Clone, Copy)]
pub struct MapSource<'a> {
    /// The database. Functions of two databases never meet.
    pub database: &'a str,
    /// The functions' sources.
    pub functions: &'a [&'a str],
    /// `views.lib` of the design document, as JSON: what the functions may `require`.
    pub lib: Option<&'a str>,
}

/// A reduce function.
#[derive(Debug, Clone, Copy)]
pub struct ReduceSource<'a> {
    /// The database.
    pub database: &'a str,
    /// The function's source.
    pub function: &'a str,
    /// What to call it in messages, such as `mydb/_design/x/byname`.
    pub name: &'a str,
}

/// One call of a reduce function.
#[derive(Debug, Clone, Copy)]
pub struct ReduceCall<'a> {
    /// A JSON array with `[key, id]` for each value; `None` to reduce reductions.
    pub keys: Option<&'a str>,
    /// A JSON array of the values.
    pub values: &'a str,
}

/// A design document whose functions are called. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DesignSource {
    key: Arc<str>,
    text: Arc<str>,
}

impl DesignSource {
    /// The design document of a database, as JSON.
    pub fn new(database: &str, id: &str, text: impl Into<Arc<str>>) -> DesignSource {
        let text = text.into();
        // Not the revision: replication may bring two documents with one.
        let hash = crate::env::hex(&Sha256::digest(text.as_bytes()));
        DesignSource { key: format!("{database} {id} {hash}").into(), text }
    }

    /// What no other design document has: functions with different keys never meet.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The document as JSON.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }
}

/// An edit that validation functions shall judge. All are JSON.
#[derive(Debug, Clone)]
pub struct EditText {
    /// The document as it would be stored.
    pub new: String,
    /// The document as it is, `null` if there is none.
    pub old: String,
}

/// What an update function returned. Both are JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateText {
    /// The document to store, if any.
    pub doc: Option<String>,
    /// The response object.
    pub response: String,
}

/// What is around a list function: where its rows come from, and where its output goes.
///
/// The function waits in these calls, so its output never gets ahead of its reader, nor does it hold
/// more than one row.
pub trait ListIo: Send {
    /// Takes the response object, as JSON. Comes before the first output, and exactly once unless the
    /// function fails before.
    ///
    /// # Errors
    ///
    /// Any error ends the function.
    fn start(&mut self, response: &str) -> Result<()>;

    /// Takes output.
    ///
    /// # Errors
    ///
    /// Any error ends the function.
    fn send(&mut self, text: &str) -> Result<()>;

    /// The next row, as JSON; `None` behind the last.
    ///
    /// # Errors
    ///
    /// Any error ends the function.
    fn row(&mut self) -> Result<Option<String>>;

    /// Takes the end: how the function, or what was around it, ended.
    fn end(self: Box<Self>, result: Result<()>);
}

/// Compiled map functions.
pub trait Mapper: Send + Sync + Debug {
    /// Runs every function over every document. A document is JSON, with `_id`, `_rev` and stubs of
    /// its attachments.
    ///
    /// Blocks. Calls from several threads run side by side.
    ///
    /// # Errors
    ///
    /// Only if the functions cannot be run at all. That one failed for one document is in
    /// [`Mapped`].
    fn map(&self, docs: &[&str]) -> Result<Mapped>;
}

/// A compiled reduce function.
pub trait Reducer: Send + Sync + Debug {
    /// Runs the function once for each call, and returns the reductions as JSON.
    ///
    /// Where CouchDB's function throws, its reduction is `null`; where a reduction is too large, it is
    /// `{"reduce_overflow_error": reason}`. Here both are errors, the latter with that name.
    ///
    /// Blocks. Calls from several threads run side by side.
    fn reduce(&self, calls: &[ReduceCall<'_>]) -> Vec<Result<String>>;
}

/// What runs functions of design documents.
///
/// A function knows nothing but what it is given: state never gets from one database, design
/// document or request to another.
#[async_trait]
pub trait ScriptEngine: Send + Sync + Debug + 'static {
    /// Checks that a function can be compiled.
    ///
    /// # Errors
    ///
    /// 500 `compilation_error`.
    async fn check(&self, function: &str) -> Result<()>;

    /// Compiles map functions. Blocks, shortly.
    ///
    /// # Errors
    ///
    /// 500 `compilation_error` if any of them cannot be compiled.
    fn mapper(&self, source: &MapSource<'_>) -> Result<Arc<dyn Mapper>>;

    /// Compiles a reduce function. Blocks, shortly.
    ///
    /// # Errors
    ///
    /// 500 `compilation_error`.
    fn reducer(&self, source: &ReduceSource<'_>) -> Result<Arc<dyn Reducer>>;

    /// Asks `filters.{name}` about documents, which are JSON as the request object is. Whether each
    /// one passes; one for which the function fails does not.
    ///
    /// # Errors
    ///
    /// 404 if there is no such function, 500 `compilation_error`.
    async fn filter(
        &self,
        design: &DesignSource,
        name: &str,
        docs: Vec<String>,
        request: String,
    ) -> Result<Vec<Result<bool>>>;

    /// Asks whether `views.{name}.map` emits anything for documents.
    ///
    /// # Errors
    ///
    /// As [`ScriptEngine::filter`].
    async fn filter_view(
        &self,
        design: &DesignSource,
        name: &str,
        docs: Vec<String>,
    ) -> Result<Vec<Result<bool>>>;

    /// Asks `validate_doc_update` about edits, which `user` (`userCtx`) makes in a database with this
    /// `security` object; both are JSON.
    ///
    /// Whatever goes wrong, the edit is refused: 403 or 401 if the function says so, else 500 with the
    /// name of what was thrown.
    async fn validate(
        &self,
        design: &DesignSource,
        edits: Vec<EditText>,
        user: String,
        security: String,
    ) -> Vec<Result<()>>;

    /// Calls `shows.{name}` with a document (JSON, `null` if there is none) and the request object.
    /// Returns the response object as JSON.
    ///
    /// # Errors
    ///
    /// 404 if there is no such function, 406 if the function provides no type that the request
    /// accepts, 500 with the name of what was thrown.
    async fn show(
        &self,
        design: &DesignSource,
        name: &str,
        doc: String,
        request: String,
    ) -> Result<String>;

    /// Calls `updates.{name}` with a document (JSON, `null` if there is none) and the request object.
    ///
    /// # Errors
    ///
    /// As [`ScriptEngine::show`].
    async fn update(
        &self,
        design: &DesignSource,
        name: &str,
        doc: String,
        request: String,
    ) -> Result<UpdateText>;

    /// Calls the function `rewrites` with the request object. Returns its result as JSON; `None` if
    /// that is nothing.
    ///
    /// # Errors
    ///
    /// As [`ScriptEngine::show`].
    async fn rewrite(&self, design: &DesignSource, request: String) -> Result<Option<String>>;

    /// Begins `lists.{name}` with the rows' head and the request object, both JSON, and returns at
    /// once. All else goes through `io`, errors too.
    fn list(
        &self,
        design: &DesignSource,
        name: &str,
        head: String,
        request: String,
        io: Box<dyn ListIo>,
    );
}
