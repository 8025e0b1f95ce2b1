//! CouchDB's document model, without disk, network, clock, randomness, threads or async.
//!
//! Everything here is a pure function of its input, so that the embedded engine, the server, the
//! remote client and the tests share one reading of a document, one revision tree, one order of
//! keys and one table of errors.
//!
//! This crate is versioned in lockstep with [`settee`](https://docs.rs/settee), which re-exports
//! what applications need; depend on that one.

pub mod attachment;
pub mod collate;
pub mod document;
pub mod error;
pub mod find;
pub mod id;
pub mod json;
pub mod options;
pub mod parameters;
pub mod rev;
pub mod rev_tree;
pub mod selector;
pub mod time;
pub mod wire;

pub use attachment::{Attachment, AttachmentData, Digest, Encoding};
pub use document::{Body, Document, Revisions};
pub use error::{Error, ErrorKind, Result};
pub use rev::{Rev, RevId};
pub use rev_tree::RevTree;
