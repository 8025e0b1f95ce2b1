//! Views of the embedded engine: every answer is the same as that of a model which maps all documents,
//! sorts the rows and reduces them from scratch.

use crate::random::sequences;
use futures_executor::block_on;
use futures_util::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use settee::adapter::{Adapter, Host, ViewRows};
use settee::local::{Emitter, Local, LocalOptions, NativeView};
use settee::options::{Update, ViewOptions, WriteOptions};
use settee::wire::{TempView, ViewRow};
use settee::{Document, Error};
use settee_core::collate::Collation;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A row of the model: key, document, value.
type Emitted = (Value, String, Value);

/// `emits` of a document is a list of keys and values to emit.
fn map(doc: &Document, emitter: &mut Emitter) {
    for row in doc.get("emits").as_ref().and_then(Value::as_array).into_iter().flatten() {
        emitter.emit(&row[0], &row[1]);
    }
}

fn sum_of_lengths(keys: Option<&[(Value, String)]>, values: &[Value]) -> Value {
    match keys {
        Some(keys) => keys.iter().map(|(key, id)| key.to_string().len() + id.len()).sum(),
        None => values.iter().map(|value| value.as_u64().unwrap() as usize).sum::<usize>(),
    }
    .into()
}

fn register(local: &Local) {
    local.register(NativeView::new("emits", 1, map).reduce(sum_of_lengths));
}

const REDUCES: [&str; 10] = [
    "",
    "_count",
    "_sum",
    "_stats",
    "_approx_count_distinct",
    "_top_3",
    "_bottom_2",
    "_first",
    "_last",
    "emits",
];

fn design() -> Document {
    let mut views = serde_json::Map::new();
    for reduce in REDUCES {
        let view = match reduce {
            "" => json!({"map": "emits"}),
            reduce => json!({"map": "emits", "reduce": reduce}),
        };
        views.insert(format!("v{reduce}"), view);
    }
    views.insert("raw".into(), json!({"map": "emits", "options": {"collation": "raw"}}));
    let design = json!({"_id": "_design/d", "language": "rust", "views": views});
    design.try_into().unwrap()
}

/// A place with the views above, on disk or in memory.
struct Place<'d> {
    dir: Option<&'d Path>,
    local: Local,
    db: Arc<dyn Adapter>,
}

impl Place<'_> {
    fn open(dir: Option<&Path>) -> Place<'_> {
        let mut options = LocalOptions::default();
        // So little that documents by the dozen make several runs.
        options.index_memory = Some(4 << 10);
        let local = match dir {
            Some(dir) => loop {
                // A thread that was at work closes the directory when it notices.
                match Local::open(dir, &options) {
                    Ok(local) => break local,
                    Err(error) => assert_eq!(error.status(), 503, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(1));
            },
            None => Local::memory().unwrap(),
        };
        register(&local);
        if !block_on(local.exists("db")).unwrap() {
            block_on(local.create("db")).unwrap();
        }
        let db = local.database("db").unwrap();
        Place { dir, local, db }
    }

    fn reopen(self) -> Self {
        let dir = self.dir;
        if dir.is_none() {
            return self;
        }
        wait_for_compaction(&self.db);
        drop(self);
        Place::open(dir)
    }

    fn put(&self, doc: Value) -> settee::wire::Saved {
        block_on(self.db.put(doc.try_into().unwrap(), None, &WriteOptions::default())).unwrap()
    }
}

fn view(db: &Arc<dyn Adapter>, view: &str, options: &ViewOptions) -> Result<Answer, Error> {
    block_on(async { collect(db.view("d", view, options).await?).await })
}

async fn collect(rows: ViewRows) -> Result<Answer, Error> {
    let ViewRows { total_rows, offset, rows, .. } = rows;
    let rows = rows.try_concat().await?;
    Ok(Answer { total_rows, offset, rows: rows.iter().map(Answered::of).collect() })
}

#[derive(Debug, PartialEq)]
struct Answer {
    total_rows: Option<u64>,
    offset: Option<u64>,
    rows: Vec<Answered>,
}

impl Answer {
    fn keys(&self) -> Vec<Value> {
        self.rows.iter().map(|row| row.key.clone()).collect()
    }

    fn ids(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.id.as_deref().unwrap()).collect()
    }

    fn values(&self) -> Vec<Value> {
        self.rows.iter().map(|row| row.value.clone()).collect()
    }
}

#[derive(Debug, PartialEq, Clone)]
struct Answered {
    id: Option<String>,
    key: Value,
    value: Value,
    doc: Option<Value>,
}

impl Answered {
    fn of(row: &ViewRow) -> Answered {
        Answered {
            id: row.id.clone(),
            key: serde_json::from_slice(&row.key).unwrap(),
            value: serde_json::from_slice(&row.value).unwrap(),
            doc: row.doc.as_ref().map(|doc| serde_json::from_str(&doc.to_json()).unwrap()),
        }
    }
}

/// What the model knows: the rows, in order.
struct Naive {
    collation: Collation,
    rows: Vec<Emitted>,
}

impl Naive {
    fn new(docs: &BTreeMap<String, Value>, collation: Collation) -> Naive {
        let mut rows = Vec::new();
        for (id, doc) in docs {
            for row in doc["emits"].as_array().into_iter().flatten() {
                rows.push((row[0].clone(), id.clone(), row[1].clone()));
            }
        }
        rows.sort_by(|a, b| {
            collation
                .compare(&a.0, &b.0)
                .then_with(|| a.1.as_bytes().cmp(b.1.as_bytes()))
                .then_with(|| Collation::Raw.compare(&a.2, &b.2))
        });
        Naive { collation, rows }
    }

    fn answer(&self, reduce: &str, options: &ViewOptions) -> Answer {
        let key = |text: &String| serde_json::from_str::<Value>(text).unwrap();
        let ViewOptions { descending, skip, .. } = *options;
        let mut ranges = match &options.keys {
            Some(keys) if keys.len() != 1 => {
                keys.iter().map(|k| (Some(key(k)), Some(key(k)))).collect()
            }
            Some(keys) => vec![(Some(key(&keys[0])), Some(key(&keys[0])))],
            None => vec![(options.start.as_ref().map(key), options.end.as_ref().map(key))],
        };
        let reduces = !reduce.is_empty() && options.reduce != Some(false);
        if descending && !reduces {
            ranges.reverse();
        }
        let mut offset = None;
        let mut found = Vec::new();
        let mut last = 0;
        for (start, end) in ranges {
            let mut rows = self.rows.clone();
            if descending {
                rows.reverse();
            }
            let turn = |order: std::cmp::Ordering| if descending { order.reverse() } else { order };
            let from_start = |row: &Emitted| match &start {
                None => true,
                Some(start) => {
                    let order = self.collation.compare(&row.0, start).then_with(|| match &options
                        .start_docid
                    {
                        Some(id) => row.1.as_bytes().cmp(id.as_bytes()),
                        None if descending => std::cmp::Ordering::Less,
                        None => std::cmp::Ordering::Greater,
                    });
                    turn(order).is_ge()
                }
            };
            let to_end = |row: &Emitted| match &end {
                None => true,
                Some(end) => {
                    let order = turn(self.collation.compare(&row.0, end)).then_with(|| {
                        match &options.end_docid {
                            Some(id) => turn(row.1.as_bytes().cmp(id.as_bytes())),
                            None if options.inclusive_end => std::cmp::Ordering::Less,
                            None => std::cmp::Ordering::Greater,
                        }
                    });
                    if options.inclusive_end { order.is_le() } else { order.is_lt() }
                }
            };
            let before = rows.iter().take_while(|row| !from_start(row)).count();
            let rows: Vec<_> =
                rows.into_iter().filter(|row| from_start(row) && to_end(row)).collect();
            last = before;
            if !rows.is_empty() {
                offset.get_or_insert(before);
            }
            if reduces {
                found.extend(self.groups(reduce, options, rows));
            } else {
                found.extend(rows.into_iter().map(|(key, id, value)| Answered {
                    id: Some(id),
                    key,
                    value,
                    doc: None,
                }));
            }
        }
        let limit = options.limit.unwrap_or(u64::MAX) as usize;
        let rows = found.into_iter().skip(skip as usize).take(limit).collect();
        if reduces {
            return Answer { total_rows: None, offset: None, rows };
        }
        let total = self.rows.len() as u64;
        let offset = (offset.unwrap_or(last) as u64 + skip).min(total);
        Answer { total_rows: Some(total), offset: Some(offset), rows }
    }

    fn groups(&self, reduce: &str, options: &ViewOptions, rows: Vec<Emitted>) -> Vec<Answered> {
        let shorten = |key: &Value| match (options.group, options.group_level) {
            (Some(true), None) => key.clone(),
            (_, None | Some(0)) => Value::Null,
            (_, Some(level)) => match key {
                Value::Array(elements) => {
                    elements.iter().take(level as usize).cloned().collect::<Vec<_>>().into()
                }
                other => other.clone(),
            },
        };
        let mut groups: Vec<(Value, Vec<Emitted>)> = Vec::new();
        for row in rows {
            let key = shorten(&row.0);
            match groups.last_mut() {
                Some((last, rows)) if self.collation.compare(last, &key).is_eq() => rows.push(row),
                _ => groups.push((key, vec![row])),
            }
        }
        let reduced = groups.into_iter().map(|(key, mut rows)| {
            if options.descending {
                rows.reverse();
            }
            Answered { id: None, key, value: self.reduce(reduce, &rows), doc: None }
        });
        reduced.collect()
    }

    fn reduce(&self, reduce: &str, rows: &[Emitted]) -> Value {
        let number = |row: &Emitted| row.2.as_i64().unwrap();
        let numbers = || rows.iter().map(number);
        let distinct = |top: bool, n: usize| -> Value {
            let mut values: Vec<_> = numbers().collect();
            values.sort();
            values.dedup();
            if top {
                values.reverse();
            }
            values.truncate(n);
            values.into()
        };
        match reduce {
            "_count" => rows.len().into(),
            "_sum" => numbers().sum::<i64>().into(),
            "_stats" => json!({
                "sum": numbers().sum::<i64>(),
                "count": rows.len(),
                "min": numbers().min(),
                "max": numbers().max(),
                "sumsqr": numbers().map(|n| n * n).sum::<i64>(),
            }),
            "_approx_count_distinct" => {
                let mut keys: Vec<&Value> = rows.iter().map(|row| &row.0).collect();
                keys.dedup_by(|a, b| self.collation.compare(a, b).is_eq());
                keys.len().into()
            }
            "_top_3" => distinct(true, 3),
            "_bottom_2" => distinct(false, 2),
            "_first" => rows[0].2.clone(),
            "_last" => rows[rows.len() - 1].2.clone(),
            "emits" => {
                let keys: Vec<_> =
                    rows.iter().map(|(key, id, _)| (key.clone(), id.clone())).collect();
                sum_of_lengths(Some(&keys), &[])
            }
            other => panic!("{other}"),
        }
    }
}

fn random_key(random: &mut StdRng) -> Value {
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 | 3 => random.random_range(-3..4).into(),
        4 => json!(random.random_range(-4..5) as f64 / 2.0),
        5..8 => ["a", "A", "b", "é", "ab", "", "\u{fff0}", "z z"][random.random_range(0..8)].into(),
        8 => json!({"a": random.random_range(0..3)}),
        _ => (0..random.random_range(0..4)).map(|_| json!(random.random_range(0..3))).collect(),
    }
}

fn random_doc(random: &mut StdRng) -> Value {
    let count = match random.random_range(0..10) {
        0 => 0,
        1..7 => 1,
        7..9 => 3,
        _ => 40,
    };
    let emits: Vec<_> =
        (0..count).map(|_| json!([random_key(random), random.random_range(-5..100)])).collect();
    json!({"emits": emits})
}

fn random_options(random: &mut StdRng, reduce: &str) -> ViewOptions {
    let mut chance = |percent: u32| random.random_range(0..100) < percent;
    let mut options = ViewOptions {
        descending: chance(40),
        inclusive_end: chance(70),
        reduce: chance(30).then_some(false),
        ..ViewOptions::default()
    };
    let reduces = !reduce.is_empty() && options.reduce.is_none();
    let keys = chance(20);
    let (start, end, docids) = (chance(50), chance(50), chance(40));
    let (group, level) = (chance(60), chance(50));
    if chance(40) {
        options.limit = Some(random.random_range(0..20));
    }
    if random.random_range(0..100) < 40 {
        options.skip = random.random_range(0..12);
    }
    if keys && (!reduces || group) {
        let count = random.random_range(0..5);
        options.keys = Some((0..count).map(|_| random_key(random).to_string()).collect());
    } else {
        if start {
            options.start = Some(random_key(random).to_string());
        }
        if end {
            options.end = Some(random_key(random).to_string());
        }
    }
    if docids {
        options.start_docid = Some(format!("d{}", random.random_range(0..30)));
        options.end_docid = Some(format!("d{}", random.random_range(0..30)));
    }
    if reduces && group {
        options.group = Some(true);
        if level && options.keys.is_none() {
            options.group_level = Some(random.random_range(0..4));
        }
    }
    options
}

/// Random edits, deletions and purges, and between them random queries.
fn sequence(seed: u64, dir: Option<&Path>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut place = Place::open(dir);
    let mut docs: BTreeMap<String, Value> = BTreeMap::new();
    let mut revs: BTreeMap<String, settee::Rev> = BTreeMap::new();
    place.put(serde_json::from_str(&design().to_json()).unwrap());
    for _ in 0..60 {
        let edits = [1, 1, 1, 5, 60][random.random_range(0..5)];
        for _ in 0..edits {
            let id = format!("d{}", random.random_range(0..30));
            match (random.random_range(0..10), revs.get(&id).cloned()) {
                (0, Some(rev)) => {
                    let deletion = json!({"_id": id, "_rev": rev.to_string(), "_deleted": true});
                    place.put(deletion);
                    docs.remove(&id);
                    revs.remove(&id);
                }
                (1, Some(rev)) => {
                    block_on(place.db.purge(&[(id.clone(), vec![rev])].into())).unwrap();
                    docs.remove(&id);
                    revs.remove(&id);
                }
                (_, rev) => {
                    let mut doc = random_doc(&mut random);
                    docs.insert(id.clone(), doc.clone());
                    doc["_id"] = id.clone().into();
                    if let Some(rev) = rev {
                        doc["_rev"] = rev.to_string().into();
                    }
                    revs.insert(id, place.put(doc).rev);
                }
            }
        }
        if random.random_range(0..10) == 0 {
            place = place.reopen();
        }
        if random.random_range(0..10) == 0 {
            block_on(place.db.compact_views("d")).unwrap();
        }
        for _ in 0..4 {
            let reduce = REDUCES[random.random_range(0..REDUCES.len())];
            let raw = reduce.is_empty() && random.random();
            let collation = if raw { Collation::Raw } else { Collation::Unicode };
            let name = if raw { "raw".to_owned() } else { format!("v{reduce}") };
            let options = random_options(&mut random, reduce);
            match view(&place.db, &name, &options) {
                Ok(answer) => {
                    let expected = Naive::new(&docs, collation).answer(reduce, &options);
                    if reduce == "_approx_count_distinct" && options.reduce.is_none() {
                        assert_eq!(answer.keys(), expected.keys(), "{options:?}");
                        for (a, b) in answer.values().iter().zip(expected.values()) {
                            let off = a.as_i64().unwrap().abs_diff(b.as_i64().unwrap());
                            assert!(off <= 3, "{a} instead of {b}");
                        }
                    } else {
                        assert_eq!(answer, expected, "{name} {options:?}");
                    }
                }
                Err(error) => {
                    let reversed = error.reason().starts_with("No rows can match your key range");
                    assert!(reversed, "{name} {options:?}: {error}");
                    let mut options = options.clone();
                    // Nothing would have been found.
                    options.limit = None;
                    options.skip = 0;
                    let naive = Naive::new(&docs, collation).answer(reduce, &options);
                    assert!(naive.rows.is_empty(), "{name} {options:?}: {naive:?}");
                }
            }
        }
    }
    wait_for_compaction(&place.db);
    let report = place.local.check().unwrap();
    assert_eq!(report.problems, [""; 0]);
}

fn wait_for_compaction(db: &Arc<dyn Adapter>) {
    while block_on(db.design_info("d")).unwrap().view_index.compact_running {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_query_of_a_view_in_memory_is_as_the_model_has_it() {
    sequences(3, |seed| sequence(seed, None));
}

#[test]
fn every_query_of_a_view_on_disk_is_as_the_model_has_it() {
    sequences(2, |seed| {
        let dir = tempfile::tempdir().unwrap();
        sequence(seed, Some(dir.path()));
    });
}

/// Many documents, and a view that counts how often each was mapped.
fn counted(local: &Local, slowly: bool) -> Arc<AtomicU64> {
    let mapped = Arc::new(AtomicU64::new(0));
    let count = mapped.clone();
    local.register(NativeView::new("counted", 1, move |doc, emitter| {
        count.fetch_add(1, Ordering::Relaxed);
        if slowly {
            std::thread::sleep(Duration::from_micros(200));
        }
        emitter.emit(doc.get("n"), "some text, so that the rows are not too small");
    }));
    mapped
}

fn counted_design(local: &Local) -> Arc<dyn Adapter> {
    block_on(local.create("many")).unwrap();
    let db = local.database("many").unwrap();
    let docs = (0..5000_u64).map(|n| {
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        json!({"n": n}).try_into().unwrap()
    });
    let written = block_on(db.bulk_docs(docs.collect(), &WriteOptions::default())).unwrap();
    assert!(written.iter().all(Result::is_ok));
    let design = json!({"_id": "_design/d", "language": "rust",
        "views": {"v": {"map": "counted", "reduce": "_count"}}});
    block_on(db.put(design.try_into().unwrap(), None, &WriteOptions::default())).unwrap();
    db
}

#[test]
fn a_build_that_was_interrupted_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let mut options = LocalOptions::default();
        options.index_memory = Some(64 << 10);
        loop {
            match Local::open(dir.path(), &options) {
                Ok(local) => return local,
                Err(error) => assert_eq!(error.status(), 503, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut local = open();
    counted_design(&local);
    let mut mapped_before = 0;
    for round in 0..4 {
        let mapped = counted(&local, true);
        let db = local.database("many").unwrap();
        let later = ViewOptions { update: Update::After, ..ViewOptions::default() };
        drop(block_on(db.view("d", "v", &later)).unwrap());
        // On a fast machine it may be through before it is interrupted for the last time.
        let through =
            || block_on(db.design_info("d")).unwrap().view_index.updates_pending.total == 0;
        while mapped.load(Ordering::Relaxed) < 1000 && !through() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(local.check().unwrap().problems, [""; 0], "{round}");
        drop((db, local));
        // It has been seen to: nobody uses it any more, so it ends.
        local = open();
        mapped_before += mapped.load(Ordering::Relaxed);
    }
    let mapped = counted(&local, false);
    let db = local.database("many").unwrap();
    // Some documents change meanwhile, some go.
    let ids = block_on(async {
        let rows = db.all_docs(&Default::default()).await.unwrap().rows;
        rows.try_concat().await.unwrap()
    });
    for row in ids.iter().filter(|row| !row.id.starts_with('_')).step_by(10) {
        let mut doc = block_on(db.get(&row.id, &Default::default())).unwrap();
        doc.deleted = true;
        block_on(db.put(doc, None, &WriteOptions::default())).unwrap();
    }
    assert_eq!(view(&db, "v", &ViewOptions::default()).unwrap().values(), [4500]);
    let mapped = mapped.load(Ordering::Relaxed);
    assert!(mapped < 4500, "all over again: {mapped_before} {mapped}");
    assert_eq!(local.check().unwrap().problems, [""; 0]);
}

#[test]
fn a_view_is_queried_while_another_is_made() {
    let local = Local::memory().unwrap();
    counted(&local, true);
    register(&local);
    let db = counted_design(&local);
    let mut design = block_on(db.get("_design/d", &Default::default())).unwrap();
    design.set("views", json!({"v": {"map": "counted"}, "w": {"map": "emits"}})).unwrap();
    block_on(db.put(design, None, &WriteOptions::default())).unwrap();
    view(&db, "w", &ViewOptions::default()).unwrap();
    let later = ViewOptions { update: Update::After, ..ViewOptions::default() };
    assert!(view(&db, "v", &later).unwrap().rows.is_empty());
    let tasks = loop {
        let tasks = block_on(local.active_tasks()).unwrap();
        if !tasks.is_empty() {
            break tasks;
        }
    };
    let task = &tasks[0];
    assert_eq!((task.kind.as_str(), task.database.as_deref()), ("indexer", Some("many")));
    assert_eq!(task.design_document.as_deref(), Some("_design/d"));
    assert!(view(&db, "w", &ViewOptions::default()).unwrap().rows.is_empty());
    let info = block_on(db.design_info("d")).unwrap().view_index;
    assert!(info.updater_running && info.updates_pending.total > 0);
    assert_eq!(view(&db, "v", &ViewOptions::default()).unwrap().rows.len(), 5000);
    while !block_on(local.active_tasks()).unwrap().is_empty() {}
    let info = block_on(db.design_info("d")).unwrap().view_index;
    assert_eq!(info.updates_pending.total, 0);
}

#[test]
fn cleaning_up_drops_what_nobody_asks_for() {
    let local = Local::memory().unwrap();
    let db = counted_design(&local);
    let mapped = counted(&local, false);
    assert_eq!(view(&db, "v", &ViewOptions::default()).unwrap().values(), [5000]);
    block_on(db.view_cleanup()).unwrap();
    assert_eq!(view(&db, "v", &ViewOptions::default()).unwrap().values(), [5000]);
    assert_eq!(mapped.load(Ordering::Relaxed), 5000);
    assert_eq!(local.check().unwrap().indexes, 1);
    let design = block_on(db.get("_design/d", &Default::default())).unwrap();
    let gone = Document { deleted: true, ..design.clone() };
    block_on(db.put(gone, None, &WriteOptions::default())).unwrap();
    block_on(db.view_cleanup()).unwrap();
    assert_eq!(local.check().unwrap().indexes, 0);
    let again = Document { rev: None, ..design };
    block_on(db.put(again, None, &WriteOptions::default())).unwrap();
    assert_eq!(view(&db, "v", &ViewOptions::default()).unwrap().values(), [5000]);
    assert_eq!(mapped.load(Ordering::Relaxed), 10_000);
    // A version of its own, rows of its own.
    local.register(NativeView::new("counted", 2, |_, emitter| emitter.emit((), ())));
    let plain = ViewOptions { reduce: Some(false), limit: Some(1), ..ViewOptions::default() };
    assert_eq!(view(&db, "v", &plain).unwrap().keys(), [Value::Null]);
    block_on(local.delete("many")).unwrap();
    assert_eq!(local.check().unwrap().indexes, 0);
}

#[test]
fn purges_that_are_forgotten_make_an_index_anew() {
    let place = Place::open(None);
    place.put(serde_json::from_str(&design().to_json()).unwrap());
    block_on(place.db.set_purged_infos_limit(2)).unwrap();
    let revs: Vec<_> = (0..10)
        .map(|n| {
            let doc = json!({"_id": format!("{n}"), "emits": [[n, 1]]});
            (format!("{n}"), place.put(doc).rev)
        })
        .collect();
    assert_eq!(view(&place.db, "v", &ViewOptions::default()).unwrap().ids().len(), 10);
    for (id, rev) in &revs[..7] {
        block_on(place.db.purge(&[(id.clone(), vec![rev.clone()])].into())).unwrap();
    }
    assert_eq!(view(&place.db, "v", &ViewOptions::default()).unwrap().ids(), ["7", "8", "9"]);
    assert_eq!(place.local.check().unwrap().problems, [""; 0]);
}

#[test]
fn temporary_views_come_and_go() {
    let place = Place::open(None);
    place.put(json!({"_id": "x", "emits": [[1, 2]]}));
    let ask = |map: &str, reduce: Option<&str>| {
        let view = TempView {
            language: "rust".to_owned(),
            map: map.to_owned(),
            reduce: reduce.map(str::to_owned),
            options: Default::default(),
        };
        block_on(async { collect(place.db.temp_view(&view, &ViewOptions::default()).await?).await })
    };
    assert_eq!(ask("emits", None).unwrap().keys(), [1]);
    assert_eq!(ask("emits", Some("_sum")).unwrap().values(), [2]);
    assert_eq!(ask("nothing", None).unwrap_err().name(), "unknown_native_function");
    for n in 0..20 {
        let name = format!("view{n}");
        place.local.register(NativeView::new(name.clone(), 1, map));
        assert_eq!(ask(&name, None).unwrap().keys(), [1]);
    }
    assert_eq!(place.local.check().unwrap().indexes, 8);
    block_on(place.db.view_cleanup()).unwrap();
    assert_eq!(place.local.check().unwrap().indexes, 0);
    assert_eq!(ask("emits", None).unwrap().keys(), [1]);
}

#[test]
fn a_native_function_that_panics_costs_its_document_only() {
    let local = Local::memory().unwrap();
    local.register(NativeView::new("counted", 1, |doc, emitter| {
        let n = doc.get("n").unwrap();
        assert!(n.as_u64().unwrap() % 2 == 0, "odd");
        emitter.emit(n, ());
    }));
    let db = counted_design(&local);
    let rows = view(&db, "v", &ViewOptions::default()).unwrap().values();
    assert!((2000..3000).contains(&rows[0].as_u64().unwrap()), "{rows:?}");
}

#[test]
fn rows_of_any_size_are_kept() {
    let place = Place::open(None);
    place.put(serde_json::from_str(&design().to_json()).unwrap());
    let mut expected = Vec::new();
    for n in 0..60_u32 {
        // From nothing to more than sixteen bits can count.
        let text = "x".repeat(n.pow(3) as usize);
        place.put(json!({"_id": format!("{n:02}"), "emits": [[[n, text], text.len()]]}));
        expected.push(text.len());
    }
    let plain = view(&place.db, "v", &ViewOptions::default()).unwrap();
    assert_eq!(plain.values(), expected);
    let sum = view(&place.db, "v_sum", &ViewOptions::default()).unwrap().values();
    assert_eq!(sum, [expected.iter().sum::<usize>()]);
    assert_eq!(place.local.check().unwrap().problems, [""; 0]);
}
