//! The extension calls of one execution. The sidecar tells of a call once, in the answer of the segment that made it (SPEC 3);
//! which calls are outstanding after a segment is known here.
//!
//! Invariants: segments come in the order of their `seq`; calls stand in the order in which they were made. A segment costs what
//! it made, however many calls wait: the list of them all is made when somebody looks at it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock};

use crate::segment::{Segment, Suspension};
use crate::slot::lock;

type History = Arc<Mutex<Vec<Call>>>;

struct Call {
    suspension: Suspension,
    /// The segment that its answer began.
    answered: Option<u32>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Calls {
    /// All calls since none was outstanding: what lists of segments since then may have to show.
    history: History,
    /// Those that wait, by their place in the history.
    waiting: HashMap<String, usize>,
    /// None before this place waits.
    first: usize,
}

impl Calls {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_waiting(&self, suspension: &str) -> bool {
        self.waiting.contains_key(suspension)
    }

    /// Ids of those that wait.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.waiting.keys().map(String::as_str)
    }

    /// The first call that waits.
    pub(crate) fn oldest(&mut self) -> Option<Suspension> {
        let history = lock(&self.history);
        while history.get(self.first).is_some_and(|call| call.answered.is_some()) {
            self.first += 1;
        }
        history.get(self.first).map(|call| call.suspension.clone())
    }

    /// A segment that began with the answer to the call `answered` is suspended: gives it the list of what is outstanding in
    /// place of what it made, and returns that.
    pub(crate) fn segment(&mut self, segment: &mut Segment, answered: Option<&str>) -> Vec<Suspension> {
        let made = segment.suspensions.made();
        if let Some(place) = answered.and_then(|id| self.waiting.remove(id))
            && let Some(call) = lock(&self.history).get_mut(place)
        {
            call.answered = Some(segment.seq);
        }
        let alone = self.waiting.is_empty();
        if alone {
            // Lists of earlier segments keep the history that they were made for.
            self.history = History::default();
            self.first = 0;
        }
        let mut history = lock(&self.history);
        let new_from = history.len();
        for suspension in &made {
            self.waiting.insert(suspension.id.clone(), history.len());
            history.push(Call { suspension: suspension.clone(), answered: None });
        }
        let until = history.len();
        drop(history);
        if !alone {
            let first = self.oldest();
            let looked_up = Lookup { history: Arc::clone(&self.history), new_from, until, seq: segment.seq, first };
            segment.suspensions = Suspensions { lookup: Some(looked_up), list: OnceLock::new() };
        }
        made
    }
}

/// The extension calls that are outstanding after a segment, in the order in which the handler made them. A slice, made when
/// it is first looked at as one: `first` and `is_empty` cost nothing.
#[derive(Clone, Default)]
pub struct Suspensions {
    /// Where the list comes from; None: it is there.
    lookup: Option<Lookup>,
    list: OnceLock<Vec<Suspension>>,
}

#[derive(Clone)]
struct Lookup {
    history: History,
    /// The part of the history that the segment made.
    new_from: usize,
    until: usize,
    seq: u32,
    first: Option<Suspension>,
}

impl Suspensions {
    /// The first of them.
    pub fn first(&self) -> Option<&Suspension> {
        match &self.lookup {
            Some(lookup) => lookup.first.as_ref(),
            None => self.all().first(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Those that the segment itself made.
    pub(crate) fn made(&self) -> Vec<Suspension> {
        let Some(Lookup { history, new_from, until, .. }) = &self.lookup else { return self.all().to_vec() };
        let history = lock(history);
        history.get(*new_from..*until).unwrap_or_default().iter().map(|call| call.suspension.clone()).collect()
    }

    fn all(&self) -> &[Suspension] {
        self.list.get_or_init(|| {
            let Some(Lookup { history, until, seq, .. }) = &self.lookup else { return Vec::new() };
            let history = lock(history);
            let waited = |call: &&Call| call.answered.is_none_or(|answered| answered > *seq);
            history.iter().take(*until).filter(waited).map(|call| call.suspension.clone()).collect()
        })
    }
}

impl From<Vec<Suspension>> for Suspensions {
    fn from(list: Vec<Suspension>) -> Self {
        Self { lookup: None, list: list.into() }
    }
}

impl Deref for Suspensions {
    type Target = [Suspension];

    fn deref(&self) -> &[Suspension] {
        self.all()
    }
}

impl<'a> IntoIterator for &'a Suspensions {
    type Item = &'a Suspension;
    type IntoIter = std::slice::Iter<'a, Suspension>;

    fn into_iter(self) -> Self::IntoIter {
        self.all().iter()
    }
}

impl std::fmt::Debug for Suspensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nexus_protocol::message::{PendingCall, SegmentResult, Status};

    use super::*;

    /// A suspended segment that made these calls.
    pub(crate) fn suspended(seq: u32, made: &[&str]) -> Segment {
        let mut result = SegmentResult::new(Status::Suspended, seq);
        result.suspensions =
            made.iter().map(|id| PendingCall { id, extension: "e", method: "m", args: &[0x90] }).collect();
        result.into()
    }

    fn ids(suspensions: &[Suspension]) -> Vec<&str> {
        suspensions.iter().map(|suspension| &*suspension.id).collect()
    }

    #[test]
    fn every_segment_lists_what_is_outstanding_after_it_whenever_it_is_looked_at() {
        let mut calls = Calls::default();
        let mut segments = Vec::new();
        let mut end = |seq, answered: Option<&str>, made: &[&str]| {
            let mut segment = suspended(seq, made);
            assert_eq!(ids(&calls.segment(&mut segment, answered)), made);
            segments.push(segment);
        };
        end(0, None, &["a", "b", "c"]);
        end(1, Some("b"), &[]);
        end(2, Some("a"), &["d", "e"]);
        end(3, Some("c"), &["f"]);
        end(4, Some("e"), &[]);
        end(5, Some("d"), &[]);
        end(6, Some("f"), &["g", "h"]);
        end(7, Some("h"), &[]);
        let wanted: [&[&str]; 8] = [
            &["a", "b", "c"],
            &["a", "c"],
            &["c", "d", "e"],
            &["d", "e", "f"],
            &["d", "f"],
            &["f"],
            &["g", "h"],
            &["g"],
        ];
        for (segment, wanted) in segments.iter().zip(wanted) {
            assert_eq!(segment.suspension().map(|call| &*call.id), wanted.first().copied());
            assert_eq!(ids(&segment.suspensions), wanted, "{}", segment.seq);
            assert_eq!(ids(&segment.clone().suspensions), wanted);
            assert_eq!((segment.suspensions.len(), segment.suspensions.is_empty()), (wanted.len(), false));
        }
        assert_eq!((calls.len(), calls.is_waiting("g"), calls.is_waiting("h")), (1, true, false));
    }
}
