//! Whose turn it is: sessions that have something in their queue, in the order in which they came.
//!
//! Those whose runs took long lately stand in a line of their own, so that the last free instance, which is not for them, is given
//! out without a look at each. Whoever is next of both has the lower ticket. A session is in the line that its busy time says as
//! of the last time that somebody asked; to move it costs as much as there are sessions, and one long run is moved for twice.

use std::collections::VecDeque;
use std::time::Instant;

use super::SessionId;

type Line = VecDeque<(i64, SessionId)>;

/// See the module. A session stands in it once at most.
#[derive(Debug, Default)]
pub(super) struct Turns {
    brief: Line,
    busy: Line,
    /// Of the next one that comes; those that go in front have tickets below `front`.
    back: i64,
    front: i64,
    /// When the first of the busy ones is one no more, or before.
    relief: Option<Instant>,
}

impl Turns {
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.brief.is_empty() && self.busy.is_empty()
    }

    pub fn push_back(&mut self, session: SessionId, busy_until: Option<Instant>) {
        let ticket = self.back;
        self.back += 1;
        self.line_for(busy_until).push_back((ticket, session));
    }

    pub fn push_front(&mut self, session: SessionId, busy_until: Option<Instant>) {
        self.front -= 1;
        let ticket = self.front;
        self.line_for(busy_until).push_front((ticket, session));
    }

    fn line_for(&mut self, busy_until: Option<Instant>) -> &mut Line {
        if busy_until.is_none() {
            return &mut self.brief;
        }
        self.relief = self.relief.into_iter().chain(busy_until).min();
        &mut self.busy
    }

    pub fn remove(&mut self, session: SessionId) {
        for line in [&mut self.brief, &mut self.busy] {
            // the one whose turn it is stands in front
            if let Some(at) = line.iter().position(|(_, one)| *one == session) {
                line.remove(at);
                return;
            }
        }
    }

    pub fn retain(&mut self, keep: impl Fn(&SessionId) -> bool) {
        self.brief.retain(|(_, session)| keep(session));
        self.busy.retain(|(_, session)| keep(session));
    }

    /// Its runs took long.
    pub fn is_busy(&mut self, session: SessionId, until: Instant) {
        let Some(at) = self.brief.iter().position(|(_, one)| *one == session) else { return };
        let Some(one) = self.brief.remove(at) else { return };
        insert(self.line_for(Some(until)), one);
    }

    /// Whether somebody may be busy no more.
    pub fn has_relief(&self, now: Instant) -> bool {
        self.relief.is_some_and(|at| at <= now)
    }

    /// `until`: how long a session is busy still; None: it is not.
    pub fn relieve(&mut self, mut until: impl FnMut(SessionId) -> Option<Instant>) {
        self.relief = None;
        for one in std::mem::take(&mut self.busy) {
            match until(one.1) {
                Some(until) => self.line_for(Some(until)).push_back(one),
                None => insert(&mut self.brief, one),
            }
        }
    }

    /// Those whose runs are brief, in turn.
    pub fn brief(&self) -> impl Iterator<Item = SessionId> {
        self.brief.iter().map(|(_, session)| *session)
    }

    /// All, in turn.
    pub fn all(&self) -> impl Iterator<Item = SessionId> {
        let (mut brief, mut busy) = (self.brief.iter().peekable(), self.busy.iter().peekable());
        std::iter::from_fn(move || {
            let busy_is_next = match (brief.peek(), busy.peek()) {
                (Some((one, _)), Some((other, _))) => other < one,
                (first, _) => first.is_none(),
            };
            let next = if busy_is_next { busy.next() } else { brief.next() };
            next.map(|(_, session)| *session)
        })
    }
}

/// By its ticket.
fn insert(line: &mut Line, one: (i64, SessionId)) {
    let at = line.partition_point(|(ticket, _)| *ticket < one.0);
    line.insert(at, one);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_is_busy_for_a_while_keeps_its_turn_among_all() {
        let now = Instant::now();
        let [soon, later] = [1, 2].map(|s| now + Duration::from_secs(s));
        let mut turns = Turns::default();
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(SessionId);
        for (session, until) in [(a, None), (b, Some(later)), (c, None), (d, Some(soon))] {
            turns.push_back(session, until);
        }
        turns.push_front(e, Some(later));
        let all = |turns: &Turns| turns.all().collect::<Vec<_>>();
        assert_eq!((all(&turns), turns.brief().collect::<Vec<_>>()), (vec![e, a, b, c, d], vec![a, c]));
        turns.is_busy(a, soon);
        turns.is_busy(a, later);
        assert_eq!((all(&turns), turns.brief().collect::<Vec<_>>()), (vec![e, a, b, c, d], vec![c]));
        assert!(!turns.has_relief(now) && turns.has_relief(soon));
        turns.relieve(|session| (![a, d].contains(&session)).then_some(later));
        assert_eq!((all(&turns), turns.brief().collect::<Vec<_>>()), (vec![e, a, b, c, d], vec![a, c, d]));
        assert!(!turns.has_relief(soon) && turns.has_relief(later));
        turns.remove(e);
        turns.remove(c);
        turns.retain(|session| *session != d);
        assert_eq!((all(&turns), turns.brief().collect::<Vec<_>>()), (vec![a, b], vec![a]));
        turns.relieve(|_| None);
        turns.retain(|_| false);
        assert!(turns.is_empty() && !turns.has_relief(later));
    }
}
