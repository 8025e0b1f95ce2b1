//! The tree of a document's revisions.

/// A document's revisions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevTree {}
