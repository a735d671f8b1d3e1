use nexus_protocol::{ClientMessage, FrameDecoder};

use super::super::hub::Due;
use super::*;

const SESSION: SessionId = SessionId(7);

fn job() -> Job<()> {
    let mut bytes = Vec::new();
    ClientMessage::Ping.encode(RequestId(1), 1 << 20, &mut bytes).unwrap();
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&bytes);
    Job {
        number: 1,
        session: SESSION,
        id: RequestId(1),
        kind: Kind::Execute,
        suspension: None,
        frame: Incoming::uncounted(decoder.next_owned().unwrap().unwrap()),
        enqueued: Instant::now(),
        due: Due::Unread,
        done: 0,
        connection: (),
    }
}

/// A crew with one run that is at work, and by which its host code learns of its end.
fn at_work() -> (Crew<()>, RunId, Arc<StopToken>) {
    let mut crew = Crew::default();
    let worker = crew.hire();
    let (run, token) = crew.begin(worker, &job(), Instant::now()).unwrap();
    (crew, run, token)
}

#[test]
fn answers_that_a_worker_holds_back_are_noticed_once_and_not_at_once() {
    let ((mut crew, run, _), now) = (at_work(), Instant::now());
    assert!(!crew.holds_back(now + Duration::from_secs(60)), "there are none");
    crew.get_mut(run).unwrap().held_back = Some(now);
    assert!(!crew.holds_back(now));
    assert!(crew.holds_back(now + MAX_HELD_BACK) && !crew.holds_back(now + MAX_HELD_BACK));
}

#[test]
fn an_answer_is_on_its_way_until_its_worker_is_done_with_the_request() {
    let (mut crew, run, token) = at_work();
    token.set_deadline(Some(Instant::now()));
    let later = Instant::now() + Duration::from_secs(60);
    assert!(!crew.is_answering(SESSION) && crew.stuck(later) == [(run, Stuck::InHost)]);
    assert!(crew.answer(run).is_some() && crew.answer(run).is_none(), "once");
    assert!(crew.is_answering(SESSION) && !crew.is_answering(SessionId(8)));
    assert!(crew.stuck(later).is_empty(), "nobody waits for it any more");
    assert!(crew.end(run).is_none(), "its request was answered before");
    assert!(!crew.is_answering(SESSION));
    let (run, token) = crew.begin(run.worker(), &job(), later).unwrap();
    assert_eq!((token.check(), token.deadline()), (Ok(()), None), "the next request has its own time");
    assert!(crew.end(run).is_some(), "nobody has answered it");
}

#[test]
fn who_is_late_and_gets_no_processor_is_not_stuck_before_it_has_stood_still_for_long() {
    let (mut crew, run, token) = at_work();
    let end = Instant::now();
    token.set_deadline(Some(end));
    assert!(crew.stuck(end + HOST_GRACE + RETIRE_GRACE * 2).is_empty());
    assert_eq!(crew.stuck(end + HOST_GRACE + RETIRE_STANDSTILL), [(run, Stuck::InHost)]);
    // but whoever has used the time that it had, and is not done
    let (mut crew, run, token) = at_work();
    let end = Instant::now();
    token.set_deadline(Some(end));
    let late = |by| end + HOST_GRACE + by;
    let clock = Thread::this().unwrap();
    crew.started(run.worker(), clock);
    assert!(crew.stuck(late(RETIRE_GRACE)).is_empty(), "from now on its time is looked at");
    let from = clock.cpu_time().unwrap();
    while clock.cpu_time().unwrap() < from + RETIRE_GRACE / 2 {
        std::hint::spin_loop();
    }
    assert_eq!(crew.stuck(late(RETIRE_GRACE)), [(run, Stuck::InHost)]);
    crew.forgive(late(RETIRE_GRACE));
    assert!(crew.stuck(late(RETIRE_GRACE)).is_empty(), "nobody could work until now");
}

#[test]
fn what_is_said_of_a_run_that_was_given_up_reaches_nothing() {
    let (mut crew, run, token) = at_work();
    assert!(crew.retire(run, Stuck::InHost).is_some());
    assert_eq!((crew.running(), crew.retired(), token.check()), (0, 1, Err(StopCause::Cancelled)));
    assert!(crew.is_retired(run) && crew.answer(run).is_none() && crew.end(run).is_none());
    assert!(!crew.stop(run, StopCause::Cancelled));
    crew.came_back(run.worker());
    let worker = crew.hire();
    assert_eq!(worker, run.worker(), "its place is filled again");
    let (next, token) = crew.begin(worker, &job(), Instant::now()).unwrap();
    assert!(crew.answer(run).is_none() && !crew.stop(run, StopCause::Cancelled) && crew.is_retired(run));
    assert_eq!((token.check(), crew.running()), (Ok(()), 1));
    assert!(crew.answer(next).is_some());
}
