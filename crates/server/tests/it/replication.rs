//! `_replicate`, `_scheduler` and what `_active_tasks` says of them.

use crate::{Client, Site, assert_error};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::time::Duration;
use testkit::socks::Socks;

/// The setting without which a server does not replicate with the machine it runs on.
const LOOPBACK: &[(&str, &str, &str)] = &[("settee", "replicate_loopback", "true")];

async fn replicate(client: &Client, body: Value) -> crate::Reply {
    client.post("/_replicate").json(&body.to_string()).send().await
}

/// Waits until something is there.
async fn until_found(client: &Client, path: &str) {
    for _ in 0..400 {
        if client.get(path).send().await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} does not appear");
}

async fn put(client: &Client, path: &str) {
    assert_eq!(client.put(path).json("{}").send().await.status, 201, "{path}");
}

#[tokio::test]
async fn one_database_into_another_by_name() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/db/a").await;
    let reply = replicate(&root, json!({"source": "db", "target": "copy"})).await;
    assert_error(&reply, 404, "db_not_found", "could not open copy");
    let wish = json!({"source": "db", "target": "copy", "create_target": true});
    let reply = replicate(&root, wish.clone()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let value = reply.value();
    assert_eq!((&value["ok"], &value["replication_id_version"]), (&json!(true), &json!(4)));
    let history = &value["history"][0];
    for (counter, n) in [("docs_read", 1), ("docs_written", 1), ("doc_write_failures", 0)] {
        assert_eq!(history[counter], n, "{value}");
    }
    assert_eq!((&history["missing_checked"], &history["missing_found"]), (&json!(1), &json!(1)));
    assert_eq!(history["session_id"], value["session_id"]);
    assert_eq!(root.value("/copy/a").await["_id"], "a");
    // A database that a replication makes is as closed as any.
    assert_eq!(site.anyone().get("/copy").send().await.status, 401);
    // Again: the target is there, and there is nothing to do.
    let again = replicate(&root, wish).await.value();
    assert_eq!(again["no_changes"], true);
    assert_eq!(again["source_last_seq"], value["source_last_seq"]);
    let unremembered = json!({"source": "db", "target": "copy", "use_checkpoints": false});
    assert_eq!(replicate(&root, unremembered).await.value()["docs_written"], 0);
}

/// The functions are the source's, wherever it is.
#[tokio::test]
async fn functions_filter() {
    let site = Site::with(LOOPBACK).await;
    let root = site.with_db().await;
    let design = json!({
        "filters": {"of": "function(doc, req) { return doc.city === req.query.city; }"},
        "views": {"named": {"map": "function(doc) { if (doc.name) emit(doc.name); }"}},
    });
    let reply = root.put("/db/_design/d").json(&design.to_string()).send().await;
    assert_eq!(reply.status, 201);
    for (id, doc) in
        [("a", r#"{"city":"Paris"}"#), ("b", r#"{"city":"Rome"}"#), ("c", r#"{"name":"c"}"#)]
    {
        assert_eq!(root.put(&format!("/db/{id}")).json(doc).send().await.status, 201);
    }
    let far = format!("http://root:secret@{}/db", site.address);
    for (n, source) in ["db", &far].into_iter().enumerate() {
        let wish = |params: Value, filter: &str| {
            json!({
                "source": source, "target": format!("x{n}"), "create_target": true,
                "filter": filter, "query_params": params,
            })
        };
        let rome = wish(json!({"city": "Rome"}), "d/of");
        let reply = replicate(&root, rome.clone()).await;
        assert_eq!(reply.value()["history"][0]["docs_written"], 1, "{reply:?}");
        assert_eq!(root.get(&format!("/x{n}/b")).send().await.status, 200);
        assert_eq!(replicate(&root, rome).await.value()["no_changes"], true);
        let named = wish(json!({"view": "d/named"}), "_view");
        let reply = replicate(&root, named).await;
        assert_eq!(reply.value()["history"][0]["docs_written"], 1, "{reply:?}");
        assert_eq!(root.get(&format!("/x{n}/c")).send().await.status, 200);
        assert_eq!(root.value(&format!("/x{n}")).await["doc_count"], 2);
        assert_eq!(replicate(&root, wish(json!({}), "d/none")).await.status, 404);
    }
}

#[tokio::test]
async fn some_documents_only() {
    let site = Site::start().await;
    let root = site.with_db().await;
    for id in ["a", "b", "c"] {
        put(&root, &format!("/db/{id}")).await;
    }
    let wish = json!({"source": "db", "target": "x", "create_target": true, "doc_ids": ["b"]});
    assert_eq!(replicate(&root, wish).await.status, 200);
    assert_eq!(root.value("/x").await["doc_count"], 1);
    let selector = json!({"_id": {"$gt": "b"}});
    let wish = json!({"source": "db", "target": "x", "selector": selector});
    assert_eq!(replicate(&root, wish).await.value()["history"][0]["docs_written"], 1);
    for (wish, status) in [
        (json!({"source": "db", "target": "x", "selector": {}, "doc_ids": []}), 400),
        (json!({"source": "db", "target": "x", "filter": "d/f"}), 404),
        (json!({"source": "db", "target": "x", "filter": "f"}), 400),
        (json!({"source": "db", "target": "x", "filter": "_view"}), 400),
        (json!({"source": "db", "target": "x", "filter": "_other"}), 400),
        (json!({"source": "http://h/db", "target": "x", "proxy": "ftp://h"}), 400),
        (
            json!({"source": "db", "target": "x", "proxy": "http://h", "source_proxy": "http://h"}),
            400,
        ),
        (json!({"source": "db"}), 400),
        (json!({"source": "db", "target": 7}), 400),
        (json!({"source": "db", "target": "NO"}), 400),
        (json!({"source": "none", "target": "x"}), 404),
        (json!({"source": "db", "target": "_users"}), 403),
        (json!({"source": "db", "target": "x", "cancel": true}), 404),
        (json!({"cancel": true, "replication_id": "none"}), 404),
    ] {
        assert_eq!(replicate(&root, wish.clone()).await.status, status, "{wish}");
    }
    let wish = json!({"source": "db", "target": "x"});
    assert_eq!(replicate(&site.anyone(), wish).await.status, 401);
}

#[tokio::test]
async fn a_continuous_one_runs_until_it_is_cancelled() {
    let site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/copy").await;
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    let started = replicate(&root, wish.clone()).await;
    assert_eq!(started.status, 202, "{started:?}");
    let id = started.value()["_local_id"].clone();
    assert!(id.as_str().unwrap().ends_with("+continuous"));
    // It is the same one, asked for twice.
    assert_eq!(replicate(&root, wish.clone()).await.value()["_local_id"], id);
    put(&root, "/db/a").await;
    until_found(&root, "/copy/a").await;
    let jobs = root.value("/_scheduler/jobs").await;
    assert_eq!((&jobs["total_rows"], &jobs["offset"]), (&json!(1), &json!(0)));
    let job = &jobs["jobs"][0];
    assert_eq!((&job["id"], &job["source"], &job["target"]), (&id, &json!("db"), &json!("copy")));
    assert_eq!((&job["user"], &job["doc_id"]), (&json!("root"), &Value::Null));
    assert_eq!(root.value("/_scheduler/jobs?skip=1").await["jobs"], json!([]));
    assert_eq!(root.value("/_scheduler/docs").await["docs"], json!([]));
    let tasks = root.value("/_active_tasks").await;
    let task = &tasks[0];
    assert_eq!((&task["type"], &task["replication_id"]), (&json!("replication"), &id));
    assert_eq!((&task["continuous"], &task["docs_written"]), (&json!(true), &json!(1)));
    let cancel = json!({"source": "db", "target": "copy", "continuous": true, "cancel": true});
    let cancelled = replicate(&root, cancel.clone()).await;
    assert_eq!((cancelled.status, &cancelled.value()["_local_id"]), (200, &id));
    for _ in 0..400 {
        if root.value("/_active_tasks").await == json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(root.value("/_scheduler/jobs").await["jobs"], json!([]));
    assert_eq!(replicate(&root, cancel).await.status, 404);
    // By its id, too.
    replicate(&root, wish).await;
    let by_id = json!({"cancel": true, "replication_id": id});
    assert_eq!(replicate(&root, by_id).await.status, 200);
}

/// The other server itself is the proxy: it is handed the whole URL, of a host that nobody knows.
#[tokio::test]
async fn another_server_through_a_proxy() {
    let (here, there) = (Site::with(LOOPBACK).await, Site::start().await);
    let (root, other) = (here.with_db().await, there.with_db().await);
    put(&other, "/db/theirs").await;
    assert_eq!(root.put("/_replicator").send().await.status, 201);
    let far = "http://root:secret@nowhere.invalid/db";
    let proxy = format!("http://guest:hush@{}", there.address);
    let wish = json!({"source": far, "target": "db", "proxy": proxy});
    let pulled = replicate(&root, wish).await;
    assert_eq!(pulled.status, 200, "{pulled:?}");
    assert_eq!(root.value("/db/theirs").await["_id"], "theirs");
    put(&root, "/db/ours").await;
    let socks = Socks::start(there.address, Some(("guest", "hush")));
    for (scheme, address) in [("http", there.address), ("socks5", socks.address)] {
        let proxy = format!("{scheme}://guest:hush@{address}");
        put(&root, &format!("/db/{scheme}")).await;
        let wish = json!({"source": "db", "target": far, "target_proxy": proxy}).to_string();
        assert_eq!(
            root.put(&format!("/_replicator/{scheme}")).json(&wish).send().await.status,
            201
        );
        until_found(&other, &format!("/db/{scheme}")).await;
        let shown = root.get(&format!("/_scheduler/docs/_replicator/{scheme}")).send().await.text();
        let safe = format!(r#""target_proxy":"{scheme}://{address}""#);
        assert!(shown.contains(&safe), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("secret"), "{shown}");
    }
    assert!(socks.asked().iter().all(|asked| asked.to == "nowhere.invalid:80"));
}

/// Neither as what is meant nor as the way there.
#[tokio::test]
async fn addresses_of_the_machine_are_refused_through_a_proxy_too() {
    let (here, there) = (Site::start().await, Site::start().await);
    let (root, _other) = (here.with_db().await, there.with_db().await);
    let socks = Socks::start(there.address, None);
    for proxy in [format!("socks5://{}", socks.address), format!("http://{}", there.address)] {
        for host in ["nowhere.invalid", "127.0.0.1", "169.254.169.254", "localhost"] {
            let source = format!("http://root:secret@{host}:5984/db");
            let wish = json!({"source": source, "target": "db", "proxy": proxy});
            let reply = replicate(&root, wish).await;
            assert_eq!(reply.status, 403, "{host}: {reply:?}");
        }
    }
    assert_eq!(socks.asked().len(), 0);
}

/// A source that says nothing, and what it is asked for.
#[tokio::test]
async fn a_continuous_one_asks_its_source_for_signs_of_life() {
    let site = Site::with(LOOPBACK).await;
    let root = site.with_db().await;
    for (members, heartbeat) in [
        (json!({"heartbeat": 250}), 250),
        (json!({"connection_timeout": 900}), 300),
        (json!({"timeout": 1200}), 400),
        (json!({"connection_timeout": 900, "heartbeat": 700}), 700),
        (json!({}), 10_000),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = match path.split('?').next().unwrap() {
                    "/db/_changes" => (200, r#"{"results":[],"last_seq":"7-x","pending":0}"#),
                    "/db" => {
                        (200, r#"{"db_name":"db","doc_count":0,"doc_del_count":0,"update_seq":7}"#)
                    }
                    _ if request.starts_with("PUT") => (201, r#"{"ok":true,"id":"x","rev":"0-1"}"#),
                    _ => (404, r#"{"error":"not_found","reason":"missing"}"#),
                };
                let reply = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(reply.as_bytes());
                if asked.send(path).is_err() {
                    return;
                }
            }
        });
        let mut wish = members.clone();
        wish["source"] = format!("http://{address}/db").into();
        wish["target"] = "db".into();
        wish["continuous"] = true.into();
        let reply = replicate(&root, wish).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let follows = async {
            loop {
                let path = heard.recv().await.unwrap();
                if path.contains("feed=continuous") {
                    return path;
                }
            }
        };
        let path = tokio::time::timeout(Duration::from_secs(20), follows).await.unwrap();
        assert!(path.contains(&format!("heartbeat={heartbeat}")), "{members}: {path}");
    }
}

#[tokio::test]
async fn another_server_by_its_url() {
    let (here, there) = (Site::with(LOOPBACK).await, Site::start().await);
    let (root, other) = (here.with_db().await, there.with_db().await);
    put(&root, "/db/ours").await;
    put(&other, "/db/theirs").await;
    let address = there.address;
    let url = format!("http://root:secret@{address}/db");
    let pulled = replicate(&root, json!({"source": url, "target": "db"})).await;
    assert_eq!(pulled.status, 200, "{pulled:?}");
    assert_eq!(root.value("/db/theirs").await["_id"], "theirs");
    let place = json!({
        "url": format!("http://{address}/new"),
        "auth": {"basic": {"username": "root", "password": "secret"}},
        "headers": {"X-Tenant": "hush"},
    });
    let wish = json!({"source": "db", "target": place, "create_target": true});
    let pushed = replicate(&root, wish).await;
    assert_eq!(pushed.status, 200, "{pushed:?}");
    assert_eq!(other.value("/new").await["doc_count"], 2);
    // What lists show has no credentials.
    let wish = json!({"source": url, "target": "db", "continuous": true});
    assert_eq!(replicate(&root, wish).await.status, 202);
    for path in ["/_scheduler/jobs", "/_active_tasks"] {
        let text = root.get(path).send().await.text();
        assert!(text.contains(&format!("http://{address}/db/")), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
    // Nor has what goes wrong.
    let wrong = format!("http://root:wrongsecret@{address}/db");
    let refused = replicate(&root, json!({"source": wrong, "target": "db"})).await;
    assert_eq!(refused.status, 401);
    assert!(!refused.text().contains("wrongsecret"));
    let missing = format!("http://root:secret@{address}/none");
    let reply = replicate(&root, json!({"source": missing, "target": "db"})).await;
    assert_eq!(reply.value()["error"], "db_not_found");
    assert!(!reply.text().contains("secret"));
}

#[tokio::test]
async fn addresses_of_the_machine_are_refused_unless_allowed() {
    let site = Site::start().await;
    let root = site.with_db().await;
    let (other, port) = (Site::start().await, site.address.port());
    let _root = other.with_db().await;
    let other_port = other.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0"] {
        let url = format!("http://root:secret@{host}:{other_port}/db");
        for wish in [json!({"source": url, "target": "db"}), json!({"source": "db", "target": url})]
        {
            let reply = replicate(&root, wish).await;
            assert_eq!(reply.status, 403, "{host}: {reply:?}");
            assert!(!reply.text().contains("secret"));
        }
    }
    // The server's own databases are no secret of its machine.
    put(&root, "/db/a").await;
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("http://root:secret@{host}:{port}/db");
        let wish = json!({"source": url, "target": format!("http://root:secret@127.0.0.1:{port}/copy"),
            "create_target": true});
        let reply = replicate(&root, wish).await;
        // `localhost` may also stand for an address where this server does not listen.
        assert!(reply.status == 200 || host == "localhost", "{host}: {reply:?}");
    }
    assert_eq!(root.value("/copy/a").await["_id"], "a");
    let wrong = format!("http://root:wrong@127.0.0.1:{port}/db");
    assert_eq!(replicate(&root, json!({"source": wrong, "target": "copy"})).await.status, 401);
    // Only who runs the machine allows more.
    for key in ["replicate_loopback", "replicate_allow", "replicate_deny"] {
        let path = format!("/_node/_local/_config/settee/{key}");
        assert_eq!(root.put(&path).json("\"true\"").send().await.status, 403);
    }
}

#[tokio::test]
async fn addresses_are_allowed_and_denied_by_lists() {
    let there = Site::start().await;
    let _root = there.with_db().await;
    let url = format!("http://root:secret@{}/db", there.address);
    for (key, list, status) in [
        ("replicate_allow", "10.0.0.0/8, 127.0.0.1", 200),
        ("replicate_allow", "127.0.0.2, ::1", 403),
        ("replicate_allow", "127.0.0.1, nonsense", 403),
        ("replicate_deny", "nonsense", 403),
    ] {
        let here = Site::with(&[("settee", key, list)]).await;
        let root = here.with_db().await;
        let reply = replicate(&root, json!({"source": url, "target": "db"})).await;
        assert_eq!(reply.status, status, "{key} = {list}: {reply:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_ends_its_replications() {
    let mut site = Site::start().await;
    let root = site.with_db().await;
    put(&root, "/copy").await;
    let wish = json!({"source": "db", "target": "copy", "continuous": true});
    assert_eq!(replicate(&root, wish).await.status, 202);
    let _ = site.stop.take().unwrap().send(());
    tokio::time::timeout(Duration::from_secs(10), &mut site.task).await.unwrap().unwrap();
}
