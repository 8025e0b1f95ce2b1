//! Smoke and speed, by hand.
use futures_util::StreamExt;
use settee::adapter::*;
use settee::local::*;
use settee_core::options::*;
use settee_core::*;
use std::time::Instant;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let local = if dir == "mem" {
        Local::memory().unwrap()
    } else {
        Local::open(&dir, &LocalOptions::default()).unwrap()
    };
    futures_executor::block_on(async {
        let _ = local.delete("x").await;
        local.create("x").await.unwrap();
        let db = local.database("x").unwrap();
        let doc = |id: &str| -> Document {
            format!(r#"{{"_id":"{id}","name":"John Doe","type":"person","tags":["a","b","c"],"n":12345,"f":1.5,"pad":"{}"}}"#, "x".repeat(200)).parse().unwrap()
        };
        let s = db.put(doc("a"), None, &WriteOptions::default()).await.unwrap();
        println!("{s:?}");
        let d = db
            .get("a", &GetOptions { revs: true, revs_info: true, ..Default::default() })
            .await
            .unwrap();
        println!("{}", d.to_json());
        println!("{:?}", db.put(doc("a"), None, &WriteOptions::default()).await.unwrap_err());
        let mut e = doc("a");
        e.rev = Some(s.rev.clone());
        e.attachments.push(Attachment::inline("t.txt", "text/plain", "hello hello hello"));
        let s2 = db.put(e, None, &WriteOptions::default()).await.unwrap();
        println!("{s2:?}");
        let d = db
            .get("a", &GetOptions { revs: true, attachments: true, ..Default::default() })
            .await
            .unwrap();
        println!("{}", d.to_json());
        let mut ch = db.changes(&ChangesOptions::default()).await.unwrap();
        while let Some(b) = ch.next().await {
            println!("{:?}", b.unwrap());
        }
        println!("{:?}", db.info().await.unwrap());
        println!("{:?}", local.check().unwrap());
        // bulk
        let n = 100_000;
        let texts: Vec<String> = (0..n).map(|i| format!(r#"{{"_id":"{i:08}","name":"John Doe {i}","type":"person","tags":["a","b","c"],"n":{i},"f":1.5,"pad":"{}"}}"#, "x".repeat(200))).collect();
        let t = Instant::now();
        let docs: Vec<Document> = texts
            .iter()
            .map(|t| Document::parse(t.as_bytes(), &settee_core::json::Limits::default()).unwrap())
            .collect();
        println!("parse {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        for c in docs.chunks(1000) {
            let r = db.bulk_docs(c.to_vec(), &WriteOptions::default()).await.unwrap();
            assert!(r.iter().all(|r| r.is_ok()));
        }
        println!("bulk {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        for i in 0..n {
            let i = (i * 7919) % n;
            let d = db.get(&texts[i][8..16], &GetOptions::default()).await.unwrap();
            assert!(d.rev.is_some());
        }
        println!("get {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
        for include_docs in [false, true] {
            let t = Instant::now();
            let mut r =
                db.all_docs(&AllDocsOptions { include_docs, ..Default::default() }).await.unwrap();
            let mut k = 0;
            while let Some(b) = r.rows.next().await {
                k += b.unwrap().len();
            }
            println!("all_docs {include_docs} {:.0}/s", k as f64 / t.elapsed().as_secs_f64());
            let t = Instant::now();
            let mut r =
                db.changes(&ChangesOptions { include_docs, ..Default::default() }).await.unwrap();
            let mut k = 0;
            while let Some(b) = r.next().await {
                k += b.unwrap().changes.len();
            }
            println!("changes {include_docs} {:.0}/s", k as f64 / t.elapsed().as_secs_f64());
        }
        let t = Instant::now();
        for i in 0..1000 {
            db.put(doc(&format!("s{i}")), None, &WriteOptions::default()).await.unwrap();
        }
        println!("single {:.0}/s", 1000.0 / t.elapsed().as_secs_f64());
        println!("{:?}", local.store_stats());
    });
    let t = Instant::now();
    let handles: Vec<_> = (0..64)
        .map(|w| {
            let local = local.clone();
            std::thread::spawn(move || {
                let db = local.database("x").unwrap();
                for i in 0..300 {
                    let d: Document =
                        format!(r#"{{"_id":"w{w}-{i}","name":"John"}}"#).parse().unwrap();
                    futures_executor::block_on(db.put(d, None, &WriteOptions::default())).unwrap();
                }
            })
        })
        .collect();
    for h in handles {
        h.join().unwrap();
    }
    println!(
        "64 writers {:.0}/s {:?}",
        64.0 * 300.0 / t.elapsed().as_secs_f64(),
        local.store_stats()
    );
    let t = Instant::now();
    println!("{:?}", local.check().unwrap());
    println!("check {:?}", t.elapsed());
}
