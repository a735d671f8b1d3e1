//! How long a run waits for its extensions: `suspensionTimeoutMs` for each call, since the sidecar drops an execution soon after.
//!
//! Invariant: all calls of a run may take the same time, so the first that began is the first that is late. One alarm does for all
//! of them; one that comes early does no harm.

use std::collections::VecDeque;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::alarm::Alarm;

/// See the module.
pub(crate) struct Patience {
    /// For one call; `None`: for ever.
    each: Option<Duration>,
    last: u64,
    /// When calls are late, the first that began first; some of them may be answered.
    begun: VecDeque<(Instant, Begun)>,
    alarm: Option<Alarm>,
}

/// A call that is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// No other call of the run has it.
    pub(crate) number: u64,
    /// Where it stands while it is at work.
    pub(crate) place: usize,
}

impl Patience {
    /// `ms`: for one call; 0: for ever.
    pub(crate) fn new(ms: u64) -> Self {
        let each = (ms > 0).then(|| Duration::from_millis(ms));
        Self { each, last: 0, begun: VecDeque::new(), alarm: None }
    }

    /// A number for a call.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// When a call that begins now is late.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.each.and_then(|each| Instant::now().checked_add(each))
    }

    pub(crate) fn begin(&mut self, call: Begun) {
        if let Some(late) = self.deadline() {
            self.begun.push_back((late, call));
        }
    }

    /// Calls that are late, each once. Who polls is woken when the next one is.
    pub(crate) fn poll(&mut self, context: &Context<'_>, is_at_work: impl Fn(&Begun) -> bool) -> Vec<Begun> {
        let mut all_late = Vec::new();
        while let Some((late, call)) = self.begun.front() {
            let now = Instant::now();
            if is_at_work(call) {
                if *late > now {
                    self.wake_at(*late, now, context);
                    break;
                }
                all_late.push(*call);
            }
            self.begun.pop_front();
        }
        all_late
    }

    fn wake_at(&mut self, late: Instant, now: Instant, context: &Context<'_>) {
        match &self.alarm {
            Some(alarm) if alarm.due() > now && alarm.due() <= late => alarm.wakes(context.waker()),
            _ => self.alarm = Some(Alarm::at(late, context.waker())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::thread::sleep;

    use super::*;

    #[test]
    fn calls_are_late_in_turn_and_once_and_those_that_were_answered_never() {
        const MS: u64 = 20;
        let mut patience = Patience::new(MS);
        let calls = [0, 1, 2].map(|place| Begun { number: patience.next(), place });
        let context = Context::from_waker(Waker::noop());
        for call in calls {
            patience.begin(call);
        }
        let at_work = |call: &Begun| call.place != 1;
        assert_eq!(patience.poll(&context, at_work), []);
        sleep(Duration::from_millis(MS + 1));
        assert_eq!(patience.poll(&context, at_work), [calls[0], calls[2]]);
        assert_eq!(patience.poll(&context, at_work), []);
    }

    #[test]
    fn without_a_limit_no_call_is_late() {
        let mut patience = Patience::new(0);
        let call = Begun { number: patience.next(), place: 0 };
        patience.begin(call);
        assert_eq!(patience.poll(&Context::from_waker(Waker::noop()), |_| true), []);
        assert!(patience.alarm.is_none());
    }
}
