//! What is known of an index as a whole: one row of `Meta`, which every change of the index replaces.

use super::definition::Signature;
use super::tree::Tree;
use crate::local::codec::{Reader, put_bytes, put_uint};
use crate::local::databases::Inner;
use crate::local::schema::{DbId, meta};
use crate::local::{Result, corrupt};
use bytes::Bytes;
use settee_core::Error;
use settee_store::{Snapshot, Table, Tx};
use std::sync::Arc;

/// The key of the state of a database's index.
pub(crate) fn key(db: DbId, signature: &Signature) -> Vec<u8> {
    [b"v/".as_slice(), &db.to_be_bytes(), signature].concat()
}

/// What the keys of all indexes of a database begin with.
pub(crate) fn prefix(db: DbId) -> Vec<u8> {
    [b"v/".as_slice(), &db.to_be_bytes()].concat()
}

/// The signature in such a key.
pub(crate) fn signature_in(key: &[u8]) -> Result<Signature> {
    let signature = key.get(6..).and_then(|signature| signature.try_into().ok());
    Ok(signature.ok_or_else(|| corrupt("signature of an index"))?)
}

const READY: u8 = 1;
const TEMPORARY: u8 = 2;
const NATIVE: u8 = 4;
const SCANNING: u8 = 8;

/// The state of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IndexState {
    /// There is a tree. If not, the index is being made.
    pub(crate) ready: bool,
    /// No design document asks for it.
    pub(crate) temporary: bool,
    /// Its functions are native, so whoever does not know them cannot tell whether it is in use.
    pub(crate) native: bool,
    /// The owner of the keys by document.
    pub(crate) docs: DbId,
    /// The owner of the tree's nodes.
    pub(crate) tree: DbId,
    /// The owner of sorted runs of rows, while the index is being made; 0 if there are none.
    pub(crate) runs: DbId,
    /// Every change up to here is in the index.
    pub(crate) seq: u64,
    /// Every purge up to here is.
    pub(crate) purge_seq: u64,
    /// While the index is being made: documents up to this one are in the runs.
    pub(crate) scanned: Option<String>,
    /// How many documents those are.
    pub(crate) scanned_docs: u64,
    /// How many runs there are.
    pub(crate) run_count: u64,
    /// The number that the tree's next node gets.
    pub(crate) next_node: u64,
    /// Bytes of the tree's nodes.
    pub(crate) nodes_size: u64,
    /// Bytes of the keys by document.
    pub(crate) keys_size: u64,
    /// The root as a child of nothing; empty if there are no rows.
    pub(crate) root: Bytes,
}

impl IndexState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |on, flag| if on { flag } else { 0 };
        let mut out = Vec::with_capacity(64 + self.root.len());
        out.push(
            flag(self.ready, READY)
                | flag(self.temporary, TEMPORARY)
                | flag(self.native, NATIVE)
                | flag(self.scanned.is_some(), SCANNING),
        );
        for owner in [self.docs, self.tree, self.runs] {
            put_uint(&mut out, owner.into());
        }
        for number in [
            self.seq,
            self.purge_seq,
            self.run_count,
            self.next_node,
            self.nodes_size,
            self.keys_size,
            self.scanned_docs,
        ] {
            put_uint(&mut out, number);
        }
        put_bytes(&mut out, self.scanned.as_deref().unwrap_or_default().as_bytes());
        out.extend_from_slice(&self.root);
        out
    }

    pub(crate) fn decode(row: &Bytes) -> Result<IndexState> {
        let mut reader = Reader(row);
        let flags = reader.byte()?;
        let mut owner = || -> Result<DbId> {
            Ok(reader.uint()?.try_into().map_err(|_| corrupt("owner of an index"))?)
        };
        let (docs, tree, runs) = (owner()?, owner()?, owner()?);
        let [seq, purge_seq, run_count, next_node, nodes_size, keys_size, scanned_docs] = [
            reader.uint()?,
            reader.uint()?,
            reader.uint()?,
            reader.uint()?,
            reader.uint()?,
            reader.uint()?,
            reader.uint()?,
        ];
        let scanned = reader.text()?;
        Ok(IndexState {
            ready: flags & READY != 0,
            temporary: flags & TEMPORARY != 0,
            native: flags & NATIVE != 0,
            docs,
            tree,
            runs,
            seq,
            purge_seq,
            scanned: (flags & SCANNING != 0).then(|| scanned.to_owned()),
            scanned_docs,
            run_count,
            next_node,
            nodes_size,
            keys_size,
            root: row.slice_ref(reader.0),
        })
    }

    /// The state as a snapshot has it.
    pub(crate) fn read(
        snapshot: &Snapshot,
        db: DbId,
        signature: &Signature,
    ) -> Result<Option<IndexState>> {
        let row = snapshot.get(Table::Meta, &key(db, signature))?;
        row.as_ref().map(IndexState::decode).transpose()
    }

    /// The tree as a snapshot has it; empty while the index is being made.
    pub(crate) fn open(&self, inner: &Inner, snapshot: &Snapshot) -> Tree {
        Tree {
            snapshot: snapshot.clone(),
            cache: inner.views.cache.clone(),
            owner: self.tree,
            root: if self.ready { self.root.clone() } else { Bytes::new() },
        }
    }

    /// Bytes that the index has in use.
    pub(crate) fn active(&self) -> u64 {
        self.nodes_size + self.keys_size
    }

    /// Retires everything the index has.
    pub(crate) fn retire(&self, tx: &mut Tx<'_>) {
        tx.retire(self.docs);
        tx.retire(self.tree);
        if self.runs != 0 {
            tx.retire(self.runs);
        }
    }
}

/// An index's state within a transaction that changes it, if it is still what it was when the
/// transaction was prepared.
///
/// # Errors
///
/// `NotFound` if it has changed: the index, or its database, has been dropped.
pub(crate) fn unchanged(tx: &mut Tx<'_>, key: &[u8], known: &IndexState) -> Result<()> {
    let row = tx.get(Table::Meta, key)?;
    match row.as_ref().map(IndexState::decode).transpose()? {
        Some(state) if state == *known => Ok(()),
        _ => Err(dropped().into()),
    }
}

/// What an index that is no more answers.
pub(crate) fn dropped() -> Error {
    Error::new(settee_core::ErrorKind::NotFound, "index is dropped")
}

/// A number that no owner had before.
pub(crate) fn new_owner(tx: &mut Tx<'_>) -> Result<DbId> {
    let owner = match tx.get(Table::Meta, meta::NEXT_DB)? {
        None => 1,
        Some(row) => row
            .as_ref()
            .try_into()
            .map(DbId::from_be_bytes)
            .map_err(|_| corrupt("number of the next database"))?,
    };
    let next = owner.checked_add(1).ok_or_else(|| corrupt("too many databases"))?;
    tx.put(Table::Meta, meta::NEXT_DB, next.to_be_bytes().to_vec());
    Ok(owner)
}

/// Retires every index of a database that is being deleted.
pub(crate) fn retire_all(tx: &mut Tx<'_>, db: DbId) -> Result<()> {
    let prefix = prefix(db);
    let behind = crate::local::listings::following(&prefix);
    let range = (std::ops::Bound::Included(&prefix[..]), std::ops::Bound::Excluded(&behind[..]));
    for (key, row) in tx.range(Table::Meta, range, usize::MAX)? {
        IndexState::decode(&row)?.retire(tx);
        tx.delete(Table::Meta, key);
    }
    Ok(())
}

/// What the indexes of a database share with those of all others.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<super::cache::NodeCache>,
    pub(crate) functions: super::definition::Functions,
    pub(crate) tasks: super::tasks::Tasks,
}

/// Bytes of nodes that are kept in memory.
const CACHE: usize = 32 << 20;

impl Shared {
    pub(crate) fn new(script: Option<Arc<dyn crate::script::ScriptEngine>>) -> Shared {
        Shared {
            cache: Arc::new(super::cache::NodeCache::new(CACHE)),
            functions: super::definition::Functions::new(script),
            tasks: super::tasks::Tasks::default(),
        }
    }
}
