//! Host calls with arguments that no honest guest would make, on the memory of a real one.
//!
//! `NEXUS_FUZZ_CASES` asks for more, `NEXUS_FUZZ_SEED` for others; a failure names the case.

use nexus_protocol::CapabilitySet;

use super::super::registry::Registry;
use super::*;
use crate::engine::context::ExecutionLimits;
use crate::engine::{Engine, EngineOptions, StateView};
use crate::random::Random;

type Function = fn(&mut Call<'_>) -> Answer;

/// In the order of `HOST_CALLS`, without `now`, which takes nothing.
const FUNCTIONS: [(usize, Function, usize); 11] = [
    (0, state_get, 4),
    (1, state_set, 4),
    (2, state_delete, 2),
    (3, state_has, 2),
    (4, state_keys, 2),
    (5, emit_event, 4),
    (6, view_command, 2),
    (7, ext_call, 6),
    (8, ext_query, 5),
    (9, log_record, 3),
    (11, random_bytes, 2),
];

const END: u32 = abi::LINEAR_MEMORY_BYTES as u32;
/// Where the bytes lie that arguments point at, for the most part.
const SCRATCH: u32 = 64 << 20;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Names and payloads, good, broken and cut.
fn bytes(random: &mut Random) -> Vec<u8> {
    const GOOD: [&[u8]; 18] = [
        b"k",
        b"",
        b"user",
        b"a:b",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xc0",
        b"\x93\xa1v\xa5focus\x80",
        b"\x93\xa1v\xa1c\xc1",
        b"\x90",
        b"\x91\x01",
        b"\x81\xa1a\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\x00\x00\x00\x02\xa1a\x01",
        b"\xd6\xff\x00\x00\x00\x01",
        b"\xc7\x05\x07hello",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    let mut bytes = match random.next() % 4 {
        0 => (0..random.next() % 64).map(|_| random.next() as u8).collect(),
        1 => vec![random.pick(&[0x91, 0x81, 0xa0, b'x', 0xdc]); random.pick(&[63, 64, 65, 1023, 1024, 1025, 5000])],
        _ => random.pick(&GOOD).to_vec(),
    };
    if random.next().is_multiple_of(4) && !bytes.is_empty() {
        let at = random.next() as usize % bytes.len();
        bytes[at] = random.next() as u8;
    }
    bytes
}

/// None: a sensible one.
fn address_or_length(random: &mut Random, len: usize) -> Option<u32> {
    const EDGES: [u32; 14] = [
        0,
        1,
        15,
        4095,
        SCRATCH,
        SCRATCH + 1,
        END - 1,
        END,
        END + 1,
        i32::MAX as u32,
        i32::MIN as u32,
        u32::MAX,
        u32::MAX - 7,
        0x4000_0000,
    ];
    match random.next() % 8 {
        0 => Some(random.next() as u32),
        1 => Some(random.pick(&EDGES)),
        2 => Some((len as u32).wrapping_add(random.next() as u32 % 3).wrapping_sub(1)),
        _ => None,
    }
}

fn context(random: &mut Random) -> Context {
    let limits = ExecutionLimits {
        timeout: None,
        memory_bytes: 1 << 20,
        host_calls: 5000,
        state_mutations: 300,
        events: 200,
        result_bytes: 1 << 20,
        log_bytes: 10_000,
    };
    let tokens: &[&[&str]] = &[
        &[],
        &["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"],
        &["state:read:k", "state:write:user", "events:emit:a:b", "view:update:v", "ext:k.user"],
    ];
    let state = random.pick(&[&b"\x80"[..], b"\x82\xa1k\x01\xa4user\x81\xa1a\x01", b"\x82\xa1k\x01\xa1k\x02"]);
    let capabilities = CapabilitySet::parse(random.pick(tokens).iter().copied()).unwrap();
    let mut context = Context::new(capabilities, StateView::new(state.to_vec()), limits);
    if random.next().is_multiple_of(2) {
        context.extensions = Some(Registry::new([("k", &["user"][..])]));
    }
    context
}

#[test]
fn hostile_bytes_as_arguments_of_host_calls_stay_within_their_bounds() {
    let engine = Engine::start(EngineOptions::default()).expect("the engine starts");
    let instance = engine.instantiate().unwrap();
    let memory = instance.memory_of_test();
    let control = instance.control().clone();
    let mut data = HostData { link: Some((memory, control.clone())), ..HostData::default() };
    let (seed, cases) = (number("NEXUS_FUZZ_SEED", 1), number("NEXUS_FUZZ_CASES", 20_000));
    let mut answered = [[0u64; 2]; HOST_CALLS.len()];
    for case in 0..cases {
        let mut random = Random(seed ^ (case << 20));
        if case % 200 == 0 {
            data.context = Some(Box::new(context(&mut random)));
        }
        let (index, function, count) = random.pick(&FUNCTIONS);
        // what surrounds the bytes is other than before each call
        let given: Vec<Vec<u8>> = (0..3).map(|_| bytes(&mut random)).collect();
        // so that some calls get as far as their effects
        let well_placed = random.next().is_multiple_of(3);
        let mut args = Vec::new();
        for place in 0..count {
            let given = &given[place / 2 % 3];
            let at = SCRATCH + 8192 * (place as u32 / 2);
            memory.write(at, given).unwrap();
            let sensible = if place % 2 == 0 { at } else { given.len() as u32 };
            let number = match address_or_length(&mut random, given.len()) {
                Some(n) if !well_placed => n,
                _ => sensible,
            };
            args.push(WasmValue::from_i32(number as i32));
        }
        if matches!(index, 8 | 9) {
            args[0] = WasmValue::from_i32((random.next() % 5) as i32 - 1);
        }
        control.begin(None);
        let returned = host_call(Some(index), &mut data, &args, function);
        control.end();
        let returned = returned.unwrap_or_else(|_| panic!("seed {seed}, case {case}: a call was refused"));
        assert!(returned >= result::NO_METHOD, "seed {seed}, case {case}: {returned}");
        answered[index][usize::from(returned >= 0)] += 1;
    }
    for (index, _, _) in FUNCTIONS {
        let [refused, done] = answered[index];
        assert!(refused > 0 && done > 0, "{}: {refused} refused, {done} answered", HOST_CALLS[index]);
    }
}

#[test]
fn what_a_guest_hands_out_is_bounded_before_it_is_copied() {
    let engine = Engine::start(EngineOptions::default()).expect("the engine starts");
    let instance = engine.instantiate().unwrap();
    let (memory, control) = (instance.memory_of_test(), instance.control().clone());
    let mut data = HostData { link: Some((memory, control.clone())), ..HostData::default() };
    let mut call = |index: usize, function: Function, args: &[u32]| {
        let mut context = context(&mut Random(3));
        context.capabilities = CapabilitySet::parse(["state:write:*", "events:emit:*", "ext:*"]).unwrap();
        data.context = Some(Box::new(context));
        let args: Vec<WasmValue> = args.iter().map(|arg| WasmValue::from_i32(*arg as i32)).collect();
        control.begin(None);
        let Ok(answer) = host_call(Some(index), &mut data, &args, function) else { panic!() };
        control.end();
        let context = data.context.take().unwrap();
        (answer, context.breach.map(|breach| breach.resource), context.violations.len())
    };
    memory.write(SCRATCH, b"k").unwrap();
    let huge = 150 << 20;
    let too_much = (result::LIMIT, Some("maxHostCallBytes"), 0);
    assert_eq!(call(1, state_set, &[SCRATCH, 1, SCRATCH, huge]), too_much);
    assert_eq!(call(5, emit_event, &[SCRATCH, 1, SCRATCH, huge]), too_much);
    assert_eq!(call(6, view_command, &[SCRATCH, huge]), too_much);
    let too_much = call(7, ext_call, &[SCRATCH, 1, SCRATCH, 1, SCRATCH, huge]);
    assert!(too_much.0 < 0 && too_much.2 == 0, "{too_much:?}");
    // a name that is refused is kept, and logged
    let command = rmp_serde::to_vec(&("x".repeat(MAX_NAME_BYTES + 1), "c", ())).unwrap();
    memory.write(SCRATCH, &command).unwrap();
    assert_eq!(call(6, view_command, &[SCRATCH, command.len() as u32]), (result::INVALID, None, 0));
    let command = rmp_serde::to_vec(&("x".repeat(MAX_NAME_BYTES), "c", ())).unwrap();
    memory.write(SCRATCH, &command).unwrap();
    assert_eq!(call(6, view_command, &[SCRATCH, command.len() as u32]), (result::DENIED, None, 1));
}
