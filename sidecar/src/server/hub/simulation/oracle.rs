//! What must hold after every step, and what the rules of the books say, in other words than theirs.
//!
//! With limits as small as here the reserve beyond each is one place: it is for whoever has nothing.

use super::*;

impl World {
    fn running_of(&self, session: SessionId) -> usize {
        self.at_work.iter().filter(|work| !work.given_up && work.job.session == session).count()
    }

    fn waiting_of(&self, session: SessionId) -> usize {
        self.open.iter().filter(|(of, _)| *of == session).count() - self.running_of(session)
    }

    /// Whether the queue has a place for a session, whatever that may have by itself.
    pub fn has_place(&self, session: SessionId) -> bool {
        let in_use = self.at_work.iter().filter(|work| !work.given_up && !work.is_beside).count();
        let max = MAX_QUEUED + self.hub.limits.max_running.saturating_sub(in_use);
        let waiting: usize = self.sessions.iter().map(|session| self.waiting_of(*session)).sum();
        waiting < max || waiting == max && self.waiting_of(session) == 0
    }

    /// The execution whose mailbox a resume belongs to: of the same session, with that call, which no other resume has answered.
    pub fn addressee(&self, session: SessionId, suspension: Option<SuspensionId>) -> Option<u64> {
        let is_it = |entry: &Entry<Token, ()>| {
            let is_answered = entry.mailbox.iter().any(|job| job.suspension == suspension);
            entry.session == session && suspension.is_some_and(|id| entry.ids.contains(&id)) && !is_answered
        };
        self.hub.entries.iter().find(|(_, entry)| is_it(entry)).map(|(key, _)| *key)
    }

    /// What becomes of an execution that has been suspended when somebody ends it.
    pub fn end_of(&self, key: u64) -> &'static str {
        match self.hub.entries[&key].holder {
            Holder::Suspended(_) => "execution",
            Holder::Running(_) => "under way",
            Holder::Parking { ended: false } => "being parked",
            Holder::Parking { ended: true } => "nothing",
        }
    }

    /// Whether an execution of a session may be suspended, as far as their number goes; `key`: not counting that one.
    pub fn may_suspend(&self, session: SessionId, key: u64) -> bool {
        let has_others = self.hub.entries.iter().any(|(other, entry)| *other != key && entry.session == session);
        let (suspended, max) = (self.hub.suspended, self.hub.limits.max_suspended);
        suspended < max || suspended == max && !has_others
    }

    pub fn is_as_it_may(&self, may: bool, kept: &Result<(), NotKept<Token>>) {
        match kept {
            Ok(()) => assert!(may, "too many are suspended"),
            Err(NotKept::Limit { full, .. }) if full.resource == "maxSuspended" => assert!(!may, "there was a place"),
            Err(NotKept::Limit { full, .. }) => {
                let bytes = self.hub.suspended_bytes();
                assert!(full.count > full.limit && full.limit == MAX_SUSPENDED_BYTES, "{full:?}");
                assert!(bytes < full.count && full.count <= bytes + MAX_TOKEN_BYTES, "there was room for its bytes");
            }
            Err(NotKept::NoRoom { .. } | NotKept::Gone(_)) => {}
        }
    }

    /// Whether the long runs of a session, each made a hundred times as long, would still go on if it had done one after the
    /// other.
    fn is_busy(&self, session: SessionId) -> bool {
        let own: Vec<_> = self.long_runs.iter().filter(|(of, ..)| *of == session).collect();
        (0..own.len()).any(|first| {
            let all: Duration = own[first..].iter().map(|(_, _, cpu)| *cpu * 100).sum();
            own[first].1 + all > self.now
        })
    }

    /// Whether a session has something that may begin: the last of three instances is for those that have none, and whose runs
    /// are brief.
    pub fn may_begin(&self, session: SessionId) -> bool {
        let HubLimits { max_running, max_running_each, .. } = self.hub.limits;
        let (running, own) = (self.hub.occupied(), self.running_of(session));
        let has_something = self.hub.sessions.get(&session).is_some_and(|books| !books.queue.is_empty());
        let has_share = self.sessions.len() == 1 || own < max_running_each;
        let takes_last = max_running >= 3 && running + 1 == max_running;
        let finds_processor = self.sessions.len() == 1 || !self.is_held_back(session) || {
            // runs of who has gone end soon
            let is_there = |work: &AtWork| !work.given_up && self.sessions.contains(&work.job.session);
            let is_there = |work: &AtWork| is_there(work) && self.now.saturating_duration_since(work.began) < LONG_RUN;
            let busy = |work: &&AtWork| is_there(work) && self.is_held_back(work.job.session);
            self.at_work.iter().filter(busy).count() < PROCESSORS
        };
        has_something
            && running < max_running
            && has_share
            && if takes_last { self.may_begin_last(session) } else { finds_processor }
    }

    /// Whether a session's runs have been long, or it runs often.
    fn is_held_back(&self, session: SessionId) -> bool {
        let standing = self.hub.sessions.get(&session).map(|books| books.standing);
        self.is_busy(session) || matches!(standing, Some(Standing::Often(until)) if until > self.now)
    }

    /// Whether a session has something that could have the last instance, if that were free.
    pub fn may_begin_last(&self, session: SessionId) -> bool {
        let next = self.hub.sessions.get(&session).and_then(|books| books.queue.front());
        let is_brief = self.hub.sessions.get(&session).is_some_and(|books| books.standing == Standing::Brief);
        let begins_again = matches!(next, Some(Item::Job(job)) if crate::server::crew::begins_again(job.kind));
        let may_stay = is_brief || begins_again || self.hub.beside < 2 * self.hub.limits.max_running;
        next.is_some() && may_stay && self.running_of(session) == 0 && !self.is_held_back(session)
    }

    /// What is counted for sessions is what their executions have.
    fn check_parts(&self) {
        let hub = &self.hub;
        let mut bytes = 0;
        for (session, books) in &hub.sessions {
            let own = || hub.entries.values().filter(|entry| entry.session == *session);
            assert_eq!(books.budget.used(), own().map(|entry| entry.charge.bytes()).sum::<u64>(), "bytes of a session");
            bytes += books.budget.used();
        }
        // nobody has so little that the reserve is for it; what comes back unused is kept all the same
        let most = MAX_SUSPENDED_BYTES + MAX_RUNNING as u64 * MAX_TOKEN_BYTES;
        assert!(bytes <= hub.suspended_bytes() && hub.suspended_bytes() <= most);
        for entry in hub.entries.values() {
            assert_eq!(entry.charge.bytes() > 0, !matches!(entry.holder, Holder::Running(_)), "it is charged");
            if let Holder::Suspended(token) = &entry.holder {
                assert_eq!(token.parked, entry.seat.is_none(), "who has no seat has no instance");
            }
        }
    }

    pub fn check(&mut self) {
        let ready = self.sessions.iter().any(|session| self.may_begin(*session));
        assert_eq!(self.hub.has_ready(self.now), ready, "ready");
        let hub = &self.hub;
        let mailed = hub.entries.values().map(|entry| entry.mailbox.len()).sum::<usize>();
        assert_eq!(hub.queued, hub.queued_jobs().count() + mailed, "queued");
        let going_on = || self.at_work.iter().filter(|work| !work.given_up);
        assert_eq!(hub.running(), going_on().count(), "running");
        assert_eq!(hub.crew.retired(), self.at_work.len() - going_on().count(), "retired");
        assert_eq!(hub.beside, going_on().filter(|work| work.is_beside).count(), "beside");
        assert!(
            hub.occupied() <= MAX_RUNNING
                && hub.beside <= 2 * MAX_RUNNING
                && hub.suspended <= hub.limits.max_suspended + 1 + MAX_RUNNING
        );
        let held = hub.entries.values().filter(|e| matches!(e.holder, Holder::Suspended(_))).count();
        assert_eq!(hub.suspended, held + self.parking.len(), "suspended");
        assert_eq!(hub.suspended(), hub.suspended, "suspended");
        let ids = hub.entries.values().map(|entry| entry.ids.len()).sum::<usize>();
        assert_eq!(hub.suspensions(), ids, "suspensions");
        let parked = || {
            hub.entries.values().filter_map(|entry| match &entry.holder {
                Holder::Suspended(token) if token.parked => Some(token.outstanding.len()),
                _ => None,
            })
        };
        assert_eq!(
            (hub.parked_count(), hub.parked_suspensions()),
            (parked().count(), parked().sum::<usize>()),
            "parked"
        );
        let is_quiet = hub.queued() == 0 && hub.running() == 0 && self.parking.is_empty();
        assert_eq!(hub.is_quiet(), is_quiet, "quiet");
        assert_eq!(hub.parking, self.parking.len());
        let resumed = self.at_work.iter().filter(|w| w.resumed.is_some()).count();
        assert_eq!(self.alive.get(), (held + self.parking.len() + resumed) as i64, "executions");
        for session in &self.sessions {
            let open = self.open.iter().filter(|(of, _)| of == session).count();
            assert_eq!(hub.in_flight(*session), open, "in flight");
            let own = going_on().filter(|work| work.job.session == *session).count();
            assert_eq!(hub.sessions[session].running, own, "running of a session");
        }
        self.check_parts();
        for (id, place) in &hub.by_suspension {
            assert_eq!(hub.entries[&place.key].ids[place.at], *id, "ids");
        }
        assert_eq!(hub.by_suspension.len(), hub.entries.values().map(|entry| entry.ids.len()).sum::<usize>());
        for (key, entry) in &hub.entries {
            let ready = matches!(entry.holder, Holder::Suspended(_)) && !entry.mailbox.is_empty();
            assert_eq!(entry.announced, ready, "mail");
            let queue = hub.sessions.get(&entry.session).map(|books| &books.queue);
            let times = queue.into_iter().flatten().filter(|item| matches!(item, Item::Mail(of) if of == key)).count();
            assert_eq!(times, usize::from(ready), "mail in the queue");
            let expires = !matches!(entry.holder, Holder::Running(_) | Holder::Parking { ended: true });
            let listed = entry.expires.is_some_and(|at| hub.expiring.contains(&(at, *key)));
            assert_eq!(listed, expires && entry.mailbox.is_empty() && entry.expires.is_some(), "times");
            if let Holder::Suspended(token) = &entry.holder {
                let calls: HashSet<_> = token.outstanding.iter().map(|call| call.id).collect();
                assert_eq!(calls, entry.ids.iter().copied().collect(), "what can be answered");
            }
            let answered = entry.ids.iter().filter(|id| hub.by_suspension[*id].answered).count();
            assert_eq!(answered, entry.mailbox.len(), "answered calls");
        }
        assert!(hub.expiring.iter().all(|(_, key)| hub.entries.contains_key(key)));
        let turns = |session| hub.turns.all(false).filter(|turn| *turn == session).count();
        for (session, books) in &hub.sessions {
            assert_eq!(turns(*session), usize::from(!books.queue.is_empty()), "turns");
            let own = hub.entries.iter().filter(|(_, entry)| entry.session == *session).map(|(key, _)| *key);
            assert_eq!(own.collect::<HashSet<_>>(), books.entries, "entries of a session");
        }
        let gone = |session: &SessionId| !hub.sessions.contains_key(session);
        let left = || hub.entries.values().filter(|entry| gone(&entry.session));
        assert!(
            left().all(|entry| !matches!(entry.holder, Holder::Suspended(_))),
            "whoever is gone has nothing suspended"
        );
        assert!(left().all(|entry| entry.mailbox.is_empty()), "and has nothing that waits");
    }
}

pub fn name_of(outcome: &Cancelled<Token, ()>) -> &'static str {
    match outcome {
        Cancelled::Nothing => "nothing",
        Cancelled::Underway => "under way",
        Cancelled::Job(_) => "job",
        Cancelled::Execution(_) => "execution",
        Cancelled::BeingParked => "being parked",
    }
}
