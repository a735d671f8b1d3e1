//! What a worker does: the next job, or the poller, or sleep.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use nexus_protocol::message::{ClientMessage, Compiled, Execute, Kind, Resolution, Resume};
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, SuspensionId, WireError, decode_client};

use super::Server;
use super::connection::Connection;
use super::crew::{Run, RunId, WorkerId};
use super::hub::{About, Job, Next, Resumed, SessionId, Taken};
use super::meter::Meter;
use super::oversight::Oversight;
use super::poller::{Event, Poller};
use super::resolution::resolution_bytes;
use super::session::{Action, refuse};
use super::shared::Shared;
use super::state::{Mode, State, broken};
use super::suspend::Suspended;
use crate::cache::Client;
use crate::engine::Instance;
use crate::execution::{self, Arrival, Execution, Progress, Totals};
use crate::faults::{self, Point};
use crate::observe::SuspensionEvent;
use crate::os;
use crate::runtime::{Overseer, Ran};
use crate::segments::Lent;
use crate::token::StopCause;

/// With jobs waiting, the poller is looked at this often.
const POLL_INTERVAL: Duration = Duration::from_micros(200);
/// With jobs waiting, answers are held back this long, so that several leave in one write. Where the next job takes long, the
/// watchdog sees to it that they leave.
const BATCH_TIME: Duration = Duration::from_micros(100);

/// One for the poller, and one for what comes.
const FEWEST_WORKERS: usize = 2;

enum Step {
    Run(Next<Execution, Arc<Connection>>),
    Poll(Box<Poller>, bool),
    Flush,
    /// It is one more than are wanted.
    End,
}

/// Answers of this worker that are not written yet.
#[derive(Default)]
struct Unflushed {
    connections: Vec<Arc<Connection>>,
    since: Option<Instant>,
}

impl Unflushed {
    fn add(&mut self, connection: Arc<Connection>, now: Instant) {
        self.since.get_or_insert(now);
        if !self.connections.iter().any(|c| Arc::ptr_eq(c, &connection)) {
            self.connections.push(connection);
        }
    }

    fn is_due(&self, more_work: bool, now: Instant) -> bool {
        self.since.is_some_and(|since| !more_work || now.saturating_duration_since(since) >= BATCH_TIME)
    }
}

impl Server {
    /// The life of a worker thread. It ends when the worker was given up, and has come back, and when a run is over for which it was
    /// one more.
    pub(super) fn work(&self, worker: WorkerId) {
        let mut unflushed = Unflushed::default();
        let mut events: Vec<Event> = Vec::new();
        let mut holding = false;
        loop {
            match self.next_step(worker, &unflushed, &mut holding) {
                Step::Run(next) => {
                    // the poller may be left lying for as long as this takes: the watchdog has somebody else take it
                    self.runtime.engine().watchdog().notify();
                    if next.is_behind {
                        // answers to others do not wait for it
                        self.flush_all(&mut unflushed);
                    }
                    if !self.run(next, &mut unflushed) {
                        self.flush_all(&mut unflushed);
                        self.lock().hub.crew.came_back(worker);
                        log::warn!("worker {} has come back and ends", worker.number());
                        return;
                    }
                    if !os::step_forward() {
                        self.flush_all(&mut unflushed);
                        if self.leaves(worker, holding) {
                            return;
                        }
                    }
                }
                Step::Flush => self.flush_all(&mut unflushed),
                Step::End => return,
                Step::Poll(mut poller, block) => {
                    poller.poll(block, &mut events);
                    self.handle(&mut poller, &mut events);
                    let mut state = self.lock();
                    state.poller = Some(poller);
                    state.last_poll = Instant::now();
                    state.polling.end();
                    state.on_errands = false;
                    state.poll_epoch += 1;
                }
            }
        }
    }

    /// `holding`: whether this worker counts among those that may have an answer to write.
    fn next_step(&self, worker: WorkerId, unflushed: &Unflushed, holding: &mut bool) -> Step {
        let mut state = self.lock();
        if *holding && unflushed.since.is_none() {
            state.holding -= 1;
            *holding = false;
        }
        let take_job = |state: &mut State, holding: &mut bool, now: Instant| {
            let next = state.hub.next(worker, now)?;
            if let Some(run) = state.hub.crew.get_mut(next.run) {
                run.held_back = unflushed.since;
            }
            state.holding += usize::from(!std::mem::replace(holding, true));
            Some(next)
        };
        loop {
            let now = Instant::now();
            let ready = state.hub.has_ready(now);
            let since_poll = now.saturating_duration_since(state.last_poll);
            let poll_is_due = state.poller.is_some() && since_poll >= POLL_INTERVAL;
            if ready
                && !poll_is_due
                && let Some(next) = take_job(&mut state, holding, now)
            {
                return Step::Run(next);
            }
            if unflushed.since.is_some() {
                return Step::Flush;
            }
            if let Some(poller) = state.poller.take() {
                state.poll_epoch += 1;
                return Step::Poll(poller, !ready);
            }
            if let Some(next) = take_job(&mut state, holding, now) {
                return Step::Run(next);
            }
            if state.hub.lets_go(worker) {
                return Step::End;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(|poisoned| broken(&poisoned));
            state.idle -= 1;
        }
    }

    /// For a worker whose thread may not come to the front again: the watchdog starts another one in its place. False: it has to go on as
    /// it is, since it is one of the last.
    fn leaves(&self, worker: WorkerId, holding: bool) -> bool {
        let mut state = self.lock();
        let leaves = state.hub.crew.let_go(worker, FEWEST_WORKERS);
        state.holding -= usize::from(leaves && holding);
        leaves
    }

    fn flush_all(&self, unflushed: &mut Unflushed) {
        for connection in unflushed.connections.drain(..) {
            self.flush(&connection);
        }
        unflushed.since = None;
    }

    /// The books, unless the worker was given up with its run: then others have answered in its place, and it must touch
    /// nothing.
    pub(super) fn books(&self, run: RunId) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        (!state.hub.crew.is_retired(run)).then_some(state)
    }

    /// Runs one job to its answer. Whatever happens, there is exactly one. False: the worker was given up meanwhile.
    fn run(&self, next: Next<Execution, Arc<Connection>>, unflushed: &mut Unflushed) -> bool {
        let Next { job, run, token, arrival, resumed, is_behind } = next;
        if is_behind {
            os::step_back();
        }
        let connection = job.connection.clone();
        let meter = Meter::of(job.kind);
        let answering = Answering { connection: &connection, run, id: job.id, kind: job.kind, arrival, meter: &meter };
        let (budget, since) = (Cell::default(), Cell::new(arrival.since));
        let oversight = Oversight { server: self, run, token, budget, since, meter: &meter };
        let done = catch_unwind(AssertUnwindSafe(|| {
            faults::pass(Point::Worker);
            self.run_job(answering, job, resumed, &oversight)
        }));
        let instance = match done {
            Ok(Outcome::Answered(instance)) => instance,
            Ok(Outcome::Waits) => return true,
            Ok(Outcome::BeginsAgain(instance)) => {
                self.runtime.give_back(instance);
                return true;
            }
            Ok(Outcome::GoesOn) => {
                // there may be a part, and nobody knows how long the next job takes
                self.flush(&connection);
                return true;
            }
            Err(_) => {
                log::error!("a worker panicked; the request is answered with an internal error");
                let error =
                    WireError::new(ErrorCode::InternalError, "the sidecar failed while it worked on this request");
                // how far it came is not known
                let error = if answering.kind.has_effects() { error.not_retryable() } else { error };
                self.answer_failure(answering, error);
                None
            }
        };
        let now = Instant::now();
        let (more, pressing) = match self.books(run) {
            Some(mut state) => {
                state.hub.end_run(run);
                (state.hub.has_ready(now), state.hub.has_to_park_now())
            }
            None => {
                drop(instance);
                return false;
            }
        };
        unflushed.add(connection, now);
        if unflushed.is_due(more, now) {
            self.flush_all(unflushed);
        }
        // after the answer: nobody waits for the reset
        self.runtime.give_back(instance);
        if pressing {
            self.park_one();
        }
        true
    }

    fn run_job(
        &self,
        answering: Answering<'_>,
        job: Job,
        resumed: Option<Resumed<Execution>>,
        oversight: &Oversight<'_>,
    ) -> Outcome {
        let connection = answering.connection;
        // shared, since the job takes it along when it has to wait
        let frame = job.frame.clone();
        let envelope = match decode_client(&frame) {
            Ok(envelope) => envelope,
            Err(e) => {
                self.undo(answering.run, resumed);
                let (id, error, closes) = match refuse(&e) {
                    Action::Close(id, error) => (id, error, true),
                    Action::Refuse(id, error) => (id, error, false),
                    _ => return Outcome::Answered(None),
                };
                if self.finish(answering).is_none() {
                    return Outcome::Answered(None);
                }
                self.runtime.observer.record_error(error.code);
                connection.send_answer(id, &SidecarMessage::Error(error));
                if closes {
                    self.dismiss(connection);
                }
                return Outcome::Answered(None);
            }
        };
        let timeout = match &envelope.message {
            ClientMessage::Execute(request) => {
                execution::narrow_timeout(self.runtime.config.timeout_ms, request.timeout_ms)
            }
            // each of its items has its own
            ClientMessage::ExecuteMany(_) => None,
            _ => execution::narrow_timeout(self.runtime.config.timeout_ms, None),
        };
        let budget = match &resumed {
            Some(Resumed { execution, .. }) => execution.budget(),
            None => (timeout, Duration::ZERO),
        };
        oversight.has_time(budget, answering.arrival);
        // a resume is a segment of its execution, and ends it in its own words
        if resumed.is_none()
            && let Some(timeout) = timeout.filter(|timeout| *timeout <= answering.arrival.waited)
        {
            self.answer_failure(answering, execution::waited_too_long(timeout, answering.arrival.waited));
            return Outcome::Answered(None);
        }
        let client = self.client_of(job.session);
        match envelope.message {
            ClientMessage::Execute(request) => self.execute(answering, &job, request, oversight),
            ClientMessage::ExecuteMany(request) => self.execute_many(answering, job, &request, oversight),
            ClientMessage::Resume(resume) => self.resume(answering, job, &resume, resumed, oversight),
            ClientMessage::Precompile(request) => {
                let started = Instant::now();
                match self.runtime.compile(request.source, request.suspend_mode, client, oversight) {
                    Ok(found) => {
                        let handle = self.runtime.handle(&found.handler);
                        let message = Compiled {
                            handler: &handle,
                            capabilities: found.handler.capabilities.iter().map(|need| &*need.token).collect(),
                            suspend_mode: found.handler.suspend_mode,
                            cache_hit: found.cache_hit,
                            compilation_time_us: found.told.unwrap_or_else(|| started.elapsed()).as_micros() as u64,
                            warnings: found.handler.warnings.iter().map(|warning| warning.note.told()).collect(),
                        };
                        self.reply(answering, &SidecarMessage::Compiled(message));
                    }
                    Err(error) if self.is_to_begin_again(&error, answering.run, &job) => {
                        return Outcome::BeginsAgain(None);
                    }
                    Err(error) => self.answer_failure(answering, error),
                }
                Outcome::Answered(None)
            }
            ClientMessage::Check(request) => {
                match self.runtime.compile(request.source, None, client, oversight) {
                    Ok(found) => self.reply(answering, &SidecarMessage::Checked(found.handler.checked())),
                    Err(error) if self.is_to_begin_again(&error, answering.run, &job) => {
                        return Outcome::BeginsAgain(None);
                    }
                    Err(error) => self.answer_failure(answering, error),
                }
                Outcome::Answered(None)
            }
            ClientMessage::CreateState(request) => self.create_state(answering, &job, &request, oversight.token()),
            ClientMessage::PatchState(request) => self.patch_state(answering, &job, &request, oversight.token()),
            ClientMessage::SnapshotState(request) => self.snapshot_state(answering, &job, &request, oversight.token()),
            ClientMessage::DisposeState(request) => self.dispose_state(answering, &job, &request),
            ClientMessage::OpenArena(request) => self.open_arena(answering, &job, request),
            _ => {
                let error = super::session::protocol_error("this kind of request is not known here".into());
                self.answer_failure(answering, error);
                Outcome::Answered(None)
            }
        }
    }

    /// Who a session is to the compile cache: the parent that a sidecar was spawned by has it alone.
    pub(super) fn client_of(&self, session: SessionId) -> Client {
        match self.mode {
            Mode::Child => Client::ALONE,
            Mode::Service => Client(session.0),
        }
    }

    /// Puts a job back whose guest was stopped to make way. False: it was not, or is to end.
    fn begins_again(&self, run: RunId, job: &Job) -> bool {
        os::step_forward();
        self.books(run).is_some_and(|mut state| state.hub.begin_again(job, run, Instant::now()))
    }

    fn is_to_begin_again(&self, error: &WireError, run: RunId, job: &Job) -> bool {
        error.code == ErrorCode::Cancelled && self.begins_again(run, job)
    }

    fn execute(&self, answering: Answering<'_>, job: &Job, request: Execute<'_>, oversight: &Oversight<'_>) -> Outcome {
        let session = job.session;
        let Shared { state, charge: _charge, args, scope } = match self.shared(session, &request) {
            Ok(shared) => shared,
            Err(error) => {
                self.answer_failure(answering, error);
                return Outcome::Answered(None);
            }
        };
        let mut request = request;
        request.args = args.as_deref().or(request.args);
        request.scope = scope.as_deref().or(request.scope);
        let client = self.client_of(session);
        let ran = self.runtime.execute(&request, state, answering.arrival, client, oversight);
        if ran.report.is_cancelled() && self.begins_again(answering.run, job) {
            let Ran { progress, armed, .. } = ran;
            drop(armed);
            return Outcome::BeginsAgain(match progress {
                Progress::Finished(instance) => instance,
                Progress::Suspended(execution) => execution.into_instance(),
            });
        }
        let lent = self.arenas.lent(session.0, &request.regions);
        self.conclude(answering, ran, lent, Segment::First(job.number, job.enqueued, &request))
    }

    fn resume(
        &self,
        answering: Answering<'_>,
        job: Job,
        resume: &Resume<'_>,
        resumed: Option<Resumed<Execution>>,
        oversight: &Oversight<'_>,
    ) -> Outcome {
        let session = job.session;
        let inline = !matches!(resume.resolution, Resolution::Value(None));
        let fetched = self.arenas.fetch(session.0, "value", resume.regions.value.as_ref(), inline);
        let (fetched, lent) = (fetched.as_ref().map(Option::as_deref), self.arenas.lent(session.0, &resume.regions));
        let answer = fetched.map_err(Clone::clone).and_then(|fetched| {
            resolution_bytes(&fetched.map_or(resume.resolution, |bytes| Resolution::Value(Some(bytes))))
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.undo(answering.run, resumed);
                self.answer_failure(answering, error);
                return Outcome::Answered(None);
            }
        };
        let (resumed, arrival) = match (resumed, resume.suspension.parse::<SuspensionId>()) {
            (Some(resumed), _) => (resumed, answering.arrival),
            (None, Err(_)) => return self.refuse_resume(answering),
            (None, Ok(id)) => {
                let Some(mut state) = self.books(answering.run) else { return Outcome::Answered(None) };
                let taken = state.hub.take(id, job, answering.run, Instant::now());
                drop(state);
                match taken {
                    Taken::Run(resumed, arrival) => {
                        oversight.has_time(resumed.execution.budget(), arrival);
                        (resumed, arrival)
                    }
                    Taken::Waits => return Outcome::Waits,
                    Taken::Unknown(_) => return self.refuse_resume(answering),
                }
            }
        };
        self.runtime.observer.record_suspension(SuspensionEvent::Resumed);
        let Resumed { key, id, execution } = resumed;
        let ran = self.runtime.resume(*execution, id, answer.as_answer(), arrival, oversight);
        self.conclude(answering, ran, lent, Segment::Resumed(key))
    }

    fn refuse_resume(&self, answering: Answering<'_>) -> Outcome {
        self.runtime.observer.record_suspension(SuspensionEvent::Refused);
        self.answer_failure(answering, execution::no_such_suspension());
        Outcome::Answered(None)
    }

    /// A run goes on without what it was to resume: another resume may come for it.
    fn undo(&self, run: RunId, resumed: Option<Resumed<Execution>>) {
        let Some(Resumed { key, id, execution }) = resumed else { return };
        let ended = self.lock().hub.undo(run, key, id, execution, Instant::now());
        if let Some(execution) = ended {
            self.retire(*execution);
        }
    }

    /// Puts a suspended execution into the hub, then answers: the client may resume the moment that it has the answer.
    fn conclude(&self, answering: Answering<'_>, ran: Ran<'_>, mut lent: Lent, segment: Segment<'_>) -> Outcome {
        // whoever gives way should not do it with the books in hand
        os::step_forward();
        let Ran { mut report, progress, armed } = ran;
        let now = Instant::now();
        let mut answered = false;
        answering.meter.add(report.totals.segment_cpu());
        let instance = match progress {
            Progress::Suspended(execution) => {
                // in one breath with the answer: nobody may take the execution for one that this worker still has
                let kept = self.suspended(answering.run, execution, |hub, execution| {
                    hub.used(answering.run, answering.meter.read(), || now);
                    match segment {
                        Segment::First(number, enqueued, request) => {
                            let about = About::new(number, enqueued, request, &*execution);
                            hub.suspend(answering.run, about, execution, now)
                        }
                        Segment::Resumed(key) => hub.put_back(answering.run, key, execution, now),
                    }
                });
                match kept {
                    Suspended::GivenUp(instance) => return Outcome::Answered(instance),
                    Suspended::Kept(instance) => {
                        answered = true;
                        instance
                    }
                    Suspended::Over(instance, error) => {
                        if let Segment::Resumed(key) = segment {
                            self.lock().hub.end(answering.run, key);
                        }
                        report = report.into_failure(error);
                        instance
                    }
                }
            }
            // an execution that was resumed is over with the answer
            Progress::Finished(instance) => instance,
        };
        // only when the answer is this worker's: a request that was given up is answered, and the place is the client's again
        let ending = if answered { Some(None) } else { self.finish(answering) };
        if let Some(ending) = ending {
            armed.was_let_go();
            // somebody was told that it is cancelled, when the guest was done with it
            if ending == Some(StopCause::Cancelled) {
                report = report.into_failure(execution::cancelled());
            }
            report.share(&mut lent);
            answering.connection.append_answer(|out, max| report.encode(answering.id, max, out));
        }
        Outcome::Answered(instance)
    }

    pub(super) fn answer_failure(&self, answering: Answering<'_>, error: WireError) {
        self.runtime.observer.record_error(error.code);
        if matches!(answering.kind, Kind::Execute | Kind::Resume) {
            if let Some(ending) = self.finish(answering) {
                let is_cancelled = ending == Some(StopCause::Cancelled);
                let error = if is_cancelled { execution::cancelled() } else { error };
                let report = Totals::begun(answering.arrival).failure(error);
                answering.connection.append_answer(|out, max| report.encode(answering.id, max, out));
            }
        } else {
            self.reply(answering, &SidecarMessage::Error(error));
        }
    }

    /// Marks the request as answered, which ends the watch over this worker. Why it was to end, if it was: whoever asked for that
    /// was told that it does. None: somebody else has answered it.
    pub(super) fn finish(&self, answering: Answering<'_>) -> Option<Option<StopCause>> {
        os::step_forward();
        let cpu = answering.meter.read();
        let mut state = self.lock();
        // before anybody may run what its session has waiting
        state.hub.used(answering.run, cpu, Instant::now);
        let ending = state.hub.crew.get(answering.run).and_then(Run::ending);
        state.hub.answer(answering.run).then_some(ending)
    }

    pub(super) fn reply(&self, answering: Answering<'_>, message: &SidecarMessage<'_>) {
        let Some(ending) = self.finish(answering) else { return };
        // who was told that it is cancelled hears so, where that is as good as if it had never been done
        let nothing_is_left = matches!(answering.kind, Kind::Precompile | Kind::Check);
        if nothing_is_left && ending == Some(StopCause::Cancelled) {
            let error = SidecarMessage::Error(execution::cancelled());
            return answering.connection.send_answer(answering.id, &error);
        }
        answering.connection.send_answer(answering.id, message);
    }
}

/// Where an answer goes, and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Answering<'a> {
    pub connection: &'a Connection,
    pub run: RunId,
    pub id: RequestId,
    pub kind: Kind,
    pub arrival: Arrival,
    pub meter: &'a Meter,
}

/// Which segment of its execution a report is of.
#[derive(Clone, Copy)]
enum Segment<'a> {
    /// The number of the execution, when it arrived, and what it was asked for.
    First(u64, Instant, &'a Execute<'a>),
    /// The key of its entry.
    Resumed(u64),
}

/// What became of a job.
pub(super) enum Outcome {
    /// Its answer is in the connection's buffer; the instance is to be reset.
    Answered(Option<Instance>),
    /// It waits for whoever has its execution.
    Waits,
    /// It waits for its next turn; a part of its answer is in the connection's buffer.
    GoesOn,
    /// It has made way for others, and waits to begin once more; the instance is to be reset.
    BeginsAgain(Option<Instance>),
}
