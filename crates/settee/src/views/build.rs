//! Making an index: all documents are mapped in the order of their ids, several at a time; their rows
//! are sorted in memory, and beyond that in runs in the store; then the runs are merged into a tree.
//!
//! No view of the store is held for longer than a batch takes: while one is, the engine keeps in memory
//! what is written meanwhile, and that is the whole index.
//!
//! How far the runs reach is kept with them, so that whoever opens the store after a crash goes on
//! from there. Every change since the index was begun is taken up afterwards, like any other change,
//! so it does not matter which of them the scan has seen.

use super::edit::{Loader, Nodes, PIECE};
use super::mapping::DocRows;
use super::node::{Node, place};
use super::state::{self, IndexState, new_owner};
use super::tasks::Task;
use super::update::{Index, db_state, put_nodes};
use crate::local::codec::{Reader, put_bytes};
use crate::local::databases::{Inner, as_slice};
use crate::local::listings::following;
use crate::local::schema::{DbId, DocRow, id_in, key};
use crate::local::{Result, corrupt};
use bytes::Bytes;
use settee_core::{Document, Error, ErrorKind};
use settee_store::{Durability, Table};
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Documents that are mapped at once, and how large they may be together.
const BATCH: usize = 256;
const BATCH_SIZE: usize = 1 << 20;
/// Threads that map.
const WORKERS: usize = 4;
/// Bytes of rows in one value of a run.
const BLOCK: usize = 64 << 10;
/// Bytes of rows that are sorted in memory.
pub(crate) const MEMORY: usize = 32 << 20;

/// How many threads are worth starting.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(WORKERS)
}

/// Maps documents, on several threads if there are many.
pub(crate) fn map_all(index: &Index, docs: Vec<Document>) -> Result<Vec<DocRows>> {
    let workers = workers();
    if docs.len() < BATCH / 4 || workers < 2 {
        return index.map(&docs);
    }
    let share = docs.len().div_ceil(workers);
    thread::scope(|scope| {
        let parts: Vec<_> =
            docs.chunks(share).map(|docs| scope.spawn(|| index.map(docs))).collect();
        let mut rows = Vec::with_capacity(docs.len());
        for part in parts {
            rows.extend(part.join().map_err(|_| Error::internal("mapping panicked"))??);
        }
        Ok(rows)
    })
}

/// Drops what there is of an index, so that it is made again.
pub(crate) fn start_over(inner: &Inner, index: &Index, known: IndexState) -> Result<()> {
    let (db, state_key) = (index.db, index.state_key());
    inner.store.transact(Durability::Deferred, move |tx| -> Result<()> {
        state::unchanged(tx, &state_key, &known)?;
        let db = crate::local::databases::state(tx, db)?;
        known.retire(tx);
        let state = IndexState {
            temporary: known.temporary,
            native: known.native,
            docs: new_owner(tx)?,
            tree: new_owner(tx)?,
            seq: db.update_seq,
            purge_seq: db.purge_seq,
            ..IndexState::default()
        };
        tx.put(Table::Meta, state_key, state.encode());
        Ok(())
    })
}

/// Makes an index, or goes on where that was interrupted.
pub(crate) fn build(
    inner: &Arc<Inner>,
    index: &Index,
    state: IndexState,
    task: &Task,
) -> Result<()> {
    let mut build = Build {
        inner,
        index,
        taken: state.scanned_docs,
        state,
        rows: RowBuffer::default(),
        keys: Vec::new(),
        keys_size: 0,
        memory: inner.index_memory,
    };
    build.tidy()?;
    build.scan(task)?;
    build.load()
}

struct Build<'b> {
    inner: &'b Arc<Inner>,
    index: &'b Index,
    /// The state as it is stored.
    state: IndexState,
    /// How many documents have been taken.
    taken: u64,
    /// Rows that are in no run yet.
    rows: RowBuffer,
    /// Keys by document that are not stored yet.
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    keys_size: usize,
    memory: usize,
}

/// Some documents on their way through the mapping threads, by their number.
struct Job {
    number: u64,
    docs: Vec<Document>,
    /// The last document looked at, and how many there were.
    last: String,
    count: u64,
}

impl Build<'_> {
    /// Puts a new state into the place of the one that is stored.
    fn put_state(
        &mut self,
        state: IndexState,
        then: impl FnOnce(&mut settee_store::Tx<'_>, &mut IndexState) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (known, state_key) = (self.state.clone(), self.index.state_key());
        self.state =
            self.inner.store.transact(Durability::Deferred, move |tx| -> Result<IndexState> {
                let mut state = state;
                state::unchanged(tx, &state_key, &known)?;
                then(tx, &mut state)?;
                tx.put(Table::Meta, state_key, state.encode());
                Ok(state)
            })?;
        Ok(())
    }

    /// Removes what an interrupted build has left behind its position.
    fn tidy(&mut self) -> Result<()> {
        let snapshot = self.inner.store.snapshot();
        let state = &self.state;
        let nodes = key(state.tree, b"");
        let behind = following(&nodes);
        let range = (Bound::Included(&nodes[..]), Bound::Excluded(&behind[..]));
        if snapshot.range(Table::Index, range).next().transpose()?.is_some() {
            self.put_state(self.state.clone(), |tx, state| {
                tx.retire(state.tree);
                *state = IndexState { tree: new_owner(tx)?, nodes_size: 0, ..state.clone() };
                Ok(())
            })?;
        }
        let docs = self.state.docs;
        let mut from = match &self.state.scanned {
            Some(id) => Bound::Excluded(key(docs, id.as_bytes())),
            None => Bound::Included(key(docs, b"")),
        };
        let behind = Bound::Excluded(following(&key(docs, b"")));
        loop {
            let rows = snapshot.range(Table::Index, (as_slice(&from), as_slice(&behind)));
            let (mut keys, mut size) = (Vec::new(), 0);
            for row in rows.take(10_000) {
                let (key, row) = row?;
                size += (key.len() + row.len()) as u64;
                keys.push(key);
            }
            let Some(last) = keys.last() else { return Ok(()) };
            from = Bound::Excluded(last.to_vec());
            let keys_size = self.state.keys_size.saturating_sub(size);
            let state = IndexState { keys_size, ..self.state.clone() };
            self.put_state(state, |tx, _| {
                keys.into_iter().for_each(|key| tx.delete(Table::Index, key));
                Ok(())
            })?;
        }
    }

    /// Maps every document behind the position.
    fn scan(&mut self, task: &Task) -> Result<()> {
        let db = db_state(&self.inner.store.snapshot(), self.index.db)?;
        let total = db.doc_count + db.doc_del_count;
        let mut from = match &self.state.scanned {
            Some(id) => Bound::Excluded(key(self.index.db, id.as_bytes())),
            None => Bound::Included(key(self.index.db, b"")),
        };
        task.progress(self.taken, total);
        if total <= BATCH as u64 {
            while let Some(job) = self.next_job(&mut from, 0)? {
                self.take(self.index.map(&job.docs)?, job)?;
            }
            return self.flush_keys();
        }

        let workers = workers();
        // Two jobs for each thread: one in hand, one waiting.
        let (jobs, queue) = sync_channel::<Job>(workers);
        let (results, mapped) = sync_channel::<(Job, Result<Vec<DocRows>>)>(workers * 4);
        let queue = Mutex::new(queue);
        let index = self.index;
        thread::scope(|scope| {
            for _ in 0..workers {
                let (queue, results) = (&queue, results.clone());
                scope.spawn(move || {
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(mut job) = job else { return };
                        let docs = std::mem::take(&mut job.docs);
                        let rows = index.map(&docs);
                        // Whoever wanted the rows may have given up.
                        if results.send((job, rows)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            // Dropped at the end of this closure, before the scope waits for the threads.
            let jobs = jobs;
            let mapped = mapped;
            // What comes before its turn.
            let mut early: BTreeMap<u64, (Job, Vec<DocRows>)> = BTreeMap::new();
            let (mut sent, mut taken) = (0, 0);
            let mut more = true;
            while more || taken < sent {
                while more && sent - taken < workers as u64 * 2 {
                    if self.inner.is_abandoned() {
                        return Err(closed().into());
                    }
                    match self.next_job(&mut from, sent)? {
                        None => more = false,
                        Some(job) => {
                            sent += 1;
                            if jobs.send(job).is_err() {
                                return Err(Error::internal("mapping panicked").into());
                            }
                        }
                    }
                }
                if taken == sent {
                    break;
                }
                let Ok((job, rows)) = mapped.recv() else {
                    return Err(Error::internal("mapping panicked").into());
                };
                early.insert(job.number, (job, rows?));
                while let Some((job, rows)) = early.remove(&taken) {
                    taken += 1;
                    self.take(rows, job)?;
                    task.progress(self.taken, total);
                }
            }
            self.flush_keys()
        })
    }

    /// Reads documents for one job, from a key on, which moves behind them.
    fn next_job(&self, from: &mut Bound<Vec<u8>>, number: u64) -> Result<Option<Job>> {
        let snapshot = self.inner.store.snapshot();
        let behind = Bound::Excluded(following(&key(self.index.db, b"")));
        let mut rows = snapshot.range(Table::Docs, (as_slice(from), as_slice(&behind)));
        let mut job = Job { number, docs: Vec::new(), last: String::new(), count: 0 };
        let mut size = 0;
        while job.docs.len() < BATCH && size < BATCH_SIZE {
            let Some(row) = rows.next() else { break };
            let (key, row) = row?;
            let id = id_in(&key, 4)?;
            size += row.len();
            job.docs.extend(self.index.document(&snapshot, id, &DocRow::decode(&row)?)?);
            job.count += 1;
            job.last.clear();
            job.last.push_str(id);
        }
        if job.count == 0 {
            return Ok(None);
        }
        *from = Bound::Excluded(key(self.index.db, job.last.as_bytes()));
        Ok(Some(job))
    }

    /// Takes the rows of a job's documents.
    fn take(&mut self, docs: Vec<DocRows>, job: Job) -> Result<()> {
        self.taken += job.count;
        let mut ops = Vec::new();
        for rows in docs {
            if rows.keys.is_empty() {
                continue;
            }
            let key = key(self.state.docs, rows.id.as_bytes());
            let keys = rows.encode_keys();
            self.keys_size += key.len() + keys.len();
            self.keys.push((key, keys));
            rows.ops(&mut ops);
            for op in ops.drain(..) {
                if let Some(row) = op.row {
                    self.rows.push(&op.sort, &row);
                }
            }
        }
        if self.rows.size() >= self.memory {
            self.flush_keys()?;
            return self.spill(job.last);
        }
        if self.keys_size >= PIECE {
            self.flush_keys()?;
        }
        Ok(())
    }

    /// Stores keys by document. They count only once the position is behind them.
    fn flush_keys(&mut self) -> Result<()> {
        let keys = std::mem::take(&mut self.keys);
        let size = std::mem::take(&mut self.keys_size) as u64;
        if keys.is_empty() {
            return Ok(());
        }
        let state = IndexState { keys_size: self.state.keys_size + size, ..self.state.clone() };
        self.put_state(state, move |tx, _| {
            for (key, keys) in keys {
                tx.put(Table::Index, key, keys);
            }
            Ok(())
        })
    }

    /// Stores the rows so far as a sorted run, and moves the position behind their documents.
    fn spill(&mut self, last: String) -> Result<()> {
        if self.state.runs == 0 {
            self.put_state(self.state.clone(), |tx, state| {
                state.runs = new_owner(tx)?;
                Ok(())
            })?;
        }
        let run = self.state.run_count;
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort();
        let mut blocks = Vec::new();
        let mut block = Vec::with_capacity(BLOCK + 1024);
        let mut number = 0;
        let mut size = 0;
        for row in rows.iter() {
            put_bytes(&mut block, row);
            if block.len() >= BLOCK {
                size += block.len();
                blocks.push((block_key(self.state.runs, run, number), std::mem::take(&mut block)));
                number += 1;
            }
            if size >= PIECE {
                size = 0;
                self.put_blocks(std::mem::take(&mut blocks), self.state.clone())?;
            }
        }
        blocks.push((block_key(self.state.runs, run, number), block));
        let state = IndexState {
            run_count: run + 1,
            scanned: Some(last),
            scanned_docs: self.taken,
            ..self.state.clone()
        };
        self.put_blocks(blocks, state)
    }

    fn put_blocks(&mut self, blocks: Vec<(Vec<u8>, Vec<u8>)>, state: IndexState) -> Result<()> {
        self.put_state(state, |tx, _| {
            for (key, block) in blocks {
                tx.put(Table::Index, key, block);
            }
            Ok(())
        })
    }

    /// Merges the runs, and what is still in memory, into a tree.
    fn load(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort();
        let (owner, place) = (self.state.runs, self.inner.clone());
        let run = |run| Run { place: &place, owner, run, next: 0, block: Bytes::new() };
        let mut runs: Vec<Run<'_>> = (0..self.state.run_count).map(run).collect();
        let (inner, index, tree) = (self.inner.clone(), self.index, self.state.tree);
        let mut store = |nodes: Vec<(u64, Node)>| -> Result<()> {
            if inner.is_abandoned() {
                return Err(closed().into());
            }
            self.put_state(self.state.clone(), move |tx, _| {
                put_nodes(tx, tree, nodes);
                Ok(())
            })
        };
        let mut loader = Loader::new(&index.reducer, &mut store);
        let mut in_memory = rows.iter();
        let mut heads = BinaryHeap::new();
        for i in 0..=runs.len() {
            heads.extend(head(&mut runs, &mut in_memory, i)?);
        }
        while let Some(Head { row, run }) = heads.pop() {
            loader.push(&row)?;
            heads.extend(head(&mut runs, &mut in_memory, run)?);
        }
        let root = loader.finish()?;
        let Nodes { next, new, added, .. } = loader.nodes;
        let state = IndexState {
            ready: true,
            root,
            next_node: next,
            nodes_size: added,
            scanned: None,
            scanned_docs: 0,
            run_count: 0,
            ..self.state.clone()
        };
        self.put_state(state, move |tx, state| {
            put_nodes(tx, tree, new);
            if state.runs != 0 {
                tx.retire(std::mem::take(&mut state.runs));
            }
            Ok(())
        })
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::ServiceUnavailable, "the database is closed")
}

fn block_key(owner: DbId, run: u64, block: u64) -> Vec<u8> {
    [&owner.to_be_bytes()[..], &run.to_be_bytes(), &block.to_be_bytes()].concat()
}

/// A sorted run, read from its beginning.
struct Run<'r> {
    place: &'r Inner,
    owner: DbId,
    run: u64,
    /// The next block.
    next: u64,
    /// What is left of the block before.
    block: Bytes,
}

impl Run<'_> {
    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.block.is_empty() {
            let key = block_key(self.owner, self.run, self.next);
            match self.place.store.get(Table::Index, &key)? {
                None => return Ok(None),
                Some(block) => self.block = block,
            }
            self.next += 1;
            if self.block.is_empty() {
                return Ok(None);
            }
        }
        let mut reader = Reader(&self.block);
        let row = reader.bytes()?;
        let (row, rest) = (self.block.slice_ref(row), self.block.slice_ref(reader.0));
        self.block = rest;
        Ok(Some(row))
    }
}

/// The first row of a run that is left.
struct Head<'r> {
    row: Row<'r>,
    run: usize,
}

/// A row, encoded.
enum Row<'r> {
    Stored(Bytes),
    InMemory(&'r [u8]),
}

impl std::ops::Deref for Row<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Row::Stored(row) => row,
            Row::InMemory(row) => row,
        }
    }
}

fn head<'r>(
    runs: &mut [Run<'_>],
    in_memory: &mut impl Iterator<Item = &'r [u8]>,
    run: usize,
) -> Result<Option<Head<'r>>> {
    let row = match runs.get_mut(run) {
        Some(run) => run.next()?.map(Row::Stored),
        None => in_memory.next().map(Row::InMemory),
    };
    if let Some(row) = &row
        && place(row).is_err()
    {
        return Err(corrupt("run of an index").into());
    }
    Ok(row.map(|row| Head { row, run }))
}

// The heap gives the greatest first, which is to be the lowest row.
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (place(&other.row), place(&self.row)) {
            (Ok(other), Ok(this)) => other.cmp(&this),
            _ => std::cmp::Ordering::Equal,
        }
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

/// Encoded rows, to be sorted.
#[derive(Default)]
struct RowBuffer {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    /// The first bytes of the row's place, which tell most rows apart without looking further.
    first: u128,
    start: usize,
    len: usize,
}

impl RowBuffer {
    fn push(&mut self, sort: &[u8], row: &[u8]) {
        let mut first = [0; 16];
        let len = sort.len().min(16);
        first[..len].copy_from_slice(&sort[..len]);
        let first = u128::from_be_bytes(first);
        self.entries.push(Entry { first, start: self.bytes.len(), len: row.len() });
        self.bytes.extend_from_slice(row);
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    fn row(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.start..entry.start + entry.len).unwrap_or_default()
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|a, b| {
            a.first.cmp(&b.first).then_with(|| match (place(self.row(a)), place(self.row(b))) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => std::cmp::Ordering::Equal,
            })
        });
        self.entries = entries;
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| self.row(entry))
    }
}
