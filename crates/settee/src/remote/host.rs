//! [`Remote`]: a server, as a place of databases.

use super::database::RemoteDatabase;
use super::http::{Call, Http, Repeat, bad_reply};
use super::options::RemoteOptions;
use super::rows::LineReader;
use super::runtime::{self, with_runtime};
use super::server::Version;
use super::status::ConnectionStatus;
use super::url::{BaseUrl, Credentials, PathQuery, encode};
use crate::adapter::{Adapter, AllDbsOptions, DbUpdate, DbUpdateKind, Host};
use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use hyper::Method;
use serde_json::Value;
use settee_core::wire::{ActiveTask, Seq};
use settee_core::{Error, ErrorKind, Result, id};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A server: CouchDB or anything that speaks its protocol.
///
/// Cheap to clone; all clones share connections, session, and what is known of the server.
#[derive(Clone)]
pub struct Remote {
    pub(crate) http: Arc<Http>,
    pub(crate) known: Arc<Known>,
}

/// What is known of a server.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) version: OnceLock<Version>,
}

/// The most ids that a CouchDB gives at a time, unless it is configured otherwise.
const UUIDS: usize = 1000;

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Couch {:?}>", self.http)
    }
}

impl Remote {
    /// A server by its URL. Nothing is asked of it yet.
    ///
    /// The URL may hold a name and a password, which are taken out of it. Without a scheme it may
    /// be a host (`example.com`, `10.0.0.1:5984`), whose port is then 5984 unless given, or a path
    /// below the default server; empty, it is the default server: the environment's `COUCHDB_URL`,
    /// or `http://127.0.0.1:5984`.
    ///
    /// ```
    /// use settee::remote::{Remote, RemoteOptions};
    ///
    /// let remote = Remote::connect("https://jan:apple@example.com", &RemoteOptions::new())?;
    /// assert_eq!(remote.url(), "https://example.com");
    /// assert_eq!(format!("{remote:?}"), "<Couch 'https://example.com'>");
    /// # Ok::<(), settee::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `BadRequest` if the URL or one of the options makes no sense.
    pub fn connect(url: &str, options: &RemoteOptions) -> Result<Remote> {
        let (base, credentials) = BaseUrl::parse_server(url)?;
        Remote::at(base, credentials, options)
    }

    /// A database's server and name, by the database's URL, or by its name on the default server.
    ///
    /// # Errors
    ///
    /// As [`connect`](Remote::connect).
    pub fn connect_database(url: &str, options: &RemoteOptions) -> Result<(Remote, String)> {
        let (base, credentials, name) = BaseUrl::parse_database(url)?;
        Ok((Remote::at(base, credentials, options)?, name))
    }

    fn at(
        base: BaseUrl,
        credentials: Option<Credentials>,
        options: &RemoteOptions,
    ) -> Result<Remote> {
        let http = Http::new(base, credentials, options.clone())?;
        Ok(Remote { http: Arc::new(http), known: Arc::default() })
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> String {
        self.http.base.to_string()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> bool {
        let call = Call::new(Method::HEAD, PathQuery::new("")).retries(0);
        match self.http.run(call).await {
            Ok(()) => true,
            // Who refuses has answered.
            Err(error) => matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Forbidden),
        }
    }

    /// Whether it was reached when it was last tried.
    pub fn connection_status(&self) -> ConnectionStatus {
        self.http.status.get()
    }

    /// Whether it is reached: now, and whenever that changes. Follows whatever is asked of the
    /// server, live feeds above all, and asks nothing itself.
    pub fn watch_connection(&self) -> BoxStream<'static, ConnectionStatus> {
        self.http.status.watch()
    }

    /// Names that are paths of the server and not of a database are not asked for.
    fn path(name: &str) -> Result<PathQuery> {
        let own = name.starts_with('_') && !id::SYSTEM_DATABASES.contains(&name);
        if name.is_empty() || own {
            id::check_database_name(name)?;
        }
        if name.len() > id::MAX_DATABASE_NAME {
            id::check_database_name(name)?;
        }
        Ok(PathQuery::new(encode(name)))
    }
}

/// A database by its URL, or by its name on the default server. Nothing is asked yet.
///
/// ```
/// use settee::remote::{self, RemoteOptions};
///
/// let db = remote::database("https://example.com/people", &RemoteOptions::new())?;
/// assert_eq!(db.name(), "people");
/// # Ok::<(), settee::Error>(())
/// ```
///
/// # Errors
///
/// `BadRequest` if the URL or one of the options makes no sense.
pub fn database(url: &str, options: &RemoteOptions) -> Result<Arc<dyn Adapter>> {
    let (remote, name) = Remote::connect_database(url, options)?;
    remote.database(&name)
}

#[async_trait]
impl Host for Remote {
    fn database(&self, name: &str) -> Result<Arc<dyn Adapter>> {
        Remote::path(name)?;
        Ok(Arc::new(RemoteDatabase::new(self.http.clone(), name)))
    }

    async fn exists(&self, name: &str) -> Result<bool> {
        match self.http.run(Call::new(Method::HEAD, Remote::path(name)?)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, name: &str) -> Result<()> {
        // A second attempt could not tell one's own database from somebody else's.
        let call = Call::put(Remote::path(name)?).repeat(Repeat::Unsent);
        self.http.run(call).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.http.run(Call::delete(Remote::path(name)?).repeat(Repeat::Unsent)).await
    }

    async fn all_dbs(&self, options: &AllDbsOptions) -> Result<Vec<String>> {
        let json = |name: &Option<String>| name.as_ref().map(|name| Value::from(name.as_str()));
        let mut path = PathQuery::new("_all_dbs")
            .maybe("startkey", json(&options.start))
            .maybe("endkey", json(&options.end))
            // What is to be skipped is skipped here, as not every server does.
            .maybe("limit", options.limit.map(|limit| limit.saturating_add(options.skip)))
            .flag("descending", options.descending);
        if !options.inclusive_end {
            path = path.with("inclusive_end", false);
        }
        let names: Vec<String> = self.http.fetch(Call::get(path)).await?;
        Ok(some_of(names, options))
    }

    async fn db_updates(
        &self,
        since: Option<Seq>,
        live: bool,
    ) -> Result<BoxStream<'static, Result<DbUpdate>>> {
        let mut updates = Updates {
            remote: self.clone(),
            since,
            ready: VecDeque::new(),
            reader: None,
            live,
            ended: false,
        };
        // `None` is from now on, not from whenever the first is taken.
        updates.begin().await?;
        let updates = stream::unfold(updates, |mut updates| async move {
            let next = with_runtime(Box::pin(updates.next())).await?;
            if next.is_err() {
                updates.ended = true;
            }
            Some((next, updates))
        });
        Ok(updates.boxed())
    }

    async fn uuids(&self, count: usize) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Uuids {
            uuids: Vec<String>,
        }
        let mut all: Vec<String> = Vec::new();
        while all.len() < count {
            let some = (count - all.len()).min(UUIDS);
            let path = PathQuery::new("_uuids").with("count", some);
            let Uuids { uuids } = self.http.fetch(Call::get(path)).await?;
            if uuids.len() != some {
                return Err(bad_reply("The server sent another number of ids than asked for."));
            }
            all.extend(uuids);
        }
        Ok(all)
    }

    async fn active_tasks(&self) -> Result<Vec<ActiveTask>> {
        self.http.fetch(Call::get(PathQuery::new("_active_tasks"))).await
    }

    async fn uuid(&self) -> Result<String> {
        let welcome: Value = self.http.fetch(Call::get(PathQuery::new(""))).await?;
        let uuid = welcome.get("uuid").and_then(Value::as_str);
        // The oldest have none; then where it is must do.
        Ok(uuid.map_or_else(|| self.url(), str::to_owned))
    }
}

/// The part of a list that was asked for, again: servers before 2.2 send all of it, and clusters
/// order it as views do.
fn some_of(mut names: Vec<String>, options: &AllDbsOptions) -> Vec<String> {
    let (low, high) = match options.descending {
        false => (&options.start, &options.end),
        true => (&options.end, &options.start),
    };
    let ends = |name: &String| options.end.as_ref() == Some(name) && !options.inclusive_end;
    names.retain(|name| {
        low.as_ref().is_none_or(|low| name >= low)
            && high.as_ref().is_none_or(|high| name <= high)
            && !ends(name)
    });
    names.sort_unstable();
    if options.descending {
        names.reverse();
    }
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let limit = options.limit.map_or(usize::MAX, number);
    names.into_iter().skip(number(options.skip)).take(limit).collect()
}

/// The feed of what happens to databases.
struct Updates {
    remote: Remote,
    since: Option<Seq>,
    ready: VecDeque<DbUpdate>,
    reader: Option<LineReader>,
    live: bool,
    ended: bool,
}

impl Updates {
    /// Reads what there is; without a beginning, where it ends.
    async fn begin(&mut self) -> Result<()> {
        // 1.x waits for something to happen, unless it is told for how long.
        let path = PathQuery::new("_db_updates").with("feed", "normal").with("timeout", 1000);
        let path = match &self.since {
            None => path.with("since", "now"),
            Some(since) => path.with("since", since),
        };
        let reply: Value = self.remote.http.fetch(Call::get(path)).await?;
        let only_from_now = self.since.is_none();
        if let Some(seq) = reply.get("last_seq").and_then(|seq| Seq::from_json(&seq.to_string())) {
            self.since = Some(seq);
        }
        let results = reply.get("results").and_then(Value::as_array);
        for row in results.into_iter().flatten().filter(|_| !only_from_now) {
            let update = Updates::update(row)?;
            self.ready.push_back(update);
        }
        // Who does not say where now is must be listened to from now on.
        let told = self.since.as_ref().is_some_and(|seq| *seq != Seq::Opaque("now".to_owned()));
        if self.live && !told {
            self.listen().await?;
        }
        Ok(())
    }

    fn update(row: &Value) -> Result<DbUpdate> {
        let name = row.get("db_name").and_then(Value::as_str);
        let name = name.ok_or_else(|| bad_reply("An update names no database."))?;
        let kind = match row.get("type").and_then(Value::as_str) {
            Some("created") => DbUpdateKind::Created,
            Some("deleted") => DbUpdateKind::Deleted,
            _ => DbUpdateKind::Updated,
        };
        let seq = row.get("seq").and_then(|seq| Seq::from_json(&seq.to_string()));
        // Those of 1.x have none.
        Ok(DbUpdate { db_name: name.to_owned(), kind, seq: seq.unwrap_or_default() })
    }

    async fn next(&mut self) -> Option<Result<DbUpdate>> {
        let mut backoff = super::retry::Backoff::new();
        loop {
            if self.ended {
                return None;
            }
            if let Some(update) = self.ready.pop_front() {
                return Some(Ok(update));
            }
            if !self.live {
                return None;
            }
            let Err(error) = self.listen().await else { continue };
            let passing = error.status() >= 500 && error.kind() != ErrorKind::BadReply;
            if !passing {
                return Some(Err(error));
            }
            self.reader = None;
            runtime::sleep(backoff.next(None)).await;
        }
    }

    async fn listen(&mut self) -> Result<()> {
        let http = self.remote.http.clone();
        let Some(reader) = &mut self.reader else {
            let heartbeat = http.options.heartbeat;
            let path = PathQuery::new("_db_updates")
                .with("feed", "continuous")
                .with("heartbeat", heartbeat.as_millis())
                .maybe("since", self.since.as_ref());
            let call = Call::get(path).retries(0).wait(heartbeat * 3).idle(heartbeat * 3);
            let response = http.send(call).await?;
            self.reader = Some(LineReader::new(response.body, 1 << 20));
            return Ok(());
        };
        let mut rows = Vec::new();
        let each = |line: &[u8]| {
            if !line.is_empty() {
                let row = serde_json::from_slice::<Value>(line);
                rows.push(row.map_err(|_| bad_reply("An update is no JSON."))?);
            }
            Ok(())
        };
        let more = reader.next_lines(each).await?;
        for row in rows {
            if let Some(seq) = row.get("seq").or(row.get("last_seq")) {
                self.since = Seq::from_json(&seq.to_string()).or(self.since.take());
            }
            if row.get("db_name").is_some() {
                let update = Updates::update(&row)?;
                self.ready.push_back(update);
            }
        }
        match more {
            Some(_) => Ok(()),
            None => {
                self.reader = None;
                Err(Error::new(ErrorKind::Unreachable, "The feed's connection was lost."))
            }
        }
    }
}
