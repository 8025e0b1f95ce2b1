//! A line to a server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    target: SocketAddr,
    /// So many replies are lost: at their first byte the connection is cut.
    lost: AtomicUsize,
    connections: AtomicUsize,
    /// At most so many bytes a connection carries before it is cut.
    budget: AtomicUsize,
    down: AtomicBool,
    /// Changes when all connections are to be cut.
    cut: watch::Sender<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub(crate) async fn to(target: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            lost: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            budget: AtomicUsize::new(usize::MAX),
            down: AtomicBool::new(false),
            cut: watch::channel(()).0,
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let state = shared.clone();
                tokio::spawn(async move {
                    let mut cut = state.cut.subscribe();
                    tokio::select! {
                        _ = cut.changed() => {}
                        _ = state.carry(stream) => {}
                    }
                });
            }
        });
        Line { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://root:secret@{}", self.address)
    }

    /// Loses the next replies, after their requests have been carried out.
    pub(crate) fn lose(&self, replies: usize) {
        self.state.lost.store(replies, Ordering::SeqCst);
    }

    /// From now on, connections break after some number of bytes, another one for each, but no more
    /// than this.
    pub(crate) fn break_within(&self, bytes: usize) {
        self.state.budget.store(bytes, Ordering::SeqCst);
    }

    /// Connections hold again.
    pub(crate) fn hold(&self) {
        self.break_within(usize::MAX);
    }

    /// Takes the line down: connections are cut, and new ones refused. Or up again.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
        if down {
            self.cut();
        }
    }

    /// Cuts every connection there is.
    pub(crate) fn cut(&self) {
        self.state.cut.send_replace(());
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl State {
    async fn carry(&self, mut here: TcpStream) {
        if self.down.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut there) = TcpStream::connect(self.target).await else { return };
        let budget = match self.budget.load(Ordering::SeqCst) {
            usize::MAX => usize::MAX,
            most => self.connections.load(Ordering::SeqCst).wrapping_mul(0x9e37_79b9) % most,
        };
        let mut carried = 0;
        let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        while carried < budget {
            tokio::select! {
                read = here.read(&mut up) => match read {
                    Ok(read) if read > 0 && there.write_all(&up[..read]).await.is_ok() => {
                        carried += read;
                    }
                    _ => return,
                },
                read = there.read(&mut down) => {
                    let lose = |lost: usize| lost.checked_sub(1);
                    if self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
                        return;
                    }
                    match read {
                        Ok(read) if read > 0 && here.write_all(&down[..read]).await.is_ok() => {
                            carried += read;
                        }
                        _ => return,
                    }
                }
            }
        }
    }
}
