//! The one integration binary. What belongs where:
//!
//! - `bad_lines`: the lines that replication is tested with.
//! - `compaction`: what the engine drops by itself.
//! - `conformance`: the list in the testkit, on memory and on disk.
//! - `design`: shows, lists, updates, rewrites, filters and validation.
//! - `filters`: filter functions of design documents, wherever changes are filtered.
//! - `couch`: what is particular to `Couch` and the embedded engine: directories, handles, ids.
//! - `remote`: the HTTP client, against our own server, hostile ones and broken lines.
//! - `random`: random operations, compared with the testkit's model.
//! - `replicate_faults`: replication over bad lines.
//! - `subscribe`: callbacks that are told of changes.
//! - `replication`: replication between databases of one process.
//! - `script`: the script engine: what functions can do, and what they cannot.
//! - `views`: indexes of the embedded engine, compared with a model that maps and sorts everything.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_lines;
mod compaction;
mod conformance;
mod couch;
#[cfg(feature = "js")]
mod design;
#[cfg(feature = "js")]
mod filters;
mod random;
#[cfg(feature = "remote")]
mod remote;
mod replicate_faults;
mod replication;
#[cfg(feature = "js")]
mod script;
mod subscribe;
mod views;
