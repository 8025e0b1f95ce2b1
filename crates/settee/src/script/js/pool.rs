//! Threads that run functions.
//!
//! A thread keeps the contexts of the design documents that it has served, so that they are compiled
//! once. The engine's own clock ends a function that runs too long; but the engine looks at it between
//! steps of a function, and some single steps (a search in a huge string) may take very long. So a
//! watcher looks after the threads: one that overruns its time is given up, whoever waits for it gets
//! an error, and another thread takes its place. It ends at its next step.

use super::super::ScriptOptions;
use super::env::{Env, Scope, Source, timed_out};
use futures_channel::oneshot;
use settee_core::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// How often the watcher looks.
const WATCH: Duration = Duration::from_millis(100);

/// How much longer than it may a call can take before its thread is given up.
const GRACE: Duration = Duration::from_millis(500);

/// How many threads may be given up at a time.
const MAX_STUCK: usize = 16;

/// The engine takes a larger limit for none.
pub(super) const MAX_STACK: usize = 16 << 20;

/// What a thread needs besides the stack that functions may use.
const THREAD_STACK: usize = 1 << 20;

/// A context's name: nothing that is in one gets into another.
pub(super) type Key = Arc<str>;

/// When the current call of a thread began.
#[derive(Debug)]
pub(super) struct Watch {
    epoch: Instant,
    started: AtomicU64,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { epoch: Instant::now(), started: AtomicU64::new(0) }
    }

    pub(super) fn start(&self, now: Instant) {
        let millis = now.duration_since(self.epoch).as_millis();
        self.started.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn pause(&self) {
        self.started.store(u64::MAX, Ordering::Relaxed);
    }

    fn running(&self) -> Duration {
        let started = Duration::from_millis(self.started.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(started)
    }
}

/// Work that waits for a thread.
struct Task {
    key: Key,
    run: Box<dyn FnOnce(&mut Worker) + Send>,
    /// Answers in place of `run`, unless that has.
    fail: Box<dyn FnOnce(Error) + Send>,
}

/// Work that a thread is doing.
struct Running {
    thread: u64,
    /// Whether the thread serves the queue, or has this work only.
    serves: bool,
    key: Key,
    watch: Arc<Watch>,
    fail: Box<dyn FnOnce(Error) + Send>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    running: Vec<Running>,
    /// Threads that have been given up and have not ended, and what they are at.
    stuck: Vec<(u64, Key)>,
    /// Threads that serve the queue, and how many of them wait.
    threads: usize,
    idle: usize,
    next_thread: u64,
    watched: bool,
    closed: bool,
}

impl State {
    fn begin(&mut self, shared: &Shared, running: Running) {
        self.running.push(running);
        if self.running.len() == 1 {
            shared.watch.notify_one();
        }
    }

    /// Returns what the thread was at, unless it has been given up.
    fn end(&mut self, id: u64) -> Option<Running> {
        self.stuck.retain(|(thread, _)| *thread != id);
        let at = self.running.iter().position(|running| running.thread == id)?;
        Some(self.running.swap_remove(at))
    }

    /// Work that nobody would ever do, because no thread could be made.
    fn orphans(&mut self) -> VecDeque<Task> {
        if self.threads == 0 { std::mem::take(&mut self.queue) } else { VecDeque::new() }
    }

    /// Whether work for a context is refused: it, or too much else, is being waited for to end.
    fn refuses(&self, key: &Key) -> bool {
        self.stuck.len() >= MAX_STUCK || self.stuck.iter().any(|(_, stuck)| stuck == key)
    }
}

struct Shared {
    options: ScriptOptions,
    state: Mutex<State>,
    work: Condvar,
    watch: Condvar,
}

/// The threads. Dropping this ends them when they are done.
pub(super) struct Pool {
    shared: Arc<Shared>,
    size: usize,
}

/// One thread's own.
pub(super) struct Worker {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    /// The one used last comes last.
    envs: Vec<(Key, Env)>,
}

impl Pool {
    pub(super) fn new(options: ScriptOptions) -> Pool {
        let cores = || std::thread::available_parallelism().map_or(2, |n| n.get());
        let size = options.threads.unwrap_or_else(cores).max(1);
        let state = Mutex::new(State::default());
        let shared = Shared { options, state, work: Condvar::new(), watch: Condvar::new() };
        Pool { shared: Arc::new(shared), size }
    }

    pub(super) fn options(&self) -> &ScriptOptions {
        &self.shared.options
    }

    /// Does something on a thread, and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&mut Worker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = mpsc::sync_channel(1);
        self.submit(key, work, move |result| drop(send.try_send(result)));
        receive.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Does something on a thread.
    pub(super) async fn run_async<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&mut Worker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = oneshot::channel();
        self.submit(key, work, move |result| drop(send.send(result)));
        receive.await.unwrap_or_else(|_| Err(gone()))
    }

    fn submit<T: 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&mut Worker) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let reply = Arc::new(Mutex::new(Some(reply)));
        let answer = move |reply: &Mutex<Option<_>>, result| {
            if let Some(reply) = lock(reply).take() {
                let reply: Box<dyn FnOnce(Result<T>)> = Box::new(reply);
                reply(result);
            }
        };
        let late = reply.clone();
        let task = Task {
            key: key.clone(),
            run: Box::new(move |worker| {
                // What panics has damaged nothing but its own context.
                let result = catch_unwind(AssertUnwindSafe(|| work(worker)));
                let result = result.unwrap_or_else(|_| {
                    worker.envs.clear();
                    Err(gone())
                });
                answer(&reply, result);
            }),
            fail: Box::new(move |error| answer(&late, Err(error))),
        };
        let mut state = lock(&self.shared.state);
        if state.refuses(key) {
            drop(state);
            (task.fail)(timed_out(self.shared.options.timeout));
            return;
        }
        state.queue.push_back(task);
        if state.idle == 0 && state.threads < self.size {
            spawn(&self.shared, &mut state);
        }
        let orphans = state.orphans();
        drop(state);
        self.shared.work.notify_one();
        fail_all(orphans);
    }

    /// Does something on a thread of its own, and returns at once. `fail` says that it could not
    /// begin, or did not end.
    pub(super) fn run_apart(
        &self,
        key: &Key,
        work: impl FnOnce(Arc<Watch>) + Send + 'static,
        fail: impl FnOnce(Error) + Send + 'static,
    ) {
        let watch = Arc::new(Watch::new());
        watch.start(Instant::now());
        let mut state = lock(&self.shared.state);
        let apart = state.running.iter().filter(|running| !running.serves).count();
        if apart >= self.shared.options.lists || state.refuses(key) {
            drop(state);
            return fail(Error::new(
                ErrorKind::ServiceUnavailable,
                "too many functions are running",
            ));
        }
        let id = state.next_thread;
        state.next_thread += 1;
        let (key, fail) = (key.clone(), Box::new(fail));
        let running = Running { thread: id, serves: false, key, watch: watch.clone(), fail };
        state.begin(&self.shared, running);
        let shared = self.shared.clone();
        let spawned = thread(&self.shared.options, move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(watch)));
            let running = lock(&shared.state).end(id);
            if let (Err(_), Some(Running { fail, .. })) = (outcome, running) {
                fail(gone());
            }
        });
        start_watching(&self.shared, &mut state);
        if let Err(error) = spawned
            && let Some(Running { fail, .. }) = state.end(id)
        {
            drop(state);
            fail(Error::internal(error));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        self.shared.watch.notify_all();
    }
}

fn fail_all(tasks: VecDeque<Task>) {
    tasks.into_iter().for_each(|task| (task.fail)(gone()));
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "the function could not be run")
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// A thread with the stack that functions may use.
fn thread(options: &ScriptOptions, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("settee-script".to_owned());
    thread.stack_size(options.stack.min(MAX_STACK) + THREAD_STACK).spawn(work).map(drop)
}

fn spawn(shared: &Arc<Shared>, state: &mut State) {
    let id = state.next_thread;
    state.next_thread += 1;
    let worker = shared.clone();
    match thread(&shared.options, move || serve(&worker, id)) {
        Ok(()) => state.threads += 1,
        Err(error) => tracing::error!("no thread for design documents: {error}"),
    }
    start_watching(shared, state);
}

fn start_watching(shared: &Arc<Shared>, state: &mut State) {
    if !state.watched {
        let watcher = shared.clone();
        state.watched = std::thread::Builder::new()
            .name("settee-script-watch".to_owned())
            .spawn(move || watch(&watcher))
            .is_ok();
    }
}

/// What a thread does: one task after the other.
fn serve(shared: &Arc<Shared>, id: u64) {
    let watch = Arc::new(Watch::new());
    let mut worker = Worker { shared: shared.clone(), watch: watch.clone(), envs: Vec::new() };
    let mut state = lock(&shared.state);
    loop {
        let Some(task) = state.queue.pop_front() else {
            if state.closed {
                return;
            }
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(|poison| poison.into_inner());
            state.idle -= 1;
            continue;
        };
        watch.start(Instant::now());
        let Task { key, run, fail } = task;
        let watch = watch.clone();
        state.begin(shared, Running { thread: id, serves: true, key, watch, fail });
        drop(state);
        run(&mut worker);
        state = lock(&shared.state);
        if state.end(id).is_none() {
            // Another has taken this one's place.
            return;
        }
    }
}

/// What the watcher does.
fn watch(shared: &Arc<Shared>) {
    let limit = shared.options.timeout + GRACE;
    let mut state = lock(&shared.state);
    while !state.closed {
        if state.running.is_empty() {
            state = shared.watch.wait(state).unwrap_or_else(|poison| poison.into_inner());
            continue;
        }
        let waited = shared.watch.wait_timeout(state, WATCH);
        state = waited.unwrap_or_else(|poison| poison.into_inner()).0;
        while let Some(at) = state.running.iter().position(|task| task.watch.running() > limit) {
            let late = state.running.swap_remove(at);
            tracing::warn!("a function of {} does not end", late.key);
            state.stuck.push((late.thread, late.key));
            if late.serves {
                state.threads -= 1;
                spawn(shared, &mut state);
            }
            let orphans = state.orphans();
            drop(state);
            fail_all(orphans);
            (late.fail)(timed_out(shared.options.timeout));
            state = lock(&shared.state);
        }
    }
}

impl Worker {
    pub(super) fn options(&self) -> &ScriptOptions {
        &self.shared.options
    }

    /// Does something in a context, which is made if this thread has none, and is kept for the next
    /// call if this one leaves it as it was.
    pub(super) fn enter<T>(
        &mut self,
        key: &Key,
        source: &Source,
        work: impl for<'js> FnOnce(&Scope<'_, 'js>) -> T,
    ) -> Result<T> {
        let at = self.envs.iter().position(|(other, _)| other == key);
        let env = match at {
            Some(at) => self.envs.remove(at).1,
            None => {
                if self.envs.len() >= self.shared.options.cached.max(1) {
                    self.envs.remove(0);
                }
                Env::new(source, &self.shared.options, self.watch.clone(), |_, _| Ok(()))?
            }
        };
        let result = env.enter(work);
        if env.is_sound() {
            self.envs.push((key.clone(), env));
        }
        result
    }
}
