//! Every order in which those who want one suspended execution can come to its books, by a model checker.
//!
//! The books stand under one lock, so what can go wrong lies between two visits: somebody has the execution, and others do
//! what they do. The simulation tries longer stories at random; this tries all of the short ones.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use loom::model::Builder;
use loom::sync::{Arc, Mutex};
use loom::thread;
use nexus_protocol::message::{Code, Execute};
use nexus_protocol::{ClientMessage, FrameDecoder};

use super::*;
use crate::server::crew::WorkerId;
use crate::server::incoming::Incoming;

const SESSION: SessionId = SessionId(7);
const CALL: SuspensionId = SuspensionId([1; 16]);
const OTHER_CALL: SuspensionId = SuspensionId([2; 16]);

/// An execution without a guest, which counts how often it was dropped and resumed.
#[derive(Debug)]
struct Token {
    calls: Vec<Outstanding>,
    drops: StdArc<AtomicU32>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

impl Held for Token {
    fn outstanding(&self) -> usize {
        self.calls.len()
    }

    fn new_calls(&self) -> &[Outstanding] {
        &self.calls
    }

    fn held_bytes(&mut self) -> u64 {
        1
    }

    fn is_estimated(&self) -> bool {
        false
    }

    fn is_parked(&self) -> bool {
        false
    }

    fn spent(&self) -> (Duration, u64) {
        (Duration::ZERO, 0)
    }
}

type Books = Arc<Mutex<Hub<Token, ()>>>;

fn job(id: u32, kind: Kind, suspension: Option<SuspensionId>, now: Instant) -> Job<()> {
    let mut bytes = Vec::new();
    ClientMessage::Ping.encode(RequestId(1), 1 << 20, &mut bytes).unwrap();
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&bytes);
    let frame = Incoming::uncounted(decoder.next_owned().unwrap().unwrap());
    let id = RequestId(id);
    Job {
        number: 0,
        session: SESSION,
        id,
        kind,
        suspension,
        frame,
        enqueued: now,
        due: Due::Unread,
        done: 0,
        connection: (),
    }
}

/// Books with one execution that waits for two calls.
fn books(now: Instant) -> (Books, [WorkerId; 2], StdArc<AtomicU32>) {
    let mut hub: Hub<Token, ()> = Hub::new(HubLimits {
        max_running: 2,
        max_running_each: 2,
        processors: 2,
        keeps_last: true,
        max_queued: 8,
        max_suspended: 8,
        max_suspended_bytes: 1 << 20,
        max_in_flight: 8,
        max_queue_time: None,
        suspension_timeout: Some(Duration::from_secs(1)),
    });
    let workers = [hub.crew.hire(), hub.crew.hire()];
    hub.open_session(SESSION);
    hub.enqueue(job(1, Kind::Execute, None, now)).unwrap();
    let Next { job, run, .. } = hub.next(workers[0], now).unwrap();
    let drops = StdArc::new(AtomicU32::new(0));
    let calls = [CALL, OTHER_CALL].map(|id| Outstanding { id, number: 0 }).to_vec();
    let token = Box::new(Token { calls, drops: drops.clone() });
    let about = About::new(job.number, now, &Execute::new(Code::Source("")), &*token);
    hub.suspend(run, about, token, now).unwrap();
    assert!(!hub.end_run(run), "it is answered with the suspension");
    (Arc::new(Mutex::new(hub)), workers, drops)
}

/// A worker that takes what is next, and puts it back or ends it. True: it resumed something.
fn work(books: &Books, worker: WorkerId, ends: bool, now: Instant) -> bool {
    let next = books.lock().unwrap().next(worker, now);
    let Some(Next { run, resumed, .. }) = next else { return false };
    // the guest runs here
    let mut hub = books.lock().unwrap();
    let was_resumed = resumed.is_some();
    if let Some(Resumed { key, id, mut execution }) = resumed {
        execution.calls.retain(|call| call.id != id);
        // told of before
        let calls = std::mem::take(&mut execution.calls);
        if ends || calls.is_empty() {
            assert!(hub.answer(run));
        } else {
            let kept = hub.put_back(run, key, execution, now);
            if kept.is_err() {
                assert!(hub.answer(run));
            }
        }
    } else {
        assert!(hub.answer(run));
    }
    assert!(!hub.answer(run), "answered twice");
    hub.end_run(run);
    was_resumed
}

fn park(books: &Books, now: Instant) {
    let due = books.lock().unwrap().next_to_park(now);
    let Some((key, execution)) = due else { return };
    // its instance is emptied here
    drop(books.lock().unwrap().parked(key, execution, now));
}

/// When all have gone: what is left is whole.
fn is_whole(books: &Books, drops: &AtomicU32) {
    let mut hub = books.lock().unwrap();
    assert!(hub.is_quiet(), "something is left");
    let kept = hub.suspended();
    assert_eq!(kept + drops.load(Ordering::Relaxed) as usize, 1, "the execution is there, or was dropped once");
    let left = hub.close_session(SESSION).entries;
    drop(hub.end_entries(&left));
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert_eq!((hub.suspended(), hub.suspensions(), hub.parked_count()), (0, 0, 0));
    assert!(hub.entries.is_empty() && hub.expiring.is_empty() && hub.turns.is_empty());
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    Builder::new().check(model);
}

#[test]
fn who_resumes_parks_and_cancels_at_once_leaves_whole_books() {
    check(|| {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let (books, [one, _], drops) = books(now);
        books.lock().unwrap().enqueue(job(2, Kind::Resume, Some(CALL), now)).unwrap();
        let parker = {
            let books = books.clone();
            thread::spawn(move || park(&books, later))
        };
        let canceller = {
            let books = books.clone();
            thread::spawn(move || {
                let outcome = books.lock().unwrap().cancel_suspension(SESSION, OTHER_CALL);
                !matches!(outcome, Cancelled::Nothing)
            })
        };
        work(&books, one, false, later);
        parker.join().unwrap();
        assert!(canceller.join().unwrap(), "the call is outstanding until the execution ends");
        // the resume may have waited for the parking, or found nothing
        while work(&books, one, false, later) || books.lock().unwrap().has_ready(later) {}
        assert_eq!(drops.load(Ordering::Relaxed), 1, "a cancelled execution does not go on");
        is_whole(&books, &drops);
    });
}

#[test]
fn of_two_resumes_for_one_call_one_wins_whatever_else_happens() {
    check(|| {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let (books, [one, two], drops) = books(now);
        let parker = {
            let books = books.clone();
            thread::spawn(move || park(&books, later))
        };
        let other = {
            let books = books.clone();
            thread::spawn(move || {
                books.lock().unwrap().enqueue(job(3, Kind::Resume, Some(CALL), now)).unwrap();
                work(&books, two, false, later)
            })
        };
        books.lock().unwrap().enqueue(job(2, Kind::Resume, Some(CALL), now)).unwrap();
        let mut resumed = u32::from(work(&books, one, false, later));
        resumed += u32::from(other.join().unwrap());
        parker.join().unwrap();
        while books.lock().unwrap().has_ready(later) {
            resumed += u32::from(work(&books, one, false, later));
        }
        assert_eq!(resumed, 1, "a suspension is used once");
        is_whole(&books, &drops);
    });
}

#[test]
fn an_execution_whose_resume_has_come_does_not_expire() {
    check(|| {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let (books, [one, _], drops) = books(now);
        books.lock().unwrap().enqueue(job(2, Kind::Resume, Some(CALL), now)).unwrap();
        let watchdog = {
            let books = books.clone();
            thread::spawn(move || books.lock().unwrap().expire(later).executions.len())
        };
        let parker = {
            let books = books.clone();
            thread::spawn(move || park(&books, now + Duration::from_secs(2)))
        };
        let mut resumed = work(&books, one, true, now);
        parker.join().unwrap();
        resumed |= work(&books, one, true, now);
        assert_eq!(watchdog.join().unwrap(), 0, "it had mail");
        assert!(resumed);
        is_whole(&books, &drops);
    });
}
