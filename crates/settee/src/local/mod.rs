//! The embedded engine: a directory of databases in this process.
//!
//! A write goes `write` → [`settee_store::Store::submit`] → the store's commit thread, where it
//! meets the document's current row, and back. A read goes `read` → [`settee_store::Store::get`].
//! What the rows hold is in `schema`.
//!
//! All of it is plain blocking code that runs where it is called: a read takes microseconds, and a
//! long one (a listing, a feed, an attachment) is cut into batches between which the caller's
//! executor gets its turn. Only waiting for a commit is asynchronous.

mod adapter;
mod attachments;
pub(crate) mod changes;
mod check;
pub(crate) mod codec;
pub(crate) mod databases;
mod fuzzing;
pub(crate) mod listings;
mod maintenance;
pub(crate) mod read;
pub(crate) mod schema;
mod time_seq;
mod write;

pub use crate::views::{Emitter, NativeView};
pub use check::{CheckReport, check};
pub use databases::{Local, LocalOptions};
#[doc(hidden)]
pub use fuzzing::decode_row;

use settee_core::{Error, ErrorKind};
use settee_store::StoreError;

/// A failure inside of the engine: the public error, with conversions from the store's.
#[derive(Debug)]
pub(crate) struct Fail(pub(crate) Error);

pub(crate) type Result<T, E = Fail> = std::result::Result<T, E>;

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail(error)
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Error {
        fail.0
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Fail {
        let kind = match error {
            StoreError::Full => ErrorKind::InsufficientStorage,
            StoreError::Locked | StoreError::Closed => ErrorKind::ServiceUnavailable,
            _ => ErrorKind::Internal,
        };
        Fail(Error::new(kind, error.to_string()).with_source(error))
    }
}

/// Stored bytes are not what was written.
pub(crate) fn corrupt(what: &'static str) -> Error {
    Error::internal(StoreError::Corrupt(what.to_owned()))
}
