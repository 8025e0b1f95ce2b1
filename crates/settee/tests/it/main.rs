//! The one integration binary. What belongs where:
//!
//! - `compaction`: what the engine drops by itself.
//! - `conformance`: the list in the testkit, on memory and on disk.
//! - `design`: shows, lists, updates, rewrites, filters and validation.
//! - `couch`: what is particular to `Couch` and the embedded engine: directories, handles, ids.
//! - `remote`: the HTTP client, against our own server, hostile ones and broken lines.
//! - `random`: random operations, compared with the testkit's model.
//! - `subscribe`: callbacks that are told of changes.
//! - `replication`: replication between databases of one process.
//! - `script`: the script engine: what functions can do, and what they cannot.
//! - `views`: indexes of the embedded engine, compared with a model that maps and sorts everything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod compaction;
mod conformance;
mod couch;
#[cfg(feature = "js")]
mod design;
mod random;
#[cfg(feature = "remote")]
mod remote;
mod replication;
#[cfg(feature = "js")]
mod script;
mod subscribe;
mod views;
