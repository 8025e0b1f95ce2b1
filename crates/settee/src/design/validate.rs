//! Validation: design documents that say who may write what.

use super::check::check_design;
use super::request::{Stub, UserCtx};
use super::{FunctionPath, Functions, Rendered, check_language};
use crate::Database;
use crate::adapter::{
    Adapter, AttachmentReader, ByteStream, ChangesStream, Location, Parts, Rows, ViewRows,
};
use crate::env::IdGenerator;
use crate::script::{DesignSource, EditText, ScriptEngine};
use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::TryStreamExt;
use serde_json::Value;
use settee_core::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};
use settee_core::options::{
    AllDocsOptions, AttachmentHead, AttachmentOptions, BulkGetItem, ChangesOptions, DocSet,
    GetOptions, OpenRevs, ViewOptions, WriteOptions,
};
use settee_core::wire::{
    AutoPurge, DatabaseInfo, DesignInfo, DocError, MissingRevs, Purged, RevResult, RevsByDoc,
    Saved, Security, TempView, TimeBin, WriteResult,
};
use settee_core::{Attachment, AttachmentData, Document, Error, Result, Rev, Revisions, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many ancestors of a replicated revision are looked for, to show it to validation.
const ANCESTORS: usize = 20;

/// How many design documents are remembered.
const REMEMBERED: usize = 1000;

/// By database and design document: its revision, and its function if it has one.
type Known = HashMap<(String, String), (Rev, Option<DesignSource>)>;

/// Knows the validation functions of databases, so that a write does not have to read them each
/// time. One serves any number of databases of one place.
#[derive(Default)]
pub struct Validator {
    known: Mutex<Known>,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<Validator>")
    }
}

impl Validator {
    /// The validation functions of a database.
    async fn functions(&self, db: &dyn Adapter) -> Result<Vec<DesignSource>> {
        let options = AllDocsOptions { set: DocSet::Design, ..AllDocsOptions::default() };
        let mut rows = db.all_docs(&options).await?.rows;
        let mut functions = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            for row in batch {
                let (false, Some(rev)) = (row.deleted, row.rev) else { continue };
                let name = (db.name().to_owned(), row.id);
                let known = self.lock().get(&name).filter(|(known, _)| *known == rev).cloned();
                let function = match known {
                    Some((_, function)) => function,
                    None => {
                        let options =
                            GetOptions { rev: Some(rev.clone()), ..GetOptions::default() };
                        let doc = db.get(&name.1, &options).await?;
                        let function = read_function(&name.0, &name.1, &doc)?;
                        let mut known = self.lock();
                        if known.len() >= REMEMBERED {
                            known.clear();
                        }
                        known.insert(name, (rev, function.clone()));
                        function
                    }
                };
                functions.extend(function);
            }
        }
        Ok(functions)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The validation function of a design document, if it has one.
fn read_function(db: &str, id: &str, doc: &Document) -> Result<Option<DesignSource>> {
    if doc.body.get("validate_doc_update").is_none_or(|function| function == "null") {
        return Ok(None);
    }
    let language = doc.body.get("language").and_then(json::string);
    check_language(language.as_deref())?;
    Ok(Some(DesignSource::new(db, id, doc.to_json())))
}

/// For whom validation functions judge, and whether they do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Validation {
    /// Who writes, if it is not [`UserCtx::admin`].
    pub user: Option<UserCtx>,
    /// Instead of the database's security object.
    pub security: Option<Security>,
    /// Judge even what is written to a server, which judges by itself.
    pub check_remote: bool,
}

impl Database {
    /// The database with a say for its design documents: all `validate_doc_update` functions must let
    /// a write pass, single and in bulk, of attachments, and of update functions.
    ///
    /// A server asks them by itself, so writes to one are as ever unless `check_remote` says otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "js")]
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("people").await?;
    /// use settee::design::{UserCtx, Validation};
    ///
    /// let rule = "function(doc, old, user) { if (!user.name) throw({unauthorized: 'log in'}) }";
    /// db.put(serde_json::json!({"_id": "_design/rules", "validate_doc_update": rule})).await?;
    ///
    /// let nobody = UserCtx { name: None, roles: vec![], ..UserCtx::admin("people") };
    /// let db = db.validating(Validation { user: Some(nobody), ..Validation::default() });
    /// let error = db.put(r#"{"_id": "ada"}"#).await.unwrap_err();
    /// assert_eq!((error.status(), error.reason()), (401, "log in"));
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn validating(&self, validation: Validation) -> Database {
        let Validation { user, security, check_remote } = validation;
        if self.adapter().judges_writes() && !check_remote {
            return self.clone();
        }
        let user = user.unwrap_or_else(|| UserCtx::admin(self.name()));
        let mut judged = Validating::new(Arc::clone(self.adapter()), Arc::default(), user);
        judged.security = security;
        Database::new(self.couch().clone(), Arc::new(judged))
    }
}

/// A database whose design documents have a say in what is written: as the database, but every write
/// must pass all `validate_doc_update` functions first.
///
/// As in CouchDB, design documents and local documents always pass, but a design document whose
/// members or views are none is refused.
#[derive(Clone)]
pub struct Validating {
    inner: Arc<dyn Adapter>,
    validator: Arc<Validator>,
    user: UserCtx,
    security: Option<Security>,
    ids: Arc<IdGenerator>,
}

impl fmt::Debug for Validating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Validating {:?} for {:?}>", self.inner, self.user.name)
    }
}

impl Validating {
    /// The database, written to by a user.
    pub fn new(inner: Arc<dyn Adapter>, validator: Arc<Validator>, user: UserCtx) -> Validating {
        Validating { inner, validator, user, security: None, ids: Arc::default() }
    }

    /// Shows functions another security object than the database has.
    #[must_use]
    pub fn with_security(mut self, security: Security) -> Validating {
        self.security = Some(security);
        self
    }

    /// The edit as functions see it, or why it cannot be one.
    async fn edit(&self, doc: &Document, options: &WriteOptions) -> Result<EditText> {
        let id = doc.id.as_deref().unwrap_or_default();
        let old = match options.new_edits {
            true => self.parent(id, doc.rev.as_ref()).await?,
            false => self.ancestor(id, doc).await?,
        };
        let mut new = doc.clone();
        if new.revisions.is_none() {
            let of = |rev: &Rev| Revisions { start: rev.pos, ids: vec![rev.id.clone()] };
            let none = Revisions { start: 0, ids: Vec::new() };
            new.revisions = Some(doc.rev.as_ref().map_or(none, of));
        }
        Ok(EditText { new: new.to_json(), old: super::text_of(old.as_ref()) })
    }

    /// What an edit is based on. An edit that is based on nothing that is here is a conflict: what
    /// nobody has judged must not get in, even if its parent arrives in between.
    async fn parent(&self, id: &str, rev: Option<&Rev>) -> Result<Option<Document>> {
        let options = GetOptions { rev: rev.cloned(), revs: true, ..GetOptions::default() };
        match (self.inner.get(id, &options).await, rev) {
            (Ok(doc), Some(_)) => Ok(Some(doc)),
            (Ok(_), None) => Err(Error::conflict()),
            (Err(error), None) if error.is_not_found() => Ok(None),
            (Err(error), Some(_)) if error.is_not_found() => Err(Error::conflict()),
            (Err(error), _) => Err(error),
        }
    }

    /// The nearest ancestor of a replicated revision that is here.
    async fn ancestor(&self, id: &str, doc: &Document) -> Result<Option<Document>> {
        let Some(revisions) = &doc.revisions else { return Ok(None) };
        let ancestors = revisions.ids.iter().enumerate().skip(1).take(ANCESTORS);
        let ancestors = ancestors.filter_map(|(n, rev)| {
            let pos = revisions.start.checked_sub(n as u64)?;
            Some(Rev { pos, id: rev.clone() })
        });
        let revs = OpenRevs::Revs(ancestors.collect());
        let options = GetOptions { revs: true, ..GetOptions::default() };
        let found = self.inner.open_revs(id, &revs, &options).await?;
        Ok(found.into_iter().find_map(|result| match result {
            RevResult::Found(doc) => Some(*doc),
            RevResult::Missing(_) => None,
        }))
    }

    /// The database's functions. Where there are none, as in most databases, a write costs nothing
    /// more.
    async fn functions(&self) -> Result<Vec<DesignSource>> {
        self.validator.functions(&*self.inner).await
    }

    /// Asks all functions about edits; the first one that refuses counts.
    async fn judge(
        &self,
        functions: &[DesignSource],
        edits: Vec<Result<EditText>>,
    ) -> Result<Vec<Result<()>>> {
        let mut verdicts = Vec::with_capacity(edits.len());
        let mut asked = Vec::new();
        for (n, edit) in edits.into_iter().enumerate() {
            match edit {
                Ok(edit) => {
                    asked.push((n, edit));
                    verdicts.push(Ok(()));
                }
                Err(error) => verdicts.push(Err(error)),
            }
        }
        if asked.is_empty() {
            return Ok(verdicts);
        }
        let user = serde_json::to_string(&self.user).map_err(Error::internal)?;
        let security = match &self.security {
            Some(security) => security.clone(),
            None => self.inner.security().await?,
        };
        let security = serde_json::to_string(&security).map_err(Error::internal)?;
        let engine = self.inner.script()?;
        for function in functions {
            asked.retain(|(n, _)| verdicts[*n].is_ok());
            let texts = asked.iter().map(|(_, edit)| edit.clone()).collect();
            let (user, security) = (user.clone(), security.clone());
            let results = engine.validate(function, texts, user, security).await;
            for ((n, _), result) in asked.iter().zip(results) {
                verdicts[*n] = result;
            }
        }
        Ok(verdicts)
    }

    async fn judge_one(&self, functions: &[DesignSource], edit: EditText) -> Result<()> {
        let verdicts = self.judge(functions, vec![Ok(edit)]).await?;
        verdicts.into_iter().collect()
    }

    /// The document with another set of attachments, as functions see it.
    async fn edit_attachments(
        &self,
        id: &str,
        rev: Option<&Rev>,
        change: impl FnOnce(&mut Vec<Attachment>),
    ) -> Result<()> {
        let functions = self.functions().await?;
        if functions.is_empty() {
            return Ok(());
        }
        let old = self.parent(id, rev).await?;
        let mut new = old.clone().unwrap_or_else(|| Document::with_id(id));
        change(&mut new.attachments);
        let mut text = new.to_json();
        if new.attachments.is_empty() && text.pop() == Some('}') {
            // There were some: functions see that there is none left.
            text.push_str(r#","_attachments":{}}"#);
        }
        let edit = EditText { new: text, old: super::text_of(old.as_ref()) };
        self.judge_one(&functions, edit).await
    }
}

/// Whether functions have a say.
fn is_judged(id: &str) -> bool {
    !id.starts_with("_design/") && !id.starts_with("_local/")
}

#[async_trait]
impl Adapter for Validating {
    async fn put(
        &self,
        mut doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved> {
        let id = match doc.id.take() {
            Some(id) => id,
            None => self.ids.next()?,
        };
        doc.id = Some(id.clone());
        check_design(&doc, || self.inner.script()).await?;
        if is_judged(&id) {
            let functions = self.functions().await?;
            if !functions.is_empty() {
                self.judge_one(&functions, self.edit(&doc, options).await?).await?;
            }
        }
        self.inner.put(doc, parts, options).await
    }

    async fn bulk_docs(
        &self,
        mut docs: Vec<Document>,
        options: &WriteOptions,
    ) -> Result<Vec<WriteResult>> {
        let functions = self.functions().await?;
        let mut refused: HashMap<usize, Error> = HashMap::new();
        for (n, doc) in docs.iter().enumerate() {
            if let Err(error) = check_design(doc, || self.inner.script()).await {
                refused.insert(n, error);
            }
        }
        if functions.is_empty() && refused.is_empty() {
            return self.inner.bulk_docs(docs, options).await;
        }
        let mut judged = Vec::new();
        let mut edits = Vec::new();
        for (n, doc) in docs.iter_mut().enumerate() {
            if doc.id.is_none() {
                doc.id = Some(self.ids.next()?);
            }
            if !functions.is_empty() && is_judged(doc.id.as_deref().unwrap_or_default()) {
                judged.push(n);
                edits.push(self.edit(doc, options).await);
            }
        }
        for (n, verdict) in judged.into_iter().zip(self.judge(&functions, edits).await?) {
            if let Err(error) = verdict {
                refused.insert(n, error);
            }
        }
        let mut results: Vec<Option<WriteResult>> = Vec::with_capacity(docs.len());
        let mut passed = Vec::new();
        for (n, doc) in docs.into_iter().enumerate() {
            results.push(match refused.remove(&n) {
                Some(error) => {
                    let id = doc.id.unwrap_or_default();
                    // A revision from elsewhere is told, so that one knows which was refused.
                    let rev = doc.rev.filter(|_| !options.new_edits);
                    Some(Err(DocError { id, rev, error }))
                }
                None => {
                    passed.push(doc);
                    None
                }
            });
        }
        let mut written = self.inner.bulk_docs(passed, options).await?.into_iter();
        Ok(results.into_iter().filter_map(|result| result.or_else(|| written.next())).collect())
    }

    async fn put_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
        head: AttachmentHead,
        body: ByteStream,
    ) -> Result<Saved> {
        if is_judged(id) {
            let content_type = head.content_type.clone();
            let content_type =
                content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
            self.edit_attachments(id, rev.as_ref(), |attachments| {
                attachments.retain(|attachment| attachment.name != name);
                attachments.push(Attachment {
                    name: name.to_owned(),
                    content_type,
                    revpos: None,
                    digest: head.md5,
                    length: head.length,
                    encoding: head.encoding,
                    encoded_length: None,
                    data: AttachmentData::Follows,
                });
            })
            .await?;
        }
        self.inner.put_attachment(id, name, rev, head, body).await
    }

    async fn delete_attachment(&self, id: &str, name: &str, rev: Option<Rev>) -> Result<Saved> {
        if is_judged(id) {
            self.edit_attachments(id, rev.as_ref(), |attachments| {
                attachments.retain(|attachment| attachment.name != name);
            })
            .await?;
        }
        self.inner.delete_attachment(id, name, rev).await
    }

    // What an update function makes is to be judged too.
    async fn call_function(&self, path: &FunctionPath, stub: &Stub) -> Result<Rendered> {
        let mut stub = stub.clone();
        stub.user.get_or_insert_with(|| self.user.clone());
        stub.security = stub.security.or_else(|| self.security.clone());
        Functions::new(Arc::new(self.clone())).call(path, &stub).await
    }

    fn judges_writes(&self) -> bool {
        true
    }

    // All else is the database's.

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn location(&self) -> Location {
        self.inner.location()
    }

    async fn info(&self) -> Result<DatabaseInfo> {
        self.inner.info().await
    }

    async fn get(&self, id: &str, options: &GetOptions) -> Result<Document> {
        self.inner.get(id, options).await
    }

    async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>> {
        self.inner.open_revs(id, revs, options).await
    }

    async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> Result<BoxStream<'static, Result<(String, Vec<RevResult>)>>> {
        self.inner.bulk_get(items, options).await
    }

    async fn all_docs(&self, options: &AllDocsOptions) -> Result<Rows> {
        self.inner.all_docs(options).await
    }

    async fn changes(&self, options: &ChangesOptions) -> Result<ChangesStream> {
        self.inner.changes(options).await
    }

    async fn revs_diff(&self, revs: &RevsByDoc) -> Result<BTreeMap<String, MissingRevs>> {
        self.inner.revs_diff(revs).await
    }

    async fn attachment(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> Result<AttachmentReader> {
        self.inner.attachment(id, name, options).await
    }

    async fn purge(&self, revs: &RevsByDoc) -> Result<Purged> {
        self.inner.purge(revs).await
    }

    async fn purged_infos(&self) -> Result<Vec<(String, Vec<Rev>)>> {
        self.inner.purged_infos().await
    }

    async fn purged_infos_limit(&self) -> Result<u64> {
        self.inner.purged_infos_limit().await
    }

    async fn set_purged_infos_limit(&self, limit: u64) -> Result<()> {
        self.inner.set_purged_infos_limit(limit).await
    }

    async fn auto_purge(&self) -> Result<AutoPurge> {
        self.inner.auto_purge().await
    }

    async fn set_auto_purge(&self, settings: &AutoPurge) -> Result<()> {
        self.inner.set_auto_purge(settings).await
    }

    async fn time_seq(&self) -> Result<Vec<TimeBin>> {
        self.inner.time_seq().await
    }

    async fn reset_time_seq(&self) -> Result<()> {
        self.inner.reset_time_seq().await
    }

    async fn revs_limit(&self) -> Result<u64> {
        self.inner.revs_limit().await
    }

    async fn set_revs_limit(&self, limit: u64) -> Result<()> {
        self.inner.set_revs_limit(limit).await
    }

    async fn security(&self) -> Result<Security> {
        self.inner.security().await
    }

    async fn set_security(&self, security: &Security) -> Result<()> {
        self.inner.set_security(security).await
    }

    async fn compact(&self) -> Result<()> {
        self.inner.compact().await
    }

    async fn view(&self, ddoc: &str, view: &str, options: &ViewOptions) -> Result<ViewRows> {
        self.inner.view(ddoc, view, options).await
    }

    async fn temp_view(&self, view: &TempView, options: &ViewOptions) -> Result<ViewRows> {
        self.inner.temp_view(view, options).await
    }

    async fn design_info(&self, ddoc: &str) -> Result<DesignInfo> {
        self.inner.design_info(ddoc).await
    }

    async fn find(&self, options: &FindOptions) -> Result<Found> {
        self.inner.find(options).await
    }

    async fn explain(&self, options: &FindOptions) -> Result<Value> {
        self.inner.explain(options).await
    }

    async fn indexes(&self) -> Result<Vec<IndexInfo>> {
        self.inner.indexes().await
    }

    async fn create_index(&self, index: &IndexDefinition) -> Result<IndexCreated> {
        self.inner.create_index(index).await
    }

    async fn delete_index(&self, ddoc: &str, name: &str) -> Result<()> {
        self.inner.delete_index(ddoc, name).await
    }

    fn script(&self) -> Result<Arc<dyn ScriptEngine>> {
        self.inner.script()
    }

    async fn compact_views(&self, ddoc: &str) -> Result<()> {
        self.inner.compact_views(ddoc).await
    }

    async fn view_cleanup(&self) -> Result<()> {
        self.inner.view_cleanup().await
    }

    async fn ensure_full_commit(&self) -> Result<()> {
        self.inner.ensure_full_commit().await
    }
}
