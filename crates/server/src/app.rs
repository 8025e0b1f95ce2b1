//! What all requests share.

use crate::auth::{Authenticator, UserStore};
use crate::config::Config;
use crate::replication::{Jobs, Replicator};
use crate::routes::Routes;
use crate::stats::Stats;
use crate::tasks::Tasks;
use settee::adapter::Host;
use settee::design::Validator;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, OnceLock};
use std::time::Instant;
use tokio::sync::watch;

/// What all requests share.
pub(crate) struct App {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Authenticator,
    pub(crate) routes: Routes,
    pub(crate) stats: Stats,
    pub(crate) tasks: Tasks,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) replicator: Arc<Replicator>,
    /// Knows the functions that validate.
    pub(crate) validator: Arc<Validator>,
    pub(crate) started: Instant,
    /// Turns true when the server is to stop.
    closing: watch::Sender<bool>,
    begun: Once,
    /// Where the server listens.
    address: OnceLock<SocketAddr>,
    /// Bytes of request bodies in memory.
    buffered: AtomicU64,
}

impl App {
    pub(crate) fn new(host: Arc<dyn Host>, config: Config, users: Arc<dyn UserStore>) -> App {
        App {
            host,
            auth: Authenticator::new(users),
            config: Arc::new(config),
            routes: Routes::new(),
            stats: Stats::default(),
            tasks: Tasks::default(),
            jobs: Arc::default(),
            replicator: Arc::default(),
            validator: Arc::default(),
            started: Instant::now(),
            closing: watch::Sender::new(false),
            begun: Once::new(),
            address: OnceLock::new(),
            buffered: AtomicU64::new(0),
        }
    }

    /// Begins what the server does without being asked. Takes effect once.
    pub(crate) fn begin(self: &Arc<App>) {
        self.begun.call_once(|| {
            tokio::spawn(Replicator::run(self));
        });
    }

    /// Where the server listens, if it has a listener of its own.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    pub(crate) fn listens(&self, address: SocketAddr) {
        // The first listener is the one that counts.
        let _ = self.address.set(address);
    }

    /// Ends open feeds and replications, so that their connections can end.
    pub(crate) fn close(&self) {
        self.replicator.close();
        self.jobs.close();
        self.closing.send_replace(true);
    }

    /// Waits until the server is to stop.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.subscribe();
        async move {
            // An error means that the server is gone, which is as good a reason.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Counts bytes as held in memory; returns how many are.
    pub(crate) fn hold(&self, bytes: u64) -> u64 {
        self.buffered.fetch_add(bytes, Relaxed) + bytes
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.buffered.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.replicator.close();
        self.jobs.close();
    }
}
