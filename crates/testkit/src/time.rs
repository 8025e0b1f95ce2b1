//! The passing of time, without an async runtime.

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Waits for a while.
pub async fn sleep(duration: Duration) {
    let (sender, receiver) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::thread::sleep(duration);
        drop(sender);
    });
    // That the sender is gone is the signal.
    let _ = receiver.await;
}

/// What a future returns, if it does in time.
pub async fn within<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(sleep(duration))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// What a future returns, which must not take long.
///
/// # Panics
///
/// If it does.
pub async fn soon<F: Future>(future: F) -> F::Output {
    within(Duration::from_secs(20), future).await.expect("this took more than 20 seconds")
}
