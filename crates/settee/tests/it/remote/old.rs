//! Servers that know less than ours, or say it in other words.

use super::fake::{Answer, Fake, Request, json, with};
use settee::adapter::{DbUpdateKind, Host};
use settee::options::{BulkGetItem, GetOptions};
use settee::prelude::*;
use settee::remote::{Remote, RemoteOptions};
use settee::wire::{RevResult, Seq};
use settee::{ErrorKind, RevId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn rev(text: &str) -> settee::Rev {
    text.parse().unwrap()
}

fn couch(fake: &Fake) -> (Remote, Database) {
    let remote = Remote::connect(&fake.url(), &RemoteOptions::new()).unwrap();
    let db = Couch::from_host(Arc::new(remote.clone())).db("db").unwrap();
    (remote, db)
}

/// What a CouchDB 1.6 answers.
fn old(request: &Request) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    match (request.method.as_str(), path) {
        (_, "/") => {
            json(200, r#"{"couchdb":"Welcome","uuid":"85fb","version":"1.6.1","vendor":{}}"#)
        }
        ("GET", "/db") => json(
            200,
            r#"{"db_name":"db","doc_count":2,"doc_del_count":1,"update_seq":7,"purge_seq":0,
            "compact_running":false,"disk_size":8301,"data_size":4212,
            "instance_start_time":"1400000000000000","disk_format_version":6,"committed_update_seq":7}"#,
        ),
        ("POST", "/db/_bulk_get") => {
            json(400, r#"{"error":"bad_request","reason":"Referer header required."}"#)
        }
        (_, "/db/_design_docs") => json(404, r#"{"error":"not_found","reason":"missing"}"#),
        (_, "/db/_local_docs") => json(404, r#"{"error":"not_found","reason":"missing"}"#),
        ("POST", "/db/_ensure_full_commit") => json(404, "gone"),
        ("GET", "/db/_all_docs") => {
            assert_eq!(query, "startkey=%22_design%2F%22&endkey=%22_design0%22");
            json(
                200,
                "{\"total_rows\":2,\"offset\":1,\"rows\":[\r\n\
                {\"id\":\"_design/a\",\"key\":\"_design/a\",\"value\":{\"rev\":\"1-a\"}}\r\n]}",
            )
        }
        ("GET", "/db/_changes") if query.contains("since=now") => {
            json(400, r#"{"error":"bad_request","reason":"invalid_integer"}"#)
        }
        ("GET", "/db/_changes") => json(
            200,
            "{\"results\":[\n{\"seq\":2,\"id\":\"a\",\"changes\":[{\"rev\":\"1-a\"}]},\n\
            {\"seq\":7,\"id\":\"b\",\"changes\":[{\"rev\":\"2-b\"}],\"deleted\":true}\n],\n\"last_seq\":7}\n",
        ),
        ("GET", "/db/a") if query.contains("open_revs=") => {
            assert_eq!(request.header("accept"), Some("application/json"));
            json(200, r#"[{"ok":{"_id":"a","_rev":"1-a","n":1}},{"missing":"2-x"}]"#)
        }
        ("GET", "/db/b") => json(404, r#"{"error":"not_found","reason":"missing"}"#),
        ("GET", "/_config/log/level") => json(200, r#""info""#),
        ("GET", "/_stats/couchdb/request_time") => {
            json(200, r#"{"couchdb":{"request_time":{"current":1.5}}}"#)
        }
        ("GET", "/_all_dbs") => json(200, r#"["b","a","_users"]"#),
        ("POST", "/_replicate") => {
            assert_eq!(request.body, br#"{"source":"db","target":"copy","create_target":true}"#);
            json(200, r#"{"ok":true}"#)
        }
        other => panic!("{other:?}"),
    }
}

/// CP-78.
#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let sent = Arc::new(AtomicUsize::new(1));
    let version = sent.clone();
    let fake = Fake::start(move |request: &Request| {
        let n = version.load(Ordering::SeqCst);
        let etag = format!("\"{n}-a\"");
        match request.header("if-none-match") {
            Some(known) if known == etag => with(304, &format!("ETag: {etag}\r\n"), ""),
            _ => with(
                200,
                &format!("ETag: {etag}\r\n"),
                &format!(r#"{{"_id":"a","_rev":"{n}-a","n":{n}}}"#),
            ),
        }
    })
    .await;
    let (_, db) = couch(&fake);
    for n in [1, 1, 2, 2, 1] {
        sent.store(n, Ordering::SeqCst);
        let doc = db.get("a").await.unwrap();
        assert_eq!((doc.get("n"), doc.rev.unwrap().pos), (Some(n.into()), n as u64));
    }
    let known: Vec<_> =
        fake.requests().iter().map(|r| r.header("if-none-match").map(str::to_owned)).collect();
    let tag = |n: u32| Some(format!("\"{n}-a\""));
    assert_eq!(known, [None, tag(1), tag(1), tag(2), tag(2)]);
    // More than the document itself is asked for anew.
    let conflicts = GetOptions { conflicts: true, ..GetOptions::default() };
    db.get_with("a", &conflicts).await.unwrap();
    assert_eq!(fake.requests()[5].header("if-none-match"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn couchdb_1_6_will_do() {
    let fake = Fake::start(old).await;
    let (remote, db) = couch(&fake);
    assert_eq!(remote.version().await.unwrap().to_string(), "1.6.1");
    let info = db.info().await.unwrap();
    assert_eq!((info.update_seq, info.purge_seq), (Seq::Number(7), Seq::Number(0)));
    assert_eq!((info.sizes.file, info.sizes.active), (8301, 4212));

    let items = ["a", "b"].map(|id| BulkGetItem {
        id: id.into(),
        rev: Some(rev(if id == "a" { "1-a" } else { "2-b" })),
        atts_since: vec![],
    });
    for _ in 0..2 {
        let results = db.adapter().bulk_get(items.to_vec(), &GetOptions::default()).await.unwrap();
        let results: Vec<_> = results.try_collect().await.unwrap();
        assert!(
            matches!(&results[0].1[0], RevResult::Found(doc) if doc.get("n") == Some(1.into()))
        );
        assert!(matches!(&results[1].1[0], RevResult::Missing(of) if of.error.is_not_found()));
    }
    // That it is missing was learnt once.
    let asked = fake.lines().iter().filter(|line| line.contains("_bulk_get")).count();
    assert_eq!(asked, 1);

    let designs = db.design_docs().fetch().await.unwrap();
    assert_eq!(designs.rows[0].id, "_design/a");
    let error = db.local_docs().fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotImplemented);
    db.commit().await.unwrap();

    let changes = db.changes().fetch().await.unwrap();
    assert_eq!((changes.last_seq, changes.pending), (Seq::Number(7), 0));
    assert!(changes.changes[1].deleted);
    let now = db.changes().since_now().fetch().await.unwrap();
    assert_eq!((now.last_seq, now.changes.len()), (Seq::Number(7), 0));

    assert_eq!(remote.config_value("log", "level").await.unwrap(), "info");
    let stats = remote.stats(Some("couchdb/request_time")).await.unwrap();
    assert_eq!(stats["couchdb"]["request_time"]["current"], 1.5);
    assert_eq!(db.couch().all_dbs().await.unwrap(), ["_users", "a", "b"]);
    let replication = settee::remote::Replicate::new("db", "copy").create_target(true);
    assert_eq!(remote.replicate(&replication).await.unwrap()["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_words_are_understood() {
    let fake = Fake::start(|request| {
        let path = request.path.split('?').next().unwrap();
        match (request.method.as_str(), path) {
            // An old cluster's sequences, and sizes that are not there.
            ("GET", "/db") => json(
                200,
                r#"{"doc_count":1,"update_seq":[3,"g1AAA"],"purge_seq":"0-g1AAA","other":{}}"#,
            ),
            // Rows before what is said of them; pretty, and with members that nobody knows.
            ("GET", "/db/_all_docs") => json(
                200,
                "\u{20}{ \"warning\" : {\"rows\":[]}, \"rows\" : [ \n { \"doc\" : null, \"key\" : \"a\" , \
                 \"id\" : \"a\", \"value\" : { \"rev\" : \"1-a\", \"x\" : [1, {}] } } \n ] , \"total_rows\":1 }",
            ),
            ("POST", "/db/_all_docs") => json(
                200,
                r#"{"total_rows":1,"offset":null,"update_seq":null,"rows":[{"key":"x","error":"not_found"},
                {"id":"y","key":"y","value":{"rev":"2-y","deleted":true},"doc":null}]}"#,
            ),
            ("GET", "/db/_changes") => json(
                200,
                r#"{"results":[{"seq":[4,"h"],"id":"a","changes":[{"rev":"1-a"}]}],"last_seq":[4,"h"],
                "pending":0}"#,
            ),
            ("POST", "/db/_bulk_get") => json(
                200,
                r#"{"results":[{"id":"b","docs":[{"error":{"id":"b","rev":"undefined",
                "error":"not_found","reason":"missing"}}]},{"id":"a","docs":[{"ok":{"_id":"a",
                "_rev":"1-a"}}]},{"id":"a","docs":[{"ok":{"_id":"a","_rev":"1-b"}}]}]}"#,
            ),
            ("POST", "/db/_purge") => json(202, r#"{"purge_seq":null,"purged":{"a":["1-a"]}}"#),
            ("POST", "/db/_bulk_docs") => json(
                202,
                r#"[{"id":"b","rev":"1-b","accepted":true},{"error":"forbidden","id":"c","reason":"no"}]"#,
            ),
            ("PUT", "/db/a") => json(202, r#"{"ok":true,"rev":"1-a"}"#),
            ("GET", "/db/_security") => json(200, "{}"),
            ("GET", "/_db_updates") => json(
                200,
                r#"{"results":[{"db_name":"db","type":"created","seq":"5-abc"}],"last_seq":"5-abc"}"#,
            ),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let (remote, db) = couch(&fake);
    let info = db.info().await.unwrap();
    assert_eq!(info.update_seq, Seq::Opaque(r#"[3,"g1AAA"]"#.into()));
    assert_eq!((info.db_name.as_str(), info.doc_del_count), ("db", 0));
    let all = db.all_docs().fetch().await.unwrap();
    assert_eq!((all.rows.len(), &all.rows[0].id), (1, &"a".to_owned()));
    let some = db.all_docs().keys(["x", "y"]).include_docs().fetch().await.unwrap();
    assert_eq!((some.rows[0].rev.clone(), some.rows[1].deleted), (None, true));
    let changes = db.changes().fetch().await.unwrap();
    db.changes().since(changes.last_seq).fetch().await.unwrap();
    assert!(fake.lines().last().unwrap().contains("since=%5B4%2C%22h%22%5D"));

    let items = ["a", "b"].map(|id| BulkGetItem { id: id.into(), rev: None, atts_since: vec![] });
    let results = db.adapter().bulk_get(items.to_vec(), &GetOptions::default()).await.unwrap();
    let results: Vec<_> = results.try_collect().await.unwrap();
    assert_eq!((results[0].0.as_str(), results[0].1.len()), ("a", 2));
    assert!(
        matches!(&results[1].1[..], [RevResult::Missing(of)] if of.rev == Some(rev("0-undefined"))
        || of.rev.is_none())
    );

    let purged = db.adapter().purge(&[("a".into(), vec![rev("1-a")])].into()).await.unwrap();
    assert_eq!(purged.purge_seq, None);
    let docs = ["b", "c"].map(Document::with_id);
    let written = db.bulk_docs(docs, true).await.unwrap();
    assert_eq!(written[0].as_ref().unwrap().rev.id, RevId::Text("b".into()));
    assert_eq!(written[1].as_ref().unwrap_err().error.kind(), ErrorKind::Forbidden);
    assert_eq!(db.put(Document::with_id("a")).await.unwrap().id, "a");
    assert!(db.security().await.unwrap().admins.names.is_empty());
    let updates = remote.db_updates(Some(Seq::default()), false).await.unwrap();
    let updates: Vec<_> = updates.try_collect().await.unwrap();
    assert_eq!(updates[0].kind, DbUpdateKind::Created);
    // The server's own word for it comes back to it.
    let _ = remote.db_updates(Some(updates[0].seq.clone()), false).await.unwrap();
    assert!(fake.lines().last().unwrap().contains("since=5-abc"));
}
