use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::FrameDecoder;

use super::turns::Standing;
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
        done: 0,
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
fn who_has_the_last_instance_for_long_goes_on_beside_once_somebody_waits_for_it() {
    let now = Instant::now();
    let mut hub = hub(3);
    let workers = [(); 9].map(|()| hub.crew.hire());
    let reader = Reader::default();
    let next = |hub: &mut Hub<Execution, Reader>, session: u64, worker: usize| {
        hub.open_session(SessionId(session));
        hub.enqueue(job(session, 1, &reader, now)).unwrap();
        hub.next(workers[worker], now)
    };
    next(&mut hub, 1, 0).unwrap();
    next(&mut hub, 2, 1).unwrap();
    let mut fresh = next(&mut hub, 3, 2).unwrap();
    assert_eq!(hub.end_trial(Duration::ZERO, now), None, "nobody waits");
    hub.enqueue(job(3, 2, &reader, now)).unwrap();
    assert_eq!(hub.end_trial(Duration::ZERO, now), None, "nobody else waits");
    for beside in 1..=3 {
        assert!(next(&mut hub, 3 + beside, 9 - beside as usize).is_none(), "three run");
        assert_eq!(hub.end_trial(Duration::from_millis(1), now), None, "it has not had its time");
        assert_eq!(hub.end_trial(Duration::ZERO, now), Some(fresh.run));
        assert!(hub.goes_on_beside(fresh.run));
        assert!(fresh.token.check().is_ok(), "nothing is stopped for it");
        assert_eq!((hub.occupied(), hub.running()), (2, 2 + beside as usize));
        if beside < 3 {
            fresh = hub.next(workers[9 - beside as usize], now).unwrap();
            assert_eq!(fresh.job.session, SessionId(3 + beside));
        }
    }
    // as many are beside as there may be: the last one is for those of whom it is known that they are brief
    assert!(!hub.has_ready(now));
    hub.sessions.get_mut(&SessionId(6)).unwrap().standing = Standing::Brief;
    hub.turns.is_now(SessionId(6), Standing::Brief);
    let brief = hub.next(workers[6], now).unwrap();
    assert_eq!((brief.job.session, hub.end_trial(Duration::ZERO, now)), (SessionId(6), None));
    // one that is over makes room, and its worker goes: four are wanted, one for each of those beside, and nine are there
    assert!(hub.answer(fresh.run) && hub.beside == 2);
    hub.crew.end(fresh.run);
    let ended = workers.iter().filter(|worker| hub.lets_go(**worker)).count();
    assert_eq!((ended, hub.crew.workers(), hub.workers_lacking()), (3, 6, 0));
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

#[test]
fn what_is_left_of_a_job_stands_behind_what_else_waits_and_may_be_cancelled_there() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(1);
    let worker = hub.crew.hire();
    for session in [1, 2] {
        hub.open_session(SessionId(session));
    }
    for id in [1, 2] {
        hub.enqueue(Job { kind: Kind::ExecuteMany, ..job(1, id, &reader, now) }).unwrap();
    }
    hub.enqueue(job(2, 1, &reader, now)).unwrap();
    let first = hub.next(worker, now).unwrap();
    assert!(hub.go_behind(Job { done: 5, ..first.job }, first.run, now) && !hub.answer(first.run));
    assert_eq!((hub.queued(), hub.running(), hub.in_flight(SessionId(1))), (3, 0, 2));
    let mut order = Vec::new();
    for _ in 0..3 {
        let next = hub.next(worker, now).unwrap();
        order.push((next.job.session.0, next.job.id.0, next.job.done));
        assert!(hub.answer(next.run));
        hub.crew.end(next.run);
    }
    assert_eq!(order, [(2, 1, 0), (1, 2, 0), (1, 1, 5)]);
    // one that is to end does not wait again, one that waits again is found, and of a session that is gone nothing waits
    hub.enqueue(job(1, 3, &reader, now)).unwrap();
    let running = hub.next(worker, now).unwrap();
    assert!(matches!(hub.cancel_request(SessionId(1), RequestId(3)), Cancelled::Underway));
    assert!(!hub.go_behind(running.job, running.run, now) && hub.answer(running.run));
    hub.crew.end(running.run);
    hub.enqueue(job(1, 4, &reader, now)).unwrap();
    let running = hub.next(worker, now).unwrap();
    assert!(hub.go_behind(running.job, running.run, now));
    assert!(matches!(hub.cancel_request(SessionId(1), RequestId(4)), Cancelled::Job(job) if job.id.0 == 4));
    hub.enqueue(job(2, 5, &reader, now)).unwrap();
    let running = hub.next(worker, now).unwrap();
    let gone = running.job.clone();
    hub.close_session(SessionId(2));
    hub.go_behind(gone, running.run, now);
    hub.crew.end(running.run);
    assert_eq!((hub.queued(), hub.running(), hub.has_ready(now)), (0, 0, false));
}
