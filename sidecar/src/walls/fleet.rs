//! Workers: when another one is started, and which of them a connection goes to.
//!
//! ```text
//!   workers: start a spare one ... reap those that have ended ... start again
//!      door: take a connection ... give it to a worker
//!   compile: give a source to the worker that compiles ... keep what that has made
//!      main: watch the life of the sidecar, which waits for none of them
//! ```
//! The kernel ends a worker with the thread that made it, so that one thread makes all of them and lives for as long as they do.
//! Except for a parent, a worker without a client stands ready all the time: where all connections share a worker it follows the one
//! that is lost, and where each connection has its own it is the next one's.
//!
//! Invariant: a worker that has had a client of its own never gets another one.

mod compiling;
mod door;
mod lobby;
mod served;
mod still;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexus_protocol::limits::WORKER_END_MS;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::deaths::Deaths;
use super::portion::{most_workers, portion_of};
use super::supervise::{Ended, Household, Supervisor, Unstarted};
use super::words::Trade;
use crate::config::{Config, Isolation};
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::lifecycle::{Exit, Served};
use crate::server::door::{Gate, Places, Source};
use crate::server::listen::refuse_descriptors;

/// Between two looks at what tells nobody that it has changed.
const LOOK_SLICE: Duration = Duration::from_millis(20);

/// Until another worker is tried that nobody waits for.
const PAUSE: Duration = Duration::from_secs(1);

/// Where clients come from.
pub enum Clients {
    /// The one connection of the parent.
    Parent(UnixStream),
    Listener(UnixListener),
}

/// Who has a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// The parent.
    Parent,
    /// All connections, together.
    All,
    /// Each connection its own, up to so many.
    Each(usize),
}

impl Plan {
    fn workers(self) -> usize {
        match self {
            Self::Parent | Self::All => 1,
            Self::Each(most) => most,
        }
    }

    fn trade(self) -> Trade {
        match self {
            Self::Parent | Self::Each(_) => Trade::OneConnection,
            Self::All => Trade::Connections,
        }
    }
}

struct Worker {
    number: u64,
    /// The smallest number that no other one has at the time.
    slot: usize,
    supervisor: Supervisor,
    /// Where each connection has its own worker: a copy of it, by which its end is seen.
    client: Mutex<Option<Arc<UnixStream>>>,
}

impl Worker {
    /// Its client has gone, and so will it.
    fn is_leaving(&self) -> bool {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        client.is_some_and(|client| {
            let mut fds = [PollFd::new(client.as_fd(), PollFlags::empty())];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Draining,
    /// Nobody is needed any more.
    Ending,
}

/// The worker that compiles: for a parent it is there once there is something to compile.
enum Compiler {
    None,
    Wanted,
    There(u64, Arc<Supervisor>),
}

struct Inner {
    stage: Stage,
    /// Of the whole.
    config: Config,
    spare: Option<Arc<Worker>>,
    serving: Vec<Arc<Worker>>,
    compiler: Compiler,
    /// Those that have ended and are not reaped yet.
    ends: VecDeque<(u64, Ended)>,
    /// Where one that was to stand ready has failed: another one is tried then.
    not_before: Option<Instant>,
    /// None could be made the last time, for want of what workers are made of.
    none_can_be_made: bool,
    /// What was given to a worker that is lost, or has not taken it, and can be another's: and whether that one has greeted it.
    left: VecDeque<(Arc<UnixStream>, bool)>,
    /// A client can be served, or could be.
    started: bool,
    lost: u64,
    failed: Option<StartError>,
}

/// See the module.
pub struct Fleet {
    plan: Plan,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Rung when something has changed for the door.
    bell: UnixStream,
    exit: Arc<Exit>,
    maker: Mutex<Option<JoinHandle<()>>>,
    beats: AtomicU64,
}

/// What the thread that makes workers does next.
enum Step {
    Start(Config),
    StartCompiler(Config),
    EndCompiler(Arc<Supervisor>),
    Reap(Arc<Worker>, Ended, bool),
    /// It is not needed.
    End(Arc<Worker>),
    Over,
}

impl Fleet {
    /// Starts the threads that see to workers. Whether one can serve is asked by [`Fleet::has_started`].
    pub fn start(
        household: Arc<Household>,
        config: &Config,
        clients: Clients,
        exit: Arc<Exit>,
    ) -> Result<Arc<Self>, StartError> {
        let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
        let plan = match (&clients, config.isolation) {
            (Clients::Parent(_), _) => Plan::Parent,
            (Clients::Listener(_), Isolation::Connection) => Plan::Each(most_workers(config)),
            (Clients::Listener(_), Isolation::None | Isolation::Shared) => Plan::All,
        };
        let (bell, heard) = UnixStream::pair().map_err(io("cannot make a socket pair"))?;
        bell.set_nonblocking(true)
            .and_then(|()| heard.set_nonblocking(true))
            .map_err(io("cannot use a socket pair"))?;
        let inner = Inner {
            stage: Stage::Serving,
            config: config.clone(),
            spare: None,
            serving: Vec::new(),
            // who has a sidecar alone may never need it
            compiler: if household.keeps_handlers() && plan != Plan::Parent {
                Compiler::Wanted
            } else {
                Compiler::None
            },
            ends: VecDeque::new(),
            not_before: None,
            none_can_be_made: false,
            left: VecDeque::new(),
            started: false,
            lost: 0,
            failed: None,
        };
        let fleet = Arc::new(Self {
            plan,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            bell,
            exit,
            maker: Mutex::new(None),
            beats: AtomicU64::new(0),
        });
        let parent = match clients {
            Clients::Parent(stream) => {
                // before a worker is told what comes along
                refuse_descriptors(stream.as_fd());
                Some(stream)
            }
            Clients::Listener(listener) => {
                listener.set_nonblocking(true).map_err(io("cannot listen"))?;
                let mut gate = Gate::closed();
                gate.open(Source::Listener(listener));
                let (keeper, places) = (fleet.clone(), Places::new(&config.allow_uids));
                let life = move || keeper.keep_door(gate, &places, &heard);
                thread::Builder::new().name("door".into()).spawn(life).map_err(io("cannot start a thread"))?;
                None
            }
        };
        if household.keeps_handlers() {
            let (keeper, household) = (fleet.clone(), household.clone());
            let life = move || keeper.keep_compiling(&household);
            thread::Builder::new().name("compile".into()).spawn(life).map_err(io("cannot start a thread"))?;
        }
        if matches!(fleet.plan, Plan::Each(_)) {
            let keeper = fleet.clone();
            let life = move || keeper.look_for_life();
            thread::Builder::new().name("life".into()).spawn(life).map_err(io("cannot start a thread"))?;
        }
        let maker = fleet.clone();
        let life = move || maker.make_workers(household, parent);
        let maker = thread::Builder::new().name("workers".into()).spawn(life).map_err(io("cannot start a thread"))?;
        *fleet.maker.lock().unwrap_or_else(PoisonError::into_inner) = Some(maker);
        Ok(fleet)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a while for the first worker. None: there is none yet, and nobody has said that there will be none.
    pub fn has_started(&self) -> Option<Result<(), StartError>> {
        let waits = |inner: &mut Inner| !inner.started && inner.failed.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), LOOK_SLICE, waits);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        match inner.failed.take() {
            Some(failed) => Some(Err(failed)),
            None => inner.started.then_some(Ok(())),
        }
    }

    pub fn reload(&self, config: &Config) {
        self.lock().config = config.clone();
        let part = portion_of(config, self.plan.workers());
        self.with_each(|worker| worker.supervisor.reload(&part));
    }

    /// Ends all workers, and returns when they are gone.
    pub fn end(&self) {
        self.lock().stage = Stage::Ending;
        self.changed();
        let Some(maker) = self.maker.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        // a worker that stands still between its making and its program keeps its maker, and ends with it
        let until = Instant::now() + Duration::from_millis(WORKER_END_MS);
        while !maker.is_finished() && Instant::now() < until {
            thread::sleep(LOOK_SLICE / 10);
        }
    }

    fn changed(&self) {
        self.changed.notify_all();
        let _ = (&self.bell).write(&[1]);
    }

    /// All that there are, the one without a client last.
    fn all(&self) -> Vec<Arc<Worker>> {
        let inner = self.lock();
        inner.serving.iter().chain(&inner.spare).cloned().collect()
    }

    /// Does something with each at the same time: none of them keeps the others waiting.
    fn with_each<T: Send>(&self, work: impl Fn(&Worker) -> T + Sync) -> Vec<T> {
        let all = self.all();
        if let [only] = all.as_slice() {
            return vec![work(only)];
        }
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = all.iter().map(|worker| scope.spawn(move || work(worker))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }

    /// Whoever serves all connections, or the parent's.
    fn incumbent(&self) -> Option<Arc<Worker>> {
        self.lock().serving.first().cloned()
    }

    // ---- the thread that makes workers ----

    fn make_workers(self: &Arc<Self>, household: Arc<Household>, parent: Option<UnixStream>) {
        // without this thread there is no worker: they end with it
        let last_word = LastWord(&self.exit);
        let mut deaths = Deaths::default();
        for number in 0.. {
            match self.next_step() {
                Step::Over => break,
                Step::End(worker) => worker.supervisor.end(),
                Step::Reap(worker, ended, served) => {
                    worker.supervisor.end();
                    self.reaped(&worker, ended, served, &mut deaths);
                }
                Step::EndCompiler(compiler) => compiler.end(),
                Step::StartCompiler(config) => self.start_compiler(number, &household, &config),
                Step::Start(config) => self.start_one(number, &household, &config, parent.as_ref(), &mut deaths),
            }
        }
        std::mem::forget(last_word);
    }

    /// Waits until there is something to do.
    fn next_step(&self) -> Step {
        let mut inner = self.lock();
        loop {
            while let Some((number, ended)) = inner.ends.pop_front() {
                if let Some(spare) = inner.spare.take_if(|spare| spare.number == number) {
                    return Step::Reap(spare, ended, false);
                }
                if let Compiler::There(is, compiler) = &inner.compiler
                    && *is == number
                {
                    let compiler = compiler.clone();
                    inner.compiler = Compiler::None;
                    self.changed.notify_all();
                    return Step::EndCompiler(compiler);
                }
                // one that was lost while it started is nobody
                if let Some(at) = inner.serving.iter().position(|worker| worker.number == number) {
                    return Step::Reap(inner.serving.remove(at), ended, true);
                }
            }
            let wanted = match self.plan {
                Plan::Parent => inner.serving.is_empty() && !inner.started,
                Plan::All => inner.spare.is_none(),
                Plan::Each(most) => inner.spare.is_none() && inner.serving.len() < most,
            };
            // one that is lost is followed at once where somebody waits for it; one that cannot be made is not
            let may_pause = inner.none_can_be_made || !inner.serving.is_empty();
            let paused = may_pause && inner.not_before.is_some_and(|at| Instant::now() < at);
            if wanted && inner.stage == Stage::Serving && !paused {
                return Step::Start(portion_of(&inner.config, self.plan.workers()));
            }
            // after whoever is waited for
            if inner.started && inner.stage != Stage::Ending && matches!(inner.compiler, Compiler::Wanted) {
                return Step::StartCompiler(inner.config.clone());
            }
            match inner.stage {
                Stage::Serving => {}
                Stage::Draining => {
                    if let Some(spare) = inner.spare.take() {
                        return Step::End(spare);
                    }
                    if inner.serving.is_empty() {
                        self.exit.announce(ExitCode::Ok);
                    }
                }
                Stage::Ending if matches!(inner.compiler, Compiler::There(..)) => {
                    if let Compiler::There(_, compiler) = std::mem::replace(&mut inner.compiler, Compiler::None) {
                        return Step::EndCompiler(compiler);
                    }
                }
                Stage::Ending => match inner.spare.take().or_else(|| inner.serving.pop()) {
                    Some(worker) => return Step::End(worker),
                    None => return Step::Over,
                },
            }
            let pause = if paused { PAUSE } else { Duration::MAX };
            inner = self.changed.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start_one(
        self: &Arc<Self>,
        number: u64,
        household: &Household,
        config: &Config,
        parent: Option<&UnixStream>,
        deaths: &mut Deaths,
    ) {
        let told = self.clone();
        let on_end = move |ended| {
            told.lock().ends.push_back((number, ended));
            told.changed();
        };
        let not_needed = || (self.lock().stage != Stage::Serving).then_some(ExitCode::Ok);
        let started = Supervisor::start(household, config, self.plan.trade(), Box::new(on_end), &not_needed);
        let first = !self.lock().started;
        match started {
            Ok(Ok(supervisor)) => {
                deaths.one_is_born();
                let given = parent.map_or(Ok(()), |parent| supervisor.serve_parent(parent));
                if let Err(source) = given {
                    self.fail(StartError::Io { context: "cannot hand the parent's socket over", source });
                    return supervisor.end();
                }
                if first {
                    log::info!("{}{}", self.plan.words(), supervisor.walls());
                }
                let mut inner = self.lock();
                let free = |slot: &usize| inner.serving.iter().all(|worker| worker.slot != *slot);
                let slot = (0..).find(free).unwrap_or(0);
                let worker = Arc::new(Worker { number, slot, supervisor, client: Mutex::new(None) });
                inner.started = true;
                inner.none_can_be_made = false;
                if self.plan != Plan::Parent {
                    inner.spare = Some(worker);
                    self.promote(&mut inner);
                } else {
                    inner.serving.push(worker);
                }
                drop(inner);
                self.changed();
            }
            Ok(Err(_)) if not_needed().is_some() => {}
            // nobody has a sidecar yet that would be worth another try
            Ok(Err(Unstarted::Lost(code) | Unstarted::Ended(code))) if first => self.exit.announce(code),
            // somebody serves, perhaps, and needs none
            Ok(Err(Unstarted::Lost(code) | Unstarted::Ended(code))) => {
                self.none_stands_ready(code, deaths);
            }
            Err(error) if first => self.fail(error),
            // nothing of it is a worker's doing: whoever is connected stays, and it is tried for as long as it takes
            Err(error) => {
                log::error!("no other worker can be made, which is tried again: {error}");
                let mut inner = self.lock();
                inner.none_can_be_made = true;
                inner.not_before = Some(Instant::now() + PAUSE);
                drop(inner);
                self.changed();
            }
        }
    }

    fn fail(&self, error: StartError) {
        let mut inner = self.lock();
        inner.failed = Some(error);
        inner.stage = Stage::Ending;
        drop(inner);
        self.changed();
    }

    /// Where all share a worker and have none, the one that stands ready is theirs.
    fn promote(&self, inner: &mut Inner) {
        if self.plan == Plan::All
            && inner.serving.is_empty()
            && let Some(spare) = inner.spare.take()
        {
            if inner.lost > 0 {
                log::warn!("another worker serves; connections that were at rest go on, others have ended");
            }
            inner.serving.push(spare);
        }
    }

    fn reaped(&self, gone: &Worker, ended: Ended, served: bool, deaths: &mut Deaths) {
        let mut inner = self.lock();
        let draining = inner.stage != Stage::Serving;
        let Ended { code, lost } = ended;
        let connections = gone.supervisor.take_connections();
        if lost && !draining {
            inner.left.extend(connections);
        }
        inner.lost += u64::from(lost);
        let alone = matches!(self.plan, Plan::Each(_)) && served;
        if alone {
            // whoever brings a worker of its own down brings down nothing else
            drop(inner);
        } else if !served && !draining {
            // as one that never came so far
            drop(inner);
            self.none_stands_ready(code, deaths);
        } else if !lost || draining || self.plan == Plan::Parent {
            drop(inner);
            self.exit.announce(code);
        } else {
            self.promote(&mut inner);
            drop(inner);
            self.end_if(deaths.one_more(Instant::now()), code);
        }
        self.changed();
    }

    /// A worker without clients is lost. While others serve that is tried again; else it is a loop when it goes on.
    fn none_stands_ready(&self, code: ExitCode, deaths: &mut Deaths) {
        let mut inner = self.lock();
        if inner.serving.is_empty() {
            drop(inner);
            return self.end_if(deaths.one_more_unborn(Instant::now()), code);
        }
        inner.not_before = Some(Instant::now() + PAUSE);
    }

    fn end_if(&self, too_many_are_lost: bool, code: ExitCode) {
        if too_many_are_lost {
            log::error!("workers are lost one after the other: the sidecar ends with exit code {}", code as u8);
            self.exit.announce(code);
        }
    }
}

/// Says that the sidecar ends, should its owner panic.
struct LastWord<'a>(&'a Exit);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        self.0.announce(ExitCode::Internal);
    }
}

impl Plan {
    /// The beginning of a line that says what guests are behind.
    fn words(self) -> String {
        match self {
            Self::Parent | Self::All => "isolation shared: guests run in a worker ".to_owned(),
            Self::Each(most) => {
                format!(
                    "isolation connection: guests run in a worker for each connection, of which there are up to {most}, "
                )
            }
        }
    }
}
