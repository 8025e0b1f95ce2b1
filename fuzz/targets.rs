//! What is read from outside, as functions of bytes: the fuzzer calls them, and `cargo test` calls
//! them with every input that was once found to be handled wrongly (`fuzz/findings`) and with those
//! that the fuzzer begins with (`fuzz/seeds`).
//!
//! A function returns, whatever the bytes are, or panics if something is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is what tells")]

use serde_json::Value;
use settee_core::collate::{self, Collation};
use settee_core::json::{self, BulkDocs, Limits};
use settee_core::rev_tree::{Leaf, Stored};
use settee_core::selector::Selector;
use settee_core::{Document, Rev, RevId, RevTree, Revisions, wire};
use std::collections::HashSet;

/// A function of bytes.
pub type Target = fn(&[u8]);

/// All of them, by the name of their directory.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("rev", rev),
    ("selector", selector),
    ("tree", tree),
    ("rows", rows),
    ("keys", keys),
];

/// JSON has one reading, which agrees with serde_json's; documents read back as they were written.
pub fn json(bytes: &[u8]) {
    let limits = Limits::default();
    let by_serde = serde_json::from_slice::<Value>(bytes);
    match (json::normalize(bytes, &limits), &by_serde) {
        (Ok(text), by_serde) => {
            assert_eq!(json::normalize(&text, &limits).unwrap(), text, "not idempotent");
            let text = std::str::from_utf8(&text).unwrap();
            if let Ok(by_serde) = by_serde {
                assert!(alike(&json::to_value(text), by_serde), "{text} is not {by_serde}");
            }
        }
        (Err(error), Ok(by_serde)) => panic!("{by_serde} is refused: {error}"),
        (Err(_), Err(_)) => {}
    }
    if let Ok(doc) = Document::parse(bytes, &limits) {
        let text = doc.to_json();
        let again = Document::parse(text.as_bytes(), &limits);
        let again = again.unwrap_or_else(|error| panic!("{text} is refused: {error}"));
        assert_eq!(again.to_json(), text);
        let attachments = || {
            doc.attachments.iter().filter_map(|att| {
                Some((att.name.as_str(), att.content_type.as_str(), att.digest.as_ref()?))
            })
        };
        let hash = doc.revision_hash(doc.deleted, doc.rev.as_ref(), attachments()).unwrap();
        assert_eq!(
            hash,
            again.revision_hash(doc.deleted, doc.rev.as_ref(), attachments()).unwrap()
        );
    }
    let small = Limits { depth: 3, document: 50, attachment: 10 };
    let _ = Document::parse(bytes, &small);
    let _ = BulkDocs::parse(bytes, &limits);
    let _ = wire::parse_revs_by_doc(bytes, &limits);
    let _ = wire::parse_bulk_get(bytes, &limits);
}

/// Whether two values are the same, but for `-0`: an integer as in CouchDB, a float to serde_json.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.as_f64() == Some(0.0) && b.as_f64() == Some(0.0))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a)| b.get(name).is_some_and(|b| alike(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        (a, b) => a == b,
    }
}

/// What is taken for a revision is printed so that it is read as the same one.
pub fn rev(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(rev) = text.parse::<Rev>() {
        let printed = rev.to_string();
        assert_eq!(printed.parse::<Rev>().unwrap(), rev);
    }
    if let Ok(id) = text.parse::<RevId>() {
        assert_eq!(id.to_string().parse::<RevId>().unwrap(), id);
    }
}

/// A selector and a document, a line each. What a selector is normalised to means the same.
pub fn selector(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut value = || serde_json::from_slice::<Value>(lines.next()?).ok();
    let (Some(selector), doc) = (value(), value().unwrap_or_default()) else { return };
    let Ok(parsed) = Selector::parse(&selector) else { return };
    let normal = parsed.to_value();
    let again = Selector::parse(&normal)
        .unwrap_or_else(|error| panic!("{selector} became {normal}, which is refused: {error}"));
    assert_eq!(again.to_value(), normal, "{selector} is not normalised");
    assert_eq!(parsed.matches(&doc), again.matches(&doc), "{selector} against {doc}");
    for field in parsed.fields() {
        // Whatever matches has the fields that are required.
        if parsed.requires(field) && parsed.matches(&doc) {
            assert!(field.get(&doc).is_some(), "{selector} requires {field:?}, {doc} matches");
        }
        let _ = parsed.conditions(field);
    }
}

/// Bytes that are taken for a revision tree are a sound one, whatever is done to it.
pub fn tree(bytes: &[u8]) {
    let Ok(tree) = RevTree::decode(bytes) else { return };
    let mut encoded = Vec::new();
    tree.encode(&mut encoded);
    assert_eq!(RevTree::decode(&encoded).unwrap(), tree);
    let leaves = tree.leaves();
    assert_eq!(tree.winner(), leaves.first().cloned());
    assert_eq!(tree.is_empty(), leaves.is_empty());
    assert!(tree.stored().count() <= tree.len());
    // That no revision is there twice is not looked for when a tree is read.
    let known = |leaf: &Leaf| {
        let path = tree.ancestry(&leaf.rev).into_iter();
        path.flat_map(|path| {
            (0..=path.start)
                .rev()
                .zip(path.ids)
                .map(|(pos, id)| Rev { pos, id })
                .collect::<Vec<_>>()
        })
    };
    if leaves.iter().flat_map(known).collect::<HashSet<_>>().len() != tree.len() {
        return;
    }
    for leaf in &leaves {
        let path = tree.ancestry(&leaf.rev).expect("a leaf has ancestors");
        assert_eq!(path.rev().as_ref(), Some(&leaf.rev));
        assert!(tree.get(&leaf.rev).is_some_and(|node| node.leaf));
        assert!(tree.latest(&leaf.rev).contains(leaf));
        // What is known changes nothing.
        let mut same = tree.clone();
        if RevTree::check(&path).is_ok() {
            assert!(!same.merge(&path, leaf.stored).changed(), "{leaf:?} is not known");
            assert_eq!(same, tree);
            // An edit is a new leaf.
            let mut edited = tree.clone();
            let mut ids = path.ids.clone();
            ids.insert(0, RevId::Hash([7; 16]));
            let edit = Revisions { start: path.start + 1, ids };
            if edited.merge(&edit, Stored { deleted: false, seq: 1 << 20 }).changed() {
                assert!(edited.get(&edit.rev().unwrap()).is_some());
                sound(&edited);
            }
        }
    }
    for limit in [1, 2, 5] {
        let mut stemmed = tree.clone();
        stemmed.stem(limit);
        sound(&stemmed);
        assert_eq!(stemmed.leaves().len(), leaves.len());
    }
    let mut forgotten = tree.clone();
    forgotten.forget_bodies();
    sound(&forgotten);
    assert_eq!(forgotten.leaves(), leaves);
    let mut purged = tree.clone();
    let revs: Vec<_> = leaves.iter().map(|leaf| leaf.rev.clone()).collect();
    if let Some(first) = revs.first() {
        purged.purge(std::slice::from_ref(first));
        sound(&purged);
    }
    purged.purge(&revs);
    sound(&purged);
}

fn sound(tree: &RevTree) {
    let mut encoded = Vec::new();
    tree.encode(&mut encoded);
    assert_eq!(&RevTree::decode(&encoded).unwrap(), tree);
}

/// Stored rows: a byte that says which kind, and the row.
pub fn rows(bytes: &[u8]) {
    if let Some((&kind, row)) = bytes.split_first() {
        settee::local::decode_row(kind, row);
    }
}

/// Two keys, a line each: their bytes have the order that they have.
pub fn keys(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut value = || serde_json::from_slice::<Value>(lines.next()?).ok();
    let (Some(a), b) = (value(), value().unwrap_or_default()) else { return };
    for collation in [Collation::Unicode, Collation::Raw] {
        let encode = |key: &Value| {
            let mut bytes = Vec::new();
            collation.encode_key(key, &mut bytes);
            let mut from_text = Vec::new();
            collation.encode_key_text(key.to_string().as_bytes(), &mut from_text).unwrap();
            assert_eq!(bytes, from_text, "{key} as text");
            assert!(bytes.as_slice() > collate::LOWEST && bytes.as_slice() < collate::HIGHEST);
            let row = [&bytes, &b"id"[..]].concat();
            assert_eq!(collate::split_key(&row), Some((bytes.as_slice(), &b"id"[..])), "{key}");
            for level in 0..3 {
                assert!(bytes.starts_with(collate::group(&bytes, level)));
            }
            bytes
        };
        let (left, right) = (encode(&a), encode(&b));
        assert_eq!(left.cmp(&right), collation.compare(&a, &b), "{a} and {b}, {collation:?}");
    }
    // Any bytes may be asked for their first key.
    if let Some((key, rest)) = collate::split_key(bytes) {
        assert_eq!(key.len() + rest.len(), bytes.len());
    }
    let _ = collate::group(bytes, 2);
}
