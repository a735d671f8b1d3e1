//! What happens off the path of requests: suspended executions give their instances up, what is over is let go, and what waits
//! for long is read.
//!
//! Whom and when is decided in `holdings`; the watchdog only says that there is something to do. An execution has one owner at
//! any time: while it is parked that is the thread that parks it, and a resume that comes meanwhile waits in the hub, as it
//! does for another resume.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Instant;

use nexus_protocol::{ClientMessage, decode_client};

use super::Server;
use super::hub::{ParkingEnd, Unread};
use crate::execution::{self, Execution};
use crate::observe::SuspensionEvent;

/// What the watchdog leaves to the housekeeper, since it may take a while.
#[derive(Default)]
pub(super) struct Chores {
    /// Executions that are over, with their instances.
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    pub ended: Vec<Box<Execution>>,
    /// Jobs that wait for long, and may have less time than that.
    pub unread: Vec<Unread>,
    /// Instances and names of segments may be there that nobody needs.
    pub tidy: bool,
}

impl Chores {
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.unread.is_empty() && !self.tidy
    }
}

impl Server {
    /// The life of the housekeeper.
    pub(super) fn keep_house(&self) {
        loop {
            let Chores { ended, unread, tidy } = std::mem::take(&mut self.lock().chores);
            drop(ended);
            let due: HashMap<u64, Instant> = unread.iter().filter_map(|job| self.due(job)).collect();
            if !due.is_empty() {
                self.lock().hub.wait_until(&due);
            }
            if tidy {
                self.arenas.expire(Instant::now());
                self.runtime.pools().trim();
            }
            if self.park_one() {
                continue;
            }
            let state = self.lock();
            if state.chores.is_empty() && !state.hub.has_to_park(Instant::now()) {
                drop(self.housework.wait(state).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// When the time of an execution that waits is used up.
    fn due(&self, job: &Unread) -> Option<(u64, Instant)> {
        let ClientMessage::Execute(request) = decode_client(&job.frame).ok()?.message else { return None };
        let timeout = execution::narrow_timeout(self.runtime.config.timeout_ms, request.timeout_ms)?;
        Some((job.number, job.enqueued.checked_add(timeout)?))
    }

    /// Parks the execution that is due, if there is one. True: there may be more.
    pub(super) fn park_one(&self) -> bool {
        let Some((key, mut execution)) = self.lock().hub.next_to_park(Instant::now()) else { return false };
        let instance = match execution.park() {
            Ok(instance) => instance,
            Err(e) => {
                log::error!("suspended executions keep their instances from now on: {e}");
                let ended = {
                    let mut state = self.lock();
                    state.hub.give_up_parking();
                    state.hub.stay_live(key, execution, Instant::now())
                };
                self.wake_worker();
                drop(ended);
                return false;
            }
        };
        let parked = self.lock().hub.parked(key, execution, Instant::now());
        self.wake_worker();
        match parked {
            ParkingEnd::Parked => self.runtime.observer.record_suspension(SuspensionEvent::Parked),
            ParkingEnd::Ended(execution) => drop(execution),
            ParkingEnd::NoRoom(execution) => {
                let execution = match instance {
                    Some(instance) => Box::new(execution.keep(instance)),
                    None => execution,
                };
                let ended = self.lock().hub.stay_live(key, execution, Instant::now());
                self.wake_worker();
                drop(ended);
                return false;
            }
        }
        self.runtime.give_back(instance);
        true
    }

    /// A resume that waited for the execution may be in the queue now.
    fn wake_worker(&self) {
        let state = self.lock();
        if state.idle > 0 && state.hub.has_ready() {
            self.work.notify_one();
        }
    }
}
