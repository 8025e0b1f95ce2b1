//! Documents that could not be written because somebody else was faster, and what to do about them.

use crate::database::Database;
use settee_core::wire::{DocError, WriteResult};
use settee_core::{Document, Error, Result};
use std::fmt;

/// What became of the documents given to [`Database::save_all`]: those that were written, and those
/// that wait for a decision.
///
/// ```
/// # futures_executor::block_on(async {
/// # let db = settee::Couch::memory()?.create("db").await?;
/// use settee::IntoDocument;
///
/// let mut docs = [
///     r#"{"_id": "first", "n": 1}"#.into_document()?,
///     r#"{"_id": "second", "n": 2}"#.into_document()?,
/// ];
/// let saved = db.save_all(&mut docs).await?;
/// assert_eq!(saved.to_string(), "<Success: 2 docs updated>");
///
/// docs[1].rev = None; // as if read before somebody else wrote it
/// let mut saved = db.save_all(&mut docs).await?;
/// assert_eq!(saved.to_string(), "<Conflict: second>");
///
/// // Keep ours, based on theirs.
/// saved
///     .resolve(|mut ours, theirs| {
///         ours.rev = theirs?.rev;
///         Some(ours)
///     })
///     .await?;
/// assert!(saved.pending().is_empty());
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "documents in conflict have not been written"]
pub struct ConflictResolution {
    database: Database,
    pending: Vec<Pending>,
    resolved: Vec<Document>,
}

/// A document that could not be written.
#[derive(Debug)]
pub struct Pending {
    /// The document, as it was to be written.
    pub doc: Document,
    /// Why it was not: usually a conflict.
    pub error: Error,
}

impl Pending {
    /// The document's id.
    pub fn id(&self) -> &str {
        self.doc.id.as_deref().unwrap_or_default()
    }
}

impl ConflictResolution {
    /// From a first attempt to write documents.
    pub(crate) fn new(
        database: Database,
        docs: &[Document],
        results: Vec<WriteResult>,
    ) -> ConflictResolution {
        let (mut pending, mut resolved) = (Vec::new(), Vec::new());
        for (doc, result) in docs.iter().cloned().zip(results) {
            match result {
                Ok(_) => resolved.push(doc),
                Err(DocError { error, .. }) => pending.push(Pending { doc, error }),
            }
        }
        ConflictResolution { database, pending, resolved }
    }

    /// The documents that are not written yet.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The documents that are written, with their new revisions.
    pub fn resolved(&self) -> &[Document] {
        &self.resolved
    }

    /// Tries each pending document again, as `merge` makes it from ours and theirs. Theirs is `None`
    /// if it has been deleted; then the document is created anew, whatever revision it has.
    ///
    /// Documents for which `merge` returns `None` are not written and stay pending; so do those that
    /// somebody else has changed again meanwhile.
    ///
    /// # Errors
    ///
    /// If their versions cannot be read or nothing can be written. Everything pending stays so.
    pub async fn resolve(
        &mut self,
        mut merge: impl FnMut(Document, Option<Document>) -> Option<Document>,
    ) -> Result<&mut ConflictResolution> {
        let theirs = self.database.get_many(self.pending.iter().map(Pending::id)).await?;
        let merged = self.pending.iter().zip(theirs).map(|(pending, theirs)| {
            let gone = theirs.is_none();
            let mut doc = merge(pending.doc.clone(), theirs)?;
            doc.id.clone_from(&pending.doc.id);
            if gone {
                doc.rev = None;
            }
            Some(doc)
        });
        let merged = merged.collect();
        self.write(merged).await
    }

    /// Tries each pending document again, in place of whatever version there is now.
    ///
    /// # Errors
    ///
    /// As [`resolve`](ConflictResolution::resolve).
    pub async fn overwrite(&mut self) -> Result<&mut ConflictResolution> {
        let ids = self.pending.iter().map(|pending| pending.id().to_owned());
        let rows = self.database.all_docs().keys(ids).fetch().await?.rows;
        let merged = self.pending.iter().zip(rows).map(|(pending, row)| {
            let mut doc = pending.doc.clone();
            doc.rev = row.rev.filter(|_| !row.deleted);
            Some(doc)
        });
        let merged = merged.collect();
        self.write(merged).await
    }

    /// Writes what there is to write for each pending document.
    async fn write(&mut self, docs: Vec<Option<Document>>) -> Result<&mut ConflictResolution> {
        let mut writing: Vec<Document> = docs.iter().flatten().cloned().collect();
        let mut results = self.database.bulk(&mut writing).await?.into_iter().zip(writing);
        for (mut pending, doc) in std::mem::take(&mut self.pending).into_iter().zip(docs) {
            match doc.and_then(|_| results.next()) {
                Some((Ok(_), written)) => self.resolved.push(written),
                Some((Err(DocError { error, .. }), _)) => {
                    pending.error = error;
                    self.pending.push(pending);
                }
                None => self.pending.push(pending),
            }
        }
        Ok(self)
    }
}

impl fmt::Display for ConflictResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids: Vec<&str> = self.pending.iter().map(Pending::id).collect();
        ids.sort_unstable();
        match (ids.as_slice(), self.resolved.len()) {
            ([], 1) => f.write_str("<Success: 1 doc updated>"),
            ([], n) => write!(f, "<Success: {n} docs updated>"),
            ([id], _) => write!(f, "<Conflict: {id}>"),
            (ids, _) => write!(f, "<Conflicts: {}>", ids.join(", ")),
        }
    }
}
