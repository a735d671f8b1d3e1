//! The books under a simulated server: clients, workers, a housekeeper and a clock that one seed decides.
//!
//! Executions are tokens that count their own life. After every step the books have to agree with themselves, and when all is
//! over nothing may be left in them: every request of a session that is still there was answered exactly once, and every
//! execution was dropped exactly once. `NEXUS_SEED=n` replays one run, `NEXUS_SEEDS=n` runs so many.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use nexus_protocol::message::{Code, Execute};
use nexus_protocol::{ClientMessage, FrameDecoder, Shared};

use super::*;
use crate::engine::context::NewCall;
use crate::random::Random;

const SEEDS: u64 = 2_000;
const STEPS: usize = 300;
const MAX_RUNNING: usize = 3;
const MAX_SUSPENDED: usize = 6;
const MAX_QUEUE_TIME: Duration = Duration::from_millis(50);

/// An execution without a guest.
#[derive(Debug)]
struct Token {
    outstanding: Vec<Outstanding>,
    alive: Rc<Cell<i64>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

impl Held for Token {
    fn outstanding(&self) -> &[Outstanding] {
        &self.outstanding
    }

    fn held_bytes(&mut self) -> u64 {
        1000 + self.outstanding.len() as u64
    }

    fn spent(&self) -> (Duration, u64) {
        (Duration::ZERO, 0)
    }
}

/// A job that a worker has, and what it has of an execution.
struct AtWork {
    job: Job,
    resumed: Option<(u64, Box<Token>)>,
}

struct World {
    rng: Random,
    hub: Hub<Token>,
    now: Instant,
    frame: Arc<Incoming>,
    sessions: Vec<(SessionId, Arc<Connection>)>,
    next_session: u64,
    next_request: u32,
    /// Of requests that were taken in: how often they were answered.
    answers: HashMap<(SessionId, RequestId), u32>,
    /// Every suspension id that was ever given out, and to whom.
    given: Vec<(SessionId, SuspensionId)>,
    /// How often a suspension brought its execution back.
    resumed: HashMap<SuspensionId, u32>,
    /// Jobs that were read while they waited.
    read: HashSet<u64>,
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

impl World {
    fn new(seed: u64) -> Self {
        let limits = HubLimits {
            max_running: MAX_RUNNING,
            max_queued: 5,
            max_queued_bytes: 1 << 20,
            max_suspended: MAX_SUSPENDED,
            max_suspended_bytes: 4_500,
            max_in_flight: 4,
            max_queue_time: Some(MAX_QUEUE_TIME),
            suspension_timeout: Some(Duration::from_secs(3)),
        };
        Self {
            rng: Random(seed),
            hub: Hub::new(limits),
            now: Instant::now(),
            frame: frame(),
            sessions: Vec::new(),
            next_session: 0,
            next_request: 1,
            answers: HashMap::new(),
            given: Vec::new(),
            resumed: HashMap::new(),
            read: HashSet::new(),
            at_work: Vec::new(),
            parking: Vec::new(),
            alive: Rc::default(),
        }
    }

    fn answer(&mut self, session: SessionId, id: RequestId) {
        self.hub.finish(session, id);
        if let Some(times) = self.answers.get_mut(&(session, id)) {
            *times += 1;
        }
    }

    fn token(&mut self, outstanding: Vec<Outstanding>) -> Box<Token> {
        self.alive.set(self.alive.get() + 1);
        Box::new(Token { outstanding, alive: self.alive.clone() })
    }

    fn new_calls(&mut self, session: SessionId) -> Vec<Outstanding> {
        let count = 1 + self.rng.below(3);
        let calls: Vec<Outstanding> = (0..count)
            .map(|number| {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.rng.next().to_le_bytes());
                let call = NewCall {
                    extension: "a".into(),
                    method: "b".into(),
                    args: Shared::new(vec![0x90]),
                    number: number as u32,
                };
                Outstanding { id: SuspensionId(id), call }
            })
            .collect();
        self.given.extend(calls.iter().map(|o| (session, o.id)));
        calls
    }

    // ---- what may happen ----

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.next() % 40);
        match self.rng.below(14) {
            0 => self.connect(),
            1 if self.rng.chance(30) => self.disconnect(),
            2..=5 => self.request(),
            6 | 7 => self.start_job(),
            8 | 9 => self.end_job(),
            10 => self.cancel(),
            11 => self.expire(),
            12 => self.begin_parking(),
            _ => self.end_parking(),
        }
    }

    fn connect(&mut self) {
        if self.sessions.len() < 3 {
            let session = SessionId(self.next_session);
            self.next_session += 1;
            let (stream, _) = UnixStream::pair().unwrap();
            self.sessions.push((session, Arc::new(Connection::new(session, stream, 1 << 20).unwrap())));
            self.hub.open_session(session);
        }
    }

    fn disconnect(&mut self) {
        if !self.sessions.is_empty() {
            let at = self.rng.below(self.sessions.len());
            let (session, _) = self.sessions.remove(at);
            let left = self.hub.close_session(session);
            // the housekeeper does it a part at a time
            left.entries.chunks(2).for_each(|some| drop(self.hub.end_entries(some)));
            self.answers.retain(|(s, _), _| *s != session);
        }
    }

    fn request(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let at = self.rng.below(self.sessions.len());
        let (session, connection) = self.sessions[at].clone();
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let kind = if self.rng.chance(50) { Kind::Resume } else { Kind::Execute };
        let frame = self.frame.clone();
        let job = Job { number: 0, session, id, kind, frame, enqueued: self.now, due: Due::Unread, connection };
        if self.hub.enqueue(job).is_ok() {
            self.answers.insert((session, id), 0);
        }
    }

    fn start_job(&mut self) {
        let Some(job) = self.hub.next_job() else { return };
        if job.kind == Kind::Execute {
            self.at_work.push(AtWork { job, resumed: None });
            return;
        }
        // mostly one that may be there, of whoever
        let wanted = self.given.len().checked_sub(1).map(|last| self.given[last - self.rng.below(last.min(12) + 1)]);
        let suspension = wanted.map_or(SuspensionId([7; 16]), |(_, id)| id);
        let owner = wanted.map(|(owner, _)| owner);
        let session = job.session;
        if self.rng.chance(5) {
            self.disconnect();
        }
        match self.hub.take(suspension, job.clone_for_test()) {
            Taken::Waits => {}
            Taken::Unknown(job) => self.answer(job.session, job.id),
            Taken::Run { key, mut execution } => {
                assert_eq!(owner, Some(session), "it belongs to another");
                let times = self.resumed.entry(suspension).or_default();
                *times += 1;
                assert_eq!(*times, 1, "a suspension was used twice");
                assert!(execution.outstanding.iter().any(|o| o.id == suspension));
                execution.outstanding.retain(|o| o.id != suspension);
                self.at_work.push(AtWork { job, resumed: Some((key, execution)) });
            }
        }
    }

    fn end_job(&mut self) {
        if self.at_work.is_empty() {
            return;
        }
        let at = self.rng.below(self.at_work.len());
        let AtWork { job, resumed } = self.at_work.remove(at);
        let (session, id) = (job.session, job.id);
        let suspends = self.rng.chance(60);
        match resumed {
            None if suspends => {
                let calls = self.new_calls(session);
                let token = self.token(calls);
                let request = Execute::new(Code::Source(""));
                let about = About::new(job.number, job.enqueued, &request, &*token);
                drop(self.hub.suspend(session, about, token, self.now));
            }
            None => {}
            Some((key, mut token)) => {
                if suspends || !token.outstanding.is_empty() {
                    if suspends {
                        let calls = self.new_calls(session);
                        token.outstanding.extend(calls);
                    }
                    drop(self.hub.put_back(key, token, self.now));
                } else {
                    self.hub.end(key);
                }
            }
        }
        self.answer(session, id);
    }

    fn cancel(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let at = self.rng.below(self.sessions.len());
        let session = self.sessions[at].0;
        let outcome = if self.rng.chance(50) || self.given.is_empty() {
            let id = RequestId(1 + self.rng.below(self.next_request as usize) as u32);
            self.hub.cancel_request(session, id)
        } else {
            let (owner, id) = self.given[self.rng.below(self.given.len())];
            let outcome = self.hub.cancel_suspension(session, id);
            assert!(owner == session || matches!(outcome, Cancelled::Nothing), "another's was cancelled");
            outcome
        };
        if let Cancelled::Job(job) = outcome {
            self.answer(job.session, job.id);
        }
    }

    fn expire(&mut self) {
        let Expired { executions, overdue, unread } = self.hub.expire(self.now);
        drop(executions);
        for job in overdue {
            assert!(self.now > job.enqueued + MAX_QUEUE_TIME || matches!(job.due, Due::At(due) if due <= self.now));
            self.answer(job.session, job.id);
        }
        for job in unread {
            assert!(self.read.insert(job.number), "a job is read twice");
            if self.rng.chance(80) {
                let due = job.enqueued + Duration::from_millis(self.rng.below(100) as u64);
                self.hub.wait_until(&HashMap::from([(job.number, due)]));
            }
        }
    }

    fn begin_parking(&mut self) {
        self.now += Duration::from_secs(1);
        self.parking.extend(self.hub.next_to_park(self.now));
    }

    fn end_parking(&mut self) {
        let Some((key, token)) = self.parking.pop() else { return };
        if self.rng.chance(20) {
            drop(self.hub.stay_live(key, token, self.now));
            return;
        }
        if let ParkingEnd::NoRoom(token) = self.hub.parked(key, token) {
            drop(self.hub.stay_live(key, token, self.now));
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        let hub = &self.hub;
        assert_eq!(hub.queued, hub.queued_jobs().count());
        assert_eq!(hub.queued_bytes, hub.queued * self.frame.len());
        assert_eq!(hub.running, self.at_work.len(), "running");
        assert!(hub.running <= MAX_RUNNING && hub.suspended <= MAX_SUSPENDED);
        let held = hub.entries.values().filter(|e| matches!(e.holder, Holder::Suspended(_))).count();
        assert_eq!(hub.suspended, held + self.parking.len(), "suspended");
        assert_eq!(hub.parking, self.parking.len());
        let resumed = self.at_work.iter().filter(|w| w.resumed.is_some()).count();
        assert_eq!(self.alive.get(), (held + self.parking.len() + resumed) as i64, "executions");
        for (session, _) in &self.sessions {
            let open = self.answers.iter().filter(|((s, _), times)| s == session && **times == 0).count();
            assert_eq!(hub.in_flight(*session), open, "in flight");
        }
        assert!(self.answers.values().all(|times| *times <= 1), "answered twice");
        for (id, key) in &hub.by_suspension {
            assert!(hub.entries.get(key).is_some_and(|e| e.ids.contains(id)));
        }
        let timed = hub.entries.iter().filter_map(|(key, entry)| entry.expires.map(|at| (at, *key)));
        assert_eq!(timed.collect::<BTreeSet<_>>(), hub.expiring, "times");
        let turns = |session| hub.turn.iter().filter(|turn| **turn == session).count();
        for (session, books) in &hub.sessions {
            assert_eq!(turns(*session), usize::from(!books.queue.is_empty()), "turns");
            let own = hub.entries.iter().filter(|(_, entry)| entry.session == *session).map(|(key, _)| *key);
            assert_eq!(own.collect::<HashSet<_>>(), books.entries, "entries of a session");
        }
        let gone = |session: &SessionId| !hub.sessions.contains_key(session);
        assert!(hub.closing.iter().all(|(session, requests)| gone(session) && !requests.is_empty()));
        assert!(hub.entries.values().all(|e| !gone(&e.session) || !matches!(e.holder, Holder::Suspended(_))));
    }

    /// Lets everything come to its end.
    fn wind_down(&mut self) {
        self.hub.drain();
        for _ in 0..1_000 {
            while self.hub.has_ready() {
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
        let unanswered: Vec<_> = self.answers.iter().filter(|(_, times)| **times != 1).collect();
        assert!(unanswered.is_empty(), "{unanswered:?}");
        assert_eq!(self.alive.get(), 0, "an execution is left");
        let hub = &self.hub;
        assert_eq!((hub.queued(), hub.running(), hub.suspended(), hub.suspensions()), (0, 0, 0, 0));
        assert_eq!((hub.suspended_bytes(), hub.parked_count(), hub.parked_suspensions()), (0, 0, 0));
        assert!(hub.entries.is_empty() && hub.requests().next().is_none() && hub.closing.is_empty());
    }
}

impl Job {
    fn clone_for_test(&self) -> Self {
        Self { frame: self.frame.clone(), connection: self.connection.clone(), ..*self }
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
