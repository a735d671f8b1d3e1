//! Suspended executions of one connection whose calls are listed: of `Client::execute` and `resume`, which see one segment at
//! a time.
//!
//! Invariants: segments of one execution are handed out in the order of their `seq`, whatever order the answers come in, each
//! with the calls that are outstanding after it; one that came too early waits for those before it, and no longer than requests
//! of its execution are unanswered. Bounded in number, bytes and time: an execution that was still for longer than the sidecar
//! keeps it, or the stillest one where there are too many, is forgotten; what comes of it then names new calls only.
//! Slots are filled outside of the lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{CLIENT_LISTED_BYTES, CLIENT_LISTED_CALLS};

use crate::calls::Calls;
use crate::error::Error;
use crate::link::{Answer, AnswerSlot};
use crate::segment::Segment;
use crate::slot::lock;
use crate::told::{ErrorCode, Status};

/// See the module.
pub(crate) struct Listed {
    book: Mutex<Book>,
    /// The sidecar has noticed by then that nobody goes on with an execution. None: it keeps them for ever.
    kept: Option<Duration>,
}

#[derive(Default)]
struct Book {
    last: u64,
    executions: HashMap<u64, Execution>,
    by_call: HashMap<String, u64>,
    /// By when they were touched, the stillest first.
    still: BTreeMap<u64, u64>,
    /// Of the arguments of all calls.
    bytes: usize,
}

struct Execution {
    calls: Calls,
    bytes: usize,
    /// Its place in `still`.
    touch: u64,
    touched: Instant,
    /// `seq` of the segment that comes next.
    next: u32,
    /// Resumes without an answer.
    unanswered: usize,
    /// Segments that came before one with a lower `seq`.
    early: BTreeMap<u32, Early>,
    /// Calls that the sidecar did not know when they were answered.
    unknown: Vec<String>,
}

struct Early {
    slot: Arc<AnswerSlot>,
    segment: Box<Segment>,
    answered: String,
}

/// An answer that may be handed out.
pub(crate) type Ready = (Arc<AnswerSlot>, Result<Answer, Error>);

/// A request of an execution, until it is answered.
pub(crate) struct Listing {
    listed: Arc<Listed>,
    /// The execution that it goes on with, and the call that it answers; None: it begins one.
    resumed: Option<(u64, String)>,
}

impl Listed {
    pub(crate) fn new(suspension_kept_ms: u64) -> Arc<Self> {
        let kept = (suspension_kept_ms > 0).then(|| Duration::from_millis(suspension_kept_ms) * 3 / 2);
        Arc::new(Self { book: Mutex::default(), kept })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Listing {
        Listing { listed: Arc::clone(self), resumed: None }
    }

    /// None: nothing is known of this suspension.
    pub(crate) fn resume(self: &Arc<Self>, suspension: &str) -> Option<Listing> {
        let mut book = lock(&self.book);
        let key = *book.by_call.get(suspension)?;
        book.executions.get_mut(&key)?.unanswered += 1;
        Some(Listing { listed: Arc::clone(self), resumed: Some((key, suspension.to_owned())) })
    }

    /// The execution of this suspension is being cancelled.
    pub(crate) fn cancelled(&self, suspension: &str) {
        let mut ready = Vec::new();
        {
            let mut book = lock(&self.book);
            if let Some(&key) = book.by_call.get(suspension) {
                book.end(key, &mut ready);
            }
        }
        fill(ready);
    }

    /// The connection has ended.
    pub(crate) fn close(&self) {
        let book = std::mem::take(&mut *lock(&self.book));
        for execution in book.executions.into_values() {
            fill(execution.early.into_values().map(Early::ready).collect());
        }
    }
}

impl Listing {
    /// Takes its answer. What may be handed out, in order.
    pub(crate) fn answered(mut self, slot: Arc<AnswerSlot>, result: Result<Answer, Error>) -> Vec<Ready> {
        let listed = Arc::clone(&self.listed);
        let mut book = lock(&listed.book);
        let Some((key, suspension)) = self.resumed.take() else {
            let mut ready = Vec::new();
            match result {
                Ok(Answer::Segment(mut segment)) if segment.status == Status::Suspended => {
                    book.begun(&mut segment);
                    ready.push((slot, Ok(Answer::Segment(segment))));
                    book.make_room(listed.kept, &mut ready);
                }
                result => ready.push((slot, result)),
            }
            return ready;
        };
        let mut ready = Vec::new();
        match result {
            Ok(Answer::Segment(segment)) => book.take(key, Early { slot, segment, answered: suspension }, &mut ready),
            result => ready.push((slot, result)),
        }
        book.settle(key, &mut ready);
        ready
    }
}

impl Drop for Listing {
    /// A request that fails brings no segment either.
    fn drop(&mut self) {
        let Some((key, _)) = self.resumed.take() else { return };
        let mut ready = Vec::new();
        lock(&self.listed.book).settle(key, &mut ready);
        fill(ready);
    }
}

/// Where nobody can be asked what becomes of an answer that was not heard: the execution is over, or its connection.
fn fill(ready: Vec<Ready>) {
    for (slot, result) in ready {
        slot.fill(result);
    }
}

impl Early {
    fn ready(self) -> Ready {
        (self.slot, Ok(Answer::Segment(self.segment)))
    }
}

impl Book {
    fn begun(&mut self, segment: &mut Segment) {
        self.last += 1;
        let key = self.last;
        let execution = Execution {
            calls: Calls::default(),
            bytes: 0,
            touch: 0,
            touched: Instant::now(),
            next: 0,
            unanswered: 0,
            early: BTreeMap::new(),
            unknown: Vec::new(),
        };
        self.executions.insert(key, execution);
        self.segment(key, segment, None);
    }

    /// The answer to a resume.
    fn take(&mut self, key: u64, early: Early, ready: &mut Vec<Ready>) {
        let Some(execution) = self.executions.get_mut(&key) else { return ready.push(early.ready()) };
        let Segment { seq, error, .. } = &*early.segment;
        if *seq == 0 {
            // No segment of any execution (SPEC 3): the call waits as before, if the execution is still there.
            if error.as_ref().is_some_and(|error| error.code == ErrorCode::SuspensionError) {
                execution.unknown.push(early.answered.clone());
            }
            return ready.push(early.ready());
        }
        execution.early.insert(*seq, early);
        while let Some(execution) = self.executions.get_mut(&key)
            && let Some(entry) = execution.early.first_entry()
            && *entry.key() <= execution.next
        {
            let early = entry.remove();
            self.hand_out(key, early, ready);
        }
    }

    fn hand_out(&mut self, key: u64, mut early: Early, ready: &mut Vec<Ready>) {
        let over = early.segment.status != Status::Suspended;
        if !over {
            self.segment(key, &mut early.segment, Some(&early.answered));
        }
        ready.push(early.ready());
        if over {
            self.end(key, ready);
        }
    }

    /// A suspended segment in its turn.
    fn segment(&mut self, key: u64, segment: &mut Segment, answered: Option<&str>) {
        let Self { last: _, executions, by_call, still, bytes } = self;
        let Some(execution) = executions.get_mut(&key) else { return };
        if let Some(answered) = answered {
            by_call.remove(answered);
        }
        execution.next = segment.seq.saturating_add(1);
        let made = execution.calls.segment(segment, answered);
        let made_bytes: usize = made.iter().map(|call| call.args.as_bytes().len()).sum();
        // Where all are new, those before them have left the list.
        let listed = if execution.calls.len() == made.len() { made_bytes } else { execution.bytes + made_bytes };
        *bytes = *bytes - execution.bytes + listed;
        execution.bytes = listed;
        by_call.extend(made.into_iter().map(|call| (call.id, key)));
        still.remove(&execution.touch);
        self.last += 1;
        (execution.touch, execution.touched) = (self.last, Instant::now());
        still.insert(execution.touch, key);
    }

    /// A resume was answered or has failed. Once none is unanswered, what was waited for does not come.
    fn settle(&mut self, key: u64, ready: &mut Vec<Ready>) {
        let Some(execution) = self.executions.get_mut(&key) else { return };
        execution.unanswered = execution.unanswered.saturating_sub(1);
        if execution.unanswered > 0 {
            return;
        }
        let unknown = std::mem::take(&mut execution.unknown);
        for early in std::mem::take(&mut execution.early).into_values() {
            self.hand_out(key, early, ready);
        }
        let Some(execution) = self.executions.get_mut(&key) else { return };
        execution.touched = Instant::now();
        // A call that was answered twice is on no list any more.
        if unknown.iter().any(|id| execution.calls.is_waiting(id)) {
            self.end(key, ready);
        }
    }

    /// Nothing is left of it.
    fn end(&mut self, key: u64, ready: &mut Vec<Ready>) {
        let Some(execution) = self.executions.remove(&key) else { return };
        for id in execution.calls.ids() {
            self.by_call.remove(id);
        }
        self.still.remove(&execution.touch);
        self.bytes -= execution.bytes;
        ready.extend(execution.early.into_values().map(Early::ready));
    }

    /// Those that are forgotten by the sidecar go, and the stillest ones where there are too many.
    fn make_room(&mut self, kept: Option<Duration>, ready: &mut Vec<Ready>) {
        while self.executions.len() > 1
            && let Some((_, &key)) = self.still.first_key_value()
            && let Some(execution) = self.executions.get(&key)
        {
            let expired = execution.unanswered == 0 && kept.is_some_and(|kept| execution.touched.elapsed() >= kept);
            if !expired && self.bytes <= CLIENT_LISTED_BYTES && self.by_call.len() <= CLIENT_LISTED_CALLS {
                break;
            }
            self.end(key, ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::WireError;
    use nexus_protocol::message::SegmentResult;

    use super::*;
    use crate::calls::tests::suspended;
    use crate::slot::Slot;

    /// Answers a request with this segment. What could be handed out: `seq` of each, and its list.
    fn answer(listing: Listing, segment: Segment) -> Vec<(u32, Vec<String>)> {
        let ready = listing.answered(Slot::new(), Ok(Answer::Segment(Box::new(segment))));
        ready.into_iter().map(|(_, result)| described(result)).collect()
    }

    fn described(result: Result<Answer, Error>) -> (u32, Vec<String>) {
        let Ok(Answer::Segment(segment)) = result else { panic!("a segment: {result:?}") };
        (segment.seq, segment.suspensions.iter().map(|call| call.id.clone()).collect())
    }

    fn failed(seq: u32, code: ErrorCode) -> Segment {
        let mut result = SegmentResult::new(Status::Error.wire(), seq);
        result.error = Some(WireError::new(code.wire(), "expected by the test"));
        result.into()
    }

    fn listed_with(calls: &[&str]) -> Arc<Listed> {
        let listed = Listed::new(30_000);
        answer(listed.begin(), suspended(0, calls));
        listed
    }

    fn is_empty(listed: &Listed) -> bool {
        let book = lock(&listed.book);
        let Book { last: _, executions, by_call, still, bytes } = &*book;
        executions.is_empty() && by_call.is_empty() && still.is_empty() && *bytes == 0
    }

    fn lists(expected: &[(u32, &[&str])]) -> Vec<(u32, Vec<String>)> {
        expected.iter().map(|(seq, ids)| (*seq, ids.iter().map(|id| (*id).to_owned()).collect())).collect()
    }

    #[test]
    fn answers_in_any_order_are_handed_out_by_seq_with_their_own_lists() {
        let listed = listed_with(&["a", "b", "c", "d"]);
        let [a, b, c] = ["a", "b", "c"].map(|id| listed.resume(id).unwrap());
        assert_eq!(answer(c, suspended(3, &["e"])), []);
        assert_eq!(answer(a, suspended(2, &[])), []);
        let wanted: [(u32, &[&str]); 3] = [(1, &["a", "c", "d"]), (2, &["c", "d"]), (3, &["d", "e"])];
        assert_eq!(answer(b, suspended(1, &[])), lists(&wanted));
        let [d, e] = ["d", "e"].map(|id| listed.resume(id).unwrap());
        assert_eq!(answer(e, failed(5, ErrorCode::Timeout)), []);
        assert_eq!(answer(d, suspended(4, &[])), lists(&[(4, &["e"]), (5, &[])]));
        assert!(is_empty(&listed), "it is over");
    }

    #[test]
    fn a_segment_that_never_comes_is_not_waited_for() {
        let listed = listed_with(&["a", "b", "c"]);
        let [a, b] = ["a", "b"].map(|id| listed.resume(id).unwrap());
        assert_eq!(answer(b, suspended(2, &["d"])), []);
        let ready = a.answered(Slot::new(), Err(Error::Cancelled));
        assert!(matches!(ready[0].1, Err(Error::Cancelled)));
        assert_eq!(described(ready.into_iter().nth(1).unwrap().1), lists(&[(2, &["a", "c", "d"])])[0]);
        let [a, c] = ["a", "c"].map(|id| listed.resume(id).unwrap());
        let slot = Slot::new();
        assert!(c.answered(Arc::clone(&slot), Ok(Answer::Segment(Box::new(suspended(4, &[]))))).is_empty());
        drop(a);
        let answered = crate::slot::block_on(std::future::poll_fn(|context| slot.poll(context)));
        assert_eq!(described(answered), lists(&[(4, &["a", "d"])])[0]);
    }

    #[test]
    fn a_refused_value_leaves_the_call_and_an_unknown_one_ends_the_list() {
        let listed = listed_with(&["a", "b"]);
        assert_eq!(answer(listed.resume("a").unwrap(), failed(0, ErrorCode::InvalidArgument)), lists(&[(0, &[])]));
        assert_eq!(answer(listed.resume("b").unwrap(), suspended(1, &["c"])), lists(&[(1, &["a", "c"])]));
        let [first, second] = [(); 2].map(|()| listed.resume("a").unwrap());
        assert_eq!(answer(second, failed(0, ErrorCode::SuspensionError)), lists(&[(0, &[])]), "it is used already");
        assert_eq!(answer(first, suspended(2, &[])), lists(&[(2, &["c"])]));
        assert!(listed.resume("a").is_none());
        answer(listed.resume("c").unwrap(), failed(0, ErrorCode::SuspensionError));
        assert!(is_empty(&listed), "the execution has expired");
    }

    #[test]
    fn cancel_and_the_end_of_the_connection_leave_nothing() {
        let listed = listed_with(&["a", "b"]);
        let [a, b] = ["a", "b"].map(|id| listed.resume(id).unwrap());
        assert_eq!(answer(b, suspended(2, &[])), []);
        listed.cancelled("a");
        assert!(is_empty(&listed));
        assert_eq!(answer(a, failed(1, ErrorCode::Cancelled)), lists(&[(1, &[])]));
        answer(listed.begin(), suspended(0, &["c", "d"]));
        let [c, d] = ["c", "d"].map(|id| listed.resume(id).unwrap());
        assert_eq!(answer(d, suspended(2, &[])), []);
        listed.close();
        assert!(is_empty(&listed));
        drop(c);
    }

    #[test]
    fn lists_are_bounded_in_number_and_expire() {
        let many: Vec<String> = (0..CLIENT_LISTED_CALLS / 2 + 1).map(|n| n.to_string()).collect();
        let ids: Vec<&str> = many.iter().map(String::as_str).collect();
        let listed = listed_with(&["a"]);
        answer(listed.begin(), suspended(0, &ids));
        assert!(listed.resume("a").is_some());
        let more: Vec<String> = many.iter().map(|id| format!("x{id}")).collect();
        answer(listed.begin(), suspended(0, &more.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(listed.resume("a").is_none() && listed.resume("0").is_none() && listed.resume("x0").is_some());
        let short = Listed::new(1);
        answer(short.begin(), suspended(0, &["a"]));
        std::thread::sleep(Duration::from_millis(5));
        answer(short.begin(), suspended(0, &["b"]));
        assert!(short.resume("a").is_none() && short.resume("b").is_some());
    }
}
