//! Ranges of names: `_all_docs` and its relatives, `_all_dbs`.

use super::Query;
use serde_json::Value;
use settee::adapter::AllDbsOptions;
use settee_core::options::AllDocsOptions;
use settee_core::parameters::Param;
use settee_core::{Error, Result};

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
    /// Where it begins and ends if nothing else says so, as in CouchDB.
    start_docid: Option<String>,
    end_docid: Option<String>,
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
            "startkey_docid" | "start_key_doc_id" => self.start_docid = Some(value.text()),
            "endkey_docid" | "end_key_doc_id" => self.end_docid = Some(value.text()),
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
        let start = self.start.or(self.start_docid.map(Bound::At));
        let end = self.end.or(self.end_docid.map(Bound::At));
        let (start, end) = (bound(start, &first), bound(end, &last));
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
                "keys" => options.keys = Some(keys(&value)?),
                "include_docs" => options.include_docs = value.boolean()?,
                "conflicts" => options.doc.conflicts = value.boolean()?,
                "attachments" => options.doc.attachments = value.boolean()?,
                "att_encoding_info" => options.doc.att_encoding_info = value.boolean()?,
                "update_seq" => options.update_seq = value.boolean()?,
                "stale" => drop(value.choice(name, &["ok", "update_after"])?),
                "stable" => drop(value.choice(name, &["true", "false"])?),
                "update" => drop(value.choice(name, &["true", "false", "lazy"])?),
                "reduce" if value.boolean()? => {
                    return Err(Error::query_parse("Reduce is invalid for map-only views."));
                }
                "group" if value.boolean()? => return Err(no_groups()),
                "group_level" if value.number()? > 0 => return Err(no_groups()),
                "sorted" => drop(value.boolean()?),
                "partition" => {
                    let reason = "`partition` parameter is not supported on this db";
                    return Err(Error::query_parse(reason));
                }
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

/// A list of ids. What is no text is no document's id, and is shown as it came.
fn keys(value: &Param<'_>) -> Result<Vec<String>> {
    let what = if matches!(value, Param::Json(_)) { "body member" } else { "parameter" };
    let Value::Array(items) = value.value()? else {
        return Err(Error::bad_request(format!("`keys` {what} must be an array.")));
    };
    let id = |item: Value| match item {
        Value::String(id) => id,
        other => other.to_string(),
    };
    Ok(items.into_iter().map(id).collect())
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
        let options = all_docs("startkey_docid=b&endkey_docid=c").unwrap();
        assert_eq!((options.start.as_deref(), options.end.as_deref()), (Some("b"), Some("c")));
        let options = all_docs("key=%22a%22&inclusive_end=true").unwrap();
        assert_eq!((options.start.as_deref(), options.end.as_deref()), (Some("a"), Some("a")));
    }

    #[test]
    fn errors_have_couchdbs_words() {
        for (query, error, reason) in [
            ("limit=x", "query_parse_error", "Invalid value for integer: \"x\""),
            ("limit=-1", "query_parse_error", "Invalid value for positive integer: \"-1\""),
            ("limit=", "query_parse_error", "Invalid value for integer: []"),
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
}
