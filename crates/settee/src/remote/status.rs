//! Whether the server answers.

use event_listener::Event;
use futures_core::stream::BoxStream;
use futures_util::stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a server was reached when it was last tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// Nothing was asked of it yet.
    Unknown,
    /// It answered.
    Connected,
    /// It did not.
    Disconnected,
}

const ALL: [ConnectionStatus; 3] =
    [ConnectionStatus::Unknown, ConnectionStatus::Connected, ConnectionStatus::Disconnected];

#[derive(Debug, Clone, Default)]
pub(crate) struct StatusWatch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The place in [`ALL`].
    now: AtomicU8,
    changed: Event,
}

impl StatusWatch {
    pub(crate) fn set(&self, connected: bool) {
        let now = if connected { 1 } else { 2 };
        if self.0.now.swap(now, Ordering::AcqRel) != now {
            self.0.changed.notify(usize::MAX);
        }
    }

    pub(crate) fn get(&self) -> ConnectionStatus {
        ALL[usize::from(self.0.now.load(Ordering::Acquire)).min(2)]
    }

    /// The status now, and whenever it has changed.
    pub(crate) fn watch(&self) -> BoxStream<'static, ConnectionStatus> {
        let watch = self.clone();
        Box::pin(stream::unfold((watch, None), |(watch, last)| async move {
            loop {
                let listener = watch.0.changed.listen();
                let now = watch.get();
                if last != Some(now) {
                    return Some((now, (watch, Some(now))));
                }
                listener.await;
            }
        }))
    }
}
