//! What a handler logs, for somebody who wants to hear it while the handler runs.
//!
//! The guest's thread puts records in; whoever has the connections takes them out and appends them to one. At the end of the segment
//! the guest's thread takes what is left, for the answer.
//!
//! Invariants: a record is taken out once, and in order; a part has records of one segment, and goes with the request that this one
//! answers, however late somebody comes to tell it; none is taken for a part once the segment is closed, so that no part comes behind
//! the answer. Whether there is something to tell is known without the lock: the watchdog asks that, with the books in hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::EffectList;
use nexus_protocol::limits::LOGS_INTERVAL_MS;

const INTERVAL: Duration = Duration::from_millis(LOGS_INTERVAL_MS);
const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct LiveLogs {
    began: Instant,
    /// Records wait, and nobody has been asked to tell them.
    waits: AtomicBool,
    /// When the last part was told, in microseconds since `began`.
    told: AtomicU64,
    /// Number of the present segment.
    present: AtomicU64,
    segment: Mutex<Segment>,
}

/// What is logged in one segment. Where another has begun since, there is nothing to tell of it.
#[derive(Clone, Debug)]
pub struct SegmentLogs {
    live: Arc<LiveLogs>,
    number: u64,
}

#[derive(Debug)]
struct Segment {
    records: EffectList,
    /// Its answer is being made, or has been.
    closed: bool,
}

impl Default for LiveLogs {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            waits: AtomicBool::new(false),
            told: AtomicU64::new(NEVER),
            present: AtomicU64::new(0),
            segment: Mutex::new(Segment { records: EffectList::new(), closed: false }),
        }
    }
}

impl LiveLogs {
    fn lock(&self) -> MutexGuard<'_, Segment> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment begins.
    pub fn open(self: &Arc<Self>) -> SegmentLogs {
        let mut segment = self.lock();
        segment.closed = false;
        let number = self.present.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        SegmentLogs { live: self.clone(), number }
    }

    pub fn push(&self, level: &str, message: &str, timestamp_ms: f64) {
        self.lock().records.push_log(level, message, timestamp_ms);
        self.waits.store(true, Ordering::Release);
    }

    /// The segment is over: what nobody was told, for its answer.
    pub fn close(&self) -> EffectList {
        let mut segment = self.lock();
        segment.closed = true;
        self.waits.store(false, Ordering::Release);
        std::mem::take(&mut segment.records)
    }
}

impl SegmentLogs {
    /// Whether somebody should tell what waits. Said once: whoever is asked calls `tell`.
    pub fn is_due(&self, now: Instant) -> bool {
        let LiveLogs { began, told, waits, present, .. } = &*self.live;
        let told = told.load(Ordering::Acquire);
        let is_early = told != NEVER && now.saturating_duration_since(*began) < Duration::from_micros(told) + INTERVAL;
        !is_early && present.load(Ordering::Acquire) == self.number && waits.swap(false, Ordering::AcqRel)
    }

    /// Tells what waits, unless the segment is over. `tell` says whether it did: what was not told is told later.
    pub fn tell(&self, now: Instant, tell: impl FnOnce(&[u8]) -> bool) {
        let live = &self.live;
        let mut segment = live.lock();
        let Some(records) = segment.records.payload().filter(|_| !segment.closed) else { return };
        if live.present.load(Ordering::Acquire) != self.number {
            // what was asked for was the present one's
            return live.waits.store(true, Ordering::Release);
        }
        if tell(records) {
            segment.records = EffectList::new();
        } else {
            live.waits.store(true, Ordering::Release);
        }
        let since = now.saturating_duration_since(live.began).as_micros();
        live.told.store(u64::try_from(since).unwrap_or(NEVER - 1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_told_once_not_too_often_and_never_behind_the_answer() {
        let (logs, now) = (Arc::<LiveLogs>::default(), Instant::now());
        let live = logs.open();
        let tell = |live: &SegmentLogs, now| {
            let mut told = String::new();
            live.tell(now, |records| {
                told = String::from_utf8_lossy(records).into_owned();
                true
            });
            ["first", "second", "third", "fourth"].into_iter().filter(|text| told.contains(text)).collect::<Vec<_>>()
        };
        assert!(!live.is_due(now), "there is nothing");
        logs.push("info", "first", 1.0);
        assert!(live.is_due(now) && !live.is_due(now), "said once");
        assert_eq!(tell(&live, now), ["first"]);
        logs.push("info", "second", 1.0);
        assert!(!live.is_due(now + INTERVAL / 2) && live.is_due(now + INTERVAL * 2));
        // who does not read is told later
        live.tell(now + INTERVAL * 2, |_| false);
        assert!(!live.is_due(now + INTERVAL * 2) && live.is_due(now + INTERVAL * 4));
        assert_eq!(tell(&live, now + INTERVAL * 4), ["second"]);
        logs.push("info", "third", 1.0);
        assert!(live.is_due(now + INTERVAL * 8));
        assert!(logs.close().payload().is_some(), "left for the answer");
        live.tell(now + INTERVAL * 8, |_| panic!("behind the answer"));
        let next = logs.open();
        logs.push("info", "fourth", 1.0);
        // who comes late for the segment before leaves it to who comes for this one
        assert!(!live.is_due(now + INTERVAL * 16));
        live.tell(now + INTERVAL * 16, |_| panic!("with the request before"));
        assert!(next.is_due(now + INTERVAL * 16));
        assert_eq!(tell(&next, now + INTERVAL * 16), ["fourth"]);
        assert!(logs.close().payload().is_none());
    }
}
