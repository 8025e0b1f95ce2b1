//! Many documents at once, written and read.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, doc, graft, rev};
use serde_json::json;
use settee::options::{BulkGetItem, GetOptions};
use settee::prelude::*;
use settee::wire::RevResult;

pub async fn results_come_in_the_order_of_the_documents(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "taken"})).await.unwrap();
    let mut docs = [
        doc(json!({"_id": "b"})),
        doc(json!({"_id": "taken"})),
        doc(json!({"n": 1})),
        doc(json!({"_id": "a"})),
    ];
    let results = db.bulk(&mut docs).await.unwrap();
    assert_eq!(results.len(), 4);
    for n in [0, 2, 3] {
        let saved = results[n].as_ref().unwrap();
        assert_eq!(
            (Some(&saved.id), Some(&saved.rev)),
            (docs[n].id.as_ref(), docs[n].rev.as_ref())
        );
    }
    let failed = results[1].as_ref().unwrap_err();
    assert_eq!((failed.id.as_str(), failed.error.name()), ("taken", "conflict"));
    assert_eq!(failed.error.reason(), "Document update conflict.");
    assert_eq!(docs[1].rev, None);
    assert_eq!(db.len().await.unwrap(), 4);
}

pub async fn nothing_may_be_written(place: Place) {
    let db = place.db().await;
    assert!(db.bulk(&mut []).await.unwrap().is_empty());
    assert_eq!(db.len().await.unwrap(), 0);
}

pub async fn of_equal_ids_the_first_is_written(place: Place) {
    let db = place.db().await;
    let mut docs = [doc(json!({"_id": "a", "n": 1})), doc(json!({"_id": "a", "n": 2}))];
    let results = db.bulk(&mut docs).await.unwrap();
    assert!(results[0].is_ok());
    assert!(results[1].as_ref().unwrap_err().error.is_conflict());
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(1)));
    assert!(db.conflicts("a").await.unwrap().is_empty());
}

pub async fn documents_are_created_changed_and_deleted_together(place: Place) {
    let db = place.db().await;
    let mut docs = [doc(json!({"_id": "a", "n": 1})), doc(json!({"_id": "b", "n": 1}))];
    db.bulk(&mut docs).await.unwrap();
    let [mut a, mut b] = docs;
    a.set("n", 2).unwrap();
    b.deleted = true;
    let mut docs = [a, b, doc(json!({"_id": "c"})), doc(json!({"_id": "_design/d"}))];
    assert!(db.bulk(&mut docs).await.unwrap().iter().all(Result::is_ok));
    let ids: Vec<_> = db.ids().await.unwrap().try_collect().await.unwrap();
    assert_eq!(ids, ["_design/d", "a", "c"]);
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(2)));
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (3, 1));
}

pub async fn a_thousand_documents_are_written_at_once(place: Place) {
    let db = place.db().await;
    let docs =
        (0..1000).map(|n| json!({"_id": format!("{n:04}"), "n": n, "text": "x".repeat(300)}));
    let results = db.bulk_docs(docs, true).await.unwrap();
    assert_eq!(results.iter().flatten().count(), 1000);
    assert_eq!(db.len().await.unwrap(), 1000);
    let rows = db.all_docs().include_docs().fetch().await.unwrap().rows;
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(row.id, format!("{n:04}"));
        assert_eq!(row.doc.as_ref().unwrap().get("n"), Some(json!(n)));
    }
    assert_eq!(db.changes().fetch().await.unwrap().changes.len(), 1000);
}

pub async fn revisions_from_elsewhere_never_conflict(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "a", "n": 1})).await.unwrap();
    let docs = [
        json!({"_id": "a", "_rev": "1-0", "n": 2}),
        json!({"_id": "a", "_rev": "3-f", "_revisions": {"start": 3, "ids": ["f", "e", "d"]}}),
        json!({"_id": "b", "_rev": "2-x", "_deleted": true}),
    ];
    let results = db.bulk_docs(docs, false).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(db.get("a").await.unwrap().rev, Some(rev("3-f")));
    assert_eq!(db.conflicts("a").await.unwrap().len(), 2);
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (1, 1));
}

fn item(id: &str, rev: Option<&str>) -> BulkGetItem {
    BulkGetItem { id: id.to_owned(), rev: rev.map(super::rev), atts_since: Vec::new() }
}

pub async fn many_revisions_are_read_at_once(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"is": "b"})).await;
    graft(&db, "a", &["2-c", "1-a"], false, json!({"is": "c"})).await;
    graft(&db, "gone", &["2-z", "1-a"], true, json!({})).await;
    let items = vec![
        item("a", Some("2-b")),
        item("a", None),
        item("a", Some("9-x")),
        item("never", Some("1-x")),
        item("gone", Some("2-z")),
        item("a", Some("2-b")),
    ];
    let options = GetOptions { revs: true, ..Default::default() };
    let results = db.bulk_get(items, &options).await.unwrap();
    let results: Vec<_> = results.try_collect().await.unwrap();
    let told: Vec<_> = results
        .iter()
        .map(|(id, results)| {
            let mut told: Vec<_> = results
                .iter()
                .map(|result| match result {
                    RevResult::Found(doc) => {
                        assert_eq!(doc.id.as_ref(), Some(id));
                        assert!(doc.revisions.is_some());
                        doc.rev.as_ref().unwrap().to_string()
                    }
                    RevResult::Missing(error) => {
                        assert_eq!(
                            (error.error.name(), error.error.reason()),
                            ("not_found", "missing")
                        );
                        format!("no {}", error.rev.as_ref().unwrap())
                    }
                })
                .collect();
            told.sort();
            (id.as_str(), told.join(" "))
        })
        .collect();
    let expected = [
        ("a", "2-b"),
        ("a", "2-b 2-c"),
        ("a", "no 9-x"),
        ("never", "no 1-x"),
        ("gone", "2-z"),
        ("a", "2-b"),
    ];
    assert_eq!(told, expected.map(|(id, told)| (id, told.to_owned())));
}

pub async fn the_latest_revisions_are_read_at_once(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({"n": 3})).await;
    let options = GetOptions { latest: true, ..Default::default() };
    let results = db.bulk_get(vec![item("a", Some("1-a"))], &options).await.unwrap();
    let results: Vec<_> = results.try_collect().await.unwrap();
    let [(_, results)] = results.as_slice() else { panic!("{results:?}") };
    let [RevResult::Found(found)] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(found.rev, Some(rev("3-c")));
}
