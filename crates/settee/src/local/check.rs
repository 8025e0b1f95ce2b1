//! `settee check`: reads everything and compares every row with the rows it must agree with.

use super::databases::Local;
use super::schema::{
    BlobRow, BodyRow, DbEntry, DbState, DocRow, LocalRow, PurgeRow, SEQ_BLOCK, SeqRow,
    StoredAttachment, chunk_key, id_in, key, meta, seq_in, seq_key, side,
};
use super::{Fail, LocalOptions, Result, listings::following};
use crate::views;
use md5::{Digest as _, Md5};
use settee_core::rev_tree::Stored;
use settee_core::{Error, json};
use settee_store::{Snapshot, Table};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

/// What `check` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Databases that were read.
    pub databases: u64,
    /// Documents, deleted ones included.
    pub documents: u64,
    /// Stored revisions.
    pub revisions: u64,
    /// Attachments, each content once.
    pub attachments: u64,
    /// Indexes of views.
    pub indexes: u64,
    /// What is not as it must be; nothing if all is well.
    pub problems: Vec<String>,
}

/// So many problems are listed; a broken disk can have more than anyone reads.
const PROBLEMS: usize = 1000;

/// Opens a data directory and checks every invariant of what it holds.
///
/// # Errors
///
/// Those of [`Local::open`]. What is wrong with the data is in the report.
pub fn check(dir: impl AsRef<Path>) -> settee_core::Result<CheckReport> {
    let dir = dir.as_ref();
    if !dir.is_dir() {
        let reason = format!("{} is not a directory", dir.display());
        return Err(Error::new(settee_core::ErrorKind::NotFound, reason));
    }
    Local::open(dir, &LocalOptions::default())?.check()
}

impl Local {
    /// Checks every invariant of what is stored, as it is at this moment.
    ///
    /// # Errors
    ///
    /// Those of the store. What is wrong with the data is in the report.
    pub fn check(&self) -> settee_core::Result<CheckReport> {
        let snapshot = self.inner.store.snapshot();
        let mut report = CheckReport::default();
        for (name, entry) in databases(&snapshot)? {
            report.databases += 1;
            let mut check = Check { snapshot: &snapshot, db: entry.id, name, report: &mut report };
            if let Err(Fail(error)) = check.run() {
                check.problem(format!("cannot be read: {error}"));
            }
        }
        Ok(report)
    }
}

fn databases(snapshot: &Snapshot) -> Result<Vec<(String, DbEntry)>> {
    let range = (Bound::Included(b"d/".as_slice()), Bound::Excluded(b"d0".as_slice()));
    let rows = snapshot.range(Table::Meta, range);
    let databases = rows.map(|row| {
        let (key, value) = row?;
        let name = meta::name_in(&key).unwrap_or("?").to_owned();
        Ok((name, DbEntry::decode(&value)?))
    });
    databases.collect()
}

struct Check<'c> {
    snapshot: &'c Snapshot,
    db: u32,
    name: String,
    report: &'c mut CheckReport,
}

impl Check<'_> {
    fn problem(&mut self, what: String) {
        if self.report.problems.len() < PROBLEMS {
            self.report.problems.push(format!("{}: {what}", self.name));
        }
    }

    fn rows(&self, table: Table, prefix: &[u8]) -> settee_store::Rows {
        let behind = following(prefix);
        self.snapshot.range(table, (Bound::Included(prefix), Bound::Excluded(behind.as_slice())))
    }

    fn run(&mut self) -> Result<()> {
        let db = self.db;
        let prefix = key(db, b"");
        let Some(state) = self.snapshot.get(Table::Meta, &meta::state(db))? else {
            self.problem("has no state".to_owned());
            return Ok(());
        };
        let state = DbState::decode(&state)?;

        // Documents, and what they say the other tables hold.
        let (mut alive, mut deleted, mut external) = (0, 0, 0);
        let mut seqs = BTreeMap::new();
        let mut bodies = BTreeSet::new();
        let mut conflicts = BTreeSet::new();
        let mut blobs: BTreeMap<u64, (u64, StoredAttachment)> = BTreeMap::new();
        for row in self.rows(Table::Docs, &prefix) {
            let (key, value) = row?;
            let id = id_in(&key, 4)?.to_owned();
            self.report.documents += 1;
            let row = DocRow::decode(&value)?;
            let tree = row.tree()?;
            let leaves = tree.leaves();
            let Some(winner) = leaves.first() else {
                self.problem(format!("{id:?} has no leaves"));
                continue;
            };
            if winner.rev != row.winner
                || winner.stored != (Stored { deleted: row.deleted, seq: row.body_seq })
                || tree.is_conflicted() != row.conflicted
            {
                self.problem(format!("{id:?} does not agree with its revision tree"));
            }
            if row.seq > state.update_seq {
                self.problem(format!("{id:?} has a sequence from the future"));
            }
            match row.deleted {
                true => deleted += 1,
                false => alive += 1,
            }
            external += row.external;
            if row.conflicted {
                conflicts.insert(id.clone());
            }
            for (rev, stored) in tree.stored() {
                self.report.revisions += 1;
                if tree.get(&rev).and_then(|node| node.stored) != Some(stored) {
                    self.problem(format!("{id:?} has {rev} twice"));
                }
                let inline = row.body.as_ref().filter(|_| row.body_seq == stored.seq).cloned();
                let body = match inline {
                    Some(body) => Some(body),
                    None => {
                        bodies.insert(stored.seq);
                        self.snapshot.get(Table::Bodies, &seq_key(db, stored.seq))?
                    }
                };
                let Some(body) = body else {
                    self.problem(format!("{id:?} lacks the body of {rev}"));
                    continue;
                };
                let len = body.len();
                let body = BodyRow::decode(&body)?;
                if json::normalize(&body.text, &json::Limits::default()).ok().as_ref()
                    != Some(&body.text)
                {
                    self.problem(format!("{id:?} has a body of {rev} that is not normalised JSON"));
                }
                let sizes = (body.external(), len as u64);
                if stored.seq == row.body_seq && sizes != (row.external, row.body_len) {
                    self.problem(format!("{id:?} has the wrong size"));
                }
                for attachment in body.attachments {
                    blobs.entry(attachment.blob).or_insert((0, attachment)).0 += 1;
                }
            }
            let leaves = leaves.into_iter().map(|leaf| leaf.rev).collect();
            let expected = SeqRow { deleted: row.deleted, id, leaves };
            if let Some(other) = seqs.insert(row.seq, expected) {
                self.problem(format!("{:?} shares its sequence", other.id));
            }
        }
        for (what, stored, found) in [
            ("documents", state.doc_count, alive),
            ("deleted documents", state.doc_del_count, deleted),
            ("bytes", state.external, external),
        ] {
            if stored != found {
                self.problem(format!("counts {stored} {what}, but there are {found}"));
            }
        }

        // Sequences, and how many of them are in use in each block.
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for row in self.rows(Table::Seqs, &prefix) {
            let (key, value) = row?;
            let seq = seq_in(&key)?;
            *counts.entry(seq / SEQ_BLOCK).or_default() += 1;
            if seqs.remove(&seq) != Some(SeqRow::decode(&value, true)?) {
                self.problem(format!("change {seq} does not agree with its document"));
            }
        }
        if let Some((seq, row)) = seqs.pop_first() {
            self.problem(format!("change {seq}, of {:?}, is missing", row.id));
        }
        let count_prefix = side::seq_count(db, 0);
        for row in self.rows(Table::Side, &count_prefix[..5]) {
            let (key, value) = row?;
            let block = key.get(5..).and_then(|block| block.try_into().ok());
            let block = block.map_or(u64::MAX, u64::from_be_bytes);
            if counts.remove(&block) != Some(super::write::seq_count_in(&value)?) {
                self.problem(format!("the count of changes in block {block} is wrong"));
            }
        }
        if !counts.is_empty() {
            self.problem("a count of changes is missing".to_owned());
        }

        for row in self.rows(Table::Bodies, &prefix) {
            let (key, _) = row?;
            let seq = seq_in(&key)?;
            if !bodies.contains(&seq) {
                self.problem(format!("body {seq} belongs to no revision"));
            }
        }
        for row in self.rows(Table::Side, &side::conflict(db, "")) {
            let (key, _) = row?;
            let id = id_in(&key, 5)?;
            if !conflicts.remove(id) {
                self.problem(format!("{id:?} is listed as conflicted, but is not"));
            }
        }
        if let Some(id) = conflicts.pop_first() {
            self.problem(format!("{id:?} is conflicted, but not listed"));
        }
        for row in self.rows(Table::Side, &side::local(db, "")) {
            LocalRow::decode(&row?.1)?;
        }
        let purges = side::purge(db, 0);
        for row in self.rows(Table::Side, &purges[..5]) {
            PurgeRow::decode(&row?.1)?;
        }
        let times = super::time_seq::read(self.snapshot, db)?;
        if let Some(problem) = times.problem(&state) {
            self.problem(problem.to_owned());
        }
        let (snapshot, mut problems) = (self.snapshot, Vec::new());
        let indexes = views::check(snapshot, db, &state, &mut |what| problems.push(what))?;
        self.report.indexes += indexes;
        problems.into_iter().for_each(|what| self.problem(what));
        self.blobs(blobs)
    }

    /// Blobs: who has them, and whether the bytes are what their digests say.
    fn blobs(&mut self, mut used: BTreeMap<u64, (u64, StoredAttachment)>) -> Result<()> {
        let db = self.db;
        let prefix = side::blob(db, 0);
        let mut chunks: BTreeMap<u64, u32> = BTreeMap::new();
        for row in self.rows(Table::Chunks, &key(db, b"")) {
            let (key, _) = row?;
            let blob = key.get(4..12).and_then(|blob| blob.try_into().ok());
            *chunks.entry(blob.map_or(u64::MAX, u64::from_be_bytes)).or_default() += 1;
        }
        for row in self.rows(Table::Side, &prefix[..5]) {
            let (row_key, value) = row?;
            let number = row_key.get(5..).and_then(|number| number.try_into().ok());
            let number = number.map_or(u64::MAX, u64::from_be_bytes);
            let row = BlobRow::decode(&value)?;
            self.report.attachments += 1;
            let Some((refs, attachment)) = used.remove(&number) else {
                self.problem(format!("attachment bytes {number} belong to no revision"));
                continue;
            };
            if refs != row.refs || attachment.stored_length != row.length {
                self.problem(format!("attachment bytes {number} are counted wrongly"));
            }
            let (mut md5, mut sha, mut length) = (Md5::new(), Sha256::new(), 0);
            for index in 0..row.chunks() {
                if let Some(chunk) =
                    self.snapshot.get(Table::Chunks, &chunk_key(db, number, index))?
                {
                    md5.update(&chunk);
                    sha.update(&chunk);
                    length += chunk.len() as u64;
                }
            }
            let intact = length == row.length
                && <[u8; 16]>::from(md5.finalize()) == attachment.digest.0
                && <[u8; 32]>::from(sha.finalize()) == row.hash;
            if !intact {
                self.problem(format!("attachment {:?} is damaged", attachment.name));
            }
            if chunks.remove(&number).unwrap_or(0) != row.chunks() {
                self.problem(format!("attachment bytes {number} have the wrong chunks"));
            }
            let by_hash = self.snapshot.get(Table::Side, &side::blob_by_hash(db, &row.hash))?;
            if by_hash.as_deref() != Some(&number.to_be_bytes()) {
                self.problem(format!("attachment bytes {number} cannot be found by their hash"));
            }
        }
        if let Some((number, _)) = used.pop_first() {
            self.problem(format!("attachment bytes {number} are missing"));
        }
        for number in chunks.into_keys() {
            if self.snapshot.get(Table::Meta, &meta::upload(db, number))?.is_none() {
                self.problem(format!("chunks of {number} belong to no attachment"));
            }
        }
        Ok(())
    }
}
