//! `settee compact`

use crate::cmd::{existing, open};
use crate::{Failure, say};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Drop old revisions' bodies and give back space.
#[derive(clap::Args)]
pub(crate) struct Compact {
    /// The directory of databases. No server may be using it; one that runs compacts with
    /// POST /{db}/_compact.
    dir: PathBuf,
}

impl Compact {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        existing(&self.dir)?;
        let before = size(&self.dir);
        let local = open(&self.dir)?;
        local.compact()?;
        drop(local);
        say(format_args!("{before} bytes before, {} after", size(&self.dir)));
        Ok(ExitCode::SUCCESS)
    }
}

/// The bytes of all files below; what cannot be read does not count.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
