//! Purging, and the compaction that drops old bodies and gives back space.

use super::databases::{Inner, Shared, as_slice};
use super::listings::following;
use super::schema::{DbId, DbState, DocRow, PurgeRow, id_in, key, side};
use super::write::Writer;
use super::{Fail, Result};
use settee_core::wire::{Purged, RevsByDoc, Seq};
use settee_store::{Durability, Store, Table, Tx};
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Documents looked at in one transaction of a compaction: writers wait no longer than that takes.
const BATCH: usize = 256;

/// Forgets revisions.
pub(crate) fn purge(tx: &mut Tx<'_>, db: DbId, revs: &RevsByDoc) -> Result<Purged> {
    let mut writer = Writer::new(tx, db)?;
    let mut purged = RevsByDoc::new();
    for (id, revs) in revs {
        let mut gone = Vec::new();
        if let Some(mut doc) = writer.old_doc(id)? {
            let (revs, dropped) = doc.tree.purge(revs);
            gone = revs;
            if doc.tree.is_empty() {
                writer.remove_doc(id, doc, &dropped)?;
            } else if !gone.is_empty() {
                // What is left is a change: feeds and indexes must look again.
                writer.state.update_seq += 1;
                let seq = writer.state.update_seq;
                writer.put_doc(id, doc, seq, None, &dropped)?;
            }
        }
        if !gone.is_empty() {
            writer.state.purge_seq += 1;
            let row = PurgeRow { id: id.clone(), revs: gone.clone() };
            let key = side::purge(db, writer.state.purge_seq);
            writer.tx.put(Table::Side, key, row.encode());
        }
        purged.insert(id.clone(), gone);
    }
    writer.forget_old_purges();
    let purge_seq = Some(Seq::Number(writer.state.purge_seq));
    writer.finish()?;
    Ok(Purged { purge_seq, purged })
}

impl Writer<'_, '_> {
    /// Keeps the list of purges within its limit.
    pub(crate) fn forget_old_purges(&mut self) {
        let keep = self.state.purge_seq.saturating_sub(self.state.purged_infos_limit) + 1;
        for seq in self.state.first_purge..keep {
            self.tx.delete(Table::Side, side::purge(self.db, seq));
        }
        self.state.first_purge = self.state.first_purge.max(keep);
    }
}

/// Drops the bodies of revisions that are no leaves.
pub(crate) fn forget_old_bodies(store: &Store, db: DbId) -> Result<()> {
    let behind = following(&key(db, b""));
    let mut from = Bound::Included(key(db, b""));
    loop {
        let snapshot = store.snapshot();
        let rows = snapshot.range(Table::Docs, (as_slice(&from), Bound::Excluded(&behind)));
        let mut ids = Vec::new();
        let mut last = None;
        for row in rows.take(BATCH) {
            let (key, value) = row?;
            let row = DocRow::decode(&value)?;
            if row.tree()?.stored().count() > row.tree()?.leaves().len() {
                ids.push(id_in(&key, 4)?.to_owned());
            }
            last = Some(key);
        }
        let Some(last) = last else {
            // What this estimate is off by must not add up.
            return store.transact(Durability::Deferred, move |tx| {
                let mut writer = Writer::new(tx, db)?;
                writer.state.old = 0;
                writer.finish()
            });
        };
        from = Bound::Excluded(last.to_vec());
        if ids.is_empty() {
            continue;
        }
        store.transact(Durability::Deferred, move |tx| -> Result<()> {
            let mut writer = Writer::new(tx, db)?;
            for id in &ids {
                // The document may have changed, or gone, since it was looked at.
                if let Some(mut doc) = writer.old_doc(id)? {
                    let dropped = doc.tree.forget_bodies();
                    writer.replace_tree(doc, &dropped)?;
                }
            }
            writer.finish()
        })?;
    }
}

/// Old bodies of fewer bytes than this are left until somebody asks for a compaction.
const OLD_BODIES: u64 = 64 << 20;

/// Whether a database should be rid of old bodies by itself: they take more than what is current.
pub(crate) fn has_grown_old(state: &DbState) -> bool {
    state.old > state.external.max(OLD_BODIES)
}

/// How much a compaction does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Drops old bodies; the engine gives back their space as it goes on.
    Bodies,
    /// Gives back all space at once.
    Store,
}

/// Starts a compaction on a thread of its own, unless one is under way.
pub(crate) fn start_compaction(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    depth: Depth,
) -> Result<()> {
    if shared.compacting.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let (inner, shared_) = (inner.clone(), shared.clone());
    let compact = move || {
        let outcome = forget_old_bodies(&inner.store, shared_.id).and_then(|()| {
            if depth == Depth::Bodies {
                return Ok(());
            }
            // One compaction of the store at a time; whoever comes later waits for its turn, so
            // that when its own is done, what it dropped is gone.
            let _turn = inner.compacting.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(inner.store.compact()?)
        });
        shared_.compacting.store(false, Ordering::Release);
        if let Err(Fail(error)) = outcome
            && !error.is_not_found()
        {
            tracing::error!(database = shared_.name, %error, "compaction failed");
        }
    };
    let spawned = std::thread::Builder::new().name("settee-compact".to_owned()).spawn(compact);
    if let Err(error) = spawned {
        shared.compacting.store(false, Ordering::Release);
        return Err(settee_core::Error::internal(error).into());
    }
    Ok(())
}
