//! What the main thread looks after and what HTTP tells about: a server, in this process or in another.

use std::time::Duration;

use crate::server::{Pulse, Server};

/// See the module.
pub trait Served: Send + Sync {
    /// Asks for the end.
    fn drain(&self);
    fn is_draining(&self) -> bool;
    /// Gives it a reason to move.
    fn prod(&self);
    /// None: it does not answer.
    fn pulse(&self) -> Option<Pulse>;
    /// Whether something runs that was to be stopped long ago.
    fn has_stuck_run(&self) -> bool;
    /// Prods and waits for a sign of life.
    fn is_alive(&self, patience: Duration) -> bool;
    /// All metrics in the Prometheus text format. None: it does not answer.
    fn prometheus(&self) -> Option<String>;
    /// Whether somebody is there to take clients.
    fn is_ready(&self) -> bool;
    /// What stands between guests and the machine, in words: one line.
    fn walls(&self) -> String;
}

impl Served for Server {
    fn drain(&self) {
        self.drain();
    }

    fn is_draining(&self) -> bool {
        self.is_draining()
    }

    fn prod(&self) {
        self.prod();
    }

    fn pulse(&self) -> Option<Pulse> {
        self.pulse()
    }

    fn has_stuck_run(&self) -> bool {
        self.has_stuck_run()
    }

    fn is_alive(&self, patience: Duration) -> bool {
        self.is_alive(patience)
    }

    fn prometheus(&self) -> Option<String> {
        Some(self.prometheus())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn walls(&self) -> String {
        "isolation none: guests run in the process that serves".to_owned()
    }
}
