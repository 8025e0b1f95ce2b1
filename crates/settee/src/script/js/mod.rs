//! JavaScript, run by QuickJS within this process.

mod env;
mod list;
mod pool;

use super::{
    DesignSource, EditText, Failure, ListIo, MapSource, Mapped, Mapper, ReduceCall, ReduceSource,
    Reducer, ScriptEngine, ScriptOptions, UpdateText,
};
use async_trait::async_trait;
use env::{Scope, Source};
use pool::{Key, Pool, Worker};
use rquickjs::Function;
use settee_core::json::{self, Limits};
use settee_core::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many documents may make a map function exceed its limits until it is given up.
const TRIES: u32 = 3;

/// Runs functions of design documents that are written in JavaScript, as CouchDB's query server does.
///
/// Their environment is CouchDB's: `emit`, `sum`, `log`, `toJSON`, `isArray`, `require`, `provides`,
/// `registerType`, `start`, `send`, `getRow`. They may use all of the language, but `eval` is not
/// there, nothing runs later (no timers; promises are never settled), and what is built in cannot be
/// changed. What a call leaves behind is gone before the next one: each gets its own instance of the
/// function, and each batch its own instances of the modules it requires.
///
/// ```
/// use settee::script::{JsEngine, MapSource, ScriptEngine};
///
/// let engine = JsEngine::default();
/// let functions = ["function (doc) { emit(doc.name, 1); }"];
/// let mapper = engine.mapper(&MapSource { database: "people", functions: &functions, lib: None })?;
/// let mapped = mapper.map(&[r#"{"_id":"x","name":"Oliver"}"#])?;
/// assert_eq!(mapped.get(0, 0).unwrap().collect::<Vec<_>>(), [("\"Oliver\"", "1")]);
/// # Ok::<(), settee_core::Error>(())
/// ```
pub struct JsEngine {
    pool: Arc<Pool>,
}

impl Default for JsEngine {
    fn default() -> JsEngine {
        JsEngine::new(ScriptOptions::default())
    }
}

impl fmt::Debug for JsEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<JsEngine>")
    }
}

impl JsEngine {
    /// An engine with bounds of its own. Its threads start when they are needed.
    pub fn new(options: ScriptOptions) -> JsEngine {
        JsEngine { pool: Arc::new(Pool::new(options)) }
    }

    /// Compiles functions.
    fn compile(&self, compiled: Functions) -> Result<Compiled> {
        let compiled = Compiled {
            pool: self.pool.clone(),
            key: compiled.key(),
            tries: compiled.functions.iter().map(|_| AtomicU32::new(0)).collect(),
            source: Arc::new(Source::Functions {
                functions: compiled.functions,
                design: compiled.lib.map(|lib| format!(r#"{{"views":{{"lib":{lib}}}}}"#)),
            }),
        };
        let (key, source) = (compiled.key.clone(), compiled.source.clone());
        self.pool.run(&compiled.key, move |worker| worker.enter(&key, &source, |_| ()))?;
        Ok(compiled)
    }

    /// Does something with a design document.
    async fn with_design<T: Send + 'static>(
        &self,
        design: &DesignSource,
        work: impl FnOnce(&Scope<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (key, source) = (design.key().clone(), Source::Design(design.text().clone()));
        let work = move |worker: &mut Worker| worker.enter(&key, &source, work)?;
        self.pool.run_async(design.key(), work).await
    }
}

/// Functions that are not compiled yet.
struct Functions {
    kind: &'static str,
    database: String,
    functions: Vec<String>,
    lib: Option<String>,
}

impl Functions {
    fn key(&self) -> Key {
        let mut hash = Sha256::new();
        for text in self.functions.iter().chain(&self.lib) {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
        let hash = crate::env::hex(&hash.finalize());
        format!("{} {} {hash} {}", self.database, self.kind, self.lib.is_some()).into()
    }
}

/// Functions that are.
struct Compiled {
    pool: Arc<Pool>,
    key: Key,
    source: Arc<Source>,
    /// How often each function has exceeded its limits.
    tries: Arc<[AtomicU32]>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<functions of {}>", self.key)
    }
}

/// Texts that go to another thread.
struct Batch {
    text: String,
    ends: Vec<usize>,
}

impl Batch {
    fn new<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Batch {
        let mut text = String::with_capacity(texts.clone().map(str::len).sum());
        let ends = texts
            .map(|one| {
                text.push_str(one);
                text.len()
            })
            .collect();
        Batch { text, ends }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

impl Mapper for Compiled {
    fn map(&self, docs: &[&str]) -> Result<Mapped> {
        let docs = Batch::new(docs.iter().copied());
        let (key, source, tries) = (self.key.clone(), self.source.clone(), self.tries.clone());
        self.pool.run(&self.key, move |worker| {
            let mut map = Map {
                tries: &tries,
                mapped: Mapped::new(tries.len()),
                output: worker.options().output,
            };
            let mut docs = docs.iter();
            let mut next = (docs.next(), 0);
            // Once, unless a function breaks its context: then the next one takes over behind it.
            while let (Some(doc), function) = next {
                next = worker
                    .enter(&key, &source, |scope| map.run(scope, doc, function, &mut docs))??;
            }
            Ok(map.mapped)
        })
    }
}

/// A batch of documents that is being mapped.
struct Map<'a> {
    tries: &'a [AtomicU32],
    mapped: Mapped,
    output: usize,
}

impl Map<'_> {
    /// Runs the functions from the one given over a document, and over the next ones, until one of
    /// them breaks its context. Returns where to go on.
    fn run<'d>(
        &mut self,
        scope: &Scope<'_, '_>,
        first: &'d str,
        mut function: usize,
        rest: &mut impl Iterator<Item = &'d str>,
    ) -> Result<(Option<&'d str>, usize)> {
        scope.call("beginMap", ())?;
        let (map, freeze) = (scope.function("map")?, scope.function("freeze")?);
        let mut doc = Some(first);
        while let Some(text) = doc {
            let value = scope.parse(text).and_then(|value| scope.run(&freeze, (value,)));
            while function < self.tries.len() {
                let value = value.as_ref();
                self.call(scope, &map, function, value);
                function += 1;
                if scope.is_broken() && function < self.tries.len() {
                    return Ok((doc, function));
                }
            }
            function = 0;
            doc = rest.next();
            if scope.is_broken() {
                break;
            }
        }
        Ok((doc, 0))
    }

    fn call<'js>(
        &mut self,
        scope: &Scope<'_, 'js>,
        map: &Function<'js>,
        function: usize,
        doc: Result<&rquickjs::Value<'js>, &Error>,
    ) {
        let failure = |message: String| Failure { message, gave_up: false };
        let tries = &self.tries[function];
        if tries.load(Ordering::Relaxed) >= TRIES {
            let message = "the function has exceeded its limits too often".to_owned();
            return self.mapped.push_failure(Failure { message, gave_up: true });
        }
        let rows = doc.map_err(|error| failure(error.to_string())).and_then(|doc| {
            let rows = scope.run(map, (function, doc.clone())).and_then(|rows| scope.text(&rows));
            rows.map_err(|error| {
                tries.fetch_add(1, Ordering::Relaxed);
                failure(error.reason().to_owned())
            })
        });
        match rows {
            Err(failure) => self.mapped.push_failure(failure),
            Ok(rows) => {
                if let Some(message) = rows.strip_prefix('-') {
                    if message.starts_with("InternalError") {
                        scope.set_broken();
                        tries.fetch_add(1, Ordering::Relaxed);
                    }
                    self.mapped.push_failure(failure(message.to_owned()));
                } else if rows.len() > self.output {
                    let message = format!("the function emitted more than {} bytes", self.output);
                    self.mapped.push_failure(failure(message));
                } else {
                    match normalized(rows) {
                        Ok(rows) => self.mapped.push_rows(&rows),
                        Err(error) => self.mapped.push_failure(failure(error.to_string())),
                    }
                }
            }
        }
    }
}

/// The form that stored documents have, where JSON that JavaScript wrote may differ from it: numbers
/// with an exponent, and halves of surrogate pairs.
fn normalized(text: String) -> Result<String> {
    let differs = |pair: &[u8]| matches!(pair, b"e+" | b"e-" | b"\\u");
    if !text.as_bytes().windows(2).any(differs) {
        return Ok(text);
    }
    let text = without_half_pairs(&text);
    let limits = Limits { document: usize::MAX, ..Limits::default() };
    let bytes = json::normalize(text.as_bytes(), &limits)?;
    String::from_utf8(bytes.into()).map_err(Error::internal)
}

/// Replaces halves of surrogate pairs, which no text has and JavaScript's strings may, as CouchDB
/// does. In JSON that JavaScript wrote, only they are escaped as `\ud…`.
fn without_half_pairs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let length = if escape.starts_with("\\ud") { 6 } else { 2 };
        let (escape, behind) = escape.split_at_checked(length).unwrap_or((escape, ""));
        out.push_str(if length == 6 { "\u{fffd}" } else { escape });
        rest = behind;
    }
    out.push_str(rest);
    out
}

impl Reducer for Reduce {
    fn reduce(&self, calls: &[ReduceCall<'_>]) -> Vec<Result<String>> {
        let texts = calls.iter().flat_map(|call| [call.keys.unwrap_or_default(), call.values]);
        let batch = Batch::new(texts);
        let (key, source) = (self.compiled.key.clone(), self.compiled.source.clone());
        let (name, count) = (self.name.clone(), calls.len());
        let result = self.compiled.pool.run(&self.compiled.key, move |worker| {
            let options = worker.options().clone();
            let mut results: Vec<Result<String>> = Vec::with_capacity(count);
            let mut timeouts = 0;
            let mut texts = batch.iter();
            while let (Some(keys), Some(values)) = (texts.next(), texts.next()) {
                // A function that never ends is not tried again and again.
                if timeouts >= TRIES {
                    results.push(Err(env::timed_out(options.timeout)));
                    continue;
                }
                let reduced = worker.enter(&key, &source, |scope| {
                    let keys = if keys.is_empty() { "null" } else { keys };
                    let reduced = scope.ask("reduce", (scope.parse(keys)?, scope.parse(values)?));
                    timeouts += u32::from(scope.has_expired());
                    reduced
                });
                let reduced = reduced.and_then(|reduced| reduced).and_then(|reduced| {
                    check_overflow(&options, &reduced, keys.len() + values.len(), &name)?;
                    normalized(reduced)
                });
                results.push(reduced);
            }
            Ok(results)
        });
        result.unwrap_or_else(|error| {
            let reason = error.reason().to_owned();
            (0..count).map(|_| Err(Error::new(error.kind(), reason.clone()))).collect()
        })
    }
}

#[derive(Debug)]
struct Reduce {
    compiled: Compiled,
    name: Arc<str>,
}

/// Refuses a reduction that does not reduce.
fn check_overflow(options: &ScriptOptions, reduced: &str, input: usize, name: &str) -> Result<()> {
    // CouchDB measures the reductions in an array.
    let output = reduced.len() + 2;
    let ratio = output as f64 * options.reduce_limit_ratio;
    if options.reduce_limit && output > options.reduce_limit_threshold && ratio > input as f64 {
        let reason = format!(
            "Reduce output must shrink more rapidly: input size: {input} output size: {output} \
             context: {name}"
        );
        return Err(Error::new(ErrorKind::Internal, reason).with_name("reduce_overflow_error"));
    }
    if output > options.output {
        let reason = format!("the function returned more than {} bytes", options.output);
        return Err(Error::new(ErrorKind::Internal, reason));
    }
    Ok(())
}

/// Asks about documents one by one. Behind one that broke the context the rest is refused unasked.
fn ask_each<'js, T, R>(
    scope: &Scope<'_, 'js>,
    items: Vec<T>,
    mut ask: impl FnMut(T) -> Result<R>,
) -> Vec<Result<R>> {
    items
        .into_iter()
        .map(|item| {
            if scope.is_broken() {
                let reason = "a function has failed for another document";
                return Err(Error::new(ErrorKind::Internal, reason));
            }
            ask(item)
        })
        .collect()
}

#[async_trait]
impl ScriptEngine for JsEngine {
    async fn check(&self, function: &str) -> Result<()> {
        let functions = vec![function.to_owned()];
        let database = String::new();
        let key = Functions { kind: "check", database, functions, lib: None }.key();
        let functions = vec![function.to_owned()];
        let (name, source) = (key.clone(), Arc::new(Source::Functions { functions, design: None }));
        self.pool.run_async(&key, move |worker| worker.enter(&name, &source, |_| ())).await
    }

    fn mapper(&self, source: &MapSource<'_>) -> Result<Arc<dyn Mapper>> {
        let functions = Functions {
            kind: "map",
            database: source.database.to_owned(),
            functions: source.functions.iter().map(|&function| function.to_owned()).collect(),
            lib: source.lib.map(str::to_owned),
        };
        Ok(Arc::new(self.compile(functions)?))
    }

    fn reducer(&self, source: &ReduceSource<'_>) -> Result<Arc<dyn Reducer>> {
        let compiled = self.compile(Functions {
            kind: "reduce",
            database: source.database.to_owned(),
            functions: vec![source.function.to_owned()],
            lib: None,
        })?;
        Ok(Arc::new(Reduce { compiled, name: source.name.into() }))
    }

    async fn filter(
        &self,
        design: &DesignSource,
        name: &str,
        docs: Vec<String>,
        request: String,
    ) -> Result<Vec<Result<bool>>> {
        let name = name.to_owned();
        self.with_design(design, move |scope| {
            scope.ask("beginFilter", (vec!["filters".to_owned(), name],))?;
            let request = scope.call("freeze", (scope.parse(&request)?,))?;
            let filter = scope.function("filter")?;
            Ok(ask_each(scope, docs, |doc| {
                let answer = scope.answer(&filter, (scope.parse(&doc)?, request.clone()))?;
                Ok(answer == "1")
            }))
        })
        .await
    }

    async fn filter_view(
        &self,
        design: &DesignSource,
        name: &str,
        docs: Vec<String>,
    ) -> Result<Vec<Result<bool>>> {
        let name = name.to_owned();
        self.with_design(design, move |scope| {
            scope.ask("beginFilter", (vec!["views".to_owned(), name, "map".to_owned()],))?;
            let filter = scope.function("filterView")?;
            Ok(ask_each(
                scope,
                docs,
                |doc| Ok(scope.answer(&filter, (scope.parse(&doc)?,))? == "1"),
            ))
        })
        .await
    }

    async fn validate(
        &self,
        design: &DesignSource,
        edits: Vec<EditText>,
        user: String,
        security: String,
    ) -> Vec<Result<()>> {
        let count = edits.len();
        let results = self.with_design(design, move |scope| {
            scope.ask("beginFilter", (vec!["validate_doc_update".to_owned()],))?;
            let user = scope.call("freeze", (scope.parse(&user)?,))?;
            let security = scope.call("freeze", (scope.parse(&security)?,))?;
            let validate = scope.function("validate")?;
            Ok(ask_each(scope, edits, |edit| {
                let (new, old) = (scope.parse(&edit.new)?, scope.parse(&edit.old)?);
                scope.answer(&validate, (new, old, user.clone(), security.clone())).map(drop)
            }))
        });
        results.await.unwrap_or_else(|error| {
            let again = || {
                let again = Error::new(error.kind(), error.reason().to_owned());
                again.with_name(error.name().to_owned())
            };
            (0..count).map(|_| Err(again())).collect()
        })
    }

    async fn show(
        &self,
        design: &DesignSource,
        name: &str,
        doc: String,
        request: String,
    ) -> Result<String> {
        let name = name.to_owned();
        let output = self.pool.options().output;
        self.with_design(design, move |scope| {
            let response = scope.ask("show", (name, scope.parse(&doc)?, scope.parse(&request)?))?;
            check_output(&response, output)?;
            Ok(response)
        })
        .await
    }

    async fn update(
        &self,
        design: &DesignSource,
        name: &str,
        doc: String,
        request: String,
    ) -> Result<UpdateText> {
        let name = name.to_owned();
        let output = self.pool.options().output;
        self.with_design(design, move |scope| {
            let result = scope.ask("update", (name, scope.parse(&doc)?, scope.parse(&request)?))?;
            check_output(&result, output)?;
            let result = normalized(result)?;
            let mut parts = json::elements(&result);
            let doc = parts.next().unwrap_or("null");
            let doc = doc.starts_with('{').then(|| doc.to_owned());
            Ok(UpdateText { doc, response: parts.next().unwrap_or("{}").to_owned() })
        })
        .await
    }

    async fn rewrite(&self, design: &DesignSource, request: String) -> Result<Option<String>> {
        let output = self.pool.options().output;
        self.with_design(design, move |scope| {
            let result = scope.ask("rewrite", (scope.parse(&request)?,))?;
            check_output(&result, output)?;
            Ok((result != "null").then_some(result))
        })
        .await
    }

    fn list(
        &self,
        design: &DesignSource,
        name: &str,
        head: String,
        request: String,
        io: Box<dyn ListIo>,
    ) {
        let call = list::Call { name: name.to_owned(), head, request };
        list::run(&self.pool, design, call, io);
    }
}

fn check_output(text: &str, limit: usize) -> Result<()> {
    if text.len() <= limit {
        return Ok(());
    }
    let reason = format!("the function returned more than {limit} bytes");
    Err(Error::new(ErrorKind::Internal, reason))
}
