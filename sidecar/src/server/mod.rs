//! The server: connections in, answers out.
//!
//! ```text
//!   workers (maxInstances + 1), each:  poll -- frames --> hub --> next job -> run -> answer -> reset -> ...
//!                                        ^                                                      |
//!                                        +------------------------------------------------------+
//! ```
//! There is one poller, and it is polled by whichever worker has nothing better to do: a small request is read, run and
//! answered by one thread, without a hop. When a run takes longer than a tick, the watchdog wakes another worker, which
//! finds the poller lying there and goes on polling, so that cancellations and pings are always heard. One thread more, the
//! housekeeper, parks suspended executions. A worker that does not come back is replaced; see `rescue`.

pub mod connection;
mod crew;
mod drain;
mod errand;
mod health;
mod holdings;
pub mod hub;
pub mod listen;
mod operator;
mod park;
pub mod poller;
mod rescue;
mod resident;
pub mod session;
mod shared;
mod work;

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::message::{Done, HelloLimits, Kind, MetricsText, SidecarHello};
use nexus_protocol::{ErrorCode, ProtocolVersion, RequestId, SidecarMessage, SuspensionId, WireError, limits};

use crate::config::Config;
use crate::engine::watchdog::Vigilance;
use crate::error::ExitCode;
use crate::execution::{self, Execution, Totals};
use crate::faults::{self, Point};
use crate::lifecycle::Exit;
use crate::observe::SuspensionEvent;
use crate::resident::{StateLimits, States};
use crate::runtime::{Load, Runtime};
use crate::segments::Arenas;
use connection::Connection;
use crew::Crew;
use drain::{Drain, Leaving};
use errand::Errand;
pub use health::Pulse;
use hub::{Cancelled, Expired, Hub, HubLimits, Job, Refusal, SessionId};
use park::Chores;
use poller::{Event, Poller};
use session::Action;

/// Time between two looks for what has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(20);
/// A job that has waited this long gets a worker of its own.
const MAX_WAIT: Duration = Duration::from_millis(1);

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serves one connection, and ends with it.
    Child,
    /// Serves a socket until it is told to end.
    Service,
}

struct State {
    hub: Hub,
    crew: Crew,
    poller: Option<Box<Poller>>,
    last_poll: Instant,
    last_expiry: Instant,
    /// Since when a worker handles what the poller found.
    handling_since: Option<Instant>,
    /// Counts every time that the poller is taken or laid down.
    poll_epoch: u64,
    idle: usize,
    /// Workers with answers that are not written yet.
    holding: usize,
    /// Threads that answer in the place of a worker that was given up.
    stand_ins: usize,
    connections: HashMap<SessionId, Arc<Connection>>,
    /// Connections whose sockets are full.
    settle_later: Vec<SessionId>,
    /// What the thread that has the poller is to say or to close, in order.
    errands: Vec<Errand>,
    /// It is about it.
    on_errands: bool,
    chores: Chores,
    drain: Option<Drain>,
    /// Connections of a service that asked for their end.
    leaving: Vec<Leaving>,
}

/// See the module.
pub struct Server {
    runtime: Arc<Runtime>,
    mode: Mode,
    state: Mutex<State>,
    states: States,
    arenas: Arenas,
    work: Condvar,
    /// For the housekeeper: something is to be parked, or to be let go.
    housework: Condvar,
    wake: UnixStream,
    exit: Arc<Exit>,
    engine_digest: String,
    seen_epoch: AtomicU64,
    /// Looks of the watchdog.
    ticks: AtomicU64,
    /// Microseconds since `started` at which the watchdog last held the books.
    books_seen: AtomicU64,
    /// And when it last looked at all.
    looked: AtomicU64,
    started: Instant,
}

impl Server {
    /// A server with its poller. Its end is announced through `exit`.
    pub fn new(runtime: Arc<Runtime>, mode: Mode, exit: Arc<Exit>) -> io::Result<Arc<Self>> {
        let (wake, wake_reader) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let config = &runtime.config;
        let spin = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        let states = States::new(StateLimits {
            states: config.max_states,
            bytes: config.max_state_bytes,
            total_bytes: config.max_total_state_bytes,
        });
        let poller = Poller::new(config.max_frame_bytes as usize, wake_reader, spin, config.allow_uids.clone())?;
        let hub = Hub::new(hub_limits(config));
        let arenas = Arenas::new(config.max_arena_bytes, config.max_total_arena_bytes, config.max_frame_bytes);
        let engine_digest = runtime.engine().digest().iter().map(|b| format!("{b:02x}")).collect();
        let now = Instant::now();
        let poller = Some(Box::new(poller));
        let crew = Crew::new((config.timeout_ms > 0).then(|| Duration::from_millis(config.timeout_ms)));
        let state = State {
            hub,
            crew,
            poller,
            last_poll: now,
            last_expiry: now,
            handling_since: None,
            poll_epoch: 0,
            idle: 0,
            holding: 0,
            stand_ins: 0,
            connections: HashMap::new(),
            settle_later: Vec::new(),
            errands: Vec::new(),
            on_errands: false,
            chores: Chores::default(),
            drain: None,
            leaving: Vec::new(),
        };
        Ok(Arc::new(Self {
            runtime,
            mode,
            state: Mutex::new(state),
            states,
            arenas,
            work: Condvar::new(),
            housework: Condvar::new(),
            wake,
            exit,
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
        let connection = self.with_poller(|p| p.add(stream))?;
        self.opened(connection);
        Ok(())
    }

    fn opened(&self, connection: Arc<Connection>) {
        self.states.open(connection.session.0);
        self.arenas.open(connection.session.0);
        let mut state = self.lock();
        state.hub.open_session(connection.session);
        state.connections.insert(connection.session, connection);
    }

    /// Takes over what has changed in the configuration.
    pub fn reconfigure(&self) {
        self.lock().hub.set_limits(hub_limits(&self.runtime.config));
    }

    /// Starts the workers.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let weak = Arc::downgrade(self);
        self.runtime
            .engine()
            .watchdog()
            .set_hook(Box::new(move |now| weak.upgrade().map_or(Vigilance::None, |server| server.tick(now))));
        (0..=self.runtime.config.max_instances).try_for_each(|_| self.start_worker())?;
        let server = self.clone();
        faults::io(Point::Thread)?;
        std::thread::Builder::new().name("housekeeper".into()).spawn(move || server.keep_house())?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        self.runtime.prometheus(self.load())
    }

    fn load(&self) -> Load {
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
            resident_states,
            resident_state_bytes,
            retired_threads: state.crew.retired() as u64,
            retired_threads_total: state.crew.retired_total(),
            arena_bytes: self.arenas.bytes(),
        }
    }

    // ---- what the watchdog does for us ----

    /// One look of the watchdog, on which everybody's deadline hangs: it takes no lock that is held while a guest runs, bytes
    /// are copied or a socket is written to. What takes longer is an errand or a chore.
    fn tick(self: &Arc<Self>, now: Instant) -> Vigilance {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        faults::pass(Point::Watchdog);
        let Some(mut state) = self.look_after_the_stuck(now) else { return Vigilance::Full };
        let unattended =
            state.poller.is_some() && self.seen_epoch.swap(state.poll_epoch, Ordering::Relaxed) == state.poll_epoch;
        let mut expired = 0;
        if now.saturating_duration_since(state.last_expiry) >= EXPIRY_INTERVAL {
            state.last_expiry = now;
            let Expired { executions, overdue, unread } = state.hub.expire(now);
            expired = executions.len();
            state.chores.ended.extend(executions);
            state.chores.unread.extend(unread);
            state.errands.extend(overdue.into_iter().map(Errand::Overdue));
            state.chores.tidy = self.has_to_tidy();
        }
        if state.crew.holds_back(now) {
            let unwritten = state.connections.values().filter(|connection| connection.pending_bytes() > 0);
            let unwritten: Vec<Errand> = unwritten.map(|connection| Errand::Flush(connection.session)).collect();
            state.errands.extend(unwritten);
        }
        let over = Self::look_at_drain(&mut state, now);
        let errands = !state.errands.is_empty();
        // not for a job that is there at this moment: waking a second thread would cost more than the job
        let due = unattended || errands && state.poller.is_some() || state.hub.has_backlog(now, MAX_WAIT);
        if state.idle > 0 && due {
            self.work.notify_one();
        }
        if !state.chores.is_empty() || state.hub.has_to_park(now) {
            self.housework.notify_one();
        }
        let vigilance = if !state.hub.is_quiet() || state.drain.is_some() || !state.leaving.is_empty() {
            Vigilance::Full
        } else if state.hub.suspended() > 0 || errands {
            Vigilance::Slow
        } else {
            Vigilance::None
        };
        drop(state);
        for _ in 0..expired {
            self.runtime.observer.record_suspension(SuspensionEvent::Expired);
        }
        if errands {
            self.wake_poller();
        }
        if over {
            self.exit.announce(ExitCode::Ok);
        }
        if self.has_to_tidy() { vigilance.max(Vigilance::Slow) } else { vigilance }
    }

    fn has_to_tidy(&self) -> bool {
        self.runtime.pools().has_surplus() || self.arenas.is_waiting()
    }

    fn wake_poller(&self) {
        let _ = (&self.wake).write(&[1]);
    }

    // ---- what a look of the poller found ----

    /// Handles events; the poller is ours meanwhile. Jobs are in the hub when this returns.
    fn handle(&self, poller: &mut Poller, events: &mut Vec<Event>) {
        let (mut touched, errands, draining) = {
            let mut state = self.lock();
            state.handling_since = Some(Instant::now());
            let errands = std::mem::take(&mut state.errands);
            state.on_errands = !errands.is_empty();
            (std::mem::take(&mut state.settle_later), errands, state.drain.is_some())
        };
        faults::pass(Point::Poll);
        if draining {
            poller.stop_listening();
        }
        for event in events.drain(..) {
            match event {
                Event::Opened(connection) => self.opened(connection),
                Event::Closed(session) => self.closed(session),
                Event::Frame(connection, action) => {
                    let session = connection.session;
                    let closes = matches!(action, Action::Close(..));
                    if self.act(&connection, action) && !touched.contains(&session) {
                        touched.push(session);
                    }
                    if closes {
                        connection.flush();
                        poller.close(session);
                        self.closed(session);
                    }
                }
            }
        }
        for errand in errands {
            self.run_errand(poller, errand, &mut touched);
        }
        for session in touched {
            if !poller.settle(session) {
                self.closed(session);
            }
        }
    }

    fn closed(&self, session: SessionId) {
        let freed = {
            let mut state = self.lock();
            state.connections.remove(&session);
            state.hub.close_session(session)
        };
        drop(freed);
        self.states.close(session.0);
        self.arenas.close(session.0);
        if self.mode == Mode::Child {
            self.exit.announce(ExitCode::Ok);
        }
    }

    /// Does what a frame asks for. True: something was appended to the connection.
    fn act(&self, connection: &Arc<Connection>, action: Action) -> bool {
        match action {
            Action::Welcome => self.welcome(connection),
            Action::Work(job) => return self.enqueue(connection, job),
            Action::CancelRequest { id, target } => {
                let outcome = self.lock().hub.cancel_request(connection.session, target);
                self.cancelled(connection, id, outcome);
            }
            Action::CancelSuspension { id, suspension } => {
                let outcome = match suspension.parse::<SuspensionId>() {
                    Ok(suspension) => self.lock().hub.cancel_suspension(connection.session, suspension),
                    Err(_) => Cancelled::Nothing,
                };
                self.cancelled(connection, id, outcome);
            }
            Action::Stats(id) => {
                connection.send(id, &SidecarMessage::Stats(self.runtime.stats(self.load())));
            }
            Action::Metrics(id) => {
                let text = self.prometheus();
                connection.send(id, &SidecarMessage::Metrics(MetricsText { text: &text }));
            }
            Action::Executions(id) => self.executions(connection, id),
            Action::Kill { id, execution } => self.kill(connection, id, execution),
            Action::Pong(id) => connection.send(id, &SidecarMessage::Pong),
            Action::Shutdown(id) => return self.shutdown(connection, id),
            Action::Refuse(id, error) | Action::Close(id, error) => {
                self.runtime.observer.record_error(error.code);
                connection.send(id, &SidecarMessage::Error(error));
            }
        }
        true
    }

    fn welcome(&self, connection: &Connection) {
        let config = &self.runtime.config;
        let limits = HelloLimits {
            max_frame_bytes: config.max_frame_bytes,
            max_source_bytes: config.max_source_bytes,
            max_result_bytes: config.max_result_bytes,
            timeout_ms: config.timeout_ms,
            memory_limit_bytes: config.memory_limit_bytes,
            stack_size_bytes: config.stack_size_bytes,
            suspension_timeout_ms: config.suspension_timeout_ms,
            max_host_calls: config.max_host_calls,
            max_state_mutations: config.max_state_mutations,
            max_events: config.max_events,
            max_in_flight: max_in_flight(config),
            max_states: config.max_states,
            max_state_bytes: config.max_state_bytes,
            max_arena_bytes: config.max_arena_bytes,
            max_suspended: Some(config.max_suspended),
        };
        let hello = SidecarHello {
            version: ProtocolVersion::V1,
            build: env!("CARGO_PKG_VERSION"),
            engine: &self.engine_digest,
            pid: std::process::id(),
            debug: config.debug,
            limits,
        };
        connection.send(RequestId::CONNECTION, &SidecarMessage::Hello(hello));
    }

    fn enqueue(&self, connection: &Connection, job: Job) -> bool {
        let refused = self.lock().hub.enqueue(job);
        match refused {
            Ok(()) => false,
            Err((job, Refusal::DuplicateId)) => {
                let message = format!("request {} is not answered yet, so its id cannot be used again", job.id.0);
                connection.send(RequestId::CONNECTION, &SidecarMessage::Error(session::protocol_error(message)));
                true
            }
            Err((job, refused)) => {
                self.fail(&job, refusal(&refused));
                true
            }
        }
    }

    /// Answers a job that is not run.
    fn fail(&self, job: &Job, error: WireError) {
        let connection = &job.connection;
        self.runtime.observer.record_error(error.code);
        match job.kind {
            Kind::Execute | Kind::Resume => {
                let report = Totals::queued(job.enqueued.elapsed()).failure(error);
                connection.append(|out, max| report.encode(job.id, max, out));
            }
            _ => connection.send(job.id, &SidecarMessage::Error(error)),
        }
    }

    /// Answers a job that was taken out of the queue, on its own connection, and says which that is.
    fn answer_unrun(&self, job: &Job, error: WireError) -> SessionId {
        self.lock().hub.finish(job.session, job.id);
        self.fail(job, error);
        job.session
    }

    /// Does what is left to do of a cancellation, whoever asked for it, and tells them.
    fn cancelled(&self, connection: &Connection, id: RequestId, outcome: Cancelled) {
        let cancelled = !matches!(outcome, Cancelled::Nothing);
        match outcome {
            Cancelled::Nothing => {}
            Cancelled::Underway => self.runtime.engine().watchdog().notify(),
            Cancelled::Job(job) => {
                self.answer_unrun(&job, execution::cancelled());
                self.flush(&job.connection);
            }
            Cancelled::BeingParked => self.runtime.observer.record_suspension(SuspensionEvent::Cancelled),
            Cancelled::Execution(execution) => {
                self.runtime.observer.record_suspension(SuspensionEvent::Cancelled);
                self.retire(*execution);
            }
        }
        connection.send(id, &SidecarMessage::Done(Done { cancelled }));
    }

    /// An execution that nobody will resume: its instance can serve others.
    fn retire(&self, execution: Execution) {
        self.runtime.give_back(execution.into_instance());
    }

    /// Writes out; what the socket does not take is left to the poller.
    fn flush(&self, connection: &Connection) {
        match connection.flush() {
            connection::Flushed::All => {}
            connection::Flushed::Blocked => {
                // only the poller may change what epoll watches; it settles every connection that it is woken for
                self.lock().settle_later.push(connection.session);
                self.wake_poller();
            }
            connection::Flushed::Broken => {
                let _ = connection.stream().shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

/// What one connection may have unanswered: no more than there is room for, so that one that keeps to it while it is alone is
/// not refused.
fn max_in_flight(config: &Config) -> u64 {
    config.max_queued.saturating_add(config.max_instances).min(limits::DEFAULT_MAX_IN_FLIGHT)
}

fn hub_limits(config: &Config) -> HubLimits {
    let millis = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
    HubLimits {
        max_running: config.max_instances as usize,
        max_queued: config.max_queued as usize,
        max_queued_bytes: limits::MAX_QUEUED_BYTES,
        max_suspended: config.max_suspended as usize,
        max_suspended_bytes: config.max_suspended_bytes,
        max_in_flight: max_in_flight(config) as usize,
        max_queue_time: millis(config.max_queue_ms),
        suspension_timeout: millis(config.suspension_timeout_ms),
    }
}

/// What a request is answered with that was not taken.
fn refusal(refused: &Refusal) -> WireError {
    match refused {
        Refusal::DuplicateId => session::protocol_error("the id is in use".into()),
        Refusal::Overloaded { resource, limit, count } => {
            let error = overloaded(format!("the sidecar has all the work that it takes: {resource} is {limit}"));
            of_resource(error, resource, *limit as u64, *count as u64)
        }
        Refusal::Draining => {
            overloaded("the sidecar is draining: it is about to end".into()).with_context_text("reason", "draining")
        }
    }
}

fn overloaded(message: String) -> WireError {
    WireError::new(ErrorCode::Overloaded, message).with_context_number("retryAfterMs", limits::RETRY_AFTER_MS)
}

fn of_resource(error: WireError, resource: &str, limit: u64, count: u64) -> WireError {
    error
        .with_context_text("resource", resource)
        .with_context_number("limit", limit)
        .with_context_number("count", count)
}
