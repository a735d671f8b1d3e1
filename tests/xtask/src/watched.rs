//! Runs tests in full view and remembers which of them failed, so that the end of a long log says it again.
//!
//! The outputs of two kinds of runner are known: that of Rust's test programs, and the Test Anything Protocol, which Node's
//! writes where there is no terminal. Of any other program the last lines are remembered.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::line;

/// Of each test that failed.
const LINES_OF_TEST: usize = 25;
/// Of all of them.
const LINES: usize = 150;
/// Of a program that names no test.
const LAST_LINES: usize = 30;

/// How long the output is read after its program has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

type Source = Box<dyn Read + Send>;
type Sink = Box<dyn Write + Send>;

/// Runs it. The error repeats what it has said of the tests that failed.
pub fn watched(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let failures = Arc::new(Mutex::new(Failures::default()));
    let (out, err) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let (open, closed) = channel::<()>();
    for (from, to) in
        [(Box::new(out) as Source, Box::new(std::io::stdout()) as Sink), (Box::new(err), Box::new(std::io::stderr()))]
    {
        let (failures, open) = (Arc::clone(&failures), open.clone());
        std::thread::spawn(move || {
            copy(from, to, &failures);
            drop(open);
        });
    }
    drop(open);
    let status = child.wait()?;
    // both threads have ended then, or something that the tests left behind has the pipes still
    let _ = closed.recv_timeout(LEFT_BEHIND);
    if !status.success() {
        bail!("{} ended with {status}:\n{}", line(command), of(&failures).text());
    }
    Ok(())
}

fn of(failures: &Mutex<Failures>) -> MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(from: Source, mut to: Sink, failures: &Mutex<Failures>) {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while matches!(from.read_until(b'\n', &mut bytes), Ok(1..)) {
        // nobody who looks on is no reason to stop the tests
        let _ = to.write_all(&bytes).and_then(|()| to.flush());
        of(failures).look_at(String::from_utf8_lossy(&bytes).trim_end());
        bytes.clear();
    }
}

#[derive(Default)]
struct Failures {
    told: Vec<String>,
    last: VecDeque<String>,
    /// How many more lines belong to the test that is being told of.
    more: usize,
}

impl Failures {
    fn look_at(&mut self, line: &str) {
        let begins = line.starts_with("---- ") && line.ends_with(" ----") || line.trim_start().starts_with("not ok ");
        let ends = line == "failures:" || line.trim() == "..." || line.trim_start().starts_with("# Subtest");
        let alone = line.starts_with("test ") && line.ends_with(" ... FAILED");
        self.more = match (begins, ends) {
            (true, _) => LINES_OF_TEST,
            (_, true) => 0,
            _ => self.more,
        };
        if (self.more > 0 || alone) && self.told.len() < LINES {
            self.told.push(line.to_owned());
        }
        self.more = self.more.saturating_sub(1);
        self.last.push_back(line.to_owned());
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = match self.told.is_empty() {
            true => self.last.iter().map(String::as_str).collect(),
            false => self.told.iter().map(String::as_str).collect(),
        };
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(output: &str) -> String {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.look_at(line));
        failures.text()
    }

    #[test]
    fn what_failed_in_rust_is_told_again() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nthread 'b' panicked at x.rs:1:2:\nwhy\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed";
        assert_eq!(told(output), "test b ... FAILED\n---- b stdout ----\nthread 'b' panicked at x.rs:1:2:\nwhy\n");
    }

    #[test]
    fn what_failed_in_node_is_told_again() {
        let output = "# Subtest: a\nok 1 - a\n  ---\n  duration_ms: 1\n  ...\n# Subtest: b\nnot ok 2 - b\n  ---\n  error: 'why'\n  ...\n1..2";
        assert_eq!(told(output), "not ok 2 - b\n  ---\n  error: 'why'");
    }

    #[test]
    fn of_what_names_no_test_the_last_lines_are_told() {
        let output: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(told(&output.join("\n")), output[70..].join("\n"));
    }
}
