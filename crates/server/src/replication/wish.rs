//! A replication as somebody asks for it, in the body of a request or in a document.
//!
//! Either end is a database of this server, by its name, or one of another, by its URL. Which
//! addresses the server goes to, [`Reach`] says; it is asked about what a name stands for and about
//! redirects, too.

use super::addresses::Reach;
use crate::app::App;
use crate::call::encode;
use crate::config::Live;
use crate::routes::database::create_secured;
use crate::users;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Map, Value};
use settee::adapter::{Adapter, Host};
use settee::design::{ChangesFilter, UserCtx, Validating};
use settee::remote::{Remote, RemoteOptions};
use settee::replicate::Replication;
use settee_core::options::{Filter, FilterFunction};
use settee_core::selector::Selector;
use settee_core::wire::Seq;
use settee_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The most changes that go through together.
const MAX_BATCH: usize = 10_000;

/// What is asked for. What has no meaning here, such as numbers of processes, is ignored.
#[derive(Deserialize)]
pub(crate) struct Wish {
    source: Option<Place>,
    target: Option<Place>,
    #[serde(default)]
    pub(crate) continuous: bool,
    #[serde(default)]
    pub(crate) cancel: bool,
    #[serde(default)]
    create_target: bool,
    doc_ids: Option<Vec<String>>,
    selector: Option<Value>,
    filter: Option<String>,
    /// What a filter function finds in its request.
    query_params: Option<Map<String, Value>>,
    since_seq: Option<Seq>,
    #[serde(default)]
    winning_revs_only: bool,
    use_checkpoints: Option<bool>,
    /// In milliseconds.
    checkpoint_interval: Option<u64>,
    /// In milliseconds.
    connection_timeout: Option<u64>,
    /// The same, as PouchDB calls it.
    timeout: Option<u64>,
    /// In milliseconds. Unless given, a third of the `connection_timeout` if that is.
    heartbeat: Option<u64>,
    worker_batch_size: Option<usize>,
    retries_per_request: Option<u32>,
    /// Names of what is to be cancelled.
    #[serde(alias = "_local_id", alias = "id")]
    pub(crate) replication_id: Option<String>,
    /// A proxy for both ends; an empty one is none.
    #[serde(default)]
    proxy: String,
    #[serde(default)]
    source_proxy: String,
    #[serde(default)]
    target_proxy: String,
}

/// A database, as the client names it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Place {
    Name(String),
    Url {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        auth: Auth,
    },
}

#[derive(Deserialize, Default)]
struct Auth {
    basic: Option<Basic>,
}

#[derive(Deserialize)]
struct Basic {
    username: String,
    password: String,
}

/// A database to replicate with.
struct End {
    adapter: Arc<dyn Adapter>,
    name: String,
    /// Its server, unless that is this one.
    remote: Option<Remote>,
    /// The proxy on the way there, without anything secret.
    proxy: Option<String>,
    /// Without anything secret.
    shown: String,
}

/// A replication whose ends are known, though nothing has been asked of them.
pub(crate) struct Prepared {
    pub(crate) replication: Replication,
    /// Its id, with what CouchDB has behind it.
    pub(crate) id: String,
    source: End,
    target: End,
    create_target: bool,
}

impl Wish {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// `BadRequest`. What is wrong with it is not repeated: there may be a password in it.
    pub(crate) fn parse(members: Map<String, Value>) -> Result<Wish> {
        serde_json::from_value(Value::Object(members)).map_err(|_| {
            Error::bad_request("The replication's members are not of the right types.")
        })
    }

    /// Whether it makes sense, as far as that can be seen without looking further.
    ///
    /// # Errors
    ///
    /// `BadRequest`.
    pub(crate) fn check(&self) -> Result<()> {
        for place in [&self.source, &self.target] {
            let url = match place.as_ref().ok_or_else(missing_end)? {
                Place::Name(url) | Place::Url { url, .. } => url,
            };
            if url.is_empty() {
                return Err(missing_end());
            }
        }
        self.proxies()?;
        self.filter().map(drop)
    }

    /// The proxies to the source and to the target.
    fn proxies(&self) -> Result<(&str, &str)> {
        let (source, target) = (self.source_proxy.as_str(), self.target_proxy.as_str());
        if self.proxy.is_empty() {
            return Ok((source, target));
        }
        for (name, proxy) in [("source_proxy", source), ("target_proxy", target)] {
            if !proxy.is_empty() {
                let reason = format!("`proxy` is mutually exclusive with `{name}`");
                return Err(Error::bad_request(reason));
            }
        }
        Ok((&self.proxy, &self.proxy))
    }

    /// Finds its ends.
    ///
    /// # Errors
    ///
    /// `BadRequest` or `Forbidden`: this will never be a replication. If a function filters, those of
    /// the source.
    pub(crate) async fn prepare(&self, app: &App, live: &Live) -> Result<Prepared> {
        let reach = Arc::new(Reach::of(app, live));
        let end = |place: &Option<Place>, proxy| {
            End::new(app, place.as_ref().ok_or_else(missing_end)?, proxy, &reach)
        };
        let (source_proxy, target_proxy) = self.proxies()?;
        let (source, target) = (end(&self.source, source_proxy)?, end(&self.target, target_proxy)?);
        if !self.cancel && target.remote.is_none() && target.name == users::DATABASE {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "Users are not replicated by name: their passwords would not be checked and \
                 hashed. Replicate to this server's URL.",
            ));
        }
        let filter = self.filter()?;
        if let Filter::Function(_) = filter {
            // Its code is read already now.
            source.check_address(&reach).await?;
        }
        let replication = self.replication(app, &source, &target, filter).await?;
        let mut id = replication.id().await?;
        if self.continuous {
            id.push_str("+continuous");
        }
        Ok(Prepared { replication, id, source, target, create_target: self.create_target })
    }

    async fn replication(
        &self,
        app: &App,
        source: &End,
        target: &End,
        filter: Filter,
    ) -> Result<Replication> {
        let mut replication =
            Replication::new(source.adapter.clone(), target.adapter.clone()).filter(filter);
        if self.continuous {
            replication = replication.live();
        }
        if self.winning_revs_only {
            replication = replication.winning_revs_only();
        }
        if self.use_checkpoints == Some(false) {
            replication = replication.without_checkpoints();
        }
        if let Some(seq) = &self.since_seq {
            replication = replication.since(seq.clone());
        }
        if let Some(millis) = self.checkpoint_interval {
            replication = replication.checkpoint_interval(Duration::from_millis(millis.max(100)));
        }
        let timeout = self.connection_timeout.or(self.timeout);
        if let Some(millis) = timeout {
            replication = replication.timeout(Duration::from_millis(millis.max(100)));
        }
        if let Some(millis) = self.heartbeat.or(timeout.map(|millis| millis / 3)) {
            replication = replication.heartbeat(Duration::from_millis(millis.max(100)));
        }
        if let Some(changes) = self.worker_batch_size {
            replication = replication.batch_size(changes.clamp(1, MAX_BATCH));
        }
        if let Some(retries) = self.retries_per_request {
            replication = replication.retries(retries);
        }
        Ok(replication.place(app.host.uuid().await?))
    }

    /// Whether a function of a design document filters, so that its code is part of the id.
    pub(crate) fn has_function(&self) -> bool {
        self.filter.as_ref().is_some_and(|name| !name.starts_with('_'))
    }

    fn filter(&self) -> Result<Filter> {
        let named = self.filter.as_deref();
        match (&self.doc_ids, &self.selector, named) {
            (None, None, None) => Ok(Filter::None),
            (Some(ids), None, None | Some("_doc_ids")) => {
                Ok(Filter::DocIds(Arc::new(ids.iter().cloned().collect())))
            }
            (None, Some(selector), None | Some("_selector")) => {
                Ok(Filter::Selector(Arc::new(Selector::parse(selector)?)))
            }
            (None, None, Some("_design")) => Ok(Filter::Design),
            (None, None, Some(name)) if name == FilterFunction::VIEW || !name.starts_with('_') => {
                let query = self.query_params.clone().unwrap_or_default();
                let view = query.get("view").and_then(Value::as_str);
                ChangesFilter::parse(name, view)?;
                Ok(Filter::function_with(name, query))
            }
            _ => Err(Error::bad_request("`doc_ids`, `filter`, `selector` are mutually exclusive")),
        }
    }
}

fn missing_end() -> Error {
    Error::bad_request("A replication needs a source and a target.")
}

impl Prepared {
    /// Where from, without anything secret.
    pub(crate) fn source(&self) -> &str {
        &self.source.shown
    }

    /// Where to, without anything secret.
    pub(crate) fn target(&self) -> &str {
        &self.target.shown
    }

    /// The proxies to both ends, without anything secret.
    pub(crate) fn proxies(&self) -> (Option<String>, Option<String>) {
        (self.source.proxy.clone(), self.target.proxy.clone())
    }

    /// Looks whether both ends are there, and creates the target if that is wanted.
    ///
    /// # Errors
    ///
    /// `Forbidden` if the server does not go there; otherwise those of both ends.
    pub(crate) async fn open(&self, app: &App, live: &Live) -> Result<()> {
        let reach = Reach::of(app, live);
        self.source.check_address(&reach).await?;
        self.target.check_address(&reach).await?;
        self.source.open().await?;
        if self.create_target {
            self.target.create(app, live).await?;
        }
        self.target.open().await
    }
}

impl End {
    fn new(app: &App, place: &Place, proxy: &str, reach: &Arc<Reach>) -> Result<End> {
        let mut options = RemoteOptions::new();
        let mut shown_proxy = None;
        if !proxy.is_empty() {
            options = options.proxy(proxy);
            let uri = proxy.parse::<Uri>().ok();
            let parts = uri.as_ref().and_then(|uri| uri.scheme_str().zip(uri.authority()));
            shown_proxy = parts.map(|(scheme, authority)| {
                let host = authority.as_str().rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}")
            });
        }
        let url = match place {
            Place::Name(url) => url,
            Place::Url { url, headers, auth } => {
                for (name, value) in headers {
                    options = options.header(name, value);
                }
                if let Some(Basic { username, password }) = &auth.basic {
                    options = options.basic(username, password);
                }
                url
            }
        };
        if !url.contains("://") {
            // Whoever replicates is a server admin; functions of design documents judge even those.
            let user = UserCtx { db: url.clone(), name: None, roles: vec!["_admin".to_owned()] };
            let adapter = app.host.database(url)?;
            let adapter = Arc::new(Validating::new(adapter, app.validator.clone(), user));
            let (name, shown) = (url.clone(), url.clone());
            return Ok(End { adapter, name, remote: None, proxy: None, shown });
        }
        let reach = reach.clone();
        options = options.only_addresses(move |address| reach.permits(address));
        let (remote, name) = Remote::connect_database(url, &options)?;
        let adapter = remote.database(&name)?;
        let shown = format!("{}/{}/", remote.url(), encode(&name));
        Ok(End { adapter, name, remote: Some(remote), proxy: shown_proxy, shown })
    }

    /// Refuses an address that is denied. The connection looks again.
    async fn check_address(&self, reach: &Reach) -> Result<()> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let uri: Uri = remote
            .url()
            .parse()
            .map_err(|_| Error::bad_request("The URL's host is missing or not legal."))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        // A name that stands for nothing fails when it is connected to.
        let Ok(mut addresses) = tokio::net::lookup_host((host, port)).await else { return Ok(()) };
        match addresses.all(|address| reach.permits(address)) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Forbidden,
                "This server does not replicate with this address. Those of its own machine and \
                 link are denied unless its configuration allows them.",
            )),
        }
    }

    /// That it is there.
    async fn open(&self) -> Result<()> {
        match self.adapter.info().await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => {
                let reason = format!("could not open {}", self.shown);
                Err(Error::new(ErrorKind::NotFound, reason).with_name("db_not_found"))
            }
            Err(error) => Err(error),
        }
    }

    /// Creates it, unless it is there.
    async fn create(&self, app: &App, live: &Live) -> Result<()> {
        let created = match &self.remote {
            None => create_secured(app, live, &self.name).await,
            Some(remote) => remote.create(&self.name).await,
        };
        match created {
            Err(error) if error.kind() != ErrorKind::FileExists => Err(error),
            _ => Ok(()),
        }
    }
}
