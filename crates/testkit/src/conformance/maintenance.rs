//! Compaction, purging, limits, and what makes writes durable.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, deleted, doc, graft, missing, rev, revs};
use futures_util::future::join;
use serde_json::json;
use settee::options::GetOptions;
use settee::prelude::*;
use settee::wire::RevsByDoc;

pub async fn compaction_drops_old_revisions_and_nothing_else(place: Place) {
    let db = place.db().await;
    let mut a = doc(json!({"_id": "a", "n": 0}));
    let mut old = Vec::new();
    for n in 1..=5 {
        a.set("n", n).unwrap();
        old.push(db.save(&mut a).await.unwrap().rev);
    }
    db.put_attachment(&mut a, "a.txt", "some text", None).await.unwrap();
    graft(&db, "b", &["2-b", "1-a"], false, json!({"is": "2-b"})).await;
    graft(&db, "b", &["2-c", "1-a"], false, json!({"is": "2-c"})).await;
    let gone = db.put(json!({"_id": "c"})).await.unwrap().rev;
    let gone = json!({"_id": "c", "_rev": gone, "_deleted": true, "by": "x"});
    let gone = db.put(gone).await.unwrap();
    db.put(json!({"_id": "_local/d", "n": 1})).await.unwrap();
    let before = db.info().await.unwrap();

    place.compact(&db).await;

    for rev in old {
        missing(db.get_with("a", &GetOptions { rev: Some(rev), ..Default::default() }).await);
    }
    let a = db.get("a").await.unwrap();
    assert_eq!(a.get("n"), Some(json!(5)));
    assert_eq!(db.attachment(&a, "a.txt").await.unwrap().bytes().await.unwrap(), "some text");
    assert_eq!(db.revision_ids("a").await.unwrap().len(), 6);
    for leaf in ["2-b", "2-c"] {
        let options = GetOptions { rev: Some(rev(leaf)), ..Default::default() };
        assert_eq!(db.get_with("b", &options).await.unwrap().get("is"), Some(json!(leaf)));
    }
    deleted(db.get("c").await);
    let options = GetOptions { rev: Some(gone.rev), ..Default::default() };
    assert_eq!(db.get_with("c", &options).await.unwrap().get("by"), Some(json!("x")));
    assert_eq!(db.get("_local/d").await.unwrap().get("n"), Some(json!(1)));
    let after = db.info().await.unwrap();
    assert_eq!(after.update_seq, before.update_seq);
    assert_eq!((after.doc_count, after.doc_del_count), (before.doc_count, before.doc_del_count));
}

pub async fn writers_go_on_during_compaction(place: Place) {
    let db = place.db().await;
    for id in ["a", "b", "c"] {
        for n in 0..20 {
            db.upsert(id, json!({"n": n})).await.unwrap();
        }
    }
    let write = async {
        for n in 20..60 {
            for id in ["a", "b", "c"] {
                db.upsert(id, json!({"n": n})).await.unwrap();
            }
        }
    };
    let compact = async {
        for _ in 0..3 {
            place.compact(&db).await;
        }
    };
    join(write, compact).await;
    for id in ["a", "b", "c"] {
        let read = db.get(id).await.unwrap();
        assert_eq!((read.get("n"), read.rev.unwrap().pos), (Some(json!(59)), 60));
    }
    assert_eq!(db.len().await.unwrap(), 3);
}

pub async fn a_purged_document_never_was(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "kept"})).await.unwrap();
    db.put(json!({"_id": "a", "n": 1})).await.unwrap();
    db.upsert("a", json!({"n": 2})).await.unwrap();
    let mut a = db.get("a").await.unwrap();
    db.put_attachment(&mut a, "x.txt", "x", None).await.unwrap();
    let purged = db.purge([&a]).await.unwrap();
    assert_eq!(purged.purged["a"], [a.rev.clone().unwrap()]);
    missing(db.get("a").await);
    missing(db.attachment("a", "x.txt").await);
    let options = GetOptions { rev: a.rev.clone(), ..Default::default() };
    missing(db.get_with("a", &options).await);
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (1, 0));
    let changes = db.changes().fetch().await.unwrap().changes;
    assert_eq!(changes.iter().map(|change| change.id.as_str()).collect::<Vec<_>>(), ["kept"]);
    let rows = db.all_docs().keys(["a"]).fetch().await.unwrap().rows;
    assert_eq!((rows[0].rev.as_ref(), rows[0].deleted), (None, false));
    let asked = RevsByDoc::from([("a".to_owned(), vec![a.rev.unwrap()])]);
    assert_eq!(db.revs_diff(&asked).await.unwrap()["a"].missing.len(), 1);
    // And begins anew.
    assert_eq!(db.put(json!({"_id": "a"})).await.unwrap().rev.pos, 1);
}

pub async fn purging_one_leaf_leaves_the_others(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({"is": "c"})).await;
    graft(&db, "a", &["3-d", "2-b", "1-a"], false, json!({"is": "d"})).await;
    db.purge([("a", &rev("3-d"))]).await.unwrap();
    let read = db.get("a").await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("is")), (Some(&rev("3-c")), Some(json!("c"))));
    assert!(db.conflicts("a").await.unwrap().is_empty());
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["3-c", "2-b", "1-a"]));
}

pub async fn only_leaves_are_purged(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({})).await;
    let asked = [("a", rev("2-b")), ("a", rev("9-x")), ("never", rev("1-a"))];
    let purged = db.purge(asked.iter().map(|(id, rev)| (*id, rev))).await.unwrap().purged;
    assert!(purged.values().all(Vec::is_empty), "{purged:?}");
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["3-c", "2-b", "1-a"]));
}

pub async fn a_purged_deletion_is_gone_too(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "a"})).await.unwrap();
    let gone = db.delete_current("a").await.unwrap().rev;
    db.purge([("a", &gone)]).await.unwrap();
    missing(db.get("a").await);
    assert_eq!(db.info().await.unwrap().doc_del_count, 0);
    assert!(db.changes().fetch().await.unwrap().changes.is_empty());
}

pub async fn purges_are_listed(place: Place) {
    let db = place.db().await;
    assert!(db.purged_infos().await.unwrap().is_empty());
    let a = db.put(json!({"_id": "a"})).await.unwrap().rev;
    let b = db.put(json!({"_id": "b"})).await.unwrap().rev;
    let before = db.info().await.unwrap().purge_seq;
    db.purge([("a", &a)]).await.unwrap();
    db.purge([("b", &b)]).await.unwrap();
    assert_ne!(db.info().await.unwrap().purge_seq, before);
    let mut infos = db.purged_infos().await.unwrap();
    infos.sort();
    assert_eq!(infos, [("a".to_owned(), vec![a]), ("b".to_owned(), vec![b])]);
}

pub async fn how_many_purges_are_listed_can_be_set(place: Place) {
    let db = place.db().await;
    let adapter = db.adapter();
    assert_eq!(adapter.purged_infos_limit().await.unwrap(), 1000);
    adapter.set_purged_infos_limit(7).await.unwrap();
    assert_eq!(adapter.purged_infos_limit().await.unwrap(), 7);
}

pub async fn writes_can_be_made_durable(place: Place) {
    let db = place.db().await;
    db.commit().await.unwrap();
    db.save_deferred(&mut Document::with_id("a")).await.unwrap();
    db.commit().await.unwrap();
    assert!(db.contains("a").await.unwrap());
}

pub async fn indexes_can_be_cleaned_up(place: Place) {
    let db = place.db().await;
    db.view_cleanup().await.unwrap();
    db.put(json!({"_id": "_design/d", "views": {}})).await.unwrap();
    db.view_cleanup().await.unwrap();
}

pub async fn sizes_grow_with_what_is_stored(place: Place) {
    let db = place.db().await;
    let before = db.info().await.unwrap().sizes;
    for n in 0..20 {
        db.put(json!({"_id": n.to_string(), "text": "x".repeat(10_000)})).await.unwrap();
    }
    let after = db.info().await.unwrap().sizes;
    assert!(after.external >= before.external + 200_000, "{after:?}");
    assert!(after.active > before.active, "{after:?}");
}
