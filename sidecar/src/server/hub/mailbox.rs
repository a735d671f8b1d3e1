//! The part of the hub in which resumes wait for their execution.
//!
//! A resume goes into the mailbox of its execution when it comes, and is taken out together with the execution, by one worker
//! in one step: so it is read once, it charges the execution only for the time in which both could have gone on, and an
//! execution that has mail does not expire. While nobody has the execution, its mail stands in the queue of its session, once;
//! whoever ends a segment hands the next resume back to the front of that queue, so that others have their turn in between.

use std::time::Instant;

use nexus_protocol::SuspensionId;

use super::{Held, Holder, Hub, Item, Job, Peer, Request};
use crate::server::crew::RunId;

impl<E: Held, P: Peer> Hub<E, P> {
    /// The execution that a resume is for, if it may still be.
    pub(super) fn addressee(&self, job: &Job<P>) -> Option<u64> {
        let place = self.by_suspension.get(&job.suspension?).filter(|place| !place.answered)?;
        let entry = self.entries.get(&place.key)?;
        (entry.session == job.session).then_some(place.key)
    }

    /// Puts a resume into the mailbox of its execution.
    pub(super) fn deliver(&mut self, key: u64, job: Job<P>) {
        self.set_answered(job.suspension, true);
        self.note(&job, Request::Mailed(key));
        self.no_longer_expires(key);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.mailbox.push_back(job);
        }
        self.announce(key, Self::push_back);
    }

    pub(super) fn set_answered(&mut self, id: Option<SuspensionId>, answered: bool) {
        if let Some(place) = id.and_then(|id| self.by_suspension.get_mut(&id)) {
            place.answered = answered;
        }
    }

    /// Queues the mail of an execution, if there is some and nobody has the execution.
    fn announce(&mut self, key: u64, push: fn(&mut Self, super::SessionId, Item<P>)) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let ready = matches!(entry.holder, Holder::Suspended(_)) && !entry.mailbox.is_empty() && !entry.announced;
        if ready {
            entry.announced = true;
            let session = entry.session;
            push(self, session, Item::Mail(key));
        }
    }

    /// An execution can go on from `now`: with the next resume, or not before one comes.
    pub(super) fn is_free(&mut self, key: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.free_since = now;
        if entry.mailbox.is_empty() {
            self.expiring.extend(entry.expires.map(|at| (at, key)));
        } else {
            self.announce(key, Self::push_front);
        }
    }

    /// Gives an execution out to be resumed. The id is used up.
    pub(super) fn lend(&mut self, key: u64, id: SuspensionId, run: RunId) -> Option<Box<E>> {
        let entry = self.entries.get_mut(&key)?;
        let execution = match std::mem::replace(&mut entry.holder, Holder::Running(run)) {
            Holder::Suspended(execution) => execution,
            other => {
                entry.holder = other;
                return None;
            }
        };
        // from now on it is one of those that run
        let (seat, charge) = (entry.seat.take(), entry.charge.take());
        self.forget_id(id);
        self.no_longer_suspended(seat, execution.outstanding());
        drop(charge);
        if let Some(run) = self.crew.get_mut(run) {
            run.execution = Some(key);
        }
        Some(execution)
    }

    /// Takes a resume out of a mailbox; its suspension can be resumed again.
    pub(super) fn take_back(&mut self, key: u64, at: usize) -> Option<Job<P>> {
        let entry = self.entries.get_mut(&key)?;
        let job = entry.mailbox.remove(at)?;
        let is_empty = entry.mailbox.is_empty();
        self.no_longer_queued();
        self.set_answered(job.suspension, false);
        if is_empty {
            self.is_without_mail(key);
        }
        Some(job)
    }

    pub(super) fn is_without_mail(&mut self, key: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if std::mem::take(&mut entry.announced) {
            let session = entry.session;
            self.unqueue(session, key);
        }
        let Some(entry) = self.entries.get(&key) else { return };
        if !matches!(entry.holder, Holder::Running(_)) {
            self.expiring.extend(entry.expires.map(|at| (at, key)));
        }
    }

    /// Takes the mail of an execution out of the queue.
    pub(super) fn unqueue(&mut self, session: super::SessionId, key: u64) {
        let Some(books) = self.sessions.get_mut(&session) else { return };
        books.queue.retain(|item| !matches!(item, Item::Mail(of) if *of == key));
        if books.queue.is_empty() {
            self.turns.remove(session);
        }
    }

    /// An execution is over: resumes that waited for it go to the front of the queue, and find nothing when their turn comes.
    pub(super) fn return_mail(&mut self, session: super::SessionId, mailbox: std::collections::VecDeque<Job<P>>) {
        for job in mailbox.into_iter().rev() {
            if self.sessions.contains_key(&session) {
                self.note(&job, Request::Queued);
                self.push_front(session, Item::Job(job));
            } else {
                self.no_longer_queued();
            }
        }
    }
}
