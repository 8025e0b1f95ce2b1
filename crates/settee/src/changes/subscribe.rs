//! Callbacks that are told of changes.

use super::driver;
use crate::adapter::Adapter;
use event_listener::Event;
use futures_core::stream::BoxStream;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use settee_core::options::{ChangesOptions, Filter, Since};
use settee_core::wire::{Change, Seq};
use settee_core::{Error, ErrorKind, Result};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long changes are gathered before a callback is told, unless set.
const LATENCY: Duration = Duration::from_secs(1);

/// So many changes are not gathered further.
const MOST: usize = 10_000;

/// How long to wait before a feed that failed is begun again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What a callback is told.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FeedEvent<'e> {
    /// Which feed this is of: the same for all subscriptions with the same filter.
    pub feed_id: &'e str,
    /// What changed, in order; at least one.
    pub changes: &'e [Change],
    /// How far these bring the listener.
    pub last_seq: &'e Seq,
}

/// What has become of a subscription's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStatus {
    /// It is being opened.
    Connecting,
    /// Changes are told as they happen.
    Connected,
    /// It failed, and is about to be begun again behind the last change that was told.
    Disconnected,
    /// It was stopped, or the database is gone, or refuses.
    Stopped,
}

type Callback = Box<dyn FnMut(FeedEvent<'_>) + Send>;

/// The feeds of one database, each shared by the subscriptions with its options.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<Vec<Arc<Feed>>>>);

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeds").finish_non_exhaustive()
    }
}

struct Feed {
    id: String,
    /// What makes feeds the same.
    key: String,
    latency: Duration,
    state: Mutex<State>,
    /// Notified when the status changes, and when the feed is to stop.
    changed: Event,
}

struct State {
    callbacks: Vec<(u64, Callback)>,
    /// Those that unsubscribed while they were being called.
    removed: Vec<u64>,
    /// How many are being called at the moment.
    calling: usize,
    made: u64,
    status: FeedStatus,
    /// Everything up to here has been told.
    since: Since,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A callback that is told of changes, until this is dropped.
///
/// From [`Changes::subscribe`](super::Changes::subscribe).
pub struct Subscription {
    adapter: Arc<dyn Adapter>,
    feeds: Feeds,
    options: ChangesOptions,
    latency: Duration,
    /// The feed and the callback's number in it; none once stopped.
    place: Option<(Arc<Feed>, u64)>,
    /// Shared with what stands in the feed, so that it outlives a stop.
    callback: Arc<Mutex<Callback>>,
    detached: bool,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("feed_id", &self.feed_id())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Feeds {
    /// Drops the feeds with a filter, and whoever listens to them.
    pub(crate) fn unsubscribe(&self, filter: &Filter) -> usize {
        let id = feed_id(filter);
        let mut feeds = locked(&self.0);
        let (gone, kept) = feeds.drain(..).partition(|feed| feed.id == id);
        *feeds = kept;
        drop(feeds);
        let gone: Vec<Arc<Feed>> = gone;
        gone.iter().map(|feed| feed.stop()).sum()
    }

    fn forget(&self, gone: &Arc<Feed>) {
        locked(&self.0).retain(|feed| !Arc::ptr_eq(feed, gone));
    }
}

/// A filter in words.
fn filter_id(filter: &Filter) -> String {
    match filter {
        Filter::None => "None".to_owned(),
        Filter::Design => "_design".to_owned(),
        Filter::DocIds(ids) => {
            let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            ids.sort_unstable();
            format!("_doc_ids {}", serde_json::json!(ids))
        }
        Filter::Selector(selector) => format!("_selector {}", selector.to_value()),
        Filter::Function(function) if function.view().is_some() => function.name.clone(),
        Filter::Function(function) if function.query.is_empty() => function.name.clone(),
        Filter::Function(function) => {
            format!("{} {}", function.name, Value::Object(function.query.clone()))
        }
    }
}

/// What feeds with a filter are called: the filter, and the view if it asks one.
fn feed_id(filter: &Filter) -> String {
    let view = match filter {
        Filter::Function(function) => function.view(),
        _ => None,
    };
    format!("{}__{}", filter_id(filter), view.unwrap_or("None"))
}

impl Subscription {
    pub(super) async fn new(
        adapter: Arc<dyn Adapter>,
        feeds: Feeds,
        mut options: ChangesOptions,
        latency: Option<Duration>,
        callback: Callback,
    ) -> Result<Subscription> {
        if options.descending || options.limit.is_some() {
            let reason = "What is subscribed to has neither an end nor another direction.";
            return Err(Error::bad_request(reason));
        }
        if options.since == Since::Now {
            // Now is when one asks, not when the feed gets to it.
            let now = ChangesOptions { since: Since::Now, ..ChangesOptions::default() };
            if let Some(batch) = adapter.changes(&now).await?.next().await {
                options.since = Since::Seq(batch?.last_seq);
            }
        }
        let mut subscription = Subscription {
            adapter,
            feeds,
            options,
            latency: latency.unwrap_or(LATENCY),
            place: None,
            callback: Arc::new(Mutex::new(callback)),
            detached: false,
        };
        subscription.join(None)?;
        Ok(subscription)
    }

    /// Joins the feed with these options, or opens it. `behind` is where a feed must be for it to
    /// be the right one.
    fn join(&mut self, behind: Option<&Since>) -> Result<()> {
        let options = &self.options;
        let id = feed_id(&options.filter);
        let (style, include_docs, doc) = (options.style, options.include_docs, &options.doc);
        let key = format!("{id} {style:?} {include_docs} {doc:?} {:?}", self.latency);
        let callback = self.callback.clone();
        let callback: Callback = Box::new(move |event| (locked(&callback))(event));
        let mut feeds = locked(&self.feeds.0);
        for feed in feeds.iter().filter(|feed| feed.key == key) {
            let mut state = locked(&feed.state);
            let fits = behind.is_none_or(|behind| state.since == *behind && state.calling == 0);
            if fits && state.status != FeedStatus::Stopped {
                let number = state.add(callback);
                drop(state);
                self.place = Some((feed.clone(), number));
                return Ok(());
            }
        }
        let mut state = State {
            callbacks: Vec::new(),
            removed: Vec::new(),
            calling: 0,
            made: 0,
            status: FeedStatus::Connecting,
            since: behind.unwrap_or(&options.since).clone(),
        };
        let number = state.add(callback);
        let feed = Arc::new(Feed {
            id,
            key,
            latency: self.latency,
            state: Mutex::new(state),
            changed: Event::new(),
        });
        let run = run(self.adapter.clone(), self.options.clone(), feed.clone(), self.feeds.clone());
        driver::spawn(run)?;
        feeds.push(feed.clone());
        drop(feeds);
        self.place = Some((feed, number));
        Ok(())
    }

    /// Which feed this is of: the same for all subscriptions of a database with the same filter.
    pub fn feed_id(&self) -> String {
        feed_id(&self.options.filter)
    }

    /// What has become of the feed.
    pub fn status(&self) -> FeedStatus {
        match &self.place {
            Some((feed, _)) => locked(&feed.state).status,
            None => FeedStatus::Stopped,
        }
    }

    /// What becomes of the feed: its status now, and whenever it has changed, until it has stopped.
    pub fn watch(&self) -> BoxStream<'static, FeedStatus> {
        let Some((feed, _)) = &self.place else { return stream::empty().boxed() };
        let statuses = stream::unfold((feed.clone(), None), |(feed, last)| async move {
            if last == Some(FeedStatus::Stopped) {
                return None;
            }
            loop {
                let listener = feed.changed.listen();
                let status = locked(&feed.state).status;
                if last != Some(status) {
                    return Some((status, (feed, Some(status))));
                }
                listener.await;
            }
        });
        statuses.boxed()
    }

    /// How far the callback has been told, if it has been.
    pub fn last_seq(&self) -> Option<Seq> {
        let since = match &self.place {
            Some((feed, _)) => locked(&feed.state).since.clone(),
            None => self.options.since.clone(),
        };
        match since {
            Since::Seq(seq) => Some(seq),
            Since::Start | Since::Now | Since::Time(_) => None,
        }
    }

    /// Stops telling the callback. With the last one of a feed, the feed ends. Stopping what is
    /// stopped does nothing.
    pub fn stop(&mut self) {
        let Some((feed, number)) = self.place.take() else { return };
        self.options.since = locked(&feed.state).since.clone();
        if feed.remove(number) {
            self.feeds.forget(&feed);
            feed.stop();
        }
    }

    /// Tells the callback again, from where it was stopped. Does nothing if it is not stopped.
    ///
    /// # Errors
    ///
    /// `Internal` if the system has no thread for it.
    pub fn listen(&mut self) -> Result<()> {
        if self.status() != FeedStatus::Stopped {
            return Ok(());
        }
        self.stop();
        let behind = self.options.since.clone();
        self.join(Some(&behind))
    }

    /// Goes on without a handle: until [`Database::unsubscribe`](crate::Database::unsubscribe), or
    /// for as long as the process lives.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.detached {
            self.stop();
        }
    }
}

impl State {
    fn add(&mut self, callback: Callback) -> u64 {
        self.made += 1;
        self.callbacks.push((self.made, callback));
        self.made
    }
}

impl Feed {
    /// Takes a callback out; says whether it was the last.
    fn remove(&self, number: u64) -> bool {
        let mut state = locked(&self.state);
        state.callbacks.retain(|(other, _)| *other != number);
        if state.calling > 0 {
            state.removed.push(number);
            return false;
        }
        state.callbacks.is_empty()
    }

    /// Ends the feed; returns how many were listening.
    fn stop(&self) -> usize {
        let mut state = locked(&self.state);
        state.status = FeedStatus::Stopped;
        let count = state.callbacks.len() + state.calling.saturating_sub(state.removed.len());
        state.callbacks.clear();
        drop(state);
        self.changed.notify(usize::MAX);
        count
    }

    fn is_stopped(&self) -> bool {
        locked(&self.state).status == FeedStatus::Stopped
    }

    fn set(&self, status: FeedStatus) {
        let mut state = locked(&self.state);
        if state.status != FeedStatus::Stopped && state.status != status {
            state.status = status;
            drop(state);
            self.changed.notify(usize::MAX);
        }
    }

    /// Tells every callback; says whether there is anybody left to tell.
    fn tell(&self, changes: &[Change], last_seq: &Seq) -> bool {
        let mut callbacks = {
            let mut state = locked(&self.state);
            state.since = Since::Seq(last_seq.clone());
            if changes.is_empty() {
                return true;
            }
            state.calling = state.callbacks.len();
            // Out of the lock, so that a callback may subscribe and unsubscribe.
            std::mem::take(&mut state.callbacks)
        };
        let event = FeedEvent { feed_id: &self.id, changes, last_seq };
        callbacks.retain_mut(|(number, callback)| {
            if locked(&self.state).removed.contains(number) {
                return false;
            }
            let told = catch_unwind(AssertUnwindSafe(|| callback(event)));
            if told.is_err() {
                tracing::error!(
                    feed = self.id,
                    "a subscription's callback panicked and is dropped"
                );
            }
            told.is_ok()
        });
        let mut state = locked(&self.state);
        state.calling = 0;
        let removed = std::mem::take(&mut state.removed);
        callbacks.retain(|(number, _)| !removed.contains(number));
        callbacks.append(&mut state.callbacks);
        if state.status == FeedStatus::Stopped {
            callbacks.clear();
        }
        state.callbacks = callbacks;
        !state.callbacks.is_empty()
    }
}

/// Reads a feed and tells its callbacks, until it is stopped.
async fn run(
    adapter: Arc<dyn Adapter>,
    mut options: ChangesOptions,
    feed: Arc<Feed>,
    feeds: Feeds,
) {
    options.live = true;
    let mut pause = PAUSES.0;
    while !feed.is_stopped() {
        options.since = locked(&feed.state).since.clone();
        let told = match follow(&*adapter, &options, &feed).await {
            Ok(told) => told,
            Err(error) => {
                let final_error = matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::BadRequest | ErrorKind::NotImplemented
                );
                tracing::debug!(%error, feed = feed.id, "a subscription's feed failed");
                if final_error {
                    break;
                }
                false
            }
        };
        if feed.is_stopped() {
            break;
        }
        feed.set(FeedStatus::Disconnected);
        pause = if told { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        unless_stopped(&feed, driver::sleep(pause)).await;
        feed.set(FeedStatus::Connecting);
    }
    feeds.forget(&feed);
    feed.stop();
}

/// Waits for something, unless the feed is stopped.
async fn unless_stopped<F: Future>(feed: &Feed, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        let changed = feed.changed.listen();
        if feed.is_stopped() {
            return None;
        }
        match select(future.as_mut(), changed).await {
            Either::Left((output, _)) => return Some(output),
            Either::Right(_) => {}
        }
    }
}

/// Reads a feed to its end; says whether there was anything to tell.
async fn follow(adapter: &dyn Adapter, options: &ChangesOptions, feed: &Feed) -> Result<bool> {
    let Some(batches) = unless_stopped(feed, adapter.changes(options)).await else {
        return Ok(false);
    };
    let mut batches = batches?;
    feed.set(FeedStatus::Connected);
    let mut told = false;
    // What waits to be told, and until when.
    let mut gathered: Vec<Change> = Vec::new();
    let mut last_seq: Option<Seq> = None;
    let mut due: Option<driver::Sleep> = None;
    loop {
        let next = unless_stopped(feed, async {
            match &mut due {
                None => Some(batches.next().await),
                Some(due) => match select(batches.next(), due).await {
                    Either::Left((batch, _)) => Some(batch),
                    Either::Right(_) => None,
                },
            }
        });
        let Some(next) = next.await else { return Ok(told) };
        let (late, ended) = match next {
            None => (true, None),
            Some(Some(Ok(batch))) => {
                gathered.extend(batch.changes);
                last_seq = Some(batch.last_seq);
                (feed.latency.is_zero() || gathered.len() >= MOST, None)
            }
            Some(Some(Err(error))) => (true, Some(Err(error))),
            // A live feed ends with its database.
            Some(None) => (true, Some(Err(Error::no_database()))),
        };
        if late || gathered.is_empty() {
            due = None;
            if let Some(last_seq) = last_seq.take() {
                told |= !gathered.is_empty();
                if !feed.tell(&gathered, &last_seq) {
                    feed.stop();
                }
                gathered.clear();
            }
        } else if due.is_none() {
            due = Some(driver::sleep(feed.latency));
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}
