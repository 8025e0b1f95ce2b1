//! Databases: creating, listing, describing and deleting them, and what is told of that.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, deleted, doc, fails};
use crate::time::soon;
use futures_util::future::{join, join_all};
use serde_json::json;
use settee::adapter::{AllDbsOptions, DbUpdateKind};
use settee::options::{ChangesOptions, GetOptions, OpenRevs, WriteOptions};
use settee::prelude::*;
use settee::wire::{Principals, RevsByDoc, Security, Seq};
use std::collections::BTreeSet;

pub async fn a_database_exists_from_its_creation_to_its_deletion(place: Place) {
    let (couch, name) = (place.couch(), place.name("a"));
    assert!(!couch.exists(&name).await.unwrap());
    let db = couch.create(&name).await.unwrap();
    assert_eq!(db.name(), name);
    assert!(couch.exists(&name).await.unwrap());
    assert!(couch.all_dbs().await.unwrap().contains(&name));
    couch.delete(&name).await.unwrap();
    assert!(!couch.exists(&name).await.unwrap());
    assert!(!couch.all_dbs().await.unwrap().contains(&name));
}

pub async fn creating_a_database_twice_is_refused_and_harms_nothing(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "a"})).await.unwrap();
    let reason = fails(db.create().await, 412, "file_exists");
    assert_eq!(reason, "The database could not be created, the file already exists.");
    assert!(db.contains("a").await.unwrap());
    assert!(place.couch().create_if_missing(db.name()).await.unwrap().contains("a").await.unwrap());
}

pub async fn nothing_works_on_a_database_that_is_missing(place: Place) {
    let name = place.name("never");
    fn gone<T: std::fmt::Debug>(what: &str, result: Result<T>) {
        let error = result.err().unwrap_or_else(|| panic!("{what} worked"));
        assert_eq!((error.status(), error.name()), (404, "not_found"), "{what}");
        assert_eq!(error.reason(), "Database does not exist.", "{what}");
    }
    gone("open", place.couch().open_db(&name).await);
    gone("delete", place.couch().delete(&name).await);
    let db = place.couch().db(&name).unwrap();
    assert!(!db.exists().await.unwrap());
    gone("destroy", db.destroy().await);
    gone("info", db.info().await);
    gone("get", db.get("a").await);
    gone("put", db.put(json!({"_id": "a"})).await);
    gone("bulk", db.bulk_docs([json!({"_id": "a"})], true).await);
    gone("all_docs", db.all_docs().fetch().await);
    gone("changes", db.changes().fetch().await);
    gone("open_revs", db.open_revs("a", &OpenRevs::All).await);
    gone("revs_diff", db.revs_diff(&RevsByDoc::from([("a".into(), super::revs(["1-a"]))])).await);
    gone("attachment", db.attachment("a", "b").await);
    gone("put_attachment", db.put_attachment(&mut Document::with_id("a"), "b", "c", None).await);
    gone("security", db.security().await);
    gone("revs_limit", db.revs_limit().await);
    gone("compact", db.compact().await);
    gone("live changes", db.adapter().changes(&live()).await.map(|_| ()));
}

fn live() -> ChangesOptions {
    ChangesOptions { live: true, ..Default::default() }
}

pub async fn a_handle_works_as_soon_as_its_database_exists(place: Place) {
    let db = place.couch().db(&place.name("later")).unwrap();
    assert!(db.info().await.is_err());
    db.create().await.unwrap();
    assert_eq!(db.info().await.unwrap().db_name, db.name());
}

pub async fn illegal_names_are_refused(place: Place) {
    let couch = place.couch();
    for name in ["", "A", "1a", "_a", "a b", "a.b", "é", "aB", "-a", "/a", "a?", "a\0", "../a"] {
        let refused = couch.create(name).await.err().unwrap_or_else(|| panic!("{name:?}"));
        assert_eq!((refused.status(), refused.name()), (400, "illegal_database_name"), "{name:?}");
    }
    let long = format!("a{}", "b".repeat(238));
    fails(couch.create(&long).await, 400, "database_name_too_long");
}

pub async fn legal_names_are_taken_as_they_are(place: Place) {
    let odd = ["a/b", "a/b/c", "a+b", "a$()_-/0", "a--", &"x".repeat(180)];
    for suffix in odd {
        let name = place.name(suffix);
        let db = place.couch().create(&name).await.unwrap();
        db.put_at("own", json!({"name": name})).await.unwrap();
        assert_eq!(db.info().await.unwrap().db_name, name);
    }
    for suffix in odd {
        let name = place.name(suffix);
        let db = place.couch().open_db(&name).await.unwrap();
        assert_eq!(db.get("own").await.unwrap().get("name"), Some(json!(name)));
        assert_eq!(db.len().await.unwrap(), 1);
    }
}

pub async fn names_are_listed_in_the_order_of_their_bytes(place: Place) {
    let suffixes = ["a", "a(", "a/b", "a0", "a_", "b"];
    for suffix in ["b", "a_", "a", "a0", "a/b", "a("] {
        place.couch().create(&place.name(suffix)).await.unwrap();
    }
    let ours = |list: &AllDbsOptions| {
        let (couch, prefix) = (place.couch().clone(), place.name(""));
        let list = AllDbsOptions {
            start: list.start.clone().or_else(|| Some(place.name(""))),
            end: list.end.clone().or_else(|| Some(place.name("~"))),
            ..list.clone()
        };
        async move {
            let names = couch.all_dbs_with(&list).await.unwrap();
            let suffixes = names.iter().map(|name| name.strip_prefix(&prefix).unwrap().to_owned());
            suffixes.collect::<Vec<_>>()
        }
    };
    let all = AllDbsOptions::default();
    assert_eq!(ours(&all).await, suffixes);
    assert_eq!(
        ours(&AllDbsOptions { limit: Some(2), skip: 1, ..all.clone() }).await,
        ["a(", "a/b"]
    );
    let range = AllDbsOptions {
        start: Some(place.name("a(")),
        end: Some(place.name("a_")),
        ..Default::default()
    };
    assert_eq!(ours(&range).await, ["a(", "a/b", "a0", "a_"]);
    let range = AllDbsOptions { inclusive_end: false, ..range };
    assert_eq!(ours(&range).await, ["a(", "a/b", "a0"]);
    let down = AllDbsOptions {
        start: Some(place.name("a_")),
        end: Some(place.name("a(")),
        descending: true,
        limit: Some(3),
        ..Default::default()
    };
    assert_eq!(ours(&down).await, ["a_", "a0", "a/b"]);
}

pub async fn a_new_database_of_an_old_name_is_empty(place: Place) {
    let db = place.db().await;
    for n in 0..50 {
        db.put_at(&format!("doc-{n}"), json!({"n": n})).await.unwrap();
    }
    db.put_at("_local/kept", json!({})).await.unwrap();
    db.set_revs_limit(7).await.unwrap();
    db.destroy().await.unwrap();
    db.create().await.unwrap();
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (0, 0));
    assert!(db.all_docs().fetch().await.unwrap().rows.is_empty());
    assert!(db.changes().fetch().await.unwrap().changes.is_empty());
    assert!(db.get_opt("_local/kept").await.unwrap().is_none());
    assert_eq!(db.revs_limit().await.unwrap(), 1000);
    assert_eq!(db.put(json!({"_id": "doc-1"})).await.unwrap().rev.pos, 1);
}

pub async fn databases_do_not_see_each_others_documents(place: Place) {
    let (a, b) = (place.db().await, place.db().await);
    a.put(json!({"_id": "x", "of": "a"})).await.unwrap();
    b.put(json!({"_id": "x", "of": "b"})).await.unwrap();
    b.put(json!({"_id": "y"})).await.unwrap();
    assert_eq!(a.get("x").await.unwrap().get("of"), Some(json!("a")));
    assert_eq!((a.len().await.unwrap(), b.len().await.unwrap()), (1, 2));
    a.destroy().await.unwrap();
    assert_eq!(b.get("x").await.unwrap().get("of"), Some(json!("b")));
    assert_eq!(b.changes().fetch().await.unwrap().changes.len(), 2);
}

pub async fn info_counts_documents_and_deletions(place: Place) {
    let db = place.db().await;
    let empty = db.info().await.unwrap();
    assert_eq!((empty.doc_count, empty.doc_del_count), (0, 0));
    assert!(db.is_empty().await.unwrap());
    for id in ["a", "b", "_design/c", "_local/d"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    let before = db.info().await.unwrap();
    assert_eq!((before.doc_count, before.doc_del_count), (3, 0));
    db.delete_current("a").await.unwrap();
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (2, 1));
    assert_ne!(info.update_seq, before.update_seq);
    db.put_at("a", json!({})).await.unwrap();
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (3, 0));
}

pub async fn the_update_sequence_moves_with_writes_only(place: Place) {
    let db = place.db().await;
    let seq = async || db.info().await.unwrap().update_seq;
    db.put(json!({"_id": "a"})).await.unwrap();
    let before = seq().await;
    db.get("a").await.unwrap();
    db.all_docs().fetch().await.unwrap();
    assert!(db.put(json!({"_id": "a"})).await.is_err());
    db.put_at("_local/a", json!({})).await.unwrap();
    assert_eq!(seq().await, before);
    db.upsert("a", json!({})).await.unwrap();
    assert_ne!(seq().await, before);
}

pub async fn security_is_kept_as_it_was_set(place: Place) {
    let db = place.db().await;
    let security = Security {
        admins: Principals { names: vec!["ada".into()], roles: vec!["boss".into()] },
        members: Principals { names: vec![], roles: vec!["staff".into()] },
        other: [("note".to_owned(), json!({"since": 2024}))].into_iter().collect(),
    };
    db.set_security(&security).await.unwrap();
    assert_eq!(db.security().await.unwrap(), security);
    db.set_security(&Security::default()).await.unwrap();
    assert_eq!(db.security().await.unwrap(), Security::default());
    assert_eq!(db.info().await.unwrap().doc_count, 0);
}

pub async fn fresh_ids_differ_and_ascend(place: Place) {
    let ids = place.couch().uuids(500).await.unwrap();
    assert_eq!(ids.len(), 500);
    assert!(ids.iter().all(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 500);
    let more = place.couch().uuids(10).await.unwrap();
    assert!(more.iter().all(|id| !ids.contains(id)));
}

pub async fn a_place_keeps_its_id(place: Place) {
    let id = place.couch().uuid().await.unwrap();
    assert!(!id.is_empty());
    place.db().await;
    assert_eq!(place.couch().uuid().await.unwrap(), id);
}

pub async fn creation_change_and_deletion_are_told(place: Place) {
    let mut events = place.couch().events().await.unwrap();
    let name = place.name("told");
    let mut next = async |kind| {
        // Other cases may use the same host; and one change may be told more than once.
        loop {
            let event = soon(events.try_next()).await.unwrap().expect("the feed has ended");
            if event.db_name == name && event.kind == kind {
                break;
            }
        }
    };
    let db = place.couch().create(&name).await.unwrap();
    next(DbUpdateKind::Created).await;
    db.put(json!({"_id": "a"})).await.unwrap();
    next(DbUpdateKind::Updated).await;
    db.destroy().await.unwrap();
    next(DbUpdateKind::Deleted).await;
}

pub async fn what_happened_to_databases_can_be_read_later(place: Place) {
    let db = place.db().await;
    // A cluster writes it down a little later.
    let live = place.is_cluster();
    let mut all = place.couch().db_updates(Some(Seq::default()), live).await.unwrap();
    let ours = soon(async {
        loop {
            let event = all.try_next().await.unwrap().expect("no event");
            if event.db_name == db.name() {
                break event;
            }
        }
    });
    let ours = ours.await;
    let rest = place.couch().db_updates(Some(ours.seq.clone()), false).await.unwrap();
    let rest: Vec<_> = soon(rest.try_collect()).await.unwrap();
    assert!(rest.iter().all(|event| event.db_name != db.name()));
}

pub async fn a_feed_ends_when_its_database_is_deleted(place: Place) {
    let db = place.db().await;
    let mut feed = db.changes().live().await.unwrap();
    db.put(json!({"_id": "a"})).await.unwrap();
    assert_eq!(soon(feed.try_next()).await.unwrap().unwrap().id, "a");
    db.destroy().await.unwrap();
    // An end or an error, but no waiting.
    let _ = soon(feed.collect::<Vec<_>>()).await;
}

pub async fn every_operation_is_one_of_the_adapter(place: Place) {
    // The traits can be used without the comfort above them.
    let host = place.couch().host();
    let name = place.name("raw");
    host.create(&name).await.unwrap();
    let db = host.database(&name).unwrap();
    let options = WriteOptions::default();
    let saved = db.put(doc(json!({"n": 1})), None, &options).await.unwrap();
    assert!(!saved.id.is_empty());
    let read = db.get(&saved.id, &GetOptions::default()).await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("n")), (Some(&saved.rev), Some(json!(1))));
    let mut gone = read.clone();
    gone.deleted = true;
    db.put(gone, None, &options).await.unwrap();
    deleted(db.get(&saved.id, &GetOptions::default()).await);
    host.delete(&name).await.unwrap();
}

pub async fn of_many_who_create_a_database_one_does(place: Place) {
    let name = place.name("wanted");
    let created = join_all((0..10).map(|_| place.couch().create(&name))).await;
    let count = created.iter().flatten().count();
    // Nodes that create it at the same time may each tell that the other was first.
    assert!(count == 1 || (place.is_cluster() && count == 0), "{count}");
    assert!(place.couch().exists(&name).await.unwrap());
    for refused in created.into_iter().filter(Result::is_err) {
        fails(refused, 412, "file_exists");
    }
    let deleted = join_all((0..10).map(|_| place.couch().delete(&name))).await;
    // Nodes that are asked at the same time all say that they did.
    let count = deleted.iter().flatten().count();
    assert!(count == 1 || (place.is_cluster() && count > 1), "{count}");
}

pub async fn a_database_may_be_deleted_under_its_writers(place: Place) {
    if place.is_cluster() {
        // The shards come and go one by one, and what is asked meanwhile fails in many ways.
        return;
    }
    let db = place.db().await;
    let writer = async |n: u32| {
        let mut written = 0;
        // Somebody else may create it again; then this goes on to the end.
        for step in 0..200 {
            match db.put(json!({"_id": format!("{n}-{step}")})).await {
                Ok(_) => written += 1,
                Err(error) => assert!(error.is_not_found(), "{error:?}"),
            }
        }
        written
    };
    let deleter = async {
        for _ in 0..5 {
            crate::time::sleep(std::time::Duration::from_millis(5)).await;
            db.destroy().await.unwrap();
            db.create().await.unwrap();
        }
    };
    let (written, ()) = join(join_all((0..4).map(writer)), deleter).await;
    let info = db.info().await.unwrap();
    assert!(info.doc_count <= written.iter().sum::<u64>());
    assert_eq!(db.all_docs().fetch().await.unwrap().rows.len() as u64, info.doc_count);
    assert_eq!(db.changes().fetch().await.unwrap().changes.len() as u64, info.doc_count);
}
