use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::FrameDecoder;

use super::*;

/// Of a connection: whether it has too much unread.
#[derive(Clone, Debug, Default)]
struct Reader(Arc<AtomicBool>);

impl Peer for Reader {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn job(session: u64, id: u32, connection: &Reader, now: Instant) -> Job<Reader> {
    let mut decoder = FrameDecoder::new(100);
    decoder.push(&[1, 0, 0, 0, 7]);
    Job {
        number: 0,
        session: SessionId(session),
        id: RequestId(id),
        kind: Kind::Execute,
        suspension: None,
        frame: Incoming::uncounted(decoder.next_owned().unwrap().unwrap()),
        enqueued: now,
        due: Due::Unread,
        connection: connection.clone(),
    }
}

fn hub(max_running: usize) -> Hub<Execution, Reader> {
    Hub::new(HubLimits {
        max_running,
        max_running_each: 2,
        keeps_last: true,
        max_queued: 10,
        max_suspended: 1,
        max_suspended_bytes: 1,
        max_in_flight: 10,
        max_queue_time: None,
        suspension_timeout: None,
    })
}

#[test]
fn nothing_is_begun_for_whoever_does_not_read_and_others_have_their_turn() {
    let now = Instant::now();
    let mut hub = hub(2);
    let worker = hub.crew.hire();
    let (deaf, other) = (Reader::default(), Reader::default());
    for (session, reader) in [(1, &deaf), (2, &other)] {
        hub.open_session(SessionId(session));
        hub.enqueue(job(session, 1, reader, now)).unwrap();
    }
    deaf.0.store(true, Ordering::Relaxed);
    let next = hub.next(worker, now).unwrap();
    assert_eq!(next.job.session, SessionId(2));
    hub.end_run(next.run);
    // a worker that has nothing to begin does not look again and again
    assert!(!hub.has_ready(now) && !hub.has_backlog(now, Duration::ZERO) && hub.next(worker, now).is_none());
    assert_eq!(hub.queued(), 1);
    deaf.0.store(false, Ordering::Relaxed);
    assert!(hub.has_ready(now));
    assert_eq!(hub.next(worker, now).unwrap().job.session, SessionId(1));
    // one that finds out too late waits again
    let next = hub.next(worker, now);
    assert!(next.is_none(), "it is alone in the queue");
    hub.enqueue(job(2, 7, &other, now)).unwrap();
    let next = hub.next(worker, now).unwrap();
    hub.put_off(next.job, next.run);
    assert_eq!((hub.queued(), hub.running(), hub.in_flight(SessionId(2))), (1, 1, 1));
    let next = hub.next(worker, now).unwrap();
    hub.end_run(next.run);
    // alone it is no other
    hub.close_session(SessionId(2));
    hub.enqueue(job(1, 2, &deaf, now)).unwrap();
    deaf.0.store(true, Ordering::Relaxed);
    assert!(!hub.has_ready(now));
}

#[test]
fn who_has_the_last_instance_for_long_is_begun_anew_elsewhere_once_somebody_waits_for_it() {
    let now = Instant::now();
    let mut hub = hub(3);
    let workers = [(); 5].map(|()| hub.crew.hire());
    let reader = Reader::default();
    let next = |hub: &mut Hub<Execution, Reader>, session: u64, worker: usize| {
        hub.open_session(SessionId(session));
        hub.enqueue(job(session, 1, &reader, now)).unwrap();
        hub.next(workers[worker], now).unwrap()
    };
    let one = next(&mut hub, 1, 0);
    next(&mut hub, 2, 1);
    let fresh = next(&mut hub, 3, 2);
    assert_eq!(hub.end_trial(Duration::ZERO, now), None, "nobody waits");
    hub.enqueue(job(3, 2, &reader, now)).unwrap();
    assert_eq!(hub.end_trial(Duration::ZERO, now), None, "nobody else waits");
    assert!(!hub.begin_anew(&fresh.job, fresh.run, now), "it was not stopped");
    hub.open_session(SessionId(4));
    hub.enqueue(job(4, 1, &reader, now)).unwrap();
    assert_eq!(hub.end_trial(Duration::from_millis(1), now), None, "it has not had its time");
    assert_eq!(hub.end_trial(Duration::ZERO, now), Some(TrialEnd::Anew(fresh.run)));
    assert!(fresh.token.check().is_err() && hub.end_trial(Duration::ZERO, now).is_none(), "once");
    assert!(hub.begin_anew(&fresh.job, fresh.run, now) && !hub.begin_anew(&fresh.job, fresh.run, now));
    assert_eq!((hub.running(), hub.queued(), hub.in_flight(SessionId(3))), (2, 3, 2));
    let newcomer = hub.next(workers[3], now).unwrap();
    assert_eq!(newcomer.job.session, SessionId(4));
    hub.end_run(newcomer.run);
    assert!(!hub.has_ready(now), "the last one is not for it any more");
    hub.end_run(one.run);
    let again = hub.next(workers[3], now).unwrap();
    assert_eq!((again.job.session, again.job.id, again.job.number), (SessionId(3), RequestId(1), fresh.job.number));
    assert!(again.token.check().is_ok());
    // somebody else has the last one now, and its own client does not want it any more
    let last = next(&mut hub, 5, 4);
    hub.enqueue(job(4, 2, &reader, now)).unwrap();
    assert_eq!(hub.end_trial(Duration::ZERO, now), Some(TrialEnd::Anew(last.run)));
    assert!(matches!(hub.cancel_request(SessionId(5), RequestId(1)), Cancelled::Underway));
    assert!(!hub.begin_anew(&last.job, last.run, now) && hub.answer(last.run));
    assert_eq!(hub.end_trial(Duration::ZERO, now), None);
}

#[test]
fn who_ends_takes_nothing_new_but_resumes_and_gives_back_what_waits() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(2);
    hub.open_session(SessionId(1));
    hub.enqueue(job(1, 1, &reader, now)).unwrap();
    hub.drain();
    let refused = hub.enqueue(job(1, 2, &reader, now));
    assert!(matches!(refused, Err((_, Refusal::Draining))), "{refused:?}");
    hub.enqueue(Job { kind: Kind::Resume, ..job(1, 3, &reader, now) }).unwrap();
    let waiting: Vec<RequestId> = hub.drain_queues().iter().map(|job| job.id).collect();
    assert_eq!(waiting, [RequestId(1), RequestId(3)]);
    assert!(hub.queued() == 0 && !hub.has_ready(now));
}
