//! How long to wait before trying again, and what is worth it.

use crate::env;
use settee_core::{Error, ErrorKind};
use std::time::Duration;

/// How long a replication waits before it tries again what failed: twice as long each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(600) }
    }
}

impl Backoff {
    /// The wait after so many failures in a row, the first of which is 0.
    ///
    /// It is random between half of it and all of it, so that those whom one failure has hit do not
    /// come back all at once.
    pub fn wait(&self, failures: u32) -> Duration {
        let longest = self.first.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX));
        let longest = longest.min(self.longest);
        let chance = env::random::<2>().map_or(0, u16::from_be_bytes);
        longest.mul_f64(0.5 + f64::from(chance) / f64::from(u16::MAX) / 2.0)
    }
}

/// Whether the same may go well another time.
pub(crate) fn is_transient(error: &Error) -> bool {
    error.status() >= 500 && error.kind() != ErrorKind::NotImplemented
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let backoff =
            Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        for (failures, longest) in [(0, 100), (1, 200), (3, 800), (4, 1000), (31, 1000), (99, 1000)]
        {
            let longest = Duration::from_millis(longest);
            let wait = backoff.wait(failures);
            assert!(wait <= longest && wait >= longest / 2, "{failures}: {wait:?}");
        }
    }
}
