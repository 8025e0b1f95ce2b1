//! When to try again.

use crate::env;
use hyper::header::{self, HeaderMap};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// No server is waited for longer than this at its own wish.
const LONGEST_WISH: Duration = Duration::from_secs(120);

/// Pauses that grow, and differ between clients that failed at one moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// The next pause: at least what the server asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let longest = self.next;
        self.next = (longest * 2).min(LONGEST);
        // Half of it for sure, the other half by chance.
        let dice = env::random::<1>().map_or(0, |[byte]| u32::from(byte));
        let pause = longest / 2 + longest / 2 * dice / 255;
        pause.max(asked.unwrap_or_default())
    }
}

/// How long a server asks to be left alone.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WISH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new();
        assert!((50..=100).contains(&backoff.next(None).as_millis()));
        for _ in 0..20 {
            assert!(backoff.next(None) <= LONGEST);
        }
        assert!(backoff.next(None) >= LONGEST / 2);
        assert_eq!(backoff.next(Some(LONGEST * 3)), LONGEST * 3);
    }
}
