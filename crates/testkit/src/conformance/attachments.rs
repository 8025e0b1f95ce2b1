//! Attachments: writing and reading them whole, in pieces and in parts, and what a document says of
//! them.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, conflicts, deleted, doc, fails, graft, missing};
use bytes::Bytes;
use futures_util::stream;
use md5::{Digest as _, Md5};
use serde_json::json;
use settee::adapter::{ByteStream, Part, Parts};
use settee::options::{AttachmentHead, AttachmentOptions, ByteRange, GetOptions, WriteOptions};
use settee::prelude::*;
use settee::{Attachment, AttachmentBody, AttachmentData, Digest, Encoding};
use std::io::Read;

fn pieces(content: &[u8], size: usize) -> ByteStream {
    let pieces: Vec<_> =
        content.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn md5(bytes: &[u8]) -> Digest {
    Digest(Md5::digest(bytes).into())
}

async fn read(db: &Database, id: &str, name: &str) -> Bytes {
    db.attachment(id, name).await.unwrap().bytes().await.unwrap()
}

async fn with_attachment(place: &Place, name: &str, content: &[u8]) -> (Database, Document) {
    let db = place.db().await;
    let mut doc = doc(json!({"_id": "a", "n": 1}));
    db.save(&mut doc).await.unwrap();
    db.put_attachment(&mut doc, name, content, None).await.unwrap();
    (db, doc)
}

pub async fn an_attachment_is_read_as_it_was_written(place: Place) {
    let (db, doc) = with_attachment(&place, "a.bin", b"hello").await;
    assert_eq!(doc.rev.as_ref().unwrap().pos, 2);
    let reader = db.attachment("a", "a.bin").await.unwrap();
    assert_eq!(reader.content_type, "application/octet-stream");
    assert_eq!((reader.length, reader.digest), (5, md5(b"hello")));
    assert_eq!((reader.encoding, reader.range), (Encoding::Identity, None));
    assert_eq!(reader.bytes().await.unwrap(), "hello");
    let stored = db.get("a").await.unwrap();
    assert_eq!(stored.get("n"), Some(json!(1)));
    let [stub] = stored.attachments.as_slice() else { panic!("{stored:?}") };
    assert_eq!(
        (stub.name.as_str(), stub.content_type.as_str()),
        ("a.bin", "application/octet-stream")
    );
    assert_eq!((stub.revpos, stub.digest, stub.length), (Some(2), Some(md5(b"hello")), Some(5)));
    assert_eq!(stub.data, AttachmentData::Stub);
    assert_eq!(stub.digest.unwrap().to_string(), "md5-XUFAKrxLKna5cZ2REBfFkg==");
}

pub async fn an_attachment_creates_its_document(place: Place) {
    let db = place.db().await;
    let mut doc = Document::with_id("a");
    let saved = db.put_attachment(&mut doc, "x", "y", Some("x/y")).await.unwrap();
    assert_eq!((saved.id.as_str(), saved.rev.pos), ("a", 1));
    let stored = db.get("a").await.unwrap();
    assert!(stored.body.is_empty());
    assert_eq!(stored.attachments[0].content_type, "x/y");
    assert_eq!(stored.attachments[0].revpos, Some(1));
}

pub async fn an_attachment_written_by_itself_comes_first(place: Place) {
    let (db, mut doc) = with_attachment(&place, "a", b"1").await;
    let parent = doc.rev.clone();
    let saved = db.put_attachment(&mut doc, "b", "2", None).await.unwrap();
    let stored = db.get("a").await.unwrap();
    let names: Vec<_> = stored.attachments.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    // The order counts for the revision.
    let (one, two) = (md5(b"1"), md5(b"2"));
    let octets = "application/octet-stream";
    let attachments = [("b", octets, &two), ("a", octets, &one)].into_iter();
    let hash = stored.revision_hash(false, parent.as_ref(), attachments).unwrap();
    assert_eq!(saved.rev, settee::Rev::new(3, hash));
}

pub async fn an_attachment_must_go_to_the_current_revision(place: Place) {
    let (db, mut stale) = with_attachment(&place, "a", b"1").await;
    let mut current = stale.clone();
    db.put_attachment(&mut current, "newer", "2", None).await.unwrap();
    conflicts(db.put_attachment(&mut stale.clone(), "b", "2", None).await);
    conflicts(db.delete_attachment(&mut stale, "a").await);
    conflicts(db.put_attachment(&mut Document::with_id("a"), "b", "2", None).await);
    let mut never = doc(json!({"_id": "never", "_rev": "1-x"}));
    assert!(db.put_attachment(&mut never, "b", "2", None).await.is_err());
    assert_eq!(db.get("a").await.unwrap().rev, current.rev);
}

pub async fn what_is_missing_is_told_apart(place: Place) {
    let (db, doc) = with_attachment(&place, "a", b"1").await;
    missing(db.attachment("never", "a").await);
    let reason = fails(db.attachment("a", "never").await, 404, "not_found");
    assert_eq!(reason, "Document is missing attachment");
    assert!(db.attachment_opt("a", "never").await.unwrap().is_none());
    assert!(db.attachment_opt("never", "a").await.unwrap().is_none());
    db.delete(&doc).await.unwrap();
    deleted(db.attachment("a", "a").await);
}

pub async fn replacing_and_removing_make_new_revisions(place: Place) {
    let (db, mut doc) = with_attachment(&place, "a", b"first").await;
    let first = doc.rev.clone();
    db.put_attachment(&mut doc, "a", "second", None).await.unwrap();
    assert_eq!(read(&db, "a", "a").await, "second");
    assert_eq!(db.get("a").await.unwrap().attachments[0].revpos, Some(3));
    let options = AttachmentOptions { rev: first, ..Default::default() };
    let old = db.attachment_with("a", "a", &options).await.unwrap();
    assert_eq!(old.bytes().await.unwrap(), "first");
    db.delete_attachment(&mut doc, "a").await.unwrap();
    assert_eq!((doc.rev.as_ref().unwrap().pos, doc.attachments.len()), (4, 0));
    assert!(db.get("a").await.unwrap().attachments.is_empty());
    assert!(db.attachment("a", "a").await.unwrap_err().is_not_found());
}

pub async fn removing_what_is_not_there_makes_a_new_revision_all_the_same(place: Place) {
    let (db, mut doc) = with_attachment(&place, "a", b"1").await;
    let saved = db.delete_attachment(&mut doc, "never").await.unwrap();
    assert_eq!((saved.rev.pos, read(&db, "a", "a").await), (3, "1".into()));
}

pub async fn a_document_keeps_its_attachments_by_their_stubs(place: Place) {
    let (db, _) = with_attachment(&place, "a", b"1").await;
    let mut stored = db.get("a").await.unwrap();
    stored.set("n", 2).unwrap();
    db.save(&mut stored).await.unwrap();
    assert_eq!(read(&db, "a", "a").await, "1");
    assert_eq!(db.get("a").await.unwrap().attachments[0].revpos, Some(2));
    // What is not listed is gone.
    stored.attachments.clear();
    db.save(&mut stored).await.unwrap();
    assert!(db.attachment("a", "a").await.is_err());
}

pub async fn a_stub_without_attachment_is_refused(place: Place) {
    let (db, current) = with_attachment(&place, "a", b"1").await;
    let stub = json!({"b.txt": {"stub": true, "content_type": "text/plain"}});
    let wrong = json!({"_id": "a", "_rev": current.rev, "_attachments": stub});
    let reason = fails(db.put(wrong).await, 412, "missing_stub");
    assert!(reason.contains('a') && reason.contains("b.txt"), "{reason}");
    fails(db.put(json!({"_id": "new", "_attachments": stub})).await, 412, "missing_stub");
    missing(db.get("new").await);
    assert_eq!(db.get("a").await.unwrap().rev, current.rev);
}

pub async fn inline_attachments_are_stored_with_the_document(place: Place) {
    let db = place.db().await;
    let inline = json!({
        "_id": "a",
        "_attachments": {
            "foo.txt": {"content_type": "text/plain", "data": "VGhpcyBpcyBhIGJhc2U2NCBlbmNvZGVkIHRleHQ="},
            "none": {"data": ""},
        },
    });
    db.put(inline).await.unwrap();
    assert_eq!(read(&db, "a", "foo.txt").await, "This is a base64 encoded text");
    let none = db.attachment("a", "none").await.unwrap();
    assert_eq!((none.content_type.as_str(), none.length), ("application/octet-stream", 0));
    assert_eq!(none.bytes().await.unwrap(), "");
    let mut names: Vec<_> =
        db.get("a").await.unwrap().attachments.into_iter().map(|a| a.name).collect();
    names.sort();
    assert_eq!(names, ["foo.txt", "none"]);
}

pub async fn contents_are_read_with_the_document_if_asked_for(place: Place) {
    let (db, mut doc) = with_attachment(&place, "a.txt", b"some text").await;
    let first = doc.rev.clone().unwrap();
    db.put_attachment(&mut doc, "b.bin", &[1, 2], None).await.unwrap();
    let options = GetOptions { attachments: true, ..Default::default() };
    let contents = |doc: Document| {
        let mut contents: Vec<_> = doc.attachments.into_iter().map(|a| (a.name, a.data)).collect();
        contents.sort_by(|a, b| a.0.cmp(&b.0));
        contents
    };
    let (text, bytes) = (Bytes::from_static(b"some text"), Bytes::from_static(&[1, 2]));
    let inline =
        |name: &str, bytes: &Bytes| (name.to_owned(), AttachmentData::Inline(bytes.clone()));
    let all = contents(db.get_with("a", &options).await.unwrap());
    assert_eq!(all, [inline("a.txt", &text), inline("b.bin", &bytes)]);
    let options = GetOptions { attachments: true, atts_since: vec![first], ..Default::default() };
    let new = contents(db.get_with("a", &options).await.unwrap());
    assert_eq!(new, [("a.txt".to_owned(), AttachmentData::Stub), inline("b.bin", &bytes)]);
}

pub async fn texts_are_stored_compressed(place: Place) {
    let text = "many words, many words, ".repeat(500);
    let (db, doc) = with_attachment(&place, "a.txt", text.as_bytes()).await;
    let options = GetOptions { att_encoding_info: true, ..Default::default() };
    let stored = db.get_with("a", &options).await.unwrap();
    let [stub] = stored.attachments.as_slice() else { panic!("{stored:?}") };
    assert_eq!((stub.encoding, stub.length), (Encoding::Gzip, Some(text.len() as u64)));
    assert!(stub.encoded_length.unwrap() < 1000);

    let options = AttachmentOptions { accept_gzip: true, ..Default::default() };
    let reader = db.attachment_with("a", "a.txt", &options).await.unwrap();
    assert_eq!((reader.encoding, reader.digest), (Encoding::Gzip, stub.digest.unwrap()));
    let gzipped = reader.bytes().await.unwrap();
    assert_eq!(
        (gzipped.len() as u64, md5(&gzipped)),
        (stub.encoded_length.unwrap(), stub.digest.unwrap())
    );
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&*gzipped).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, text);
    assert_eq!(read(&db, "a", "a.txt").await, text);
    assert_eq!(doc.rev, db.get("a").await.unwrap().rev);
}

pub async fn what_comes_compressed_is_stored_as_it_comes(place: Place) {
    let db = place.db().await;
    let text = "compressed elsewhere ".repeat(100);
    let mut gzip = flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::best());
    let mut gzipped = Vec::new();
    gzip.read_to_end(&mut gzipped).unwrap();
    let head = AttachmentHead {
        content_type: Some("application/x-thing".into()),
        encoding: Encoding::Gzip,
        length: Some(gzipped.len() as u64),
        ..Default::default()
    };
    db.adapter().put_attachment("a", "x", None, head, pieces(&gzipped, 7)).await.unwrap();
    let reader = db.attachment("a", "x").await.unwrap();
    // CouchDB does not know how long it is when it is decoded.
    let length = if place.is_cluster() { gzipped.len() } else { text.len() };
    assert_eq!((reader.length, reader.digest), (length as u64, md5(&gzipped)));
    assert_eq!(reader.bytes().await.unwrap(), text);
    let options = AttachmentOptions { accept_gzip: true, ..Default::default() };
    let reader = db.attachment_with("a", "x", &options).await.unwrap();
    assert_eq!(reader.bytes().await.unwrap(), gzipped);
}

pub async fn a_wrong_digest_is_refused(place: Place) {
    let db = place.db().await;
    let head = |md5| AttachmentHead { md5: Some(md5), length: Some(5), ..Default::default() };
    let wrong =
        db.adapter().put_attachment("a", "x", None, head(md5(b"other")), pieces(b"hello", 2));
    if place.is_cluster() {
        // CouchDB does not look at it.
        wrong.await.unwrap();
        db.delete_current("a").await.unwrap();
    } else {
        assert_eq!(wrong.await.unwrap_err().status(), 400);
        missing(db.get("a").await);
    }
    let right =
        db.adapter().put_attachment("a", "x", None, head(md5(b"hello")), pieces(b"hello", 2));
    right.await.unwrap();
    assert_eq!(read(&db, "a", "x").await, "hello");
}

pub async fn large_attachments_are_streamed_both_ways(place: Place) {
    let db = place.db().await;
    let content = noise(5_000_000);
    let mut doc = Document::with_id("a");
    // As it comes from a socket: of a length that is not known before.
    let body = AttachmentBody::from(pieces(&content, 60_001));
    db.put_attachment(&mut doc, "large.bin", body, None).await.unwrap();
    let mut reader = db.attachment("a", "large.bin").await.unwrap();
    assert_eq!((reader.length, reader.digest), (content.len() as u64, md5(&content)));
    let (mut at, mut count) = (0, 0);
    while let Some(piece) = reader.body.try_next().await.unwrap() {
        assert!(content[at..].starts_with(&piece));
        (at, count) = (at + piece.len(), count + 1);
    }
    assert_eq!(at, content.len());
    assert!(count > 1, "it came in one piece");
}

pub async fn a_body_that_fails_leaves_nothing(place: Place) {
    let (db, mut doc) = with_attachment(&place, "a", b"1").await;
    let before = doc.rev.clone();
    let broken = stream::iter([
        Ok(Bytes::from(noise(300_000))),
        Err(std::io::Error::other("the caller went away")),
    ]);
    assert!(
        db.put_attachment(&mut doc, "b", AttachmentBody::from_stream(broken), None).await.is_err()
    );
    let stored = db.get("a").await.unwrap();
    assert_eq!((&stored.rev, stored.attachments.len()), (&before, 1));
    assert_eq!(doc.rev, before);
}

pub async fn parts_are_read_of_an_attachment(place: Place) {
    let content = noise(200_000);
    let (db, _) = with_attachment(&place, "a.bin", &content).await;
    let part = async |range| {
        let options = AttachmentOptions { range: Some(range), ..Default::default() };
        let reader = db.attachment_with("a", "a.bin", &options).await?;
        assert_eq!(reader.length, 200_000);
        let range = reader.range;
        Ok::<_, Error>((range, reader.bytes().await?))
    };
    let parts = [
        (ByteRange::Within(0, 0), 0, 0),
        (ByteRange::Within(10, 19), 10, 19),
        (ByteRange::Within(65_000, 140_000), 65_000, 140_000),
        (ByteRange::Within(199_990, 999_999), 199_990, 199_999),
        (ByteRange::From(0), 0, 199_999),
        (ByteRange::From(199_999), 199_999, 199_999),
        (ByteRange::Last(1), 199_999, 199_999),
        (ByteRange::Last(70_000), 130_000, 199_999),
    ];
    for (range, first, last) in parts {
        let (told, bytes) = part(range).await.unwrap();
        // What is all of it needs no range.
        let whole = told.is_none() && (first, last) == (0, 199_999);
        assert!(told == Some((first, last)) || whole, "{range:?}: {told:?}");
        assert!(bytes == content[first as usize..=last as usize], "{range:?}");
    }
    for range in [ByteRange::From(200_000), ByteRange::Within(200_000, 200_001)] {
        fails(part(range).await, 416, "requested_range_not_satisfiable");
    }
}

fn follows(name: &str, length: usize) -> Attachment {
    Attachment {
        length: Some(length as u64),
        data: AttachmentData::Follows,
        ..Attachment::inline(name, "application/octet-stream", Bytes::new())
    }
}

fn part(name: Option<&str>, content: &[u8]) -> Result<Part> {
    Ok(Part { name: name.map(str::to_owned), body: pieces(content, 1000) })
}

pub async fn contents_may_follow_the_document(place: Place) {
    let db = place.db().await;
    let contents = [noise(5000), noise(0), noise(70_000)];
    let mut doc = doc(json!({"_id": "a", "n": 1}));
    for (name, content) in ["one", "two", "three"].iter().zip(&contents) {
        doc.attachments.push(follows(name, content.len()));
    }
    // Without names, they come in the document's order.
    let parts: Parts = stream::iter(contents.each_ref().map(|content| part(None, content))).boxed();
    let saved = db.adapter().put(doc, Some(parts), &WriteOptions::default()).await.unwrap();
    assert_eq!(saved.rev.pos, 1);
    for (name, content) in ["one", "two", "three"].iter().zip(&contents) {
        assert_eq!(read(&db, "a", name).await, content);
    }
    assert_eq!(db.get("a").await.unwrap().get("n"), Some(json!(1)));
}

pub async fn contents_that_follow_may_name_themselves(place: Place) {
    let (db, current) = with_attachment(&place, "kept", b"kept").await;
    let mut doc = db.get("a").await.unwrap();
    doc.attachments.push(follows("x", 1));
    doc.attachments.push(follows("y", 2));
    let parts = [part(Some("y"), b"yy"), part(Some("x"), b"x")];
    let parts: Parts = stream::iter(parts).boxed();
    let saved = db.adapter().put(doc, Some(parts), &WriteOptions::default()).await.unwrap();
    assert_eq!(saved.rev.pos, current.rev.unwrap().pos + 1);
    assert_eq!(read(&db, "a", "kept").await, "kept");
    assert_eq!((read(&db, "a", "x").await, read(&db, "a", "y").await), ("x".into(), "yy".into()));
}

pub async fn contents_that_do_not_follow_are_an_error(place: Place) {
    let db = place.db().await;
    let mut doc = doc(json!({"_id": "a"}));
    doc.attachments.push(follows("x", 1));
    let parts: Parts = stream::iter([]).boxed();
    let failed = db.adapter().put(doc, Some(parts), &WriteOptions::default()).await.unwrap_err();
    assert!((400..500).contains(&failed.status()), "{failed:?}");
    missing(db.get("a").await);
}

pub async fn any_text_is_a_name(place: Place) {
    let db = place.db().await;
    let names =
        ["a b", "a/b.txt", "é", "東京.txt", "😀", "%2F", "+", "?", "#", "..", ".", "\"", "a&b=c"];
    let mut doc = doc(json!({"_id": "odd/id ?"}));
    for name in names {
        db.put_attachment(&mut doc, name, name, None)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in names {
        assert_eq!(read(&db, "odd/id ?", name).await, name);
    }
    let stored: std::collections::BTreeSet<_> =
        db.get("odd/id ?").await.unwrap().attachments.into_iter().map(|a| a.name).collect();
    assert_eq!(stored, names.into_iter().map(str::to_owned).collect());
    let underscore = db.put_attachment(&mut doc, "_a", "x", None).await;
    let reason = fails(underscore, 400, "bad_request");
    assert_eq!(reason, "Attachment name '_a' starts with prohibited character '_'");
    let nameless = db.put_attachment(&mut doc, "", "x", None).await;
    assert!((400..500).contains(&nameless.unwrap_err().status()));
}

pub async fn a_part_that_is_not_what_its_digest_says_is_refused(place: Place) {
    let db = place.db().await;
    let put = async |digest| {
        let mut doc = Document::with_id("a");
        doc.attachments = vec![Attachment { digest: Some(digest), ..follows("x.bin", 5) }];
        let parts = stream::iter([part(None, b"hello")]).boxed();
        db.adapter().put(doc, Some(parts), &WriteOptions::default()).await
    };
    assert!(put(md5(b"other")).await.is_err());
    missing(db.get("a").await);
    put(md5(b"hello")).await.unwrap();
    assert_eq!(read(&db, "a", "x.bin").await, "hello");
}

pub async fn local_documents_have_no_attachments(place: Place) {
    let db = place.db().await;
    let inline = json!({"_id": "_local/a", "_attachments": {"x": {"data": "eA=="}}});
    // CouchDB drops them without a word.
    if place.is_cluster() {
        db.put(inline).await.unwrap();
        assert!(db.get("_local/a").await.unwrap().attachments.is_empty());
    } else {
        let reason = fails(db.put(inline).await, 400, "bad_request");
        assert_eq!(reason, "_local documents can not have attachments.");
    }
}

pub async fn leaves_have_their_own_attachments(place: Place) {
    let db = place.db().await;
    let attached = |content: &str| json!({"_attachments": {"x": {"data": content}}});
    graft(&db, "a", &["2-b", "1-a"], false, attached("Yg==")).await;
    graft(&db, "a", &["2-c", "1-a"], false, attached("Yw==")).await;
    assert_eq!(read(&db, "a", "x").await, "c");
    let loser = super::rev("2-b");
    let reader = db.attachment(("a", &loser), "x").await.unwrap();
    assert_eq!(reader.bytes().await.unwrap(), "b");
    db.delete(("a", &super::rev("2-c"))).await.unwrap();
    assert_eq!(read(&db, "a", "x").await, "b");
}

pub async fn equal_contents_go_one_by_one(place: Place) {
    let db = place.db().await;
    let content = noise(100_000);
    let (mut a, mut b) = (Document::with_id("a"), Document::with_id("b"));
    db.put_attachment(&mut a, "x", content.as_slice(), None).await.unwrap();
    db.put_attachment(&mut a, "y", content.as_slice(), None).await.unwrap();
    db.put_attachment(&mut b, "x", content.as_slice(), None).await.unwrap();
    db.purge([&a]).await.unwrap();
    place.compact(&db).await;
    assert_eq!(read(&db, "b", "x").await, content);
}

pub async fn attachments_from_elsewhere_keep_their_generation(place: Place) {
    let db = place.db().await;
    let attachments = json!({"x": {"data": "eA==", "revpos": 1}});
    graft(&db, "a", &["3-c", "2-b", "1-a"], false, json!({"_attachments": attachments})).await;
    assert_eq!(db.get("a").await.unwrap().attachments[0].revpos, Some(1));
    // The next revision comes with a stub for what is here.
    let stub = json!({"x": {"stub": true, "revpos": 1}});
    graft(&db, "a", &["4-d", "3-c", "2-b", "1-a"], false, json!({"_attachments": stub})).await;
    assert_eq!(read(&db, "a", "x").await, "x");
}

pub async fn a_document_goes_elsewhere_as_it_is_stored(place: Place) {
    // What a replication does: read the leaves as they are stored, write them as they are.
    let (from, to) = (place.db().await, place.db().await);
    let mut doc = doc(json!({"_id": "a", "n": 1}));
    from.save(&mut doc).await.unwrap();
    from.put_attachment(&mut doc, "t.txt", "text ".repeat(1000), None).await.unwrap();
    from.put_attachment(&mut doc, "b.bin", noise(100_000), None).await.unwrap();
    graft(&from, "a", &["2-x"], false, json!({"_attachments": {"x": {"data": "eA=="}}})).await;
    let options =
        GetOptions { revs: true, attachments: true, att_encoding_info: true, ..Default::default() };
    let items =
        vec![settee::options::BulkGetItem { id: "a".into(), rev: None, atts_since: vec![] }];
    let results = from.bulk_get(items, &options).await.unwrap();
    let results: Vec<_> = results.try_collect().await.unwrap();
    let leaves = results.into_iter().flat_map(|(_, leaves)| leaves).map(|leaf| match leaf {
        settee::wire::RevResult::Found(doc) => *doc,
        settee::wire::RevResult::Missing(error) => panic!("{error:?}"),
    });
    let leaves: Vec<_> = leaves.collect();
    assert_eq!(leaves.len(), 2);
    let results = to.bulk_docs(leaves, false).await.unwrap();
    assert!(results.iter().all(Result::is_ok));

    let options = GetOptions { conflicts: true, att_encoding_info: true, ..Default::default() };
    let (sent, came) =
        (from.get_with("a", &options).await.unwrap(), to.get_with("a", &options).await.unwrap());
    assert_eq!(came, sent);
    for name in ["t.txt", "b.bin"] {
        assert_eq!(read(&to, "a", name).await, read(&from, "a", name).await);
    }
    assert_eq!(to.revision_ids("a").await.unwrap(), from.revision_ids("a").await.unwrap());
    // The same edit on both sides is the same revision.
    for db in [&from, &to] {
        let mut stored = db.get("a").await.unwrap();
        stored.set("n", 2).unwrap();
        db.save(&mut stored).await.unwrap();
    }
    assert_eq!(to.get("a").await.unwrap().rev, from.get("a").await.unwrap().rev);
}
