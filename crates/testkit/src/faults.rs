//! A database behind a bad line: calls fail before or after they were carried out, take long, are
//! carried out twice, answers overtake each other, and streams break off with or without saying so.
//!
//! What becomes of a call is computed from a seed, the call, what it is about and how often that has
//! been asked before. So it does not depend on the order in which concurrent calls come, and the same
//! seed gives the same faults.

use crate::time::sleep;
use futures_channel::oneshot;
use futures_util::future::select;
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use settee::adapter::{
    Adapter, AttachmentReader, ByteStream, ChangesStream, Location, Parts, Rows, ViewRows,
};
use settee::find::{FindOptions, Found, IndexCreated, IndexDefinition, IndexInfo};
use settee::options::{
    AllDocsOptions, AttachmentHead, AttachmentOptions, BulkGetItem, ChangesOptions, GetOptions,
    OpenRevs, Since, ViewOptions, WriteOptions,
};
use settee::wire::{
    AutoPurge, DatabaseInfo, DesignInfo, MissingRevs, Purged, RevResult, RevsByDoc, Saved,
    Security, Seq, TempView, TimeBin, WriteResult,
};
use settee::{AttachmentData, Document, Error, ErrorKind, Result, Rev};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type BoxStream<T> = stream::BoxStream<'static, T>;

/// How often what goes wrong: shares of all calls, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// The call does not arrive.
    pub lost: f64,
    /// The call is carried out, but its answer does not arrive.
    pub unanswered: f64,
    /// A stream breaks off, with an error.
    pub cut: f64,
    /// An attachment breaks off, and nobody says so.
    pub truncated: f64,
    /// The call is carried out twice, and the second answer is the one that arrives. Writes that
    /// make new revisions of documents are not, because no client repeats them blindly.
    pub duplicate: f64,
    /// The answer comes behind the next one that comes to any call; and the changes of one batch of
    /// a feed come in another order.
    pub reorder: f64,
    /// The answer takes up to [`Rates::delay`].
    pub slow: f64,
    /// See `slow`; nor does an answer wait longer to be overtaken.
    pub delay: Duration,
}

impl Rates {
    /// Everything, each this often.
    pub fn all(rate: f64) -> Rates {
        Rates {
            lost: rate,
            unanswered: rate,
            cut: rate,
            truncated: rate,
            duplicate: rate,
            reorder: rate,
            slow: rate,
            delay: Duration::from_millis(3),
        }
    }
}

type Hook = Box<dyn FnOnce() + Send>;

/// The line's state, shared by all databases behind it.
#[derive(Clone)]
pub struct Faults(Arc<State>);

struct State {
    seed: u64,
    rates: Mutex<Rates>,
    /// Nothing gets through.
    down: AtomicBool,
    read_only: AtomicBool,
    /// After so many more calls the line goes down, and this is done.
    last: Mutex<Option<(u64, Hook)>>,
    asked: Mutex<HashMap<(&'static str, String), u64>>,
    calls: Mutex<HashMap<&'static str, u64>>,
    /// Answers that wait to be overtaken.
    held: Mutex<Vec<oneshot::Sender<()>>>,
    injected: AtomicU64,
}

/// What becomes of one call.
struct Fate {
    rng: StdRng,
    rates: Rates,
    faults: Faults,
    call: &'static str,
}

impl Faults {
    /// Faults that follow from a seed.
    pub fn new(seed: u64, rates: Rates) -> Faults {
        Faults(Arc::new(State {
            seed,
            rates: Mutex::new(rates),
            down: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            last: Mutex::default(),
            asked: Mutex::default(),
            calls: Mutex::default(),
            held: Mutex::default(),
            injected: AtomicU64::new(0),
        }))
    }

    /// A database behind this line.
    pub fn wrap(&self, db: impl Into<Arc<dyn Adapter>>) -> Arc<dyn Adapter> {
        Arc::new(Faulty { inner: db.into(), faults: self.clone() })
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, rates: Rates) {
        *lock(&self.0.rates) = rates;
    }

    /// Takes the line down or up.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// Lets so many more calls through. The next one takes the line down and does something, such as
    /// to cut the power of one of the ends.
    pub fn crash_after(&self, calls: u64, crash: impl FnOnce() + Send + 'static) {
        *lock(&self.0.last) = Some((calls, Box::new(crash)));
    }

    fn count_down(&self) {
        let mut last = lock(&self.0.last);
        match last.take() {
            Some((0, crash)) => {
                self.set_down(true);
                crash();
            }
            Some((left, crash)) => *last = Some((left - 1, crash)),
            None => {}
        }
    }

    /// How much has gone wrong.
    pub fn injected(&self) -> u64 {
        self.0.injected.load(Ordering::SeqCst)
    }

    /// How often a call has come, by its name in [`Adapter`].
    pub fn calls(&self, name: &str) -> u64 {
        lock(&self.0.calls).get(name).copied().unwrap_or(0)
    }

    async fn call<T>(
        &self,
        call: &'static str,
        about: impl Into<String>,
        what: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fate = self.fate(call, about.into());
        fate.meet(what).await
    }

    /// The same for a call that may be carried out twice.
    async fn ask<T, F: Future<Output = Result<T>>>(
        &self,
        call: &'static str,
        about: impl Into<String>,
        what: impl Fn() -> F,
    ) -> Result<T> {
        let about = about.into();
        let twice = self.duplicates(call, &about);
        let answer = async {
            if twice {
                what().await?;
            }
            what().await
        };
        self.call(call, about, answer).await
    }

    fn duplicates(&self, call: &'static str, about: &str) -> bool {
        let mut fate = self.fate_of(call, format!("again {about}"));
        fate.happens(fate.rates.duplicate)
    }

    /// Lets answers that wait to be overtaken go.
    fn answered(&self) {
        for held in lock(&self.0.held).drain(..) {
            // Who was waiting may have given up.
            let _ = held.send(());
        }
    }

    fn fate(&self, call: &'static str, about: String) -> Fate {
        *lock(&self.0.calls).entry(call).or_default() += 1;
        self.fate_of(call, about)
    }

    fn fate_of(&self, call: &'static str, about: String) -> Fate {
        let mut hasher = DefaultHasher::new();
        (self.0.seed, call, &about).hash(&mut hasher);
        let mut asked = lock(&self.0.asked);
        let nth = asked.entry((call, about)).or_default();
        nth.hash(&mut hasher);
        *nth += 1;
        drop(asked);
        let rates = *lock(&self.0.rates);
        Fate { rng: StdRng::seed_from_u64(hasher.finish()), rates, faults: self.clone(), call }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fate {
    fn happens(&mut self, rate: f64) -> bool {
        let happens = self.rng.random_bool(rate);
        if happens {
            self.faults.0.injected.fetch_add(1, Ordering::SeqCst);
        }
        happens
    }

    fn broken(&self, how: &str) -> Error {
        Error::new(ErrorKind::Unreachable, format!("{how}: {}", self.call))
    }

    async fn meet<T>(mut self, what: impl Future<Output = Result<T>>) -> Result<T> {
        self.faults.count_down();
        if self.faults.0.down.load(Ordering::SeqCst) {
            return Err(self.broken("the line is down"));
        }
        let writes = ["put", "bulk_docs", "ensure_full_commit", "put_attachment"];
        if self.faults.0.read_only.load(Ordering::SeqCst) && writes.contains(&self.call) {
            return Err(Error::new(ErrorKind::Forbidden, "You may only read here."));
        }
        if self.happens(self.rates.slow) {
            sleep(self.rates.delay.mul_f64(self.rng.random())).await;
        }
        if self.happens(self.rates.lost) {
            return Err(self.broken("lost"));
        }
        let result = what.await?;
        if self.happens(self.rates.unanswered) {
            return Err(self.broken("unanswered"));
        }
        if self.happens(self.rates.reorder) {
            let (sender, overtaken) = oneshot::channel();
            lock(&self.faults.0.held).push(sender);
            select(overtaken, pin!(sleep(self.rates.delay))).await;
        }
        self.faults.answered();
        Ok(result)
    }

    /// A feed whose batches may be in another order. A client may go on behind any change that it was
    /// told, so all but the last of a batch are said to be no further than what came before it.
    fn shuffle(mut self, since: &Since, inner: ChangesStream) -> ChangesStream {
        let mut before = match since {
            Since::Start => Seq::Number(0),
            Since::Seq(seq) => seq.clone(),
            Since::Now | Since::Time(_) => return inner,
        };
        inner
            .map_ok(move |mut batch| {
                if self.happens(self.rates.reorder) {
                    batch.changes.shuffle(&mut self.rng);
                    let count = batch.changes.len();
                    for (n, change) in batch.changes.iter_mut().enumerate() {
                        let last = n + 1 == count;
                        change.seq = if last { &batch.last_seq } else { &before }.clone();
                    }
                }
                before = batch.last_seq.clone();
                batch
            })
            .boxed()
    }

    /// A stream that may break off.
    fn cut<T: Send + 'static>(mut self, inner: BoxStream<Result<T>>) -> BoxStream<Result<T>> {
        let after = match self.happens(self.rates.cut) {
            true => self.rng.random_range(0..4),
            false => usize::MAX,
        };
        let state = (inner, 0, after, self);
        stream::unfold(state, |(mut inner, n, after, fate)| async move {
            if n > after {
                return None;
            }
            let item = match n == after || fate.faults.0.down.load(Ordering::SeqCst) {
                true => Err(fate.broken("cut")),
                false => inner.next().await?,
            };
            let after = if item.is_err() { n } else { after };
            Some((item, (inner, n + 1, after, fate)))
        })
        .boxed()
    }

    /// The same, but it may also just end.
    fn truncate(mut self, inner: ByteStream) -> ByteStream {
        match self.happens(self.rates.truncated) {
            true => inner.take(self.rng.random_range(0..3)).boxed(),
            false => self.cut(inner),
        }
    }
}

/// A database behind a bad line.
struct Faulty {
    inner: Arc<dyn Adapter>,
    faults: Faults,
}

impl Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} behind a bad line", self.inner)
    }
}

#[async_trait::async_trait]
impl Adapter for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn location(&self) -> Location {
        self.inner.location()
    }

    async fn info(&self) -> Result<DatabaseInfo> {
        self.faults.ask("info", "", || self.inner.info()).await
    }

    async fn get(&self, id: &str, options: &GetOptions) -> Result<Document> {
        self.faults.ask("get", id, || self.inner.get(id, options)).await
    }

    async fn open_revs(
        &self,
        id: &str,
        revs: &OpenRevs,
        options: &GetOptions,
    ) -> Result<Vec<RevResult>> {
        self.faults.ask("open_revs", id, || self.inner.open_revs(id, revs, options)).await
    }

    async fn put(
        &self,
        doc: Document,
        parts: Option<Parts>,
        options: &WriteOptions,
    ) -> Result<Saved> {
        let id = doc.id.clone().unwrap_or_default();
        let repeatable = parts.is_none() && (!options.new_edits || id.starts_with("_local/"));
        let twice = repeatable && self.faults.duplicates("put", &id);
        let answer = async {
            if twice {
                self.inner.put(doc.clone(), None, options).await?;
            }
            self.inner.put(doc, parts, options).await
        };
        self.faults.call("put", id, answer).await
    }

    async fn bulk_docs(
        &self,
        docs: Vec<Document>,
        options: &WriteOptions,
    ) -> Result<Vec<WriteResult>> {
        let id = docs.first().and_then(|doc| doc.id.clone()).unwrap_or_default();
        let follows = docs.iter().flat_map(|doc| &doc.attachments);
        let whole = follows.into_iter().all(|att| att.data != AttachmentData::Follows);
        let twice = whole && !options.new_edits && self.faults.duplicates("bulk_docs", &id);
        let answer = async {
            if twice {
                self.inner.bulk_docs(docs.clone(), options).await?;
            }
            self.inner.bulk_docs(docs, options).await
        };
        self.faults.call("bulk_docs", id, answer).await
    }

    async fn bulk_get(
        &self,
        items: Vec<BulkGetItem>,
        options: &GetOptions,
    ) -> Result<BoxStream<Result<(String, Vec<RevResult>)>>> {
        let id = items.first().map(|item| item.id.clone()).unwrap_or_default();
        let stream = || self.inner.bulk_get(items.clone(), options);
        let stream = self.faults.ask("bulk_get", id.clone(), stream).await?;
        Ok(self.faults.fate("bulk_get stream", id).cut(stream))
    }

    async fn all_docs(&self, options: &AllDocsOptions) -> Result<Rows> {
        let rows = self.faults.call("all_docs", "", self.inner.all_docs(options)).await?;
        Ok(Rows { rows: self.faults.fate("all_docs stream", String::new()).cut(rows.rows), ..rows })
    }

    async fn changes(&self, options: &ChangesOptions) -> Result<ChangesStream> {
        let about = format!("{:?}", options.since);
        let stream = || self.inner.changes(options);
        let stream = self.faults.ask("changes", about.clone(), stream).await?;
        let stream = match options.descending {
            true => stream,
            false => {
                self.faults.fate_of("changes order", about.clone()).shuffle(&options.since, stream)
            }
        };
        Ok(self.faults.fate("changes stream", about).cut(stream))
    }

    async fn revs_diff(&self, revs: &RevsByDoc) -> Result<BTreeMap<String, MissingRevs>> {
        let id = revs.keys().next().cloned().unwrap_or_default();
        self.faults.ask("revs_diff", id, || self.inner.revs_diff(revs)).await
    }

    async fn attachment(
        &self,
        id: &str,
        name: &str,
        options: &AttachmentOptions,
    ) -> Result<AttachmentReader> {
        let about = format!("{id}/{name}");
        let reader = || self.inner.attachment(id, name, options);
        let reader = self.faults.ask("attachment", about.clone(), reader).await?;
        let body = self.faults.fate("attachment stream", about).truncate(reader.body);
        Ok(AttachmentReader { body, ..reader })
    }

    async fn put_attachment(
        &self,
        id: &str,
        name: &str,
        rev: Option<Rev>,
        head: AttachmentHead,
        body: ByteStream,
    ) -> Result<Saved> {
        let saved = self.inner.put_attachment(id, name, rev, head, body);
        self.faults.call("put_attachment", id, saved).await
    }

    async fn delete_attachment(&self, id: &str, name: &str, rev: Option<Rev>) -> Result<Saved> {
        let saved = self.inner.delete_attachment(id, name, rev);
        self.faults.call("delete_attachment", id, saved).await
    }

    async fn purge(&self, revs: &RevsByDoc) -> Result<Purged> {
        self.faults.call("purge", "", self.inner.purge(revs)).await
    }

    async fn purged_infos(&self) -> Result<Vec<(String, Vec<Rev>)>> {
        self.faults.call("purged_infos", "", self.inner.purged_infos()).await
    }

    async fn purged_infos_limit(&self) -> Result<u64> {
        self.faults.call("purged_infos_limit", "", self.inner.purged_infos_limit()).await
    }

    async fn set_purged_infos_limit(&self, limit: u64) -> Result<()> {
        let set = self.inner.set_purged_infos_limit(limit);
        self.faults.call("set_purged_infos_limit", "", set).await
    }

    async fn auto_purge(&self) -> Result<AutoPurge> {
        self.faults.call("auto_purge", "", self.inner.auto_purge()).await
    }

    async fn set_auto_purge(&self, settings: &AutoPurge) -> Result<()> {
        self.faults.call("set_auto_purge", "", self.inner.set_auto_purge(settings)).await
    }

    async fn time_seq(&self) -> Result<Vec<TimeBin>> {
        self.faults.call("time_seq", "", self.inner.time_seq()).await
    }

    async fn reset_time_seq(&self) -> Result<()> {
        self.faults.call("reset_time_seq", "", self.inner.reset_time_seq()).await
    }

    async fn revs_limit(&self) -> Result<u64> {
        self.faults.call("revs_limit", "", self.inner.revs_limit()).await
    }

    async fn set_revs_limit(&self, limit: u64) -> Result<()> {
        self.faults.call("set_revs_limit", "", self.inner.set_revs_limit(limit)).await
    }

    async fn security(&self) -> Result<Security> {
        self.faults.call("security", "", self.inner.security()).await
    }

    async fn set_security(&self, security: &Security) -> Result<()> {
        self.faults.call("set_security", "", self.inner.set_security(security)).await
    }

    async fn compact(&self) -> Result<()> {
        self.faults.call("compact", "", self.inner.compact()).await
    }

    async fn view(&self, ddoc: &str, view: &str, options: &ViewOptions) -> Result<ViewRows> {
        self.faults.call("view", view, self.inner.view(ddoc, view, options)).await
    }

    async fn temp_view(&self, view: &TempView, options: &ViewOptions) -> Result<ViewRows> {
        self.faults.call("temp_view", "", self.inner.temp_view(view, options)).await
    }

    async fn design_info(&self, ddoc: &str) -> Result<DesignInfo> {
        self.faults.call("design_info", ddoc, self.inner.design_info(ddoc)).await
    }

    async fn find(&self, options: &FindOptions) -> Result<Found> {
        self.faults.call("find", "", self.inner.find(options)).await
    }

    async fn explain(&self, options: &FindOptions) -> Result<Value> {
        self.faults.call("explain", "", self.inner.explain(options)).await
    }

    async fn indexes(&self) -> Result<Vec<IndexInfo>> {
        self.faults.call("indexes", "", self.inner.indexes()).await
    }

    async fn create_index(&self, index: &IndexDefinition) -> Result<IndexCreated> {
        self.faults.call("create_index", "", self.inner.create_index(index)).await
    }

    async fn delete_index(&self, ddoc: &str, name: &str) -> Result<()> {
        self.faults.call("delete_index", name, self.inner.delete_index(ddoc, name)).await
    }

    async fn compact_views(&self, ddoc: &str) -> Result<()> {
        self.faults.call("compact_views", ddoc, self.inner.compact_views(ddoc)).await
    }

    async fn view_cleanup(&self) -> Result<()> {
        self.faults.call("view_cleanup", "", self.inner.view_cleanup()).await
    }

    async fn ensure_full_commit(&self) -> Result<()> {
        self.faults.ask("ensure_full_commit", "", || self.inner.ensure_full_commit()).await
    }
}

/// A database that takes no writes, not even checkpoints.
pub fn read_only(db: impl Into<Arc<dyn Adapter>>) -> Arc<dyn Adapter> {
    let faults = Faults::new(0, Rates::default());
    faults.0.read_only.store(true, Ordering::SeqCst);
    faults.wrap(db)
}
