//! Points in time as the text that CouchDB writes and reads.

use jiff::{Timestamp, fmt::rfc2822};
use std::time::{SystemTime, UNIX_EPOCH};

/// `1994-11-06T08:49:37Z`: RFC 3339 to the second.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// let time = UNIX_EPOCH + Duration::from_millis(784_111_777_500);
/// assert_eq!(settee_core::time::rfc3339(time), "1994-11-06T08:49:37Z");
/// ```
pub fn rfc3339(time: SystemTime) -> String {
    seconds(time).to_string()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: as in HTTP, and in the history of a checkpoint.
pub fn rfc1123(time: SystemTime) -> String {
    let printed = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&seconds(time));
    printed.unwrap_or_default()
}

/// A point in time from RFC 3339 text with any offset; `None` if it is none, or one before 1970.
///
/// ```
/// use settee_core::time::{parse_rfc3339, rfc3339};
/// let time = parse_rfc3339("1994-11-06T09:49:37+01:00").unwrap();
/// assert_eq!(rfc3339(time), "1994-11-06T08:49:37Z");
/// assert_eq!(parse_rfc3339("1994-11-06"), None);
/// ```
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let time = text.parse::<Timestamp>().ok()?;
    (time >= Timestamp::UNIX_EPOCH).then(|| time.into())
}

/// Whole seconds, within the years that have four digits.
fn seconds(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, long, short) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00Z"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT", "2024-02-29T00:00:00Z"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT", "2100-02-28T23:59:59Z"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT", "2100-03-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc1123(time), long);
            assert_eq!(rfc3339(time), short);
            assert_eq!(parse_rfc3339(short), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "now", "2025-01-01Txx:yy:00Z", "2025-13-01T00:00:00Z", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
