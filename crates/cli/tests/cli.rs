//! The command as people run it: what it prints, what it refuses, how it stops.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn settee() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settee"));
    // What the surroundings say must not matter.
    for name in ["DATA", "BIND", "PORT", "ADMIN", "CONFIG", "TLS_CERT", "TLS_KEY", "LOG"] {
        command.env_remove(format!("SETTEE_{name}"));
    }
    command
}

fn run(args: &[&str], dir: &Path) -> Output {
    settee().args(args).current_dir(dir).output().unwrap()
}

/// Passwords are hashed quickly, for the tests' sake.
const QUICK: &str = "[chttpd_auth]\niterations = 10\n";

/// A directory to run in.
fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("settee.toml"), QUICK).unwrap();
    dir
}

/// Asserts that a command failed, and with which words.
#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{text}");
}

/// A server in the background.
struct Serving {
    process: Child,
    stdout: BufReader<ChildStdout>,
    scheme: String,
    port: u16,
}

impl Serving {
    fn start(dir: &Path, args: &[&str]) -> Serving {
        let mut command = settee();
        command.args(["serve", "--port", "0"]).args(args).current_dir(dir);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let line = line(&mut stdout);
        let address = line.strip_prefix("Settee 0.1.0 is listening on ").unwrap();
        let (scheme, port) = address.split_once("://127.0.0.1:").unwrap();
        let scheme = scheme.to_owned();
        let port = port.trim_end().strip_suffix('/').unwrap().parse().unwrap();
        Serving { process, stdout, scheme, port }
    }

    /// The status of a request.
    fn status(&self, method: &str, path: &str, login: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let login = STANDARD.encode(login);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic {login}\r\n\
             connection: close\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Asks the server to stop and returns what it exits with.
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

fn line(reader: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn the_first_start_makes_an_admin_and_later_ones_know_it() {
    let dir = dir();
    let mut first = Serving::start(dir.path(), &[]);
    let made = line(&mut first.stdout);
    let password = made
        .strip_prefix("Created the server admin admin with password ")
        .unwrap_or_else(|| panic!("{made:?}"))
        .trim_end();
    let login = format!("admin:{password}");
    assert_eq!(first.status("PUT", "/db", &login), 201);
    assert_eq!(first.status("PUT", "/other", "admin:guess"), 401);
    assert_eq!(first.stop(), Some(0));

    let mut second = Serving::start(dir.path(), &[]);
    assert_eq!(second.status("GET", "/db", &login), 200);
    let pid = rustix::process::Pid::from_child(&second.process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(second.process.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    second.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the password is shown once");
    assert!(dir.path().join("settee-data").is_dir());
}

#[test]
fn flags_environment_and_file_are_heard() {
    let dir = dir();
    let data = dir.path().join("elsewhere");
    let server =
        Serving::start(dir.path(), &["--admin", "anna:secret", "--data", data.to_str().unwrap()]);
    assert_eq!(server.status("GET", "/_all_dbs", "anna:secret"), 200);
    assert_eq!(server.stop(), Some(0));
    assert!(data.is_dir());

    let config = format!(
        "{QUICK}[admins]\nbert = \"secret\"\n[couchdb]\ndatabase_dir = {:?}\n[chttpd]\nrequire_valid_user = true\n",
        dir.path().join("third")
    );
    std::fs::write(dir.path().join("settee.toml"), config).unwrap();
    let server = Serving::start(dir.path(), &[]);
    assert_eq!(server.status("GET", "/_all_dbs", "bert:secret"), 200);
    assert_eq!(server.status("GET", "/", "_:_"), 401);
    assert_eq!(server.stop(), Some(0));
    assert!(dir.path().join("third").is_dir());
}

#[test]
fn what_cannot_be_served_is_said_in_words() {
    let dir = dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["serve", "--port", &port, "--admin", "a:b"], dir.path());
    assert_fails(&output, 1, &format!("Port {port} of 127.0.0.1 is in use already."));

    let server = Serving::start(dir.path(), &["--admin", "a:b"]);
    let output = run(&["serve", "--port", "0", "--admin", "a:b"], dir.path());
    assert_fails(&output, 1, "settee-data is in use by another process.");
    assert_fails(&run(&["check", "settee-data"], dir.path()), 1, "in use by another process");
    server.stop();

    let output = run(&["serve", "--config", "none.toml"], dir.path());
    assert_fails(&output, 1, "none.toml");
    std::fs::write(dir.path().join("bad.toml"), "[admins\n").unwrap();
    assert_fails(&run(&["serve", "--config", "bad.toml"], dir.path()), 1, "bad.toml");
    assert_fails(&run(&["serve", "--admin", "nobody"], dir.path()), 1, "NAME:PASSWORD");
    assert_fails(&run(&["serve", "--port", "99999"], dir.path()), 2, "--port");
    assert_fails(&run(&["serve", "--tls-cert", "x"], dir.path()), 2, "--tls-key");
    let output = run(&["serve", "--tls-cert", "x.pem", "--tls-key", "y.pem"], dir.path());
    assert_fails(&output, 1, "x.pem");
    assert_fails(&run(&["nonsense"], dir.path()), 2, "nonsense");
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert_fails(&run(&["serve", "--data", "file"], dir.path()), 1, "file cannot be opened");
}

#[tokio::test]
async fn with_a_certificate_the_server_speaks_tls_and_nothing_else() {
    use settee::remote::{Remote, RemoteOptions};
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../settee/tests/it/remote/tls");
    let path = |name: &str| keys.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let dir = dir();
    let flags = ["--admin", "a:b", "--tls-cert", &certificate, "--tls-key", &key];
    let server = Serving::start(dir.path(), &flags);
    assert_eq!(server.scheme, "https");
    let url = format!("https://a:b@127.0.0.1:{}", server.port);
    let ca = std::fs::read(path("ca.pem")).unwrap();
    let trusting = Remote::connect(&url, &RemoteOptions::new().ca_pem(ca)).unwrap();
    let couch = settee::Couch::from_host(std::sync::Arc::new(trusting));
    let db = couch.create("db").await.unwrap();
    db.put_at("a", "{}").await.unwrap();
    assert!(db.contains("a").await.unwrap());

    let strict = Remote::connect(&url, &RemoteOptions::new().retries(0)).unwrap();
    let strict = settee::Couch::from_host(std::sync::Arc::new(strict));
    assert!(strict.exists("db").await.is_err(), "nobody vouches for this certificate");
    let clear = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    (&clear).write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    let _ = (&clear).read_to_end(&mut reply);
    assert!(!reply.starts_with(b"HTTP"), "an answer in clear");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_directory_is_checked_and_compacted() {
    let dir = dir();
    let server = Serving::start(dir.path(), &["--admin", "a:b"]);
    assert_eq!(server.status("PUT", "/db", "a:b"), 201);
    server.stop();
    let output = run(&["check", "settee-data"], dir.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text, "1 databases, 0 documents, 0 revisions, 0 attachments, 0 problems\n");
    let output = run(&["compact", "settee-data"], dir.path());
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(" bytes before, "));
    for command in ["check", "compact"] {
        assert_fails(&run(&[command, "none"], dir.path()), 1, "none is not a directory.");
        assert!(!dir.path().join("none").exists());
    }
}

#[test]
fn replicate_between_directories_and_servers() {
    let dir = dir();
    let server = Serving::start(dir.path(), &["--admin", "admin:secret", "--data", "served"]);
    let port = server.port;
    let login = "admin:secret";
    assert_eq!(server.status("PUT", "/db", login), 201);
    // A document with an attachment of nothing.
    assert_eq!(server.status("PUT", "/db/doc/none", login), 201);
    let url = format!("http://{login}@127.0.0.1:{port}/db");

    let missing = run(&["replicate", &url, "data/copy"], dir.path());
    assert_fails(&missing, 1, "data is not a directory.");
    assert_fails(&run(&["replicate", &url, "copy"], dir.path()), 1, "neither DIR/DB nor a URL");
    let copied = run(&["replicate", "--create-target", &url, "data/copy"], dir.path());
    let said = String::from_utf8_lossy(&copied.stdout);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(said, "complete: 1 documents read, 1 written, 0 refused\n");

    // Between databases of one directory, and back to the server.
    let again = run(&["replicate", "--create-target", "data/copy", "data/other"], dir.path());
    assert!(again.status.success(), "{again:?}");
    let both = run(&["sync", "--data", "data", "copy", "other"], dir.path());
    assert!(both.status.success(), "{both:?}");
    let said = String::from_utf8_lossy(&both.stdout);
    assert!(said.contains("push: complete: 0 documents read"), "{said}");
    assert!(said.contains("pull: complete: 0 documents read"), "{said}");
    let some = ["replicate", "--create-target", "--doc-id", "x", "data/copy", "data/some"];
    let some = run(&some, dir.path());
    assert_eq!(
        String::from_utf8_lossy(&some.stdout),
        "complete: 0 documents read, 0 written, 0 refused\n"
    );
    let odd = ["replicate", "--selector", "{", "data/copy", "data/some"];
    assert_fails(&run(&odd, dir.path()), 1, "The selector is no JSON");
    let pushed = format!("http://{login}@127.0.0.1:{port}/pushed");
    let refused = run(&["replicate", "data/other", &pushed], dir.path());
    assert_fails(&refused, 1, "The target pushed does not exist.");
    let back = run(&["replicate", "--create-target", "data/other", &pushed], dir.path());
    assert!(back.status.success(), "{back:?}");
    assert_eq!(server.status("GET", "/pushed/doc", login), 200);
    let shown = [&refused, &back, &copied].map(|out| {
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    });
    assert!(!shown.concat().contains("secret"));

    // A server that accepts and says nothing is waited for as long as is said.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/db", silent.local_addr().unwrap());
    let waited = run(&["replicate", "--timeout", "1", &nobody, "data/copy"], dir.path());
    assert_fails(&waited, 1, "did not answer in time");
    let odd = run(&["replicate", "--heartbeat", "0", &nobody, "data/copy"], dir.path());
    assert_fails(&odd, 2, "--heartbeat");

    // A directory that a server uses is refused, and so is a wrong password.
    let used = run(&["replicate", "served/db", "data/copy"], dir.path());
    assert_fails(&used, 1, "in use by another process");
    let wrong = format!("http://admin:wrong@127.0.0.1:{port}/db");
    assert_eq!(run(&["replicate", &wrong, "data/copy"], dir.path()).status.code(), Some(1));
    assert_eq!(server.stop(), Some(0));
}
