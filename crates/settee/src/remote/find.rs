//! Mango queries, which the server answers.

use super::database::{INDEXING, Shared};
use super::http::{Call, Repeat, bad_reply};
use super::rows::RowReader;
use super::url::encode;
use serde::Deserialize;
use serde_json::Value;
use settee_core::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};
use settee_core::{Document, Result};

pub(crate) async fn find(db: &Shared, options: &FindOptions) -> Result<Found> {
    let response = db.http.send(ask(db, "_find", options)).await?;
    let mut reader = RowReader::new(response.body, Some("docs"), db.limits());
    let mut found = Found::default();
    loop {
        let docs = reader.next_batch(Document::parse).await?;
        if docs.is_empty() {
            break;
        }
        found.docs.extend(docs);
    }
    reader.check()?;
    let member = |name| {
        let text = reader.splitter.member(name)?;
        serde_json::from_str::<Value>(&text).ok()
    };
    let text = |name| Some(member(name)?.as_str()?.to_owned());
    found.bookmark = text("bookmark").filter(|bookmark| bookmark != "nil");
    found.warning = text("warning");
    found.execution_stats = member("execution_stats");
    Ok(found)
}

pub(crate) async fn explain(db: &Shared, options: &FindOptions) -> Result<Value> {
    db.http.fetch(ask(db, "_explain", options)).await
}

fn ask(db: &Shared, what: &str, options: &FindOptions) -> Call {
    // An index that is new is made first.
    Call::post(db.path(what))
        .json(options.to_value().to_string())
        .repeat(Repeat::Safe)
        .wait(INDEXING)
}

pub(crate) async fn indexes(db: &Shared) -> Result<Vec<IndexInfo>> {
    #[derive(Deserialize)]
    struct Indexes {
        indexes: Vec<IndexInfo>,
    }
    Ok(db.http.fetch::<Indexes>(Call::get(db.path("_index"))).await?.indexes)
}

pub(crate) async fn create(db: &Shared, index: &IndexDefinition) -> Result<IndexCreated> {
    // Where it is there already, that is said and nothing done.
    let call = Call::post(db.path("_index")).json(index.to_value().to_string());
    db.http.fetch(call.repeat(Repeat::Safe)).await
}

pub(crate) async fn delete(db: &Shared, ddoc: &str, name: &str) -> Result<()> {
    let path = db.path(&format!("_index/{}/json/{}", encode(ddoc), encode(name)));
    let reply: Value = db.http.fetch(Call::delete(path)).await?;
    match reply.get("ok") {
        Some(Value::Bool(true)) => Ok(()),
        _ => Err(bad_reply("The server does not say that the index is gone.")),
    }
}
