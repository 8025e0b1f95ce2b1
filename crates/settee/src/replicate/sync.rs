//! Both directions at once.

use super::{
    End, ReplicateOptions, Replication, ReplicationEvent, ReplicationHandle, ReplicationResult,
};
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::future::join;
use futures_util::{FutureExt, StreamExt, stream};
use settee_core::Result;

/// Replication in both directions between two databases.
///
/// ```
/// # futures_executor::block_on(async {
/// use settee::Couch;
///
/// let couch = Couch::memory()?;
/// let (phone, desk) = (couch.create("phone").await?, couch.create("desk").await?);
/// phone.put(r#"{"_id": "milk"}"#).await?;
/// desk.put(r#"{"_id": "bread"}"#).await?;
/// let result = phone.sync(&desk).run().await?;
/// assert!(result.push.ok && result.pull.ok);
/// assert_eq!((phone.len().await?, desk.len().await?), (2, 2));
/// # Ok::<(), settee::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run` or `start`"]
pub struct Sync {
    push: Replication,
    pull: Replication,
}

impl Sync {
    /// Between `here` and `there`.
    pub fn new(here: impl Into<End>, there: impl Into<End>) -> Sync {
        let (here, there) = (here.into(), there.into());
        Sync {
            push: Replication::new(here.clone(), there.clone()),
            pull: Replication::new(there, here),
        }
    }

    /// Both directions, each as it was set up.
    pub fn of(push: Replication, pull: Replication) -> Sync {
        Sync { push, pull }
    }

    /// Changes the settings of both directions.
    pub fn both(mut self, change: impl Fn(Replication) -> Replication) -> Sync {
        self.push = change(self.push);
        self.pull = change(self.pull);
        self
    }

    /// Changes the settings of the direction from here to there.
    pub fn push(mut self, change: impl FnOnce(Replication) -> Replication) -> Sync {
        self.push = change(self.push);
        self
    }

    /// Changes the settings of the direction from there to here.
    pub fn pull(mut self, change: impl FnOnce(Replication) -> Replication) -> Sync {
        self.pull = change(self.pull);
        self
    }

    /// With these options in both directions.
    pub fn options(self, options: ReplicateOptions) -> Sync {
        self.both(|replication| replication.options(options.clone()))
    }

    /// Go on with changes as they happen, as [`Replication::live`].
    pub fn live(self) -> Sync {
        self.both(Replication::live)
    }

    /// The future that does it all, and the handle to it.
    pub fn into_task(self) -> (SyncHandle, BoxFuture<'static, Result<SyncResult>>) {
        let (push, pushing) = self.push.into_task();
        let (pull, pulling) = self.pull.into_task();
        let handle = SyncHandle { push, pull };
        let other = handle.clone();
        let task = async move {
            // One direction alone is no sync: when one fails, the other ends too.
            let pushing = pushing.inspect(|result| {
                if result.is_err() {
                    other.pull.cancel()
                }
            });
            let pulling = pulling.inspect(|result| {
                if result.is_err() {
                    other.push.cancel()
                }
            });
            let (push, pull) = join(pushing, pulling).await;
            Ok(SyncResult { push: push?, pull: pull? })
        };
        (handle, task.boxed())
    }

    /// Replicates both ways, and returns when there is nothing left to do.
    ///
    /// # Errors
    ///
    /// As [`Replication::run`]. When one direction fails, the other is cancelled.
    pub async fn run(self) -> Result<SyncResult> {
        self.into_task().1.await
    }

    /// Replicates both ways in the background, as [`Replication::start`].
    ///
    /// # Errors
    ///
    /// `Internal` if the system has no thread left.
    pub fn start(self) -> Result<SyncHandle> {
        let (handle, task) = self.into_task();
        super::background::spawn(task.map(drop).boxed())?;
        Ok(handle)
    }
}

/// What both directions came to.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncResult {
    /// From here to there.
    pub push: ReplicationResult,
    /// From there to here.
    pub pull: ReplicationResult,
}

/// Both directions of a sync that runs elsewhere.
#[derive(Debug, Clone)]
pub struct SyncHandle {
    /// From here to there.
    pub push: ReplicationHandle,
    /// From there to here.
    pub pull: ReplicationHandle,
}

/// Which direction of a sync an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From here to there.
    Push,
    /// From there to here.
    Pull,
}

impl SyncHandle {
    /// Ends both.
    pub fn cancel(&self) {
        self.push.cancel();
        self.pull.cancel();
    }

    /// Pauses both.
    pub fn pause(&self) {
        self.push.pause();
        self.pull.pause();
    }

    /// Goes on with both.
    pub fn resume(&self) {
        self.push.resume();
        self.pull.resume();
    }

    /// What happens in either direction, up to both ends.
    pub fn events(&self) -> BoxStream<'static, (Direction, ReplicationEvent)> {
        let push = self.push.events().map(|event| (Direction::Push, event));
        let pull = self.pull.events().map(|event| (Direction::Pull, event));
        stream::select(push, pull).boxed()
    }

    /// Waits for both ends.
    ///
    /// # Errors
    ///
    /// As [`Sync::run`].
    pub async fn wait(&self) -> Result<SyncResult> {
        let (push, pull) = join(self.push.wait(), self.pull.wait()).await;
        Ok(SyncResult { push: push?, pull: pull? })
    }
}
