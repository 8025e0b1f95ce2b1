//! The name of a replication: the same source, target and choice of documents always have the same,
//! so that a replication finds the checkpoint of the one before it.
//!
//! The scheme is version 4 of CouchDB's: the MD5 of an Erlang term in external format. Checkpoints
//! that a CouchDB left behind are found by a place that took over its UUID.

use super::ReplicateOptions;
use crate::adapter::{Adapter, Location};
use crate::env::hex;
use md5::{Digest as _, Md5};
use serde_json::Value;
use settee_core::options::{Filter, GetOptions};
use settee_core::wire::Seq;
use settee_core::{Error, ErrorKind, Result};

/// The version of the scheme, as checkpoints name it.
pub(crate) const VERSION: u64 = 4;

/// The name of a replication of two databases. A filter function is part of it, so that is read.
pub(crate) async fn replication_id(
    source: &dyn Adapter,
    target: &dyn Adapter,
    options: &ReplicateOptions,
) -> Result<String> {
    let code = match &options.filter {
        Filter::Function(function) if !function.name.starts_with('_') => {
            Some(code_of(source, &function.name).await?)
        }
        _ => None,
    };
    let (source, target) = (source.location(), target.location());
    let here = match (&target, &source) {
        (Location::Local { place, .. }, _) | (_, Location::Local { place, .. }) => place,
        _ => "",
    };
    let identity = Identity {
        place: options.place.as_deref().unwrap_or(here),
        source: &source,
        target: &target,
        filter: &options.filter,
        code: code.as_deref(),
        winning_revs_only: options.winning_revs_only,
        since: options.since.as_ref(),
    };
    Ok(identity.base_id())
}

/// The source of a filter function: with other code it is another replication.
async fn code_of(source: &dyn Adapter, name: &str) -> Result<String> {
    let Some((ddoc, function)) = name.split_once('/') else {
        let reason = "Invalid filter. Must match `ddocname/filtername`.";
        return Err(Error::bad_request(reason));
    };
    let doc = source.get(&format!("_design/{ddoc}"), &GetOptions::default()).await;
    let doc = doc.map_err(|error| {
        let why = format!("{}: {}", error.name(), error.reason());
        let reason = format!("Couldn't open document `_design/{ddoc}` from the source: {why}");
        Error::new(error.kind(), reason)
    })?;
    let filters = doc.get("filters");
    match filters.as_ref().and_then(|filters| filters.get(function)?.as_str()) {
        Some(code) => Ok(trimmed(code)),
        None => {
            let reason = format!("There is no filter `{function}` in `_design/{ddoc}`.");
            Err(Error::new(ErrorKind::NotFound, reason))
        }
    }
}

/// Code of one line without the spaces around it, as CouchDB has it in its ids.
fn trimmed(code: &str) -> String {
    match code.split_once('\n') {
        None => code.trim_matches(' ').to_owned(),
        Some((line, "")) => format!("{}\n", line.trim_matches(' ')),
        Some(_) => code.to_owned(),
    }
}

/// What makes a replication the same as another.
pub(crate) struct Identity<'a> {
    /// The id of the place that runs it.
    pub(crate) place: &'a str,
    pub(crate) source: &'a Location,
    pub(crate) target: &'a Location,
    pub(crate) filter: &'a Filter,
    /// The source of the filter, if that is a function.
    pub(crate) code: Option<&'a str>,
    pub(crate) winning_revs_only: bool,
    pub(crate) since: Option<&'a Seq>,
}

impl Identity<'_> {
    /// 32 hex digits; the checkpoint is `_local/` and these.
    pub(crate) fn base_id(&self) -> String {
        let mut parts =
            vec![Term::Binary(self.place.to_owned()), endpoint(self.source), endpoint(self.target)];
        parts.extend(filter(self.filter, self.code));
        if self.winning_revs_only {
            parts.push(Term::Binary("winning_revs_only".to_owned()));
        }
        match self.since {
            None => {}
            Some(Seq::Number(number)) => parts.push(Term::Integer(*number)),
            Some(Seq::Opaque(text)) => parts.push(Term::Binary(text.clone())),
        }
        let mut bytes = vec![131];
        Term::List(parts).write(&mut bytes);
        hex(&Md5::digest(bytes))
    }
}

fn endpoint(location: &Location) -> Term {
    match location {
        Location::Local { place, name } => Term::Tuple(vec![
            Term::Atom("local"),
            Term::Binary(place.clone()),
            Term::Binary(name.clone()),
        ]),
        Location::Remote { url, user, headers } => {
            let user = user.as_ref();
            let header = |(name, value): &(String, String)| {
                Term::Tuple(vec![Term::String(name.clone()), Term::String(value.clone())])
            };
            let mut parts = vec![
                Term::Atom("remote"),
                user.map_or(Term::Atom("undefined"), |user| Term::String(user.clone())),
            ];
            match split_url(url) {
                Some((host, port, path)) => parts.extend([
                    Term::String(host.to_owned()),
                    port.map_or(Term::Atom("default"), Term::Integer),
                    Term::String(path.to_owned()),
                ]),
                None => parts.extend([
                    Term::String(url.clone()),
                    Term::Atom("undefined"),
                    Term::Atom("undefined"),
                ]),
            }
            parts.push(Term::List(headers.iter().map(header).collect()));
            // Where the credentials of OAuth once were.
            parts.push(Term::Atom("undefined"));
            Term::Tuple(parts)
        }
    }
}

/// Host, port unless it is the scheme's or CouchDB's own, and path.
fn split_url(url: &str) -> Option<(&str, Option<u64>, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    let default = |port: &u64| match scheme {
        "https" => *port == 443,
        _ => *port == 80 || *port == 5984,
    };
    Some((host, port.filter(|port| !default(port)), path))
}

fn filter(filter: &Filter, code: Option<&str>) -> Vec<Term> {
    match filter {
        Filter::None => Vec::new(),
        Filter::DocIds(ids) => {
            let mut ids: Vec<_> = ids.iter().cloned().collect();
            ids.sort();
            vec![Term::List(ids.into_iter().map(Term::Binary).collect())]
        }
        Filter::Design => {
            vec![Term::Binary("_design".to_owned()), Term::Tuple(vec![Term::List(Vec::new())])]
        }
        Filter::Selector(selector) => vec![json(&selector.to_value(), true)],
        Filter::Function(function) => vec![
            Term::Binary(code.unwrap_or(&function.name).to_owned()),
            json(&Value::Object(function.query.clone()), false),
        ],
    }
}

/// JSON as Erlang has it, members as they are or in the order of their names.
fn json(value: &Value, sorted: bool) -> Term {
    match value {
        Value::Null => Term::Atom("null"),
        Value::Bool(true) => Term::Atom("true"),
        Value::Bool(false) => Term::Atom("false"),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(number), _) => Term::Integer(number),
            (None, float) => Term::Float(float.unwrap_or(f64::MAX)),
        },
        Value::String(text) => Term::Binary(text.clone()),
        Value::Array(elements) => {
            Term::List(elements.iter().map(|element| json(element, sorted)).collect())
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if sorted {
                members.sort_by_key(|(name, _)| name.as_str());
            }
            let member = |(name, value): (&String, &Value)| {
                Term::Tuple(vec![Term::Binary(name.clone()), json(value, sorted)])
            };
            Term::Tuple(vec![Term::List(members.into_iter().map(member).collect())])
        }
    }
}

/// An Erlang term, as far as ids need it.
enum Term {
    Atom(&'static str),
    Binary(String),
    /// A list of characters.
    String(String),
    Integer(u64),
    Float(f64),
    Tuple(Vec<Term>),
    List(Vec<Term>),
}

impl Term {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Term::Atom(name) => {
                out.extend_from_slice(&[100, 0, name.len() as u8]);
                out.extend_from_slice(name.as_bytes());
            }
            Term::Binary(text) => {
                out.push(109);
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Term::String(text) if text.is_empty() => out.push(106),
            Term::String(text) => {
                let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
                out.push(107);
                out.extend_from_slice(&(text.len() as u16).to_be_bytes());
                out.extend_from_slice(text);
            }
            Term::Integer(number) => {
                if let Ok(small) = u8::try_from(*number) {
                    out.extend_from_slice(&[97, small]);
                } else if let Ok(medium) = i32::try_from(*number) {
                    out.push(98);
                    out.extend_from_slice(&medium.to_be_bytes());
                } else {
                    let bytes = number.to_le_bytes();
                    let len = 8 - number.leading_zeros() as usize / 8;
                    out.extend_from_slice(&[110, len as u8, 0]);
                    out.extend_from_slice(&bytes[..len]);
                }
            }
            Term::Float(number) => {
                out.push(70);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Term::Tuple(parts) => {
                out.extend_from_slice(&[104, parts.len() as u8]);
                parts.iter().for_each(|part| part.write(out));
            }
            Term::List(parts) => {
                if !parts.is_empty() {
                    out.push(108);
                    out.extend_from_slice(&(parts.len() as u32).to_be_bytes());
                    parts.iter().for_each(|part| part.write(out));
                }
                out.push(106);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn remote(url: &str, user: Option<&str>) -> Location {
        Location::Remote { url: url.into(), user: user.map(str::to_owned), headers: Vec::new() }
    }

    fn id(source: &Location, target: &Location, filter: &Filter) -> String {
        let identity = Identity {
            place: "place",
            source,
            target,
            filter,
            code: None,
            winning_revs_only: false,
            since: None,
        };
        identity.base_id()
    }

    #[test]
    fn terms_are_those_of_erlang() {
        // term_to_binary([<<"a">>, {remote, undefined, "h", default, "/", [], undefined}, 300])
        let term = Term::List(vec![
            Term::Binary("a".into()),
            endpoint(&remote("http://h:5984", None)),
            Term::Integer(300),
        ]);
        let mut bytes = Vec::new();
        term.write(&mut bytes);
        let mut expected = vec![108, 0, 0, 0, 3, 109, 0, 0, 0, 1, b'a', 104, 7, 100, 0, 6];
        expected.extend_from_slice(
            b"remoted\0\x09undefinedk\0\x01hd\0\x07defaultk\0\x01/jd\0\x09undefined",
        );
        expected.extend_from_slice(&[98, 0, 0, 1, 44, 106]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_does_not_matter_does_not_change_the_id() {
        let target = Location::Local { place: "p".into(), name: "t".into() };
        let base = id(&remote("http://h/db/", Some("u")), &target, &Filter::None);
        for same in
            ["https://h/db/", "http://h:5984/db/", "https://h:443/db/", "http://u:p@h:80/db/"]
        {
            assert_eq!(id(&remote(same, Some("u")), &target, &Filter::None), base, "{same}");
        }
        for other in ["http://h:1/db/", "http://h/other/", "http://g/db/"] {
            assert_ne!(id(&remote(other, Some("u")), &target, &Filter::None), base, "{other}");
        }
        assert_ne!(id(&remote("http://h/db/", None), &target, &Filter::None), base);
    }

    #[test]
    fn code_is_trimmed_as_couchdb_does() {
        assert_eq!(trimmed("  function(doc) { return true; } "), "function(doc) { return true; }");
        assert_eq!(trimmed(" f \n"), "f\n");
        assert_eq!(trimmed(" f {\n} "), " f {\n} ");
    }

    #[test]
    fn the_order_of_document_ids_does_not_matter() {
        let place = |name: &str| Location::Local { place: "p".into(), name: name.into() };
        let ids = |ids: &[&str]| {
            Filter::DocIds(Arc::new(ids.iter().map(|id| (*id).to_owned()).collect()))
        };
        let (source, target) = (place("s"), place("t"));
        let of = |filter: &Filter| id(&source, &target, filter);
        assert_eq!(of(&ids(&["a", "b", "c"])), of(&ids(&["c", "a", "b"])));
        assert_ne!(of(&ids(&["a", "b"])), of(&ids(&["a"])));
        assert_ne!(of(&ids(&["a"])), of(&Filter::None));
    }
}
