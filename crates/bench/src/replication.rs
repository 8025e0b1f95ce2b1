//! Replication between databases of this process and of `settee serve`: the documents of all the other
//! work, into a target that is empty.

use crate::http::Server;
use crate::{Figures, Work, document, text};
use settee::local::{Local, LocalOptions};
use settee::remote::{Remote, RemoteOptions};
use settee::{Couch, Database, Document};
use std::path::Path;
use std::sync::Arc;

/// Within a place, to a server and from it.
pub(crate) fn embedded(dir: &Path, docs: usize) -> Result<Figures, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(text)?;
    runtime.block_on(async {
        let local = Local::open(dir.join("replication"), &LocalOptions::default());
        let place = Couch::from_host(Arc::new(local.map_err(text)?));
        let source = loaded(&place, docs).await?;
        let server = Server::start(&dir.join("server"))?;
        let there = connect(&server)?;
        let mut figures = Figures::new();
        let target = place.create("copy").await.map_err(text)?;
        figures.insert(Work::Replicate, measure(&source, &target, docs).await?);
        let pushed = there.create("pushed").await.map_err(text)?;
        figures.insert(Work::ReplicateTo, measure(&source, &pushed, docs).await?);
        let pulled = place.create("pulled").await.map_err(text)?;
        figures.insert(Work::ReplicateFrom, measure(&pushed, &pulled, docs).await?);
        Ok(figures)
    })
}

/// From one server to another.
pub(crate) fn servers(dir: &Path, docs: usize) -> Result<Figures, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(text)?;
    runtime.block_on(async {
        let (one, other) = (Server::start(&dir.join("one"))?, Server::start(&dir.join("other"))?);
        let source = loaded(&connect(&one)?, docs).await?;
        let target = connect(&other)?.create("copy").await.map_err(text)?;
        Ok(Figures::from([(Work::ReplicateServers, measure(&source, &target, docs).await?)]))
    })
}

pub(crate) fn connect(server: &Server) -> Result<Couch, String> {
    let url = format!("http://bench:bench@{}", server.address);
    Ok(Couch::from_host(Arc::new(Remote::connect(&url, &RemoteOptions::new()).map_err(text)?)))
}

pub(crate) async fn loaded(place: &Couch, docs: usize) -> Result<Database, String> {
    let db = place.create("source").await.map_err(text)?;
    for first in (0..docs).step_by(1000) {
        let batch = (first..docs.min(first + 1000)).map(|n| document(n).parse::<Document>());
        let batch = batch.collect::<Result<Vec<_>, _>>().map_err(text)?;
        db.bulk_docs(batch, true).await.map_err(text)?;
    }
    Ok(db)
}

async fn measure(source: &Database, target: &Database, docs: usize) -> Result<f64, String> {
    let began = std::time::Instant::now();
    let result = source.replicate_to(target).run().await.map_err(text)?;
    let figure = docs as f64 / began.elapsed().as_secs_f64();
    match result.counters.docs_written == docs as u64 {
        true => Ok(figure),
        false => Err(format!("{} documents written of {docs}", result.counters.docs_written)),
    }
}
