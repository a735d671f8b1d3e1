//! A guest whose memory an attacker writes recurses down the native stack: that ends its run, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus_protocol::limits::{MIN_HOST_CALL_STACK_BYTES, SIGNAL_STACK_BYTES};
use serde_json::json;

use super::control::Ended;
use super::instance_tests::{compile, context, engine, on_engine_thread, value};
use super::*;
use crate::os;

/// Of no other string.
const ROPE_LENGTH: u32 = 9173 + 8641;

/// Waits, so that the memory can be written to, and then hashes the rope: that descends it without a frame that QuickJS counts.
const HASHES_A_ROPE: &str =
    "const rope = 'a'.repeat(9173) + 'b'.repeat(8641); await $ext.a.b(); new Map().set(rope, 1)";

/// Makes a rope of this length its own left half. Its layout is that of `JSStringRope`: length, width and depth, left, right.
fn make_cyclic(instance: &mut Instance, length: u32) {
    const STRING: i32 = -7;
    const STRING_ROPE: i32 = -6;
    // where the heap of a small handler is
    let memory = instance.memory_of_test().read_vec(0, 24 << 20).unwrap();
    let word = |at: usize| u32::from_le_bytes(memory[at..at + 4].try_into().unwrap());
    let is_rope = |at: &usize| {
        word(*at) == length && word(*at + 12) as i32 == STRING && word(*at + 20) as i32 == STRING && word(*at + 8) != 0
    };
    let ropes: Vec<usize> = (0..memory.len() - 24).step_by(8).filter(is_rope).collect();
    assert_eq!(ropes.len(), 1, "there is one rope of that length");
    let itself = [(ropes[0] as u32).to_le_bytes(), STRING_ROPE.to_le_bytes()].concat();
    instance.scribble(ropes[0] as u32 + 8, &itself);
}

fn overflow(instance: &mut Instance, bytecode: &[u8]) {
    let end = instance.run(bytecode, context(json!({}), &["ext:*"]), None).end;
    assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
    make_cyclic(instance, ROPE_LENGTH);
    let end = instance.resume(0, Ok(&[1]), None).end;
    assert!(matches!(end, SegmentEnd::Broken(_)), "{end:?}");
    assert!(!instance.is_sound());
}

#[test]
fn an_overflow_of_the_native_stack_ends_that_run_alone() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let others: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(|| {
                on_engine_thread(|i| {
                    let bytecode = compile(i, "let n = 0; for (let k = 0; k < 1000; k++) n += k; return n");
                    let mut runs = 0;
                    while !DONE.load(Ordering::Relaxed) {
                        assert_eq!(value(i.run(&bytecode, context(json!({}), &[]), None).end), json!(499_500));
                        i.reset().unwrap();
                        runs += 1;
                    }
                    runs
                })
            })
        })
        .collect();
    let rounds = std::env::var("NEXUS_OVERFLOWS").map_or(30, |rounds| rounds.parse().expect("a number"));
    on_engine_thread(move |i| {
        let bytecode = compile(i, HASHES_A_ROPE);
        for _ in 0..rounds {
            overflow(i, &bytecode);
            *i = engine().instantiate().unwrap();
        }
    });
    DONE.store(true, Ordering::Relaxed);
    assert!(others.into_iter().all(|other| other.join().unwrap() > 0));
}

/// Signal stacks of this process: so many bytes behind a page that nothing may touch.
fn signal_stacks() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let regions: Vec<(usize, usize, &str)> = maps
        .lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?, &rest[..4]))
        })
        .collect();
    let is_stack = |pair: &&[(usize, usize, &str)]| {
        let [(guard, from, no_access), (next, to, access)] = **pair else { return false };
        (from - guard, no_access, next == from, access) == (4096, "---p", true, "rw-p")
            && to - from == SIGNAL_STACK_BYTES
    };
    regions.windows(2).filter(is_stack).count()
}

#[test]
fn a_thread_that_is_done_with_guests_leaves_no_signal_stack_behind() {
    let once = || {
        on_engine_thread(|i| {
            let bytecode = compile(i, HASHES_A_ROPE);
            overflow(i, &bytecode);
        })
    };
    once();
    let before = signal_stacks();
    for _ in 0..60 {
        once();
    }
    // threads of other tests come and go meanwhile, a few at a time
    let after = signal_stacks();
    assert!(after < before + 40, "{before} signal stacks before, {after} afterwards");
}

#[test]
fn a_guest_that_has_used_up_the_native_stack_makes_no_host_call() {
    /// Descends until no more than `bytes` of the stack are left.
    fn with_stack_left(bytes: usize, run: &mut dyn FnMut() -> SegmentEnd) -> SegmentEnd {
        let filler = std::hint::black_box([0_u8; 16 << 10]);
        let end = if os::native_stack_left() > bytes { with_stack_left(bytes, run) } else { run() };
        std::hint::black_box(filler);
        end
    }
    on_engine_thread(|i| {
        let bytecode = compile(i, "return 'k' in $state");
        let mut run = || i.run(&bytecode, context(json!({}), &["state:read:*"]), None).end;
        assert_eq!(value(with_stack_left(2 * MIN_HOST_CALL_STACK_BYTES, &mut run)), json!(false));
        i.reset().unwrap();
        let mut run = || i.run(&bytecode, context(json!({}), &["state:read:*"]), None).end;
        let end = with_stack_left(MIN_HOST_CALL_STACK_BYTES, &mut run);
        assert!(matches!(end, SegmentEnd::Broken(_)), "{end:?}");
    });
}

#[test]
fn a_fault_in_a_host_call_ends_its_run() {
    on_engine_thread(|i| {
        let bytecode = compile(i, "const key = 'k'.repeat(1000); for (;;) key in $state");
        let mut in_host_calls = 0;
        for round in 0..500 {
            let (memory, control) = (i.memory_of_test(), i.control().clone());
            let end = std::thread::scope(|scope| {
                scope.spawn(|| {
                    // before that the host writes to the memory itself, where a fault is nobody's
                    while !control.is_in_host_call() {
                        std::hint::spin_loop();
                    }
                    for _ in 0..97 * round {
                        std::hint::spin_loop();
                    }
                    // without asking whether the guest is in a host call: there the fault is Rust's
                    memory.revoke().unwrap();
                });
                let mut context = context(json!({}), &["state:read:*"]);
                context.limits.host_calls = u64::MAX;
                i.run(&bytecode, context, None).end
            });
            memory.restore_access().unwrap();
            let SegmentEnd::Broken(why) = end else { panic!("round {round}: {end:?}") };
            in_host_calls += u32::from(why.contains("a host call faulted"));
            assert!(!i.is_sound());
            *i = engine().instantiate().unwrap();
            if in_host_calls == 3 {
                return;
            }
        }
        panic!("{in_host_calls} faults met a host call");
    });
}

#[test]
fn a_host_call_that_was_left_by_a_jump_is_given_up() {
    on_engine_thread(|i| {
        let control = i.control().clone();
        control.arm();
        control.begin(None);
        let control::Entry::Open(inside) = control.enter_host() else { panic!("nothing is due") };
        std::mem::forget(inside);
        let (told, ended) = std::sync::mpsc::channel();
        let waits = control.clone();
        std::thread::spawn(move || told.send(waits.end()));
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(Ended::Abandoned));
        assert!(!control.patrol(std::time::Instant::now()), "there is nothing left to stop");
    });
}
