//! Points in time as text.

/// Year, month, day, hour, minute, second and day of the week (0 is Sunday) of microseconds since
/// 1970.
fn civil(micros: u64) -> (u64, u64, u64, u64, u64, u64, usize) {
    let seconds = micros / 1_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted in eras of 400 years that begin on a 1 March, so that the leap day is last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let week_day = (days + 4) % 7;
    (year, month, day, second / 3600, second / 60 % 60, second % 60, week_day as usize)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as in the history of a checkpoint.
pub(crate) fn rfc1123(micros: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second, week_day) = civil(micros);
    let month = MONTHS[month as usize - 1];
    format!("{}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", DAYS[week_day])
}

/// A point in time, in microseconds since 1970, as text: `1994-11-06T08:49:37Z`.
pub fn rfc3339(micros: u64) -> String {
    let (year, month, day, hour, minute, second, _) = civil(micros);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(rfc1123(seconds * 1_000_000), long);
            assert_eq!(rfc3339(seconds * 1_000_000), short);
        }
    }
}
