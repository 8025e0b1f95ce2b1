//! Bringing an index forward: from the changes since it was last, to rows and the new position in
//! one transaction.
//!
//! An index has one updater at a time, on a thread of its own, which ends when it has reached what
//! was asked for. Whoever asked waits for [`Index::advanced`].

use super::build;
use super::definition::{Definition, Signature};
use super::edit::{self, Nodes, Op};
use super::mapping::{DocRows, Mapping, removals};
use super::node::Node;
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
use bytes::Bytes;
use event_listener::Event;
use settee_core::options::GetOptions;
use settee_core::{Document, Error, ErrorKind};
use settee_store::{Durability, Snapshot, Table, Tx};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Changes that are taken up together. The more, the more of them go into one leaf, which is written
/// once for all.
const BATCH: usize = 128 << 10;
/// Bytes of rows after which no change is added to those.
const BATCH_SIZE: usize = 16 << 20;
/// Documents that are mapped together, and bytes after which none is added.
const MAPPED: usize = 1000;
const MAPPED_SIZE: usize = 4 << 20;

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
    /// Whether there are no nodes but those that the tree has.
    tidy: AtomicBool,
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
            tidy: AtomicBool::new(false),
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
            drop(snapshot);
            build::build(inner, index, state, &task)?;
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
    tidy(inner, index, snapshot, &known)?;
    let mut batch = Batch::new(index, snapshot, &known);
    // Of purged documents no change may be left that tells of them.
    let mut purged = BTreeSet::new();
    if known.purge_seq < db.purge_seq {
        let low = side::purge(index.db, known.purge_seq);
        let high = side::purge(index.db, db.purge_seq);
        let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
        for row in snapshot.range(Table::Side, range) {
            let id = PurgeRow::decode(&row?.1)?.id;
            if purged.insert(id.clone()) {
                batch.look_at(id)?;
            }
        }
    }
    let mut seq = db.update_seq;
    let mut count = 0;
    if known.seq < db.update_seq {
        let low = seq_key(index.db, known.seq);
        let high = seq_key(index.db, db.update_seq);
        let range = (Bound::Excluded(low.as_slice()), Bound::Included(high.as_slice()));
        for row in snapshot.range(Table::Seqs, range) {
            let (key, row) = row?;
            let id = SeqRow::decode(&row, false)?.id;
            if !purged.contains(&id) {
                batch.look_at(id)?;
            }
            count += 1;
            if count == BATCH || batch.size >= BATCH_SIZE {
                seq = seq_in(&key)?;
                break;
            }
        }
    }
    batch.map()?;
    let Batch { mut ops, keys, keys_size, .. } = batch;
    // Insertions come first among those of one place, and stay.
    ops.sort_by(|a, b| a.place().cmp(&b.place()).then(a.row.is_none().cmp(&b.row.is_none())));
    ops.dedup_by(|later, first| later.place() == first.place());

    let owner = known.tree;
    let state_key = index.state_key();
    let mut store = |nodes: Vec<(u64, Node)>| -> Result<()> {
        index.tidy.store(false, Ordering::Release);
        let (state_key, known) = (state_key.clone(), known.clone());
        inner.store.transact(Durability::Deferred, move |tx| -> Result<()> {
            state::unchanged(tx, &state_key, &known)?;
            put_nodes(tx, owner, nodes);
            Ok(())
        })
    };
    let mut nodes = Nodes::new(known.next_node, &mut store);
    let mut root = known.root.clone();
    if !ops.is_empty() {
        root = edit::apply(&known.open(inner, snapshot), &index.reducer, &mut nodes, &ops)?;
    }
    let Nodes { next, new, old, added, removed, .. } = nodes;
    let state = IndexState {
        seq,
        purge_seq: db.purge_seq,
        next_node: next,
        nodes_size: (known.nodes_size + added).saturating_sub(removed),
        keys_size: known.keys_size.saturating_add_signed(keys_size),
        root,
        ..known.clone()
    };
    let fresh = new.clone();
    inner.store.transact(Durability::Deferred, move |tx| -> Result<()> {
        state::unchanged(tx, &state_key, &known)?;
        put_nodes(tx, owner, new);
        for id in old {
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
    index.tidy.store(true, Ordering::Release);
    // Not before, since numbers of nodes that nobody knows of are given again.
    for (id, node) in fresh {
        inner.views.cache.insert(owner, id, node);
    }
    Ok(count)
}

pub(crate) fn put_nodes(tx: &mut Tx<'_>, owner: DbId, nodes: Vec<(u64, Node)>) {
    for (id, node) in nodes {
        tx.put(Table::Index, node_key(owner, id).to_vec(), node.into_bytes());
    }
}

/// Deletes nodes that were stored for a root that then was not.
fn tidy(inner: &Inner, index: &Index, snapshot: &Snapshot, state: &IndexState) -> Result<()> {
    if index.tidy.load(Ordering::Acquire) {
        return Ok(());
    }
    let low = node_key(state.tree, state.next_node);
    let high = node_key(state.tree, u64::MAX);
    let range = (Bound::Included(&low[..]), Bound::Included(&high[..]));
    let rows = snapshot.range(Table::Index, range).map(|row| Ok(row?.0));
    let keys: Vec<Bytes> = rows.collect::<Result<_>>()?;
    if !keys.is_empty() {
        let (state_key, known) = (index.state_key(), state.clone());
        inner.store.transact(Durability::Deferred, move |tx| -> Result<()> {
            state::unchanged(tx, &state_key, &known)?;
            keys.into_iter().for_each(|key| tx.delete(Table::Index, key));
            Ok(())
        })?;
    }
    index.tidy.store(true, Ordering::Release);
    Ok(())
}

/// Changes on their way to a tree.
struct Batch<'b> {
    index: &'b Index,
    snapshot: &'b Snapshot,
    /// The owner of the keys by document.
    owner: DbId,
    /// Documents that were read but not mapped yet, by id; `None` is one that has no rows any more.
    docs: BTreeMap<String, Option<Document>>,
    docs_size: usize,
    /// What is to be done to the rows, and to the keys by document.
    ops: Vec<Op>,
    keys: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// By how much the keys by document grow.
    keys_size: i64,
    /// Bytes of `ops` and `keys`.
    size: usize,
}

impl<'b> Batch<'b> {
    fn new(index: &'b Index, snapshot: &'b Snapshot, state: &IndexState) -> Batch<'b> {
        Batch {
            index,
            snapshot,
            owner: state.docs,
            docs: BTreeMap::new(),
            docs_size: 0,
            ops: Vec::new(),
            keys: Vec::new(),
            keys_size: 0,
            size: 0,
        }
    }

    /// Reads a document as it is now.
    fn look_at(&mut self, id: String) -> Result<()> {
        let row = read::doc_row(self.snapshot, self.index.db, &id)?;
        let doc = match row {
            Some(row) => self.index.document(self.snapshot, &id, &row)?,
            None => None,
        };
        self.docs_size += doc.as_ref().map_or(0, |doc| doc.body.text().len());
        self.docs.insert(id, doc);
        match self.docs.len() >= MAPPED || self.docs_size >= MAPPED_SIZE {
            true => self.map(),
            false => Ok(()),
        }
    }

    /// Maps the documents read so far: what was there goes, and what is emitted now comes.
    fn map(&mut self) -> Result<()> {
        self.docs_size = 0;
        let docs = std::mem::take(&mut self.docs);
        let ids: Vec<String> = docs.keys().cloned().collect();
        let rows = build::map_all(self.index, docs.into_values().flatten().collect())?;
        let mut rows = rows.into_iter().peekable();
        for id in ids {
            let key = key(self.owner, id.as_bytes());
            let old = self.snapshot.get(Table::Index, &key)?;
            let rows = rows.next_if(|rows| rows.id == id).filter(|rows| !rows.keys.is_empty());
            let before = self.ops.len();
            if let Some(old) = &old {
                self.keys_size -= (key.len() + old.len()) as i64;
                removals(&id, old, &mut self.ops)?;
            }
            let new = rows.as_ref().map(DocRows::encode_keys);
            if let (Some(rows), Some(new)) = (rows, &new) {
                self.keys_size += (key.len() + new.len()) as i64;
                rows.ops(&mut self.ops);
            }
            let sizes = self.ops[before..].iter();
            self.size += sizes
                .map(|op| op.sort.len() + op.row.as_ref().map_or(0, Bytes::len) + size_of::<Op>())
                .sum::<usize>();
            if old.as_deref() != new.as_deref() {
                self.size += key.len() + new.as_ref().map_or(0, Vec::len);
                self.keys.push((key, new));
            }
        }
        Ok(())
    }
}
