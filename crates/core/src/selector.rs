//! Mango selectors: which documents match.

/// A normalised selector.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {}
