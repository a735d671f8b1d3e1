//! The books under a simulated server: clients, workers, instances, a housekeeper, a watchdog and a clock that one seed decides.
//!
//! Executions are tokens that count their own life, instances are controls that note who was stopped on them. After every step
//! the books have to agree with themselves. Nothing may be ended that nobody asked to end. When all is over nothing may be left:
//! every request of a session that is still there was answered exactly once, and every execution was dropped exactly once.
//! `NEXUS_SEED=n` replays one run, `NEXUS_SEEDS=n` runs so many.

mod doubles;
mod ends;
mod oracle;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

pub use doubles::FakeControl;
use doubles::{MAX_TOKEN_BYTES, Token};
use nexus_protocol::message::{Code, Execute};
use nexus_protocol::{ClientMessage, FrameDecoder};

use super::queue::LONG_RUN;
use super::turns::Standing;
use super::*;
use crate::random::Random;
use crate::runtime::Purpose;
use crate::server::crew::{Budget, Stuck, WorkerId};
use crate::share::Whose;
use crate::token::StopToken;

const SEEDS: u64 = 2_000;
const STEPS: usize = 300;
const MAX_RUNNING: usize = 3;
/// Those that are busy fill them before the instances are full.
const PROCESSORS: usize = 1;
/// One of these: with the first their bytes are too many before they are.
const MAX_SUSPENDED: [usize; 2] = [6, 2];
const MAX_QUEUED: usize = 5;
const MAX_SUSPENDED_BYTES: u64 = 4_500;
const MAX_QUEUE_TIME: Duration = Duration::from_millis(50);
const SUSPENSION_TIMEOUT: Duration = Duration::from_secs(3);

/// A job that a worker has, and what it has of an execution.
struct AtWork {
    job: Job<()>,
    run: RunId,
    token: Arc<StopToken>,
    resumed: Option<Resumed<Token>>,
    guest: Option<Arc<FakeControl>>,
    /// Others have answered in its place.
    given_up: bool,
    /// It goes on beside the others.
    is_beside: bool,
    /// Its guest was stopped, for it to begin again.
    is_put_back: bool,
    began: Instant,
}

struct World {
    rng: Random,
    hub: Hub<Token, ()>,
    now: Instant,
    frame: Arc<Incoming>,
    sessions: Vec<SessionId>,
    next_session: u64,
    /// Requests that wait for their answer.
    open: HashSet<(SessionId, RequestId)>,
    /// Numbers of executions, and requests, whose end somebody has asked for.
    to_end: HashSet<u64>,
    requests_to_end: HashSet<(SessionId, RequestId)>,
    /// Every suspension id that was ever given out, and to whom.
    given: Vec<(SessionId, SuspensionId)>,
    /// How often a suspension brought its execution back.
    resumed: HashMap<SuspensionId, u32>,
    /// When the last segment of an execution ended.
    suspended_at: HashMap<u64, Instant>,
    /// When runs of a session ended that were not brief, and what they took.
    long_runs: Vec<(SessionId, Instant, Duration)>,
    /// Jobs that were read while they waited.
    read: HashSet<u64>,
    free_workers: Vec<WorkerId>,
    /// Most recently used last, as in the pool.
    instances: Vec<Arc<FakeControl>>,
    at_work: Vec<AtWork>,
    parking: Vec<(u64, Box<Token>)>,
    alive: Rc<Cell<i64>>,
}

fn frame() -> Arc<Incoming> {
    let mut bytes = Vec::new();
    ClientMessage::Ping.encode(RequestId(1), 1 << 20, &mut bytes).unwrap();
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&bytes);
    Incoming::uncounted(decoder.next_owned().unwrap().unwrap())
}

fn limits(max_running: usize, max_suspended: usize) -> HubLimits {
    HubLimits {
        max_running,
        max_running_each: max_running.div_ceil(2),
        processors: PROCESSORS,
        keeps_last: true,
        max_queued: MAX_QUEUED,
        max_suspended,
        max_suspended_bytes: MAX_SUSPENDED_BYTES,
        max_in_flight: 4,
        max_queue_time: Some(MAX_QUEUE_TIME),
        suspension_timeout: Some(SUSPENSION_TIMEOUT),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let max_suspended = MAX_SUSPENDED[seed as usize % 2];
        let mut hub: Hub<Token, ()> = Hub::new(limits(MAX_RUNNING, max_suspended));
        let free_workers = (0..=MAX_RUNNING).map(|_| hub.crew.hire()).collect();
        Self {
            rng: Random(seed),
            hub,
            now: Instant::now(),
            frame: frame(),
            sessions: Vec::new(),
            next_session: 0,
            open: HashSet::new(),
            to_end: HashSet::new(),
            requests_to_end: HashSet::new(),
            given: Vec::new(),
            resumed: HashMap::new(),
            suspended_at: HashMap::new(),
            long_runs: Vec::new(),
            read: HashSet::new(),
            free_workers,
            instances: (0..MAX_RUNNING).map(|_| Arc::default()).collect(),
            at_work: Vec::new(),
            parking: Vec::new(),
            alive: Rc::default(),
        }
    }

    fn is_answered(&mut self, session: SessionId, id: RequestId) {
        let was_open = self.open.remove(&(session, id));
        self.requests_to_end.remove(&(session, id));
        assert!(was_open || !self.sessions.contains(&session), "answered twice, or never asked");
    }

    fn answer_unrun(&mut self, job: &Job<()>) {
        self.hub.answer_unrun(job);
        self.is_answered(job.session, job.id);
    }

    fn a_session(&mut self) -> Option<SessionId> {
        let at = self.rng.below(self.sessions.len().max(1));
        self.sessions.get(at).copied()
    }

    fn calls(&mut self, session: SessionId) -> Vec<Outstanding> {
        let count = 1 + self.rng.below(3);
        let calls: Vec<Outstanding> = (0..count)
            .map(|number| {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.rng.next().to_le_bytes());
                Outstanding { id: SuspensionId(id), number: number as u32 }
            })
            .collect();
        self.given.extend(calls.iter().map(|o| (session, o.id)));
        calls
    }

    // ---- what may happen ----

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.next() % 40);
        match self.rng.below(20) {
            0 => self.connect(),
            1 if self.rng.chance(30) => self.disconnect(),
            2..=5 => self.request(),
            6 | 7 => self.start_job(),
            8 | 9 => self.go_on(),
            10 | 11 => self.end_job(),
            12 => self.cancel(),
            13 => self.expire(),
            14 => self.begin_parking(),
            15 if self.rng.chance(30) => self.retire(),
            15 => self.end_trial(),
            16 if self.rng.chance(20) => self.leave(),
            17 if self.rng.chance(20) => {
                let max_running = 1 + self.rng.below(MAX_RUNNING);
                self.hub.set_limits(limits(max_running, self.hub.limits.max_suspended));
            }
            _ => self.end_parking(),
        }
    }

    fn connect(&mut self) {
        if self.sessions.len() < 3 {
            let session = SessionId(self.next_session);
            self.next_session += 1;
            self.sessions.push(session);
            self.hub.open_session(session);
        }
    }

    fn disconnect(&mut self) {
        let Some(session) = self.a_session() else { return };
        self.sessions.retain(|open| *open != session);
        let left = self.hub.close_session(session);
        // the housekeeper does it a part at a time
        left.entries.chunks(2).for_each(|some| drop(self.hub.end_entries(some)));
        self.open.retain(|(of, _)| *of != session);
    }

    /// A client of a service that says goodbye.
    fn leave(&mut self) {
        let Some(session) = self.a_session() else { return };
        self.hub.leave(session);
        if self.rng.chance(50) {
            self.to_end.extend(self.hub.entries.iter().filter(|(_, e)| e.session == session).map(|(key, _)| *key));
            self.requests_to_end.extend(self.open.iter().filter(|(of, _)| *of == session));
            let Closed { executions, jobs } = self.hub.cancel_session(session);
            drop(executions);
            for job in jobs {
                self.answer_unrun(&job);
            }
        }
    }

    fn request(&mut self) {
        let Some(session) = self.a_session() else { return };
        // ids are used again as soon as they are answered
        let id = RequestId(1 + self.rng.below(8) as u32);
        let kind = if self.rng.chance(60) { Kind::Resume } else { Kind::Execute };
        // mostly one that may be there, of whoever
        let wanted = self.given.len().checked_sub(1).map(|last| self.given[last - self.rng.below(last.min(12) + 1)].1);
        let suspension = (kind == Kind::Resume && self.rng.chance(90)).then_some(wanted).flatten();
        let frame = self.frame.clone();
        let job = Job {
            number: 0,
            session,
            id,
            kind,
            suspension,
            frame,
            enqueued: self.now,
            due: Due::Unread,
            done: 0,
            connection: (),
        };
        let (place, addressee) = (self.has_place(session), self.addressee(session, suspension));
        match self.hub.enqueue(job) {
            Ok(()) => {
                let waits = self.hub.sessions[&session].requests[&id];
                assert_eq!(waits.at, addressee.map_or(Request::Queued, Request::Mailed), "where a resume waits");
                assert!(place, "there was no place");
                assert!(self.open.insert((session, id)), "an id is in use twice");
            }
            Err((_, Refusal::DuplicateId)) => assert!(self.open.contains(&(session, id))),
            Err((_, Refusal::Overloaded(full))) => {
                assert!(!place || full.whose == Whose::Own, "there was a place");
            }
            Err((_, Refusal::Draining)) => {}
        }
    }

    fn start_job(&mut self) {
        let Some(worker) = self.free_workers.pop() else { return };
        let ready = self.hub.has_ready(self.now);
        let expected: Vec<SessionId> =
            self.sessions.iter().copied().filter(|session| self.may_begin(*session)).collect();
        let Some(Next { job, run, token, arrival, resumed, .. }) = self.hub.next(worker, self.now) else {
            assert!(!ready, "something was ready");
            return self.free_workers.push(worker);
        };
        assert!(ready);
        assert_eq!(token.check(), Ok(()), "a stop of an earlier request");
        assert_eq!(arrival.since + arrival.waited, self.now);
        let session = job.session;
        assert!(expected.contains(&session), "it is not its turn");
        let taken = match resumed {
            Some(resumed) => Some((resumed, arrival)),
            None if job.kind == Kind::Resume => {
                // its frame did not say at once which suspension it is for
                if self.rng.chance(5) {
                    self.disconnect();
                }
                let wanted = self.given.last().map_or(SuspensionId([7; 16]), |(_, id)| *id);
                let id = job.suspension.unwrap_or(wanted);
                match self.hub.take(id, job.clone(), run, self.now) {
                    Taken::Run(resumed, arrival) => Some((resumed, arrival)),
                    Taken::Waits => return self.free_workers.push(worker),
                    Taken::Unknown(_) => {
                        assert!(self.hub.answer(run) && !self.hub.answer(run));
                        self.is_answered(session, job.id);
                        assert!(!self.hub.end_run(run));
                        return self.free_workers.push(worker);
                    }
                }
            }
            None => None,
        };
        let resumed = taken.map(|(resumed, arrival)| {
            let Resumed { id, execution, .. } = &resumed;
            assert!(self.given.contains(&(session, *id)), "it belongs to another");
            assert!(execution.outstanding.iter().any(|call| call.id == *id));
            let free = self.suspended_at[&execution.number];
            assert!(arrival.since >= free.max(job.enqueued), "it is charged for time in which it ran");
            resumed
        });
        self.at_work.push(AtWork {
            began: self.now,
            job,
            run,
            token,
            resumed,
            guest: None,
            given_up: false,
            is_beside: false,
            is_put_back: false,
        });
    }

    /// A worker enters or leaves a guest.
    fn go_on(&mut self) {
        let at = self.rng.below(self.at_work.len().max(1));
        let Some(work) = self.at_work.get_mut(at) else { return };
        match work.guest.take() {
            None => {
                let Some(instance) = self.instances.pop() else { return };
                let purpose = if self.rng.chance(50) { Purpose::Compile } else { Purpose::Execute };
                let armed = self.hub.crew.arm(work.run, instance.clone(), purpose, Budget::default(), self.now);
                assert_eq!(armed, !work.given_up);
                work.guest = Some(instance);
            }
            Some(instance) => {
                self.leave_guest(at, &instance);
                self.hub.crew.disarm(self.at_work[at].run);
                self.instances.push(instance);
            }
        }
    }

    /// Whoever was stopped was meant.
    fn leave_guest(&self, at: usize, instance: &FakeControl) {
        let work = &self.at_work[at];
        let key = work.resumed.as_ref().map_or(work.job.number, |resumed| resumed.key);
        let is_meant = work.given_up
            || work.is_put_back
            || !self.sessions.contains(&work.job.session)
            || self.to_end.contains(&key)
            || self.requests_to_end.contains(&(work.job.session, work.job.id));
        assert!(is_meant || !instance.stopped.load(Ordering::Relaxed), "stopped instead of somebody else");
        assert!(is_meant || work.token.check().is_ok(), "stopped instead of somebody else");
    }

    fn end_job(&mut self) {
        if self.at_work.is_empty() {
            return;
        }
        let at = self.rng.below(self.at_work.len());
        if let Some(instance) = self.at_work[at].guest.take() {
            self.leave_guest(at, &instance);
            self.instances.push(instance);
        }
        let AtWork { job, run, resumed, given_up, is_put_back, .. } = self.at_work.remove(at);
        if self.rng.chance(80) {
            // what its guest made of it before it was stopped may be whole
            let goes_on = self.hub.crew.get(run).is_some_and(|run| run.ending().is_none());
            let begins_again = self.hub.begin_again(&job, run, self.now);
            assert_eq!(begins_again, is_put_back && goes_on && !given_up, "whether it begins again");
            if begins_again {
                assert!(resumed.is_none(), "what it resumes would be lost");
                return self.free_workers.push(run.worker());
            }
        }
        let suspends = self.rng.chance(60);
        let mut answered = false;
        let cpu = Duration::from_micros([0, 9_999, 10_000, 25_000][self.rng.below(4)]);
        self.hub.used(run, cpu, || self.now);
        if !given_up && cpu >= LONG_RUN {
            self.long_runs.push((job.session, self.now, cpu));
        }
        match resumed {
            None if suspends && job.kind == Kind::Execute => {
                let outstanding = self.calls(job.session);
                self.alive.set(self.alive.get() + 1);
                let new = outstanding.len();
                let token = Box::new(Token {
                    number: job.number,
                    outstanding,
                    new,
                    grown: 0,
                    estimated: job.number.is_multiple_of(2),
                    parked: false,
                    alive: self.alive.clone(),
                });
                let request = Execute::new(Code::Source(""));
                let about = About::new(job.number, job.enqueued, &request, &*token);
                let place = self.may_suspend(job.session, job.number);
                let mut kept = self.hub.suspend(run, about, token, self.now);
                self.is_as_it_may(place, &kept);
                while let Err(NotKept::NoRoom { mut execution, .. }) = kept {
                    assert!(!self.hub.entries.contains_key(&job.number));
                    execution.is_made_smaller();
                    let about = About::new(job.number, job.enqueued, &request, &*execution);
                    kept = self.hub.suspend(run, about, execution, self.now);
                    self.is_as_it_may(place, &kept);
                }
                answered = kept.is_ok();
                self.suspended_at.insert(job.number, self.now);
            }
            None => {}
            Some(Resumed { key, id, execution }) if self.rng.chance(10) => {
                // what it brought makes no sense: the suspension can be resumed again
                let ended = self.hub.undo(run, key, id, execution, self.now);
                let is_there = self.hub.by_suspension.get(&id).is_some_and(|place| place.key == key);
                assert_eq!(ended.is_none(), is_there, "whether it can be resumed again");
                self.suspended_at.insert(key, self.now);
            }
            Some(Resumed { key, id, mut execution }) => {
                execution.parked = false;
                let times = self.resumed.entry(id).or_default();
                *times += 1;
                assert_eq!(*times, 1, "a suspension was used twice");
                execution.outstanding.retain(|call| call.id != id);
                execution.new = 0;
                if suspends || !execution.outstanding.is_empty() {
                    if suspends {
                        let calls = self.calls(job.session);
                        execution.new = calls.len();
                        execution.outstanding.extend(calls);
                        execution.estimated = !key.is_multiple_of(3);
                    }
                    let place = self.may_suspend(job.session, key);
                    let mut kept = self.hub.put_back(run, key, execution, self.now);
                    self.is_as_it_may(place, &kept);
                    while let Err(NotKept::NoRoom { mut execution, .. }) = kept {
                        assert!(self.hub.entries.contains_key(&key), "the run has it still");
                        execution.is_made_smaller();
                        kept = self.hub.put_back(run, key, execution, self.now);
                        self.is_as_it_may(place, &kept);
                    }
                    answered = kept.is_ok();
                    self.suspended_at.insert(key, self.now);
                }
            }
        }
        assert!(!(given_up && answered), "a run that was given up has answered");
        if !answered {
            answered = self.hub.answer(run);
        }
        assert_eq!(answered, !given_up);
        assert!(!self.hub.answer(run), "answered twice");
        if given_up {
            self.hub.crew.came_back(run.worker());
            let hired = self.hub.crew.hire();
            // its place may be filled again, and nothing that is said of the old run reaches the new one
            assert!(self.hub.crew.is_retired(run));
            self.free_workers.push(hired);
        } else {
            self.is_answered(job.session, job.id);
            assert!(!self.hub.end_run(run));
            self.free_workers.push(run.worker());
        }
    }

    /// The watchdog gives a worker up.
    fn retire(&mut self) {
        let at = self.rng.below(self.at_work.len().max(1));
        let Some(work) = self.at_work.get_mut(at).filter(|work| !work.given_up) else { return };
        let retired = self.hub.retire(work.run, Stuck::InHost).expect("it is at work");
        assert_eq!((retired.session, retired.id), (work.job.session, work.job.id));
        work.given_up = true;
        let (session, id) = (work.job.session, work.job.id);
        self.is_answered(session, id);
    }

    fn expire(&mut self) {
        let is_due = |entry: &Entry<Token, ()>| {
            let waits = matches!(entry.holder, Holder::Suspended(_)) && entry.mailbox.is_empty();
            waits && entry.expires.is_some_and(|at| at <= self.now)
        };
        let due: HashSet<u64> = self.hub.entries.iter().filter(|(_, e)| is_due(e)).map(|(key, _)| *key).collect();
        let free = |key: &u64| self.hub.entries.get(key).map(|entry| entry.free_since);
        let keys: HashMap<RequestId, Option<Instant>> = self
            .hub
            .entries
            .iter()
            .flat_map(|(key, entry)| entry.mailbox.iter().map(move |job| (job.id, free(key))))
            .collect();
        let Expired { executions, overdue, unread } = self.hub.expire(self.now);
        let expired: HashSet<u64> = executions.iter().map(|execution| execution.number).collect();
        assert_eq!(expired, due, "what is due expires, and nothing else");
        drop(executions);
        for job in overdue {
            let since = keys.get(&job.id).copied().flatten().map_or(job.enqueued, |free| free.max(job.enqueued));
            let by_own_time = matches!(job.due, Due::At(due) if due <= self.now);
            assert!(
                self.now > since.min(self.now) + MAX_QUEUE_TIME
                    || self.now > job.enqueued + MAX_QUEUE_TIME
                    || by_own_time
            );
            self.answer_unrun(&job);
        }
        for job in unread {
            assert!(self.read.insert(job.number), "a job is read twice");
            if self.rng.chance(80) {
                let due = job.enqueued + Duration::from_millis(self.rng.below(100) as u64);
                self.hub.wait_until(&HashMap::from([(job.number, due)]));
            }
        }
        // nothing that could have gone on has waited for too long
        for job in self.hub.queued_jobs() {
            assert!(self.now <= job.enqueued + MAX_QUEUE_TIME, "it waits for ever");
        }
        for entry in self.hub.entries.values().filter(|entry| entry.announced) {
            assert!(entry.mailbox.iter().all(|job| self.now <= job.enqueued.max(entry.free_since) + MAX_QUEUE_TIME));
        }
    }

    fn begin_parking(&mut self) {
        self.now += Duration::from_secs(1);
        self.parking.extend(self.hub.next_to_park(self.now));
    }

    fn end_parking(&mut self) {
        let Some((key, mut token)) = self.parking.pop() else { return };
        self.suspended_at.insert(key, self.now);
        if self.rng.chance(20) {
            drop(self.hub.stay_live(key, token, self.now));
            return;
        }
        token.parked = true;
        drop(self.hub.parked(key, token, self.now));
    }

    /// Lets everything come to its end.
    fn wind_down(&mut self) {
        self.hub.drain();
        for _ in 0..1_000 {
            while self.hub.has_ready(self.now) && !self.free_workers.is_empty() {
                self.start_job();
                self.check();
            }
            self.end_job();
            self.end_parking();
            self.check();
            if self.hub.is_quiet() && self.at_work.is_empty() {
                break;
            }
        }
        self.now += Duration::from_secs(10);
        if self.rng.chance(50) {
            drop(self.hub.cancel_all());
        } else {
            self.expire();
        }
        assert!(self.open.is_empty(), "unanswered: {:?}", self.open);
        assert_eq!(self.alive.get(), 0, "an execution is left");
        let hub = &self.hub;
        assert_eq!((hub.queued(), hub.running(), hub.suspended(), hub.suspensions()), (0, 0, 0, 0));
        assert_eq!((hub.suspended_bytes(), hub.parked_count(), hub.parked_suspensions()), (0, 0, 0));
        assert!(hub.entries.is_empty() && hub.expiring.is_empty() && hub.turns.is_empty());
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.check();
    }
    world.wind_down();
}

#[test]
fn whatever_happens_the_books_agree_and_nothing_is_left() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("NEXUS_SEED") {
        return run(seed);
    }
    for seed in 0..number("NEXUS_SEEDS").unwrap_or(SEEDS) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("replay this run with NEXUS_SEED={seed}");
        }
    }
}
