//! What becomes of databases that are deleted.

use crate::big::disk;
use crate::block_on;
use futures_util::StreamExt;
use rand::RngCore;
use settee::adapter::Host;
use settee::local::{Local, LocalOptions};
use settee_core::options::{
    AllDocsOptions, AttachmentHead, ChangesOptions, GetOptions, WriteOptions,
};
use settee_core::wire::Seq;
use settee_core::{Attachment, Document};

fn fill(local: &Local, name: &str) {
    block_on(async {
        local.create(name).await.unwrap();
        let db = local.database(name).unwrap();
        let mut random = vec![0; 4 << 20];
        rand::rng().fill_bytes(&mut random);
        let docs = random.chunks(20_000).enumerate().map(|(n, bytes)| {
            let mut doc = Document::with_id(format!("{n}"));
            let bytes = bytes.to_vec();
            doc.attachments.push(Attachment::inline("a", "image/png", bytes));
            doc
        });
        for outcome in db.bulk_docs(docs.collect(), &WriteOptions::default()).await.unwrap() {
            outcome.unwrap();
        }
        let local_doc = Document::with_id("_local/x");
        db.put(local_doc, None, &WriteOptions::default()).await.unwrap();
        let mut upload = vec![0; 300_000];
        rand::rng().fill_bytes(&mut upload);
        let body = futures_util::stream::iter([Ok(upload.into())]).boxed();
        db.put_attachment("large", "a", None, AttachmentHead::default(), body).await.unwrap();
    });
}

#[test]
fn compaction_gives_back_the_space_of_a_deleted_database() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    fill(&local, "keep");
    local.compact().unwrap();
    let before = disk(dir.path(), false);
    fill(&local, "drop");
    local.compact().unwrap();
    let filled = disk(dir.path(), false);
    assert!(filled >= before + (4 << 20), "{before} then {filled}");
    block_on(local.delete("drop")).unwrap();
    local.compact().unwrap();
    let after = disk(dir.path(), false);
    assert!(after < before + (100 << 10), "{before}, filled {filled}, then {after}");
    assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    drop(local);
    let local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
    assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
    let info = block_on(local.database("keep").unwrap().info()).unwrap();
    assert_eq!(info.doc_count, 4 * 1024 * 1024 / 20_000 + 2);
}

#[test]
fn a_database_created_again_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    for reopened in [false, true] {
        let mut local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
        fill(&local, "db");
        let old = local.database("db").unwrap();
        block_on(async {
            local.delete("db").await.unwrap();
            assert!(!local.exists("db").await.unwrap());
            assert!(old.info().await.unwrap_err().is_not_found());
        });
        if reopened {
            drop(old);
            drop(local);
            local = Local::open(dir.path(), &LocalOptions::default()).unwrap();
        }
        block_on(async {
            local.create("db").await.unwrap();
            let db = local.database("db").unwrap();
            let info = db.info().await.unwrap();
            assert_eq!((info.doc_count, info.doc_del_count), (0, 0));
            assert_eq!((info.update_seq, info.sizes.external), (Seq::Number(0), 0));
            for id in ["1", "_local/x", "large"] {
                let got = db.get(id, &GetOptions::default()).await;
                assert!(got.unwrap_err().is_not_found());
            }
            let mut changes = db.changes(&ChangesOptions::default()).await.unwrap();
            assert_eq!(changes.next().await.unwrap().unwrap().changes, []);
            let mut rows = db.all_docs(&AllDocsOptions::default()).await.unwrap().rows;
            assert!(rows.next().await.is_none());
            // The very first revision of what was there before.
            db.put(Document::with_id("1"), None, &WriteOptions::default()).await.unwrap();
        });
        local.compact().unwrap();
        assert_eq!(local.check().unwrap().problems, Vec::<String>::new());
        block_on(async {
            let db = local.database("db").unwrap();
            assert_eq!(db.info().await.unwrap().doc_count, 1);
            local.delete("db").await.unwrap();
        });
    }
}

#[test]
fn feeds_on_a_deleted_database_end() {
    let local = Local::memory().unwrap();
    block_on(local.create("db")).unwrap();
    let db = local.database("db").unwrap();
    let options = ChangesOptions { live: true, ..ChangesOptions::default() };
    let feeds: Vec<_> = (0..10)
        .map(|_| {
            let mut feed = block_on(db.changes(&options)).unwrap();
            assert_eq!(block_on(feed.next()).unwrap().unwrap().changes, []);
            std::thread::spawn(move || block_on(feed.next()).is_none())
        })
        .collect();
    block_on(local.delete("db")).unwrap();
    // A namesake is another database.
    block_on(local.create("db")).unwrap();
    for feed in feeds {
        assert!(feed.join().unwrap());
    }
    let gone = block_on(local.database("db").unwrap().changes(&options));
    drop(gone.unwrap());
}
