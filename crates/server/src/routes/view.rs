//! Views: <https://docs.couchdb.org/en/stable/api/ddoc/views.html>

use crate::auth::access::{DatabaseOwner, Member, Upkeep};
use crate::call::Call;
use crate::related;
use crate::reply::{self, Response};
use crate::routes::bulk;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use futures_core::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value};
use settee::adapter::ViewRows;
use settee_core::document::WriteJson;
use settee_core::options::ViewOptions;
use settee_core::parameters::Param;
use settee_core::wire::TempView;
use settee_core::{Error, ErrorKind, Result};
use std::sync::Arc;

/// `GET`, `POST /{db}/_design/{ddoc}/_view/{view}`, and `…/queries`
pub(super) async fn view(member: Member, call: Arc<Call>) -> Result<Response> {
    let path = call.param("path");
    if let Some(view) = path.strip_suffix("/queries") {
        return match call.method == Method::POST {
            true => several(&member, &call, view).await,
            false => Ok(reply::method_not_allowed("POST")),
        };
    }
    let mut options = ViewOptions::default();
    if call.method == Method::POST {
        call.require_json()?;
        let body = call.object().await?;
        if body.contains_key("queries") {
            return Err(Error::bad_request(
                "The `queries` parameter is no longer supported at this endpoint",
            ));
        }
        options.take_all(Param::members(&body))?;
    }
    options.take_all(call.query.pairs())?;
    limit(&mut options, &call)?;
    let rows = begun(member.db().view(call.param("ddoc"), path, &options).await?).await?;
    reply::json_stream(write_rows(rows, &options).chain(related::piece("\n")))
}

/// Keeps a query within the configured limit.
fn limit(options: &mut ViewOptions, call: &Call) -> Result<()> {
    let most = call.live.number("query_server_config", "query_limit", u64::MAX);
    if options.limit.is_some_and(|limit| limit > most) {
        let reason = format!("Limit is too large, must not exceed {most}");
        return Err(Error::query_parse(reason));
    }
    if most < u64::MAX {
        options.limit.get_or_insert(most);
    }
    Ok(())
}

async fn several(member: &Member, call: &Call, view: &str) -> Result<Response> {
    call.require_json()?;
    let body = call.object().await?;
    let queries = bulk::queries_in(&body)?;
    // All are understood, and found to make sense, before the first is answered.
    let mut answers = Vec::with_capacity(queries.len());
    for query in queries {
        let object = bulk::members_of(query)?;
        let mut options = ViewOptions::default();
        options.take_all(call.query.pairs())?;
        options.take_all(Param::members(object))?;
        limit(&mut options, call)?;
        let rows = begun(member.db().view(call.param("ddoc"), view, &options).await?).await?;
        answers.push((rows, options));
    }
    let results = stream::iter(answers).enumerate().map(|(n, (rows, options))| {
        let separator = if n == 0 { "\r\n" } else { ",\r\n" };
        related::piece(separator).chain(write_rows(rows, &options))
    });
    let head = related::piece("{\"results\":[");
    reply::json_stream(head.chain(results.flatten()).chain(related::piece("\r\n]}\n")))
}

/// `POST /{db}/_temp_view`, unless `settee/temp_views` is off: the function runs over all documents,
/// so not everybody may ask.
pub(super) async fn temp_view(owner: DatabaseOwner, call: Arc<Call>) -> Result<Response> {
    if call.live.get("settee", "temp_views") != Some("true") {
        let reason = "Temporary views are not supported in CouchDB";
        return Err(Error::new(ErrorKind::Gone, reason));
    }
    call.require_json()?;
    let body = call.object().await?;
    let (definition, parameters): (Map<_, _>, Map<_, _>) =
        body.into_iter().partition(|(name, value)| is_definition(name, value));
    let view: TempView = serde_json::from_value(Value::Object(definition))
        .map_err(|error| Error::bad_request(error.to_string()))?;
    let mut options = ViewOptions::default();
    options.take_all(Param::members(&parameters))?;
    options.take_all(call.query.pairs())?;
    limit(&mut options, &call)?;
    let rows = begun(owner.db().temp_view(&view, &options).await?).await?;
    reply::json_stream(write_rows(rows, &options).chain(related::piece("\n")))
}

/// Whether a member of a body defines the view; `reduce` may say as well whether to reduce.
fn is_definition(name: &str, value: &Value) -> bool {
    match name {
        "language" | "map" | "options" => true,
        "reduce" => value.is_string(),
        _ => false,
    }
}

/// `GET /{db}/_design/{ddoc}/_info`
pub(super) async fn info(member: Member, call: Arc<Call>) -> Result<Response> {
    reply::ok_json(&member.db().design_info(call.param("ddoc")).await?)
}

/// `POST /{db}/_compact/{ddoc}`
pub(super) async fn compact(admin: Upkeep, call: Arc<Call>) -> Result<Response> {
    call.require_json()?;
    admin.db().compact_views(call.param("ddoc")).await?;
    Ok(reply::ok(StatusCode::ACCEPTED))
}

/// The rows once the first of them are there: what fails before that, such as a reduction, is an
/// error with a status.
async fn begun(mut view: ViewRows) -> Result<ViewRows> {
    let mut rows = view.rows.fuse();
    let first = rows.try_next().await?;
    view.rows = stream::iter(first.map(Ok)).chain(rows).boxed();
    Ok(view)
}

/// The answer of a view as CouchDB writes it, one piece for each batch of rows.
fn write_rows(
    rows: ViewRows,
    options: &ViewOptions,
) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
    let ViewRows { total_rows, offset, update_seq, rows } = rows;
    let mut head = vec![b'{'];
    for (name, number) in [("total_rows", total_rows), ("offset", offset)] {
        // Who wants rows in any order is not told where they begin.
        if let Some(number) = number.filter(|_| options.sorted) {
            head.extend_from_slice(format!("\"{name}\":{number},").as_bytes());
        }
    }
    if let Some(seq) = update_seq {
        head.extend_from_slice(b"\"update_seq\":");
        seq.write_json(&mut head);
        head.push(b',');
    }
    head.extend_from_slice(b"\"rows\":[\r\n");
    let include_docs = options.include_docs;
    let write =
        WriteJson { att_encoding_info: options.doc.att_encoding_info, ..WriteJson::default() };
    reply::rows(head, rows, move |row, text| row.write_json(text, include_docs, &write))
}
