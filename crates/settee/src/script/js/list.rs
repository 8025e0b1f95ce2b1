//! List functions: each has a thread and a context of its own, since it waits for its rows and for
//! who reads its output.

use super::super::{DesignSource, ListIo, ScriptOptions};
use super::env::{Clock, Env, Source};
use super::pool::{Pool, Watch};
use rquickjs::{Ctx, Exception, Function, Object};
use settee_core::{Error, Result};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

/// What to call.
pub(super) struct Call {
    pub(super) name: String,
    pub(super) head: String,
    pub(super) request: String,
}

/// What is around a function, until one of both ends; and the error that ended it, which the function
/// must not hide.
#[derive(Clone)]
struct Outside(Arc<Mutex<Ends>>);

struct Ends {
    io: Option<Box<dyn ListIo>>,
    error: Option<Error>,
}

/// Runs a list function, and returns at once.
pub(super) fn run(pool: &Pool, design: &DesignSource, call: Call, io: Box<dyn ListIo>) {
    let outside = Outside(Arc::new(Mutex::new(Ends { io: Some(io), error: None })));
    let late = outside.clone();
    let (source, options) = (Source::Design(design.text().clone()), pool.options().clone());
    let work = move |watch| {
        let result = run_function(&options, watch, &source, &call, &outside);
        outside.end(result);
    };
    pool.run_apart(design.key(), work, move |error| late.end(Err(error)));
}

fn run_function(
    options: &ScriptOptions,
    watch: Arc<Watch>,
    source: &Source,
    call: &Call,
    outside: &Outside,
) -> Result<()> {
    let env = Env::new(source, options, watch, |native, clock| outside.connect(native, clock))?;
    env.enter(|scope| {
        let (head, request) = (scope.parse(&call.head)?, scope.parse(&call.request)?);
        scope.ask("list", (call.name.as_str(), head, request)).map(drop)
    })?
}

impl Outside {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn end(&self, result: Result<()>) {
        let (io, error) = {
            let mut outside = self.lock();
            (outside.io.take(), outside.error.take())
        };
        if let Some(io) = io {
            io.end(error.map_or(result, Err));
        }
    }

    /// Gives the prelude its ways out.
    fn connect(&self, native: &Object<'_>, clock: &Rc<Clock>) -> rquickjs::Result<()> {
        let ctx = native.ctx();
        let (outside, time) = (self.clone(), clock.clone());
        let start =
            move |ctx: Ctx<'_>, response: String| outside.go(&ctx, &time, |io| io.start(&response));
        native.set("start", Function::new(ctx.clone(), start)?)?;
        let (outside, time) = (self.clone(), clock.clone());
        let send = move |ctx: Ctx<'_>, text: String| outside.go(&ctx, &time, |io| io.send(&text));
        native.set("send", Function::new(ctx.clone(), send)?)?;
        let (outside, time) = (self.clone(), clock.clone());
        let row = move |ctx: Ctx<'_>| {
            let row = outside.go(&ctx, &time, |io| io.row());
            // Each row has its time anew, and what is sent for it shares that.
            time.start();
            row
        };
        native.set("row", Function::new(ctx.clone(), row)?)
    }

    /// Leaves the function for what is around it. After an error it gets nowhere any more.
    fn go<T>(
        &self,
        ctx: &Ctx<'_>,
        clock: &Clock,
        go: impl FnOnce(&mut dyn ListIo) -> Result<T>,
    ) -> rquickjs::Result<T> {
        let mut outside = self.lock();
        let Ends { io: Some(io), error: None } = &mut *outside else {
            return Err(Exception::throw_message(ctx, "the list has ended"));
        };
        let left = clock.pause();
        let result = go(&mut **io);
        clock.resume(left);
        result.map_err(|error| {
            let thrown = Exception::throw_message(ctx, error.reason());
            outside.error = Some(error);
            thrown
        })
    }
}
