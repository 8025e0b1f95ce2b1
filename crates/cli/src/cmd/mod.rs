//! The subcommands.

pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod replicate;
pub(crate) mod serve;
pub(crate) mod sync;

use crate::Failure;
use settee::ErrorKind;
use settee::local::{Local, LocalOptions};
use settee_core::json::Limits;
use std::path::Path;

/// Opens a directory of databases. Sizes are bounded where documents come in, and those bounds can
/// be changed while the server runs, so here there are none.
fn open(dir: &Path) -> Result<Local, Failure> {
    open_with(dir, LocalOptions::default())
}

fn open_with(dir: &Path, mut options: LocalOptions) -> Result<Local, Failure> {
    options.limits = Limits { document: usize::MAX, attachment: usize::MAX, ..Limits::default() };
    Local::open(dir, &options).map_err(|error| match error.kind() {
        ErrorKind::ServiceUnavailable => {
            Failure::new(format!("{} is in use by another process.", dir.display()))
        }
        _ => Failure::new(format!("{} cannot be opened: {}", dir.display(), error.reason())),
    })
}

/// Refuses a directory that is not there, which opening would create.
fn existing(dir: &Path) -> Result<(), Failure> {
    match dir.is_dir() {
        true => Ok(()),
        false => Err(Failure::new(format!("{} is not a directory.", dir.display()))),
    }
}
