//! What is still to come: queries by selector, full-text search, resharding; and partitions, which
//! databases do not have. Each path is here with its rights, and says so.

use crate::auth::access::{Member, ServerAdmin};
use crate::call::Call;
use crate::reply::Response;
use settee_core::options::GetOptions;
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

fn not_yet(what: &str) -> Result<Response> {
    Err(Error::new(ErrorKind::NotImplemented, format!("{what} is not implemented yet.")))
}

/// That the design document is there comes first.
async fn not_yet_of(member: &Member, call: &Call, what: &str) -> Result<Response> {
    let id = format!("_design/{}", call.param("ddoc"));
    member.db().get(&id, &GetOptions::default()).await?;
    not_yet(what)
}

pub(super) async fn reshard(_: ServerAdmin, _: Arc<Call>) -> Result<Response> {
    not_yet("Resharding")
}

pub(super) async fn server_search(_: ServerAdmin, _: Arc<Call>) -> Result<Response> {
    not_yet("Full-text search")
}

pub(super) async fn find(member: Member, _: Arc<Call>) -> Result<Response> {
    member.db().info().await?;
    not_yet("Finding documents by selector")
}

pub(super) async fn search(member: Member, call: Arc<Call>) -> Result<Response> {
    match call.param("ddoc") {
        "" => not_yet("Full-text search"),
        _ => not_yet_of(&member, &call, "Full-text search").await,
    }
}

pub(super) async fn partition(member: Member, _: Arc<Call>) -> Result<Response> {
    member.db().info().await?;
    Err(Error::bad_request("database is not partitioned"))
}
