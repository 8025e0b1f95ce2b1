//! Views, of functions in JavaScript. Where no JavaScript runs, these cases do nothing.
#![allow(missing_docs)] // A case is described by its name.
#![allow(clippy::reversed_empty_ranges)] // A descending range begins with its highest key.

use super::{Place, doc, fails, with_design};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use settee::options::{GetOptions, Update};
use settee::prelude::*;
use settee::wire::ViewRow;
use settee::{View, ViewDefinition, ViewResult};

macro_rules! with_views {
    ($place:expr, $($views:tt)*) => {
        match with_design(&$place, json!({"views": $($views)*})).await {
            Some(db) => db,
            None => return,
        }
    };
}

async fn put(db: &Database, docs: impl IntoIterator<Item = Value>) {
    let docs: Vec<Document> = docs.into_iter().map(doc).collect();
    for result in db.bulk_docs(docs, true).await.unwrap() {
        result.unwrap();
    }
}

async fn fetch(view: View) -> ViewResult {
    view.fetch().await.unwrap()
}

fn keys(result: &ViewResult) -> Vec<Value> {
    result.keys_as().unwrap()
}

fn values(result: &ViewResult) -> Vec<Value> {
    result.values_as().unwrap()
}

const BY_K: &str = "function(doc) { emit(doc.k, doc.v); }";

pub async fn a_view_has_a_row_for_whatever_is_emitted(place: Place) {
    let db = with_views!(place, {"v": {"map":
        "function(doc) { (doc.tags || []).forEach(function(tag) { emit(tag, doc._id.length); }); }"}});
    put(
        &db,
        [
            json!({"_id": "one", "tags": ["b", "a"]}),
            json!({"_id": "three", "tags": []}),
            json!({"_id": "two", "tags": ["a"]}),
        ],
    )
    .await;
    let result = fetch(db.view("d/v")).await;
    assert_eq!((result.total_rows, result.offset), (Some(3), Some(0)));
    assert_eq!(result.ids().collect::<Vec<_>>(), ["one", "two", "one"]);
    assert_eq!(keys(&result), ["a", "a", "b"]);
    assert_eq!(values(&result), [3, 3, 3]);
    assert_eq!(result.update_seq, None);
    assert!(fetch(db.view("d/v").update_seq()).await.update_seq.is_some());
    assert_eq!(format!("{result:?}"), "<d/v: 3/3 rows>");
    assert_eq!(fetch(db.view("_design/d/_view/v")).await.rows, result.rows);
}

pub async fn a_view_shows_every_write_before_it(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}});
    assert_eq!(fetch(db.view("d/v")).await.total_rows, Some(0));
    let mut saved = doc(json!({"_id": "x", "k": 1}));
    db.save(&mut saved).await.unwrap();
    assert_eq!(keys(&fetch(db.view("d/v")).await), [1]);
    saved.set("k", 2).unwrap();
    db.save(&mut saved).await.unwrap();
    assert_eq!(keys(&fetch(db.view("d/v")).await), [2]);
    db.delete_current("x").await.unwrap();
    assert!(fetch(db.view("d/v")).await.is_empty());
    let saved = db.put_at("x", r#"{"k": 3}"#).await.unwrap();
    assert_eq!(keys(&fetch(db.view("d/v")).await), [3]);
    db.purge([("x", &saved.rev)]).await.unwrap();
    assert!(fetch(db.view("d/v")).await.is_empty());
}

pub async fn an_old_answer_may_do(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}});
    put(&db, [json!({"k": 1})]).await;
    assert_eq!(fetch(db.view("d/v")).await.len(), 1);
    put(&db, [json!({"k": 2})]).await;
    assert_eq!(fetch(db.view("d/v").update(Update::Never)).await.len(), 1);
    // Who asks for an update afterwards gets it in the end.
    fetch(db.view("d/v").update(Update::After)).await;
    while fetch(db.view("d/v").update(Update::Never)).await.len() < 2 {
        crate::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(fetch(db.view("d/v")).await.len(), 2);
}

pub async fn ranges_begin_and_end_where_they_are_told_to(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}});
    put(&db, (0..20).map(|n| json!({"_id": format!("{n:02}"), "k": n / 4}))).await;
    let ids = async |view: View| -> Vec<u32> {
        fetch(view).await.ids().map(|id| id.parse().unwrap()).collect()
    };
    let view = || db.view("d/v");
    assert_eq!(ids(view().key(2)).await, [8, 9, 10, 11]);
    assert_eq!(ids(view().key(2.5)).await, [0; 0]);
    assert_eq!(ids(view().range(1..3)).await, (4..12).collect::<Vec<_>>());
    assert_eq!(ids(view().range(1..=3)).await, (4..16).collect::<Vec<_>>());
    assert_eq!(ids(view().range(3..)).await, (12..20).collect::<Vec<_>>());
    assert_eq!(ids(view().range(..=0).descending()).await, (0..20).rev().collect::<Vec<_>>());
    assert_eq!(ids(view().range(1..=0).descending()).await, (0..8).rev().collect::<Vec<_>>());
    assert_eq!(ids(view().range(1..0).descending()).await, (4..8).rev().collect::<Vec<_>>());
    assert_eq!(ids(view().range(3..=4).start_docid("14").end_docid("17")).await, [14, 15, 16, 17]);
    assert_eq!(ids(view().start_docid("14").end_docid("17")).await, (0..20).collect::<Vec<_>>());
    assert_eq!(ids(view().keys([3, 9, 0])).await, [12, 13, 14, 15, 0, 1, 2, 3]);
    assert_eq!(ids(view().keys([0; 0])).await, [0; 0]);
    assert_eq!(ids(view().skip(5).limit(3)).await, [5, 6, 7]);
    let result = fetch(view().range(2..).skip(3)).await;
    assert_eq!((result.total_rows, result.offset, result.len()), (Some(20), Some(11), 9));
    let result = fetch(view().descending().range(2..).limit(0)).await;
    assert_eq!((result.total_rows, result.offset, result.len()), (Some(20), Some(8), 0));
}

pub async fn what_makes_no_sense_is_refused(place: Place) {
    let db = with_views!(place, {"m": {"map": BY_K}, "r": {"map": BY_K, "reduce": "_count"}});
    for (view, reason) in [
        (db.view("d/m").group(), "Invalid use of grouping on a map view."),
        (db.view("d/m").group_level(1), "Invalid use of grouping on a map view."),
        (db.view("d/m").reduce(true), "Reduce is invalid for map-only views."),
        (db.view("d/r").include_docs(), "`include_docs` is invalid for reduce"),
        (db.view("d/r").keys([1, 2]), "Multi-key fetches for reduce views must use `group=true`"),
        (
            db.view("d/m").keys([1, 2]).range(1..),
            "`keys` is incompatible with `key`, `start_key` and `end_key`",
        ),
        (
            db.view("d/m").range(2..=1),
            "No rows can match your key range, reverse your start_key and end_key or set \
             descending=true",
        ),
        (
            db.view("d/m").range(1..=2).descending(),
            "No rows can match your key range, reverse your start_key and end_key or set \
             descending=false",
        ),
    ] {
        assert_eq!(fails(view.fetch().await, 400, "query_parse_error"), reason);
    }
    assert_eq!(fails(db.view("d/x").fetch().await, 404, "not_found"), "missing_named_view");
    assert_eq!(fails(db.view("x/v").fetch().await, 404, "not_found"), "missing");
    db.delete_current("_design/d").await.unwrap();
    // CouchDB says as well that it was updated or deleted.
    assert!(fails(db.view("d/m").fetch().await, 404, "not_found").contains("deleted"));
}

pub async fn documents_come_along(place: Place) {
    let db = with_views!(place, {"v": {"map": "function(doc) {
        if (doc.to) emit(0, {_id: doc.to}); else if (doc.at) emit(1, {_id: doc._id, _rev: doc.at});
        else emit(2);
    }"}});
    let old = db.put_at("b", r#"{"n": 1}"#).await.unwrap().rev;
    let mut new = doc(json!({"_id": "b", "_rev": old.to_string(), "n": 2}));
    db.save(&mut new).await.unwrap();
    put(&db, [json!({"_id": "a", "to": "b"}), json!({"_id": "c", "to": "nothing"})]).await;
    let result = fetch(db.view("d/v").include_docs()).await;
    let docs: Vec<_> = result.rows.iter().map(|row| row.doc.as_ref()).collect();
    assert_eq!(docs[0].unwrap().get("n"), Some(json!(2)));
    assert!(docs[1].is_none());
    assert_eq!(docs[2].unwrap().id.as_deref(), Some("b"));
    assert!(fetch(db.view("d/v")).await.rows.iter().all(|row| row.doc.is_none()));
    let key = db
        .view("d/v")
        .key(2)
        .include_docs_with(GetOptions { conflicts: true, ..GetOptions::default() });
    super::graft(&db, "b", &["1-f00"], false, json!({"n": 3})).await;
    let row = fetch(key).await.rows.remove(0);
    assert_eq!(row.doc.unwrap().meta.conflicts.len(), 1);
}

pub async fn built_in_functions_reduce(place: Place) {
    let mut views = serde_json::Map::new();
    for name in ["_sum", "_count", "_stats", "_approx_count_distinct"] {
        views.insert(name.to_owned(), json!({"map": BY_K, "reduce": name}));
    }
    let db = with_views!(place, views);
    put(&db, (1..=20).map(|n| json!({"k": [n % 2, n % 4], "v": n}))).await;
    let reduced = async |name: &str| fetch(db.view(&format!("d/{name}"))).await;
    let sum = reduced("_sum").await;
    assert_eq!((sum.total_rows, sum.offset, sum.len()), (None, None, 1));
    assert_eq!((keys(&sum), values(&sum)), (vec![Value::Null], vec![json!(210)]));
    assert_eq!(sum.rows[0].id, None);
    assert_eq!(values(&reduced("_count").await), [20]);
    let stats = json!({"sum": 210, "count": 20, "min": 1, "max": 20, "sumsqr": 2870});
    assert_eq!(values(&reduced("_stats").await), [stats]);
    assert_eq!(values(&reduced("_approx_count_distinct").await), [4]);

    let grouped = fetch(db.view("d/_sum").group_level(1)).await;
    assert_eq!(keys(&grouped), [json!([0]), json!([1])]);
    assert_eq!(values(&grouped), [110, 100]);
    let grouped = fetch(db.view("d/_sum").group().descending().skip(1).limit(2)).await;
    assert_eq!(keys(&grouped), [json!([1, 1]), json!([0, 2])]);
    assert_eq!(values(&grouped), [45, 50]);
    let range = fetch(db.view("d/_count").range((0, 2)..=(1, 1))).await;
    assert_eq!(values(&range), [10]);
    assert!(fetch(db.view("d/_count").key("none")).await.is_empty());
    let keyed = fetch(db.view("d/_sum").keys([(1, 3), (5, 5), (0, 0)]).group()).await;
    assert_eq!(keys(&keyed), [json!([1, 3]), json!([0, 0])]);
    assert_eq!(fetch(db.view("d/_sum").reduce(false)).await.total_rows, Some(20));
}

pub async fn sums_and_statistics_of_all_kinds(place: Place) {
    // A view for each kind: CouchDB cannot add lists to objects.
    let of = |kind: &str| {
        let map = format!("function(doc) {{ if (doc.k === '{kind}') emit(doc.k, doc.v); }}");
        json!({"map": map, "reduce": "_sum"})
    };
    let db = with_views!(place, {
        "lists": of("lists"),
        "mixed": of("mixed"),
        "objects": of("objects"),
    });
    put(
        &db,
        [
            json!({"k": "lists", "v": [1, 2, 3]}),
            json!({"k": "lists", "v": [4, 5]}),
            json!({"k": "mixed", "v": [1, 2]}),
            json!({"k": "mixed", "v": 3}),
            json!({"k": "objects", "v": {"a": 1, "b": {"c": 2}}}),
            json!({"k": "objects", "v": {"b": {"c": 5}, "d": [1]}}),
        ],
    )
    .await;
    for (view, sum) in [
        ("d/lists", json!([5, 7, 3])),
        ("d/mixed", json!([4, 2])),
        ("d/objects", json!({"a": 1, "b": {"c": 7}, "d": [1]})),
    ] {
        assert_eq!(values(&fetch(db.view(view)).await), [sum], "{view}");
    }
    put(&db, [json!({"k": "objects", "v": "text"})]).await;
    let error = &values(&fetch(db.view("d/objects")).await)[0];
    assert_eq!(error["error"], "builtin_reduce_error");
    assert_eq!(error["caused_by"], "text");
    assert!(error["reason"].as_str().unwrap().starts_with("The _sum function requires that map"));

    let lists = "function(doc) { if (doc.l) emit(doc.k, doc.l); }";
    let numbers = "function(doc) { if (doc.v) emit(doc.k, doc.v); }";
    let db = with_views!(place, {
        "lists": {"map": lists, "reduce": "_stats"},
        "numbers": {"map": numbers, "reduce": "_stats"},
    });
    let ready = json!({"sum": 10, "count": 4, "min": 1, "max": 4, "sumsqr": 30});
    put(&db, [json!({"k": 1, "v": 5}), json!({"k": 1, "v": ready}), json!({"l": [1, 2]})]).await;
    let stats = values(&fetch(db.view("d/numbers")).await);
    assert_eq!(stats, [json!({"sum": 15, "count": 5, "min": 1, "max": 5, "sumsqr": 55})]);
    let stats = values(&fetch(db.view("d/lists")).await);
    assert_eq!(stats[0][1], json!({"sum": 2, "count": 1, "min": 2, "max": 2, "sumsqr": 4}));
}

pub async fn functions_reduce_and_reduce_again(place: Place) {
    let reduce = "function(keys, values, rereduce) {
        if (rereduce) return {n: sum(values.map(function(v) { return v.n; })), rereduced: true};
        return {n: keys.length, rereduced: false};
    }";
    let db = with_views!(place, {"v": {"map": BY_K, "reduce": reduce}});
    put(&db, (0..2000).map(|n| json!({"k": [n % 10, n], "v": "some text to make rows larger"})))
        .await;
    assert_eq!(values(&fetch(db.view("d/v")).await), [json!({"n": 2000, "rereduced": true})]);
    let groups = values(&fetch(db.view("d/v").group_level(1)).await);
    assert!(groups.len() == 10 && groups.iter().all(|group| group["n"] == 200), "{groups:?}");
    let one = fetch(db.view("d/v").key((3, 3))).await;
    assert_eq!(values(&one)[0]["n"], 1);
}

pub async fn a_document_that_fails_has_no_rows(place: Place) {
    let db = with_views!(place, {"v": {"map": "function(doc) { emit(doc.a.b); }"}});
    put(&db, [json!({"a": {"b": 1}}), json!({}), json!({"a": {"b": 2}})]).await;
    assert_eq!(keys(&fetch(db.view("d/v")).await), [1, 2]);
}

pub async fn what_cannot_be_compiled_is_an_error(place: Place) {
    let db = with_views!(place, {"good": {"map": BY_K}});
    // CouchDB does not even store it.
    let bad = json!({"_id": "_design/bad", "views": {"v": {"map": "function(doc) {"}}});
    let stored = db.put(doc(bad)).await;
    let result = match stored {
        Ok(_) => db.view("bad/v").fetch().await.map(drop),
        Err(error) => Err(error),
    };
    let error = result.unwrap_err();
    assert_eq!(error.name(), "compilation_error", "{error:?}");
    assert!(fetch(db.view("d/good")).await.is_empty());
}

pub async fn functions_may_require_modules(place: Place) {
    let db = with_views!(place, {
        "lib": {"twice": "exports.of = function(n) { return 2 * n; };"},
        "v": {"map": "function(doc) { emit(require('views/lib/twice').of(doc.n)); }"},
    });
    put(&db, [json!({"n": 4}), json!({"n": 1})]).await;
    assert_eq!(keys(&fetch(db.view("d/v")).await), [2, 8]);
}

pub async fn design_documents_are_mapped_only_if_asked_for(place: Place) {
    let db = with_views!(place, {"v": {"map": "function(doc) { emit(doc._id); }"}});
    assert!(fetch(db.view("d/v")).await.is_empty());
    let design = json!({"_id": "_design/e", "options": {"include_design": true, "local_seq": true},
        "views": {"v": {"map": "function(doc) { emit(doc._id, typeof doc._local_seq); }"}}});
    db.put(doc(design)).await.unwrap();
    put(&db, [json!({"_id": "x"})]).await;
    let result = fetch(db.view("e/v")).await;
    assert_eq!(keys(&result), ["_design/d", "_design/e", "_design/probe", "x"]);
}

pub async fn a_changed_view_has_new_rows(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}, "w": {"map": BY_K, "reduce": "_count"}});
    put(&db, [json!({"k": 1, "v": 7})]).await;
    assert_eq!(keys(&fetch(db.view("d/v")).await), [1]);
    assert_eq!(values(&fetch(db.view("d/w")).await), [1]);
    let mut design = db.get("_design/d").await.unwrap();
    design
        .set(
            "views",
            json!({"v": {"map": "function(doc) { emit(doc.v); }"},
        "w": {"map": BY_K, "reduce": "_sum"}}),
        )
        .unwrap();
    db.save(&mut design).await.unwrap();
    assert_eq!(keys(&fetch(db.view("d/v")).await), [7]);
    assert_eq!(values(&fetch(db.view("d/w")).await), [7]);
    db.view_cleanup().await.unwrap();
    assert_eq!(keys(&fetch(db.view("d/v")).await), [7]);
}

pub async fn raw_collation_orders_by_bytes(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K, "options": {"collation": "raw"}}});
    put(
        &db,
        [json!("b"), json!("B"), json!("a"), json!(null), json!(3), json!({}), json!([])]
            .map(|key| json!({"k": key})),
    )
    .await;
    let expected =
        [json!(3), json!(null), json!({}), json!([]), json!("B"), json!("a"), json!("b")];
    assert_eq!(keys(&fetch(db.view("d/v")).await), expected);
}

pub async fn a_view_is_compacted_and_told_of(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}});
    put(&db, (0..300).map(|n| json!({"_id": format!("{n}"), "k": n}))).await;
    assert_eq!(fetch(db.view("d/v")).await.len(), 300);
    let info = db.design_info("d").await.unwrap();
    assert_eq!((info.name.as_str(), info.view_index.language.as_str()), ("d", "javascript"));
    assert_eq!(info.view_index.signature.len(), 32);
    assert!(!info.view_index.compact_running && info.view_index.sizes.active > 0);
    db.compact_views("d").await.unwrap();
    while db.design_info("d").await.unwrap().view_index.compact_running {
        crate::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(fetch(db.view("d/v")).await.len(), 300);
    super::missing(db.design_info("x").await);
}

pub async fn a_definition_keeps_its_design_document_up_to_date(place: Place) {
    let db = with_views!(place, {"other": {"map": BY_K}});
    let view =
        ViewDefinition::new("_design/d", "v", "\n    function(doc) {\n      emit(doc.k);\n    }");
    assert!(view.sync(&db).await.unwrap());
    assert!(!view.sync(&db).await.unwrap());
    let design = view.design_doc(&db).await.unwrap().unwrap();
    assert_eq!(design.get("views").unwrap()["other"]["map"], BY_K);
    put(&db, [json!({"k": 1}), json!({"k": 2})]).await;
    let options = settee::options::ViewOptions { descending: true, ..Default::default() };
    assert_eq!(keys(&fetch(view.query(&db)).await), [1, 2]);
    assert_eq!(keys(&fetch(view.clone().defaults(options).query(&db)).await), [2, 1]);
    let other = ViewDefinition::new("none", "v", BY_K).reduce("_count");
    assert!(other.design_doc(&db).await.unwrap().is_none());
    assert!(other.sync(&db).await.unwrap());
    assert_eq!(values(&fetch(other.query(&db)).await), [2]);
}

/// S-011 to S-018.
pub async fn s_011_018_persons_and_cities(place: Place) {
    let db = with_views!(place, {
        "persons": {"map": "function(doc) { if (doc.type == 'Person') emit(doc.name, null); }"},
        "all": {"map": "function(doc) { emit([doc.type, doc.name], doc.name); }"},
    });
    put(
        &db,
        [
            json!({"_id": "johndoe", "type": "Person", "name": "John Doe"}),
            json!({"_id": "maryjane", "type": "Person", "name": "Mary Jane"}),
            json!({"_id": "gotham", "type": "City", "name": "Gotham City"}),
        ],
    )
    .await;
    let persons = || db.view("d/persons");
    assert_eq!(keys(&fetch(persons()).await), ["John Doe", "Mary Jane"]);
    assert_eq!(keys(&fetch(persons().descending()).await), ["Mary Jane", "John Doe"]);
    assert_eq!(keys(&fetch(persons().key("John Doe")).await), ["John Doe"]);
    let ids = fetch(db.view("_all_docs")).await;
    assert!(ids.ids().any(|id| id == "gotham"));
    let all = || db.view("d/all");
    assert_eq!(fetch(all()).await.len(), 3);
    let result = fetch(all().range(json!(["Person"])..=json!(["Person", "ZZZZ"]))).await;
    assert_eq!(values(&result), ["John Doe", "Mary Jane"]);
    assert_eq!((result.total_rows, result.offset), (Some(3), Some(1)));
    let result = fetch(all().key(("City", "Gotham City"))).await;
    assert_eq!((result.len(), result.ids().next()), (1, Some("gotham")));
    assert_eq!(values(&result), ["Gotham City"]);
    // S-022.
    assert!(fetch(all().limit(1)).await.rows[0].doc.is_none());
    assert!(fetch(all().limit(1).include_docs()).await.rows[0].doc.is_some());
}

/// S-126 to S-131.
pub async fn s_126_131_employees_and_a_chronology(place: Place) {
    let db = with_views!(place, {
        "byname": {"map": "function(doc) { if (doc.last) emit(doc.last, doc.first); }"},
        "counts": {"map": "function(doc) { if (doc.date) emit(doc.date); }", "reduce": "_count"},
    });
    let names = [
        "reeder",
        "abbott",
        "coverley",
        "cullen",
        "macleish",
        "murray",
        "tucker",
        "messinger",
        "swain",
        "holhurst",
        "drake",
        "geens",
        "mannion",
        "kenny",
        "pritchard",
        "davis",
        "butler",
    ];
    put(&db, names.map(|name| json!({"last": name, "first": "x"}))).await;
    let days = [("28", 1), ("29", 17), ("30", 3)].map(|(day, n)| (["2007", "11", day], n));
    let more = [("01", 92), ("02", 50)].map(|(day, n)| (["2007", "12", day], n));
    for (date, n) in days.into_iter().chain(more) {
        put(&db, (0..n).map(|_| json!({"date": date}))).await;
    }
    let all = fetch(db.view("d/byname")).await;
    assert_eq!(format!("{all:?}"), "<d/byname: 17/17 rows>");
    let mut sorted = names;
    sorted.sort();
    assert_eq!(keys(&all), sorted);
    assert_eq!(keys(&fetch(db.view("d/byname").key("abbott")).await), ["abbott"]);
    let two = fetch(db.view("d/byname").keys(["coverley", "murray"])).await;
    assert_eq!(keys(&two), ["coverley", "murray"]);
    let with_doc = fetch(db.view("d/byname").key("abbott").include_docs()).await;
    assert_eq!(with_doc.rows[0].doc.as_ref().unwrap().get("last"), Some(json!("abbott")));
    assert_eq!(keys(&fetch(db.view("d/byname").range("c".."d")).await), ["coverley", "cullen"]);
    assert_eq!(fetch(db.view("d/counts").reduce(false)).await.len(), 163);
    let counts = fetch(db.view("d/counts").group()).await;
    assert_eq!(values(&counts), [1, 17, 3, 92, 50]);
    let months = fetch(db.view("d/counts").group_level(2)).await;
    assert_eq!(keys(&months), [json!(["2007", "11"]), json!(["2007", "12"])]);
    assert_eq!(values(&months), [21, 142]);
    // S-021.
    assert_eq!((months.total_rows, months.offset, &months.rows[0].id), (None, None, &None));
    assert_eq!(fetch(db.view("d/byname")).await.update_seq, None);
    let seen = fetch(db.view("d/byname").update_seq()).await.update_seq;
    assert!(seen.is_some());
}

/// S-066.
pub async fn s_066_a_view_is_named_by_its_path(place: Place) {
    let db = with_views!(place, {"viewname": {"map": "function(doc) { emit(doc.n); }"}});
    put(&db, (0..120).map(|n| json!({"n": n}))).await;
    let path = "_design/d/_view/viewname";
    assert_eq!(fetch(db.view(path)).await.len(), 120);
    assert_eq!(fetch(db.view(path).limit(100)).await.len(), 100);
}

/// U-021.
pub async fn u_021_cities_come_and_go(place: Place) {
    let db =
        with_views!(place, {"v": {"map": "function(doc) { emit(doc.city + ', ' + doc.state); }"}});
    let cities = [
        ("Boston", "MA"),
        ("Cambridge", "MA"),
        ("Concord", "NH"),
        ("Hartford", "CT"),
        ("Lowell", "MA"),
        ("Nashua", "NH"),
        ("Providence", "RI"),
        ("Salem", "MA"),
        ("Springfield", "MA"),
        ("Stamford", "CT"),
        ("Worcester", "MA"),
    ];
    put(&db, cities.map(|(city, state)| json!({"city": city, "state": state}))).await;
    let result = fetch(db.view("d/v")).await;
    assert_eq!(result.len(), 11);
    assert_eq!(
        (&keys(&result)[0], &keys(&result)[10]),
        (&json!("Boston, MA"), &json!("Worcester, MA"))
    );
    put(&db, [json!({"city": "Portland", "state": "ME"})]).await;
    assert_eq!(fetch(db.view("d/v")).await.len(), 12);
    for row in fetch(db.view("d/v").include_docs()).await {
        if row.key_as::<String>().unwrap().ends_with("MA") {
            db.delete_current(&row.id.unwrap()).await.unwrap();
        }
    }
    assert_eq!(fetch(db.view("d/v")).await.len(), 6);
}

/// U-022.
pub async fn u_022_keys_of_all_kinds_come_in_order(place: Place) {
    let db = with_views!(place, {"v": {"map": BY_K}});
    let ordered = json!([
        null, false, true, 1, 2, 3.0, 4, "a", "A", "aa", "b", "B", "ba", "bb", ["a"], ["b"],
        ["b", "c"], ["b", "c", "a"], ["b", "d"], ["b", "d", "e"], {"a": 1}, {"a": 2}, {"b": 1},
        {"b": 2}, {"b": 2, "c": 2},
    ]);
    let ordered = ordered.as_array().unwrap().clone();
    put(&db, ordered.iter().rev().map(|key| json!({"k": key}))).await;
    let same = |a: &[Value], b: &[Value]| {
        // A client may not tell 3.0 from 3.
        let number = |value: &Value| value.as_f64().map_or(value.clone(), |n| json!(n));
        a.iter().map(number).eq(b.iter().map(number))
    };
    let mut found = keys(&fetch(db.view("d/v")).await);
    assert!(same(&found, &ordered), "{found:?}");
    found.reverse();
    assert!(same(&keys(&fetch(db.view("d/v").descending()).await), &found));
    for key in &ordered {
        assert_eq!(fetch(db.view("d/v").key(key)).await.len(), 1, "{key}");
    }
}

/// U-039.
pub async fn u_039_rows_come_by_pages(place: Place) {
    let db = with_views!(place, {
        "v": {"map": "function(doc) { emit(doc.n, null); }"},
        "nulls": {"map": "function(doc) { emit(null, null); }"},
        "many": {"map": "function(doc) { for (var i = 0; i < 7; i++) emit(1, i); }"},
    });
    put(&db, (0..100).map(|n| json!({"_id": format!("{n:03}"), "n": n / 2}))).await;
    let ids = async |view: View, batch: u64| -> Vec<usize> {
        let rows: Vec<ViewRow> = view.pages(batch).try_collect().await.unwrap();
        rows.iter().map(|row| row.id.as_ref().unwrap().parse().unwrap()).collect()
    };
    let all: Vec<usize> = (0..100).collect();
    let reversed: Vec<usize> = (0..100).rev().collect();
    for batch in [1, 50, 99, 100, 101, 200] {
        assert_eq!(ids(db.view("d/v"), batch).await, all, "{batch}");
    }
    assert_eq!(ids(db.view("d/v").descending(), 25).await, reversed);
    for limit in [1, 25, 99, 100, 101] {
        let found = ids(db.view("d/v").limit(limit), 10).await;
        assert_eq!(found, all[..(limit as usize).min(100)], "{limit}");
    }
    assert_eq!(ids(db.view("d/v").limit(25), 25).await, all[..25]);
    assert_eq!(ids(db.view("d/v").skip(50), 10).await, all[50..]);
    assert_eq!(ids(db.view("d/v").range(49..), 10).await, [98, 99]);
    assert_eq!(ids(db.view("d/nulls"), 10).await, all);
    assert_eq!(ids(db.view("d/nulls").descending(), 10).await, reversed);
    assert_eq!(ids(db.view("d/many"), 3).await.len(), 700);
    let failure = |view: View, batch| async move {
        view.pages(batch).try_next().await.unwrap_err().reason().to_owned()
    };
    assert_eq!(failure(db.view("d/v"), 0).await, "batch must be 1 or more");
    assert_eq!(failure(db.view("d/v").limit(0), 10).await, "limit must be 1 or more");
}
