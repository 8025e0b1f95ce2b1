//! The changes feed: what it tells, in what order, and that it wakes.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, doc, fails, graft, rev, revs};
use crate::time::{sleep, soon, within};
use futures_util::future::join;
use futures_util::{StreamExt, TryStreamExt};
use rand::Rng;
use serde_json::json;
use settee::Changes;
use settee::adapter::ChangesBatch;
use settee::options::GetOptions;
use settee::prelude::*;
use settee::wire::{Change, Seq};
use std::time::Duration;

async fn filled(place: &Place, ids: &[&str]) -> Database {
    let db = place.db().await;
    for id in ids {
        db.put_at(id, json!({"is": id})).await.unwrap();
    }
    db
}

fn ids(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.id.as_str()).collect()
}

fn by_id<'a>(changes: &'a [Change], id: &str) -> &'a Change {
    changes.iter().find(|change| change.id == id).unwrap()
}

async fn fetch(changes: Changes) -> ChangesBatch {
    changes.fetch().await.unwrap()
}

pub async fn every_document_is_told_once_with_its_newest_change(place: Place) {
    let db = filled(&place, &["a", "b", "c"]).await;
    db.upsert("a", json!({"n": 2})).await.unwrap();
    db.delete_current("b").await.unwrap();
    let all = fetch(db.changes()).await;
    place.told(ids(&all.changes), &["c", "a", "b"]);
    for (id, deleted, generation) in [("a", false, 2), ("b", true, 2), ("c", false, 1)] {
        let change = by_id(&all.changes, id);
        assert_eq!((change.deleted, change.revs[0].pos), (deleted, generation));
    }
    assert!(all.changes.iter().all(|change| change.revs.len() == 1 && change.doc.is_none()));
    place.same_seq(&all.last_seq, &db.info().await.unwrap().update_seq);
    assert_eq!(all.pending, 0);
}

pub async fn an_empty_database_has_no_changes(place: Place) {
    let db = place.db().await;
    let all = fetch(db.changes()).await;
    assert_eq!((all.changes.len(), all.pending), (0, 0));
    place.same_seq(&all.last_seq, &db.info().await.unwrap().update_seq);
    // The sequence it gives is one to begin with.
    db.put(json!({"_id": "a"})).await.unwrap();
    assert_eq!(ids(&fetch(db.changes().since(all.last_seq)).await.changes), ["a"]);
}

pub async fn a_reader_goes_on_where_it_was(place: Place) {
    let db = filled(&place, &["a", "b", "c", "d", "e"]).await;
    let first = fetch(db.changes().limit(2)).await;
    assert_eq!((first.changes.len(), first.pending), (2, 3));
    place.same_seq(&first.last_seq, &first.changes[1].seq);
    let second = fetch(db.changes().since(first.last_seq.clone()).limit(2)).await;
    assert_eq!((second.changes.len(), second.pending), (2, 1));
    let again = first.changes[0].id.as_str();
    db.upsert(again, json!({})).await.unwrap();
    let third = fetch(db.changes().since(second.last_seq.clone()).limit(9)).await;
    assert_eq!((third.changes.len(), third.pending), (2, 0));
    let came = [&first, &second, &third].into_iter().flat_map(|batch| ids(&batch.changes));
    place.told(came, &["a", "b", "c", "d", "e", again]);
    let fourth = fetch(db.changes().since(third.last_seq.clone())).await;
    assert_eq!((fourth.changes.len(), fourth.pending), (0, 0));
    place.same_seq(&fourth.last_seq, &third.last_seq);
    // The sequence of a change is one to begin with, too.
    let rest = fetch(db.changes().since(first.changes[1].seq.clone())).await;
    let expected: Vec<_> =
        [&second, &third].into_iter().flat_map(|batch| ids(&batch.changes)).collect();
    place.told(ids(&rest.changes), &expected);
}

pub async fn a_reader_may_begin_now(place: Place) {
    let db = filled(&place, &["a"]).await;
    let now = fetch(db.changes().since_now()).await;
    assert_eq!(now.changes.len(), 0);
    place.same_seq(&now.last_seq, &db.info().await.unwrap().update_seq);
}

pub async fn a_sequence_that_is_none_is_refused(place: Place) {
    let db = filled(&place, &["a"]).await;
    fails(db.changes().since(Seq::Opaque("what?".into())).fetch().await, 400, "bad_request");
}

pub async fn newest_first_if_descending(place: Place) {
    let db = filled(&place, &["a", "b", "c"]).await;
    let all = fetch(db.changes().descending()).await.changes;
    place.told(ids(&all), &["c", "b", "a"]);
    assert_eq!(fetch(db.changes().descending().limit(1)).await.changes.len(), 1);
    assert!(place.is_cluster() || all[0].id == "c");
}

pub async fn all_leaves_are_told_with_the_winner_first(place: Place) {
    let db = place.db().await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({})).await;
    graft(&db, "a", &["3-c", "2-x", "1-a"], true, json!({})).await;
    graft(&db, "a", &["2-d", "1-a"], false, json!({})).await;
    let main = fetch(db.changes()).await;
    assert_eq!((main.changes.len(), &main.changes[0].revs), (1, &revs(["2-d"])));
    assert!(!main.changes[0].deleted);
    let all = fetch(db.changes().all_leaves()).await;
    let mut leaves = all.changes[0].revs.clone();
    assert_eq!(leaves[0], rev("2-d"));
    leaves.sort();
    assert_eq!(leaves, revs(["2-b", "2-d", "3-c"]));
}

pub async fn a_losing_leaf_is_a_change_too(place: Place) {
    let db = filled(&place, &["z"]).await;
    graft(&db, "a", &["2-b", "1-a"], false, json!({})).await;
    let seen = fetch(db.changes()).await.last_seq;
    graft(&db, "a", &["1-x"], false, json!({})).await;
    let news = fetch(db.changes().since(seen)).await;
    assert_eq!((ids(&news.changes), &news.changes[0].revs), (vec!["a"], &revs(["2-b"])));
}

pub async fn only_the_documents_asked_for_are_told(place: Place) {
    let db = filled(&place, &["a", "b", "c", "d"]).await;
    let some = fetch(db.changes().doc_ids(["b", "d", "never"])).await;
    place.told(ids(&some.changes), &["b", "d"]);
    // Shards count what they pass over.
    assert!(place.is_cluster() || some.pending == 0);
    let one = fetch(db.changes().doc_ids(["b", "d"]).limit(1)).await;
    assert_eq!(one.changes.len(), 1);
    let rest = fetch(db.changes().doc_ids(["b", "d"]).since(one.last_seq)).await;
    place.told([&*one.changes[0].id, &*rest.changes[0].id], &["b", "d"]);
    assert_eq!(rest.changes.len(), 1);
    assert_eq!(fetch(db.changes().doc_ids([""; 0])).await.changes.len(), 0);
}

pub async fn only_design_documents_are_told_if_asked_for(place: Place) {
    let db =
        filled(&place, &["a", "_design/a", "b", "_design/b", "_designer".trim_start_matches('_')])
            .await;
    let some = fetch(db.changes().design_docs()).await;
    place.told(ids(&some.changes), &["_design/a", "_design/b"]);
}

pub async fn documents_come_along_when_asked_for(place: Place) {
    let db = filled(&place, &["a", "b"]).await;
    graft(&db, "c", &["1-b"], false, json!({"is": "c"})).await;
    graft(&db, "c", &["1-a"], false, json!({"is": "loser"})).await;
    let gone =
        json!({"_id": "b", "_rev": db.get("b").await.unwrap().rev, "_deleted": true, "why": 1});
    db.put(gone).await.unwrap();
    let options = GetOptions { conflicts: true, ..Default::default() };
    let changes = fetch(db.changes().include_docs_with(options)).await.changes;
    place.told(ids(&changes), &["a", "c", "b"]);
    for change in &changes {
        let doc = change.doc.as_ref().unwrap();
        assert_eq!((doc.id.as_ref(), doc.rev.as_ref()), (Some(&change.id), Some(&change.revs[0])));
        assert_eq!(doc.deleted, change.deleted);
    }
    let doc = |id| by_id(&changes, id).doc.as_ref().unwrap();
    assert_eq!(doc("a").get("is"), Some(json!("a")));
    assert_eq!(doc("c").meta.conflicts, [rev("1-a")]);
    assert_eq!(doc("b").get("why"), Some(json!(1)));
}

pub async fn attachments_come_along_when_asked_for(place: Place) {
    let db = place.db().await;
    let mut with = Document::with_id("a");
    db.put_attachment(&mut with, "a.bin", &[1, 2, 3], None).await.unwrap();
    let options = GetOptions { attachments: true, ..Default::default() };
    let changes = fetch(db.changes().include_docs_with(options)).await.changes;
    let attachment = &changes[0].doc.as_ref().unwrap().attachments[0];
    assert_eq!(attachment.data, settee::AttachmentData::Inline(vec![1, 2, 3].into()));
    let changes = fetch(db.changes().include_docs()).await.changes;
    let attachment = &changes[0].doc.as_ref().unwrap().attachments[0];
    assert_eq!(attachment.data, settee::AttachmentData::Stub);
}

pub async fn a_long_feed_is_streamed_whole(place: Place) {
    let db = place.db().await;
    let docs = (0..2500).map(|n| json!({"_id": format!("{n:05}")}));
    db.bulk_docs(docs, true).await.unwrap();
    let streamed: Vec<_> = db.changes().stream().await.unwrap().try_collect().await.unwrap();
    let expected: Vec<_> = (0..2500).map(|n| format!("{n:05}")).collect();
    let mut expected: Vec<_> = expected.iter().map(String::as_str).collect();
    place.told(ids(&streamed), &expected);
    let descending: Vec<_> =
        db.changes().descending().stream().await.unwrap().try_collect().await.unwrap();
    expected.reverse();
    place.told(ids(&descending), &expected);
    // Every batch says truly how far it goes.
    let mut batches = db.changes().batches().await.unwrap();
    let mut seen = 0;
    while let Some(batch) = batches.try_next().await.unwrap() {
        seen += batch.changes.len();
        assert_eq!(batch.pending, 2500 - seen as u64);
    }
    assert_eq!(seen, 2500);
    let page = fetch(db.changes().limit(1200)).await;
    assert_eq!((page.changes.len(), page.pending), (1200, 1300));
}

pub async fn a_live_feed_tells_what_is_there_and_then_what_happens(place: Place) {
    let db = filled(&place, &["a", "b"]).await;
    let mut feed = db.changes().live().await.unwrap();
    let first = soon(feed.by_ref().take(2).try_collect::<Vec<_>>()).await.unwrap();
    place.told(ids(&first), &["a", "b"]);
    assert!(within(Duration::from_millis(50), feed.try_next()).await.is_none());
    for n in 0..20 {
        let id = format!("later-{n}");
        let rev = db.put_at(&id, json!({})).await.unwrap().rev;
        let change = soon(feed.try_next()).await.unwrap().unwrap();
        assert_eq!((change.id, change.revs), (id, vec![rev]));
    }
    db.delete_current("a").await.unwrap();
    assert!(soon(feed.try_next()).await.unwrap().unwrap().deleted);
}

pub async fn a_waiting_feed_is_woken(place: Place) {
    let db = place.db().await;
    let mut feed = db.changes().since_now().live().await.unwrap();
    let write = async {
        sleep(Duration::from_millis(100)).await;
        db.put(json!({"_id": "a"})).await.unwrap();
    };
    let (change, ()) = soon(join(feed.try_next(), write)).await;
    assert_eq!(change.unwrap().unwrap().id, "a");
}

pub async fn a_live_feed_from_now_misses_nothing_after_it_was_asked_for(place: Place) {
    let db = filled(&place, &["before"]).await;
    let mut feed = db.changes().since_now().live().await.unwrap();
    db.put(json!({"_id": "a"})).await.unwrap();
    db.put(json!({"_id": "b"})).await.unwrap();
    let both = soon(feed.by_ref().take(2).try_collect::<Vec<_>>()).await.unwrap();
    place.told(ids(&both), &["a", "b"]);
}

pub async fn a_live_feed_says_when_it_has_caught_up(place: Place) {
    let db = filled(&place, &["a"]).await;
    let seq = db.info().await.unwrap().update_seq;
    let mut feed = db.changes().since(seq.clone()).live_batches().await.unwrap();
    let batch = soon(feed.try_next()).await.unwrap().unwrap();
    assert_eq!((batch.changes.len(), batch.pending), (0, 0));
    place.same_seq(&batch.last_seq, &seq);
}

pub async fn a_live_feed_passes_over_what_is_filtered_out(place: Place) {
    let db = place.db().await;
    let mut feed = db.changes().doc_ids(["wanted"]).live().await.unwrap();
    for id in ["a", "b", "wanted", "c"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    assert_eq!(soon(feed.try_next()).await.unwrap().unwrap().id, "wanted");
    db.upsert("a", json!({})).await.unwrap();
    assert!(within(Duration::from_millis(50), feed.try_next()).await.is_none());
    db.upsert("wanted", json!({})).await.unwrap();
    assert_eq!(soon(feed.try_next()).await.unwrap().unwrap().revs[0].pos, 2);
}

pub async fn a_live_feed_ends_at_its_limit(place: Place) {
    let db = filled(&place, &["a"]).await;
    let feed = db.changes().limit(3).live().await.unwrap();
    for id in ["b", "c", "d"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    let all: Vec<_> = soon(feed.try_collect()).await.unwrap();
    assert_eq!(all.len(), 3);
    assert!(place.is_cluster() || ids(&all) == ["a", "b", "c"]);
}

pub async fn every_live_feed_sees_every_document(place: Place) {
    let db = place.db().await;
    let reader = async || {
        let mut feed = db.changes().live().await.unwrap();
        let mut last = String::new();
        // A document that changes while it is read may be told again, never left out.
        let mut seen = std::collections::BTreeSet::new();
        while last != "end" {
            last = feed.try_next().await.unwrap().unwrap().id;
            seen.insert(last.clone());
        }
        seen.len()
    };
    let writer = async {
        for n in 0..100 {
            let mut docs =
                [doc(json!({"_id": format!("{n}")})), doc(json!({"_id": format!("x{n}")}))];
            db.bulk(&mut docs).await.unwrap();
        }
        db.put(json!({"_id": "end"})).await.unwrap();
    };
    let (seen, ()) = soon(join(join(reader(), reader()), writer)).await;
    assert_eq!(seen, (201, 201));
}

pub async fn a_purged_document_is_not_told_any_more(place: Place) {
    let db = filled(&place, &["a", "b"]).await;
    let a = db.get("a").await.unwrap();
    db.purge([&a]).await.unwrap();
    let all = fetch(db.changes()).await;
    assert_eq!((ids(&all.changes), all.pending), (vec!["b"], 0));
}

pub async fn who_follows_the_feed_ends_where_the_database_is(place: Place) {
    let db = place.db().await;
    let ids = ["a", "b", "c", "d", "e"];
    let writer = async |n: u64| {
        let mut random = crate::model::Random::new(n);
        for step in 0..60 {
            let id = ids[random.rng().random_range(0..ids.len())];
            match random.rng().random_range(0..4) {
                0 => {
                    let rev = settee::Rev::new(1, random.rng().random()).to_string();
                    graft(&db, id, &[rev.as_str()], false, json!({"step": step})).await;
                }
                // Somebody may have been faster.
                1 => drop(db.delete_current(id).await),
                _ => drop(db.upsert(id, json!({"writer": n, "step": step})).await),
            }
        }
    };
    let follower = async {
        let mut feed = db.changes().live().await.unwrap();
        let mut seen = std::collections::BTreeMap::new();
        while let Some(change) = feed.try_next().await.unwrap() {
            if change.id == "end" {
                break;
            }
            seen.insert(change.id, (change.revs[0].clone(), change.deleted));
        }
        seen
    };
    let writers = async {
        futures_util::future::join_all((0..4).map(writer)).await;
        db.put(json!({"_id": "end"})).await.unwrap();
    };
    let (seen, ()) = soon(join(follower, writers)).await;
    let rows = db.all_docs().keys(seen.keys().cloned()).fetch().await.unwrap().rows;
    for row in rows {
        assert_eq!(seen[&row.id], (row.rev.unwrap(), row.deleted), "{}", row.id);
    }
    assert!(ids.iter().all(|id| seen.contains_key(*id)));
}
