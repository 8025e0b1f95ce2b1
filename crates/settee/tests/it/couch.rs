//! What is particular to `Couch` and the embedded engine.

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_executor::block_on;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use settee::adapter::{Adapter, AllDbsOptions, DbUpdate, Host};
use settee::local::Local;
use settee::prelude::*;
use settee::wire::Seq;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// S-086.
#[test]
fn a_new_place_is_empty() {
    block_on(async {
        let couch = Couch::temporary().unwrap();
        assert_eq!(couch.all_dbs().await.unwrap(), [""; 0]);
        assert!(couch.is_empty().await.unwrap());
        couch.create("a").await.unwrap();
        assert_eq!(couch.len().await.unwrap(), 1);
    });
}

/// S-092: a second handle is a clone; opening a directory that is open already says so.
#[test]
fn a_directory_is_open_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let couch = Couch::open(dir.path()).unwrap();
    assert_eq!(Couch::open(dir.path()).unwrap_err().status(), 503);
    let clone = couch.clone();
    block_on(couch.create("a")).unwrap();
    assert!(block_on(clone.exists("a")).unwrap());
    drop((couch, clone));
    assert!(block_on(Couch::open(dir.path()).unwrap().exists("a")).unwrap());
}

#[test]
fn a_directory_stays_open_until_the_last_database_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let couch = Couch::open(dir.path()).unwrap();
    let db = block_on(couch.create("a")).unwrap();
    drop(couch);
    assert!(Couch::open(dir.path()).is_err());
    block_on(db.put(json!({"_id": "x"}))).unwrap();
    drop(db);
    let couch = Couch::open(dir.path()).unwrap();
    assert!(block_on(couch.db("a").unwrap().contains("x")).unwrap());
}

/// S-093.
#[test]
fn a_temporary_place_is_removed_with_its_last_handle() {
    let parent = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(parent.path()).unwrap().count();
    let couch = Couch::temporary_in(parent.path()).unwrap();
    let db = block_on(couch.create("a")).unwrap();
    block_on(db.put(json!({"_id": "x"}))).unwrap();
    drop(couch);
    assert_eq!(entries(), 1);
    assert!(block_on(db.contains("x")).unwrap());
    drop(db);
    assert_eq!(entries(), 0);
}

#[test]
fn a_directory_may_be_relative_and_is_created() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("some/where");
    block_on(Couch::open(&dir).unwrap().create("a")).unwrap();
    assert!(dir.is_dir());
    let file = parent.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    assert_eq!(Couch::open(&file).unwrap_err().status(), 500);
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = block_on(async {
        let couch = Couch::open(dir.path()).unwrap();
        let db = couch.create("a").await.unwrap();
        let mut doc = Document::with_id("x");
        db.put_attachment(&mut doc, "t.txt", "text", None).await.unwrap();
        db.put(json!({"_id": "_local/y", "n": 1})).await.unwrap();
        db.set_revs_limit(9).await.unwrap();
        couch.create("b").await.unwrap().destroy().await.unwrap();
        couch.uuid().await.unwrap()
    });
    block_on(async {
        let couch = Couch::open(dir.path()).unwrap();
        assert_eq!(couch.uuid().await.unwrap(), uuid);
        assert_eq!(couch.all_dbs().await.unwrap(), ["a"]);
        let db = couch.db("a").unwrap();
        assert_eq!(db.attachment("x", "t.txt").await.unwrap().bytes().await.unwrap(), "text");
        assert_eq!(db.get("_local/y").await.unwrap().get("n"), Some(json!(1)));
        assert_eq!(db.revs_limit().await.unwrap(), 9);
        assert_eq!(db.changes().fetch().await.unwrap().changes.len(), 1);
    });
    assert_eq!(settee::local::check(dir.path()).unwrap().problems, Vec::<String>::new());
}

/// CouchDB refuses the whole request for a stub that stands for nothing.
#[test]
fn one_bad_document_does_not_hold_up_the_others() {
    block_on(async {
        let db = Couch::memory().unwrap().create("a").await.unwrap();
        let docs = [
            json!({"_id": "a"}),
            json!({"_id": "b", "_attachments": {"a.txt": {"stub": true}}}),
            json!({"_id": "c", "_rev": "1-x"}),
            json!({"_id": "d"}),
        ];
        let results = db.bulk_docs(docs, true).await.unwrap();
        let told: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().map_or_else(|failed| failed.error.name(), |_| "ok"))
            .collect();
        assert_eq!(told, ["ok", "missing_stub", "conflict", "ok"]);
        assert_eq!(db.len().await.unwrap(), 2);
    });
}

/// A host that counts how often it is asked for ids.
#[derive(Debug)]
struct Counting(Local, Arc<AtomicUsize>);

#[async_trait]
impl Host for Counting {
    fn database(&self, name: &str) -> Result<Arc<dyn Adapter>> {
        self.0.database(name)
    }
    async fn exists(&self, name: &str) -> Result<bool> {
        self.0.exists(name).await
    }
    async fn create(&self, name: &str) -> Result<()> {
        self.0.create(name).await
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name).await
    }
    async fn all_dbs(&self, options: &AllDbsOptions) -> Result<Vec<String>> {
        self.0.all_dbs(options).await
    }
    async fn db_updates(
        &self,
        since: Option<Seq>,
        live: bool,
    ) -> Result<BoxStream<'static, Result<DbUpdate>>> {
        self.0.db_updates(since, live).await
    }
    async fn uuids(&self, count: usize) -> Result<Vec<String>> {
        assert!((50..=1000).contains(&count), "asked for {count} at once");
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.uuids(count).await
    }
    async fn uuid(&self) -> Result<String> {
        self.0.uuid().await
    }
}

/// S-118.
#[test]
fn one_request_for_ids_serves_fifty_documents() {
    let asked = Arc::new(AtomicUsize::new(0));
    let couch = Couch::from_host(Arc::new(Counting(Local::memory().unwrap(), asked.clone())));
    block_on(async {
        let db = couch.create("a").await.unwrap();
        for n in 0..50 {
            db.save(&mut json!({"n": n}).into_document().unwrap()).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        db.post(json!({})).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let docs = (0..2049).map(|n| json!({"n": n}));
        assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
        // 49 were left; the other 2000 come a thousand at a time.
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        assert_eq!(db.len().await.unwrap(), 2100);
    });
}

#[test]
fn everything_can_be_moved_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Couch>();
    check::<Database>();
    check::<settee::AllDocs>();
    check::<settee::Changes>();
    check::<settee::ConflictResolution>();
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let couch = Couch::memory().unwrap();
    let db = block_on(is_send(couch.create("a"))).unwrap();
    block_on(is_send(db.put(&json!({"_id": "a"})))).unwrap();
    block_on(is_send(db.upsert("a", json!({})))).unwrap();
    block_on(is_send(db.update_with("a", |doc| doc.set("n", 1)))).unwrap();
    block_on(is_send(db.copy("a", "b"))).unwrap();
    block_on(is_send(db.get_many(["a", "b"]))).unwrap();
    block_on(is_send(db.all_docs().fetch())).unwrap();
    let docs = [json!({}), json!({})];
    block_on(is_send(db.bulk_docs(docs, true))).unwrap();
    let doc = block_on(db.get("a")).unwrap();
    block_on(is_send(db.purge([&doc]))).unwrap();
}

#[cfg(feature = "blocking")]
#[test]
fn the_blocking_twin_does_the_same() {
    use settee::blocking::Couch;
    use std::io::Read;

    let couch = Couch::temporary().unwrap();
    let mut events = couch.events().unwrap();
    let db = couch.create("a").unwrap();
    assert_eq!(events.next().unwrap().unwrap().db_name, "a");
    let mut doc = json!({"_id": "x", "n": 1}).into_document().unwrap();
    db.save(&mut doc).unwrap();
    doc.set("n", 2).unwrap();
    db.save(&mut doc).unwrap();
    assert_eq!(db.revisions("x").unwrap().count(), 2);
    db.put_attachment(&mut doc, "t.txt", "some text", None).unwrap();
    let mut text = String::new();
    db.attachment(&doc, "t.txt").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "some text");
    assert_eq!(db.attachment("x", "t.txt").unwrap().bytes().unwrap(), "some text");
    assert!(db.attachment_opt("x", "u.txt").unwrap().is_none());
    let mut stale = [json!({"_id": "x"}).into_document().unwrap()];
    let mut outcome = db.save_all(&mut stale).unwrap();
    assert_eq!(outcome.to_string(), "<Conflict: x>");
    assert_eq!(outcome.overwrite().unwrap().to_string(), "<Success: 1 doc updated>");
    assert_eq!(db.all_docs().range("a"..).stream().unwrap().count(), 1);
    assert_eq!(db.changes().doc_ids(["x"]).fetch().unwrap().changes.len(), 1);
    assert_eq!(format!("{db:?}"), "<Database 'a'>");

    let mut live = db.changes().since_now().live().unwrap();
    let writer = std::thread::spawn({
        let db = db.clone();
        move || db.put(json!({"_id": "y"})).unwrap()
    });
    assert_eq!(live.next().unwrap().unwrap().id, "y");
    writer.join().unwrap();
}

#[test]
fn paths_may_be_of_any_kind() {
    let dir = tempfile::tempdir().unwrap();
    drop(Couch::open(dir.path()).unwrap());
    drop(Couch::open(PathBuf::from(dir.path())).unwrap());
    drop(Couch::open(dir.path().to_str().unwrap()).unwrap());
}

/// Whoever asked for it may go away before it is done.
#[test]
fn a_deletion_that_nobody_waits_for_frees_the_name() {
    let couch = Couch::memory().unwrap();
    block_on(async {
        for n in 0..20 {
            let db = couch.create("a").await.unwrap();
            db.put(json!({"_id": "x"})).await.unwrap();
            let _ = couch.delete("a").now_or_never();
            // What is committed later finds it done.
            couch.create(&format!("b{n}")).await.unwrap();
            assert!(!couch.exists("a").await.unwrap());
        }
        let db = couch.create("a").await.unwrap();
        db.put(json!({"_id": "y"})).await.unwrap();
        assert_eq!(db.len().await.unwrap(), 1);
        let updates = couch.db_updates(Some(Seq::default()), false).await.unwrap();
        let updates: Vec<_> = updates.map(Result::unwrap).collect().await;
        assert_eq!(updates.iter().filter(|update| update.db_name == "a").count(), 1);
    });
}
