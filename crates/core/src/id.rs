//! Names of databases and ids of documents: what is legal, and what they say.

use crate::error::{Error, ErrorKind, Result};

/// The longest database name, in characters.
pub const MAX_DATABASE_NAME: usize = 238;

/// The longest document id that is taken, in bytes.
pub const MAX_DOC_ID: usize = 8192;

/// Names that begin with `_` and are legal all the same.
pub const SYSTEM_DATABASES: &[&str] = &["_users", "_replicator", "_global_changes"];

/// Checks a database name by CouchDB's rule: a lowercase letter, then lowercase letters, digits and
/// `_$()+-/`; or one of the [system databases](SYSTEM_DATABASES).
///
/// # Errors
///
/// `IllegalDatabaseName` or `DatabaseNameTooLong`.
pub fn check_database_name(name: &str) -> Result<()> {
    if name.len() > MAX_DATABASE_NAME {
        return Err(Error::new(
            ErrorKind::DatabaseNameTooLong,
            format!("At least one path segment of `{name}` is too long."),
        ));
    }
    let mut bytes = name.bytes();
    let legal = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'$' | b'(' | b')' | b'+' | b'-' | b'/'));
    if legal || SYSTEM_DATABASES.contains(&name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::IllegalDatabaseName,
        format!(
            "Name: '{}'. Only lowercase characters (a-z), digits (0-9), and any of the characters \
             _, $, (, ), +, -, and / are allowed. Must begin with a letter.",
            name.escape_debug()
        ),
    ))
}

/// What kind of document an id belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocKind {
    /// Any other.
    Normal,
    /// `_design/…`
    Design,
    /// `_local/…`
    Local,
}

/// Checks a document id, and says what kind of document it belongs to.
///
/// # Errors
///
/// `IllegalDocId`: empty, longer than [`MAX_DOC_ID`], or beginning with `_` without being a design
/// or local document's.
pub fn check_doc_id(id: &str) -> Result<DocKind> {
    let illegal = |reason| Err(Error::new(ErrorKind::IllegalDocId, reason));
    match id {
        "" => illegal("Document id must not be empty"),
        _ if id.len() > MAX_DOC_ID => illegal("Document id is too long"),
        "_design/" => illegal("Illegal document id `_design/`"),
        "_local/" => illegal("Illegal document id `_local/`"),
        _ if id.starts_with("_design/") => Ok(DocKind::Design),
        _ if id.starts_with("_local/") => Ok(DocKind::Local),
        _ if id.starts_with('_') => {
            illegal("Only reserved document ids may start with underscore.")
        }
        _ => Ok(DocKind::Normal),
    }
}

/// Checks the name of an attachment that is written by itself.
///
/// # Errors
///
/// `BadRequest` if it is empty or begins with `_`.
pub fn check_attachment_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::bad_request("Attachment name must not be empty"));
    }
    if name.starts_with('_') {
        let reason = format!("Attachment name '{name}' starts with prohibited character '_'");
        return Err(Error::bad_request(reason));
    }
    Ok(())
}

/// The name of a design document that may be called by its id: what follows `_design/`, if that is
/// there.
pub fn design_name(id: &str) -> &str {
    id.strip_prefix("_design/").unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_follow_the_rule() {
        for name in ["a", "db", "a0_$()+-/z", "_users", "_replicator", "_global_changes"] {
            check_database_name(name).unwrap();
        }
        for name in ["", "A", "0", "-a", "aB", "a.b", "a b", "_other", "a\u{e9}", "../a", "a\0"] {
            let error = check_database_name(name).unwrap_err();
            assert_eq!(error.name(), "illegal_database_name", "{name:?}");
        }
        check_database_name(&"a".repeat(MAX_DATABASE_NAME)).unwrap();
        let error = check_database_name(&"a".repeat(MAX_DATABASE_NAME + 1)).unwrap_err();
        assert_eq!(error.name(), "database_name_too_long");
    }

    #[test]
    fn document_ids_follow_the_rule() {
        for (id, kind) in [
            ("x", DocKind::Normal),
            ("a/b _c", DocKind::Normal),
            ("\u{1f980}", DocKind::Normal),
            ("_design/x", DocKind::Design),
            ("_local/x", DocKind::Local),
        ] {
            assert_eq!(check_doc_id(id).unwrap(), kind);
        }
        for (id, reason) in [
            ("", "Document id must not be empty"),
            ("_design/", "Illegal document id `_design/`"),
            ("_local/", "Illegal document id `_local/`"),
            ("_x", "Only reserved document ids may start with underscore."),
            ("_designer", "Only reserved document ids may start with underscore."),
        ] {
            let error = check_doc_id(id).unwrap_err();
            assert_eq!((error.name(), error.reason()), ("illegal_docid", reason));
        }
        assert!(check_doc_id(&"x".repeat(MAX_DOC_ID)).is_ok());
        assert!(check_doc_id(&"x".repeat(MAX_DOC_ID + 1)).is_err());
    }
}
