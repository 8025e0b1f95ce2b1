//! What nobody should send: the server says no, in time, and goes on.

use crate::client::Connection;
use crate::{Site, assert_error, put};
use std::time::Duration;

async fn still_answers(site: &Site) {
    assert_eq!(site.anyone().get("/_up").send().await.status, 200);
}

#[tokio::test]
async fn depth_bombs_are_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(root.put("/db/x").json(&deep(100)).send().await.status, 201);
    for depth in [1000, 100_000, 1_000_000] {
        let reply = root.put("/db/y").json(&deep(depth)).send().await;
        assert_eq!(reply.status, 400, "{depth}");
        let reply = root.post("/db/_revs_diff").json(&deep(depth)).send().await;
        assert_eq!(reply.status, 400);
        let reply = root.put("/db/_security").json(&deep(depth)).send().await;
        assert_eq!(reply.status, 400);
        let unclosed = "[".repeat(depth);
        let reply = root.post("/db/_bulk_docs").json(&unclosed).send().await;
        assert_eq!(reply.status, 400);
    }
    still_answers(&site).await;
}

#[tokio::test]
async fn truncated_and_foreign_bodies_are_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let good = r#"{"docs":[{"_id":"a","t":"é\u00e9","n":-1.5e3}]}"#;
    for end in 0..good.len() {
        let reply = root.post("/db/_bulk_docs").json("").body(&good.as_bytes()[..end]).send().await;
        assert_eq!(reply.status, 400, "{end}");
    }
    for body in [&b"{\"a\":\"\xff\"}"[..], b"\xef\xbb\xbf{}", b"{\"a\":01}", b"{} {}", b"\0"] {
        let reply = root.put("/db/x").header("content-type", "application/json").body(body);
        assert_eq!(reply.send().await.status, 400, "{body:?}");
    }
}

#[tokio::test]
async fn large_documents_and_requests_are_refused() {
    let settings =
        [("couchdb", "max_document_size", "1000"), ("chttpd", "max_http_request_size", "5000")];
    let site = Site::with(&settings).await;
    let root = site.with_db().await;
    let doc = |size: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(size));
    assert_eq!(root.put("/db/x").json(&doc(900)).send().await.status, 201);
    let reply = root.put("/db/big").json(&doc(1100)).send().await;
    assert_eq!((reply.status, reply.value()["error"].as_str()), (413, Some("document_too_large")));
    let reason = "the request entity is too large";
    let reply = root.put("/db/big").json(&doc(6000)).send().await;
    assert_error(&reply, 413, "too_large", reason);
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", doc(6000).len(), doc(6000));
    let reply =
        root.put("/db/big").header("transfer-encoding", "chunked").json(&chunked).send().await;
    assert_error(&reply, 413, "too_large", reason);
    let reply = root.put("/db/big").header("content-length", "99999999999").json("").send().await;
    assert_error(&reply, 413, "too_large", reason);
}

#[tokio::test]
async fn compressed_bombs_are_refused() {
    let site = Site::with(&[("chttpd", "max_http_request_size", "100000")]).await;
    let root = site.with_db().await;
    let zip = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, content).unwrap();
        encoder.finish().unwrap()
    };
    let put = async |body: Vec<u8>| {
        let request = root.put("/db/x").header("content-encoding", "gzip").json("");
        request.body(body).send().await
    };
    assert_eq!(put(zip(&vec![b' '; 50_000_000])).await.status, 413);
    let reply = put(b"no gzip".to_vec()).await;
    assert_error(&reply, 400, "bad_request", "Request body is not properly gzipped.");
    assert_eq!(put(zip(b"{}")).await.status, 201);
    let reply = root.put("/db/y").header("content-encoding", "br").json("{}").send().await;
    assert_error(&reply, 415, "bad_content_type", "br is not a supported content encoding.");
}

#[tokio::test]
async fn what_anybody_may_send_is_short() {
    let site = Site::start().await;
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(100_000));
    let reply = site.anyone().post("/_session").json(&body).send().await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn bodies_in_memory_have_a_common_bound() {
    let site = Site::with(&[("settee", "max_buffered_bytes", "100000")]).await;
    let root = site.with_db().await;
    let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000));
    let reply = root.put("/db/x").json(&body).send().await;
    assert_eq!(reply.status, 503);
    // What was held has been let go.
    for n in 0..10 {
        let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(50_000));
        put(&root, &format!("/db/{n}"), &body).await;
    }
}

#[tokio::test]
async fn values_count_for_what_they_take_in_memory() {
    let site = Site::with(&[("settee", "max_buffered_bytes", "1000000")]).await;
    let root = site.with_db().await;
    let keys = |count: usize| format!(r#"{{"keys":[{}null]}}"#, "[],".repeat(count));
    let reply = root.post("/db/_all_docs").json(&keys(20_000)).send().await;
    assert_eq!(reply.status, 503);
    let reply = root.post("/db/_all_docs").json(&keys(200)).send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn long_addresses_headers_and_ids_are_refused() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.get(&format!("/db/{}", "x".repeat(8000))).send().await;
    assert_error(&reply, 414, "too_long", "the request uri is too long");
    let reply = root.get("/").header("x-long", &"x".repeat(300_000)).send().await;
    assert_eq!(reply.status, 431);
    let mut request = root.get("/");
    for n in 0..200 {
        request = request.header(&format!("x-{n}"), "1");
    }
    assert_eq!(request.send().await.status, 431);
    let body = format!(r#"{{"_id":"{}"}}"#, "x".repeat(10_000));
    let reply = root.post("/db").json(&body).send().await;
    assert_error(&reply, 400, "illegal_docid", "Document id is too long");
    still_answers(&site).await;
}

#[tokio::test]
async fn what_is_no_http_gets_no_further() {
    let site = Site::start().await;
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ] {
        let mut connection = Connection::send(site.address, bytes).await;
        connection.write(b"\r\n\r\n").await;
        assert!(connection.ends_within(Duration::from_secs(5)).await, "{bytes:?}");
    }
    still_answers(&site).await;
}

#[tokio::test]
async fn addresses_are_taken_as_people_type_them() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/a", "{}").await;
    put(&root, "/db/<`é\">", "{}").await;
    let reply = root.value(r#"/db/_all_docs?startkey="a"&endkey="z"&x=<>é"#).await;
    assert_eq!(reply["rows"].as_array().unwrap().len(), 1);
    assert_eq!(root.get("/db/%3C%60%C3%A9%22%3E").send().await.status, 200);
    // One connection, several requests, a body that looks like one.
    let body = r#"{"a":"GET /\"x\" HTTP/1.1"}"#;
    let code = "cm9vdDpzZWNyZXQ=";
    let text = format!(
        "PUT /db/\"1\" HTTP/1.1\r\nhost: x\r\nauthorization: Basic {code}\r\n\
         content-length: {}\r\n\r\n{body}\
         GET /db/\"1\" HTTP/1.1\r\nhost: x\r\nauthorization: Basic {code}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let mut connection = Connection::send(site.address, text.as_bytes()).await;
    let read = connection.wait_for(r#"GET /\"x\" HTTP/1.1"#).await;
    assert!(read.contains("HTTP/1.1 201") && read.contains("HTTP/1.1 200"), "{read}");
    let reply = root.get("/db/\u{7f}").send().await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn slow_headers_and_bodies_run_out_of_time() {
    let settings = [("settee", "header_timeout", "300"), ("settee", "body_timeout", "300")];
    let site = Site::with(&settings).await;
    site.with_db().await;
    site.publish("db").await;
    let mut slow = Connection::send(site.address, b"GET / HTTP/1.1\r\nhost: ").await;
    assert!(slow.ends_within(Duration::from_secs(5)).await, "headers");
    let head = b"PUT /db/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let mut slow = Connection::send(site.address, head).await;
    slow.wait_for("The request body did not arrive in time.").await;
    let head = b"PUT /db/x/att HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx";
    let mut slow = Connection::send(site.address, head).await;
    slow.wait_for("The request body did not arrive in time.").await;
    assert_eq!(site.root().get("/db/x").send().await.status, 404);
}

#[tokio::test]
async fn refusals_reach_clients_that_are_still_sending() {
    let site = Site::start().await;
    site.with_db().await;
    let body = "x".repeat(500_000);
    let reply = site.anyone().put("/db/x").json(&body).send().await;
    assert_eq!(reply.status, 401);
    let reply = site.anyone().put("/db/x/att").body(&body).send().await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_is_asked_only_if_it_is_wanted() {
    let site = Site::start().await;
    site.with_db().await;
    let head =
        b"PUT /db/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let mut refused = Connection::send(site.address, head).await;
    let text = refused.wait_for("unauthorized").await;
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");
    site.publish("db").await;
    let mut wanted = Connection::send(site.address, head).await;
    wanted.wait_for("HTTP/1.1 100").await;
    wanted.write(b"{}").await;
    wanted.wait_for("HTTP/1.1 201").await;
}

#[tokio::test]
async fn paths_lead_nowhere_else() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for path in
        ["/../etc/passwd", "/db/../../x", "/%2e%2e/%2e%2e", "//etc/passwd", "/..%2f..%2fetc"]
    {
        let reply = root.get(path).send().await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
    }
    // Empty segments do not count, as in CouchDB.
    put(&root, "//db///x", "{}").await;
    assert_eq!(root.get("/db/x").send().await.status, 200);
}

#[tokio::test]
async fn header_values_cannot_be_smuggled_in() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let name = "a%0D%0Ax-evil%3A%201.txt";
    let reply = root.put(&format!("/db/x/{name}")).body("1").send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.header("x-evil"), None);
    let reply =
        root.get("/db/x?attachments=true").header("accept", "multipart/related").send().await;
    assert!(!reply.text().contains("\r\nx-evil"), "{}", reply.text());
    let doc = r#"{"_attachments":{"b":{"content_type":"text/plain\r\nx-evil: 1","data":""}}}"#;
    put(&root, "/db/y", doc).await;
    let reply = root.get("/db/y/b").send().await;
    assert_eq!((reply.status, reply.header("x-evil")), (200, None));
}

#[tokio::test]
async fn members_that_come_twice_are_read_once() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let twice = r#"{"members":{"roles":["a"]},"members":{"roles":["b"]}}"#;
    root.put("/db/_security").json(twice).send().await;
    let kept = root.value("/db/_security").await;
    assert_eq!(kept["members"]["roles"], serde_json::json!(["b"]));
}
