//! Feeds: `_changes` and `_db_updates`.

use super::Query;
use settee_core::options::{ChangesOptions, Since, Style};
use settee_core::time;
use settee_core::wire::Seq;
use settee_core::{Error, Result};
use std::time::Duration;

/// How a feed comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    Normal,
    Longpoll,
    Continuous,
    EventSource,
}

impl Feed {
    pub(crate) fn parse(name: &str) -> Option<Feed> {
        match name {
            "normal" => Some(Feed::Normal),
            "longpoll" => Some(Feed::Longpoll),
            "continuous" | "live" => Some(Feed::Continuous),
            "eventsource" => Some(Feed::EventSource),
            _ => None,
        }
    }
}

/// `_changes`, but for the filter.
pub(crate) struct ChangesQuery {
    pub(crate) feed: Feed,
    pub(crate) options: ChangesOptions,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    /// Only each so manyth row tells its sequence.
    pub(crate) seq_interval: u64,
    /// The filter's name, if there is one.
    pub(crate) filter: Option<String>,
}

/// Who asks for `heartbeat=true` gets one a minute.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(60);

/// Heartbeats come no faster than this, whatever is asked for.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

impl ChangesQuery {
    pub(crate) fn parse(query: &Query, last_event_id: Option<&str>) -> Result<ChangesQuery> {
        let mut parsed = ChangesQuery {
            feed: Feed::Normal,
            options: ChangesOptions::default(),
            heartbeat: None,
            timeout: None,
            seq_interval: 1,
            filter: None,
        };
        let mut since = None;
        for (name, value) in &query.0 {
            let on = value == "true";
            let options = &mut parsed.options;
            match name.to_ascii_lowercase().as_str() {
                "feed" => {
                    parsed.feed = Feed::parse(value).ok_or_else(|| {
                        Error::bad_request(
                            "Supported `feed` types: normal, continuous, live, longpoll, eventsource",
                        )
                    })?;
                }
                "since" | "last-event-id" => since = Some(value.as_str()),
                "descending" => options.descending |= on,
                "include_docs" => options.include_docs |= on,
                "conflicts" => options.doc.conflicts |= on,
                "attachments" => options.doc.attachments |= on,
                "att_encoding_info" => options.doc.att_encoding_info |= on,
                // Not documented, but PouchDB's fast fetchers use it.
                "revs" => options.doc.revs |= on,
                "style" if value == "all_docs" => options.style = Style::AllDocs,
                "style" if value == "main_only" => options.style = Style::MainOnly,
                "style" => return Err(Error::bad_request("Unknown `style`.")),
                "limit" => {
                    let limit = natural(
                        value,
                        "The limit value should be a non-negative integer",
                        "The limit parameter should be a non-negative integer",
                    )?;
                    options.limit = Some(limit);
                }
                "heartbeat" if on => parsed.heartbeat = Some(DEFAULT_HEARTBEAT),
                "heartbeat" if value == "false" => {}
                "heartbeat" => {
                    let reason =
                        "The heartbeat value should be a positive integer (in milliseconds).";
                    let invalid = "Invalid heartbeat value. Expecting a positive integer value \
                                   (in milliseconds).";
                    let millis = natural(value, reason, invalid)?;
                    if millis == 0 {
                        return Err(Error::bad_request(reason));
                    }
                    parsed.heartbeat = Some(Duration::from_millis(millis).max(MIN_HEARTBEAT));
                }
                "timeout" => {
                    let millis = natural(
                        value,
                        "The timeout value should be a non-negative integer",
                        "The timeout parameter should be a non-negative integer",
                    )?;
                    parsed.timeout = Some(Duration::from_millis(millis));
                }
                "filter" => parsed.filter = Some(value.clone()).filter(|name| !name.is_empty()),
                "seq_interval" => {
                    parsed.seq_interval = value
                        .parse()
                        .ok()
                        .filter(|&interval| interval > 0)
                        .ok_or_else(|| Error::bad_request("invalid_seq_interval"))?;
                }
                _ => {}
            }
        }
        if parsed.feed == Feed::EventSource {
            // A browser that reconnects says where it was.
            since = last_event_id.or(since);
        }
        parsed.options.since = since.map_or(Ok(Since::Start), parse_since)?;
        parsed.options.live = parsed.feed != Feed::Normal;
        Ok(parsed)
    }
}

fn natural(value: &str, negative: &'static str, invalid: &'static str) -> Result<u64> {
    match value.parse::<i128>() {
        Ok(number) => u64::try_from(number).map_err(|_| Error::bad_request(negative)),
        Err(_) => Err(Error::bad_request(invalid)),
    }
}

/// Where a feed begins. Sequences come back as they were written, or as JSON.
/// What looks like a time must be one.
pub(crate) fn parse_since(text: &str) -> Result<Since> {
    let text = text.trim_matches('"');
    Ok(match text {
        "now" => Since::Now,
        "" | "0" | "null" => Since::Start,
        _ if looks_like_time(text) => match time::parse_rfc3339(text) {
            Some(time) => Since::Time(time),
            None => return Err(Error::bad_request("invalid_time_format")),
        },
        _ => match text.parse() {
            Ok(number) => Since::Seq(Seq::Number(number)),
            Err(_) => Since::Seq(Seq::Opaque(text.to_owned())),
        },
    })
}

/// Whether it is `....-..-..T..:..:..Z`.
fn looks_like_time(text: &str) -> bool {
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    text.len() == 20 && marks.iter().all(|&(place, mark)| text.as_bytes()[place] == mark)
}

/// `_db_updates`.
pub(crate) struct UpdatesQuery {
    pub(crate) feed: Feed,
    /// `None` is from now on.
    pub(crate) since: Option<Seq>,
    pub(crate) limit: Option<u64>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
}

impl UpdatesQuery {
    pub(crate) fn parse(query: &Query, last_event_id: Option<&str>) -> Result<UpdatesQuery> {
        let feed = query.get("feed").unwrap_or("normal");
        let feed = Feed::parse(feed).ok_or_else(|| {
            Error::bad_request("Supported `feed` types: normal, continuous, longpoll, eventsource")
        })?;
        let number = |name| {
            let parse =
                |text: &str| text.parse().map_err(|_| Error::bad_request("invalid_integer"));
            query.get(name).map(parse).transpose()
        };
        let millis = |name| -> Result<_> { Ok(number(name)?.map(Duration::from_millis)) };
        let heartbeat = match query.get("heartbeat") {
            Some("true") => Some(DEFAULT_HEARTBEAT),
            Some("false") => None,
            _ => millis("heartbeat")?.map(|pause| pause.max(MIN_HEARTBEAT)),
        };
        let since = match feed {
            Feed::EventSource => last_event_id.or(query.get("since")),
            _ => query.get("since"),
        };
        let since = match parse_since(since.unwrap_or_default())? {
            Since::Start => Some(Seq::default()),
            Since::Now => None,
            Since::Seq(seq) => Some(seq),
            Since::Time(_) => return Err(Error::bad_request("Malformed sequence")),
        };
        Ok(UpdatesQuery {
            feed,
            since,
            limit: number("limit")?,
            heartbeat,
            timeout: millis("timeout")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_numbers_or_opaque() {
        assert_eq!(parse_since("now").unwrap(), Since::Now);
        assert_eq!(parse_since("0").unwrap(), Since::Start);
        let time = std::time::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(parse_since("1994-11-06T08:49:37Z").unwrap(), Since::Time(time));
        let error = parse_since("2025-01-01Txx:yy:00Z").unwrap_err();
        assert_eq!((error.status(), error.reason()), (400, "invalid_time_format"));
        assert_eq!(parse_since("17").unwrap(), Since::Seq(Seq::Number(17)));
        assert_eq!(parse_since("\"17-abc\"").unwrap(), Since::Seq(Seq::Opaque("17-abc".into())));
    }
}
