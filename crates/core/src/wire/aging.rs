//! What databases know of time: when their changes were made, and how long deletions are kept.

use crate::error::{Error, Result};
use crate::time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

/// How long a document stays after its deletion: `30_days`, `1000_sec`, or `infinity`.
///
/// ```
/// use settee_core::wire::Ttl;
/// use std::time::Duration;
///
/// let ttl: Ttl = "2_weeks".parse().unwrap();
/// assert_eq!(ttl.duration(), Some(Duration::from_secs(14 * 86_400)));
/// assert_eq!("infinity".parse::<Ttl>().unwrap().duration(), None);
/// assert!("soon".parse::<Ttl>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ttl {
    /// As it was written: it is given back so.
    text: String,
    seconds: Option<u64>,
}

/// The text is no [`Ttl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlError;

impl fmt::Display for TtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deleted_document_ttl must be a valid string")
    }
}

impl std::error::Error for TtlError {}

impl Ttl {
    /// How long; `None` is for ever.
    pub fn duration(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }
}

impl std::str::FromStr for Ttl {
    type Err = TtlError;

    fn from_str(text: &str) -> std::result::Result<Ttl, TtlError> {
        let seconds = match text {
            "infinity" => None,
            _ => Some(period(text).ok_or(TtlError)?),
        };
        Ok(Ttl { text: text.to_owned(), seconds })
    }
}

/// The seconds of a period such as `8_hours`: a number above zero and a unit.
pub fn period(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once('_')?;
    let unit = match unit {
        "s" | "sec" | "second" | "seconds" => 1,
        "min" | "minute" | "minutes" => 60,
        "h" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        "mon" | "month" | "months" => 30 * 86_400,
        "y" | "year" | "years" => 365 * 86_400,
        _ => return None,
    };
    let number: u64 = number.parse().ok().filter(|&number| number > 0)?;
    number.checked_mul(unit)
}

impl TryFrom<String> for Ttl {
    type Error = TtlError;

    fn try_from(text: String) -> std::result::Result<Ttl, TtlError> {
        text.parse()
    }
}

impl From<Ttl> for String {
    fn from(ttl: Ttl) -> String {
        ttl.text
    }
}

/// `_auto_purge`: what becomes of deleted documents in time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoPurge {
    /// How long a document is kept after its deletion. Where it is not given, as the server's
    /// configuration says; where that says nothing, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_document_ttl: Option<Ttl>,
}

/// One interval of `_time_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBin {
    /// When it begins; it ends where the next one begins.
    pub start: SystemTime,
    /// How many update sequences were given out in it.
    pub changes: u64,
}

/// The reply to `GET /{db}/_time_seq`: intervals by range of shards and node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSeqReply {
    time_seq: BTreeMap<String, BTreeMap<String, Vec<(String, u64)>>>,
}

impl TimeSeqReply {
    /// The reply of a database that is one shard on one node.
    pub fn new(range: &str, node: &str, bins: &[TimeBin]) -> TimeSeqReply {
        let bins = bins.iter().map(|bin| (time::rfc3339(bin.start), bin.changes)).collect();
        let nodes = BTreeMap::from([(node.to_owned(), bins)]);
        TimeSeqReply { time_seq: BTreeMap::from([(range.to_owned(), nodes)]) }
    }

    /// The intervals of all shards together, oldest first. Of a shard's copies the one counts that
    /// has seen the most.
    ///
    /// # Errors
    ///
    /// `BadRequest` if a time is none.
    pub fn bins(&self) -> Result<Vec<TimeBin>> {
        let mut all = BTreeMap::new();
        for nodes in self.time_seq.values() {
            let seen = |bins: &&Vec<(String, u64)>| {
                bins.iter().fold(0, |sum: u64, (_, changes)| sum.saturating_add(*changes))
            };
            for (start, changes) in nodes.values().max_by_key(seen).into_iter().flatten() {
                let start = time::parse_rfc3339(start);
                let start = start.ok_or_else(|| Error::bad_request("invalid_time_format"))?;
                let sum: &mut u64 = all.entry(start).or_default();
                *sum = sum.saturating_add(*changes);
            }
        }
        Ok(all.into_iter().map(|(start, changes)| TimeBin { start, changes }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_a_number_and_a_unit() {
        for (text, seconds) in [
            ("1000_sec", Some(1000)),
            ("30_min", Some(1800)),
            ("8_hours", Some(28_800)),
            ("1_d", Some(86_400)),
            ("3_weeks", Some(1_814_400)),
            ("3_mon", Some(7_776_000)),
            ("1_year", Some(31_536_000)),
            ("0_sec", None),
            ("-1_sec", None),
            ("1", None),
            ("1_", None),
            ("_sec", None),
            ("1_fortnight", None),
            ("1.5_hours", None),
            ("99999999999999999999_sec", None),
            ("999999999999999999_years", None),
        ] {
            assert_eq!(period(text), seconds, "{text}");
        }
    }

    #[test]
    fn settings_are_given_back_as_they_were_written() {
        for text in
            [r#"{"deleted_document_ttl":"3_hour"}"#, r#"{"deleted_document_ttl":"infinity"}"#, "{}"]
        {
            let settings: AutoPurge = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&settings).unwrap(), text);
        }
        for text in
            [r#"{"deleted_document_ttl":3}"#, r#"{"deleted_document_ttl":"x"}"#, r#"{"x":1}"#]
        {
            assert!(serde_json::from_str::<AutoPurge>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_of_shards_are_added_up() {
        let reply = r#"{"time_seq":{
            "00000000-7fffffff":{
                "a":[["2025-07-27T06:00:00Z",8],["2025-07-27T09:00:00Z",13]],
                "b":[["2025-07-27T06:00:00Z",8]]
            },
            "80000000-ffffffff":{"a":[["2025-07-27T03:00:00Z",1],["2025-07-27T06:00:00Z",10]]}
        }}"#;
        let reply: TimeSeqReply = serde_json::from_str(reply).unwrap();
        let bins = reply.bins().unwrap();
        let bins: Vec<_> = bins.iter().map(|bin| (time::rfc3339(bin.start), bin.changes)).collect();
        let at = |hour: u32| format!("2025-07-27T0{hour}:00:00Z");
        assert_eq!(bins, [(at(3), 1), (at(6), 18), (at(9), 13)]);
    }
}
