//! A small HTTP client that sends exactly what it is told to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No reply takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who talks to a server.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// A request in the making.
pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, headers: Vec::new() }
    }

    pub(crate) fn login(mut self, name: &str, password: &str) -> Client {
        let code = STANDARD.encode(format!("{name}:{password}"));
        self.headers.push(("authorization".into(), format!("Basic {code}")));
        self
    }

    pub(crate) fn cookie(mut self, cookie: &str) -> Client {
        self.headers.push(("cookie".into(), cookie.into()));
        self
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request {
            address: self.address,
            method: method.into(),
            path: path.into(),
            headers: self.headers.clone(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    pub(crate) fn head(&self, path: &str) -> Request {
        self.request("HEAD", path)
    }

    pub(crate) fn put(&self, path: &str) -> Request {
        self.request("PUT", path)
    }

    pub(crate) fn post(&self, path: &str) -> Request {
        self.request("POST", path)
    }

    pub(crate) fn delete(&self, path: &str) -> Request {
        self.request("DELETE", path)
    }

    /// The value of a GET.
    pub(crate) async fn value(&self, path: &str) -> serde_json::Value {
        let reply = self.get(path).send().await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.value()
    }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn json(self, body: &str) -> Request {
        self.header("content-type", "application/json").body(body)
    }

    fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: test\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    /// Sends the request on a connection of its own and reads the whole reply.
    pub(crate) async fn send(self) -> Reply {
        let mut connection = self.open().await;
        timeout(PATIENCE, connection.read_to_end()).await.expect("a reply in time")
    }

    /// Sends the request and leaves the reply to be read.
    pub(crate) async fn open(self) -> Connection {
        let mut text = self.head();
        let announced = |name: &str| self.headers.iter().any(|header| header.0 == name);
        if !announced("content-length") && !announced("transfer-encoding") {
            text.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        text.push_str("connection: close\r\n\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        Connection::send(self.address, &bytes).await
    }
}

/// A connection, and what came over it so far.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends bytes as they are.
    pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Connection {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may refuse before it has read everything.
        let _ = stream.write_all(bytes).await;
        Connection { stream, buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Everything until the server closes the connection.
    pub(crate) async fn read_to_end(&mut self) -> Reply {
        let _ = self.stream.read_to_end(&mut self.buffer).await;
        Reply::parse(&self.buffer)
    }

    /// The bytes of a reply that may break off.
    pub(crate) async fn read_raw(&mut self) -> String {
        let reading = self.stream.read_to_end(&mut self.buffer);
        let _ = timeout(PATIENCE, reading).await.expect("the connection ends in time");
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Whether the server closes the connection within a time.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.read_to_end(&mut self.buffer)).await.is_ok()
    }

    /// Reads until the text has come.
    pub(crate) async fn wait_for(&mut self, text: &str) -> String {
        let reading = async {
            while !String::from_utf8_lossy(&self.buffer).contains(text) {
                let read = self.stream.read_buf(&mut self.buffer).await.unwrap_or(0);
                assert!(read > 0, "{text:?} never came: {}", String::from_utf8_lossy(&self.buffer));
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited for {text:?} in vain"));
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

impl Reply {
    fn parse(bytes: &[u8]) -> Reply {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no HTTP reply: {:?}", String::from_utf8_lossy(bytes));
        });
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: bytes[end + 4..].to_vec() };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = unchunk(&reply.body);
        }
        reply
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON: {e}: {self:?}"))
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        writeln!(f, "{}", self.text())
    }
}

/// The body in its chunks; ends early if the chunks do.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = memchr::memmem::find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let data = &bytes[end + 2..];
        if size == 0 || data.len() < size {
            break;
        }
        body.extend_from_slice(&data[..size]);
        bytes = &data[size + 2..];
    }
    body
}
