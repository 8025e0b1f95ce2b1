//! `settee sync`

use crate::Failure;
use crate::cmd::replicate::{How, on_interrupt, report, show};
use std::process::ExitCode;

/// Copy what each of two databases lacks of the other.
///
/// Databases are given as for `settee replicate`.
#[derive(clap::Args)]
pub(crate) struct Sync {
    /// The one.
    one: String,
    /// The other, which `--create-target` creates.
    other: String,
    #[command(flatten)]
    how: How,
}

impl Sync {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (one, other) = self.how.open(&self.one, &self.other)?;
        let sync = settee::Sync::of(
            self.how.set_up(one.replicate_to(&other))?,
            self.how.set_up(one.replicate_from(&other))?,
        );
        let result = self.how.runtime()?.block_on(async {
            self.how.prepare(&one, &other, "other database").await?;
            let (handle, task) = sync.into_task();
            let running = tokio::spawn(task);
            let interrupt = handle.clone();
            on_interrupt(move || interrupt.cancel());
            tokio::join!(show("push: ", &handle.push), show("pull: ", &handle.pull));
            let ended = running.await;
            Ok::<_, Failure>(ended.map_err(|e| Failure::new(format!("it broke off: {e}")))??)
        })?;
        let (push, pull) = (report("push: ", &result.push), report("pull: ", &result.pull));
        Ok(if push && pull { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
