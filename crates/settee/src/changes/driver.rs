//! A thread that runs the futures of subscriptions, and keeps their time.
//!
//! A subscription is not bound to whoever made it: it needs something to run it, and the embedded
//! database must need no runtime. One thread serves all subscriptions of the process; it starts with
//! the first, and sleeps while nothing happens.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};
use settee_core::{Error, Result};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Driver {
    /// Futures that are not run yet.
    new: Mutex<Vec<BoxFuture<'static, ()>>>,
    timers: Mutex<Timers>,
    thread: OnceLock<Thread>,
    /// Whether there is something to look at. A callback may wait in its own way and so take a
    /// wake-up that was not meant for it.
    notified: AtomicBool,
}

/// Whom to wake when. The number tells apart what is due at the same moment.
#[derive(Default)]
struct Timers {
    due: BTreeMap<(Instant, u64), Waker>,
    made: u64,
}

struct Notify;

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        driver().notify();
    }
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(Driver::default)
}

/// Runs a future to its end.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let driver = driver();
    driver.new.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(future));
    driver.notify();
    if driver.thread.get().is_some() {
        return Ok(());
    }
    let thread = thread::Builder::new().name("settee-feeds".to_owned()).spawn(|| {
        let driver = self::driver();
        // Two may have been started at once; one goes on.
        if driver.thread.set(thread::current()).is_ok() {
            driver.run();
        }
    });
    thread.map(drop).map_err(|error| Error::internal(Box::new(error)))
}

impl Driver {
    fn notify(&self) {
        self.notified.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self) -> ! {
        let waker = Waker::from(Arc::new(Notify));
        let mut cx = Context::from_waker(&waker);
        let mut running = FuturesUnordered::new();
        loop {
            running.extend(self.new.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
            while let Poll::Ready(Some(())) = pin!(&mut running).poll_next(&mut cx) {}
            let next = self.wake_due();
            if self.notified.swap(false, Ordering::SeqCst) {
                continue;
            }
            match next {
                Some(next) => thread::park_timeout(next.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
    }

    /// Wakes what is due; returns when the next is.
    fn wake_due(&self) -> Option<Instant> {
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some(first) = timers.due.first_entry() {
            if first.key().0 > now {
                return Some(first.key().0);
            }
            first.remove().wake();
        }
        None
    }
}

/// Waits, on the driver's thread.
pub(super) fn sleep(duration: Duration) -> Sleep {
    Sleep { until: Instant::now() + duration, entry: None }
}

pub(super) struct Sleep {
    until: Instant,
    entry: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        let mut timers = driver().timers.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = *self.entry.get_or_insert_with(|| {
            timers.made += 1;
            timers.made
        });
        timers.due.insert((self.until, entry), cx.waker().clone());
        drop(timers);
        // The thread may have looked at its timers already.
        driver().notify();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            let mut timers = driver().timers.lock().unwrap_or_else(PoisonError::into_inner);
            timers.due.remove(&(self.until, entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn futures_run_side_by_side_and_in_their_time() {
        let (send, receive) = mpsc::channel();
        for n in [30_u64, 10, 20] {
            let send = send.clone();
            spawn(async move {
                sleep(Duration::from_millis(n)).await;
                send.send(n).unwrap();
            })
            .unwrap();
        }
        drop(send);
        assert_eq!(receive.into_iter().collect::<Vec<_>>(), [10, 20, 30]);
        assert!(driver().timers.lock().unwrap().due.is_empty());
    }
}
