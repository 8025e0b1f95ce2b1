//! [`Database`]: a handle to one database.

use crate::adapter::{Adapter, AttachmentReader, ByteStream, Part, Parts};
use crate::all_docs::AllDocs;
use crate::changes::{Changes, Feeds};
use crate::conflict::ConflictResolution;
use crate::couch::Couch;
use crate::find::Find;
use crate::input::{AttachmentBody, DocRef, IntoDocument, guess_content_type};
use crate::replicate::{End, Replication, Sync};
use crate::view::View;
use bytes::{Bytes, BytesMut};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use settee_core::find::{IndexCreated, IndexDefinition, IndexInfo};
use settee_core::id::design_name;
use settee_core::options::{
    AttachmentHead, AttachmentOptions, BulkGetItem, DocSet, Durability, Filter, GetOptions,
    OpenRevs, WriteOptions,
};
use settee_core::selector::Selector;
use settee_core::wire::{
    DatabaseInfo, DesignInfo, MissingRevs, Purged, RevResult, RevsByDoc, Saved, Security, TempView,
    WriteResult,
};
use settee_core::{
    Attachment, AttachmentData, Document, Encoding, Error, ErrorKind, Result, Rev, Revisions,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A handle to one database. Cheap to clone; from [`Couch::db`] and its relatives.
///
/// # Writing
///
/// A write that changes a document must be based on the document's current revision, or it fails
/// with a conflict and changes nothing. [`save`](Database::save) does what most programs want: read,
/// change, save. Where writers compete, [`update_with`](Database::update_with) tries again until it
/// succeeds, and [`save_all`](Database::save_all) lets you decide about each conflict.
///
/// ```
/// # futures_executor::block_on(async {
/// use settee::{Couch, Document};
///
/// let db = Couch::memory()?.create("people").await?;
///
/// let mut ada: Document = r#"{"_id": "ada", "born": 1815}"#.parse()?;
/// db.save(&mut ada).await?;
/// let mut copy = db.get("ada").await?;
/// assert_eq!(copy.rev, ada.rev);
///
/// copy.set("died", 1852)?;
/// db.save(&mut copy).await?;
/// assert!(db.save(&mut ada).await.unwrap_err().is_conflict());
///
/// let ada = db.update_with("ada", |doc| doc.set("first_name", "Augusta")).await?;
/// assert_eq!(ada.rev.unwrap().pos, 3);
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Database {
    couch: Couch,
    adapter: Arc<dyn Adapter>,
    feeds: Feeds,
}

/// The handle, and the database as a whole.
impl Database {
    pub(crate) fn new(couch: Couch, adapter: Arc<dyn Adapter>) -> Database {
        Database { couch, adapter, feeds: Feeds::default() }
    }

    /// A database of a server by its URL, or by its name on the default server. Nothing is asked
    /// yet.
    ///
    /// # Errors
    ///
    /// `BadRequest` if the URL makes no sense.
    ///
    /// ```no_run
    /// # async fn example() -> settee::Result<()> {
    /// use settee::Database;
    ///
    /// let people = Database::connect("https://jan:apple@example.com/people")?;
    /// println!("{} people", people.len().await?);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "remote")]
    pub fn connect(url: &str) -> Result<Database> {
        let (remote, name) =
            crate::remote::Remote::connect_database(url, &crate::remote::RemoteOptions::new())?;
        Couch::from_host(Arc::new(remote)).db(&name)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.adapter.name()
    }

    /// The place that holds it.
    pub fn couch(&self) -> &Couch {
        &self.couch
    }

    /// The implementation underneath, for what this handle has no method for.
    pub fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// Whether the database exists: `HEAD /{db}`.
    pub async fn exists(&self) -> Result<bool> {
        self.couch.exists(self.name()).await
    }

    /// Creates the database: `PUT /{db}`.
    ///
    /// # Errors
    ///
    /// `FileExists`.
    pub async fn create(&self) -> Result<()> {
        self.couch.host().create(self.name()).await
    }

    /// Deletes the database and everything in it: `DELETE /{db}`.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn destroy(&self) -> Result<()> {
        self.couch.delete(self.name()).await
    }

    /// What there is to know about the database: `GET /{db}`.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such database, as everywhere below.
    pub async fn info(&self) -> Result<DatabaseInfo> {
        self.adapter.info().await
    }

    /// How many documents there are, design documents included and deleted ones not.
    pub async fn len(&self) -> Result<u64> {
        Ok(self.info().await?.doc_count)
    }

    /// Whether there is no document that is not deleted.
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Makes durable what was written with [`Durability::Deferred`].
    pub async fn commit(&self) -> Result<()> {
        self.adapter.ensure_full_commit().await
    }

    /// Starts dropping old revisions and giving back space: `POST /{db}/_compact`.
    /// [`DatabaseInfo::compact_running`] tells when it is done.
    pub async fn compact(&self) -> Result<()> {
        self.adapter.compact().await
    }

    /// Queries a view by its name, `ddoc/view`; see [`View`] for what other names there are.
    pub fn view(&self, name: &str) -> View {
        View::new(Arc::clone(&self.adapter), name)
    }

    /// Queries a view that belongs to no design document. Its index is kept for a while, in case it
    /// is asked for again; but whoever queries a view often should store it.
    pub fn temp_view(&self, view: TempView) -> View {
        View::temporary(Arc::clone(&self.adapter), view)
    }

    /// Queries a view of functions in JavaScript that belongs to no design document; the reduce
    /// function may be the name of a built-in one.
    pub fn query(&self, map: &str, reduce: Option<&str>) -> View {
        self.temp_view(TempView {
            language: "javascript".to_owned(),
            map: map.to_owned(),
            reduce: reduce.map(str::to_owned),
            options: serde_json::Map::new(),
        })
    }

    /// What there is to know of a design document's indexes: `GET /{db}/_design/{ddoc}/_info`.
    pub async fn design_info(&self, ddoc: &str) -> Result<DesignInfo> {
        self.adapter.design_info(design_name(ddoc)).await
    }

    /// Starts to give back the space of a design document's indexes: `POST /{db}/_compact/{ddoc}`.
    /// [`ViewIndexInfo::compact_running`](crate::wire::ViewIndexInfo::compact_running) tells when it
    /// is done.
    pub async fn compact_views(&self, ddoc: &str) -> Result<()> {
        self.adapter.compact_views(design_name(ddoc)).await
    }

    /// Drops indexes that no design document asks for any more: `POST /{db}/_view_cleanup`.
    pub async fn view_cleanup(&self) -> Result<()> {
        self.adapter.view_cleanup().await
    }

    /// Who may do what: `GET /{db}/_security`.
    pub async fn security(&self) -> Result<Security> {
        self.adapter.security().await
    }

    /// Sets who may do what: `PUT /{db}/_security`.
    pub async fn set_security(&self, security: &Security) -> Result<()> {
        self.adapter.set_security(security).await
    }

    /// How many revisions of each document are remembered: `GET /{db}/_revs_limit`.
    pub async fn revs_limit(&self) -> Result<u64> {
        self.adapter.revs_limit().await
    }

    /// Sets how many revisions of each document are remembered: `PUT /{db}/_revs_limit`. It applies
    /// to each document from its next write on.
    ///
    /// # Errors
    ///
    /// `BadRequest` if it is zero.
    pub async fn set_revs_limit(&self, limit: u64) -> Result<()> {
        self.adapter.set_revs_limit(limit).await
    }
}

/// Reading documents.
impl Database {
    /// Reads a document: `GET /{db}/{id}`. Design documents and `_local/…` are read like others.
    ///
    /// # Errors
    ///
    /// `NotFound`, with reason `missing` or `deleted`.
    pub async fn get(&self, id: &str) -> Result<Document> {
        self.get_with(id, &GetOptions::default()).await
    }

    /// Reads a document, if there is one.
    pub async fn get_opt(&self, id: &str) -> Result<Option<Document>> {
        found(self.get(id).await)
    }

    /// Reads a document, a certain revision of it, or more than its members.
    ///
    /// # Errors
    ///
    /// As [`get`](Database::get).
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::{Couch, options::GetOptions};
    ///
    /// let db = Couch::memory()?.create("db").await?;
    /// let first = db.put(r#"{"_id": "a", "n": 1}"#).await?.rev;
    /// db.upsert("a", r#"{"n": 2}"#).await?;
    ///
    /// let old = GetOptions { rev: Some(first.clone()), ..Default::default() };
    /// assert_eq!(db.get_with("a", &old).await?.rev, Some(first));
    ///
    /// let revs = GetOptions { revs: true, ..Default::default() };
    /// let revisions = db.get_with("a", &revs).await?.revisions.unwrap();
    /// assert_eq!((revisions.start, revisions.ids.len()), (2, 2));
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub async fn get_with(&self, id: &str, options: &GetOptions) -> Result<Document> {
        self.adapter.get(id, options).await
    }

    /// Reads several documents at once, in the order of their ids, with `None` for those that are
    /// missing or deleted.
    pub async fn get_many<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Option<Document>>> {
        let rows = self.all_docs().keys(ids).include_docs().fetch().await?.rows;
        Ok(rows.into_iter().map(|row| row.doc.map(|doc| *doc)).collect())
    }

    /// Whether there is such a document.
    pub async fn contains(&self, id: &str) -> Result<bool> {
        Ok(self.current_rev(id).await?.is_some())
    }

    /// A document's current revision, if there is such a document.
    pub async fn current_rev(&self, id: &str) -> Result<Option<Rev>> {
        if id.starts_with("_local/") {
            return Ok(self.get_opt(id).await?.and_then(|doc| doc.rev));
        }
        // A row costs the same however large the document is.
        let rows = self.all_docs().keys([id]).fetch().await?.rows;
        Ok(rows.into_iter().find(|row| !row.deleted).and_then(|row| row.rev))
    }

    /// The ids of all documents, in the order of their bytes.
    pub async fn ids(&self) -> Result<BoxStream<'static, Result<String>>> {
        Ok(self.all_docs().stream().await?.map_ok(|row| row.id).boxed())
    }

    /// Lists documents: `GET /{db}/_all_docs`.
    pub fn all_docs(&self) -> AllDocs {
        AllDocs::new(Arc::clone(&self.adapter), DocSet::All)
    }

    /// Lists design documents: `GET /{db}/_design_docs`.
    pub fn design_docs(&self) -> AllDocs {
        AllDocs::new(Arc::clone(&self.adapter), DocSet::Design)
    }

    /// Lists local documents: `GET /{db}/_local_docs`.
    pub fn local_docs(&self) -> AllDocs {
        AllDocs::new(Arc::clone(&self.adapter), DocSet::Local)
    }

    /// Finds the documents that match a selector: `POST /{db}/_find`, row CP-47.
    pub fn find(&self, selector: Selector) -> Find {
        Find::new(Arc::clone(&self.adapter), selector)
    }

    /// The indexes that [`find`](Database::find) may use: `GET /{db}/_index`, row CP-49. The first is
    /// that of all documents by their id.
    ///
    /// # Errors
    ///
    /// `NotImplemented` on embedded databases.
    pub async fn indexes(&self) -> Result<Vec<IndexInfo>> {
        self.adapter.indexes().await
    }

    /// Makes an index for [`find`](Database::find), unless it is there already: `POST /{db}/_index`,
    /// row CP-49.
    ///
    /// # Errors
    ///
    /// `NotImplemented` on embedded databases.
    pub async fn create_index(&self, index: &IndexDefinition) -> Result<IndexCreated> {
        self.adapter.create_index(index).await
    }

    /// Removes an index by its design document, with or without `_design/`, and its name: `DELETE
    /// /{db}/_index/{ddoc}/json/{name}`, row CP-49.
    ///
    /// # Errors
    ///
    /// `NotFound`; `NotImplemented` on embedded databases.
    pub async fn delete_index(&self, ddoc: &str, name: &str) -> Result<()> {
        self.adapter.delete_index(design_name(ddoc), name).await
    }

    /// Reads or follows changes: `GET /{db}/_changes`.
    pub fn changes(&self) -> Changes {
        Changes::new(Arc::clone(&self.adapter), self.feeds.clone())
    }

    /// Ends the feeds with a filter that were [subscribed to](Changes::subscribe) on this handle and
    /// its clones, whoever listens to them; returns how many callbacks that were.
    pub fn unsubscribe(&self, filter: &Filter) -> usize {
        self.feeds.unsubscribe(filter)
    }
}

/// Revisions.
impl Database {
    /// The revisions of a document, newest first, as far back as they are remembered.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn revision_ids(&self, id: &str) -> Result<Vec<Rev>> {
        let options = GetOptions { revs: true, ..Default::default() };
        let Some(revisions) = self.get_with(id, &options).await?.revisions else {
            return Ok(Vec::new());
        };
        let positions = (1..=revisions.start).rev();
        Ok(positions.zip(revisions.ids).map(|(pos, id)| Rev { pos, id }).collect())
    }

    /// The document as each revision left it, newest first, read one by one as far back as their
    /// content is kept. None for an unknown document.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// use settee::prelude::*;
    ///
    /// for n in 1..=3 {
    ///     db.upsert("a", serde_json::json!({"n": n})).await?;
    /// }
    /// let history: Vec<_> = db.revisions("a").await?.try_collect().await?;
    /// let generations: Vec<_> = history.iter().map(|doc| doc.rev.as_ref().unwrap().pos).collect();
    /// assert_eq!(generations, [3, 2, 1]);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub async fn revisions(&self, id: &str) -> Result<BoxStream<'static, Result<Document>>> {
        let revs = found(self.revision_ids(id).await)?.unwrap_or_default();
        let state = (self.clone(), id.to_owned(), revs.into_iter());
        Ok(stream::try_unfold(state, |(db, id, mut revs)| async move {
            let Some(rev) = revs.next() else { return Ok(None) };
            let options = GetOptions { rev: Some(rev), ..Default::default() };
            let doc = found(db.get_with(&id, &options).await)?;
            Ok(doc.map(|doc| (doc, (db, id, revs))))
        })
        .boxed())
    }

    /// The leaves of a document, all of them or certain ones: `GET /{db}/{id}?open_revs=…`.
    ///
    /// # Errors
    ///
    /// `NotFound` for all leaves of an unknown document.
    pub async fn open_revs(&self, id: &str, revs: &OpenRevs) -> Result<Vec<RevResult>> {
        self.adapter.open_revs(id, revs, &GetOptions::default()).await
    }

    /// The revisions that lost against the winner and are not deleted.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn conflicts(&self, id: &str) -> Result<Vec<Rev>> {
        let options = GetOptions { conflicts: true, ..Default::default() };
        Ok(self.get_with(id, &options).await?.meta.conflicts)
    }

    /// Of some revisions, those that are not here: `POST /{db}/_revs_diff`.
    pub async fn revs_diff(&self, revs: &RevsByDoc) -> Result<BTreeMap<String, MissingRevs>> {
        self.adapter.revs_diff(revs).await
    }

    /// Reads many revisions of many documents: `POST /{db}/_bulk_get`.
    pub async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> Result<BoxStream<'static, Result<(String, Vec<RevResult>)>>> {
        self.adapter.bulk_get(items, options).await
    }

    /// Forgets revisions as if they had never been: `POST /{db}/_purge`. Nothing of it replicates.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// db.put(r#"{"_id": "secret"}"#).await?;
    /// let doc = db.get("secret").await?;
    /// let purged = db.purge([&doc]).await?.purged;
    /// assert_eq!(purged["secret"], [doc.rev.unwrap()]);
    /// assert_eq!(db.get("secret").await.unwrap_err().reason(), "missing");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` if a document comes without revision.
    pub async fn purge<'a>(
        &self,
        docs: impl IntoIterator<Item = impl Into<DocRef<'a>>>,
    ) -> Result<Purged> {
        let mut revs = RevsByDoc::new();
        for doc in docs {
            let DocRef { id, rev } = doc.into();
            revs.entry(id.to_owned()).or_default().push(needed(rev)?.clone());
        }
        self.adapter.purge(&revs).await
    }

    /// What has been purged: `GET /{db}/_purged_infos`.
    pub async fn purged_infos(&self) -> Result<Vec<(String, Vec<Rev>)>> {
        self.adapter.purged_infos().await
    }
}

/// Writing documents.
impl Database {
    /// Writes a document under its `_id`, based on its `_rev`: `PUT /{db}/{id}`.
    ///
    /// # Errors
    ///
    /// `BadRequest` without `_id`, `Conflict` if `_rev` is not the current revision (or there is one
    /// and `_rev` is missing), `MissingStub`, `DocValidation`, and the limits' kinds.
    pub async fn put(&self, doc: impl IntoDocument) -> Result<Saved> {
        let doc = doc.into_document()?;
        match doc.id {
            None => Err(Error::bad_request("_id is required")),
            Some(_) => self.write(doc, Durability::Flush).await,
        }
    }

    /// Writes a document under an id, whatever its own `_id`.
    ///
    /// # Errors
    ///
    /// As [`put`](Database::put).
    pub async fn put_at(&self, id: &str, doc: impl IntoDocument) -> Result<Saved> {
        let mut doc = doc.into_document()?;
        doc.id = Some(id.to_owned());
        self.write(doc, Durability::Flush).await
    }

    /// Writes a document, which gets a fresh id if it has none: `POST /{db}`.
    ///
    /// # Errors
    ///
    /// As [`put`](Database::put).
    pub async fn post(&self, doc: impl IntoDocument) -> Result<Saved> {
        let mut doc = doc.into_document()?;
        self.identify(&mut doc).await?;
        self.write(doc, Durability::Flush).await
    }

    /// Writes a document, and writes its new revision back into it, and its id if it had none. So it
    /// can be changed and saved again.
    ///
    /// # Errors
    ///
    /// As [`put`](Database::put).
    pub async fn save(&self, doc: &mut Document) -> Result<Saved> {
        self.identify(doc).await?;
        let saved = self.write(doc.clone(), Durability::Flush).await?;
        doc.rev = Some(saved.rev.clone());
        Ok(saved)
    }

    /// Writes a document that may become durable later, `batch=ok`: with the next write that is
    /// durable, with [`commit`](Database::commit), or within about a second. Returns its id. The
    /// document keeps its old revision, and cannot be saved again without being read.
    ///
    /// # Errors
    ///
    /// As [`put`](Database::put), but a server may answer before it finds out.
    pub async fn save_deferred(&self, doc: &mut Document) -> Result<String> {
        self.identify(doc).await?;
        Ok(self.write(doc.clone(), Durability::Deferred).await?.id)
    }

    /// Writes a document under an id in place of whatever is there, unless the document has a
    /// `_rev`: then that must be the current one.
    ///
    /// # Errors
    ///
    /// As [`put`](Database::put).
    pub async fn upsert(&self, id: &str, doc: impl IntoDocument) -> Result<Saved> {
        let mut doc = doc.into_document()?;
        doc.id = Some(id.to_owned());
        if doc.rev.is_some() {
            return self.write(doc, Durability::Flush).await;
        }
        loop {
            doc.rev = self.current_rev(id).await?;
            match self.write(doc.clone(), Durability::Flush).await {
                Err(error) if error.is_conflict() => {}
                done => return done,
            }
        }
    }

    /// Reads a document, lets `change` change it, and writes it; again and again until nobody else
    /// has changed it in between. Returns it as it was written.
    ///
    /// # Errors
    ///
    /// `NotFound`, those of `change`, and as [`put`](Database::put).
    pub async fn update_with(
        &self,
        id: &str,
        mut change: impl FnMut(&mut Document) -> Result<()>,
    ) -> Result<Document> {
        loop {
            let mut doc = self.get(id).await?;
            change(&mut doc)?;
            doc.id = Some(id.to_owned());
            match self.save(&mut doc).await {
                Ok(_) => return Ok(doc),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes a document, which must be current: `DELETE /{db}/{id}?rev=…`. Takes a document, or an
    /// id and a revision.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// let saved = db.put(r#"{"_id": "a"}"#).await?;
    /// db.delete(("a", &saved.rev)).await?;
    /// assert_eq!(db.get("a").await.unwrap_err().reason(), "deleted");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `Conflict` if the revision is not current, `NotFound`, `BadRequest` without a revision.
    pub async fn delete<'a>(&self, doc: impl Into<DocRef<'a>>) -> Result<Saved> {
        let DocRef { id, rev } = doc.into();
        let rev = Some(needed(rev)?.clone());
        let tombstone =
            Document { id: Some(id.to_owned()), rev, deleted: true, ..Document::default() };
        match self.write(tombstone, Durability::Flush).await {
            // A document that is not there is told from one that somebody has changed.
            Err(error) if error.is_conflict() => Err(self.get(id).await.err().unwrap_or(error)),
            done => done,
        }
    }

    /// Deletes a document whatever its revision.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn delete_current(&self, id: &str) -> Result<Saved> {
        loop {
            let rev = self.current_rev(id).await?.ok_or_else(Error::missing)?;
            match self.delete((id, &rev)).await {
                Err(error) if error.is_conflict() => {}
                done => return done,
            }
        }
    }

    /// Copies a document with its attachments: `COPY /{db}/{id}`. The copy must be new, or `to` must
    /// give the revision that it replaces. Returns the copy's revision.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// db.put(r#"{"_id": "a", "n": 1}"#).await?;
    /// let rev = db.copy("a", "b").await?;
    /// assert!(db.copy("a", "b").await.unwrap_err().is_conflict());
    /// assert_eq!(db.copy("a", ("b", &rev)).await?.pos, 2);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound`, `Conflict`.
    pub async fn copy<'a, 'b>(
        &self,
        from: impl Into<DocRef<'a>>,
        to: impl Into<DocRef<'b>>,
    ) -> Result<Rev> {
        let (from, to) = (from.into(), to.into());
        let as_stored = GetOptions { att_encoding_info: true, ..Default::default() };
        let source = self.get_with(from.id, &as_stored).await?;
        let mut doc = Document {
            id: Some(to.id.to_owned()),
            rev: to.rev.cloned(),
            attachments: source.attachments,
            body: source.body,
            ..Document::default()
        };
        let mut reading = Vec::new();
        for attachment in &mut doc.attachments {
            attachment.data = AttachmentData::Follows;
            attachment.revpos = None;
            let options = AttachmentOptions {
                rev: source.rev.clone(),
                accept_gzip: attachment.encoding == Encoding::Gzip,
                ..Default::default()
            };
            reading.push((attachment.name.clone(), options));
        }
        let (adapter, id) = (Arc::clone(&self.adapter), from.id.to_owned());
        let parts = stream::iter(reading).then(move |(name, options)| {
            let (adapter, id) = (Arc::clone(&adapter), id.clone());
            async move {
                let body = adapter.attachment(&id, &name, &options).await?.body;
                Ok(Part { name: Some(name), body })
            }
        });
        let parts: Option<Parts> = (!doc.attachments.is_empty()).then(|| parts.boxed());
        Ok(self.adapter.put(doc, parts, &WriteOptions::default()).await?.rev)
    }

    /// Writes many documents at once, each for itself: `POST /{db}/_bulk_docs`. Documents that are
    /// written get their new revision, and an id if they had none. Those with
    /// [`deleted`](Document::deleted) set are deleted.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// use settee::IntoDocument;
    ///
    /// db.put(r#"{"_id": "taken"}"#).await?;
    /// let mut docs = [r#"{"_id": "taken"}"#.into_document()?, r#"{"n": 1}"#.into_document()?];
    /// let results = db.bulk(&mut docs).await?;
    /// assert!(results[0].as_ref().unwrap_err().error.is_conflict());
    /// assert_eq!(docs[1].id, Some(results[1].as_ref().unwrap().id.clone()));
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Only if nothing could be written. What went wrong with one document is in its result.
    pub async fn bulk(&self, docs: &mut [Document]) -> Result<Vec<WriteResult>> {
        self.identify_all(docs).await?;
        let results = self.adapter.bulk_docs(docs.to_vec(), &WriteOptions::default()).await?;
        for (doc, result) in docs.iter_mut().zip(&results) {
            if let Ok(saved) = result {
                doc.rev = Some(saved.rev.clone());
            }
        }
        Ok(results)
    }

    /// Writes many documents at once, as edits (`new_edits`), or as the revisions that they are
    /// elsewhere, which never conflicts but may create conflicting revisions.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// db.bulk_docs([r#"{"_id": "a", "_rev": "1-x"}"#, r#"{"_id": "a", "_rev": "1-y"}"#], false).await?;
    /// assert_eq!(db.get("a").await?.rev.unwrap().to_string(), "1-y");
    /// assert_eq!(db.conflicts("a").await?[0].to_string(), "1-x");
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`bulk`](Database::bulk), and if one of the documents is none.
    pub async fn bulk_docs<D: IntoDocument>(
        &self,
        docs: impl IntoIterator<Item = D>,
        new_edits: bool,
    ) -> Result<Vec<WriteResult>> {
        let docs = docs.into_iter().map(IntoDocument::into_document);
        let mut docs = docs.collect::<Result<Vec<_>>>()?;
        if new_edits {
            self.identify_all(&mut docs).await?;
        }
        let options = WriteOptions { new_edits, ..Default::default() };
        self.adapter.bulk_docs(docs, &options).await
    }

    /// Writes many documents at once like [`bulk`](Database::bulk), and keeps those that could not be
    /// written for a decision.
    ///
    /// # Errors
    ///
    /// As [`bulk`](Database::bulk).
    pub async fn save_all(&self, docs: &mut [Document]) -> Result<ConflictResolution> {
        let results = self.bulk(docs).await?;
        Ok(ConflictResolution::new(self.clone(), docs, results))
    }

    /// Writes many documents at once, each as a new revision of the one it is based on, whether that
    /// is current or not: what would be a conflict becomes a conflicting revision. CouchDB had this
    /// as `all_or_nothing` up to 1.x; resolving the conflicts is up to you.
    ///
    /// # Errors
    ///
    /// `NotImplemented` for documents with attachments, and if nothing could be written.
    pub async fn bulk_all_or_nothing(&self, docs: &mut [Document]) -> Result<Vec<Saved>> {
        self.identify_all(docs).await?;
        let mut revisions = docs.to_vec();
        for doc in &mut revisions {
            if !doc.attachments.is_empty() {
                let reason = "attachments cannot be written all or nothing";
                return Err(Error::new(ErrorKind::NotImplemented, reason));
            }
            let hash = doc.revision_hash(doc.deleted, doc.rev.as_ref(), [].into_iter())?;
            let rev = Rev::new(doc.rev.as_ref().map_or(1, |parent| parent.pos + 1), hash);
            let ids = [Some(rev.id.clone()), doc.rev.take().map(|parent| parent.id)];
            let ids = ids.into_iter().flatten().collect();
            doc.revisions = Some(Revisions { start: rev.pos, ids });
            doc.rev = Some(rev);
        }
        let results = self.bulk_docs(revisions, false).await?;
        let saved = results.into_iter().map(|result| result.map_err(|failed| failed.error));
        let saved = saved.collect::<Result<Vec<_>>>()?;
        for (doc, saved) in docs.iter_mut().zip(&saved) {
            doc.rev = Some(saved.rev.clone());
        }
        Ok(saved)
    }

    async fn write(&self, doc: Document, durability: Durability) -> Result<Saved> {
        let options = WriteOptions { durability, ..Default::default() };
        self.adapter.put(doc, None, &options).await
    }

    async fn identify(&self, doc: &mut Document) -> Result<()> {
        if doc.id.is_none() {
            doc.id = Some(self.couch.fresh_id().await?);
        }
        Ok(())
    }

    async fn identify_all(&self, docs: &mut [Document]) -> Result<()> {
        let nameless = docs.iter().filter(|doc| doc.id.is_none()).count();
        let ids = self.couch.fresh_ids(nameless).await?;
        for (doc, id) in docs.iter_mut().filter(|doc| doc.id.is_none()).zip(ids) {
            doc.id = Some(id);
        }
        Ok(())
    }
}

/// Attachments.
impl Database {
    /// Adds an attachment to a document, or replaces it: `PUT /{db}/{id}/{name}`.
    ///
    /// The document must be current; its other changes are not saved. It gets its new revision, and
    /// a stub for the attachment. A document that does not exist is created, with nothing else in it.
    ///
    /// The content type is guessed from the ending of the name if it is not given.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::{Couch, Document};
    ///
    /// let db = Couch::memory()?.create("db").await?;
    /// let mut doc = Document::with_id("letter");
    /// db.save(&mut doc).await?;
    /// db.put_attachment(&mut doc, "page.html", "<h1>Dear</h1>", None).await?;
    ///
    /// let page = db.attachment(&doc, "page.html").await?;
    /// assert_eq!(page.content_type, "text/html");
    /// assert_eq!(page.bytes().await?, "<h1>Dear</h1>");
    ///
    /// db.delete_attachment(&mut doc, "page.html").await?;
    /// assert!(db.attachment_opt("letter", "page.html").await?.is_none());
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `Conflict`, `BadRequest` without name, `AttachmentTooLarge`.
    pub async fn put_attachment(
        &self,
        doc: &mut Document,
        name: &str,
        body: impl Into<AttachmentBody>,
        content_type: Option<&str>,
    ) -> Result<Saved> {
        self.identify(doc).await?;
        let AttachmentBody { length, stream } = body.into();
        let content_type = content_type.unwrap_or_else(|| guess_content_type(name)).to_owned();
        let head = AttachmentHead {
            content_type: Some(content_type.clone()),
            length,
            ..Default::default()
        };
        let DocRef { id, rev } = DocRef::from(&*doc);
        let saved = self.adapter.put_attachment(id, name, rev.cloned(), head, stream).await?;
        doc.rev = Some(saved.rev.clone());
        let stub = Attachment {
            name: name.to_owned(),
            content_type,
            revpos: Some(saved.rev.pos),
            digest: None,
            length,
            encoding: Encoding::Identity,
            encoded_length: None,
            data: AttachmentData::Stub,
        };
        match doc.attachments.iter_mut().find(|attachment| attachment.name == name) {
            Some(attachment) => *attachment = stub,
            None => doc.attachments.push(stub),
        }
        Ok(saved)
    }

    /// Reads an attachment: `GET /{db}/{id}/{name}`. Takes an id, an id and a revision, or a
    /// document; then it is that revision's attachment.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn attachment<'a>(
        &self,
        doc: impl Into<DocRef<'a>>,
        name: &str,
    ) -> Result<AttachmentReader> {
        let DocRef { id, rev } = doc.into();
        let options = AttachmentOptions { rev: rev.cloned(), ..Default::default() };
        self.attachment_with(id, name, &options).await
    }

    /// Reads an attachment, if there is one.
    pub async fn attachment_opt<'a>(
        &self,
        doc: impl Into<DocRef<'a>>,
        name: &str,
    ) -> Result<Option<AttachmentReader>> {
        found(self.attachment(doc, name).await)
    }

    /// Reads a part of an attachment, or its bytes as they are stored.
    ///
    /// # Errors
    ///
    /// `NotFound`, `RangeNotSatisfiable`.
    pub async fn attachment_with(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> Result<AttachmentReader> {
        self.adapter.attachment(id, name, options).await
    }

    /// Removes an attachment from a document, which must be current: `DELETE /{db}/{id}/{name}`. The
    /// document gets its new revision.
    ///
    /// # Errors
    ///
    /// `Conflict`, `NotFound`.
    pub async fn delete_attachment(&self, doc: &mut Document, name: &str) -> Result<Saved> {
        let DocRef { id, rev } = DocRef::from(&*doc);
        let saved = self.adapter.delete_attachment(id, name, rev.cloned()).await?;
        doc.rev = Some(saved.rev.clone());
        doc.attachments.retain(|attachment| attachment.name != name);
        Ok(saved)
    }
}

/// Replication.
impl Database {
    /// Copies what the other database lacks of this one: documents with their conflicts, deletions
    /// and attachments. Nothing happens before [`run`](Replication::run) or
    /// [`start`](Replication::start).
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::Couch;
    ///
    /// let (phone, desk) = (Couch::memory()?, Couch::memory()?);
    /// let (phone, desk) = (phone.create("notes").await?, desk.create("notes").await?);
    /// phone.put(r#"{"_id": "milk", "bought": false}"#).await?;
    ///
    /// let result = phone.replicate_to(&desk).run().await?;
    /// assert_eq!((result.ok, result.counters.docs_written), (true, 1));
    /// assert_eq!(desk.get("milk").await?, phone.get("milk").await?);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub fn replicate_to(&self, target: impl Into<End>) -> Replication {
        Replication::new(self, target)
    }

    /// Copies what this database lacks of the other one, as
    /// [`replicate_to`](Database::replicate_to) the other way.
    pub fn replicate_from(&self, source: impl Into<End>) -> Replication {
        Replication::new(source, self)
    }

    /// Replicates in both directions.
    pub fn sync(&self, other: impl Into<End>) -> Sync {
        Sync::new(self, other)
    }
}

impl From<&Database> for Arc<dyn Adapter> {
    fn from(database: &Database) -> Arc<dyn Adapter> {
        database.adapter.clone()
    }
}

impl From<Database> for Arc<dyn Adapter> {
    fn from(database: Database) -> Arc<dyn Adapter> {
        database.adapter
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Database '{}'>", self.name())
    }
}

impl AttachmentReader {
    /// All of the bytes that come, in memory.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let first = self.body.try_next().await?.unwrap_or_default();
        let Some(second) = self.body.try_next().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.body.try_next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The bytes, as they come.
    pub fn into_stream(self) -> ByteStream {
        self.body
    }
}

/// What is not found is `None`, not an error.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn needed(rev: Option<&Rev>) -> Result<&Rev> {
    rev.ok_or_else(|| Error::bad_request("a revision is required"))
}
