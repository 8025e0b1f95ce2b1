//! Writing trees: the nodes that a batch of sorted changes takes, and whole trees from rows in order.
//!
//! Both make new nodes and say which old ones go; whoever calls puts that into one transaction
//! together with the new root.

use super::node::{Child, Node, NodeBuilder, Place, Row, SMALL, TARGET, place};
use super::reduce::Reducer;
use super::tree::Tree;
use crate::local::corrupt;
use bytes::Bytes;
use settee_core::Result;

/// How far nodes are filled when a tree is made of rows in order, so that the next few rows that come
/// in between do not split all of them.
const FILL: usize = TARGET * 9 / 10;

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

/// New nodes and old ones.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// The number that the next node gets.
    pub(crate) next: u64,
    /// Nodes to put.
    pub(crate) new: Vec<(u64, Node)>,
    /// Nodes to delete.
    pub(crate) old: Vec<u64>,
    /// Bytes of `new`, and of `old`.
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Nodes {
    pub(crate) fn starting_at(next: u64) -> Nodes {
        Nodes { next, ..Nodes::default() }
    }

    /// Adds a node, and returns the item that stands for it one level above.
    fn add(&mut self, reducer: &Reducer, builder: &mut NodeBuilder, level: u8) -> Result<Bytes> {
        let node = builder.finish(level)?;
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
        self.new.push((id, node));
        Ok(item.into())
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
    nodes: &mut Nodes,
    ops: &[Op],
) -> Result<Bytes> {
    let mut edit = Edit { tree, reducer, nodes };
    let (mut items, mut level) = match tree.root()? {
        None => (new_rows(ops), 0),
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
            return Ok(items.items.swap_remove(0));
        }
        if items.items.is_empty() {
            return Ok(Bytes::new());
        }
        let packed = edit.pack(level, items)?;
        level += 1;
        items = Items { items: packed, appended: false };
    }
}

/// The new items of a node.
struct Items {
    items: Vec<Bytes>,
    /// All that is new is at the end.
    appended: bool,
}

impl Items {
    fn size(&self) -> usize {
        self.items.iter().map(|item| item.len() + 2).sum()
    }

    fn is_small(&self) -> bool {
        self.size() < SMALL
    }
}

fn new_rows(ops: &[Op]) -> Items {
    let items = ops.iter().filter_map(|op| op.row.clone()).collect();
    Items { items, appended: true }
}

/// What has become of a child.
enum Part {
    /// The item that stands for it: it is as it was.
    Kept(Bytes),
    /// The items that are to be in it.
    Changed(Items),
}

struct Edit<'e> {
    tree: &'e Tree,
    reducer: &'e Reducer,
    nodes: &'e mut Nodes,
}

impl Edit<'_> {
    /// The items of a node after some changes, if that makes any difference.
    fn node(&mut self, node: &Node, ops: &[Op]) -> Result<Option<Items>> {
        match node.level {
            0 => leaf(node, ops),
            _ => self.inner(node, ops),
        }
    }

    fn inner(&mut self, node: &Node, mut ops: &[Op]) -> Result<Option<Items>> {
        let mut parts: Vec<Part> = Vec::with_capacity(node.len());
        let mut changed = false;
        let mut appended = true;
        for i in 0..node.len() {
            let mine = match i + 1 < node.len() {
                false => ops.len(),
                true => {
                    let next = place(node.item(i + 1))?;
                    ops.partition_point(|op| op.place() < next)
                }
            };
            let (mine, rest) = ops.split_at(mine);
            ops = rest;
            let mut part = Part::Kept(node.shared_item(i));
            if !mine.is_empty() {
                let child = node.child(i)?;
                let below = self.below(node, child.id)?;
                if let Some(items) = self.node(&below, mine)? {
                    self.nodes.drop_node(child.id, &below);
                    changed = true;
                    appended &= i + 1 == node.len() && items.appended;
                    part = Part::Changed(items);
                }
            }
            self.join(node, &mut parts, part)?;
        }
        if !changed {
            return Ok(None);
        }
        let mut items = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Kept(item) => items.push(item),
                Part::Changed(below) => items.extend(self.pack(node.level - 1, below)?),
            }
        }
        Ok(Some(Items { items, appended }))
    }

    fn below(&self, node: &Node, id: u64) -> Result<Node> {
        let below = self.tree.node(id)?;
        match below.level + 1 == node.level {
            true => Ok(below),
            false => Err(corrupt("levels of an index's nodes")),
        }
    }

    /// Adds a part to those before it, as one with the last if either would make a small node.
    fn join(&mut self, node: &Node, parts: &mut Vec<Part>, part: Part) -> Result<()> {
        let part = match (parts.last_mut(), part) {
            (_, Part::Changed(items)) if items.items.is_empty() => return Ok(()),
            (Some(Part::Changed(last)), Part::Changed(items))
                if last.is_small() || items.is_small() =>
            {
                last.items.extend(items.items);
                last.appended = false;
                return Ok(());
            }
            (Some(Part::Changed(last)), Part::Kept(item)) if last.is_small() => {
                last.items.extend(self.open(node, &item)?);
                last.appended = false;
                return Ok(());
            }
            (Some(Part::Kept(last)), Part::Changed(items)) if items.is_small() => {
                let last = last.clone();
                let mut joined = self.open(node, &last)?;
                joined.extend(items.items);
                parts.pop();
                Part::Changed(Items { items: joined, appended: false })
            }
            (_, part) => part,
        };
        parts.push(part);
        Ok(())
    }

    /// The items of a node that was to be kept, but now is not.
    fn open(&mut self, node: &Node, item: &[u8]) -> Result<Vec<Bytes>> {
        let id = Child::decode(item)?.id;
        let below = self.below(node, id)?;
        self.nodes.drop_node(id, &below);
        Ok((0..below.len()).map(|i| below.shared_item(i)).collect())
    }

    /// Makes as many nodes of items as it takes; returns the items that stand for them.
    fn pack(&mut self, level: u8, items: Items) -> Result<Vec<Bytes>> {
        let mut left = items.size();
        let mut parts = left.div_ceil(TARGET).max(1);
        let mut packed = Vec::with_capacity(parts);
        let mut builder = NodeBuilder::default();
        for item in items.items {
            // Where rows come in order the nodes behind are left full, else all have room for more.
            let full = match items.appended {
                true => is_full(&builder, level, item.len(), TARGET),
                false => parts > 1 && is_full(&builder, level, item.len() / 2, left / parts),
            };
            if full {
                left = left.saturating_sub(builder.size());
                parts = parts.saturating_sub(1).max(1);
                packed.push(self.nodes.add(self.reducer, &mut builder, level)?);
            }
            builder.push(&item);
        }
        if builder.len() > 0 {
            packed.push(self.nodes.add(self.reducer, &mut builder, level)?);
        }
        Ok(packed)
    }
}

/// Whether the next item goes into another node. Above the leaves a node has at least two, so that
/// levels get shorter.
fn is_full(builder: &NodeBuilder, level: u8, item: usize, fill: usize) -> bool {
    let least = if level == 0 { 1 } else { 2 };
    builder.len() >= least && builder.size() + item > fill
}

/// The rows of a leaf after some changes, if that makes any difference.
fn leaf(node: &Node, ops: &[Op]) -> Result<Option<Items>> {
    let mut items = Vec::with_capacity(node.len() + ops.len());
    let mut changed = false;
    let mut at = 0;
    let mut appended = true;
    for op in ops {
        let to = node.search((at, node.len()), |other| other < op.place())?;
        items.extend((at..to).map(|i| node.shared_item(i)));
        at = to;
        let known = at < node.len() && place(node.item(at))? == op.place();
        if known {
            changed |= op.row.as_deref() != Some(node.item(at));
            at += 1;
        } else {
            changed |= op.row.is_some();
        }
        appended &= at == node.len() && !known;
        items.extend(op.row.clone());
    }
    items.extend((at..node.len()).map(|i| node.shared_item(i)));
    Ok(changed.then_some(Items { items, appended }))
}

/// Makes a tree of rows that come in order.
pub(crate) struct Loader<'r> {
    reducer: &'r Reducer,
    levels: Vec<NodeBuilder>,
    pub(crate) nodes: Nodes,
}

impl<'r> Loader<'r> {
    pub(crate) fn new(reducer: &'r Reducer) -> Loader<'r> {
        Loader { reducer, levels: Vec::new(), nodes: Nodes::starting_at(1) }
    }

    /// Adds a row, encoded.
    pub(crate) fn push(&mut self, row: &[u8]) -> Result<()> {
        self.push_at(0, row)
    }

    fn push_at(&mut self, level: usize, item: &[u8]) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(NodeBuilder::default());
        }
        let builder = &mut self.levels[level];
        if is_full(builder, level as u8, item.len(), FILL) {
            let child = self.nodes.add(self.reducer, builder, level as u8)?;
            builder.push(item);
            return self.push_at(level + 1, &child);
        }
        builder.push(item);
        Ok(())
    }

    /// The root of the tree.
    pub(crate) fn finish(&mut self) -> Result<Bytes> {
        let mut level = 0;
        let mut root = Bytes::new();
        while let Some(builder) = self.levels.get_mut(level) {
            if builder.len() > 0 {
                root = self.nodes.add(self.reducer, builder, level as u8)?;
                level += 1;
                if level < self.levels.len() {
                    self.push_at(level, &root)?;
                }
            } else {
                level += 1;
            }
        }
        Ok(root)
    }
}

/// A row's item, and its place.
pub(crate) fn row_op(row: &Row<'_>) -> Op {
    let mut item = Vec::with_capacity(row.sort.len() + row.key.len() + row.value.len() + 8);
    row.encode(&mut item);
    Op { sort: row.sort.to_vec(), n: row.n, row: Some(item.into()) }
}
