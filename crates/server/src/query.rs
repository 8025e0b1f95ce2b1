//! Query parameters as typed options, with CouchDB's texts for those that make no sense.

mod feeds;
mod ranges;

pub(crate) use feeds::{ChangesQuery, Feed, UpdatesQuery};
pub(crate) use ranges::{AllDocsQuery, all_dbs};

use crate::body::parse_json;
use serde_json::Value;
use settee_core::options::{GetOptions, OpenRevs};
use settee_core::parameters::Param;
use settee_core::{Error, Result, Rev};

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
