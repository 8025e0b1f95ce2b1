//! The place: which databases there are, and what happens to them.

use super::schema::{DbEntry, DbId, DbState, meta};
use super::{Fail, Result, corrupt};
use crate::adapter::{Adapter, AllDbsOptions, DbUpdate, DbUpdateKind, Host};
use crate::env;
use crate::local::adapter::LocalDatabase;
use crate::script::ScriptEngine;
use crate::views::state::IndexState;
use crate::views::{self, NativeView};
use async_trait::async_trait;
use event_listener::Event;
use futures_core::stream::BoxStream;
use futures_util::stream;
use settee_core::json::Limits;
use settee_core::wire::{ActiveTask, Security, Seq};
use settee_core::{Error, ErrorKind, id};
use settee_store::{Durability, Store, StoreOptions, Table, Tx};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How a directory of databases is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LocalOptions {
    /// The store's.
    pub store: StoreOptions,
    /// Bounds on what is written.
    pub limits: Limits,
    /// Memory for the rows of an index that is being made, in bytes, before they are sorted in the
    /// store. 32 MiB unless given.
    pub index_memory: Option<usize>,
    /// What runs the functions of design documents in JavaScript; with the feature `js`,
    /// [`JsEngine`](crate::script::JsEngine) unless given.
    pub script: Option<Arc<dyn ScriptEngine>>,
}

/// A directory of databases, or a place in memory: the embedded [`Host`].
#[derive(Clone)]
pub struct Local {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) limits: Limits,
    pub(crate) ids: env::IdGenerator,
    pub(crate) updates: Updates,
    pub(crate) uuid: String,
    /// The databases used so far, by name.
    open: RwLock<HashMap<String, Arc<Shared>>>,
    /// The bytes in use in all databases, and when they were added up.
    in_use: Mutex<Option<(u64, u64)>>,
    /// Held while the whole store is compacted.
    pub(crate) compacting: Mutex<()>,
    pub(crate) views: views::state::Shared,
    /// As in [`LocalOptions`].
    pub(crate) index_memory: usize,
    /// Threads of our own that hold on to this, and are to end when nobody else does.
    pub(crate) background: AtomicUsize,
}

/// The bytes that so many databases and indexes use are added up each time somebody asks.
const FEW: usize = 100;

/// What the handles of one database share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: DbId,
    pub(crate) name: String,
    pub(crate) created: u64,
    /// Notified after every commit that changed a document.
    pub(crate) changed: Event,
    pub(crate) deleted: AtomicBool,
    pub(crate) compacting: AtomicBool,
    pub(crate) views: views::ViewSet,
}

impl Local {
    /// Opens or creates a directory of databases, and locks it.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` if another process has it open; `Internal` if it is no such directory,
    /// of a newer format, or cannot be read or written.
    pub fn open(dir: impl AsRef<Path>, options: &LocalOptions) -> settee_core::Result<Local> {
        let store = Store::open(dir.as_ref(), &options.store).map_err(Fail::from)?;
        Ok(Local::with_store(store, options)?)
    }

    /// A place in memory, gone when the last handle is.
    pub fn memory() -> settee_core::Result<Local> {
        Local::memory_with(&LocalOptions::default())
    }

    /// A place in memory, with options: those that are not the store's.
    ///
    /// # Errors
    ///
    /// Those of the random source.
    pub fn memory_with(options: &LocalOptions) -> settee_core::Result<Local> {
        Ok(Local::with_store(Store::memory(), options)?)
    }

    fn with_store(store: Store, options: &LocalOptions) -> Result<Local> {
        let fresh = env::hex(&env::random::<16>()?);
        let uuid = store.transact(Durability::Flush, move |tx| -> Result<String> {
            super::attachments::drop_unfinished_uploads(tx)?;
            if let Some(uuid) = tx.get(Table::Meta, meta::UUID)? {
                return Ok(String::from_utf8_lossy(&uuid).into_owned());
            }
            tx.put(Table::Meta, meta::UUID, fresh.clone());
            Ok(fresh)
        })?;
        Ok(Local {
            inner: Arc::new(Inner {
                store,
                limits: options.limits,
                uuid,
                ids: env::IdGenerator::default(),
                updates: Updates::default(),
                open: RwLock::default(),
                in_use: Mutex::default(),
                compacting: Mutex::default(),
                views: views::state::Shared::new(options.script.clone()),
                index_memory: options.index_memory.unwrap_or(views::MEMORY),
                background: AtomicUsize::new(0),
            }),
        })
    }

    /// Makes a view's functions known, for design documents whose language is `rust`.
    ///
    /// They must be known again each time the place is opened. Registered under a name that is known
    /// already, they take the place of the other ones, for views that were not queried yet.
    pub fn register(&self, view: NativeView) {
        self.inner.views.functions.register(view);
    }

    /// What the store has done since it was opened, and what it takes.
    pub fn store_stats(&self) -> settee_store::StoreStats {
        self.inner.store.stats()
    }

    /// Compacts every database and gives back space. Blocks until done.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub fn compact(&self) -> settee_core::Result<()> {
        for name in self.names(&AllDbsOptions::default())? {
            // A database may be deleted while this runs.
            if let Ok(db) = self.inner.shared(&name) {
                super::maintenance::forget_old_bodies(&self.inner.store, db.id)?;
            }
        }
        Ok(self.inner.store.compact().map_err(Fail::from)?)
    }

    /// Makes a database, and in the same commit says who may do what in it.
    async fn make(&self, name: &str, security: Option<Vec<u8>>) -> settee_core::Result<()> {
        id::check_database_name(name)?;
        let (owned, created) = (name.to_owned(), env::now_micros());
        let (inner, recorded) = (self.inner.clone(), name.to_owned());
        let made = self.inner.transact_then(
            Durability::Flush,
            move |tx| {
                let key = meta::name(&owned);
                if tx.get(Table::Meta, &key)?.is_some() {
                    return Err(Error::new(
                        ErrorKind::FileExists,
                        "The database could not be created, the file already exists.",
                    )
                    .into());
                }
                let id = views::state::new_owner(tx)?;
                tx.put(Table::Meta, key, DbEntry { id, created }.encode());
                tx.put(Table::Meta, meta::state(id), DbState::default().encode());
                if let Some(security) = security {
                    tx.put(Table::Meta, meta::security(id), security);
                }
                Ok(())
            },
            move |()| inner.updates.record(&recorded, DbUpdateKind::Created),
        );
        Ok(made.await?)
    }

    fn names(&self, options: &AllDbsOptions) -> Result<Vec<String>> {
        let bound = |name: &Option<String>, inclusive: bool| {
            name.as_ref().map(|name| match inclusive {
                true => Bound::Included(meta::name(name)),
                false => Bound::Excluded(meta::name(name)),
            })
        };
        let (low, high) = match options.descending {
            false => (bound(&options.start, true), bound(&options.end, options.inclusive_end)),
            true => (bound(&options.end, options.inclusive_end), bound(&options.start, true)),
        };
        let low = low.unwrap_or(Bound::Included(b"d/".to_vec()));
        let high = high.unwrap_or(Bound::Excluded(b"d0".to_vec()));
        if empty_range(&low, &high) {
            return Ok(Vec::new());
        }
        let rows =
            self.inner.store.snapshot().range(Table::Meta, (as_slice(&low), as_slice(&high)));
        let limit = options.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let name = |row: settee_store::Result<settee_store::Row>| -> Result<String> {
            let (key, _) = row?;
            let name = meta::name_in(&key).ok_or_else(|| corrupt("name of a database"))?;
            Ok(name.to_owned())
        };
        let skip = usize::try_from(options.skip).unwrap_or(usize::MAX);
        match options.descending {
            false => rows.skip(skip).take(limit).map(name).collect(),
            true => rows.rev().skip(skip).take(limit).map(name).collect(),
        }
    }
}

/// A range that the store would take for reversed.
pub(crate) fn empty_range(low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Excluded(high) | Bound::Included(high),
        ) => low >= high,
        _ => false,
    }
}

pub(crate) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl Inner {
    /// The open database of a name.
    pub(crate) fn shared(&self, name: &str) -> Result<Arc<Shared>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = open.get(name) {
            return Ok(shared.clone());
        }
        drop(open);
        let entry = || -> Result<DbEntry> {
            let row = self.store.get(Table::Meta, &meta::name(name))?;
            Ok(DbEntry::decode(&row.ok_or_else(Error::no_database)?)?)
        };
        let DbEntry { id, created } = entry()?;
        let shared = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            let shared = open.entry(name.to_owned()).or_insert_with(|| {
                Arc::new(Shared {
                    id,
                    name: name.to_owned(),
                    created,
                    changed: Event::new(),
                    deleted: AtomicBool::new(false),
                    compacting: AtomicBool::new(false),
                    views: views::ViewSet::default(),
                })
            });
            shared.clone()
        };
        // A deletion commits first and closes then. If it did both between the look and the
        // insertion above, what was inserted is dead.
        if !entry().is_ok_and(|entry| entry.id == shared.id) {
            self.close(name, shared.id);
            return Err(Error::no_database().into());
        }
        Ok(shared)
    }

    /// Whether only threads of our own hold on to this.
    pub(crate) fn is_abandoned(self: &Arc<Inner>) -> bool {
        Arc::strong_count(self) <= self.background.load(Ordering::Acquire)
    }

    /// Forgets a database that has been deleted, and wakes whoever waits for its changes.
    fn close(&self, name: &str, id: DbId) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.get(name).is_some_and(|shared| shared.id == id)
            && let Some(shared) = open.remove(name)
        {
            shared.deleted.store(true, Ordering::Release);
            shared.changed.notify(usize::MAX);
        }
    }

    /// Runs a transaction and waits for it without blocking the executor.
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.transact_then(durability, f, |_| ()).await
    }

    /// As [`transact`](Inner::transact); `then` runs on success even if nobody waits any more.
    pub(crate) async fn transact_then<T: Send + 'static>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = futures_channel::oneshot::channel();
        self.store.submit(durability, f, move |outcome: Result<T>| {
            if let Ok(value) = &outcome {
                then(value);
            }
            // Whoever asked may have gone.
            let _ = send.send(outcome);
        });
        receive.await.map_err(|_| Fail::from(settee_store::StoreError::Closed))?
    }
}

/// The state of a database, which must exist.
pub(crate) fn state(tx: &mut Tx<'_>, db: DbId) -> Result<DbState> {
    let row = tx.get(Table::Meta, &meta::state(db))?.ok_or_else(Error::no_database)?;
    Ok(DbState::decode(&row)?)
}

#[async_trait]
impl Host for Local {
    fn database(&self, name: &str) -> settee_core::Result<Arc<dyn Adapter>> {
        id::check_database_name(name)?;
        Ok(Arc::new(LocalDatabase::new(self.inner.clone(), name)))
    }

    async fn exists(&self, name: &str) -> settee_core::Result<bool> {
        match self.inner.shared(name) {
            Ok(_) => Ok(true),
            Err(Fail(error)) if error.is_not_found() => Ok(false),
            Err(Fail(error)) => Err(error),
        }
    }

    async fn create(&self, name: &str) -> settee_core::Result<()> {
        self.make(name, None).await
    }

    async fn create_with(&self, name: &str, security: &Security) -> settee_core::Result<()> {
        let security = serde_json::to_vec(security).map_err(Error::internal)?;
        self.make(name, Some(security)).await
    }

    async fn delete(&self, name: &str) -> settee_core::Result<()> {
        id::check_database_name(name)?;
        let owned = name.to_owned();
        let (inner, closed) = (self.inner.clone(), name.to_owned());
        let deleted = self.inner.transact_then(
            Durability::Flush,
            move |tx| {
                let key = meta::name(&owned);
                let row = tx.get(Table::Meta, &key)?.ok_or_else(Error::no_database)?;
                let DbEntry { id, .. } = DbEntry::decode(&row)?;
                tx.delete(Table::Meta, key);
                tx.delete(Table::Meta, meta::state(id));
                tx.delete(Table::Meta, meta::security(id));
                tx.delete(Table::Meta, meta::auto_purge(id));
                tx.retire(id);
                views::state::retire_all(tx, id)?;
                Ok(id)
            },
            // Whoever asked may have gone, and the name is to be free all the same.
            move |id| {
                inner.close(&closed, *id);
                inner.updates.record(&closed, DbUpdateKind::Deleted);
            },
        );
        deleted.await?;
        Ok(())
    }

    async fn all_dbs(&self, options: &AllDbsOptions) -> settee_core::Result<Vec<String>> {
        Ok(self.names(options)?)
    }

    async fn db_updates(
        &self,
        since: Option<Seq>,
        live: bool,
    ) -> settee_core::Result<BoxStream<'static, settee_core::Result<DbUpdate>>> {
        let inner = self.inner.clone();
        let since = match since {
            None => inner.updates.last(),
            Some(since) => super::changes::number(&since)?,
        };
        let updates = stream::unfold((inner, since), move |(inner, since)| async move {
            loop {
                let listener = inner.updates.changed.listen();
                match inner.updates.after(since) {
                    Some(update) => {
                        let (seq, update) = update;
                        return Some((Ok(update), (inner, seq)));
                    }
                    None if live => listener.await,
                    None => return None,
                }
            }
        });
        Ok(Box::pin(updates))
    }

    async fn uuids(&self, count: usize) -> settee_core::Result<Vec<String>> {
        (0..count).map(|_| self.inner.ids.next()).collect()
    }

    async fn uuid(&self) -> settee_core::Result<String> {
        Ok(self.inner.uuid.clone())
    }

    async fn active_tasks(&self) -> settee_core::Result<Vec<ActiveTask>> {
        Ok(self.inner.views.tasks.list())
    }
}

/// What happened to databases since this place was opened: the latest event of each.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    log: Mutex<UpdateLog>,
    changed: Event,
}

#[derive(Debug, Default)]
struct UpdateLog {
    last: u64,
    by_seq: BTreeMap<u64, (String, DbUpdateKind)>,
    by_name: HashMap<String, u64>,
}

/// Databases whose latest event is remembered. Beyond that the oldest events are forgotten.
const UPDATES_KEPT: usize = 100_000;

impl Updates {
    pub(crate) fn record(&self, name: &str, kind: DbUpdateKind) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.last += 1;
        let seq = log.last;
        match log.by_name.get_mut(name) {
            Some(known) => {
                let old = std::mem::replace(known, seq);
                // The name moves to its new place.
                if let Some((name, _)) = log.by_seq.remove(&old) {
                    log.by_seq.insert(seq, (name, kind));
                }
            }
            None => {
                log.by_name.insert(name.to_owned(), seq);
                log.by_seq.insert(seq, (name.to_owned(), kind));
            }
        }
        if log.by_seq.len() > UPDATES_KEPT
            && let Some((_, (name, _))) = log.by_seq.pop_first()
        {
            log.by_name.remove(&name);
        }
        drop(log);
        self.changed.notify(usize::MAX);
    }

    fn last(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    fn after(&self, since: u64) -> Option<(u64, DbUpdate)> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (&seq, (name, kind)) = log.by_seq.range(since.checked_add(1)?..).next()?;
        Some((seq, DbUpdate { db_name: name.clone(), kind: *kind, seq: seq.into() }))
    }
}

impl Inner {
    /// Databases share files: this is what falls to one that has so many bytes in use.
    pub(crate) fn share_of_disk(&self, active: u64) -> Result<u64> {
        let disk = self.store.stats().disk;
        let all = self.in_use()?.max(active).max(1);
        let share = u128::from(disk) * u128::from(active) / u128::from(all);
        Ok(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// The bytes in use in all databases and indexes. Of many, it may be a second old.
    fn in_use(&self) -> Result<u64> {
        let now = env::now_micros();
        let mut known = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, all)) = *known
            && (then..then.saturating_add(1_000_000)).contains(&now)
        {
            return Ok(all);
        }
        let snapshot = self.store.snapshot();
        let (mut all, mut count) = (0_u64, 0);
        let range = (Bound::Included(b"s/".as_slice()), Bound::Excluded(b"s0".as_slice()));
        for row in snapshot.range(Table::Meta, range) {
            all = all.saturating_add(DbState::decode(&row?.1)?.active);
            count += 1;
        }
        let range = (Bound::Included(b"v/".as_slice()), Bound::Excluded(b"v0".as_slice()));
        for row in snapshot.range(Table::Meta, range) {
            all = all.saturating_add(IndexState::decode(&row?.1)?.active());
            count += 1;
        }
        *known = (count > FEW).then_some((now, all));
        Ok(all)
    }
}
