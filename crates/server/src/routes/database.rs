//! Databases: <https://docs.couchdb.org/en/stable/api/database/common.html> and the chapters
//! beside it.

use crate::app::App;
use crate::auth::access::{DatabaseAdmin, DatabaseOwner, Member, ServerAdmin, Upkeep};
use crate::call::Call;
use crate::config::Live;
use crate::reply::{self, Response};
use crate::routes::node;
use axum::http::{StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use settee_core::wire::{
    DatabaseInfo, Principals, RevsByDoc, Security, TimeSeqReply, parse_revs_by_doc,
};
use settee_core::{Error, ErrorKind, Result, Rev};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The one shard that a database of a single node has.
const SHARD: &str = "00000000-ffffffff";

/// What `GET /{db}` tells: what the adapter knows, and what is the same for all databases here.
#[derive(Serialize)]
pub(super) struct FullInfo {
    #[serde(flatten)]
    info: DatabaseInfo,
    disk_format_version: u32,
    props: Map<String, Value>,
    cluster: Cluster,
}

#[derive(Serialize)]
struct Cluster {
    q: u32,
    n: u32,
    w: u32,
    r: u32,
}

impl FullInfo {
    fn new(info: DatabaseInfo) -> FullInfo {
        let cluster = Cluster { q: 1, n: 1, w: 1, r: 1 };
        FullInfo { info, disk_format_version: 8, props: Map::new(), cluster }
    }
}

/// What is known of a database by its name.
pub(super) async fn full_info(call: &Call, name: &str) -> Result<FullInfo> {
    Ok(FullInfo::new(call.app.host.database(name)?.info().await?))
}

/// `GET /{db}`
pub(super) async fn info(member: Member, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&FullInfo::new(member.db().info().await?))
}

/// `PUT /{db}`
pub(super) async fn create(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    for name in ["n", "q"] {
        let value = call.query.get(name);
        if value.is_some_and(|value| !value.parse::<u32>().is_ok_and(|value| value > 0)) {
            let reason = format!("The `{name}` value should be a positive integer.");
            return Err(Error::bad_request(reason));
        }
    }
    match call.query.get("partitioned") {
        None | Some("false") => {}
        Some("true") => return Err(Error::bad_request("Partitioned feature is not enabled.")),
        Some(_) => return Err(Error::bad_request("Invalid `partitioned` parameter")),
    }
    create_secured(&call.app, &call.live, call.param("db")).await?;
    reply::with(reply::ok(StatusCode::CREATED), header::LOCATION, &call.location(&[]))
}

/// Creates a database that is only for admins until somebody says otherwise.
pub(crate) async fn create_secured(app: &App, live: &Live, name: &str) -> Result<()> {
    if !live.admin_only_databases {
        return app.host.create(name).await;
    }
    let admins = || Principals { names: Vec::new(), roles: vec!["_admin".to_owned()] };
    let security = Security { admins: admins(), members: admins(), ..Security::default() };
    app.host.create_with(name, &security).await
}

/// `DELETE /{db}`
pub(super) async fn delete(_: ServerAdmin, call: Arc<Call>) -> Result<Response> {
    if call.query.get("rev").is_some() {
        // Somebody's script has lost the document's id. Nothing else stands between them and the
        // loss of the whole database.
        return Err(Error::bad_request(
            "You tried to DELETE a database with a ?=rev parameter. \
             Did you mean to DELETE a document instead?",
        ));
    }
    let deleted = call.app.host.delete(call.param("db")).await;
    deleted.map_err(|error| match error.kind() {
        ErrorKind::IllegalDatabaseName | ErrorKind::DatabaseNameTooLong => Error::no_database(),
        _ => error,
    })?;
    Ok(reply::ok(StatusCode::OK))
}

/// `GET /{db}/_security`
pub(super) async fn security(member: Member, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&member.db().security().await?)
}

/// `PUT /{db}/_security`
pub(super) async fn set_security(admin: DatabaseAdmin, call: Arc<Call>) -> Result<Response> {
    if Some(call.param("db")) == call.live.auth("authentication_db")
        && call.live.get("couchdb", "users_db_security_editable") != Some("true")
    {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "You can't edit the security object of the user database.",
        ));
    }
    admin.db().set_security(&parse_security(call.object().await?)?).await?;
    Ok(reply::ok(StatusCode::OK))
}

fn parse_security(mut object: Map<String, Value>) -> Result<Security> {
    let admins = principals(object.remove("admins"))?;
    // The name that `members` had in 1.0.
    let readers = object.remove("readers");
    let members = principals(object.remove("members").or(readers))?;
    Ok(Security { admins, members, other: object })
}

fn principals(value: Option<Value>) -> Result<Principals> {
    let mut object = match value {
        None => return Ok(Principals::default()),
        Some(Value::Object(object)) => object,
        Some(_) => {
            return Err(Error::bad_request("admins or members must be a JSON list of strings"));
        }
    };
    let mut texts = |name: &str| match object.remove(name) {
        None => Ok(Vec::new()),
        Some(value) => serde_json::from_value(value)
            .map_err(|_| Error::bad_request(format!("{name} must be a JSON list of strings"))),
    };
    Ok(Principals { names: texts("names")?, roles: texts("roles")? })
}

/// `GET /{db}/_revs_limit`
pub(super) async fn revs_limit(member: Member, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&member.db().revs_limit().await?)
}

/// `PUT /{db}/_revs_limit`
pub(super) async fn set_revs_limit(admin: DatabaseAdmin, call: Arc<Call>) -> Result<Response> {
    let limit = positive(&call, "revs_limit").await?;
    admin.db().set_revs_limit(limit).await?;
    Ok(reply::ok(StatusCode::OK))
}

/// `GET /{db}/_purged_infos_limit`
pub(super) async fn purged_infos_limit(owner: DatabaseOwner, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&owner.db().purged_infos_limit().await?)
}

/// `PUT /{db}/_purged_infos_limit`
pub(super) async fn set_purged_infos_limit(
    owner: DatabaseOwner,
    call: Arc<Call>,
) -> Result<Response> {
    let limit = positive(&call, "purged_infos_limit").await?;
    owner.db().set_purged_infos_limit(limit).await?;
    Ok(reply::ok(StatusCode::OK))
}

/// A body that is a positive number.
async fn positive(call: &Call, what: &str) -> Result<u64> {
    let value: Value = call.json().await?;
    value
        .as_u64()
        .filter(|&number| number > 0)
        .ok_or_else(|| Error::bad_request(format!("`{what}` must be positive integer")))
}

/// `POST /{db}/_compact`
pub(super) async fn compact(admin: Upkeep, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    admin.db().compact().await?;
    call.app.tasks.compaction_started(admin.db().name());
    Ok(reply::ok(StatusCode::ACCEPTED))
}

/// `POST /{db}/_view_cleanup`
pub(super) async fn view_cleanup(admin: Upkeep, _: Arc<Call>) -> Result<Response> {
    admin.db().view_cleanup().await?;
    Ok(reply::ok(StatusCode::ACCEPTED))
}

/// `POST /{db}/_ensure_full_commit`
pub(super) async fn ensure_full_commit(member: Member, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    member.db().ensure_full_commit().await?;
    let instance_start_time = member.db().info().await?.instance_start_time;
    let body = json!({"ok": true, "instance_start_time": instance_start_time});
    reply::json(StatusCode::CREATED, &body)
}

/// `POST /{db}/_purge`
pub(super) async fn purge(owner: DatabaseOwner, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let revs = revs_by_doc(&call).await?;
    let most = call.live.number("purge", "max_revisions_number", u64::MAX);
    if revs.values().map(Vec::len).sum::<usize>() as u64 > most {
        return Err(Error::bad_request("Exceeded maximum number of revisions."));
    }
    reply::json(StatusCode::CREATED, &owner.db().purge(&revs).await?)
}

/// `GET /{db}/_purged_infos`
pub(super) async fn purged_infos(member: Member, _: Arc<Call>) -> Result<Response> {
    let infos = member.db().purged_infos().await?;
    let infos: Vec<Value> =
        infos.into_iter().map(|(id, revs)| json!({"id": id, "revs": revs})).collect();
    reply::ok_json(&json!({"purged_infos": infos}))
}

/// `GET /{db}/_auto_purge`
pub(super) async fn auto_purge(member: Member, _: Arc<Call>) -> Result<Response> {
    reply::ok_json(&member.db().auto_purge().await?)
}

/// `PUT /{db}/_auto_purge`
pub(super) async fn set_auto_purge(owner: DatabaseOwner, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let settings = call.object().await?;
    if settings.keys().any(|key| key != "deleted_document_ttl") {
        return Err(Error::bad_request("invalid auto purge property"));
    }
    let settings = serde_json::from_value(Value::Object(settings))
        .map_err(|_| Error::bad_request("deleted_document_ttl must be a valid string"))?;
    owner.db().set_auto_purge(&settings).await?;
    Ok(reply::ok(StatusCode::CREATED))
}

/// `GET /{db}/_time_seq`
pub(super) async fn time_seq(member: Member, _: Arc<Call>) -> Result<Response> {
    let bins = member.db().time_seq().await?;
    reply::ok_json(&TimeSeqReply::new(SHARD, node::NAME, &bins))
}

/// `DELETE /{db}/_time_seq`
pub(super) async fn reset_time_seq(owner: DatabaseOwner, _: Arc<Call>) -> Result<Response> {
    owner.db().reset_time_seq().await?;
    Ok(reply::ok(StatusCode::OK))
}

/// `POST /{db}/_revs_diff`
pub(super) async fn revs_diff(member: Member, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    reply::ok_json(&member.db().revs_diff(&revs_by_doc(&call).await?).await?)
}

/// `POST /{db}/_missing_revs`
pub(super) async fn missing_revs(member: Member, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    let missing = member.db().revs_diff(&revs_by_doc(&call).await?).await?;
    let missing: BTreeMap<String, Vec<Rev>> =
        missing.into_iter().map(|(id, revs)| (id, revs.missing)).collect();
    reply::ok_json(&json!({"missing_revs": missing}))
}

async fn revs_by_doc(call: &Call) -> Result<RevsByDoc> {
    parse_revs_by_doc(&call.bytes().await?, &call.limits())
}

/// `GET /{db}/_shards`
pub(super) async fn shards(member: Member, _: Arc<Call>) -> Result<Response> {
    member.db().info().await?;
    reply::ok_json(&json!({"shards": {SHARD: [node::NAME]}}))
}

/// `GET /{db}/_shards/{id}`
pub(super) async fn shard_of(member: Member, _: Arc<Call>) -> Result<Response> {
    member.db().info().await?;
    reply::ok_json(&json!({"range": SHARD, "nodes": [node::NAME]}))
}

/// `POST /{db}/_sync_shards`
pub(super) async fn sync_shards(owner: DatabaseOwner, _: Arc<Call>) -> Result<Response> {
    owner.db().info().await?;
    Ok(reply::ok(StatusCode::ACCEPTED))
}
