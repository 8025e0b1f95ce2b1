//! `settee serve`

use crate::cmd::open_with;
use crate::{Failure, say};
use settee::local::LocalOptions;
use settee::script::JsEngine;
use settee_server::{Config, ConfigSource, Server, Tls};
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Read if it is there and no other file is named.
const CONFIG_FILE: &str = "settee.toml";

/// Where databases are kept unless something else is said.
const DATA_DIR: &str = "settee-data";

/// Serve databases over HTTP.
///
/// What flags do not say, settee.toml may: its sections and keys are CouchDB's, for example port in
/// the section chttpd, names and passwords in admins, origins in cors.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// The directory of databases [default: settee-data].
    #[arg(long, value_name = "DIR", env = "SETTEE_DATA")]
    data: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS", env = "SETTEE_BIND")]
    bind: Option<IpAddr>,
    /// The port to listen on; 0 takes a free one [default: 5984].
    #[arg(long, value_name = "PORT", env = "SETTEE_PORT")]
    port: Option<u16>,
    /// A server admin. Without any, the first start makes one and prints its password.
    #[arg(long, value_name = "NAME:PASSWORD", env = "SETTEE_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// The configuration file [default: settee.toml, if there is one].
    #[arg(long, value_name = "FILE", env = "SETTEE_CONFIG")]
    config: Option<PathBuf>,
    /// A chain of certificates in PEM, to serve over TLS.
    #[arg(long, value_name = "FILE", env = "SETTEE_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", env = "SETTEE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What to log: error, warn, info (one line for each request), debug [default: warn].
    #[arg(long, value_name = "LEVEL", env = "SETTEE_LOG")]
    log: Option<String>,
    /// Log as JSON.
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        self.start_log()?;
        let source = self.config_source()?;
        // The databases first: the directory of a mistaken path stays as it is.
        let data = source.data_dir.clone().unwrap_or_default();
        let mut options = LocalOptions::default();
        options.script = Some(Arc::new(JsEngine::new(source.script_options()?)));
        let local = open_with(&data, options)?;
        let config = Config::open(source)?;
        let tls = self.open_tls(&config)?;
        raise_file_limit();
        let new_admin = config.ensure_admin()?;
        let address = self.address(&config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(format!("no runtime: {e}")))?;
        runtime.block_on(async {
            let listener = listen(address).map_err(|e| cannot_bind(address, &e))?;
            let address = listener.local_addr().unwrap_or(address);
            let mut server = Server::new(Arc::new(local), config);
            let scheme = if tls.is_some() { "https" } else { "http" };
            if let Some(tls) = tls {
                server = server.with_tls(tls);
            }
            // Hashing is made to be slow, and nothing needs to wait for it.
            let config = server.config().clone();
            std::thread::spawn(move || config.hash_plain_admins());
            let stop = stop_signal()?;
            say(format_args!(
                "Settee {} is listening on {scheme}://{address}/",
                env!("CARGO_PKG_VERSION")
            ));
            if let Some((name, password)) = new_admin {
                say(format_args!("Created the server admin {name} with password {password}"));
                say("This password is not shown again. Keep it.");
            }
            let served = server.serve(listener, stop).await;
            served.map_err(|e| Failure::new(format!("serving ended: {e}")))?;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn start_log(&self) -> Result<(), Failure> {
        let level = self.log.as_deref().unwrap_or("warn");
        let filter = EnvFilter::try_new(level)
            .map_err(|e| Failure::new(format!("--log {level} makes no sense: {e}")))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        match self.log_json {
            true => log.json().init(),
            false => log.init(),
        }
        Ok(())
    }

    /// Where configuration comes from, and with it the directory of databases, which the file may
    /// name.
    fn config_source(&self) -> Result<ConfigSource, Failure> {
        let in_place = PathBuf::from(CONFIG_FILE);
        let file = self.config.clone().or_else(|| in_place.is_file().then_some(in_place));
        let mut overrides = Vec::new();
        let mut put = |section: &str, key: &str, value: &str| {
            overrides.push((section.to_owned(), key.to_owned(), value.to_owned()));
        };
        if let Some(bind) = self.bind {
            put("chttpd", "bind_address", &bind.to_string());
        }
        if let Some(port) = self.port {
            put("chttpd", "port", &port.to_string());
        }
        if let Some(admin) = &self.admin {
            let (name, password) = admin
                .split_once(':')
                .filter(|(name, password)| !name.is_empty() && !password.is_empty())
                .ok_or_else(|| Failure::new("An admin is given as NAME:PASSWORD."))?;
            put("admins", name, password);
        }
        let data = match &self.data {
            Some(data) => data.clone(),
            None => {
                let source = ConfigSource { file: file.clone(), ..ConfigSource::default() };
                let named = Config::open(source)?.get("couchdb", "database_dir");
                PathBuf::from(named.unwrap_or_else(|| DATA_DIR.to_owned()))
            }
        };
        Ok(ConfigSource { file, data_dir: Some(data), overrides })
    }

    fn open_tls(&self, config: &Config) -> Result<Option<Tls>, Failure> {
        let file = |flag: &Option<PathBuf>, key| {
            flag.clone().or_else(|| config.get("ssl", key).map(PathBuf::from))
        };
        match (file(&self.tls_cert, "cert_file"), file(&self.tls_key, "key_file")) {
            (Some(certificates), Some(key)) => Ok(Some(Tls::open(&certificates, &key)?)),
            (None, None) => Ok(None),
            _ => Err(Failure::new("TLS needs both a certificate and its key.")),
        }
    }

    fn address(&self, config: &Config) -> Result<SocketAddr, Failure> {
        let bind = config.get("chttpd", "bind_address").unwrap_or_default();
        let ip = match bind.as_str() {
            "any" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            bind => bind.parse(),
        };
        let ip = ip.map_err(|_| Failure::new(format!("{bind} is not an address to listen on.")))?;
        let port = config.get("chttpd", "port").unwrap_or_default();
        let port =
            port.parse().map_err(|_| Failure::new(format!("{port} is not a port number.")))?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// Connections that the system keeps until they are accepted. It drops those beyond, and whoever
/// sent one tries again a second later.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The port of a server that has just ended is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> Failure {
    Failure::new(match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("Port {} of {} is in use already.", address.port(), address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("Listening on port {} is not permitted.", address.port())
        }
        _ => format!("Listening on {address} failed: {error}"),
    })
}

/// Done when the process is asked to stop. Asked a second time, it stops at once.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::new(format!("no signals: {e}")));
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(1);
        });
    })
}

/// Each connection is an open file, and systems allow few unless asked.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
