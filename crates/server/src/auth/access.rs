//! Rights as types. A handler takes one of these, or it does not fit into the route table; and the
//! ones that open a database are the only way to one.

use crate::auth::{METRICS_ROLE, User};
use crate::call::Call;
use crate::{replication, users};
use axum::http::Method;
use settee::adapter::{Adapter, ByteStream, Parts};
use settee::design::{UserCtx, Validating};
use settee_core::options::{AttachmentHead, WriteOptions};
use settee_core::wire::{DocError, Principals, Saved, Security, WriteResult};
use settee_core::{Document, Error, ErrorKind, Result, Rev};
use std::future::Future;
use std::sync::Arc;

/// What a handler needs before it runs.
pub(crate) trait Access: Send + Sized + 'static {
    /// The same, as a value, for whoever walks the route table.
    const LEVEL: Level;

    /// Gives the right, or says why not.
    fn grant(call: &Arc<Call>) -> impl Future<Output = Result<Self>> + Send;
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Anyone, and where everyone must log in, everyone.
    Anyone,
    /// Server admins and users with the role `_metrics`.
    Metrics,
    /// Server admins, unless the list of databases is public.
    DatabaseList,
    /// Members of the database.
    Member,
    /// Admins of the database.
    DatabaseAdmin,
    /// Server admins.
    ServerAdmin,
}

/// Anyone may.
pub(crate) struct Anyone;

impl Access for Anyone {
    const LEVEL: Level = Level::Anyone;

    async fn grant(_: &Arc<Call>) -> Result<Anyone> {
        Ok(Anyone)
    }
}

/// Server admins may.
pub(crate) struct ServerAdmin;

impl Access for ServerAdmin {
    const LEVEL: Level = Level::ServerAdmin;

    async fn grant(call: &Arc<Call>) -> Result<ServerAdmin> {
        match call.user().is_server_admin() {
            true => Ok(ServerAdmin),
            false => Err(unauthorized("You are not a server admin.")),
        }
    }
}

/// Server admins and who watches the server may.
pub(crate) struct Metrics;

impl Access for Metrics {
    const LEVEL: Level = Level::Metrics;

    async fn grant(call: &Arc<Call>) -> Result<Metrics> {
        let user = call.user();
        match user.is_server_admin() || user.has_role(METRICS_ROLE) {
            true => Ok(Metrics),
            false => Err(unauthorized("You are not a server admin or read-only metrics user")),
        }
    }
}

/// Who may see which databases there are.
pub(crate) struct DatabaseList;

impl Access for DatabaseList {
    const LEVEL: Level = Level::DatabaseList;

    async fn grant(call: &Arc<Call>) -> Result<DatabaseList> {
        match call.user().is_server_admin() || !call.live.admin_only_all_dbs {
            true => Ok(DatabaseList),
            false => Err(unauthorized("You are not a server admin.")),
        }
    }
}

/// Members of the database in the path may.
pub(crate) struct Member {
    call: Arc<Call>,
    adapter: Arc<dyn Adapter>,
    /// Whether they may also change design documents.
    is_admin: bool,
}

impl Access for Member {
    const LEVEL: Level = Level::Member;

    async fn grant(call: &Arc<Call>) -> Result<Member> {
        let adapter = open(call)?;
        let user = call.user();
        let is_admin = match user.is_server_admin() {
            true => true,
            false => {
                let security = adapter.security().await?;
                let is_admin = is_database_admin(user, &security);
                let may_enter = match call.param("db") {
                    // Its documents hold passwords, and the server does what they say.
                    replication::DATABASE => false,
                    users::DATABASE => is_admin || enters_users(call, &security)?,
                    _ => is_admin || is_member(user, &security),
                };
                if !may_enter {
                    return Err(match user.name {
                        None => unauthorized("You are not authorized to access this db."),
                        Some(_) => forbidden("You are not allowed to access this db."),
                    });
                }
                is_admin
            }
        };
        // The database of users has its rules built in; of others, design documents may have some.
        let adapter = match call.param("db") {
            users::DATABASE => adapter,
            db => {
                let (name, roles) = (user.name.clone(), user.roles.clone());
                let user = UserCtx { db: db.to_owned(), name, roles };
                Arc::new(Validating::new(adapter, call.app.validator.clone(), user))
            }
        };
        Ok(Member { call: call.clone(), adapter, is_admin })
    }
}

impl Member {
    /// The database, to read. Documents are written through this type's own methods, which know
    /// who may write which.
    pub(crate) fn db(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// [`Adapter::put`].
    pub(crate) async fn put(
        &self,
        mut doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved> {
        self.check(&mut doc).await?;
        let saved = self.adapter.put(doc, parts, options).await?;
        self.call.app.stats.document_writes(1);
        Ok(saved)
    }

    /// [`Adapter::bulk_docs`]. Documents that may not be written fail one by one.
    pub(crate) async fn bulk_docs(
        &self,
        mut docs: Vec<Document>,
        options: &WriteOptions,
    ) -> Result<Vec<WriteResult>> {
        let mut refused = Vec::new();
        if !self.is_admin || self.is_users() || self.is_replicator() {
            let all = std::mem::take(&mut docs);
            for (index, mut doc) in all.into_iter().enumerate() {
                match self.check(&mut doc).await {
                    Ok(()) => docs.push(doc),
                    Err(error) => {
                        let id = doc.id.unwrap_or_default();
                        refused.push((index, DocError { id, rev: doc.rev, error }));
                    }
                }
            }
        }
        let mut results = match docs.is_empty() && !refused.is_empty() {
            true => Vec::new(),
            // Of no documents too: the database may not be there.
            false => self.adapter.bulk_docs(docs, options).await?,
        };
        let written = results.iter().filter(|result| result.is_ok()).count();
        self.call.app.stats.document_writes(written as u64);
        // In ascending order, so that each lands where its document was.
        for (index, error) in refused {
            results.insert(index.min(results.len()), Err(error));
        }
        Ok(results)
    }

    /// [`Adapter::put_attachment`].
    pub(crate) async fn put_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
        head: AttachmentHead,
        body: ByteStream,
    ) -> Result<Saved> {
        self.check_id(id)?;
        let saved = self.adapter.put_attachment(id, name, rev, head, body).await?;
        self.call.app.stats.document_writes(1);
        Ok(saved)
    }

    /// [`Adapter::delete_attachment`].
    pub(crate) async fn delete_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
    ) -> Result<Saved> {
        self.check_id(id)?;
        let saved = self.adapter.delete_attachment(id, name, rev).await?;
        self.call.app.stats.document_writes(1);
        Ok(saved)
    }

    /// Whether this is the database of users.
    fn is_users(&self) -> bool {
        self.adapter.name() == users::DATABASE
    }

    /// Whether this is the database of replications.
    fn is_replicator(&self) -> bool {
        self.adapter.name() == replication::DATABASE
    }

    /// Whether the document may be written; in the database of users, what of it.
    async fn check(&self, doc: &mut Document) -> Result<()> {
        self.check_id(doc.id.as_deref().unwrap_or_default())?;
        if self.is_replicator() {
            return replication::before_write(doc);
        }
        if !self.is_users() {
            return Ok(());
        }
        let (live, user) = (&self.call.live, self.call.user());
        users::before_write(&self.adapter, live, user, self.is_admin, doc).await
    }

    /// Design documents hold code, so only admins write them.
    fn check_id(&self, id: &str) -> Result<()> {
        match self.is_admin || !id.starts_with("_design/") {
            true => Ok(()),
            false => Err(not_an_admin(self.call.user())),
        }
    }
}

/// Admins of the database in the path may.
pub(crate) struct DatabaseAdmin {
    adapter: Arc<dyn Adapter>,
}

impl Access for DatabaseAdmin {
    const LEVEL: Level = Level::DatabaseAdmin;

    async fn grant(call: &Arc<Call>) -> Result<DatabaseAdmin> {
        let adapter = open(call)?;
        let user = call.user();
        match user.is_server_admin() || is_database_admin(user, &adapter.security().await?) {
            true => Ok(DatabaseAdmin { adapter }),
            false => Err(not_an_admin(user)),
        }
    }
}

impl DatabaseAdmin {
    /// The database.
    pub(crate) fn db(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }
}

/// Admins of the database in the path may, and who may not should log in as one: CouchDB decides that
/// before it looks at the database, and in words of its own.
pub(crate) struct Upkeep(DatabaseAdmin);

impl Access for Upkeep {
    const LEVEL: Level = Level::DatabaseAdmin;

    async fn grant(call: &Arc<Call>) -> Result<Upkeep> {
        match DatabaseAdmin::grant(call).await {
            Ok(admin) => Ok(Upkeep(admin)),
            Err(error)
                if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Forbidden) =>
            {
                Err(unauthorized("You are not a server or db admin."))
            }
            Err(error) => Err(error),
        }
    }
}

impl Upkeep {
    /// The database.
    pub(crate) fn db(&self) -> &Arc<dyn Adapter> {
        self.0.db()
    }
}

/// Server admins may, with the database in the path.
pub(crate) struct DatabaseOwner {
    adapter: Arc<dyn Adapter>,
}

impl Access for DatabaseOwner {
    const LEVEL: Level = Level::ServerAdmin;

    async fn grant(call: &Arc<Call>) -> Result<DatabaseOwner> {
        ServerAdmin::grant(call).await?;
        Ok(DatabaseOwner { adapter: open(call)? })
    }
}

impl DatabaseOwner {
    /// The database.
    pub(crate) fn db(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }
}

/// The database in the path. What has no legal name does not exist.
fn open(call: &Call) -> Result<Arc<dyn Adapter>> {
    call.app.host.database(call.param("db")).map_err(|error| match error.kind() {
        ErrorKind::IllegalDatabaseName | ErrorKind::DatabaseNameTooLong => Error::no_database(),
        _ => error,
    })
}

fn is_database_admin(user: &User, security: &Security) -> bool {
    names(user, &security.admins)
}

/// A database that names no members is everybody's.
fn is_member(user: &User, security: &Security) -> bool {
    let members = &security.members;
    (members.names.is_empty() && members.roles.is_empty()) || names(user, members)
}

/// Whether somebody who is no admin may enter the database of users, for this request: for their own
/// document, and if the database is open to them, to see that it is there or to register.
fn enters_users(call: &Call, security: &Security) -> Result<bool> {
    let (user, id) = (call.user(), call.param("id"));
    if user.name.as_deref().is_some_and(|name| users::doc_id(name) == id) {
        return Ok(call.param("name").is_empty());
    }
    if !is_member(user, security) {
        return Ok(false);
    }
    let registers = call.method == Method::PUT && users::is_doc_id(id) && user.name.is_none();
    match call.route() {
        "/{db}" if call.method == Method::GET => Ok(true),
        "/{db}/{id}" if registers => Ok(true),
        // Others' documents are not seen, and so not there.
        "/{db}/{id}" => Err(Error::missing()),
        _ => Err(unauthorized("You are not a server admin.")),
    }
}

fn names(user: &User, principals: &Principals) -> bool {
    user.name.as_ref().is_some_and(|name| {
        principals.names.contains(name) || principals.roles.iter().any(|role| user.has_role(role))
    })
}

fn not_an_admin(user: &User) -> Error {
    let reason = "You are not a db or server admin.";
    if user.name.is_none() { unauthorized(reason) } else { forbidden(reason) }
}

fn unauthorized(reason: &'static str) -> Error {
    Error::new(ErrorKind::Unauthorized, reason)
}

fn forbidden(reason: &'static str) -> Error {
    Error::new(ErrorKind::Forbidden, reason)
}
