//! Points in time as text, from microseconds since 1970.

use settee_core::time;
use std::time::{Duration, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as in the history of a checkpoint.
pub(crate) fn rfc1123(micros: u64) -> String {
    time::rfc1123(UNIX_EPOCH + Duration::from_micros(micros))
}

/// A point in time, in microseconds since 1970, as text: `1994-11-06T08:49:37Z`.
pub fn rfc3339(micros: u64) -> String {
    time::rfc3339(UNIX_EPOCH + Duration::from_micros(micros))
}
