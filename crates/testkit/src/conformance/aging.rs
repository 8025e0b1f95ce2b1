//! When changes were made, and what becomes of old deletions.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, fails, graft, missing};
use serde_json::json;
use settee::prelude::*;
use settee::wire::{AutoPurge, Seq};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);

pub async fn how_long_deletions_are_kept_can_be_set(place: Place) {
    let db = place.db().await;
    assert_eq!(db.auto_purge().await.unwrap(), AutoPurge::default());
    for text in ["30_days", "infinity"] {
        let settings = AutoPurge { deleted_document_ttl: text.parse().ok() };
        db.set_auto_purge(&settings).await.unwrap();
        assert_eq!(db.auto_purge().await.unwrap(), settings);
    }
    db.set_auto_purge(&AutoPurge::default()).await.unwrap();
    assert_eq!(db.auto_purge().await.unwrap(), AutoPurge::default());
}

pub async fn changes_are_counted_by_time(place: Place) {
    let db = place.db().await;
    assert_eq!(db.time_seq().await.unwrap(), []);
    for id in ["a", "b", "c"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    let bins = db.time_seq().await.unwrap();
    assert_eq!(bins.iter().map(|bin| bin.changes).sum::<u64>(), 3);
    let now = SystemTime::now();
    assert!(bins.iter().all(|bin| bin.start <= now && bin.start + DAY > now), "{bins:?}");

    db.reset_time_seq().await.unwrap();
    assert_eq!(db.time_seq().await.unwrap(), []);
    db.put_at("d", json!({})).await.unwrap();
    let bins = db.time_seq().await.unwrap();
    assert_eq!((bins[0].start, bins[0].changes), (UNIX_EPOCH, 3), "when that was is forgotten");
    assert_eq!(bins[1].changes, 1);
}

pub async fn changes_since_a_time_leave_nothing_out(place: Place) {
    let db = place.db().await;
    for id in ["a", "b", "c"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    for time in [UNIX_EPOCH, SystemTime::now() - DAY, SystemTime::now()] {
        let batch = db.changes().since_time(time).fetch().await.unwrap();
        assert_eq!(batch.changes.len(), 3, "since {time:?}");
    }
    let batch = db.changes().since_time(SystemTime::now() + DAY).fetch().await.unwrap();
    assert_eq!((batch.changes.len(), batch.pending), (0, 0));
    assert_eq!(batch.last_seq, db.info().await.unwrap().update_seq);

    let mut live = db.changes().since_time(SystemTime::now() + DAY).live().await.unwrap();
    db.put_at("d", json!({})).await.unwrap();
    assert_eq!(live.next().await.unwrap().unwrap().id, "d", "what is newer than now still comes");
}

pub async fn old_deletions_are_purged(place: Place) {
    let db = place.db().await;
    for id in ["alive", "gone", "back"] {
        let saved = db.put_at(id, json!({})).await.unwrap();
        if id != "alive" {
            db.delete((id, &saved.rev)).await.unwrap();
        }
    }
    db.put_at("back", json!({})).await.unwrap();
    // One branch is deleted, the other is not.
    graft(&db, "half", &["2-a", "1-a"], false, json!({})).await;
    graft(&db, "half", &["2-b", "1-a"], true, json!({})).await;
    graft(&db, "twice", &["2-a", "1-a"], true, json!({})).await;
    graft(&db, "twice", &["2-b", "1-a"], true, json!({})).await;

    let tomorrow = SystemTime::now() + DAY;
    if matches!(db.info().await.unwrap().update_seq, Seq::Opaque(_)) {
        fails(db.purge_deleted_before(tomorrow).await, 501, "not_implemented");
        return;
    }
    assert_eq!(db.purge_deleted_before(SystemTime::now()).await.unwrap(), 0, "all is too young");
    let settings = AutoPurge { deleted_document_ttl: "1_sec".parse().ok() };
    db.set_auto_purge(&settings).await.unwrap();
    assert_eq!(db.purge_expired().await.unwrap(), 0, "too young for what is known of time");
    assert_eq!(db.purge_deleted_before(tomorrow).await.unwrap(), 2);
    assert_eq!(db.purge_deleted_before(tomorrow).await.unwrap(), 0);

    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (3, 0));
    missing(db.get("gone").await);
    missing(db.get("twice").await);
    for id in ["alive", "back", "half"] {
        db.get(id).await.unwrap();
    }
}
