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

#[test]
fn nothing_is_begun_for_whoever_does_not_read_and_others_have_their_turn() {
    let now = Instant::now();
    let mut hub: Hub<Execution, Reader> = Hub::new(HubLimits {
        max_running: 2,
        max_running_each: 2,
        keeps_last: true,
        max_queued: 10,
        max_suspended: 1,
        max_suspended_bytes: 1,
        max_in_flight: 10,
        max_queue_time: None,
        suspension_timeout: None,
    });
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
