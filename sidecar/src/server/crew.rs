//! The workers: what each one works on, and which were given up.
//!
//! ```text
//!   Free --begin--> Working --answers--> Answering --end--> Free
//!                      |
//!                    retire (by the watchdog: its request is answered, another worker takes its place)
//!                      v
//!                   Retired --came_back--> (the thread ends)
//! ```
//! A retired worker may still run, anywhere in its request. Whatever it does to the books of the server has to ask
//! [`Crew::is_retired`] first, under the same lock: so a request is answered by its worker or by the watchdog, never by both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::RequestId;
use nexus_protocol::limits::{HOST_GRACE_MS, MAX_RETIRED_THREADS};
use nexus_protocol::message::Kind;

use super::connection::Connection;
use super::hub::{Job, SessionId};
use crate::engine::control::{RunControl, StopCause};

/// Answers to requests that are done wait no longer for a worker that has gone on to the next one.
const MAX_HELD_BACK: Duration = Duration::from_millis(1);

/// One thread, for life. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(usize);

impl WorkerId {
    pub fn number(self) -> usize {
        self.0
    }
}

/// What a worker works on: enough to answer in its place.
#[derive(Debug)]
pub struct Work {
    pub session: SessionId,
    pub id: RequestId,
    pub kind: Kind,
    pub connection: Arc<Connection>,
    pub enqueued: Instant,
    taken: Instant,
    control: Option<Arc<RunControl>>,
    /// The time that its execution has in all.
    pub timeout: Option<Duration>,
    /// What of it was used up before this request.
    pub spent: Duration,
    /// The suspended execution that it resumes, by the key of the hub.
    pub execution: Option<u64>,
    /// Since when its worker has held back answers to requests before this one.
    pub held_back: Option<Instant>,
}

impl Work {
    pub fn of(job: &Job, now: Instant) -> Self {
        Self {
            session: job.session,
            id: job.id,
            kind: job.kind,
            connection: job.connection.clone(),
            enqueued: job.enqueued,
            taken: now,
            control: None,
            timeout: None,
            spent: Duration::ZERO,
            execution: None,
            held_back: None,
        }
    }
}

#[derive(Debug)]
enum Worker {
    Free,
    Working(Work),
    /// Its request is off the books, and the answer is not in the connection's buffer yet.
    Answering(SessionId),
    Retired,
    Ended,
}

/// Why a worker is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The guest had to end, and did not.
    InGuest(StopCause),
    /// Somewhere else: decoding, parsing, encoding.
    InHost,
}

/// See the module.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Worker>,
    /// Longest that a request may take, when there is a bound.
    longest: Option<Duration>,
    retired: usize,
    /// Since the start.
    retired_total: u64,
}

impl Crew {
    /// `timeout`: the configured one.
    pub fn new(timeout: Option<Duration>) -> Self {
        let longest = timeout.and_then(|t| t.checked_add(Duration::from_millis(HOST_GRACE_MS)));
        Self { workers: Vec::new(), longest, retired: 0, retired_total: 0 }
    }

    /// A new worker; its thread is about to start.
    pub fn hire(&mut self) -> WorkerId {
        let ended = self.workers.iter().position(|w| matches!(w, Worker::Ended));
        let at = ended.unwrap_or(self.workers.len());
        match self.workers.get_mut(at) {
            Some(worker) => *worker = Worker::Free,
            None => self.workers.push(Worker::Free),
        }
        WorkerId(at)
    }

    fn get(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(id.0)
    }

    pub fn begin(&mut self, id: WorkerId, work: Work) {
        if let Some(worker) = self.get(id) {
            *worker = Worker::Working(work);
        }
    }

    /// The guest that the worker is about to run, the time that its execution has, and what of it was used up before.
    pub fn runs(&mut self, id: WorkerId, control: &Arc<RunControl>, (timeout, spent): (Option<Duration>, Duration)) {
        if let Some(Worker::Working(work)) = self.get(id) {
            (work.control, work.timeout, work.spent) = (Some(control.clone()), timeout, spent);
        }
    }

    pub fn resumes(&mut self, id: WorkerId, execution: u64) {
        if let Some(Worker::Working(work)) = self.get(id) {
            work.execution = Some(execution);
        }
    }

    /// The suspended execution that the worker resumes, by the key of the hub.
    pub fn resuming(&self, id: WorkerId) -> Option<u64> {
        match self.workers.get(id.0) {
            Some(Worker::Working(work)) => work.execution,
            _ => None,
        }
    }

    /// The request is about to be answered; what the worker still does holds nobody up. False: that was known.
    pub fn answers(&mut self, id: WorkerId) -> bool {
        let Some(worker) = self.get(id) else { return false };
        let Worker::Working(work) = worker else { return false };
        *worker = Worker::Answering(work.session);
        true
    }

    /// The worker has nothing to do with its request any more. False: that was answered before.
    pub fn end(&mut self, id: WorkerId) -> bool {
        let Some(worker @ (Worker::Working(_) | Worker::Answering(_))) = self.get(id) else { return false };
        matches!(std::mem::replace(worker, Worker::Free), Worker::Working(_))
    }

    /// Whether an answer is on its way to the buffer of a session's connection.
    pub fn is_answering(&self, session: SessionId) -> bool {
        self.workers.iter().any(|worker| matches!(worker, Worker::Answering(to) if *to == session))
    }

    pub fn is_retired(&self, id: WorkerId) -> bool {
        matches!(self.workers.get(id.0), Some(Worker::Retired))
    }

    /// A worker that is stuck, and why.
    pub fn stuck(&self, now: Instant) -> Option<(WorkerId, Stuck)> {
        self.workers.iter().enumerate().find_map(|(at, worker)| {
            let Worker::Working(work) = worker else { return None };
            let in_guest = work.control.as_ref().and_then(|control| control.overdue(now)).map(Stuck::InGuest);
            let too_long = self.longest.is_some_and(|longest| now.saturating_duration_since(work.taken) >= longest);
            Some((WorkerId(at), in_guest.or_else(|| too_long.then_some(Stuck::InHost))?))
        })
    }

    /// Whether answers wait for a worker that is at its next request. Said once for each request.
    pub fn holds_back(&mut self, now: Instant) -> bool {
        let mut found = false;
        for worker in &mut self.workers {
            let Worker::Working(work) = worker else { continue };
            if work.held_back.is_some_and(|since| now.saturating_duration_since(since) >= MAX_HELD_BACK) {
                work.held_back = None;
                found = true;
            }
        }
        found
    }

    /// Time has passed in which nobody could work.
    pub fn forgive(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if let Worker::Working(work) = worker {
                work.taken = now;
                if let Some(control) = &work.control {
                    control.forgive(now);
                }
            }
        }
    }

    /// Gives a worker up. None: it is not at work, or its guest has ended at the last moment.
    pub fn retire(&mut self, id: WorkerId, why: Stuck) -> Option<Work> {
        let worker = self.get(id)?;
        let Worker::Working(work) = worker else { return None };
        let ended = work.control.as_ref().is_some_and(|control| !control.give_up());
        if ended && matches!(why, Stuck::InGuest(_)) {
            return None;
        }
        let Worker::Working(work) = std::mem::replace(worker, Worker::Retired) else { return None };
        self.retired += 1;
        self.retired_total += 1;
        Some(work)
    }

    /// A retired worker's thread is about to end.
    pub fn came_back(&mut self, id: WorkerId) {
        if let Some(worker @ Worker::Retired) = self.get(id) {
            *worker = Worker::Ended;
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
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn work(session: SessionId) -> Work {
        let (stream, _) = UnixStream::pair().unwrap();
        let connection = Arc::new(Connection::new(session, stream, 1 << 20).unwrap());
        let now = Instant::now();
        Work {
            session,
            id: RequestId(1),
            kind: Kind::Execute,
            connection,
            enqueued: now,
            taken: now,
            control: None,
            timeout: None,
            spent: Duration::ZERO,
            execution: None,
            held_back: None,
        }
    }

    #[test]
    fn answers_that_a_worker_holds_back_are_noticed_once_and_not_at_once() {
        let (mut crew, now) = (Crew::new(None), Instant::now());
        let worker = crew.hire();
        crew.begin(worker, work(SessionId(7)));
        assert!(!crew.holds_back(now + Duration::from_secs(60)), "there are none");
        crew.begin(worker, Work { held_back: Some(now), ..work(SessionId(7)) });
        assert!(!crew.holds_back(now));
        assert!(crew.holds_back(now + MAX_HELD_BACK) && !crew.holds_back(now + MAX_HELD_BACK));
    }

    #[test]
    fn an_answer_is_on_its_way_until_its_worker_is_done_with_the_request() {
        let (mut crew, session) = (Crew::new(Some(Duration::ZERO)), SessionId(7));
        let worker = crew.hire();
        crew.begin(worker, work(session));
        assert!(!crew.is_answering(session) && crew.stuck(Instant::now() + Duration::from_secs(60)).is_some());
        assert!(crew.answers(worker) && !crew.answers(worker), "once");
        assert!(crew.is_answering(session) && !crew.is_answering(SessionId(8)));
        assert!(crew.stuck(Instant::now() + Duration::from_secs(60)).is_none(), "nobody waits for it any more");
        assert!(!crew.end(worker), "its request was answered before");
        assert!(!crew.is_answering(session));
        crew.begin(worker, work(session));
        assert!(crew.end(worker), "nobody has answered it");
    }
}
