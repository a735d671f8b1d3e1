//! One compilation for many, and whom its failure concerns.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use nexus_protocol::{ErrorCode, WireError};

use super::super::flight::Concerns;
use super::*;

pub(in super::super) fn handler(source: &str, bytecode_bytes: usize) -> Handler {
    Handler {
        digest: HandlerDigest::new(&[0; 32], source),
        source: source.into(),
        bytecode: vec![0; bytecode_bytes].into(),
        capabilities: Vec::new(),
        suspend_mode: SuspendMode::Await,
        why: "".into(),
        warnings: [].into(),
        unparsed: None,
        took: Duration::from_millis(3),
    }
}

fn asker(token: &StopToken) -> Asker<'_> {
    Asker { client: Client(1), memory_limit_bytes: 1000, token }
}

fn failed(concerns: Concerns) -> Failed {
    Failed { error: WireError::new(ErrorCode::CompilationError, "no"), concerns }
}

fn within(time: Duration) -> StopToken {
    StopToken::until(Instant::now().checked_add(time))
}

/// A compilation that a test holds up: it is under way once `begun` is passed, and ends once `end` is.
struct Held {
    begun: Barrier,
    end: Barrier,
}

impl Held {
    fn new() -> Self {
        Self { begun: Barrier::new(2), end: Barrier::new(2) }
    }

    fn compile(&self, result: Result<Handler, Failed>) -> Result<Handler, Failed> {
        self.begun.wait();
        self.end.wait();
        result
    }
}

#[test]
fn one_compilation_serves_all_that_wait() {
    let cache = CompileCache::new(1 << 20, None);
    let compiled = AtomicU32::new(0);
    let barrier = Barrier::new(4);
    let token = StopToken::new();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                barrier.wait();
                let made = cache.get_or_compile(handler("a", 10).digest, asker(&token), || {
                    compiled.fetch_add(1, Ordering::SeqCst);
                    Ok(handler("a", 10))
                });
                assert!(made.is_ok());
            });
        }
    });
    assert_eq!(compiled.load(Ordering::SeqCst), 1);
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, counts.entries), (3, 1, 1));
}

#[test]
fn a_handler_that_is_too_heavy_to_be_kept_serves_all_that_wait() {
    let cache = CompileCache::new(100, None);
    let held = Held::new();
    let token = StopToken::new();
    std::thread::scope(|s| {
        let first = s.spawn(|| {
            cache.get_or_compile(handler("a", 1000).digest, asker(&token), || held.compile(Ok(handler("a", 1000))))
        });
        held.begun.wait();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                s.spawn(|| {
                    cache.get_or_compile(handler("a", 1000).digest, asker(&token), || panic!("it is being made"))
                })
            })
            .collect();
        while Arc::strong_count(cache.lock().flights.values().next().unwrap()) < 5 {
            std::thread::yield_now();
        }
        held.end.wait();
        assert!(first.join().unwrap().is_ok());
        assert!(waiters.into_iter().all(|w| w.join().unwrap().is_ok()));
    });
    assert_eq!(cache.counts().entries, 0);
}

#[test]
fn a_failure_is_not_kept() {
    let cache = CompileCache::new(1 << 20, None);
    let digest = handler("a", 1).digest;
    let token = StopToken::new();
    assert!(cache.get_or_compile(digest, asker(&token), || Err(failed(Concerns::Everybody))).is_err());
    assert!(cache.get_or_compile(digest, asker(&token), || Ok(handler("a", 1))).is_ok());
}

/// Eight ask at once, the first compilation fails with that; how many were made, and how many failed.
fn first_of_eight_fails(concerns: Concerns) -> (u32, u32) {
    let cache = CompileCache::new(1 << 20, None);
    let (attempts, errors) = (AtomicU32::new(0), AtomicU32::new(0));
    let token = StopToken::new();
    let digest = handler("a", 10).digest;
    let held = &Held::new();
    let ask = &|held: Option<&Held>| {
        let made = cache.get_or_compile(digest, asker(&token), || {
            let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
            let result = if first { Err(failed(concerns)) } else { Ok(handler("a", 10)) };
            match held {
                Some(held) => held.compile(result),
                None => result,
            }
        });
        errors.fetch_add(u32::from(made.is_err()), Ordering::SeqCst);
    };
    std::thread::scope(|s| {
        s.spawn(move || ask(Some(held)));
        held.begun.wait();
        for _ in 0..7 {
            s.spawn(move || ask(None));
        }
        while Arc::strong_count(cache.lock().flights.get(&digest).unwrap()) < 9 {
            std::thread::yield_now();
        }
        held.end.wait();
    });
    (attempts.into_inner(), errors.into_inner())
}

#[test]
fn a_failure_is_told_to_all_whom_it_concerns() {
    assert_eq!(first_of_eight_fails(Concerns::Everybody), (1, 8));
    assert_eq!(first_of_eight_fails(Concerns::AtMost(1000)), (1, 8), "they have no more memory than the first");
    assert_eq!(first_of_eight_fails(Concerns::AtMost(999)), (2, 1), "they have more memory than the first");
    assert_eq!(first_of_eight_fails(Concerns::Nobody), (2, 1));
}

#[test]
fn whoever_waits_hears_its_own_end() {
    let cache = CompileCache::new(1 << 20, None);
    let held = Held::new();
    let digest = handler("a", 10).digest;
    let (patient, hasty, cancelled) = (StopToken::new(), within(Duration::from_millis(20)), StopToken::new());
    let waits = |token| cache.get_or_compile(digest, asker(token), || panic!("it is being made")).unwrap_err();
    std::thread::scope(|s| {
        let first = s.spawn(|| cache.get_or_compile(digest, asker(&patient), || held.compile(Ok(handler("a", 10)))));
        held.begun.wait();
        // the compilation goes on until both have been answered
        assert_eq!(waits(&hasty), Halt::Stopped(StopCause::Deadline));
        let waiter = s.spawn(|| waits(&cancelled));
        cancelled.stop(StopCause::Cancelled);
        assert_eq!(waiter.join().unwrap(), Halt::Stopped(StopCause::Cancelled));
        assert_eq!(cache.get(&digest, asker(&cancelled)).unwrap_err(), StopCause::Cancelled);
        held.end.wait();
        assert!(first.join().unwrap().is_ok());
    });
}

#[test]
fn nobody_waits_for_one_that_panicked() {
    let cache = CompileCache::new(1 << 20, None);
    let digest = handler("a", 10).digest;
    let token = StopToken::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cache.get_or_compile(digest, asker(&token), || panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    assert!(cache.get_or_compile(digest, asker(&token), || Ok(handler("a", 10))).is_ok());
}

#[test]
fn a_client_does_not_learn_that_others_came_before() {
    let cache = CompileCache::new(1 << 20, None);
    let digest = handler("a", 10).digest;
    let token = StopToken::new();
    let ask = |client| {
        let asker = Asker { client: Client(client), ..asker(&token) };
        cache.get_or_compile(digest, asker, || Ok(handler("a", 10))).unwrap().origin
    };
    assert_eq!([ask(1), ask(2), ask(1), ask(2)], [Origin::Compiled, Origin::Others, Origin::Known, Origin::Known]);
    assert_eq!(ask(0), Origin::Known, "who has the cache alone has nobody before");
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses), (4, 1), "the operator is told what is");
}

#[test]
fn the_oldest_go_first_and_bytes_are_bounded() {
    let cache = CompileCache::new(6000, None);
    let token = StopToken::new();
    let asker = Asker { client: Client::ALONE, ..asker(&token) };
    for name in ["a", "b", "c", "d", "e"] {
        cache.get_or_compile(handler(name, 1000).digest, asker, || Ok(handler(name, 1000))).unwrap();
    }
    assert!(cache.get(&handler("a", 0).digest, asker).unwrap().is_none());
    assert!(cache.get(&handler("e", 0).digest, asker).unwrap().is_some());
    assert!(cache.counts().bytes <= 6000);
}

#[test]
fn another_engine_or_mode_is_another_key() {
    let digest = |engine: u8, mode| HandlerDigest::forced(&[engine; 32], mode, "x");
    assert_ne!(digest(0, None), digest(1, None));
    assert_ne!(digest(0, None), digest(0, Some(SuspendMode::Stack)));
    assert_ne!(digest(0, Some(SuspendMode::Await)), digest(0, Some(SuspendMode::Stack)));
}
