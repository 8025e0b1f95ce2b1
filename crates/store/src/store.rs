//! The store's handle.

use crate::commit::{Committer, Counters, Message, Transaction};
use crate::engine::Engine;
use crate::engine::fjall::Fjall;
use crate::engine::memory::Memory;
use crate::tx::Tx;
use crate::{Result, Snapshot, StoreError, StoreOptions, StoreStats, Table};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;

/// When a transaction is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive a power cut.
    Flush,
    /// When it is visible; it becomes durable with the next flush, at most about a second later.
    Deferred,
}

/// A store. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    counters: Arc<Counters>,
    /// Taken when the store is dropped, which tells the commit thread that nobody is left.
    queue: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        // The last clone may be dropped by what the commit thread calls; it cannot wait for itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the commit thread panicked");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates a store in a directory, which it locks.
    ///
    /// # Errors
    ///
    /// - `Locked` if the directory is open elsewhere,
    /// - `Format` if it holds something else, or a store of a newer version,
    /// - `Full`, `Io` or `Corrupt` if it cannot be made or read.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Store> {
        Store::start(Arc::new(Fjall::open(dir, options)?))
    }

    /// A store in memory.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot start a thread.
    #[must_use]
    #[allow(clippy::expect_used, reason = "there is nothing else to do without threads")]
    pub fn memory() -> Store {
        Store::start(Arc::new(Memory::default())).expect("start the commit thread")
    }

    fn start(engine: Arc<dyn Engine>) -> Result<Store> {
        let counters = Arc::new(Counters::default());
        let committer = Committer::new(engine.clone(), counters.clone());
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("settee-commit".to_owned())
            .spawn(move || committer.serve(&receiver))
            .map_err(|error| StoreError::from_io("start the commit thread", &error))?;
        let inner = Inner { engine, counters, queue: Some(sender), thread: Some(thread) };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Runs `f` as a transaction on the commit thread and waits for it.
    ///
    /// If `f` fails, nothing of it is kept and its error is returned. It must not wait for another
    /// transaction, which could only run after it.
    ///
    /// # Errors
    ///
    /// What `f` returns, and what keeps it from being committed: `Full`, `Poisoned`, `TooLong`,
    /// `Panicked`, `Closed`.
    pub fn transact<T, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.submit(durability, f, move |outcome| {
            // Whoever waited cannot have gone: this thread does.
            let _ = sender.send(outcome);
        });
        receiver.recv().unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// As [`transact`](Store::transact), but returns at once; `done` is called with the outcome,
    /// exactly once, on the commit thread, so it must be quick.
    pub fn submit<T, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        done: impl FnOnce(Result<T, E>) + Send + 'static,
    ) where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let job = Box::new(Transaction::new(f, done));
        if let Some(queue) = &self.inner.queue {
            // If it is closed, the job comes back and answers so when it is dropped here.
            let _ = queue.send(Message::Run(durability, job));
        }
    }

    /// The newest committed value.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if it cannot be read.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.engine.get(table, key)
    }

    /// The values of several keys, all as of the same moment, in the order of the keys.
    ///
    /// # Errors
    ///
    /// `Io` and `Corrupt` if one cannot be read.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: Table,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        self.snapshot().multi_get(table, keys)
    }

    /// A consistent view of everything committed so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.engine.view())
    }

    /// Makes everything acknowledged so far durable.
    ///
    /// # Errors
    ///
    /// `Poisoned` if it cannot; `Closed`.
    pub fn flush(&self) -> Result<()> {
        self.transact(Durability::Flush, |_| Ok(()))
    }

    /// Gives back the space of overwritten, deleted and retired rows. Blocks until done; reads and
    /// writes go on meanwhile.
    ///
    /// # Errors
    ///
    /// `Full` if there is no room for the rewritten files, `Io`, `Corrupt`.
    pub fn compact(&self) -> Result<()> {
        self.inner.engine.compact()
    }

    /// What the store has done since it was opened, and what it takes.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let Inner { engine, counters, .. } = &*self.inner;
        StoreStats {
            transactions: counters.transactions.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            flushes: counters.flushes.load(Ordering::Relaxed),
            disk: engine.disk(),
        }
    }

    /// Ends writing for all clones of this handle: waits for the transactions that were asked for
    /// before, makes them durable, and refuses later ones with `Closed`. Reads go on; the directory
    /// is unlocked when the last clone and the last snapshot are dropped.
    ///
    /// # Errors
    ///
    /// `Poisoned` if something acknowledged earlier cannot be made durable; `Closed` if it is closed
    /// already.
    pub fn close(&self) -> Result<()> {
        let flushed = self.flush();
        if let Some(queue) = &self.inner.queue {
            let _ = queue.send(Message::Stop);
        }
        flushed
    }
}
