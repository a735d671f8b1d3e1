//! The part of the hub that keeps suspended executions: taken in, taken out to be resumed, put back, parked.
//!
//! An execution has one owner at any time, which its entry's holder names: the entry itself, the worker that resumes it, or
//! whoever parks it. A resume that comes while another has it waits in the entry, and goes back to the queue afterwards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::{RequestId, SuspensionId};

use super::{About, Books, Entry, Held, Holder, Hub, Job, NotKept, ParkingEnd, Request, SessionId, Taken};
use crate::engine::control::{RunControl, StopCause};

impl<E: Held> Hub<E> {
    /// Keeps a suspended execution, or gives it back with the reason.
    pub fn suspend(
        &mut self,
        session: SessionId,
        about: About,
        mut execution: Box<E>,
        now: Instant,
    ) -> Result<(), NotKept<E>> {
        if !self.is_open(session) {
            return Err(NotKept::Gone(execution));
        }
        let bytes = execution.held_bytes();
        let execution = self.with_room(execution, bytes)?;
        let key = about.number;
        let ids = self.index(key, &execution);
        let expires = self.expiry(now);
        let turn = Some(self.holdings.add_live(key, bytes, now));
        let holder = Holder::Suspended(execution);
        self.expiring.extend(expires.map(|at| (at, key)));
        if let Some(books) = self.sessions.get_mut(&session) {
            books.entries.insert(key);
        }
        self.entries.insert(key, Entry { session, about, holder, ids, expires, waiting: VecDeque::new(), turn, bytes });
        self.suspended += 1;
        Ok(())
    }

    /// Gives the execution back if it can be kept: the one and only check of the limits, for the first suspension and later ones.
    fn with_room(&self, execution: Box<E>, bytes: u64) -> Result<Box<E>, NotKept<E>> {
        if self.suspended >= self.limits.max_suspended {
            let limit = self.limits.max_suspended as u64;
            return Err(NotKept::Limit { execution, resource: "maxSuspended", limit, count: limit + 1 });
        }
        if !self.holdings.has_room(bytes) {
            let (limit, count) = (self.holdings.max_bytes(), self.holdings.bytes().saturating_add(bytes));
            let count = count.max(limit + 1);
            return Err(NotKept::Limit { execution, resource: "maxSuspendedBytes", limit, count });
        }
        Ok(execution)
    }

    fn expiry(&self, now: Instant) -> Option<Instant> {
        self.limits.suspension_timeout.and_then(|t| now.checked_add(t))
    }

    fn index(&mut self, key: u64, execution: &E) -> Vec<SuspensionId> {
        let ids: Vec<SuspensionId> = execution.outstanding().iter().map(|o| o.id).collect();
        self.by_suspension.extend(ids.iter().map(|id| (*id, key)));
        ids
    }

    /// The execution that a suspension id of this session belongs to, to be resumed with it. The id is used up.
    pub fn take(&mut self, id: SuspensionId, job: Job) -> Taken<E> {
        let Some(key) = self.by_suspension.get(&id).copied() else { return Taken::Unknown(job) };
        let Some(entry) = self.entries.get_mut(&key).filter(|e| e.session == job.session) else {
            return Taken::Unknown(job);
        };
        if !matches!(entry.holder, Holder::Suspended(_)) {
            // nobody hears what it would wait for
            let Some(books) = self.sessions.get_mut(&job.session) else { return Taken::Unknown(job) };
            // its worker slot is free while it waits; it comes back through the queue
            self.running -= 1;
            books.requests.insert(job.id, Request::Waiting { execution: key });
            entry.waiting.push_back(job);
            return Taken::Waits;
        }
        let running = Holder::Running { control: None, cancelled: false, since: None };
        let Holder::Suspended(execution) = std::mem::replace(&mut entry.holder, running) else {
            return Taken::Unknown(job);
        };
        let (turn, bytes, expires) = (entry.turn.take(), std::mem::take(&mut entry.bytes), entry.expires.take());
        self.no_longer_expires(key, expires);
        self.by_suspension.remove(&id);
        self.no_longer_suspended(turn, bytes, execution.outstanding().len());
        Taken::Run { key, execution }
    }

    /// As `register`, for a segment of an execution that was taken.
    pub fn register_resumed(&mut self, key: u64, session: SessionId, id: RequestId, control: &Arc<RunControl>) {
        self.register(session, id, control);
        let Some(Entry { holder: Holder::Running { control: slot, cancelled, since }, .. }) =
            self.entries.get_mut(&key)
        else {
            return;
        };
        *since = Some(Instant::now());
        *slot = Some(control.clone());
        if *cancelled {
            control.stop(StopCause::Cancelled);
        }
    }

    /// A taken execution is suspended again, or given back with the reason why it is not.
    pub fn put_back(&mut self, key: u64, mut execution: Box<E>, now: Instant) -> Result<(), NotKept<E>> {
        let cancelled =
            !matches!(self.entries.get(&key), Some(Entry { holder: Holder::Running { cancelled: false, .. }, .. }));
        if cancelled {
            self.end(key);
            return Err(NotKept::Gone(execution));
        }
        let bytes = execution.held_bytes();
        let execution = match self.with_room(execution, bytes) {
            Ok(execution) => execution,
            // others were suspended while it ran
            Err(refused) => {
                self.end(key);
                return Err(refused);
            }
        };
        let ids = self.index(key, &execution);
        let (expires, turn) = (self.expiry(now), self.holdings.add_live(key, bytes, now));
        let mut waiting = VecDeque::new();
        self.expiring.extend(expires.map(|at| (at, key)));
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.ids, entry.expires, entry.turn, entry.bytes) = (ids, expires, Some(turn), bytes);
            (entry.about.cpu, entry.about.memory_bytes) = execution.spent();
            entry.holder = Holder::Suspended(execution);
            waiting = std::mem::take(&mut entry.waiting);
        }
        self.suspended += 1;
        // what they have waited for is the execution that they belong to, not an instance
        waiting.iter_mut().for_each(|job| job.enqueued = now);
        self.requeue(waiting);
        Ok(())
    }

    // ---- parking ----

    /// Whether `next_to_park` would give one.
    pub fn has_to_park(&self, now: Instant) -> bool {
        self.holdings.due(now).is_some()
    }

    /// Whether whoever can should park one, since too many keep their instances.
    pub fn has_to_park_now(&self) -> bool {
        self.holdings.is_pressing()
    }

    /// A suspended execution that is to give its instance up; it is the caller's until `parked` or `stay_live`.
    pub fn next_to_park(&mut self, now: Instant) -> Option<(u64, Box<E>)> {
        let key = self.holdings.due(now)?;
        let entry = self.entries.get_mut(&key)?;
        match std::mem::replace(&mut entry.holder, Holder::Parking { cancelled: false }) {
            Holder::Suspended(execution) => {
                if let Some(turn) = entry.turn.take() {
                    self.holdings.remove_live(turn);
                }
                self.parking += 1;
                Some((key, execution))
            }
            other => {
                entry.holder = other;
                None
            }
        }
    }

    /// The execution holds no instance any more.
    pub fn parked(&mut self, key: u64, mut execution: Box<E>) -> ParkingEnd<E> {
        let Some(Entry { holder: Holder::Parking { cancelled: false }, bytes, .. }) = self.entries.get_mut(&key) else {
            return ParkingEnd::Ended(self.end_of_parking(key, execution));
        };
        let now = execution.held_bytes();
        if !self.holdings.add_parked(now.saturating_sub(*bytes)) {
            return ParkingEnd::NoRoom(execution);
        }
        *bytes = now.max(*bytes);
        self.parked_suspensions += execution.outstanding().len();
        self.suspended_again(key, execution);
        ParkingEnd::Parked
    }

    /// The execution could not be parked: it is as it was. Given back when it has ended meanwhile.
    pub fn stay_live(&mut self, key: u64, execution: Box<E>, now: Instant) -> Option<Box<E>> {
        let Some(Entry { holder: Holder::Parking { cancelled: false }, turn, .. }) = self.entries.get_mut(&key) else {
            return Some(self.end_of_parking(key, execution));
        };
        *turn = Some(self.holdings.add_live(key, 0, now));
        self.suspended_again(key, execution);
        None
    }

    /// Nothing can be parked before that time; None: on this system.
    pub fn pause_parking(&mut self, until: Option<Instant>) {
        self.holdings.pause_parking(until);
    }

    fn suspended_again(&mut self, key: u64, execution: Box<E>) {
        self.parking -= 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.holder = Holder::Suspended(execution);
            let waiting = std::mem::take(&mut entry.waiting);
            self.requeue(waiting);
        }
    }

    fn end_of_parking(&mut self, key: u64, execution: Box<E>) -> Box<E> {
        self.parking -= 1;
        self.suspended -= 1;
        if let Some(entry) = self.entries.get(&key) {
            self.holdings.remove_bytes(entry.bytes);
        }
        self.end(key);
        execution
    }

    /// A taken execution has ended. Resumes that waited for it find nothing when their turn comes.
    pub fn end(&mut self, key: u64) {
        if let Some(entry) = self.forget_entry(key) {
            self.requeue(entry.waiting);
        }
    }

    /// Resumes that waited go to the front: they have waited in the queue once.
    fn requeue(&mut self, waiting: VecDeque<Job>) {
        for job in waiting.into_iter().rev() {
            let Some(Books { queue, requests, .. }) = self.sessions.get_mut(&job.session) else { continue };
            requests.insert(job.id, Request::Queued);
            if queue.is_empty() {
                self.turn.push_front(job.session);
            }
            self.queued += 1;
            self.queued_bytes += job.bytes();
            queue.push_front(job);
        }
    }
}
