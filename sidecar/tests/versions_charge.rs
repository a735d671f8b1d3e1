//! What old versions of a resident state are charged that are still read is at least half of what they take, and at the most
//! twice of it. `cargo test -p nexus-sidecar --test versions_charge -- --nocapture` prints the figures.
//!
//! A test program of its own, with one test: whatever else ran in the process would be measured too.

use std::fs;
use std::sync::Arc;

use nexus_sidecar::resident::{Changes, ResidentState, Snapshot, StateLimits, States};
use nexus_sidecar::token::StopToken;

/// Pages that this process has written to.
fn private_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A state of so many keys, of which each version changes some, and each version is read on.
const VERSIONED_KEYS: usize = 50_000;
const VERSIONS: usize = 20;

fn map(keys: impl ExactSizeIterator<Item = usize>, width: usize, value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    rmp::encode::write_map_len(&mut out, keys.len() as u32).unwrap();
    for key in keys {
        rmp::encode::write_str(&mut out, &format!("{key:0width$}")).unwrap();
        rmp::encode::write_u32(&mut out, value).unwrap();
    }
    out
}

fn versioned(width: usize) -> (States, Arc<ResidentState>) {
    let states = States::new(StateLimits { states: u64::MAX, bytes: u64::MAX, total_bytes: u64::MAX });
    states.open(1);
    let (id, _) = states.create(1, &map(0..VERSIONED_KEYS, width, 0), &StopToken::new()).unwrap();
    let state = states.find(1, &id.to_string()).unwrap();
    (states, state)
}

fn patch(state: &Arc<ResidentState>, set: &[u8]) {
    let changes = Changes::of_client(set, &[], state.budget(), &StopToken::new()).unwrap();
    state.apply(changes, None, &StopToken::new()).unwrap();
}

/// What is measured, kept until all is measured: memory that was freed would be taken again unseen.
struct Measured {
    states: States,
    /// Before there were old versions.
    charged: u64,
    readers: Vec<Snapshot>,
}

/// Each version changes every `every`-th key, others than the one before.
fn old_versions(every: usize, width: usize) -> Measured {
    let (states, state) = versioned(width);
    let (before, charged_before) = (private_bytes(), states.bytes());
    let mut readers = Vec::new();
    for version in 0..VERSIONS {
        readers.push(state.snapshot());
        let keys: Vec<usize> = (version % every..VERSIONED_KEYS).step_by(every).collect();
        patch(&state, &map(keys.into_iter(), width, version as u32));
    }
    let (taken, charged) = (private_bytes() - before, states.bytes() - charged_before);
    let ratio = charged as f64 / taken as f64;
    println!("{VERSIONS} versions that are read, each of every {every}th key: {ratio:.2} of {taken} bytes is charged");
    assert!((0.5..=2.0).contains(&ratio), "every {every}: {ratio:.2}");
    Measured { states, charged: charged_before, readers }
}

/// One key that changes ten thousand times keeps next to nothing, however many versions are read.
fn hot_key() {
    let (states, state) = versioned(6);
    let charged_before = states.bytes();
    let mut readers = Vec::new();
    for version in 0..10_000 {
        if version % 500 == 0 {
            readers.push(state.snapshot());
        }
        patch(&state, &map([7].into_iter(), 6, version));
    }
    let charged = states.bytes() - charged_before;
    assert!(charged < 100_000, "{charged} for {} versions", readers.len());
    drop(readers);
    assert!(states.bytes() <= charged_before + 8);
}

#[test]
fn what_old_versions_are_charged_is_what_they_take() {
    let shapes = [(24, 6), (60, 6), (600, 6), (7, 64), (1, 6)];
    let measured: Vec<Measured> = shapes.into_iter().map(|(every, width)| old_versions(every, width)).collect();
    for Measured { states, charged, mut readers } in measured {
        // in no order
        while !readers.is_empty() {
            readers.swap_remove(readers.len() / 3);
        }
        let left = states.bytes();
        assert!(left <= charged + (VERSIONED_KEYS * 8) as u64, "{left} are left of {charged}");
    }
    hot_key();
}
