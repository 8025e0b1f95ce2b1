//! Other processes: this test binary, started again to run one function.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Names the function that a child runs.
const ROLE: &str = "SETTEE_TEST_CHILD";
/// What it is given.
const ARGUMENT: &str = "SETTEE_TEST_CHILD_ARGUMENT";
/// The name of [`run`], below, to the test harness.
const ENTRY: &str = "child::entry_of_child_processes";

/// Where child processes begin; does nothing in any other.
#[test]
#[ignore = "it is where child processes begin"]
fn entry_of_child_processes() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let argument = std::env::var(ARGUMENT).unwrap_or_default();
    // Ends the line that the test harness has begun.
    say("");
    match role.as_str() {
        "writers" => crate::kill::writers(&argument),
        "attachment" => crate::big::attachment(&argument),
        "fill" => crate::big::fill(&argument),
        "databases" => crate::many::databases(&argument),
        "reopen" => crate::many::reopen(&argument),
        other => panic!("there is no function {other:?}"),
    }
}

/// Says a line to the parent, at once.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then there is nobody to tell.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

/// A process that runs a function of this binary. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(role: &str, argument: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ENTRY, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }

    /// The next line that begins with a word, without it; `None` at the end.
    pub(crate) fn line(&mut self, word: &str) -> Option<String> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix(word)?;
            Some(rest.trim().to_owned())
        })
    }

    /// Sends `SIGKILL`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end, which must be a good one, and returns the value of a line that was said.
    pub(crate) fn finish(mut self, word: &str) -> String {
        let said = self.line(word);
        while self.lines.by_ref().next().is_some_and(|line| line.is_ok()) {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the child process failed: {status}");
        said.unwrap_or_else(|| panic!("the child process did not say {word:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A figure of this process from the system, in KiB: `VmHWM` is the most memory it ever took.
pub(crate) fn memory(of: &str, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
