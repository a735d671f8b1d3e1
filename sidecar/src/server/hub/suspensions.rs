//! The part of the hub that keeps suspended executions: taken in, put back after a segment, ended.
//!
//! An execution has one owner at any time, which its entry's holder names: the entry itself, the run that resumes it, or
//! whoever parks it.

use std::collections::VecDeque;
use std::time::Instant;

use nexus_protocol::SuspensionId;

use super::{About, Entry, Held, Holder, Hub, NotKept, Peer, Place, SessionId};
use crate::budget::{Charge, Full};
use crate::server::crew::RunId;
use crate::server::holdings::Seat;
use crate::share::{Share, Whose};
use crate::token::StopCause;

impl<E: Held, P: Peer> Hub<E, P> {
    /// Keeps an execution whose first segment was suspended, and takes its run for answered; or gives it back with the reason.
    pub fn suspend(&mut self, run: RunId, about: About, execution: Box<E>, now: Instant) -> Result<(), NotKept<E>> {
        self.suspend_beside(run, about, execution, now)?;
        self.answer(run);
        Ok(())
    }

    /// The same for one of several executions of a run, which goes on.
    pub fn suspend_beside(
        &mut self,
        run: RunId,
        about: About,
        execution: Box<E>,
        now: Instant,
    ) -> Result<(), NotKept<E>> {
        let going_on = self.crew.get(run).filter(|run| run.ending().is_none());
        let Some(session) = going_on.map(|run| run.session).filter(|session| self.is_open(*session)) else {
            return Err(NotKept::Gone(execution));
        };
        let key = about.number;
        let (execution, charge) = self.with_room(session, 1, execution)?;
        let entry = Entry {
            session,
            about,
            holder: Holder::Running(run),
            ids: Vec::new(),
            expires: None,
            mailbox: VecDeque::new(),
            announced: false,
            free_since: now,
            seat: None,
            charge,
        };
        self.entries.insert(key, entry);
        if let Some(books) = self.sessions.get_mut(&session) {
            books.entries.insert(key);
        }
        self.keep(key, execution, now);
        Ok(())
    }

    /// An execution that was lent is suspended again, and its run is answered; or it is given back with the reason why not.
    pub fn put_back(&mut self, run: RunId, key: u64, execution: Box<E>, now: Instant) -> Result<(), NotKept<E>> {
        let going_on = self.crew.get(run).is_some_and(|run| run.ending().is_none());
        let Some(session) = self.has(run, key).filter(|_| going_on) else {
            self.end(run, key);
            return Err(NotKept::Gone(execution));
        };
        let (execution, charge) = match self.with_room(session, 0, execution) {
            Ok(room) => room,
            // the run has it still
            Err(refused @ NotKept::NoRoom { .. }) => return Err(refused),
            // others were suspended while it ran
            Err(refused) => {
                self.end(run, key);
                return Err(refused);
            }
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.charge = charge;
        }
        self.keep(key, execution, now);
        self.answer(run);
        Ok(())
    }

    /// A run has not made use of the execution that it was lent: the suspension can be resumed again. Given back if it has
    /// ended meanwhile.
    pub fn undo(
        &mut self,
        run: RunId,
        key: u64,
        id: SuspensionId,
        mut execution: Box<E>,
        now: Instant,
    ) -> Option<Box<E>> {
        let going_on = self.crew.get(run).is_some_and(|run| run.ending().is_none());
        if !going_on || self.has(run, key).is_none() {
            self.end(run, key);
            return Some(execution);
        }
        if let Some(run) = self.crew.get_mut(run) {
            run.execution = None;
        }
        self.index(key, id);
        if let Some(entry) = self.entries.get_mut(&key) {
            // it had room before
            entry.charge.set(execution.held_bytes());
        }
        self.hold(key, execution, now);
        None
    }

    /// Whose execution it is, if that run has it.
    fn has(&self, run: RunId, key: u64) -> Option<SessionId> {
        let entry = self.entries.get(&key)?;
        matches!(entry.holder, Holder::Running(by) if by == run).then_some(entry.session)
    }

    /// Gives the execution back if it can be kept: the one and only check of the limits, for the first suspension and later ones.
    /// `new`: 1 where it is not among the entries of its session yet.
    fn with_room(&self, session: SessionId, new: u64, mut execution: Box<E>) -> Result<(Box<E>, Charge), NotKept<E>> {
        let books = self.sessions.get(&session);
        // those that it resumes at this moment are its own as well, since they come back
        let own = books.map_or(0, |books| books.entries.len() as u64) + new;
        let total = self.suspended as u64 + 1;
        let limit = self.limits.max_suspended as u64;
        if !Share::of(limit).allows(own, total) {
            let full = Full { resource: "maxSuspended", limit, count: total, whose: Whose::All };
            return Err(NotKept::Limit { execution, full });
        }
        if !execution.is_parked() && !self.holdings.has_instance(own) {
            let (limit, count) = (self.holdings.max_bytes(), self.holdings.max_bytes().saturating_add(1));
            let full = Full { resource: "maxSuspendedBytes", limit, count, whose: Whose::All };
            return Err(NotKept::NoRoom { execution, full });
        }
        let Some(books) = books else { return Err(NotKept::Gone(execution)) };
        let bytes = execution.held_bytes();
        if execution.is_estimated()
            && let Err(full) = self.holdings.takes_estimate(bytes)
        {
            return Err(NotKept::NoRoom { execution, full });
        }
        let charge = books.budget.charge(bytes);
        match charge {
            Ok(charge) => Ok((execution, charge)),
            Err(full) if execution.is_parked() => Err(NotKept::Limit { execution, full }),
            Err(full) => Err(NotKept::NoRoom { execution, full }),
        }
    }

    /// A segment has ended in a suspension: its calls can be answered from now on.
    fn keep(&mut self, key: u64, execution: Box<E>, now: Instant) {
        for call in execution.new_calls() {
            self.index(key, call.id);
        }
        let expires = self.limits.suspension_timeout.and_then(|timeout| now.checked_add(timeout));
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.expires = expires;
            (entry.about.cpu, entry.about.memory_bytes) = execution.spent();
        }
        self.hold(key, execution, now);
    }

    fn hold(&mut self, key: u64, execution: Box<E>, now: Instant) {
        let is_parked = execution.is_parked();
        if is_parked {
            self.holdings.add_parked();
            self.parked_suspensions += execution.outstanding();
        }
        let seat = (!is_parked).then(|| self.holdings.add_live(key, now));
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.seat = seat;
            entry.holder = Holder::Suspended(execution);
        }
        self.suspended += 1;
        self.is_free(key, now);
    }

    fn index(&mut self, key: u64, id: SuspensionId) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.by_suspension.insert(id, Place { key, at: entry.ids.len(), answered: false });
        entry.ids.push(id);
    }

    /// An id means nothing any more.
    pub(super) fn forget_id(&mut self, id: SuspensionId) {
        let Some(Place { key, at, .. }) = self.by_suspension.remove(&id) else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.ids.swap_remove(at);
        if let Some(moved) = entry.ids.get(at).and_then(|id| self.by_suspension.get_mut(id)) {
            moved.at = at;
        }
    }

    /// A lent execution has ended. Resumes that waited for it find nothing when their turn comes.
    pub fn end(&mut self, run: RunId, key: u64) {
        if self.has(run, key).is_some() {
            self.forget_entry(key);
        }
    }

    /// Takes a suspended execution out, or sees to it that whoever has it ends it.
    pub(super) fn end_entry(&mut self, key: u64) -> Option<Box<E>> {
        let entry = self.entries.get_mut(&key)?;
        match &mut entry.holder {
            Holder::Running(run) => {
                let run = *run;
                self.crew.stop(run, StopCause::Cancelled);
                None
            }
            Holder::Parking { ended } => {
                *ended = true;
                // from now on it is as if it were gone
                for id in std::mem::take(&mut entry.ids) {
                    self.by_suspension.remove(&id);
                }
                let (session, mailbox) = (entry.session, std::mem::take(&mut entry.mailbox));
                self.no_longer_expires(key);
                self.return_mail(session, mailbox);
                None
            }
            Holder::Suspended(_) => match self.forget_entry(key)? {
                Entry { holder: Holder::Suspended(execution), seat, .. } => {
                    self.no_longer_suspended(seat, execution.outstanding());
                    Some(execution)
                }
                _ => None,
            },
        }
    }

    /// Takes an entry out of the books, with its ids, its time and its mail.
    pub(super) fn forget_entry(&mut self, key: u64) -> Option<Entry<E, P>> {
        self.no_longer_expires(key);
        let mut entry = self.entries.remove(&key)?;
        if let Some(books) = self.sessions.get_mut(&entry.session) {
            books.entries.remove(&key);
        }
        for id in std::mem::take(&mut entry.ids) {
            self.by_suspension.remove(&id);
        }
        if entry.announced {
            self.unqueue(entry.session, key);
        }
        self.return_mail(entry.session, std::mem::take(&mut entry.mailbox));
        Some(entry)
    }

    pub(super) fn no_longer_expires(&mut self, key: u64) {
        if let Some(at) = self.entries.get(&key).and_then(|entry| entry.expires) {
            self.expiring.remove(&(at, key));
        }
    }

    pub(super) fn no_longer_suspended(&mut self, seat: Option<Seat>, outstanding: usize) {
        self.suspended -= 1;
        match seat {
            Some(seat) => self.holdings.remove_live(seat),
            None => {
                self.holdings.remove_parked();
                self.parked_suspensions -= outstanding;
            }
        }
    }
}
