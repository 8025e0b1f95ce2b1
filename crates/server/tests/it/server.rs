//! `/`, `/_up`, `/_all_dbs`, `/_uuids` and what else belongs to the server as a whole.

use crate::client::Connection;
use crate::{Site, assert_error, json, put};
use serde_json::json as value;

#[tokio::test]
async fn the_welcome_says_who_answers() {
    let site = Site::start().await;
    let reply = site.anyone().get("/").send().await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().ends_with("}\n"));
    assert!(reply.header("server").unwrap().starts_with("CouchDB/3.5"));
    assert_eq!(reply.header("cache-control"), Some("must-revalidate"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("x-couchdb-body-time"), Some("0"));
    assert!(reply.header("date").is_some());
    assert_eq!(reply.header("x-couch-request-id").unwrap().len(), 10);
    let body = reply.value();
    assert_eq!(body["couchdb"], "Welcome");
    for member in ["version", "git_sha", "uuid", "features", "vendor"] {
        assert!(!body[member].is_null(), "{member}");
    }
    let head = site.anyone().head("/").send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), reply.header("content-length"));
}

#[tokio::test]
async fn a_request_id_of_the_client_is_kept_if_it_is_one() {
    let site = Site::start().await;
    let id_for = async |id: &str| {
        let reply = site.anyone().get("/").header("x-couch-request-id", id).send().await;
        reply.header("x-couch-request-id").unwrap().to_owned()
    };
    assert_eq!(id_for("abc_DEF-123").await, "abc_DEF-123");
    assert_ne!(id_for("a b").await, "a b");
    assert_ne!(id_for(&"x".repeat(37)).await, "x".repeat(37));
}

#[tokio::test]
async fn up_answers_anyone_and_tells_of_maintenance() {
    let site = Site::start().await;
    let reply = site.anyone().get("/_up").send().await;
    assert_eq!((reply.status, reply.value()), (200, json(r#"{"status":"ok","seeds":{}}"#)));
    site.server.config();
    let path = "/_node/_local/_config/couchdb/maintenance_mode";
    assert_eq!(site.root().put(path).json("\"true\"").send().await.status, 200);
    let reply = site.anyone().get("/_up").send().await;
    assert_eq!((reply.status, reply.value()["status"].as_str()), (404, Some("maintenance_mode")));
}

#[tokio::test]
async fn databases_are_listed_in_order_for_admins() {
    let site = Site::start().await;
    let root = site.root();
    for name in ["b", "a", "c/d", "_users"] {
        let path = format!("/{}", name.replace('/', "%2F"));
        assert_eq!(root.put(&path).send().await.status, 201);
    }
    let list = async |query: &str| root.value(&format!("/_all_dbs{query}")).await;
    assert_eq!(list("").await, value!(["_users", "a", "b", "c/d"]));
    assert_eq!(list("?descending=true&limit=2").await, value!(["c/d", "b"]));
    assert_eq!(list("?startkey=%22a%22&endkey=%22b%22").await, value!(["a", "b"]));
    assert_eq!(list("?start_key=%22a%22&end_key=%22b%22&inclusive_end=false").await, value!(["a"]));
    assert_eq!(list("?skip=3").await, value!(["c/d"]));
    assert_error(
        &site.anyone().get("/_all_dbs").send().await,
        401,
        "unauthorized",
        "You are not a server admin.",
    );
    let reply = root.get("/_all_dbs").send().await;
    let etag = reply.header("etag").unwrap();
    assert_eq!(root.get("/_all_dbs").header("if-none-match", etag).send().await.status, 304);
    let reply = root.get("/_all_dbs?limit=-1").send().await;
    assert_error(&reply, 400, "query_parse_error", "Invalid value for positive integer: \"-1\"");
}

#[tokio::test]
async fn databases_are_described_many_at_once() {
    let site = Site::start().await;
    let root = site.root();
    assert_eq!(root.value("/_dbs_info").await, value!([]));
    for name in ["a", "b"] {
        root.put(&format!("/{name}")).send().await;
    }
    let infos = root.value("/_dbs_info").await;
    assert_eq!(infos[1]["key"], "b");
    assert_eq!(infos[1]["info"]["doc_count"], 0);
    let post = async |body: &str| root.post("/_dbs_info").json(body).send().await;
    let reply = post(r#"{"keys":["b","nope","Bad"]}"#).await.value();
    assert_eq!(reply[0]["info"]["db_name"], "b");
    assert_eq!(reply[1], value!({"key": "nope", "error": "not_found"}));
    assert_eq!(reply[2], value!({"key": "Bad", "error": "not_found"}));
    assert_error(&post("{}").await, 400, "bad_request", "`keys` member must exist.");
    let many = value!({"keys": vec!["a"; 101]}).to_string();
    assert_error(&post(&many).await, 400, "bad_request", "too_many_keys");
    let reply = root.post("/_dbs_info").body("{}").send().await;
    assert_error(&reply, 415, "bad_content_type", "Content-Type must be application/json");
}

#[tokio::test]
async fn uuids_are_fresh_and_few() {
    let site = Site::start().await;
    let reply = site.anyone().get("/_uuids?count=3").send().await;
    assert_eq!(reply.value()["uuids"].as_array().unwrap().len(), 3);
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    assert!(reply.header("etag").is_some());
    let reason = async |query: &str| {
        let reply = site.anyone().get(&format!("/_uuids?count={query}")).send().await;
        assert_eq!(reply.status, 400);
        reply.value()["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("1001").await, "count parameter too large");
    assert_eq!(reason("99999999999999999999").await, "count must be a positive integer");
    assert_eq!(reason("-1").await, "count must be a positive integer");
    assert_eq!(reason("x").await, "count must be a positive integer");
    let reply = site.anyone().post("/_uuids").send().await;
    assert_error(&reply, 405, "method_not_allowed", "Only GET allowed");
    assert_eq!(reply.header("allow"), Some("GET"));
}

#[tokio::test]
async fn a_single_node_is_set_up_and_says_so() {
    let site = Site::start().await;
    let root = site.root();
    assert_eq!(root.value("/_cluster_setup").await["state"], "single_node_disabled");
    let body = r#"{"action":"enable_single_node","username":"anna","password":"x1",
                   "bind_address":"0.0.0.0","port":5984,"singlenode":true}"#;
    let reply = root.post("/_cluster_setup").json(body).send().await;
    assert_eq!((reply.status, reply.value()), (201, value!({"ok": true})));
    assert_eq!(root.value("/_cluster_setup").await["state"], "single_node_enabled");
    assert_eq!(root.value("/_all_dbs").await, value!(["_replicator", "_users"]));
    let anna = site.anyone().login("anna", "x1");
    assert_eq!(anna.value("/_session").await["userCtx"]["roles"], value!(["_admin"]));
    for body in [r#"{"action":"add_node"}"#, r#"{"action":"x"}"#, "{}"] {
        assert_eq!(root.post("/_cluster_setup").json(body).send().await.status, 400);
    }
    let nodes = value!(["nonode@nohost"]);
    let members = root.value("/_membership").await;
    assert_eq!(members, value!({"all_nodes": nodes, "cluster_nodes": nodes}));
    assert_eq!(root.value("/_active_tasks").await, value!([]));
}

#[tokio::test]
async fn what_browsers_ask_for_is_there() {
    let site = Site::start().await;
    let reply = site.anyone().get("/favicon.ico").send().await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("image/x-icon")));
    let reply = site.anyone().get("/_utils").send().await;
    assert_eq!((reply.status, reply.header("location")), (301, Some("http://test/_utils/")));
    let reply = site.anyone().get("/_utils/").send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-security-policy"), Some("default-src 'none'"));
    assert_eq!(site.anyone().get("/_utils/../x").send().await.status, 404);
}

#[tokio::test]
async fn paths_that_lead_nowhere_say_so() {
    let site = Site::start().await;
    let root = site.root();
    for path in ["/_all_dbs/x", "/_node/_local/x", "/_node/_local/_config/a/b/c"] {
        assert_error(&root.get(path).send().await, 404, "not_found", "missing");
    }
    let reply = root.get("/_node").send().await;
    assert_error(&reply, 400, "bad_request", "Incomplete path to _node request");
}

#[tokio::test]
async fn what_happens_to_databases_is_a_feed() {
    let site = Site::start().await;
    let root = site.root();
    root.put("/a").send().await;
    put(&root, "/a/x", "{}").await;
    let updates = root.value("/_db_updates").await;
    assert_eq!(updates["results"][0]["db_name"], "a");
    assert_eq!(updates["results"][0]["type"], "updated", "only the last event of each counts");
    let last = updates["last_seq"].as_u64().unwrap();

    let path = format!("/_db_updates?feed=continuous&since={last}&timeout=20000");
    let mut feed = root.get(&path).open().await;
    feed.wait_for("200 OK").await;
    root.delete("/a").send().await;
    feed.wait_for(r#"{"db_name":"a","type":"deleted","seq":"#).await;

    let mut feed = root.get("/_db_updates?feed=longpoll&since=now").open().await;
    feed.wait_for("results").await;
    root.put("/b").send().await;
    let reply = feed.read_to_end().await;
    assert_eq!(reply.value()["results"][0]["db_name"], "b");
    let empty = root.value("/_db_updates?since=now").await;
    let path = format!("/_db_updates?since={}", empty["last_seq"]);
    root.put("/c").send().await;
    let next = root.value(&path).await;
    assert_eq!(next["results"].as_array().unwrap().len(), 1, "{empty} {next}");
    assert_eq!(next["results"][0]["db_name"], "c");
    let reply = root.get("/_db_updates?feed=x").send().await;
    let reason = "Supported `feed` types: normal, continuous, longpoll, eventsource";
    assert_error(&reply, 400, "bad_request", reason);
}

#[tokio::test]
async fn replies_are_compressed_for_who_asks() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let docs: Vec<_> = (0..200).map(|n| value!({"_id": format!("doc-{n:04}")})).collect();
    let body = value!({"docs": docs}).to_string();
    root.post("/db/_bulk_docs").json(&body).send().await;
    let plain = root.get("/db/_all_docs").send().await;
    assert_eq!(plain.header("content-encoding"), None);
    let zipped = root.get("/db/_all_docs").header("accept-encoding", "gzip").send().await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.len() < plain.body.len() / 3);
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&zipped.body[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert_eq!(text, plain.text());
    for refused in ["identity", "gzip;q=0", "br"] {
        let reply = root.get("/db/_all_docs").header("accept-encoding", refused).send().await;
        assert_eq!(reply.header("content-encoding"), None, "{refused}");
    }
}

#[tokio::test]
async fn a_preference_for_little_is_met() {
    let site = Site::start().await;
    let reply = site.anyone().get("/").header("prefer", "return=minimal").send().await;
    assert_eq!(reply.header("x-couch-request-id"), None);
    assert!(reply.header("server").is_some());
}

#[tokio::test]
async fn methods_can_be_overridden_by_post_alone() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let with = "x-http-method-override";
    let reply = root.post("/db/x").header(with, "PUT").json("{}").send().await;
    assert_eq!(reply.status, 201);
    let reply = root.get("/db/x").header(with, "DELETE").send().await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn the_api_can_be_part_of_another_application() {
    let site = Site::start().await;
    site.with_db().await;
    let other = axum::Router::new()
        .nest("/couch", site.server.router())
        .route("/", axum::routing::get(|| async { "other" }))
        .into_make_service_with_connect_info::<std::net::SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, other).await });
    let root = crate::Client::new(address).login("root", "secret");
    assert_eq!(root.get("/").send().await.text(), "other");
    put(&root, "/couch/db/x", r#"{"n":1}"#).await;
    assert_eq!(site.root().value("/db/x").await["n"], 1);
    assert_eq!(crate::Client::new(address).get("/couch/db/x").send().await.status, 401);
    let guess = crate::Client::new(address).login("root", "wrong");
    for _ in 0..5 {
        assert_eq!(guess.get("/couch/_up").send().await.status, 401);
    }
    assert_eq!(guess.get("/couch/_up").send().await.status, 403, "clients are told apart");
    serving.abort();
}

#[tokio::test]
async fn connections_are_kept_and_stopping_ends_feeds() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let request = b"GET /_up HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut kept = Connection::send(site.address, request).await;
    kept.wait_for("\"seeds\":{}}\n").await;
    kept.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    kept.wait_for("Welcome").await;

    let mut feed = root.get("/db/_changes?feed=continuous&heartbeat=60000").open().await;
    feed.wait_for("200 OK").await;
    let stopping = tokio::spawn(site.stop());
    let reply = feed.read_to_end().await;
    assert_eq!(reply.value()["last_seq"], 0);
    stopping.await.unwrap();
}
