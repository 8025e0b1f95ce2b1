//! The server under loads that are larger than the memory it may take: real processes, real sockets.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// `admin:secret`.
const CREDENTIALS: &str = "YWRtaW46c2VjcmV0";

/// `settee serve` on a directory and a port of its own. Killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_settee"))
            .args(["serve", "--port", "0", "--admin", "admin:secret", "--data"])
            .arg(dir.path().join("data"))
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            rest.trim_end_matches('/').parse().ok()
        });
        let address = address.expect("the server says where it listens");
        Server { child, address, _dir: dir }
    }

    /// A figure of the server's process, in KiB.
    fn memory(&self, figure: &str) -> u64 {
        memory(&self.child, figure)
    }

    fn url(&self, db: &str) -> String {
        format!("http://admin:secret@{}/{db}", self.address)
    }

    /// Begins a request on a connection of its own.
    fn request(&self, method: &str, path: &str, headers: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {CREDENTIALS}\r\n\
             Connection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        BufReader::with_capacity(2048, stream)
    }

    /// A request without a body, whose reply must have this status.
    fn expect(&self, status: u16, method: &str, path: &str) {
        let mut reply = self.request(method, path, "Content-Length: 0\r\n");
        let head = head(&mut reply);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A figure of a process, in KiB.
fn memory(process: &Child, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The head of a reply.
fn head(reply: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reply.read_line(&mut head).unwrap() > 0, "the reply ends in its head: {head:?}");
    }
    head
}

/// Sends an attachment in and out, and returns the most memory that the server took, in MiB.
fn attachment(size: u64) -> u64 {
    let server = Server::start();
    server.expect(201, "PUT", "/db");
    let began = server.memory("VmHWM");
    let mut piece = vec![0; 64 << 10];
    let mut rng = StdRng::seed_from_u64(1);
    let length = format!("Content-Type: image/png\r\nContent-Length: {size}\r\n");
    let mut upload = server.request("PUT", "/db/doc/large", &length);
    for _ in 0..size / piece.len() as u64 {
        rng.fill_bytes(&mut piece);
        upload.get_mut().write_all(&piece).unwrap();
    }
    let head_of_upload = head(&mut upload);
    assert!(head_of_upload.starts_with("HTTP/1.1 201 "), "{head_of_upload}");
    let written = server.memory("VmHWM");

    let mut download = server.request("GET", "/db/doc/large", "");
    let head_of_download = head(&mut download);
    assert!(head_of_download.starts_with("HTTP/1.1 200 "), "{head_of_download}");
    let mut rng = StdRng::seed_from_u64(1);
    let mut received = piece.clone();
    for _ in 0..size / piece.len() as u64 {
        rng.fill_bytes(&mut piece);
        download.read_exact(&mut received).unwrap();
        assert!(piece == received);
    }
    let peak = server.memory("VmHWM");
    println!(
        "{} MiB of attachment, KiB: {began} at first, {written} after writing, {peak} after reading",
        size / MIB
    );
    peak / 1024
}

#[test]
fn an_attachment_goes_through_the_server_without_being_held_in_memory() {
    let peak = attachment(200 * MIB);
    assert!(peak < 100, "{peak} MiB");
}

#[test]
#[ignore = "writes 1 GiB"]
fn an_attachment_of_1_gib_takes_less_than_100_mib_of_the_servers_memory() {
    let peak = attachment(1024 * MIB);
    assert!(peak < 100, "{peak} MiB");
}

/// Replicates in a process of its own, and returns the most memory that it took, in KiB.
fn replicate(source: &str, target: &str) -> u64 {
    let mut process = Command::new(env!("CARGO_BIN_EXE_settee"))
        .args(["replicate", "--create-target", source, target])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut peak = 0;
    loop {
        peak = memory(&process, "VmHWM").max(peak);
        if let Some(status) = process.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Twenty times as many documents take no more memory of who replicates them between two servers. What
/// a directory takes that is filled is the store's.
fn documents_come_and_go(few: u64) {
    let server = Server::start();
    let mut number = 0;
    let mut peaks = [few, 20 * few].map(|count| {
        let db = format!("of{count}");
        server.expect(201, "PUT", &format!("/{db}"));
        for _ in 0..count / 1000 {
            let docs: Vec<String> = (0..1000)
                .map(|_| {
                    number += 1;
                    let pad = "x".repeat(250);
                    format!(r#"{{"_id":"{number:016x}","name":"{number}","pad":"{pad}"}}"#)
                })
                .collect();
            let body = format!(r#"{{"docs":[{}]}}"#, docs.join(","));
            let length =
                format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            let mut request = server.request("POST", &format!("/{db}/_bulk_docs"), &length);
            request.get_mut().write_all(body.as_bytes()).unwrap();
            assert!(head(&mut request).starts_with("HTTP/1.1 201 "));
        }
        (replicate(&server.url(&db), &server.url(&format!("{db}-copy"))), count)
    });
    println!("KiB, of how many documents: {peaks:?}");
    peaks.sort();
    let [(less, _), (more, _)] = peaks;
    assert!(less > 0 && more < less + 12 * 1024, "{peaks:?}");
}

#[test]
fn a_replication_takes_no_more_memory_for_more_documents() {
    documents_come_and_go(3000);
}

#[test]
#[ignore = "writes a million documents"]
fn a_replication_takes_no_more_memory_for_half_a_million_documents() {
    documents_come_and_go(25_000);
}

#[test]
fn a_replication_holds_no_attachments_in_memory() {
    let server = Server::start();
    server.expect(201, "PUT", "/db");
    let mut piece = vec![0; 64 << 10];
    let mut rng = StdRng::seed_from_u64(1);
    // One large, and some that are not small.
    for (doc, size) in [("large", 160 * MIB), ("a", 8 * MIB), ("b", 8 * MIB), ("c", 8 * MIB)] {
        let length = format!("Content-Type: image/png\r\nContent-Length: {size}\r\n");
        let mut upload = server.request("PUT", &format!("/db/{doc}/x"), &length);
        for _ in 0..size / piece.len() as u64 {
            rng.fill_bytes(&mut piece);
            upload.get_mut().write_all(&piece).unwrap();
        }
        assert!(head(&mut upload).starts_with("HTTP/1.1 201 "));
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("data/copy").to_str().unwrap().to_owned();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let pulled = replicate(&server.url("db"), &copy) / 1024;
    let pushed = replicate(&copy, &server.url("back")) / 1024;
    let through = replicate(&server.url("db"), &server.url("through")) / 1024;
    println!("MiB: {pulled} to pull, {pushed} to push, {through} between servers");
    assert!(pulled < 100 && pushed < 100 && through < 50, "{pulled}, {pushed}, {through} MiB");
}

/// Indexes documents with ten rows each: `SETTEE_INDEX_ROWS`, ten million if not given.
#[test]
#[ignore = "takes minutes"]
fn an_index_of_ten_million_rows_is_made_in_bounded_memory() {
    let rows = std::env::var("SETTEE_INDEX_ROWS").map_or(10_000_000, |rows| rows.parse().unwrap());
    let server = Server::start();
    server.expect(201, "PUT", "/db");
    let post = |method: &str, path: &str, body: &str| {
        let length =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let mut request = server.request(method, path, &length);
        request.get_mut().set_read_timeout(Some(Duration::from_secs(600))).unwrap();
        request.get_mut().write_all(body.as_bytes()).unwrap();
        let head = head(&mut request);
        assert!(head.starts_with("HTTP/1.1 20"), "{head}");
        let mut reply = String::new();
        request.read_to_string(&mut reply).unwrap();
        reply
    };
    let map = r#"{"views":{"v":{"map":"doc => { for (let i = 0; i < 10; i++) emit([doc.name, i], i) }","reduce":"_sum"}}}"#;
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..rows / 10_000 {
        let docs: Vec<String> = (0..1000)
            .map(|_| {
                let number = rng.next_u64();
                format!(r#"{{"_id":"{number:016x}","name":"someone {number}"}}"#)
            })
            .collect();
        post("POST", "/db/_bulk_docs", &format!(r#"{{"docs":[{}]}}"#, docs.join(",")));
    }
    let written = server.memory("VmHWM");
    post("PUT", "/db/_design/d", map);
    let began = Instant::now();
    let sum = format!("\"value\":{}", rows / 10_000 * 45_000);
    assert!(post("GET", "/db/_design/d/_view/v", "").contains(&sum));
    let took = began.elapsed();
    let peak = server.memory("VmHWM") / 1024;
    let written = written / 1024;
    println!("{rows} rows in {took:?}, MiB: {written} after writing, {peak} after indexing");
    assert!(peak < 768, "{peak} MiB");
}

/// Raises how many files this process may have open, as far as the system lets it, and returns that.
/// Processes that are started later may have as many.
fn raise_file_limit(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted.min(most)), maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[test]
fn ten_thousand_open_feeds_each_get_a_change() {
    // Sockets, and some files besides, in each of the two processes.
    let count = match raise_file_limit(12_000) {
        12_000.. => 10_000,
        limit if limit >= 2_500 => {
            println!("SKIPPED in part: {limit} open files are too few for 10,000 feeds");
            2_000
        }
        limit => {
            println!("SKIPPED: {limit} open files are too few");
            return;
        }
    };
    let server = Server::start();
    server.expect(201, "PUT", "/db");
    let before = server.memory("VmRSS");
    let path = "/db/_changes?feed=continuous&heartbeat=60000&since=now";
    let mut feeds = Vec::new();
    for _ in 0..count {
        let mut feed = server.request("GET", path, "");
        // One after the other: the system drops connections that queue up to be accepted.
        let head = head(&mut feed);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        feeds.push(feed);
    }
    let waiting = server.memory("VmRSS");
    let length = "Content-Type: application/json\r\nContent-Length: 2\r\n";
    let mut put = server.request("PUT", "/db/new", length);
    put.get_mut().write_all(b"{}").unwrap();
    assert!(head(&mut put).starts_with("HTTP/1.1 201 "));
    for feed in &mut feeds {
        let mut line = String::new();
        while !line.contains(r#""id":"new""#) {
            line.clear();
            assert!(feed.read_line(&mut line).unwrap() > 0, "a feed has ended");
        }
    }
    println!(
        "{count} feeds, KiB: {before} before, {waiting} with all of them waiting, {} after a change",
        server.memory("VmRSS")
    );
    assert!(waiting / 1024 < 500, "{} MiB", waiting / 1024);
    // Whoever goes is forgotten, and the server goes on.
    drop(feeds);
    server.expect(200, "GET", "/db");
}
