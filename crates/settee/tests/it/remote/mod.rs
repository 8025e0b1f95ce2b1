//! The HTTP client.
//!
//! - `conformance`: the testkit's list, through the client.
//! - `hostile`: replies that no server should give.
//! - `lines`: lines that break, servers that come and go.
//! - `old`: servers that know less than ours, or say it in other words.
//! - `pouchdb`: a foreign server, where there is one.
//! - `replication`: databases on servers converge, whatever becomes of the lines.
//! - `scenarios`: what servers and databases are called, and servers that replicate.
//! - `secrets`: who is told one's credentials, and who is not.
//! - `server`: what a server knows beyond its databases.

mod conformance;
mod couchdb;
mod fake;
mod hostile;
mod line;
mod lines;
mod old;
mod pouchdb;
mod replication;
mod scenarios;
mod secrets;
mod server;
pub(crate) mod site;
