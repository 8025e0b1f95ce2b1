//! Where a function is.

use super::{Request, Stub};
use settee_core::{Error, ErrorKind, Result};

/// What functions of design documents answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionKind {
    /// `_show`: a document as anything.
    Show,
    /// `_list`: the rows of a view as anything.
    List,
    /// `_update`: a document made from a request.
    Update,
    /// `_rewrite`: another path for what the database can do.
    Rewrite,
}

impl FunctionKind {
    /// As the paths of URLs have it.
    pub fn segment(self) -> &'static str {
        match self {
            FunctionKind::Show => "_show",
            FunctionKind::List => "_list",
            FunctionKind::Update => "_update",
            FunctionKind::Rewrite => "_rewrite",
        }
    }
}

/// Where a function is, and what it is called for: `/{db}/_design/{ddoc}/_show/{rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionPath {
    /// Which of the design document's functions.
    pub kind: FunctionKind,
    /// The design document, without `_design/`.
    pub ddoc: String,
    /// The function's name and what follows it, decoded; of rewrites, the path to be rewritten.
    pub rest: String,
}

impl FunctionPath {
    /// Reads `ddoc/function/…`, or the same as a URL has it, `_design/ddoc/_show/function/…`.
    ///
    /// ```
    /// use settee::design::{FunctionKind, FunctionPath};
    ///
    /// let path = FunctionPath::parse(FunctionKind::Show, "people/hello/ada")?;
    /// assert_eq!((path.ddoc.as_str(), path.rest.as_str()), ("people", "hello/ada"));
    /// let literal = FunctionPath::parse(FunctionKind::Show, "_design/people/_show/hello/ada")?;
    /// assert_eq!(literal, path);
    /// # Ok::<(), settee::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `NotFound` if it names no design document.
    pub fn parse(kind: FunctionKind, path: &str) -> Result<FunctionPath> {
        let (path, literal) = match path.trim_start_matches('/').strip_prefix("_design/") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let (ddoc, rest) = path.split_once('/').unwrap_or((path, ""));
        let (segment, below) = rest.split_once('/').unwrap_or((rest, ""));
        let rest = if literal && segment == kind.segment() { below } else { rest };
        if ddoc.is_empty() {
            let name = format!("{}_error", &kind.segment()[1..]);
            return Err(Error::new(ErrorKind::NotFound, "Invalid path.").with_name(name));
        }
        // As in PouchDB, a function may have the name of its design document.
        let same = rest.is_empty() && kind != FunctionKind::Rewrite;
        let rest = if same { ddoc } else { rest };
        Ok(FunctionPath { kind, ddoc: ddoc.to_owned(), rest: rest.to_owned() })
    }

    /// The function's name, and what follows it.
    pub fn name_and_rest(&self) -> (&str, Option<&str>) {
        let (name, rest) = self.rest.split_once('/').unwrap_or((&self.rest, ""));
        (name, Some(rest).filter(|rest| !rest.is_empty()))
    }

    /// The request that a call without a server makes of a stub.
    pub(crate) fn request(&self, db: &str, stub: &Stub) -> Result<Request> {
        let segments = [db, "_design", &self.ddoc, self.kind.segment()].into_iter();
        let rest = self.rest.split('/').filter(|_| !self.rest.is_empty());
        let method = match self.kind {
            FunctionKind::Update => "POST",
            _ => "GET",
        };
        stub.request(segments.chain(rest).map(str::to_owned).collect(), method)
    }
}
