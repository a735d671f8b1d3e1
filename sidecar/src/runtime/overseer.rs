//! Who may stop what is done for a request, and hears how far it is.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Instance;
use crate::engine::control::RunControl;
use crate::engine::live_logs::SegmentLogs;
use crate::token::StopToken;

/// What a guest is entered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Compile,
    Execute,
}

/// Who may stop what is done for a request.
pub trait Overseer {
    /// By which host code learns that it has to end.
    fn token(&self) -> &StopToken;
    /// A guest is about to run for the request: from now on `control` stops it.
    fn arm(&self, control: &Arc<RunControl>, purpose: Purpose);
    /// The guest is done: `control` is somebody else's.
    fn disarm(&self);
    /// The time that the request has in all, where that is known, and what of it is used up by now.
    fn time(&self) -> (Option<Duration>, Duration);
    /// Something is about to be compiled, by the calling thread.
    fn compiles(&self);
    /// What the handler logs while it runs is there, for who wants to hear it.
    fn logs_live(&self, logs: SegmentLogs);
    /// The guest was stopped for the request to begin again: what came of it is no result.
    fn begins_again(&self) -> bool;
}

/// Nobody but the clock.
impl Overseer for StopToken {
    fn token(&self) -> &StopToken {
        self
    }

    fn arm(&self, control: &Arc<RunControl>, _: Purpose) {
        control.arm();
    }

    fn disarm(&self) {}

    fn time(&self) -> (Option<Duration>, Duration) {
        (None, Duration::ZERO)
    }

    fn compiles(&self) {}

    fn logs_live(&self, _: SegmentLogs) {}

    fn begins_again(&self) -> bool {
        false
    }
}

/// The control of an instance is with the request's overseer for as long as this lives.
pub struct Armed<'a>(Option<&'a dyn Overseer>);

impl<'a> Armed<'a> {
    pub(super) fn new(overseer: &'a dyn Overseer, instance: &Instance, purpose: Purpose) -> Self {
        overseer.arm(instance.control(), purpose);
        Self(Some(overseer))
    }

    /// There was no guest.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The overseer has let go of the control by itself.
    pub fn was_let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        if let Some(overseer) = self.0 {
            overseer.disarm();
        }
    }
}
