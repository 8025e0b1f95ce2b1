//! What writers do, as a function of seed, writer and step, so that it can be done again elsewhere:
//! on a database in memory, which says what must be found on disk.
//!
//! Every writer has documents of its own. What it does next depends on its own documents only, so
//! however writers interleave, each leaves what it would have left alone.

use crate::block_on;
use crate::seed::rng;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use settee::adapter::{Adapter, Host};
use settee::local::Local;
use settee_core::options::{
    AttachmentHead, ChangesOptions, Durability, GetOptions, OpenRevs, Style, WriteOptions,
};
use settee_core::wire::{RevResult, RevsByDoc, Seq};
use settee_core::{Attachment, Document, Result, Rev, RevId, Revisions};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Documents of one writer.
const DOCS: u32 = 5;
/// Local documents of one writer.
const LOCALS: u32 = 2;
/// Enough for revisions to be stemmed now and then.
const REVS_LIMIT: u64 = 12;

/// One step of one writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) seed: u64,
    pub(crate) writer: usize,
    pub(crate) number: usize,
    /// Whether some steps may be acknowledged before they are durable.
    pub(crate) defer: bool,
}

impl Step {
    fn rng(self) -> StdRng {
        rng(&[self.seed, self.writer as u64, self.number as u64])
    }

    /// Whether the step asks to be acknowledged before it is durable.
    pub(crate) fn deferred(self) -> bool {
        self.rng().random_ratio(1, 8) && self.defer
    }

    /// Takes the step: one write, of whatever kind.
    pub(crate) async fn take(self, db: &dyn Adapter) -> Result<()> {
        let mut rng = self.rng();
        let deferred = rng.random_ratio(1, 8) && self.defer;
        let options = WriteOptions {
            durability: if deferred { Durability::Deferred } else { Durability::Flush },
            ..WriteOptions::default()
        };
        let doc = rng.random_range(0..DOCS);
        let id = self.id(doc);
        // Steps that cannot be deferred are durable, which is more than was asked for.
        match rng.random_range(0..100) {
            0..35 => {
                db.put(self.edit(db, &id, &mut rng).await?, None, &options).await?;
            }
            35..45 => {
                let mut doc = self.edit(db, &id, &mut rng).await?;
                doc.deleted = doc.rev.is_some();
                db.put(doc, None, &options).await?;
            }
            45..60 => {
                let mut docs = Vec::new();
                for doc in 0..DOCS {
                    if rng.random_bool(0.6) {
                        let mut doc = self.edit(db, &self.id(doc), &mut rng).await?;
                        doc.deleted = doc.rev.is_some() && rng.random_ratio(1, 5);
                        docs.push(doc);
                    }
                }
                for result in db.bulk_docs(docs, &options).await? {
                    result.map_err(|failed| failed.error)?;
                }
            }
            60..70 => {
                let mut doc = self.edit(db, &id, &mut rng).await?;
                let name = ["a", "b"][rng.random_range(0..2)];
                let media_type = ["text/plain", "image/png"].choose(&mut rng).unwrap();
                let content = content(&mut rng, 0..3_000);
                doc.attachments.retain(|attachment| attachment.name != name);
                doc.attachments.push(Attachment::inline(name, *media_type, content));
                db.put(doc, None, &options).await?;
            }
            70..73 => {
                let rev = self.edit(db, &id, &mut rng).await?.rev;
                let content = content(&mut rng, 130_000..300_000);
                let chunks: Vec<_> = (0..content.len())
                    .step_by(50_000)
                    .map(|from| Ok(content.slice(from..content.len().min(from + 50_000))))
                    .collect();
                let head = AttachmentHead::default();
                let body = stream::iter(chunks).boxed();
                db.put_attachment(&id, "large", rev, head, body).await?;
            }
            73..76 => {
                let doc = self.edit(db, &id, &mut rng).await?;
                match (doc.attachments.first().map(|old| old.name.clone()), doc.rev.clone()) {
                    (Some(name), Some(rev)) => {
                        db.delete_attachment(&id, &name, Some(rev)).await?;
                    }
                    _ => {
                        db.put(doc, None, &options).await?;
                    }
                }
            }
            76..84 => {
                let id = self.local(rng.random_range(0..LOCALS));
                let mut doc = Document::with_id(&id);
                if let Ok(old) = db.get(&id, &GetOptions::default()).await {
                    doc.rev = old.rev;
                    doc.deleted = rng.random_ratio(1, 4);
                }
                doc.set("step", self.number)?;
                db.put(doc, None, &options).await?;
            }
            84..93 => {
                let doc = self.replicated(db, &id, &mut rng).await?;
                let options = WriteOptions { new_edits: false, ..options };
                for result in db.bulk_docs(vec![doc], &options).await? {
                    result.map_err(|failed| failed.error)?;
                }
            }
            93..97 => {
                // The least of the leaves, to be rid of conflicts.
                let mut doc = self.edit(db, &id, &mut rng).await?;
                // A document that is wholly deleted has none that could be edited.
                if doc.rev.is_some()
                    && let Some(leaf) = leaves(db, &id).await?.last()
                {
                    doc.rev = leaf.rev.clone();
                    doc.attachments.clear();
                    doc.deleted = true;
                }
                db.put(doc, None, &options).await?;
            }
            _ => {
                let revs = leaves(db, &id).await?.into_iter().filter_map(|leaf| leaf.rev);
                db.purge(&RevsByDoc::from([(id.clone(), revs.collect())])).await?;
            }
        }
        Ok(())
    }

    fn id(self, doc: u32) -> String {
        format!("w{:02}-{doc}", self.writer)
    }

    fn local(self, doc: u32) -> String {
        format!("_local/w{:02}-{doc}", self.writer)
    }

    /// A document as an edit of what is there.
    async fn edit(self, db: &dyn Adapter, id: &str, rng: &mut StdRng) -> Result<Document> {
        let mut doc = match db.get(id, &GetOptions::default()).await {
            Ok(doc) => doc,
            Err(error) if error.is_not_found() => Document::with_id(id),
            Err(error) => return Err(error),
        };
        doc.set("step", self.number)?;
        // Small bodies are in their document's row, large ones are not.
        let len = *[10, 100, 1_000, 6_000].choose(rng).unwrap();
        doc.set("text", "x".repeat(rng.random_range(0..len)))?;
        Ok(doc)
    }

    /// A document as it might come from elsewhere: a branch of what is here, or a tree of its own.
    async fn replicated(self, db: &dyn Adapter, id: &str, rng: &mut StdRng) -> Result<Document> {
        let mut doc = self.edit(db, id, rng).await?;
        doc.attachments.clear();
        let mut hash = || {
            let mut hash = [0; 16];
            rng.fill_bytes(&mut hash);
            RevId::Hash(hash)
        };
        let (start, ids) = match doc.rev.take() {
            Some(Rev { pos, id }) => (pos + 1, vec![hash(), id]),
            None => (3, vec![hash(), hash(), hash()]),
        };
        doc.rev = Some(Rev { pos: start, id: ids[0].clone() });
        doc.revisions = Some(Revisions { start, ids });
        doc.deleted = rng.random_ratio(1, 6);
        Ok(doc)
    }
}

/// Content of which some is the same again, so that it is shared.
fn content(rng: &mut StdRng, len: std::ops::Range<usize>) -> Bytes {
    let mut rng = crate::seed::rng(&[rng.random_range(0..8)]);
    let mut content = vec![0; rng.random_range(len)];
    rng.fill_bytes(&mut content);
    content.into()
}

async fn leaves(db: &dyn Adapter, id: &str) -> Result<Vec<Document>> {
    let results = match db.open_revs(id, &OpenRevs::All, &GetOptions::default()).await {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        results => results?,
    };
    let found = results.into_iter().filter_map(|result| match result {
        RevResult::Found(doc) => Some(*doc),
        RevResult::Missing(_) => None,
    });
    Ok(found.collect())
}

/// Makes the database that writers write to.
pub(crate) fn create(local: &Local, name: &str) -> Result<()> {
    block_on(async {
        if !local.exists(name).await? {
            local.create(name).await?;
        }
        local.database(name)?.set_revs_limit(REVS_LIMIT).await
    })
}

/// Everything of one writer, as text: leaves with their history, body and attachments.
pub(crate) type Documents = BTreeMap<String, String>;

/// What is in a database, by writer. That bytes of attachments are what their digests say is for
/// `check` to see.
pub(crate) fn read(db: &dyn Adapter, writers: usize) -> Result<Vec<Documents>> {
    let mut found = vec![Documents::new(); writers];
    block_on(async {
        let options = ChangesOptions { style: Style::AllDocs, ..ChangesOptions::default() };
        let mut changes = db.changes(&options).await?;
        while let Some(batch) = changes.next().await {
            for change in batch?.changes {
                let writer: usize = change.id[1..3].parse().unwrap();
                let mut text = format!("deleted: {}, leaves: {:?}", change.deleted, change.revs);
                let options = GetOptions { revs: true, ..GetOptions::default() };
                for result in db.open_revs(&change.id, &OpenRevs::All, &options).await? {
                    match result {
                        RevResult::Found(doc) => text += &format!("\n{}", doc.to_json()),
                        RevResult::Missing(missing) => text += &format!("\n{missing:?}"),
                    }
                }
                let known = found[writer].insert(change.id.clone(), text);
                assert_eq!(known, None, "{} has two changes", change.id);
            }
        }
        for (writer, found) in found.iter_mut().enumerate() {
            for doc in 0..LOCALS {
                let id = Step { seed: 0, writer, number: 0, defer: false }.local(doc);
                match db.get(&id, &GetOptions::default()).await {
                    Ok(doc) => found.insert(id, doc.to_json()),
                    Err(error) if error.is_not_found() => None,
                    Err(error) => return Err(error),
                };
            }
        }
        Ok(found)
    })
}

/// What the counters of a database must say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) documents: u64,
    pub(crate) deleted: u64,
    pub(crate) update_seq: u64,
    pub(crate) purge_seq: u64,
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Counters>>(all: I) -> Counters {
        all.fold(Counters::default(), |sum, one| Counters {
            documents: sum.documents + one.documents,
            deleted: sum.deleted + one.deleted,
            update_seq: sum.update_seq + one.update_seq,
            purge_seq: sum.purge_seq + one.purge_seq,
        })
    }
}

pub(crate) fn counters(db: &dyn Adapter) -> Result<Counters> {
    let number = |seq| match seq {
        Seq::Number(number) => number,
        Seq::Opaque(text) => panic!("{text:?} is no local sequence"),
    };
    let info = block_on(db.info())?;
    Ok(Counters {
        documents: info.doc_count,
        deleted: info.doc_del_count,
        update_seq: number(info.update_seq),
        purge_seq: number(info.purge_seq),
    })
}

/// What a writer leaves after so many steps.
#[derive(Debug, Clone)]
struct State {
    steps: usize,
    documents: Documents,
    counters: Counters,
}

/// What one writer must have left.
struct Model {
    seed: u64,
    writer: usize,
    db: Arc<dyn Adapter>,
    taken: usize,
    /// The latest states, those that may still be asked for.
    states: VecDeque<State>,
}

impl Model {
    fn state(&self) -> State {
        let mut documents = read(&*self.db, self.writer + 1).unwrap();
        let documents = documents.swap_remove(self.writer);
        State { steps: self.taken, documents, counters: counters(&*self.db).unwrap() }
    }

    /// Takes steps until there is a state for each of these numbers of steps.
    fn reach(&mut self, low: usize, high: usize) {
        self.states.retain(|state| state.steps >= low);
        while self.taken < high {
            let step =
                Step { seed: self.seed, writer: self.writer, number: self.taken, defer: false };
            block_on(step.take(&*self.db)).unwrap_or_else(|error| panic!("{step:?}: {error}"));
            self.taken += 1;
            if self.taken >= low {
                self.states.push_back(self.state());
            }
        }
    }
}

/// What all writers must have left.
pub(crate) struct Models {
    _local: Local,
    models: Vec<Model>,
    /// What the counters may be ahead of the models: of states that look alike the first is taken for
    /// the one that was reached, and steps that were done behind it are done again.
    slack: Counters,
}

impl Models {
    pub(crate) fn new(seed: u64, writers: usize) -> Models {
        let local = Local::memory().unwrap();
        let model = |writer| {
            let name = format!("w{writer}");
            create(&local, &name).unwrap();
            let db = local.database(&name).unwrap();
            let mut model = Model { seed, writer, db, taken: 0, states: VecDeque::new() };
            model.states.push_back(model.state());
            model
        };
        let models = (0..writers).map(model).collect();
        Models { models, _local: local, slack: Counters::default() }
    }

    /// Finds out how far each writer came, who must have come at least to the one number of steps
    /// and at most to the other, and that everything is as it must be.
    ///
    /// # Panics
    ///
    /// Panics if anything is not.
    pub(crate) fn verify(
        &mut self,
        local: &Local,
        name: &str,
        range: &[(usize, usize)],
    ) -> Vec<usize> {
        let report = local.check().unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        let db = local.database(name).unwrap();
        let found = read(&*db, self.models.len()).unwrap();
        let mut steps = Vec::new();
        let mut sum = Vec::new();
        let slack = &mut self.slack;
        for ((model, found), &(low, high)) in self.models.iter_mut().zip(found).zip(range) {
            model.reach(low, high);
            let mut alike = model
                .states
                .iter()
                .filter(|state| (low..=high).contains(&state.steps) && state.documents == found);
            let Some(state) = alike.next() else { model.explain(&found, low, high) };
            let last = alike.next_back().unwrap_or(state);
            steps.push(state.steps);
            sum.push(state.counters);
            slack.update_seq += last.counters.update_seq - state.counters.update_seq;
            slack.purge_seq += last.counters.purge_seq - state.counters.purge_seq;
        }
        let (found, expected) = (counters(&*db).unwrap(), sum.into_iter().sum::<Counters>());
        assert!(
            found.documents == expected.documents
                && found.deleted == expected.deleted
                && (expected.update_seq..=expected.update_seq + slack.update_seq)
                    .contains(&found.update_seq)
                && (expected.purge_seq..=expected.purge_seq + slack.purge_seq)
                    .contains(&found.purge_seq),
            "found {found:?}, expected {expected:?} and at most {slack:?} more"
        );
        steps
    }
}

impl Model {
    fn explain(&self, found: &Documents, low: usize, high: usize) -> ! {
        let mut text = format!("writer {} took {low} to {high} steps", self.writer);
        for state in self.states.iter().filter(|state| (low..=high).contains(&state.steps)) {
            text += &format!("\n\nafter {} steps:", state.steps);
            for (id, doc) in &state.documents {
                if found.get(id) != Some(doc) {
                    text += &format!("\nexpected {id}: {doc}\nfound {:?}", found.get(id));
                }
            }
            for id in found.keys().filter(|id| !state.documents.contains_key(*id)) {
                text += &format!("\nnot expected: {id}: {}", found[id]);
            }
        }
        panic!("{text}");
    }
}
