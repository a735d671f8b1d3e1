//! How much log there may be, and where it goes: the log never holds a worker up, and a flood of records is summed up.
//!
//! Handlers cause records (a missing capability, a broken guest), as often as they like. Each of two buckets, for errors and
//! for the rest, holds some records and is refilled by the second. Whoever started the sidecar may stop reading its stderr:
//! a pipe that is full takes nothing, so what it does not take at once is dropped and counted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::Level;
use nexus_protocol::limits::{LOG_BURST_RECORDS, MAX_LOG_RECORDS_PER_SECOND};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// After a word about those that were left out before it.
    Write {
        left_out: u64,
    },
    /// The bucket is empty after this one.
    LastForNow,
    LeaveOut,
}

#[derive(Debug)]
struct Bucket {
    records: f64,
    refilled: Instant,
    left_out: u64,
}

impl Bucket {
    fn judge(&mut self, now: Instant) -> Verdict {
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() * f64::from(MAX_LOG_RECORDS_PER_SECOND);
        self.records = (self.records + gained).min(f64::from(LOG_BURST_RECORDS));
        self.refilled = now;
        if self.records < 1.0 {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        // a flood is reported once, and not again for each record that trickles through
        if self.left_out > 0 && self.records < f64::from(MAX_LOG_RECORDS_PER_SECOND) {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        self.records -= 1.0;
        match std::mem::take(&mut self.left_out) {
            0 if self.records < 1.0 => Verdict::LastForNow,
            left_out => Verdict::Write { left_out },
        }
    }
}

/// The bound on records.
#[derive(Debug)]
pub struct Flow {
    errors: Mutex<Bucket>,
    rest: Mutex<Bucket>,
}

impl Flow {
    pub fn new() -> Self {
        let bucket = || Mutex::new(Bucket { records: LOG_BURST_RECORDS.into(), refilled: Instant::now(), left_out: 0 });
        Self { errors: bucket(), rest: bucket() }
    }

    pub fn judge(&self, level: Level, now: Instant) -> Verdict {
        let bucket = if level == Level::Error { &self.errors } else { &self.rest };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).judge(now)
    }
}

/// Most that a pipe takes whole when it takes anything (`PIPE_BUF`).
const CHUNK_BYTES: usize = 4096;

/// stderr that never waits for its reader.
#[derive(Debug, Default)]
pub struct Stderr {
    dropped_bytes: u64,
    /// The last record broke off, so the next one begins on a new line.
    torn: bool,
}

impl Stderr {
    fn put(&mut self, bytes: &[u8]) -> bool {
        let stderr = io::stderr();
        bytes.chunks(CHUNK_BYTES).all(|chunk| takes(&stderr) && stderr.lock().write_all(chunk).is_ok())
    }
}

/// Whether a chunk can be written without waiting.
fn takes(stderr: &io::Stderr) -> bool {
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
        && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLOUT))
}

impl Write for Stderr {
    /// Takes a whole record; what stderr does not take is dropped, which is no error.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.torn || self.dropped_bytes > 0 {
            let note = match self.dropped_bytes {
                0 => "\n".to_owned(),
                n => format!("\n[{n} bytes of the log were dropped: stderr was full]\n"),
            };
            if !self.put(note.as_bytes()) {
                self.dropped_bytes += record.len() as u64;
                return Ok(record.len());
            }
            (self.torn, self.dropped_bytes) = (false, 0);
        }
        if !self.put(record) {
            self.torn = true;
            self.dropped_bytes += record.len() as u64;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_counted_and_over_when_it_is_over() {
        let (flow, start) = (Flow::new(), Instant::now());
        let verdicts: Vec<Verdict> = (0..10_000).map(|_| flow.judge(Level::Warn, start)).collect();
        let written = verdicts.iter().filter(|v| **v != Verdict::LeaveOut).count();
        assert_eq!(written, LOG_BURST_RECORDS as usize);
        assert_eq!(verdicts[LOG_BURST_RECORDS as usize - 1], Verdict::LastForNow);
        assert_eq!(flow.judge(Level::Error, start), Verdict::Write { left_out: 0 }, "errors have their own bucket");
        let later = start + Duration::from_secs(2);
        assert_eq!(flow.judge(Level::Warn, later), Verdict::Write { left_out: 10_000 - u64::from(LOG_BURST_RECORDS) });
        assert_eq!(flow.judge(Level::Warn, later), Verdict::Write { left_out: 0 });
    }

    #[test]
    fn an_endless_flood_is_bounded_by_the_second() {
        let (flow, start) = (Flow::new(), Instant::now());
        let written = (0..100_000u64)
            .map(|i| flow.judge(Level::Warn, start + Duration::from_micros(100 * i)))
            .filter(|verdict| *verdict != Verdict::LeaveOut)
            .count();
        assert!(written <= (LOG_BURST_RECORDS + 10 * MAX_LOG_RECORDS_PER_SECOND) as usize, "{written}");
    }
}
