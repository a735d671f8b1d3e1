//! Whose turn it is: sessions that have something in their queue, in the order in which they came.
//!
//! They stand in lines by what is known of their runs, so that the last free instance, which is not for everybody, is given out
//! without a look at each. Whoever is next of all has the lowest ticket. A session is in the line that was right when somebody last
//! asked; to move it costs as much as there are sessions, and a session moves for a run that was long, for the first brief one after
//! that, and when it begins to run often.

use std::collections::VecDeque;
use std::time::Instant;

use super::SessionId;

/// What is known of the runs of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// The last one was brief.
    Brief,
    /// It has had none, or long ones long ago.
    #[default]
    Unknown,
    /// They are brief, and use much of the processors: until then it runs often.
    Often(Instant),
    /// They took long: until then it is busy.
    Busy(Instant),
}

impl Standing {
    /// Of one that is not so for good.
    pub fn until(self) -> Option<Instant> {
        match self {
            Self::Brief | Self::Unknown => None,
            Self::Often(until) | Self::Busy(until) => Some(until),
        }
    }
}

type Line = VecDeque<(i64, SessionId)>;

static EMPTY: Line = VecDeque::new();

/// See the module. A session stands in one line, once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    brief: Line,
    unknown: Line,
    /// And those that run often.
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
        self.all(false).next().is_none()
    }

    pub fn push_back(&mut self, session: SessionId, standing: Standing) {
        let ticket = self.back;
        self.back += 1;
        self.line_for(standing).push_back((ticket, session));
    }

    pub fn push_front(&mut self, session: SessionId, standing: Standing) {
        self.front -= 1;
        let ticket = self.front;
        self.line_for(standing).push_front((ticket, session));
    }

    fn line_for(&mut self, standing: Standing) -> &mut Line {
        match standing {
            Standing::Brief => &mut self.brief,
            Standing::Unknown => &mut self.unknown,
            Standing::Often(until) | Standing::Busy(until) => {
                self.relief = self.relief.into_iter().chain([until]).min();
                &mut self.busy
            }
        }
    }

    fn lines(&mut self) -> [&mut Line; 3] {
        [&mut self.brief, &mut self.unknown, &mut self.busy]
    }

    /// None: it stands nowhere.
    fn take(&mut self, session: SessionId) -> Option<(i64, SessionId)> {
        self.lines().into_iter().find_map(|line| {
            // the one whose turn it is stands in front
            let at = line.iter().position(|(_, one)| *one == session)?;
            line.remove(at)
        })
    }

    pub fn remove(&mut self, session: SessionId) {
        self.take(session);
    }

    pub fn retain(&mut self, keep: impl Fn(&SessionId) -> bool) {
        self.lines().into_iter().for_each(|line| line.retain(|(_, session)| keep(session)));
    }

    /// Something else is known of a session.
    pub fn is_now(&mut self, session: SessionId, standing: Standing) {
        if let Some(one) = self.take(session) {
            insert(self.line_for(standing), one);
        }
    }

    /// Whether somebody may be busy no more.
    pub fn has_relief(&self, now: Instant) -> bool {
        self.relief.is_some_and(|at| at <= now)
    }

    /// `standing`: what is known now of those that were busy.
    pub fn relieve(&mut self, mut standing: impl FnMut(SessionId) -> Standing) {
        self.relief = None;
        for one in std::mem::take(&mut self.busy) {
            insert(self.line_for(standing(one.1)), one);
        }
    }

    /// Those whose runs are brief, in turn.
    pub fn brief(&self) -> impl Iterator<Item = SessionId> {
        self.brief.iter().map(|(_, session)| *session)
    }

    /// Those of whom nothing is known.
    pub fn unknown(&self) -> impl Iterator<Item = SessionId> {
        self.unknown.iter().map(|(_, session)| *session)
    }

    /// Whether one of them is busy, or runs often.
    pub fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// All, in turn; without those that are busy or run often, if so asked.
    pub fn all(&self, without_busy: bool) -> impl Iterator<Item = SessionId> {
        let busy = if without_busy { &EMPTY } else { &self.busy };
        let mut lines = [&self.brief, &self.unknown, busy].map(|line| line.iter().peekable());
        std::iter::from_fn(move || {
            let ticket_of =
                |line: &mut std::iter::Peekable<_>| line.peek().map(|(ticket, _): &&(i64, SessionId)| *ticket);
            let first =
                lines.iter_mut().filter_map(|line| Some((ticket_of(line)?, line))).min_by_key(|(ticket, _)| *ticket);
            first.and_then(|(_, line)| line.next()).map(|(_, session)| *session)
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

    use super::Standing::{Brief, Busy, Often, Unknown};
    use super::*;

    #[test]
    fn whatever_is_known_of_a_session_it_keeps_its_turn_among_all() {
        let now = Instant::now();
        let [soon, later] = [1, 2].map(|s| now + Duration::from_secs(s));
        let mut turns = Turns::default();
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(SessionId);
        for (session, standing) in [(a, Unknown), (b, Busy(later)), (c, Brief), (d, Busy(soon))] {
            turns.push_back(session, standing);
        }
        turns.push_front(e, Busy(later));
        let lines =
            |turns: &Turns| [turns.all(false).collect::<Vec<_>>(), turns.brief().collect(), turns.unknown().collect()];
        assert_eq!(lines(&turns), [vec![e, a, b, c, d], vec![c], vec![a]]);
        assert!(turns.has_busy() && turns.all(true).eq([a, c]));
        turns.is_now(a, Often(soon));
        turns.is_now(c, Unknown);
        assert_eq!(lines(&turns), [vec![e, a, b, c, d], vec![], vec![c]]);
        assert!(!turns.has_relief(now) && turns.has_relief(soon));
        turns.relieve(|session| if [a, d].contains(&session) { Unknown } else { Busy(later) });
        assert_eq!(lines(&turns), [vec![e, a, b, c, d], vec![], vec![a, c, d]]);
        assert!(!turns.has_relief(soon) && turns.has_relief(later));
        turns.remove(e);
        turns.is_now(c, Brief);
        turns.retain(|session| *session != d);
        assert_eq!(lines(&turns), [vec![a, b, c], vec![c], vec![a]]);
        turns.is_now(d, Brief);
        turns.relieve(|_| Unknown);
        assert_eq!(lines(&turns), [vec![a, b, c], vec![c], vec![a, b]]);
        turns.retain(|_| false);
        assert!(turns.is_empty() && !turns.has_relief(later));
    }
}
