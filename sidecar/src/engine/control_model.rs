//! Every order in which a run, the watchdog and whoever stops it can meet at a control, by a model checker.
//!
//! Built with the feature `model` alone, which puts the checker's atomics in the place of the machine's.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use super::control::{Ended, Entry, RunControl, StopCause, Stoppable};

/// Threads are taken off the processor this often at places that do not wait.
const PREEMPTIONS: usize = 3;

/// A memory that notes what is done to it, and finds fault with what may not be.
#[derive(Debug, Default)]
struct Memory {
    interrupts: AtomicU32,
    in_host: AtomicBool,
}

impl Stoppable for Arc<Memory> {
    fn interrupt(&self, _: u32) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    fn revoke(&self) -> io::Result<()> {
        assert!(!self.in_host.load(Ordering::Relaxed), "the memory was taken away within a host call");
        Ok(())
    }

    fn resident_bytes(&self) -> Option<u64> {
        None
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// One entry into the guest, with a host call in it. What the guest sees of its end.
fn run(control: &RunControl<Arc<Memory>>, memory: &Memory, deadline: Option<Instant>) -> Ended {
    control.begin(deadline);
    if let Entry::Open(guard) = control.enter_host() {
        memory.in_host.store(true, Ordering::Relaxed);
        memory.in_host.store(false, Ordering::Relaxed);
        drop(guard);
    }
    control.end()
}

#[test]
fn nothing_that_is_meant_for_a_run_reaches_the_next_one() {
    check(|| {
        let memory = Arc::new(Memory::default());
        let control = RunControl::new(memory.clone(), 0, true);
        let start = Instant::now();
        let first = control.arm();
        let watchdog = {
            let control = control.clone();
            // the first run is due at once, and the grace period is over at the second look
            thread::spawn(move || {
                control.patrol(start + Duration::from_secs(1));
                control.patrol(start + Duration::from_secs(60));
            })
        };
        let stopper = {
            let control = control.clone();
            thread::spawn(move || {
                control.stop(first, StopCause::Cancelled);
                control.give_up(first)
            })
        };
        let end = run(&control, &memory, Some(start));
        let killed = matches!(end, Ended::Killed(_));
        let claimed = control.claim();
        if !killed {
            // another request's, on the same instance, with all the time that there is
            let second = control.arm();
            assert_ne!(first, second);
            assert_eq!(run(&control, &memory, None), Ended::Intact(None), "the next run was stopped");
            assert!(control.claim(), "the next run was given up");
        }
        watchdog.join().unwrap();
        let given_up = stopper.join().unwrap();
        assert!(!(claimed && given_up), "a run is claimed or given up, not both");
    });
}

#[test]
fn a_stop_reaches_the_run_that_it_is_meant_for_however_early_it_comes() {
    check(|| {
        let memory = Arc::new(Memory::default());
        let control = RunControl::new(memory.clone(), 0, true);
        let ticket = control.arm();
        let stopper = {
            let control = control.clone();
            thread::spawn(move || control.stop(ticket, StopCause::Cancelled))
        };
        let end = run(&control, &memory, None);
        let reached = stopper.join().unwrap();
        assert!(reached, "nobody else has stopped it");
        // it came before the end, and is told; or after it, and what it says of the run is forgotten with the run
        let told = end == Ended::Intact(Some(StopCause::Cancelled));
        let next = control.arm();
        assert!(told || end == Ended::Intact(None));
        assert!(!control.stop(ticket, StopCause::Cancelled) && control.stop(next, StopCause::Cancelled));
    });
}

#[test]
fn a_run_is_claimed_by_its_thread_or_given_up_by_the_watchdog() {
    check(|| {
        let control = RunControl::new(Arc::new(Memory::default()), 0, true);
        let ticket = control.arm();
        let watchdog = {
            let control = control.clone();
            thread::spawn(move || control.give_up(ticket))
        };
        let claimed = control.claim();
        assert_ne!(claimed, watchdog.join().unwrap(), "exactly one of the two");
    });
}
