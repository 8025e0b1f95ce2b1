//! The same API without `async`, for programs without a runtime.
//!
//! Every method does what the one of the same name does on the type of the same name in the
//! [crate's root](crate), and waits for it; streams are iterators. Do not call these methods from
//! async code.
//!
//! ```
//! use settee::blocking::Couch;
//!
//! let couch = Couch::memory()?;
//! let db = couch.create("example")?;
//! db.put(r#"{"_id": "ada", "born": 1815}"#)?;
//! db.put(r#"{"_id": "grace", "born": 1906}"#)?;
//!
//! assert_eq!(db.ids()?.collect::<Result<Vec<_>, _>>()?, ["ada", "grace"]);
//! let last = db.all_docs().descending().limit(1).fetch()?;
//! assert_eq!(last.rows[0].id, "grace");
//!
//! let mut live = db.changes().since_now().live()?;
//! db.delete_current("ada")?;
//! assert!(live.next().unwrap()?.deleted);
//! # Ok::<(), settee::Error>(())
//! ```

use crate::adapter::{
    Adapter, AllDbsOptions, AttachmentReader, ByteStream, ChangesBatch, DbUpdate,
};
use crate::design::{Response, Stub, Target, Validation};
use crate::find::{Found, IndexCreated, IndexDefinition, IndexInfo};
use crate::replicate::{
    Denied, End, Progress, ReplicateOptions, ReplicationEvent, ReplicationResult, SyncHandle,
    SyncResult,
};
use crate::{
    AttachmentBody, DocRef, FeedEvent, IntoDocument, Listing, Pending, Subscription, ViewResult,
};
use bytes::{Buf, Bytes};
use futures_core::stream::BoxStream;
use futures_executor::{BlockingStream, block_on, block_on_stream};
use serde::Serialize;
use settee_core::options::{
    AttachmentOptions, BulkGetItem, Filter, GetOptions, OpenRevs, Update, ViewOptions,
};
use settee_core::selector::Selector;
use settee_core::wire::{
    ActiveTask, AutoPurge, Change, DatabaseInfo, DesignInfo, DocRow, MissingRevs, Purged,
    RevResult, RevsByDoc, Saved, Security, Seq, TempView, TimeBin, ViewRow, WriteResult,
};
use settee_core::{Digest, Document, Result, Rev};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

/// Methods that wait for their async twins.
macro_rules! waiting {
    ($twin:ident: $(
        $name:ident $(<$($lifetime:lifetime),*>)? ($($arg:ident: $type:ty),*) -> $out:ty $(, $wrap:expr)?;
    )*) => {$(
        #[doc = concat!("[`", stringify!($twin), "::", stringify!($name), "`](crate::",
            stringify!($twin), "::", stringify!($name), "), blocking.")]
        pub fn $name $(<$($lifetime),*>)? (&self, $($arg: $type),*) -> Result<$out> {
            let result = block_on(self.0.$name($($arg),*));
            $(let result = result.map($wrap);)?
            result
        }
    )*};
}

/// A place that holds databases: [`Couch`](crate::Couch), blocking.
#[derive(Debug, Clone)]
pub struct Couch(crate::Couch);

impl Couch {
    /// [`Couch::open`](crate::Couch::open).
    pub fn open(dir: impl AsRef<Path>) -> Result<Couch> {
        crate::Couch::open(dir).map(Couch)
    }

    /// [`Couch::memory`](crate::Couch::memory).
    pub fn memory() -> Result<Couch> {
        crate::Couch::memory().map(Couch)
    }

    /// [`Couch::temporary`](crate::Couch::temporary).
    pub fn temporary() -> Result<Couch> {
        crate::Couch::temporary().map(Couch)
    }

    /// [`Couch::temporary_in`](crate::Couch::temporary_in).
    pub fn temporary_in(parent: impl AsRef<Path>) -> Result<Couch> {
        crate::Couch::temporary_in(parent).map(Couch)
    }

    /// [`Couch::connect`](crate::Couch::connect).
    #[cfg(feature = "remote")]
    pub fn connect(url: &str) -> Result<Couch> {
        crate::Couch::connect(url).map(Couch)
    }

    /// [`Couch::replicate`](crate::Couch::replicate).
    pub fn replicate(&self, source: &str, target: &str) -> Result<Replication> {
        self.0.replicate(source, target).map(Replication)
    }

    /// [`Couch::sync`](crate::Couch::sync).
    pub fn sync(&self, one: &str, other: &str) -> Result<Sync> {
        self.0.sync(one, other).map(Sync)
    }

    /// The same place, to be used from async code.
    pub fn as_async(&self) -> &crate::Couch {
        &self.0
    }

    /// [`Couch::db`](crate::Couch::db).
    pub fn db(&self, name: &str) -> Result<Database> {
        self.0.db(name).map(Database)
    }

    /// [`Couch::replicator`](crate::Couch::replicator).
    pub fn replicator(&self) -> Result<Database> {
        self.0.replicator().map(Database)
    }

    /// [`Couch::users`](crate::Couch::users).
    pub fn users(&self) -> Result<Database> {
        self.0.users().map(Database)
    }

    waiting! { Couch:
        create(name: &str) -> Database, Database;
        create_if_missing(name: &str) -> Database, Database;
        open_db(name: &str) -> Database, Database;
        delete(name: &str) -> ();
        exists(name: &str) -> bool;
        all_dbs() -> Vec<String>;
        all_dbs_with(options: &AllDbsOptions) -> Vec<String>;
        len() -> usize;
        is_empty() -> bool;
        active_tasks() -> Vec<ActiveTask>;
        uuids(count: usize) -> Vec<String>;
        uuid() -> String;
        events() -> Iter<DbUpdate>, Iter::new;
        db_updates(since: Option<Seq>, live: bool) -> Iter<DbUpdate>, Iter::new;
    }
}

impl From<&Database> for Arc<dyn Adapter> {
    fn from(database: &Database) -> Arc<dyn Adapter> {
        database.0.adapter().clone()
    }
}

impl From<&Database> for End {
    fn from(database: &Database) -> End {
        End::from(&database.0)
    }
}

impl From<crate::Couch> for Couch {
    fn from(couch: crate::Couch) -> Couch {
        Couch(couch)
    }
}

/// A handle to one database: [`Database`](crate::Database), blocking.
#[derive(Clone)]
pub struct Database(crate::Database);

impl Database {
    /// [`Database::connect`](crate::Database::connect).
    #[cfg(feature = "remote")]
    pub fn connect(url: &str) -> Result<Database> {
        crate::Database::connect(url).map(Database)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The same database, to be used from async code.
    pub fn as_async(&self) -> &crate::Database {
        &self.0
    }

    /// The place that holds it.
    pub fn couch(&self) -> Couch {
        Couch(self.0.couch().clone())
    }

    /// [`Database::all_docs`](crate::Database::all_docs).
    pub fn all_docs(&self) -> AllDocs {
        AllDocs(self.0.all_docs())
    }

    /// [`Database::view`](crate::Database::view).
    pub fn view(&self, name: &str) -> View {
        View(self.0.view(name))
    }

    /// [`Database::temp_view`](crate::Database::temp_view).
    pub fn temp_view(&self, view: TempView) -> View {
        View(self.0.temp_view(view))
    }

    /// [`Database::query`](crate::Database::query).
    pub fn query(&self, map: &str, reduce: Option<&str>) -> View {
        View(self.0.query(map, reduce))
    }

    /// [`Database::find`](crate::Database::find).
    pub fn find(&self, selector: Selector) -> Find {
        Find(self.0.find(selector))
    }

    /// [`Database::design_docs`](crate::Database::design_docs).
    pub fn design_docs(&self) -> AllDocs {
        AllDocs(self.0.design_docs())
    }

    /// [`Database::local_docs`](crate::Database::local_docs).
    pub fn local_docs(&self) -> AllDocs {
        AllDocs(self.0.local_docs())
    }

    /// [`Database::changes`](crate::Database::changes).
    pub fn changes(&self) -> Changes {
        Changes(self.0.changes())
    }

    /// [`Database::unsubscribe`](crate::Database::unsubscribe).
    pub fn unsubscribe(&self, filter: &Filter) -> usize {
        self.0.unsubscribe(filter)
    }

    /// [`Database::get_many`](crate::Database::get_many), blocking.
    pub fn get_many<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Option<Document>>> {
        block_on(self.0.get_many(ids))
    }

    /// [`Database::bulk_docs`](crate::Database::bulk_docs), blocking.
    pub fn bulk_docs<D: IntoDocument>(
        &self,
        docs: impl IntoIterator<Item = D>,
        new_edits: bool,
    ) -> Result<Vec<WriteResult>> {
        block_on(self.0.bulk_docs(docs, new_edits))
    }

    /// [`Database::replicate_to`](crate::Database::replicate_to).
    pub fn replicate_to(&self, target: impl Into<End>) -> Replication {
        Replication(self.0.replicate_to(target))
    }

    /// [`Database::replicate_from`](crate::Database::replicate_from).
    pub fn replicate_from(&self, source: impl Into<End>) -> Replication {
        Replication(self.0.replicate_from(source))
    }

    /// [`Database::sync`](crate::Database::sync).
    pub fn sync(&self, other: impl Into<End>) -> Sync {
        Sync(self.0.sync(other))
    }

    /// [`Database::validating`](crate::Database::validating).
    #[must_use]
    pub fn validating(&self, validation: Validation) -> Database {
        Database(self.0.validating(validation))
    }

    /// [`Database::list`](crate::Database::list), blocking, all of the response in memory.
    pub fn list(&self, path: &str, stub: &Stub) -> Result<Response> {
        block_on(async { self.0.list(path, stub).await?.collect().await })
    }

    /// [`Database::rewrite`](crate::Database::rewrite), blocking, all of the response in memory.
    pub fn rewrite(&self, path: &str, stub: &Stub) -> Result<Response> {
        block_on(async { self.0.rewrite(path, stub).await?.collect().await })
    }

    waiting! { Database:
        exists() -> bool;
        create() -> ();
        destroy() -> ();
        info() -> DatabaseInfo;
        len() -> u64;
        is_empty() -> bool;
        commit() -> ();
        compact() -> ();
        view_cleanup() -> ();
        compact_views(ddoc: &str) -> ();
        design_info(ddoc: &str) -> DesignInfo;
        indexes() -> Vec<IndexInfo>;
        create_index(index: &IndexDefinition) -> IndexCreated;
        delete_index(ddoc: &str, name: &str) -> ();
        show(path: &str, stub: &Stub) -> Response;
        run_update(path: &str, stub: &Stub) -> Response;
        rewrite_target(path: &str, stub: &Stub) -> Target;
        security() -> Security;
        set_security(security: &Security) -> ();
        auto_purge() -> AutoPurge;
        set_auto_purge(settings: &AutoPurge) -> ();
        time_seq() -> Vec<TimeBin>;
        reset_time_seq() -> ();
        purge_expired() -> u64;
        purge_deleted_before(time: SystemTime) -> u64;
        revs_limit() -> u64;
        set_revs_limit(limit: u64) -> ();

        get(id: &str) -> Document;
        get_opt(id: &str) -> Option<Document>;
        get_with(id: &str, options: &GetOptions) -> Document;
        contains(id: &str) -> bool;
        current_rev(id: &str) -> Option<Rev>;
        ids() -> Iter<String>, Iter::new;

        revision_ids(id: &str) -> Vec<Rev>;
        revisions(id: &str) -> Iter<Document>, Iter::new;
        open_revs(id: &str, revs: &OpenRevs) -> Vec<RevResult>;
        conflicts(id: &str) -> Vec<Rev>;
        revs_diff(revs: &RevsByDoc) -> BTreeMap<String, MissingRevs>;
        bulk_get(items: Vec<BulkGetItem>, options: &GetOptions)
            -> Iter<(String, Vec<RevResult>)>, Iter::new;
        purge<'a>(docs: impl IntoIterator<Item = impl Into<DocRef<'a>>>) -> Purged;
        purged_infos() -> Vec<(String, Vec<Rev>)>;

        put(doc: impl IntoDocument) -> Saved;
        put_at(id: &str, doc: impl IntoDocument) -> Saved;
        post(doc: impl IntoDocument) -> Saved;
        save(doc: &mut Document) -> Saved;
        save_deferred(doc: &mut Document) -> String;
        upsert(id: &str, doc: impl IntoDocument) -> Saved;
        update_with(id: &str, change: impl FnMut(&mut Document) -> Result<()>) -> Document;
        delete<'a>(doc: impl Into<DocRef<'a>>) -> Saved;
        delete_current(id: &str) -> Saved;
        copy<'a, 'b>(from: impl Into<DocRef<'a>>, to: impl Into<DocRef<'b>>) -> Rev;
        bulk(docs: &mut [Document]) -> Vec<WriteResult>;
        bulk_all_or_nothing(docs: &mut [Document]) -> Vec<Saved>;
        save_all(docs: &mut [Document]) -> ConflictResolution, ConflictResolution;

        put_attachment(
            doc: &mut Document,
            name: &str,
            body: impl Into<AttachmentBody>,
            content_type: Option<&str>
        ) -> Saved;
        attachment<'a>(doc: impl Into<DocRef<'a>>, name: &str) -> Attachment, Attachment::new;
        attachment_opt<'a>(doc: impl Into<DocRef<'a>>, name: &str)
            -> Option<Attachment>, |found| found.map(Attachment::new);
        attachment_with(id: &str, name: &str, options: &AttachmentOptions)
            -> Attachment, Attachment::new;
        delete_attachment(doc: &mut Document, name: &str) -> Saved;
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<crate::Database> for Database {
    fn from(database: crate::Database) -> Database {
        Database(database)
    }
}

/// Builder methods that are passed on.
macro_rules! passed_on {
    ($twin:ident: $($name:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("[`", stringify!($twin), "::", stringify!($name), "`](crate::",
            stringify!($twin), "::", stringify!($name), ").")]
        pub fn $name(self, $($arg: $type),*) -> $twin {
            $twin(self.0.$name($($arg),*))
        }
    )*};
}

/// A listing to be made: [`AllDocs`](crate::AllDocs), blocking.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch` or `stream`"]
pub struct AllDocs(crate::AllDocs);

impl AllDocs {
    /// [`AllDocs::range`](crate::AllDocs::range).
    pub fn range<S: AsRef<str>>(self, range: impl RangeBounds<S>) -> AllDocs {
        AllDocs(self.0.range(range))
    }

    /// [`AllDocs::keys`](crate::AllDocs::keys).
    pub fn keys<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> AllDocs {
        AllDocs(self.0.keys(ids))
    }

    passed_on! { AllDocs:
        key(id: impl AsRef<str>);
        include_docs();
        include_docs_with(options: GetOptions);
        limit(limit: u64);
        skip(skip: u64);
        descending();
        update_seq();
    }

    /// [`AllDocs::fetch`](crate::AllDocs::fetch), blocking.
    pub fn fetch(self) -> Result<Listing> {
        block_on(self.0.fetch())
    }

    /// [`AllDocs::stream`](crate::AllDocs::stream), blocking.
    pub fn stream(self) -> Result<Iter<DocRow>> {
        block_on(self.0.stream()).map(Iter::new)
    }
}

/// A query by selector to be made: [`Find`](crate::Find), blocking.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `explain`"]
pub struct Find(crate::Find);

impl Find {
    /// [`Find::fields`](crate::Find::fields).
    pub fn fields<S: Into<String>>(self, fields: impl IntoIterator<Item = S>) -> Find {
        Find(self.0.fields(fields))
    }

    passed_on! { Find:
        sort(field: impl Into<String>);
        sort_descending(field: impl Into<String>);
        limit(limit: u64);
        skip(skip: u64);
        bookmark(bookmark: impl Into<String>);
        use_index(ddoc: impl Into<String>);
        use_index_named(ddoc: impl Into<String>, name: impl Into<String>);
        conflicts();
        without_update();
        execution_stats();
    }

    /// [`Find::fetch`](crate::Find::fetch), blocking.
    pub fn fetch(self) -> Result<Found> {
        block_on(self.0.fetch())
    }

    /// [`Find::stream`](crate::Find::stream), blocking.
    pub fn stream(self) -> Iter<Document> {
        Iter::new(self.0.stream())
    }

    /// [`Find::explain`](crate::Find::explain), blocking.
    pub fn explain(self) -> Result<serde_json::Value> {
        block_on(self.0.explain())
    }
}

/// A query of a view to be made: [`View`](crate::View), blocking.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `pages`"]
pub struct View(crate::View);

impl View {
    /// [`View::keys`](crate::View::keys).
    pub fn keys<K: Serialize>(self, keys: impl IntoIterator<Item = K>) -> View {
        View(self.0.keys(keys))
    }

    /// [`View::range`](crate::View::range).
    pub fn range<K: Serialize>(self, range: impl RangeBounds<K>) -> View {
        View(self.0.range(range))
    }

    passed_on! { View:
        options(options: ViewOptions);
        key(key: impl Serialize);
        start_docid(id: impl Into<String>);
        end_docid(id: impl Into<String>);
        reduce(reduce: bool);
        group();
        group_level(level: u64);
        include_docs();
        include_docs_with(options: GetOptions);
        limit(limit: u64);
        skip(skip: u64);
        descending();
        update(update: Update);
        update_seq();
    }

    /// [`View::fetch`](crate::View::fetch), blocking.
    pub fn fetch(self) -> Result<ViewResult> {
        block_on(self.0.fetch())
    }

    /// [`View::stream`](crate::View::stream), blocking.
    pub fn stream(self) -> Result<Iter<ViewRow>> {
        block_on(self.0.stream()).map(Iter::new)
    }

    /// [`View::pages`](crate::View::pages), blocking.
    pub fn pages(self, rows: u64) -> Iter<ViewRow> {
        Iter::new(self.0.pages(rows))
    }
}

/// Changes to be read: [`Changes`](crate::Changes), blocking.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before `fetch`, `stream` or `live`"]
pub struct Changes(crate::Changes);

impl Changes {
    /// [`Changes::doc_ids`](crate::Changes::doc_ids).
    pub fn doc_ids<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> Changes {
        Changes(self.0.doc_ids(ids))
    }

    passed_on! { Changes:
        since(seq: impl Into<Seq>);
        since_now();
        limit(limit: u64);
        descending();
        all_leaves();
        filter(filter: Filter);
        design_docs();
        selector(selector: Selector);
        include_docs();
        include_docs_with(options: GetOptions);
        latency(latency: Duration);
    }

    /// [`Changes::subscribe`](crate::Changes::subscribe), blocking.
    pub fn subscribe(
        self,
        callback: impl FnMut(FeedEvent<'_>) + Send + 'static,
    ) -> Result<Subscription> {
        block_on(self.0.subscribe(callback))
    }

    /// [`Changes::fetch`](crate::Changes::fetch), blocking.
    pub fn fetch(self) -> Result<ChangesBatch> {
        block_on(self.0.fetch())
    }

    /// [`Changes::stream`](crate::Changes::stream), blocking.
    pub fn stream(self) -> Result<Iter<Change>> {
        block_on(self.0.stream()).map(Iter::new)
    }

    /// [`Changes::live`](crate::Changes::live), blocking: the iterator waits for changes.
    pub fn live(self) -> Result<Iter<Change>> {
        block_on(self.0.live()).map(Iter::new)
    }

    /// [`Changes::batches`](crate::Changes::batches), blocking.
    pub fn batches(self) -> Result<Iter<ChangesBatch>> {
        block_on(self.0.batches()).map(Iter::new)
    }

    /// [`Changes::live_batches`](crate::Changes::live_batches), blocking: the iterator waits for
    /// changes.
    pub fn live_batches(self) -> Result<Iter<ChangesBatch>> {
        block_on(self.0.live_batches()).map(Iter::new)
    }
}

/// A replication to be set up: [`Replication`](crate::Replication), blocking.
///
/// ```
/// use settee::blocking::Couch;
///
/// let couch = Couch::memory()?;
/// let (phone, desk) = (couch.create("phone")?, couch.create("desk")?);
/// phone.put(r#"{"_id": "milk"}"#)?;
/// let result = phone.replicate_to(&desk).run()?;
/// assert_eq!(result.counters.docs_written, 1);
///
/// let live = desk.replicate_to(&phone).live().start()?;
/// let mut changes = phone.changes().since_now().live()?;
/// desk.put(r#"{"_id": "bread"}"#)?;
/// assert_eq!(changes.next().unwrap()?.id, "bread");
/// live.cancel();
/// assert_eq!(live.wait()?.status.name(), "cancelled");
/// # Ok::<(), settee::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run` or `start`"]
pub struct Replication(crate::Replication);

impl Replication {
    /// [`Replication::doc_ids`](crate::Replication::doc_ids).
    pub fn doc_ids<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> Replication {
        Replication(self.0.doc_ids(ids))
    }

    passed_on! { Replication:
        options(options: ReplicateOptions);
        live();
        retry(retry: bool);
        since(seq: impl Into<Seq>);
        selector(selector: Selector);
        filter(filter: Filter);
        winning_revs_only();
        create_target();
        batch_size(changes: usize);
        batches_limit(batches: usize);
        checkpoint_interval(interval: Duration);
        without_checkpoints();
        timeout(timeout: Duration);
    }

    /// [`Replication::run`](crate::Replication::run), blocking.
    pub fn run(self) -> Result<ReplicationResult> {
        block_on(self.0.run())
    }

    /// [`Replication::start`](crate::Replication::start).
    pub fn start(self) -> Result<ReplicationHandle> {
        self.0.start().map(ReplicationHandle)
    }
}

/// A replication that runs elsewhere: [`ReplicationHandle`](crate::replicate::ReplicationHandle),
/// blocking.
#[derive(Debug, Clone)]
pub struct ReplicationHandle(crate::replicate::ReplicationHandle);

impl ReplicationHandle {
    /// [`cancel`](crate::replicate::ReplicationHandle::cancel).
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// [`pause`](crate::replicate::ReplicationHandle::pause).
    pub fn pause(&self) {
        self.0.pause();
    }

    /// [`resume`](crate::replicate::ReplicationHandle::resume).
    pub fn resume(&self) {
        self.0.resume();
    }

    /// [`progress`](crate::replicate::ReplicationHandle::progress).
    pub fn progress(&self) -> Progress {
        self.0.progress()
    }

    /// [`denied`](crate::replicate::ReplicationHandle::denied).
    pub fn denied(&self) -> Vec<Denied> {
        self.0.denied()
    }

    /// [`result`](crate::replicate::ReplicationHandle::result).
    pub fn result(&self) -> Option<Result<ReplicationResult>> {
        self.0.result()
    }

    /// [`events`](crate::replicate::ReplicationHandle::events), blocking: the iterator waits for
    /// what happens.
    pub fn events(&self) -> impl Iterator<Item = ReplicationEvent> + use<> {
        block_on_stream(self.0.events())
    }

    /// [`wait`](crate::replicate::ReplicationHandle::wait), blocking.
    pub fn wait(&self) -> Result<ReplicationResult> {
        block_on(self.0.wait())
    }
}

/// Replication in both directions, to be set up: [`Sync`](crate::Sync), blocking.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run` or `start`"]
pub struct Sync(crate::Sync);

impl Sync {
    /// [`Sync::both`](crate::Sync::both).
    pub fn both(self, change: impl Fn(Replication) -> Replication) -> Sync {
        Sync(self.0.both(|replication| change(Replication(replication)).0))
    }

    passed_on! { Sync:
        options(options: ReplicateOptions);
        live();
    }

    /// [`Sync::run`](crate::Sync::run), blocking.
    pub fn run(self) -> Result<SyncResult> {
        block_on(self.0.run())
    }

    /// [`Sync::start`](crate::Sync::start). Both directions have a handle of their own.
    pub fn start(self) -> Result<(ReplicationHandle, ReplicationHandle)> {
        let SyncHandle { push, pull } = self.0.start()?;
        Ok((ReplicationHandle(push), ReplicationHandle(pull)))
    }
}

/// Documents that could not be written: [`ConflictResolution`](crate::ConflictResolution),
/// blocking.
#[derive(Debug)]
#[must_use = "documents in conflict have not been written"]
pub struct ConflictResolution(crate::ConflictResolution);

impl ConflictResolution {
    /// The documents that are not written yet.
    pub fn pending(&self) -> &[Pending] {
        self.0.pending()
    }

    /// The documents that are written, with their new revisions.
    pub fn resolved(&self) -> &[Document] {
        self.0.resolved()
    }

    /// [`ConflictResolution::resolve`](crate::ConflictResolution::resolve), blocking.
    pub fn resolve(
        &mut self,
        merge: impl FnMut(Document, Option<Document>) -> Option<Document>,
    ) -> Result<&mut ConflictResolution> {
        block_on(self.0.resolve(merge))?;
        Ok(self)
    }

    /// [`ConflictResolution::overwrite`](crate::ConflictResolution::overwrite), blocking.
    pub fn overwrite(&mut self) -> Result<&mut ConflictResolution> {
        block_on(self.0.overwrite())?;
        Ok(self)
    }
}

impl fmt::Display for ConflictResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stream as an iterator, which waits for each item.
pub struct Iter<T>(BlockingStream<BoxStream<'static, Result<T>>>);

impl<T> Iter<T> {
    fn new(stream: BoxStream<'static, Result<T>>) -> Iter<T> {
        Iter(block_on_stream(stream))
    }
}

impl<T> Iterator for Iter<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.0.next()
    }
}

impl<T> fmt::Debug for Iter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

/// An attachment that is being read: [`AttachmentReader`], blocking. It is a [`Read`].
///
/// ```
/// # let db = settee::blocking::Couch::memory()?.create("db")?;
/// use std::io::Read;
///
/// let mut doc = settee::Document::with_id("a");
/// db.put_attachment(&mut doc, "foo.txt", "Foo bar", None)?;
/// let mut text = String::new();
/// db.attachment("a", "foo.txt")?.read_to_string(&mut text)?;
/// assert_eq!(text, "Foo bar");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Attachment {
    /// Its media type.
    pub content_type: String,
    /// The MD5 of its stored bytes.
    pub digest: Digest,
    /// The length of its content, in bytes.
    pub length: u64,
    /// Which bytes of how many come, if a range was asked for: first and last.
    pub range: Option<(u64, u64)>,
    pieces: BlockingStream<ByteStream>,
    piece: Bytes,
}

impl Attachment {
    fn new(reader: AttachmentReader) -> Attachment {
        let AttachmentReader { content_type, digest, length, range, body, .. } = reader;
        let pieces = block_on_stream(body);
        Attachment { content_type, digest, length, range, pieces, piece: Bytes::new() }
    }

    /// All of its bytes, in memory.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn bytes(mut self) -> Result<Bytes> {
        let mut all = Vec::from(self.piece);
        for piece in &mut self.pieces {
            all.extend_from_slice(&piece?);
        }
        Ok(all.into())
    }
}

impl BufRead for Attachment {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Attachment {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("content_type", &self.content_type)
            .field("digest", &self.digest)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
