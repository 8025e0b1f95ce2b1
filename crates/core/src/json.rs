//! The one reading of JSON: a single pass that checks limits, splits off the `_` members, writes
//! normalised text and feeds the revision hash.

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep arrays and objects may nest.
    pub depth: usize,
    /// The largest document, in bytes of normalised text (CouchDB's `max_document_size`).
    pub document: usize,
    /// The largest inline attachment, in bytes of content.
    pub attachment: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { depth: 500, document: 8_000_000, attachment: 1 << 30 }
    }
}
