//! `settee check` for indexes: whether a tree is what it says of itself, and agrees with the keys by
//! document.

use super::mapping::decode_keys;
use super::node::{Child, Node};
use super::state::IndexState;
use super::upkeep::indexes;
use crate::local::listings::following;
use crate::local::schema::{DbId, DbState, id_in, key};
use crate::local::{Result, corrupt};
use settee_store::{Snapshot, Table};
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

/// Checks every index of a database; says how many there are, and what is wrong.
pub(crate) fn check(
    snapshot: &Snapshot,
    db: DbId,
    state: &DbState,
    problem: &mut dyn FnMut(String),
) -> Result<u64> {
    let mut count = 0;
    for (signature, index) in indexes(snapshot, db)? {
        count += 1;
        let name = crate::env::hex(&signature);
        let mut problem = |what: &str| problem(format!("index {name}: {what}"));
        if index.seq > state.update_seq || index.purge_seq > state.purge_seq {
            problem("is ahead of its database");
        }
        if index.ready
            && let Err(error) = Check::new(snapshot, &index).run(&mut problem)
        {
            problem(&format!("cannot be read: {}", error.0));
        }
    }
    Ok(count)
}

struct Check<'c> {
    snapshot: &'c Snapshot,
    index: &'c IndexState,
    /// A sum over hashes of places: that of the tree and that of the keys by document are the same
    /// if the places are, in whatever order.
    places: u64,
    hasher: rustc_hash::FxBuildHasher,
    rows: u64,
    nodes: u64,
    nodes_size: u64,
    last: Option<(Vec<u8>, u64)>,
}

impl Check<'_> {
    fn new<'c>(snapshot: &'c Snapshot, index: &'c IndexState) -> Check<'c> {
        Check {
            snapshot,
            index,
            places: 0,
            hasher: rustc_hash::FxBuildHasher,
            rows: 0,
            nodes: 0,
            nodes_size: 0,
            last: None,
        }
    }

    fn hash(&self, sort: &[u8], n: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(sort);
        hasher.write_u64(n);
        hasher.finish()
    }

    fn run(&mut self, problem: &mut dyn FnMut(&str)) -> Result<()> {
        if !self.index.root.is_empty() {
            let root = Child::decode(&self.index.root)?;
            self.node(&root, None, problem)?;
        }
        let (rows, places) = (self.rows, self.places);
        let (mut listed, mut listed_places, mut keys_size) = (0_u64, 0_u64, 0);
        let prefix = key(self.index.docs, b"");
        let behind = following(&prefix);
        let range = (Bound::Included(&prefix[..]), Bound::Excluded(&behind[..]));
        for row in self.snapshot.range(Table::Index, range) {
            let (key, keys) = row?;
            keys_size += (key.len() + keys.len()) as u64;
            let id = id_in(&key, 4)?;
            for (mut sort, n) in decode_keys(&keys)? {
                sort.extend_from_slice(id.as_bytes());
                listed += 1;
                listed_places = listed_places.wrapping_add(self.hash(&sort, n));
            }
        }
        if (rows, places) != (listed, listed_places) {
            problem("rows do not agree with the keys by document");
        }
        if keys_size != self.index.keys_size || self.nodes_size != self.index.nodes_size {
            problem("sizes are counted wrongly");
        }
        // Nodes of later numbers are of an update that is under way, or was.
        let prefix = key(self.index.tree, b"");
        let behind = super::tree::node_key(self.index.tree, self.index.next_node);
        let range = (Bound::Included(&prefix[..]), Bound::Excluded(&behind[..]));
        if self.snapshot.range(Table::Index, range).count() as u64 != self.nodes {
            problem("there are nodes that are not in the tree");
        }
        Ok(())
    }

    fn node(
        &mut self,
        said: &Child<'_>,
        level: Option<u8>,
        problem: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let row = self.snapshot.get(Table::Index, &super::tree::node_key(self.index.tree, said.id));
        let node = Node::parse(row?.ok_or_else(|| corrupt("a node of an index is missing"))?)?;
        self.nodes += 1;
        self.nodes_size += node.size() as u64;
        if level.is_some_and(|level| node.level != level) {
            problem("a node has the wrong level");
        }
        if said.id >= self.index.next_node {
            problem("a node has a number from the future");
        }
        if super::node::place(node.item(0))? != (said.sort, said.n) {
            problem("a node does not begin with the row that it is known by");
        }
        let (mut count, mut external) = (0, 0);
        for i in 0..node.len() {
            if node.level == 0 {
                let row = node.row(i)?;
                count += 1;
                external += row.external();
                row.id()?;
                let place = (row.sort.to_vec(), row.n);
                if self.last.as_ref().is_some_and(|last| *last >= place) {
                    problem("rows are not in order");
                }
                self.places = self.places.wrapping_add(self.hash(row.sort, row.n));
                self.rows += 1;
                self.last = Some(place);
            } else {
                let child = node.child(i)?;
                count += child.count;
                external += child.external;
                self.node(&child, Some(node.level - 1), problem)?;
            }
        }
        if (count, external) != (said.count, said.external) {
            problem("the rows below a node are counted wrongly");
        }
        Ok(())
    }
}
