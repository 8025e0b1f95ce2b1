//! Databases of a server: CouchDB of any version, Cloudant, PouchDB Server, or another Settee.
//!
//! [`Remote`] is the server, an implementation of [`Host`](crate::adapter::Host); what it knows
//! beyond that (users, sessions, configuration, the server's own replicator) are its methods.
//! Nothing is assumed that only some servers do: sequences are opaque, and where an endpoint is
//! missing, an older one is used.
//!
//! ```no_run
//! # async fn example() -> settee::Result<()> {
//! use settee::adapter::Host;
//! use settee::remote::{Remote, RemoteOptions};
//!
//! let remote = Remote::connect("http://admin:secret@localhost:5984/", &RemoteOptions::new())?;
//! println!("CouchDB {}", remote.version().await?);
//! remote.create("people").await?;
//! let people = remote.database("people")?;
//! println!("{} documents", people.info().await?.doc_count);
//! # Ok(()) }
//! ```
//!
//! # Failures
//!
//! What may pass is tried again, a bounded number of times with growing pauses: requests that found
//! no connection, reads that lost it, answers that say "later". A write whose fate is unknown is
//! repeated only in a way that cannot apply it twice, and its outcome is found out by looking. What
//! remains is an error of kind [`Unreachable`](settee_core::ErrorKind::Unreachable) or
//! [`Timeout`](settee_core::ErrorKind::Timeout). Live feeds go on for ever.
//!
//! A server is not trusted: replies are read in bounded memory, and what makes no sense in them is
//! an error of kind [`BadReply`](settee_core::ErrorKind::BadReply).

mod auth;
mod body;
mod cache;
mod changes;
mod connect;
mod database;
mod find;
mod function;
mod host;
mod http;
mod multipart;
mod options;
mod replicator;
mod retry;
mod rows;
mod runtime;
mod server;
mod status;
mod url;
mod write;

pub use auth::SessionToken;
pub use host::{Remote, database};
pub use options::RemoteOptions;
pub use replicator::{Endpoint, Replicate};
pub use server::{Config, Session, Version};
pub use status::ConnectionStatus;
