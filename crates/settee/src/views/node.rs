//! Nodes of an index's tree: their bytes, and how to find something in them without reading them all.
//!
//! A node is packed into one value of the store and never changed: an edit writes new nodes and
//! drops the old. So whoever holds an old snapshot still finds what it refers to, and a cache can
//! never be out of date. Mirrors `docs/format-index.md`: change both together.

use crate::local::codec::{Reader, put_bytes, put_uint};
use crate::local::corrupt;
use bytes::Bytes;
use settee_core::Result;

/// A node is filled up to so many bytes. One that is written for a single changed row costs its size,
/// and so do all above it; larger ones make listings cheaper.
pub(crate) const TARGET: usize = 4096;
/// With less than this in it, a node that is written is joined with its neighbour.
pub(crate) const SMALL: usize = TARGET / 4;

/// Offsets take four bytes instead of two.
const WIDE: u8 = 0x80;

/// Where an item comes in a tree: its bytes in the order of the view (key, then document), then a
/// number that tells rows of one document with one key apart.
pub(crate) type Place<'a> = (&'a [u8], u64);

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// The encoded key, then the document's id.
    pub(crate) sort: &'a [u8],
    pub(crate) n: u64,
    /// How many bytes of `sort` are the key.
    pub(crate) key_len: usize,
    /// The key as JSON.
    pub(crate) key: &'a [u8],
    /// The value as JSON.
    pub(crate) value: &'a [u8],
}

impl<'a> Row<'a> {
    pub(crate) fn encoded_key(&self) -> &'a [u8] {
        self.sort.get(..self.key_len).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> Result<&'a str> {
        let id = self.sort.get(self.key_len..).and_then(|id| std::str::from_utf8(id).ok());
        id.ok_or_else(|| corrupt("row of a view without a document"))
    }

    /// What the row adds to the size of an index as JSON.
    pub(crate) fn external(&self) -> u64 {
        (self.sort.len().saturating_sub(self.key_len) + self.key.len() + self.value.len()) as u64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.sort);
        put_uint(out, self.n);
        put_uint(out, self.key_len as u64);
        put_bytes(out, self.key);
        out.extend_from_slice(self.value);
    }

    pub(crate) fn decode(item: &'a [u8]) -> Result<Row<'a>> {
        let mut item = Reader(item);
        Ok(Row {
            sort: item.bytes()?,
            n: item.uint()?,
            key_len: usize::try_from(item.uint()?).unwrap_or(usize::MAX),
            key: item.bytes()?,
            value: item.0,
        })
    }
}

/// One node below another: where it is, and what there is to know of all rows under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child<'a> {
    /// The place of the first row.
    pub(crate) sort: &'a [u8],
    pub(crate) n: u64,
    pub(crate) id: u64,
    /// How many rows.
    pub(crate) count: u64,
    /// Their size as JSON.
    pub(crate) external: u64,
    /// What they reduce to.
    pub(crate) reduction: &'a [u8],
}

impl<'a> Child<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.sort);
        put_uint(out, self.n);
        put_uint(out, self.id);
        put_uint(out, self.count);
        put_uint(out, self.external);
        out.extend_from_slice(self.reduction);
    }

    pub(crate) fn decode(item: &'a [u8]) -> Result<Child<'a>> {
        let mut item = Reader(item);
        Ok(Child {
            sort: item.bytes()?,
            n: item.uint()?,
            id: item.uint()?,
            count: item.uint()?,
            external: item.uint()?,
            reduction: item.0,
        })
    }
}

/// The place that any item begins with.
pub(crate) fn place(item: &[u8]) -> Result<Place<'_>> {
    let mut item = Reader(item);
    Ok((item.bytes()?, item.uint()?))
}

/// A packed node: rows if its level is 0, else children.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    bytes: Bytes,
    pub(crate) level: u8,
    wide: bool,
    len: usize,
    /// Where the items begin.
    items: usize,
}

impl Node {
    pub(crate) fn parse(bytes: Bytes) -> Result<Node> {
        let bad = || corrupt("node of an index");
        let mut head = Reader(&bytes);
        let first = head.byte()?;
        let len = u32::from_be_bytes(head.array()?) as usize;
        let wide = first & WIDE != 0;
        let items = len.checked_mul(if wide { 4 } else { 2 }).and_then(|size| size.checked_add(5));
        let items = items.filter(|&items| items <= bytes.len()).ok_or_else(bad)?;
        let node = Node { level: first & !WIDE, wide, len, items, bytes };
        if len == 0 || node.end(len - 1) != node.bytes.len() - items {
            return Err(bad());
        }
        Ok(node)
    }

    /// How many items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where an item ends.
    fn end(&self, i: usize) -> usize {
        let at = 5 + i * if self.wide { 4 } else { 2 };
        let offset = |bytes: &[u8]| bytes.iter().fold(0, |sum, &b| sum << 8 | usize::from(b));
        match self.wide {
            true => self.bytes.get(at..at + 4).map_or(0, offset),
            false => self.bytes.get(at..at + 2).map_or(0, offset),
        }
    }

    fn span(&self, i: usize) -> (usize, usize) {
        let start = if i == 0 { 0 } else { self.end(i - 1) };
        (self.items + start, self.items + self.end(i))
    }

    /// The bytes of an item; none if the node is damaged, which fails when they are read.
    pub(crate) fn item(&self, i: usize) -> &[u8] {
        let (start, end) = self.span(i);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Bytes that are in this node, kept together with it.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    pub(crate) fn row(&self, i: usize) -> Result<Row<'_>> {
        Row::decode(self.item(i))
    }

    pub(crate) fn child(&self, i: usize) -> Result<Child<'_>> {
        Child::decode(self.item(i))
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The first of items `from..to` for which `before` does not hold; it holds for those before.
    pub(crate) fn search(
        &self,
        (from, to): (usize, usize),
        before: impl Fn(Place<'_>) -> bool,
    ) -> Result<usize> {
        let (mut low, mut high) = (from, to);
        while low < high {
            let middle = low + (high - low) / 2;
            match before(place(self.item(middle))?) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }
}

/// Items that are to be a node, or several.
#[derive(Debug, Default)]
pub(crate) struct Items {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Items {
    /// None yet, but room for so many bytes.
    pub(crate) fn with_capacity(size: usize) -> Items {
        Items { ends: Vec::with_capacity(size / 32), bytes: Vec::with_capacity(size) }
    }

    pub(crate) fn push(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(item);
        self.ends.push(self.bytes.len());
    }

    /// Adds items `from..to` of a node.
    pub(crate) fn extend(&mut self, node: &Node, (from, to): (usize, usize)) {
        if from >= to {
            return;
        }
        let ((start, _), (_, end)) = (node.span(from), node.span(to - 1));
        let base = self.bytes.len();
        self.bytes.extend_from_slice(node.bytes.get(start..end).unwrap_or_default());
        self.ends.extend((from..to).map(|i| base + node.items + node.end(i) - start));
    }

    /// Adds all of the others.
    pub(crate) fn append(&mut self, others: &Items) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.ends.extend(others.ends.iter().map(|end| base + end));
    }

    pub(crate) fn item(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What a node of these takes.
    pub(crate) fn size(&self) -> usize {
        5 + self.ends.len() * 2 + self.bytes.len()
    }

    /// The node of these items, of which there must be one at least; then there are none.
    pub(crate) fn finish(&mut self, level: u8) -> Result<Node> {
        let wide = self.bytes.len() > usize::from(u16::MAX);
        let width = if wide { 4 } else { 2 };
        let size = 5 + self.ends.len() * width + self.bytes.len();
        let mut bytes = Vec::with_capacity(size);
        bytes.push(if wide { level | WIDE } else { level });
        bytes.extend_from_slice(&(self.ends.len() as u32).to_be_bytes());
        for end in self.ends.drain(..) {
            match wide {
                true => bytes.extend_from_slice(&(end as u32).to_be_bytes()),
                false => bytes.extend_from_slice(&(end as u16).to_be_bytes()),
            }
        }
        bytes.extend_from_slice(&self.bytes);
        self.bytes.clear();
        Node::parse(bytes.into())
    }
}

impl Node {
    /// The node's bytes, as they are stored.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_back() {
        let value = vec![b'7'; 70_000];
        for values in [&[b"1".as_slice(), b"22"][..], &[b"1", &value]] {
            let mut builder = Items::default();
            for (n, value) in values.iter().enumerate() {
                let mut item = Vec::new();
                let row = Row { sort: b"keyid", n: n as u64, key_len: 3, key: b"\"k\"", value };
                row.encode(&mut item);
                builder.push(&item);
            }
            let node = builder.finish(0).unwrap();
            let node = Node::parse(node.into_bytes()).unwrap();
            assert_eq!((node.level, node.len()), (0, 2));
            for (n, value) in values.iter().enumerate() {
                let row = node.row(n).unwrap();
                assert_eq!((row.n, row.value), (n as u64, *value));
                assert_eq!((row.encoded_key(), row.id().unwrap()), (&b"key"[..], "id"));
            }
            assert_eq!(node.search((0, 2), |place| place < (b"keyid", 1)).unwrap(), 1);
            assert_eq!(node.search((0, 2), |place| place < (b"l", 0)).unwrap(), 2);
        }
    }

    #[test]
    fn damaged_nodes_are_errors() {
        let mut builder = Items::default();
        let mut item = Vec::new();
        Row { sort: b"a", n: 0, key_len: 1, key: b"1", value: b"2" }.encode(&mut item);
        builder.push(&item);
        let bytes = builder.finish(0).unwrap().into_bytes();
        for len in 0..bytes.len() {
            assert!(Node::parse(bytes.slice(..len)).is_err());
        }
        for i in 0..bytes.len() {
            let mut other = bytes.to_vec();
            other[i] ^= 0x55;
            // Whatever it is, reading it does not panic.
            if let Ok(node) = Node::parse(other.into()) {
                for i in 0..node.len() {
                    let _ = node.row(i).and_then(|row| row.id().map(|_| ()));
                    let _ = node.child(i);
                }
            }
        }
    }
}
