//! What can go wrong in a store.

/// Why the store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another [`Store`](crate::Store) of this one, has the directory open.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The directory holds something else, or a newer format.
    #[error("not a data directory of this version: {0}")]
    Format(String),
    /// There is no room left. Nothing of the transaction was kept. Writes fail until there is room
    /// again, and then succeed without further ado; reads go on.
    #[error("no space left on the device")]
    Full,
    /// A write or flush failed; what reached the disk is not known. Every further write is refused;
    /// reopen the store.
    #[error("an earlier write failed, reopen the store: {0}")]
    Poisoned(String),
    /// The device or the file system failed on a read.
    #[error("input/output error: {0}")]
    Io(String),
    /// Stored bytes are not what was written.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The transaction panicked. Nothing of it was kept.
    #[error("a transaction panicked: {0}")]
    Panicked(String),
    /// A key or value is longer than the store can hold. Nothing of the transaction was kept.
    #[error("a key or value is too long: {0}")]
    TooLong(String),
}

/// A result with a [`StoreError`].
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl StoreError {
    /// An error of the file system outside the engine.
    pub(crate) fn from_io(context: &str, error: &std::io::Error) -> StoreError {
        if is_full(error) {
            StoreError::Full
        } else {
            StoreError::Io(format!("{context}: {error}"))
        }
    }
}

/// Whether an error says that there is no room, on the device or in a quota.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
