//! What a resident state is charged is what it takes: memory of this process, measured for a quarter of a million keys in
//! each of several shapes. `cargo test -p nexus-sidecar --test state_charge -- --nocapture` prints the figures.
//!
//! A test program of its own, with one test: whatever else ran in the process would be measured too.

use std::fs;

use nexus_protocol::limits::{STATE_BYTES, STATE_ENTRY_BYTES};
use nexus_sidecar::resident::{StateLimits, States};
use nexus_sidecar::token::StopToken;

/// Of each shape, in all.
const KEYS: usize = 250_000;
/// Measured states are at least this many, so that what each takes beside its keys is seen.
const MIN_STATES: usize = 250;

/// Pages that this process has written to.
fn private_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

struct Shape {
    what: &'static str,
    /// Of one state.
    keys: usize,
    name_bytes: usize,
    value_bytes: usize,
    /// Where in the order of the names the i-th is that is sent.
    place: fn(usize, usize) -> usize,
}

impl Shape {
    fn payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        rmp::encode::write_map_len(&mut out, self.keys as u32).unwrap();
        for i in 0..self.keys {
            let name = format!("{:0width$}", (self.place)(i, self.keys), width = self.name_bytes);
            rmp::encode::write_str(&mut out, &name).unwrap();
            match self.value_bytes {
                1 => out.push(0xc3),
                _ => rmp::encode::write_bin(&mut out, &vec![7; self.value_bytes - 3]).unwrap(),
            }
        }
        out
    }
}

#[test]
fn what_a_state_is_charged_is_what_it_takes() {
    let no_bound = StateLimits { states: u64::MAX, bytes: u64::MAX, total_bytes: u64::MAX };
    let states = States::new(no_bound);
    states.open(1);
    let mixed = |i: usize, n: usize| i * 617 % n;
    let shape = Shape { what: "names in no order", keys: 1_000, name_bytes: 4, value_bytes: 1, place: mixed };
    let shapes = [
        Shape { what: "names in order", place: |i, _| i, ..shape },
        Shape { what: "names backwards", place: |i, n| n - 1 - i, ..shape },
        Shape { what: "long names", name_bytes: 64, ..shape },
        Shape { what: "values of 300 bytes", value_bytes: 300, ..shape },
        Shape { what: "ten keys", keys: 10, ..shape },
        Shape { what: "one key", keys: 1, ..shape },
        Shape { what: "no keys", keys: 0, ..shape },
        shape,
    ];
    let token = StopToken::new();
    // whatever a first one makes once
    states.create(1, &[0x80], &token).unwrap();
    for shape in shapes {
        let (payload, count) = (shape.payload(), (KEYS / 10 / shape.keys.max(1) * 10).clamp(MIN_STATES, 20_000));
        let (before, charged_before) = (private_bytes(), states.counts().1);
        for _ in 0..count {
            states.create(1, &payload, &token).unwrap();
        }
        let (taken, charged) = (private_bytes() - before, states.counts().1 - charged_before);
        let data = shape.keys * (shape.name_bytes + shape.value_bytes);
        println!(
            "{:<20} {:7.1} bytes a state beside names and values",
            shape.what,
            taken as f64 / count as f64 - data as f64
        );
        let entries = shape.keys as u64 * STATE_ENTRY_BYTES + data as u64;
        assert_eq!(charged, count as u64 * (STATE_BYTES + entries));
        let ratio = charged as f64 / taken as f64;
        println!("{:<20} {ratio:.2} of what it takes is charged", "");
        assert!(ratio >= 0.98, "{}: {ratio:.2}", shape.what);
        // an empty state is charged as one that has a key
        assert!(ratio <= 1.5 || shape.keys == 0, "{}: {ratio:.2}", shape.what);
    }
}
