//! Revision trees: conflicts, winners, leaves, ancestors, and what is forgotten of them.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, conflicts, deleted, doc, fails, graft, missing, rev, revs};
use serde_json::json;
use settee::options::{GetOptions, OpenRevs, WriteOptions};
use settee::prelude::*;
use settee::wire::{RevResult, RevsByDoc};
use settee::{ErrorKind, Rev};

/// The revisions that were found and missed, in the order they came.
fn split(results: Vec<RevResult>) -> (Vec<String>, Vec<String>) {
    let (mut found, mut missed) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            RevResult::Found(doc) => found.push(doc.rev.unwrap().to_string()),
            RevResult::Missing(error) => {
                assert_eq!(error.error.kind(), ErrorKind::NotFound);
                missed.push(error.rev.unwrap().to_string());
            }
        }
    }
    (found, missed)
}

fn sorted(mut revs: Vec<String>) -> Vec<String> {
    revs.sort();
    revs
}

async fn winner(db: &Database, id: &str) -> String {
    db.get(id).await.unwrap().rev.unwrap().to_string()
}

pub async fn revisions_from_elsewhere_are_stored_as_they_are(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({"n": 3})).await;
    let options = GetOptions { revs: true, ..Default::default() };
    let read = db.get_with("a", &options).await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("n")), (Some(&rev("3-c")), Some(json!(3))));
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["3-c", "2-b", "1-a"]));
    // The ancestors' contents never came.
    let options = GetOptions { rev: Some(rev("2-b")), ..Default::default() };
    missing(db.get_with("a", &options).await);
    let history: Vec<_> = db.revisions("a").await.unwrap().try_collect().await.unwrap();
    assert_eq!(history.len(), 1);
}

pub async fn a_revision_that_is_here_already_changes_nothing(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["1-a"], false, json!({"n": 1})).await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"n": 2})).await;
    let before = db.info().await.unwrap().update_seq;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"n": "other"})).await;
    graft(&db, "a", &["2-b"], false, json!({"n": "other"})).await;
    graft(&db, "a", &["1-a"], false, json!({"n": "other"})).await;
    assert_eq!(db.info().await.unwrap().update_seq, before);
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(2)));
}

pub async fn a_revision_from_elsewhere_may_come_alone(place: Place) {
    let db = place.db().await;
    let options = WriteOptions { new_edits: false, ..Default::default() };
    let from_elsewhere = doc(json!({"_id": "a", "_rev": "4-d", "n": 4}));
    let saved = db.adapter().put(from_elsewhere, None, &options).await.unwrap();
    assert_eq!((saved.id.as_str(), &saved.rev), ("a", &rev("4-d")));
    assert_eq!(db.revision_ids("a").await.unwrap(), [rev("4-d")]);
    let nothing = doc(json!({"_id": "a"}));
    assert_eq!(db.adapter().put(nothing, None, &options).await.unwrap_err().status(), 400);
}

pub async fn a_branch_joins_what_is_known_of_it(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({})).await;
    graft(&db, "a", &["4-d", "3-c", "2-b"], false, json!({})).await;
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["4-d", "3-c", "2-b", "1-a"]));
    assert!(db.conflicts("a").await.unwrap().is_empty());
    // A branch off the middle.
    graft(&db, "a", &["3-x", "2-b"], false, json!({})).await;
    assert_eq!(db.conflicts("a").await.unwrap(), revs(["3-x"]));
    let options = GetOptions { rev: Some(rev("3-x")), revs: true, ..Default::default() };
    let ids = db.get_with("a", &options).await.unwrap().revisions.unwrap().ids;
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["x", "b", "a"]);
}

pub async fn of_two_leaves_the_higher_one_wins(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["1-a"], false, json!({"is": "1-a"})).await;
    graft(&db, "a", &["1-b"], false, json!({"is": "1-b"})).await;
    let read = db.get("a").await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("is")), (Some(&rev("1-b")), Some(json!("1-b"))));
    assert_eq!(db.conflicts("a").await.unwrap(), [rev("1-a")]);
    // The generation goes before the hash, and is a number.
    graft(&db, "a", &["9-a"], false, json!({})).await;
    assert_eq!(winner(&db, "a").await, "9-a");
    graft(&db, "a", &["10-0"], false, json!({})).await;
    assert_eq!(winner(&db, "a").await, "10-0");
    assert_eq!(db.conflicts("a").await.unwrap(), revs(["9-a", "1-b", "1-a"]));
    assert_eq!(db.len().await.unwrap(), 1);
}

pub async fn the_order_of_arrival_does_not_matter(place: Place) {
    let branches: [(&[&str], bool); 4] = [
        (&["3-c", "2-b", "1-a"], false),
        (&["3-d", "2-b", "1-a"], true),
        (&["2-x", "1-a"], false),
        (&["1-z"], false),
    ];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
    for order in orders {
        let db = place.db().await;
        for n in order {
            let (branch, deleted) = branches[n];
            graft(&db, "a", branch, deleted, json!({"is": branch[0]})).await;
        }
        let options = GetOptions { conflicts: true, deleted_conflicts: true, ..Default::default() };
        let read = db.get_with("a", &options).await.unwrap();
        assert_eq!((read.rev, read.body.as_str()), (Some(rev("3-c")), r#"{"is":"3-c"}"#));
        assert_eq!(read.meta.conflicts, revs(["2-x", "1-z"]));
        assert_eq!(read.meta.deleted_conflicts, revs(["3-d"]));
    }
}

pub async fn a_deleted_leaf_wins_only_over_deleted_ones(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["1-a"], false, json!({})).await;
    graft(&db, "a", &["5-z"], true, json!({})).await;
    assert_eq!(winner(&db, "a").await, "1-a");
    let options = GetOptions { conflicts: true, deleted_conflicts: true, ..Default::default() };
    let meta = db.get_with("a", &options).await.unwrap().meta;
    assert_eq!((meta.conflicts, meta.deleted_conflicts), (vec![], vec![rev("5-z")]));
    db.delete(("a", &rev("1-a"))).await.unwrap();
    deleted(db.get("a").await);
    let rows = db.all_docs().keys(["a"]).fetch().await.unwrap().rows;
    assert_eq!((rows[0].rev.as_ref(), rows[0].deleted), (Some(&rev("5-z")), true));
}

pub async fn deleting_the_winner_leaves_the_next_one(place: Place) {
    let db = place.db().await;
    for leaf in ["1-a", "1-b", "1-c"] {
        graft(&db, "a", &[leaf], false, json!({"is": leaf})).await;
    }
    db.delete_current("a").await.unwrap();
    let read = db.get("a").await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("is")), (Some(&rev("1-b")), Some(json!("1-b"))));
    db.delete(("a", &rev("1-a"))).await.unwrap();
    assert!(db.conflicts("a").await.unwrap().is_empty());
    assert_eq!(winner(&db, "a").await, "1-b");
    db.delete_current("a").await.unwrap();
    deleted(db.get("a").await);
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (0, 1));
}

pub async fn every_leaf_can_be_edited(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"is": "b"})).await;
    graft(&db, "a", &["2-c", "1-a"], false, json!({"is": "c"})).await;
    conflicts(db.put(json!({"_id": "a", "_rev": "1-a"})).await);
    conflicts(db.put(json!({"_id": "a"})).await);
    let edited = db.put(json!({"_id": "a", "_rev": "2-b", "is": "edited"})).await.unwrap().rev;
    assert_eq!(edited.pos, 3);
    let read = db.get("a").await.unwrap();
    assert_eq!((read.get("is"), read.rev), (Some(json!("edited")), Some(edited)));
    assert_eq!(db.conflicts("a").await.unwrap(), [rev("2-c")]);
}

pub async fn a_conflict_is_resolved_by_deleting_the_losers(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"b": true})).await;
    graft(&db, "a", &["2-c", "1-a"], false, json!({"c": true})).await;
    let mut docs = [
        doc(json!({"_id": "a", "_rev": "2-c", "b": true, "c": true})),
        doc(json!({"_id": "a", "_rev": "2-b", "_deleted": true})),
    ];
    let results = db.bulk(&mut docs).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    let options = GetOptions { conflicts: true, deleted_conflicts: true, ..Default::default() };
    let read = db.get_with("a", &options).await.unwrap();
    assert_eq!((read.get("b"), read.rev.as_ref()), (Some(json!(true)), docs[0].rev.as_ref()));
    assert_eq!(read.meta.conflicts, []);
    assert_eq!(read.meta.deleted_conflicts, [docs[1].rev.clone().unwrap()]);
}

pub async fn all_leaves_can_be_read_at_once(place: Place) {
    let db = place.db().await;
    let nobody = db.open_revs("a", &OpenRevs::All).await;
    missing(nobody);
    graft(&db, "a", &["2-b", "1-a"], false, json!({"is": "b"})).await;
    graft(&db, "a", &["2-c", "1-a"], false, json!({"is": "c"})).await;
    graft(&db, "a", &["3-d", "2-b", "1-a"], true, json!({})).await;
    let (found, missed) = split(db.open_revs("a", &OpenRevs::All).await.unwrap());
    assert_eq!((sorted(found), missed.len()), (vec!["2-c".to_owned(), "3-d".to_owned()], 0));
}

pub async fn certain_revisions_can_be_read_at_once(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({"is": "b"})).await;
    graft(&db, "a", &["2-c", "1-a"], false, json!({"is": "c"})).await;
    let asked = OpenRevs::Revs(revs(["2-c", "9-x", "2-b", "1-a"]));
    let (found, missed) = split(db.open_revs("a", &asked).await.unwrap());
    assert_eq!(sorted(found), ["2-b", "2-c"]);
    // The content of 1-a never came.
    assert_eq!(sorted(missed), ["1-a", "9-x"]);

    let asked = OpenRevs::Revs(revs(["1-x"]));
    let (found, missed) = split(db.open_revs("never", &asked).await.unwrap());
    assert_eq!((found.len(), missed), (0, vec!["1-x".to_owned()]));
}

pub async fn the_latest_of_a_revision_are_the_leaves_behind_it(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({"is": "c"})).await;
    graft(&db, "a", &["3-d", "2-b", "1-a"], false, json!({"is": "d"})).await;
    graft(&db, "a", &["2-x", "1-a"], false, json!({"is": "x"})).await;
    let latest = GetOptions { latest: true, ..Default::default() };
    let open = async |rev: &str| {
        let asked = OpenRevs::Revs(vec![super::rev(rev)]);
        let (found, missed) = split(db.adapter().open_revs("a", &asked, &latest).await.unwrap());
        assert!(missed.is_empty());
        sorted(found)
    };
    assert_eq!(open("2-b").await, ["3-c", "3-d"]);
    assert_eq!(open("1-a").await, ["2-x", "3-c", "3-d"]);
    assert_eq!(open("2-x").await, ["2-x"]);
    let options = GetOptions { rev: Some(rev("2-x")), ..latest.clone() };
    // CouchDB gives the winner, whatever revision is asked for.
    let latest = if place.is_cluster() { "d" } else { "x" };
    assert_eq!(db.get_with("a", &options).await.unwrap().get("is"), Some(json!(latest)));
}

pub async fn a_revision_asked_for_is_itself_unless_the_latest_is_wanted(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    db.upsert("a", json!({"n": 2})).await.unwrap();
    let read = async |latest| {
        let options = GetOptions { rev: Some(first.clone()), latest, ..Default::default() };
        db.get_with("a", &options).await.unwrap().get("n")
    };
    assert_eq!((read(false).await, read(true).await), (Some(json!(1)), Some(json!(2))));
    let (found, _) = split(db.open_revs("a", &OpenRevs::Revs(vec![first.clone()])).await.unwrap());
    assert_eq!(found, [first.to_string()]);
}

pub async fn what_is_missing_is_told_with_what_it_may_descend_from(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({})).await;
    graft(&db, "gone", &["1-a"], true, json!({})).await;
    let asked = RevsByDoc::from([
        ("a".to_owned(), revs(["1-a", "2-b", "3-c", "2-x"])),
        ("gone".to_owned(), revs(["1-a"])),
        ("never".to_owned(), revs(["1-x", "2-y"])),
    ]);
    let diff = db.revs_diff(&asked).await.unwrap();
    assert_eq!(diff.keys().collect::<Vec<_>>(), ["a", "never"]);
    let mut missing = diff["a"].missing.clone();
    missing.sort();
    assert_eq!(missing, revs(["2-x", "3-c"]));
    assert_eq!(diff["a"].possible_ancestors, revs(["2-b"]));
    let mut missing = diff["never"].missing.clone();
    missing.sort();
    assert_eq!((missing, diff["never"].possible_ancestors.len()), (revs(["1-x", "2-y"]), 0));
    assert!(db.revs_diff(&RevsByDoc::new()).await.unwrap().is_empty());
}

pub async fn the_history_is_remembered_up_to_its_limit(place: Place) {
    let db = place.db().await;
    assert_eq!(db.revs_limit().await.unwrap(), 1000);
    db.set_revs_limit(4).await.unwrap();
    assert_eq!(db.revs_limit().await.unwrap(), 4);
    let mut doc = doc(json!({"_id": "a"}));
    let mut all: Vec<Rev> = Vec::new();
    for n in 0..10 {
        doc.set("n", n).unwrap();
        all.insert(0, db.save(&mut doc).await.unwrap().rev);
    }
    assert_eq!(db.revision_ids("a").await.unwrap(), all[..4]);
    let old = GetOptions { rev: Some(all[6].clone()), ..Default::default() };
    missing(db.get_with("a", &old).await);
    // What is forgotten is missing again.
    let asked = RevsByDoc::from([("a".to_owned(), vec![all[3].clone(), all[4].clone()])]);
    assert_eq!(db.revs_diff(&asked).await.unwrap()["a"].missing, [all[4].clone()]);
}

pub async fn a_forgotten_history_does_not_conflict_with_itself(place: Place) {
    let db = place.db().await;
    db.set_revs_limit(3).await.unwrap();
    graft(&db, "a", &["5-e", "4-d", "3-c", "2-b", "1-a"], false, json!({})).await;
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["5-e", "4-d", "3-c"]));
    graft(&db, "a", &["6-f", "5-e", "4-d", "3-c", "2-b", "1-a"], false, json!({})).await;
    assert_eq!(db.revision_ids("a").await.unwrap(), revs(["6-f", "5-e", "4-d"]));
    assert!(db.conflicts("a").await.unwrap().is_empty());
}

pub async fn compaction_shows_in_the_revisions_status(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    let second = db.put(json!({"_id": "a", "_rev": first, "n": 2})).await.unwrap().rev;
    let third = db.delete(("a", &second)).await.unwrap().rev;
    let fourth = db.put(json!({"_id": "a", "n": 4})).await.unwrap().rev;
    let status = async || {
        let options = GetOptions { revs_info: true, ..Default::default() };
        let info = db.get_with("a", &options).await.unwrap().meta.revs_info.unwrap();
        info.into_iter().map(|(rev, status)| (rev, status.name())).collect::<Vec<_>>()
    };
    let expected = |old, dead| {
        [
            (fourth.clone(), "available"),
            (third.clone(), dead),
            (second.clone(), old),
            (first.clone(), old),
        ]
    };
    assert_eq!(status().await, expected("available", "deleted"));
    place.compact(&db).await;
    let after = status().await;
    assert_eq!(after[0], expected("missing", "deleted")[0]);
    assert_eq!(after[2..], expected("missing", "deleted")[2..]);
    let options = GetOptions { rev: Some(second), ..Default::default() };
    missing(db.get_with("a", &options).await);
}

pub async fn revisions_of_any_text_are_taken(place: Place) {
    let db = place.db().await;
    let odd = ["1-x", "2-2-2", "3-é", "12-ABC", "1-00000000000000000000000000000000"];
    for text in odd {
        graft(&db, text, &[text], false, json!({})).await;
        assert_eq!(winner(&db, text).await, text);
        let edited = db.put(json!({"_id": text, "_rev": text, "n": 1})).await.unwrap().rev;
        assert_eq!(edited.pos, rev(text).pos + 1);
    }
    for text in ["", "1", "x-1", "-1", "1-", "99999999999999999999-a"] {
        let reason = fails(db.put(json!({"_id": "a", "_rev": text})).await, 400, "bad_request");
        assert_eq!(reason, "Invalid rev format", "{text:?}");
    }
}

pub async fn many_conflicts_and_a_long_history_are_kept(place: Place) {
    let db = place.db().await;
    let docs = (0..60).map(|n| json!({"_id": "wide", "_rev": format!("1-{n:032x}"), "n": n}));
    db.bulk_docs(docs, false).await.unwrap();
    let read = db.get("wide").await.unwrap();
    assert_eq!(read.get("n"), Some(json!(59)));
    let conflicts = db.conflicts("wide").await.unwrap();
    assert_eq!(conflicts.len(), 59);
    assert!(conflicts.is_sorted_by(|a, b| a > b));

    let mut doc = doc(json!({"_id": "long"}));
    for n in 0..150 {
        doc.set("n", n).unwrap();
        db.save(&mut doc).await.unwrap();
    }
    assert_eq!(db.revision_ids("long").await.unwrap().len(), 150);
}
