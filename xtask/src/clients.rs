//! Real clients against a real server: sets both up and runs the clients' own test scripts.

use crate::{Failed, Result, cargo, root, run, say};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A language with clients of CouchDB, and how its tests run.
pub(crate) struct Client {
    /// The name of the group.
    pub(crate) group: &'static str,
    /// What must be on the machine.
    needs: &'static [&'static str],
    /// Installs the clients, pinned, below `target/`.
    install: fn() -> Result,
    /// The command that runs the tests with `SETTEE_URL` in its environment.
    command: fn() -> Command,
    /// What else runs once the clients are there.
    also: Option<fn() -> Command>,
}

pub(crate) const CLIENTS: &[Client] = &[
    Client {
        group: "python",
        needs: &["python3"],
        install: install_python,
        command: python,
        also: None,
    },
    Client {
        group: "node",
        needs: &["node", "npm"],
        install: install_node,
        command: node,
        also: Some(pouchdb_server),
    },
];

/// Name and password of the servers that are started here.
const ADMIN: (&str, &str) = ("admin", "secret");

/// What this machine lacks for a client.
pub(crate) fn missing(client: &Client) -> Option<String> {
    let absent: Vec<_> = client.needs.iter().filter(|need| !runs(need)).copied().collect();
    (!absent.is_empty()).then(|| format!("{} is not installed", absent.join(" and ")))
}

fn runs(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Installs a client, starts a server for it, and runs its tests.
pub(crate) fn test(client: &Client) -> Result {
    (client.install)()?;
    run(&mut cargo(&["build", "--package", "settee-cli"]))?;
    let server = Server::start(client.group)?;
    let (name, password) = ADMIN;
    let mut command = (client.command)();
    command
        .env("SETTEE_URL", &server.url)
        .env("SETTEE_NAME", name)
        .env("SETTEE_PASSWORD", password);
    run(&mut command)?;
    client.also.map_or(Ok(()), |also| run(&mut also()))
}

fn work_dir() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    target.join("clients")
}

fn venv() -> PathBuf {
    work_dir().join("venv")
}

fn install_python() -> Result {
    let python = venv().join("bin/python");
    if !python.exists() {
        run(Command::new("python3").arg("-m").arg("venv").arg(venv()))?;
    }
    let requirements = root().join("clients/python/requirements.txt");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(python).args(pip).arg(requirements))
}

fn python() -> Command {
    let mut python = Command::new(venv().join("bin/python"));
    python.args(["-m", "unittest", "discover", "-s"]).arg(root().join("clients/python"));
    python
}

/// The scripts run from a copy below `target/`, where the packages are: none land in the sources.
fn node_dir() -> PathBuf {
    work_dir().join("node")
}

fn install_node() -> Result {
    let copy = |error: std::io::Error| Failed(format!("the scripts cannot be copied: {error}"));
    std::fs::create_dir_all(node_dir()).map_err(copy)?;
    for entry in std::fs::read_dir(root().join("clients/node")).map_err(copy)? {
        let entry = entry.map_err(copy)?;
        if entry.path().is_file() {
            std::fs::copy(entry.path(), node_dir().join(entry.file_name())).map_err(copy)?;
        }
    }
    let npm = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").args(npm).current_dir(node_dir()))
}

fn node() -> Command {
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec"]).current_dir(node_dir());
    node
}

/// Our client and our replicator against PouchDB Server, which came with the packages.
fn pouchdb_server() -> Command {
    let test = ["test", "--package", "settee", "--features", "remote", "--test", "it", "pouchdb"];
    let mut cargo = cargo(&test);
    cargo.env("SETTEE_POUCHDB_SERVER", node_dir().join("node_modules/.bin/pouchdb-server"));
    cargo
}

/// A server on a free port with a directory of its own; stops with this value.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(name: &str) -> Result<Server> {
        let data = work_dir().join(format!("data-{name}"));
        // What an earlier run has left.
        let _ = std::fs::remove_dir_all(&data);
        let binary = work_dir().with_file_name("debug").join("settee");
        let (admin, password) = ADMIN;
        let mut process = Command::new(&binary)
            .args(["serve", "--port", "0", "--admin", &format!("{admin}:{password}"), "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failed(format!("{} does not start: {error}", binary.display())))?;
        let stdout = process.stdout.take();
        let mut server = Server { process, url: String::new() };
        let mut stdout = BufReader::new(stdout.ok_or_else(|| Failed("no output".to_owned()))?);
        let mut line = String::new();
        while server.url.is_empty() {
            line.clear();
            match stdout.read_line(&mut line) {
                Ok(0) | Err(_) => return Err(Failed("the server ended at once".to_owned())),
                Ok(_) => {
                    if let Some(at) = line.find("http://") {
                        server.url = line[at..].trim().trim_end_matches('/').to_owned();
                    }
                }
            }
        }
        say(&format!("the server for `{name}` is at {}", server.url));
        // Its further output goes nowhere, but must be read: a full pipe would stop it.
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
