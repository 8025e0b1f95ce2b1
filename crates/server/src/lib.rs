//! CouchDB's HTTP API over any [`Host`].
//!
//! A thin translation: the module `routes` says which path goes to which handler and who may call it, a
//! handler turns the request into a call on [`Adapter`](settee::adapter::Adapter) and the result
//! into CouchDB's JSON. A write goes from its row in the table to one function and from there to the
//! adapter; nothing lies between.
//!
//! [`Server`] listens on a socket. [`Server::router`] is the same as an axum router, to be nested in
//! an application of your own.

mod app;
mod auth;
mod auto_purge;
mod body;
mod call;
mod config;
mod cors;
mod error;
mod feed;
mod functions;
#[doc(hidden)]
pub mod fuzzing;
mod gzip;
mod listen;
mod log;
mod multipart;
mod query;
mod related;
mod replication;
mod reply;
mod routes;
mod stats;
mod target;
mod tasks;
mod users;

pub use auth::access::Level;
pub use auth::password::{PasswordHash, Prf};
pub use auth::{StoredUser, UserStore};
pub use config::{Config, ConfigSource};
pub use listen::Tls;
pub use routes::{RouteInfo, route_table};

use app::App;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use settee::adapter::Host;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

/// CouchDB's HTTP API over a place of databases.
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
    tls: Option<Tls>,
}

impl Server {
    /// A server with its configuration. Users are the server admins of the configuration, and those
    /// that the database `_users` holds.
    pub fn new(host: Arc<dyn Host>, config: Config) -> Server {
        let users = Arc::new(users::Users::new(host.clone()));
        Server::with_users(host, config, users)
    }

    /// A server whose users, but for the server admins, are kept elsewhere.
    pub fn with_users(host: Arc<dyn Host>, config: Config, users: Arc<dyn UserStore>) -> Server {
        Server { app: Arc::new(App::new(host, config, users)), tls: None }
    }

    /// The same server, over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Server {
        self.tls = Some(tls);
        self
    }

    /// The API as an axum router. Limits on connections and headers are then those of the server
    /// it is part of; for lock-outs to tell clients apart, serve it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn router(&self) -> Router {
        let app = self.app.clone();
        Router::new().fallback(move |request: Request<Body>| call::handle(app.clone(), request))
    }

    /// Accepts connections until `shutdown` is done; then ends open feeds and lets other requests
    /// under way finish, for some seconds.
    ///
    /// # Errors
    ///
    /// None at present: what goes wrong with one connection ends that one.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        listen::serve(self.app, listener, self.tls, shutdown).await
    }

    /// The configuration in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.app.config
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("host", &self.app.host).finish_non_exhaustive()
    }
}
