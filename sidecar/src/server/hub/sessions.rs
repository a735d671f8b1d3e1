//! The part of the hub that belongs to one session: what it has queued, what it waits for, which suspended executions are its.
//!
//! Everything of a session is found through its own books, so that the end of one costs what that one had, however many others
//! there are. Of a session that is gone only the runs stay, until their workers are done.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use nexus_protocol::RequestId;

use super::super::connection::Connection;
use super::turns::Standing;
use super::usage::Usage;
use super::{Held, Hub, Item, Job, Peer, SessionId, Unanswered};
use crate::budget::Budget;
use crate::token::StopCause;

/// What one session has.
#[derive(Debug)]
pub(super) struct Books<P> {
    pub queue: VecDeque<Item<P>>,
    /// Unanswered ones.
    pub requests: HashMap<RequestId, Unanswered>,
    /// Executions that were suspended and are not over.
    pub entries: HashSet<u64>,
    /// What they take.
    pub budget: Arc<Budget>,
    /// Runs that go on.
    pub running: usize,
    /// What its runs are like: the last free instance is not for everybody.
    pub standing: Standing,
    pub usage: Usage,
    /// It has asked for its end: nothing new is taken.
    pub leaving: bool,
    /// Threads that were given up over what it asked for.
    pub cost: u32,
}

impl<P> Books<P> {
    fn new(budget: Arc<Budget>) -> Self {
        Self {
            queue: VecDeque::new(),
            requests: HashMap::new(),
            entries: HashSet::new(),
            budget,
            running: 0,
            standing: Standing::default(),
            usage: Usage::default(),
            leaving: false,
            cost: 0,
        }
    }

    /// Requests that wait for a worker or an execution.
    pub fn waiting(&self) -> usize {
        self.requests.len() - self.running
    }
}

/// What a session has left behind, to be dropped by the caller.
#[derive(Debug)]
pub struct Closed<E, P> {
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    pub executions: Vec<Box<E>>,
    pub jobs: Vec<Job<P>>,
}

/// What a session that was closed has left behind.
#[derive(Debug)]
pub struct Left<P = Arc<Connection>> {
    /// To be dropped.
    pub jobs: Vec<Job<P>>,
    /// Keys of its executions, to be ended.
    pub entries: Vec<u64>,
}

impl<E: Held, P: Peer> Hub<E, P> {
    /// Connections that are not gone.
    pub fn connections(&self) -> usize {
        self.sessions.len()
    }

    pub fn open_session(&mut self, session: SessionId) {
        self.sessions.insert(session, Books::new(self.holdings.of_session()));
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Frees everything of a session: what is queued is for the caller to drop, what runs is stopped, and what is suspended is to
    /// be ended, a part at a time, with `end_entries`.
    pub fn close_session(&mut self, session: SessionId) -> Left<P> {
        let jobs = self.take_queued_of(session);
        let Some(books) = self.sessions.remove(&session) else { return Left { jobs, entries: Vec::new() } };
        books.requests.values().for_each(|request| self.roll.leave(request.slot));
        self.stop_runs_of(session, StopCause::Cancelled);
        Left { jobs, entries: Vec::from_iter(books.entries) }
    }

    /// Ends executions, by the keys of their entries; those that are suspended are for the caller to drop.
    pub fn end_entries(&mut self, keys: &[u64]) -> Vec<Box<E>> {
        keys.iter().filter_map(|key| self.end_entry(*key)).collect()
    }

    /// Asks for the end of all that a session runs.
    pub(super) fn stop_runs_of(&mut self, session: SessionId, cause: StopCause) {
        let own = self.crew.runs().filter(|(_, run)| run.session == session).map(|(run, _)| run);
        for run in own.collect::<Vec<_>>() {
            self.crew.stop(run, cause);
        }
    }

    /// All that a session has queued, in its queue and in the mailboxes of its executions.
    pub(super) fn take_queued_of(&mut self, session: SessionId) -> Vec<Job<P>> {
        let Some(books) = self.sessions.get_mut(&session) else { return Vec::new() };
        let mut jobs = Vec::new();
        for item in std::mem::take(&mut books.queue) {
            if let Item::Job(job) = item {
                jobs.push(job);
            }
        }
        let from_queue = jobs.len();
        let keys: Vec<u64> = books.entries.iter().copied().collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.announced = false;
            jobs.extend(std::mem::take(&mut entry.mailbox));
            self.is_without_mail(key);
        }
        self.turns.remove(session);
        jobs.iter().for_each(|_| self.no_longer_queued());
        // what stands in the queue may name anybody's
        for job in jobs.iter().skip(from_queue) {
            self.set_answered(job.suspension, false);
        }
        jobs
    }

    /// Everything that is queued; nothing is left in the queues and mailboxes.
    pub(super) fn take_queued(&mut self) -> Vec<Job<P>> {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        sessions.into_iter().flat_map(|session| self.take_queued_of(session)).collect()
    }

    /// Unanswered requests of a session.
    pub fn in_flight(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |books| books.requests.len())
    }

    /// A session has asked for its end: from now on it may only resume what is suspended.
    pub fn leave(&mut self, session: SessionId) {
        if let Some(books) = self.sessions.get_mut(&session) {
            books.leaving = true;
        }
    }

    /// Ends everything of a session that is to be answered: what is queued is for the caller to answer, what is suspended for
    /// the caller to drop; what runs is answered by its worker.
    pub fn cancel_session(&mut self, session: SessionId) -> Closed<E, P> {
        let jobs = self.take_queued_of(session);
        self.stop_runs_of(session, StopCause::Cancelled);
        let keys: Vec<u64> =
            self.sessions.get(&session).into_iter().flat_map(|books| &books.entries).copied().collect();
        Closed { executions: keys.into_iter().filter_map(|key| self.end_entry(key)).collect(), jobs }
    }
}
