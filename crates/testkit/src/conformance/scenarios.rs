//! The scenarios that were promised by number: what the documentation and the tests of five older
//! libraries (couchdb-python, Flask-CouchDB, wallaby, Python-PouchDB, corduroy) do, done here.
//!
//! A case's name begins with the number. What needs more than one host, or belongs to views,
//! replication and the like, is elsewhere.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, conflicts, doc, fails, missing, rev};
use crate::time::{sleep, soon, within};
use futures_util::future::join;
use serde::{Deserialize, Serialize};
use serde_json::json;
use settee::adapter::DbUpdateKind;
use settee::options::{GetOptions, OpenRevs};
use settee::prelude::*;
use settee::wire::{RevsByDoc, Saved};
use settee::{AttachmentBody, ErrorKind, Selector};
use std::time::Duration;

fn is_first_rev(saved: &Saved) -> bool {
    let rev = saved.rev.to_string();
    rev.len() == 34 && rev.starts_with("1-") && rev[2..].bytes().all(|b| b.is_ascii_hexdigit())
}

/// S-001.
pub async fn s_001_a_saved_document_is_found_until_it_is_deleted(place: Place) {
    let name = place.name("python-tests");
    let db = place.couch().create(&name).await.unwrap();
    let mut doc = doc(json!({"type": "Person", "name": "John Doe"}));
    let saved = db.save(&mut doc).await.unwrap();
    assert_eq!((Some(&saved.id), Some(&saved.rev)), (doc.id.as_ref(), doc.rev.as_ref()));
    let read = db.get(&saved.id).await.unwrap();
    assert_eq!(read.get("type"), Some(json!("Person")));
    assert_eq!(read.get("name"), Some(json!("John Doe")));
    db.delete_current(&saved.id).await.unwrap();
    assert!(!db.contains(&saved.id).await.unwrap());
    place.couch().delete(&name).await.unwrap();
    assert!(!place.couch().exists(&name).await.unwrap());
}

/// S-003.
pub async fn s_003_a_handle_knows_its_name(place: Place) {
    let name = place.name("python-tests");
    place.couch().create(&name).await.unwrap();
    let db = place.couch().open_db(&name).await.unwrap();
    assert_eq!(format!("{db:?}"), format!("<Database '{name}'>"));
    assert_eq!(db.name(), name);
    place.couch().delete(&name).await.unwrap();
    assert!(!place.couch().all_dbs().await.unwrap().contains(&name));
}

/// S-004.
pub async fn s_004_a_database_is_not_created_twice(place: Place) {
    let name = place.name("python-tests");
    place.couch().create(&name).await.unwrap();
    fails(place.couch().create(&name).await, 412, "file_exists");
}

/// S-005.
pub async fn s_005_a_missing_database_is_neither_opened_nor_deleted(place: Place) {
    let name = place.name("missing");
    fails(place.couch().open_db(&name).await, 404, "not_found");
    fails(place.couch().delete(&name).await, 404, "not_found");
}

/// S-006, S-007.
pub async fn s_006_007_documents_are_read_changed_and_counted(place: Place) {
    let db = place.db().await;
    let saved = db.post(json!({"type": "Person", "name": "John Doe"})).await.unwrap();
    let mut read = db.get(&saved.id).await.unwrap();
    assert_eq!((read.id.as_ref(), read.rev.as_ref()), (Some(&saved.id), Some(&saved.rev)));
    read.set("name", "Mary Jane").unwrap();
    let id = read.id.clone().unwrap();
    db.put_at(&id, read).await.unwrap();
    let read = db.get(&id).await.unwrap();
    assert_eq!(read.get("name"), Some(json!("Mary Jane")));
    assert!(read.rev.unwrap().to_string().starts_with("2-"));

    db.put_at("JohnDoe", json!({"type": "person", "name": "John Doe"})).await.unwrap();
    assert!(db.contains("JohnDoe").await.unwrap());
    assert_eq!(db.len().await.unwrap(), 2);
}

/// S-008, S-116.
pub async fn s_008_a_stale_copy_cannot_delete(place: Place) {
    let db = place.db().await;
    let mut first = doc(json!({"_id": "johndoe", "name": "John Doe"}));
    db.save(&mut first).await.unwrap();
    let mut second = db.get("johndoe").await.unwrap();
    second.set("age", 42).unwrap();
    db.save(&mut second).await.unwrap();
    conflicts(db.delete(&first).await);
    assert_eq!(db.get("johndoe").await.unwrap().get("age"), Some(json!(42)));
}

/// S-014.
pub async fn s_014_three_documents_are_written_at_once(place: Place) {
    let db = place.db().await;
    let mut docs = [
        doc(json!({"type": "Person", "name": "John Doe"})),
        doc(json!({"type": "Person", "name": "Mary Jane"})),
        doc(json!({"type": "City", "name": "Gotham City"})),
    ];
    let results = db.bulk(&mut docs).await.unwrap();
    assert_eq!(results.len(), 3);
    for (result, doc) in results.iter().zip(&docs) {
        let saved = result.as_ref().unwrap();
        assert!(is_first_rev(saved));
        assert_eq!((Some(&saved.id), Some(&saved.rev)), (doc.id.as_ref(), doc.rev.as_ref()));
    }
}

/// S-015.
pub async fn s_015_one_document_is_listed(place: Place) {
    let db = place.db().await;
    db.put_at("gotham", json!({"type": "City", "name": "Gotham City"})).await.unwrap();
    let listing = db.all_docs().fetch().await.unwrap();
    assert_eq!(listing.ids().collect::<Vec<_>>(), ["gotham"]);
}

/// S-019.
pub async fn s_019_ids_may_be_made_by_the_caller(place: Place) {
    let db = place.db().await;
    let id = format!("{:032x}", rand::random::<u128>());
    assert!(is_first_rev(&db.put_at(&id, json!({"type": "person"})).await.unwrap()));
    let id = format!("{:032x}", rand::random::<u128>());
    let mut own = doc(json!({"_id": id, "type": "person"}));
    let saved = db.save(&mut own).await.unwrap();
    assert!(saved.id == id && is_first_rev(&saved));
    assert!(db.contains(&id).await.unwrap());
}

/// S-020.
pub async fn s_020_a_deferred_save_gives_no_revision(place: Place) {
    let db = place.db().await;
    let mut doc = doc(json!({"type": "Person"}));
    let id = db.save_deferred(&mut doc).await.unwrap();
    assert_eq!((doc.id, doc.rev), (Some(id), None));
}

/// S-062, U-060.
pub async fn s_062_a_database_is_created_and_destroyed(place: Place) {
    let db = place.couch().db(&place.name("own")).unwrap();
    db.create().await.unwrap();
    assert!(db.exists().await.unwrap());
    db.destroy().await.unwrap();
    assert!(!db.exists().await.unwrap());
    fails(place.couch().delete(db.name()).await, 404, "not_found");
}

/// S-063, S-064.
pub async fn s_063_064_saving_brings_the_document_up_to_date(place: Place) {
    let db = place.db().await;
    db.put_at("docid", json!({})).await.unwrap();
    let mut doc = db.get("docid").await.unwrap();
    doc.set("test", "Hello World").unwrap();
    let before = doc.rev.clone();
    db.save(&mut doc).await.unwrap();
    assert_ne!(doc.rev, before);

    let mut new = Document::with_id("newdocid");
    db.save(&mut new).await.unwrap();
    assert!(new.rev.is_some());
    db.delete(&new).await.unwrap();
}

/// S-065.
pub async fn s_065_an_image_is_attached_read_and_removed(place: Place) {
    let db = place.db().await;
    let mut doc = Document::with_id("docid");
    db.save(&mut doc).await.unwrap();
    let image: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0";
    db.put_attachment(&mut doc, "newimage.png", image, Some("image/png")).await.unwrap();
    let reader = db.attachment(&doc, "newimage.png").await.unwrap();
    assert_eq!(reader.content_type, "image/png");
    assert_eq!(reader.bytes().await.unwrap(), image);
    db.delete_attachment(&mut doc, "newimage.png").await.unwrap();
    assert!(db.attachment_opt(&doc, "newimage.png").await.unwrap().is_none());
}

/// S-080, S-081, S-082.
pub async fn s_080_082_put_get_and_overwrite(place: Place) {
    let db = place.db().await;
    let saved = db.put(json!({"_id": "my_example_doc"})).await.unwrap();
    assert!(saved.id == "my_example_doc" && is_first_rev(&saved));
    let read = db.get("my_example_doc").await.unwrap();
    assert_eq!(read.to_value(), json!({"_id": "my_example_doc", "_rev": saved.rev}));
    // Without a revision of its own, it takes the place of the current one.
    assert_eq!(db.upsert("my_example_doc", json!({})).await.unwrap().rev.pos, 2);
}

/// S-083.
pub async fn s_083_a_document_without_id_gets_one(place: Place) {
    let db = place.db().await;
    let saved = db.post(json!({})).await.unwrap();
    assert!(!saved.id.is_empty() && is_first_rev(&saved));
    db.destroy().await.unwrap();
}

/// S-084.
pub async fn s_084_an_unknown_document_is_a_404(place: Place) {
    let db = place.db().await;
    assert_eq!(db.get("unexisting-doc").await.unwrap_err().status(), 404);
}

/// S-085, S-087.
pub async fn s_085_087_handles_of_one_name_are_of_one_database(place: Place) {
    let name = place.name("test");
    let one = place.couch().create_if_missing(&name).await.unwrap();
    let other = place.couch().create_if_missing(&name).await.unwrap();
    one.put(json!({"_id": "a"})).await.unwrap();
    assert!(other.contains("a").await.unwrap());
    place.couch().delete(&name).await.unwrap();
    assert!(!one.exists().await.unwrap() && !other.exists().await.unwrap());
}

/// S-088, S-089, S-090.
pub async fn s_088_090_a_database_is_like_a_map(place: Place) {
    let db = place.db().await;
    db.upsert("mytest", json!({"test": "ok"})).await.unwrap();
    let ids: Vec<String> = db.ids().await.unwrap().try_collect().await.unwrap();
    assert_eq!(ids, ["mytest"]);
    assert_eq!(db.len().await.unwrap(), 1);
    assert!(db.contains("mytest").await.unwrap());
    assert!(!db.contains("abc").await.unwrap());
    missing(db.get("abc").await);
    missing(db.delete_current("abc").await);
    let default = doc(json!({"hello": "world"}));
    let read = db.get_opt("abc").await.unwrap().unwrap_or(default);
    assert_eq!(read.to_value(), json!({"hello": "world"}));
}

/// S-091.
pub async fn s_091_documents_come_in_many_forms(place: Place) {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Person {
        _id: String,
        age: u32,
    }
    let db = place.db().await;
    db.put(r#"{"_id": "text", "age": 1}"#).await.unwrap();
    db.put(String::from(r#"{"_id": "string", "age": 2}"#)).await.unwrap();
    db.put(&String::from(r#"{"_id": "reference", "age": 3}"#)).await.unwrap();
    db.put(json!({"_id": "value", "age": 4})).await.unwrap();
    db.put(&json!({"_id": "borrowed", "age": 5})).await.unwrap();
    db.put(doc(json!({"_id": "document", "age": 6}))).await.unwrap();
    db.put(&doc(json!({"_id": "lent", "age": 7}))).await.unwrap();
    let typed = Person { _id: "typed".into(), age: 8 };
    db.put(&typed).await.unwrap();
    assert_eq!(db.get("typed").await.unwrap().to::<Person>().unwrap(), typed);
    assert_eq!(db.len().await.unwrap(), 8);
    for wrong in ["", "[]", "1", "\"a\"", "{", "{\"a\": }", "null"] {
        assert_eq!(db.put(wrong).await.unwrap_err().status(), 400, "{wrong:?}");
    }
}

/// S-115.
pub async fn s_115_members_keep_their_order(place: Place) {
    let db = place.db().await;
    let mut oliver = doc(json!({
        "_id": "lackey-129", "first": "Oliver", "last": "Reeder", "office": "Richmond Terrace",
    }));
    db.save(&mut oliver).await.unwrap();
    let mut oliver = db.get("lackey-129").await.unwrap();
    oliver.remove("office");
    oliver.set("education", "Oxbridge").unwrap();
    db.save(&mut oliver).await.unwrap();
    assert_eq!(oliver.rev.as_ref().unwrap().pos, 2);
    let read = db.get("lackey-129").await.unwrap();
    let names: Vec<_> = read.body.members().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["first", "last", "education"]);
}

/// S-117, S-118.
pub async fn s_117_118_saving_gives_id_and_revision(place: Place) {
    let db = place.db().await;
    let mut lackey = doc(json!({"_id": "lackey-130", "first": "Ollie"}));
    assert!(is_first_rev(&db.save(&mut lackey).await.unwrap()));
    let mut nameless = doc(json!({"first": "Glenn"}));
    db.save(&mut nameless).await.unwrap();
    let id = nameless.id.unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
}

/// S-119.
pub async fn s_119_several_documents_are_read_in_order(place: Place) {
    let db = place.db().await;
    for id in ["swain", "ballentine"] {
        db.put_at(id, json!({})).await.unwrap();
    }
    let read = db.get_many(["ballentine", "holhurst", "swain"]).await.unwrap();
    let ids: Vec<_> =
        read.iter().map(|doc| doc.as_ref().and_then(|doc| doc.id.as_deref())).collect();
    assert_eq!(ids, [Some("ballentine"), None, Some("swain")]);
}

/// S-120.
pub async fn s_120_a_batch_edits_and_deletes(place: Place) {
    let db = place.db().await;
    let mut docs = [doc(json!({"_id": "a", "n": 1})), doc(json!({"_id": "b"}))];
    db.bulk(&mut docs).await.unwrap();
    docs[0].set("n", 2).unwrap();
    docs[1].deleted = true;
    let mut docs = Vec::from(docs);
    docs.push(doc(json!({"_id": "c", "nested": {"deeper": [1, {"still": true}]}})));
    let outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Success: 3 docs updated>");
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(2)));
    assert!(!db.contains("b").await.unwrap());
    assert_eq!(
        db.get("c").await.unwrap().get("nested"),
        Some(json!({"deeper": [1, {"still": true}]}))
    );
}

async fn first_and_second(place: &Place) -> (Database, [Document; 2]) {
    let db = place.db().await;
    let mut docs = [doc(json!({"_id": "first", "n": 1})), doc(json!({"_id": "second", "n": 2}))];
    let outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Success: 2 docs updated>");
    docs[1].rev = None;
    (db, docs)
}

/// S-121, S-122, S-123.
pub async fn s_121_123_a_conflict_is_resolved_with_theirs_at_hand(place: Place) {
    let (db, mut docs) = first_and_second(&place).await;
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Conflict: second>");
    let [pending] = outcome.pending() else { panic!("{outcome:?}") };
    assert_eq!((pending.id(), pending.error.kind()), ("second", ErrorKind::Conflict));
    let [resolved] = outcome.resolved() else { panic!("{outcome:?}") };
    assert_eq!(
        (resolved.id.as_deref(), resolved.rev.as_ref()),
        (Some("first"), docs[0].rev.as_ref())
    );

    let merge = |mut ours: Document, theirs: Option<Document>| {
        let theirs = theirs.unwrap();
        assert_eq!((theirs.get("n"), theirs.rev.as_ref().unwrap().pos), (Some(json!(2)), 1));
        ours.rev = theirs.rev;
        ours.set("n", 3).unwrap();
        Some(ours)
    };
    outcome.resolve(merge).await.unwrap();
    assert_eq!((outcome.pending().len(), outcome.resolved().len()), (0, 2));
    assert_eq!(outcome.to_string(), "<Success: 2 docs updated>");
    let read = db.get("second").await.unwrap();
    assert_eq!((read.get("n"), read.rev.unwrap().pos), (Some(json!(3)), 2));
}

/// S-124.
pub async fn s_124_a_conflict_may_be_left_pending(place: Place) {
    let (db, mut docs) = first_and_second(&place).await;
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    outcome.resolve(|_, _| None).await.unwrap();
    assert_eq!(outcome.to_string(), "<Conflict: second>");
    assert_eq!(db.get("second").await.unwrap().rev.unwrap().pos, 1);
}

/// S-125.
pub async fn s_125_conflicts_are_merged_or_forced_at_once(place: Place) {
    let (db, mut docs) = first_and_second(&place).await;
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    assert!(outcome.overwrite().await.unwrap().pending().is_empty());
    docs[0].rev = None;
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Conflicts: first, second>");
    let merge = |mut ours: Document, theirs: Option<Document>| {
        ours.rev = theirs?.rev;
        Some(ours)
    };
    assert!(outcome.resolve(merge).await.unwrap().pending().is_empty());
}

pub async fn a_conflict_with_a_deletion_is_resolved_by_creating_anew(place: Place) {
    let (db, mut docs) = first_and_second(&place).await;
    for id in ["first", "second"] {
        db.delete_current(id).await.unwrap();
    }
    docs[1].rev = Some(rev("1-other"));
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Conflicts: first, second>");
    outcome
        .resolve(|ours, theirs| {
            assert!(theirs.is_none());
            (ours.id.as_deref() == Some("first")).then_some(ours)
        })
        .await
        .unwrap();
    assert_eq!(outcome.to_string(), "<Conflict: second>");
    outcome.overwrite().await.unwrap();
    assert!(outcome.pending().is_empty());
    for id in ["first", "second"] {
        assert_eq!(db.get(id).await.unwrap().rev.unwrap().pos, 3);
    }
}

/// S-139.
pub async fn s_139_210_changes_are_read_by_pages(place: Place) {
    let db = place.db().await;
    let docs = (0..210).map(|n| json!({"_id": format!("doc-{n:03}")}));
    db.bulk_docs(docs, true).await.unwrap();
    let all = db.changes().fetch().await.unwrap();
    assert_eq!(all.changes.len(), 210);
    place.same_seq(&all.last_seq, &db.info().await.unwrap().update_seq);
    let page = db.changes().since(all.changes[99].seq.clone()).limit(5).fetch().await.unwrap();
    assert_eq!(page.changes.len(), 5);
    assert!(place.is_cluster() || page.changes == all.changes[100..105]);
    place.same_seq(&page.last_seq, &page.changes[4].seq);
}

/// S-140.
pub async fn s_140_a_feed_tells_until_it_is_stopped(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "before"})).await.unwrap();
    let since = db.info().await.unwrap().update_seq;
    let mut feed = db.changes().since(since).live_batches().await.unwrap();
    db.put(json!({"_id": "foo"})).await.unwrap();
    let told = soon(async {
        loop {
            let batch = feed.try_next().await.unwrap().unwrap();
            if !batch.changes.is_empty() {
                break batch;
            }
        }
    });
    let batch = told.await;
    assert_eq!(batch.changes[0].id, "foo");
    place.same_seq(&batch.last_seq, &db.info().await.unwrap().update_seq);
    drop(feed);
    db.put(json!({"_id": "after"})).await.unwrap();
}

/// U-020.
pub async fn u_020_writes_that_conflict_and_one_that_does_not(place: Place) {
    let db = place.db().await;
    let mut one = doc(json!({"_id": "foo", "status": "testing"}));
    db.save(&mut one).await.unwrap();
    let mut other = db.get("foo").await.unwrap();
    one.set("status", "ok").unwrap();
    db.save(&mut one).await.unwrap();
    conflicts(db.save(&mut other).await);
    conflicts(db.put(json!({"_id": "foo", "status": "new"})).await);
    db.delete(&one).await.unwrap();
    db.put(json!({"_id": "foo", "status": "new"})).await.unwrap();
}

/// U-023.
pub async fn u_023_ids_and_fields_may_be_of_any_script(place: Place) {
    let db = place.db().await;
    db.put_at("foo/bar", json!({"status": "testing"})).await.unwrap();
    assert!(db.contains("foo/bar").await.unwrap());
    db.put_at("føø", json!({"bår": "Iñtërnâtiônàlizætiøn", "baz": "ASCII"})).await.unwrap();
    let read = db.get("føø").await.unwrap();
    assert_eq!(read.get("bår"), Some(json!("Iñtërnâtiônàlizætiøn")));
    assert_eq!(read.get("baz"), Some(json!("ASCII")));
}

/// U-024.
pub async fn u_024_what_is_no_document_is_refused_before_anything_is_asked(place: Place) {
    // Nothing can be asked of a database that does not exist.
    let db = place.couch().db(&place.name("missing")).unwrap();
    assert_eq!(
        fails(db.delete(&Document::new()).await, 400, "bad_request"),
        "a revision is required"
    );
    fails(db.put(json!({"n": 1})).await, 400, "bad_request");
    let keys_that_are_no_text = std::collections::BTreeMap::from([((1, 2), 3)]);
    fails(db.put(&keys_that_are_no_text).await, 400, "bad_request");
}

/// U-025.
pub async fn u_025_the_revisions_of_a_document_until_compaction(place: Place) {
    let db = place.db().await;
    let mut doc = doc(json!({"bar": 42}));
    let first = db.save(&mut doc).await.unwrap();
    doc.set("bar", 43).unwrap();
    let second = db.save(&mut doc).await.unwrap();
    let history = async || -> Vec<Document> {
        db.revisions(&first.id).await.unwrap().try_collect().await.unwrap()
    };
    let bars: Vec<_> = history().await.iter().map(|doc| doc.get("bar")).collect();
    assert_eq!(bars, [Some(json!(43)), Some(json!(42))]);
    assert_eq!(db.revision_ids(&first.id).await.unwrap(), [second.rev.clone(), first.rev.clone()]);
    place.compact(&db).await;
    let old = GetOptions { rev: Some(first.rev.clone()), ..Default::default() };
    missing(db.get_with(&first.id, &old).await);
    assert_eq!(history().await.len(), 1);
    let unknown: Vec<_> = db.revisions("crap").await.unwrap().try_collect().await.unwrap();
    assert_eq!(unknown.len(), 0);
    missing(db.revision_ids("crap").await);
}

/// U-026.
pub async fn u_026_attachments_of_all_kinds(place: Place) {
    let db = place.db().await;
    let mut doc = doc(json!({"bar": 42}));
    db.save(&mut doc).await.unwrap();
    let old = doc.rev.clone();
    db.put_attachment(&mut doc, "foo.txt", "Foo bar", Some("text/plain")).await.unwrap();
    assert_ne!(doc.rev, old);
    let id = doc.id.clone().unwrap();
    let read = db.get(&id).await.unwrap();
    let [stub] = read.attachments.as_slice() else { panic!("{read:?}") };
    assert_eq!((stub.name.as_str(), stub.length), ("foo.txt", Some(7)));
    assert_eq!(stub.content_type, "text/plain");
    let text = db.attachment(&doc, "foo.txt").await.unwrap().bytes().await.unwrap();
    assert_eq!(text, "Foo bar");
    db.delete_attachment(&mut doc, "foo.txt").await.unwrap();
    assert!(db.get(&id).await.unwrap().attachments.is_empty());

    let file = std::io::Cursor::new(b"from a file".to_vec());
    db.put_attachment(&mut doc, "test.txt", AttachmentBody::from_reader(file), None).await.unwrap();
    let reader = db.attachment(id.as_str(), "test.txt").await.unwrap();
    assert_eq!((reader.content_type.as_str(), reader.length), ("text/plain", 11));

    db.put_attachment(&mut doc, "empty.txt", "", None).await.unwrap();
    let reader = db.attachment(&doc, "empty.txt").await.unwrap();
    assert_eq!((reader.length, reader.bytes().await.unwrap().len()), (0, 0));

    db.put_attachment(&mut doc, "test.json", "{}", None).await.unwrap();
    let reader = db.attachment(&doc, "test.json").await.unwrap();
    assert_eq!(reader.content_type, "application/json");
    assert_eq!(reader.bytes().await.unwrap(), "{}");
}

/// U-027.
pub async fn u_027_a_missing_attachment_is_none_or_an_error(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "a"})).await.unwrap();
    assert!(db.attachment_opt("a", "missing.txt").await.unwrap().is_none());
    fails(db.attachment("a", "missing.txt").await, 404, "not_found");
}

/// U-028.
pub async fn u_028_one_stale_document_in_a_batch(place: Place) {
    let db = place.db().await;
    let mut docs = [doc(json!({"_id": "a"})), doc(json!({"_id": "b"})), doc(json!({"_id": "c"}))];
    db.bulk(&mut docs).await.unwrap();
    db.upsert("a", json!({"n": 2})).await.unwrap();
    let outcome = db.save_all(&mut docs).await.unwrap();
    let [pending] = outcome.pending() else { panic!("{outcome:?}") };
    assert_eq!((pending.id(), pending.error.name()), ("a", "conflict"));
    assert_eq!(outcome.resolved().len(), 2);
}

/// U-029.
pub async fn u_029_all_or_nothing_makes_conflicts_of_conflicts(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "foo", "n": 1})).await.unwrap();
    let mut docs = [doc(json!({"_id": "foo", "n": 2})), doc(json!({"n": 3}))];
    let saved = db.bulk_all_or_nothing(&mut docs).await.unwrap();
    assert_eq!(saved.len(), 2);
    assert_eq!(Some(&saved[0].rev), docs[0].rev.as_ref());
    assert!(db.contains(&saved[1].id).await.unwrap());
    assert_eq!(db.conflicts("foo").await.unwrap().len(), 1);
    assert_eq!(db.open_revs("foo", &OpenRevs::All).await.unwrap().len(), 2);
    // Based on what is there, it is an edit like others, and the same one.
    let there = db.put(json!({"_id": "bar", "n": 1})).await.unwrap();
    let mut edit = [doc(json!({"_id": "bar", "_rev": there.rev, "n": 2}))];
    let saved = db.bulk_all_or_nothing(&mut edit).await.unwrap();
    assert_eq!(db.get("bar").await.unwrap().rev, Some(saved[0].rev.clone()));
    assert!(db.conflicts("bar").await.unwrap().is_empty());
    let other = place.db().await;
    other.put(json!({"_id": "bar", "n": 1})).await.unwrap();
    assert_eq!(other.upsert("bar", json!({"n": 2})).await.unwrap().rev, saved[0].rev);
}

/// U-030.
pub async fn u_030_copies(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "foo", "status": "testing"})).await.unwrap();
    let rev = db.copy("foo", "bar").await.unwrap();
    let mut bar = db.get("bar").await.unwrap();
    assert_eq!((bar.get("status"), bar.rev.as_ref()), (Some(json!("testing")), Some(&rev)));
    bar.set("status", "idle").unwrap();
    db.save(&mut bar).await.unwrap();

    conflicts(db.copy("foo", "bar").await);
    conflicts(db.copy("foo", ("bar", &rev)).await);
    let rev = db.copy("foo", &bar).await.unwrap();
    let copied = db.get("bar").await.unwrap();
    assert_eq!((copied.get("status"), copied.rev), (Some(json!("testing")), Some(rev)));

    let source = db.get("foo").await.unwrap();
    db.copy(&source, "baz").await.unwrap();
    db.copy(&source, &Document::with_id("qux")).await.unwrap();
    assert_eq!(db.len().await.unwrap(), 4);
}

/// U-031, U-032.
pub async fn u_031_032_one_change_is_told_at_once_or_later(place: Place) {
    let db = place.db().await;
    db.put_at("foo", json!({"bar": true})).await.unwrap();
    let changes = db.changes().fetch().await.unwrap();
    assert_eq!((changes.changes.len(), changes.changes[0].id.as_str()), (1, "foo"));
    place.same_seq(&changes.last_seq, &changes.changes[0].seq);
    let mut feed = db.changes().since(changes.last_seq).live().await.unwrap();
    let later = async {
        sleep(Duration::from_millis(300)).await;
        db.put(json!({"_id": "bar"})).await.unwrap();
    };
    let (change, ()) = soon(join(feed.try_next(), later)).await;
    assert_eq!(change.unwrap().unwrap().id, "bar");
}

/// U-033.
pub async fn u_033_one_document_is_purged(place: Place) {
    let db = place.db().await;
    db.put(json!({"_id": "foo", "status": "testing"})).await.unwrap();
    let source = db.get("foo").await.unwrap();
    let purged = db.purge([&source]).await.unwrap().purged;
    assert_eq!(purged, RevsByDoc::from([("foo".to_owned(), vec![source.rev.unwrap()])]));
    fails(db.purge(["foo"]).await, 400, "bad_request");
}

/// U-034.
pub async fn u_034_a_listing_of_keys_has_rows_for_missing_ones(place: Place) {
    let db = place.db().await;
    let saved = db.put(json!({"_id": "xyz"})).await.unwrap();
    let rows = db.all_docs().keys(["blah"]).fetch().await.unwrap().rows;
    assert_eq!((rows.len(), rows[0].id.as_str(), rows[0].rev.as_ref()), (1, "blah", None));
    let rows = db.all_docs().keys(["xyz"]).fetch().await.unwrap().rows;
    assert_eq!((rows[0].id.as_str(), rows[0].rev.as_ref()), ("xyz", Some(&saved.rev)));
}

/// U-042.
pub async fn u_042_conflicts_are_overwritten_and_then_there_are_none(place: Place) {
    let db = place.db().await;
    let mut docs = ["a", "b", "c"].map(|id| doc(json!({"_id": id, "n": 1})));
    let outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!(outcome.to_string(), "<Success: 3 docs updated>");
    docs[1].rev = None;
    docs.iter_mut().for_each(|doc| doc.set("n", 2).unwrap());
    let mut outcome = db.save_all(&mut docs).await.unwrap();
    assert_eq!((outcome.pending().len(), outcome.resolved().len()), (1, 2));
    outcome.overwrite().await.unwrap();
    assert_eq!((outcome.pending().len(), outcome.resolved().len()), (0, 3));
    let mut resolved = outcome.resolved().to_vec();
    assert!(db.save_all(&mut resolved).await.unwrap().pending().is_empty());

    let mut single = [doc(json!({"_id": "a", "n": 3}))];
    let mut outcome = db.save_all(&mut single).await.unwrap();
    assert_eq!(outcome.overwrite().await.unwrap().to_string(), "<Success: 1 doc updated>");
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(3)));
}

/// U-061.
pub async fn u_061_two_attachments_and_two_missing_ones(place: Place) {
    let db = place.db().await;
    let mut doc = Document::with_id("attachment_test");
    db.put_attachment(&mut doc, "text", "Hello World!", Some("text/plain")).await.unwrap();
    db.put_attachment(&mut doc, "text2", "Hello again", Some("text/plain")).await.unwrap();
    assert_eq!(db.get("attachment_test").await.unwrap().attachments.len(), 2);
    assert_eq!(db.attachment("attachment_test", "unexisting").await.unwrap_err().status(), 404);
    assert_eq!(db.attachment("unexisting", "text").await.unwrap_err().status(), 404);
    let gone = db.delete_attachment(&mut Document::with_id("unexisting"), "text").await;
    assert!(gone.is_err());
}

/// U-063.
pub async fn u_063_a_live_feed_is_cancelled_by_dropping_it(place: Place) {
    let db = place.db().await;
    let mut feed = db.changes().live().await.unwrap();
    assert!(within(Duration::from_millis(20), feed.try_next()).await.is_none());
    drop(feed);
    db.put(json!({"_id": "a"})).await.unwrap();
    db.destroy().await.unwrap();
}

/// U-064.
pub async fn u_064_of_an_unknown_document_every_revision_is_missing(place: Place) {
    let db = place.db().await;
    let asked =
        RevsByDoc::from([("myDocId".to_owned(), super::revs(["1-b2e54331", "2-3b9e1b3e"]))]);
    let diff = db.revs_diff(&asked).await.unwrap();
    assert_eq!(diff["myDocId"].missing.len(), 2);
}

/// U-065.
pub async fn u_065_creation_and_destruction_are_told(place: Place) {
    let mut events = place.couch().events().await.unwrap();
    let (abc, test) = (place.name("abc"), place.name("test"));
    let mut next = async || loop {
        let event = soon(events.try_next()).await.unwrap().unwrap();
        if event.db_name == abc || event.db_name == test {
            break (event.db_name, event.kind);
        }
    };
    place.couch().create(&abc).await.unwrap();
    assert_eq!(next().await, (abc.clone(), DbUpdateKind::Created));
    let db = place.couch().create(&test).await.unwrap();
    assert_eq!(next().await, (test.clone(), DbUpdateKind::Created));
    db.destroy().await.unwrap();
    assert_eq!(next().await, (test.clone(), DbUpdateKind::Deleted));
}

pub async fn only_changes_that_match_a_selector_are_told(place: Place) {
    let db = place.db().await;
    for (id, kind) in [("a", "Person"), ("b", "City"), ("c", "Person")] {
        db.put_at(id, json!({"type": kind})).await.unwrap();
    }
    let people = Selector::parse(&json!({"type": "Person"})).unwrap();
    let changes = db.changes().selector(people).fetch().await.unwrap().changes;
    assert_eq!(changes.iter().map(|change| change.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}
