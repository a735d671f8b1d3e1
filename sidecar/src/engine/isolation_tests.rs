//! No trace of an execution is left in an instance, seen from the host: every byte of its memory is looked at.
//!
//! The handlers are those of `tests/handlers/isolation`. `NEXUS_ISOLATION_PAIRS` asks for more executions.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nexus_protocol::CapabilitySet;
use nexus_protocol::message::SuspendMode;

use super::context::{Context, ExecutionLimits};
use super::*;
use crate::pool::Pool;
use crate::random::Random;

const CHANNELS: &str = include_str!("../../../tests/handlers/isolation/channels.js");
const PAGE: usize = 4096;
const TIMEOUT: Duration = Duration::from_millis(30);

/// One test after another: each has the machine's memory to itself.
static ALONE: Mutex<()> = Mutex::new(());

fn alone(f: impl FnOnce(&Arc<Engine>) + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let engine = Engine::start(EngineOptions::default()).expect("the engine starts");
    let stack = thread_stack_bytes(engine.options().stack_bytes);
    std::thread::Builder::new().stack_size(stack).spawn(move || f(&engine)).unwrap().join().unwrap();
}

fn wanted(at_least: usize) -> usize {
    std::env::var("NEXUS_ISOLATION_PAIRS").map_or(at_least, |pairs| pairs.parse().expect("a number"))
}

#[test]
fn whatever_was_written_to_is_restored_whether_the_kernel_tells_of_it_or_not() {
    alone(|engine| {
        for mode in [SuspendMode::Await, SuspendMode::Stack] {
            let options = EngineOptions { mode, ..engine.options().clone() };
            let engine = Engine::start(options).expect("the engine starts");
            let mut instance = engine.instantiate().expect("an instance");
            let pages = instance.memory_of_test().len() / PAGE;
            // as far as any window of any guest reaches, and the last ones
            let often: Vec<usize> = (0..6_000).chain(pages - 4..pages).collect();
            let mut random = Random(11);
            for round in 0..60 {
                let count = if round % 3 == 0 { 300 } else { 5 };
                let all = round % 20 == 0;
                let some = (0..count).map(|_| random.pick(&often)).collect::<Vec<_>>();
                for page in if all { &often } else { &some } {
                    let at = page * PAGE + (random.below(PAGE));
                    let old = instance.memory_of_test().read_vec(at as u32, 1).unwrap()[0];
                    instance.scribble(at as u32, &[!old]);
                }
                assert!(instance.first_difference().is_some(), "{mode:?}, round {round}");
                engine.image.restore_by(instance.memory_of_test(), round % 2 == 0).unwrap();
                assert_eq!(instance.first_difference(), None, "{mode:?}, round {round}");
            }
        }
    });
}

/// 32 random letters, and 32 random bytes.
struct Canary {
    text: String,
    bytes: Vec<u8>,
}

impl Canary {
    fn new(random: &mut Random) -> Self {
        let text = (0..32).map(|_| char::from(b'a' + (random.next() % 26) as u8)).collect();
        Self { text, bytes: (0..32).map(|_| random.next() as u8).collect() }
    }

    /// Every form in which it may lie in memory: as text of one byte or two for each character, and as bytes.
    fn forms(&self) -> [Vec<u8>; 3] {
        [
            self.text.clone().into_bytes(),
            self.text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            self.bytes.clone(),
        ]
    }

    fn context(&self) -> Box<Context> {
        let limits = ExecutionLimits {
            timeout: None,
            memory_bytes: 32 << 20,
            host_calls: 3000,
            state_mutations: 1000,
            events: 100,
            result_bytes: 1 << 20,
            log_bytes: 64 << 10,
        };
        let nested = rmpv::Value::Map(vec![
            ("text".into(), (*self.text).into()),
            ("list".into(), rmpv::Value::Array(vec![(*self.text).into()])),
        ]);
        let pack = |pairs: Vec<(rmpv::Value, rmpv::Value)>| {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(pairs)).unwrap();
            bytes
        };
        let all = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];
        let state = pack(vec![("text".into(), (*self.text).into()), ("nested".into(), nested)]);
        let mut context = Context::new(CapabilitySet::parse(all).unwrap(), StateView::new(state), limits);
        context.args =
            pack(vec![("text".into(), (*self.text).into()), ("bytes".into(), rmpv::Value::Binary(self.bytes.clone()))]);
        context.scope = pack(vec![("text".into(), (*self.text).into())]);
        Box::new(context)
    }
}

fn compile(instance: &mut Instance, source: &str) -> Vec<u8> {
    let compiled = instance.compile(&format!("const c = $args.text, bytes = $args.bytes;\n{source}"), 32 << 20, None);
    instance.reset().unwrap();
    match compiled {
        Compiled::Bytecode(bytecode) => bytecode,
        other => panic!("{source}: {other:?}"),
    }
}

/// Channels, compiled.
fn channels(instance: &mut Instance) -> Vec<(&'static str, Vec<u8>)> {
    CHANNELS
        .split("// channel:")
        .skip(1)
        .map(|part| {
            let (name, source) = part.split_once('\n').expect("a name, then a handler");
            (name.trim(), compile(instance, source))
        })
        .collect()
}

/// Runs to the end, or to where it stays suspended: with an odd `seed`, extension calls are answered until none is left.
fn execute(instance: &mut Instance, bytecode: &[u8], canary: &Canary, seed: u64) {
    let deadline = || Some(Instant::now() + TIMEOUT);
    let mut segment = instance.run(bytecode, canary.context(), deadline());
    let answer = [&[0xd9, 32], canary.text.as_bytes()].concat();
    for call in 0..4 {
        if !matches!(segment.end, SegmentEnd::Suspended) || seed.is_multiple_of(2) {
            return;
        }
        let failed = b"\x81\xa7message\xa1x";
        segment = instance.resume(call, if seed.is_multiple_of(3) { Err(failed) } else { Ok(&answer) }, deadline());
    }
}

/// Addresses at which a canary lies. Pages that hold nothing are left out unless `everywhere`.
fn hits(instance: &Instance, canary: &Canary, everywhere: bool) -> Vec<usize> {
    let memory = instance.memory_of_test();
    let forms = canary.forms();
    let mut found = Vec::new();
    let mut look = |at: usize, bytes: &[u8]| {
        for form in &forms {
            let first = form[0];
            let places = bytes.iter().enumerate().filter(|(i, b)| **b == first && bytes[*i..].starts_with(form));
            found.extend(places.map(|(i, _)| at + i));
        }
    };
    if everywhere {
        look(0, &instance.dump_memory());
        return found;
    }
    let touched = memory.touched_pages().unwrap();
    let mut page = 0;
    while page < touched.len() {
        let run = touched[page..].iter().take_while(|touched| **touched).count();
        if run > 0 {
            look(page * PAGE, &memory.read_vec((page * PAGE) as u32, run * PAGE).unwrap());
        }
        page += run.max(1);
    }
    found
}

#[test]
fn no_byte_of_an_execution_outlives_the_reset() {
    alone(|engine| look_for_traces("calls awaited", engine));
}

#[test]
fn no_byte_of_an_execution_in_stack_style_outlives_the_reset() {
    alone(|engine| look_for_traces("stack style", &engine.start_stack_style().expect("the engine starts")));
}

fn look_for_traces(style: &str, engine: &Arc<Engine>) {
    let mut instance = engine.instantiate().unwrap();
    let channels = channels(&mut instance);
    let mut random = Random(0x1501_a7e5);
    let (pairs, mut seen, mut given_up) = (wanted(200).max(channels.len()), 0, 0);
    for number in 0..pairs {
        let pick = if number < channels.len() { number } else { random.next() as usize % channels.len() };
        let (name, bytecode) = &channels[pick];
        let canary = Canary::new(&mut random);
        execute(&mut instance, bytecode, &canary, random.next());
        // the scan finds what is there, or it would prove nothing
        let before = if number < channels.len() { !hits(&instance, &canary, false).is_empty() } else { true };
        seen += usize::from(before && number < channels.len());
        if !instance.is_sound() {
            given_up += 1;
            instance = engine.instantiate().unwrap();
        } else {
            instance.reset().unwrap();
        }
        assert_eq!(instance.first_difference(), None, "pair {number}, {name}");
        let everywhere = number % 50 == 0;
        assert_eq!(hits(&instance, &canary, everywhere), Vec::<usize>::new(), "pair {number}, {name}");
        assert_eq!(instance.stack_pointer(), Some(engine.image.stack_pointer()), "pair {number}, {name}");
    }
    println!(
        "{style}: {pairs} executions over {} channels: seen before the reset in {seen}, {given_up} instances given up",
        channels.len()
    );
    assert!(seen * 10 >= channels.len() * 9, "{seen} of {}", channels.len());
}

#[test]
fn an_instance_that_is_not_sound_is_never_served_again() {
    alone(|engine| {
        let pool = Pool::new(engine.clone(), 1, 1).unwrap();
        let mut instance = pool.lease().unwrap();
        let channels = channels(&mut instance);
        pool.give_back(instance);
        let mut random = Random(7);
        let (mut poisoned, mut dropped) = (0, 0);
        for number in 0..wanted(200) {
            let mut instance = pool.lease().unwrap();
            assert!(instance.is_sound(), "{number}");
            assert_eq!(instance.first_difference(), None, "{number}");
            let before = pool.counts();
            let (name, bytecode) = &channels[random.next() as usize % channels.len()];
            execute(&mut instance, bytecode, &Canary::new(&mut random), random.next());
            if random.next().is_multiple_of(10) {
                // as when an execution goes with its connection, suspended or not
                drop(instance);
                dropped += 1;
                continue;
            }
            let is_sound = instance.is_sound();
            let kept = pool.give_back(instance).is_some();
            assert_eq!(kept, is_sound, "{name}");
            assert_eq!(pool.counts().terminated - before.terminated, u64::from(!is_sound), "{name}");
            poisoned += usize::from(!is_sound);
        }
        println!("{poisoned} poisoned, {dropped} dropped");
        assert!(poisoned > 5 && dropped > 5);
    });
}

#[test]
fn an_instance_whose_reset_fails_half_way_is_dropped() {
    alone(|engine| {
        let pool = Pool::new(engine.clone(), 1, 1).unwrap();
        for round in 0..20u32 {
            let mut instance = pool.lease().unwrap();
            assert_eq!((instance.uses, instance.first_difference()), (0, None), "round {round}: never one that ran");
            let bytecode =
                compile(&mut instance, "globalThis.leak = c; return new Uint8Array(8 << 20).fill(67).length");
            let segment = instance.run(&bytecode, Canary::new(&mut Random(round.into())).context(), None);
            assert!(matches!(segment.end, SegmentEnd::Done(_)), "{segment:?}");
            // far behind what the reset zeroes and copies, so that the greater part of it is done when it fails
            instance.memory_of_test().pin_page((48 << 20) + round * PAGE as u32).unwrap();
            let before = pool.counts().terminated;
            assert_eq!(pool.give_back(instance), None);
            assert_eq!((pool.counts().terminated, pool.counts().available), (before + 1, 0));
        }
    });
}

#[test]
fn a_failed_reset_leaves_an_instance_that_says_so_for_ever() {
    alone(|engine| {
        let mut instance = engine.instantiate().unwrap();
        instance.memory_of_test().pin_page(48 << 20).unwrap();
        assert!(instance.reset().is_err());
        assert!(!instance.is_sound());
        assert!(instance.reset().is_err());
        assert!(!instance.is_sound());
    });
}

#[test]
fn executions_of_two_handlers_alternate_in_one_instance_without_a_trace() {
    alone(|engine| {
        let mut instance = engine.instantiate().unwrap();
        let a = compile(&mut instance, "globalThis.a = c; Array.prototype.push = () => c; return typeof globalThis.b");
        let b =
            compile(&mut instance, "globalThis.b = c; const l = []; l.push(1); return typeof globalThis.a + l.length");
        for round in 0..100u64 {
            let canary = Canary::new(&mut Random(round));
            for (bytecode, expected) in [(&a, "undefined"), (&b, "undefined1"), (&a, "undefined")] {
                let segment = instance.run(bytecode, canary.context(), None);
                let SegmentEnd::Done(value) = segment.end else { panic!("{segment:?}") };
                assert_eq!(rmp_serde::from_slice::<String>(&value).unwrap(), expected);
                instance.reset().unwrap();
                assert_eq!(instance.first_difference(), None);
            }
        }
    });
}
