//! Views in JavaScript: their building, their upkeep, and queries that must not read every row.

use crate::http::Server;
use crate::{Figures, Work, document, replication, text};
use serde_json::{Value, json};
use settee::local::{Local, LocalOptions};
use settee::{Couch, Database};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Queries of each kind.
const QUERIES: usize = 200;

/// Writes with a query behind each.
const WRITES: usize = 200;

/// Embedded.
pub(crate) fn embedded(dir: &Path, docs: usize) -> Result<Figures, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(text)?;
    let local = Local::open(dir.join("views"), &LocalOptions::default()).map_err(text)?;
    runtime.block_on(measure(&Couch::from_host(Arc::new(local)), docs))
}

/// Over HTTP.
pub(crate) fn served(dir: &Path, docs: usize) -> Result<Figures, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(text)?;
    let server = Server::start(&dir.join("views"))?;
    runtime.block_on(async { measure(&replication::connect(&server)?, docs).await })
}

async fn measure(place: &Couch, docs: usize) -> Result<Figures, String> {
    let db = replication::loaded(place, docs).await?;
    let names = json!({"names": {"map": "function(doc) { emit(doc.name, 1) }"}});
    design(&db, "names", names).await?;
    let numbers = json!({"numbers": {
        "map": "function(doc) { emit([doc.number % 1000, doc.number], doc.number) }",
        "reduce": "_sum",
    }});
    design(&db, "numbers", numbers).await?;
    let mut figures = Figures::new();

    let began = Instant::now();
    let built = db.view("names/names").limit(1).fetch().await.map_err(text)?;
    figures.insert(Work::ViewBuild, docs as f64 / began.elapsed().as_secs_f64());
    expect(built.total_rows, Some(docs as u64))?;
    let info = db.design_info("names").await.map_err(text)?;
    figures.insert(Work::ViewSize, info.view_index.sizes.active as f64 / docs as f64);

    let began = Instant::now();
    for n in 0..WRITES {
        db.put(document(docs + n)).await.map_err(text)?;
        let rows = db.view("names/names").key(format!("John Doe {}", docs + n)).fetch().await;
        expect(rows.map_err(text)?.rows.len(), 1)?;
    }
    figures.insert(Work::ViewUpdate, WRITES as f64 / began.elapsed().as_secs_f64());

    let view = || db.view("numbers/numbers");
    let total = view().fetch().await.map_err(text)?.values_as::<u64>().map_err(text)?;
    let all = (docs + WRITES) as u64;
    expect(total, vec![all * (all - 1) / 2])?;

    let began = Instant::now();
    for _ in 0..QUERIES {
        let groups = view().group_level(1).fetch().await.map_err(text)?;
        expect(groups.rows.len(), docs.min(1000))?;
    }
    figures.insert(Work::ViewGroups, QUERIES as f64 / began.elapsed().as_secs_f64());

    let began = Instant::now();
    for n in 0..QUERIES {
        let range = view().range([n % 400, 0]..=[n % 400 + 333, 0]).fetch().await;
        expect(range.map_err(text)?.rows.len(), 1)?;
    }
    figures.insert(Work::ViewRange, QUERIES as f64 / began.elapsed().as_secs_f64());

    let began = Instant::now();
    for n in 0..QUERIES {
        let skip = (docs / 2 + n) as u64;
        let row = db.view("names/names").skip(skip).limit(1).fetch().await;
        expect(row.map_err(text)?.rows.len(), 1)?;
    }
    figures.insert(Work::ViewSkip, QUERIES as f64 / began.elapsed().as_secs_f64());
    Ok(figures)
}

async fn design(db: &Database, name: &str, views: Value) -> Result<(), String> {
    let doc = json!({"_id": format!("_design/{name}"), "views": views});
    db.put(doc).await.map(drop).map_err(text)
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} where {expected:?} was expected")),
    }
}
