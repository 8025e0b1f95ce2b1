//! Ordered bytes with snapshots and durable group commit.
//!
//! The storage boundary of [`settee`](https://docs.rs/settee): it knows tables, keys and values, and
//! nothing of documents. The storage engine is named in this crate only, and there only in one
//! module.
//!
//! ```
//! # use settee_store::{Durability, Store, StoreError, Table};
//! # fn main() -> Result<(), StoreError> {
//! let store = Store::memory();
//! store.transact(Durability::Flush, |tx| {
//!     tx.put(Table::Meta, "greeting", "hello");
//!     Ok::<_, StoreError>(())
//! })?;
//! assert_eq!(store.get(Table::Meta, b"greeting")?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Transactions run one after the other on one thread, which commits those that wait as a group with
//! one flush. Reads never wait for it.

mod commit;
mod engine;
mod error;
mod format;
mod options;
mod snapshot;
mod store;
mod table;
mod tx;

pub use error::{Result, StoreError};
pub use options::{StoreOptions, StoreStats};
pub use snapshot::{Rows, Snapshot};
pub use store::{Durability, Store};
pub use table::{Row, Table};
pub use tx::Tx;
