//! Query parameters as typed options, with CouchDB's texts for those that make no sense.

use crate::body::parse_json;
use serde_json::Value;
use settee::adapter::AllDbsOptions;
use settee_core::json;
use settee_core::options::{
    AllDocsOptions, ChangesOptions, GetOptions, OpenRevs, Since, Style, Update, ViewOptions,
};
use settee_core::time;
use settee_core::wire::Seq;
use settee_core::{Error, Result, Rev};
use std::time::Duration;

/// The pairs of a query string, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = form_urlencoded::parse(text.as_bytes());
        Query(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A parameter; of several with one name the first.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// Whether a parameter is `true`.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// A revision, if one is given.
    pub(crate) fn rev(&self) -> Result<Option<Rev>> {
        self.get("rev").map(str::parse).transpose()
    }

    /// Every parameter, as it came.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, Param<'_>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), Param::Text(value)))
    }
}

/// A parameter's value: text from a query, or a JSON value from a body.
#[derive(Clone, Copy)]
pub(crate) enum Param<'a> {
    Text(&'a str),
    Json(&'a Value),
}

/// The parameters of a JSON object.
pub(crate) fn json_pairs(
    object: &serde_json::Map<String, Value>,
) -> impl Iterator<Item = (&str, Param<'_>)> {
    object.iter().map(|(name, value)| (name.as_str(), Param::Json(value)))
}

impl Param<'_> {
    /// As the error texts show it.
    fn shown(&self) -> String {
        match self {
            Param::Text(text) => format!("{text:?}"),
            Param::Json(value) => value.to_string(),
        }
    }

    fn boolean(&self) -> Result<bool> {
        let text = match self {
            Param::Json(Value::Bool(flag)) => return Ok(*flag),
            Param::Json(Value::String(text)) => text,
            Param::Json(_) => "",
            Param::Text(text) => *text,
        };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let reason = format!("Invalid boolean parameter: {}", self.shown());
                Err(Error::query_parse(reason))
            }
        }
    }

    fn number(&self) -> Result<u64> {
        let number: Option<i128> = match self {
            Param::Json(value) => value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)),
            Param::Text(text) => text.parse().ok(),
        };
        let Some(number) = number else {
            let reason = format!("Invalid value for integer: {}", self.shown());
            return Err(Error::query_parse(reason));
        };
        if number < 0 {
            let reason = format!("Invalid value for positive integer: {number}");
            return Err(Error::query_parse(reason));
        }
        Ok(u64::try_from(number).unwrap_or(u64::MAX))
    }

    /// The value itself: text of a query is JSON.
    fn value(&self) -> Result<Value> {
        match self {
            Param::Json(value) => Ok((*value).clone()),
            Param::Text(text) => parse_json(text.as_bytes()),
        }
    }
}

/// `GET /{db}/{id}`.
#[derive(Debug, Default)]
pub(crate) struct DocQuery {
    pub(crate) options: GetOptions,
    pub(crate) open_revs: Option<OpenRevs>,
}

impl DocQuery {
    pub(crate) fn parse(query: &Query) -> Result<DocQuery> {
        let mut parsed = DocQuery::default();
        let options = &mut parsed.options;
        for (name, value) in &query.0 {
            let on = value == "true";
            match name.as_str() {
                "attachments" => options.attachments |= on,
                "att_encoding_info" => options.att_encoding_info |= on,
                "conflicts" => options.conflicts |= on,
                "deleted_conflicts" => options.deleted_conflicts |= on,
                "latest" => options.latest |= on,
                "local_seq" => options.local_seq |= on,
                "revs" => options.revs |= on,
                "revs_info" => options.revs_info |= on,
                "meta" if on => {
                    options.revs_info = true;
                    options.conflicts = true;
                    options.deleted_conflicts = true;
                }
                "rev" => options.rev = Some(value.parse()?),
                "atts_since" => {
                    options.atts_since = revs(value)?;
                    options.attachments = true;
                }
                "open_revs" if value == "all" => parsed.open_revs = Some(OpenRevs::All),
                "open_revs" => parsed.open_revs = Some(OpenRevs::Revs(revs(value)?)),
                _ => {}
            }
        }
        // Without revisions there is nothing that could have been seen already.
        if parsed.open_revs == Some(OpenRevs::Revs(Vec::new())) {
            parsed.open_revs = None;
        }
        Ok(parsed)
    }
}

/// A JSON list of revisions.
fn revs(text: &str) -> Result<Vec<Rev>> {
    let invalid = || Error::bad_request("Invalid list of revisions");
    let Value::Array(items) = parse_json(text.as_bytes())? else { return Err(invalid()) };
    items
        .iter()
        .map(|item| match item.as_str() {
            Some(text) => text.parse(),
            None => Err(Error::bad_request("Invalid rev format")),
        })
        .collect()
}

/// Where a range of names begins or ends, in the order of all JSON values.
#[derive(Debug, Clone)]
enum Bound {
    /// Before all texts: `null`, booleans, numbers.
    Low,
    At(String),
    /// Behind all texts: lists and objects.
    High,
}

impl Bound {
    fn from_value(value: Value) -> Bound {
        match value {
            Value::String(text) => Bound::At(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => Bound::Low,
            Value::Array(_) | Value::Object(_) => Bound::High,
        }
    }
}

/// A range of names, read parameter by parameter.
#[derive(Debug, Default)]
struct Range {
    start: Option<Bound>,
    end: Option<Bound>,
    exclusive_end: bool,
    descending: bool,
    limit: Option<u64>,
    skip: u64,
}

impl Range {
    /// Takes a parameter; `false` if it is none of a range.
    fn take(&mut self, name: &str, value: Param<'_>) -> Result<bool> {
        match name {
            "startkey" | "start_key" => self.start = Some(Bound::from_value(value.value()?)),
            "endkey" | "end_key" => self.end = Some(Bound::from_value(value.value()?)),
            "key" => {
                let key = Bound::from_value(value.value()?);
                (self.start, self.end) = (Some(key.clone()), Some(key));
            }
            "inclusive_end" => self.exclusive_end = !value.boolean()?,
            "descending" => self.descending = value.boolean()?,
            "limit" => self.limit = Some(value.number()?),
            "skip" => self.skip = value.number()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// First and last name, and the limit; bounds that no name can meet make it 0.
    fn bounds(self) -> (Option<String>, Option<String>, Option<u64>) {
        let (first, last) = match self.descending {
            false => (Bound::Low, Bound::High),
            true => (Bound::High, Bound::Low),
        };
        let mut limit = self.limit;
        let mut bound = |bound: Option<Bound>, open: &Bound| match (bound, open) {
            (None, _) | (Some(Bound::Low), Bound::Low) | (Some(Bound::High), Bound::High) => None,
            (Some(Bound::At(name)), _) => Some(name),
            _ => {
                limit = Some(0);
                None
            }
        };
        let (start, end) = (bound(self.start, &first), bound(self.end, &last));
        (start, end, limit)
    }
}

/// `_all_docs` and its relatives.
pub(crate) struct AllDocsQuery {
    range: Range,
    options: AllDocsOptions,
}

impl AllDocsQuery {
    pub(crate) fn new(options: AllDocsOptions) -> AllDocsQuery {
        AllDocsQuery { range: Range::default(), options }
    }

    /// Takes parameters; later ones win.
    pub(crate) fn take<'a>(
        &mut self,
        pairs: impl Iterator<Item = (&'a str, Param<'a>)>,
    ) -> Result<()> {
        for (name, value) in pairs {
            if self.range.take(name, value)? {
                continue;
            }
            let options = &mut self.options;
            match name {
                "keys" => options.keys = keys(&value)?,
                "include_docs" => options.include_docs = value.boolean()?,
                "conflicts" => options.doc.conflicts = value.boolean()?,
                "attachments" => options.doc.attachments = value.boolean()?,
                "att_encoding_info" => options.doc.att_encoding_info = value.boolean()?,
                "update_seq" => options.update_seq = value.boolean()?,
                "stale" => choice(name, &value, &["ok", "update_after"])?,
                "stable" => choice(name, &value, &["true", "false"])?,
                "update" => choice(name, &value, &["true", "false", "lazy"])?,
                "reduce" if value.boolean()? => {
                    return Err(Error::query_parse("Reduce is invalid for map-only views."));
                }
                "group" if value.boolean()? => return Err(no_groups()),
                "group_level" if value.number()? > 0 => return Err(no_groups()),
                "sorted" => drop(value.boolean()?),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<AllDocsOptions> {
        let AllDocsQuery { range, mut options } = self;
        if options.keys.as_ref().is_some_and(|keys| !keys.is_empty())
            && (range.start.is_some() || range.end.is_some())
        {
            return Err(Error::query_parse(
                "`keys` is incompatible with `key`, `start_key` and `end_key`",
            ));
        }
        options.inclusive_end = !range.exclusive_end;
        options.descending = range.descending;
        options.skip = range.skip;
        (options.start, options.end, options.limit) = range.bounds();
        Ok(options)
    }
}

fn no_groups() -> Error {
    Error::query_parse("Invalid use of grouping on a map view.")
}

/// A view.
#[derive(Default)]
pub(crate) struct ViewQuery(ViewOptions);

impl ViewQuery {
    /// Takes parameters; later ones win.
    pub(crate) fn take<'a>(
        &mut self,
        pairs: impl Iterator<Item = (&'a str, Param<'a>)>,
    ) -> Result<()> {
        let options = &mut self.0;
        for (name, value) in pairs {
            match name {
                "key" => {
                    options.start = Some(value.json()?);
                    options.end.clone_from(&options.start);
                }
                "keys" => options.keys = value.list()?,
                "startkey" | "start_key" => options.start = Some(value.json()?),
                "endkey" | "end_key" => options.end = Some(value.json()?),
                "startkey_docid" | "start_key_doc_id" => options.start_docid = Some(value.text()),
                "endkey_docid" | "end_key_doc_id" => options.end_docid = Some(value.text()),
                "inclusive_end" => options.inclusive_end = value.boolean()?,
                "descending" => options.descending = value.boolean()?,
                // `count` is what it was called before 0.9.
                "limit" | "count" => options.limit = Some(value.number()?),
                "skip" => options.skip = value.number()?,
                "reduce" => options.reduce = Some(value.boolean()?),
                "group" => options.group = Some(value.boolean()?),
                "group_level" => options.group_level = Some(value.number()?),
                "include_docs" => options.include_docs = value.boolean()?,
                "conflicts" => options.doc.conflicts = value.boolean()?,
                "attachments" => options.doc.attachments = value.boolean()?,
                "att_encoding_info" => options.doc.att_encoding_info = value.boolean()?,
                "update_seq" => options.update_seq = value.boolean()?,
                "sorted" => options.sorted = value.boolean()?,
                "stable" => {
                    choice(name, &value, &["true", "false"])?;
                    options.stable = value.boolean()?;
                }
                "stale" => {
                    choice(name, &value, &["ok", "update_after"])?;
                    options.stable = true;
                    options.update = match value.text().as_str() {
                        "ok" => Update::Never,
                        _ => Update::After,
                    };
                }
                "update" => {
                    choice(name, &value, &["true", "false", "lazy"])?;
                    options.update = match value.text().as_str() {
                        "true" => Update::Before,
                        "false" => Update::Never,
                        _ => Update::After,
                    };
                }
                "partition" => {
                    return Err(Error::query_parse(
                        "`partition` parameter is not supported in this design doc",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> ViewOptions {
        self.0
    }
}

impl Param<'_> {
    /// The value as JSON text.
    fn json(&self) -> Result<String> {
        match self {
            Param::Json(value) => Ok(value.to_string()),
            Param::Text(text) => normalized(text),
        }
    }

    /// An array, as the JSON text of its elements.
    fn list(&self) -> Result<Option<Vec<String>>> {
        let text = self.json()?;
        if text == "null" {
            return Ok(None);
        }
        if !text.starts_with('[') {
            let what = if matches!(self, Param::Json(_)) { "body member" } else { "parameter" };
            return Err(Error::bad_request(format!("`keys` {what} must be an array.")));
        }
        Ok(Some(json::elements(&text).map(str::to_owned).collect()))
    }

    fn text(&self) -> String {
        match self {
            Param::Text(text) => (*text).to_owned(),
            Param::Json(Value::String(text)) => text.clone(),
            Param::Json(value) => value.to_string(),
        }
    }
}

/// JSON text in the form that stored documents have.
fn normalized(text: &str) -> Result<String> {
    let bytes = json::normalize(text.as_bytes(), &json::Limits::default())
        .map_err(|e| Error::bad_request("invalid UTF-8 JSON").with_source(e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A list of ids. What is no text is no document's id, and is shown as it came.
fn keys(value: &Param<'_>) -> Result<Option<Vec<String>>> {
    let what = if matches!(value, Param::Json(_)) { "body member" } else { "parameter" };
    match value.value()? {
        Value::Null => Ok(None),
        Value::Array(items) => {
            let id = |item: Value| match item {
                Value::String(id) => id,
                other => other.to_string(),
            };
            Ok(Some(items.into_iter().map(id).collect()))
        }
        _ => Err(Error::bad_request(format!("`keys` {what} must be an array."))),
    }
}

fn choice(name: &str, value: &Param<'_>, choices: &[&str]) -> Result<()> {
    let given = match value {
        Param::Text(text) => (*text).to_owned(),
        Param::Json(Value::String(text)) => text.clone(),
        Param::Json(value) => value.to_string(),
    };
    match choices.contains(&given.as_str()) {
        true => Ok(()),
        false => Err(Error::query_parse(format!("Invalid value for `{name}`."))),
    }
}

/// `_all_dbs` and `_dbs_info`.
pub(crate) fn all_dbs(query: &Query) -> Result<AllDbsOptions> {
    let mut range = Range::default();
    for (name, value) in query.pairs() {
        range.take(name, value)?;
    }
    let mut options = AllDbsOptions {
        inclusive_end: !range.exclusive_end,
        descending: range.descending,
        skip: range.skip,
        ..AllDbsOptions::default()
    };
    (options.start, options.end, options.limit) = range.bounds();
    Ok(options)
}

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
                // As in CouchDB, a limit of 0 is one of 1.
                "limit" => {
                    let limit = natural(
                        value,
                        "The limit value should be a non-negative integer",
                        "The limit parameter should be a non-negative integer",
                    )?;
                    options.limit = Some(limit.max(1));
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

    fn all_docs(text: &str) -> Result<AllDocsOptions> {
        let mut query = AllDocsQuery::new(AllDocsOptions::default());
        query.take(Query::parse(text).pairs())?;
        query.finish()
    }

    #[test]
    fn ranges_are_bounded_by_any_json() {
        let options = all_docs("startkey=%22a%22&endkey={}&limit=3&skip=1").unwrap();
        assert_eq!((options.start.as_deref(), options.end), (Some("a"), None));
        assert_eq!((options.limit, options.skip), (Some(3), 1));
        assert_eq!(all_docs("endkey=null").unwrap().limit, Some(0));
        assert_eq!(all_docs("startkey={}&descending=true").unwrap().limit, None);
        let options = all_docs("key=%22a%22&inclusive_end=true").unwrap();
        assert_eq!((options.start.as_deref(), options.end.as_deref()), (Some("a"), Some("a")));
    }

    #[test]
    fn errors_have_couchdbs_words() {
        for (query, error, reason) in [
            ("limit=x", "query_parse_error", "Invalid value for integer: \"x\""),
            ("limit=-1", "query_parse_error", "Invalid value for positive integer: -1"),
            ("descending=x", "query_parse_error", "Invalid boolean parameter: \"x\""),
            ("stale=x", "query_parse_error", "Invalid value for `stale`."),
            ("update=x", "query_parse_error", "Invalid value for `update`."),
            ("startkey=x", "bad_request", "invalid UTF-8 JSON"),
            ("keys=1", "bad_request", "`keys` parameter must be an array."),
        ] {
            let failed = all_docs(query).unwrap_err();
            assert_eq!((failed.name(), failed.reason()), (error, reason), "{query}");
        }
    }

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
