//! Walks over a tree cannot be left half way: the visitor of the tree has no way out. So a walk asks at each statement and
//! expression whether its request still has time, and goes into none of them any more once it has not.

use crate::token::{Steps, StopCause, StopToken};

/// Nodes between two looks at the token: some microseconds.
const NODES: u32 = 256;

/// Of one walk.
pub(super) struct Pace<'t> {
    steps: Steps<'t>,
    stopped: Option<StopCause>,
}

impl<'t> Pace<'t> {
    pub(super) fn new(token: &'t StopToken) -> Self {
        Self { steps: token.every(NODES), stopped: None }
    }

    /// One node more. False: nothing behind this counts any more.
    #[inline]
    pub(super) fn goes_on(&mut self) -> bool {
        if self.stopped.is_none() {
            self.stopped = self.steps.step().err();
        }
        self.stopped.is_none()
    }

    /// What the walk has found, if it came to its end.
    pub(super) fn finish<T>(self, found: T) -> Result<T, StopCause> {
        self.stopped.map_or(Ok(found), Err)
    }
}
