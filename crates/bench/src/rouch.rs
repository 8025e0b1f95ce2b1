//! rouchdb, in this process.

use crate::{Figures, Work, disk_usage, document, id, rate, text};
use rouchdb::{AllDocsOptions, BulkDocsOptions, ChangesOptions, Database, Document};
use std::path::Path;

pub(crate) fn run(dir: &Path, docs: usize) -> Result<Figures, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(text)?;
    let block_on = |future| -> Result<(), String> { runtime.block_on(future) };
    let single = Database::open(dir.join("single"), "single").map_err(text)?;
    let bulk = Database::open(dir.join("bulk"), "bulk").map_err(text)?;
    let mut figures = Figures::new();
    let mut add = |work, figure| figures.insert(work, figure);

    add(
        Work::SinglePut,
        rate(1000, || {
            block_on(Box::pin(async {
                for n in 0..1000 {
                    put(&single, n).await?;
                }
                Ok(())
            }) as std::pin::Pin<Box<dyn Future<Output = Result<(), String>>>>)
        })?,
    );
    add(
        Work::ManyWriters,
        rate(64 * 50, || {
            block_on(Box::pin(async {
                let writers = (1..=64).map(|writer| {
                    let single = &single;
                    async move {
                        for n in 0..50 {
                            put(single, writer * 10_000 + n).await?;
                        }
                        Ok::<_, String>(())
                    }
                });
                futures_util::future::try_join_all(writers).await.map(drop)
            }))
        })?,
    );
    add(
        Work::SameDocument,
        rate(300, || {
            block_on(Box::pin(async {
                let mut rev: Option<String> = None;
                for n in 0..300 {
                    let body = serde_json::json!({ "number": n });
                    let result = match rev.take() {
                        None => single.put("same", body).await,
                        Some(rev) => single.update("same", &rev, body).await,
                    };
                    rev = result.map_err(text)?.rev;
                }
                Ok(())
            }))
        })?,
    );
    let texts: Vec<_> = (0..docs).map(document).collect();
    add(
        Work::Bulk,
        rate(docs, || {
            block_on(Box::pin(async {
                for batch in texts.chunks(1000) {
                    let docs = batch.iter().map(|doc| parse(doc)).collect::<Result<_, _>>()?;
                    bulk.bulk_docs(docs, BulkDocsOptions::default()).await.map_err(text)?;
                }
                Ok(())
            }))
        })?,
    );
    let ids: Vec<_> = (0..docs).map(|n| id(n * 7919 % docs)).collect();
    add(
        Work::Get,
        rate(docs, || {
            block_on(Box::pin(async {
                for id in &ids {
                    bulk.get(id).await.map_err(text)?;
                }
                Ok(())
            }))
        })?,
    );
    for (work, include_docs) in [(Work::AllDocs, false), (Work::AllDocsWithDocs, true)] {
        let bulk = &bulk;
        add(
            work,
            rate(docs, || {
                block_on(Box::pin(async move {
                    let options = AllDocsOptions { include_docs, ..AllDocsOptions::new() };
                    bulk.all_docs(options).await.map(drop).map_err(text)
                }))
            })?,
        );
    }
    for (work, include_docs) in [(Work::Changes, false), (Work::ChangesWithDocs, true)] {
        let bulk = &bulk;
        add(
            work,
            rate(docs, || {
                block_on(Box::pin(async move {
                    let options = ChangesOptions { include_docs, ..ChangesOptions::default() };
                    bulk.changes(options).await.map(drop).map_err(text)
                }))
            })?,
        );
    }
    block_on(Box::pin(async { bulk.compact().await.map_err(text) }))?;
    let json: usize = texts.iter().map(String::len).sum();
    let copy = Database::open(dir.join("copy"), "copy").map_err(text)?;
    add(
        Work::Replicate,
        rate(docs, || {
            block_on(Box::pin(async { bulk.replicate_to(&copy).await.map(drop).map_err(text) }))
        })?,
    );
    add(
        Work::Disk,
        disk_usage(&dir.join("bulk")).or_else(|_| file(&dir.join("bulk")))? as f64 / json as f64,
    );
    Ok(figures)
}

fn file(path: &Path) -> Result<u64, String> {
    Ok(std::fs::metadata(path).map_err(text)?.len())
}

fn parse(document: &str) -> Result<Document, String> {
    Document::from_json(serde_json::from_str(document).map_err(text)?).map_err(text)
}

async fn put(db: &Database, number: usize) -> Result<(), String> {
    let body = serde_json::from_str(&document(number)).map_err(text)?;
    let Document { id, data, .. } = Document::from_json(body).map_err(text)?;
    db.put(&id, data).await.map(drop).map_err(text)
}
