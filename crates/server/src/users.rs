//! The database of users, `_users`: what CouchDB's own code there checks, hides and hashes.
//!
//! A user document holds a name, roles and a password hash. Only admins see and change all of them;
//! a user sees and changes their own, but not its roles.

use crate::auth::User;
use crate::auth::password::{PasswordHash, Prf};
use crate::auth::{StoredUser, UserStore};
use crate::config::Live;
use async_trait::async_trait;
use serde_json::Value;
use settee::adapter::{Adapter, Host};
use settee_core::options::GetOptions;
use settee_core::{Document, Error, ErrorKind, Result};
use std::sync::Arc;

/// What user documents' ids begin with.
const PREFIX: &str = "org.couchdb.user:";

/// Members that only the server writes, or that never reach the disk.
const PASSWORD_MEMBERS: &[&str] = &[
    "derived_key",
    "iterations",
    "password",
    "password_scheme",
    "password_sha",
    "preserve_salt",
    "pbkdf2_prf",
    "salt",
];

/// The database of users.
pub(crate) const DATABASE: &str = "_users";

/// Whether this is the id of some user's document.
pub(crate) fn is_doc_id(id: &str) -> bool {
    id.starts_with(PREFIX)
}

/// The id of a user's document.
pub(crate) fn doc_id(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The users of a place, as its `_users` database has them.
pub(crate) struct Users {
    host: Arc<dyn Host>,
}

impl Users {
    pub(crate) fn new(host: Arc<dyn Host>) -> Users {
        Users { host }
    }
}

#[async_trait]
impl UserStore for Users {
    async fn find(&self, name: &str) -> Result<Option<StoredUser>> {
        let users = self.host.database(DATABASE)?;
        match users.get(&doc_id(name), &GetOptions::default()).await {
            Ok(doc) => Ok(stored_user(name, &doc)),
            Err(error) if error.is_not_found() => Ok(None),
            // An id that cannot be is nobody's.
            Err(error) if error.status() < 500 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The user that a document describes; `None` if it describes none that could log in.
fn stored_user(name: &str, doc: &Document) -> Option<StoredUser> {
    let text = |member: &str| doc.get(member)?.as_str().map(str::to_owned);
    if text("type")? != "user" || text("name")? != name {
        return None;
    }
    let roles = doc.get("roles")?;
    let roles = roles.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let salt = text("salt")?;
    let password = match text("password_scheme").as_deref() {
        Some("pbkdf2") => {
            let rounds = u32::try_from(doc.get("iterations")?.as_u64()?).ok()?;
            let prf = text("pbkdf2_prf").map_or(Some(Prf::Sha1), |prf| Prf::parse(&prf))?;
            PasswordHash::from_parts(&text("derived_key")?, &salt, rounds, prf)?
        }
        Some("simple") | None => {
            PasswordHash::parse(&format!("-hashed-{},{salt}", text("password_sha")?))?
        }
        Some(_) => return None,
    };
    Some(StoredUser { password: Arc::new(password), roles })
}

/// Checks a document on its way into the database of users, and hashes the password in it.
///
/// # Errors
///
/// `Forbidden`, with CouchDB's words.
pub(crate) async fn before_write(
    db: &Arc<dyn Adapter>,
    live: &Arc<Live>,
    user: &User,
    is_admin: bool,
    doc: &mut Document,
) -> Result<()> {
    let id = doc.id.clone().unwrap_or_default();
    if id.starts_with("_design/") || id.starts_with("_local/") {
        return Ok(());
    }
    let old = match db.get(&id, &GetOptions::default()).await {
        Ok(old) => Some(old),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    check(user, is_admin, doc, old.as_ref())?;
    hash(live, doc).await
}

fn check(user: &User, is_admin: bool, doc: &Document, old: Option<&Document>) -> Result<()> {
    let text = |doc: &Document, member: &str| match doc.get(member) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let is_own = |doc: &Document| user.name.as_ref().is_some_and(|name| *name == text(doc, "name"));
    if doc.deleted {
        return match is_admin || old.is_some_and(is_own) {
            true => Ok(()),
            false => forbidden("Only admins may delete other user docs."),
        };
    }
    if text(doc, "type") != "user" {
        return forbidden("doc.type must be user");
    }
    let name = text(doc, "name");
    if name.is_empty() {
        return forbidden("doc.name is required");
    }
    let roles = match doc.get("roles") {
        None | Some(Value::Null) => return forbidden("doc.roles must exist"),
        Some(roles) => role_set(&roles)?,
    };
    if doc.id != Some(doc_id(&name)) {
        return forbidden("Doc ID must be of the form org.couchdb.user:name");
    }
    if old.is_some_and(|old| text(old, "name") != name) {
        return forbidden("Usernames can not be changed.");
    }
    if !is_admin {
        match old {
            Some(_) if !is_own(doc) => {
                return forbidden("You may only update your own user document.");
            }
            Some(old) => {
                let old = old.get("roles").map(|roles| role_set(&roles)).transpose()?;
                if old.unwrap_or_default() != roles {
                    return forbidden("Only _admin may edit roles");
                }
            }
            None if !roles.is_empty() => return forbidden("Only _admin may set roles"),
            None => {}
        }
    }
    if roles.iter().any(|role| role.starts_with('_') && role != "_metrics") {
        return forbidden("No system roles (starting with underscore) in users db.");
    }
    if name.starts_with('_') {
        return forbidden("Username may not start with underscore.");
    }
    if name.contains(':') {
        return forbidden("Character `:` is not allowed in usernames.");
    }
    Ok(())
}

/// Roles, sorted.
fn role_set(roles: &Value) -> Result<Vec<String>> {
    let Some(roles) = roles.as_array() else {
        return forbidden("doc.roles must be an array");
    };
    let roles: Option<Vec<&str>> = roles.iter().map(Value::as_str).collect();
    let Some(mut roles) = roles else {
        return forbidden("doc.roles can only contain strings");
    };
    roles.sort_unstable();
    Ok(roles.into_iter().map(str::to_owned).collect())
}

/// Replaces a password by its hash.
async fn hash(live: &Arc<Live>, doc: &mut Document) -> Result<()> {
    let password = match doc.get("password") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(password)) => password,
        Some(_) => return forbidden("Password value is invalid."),
    };
    let live = live.clone();
    let hashed = tokio::task::spawn_blocking(move || live.hash(&password));
    let hash = hashed.await.map_err(Error::internal)?;
    for member in PASSWORD_MEMBERS {
        doc.remove(member);
    }
    let Some((prf, rounds, key)) = hash.parts() else {
        return Err(Error::internal("new passwords are hashed with PBKDF2"));
    };
    doc.set("password_scheme", "pbkdf2")?;
    doc.set("pbkdf2_prf", prf)?;
    doc.set("salt", hash.salt())?;
    doc.set("iterations", rounds)?;
    doc.set("derived_key", key)
}

fn forbidden<T>(reason: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Forbidden, reason))
}
