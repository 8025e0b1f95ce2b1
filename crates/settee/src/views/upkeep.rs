//! Keeping indexes in order: what there is to know of them, dropping those that nobody asks for,
//! and writing trees anew.

use super::definition::{Design, Signature};
use super::edit::{Loader, Nodes};
use super::node::Node;
use super::state::{self, IndexState, new_owner};
use super::update::{Index, db_state, put_nodes};
use super::{design, open};
use crate::local::databases::{Inner, Shared};
use crate::local::listings::following;
use crate::local::read::Read;
use crate::local::schema::{DocRow, id_in, key};
use crate::local::{Fail, Result, changes};
use settee_core::options::GetOptions;
use settee_core::wire::{DesignInfo, Seq, Sizes, UpdatesPending, ViewIndexInfo};
use settee_core::{Error, ErrorKind, collate};
use settee_store::{Durability, Snapshot, Table, Tx};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Rows read at a time.
const ROWS: u64 = 4096;

/// What there is to know of the indexes of a design document, all together.
pub(crate) fn info(inner: &Inner, shared: &Shared, ddoc: &str) -> Result<DesignInfo> {
    let Design { language, views } = design(inner, shared, ddoc)?;
    let functions = &inner.views.functions;
    let snapshot = inner.store.snapshot();
    let db = db_state(&snapshot, shared.id)?;
    let mut seqs: Option<(u64, u64)> = None;
    let mut info = ViewIndexInfo {
        signature: Design { language: language.clone(), views: views.clone() }.signature(functions),
        language,
        collator_versions: vec![collate::VERSION.to_string()],
        ..ViewIndexInfo::default()
    };
    for definition in views.values() {
        let signature = definition.signature(functions);
        let state = IndexState::read(&snapshot, shared.id, &signature)?;
        let (mut seq, mut purge_seq) = (0, 0);
        if let Some(state) = state {
            if state.ready {
                (seq, purge_seq) = (state.seq, state.purge_seq);
            }
            info.sizes.active += state.active();
            info.sizes.external += state.open(inner, &snapshot).root()?.map_or(0, |r| r.external);
        }
        let (lowest, lowest_purge) = seqs.unwrap_or((u64::MAX, u64::MAX));
        seqs = Some((lowest.min(seq), lowest_purge.min(purge_seq)));
        if let Some(index) = shared.views.get(&signature) {
            info.updater_running |= index.is_running();
            info.waiting_clients += index.waiting();
        }
    }
    let (seq, purge_seq) = seqs.unwrap_or((db.update_seq, db.purge_seq));
    let pending = changes::count_after(&snapshot, shared.id, seq)?;
    info.updates_pending = UpdatesPending { minimum: pending, preferred: pending, total: pending };
    info.update_seq = Seq::Number(seq);
    info.purge_seq = Seq::Number(purge_seq);
    info.sizes = Sizes { file: inner.share_of_disk(info.sizes.active)?, ..info.sizes };
    let compacting = shared.views.compacting.lock().unwrap_or_else(PoisonError::into_inner);
    info.compact_running = compacting.iter().any(|name| name == ddoc);
    Ok(DesignInfo { name: ddoc.to_owned(), view_index: info })
}

/// Drops an index, if it still is there (and, if so asked, temporary).
pub(crate) async fn drop_index(
    inner: &Inner,
    shared: &Shared,
    signature: Signature,
    if_temporary: bool,
) -> Result<()> {
    let key = state::key(shared.id, &signature);
    let dropped = inner.transact(Durability::Deferred, move |tx| {
        let Some(row) = tx.get(Table::Meta, &key)? else { return Ok(true) };
        let state = IndexState::decode(&row)?;
        if if_temporary && !state.temporary {
            return Ok(false);
        }
        state.retire(tx);
        tx.delete(Table::Meta, key);
        Ok(true)
    });
    if dropped.await? {
        shared.views.remove(&signature);
    }
    Ok(())
}

/// Drops the indexes that no design document asks for.
pub(crate) async fn cleanup(inner: &Inner, shared: &Shared) -> Result<()> {
    let unused = {
        let snapshot = inner.store.snapshot();
        let functions = &inner.views.functions;
        let mut used = BTreeSet::new();
        // With functions that are not registered in this process, native indexes may be in use.
        let mut unknown = false;
        for design in designs(&snapshot, shared.id)? {
            for definition in design.views.values() {
                used.insert(definition.signature(functions));
                unknown |=
                    definition.is_native() && definition.mapping(functions, &shared.name).is_err();
            }
        }
        let mut unused = Vec::new();
        for (signature, state) in indexes(&snapshot, shared.id)? {
            let keep = used.contains(&signature) || (state.native && unknown && !state.temporary);
            if !keep {
                unused.push(signature);
            }
        }
        unused
    };
    for signature in unused {
        drop_index(inner, shared, signature, false).await?;
    }
    Ok(())
}

/// The design documents of a database.
fn designs(snapshot: &Snapshot, db: u32) -> Result<Vec<Design>> {
    let (low, high) = (key(db, b"_design/"), key(db, b"_design0"));
    let range = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
    let mut designs = Vec::new();
    for row in snapshot.range(Table::Docs, range) {
        let (key, row) = row?;
        let row = DocRow::decode(&row)?;
        if !row.deleted {
            let read = Read { snapshot, db, id: id_in(&key, 4)?, row: &row };
            designs.push(Design::parse(&read.winner(&GetOptions::default())?.body));
        }
    }
    Ok(designs)
}

/// The indexes of a database.
pub(crate) fn indexes(snapshot: &Snapshot, db: u32) -> Result<Vec<(Signature, IndexState)>> {
    let prefix = state::prefix(db);
    let behind = following(&prefix);
    let range = (Bound::Included(&prefix[..]), Bound::Excluded(&behind[..]));
    let rows = snapshot.range(Table::Meta, range).map(|row| {
        let (key, row) = row?;
        Ok((state::signature_in(&key)?, IndexState::decode(&row)?))
    });
    rows.collect()
}

/// Starts to write the indexes of a design document anew, and to give back the space of what was
/// there before, unless that is under way.
pub(crate) async fn compact(inner: &Arc<Inner>, shared: &Arc<Shared>, ddoc: &str) -> Result<()> {
    let design = design(inner, shared, ddoc)?;
    {
        let mut running = shared.views.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        if running.iter().any(|name| name == ddoc) {
            return Ok(());
        }
        running.push(ddoc.to_owned());
    }
    /// Takes the design document off the list whatever happens.
    struct Running(Arc<Shared>, String);
    impl Drop for Running {
        fn drop(&mut self) {
            let running = &self.0.views.compacting;
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|name| *name != self.1);
        }
    }
    let running = Running(shared.clone(), ddoc.to_owned());
    let mut indexes = Vec::new();
    for definition in design.views.into_values() {
        // What nobody can ask for now is left as it is.
        if let Ok(index) = open(inner, shared, ddoc, definition, false).await {
            indexes.push(index);
        }
    }
    let inner = inner.clone();
    let thread = std::thread::Builder::new().name("settee-compact".to_owned());
    let spawned = thread.spawn(move || {
        inner.background.fetch_add(1, Ordering::AcqRel);
        let Running(shared, ddoc) = &running;
        let task = inner.views.tasks.begin("view_compaction", &shared.name, Some(ddoc));
        let total = indexes.len() as u64;
        let mut outcome = Ok(());
        for (done, index) in indexes.iter().enumerate() {
            task.progress(done as u64, total);
            outcome = outcome.and_then(|()| rewrite(&inner, index));
        }
        let outcome = outcome.and_then(|()| {
            let turn = inner.compacting.lock().unwrap_or_else(PoisonError::into_inner);
            let compacted = inner.store.compact();
            drop(turn);
            Ok(compacted?)
        });
        if let Err(Fail(error)) = outcome {
            tracing::error!(database = shared.name, ddoc, %error, "compaction of views failed");
        }
        inner.background.fetch_sub(1, Ordering::AcqRel);
    });
    spawned.map_err(Error::internal)?;
    Ok(())
}

/// What a transaction does to an index's state.
type Change = Box<dyn FnOnce(&mut Tx<'_>, &mut IndexState) -> Result<()> + Send>;

/// Writes an index's tree anew, from its rows in order.
fn rewrite(inner: &Arc<Inner>, index: &Index) -> Result<()> {
    let _writer = index.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let snapshot = inner.store.snapshot();
    let Some(old) = index.state(&snapshot)?.filter(|state| state.ready) else { return Ok(()) };
    let change = |known: &IndexState, change: Change| -> Result<IndexState> {
        let (state_key, known) = (index.state_key(), known.clone());
        inner.store.transact(Durability::Deferred, move |tx| -> Result<IndexState> {
            state::unchanged(tx, &state_key, &known)?;
            let mut state = known;
            change(tx, &mut state)?;
            tx.put(Table::Meta, state_key, state.encode());
            Ok(state)
        })
    };
    // While it is written the new tree is where an unfinished build would be. If an earlier one did
    // not come to its end, it goes now.
    let begin = |tx: &mut Tx<'_>, state: &mut IndexState| -> Result<()> {
        if state.runs != 0 {
            tx.retire(state.runs);
        }
        state.runs = new_owner(tx)?;
        Ok(())
    };
    let state = change(&old, Box::new(begin))?;
    let owner = state.runs;
    let mut store = |nodes: Vec<(u64, Node)>| -> Result<()> {
        if inner.is_abandoned() {
            return Err(Error::new(ErrorKind::ServiceUnavailable, "the database is closed").into());
        }
        let put = move |tx: &mut Tx<'_>, _: &mut IndexState| -> Result<()> {
            put_nodes(tx, owner, nodes);
            Ok(())
        };
        change(&state, Box::new(put)).map(|_| ())
    };
    let tree = old.open(inner, &snapshot);
    let mut loader = Loader::new(&index.reducer, &mut store);
    let total = tree.len()?;
    let mut at = 0;
    while at < total {
        let to = total.min(at + ROWS);
        for (leaf, i) in tree.rows(at..to, false)? {
            loader.push(leaf.item(i))?;
        }
        at = to;
    }
    let root = loader.finish()?;
    let Nodes { next, new, added, .. } = loader.nodes;
    let end = move |tx: &mut Tx<'_>, state: &mut IndexState| -> Result<()> {
        put_nodes(tx, owner, new);
        tx.retire(state.tree);
        state.tree = std::mem::take(&mut state.runs);
        (state.root, state.next_node, state.nodes_size) = (root, next, added);
        Ok(())
    };
    change(&state, Box::new(end)).map(|_| ())
}
