//! The engine on disk: [fjall](https://docs.rs/fjall), a log-structured merge tree per table over one
//! journal. The only module that names it.

mod journal;

use super::{Batch, BoxRows, Engine, View};
use crate::error::is_full;
use crate::format;
use crate::table::Range;
use crate::{Result, Row, StoreError, StoreOptions, Table};
use bytes::Bytes;
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
};
use rustc_hash::FxHashSet;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Bytes of journals above which the engine writes out memtables to be rid of the oldest: the least
/// that it takes. All of them are read after a hard stop.
const JOURNAL: u64 = 64 << 20;
/// Threads which write out memtables and compact.
const WORKERS: usize = 2;
/// Memtables waiting to be written out, and runs waiting in the first level, at which a commit waits.
/// Below the limits at which the engine itself does, which would wait forever for workers that failed.
const MAX_SEALED: usize = 2;
const MAX_RUNS: usize = 16;
/// How often a waiting commit looks again.
const WAIT: Duration = Duration::from_millis(1);
/// Bytes available below which a failure behind the scenes is taken for want of space.
const LITTLE: u64 = 8 << 20;
/// How long mending holds up reads for those under way.
const PATIENCE: Duration = Duration::from_millis(20);
/// Size of the tables that compaction writes, in bytes.
const TABLE_SIZE: u64 = 32 << 20;

/// The engine's handles.
struct Live {
    /// Before the locks, so that it is closed when they are released.
    tables: [Keyspace; Table::ALL.len()],
    private: Keyspace,
    db: Database,
    retired: Arc<RetiredOwners>,
    _lock: Arc<File>,
}

/// A store in a directory.
///
/// # Running out of space
///
/// The engine takes no writes any more once one of its own has failed, whatever the reason. So below
/// the reserve nothing is written in the first place, and what the engine does behind the scenes has
/// the reserve to finish in. If it runs out of space all the same, the store is *broken*, and mends
/// itself when there is space again: it closes the engine and opens it anew over journals that hold
/// exactly what was acknowledged, copied and flushed under the eyes of this module. Nothing then
/// depends on what became of the failed write or flush. Tables need no such care: the engine refers
/// to one only after it was flushed without an error, and drops the others when it is opened.
pub(crate) struct Fjall {
    dir: PathBuf,
    options: StoreOptions,
    lock: Arc<File>,
    /// Empty only if the engine could not be opened again.
    live: RwLock<Option<Arc<Live>>>,
    /// Set while the engine takes no writes for want of space.
    broken: Mutex<Option<Broken>>,
    /// Whether there was too little space since the last commit that succeeded.
    shortage: AtomicBool,
}

#[derive(Clone, Copy)]
struct Broken {
    /// Sequence number from which batches in the journal were not acknowledged.
    unacknowledged: u64,
}

impl Fjall {
    pub(crate) fn open(dir: &Path, options: &StoreOptions) -> Result<Fjall> {
        let lock = Arc::new(lock_dir(dir)?);
        let data = dir.join(format::DATA);
        let marker = dir.join(format::MARKER);
        let unfinished = dir.join(format::UNFINISHED);
        let known = exists(&marker)?;
        if known {
            check_marker(&marker)?;
        } else {
            // Making the engine's files takes many steps, and what a crash leaves of them is not
            // usable. So the marker gets its name last, and without it they are made again.
            if exists(&data)? {
                check_marker(&unfinished)?;
                fs::remove_dir_all(&data).map_err(|e| io(&data, &e))?;
            }
            write(&unfinished, format::marker().as_bytes()).map_err(|e| io(&unfinished, &e))?;
            sync_dir(dir)?;
        }
        let failed = dir.join(format::FAILED);
        if exists(&failed)? {
            // The system forgets after a flush has failed that there is something to flush. What it
            // then still shows of the journals may be gone with the power, and all that is written
            // after it with it. So they are written anew.
            if exists(&data)? {
                let copies = journal::copy(&data, u64::MAX).map_err(|e| io(&data, &e))?;
                journal::replace(copies).map_err(|e| io(&data, &e))?;
                sync_dir(&data)?;
            }
            fs::remove_file(&failed).map_err(|e| io(&failed, &e))?;
        }
        let live = Arc::new(Live::open(&data, options, lock.clone())?);
        if !known {
            fs::rename(&unfinished, &marker).map_err(|e| io(&marker, &e))?;
            sync_dir(dir)?;
        }
        Ok(Fjall {
            dir: dir.to_owned(),
            options: options.clone(),
            lock,
            live: RwLock::new(Some(live)),
            broken: Mutex::new(None),
            shortage: AtomicBool::new(false),
        })
    }

    fn live(&self) -> Result<Arc<Live>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        live.ok_or_else(|| StoreError::Io("the data could not be opened again".to_owned()))
    }

    fn broken(&self) -> MutexGuard<'_, Option<Broken>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is space for this many bytes and the reserve, or half of it for what gives back
    /// space: a full disk could not be helped otherwise.
    fn check_space(&self, bytes: u64, frees: bool) -> Result<()> {
        let available = available(&self.dir)?.saturating_sub(bytes);
        let reserve = self.options.reserve;
        if available < reserve.max(LITTLE) {
            self.shortage.store(true, Ordering::Relaxed);
        }
        let needed = if frees { reserve / 2 } else { reserve };
        if available < needed { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Leaves word that the journals must be written anew before they are used again.
    fn distrust(&self) {
        let failed = self.dir.join(format::FAILED);
        if let Err(error) = File::create(&failed) {
            tracing::error!(%error, path = %failed.display(), "cannot leave word of a failure");
        }
    }

    /// What the failure of a write means; batches from `unacknowledged` on were not acknowledged.
    fn failed(&self, failure: &fjall::Error, unacknowledged: u64) -> StoreError {
        self.distrust();
        let full = match error(failure) {
            StoreError::Full => true,
            // The engine refuses without having tried, because it failed behind the scenes. If that
            // was not for want of space, we would have to trust files of which a flush failed.
            StoreError::Poisoned(_) => {
                let _ = self.check_space(0, false);
                self.shortage.load(Ordering::Relaxed)
            }
            _ => false,
        };
        if !full {
            return StoreError::Poisoned(failure.to_string());
        }
        let mut broken = self.broken();
        if broken.is_none() {
            tracing::warn!("out of space; writes are refused until there is some");
            *broken = Some(Broken { unacknowledged });
        }
        StoreError::Full
    }

    /// Opens the engine again if it is broken and can be mended.
    fn mend(&self) -> Result<()> {
        let Some(broken) = *self.broken() else { return Ok(()) };
        // Snapshots read files which the engine deletes when it is opened, so they must be gone.
        if self.live.read().is_ok_and(|live| live.as_ref().is_some_and(in_use)) {
            return Err(StoreError::Full);
        }
        let data = self.dir.join(format::DATA);
        let copies = journal::copy(&data, broken.unacknowledged).map_err(|e| mending(&data, &e))?;
        let mut slot = self.live.write().unwrap_or_else(PoisonError::into_inner);
        // No read can begin while this lock is held, and those under way are short.
        let deadline = Instant::now() + PATIENCE;
        while slot.as_ref().is_some_and(in_use) {
            if Instant::now() > deadline {
                return Err(StoreError::Full);
            }
            std::thread::sleep(WAIT);
        }
        *slot = None;
        journal::replace(copies).map_err(|e| mending(&data, &e))?;
        sync_dir(&data).map_err(|e| StoreError::Poisoned(e.to_string()))?;
        *slot = Some(Arc::new(Live::open(&data, &self.options, self.lock.clone())?));
        *self.broken() = None;
        let _ = fs::remove_file(self.dir.join(format::FAILED));
        tracing::info!("there is space again; writes go on");
        Ok(())
    }
}

fn in_use(live: &Arc<Live>) -> bool {
    Arc::strong_count(live) > 1
}

/// The error of a step of mending: want of space leaves things as they were.
fn mending(path: &Path, error: &std::io::Error) -> StoreError {
    match io(path, error) {
        StoreError::Full => StoreError::Full,
        other => StoreError::Poisoned(other.to_string()),
    }
}

impl Drop for Fjall {
    fn drop(&mut self) {
        let broken = *self.broken();
        let slot = self.live.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Something may have failed behind the scenes since the last commit.
        let healthy = slot.as_ref().is_some_and(|live| live.healthy().is_ok());
        // Closing the engine writes out what it still held of a batch that failed.
        *slot = None;
        if let Some(broken) = broken {
            let data = self.dir.join(format::DATA);
            if let Err(error) = journal::cut(&data, broken.unacknowledged) {
                tracing::error!(%error, "a transaction that failed may appear to have succeeded");
            }
        }
        if !healthy || broken.is_some() {
            self.distrust();
        }
    }
}

/// Locks a directory, making it if there is none, unless it holds something else.
fn lock_dir(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir).map_err(|e| io(dir, &e))?;
    let ours = exists(&dir.join(format::MARKER))? || exists(&dir.join(format::UNFINISHED))?;
    if !ours {
        // Nothing is put into a directory that holds something else, not even a lock.
        for entry in fs::read_dir(dir).map_err(|e| io(dir, &e))? {
            if entry.map_err(|e| io(dir, &e))?.file_name() != format::LOCK {
                return Err(StoreError::Format(format!(
                    "{} is not empty and has no `{}`",
                    dir.display(),
                    format::MARKER
                )));
            }
        }
    }
    let path = dir.join(format::LOCK);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io(&path, &e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(e)) => Err(io(&path, &e)),
    }
}

fn check_marker(marker: &Path) -> Result<()> {
    let contents = fs::read(marker).map_err(|e| io(marker, &e))?;
    format::check_marker(&contents)
        .map_err(|why| StoreError::Format(format!("{}: {why}", marker.display())))
}

/// Writes a file and flushes it.
fn write(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|file| file.sync_all()).map_err(|e| io(dir, &e))?;
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| io(path, &e))
}

fn io(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::from_io(&path.display().to_string(), error)
}

impl Live {
    fn open(data: &Path, options: &StoreOptions, lock: Arc<File>) -> Result<Live> {
        match Live::try_open(data, options, lock.clone()) {
            // What was written last without being flushed may have reached the disk in parts. The
            // engine sees to that unless a part is missing inside of a value.
            Err(fjall::Error::JournalRecovery(_)) => {
                let dropped = journal::trim(data).map_err(|e| io(data, &e))?;
                tracing::warn!(bytes = dropped, "dropped an unfinished end of the journal");
                Live::try_open(data, options, lock).map_err(|e| error(&e))
            }
            other => other.map_err(|e| error(&e)),
        }
    }

    fn try_open(data: &Path, options: &StoreOptions, lock: Arc<File>) -> fjall::Result<Live> {
        let retired = Arc::new(RetiredOwners::default());
        let factory: Arc<dyn Factory> = Arc::new(RetiredFilters(retired.clone()));
        let meta = format::keyspace(Table::Meta);
        let db = Database::builder(data)
            .cache_size(options.cache)
            .max_journaling_size(JOURNAL)
            .worker_threads(WORKERS)
            // Compressing costs more than it saves: large values are bodies, which are compressed
            // when they are written out, and chunks, which do not compress.
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .with_compaction_filter_factories(Arc::new(move |name| {
                (name != meta && name != format::PRIVATE).then(|| factory.clone())
            }))
            .open()?;
        let [meta, docs, seqs, bodies, side, chunks, index] =
            Table::ALL.map(|table| db.keyspace(format::keyspace(table), || table_options(table)));
        let tables = [meta?, docs?, seqs?, bodies?, side?, chunks?, index?];
        let private = db.keyspace(format::PRIVATE, small_options)?;
        let mut owners = FxHashSet::default();
        for guard in private.prefix([format::RETIRED]) {
            owners.extend(format::owner(&guard.key()?[1..]));
        }
        retired.extend(owners);
        Ok(Live { tables, private, db, retired, _lock: lock })
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table.index()]
    }

    fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.tables.iter().chain([&self.private])
    }

    /// Whether the engine accepts writes: none of its own have failed.
    fn healthy(&self) -> fjall::Result<()> {
        // This is how the engine can be asked; it writes out at most a buffer.
        self.db.persist(PersistMode::Buffer)
    }

    /// Waits while memtables are written out and compacted too slowly.
    fn backpressure(&self, sealed: usize, runs: usize) -> fjall::Result<()> {
        let behind = |keyspace: &Keyspace| {
            keyspace.tree.sealed_memtable_count() > sealed || keyspace.tree.l0_run_count() > runs
        };
        while self.keyspaces().any(behind) {
            self.healthy()?;
            std::thread::sleep(WAIT);
        }
        Ok(())
    }

    fn compact(&self) -> fjall::Result<()> {
        self.move_horizon()?;
        for table in &self.tables {
            table.rotate_memtable()?;
        }
        self.backpressure(0, usize::MAX)?;
        for keyspace in self.keyspaces() {
            keyspace.major_compact()?;
        }
        self.move_horizon()?;
        self.backpressure(0, usize::MAX)
    }

    /// Lets the engine forget what no snapshot sees: old versions of rows, when they are compacted
    /// next, and files that have been compacted away. It looks for them when a memtable with
    /// something in it is closed.
    fn move_horizon(&self) -> fjall::Result<()> {
        self.private.insert([format::HORIZON], Bytes::new())?;
        self.private.rotate_memtable()?;
        Ok(())
    }
}

/// Options of a table whose rows are small and few.
fn small_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
}

/// What each table is tuned for. Filters on the last level are left out where a key that is asked for
/// is nearly always there.
fn table_options(table: Table) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().compaction_strategy(Arc::new(
        fjall::compaction::Leveled::default().with_table_target_size(TABLE_SIZE),
    ));
    let blocks = BlockSizePolicy::all;
    match table {
        Table::Meta => small_options(),
        // Asked for ids that are not there by every first write of a document.
        Table::Docs => options.max_memtable_size(16 << 20).data_block_size_policy(blocks(4 << 10)),
        // Read in order.
        Table::Seqs => options
            .max_memtable_size(8 << 20)
            .data_block_size_policy(blocks(16 << 10))
            .expect_point_read_hits(true),
        Table::Bodies => options
            .max_memtable_size(16 << 20)
            .data_block_size_policy(blocks(8 << 10))
            .expect_point_read_hits(true),
        Table::Side => options.max_memtable_size(4 << 20),
        // A block per chunk, stored as it is: what compresses was compressed before.
        Table::Chunks => options
            .max_memtable_size(4 << 20)
            .data_block_size_policy(blocks(64 << 10))
            .data_block_compression_policy(CompressionPolicy::disabled())
            .expect_point_read_hits(true),
        Table::Index => options
            .max_memtable_size(16 << 20)
            .data_block_size_policy(blocks(8 << 10))
            .expect_point_read_hits(true),
    }
}

impl Engine for Fjall {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        get(self.live()?.table(table).get(key))
    }

    fn view(&self) -> Arc<dyn View> {
        match self.live() {
            Ok(live) => Arc::new(FjallView { snapshot: live.db.snapshot(), live }),
            Err(error) => Arc::new(NoView(error)),
        }
    }

    fn ready(&self, bytes: u64, frees: bool) -> Result<()> {
        self.check_space(bytes, frees)?;
        self.mend()?;
        let live = self.live()?;
        live.backpressure(MAX_SEALED, MAX_RUNS).map_err(|e| self.failed(&e, u64::MAX))
    }

    fn commit(&self, batch: Batch, flush: bool) -> Result<()> {
        let live = self.live()?;
        let count = batch.writes.len() + batch.retired.len();
        let mode = if flush { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(live.db.clone(), count).durability(Some(mode));
        for (table, key, value) in batch.writes {
            match value {
                Some(value) => writes.insert(live.table(table), key, value),
                None => writes.remove(live.table(table), key),
            }
        }
        for owner in &batch.retired {
            writes.insert(&live.private, format::retired_key(*owner), Bytes::new());
        }
        let unacknowledged = live.db.seqno();
        writes.commit().map_err(|e| self.failed(&e, unacknowledged))?;
        self.shortage.store(false, Ordering::Relaxed);
        if !batch.retired.is_empty() {
            live.retired.extend(batch.retired);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if self.broken().is_some() {
            // Mending flushes everything.
            return self.ready(0, true);
        }
        let persisted = self.live()?.db.persist(PersistMode::SyncData);
        persisted.map_err(|e| self.failed(&e, u64::MAX))
    }

    fn compact(&self) -> Result<()> {
        self.check_space(0, true)?;
        let compacted = self.live()?.compact().map_err(|e| error(&e));
        if matches!(compacted, Err(StoreError::Full)) {
            self.shortage.store(true, Ordering::Relaxed);
        }
        compacted
    }

    fn disk(&self) -> u64 {
        self.live().ok().and_then(|live| live.db.disk_space().ok()).unwrap_or(0)
    }
}

/// The view of a store that cannot be read.
struct NoView(StoreError);

impl View for NoView {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Bytes>> {
        Err(self.0.clone())
    }

    fn range(self: Arc<Self>, _table: Table, _range: Range<'_>) -> BoxRows {
        Box::new(std::iter::once(Err(self.0.clone())))
    }
}

struct FjallView {
    snapshot: fjall::Snapshot,
    live: Arc<Live>,
}

impl View for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        get(self.snapshot.get(self.live.table(table), key))
    }

    fn range(self: Arc<Self>, table: Table, range: Range<'_>) -> BoxRows {
        let rows = self.snapshot.range::<&[u8], _>(self.live.table(table), range);
        Box::new(FjallRows { rows, _view: self })
    }
}

struct FjallRows {
    rows: fjall::Iter,
    _view: Arc<FjallView>,
}

impl Iterator for FjallRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.rows.next().map(row)
    }
}

impl DoubleEndedIterator for FjallRows {
    fn next_back(&mut self) -> Option<Result<Row>> {
        self.rows.next_back().map(row)
    }
}

fn row(guard: fjall::Guard) -> Result<Row> {
    let (key, value) = guard.into_inner().map_err(|e| error(&e))?;
    Ok((key.into(), value.into()))
}

fn get(value: fjall::Result<Option<fjall::UserValue>>) -> Result<Option<Bytes>> {
    Ok(value.map_err(|e| error(&e))?.map(Bytes::from))
}

/// The owners whose rows compaction drops.
#[derive(Default)]
struct RetiredOwners(RwLock<Arc<FxHashSet<u32>>>);

impl RetiredOwners {
    fn extend(&self, owners: impl IntoIterator<Item = u32>) {
        let mut set = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut set).extend(owners);
    }

    fn get(&self) -> Arc<FxHashSet<u32>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct RetiredFilters(Arc<RetiredOwners>);

impl Factory for RetiredFilters {
    fn name(&self) -> &'static str {
        "retired"
    }

    fn make_filter(&self, _context: &Context) -> Box<dyn CompactionFilter> {
        Box::new(RetiredFilter(self.0.get()))
    }
}

struct RetiredFilter(Arc<FxHashSet<u32>>);

impl CompactionFilter for RetiredFilter {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _context: &Context,
    ) -> CompactionFilterResult {
        let dead =
            !self.0.is_empty() && format::owner(item.key()).is_some_and(|o| self.0.contains(&o));
        // No tombstone is left, so an older version may come to light; it is as dead.
        Ok(if dead { Verdict::Destroy } else { Verdict::Keep })
    }
}

/// Bytes that may still be written to the device a directory is on.
#[cfg(unix)]
fn available(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| io(dir, &e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn available(_dir: &Path) -> Result<u64> {
    Ok(u64::MAX)
}

fn error(error: &fjall::Error) -> StoreError {
    use fjall::{Error, LsmError};
    match error {
        Error::Io(e) | Error::Storage(LsmError::Io(e)) if is_full(e) => StoreError::Full,
        Error::Io(e) | Error::Storage(LsmError::Io(e)) => StoreError::Io(e.to_string()),
        Error::Locked => StoreError::Locked,
        Error::Poisoned => StoreError::Poisoned("the engine's own writes failed".to_owned()),
        Error::InvalidVersion(_) | Error::Storage(LsmError::InvalidVersion(_)) => {
            StoreError::Format(error.to_string())
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}
