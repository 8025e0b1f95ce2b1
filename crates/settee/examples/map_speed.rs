//! Measures how fast functions in JavaScript run:
//! `cargo run --release -p settee --features js --example map_speed [documents]`.
//!
//! Gives the rate by the clock, and by the processor time used, which holds on a busy machine too.
#![allow(clippy::print_stdout)]

use settee::Result;
use settee::script::{JsEngine, MapSource, ReduceCall, ReduceSource, ScriptEngine, ScriptOptions};
use std::time::Instant;

/// Seconds of processor time that this process has used, where the system tells.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(12) + ticks(13)) / 100.0
}

fn measure(what: &str, count: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (began, used) = (Instant::now(), cpu());
    work()?;
    let (took, used) = (began.elapsed().as_secs_f64(), cpu() - used);
    let count = count as f64;
    println!("{what:36} {:>8.0}/s, {:>8.0}/s of one core", count / took, count / used);
    Ok(())
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let docs: Vec<String> = (0..count)
        .map(|i| {
            format!(
                r#"{{"_id":"doc-{i:08}","_rev":"1-967a00dff5e02add41819138abb3284d","name":"name {i}","type":"person","age":{},"email":"somebody{i}@example.com","tags":["alpha","beta","gamma"],"address":{{"street":"Main Street 1","city":"Springfield","zip":"12345"}},"active":true,"score":12.5,"note":"fills it up"}}"#,
                i % 90
            )
        })
        .collect();
    let docs: Vec<&str> = docs.iter().map(String::as_str).collect();
    println!("{count} documents of {} bytes", docs.first().map_or(0, |doc| doc.len()));
    let engine = JsEngine::new(ScriptOptions { threads: Some(1), ..ScriptOptions::default() });
    let four = [
        "function(doc) { emit(doc.name, 1) }",
        "function(doc) { emit([doc.type, doc.age], null) }",
        "function(doc) { for (var i in doc.tags) emit(doc.tags[i], doc.score) }",
        "function(doc) { if (doc.active) emit(doc.address.city, doc) }",
    ];
    for (what, functions) in [("one function", &four[..1]), ("four functions", &four[..])] {
        for batch in [10, 100, 1000] {
            let mapper = engine.mapper(&MapSource { database: "db", functions, lib: None })?;
            measure(&format!("{what}, batches of {batch}"), docs.len(), || {
                for docs in docs.chunks(batch) {
                    let mapped = mapper.map(docs)?;
                    let emitted = |n| mapped.get(n, 0).is_ok_and(|rows| rows.count() == 1);
                    assert!((0..mapped.len()).all(emitted));
                }
                Ok(())
            })?;
        }
    }
    let function = "function(keys, values, rereduce) { return sum(values) }";
    let reducer = engine.reducer(&ReduceSource { database: "db", function, name: "v" })?;
    let keys = format!("[{}]", [r#"["some key","some id"]"#; 50].join(","));
    let values = format!("[{}]", ["17"; 50].join(","));
    for batch in [1, 100] {
        let calls = vec![ReduceCall { keys: Some(&keys), values: &values }; batch];
        let times = 20_000 / batch;
        measure(&format!("reductions of 50, batches of {batch}"), times * batch, || {
            (0..times).try_for_each(|_| {
                reducer.reduce(&calls).into_iter().try_for_each(|reduced| reduced.map(drop))
            })
        })?;
    }
    Ok(())
}
