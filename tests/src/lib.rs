//! Harness of the black-box tests: real sidecar processes, a client that may misbehave, and probes that see leaks.
//!
//! Nothing here links the sidecar: what is tested is the program, over its socket. Failures panic, since every caller is a
//! test, a bench or a fuzzer; nothing here is shipped. All randomness is seeded.

/// Programs that change a state through other names for its parts.
pub mod aliases;
mod answer;
/// Latencies and their percentiles.
pub mod bench;
/// Connections that come and go beside others.
pub mod churn;
/// A client that can send anything.
pub mod client;
/// QuickJS-ng's own tests as handlers.
pub mod conformance;
/// The hostile handlers.
pub mod corpus;
/// The vectors of `protocol/golden`.
pub mod golden;
/// The HTTP endpoint, for those who only ask.
pub mod http;
/// Handlers that try to leave something behind.
pub mod isolation;
/// Random programs that every engine runs alike.
pub mod javascript;
/// Counts of what a process holds.
pub mod leaks;
/// A machine with a systemd of its own.
pub mod loops;
pub mod machine;
pub mod needs;
/// Sidecars as child processes.
pub mod process;
/// Limits that sidecars of tests have.
pub mod profile;
/// Random programs over `$state`.
pub mod programs;
/// Seeded random numbers.
pub mod rng;
/// Execute requests in few words.
pub mod run;
/// A long, mixed load and what it leaves.
pub mod soak;
pub mod styles;
/// Directories that go when the test goes.
pub mod temp;
/// Programs on a terminal of their own.
pub mod terminal;
/// Random values and what JavaScript makes of them.
pub mod values;
/// Ends tests that hang.
pub mod watchdog;

pub use client::{Answer, Call, Client, Reply, Segment, Waiting};
pub use leaks::LeakProbe;
pub use process::{Options, Sidecar};
pub use profile::Profile;
pub use rng::Rng;
pub use run::Run;
pub use watchdog::Watchdog;

use std::time::{Duration, Instant};

/// Of things that happen at once on a machine that is free, and in some seconds on one that is not: only what never happens
/// takes longer. What is promised in figures is measured by the bench.
pub const SOON: Duration = Duration::from_secs(40);

/// Polls until `f` holds. Panics with `what` when that takes longer than `limit`.
pub fn eventually(what: &str, limit: Duration, mut f: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !f() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The number that an environment variable says.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// How many times what this machine takes for a control a promise may be late by: threads of both wait for their turns, and
/// what is tried wakes a few more of them.
const LATENESS: u32 = 20;
/// Tries, of which most have to be in time: a busy machine makes some of them slow that the controls beside them do not show.
const TRIES: usize = 5;

/// That something takes no longer than `limit`, as this machine tells time: between the tries the same machine does `control`,
/// something of the same kind that has nothing to wait for. Both take the time themselves.
pub fn in_time(
    what: &str,
    limit: Duration,
    mut control: impl FnMut() -> Duration,
    mut try_it: impl FnMut() -> Duration,
) {
    let (mut in_time, mut late) = (0, Vec::new());
    let mut before = control();
    while in_time <= TRIES / 2 {
        let taken = try_it();
        let after = control();
        let allowed = limit + LATENESS * before.max(after);
        before = after;
        if taken <= allowed {
            in_time += 1;
        } else {
            late.push((taken, allowed));
        }
        assert!(late.len() <= TRIES / 2, "{what}: took, and was allowed on this machine: {late:?}");
    }
}

/// How long it takes.
pub fn time(f: impl FnOnce()) -> Duration {
    let started = Instant::now();
    f();
    started.elapsed()
}

/// How often a test repeats what chance may hide: `few` in the gate, or as often as `NEXUS_TRIALS` says.
pub fn trials(few: usize) -> usize {
    number("NEXUS_TRIALS", few as u64) as usize
}
