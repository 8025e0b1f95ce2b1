//! A model of a database that is too simple to be wrong: every revision is an entry of a map, and
//! everything else is worked out from those when asked. And random operations, done to a database and
//! to the model, after which the two must agree.
//!
//! Revisions' hashes are taken from the database, and checked by computing them.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use settee::options::{Durability, GetOptions, OpenRevs, WriteOptions};
use settee::prelude::*;
use settee::wire::{RevResult, RevsByDoc};
use settee::{Attachment, AttachmentData, Rev, Revisions};
use std::collections::{BTreeMap, BTreeSet};

/// One revision.
#[derive(Debug, Clone)]
struct Node {
    /// Where it comes from, as far as that is remembered.
    parent: Option<Rev>,
    deleted: bool,
    /// What it holds, unless that never came or was dropped.
    content: Option<Content>,
}

#[derive(Debug, Clone, PartialEq)]
struct Content {
    n: u64,
    attachments: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, Default)]
struct Doc {
    nodes: BTreeMap<Rev, Node>,
    /// When it changed last.
    changed: u64,
}

/// A database as it should be.
#[derive(Debug, Clone)]
pub struct Model {
    docs: BTreeMap<String, Doc>,
    local: BTreeMap<String, u64>,
    /// What revisions from elsewhere descend from, and whether they are deletions. Of one revision,
    /// this is told the same way every time, as it is in the world.
    world: BTreeMap<String, BTreeMap<Rev, Option<Rev>>>,
    clock: u64,
    revs_limit: usize,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            docs: BTreeMap::new(),
            local: BTreeMap::new(),
            world: BTreeMap::new(),
            clock: 0,
            revs_limit: 1000,
        }
    }
}

impl Doc {
    /// The leaves, winner first, then as CouchDB orders conflicts.
    fn leaves(&self) -> Vec<(&Rev, &Node)> {
        let parents: BTreeSet<_> =
            self.nodes.values().filter_map(|node| node.parent.as_ref()).collect();
        let mut leaves: Vec<_> =
            self.nodes.iter().filter(|(rev, _)| !parents.contains(rev)).collect();
        leaves.sort_by_key(|(rev, node)| (node.deleted, std::cmp::Reverse((*rev).clone())));
        leaves
    }

    fn winner(&self) -> (&Rev, &Node) {
        self.leaves()[0]
    }

    fn is_leaf(&self, rev: &Rev) -> bool {
        self.leaves().iter().any(|(leaf, _)| *leaf == rev)
    }

    /// A revision and its ancestors.
    fn path(&self, rev: &Rev) -> Vec<Rev> {
        let mut path = vec![rev.clone()];
        while let Some(parent) = self.nodes[&path[path.len() - 1]].parent.clone() {
            path.push(parent);
        }
        path
    }

    /// Keeps only what leads to these leaves, each so far back.
    fn keep(&mut self, leaves: &[Rev], limit: usize) {
        let kept: BTreeSet<Rev> =
            leaves.iter().flat_map(|leaf| self.path(leaf).into_iter().take(limit)).collect();
        self.nodes.retain(|rev, _| kept.contains(rev));
        for node in self.nodes.values_mut() {
            node.parent = node.parent.take().filter(|parent| kept.contains(parent));
        }
    }

    fn leaf_revs(&self) -> Vec<Rev> {
        self.leaves().into_iter().map(|(rev, _)| rev.clone()).collect()
    }
}

impl Model {
    /// Adds a revision with its ancestors, nearest first.
    fn add(&mut self, id: &str, path: &[Rev], deleted: bool, content: Content) {
        self.clock += 1;
        let doc = self.docs.entry(id.to_owned()).or_default();
        doc.changed = self.clock;
        for (n, rev) in path.iter().enumerate() {
            let parent = path.get(n + 1).cloned();
            let node = doc.nodes.entry(rev.clone()).or_insert(Node {
                parent: None,
                deleted: false,
                content: None,
            });
            node.parent = node.parent.take().or(parent);
        }
        if let Some(node) = doc.nodes.get_mut(&path[0]) {
            node.deleted = deleted;
            node.content = Some(content);
        }
        doc.keep(&doc.leaf_revs(), self.revs_limit);
        let world = self.world.entry(id.to_owned()).or_default();
        for (n, rev) in path.iter().enumerate() {
            let known = world.entry(rev.clone()).or_default();
            *known = known.take().or_else(|| path.get(n + 1).cloned());
        }
    }

    /// Drops the contents that a compaction drops.
    pub fn compact(&mut self) {
        for doc in self.docs.values_mut() {
            let leaves: BTreeSet<_> = doc.leaf_revs().into_iter().collect();
            for (rev, node) in &mut doc.nodes {
                if !leaves.contains(rev) {
                    node.content = None;
                }
            }
        }
    }

    fn purge(&mut self, id: &str, revs: &[Rev]) -> Vec<Rev> {
        let Some(doc) = self.docs.get_mut(id) else { return Vec::new() };
        let (gone, left): (Vec<_>, Vec<_>) =
            doc.leaf_revs().into_iter().partition(|leaf| revs.contains(leaf));
        if !gone.is_empty() {
            self.clock += 1;
            doc.changed = self.clock;
            doc.keep(&left, usize::MAX);
        }
        if left.is_empty() {
            self.docs.remove(id);
        }
        gone
    }
}

/// A source of operations.
#[derive(Debug)]
pub struct Random {
    rng: StdRng,
    /// Makes every content different.
    next: u64,
}

const IDS: [&str; 8] = ["a", "b", "b/c", "d", "é", "_design/e", "zz", "\u{10ffff}"];
const NAMES: [&str; 3] = ["x.bin", "y.txt", "z"];

/// From empty to more than a chunk, and few enough for equal ones to meet.
fn bytes(kind: u64) -> Bytes {
    let length = [0, 1, 300, 5_000, 150_000][kind as usize % 5];
    (0..length).map(|n: u32| (n.wrapping_mul(n) >> 3) as u8).collect()
}

fn members(content: &Content) -> Document {
    // Some bodies are too large to live beside their document's row.
    let pad = if content.n.is_multiple_of(7) { 6_000 } else { 10 };
    json!({"n": content.n, "pad": "x".repeat(pad)}).into_document().expect("a document")
}

impl Random {
    /// A source that always gives the same for one seed.
    pub fn new(seed: u64) -> Random {
        Random { rng: StdRng::seed_from_u64(seed), next: 0 }
    }

    /// The generator, for choices of the caller's own.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn content(&mut self) -> Content {
        self.next += 1;
        let mut attachments = BTreeMap::new();
        if self.one_in(5) {
            for name in NAMES {
                if self.rng.random() {
                    attachments.insert(name.to_owned(), bytes(self.rng.random()));
                }
            }
        }
        Content { n: self.next, attachments }
    }

    /// Does one operation to both.
    ///
    /// # Panics
    ///
    /// If they do not answer the same.
    pub async fn step(&mut self, db: &Database, model: &mut Model) {
        let id = *IDS.choose(&mut self.rng).expect("ids");
        match self.rng.random_range(0..100) {
            0..55 => self.edit(db, model, id).await,
            55..75 => self.graft(db, model, id).await,
            75..80 => self.resend(db, model, id).await,
            80..84 => self.purge(db, model, id).await,
            84..90 => self.write_local(db, model).await,
            90..92 => {
                model.revs_limit = *[1, 2, 5, 1000, 1000].choose(&mut self.rng).expect("limits");
                db.set_revs_limit(model.revs_limit as u64).await.expect("a limit");
            }
            _ => self.ask(db, model, id).await,
        }
    }

    /// An edit: of a leaf, of a revision that is none, or of no revision.
    async fn edit(&mut self, db: &Database, model: &mut Model, id: &str) {
        let old = model.docs.get(id);
        let base = match old {
            Some(doc) if !self.one_in(6) => {
                // Mostly the winner, which is first.
                let leaves = doc.leaf_revs();
                let n = if self.one_in(4) { self.rng.random_range(0..leaves.len()) } else { 0 };
                Some(leaves[n].clone())
            }
            Some(doc) if self.rng.random() => doc.nodes.keys().choose(&mut self.rng).cloned(),
            _ if self.one_in(8) => Some(Rev::new(self.rng.random_range(1..9), self.rng.random())),
            _ => None,
        };
        let deleted = self.one_in(5);
        let mut content = self.content();
        let parent = match (&base, old) {
            (Some(base), Some(doc)) if doc.is_leaf(base) && !doc.winner().1.deleted => {
                Some(Some(base.clone()))
            }
            (None, None) => Some(None),
            (None, Some(doc)) if doc.winner().1.deleted && !deleted => {
                Some(Some(doc.winner().0.clone()))
            }
            _ => None,
        };
        let mut doc = members(&content);
        (doc.id, doc.rev, doc.deleted) = (Some(id.to_owned()), base, deleted);
        // What the parent has may stay, by a stub.
        let kept: Vec<_> = match (&parent, old) {
            (Some(Some(parent)), Some(old)) => old.nodes[parent].content.iter(),
            _ => None.iter(),
        }
        .flat_map(|content| &content.attachments)
        .filter(|(name, _)| !content.attachments.contains_key(*name))
        .filter(|_| self.rng.random())
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect();
        doc.attachments = attachments(&content);
        for (name, bytes) in kept {
            let stub = Attachment::inline(name.as_str(), "", "");
            doc.attachments.push(Attachment { data: AttachmentData::Stub, length: None, ..stub });
            content.attachments.insert(name, bytes);
        }
        let no_attachments = doc.attachments.is_empty();
        let expected = doc.revision_hash(
            deleted,
            parent.as_ref().and_then(Option::as_ref),
            std::iter::empty(),
        );
        let result = self.write(db, doc, true).await;
        match (result, parent) {
            (Ok(rev), Some(parent)) => {
                assert_eq!(rev.pos, parent.as_ref().map_or(1, |parent| parent.pos + 1));
                if no_attachments {
                    assert_eq!(rev, Rev::new(rev.pos, expected.expect("a hash")));
                }
                let path: Vec<_> = [rev].into_iter().chain(parent).collect();
                model.add(id, &path, deleted, content);
            }
            (Err(error), None) => assert!(error.is_conflict(), "{error:?}"),
            (result, parent) => panic!("{id}: {result:?}, to be based on {parent:?}"),
        }
    }

    async fn write(&mut self, db: &Database, doc: Document, new_edits: bool) -> Result<Rev> {
        let durability = if self.rng.random() { Durability::Flush } else { Durability::Deferred };
        let options = WriteOptions { new_edits, durability };
        if self.rng.random() {
            return db.adapter().put(doc, None, &options).await.map(|saved| saved.rev);
        }
        let result = db.adapter().bulk_docs(vec![doc], &options).await?.pop().expect("a result");
        result.map(|saved| saved.rev).map_err(|failed| failed.error)
    }

    /// Revisions that somebody made elsewhere, from whatever was known there.
    async fn graft(&mut self, db: &Database, model: &mut Model, id: &str) {
        let world = model.world.entry(id.to_owned()).or_default();
        let mut path = Vec::new();
        let mut from = match self.one_in(5) {
            true => None,
            false => world.keys().choose(&mut self.rng).cloned(),
        };
        while let Some(rev) = from {
            from = world.get(&rev).cloned().flatten();
            path.push(rev);
        }
        for _ in 0..self.rng.random_range(1..4) {
            let pos = path.first().map_or(1, |rev: &Rev| rev.pos + 1);
            let rev = match self.one_in(4) {
                true => format!("{pos}-text{}", self.rng.random::<u16>()).parse().expect("a rev"),
                false => Rev::new(pos, self.rng.random()),
            };
            path.insert(0, rev);
        }
        let content = self.content();
        let deleted = self.one_in(4);
        let mut doc = members(&content);
        (doc.id, doc.rev, doc.deleted) = (Some(id.to_owned()), Some(path[0].clone()), deleted);
        doc.attachments = attachments(&content);
        let ids = path.iter().map(|rev| rev.id.clone()).collect();
        doc.revisions = Some(Revisions { start: path[0].pos, ids });
        assert_eq!(self.write(db, doc, false).await.expect("never a conflict"), path[0]);
        model.add(id, &path, deleted, content);
    }

    /// A revision that is here already, once more: nothing happens.
    async fn resend(&mut self, db: &Database, model: &mut Model, id: &str) {
        let Some(doc) = model.docs.get(id) else { return };
        let here = doc.nodes.iter().filter(|(_, node)| node.content.is_some());
        let (rev, node) = here.choose(&mut self.rng).expect("a leaf is always here");
        let mut again = members(&Content { n: 0, attachments: BTreeMap::new() });
        (again.id, again.rev, again.deleted) =
            (Some(id.to_owned()), Some(rev.clone()), node.deleted);
        let ids = doc.path(rev).into_iter().map(|rev| rev.id).collect();
        again.revisions = Some(Revisions { start: rev.pos, ids });
        let before = db.info().await.expect("info").update_seq;
        self.write(db, again, false).await.expect("never a conflict");
        assert_eq!(db.info().await.expect("info").update_seq, before);
    }

    async fn purge(&mut self, db: &Database, model: &mut Model, id: &str) {
        let known = model.docs.get(id).map(|doc| doc.nodes.keys().cloned());
        let revs: Vec<_> = known.into_iter().flatten().filter(|_| self.rng.random()).collect();
        let asked = RevsByDoc::from([(id.to_owned(), revs.clone())]);
        let purged = db.adapter().purge(&asked).await.expect("a purge").purged;
        let told: BTreeSet<_> = purged.into_values().flatten().collect();
        let expected: BTreeSet<_> = model.purge(id, &revs).into_iter().collect();
        assert_eq!(told, expected);
        // What is gone may be made anew, by other parents.
        if !model.docs.contains_key(id) {
            model.world.remove(id);
        }
    }

    async fn write_local(&mut self, db: &Database, model: &mut Model) {
        let id = format!("_local/{}", self.rng.random_range(0..4));
        if self.one_in(3) {
            let deleted = db.delete_current(&id).await;
            assert_eq!(deleted.is_ok(), model.local.remove(&id).is_some(), "{id}: {deleted:?}");
        } else {
            self.next += 1;
            db.put(json!({"_id": id, "n": self.next})).await.expect("never a conflict");
            model.local.insert(id, self.next);
        }
    }

    /// Which of some revisions are missing.
    async fn ask(&mut self, db: &Database, model: &Model, id: &str) {
        let none = Doc::default();
        let doc = model.docs.get(id).unwrap_or(&none);
        let unknown = Rev::new(self.rng.random_range(1..5), self.rng.random());
        let mut asked: Vec<_> = doc.nodes.keys().filter(|_| self.rng.random()).cloned().collect();
        asked.push(unknown.clone());
        let diff = db.revs_diff(&RevsByDoc::from([(id.to_owned(), asked)])).await.expect("a diff");
        assert_eq!(diff[id].missing, [unknown]);
    }
}

fn attachments(content: &Content) -> Vec<Attachment> {
    let kind = |name: &str| if name.ends_with(".txt") { "text/plain" } else { "image/x" };
    let inline = |(name, bytes): (&String, &Bytes)| {
        Attachment::inline(name.as_str(), kind(name), bytes.clone())
    };
    content.attachments.iter().map(inline).collect()
}

/// What a document that was read holds.
fn content(doc: &Document) -> Content {
    let attachments = doc.attachments.iter().map(|attachment| match &attachment.data {
        AttachmentData::Inline(bytes) => (attachment.name.clone(), bytes.clone()),
        other => panic!("{} is {other:?}", attachment.name),
    });
    let n = doc.get("n").as_ref().and_then(Value::as_u64).expect("a number");
    Content { n, attachments: attachments.collect() }
}

/// Compares everything a database tells with its model.
///
/// # Panics
///
/// If anything differs.
pub async fn compare(db: &Database, model: &Model) {
    let (alive, gone): (Vec<_>, Vec<_>) =
        model.docs.iter().partition(|(_, doc)| !doc.winner().1.deleted);
    let info = db.info().await.expect("info");
    assert_eq!(
        (info.doc_count as usize, info.doc_del_count as usize),
        (alive.len(), gone.len()),
        "counts"
    );

    let listing = db.all_docs().fetch().await.expect("a listing");
    let listed: Vec<_> = listing.rows.iter().map(|row| (&row.id, row.rev.as_ref())).collect();
    let expected: Vec<_> = alive.iter().map(|(id, doc)| (*id, Some(doc.winner().0))).collect();
    assert_eq!(listed, expected, "listing");

    let changes = db.changes().all_leaves().fetch().await.expect("changes").changes;
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            let leaves: BTreeSet<_> = change.revs.iter().collect();
            (&change.id, &change.revs[0], leaves, change.deleted)
        })
        .collect();
    let mut by_change: Vec<_> = model.docs.iter().collect();
    by_change.sort_by_key(|(_, doc)| doc.changed);
    let expected: Vec<_> = by_change
        .into_iter()
        .map(|(id, doc)| {
            let leaves = doc.leaves().into_iter().map(|(rev, _)| rev).collect();
            (id, doc.winner().0, leaves, doc.winner().1.deleted)
        })
        .collect();
    assert_eq!(told, expected, "changes");

    for (id, doc) in &model.docs {
        compare_doc(db, id, doc).await;
    }
    for id in IDS.iter().filter(|id| !model.docs.contains_key(**id)) {
        assert_eq!(db.get(id).await.expect_err("never was").reason(), "missing", "{id}");
    }
    let rows = db.local_docs().include_docs().fetch().await.expect("a listing").rows;
    let local: BTreeMap<_, _> = rows
        .into_iter()
        .map(|row| (row.id, row.doc.and_then(|doc| doc.get("n")?.as_u64()).expect("a number")))
        .collect();
    assert_eq!(local, model.local, "local documents");
}

async fn compare_doc(db: &Database, id: &str, doc: &Doc) {
    let leaves = doc.leaves();
    let (winner, node) = leaves[0];
    let options = GetOptions {
        conflicts: true,
        deleted_conflicts: true,
        revs: true,
        revs_info: true,
        attachments: true,
        ..Default::default()
    };
    let read = match node.deleted {
        false => db.get_with(id, &options).await.expect("the winner"),
        true => {
            assert_eq!(db.get(id).await.expect_err("deleted").reason(), "deleted", "{id}");
            let options = GetOptions { rev: Some(winner.clone()), ..options };
            db.get_with(id, &options).await.expect("the winner")
        }
    };
    assert_eq!((read.rev.as_ref(), read.deleted), (Some(winner), node.deleted), "{id}");
    assert_eq!(Some(content(&read)), node.content, "{id}");
    let revisions = read.revisions.expect("revisions");
    let path = doc.path(winner);
    assert_eq!(revisions.start, winner.pos, "{id}");
    assert_eq!(revisions.ids, path.iter().map(|rev| rev.id.clone()).collect::<Vec<_>>(), "{id}");
    let status: Vec<_> = read.meta.revs_info.expect("revs_info");
    for ((rev, status), expected) in status.iter().zip(&path) {
        assert_eq!(rev, expected);
        let here = doc.nodes[rev].content.is_some();
        assert_eq!(status.name() == "missing", !here, "{id} {rev}");
    }
    if !node.deleted {
        let others = |deleted| {
            let others = leaves[1..].iter().filter(move |(_, node)| node.deleted == deleted);
            others.map(|(rev, _)| (*rev).clone()).collect::<Vec<_>>()
        };
        assert_eq!(read.meta.conflicts, others(false), "{id}");
        assert_eq!(read.meta.deleted_conflicts, others(true), "{id}");
    }

    let all = GetOptions { attachments: true, ..Default::default() };
    let open = db.adapter().open_revs(id, &OpenRevs::All, &all).await.expect("leaves");
    let open: BTreeMap<_, _> = open
        .into_iter()
        .map(|leaf| match leaf {
            RevResult::Found(doc) => (doc.rev.clone().expect("a rev"), content(&doc)),
            RevResult::Missing(error) => panic!("{id}: {error:?}"),
        })
        .collect();
    let expected: BTreeMap<_, _> = leaves
        .iter()
        .map(|(rev, node)| ((*rev).clone(), node.content.clone().expect("a leaf is always here")))
        .collect();
    assert_eq!(open, expected, "{id}");

    for (rev, node) in &doc.nodes {
        let options =
            GetOptions { rev: Some(rev.clone()), attachments: true, ..Default::default() };
        let read = db.get_with(id, &options).await;
        match &node.content {
            Some(expected) => assert_eq!(&content(&read.expect("here")), expected, "{id} {rev}"),
            None => assert_eq!(read.expect_err("gone").reason(), "missing", "{id} {rev}"),
        }
    }
}
