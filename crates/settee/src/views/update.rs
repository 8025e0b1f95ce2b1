//! Bringing an index forward: from the changes since it was last, to rows and the new position in
//! one transaction.
//!
//! An index has one updater at a time, on a thread of its own, which ends when it has reached what
//! was asked for. Whoever asked waits for [`Index::advanced`].

use super::build;
use super::definition::{Definition, Signature};
use super::edit::{self, Nodes, Op};
use super::mapping::{DocRows, Mapping, removals};
use super::reduce::Reducer;
use super::state::{self, IndexState};
use super::tasks::Task;
use super::tree::node_key;
use crate::local::databases::{Inner, Shared};
use crate::local::read::{self, Read};
use crate::local::schema::{
    DbId, DbState, DocRow, PurgeRow, SeqRow, key, meta, seq_in, seq_key, side,
};
use crate::local::{Fail, Result, changes, corrupt};
use event_listener::Event;
use settee_core::options::GetOptions;
use settee_core::{Document, Error, ErrorKind};
use settee_store::{Durability, Snapshot, Table};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Changes that go into one transaction: other writers wait no longer than that takes.
const BATCH: usize = 1000;
/// Bytes of documents after which no change is added to a transaction.
const BATCH_SIZE: usize = 8 << 20;

/// One index, as this process knows it.
pub(crate) struct Index {
    pub(crate) db: DbId,
    pub(crate) signature: Signature,
    pub(crate) definition: Definition,
    /// A design document that has it, for whoever wants to know what is going on.
    pub(crate) design: String,
    pub(crate) mapping: Arc<dyn Mapping>,
    pub(crate) reducer: Reducer,
    /// Held by whatever writes the index.
    pub(crate) writer: Mutex<()>,
    work: Mutex<Work>,
    /// Notified after every step, and when an updater ends.
    advanced: Event,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("db", &self.db).field("design", &self.design).finish()
    }
}

#[derive(Default)]
struct Work {
    /// The sequence to be reached.
    goal: u64,
    running: bool,
    waiting: u64,
    /// How many updaters have failed, and why the last one has.
    failures: u64,
    failure: Option<(ErrorKind, String, String)>,
}

impl Index {
    pub(crate) fn new(
        db: DbId,
        signature: Signature,
        definition: Definition,
        design: &str,
        mapping: Arc<dyn Mapping>,
        reducer: Reducer,
    ) -> Index {
        Index {
            db,
            signature,
            definition,
            design: design.to_owned(),
            mapping,
            reducer,
            writer: Mutex::default(),
            work: Mutex::default(),
            advanced: Event::new(),
        }
    }

    pub(crate) fn state_key(&self) -> Vec<u8> {
        state::key(self.db, &self.signature)
    }

    pub(crate) fn state(&self, snapshot: &Snapshot) -> Result<Option<IndexState>> {
        IndexState::read(snapshot, self.db, &self.signature)
    }

    /// Whether an updater is at work.
    pub(crate) fn is_running(&self) -> bool {
        self.work().running
    }

    /// How many wait for one.
    pub(crate) fn waiting(&self) -> u64 {
        self.work().waiting
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that documents have in this index.
    pub(crate) fn map(&self, docs: &[Document]) -> Result<Vec<DocRows>> {
        let emitted = self.mapping.map(docs)?;
        if emitted.len() != docs.len() {
            return Err(corrupt("a map function's answer").into());
        }
        let rows = docs.iter().zip(emitted).map(|(doc, emitted)| {
            DocRows::new(doc.id.as_deref().unwrap_or_default(), emitted, &self.definition)
        });
        Ok(rows.collect())
    }

    /// A document as the map function gets it; `None` if it is none of its business.
    pub(crate) fn document(
        &self,
        snapshot: &Snapshot,
        id: &str,
        row: &DocRow,
    ) -> Result<Option<Document>> {
        if row.deleted || (id.starts_with("_design/") && !self.definition.include_design) {
            return Ok(None);
        }
        let options = GetOptions {
            conflicts: true,
            deleted_conflicts: true,
            local_seq: self.definition.local_seq,
            ..GetOptions::default()
        };
        Read { snapshot, db: self.db, id, row }.winner(&options).map(Some)
    }
}

/// What an index is brought forward to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    seq: u64,
    purge_seq: u64,
}

impl Goal {
    /// Everything that has been written.
    pub(crate) fn now(inner: &Inner, db: DbId) -> Result<Goal> {
        let state = db_state(&inner.store.snapshot(), db)?;
        Ok(Goal { seq: state.update_seq, purge_seq: state.purge_seq })
    }

    fn is_reached(self, state: &IndexState) -> bool {
        state.ready && state.seq >= self.seq && state.purge_seq >= self.purge_seq
    }
}

pub(crate) fn db_state(snapshot: &Snapshot, db: DbId) -> Result<DbState> {
    let row = snapshot.get(Table::Meta, &meta::state(db))?.ok_or_else(Error::no_database)?;
    Ok(DbState::decode(&row)?)
}

/// Waits until an index has reached a goal.
pub(crate) async fn reach(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    index: &Arc<Index>,
    goal: Goal,
) -> Result<()> {
    struct Waiting<'w>(&'w Index);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.work().waiting -= 1;
        }
    }
    let reached = || -> Result<bool> {
        let state = index.state(&inner.store.snapshot())?;
        Ok(state.is_some_and(|state| goal.is_reached(&state)))
    };
    if reached()? {
        return Ok(());
    }
    let failures = {
        let mut work = index.work();
        work.waiting += 1;
        work.failures
    };
    let _waiting = Waiting(index);
    loop {
        let listener = index.advanced.listen();
        if reached()? {
            return Ok(());
        }
        {
            let work = index.work();
            if work.failures > failures
                && let Some((kind, name, reason)) = &work.failure
            {
                return Err(Error::new(*kind, reason.clone()).with_name(name.clone()).into());
            }
        }
        start(inner, shared, index, goal)?;
        listener.await;
    }
}

/// Has an index brought forward to a goal by somebody else.
pub(crate) fn start(
    inner: &Arc<Inner>,
    shared: &Arc<Shared>,
    index: &Arc<Index>,
    goal: Goal,
) -> Result<()> {
    {
        let mut work = index.work();
        work.goal = work.goal.max(goal.seq);
        if std::mem::replace(&mut work.running, true) {
            return Ok(());
        }
    }
    let thread = std::thread::Builder::new().name("settee-index".to_owned());
    let (of_thread, shared, handle) = (inner.clone(), shared.clone(), index.clone());
    let spawned = thread.spawn(move || {
        of_thread.background.fetch_add(1, Ordering::AcqRel);
        loop {
            let outcome = run(&of_thread, &shared, &handle);
            let mut work = handle.work();
            match outcome {
                // Somebody has asked for more meanwhile.
                Ok(reached) if work.goal > reached => continue,
                Ok(_) => {}
                Err(Fail(error)) => {
                    tracing::warn!(
                        database = shared.name, design = handle.design, %error,
                        "an index could not be brought forward"
                    );
                    work.failures += 1;
                    let (name, reason) = (error.name().to_owned(), error.reason().to_owned());
                    work.failure = Some((error.kind(), name, reason));
                }
            }
            work.running = false;
            break;
        }
        handle.advanced.notify(usize::MAX);
        of_thread.background.fetch_sub(1, Ordering::AcqRel);
    });
    if let Err(error) = spawned {
        index.work().running = false;
        return Err(Error::internal(error).into());
    }
    Ok(())
}

/// Brings an index forward until everything asked for is in it; returns the sequence it is at.
fn run(inner: &Arc<Inner>, shared: &Shared, index: &Index) -> Result<u64> {
    let _writer = index.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut progress: Option<(Task, u64, u64)> = None;
    loop {
        if inner.is_abandoned() {
            return Err(Error::new(ErrorKind::ServiceUnavailable, "the database is closed").into());
        }
        let snapshot = inner.store.snapshot();
        let db = db_state(&snapshot, index.db)?;
        let state = match index.state(&snapshot)? {
            Some(state) => state,
            None => return Err(state::dropped().into()),
        };
        if !state.ready {
            let task = inner.views.tasks.begin("indexer", &shared.name, Some(&index.design));
            build::build(inner, index, &snapshot, state, &task)?;
            index.advanced.notify(usize::MAX);
            continue;
        }
        if state.purge_seq < db.purge_seq && db.first_purge > state.purge_seq + 1 {
            // Which documents were purged is no longer known.
            build::start_over(inner, index, state)?;
            continue;
        }
        let current = state.seq >= db.update_seq && state.purge_seq >= db.purge_seq;
        if current || (state.seq >= index.work().goal && state.purge_seq >= db.purge_seq) {
            return Ok(state.seq);
        }
        let (task, total, done) = match &mut progress {
            Some(progress) => progress,
            None => {
                let total = changes::count_after(&snapshot, index.db, state.seq)?;
                let task = inner.views.tasks.begin("indexer", &shared.name, Some(&index.design));
                progress.insert((task, total, 0))
            }
        };
        task.progress(*done, *total);
        *done += step(inner, index, &snapshot, &db, state)? as u64;
        index.advanced.notify(usize::MAX);
    }
}

/// Takes the next changes into an index; returns how many.
fn step(
    inner: &Inner,
    index: &Index,
    snapshot: &Snapshot,
    db: &DbState,
    known: IndexState,
) -> Result<usize> {
    let mut docs = BTreeMap::new();
    let mut size = 0;
    let mut look = |id: String| -> Result<usize> {
        if !docs.contains_key(&id) {
            let row = read::doc_row(snapshot, index.db, &id)?;
            let doc = match row {
                Some(row) => index.document(snapshot, &id, &row)?,
                None => None,
            };
            let size = doc.as_ref().map_or(0, |doc| doc.body.text().len());
            docs.insert(id, doc);
            return Ok(size);
        }
        Ok(0)
    };
    let mut state = known.clone();
    // Of purged documents no change may be left that tells of them.
    if state.purge_seq < db.purge_seq {
        let low = side::purge(index.db, state.purge_seq);
        let high = side::purge(index.db, db.purge_seq);
        let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
        for row in snapshot.range(Table::Side, range) {
            look(PurgeRow::decode(&row?.1)?.id)?;
        }
        state.purge_seq = db.purge_seq;
    }
    let low = seq_key(index.db, state.seq);
    let high = seq_key(index.db, db.update_seq);
    let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
    let mut count = 0;
    state.seq = db.update_seq;
    if known.seq < db.update_seq {
        for row in snapshot.range(Table::Seqs, range) {
            let (key, row) = row?;
            size += look(SeqRow::decode(&row, false)?.id)?;
            count += 1;
            if count == BATCH || size >= BATCH_SIZE {
                state.seq = seq_in(&key)?;
                break;
            }
        }
    }

    let ids: Vec<String> = docs.keys().cloned().collect();
    let rows = build::map_all(index, docs.into_values().flatten().collect())?;

    // What was there goes, unless what is new takes its place.
    let mut ops: Vec<Op> = Vec::new();
    let mut keys = Vec::new();
    let mut new = rows.into_iter().peekable();
    for id in ids {
        let key = key(state.docs, id.as_bytes());
        let old = snapshot.get(Table::Index, &key)?;
        let rows = new.next_if(|rows| rows.id == id).filter(|rows| !rows.keys.is_empty());
        if let Some(old) = &old {
            state.keys_size = state.keys_size.saturating_sub((key.len() + old.len()) as u64);
            removals(&id, old, &mut ops)?;
        }
        match rows {
            Some(rows) => {
                rows.ops(&mut ops);
                let encoded = rows.encode_keys();
                state.keys_size += (key.len() + encoded.len()) as u64;
                if old.as_deref() != Some(&encoded) {
                    keys.push((key, Some(encoded)));
                }
            }
            None if old.is_some() => keys.push((key, None)),
            None => {}
        }
    }
    // Insertions come first among those of one place, and stay.
    ops.sort_by(|a, b| a.place().cmp(&b.place()).then(a.row.is_none().cmp(&b.row.is_none())));
    ops.dedup_by(|later, first| later.place() == first.place());

    let mut nodes = Nodes::starting_at(state.next_node);
    if !ops.is_empty() {
        let tree = known.open(inner, snapshot);
        state.root = edit::apply(&tree, &index.reducer, &mut nodes, &ops)?;
    }
    state.next_node = nodes.next;
    state.nodes_size = (state.nodes_size + nodes.added).saturating_sub(nodes.removed);
    let (owner, state_key) = (state.tree, index.state_key());
    let fresh = nodes.new.clone();
    inner.store.transact(Durability::Deferred, move |tx| -> Result<()> {
        state::unchanged(tx, &state_key, &known)?;
        for (id, node) in nodes.new {
            tx.put(Table::Index, node_key(owner, id).to_vec(), node.into_bytes());
        }
        for id in nodes.old {
            tx.delete(Table::Index, node_key(owner, id).to_vec());
        }
        for (key, keys) in keys {
            match keys {
                Some(keys) => tx.put(Table::Index, key, keys),
                None => tx.delete(Table::Index, key),
            }
        }
        tx.put(Table::Meta, state_key, state.encode());
        Ok(())
    })?;
    // Not before, since numbers of nodes that were not stored are given again.
    for (id, node) in fresh {
        inner.views.cache.insert(owner, id, node);
    }
    Ok(count)
}
