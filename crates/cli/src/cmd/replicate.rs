//! `settee replicate`

use crate::cmd::{existing, open};
use crate::{Failure, say};
use settee::options::Filter;
use settee::prelude::StreamExt as _;
use settee::remote::{Remote, RemoteOptions};
use settee::replicate::{Progress, ReplicationEvent, ReplicationHandle, ReplicationResult};
use settee::wire::Seq;
use settee::{Couch, Database, Replication, Selector};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Copy what one database lacks of another.
///
/// A database is DIR/DB, which no server may be using, or a URL, http://NAME:PASSWORD@HOST:PORT/DB.
/// Both ends remember how far this came, so the next time goes on from there. Fails if a document is
/// refused; the others are copied all the same.
#[derive(clap::Args)]
pub(crate) struct Replicate {
    /// Where from.
    source: String,
    /// Where to.
    target: String,
    #[command(flatten)]
    how: How,
}

/// How databases are replicated.
#[derive(clap::Args)]
pub(super) struct How {
    /// The directory of databases that are given by their name alone.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Go on with changes as they happen, until interrupted.
    #[arg(long)]
    continuous: bool,
    /// Create the target if it is not there.
    #[arg(long)]
    create_target: bool,
    /// Only this document; may be given several times.
    #[arg(long, value_name = "ID")]
    doc_id: Vec<String>,
    /// Only documents that match this, a selector in JSON.
    #[arg(long, value_name = "JSON", conflicts_with = "doc_id")]
    selector: Option<String>,
    /// Only documents that this filter function of the source, DESIGN/NAME, lets through.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["doc_id", "selector"])]
    filter: Option<String>,
    /// What the filter function finds in its query; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "filter")]
    query: Vec<String>,
    /// Begin behind this sequence of the source, unless there is a checkpoint.
    #[arg(long, value_name = "SEQ")]
    since: Option<String>,
    /// Neither use nor leave checkpoints.
    #[arg(long)]
    no_checkpoints: bool,
    /// Leave conflicting revisions behind.
    #[arg(long)]
    winning_revs_only: bool,
    /// With --continuous: how often a source that is a URL shows that it is still there.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    heartbeat: Option<u32>,
    /// How long either end may take for one answer; 120 unless set.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// How many changes go through together.
    #[arg(long, value_name = "CHANGES")]
    batch_size: Option<usize>,
    /// How many batches are on their way at once.
    #[arg(long, value_name = "BATCHES")]
    batches_limit: Option<usize>,
}

impl Replicate {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (source, target) = self.how.open(&self.source, &self.target)?;
        let replication = self.how.set_up(source.replicate_to(&target))?;
        let result = self.how.runtime()?.block_on(async {
            self.how.prepare(&source, &target, "target").await?;
            let (handle, task) = replication.into_task();
            let running = tokio::spawn(task);
            let interrupt = handle.clone();
            on_interrupt(move || interrupt.cancel());
            show("", &handle).await;
            let ended = running.await;
            Ok::<_, Failure>(ended.map_err(|e| Failure::new(format!("it broke off: {e}")))??)
        })?;
        Ok(if report("", &result) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl How {
    /// Finds both databases, which need not exist.
    pub(super) fn open(&self, one: &str, other: &str) -> Result<(Database, Database), Failure> {
        let data = self.data.as_deref();
        let mut options = RemoteOptions::new();
        if let Some(seconds) = self.timeout {
            options = options.request_timeout(Duration::from_secs(seconds.into()));
        }
        let end = |text| End::parse(text, data, &options);
        let (from, to) = (end(one)?, end(other)?);
        if let End::Local { dir, .. } = &from {
            existing(dir)?;
        }
        if let (End::Local { dir, .. }, false) = (&to, self.create_target) {
            existing(dir)?;
        }
        let source = from.database(None)?;
        let target = to.database(Some((&from, source.couch())))?;
        Ok((source, target))
    }

    /// A replication as it is wanted.
    pub(super) fn set_up(&self, mut replication: Replication) -> Result<Replication, Failure> {
        if self.continuous {
            replication = replication.live();
        }
        if !self.doc_id.is_empty() {
            replication = replication.doc_ids(self.doc_id.iter());
        }
        if let Some(selector) = &self.selector {
            let selector = serde_json::from_str(selector)
                .map_err(|e| Failure::new(format!("The selector is no JSON: {e}")))?;
            replication = replication.selector(Selector::parse(&selector)?);
        }
        if let Some(name) = &self.filter {
            let pair = |pair: &String| match pair.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.into())),
                None => Err(Failure::new(format!("{pair} is not NAME=VALUE."))),
            };
            let query = self.query.iter().map(pair).collect::<Result<_, _>>()?;
            replication = replication.filter(Filter::function_with(name, query));
        }
        if let Some(seq) = &self.since {
            replication = replication.since(match seq.parse() {
                Ok(number) => Seq::Number(number),
                Err(_) => Seq::Opaque(seq.clone()),
            });
        }
        if self.no_checkpoints {
            replication = replication.without_checkpoints();
        }
        if self.winning_revs_only {
            replication = replication.winning_revs_only();
        }
        if let Some(seconds) = self.heartbeat {
            replication = replication.heartbeat(Duration::from_secs(seconds.into()));
        }
        if let Some(seconds) = self.timeout {
            replication = replication.timeout(Duration::from_secs(seconds.into()));
        }
        if let Some(changes) = self.batch_size {
            replication = replication.batch_size(changes);
        }
        if let Some(batches) = self.batches_limit {
            replication = replication.batches_limit(batches);
        }
        Ok(replication)
    }

    pub(super) fn runtime(&self) -> Result<tokio::runtime::Runtime, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(|e| Failure::new(format!("no runtime: {e}")))
    }

    /// Looks whether both databases are there, and creates the second if that is wanted.
    pub(super) async fn prepare(
        &self,
        source: &Database,
        target: &Database,
        target_name: &str,
    ) -> Result<(), Failure> {
        if self.create_target {
            target.couch().create_if_missing(target.name()).await?;
        }
        for (text, db) in [("source", source), (target_name, target)] {
            if !db.exists().await? {
                return Err(Failure::new(format!("The {text} {} does not exist.", db.name())));
            }
        }
        Ok(())
    }
}

/// Does something when the user interrupts. Asked a second time, the process ends at once.
pub(super) fn on_interrupt(act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            act();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(1);
            }
        }
    });
}

/// Says what a replication came to. Returns whether every document was taken.
pub(super) fn report(direction: &str, result: &ReplicationResult) -> bool {
    let counters = result.counters;
    say(format_args!(
        "{direction}{}: {} documents read, {} written, {} refused",
        result.status.name(),
        counters.docs_read,
        counters.docs_written,
        counters.doc_write_failures,
    ));
    for denied in &result.errors {
        let (id, reason) = (printable(&denied.id), printable(denied.error.reason()));
        say(format_args!("{direction}refused: {id}: {reason}"));
    }
    result.ok
}

/// Text from elsewhere, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Shows how far it is, until it has ended.
pub(super) async fn show(direction: &str, handle: &ReplicationHandle) {
    let terminal = std::io::stderr().is_terminal();
    let mut events = handle.events();
    let mut shown = false;
    let mut rate = Rate::default();
    let mut most = 0;
    while let Some(event) = events.next().await {
        let line = match event {
            ReplicationEvent::Change(progress) => {
                let line = line(&progress, &mut rate);
                match terminal {
                    true => format!("{}{line}", bar(&progress, &mut most)),
                    false => line,
                }
            }
            ReplicationEvent::Paused(Some(error)) => {
                format!("waiting: {}", printable(error.reason()))
            }
            _ => continue,
        };
        shown = true;
        let mut stderr = std::io::stderr().lock();
        // Whoever watches may have gone, which is no reason to fail.
        let _ = match terminal {
            true => write!(stderr, "\r\x1b[K{direction}{line}").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{direction}{line}"),
        };
    }
    if shown && terminal {
        let _ = writeln!(std::io::stderr());
    }
}

/// How much of what there was to do is done, drawn. `most` is how much there has been at once.
fn bar(progress: &Progress, most: &mut u64) -> String {
    const WIDTH: u64 = 24;
    let Some(pending) = progress.pending else { return String::new() };
    let done = progress.counters.missing_checked;
    *most = (*most).max(done + pending);
    let filled = match *most {
        0 => WIDTH,
        most => (u128::from(done) * u128::from(WIDTH) / u128::from(most)) as u64,
    };
    let filled = filled.min(WIDTH) as usize;
    format!("[{}{}] ", "#".repeat(filled), "-".repeat(WIDTH as usize - filled))
}

/// How fast it goes, over the last second or so.
#[derive(Default)]
struct Rate {
    since: Option<(Instant, u64)>,
    per_second: Option<f64>,
}

impl Rate {
    fn at(&mut self, written: u64) -> Option<f64> {
        let (since, before) = *self.since.get_or_insert_with(|| (Instant::now(), written));
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            self.per_second = Some((written - before) as f64 / seconds);
            self.since = Some((Instant::now(), written));
        }
        self.per_second
    }
}

fn line(progress: &Progress, rate: &mut Rate) -> String {
    let counters = progress.counters;
    let pending = progress.pending.map_or_else(String::new, |n| format!(", {n} changes to go"));
    let (read, written) = (counters.docs_read, counters.docs_written);
    let rate = rate.at(written).map_or_else(String::new, |rate| format!(", {rate:.0}/s"));
    format!(
        "{read} read, {written} written{rate}, {} refused{pending}",
        counters.doc_write_failures
    )
}

/// Where a database is.
enum End {
    Local { dir: PathBuf, name: String },
    Remote { remote: Remote, name: String },
}

impl End {
    fn parse(text: &str, data: Option<&Path>, options: &RemoteOptions) -> Result<End, Failure> {
        if text.contains("://") {
            let (remote, name) = Remote::connect_database(text, options)?;
            return Ok(End::Remote { remote, name });
        }
        if let (Some(dir), false) = (data, text.contains(std::path::is_separator)) {
            return Ok(End::Local { dir: dir.to_owned(), name: text.to_owned() });
        }
        let path = Path::new(text);
        match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => {
                Ok(End::Local { dir: dir.to_owned(), name: name.to_owned() })
            }
            _ => Err(Failure::new(format!("{text} is neither DIR/DB nor a URL."))),
        }
    }

    /// The database. A directory that the other end has open already is not opened again.
    fn database(&self, other: Option<(&End, &Couch)>) -> Result<Database, Failure> {
        let (couch, name) = match self {
            End::Remote { remote, name } => (Couch::from_host(Arc::new(remote.clone())), name),
            End::Local { dir, name } => match other {
                Some((End::Local { dir: open, .. }, couch)) if same(dir, open) => {
                    (couch.clone(), name)
                }
                _ => (Couch::from_host(Arc::new(open(dir)?)), name),
            },
        };
        Ok(couch.db(name)?)
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_what_is_done() {
        let mut progress = Progress::default();
        let mut most = 0;
        assert_eq!(bar(&progress, &mut most), "");
        let mut at = |done, pending| {
            progress.counters.missing_checked = done;
            progress.pending = Some(pending);
            bar(&progress, &mut most)
        };
        assert_eq!(at(0, 100), "[------------------------] ");
        assert_eq!(at(50, 50), "[############------------] ");
        assert_eq!(at(100, 0), "[########################] ");
    }
}
