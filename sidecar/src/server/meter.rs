//! The processor time of a run, as far as its session pays for it: see `Hub::used`.
//!
//! What a guest takes is measured where it runs, and a compilation by itself. So nothing is measured for an execution that its
//! report would not tell anyway; of other requests all is work of the host, and measured from beginning to end.

use std::cell::Cell;
use std::time::Duration;

use nexus_protocol::message::Kind;

use crate::os;

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    /// Of this thread when the run began, where all of it counts.
    since: Option<Duration>,
    added: Cell<Duration>,
}

impl Meter {
    /// Of a run that begins on this thread.
    pub fn of(kind: Kind) -> Self {
        let is_told = matches!(kind, Kind::Execute | Kind::ExecuteMany | Kind::Resume);
        Self { since: (!is_told).then(os::thread_cpu_time), added: Cell::default() }
    }

    /// A part of it was measured elsewhere.
    pub fn add(&self, cpu: Duration) {
        self.added.set(self.added.get().saturating_add(cpu));
    }

    pub fn read(&self) -> Duration {
        self.since.map_or(self.added.get(), |since| os::thread_cpu_time().saturating_sub(since))
    }
}
