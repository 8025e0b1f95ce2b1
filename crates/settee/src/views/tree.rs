//! Reading an index's tree: where a place is among the rows, rows by their number, and what groups of
//! rows reduce to. All of it visits as many nodes as the tree is high, and those with what it
//! returns.

use super::cache::NodeCache;
use super::node::{Child, Node, Place, Row};
use super::reduce::{Accumulator, Reducer};
use crate::local::corrupt;
use crate::local::schema::DbId;
use bytes::Bytes;
use settee_core::{Error, Result, collate};
use settee_store::{Snapshot, Table};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// The key of a node.
pub(crate) fn node_key(owner: DbId, id: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&owner.to_be_bytes());
    key[4..].copy_from_slice(&id.to_be_bytes());
    key
}

/// Where a range of rows begins or ends: before or behind all rows of some key and document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The encoded key, and what follows it.
    pub(crate) sort: Vec<u8>,
    pub(crate) behind: bool,
}

impl Cut {
    fn place(&self) -> Place<'_> {
        (&self.sort, if self.behind { u64::MAX } else { 0 })
    }
}

/// A tree as it is in a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) snapshot: Snapshot,
    pub(crate) cache: Arc<NodeCache>,
    pub(crate) owner: DbId,
    /// The root as a child of nothing; empty if there are no rows.
    pub(crate) root: Bytes,
}

/// What goes over rows, in or against their order.
trait Visitor {
    /// Whether a child, all of whose rows are wanted, is dealt with without being entered. `above` is
    /// the place of the first row behind it.
    fn child(&mut self, node: &Node, child: &Child<'_>, above: Option<&[u8]>) -> Result<bool>;

    /// Deals with some rows of a leaf.
    fn rows(&mut self, leaf: &Node, rows: (usize, usize)) -> Result<ControlFlow<()>>;
}

impl Tree {
    pub(crate) fn node(&self, id: u64) -> Result<Node> {
        if let Some(node) = self.cache.get(self.owner, id) {
            return Ok(node);
        }
        let bytes = self.snapshot.get(Table::Index, &node_key(self.owner, id));
        let bytes = bytes.map_err(Error::internal)?;
        let node = Node::parse(bytes.ok_or_else(|| corrupt("a node of an index is missing"))?)?;
        self.cache.insert(self.owner, id, node.clone());
        Ok(node)
    }

    pub(crate) fn root(&self) -> Result<Option<Child<'_>>> {
        if self.root.is_empty() {
            return Ok(None);
        }
        Child::decode(&self.root).map(Some)
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> Result<u64> {
        Ok(self.root()?.map_or(0, |root| root.count))
    }

    /// How many rows come before a cut.
    pub(crate) fn rank(&self, cut: &Cut) -> Result<u64> {
        let place = cut.place();
        let Some(root) = self.root()? else { return Ok(0) };
        let mut node = self.node(root.id)?;
        let mut rank = 0;
        loop {
            let before = node.search((0, node.len()), |other| other < place)?;
            if node.level == 0 {
                return Ok(rank + before as u64);
            }
            // In the last child that begins before the cut it may end, the others are before it.
            let Some(within) = before.checked_sub(1) else { return Ok(rank) };
            for i in 0..within {
                rank += node.child(i)?.count;
            }
            node = self.child(&node, node.child(within)?.id)?;
        }
    }

    /// A node that must be one level below another.
    fn child(&self, node: &Node, id: u64) -> Result<Node> {
        let child = self.node(id)?;
        // Whatever is stored, going down comes to an end.
        match child.level < node.level {
            true => Ok(child),
            false => Err(corrupt("levels of an index's nodes")),
        }
    }

    /// Goes over the rows with these numbers, or from the last to the first of them.
    fn walk(&self, range: Range<u64>, descending: bool, visitor: &mut impl Visitor) -> Result<()> {
        let Some(root) = self.root()? else { return Ok(()) };
        let node = self.node(root.id)?;
        let walk = Walk { tree: self, range, descending };
        walk.node(&node, 0..root.count, None, visitor).map(|_| ())
    }

    /// The rows with these numbers, or from the last to the first of them, each as the leaf it is in
    /// and its place there.
    pub(crate) fn rows(&self, range: Range<u64>, descending: bool) -> Result<Vec<(Node, usize)>> {
        let mut rows = Rows { descending, rows: Vec::new() };
        self.walk(range, descending, &mut rows)?;
        Ok(rows.rows)
    }

    /// What rows reduce to in groups: at most `limit` groups, after leaving out `skip`.
    pub(crate) fn groups(
        &self,
        reducer: &Reducer,
        range: Range<u64>,
        descending: bool,
        level: Level,
        skip: u64,
        limit: usize,
    ) -> Result<Groups> {
        let mut groups = GroupVisitor {
            reducer,
            descending,
            level,
            skip,
            limit,
            current: None,
            taken: 0,
            found: Groups { rows: Vec::new(), seen: 0, skipped: 0, done: false },
        };
        self.walk(range.clone(), descending, &mut groups)?;
        if groups.taken == range.end.saturating_sub(range.start) {
            groups.finish()?;
            groups.found.done = true;
        }
        Ok(groups.found)
    }
}

struct Walk<'w> {
    tree: &'w Tree,
    range: Range<u64>,
    descending: bool,
}

impl Walk<'_> {
    /// `rows` are the numbers of the node's rows, `above` is the place behind its last.
    fn node(
        &self,
        node: &Node,
        rows: Range<u64>,
        above: Option<&[u8]>,
        visitor: &mut impl Visitor,
    ) -> Result<ControlFlow<()>> {
        if node.level == 0 {
            let within =
                |row: u64| (row.saturating_sub(rows.start)).min(node.len() as u64) as usize;
            let (from, to) = (within(self.range.start), within(self.range.end));
            return match from < to {
                true => visitor.rows(node, (from, to)),
                false => Ok(ControlFlow::Continue(())),
            };
        }
        match self.descending {
            false => self.up(node, rows.start, above, visitor),
            true => self.down(node, rows.end, above, visitor),
        }
    }

    /// From the first child to the last; `base` is the number of the first row.
    fn up(
        &self,
        node: &Node,
        mut base: u64,
        above: Option<&[u8]>,
        visitor: &mut impl Visitor,
    ) -> Result<ControlFlow<()>> {
        let mut child = node.child(0)?;
        for i in 1..=node.len() {
            let next = if i < node.len() { Some(node.child(i)?) } else { None };
            let rows = base..base.saturating_add(child.count);
            base = rows.end;
            if self.range.end <= rows.start {
                break;
            }
            let above = next.map_or(above, |next| Some(next.sort));
            if self.child(node, &child, rows, above, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let Some(next) = next else { break };
            child = next;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// From the last child to the first; `base` is the number behind the last row.
    fn down<'n>(
        &self,
        node: &'n Node,
        mut base: u64,
        mut above: Option<&'n [u8]>,
        visitor: &mut impl Visitor,
    ) -> Result<ControlFlow<()>> {
        for i in (0..node.len()).rev() {
            let child = node.child(i)?;
            let rows = base.saturating_sub(child.count)..base;
            base = rows.start;
            if rows.end <= self.range.start {
                break;
            }
            if self.child(node, &child, rows, above, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            above = Some(child.sort);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn child(
        &self,
        node: &Node,
        child: &Child<'_>,
        rows: Range<u64>,
        above: Option<&[u8]>,
        visitor: &mut impl Visitor,
    ) -> Result<ControlFlow<()>> {
        if rows.end <= self.range.start || self.range.end <= rows.start {
            return Ok(ControlFlow::Continue(()));
        }
        let whole = self.range.start <= rows.start && rows.end <= self.range.end;
        if whole && visitor.child(node, child, above)? {
            return Ok(ControlFlow::Continue(()));
        }
        let below = self.tree.child(node, child.id)?;
        self.node(&below, rows, above, visitor)
    }
}

struct Rows {
    descending: bool,
    rows: Vec<(Node, usize)>,
}

impl Visitor for Rows {
    fn child(&mut self, _: &Node, _: &Child<'_>, _: Option<&[u8]>) -> Result<bool> {
        Ok(false)
    }

    fn rows(&mut self, leaf: &Node, (from, to): (usize, usize)) -> Result<ControlFlow<()>> {
        let row = |i| (leaf.clone(), i);
        match self.descending {
            true => self.rows.extend((from..to).rev().map(row)),
            false => self.rows.extend((from..to).map(row)),
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Which rows make a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// All.
    All,
    /// Those that agree in so many first elements of their keys.
    First(usize),
    /// Those with the same key.
    Exact,
}

/// Some groups of rows.
pub(crate) struct Groups {
    /// The JSON of a key of each, and what its rows reduce to.
    pub(crate) rows: Vec<(Bytes, Bytes)>,
    /// How many rows of the range are behind these groups and those that were skipped.
    pub(crate) seen: u64,
    /// How many groups were skipped.
    pub(crate) skipped: u64,
    /// Whether there are no more.
    pub(crate) done: bool,
}

struct GroupVisitor<'r> {
    reducer: &'r Reducer,
    descending: bool,
    level: Level,
    skip: u64,
    limit: usize,
    current: Option<Group<'r>>,
    taken: u64,
    found: Groups,
}

struct Group<'r> {
    /// What the encoded keys of all its rows begin with.
    prefix: Vec<u8>,
    key: Bytes,
    /// Not there if the group is skipped.
    reduced: Option<Accumulator<'r>>,
}

impl<'r> GroupVisitor<'r> {
    /// Begins a group with a row; false if there are enough.
    fn begin(&mut self, leaf: &Node, row: &Row<'_>) -> bool {
        if self.found.rows.len() == self.limit {
            return false;
        }
        let (prefix, key) = match self.level {
            Level::All => (&[][..], Bytes::from_static(b"null")),
            Level::Exact => (row.encoded_key(), leaf.share(row.key)),
            Level::First(level) => {
                let prefix = collate::group(row.encoded_key(), level);
                let key = match prefix.len() < row.key_len {
                    true => first_elements(row.key, level).into(),
                    false => leaf.share(row.key),
                };
                (prefix, key)
            }
        };
        let skipped = self.found.skipped < self.skip;
        let reduced = (!skipped).then(|| self.reducer.start());
        self.current = Some(Group { prefix: prefix.to_vec(), key, reduced });
        true
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(group) = self.current.take() {
            match group.reduced {
                Some(reduced) => self.found.rows.push((group.key, reduced.result()?)),
                None => self.found.skipped += 1,
            }
            self.found.seen = self.taken;
        }
        Ok(())
    }
}

impl Visitor for GroupVisitor<'_> {
    fn child(&mut self, node: &Node, child: &Child<'_>, above: Option<&[u8]>) -> Result<bool> {
        let Some(group) = &mut self.current else { return Ok(false) };
        // The group's rows are side by side, so if one at the far end of the child is in it, all are.
        let far = if self.descending { Some(child.sort) } else { above };
        let inside =
            self.level == Level::All || far.is_some_and(|far| far.starts_with(&group.prefix));
        if inside {
            if let Some(reduced) = &mut group.reduced {
                reduced.child(node, child)?;
            }
            self.taken += child.count;
        }
        Ok(inside)
    }

    fn rows(&mut self, leaf: &Node, (mut from, mut to): (usize, usize)) -> Result<ControlFlow<()>> {
        while from < to {
            let next = leaf.row(if self.descending { to - 1 } else { from })?;
            let Some(group) = &mut self.current else {
                if !self.begin(leaf, &next) {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            };
            let inside =
                |i: usize| -> Result<bool> { Ok(leaf.row(i)?.sort.starts_with(&group.prefix)) };
            let rows = match (self.level == Level::All, self.descending) {
                (true, _) => (from, to),
                (_, false) if inside(to - 1)? => (from, to),
                (_, true) if inside(from)? => (from, to),
                (_, false) => {
                    (from, leaf.search((from, to), |(sort, _)| sort.starts_with(&group.prefix))?)
                }
                (_, true) => {
                    (leaf.search((from, to), |(sort, _)| !sort.starts_with(&group.prefix))?, to)
                }
            };
            if let Some(reduced) = &mut group.reduced {
                reduced.rows(leaf, rows)?;
            }
            let count = rows.1 - rows.0;
            self.taken += count as u64;
            match self.descending {
                true => to = rows.0,
                false => from = rows.1,
            }
            // A group that does not begin with the next row is at its end.
            if from < to {
                self.finish()?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The JSON of an array that has just the first elements of another.
fn first_elements(key: &[u8], level: usize) -> Vec<u8> {
    let text = std::str::from_utf8(key).unwrap_or_default();
    let mut out = vec![b'['];
    for (i, element) in settee_core::json::elements(text).take(level).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(element.as_bytes());
    }
    out.push(b']');
    out
}
