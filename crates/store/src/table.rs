//! Tables, rows and ranges.

use bytes::Bytes;
use std::ops::Bound;

/// The tables of a store.
///
/// In all but [`Meta`](Table::Meta) the first four bytes of a key, big-endian, are the number of the
/// *owner* it belongs to, so that [`Tx::retire`](crate::Tx::retire) can drop everything of an owner
/// at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Small rows that are read often and belong to the whole store. Never dropped by `retire`.
    Meta,
    /// Documents by id.
    Docs,
    /// Changes by sequence.
    Seqs,
    /// Bodies that are not in their document's row, by write order.
    Bodies,
    /// Everything else that is small: local documents, conflicts, purges, counts, blobs.
    Side,
    /// Attachment chunks.
    Chunks,
    /// Index rows.
    Index,
}

impl Table {
    /// All tables, in the order of their numbers.
    pub const ALL: [Table; 7] = [
        Table::Meta,
        Table::Docs,
        Table::Seqs,
        Table::Bodies,
        Table::Side,
        Table::Chunks,
        Table::Index,
    ];

    /// The table's place in [`ALL`](Table::ALL).
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// The bounds of a scan.
pub(crate) type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Whether no key can be in a range. Ordered maps panic on some such ranges.
pub(crate) fn is_empty(range: &Range<'_>) -> bool {
    match *range {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
        _ => false,
    }
}

/// The bounds of a scan, kept.
pub(crate) fn owned(range: &Range<'_>) -> (Bound<Bytes>, Bound<Bytes>) {
    (range.0.map(Bytes::copy_from_slice), range.1.map(Bytes::copy_from_slice))
}
