//! A SOCKS 5 proxy (RFC 1928, 1929) on a real socket. Whatever it is asked to connect to, it connects
//! to one server, so that names can be used that nobody else knows.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A proxy, which lives as long as the process.
pub struct Socks {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who, if that was said: name and password.
    pub user: Option<(String, String)>,
    /// Host or address, and port.
    pub to: String,
}

impl Socks {
    /// A proxy that leads to a server, for those who have this name and password, or for all.
    pub fn start(target: SocketAddr, login: Option<(&'static str, &'static str)>) -> Socks {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                let seen = seen.clone();
                // That a connection breaks is for the test to judge.
                thread::spawn(move || drop(serve(stream, target, login, &seen)));
            }
        });
        Socks { address, asked }
    }

    /// What has been asked for so far, also what was refused.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    login: Option<(&str, &str)>,
    seen: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let [version, count] = read(&mut client)?;
    assert_eq!(version, 5);
    let methods = some(&mut client, count)?;
    let method = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 0xff]);
    }
    client.write_all(&[5, method])?;
    let mut user = None;
    if let Some((name, password)) = login {
        let [version, length] = read(&mut client)?;
        assert_eq!(version, 1);
        let theirs = text(&mut client, length)?;
        let [length] = read(&mut client)?;
        let secret = text(&mut client, length)?;
        let right = theirs == name && secret == password;
        user = Some((theirs, secret));
        client.write_all(&[1, u8::from(!right)])?;
        if !right {
            let to = String::new();
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { user, to });
            return Ok(());
        }
    }
    let [version, command, _, kind] = read(&mut client)?;
    assert_eq!((version, command), (5, 1));
    let host = match kind {
        1 => Ipv4Addr::from(read::<4>(&mut client)?).to_string(),
        4 => Ipv6Addr::from(read::<16>(&mut client)?).to_string(),
        _ => {
            let [length] = read(&mut client)?;
            text(&mut client, length)?
        }
    };
    let port = u16::from_be_bytes(read(&mut client)?);
    let to = format!("{host}:{port}");
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { user, to });
    let mut server = TcpStream::connect(target)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let (mut back, mut answer) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answer, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Both)
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn some(stream: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(stream: &mut TcpStream, length: u8) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&some(stream, length)?).into_owned())
}
