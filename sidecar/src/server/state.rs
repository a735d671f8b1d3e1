//! What a server is: its books, its poller, and everything that its threads share.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nexus_protocol::message::suspension_kept_ms;

use super::busy::Busy;
use super::connection::Connection;
use super::drain::{Drain, Leaving};
use super::errand::Errand;
use super::hello::max_in_flight;
use super::housekeeper::Chores;
use super::hub::{Hub, HubLimits, SessionId};
use super::memory::{Burst, Memory};
use super::poller::{Poller, Rules};
use super::roll::Roll;
use crate::config::Config;
use crate::engine::watchdog::Vigilance;
use crate::exit::ExitCode;
use crate::faults::{self, Point};
use crate::lifecycle::Exit;
use crate::os;
use crate::resident::{StateLimits, States};
use crate::runtime::{Load, Runtime};
use crate::sealed::Walls;
use crate::segments::{Arenas, OwnSegments, SegmentMaker};

/// What a server is part of: the process that clients know, which may be another than its own.
pub struct Surroundings {
    pub pid: u32,
    pub segments: Box<dyn SegmentMaker>,
    /// What stands between this process and the machine, once that is known. None: nothing.
    pub walls: Option<Arc<OnceLock<Walls>>>,
}

impl Surroundings {
    /// Nobody but this process.
    pub fn alone() -> Self {
        Self { pid: std::process::id(), segments: Box::new(OwnSegments), walls: None }
    }
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serves one connection, and ends with it.
    Child,
    /// Serves a socket until it is told to end.
    Service,
}
pub(super) struct State {
    pub(super) hub: Hub,
    pub(super) poller: Option<Box<Poller>>,
    pub(super) last_poll: Instant,
    /// The thread that has the poller.
    pub(super) polling: Arc<Busy>,
    pub(super) last_expiry: Instant,
    /// Counts every time that the poller is taken or laid down.
    pub(super) poll_epoch: u64,
    pub(super) idle: usize,
    /// Workers with answers that are not written yet.
    pub(super) holding: usize,
    /// Threads that answer in the place of a worker that was given up.
    pub(super) stand_ins: usize,
    pub(super) connections: HashMap<SessionId, Arc<Connection>>,
    /// Connections whose sockets are full.
    pub(super) settle_later: Vec<SessionId>,
    /// What the thread that has the poller is to say or to close, in order.
    pub(super) errands: Vec<Errand>,
    /// It is about it.
    pub(super) on_errands: bool,
    pub(super) chores: Chores,
    pub(super) burst: Burst,
    pub(super) drain: Option<Drain>,
    /// Connections of a service that asked for their end.
    pub(super) leaving: Vec<Leaving>,
}

/// See the module.
pub struct Server {
    pub(super) runtime: Arc<Runtime>,
    /// The process that clients know.
    pub(super) pid: u32,
    pub(super) walls: Option<Arc<OnceLock<Walls>>>,
    pub(super) mode: Mode,
    pub(super) state: Mutex<State>,
    pub(super) states: States,
    pub(super) arenas: Arenas,
    pub(super) work: Condvar,
    /// For the housekeeper: something is to be parked, or to be let go.
    pub(super) housework: Condvar,
    pub(super) wake: UnixStream,
    pub(super) exit: Arc<Exit>,
    /// The housekeeper.
    pub(super) keeping: Busy,
    /// What peers have the process hold.
    pub(super) memory: Memory,
    pub(super) engine_digest: String,
    pub(super) seen_epoch: AtomicU64,
    /// Looks of the watchdog.
    pub(super) ticks: AtomicU64,
    /// Microseconds since `started` at which the watchdog last held the books.
    pub(super) books_seen: AtomicU64,
    /// And when it last looked at all.
    pub(super) looked: AtomicU64,
    pub(super) started: Instant,
}

impl Server {
    /// A server with its poller. Its end is announced through `exit`.
    pub fn new(
        runtime: Arc<Runtime>,
        mode: Mode,
        exit: Arc<Exit>,
        surroundings: Surroundings,
    ) -> io::Result<Arc<Self>> {
        let Surroundings { pid, segments, walls } = surroundings;
        // as long as there are descriptors; without it, it is tried again when it is needed
        if let Err(e) = os::page_map() {
            log::debug!("cannot open the page map: {e}");
        }
        let (wake, wake_reader) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let config = &runtime.config;
        let spin = os::processors() > 1;
        let states = States::new(StateLimits {
            states: config.max_states,
            bytes: config.max_state_bytes,
            total_bytes: config.max_total_state_bytes,
        });
        let max_frame_bytes = config.max_frame_bytes as usize;
        let (allow_uids, memory) = (config.allow_uids.clone(), Memory::new(max_frame_bytes));
        let rules = Rules { mode, max_frame_bytes, spin, allow_uids, memory: memory.clone() };
        let poller = Poller::new(rules, wake_reader)?;
        let polling = poller.busy().clone();
        let hub = Hub::new(hub_limits(config, mode));
        let arenas =
            Arenas::new(segments, config.max_arena_bytes, config.max_total_arena_bytes, config.max_frame_bytes);
        let engine_digest = runtime.engine().digest().iter().map(|b| format!("{b:02x}")).collect();
        let now = Instant::now();
        let poller = Some(Box::new(poller));
        let state = State {
            hub,
            poller,
            last_poll: now,
            polling,
            last_expiry: now,
            poll_epoch: 0,
            idle: 0,
            holding: 0,
            stand_ins: 0,
            connections: HashMap::new(),
            settle_later: Vec::new(),
            errands: Vec::new(),
            on_errands: false,
            chores: Chores::default(),
            burst: Burst::default(),
            drain: None,
            leaving: Vec::new(),
        };
        Ok(Arc::new(Self {
            runtime,
            pid,
            walls,
            mode,
            state: Mutex::new(state),
            states,
            arenas,
            work: Condvar::new(),
            housework: Condvar::new(),
            wake,
            exit,
            keeping: Busy::new(),
            memory,
            engine_digest,
            seen_epoch: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            books_seen: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            started: now,
        }))
    }

    /// Changes the poller before the workers start.
    pub fn with_poller<T>(&self, f: impl FnOnce(&mut Poller) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        match state.poller.as_mut() {
            Some(poller) => f(poller),
            None => Err(io::Error::other("the poller is in use")),
        }
    }

    /// The process ends: shared memory leaves no names behind.
    pub fn remove_segment_names(&self) {
        self.arenas.remove_names();
    }

    /// Adds the connection of a parent.
    pub fn adopt(&self, stream: UnixStream) -> io::Result<()> {
        self.with_poller(|p| p.adopt(stream)).map(drop)
    }

    /// A connection has said hello: from now on it is in the books.
    pub(super) fn opened(&self, connection: Arc<Connection>) {
        self.runtime.join(self.client_of(connection.session));
        self.states.open(connection.session.0);
        self.arenas.open(connection.session.0, connection.received().clone());
        let mut state = self.lock();
        state.hub.open_session(connection.session);
        state.connections.insert(connection.session, connection);
    }

    /// Has unanswered requests written down where they outlive this process. Before the first connection.
    pub fn keep_roll(&self, words: &'static [AtomicU64]) {
        self.lock().hub.keep_roll(Roll::over(words));
    }

    /// Takes over what has changed in the configuration.
    pub fn reconfigure(&self) {
        self.lock().hub.set_limits(hub_limits(&self.runtime.config, self.mode));
    }

    /// Starts the workers.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        (0..=self.runtime.config.max_instances).try_for_each(|_| self.start_worker())?;
        self.start_housekeeper()?;
        // it starts workers where some are lacking
        let weak = Arc::downgrade(self);
        self.runtime
            .engine()
            .watchdog()
            .set_hook(Box::new(move |now| weak.upgrade().map_or(Vigilance::None, |server| server.tick(now))));
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(|poisoned| broken(&poisoned));
        faults::pass(Point::Books);
        state
    }

    /// None: somebody else has the books at this moment.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => broken(&poisoned),
        }
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        self.runtime.prometheus(self.load())
    }

    pub(super) fn load(&self) -> Load {
        let (resident_states, resident_state_bytes) = self.states.counts();
        let state = self.lock();
        Load {
            active: state.hub.running() as u64,
            suspended: state.hub.suspended() as u64,
            parked: state.hub.parked_count() as u64,
            suspended_bytes: state.hub.suspended_bytes(),
            parked_suspensions: state.hub.parked_suspensions() as u64,
            suspensions: state.hub.suspensions() as u64,
            queued: state.hub.queued() as u64,
            connections: state.hub.connections() as u64,
            resident_states,
            resident_state_bytes,
            retired_threads: state.hub.crew.retired() as u64,
            retired_threads_total: state.hub.crew.retired_total(),
            arena_bytes: self.arenas.bytes(),
            walls: self.walls.as_ref().and_then(|walls| walls.get().copied()).unwrap_or_default(),
        }
    }
}

/// A thread has panicked while it had the books. Nobody knows what is in them, so that nobody may go on with them: the process
/// ends, whoever finds out. Clients see the end of their connections, and start another one.
pub(super) fn broken<T>(_: &PoisonError<T>) -> ! {
    let code = ExitCode::Stuck as u8;
    log::error!(
        "the books of the server are broken: a thread panicked that had them; the process ends with exit code {code}"
    );
    os::exit_now(code)
}

/// What one of several connections may run at once: half of the instances, and not more than there are processors, since
/// guests do nothing but compute.
fn max_running_each(config: &Config) -> usize {
    (config.max_instances as usize).div_ceil(2).min(os::processors())
}

fn hub_limits(config: &Config, mode: Mode) -> HubLimits {
    let millis = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    HubLimits {
        max_running: config.max_instances as usize,
        max_running_each: max_running_each(config),
        processors: os::processors(),
        // a parent has its sidecar alone
        keeps_last: mode == Mode::Service,
        max_queued: config.max_queued as usize,
        max_suspended: config.max_suspended as usize,
        max_suspended_bytes: config.max_suspended_bytes,
        max_in_flight: max_in_flight(config) as usize,
        max_queue_time: millis(config.max_queue_ms),
        suspension_timeout: millis(suspension_kept_ms(config.suspension_timeout_ms)),
    }
}
