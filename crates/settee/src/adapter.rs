//! The one boundary: what a database does, and what a place of databases does.
//!
//! Everything above these two traits (server, replicator, mapping, the blocking twin) works on any
//! implementation and never asks which one it has. Comfort lives in [`Database`](crate::Database)
//! and [`Couch`](crate::Couch); here is what CouchDB can do, once each.

use crate::design::{FunctionPath, Rendered, Stub};
use crate::script::ScriptEngine;
use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use serde_json::Value;
use settee_core::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};
use settee_core::options::{
    AllDocsOptions, AttachmentHead, AttachmentOptions, BulkGetItem, ChangesOptions, Durability,
    GetOptions, OpenRevs, ViewOptions, WriteOptions,
};
use settee_core::wire::{
    ActiveTask, AutoPurge, Change, DatabaseInfo, DesignInfo, DocRow, MissingRevs, Purged,
    RevResult, RevsByDoc, Saved, Security, Seq, TempView, TimeBin, ViewRow, WriteResult,
};
use settee_core::{Digest, Document, Encoding, Error, ErrorKind, Result, Rev};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Bytes that come or go in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// A part of a request that follows the document: an attachment's content.
pub struct Part {
    /// The attachment's name, if the part gives it; else it belongs to the next attachment in the
    /// document's order that has none yet.
    pub name: Option<String>,
    /// Its content, which must be read to its end before the next part is asked for.
    pub body: ByteStream,
}

/// The contents of a document's attachments that are marked
/// [`Follows`](settee_core::AttachmentData::Follows).
pub type Parts = BoxStream<'static, Result<Part>>;

/// Rows of a listing: what is known before the first, and the rows in batches.
///
/// Batches keep the cost of a row low; how many rows one holds is up to the implementation.
pub struct Rows {
    /// How many documents there are to list, whatever the range.
    pub total_rows: Option<u64>,
    /// How many come before the first row, where that is cheap to say.
    pub offset: Option<u64>,
    /// The update sequence that the rows show, where asked for.
    pub update_seq: Option<Seq>,
    /// The rows.
    pub rows: BoxStream<'static, Result<Vec<DocRow>>>,
}

/// The answer of a view: what is known before the first row, and the rows in batches.
pub struct ViewRows {
    /// How many rows the view has; `None` if they were reduced.
    pub total_rows: Option<u64>,
    /// How many come before the first row; `None` if they were reduced.
    pub offset: Option<u64>,
    /// The update sequence that the rows show, where asked for.
    pub update_seq: Option<Seq>,
    /// The rows.
    pub rows: BoxStream<'static, Result<Vec<ViewRow>>>,
}

/// Some changes, and how far they bring the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesBatch {
    /// The changes; none if the filter let none through.
    pub changes: Vec<Change>,
    /// Everything up to here has been reported or filtered out.
    pub last_seq: Seq,
    /// How many changes come after `last_seq`.
    pub pending: u64,
}

/// A feed. A feed that is not live ends after its last batch, of which there is at least one. A live
/// one sends a batch whenever it has caught up, even without changes in it, and then waits.
pub type ChangesStream = BoxStream<'static, Result<ChangesBatch>>;

/// An attachment that is being read.
pub struct AttachmentReader {
    /// Its media type.
    pub content_type: String,
    /// The MD5 of its stored bytes.
    pub digest: Digest,
    /// The length of its content, in bytes.
    pub length: u64,
    /// How the bytes that come are encoded.
    pub encoding: Encoding,
    /// Whether ranges of it can be asked for: not of what is stored encoded.
    pub has_ranges: bool,
    /// Which bytes of how many come, if a range was asked for and could be given: first and last.
    pub range: Option<(u64, u64)>,
    /// How many bytes come, where known before.
    pub body_length: Option<u64>,
    /// The bytes.
    pub body: ByteStream,
}

impl Debug for AttachmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachmentReader")
            .field("content_type", &self.content_type)
            .field("digest", &self.digest)
            .field("length", &self.length)
            .field("encoding", &self.encoding)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Where a database is: what makes a replication the same as an earlier one between the same two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// In this process.
    Local {
        /// The place's id, [`Host::uuid`].
        place: String,
        /// The database's name.
        name: String,
    },
    /// Behind a URL.
    Remote {
        /// The database's URL without credentials.
        url: String,
        /// Who is logged in.
        user: Option<String>,
        /// Headers that are sent besides the usual ones, without credentials.
        headers: Vec<(String, String)>,
    },
}

/// One database.
///
/// Any number of calls may be under way at once, from any number of tasks. A write that has returned
/// is seen by every read that begins after it. Dropping a future may leave its write done or undone,
/// never half done.
#[async_trait]
pub trait Adapter: Send + Sync + Debug + 'static {
    /// The database's name.
    fn name(&self) -> &str;

    /// Where it is. Two databases that are not the same should not say the same.
    fn location(&self) -> Location {
        Location::Local { place: String::new(), name: self.name().to_owned() }
    }

    /// `GET /{db}`.
    async fn info(&self) -> Result<DatabaseInfo>;

    /// `GET /{db}/{id}`, design documents and `_local/…` included.
    ///
    /// # Errors
    ///
    /// `NotFound`, with reason `missing` or `deleted`.
    async fn get(&self, id: &str, options: &GetOptions) -> Result<Document>;

    /// `GET /{db}/{id}?open_revs=…`. An unknown document has no leaves: with [`OpenRevs::All`] that
    /// is `NotFound`, and for revisions that are asked for they are missing.
    async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>>;

    /// Writes one document: `PUT /{db}/{id}`, `POST /{db}`, `DELETE /{db}/{id}`.
    ///
    /// A document without an id gets one. The content of attachments marked `Follows` comes from
    /// `parts`.
    ///
    /// # Errors
    ///
    /// `Conflict`, `MissingStub`, `DocValidation` and the limits' kinds.
    async fn put(
        &self,
        doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved>;

    /// `POST /{db}/_bulk_docs`: one result per document, in their order. With `new_edits=false` too,
    /// where CouchDB's reply leaves out the successes.
    async fn bulk_docs(
        &self,
        docs: Vec<Document>,
        options: &WriteOptions,
    ) -> Result<Vec<WriteResult>>;

    /// `POST /{db}/_bulk_get`: for each item, its revisions, in the items' order.
    async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> Result<BoxStream<'static, Result<(String, Vec<RevResult>)>>>;

    /// `GET /{db}/_all_docs`, `_design_docs`, `_local_docs`.
    async fn all_docs(&self, options: &AllDocsOptions) -> Result<Rows>;

    /// `GET /{db}/_changes`.
    async fn changes(&self, options: &ChangesOptions) -> Result<ChangesStream>;

    /// `POST /{db}/_revs_diff`: of the revisions given, those that are not here. Documents of which
    /// none is missing are left out.
    async fn revs_diff(&self, revs: &RevsByDoc) -> Result<BTreeMap<String, MissingRevs>>;

    /// `GET /{db}/{id}/{name}`.
    async fn attachment(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> Result<AttachmentReader>;

    /// `PUT /{db}/{id}/{name}`: adds or replaces one attachment of the revision given; without one,
    /// creates the document.
    async fn put_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
        head: AttachmentHead,
        body: ByteStream,
    ) -> Result<Saved>;

    /// `DELETE /{db}/{id}/{name}`.
    async fn delete_attachment(&self, id: &str, name: &str, rev: Option<Rev>) -> Result<Saved>;

    /// `POST /{db}/_purge`: forgets revisions as if they had never been.
    async fn purge(&self, revs: &RevsByDoc) -> Result<Purged>;

    /// `GET /{db}/_purged_infos`.
    async fn purged_infos(&self) -> Result<Vec<(String, Vec<Rev>)>>;

    /// `GET /{db}/_purged_infos_limit`.
    async fn purged_infos_limit(&self) -> Result<u64>;

    /// `PUT /{db}/_purged_infos_limit`.
    async fn set_purged_infos_limit(&self, limit: u64) -> Result<()>;

    /// `GET /{db}/_auto_purge`: how long deleted documents are kept.
    async fn auto_purge(&self) -> Result<AutoPurge>;

    /// `PUT /{db}/_auto_purge`. Who purges is the server, or whoever calls
    /// [`Database::purge_expired`](crate::Database::purge_expired).
    async fn set_auto_purge(&self, settings: &AutoPurge) -> Result<()>;

    /// `GET /{db}/_time_seq`: how many changes were made when, oldest first.
    async fn time_seq(&self) -> Result<Vec<TimeBin>>;

    /// `DELETE /{db}/_time_seq`: forgets when changes were made, and begins anew. Makes sense after
    /// the clock was wrong.
    async fn reset_time_seq(&self) -> Result<()>;

    /// `GET /{db}/_revs_limit`.
    async fn revs_limit(&self) -> Result<u64>;

    /// `PUT /{db}/_revs_limit`.
    async fn set_revs_limit(&self, limit: u64) -> Result<()>;

    /// `GET /{db}/_security`.
    async fn security(&self) -> Result<Security>;

    /// `PUT /{db}/_security`.
    async fn set_security(&self, security: &Security) -> Result<()>;

    /// `POST /{db}/_compact`: starts dropping the bodies of revisions that are no leaves, and giving
    /// back space. Returns at once; [`DatabaseInfo::compact_running`] tells when it is done.
    async fn compact(&self) -> Result<()>;

    /// `GET /{db}/_design/{ddoc}/_view/{view}`; `ddoc` comes without `_design/`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document or view, `QueryParse` if the options make no
    /// sense for it.
    async fn view(&self, ddoc: &str, view: &str, options: &ViewOptions) -> Result<ViewRows> {
        let _ = (ddoc, view, options);
        Err(not_implemented("views"))
    }

    /// `POST /{db}/_temp_view`: the answer of a view that belongs to no design document, from the
    /// documents as they are now.
    async fn temp_view(&self, view: &TempView, options: &ViewOptions) -> Result<ViewRows> {
        let _ = (view, options);
        Err(not_implemented("temporary views"))
    }

    /// `GET /{db}/_design/{ddoc}/_info`; `ddoc` comes without `_design/`.
    async fn design_info(&self, ddoc: &str) -> Result<DesignInfo> {
        let _ = ddoc;
        Err(not_implemented("views"))
    }

    /// Calls a function of a design document: `/{db}/_design/{ddoc}/_show/…`, `_list`, `_update` and
    /// `_rewrite`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such design document or function, and whatever the function throws.
    /// A response that the function itself gives an error's status is none.
    async fn call_function(&self, path: &FunctionPath, stub: &Stub) -> Result<Rendered> {
        let _ = (path, stub);
        Err(not_implemented("functions of design documents"))
    }

    /// What runs functions of design documents that this process must run itself.
    ///
    /// # Errors
    ///
    /// `Internal` if there is nothing that could: without the feature `js`.
    fn script(&self) -> Result<Arc<dyn ScriptEngine>> {
        crate::script::usual_engine()
    }

    /// Whether whoever carries out writes asks `validate_doc_update` functions about them.
    fn judges_writes(&self) -> bool {
        false
    }

    /// `POST /{db}/_find`: some of the documents that match, and where the next ones begin.
    ///
    /// # Errors
    ///
    /// `NotImplemented` on embedded databases. `BadRequest`, `no_usable_index`, if there is no index
    /// for the order that is asked for.
    async fn find(&self, options: &FindOptions) -> Result<Found> {
        let _ = options;
        Err(not_implemented("queries by selector"))
    }

    /// `POST /{db}/_explain`: how such a query would be answered.
    async fn explain(&self, options: &FindOptions) -> Result<Value> {
        let _ = options;
        Err(not_implemented("queries by selector"))
    }

    /// `GET /{db}/_index`.
    async fn indexes(&self) -> Result<Vec<IndexInfo>> {
        Err(not_implemented("indexes of queries by selector"))
    }

    /// `POST /{db}/_index`.
    async fn create_index(&self, index: &IndexDefinition) -> Result<IndexCreated> {
        let _ = index;
        Err(not_implemented("indexes of queries by selector"))
    }

    /// `DELETE /{db}/_index/{ddoc}/json/{name}`; `ddoc` comes without `_design/`.
    async fn delete_index(&self, ddoc: &str, name: &str) -> Result<()> {
        let _ = (ddoc, name);
        Err(not_implemented("indexes of queries by selector"))
    }

    /// `POST /{db}/_compact/{ddoc}`: starts giving back the space of a design document's indexes;
    /// `ddoc` comes without `_design/`. Returns at once; [`Adapter::design_info`] tells when it is
    /// done.
    async fn compact_views(&self, ddoc: &str) -> Result<()> {
        let _ = ddoc;
        Err(not_implemented("views"))
    }

    /// `POST /{db}/_view_cleanup`: drops indexes that no design document asks for any more.
    async fn view_cleanup(&self) -> Result<()>;

    /// `POST /{db}/_ensure_full_commit`: makes writes with
    /// [`Durability::Deferred`] durable.
    async fn ensure_full_commit(&self) -> Result<()>;
}

/// What happened to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbUpdateKind {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
    /// Something in it changed.
    Updated,
}

/// One entry of `GET /_db_updates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbUpdate {
    /// The database.
    pub db_name: String,
    /// What happened to it.
    pub kind: DbUpdateKind,
    /// Where in the feed. Only the host that it is from understands it.
    pub seq: Seq,
}

/// Which databases to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllDbsOptions {
    /// The first name.
    pub start: Option<String>,
    /// The last name.
    pub end: Option<String>,
    /// Whether `end` itself belongs to the range.
    pub inclusive_end: bool,
    /// From the last name to the first.
    pub descending: bool,
    /// At most so many.
    pub limit: Option<u64>,
    /// Leave out so many first.
    pub skip: u64,
}

impl Default for AllDbsOptions {
    fn default() -> AllDbsOptions {
        AllDbsOptions {
            start: None,
            end: None,
            inclusive_end: true,
            descending: false,
            limit: None,
            skip: 0,
        }
    }
}

/// A place that holds databases.
#[async_trait]
pub trait Host: Send + Sync + Debug + 'static {
    /// A handle to a database, which need not exist; then every call on it fails with `NotFound`.
    ///
    /// # Errors
    ///
    /// `IllegalDatabaseName`.
    fn database(&self, name: &str) -> Result<Arc<dyn Adapter>>;

    /// `HEAD /{db}`.
    async fn exists(&self, name: &str) -> Result<bool>;

    /// `PUT /{db}`.
    ///
    /// # Errors
    ///
    /// `FileExists`, `IllegalDatabaseName`.
    async fn create(&self, name: &str) -> Result<()>;

    /// `PUT /{db}`, and `PUT /{db}/_security` before anybody else can have found it.
    ///
    /// # Errors
    ///
    /// As [`create`](Host::create); then there is no database.
    async fn create_with(&self, name: &str, security: &Security) -> Result<()> {
        self.create(name).await?;
        let secured = self.database(name)?.set_security(security).await;
        if secured.is_err() {
            // Better no database than one that is open to all.
            self.delete(name).await?;
        }
        secured
    }

    /// `DELETE /{db}`.
    async fn delete(&self, name: &str) -> Result<()>;

    /// `GET /_all_dbs`, in the order of the names' bytes.
    async fn all_dbs(&self, options: &AllDbsOptions) -> Result<Vec<String>>;

    /// `GET /_db_updates`: what happened behind a point in the feed; `None` is from now on. Ends
    /// after what is known unless `live`.
    async fn db_updates(
        &self,
        since: Option<Seq>,
        live: bool,
    ) -> Result<BoxStream<'static, Result<DbUpdate>>>;

    /// `GET /_uuids`: fresh document ids, in ascending order.
    async fn uuids(&self, count: usize) -> Result<Vec<String>>;

    /// The place's own id, which it keeps for good.
    async fn uuid(&self) -> Result<String>;

    /// `GET /_active_tasks`: what is going on that no request waits for.
    async fn active_tasks(&self) -> Result<Vec<ActiveTask>> {
        Ok(Vec::new())
    }
}

fn not_implemented(what: &'static str) -> Error {
    Error::new(ErrorKind::NotImplemented, format!("{what} are not implemented here"))
}

/// Durability as the options name it.
pub(crate) fn store_durability(durability: Durability) -> settee_store::Durability {
    match durability {
        Durability::Flush => settee_store::Durability::Flush,
        Durability::Deferred => settee_store::Durability::Deferred,
    }
}
