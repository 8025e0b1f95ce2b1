//! Running a future without an executor.

use futures_core::future::BoxFuture;
use settee_core::{Error, Result};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

/// Runs a future to its end on a thread of its own.
pub(crate) fn spawn(future: BoxFuture<'static, ()>) -> Result<()> {
    let thread = thread::Builder::new().name("settee-replicate".to_owned());
    thread.spawn(move || block_on(future)).map(drop).map_err(Error::internal)
}

fn block_on(future: BoxFuture<'static, ()>) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    while future.as_mut().poll(&mut context).is_pending() {
        thread::park();
    }
}
