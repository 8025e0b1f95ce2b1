//! The one error type, and the one table that maps its kinds to CouchDB's status and error name.

use std::borrow::Cow;
use std::fmt;

/// What went wrong, in terms of what the caller can do about it.
///
/// [`ErrorKind::status`] and [`ErrorKind::name`] give CouchDB's HTTP status and `error` member; the
/// server writes them and the remote client reads them back with [`ErrorKind::from_status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request makes no sense as it stands: bad JSON, bad revision, bad option.
    BadRequest,
    /// A query parameter has a value that it cannot have.
    QueryParse,
    /// The name is not a legal database name.
    IllegalDatabaseName,
    /// The database name has more than 238 characters.
    DatabaseNameTooLong,
    /// The document id is not legal.
    IllegalDocId,
    /// The document has an unknown or malformed member that begins with `_`.
    DocValidation,
    /// Nobody is logged in, or name or password is wrong.
    Unauthorized,
    /// Who is logged in may not do this.
    Forbidden,
    /// There is no such database, document, revision or attachment.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The reply cannot be given in a form that the caller accepts.
    NotAcceptable,
    /// The document has changed since the revision this edit was based on.
    Conflict,
    /// What used to be here has been removed for good.
    Gone,
    /// The database exists already.
    FileExists,
    /// A stub names an attachment that the document does not have.
    MissingStub,
    /// The document is larger than the limit.
    DocumentTooLarge,
    /// The request is larger than the limit.
    TooLarge,
    /// The attachment is larger than the limit.
    AttachmentTooLarge,
    /// The request line is longer than the limit.
    TooLong,
    /// The request body is of a type that this path does not take.
    BadContentType,
    /// The range lies outside of the attachment.
    RangeNotSatisfiable,
    /// Bulk documents with a condition that failed.
    ExpectationFailed,
    /// The other side took too long.
    Timeout,
    /// This side cannot serve now; later it may.
    ServiceUnavailable,
    /// The disk is full: writes fail, reads go on, and freeing space heals it.
    InsufficientStorage,
    /// The feature is not implemented here.
    NotImplemented,
    /// The other side could not be reached, or the connection was lost. A read can be tried again; of
    /// a write it may be unknown whether it was done.
    Unreachable,
    /// The other side answered with something that its protocol does not know.
    BadReply,
    /// The store or the network failed, or stored bytes are not what they should be.
    Internal,
}

/// Kind, status, name. The first row with a status is the one [`ErrorKind::from_status`] falls back
/// to when the name is unknown.
const TABLE: &[(ErrorKind, u16, &str)] = &[
    (ErrorKind::BadRequest, 400, "bad_request"),
    (ErrorKind::QueryParse, 400, "query_parse_error"),
    (ErrorKind::IllegalDatabaseName, 400, "illegal_database_name"),
    (ErrorKind::DatabaseNameTooLong, 400, "database_name_too_long"),
    (ErrorKind::IllegalDocId, 400, "illegal_docid"),
    (ErrorKind::DocValidation, 400, "doc_validation"),
    (ErrorKind::Unauthorized, 401, "unauthorized"),
    (ErrorKind::Forbidden, 403, "forbidden"),
    (ErrorKind::NotFound, 404, "not_found"),
    (ErrorKind::MethodNotAllowed, 405, "method_not_allowed"),
    (ErrorKind::NotAcceptable, 406, "not_acceptable"),
    (ErrorKind::Conflict, 409, "conflict"),
    (ErrorKind::Gone, 410, "gone"),
    (ErrorKind::FileExists, 412, "file_exists"),
    (ErrorKind::MissingStub, 412, "missing_stub"),
    (ErrorKind::TooLarge, 413, "too_large"),
    (ErrorKind::DocumentTooLarge, 413, "document_too_large"),
    (ErrorKind::AttachmentTooLarge, 413, "attachment_too_large"),
    (ErrorKind::TooLong, 414, "too_long"),
    (ErrorKind::BadContentType, 415, "bad_content_type"),
    (ErrorKind::RangeNotSatisfiable, 416, "requested_range_not_satisfiable"),
    (ErrorKind::ExpectationFailed, 417, "expectation_failed"),
    (ErrorKind::Internal, 500, "unknown_error"),
    (ErrorKind::Timeout, 500, "timeout"),
    (ErrorKind::NotImplemented, 501, "not_implemented"),
    (ErrorKind::Unreachable, 502, "unreachable"),
    (ErrorKind::BadReply, 502, "bad_reply"),
    (ErrorKind::ServiceUnavailable, 503, "service_unavailable"),
    (ErrorKind::InsufficientStorage, 507, "insufficient_storage"),
];

impl ErrorKind {
    fn row(self) -> &'static (ErrorKind, u16, &'static str) {
        const INTERNAL: (ErrorKind, u16, &str) = (ErrorKind::Internal, 500, "unknown_error");
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&INTERNAL)
    }

    /// CouchDB's HTTP status for this kind.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// CouchDB's `error` member for this kind.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The kind a server meant by a status and an `error` member.
    pub fn from_status(status: u16, name: &str) -> ErrorKind {
        TABLE
            .iter()
            .find(|row| row.1 == status && row.2 == name)
            .or_else(|| TABLE.iter().find(|row| row.1 == status))
            .map_or_else(
                || match status {
                    408 | 504 => ErrorKind::Timeout,
                    429 => ErrorKind::ServiceUnavailable,
                    400..500 => ErrorKind::BadRequest,
                    _ => ErrorKind::Internal,
                },
                |row| row.0,
            )
    }

    /// The kind that an `error` member without a status means: one of a row in a reply.
    pub fn from_name(name: &str) -> ErrorKind {
        TABLE.iter().find(|row| row.2 == name).map_or(ErrorKind::Internal, |row| row.0)
    }
}

/// An error: its [kind](Error::kind) says what to do, its [reason](Error::reason) what happened.
///
/// ```
/// use settee_core::{Error, ErrorKind};
///
/// let error = Error::conflict();
/// assert_eq!(error.kind(), ErrorKind::Conflict);
/// assert_eq!(error.status(), 409);
/// assert_eq!(error.to_string(), "conflict: Document update conflict.");
/// ```
pub struct Error {
    kind: ErrorKind,
    /// Overrides the kind's `error` member, as functions of design documents may.
    name: Option<Cow<'static, str>>,
    reason: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with the reason to show.
    pub fn new(kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, name: None, reason: reason.into(), source: None }
    }

    /// The same error with another `error` member than the kind's own.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Cow<'static, str>>) -> Error {
        self.name = Some(name.into());
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.source = Some(source.into());
        self
    }

    /// 400 `bad_request`.
    pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::BadRequest, reason)
    }

    /// 400 `query_parse_error`.
    pub fn query_parse(reason: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::QueryParse, reason)
    }

    /// 404 `not_found`, `missing`: there is no such document or revision.
    pub fn missing() -> Error {
        Error::new(ErrorKind::NotFound, "missing")
    }

    /// 404 `not_found`, `deleted`: there was such a document.
    pub fn deleted() -> Error {
        Error::new(ErrorKind::NotFound, "deleted")
    }

    /// 404 `not_found`, `Database does not exist.`
    pub fn no_database() -> Error {
        Error::new(ErrorKind::NotFound, "Database does not exist.")
    }

    /// 409 `conflict`, `Document update conflict.`
    pub fn conflict() -> Error {
        Error::new(ErrorKind::Conflict, "Document update conflict.")
    }

    /// 409 `not_found`, `missing_rev`: what is to be changed is not there any more, or never was.
    pub fn missing_rev() -> Error {
        Error::new(ErrorKind::Conflict, "missing_rev").with_name("not_found")
    }

    /// 500: a failure that is not the caller's.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let source = source.into();
        Error::new(ErrorKind::Internal, source.to_string()).with_source(source)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// CouchDB's HTTP status.
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// CouchDB's `error` member (PouchDB's `name`).
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind.name())
    }

    /// CouchDB's `reason` member (PouchDB's `message`).
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether this is a 404.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether this is a 409.
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.reason)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("status", &self.status())
            .field("error", &self.name())
            .field("reason", &self.reason)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_status_and_name() {
        for &(kind, status, name) in TABLE {
            assert_eq!((kind.status(), kind.name()), (status, name));
            assert_eq!(ErrorKind::from_status(status, name), kind);
        }
        assert_eq!(ErrorKind::from_status(404, "no_db_file"), ErrorKind::NotFound);
        assert_eq!(ErrorKind::from_status(599, "odd"), ErrorKind::Internal);
        assert_eq!(ErrorKind::from_status(429, "too_many_requests").status(), 503);
        assert_eq!(ErrorKind::from_status(504, "").status(), 500);
    }
}
