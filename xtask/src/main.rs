//! The project's own commands: `cargo xtask test`, `ci`, `bench`, `help`.
//!
//! Nothing but the standard library, so that the first command on a fresh machine begins at once.

mod clients;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
cargo xtask COMMAND

  test [GROUP...]  run the tests; sets up what they need. Groups: rust, python, node. Default: all
  ci               what a change must pass: fmt, clippy, docs, then test with every group required
  bench [NAME...]  measure, beside the peers, and write docs/performance.md
  help             this

Environment:
  SETTEE_REQUIRE_ALL=1   a group that cannot run is a failure, not a skip (ci sets it)
  SETTEE_SEED=N          replay the randomised tests with this seed
  SETTEE_COUCHDB_URL=URL also run the conformance list on this CouchDB
";

/// A step that failed, and what it was.
pub(crate) struct Failed(pub(crate) String);

pub(crate) type Result<T = ()> = std::result::Result<T, Failed>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    let began = Instant::now();
    let outcome = match command.as_str() {
        "test" => test(&rest, std::env::var_os("SETTEE_REQUIRE_ALL").is_some()),
        "ci" => ci(),
        "bench" => bench(&rest),
        "help" | "--help" | "-h" => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        other => Err(Failed(format!("there is no command {other:?}; see cargo xtask help"))),
    };
    match outcome {
        Ok(()) => {
            say(&format!("{command}: done in {} s", began.elapsed().as_secs()));
            ExitCode::SUCCESS
        }
        Err(Failed(why)) => {
            say(&format!("{command}: FAILED: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// One line to whoever runs the command.
#[expect(clippy::print_stdout, reason = "this is a command")]
pub(crate) fn say(line: &str) {
    println!("{}", line.trim_end());
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A `cargo` command at the root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(root());
    cargo
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result {
    say(&format!("> {command:?}"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("{command:?} ended with {status}"))),
        Err(error) => Err(Failed(format!("{command:?} could not be started: {error}"))),
    }
}

/// A group of tests that this machine lacks something for.
fn skip(group: &str, why: &str, required: bool) -> Result {
    let what = format!("the group `{group}` cannot run here: {why}");
    if required {
        return Err(Failed(what));
    }
    say(&format!("SKIPPED: {what}"));
    Ok(())
}

fn test(groups: &[String], required: bool) -> Result {
    const GROUPS: [&str; 3] = ["rust", "python", "node"];
    if let Some(unknown) = groups.iter().find(|group| !GROUPS.contains(&group.as_str())) {
        return Err(Failed(format!("there is no group {unknown:?}; there are {GROUPS:?}")));
    }
    let wanted = |group: &str| groups.is_empty() || groups.iter().any(|wanted| wanted == group);
    if wanted("rust") {
        let mut cargo = cargo(&["test", "--workspace", "--all-features"]);
        if required {
            cargo.env("SETTEE_REQUIRE_FUSE", "1");
        }
        run(&mut cargo)?;
    }
    for client in clients::CLIENTS {
        if wanted(client.group) {
            match clients::missing(client) {
                Some(why) => skip(client.group, &why, required)?,
                None => clients::test(client)?,
            }
        }
    }
    Ok(())
}

fn ci() -> Result {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    run(&mut cargo(&clippy))?;
    // Without its optional parts the library must stand too, and stay free of them.
    run(&mut cargo(&["check", "--package", "settee"]))?;
    absent("settee", &["hyper", "reqwest", "rquickjs", "tokio"])?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    test(&[], true)
}

/// Checks that a package's default build has none of these dependencies.
fn absent(package: &str, unwanted: &[&str]) -> Result {
    let tree = ["tree", "--package", package, "--edges", "normal", "--prefix", "none"];
    let output = cargo(&tree).output().map_err(|e| Failed(format!("cargo tree: {e}")))?;
    let tree = String::from_utf8_lossy(&output.stdout);
    for name in unwanted {
        if tree.lines().any(|line| line.split(' ').next() == Some(name)) {
            return Err(Failed(format!("the default build of {package} contains {name}")));
        }
    }
    Ok(())
}

fn bench(names: &[String]) -> Result {
    // The server is a process of its own.
    run(&mut cargo(&["build", "--release", "--package", "settee-cli"]))?;
    let mut bench = cargo(&["run", "--release", "--package", "bench", "--"]);
    run(bench.args(names))
}
