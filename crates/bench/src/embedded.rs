//! Settee in this process.

use crate::{Figures, Work, disk_usage, document, id, rate, replication, text, views};
use futures_executor::block_on;
use futures_util::TryStreamExt;
use settee::adapter::{Adapter, Host};
use settee::local::{Local, LocalOptions};
use settee_core::Document;
use settee_core::json::Limits;
use settee_core::options::{AllDocsOptions, ChangesOptions, GetOptions, WriteOptions};
use std::path::Path;
use std::sync::Arc;

pub(crate) fn run(dir: &Path, docs: usize) -> Result<Figures, String> {
    let local = Local::open(dir, &LocalOptions::default()).map_err(text)?;
    let database = |name| -> Result<Arc<dyn Adapter>, String> {
        block_on(local.create(name)).map_err(text)?;
        local.database(name).map_err(text)
    };
    let mut figures = Figures::new();
    let mut add = |work, figure| figures.insert(work, figure);

    let single = database("single")?;
    add(Work::SinglePut, rate(2000, || (0..2000).try_for_each(|n| put(&single, &document(n))))?);
    add(
        Work::ManyWriters,
        rate(64 * 300, || {
            std::thread::scope(|scope| {
                let writers: Vec<_> = (1..=64)
                    .map(|writer| {
                        let single = &single;
                        scope.spawn(move || {
                            (0..300).try_for_each(|n| put(single, &document(writer * 10_000 + n)))
                        })
                    })
                    .collect();
                writers.into_iter().try_for_each(|writer| {
                    writer.join().map_err(|_| "a writer panicked".to_owned())?
                })
            })
        })?,
    );
    add(Work::SameDocument, {
        let mut rev = None;
        rate(300, || {
            (0..300).try_for_each(|_| {
                let mut doc = parse(&document(9_999_999))?;
                doc.rev = rev.take();
                let saved = block_on(single.put(doc, None, &WriteOptions::default()));
                rev = Some(saved.map_err(text)?.rev);
                Ok(())
            })
        })?
    });

    let bulk = database("bulk")?;
    let texts: Vec<_> = (0..docs).map(document).collect();
    add(
        Work::Bulk,
        rate(docs, || {
            for batch in texts.chunks(1000) {
                let docs = batch.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
                let results = block_on(bulk.bulk_docs(docs, &WriteOptions::default()));
                let results = results.map_err(text)?;
                if let Some(Err(failed)) = results.into_iter().find(Result::is_err) {
                    return Err(text(failed.error));
                }
            }
            Ok(())
        })?,
    );
    let ids: Vec<_> = (0..docs).map(|n| id(n * 7919 % docs)).collect();
    add(
        Work::Get,
        rate(docs, || {
            ids.iter().try_for_each(|id| {
                block_on(bulk.get(id, &GetOptions::default())).map(drop).map_err(text)
            })
        })?,
    );
    for (work, include_docs) in [(Work::AllDocs, false), (Work::AllDocsWithDocs, true)] {
        let options = AllDocsOptions { include_docs, ..AllDocsOptions::default() };
        add(
            work,
            rate(docs, || {
                block_on(async {
                    let mut rows = bulk.all_docs(&options).await.map_err(text)?.rows;
                    let mut seen = 0;
                    while let Some(batch) = rows.try_next().await.map_err(text)? {
                        seen += batch.len();
                    }
                    all(seen, docs)
                })
            })?,
        );
    }
    for (work, include_docs) in [(Work::Changes, false), (Work::ChangesWithDocs, true)] {
        let options = ChangesOptions { include_docs, ..ChangesOptions::default() };
        add(
            work,
            rate(docs, || {
                block_on(async {
                    let mut feed = bulk.changes(&options).await.map_err(text)?;
                    let mut seen = 0;
                    while let Some(batch) = feed.try_next().await.map_err(text)? {
                        seen += batch.changes.len();
                    }
                    all(seen, docs)
                })
            })?,
        );
    }
    local.compact().map_err(text)?;
    let json: usize = texts.iter().map(String::len).sum();
    add(Work::Disk, disk_usage(dir)? as f64 / json as f64);
    figures.extend(replication::embedded(dir, docs)?);
    figures.extend(views::embedded(dir, docs)?);
    Ok(figures)
}

fn parse(document: &str) -> Result<Document, String> {
    Document::parse(document.as_bytes(), &Limits::default()).map_err(text)
}

fn put(db: &Arc<dyn Adapter>, document: &str) -> Result<(), String> {
    block_on(db.put(parse(document)?, None, &WriteOptions::default())).map(drop).map_err(text)
}

fn all(seen: usize, expected: usize) -> Result<(), String> {
    if seen == expected { Ok(()) } else { Err(format!("{seen} rows of {expected}")) }
}
