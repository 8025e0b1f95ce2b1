//! The `settee` command.
//!
//! One file per subcommand in `cmd/`, with its flags. Exit codes: 0 done, 1 failed, 2 the command
//! line makes no sense, 3 the check found damage.

mod cmd;

use clap::{Parser, Subcommand};
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

/// A CouchDB-compatible document database.
#[derive(Parser)]
#[command(name = "settee", version = env!("CARGO_PKG_VERSION"))]
struct Command {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    Serve(cmd::serve::Serve),
    Check(cmd::check::Check),
    Compact(cmd::compact::Compact),
    Replicate(cmd::replicate::Replicate),
    Sync(cmd::sync::Sync),
}

/// Why a command failed, in words for the terminal.
struct Failure(String);

impl Failure {
    fn new(what: impl Into<String>) -> Failure {
        Failure(what.into())
    }
}

impl From<settee::Error> for Failure {
    fn from(error: settee::Error) -> Failure {
        Failure(error.reason().to_owned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> ExitCode {
    let outcome = match Command::parse().command {
        Subcommands::Serve(serve) => serve.run(),
        Subcommands::Check(check) => check.run(),
        Subcommands::Compact(compact) => compact.run(),
        Subcommands::Replicate(replicate) => replicate.run(),
        Subcommands::Sync(sync) => sync.run(),
    };
    outcome.unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr(), "settee: {failure}");
        ExitCode::FAILURE
    })
}

/// Prints a line. Whoever reads may have gone, which is no reason to fail.
fn say(line: impl fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
