//! Functions of design documents that mean harm, over HTTP: each gets an error within its bounds, and
//! nobody else notices.

use crate::client::Client;
use crate::{Site, put};
use serde_json::{Value, json as value};
use std::time::Duration;

/// What a function must not get away with: its body.
const HARM: &[(&str, &str)] = &[
    ("endless_loop", "for (;;);"),
    ("endless_send", "for (;;) send('more and more and more');"),
    ("huge_string", "let s = 'x'; for (;;) s += s;"),
    ("huge_array", "const a = []; for (;;) a.push(a.slice());"),
    ("recursion", "const again = () => again() + 1; again();"),
    ("catastrophic_regex", "/^(a+)+$/.test('a'.repeat(50) + '!');"),
    ("throwing_getter", "return {get body() { throw new Error('mine') }};"),
    ("throwing_nonsense", "throw {get forbidden() { for (;;); }};"),
    ("no_such_module", "require('views/lib/none');"),
    ("endless_json", "return {body: 'x', toJSON() { for (;;); }};"),
    ("cyclic_result", "const o = {}; o.json = o; return o;"),
    ("promise", "const forever = () => Promise.resolve().then(forever); forever(); for (;;);"),
    ("proxy", "return new Proxy({}, {ownKeys() { for (;;); }, get() { for (;;); }});"),
];

/// Those that fail wherever they are: the others return what makes no response, but is fine for a
/// filter.
fn fails() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    HARM.iter().filter(|(_, body)| !body.starts_with("return") && !body.contains("return o;"))
}

/// A server whose functions have half a second.
async fn site() -> Site {
    Site::with(&[("couchdb", "os_process_timeout", "500")]).await
}

fn functions(kind: &str) -> Value {
    let functions = HARM.iter().map(|(name, body)| {
        let source = match kind {
            "lists" => format!("function(head, req) {{ {body} }}"),
            _ => format!("function(doc, req) {{ {body} }}"),
        };
        ((*name).to_owned(), Value::from(source))
    });
    Value::Object(functions.collect())
}

/// Another database answers all the while.
async fn undisturbed(root: &Client) {
    for _ in 0..20 {
        assert_eq!(root.value("/other/a").await["_id"], "a");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn with_harm(site: &Site) -> Client {
    let root = site.with_db().await;
    root.put("/other").send().await;
    put(&root, "/other/a", "{}").await;
    put(&root, "/db/a", "{}").await;
    let ddoc = value!({
        "views": {"v": {"map": "doc => emit(doc._id)"}, "lib": {"one": "exports.two = require('./one')"}},
        "shows": functions("shows"),
        "lists": functions("lists"),
        "updates": functions("updates"),
        "filters": functions("filters"),
    });
    put(&root, "/db/_design/harm", &ddoc.to_string()).await;
    let fine = value!({"shows": {"fine": "() => 'fine'"}});
    put(&root, "/db/_design/fine", &fine.to_string()).await;
    put(&root, "/other/_design/fine", &fine.to_string()).await;
    root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_and_updates_that_mean_harm_get_an_error() {
    let site = site().await;
    let root = with_harm(&site).await;
    for (name, _) in HARM {
        let show = root.get(&format!("/db/_design/harm/_show/{name}/a")).send();
        let update = root.post(&format!("/db/_design/harm/_update/{name}/a")).send();
        let (show, update, ()) = tokio::join!(show, update, undisturbed(&root));
        for (what, reply) in [("show", show), ("update", update)] {
            assert!(reply.status >= 400, "{what} {name}: {reply:?}");
            let reply = reply.value();
            assert!(reply["error"].is_string() && reply["reason"].is_string(), "{what} {name}");
        }
        for db in ["db", "other"] {
            let fine = root.get(&format!("/{db}/_design/fine/_show/fine")).send().await;
            assert_eq!(fine.text(), "fine", "after {name}");
        }
    }
    assert_eq!(root.value("/db").await["doc_count"], 3, "nothing has been written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_mean_harm_end() {
    let site = site().await;
    let root = with_harm(&site).await;
    for (name, _) in fails() {
        let list = root.get(&format!("/db/_design/harm/_list/{name}/v"));
        let raw = async { list.open().await.read_raw().await };
        let (raw, ()) = tokio::join!(raw, undisturbed(&root));
        let whole = raw.starts_with("HTTP/1.1 200") && raw.ends_with("\r\n0\r\n\r\n");
        assert!(!whole, "{name}: {}", raw.chars().take(500).collect::<String>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_mean_harm_let_nothing_through() {
    let site = site().await;
    let root = with_harm(&site).await;
    for (name, _) in fails() {
        let feed = root.get(&format!("/db/_changes?filter=harm/{name}"));
        let raw = async { feed.open().await.read_raw().await };
        let (raw, ()) = tokio::join!(raw, undisturbed(&root));
        assert!(!raw.contains(r#""id":"a""#), "{name}: {raw}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_that_fails_in_any_way_refuses() {
    let site = site().await;
    let root = site.with_db().await;
    root.put("/other").send().await;
    put(&root, "/other/a", "{}").await;
    for (name, body) in fails() {
        let ddoc = value!({"validate_doc_update": format!("function(doc) {{ {body} }}")});
        let rev = put(&root, "/db/_design/rules", &ddoc.to_string()).await;
        let write = root.put("/db/refused").json("{}").send();
        let bulk = root.post("/db/_bulk_docs").json(r#"{"docs":[{"_id":"refused"}]}"#).send();
        let (reply, results, ()) = tokio::join!(write, bulk, undisturbed(&root));
        assert!(reply.status >= 400, "{name}: {reply:?}");
        let refused = results.status >= 400 || results.value()[0]["error"].is_string();
        assert!(refused, "{name}: {results:?}");
        assert_eq!(root.get("/db/refused").send().await.status, 404, "{name}");
        let gone = root.delete(&format!("/db/_design/rules?rev={rev}")).send().await;
        assert_eq!(gone.status, 200, "{name}: {gone:?}");
    }
    put(&root, "/db/taken", "{}").await;
}

/// What one function leaves behind, no other one finds: not of the same design document, not of
/// another database.
#[tokio::test]
async fn nothing_is_left_for_other_functions() {
    let site = Site::start().await;
    let root = site.with_db().await;
    root.put("/other").send().await;
    let ddoc = value!({"shows": {
        "leave": "() => { try { globalThis.left = 1 } catch (e) {} \
                  try { Object.prototype.left = 1 } catch (e) {} \
                  try { Array.prototype.map = () => 'mine' } catch (e) {} \
                  try { JSON.stringify = () => '\"mine\"' } catch (e) {} \
                  try { toJSON.left = 1; sum.left = 1 } catch (e) {} return 'left' }",
        "find": "() => toJSON([typeof globalThis.left, typeof ({}).left, [1].map(x => x + 1), \
                 JSON.stringify([1]), typeof toJSON.left])",
    }});
    for db in ["db", "other"] {
        put(&root, &format!("/{db}/_design/d"), &ddoc.to_string()).await;
    }
    for _ in 0..8 {
        assert_eq!(root.get("/db/_design/d/_show/leave").send().await.text(), "left");
        for db in ["db", "other"] {
            let found = root.get(&format!("/{db}/_design/d/_show/find")).send().await.value();
            assert_eq!(found, value!(["undefined", "undefined", [2], "[1]", "undefined"]), "{db}");
        }
    }
}
