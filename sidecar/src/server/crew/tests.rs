use std::sync::atomic::Ordering;

use nexus_protocol::{ClientMessage, FrameDecoder};

use super::super::hub::{Due, FakeControl};
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

#[test]
fn a_run_is_known_by_a_number_that_no_other_has() {
    let (mut crew, first, _) = at_work();
    let other = crew.hire();
    assert_eq!([first.worker().number(), other.number()], [0, 1]);
    assert!(crew.end(first).is_some());
    let numbers: Vec<RunId> = (0..3)
        .map(|_| {
            let (run, _) = crew.begin(first.worker(), &job(), Instant::now()).unwrap();
            assert!(crew.get(run).is_some() && crew.get(first).is_none() && crew.end(run).is_some());
            run
        })
        .collect();
    assert!(numbers.iter().all(|run| *run != first) && numbers[0] != numbers[1] && numbers[1] != numbers[2]);
}

#[test]
fn a_guest_is_stopped_while_it_is_at_work_for_its_run_and_no_longer() {
    let (mut crew, run, token) = at_work();
    let guest = Arc::new(FakeControl::default());
    let arm = |crew: &mut Crew<()>, purpose| crew.arm(run, guest.clone(), purpose, Budget::default(), Instant::now());
    for purpose in [Purpose::Compile, Purpose::Execute] {
        assert!(arm(&mut crew, purpose) && crew.get(run).unwrap().stage().armed().is_some());
        crew.disarm(run);
        assert!(crew.get(run).unwrap().stage().armed().is_none());
    }
    assert!(crew.stop(run, StopCause::Cancelled) && token.check() == Err(StopCause::Cancelled));
    assert!(!guest.stopped.load(Ordering::Relaxed), "it may be somebody else's by now");
    assert!(
        arm(&mut crew, Purpose::Execute) && guest.stopped.load(Ordering::Relaxed),
        "one that begins later ends at once"
    );
}

#[test]
fn a_trial_is_over_when_its_thread_has_used_its_time() {
    let (mut crew, run, _) = at_work();
    let clock = Thread::this().unwrap();
    crew.started(run.worker(), clock);
    let time = Duration::from_millis(2);
    let use_up = || {
        let from = clock.cpu_time().unwrap();
        while clock.cpu_time().unwrap() < from + time {
            std::hint::spin_loop();
        }
    };
    use_up();
    assert!(crew.on_trial_for(time).is_none() && !crew.put_back(run) && !crew.set_beside(run), "it is not on trial");
    crew.try_out(run);
    use_up();
    assert_eq!(crew.on_trial_for(time), None, "from now on it is looked at");
    use_up();
    assert_eq!(crew.on_trial_for(time), Some(run));
    assert!(crew.set_beside(run) && crew.get(run).unwrap().is_beside() && crew.on_trial_for(time).is_none());
}

#[test]
fn a_worker_is_not_given_up_with_a_guest_that_has_ended() {
    for (has_ended, why, is_given_up) in [
        (false, Stuck::InGuest(StopCause::Deadline), true),
        (true, Stuck::InGuest(StopCause::Deadline), false),
        (false, Stuck::InHost, true),
        (true, Stuck::InHost, true),
    ] {
        let (mut crew, run, _) = at_work();
        let guest = Arc::new(FakeControl::default());
        assert!(crew.arm(run, guest.clone(), Purpose::Execute, Budget::default(), Instant::now()));
        if has_ended {
            guest.arm();
        }
        assert!(!crew.is_retired(run));
        assert_eq!(crew.retire(run, why).is_some(), is_given_up, "{has_ended} {why:?}");
        assert_eq!(crew.is_retired(run), is_given_up);
    }
}

#[test]
fn threads_that_do_not_come_back_are_counted_and_too_many_are_too_many() {
    let mut crew = Crew::default();
    let retired: Vec<RunId> = (0..=MAX_RETIRED_THREADS)
        .map(|count| {
            assert_eq!((crew.retired(), crew.retired_total(), crew.is_broken()), (count, count as u64, false));
            let worker = crew.hire();
            let (run, _) = crew.begin(worker, &job(), Instant::now()).unwrap();
            assert!(crew.retire(run, Stuck::InHost).is_some());
            run
        })
        .collect();
    assert!(crew.is_broken());
    crew.came_back(retired[0].worker());
    assert!(!crew.is_broken());
    assert_eq!((crew.retired(), crew.retired_total()), (MAX_RETIRED_THREADS, MAX_RETIRED_THREADS as u64 + 1));
}

#[test]
fn a_run_that_is_stopped_stays_beside_where_it_is_and_comes_there_no_more() {
    let (mut crew, run, _) = at_work();
    crew.try_out(run);
    assert!(crew.set_beside(run) && crew.stop(run, StopCause::Cancelled));
    assert!(crew.get(run).unwrap().is_beside());
    let (mut crew, run, _) = at_work();
    crew.try_out(run);
    assert!(crew.stop(run, StopCause::Cancelled) && !crew.set_beside(run));
}
