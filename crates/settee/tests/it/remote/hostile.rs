//! Replies that no server should give: each is a typed error, soon, and in bounded memory.

use super::fake::{Answer, Fake, json, with};
use flate2::Compression;
use flate2::write::GzEncoder;
use settee::options::{BulkGetItem, GetOptions, OpenRevs};
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use settee::{Error, ErrorKind};
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use testkit::time::{soon, within};

/// A database of a server that gives one answer to everything.
async fn db(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Fake, Database) {
    let fake = Fake::start(move |_| answer()).await;
    let options = RemoteOptions::new()
        .max_item(1 << 20)
        .retries(0)
        .idle_timeout(Duration::from_millis(300))
        .request_timeout(Duration::from_secs(5));
    let remote = Remote::connect(&fake.url(), &options).unwrap();
    (fake, Couch::from_host(Arc::new(remote)).db("db").unwrap())
}

/// What every kind of read, and a write, make of an answer.
async fn all(db: &Database) -> Vec<(&'static str, Result<()>)> {
    fn done<T>(result: Result<T>) -> Result<()> {
        result.map(drop)
    }
    let adapter = db.adapter();
    let attachments = GetOptions { attachments: true, ..GetOptions::default() };
    let item = BulkGetItem { id: "a".into(), rev: None, atts_since: vec![] };
    let bulk_get = async {
        let results = adapter.bulk_get(vec![item], &GetOptions::default()).await?;
        results.try_collect::<Vec<_>>().await
    };
    // A live feed does not give up as long as it may yet come to something.
    let live = async {
        let batch = async { db.changes().live_batches().await?.try_next().await };
        let gone = || Error::new(ErrorKind::Unreachable, "still trying");
        within(Duration::from_millis(200), batch).await.unwrap_or_else(|| Err(gone()))
    };
    vec![
        ("info", done(soon(db.info()).await)),
        ("get", done(soon(db.get("a")).await)),
        ("get with attachments", done(soon(db.get_with("a", &attachments)).await)),
        ("open_revs", done(soon(adapter.open_revs("a", &OpenRevs::All, &attachments)).await)),
        ("all_docs", done(soon(db.all_docs().include_docs().fetch()).await)),
        ("changes", done(soon(db.changes().fetch()).await)),
        ("live", done(soon(live).await)),
        ("bulk_get", done(soon(bulk_get).await)),
        ("bulk_docs", done(soon(db.bulk_docs([r#"{"_id":"a"}"#], true)).await)),
        ("revs_diff", done(soon(adapter.revs_diff(&Default::default())).await)),
        ("security", done(soon(db.security()).await)),
        ("revs_limit", done(soon(db.revs_limit()).await)),
        ("put", done(soon(db.put(r#"{"_id":"a"}"#)).await)),
        ("all_dbs", done(soon(db.couch().all_dbs()).await)),
    ]
}

#[track_caller]
fn each<T: Debug>(outcomes: Vec<(&'static str, Result<T>)>, kinds: &[ErrorKind]) {
    for (what, outcome) in outcomes {
        let error: Error = outcome.expect_err(what);
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_another_shape_is_a_bad_reply() {
    // Each is something that some of the requests may be answered with, so not all are errors; but
    // nothing panics, and no error is the caller's fault.
    for text in [
        "",
        "null",
        "7",
        "[]",
        "{}",
        "\"\"",
        "<html></html>",
        "{\"rows\":7}",
        "{\"results\":{}}",
        "{\"rows\":[{\"id\":1}]}",
        "{\"results\":[1,2]}",
        "[{\"ok\":[]}]",
        "[[]]",
        "{\"_id\":7}",
        "{\"results\":[{\"id\":\"a\",\"docs\":[7]}]}",
        "{\"_id\":\"a\",\"_rev\":\"x\"}",
        "[{]",
        "\u{0}",
        "{\"results\":[],\"last_seq\":true}",
        "{\"a\":",
        "[null,",
        "{\"rows\":[{\"key\":[\"",
    ] {
        let (_fake, db) = db(|| json(200, text)).await;
        for (what, outcome) in all(&db).await {
            let Err(error) = outcome else { continue };
            let kinds = [ErrorKind::BadReply, ErrorKind::Unreachable, ErrorKind::NotFound];
            assert!(kinds.contains(&error.kind()), "{what} of {text:?}: {error:?}");
        }
    }
    let (_fake, db) = db(|| json(200, "<html>Welcome!</html>")).await;
    each(all(&db).await, &[ErrorKind::BadReply]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_without_end_is_a_bad_reply() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    for start in [
        r#"{"rows":[{"id":""#,
        r#"{"results":[{"id":""#,
        r#"[{"ok":{"_id":""#,
        r#"{"a":""#,
        "\"",
        "[",
        r#"{"rows":[{"#,
    ] {
        let filler = vec![b'x'; 64 << 10];
        let answer = move || Answer::Endless(format!("{head}{start}").into_bytes(), filler.clone());
        let (_fake, db) = db(answer).await;
        each(all(&db).await, &[ErrorKind::BadReply]);
    }
    // Members without end, too.
    let members = br#""some member":"some value","#.repeat(1000);
    let answer = move || Answer::Endless(format!("{head}{{").into_bytes(), members.clone());
    let (_fake, db) = db(answer).await;
    each(all(&db).await, &[ErrorKind::BadReply]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_a_bad_reply() {
    let header = format!("X-{}: y\r\n", "x".repeat(1000)).into_bytes();
    let answer = move || Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), header.clone());
    let (_fake, db) = db(answer).await;
    each(all(&db).await, &[ErrorKind::BadReply, ErrorKind::Unreachable]);
    for text in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 999999 x\r\n\r\n", "\r\n\r\n\r\n"] {
        let (_fake, db) = self::db(|| Answer::Bytes(text.into())).await;
        each(all(&db).await, &[ErrorKind::BadReply, ErrorKind::Unreachable]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_stops_is_an_unreachable_server() {
    let reply = |rest: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999";
        format!("{head}\r\n\r\n{rest}").into_bytes()
    };
    for rest in ["", "{\"rows\":[", "{\"results\":[{\"", "[{\"ok\":", "{"] {
        let (_fake, db) = db(move || Answer::Bytes(reply(rest))).await;
        // What has begun wrongly is refused before it is known to stop.
        each(all(&db).await, &[ErrorKind::Unreachable, ErrorKind::BadReply]);
        let (_fake, db) = self::db(move || Answer::Silent(reply(rest))).await;
        each(all(&db).await, &[ErrorKind::Unreachable, ErrorKind::BadReply]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_reply_cannot_become_a_large_one() {
    // 64 MiB of one string, in 64 KiB.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(b"{\"rows\":[\"").unwrap();
    for _ in 0..64 {
        gzip.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let body = gzip.finish().unwrap();
    let mut reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    reply.extend(body);
    let (_fake, db) = db(move || Answer::Bytes(reply.clone())).await;
    each(all(&db).await, &[ErrorKind::BadReply]);
    let (_fake, db) = self::db(|| with(200, "Content-Encoding: gzip\r\n", "{}")).await;
    each(all(&db).await, &[ErrorKind::BadReply]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_make_no_sense_are_bad_replies() {
    let parts = |content_type: &str, body: &str| {
        Answer::Bytes(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    };
    let deep = "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".repeat(100);
    let follows =
        "--b\r\n\r\n{\"_id\":\"a\",\"_rev\":\"1-a\",\"_attachments\":{\"x\":{\"follows\":true}}}";
    let bodies = [
        String::new(),
        "--b".into(),
        "--b--".into(),
        deep,
        format!("{follows}\r\n--b--"),
        format!("{follows}\r\n--b\r\nContent-Encoding: gzip\r\n\r\nx\r\n--b--"),
        format!("{follows}\r\n--b\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--"),
    ];
    for content_type in
        ["multipart/related; boundary=b", "multipart/mixed", "multipart/x;boundary=\""]
    {
        for body in bodies.clone() {
            let (_fake, db) = db(move || parts(content_type, &body)).await;
            let options = GetOptions { attachments: true, ..GetOptions::default() };
            let got = soon(db.get_with("a", &options)).await;
            let kinds = [ErrorKind::BadReply, ErrorKind::Unreachable];
            each(vec![("get", got)], &kinds);
            let revs = soon(db.adapter().open_revs("a", &OpenRevs::All, &options)).await;
            if let Err(error) = revs {
                let kinds = [ErrorKind::BadReply, ErrorKind::Unreachable, ErrorKind::NotFound];
                assert!(kinds.contains(&error.kind()), "{error:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_end() {
    let (fake, db) = db(|| with(302, "Location: /db/b\r\n", "")).await;
    let error = db.get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.name()), (ErrorKind::BadReply, "redirect"));
    assert_eq!(fake.requests().len(), 6);
    for location in ["", "ftp://example.com/", "http://", "nowhere"] {
        let (_fake, db) =
            self::db(move || with(301, &format!("Location: {location}\r\n"), "")).await;
        assert_eq!(db.get("a").await.unwrap_err().name(), "redirect");
    }
}
