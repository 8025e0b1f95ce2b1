//! Rewrites: other paths for what a database can do.

use super::request::{encode, escape, plain};
use super::{Design, FunctionPath, Functions, Rendered, Request, Response, Stub, view_options};
use crate::adapter::ViewRows;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use settee_core::document::WriteJson;
use settee_core::json::Limits;
use settee_core::options::{
    AttachmentHead, AttachmentOptions, GetOptions, ViewOptions, WriteOptions,
};
use settee_core::wire::Saved;
use settee_core::{Document, Error, ErrorKind, Result, Rev};

/// How often one request may be rewritten.
const LIMIT: usize = 100;

/// How many `..` lead from a design document to its database.
const UP_TO_DATABASE: usize = 2;

/// Parameters whose values are JSON.
const JSON_PARAMETERS: [&str; 6] = ["key", "startkey", "start_key", "endkey", "end_key", "keys"];

/// What a rewrite makes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Another request, to be answered as if it had come.
    Request(Box<Request>),
    /// The answer (rewrite functions only).
    Response(Response),
}

/// Where rewrites may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Anywhere.
    Server,
    /// Within the database, as is CouchDB's default.
    Database,
}

fn rewrite_error(kind: ErrorKind, reason: &'static str) -> Error {
    Error::new(kind, reason).with_name("rewrite_error")
}

/// What a design document says about rewriting, read.
#[derive(Debug)]
pub struct Rewrites {
    functions: Functions,
    ddoc: String,
    design: Design,
}

impl Rewrites {
    /// Whether a function rewrites, which may look at the request's body, and not rules.
    pub fn is_function(&self) -> bool {
        self.design.doc.body.get("rewrites").is_some_and(|text| text.starts_with('"'))
    }

    /// What `/{db}/_design/{ddoc}/_rewrite/…` is rewritten to: a request within the database, unless
    /// a function says otherwise.
    ///
    /// # Errors
    ///
    /// As [`Database::rewrite_target`](crate::Database::rewrite_target); `NotFound` too for rules that
    /// lead out of the database.
    pub async fn apply(&self, request: &Request) -> Result<Target> {
        self.resolve(request, Reach::Database).await
    }

    async fn resolve(&self, request: &Request, reach: Reach) -> Result<Target> {
        let db = &self.functions.db;
        let place = Place { db: db.name(), ddoc: &self.ddoc, request };
        match self.design.doc.get("rewrites") {
            None | Some(Value::Null) => Err(rewrite_error(ErrorKind::NotFound, "Invalid path.")),
            Some(Value::Array(rules)) => {
                let rules = rules.iter().map(|rule| Rule::read(rule, reach));
                let rules = rules.collect::<Result<Vec<_>>>()?;
                let target = rules.iter().find_map(|rule| place.apply(rule));
                target.ok_or_else(Error::missing)?.map(|target| Target::Request(Box::new(target)))
            }
            Some(Value::String(_)) => {
                let object = request.to_short_json(&db.security().await?)?;
                match db.script()?.rewrite(&self.design.source, object).await? {
                    None => Err(rewrite_error(ErrorKind::NotFound, "Invalid path.")),
                    Some(result) => place.take(&result),
                }
            }
            Some(_) => Err(rewrite_error(
                ErrorKind::BadRequest,
                "`rewrites` must be an array or a function",
            )),
        }
    }
}

impl Functions {
    /// Reads what a design document says about rewriting; `ddoc` comes without `_design/`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document.
    pub async fn rewrites(&self, ddoc: &str) -> Result<Rewrites> {
        let design = self.open(ddoc).await?;
        Ok(Rewrites { functions: self.clone(), ddoc: ddoc.to_owned(), design })
    }

    /// What a path below a design document is rewritten to.
    pub(super) async fn rewrite_target(&self, path: &FunctionPath, stub: &Stub) -> Result<Target> {
        let request = path.request(self.db.name(), stub)?;
        self.rewrites(&path.ddoc).await?.resolve(&request, Reach::Server).await
    }

    /// Does what a request below a design document is rewritten to.
    pub(super) async fn rewrite(&self, ddoc: &str, request: &Request) -> Result<Rendered> {
        let mut target = self.rewrites(ddoc).await?.resolve(request, Reach::Server).await?;
        for _ in 0..LIMIT {
            let request = match target {
                Target::Response(response) => return Ok(response.into()),
                Target::Request(request) => request,
            };
            match request.path.get(1..4) {
                Some([design, ddoc, rewrite]) if design == "_design" && rewrite == "_rewrite" => {
                    target = self.rewrites(ddoc).await?.resolve(&request, Reach::Server).await?;
                }
                _ => return self.execute(&request).await,
            }
        }
        Err(Error::bad_request("Exceeded rewrite recursion limit"))
    }

    /// Does what a request asks for.
    async fn execute(&self, request: &Request) -> Result<Rendered> {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let [db, path @ ..] = &path[..] else { return Err(method_not_allowed(request)) };
        if *db != self.db.name() {
            let reason = "the rewrite leads out of the database";
            return Err(Error::new(ErrorKind::NotImplemented, reason));
        }
        match path {
            ["_design", ddoc, "_show", name, id @ ..] => {
                Ok(self.show(ddoc, name, joined(id).as_deref(), request).await?.into())
            }
            ["_design", ddoc, "_update", name, id @ ..] => {
                let (id, options) = (joined(id), WriteOptions::default());
                Ok(self.update(ddoc, name, id.as_deref(), request, &options).await?.into())
            }
            ["_design", ddoc, "_list", name, view @ ..] => {
                self.list(ddoc, name, joined(view).as_deref(), request).await
            }
            ["_design", ddoc, "_info"] => {
                let info = self.db.design_info(ddoc).await?;
                Ok(json_response(200, serde_json::to_string(&info).map_err(Error::internal)?))
            }
            ["_design", ddoc, "_view", view] => self.view_response(ddoc, view, request).await,
            ["_all_docs"] => self.view_response("", "_all_docs", request).await,
            ["_design", ddoc] => self.document(&format!("_design/{ddoc}"), request).await,
            ["_design", ddoc, name @ ..] => {
                self.attachment(&format!("_design/{ddoc}"), &name.join("/"), request).await
            }
            ["_local", id] => self.document(&format!("_local/{id}"), request).await,
            [] => self.database(request).await,
            [special, ..] if special.starts_with('_') => {
                Err(Error::new(ErrorKind::NotImplemented, format!("{special} within a rewrite")))
            }
            [id] => self.document(id, request).await,
            [id, name @ ..] => self.attachment(id, &name.join("/"), request).await,
        }
    }

    async fn view_response(&self, ddoc: &str, view: &str, request: &Request) -> Result<Rendered> {
        let options = view_options(request)?;
        let rows = self.rows(ddoc, view, &options).await?;
        Ok(json_response(200, collect(rows, &options).await?))
    }

    async fn database(&self, request: &Request) -> Result<Rendered> {
        match request.method.as_str() {
            "GET" | "HEAD" => {
                let info = self.db.info().await?;
                Ok(json_response(200, serde_json::to_string(&info).map_err(Error::internal)?))
            }
            "POST" => self.write(sent_document(request)?, 201).await,
            _ => Err(method_not_allowed(request)),
        }
    }

    async fn document(&self, id: &str, request: &Request) -> Result<Rendered> {
        let rev = asked_rev(request)?;
        match request.method.as_str() {
            "GET" | "HEAD" => {
                let options = GetOptions { rev, ..GetOptions::default() };
                let doc = self.db.get(id, &options).await?;
                Ok(json_response(200, doc.to_json()))
            }
            "PUT" => {
                let mut doc = sent_document(request)?;
                doc.id = Some(id.to_owned());
                doc.rev = rev.or(doc.rev);
                self.write(doc, 201).await
            }
            "DELETE" => {
                let doc = Document { rev, deleted: true, ..Document::with_id(id) };
                self.write(doc, 200).await
            }
            _ => Err(method_not_allowed(request)),
        }
    }

    async fn write(&self, doc: Document, code: u16) -> Result<Rendered> {
        saved(code, &self.db.put(doc, None, &WriteOptions::default()).await?)
    }

    async fn attachment(&self, id: &str, name: &str, request: &Request) -> Result<Rendered> {
        let rev = asked_rev(request)?;
        match request.method.as_str() {
            "GET" | "HEAD" => {
                let options = AttachmentOptions { rev, ..AttachmentOptions::default() };
                let reader = self.db.attachment(id, name, &options).await?;
                let headers = vec![("Content-Type".to_owned(), reader.content_type)];
                Ok(Rendered { code: 200, headers, body: reader.body })
            }
            "PUT" => {
                let content_type = request.header("Content-Type").map(str::to_owned);
                let head = AttachmentHead { content_type, ..AttachmentHead::default() };
                let body = Bytes::from(request.body.clone().unwrap_or_default());
                let body = stream::once(std::future::ready(Ok(body))).boxed();
                saved(201, &self.db.put_attachment(id, name, rev, head, body).await?)
            }
            "DELETE" => saved(200, &self.db.delete_attachment(id, name, rev).await?),
            _ => Err(method_not_allowed(request)),
        }
    }
}

/// The document that a request brings.
fn sent_document(request: &Request) -> Result<Document> {
    Document::parse(request.body.as_deref().unwrap_or_default().as_bytes(), &Limits::default())
}

fn asked_rev(request: &Request) -> Result<Option<Rev>> {
    request.query.get("rev").map(plain).map(|rev| rev.parse()).transpose()
}

fn saved(code: u16, saved: &Saved) -> Result<Rendered> {
    let mut out = Vec::new();
    saved.write_json(&mut out);
    Ok(json_response(code, String::from_utf8(out).map_err(Error::internal)?))
}

fn joined(segments: &[&str]) -> Option<String> {
    (!segments.is_empty()).then(|| segments.join("/"))
}

fn method_not_allowed(request: &Request) -> Error {
    Error::new(ErrorKind::MethodNotAllowed, format!("method '{}' not allowed.", request.method))
}

fn json_response(code: u16, text: String) -> Rendered {
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    Response { code, headers, body: format!("{text}\n").into() }.into()
}

/// The answer of a view as CouchDB writes it.
async fn collect(mut view: ViewRows, options: &ViewOptions) -> Result<String> {
    let mut head = Map::new();
    if let (Some(total), Some(offset)) = (view.total_rows, view.offset) {
        head.insert("total_rows".to_owned(), total.into());
        head.insert("offset".to_owned(), offset.into());
    }
    if let Some(seq) = &view.update_seq {
        head.insert("update_seq".to_owned(), json!(seq));
    }
    let mut out = Value::Object(head).to_string().into_bytes();
    out.pop();
    out.extend_from_slice(if out.len() > 1 { b",\"rows\":[" } else { b"\"rows\":[" });
    let mut first = true;
    while let Some(rows) = view.rows.try_next().await? {
        for row in rows {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            row.write_json(&mut out, options.include_docs, &WriteJson::default());
        }
    }
    out.extend_from_slice(b"]}");
    String::from_utf8(out).map_err(Error::internal)
}

/// A part of a rule's path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `*`: all the rest.
    Rest,
    /// `:name`: one segment.
    Variable(String),
    /// This segment.
    Literal(String),
}

/// One rule of `rewrites`.
#[derive(Debug)]
struct Rule {
    method: String,
    from: Vec<Part>,
    to: Vec<Part>,
    query: Map<String, Value>,
    formats: Map<String, Value>,
}

impl Rule {
    fn read(rule: &Value, reach: Reach) -> Result<Rule> {
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let object = |name: &str| rule.get(name).and_then(Value::as_object).cloned();
        let to = text("to").ok_or_else(|| {
            Error::new(ErrorKind::Internal, "a rule has no target")
                .with_name("invalid_rewrite_target")
        })?;
        let up = to.split('/').filter(|&part| part == "..").count();
        if reach == Reach::Database && up > UP_TO_DATABASE {
            let reason = "too many ../.. segments";
            return Err(Error::new(ErrorKind::NotFound, reason).with_name("insecure_rewrite_rule"));
        }
        Ok(Rule {
            method: text("method").unwrap_or("*").to_owned(),
            from: parse_path(text("from").unwrap_or("*")),
            to: parse_path(to),
            query: object("query").unwrap_or_default(),
            formats: object("formats").unwrap_or_default(),
        })
    }

    /// The variables that a path binds, and the rest that `*` stands for.
    fn bind<'p>(&self, path: &'p [String]) -> Option<(Map<String, Value>, &'p [String])> {
        let mut bindings = Map::new();
        let mut path = path;
        for part in &self.from {
            if *part == Part::Rest {
                return Some((bindings, path));
            }
            let (segment, rest) = path.split_first()?;
            match part {
                Part::Literal(text) if text != segment => return None,
                Part::Variable(name) => _ = bindings.insert(name.clone(), segment.as_str().into()),
                _ => {}
            }
            path = rest;
        }
        path.is_empty().then_some((bindings, path))
    }

    /// A value of the rule's query with variables replaced. Where one is not known, it stays.
    fn fill(&self, value: &Value, bindings: &Map<String, Value>) -> Value {
        let variable = |text: &str| {
            let name = text.strip_prefix(':').unwrap_or(text);
            let known = (name != text || text == "*").then(|| bindings.get(name)).flatten()?;
            Some(self.format(name, known))
        };
        match value {
            Value::String(text) => variable(text).unwrap_or_else(|| value.clone()),
            Value::Array(elements) => {
                let fill = |element: &Value| {
                    let found = element.as_str().filter(|&text| text != "*").and_then(variable);
                    found.unwrap_or_else(|| element.clone())
                };
                elements.iter().map(fill).collect()
            }
            _ => value.clone(),
        }
    }

    /// The value of a variable as `formats` wants it.
    fn format(&self, name: &str, value: &Value) -> Value {
        let text = value.as_str().unwrap_or_default();
        match self.formats.get(name).and_then(Value::as_str) {
            Some("int") => text.parse::<i64>().map_or_else(|_| value.clone(), Value::from),
            Some("bool") => match text.to_ascii_lowercase().as_str() {
                "true" => true.into(),
                "false" => false.into(),
                _ => value.clone(),
            },
            _ => value.clone(),
        }
    }
}

fn parse_path(path: &str) -> Vec<Part> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts
        .map(|part| match part.strip_prefix(':') {
            _ if part == "*" => Part::Rest,
            Some(name) => Part::Variable(name.to_owned()),
            None => Part::Literal(part.to_owned()),
        })
        .collect()
}

/// Where a rewrite begins.
struct Place<'a> {
    db: &'a str,
    ddoc: &'a str,
    request: &'a Request,
}

impl Place<'_> {
    /// What a rule makes of the request; `None` if it is not for it.
    fn apply(&self, rule: &Rule) -> Option<Result<Request>> {
        if rule.method != "*" && rule.method != self.request.method {
            return None;
        }
        // Behind the database, `_design`, its name and `_rewrite`.
        let path: Vec<String> = self.request.path.iter().skip(4).cloned().collect();
        let (mut bindings, rest) = rule.bind(&path)?;
        for (name, value) in &self.request.query {
            // As JSON where it is meant as such.
            let decoded = value.as_str().filter(|_| JSON_PARAMETERS.contains(&name.as_str()));
            let decoded = decoded.and_then(|text| serde_json::from_str(text).ok());
            bindings
                .entry(name.clone())
                .or_insert_with(|| decoded.unwrap_or_else(|| value.clone()));
        }
        let mut known = bindings.clone();
        known.insert("*".to_owned(), rest.join("/").into());
        for (name, value) in &rule.query {
            bindings.insert(name.clone(), rule.fill(value, &known));
        }
        let mut segments = Vec::new();
        for part in &rule.to {
            match part {
                Part::Rest => {
                    segments.extend_from_slice(rest);
                    break;
                }
                Part::Variable(name) => {
                    let value = bindings.get(name).map(plain);
                    segments.push(value.unwrap_or_else(|| "undefined".to_owned()));
                }
                Part::Literal(text) => segments.push(text.clone()),
            }
        }
        bindings.remove("*");
        Some(self.request_to(&segments, bindings))
    }

    /// What a rewrite function's result says.
    fn take(&self, result: &str) -> Result<Target> {
        let bad = |reason| Err(rewrite_error(ErrorKind::BadRequest, reason));
        let Ok(result) = serde_json::from_str::<Map<String, Value>>(result) else {
            return bad("bad rewrite");
        };
        let text = |name: &str, reason| match result.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(rewrite_error(ErrorKind::BadRequest, reason)),
        };
        let texts = |name: &str, reason| match result.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(members)) if members.values().all(Value::is_string) => {
                Ok(Some(members.clone()))
            }
            Some(_) => Err(rewrite_error(ErrorKind::BadRequest, reason)),
        };
        let (method, path) = (text("method", "bad method")?, text("path", "bad path")?);
        let body = text("body", "bad body")?;
        let headers = texts("headers", "bad headers")?.unwrap_or_default();
        let headers = headers.iter().map(|(name, value)| (name.clone(), plain(value)));
        let query = texts("query", "bad query")?;
        if let Some(code) = result.get("code") {
            let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
            let Some(code) = code.filter(|code| (200..600).contains(code)) else {
                return bad("bad code");
            };
            let body = body.unwrap_or_default().into();
            return Ok(Target::Response(Response { code, headers: headers.collect(), body }));
        }
        let Some(path) = path else { return bad("Rewrite result must produce a new path.") };
        let (path, own_query) = path.split_once('?').unwrap_or((&path, ""));
        let mut parameters = query.unwrap_or_else(|| self.request.query.clone());
        for pair in own_query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.insert(decode(name), decode(value).into());
        }
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let mut request = self.request_to(&segments, parameters)?;
        if let Some(method) = method {
            request.method = method;
        }
        if body.is_some() {
            request.body = body;
        }
        headers.for_each(|(name, value)| request.set_header(&name, &value));
        Ok(Target::Request(Box::new(request)))
    }

    /// The request with another path, given from the design document on, and another query.
    fn request_to(&self, segments: &[String], query: Map<String, Value>) -> Result<Request> {
        let mut path = vec![self.db.to_owned(), "_design".to_owned(), self.ddoc.to_owned()];
        for segment in segments {
            match segment.as_str() {
                "." => {}
                ".." => _ = path.pop().ok_or_else(Error::missing)?,
                _ => path.push(segment.clone()),
            }
        }
        let texts = query.into_iter().map(|(name, value)| {
            let text = match JSON_PARAMETERS.contains(&name.as_str()) {
                true => value.to_string(),
                false => plain(&value),
            };
            (name, text.into())
        });
        let query: Map<String, Value> = texts.collect();
        let mut raw_path = String::new();
        for segment in &path {
            raw_path.push('/');
            raw_path.push_str(&escape(segment));
        }
        if raw_path.is_empty() {
            raw_path.push('/');
        }
        if !query.is_empty() {
            raw_path = format!("{raw_path}?{}", encode(&query));
        }
        Ok(Request { path, raw_path, query, ..self.request.clone() })
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
