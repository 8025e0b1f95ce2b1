//! Connections: TCP, TLS on top where the scheme says so, through a proxy where there is one.

use super::options::{Addresses, RemoteOptions};
use super::url::{BaseUrl, Credentials};
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
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
    tcp: Tcp,
    tls: TlsConnector,
    proxy: Option<Proxy>,
    timeout: Duration,
}

/// Makes connections without anything on top, to addresses that are allowed.
#[derive(Clone)]
struct Tcp {
    connector: HttpConnector,
    addresses: Option<Addresses>,
}

/// Where requests go through.
#[derive(Clone)]
enum Proxy {
    Http {
        uri: Uri,
        authorization: Option<HeaderValue>,
    },
    /// SOCKS 5. It looks names up itself.
    Socks {
        uri: Uri,
        credentials: Option<Credentials>,
    },
}

impl Connector {
    pub(crate) fn new(options: &RemoteOptions) -> Result<Connector> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(60)));
        let tcp = Tcp { connector, addresses: options.addresses.clone() };
        let proxy = options.proxy.as_deref().map(Proxy::parse).transpose()?;
        let tls = TlsConnector::from(Arc::new(tls_config(options)?));
        Ok(Connector { tcp, tls, proxy, timeout: options.connect_timeout })
    }

    /// What a proxy that reads the requests without TLS wants to see in them.
    pub(crate) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        match &self.proxy {
            Some(Proxy::Http { authorization, .. }) => authorization.as_ref(),
            _ => None,
        }
    }

    async fn connect(mut self, uri: Uri) -> Result<Io, BoxError> {
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = match self.proxy {
            None => self.tcp.call(uri).await?,
            Some(Proxy::Socks { uri: proxy, credentials }) => {
                let made = Made(Some(self.tcp.call(proxy.clone()).await?));
                let mut socks = SocksV5::new(proxy, made);
                if let Some(Credentials { name, password }) = credentials {
                    socks = socks.with_auth(name, password);
                }
                socks.call(with_port(&uri)?).await?
            }
            Some(Proxy::Http { uri: proxy, .. }) if !https => {
                let tcp = self.tcp.call(proxy).await?;
                return Ok(Io::Plain { tcp, proxied: true });
            }
            Some(Proxy::Http { uri: proxy, authorization }) => {
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
        if !https {
            return Ok(Io::Plain { tcp, proxied: false });
        }
        let name = ServerName::try_from(host)?;
        let tls = self.tls.connect(name, tcp.into_inner()).await?;
        Ok(Io::Tls { tls: TokioIo::new(Box::new(tls)) })
    }
}

/// An address of which even a proxy that knows nothing of schemes sees the port.
fn with_port(uri: &Uri) -> Result<Uri, BoxError> {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual));
    Ok(format!("http://{host}:{port}").parse()?)
}

/// Makes no connection, but has one.
struct Made(Option<TokioIo<TcpStream>>);

impl Service<Uri> for Made {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, addresses) = (self.connector.call(uri), self.addresses.clone());
        Box::pin(async move {
            let tcp = connecting.await?;
            // Before anything is said, and later than the name's look-up, so that a second look-up
            // cannot say something else.
            if let Some(allowed) = addresses
                && !allowed(tcp.inner().peer_addr()?)
            {
                let reason = "Connections to this address are not allowed.";
                return Err(Error::new(ErrorKind::Forbidden, reason).into());
            }
            Ok(tcp)
        })
    }
}

impl Proxy {
    fn parse(url: &str) -> Result<Proxy> {
        let illegal = || Error::bad_request("The proxy's URL is not legal.");
        let (scheme, rest) = url.split_once("://").ok_or_else(illegal)?;
        let (base, credentials) =
            BaseUrl::parse(&format!("http://{rest}")).map_err(|_| illegal())?;
        let mut uri = base.to_string();
        let scheme = scheme.to_ascii_lowercase();
        if matches!(scheme.as_str(), "socks5" | "socks5h") {
            let named = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if !base.has_port() {
                uri.push_str(if named.ends_with(":80") { ":80" } else { ":1080" });
            }
            let uri = uri.parse().map_err(|_| illegal())?;
            return Ok(Proxy::Socks { uri, credentials });
        }
        let uri = uri.parse().map_err(|_| illegal())?;
        if scheme != "http" {
            let reason = "A proxy's URL begins with http:// or socks5://";
            return Err(Error::bad_request(reason));
        }
        let authorization = credentials.and_then(|credentials| {
            let mut value = HeaderValue::try_from(credentials.basic()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Proxy::Http { uri, authorization })
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
