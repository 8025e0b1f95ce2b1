//! Many databases and many feeds.

use crate::block_on;
use crate::child::{Process, memory, say};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use settee::adapter::{AllDbsOptions, Host};
use settee::local::{Local, LocalOptions};
use settee_core::Document;
use settee_core::options::{ChangesOptions, GetOptions, WriteOptions};
use std::time::Instant;

/// The child: makes databases and writes to each.
pub(crate) fn databases(argument: &str) {
    let (dir, count) = argument.split_once(' ').unwrap();
    let count: usize = count.parse().unwrap();
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    let names: Vec<_> = (0..count).map(|n| format!("user-{n}")).collect();
    let began = Instant::now();
    for names in names.chunks(256) {
        let work = names.iter().map(|name| {
            let local = &local;
            async move {
                local.create(name).await?;
                let db = local.database(name)?;
                db.put(Document::with_id("doc"), None, &WriteOptions::default()).await
            }
        });
        for outcome in block_on(join_all(work)) {
            outcome.unwrap();
        }
    }
    println!("{count} databases made in {:?}", began.elapsed());
    say(&format!("memory {}", memory("self", "VmHWM")));
}

/// The child: opens them, reads one, then all.
pub(crate) fn reopen(argument: &str) {
    let (dir, count) = argument.split_once(' ').unwrap();
    let count: usize = count.parse().unwrap();
    let began = Instant::now();
    let local = Local::open(dir, &LocalOptions::default()).unwrap();
    let get = |name: &str| {
        let db = local.database(name).unwrap();
        block_on(db.get("doc", &GetOptions::default())).unwrap();
    };
    get("user-0");
    println!("opened, and a document read, in {:?}", began.elapsed());
    println!("KiB: {} after the first", memory("self", "VmRSS"));
    let names = block_on(local.all_dbs(&AllDbsOptions::default())).unwrap();
    assert_eq!(names.len(), count);
    for name in &names {
        get(name);
    }
    assert_eq!(local.check().unwrap().databases, count as u64);
    say(&format!("memory {}", memory("self", "VmHWM")));
}

#[test]
fn ten_thousand_databases_in_one_directory_cost_little() {
    const COUNT: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let argument = format!("{} {COUNT}", dir.path().display());
    for role in ["databases", "reopen"] {
        let peak: u64 = Process::start(role, &argument).finish("memory").parse().unwrap();
        println!("{role}: at most {} MiB of memory", peak / 1024);
        assert!(peak / 1024 < 100, "{role}: {} MiB", peak / 1024);
    }
    // Databases are rows, not files.
    let files = std::fs::read_dir(dir.path().join("data")).unwrap().count();
    assert!(files < 100, "{files} files");
}

#[test]
fn ten_thousand_live_feeds_each_get_a_change() {
    const COUNT: usize = 10_000;
    let local = Local::memory().unwrap();
    block_on(async {
        local.create("db").await.unwrap();
        let db = local.database("db").unwrap();
        let options = ChangesOptions { live: true, ..ChangesOptions::default() };
        let before = memory("self", "VmRSS");
        let mut feeds = Vec::new();
        for _ in 0..COUNT {
            let mut feed = db.changes(&options).await.unwrap();
            assert_eq!(feed.next().await.unwrap().unwrap().changes, []);
            feeds.push(feed);
        }
        let mut waiting: FuturesUnordered<_> = feeds.iter_mut().map(|feed| feed.next()).collect();
        let mut got = 0;
        // Each waits, so that it is the write that wakes it.
        std::future::poll_fn(|context| {
            assert!(waiting.poll_next_unpin(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        println!("{} KiB more for {COUNT} feeds", memory("self", "VmRSS").saturating_sub(before));
        db.put(Document::with_id("a"), None, &WriteOptions::default()).await.unwrap();
        while let Some(batch) = waiting.next().await {
            assert_eq!(batch.unwrap().unwrap().changes[0].id, "a");
            got += 1;
        }
        assert_eq!(got, COUNT);
    });
}
