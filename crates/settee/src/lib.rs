//! A CouchDB-compatible document database to embed, serve and sync.
//!
//! Documents are JSON objects with an id and a revision. A change must be based on the current
//! revision, or it is refused; changes made apart from each other are kept side by side as
//! conflicting revisions, the same one of which wins everywhere. That makes data that lives in more
//! than one place safe to merge, and it is CouchDB's model down to the revision ids.
//!
//! ```
//! # futures_executor::block_on(async {
//! use serde_json::json;
//! use settee::Couch;
//!
//! let couch = Couch::temporary()?; // or Couch::open("data")?, or Couch::memory()?
//! let db = couch.create("example").await?;
//!
//! // Documents go in as JSON text, as values, or as anything serde can serialize.
//! let saved = db.put(json!({"_id": "ada", "born": 1815})).await?;
//! assert_eq!(saved.rev.pos, 1);
//!
//! // Read, change, save.
//! let mut ada = db.get("ada").await?;
//! ada.set("died", 1852)?;
//! db.save(&mut ada).await?;
//!
//! // Lists and changes are made with builders.
//! assert_eq!(db.all_docs().fetch().await?.total_rows, Some(1));
//! let changes = db.changes().include_docs().fetch().await?;
//! assert_eq!(changes.changes[0].revs, [ada.rev.unwrap()]);
//! # Ok::<(), settee::Error>(()) }).unwrap();
//! ```
//!
//! # Where things are
//!
//! - [`Couch`] holds databases, [`Database`] is one, [`Document`] is what is in it.
//! - [`Error`] says what went wrong, in terms of what you can do about it.
//! - [`ConflictResolution`] keeps documents that somebody else changed first, for a decision.
//! - [`options`] has everything that can be asked of a database, [`wire`] what it answers.
//! - [`adapter`] is the boundary underneath: implement [`Adapter`](adapter::Adapter) and
//!   [`Host`](adapter::Host), and everything else works on it.
#![cfg_attr(
    feature = "blocking",
    doc = "- [`blocking`] is the same API without `async`, for programs without a runtime."
)]
//!
//! # Runtimes
//!
//! The embedded database needs no async runtime, and works under any. Streams stop their work when
//! they are dropped; a future that is dropped may leave its write done or undone, never half done.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `blocking` | no | `settee::blocking`, the whole API without `async` |
//! | `remote` | no | `settee::remote`, databases of a CouchDB or of anything that speaks its protocol |
//! | `js` | no | functions of design documents in JavaScript: needs a C compiler |

pub mod adapter;
pub mod design;
pub mod find;
pub mod local;
#[cfg(feature = "remote")]
pub mod remote;
pub mod replicate;
pub mod script;

mod all_docs;
#[cfg(feature = "blocking")]
pub mod blocking;
mod changes;
mod conflict;
mod couch;
mod database;
mod env;
mod expire;
mod input;
mod keep_indexed;
mod view;
mod views;

pub use all_docs::{AllDocs, Listing};
pub use changes::{Changes, FeedEvent, FeedStatus, Subscription};
pub use conflict::{ConflictResolution, Pending};
pub use couch::Couch;
pub use database::Database;
pub use find::{Find, IndexDefinition};
pub use input::{AttachmentBody, DocRef, IntoDocument};
pub use replicate::{Replication, Sync};
pub use settee_core::{
    Attachment, AttachmentData, Body, Digest, Document, Encoding, Error, ErrorKind, Result, Rev,
    RevId, Revisions, options, selector::Selector, wire,
};
pub use view::{Row, View, ViewDefinition, ViewResult};

/// What most programs use, to be imported whole.
///
/// The traits for streams come with it, because changes and listings are streams.
pub mod prelude {
    pub use crate::{Couch, Database, Document, Error, IntoDocument, Result};
    pub use futures_util::{StreamExt, TryStreamExt};
}

/// The examples of the README, so that they stay true.
#[cfg(all(doctest, feature = "blocking"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
