//! `settee serve` as a process that tests start, kill and start again.
#![allow(dead_code, reason = "each test uses what it needs")]

use settee::Couch;
use settee::remote::{Remote, RemoteOptions};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For what must happen some time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect(name))
}

/// `settee serve` on a directory that outlives it. Killed when dropped.
pub(crate) struct Server {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        // Quick in everything, and allowed to talk to the other one, which is on this machine.
        let settings = "[chttpd_auth]\niterations = 10\n[settee]\nreplicate_loopback = true\n\
                        [replicator]\nretry_wait = 20\nretry_max_wait = 200\n";
        std::fs::write(dir.path().join("settee.toml"), settings).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Server { child: None, dir, port };
        server.revive();
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again where it was.
    pub(crate) fn revive(&mut self) {
        for _ in 0..100 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_settee"))
                .args(["serve", "--port", &self.port.to_string(), "--admin", "admin:secret"])
                .args(["--data", "data"])
                .current_dir(self.path())
                .env("SETTEE_LOG", "debug")
                .stdout(Stdio::piped())
                .stderr(self.log())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("http://"));
            let mut log = self.log();
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let _ = writeln!(log, "{line}");
                }
            });
            if up {
                self.child = Some(child);
                return;
            }
            // The port may still be held by connections of the one before.
            let _ = child.wait();
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not start again");
    }

    /// What it says, which is kept.
    fn log(&self) -> File {
        OpenOptions::new().create(true).append(true).open(self.path().join("log")).unwrap()
    }

    /// That it has said something, but no password.
    pub(crate) fn assert_discreet(&self) {
        let log = std::fs::read_to_string(self.path().join("log")).unwrap();
        assert!(log.lines().count() > 10, "{log}");
        for secret in ["secret", "YWRtaW46c2VjcmV0"] {
            let told = log.lines().find(|line| line.contains(secret));
            assert_eq!(told, None);
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self, db: &str) -> String {
        format!("http://admin:secret@127.0.0.1:{}/{db}", self.port)
    }

    pub(crate) fn couch(&self) -> Couch {
        let options = RemoteOptions::new().retries(8);
        Couch::from_host(Arc::new(Remote::connect(&self.url(""), &options).unwrap()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) async fn until(what: &str, patience: Duration, such: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !such().await {
        assert!(began.elapsed() < patience, "it takes too long until {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
