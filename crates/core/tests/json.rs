//! Reading and writing JSON: against serde_json, against itself, and against hostile input.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use settee_core::document::{Meta, RevStatus, WriteJson};
use settee_core::json::{BulkDocs, Limits, elements, members, normalize, to_value};
use settee_core::wire::{Change, DocError, DocRow, Saved, Seq, parse_bulk_get, parse_revs_by_doc};
use settee_core::{
    Attachment, AttachmentData, Body, Digest, Document, Encoding, Error, Rev, RevId, Revisions,
};

fn norm(text: &str) -> Result<String, Error> {
    let text = normalize(text.as_bytes(), &Limits::default())?;
    Ok(String::from_utf8(text.to_vec()).unwrap())
}

fn parse(text: &str) -> Result<Document, Error> {
    text.parse()
}

fn refused(text: &str) -> (String, String) {
    let error = parse(text).expect_err(text);
    (error.name().to_owned(), error.reason().to_owned())
}

#[test]
fn text_is_normalised() {
    for (text, expected) in [
        (" [ 1 , 2 ] ", "[1,2]"),
        ("\t{\r\n\"a\" :\n{ } }", r#"{"a":{}}"#),
        (r#""\u0041\/\u00e9\ud83e\udd80""#, "\"A/\u{e9}\u{1f980}\""),
        (
            r#""\b\f\n\r\t\u0000\u001f\u007f\"\\""#,
            "\"\\b\\f\\n\\r\\t\\u0000\\u001F\u{7f}\\\"\\\\\"",
        ),
        ("-0", "0"),
        ("-0.0", "-0.0"),
        ("0", "0"),
        ("-12", "-12"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1.50", "1.5"),
        ("1.0", "1.0"),
        ("1.00", "1.0"),
        ("1e0", "1.0"),
        ("1E4", "10000.0"),
        ("-0.325E+2", "-32.5"),
        ("2.5E-1", "0.25"),
        ("0.0000010", "0.000001"),
        ("0.0000001", "1e-7"),
        ("1e20", "100000000000000000000.0"),
        ("1e21", "1e+21"),
        ("1234567890123456789012345.0", "1.2345678901234568e+24"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("1e-400", "0.0"),
        ("0.1000000000000000055", "0.1"),
        ("true", "true"),
        ("null", "null"),
    ] {
        assert_eq!(norm(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn of_equal_members_the_last_counts_in_its_place() {
    for (text, expected) in [
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"bar":1,"foo":2,"baz":3,"foo":4}"#, r#"{"bar":1,"baz":3,"foo":4}"#),
        (r#"{"a":1,"b":2,"a":3,"b":4,"a":5}"#, r#"{"b":4,"a":5}"#),
        (r#"[{"a":{"b":1,"\u0062":[2]}},{"a":1,"a":{}}]"#, r#"[{"a":{"b":[2]}},{"a":{}}]"#),
        (r#"{"a\u0000b":1,"a\u0000c":2,"a\u0000b":3}"#, r#"{"a\u0000c":2,"a\u0000b":3}"#),
    ] {
        assert_eq!(norm(text).unwrap(), expected);
        let doc = parse(&format!(r#"{{"x":{text}}}"#)).unwrap();
        let again = Body::from_stored(doc.body.text().clone()).with_term().unwrap();
        assert_eq!(doc.body.term(), again.term());
    }
    // Many members, which are searched in another way.
    let names = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|i| format!(r#""k{i}":{i}"#)).collect()
    };
    let (early, late) = (names(0..60).join(","), names(20..60).join(","));
    let kept = names(0..20).join(",");
    assert_eq!(norm(&format!("{{{early},{late}}}")).unwrap(), format!("{{{kept},{late}}}"));
    // Special members too: one that does not count is not even looked at.
    let doc = parse(r#"{"_deleted":1,"_id":3,"_id":"x","_deleted":true}"#).unwrap();
    assert!(doc.deleted);
    assert_eq!(doc.id.as_deref(), Some("x"));
    let bad = "Bad special document member: _";
    assert_eq!(refused(r#"{"_a":1,"_id":"x","_b":2,"_id":"y","_a":1}"#).1, format!("{bad}a"));
    let names: String = (0..100_000).map(|i| format!(r#""_{i}":[],"#)).collect();
    assert_eq!(refused(&format!(r#"{{{names}{names}"_x":1}}"#)).1, format!("{bad}x"));
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "1,",
        "{} {}",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".1",
        "1.e1",
        "1e",
        "1e+",
        "0x1",
        "1e400",
        "-1e400",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\t\"",
        "\"\u{0}\"",
        r#""\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\u0041""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        "\u{feff}{}",
        "/**/1",
        "[1 2]",
        "{\"a\" 1}",
    ] {
        let error = norm(text).expect_err(text);
        assert_eq!((error.status(), error.reason()), (400, "invalid UTF-8 JSON"), "{text:?}");
        let doc = parse(text).expect_err(text);
        assert_eq!(doc.status(), 400, "{text:?}");
    }
    for bytes in
        [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\xff"]
    {
        assert_eq!(
            normalize(bytes, &Limits::default()).unwrap_err().reason(),
            "invalid UTF-8 JSON"
        );
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let limits = Limits::default();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| {
            let inner = if open == "[" { "" } else { "1" };
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        let fits = norm(&nested(limits.depth)).unwrap();
        assert_eq!(fits, nested(limits.depth));
        let mut value = &to_value(&fits);
        let mut depth = 0;
        while let Some(inner) = value.get(0).or_else(|| value.get("a")) {
            value = inner;
            depth += 1;
        }
        assert!(depth >= limits.depth - 1);
        let error = norm(&nested(limits.depth + 1)).unwrap_err();
        assert_eq!((error.status(), error.reason()), (400, "JSON nested deeper than 500 levels"));
        // A document counts as a level.
        let doc = |depth| parse(&format!(r#"{{"x":{}}}"#, nested(depth)));
        let fits = doc(limits.depth - 1).unwrap();
        assert_eq!(fits.to_value()["x"], to_value(&nested(limits.depth - 1)));
        assert_eq!(fits.to::<Value>().unwrap(), fits.to_value());
        assert!(doc(limits.depth).is_err());
        assert!(norm(&open.repeat(1_000_000)).is_err());
        let bulk = format!(r#"{{"docs":[{{"x":{}}}]}}"#, nested(limits.depth - 1));
        BulkDocs::parse(bulk.as_bytes(), &limits).unwrap();
    }
}

#[test]
fn huge_integers_are_exact_up_to_a_limit() {
    let digits = "7".repeat(30_000);
    let mut doc = parse(&format!(r#"{{"n":{digits},"m":1}}"#)).unwrap();
    doc.set("m", 2).unwrap();
    assert_eq!(doc.body.get("n"), Some(digits.as_str()));
    assert!(parse(&format!(r#"{{"n":{}}}"#, "7".repeat(40_000))).is_err());
}

#[test]
fn documents_have_their_special_members_split_off() {
    let doc = parse(
        r#"{"a":1,"_id":"x","_rev":"2-b","_deleted":true,"b":{"_c":1},
            "_revisions":{"start":3,"ids":["c","967a00dff5e02add41819138abb3284d"]},
            "_revs_info":[{"rev":"3-c","status":"available"},{"rev":"2-b","status":"missing"}],
            "_local_seq":7,"_conflicts":["3-a"],"_deleted_conflicts":["3-d"],
            "_replication_state":"error","_replication_id":"i","_access":[]}"#,
    )
    .unwrap();
    assert_eq!(doc.id.as_deref(), Some("x"));
    assert_eq!(doc.rev, Some("3-c".parse().unwrap()));
    assert_eq!(doc.revisions.as_ref().unwrap().ids.len(), 2);
    assert!(doc.deleted);
    assert_eq!(doc.meta.local_seq, Some(7));
    assert_eq!(doc.meta.revs_info.as_ref().unwrap()[1].1, RevStatus::Missing);
    assert_eq!(doc.meta.conflicts, ["3-a".parse().unwrap()]);
    assert_eq!(doc.meta.deleted_conflicts, ["3-d".parse().unwrap()]);
    assert_eq!(
        doc.body.as_str(),
        r#"{"a":1,"b":{"_c":1},"_replication_state":"error","_replication_id":"i","_access":[]}"#
    );
    // What only replies have is never an error.
    let doc =
        parse(r#"{"_local_seq":"1-x","_conflicts":3,"_revs_info":[1],"_deleted_conflicts":{}}"#);
    assert_eq!(doc.unwrap().meta, Meta::default());
}

#[test]
fn special_members_fail_as_in_couchdb() {
    let bad =
        |name: &str| ("doc_validation".into(), format!("Bad special document member: {name}"));
    assert_eq!(refused(r#"{"_x":1}"#), bad("_x"));
    assert_eq!(refused(r#"{"_":1}"#), bad("_"));
    assert_eq!(refused(r#"{"\u005fx":1}"#), bad("_x"));
    assert_eq!(refused(r#"{"_deleted":1}"#), bad("_deleted"));
    assert_eq!(refused(r#"{"_attachments":[]}"#), bad("_attachments"));
    assert_eq!(refused(r#"{"_revisions":1}"#), bad("_revisions"));
    let own = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    for (text, name, reason) in [
        ("[]", "bad_request", "Document must be a JSON object"),
        ("3", "bad_request", "Document must be a JSON object"),
        (r#"{"_id":3}"#, "illegal_docid", "Document id must be a string"),
        (r#"{"_id":""}"#, "illegal_docid", "Document id must not be empty"),
        (
            r#"{"_id":"_x"}"#,
            "illegal_docid",
            "Only reserved document ids may start with underscore.",
        ),
        (r#"{"_rev":3}"#, "bad_request", "Invalid rev format"),
        (r#"{"_rev":"x"}"#, "bad_request", "Invalid rev format"),
        (r#"{"_revisions":{}}"#, "doc_validation", "_revisions.start isn't an integer."),
        (r#"{"_revisions":{"start":"1"}}"#, "doc_validation", "_revisions.start isn't an integer."),
        (r#"{"_revisions":{"start":1}}"#, "doc_validation", "_revisions.ids isn't a array."),
        (
            r#"{"_revisions":{"start":1,"ids":{}}}"#,
            "doc_validation",
            "_revisions.ids isn't a array.",
        ),
        (r#"{"_revisions":{"start":1,"ids":[1]}}"#, "doc_validation", "RevId isn't a string"),
        (
            r#"{"_revisions":{"start":1,"ids":["zzza00dff5e02add41819138abb3284d"]}}"#,
            "doc_validation",
            "RevId isn't a valid hexadecimal",
        ),
        (
            r#"{"_revisions":{"start":1,"ids":["a","b"]}}"#,
            "doc_validation",
            "_revisions.start doesn't match _revisions.ids.",
        ),
        (r#"{"_attachments":{"a":{}}}"#, "bad_request", "Invalid attachment data for a"),
        (r#"{"_attachments":{"a":{"data":"x"}}}"#, "bad_request", "Invalid attachment data for a"),
        (
            r#"{"_attachments":{"_a":{"stub":true}}}"#,
            "bad_request",
            "Attachment name '_a' starts with prohibited character '_'",
        ),
        (
            r#"{"_attachments":{"a":{"stub":true,"encoding":"br"}}}"#,
            "bad_request",
            "Invalid encoding of attachment a",
        ),
    ] {
        assert_eq!(refused(text), own(name, reason), "{text}");
    }
    // No JSON at all comes before all else.
    assert_eq!(refused(r#"{"_x":1} x"#).1, "invalid UTF-8 JSON");
}

#[test]
fn large_documents_are_refused_by_their_id() {
    let limits = Limits { document: 20, attachment: 3, ..Limits::default() };
    let parse = |text: &str| Document::parse(text.as_bytes(), &limits);
    parse(r#"{"_id":"a long id does not count","a":"012345678901"}"#).unwrap();
    let error = parse(r#"{"a":"0123456789012","_id":"x"}"#).unwrap_err();
    assert_eq!((error.status(), error.name(), error.reason()), (413, "document_too_large", "x"));
    parse(r#"{"_attachments":{"a":{"data":"AAAA"}}}"#).unwrap();
    let error = parse(r#"{"_attachments":{"a":{"data":"AAAAAA=="}}}"#).unwrap_err();
    assert_eq!((error.status(), error.name(), error.reason()), (413, "attachment_too_large", "a"));
}

#[test]
fn attachments_are_read() {
    let doc = parse(
        r#"{"_attachments":{
            "inline":{"data":"aGVsbG8=","encoding":"gzip","revpos":2,"content_type":"text/plain"},
            "spaced":{"data":" aGV\nsbG8="},
            "stub":{"stub":true,"digest":"md5-XUFAKrxLKna5cZ2REBfFkg==","length":5,"revpos":1,
                "encoding":"gzip","encoded_length":25},
            "follows":{"follows":true,"length":9,"digest":"sha1-x"},
            "ignored":1}}"#,
    )
    .unwrap();
    let [inline, spaced, stub, follows] = &doc.attachments[..] else { panic!("{doc:?}") };
    assert_eq!(inline.data, AttachmentData::Inline("hello".into()));
    assert_eq!(
        (inline.encoding, inline.length, inline.revpos),
        (Encoding::Identity, Some(5), Some(2))
    );
    assert_eq!(spaced.data, inline.data);
    assert_eq!(spaced.content_type, "application/octet-stream");
    assert_eq!(stub.data, AttachmentData::Stub);
    assert_eq!((stub.encoding, stub.encoded_length), (Encoding::Gzip, Some(25)));
    assert_eq!(stub.digest.unwrap().base64(), "XUFAKrxLKna5cZ2REBfFkg==");
    assert_eq!((follows.length, follows.digest), (Some(9), None));
    assert_eq!(follows.data, AttachmentData::Follows);
}

#[test]
fn documents_are_written_as_couchdb_does() {
    let doc = parse(
        r#"{"_attachments":{"a":{"stub":true,"length":5,"revpos":1,"encoding":"gzip",
            "encoded_length":25,"digest":"md5-XUFAKrxLKna5cZ2REBfFkg=="},"b":{"data":"aGVsbG8="}},
            "_local_seq":7,"_conflicts":["3-a"],"_deleted_conflicts":["3-d"],"n":1,
            "_revs_info":[{"rev":"3-c","status":"available"}],
            "_revisions":{"start":3,"ids":["c","b"]},"_deleted":true,"_id":"x","m":2.0}"#,
    )
    .unwrap();
    let rest = concat!(
        r#"{"_id":"x","_rev":"3-c","n":1,"m":2.0,"_deleted":true,"#,
        r#""_revisions":{"start":3,"ids":["c","b"]},"#,
        r#""_revs_info":[{"rev":"3-c","status":"available"}],"_conflicts":["3-a"],"#,
        r#""_deleted_conflicts":["3-d"],"_local_seq":7,"_attachments":"#,
    );
    let a = r#"{"a":{"content_type":"application/octet-stream","revpos":1,"digest":"md5-XUFAKrxLKna5cZ2REBfFkg==","length":5,"stub":true"#;
    let b = r#""b":{"content_type":"application/octet-stream","#;
    let plain = format!(r#"{rest}{a}}},{b}"data":"aGVsbG8="}}}}}}"#);
    assert_eq!(doc.to_json(), plain);
    let mut out = Vec::new();
    doc.write_json(&mut out, &WriteJson { att_encoding_info: true, follows: true });
    let full = format!(
        r#"{rest}{a},"encoding":"gzip","encoded_length":25}},{b}"length":5,"follows":true}}}}}}"#
    );
    assert_eq!(String::from_utf8(out).unwrap(), full);
    assert_eq!(Document::new().to_json(), "{}");
}

#[test]
fn members_can_be_read_set_and_removed() {
    let big = "123456789012345678901234567890";
    let mut doc = parse(&format!(r#"{{"a":{big},"b\n":1.0,"c":"x"}}"#)).unwrap();
    assert_eq!(doc.get("b\n"), Some(json!(1.0)));
    assert_eq!(doc.get("d"), None);
    assert_eq!(doc.body.get("a"), Some(big));
    doc.set("b\n", json!({"z": 1, "y": [null]})).unwrap();
    doc.set("d", "new").unwrap();
    assert_eq!(
        doc.body.as_str(),
        format!(r#"{{"a":{big},"b\n":{{"z":1,"y":[null]}},"c":"x","d":"new"}}"#)
    );
    assert_eq!(doc.remove("c"), Some(json!("x")));
    assert_eq!(doc.remove("c"), None);
    doc.remove("a");
    doc.remove("b\n");
    assert_eq!(doc.remove("d"), Some(json!("new")));
    assert_eq!(doc, Document::new());
    doc.set("_id", "x").unwrap();
    doc.set("_rev", "1-a").unwrap();
    doc.set("_replication_state", "ok").unwrap();
    assert_eq!(doc.to_json(), r#"{"_id":"x","_rev":"1-a","_replication_state":"ok"}"#);
    assert_eq!(doc.set("_odd", 1).unwrap_err().name(), "doc_validation");
    assert_eq!(doc.set("_id", "_odd").unwrap_err().name(), "illegal_docid");
}

#[test]
fn documents_convert() {
    let doc = Document::try_from(json!({"_id": "x", "n": [1, 2.0]})).unwrap();
    assert_eq!(doc.to_value(), json!({"_id": "x", "n": [1, 2.0]}));
    assert!(Document::try_from(json!([])).is_err());
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Row {
        doc: Option<Document>,
    }
    let row = Row { doc: Some(parse(r#"{"n":12345678901234567890123,"_id":"x"}"#).unwrap()) };
    let text = serde_json::to_string(&row).unwrap();
    assert_eq!(text, r#"{"doc":{"_id":"x","n":12345678901234567890123}}"#);
    assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    assert_eq!(serde_json::from_value::<Row>(json!({"doc": null})).unwrap(), Row { doc: None });
    let value = serde_json::from_value::<Row>(json!({"doc": {"_id": "x"}})).unwrap();
    assert_eq!(value.doc, Some(Document::with_id("x")));
    #[derive(Debug, serde::Deserialize)]
    struct Other {
        #[serde(rename = "_id")]
        _id: u32,
    }
    assert_eq!(row.doc.unwrap().to::<Other>().unwrap_err().name(), "doc_validation");
}

#[test]
fn debug_shows_id_generation_and_the_first_members() {
    let doc =
        parse(r#"{"_id":"lackey-129","_rev":"1-a","first":"Oliver","last":"Reeder"}"#).unwrap();
    assert_eq!(format!("{doc:?}"), r#"<Document lackey-129[1] {first:"Oliver", last:"Reeder"}>"#);
    assert_eq!(format!("{:?}", Document::new()), "<Document {}>");
    let doc = parse(&format!(r#"{{"_id":"x","a":"{}"}}"#, "\u{e9}".repeat(200))).unwrap();
    assert_eq!(format!("{doc:?}"), format!("<Document x {{a:\"{}...>", "\u{e9}".repeat(76)));
}

#[test]
fn bulk_bodies_are_read_in_any_order() {
    let bulk = |text: &str| BulkDocs::parse(text.as_bytes(), &Limits::default());
    let read =
        bulk(r#"{"docs":[{"_id":"a","n":1},{"_rev":"1-x"},{}],"w":2,"all_or_nothing":true}"#);
    let read = read.unwrap();
    assert_eq!((read.docs.len(), read.new_edits, read.all_or_nothing), (3, true, Some(true)));
    assert_eq!(read.docs[0].body.as_str(), r#"{"n":1}"#);
    assert_eq!(read.docs[1].id, None);
    let read = bulk(r#"{"docs":[{"_rev":"1-x"}],"new_edits":false}"#).unwrap();
    assert!(!read.new_edits);
    assert_eq!(read, bulk(r#"{"new_edits":false,"docs":[],"docs":[{"_rev":"1-x"}]}"#).unwrap());
    for (text, reason) in [
        ("[]", "Request body must be a JSON object"),
        ("{}", "POST body must include `docs` parameter."),
        (r#"{"docs":{}}"#, "`docs` parameter must be an array."),
        (r#"{"docs":null}"#, "`docs` parameter must be an array."),
        (r#"{"docs":[1]}"#, "Document must be a JSON object"),
        (r#"{"docs":[],"new_edits":1}"#, "`new_edits` parameter must be a boolean."),
        (
            r#"{"docs":[{}],"new_edits":false}"#,
            "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
        ),
        (r#"{"docs":[{"_x":1}]}"#, "Bad special document member: _x"),
        (r#"{"docs":[{},]}"#, "invalid UTF-8 JSON"),
        (r#"{"docs":[{}]"#, "invalid UTF-8 JSON"),
        (r#"{"docs":[{}]}}"#, "invalid UTF-8 JSON"),
    ] {
        let error = bulk(text).expect_err(text);
        assert_eq!((error.status(), error.reason()), (400, reason), "{text}");
    }
}

#[test]
fn requests_for_revisions_are_read() {
    let limits = Limits::default();
    let revs = parse_revs_by_doc(br#"{"a":["1-x","2-y"],"b":[]}"#, &limits).unwrap();
    assert_eq!(revs["a"], ["1-x".parse().unwrap(), "2-y".parse().unwrap()]);
    assert!(revs["b"].is_empty());
    for (text, reason) in [
        ("[]", "Request body must be a JSON object"),
        (r#"{"a":"1-x"}"#, "Invalid list of revisions"),
        (r#"{"a":[1]}"#, "Invalid rev format"),
        (r#"{"a":["x"]}"#, "Invalid rev format"),
        (r#"{"a":[]"#, "invalid UTF-8 JSON"),
    ] {
        assert_eq!(parse_revs_by_doc(text.as_bytes(), &limits).unwrap_err().reason(), reason);
    }
    let text = r#"{"docs":[{"id":"a","rev":"1-x","atts_since":["1-y"]},{"id":"b"},{"rev":"1-x"},
        {"id":3},{"id":"_x"},{"id":"c","rev":"x"},{"id":"d","atts_since":1},1]}"#;
    let asked = parse_bulk_get(text.as_bytes(), &limits).unwrap();
    let item = asked[0].as_ref().unwrap();
    assert_eq!((item.id.as_str(), item.rev.is_some(), item.atts_since.len()), ("a", true, 1));
    assert_eq!(asked[1].as_ref().unwrap().rev, None);
    let reasons: Vec<_> = asked[2..]
        .iter()
        .map(|item| item.as_ref().unwrap_err().error.reason().to_owned())
        .collect();
    assert_eq!(
        reasons,
        [
            "document id missed",
            "Document id must be a string",
            "Only reserved document ids may start with underscore.",
            "Invalid rev format",
            "att_since value must be array of revs.",
            "document must be a JSON object",
        ]
    );
    let error = parse_bulk_get(br#"{"docs":1}"#, &limits).unwrap_err();
    assert_eq!(error.reason(), "Missing JSON list of 'docs'.");
}

#[test]
fn rows_are_written_as_couchdb_does() {
    let rev: Rev = "1-967a00dff5e02add41819138abb3284d".parse().unwrap();
    let doc = Document { rev: Some(rev.clone()), ..Document::with_id("a\"") };
    let text = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    };
    let options = WriteJson::default();
    let mut row =
        DocRow { id: "a\"".into(), rev: Some(rev.clone()), deleted: false, doc: Some(doc.into()) };
    assert_eq!(
        text(&|out| row.write_json(out, true, &options)),
        r#"{"id":"a\"","key":"a\"","value":{"rev":"1-967a00dff5e02add41819138abb3284d"},"doc":{"_id":"a\"","_rev":"1-967a00dff5e02add41819138abb3284d"}}"#
    );
    row.doc = None;
    assert!(!text(&|out| row.write_json(out, false, &options)).contains("doc"));
    row.rev = None;
    let missing = text(&|out| row.write_json(out, true, &options));
    assert_eq!(missing, r#"{"key":"a\"","error":"not_found"}"#);
    let mut change = Change {
        seq: Seq::Number(7),
        id: "x".into(),
        revs: vec!["2-a".parse().unwrap(), "1-\"".parse().unwrap()],
        deleted: true,
        doc: None,
    };
    assert_eq!(
        text(&|out| change.write_json(out, false, &options)),
        r#"{"seq":7,"id":"x","changes":[{"rev":"2-a"},{"rev":"1-\""}],"deleted":true}"#
    );
    change.seq = Seq::Opaque("7-x".into());
    assert!(text(&|out| change.write_json(out, true, &options)).ends_with(r#","doc":null}"#));
    let saved = Saved { id: "x".into(), rev: "2-a".parse().unwrap() };
    assert_eq!(text(&|out| saved.write_json(out)), r#"{"ok":true,"id":"x","rev":"2-a"}"#);
    let mut error = DocError { id: "x".into(), rev: None, error: Error::conflict() };
    let conflict = r#""error":"conflict","reason":"Document update conflict."}"#;
    assert_eq!(text(&|out| error.write_json(out)), format!(r#"{{"id":"x",{conflict}"#));
    error.rev = Some(saved.rev);
    assert_eq!(text(&|out| error.write_json(out)), format!(r#"{{"id":"x","rev":"2-a",{conflict}"#));
}

const SAMPLE: &str = r#" {"_id":"x\u00e9","_rev":"1-967a00dff5e02add41819138abb3284d","a":[1,-2.5e3,
    "\ud83e\udd80",{"b":null,"b":[true,false,{}]},[],123456789012345678901],"_deleted":false,
    "_revisions":{"start":2,"ids":["a","b"]},"_attachments":{"f":{"data":"aGVsbG8=","revpos":1},
    "g":{"stub":true,"digest":"md5-XUFAKrxLKna5cZ2REBfFkg=="}},"a":"é"} "#;

#[test]
fn a_truncated_or_damaged_document_is_an_error_or_a_document() {
    let limits = Limits::default();
    parse(SAMPLE).unwrap();
    let whole = SAMPLE.trim_end().len();
    for end in 0..whole {
        let text = &SAMPLE.as_bytes()[..end];
        assert_eq!(Document::parse(text, &limits).unwrap_err().status(), 400);
        assert_eq!(normalize(text, &limits).unwrap_err().status(), 400);
        // Damaged where it was stored: nonsense may come out, but nothing worse.
        let body = Body::from_stored(bytes::Bytes::copy_from_slice(text));
        let _ = (body.to_value(), body.members().count(), body.get("a").is_some());
        assert!(body.with_term().is_err());
    }
    for at in 0..whole {
        for byte in [0, b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'0', b'u', 0x80, 0xff] {
            let mut text = SAMPLE.as_bytes().to_vec();
            text[at] = byte;
            if let Ok(doc) = Document::parse(&text, &limits) {
                assert_eq!(parse(&doc.to_json()).unwrap(), doc);
            }
            let bulk = [br#"{"docs":["#, &text[..], b"]}"].concat();
            let _ = BulkDocs::parse(&bulk, &limits);
            let _ = parse_bulk_get(&text, &limits);
            let _ = parse_revs_by_doc(&text, &limits);
            let body = Body::from_stored(text.into());
            let _ = (body.to_value(), body.members().count(), body.get("a").is_some());
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..300i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~\u{0}-\u{1f}é🦀\"\\\\]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any_name(), inner), 0..30)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", any::<String>()]
        .prop_map(|name| name.trim_start_matches('_').to_owned())
}

/// JSON text of objects with repeated members, spaced at random.
fn any_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        // No -0, which is an integer here as in CouchDB, and a float to serde_json.
        "(0|-?[1-9][0-9]{0,25}|-?0\\.[0-9]{1,20}|-?[1-9][0-9]{0,25}\\.[0-9]{1,20})",
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?[eE][+-]?[0-9]{1,3}",
        any_value().prop_map(|value| value.to_string()),
        any_value().prop_map(|value| serde_json::to_string_pretty(&value).unwrap()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|elements| format!("[ {} ]", elements.join(" ,\t"))),
            prop::collection::vec(("[a-d]|\\\\u006[1-4]", inner), 0..40).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{{}}}", members.join("\n,"))
            }),
        ]
    })
}

fn any_rev() -> impl Strategy<Value = Rev> {
    (1..1u64 << 48, any_rev_id()).prop_map(|(pos, id)| Rev { pos, id })
}

fn any_rev_id() -> impl Strategy<Value = RevId> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(RevId::Hash),
        "[a-z\"\\\\-]{1,9}".prop_map(|text| RevId::Text(text.into())),
    ]
}

fn any_attachment() -> impl Strategy<Value = Attachment> {
    let data = prop_oneof![
        Just(AttachmentData::Stub),
        Just(AttachmentData::Follows),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| AttachmentData::Inline(data.into())),
    ];
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u32>>());
    (any_name(), any::<String>(), any::<Option<[u8; 16]>>(), numbers, any::<bool>(), data).prop_map(
        |(name, content_type, digest, (revpos, length, encoded_length), gzip, data)| {
            let inline = match &data {
                AttachmentData::Inline(data) => Some(data.len() as u64),
                _ => None,
            };
            let gzip = gzip && inline.is_none();
            Attachment {
                name,
                content_type,
                revpos: revpos.map(u64::from),
                digest: digest.map(Digest),
                length: inline.or(length.map(|length| u64::from(length / 8))),
                encoding: if gzip { Encoding::Gzip } else { Encoding::Identity },
                encoded_length: encoded_length.filter(|_| gzip).map(u64::from),
                data,
            }
        },
    )
}

fn any_document() -> impl Strategy<Value = Document> {
    let status =
        prop::sample::select(vec![RevStatus::Available, RevStatus::Missing, RevStatus::Deleted]);
    let revs = || prop::collection::vec(any_rev(), 0..3);
    let meta = (
        any::<Option<u64>>(),
        prop::option::of(prop::collection::vec((any_rev(), status), 0..3)),
        revs(),
        revs(),
    )
        .prop_map(|(local_seq, revs_info, conflicts, deleted_conflicts)| Meta {
            local_seq,
            revs_info,
            conflicts,
            deleted_conflicts,
        });
    (
        prop::option::of("[^_].{0,9}"),
        prop::option::of(any_rev()),
        any::<bool>(),
        prop::option::of((100..200u64, prop::collection::vec(any_rev_id(), 1..4))),
        prop::collection::vec(any_attachment(), 0..3),
        meta,
        prop::collection::vec((any_name(), any_value()), 0..9),
    )
        .prop_map(|(id, rev, deleted, revisions, attachments, meta, members)| {
            let revisions = revisions.map(|(start, ids)| Revisions { start, ids });
            let members = Value::Object(members.into_iter().collect());
            let mut names = std::collections::HashSet::new();
            Document {
                id,
                rev: revisions.as_ref().map_or(rev, Revisions::rev),
                deleted,
                revisions,
                attachments: attachments
                    .into_iter()
                    .filter(|attachment| names.insert(attachment.name.clone()))
                    .collect(),
                meta,
                body: Document::from_value(members).unwrap().body,
            }
        })
}

proptest! {
    #[test]
    fn values_are_what_serde_json_reads(value in any_value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let text = norm(&text).unwrap();
            prop_assert_eq!(&to_value(&text), &value);
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
        }
    }

    #[test]
    fn one_text_has_one_reading(text in any_text()) {
        let Ok(normal) = norm(&text) else {
            // Only floats out of range.
            prop_assert!(serde_json::from_str::<Value>(&text).is_err());
            return Ok(());
        };
        prop_assert_eq!(norm(&normal).unwrap(), normal.clone());
        // serde_json keeps the last of equal members too, but elsewhere; as sets they agree.
        prop_assert_eq!(to_value(&normal), serde_json::from_str::<Value>(&text).unwrap());
        let doc = parse(&format!("{{\"x\":{text}}}")).unwrap();
        prop_assert_eq!(doc.body.get("x").unwrap(), &normal);
        let stored = Body::from_stored(doc.body.text().clone()).with_term().unwrap();
        prop_assert_eq!(stored.term(), doc.body.term());
        for (_, member) in members(&normal) {
            prop_assert_eq!(norm(member).unwrap(), member);
        }
        for element in elements(&normal) {
            prop_assert_eq!(norm(element).unwrap(), element);
        }
    }

    #[test]
    fn documents_read_back_as_they_were_written(doc in any_document()) {
        let mut out = Vec::new();
        doc.write_json(&mut out, &WriteJson { att_encoding_info: true, follows: false });
        let read = Document::parse(&out, &Limits::default()).unwrap();
        prop_assert_eq!(&read.body, &doc.body);
        prop_assert_eq!(&read.attachments, &doc.attachments);
        prop_assert!(read == doc, "{}", String::from_utf8_lossy(&out));
        prop_assert_eq!(doc.to_value(), to_value(&norm(&doc.to_json()).unwrap()));
    }

    #[test]
    fn no_input_panics(text in prop::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}\",:0-9a-u\\\\.eE+ -]{0,60}") {
        for text in [&text[..], json.as_bytes()] {
            let _ = Document::parse(text, &Limits::default());
            let _ = BulkDocs::parse(text, &Limits::default());
            let body = Body::from_stored(bytes::Bytes::copy_from_slice(text));
            let _ = (body.to_value(), body.members().count(), body.get("a").is_some());
        }
    }
}
