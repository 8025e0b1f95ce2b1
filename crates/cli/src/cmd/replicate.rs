//! `settee replicate`

use crate::cmd::{existing, open};
use crate::{Failure, say};
use settee::prelude::StreamExt as _;
use settee::remote::{Remote, RemoteOptions};
use settee::replicate::{Progress, ReplicationEvent, ReplicationHandle, ReplicationResult};
use settee::{Couch, Database};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

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
    /// Go on with changes as they happen, until interrupted.
    #[arg(long)]
    continuous: bool,
    /// Create the target if it is not there.
    #[arg(long)]
    create_target: bool,
}

impl Replicate {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (from, to) = (End::parse(&self.source)?, End::parse(&self.target)?);
        if let End::Local { dir, .. } = &from {
            existing(dir)?;
        }
        if let (End::Local { dir, .. }, false) = (&to, self.create_target) {
            existing(dir)?;
        }
        let source = from.database(None)?;
        let target = to.database(Some((&from, source.couch())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::new(format!("no runtime: {e}")))?;
        let result = runtime.block_on(self.replicate(&source, &target))?;
        let counters = result.counters;
        say(format_args!(
            "{}: {} documents read, {} written, {} refused",
            result.status.name(),
            counters.docs_read,
            counters.docs_written,
            counters.doc_write_failures,
        ));
        for denied in &result.errors {
            say(format_args!("refused: {}: {}", denied.id, denied.error.reason()));
        }
        Ok(if result.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn replicate(
        &self,
        source: &Database,
        target: &Database,
    ) -> Result<ReplicationResult, Failure> {
        if self.create_target {
            target.couch().create_if_missing(target.name()).await?;
        }
        for (text, db) in [("source", source), ("target", target)] {
            if !db.exists().await? {
                return Err(Failure::new(format!("The {text} {} does not exist.", db.name())));
            }
        }
        let mut replication = source.replicate_to(target);
        if self.continuous {
            replication = replication.live();
        }
        let (handle, task) = replication.into_task();
        let running = tokio::spawn(task);
        let interrupt = handle.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                // Asked a second time, it stops at once.
                interrupt.cancel();
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(1);
                }
            }
        });
        show(&handle).await;
        let ended = running.await;
        Ok(ended.map_err(|e| Failure::new(format!("the replication broke off: {e}")))??)
    }
}

/// Shows how far it is, until it has ended.
async fn show(handle: &ReplicationHandle) {
    let terminal = std::io::stderr().is_terminal();
    let mut events = handle.events();
    let mut shown = false;
    while let Some(event) = events.next().await {
        let line = match event {
            ReplicationEvent::Change(progress) => line(&progress),
            ReplicationEvent::Paused(Some(error)) => format!("waiting: {}", error.reason()),
            _ => continue,
        };
        shown = true;
        let mut stderr = std::io::stderr().lock();
        // Whoever watches may have gone, which is no reason to fail.
        let _ = match terminal {
            true => write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{line}"),
        };
    }
    if shown && terminal {
        let _ = writeln!(std::io::stderr());
    }
}

fn line(progress: &Progress) -> String {
    let counters = progress.counters;
    let pending = progress.pending.map_or_else(String::new, |n| format!(", {n} changes to go"));
    let (read, written) = (counters.docs_read, counters.docs_written);
    format!("{read} read, {written} written, {} refused{pending}", counters.doc_write_failures)
}

/// Where a database is.
enum End {
    Local { dir: PathBuf, name: String },
    Remote { remote: Remote, name: String },
}

impl End {
    fn parse(text: &str) -> Result<End, Failure> {
        if text.contains("://") {
            let (remote, name) = Remote::connect_database(text, &RemoteOptions::new())?;
            return Ok(End::Remote { remote, name });
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
