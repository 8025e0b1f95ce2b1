//! `settee check`

use crate::cmd::{existing, open};
use crate::{Failure, say};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a check that finds damage exits with.
const DAMAGED: u8 = 3;

/// Check that everything stored is as it must be.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// The directory of databases. No server may be using it.
    dir: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        existing(&self.dir)?;
        let report = open(&self.dir)?.check()?;
        for problem in &report.problems {
            say(format_args!("problem: {problem}"));
        }
        say(format_args!(
            "{} databases, {} documents, {} revisions, {} attachments, {} problems",
            report.databases,
            report.documents,
            report.revisions,
            report.attachments,
            report.problems.len(),
        ));
        Ok(match report.problems.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(DAMAGED),
        })
    }
}
