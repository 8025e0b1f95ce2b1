//! Local documents: <https://docs.couchdb.org/en/stable/api/local.html>
//!
//! They are read and written by the functions for documents; here is what they refuse.

use crate::auth::access::Member;
use crate::call::Call;
use crate::reply::Response;
use settee_core::{Error, Result};
use std::sync::Arc;

/// `/{db}/_local`
pub(super) async fn no_id(_: Member, _: Arc<Call>) -> Result<Response> {
    Err(Error::bad_request("Invalid _local document id."))
}

/// `/{db}/_local/{id}/{name}`
pub(super) async fn no_attachments(_: Member, _: Arc<Call>) -> Result<Response> {
    Err(Error::bad_request("_local documents do not accept attachments."))
}
