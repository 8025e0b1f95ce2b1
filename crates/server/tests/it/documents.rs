//! Documents, design and local ones too.

use crate::{Site, assert_error, json, put};
use serde_json::json as value;

/// The revision CouchDB gives this document.
const FOO_BAR: &str = "1-4c6114c65e295552ab1019e2b046b10e";

#[tokio::test]
async fn a_document_is_written_read_and_deleted() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/x").json(r#"{"foo":"bar"}"#).send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.value(), value!({"ok": true, "id": "x", "rev": FOO_BAR}));
    assert_eq!(reply.header("etag"), Some(&*format!("\"{FOO_BAR}\"")));
    assert_eq!(reply.header("location"), Some("http://test/db/x"));

    let reply = root.get("/db/x").send().await;
    assert_eq!(reply.text(), format!("{{\"_id\":\"x\",\"_rev\":\"{FOO_BAR}\",\"foo\":\"bar\"}}\n"));
    assert_eq!(reply.header("etag"), Some(&*format!("\"{FOO_BAR}\"")));
    for tag in [format!("\"{FOO_BAR}\""), format!("\"x\", W/\"{FOO_BAR}\"")] {
        let reply = root.get("/db/x").header("if-none-match", &tag).send().await;
        assert_eq!((reply.status, reply.body.len()), (304, 0));
        assert!(reply.header("etag").is_some());
    }
    let head = root.head("/db/x").send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));

    let reply = root.put("/db/x").json("{}").send().await;
    assert_error(&reply, 409, "conflict", "Document update conflict.");
    let rev = put(&root, &format!("/db/x?rev={FOO_BAR}"), "{}").await;
    assert!(rev.starts_with("2-"));

    let reply = root.delete("/db/x").send().await;
    assert_error(&reply, 409, "conflict", "Document update conflict.");
    let reply = root.delete(&format!("/db/x?rev={FOO_BAR}")).send().await;
    assert_error(&reply, 409, "conflict", "Document update conflict.");
    let reply = root.delete(&format!("/db/x?rev={rev}")).send().await;
    assert_eq!((reply.status, reply.value()["ok"].as_bool()), (200, Some(true)));
    assert_error(&root.get("/db/x").send().await, 404, "not_found", "deleted");
    let tombstone = reply.value()["rev"].as_str().unwrap().to_owned();
    let again = root.delete(&format!("/db/x?rev={tombstone}")).send().await;
    assert_error(&again, 404, "not_found", "deleted");
    assert_error(&root.delete("/db/x?rev=1-abc").send().await, 404, "not_found", "deleted");
    assert_error(&root.delete("/db/none").send().await, 404, "not_found", "missing");
    assert_error(&root.delete("/db/none?rev=1-abc").send().await, 404, "not_found", "missing");
    assert_error(&root.get("/db/none").send().await, 404, "not_found", "missing");
    assert_error(&root.get("/nodb/x").send().await, 404, "not_found", "Database does not exist.");
}

#[tokio::test]
async fn revisions_of_body_query_and_header_must_agree() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/x", "{}").await;
    let with_body = format!(r#"{{"_rev":"{rev}"}}"#);
    let reply = root.put("/db/x?rev=1-abc").json(&with_body).send().await;
    let reason = "Document rev from request body and query string have different values";
    assert_error(&reply, 400, "bad_request", reason);
    let different = "Document rev and etag have different values";
    let reply = root.put("/db/x").header("if-match", "1-abc").json(&with_body).send().await;
    assert_error(&reply, 400, "bad_request", different);
    let path = format!("/db/x?rev={rev}");
    let reply = root.put(&path).header("if-match", "\"1-abc\"").json("{}").send().await;
    assert_error(&reply, 400, "bad_request", different);
    let reply = root.put("/db/x?rev=nonsense").json("{}").send().await;
    assert_error(&reply, 400, "bad_request", "Invalid rev format");
    let tag = format!("\"{rev}\"");
    let reply = root.put("/db/x").header("if-match", &tag).json("{}").send().await;
    assert_eq!(reply.status, 201);
    let tag = reply.header("etag").unwrap();
    assert_eq!(root.delete("/db/x").header("if-match", tag).send().await.status, 200);
}

#[tokio::test]
async fn posting_makes_an_id() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.post("/db").json("{}").send().await;
    assert_eq!(reply.status, 201);
    let id = reply.value()["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(reply.header("location"), Some(&*format!("http://test/db/{id}")));
    let reply = root.post("/db").json(r#"{"_id":"mine"}"#).send().await;
    assert_eq!(reply.value()["id"], "mine");
    let reply = root.post("/db").body("{}").send().await;
    assert_error(&reply, 415, "bad_content_type", "Content-Type must be application/json");
    let reply = root.post("/db").json(r#"{"_id":"mine"}"#).send().await;
    assert_eq!(reply.status, 409);
    let reply =
        root.post("/db").header("content-type", "application/json; charset=utf-8").body("{}");
    assert_eq!(reply.send().await.status, 201);
}

#[tokio::test]
async fn batches_are_accepted() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/x?batch=ok").json("{}").send().await;
    assert_eq!((reply.status, reply.value()), (202, value!({"ok": true, "id": "x"})));
    let reply = root.post("/db?batch=ok").json(r#"{"_id":"y"}"#).send().await;
    assert_eq!((reply.status, reply.value()), (202, value!({"ok": true, "id": "y"})));
    assert_eq!(root.get("/db/y").send().await.status, 200);
}

#[tokio::test]
async fn ids_may_have_anything_in_them() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for (path, id) in [
        ("a%2Fb", "a/b"),
        ("%C3%A4%20%3F%26%23", "ä ?&#"),
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("%25", "%"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("%22%5C", "\"\\"),
    ] {
        let rev = put(&root, &format!("/db/{path}"), "{}").await;
        let doc = root.value(&format!("/db/{path}")).await;
        assert_eq!(doc, value!({"_id": id, "_rev": rev}));
    }
    let reply = root.put("/db/_x").json("{}").send().await;
    let reason = "Only reserved document ids may start with underscore.";
    assert_error(&reply, 400, "illegal_docid", reason);
    let reply = root.get("/db/%FF").send().await;
    assert_error(&reply, 400, "illegal_docid", "Document id must be valid UTF-8");
    for path in ["/db/x%2", "/db/%zz", "/db%"] {
        let reply = root.get(path).send().await;
        assert_error(&reply, 400, "bad_request", "invalid_url_encoding");
    }
}

#[tokio::test]
async fn bodies_must_be_documents() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for (body, error, reason) in [
        ("", "bad_request", "invalid UTF-8 JSON"),
        ("{", "bad_request", "invalid UTF-8 JSON"),
        ("[]", "bad_request", "Document must be a JSON object"),
        (r#"{"_x":1}"#, "doc_validation", "Bad special document member: _x"),
        (r#"{"_rev":"x"}"#, "bad_request", "Invalid rev format"),
    ] {
        let reply = root.put("/db/x").json(body).send().await;
        assert_error(&reply, 400, error, reason);
    }
}

#[tokio::test]
async fn reads_add_what_is_asked_for() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let first = put(&root, "/db/x", "{}").await;
    let second = put(&root, &format!("/db/x?rev={first}"), r#"{"n":2}"#).await;
    let other = r#"{"_id":"x","_rev":"2-00000000000000000000000000000000","n":3}"#;
    let body = format!(r#"{{"new_edits":false,"docs":[{other}]}}"#);
    root.post("/db/_bulk_docs").json(&body).send().await;

    let doc = root.value("/db/x?revs=true").await;
    assert_eq!(doc["_revisions"]["start"], 2);
    assert_eq!(doc["_revisions"]["ids"].as_array().unwrap().len(), 2);
    let reply = root.get("/db/x?meta=true").send().await;
    let doc = reply.value();
    assert_eq!(doc["_revs_info"][0], value!({"rev": second, "status": "available"}));
    assert_eq!(doc["_conflicts"][0], "2-00000000000000000000000000000000");
    assert_eq!(reply.header("etag"), None, "what is added may change");
    assert!(root.value("/db/x?local_seq=true").await["_local_seq"].is_u64());
    assert_eq!(root.value(&format!("/db/x?rev={first}")).await["_rev"], value!(first));
    let reply = root.get("/db/x?rev=1-abc").send().await;
    assert_error(&reply, 404, "not_found", "missing");

    let leaves = root.value("/db/x?open_revs=all").await;
    assert_eq!(leaves.as_array().unwrap().len(), 2);
    let path = format!("/db/x?open_revs=[%22{second}%22,%229-abc%22]");
    let leaves = root.value(&path).await;
    assert_eq!(leaves[0]["ok"]["n"], 2);
    assert_eq!(leaves[1], value!({"missing": "9-abc"}));
    let path = format!("/db/x?open_revs=[%22{first}%22]&latest=true");
    assert_eq!(root.value(&path).await[0]["ok"]["_rev"], value!(second));
    let reply = root.get("/db/none?open_revs=all").send().await;
    assert_error(&reply, 404, "not_found", "missing");
    for query in ["open_revs=x", "open_revs={}", "open_revs=[1]", "rev=x", "atts_since=1"] {
        assert_eq!(root.get(&format!("/db/x?{query}")).send().await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn revisions_can_be_written_as_they_are_elsewhere() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = "3-11111111111111111111111111111111";
    let body = format!(r#"{{"_rev":"{rev}"}}"#);
    let reply = root.put("/db/x?new_edits=false").json(&body).send().await;
    assert_eq!((reply.status, reply.value()["rev"].as_str()), (201, Some(rev)));
    let reply = root.put("/db/x?new_edits=false").json("{}").send().await;
    let reason = "When `new_edits: false`, the document needs `_rev` or `_revisions` specified";
    assert_error(&reply, 400, "bad_request", reason);
}

#[tokio::test]
async fn documents_are_copied_with_their_attachments() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let text = "some text that is long enough to be worth compressing ".repeat(50);
    put(&root, "/db/x", r#"{"n":1}"#).await;
    let rev = root.value("/db/x").await["_rev"].as_str().unwrap().to_owned();
    let path = format!("/db/x/a%2Fb.txt?rev={rev}");
    let reply = root.put(&path).header("content-type", "text/plain").body(&text).send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let copy = async |destination: &str| {
        root.request("COPY", "/db/x").header("destination", destination).send().await
    };
    let reply = copy("y%20z").await;
    assert_eq!((reply.status, reply.value()["id"].as_str()), (201, Some("y z")), "{reply:?}");
    assert!(reply.header("etag").is_some() && reply.header("location").is_some());
    assert_eq!(root.value("/db/y%20z").await["n"], 1);
    assert_eq!(root.get("/db/y%20z/a/b.txt").send().await.text(), text);
    assert_eq!(copy("y%20z").await.status, 409);
    let rev = reply.value()["rev"].as_str().unwrap().to_owned();
    assert_eq!(copy(&format!("y%20z?rev={rev}")).await.status, 201);
    let reply = root.request("COPY", "/db/x").send().await;
    assert_error(&reply, 400, "bad_request", "Destination header is mandatory for COPY.");
    let reply = copy("http://else/db/y").await;
    assert_error(&reply, 400, "bad_request", "Destination URL must be relative.");
    assert_eq!(copy("_x").await.status, 400);
    let reply = root.request("COPY", "/db/none").header("destination", "z").send().await;
    assert_error(&reply, 404, "not_found", "missing");
}

#[tokio::test]
async fn design_documents_have_their_own_paths() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/_design/d", r#"{"views":{}}"#).await;
    assert_eq!(root.value("/db/_design/d").await["_id"], "_design/d");
    let reply = root.get("/db/_design%2Fd?revs=true").send().await;
    assert_eq!(reply.status, 301);
    assert_eq!(reply.header("location"), Some("http://test/db/_design/d?revs=true"));
    let reply = root.put(&format!("/db/_design%2Fd?rev={rev}")).json("{}").send().await;
    assert_eq!(reply.status, 201);
    let rev = reply.value()["rev"].as_str().unwrap().to_owned();
    let path = format!("/db/_design/d/sub/file.txt?rev={rev}");
    let reply = root.put(&path).header("content-type", "text/plain").body("hi").send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(root.get("/db/_design/d/sub/file.txt").send().await.text(), "hi");
    assert_eq!(root.get("/db/_design/none/_view/v").send().await.status, 404);
}

#[tokio::test]
async fn local_documents_stay_out_of_everything() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.put("/db/_local/x").json(r#"{"n":1}"#).send().await;
    assert_eq!(reply.value(), json(r#"{"ok":true,"id":"_local/x","rev":"0-1"}"#));
    assert_eq!(
        root.value("/db/_local/x").await,
        value!({"_id": "_local/x", "_rev": "0-1", "n": 1})
    );
    assert_eq!(root.value("/db/_local%2Fx").await["n"], 1);
    let reply = root.put("/db/_local/x?rev=0-1").json("{}").send().await;
    assert_eq!(reply.value()["rev"], "0-2");
    assert_eq!(root.value("/db/_all_docs").await["total_rows"], 0);
    assert_eq!(root.value("/db/_local_docs").await["rows"][0]["id"], "_local/x");
    for method in ["GET", "PUT", "POST", "DELETE", "COPY"] {
        let reply = root.request(method, "/db/_local").send().await;
        assert_error(&reply, 400, "bad_request", "Invalid _local document id.");
        let reply = root.request(method, "/db/_local/x/att").send().await;
        let reason = "_local documents do not accept attachments.";
        assert_error(&reply, 400, "bad_request", reason);
    }
    let reply = root.request("COPY", "/db/_local/x").header("destination", "_local/y").send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(root.delete("/db/_local/x?rev=0-2").send().await.status, 200);
    let reply = root.delete("/db/_local/y").send().await;
    assert_eq!((reply.status, &reply.value()["rev"]), (200, &value!("0-0")), "without a revision");
    assert_error(&root.get("/db/_local/x").send().await, 404, "not_found", "missing");
}

#[tokio::test]
async fn methods_that_a_document_does_not_have_are_named() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let reply = root.request("PATCH", "/db/x").send().await;
    let reason = "Only DELETE,GET,HEAD,POST,PUT,COPY allowed";
    assert_error(&reply, 405, "method_not_allowed", reason);
    assert_eq!(reply.header("allow"), Some("DELETE,GET,HEAD,POST,PUT,COPY"));
    assert_eq!(root.request("BREW", "/db/x").send().await.status, 405);
}

#[tokio::test]
async fn forms_bring_files() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let rev = put(&root, "/db/x", r#"{"n":1}"#).await;
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"_rev\"\r\n\r\n{rev}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"_attachments\"; filename=\"f.txt\"\r\n\
         Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    );
    let post = || {
        let request = root.post("/db/x").header("content-type", "multipart/form-data; boundary=b");
        request.body(&form)
    };
    assert_error(&post().send().await, 400, "bad_request", "Referer header required.");
    let reply = post().header("referer", "http://evil/").send().await;
    assert_error(&reply, 400, "bad_request", "Referer header must match host.");
    let reply = post().header("referer", "http://test/page").send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(root.get("/db/x/f.txt").send().await.text(), "hello");
    assert_eq!(root.value("/db/x").await["n"], 1);
    let reply = root.post("/db/x").header("referer", "http://test/").json("{}").send().await;
    assert_error(&reply, 415, "bad_content_type", "Content-Type must be multipart/form-data");
}
