//! Replication: <https://docs.couchdb.org/en/stable/api/server/common.html#replicate>
//!
//! Either end is a database of this server, by its name, or one of another, by its URL. The server
//! connects to where it is told, so it must not be made to reach what only it can reach: loopback and
//! link-local addresses, where other services of the machine and the metadata of clouds are, are
//! refused unless `replicate_loopback` in the section `settee` is `true`. That setting cannot be
//! changed over HTTP. It holds for what a name stands for and for redirects, too.

use crate::auth::access::ServerAdmin;
use crate::call::{Call, encode};
use crate::replications::{Job, Started};
use crate::reply::{self, Response};
use crate::routes::database::create_secured;
use crate::users;
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use settee::adapter::{Adapter, Host};
use settee::remote::{Remote, RemoteOptions};
use settee::replicate::{Replication, ReplicationStatus};
use settee_core::options::Filter;
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
struct Wish {
    source: Option<Place>,
    target: Option<Place>,
    #[serde(default)]
    continuous: bool,
    #[serde(default)]
    cancel: bool,
    #[serde(default)]
    create_target: bool,
    doc_ids: Option<Vec<String>>,
    selector: Option<Value>,
    filter: Option<String>,
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
    replication_id: Option<String>,
    #[serde(alias = "source_proxy", alias = "target_proxy")]
    proxy: Option<Value>,
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
    /// Without anything secret.
    shown: String,
}

/// `POST /_replicate`
pub(super) async fn start(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    // What is wrong with it is not repeated: there may be a password in it.
    let wish: Wish = serde_json::from_value(Value::Object(call.object().await?))
        .map_err(|_| Error::bad_request("The replication's members are not of the right types."))?;
    let replications = &call.app.replications;
    if let (true, Some(id)) = (wish.cancel, &wish.replication_id) {
        return cancelled(replications.cancel(id));
    }
    let missing = || Error::bad_request("A replication needs a source and a target.");
    let loopback = call.live.get("settee", "replicate_loopback") == Some("true");
    let source = End::new(&call, wish.source.as_ref().ok_or_else(missing)?, loopback)?;
    let target = End::new(&call, wish.target.as_ref().ok_or_else(missing)?, loopback)?;
    let replication = wish.replication(&call, &source, &target).await?;
    if wish.cancel {
        return cancelled(replications.cancel(&replication.id()));
    }
    if target.remote.is_none() && target.name == users::DATABASE {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "Users are not replicated by name: their passwords would not be checked and hashed. \
             Replicate to this server's URL.",
        ));
    }
    if !loopback {
        source.check_address().await?;
        target.check_address().await?;
    }
    source.open().await?;
    if wish.create_target {
        target.create(&call).await?;
    }
    target.open().await?;
    let job = Job {
        source: source.shown,
        target: target.shown,
        user: call.user().name.clone(),
        continuous: wish.continuous,
    };
    let max = call.live.number("replicator", "max_jobs", 500);
    match replications.start(replication, job, max)? {
        Started::Continuous(id) => {
            reply::json(StatusCode::ACCEPTED, &json!({"ok": true, "_local_id": id}))
        }
        Started::Once(ended) => {
            let result = ended.await.map_err(Error::internal)??;
            match result.status {
                ReplicationStatus::Complete => reply::ok_json(&result.to_couchdb()),
                ReplicationStatus::Cancelled => {
                    let reason = "The replication was cancelled.";
                    Err(Error::new(ErrorKind::ServiceUnavailable, reason))
                }
            }
        }
    }
}

fn cancelled(id: Option<String>) -> Result<Response> {
    match id {
        Some(id) => reply::ok_json(&json!({"ok": true, "_local_id": id})),
        None => Err(Error::missing()),
    }
}

impl Wish {
    async fn replication(&self, call: &Call, source: &End, target: &End) -> Result<Replication> {
        if self.proxy.is_some() {
            return Err(Error::bad_request("Replication through proxies is not supported."));
        }
        let mut replication =
            Replication::new(source.adapter.clone(), target.adapter.clone()).filter(self.filter()?);
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
        Ok(replication.place(call.app.host.uuid().await?))
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
            (None, None, Some(name)) if !name.starts_with('_') => {
                let reason = "Filter functions in replications are not implemented yet.";
                Err(Error::new(ErrorKind::NotImplemented, reason))
            }
            _ => Err(Error::bad_request("`doc_ids`, `filter`, `selector` are mutually exclusive")),
        }
    }
}

impl End {
    fn new(call: &Call, place: &Place, loopback: bool) -> Result<End> {
        let mut options = RemoteOptions::new();
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
            let adapter = call.app.host.database(url)?;
            return Ok(End { adapter, name: url.clone(), remote: None, shown: url.clone() });
        }
        if !loopback {
            options = options.only_addresses(is_outside);
        }
        let (remote, name) = Remote::connect_database(url, &options)?;
        let adapter = remote.database(&name)?;
        let shown = format!("{}/{}/", remote.url(), encode(&name));
        Ok(End { adapter, name, remote: Some(remote), shown })
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
    async fn create(&self, call: &Call) -> Result<()> {
        let created = match &self.remote {
            None => create_secured(call, &self.name).await,
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

/// `GET /_scheduler/jobs`
pub(super) async fn jobs(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    listing(&call, "jobs", call.app.replications.jobs())
}

/// `GET /_scheduler/docs`: replications that documents describe, of which there are none.
pub(super) async fn docs(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    match call.param("path").split_once('/') {
        Some(_) => Err(Error::missing()),
        None => listing(&call, "docs", Vec::new()),
    }
}

/// A part of a list.
fn listing(call: &Call, name: &str, rows: Vec<Value>) -> Result<Response> {
    let number = |name: &str, default: usize| match call.query.get(name) {
        None => Ok(default),
        Some(text) => {
            let wrong = |_| Error::query_parse(format!("`{name}` must be a number"));
            text.parse().map_err(wrong)
        }
    };
    let (skip, limit) = (number("skip", 0)?, number("limit", usize::MAX)?);
    let mut reply = Map::new();
    reply.insert("total_rows".to_owned(), rows.len().into());
    reply.insert("offset".to_owned(), skip.into());
    let rows: Vec<Value> = rows.into_iter().skip(skip).take(limit).collect();
    reply.insert(name.to_owned(), rows.into());
    reply::ok_json(&reply)
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
