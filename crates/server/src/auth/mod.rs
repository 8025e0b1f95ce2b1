//! Who is asking: Basic credentials and session cookies.
//!
//! What they may do is decided in [`access`], by the type a handler takes.

pub(crate) mod access;
mod guard;
pub(crate) mod password;
pub(crate) mod session;

use crate::auth::guard::{Lockout, Verified};
use crate::auth::password::PasswordHash;
use crate::config::Live;
use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use settee_core::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The role of server admins.
pub(crate) const ADMIN_ROLE: &str = "_admin";

/// The role that may read metrics.
const METRICS_ROLE: &str = "_metrics";

/// The longest name or password that is looked at.
const MAX_CREDENTIAL: usize = 1024;

/// Who is asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// `None` for who has not logged in.
    pub name: Option<String>,
    pub roles: Vec<String>,
    /// How they logged in: `default` (Basic) or `cookie`.
    pub handler: Option<&'static str>,
    /// A fresh cookie for a session that is not so fresh any more.
    pub renewal: Option<session::Renewal>,
}

impl User {
    pub(crate) fn is_server_admin(&self) -> bool {
        self.has_role(ADMIN_ROLE)
    }

    fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|mine| mine == role)
    }
}

/// A user as stored.
#[derive(Debug, Clone)]
pub struct StoredUser {
    /// What the password is checked against.
    pub password: Arc<PasswordHash>,
    /// Roles, without those that begin with `_`.
    pub roles: Vec<String>,
}

/// Where users are kept that are no server admins.
#[async_trait]
pub trait UserStore: Send + Sync + 'static {
    /// The user of this name.
    async fn find(&self, name: &str) -> Result<Option<StoredUser>>;
}

/// Checks credentials.
pub(crate) struct Authenticator {
    users: Arc<dyn UserStore>,
    /// Passwords that were right a moment ago.
    verified: Verified,
    lockout: Lockout,
    /// How many passwords may be hashed at once, which bounds what guessing costs the server.
    hashing: Semaphore,
}

impl Authenticator {
    pub(crate) fn new(users: Arc<dyn UserStore>) -> Authenticator {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Authenticator {
            users,
            verified: Verified::new(),
            lockout: Lockout::default(),
            hashing: Semaphore::new(cores.div_ceil(2)),
        }
    }

    /// Who a request comes from.
    ///
    /// # Errors
    ///
    /// `Unauthorized` if it brings a name and a password that do not match; `BadRequest` for
    /// credentials that cannot be read. A session that has ended is no error: it is nobody's.
    pub(crate) async fn identify(
        &self,
        live: &Live,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<User> {
        if let Some(cookie) = session::cookie(headers)
            && let Some(user) = self.by_cookie(live, &cookie).await?
        {
            return Ok(user);
        }
        match basic(headers)? {
            Some((name, password)) => {
                let (user, _) = self.login(live, &name, &password, peer).await?;
                Ok(User { handler: Some("default"), ..user })
            }
            None => Ok(User::default()),
        }
    }

    /// Checks a name and a password.
    pub(crate) async fn login(
        &self,
        live: &Live,
        name: &str,
        password: &str,
        peer: Option<IpAddr>,
    ) -> Result<(User, Arc<PasswordHash>)> {
        let wrong = || Error::new(ErrorKind::Unauthorized, "Name or password is incorrect.");
        if name.len() > MAX_CREDENTIAL || password.len() > MAX_CREDENTIAL {
            return Err(wrong());
        }
        let attempt = self.lockout.attempt(live, peer, name);
        if attempt.is_locked() {
            tracing::warn!(name = ?name, ?peer, "login refused: locked");
            return Err(Error::new(
                ErrorKind::Forbidden,
                "Account is temporarily locked due to multiple authentication failures",
            ));
        }
        let stored = self.find(live, name).await?;
        let right = match &stored {
            Some(user) => self.verify(&user.password, name, password).await?,
            None => false,
        };
        match stored {
            Some(StoredUser { password, roles }) if right => {
                let user = User { name: Some(name.to_owned()), roles, ..User::default() };
                Ok((user, password))
            }
            _ => {
                tracing::warn!(name = ?name, ?peer, "login failed");
                attempt.failed();
                Err(wrong())
            }
        }
    }

    /// Forgets which passwords were right and which were wrong.
    pub(crate) fn forget(&self) {
        self.verified.clear();
        self.lockout.clear();
    }

    async fn by_cookie(&self, live: &Live, cookie: &str) -> Result<Option<User>> {
        let cookie = session::Cookie::parse(cookie)?;
        let Some(stored) = self.find(live, &cookie.name).await? else { return Ok(None) };
        let Some(age) = cookie.age(live, stored.password.salt()) else { return Ok(None) };
        // Renewed in the last nine tenths, so that not every reply brings a cookie.
        let renewal = (age > live.session_timeout / 10)
            .then(|| session::Renewal { salt: stored.password.salt().to_owned() });
        Ok(Some(User {
            name: Some(cookie.name),
            roles: stored.roles,
            handler: Some("cookie"),
            renewal,
        }))
    }

    async fn find(&self, live: &Live, name: &str) -> Result<Option<StoredUser>> {
        if let Some(password) = live.admins.get(name) {
            let roles = vec![ADMIN_ROLE.to_owned()];
            return Ok(Some(StoredUser { password: password.clone(), roles }));
        }
        let mut found = self.users.find(name).await?;
        if let Some(user) = &mut found {
            // Whatever a user document says, it makes nobody a server admin.
            user.roles.retain(|role| role == METRICS_ROLE || !role.starts_with('_'));
        }
        Ok(found)
    }

    /// Checks a password, off the executor if that takes long, and remembers if it was right.
    async fn verify(&self, hash: &Arc<PasswordHash>, name: &str, password: &str) -> Result<bool> {
        if !hash.is_slow() {
            return Ok(hash.verify(password));
        }
        let key = self.verified.key(name, password, hash);
        if self.verified.contains(&key) {
            return Ok(true);
        }
        let _turn = self.hashing.acquire().await.map_err(Error::internal)?;
        // Of many requests that begin at once, one finds out for all of them.
        if self.verified.contains(&key) {
            return Ok(true);
        }
        let (hash, password) = (hash.clone(), password.to_owned());
        let right = tokio::task::spawn_blocking(move || hash.verify(&password))
            .await
            .map_err(Error::internal)?;
        if right {
            self.verified.insert(key);
        }
        Ok(right)
    }
}

/// The name and password of a Basic `Authorization` header.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let Some((scheme, code)) = text.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let bad = || Error::bad_request("Authorization header has invalid base64 value");
    let plain = STANDARD.decode(code.trim()).map_err(|_| bad())?;
    let plain = String::from_utf8(plain).map_err(|_| bad())?;
    Ok(match plain.split_once(':') {
        // By this name, old clients ask to be logged out.
        Some(("_", "_")) | None => None,
        Some((name, password)) => Some((name.to_owned(), password.to_owned())),
    })
}

/// So many random bytes, in hex.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    // Without a source of randomness there are no secrets, and nothing may run without secrets.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut random).expect("the system gives random bytes");
    password::hex(&random)
}
