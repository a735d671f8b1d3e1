//! What is done for a request, as those see it who do it: by what it is stopped, and how much time it has.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Server;
use super::crew::{Budget, RunId};
use super::meter::Meter;
use crate::engine::control::{Control, RunControl};
use crate::engine::live_logs::SegmentLogs;
use crate::execution::Arrival;
use crate::runtime::{Overseer, Purpose};
use crate::token::StopToken;

/// A run, as those see it who do what it asks for.
pub(super) struct Oversight<'a> {
    pub server: &'a Server,
    pub run: RunId,
    pub token: Arc<StopToken>,
    pub budget: Cell<Budget>,
    /// Since when its time runs.
    pub since: Cell<Instant>,
    pub meter: &'a Meter,
}

impl Oversight<'_> {
    /// The request has been read: `timeout` is the time of its execution in all, `spent` what was used of it before.
    pub fn has_time(&self, (timeout, spent): (Option<Duration>, Duration), arrival: Arrival) {
        self.budget.set(Budget { timeout, spent });
        self.since.set(arrival.since);
        let left = timeout.map(|timeout| timeout.saturating_sub(spent));
        self.token.set_deadline(left.and_then(|left| arrival.since.checked_add(left)));
    }
}

impl Overseer for Oversight<'_> {
    fn token(&self) -> &StopToken {
        &self.token
    }

    fn arm(&self, control: &Arc<RunControl>, purpose: Purpose) {
        let control: Arc<dyn Control> = control.clone();
        self.server.lock().hub.crew.arm(self.run, control, purpose, self.budget.get(), Instant::now());
    }

    fn disarm(&self) {
        self.server.lock().hub.crew.disarm(self.run);
    }

    fn time(&self) -> (Option<Duration>, Duration) {
        let Budget { timeout, spent } = self.budget.get();
        (timeout, spent + self.since.get().elapsed())
    }

    fn compiles(&self) {
        self.meter.counts_all_from_now();
    }

    fn logs_live(&self, logs: SegmentLogs) {
        if let Some(run) = self.server.lock().hub.crew.get_mut(self.run) {
            run.live_logs = Some(logs);
        }
    }

    fn begins_again(&self) -> bool {
        self.server.lock().hub.crew.is_put_back(self.run)
    }
}
