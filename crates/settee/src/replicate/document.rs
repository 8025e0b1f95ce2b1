//! Documents in `_replicator`: replications that a server carries out and remembers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use settee_core::Rev;
use settee_core::time::{parse_rfc3339, rfc3339};
use settee_core::wire::Seq;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A document in `_replicator`: what is to be replicated, and what the server says of it.
///
/// It goes in and out like any document, through [`Couch::replicator`](crate::Couch::replicator). The
/// server begins when it is written, writes its state into it, and ends when it is deleted.
///
/// ```
/// # futures_executor::block_on(async {
/// use settee::Couch;
/// use settee::replicate::{ReplicatorDoc, ReplicatorState};
///
/// # let couch = Couch::memory()?;
/// let replicator = couch.replicator()?;
/// # replicator.create().await?;
/// let mut nightly = ReplicatorDoc::new("nightly", "people", "http://backup.example.com/people");
/// nightly.continuous = true;
/// replicator.put(&nightly).await?;
///
/// // Some time later:
/// # let mut doc = replicator.get("nightly").await?;
/// # doc.set("_replication_state", "error")?;
/// # doc.set("_replication_state_reason", "unreachable")?;
/// # replicator.put(doc).await?;
/// let nightly: ReplicatorDoc = replicator.get("nightly").await?.to()?;
/// if nightly.state == Some(ReplicatorState::Error) {
///     println!("{}", nightly.state_reason.unwrap_or_default());
/// }
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicatorDoc {
    /// The document's id.
    #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its revision, unless it is new.
    #[serde(rename = "_rev", skip_serializing_if = "Option::is_none")]
    pub rev: Option<Rev>,
    /// Where from.
    pub source: ReplicatorEnd,
    /// Where to.
    pub target: ReplicatorEnd,
    /// Whether it goes on with changes as they happen.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continuous: bool,
    /// Whether to create the target if it is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_target: bool,
    /// Only these documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_ids: Option<Vec<String>>,
    /// Only documents that match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Value>,
    /// Only documents that this filter function of the source, `design/name`, lets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What the filter function finds in its query.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub query_params: Map<String, Value>,
    /// Where to begin if there is no checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_seq: Option<Seq>,
    /// Whether to leave conflicting revisions behind.
    #[serde(default, skip_serializing_if = "is_false")]
    pub winning_revs_only: bool,
    /// Whether both ends remember how far it has come; they do if this is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_checkpoints: Option<bool>,
    /// How often they do, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_interval: Option<u64>,
    /// How long either end may take for one answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_timeout: Option<u64>,
    /// How often the source shows that it is still there, in milliseconds. Known to Settee only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u64>,

    /// The replication's id. This and what follows is the server's to say.
    #[serde(rename = "_replication_id", skip_serializing_if = "Option::is_none")]
    pub replication_id: Option<String>,
    /// What has become of it, if anything has yet.
    #[serde(rename = "_replication_state", skip_serializing_if = "Option::is_none")]
    pub state: Option<ReplicatorState>,
    /// Why it has failed.
    #[serde(rename = "_replication_state_reason", skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// Since when. CouchDB 1.x writes seconds since 1970, later ones RFC 3339; both are read, and the
    /// latter is written.
    #[serde(
        rename = "_replication_state_time",
        default,
        with = "state_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub state_time: Option<SystemTime>,
    /// What it came to, once it is completed.
    #[serde(rename = "_replication_stats", skip_serializing_if = "Option::is_none")]
    pub stats: Option<ReplicatorStats>,

    /// Every other member: `owner`, `user_ctx`, proxies, whatever else the server knows.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ReplicatorDoc {
    /// A replication that is to be remembered under an id.
    pub fn new(
        id: impl Into<String>,
        source: impl Into<ReplicatorEnd>,
        target: impl Into<ReplicatorEnd>,
    ) -> ReplicatorDoc {
        ReplicatorDoc {
            id: Some(id.into()),
            source: source.into(),
            target: target.into(),
            ..ReplicatorDoc::default()
        }
    }

    /// Without what the server has said, so that it begins anew when this is written.
    #[must_use]
    pub fn again(self) -> ReplicatorDoc {
        ReplicatorDoc {
            replication_id: None,
            state: None,
            state_reason: None,
            state_time: None,
            stats: None,
            ..self
        }
    }
}

/// Of the other members only the names: there may be passwords in them.
impl fmt::Debug for ReplicatorDoc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatorDoc")
            .field("id", &self.id)
            .field("rev", &self.rev)
            .field("source", &self.source)
            .field("target", &self.target)
            .field("continuous", &self.continuous)
            .field("replication_id", &self.replication_id)
            .field("state", &self.state)
            .field("state_reason", &self.state_reason)
            .field("state_time", &self.state_time)
            .field("stats", &self.stats)
            .field("other", &self.other.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What has become of a replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ReplicatorState {
    /// It runs.
    Triggered,
    /// It has failed, and will be tried again.
    Error,
    /// It is done.
    Completed,
    /// It cannot work, and will not be tried again.
    Failed,
    /// Something that other servers say.
    #[serde(untagged)]
    Other(String),
}

impl ReplicatorState {
    /// Whether nothing more will happen.
    pub fn has_ended(&self) -> bool {
        matches!(self, ReplicatorState::Completed | ReplicatorState::Failed)
    }
}

/// One end of a replication: a database by its URL, or by its name on the server that replicates.
/// Shown without what may be secret in it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ReplicatorEnd {
    /// A name, or a URL with or without credentials.
    Place(String),
    /// A URL, and what is sent there.
    Url {
        /// The URL.
        url: String,
        /// Sent with every request.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// Credentials, such as `{"basic": {"username": …, "password": …}}`.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        auth: Value,
    },
}

impl ReplicatorEnd {
    /// A database by its URL, with credentials apart from it.
    pub fn with_login(url: impl Into<String>, name: &str, password: &str) -> ReplicatorEnd {
        let auth = serde_json::json!({"basic": {"username": name, "password": password}});
        ReplicatorEnd::Url { url: url.into(), headers: BTreeMap::new(), auth }
    }

    /// The URL or the name, without credentials.
    pub fn shown(&self) -> String {
        let (ReplicatorEnd::Place(place) | ReplicatorEnd::Url { url: place, .. }) = self;
        let Some((scheme, rest)) = place.split_once("://") else { return place.clone() };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }
}

impl Default for ReplicatorEnd {
    fn default() -> ReplicatorEnd {
        ReplicatorEnd::Place(String::new())
    }
}

impl From<&str> for ReplicatorEnd {
    fn from(place: &str) -> ReplicatorEnd {
        ReplicatorEnd::Place(place.to_owned())
    }
}

impl From<String> for ReplicatorEnd {
    fn from(place: String) -> ReplicatorEnd {
        ReplicatorEnd::Place(place)
    }
}

impl fmt::Debug for ReplicatorEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

/// What a replication came to, as its document says it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReplicatorStats {
    /// Revisions that the target was asked about.
    pub revisions_checked: u64,
    /// Revisions that it lacked.
    pub missing_revisions_found: u64,
    /// Revisions that were read.
    pub docs_read: u64,
    /// Revisions that were written.
    pub docs_written: u64,
    /// Revisions that the target refused.
    pub doc_write_failures: u64,
    /// Changes that were still to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_pending: Option<u64>,
    /// How far both ends remember to have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpointed_source_seq: Option<Seq>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Seconds, or RFC 3339.
mod state_time {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(rfc3339).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Time {
            Seconds(u32),
            Text(String),
        }
        match Option::<Time>::deserialize(deserializer)? {
            None => Ok(None),
            Some(Time::Seconds(seconds)) => {
                Ok(Some(UNIX_EPOCH + Duration::from_secs(seconds.into())))
            }
            Some(Time::Text(text)) => match parse_rfc3339(&text) {
                Some(time) => Ok(Some(time)),
                None => Err(serde::de::Error::custom("no point in time")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use settee_core::Document;

    #[test]
    fn what_other_servers_write_is_read_and_written_as_it_was() {
        let time = UNIX_EPOCH + Duration::from_secs(1_577_836_800);
        for (written, state) in [
            ("triggered", ReplicatorState::Triggered),
            ("odd", ReplicatorState::Other("odd".to_owned())),
        ] {
            for (told, read) in
                [(json!(1_577_836_800), time), (json!("2020-01-01T00:00:00Z"), time)]
            {
                let mut text = json!({
                    "_id": "x", "_rev": "2-0123456789abcdef0123456789abcdef",
                    "source": {"url": "http://h/a", "headers": {"Authorization": "Basic x"}},
                    "target": "b", "continuous": true, "owner": "jan", "since_seq": "7-x",
                    "user_ctx": {"name": "jan", "roles": []},
                    "_replication_id": "abc+continuous", "_replication_state": written,
                    "_replication_state_time": told,
                    "_replication_stats": {
                        "revisions_checked": 3, "missing_revisions_found": 2, "docs_read": 2,
                        "docs_written": 1, "doc_write_failures": 1, "start_time": "then",
                    },
                });
                let doc: Document = text.to_string().parse().unwrap();
                let typed: ReplicatorDoc = doc.to().unwrap();
                assert_eq!(typed.state, Some(state.clone()));
                assert_eq!(typed.state_time, Some(read));
                let stats = typed.stats.as_ref().unwrap();
                assert_eq!((stats.docs_written, stats.doc_write_failures), (1, 1));
                assert_eq!(typed.other["owner"], "jan");
                text["_replication_state_time"] = json!("2020-01-01T00:00:00Z");
                assert_eq!(serde_json::to_value(&typed).unwrap(), text);
                let again = serde_json::to_value(typed.again()).unwrap();
                assert!(again.get("_replication_state").is_none());
                assert_eq!(again["_rev"], text["_rev"]);
            }
        }
        let odd = json!({"source": "a", "target": "b", "_replication_state_time": "yesterday"});
        assert!(serde_json::from_value::<ReplicatorDoc>(odd).is_err());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let login = ReplicatorEnd::with_login("http://h/a", "jan", "apple");
        let mut doc = ReplicatorDoc::new("x", "http://jan:apple@h:5984/a?b=c", login);
        doc.other.insert("proxy".to_owned(), "http://jan:apple@proxy".into());
        let shown = format!("{doc:?}");
        assert!(shown.contains("http://h:5984/a") && shown.contains("proxy"), "{shown}");
        assert!(!shown.contains("apple"), "{shown}");
    }
}
