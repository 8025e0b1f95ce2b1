//! Measures views by hand: `cargo run --release -p settee --example views -- [documents] [directory]`.
//!
//! Without a directory, a temporary one is used, which needs room for about 500 bytes a document.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use futures_executor::block_on;
use futures_util::StreamExt;
use serde_json::json;
use settee::adapter::{Adapter, Host};
use settee::local::{Local, LocalOptions, NativeView};
use settee::options::{Durability, ViewOptions, WriteOptions};
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().map_or(1_000_000, |count| count.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let dir = args.next().map_or(temporary.path().to_owned(), Into::into);
    block_on(run(count, &dir));
}

async fn run(count: u64, dir: &std::path::Path) {
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    local.register(NativeView::new("by_group", 1, |doc, emitter| {
        let number = |name| doc.body.get(name).and_then(|text| text.parse::<u64>().ok());
        if let (Some(group), Some(n)) = (number("group"), number("n")) {
            emitter.emit([group, n], n);
        }
    }));
    let db = if local.exists("db").await.unwrap() {
        local.database("db").unwrap()
    } else {
        local.create("db").await.unwrap();
        let db = local.database("db").unwrap();
        load(&*db, count).await;
        db
    };

    for reduce in ["_count", "_sum", "_stats"] {
        let design = json!({"_id": format!("_design/{reduce}"), "language": "rust", "views":
            {"v": {"map": "by_group", "reduce": reduce}}});
        // It may be there from an earlier run.
        let _ = db.put(design.try_into().unwrap(), None, &WriteOptions::default()).await;
        let start = Instant::now();
        let grouped = ViewOptions { group_level: Some(1), ..ViewOptions::default() };
        fetch(&*db, reduce, &grouped).await;
        let took = start.elapsed();
        println!("{reduce:8} build          {took:>10.1?} {:>9.0} docs/s", rate(count, took));
    }
    let info = db.design_info("_sum").await.unwrap().view_index;
    println!("sizes: external {} active {}", info.sizes.external, info.sizes.active);

    for reduce in ["_count", "_sum", "_stats"] {
        let grouped = ViewOptions { group_level: Some(1), ..ViewOptions::default() };
        report(reduce, "1000 groups", 50, || fetch(&*db, reduce, &grouped)).await;
        let down = ViewOptions { descending: true, ..grouped.clone() };
        report(reduce, "... descending", 50, || fetch(&*db, reduce, &down)).await;
        let mut n = 0;
        report(reduce, "range", 1000, || {
            n = (n + 37) % 500;
            let range = ViewOptions {
                start: Some(format!("[{n},{n}]")),
                end: Some(format!("[{},{}]", n + 400, n)),
                ..ViewOptions::default()
            };
            let db = &db;
            async move { fetch(&**db, reduce, &range).await }
        })
        .await;
    }
    let plain = || ViewOptions { reduce: Some(false), limit: Some(10), ..ViewOptions::default() };
    let key = ViewOptions { start: Some("[500]".into()), ..plain() };
    report("map", "10 rows", 1000, || fetch(&*db, "_count", &key)).await;
    let skip = ViewOptions { skip: count / 2, ..plain() };
    report("map", "skip half", 1000, || fetch(&*db, "_count", &skip)).await;
    let all = ViewOptions { limit: None, ..plain() };
    let start = Instant::now();
    let rows = fetch(&*db, "_count", &all).await;
    println!("map      all rows       {:>10.0} rows/s", rate(rows, start.elapsed()));
    let docs = ViewOptions { include_docs: true, limit: Some(100_000), ..plain() };
    let start = Instant::now();
    let rows = fetch(&*db, "_count", &docs).await;
    println!("map      include_docs   {:>10.0} rows/s", rate(rows, start.elapsed()));

    let (mut writes, mut queries) = (Vec::new(), Vec::new());
    for i in 0..1000_u64 {
        let doc = json!({"group": i * 7919 % 1000, "n": i});
        let deferred = WriteOptions { durability: Durability::Deferred, ..WriteOptions::default() };
        let start = Instant::now();
        db.put(doc.try_into().unwrap(), None, &deferred).await.unwrap();
        writes.push(start.elapsed());
        let start = Instant::now();
        let key = ViewOptions { start: Some(format!("[{}]", i % 1000)), ..plain() };
        fetch(&*db, "_sum", &key).await;
        queries.push(start.elapsed());
    }
    println!(
        "map      one write      {:>10.1?} (the write itself {:?})",
        median(queries),
        median(writes)
    );
    let start = Instant::now();
    load(&*db, 100_000).await;
    let wrote = start.elapsed();
    let start = Instant::now();
    fetch(&*db, "_sum", &plain()).await;
    let took = start.elapsed();
    println!(
        "map      100k writes    {took:>10.1?} {:>9.0} docs/s (written in {wrote:.1?})",
        rate(100_000, took)
    );
}

async fn load(db: &dyn Adapter, count: u64) {
    let options = WriteOptions { durability: Durability::Deferred, ..WriteOptions::default() };
    let filler = "lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam ".repeat(3);
    let mut n = 0;
    while n < count {
        let docs = (n..count.min(n + 1000)).map(|n| {
            let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            json!({"group": n % 1000, "n": n / 1000 % 1000, "filler": filler}).try_into().unwrap()
        });
        db.bulk_docs(docs.collect(), &options).await.unwrap();
        n += 1000;
    }
}

async fn fetch(db: &dyn Adapter, design: &str, options: &ViewOptions) -> u64 {
    let mut rows = db.view(design, "v", options).await.unwrap().rows;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().len() as u64;
    }
    count
}

async fn report<F: Future<Output = u64>>(
    what: &str,
    how: &str,
    times: usize,
    mut run: impl FnMut() -> F,
) {
    let mut took = Vec::new();
    let mut rows = 0;
    for _ in 0..times {
        let start = Instant::now();
        rows = run().await;
        took.push(start.elapsed());
    }
    let first = took[0];
    println!("{what:8} {how:14} {:>10.1?} median, first {first:.1?}, {rows} rows", median(took));
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() / 2]
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
