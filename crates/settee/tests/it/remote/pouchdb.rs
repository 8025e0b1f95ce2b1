//! A server that is not CouchDB and not ours: PouchDB Server, from npm. `SETTEE_POUCHDB_SERVER` says
//! where its command is.

use serde_json::json;
use settee::options::{BulkGetItem, GetOptions};
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use settee::wire::RevResult;
use settee::{Attachment, AttachmentData};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use testkit::conformance::{Place, find};
use testkit::time::soon;

/// The server's process, until the test ends.
struct Pouch(Child);

impl Drop for Pouch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one, if there is one, with its databases in memory.
async fn start() -> Option<(Pouch, Remote, tempfile::TempDir)> {
    let Ok(command) = std::env::var("SETTEE_POUCHDB_SERVER") else {
        eprintln!("SKIPPED: SETTEE_POUCHDB_SERVER names no pouchdb-server");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(command)
        .args(["--in-memory", "--host", "127.0.0.1", "--port", &port.to_string()])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pouch = Pouch(child);
    let options = RemoteOptions::new().heartbeat(Duration::from_millis(500));
    let remote = Remote::connect(&format!("http://127.0.0.1:{port}"), &options).unwrap();
    let ready = async {
        while !remote.ping().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(ready).await;
    Some((pouch, remote, dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn pouchdb_server_will_do() {
    let Some((_pouch, remote, _dir)) = start().await else { return };
    let couch = Couch::from_host(Arc::new(remote.clone()));
    assert!(!remote.version().await.unwrap().to_string().is_empty());
    let db = couch.create("db").await.unwrap();
    assert_eq!(couch.create("db").await.unwrap_err().name(), "file_exists");
    assert!(couch.all_dbs().await.unwrap().contains(&"db".to_owned()));

    // Documents.
    let mut doc = json!({"_id": "a/b +ü", "n": 1}).into_document().unwrap();
    db.save(&mut doc).await.unwrap();
    let stale = doc.clone();
    doc.set("n", 2).unwrap();
    db.save(&mut doc).await.unwrap();
    assert_eq!(db.get("a/b +ü").await.unwrap().get("n"), Some(json!(2)));
    assert!(db.save(&mut stale.clone()).await.unwrap_err().is_conflict());
    assert_eq!(db.get("never").await.unwrap_err().reason(), "missing");
    db.delete(&doc).await.unwrap();
    assert!(db.get("a/b +ü").await.unwrap_err().is_not_found());
    db.put(json!({"_id": "_local/x", "n": 1})).await.unwrap();
    assert_eq!(db.get("_local/x").await.unwrap().get("n"), Some(json!(1)));

    // Many of them.
    let docs = (0..500).map(|n| json!({"_id": format!("{n:03}"), "n": n}));
    assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
    let all = db.all_docs().include_docs().fetch().await.unwrap();
    assert_eq!((all.rows.len(), all.total_rows), (500, Some(500)));
    assert_eq!(all.rows[7].doc.as_ref().unwrap().get("n"), Some(json!(7)));
    let some = db.all_docs().keys(["010", "never"]).fetch().await.unwrap();
    assert_eq!((some.rows[0].rev.is_some(), some.rows[1].rev.is_some()), (true, false));

    // Revisions from elsewhere.
    let rev = |text: &str| text.parse::<settee::Rev>().unwrap();
    let docs = ["2-b", "2-a"].map(|rev| {
        let (start, id) = rev.split_once('-').unwrap();
        let revisions = json!({"start": start.parse::<u64>().unwrap(), "ids": [id, "x"]});
        json!({"_id": "conflicted", "_rev": rev, "_revisions": revisions})
    });
    assert!(db.bulk_docs(docs, false).await.unwrap().iter().all(Result::is_ok));
    let asked = [("conflicted".to_owned(), vec![rev("2-b"), rev("2-c")])].into();
    let missing = db.adapter().revs_diff(&asked).await.unwrap();
    assert_eq!(missing["conflicted"].missing, [rev("2-c")]);
    let items = [("conflicted", Some("2-a")), ("never", Some("1-x")), ("007", None)]
        .map(|(id, asked)| BulkGetItem { id: id.into(), rev: asked.map(rev), atts_since: vec![] });
    let options = GetOptions { revs: true, ..GetOptions::default() };
    let results = db.adapter().bulk_get(items.to_vec(), &options).await.unwrap();
    let results: Vec<_> = results.try_collect().await.unwrap();
    assert!(matches!(&results[0].1[..], [RevResult::Found(doc)] if doc.rev == Some(rev("2-a"))));
    assert!(matches!(&results[1].1[..], [RevResult::Missing(_)]));
    assert!(matches!(&results[2].1[..], [RevResult::Found(_)]));

    // Attachments.
    let mut doc = Document::with_id("attached");
    db.put_attachment(&mut doc, "t.txt", "some text", None).await.unwrap();
    db.put_attachment(&mut doc, "b.bin", vec![7; 100_000], None).await.unwrap();
    let reader = db.attachment("attached", "b.bin").await.unwrap();
    assert_eq!(
        (reader.length, reader.content_type.as_str()),
        (100_000, "application/octet-stream")
    );
    assert_eq!(reader.bytes().await.unwrap(), vec![7; 100_000]);
    let options = GetOptions { attachments: true, ..GetOptions::default() };
    let whole = db.get_with("attached", &options).await.unwrap();
    assert_eq!(whole.attachments.len(), 2);
    db.delete_attachment(&mut doc, "t.txt").await.unwrap();
    assert!(db.attachment("attached", "t.txt").await.unwrap_err().is_not_found());

    // Changes.
    let changes = db.changes().fetch().await.unwrap();
    assert_eq!(changes.changes.len(), 503);
    let mut live = db.changes().since_now().live().await.unwrap();
    for n in 0..5 {
        let id = format!("live-{n}");
        db.put(json!({"_id": id})).await.unwrap();
        assert_eq!(soon(live.try_next()).await.unwrap().unwrap().id, id);
    }
    couch.delete("db").await.unwrap();
    assert!(!couch.exists("db").await.unwrap());

    // Queries by selector, but for `_explain`, which it cannot.
    let place = Place::new(Arc::new(remote));
    find::documents_are_found_by_a_selector(place.clone()).await;
    find::a_stream_of_what_is_found_goes_over_all_pages(place).await;
}

/// A document with an attachment, compressible or not.
fn document(n: usize) -> Document {
    let mut doc = Document::with_id(format!("doc-{n:06}"));
    doc.set("n", n).unwrap();
    doc.attachments = vec![match n % 3 {
        0 => Attachment::inline("note.txt", "text/plain", format!("note {n} ").repeat(30)),
        _ => {
            let bytes = vec![(n % 251) as u8; 20 + n % 400];
            Attachment::inline("data.bin", "application/octet-stream", bytes)
        }
    }];
    doc
}

async fn fill(db: &Database, first: usize, count: usize) {
    for from in (first..first + count).step_by(500) {
        let docs = (from..(from + 500).min(first + count)).map(document);
        assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
    }
}

/// Every document with its revision and its attachment's bytes.
async fn everything(db: &Database) -> Vec<(String, String, Vec<u8>)> {
    let rows = db.all_docs().fetch().await.unwrap().rows;
    let mut all = Vec::new();
    for rows in rows.chunks(500) {
        let items = rows.iter().map(|row| BulkGetItem {
            id: row.id.clone(),
            rev: row.rev.clone(),
            atts_since: Vec::new(),
        });
        let options = GetOptions { attachments: true, ..GetOptions::default() };
        let found = db.adapter().bulk_get(items.collect(), &options).await.unwrap();
        let mut found = found.into_stream();
        while let Some((id, results)) = found.try_next().await.unwrap() {
            let [RevResult::Found(doc)] = &results[..] else { panic!("{id}: {results:?}") };
            let [attachment] = &doc.attachments[..] else { panic!("{doc:?}") };
            let AttachmentData::Inline(bytes) = &attachment.data else { panic!("{doc:?}") };
            all.push((id, doc.rev.as_ref().unwrap().to_string(), bytes.to_vec()));
        }
    }
    all
}

/// `SETTEE_PEER_DOCS` says how many documents go each way.
#[tokio::test(flavor = "multi_thread")]
async fn replication_with_pouchdb_server_ends_equal() {
    let Some((_pouch, remote, _dir)) = start().await else { return };
    let count = std::env::var("SETTEE_PEER_DOCS").map_or(2_000, |count| count.parse().unwrap());
    let far = Couch::from_host(Arc::new(remote)).create("db").await.unwrap();
    let near = Couch::memory().unwrap().create("db").await.unwrap();
    fill(&near, 0, count).await;
    fill(&far, count, count).await;
    let written = count as u64;
    for (what, run) in [("push", near.replicate_to(&far)), ("pull", near.replicate_from(&far))] {
        let began = std::time::Instant::now();
        let result = run.clone().run().await.unwrap();
        println!("{what}: {count} documents with attachments in {:?}", began.elapsed());
        assert!(result.ok, "{:?}", result.errors);
        assert_eq!(result.counters.docs_written, written, "{what}");
        assert_eq!(run.run().await.unwrap().counters.docs_written, 0, "{what} again");
    }
    let (here, there) = (everything(&near).await, everything(&far).await);
    assert_eq!(here.len(), 2 * count);
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here, there);
    }
    assert_eq!(here.len(), there.len());
}
