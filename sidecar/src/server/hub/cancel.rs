//! The part of the hub that ends things before their time.

use nexus_protocol::message::Kind;
use nexus_protocol::{RequestId, SuspensionId};

use super::listing::is_executed;
use super::{Cancelled, Closed, Held, Holder, Hub, Item, Job, Peer, Request, SessionId};
use crate::token::StopCause;

impl<E: Held, P: Peer> Hub<E, P> {
    pub fn cancel_request(&mut self, session: SessionId, id: RequestId) -> Cancelled<E, P> {
        let Some(books) = self.sessions.get_mut(&session) else { return Cancelled::Nothing };
        match books.requests.get(&id).map(|request| request.at) {
            None => Cancelled::Nothing,
            Some(Request::Running(run)) => {
                self.crew.stop(run, StopCause::Cancelled);
                Cancelled::Underway
            }
            Some(Request::Queued) => {
                let is_it = |item: &Item<P>| matches!(item, Item::Job(job) if job.id == id);
                let Some(at) = books.queue.iter().position(is_it) else { return Cancelled::Nothing };
                let Some(Item::Job(job)) = books.queue.remove(at) else { return Cancelled::Nothing };
                if books.queue.is_empty() {
                    self.turns.remove(session);
                }
                self.no_longer_queued();
                Cancelled::Job(job)
            }
            Some(Request::Mailed(key)) => {
                let Some(entry) = self.entries.get(&key) else { return Cancelled::Nothing };
                let at = entry.mailbox.iter().position(|job| job.id == id);
                match at.and_then(|at| self.take_back(key, at)) {
                    Some(job) => Cancelled::Job(job),
                    None => Cancelled::Nothing,
                }
            }
        }
    }

    pub fn cancel_suspension(&mut self, session: SessionId, id: SuspensionId) -> Cancelled<E, P> {
        let Some(key) = self.by_suspension.get(&id).map(|place| place.key) else { return Cancelled::Nothing };
        match self.entries.get(&key) {
            Some(entry) if entry.session == session => self.cancel_entry(key),
            _ => Cancelled::Nothing,
        }
    }

    fn cancel_entry(&mut self, key: u64) -> Cancelled<E, P> {
        let parking = match self.entries.get(&key).map(|entry| &entry.holder) {
            // as good as gone
            None | Some(Holder::Parking { ended: true }) => return Cancelled::Nothing,
            Some(Holder::Parking { ended: false }) => true,
            Some(Holder::Suspended(_) | Holder::Running(_)) => false,
        };
        match self.end_entry(key) {
            Some(execution) => Cancelled::Execution(execution),
            None if parking => Cancelled::BeingParked,
            None => Cancelled::Underway,
        }
    }

    /// Ends an execution of any session, by its number.
    pub fn kill(&mut self, number: u64) -> Cancelled<E, P> {
        if self.entries.contains_key(&number) {
            return self.cancel_entry(number);
        }
        let is_it = |kind: Kind, of: u64| is_executed(kind) && of == number;
        let running = self.crew.runs().find(|(_, run)| is_it(run.kind, run.number)).map(|(run, _)| run);
        if let Some(run) = running {
            self.crew.stop(run, StopCause::Cancelled);
            return Cancelled::Underway;
        }
        let queued = self.queued_jobs().find(|job| is_it(job.kind, job.number)).map(|job| (job.session, job.id));
        match queued {
            Some((session, id)) => self.cancel_request(session, id),
            None => Cancelled::Nothing,
        }
    }

    pub(super) fn queued_jobs(&self) -> impl Iterator<Item = &Job<P>> {
        self.sessions.values().flat_map(|books| &books.queue).filter_map(|item| match item {
            Item::Job(job) => Some(job),
            Item::Mail(_) => None,
        })
    }

    // ---- ending ----

    /// Refuses everything but resumes from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends everything: what runs is stopped and answered by its worker, what is queued is for the caller to answer, what is
    /// suspended is for the caller to drop.
    pub fn cancel_all(&mut self) -> Closed<E, P> {
        let jobs = self.take_queued();
        let runs: Vec<_> = self.crew.runs().map(|(run, _)| run).collect();
        for run in runs {
            self.crew.stop(run, StopCause::Cancelled);
        }
        let keys: Vec<u64> = self.entries.keys().copied().collect();
        Closed { executions: keys.into_iter().filter_map(|key| self.end_entry(key)).collect(), jobs }
    }

    /// Everything that is queued, to be answered by the caller; nothing will run any more.
    pub fn drain_queues(&mut self) -> Vec<Job<P>> {
        self.draining = true;
        self.take_queued()
    }
}
