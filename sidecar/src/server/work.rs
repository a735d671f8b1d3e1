//! What a worker does: the next job, or the poller, or sleep.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use nexus_protocol::message::{Checked, ClientMessage, Compiled, Execute, Kind, Resolution, Resume};
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, SuspensionId, WireError, decode_client, payload};
use serde::Serialize;

use super::Server;
use super::connection::Connection;
use super::crew::{Work, WorkerId};
use super::hub::{About, Job, NotKept, SessionId, Taken};
use super::poller::{Event, Poller};
use super::session::{Action, refuse};
use super::shared::Shared;
use super::state::{State, broken};
use crate::engine::Instance;
use crate::engine::control::{RunControl, StopCause};
use crate::execution::{self, Answer, Progress, Report, Totals};
use crate::faults::{self, Point};
use crate::observe::SuspensionEvent;
use crate::runtime::Register;
use crate::segments::Lent;

/// With jobs waiting, the poller is looked at this often.
const POLL_INTERVAL: Duration = Duration::from_micros(200);
/// With jobs waiting, answers are held back this long, so that several leave in one write. Where the next job takes long, the
/// watchdog sees to it that they leave.
const BATCH_TIME: Duration = Duration::from_micros(100);

enum Step {
    Run(Job),
    Poll(Box<Poller>, bool),
    Flush,
}

/// Answers of this worker that are not written yet.
#[derive(Default)]
struct Unflushed {
    connections: Vec<Arc<Connection>>,
    since: Option<Instant>,
}

impl Unflushed {
    fn add(&mut self, connection: Arc<Connection>) {
        self.since.get_or_insert_with(Instant::now);
        if !self.connections.iter().any(|c| Arc::ptr_eq(c, &connection)) {
            self.connections.push(connection);
        }
    }

    fn is_due(&self, more_work: bool) -> bool {
        self.since.is_some_and(|since| !more_work || since.elapsed() >= BATCH_TIME)
    }
}

impl Server {
    /// The life of a worker thread. It ends only when the worker was given up, and has come back.
    pub(super) fn work(&self, worker: WorkerId) {
        let mut unflushed = Unflushed::default();
        let mut events: Vec<Event> = Vec::new();
        let mut holding = false;
        loop {
            match self.next_step(worker, &unflushed, &mut holding) {
                Step::Run(job) => {
                    // the poller may be left lying for as long as this takes: the watchdog has somebody else take it
                    self.runtime.engine().watchdog().notify();
                    if !self.run(worker, job, &mut unflushed) {
                        self.flush_all(&mut unflushed);
                        self.lock().crew.came_back(worker);
                        log::warn!("worker {} has come back and ends", worker.number());
                        return;
                    }
                }
                Step::Flush => self.flush_all(&mut unflushed),
                Step::Poll(mut poller, block) => {
                    poller.poll(block, &mut events);
                    self.handle(&mut poller, &mut events);
                    let mut state = self.lock();
                    state.poller = Some(poller);
                    state.last_poll = Instant::now();
                    self.polling.end();
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
        let take_job = |state: &mut State, holding: &mut bool| {
            let job = state.hub.next_job()?;
            let mut work = Work::of(&job, Instant::now());
            work.held_back = unflushed.since;
            state.crew.begin(worker, work);
            state.holding += usize::from(!std::mem::replace(holding, true));
            Some(job)
        };
        loop {
            let ready = state.hub.has_ready();
            let poll_is_due = state.poller.is_some() && state.last_poll.elapsed() >= POLL_INTERVAL;
            if ready
                && !poll_is_due
                && let Some(job) = take_job(&mut state, holding)
            {
                return Step::Run(job);
            }
            if unflushed.since.is_some() {
                return Step::Flush;
            }
            if let Some(poller) = state.poller.take() {
                state.poll_epoch += 1;
                return Step::Poll(poller, !ready);
            }
            if let Some(job) = take_job(&mut state, holding) {
                return Step::Run(job);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(|poisoned| broken(&poisoned));
            state.idle -= 1;
        }
    }

    fn flush_all(&self, unflushed: &mut Unflushed) {
        for connection in unflushed.connections.drain(..) {
            self.flush(&connection);
        }
        unflushed.since = None;
    }

    /// The books, unless the worker was given up: then others have answered in its place, and it must touch nothing.
    fn books(&self, worker: WorkerId) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        (!state.crew.is_retired(worker)).then_some(state)
    }

    /// Runs one job to its answer. Whatever happens, there is exactly one. False: the worker was given up meanwhile.
    fn run(&self, worker: WorkerId, job: Job, unflushed: &mut Unflushed) -> bool {
        let connection = job.connection.clone();
        let (session, id, kind) = (job.session, job.id, job.kind);
        let answering = Answering { connection: &connection, worker };
        let done = catch_unwind(AssertUnwindSafe(|| {
            faults::pass(Point::Worker);
            self.run_job(answering, job)
        }));
        let instance = match done {
            Ok(Outcome::Answered(instance)) => instance,
            Ok(Outcome::Waits) => return true,
            Err(_) => {
                log::error!("a worker panicked; the request is answered with an internal error");
                let error =
                    WireError::new(ErrorCode::InternalError, "the sidecar failed while it worked on this request");
                if let Some(mut state) = self.books(worker)
                    && let Some(key) = state.crew.resuming(worker)
                {
                    // the execution went with the panic; others may wait for it
                    state.hub.end(key);
                }
                self.answer_failure(answering, id, kind, Duration::ZERO, error);
                None
            }
        };
        let (more, pressing) = match self.books(worker) {
            Some(mut state) => {
                // not where there was an answer: the client may have used the id again since
                if state.crew.end(worker) {
                    state.hub.finish(session, id);
                }
                (state.hub.has_ready(), state.hub.has_to_park_now())
            }
            None => {
                drop(instance);
                return false;
            }
        };
        unflushed.add(connection);
        if unflushed.is_due(more) {
            self.flush_all(unflushed);
        }
        // after the answer: nobody waits for the reset
        self.runtime.give_back(instance);
        if pressing {
            self.park_one();
        }
        true
    }

    fn run_job(&self, answering: Answering<'_>, job: Job) -> Outcome {
        let Answering { connection, worker } = answering;
        let queued = job.enqueued.elapsed();
        // shared, since the job takes it along when it has to wait
        let frame = job.frame.clone();
        let envelope = match decode_client(&frame) {
            Ok(envelope) => envelope,
            Err(e) => {
                let (id, error, closes) = match refuse(&e) {
                    Action::Close(id, error) => (id, error, true),
                    Action::Refuse(id, error) => (id, error, false),
                    _ => return Outcome::Answered(None),
                };
                if !self.finish(answering, job.id) {
                    return Outcome::Answered(None);
                }
                self.runtime.observer.record_error(error.code);
                connection.send(id, &SidecarMessage::Error(error));
                if closes {
                    self.dismiss(connection);
                }
                return Outcome::Answered(None);
            }
        };
        let (session, id) = (job.session, job.id);
        let timeout = match &envelope.message {
            ClientMessage::Execute(request) => {
                execution::narrow_timeout(self.runtime.config.timeout_ms, request.timeout_ms)
            }
            _ => self.compile_timeout(),
        };
        let mut register = |control: &Arc<RunControl>| {
            let mut state = self.lock();
            if state.crew.is_retired(worker) {
                end_at_once(control);
                return;
            }
            state.hub.register(session, id, control);
            state.crew.runs(worker, control, (timeout, Duration::ZERO));
        };
        match envelope.message {
            ClientMessage::Execute(request) => self.execute(answering, &job, request, queued, &mut register),
            ClientMessage::Resume(resume) => self.resume(answering, job, &resume),
            ClientMessage::Precompile(request) => {
                let started = Instant::now();
                match self.runtime.compile(request.source, request.suspend_mode, self.compile_timeout(), &mut register)
                {
                    Ok(found) => {
                        let handle = self.runtime.handle(&found.handler);
                        let message = Compiled {
                            handler: &handle,
                            capabilities: found.handler.capabilities.iter().map(|need| &*need.token).collect(),
                            suspend_mode: found.handler.suspend_mode,
                            cache_hit: found.cache_hit,
                            compilation_time_us: started.elapsed().as_micros() as u64,
                        };
                        self.reply(answering, id, &SidecarMessage::Compiled(message));
                    }
                    Err(error) => self.answer_failure(answering, id, Kind::Precompile, queued, error),
                }
                Outcome::Answered(None)
            }
            ClientMessage::Check(request) => {
                match self.runtime.compile(request.source, None, self.compile_timeout(), &mut register) {
                    Ok(found) => {
                        let capabilities = found.handler.capabilities.iter().map(|need| &*need.token).collect();
                        let suspend_mode = found.handler.suspend_mode;
                        self.reply(answering, id, &SidecarMessage::Checked(Checked { capabilities, suspend_mode }));
                    }
                    Err(error) => self.answer_failure(answering, id, Kind::Check, queued, error),
                }
                Outcome::Answered(None)
            }
            ClientMessage::CreateState(request) => self.create_state(answering, &job, &request),
            ClientMessage::PatchState(request) => self.patch_state(answering, &job, &request),
            ClientMessage::SnapshotState(request) => self.snapshot_state(answering, &job, &request),
            ClientMessage::DisposeState(request) => self.dispose_state(answering, &job, &request),
            ClientMessage::OpenArena(request) => self.open_arena(answering, &job, request),
            _ => {
                let error = super::session::protocol_error("this kind of request is not known here".into());
                self.answer_failure(answering, id, Kind::Ping, queued, error);
                Outcome::Answered(None)
            }
        }
    }

    fn compile_timeout(&self) -> Option<Duration> {
        let ms = self.runtime.config.timeout_ms;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    fn execute(
        &self,
        answering: Answering<'_>,
        job: &Job,
        request: Execute<'_>,
        queued: Duration,
        register: Register<'_>,
    ) -> Outcome {
        let (session, id) = (job.session, job.id);
        let Shared { state, args, scope } = match self.shared(session, &request) {
            Ok(shared) => shared,
            Err(error) => {
                self.answer_failure(answering, id, Kind::Execute, queued, error);
                return Outcome::Answered(None);
            }
        };
        let mut request = request;
        request.args = args.as_deref().or(request.args);
        request.scope = scope.as_deref().or(request.scope);
        let (report, progress) = self.runtime.execute(&request, state, queued, register);
        let lent = self.arenas.lent(session.0, &request.regions);
        let turn = Turn::First(job.number, job.enqueued, &request);
        self.conclude(answering, (session, id), (report, lent), progress, turn)
    }

    fn resume(&self, answering: Answering<'_>, job: Job, resume: &Resume<'_>) -> Outcome {
        let worker = answering.worker;
        let queued = job.enqueued.elapsed();
        let (session, id) = (job.session, job.id);
        let inline = !matches!(resume.resolution, Resolution::Value(None));
        let fetched = self.arenas.fetch(session.0, "value", resume.regions.value.as_ref(), inline);
        let (fetched, lent) = (fetched.as_ref().map(Option::as_deref), self.arenas.lent(session.0, &resume.regions));
        let answer = fetched.map_err(Clone::clone).and_then(|fetched| {
            resolution_bytes(&fetched.map_or(resume.resolution, |bytes| Resolution::Value(Some(bytes))))
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.answer_failure(answering, id, Kind::Resume, queued, error);
                return Outcome::Answered(None);
            }
        };
        let taken = match resume.suspension.parse::<SuspensionId>() {
            Ok(suspension) => match self.books(worker) {
                Some(mut state) => {
                    let taken = state.hub.take(suspension, job);
                    match &taken {
                        Taken::Run { key, .. } => state.crew.resumes(worker, *key),
                        // it is in the hub now, and no work of this worker
                        Taken::Waits => {
                            state.crew.end(worker);
                        }
                        Taken::Unknown(_) => {}
                    }
                    (suspension, taken)
                }
                None => return Outcome::Answered(None),
            },
            Err(_) => return self.refuse_resume(answering, id, queued),
        };
        match taken {
            (_, Taken::Waits) => Outcome::Waits,
            (_, Taken::Unknown(_)) => self.refuse_resume(answering, id, queued),
            (suspension, Taken::Run { key, execution }) => {
                self.runtime.observer.record_suspension(SuspensionEvent::Resumed);
                let budget = execution.budget();
                let mut register = |control: &Arc<RunControl>| {
                    let mut state = self.lock();
                    if state.crew.is_retired(worker) {
                        end_at_once(control);
                        return;
                    }
                    state.hub.register_resumed(key, session, id, control);
                    state.crew.runs(worker, control, budget);
                };
                let (report, progress) =
                    self.runtime.resume(*execution, suspension, answer.as_answer(), queued, &mut register);
                self.conclude(answering, (session, id), (report, lent), progress, Turn::Resumed(key))
            }
        }
    }

    fn refuse_resume(&self, answering: Answering<'_>, id: RequestId, queued: Duration) -> Outcome {
        self.runtime.observer.record_suspension(SuspensionEvent::Refused);
        self.answer_failure(answering, id, Kind::Resume, queued, execution::no_such_suspension());
        Outcome::Answered(None)
    }

    /// Puts a suspended execution into the hub, then answers: the client may resume the moment that it has the answer.
    fn conclude(
        &self,
        answering: Answering<'_>,
        (session, id): (SessionId, RequestId),
        (mut report, mut lent): (Report, Lent),
        progress: Progress,
        turn: Turn<'_>,
    ) -> Outcome {
        let now = Instant::now();
        let instance = match progress {
            Progress::Suspended(execution) => {
                let Some(mut state) = self.books(answering.worker) else {
                    return Outcome::Answered(execution.into_instance());
                };
                let kept = match turn {
                    Turn::First(number, enqueued, request) => {
                        let about = About::new(number, enqueued, request, &*execution);
                        state.hub.suspend(session, about, execution, now)
                    }
                    Turn::Resumed(key) => state.hub.put_back(key, execution, now),
                };
                if kept.is_ok() {
                    // in the same breath: nobody may take the execution for one that this worker still has
                    state.answers(answering.worker, session, id);
                }
                drop(state);
                match kept {
                    Ok(()) => {
                        self.runtime.observer.record_suspension(SuspensionEvent::Created);
                        None
                    }
                    Err(NotKept::Gone(execution)) => {
                        report = report.into_failure(execution::cancelled());
                        execution.into_instance()
                    }
                    Err(NotKept::Limit { execution, resource, limit, count }) => {
                        report = report.into_failure(WireError::resource_limit(resource, limit, count));
                        execution.into_instance()
                    }
                }
            }
            Progress::Finished(instance) => {
                if let (Turn::Resumed(key), Some(mut state)) = (turn, self.books(answering.worker)) {
                    state.hub.end(key);
                }
                instance
            }
        };
        // only when the answer is this worker's: a request that was given up is answered, and the place is the client's again
        if self.finish(answering, id) {
            report.share(&mut lent);
            answering.connection.append(|out, max| report.encode(id, max, out));
        }
        Outcome::Answered(instance)
    }

    pub(super) fn answer_failure(
        &self,
        answering: Answering<'_>,
        id: RequestId,
        kind: Kind,
        queued: Duration,
        error: WireError,
    ) {
        self.runtime.observer.record_error(error.code);
        if matches!(kind, Kind::Execute | Kind::Resume) {
            if self.finish(answering, id) {
                let report = Totals::queued(queued).failure(error);
                answering.connection.append(|out, max| report.encode(id, max, out));
            }
        } else {
            self.reply(answering, id, &SidecarMessage::Error(error));
        }
    }

    /// Marks the request as answered, which ends the watch over this worker; false: somebody else has answered it.
    pub(super) fn finish(&self, Answering { connection, worker }: Answering<'_>, id: RequestId) -> bool {
        let Some(mut state) = self.books(worker) else { return false };
        state.answers(worker, connection.session, id);
        true
    }

    pub(super) fn reply(&self, answering: Answering<'_>, id: RequestId, message: &SidecarMessage<'_>) {
        if self.finish(answering, id) {
            answering.connection.send(id, message);
        }
    }
}

impl State {
    /// A worker's request is about to be answered. Whoever says so first frees the id: from then on the client may use it for
    /// another request, which a second word must not touch.
    fn answers(&mut self, worker: WorkerId, session: SessionId, id: RequestId) {
        if self.crew.answers(worker) {
            self.hub.finish(session, id);
        }
    }
}

/// For a guest that a worker is about to run although it was given up: what it does counts for nothing.
fn end_at_once(control: &RunControl) {
    control.arm();
    control.give_up();
    control.stop(StopCause::Cancelled);
}

/// Where an answer goes, and who gives it.
#[derive(Clone, Copy)]
pub(super) struct Answering<'a> {
    pub connection: &'a Connection,
    pub worker: WorkerId,
}

/// Which segment of its execution a report is of.
#[derive(Clone, Copy)]
enum Turn<'a> {
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
}

/// A client's answer to a call, as the guest takes it.
enum ResolutionBytes<'a> {
    Value(&'a [u8]),
    Failure(Vec<u8>),
}

impl ResolutionBytes<'_> {
    fn as_answer(&self) -> Answer<'_> {
        match self {
            Self::Value(bytes) => Answer::Value(bytes),
            Self::Failure(bytes) => Answer::Failure(bytes),
        }
    }
}

#[derive(Serialize)]
struct FailureFields<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

fn resolution_bytes<'a>(resolution: &Resolution<'a>) -> Result<ResolutionBytes<'a>, WireError> {
    match resolution {
        Resolution::Value(None) => Ok(ResolutionBytes::Value(payload::NIL)),
        Resolution::Value(Some(bytes)) => match payload::validate_shape(bytes) {
            Ok(()) => Ok(ResolutionBytes::Value(bytes)),
            Err(e) => Err(execution::not_a_payload("value", e)),
        },
        Resolution::Failure(failure) => {
            let fields = FailureFields { message: failure.message, name: failure.name, code: failure.code };
            rmp_serde::to_vec_named(&fields)
                .map(ResolutionBytes::Failure)
                .map_err(|e| WireError::new(ErrorCode::InternalError, e.to_string()))
        }
    }
}
