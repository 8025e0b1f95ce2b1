//! Queries by selector, on what has them.
#![allow(missing_docs)] // A case is described by its name.

use super::{Place, fails};
use crate::time::{sleep, soon};
use serde_json::{Value, json};
use settee::prelude::*;
use settee::{ErrorKind, Find, IndexDefinition, Selector};
use std::time::Duration;

/// Two hundred and fifty people, and whether they can be asked for.
async fn people(place: &Place) -> Option<Database> {
    let db = place.db().await;
    match db.indexes().await {
        Err(error) if error.kind() == ErrorKind::NotImplemented => return None,
        indexes => assert_eq!(indexes.unwrap()[0].kind, "special"),
    }
    let docs = (0..250).map(
        |n| json!({"_id": format!("{n:03}"), "age": n % 50, "name": format!("name {n}"), "n": n}),
    );
    db.bulk_docs(docs, true).await.unwrap();
    Some(db)
}

fn by(selector: Value) -> Selector {
    Selector::parse(&selector).unwrap()
}

fn ids(docs: &[Document]) -> Vec<&str> {
    docs.iter().map(|doc| doc.id.as_deref().unwrap()).collect()
}

/// Waits until a query finds its index, which not every node of a cluster knows at once.
async fn until_answered(find: &Find) {
    soon(async {
        while let Err(error) = find.clone().fetch().await {
            assert_eq!(error.name(), "no_usable_index");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub async fn documents_are_found_by_a_selector(place: Place) {
    let Some(db) = people(&place).await else { return };
    let mut found = db.find(by(json!({"n": {"$gte": 246}}))).fetch().await.unwrap();
    found.docs.sort_by_key(|doc| doc.id.clone());
    assert_eq!(ids(&found.docs), ["246", "247", "248", "249"]);
    assert_eq!(found.docs[0].get("name"), Some(json!("name 246")));
    assert!(found.docs[0].rev.is_some());
    let some = db.find(by(json!({"_id": "007"}))).fields(["age", "_id"]).fetch().await.unwrap();
    assert_eq!(some.docs[0].to_json(), r#"{"_id":"007","age":7}"#);
    let none = db.find(by(json!({"_id": "never"}))).fetch().await.unwrap();
    assert!(none.docs.is_empty());
}

pub async fn a_stream_of_what_is_found_goes_over_all_pages(place: Place) {
    let Some(db) = people(&place).await else { return };
    db.create_index(&IndexDefinition::new(["n"]).ddoc("by-n").name("n")).await.unwrap();
    let all = || db.find(by(json!({"n": {"$gte": 0}}))).sort("n");
    until_answered(&all()).await;
    let docs: Vec<_> = all().stream().try_collect().await.unwrap();
    let expected: Vec<_> = (0..250).map(|n| format!("{n:03}")).collect();
    assert_eq!(ids(&docs), expected);
    let docs: Vec<_> = all().skip(20).limit(215).stream().try_collect().await.unwrap();
    assert_eq!(ids(&docs), expected[20..235]);
    let down = db.find(by(json!({"n": {"$gte": 0}}))).sort_descending("n").limit(2);
    assert_eq!(ids(&down.fetch().await.unwrap().docs), ["249", "248"]);
}

pub async fn indexes_are_made_listed_and_removed(place: Place) {
    let Some(db) = people(&place).await else { return };
    let old = db.find(by(json!({"age": {"$gt": 48}}))).sort("age");
    let unsorted = old.clone().fetch().await.unwrap_err();
    assert!(unsorted.status() >= 400, "{unsorted:?}");
    let index = IndexDefinition::new(["age"]).ddoc("_design/by-age").name("age");
    let created = db.create_index(&index).await.unwrap();
    assert!(created.is_new());
    assert_eq!((created.id.as_str(), created.name.as_str()), ("_design/by-age", "age"));
    assert!(!db.create_index(&index).await.unwrap().is_new());
    until_answered(&old).await;
    assert_eq!(old.clone().fetch().await.unwrap().docs.len(), 5);
    let indexes = db.indexes().await.unwrap();
    assert_eq!(indexes[0].fields(), [("_id".to_owned(), false)]);
    let ours = indexes.iter().find(|index| index.name == "age").unwrap();
    assert_eq!(ours.ddoc.as_deref(), Some("_design/by-age"));
    assert_eq!(ours.fields(), [("age".to_owned(), false)]);
    let plan = old.clone().use_index("by-age").explain().await.unwrap();
    assert_eq!(plan["index"]["name"], "age");
    db.delete_index("by-age", "age").await.unwrap();
    // Who lists them may have the design document at hand for a moment.
    soon(async {
        while db.indexes().await.unwrap().len() > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fails(db.delete_index("by-age", "age").await, 404, "not_found");
}
