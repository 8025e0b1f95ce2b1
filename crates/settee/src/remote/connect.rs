//! Connections: TCP, TLS on top where the scheme says so, through a proxy where there is one.

use super::options::{Addresses, RemoteOptions};
use super::url::BaseUrl;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use settee_core::{Error, ErrorKind, Result};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    proxy: Option<Proxy>,
    timeout: Duration,
    addresses: Option<Addresses>,
}

/// Where requests go through.
#[derive(Clone)]
pub(crate) struct Proxy {
    uri: Uri,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Connector {
    pub(crate) fn new(options: &RemoteOptions) -> Result<Connector> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let proxy = options.proxy.as_deref().map(Proxy::parse).transpose()?;
        let tls = TlsConnector::from(Arc::new(tls_config(options)?));
        let (timeout, addresses) = (options.connect_timeout, options.addresses.clone());
        Ok(Connector { tcp, tls, proxy, timeout, addresses })
    }

    /// The proxy that requests without TLS are handed to as they are.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    async fn connect(mut self, uri: Uri) -> Result<Io, BoxError> {
        let addresses = self.addresses.take();
        if uri.scheme_str() != Some("https") {
            let proxied = self.proxy.is_some();
            let to = self.proxy.map_or(uri, |proxy| proxy.uri);
            let tcp = self.tcp.call(to).await?;
            check(&tcp, addresses)?;
            return Ok(Io::Plain { tcp, proxied });
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = match self.proxy {
            None => self.tcp.call(uri).await?,
            Some(Proxy { uri: proxy, authorization }) => {
                let tunnel = Tunnel::new(proxy, self.tcp);
                match authorization {
                    Some(authorization) => tunnel.with_auth(authorization).call(uri).await?,
                    None => {
                        let mut tunnel = tunnel;
                        tunnel.call(uri).await?
                    }
                }
            }
        };
        check(&tcp, addresses)?;
        let name = ServerName::try_from(host)?;
        let tls = self.tls.connect(name, tcp.into_inner()).await?;
        Ok(Io::Tls { tls: TokioIo::new(Box::new(tls)) })
    }
}

/// Before anything is said: whether this address may be talked to. Later than the name's look-up, so
/// that a second look-up cannot say something else.
fn check(tcp: &TokioIo<TcpStream>, addresses: Option<Addresses>) -> Result<(), BoxError> {
    let Some(allowed) = addresses else { return Ok(()) };
    match allowed(tcp.inner().peer_addr()?) {
        true => Ok(()),
        false => {
            let reason = "Connections to this address are not allowed.";
            Err(Error::new(ErrorKind::Forbidden, reason).into())
        }
    }
}

impl Proxy {
    fn parse(url: &str) -> Result<Proxy> {
        let illegal = || Error::bad_request("The proxy's URL is not legal.");
        let (base, credentials) = BaseUrl::parse(url).map_err(|_| illegal())?;
        let uri = base.to_string().parse::<Uri>().map_err(|_| illegal())?;
        if uri.scheme_str() != Some("http") {
            return Err(Error::bad_request("A proxy's URL begins with http://"));
        }
        let authorization = credentials.and_then(|credentials| {
            let mut value = HeaderValue::try_from(credentials.basic()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Proxy { uri, authorization })
    }
}

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Io, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, limit) = (self.clone(), self.timeout);
        Box::pin(async move {
            let connected = tokio::time::timeout(limit, Box::pin(connector.connect(uri))).await;
            connected.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time").into())
            })
        })
    }
}

/// One connection.
pub(crate) enum Io {
    Plain { tcp: TokioIo<TcpStream>, proxied: bool },
    Tls { tls: TokioIo<Box<TlsStream<TcpStream>>> },
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        match self {
            Io::Plain { proxied, .. } => Connected::new().proxy(*proxied),
            Io::Tls { .. } => Connected::new(),
        }
    }
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain { tcp, .. } => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls { tls } => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain { tcp, .. } => Pin::new(tcp).poll_write(cx, buf),
            Io::Tls { tls } => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain { tcp, .. } => Pin::new(tcp).poll_flush(cx),
            Io::Tls { tls } => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls { tls } => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain { tcp, .. } => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Io::Tls { tls } => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain { tcp, .. } => tcp.is_write_vectored(),
            Io::Tls { tls } => tls.is_write_vectored(),
        }
    }
}

fn tls_config(options: &RemoteOptions) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(Box::new(error)))?;
    if options.accept_invalid_certs {
        let config =
            config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)));
        return Ok(config.with_no_client_auth());
    }
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for pem in &options.ca_pem {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let bad = |_| Error::bad_request("The CA file holds a certificate that is not legal.");
            let certificate =
                certificate.map_err(|_| Error::bad_request("The CA file is no PEM file."))?;
            roots.add(certificate).map_err(bad)?;
            found = true;
        }
        if !found {
            return Err(Error::bad_request("The CA file holds no certificate."));
        }
    }
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Takes every certificate for good.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
