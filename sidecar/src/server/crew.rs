//! The workers, and the run that each of them is at.
//!
//! ```text
//!   Free --begin--> Working --answer--> Answering --end--> Free
//!                      |
//!                    retire (by the watchdog: its request is answered, another worker takes its place)
//!                      v
//!                   Retired --came_back--> Ended (the thread ends; the place may be filled again)
//! ```
//! A run is one request in the hands of one worker. It stands here and nowhere else: requests and executions name it by its
//! [`RunId`], which is never used again, so whatever is said of a run that is over reaches nothing. A worker whose run was
//! retired may still be anywhere in its request: what it then says of that run reaches nothing either. So a request is
//! answered by its worker or by the watchdog, never by both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::RequestId;
use nexus_protocol::limits::{HOST_GRACE_MS, LONG_RUN_MS, MAX_RETIRED_THREADS, RETIRE_GRACE_MS, RETIRE_STANDSTILL_MS};
use nexus_protocol::message::Kind;

use super::hub::{Job, SessionId};
use super::incoming::Incoming;
use crate::engine::control::{Control, Ticket};
use crate::engine::live_logs::SegmentLogs;
use crate::os::Thread;
use crate::runtime::Purpose;
use crate::token::{StopCause, StopToken};

/// Answers to requests that are done wait no longer for a worker that has gone on to the next one.
const MAX_HELD_BACK: Duration = Duration::from_millis(1);
/// For so long after its begin a run that does not give way is taken for one that uses a processor.
pub const STILL_IN_FRONT: Duration = Duration::from_millis(LONG_RUN_MS);
const HOST_GRACE: Duration = Duration::from_millis(HOST_GRACE_MS);
const RETIRE_GRACE: Duration = Duration::from_millis(RETIRE_GRACE_MS);
const RETIRE_STANDSTILL: Duration = Duration::from_millis(RETIRE_STANDSTILL_MS);

/// One thread, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(u32);

impl WorkerId {
    pub fn number(self) -> u32 {
        self.0
    }
}

/// One run, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId {
    worker: u32,
    generation: u64,
}

impl RunId {
    pub fn worker(self) -> WorkerId {
        WorkerId(self.worker)
    }
}

/// A guest that runs for a request, and by what it is stopped.
#[derive(Clone, Debug)]
pub struct Armed {
    pub control: Arc<dyn Control>,
    ticket: Ticket,
    pub since: Instant,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Host code reads the request, prepares it, or makes something of what the guest left.
    Host,
    /// A guest compiles its source.
    Compiling(Armed),
    /// A guest runs its handler.
    Executing(Armed),
}

impl Stage {
    pub fn armed(&self) -> Option<&Armed> {
        match self {
            Self::Host => None,
            Self::Compiling(armed) | Self::Executing(armed) => Some(armed),
        }
    }
}

/// The time that an execution has in all, as far as it is known, and what of it was used up before this request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    pub timeout: Option<Duration>,
    pub spent: Duration,
}

/// Whether a run is on trial: it has an instance that others may need sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    None,
    On,
    /// It goes on, and has its instance beside those that there may be.
    Beside,
    /// Its guest was stopped, and its job begins again when it is its turn among all.
    Back,
}

/// One request in the hands of a worker: all that is known of it.
#[derive(Debug)]
pub struct Run<P> {
    pub session: SessionId,
    pub id: RequestId,
    pub kind: Kind,
    /// Of its execution.
    pub number: u64,
    pub frame: Arc<Incoming>,
    pub enqueued: Instant,
    pub connection: P,
    pub budget: Budget,
    /// The suspended execution that it resumes, by its key.
    pub execution: Option<u64>,
    /// What its handler logs while it runs, where somebody wants to hear it.
    pub live_logs: Option<SegmentLogs>,
    /// Since when its worker has held back answers to requests before this one.
    pub held_back: Option<Instant>,
    stage: Stage,
    /// Why it is to end, once it is.
    ending: Option<StopCause>,
    trial: Trial,
    /// The worker's CPU time when the run was first looked at.
    looked_at: Option<Duration>,
    /// Its worker was told to give way.
    gives_way: bool,
    /// Before this moment nobody could work: the process or the machine stood still.
    not_before: Instant,
    /// The worker's CPU time when the run was first found to be late.
    late_from: Option<Duration>,
}

impl<P> Run<P> {
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Why it is to end.
    pub fn ending(&self) -> Option<StopCause> {
        self.ending
    }

    #[cfg(test)]
    pub fn has_to_give_way(&self) -> bool {
        self.gives_way
    }

    /// Whether it is likely to use a processor, and does not give way: one that has begun long ago waits for something.
    pub fn is_in_front(&self, now: Instant) -> bool {
        !self.gives_way && now.saturating_duration_since(self.not_before) < STILL_IN_FRONT
    }

    pub fn is_beside(&self) -> bool {
        self.trial == Trial::Beside
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a worker has one; a box would be an allocation per request")]
enum Worker<P> {
    Free,
    Working(Run<P>),
    /// Its request is off the books, and the answer is not in the connection's buffer yet.
    Answering(SessionId),
    Retired,
    Ended,
}

#[derive(Debug)]
struct Place<P> {
    worker: Worker<P>,
    /// Of the run that is, or was last, here.
    generation: u64,
    /// By which host code learns that the run has to end.
    token: Arc<StopToken>,
    /// None until the thread has started.
    thread: Option<Thread>,
}

impl<P> Place<P> {
    fn is_on_trial(&self) -> bool {
        matches!(&self.worker, Worker::Working(run) if run.trial == Trial::On)
    }

    /// What its run has used of a processor since this was asked for the first time.
    fn used_since_looked_at(&mut self) -> Option<Duration> {
        let Worker::Working(run) = &mut self.worker else { return None };
        let used = self.thread.and_then(|thread| thread.cpu_time()).unwrap_or_default();
        Some(used.saturating_sub(*run.looked_at.get_or_insert(used)))
    }

    fn gives_way(&mut self) {
        if let (Worker::Working(run), Some(thread)) = (&mut self.worker, self.thread) {
            run.gives_way = true;
            thread.is_to_give_way();
        }
    }
}

/// Whether a request of this kind leaves nothing behind before its answer. A resume uses up its suspension; of several executions
/// some may be told.
pub fn begins_again(kind: Kind) -> bool {
    matches!(kind, Kind::Execute | Kind::Precompile | Kind::Check)
}

/// Why a worker is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The guest had to end, and did not.
    InGuest(StopCause),
    /// Somewhere else: decoding, parsing, encoding.
    InHost,
}

/// See the module. `P`: where an answer goes.
#[derive(Debug)]
pub struct Crew<P> {
    places: Vec<Place<P>>,
    /// Those that are working.
    running: usize,
    retired: usize,
    /// Since the start.
    retired_total: u64,
}

impl<P> Default for Crew<P> {
    fn default() -> Self {
        Self { places: Vec::new(), running: 0, retired: 0, retired_total: 0 }
    }
}

impl<P: Clone> Crew<P> {
    /// A new worker; its thread is about to start.
    pub fn hire(&mut self) -> WorkerId {
        let ended = self.places.iter().position(|place| matches!(place.worker, Worker::Ended));
        let at = ended.unwrap_or(self.places.len());
        let token = Arc::default();
        match self.places.get_mut(at) {
            // the run that was here last stays over
            Some(place) => (place.worker, place.token, place.thread) = (Worker::Free, token, None),
            None => self.places.push(Place { worker: Worker::Free, generation: 0, token, thread: None }),
        }
        WorkerId(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// A worker that has nothing to do ends, if there are more of them than `wanted`. False: it is to stay.
    pub fn let_go(&mut self, worker: WorkerId, wanted: usize) -> bool {
        // most of the time there never were more
        if self.places.len() <= wanted || self.workers() <= wanted {
            return false;
        }
        let place = self.places.get_mut(worker.0 as usize);
        place.filter(|place| matches!(place.worker, Worker::Free)).map(|place| place.worker = Worker::Ended).is_some()
    }

    /// The worker's thread runs.
    pub fn started(&mut self, worker: WorkerId, thread: Thread) {
        if let Some(place) = self.places.get_mut(worker.0 as usize) {
            place.thread = Some(thread);
        }
    }

    fn place_mut(&mut self, run: RunId) -> Option<&mut Place<P>> {
        self.places.get_mut(run.worker as usize).filter(|place| place.generation == run.generation)
    }

    /// A run that goes on; None: it is answered, or over, or was given up.
    pub fn get(&self, run: RunId) -> Option<&Run<P>> {
        let place = self.places.get(run.worker as usize).filter(|place| place.generation == run.generation)?;
        match &place.worker {
            Worker::Working(run) => Some(run),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, run: RunId) -> Option<&mut Run<P>> {
        match &mut self.place_mut(run)?.worker {
            Worker::Working(run) => Some(run),
            _ => None,
        }
    }

    /// A worker takes a job.
    pub fn begin(&mut self, worker: WorkerId, job: &Job<P>, now: Instant) -> Option<(RunId, Arc<StopToken>)> {
        let place = self.places.get_mut(worker.0 as usize)?;
        place.generation += 1;
        place.token.renew();
        place.worker = Worker::Working(Run {
            session: job.session,
            id: job.id,
            kind: job.kind,
            number: job.number,
            frame: job.frame.clone(),
            enqueued: job.enqueued,
            connection: job.connection.clone(),
            budget: Budget::default(),
            execution: None,
            live_logs: None,
            held_back: None,
            stage: Stage::Host,
            ending: None,
            trial: Trial::None,
            looked_at: None,
            gives_way: false,
            not_before: now,
            late_from: None,
        });
        self.running += 1;
        Some((RunId { worker: worker.0, generation: place.generation }, place.token.clone()))
    }

    /// A guest is about to run for a request. From now on whoever stops the run stops the guest. False: the run was given up,
    /// and what the guest does counts for nothing.
    pub fn arm(
        &mut self,
        run: RunId,
        control: Arc<dyn Control>,
        purpose: Purpose,
        budget: Budget,
        now: Instant,
    ) -> bool {
        // nobody else can stop it before this; what an earlier run left is over
        let ticket = control.arm();
        let Some(run) = self.get_mut(run) else {
            control.give_up(ticket);
            control.stop(ticket, StopCause::Cancelled);
            return false;
        };
        if let Some(cause) = run.ending.or((run.trial == Trial::Back).then_some(StopCause::Back)) {
            control.stop(ticket, cause);
        }
        let armed = Armed { control, ticket, since: now };
        (run.late_from, run.budget) = (None, budget);
        run.stage = match purpose {
            Purpose::Compile => Stage::Compiling(armed),
            Purpose::Execute => Stage::Executing(armed),
        };
        true
    }

    /// The guest is done: from now on its control is somebody else's.
    pub fn disarm(&mut self, run: RunId) {
        if let Some(run) = self.get_mut(run) {
            (run.stage, run.late_from) = (Stage::Host, None);
        }
    }

    /// Asks for the end of a run, wherever it is. False: it is over, or answered.
    pub fn stop(&mut self, run: RunId, cause: StopCause) -> bool {
        let Some(Place { worker: Worker::Working(run), token, .. }) = self.place_mut(run) else { return false };
        run.ending.get_or_insert(cause);
        if run.trial != Trial::Beside {
            run.trial = Trial::None;
        }
        token.stop(cause);
        if let Some(armed) = run.stage.armed() {
            armed.control.stop(armed.ticket, cause);
        }
        true
    }

    /// A run is on trial from now on.
    pub fn try_out(&mut self, run: RunId) {
        if let Some(run) = self.get_mut(run) {
            run.trial = Trial::On;
        }
    }

    /// One of those that are on trial, and have used so much of a processor since they were first looked at.
    pub fn on_trial_for(&mut self, time: Duration) -> Option<RunId> {
        let mut places = self.places.iter_mut().zip(0..);
        places.find_map(|(place, worker)| {
            let is_over = place.is_on_trial() && place.used_since_looked_at()? >= time;
            is_over.then_some(RunId { worker, generation: place.generation })
        })
    }

    /// Workers give way to others once their runs have used so much of a processor since they were first looked at; `patience` says how
    /// much, for a session. When its run is over, a worker comes to the front again by itself.
    pub fn have_give_way(&mut self, patience: impl Fn(SessionId) -> Duration) {
        for place in &mut self.places {
            let Worker::Working(Run { gives_way: false, session, .. }) = place.worker else { continue };
            if place.used_since_looked_at().is_some_and(|used| used >= patience(session)) {
                place.gives_way();
            }
        }
    }

    /// A run that is on trial goes on with an instance beside. False: it is over, or ends.
    pub fn set_beside(&mut self, run: RunId) -> bool {
        let on_trial = self.get_mut(run).filter(|run| run.trial == Trial::On);
        on_trial.map(|run| run.trial = Trial::Beside).is_some()
    }

    /// Whether nobody sees a difference when the job of a run begins once more: nothing has happened that was told, or is used up.
    pub fn can_begin_again(&self, run: RunId) -> bool {
        self.get(run).is_some_and(|run| run.live_logs.is_none() && begins_again(run.kind))
    }

    /// Stops the guest of a run that is on trial, for its job to begin again. False: it is over, or ends, or no guest is at work.
    pub fn put_back(&mut self, run: RunId) -> bool {
        let Some(run) = self.get_mut(run).filter(|run| run.trial == Trial::On) else { return false };
        let Some(armed) = run.stage.armed() else { return false };
        run.trial = Trial::Back;
        armed.control.stop(armed.ticket, StopCause::Back)
    }

    /// Whether the job of a run is to begin again, if its guest was stopped in time.
    pub fn is_put_back(&self, run: RunId) -> bool {
        self.get(run).is_some_and(|run| run.trial == Trial::Back && run.ending.is_none())
    }

    /// Workers that are at work or could be.
    pub fn workers(&self) -> usize {
        let is_there = |place: &&Place<P>| !matches!(place.worker, Worker::Retired | Worker::Ended);
        self.places.iter().filter(is_there).count()
    }

    /// Runs that go on.
    pub fn runs(&self) -> impl Iterator<Item = (RunId, &Run<P>)> {
        self.places.iter().zip(0..).filter_map(|(place, worker)| match &place.worker {
            Worker::Working(run) => Some((RunId { worker, generation: place.generation }, run)),
            _ => None,
        })
    }

    /// Their number.
    pub fn running(&self) -> usize {
        self.running
    }

    /// The request is about to be answered; what the worker still does holds nobody up. None: it was answered, or given up.
    pub fn answer(&mut self, run: RunId) -> Option<Run<P>> {
        let place = self.place_mut(run)?;
        let Worker::Working(run) = &place.worker else { return None };
        let answering = Worker::Answering(run.session);
        let Worker::Working(run) = std::mem::replace(&mut place.worker, answering) else { return None };
        self.running -= 1;
        Some(run)
    }

    /// The worker has nothing to do with its request any more. Returns the run if nobody has answered it.
    pub fn end(&mut self, run: RunId) -> Option<Run<P>> {
        let place = self.place_mut(run)?;
        let (Worker::Working(_) | Worker::Answering(_)) = place.worker else { return None };
        match std::mem::replace(&mut place.worker, Worker::Free) {
            Worker::Working(run) => {
                self.running -= 1;
                Some(run)
            }
            _ => None,
        }
    }

    /// Whether an answer is on its way to the buffer of a session's connection.
    pub fn is_answering(&self, session: SessionId) -> bool {
        self.places.iter().any(|place| matches!(place.worker, Worker::Answering(to) if to == session))
    }

    /// Whether the worker of a run was given up with it.
    pub fn is_retired(&self, run: RunId) -> bool {
        self.places.get(run.worker as usize).is_none_or(|place| place.generation != run.generation)
    }

    /// Runs that are stuck, and why.
    ///
    /// A run that is late is not stuck yet: on a busy machine a healthy thread may not get to the end that it was told of. It
    /// is stuck when its thread has *used* the grace period on a processor and still is not done, or when it has stood
    /// still for much longer than any scheduler keeps a thread waiting.
    pub fn stuck(&mut self, now: Instant) -> Vec<(RunId, Stuck)> {
        let places = self.places.iter_mut().zip(0..);
        // mostly none, and then nothing is allocated
        let stuck = places.filter_map(|(place, worker)| {
            let Worker::Working(run) = &mut place.worker else { return None };
            let in_guest = run.stage.armed().and_then(|armed| armed.control.due_for(armed.ticket, now));
            let (why, late) = match in_guest {
                Some((cause, late)) => (Stuck::InGuest(cause), late),
                None => {
                    let end = place.token.deadline()?.checked_add(HOST_GRACE)?.max(run.not_before);
                    (Stuck::InHost, now.checked_duration_since(end)?)
                }
            };
            let used = place.thread.and_then(|thread| thread.cpu_time()).unwrap_or_default();
            let from = *run.late_from.get_or_insert(used);
            let is_stuck =
                late >= RETIRE_STANDSTILL || late >= RETIRE_GRACE && used.saturating_sub(from) >= RETIRE_GRACE / 2;
            is_stuck.then_some((RunId { worker, generation: place.generation }, why))
        });
        stuck.collect()
    }

    /// Runs that have logged something which somebody wants to hear now.
    pub fn logs_due(&self, now: Instant) -> impl Iterator<Item = (RunId, &Run<P>, &SegmentLogs)> {
        let live = self.runs().filter_map(|(id, run)| Some((id, run, run.live_logs.as_ref()?)));
        live.filter(move |(.., live)| live.is_due(now))
    }

    /// Whether answers wait for a worker that is at its next request. Said once for each request.
    pub fn holds_back(&mut self, now: Instant) -> bool {
        let mut found = false;
        for place in &mut self.places {
            let Worker::Working(run) = &mut place.worker else { continue };
            if run.held_back.is_some_and(|since| now.saturating_duration_since(since) >= MAX_HELD_BACK) {
                run.held_back = None;
                found = true;
            }
        }
        found
    }

    /// Time has passed in which nobody could work.
    pub fn forgive(&mut self, now: Instant) {
        for place in &mut self.places {
            if let Worker::Working(run) = &mut place.worker {
                (run.not_before, run.late_from) = (now, None);
                if let Some(armed) = run.stage.armed() {
                    armed.control.forgive(now);
                }
            }
        }
    }

    /// Gives a worker up with its run. None: it is not at work, or its guest has ended at the last moment.
    pub fn retire(&mut self, run: RunId, why: Stuck) -> Option<Run<P>> {
        let place = self.place_mut(run)?;
        let Worker::Working(run) = &place.worker else { return None };
        let ended = run.stage.armed().is_some_and(|armed| !armed.control.give_up(armed.ticket));
        if ended && matches!(why, Stuck::InGuest(_)) {
            return None;
        }
        let Worker::Working(run) = std::mem::replace(&mut place.worker, Worker::Retired) else { return None };
        place.token.stop(StopCause::Cancelled);
        // whatever its worker still says of it
        place.generation += 1;
        self.running -= 1;
        self.retired += 1;
        self.retired_total += 1;
        Some(run)
    }

    /// A retired worker's thread is about to end.
    pub fn came_back(&mut self, worker: WorkerId) {
        if let Some(place) = self.places.get_mut(worker.0 as usize)
            && matches!(place.worker, Worker::Retired)
        {
            place.worker = Worker::Ended;
            self.retired -= 1;
        }
    }

    /// Whether more threads are lost than a process should go on with.
    pub fn is_broken(&self) -> bool {
        self.retired > MAX_RETIRED_THREADS
    }

    pub fn retired(&self) -> usize {
        self.retired
    }

    pub fn retired_total(&self) -> u64 {
        self.retired_total
    }
}

#[cfg(test)]
mod tests;
