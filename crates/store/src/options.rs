//! How a store is opened, and what it tells of itself.

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Memory for cached blocks, in bytes; taken as it is needed. More makes reads of a large working
    /// set faster; a large attachment that is read takes all of it. 32 MiB.
    pub cache: u64,
    /// Bytes of the device that are left alone: with less than this available, writes fail with
    /// [`StoreError::Full`](crate::StoreError::Full), so that what the store does behind the scenes
    /// has room to finish. Transactions that retire an owner and compactions, which give back space,
    /// may take half of it. 64 MiB; with 0 it ends where the device does.
    pub reserve: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions { cache: 32 << 20, reserve: 64 << 20 }
    }
}

impl StoreOptions {
    /// The options with this much [`cache`](StoreOptions::cache).
    #[must_use]
    pub fn cache(mut self, bytes: u64) -> StoreOptions {
        self.cache = bytes;
        self
    }

    /// The options with this [`reserve`](StoreOptions::reserve).
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> StoreOptions {
        self.reserve = bytes;
        self
    }
}

/// What a store has done since it was opened, and what it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Transactions that succeeded.
    pub transactions: u64,
    /// Engine commits they were grouped in.
    pub commits: u64,
    /// Flushes that commits waited for. What the engine flushes behind the scenes is not counted.
    pub flushes: u64,
    /// Bytes on disk.
    pub disk: u64,
}
