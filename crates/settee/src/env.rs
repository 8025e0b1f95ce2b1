//! Time and randomness: read here and nowhere else.

use settee_core::{Error, Result};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(e.to_string()))?;
    Ok(bytes)
}

/// A future that is ready after a while, under any executor.
pub(crate) type Sleep = futures_timer::Delay;

/// Waits.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    Sleep::new(duration)
}

/// Lowercase hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// Makes document ids: UUIDs of version 7, as 32 hex digits, each greater than the one before.
///
/// Ids that ascend land side by side in the store, which makes bulk writes of new documents and
/// their later reads cheaper than random ids do.
#[derive(Debug, Default)]
pub(crate) struct IdGenerator {
    /// Milliseconds and a counter: the upper 64 bits of the last id, without the version.
    last: Mutex<u64>,
}

impl IdGenerator {
    #[cfg(feature = "remote")]
    pub(crate) const fn new() -> IdGenerator {
        IdGenerator { last: Mutex::new(0) }
    }

    pub(crate) fn next(&self) -> Result<String> {
        let low = u64::from_be_bytes(random()?);
        let at_least = (now_micros() / 1000) << 12;
        let high = {
            let mut last = self.last.lock().unwrap_or_else(|poison| poison.into_inner());
            // The counter runs over into the milliseconds rather than repeat.
            *last = at_least.max(*last + 1);
            *last
        };
        let id = (u128::from(high >> 12) << 80)
            | (7 << 76)
            | (u128::from(high & 0xfff) << 64)
            | (0b10 << 62)
            | u128::from(low >> 2);
        Ok(hex(&id.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_and_are_uuids_of_version_7() {
        let ids = IdGenerator::default();
        let made: Vec<_> = (0..10_000).map(|_| ids.next().unwrap()).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(made.iter().all(|id| id.len() == 32 && &id[12..13] == "7"));
    }
}
