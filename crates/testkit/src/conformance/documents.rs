//! Single documents: writing, reading, deleting, copying; their ids and what is in them.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, conflicts, deleted, doc, fails, missing, rev};
use crate::time::within;
use futures_util::future::join_all;
use serde_json::json;
use settee::options::GetOptions;
use settee::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

pub async fn a_document_is_read_as_it_was_written(place: Place) {
    let db = place.db().await;
    // Member order, kinds of numbers and all of Unicode survive.
    let text = r#"{"_id":"a","z":1,"a":1.0,"m":[1,2.5,-0.5,1e300,[],{}],"s":"é\u0000\"\\😀\n","n":null,"t":true,"":0}"#;
    db.put(text).await.unwrap();
    let read = db.get("a").await.unwrap();
    let wrote: Document = text.parse().unwrap();
    assert_eq!(read.body, wrote.body);
    assert_eq!(read.get("s"), Some(json!("é\u{0}\"\\😀\n")));
    let names: Vec<_> = read.body.members().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["z", "a", "m", "s", "n", "t", ""]);
    assert_eq!(read.id.as_deref(), Some("a"));
    assert!(!read.deleted && read.attachments.is_empty() && read.revisions.is_none());
}

pub async fn revisions_are_the_same_as_couchdbs(place: Place) {
    let db = place.db().await;
    let written = async |id, json| db.put_at(id, json).await.unwrap().rev.to_string();
    assert_eq!(written("a", json!({})).await, "1-967a00dff5e02add41819138abb3284d");
    assert_eq!(written("b", json!({"foo": "bar"})).await, "1-4c6114c65e295552ab1019e2b046b10e");
}

pub async fn the_same_edits_make_the_same_revisions_everywhere(place: Place) {
    let (here, there) = (place.db().await, place.db().await);
    let mut ends = Vec::new();
    for db in [here, there] {
        let mut doc = doc(json!({"_id": "a", "list": [1, 2, 3], "x": 1.0}));
        db.save(&mut doc).await.unwrap();
        doc.set("list", json!([1, 300, -1, "é"])).unwrap();
        db.save(&mut doc).await.unwrap();
        db.put_attachment(&mut doc, "a.bin", &[1, 2, 3], None).await.unwrap();
        ends.push(db.delete(&doc).await.unwrap().rev);
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0].pos, 4);
}

pub async fn a_write_must_be_based_on_the_current_revision(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    conflicts(db.put(json!({"_id": "a", "n": 2})).await);
    conflicts(db.put(json!({"_id": "a", "_rev": "1-unknown"})).await);
    conflicts(db.put(json!({"_id": "a", "_rev": "7-abcdef"})).await);
    let second = db.put(json!({"_id": "a", "_rev": first, "n": 2})).await.unwrap().rev;
    assert_eq!(second.pos, 2);
    conflicts(db.put(json!({"_id": "a", "_rev": first, "n": 3})).await);
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(2)));
}

pub async fn a_new_document_cannot_have_a_revision_already(place: Place) {
    let db = place.db().await;
    conflicts(db.put(json!({"_id": "a", "_rev": "1-967a00dff5e02add41819138abb3284d"})).await);
    missing(db.get("a").await);
}

pub async fn the_same_content_makes_a_new_revision_all_the_same(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    let second = db.put(json!({"_id": "a", "_rev": first, "n": 1})).await.unwrap().rev;
    assert_eq!(second.pos, 2);
    assert_ne!(first.id, second.id);
}

pub async fn what_is_deleted_is_told_from_what_never_was(place: Place) {
    let db = place.db().await;
    missing(db.get("a").await);
    let saved = db.put(json!({"_id": "a"})).await.unwrap();
    let gone = db.delete(("a", &saved.rev)).await.unwrap();
    assert_eq!((gone.id.as_str(), gone.rev.pos), ("a", 2));
    deleted(db.get("a").await);
    assert!(db.get_opt("a").await.unwrap().is_none());
    assert!(!db.contains("a").await.unwrap());

    let options = GetOptions { rev: Some(gone.rev), ..Default::default() };
    let tombstone = db.get_with("a", &options).await.unwrap();
    assert!(tombstone.deleted && tombstone.body.is_empty());
    let options = GetOptions { rev: Some(saved.rev), ..Default::default() };
    assert!(!db.get_with("a", &options).await.unwrap().deleted);
    let options = GetOptions { rev: Some(rev("2-unknown")), ..Default::default() };
    missing(db.get_with("a", &options).await);
}

pub async fn a_deletion_needs_the_current_revision(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a"})).await.unwrap().rev;
    db.put(json!({"_id": "a", "_rev": first, "n": 2})).await.unwrap();
    conflicts(db.delete(("a", &first)).await);
    assert_eq!(fails(db.delete("a").await, 400, "bad_request"), "a revision is required");
    assert!(db.contains("a").await.unwrap());
    missing(db.delete_current("never").await);
    missing(db.delete(("never", &first)).await);
    let gone = db.delete_current("a").await.unwrap().rev;
    deleted(db.delete(("a", &first)).await);
    assert!(gone.pos == 3 && db.get("a").await.is_err());
}

pub async fn a_deletion_keeps_the_members_it_is_given(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    let gone = db
        .put(json!({"_id": "a", "_rev": first, "_deleted": true, "by": "ada"}))
        .await
        .unwrap()
        .rev;
    deleted(db.get("a").await);
    let options = GetOptions { rev: Some(gone), ..Default::default() };
    let tombstone = db.get_with("a", &options).await.unwrap();
    assert!(tombstone.deleted);
    assert_eq!((tombstone.get("by"), tombstone.get("n")), (Some(json!("ada")), None));
}

pub async fn a_document_created_again_continues_its_generations(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    let gone = db.delete(("a", &first)).await.unwrap().rev;
    let again = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    assert_eq!(again.pos, 3);
    assert_eq!(db.revision_ids("a").await.unwrap(), [again.clone(), gone, first]);
    conflicts(db.put(json!({"_id": "a"})).await);

    // It is a new document: what names the deletion is an edit of something that is not there.
    let gone = db.delete(("a", &again)).await.unwrap().rev;
    conflicts(db.put(json!({"_id": "a", "_rev": gone})).await);
    assert_eq!(db.put(json!({"_id": "a"})).await.unwrap().rev.pos, 5);
}

pub async fn a_document_may_be_deleted_before_it_exists(place: Place) {
    let db = place.db().await;
    let gone = db.put(json!({"_id": "a", "_deleted": true})).await.unwrap().rev;
    assert_eq!(gone.pos, 1);
    deleted(db.get("a").await);
    let info = db.info().await.unwrap();
    assert_eq!((info.doc_count, info.doc_del_count), (0, 1));
}

pub async fn any_text_is_an_id(place: Place) {
    let db = place.db().await;
    let long = "x".repeat(1000);
    let ids = [
        " ",
        "!",
        "\"",
        "#",
        "%",
        "%2F",
        "%00",
        "&",
        "'",
        "+",
        ".",
        "..",
        "../a",
        "/",
        "//",
        "0",
        "?",
        "A",
        "\\",
        "a",
        "a b",
        "a/",
        "a/b",
        "a/b/c",
        "a\tb",
        "a=b&c",
        "é",
        "e\u{301}",
        "føø",
        "東京",
        "😀",
        "\u{ffff}",
        "\u{10ffff}",
        "null",
        "{}",
        "[]",
        "_design/a",
        "_design/a/b",
        "_design/é ?",
        "_local/a",
        "_local/a/b",
        "_local/é ?",
        &long,
    ];
    for (n, id) in ids.iter().enumerate() {
        let saved = db.put_at(id, json!({"n": n})).await.unwrap_or_else(|e| panic!("{id:?}: {e}"));
        assert_eq!(saved.id, *id);
    }
    for (n, id) in ids.iter().enumerate() {
        let read = db.get(id).await.unwrap_or_else(|e| panic!("{id:?}: {e}"));
        assert_eq!((read.id.as_deref(), read.get("n")), (Some(*id), Some(json!(n))), "{id:?}");
    }
    let listed: BTreeSet<String> = db.ids().await.unwrap().try_collect().await.unwrap();
    let normal = ids.iter().filter(|id| !id.starts_with("_local/"));
    assert_eq!(listed, normal.map(|&id| id.to_owned()).collect());
    let changed = db.changes().fetch().await.unwrap().changes;
    assert_eq!(changed.into_iter().map(|c| c.id).collect::<BTreeSet<_>>(), listed);
    for id in ids {
        db.delete_current(id).await.unwrap_or_else(|e| panic!("{id:?}: {e}"));
    }
    assert!(db.is_empty().await.unwrap());
}

pub async fn ids_beginning_with_an_underscore_are_reserved(place: Place) {
    let db = place.db().await;
    for id in ["_a", "_", "_Design/a", "_designs", "_locale/x"] {
        let reason = fails(db.put_at(id, json!({})).await, 400, "illegal_docid");
        assert_eq!(reason, "Only reserved document ids may start with underscore.", "{id:?}");
    }
    assert_eq!(db.info().await.unwrap().doc_count, 0);
}

pub async fn unknown_members_beginning_with_an_underscore_are_refused(place: Place) {
    let db = place.db().await;
    let reason = fails(db.put(json!({"_id": "a", "_odd": 1})).await, 400, "doc_validation");
    assert_eq!(reason, "Bad special document member: _odd");
    missing(db.get("a").await);
}

pub async fn what_a_read_adds_may_be_written_back(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "a", "n": 1})).await.unwrap();
    let everything = GetOptions {
        revs_info: true,
        conflicts: true,
        deleted_conflicts: true,
        local_seq: true,
        ..Default::default()
    };
    let mut read = db.get_with("a", &everything).await.unwrap();
    read.set("n", 2).unwrap();
    db.save(&mut read).await.unwrap();
    let read = db.get("a").await.unwrap();
    assert_eq!(read.body.as_str(), r#"{"n":2}"#);
}

pub async fn reads_add_what_they_are_asked_for(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a", "n": 1})).await.unwrap().rev;
    let second = db.put(json!({"_id": "a", "_rev": first, "n": 2})).await.unwrap().rev;
    let plain = db.get("a").await.unwrap();
    assert_eq!((plain.meta, plain.revisions), Default::default());

    let read = db.get_with("a", &GetOptions { revs: true, ..Default::default() }).await.unwrap();
    let revisions = read.revisions.unwrap();
    assert_eq!((revisions.start, revisions.ids), (2, vec![second.id.clone(), first.id.clone()]));

    let options = GetOptions { revs_info: true, ..Default::default() };
    let info = db.get_with("a", &options).await.unwrap().meta.revs_info.unwrap();
    let info: Vec<_> = info.iter().map(|(rev, status)| (rev, status.name())).collect();
    assert_eq!(info, [(&second, "available"), (&first, "available")]);

    let options = GetOptions { local_seq: true, ..Default::default() };
    assert!(db.get_with("a", &options).await.is_ok());

    let options = GetOptions { rev: Some(first.clone()), revs: true, ..Default::default() };
    let old = db.get_with("a", &options).await.unwrap();
    assert_eq!((old.get("n"), old.rev), (Some(json!(1)), Some(first)));
    assert_eq!(old.revisions.unwrap().ids.len(), 1);
}

pub async fn large_documents_are_taken_up_to_the_limit(place: Place) {
    let db = place.db().await;
    let large = "x".repeat(7_000_000);
    db.put(json!({"_id": "large", "text": large})).await.unwrap();
    assert_eq!(db.get("large").await.unwrap().get("text"), Some(json!(large)));
    let larger = json!({"_id": "larger", "text": "x".repeat(8_100_000)});
    fails(db.put(larger).await, 413, "document_too_large");
    missing(db.get("larger").await);
}

pub async fn local_documents_have_no_history_and_are_not_listed(place: Place) {
    let db = place.db().await;
    let before = db.info().await.unwrap().update_seq;
    missing(db.get("_local/a").await);
    let first = db.put(json!({"_id": "_local/a", "n": 1})).await.unwrap();
    assert_eq!((first.id.as_str(), first.rev.to_string().as_str()), ("_local/a", "0-1"));
    let mut read = db.get("_local/a").await.unwrap();
    assert_eq!((read.rev.as_ref(), read.get("n")), (Some(&first.rev), Some(json!(1))));
    read.set("n", 2).unwrap();
    assert_eq!(db.save(&mut read).await.unwrap().rev.to_string(), "0-2");
    assert_eq!(db.get("_local/a").await.unwrap().get("n"), Some(json!(2)));

    assert_eq!(db.len().await.unwrap(), 0);
    assert!(db.all_docs().fetch().await.unwrap().rows.is_empty());
    assert!(db.changes().fetch().await.unwrap().changes.is_empty());
    assert_eq!(db.info().await.unwrap().update_seq, before);

    db.delete_current("_local/a").await.unwrap();
    assert!(db.get("_local/a").await.unwrap_err().is_not_found());
    assert_eq!(db.put(json!({"_id": "_local/a"})).await.unwrap().rev.to_string(), "0-1");
}

pub async fn a_write_is_seen_by_the_reads_that_follow_it(place: Place) {
    let db = place.db().await;
    let mut counter = doc(json!({"_id": "a", "n": 0}));
    for n in 1..=100 {
        counter.set("n", n).unwrap();
        let saved = db.save(&mut counter).await.unwrap();
        let read = db.get("a").await.unwrap();
        assert_eq!((read.get("n"), read.rev), (Some(json!(n)), Some(saved.rev)));
    }
}

pub async fn of_many_writers_of_one_revision_one_wins(place: Place) {
    let db = place.db().await;
    let first = db.put(json!({"_id": "a"})).await.unwrap().rev;
    let writes = (0..20).map(|n| db.put(json!({"_id": "a", "_rev": first, "writer": n})));
    let results = join_all(writes).await;
    let won: Vec<_> = results.iter().flatten().collect();
    assert_eq!(won.len(), 1);
    assert_eq!(db.get("a").await.unwrap().rev.as_ref(), Some(&won[0].rev));
    results.into_iter().filter(Result::is_err).for_each(conflicts);
    assert!(db.conflicts("a").await.unwrap().is_empty());
}

pub async fn updates_that_try_again_lose_nothing(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "counter", "n": 0})).await.unwrap();
    let writer = async || {
        for _ in 0..10 {
            let add =
                |doc: &mut Document| doc.set("n", doc.get("n").unwrap().as_u64().unwrap() + 1);
            db.update_with("counter", add).await.unwrap();
        }
    };
    join_all((0..8).map(|_| writer())).await;
    let counter = db.get("counter").await.unwrap();
    assert_eq!((counter.get("n"), counter.rev.unwrap().pos), (Some(json!(80)), 81));
    missing(db.update_with("never", |_| Ok(())).await);
}

pub async fn an_upsert_writes_whatever_is_there(place: Place) {
    let db = place.db().await;
    let upsert = async |n| db.upsert("a", json!({"n": n})).await.unwrap().rev;
    let first = upsert(1).await;
    assert_eq!((first.pos, upsert(2).await.pos), (1, 2));
    conflicts(db.upsert("a", json!({"_rev": first, "n": 3})).await);
    db.delete_current("a").await.unwrap();
    assert_eq!(upsert(4).await.pos, 4);
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(4)));
}

pub async fn a_copy_takes_members_and_attachments_along(place: Place) {
    let db = place.db().await;
    let mut source = doc(json!({"_id": "a", "z": 1, "b": [true]}));
    db.save(&mut source).await.unwrap();
    db.put_attachment(&mut source, "t.txt", "text ".repeat(100), None).await.unwrap();
    db.put_attachment(&mut source, "b.bin", &[0, 1, 2], None).await.unwrap();
    let rev = db.copy("a", "b").await.unwrap();
    assert_eq!(rev.pos, 1);
    let copy = db.get("b").await.unwrap();
    assert_eq!(copy.body, db.get("a").await.unwrap().body);
    let text = db.attachment(&copy, "t.txt").await.unwrap();
    assert_eq!(text.content_type, "text/plain");
    assert_eq!(text.bytes().await.unwrap(), "text ".repeat(100));
    assert_eq!(db.attachment("b", "b.bin").await.unwrap().bytes().await.unwrap(), [0, 1, 2][..]);
    missing(db.copy("never", "c").await);
}

pub async fn several_documents_are_read_in_the_order_asked_for(place: Place) {
    let db = place.db().await;
    for id in ["a", "b", "c"] {
        db.put_at(id, json!({"is": id})).await.unwrap();
    }
    db.delete_current("b").await.unwrap();
    let read = db.get_many(["c", "b", "never", "a", "c"]).await.unwrap();
    let read: Vec<_> = read.iter().map(|doc| doc.as_ref().and_then(|doc| doc.get("is"))).collect();
    assert_eq!(read, [Some(json!("c")), None, None, Some(json!("a")), Some(json!("c"))]);
    assert!(db.get_many(Vec::<String>::new()).await.unwrap().is_empty());
}

pub async fn a_deferred_write_is_visible_at_once_and_kept(place: Place) {
    let db = place.db().await;
    let mut doc = doc(json!({"n": 1}));
    let id = db.save_deferred(&mut doc).await.unwrap();
    assert_eq!((doc.id.as_ref(), doc.rev.as_ref()), (Some(&id), None));
    db.commit().await.unwrap();
    assert_eq!(db.get(&id).await.unwrap().get("n"), Some(json!(1)));
}

pub async fn a_write_that_nobody_waits_for_is_done_or_not_but_never_half(place: Place) {
    let db = place.db().await;
    for n in 0..30 {
        let id = format!("doc-{n}");
        let mut with = doc(json!({"_id": id, "n": n}));
        db.save(&mut with).await.unwrap();
        let body = vec![n as u8; 100_000];
        {
            let write = db.put_attachment(&mut with, "x", body.clone(), None);
            let _ = within(Duration::from_micros(n * 40), write).await;
        }
        let stored = db.get(&id).await.unwrap();
        match stored.rev.as_ref().unwrap().pos {
            1 => assert!(stored.attachments.is_empty()),
            2 => {
                let read = db.attachment(id.as_str(), "x").await.unwrap().bytes().await.unwrap();
                assert_eq!(read, body);
            }
            other => panic!("generation {other}"),
        }
    }
    assert_eq!(db.len().await.unwrap(), 30);
}

pub async fn nesting_without_end_is_refused(place: Place) {
    let db = place.db().await;
    let nested = |depth| format!(r#"{{"_id":"a","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    fails(db.put(nested(100_000).as_str()).await, 400, "bad_request");
    db.put(nested(100).as_str()).await.unwrap();
    assert_eq!(db.get("a").await.unwrap().body.as_str().len(), 206);
}
