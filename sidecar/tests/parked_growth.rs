//! Parking, resetting, unparking and resuming ten thousand times takes no more memory than a thousand times.
//!
//! A test program of its own, with one test: whatever else ran in the process would be measured too.

use std::fs;
use std::thread;

use nexus_protocol::CapabilitySet;
use nexus_sidecar::engine::context::{Context, ExecutionLimits};
use nexus_sidecar::engine::{Compiled, Engine, EngineOptions, SegmentEnd, StateView, thread_stack_bytes};

const SOURCE: &str = "return (await $ext.math.next($args)) + 1";
const ROUNDS: u32 = 10_000;
/// Of the rounds, those after which growth counts.
const FIRST_ROUNDS: u32 = 1_000;
const MAX_GROWTH_BYTES: u64 = 4 << 20;

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn context(args: u8) -> Box<Context> {
    let limits = ExecutionLimits {
        timeout: None,
        memory_bytes: 32 << 20,
        host_calls: 10,
        state_mutations: 10,
        events: 10,
        result_bytes: 1 << 20,
        log_bytes: 64 << 10,
    };
    let mut context = Context::new(CapabilitySet::parse(["ext:*"]).unwrap(), StateView::new(vec![0x80]), limits);
    context.args = vec![args];
    Box::new(context)
}

fn rounds() {
    let engine = Engine::start(EngineOptions::default()).unwrap();
    let mut first = engine.instantiate().unwrap();
    let mut second = engine.instantiate().unwrap();
    let Compiled::Bytecode(bytecode) = first.compile(SOURCE, 32 << 20, None) else { panic!("it compiles") };
    first.reset().unwrap();
    let (mut smallest, mut largest, mut before) = (usize::MAX, 0, 0);
    for round in 0..ROUNDS {
        let args = (round % 100) as u8;
        assert!(matches!(first.run(&bytecode, context(args), None).end, SegmentEnd::Suspended));
        let parked = first.park().unwrap();
        first.reset().unwrap();
        (smallest, largest) = (smallest.min(parked.bytes()), largest.max(parked.bytes()));
        second.unpark(parked).unwrap();
        let end = second.resume(0, Ok(&[args]), None).end;
        assert!(matches!(&end, SegmentEnd::Done(value) if *value == [args + 1]), "{end:?}");
        second.reset().unwrap();
        if round == FIRST_ROUNDS {
            before = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("images of {smallest} to {largest} bytes, grown by {grown} bytes");
    assert!(largest < 5000 && largest - smallest < 500, "{smallest} to {largest}");
    assert!(grown < MAX_GROWTH_BYTES, "{grown}");
}

#[test]
fn parking_ten_thousand_times_takes_no_more_memory() {
    let stack = thread_stack_bytes(EngineOptions::default().stack_bytes);
    thread::Builder::new().stack_size(stack).spawn(rounds).unwrap().join().unwrap();
}
