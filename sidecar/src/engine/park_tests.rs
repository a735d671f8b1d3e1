//! Tests of parking against the real guest.

use serde_json::json;

use super::instance_tests::{compile, context, engine, on_engine_thread, value};
use super::*;
use crate::random::Random;

const CALL: &str = "return (await $ext.math.next($args)) + 1";

/// Runs a handler to its suspension.
fn suspend(instance: &mut Instance, source: &str) {
    let bytecode = compile(instance, source);
    let mut context = context(json!({"n": 1, "user": {"name": "a"}}), &["ext:*", "state:read:*", "state:write:*"]);
    context.args = vec![41];
    let end = instance.run(&bytecode, context, None).end;
    assert!(matches!(end, SegmentEnd::Suspended), "{source}: {end:?}");
}

#[test]
fn the_whole_memory_is_the_same_after_parking_and_unparking() {
    let handlers = [
        CALL,
        "const a = []; for (let i = 0; i < 20000; i++) a.push({i}); await $ext.a.b(); return a.length",
        "const b = new Uint8Array(12 << 20).map((_, i) => i * 7); await $ext.a.b(); return b[77]",
        "const f = async n => n ? await f(n - 1) : await $ext.a.b(); return await f(300)",
        "Array.prototype.x = 1; try { null.x } catch {} await Promise.all([$ext.a.b(), $ext.a.c()])",
    ];
    on_engine_thread(move |first| {
        let mut second = engine().instantiate().unwrap();
        for source in handlers {
            suspend(first, source);
            let before = first.dump_memory();
            let parked = first.park().unwrap();
            first.reset().unwrap();
            assert_eq!(first.first_difference(), None, "{source}");
            second.unpark(parked).unwrap();
            assert!(second.dump_memory() == before, "{source}");
            second.reset().unwrap();
        }
    });
}

#[test]
fn whatever_a_guest_may_have_written_comes_back() {
    on_engine_thread(|first| {
        let mut second = engine().instantiate().unwrap();
        let mut random = Random(7);
        let len = first.dump_memory().len();
        for round in 0..5 {
            suspend(first, CALL);
            for _ in 0..random.below(300) {
                let bytes: Vec<u8> = (0..=random.below(9000)).map(|_| random.below(256) as u8).collect();
                // anywhere, and often enough at the edges and over the pages of the image
                let at = match random.below(4) {
                    0 => random.below(len - bytes.len()),
                    1 => len - bytes.len(),
                    2 => 0,
                    _ => (4 << 20) - (64 << 10) + random.below(512 << 10),
                };
                first.scribble(at as u32, &bytes);
            }
            let before = first.dump_memory();
            let parked = first.park().unwrap();
            first.reset().unwrap();
            assert_eq!(first.first_difference(), None, "round {round}");
            second.unpark(parked).unwrap();
            assert!(second.dump_memory() == before, "round {round}");
            second.reset().unwrap();
            assert_eq!(second.first_difference(), None, "round {round}");
        }
    });
}

#[test]
fn an_execution_goes_on_in_another_instance_as_if_nothing_had_happened() {
    on_engine_thread(|first| {
        let source = "$state.n += 1; let sum = 0; for (let i = 0; i < 3; i++) sum += await $ext.a.b(i);
            const [x, y] = await Promise.all([$ext.a.c(), $ext.a.d()]);
            $state.user.name += '!'; return [sum, x, y, $state.n, $state.user.name, $args]";
        suspend(first, source);
        let mut instances: Vec<_> = (0..3).map(|_| engine().instantiate().unwrap()).collect();
        let mut parked = first.park().unwrap();
        first.reset().unwrap();
        for (step, call) in [0, 1, 2, 4, 3].into_iter().enumerate() {
            let instance = &mut instances[step % 3];
            instance.unpark(parked).unwrap();
            let end = instance.resume(call, Ok(&[10 + call as u8]), None).end;
            if step == 4 {
                assert_eq!(value(end), json!([33, 13, 14, 2, "a!", 41]));
                break;
            }
            assert!(matches!(end, SegmentEnd::Suspended), "{step}: {end:?}");
            parked = instance.park().unwrap();
            instance.reset().unwrap();
            assert_eq!(instance.first_difference(), None);
        }
    });
}

#[test]
fn an_idle_instance_has_nothing_to_park() {
    on_engine_thread(|i| {
        assert!(matches!(i.park(), Err(ParkError::NothingSuspended)));
        suspend(i, CALL);
        i.park().unwrap();
        assert!(matches!(i.park(), Err(ParkError::NothingSuspended)));
    });
}

/// What the kernel holds for the guest at this moment, beyond what an idle one has.
fn really(i: &Instance) -> u64 {
    i.memory_of_test().pages_with_content().unwrap().len() as u64 * 4096
}

#[test]
fn what_a_guest_can_have_taken_is_never_less_than_what_it_has_taken() {
    let handlers = [
        CALL,
        "const b = new Uint8Array(12 << 20).fill(7); await $ext.a.b(); return b[77]",
        "const all = []; for (let i = 0; i < 30000; i++) all.push({ i }); await $ext.a.b(); return all.length",
        "const s = 'x'.repeat(8 << 20).toUpperCase(); await $ext.a.b(); return s.length",
    ];
    on_engine_thread(move |i| {
        let idle = i.most_bytes();
        let len = i.memory_of_test().len() as u64;
        for source in handlers {
            suspend(i, source);
            let most = i.most_bytes();
            assert!(really(i) <= most && most <= len + idle, "{source}: {} of {most}", really(i));
            assert!(i.is_estimated(), "{source}");
            i.measure();
            assert!(!i.is_estimated(), "{source}");
            let measured = i.most_bytes();
            assert!(measured <= most && really(i) <= measured && measured <= really(i) + idle, "{source}: {measured}");
            let parked = i.park().unwrap();
            assert!(parked.bytes() as u64 <= measured + measured / 40, "{source}: packed, it takes more");
            i.reset().unwrap();
            assert_eq!((i.most_bytes(), i.is_estimated()), (idle, false));
            i.unpark(parked).unwrap();
            assert!(!i.is_estimated(), "{source}");
            assert!(really(i) <= i.most_bytes() && i.most_bytes() <= measured, "{source}: {}", i.most_bytes());
            i.reset().unwrap();
        }
    });
}

#[test]
fn what_a_guest_takes_that_was_asked_for_memory_is_not_known() {
    on_engine_thread(|i| {
        let idle = i.most_bytes();
        let bytecode = compile(i, CALL);
        let mut context = context(json!({}), &["ext:*"]);
        // a string of 2 MiB, which finds no room in the inbox
        context.args = [&[0xdb, 0, 32, 0, 0][..], &[b'x'; 2 << 20]].concat();
        assert!(matches!(i.run(&bytecode, context, None).end, SegmentEnd::Suspended));
        assert!(i.is_to_be_measured() && i.most_bytes() >= i.memory_of_test().len() as u64);
        i.measure();
        assert!(really(i) >= 2 << 20 && really(i) <= i.most_bytes() && i.most_bytes() <= really(i) + idle);
        assert!(!i.is_to_be_measured());
    });
}

#[test]
fn an_image_of_another_engine_is_refused() {
    on_engine_thread(|i| {
        suspend(i, CALL);
        let parked = i.park().unwrap();
        let other = Engine::start(EngineOptions { stack_bytes: 512 << 10, ..EngineOptions::default() }).unwrap();
        let mut other = other.instantiate().unwrap();
        assert!(matches!(other.unpark(parked), Err(ParkError::OtherImage)));
        assert!(!other.is_sound());
    });
}

#[test]
fn damaged_bytes_are_an_error_or_another_memory_but_never_harm() {
    on_engine_thread(|i| {
        suspend(i, CALL);
        let good = i.park().unwrap().blocks;
        i.reset().unwrap();
        let mut random = Random(3);
        for round in 0..300 {
            suspend_again(i);
            let mut parked = i.park().unwrap();
            let mut bytes = good.to_vec();
            match round % 3 {
                0 => bytes.truncate(random.below(bytes.len())),
                1 => (0..8).for_each(|_| {
                    let at = random.below(bytes.len());
                    bytes[at] = random.below(256) as u8;
                }),
                _ => {
                    let at = random.below(16);
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            parked.blocks = bytes.into_boxed_slice();
            i.reset().unwrap();
            let _ = i.unpark(parked);
            i.reset().unwrap();
            assert_eq!(i.first_difference(), None);
        }
    });
}

/// A context, without the guest's work: what is parked is replaced anyway.
fn suspend_again(instance: &mut Instance) {
    instance.keep_context(context(json!({}), &[]));
}
