//! Stages: what is being done, for how long, and how each ended. Everything goes to standard error, so that the output of
//! a measurement stays alone on standard output.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// The stages of one command, in order.
pub struct Stages {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    took: Duration,
    passed: bool,
}

impl Stages {
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Runs one stage. The error names the stage.
    pub fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("== {name}");
        let started = Instant::now();
        let result = work();
        let took = started.elapsed();
        self.rows.push(Row { name: name.to_owned(), took, passed: result.is_ok() });
        result.map_err(|error| error.context(format!("the stage `{name}` failed after {:.1} s", took.as_secs_f64())))
    }

    /// A table of what ran, for the end of a command.
    pub fn summary(&self) {
        if self.rows.len() < 2 {
            return;
        }
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        eprintln!("\n{:width$}  {:>8}", "stage", "seconds");
        for row in &self.rows {
            let end = if row.passed { "" } else { "  FAILED" };
            eprintln!("{:width$}  {:>8.1}{end}", row.name, row.took.as_secs_f64());
        }
        let total: Duration = self.rows.iter().map(|row| row.took).sum();
        eprintln!("{:width$}  {:>8.1}", "all", total.as_secs_f64());
    }
}

/// One line about what a stage found or did.
pub fn note(text: impl AsRef<str>) {
    eprintln!("   {}", text.as_ref());
}

/// An error that says what to do about it.
pub fn advise(what: impl Into<String>, to_do: &str) -> Error {
    anyhow::anyhow!("{}\nWhat to do: {to_do}", what.into())
}

/// Prints an error with its causes, outermost first.
pub fn report(error: &Error) {
    eprintln!("\nerror: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {}", cause.to_string().replace('\n', "\n  "));
    }
}

/// Says every few seconds that something is still going on, until it is dropped.
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    pub fn start(doing: &str) -> Self {
        let (stop, stopped) = channel();
        let doing = doing.to_owned();
        let started = Instant::now();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                note(format!("... {doing}: {} s", started.elapsed().as_secs()));
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only prints; a panic in it is nobody's loss.
            let _ = thread.join();
        }
    }
}
