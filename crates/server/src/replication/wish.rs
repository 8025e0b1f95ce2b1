//! A replication as somebody asks for it, in the body of a request or in a document.
//!
//! Either end is a database of this server, by its name, or one of another, by its URL. The server
//! connects to where it is told, so it must not be made to reach what only it can reach: loopback and
//! link-local addresses, where other services of the machine and the metadata of clouds are, are
//! refused unless `replicate_loopback` in the section `settee` is `true`. That setting cannot be
//! changed over HTTP. It holds for what a name stands for and for redirects, too.

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
use std::net::{IpAddr, Ipv6Addr};
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
    worker_batch_size: Option<usize>,
    retries_per_request: Option<u32>,
    /// Names of what is to be cancelled.
    #[serde(alias = "_local_id", alias = "id")]
    pub(crate) replication_id: Option<String>,
    /// An HTTP proxy for both ends; an empty one is none.
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
        let outside = !allows_loopback(live);
        let end = |place: &Option<Place>, proxy| {
            End::new(app, place.as_ref().ok_or_else(missing_end)?, proxy, outside)
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
        if let (Filter::Function(_), true) = (&filter, outside) {
            // Its code is read already now.
            source.check_address().await?;
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
        if let Some(millis) = self.connection_timeout {
            replication = replication.timeout(Duration::from_millis(millis.max(100)));
        }
        if let Some(changes) = self.worker_batch_size {
            replication = replication.batch_size(changes.clamp(1, MAX_BATCH));
        }
        if let Some(retries) = self.retries_per_request {
            replication = replication.retries(retries);
        }
        Ok(replication.place(app.host.uuid().await?))
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
        if !allows_loopback(live) {
            self.source.check_address().await?;
            self.target.check_address().await?;
        }
        self.source.open().await?;
        if self.create_target {
            self.target.create(app, live).await?;
        }
        self.target.open().await
    }
}

fn allows_loopback(live: &Live) -> bool {
    live.get("settee", "replicate_loopback") == Some("true")
}

impl End {
    fn new(app: &App, place: &Place, proxy: &str, outside: bool) -> Result<End> {
        let mut options = RemoteOptions::new();
        let mut shown_proxy = None;
        if !proxy.is_empty() {
            options = options.proxy(proxy);
            let uri = proxy.parse::<Uri>().ok();
            let authority = uri.as_ref().and_then(Uri::authority).map(|whole| whole.as_str());
            let host = authority.and_then(|whole| whole.rsplit('@').next());
            shown_proxy = host.map(|host| format!("http://{host}"));
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
        if outside {
            options = options.only_addresses(is_outside);
        }
        let (remote, name) = Remote::connect_database(url, &options)?;
        let adapter = remote.database(&name)?;
        let shown = format!("{}/{}/", remote.url(), encode(&name));
        Ok(End { adapter, name, remote: Some(remote), proxy: shown_proxy, shown })
    }

    /// Refuses an address of this machine or its link. The connection looks again.
    async fn check_address(&self) -> Result<()> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let uri: Uri = remote
            .url()
            .parse()
            .map_err(|_| Error::bad_request("The URL's host is missing or not legal."))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(443);
        // A name that stands for nothing fails when it is connected to.
        let Ok(mut addresses) = tokio::net::lookup_host((host, port)).await else { return Ok(()) };
        match addresses.all(|address| is_outside(address.ip())) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Forbidden,
                "This server does not replicate with addresses of its own machine or link. \
                 Give a database of this server by its name alone.",
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

/// Whether an address is neither of this machine nor of its link, in whatever form it is written.
fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let metadata = v4.octets() == [100, 100, 100, 200];
            let here = v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0;
            !(here || metadata || v4.is_broadcast() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let metadata = v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            let here = v6.is_loopback() || v6.is_unspecified() || link_local;
            // Addresses of version 4 in their several disguises.
            let embedded = match v6.segments() {
                [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                    let [.., a, b, c, d] = v6.octets();
                    is_outside(IpAddr::from([a, b, c, d]))
                }
                _ => true,
            };
            !(here || metadata || v6.is_multicast()) && embedded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_outside;

    #[test]
    fn addresses_of_the_machine_and_its_link_are_known_in_every_form() {
        for inside in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
        ] {
            assert!(!is_outside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.0.0.1", "192.168.1.7", "93.184.216.34", "2001:db8::1", "fd00::1"] {
            assert!(is_outside(outside.parse().unwrap()), "{outside}");
        }
    }
}
