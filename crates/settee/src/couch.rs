//! [`Couch`]: a place that holds databases.

use crate::adapter::{AllDbsOptions, DbUpdate, Host};
use crate::database::Database;
use crate::local::{Local, LocalOptions};
use crate::replicate::{Replication, Sync};
use futures_core::stream::BoxStream;
use settee_core::wire::{ActiveTask, Seq};
use settee_core::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

/// How many ids are fetched at least, and at most, at a time. More than the most is an error with
/// CouchDB's default configuration.
const IDS_AT_A_TIME: (usize, usize) = (50, 1000);

/// A place that holds databases: a directory, memory, or a server.
///
/// Cheap to clone; all clones are the same place. A directory stays open until the last clone and
/// the last [`Database`] of it are dropped.
///
/// ```
/// # futures_executor::block_on(async {
/// use settee::Couch;
///
/// let couch = Couch::memory()?;
/// let people = couch.create("people").await?;
/// people.put(r#"{"_id": "ada", "born": 1815}"#).await?;
///
/// assert_eq!(couch.all_dbs().await?, ["people"]);
/// assert_eq!(couch.create("people").await.unwrap_err().name(), "file_exists");
/// couch.delete("people").await?;
/// assert!(!couch.exists("people").await?);
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Couch {
    inner: Arc<Inner>,
}

/// The order of the members matters: the host lets go of its directory before that is removed.
struct Inner {
    host: Arc<dyn Host>,
    ids: Mutex<VecDeque<String>>,
    _directory: Option<TempDir>,
}

impl Couch {
    /// Opens a directory of databases, which is created if there is none.
    ///
    /// It can be open once at a time. Other options than the usual are for [`Local::open`], whose
    /// result goes to [`from_host`](Couch::from_host).
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` if it is open already, `Internal` if it cannot be read or holds
    /// something else.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("data");
    /// # futures_executor::block_on(async {
    /// use settee::Couch;
    ///
    /// let notes = Couch::open(&dir)?.create_if_missing("notes").await?;
    /// notes.put(r#"{"_id": "first", "text": "Hello"}"#).await?;
    /// drop(notes);
    ///
    /// let notes = Couch::open(&dir)?.open_db("notes").await?;
    /// assert!(notes.contains("first").await?);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub fn open(dir: impl AsRef<Path>) -> Result<Couch> {
        let local = Local::open(dir, &LocalOptions::default())?;
        Ok(Couch::from_host(Arc::new(local)))
    }

    /// Databases in memory, gone when the last handle is.
    ///
    /// # Errors
    ///
    /// `Internal` if the system has no random numbers.
    pub fn memory() -> Result<Couch> {
        Ok(Couch::from_host(Arc::new(Local::memory()?)))
    }

    /// Databases in a temporary directory, which is removed with the last handle.
    ///
    /// # Errors
    ///
    /// `Internal` if no temporary directory can be made.
    pub fn temporary() -> Result<Couch> {
        Couch::temporary_in(std::env::temp_dir())
    }

    /// As [`temporary`](Couch::temporary), with the temporary directory inside of another one.
    ///
    /// # Errors
    ///
    /// `Internal` if no temporary directory can be made.
    pub fn temporary_in(parent: impl AsRef<Path>) -> Result<Couch> {
        let directory = tempfile::Builder::new()
            .prefix("settee-")
            .tempdir_in(parent)
            .map_err(Error::internal)?;
        let local = Local::open(directory.path(), &LocalOptions::default())?;
        Ok(Couch::new(Arc::new(local), Some(directory)))
    }

    /// The databases of a server. Nothing is asked of it yet.
    ///
    /// What the URL may be is said at [`Remote::connect`](crate::remote::Remote::connect). Other
    /// options than the usual go there too, and its result to [`from_host`](Couch::from_host).
    ///
    /// # Errors
    ///
    /// `BadRequest` if the URL makes no sense.
    ///
    /// ```no_run
    /// # async fn example() -> settee::Result<()> {
    /// use settee::Couch;
    ///
    /// let couch = Couch::connect("http://admin:secret@localhost:5984")?;
    /// println!("{:?}", couch.all_dbs().await?);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "remote")]
    pub fn connect(url: &str) -> Result<Couch> {
        use crate::remote::{Remote, RemoteOptions};
        Ok(Couch::from_host(Arc::new(Remote::connect(url, &RemoteOptions::new())?)))
    }

    /// The comfort of a `Couch` over any implementation of [`Host`].
    pub fn from_host(host: Arc<dyn Host>) -> Couch {
        Couch::new(host, None)
    }

    fn new(host: Arc<dyn Host>, directory: Option<TempDir>) -> Couch {
        let ids = Mutex::default();
        Couch { inner: Arc::new(Inner { host, ids, _directory: directory }) }
    }

    /// The implementation underneath.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.inner.host
    }

    /// A handle to a database that may or may not exist. If it does not, what is asked of the handle
    /// fails with `NotFound`; the handle works as soon as it does.
    ///
    /// # Errors
    ///
    /// `IllegalDatabaseName`, `DatabaseNameTooLong`.
    pub fn db(&self, name: &str) -> Result<Database> {
        Ok(Database::new(self.clone(), self.host().database(name)?))
    }

    /// The database of replications that a server carries out, which need not exist. Its documents are
    /// [`ReplicatorDoc`](crate::replicate::ReplicatorDoc)s.
    ///
    /// # Errors
    ///
    /// As [`db`](Couch::db).
    pub fn replicator(&self) -> Result<Database> {
        self.db("_replicator")
    }

    /// The database of users, which need not exist.
    ///
    /// # Errors
    ///
    /// As [`db`](Couch::db).
    pub fn users(&self) -> Result<Database> {
        self.db("_users")
    }

    /// Creates a database: `PUT /{db}`.
    ///
    /// # Errors
    ///
    /// `FileExists`, `IllegalDatabaseName`, `DatabaseNameTooLong`.
    pub async fn create(&self, name: &str) -> Result<Database> {
        self.host().create(name).await?;
        self.db(name)
    }

    /// Opens a database, and creates it first if there is none.
    ///
    /// # Errors
    ///
    /// `IllegalDatabaseName`, `DatabaseNameTooLong`.
    pub async fn create_if_missing(&self, name: &str) -> Result<Database> {
        match self.host().create(name).await {
            Err(error) if error.kind() != ErrorKind::FileExists => Err(error),
            _ => self.db(name),
        }
    }

    /// Opens a database that exists.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not, `IllegalDatabaseName`, `DatabaseNameTooLong`.
    pub async fn open_db(&self, name: &str) -> Result<Database> {
        let database = self.db(name)?;
        match database.exists().await? {
            true => Ok(database),
            false => Err(Error::no_database()),
        }
    }

    /// Deletes a database and everything in it: `DELETE /{db}`.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.host().delete(name).await
    }

    /// Whether there is such a database: `HEAD /{db}`.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        self.host().exists(name).await
    }

    /// The names of all databases, in the order of their bytes: `GET /_all_dbs`.
    pub async fn all_dbs(&self) -> Result<Vec<String>> {
        self.all_dbs_with(&AllDbsOptions::default()).await
    }

    /// The names of some databases.
    pub async fn all_dbs_with(&self, options: &AllDbsOptions) -> Result<Vec<String>> {
        self.host().all_dbs(options).await
    }

    /// How many databases there are.
    pub async fn len(&self) -> Result<usize> {
        Ok(self.all_dbs().await?.len())
    }

    /// Whether there is no database.
    pub async fn is_empty(&self) -> Result<bool> {
        let one = AllDbsOptions { limit: Some(1), ..Default::default() };
        Ok(self.all_dbs_with(&one).await?.is_empty())
    }

    /// What is going on that no request waits for: `GET /_active_tasks`.
    pub async fn active_tasks(&self) -> Result<Vec<ActiveTask>> {
        self.host().active_tasks().await
    }

    /// Replicates from one database to another, each by its name in this place or, with the feature
    /// `remote`, by its URL. [`Database::replicate_to`] and its relatives do it between any two.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::Couch;
    ///
    /// let couch = Couch::memory()?;
    /// couch.create("olddb").await?.put(r#"{"_id": "a"}"#).await?;
    /// couch.replicate("olddb", "newdb")?.create_target().run().await?;
    /// assert!(couch.db("newdb")?.contains("a").await?);
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// `IllegalDatabaseName`, `DatabaseNameTooLong`, and `BadRequest` for URLs that make no sense.
    pub fn replicate(&self, source: &str, target: &str) -> Result<Replication> {
        Ok(Replication::new(self.find(source)?, self.find(target)?))
    }

    /// Replicates in both directions, as [`replicate`](Couch::replicate).
    ///
    /// # Errors
    ///
    /// Those of [`replicate`](Couch::replicate).
    pub fn sync(&self, one: &str, other: &str) -> Result<Sync> {
        Ok(Sync::new(self.find(one)?, self.find(other)?))
    }

    /// A database by its name or its URL.
    fn find(&self, place: &str) -> Result<Database> {
        #[cfg(feature = "remote")]
        if place.contains("://") {
            return Database::connect(place);
        }
        self.db(place)
    }

    /// Fresh document ids, in ascending order: `GET /_uuids`.
    pub async fn uuids(&self, count: usize) -> Result<Vec<String>> {
        self.host().uuids(count).await
    }

    /// The place's own id, which it keeps for good.
    pub async fn uuid(&self) -> Result<String> {
        self.host().uuid().await
    }

    /// What happens to databases from now on, until the stream is dropped.
    ///
    /// ```
    /// # futures_executor::block_on(async {
    /// use settee::{Couch, adapter::DbUpdateKind, prelude::*};
    ///
    /// let couch = Couch::memory()?;
    /// let mut events = couch.events().await?;
    /// couch.create("abc").await?;
    /// let event = events.try_next().await?.unwrap();
    /// assert_eq!((event.db_name.as_str(), event.kind), ("abc", DbUpdateKind::Created));
    /// # Ok::<(), settee::Error>(()) }).unwrap();
    /// ```
    pub async fn events(&self) -> Result<BoxStream<'static, Result<DbUpdate>>> {
        self.db_updates(None, true).await
    }

    /// What happened to databases behind a point of the feed, or from now on; and if `live`, what
    /// happens from then on: `GET /_db_updates`. The feed begins at `Seq::default()`.
    pub async fn db_updates(
        &self,
        since: Option<Seq>,
        live: bool,
    ) -> Result<BoxStream<'static, Result<DbUpdate>>> {
        self.host().db_updates(since, live).await
    }

    /// Ids for new documents. They come from the host in bunches, so that most documents cost a
    /// server no second request.
    pub(crate) async fn fresh_ids(&self, count: usize) -> Result<Vec<String>> {
        let cache = || self.inner.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ids: Vec<String> = {
            let mut cached = cache();
            let known = cached.len().min(count);
            cached.drain(..known).collect()
        };
        while ids.len() < count {
            let wanted = count - ids.len();
            let (least, most) = IDS_AT_A_TIME;
            let mut fresh = self.uuids(wanted.clamp(least, most)).await?;
            cache().extend(fresh.split_off(wanted.min(fresh.len())));
            ids.append(&mut fresh);
        }
        Ok(ids)
    }

    /// One id for a new document.
    pub(crate) async fn fresh_id(&self) -> Result<String> {
        Ok(self.fresh_ids(1).await?.remove(0))
    }
}

impl fmt::Debug for Couch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Couch").field(self.host()).finish()
    }
}
