//! Compaction that nobody asked for.

use settee::Couch;
use settee_core::Document;
use settee_core::options::GetOptions;

/// An application that edits and never compacts: old bodies must not take more and more space.
#[tokio::test(flavor = "multi_thread")]
async fn old_bodies_go_by_themselves_once_they_outweigh_what_is_current() {
    let couch = Couch::memory().unwrap();
    let db = couch.create("db").await.unwrap();
    let mut doc = Document::with_id("doc");
    doc.set("text", "x".repeat(1 << 20)).unwrap();
    let mut first = None;
    for n in 0..100 {
        doc.set("n", n).unwrap();
        let saved = db.put(doc.clone()).await.unwrap();
        first.get_or_insert(saved.rev.clone());
        doc.rev = Some(saved.rev);
    }
    let gone = GetOptions { rev: first, ..GetOptions::default() };
    for _ in 0..200 {
        if db.get_with("doc", &gone).await.is_err_and(|error| error.is_not_found()) {
            assert_eq!(db.get("doc").await.unwrap().rev, doc.rev);
            return;
        }
        testkit::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the first revision is still here");
}
