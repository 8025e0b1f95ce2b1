//! Deleted documents that have served their time: who forgets them, and when.
//!
//! A deletion is kept so that it replicates. Databases with many short-lived documents fill with
//! deletions; `_auto_purge` says how long each is kept, and `_time_seq` knows how old it is.

use crate::adapter::Adapter;
use crate::database::Database;
use futures_util::TryStreamExt;
use settee_core::options::{ChangesOptions, Since, Style};
use settee_core::wire::{AutoPurge, RevsByDoc, Seq, TimeBin};
use settee_core::{Error, ErrorKind, Result};
use std::time::SystemTime;

/// Documents purged in one transaction: other writers wait no longer than that takes.
const BATCH: usize = 500;

/// The age of changes, and what is done about old deletions.
impl Database {
    /// How long deleted documents are kept: `GET /{db}/_auto_purge`.
    pub async fn auto_purge(&self) -> Result<AutoPurge> {
        self.adapter().auto_purge().await
    }

    /// Sets how long deleted documents are kept: `PUT /{db}/_auto_purge`.
    pub async fn set_auto_purge(&self, settings: &AutoPurge) -> Result<()> {
        self.adapter().set_auto_purge(settings).await
    }

    /// How many changes were made when, oldest first: `GET /{db}/_time_seq`.
    ///
    /// The newest intervals are three hours long; there are at most sixty, so older ones are longer.
    pub async fn time_seq(&self) -> Result<Vec<TimeBin>> {
        self.adapter().time_seq().await
    }

    /// Forgets when changes were made, as after the clock was wrong: `DELETE /{db}/_time_seq`.
    pub async fn reset_time_seq(&self) -> Result<()> {
        self.adapter().reset_time_seq().await
    }

    /// Purges the documents whose deletion is older than the database's
    /// [`deleted_document_ttl`](AutoPurge), and says how many. Where there is none, nothing is purged.
    ///
    /// The server does this by itself. Run it now and then where databases are embedded; each run
    /// reads the database's changes once.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// # let db = settee::Couch::memory()?.create("db").await?;
    /// use settee::wire::AutoPurge;
    ///
    /// db.set_auto_purge(&AutoPurge { deleted_document_ttl: "30_days".parse().ok() }).await?;
    /// assert_eq!(db.purge_expired().await?, 0);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`purge_deleted_before`](Database::purge_deleted_before).
    pub async fn purge_expired(&self) -> Result<u64> {
        let ttl = self.auto_purge().await?.deleted_document_ttl;
        match ttl.and_then(|ttl| SystemTime::now().checked_sub(ttl.duration()?)) {
            Some(time) => self.purge_deleted_before(time).await,
            None => Ok(0),
        }
    }

    /// Purges the documents that were deleted before then, and says how many.
    ///
    /// Times are kept in intervals of three hours and more: a deletion may be left that is older by
    /// that much, and none is purged that is younger.
    ///
    /// # Errors
    ///
    /// `NotImplemented` for databases of a cluster, whose sequences cannot be compared; they do this
    /// by themselves.
    pub async fn purge_deleted_before(&self, time: SystemTime) -> Result<u64> {
        purge_deleted_before(&**self.adapter(), time).await
    }
}

async fn purge_deleted_before(db: &dyn Adapter, time: SystemTime) -> Result<u64> {
    let Some(young) = first_since(db, time).await? else { return Ok(0) };
    let options = ChangesOptions { style: Style::AllDocs, ..ChangesOptions::default() };
    let mut batches = db.changes(&options).await?;
    let mut old = RevsByDoc::new();
    let mut purged = 0;
    while let Some(batch) = batches.try_next().await? {
        for change in batch.changes {
            if number(&change.seq)? > young {
                return Ok(purged + forget(db, &mut old).await?);
            }
            if change.deleted {
                old.insert(change.id, change.revs);
            }
            if old.len() == BATCH {
                purged += forget(db, &mut old).await?;
            }
        }
    }
    Ok(purged + forget(db, &mut old).await?)
}

/// The sequence behind which everything is as young as that; `None` if all is.
async fn first_since(db: &dyn Adapter, time: SystemTime) -> Result<Option<u64>> {
    let since = Since::Time(time);
    let options = ChangesOptions { since, limit: Some(1), ..ChangesOptions::default() };
    let batch = db.changes(&options).await?.try_next().await?;
    let Some(batch) = batch else { return Ok(None) };
    let last = match batch.changes.first() {
        Some(change) => number(&change.seq)?.saturating_sub(1),
        None => number(&batch.last_seq)?,
    };
    Ok(Some(last).filter(|last| *last > 0))
}

fn number(seq: &Seq) -> Result<u64> {
    match seq {
        Seq::Number(number) => Ok(*number),
        Seq::Opaque(_) => {
            let reason = "Sequences of this database cannot be compared.";
            Err(Error::new(ErrorKind::NotImplemented, reason))
        }
    }
}

/// Purges a batch. A document that has been changed since keeps what was added to it.
async fn forget(db: &dyn Adapter, old: &mut RevsByDoc) -> Result<u64> {
    if old.is_empty() {
        return Ok(0);
    }
    let purged = db.purge(&std::mem::take(old)).await?.purged;
    Ok(purged.values().filter(|revs| !revs.is_empty()).count() as u64)
}
