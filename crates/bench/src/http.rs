//! `settee serve`, driven over loopback by as little client as there can be: a keep-alive connection
//! per thread, requests put together beforehand, replies read and counted but not parsed.

use crate::{Figures, Work, document, id, rate, replication, text, views};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) fn run(dir: &Path, docs: usize) -> Result<Figures, String> {
    let server = Server::start(dir)?;
    let mut client = server.connect()?;
    client.ask("PUT", "/single", "")?;
    client.ask("PUT", "/bulk", "")?;
    let mut figures = Figures::new();
    let mut add = |work, figure| figures.insert(work, figure);

    let put = |client: &mut Client, n: usize| client.ask("POST", "/single", &document(n)).map(drop);
    add(Work::SinglePut, rate(2000, || (0..2000).try_for_each(|n| put(&mut client, n)))?);
    let mut clients = (0..64).map(|_| server.connect()).collect::<Result<Vec<_>, _>>()?;
    add(
        Work::ManyWriters,
        rate(64 * 300, || {
            in_parallel(&mut clients, |writer, client| {
                (0..300).try_for_each(|n| put(client, (writer + 1) * 10_000 + n))
            })
        })?,
    );
    add(Work::SameDocument, {
        let path = "/single/same";
        let mut rev = String::new();
        rate(300, || {
            (0..300).try_for_each(|n| {
                let body = format!(r#"{{{rev}"number":{n}}}"#);
                let reply = client.ask("PUT", path, &body)?;
                let reply = String::from_utf8_lossy(&reply).into_owned();
                let at = reply.find(r#""rev":""#).ok_or_else(|| reply.clone())? + 7;
                let end = reply[at..].find('"').ok_or_else(|| reply.clone())? + at;
                rev = format!(r#""_rev":"{}","#, &reply[at..end]);
                Ok(())
            })
        })?
    });
    let batches: Vec<_> = (0..docs)
        .step_by(1000)
        .map(|first| {
            let docs: Vec<_> = (first..docs.min(first + 1000)).map(document).collect();
            format!(r#"{{"docs":[{}]}}"#, docs.join(","))
        })
        .collect();
    add(
        Work::Bulk,
        rate(docs, || {
            let mut batches = batches.iter();
            batches.try_for_each(|batch| client.ask("POST", "/bulk/_bulk_docs", batch).map(drop))
        })?,
    );
    // Two connections: one waits for the wire while the other is served.
    clients.truncate(2);
    add(
        Work::Get,
        rate(docs, || {
            in_parallel(&mut clients, |reader, client| {
                (reader..docs).step_by(2).try_for_each(|n| {
                    client.ask("GET", &format!("/bulk/{}", id(n * 7919 % docs)), "").map(drop)
                })
            })
        })?,
    );
    for (work, path) in [
        (Work::AllDocs, "/bulk/_all_docs"),
        (Work::AllDocsWithDocs, "/bulk/_all_docs?include_docs=true"),
        (Work::Changes, "/bulk/_changes"),
        (Work::ChangesWithDocs, "/bulk/_changes?include_docs=true"),
    ] {
        add(work, rate(docs, || client.ask("GET", path, "").map(drop))?);
    }
    drop(server);
    figures.extend(replication::servers(dir, docs)?);
    figures.extend(views::served(dir, docs)?);
    Ok(figures)
}

/// Runs something on every client at once.
fn in_parallel(
    clients: &mut [Client],
    work: impl Fn(usize, &mut Client) -> Result<(), String> + Sync,
) -> Result<(), String> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(n, client)| scope.spawn(move || work(n, client)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?)
    })
}

pub(crate) struct Server {
    process: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(dir: &Path) -> Result<Server, String> {
        let binary = binary()?;
        let mut process = Command::new(&binary)
            .args(["serve", "--port", "0", "--admin", "bench:bench", "--data"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let stdout = process.stdout.take().ok_or("no output")?;
        let mut server = Server { process, address: String::new() };
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while server.address.is_empty() {
            line.clear();
            if lines.read_line(&mut line).map_err(text)? == 0 {
                return Err("the server ended at once".to_owned());
            }
            if let Some((_, url)) = line.split_once("http://") {
                server.address = url.trim().trim_end_matches('/').to_owned();
            }
        }
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Ok(server)
    }

    fn connect(&self) -> Result<Client, String> {
        let stream = TcpStream::connect(&self.address).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let reader = BufReader::with_capacity(1 << 16, stream.try_clone().map_err(text)?);
        Ok(Client { stream, reader, host: self.address.clone() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's program, beside this one.
fn binary() -> Result<PathBuf, String> {
    let binary = std::env::current_exe().map_err(text)?.with_file_name("settee");
    if binary.exists() {
        return Ok(binary);
    }
    Err("build it first: cargo build --release --package settee-cli".to_owned())
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    host: String,
}

impl Client {
    /// Sends a request and returns the reply's body.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>, String> {
        // The credentials are `bench:bench`.
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic YmVuY2g6YmVuY2g=\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).map_err(text)?;
        let mut line = String::new();
        let mut read_line = |reader: &mut BufReader<TcpStream>| -> Result<String, String> {
            line.clear();
            reader.read_line(&mut line).map_err(text)?;
            Ok(line.trim_end().to_ascii_lowercase())
        };
        let status = read_line(&mut self.reader)?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let header = read_line(&mut self.reader)?;
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().map_err(text)?,
                Some(("transfer-encoding", "chunked")) => chunked = true,
                Some(_) => {}
            }
        }
        let mut reply = Vec::new();
        loop {
            if chunked {
                length = usize::from_str_radix(&read_line(&mut self.reader)?, 16).map_err(text)?;
            }
            let at = reply.len();
            reply.resize(at + length, 0);
            self.reader.read_exact(&mut reply[at..]).map_err(text)?;
            if chunked {
                read_line(&mut self.reader)?;
            }
            if !chunked || length == 0 {
                break;
            }
        }
        if status.split(' ').nth(1).is_none_or(|code| !code.starts_with('2')) {
            return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&reply)));
        }
        Ok(reply)
    }
}
