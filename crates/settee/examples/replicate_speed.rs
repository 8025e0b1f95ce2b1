//! How fast databases of this process replicate: `cargo run --release --example replicate_speed`.
//!
//! Arguments: `memory` or a directory, how many documents, how many changes go through together, and
//! how many batches at once.

use settee::local::{Local, LocalOptions};
use settee::{Couch, Document};
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg =
        |n: usize, usual: usize| args.get(n).and_then(|arg| arg.parse().ok()).unwrap_or(usual);
    let couch = match args.first().map(String::as_str) {
        None | Some("memory") => Couch::memory()?,
        Some(dir) => Couch::from_host(Arc::new(Local::open(dir, &LocalOptions::default())?)),
    };
    let (count, batch_size, batches) = (arg(1, 100_000), arg(2, 250), arg(3, 4));
    let mut report = String::new();
    futures_executor::block_on(async {
        for name in ["source", "target"] {
            let _ = couch.delete(name).await;
        }
        let (source, target) = (couch.create("source").await?, couch.create("target").await?);
        let padding = "x".repeat(200);
        let started = Instant::now();
        let docs = (0..count).map(|n| {
            format!(
                r#"{{"_id":"{n:08}","type":"person","name":"Jane {n}","n":{n},"pad":"{padding}"}}"#
            )
            .parse::<Document>()
        });
        let docs: Vec<Document> = docs.collect::<Result<_, _>>()?;
        for docs in docs.chunks(1000) {
            source.bulk_docs(docs.to_vec(), true).await?;
        }
        let rate = |started: Instant| count as f64 / started.elapsed().as_secs_f64();
        report += &format!("load           {:>9.0} docs/s\n", rate(started));
        for what in ["replicate", "again from 0", "resume"] {
            let started = Instant::now();
            let mut replication =
                source.replicate_to(&target).batch_size(batch_size).batches_limit(batches);
            if what == "again from 0" {
                replication = replication.without_checkpoints();
            }
            let result = replication.run().await?;
            report += &format!(
                "{what:<14} {:>9.0} docs/s, {} written, {:?}\n",
                rate(started),
                result.counters.docs_written,
                started.elapsed(),
            );
        }
        Ok::<(), settee::Error>(())
    })?;
    eprint!("{report}");
    Ok(())
}
