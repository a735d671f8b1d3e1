//! What happens off the path of requests: suspended executions give their instances up, what is over is let go, what waits for
//! long is read, and long texts are written. Everything here may take as long as a peer has made it.
//!
//! Whom and when is decided in `holdings`; the watchdog and the thread that has the poller only say that there is something to
//! do. An execution has one owner at any time: while it is parked that is the thread that parks it, and a resume that comes
//! meanwhile waits in the hub, as it does for another resume.
//!
//! Nobody can replace the housekeeper: instances would be held for ever. So its panic ends the process, and so does anything
//! that it does not come back from, which the watchdog finds out: each piece of work begins with a word to `keeping`.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::{ClientMessage, decode_client};

use super::Server;
use super::connection::Connection;
use super::hub::{Left, ParkingEnd, SessionId, Unread};
use super::operator::Wanted;
use super::peer::Peer;
use super::state::broken;
use crate::execution::{self, Execution};
use crate::faults::{self, Point};
use crate::observe::SuspensionEvent;
use crate::os;

/// Executions of a connection that has ended which are taken out of the books at once.
const ENDED_AT_ONCE: usize = 64;
/// After this time what could not be parked is tried again.
const PARKING_PAUSE: Duration = Duration::from_secs(1);

/// What is left to the housekeeper, since it may take a while.
#[derive(Default)]
pub(super) struct Chores {
    /// Executions that are over, with their instances.
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    pub ended: Vec<Box<Execution>>,
    /// Connections that have ended.
    pub gone: Vec<Gone>,
    /// Their sockets and read buffers.
    pub peers: Vec<Peer>,
    /// Large things that nobody needs any more.
    pub dropped: Vec<Box<dyn Send>>,
    /// Jobs that wait for long, and may have less time than that.
    pub unread: Vec<Unread>,
    /// Long texts, in the order in which they were asked for.
    pub wanted: VecDeque<Wanted>,
    /// Instances and names of segments may be there that nobody needs.
    pub tidy: bool,
    /// Much was held, and is no more.
    pub trim: bool,
}

/// A connection that has ended, and what it had.
pub(super) struct Gone {
    pub session: SessionId,
    pub connection: Arc<Connection>,
    pub left: Left,
}

impl Chores {
    pub fn is_empty(&self) -> bool {
        let Self { ended, gone, peers, dropped, unread, wanted, tidy, trim } = self;
        let nothing_to_free = ended.is_empty() && gone.is_empty() && peers.is_empty() && dropped.is_empty();
        nothing_to_free && unread.is_empty() && wanted.is_empty() && !tidy && !trim
    }
}

impl Server {
    pub(super) fn start_housekeeper(self: &Arc<Self>) -> std::io::Result<()> {
        let server = self.clone();
        let life = move || {
            if catch_unwind(AssertUnwindSafe(|| server.keep_house())).is_err() {
                server.give_up("the housekeeper panicked");
            }
        };
        faults::io(Point::Thread)?;
        std::thread::Builder::new().name("housekeeper".into()).spawn(life)?;
        Ok(())
    }

    /// Adds to what the housekeeper has to do.
    pub(super) fn leave_to_housekeeper(&self, add: impl FnOnce(&mut Chores)) {
        add(&mut self.lock().chores);
        self.housework.notify_one();
    }

    /// The life of the housekeeper.
    fn keep_house(&self) {
        loop {
            self.begin_chore();
            let chores = std::mem::take(&mut self.lock().chores);
            faults::pass(Point::Housework);
            self.do_chores(chores);
            self.begin_chore();
            if self.park_one() {
                continue;
            }
            let state = self.lock();
            if state.chores.is_empty() && !state.hub.has_to_park(Instant::now()) {
                self.keeping.end();
                drop(self.housework.wait(state).unwrap_or_else(|poisoned| broken(&poisoned)));
            }
        }
    }

    fn begin_chore(&self) {
        self.keeping.begin(Instant::now());
    }

    fn do_chores(&self, chores: Chores) {
        let Chores { ended, gone, peers, dropped, unread, wanted, tidy, trim } = chores;
        // whose time hangs on it comes first
        let mut due = HashMap::new();
        for job in &unread {
            self.begin_chore();
            due.extend(self.due(job));
        }
        if !due.is_empty() {
            self.lock().hub.wait_until(&due);
        }
        drop(unread);
        for execution in ended {
            self.begin_chore();
            self.retire(*execution);
        }
        for text in wanted {
            self.begin_chore();
            self.write(text);
        }
        for one in gone {
            self.end_of(one);
        }
        for peer in peers {
            self.begin_chore();
            drop(peer);
        }
        for thing in dropped {
            self.begin_chore();
            drop(thing);
        }
        if tidy {
            self.begin_chore();
            self.arenas.expire(Instant::now());
            self.runtime.pools().trim();
        }
        if trim {
            self.begin_chore();
            os::trim_heap();
        }
    }

    /// Frees what a connection had. Its instances can serve others.
    fn end_of(&self, gone: Gone) {
        let Gone { session, connection, left: Left { jobs, mut entries } } = gone;
        while !entries.is_empty() {
            self.begin_chore();
            let later = entries.split_off(entries.len().min(ENDED_AT_ONCE));
            let now = std::mem::replace(&mut entries, later);
            let ended = self.lock().hub.end_entries(&now);
            for execution in ended {
                self.begin_chore();
                self.retire(*execution);
            }
        }
        for job in jobs {
            self.begin_chore();
            drop(job);
        }
        for state in self.states.close(session.0) {
            self.begin_chore();
            state.dispose();
            drop(state);
        }
        self.begin_chore();
        self.runtime.leave(self.client_of(session));
        self.arenas.close(session.0);
        drop(connection);
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
                let for_good = e.is_for_good();
                if for_good {
                    log::error!("suspended executions keep their instances from now on: {e}");
                } else {
                    log::warn!("a suspended execution keeps its instance for now: {e}");
                }
                let ended = {
                    let mut state = self.lock();
                    let now = Instant::now();
                    state.hub.pause_parking((!for_good).then(|| now + PARKING_PAUSE));
                    state.hub.stay_live(key, execution, now)
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
        }
        self.runtime.give_back(instance);
        true
    }

    /// A resume that waited for the execution may be in the queue now.
    fn wake_worker(&self) {
        let mut state = self.lock();
        if state.idle > 0 && state.hub.has_ready(Instant::now()) {
            self.work.notify_one();
        }
    }
}
