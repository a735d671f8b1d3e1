//! Harness of the black-box tests: real sidecar processes, a client that may misbehave, and probes that see leaks.
//!
//! Nothing here links the sidecar: what is tested is the program, over its socket. Failures panic, since every caller is a
//! test, a bench or a fuzzer; nothing here is shipped. All randomness is seeded.

/// Latencies and their percentiles.
pub mod bench;
/// A client that can send anything.
pub mod client;
/// QuickJS-ng's own tests as handlers.
pub mod conformance;
/// The hostile handlers.
pub mod corpus;
/// The vectors of `protocol/golden`.
pub mod golden;
/// Handlers that try to leave something behind.
pub mod isolation;
/// Random programs that every engine runs alike.
pub mod javascript;
/// Counts of what a process holds.
pub mod leaks;
/// A machine with a systemd of its own.
pub mod machine;
/// Sidecars as child processes.
pub mod process;
/// Random programs over `$state`.
pub mod programs;
/// Seeded random numbers.
pub mod rng;
/// Execute requests in few words.
pub mod run;
/// A long, mixed load and what it leaves.
pub mod soak;
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

/// That nothing waits for something that takes longer than `limit`: one of several tries is enough, since a busy machine
/// makes some of them slow, and what waits makes all of them. `try_it` takes the time itself.
pub fn once_within(what: &str, limit: Duration, mut try_it: impl FnMut() -> Duration) {
    const TRIES: usize = 6;
    let mut taken = Vec::new();
    while taken.last().is_none_or(|last| *last > limit) {
        assert!(taken.len() < TRIES, "never within {limit:?}: {what}: {taken:?}");
        taken.push(try_it());
    }
}

/// How often a test repeats what chance may hide: `few` in the gate, or as often as `NEXUS_TRIALS` says.
pub fn trials(few: usize) -> usize {
    number("NEXUS_TRIALS", few as u64) as usize
}
