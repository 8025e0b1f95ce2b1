//! What a server knows beyond its databases: its version, configuration, statistics, users and
//! sessions.

use super::auth::{self, SessionToken};
use super::host::Remote;
use super::http::{Call, Repeat, bad_reply};
use super::url::{Credentials, PathQuery, encode};
use crate::adapter::{Adapter, Host};
use hyper::Method;
use hyper::header::{self, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use settee_core::options::{GetOptions, WriteOptions};
use settee_core::wire::Saved;
use settee_core::{Document, Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A server's version.
///
/// ```
/// use settee::remote::Version;
///
/// let version = Version::parse("3.4.0-rc.1");
/// assert_eq!((version.major, version.minor, version.patch), (3, 4, 0));
/// assert_eq!(version.to_string(), "3.4.0-rc.1");
/// assert!(version.at_least(2, 0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second.
    pub minor: u64,
    /// The third.
    pub patch: u64,
    text: String,
}

impl Version {
    /// Reads the numbers that a version begins with. What is no number counts as 0.
    pub fn parse(text: &str) -> Version {
        let mut numbers = text.split(['.', '-', '+']).map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().unwrap_or(0)
        });
        let mut next = || numbers.next().unwrap_or(0);
        Version { major: next(), minor: next(), patch: next(), text: text.to_owned() }
    }

    /// Whether it is this one or a later one.
    pub fn at_least(&self, major: u64, minor: u64) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A server's configuration: sections, and in them options with their values.
pub type Config = BTreeMap<String, BTreeMap<String, String>>;

/// Who a session says that one is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// The user; nobody, if not logged in.
    pub name: Option<String>,
    /// The user's roles.
    pub roles: Vec<String>,
}

impl Remote {
    /// The server's version. Asked for once.
    pub async fn version(&self) -> Result<Version> {
        if let Some(version) = self.known.version.get() {
            return Ok(version.clone());
        }
        let welcome: Value = self.http.fetch(Call::get(PathQuery::new(""))).await?;
        // PouchDB Server tells its own in another place, and under `version` not that of a CouchDB.
        let text = welcome.get("version").and_then(Value::as_str);
        let text = text.ok_or_else(|| bad_reply("This is no CouchDB: it has no version."))?;
        Ok(self.known.version.get_or_init(|| Version::parse(text)).clone())
    }

    /// The path of what lies at the root in 1.x, and below a node since.
    async fn node_path(&self, rest: &str) -> Result<PathQuery> {
        Ok(PathQuery::new(match self.version().await?.major {
            0 | 1 => rest.to_owned(),
            _ => format!("_node/_local/{rest}"),
        }))
    }

    /// The whole configuration.
    pub async fn config(&self) -> Result<Config> {
        let config: BTreeMap<String, BTreeMap<String, Value>> =
            self.http.fetch(Call::get(self.node_path("_config").await?)).await?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let section = |options: BTreeMap<String, Value>| {
            options.into_iter().map(|(name, value)| (name, text(value))).collect()
        };
        Ok(config.into_iter().map(|(name, options)| (name, section(options))).collect())
    }

    async fn config_path(&self, section: &str, key: &str) -> Result<PathQuery> {
        self.node_path(&format!("_config/{}/{}", encode(section), encode(key))).await
    }

    /// One value of the configuration.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not set.
    pub async fn config_value(&self, section: &str, key: &str) -> Result<String> {
        self.http.fetch(Call::get(self.config_path(section, key).await?)).await
    }

    /// Sets a value of the configuration; returns the old one, empty if there was none.
    pub async fn set_config(&self, section: &str, key: &str, value: &str) -> Result<String> {
        let call = Call::put(self.config_path(section, key).await?);
        // A second time the old value would be the new one.
        let call = call.json(Value::from(value).to_string()).repeat(Repeat::Unsent);
        self.http.fetch(call).await
    }

    /// Removes a value from the configuration; returns what it was.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not set.
    pub async fn delete_config(&self, section: &str, key: &str) -> Result<String> {
        let call = Call::delete(self.config_path(section, key).await?).repeat(Repeat::Unsent);
        self.http.fetch(call).await
    }

    /// What the server counts: all of it, or one figure by its path (`couchdb/request_time`), which
    /// comes within the objects that the path names.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such figure.
    pub async fn stats(&self, name: Option<&str>) -> Result<Value> {
        let Some(name) = name else {
            return self.http.fetch(Call::get(self.node_path("_stats").await?)).await;
        };
        let path: Vec<String> = name.split('/').map(encode).collect();
        let path = self.node_path(&format!("_stats/{}", path.join("/"))).await?;
        let mut value: Value = self.http.fetch(Call::get(path)).await?;
        let nested = name.split('/').try_fold(&value, |value, part| value.get(part)).is_some();
        if !nested {
            for part in name.rsplit('/') {
                value = json!({ part: value });
            }
        }
        Ok(value)
    }

    /// What the server is busy with.
    pub async fn active_tasks(&self) -> Result<Vec<Map<String, Value>>> {
        self.http.fetch(Call::get(PathQuery::new("_active_tasks"))).await
    }

    /// The database of users, which need not exist.
    pub fn users(&self) -> Result<Arc<dyn Adapter>> {
        self.database("_users")
    }

    /// The database of replications, which need not exist.
    pub fn replicator(&self) -> Result<Arc<dyn Adapter>> {
        self.database("_replicator")
    }

    /// Logs in, and returns what stands for it. The handle itself stays who it was; use
    /// [`RemoteOptions::session_token`](super::RemoteOptions::session_token) for another.
    ///
    /// # Errors
    ///
    /// `Unauthorized` if name or password is wrong.
    pub async fn login(&self, name: &str, password: &str) -> Result<SessionToken> {
        auth::log_in(&self.http, &Credentials::new(name, password)).await
    }

    /// Ends a session; says whether the server agreed.
    pub async fn logout(&self, token: &SessionToken) -> Result<bool> {
        let call = Call::delete(PathQuery::new("_session"));
        match self.http.run_as(call, auth::cookie(token.as_str())?).await {
            Ok(()) => Ok(true),
            Err(error) if error.status() < 500 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a token stands for a user. CouchDB answers everybody; only who has a name is one.
    pub async fn verify_token(&self, token: &SessionToken) -> Result<bool> {
        let call = Call::get(PathQuery::new("_session"));
        match self.http.fetch_as::<SessionReply>(call, auth::cookie(token.as_str())?).await {
            Ok(reply) => Ok(reply.session().name.is_some()),
            Err(error) if error.status() < 500 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Who this handle is to the server.
    pub async fn session(&self) -> Result<Session> {
        let reply: SessionReply = self.http.fetch(Call::get(PathQuery::new("_session"))).await?;
        Ok(reply.session())
    }

    /// Creates a user with roles, which takes an admin.
    ///
    /// # Errors
    ///
    /// `Conflict` if there is such a user.
    pub async fn add_user(&self, name: &str, password: &str, roles: &[&str]) -> Result<Saved> {
        self.save_user(name, password, roles, Map::new()).await
    }

    /// Creates a user without roles, as anybody may for himself, with further members of the user's
    /// document.
    ///
    /// # Errors
    ///
    /// `Conflict` if there is such a user, `BadRequest` if a member's name is one of the document's
    /// own.
    pub async fn signup(
        &self,
        name: &str,
        password: &str,
        metadata: Map<String, Value>,
    ) -> Result<Saved> {
        let own = |member: &String| {
            member.starts_with('_')
                || ["name", "password", "roles", "type", "salt", "derived_key"]
                    .contains(&member.as_str())
        };
        if metadata.keys().any(own) {
            return Err(Error::bad_request("A user's metadata has a member with a reserved name."));
        }
        self.save_user(name, password, &[], metadata).await
    }

    async fn save_user(
        &self,
        name: &str,
        password: &str,
        roles: &[&str],
        metadata: Map<String, Value>,
    ) -> Result<Saved> {
        let mut members = metadata;
        members.insert("_id".into(), user_id(name).into());
        members.insert("name".into(), name.into());
        members.insert("password".into(), password.into());
        members.insert("roles".into(), json!(roles));
        members.insert("type".into(), "user".into());
        let doc = Document::from_value(Value::Object(members))?;
        self.users()?.put(doc, None, &WriteOptions::default()).await
    }

    /// Removes a user, whatever the revision of the user's document.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such user.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        let users = self.users()?;
        let current = users.get(&user_id(name), &GetOptions::default()).await?;
        let gone =
            Document { id: current.id, rev: current.rev, deleted: true, ..Document::default() };
        users.put(gone, None, &WriteOptions::default()).await.map(drop)
    }
}

fn user_id(name: &str) -> String {
    format!("org.couchdb.user:{name}")
}

#[derive(Deserialize)]
struct SessionReply {
    #[serde(rename = "userCtx")]
    user: Option<UserCtx>,
}

#[derive(Deserialize)]
struct UserCtx {
    name: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

impl SessionReply {
    fn session(self) -> Session {
        match self.user {
            None => Session::default(),
            Some(UserCtx { name, roles }) => Session { name, roles },
        }
    }
}

impl super::http::Http {
    async fn run_as(&self, call: Call, cookie: HeaderValue) -> Result<()> {
        self.send_as(call, cookie).await?.bytes(64 << 10).await.map(drop)
    }

    async fn fetch_as<T: serde::de::DeserializeOwned>(
        &self,
        call: Call,
        cookie: HeaderValue,
    ) -> Result<T> {
        self.send_as(call, cookie).await?.json(1 << 20).await
    }

    /// Sends a request as somebody else.
    async fn send_as(&self, mut call: Call, cookie: HeaderValue) -> Result<super::http::Response> {
        let target = call.target(&self.base);
        let identity = (header::COOKIE, cookie);
        let sent = self.once(&mut call, &target, true, Some(&identity));
        let response = super::runtime::with_runtime(Box::pin(sent)).await?;
        match response.status.is_success() {
            true => Ok(response),
            false => Err(response.into_error(&Method::GET).await),
        }
    }
}
