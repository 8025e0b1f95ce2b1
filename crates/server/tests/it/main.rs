//! The API over real sockets, against databases in memory: statuses, headers and reasons as CouchDB
//! gives them. One module per chapter of the API; `hostile` has what nobody should send, `access`
//! walks the route table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod access;
mod aging;
mod attachments;
mod bulk;
mod changes;
mod client;
mod configuration;
mod cors;
mod databases;
mod documents;
mod findings;
mod functions;
mod hostile;
mod hostile_functions;
mod replication;
mod replicator;
mod server;
mod sessions;
mod users;
mod validation;
mod views;

use client::{Client, Reply};
use serde_json::Value;
use settee::local::{Local, LocalOptions};
use settee::script::JsEngine;
use settee_server::{Config, ConfigSource, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server of its own, until the test ends.
struct Site {
    address: SocketAddr,
    server: Server,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Site {
    /// A server with the admin `root`, whose password is `secret`.
    async fn start() -> Site {
        Site::with(&[]).await
    }

    /// The same, with settings.
    async fn with(settings: &[(&str, &str, &str)]) -> Site {
        Site::from_source(ConfigSource::default(), settings).await
    }

    async fn from_source(mut source: ConfigSource, settings: &[(&str, &str, &str)]) -> Site {
        let usual = [("chttpd_auth", "iterations", "10"), ("admins", "root", "secret")];
        for (section, key, value) in usual.iter().chain(settings) {
            source.overrides.push(((*section).into(), (*key).into(), (*value).into()));
        }
        let mut options = LocalOptions::default();
        options.script = Some(Arc::new(JsEngine::new(source.script_options().unwrap())));
        let config = Config::open(source).unwrap();
        config.hash_plain_admins();
        let server = Server::new(Arc::new(Local::memory_with(&options).unwrap()), config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = server.clone().serve(listener, async move {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Site { address, server, stop: Some(stop), task }
    }

    /// Nobody in particular.
    fn anyone(&self) -> Client {
        Client::new(self.address)
    }

    /// The server admin.
    fn root(&self) -> Client {
        Client::new(self.address).login("root", "secret")
    }

    /// The server admin, with a fresh database `db`.
    async fn with_db(&self) -> Client {
        let root = self.root();
        assert_eq!(root.put("/db").send().await.status, 201);
        root
    }

    /// Opens the database to everybody.
    async fn publish(&self, db: &str) {
        let reply = self.root().put(&format!("/{db}/_security")).json("{}").send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Stops the server and waits until it has.
    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// Asserts status, `error` and `reason` of a failure.
#[track_caller]
fn assert_error(reply: &Reply, status: u16, error: &str, reason: &str) {
    let body = reply.value();
    assert_eq!(
        (reply.status, body["error"].as_str(), body["reason"].as_str()),
        (status, Some(error), Some(reason)),
        "{reply:?}"
    );
}

/// Writes a document and returns its revision.
async fn put(client: &Client, path: &str, body: &str) -> String {
    let reply = client.put(path).json(body).send().await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    reply.value()["rev"].as_str().unwrap().to_owned()
}

/// A value from text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
