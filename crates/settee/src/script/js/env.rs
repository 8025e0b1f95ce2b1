//! One runtime with one context: where the functions of one design document live.

use super::super::ScriptOptions;
use super::pool::{MAX_STACK, Watch};
use rquickjs::context::intrinsic;
use rquickjs::function::IntoArgs;
use rquickjs::{Context, Ctx, Function, Object, Persistent, Runtime, Value};
use settee_core::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PRELUDE: &str = include_str!("prelude.js");

/// What a context is made for.
#[derive(Debug)]
pub(super) enum Source {
    /// Functions by number, and what they may require (JSON).
    Functions { functions: Vec<String>, design: Option<String> },
    /// A design document, as JSON.
    Design(Arc<str>),
}

/// What of JavaScript functions get: all of the language but shared memory, weak references and
/// clocks finer than `Date`.
type Intrinsics = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Proxy,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
);

/// When the current call must end.
#[derive(Debug)]
pub(super) struct Clock {
    timeout: Duration,
    deadline: Cell<Instant>,
    /// Whether a call has been interrupted.
    expired: Cell<bool>,
    watch: Arc<Watch>,
}

impl Clock {
    /// Gives a call its time, all of it.
    pub(super) fn start(&self) {
        let now = Instant::now();
        self.deadline.set(now + self.timeout);
        self.watch.start(now);
    }

    /// While a function waits for what is outside, its time stands still. Returns what is left.
    pub(super) fn pause(&self) -> Duration {
        self.watch.pause();
        self.deadline.get().saturating_duration_since(Instant::now())
    }

    /// Goes on with the time that was left.
    pub(super) fn resume(&self, left: Duration) {
        let now = Instant::now();
        self.deadline.set(now + left);
        self.watch.start(now);
    }
}

/// A context with its runtime, and the object that the prelude returned.
pub(super) struct Env {
    // In this order, in which they are dropped.
    host: Persistent<Object<'static>>,
    context: Context,
    runtime: Runtime,
    clock: Rc<Clock>,
    broken: Cell<bool>,
}

/// The inside of a context.
pub(super) struct Scope<'a, 'js> {
    env: &'a Env,
    pub(super) ctx: Ctx<'js>,
    pub(super) host: Object<'js>,
}

impl Env {
    pub(super) fn new(
        source: &Source,
        options: &ScriptOptions,
        watch: Arc<Watch>,
        natives: impl for<'js> FnOnce(&Object<'js>, &Rc<Clock>) -> rquickjs::Result<()>,
    ) -> Result<Env> {
        let clock = Rc::new(Clock {
            timeout: options.timeout,
            deadline: Cell::new(Instant::now() + options.timeout),
            expired: Cell::new(false),
            watch,
        });
        let runtime = Runtime::new().map_err(failed)?;
        runtime.set_memory_limit(options.memory.max(1));
        runtime.set_max_stack_size(options.stack.clamp(1, MAX_STACK));
        let interrupt = clock.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || {
            let expired = Instant::now() >= interrupt.deadline.get();
            if expired {
                interrupt.expired.set(true);
            }
            expired
        })));
        let context = Context::custom::<Intrinsics>(&runtime).map_err(failed)?;
        clock.start();
        let host = context
            .with(|ctx| {
                let native = Object::new(ctx.clone())?;
                native.set("log", Function::new(ctx.clone(), log)?)?;
                natives(&native, &clock)?;
                let prelude: Function<'_> = ctx.eval(PRELUDE)?;
                let host: Object<'_> = prelude.call((native,))?;
                rquickjs::Result::Ok(Persistent::save(&ctx, host))
            })
            .map_err(failed)?;
        let env = Env { host, context, runtime, clock, broken: Cell::new(false) };
        env.enter(|scope| match source {
            Source::Functions { functions, design } => {
                if let Some(design) = design {
                    scope.call("setDesign", (scope.parse(design)?,))?;
                }
                let list = rquickjs::Array::new(scope.ctx.clone()).map_err(failed)?;
                for (n, function) in functions.iter().enumerate() {
                    list.set(n, function.as_str()).map_err(failed)?;
                }
                scope.ask("load", (list,)).map(drop)
            }
            Source::Design(text) => scope.call("setDesign", (scope.parse(text)?,)).map(drop),
        })??;
        Ok(env)
    }

    /// Does something inside.
    pub(super) fn enter<T>(&self, work: impl for<'js> FnOnce(&Scope<'_, 'js>) -> T) -> Result<T> {
        self.context.with(|ctx| {
            let host = self.host.clone().restore(&ctx).map_err(failed)?;
            Ok(work(&Scope { env: self, ctx, host }))
        })
    }

    /// Whether the context is as it was made, and may serve the next call.
    pub(super) fn is_sound(&self) -> bool {
        !self.broken.get()
            && !self.runtime.is_job_pending()
            && self
                .enter(|scope| scope.call("isClean", ())?.as_bool().ok_or_else(|| failed("")))
                .is_ok_and(|clean| matches!(clean, Ok(true)))
    }
}

impl<'js> Scope<'_, 'js> {
    /// A value from JSON.
    pub(super) fn parse(&self, text: &str) -> Result<Value<'js>> {
        // With room for the zero byte that the engine wants at the end.
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.as_bytes());
        self.ctx.json_parse(bytes).map_err(|error| self.caught(&error))
    }

    /// A function of the prelude.
    pub(super) fn function(&self, name: &str) -> Result<Function<'js>> {
        self.host.get(name).map_err(failed)
    }

    /// Calls a function of the prelude, and gives it the time that one call may take.
    pub(super) fn call(&self, name: &str, args: impl IntoArgs<'js>) -> Result<Value<'js>> {
        self.run(&self.function(name)?, args)
    }

    /// As [`Scope::call`].
    pub(super) fn run(
        &self,
        function: &Function<'js>,
        args: impl IntoArgs<'js>,
    ) -> Result<Value<'js>> {
        self.clock().start();
        function.call(args).map_err(|error| self.caught(&error))
    }

    /// Calls a function of the prelude that answers: `+` and its result as JSON, or `-` and what was
    /// thrown.
    pub(super) fn ask(&self, name: &str, args: impl IntoArgs<'js>) -> Result<String> {
        self.answer(&self.function(name)?, args)
    }

    /// As [`Scope::ask`].
    pub(super) fn answer(
        &self,
        function: &Function<'js>,
        args: impl IntoArgs<'js>,
    ) -> Result<String> {
        let mut answer = self.text(&self.run(function, args)?)?;
        let refused = answer.starts_with('-');
        if !answer.is_empty() {
            answer.remove(0);
        }
        if !refused {
            return Ok(answer);
        }
        let (name, reason): (String, String) = serde_json::from_str(&answer).map_err(failed)?;
        if name == "InternalError" {
            self.env.broken.set(true);
        }
        Err(thrown(name, reason))
    }

    /// A string that a function returned.
    pub(super) fn text(&self, value: &Value<'js>) -> Result<String> {
        let text = value.as_string().ok_or_else(|| failed("no text"))?;
        text.to_string().map_err(|error| self.caught(&error))
    }

    /// Notes that what is here may be damaged.
    pub(super) fn set_broken(&self) {
        self.env.broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.env.broken.get()
    }

    pub(super) fn has_expired(&self) -> bool {
        self.clock().expired.get()
    }

    fn clock(&self) -> &Clock {
        &self.env.clock
    }

    /// An error that went through the prelude: time or memory is used up, and the context with it.
    fn caught(&self, error: &rquickjs::Error) -> Error {
        self.env.broken.set(true);
        if self.clock().expired.get() {
            return timed_out(self.clock().timeout);
        }
        if !error.is_exception() {
            return failed(error);
        }
        let message = self.ctx.catch().into_exception().and_then(|exception| exception.message());
        // Without memory there is no message either.
        let message = message.unwrap_or_else(|| "out of memory".to_owned());
        thrown("InternalError".to_owned(), message)
    }
}

/// A function ran too long.
pub(super) fn timed_out(timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the function ran longer than {timeout:?}"))
}

/// A failure of the engine itself.
fn failed(error: impl ToString) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}

/// The error that a function meant by what it threw.
fn thrown(name: String, reason: String) -> Error {
    let kind = match name.as_str() {
        "not_found" => ErrorKind::NotFound,
        "not_acceptable" => ErrorKind::NotAcceptable,
        "bad_request" => ErrorKind::BadRequest,
        "forbidden" => ErrorKind::Forbidden,
        "unauthorized" => ErrorKind::Unauthorized,
        _ => ErrorKind::Internal,
    };
    let error = Error::new(kind, reason);
    if kind == ErrorKind::Internal { error.with_name(name) } else { error }
}

fn log(message: String) {
    tracing::info!(target: "settee::script", "{message}");
}
