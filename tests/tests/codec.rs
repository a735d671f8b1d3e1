//! The guest's MessagePack codec against another one: values that go through a handler, and bytes that are no values.
//!
//! `NEXUS_PROPERTY_SEED` chooses other values; a failure names the seed and the case.

use nexus_protocol::message::Status;
use nexus_protocol::{ErrorCode, payload};
use nexus_tests::values::{self, decode, encode, random, same, through_javascript};
use nexus_tests::{Options, Rng, Run, Watchdog, golden, number};
use rmpv::Value;

const BATCHES: u64 = 60;
const VALUES: usize = 100;
const PAYLOADS: u64 = 6000;
const ALL: [&str; 4] = ["state:read:*", "state:write:*", "events:emit:*", "ext:*"];

fn seed() -> u64 {
    number("NEXUS_PROPERTY_SEED", 0x5eed)
}

/// Where the first difference lies, in words.
fn assert_same(found: &Value, expected: &Value, sent: &Value, about: &str) {
    let pairs = (found.as_array(), expected.as_array(), sent.as_array());
    if let (Some(found), Some(expected), Some(sent)) = pairs {
        assert_eq!(found.len(), expected.len(), "{about}");
        for ((found, expected), sent) in found.iter().zip(expected).zip(sent) {
            assert!(same(found, expected), "{about}\n sent     {sent}\n expected {expected}\n found    {found}");
        }
    }
    assert!(same(found, expected), "{about}\n expected {expected}\n found    {found}");
}

// shows P-payload-mapping
#[test]
fn values_go_through_a_handler_as_the_specification_says() {
    let _w = Watchdog::seconds(100);
    let (_sidecar, mut client) = Options::new().child();
    let source = "
        const whole = $state.v;
        $state.copy = $state.v;
        $emit('e', whole);
        $state.v.push('one more');
        const answer = await $ext.e.m(...$args);
        return [$args, $scope, answer]";
    for batch in 0..BATCHES {
        let about = format!("seed {}, batch {batch}", seed());
        let mut rng = Rng::new(seed() ^ (batch << 32));
        let sent = Value::Array((0..VALUES).map(|_| random(&mut rng, 4)).collect());
        let expected = through_javascript(&sent);
        let state = Value::Map(vec![("v".into(), sent.clone())]);
        let run = Run::source(source).args_bytes(encode(&sent)).state_bytes(encode(&state)).scope_bytes(encode(&sent));
        let first = client.run(run.grant(&ALL));
        assert_eq!(first.status, Status::Suspended, "{about}: {first:?}");
        assert_same(&decode(&first.call().raw_args), &expected, &sent, &format!("{about}: arguments of a call"));
        let mutations = decode(&first.raw_mutations);
        for (place, key) in [(0, "copy"), (1, "v")] {
            let mutation = &mutations[place];
            assert_eq!(mutation["key"], Value::from(key), "{about}");
        }
        let mut longer = sent.as_array().unwrap().clone();
        longer.push("one more".into());
        assert_same(
            &mutations[1]["value"],
            &through_javascript(&Value::Array(longer)),
            &sent,
            &format!("{about}: nested write"),
        );
        assert_same(&mutations[0]["value"], &expected, &sent, &format!("{about}: written to the state"));
        assert_same(&decode(&first.raw_events)[0]["payload"], &expected, &sent, &format!("{about}: event"));
        let resumed = client.start_resume_bytes(&first.call().id, &encode(&sent));
        let last = client.segment(resumed);
        let value = decode(last.raw_value());
        for (place, name) in ["args", "scope", "answer of a call"].iter().enumerate() {
            assert_same(&value[place], &expected, &sent, &format!("{about}: {name}"));
        }
        // the shortest form of everything, as the other implementation writes it
        assert!(encode(&value) == last.raw_value(), "{about}: not the shortest form");
    }
}

// shows P-sent-payloads
#[test]
fn payloads_that_come_back_are_always_well_formed() {
    let _w = Watchdog::seconds(100);
    let (_sidecar, mut client) = Options::new().child();
    let odd = [
        "'\\ud800'",
        "-0",
        "[NaN, -Infinity, 5e-324]",
        "new Date(NaN)",
        "new Date(8.64e15)",
        "new Date(-1)",
        "(1n << 64n) - 1n",
        "-(1n << 63n)",
        "[, undefined, () => 1, Symbol('s')]",
        "({undefined, f() {}, ['\\udc00']: 1, __proto__: {a: 1}})",
        "new Map([[1, 2], [null, 3], [{}, 4]])",
        "new Set([new Error('e'), /r/])",
        "new Float64Array(3)",
        "new Proxy([1, 2], {})",
        "Object.create(null)",
        "(() => { let x = []; for (let i = 0; i < 60; i++) x = [x]; return x })()",
        "'x'.repeat(70000)",
        "new Uint8Array(70000)",
        "Array(70000).fill(null)",
    ];
    for value in odd {
        let source = format!(
            "const v = () => {value}; const quietly = f => {{ try {{ f() }} catch {{}} }};
            quietly(() => {{ $state.v = v() }}); quietly(() => $emit('e', v())); $log.info(String(typeof v()));
            let got; try {{ got = await $ext.e.m(v()) }} catch {{}}
            return v()"
        );
        let mut segment = client.run(Run::source(source).grant(&ALL).state(&serde_json::json!({})));
        loop {
            let payloads = [&segment.raw_mutations, &segment.raw_events];
            let values = segment.value.iter().chain(segment.calls.iter().map(|call| &call.raw_args));
            for payload in payloads.into_iter().chain(values).filter(|payload| !payload.is_empty()) {
                payload::validate(payload).unwrap_or_else(|error| panic!("{value}: {error}"));
            }
            if segment.status != Status::Suspended {
                break;
            }
            let resumed = client.start_resume_bytes(&segment.call().id.clone(), &[0xc0]);
            segment = client.segment(resumed);
        }
        let error = segment.error.map(|error| error.code);
        assert!(error.is_none() || error == Some(ErrorCode::SerializationError), "{value}: {error:?}");
    }
}

/// Why a payload is refused by SPEC 1 and 5; None: it is not.
fn refusal(bytes: &[u8]) -> Option<ErrorCode> {
    let mut rest = bytes;
    let Ok(value) = rmpv::decode::read_value_with_max_depth(&mut rest, 1000) else {
        return Some(ErrorCode::InvalidArgument);
    };
    if !rest.is_empty() {
        return Some(ErrorCode::InvalidArgument);
    }
    fault(&value, 0)
}

fn fault(value: &Value, depth: usize) -> Option<ErrorCode> {
    let too_deep = || (depth >= 64).then_some(ErrorCode::InvalidArgument);
    match value {
        Value::Ext(kind, bytes) => {
            let first = bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
            let nanoseconds = match bytes.len() {
                4 => Some(0),
                8 => Some(first >> 2),
                12 => Some(first),
                _ => None,
            };
            let is_timestamp = *kind == -1 && nanoseconds.is_some_and(|count| count < 1_000_000_000);
            (!is_timestamp).then_some(ErrorCode::SerializationError)
        }
        Value::Array(items) => too_deep().or_else(|| items.iter().find_map(|item| fault(item, depth + 1))),
        Value::Map(entries) => too_deep()
            .or_else(|| entries.iter().find_map(|(key, value)| odd_key(key).or_else(|| fault(value, depth + 1)))),
        _ => None,
    }
}

/// Keys that SPEC 5 has no form for.
fn odd_key(key: &Value) -> Option<ErrorCode> {
    let is_plain =
        matches!(key, Value::String(_) | Value::Integer(_) | Value::F32(_) | Value::F64(_) | Value::Boolean(_));
    (!is_plain).then_some(ErrorCode::SerializationError)
}

// shows P-payload-accepted
#[test]
fn bytes_are_accepted_as_a_payload_exactly_when_they_are_one() {
    let _w = Watchdog::seconds(100);
    let (mut sidecar, mut client) = Options::new().child();
    let corpus: Vec<Vec<u8>> = golden::vectors()
        .into_iter()
        .filter(|v| ["payload", "payload-rejection"].contains(&v.sort()) && v.bytes.len() < 5000)
        .map(|v| v.bytes)
        .collect();
    let (mut accepted, mut refused) = (0, 0);
    for case in 0..PAYLOADS {
        let mut rng = Rng::new(seed() ^ (case << 24));
        let mut bytes = match case % 3 {
            0 => rng.pick(&corpus).clone(),
            1 => encode(&random(&mut rng, 3)),
            _ => (0..rng.below(40)).map(|_| rng.byte()).collect(),
        };
        if case % 6 != 1 {
            rng.mutate(&mut bytes);
        }
        let about = format!("seed {}, case {case}: {bytes:02x?}", seed());
        // the other implementation reads 0xc1 as nil
        if bytes.contains(&0xc1) && !bytes.is_empty() && refusal(&bytes).is_none() {
            continue;
        }
        let segment = client.run(Run::source("return $args").args_bytes(bytes.clone()));
        match (refusal(&bytes), &segment.error) {
            (None, None) => {
                accepted += 1;
                let (value, back) = (decode(&bytes), decode(segment.raw_value()));
                if !is_inexact(&value) {
                    assert!(same(&back, &through_javascript(&value)), "{about}");
                }
            }
            (Some(code), Some(error)) => {
                refused += 1;
                // a payload with two faults may be refused for either
                let either = [ErrorCode::InvalidArgument, ErrorCode::SerializationError];
                assert!(error.code == code || either.contains(&error.code), "{about}: {error:?}");
            }
            (wanted, error) => panic!("{about}: wanted {wanted:?}, got {error:?}"),
        }
    }
    assert!(sidecar.is_running());
    client.still_works();
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 500 && refused > 1000, "{accepted} {refused}");
}

/// What has no form of its own in these tests: numbers as keys that are no integers, and text that is not UTF-8.
fn is_inexact(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_err(),
        Value::Array(items) => items.iter().any(is_inexact),
        Value::Map(entries) => entries
            .iter()
            .any(|(key, value)| matches!(key, Value::F32(_) | Value::F64(_)) || is_inexact(key) || is_inexact(value)),
        _ => false,
    }
}

#[test]
fn the_mapping_of_these_tests_is_its_own_fixed_point() {
    let mut rng = Rng::new(seed());
    for _ in 0..2000 {
        let once = through_javascript(&random(&mut rng, 4));
        assert!(same(&through_javascript(&once), &once), "{once}");
        assert!(same(&values::sorted(&once), &once), "{once}");
    }
}
