//! How fast one server's databases replicate to another's over loopback, with everything in one
//! process: `cargo run --release -p settee-server --example replicate_http`.
//!
//! Arguments: how many documents, how many changes go through together, how many batches at once, and
//! a directory (memory, if none is given).

use settee::local::{Local, LocalOptions};
use settee::remote::{Remote, RemoteOptions};
use settee::{Couch, Database, Document};
use settee_server::{Config, ConfigSource, Server};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A server of its own: its databases, and the way to them over HTTP.
async fn serve(dir: Option<&Path>) -> Result<(Couch, Couch)> {
    let couch = match dir {
        None => Couch::memory()?,
        Some(dir) => Couch::from_host(Arc::new(Local::open(dir, &LocalOptions::default())?)),
    };
    let mut source = ConfigSource::default();
    source.overrides.push(("admins".into(), "root".into(), "secret".into()));
    let config = Config::open(source)?;
    config.hash_plain_admins();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://root:secret@{}", listener.local_addr()?);
    let server = Server::new(couch.host().clone(), config);
    tokio::spawn(server.serve(listener, std::future::pending()));
    let remote = Couch::from_host(Arc::new(Remote::connect(&url, &RemoteOptions::new())?));
    Ok((couch, remote))
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg =
        |n: usize, usual: usize| args.get(n).and_then(|arg| arg.parse().ok()).unwrap_or(usual);
    let (count, batch_size, batches) = (arg(0, 50_000), arg(1, 250), arg(2, 4));
    let dir = args.get(3).map(Path::new);
    let (here, here_http) = serve(dir.map(|dir| dir.join("a")).as_deref()).await?;
    let (there, there_http) = serve(dir.map(|dir| dir.join("b")).as_deref()).await?;
    let source = here.create("source").await?;
    let padding = "x".repeat(200);
    let docs = (0..count).map(|n| {
        format!(r#"{{"_id":"{n:08}","type":"person","name":"Jane {n}","n":{n},"pad":"{padding}"}}"#)
            .parse::<Document>()
    });
    let docs: Vec<Document> = docs.collect::<std::result::Result<_, _>>()?;
    for docs in docs.chunks(1000) {
        source.bulk_docs(docs.to_vec(), true).await?;
    }
    let remote_source = here_http.db("source")?;
    let target = |couch: &Couch, name: &str| -> Result<Database> { Ok(couch.db(name)?) };
    for (what, source, name) in
        [("push", &source, "push"), ("server to server", &remote_source, "through")]
    {
        there.create(name).await?;
        let replicate = async |source: &Database, target: &Database, what: &str| -> Result<()> {
            let started = Instant::now();
            let run = source.replicate_to(target).batch_size(batch_size).batches_limit(batches);
            let result = run.run().await?;
            let seconds = started.elapsed().as_secs_f64();
            let rate = count as f64 / seconds;
            let written = result.counters.docs_written;
            eprintln!("{what:<18} {rate:>8.0} docs/s, {written} written in {seconds:.2} s");
            Ok(())
        };
        replicate(source, &target(&there_http, name)?, what).await?;
    }
    there.create("pull").await?;
    let started = Instant::now();
    let run = remote_source.replicate_to(target(&there, "pull")?).batch_size(batch_size);
    let result = run.batches_limit(batches).run().await?;
    let seconds = started.elapsed().as_secs_f64();
    let written = result.counters.docs_written;
    eprintln!("{:<18} {:>8.0} docs/s, {written} written", "pull", count as f64 / seconds);
    Ok(())
}
