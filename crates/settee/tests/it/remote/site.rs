//! Servers for the client to speak to.

use settee::adapter::Host;
use settee::local::Local;
use settee::remote::{Remote, RemoteOptions};
use settee_server::{Config, ConfigSource, Server, Tls};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Our own server in front of databases in memory, until the test ends.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) local: Local,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Site {
    /// A server with the admin `root`, whose password is `secret`.
    pub(crate) async fn start() -> Site {
        Site::over(Local::memory().unwrap(), "127.0.0.1:0").await
    }

    pub(crate) async fn over(local: Local, address: &str) -> Site {
        Site::serve(local, address, |server| server).await
    }

    /// A server with the certificate in `tls`, which is `localhost`'s and 127.0.0.1's.
    pub(crate) async fn over_tls() -> Site {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/remote/tls");
        let tls = Tls::open(&dir.join("server.pem"), &dir.join("server.key")).unwrap();
        Site::serve(Local::memory().unwrap(), "127.0.0.1:0", |server| server.with_tls(tls)).await
    }

    async fn serve(local: Local, address: &str, with: impl FnOnce(Server) -> Server) -> Site {
        let mut source = ConfigSource::default();
        for (section, key, value) in
            [("chttpd_auth", "iterations", "10"), ("admins", "root", "secret")]
        {
            source.overrides.push((section.into(), key.into(), value.into()));
        }
        let config = Config::open(source).unwrap();
        config.hash_plain_admins();
        let host: Arc<dyn Host> = Arc::new(local.clone());
        let server = with(Server::new(host, config));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            server.serve(listener, stopped).await.unwrap();
        });
        Site { address, local, stop: Some(stop), task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://root:secret@{}", self.address)
    }

    /// With replies compressed, as from another machine.
    pub(crate) fn remote(&self) -> Remote {
        Remote::connect(&self.url(), &RemoteOptions::new().gzip(true)).unwrap()
    }

    /// Stops the server and returns its databases.
    pub(crate) async fn stop(mut self) -> Local {
        drop(self.stop.take());
        self.task.await.unwrap();
        self.local
    }
}
