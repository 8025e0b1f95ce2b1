//! [`Adapter`] for a database of the embedded engine: each method finds the database, does the work
//! in place or hands it to the commit thread, and says nothing that the modules beside it say.

use super::attachments::{self, NewBlob, Upload};
use super::databases::{Inner, Shared, as_slice, state};
use super::listings::following;
use super::maintenance::Depth;
use super::schema::{BodyRow, DbId, DbState, PurgeRow, StoredAttachment, meta, side};
use super::write::{self, Edit, Writer};
use super::{Fail, Result, changes, listings, maintenance, read, time_seq};
use crate::adapter::{
    Adapter, AttachmentReader, ByteStream, ChangesStream, DbUpdateKind, Location, Parts, Rows,
    ViewRows, store_durability,
};
use crate::design::{FunctionPath, Functions, Rendered, Stub};
use crate::script::ScriptEngine;
use crate::views;
use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use settee_core::id::{self, DocKind};
use settee_core::options::{
    AllDocsOptions, AttachmentHead, AttachmentOptions, BulkGetItem, ChangesOptions, Filter,
    GetOptions, OpenRevs, ViewOptions, WriteOptions,
};
use settee_core::wire::{
    AutoPurge, DatabaseInfo, DesignInfo, DocError, MissingRevs, Purged, RevResult, RevsByDoc,
    Saved, Security, Seq, Sizes, TempView, TimeBin, WriteResult,
};
use settee_core::{Document, Encoding, Error, Rev, RevTree};
use settee_store::{Durability, Table};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A database of the embedded engine.
#[derive(Clone)]
pub(crate) struct LocalDatabase {
    inner: Arc<Inner>,
    name: String,
}

impl std::fmt::Debug for LocalDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<Database '{}'>", self.name)
    }
}

impl LocalDatabase {
    pub(crate) fn new(inner: Arc<Inner>, name: &str) -> LocalDatabase {
        LocalDatabase { inner, name: name.to_owned() }
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        self.inner.shared(&self.name)
    }

    /// Makes documents ready for their transaction.
    async fn prepare(
        &self,
        shared: &Shared,
        mut doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Edit> {
        let id = match doc.id.take() {
            Some(id) => id,
            None => self.inner.ids.next()?,
        };
        // An id that cannot be is refused before its attachments are read.
        id::check_doc_id(&id)?;
        let size = doc.body.text().len();
        if size > self.inner.limits.document {
            return Err(Error::new(settee_core::ErrorKind::DocumentTooLarge, id).into());
        }
        let attachments = std::mem::take(&mut doc.attachments);
        let new_edits = options.new_edits;
        let attachments =
            attachments::prepare(&self.inner, shared, attachments, parts, new_edits).await?;
        write::prepare(id, doc, attachments, new_edits)
    }

    /// Writes prepared documents in one transaction.
    async fn commit(
        &self,
        shared: Arc<Shared>,
        edits: Vec<Edit>,
        durability: Durability,
    ) -> Result<Vec<WriteResult>> {
        let db = shared.id;
        let uploads: Vec<Vec<_>> =
            edits.iter().map(|edit| edit.new_blobs().cloned().collect()).collect();
        let (inner, written) = (self.inner.clone(), shared.clone());
        let outcome = self
            .inner
            .transact_then(
                durability,
                move |tx| {
                    let mut writer = Writer::new(tx, db)?;
                    let before = writer.state.update_seq;
                    let mut results = Vec::with_capacity(edits.len());
                    for edit in edits {
                        results.push(match writer.write(&edit) {
                            Ok(saved) => Ok(saved),
                            // A failure of the store is not this document's alone.
                            Err(Fail(error)) if error.status() >= 500 => return Err(error.into()),
                            Err(Fail(error)) => Err(DocError { id: edit.id, rev: None, error }),
                        });
                    }
                    let changed = writer.state.update_seq > before;
                    let old = maintenance::has_grown_old(&writer.state);
                    writer.finish()?;
                    Ok((results, changed, old))
                },
                move |(_, changed, old)| {
                    if *old
                        && let Err(Fail(error)) =
                            maintenance::start_compaction(&inner, &written, Depth::Bodies)
                    {
                        tracing::warn!(%error, "no thread for a compaction");
                    }
                    if *changed {
                        written.changed.notify(usize::MAX);
                        inner.updates.record(&written.name, DbUpdateKind::Updated);
                    }
                },
            )
            .await;
        let refused = |n: usize| match &outcome {
            Ok((results, ..)) => results.get(n).is_none_or(Result::is_err),
            Err(_) => true,
        };
        // What is not claimed is dropped.
        for (n, blobs) in uploads.iter().enumerate() {
            if !refused(n) {
                blobs.iter().for_each(NewBlob::claim);
            }
        }
        Ok(outcome?.0)
    }

    async fn write_one(
        &self,
        doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved> {
        let shared = self.shared()?;
        let edit = self.prepare(&shared, doc, parts, options).await?;
        let durability = store_durability(options.durability);
        let mut results = self.commit(shared, vec![edit], durability).await?;
        match results.pop() {
            Some(result) => result.map_err(|failed| failed.error.into()),
            None => Err(super::corrupt("a write has no result").into()),
        }
    }

    /// The document that a change of one attachment makes of a revision: its body, and stubs.
    async fn with_stubs(&self, id: &str, rev: Option<Rev>) -> Result<Document> {
        let shared = self.shared()?;
        let Some(rev) = rev else {
            let doc = Document { id: Some(id.to_owned()), ..Document::default() };
            return Ok(doc);
        };
        let options = GetOptions { rev: Some(rev), ..GetOptions::default() };
        match read::get(&self.inner.store, shared.id, id, &options) {
            Ok(doc) => Ok(doc),
            // A revision that is not here is one that somebody has moved on from.
            Err(Fail(error)) if error.is_not_found() => Err(Error::missing_rev().into()),
            Err(error) => Err(error),
        }
    }

    /// Changes the state of the database.
    async fn update_state(
        &self,
        change: impl FnOnce(&mut Writer<'_, '_>) + Send + 'static,
    ) -> Result<()> {
        let db = self.shared()?.id;
        self.inner
            .transact(Durability::Flush, move |tx| {
                let mut writer = Writer::new(tx, db)?;
                change(&mut writer);
                writer.finish()
            })
            .await
    }

    /// Puts a row of `Meta` that belongs to the database.
    async fn put_meta(&self, key: fn(DbId) -> Vec<u8>, row: Vec<u8>) -> Result<()> {
        let db = self.shared()?.id;
        let written = self.inner.transact(Durability::Flush, move |tx| {
            // The database may have gone.
            state(tx, db)?;
            tx.put(Table::Meta, key(db), row);
            Ok(())
        });
        written.await
    }

    fn state(&self) -> Result<DbState> {
        let row = self.inner.store.get(Table::Meta, &meta::state(self.shared()?.id))?;
        Ok(DbState::decode(&row.ok_or_else(Error::no_database)?)?)
    }

    /// An attachment of the winner or of a revision, and what is stored of it.
    fn find_attachment(
        &self,
        shared: &Shared,
        id: &str,
        name: &str,
        rev: Option<&Rev>,
    ) -> Result<StoredAttachment> {
        let snapshot = self.inner.store.snapshot();
        let row = read::doc_row(&snapshot, shared.id, id)?.ok_or_else(Error::missing)?;
        let read = read::Read { snapshot: &snapshot, db: shared.id, id, row: &row };
        let seq = match rev {
            None if row.deleted => return Err(Error::deleted().into()),
            None => row.body_seq,
            Some(rev) => {
                let stored = row.tree()?.get(rev).and_then(|node| node.stored);
                stored.ok_or_else(Error::missing)?.seq
            }
        };
        let BodyRow { attachments, .. } = read.body(seq)?;
        let missing = || {
            let kind = settee_core::ErrorKind::NotFound;
            Error::new(kind, "Document is missing attachment")
        };
        let found = attachments.into_iter().find(|attachment| attachment.name == name);
        Ok(found.ok_or_else(missing)?)
    }
}

#[async_trait]
impl Adapter for LocalDatabase {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> Location {
        Location::Local { place: self.inner.uuid.clone(), name: self.name.clone() }
    }

    async fn info(&self) -> settee_core::Result<DatabaseInfo> {
        let shared = self.shared()?;
        let state = self.state()?;
        Ok(DatabaseInfo {
            db_name: self.name.clone(),
            doc_count: state.doc_count,
            doc_del_count: state.doc_del_count,
            update_seq: Seq::Number(state.update_seq),
            purge_seq: Seq::Number(state.purge_seq),
            sizes: Sizes {
                file: self.inner.share_of_disk(state.active)?,
                external: state.external,
                active: state.active,
            },
            instance_start_time: shared.created.to_string(),
            compact_running: shared.compacting.load(Ordering::Acquire),
        })
    }

    async fn get(&self, id: &str, options: &GetOptions) -> settee_core::Result<Document> {
        Ok(read::get(&self.inner.store, self.shared()?.id, id, options)?)
    }

    async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> settee_core::Result<Vec<RevResult>> {
        Ok(read::open_revs(&self.inner.store, self.shared()?.id, id, revs, options)?)
    }

    async fn put(
        &self,
        doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> settee_core::Result<Saved> {
        Ok(self.write_one(doc, parts, options).await?)
    }

    async fn bulk_docs(
        &self,
        docs: Vec<Document>,
        options: &WriteOptions,
    ) -> settee_core::Result<Vec<WriteResult>> {
        let shared = self.shared()?;
        let mut edits = Vec::with_capacity(docs.len());
        // Documents that are refused before the transaction, by their place.
        let mut refused = Vec::new();
        for (place, doc) in docs.into_iter().enumerate() {
            let id = doc.id.clone().unwrap_or_default();
            match self.prepare(&shared, doc, None, options).await {
                Ok(edit) => edits.push(edit),
                Err(Fail(error)) => refused.push((place, DocError { id, rev: None, error })),
            }
        }
        let durability = store_durability(options.durability);
        let mut results = match edits.is_empty() {
            true => Vec::new(),
            false => self.commit(shared, edits, durability).await?,
        };
        for (place, error) in refused {
            results.insert(place, Err(error));
        }
        Ok(results)
    }

    async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> settee_core::Result<BoxStream<'static, settee_core::Result<(String, Vec<RevResult>)>>>
    {
        let db = self.shared()?.id;
        let (inner, options) = (self.inner.clone(), options.clone());
        let results = stream::iter(items).map(move |item| {
            let BulkGetItem { id, rev, atts_since } = item;
            let attachments = options.attachments || !atts_since.is_empty();
            let options = GetOptions { atts_since, attachments, ..options.clone() };
            let revs = match rev {
                Some(rev) => OpenRevs::Revs(vec![rev]),
                None => OpenRevs::All,
            };
            let results = match read::open_revs(&inner.store, db, &id, &revs, &options) {
                Ok(results) => results,
                Err(Fail(error)) if error.status() < 500 => {
                    vec![RevResult::Missing(DocError { id: id.clone(), rev: None, error })]
                }
                Err(Fail(error)) => return Err(error),
            };
            Ok((id, results))
        });
        Ok(results.boxed())
    }

    async fn all_docs(&self, options: &AllDocsOptions) -> settee_core::Result<Rows> {
        let shared = self.shared()?;
        Ok(listings::all_docs(&self.inner.store, shared.id, options.clone())?)
    }

    async fn changes(&self, options: &ChangesOptions) -> settee_core::Result<ChangesStream> {
        if let Filter::Function(function) = &options.filter {
            return Functions::new(Arc::new(self.clone())).filtered(function, options).await;
        }
        Ok(changes::changes(&self.inner, self.shared()?, options.clone())?)
    }

    async fn revs_diff(
        &self,
        revs: &RevsByDoc,
    ) -> settee_core::Result<BTreeMap<String, MissingRevs>> {
        let shared = self.shared()?;
        let snapshot = self.inner.store.snapshot();
        let mut missing = BTreeMap::new();
        for (id, revs) in revs {
            let tree = match read::doc_row(&snapshot, shared.id, id)? {
                Some(row) => row.tree()?,
                None => RevTree::default(),
            };
            if let Some(revs) = tree.missing(revs) {
                missing.insert(id.clone(), revs);
            }
        }
        Ok(missing)
    }

    async fn attachment(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> settee_core::Result<AttachmentReader> {
        let shared = self.shared()?;
        let found = self.find_attachment(&shared, id, name, options.rev.as_ref())?;
        let gzipped = found.encoding == Encoding::Gzip;
        let as_stored = gzipped && options.accept_gzip;
        // Of an encoded attachment no part can be found without decoding all before it.
        let range = match options.range {
            Some(range) if !gzipped => Some(attachments::resolve_range(range, found.length)?),
            _ => None,
        };
        let body = attachments::read(&self.inner.store, shared.id, &found, as_stored, range);
        Ok(AttachmentReader {
            content_type: found.content_type,
            digest: found.digest,
            length: found.length,
            encoding: if as_stored { Encoding::Gzip } else { Encoding::Identity },
            has_ranges: !gzipped,
            range,
            body_length: Some(match range {
                Some((first, last)) => last - first + 1,
                None if as_stored => found.stored_length,
                None => found.length,
            }),
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
    ) -> settee_core::Result<Saved> {
        if id::check_doc_id(id)? == DocKind::Local {
            return Err(Error::bad_request("_local documents can not have attachments."));
        }
        id::check_attachment_name(name)?;
        let shared = self.shared()?;
        let mut doc = self.with_stubs(id, rev).await?;
        let content_type =
            head.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        let what = Upload {
            content_type: &content_type,
            encoding: head.encoding,
            md5: head.md5,
            limit: self.inner.limits.attachment as u64,
        };
        let blob = attachments::upload(&self.inner, &shared, what, body).await?;
        doc.attachments.retain(|attachment| attachment.name != name);
        let old = std::mem::take(&mut doc.attachments);
        let mut pending = attachments::prepare(&self.inner, &shared, old, None, true).await?;
        let new = attachments::PendingAttachment {
            name: name.to_owned(),
            content_type,
            revpos: None,
            content: attachments::Content::New(blob),
        };
        // It comes first, as in CouchDB: the order is part of the revision's hash.
        pending.insert(0, new);
        let edit = write::prepare(id.to_owned(), doc, pending, true)?;
        let mut results = self.commit(shared, vec![edit], Durability::Flush).await?;
        match results.pop() {
            Some(result) => result.map_err(|failed| failed.error),
            None => Err(super::corrupt("a write has no result")),
        }
    }

    async fn delete_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
    ) -> settee_core::Result<Saved> {
        if rev.is_none() {
            // Without a revision this could only create a document.
            self.get(id, &GetOptions::default()).await?;
            return Err(Error::conflict());
        }
        let mut doc = self.with_stubs(id, rev).await?;
        // That there is none of this name is no failure: what was asked for is so.
        doc.attachments.retain(|attachment| attachment.name != name);
        Ok(self.write_one(doc, None, &WriteOptions::default()).await?)
    }

    async fn purge(&self, revs: &RevsByDoc) -> settee_core::Result<Purged> {
        let shared = self.shared()?;
        let (db, revs) = (shared.id, revs.clone());
        let inner = self.inner.clone();
        let purged = self.inner.transact_then(
            Durability::Flush,
            move |tx| maintenance::purge(tx, db, &revs),
            move |_| {
                shared.changed.notify(usize::MAX);
                inner.updates.record(&shared.name, DbUpdateKind::Updated);
            },
        );
        Ok(purged.await?)
    }

    async fn purged_infos(&self) -> settee_core::Result<Vec<(String, Vec<Rev>)>> {
        let db = self.shared()?.id;
        let (low, behind) = (side::purge(db, 0), following(&side::purge(db, u64::MAX)));
        let (low, behind) = (Bound::Included(low), Bound::Excluded(behind));
        let snapshot = self.inner.store.snapshot();
        let rows = snapshot.range(Table::Side, (as_slice(&low), as_slice(&behind)));
        let purges = rows.map(|row| -> Result<_> {
            let PurgeRow { id, revs } = PurgeRow::decode(&row?.1)?;
            Ok((id, revs))
        });
        Ok(purges.collect::<Result<_>>()?)
    }

    async fn purged_infos_limit(&self) -> settee_core::Result<u64> {
        Ok(self.state()?.purged_infos_limit)
    }

    async fn set_purged_infos_limit(&self, limit: u64) -> settee_core::Result<()> {
        if limit == 0 {
            return Err(Error::bad_request("`purged_infos_limit` must be positive integer"));
        }
        let set = move |writer: &mut Writer<'_, '_>| {
            writer.state.purged_infos_limit = limit;
            writer.forget_old_purges();
        };
        Ok(self.update_state(set).await?)
    }

    async fn auto_purge(&self) -> settee_core::Result<AutoPurge> {
        let row = self.inner.store.get(Table::Meta, &meta::auto_purge(self.shared()?.id));
        match row.map_err(Fail::from)? {
            None => Ok(AutoPurge::default()),
            Some(row) => serde_json::from_slice(&row).map_err(Error::internal),
        }
    }

    async fn set_auto_purge(&self, settings: &AutoPurge) -> settee_core::Result<()> {
        let text = serde_json::to_vec(settings).map_err(Error::internal)?;
        Ok(self.put_meta(meta::auto_purge, text).await?)
    }

    async fn time_seq(&self) -> settee_core::Result<Vec<TimeBin>> {
        let shared = self.shared()?;
        let snapshot = self.inner.store.snapshot();
        let state = changes::state(&snapshot, shared.id)?;
        Ok(time_seq::read(&snapshot, shared.id)?.histogram(state.update_seq))
    }

    async fn reset_time_seq(&self) -> settee_core::Result<()> {
        Ok(self.update_state(|writer| writer.forget_times()).await?)
    }

    async fn revs_limit(&self) -> settee_core::Result<u64> {
        Ok(self.state()?.revs_limit)
    }

    async fn set_revs_limit(&self, limit: u64) -> settee_core::Result<()> {
        if limit == 0 {
            return Err(Error::bad_request("`revs_limit` must be positive integer"));
        }
        let set = move |writer: &mut Writer<'_, '_>| writer.state.revs_limit = limit;
        Ok(self.update_state(set).await?)
    }

    async fn security(&self) -> settee_core::Result<Security> {
        let row = self.inner.store.get(Table::Meta, &meta::security(self.shared()?.id));
        match row.map_err(Fail::from)? {
            None => Ok(Security::default()),
            Some(row) => serde_json::from_slice(&row).map_err(Error::internal),
        }
    }

    async fn set_security(&self, security: &Security) -> settee_core::Result<()> {
        let text = serde_json::to_vec(security).map_err(Error::internal)?;
        Ok(self.put_meta(meta::security, text).await?)
    }

    async fn compact(&self) -> settee_core::Result<()> {
        Ok(maintenance::start_compaction(&self.inner, &self.shared()?, Depth::Store)?)
    }

    async fn view(
        &self,
        ddoc: &str,
        view: &str,
        options: &ViewOptions,
    ) -> settee_core::Result<ViewRows> {
        Ok(views::view(&self.inner, &self.shared()?, ddoc, view, options).await?)
    }

    async fn temp_view(
        &self,
        view: &TempView,
        options: &ViewOptions,
    ) -> settee_core::Result<ViewRows> {
        Ok(views::temp_view(&self.inner, &self.shared()?, view, options).await?)
    }

    async fn design_info(&self, ddoc: &str) -> settee_core::Result<DesignInfo> {
        Ok(views::info(&self.inner, &*self.shared()?, ddoc)?)
    }

    async fn call_function(
        &self,
        path: &FunctionPath,
        stub: &Stub,
    ) -> settee_core::Result<Rendered> {
        Functions::new(Arc::new(self.clone())).call(path, stub).await
    }

    fn script(&self) -> settee_core::Result<Arc<dyn ScriptEngine>> {
        self.inner.views.functions.script("javascript").cloned()
    }

    async fn compact_views(&self, ddoc: &str) -> settee_core::Result<()> {
        Ok(views::compact(&self.inner, &self.shared()?, ddoc).await?)
    }

    async fn view_cleanup(&self) -> settee_core::Result<()> {
        Ok(views::cleanup(&self.inner, &*self.shared()?).await?)
    }

    async fn ensure_full_commit(&self) -> settee_core::Result<()> {
        self.shared()?;
        // A transaction that changes nothing is durable once everything before it is.
        Ok(self.inner.transact(Durability::Flush, |_| Ok(())).await?)
    }
}
