//! The server's own replicator.

use super::auth::Auth;
use super::host::Remote;
use super::http::Call;
use super::url::{BaseUrl, PathQuery};
use hyper::header;
use serde_json::{Map, Value, json};
use settee_core::options::{GetOptions, WriteOptions};
use settee_core::wire::Saved;
use settee_core::{Document, Result};

/// One side of a replication that a server carries out.
#[derive(Debug, Clone)]
#[must_use]
pub struct Endpoint {
    /// A database of the server itself, or a URL.
    place: String,
    headers: Vec<(String, String)>,
}

impl Endpoint {
    /// A database by its URL, or by its name on the server that replicates.
    pub fn new(place: impl Into<String>) -> Endpoint {
        Endpoint { place: place.into(), headers: Vec::new() }
    }

    /// Sends a header with every request to it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Endpoint {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl From<&str> for Endpoint {
    fn from(place: &str) -> Endpoint {
        Endpoint::new(place)
    }
}

impl From<String> for Endpoint {
    fn from(place: String) -> Endpoint {
        Endpoint::new(place)
    }
}

/// A replication that a server carries out: `_replicate` or a document in `_replicator`.
///
/// ```no_run
/// # async fn example(remote: settee::remote::Remote) -> settee::Result<()> {
/// use settee::remote::Replicate;
///
/// let once = Replicate::new("people", "https://backup.example.com/people").create_target(true);
/// println!("{}", remote.replicate(&once).await?["ok"]);
///
/// let kept = Replicate::new("people", "copy").continuous(true);
/// remote.replicate(&kept).await?;
/// remote.cancel_replication(&kept).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Replicate {
    source: Endpoint,
    target: Endpoint,
    options: Map<String, Value>,
}

impl Replicate {
    /// A replication from one database to another.
    pub fn new(source: impl Into<Endpoint>, target: impl Into<Endpoint>) -> Replicate {
        Replicate { source: source.into(), target: target.into(), options: Map::new() }
    }

    /// Goes on until it is cancelled.
    pub fn continuous(self, continuous: bool) -> Replicate {
        self.option("continuous", continuous)
    }

    /// Creates the target if it is missing.
    pub fn create_target(self, create: bool) -> Replicate {
        self.option("create_target", create)
    }

    /// Only these documents.
    pub fn doc_ids<S: Into<String>>(self, ids: impl IntoIterator<Item = S>) -> Replicate {
        let ids: Vec<String> = ids.into_iter().map(Into::into).collect();
        self.option("doc_ids", ids)
    }

    /// Only documents that a filter of the source, `design/name`, lets through.
    pub fn filter(self, filter: impl Into<String>) -> Replicate {
        self.option("filter", filter.into())
    }

    /// Through a proxy, by its URL.
    pub fn proxy(self, url: impl Into<String>) -> Replicate {
        self.option("proxy", url.into())
    }

    /// Any other option that the server knows, such as `selector` or `since_seq`.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> Replicate {
        self.options.insert(name.into(), value.into());
        self
    }
}

impl Remote {
    /// Has the server replicate, and returns its report. Unless it is continuous, that comes at the
    /// end, which may take longer than
    /// [`request_timeout`](super::RemoteOptions::request_timeout).
    pub async fn replicate(&self, replication: &Replicate) -> Result<Value> {
        let body = Value::Object(self.replication(replication).await?);
        let call = Call::post(PathQuery::new("_replicate")).json(body.to_string());
        self.http.fetch(call).await
    }

    /// Ends a continuous replication that was begun with the same options.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such replication.
    pub async fn cancel_replication(&self, replication: &Replicate) -> Result<Value> {
        let cancel = replication.clone().option("cancel", true);
        self.replicate(&cancel).await
    }

    /// Has the server replicate, and remember it: a document in `_replicator`, in which the server
    /// then reports.
    ///
    /// # Errors
    ///
    /// `Conflict` if there is a document with that id.
    pub async fn replicate_as(&self, id: &str, replication: &Replicate) -> Result<Saved> {
        let mut doc = Document::from_value(Value::Object(self.replication(replication).await?))?;
        doc.id = Some(id.to_owned());
        self.replicator()?.put(doc, None, &WriteOptions::default()).await
    }

    /// Ends a replication that the server remembers, by removing its document.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none.
    pub async fn forget_replication(&self, id: &str) -> Result<()> {
        let replicator = self.replicator()?;
        let current = replicator.get(id, &GetOptions::default()).await?;
        let gone =
            Document { id: current.id, rev: current.rev, deleted: true, ..Document::default() };
        replicator.put(gone, None, &WriteOptions::default()).await.map(drop)
    }

    async fn replication(&self, replication: &Replicate) -> Result<Map<String, Value>> {
        // A cluster takes names for something else than its own databases.
        let names = self.version().await?.major < 2;
        let endpoint = |endpoint: &Endpoint| -> Result<Value> {
            let mut headers: Map<String, Value> = Map::new();
            let url = if endpoint.place.contains("://") {
                let (base, credentials) = BaseUrl::parse(&endpoint.place)?;
                if let Some(credentials) = credentials {
                    headers.insert("Authorization".into(), credentials.basic().into());
                }
                base.to_string()
            } else if names {
                endpoint.place.clone()
            } else {
                if let Auth::Fixed(name, value) = &self.http.auth
                    && *name == header::AUTHORIZATION
                    && let Ok(value) = value.to_str()
                {
                    headers.insert("Authorization".into(), value.into());
                }
                if let Auth::Session { credentials, .. } = &self.http.auth {
                    headers.insert("Authorization".into(), credentials.basic().into());
                }
                format!("{}/{}", self.url(), super::url::encode(&endpoint.place))
            };
            for (name, value) in &endpoint.headers {
                headers.insert(name.clone(), value.as_str().into());
            }
            Ok(match headers.is_empty() {
                true => url.into(),
                false => json!({ "url": url, "headers": headers }),
            })
        };
        let mut body = Map::new();
        body.insert("source".into(), endpoint(&replication.source)?);
        body.insert("target".into(), endpoint(&replication.target)?);
        body.extend(replication.options.clone());
        Ok(body)
    }
}
