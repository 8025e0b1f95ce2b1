//! Revision hashes as Erlang computes them: `md5(term_to_binary([Deleted, Start, Rev, Body, Atts],
//! [{minor_version, 1}]))`, printed by a real Erlang.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use settee_core::document::Body;
use settee_core::json::Limits;
use settee_core::{Digest, Document, Rev};

const EMPTY: &str = "1-967a00dff5e02add41819138abb3284d";

fn hash(
    doc: &Document,
    deleted: bool,
    parent: Option<&str>,
    atts: &[(&str, &str, &str)],
) -> String {
    let parent: Option<Rev> = parent.map(|parent| parent.parse().unwrap());
    let digests: Vec<Digest> = atts.iter().map(|att| att.2.parse().unwrap()).collect();
    let atts = atts.iter().zip(&digests).map(|(att, digest)| (att.0, att.1, digest));
    let hash = doc.revision_hash(deleted, parent.as_ref(), atts).unwrap();
    Rev::new(1, hash).to_string()[2..].to_owned()
}

fn parse(text: &str) -> Document {
    Document::parse(text.as_bytes(), &Limits::default()).unwrap()
}

/// The hash of a first revision: as parsed, and again from the stored text.
fn first(text: &str) -> String {
    let mut doc = parse(text);
    let parsed = hash(&doc, false, None, &[]);
    doc.body = Body::from_stored(Bytes::copy_from_slice(doc.body.text()));
    assert!(doc.body.term().is_none());
    assert_eq!(hash(&doc, false, None, &[]), parsed);
    parsed
}

#[test]
fn bodies() {
    let big = "1234567890123456789012345678901234567890";
    let cases = [
        ("{}", "967a00dff5e02add41819138abb3284d"),
        (r#"{"foo":"bar"}"#, "4c6114c65e295552ab1019e2b046b10e"),
        (r#"{"a":null,"b":true,"c":false}"#, "9ee24fc5101a7ad908e495035b5c47dc"),
        (
            r#"{"a":1.0,"b":-0.5,"c":1e300,"d":5e-324,"e":0.1,"f":-0.0}"#,
            "cbb3dfffa3f14315f6b8f16149857227",
        ),
        (
            r#"{"a":[0,255,256,-1,2147483647,2147483648,-2147483648,-2147483649,4294967296]}"#,
            "c35984357f2343bc37e2b3f763aca987",
        ),
        (
            r#"{"a":999999999999999999,"b":-999999999999999999,"c":9223372036854775807,
                "d":-9223372036854775808,"e":9223372036854775808,"f":-9223372036854775809,
                "g":18446744073709551615,"h":18446744073709551616}"#,
            "974776742159dddfe745e23fed1812ca",
        ),
        (&format!(r#"{{"a":{big},"b":-{big}}}"#), "3d43d2f8715bfce57363ce4533c0d73f"),
        (
            &format!(r#"{{"a":1{},"b":-{}}}"#, "0".repeat(700), "9".repeat(700)),
            "6c63a3d1ce4af4f1547c554f27d9b4be",
        ),
        (
            r#"{"a":[1,2,3],"b":[1,300],"c":[255],"d":[1,-1],"e":[1,1.0],"f":[1,"a"]}"#,
            "262ac8935b6c3e3a79bca2d61f099cc1",
        ),
        (
            r#"{"a":[],"b":[[]],"c":[[1,2],[3]],"d":[{},[[[]]]]}"#,
            "3f24bfc4af9d1e6a1a23600bcdfc89ed",
        ),
        (&format!(r#"{{"a":[{}7]}}"#, "7,".repeat(65534)), "bf98225f9f08c00f81b52454ba4be93b"),
        (&format!(r#"{{"a":[{}7]}}"#, "7,".repeat(65535)), "e7d96525b57d2ca82cd923d4c969897f"),
        ("{\"h\u{c3}\u{a9}\":\"x\"}", "3ece058fa48e9d0ed10fc873742c691a"),
        (r#"{"\u00e9":"\ud83e\uDD80a\u20ac\u0000\n\"\\"}"#, "55069f94a0d69ca099fe33483c3982af"),
        (
            &format!(r#"{{"{}":"{}"}}"#, "k".repeat(300), "v".repeat(70000)),
            "34bf267e17db1f8f7b1bde441af37a6b",
        ),
        (r#"{"a":{"b":{"c":[{"d":1},null]}},"":""}"#, "d55b811f40495f6f7025481a358e92ee"),
    ];
    for (text, expected) in cases {
        assert_eq!(first(text), expected, "{text:.60}");
    }
}

#[test]
fn what_does_not_belong_to_the_body_does_not_count() {
    let text = r#"{"_id":"x","foo":1,"_rev":"1-a","foo":"bar","_attachments":{},"_conflicts":[]}"#;
    assert_eq!(first(text), "4c6114c65e295552ab1019e2b046b10e");
}

#[test]
fn parents_and_deletions() {
    let empty = Document::new();
    let doc = parse(r#"{"name":"x"}"#);
    assert_eq!(hash(&empty, true, None, &[]), "de715bf126efc93d225d9e3f8e8eb81a");
    assert_eq!(hash(&doc, false, Some(EMPTY), &[]), "c3f51a46f41ca04d2f8097f1793064f2");
    let parent = EMPTY.replace("1-", "300-");
    assert_eq!(hash(&empty, true, Some(&parent), &[]), "37f8b99ec5bbba2417ef48599b76cc66");
    assert_eq!(hash(&doc, false, Some("7-abc"), &[]), "17ed9f6f564b9f9477ac7af8b512b120");
}

#[test]
fn attachments() {
    let doc = parse(r#"{"name":"x"}"#);
    let hello = ("a.txt", "text/plain", "md5-XUFAKrxLKna5cZ2REBfFkg==");
    let empty = ("b", "application/octet-stream", "md5-1B2M2Y8AsgTpgAmY7PhCfg==");
    assert_eq!(hash(&doc, false, None, &[hello]), "20aa4393270ed94683e9dc284dfe8a8d");
    let parent = EMPTY.replace("1-", "2-");
    let both = hash(&doc, false, Some(&parent), &[hello, empty]);
    assert_eq!(both, "ebebd8b0c2f8dbc5597eaffc293f27ff");
}
