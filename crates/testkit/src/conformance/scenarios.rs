//! scenarios

#![allow(missing_docs)] // A case is described by its name.
