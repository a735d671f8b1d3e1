//! The part of the hub that belongs to one session: what it has queued, what it waits for, which suspended executions are its.
//!
//! Everything of a session is found through its own books, so that the end of one costs what that one had, however many others
//! there are. Of a session that is gone only the requests stay that a worker still runs, until that worker is done.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::RequestId;

use super::{Held, Hub, Job, Request, SessionId};
use crate::engine::control::{RunControl, StopCause};

/// What one session has.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub queue: VecDeque<Job>,
    /// Unanswered ones.
    pub requests: HashMap<RequestId, Request>,
    /// Executions that were suspended and are not over.
    pub entries: HashSet<u64>,
}

/// What a session had when it was closed.
#[derive(Debug, Default)]
pub struct Left {
    pub queue: VecDeque<Job>,
    /// Keys of the entries of its executions.
    pub entries: Vec<u64>,
}

impl Request {
    /// The guest that runs for it is stopped, or not started. False: it does not run.
    pub(super) fn stop(&mut self) -> bool {
        let Self::Running { control, cancelled, .. } = self else { return false };
        *cancelled = true;
        if let Some(control) = control {
            control.stop(StopCause::Cancelled);
        }
        true
    }
}

impl<E: Held> Hub<E> {
    pub fn open_session(&mut self, session: SessionId) {
        self.sessions.insert(session, Books::default());
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Frees everything of a session: what runs is stopped, what is queued is for the caller to drop, and what is suspended is to
    /// be ended, a part at a time, with `end_entries`.
    pub fn close_session(&mut self, session: SessionId) -> Left {
        let Some(mut books) = self.sessions.remove(&session) else { return Left::default() };
        self.queued -= books.queue.len();
        self.queued_bytes -= books.queue.iter().map(Job::bytes).sum::<usize>();
        self.turn.retain(|s| *s != session);
        // the worker that runs one still calls `finish`
        books.requests.retain(|_, request| request.stop());
        if !books.requests.is_empty() {
            self.closing.insert(session, books.requests);
        }
        Left { queue: books.queue, entries: Vec::from_iter(books.entries) }
    }

    /// Ends executions, by the keys of their entries; those that are suspended are for the caller to drop.
    pub fn end_entries(&mut self, keys: &[u64]) -> Vec<Box<E>> {
        keys.iter().filter_map(|key| self.end_entry(*key)).collect()
    }

    /// A request, whether its session is still there or not.
    pub(super) fn request_mut(&mut self, session: SessionId, id: RequestId) -> Option<&mut Request> {
        match self.sessions.get_mut(&session) {
            Some(books) => books.requests.get_mut(&id),
            None => self.closing.get_mut(&session)?.get_mut(&id),
        }
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = (SessionId, RequestId, &Request)> {
        let open = self.sessions.iter().map(|(session, books)| (session, &books.requests));
        let all = open.chain(&self.closing);
        all.flat_map(|(session, requests)| requests.iter().map(|(id, request)| (*session, *id, request)))
    }

    pub(super) fn requests_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        let open = self.sessions.values_mut().map(|books| &mut books.requests);
        open.chain(self.closing.values_mut()).flat_map(HashMap::values_mut)
    }

    pub(super) fn queued_jobs(&self) -> impl Iterator<Item = &Job> {
        self.sessions.values().flat_map(|books| &books.queue)
    }

    /// Everything that is queued; nothing is left in the queues.
    pub(super) fn take_queued(&mut self) -> Vec<Job> {
        self.turn.clear();
        self.queued = 0;
        self.queued_bytes = 0;
        self.sessions.values_mut().flat_map(|books| std::mem::take(&mut books.queue)).collect()
    }

    /// A worker is about to run a guest for a request. From now on a cancellation reaches it.
    pub fn register(&mut self, session: SessionId, id: RequestId, control: &Arc<RunControl>) {
        control.arm();
        let Some(Request::Running { job, control: slot, cancelled }) = self.request_mut(session, id) else { return };
        job.since = Some(Instant::now());
        *slot = Some(control.clone());
        if *cancelled {
            control.stop(StopCause::Cancelled);
        }
    }

    /// A request is about to be answered: from here on its id may be used again. Comes before the answer, since the client
    /// may act on that before anything else happens here. So it must come once: a second call may be for another request.
    pub fn finish(&mut self, session: SessionId, id: RequestId) {
        let request = match self.sessions.get_mut(&session) {
            Some(books) => books.requests.remove(&id),
            None => self.finish_closing(session, id),
        };
        if matches!(request, Some(Request::Running { .. })) {
            self.running -= 1;
        }
    }

    fn finish_closing(&mut self, session: SessionId, id: RequestId) -> Option<Request> {
        let requests = self.closing.get_mut(&session)?;
        let request = requests.remove(&id);
        if requests.is_empty() {
            self.closing.remove(&session);
        }
        request
    }

    /// Unanswered requests of a session.
    pub fn in_flight(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |books| books.requests.len())
    }
}
