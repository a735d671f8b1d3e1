//! Whether a request still has time, for everything that the host itself does for it.
//!
//! A guest is stopped from outside, see `engine::control`. Host code is not: whatever walks over bytes that a peer chose
//! asks its request's token now and then, and gives up when that says so. Asking costs a load and a look at the clock;
//! loops of small steps ask through [`Steps`].

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why work was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StopCause {
    Deadline = 1,
    Cancelled = 2,
    /// It makes way for others, and begins again: what it has done counts for nothing. Guests only.
    Back = 3,
}

/// One request: until when it may be worked on, and whether somebody has asked for its end. Shared by the thread that
/// works on it and those who may end it.
#[derive(Debug)]
pub struct StopToken {
    epoch: Instant,
    /// In microseconds since `epoch`. Set as soon as the request has been read that says it; before that, and without a
    /// bound, there is none.
    deadline: AtomicU64,
    cause: AtomicU8,
}

const NO_DEADLINE: u64 = u64::MAX;

impl Default for StopToken {
    fn default() -> Self {
        Self { epoch: Instant::now(), deadline: AtomicU64::new(NO_DEADLINE), cause: AtomicU8::new(0) }
    }
}

/// Counts the steps of a loop, and looks at the token now and then.
#[derive(Debug)]
pub struct Steps<'a> {
    token: &'a StopToken,
    steps: u32,
    left: u32,
}

impl StopToken {
    /// A token that only `stop` ends.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token with a deadline. None: there is no bound.
    pub fn until(deadline: Option<Instant>) -> Self {
        let token = Self::new();
        token.set_deadline(deadline);
        token
    }

    /// Another request begins; nobody else has the token.
    pub fn renew(&self) {
        self.deadline.store(NO_DEADLINE, Ordering::Relaxed);
        self.cause.store(0, Ordering::SeqCst);
    }

    /// The request has been read: this is its deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        let micros = |at: Instant| u64::try_from(at.saturating_duration_since(self.epoch).as_micros());
        let at = deadline.and_then(|at| micros(at).ok()).unwrap_or(NO_DEADLINE);
        self.deadline.store(at, Ordering::Relaxed);
    }

    pub fn deadline(&self) -> Option<Instant> {
        let at = self.deadline.load(Ordering::Relaxed);
        if at == NO_DEADLINE { None } else { self.epoch.checked_add(Duration::from_micros(at)) }
    }

    /// Asks for the end. The first cause counts.
    pub fn stop(&self, cause: StopCause) {
        let _ = self.cause.compare_exchange(0, cause as u8, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Whether work may go on.
    pub fn check(&self) -> Result<(), StopCause> {
        match self.cause.load(Ordering::SeqCst) {
            0 => match self.deadline() {
                Some(at) if Instant::now() >= at => Err(StopCause::Deadline),
                _ => Ok(()),
            },
            c if c == StopCause::Cancelled as u8 => Err(StopCause::Cancelled),
            _ => Err(StopCause::Deadline),
        }
    }

    /// How long the work may still wait for something, at most `longest`. Zero: not at all.
    pub fn patience(&self, longest: Duration) -> Duration {
        match self.check() {
            Err(_) => Duration::ZERO,
            Ok(()) => self.deadline().map_or(longest, |at| at.saturating_duration_since(Instant::now()).min(longest)),
        }
    }

    /// For a loop of small steps: looks at the token once in `steps` of them.
    pub fn every(&self, steps: u32) -> Steps<'_> {
        Steps { token: self, steps, left: steps }
    }
}

impl Steps<'_> {
    /// One step more.
    #[inline]
    pub fn step(&mut self) -> Result<(), StopCause> {
        self.left -= 1;
        if self.left > 0 {
            return Ok(());
        }
        self.left = self.steps;
        self.token.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts_and_a_deadline_is_one() {
        let token = StopToken::new();
        assert_eq!(token.check(), Ok(()));
        token.set_deadline(Some(Instant::now()));
        assert_eq!(token.check(), Err(StopCause::Deadline));
        token.stop(StopCause::Cancelled);
        token.stop(StopCause::Deadline);
        assert_eq!(token.check(), Err(StopCause::Cancelled));
        assert_eq!(token.patience(Duration::from_secs(1)), Duration::ZERO);
        token.renew();
        assert_eq!((token.check(), token.deadline()), (Ok(()), None), "the next request has its own time");
    }

    #[test]
    fn a_loop_looks_once_in_so_many_steps() {
        let token = StopToken::new();
        token.stop(StopCause::Cancelled);
        let mut steps = token.every(3);
        assert_eq!([steps.step(), steps.step(), steps.step()], [Ok(()), Ok(()), Err(StopCause::Cancelled)]);
        assert_eq!([steps.step(), steps.step(), steps.step()], [Ok(()), Ok(()), Err(StopCause::Cancelled)]);
    }

    #[test]
    fn patience_ends_with_the_deadline() {
        let longest = Duration::from_secs(60);
        assert_eq!(StopToken::new().patience(longest), longest);
        let soon = StopToken::until(Instant::now().checked_add(Duration::from_secs(30)));
        assert!(soon.patience(longest) <= Duration::from_secs(30));
    }
}
