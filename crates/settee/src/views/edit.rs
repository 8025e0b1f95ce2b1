//! Writing trees: the nodes that a batch of sorted changes takes, and whole trees from rows in order.
//!
//! Both make new nodes, which are stored piece by piece, and say which old ones go; whoever calls
//! puts that into one transaction together with the new root. Until then nobody knows of the new
//! nodes.

use super::node::{Child, Items, Node, Place, Row, SMALL, TARGET, place};
use super::reduce::Reducer;
use super::tree::Tree;
use crate::local::Result;
use crate::local::corrupt;
use bytes::Bytes;

/// How far nodes are filled when a tree is made of rows in order, so that the next few rows that come
/// in between do not split all of them.
const FILL: usize = TARGET * 9 / 10;

/// Bytes of nodes that are stored together.
pub(crate) const PIECE: usize = 1 << 20;

/// What happens to the row at one place.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) sort: Vec<u8>,
    pub(crate) n: u64,
    /// The row, encoded; `None` to remove the one that is there.
    pub(crate) row: Option<Bytes>,
}

impl Op {
    pub(crate) fn place(&self) -> Place<'_> {
        (&self.sort, self.n)
    }
}

/// A row's item, and its place.
pub(crate) fn row_op(row: &Row<'_>) -> Op {
    let mut item = Vec::with_capacity(row.sort.len() + row.key.len() + row.value.len() + 8);
    row.encode(&mut item);
    Op { sort: row.sort.to_vec(), n: row.n, row: Some(item.into()) }
}

/// What stores nodes, by their numbers.
pub(crate) type StoreNodes<'s> = &'s mut dyn FnMut(Vec<(u64, Node)>) -> Result<()>;

/// New nodes and old ones.
pub(crate) struct Nodes<'s> {
    /// The number that the next node gets.
    pub(crate) next: u64,
    /// New nodes that are not stored yet.
    pub(crate) new: Vec<(u64, Node)>,
    new_size: usize,
    /// Nodes that go.
    pub(crate) old: Vec<u64>,
    /// Bytes of all new nodes, and of those that go.
    pub(crate) added: u64,
    pub(crate) removed: u64,
    store: StoreNodes<'s>,
}

impl<'s> Nodes<'s> {
    pub(crate) fn new(next: u64, store: StoreNodes<'s>) -> Nodes<'s> {
        Nodes { next, new: Vec::new(), new_size: 0, old: Vec::new(), added: 0, removed: 0, store }
    }

    /// Makes a node, and returns the item that stands for it one level above.
    fn add(&mut self, reducer: &Reducer, items: &mut Items, level: u8) -> Result<Vec<u8>> {
        let node = items.finish(level)?;
        let id = self.next;
        self.next += 1;
        let (mut count, mut external) = (0, 0);
        let mut reduced = reducer.start();
        if level == 0 {
            count = node.len() as u64;
            for i in 0..node.len() {
                external += node.row(i)?.external();
            }
            reduced.rows(&node, (0, node.len()))?;
        } else {
            for i in 0..node.len() {
                let child = node.child(i)?;
                count += child.count;
                external += child.external;
                reduced.child(&node, &child)?;
            }
        }
        let reduction = reduced.store();
        let (sort, n) = place(node.item(0))?;
        let mut item = Vec::with_capacity(sort.len() + reduction.len() + 24);
        Child { sort, n, id, count, external, reduction: &reduction }.encode(&mut item);
        self.added += node.size() as u64;
        self.new_size += node.size();
        self.new.push((id, node));
        if self.new_size >= PIECE {
            self.new_size = 0;
            (self.store)(std::mem::take(&mut self.new))?;
        }
        Ok(item)
    }

    fn drop_node(&mut self, id: u64, node: &Node) {
        self.old.push(id);
        self.removed += node.size() as u64;
    }
}

/// Applies changes, which are in order, to a tree; returns the new root.
pub(crate) fn apply(
    tree: &Tree,
    reducer: &Reducer,
    nodes: &mut Nodes<'_>,
    ops: &[Op],
) -> Result<Bytes> {
    let mut edit = Edit { tree, reducer, nodes };
    let (mut items, mut level) = match tree.root()? {
        None => {
            let mut rows = Changed { appended: true, ..Changed::default() };
            ops.iter().filter_map(|op| op.row.as_ref()).for_each(|row| rows.items.push(row));
            (rows, 0)
        }
        Some(root) => {
            let node = tree.node(root.id)?;
            let Some(items) = edit.node(&node, ops)? else {
                return Ok(tree.root.clone());
            };
            edit.nodes.drop_node(root.id, &node);
            (items, node.level)
        }
    };
    // A level with one node needs none above it.
    loop {
        if level > 0 && items.items.len() == 1 {
            return Ok(Bytes::copy_from_slice(items.items.item(0)));
        }
        if items.items.is_empty() {
            return Ok(Bytes::new());
        }
        let mut above = Changed::default();
        edit.pack(level, items, &mut above.items)?;
        items = above;
        level += 1;
    }
}

/// The new items of a node.
#[derive(Default)]
struct Changed {
    items: Items,
    /// All that is new is at the end.
    appended: bool,
}

impl Changed {
    fn is_small(&self) -> bool {
        self.items.size() < SMALL
    }
}

/// What has become of some children.
enum Part {
    /// Those from one to another are as they were.
    Kept(usize, usize),
    /// The items that are to be in the place of one.
    Changed(Changed),
}

struct Edit<'e, 's> {
    tree: &'e Tree,
    reducer: &'e Reducer,
    nodes: &'e mut Nodes<'s>,
}

impl Edit<'_, '_> {
    /// The items of a node after some changes, if that makes any difference.
    fn node(&mut self, node: &Node, ops: &[Op]) -> Result<Option<Changed>> {
        match node.level {
            0 => leaf(node, ops),
            _ => self.inner(node, ops),
        }
    }

    fn inner(&mut self, node: &Node, mut ops: &[Op]) -> Result<Option<Changed>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut changed = false;
        let mut appended = true;
        let mut i = 0;
        while i < node.len() {
            // The next child that has changes in it, and those before it that have not.
            let next = match ops.first() {
                None => node.len(),
                Some(op) => {
                    let behind = node.search((i, node.len()), |other| other <= op.place())?;
                    behind.saturating_sub(1).max(i)
                }
            };
            if next > i {
                self.join(node, &mut parts, Part::Kept(i, next))?;
                i = next;
                continue;
            }
            let mine = match i + 1 < node.len() {
                false => ops.len(),
                true => {
                    let next = place(node.item(i + 1))?;
                    ops.partition_point(|op| op.place() < next)
                }
            };
            let (mine, rest) = ops.split_at(mine);
            ops = rest;
            let child = node.child(i)?;
            let below = self.below(node, child.id)?;
            let part = match self.node(&below, mine)? {
                None => Part::Kept(i, i + 1),
                Some(items) => {
                    self.nodes.drop_node(child.id, &below);
                    changed = true;
                    appended &= i + 1 == node.len() && items.appended;
                    Part::Changed(items)
                }
            };
            self.join(node, &mut parts, part)?;
            i += 1;
        }
        if !changed {
            return Ok(None);
        }
        let mut items = Items::with_capacity(node.size() + 128);
        for part in parts {
            match part {
                Part::Kept(from, to) => items.extend(node, (from, to)),
                Part::Changed(below) => self.pack(node.level - 1, below, &mut items)?,
            }
        }
        Ok(Some(Changed { items, appended }))
    }

    fn below(&self, node: &Node, id: u64) -> Result<Node> {
        let below = self.tree.node(id)?;
        match below.level + 1 == node.level {
            true => Ok(below),
            false => Err(corrupt("levels of an index's nodes").into()),
        }
    }

    /// Adds a part to those before it, as one with its neighbour if either would make a small node.
    fn join(&mut self, node: &Node, parts: &mut Vec<Part>, part: Part) -> Result<()> {
        let part = match (parts.last_mut(), part) {
            (_, Part::Changed(new)) if new.items.is_empty() => return Ok(()),
            (_, Part::Kept(from, to)) if from == to => return Ok(()),
            (Some(Part::Changed(last)), Part::Changed(new))
                if last.is_small() || new.is_small() =>
            {
                last.items.append(&new.items);
                last.appended = false;
                return Ok(());
            }
            (Some(Part::Changed(last)), Part::Kept(from, to)) if last.is_small() => {
                self.open(node, from, &mut last.items)?;
                last.appended = false;
                // The joined part may still be small.
                return self.join(node, parts, Part::Kept(from + 1, to));
            }
            (Some(Part::Kept(from, to)), Part::Changed(new)) if new.is_small() => {
                *to -= 1;
                let (from, last) = (*from, *to);
                let mut joined = Changed::default();
                self.open(node, last, &mut joined.items)?;
                joined.items.append(&new.items);
                if from == last {
                    parts.pop();
                }
                Part::Changed(joined)
            }
            (_, part) => part,
        };
        parts.push(part);
        Ok(())
    }

    /// Takes the items of a child that was to be kept, but now is not.
    fn open(&mut self, node: &Node, i: usize, items: &mut Items) -> Result<()> {
        let id = node.child(i)?.id;
        let below = self.below(node, id)?;
        self.nodes.drop_node(id, &below);
        items.extend(&below, (0, below.len()));
        Ok(())
    }

    /// Makes as many nodes of items as it takes, and adds the items that stand for them.
    fn pack(&mut self, level: u8, mut new: Changed, above: &mut Items) -> Result<()> {
        let mut left = new.items.size();
        if left <= TARGET {
            above.push(&self.nodes.add(self.reducer, &mut new.items, level)?);
            return Ok(());
        }
        let mut parts = left.div_ceil(TARGET);
        let mut node = Items::with_capacity(TARGET);
        for i in 0..new.items.len() {
            let item = new.items.item(i);
            // Where rows come in order the nodes behind are left full, else all have room for more.
            let full = match new.appended {
                true => is_full(&node, level, item.len(), TARGET),
                false => parts > 1 && is_full(&node, level, item.len() / 2, left / parts),
            };
            if full {
                left = left.saturating_sub(node.size());
                parts = parts.saturating_sub(1).max(1);
                above.push(&self.nodes.add(self.reducer, &mut node, level)?);
            }
            node.push(item);
        }
        above.push(&self.nodes.add(self.reducer, &mut node, level)?);
        Ok(())
    }
}

/// Whether the next item goes into another node. Above the leaves a node has at least two, so that
/// levels get shorter.
fn is_full(items: &Items, level: u8, next: usize, fill: usize) -> bool {
    let least = if level == 0 { 1 } else { 2 };
    items.len() >= least && items.size() + next > fill
}

/// The rows of a leaf after some changes, if that makes any difference.
fn leaf(node: &Node, ops: &[Op]) -> Result<Option<Changed>> {
    let room = node.size() + ops.len() * 64;
    let mut rows = Changed { items: Items::with_capacity(room), appended: true };
    let mut changed = false;
    let mut at = 0;
    for op in ops {
        let to = node.search((at, node.len()), |other| other < op.place())?;
        rows.items.extend(node, (at, to));
        at = to;
        let known = at < node.len() && place(node.item(at))? == op.place();
        if known {
            changed |= op.row.as_deref() != Some(node.item(at));
            at += 1;
        } else {
            changed |= op.row.is_some();
        }
        rows.appended &= at == node.len() && !known;
        if let Some(row) = &op.row {
            rows.items.push(row);
        }
    }
    rows.items.extend(node, (at, node.len()));
    Ok(changed.then_some(rows))
}

/// Makes a tree of rows that come in order.
pub(crate) struct Loader<'s> {
    reducer: &'s Reducer,
    levels: Vec<Items>,
    pub(crate) nodes: Nodes<'s>,
}

impl<'s> Loader<'s> {
    pub(crate) fn new(reducer: &'s Reducer, store: StoreNodes<'s>) -> Loader<'s> {
        Loader { reducer, levels: Vec::new(), nodes: Nodes::new(1, store) }
    }

    /// Adds a row, encoded.
    pub(crate) fn push(&mut self, row: &[u8]) -> Result<()> {
        self.push_at(0, row)
    }

    fn push_at(&mut self, level: usize, item: &[u8]) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Items::default());
        }
        let items = &mut self.levels[level];
        if is_full(items, level as u8, item.len(), FILL) {
            let child = self.nodes.add(self.reducer, items, level as u8)?;
            items.push(item);
            return self.push_at(level + 1, &child);
        }
        items.push(item);
        Ok(())
    }

    /// The root of the tree. What nodes are not stored yet is left to the caller.
    pub(crate) fn finish(&mut self) -> Result<Bytes> {
        let mut root = Vec::new();
        let mut level = 0;
        while let Some(items) = self.levels.get_mut(level) {
            if !items.is_empty() {
                root = self.nodes.add(self.reducer, items, level as u8)?;
                if level + 1 < self.levels.len() {
                    self.push_at(level + 1, &root)?;
                }
            }
            level += 1;
        }
        Ok(root.into())
    }
}
