//! `_all_docs` and its relatives.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, fails, graft};
use serde_json::json;
use settee::options::GetOptions;
use settee::prelude::*;
use settee::{AllDocs, Listing};

async fn filled(place: &Place, ids: &[&str]) -> Database {
    let db = place.db().await;
    let docs = ids.iter().map(|id| json!({"_id": id, "is": id}));
    assert!(db.bulk_docs(docs, true).await.unwrap().iter().all(Result::is_ok));
    db
}

async fn ids(listing: AllDocs) -> Vec<String> {
    listing.fetch().await.unwrap().ids().map(str::to_owned).collect()
}

pub async fn documents_are_listed_in_the_order_of_their_ids_bytes(place: Place) {
    let order =
        ["!", "0", "10", "9", "A", "Z", "_design/x", "a", "a ", "a/b", "aa", "b", "é", "東", "😀"];
    let mut written = order;
    written.reverse();
    let db = filled(&place, &written).await;
    assert_eq!(ids(db.all_docs()).await, order);
    let mut reversed = order;
    reversed.reverse();
    assert_eq!(ids(db.all_docs().descending()).await, reversed);
    let streamed: Vec<String> = db.ids().await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed, order);
}

pub async fn rows_tell_the_winning_revision(place: Place) {
    let db = filled(&place, &["a"]).await;
    let listing = db.all_docs().fetch().await.unwrap();
    assert_eq!((listing.total_rows, listing.offset), (Some(1), Some(0)));
    assert_eq!(listing.rows[0].rev, db.get("a").await.unwrap().rev);
    assert!(!listing.rows[0].deleted && listing.rows[0].doc.is_none());
    graft(&db, "b", &["1-b"], false, json!({})).await;
    graft(&db, "b", &["1-c"], false, json!({})).await;
    let listing = db.all_docs().key("b").fetch().await.unwrap();
    assert_eq!(listing.rows[0].rev, Some(super::rev("1-c")));
    assert_eq!((listing.total_rows, listing.rows.len()), (Some(2), 1));
}

pub async fn ranges_include_their_ends_unless_told_otherwise(place: Place) {
    let db = filled(&place, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(ids(db.all_docs().range("b"..="d")).await, ["b", "c", "d"]);
    assert_eq!(ids(db.all_docs().range("b".."d")).await, ["b", "c"]);
    assert_eq!(ids(db.all_docs().range("b".."cc")).await, ["b", "c"]);
    assert_eq!(ids(db.all_docs().range("bb"..)).await, ["c", "d", "e"]);
    assert_eq!(ids(db.all_docs().range(..="b")).await, ["a", "b"]);
    assert_eq!(ids(db.all_docs().range(.."b")).await, ["a"]);
    assert_eq!(ids(db.all_docs().range("x"..)).await, [""; 0]);
    assert_eq!(ids(db.all_docs().key("c")).await, ["c"]);
    assert_eq!(ids(db.all_docs().key("cc")).await, [""; 0]);
}

pub async fn descending_ranges_begin_with_the_highest(place: Place) {
    let db = filled(&place, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(ids(db.all_docs().range("d"..="b").descending()).await, ["d", "c", "b"]);
    assert_eq!(ids(db.all_docs().range("d".."b").descending()).await, ["d", "c"]);
    assert_eq!(ids(db.all_docs().range("dd".."aa").descending()).await, ["d", "c", "b"]);
    assert_eq!(ids(db.all_docs().range("b"..).descending()).await, ["b", "a"]);
    assert_eq!(ids(db.all_docs().range(..="d").descending()).await, ["e", "d"]);
}

pub async fn limit_and_skip_cut_the_listing(place: Place) {
    let db = filled(&place, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(ids(db.all_docs().limit(2)).await, ["a", "b"]);
    assert_eq!(ids(db.all_docs().skip(3)).await, ["d", "e"]);
    assert_eq!(ids(db.all_docs().skip(1).limit(2)).await, ["b", "c"]);
    assert_eq!(ids(db.all_docs().skip(1).limit(2).descending()).await, ["d", "c"]);
    assert_eq!(ids(db.all_docs().range("b"..).skip(1).limit(1)).await, ["c"]);
    assert_eq!(ids(db.all_docs().skip(9)).await, [""; 0]);
    let none = db.all_docs().limit(0).fetch().await.unwrap();
    assert_eq!((none.total_rows, none.rows.len()), (Some(5), 0));
}

pub async fn deleted_documents_are_not_listed(place: Place) {
    let db = filled(&place, &["a", "b", "c"]).await;
    db.delete_current("b").await.unwrap();
    let listing = db.all_docs().fetch().await.unwrap();
    assert_eq!(listing.ids().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(listing.total_rows, Some(2));
}

pub async fn keys_have_a_row_each_in_their_order(place: Place) {
    let db = filled(&place, &["a", "b", "c"]).await;
    db.delete_current("b").await.unwrap();
    let keys = ["c", "b", "never", "a", "c"];
    let Listing { rows, total_rows, .. } =
        db.all_docs().keys(keys).include_docs().fetch().await.unwrap();
    assert_eq!(total_rows, Some(2));
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), keys);
    let told: Vec<_> =
        rows.iter().map(|row| (row.rev.is_some(), row.deleted, row.doc.is_some())).collect();
    let (alive, gone, never) = ((true, false, true), (true, true, false), (false, false, false));
    assert_eq!(told, [alive, gone, never, alive, alive]);
    assert_eq!(rows[1].rev.as_ref().unwrap().pos, 2);
    assert_eq!(ids(db.all_docs().keys(keys).skip(1).limit(3)).await, ["b", "never", "a"]);
    assert_eq!(ids(db.all_docs().keys([""; 0])).await, [""; 0]);
}

pub async fn documents_come_along_when_asked_for(place: Place) {
    let db = filled(&place, &["a", "b"]).await;
    graft(&db, "c", &["1-b"], false, json!({"is": "c"})).await;
    graft(&db, "c", &["1-a"], false, json!({"is": "loser"})).await;
    let rows = db.all_docs().include_docs().fetch().await.unwrap().rows;
    for row in &rows {
        let doc = row.doc.as_ref().unwrap();
        assert_eq!((doc.id.as_ref(), doc.rev.as_ref()), (Some(&row.id), row.rev.as_ref()));
        assert_eq!(doc.get("is"), Some(json!(row.id)));
        assert!(doc.meta.conflicts.is_empty());
    }
    let options = GetOptions { conflicts: true, ..Default::default() };
    let rows = db.all_docs().include_docs_with(options).fetch().await.unwrap().rows;
    let conflicts = rows.into_iter().map(|row| row.doc.unwrap().meta.conflicts.len());
    assert_eq!(conflicts.collect::<Vec<_>>(), [0, 0, 1]);
}

pub async fn the_update_sequence_comes_along_when_asked_for(place: Place) {
    let db = filled(&place, &["a"]).await;
    assert_eq!(db.all_docs().fetch().await.unwrap().update_seq, None);
    let seq = db.all_docs().update_seq().fetch().await.unwrap().update_seq;
    place.same_seq(&seq.unwrap(), &db.info().await.unwrap().update_seq);
}

pub async fn design_and_local_documents_have_their_own_listings(place: Place) {
    let db =
        filled(&place, &["_design/a", "_design/b", "_local/x", "_local/y", "plain", "A"]).await;
    assert_eq!(ids(db.all_docs()).await, ["A", "_design/a", "_design/b", "plain"]);
    assert_eq!(ids(db.design_docs()).await, ["_design/a", "_design/b"]);
    assert_eq!(ids(db.local_docs()).await, ["_local/x", "_local/y"]);
    assert_eq!(ids(db.design_docs().descending().limit(1)).await, ["_design/b"]);
    assert_eq!(ids(db.design_docs().range("_design/b"..)).await, ["_design/b"]);
    assert_eq!(db.design_docs().fetch().await.unwrap().total_rows, Some(2));
    let asked = db.design_docs().keys(["_design/b", "_design/never"]).fetch().await.unwrap();
    let told: Vec<_> = asked.rows.iter().map(|row| row.rev.is_some()).collect();
    assert_eq!(told, [true, false]);
    let rows = db.local_docs().include_docs().fetch().await.unwrap().rows;
    assert_eq!(rows[0].doc.as_ref().unwrap().get("is"), Some(json!("_local/x")));
    assert_eq!(rows[0].rev.as_ref().unwrap().to_string(), "0-1");
}

pub async fn a_long_listing_is_streamed_whole(place: Place) {
    let db = place.db().await;
    let docs = (0..3000).map(|n| json!({"_id": format!("{n:05}")}));
    db.bulk_docs(docs, true).await.unwrap();
    let mut rows = db.all_docs().stream().await.unwrap();
    let mut count = 0;
    while let Some(row) = rows.try_next().await.unwrap() {
        assert_eq!(row.id, format!("{count:05}"));
        count += 1;
    }
    assert_eq!(count, 3000);
    // Page by page, each beginning behind the last.
    let mut seen = Vec::new();
    loop {
        let last = seen.last().cloned().unwrap_or_default();
        let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let page = db.all_docs().range(behind).limit(700).fetch().await.unwrap();
        seen.extend(page.ids().map(str::to_owned));
        if page.rows.len() < 700 {
            break;
        }
    }
    assert_eq!(seen.len(), 3000);
}

pub async fn keys_and_a_range_contradict_each_other(place: Place) {
    let db = filled(&place, &["a"]).await;
    fails(db.all_docs().keys(["a"]).range("a"..).fetch().await, 400, "query_parse_error");
}

pub async fn a_listing_shows_one_moment(place: Place) {
    let db = place.db().await;
    let docs = (0..2000).map(|n| json!({"_id": format!("{n:05}")}));
    db.bulk_docs(docs, true).await.unwrap();
    let mut rows = db.all_docs().stream().await.unwrap();
    rows.try_next().await.unwrap().unwrap();
    db.delete_current("01999").await.unwrap();
    let rest: Vec<_> = rows.try_collect().await.unwrap();
    // A server may have sent it or not; but the listing must end well.
    assert!((1998..=1999).contains(&rest.len()));
}
