//! Those who end things before their time: whoever asks for it, and the watchdog when a trial is over.

use super::oracle::name_of;
use super::*;

impl World {
    /// Only one that somebody else waits for who could have its instance.
    pub fn end_trial(&mut self) {
        let waiting: Vec<SessionId> =
            self.sessions.iter().copied().filter(|session| self.may_begin_last(*session)).collect();
        let occupied = self.hub.occupied();
        let Some(run) = self.hub.end_trial(Duration::ZERO, self.now) else { return };
        assert!(occupied >= self.hub.limits.max_running, "another one is free");
        let work = self.at_work.iter_mut().find(|work| work.run == run).unwrap();
        assert!(!work.given_up && waiting.iter().any(|session| *session != work.job.session), "nobody waits");
        let (begins_again, beside) = (crate::server::crew::begins_again(work.job.kind), self.hub.beside);
        let most = self.hub.limits.max_running;
        let way = self.hub.make_way(run);
        if way != Way::Beside {
            // its guest is stopped, if there is one at this moment; its worker finds out
            assert!(begins_again && beside >= most, "there is room beside");
            work.is_put_back |= way == Way::Back;
            return;
        }
        assert!(beside < most * if begins_again { 1 } else { 2 }, "too many are beside");
        if self.hub.workers_lacking() > 0 {
            self.free_workers.push(self.hub.crew.hire());
        }
        work.is_beside = true;
    }

    pub fn cancel(&mut self) {
        let Some(session) = self.a_session() else { return };
        let outcome = match self.rng.below(3) {
            0 => {
                let id = RequestId(1 + self.rng.below(8) as u32);
                if self.open.contains(&(session, id)) {
                    self.requests_to_end.insert((session, id));
                }
                let waits = self.hub.sessions[&session].requests.get(&id).map(|request| request.at);
                let outcome = self.hub.cancel_request(session, id);
                match (waits, &outcome) {
                    (None, Cancelled::Nothing) | (Some(Request::Running(_)), Cancelled::Underway) => {}
                    (Some(_), Cancelled::Job(job)) => assert_eq!((job.session, job.id), (session, id), "another's"),
                    unexpected => panic!("{unexpected:?}"),
                }
                outcome
            }
            1 if !self.given.is_empty() => {
                let (owner, id) = self.given[self.rng.below(self.given.len())];
                let key = self.hub.by_suspension.get(&id).map(|place| place.key);
                let expected = key.filter(|_| owner == session).map_or("nothing", |key| self.end_of(key));
                let outcome = self.hub.cancel_suspension(session, id);
                assert_eq!(name_of(&outcome), expected);
                if owner == session {
                    self.to_end.extend(key);
                }
                outcome
            }
            _ => {
                let number = self.rng.next() % self.hub.next_number;
                self.to_end.insert(number);
                let expected = self.hub.entries.contains_key(&number).then(|| self.end_of(number));
                let outcome = self.hub.kill(number);
                assert!(expected.is_none_or(|expected| name_of(&outcome) == expected), "{expected:?} and {outcome:?}");
                if let Cancelled::Job(job) = &outcome {
                    assert_eq!((job.number, job.kind), (number, Kind::Execute), "another's");
                }
                outcome
            }
        };
        match outcome {
            Cancelled::Job(job) => self.answer_unrun(&job),
            Cancelled::Execution(execution) => drop(execution),
            Cancelled::Nothing | Cancelled::Underway | Cancelled::BeingParked => {}
        }
    }
}
