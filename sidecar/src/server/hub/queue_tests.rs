use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::FrameDecoder;
use nexus_protocol::limits::MAX_LIVE_SUSPENDED;
use nexus_protocol::message::{Code, Execute, ExecutionState};

use super::queue::{BRIEF_IN_TURN, IN_FRONT, KEPT_AWAY_AT_MOST};
use super::simulation::FakeControl;
use super::*;
use crate::engine::live_logs::LiveLogs;
use crate::execution::Progress;
use crate::runtime::Purpose;
use crate::server::crew::Budget;
use crate::share::Whose;

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
        processors: 2,
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
        assert_eq!(hub.make_way(fresh.run), Way::Beside);
        assert!(fresh.token.check().is_ok(), "nothing is stopped for it");
        assert_eq!((hub.occupied(), hub.running()), (2, 2 + beside as usize));
        if beside < 3 {
            fresh = hub.next(workers[9 - beside as usize], now).unwrap();
            assert_eq!(fresh.job.session, SessionId(3 + beside));
        }
    }
    // as many are beside as there may be: whose trial is over begins again
    let tried = hub.next(workers[6], now).unwrap();
    assert_eq!((tried.job.session, hub.end_trial(Duration::ZERO, now)), (SessionId(6), None), "nobody waits");
    assert!(next(&mut hub, 7, 5).is_none());
    assert_eq!(hub.end_trial(Duration::ZERO, now), Some(tried.run));
    assert_eq!(hub.make_way(tried.run), Way::Over, "no guest is at work");
    let guest = Arc::new(FakeControl::default());
    assert!(hub.crew.arm(tried.run, guest.clone(), Purpose::Execute, Budget::default(), now));
    assert!(!hub.begin_again(&tried.job, tried.run, now), "it did not make way");
    assert_eq!((hub.make_way(tried.run), hub.make_way(tried.run)), (Way::Back, Way::Over));
    assert!(guest.stopped.load(Ordering::Relaxed) && tried.token.check().is_ok());
    assert!(hub.begin_again(&tried.job, tried.run, now) && !hub.answer(tried.run));
    assert_eq!((hub.queued(), hub.in_flight(SessionId(6)), hub.occupied()), (3, 1, 2));
    // it has had its trial: whoever comes then is next
    let newcomer = hub.next(workers[6], now).unwrap();
    assert_eq!(newcomer.job.session, SessionId(7));
    assert!(hub.answer(newcomer.run) && !hub.end_run(newcomer.run));
    assert!(!hub.has_ready(now) && hub.has_ready(now + KEPT_AWAY_AT_MOST), "but not for ever");
    hub.cancel_request(SessionId(6), RequestId(1));
    hub.cancel_request(SessionId(3), RequestId(2));
    // one that is over makes room, and its worker goes: four are wanted, one for each of those beside, and nine are there
    assert!(hub.answer(fresh.run) && hub.beside == 2);
    hub.crew.end(fresh.run);
    let ended = workers.iter().filter(|worker| hub.lets_go(**worker)).count();
    assert_eq!((ended, hub.crew.workers(), hub.workers_lacking()), (3, 6, 0));
}

#[test]
fn who_was_cancelled_or_cannot_begin_again_does_not() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    let workers = [(); 12].map(|()| hub.crew.hire());
    let begin = |hub: &mut Hub<Execution, Reader>, session: u64, kind: Kind| {
        hub.open_session(SessionId(session));
        hub.enqueue(Job { kind, ..job(session, 1, &reader, now) }).unwrap();
        let next = hub.next(workers[session as usize], now)?;
        assert!(hub.crew.arm(next.run, Arc::new(FakeControl::default()), Purpose::Execute, Budget::default(), now));
        Some(next)
    };
    for session in 0..2 {
        begin(&mut hub, session, Kind::Execute).unwrap();
    }
    let mut last = begin(&mut hub, 2, Kind::ExecuteMany).unwrap();
    // those that cannot begin again go on beside the others, twice as many as may run
    for session in 3..=8 {
        assert!(begin(&mut hub, session, Kind::ExecuteMany).is_none());
        assert_eq!(hub.end_trial(Duration::ZERO, now), Some(last.run));
        assert_eq!(hub.make_way(last.run), Way::Beside, "{session}");
        if session < 8 {
            last = hub.next(workers[session as usize], now).unwrap();
        }
    }
    assert!(!hub.has_ready(now), "and who is next would be one more");
    let waiting = hub.cancel_request(SessionId(8), RequestId(1));
    assert!(matches!(waiting, Cancelled::Job(_)));
    let tried = begin(&mut hub, 9, Kind::Execute).unwrap();
    assert!(begin(&mut hub, 10, Kind::Execute).is_none());
    assert_eq!(hub.make_way(tried.run), Way::Back);
    assert!(matches!(hub.cancel_request(SessionId(9), RequestId(1)), Cancelled::Underway));
    assert!(!hub.begin_again(&tried.job, tried.run, now), "it is answered instead");
    assert!(hub.answer(tried.run) && !hub.end_run(tried.run));
    // what was told cannot be taken back
    let tried = hub.next(workers[10], now).unwrap();
    assert!(hub.crew.can_begin_again(tried.run));
    hub.crew.get_mut(tried.run).unwrap().live_logs = Some(Arc::new(LiveLogs::default()).open());
    assert!(!hub.crew.can_begin_again(tried.run));
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

#[test]
fn each_place_in_the_queue_is_given_once_and_half_of_them_are_for_the_others() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(1);
    let workers = [(); 2].map(|()| hub.crew.hire());
    let fill = |hub: &mut Hub<Execution, Reader>, session: u64| {
        let mut count = 0;
        loop {
            match hub.enqueue(job(session, count + 1, &reader, now)) {
                Ok(()) => count += 1,
                Err((_, Refusal::Overloaded(full))) => {
                    assert_eq!(full.count, full.limit + 1);
                    return (count, full.resource, full.whose);
                }
                Err((_, refusal)) => panic!("{refusal:?}"),
            }
        }
    };
    hub.open_session(SessionId(1));
    // alone it has all that may be in flight, which is as many as may wait; the instance that is free is no place in the queue
    assert_eq!(fill(&mut hub, 1), (10, "maxInFlight", Whose::Own));
    while let Some(Next { job, .. }) = hub.next(workers[0], now) {
        let run = hub.sessions[&SessionId(1)].requests[&job.id].at;
        let Request::Running(run) = run else { panic!("{run:?}") };
        assert!(hub.answer(run) && !hub.end_run(run));
    }
    hub.open_session(SessionId(2));
    // half of ten, and the instance that is free
    assert_eq!(fill(&mut hub, 1), (6, "maxQueued", Whose::Own));
    let running = hub.next(workers[0], now).unwrap();
    assert_eq!((running.job.session, hub.queued()), (SessionId(1), 5));
    assert_eq!(fill(&mut hub, 2), (5, "maxQueued", Whose::All));
    // the reserve of one is for whoever has nothing
    hub.open_session(SessionId(3));
    assert_eq!(fill(&mut hub, 3), (1, "maxQueued", Whose::All));
    hub.open_session(SessionId(4));
    assert_eq!(fill(&mut hub, 4), (0, "maxQueued", Whose::All));
}

#[test]
fn of_whom_nothing_is_known_has_the_last_instance_after_eight_whose_runs_are_brief() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    let workers = [(); 3].map(|()| hub.crew.hire());
    for session in 1..=2 {
        hub.open_session(SessionId(session));
        hub.enqueue(job(session, 1, &reader, now)).unwrap();
        hub.next(workers[session as usize - 1], now).unwrap();
    }
    let (brief, unknown) = (SessionId(3), SessionId(4));
    hub.open_session(brief);
    hub.open_session(unknown);
    let ask = |hub: &mut Hub<Execution, Reader>, session: SessionId, id: u32| {
        hub.enqueue(job(session.0, id, &reader, now)).unwrap();
    };
    let run = |hub: &mut Hub<Execution, Reader>| {
        let next = hub.next(workers[2], now).unwrap();
        assert!(hub.answer(next.run) && !hub.end_run(next.run));
        next.job.session
    };
    ask(&mut hub, brief, 1);
    assert_eq!(run(&mut hub), brief, "nobody else is there");
    // while nobody else waits it is no turn that is counted
    ask(&mut hub, brief, 1);
    assert_eq!(run(&mut hub), brief);
    ask(&mut hub, unknown, 1);
    for turn in 0..BRIEF_IN_TURN {
        ask(&mut hub, brief, 1);
        assert_eq!(run(&mut hub), brief, "{turn}");
    }
    ask(&mut hub, brief, 1);
    assert_eq!(run(&mut hub), unknown);
    assert_eq!(run(&mut hub), brief);
}

#[test]
fn there_is_a_worker_for_each_run_and_one_at_the_poller() {
    let mut hub = hub(3);
    assert_eq!(hub.workers_lacking(), 4);
    let workers = [(); 3].map(|()| hub.crew.hire());
    assert_eq!((hub.workers_lacking(), hub.lets_go(workers[0])), (1, false));
}

#[test]
fn what_waits_has_waited_since_it_came() {
    let (now, reader) = (Instant::now(), Reader::default());
    let age = Duration::from_millis(5);
    let mut hub = hub(3);
    hub.open_session(SessionId(1));
    assert!(!hub.has_backlog(now + age * 2, age), "nothing waits");
    hub.enqueue(job(1, 1, &reader, now)).unwrap();
    let nearly = now + age - Duration::from_nanos(1);
    assert_eq!([nearly, now + age, now + age * 2].map(|at| hub.has_backlog(at, age)), [false, true, true]);
    let worker = hub.crew.hire();
    hub.next(worker, now).unwrap();
    assert!(!hub.has_backlog(now + age * 2, age), "it does not wait any more");
}

#[test]
fn what_a_session_has_cost_is_counted_for_it_alone() {
    let mut hub = hub(3);
    hub.open_session(SessionId(1));
    hub.open_session(SessionId(2));
    assert_eq!([1, 1, 2, 1, 3].map(|session| hub.count_cost(SessionId(session))), [1, 2, 1, 3, 0]);
}

/// The calling thread, which has used `time` more when this returns.
fn use_up(clock: &crate::os::Thread, time: Duration) {
    let until = clock.cpu_time().unwrap() + time;
    while clock.cpu_time().unwrap() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn who_has_used_its_time_beside_others_gives_way_and_who_is_alone_does_not() {
    std::thread::spawn(|| {
        crate::os::give_way_when_told().unwrap();
        let (now, reader) = (Instant::now(), Reader::default());
        let clock = crate::os::Thread::this().unwrap();
        let mut hub = hub(3);
        let worker = hub.crew.hire();
        hub.crew.started(worker, clock);
        hub.open_session(SessionId(1));
        hub.enqueue(job(1, 1, &reader, now)).unwrap();
        let run = hub.next(worker, now).unwrap().run;
        let look = |hub: &mut Hub<Execution, Reader>| {
            hub.have_give_way();
            use_up(&clock, IN_FRONT);
            hub.have_give_way();
            hub.crew.get(run).unwrap().has_to_give_way()
        };
        assert!(!look(&mut hub), "it is alone");
        hub.open_session(SessionId(2));
        hub.have_give_way();
        assert!(!hub.crew.get(run).unwrap().has_to_give_way(), "it is looked at from now on");
        assert!(look(&mut hub) && crate::os::is_behind());
        crate::os::step_forward();
    })
    .join()
    .unwrap();
}

#[test]
fn what_is_put_off_of_a_session_that_has_gone_does_not_wait() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    let worker = hub.crew.hire();
    hub.open_session(SessionId(1));
    hub.enqueue(job(1, 1, &reader, now)).unwrap();
    let next = hub.next(worker, now).unwrap();
    hub.close_session(SessionId(1));
    hub.put_off(next.job, next.run);
    assert_eq!((hub.queued(), hub.running()), (0, 0));
}

/// A session runs something that takes so much.
fn runs(hub: &mut Hub<Execution, Reader>, session: u64, cpu: Duration, now: Instant) {
    let worker = hub.crew.hire();
    hub.enqueue(job(session, 99, &Reader::default(), now)).unwrap();
    let run = hub.next(worker, now).unwrap().run;
    hub.used(run, cpu, || now);
    hub.end_run(run);
}

#[test]
fn who_runs_often_has_a_processor_in_turn_and_whoever_does_not_finds_an_instance() {
    const MS: Duration = Duration::from_millis(1);
    std::thread::spawn(|| {
        crate::os::give_way_when_told().unwrap();
        let (now, reader) = (Instant::now(), Reader::default());
        let mut hub = hub(6);
        (1..=4).for_each(|session| hub.open_session(SessionId(session)));
        // an eighth of an equal part of two processors is 6.25 ms
        for session in [1, 2, 3, 4] {
            runs(&mut hub, session, 2 * MS, now);
        }
        for session in [1, 2, 3, 1, 2, 3] {
            runs(&mut hub, session, 9 * MS, now);
        }
        let clock = crate::os::Thread::this().unwrap();
        // whose job it is, and the run
        let begin = |hub: &mut Hub<Execution, Reader>, now| {
            let worker = hub.crew.hire();
            hub.crew.started(worker, clock);
            hub.next(worker, now).map(|next| (next.job.session.0, next.run))
        };
        let mut begun = Vec::new();
        let mut are_begun = |hub: &mut Hub<Execution, Reader>, sessions: &[u64]| {
            for session in sessions {
                let (begins, run) = begin(hub, now).unwrap();
                assert_eq!(begins, *session);
                begun.push(run);
            }
            assert!(!hub.has_ready(now) && !hub.has_backlog(now, Duration::ZERO) && begin(hub, now).is_none());
            begun.clone()
        };
        for (id, session) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)] {
            hub.enqueue(job(session, id, &reader, now)).unwrap();
        }
        are_begun(&mut hub, &[1, 2]);
        for id in 1..=2 {
            hub.enqueue(job(4, id, &reader, now)).unwrap();
            are_begun(&mut hub, &[4]);
        }
        // what takes its time goes behind, and is in nobody's way; the last instance is for others
        hub.have_give_way();
        use_up(&clock, IN_FRONT);
        hub.have_give_way();
        let begun_by_now = are_begun(&mut hub, &[3]);
        hub.end_run(begun_by_now[2]);
        let all = are_begun(&mut hub, &[1]);
        // later nothing of this counts
        for run in all {
            hub.end_run(run);
        }
        let later = now + 300 * MS;
        let left: Vec<_> = (0..3).map_while(|_| begin(&mut hub, later)).map(|(session, _)| session).collect();
        assert_eq!(left, [2, 3]);
        crate::os::step_forward();
    })
    .join()
    .unwrap();
}

#[test]
fn a_session_that_goes_takes_its_runs_along_and_nobody_elses() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    let workers = [(); 2].map(|()| hub.crew.hire());
    let runs: Vec<_> = (1..=2)
        .map(|session| {
            hub.open_session(SessionId(session));
            hub.enqueue(job(session, 1, &reader, now)).unwrap();
            hub.next(workers[session as usize - 1], now).unwrap()
        })
        .collect();
    assert_eq!(hub.connections(), 2);
    let left = hub.close_session(SessionId(1));
    assert!(left.jobs.is_empty() && left.entries.is_empty() && hub.connections() == 1);
    let ending = [&runs[0], &runs[1]].map(|next| hub.crew.get(next.run).unwrap().ending());
    assert_eq!(ending, [Some(crate::token::StopCause::Cancelled), None]);
    assert_eq!(hub.crew.runs().map(|(run, _)| run).collect::<Vec<_>>(), [runs[0].run, runs[1].run]);
    hub.leave(SessionId(2));
    let (refused, refusal) = hub.enqueue(job(2, 2, &reader, now)).unwrap_err();
    assert_eq!((refused.id, refusal), (RequestId(2), Refusal::Draining));
    hub.enqueue(Job { kind: Kind::Resume, ..job(2, 3, &reader, now) }).unwrap();
}

#[test]
fn what_waits_for_long_is_read_once_where_its_time_may_be_short() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    hub.open_session(SessionId(1));
    hub.enqueue(job(1, 1, &reader, now)).unwrap();
    hub.enqueue(Job { kind: Kind::Check, ..job(1, 2, &reader, now) }).unwrap();
    assert!(hub.expire(now).unread.is_empty(), "it has just come");
    let later = now + Duration::from_secs(60);
    let unread = hub.expire(later).unread;
    assert_eq!(
        unread.iter().map(|unread| unread.enqueued).collect::<Vec<_>>(),
        [now],
        "the check has no time of its own"
    );
    assert!(hub.expire(later).unread.is_empty());
    hub.wait_until(&HashMap::from([(unread[0].number, later)]));
    let overdue = |hub: &mut Hub<Execution, Reader>, at: Instant| {
        hub.expire(at).overdue.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(overdue(&mut hub, later - Duration::from_nanos(1)), []);
    assert_eq!((overdue(&mut hub, later), hub.queued()), (vec![RequestId(1)], 1));
}

#[test]
fn what_is_told_of_executions_is_the_first_of_them_and_how_many_there_are() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    let worker = hub.crew.hire();
    hub.open_session(SessionId(1));
    for (id, kind) in [Kind::Execute, Kind::Check, Kind::ExecuteMany, Kind::Execute].into_iter().enumerate() {
        let job = Job { kind, ..job(1, id as u32, &reader, now + Duration::from_millis(id as u64)) };
        hub.enqueue(job).unwrap();
    }
    let running = hub.next(worker, now).unwrap().job.number;
    let told = |hub: &Hub<Execution, Reader>, max| {
        let (listed, total) = hub.list(max);
        let states: Vec<_> = listed.iter().map(|one| (one.number - running, one.state)).collect();
        (states, total)
    };
    let (runs, waits) = (ExecutionState::Running, ExecutionState::Queued);
    // the check is none
    let all = vec![(0, runs), (2, waits), (3, waits)];
    assert_eq!(told(&hub, 10), (all.clone(), 3));
    assert_eq!(told(&hub, 3), (all.clone(), 3));
    assert_eq!(told(&hub, 2), (all[..2].to_vec(), 3));
    assert_eq!(told(&hub, 0), (vec![], 3));
    assert!(!hub.is_quiet());
    hub.close_session(SessionId(1));
    let run = hub.crew.runs().next().unwrap().0;
    assert!(!hub.is_quiet() && hub.answer(run) && !hub.end_run(run) && hub.is_quiet());
}

#[test]
fn what_the_books_know_of_an_execution_is_what_it_is() {
    let check = || {
        let runtime = crate::runtime::Runtime::new(crate::config::Config::default()).unwrap();
        let token = crate::token::StopToken::new();
        let mut request = Execute::new(Code::Source("await Promise.all([$ext.a.b(), $ext.a.c()])"));
        request.capabilities = vec!["ext:*"];
        let (state, client) = (crate::execution::StateSource::Request, crate::cache::Client::ALONE);
        let ran = runtime.execute(&request, state, crate::execution::Arrival::now(), client, &token);
        let Progress::Suspended(mut execution) = ran.progress else { panic!("{:?}", ran.report) };
        let held = &mut *execution as &mut dyn Held;
        assert_eq!((held.outstanding(), held.new_calls().len(), held.is_parked()), (2, 2, false));
        let (cpu, memory) = held.spent();
        assert!(cpu > Duration::ZERO && memory > 1000, "{cpu:?} {memory}");
        let live = held.held_bytes();
        assert!(live > 100_000, "with the memory of its guest: {live}");
        let was_estimated = held.is_estimated();
        assert_eq!((execution.measure(true), execution.is_estimated()), (was_estimated, false));
        assert!(was_estimated && !(&mut *execution as &mut dyn Held).is_estimated());
        let instance = execution.park().unwrap();
        let held = &mut *execution as &mut dyn Held;
        let parked = held.held_bytes();
        assert!(held.is_parked() && parked > 1000 && parked < live / 2, "{parked} of {live}");
        runtime.give_back(instance);
    };
    let stack = crate::engine::thread_stack_bytes(1 << 20);
    std::thread::Builder::new().stack_size(stack).spawn(check).unwrap().join().unwrap();
}

#[test]
fn a_connection_has_too_much_for_the_books_when_it_has() {
    let (_other_end, end) = std::os::unix::net::UnixStream::pair().unwrap();
    let connection = Arc::new(Connection::new(SessionId(16), end, 1 << 20).unwrap());
    assert!(!Peer::is_over(&connection));
    let building = connection.begin_large().unwrap();
    assert!(Peer::is_over(&connection));
    drop(building);
    assert!(!Peer::is_over(&connection));
}

#[test]
fn it_is_known_that_something_has_to_be_parked_and_that_it_presses() {
    let now = Instant::now();
    let mut hub = hub(3);
    assert!(!hub.has_to_park(now) && !hub.has_to_park_now());
    for key in 0..=2 * MAX_LIVE_SUSPENDED as u64 {
        hub.holdings.add_live(key, now);
    }
    assert!(hub.has_to_park(now) && hub.has_to_park_now());
}

#[test]
fn limits_that_are_set_hold_from_then_on() {
    let (now, reader) = (Instant::now(), Reader::default());
    let mut hub = hub(3);
    hub.open_session(SessionId(1));
    hub.set_limits(HubLimits { max_in_flight: 1, max_suspended_bytes: 7, ..hub.limits });
    hub.enqueue(job(1, 1, &reader, now)).unwrap();
    let (_, refusal) = hub.enqueue(job(1, 2, &reader, now)).unwrap_err();
    let Refusal::Overloaded(full) = refusal else { panic!("{refusal:?}") };
    assert_eq!((full.resource, full.limit, hub.holdings.max_bytes()), ("maxInFlight", 1, 7));
}
