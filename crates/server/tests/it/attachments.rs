//! Attachments: alone, inline, in parts.

use crate::{Site, assert_error, put};
use serde_json::json as value;
use std::io::{Read as _, Write as _};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_attachment_is_written_read_and_deleted() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/x/a.bin").body("0123456789").send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("location"), Some("http://test/db/x/a.bin"));
    let rev = reply.value()["rev"].as_str().unwrap().to_owned();
    let reply = root.get("/db/x/a.bin").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"));
    for (name, expected) in [
        ("content-type", "application/octet-stream"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("etag", "\"eB5eJF1ptWaXm4bijSPyxw==\""),
        ("content-security-policy", "sandbox"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "must-revalidate"),
    ] {
        assert_eq!(reply.header(name), Some(expected), "{name}");
    }
    let tag = reply.header("etag").unwrap();
    let reply = root.get("/db/x/a.bin").header("if-none-match", tag).send().await;
    assert_eq!((reply.status, reply.body.len()), (304, 0));
    let head = root.head("/db/x/a.bin").send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    assert!(head.body.is_empty());

    assert_eq!(root.put("/db/x/b").body("x").send().await.status, 409);
    for request in [
        root.put("/db/x/b?rev=9-abc").body("x"),
        root.put("/db/none/b?rev=9-abc").body("x"),
        root.delete("/db/x/a.bin?rev=9-abc"),
    ] {
        assert_error(&request.send().await, 409, "not_found", "missing_rev");
    }
    let missing = "Document is missing attachment";
    assert_error(&root.get("/db/x/none").send().await, 404, "not_found", missing);
    assert_error(&root.get("/db/none/a").send().await, 404, "not_found", "missing");
    let reply = root.delete(&format!("/db/x/none?rev={rev}")).send().await;
    assert_error(&reply, 404, "not_found", missing);
    assert_eq!(root.delete("/db/x/a.bin").send().await.status, 409);
    let reply = root.delete(&format!("/db/x/a.bin?rev={rev}")).send().await;
    assert_eq!((reply.status, reply.value()["ok"].as_bool()), (200, Some(true)));
    assert_eq!(root.get("/db/x/a.bin").send().await.status, 404);
    assert_eq!(root.get(&format!("/db/x/a.bin?rev={rev}")).send().await.status, 200);
    let reply = root.post("/db/x/a.bin").send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only DELETE,GET,HEAD,PUT allowed");
}

#[tokio::test]
async fn ranges_are_given_or_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    root.put("/db/x/a").body("0123456789").send().await;
    let tag = root.get("/db/x/a").send().await.header("etag").unwrap().to_owned();
    let range = async |range: &str| root.get("/db/x/a").header("range", range).send().await;
    for (asked, text, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=5-99", "56789", "bytes 5-9/10"),
    ] {
        let reply = range(asked).await;
        assert_eq!((reply.status, reply.text().as_str()), (206, text), "{asked}");
        assert_eq!(reply.header("content-range"), Some(content_range));
    }
    for asked in ["bytes=10-", "bytes=4-2"] {
        let reply = range(asked).await;
        let reason = "Requested range not satisfiable";
        assert_error(&reply, 416, "requested_range_not_satisfiable", reason);
    }
    for asked in ["bytes=0-1,3-4", "lines=1-2", "bytes=x-y", "nonsense"] {
        let reply = range(asked).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"), "{asked}");
    }
    // Text is stored compressed, and no part of it can be found.
    root.put("/db/t/a").header("content-type", "text/plain").body("0123456789").send().await;
    let reply = root.get("/db/t/a").header("range", "bytes=2-4").send().await;
    assert_eq!((reply.status, reply.header("accept-ranges")), (200, Some("none")));
    let reply = root.get("/db/x/a").header("range", "bytes=2-4").header("if-range", &tag);
    assert_eq!(reply.send().await.status, 206);
    let reply = root.get("/db/x/a").header("range", "bytes=2-4").header("if-range", "\"old\"");
    assert_eq!(reply.send().await.status, 200);
}

#[tokio::test]
async fn digests_and_encodings_are_checked() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/x/a").header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==").body("x");
    assert_eq!(reply.send().await.status, 400);
    let reply = root.put("/db/x/a").header("content-md5", "nonsense").body("x");
    assert_eq!(reply.send().await.status, 400);
    let reply =
        root.put("/db/x/a").header("content-md5", "eB5eJF1ptWaXm4bijSPyxw==").body("0123456789");
    assert_eq!(reply.send().await.status, 201);
    let reply = root.put("/db/y/a").header("content-encoding", "br").body("x").send().await;
    let reason = "Only gzip and identity content-encodings are supported";
    assert_error(&reply, 415, "bad_content_type", reason);

    let text = "compressible ".repeat(100);
    let zipped = gzip(text.as_bytes());
    let reply = root
        .put("/db/z/a")
        .header("content-type", "text/plain")
        .header("content-encoding", "gzip")
        .body(&zipped)
        .send()
        .await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let reply = root.get("/db/z/a").send().await;
    assert_eq!((reply.header("content-encoding"), reply.text()), (None, text.clone()));
    let reply = root.get("/db/z/a").header("accept-encoding", "gzip").send().await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(reply.header("accept-ranges"), Some("none"));
    let mut read = String::new();
    flate2::read::GzDecoder::new(&reply.body[..]).read_to_string(&mut read).unwrap();
    assert_eq!(read, text);
}

#[tokio::test]
async fn names_have_slashes_and_no_underscore_first() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/x/dir/sub%2Ffile%20%C3%A4.txt").body("1").send().await;
    assert_eq!(reply.status, 201);
    let doc = root.value("/db/x").await;
    assert!(doc["_attachments"]["dir/sub/file ä.txt"].is_object(), "{doc}");
    assert_eq!(root.get("/db/x/dir%2Fsub/file+%C3%A4.txt").send().await.text(), "1");
    let reply = root.put("/db/y/_a").body("1").send().await;
    let reason = "Attachment name '_a' starts with prohibited character '_'";
    assert_error(&reply, 400, "bad_request", reason);
}

#[tokio::test]
async fn large_attachments_are_refused_by_announcement_and_by_size() {
    let site = Site::with(&[("couchdb", "max_attachment_size", "1000")]).await;
    let root = site.with_db().await;
    assert_eq!(root.put("/db/x/a").body(vec![1; 1000]).send().await.status, 201);
    let reply = root.put("/db/y/big").body(vec![1; 1001]).send().await;
    assert_error(&reply, 413, "attachment_too_large", "big");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let reply =
        root.put("/db/y/big").header("transfer-encoding", "chunked").body(chunk).send().await;
    assert_error(&reply, 413, "attachment_too_large", "big");
    assert_eq!(root.get("/db/y").send().await.status, 404);
}

#[tokio::test]
async fn documents_come_with_attachments_inline_or_in_parts() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let related = "--outer\r\nContent-Type: application/json\r\n\r\n\
        {\"n\":1,\"_attachments\":{\
        \"a.txt\":{\"follows\":true,\"content_type\":\"text/plain\",\"length\":5},\
        \"b.bin\":{\"follows\":true,\"content_type\":\"x/y\",\"length\":3}}}\r\n\
        --outer\r\nContent-Disposition: attachment; filename=\"a.txt\"\r\n\r\nhello\r\n\
        --outer\r\n\r\n\r\n-\r\n--outer--";
    let media_type = "multipart/related; boundary=\"outer\"";
    let reply = root.put("/db/x").header("content-type", media_type).body(related).send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(root.get("/db/x/a.txt").send().await.text(), "hello");
    assert_eq!(root.get("/db/x/b.bin").send().await.text(), "\r\n-");

    let doc = root.value("/db/x").await;
    assert_eq!(doc["_attachments"]["a.txt"]["stub"], true);
    let reply =
        root.get("/db/x?attachments=true").header("accept", "application/json").send().await;
    assert_eq!(reply.value()["_attachments"]["a.txt"]["data"], "aGVsbG8=");

    let reply =
        root.get("/db/x?attachments=true").header("accept", "multipart/related").send().await;
    let text = reply.text();
    let boundary = reply.header("content-type").unwrap().split('"').nth(1).unwrap().to_owned();
    assert!(text.starts_with(&format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n{{")));
    assert!(text.ends_with(&format!("\r\n-\r\n--{boundary}--")), "{text}");
    assert!(text.contains("Content-Disposition: attachment; filename=\"a.txt\"\r\n"), "{text}");
    assert!(text.contains("\"follows\":true"), "{text}");

    // What comes in parts can be put back in parts.
    let media_type = reply.header("content-type").unwrap();
    let path = "/db/copy?new_edits=false";
    let reply = root.put(path).header("content-type", media_type).body(&reply.body).send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(root.get("/db/copy/a.txt").send().await.text(), "hello");
    assert_eq!(root.value("/db/copy").await["_rev"], root.value("/db/x").await["_rev"]);

    let reply =
        root.get("/db/x?open_revs=all&revs=true").header("accept", "multipart/mixed").send().await;
    assert!(reply.header("content-type").unwrap().starts_with("multipart/mixed; boundary="));
    assert!(reply.text().contains("\"_revisions\""), "{}", reply.text());
    assert!(reply.text().ends_with("--"));
}

#[tokio::test]
async fn only_attachments_that_are_new_to_the_reader_come_again() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let first = root.put("/db/x/old").body("old").send().await.value();
    let first = first["rev"].as_str().unwrap().to_owned();
    let path = format!("/db/x/new?rev={first}");
    root.put(&path).body("new").send().await;
    let path = format!("/db/x?atts_since=[%22{first}%22]");
    let doc = root.value(&path).await;
    assert_eq!(doc["_attachments"]["old"]["stub"], true);
    assert_eq!(doc["_attachments"]["new"]["data"], "bmV3");
    let reply = root.get(&path).header("accept", "multipart/related").send().await;
    assert!(
        reply.text().contains("filename=\"new\"") && !reply.text().contains("filename=\"old\"")
    );
    assert!(!reply.text().contains("_revisions"));
}

#[tokio::test]
async fn multipart_documents_must_be_whole() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let send = async |media_type: &str, body: &str| {
        root.put("/db/x").header("content-type", media_type).body(body).send().await.status
    };
    let good = "multipart/related; boundary=b";
    let json = "--b\r\nContent-Type: application/json\r\n\r\n";
    let follows = r#"{"_attachments":{"a":{"follows":true,"content_type":"x/y","length":1}}}"#;
    for body in [
        String::new(),
        "--b--".into(),
        "garbage".into(),
        format!("{json}{{}}"),
        format!("{json}nonsense\r\n--b--"),
        format!("{json}{follows}\r\n--b--"),
        format!("{json}{follows}\r\n--b\r\n\r\nx"),
        format!("{json}{follows}\r\n--b\r\nContent-Disposition: x; filename=z\r\n\r\nx\r\n--b--"),
    ] {
        assert_eq!(send(good, &body).await, 400, "{body:?}");
    }
    assert_eq!(send("multipart/related", "").await, 400);
    assert_eq!(root.get("/db/x").send().await.status, 404);
    assert_eq!(send(good, &format!("{json}{{}}\r\n--b--")).await, 201);
}

#[tokio::test]
async fn attachments_may_come_with_the_document() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let doc = r#"{"_attachments":{"a":{"content_type":"text/plain","data":"aGVsbG8="}}}"#;
    put(&root, "/db/x", doc).await;
    assert_eq!(root.get("/db/x/a").send().await.text(), "hello");
    for doc in [
        r#"{"_attachments":{"a":{"data":"***"}}}"#,
        r#"{"_attachments":{"_a":{"data":""}}}"#,
        r#"{"_attachments":{"a":{}}}"#,
    ] {
        assert_eq!(root.put("/db/y").json(doc).send().await.status, 400, "{doc}");
    }
    let reply = root.put("/db/y").json(r#"{"_attachments":{"a":{"stub":true}}}"#).send().await;
    assert_eq!((reply.status, reply.value()["error"].as_str()), (412, Some("missing_stub")));
    let stubs = value!({"_attachments": root.value("/db/x").await["_attachments"]});
    let rev = root.value("/db/x").await["_rev"].as_str().unwrap().to_owned();
    put(&root, &format!("/db/x?rev={rev}"), &stubs.to_string()).await;
    assert_eq!(root.get("/db/x/a").send().await.text(), "hello");
}
