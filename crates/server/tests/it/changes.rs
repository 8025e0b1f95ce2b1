//! Feeds of changes.

use crate::{Site, assert_error, put};
use serde_json::json as value;
use std::time::Duration;

#[tokio::test]
async fn changes_are_listed_in_order() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.get("/db/_changes").send().await;
    assert_eq!(reply.text(), "{\"results\":[\n\n],\n\"last_seq\":0,\"pending\":0}\n");
    let a = put(&root, "/db/a", "{}").await;
    let b = put(&root, "/db/b", r#"{"n":1}"#).await;
    root.delete(&format!("/db/a?rev={a}")).send().await;
    let reply = root.get("/db/_changes").send().await;
    let feed = reply.value();
    assert_eq!(feed["results"][0], value!({"seq": 2, "id": "b", "changes": [{"rev": b}]}));
    assert_eq!(feed["results"][1]["deleted"], true);
    assert_eq!((&feed["last_seq"], &feed["pending"]), (&value!(3), &value!(0)));
    assert!(reply.text().contains("},\r\n{"), "{}", reply.text());

    let tag = reply.header("etag").unwrap();
    assert_eq!(root.get("/db/_changes").header("if-none-match", tag).send().await.status, 304);
    put(&root, "/db/c", "{}").await;
    let changed = root.get("/db/_changes").header("if-none-match", tag).send().await;
    assert_eq!(changed.status, 200);

    let ids = async |query: &str| {
        let rows = root.value(&format!("/db/_changes?{query}")).await["results"].clone();
        let ids = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("since=2").await, "a c");
    assert_eq!(ids("since=now").await, "");
    assert_eq!(ids("limit=1").await, "b");
    assert_eq!(ids("limit=0").await, "");
    assert_eq!(ids("descending=true").await, "c a b");
    let limited = root.value("/db/_changes?limit=1").await;
    assert_eq!((&limited["last_seq"], &limited["pending"]), (&value!(2), &value!(2)));
    let none = root.value("/db/_changes?limit=0").await;
    assert_eq!((&none["last_seq"], &none["pending"]), (&value!(0), &value!(3)));
    let newest = root.value("/db/_changes?descending=true&limit=1").await;
    assert_eq!((&newest["last_seq"], &newest["pending"]), (&value!(4), &value!(2)));
    assert_eq!(root.value("/db/_changes?descending=true&since=2").await["last_seq"], 2);
    let with = root.value("/db/_changes?include_docs=true&limit=1").await;
    assert_eq!(with["results"][0]["doc"]["n"], 1);
    let rare = root.value("/db/_changes?seq_interval=2").await;
    assert_eq!(
        (&rare["results"][0]["seq"], &rare["results"][1]["seq"]),
        (&value!(2), &value!(null))
    );
}

#[tokio::test]
async fn leaves_are_listed_in_the_style_of_all_docs() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let body =
        r#"{"new_edits":false,"docs":[{"_id":"a","_rev":"1-abc"},{"_id":"a","_rev":"1-def"}]}"#;
    root.post("/db/_bulk_docs").json(body).send().await;
    let revs = async |query: &str| {
        let feed = root.value(&format!("/db/_changes?{query}")).await;
        feed["results"][0]["changes"].as_array().unwrap().len()
    };
    assert_eq!(revs("style=main_only").await, 1);
    assert_eq!(revs("style=all_docs").await, 2);
    let feed = root.value("/db/_changes?include_docs=true&conflicts=true&revs=true").await;
    assert_eq!(feed["results"][0]["doc"]["_conflicts"], value!(["1-abc"]));
    assert_eq!(feed["results"][0]["doc"]["_revisions"]["start"], 1);
}

#[tokio::test]
async fn changes_are_filtered() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for id in ["a", "b", "_design/d"] {
        put(&root, &format!("/db/{id}"), r#"{"filters":{"f":"x"}}"#).await;
    }
    let count = |reply: crate::Reply| reply.value()["results"].as_array().unwrap().len();
    let reply = root.post("/db/_changes?filter=_doc_ids").json(r#"{"doc_ids":["a","z"]}"#);
    assert_eq!(count(reply.send().await), 1);
    let reply = root.get("/db/_changes?filter=_doc_ids&doc_ids=[%22b%22]").send().await;
    assert_eq!(count(reply), 1);
    assert_eq!(count(root.get("/db/_changes?filter=_design").send().await), 1);
    let reply = root.post("/db/_changes?filter=_selector");
    assert_eq!(count(reply.json(r#"{"selector":{"_id":"b"}}"#).send().await), 1);
    let reply = root.post("/db/_changes?filter=_selector");
    assert_eq!(reply.json(r#"{"selector":{"$nope":1}}"#).send().await.status, 400);
    assert_eq!(count(root.post("/db/_changes").json("{}").send().await), 3);
    assert_eq!(count(root.post("/db/_changes").json("").send().await), 3);
    assert_eq!(root.post("/db/_changes").body("{}").send().await.status, 415);
    for (query, status, error, reason) in [
        ("_nope", 400, "bad_request", "unknown builtin filter name"),
        ("x", 400, "bad_request", "`filter` must be of the form `designname/filtername`"),
        ("none/f", 404, "not_found", "missing"),
        ("d/none", 404, "not_found", "missing json key: none"),
        ("_view&view=d/none", 404, "not_found", "missing json key: views"),
        ("_view", 400, "bad_request", "`view` filter parameter is not provided."),
        ("_selector", 400, "bad_request", "Selector must be specified in POST payload"),
        ("_doc_ids", 400, "bad_request", "`doc_ids` filter parameter is not a list of doc ids."),
    ] {
        let reply = root.get(&format!("/db/_changes?filter={query}")).send().await;
        assert_error(&reply, status, error, reason);
    }
    for body in ["{}", r#"{"selector":1}"#] {
        let reply = root.post("/db/_changes?filter=_selector").json(body).send().await;
        assert_error(&reply, 400, "bad_request", "Selector error: expected a JSON object");
    }
}

#[tokio::test]
async fn functions_of_design_documents_filter_changes() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let design = value!({
        "filters": {
            "of": "function(doc, req) { return doc.n === +req.query.n && req.method === 'GET' && \
                req.path[1] === '_changes' && req.userCtx.roles[0] === '_admin'; }",
            "body": "function(doc, req) { return doc.n === JSON.parse(req.body).n; }",
            "throws": "function(doc, req) { throw({forbidden: 'no'}); }",
        },
        "views": {"big": {"map": "function(doc) { if (doc.n > 5) emit(doc.n); }"}},
    });
    put(&root, "/db/_design/d", &design.to_string()).await;
    for n in 0..10 {
        put(&root, &format!("/db/{n}"), &format!("{{\"n\":{n}}}")).await;
    }
    let ids = |reply: crate::Reply| {
        let rows = reply.value()["results"].as_array().unwrap().clone();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    let get =
        async |query: &str| ids(root.get(&format!("/db/_changes?filter={query}")).send().await);
    assert_eq!(get("d/of&n=3").await, "3");
    assert_eq!(get("d/of").await, "");
    assert_eq!(get("d/throws").await, "");
    assert_eq!(get("_view&view=d/big").await, "6789");
    assert_eq!(get("_view&view=d/big&limit=2").await, "67");
    assert_eq!(get("_view&view=d/big&descending=true&limit=2").await, "98");
    let reply = root.post("/db/_changes?filter=d/body").json(r#"{"n":4}"#).send().await;
    assert_eq!(ids(reply), "4");
    let reply = root.get("/db/_changes?filter=_view&view=d/big&include_docs=true").send().await;
    assert_eq!(reply.value()["results"][0]["doc"]["n"], 6);
    let reply = root.get("/db/_changes?filter=_view&view=d/none").send().await;
    assert_error(&reply, 404, "not_found", "missing json key: none");
    let reply = root.get("/db/_changes?filter=d/of&n=3&feed=continuous&timeout=1").send().await;
    assert!(reply.text().starts_with(r#"{"seq":5,"id":"3""#), "{reply:?}");
}

#[tokio::test]
async fn bad_parameters_have_couchdbs_words() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for (query, reason) in [
        ("feed=x", "Supported `feed` types: normal, continuous, live, longpoll, eventsource"),
        ("limit=x", "The limit parameter should be a non-negative integer"),
        ("limit=-1", "The limit value should be a non-negative integer"),
        ("heartbeat=0", "The heartbeat value should be a positive integer (in milliseconds)."),
        (
            "heartbeat=x",
            "Invalid heartbeat value. Expecting a positive integer value (in milliseconds).",
        ),
        ("timeout=x", "The timeout parameter should be a non-negative integer"),
        ("seq_interval=0", "invalid_seq_interval"),
    ] {
        let reply = root.get(&format!("/db/_changes?{query}")).send().await;
        assert_error(&reply, 400, "bad_request", reason);
    }
    assert_eq!(root.get("/db/_changes?since=nonsense").send().await.status, 400);
    assert_eq!(root.get("/nodb/_changes").send().await.status, 404);
    assert_eq!(root.get("/nodb/_changes?feed=continuous").send().await.status, 404);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_change() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/a", "{}").await;
    let reply = root.get("/db/_changes?feed=longpoll").send().await;
    assert_eq!(reply.value()["results"][0]["id"], "a");

    let mut poll = root.get("/db/_changes?feed=longpoll&since=now").open().await;
    poll.wait_for("{\"results\":[\n").await;
    put(&root, "/db/b", "{}").await;
    let reply = poll.read_to_end().await;
    assert_eq!(reply.value()["results"][0]["id"], "b");
    assert_eq!(reply.value()["last_seq"], 2);

    let reply = root.get("/db/_changes?feed=longpoll&since=2&timeout=50").send().await;
    assert_eq!(reply.value(), value!({"results": [], "last_seq": 2, "pending": 0}));
    let reply = root.get("/db/_changes?feed=longpoll&since=2&timeout=0").send().await;
    assert_eq!(reply.value()["last_seq"], 2);
}

#[tokio::test]
async fn a_continuous_feed_goes_on_until_it_has_waited_long_enough() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/a", "{}").await;
    let path = "/db/_changes?feed=continuous&include_docs=true&style=all_docs&timeout=700";
    let mut feed = root.get(path).open().await;
    feed.wait_for("\"id\":\"a\"").await;
    put(&root, "/db/b", "{}").await;
    feed.wait_for("\"id\":\"b\"").await;
    let reply = feed.read_to_end().await;
    let text = reply.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[2], r#"{"last_seq":2,"pending":0}"#);
    let reply = root.get("/db/_changes?feed=continuous&limit=1").send().await;
    assert!(reply.text().ends_with("{\"last_seq\":1,\"pending\":1}\n"), "{}", reply.text());
}

#[tokio::test]
async fn feeds_show_that_they_are_alive() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for kind in ["continuous", "live", "longpoll"] {
        let path = format!("/db/_changes?feed={kind}&heartbeat=100");
        let mut feed = root.get(&path).open().await;
        feed.wait_for("1\r\n\n\r\n1\r\n\n\r\n").await;
    }
    let mut feed = root.get("/db/_changes?feed=eventsource&heartbeat=100").open().await;
    let head = feed.wait_for("event: heartbeat\ndata: \n\n").await;
    assert!(head.contains("content-type: text/event-stream") && head.contains("no-cache"));
    put(&root, "/db/a", "{}").await;
    feed.wait_for("data: {\"seq\":1,").await;
    feed.wait_for("\nid: 1\n\n").await;
    put(&root, "/db/b", "{}").await;
    let path = "/db/_changes?feed=eventsource&since=0&timeout=100";
    let reply = root.get(path).header("last-event-id", "1").send().await;
    assert!(reply.text().contains("\"b\"") && !reply.text().contains("\"a\""), "{}", reply.text());
}

#[tokio::test]
async fn open_feeds_are_counted_and_forgotten_when_the_reader_goes() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let path = "/_node/_local/_stats/couchdb/httpd/clients_requesting_changes/value";
    let mut feed = root.get("/db/_changes?feed=continuous&heartbeat=60000").open().await;
    feed.wait_for("200 OK").await;
    assert_eq!(root.value(path).await, 1);
    drop(feed);
    for _ in 0..100 {
        if root.value(path).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the feed was not forgotten");
}
