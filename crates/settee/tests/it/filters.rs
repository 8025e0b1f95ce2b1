//! Filter functions of design documents: in feeds, subscriptions and replications, here and on a
//! server.

use crate::replication::{branch, everything};
use futures_executor::block_on;
use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};
use settee::options::Filter;
use settee::prelude::*;
use settee::{ErrorKind, Replication};
use std::sync::mpsc;
use std::time::Duration;
use testkit::time::soon;

async fn people() -> (Couch, Database, Database) {
    let couch = Couch::memory().unwrap();
    let (source, target) =
        (couch.create("source").await.unwrap(), couch.create("target").await.unwrap());
    fill(&source).await;
    (couch, source, target)
}

async fn fill(db: &Database) {
    let design = json!({
        "_id": "_design/people",
        "filters": {
            "all": "function(doc, req) { return doc._id[0] !== '_'; }",
            "of": " function(doc, req) { return doc.city === req.query.city && doc.age >= (+req.query.age || 0); } ",
            "throws": "function(doc) { throw 'no'; }",
        },
        "views": {"old": {"map": "function(doc) { if (doc.age > 60) emit(doc.age); }"}},
    });
    db.put(design).await.unwrap();
    for (id, city, age) in [("ada", "London", 36), ("emmy", "Erlangen", 53), ("mary", "London", 91)]
    {
        db.put(json!({"_id": id, "city": city, "age": age})).await.unwrap();
    }
}

fn query(members: Value) -> Map<String, Value> {
    members.as_object().unwrap().clone()
}

async fn ids(db: &Database, filter: Filter) -> String {
    let changes = db.changes().filter(filter).fetch().await.unwrap().changes;
    changes.into_iter().map(|change| change.id).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn feeds_are_filtered(db: &Database) {
    assert_eq!(ids(db, Filter::function("people/all")).await, "ada emmy mary");
    let of = |members| Filter::function_with("people/of", query(members));
    assert_eq!(ids(db, of(json!({"city": "London"}))).await, "ada mary");
    assert_eq!(ids(db, of(json!({"city": "London", "age": 40}))).await, "mary");
    assert_eq!(ids(db, of(json!({}))).await, "");
    assert_eq!(ids(db, Filter::function("people/throws")).await, "");
    assert_eq!(ids(db, Filter::view("people/old")).await, "mary");
    let first = db.changes().filter(Filter::function("people/all")).limit(1).fetch().await.unwrap();
    assert_eq!((first.changes.len(), first.changes[0].doc.is_some()), (1, false));
    for (filter, kind) in [
        ("people/none", ErrorKind::NotFound),
        ("none/all", ErrorKind::NotFound),
        ("people", ErrorKind::BadRequest),
        ("_view", ErrorKind::BadRequest),
    ] {
        let error = db.changes().filter(Filter::function(filter)).fetch().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{filter}: {error}");
    }
    // What passes is told as it happens.
    let filter = Filter::view("people/old");
    let mut live = db.changes().since_now().filter(filter).live().await.unwrap();
    db.put(json!({"_id": "joan", "age": 12})).await.unwrap();
    db.put(json!({"_id": "jean", "age": 79})).await.unwrap();
    assert_eq!(soon(live.try_next()).await.unwrap().unwrap().id, "jean");
    for id in ["joan", "jean"] {
        db.delete_current(id).await.unwrap();
    }
}

#[test]
fn feeds_are_filtered_by_functions() {
    block_on(async { feeds_are_filtered(&people().await.1).await });
}

/// Where every leaf is reported, each is judged for itself.
#[test]
fn a_filter_judges_every_leaf() {
    block_on(async {
        let (_couch, db, _) = people().await;
        // The loser is in London, the winner is not.
        branch(&db, "torn", 2, 'a', json!({"city": "London", "age": 1})).await;
        branch(&db, "torn", 2, 'b', json!({"city": "Paris", "age": 1})).await;
        let selector = json!({"city": "London"});
        let selector = settee::Selector::parse(&selector).unwrap();
        let function = Filter::function_with("people/of", query(json!({"city": "London"})));
        for filter in [function, Filter::Selector(selector.into())] {
            assert_eq!(ids(&db, filter.clone()).await, "ada mary");
            let changes = db.changes().filter(filter).all_leaves().fetch().await.unwrap().changes;
            let torn = changes.iter().find(|change| change.id == "torn").unwrap();
            assert_eq!(torn.revs.len(), 1, "{torn:?}");
            assert!(torn.revs[0].to_string().starts_with("2-a"));
        }
    });
}

/// From `source`, whose functions run where it is.
pub(crate) async fn replications_are_filtered(source: &Database, target: &Database) {
    let of = |city: &str| Filter::function_with("people/of", query(json!({"city": city})));
    let london = || source.replicate_to(target).filter(of("London"));
    let result = london().run().await.unwrap();
    assert_eq!(result.counters.docs_written, 2);
    assert_eq!(target.len().await.unwrap(), 2);
    assert!(london().run().await.unwrap().no_changes);
    // Other parameters are another replication; other code is, too.
    let before = london().id().await.unwrap();
    assert_eq!(before, result.replication_id);
    assert_ne!(source.replicate_to(target).filter(of("Paris")).id().await.unwrap(), before);
    let mut design = source.get("_design/people").await.unwrap();
    let code = "function(doc, req) { return doc.city === 'Erlangen'; }";
    let mut filters = design.get("filters").unwrap();
    filters["of"] = code.into();
    design.set("filters", filters).unwrap();
    source.put(design).await.unwrap();
    assert_ne!(london().id().await.unwrap(), before);
    assert_eq!(london().run().await.unwrap().counters.docs_written, 1);
    // By view.
    target.destroy().await.unwrap();
    target.create().await.unwrap();
    let old = source.replicate_to(target).filter(Filter::view("people/old"));
    assert_eq!(old.run().await.unwrap().counters.docs_written, 1);
    assert!(target.contains("mary").await.unwrap());
    // What is not there is an error, and nothing comes across.
    for name in ["people/none", "none/of", "people"] {
        let none = source.replicate_to(target).filter(Filter::function(name));
        let status = if name.contains('/') { 404 } else { 400 };
        assert_eq!(none.run().await.unwrap_err().status(), status, "{name}");
    }
    assert_eq!(target.len().await.unwrap(), 1);
}

#[test]
fn replications_are_filtered_by_functions() {
    block_on(async {
        let (_couch, source, target) = people().await;
        replications_are_filtered(&source, &target).await;
    });
}

/// A live replication judges what comes later, too.
#[test]
fn a_live_replication_is_filtered() {
    block_on(async {
        let (_couch, source, target) = people().await;
        let filter = Filter::function_with("people/of", query(json!({"city": "London"})));
        let live = Replication::new(&source, &target).filter(filter).live().start().unwrap();
        let mut changes = target.changes().live().await.unwrap();
        for id in ["ada", "mary"] {
            assert_eq!(soon(changes.try_next()).await.unwrap().unwrap().id, id);
        }
        source.put(json!({"_id": "jean", "city": "Paris", "age": 79})).await.unwrap();
        source.put(json!({"_id": "rosalind", "city": "London", "age": 37})).await.unwrap();
        assert_eq!(soon(changes.try_next()).await.unwrap().unwrap().id, "rosalind");
        live.cancel();
        live.wait().await.unwrap();
        assert_eq!(everything(&target).await.len(), 3);
    });
}

/// S-067, S-068, S-069.
pub(crate) async fn subscriptions_are_filtered(db: &Database) {
    let (send, receive) = mpsc::channel();
    let subscribe = |filter: Filter| {
        let send = send.clone();
        db.changes().since_now().filter(filter).latency(Duration::ZERO).subscribe(move |event| {
            for change in event.changes {
                send.send((event.feed_id.to_owned(), change.id.clone())).unwrap();
            }
        })
    };
    let next = || receive.recv_timeout(Duration::from_secs(30)).unwrap();
    let (all, old) = (Filter::function("people/all"), Filter::view("people/old"));
    let mut by_function = subscribe(all.clone()).await.unwrap();
    assert_eq!(by_function.feed_id(), "people/all__None");
    db.put(json!({"_id": "_design/none"})).await.unwrap();
    db.put(json!({"_id": "young", "age": 1})).await.unwrap();
    assert_eq!(next(), ("people/all__None".to_owned(), "young".to_owned()));
    by_function.stop();
    let by_view = subscribe(old.clone()).await.unwrap();
    assert_eq!(by_view.feed_id(), "_view__people/old");
    db.put(json!({"_id": "younger", "age": 0})).await.unwrap();
    db.put(json!({"_id": "older", "age": 99})).await.unwrap();
    assert_eq!(next(), ("_view__people/old".to_owned(), "older".to_owned()));
    assert_eq!(db.unsubscribe(&all), 0);
    assert_eq!(db.unsubscribe(&old), 1);
    db.put(json!({"_id": "oldest", "age": 100})).await.unwrap();
    assert!(receive.try_recv().is_err());
    drop(by_view);
}

#[test]
fn subscriptions_are_filtered_by_functions_and_views() {
    block_on(async { subscriptions_are_filtered(&people().await.1).await });
}

/// The same with a database of a server, which runs the functions itself.
#[cfg(feature = "remote")]
#[tokio::test(flavor = "multi_thread")]
async fn functions_of_a_server_filter_there() {
    let site = crate::remote::site::Site::start().await;
    let couch = Couch::from_host(std::sync::Arc::new(site.remote()));
    let far = couch.create("people").await.unwrap();
    fill(&far).await;
    feeds_are_filtered(&far).await;
    let near = Couch::memory().unwrap().create("near").await.unwrap();
    replications_are_filtered(&far, &near).await;
    subscriptions_are_filtered(&far).await;
}
