//! The network needs a tokio runtime; whoever calls need not have one.
//!
//! Within a runtime, connections live there. Elsewhere (the blocking twin, another executor) a
//! runtime of one thread is started with the first request and kept for the process's life.

use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

fn own() -> Option<&'static Runtime> {
    static OWN: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || {
        let name = "settee-remote";
        Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().ok()
    };
    OWN.get_or_init(start).as_ref()
}

/// Makes a runtime the current one, if there is none.
pub(crate) fn enter() -> Option<EnterGuard<'static>> {
    match Handle::try_current() {
        Ok(_) => None,
        Err(_) => own().map(Runtime::enter),
    }
}

/// A future that finds a runtime wherever it is polled.
pub(crate) fn with_runtime<F: Future>(future: F) -> WithRuntime<F> {
    WithRuntime { future }
}

pin_project! {
    pub(crate) struct WithRuntime<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for WithRuntime<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _guard = enter();
        self.project().future.poll(cx)
    }
}

/// Waits.
pub(crate) async fn sleep(duration: std::time::Duration) {
    let sleep = {
        let _guard = enter();
        tokio::time::sleep(duration)
    };
    sleep.await;
}
