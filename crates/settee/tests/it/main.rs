//! The one integration binary. What belongs where:
//!
//! - `compaction`: what the engine drops by itself.
//! - `conformance`: the list in the testkit, on memory and on disk.
//! - `couch`: what is particular to `Couch` and the embedded engine: directories, handles, ids.
//! - `random`: random operations, compared with the testkit's model.
//! - `views`: indexes of the embedded engine, compared with a model that maps and sorts everything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod compaction;
mod conformance;
mod couch;
mod random;
mod views;
