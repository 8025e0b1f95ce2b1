//! How to reach a server.

use super::url::Credentials;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How to reach a server: who one is, how long to wait, how often to try again.
///
/// Credentials may as well stand in the URL, `http://name:password@host:5984/`. Nothing that shows
/// these options or what comes of them (`Debug`, errors, log lines) shows anything secret.
///
/// ```
/// use settee::remote::RemoteOptions;
/// use std::time::Duration;
///
/// let options = RemoteOptions::new()
///     .session("jan", "apple")
///     .header("X-Tenant", "7")
///     .request_timeout(Duration::from_secs(20));
/// assert!(!format!("{options:?}").contains("apple"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct RemoteOptions {
    pub(crate) identity: Option<Identity>,
    pub(crate) use_session: bool,
    pub(crate) proxy: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) ca_pem: Vec<Vec<u8>>,
    pub(crate) accept_invalid_certs: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) pool_idle_timeout: Duration,
    pub(crate) pool_size: usize,
    pub(crate) redirects: usize,
    pub(crate) retries: u32,
    pub(crate) full_commit: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) max_item: usize,
    pub(crate) user_agent: String,
    pub(crate) gzip: Option<bool>,
    pub(crate) cache: usize,
    pub(crate) addresses: Option<Addresses>,
}

/// Says which addresses may be connected to.
pub(crate) type Addresses = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// Who one is.
#[derive(Clone)]
pub(crate) enum Identity {
    Basic(Credentials),
    Session(Credentials),
    Bearer(String),
    Token(String),
}

impl Default for RemoteOptions {
    fn default() -> RemoteOptions {
        RemoteOptions {
            identity: None,
            use_session: false,
            proxy: None,
            headers: Vec::new(),
            ca_pem: Vec::new(),
            accept_invalid_certs: false,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(60),
            pool_size: 32,
            redirects: 5,
            retries: 4,
            full_commit: true,
            heartbeat: Duration::from_secs(10),
            max_item: 128 << 20,
            user_agent: concat!("settee/", env!("CARGO_PKG_VERSION")).to_owned(),
            gzip: None,
            cache: 1 << 20,
            addresses: None,
        }
    }
}

impl RemoteOptions {
    /// The usual.
    pub fn new() -> RemoteOptions {
        RemoteOptions::default()
    }

    /// Sends name and password with every request. Counts more than what a URL says.
    pub fn basic(mut self, name: impl Into<String>, password: impl Into<String>) -> RemoteOptions {
        self.identity = Some(Identity::Basic(Credentials::new(name, password)));
        self
    }

    /// Logs in with name and password, and sends the session's cookie with every request. The
    /// session is renewed before it expires, and when the server no longer knows it.
    pub fn session(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
    ) -> RemoteOptions {
        self.identity = Some(Identity::Session(Credentials::new(name, password)));
        self
    }

    /// Logs in as [`session`](RemoteOptions::session) does with credentials that stand in the URL.
    pub fn use_session(mut self, use_session: bool) -> RemoteOptions {
        self.use_session = use_session;
        self
    }

    /// Sends a bearer token (such as a JWT) with every request.
    pub fn bearer(mut self, token: impl Into<String>) -> RemoteOptions {
        self.identity = Some(Identity::Bearer(token.into()));
        self
    }

    /// Sends a session's token, from [`Remote::login`](super::Remote::login), with every request.
    pub fn session_token(mut self, token: &super::SessionToken) -> RemoteOptions {
        self.identity = Some(Identity::Token(token.as_str().to_owned()));
        self
    }

    /// Goes through a proxy: HTTP's, `http://[name:password@]host:port`, or one that speaks SOCKS 5,
    /// `socks5://[name:password@]host:port`. The proxy looks names up.
    pub fn proxy(mut self, url: impl Into<String>) -> RemoteOptions {
        self.proxy = Some(url.into());
        self
    }

    /// Sends a header of one's own with every request. It never follows a redirect to another
    /// server.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> RemoteOptions {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts the certificates in a PEM file too.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> RemoteOptions {
        self.ca_pem.push(pem.into());
        self
    }

    /// Takes any certificate. Whoever sits between then reads and changes everything: for tests
    /// with self-signed certificates only.
    pub fn danger_accept_invalid_certs(mut self, accept: bool) -> RemoteOptions {
        self.accept_invalid_certs = accept;
        self
    }

    /// How long a connection may take to be made. 10 seconds unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> RemoteOptions {
        self.connect_timeout = timeout;
        self
    }

    /// How long a server may take to begin its reply. 2 minutes unless set.
    pub fn request_timeout(mut self, timeout: Duration) -> RemoteOptions {
        self.request_timeout = timeout;
        self
    }

    /// How long a server may be silent within a reply. 1 minute unless set.
    pub fn idle_timeout(mut self, timeout: Duration) -> RemoteOptions {
        self.idle_timeout = timeout;
        self
    }

    /// How long an unused connection is kept. 1 minute unless set.
    pub fn pool_idle_timeout(mut self, timeout: Duration) -> RemoteOptions {
        self.pool_idle_timeout = timeout;
        self
    }

    /// How many unused connections are kept. 32 unless set.
    pub fn pool_size(mut self, connections: usize) -> RemoteOptions {
        self.pool_size = connections;
        self
    }

    /// How many redirects a read follows. 5 unless set. Writes follow none.
    pub fn redirects(mut self, limit: usize) -> RemoteOptions {
        self.redirects = limit;
        self
    }

    /// How often a request is tried again that failed for a reason that may pass: no connection, a
    /// connection lost, 429, 502, 503, 504. 4 times unless set, with growing pauses. A write whose
    /// fate is unknown is only repeated in a way that cannot apply it twice.
    pub fn retries(mut self, retries: u32) -> RemoteOptions {
        self.retries = retries;
        self
    }

    /// `false`: a CouchDB 1.x may acknowledge writes before they are durable. Later ones do not ask.
    pub fn full_commit(mut self, full_commit: bool) -> RemoteOptions {
        self.full_commit = full_commit;
        self
    }

    /// How often the server of a live feed shows that it is still there. 10 seconds unless set; a
    /// connection is taken for dead after three times as long without a sign.
    pub fn heartbeat(mut self, interval: Duration) -> RemoteOptions {
        self.heartbeat = interval;
        self
    }

    /// The largest row, document or inline attachment that is taken into memory, in bytes. 128 MiB
    /// unless set.
    pub fn max_item(mut self, bytes: usize) -> RemoteOptions {
        self.max_item = bytes;
        self
    }

    /// What the client calls itself. `settee/VERSION` unless set.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> RemoteOptions {
        self.user_agent = user_agent.into();
        self
    }

    /// How many bytes of documents to keep, 1 MiB unless set, so that the server need not send again
    /// what has not changed. It is asked about that each time: what is read is never out of date. 0
    /// keeps none.
    pub fn cache(mut self, bytes: usize) -> RemoteOptions {
        self.cache = bytes;
        self
    }

    /// Whether to ask for compressed replies. Unless set, that is so for servers on other machines:
    /// on one's own, compressing takes longer than sending.
    pub fn gzip(mut self, gzip: bool) -> RemoteOptions {
        self.gzip = Some(gzip);
        self
    }

    /// Talks only to addresses that this lets through, whatever a name stands for by the time it is
    /// looked up and wherever a server redirects to. For programs that are told by others where to
    /// connect to. Of a proxy it is the proxy's address that counts.
    pub fn only_addresses(
        mut self,
        allowed: impl Fn(SocketAddr) -> bool + Send + Sync + 'static,
    ) -> RemoteOptions {
        self.addresses = Some(Arc::new(allowed));
        self
    }
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = match &self.identity {
            None => "none",
            Some(Identity::Basic(_)) => "basic",
            Some(Identity::Session(_)) => "session",
            Some(Identity::Bearer(_)) => "bearer",
            Some(Identity::Token(_)) => "session token",
        };
        let headers: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RemoteOptions")
            .field("identity", &identity)
            .field("proxy", &self.proxy.is_some())
            .field("headers", &headers)
            .field("accept_invalid_certs", &self.accept_invalid_certs)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
