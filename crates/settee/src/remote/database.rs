//! [`Adapter`] for a database of a server: each method is the request that CouchDB has for it, and
//! another one where older servers have not.

use super::cache::Kept;
use super::http::{Call, Http, Payload, Repeat, Response, bad_reply};
use super::rows::{Listing, RowReader};
use super::url::{PathQuery, encode, encode_id};
use super::{changes, find, function, multipart, write};
use crate::adapter::{
    Adapter, AttachmentReader, ByteStream, ChangesStream, Location, Parts, Rows, ViewRows,
};
use crate::design::{FunctionPath, Rendered, Stub};
use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use hyper::{StatusCode, header};
use serde_json::Value;
use settee_core::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};
use settee_core::json::{Limits, write_string};
use settee_core::options::{
    AllDocsOptions, AttachmentHead, AttachmentOptions, BulkGetItem, ByteRange, ChangesOptions,
    DocSet, GetOptions, OpenRevs, Update, ViewOptions, WriteOptions,
};
use settee_core::wire::{
    AutoPurge, DatabaseInfo, DesignInfo, DocError, DocRow, MissingRevs, Purged, RevResult,
    RevsByDoc, Saved, Security, Seq, Sizes, TempView, TimeBin, TimeSeqReply, ViewRow, WriteResult,
    parse_bulk_get_result,
};
use settee_core::{Digest, Document, Encoding, Error, ErrorKind, Result, Rev};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Revisions in one request's URL, which servers allow some thousand characters.
const REVS_IN_URL: usize = 80;

/// How long a view may take to begin its answer.
pub(crate) const INDEXING: Duration = Duration::from_secs(3600);

/// Requests at a time, where one call takes many.
const AT_A_TIME: usize = 8;

/// A database of a server.
#[derive(Clone)]
pub(crate) struct RemoteDatabase {
    shared: Arc<Shared>,
}

/// What a database's handle and its streams share.
pub(crate) struct Shared {
    pub(crate) http: Arc<Http>,
    pub(crate) name: String,
    /// Whether the server turned out to have no `_bulk_get`.
    no_bulk_get: AtomicBool,
}

impl std::fmt::Debug for RemoteDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Database '{}'>", self.shared.name)
    }
}

impl RemoteDatabase {
    pub(crate) fn new(http: Arc<Http>, name: &str) -> RemoteDatabase {
        let no_bulk_get = AtomicBool::new(false);
        RemoteDatabase { shared: Arc::new(Shared { http, name: name.to_owned(), no_bulk_get }) }
    }

    fn http(&self) -> &Http {
        &self.shared.http
    }

    fn path(&self, rest: &str) -> PathQuery {
        self.shared.path(rest)
    }

    async fn number(&self, path: &str) -> Result<u64> {
        self.http().fetch(Call::get(self.path(path))).await
    }

    async fn set_number(&self, path: &str, number: u64) -> Result<()> {
        self.http().run(Call::put(self.path(path)).json(number.to_string())).await
    }

    /// A request without content that starts something.
    async fn start(&self, path: &str) -> Result<()> {
        // CouchDB wants the type of the content that there is not.
        let call = Call::post(self.path(path)).json("").repeat(Repeat::Safe);
        self.http().run(call).await
    }
}

/// Whether attachments' contents are wanted in a form that JSON cannot say.
fn as_stored(options: &GetOptions) -> bool {
    options.attachments && options.att_encoding_info
}

/// A list of revisions as JSON.
fn revs_json(revs: &[Rev]) -> String {
    serde_json::json!(revs.iter().map(Rev::to_string).collect::<Vec<_>>()).to_string()
}

fn string_json(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_string(&mut json, text);
    String::from_utf8(json).unwrap_or_default()
}

impl Shared {
    /// A path below the database.
    pub(crate) fn path(&self, rest: &str) -> PathQuery {
        match rest {
            "" => PathQuery::new(encode(&self.name)),
            rest => PathQuery::new(format!("{}/{rest}", encode(&self.name))),
        }
    }

    pub(crate) fn doc_path(&self, id: &str) -> Result<PathQuery> {
        settee_core::id::check_doc_id(id)?;
        Ok(self.path(&encode_id(id)))
    }

    fn attachment_path(&self, id: &str, name: &str) -> Result<PathQuery> {
        settee_core::id::check_doc_id(id)?;
        Ok(self.path(&format!("{}/{}", encode_id(id), encode(name))))
    }

    pub(crate) fn limits(&self) -> Limits {
        let max = self.http.options.max_item;
        Limits { depth: 10_000, document: max, attachment: max }
    }

    /// What is asked about each document.
    pub(crate) fn doc_options(&self, path: PathQuery, options: &GetOptions) -> PathQuery {
        path.flag("revs", options.revs)
            .flag("revs_info", options.revs_info)
            .flag("conflicts", options.conflicts)
            .flag("deleted_conflicts", options.deleted_conflicts)
            .flag("local_seq", options.local_seq)
            .flag("attachments", options.attachments)
            .flag("att_encoding_info", options.att_encoding_info)
    }

    fn get_options(&self, path: PathQuery, options: &GetOptions) -> PathQuery {
        let mut path = self.doc_options(path, options);
        if options.attachments && !options.atts_since.is_empty() {
            // The newest say most.
            let mut since = options.atts_since.clone();
            since.sort_unstable_by(|a, b| b.cmp(a));
            since.truncate(REVS_IN_URL);
            path = path.with("atts_since", revs_json(&since));
        }
        path.flag("latest", options.latest)
    }

    pub(crate) async fn info(&self) -> Result<DatabaseInfo> {
        let info: Value = self.http.fetch(Call::get(self.path(""))).await?;
        read_info(&self.name, &info).ok_or_else(|| bad_reply("This is not what a database is."))
    }

    pub(crate) async fn get(&self, id: &str, options: &GetOptions) -> Result<Document> {
        let path = self.get_options(self.doc_path(id)?, options).maybe("rev", options.rev.as_ref());
        if *options == GetOptions::default() {
            return self.get_plain(path).await;
        }
        let mut call = Call::get(path);
        if options.attachments {
            call = call.header(header::ACCEPT, "multipart/related, application/json");
        }
        let response = self.http.send(call).await?;
        let limits = self.limits();
        match multipart_of(&response) {
            Some(content_type) => {
                let (body, decode) = (response.body.boxed(), !options.att_encoding_info);
                multipart::read_document(&content_type, body, &limits, decode).await
            }
            None => multipart::parse(&response.bytes(limits.document).await?, &limits),
        }
    }

    /// Reads a document of which an earlier reply may still be right.
    async fn get_plain(&self, path: PathQuery) -> Result<Document> {
        let (limits, cache) = (self.limits(), &self.http.cache);
        let place = path.as_str().to_owned();
        let kept = cache.get(&place);
        let call = Call::get(path);
        let call = match &kept {
            Some(kept) => call.header(header::IF_NONE_MATCH, &kept.etag),
            None => call,
        };
        let response = self.http.send(call).await?;
        if let (StatusCode::NOT_MODIFIED, Some(kept)) = (response.status, kept) {
            return multipart::parse(&kept.body, &limits);
        }
        let etag = response.header(header::ETAG).map(str::to_owned);
        let body = response.bytes(limits.document).await?;
        let doc = multipart::parse(&body, &limits)?;
        if let Some(etag) = etag {
            cache.insert(&place, Kept { etag, body });
        }
        Ok(doc)
    }

    pub(crate) async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>> {
        let OpenRevs::Revs(revs) = revs else {
            let results = self.open_revs_once(id, "all".to_owned(), options).await?;
            return if results.is_empty() { Err(Error::missing()) } else { Ok(results) };
        };
        let mut results: Vec<RevResult> = Vec::new();
        for some in revs.chunks(REVS_IN_URL) {
            let found = match self.open_revs_once(id, revs_json(some), options).await {
                Ok(found) => found,
                // Some say so where others say it of each revision.
                Err(error) if error.is_not_found() && error.reason() != NO_DATABASE => {
                    let missing = |rev: &Rev| {
                        let (id, rev) = (id.to_owned(), Some(rev.clone()));
                        RevResult::Missing(DocError { id, rev, error: Error::missing() })
                    };
                    some.iter().map(missing).collect()
                }
                Err(error) => return Err(error),
            };
            for result in found {
                // Two revisions may have one latest descendant.
                let known = matches!(&result, RevResult::Found(doc) if results.iter().any(|other| {
                    matches!(other, RevResult::Found(other) if other.rev == doc.rev)
                }));
                if !(known && options.latest) {
                    results.push(result);
                }
            }
        }
        if !options.latest {
            in_order(&mut results, revs);
        }
        Ok(results)
    }

    /// What a `_bulk_get` says of one of its items, without one.
    async fn one_of_bulk(
        &self,
        item: BulkGetItem,
        options: GetOptions,
    ) -> Result<(String, Vec<RevResult>)> {
        let BulkGetItem { id, rev, atts_since } = item;
        let attachments = options.attachments || !atts_since.is_empty();
        let options = GetOptions { atts_since, attachments, ..options };
        let revs = rev.map_or(OpenRevs::All, |rev| OpenRevs::Revs(vec![rev]));
        match self.open_revs(&id, &revs, &options).await {
            Ok(results) => Ok((id, results)),
            Err(error) if error.is_not_found() && error.reason() != NO_DATABASE => {
                let missing = DocError { id: id.clone(), rev: None, error };
                Ok((id, vec![RevResult::Missing(missing)]))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts into documents that came with stubs the contents that were asked for, as they are
    /// stored.
    async fn with_contents(
        &self,
        item: &BulkGetItem,
        mut results: Vec<RevResult>,
        mut options: GetOptions,
    ) -> Result<Vec<RevResult>> {
        options.atts_since.clone_from(&item.atts_since);
        options.latest = false;
        for result in &mut results {
            let RevResult::Found(doc) = result else { continue };
            let Some(rev) = doc.rev.clone().filter(|_| !doc.attachments.is_empty()) else {
                continue;
            };
            let revs = OpenRevs::Revs(vec![rev]);
            if let Some(whole) = self.open_revs(&item.id, &revs, &options).await?.pop() {
                *result = whole;
            }
        }
        Ok(results)
    }

    async fn open_revs_once(
        &self,
        id: &str,
        revs: String,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>> {
        let path = self.get_options(self.doc_path(id)?, options).with("open_revs", revs);
        let accept = match options.attachments {
            true => "multipart/mixed, application/json;q=0.5",
            false => "application/json",
        };
        let response = self.http.send(Call::get(path).header(header::ACCEPT, accept)).await?;
        let limits = self.limits();
        if let Some(content_type) = multipart_of(&response) {
            let (body, decode) = (response.body.boxed(), !options.att_encoding_info);
            return multipart::read_revisions(&content_type, body, id, &limits, decode).await;
        }
        let mut reader = RowReader::new(response.body, None, limits);
        let mut results = Vec::new();
        loop {
            let batch =
                reader.next_batch(|text, limits| RevResult::parse(text, id, limits)).await?;
            if batch.is_empty() {
                return Ok(results);
            }
            results.extend(batch);
        }
    }
}

pub(crate) const NO_DATABASE: &str = "Database does not exist.";

/// The content type, if it is one of parts.
fn multipart_of(response: &Response) -> Option<String> {
    let content_type = response.header(header::CONTENT_TYPE)?;
    let multipart = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/");
    multipart.then(|| content_type.to_owned())
}

/// Puts results into the order they were asked in, if there is one for each revision.
fn in_order(results: &mut [RevResult], revs: &[Rev]) {
    let rev = |result: &RevResult| match result {
        RevResult::Found(doc) => doc.rev.clone(),
        RevResult::Missing(missing) => missing.rev.clone(),
    };
    results.sort_by_key(|result| {
        let rev = rev(result);
        // What was not asked for comes last.
        revs.iter().position(|asked| Some(asked) == rev.as_ref()).unwrap_or(revs.len())
    });
}

/// What a database says of itself, in any version's words.
fn read_info(name: &str, info: &Value) -> Option<DatabaseInfo> {
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or_default();
    let seq = |name| match info.get(name) {
        None => Some(Seq::Number(0)),
        Some(value) => Seq::from_json(&value.to_string()),
    };
    let size = |new, old| match info.get("sizes") {
        Some(sizes) => number(sizes.get(new)),
        None => number(info.get(old)),
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    info.as_object()?;
    Some(DatabaseInfo {
        db_name: info.get("db_name").and_then(Value::as_str).unwrap_or(name).to_owned(),
        doc_count: info.get("doc_count")?.as_u64()?,
        doc_del_count: number(info.get("doc_del_count")),
        update_seq: seq("update_seq")?,
        purge_seq: seq("purge_seq")?,
        sizes: Sizes {
            file: size("file", "disk_size"),
            external: size("external", "data_size"),
            active: size("active", "data_size"),
        },
        instance_start_time: info.get("instance_start_time").map_or_else(|| "0".to_owned(), text),
        compact_running: info.get("compact_running").and_then(Value::as_bool).unwrap_or_default(),
    })
}

/// Whether a server answers so to a path that it does not know: as if it were a document's, or the
/// method not one for it.
fn unknown_path(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BadRequest
            | ErrorKind::IllegalDocId
            | ErrorKind::NotFound
            | ErrorKind::MethodNotAllowed
            | ErrorKind::NotAcceptable
            | ErrorKind::BadContentType
            | ErrorKind::NotImplemented
    )
}

#[async_trait]
impl Adapter for RemoteDatabase {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn location(&self) -> Location {
        let http = self.http();
        let url = format!("{}/{}/", http.base, encode(&self.shared.name));
        // A header may be a key to the server, so it is told apart without being told.
        let digest = |value: &str| crate::env::hex(&Sha256::digest(value)[..8]);
        let headers = http.options.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), digest(value))).collect();
        Location::Remote { url, user: http.user.clone(), headers }
    }

    async fn info(&self) -> Result<DatabaseInfo> {
        self.shared.info().await
    }

    async fn get(&self, id: &str, options: &GetOptions) -> Result<Document> {
        self.shared.get(id, options).await
    }

    async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>> {
        self.shared.open_revs(id, revs, options).await
    }

    async fn put(
        &self,
        doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved> {
        write::put(&self.shared, doc, parts, options).await
    }

    async fn bulk_docs(
        &self,
        docs: Vec<Document>,
        options: &WriteOptions,
    ) -> Result<Vec<WriteResult>> {
        write::bulk_docs(&self.shared, docs, options).await
    }

    async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> Result<BoxStream<'static, Result<(String, Vec<RevResult>)>>> {
        if !self.shared.no_bulk_get.load(Ordering::Relaxed) {
            let response = self.http().send(self.bulk_get_call(&items, options)).await;
            match response.map_err(Error::from) {
                Ok(response) => {
                    let limits = self.shared.limits();
                    let reader = RowReader::new(response.body, Some("results"), limits);
                    let results = BulkGet::new(reader, items, options.latest).into_stream();
                    let (shared, options) = (self.shared.clone(), options.clone());
                    let results = results.map(move |result| {
                        let (shared, options) = (shared.clone(), options.clone());
                        async move {
                            let (item, results) = result?;
                            if results.is_empty() {
                                // Some pass over what they cannot answer together with the rest.
                                return shared.one_of_bulk(item, options).await;
                            }
                            if !as_stored(&options) {
                                return Ok((item.id, results));
                            }
                            let results = shared.with_contents(&item, results, options).await?;
                            Ok((item.id, results))
                        }
                    });
                    return Ok(results.buffered(AT_A_TIME).boxed());
                }
                Err(error) if error.reason() == NO_DATABASE || !unknown_path(&error) => {
                    return Err(error);
                }
                Err(_) => {
                    // Not there, or is it the database that is not?
                    self.shared.info().await?;
                    self.shared.no_bulk_get.store(true, Ordering::Relaxed);
                }
            }
        }
        let (shared, options) = (self.shared.clone(), options.clone());
        let results = stream::iter(items).map(move |item| {
            let (shared, options) = (shared.clone(), options.clone());
            async move { shared.one_of_bulk(item, options).await }
        });
        Ok(results.buffered(AT_A_TIME).boxed())
    }

    async fn all_docs(&self, options: &AllDocsOptions) -> Result<Rows> {
        let listing = match options.set {
            DocSet::All => "_all_docs",
            DocSet::Design => "_design_docs",
            DocSet::Local => "_local_docs",
        };
        let sent = self.http().send(self.all_docs_call(listing, options)).await;
        let response = match sent.map_err(Error::from) {
            Err(error)
                if options.set != DocSet::All
                    && error.reason() != NO_DATABASE
                    && unknown_path(&error) =>
            {
                self.shared.info().await?;
                match design_docs_by_id(options) {
                    Some(options) => {
                        self.http().send(self.all_docs_call("_all_docs", &options)).await?
                    }
                    None => {
                        let reason = "The server cannot list these documents.";
                        return Err(Error::new(ErrorKind::NotImplemented, reason));
                    }
                }
            }
            sent => sent?,
        };
        let reader = RowReader::new(response.body, Some("rows"), self.shared.limits());
        let Listing { total_rows, offset, update_seq, rows } =
            reader.listing(DocRow::parse).await?;
        Ok(Rows { total_rows, offset, update_seq, rows })
    }

    async fn changes(&self, options: &ChangesOptions) -> Result<ChangesStream> {
        changes::changes(self.shared.clone(), options.clone()).await
    }

    async fn revs_diff(&self, revs: &RevsByDoc) -> Result<BTreeMap<String, MissingRevs>> {
        let body = serde_json::to_vec(revs).map_err(Error::internal)?;
        let call = Call::post(self.path("_revs_diff")).json(body).repeat(Repeat::Safe);
        self.http().fetch(call).await
    }

    async fn attachment(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> Result<AttachmentReader> {
        let path = self.shared.attachment_path(id, name)?.maybe("rev", options.rev.as_ref());
        let encoding = if options.accept_gzip { "gzip" } else { "identity" };
        let mut call = Call::get(path)
            .raw()
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, encoding);
        if let Some(range) = &options.range {
            let range = match range {
                ByteRange::From(first) => format!("bytes={first}-"),
                ByteRange::Within(first, last) => format!("bytes={first}-{last}"),
                ByteRange::Last(count) => format!("bytes=-{count}"),
            };
            call = call.header(header::RANGE, &range);
        }
        let response = self.http().send(call).await?;
        let gzip = response.header(header::CONTENT_ENCODING).is_some_and(|it| it == "gzip");
        let body_length =
            response.header(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let range = (response.status == StatusCode::PARTIAL_CONTENT)
            .then(|| content_range(response.header(header::CONTENT_RANGE)?))
            .flatten();
        let etag = response.header(header::ETAG).map(|etag| etag.trim_matches('"'));
        let digest = etag.and_then(|etag| Digest::from_base64(etag).ok());
        let length = match (range, gzip) {
            (Some((_, total)), _) => Some(total),
            (None, false) => body_length,
            (None, true) => None,
        };
        // What the reply does not say, the document does.
        let (digest, length) = match (digest, length) {
            (Some(digest), Some(length)) => (digest, length),
            (digest, length) => {
                let about = GetOptions { rev: options.rev.clone(), ..GetOptions::default() };
                let doc = self.shared.get(id, &about).await?;
                let stub = doc.attachments.into_iter().find(|att| att.name == name);
                let stub = stub.ok_or_else(|| bad_reply("The document has no such attachment."))?;
                // Digests of other kinds say nothing here.
                let digest = digest.or(stub.digest).unwrap_or(Digest([0; 16]));
                (digest, length.or(stub.length).unwrap_or_default())
            }
        };
        let content_type = response.header(header::CONTENT_TYPE);
        let content_type =
            content_type.unwrap_or(settee_core::attachment::DEFAULT_CONTENT_TYPE).to_owned();
        let has_ranges = response.header(header::ACCEPT_RANGES).is_some_and(|it| it == "bytes");
        let decode = gzip && !options.accept_gzip;
        let body = match decode {
            true => response.body.gunzip().boxed(),
            false => response.body.boxed(),
        };
        Ok(AttachmentReader {
            content_type,
            digest,
            length,
            encoding: if gzip && !decode { Encoding::Gzip } else { Encoding::Identity },
            has_ranges,
            range: range.map(|(range, _)| range),
            body_length: if decode { None } else { body_length },
            body,
        })
    }

    async fn put_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
        head: AttachmentHead,
        body: ByteStream,
    ) -> Result<Saved> {
        let path = self.shared.attachment_path(id, name)?.maybe("rev", rev);
        let content_type = head.content_type.as_deref();
        let content_type = content_type.unwrap_or(settee_core::attachment::DEFAULT_CONTENT_TYPE);
        let mut call = Call::put(path)
            .header(header::CONTENT_TYPE, content_type)
            .payload(Payload::Stream { body, length: head.length })
            .repeat(Repeat::Unsent);
        if head.encoding == Encoding::Gzip {
            call = call.header(header::CONTENT_ENCODING, "gzip");
        }
        if let Some(md5) = &head.md5 {
            call = call.header(write::CONTENT_MD5, &md5.base64());
        }
        write::saved(self.http().send(call).await?, id).await
    }

    async fn delete_attachment(&self, id: &str, name: &str, rev: Option<Rev>) -> Result<Saved> {
        let path = self.shared.attachment_path(id, name)?.maybe("rev", rev.as_ref());
        let call = Call::delete(path).repeat(Repeat::Unsent);
        match self.http().send(call).await.map_err(Error::from) {
            Ok(response) => write::saved(response, id).await,
            // Servers differ in whether it is an error to remove what is not there. What was asked
            // for is so; the revision is made all the same.
            Err(error) if error.is_not_found() && rev.is_some() => {
                let options = GetOptions { rev, ..GetOptions::default() };
                let Ok(doc) = self.shared.get(id, &options).await else { return Err(error) };
                if doc.attachments.iter().any(|att| att.name == name) {
                    return Err(error);
                }
                write::put(&self.shared, doc, None, &WriteOptions::default()).await
            }
            Err(error) => Err(error),
        }
    }

    async fn purge(&self, revs: &RevsByDoc) -> Result<Purged> {
        // Once carried out, a second time would find nothing to tell of.
        let body = serde_json::to_vec(revs).map_err(Error::internal)?;
        self.http().fetch(Call::post(self.path("_purge")).json(body)).await
    }

    async fn purged_infos(&self) -> Result<Vec<(String, Vec<Rev>)>> {
        #[derive(serde::Deserialize)]
        struct Infos {
            purged_infos: Vec<Info>,
        }
        #[derive(serde::Deserialize)]
        struct Info {
            id: String,
            revs: Vec<Rev>,
        }
        let infos: Infos = self.http().fetch(Call::get(self.path("_purged_infos"))).await?;
        Ok(infos.purged_infos.into_iter().map(|info| (info.id, info.revs)).collect())
    }

    async fn purged_infos_limit(&self) -> Result<u64> {
        self.number("_purged_infos_limit").await
    }

    async fn set_purged_infos_limit(&self, limit: u64) -> Result<()> {
        self.set_number("_purged_infos_limit", limit).await
    }

    async fn auto_purge(&self) -> Result<AutoPurge> {
        self.http().fetch(Call::get(self.path("_auto_purge"))).await
    }

    async fn set_auto_purge(&self, settings: &AutoPurge) -> Result<()> {
        let body = serde_json::to_vec(settings).map_err(Error::internal)?;
        self.http().run(Call::put(self.path("_auto_purge")).json(body)).await
    }

    async fn time_seq(&self) -> Result<Vec<TimeBin>> {
        let reply: TimeSeqReply = self.http().fetch(Call::get(self.path("_time_seq"))).await?;
        reply.bins()
    }

    async fn reset_time_seq(&self) -> Result<()> {
        self.http().run(Call::delete(self.path("_time_seq"))).await
    }

    async fn revs_limit(&self) -> Result<u64> {
        self.number("_revs_limit").await
    }

    async fn set_revs_limit(&self, limit: u64) -> Result<()> {
        self.set_number("_revs_limit", limit).await
    }

    async fn security(&self) -> Result<Security> {
        self.http().fetch(Call::get(self.path("_security"))).await
    }

    async fn set_security(&self, security: &Security) -> Result<()> {
        let body = serde_json::to_vec(security).map_err(Error::internal)?;
        self.http().run(Call::put(self.path("_security")).json(body)).await
    }

    async fn compact(&self) -> Result<()> {
        self.start("_compact").await
    }

    async fn view(&self, ddoc: &str, view: &str, options: &ViewOptions) -> Result<ViewRows> {
        let path = self.path(&format!("_design/{}/_view/{}", encode(ddoc), encode(view)));
        let path = self.view_options(path, options);
        let call = match &options.keys {
            None => Call::get(path),
            Some(keys) => {
                let body = format!("{{\"keys\":[{}]}}", keys.join(","));
                Call::post(path).json(body).repeat(Repeat::Safe)
            }
        };
        self.view_rows(call).await
    }

    async fn temp_view(&self, view: &TempView, options: &ViewOptions) -> Result<ViewRows> {
        let path = self.view_options(self.path("_temp_view"), options);
        let mut body = serde_json::to_string(view).map_err(Error::internal)?;
        if let Some(keys) = &options.keys {
            body.truncate(body.len() - 1);
            body.push_str(&format!(",\"keys\":[{}]}}", keys.join(",")));
        }
        self.view_rows(Call::post(path).json(body).repeat(Repeat::Safe)).await
    }

    async fn design_info(&self, ddoc: &str) -> Result<DesignInfo> {
        let path = self.path(&format!("_design/{}/_info", encode(ddoc)));
        self.http().fetch(Call::get(path)).await
    }

    async fn call_function(&self, path: &FunctionPath, stub: &Stub) -> Result<Rendered> {
        function::call(&self.shared, path, stub).await
    }

    async fn find(&self, options: &FindOptions) -> Result<Found> {
        find::find(&self.shared, options).await
    }

    async fn explain(&self, options: &FindOptions) -> Result<Value> {
        find::explain(&self.shared, options).await
    }

    async fn indexes(&self) -> Result<Vec<IndexInfo>> {
        find::indexes(&self.shared).await
    }

    async fn create_index(&self, index: &IndexDefinition) -> Result<IndexCreated> {
        find::create(&self.shared, index).await
    }

    async fn delete_index(&self, ddoc: &str, name: &str) -> Result<()> {
        find::delete(&self.shared, ddoc, name).await
    }

    fn judges_writes(&self) -> bool {
        true
    }

    async fn compact_views(&self, ddoc: &str) -> Result<()> {
        self.start(&format!("_compact/{}", encode(ddoc))).await
    }

    async fn view_cleanup(&self) -> Result<()> {
        self.start("_view_cleanup").await
    }

    async fn ensure_full_commit(&self) -> Result<()> {
        match self.start("_ensure_full_commit").await {
            // Whoever has no such thing has no writes that are not durable.
            Err(error) if error.reason() != NO_DATABASE && unknown_path(&error) => {
                self.shared.info().await.map(drop)
            }
            done => done,
        }
    }
}

impl RemoteDatabase {
    fn bulk_get_call(&self, items: &[BulkGetItem], options: &GetOptions) -> Call {
        let mut body = b"{\"docs\":[".to_vec();
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            body.extend_from_slice(b"{\"id\":");
            write_string(&mut body, &item.id);
            if let Some(rev) = &item.rev {
                body.extend_from_slice(b",\"rev\":");
                write_string(&mut body, &rev.to_string());
            }
            if !item.atts_since.is_empty() && !as_stored(options) {
                body.extend_from_slice(b",\"atts_since\":");
                body.extend_from_slice(revs_json(&item.atts_since).as_bytes());
            }
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        let attachments = options.attachments && !as_stored(options);
        let options = GetOptions { attachments, ..options.clone() };
        let path = self.path("_bulk_get");
        let path = self.shared.doc_options(path, &options).flag("latest", options.latest);
        Call::post(path).json(body).repeat(Repeat::Safe)
    }

    fn view_options(&self, path: PathQuery, options: &ViewOptions) -> PathQuery {
        let mut path = path
            .maybe("startkey", options.start.as_ref())
            .maybe("startkey_docid", options.start_docid.as_ref())
            .maybe("endkey", options.end.as_ref())
            .maybe("endkey_docid", options.end_docid.as_ref())
            .maybe("limit", options.limit)
            .maybe("reduce", options.reduce)
            .maybe("group", options.group)
            .maybe("group_level", options.group_level)
            .flag("descending", options.descending)
            .flag("stable", options.stable)
            .flag("update_seq", options.update_seq);
        if !options.inclusive_end {
            path = path.with("inclusive_end", false);
        }
        if options.skip > 0 {
            path = path.with("skip", options.skip);
        }
        if !options.sorted {
            path = path.with("sorted", false);
        }
        path = match options.update {
            Update::Before => path,
            Update::After => path.with("update", "lazy"),
            Update::Never => path.with("update", false),
        };
        if options.include_docs {
            path = self.shared.doc_options(path.with("include_docs", true), &options.doc);
        }
        path
    }

    async fn view_rows(&self, call: Call) -> Result<ViewRows> {
        // The server may have to make the index first.
        let response = self.http().send(call.wait(INDEXING)).await?;
        let reader = RowReader::new(response.body, Some("rows"), self.shared.limits());
        let Listing { total_rows, offset, update_seq, rows } =
            reader.listing(ViewRow::parse).await?;
        Ok(ViewRows { total_rows, offset, update_seq, rows })
    }

    fn all_docs_call(&self, listing: &str, options: &AllDocsOptions) -> Call {
        let mut path = self.path(listing);
        path = path
            .maybe("startkey", options.start.as_deref().map(string_json))
            .maybe("endkey", options.end.as_deref().map(string_json))
            .maybe("limit", options.limit)
            .flag("descending", options.descending)
            .flag("update_seq", options.update_seq);
        if !options.inclusive_end {
            path = path.with("inclusive_end", false);
        }
        if options.skip > 0 {
            path = path.with("skip", options.skip);
        }
        if options.include_docs {
            path = self.shared.doc_options(path.with("include_docs", true), &options.doc);
        }
        match &options.keys {
            None => Call::get(path),
            Some(keys) => {
                let body = serde_json::json!({ "keys": keys }).to_string();
                Call::post(path).json(body).repeat(Repeat::Safe)
            }
        }
    }
}

/// The range of all documents that holds the design documents, for servers that list them no other
/// way.
fn design_docs_by_id(options: &AllDocsOptions) -> Option<AllDocsOptions> {
    if options.set != DocSet::Design || options.keys.is_some() {
        return None;
    }
    let (first, behind) = ("_design/", "_design0");
    let mut all = AllDocsOptions { set: DocSet::All, ..options.clone() };
    let (low, high) = match options.descending {
        false => (&mut all.start, &mut all.end),
        true => (&mut all.end, &mut all.start),
    };
    if low.as_deref().is_none_or(|low| low < first) {
        *low = Some(first.to_owned());
    }
    // No document can be called so.
    if high.as_deref().is_none_or(|high| high > behind) {
        *high = Some(behind.to_owned());
    }
    Some(all)
}

/// First, last and total of a `Content-Range`.
fn content_range(text: &str) -> Option<((u64, u64), u64)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(((first.trim().parse().ok()?, last.trim().parse().ok()?), total.trim().parse().ok()?))
}

/// Brings the results of a `_bulk_get` into the order they were asked in, which not every server
/// keeps.
struct BulkGet {
    reader: RowReader,
    ready: VecDeque<(String, Vec<RevResult>)>,
    asked: VecDeque<BulkGetItem>,
    /// Results that came before their turn.
    early: Vec<(String, Vec<RevResult>)>,
    latest: bool,
    ended: bool,
}

impl BulkGet {
    fn new(reader: RowReader, items: Vec<BulkGetItem>, latest: bool) -> BulkGet {
        BulkGet {
            reader,
            ready: VecDeque::new(),
            asked: items.into(),
            early: Vec::new(),
            latest,
            ended: false,
        }
    }

    fn into_stream(self) -> BoxStream<'static, Result<(BulkGetItem, Vec<RevResult>)>> {
        let results = stream::unfold(Some(self), |state| async {
            let mut state = state?;
            match state.next().await {
                Ok(Some(result)) => Some((Ok(result), Some(state))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        results.boxed()
    }

    async fn next(&mut self) -> Result<Option<(BulkGetItem, Vec<RevResult>)>> {
        let Some(item) = self.asked.pop_front() else { return Ok(None) };
        // Of an item without revision, some servers give each leaf a result of its own.
        let all_leaves = item.rev.is_none();
        let mut found: Option<Vec<RevResult>> = None;
        while let Some(place) =
            self.early.iter().position(|result| answers(&item, self.latest, result))
        {
            found.get_or_insert_default().extend(self.early.remove(place).1);
            if !all_leaves {
                break;
            }
        }
        let last_of_id = self.asked.front().is_none_or(|next| next.id != item.id);
        loop {
            if found.is_some() && !(all_leaves && last_of_id) {
                break;
            }
            let latest = self.latest;
            let Some(next) = self.peek().await? else { break };
            if answers(&item, latest, next) {
                if let Some((_, results)) = self.ready.pop_front() {
                    found.get_or_insert_default().extend(results);
                }
            } else if found.is_some() {
                break;
            } else {
                self.early.extend(self.ready.pop_front());
            }
        }
        Ok(Some((item, found.unwrap_or_default())))
    }

    async fn peek(&mut self) -> Result<Option<&(String, Vec<RevResult>)>> {
        if self.ready.is_empty() && !self.ended {
            let batch = self.reader.next_batch(parse_bulk_get_result).await?;
            self.ended = batch.is_empty();
            if self.ended {
                self.reader.check()?;
            }
            self.ready.extend(batch);
        }
        Ok(self.ready.front())
    }
}

/// Whether a result is one of what an item asked for.
fn answers(item: &BulkGetItem, latest: bool, (id, results): &(String, Vec<RevResult>)) -> bool {
    let Some(asked) = &item.rev else { return item.id == *id };
    let of_this = |result: &RevResult| match result {
        // With `latest` another revision than the one asked for may come.
        RevResult::Found(doc) => latest || doc.rev.as_ref() == Some(asked),
        RevResult::Missing(missing) => missing.rev.as_ref().is_none_or(|rev| rev == asked),
    };
    item.id == *id && (results.is_empty() || results.iter().any(of_this))
}
