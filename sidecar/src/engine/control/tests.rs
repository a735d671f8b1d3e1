//! What each side does to a control, one after the other; every order of both is the model's.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::super::instance_tests::on_engine_thread;
use super::*;

const MS: Duration = Duration::from_millis(1);
const MICRO: Duration = Duration::from_micros(1);
const GRACE: Duration = Duration::from_millis(KILL_GRACE_MS);
/// Where the interrupt word is.
const WORD: u32 = 77;

#[derive(Debug, Default)]
struct Memory {
    interrupts: AtomicU32,
    revoked: AtomicU32,
    is_stuck: AtomicBool,
}

impl Stoppable for Arc<Memory> {
    fn interrupt(&self, at: u32) {
        assert_eq!(at, WORD);
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    fn revoke(&self) -> io::Result<()> {
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(io::Error::other("on purpose"));
        }
        self.revoked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn resident_bytes(&self) -> Option<u64> {
        Some(4096)
    }
}

fn control(may_kill: bool) -> (Arc<RunControl<Arc<Memory>>>, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    (RunControl::new(memory.clone(), WORD, may_kill), memory)
}

fn done(memory: &Memory) -> (u32, u32) {
    (memory.interrupts.load(Ordering::Relaxed), memory.revoked.load(Ordering::Relaxed))
}

#[test]
fn the_parts_of_a_word_do_not_touch_each_other() {
    let states = [State::Idle, State::Running, State::Host, State::Watchdog, State::Killed, State::Gone];
    let causes = [None, Some(StopCause::Deadline), Some(StopCause::Cancelled), Some(StopCause::Back)];
    for (state, cause, fate, flags) in states.into_iter().flat_map(|state| {
        let fates = [Fate::Open, Fate::Claimed, Fate::GivenUp];
        causes.into_iter().flat_map(move |cause| {
            fates
                .into_iter()
                .flat_map(move |fate| [0, DUE, INTERRUPTED, REFUSED, OF_ENTRY].map(|f| (state, cause, fate, f)))
        })
    }) {
        let run = Word(0).next_run().next_run().entered().entered().entered();
        let word = run.with_state(state).with_fate(fate).with(flags);
        let word = cause.map_or(word, |cause| word.with_cause(cause));
        let parts = |word: Word| (word.state(), word.cause(), word.fate(), word.0 & OF_ENTRY, word.ticket());
        assert_eq!(parts(word), (state, cause, fate, flags, Ticket(2)));
        assert!([DUE, INTERRUPTED, REFUSED].iter().all(|flag| word.has(*flag) == (flags & flag != 0)));
        if cause.is_some() {
            assert_eq!(word.with_cause(StopCause::Deadline), word, "the first cause counts");
        }
        assert_eq!(parts(word.next_run()), (state, None, Fate::Open, 0, Ticket(3)));
        assert_eq!(word.0 & ENTRIES, 3 * ENTRY);
        assert_eq!(parts(word.entered()), (State::Running, cause, fate, 0, Ticket(2)));
        assert_eq!(word.entered().0 & ENTRIES, 4 * ENTRY);
        assert_eq!(parts(word.left(State::Gone)), (State::Gone, None, fate, 0, Ticket(2)));
    }
    let last = Word(ENTRIES | RUN);
    assert_eq!((last.entered().0 & ENTRIES, last.entered().ticket()), (0, Ticket(1)), "no entry becomes another run");
}

#[test]
fn a_run_with_which_nobody_interferes_ends_as_it_is() {
    let (control, memory) = control(true);
    assert!(!control.patrol(control.epoch), "nothing runs");
    let first = control.arm();
    assert!(!control.patrol(control.epoch));
    control.begin(None);
    assert!(control.patrol(control.epoch + GRACE * 1000) && !control.is_due());
    assert!(!control.is_overdue(control.epoch + GRACE * 1000, Duration::ZERO), "it has all the time that there is");
    assert_eq!(control.due_for(first, control.epoch + GRACE), None);
    let Entry::Open(guard) = control.enter_host() else { panic!("it is not due") };
    assert_eq!(control.load().state(), State::Host);
    assert!(control.patrol(control.epoch + GRACE));
    drop(guard);
    assert_eq!((control.load().state(), control.end()), (State::Running, Ended::Intact(None)));
    assert!(!control.patrol(control.epoch) && control.claim() && control.claim());
    assert_eq!((done(&memory), control.resident_bytes()), ((0, 0), Some(4096)));
    assert_ne!(control.arm(), first);
}

#[test]
fn who_stops_a_run_says_which_and_the_first_word_counts() {
    let (control, memory) = control(true);
    let first = control.arm();
    assert!(control.stop(first, StopCause::Cancelled) && !control.stop(first, StopCause::Deadline));
    control.begin(None);
    assert!(control.is_due() && control.patrol(control.epoch) && done(&memory) == (1, 0));
    assert_eq!(control.due_for(first, control.epoch + MS * 3), Some((StopCause::Cancelled, MS * 3)));
    assert_eq!(control.end(), Ended::Intact(Some(StopCause::Cancelled)));
    assert_eq!(control.due_for(first, control.epoch + MS * 3), None, "it is over");
    let second = control.arm();
    assert!(!control.stop(first, StopCause::Back));
    control.begin(None);
    assert!(!control.stop(first, StopCause::Back) && control.stop(second, StopCause::Back));
    assert_eq!(control.due_for(second, control.epoch), None, "the watchdog has not seen it");
    control.patrol(control.epoch);
    assert_eq!((control.due_for(first, control.epoch), control.end()), (None, Ended::Intact(Some(StopCause::Back))));
}

#[test]
fn a_run_that_goes_on_after_its_time_is_asked_and_then_loses_its_memory() {
    let (control, memory) = control(true);
    let deadline = control.epoch + MS * 5;
    let ticket = control.arm();
    control.begin(Some(deadline));
    assert!(control.patrol(deadline - MICRO) && done(&memory) == (0, 0));
    assert!(control.patrol(deadline) && done(&memory) == (1, 0));
    assert_eq!(control.due_for(ticket, deadline + MS), Some((StopCause::Deadline, MS)));
    assert!(control.patrol(deadline + GRACE - MICRO) && done(&memory) == (1, 0));
    assert_eq!(control.due_for(ticket, deadline + MS * 2), Some((StopCause::Deadline, MS * 2)), "since the first look");
    control.forgive(deadline + MS);
    assert_eq!(control.due_for(ticket, deadline + MS * 2), Some((StopCause::Deadline, MS)));
    memory.is_stuck.store(true, Ordering::Relaxed);
    assert!(control.patrol(deadline + GRACE) && control.load().state() == State::Running);
    memory.is_stuck.store(false, Ordering::Relaxed);
    // it has the same time once more
    assert!(control.patrol(deadline + GRACE * 2 - MICRO) && done(&memory) == (1, 0));
    assert!(control.patrol(deadline + GRACE * 2) && done(&memory) == (1, 1));
    assert!(control.patrol(deadline + GRACE * 9) && done(&memory) == (1, 1), "once");
    assert!(matches!(control.enter_host(), Entry::Gone));
    assert_eq!((control.end(), control.load().state()), (Ended::Killed(StopCause::Deadline), State::Gone));
    assert!(!control.patrol(deadline + GRACE * 9) && control.due_for(ticket, deadline + GRACE * 9).is_none());
}

#[test]
fn a_guest_whose_faults_are_the_processes_own_is_asked_again_and_again() {
    let (control, memory) = control(false);
    control.arm();
    control.begin(Some(control.epoch));
    for asked in 1..5 {
        assert!(control.patrol(control.epoch + GRACE * asked));
        assert_eq!(done(&memory), (asked, 0));
    }
    assert_eq!(control.end(), Ended::Intact(Some(StopCause::Deadline)));
}

#[test]
fn in_a_host_call_nothing_is_touched_and_the_next_ones_are_refused_once_and_then_trap() {
    let (control, memory) = control(true);
    let ticket = control.arm();
    control.begin(Some(control.epoch));
    let Entry::Open(guard) = control.enter_host() else { panic!("nobody has looked yet") };
    let seen = Instant::now();
    assert!(control.patrol(seen) && control.patrol(seen + GRACE * 5));
    assert_eq!((done(&memory), control.due_for(ticket, seen + MS)), ((0, 0), Some((StopCause::Deadline, MS))));
    drop(guard);
    assert!(matches!(control.enter_host(), Entry::Refused));
    assert_eq!((done(&memory), control.load().cause()), ((1, 0), Some(StopCause::Deadline)));
    assert_eq!(control.load().state(), State::Running);
    let interrupted = control.interrupted_at.load(Ordering::Relaxed);
    let now = || micros_since(control.epoch, Instant::now());
    assert!(interrupted <= now());
    // what the handler has changed is handed over while it ends, unless that took too long by then
    if let Entry::Open(guard) = control.enter_host() {
        assert_eq!(control.load().state(), State::Host);
        drop(guard);
    } else {
        assert!(now() >= interrupted + KILL_GRACE_MICROS, "it has been refused before");
    }
    while now() < interrupted + KILL_GRACE_MICROS {
        std::hint::spin_loop();
    }
    assert!(matches!(control.enter_host(), Entry::Gone));
    assert_eq!((done(&memory), control.end()), ((1, 0), Ended::Killed(StopCause::Deadline)));
}

#[test]
fn a_host_call_that_is_never_left_leaves_nothing_to_go_on_with() {
    let (control, _) = control(true);
    control.arm();
    control.begin(None);
    let Entry::Open(guard) = control.enter_host() else { panic!("it is not due") };
    std::mem::forget(guard);
    assert_eq!((control.end(), control.load().state()), (Ended::Abandoned, State::Gone));
    assert!(!control.patrol(control.epoch));
}

#[test]
fn a_host_call_that_takes_long_sees_that_the_time_is_over_and_says_so() {
    let (control, _) = control(true);
    control.arm();
    control.begin(Some(Instant::now() + GRACE * 100_000));
    assert!(!control.is_due());
    control.end();
    let ticket = control.arm();
    control.begin(Some(control.epoch));
    assert!(control.is_due() && !control.stop(ticket, StopCause::Cancelled), "the cause is known");
    assert_eq!(control.end(), Ended::Intact(Some(StopCause::Deadline)));
}

#[test]
fn a_run_is_overdue_by_so_much_while_somebody_waits_for_it() {
    let (control, _) = control(true);
    let deadline = control.epoch + MS * 5;
    let ticket = control.arm();
    control.begin(Some(deadline));
    assert!(!control.is_overdue(deadline + MS * 3, MS * 3) && control.is_overdue(deadline + MS * 3 + MICRO, MS * 3));
    // from when it was asked to end
    control.patrol(deadline + MS * 10);
    let asked = deadline + MS * 10;
    assert!(!control.is_overdue(asked + MS, MS) && control.is_overdue(asked + MS + MICRO, MS));
    let Entry::Refused = control.enter_host() else { panic!("it is due") };
    assert!(control.is_overdue(asked + MS * 2, MS));
    assert!(control.give_up(ticket) && !control.is_overdue(asked + MS * 2, MS), "nobody waits any more");
    control.end();
    control.arm();
    assert!(!control.is_overdue(asked + MS * 2, MS), "nothing runs");
}

#[test]
fn a_run_that_is_not_due_has_no_time_to_be_forgiven() {
    let (control, _) = control(true);
    control.arm();
    control.begin(Some(control.epoch + MS));
    control.forgive(control.epoch + MS);
    assert_eq!(control.due_since.load(Ordering::Relaxed), NO_DEADLINE);
}

#[test]
fn a_run_is_claimed_or_given_up_whichever_comes_first() {
    let (control, _) = control(true);
    let first = control.arm();
    assert!(control.claim() && !control.give_up(first) && control.claim());
    let second = control.arm();
    assert!(!control.give_up(first) && control.give_up(second) && control.give_up(second) && !control.claim());
    let third = control.arm();
    assert!(!control.give_up(second) && control.claim() && !control.give_up(third));
}

#[test]
fn the_books_see_the_control_of_an_instance_as_its_thread_does() {
    on_engine_thread(|instance| {
        let control = instance.control().clone();
        let books: Arc<dyn Control> = control.clone();
        let ticket = books.arm();
        assert_eq!(control.load().ticket(), ticket);
        control.begin(Some(control.epoch));
        assert!(control.patrol(Instant::now()) && books.due_for(ticket, Instant::now()).is_some());
        let later = Instant::now() + GRACE * 1000;
        assert!(books.due_for(ticket, later).is_some_and(|(_, late)| late >= GRACE * 900));
        books.forgive(later);
        assert_eq!(books.due_for(ticket, later), Some((StopCause::Deadline, Duration::ZERO)));
        assert!(books.resident_bytes().is_some_and(|bytes| bytes > 4096));
        control.end();
        let ticket = books.arm();
        assert!(books.stop(ticket, StopCause::Cancelled) && !books.stop(ticket, StopCause::Cancelled));
        assert!(books.give_up(ticket) && !control.claim());
        books.arm();
        assert!(!books.give_up(ticket));
        control.begin(None);
        assert_eq!(control.end(), Ended::Intact(None));
    });
}

#[test]
fn what_is_asked_of_the_memory_of_an_instance_happens_to_it() {
    on_engine_thread(|instance| {
        let control = instance.control().clone();
        let memory = &control.memory;
        let word =
            |at: u32| memory.read_vec(at, 4).ok().and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        // where nothing stands
        let at = memory.len() as u32 - 4;
        assert_eq!(word(at), Some(0));
        Stoppable::interrupt(memory, at);
        assert_eq!(word(at), Some(1));
    });
}
