//! The network side: accepts connections, in clear or over TLS, within limits, until told to stop.

use crate::app::App;
use crate::auto_purge;
use crate::call;
use crate::target::Targets;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use settee::Couch;
use settee_core::{Error, Result};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;

/// The most headers of a request, and the most bytes of them.
const MAX_HEADERS: usize = 128;
const MAX_HEADER_BYTES: usize = 64 << 10;

/// How long requests under way may take to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Whom a request came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

impl Peer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a chain of certificates and a private key, both in PEM.
    ///
    /// # Errors
    ///
    /// `BadRequest`, with a reason that names the file.
    pub fn open(certificates: &Path, key: &Path) -> Result<Tls> {
        let fail = |path: &Path, e: &dyn std::fmt::Display| {
            Error::bad_request(format!("{}: {e}", path.display()))
        };
        let open = |path: &Path| {
            std::fs::File::open(path).map(io::BufReader::new).map_err(|e| fail(path, &e))
        };
        let chain: Vec<CertificateDer<'static>> = rustls_pemfile::certs(&mut open(certificates)?)
            .collect::<io::Result<_>>()
            .map_err(|e| fail(certificates, &e))?;
        let key_der: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut open(key)?)
            .map_err(|e| fail(key, &e))?
            .ok_or_else(|| fail(key, &"there is no private key in this file"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| fail(certificates, &e))?
            .with_no_client_auth()
            .with_single_cert(chain, key_der)
            .map_err(|e| fail(certificates, &e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Serves until `shutdown` is done, then lets requests under way end.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Tls>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if let Ok(address) = listener.local_addr() {
        app.listens(address);
    }
    app.begin();
    let live = app.config.live();
    let max = live.number("settee", "max_connections", 65_536);
    let slots = Arc::new(Semaphore::new(
        usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS),
    ));
    let mut connections = JoinSet::new();
    let purging = tokio::spawn(auto_purge::run(app.clone()));
    let indexing = (live.get("settee", "keep_indexed") == Some("true")).then(|| {
        let couch = Couch::from_host(app.host.clone());
        tokio::spawn(async move { couch.keep_indexed().await })
    });
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // Waits for a free slot first; until then newcomers queue in the kernel.
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, address, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, or a peer that is gone already: neither lasts.
                tracing::warn!(error = %e, "accepting a connection failed");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (app, tls) = (app.clone(), tls.clone());
        connections.spawn(async move {
            connection(app, stream, address, tls).await;
            drop(slot);
        });
    }
    drop(listener);
    purging.abort();
    if let Some(indexing) = indexing {
        indexing.abort();
    }
    app.close();
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_done).await.is_err() {
        tracing::warn!("some requests took too long to end and were broken off");
    }
    app.jobs.ended().await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, slot))
}

async fn connection(app: Arc<App>, stream: TcpStream, address: SocketAddr, tls: Option<Tls>) {
    // Answers are small and clients wait for them.
    let _ = stream.set_nodelay(true);
    let live = app.config.live();
    let patience = live.millis("settee", "header_timeout", 60_000);
    let stream = Patient::new(stream, live.millis("settee", "write_timeout", 300_000));
    drop(live);
    let peer = Peer { address: Some(address), secure: tls.is_some() };
    let outcome = match tls {
        None => http(app, stream, peer, patience).await,
        Some(Tls(acceptor)) => {
            match tokio::time::timeout(patience, acceptor.accept(stream)).await {
                // Apart, so that connections in clear do not take the space that TLS needs.
                Ok(Ok(stream)) => Box::pin(http(app, stream, peer, patience)).await,
                Ok(Err(e)) => return tracing::debug!(%address, error = %e, "TLS failed"),
                Err(_) => return tracing::debug!(%address, "TLS took too long"),
            }
        }
    };
    if let Err(e) = outcome {
        tracing::debug!(%address, error = %e, "connection ended");
    }
}

async fn http<S>(app: Arc<App>, stream: S, peer: Peer, patience: Duration) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let closing = app.closing();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = app.clone();
        request.extensions_mut().insert(peer);
        // On the heap only while it runs: a feed stays open long after it has been answered.
        let answer = Box::pin(call::handle(app, request.map(Body::new)));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .half_close(false)
        .serve_connection(TokioIo::new(Targets::new(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        outcome = &mut connection => return outcome,
        () = closing => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// A stream that breaks when the other side takes nothing for too long, so that who does not read
/// its replies does not keep them in memory.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// When patience ends. There only while the other side keeps us waiting.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Patient<S> {
        Patient { stream, patience, deadline: None }
    }

    fn check<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let until = Instant::now() + self.patience;
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.check(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
