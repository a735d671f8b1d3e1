//! Large states: resident ones of 1 KB and 10 MB, and 10 MB that come with the request, by socket and by shared memory.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{OpenArena, Region, Regions};
use nexus_tests::bench::Sample;
use nexus_tests::run::pack;
use nexus_tests::{Answer, Client, Options, Run};
use serde_json::{Map, Value, json};

use crate::{Scale, summary};

const LARGE: usize = 10 << 20;
/// What a key of the states holds.
const RECORD: usize = 1000;

/// A map of records of 1,000 bytes, each a number and a text.
pub fn state(bytes: usize) -> Value {
    let record = |i: usize| (format!("r{i:06}"), json!({"n": i, "text": "x".repeat(RECORD)}));
    Value::Object((0..bytes.div_ceil(RECORD)).map(record).collect())
}

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let (_sidecar, mut client) =
        Options::new().patient().flag("log", "error").flag("max-host-calls", 1_000_000).child();
    for (name, bytes) in [("1KB", 1 << 10), ("10MB", LARGE)] {
        let id = client.create_state(&state(bytes));
        let on = |source: &str| Run::source(source).resident(&id).grant(&["state:read:*", "state:write:*"]);
        let read = on("return $state.r000000.n");
        let write = on("$state.r000001 = 5");
        let sum = on("let n = 0; for (const k of Object.keys($state)) n += $state[k].n ?? 0; return n > -1");
        let mut measure = |what: &str, run: &Run, count: usize| {
            let sample = Sample::of(count / 5, count, || assert!(client.run(run.clone()).error.is_none()));
            figures.insert(format!("resident{name}{what}"), summary(&sample));
        };
        measure("Read", &read, scale.of(5_000));
        measure("Write", &write, scale.of(5_000));
        measure("Sum", &sum, scale.of(100));
    }
    for bytes in [64 << 10, 256 << 10, 1 << 20, LARGE] {
        let payload = pack(&state(bytes));
        let arena = arena(&mut client);
        let name = format!("{}KB", bytes >> 10);
        let run = Run::source("return $state.r000000.n").grant(&["state:read:r000000"]);
        let by_socket = run.clone().state_bytes(payload.clone());
        let count = scale.of(300);
        let sample = Sample::of(count / 5, count, || assert_eq!(client.run(by_socket.clone()).value(), 0));
        figures.insert(format!("socket{name}"), summary(&sample));
        let sample = Sample::of(count / 5, count, || {
            arena.0.write_all_at(&payload, 0).expect("shared memory");
            let region = Region { generation: arena.1, offset: 0, len: payload.len() as u64, crc32: None };
            let regions = Regions { state: Some(region), ..Regions::NONE };
            assert_eq!(client.run(run.clone().regions(regions)).value(), 0);
        });
        figures.insert(format!("segment{name}"), summary(&sample));
    }
    figures
}

/// The file, and its generation.
fn arena(client: &mut Client) -> (std::fs::File, u64) {
    let made = client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: 64 << 20 }));
    let Answer::Arena { generation, name: Some(name), .. } = made else { panic!("{made:?}") };
    let file = OpenOptions::new().read(true).write(true).open(format!("/dev/shm/{name}")).expect("the segment");
    let settle = OpenArena::Settle { generation, opened: true };
    assert!(matches!(client.request(&ClientMessage::OpenArena(settle)), Answer::Arena { .. }));
    (file, generation)
}
