//! The processor time of a run, as far as its session pays for it: see `Hub::used`.
//!
//! What a guest takes is measured where it runs, so nothing is measured for an execution that its report would not tell anyway. From
//! the moment that something is compiled for it, all that follows counts; and of other requests, which are work of the host, all.

use std::cell::Cell;
use std::time::Duration;

use nexus_protocol::message::Kind;

use crate::os;

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    /// Of this thread, from when on all of it counts.
    since: Cell<Option<Duration>>,
    /// What was measured elsewhere, until then.
    added: Cell<Duration>,
}

impl Meter {
    /// Of a run that begins on this thread.
    pub fn of(kind: Kind) -> Self {
        let is_told = matches!(kind, Kind::Execute | Kind::ExecuteMany | Kind::Resume);
        Self { since: Cell::new((!is_told).then(os::thread_cpu_time)), added: Cell::default() }
    }

    /// A part of it was measured elsewhere.
    pub fn add(&self, cpu: Duration) {
        if self.since.get().is_none() {
            self.added.set(self.added.get().saturating_add(cpu));
        }
    }

    pub fn counts_all_from_now(&self) {
        if self.since.get().is_none() {
            self.since.set(Some(os::thread_cpu_time()));
        }
    }

    pub fn read(&self) -> Duration {
        let since = self.since.get().map(|since| os::thread_cpu_time().saturating_sub(since));
        self.added.get().saturating_add(since.unwrap_or_default())
    }
}
