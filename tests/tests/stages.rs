//! What the host does before and behind a guest: it has a deadline, hears of a cancel, is told apart from a broken thread, and
//! what it has begun to keep is kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Check, Precompile, Status};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::process::handlers_on_disk;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, Reply, Run, SOON, Segment, Sidecar, Watchdog};
use nix::sys::signal::Signal;

/// Of a source, and below the default of `maxSourceBytes`.
const SOURCE_BYTES: usize = 980_000;
/// Exit code that a process has which gives up.
const STUCK: i32 = 71;

/// Sources within every limit that take long to compile, since an engine looks each new name up among all before it.
fn slow_sources() -> Vec<(&'static str, String)> {
    let many = |bytes: usize, mut next: Box<dyn FnMut(usize) -> String>| {
        let mut text = String::with_capacity(bytes + 64);
        for number in 0.. {
            if text.len() >= bytes {
                break;
            }
            text.push_str(&next(number));
        }
        text
    };
    let names = many(SOURCE_BYTES, Box::new(|n| format!("v{n}=0,")));
    let captured = many(SOURCE_BYTES / 2, Box::new(|n| format!("w{n}=0,")));
    let uses = many(SOURCE_BYTES / 2, Box::new(|n| format!("w{n};")));
    let private = many(SOURCE_BYTES, Box::new(|n| format!("#p{n};")));
    vec![
        ("variables", format!("let {names}last=1; return last")),
        ("captured variables", format!("let {captured}last=1; const f = () => {{ {uses} }}; return last")),
        ("private names", format!("class A {{ {private} }} return 1")),
    ]
}

fn retired(client: &mut Client) -> u64 {
    let text = client.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix("nexus_retired_threads_total "));
    value.expect("it is counted").parse().expect("a number")
}

fn alive(sidecar: &mut Sidecar, after: &str) {
    if !sidecar.is_running() {
        let code = sidecar.exit_code(SOON);
        assert_ne!(code, STUCK, "{after}: it has given up: {}", sidecar.stderr());
        panic!("{after}: it has ended with {code}: {}", sidecar.stderr());
    }
}

/// What a source that may be too much may come to: nobody's fault but its own, and not for ever.
fn is_bounded(answer: &Answer) -> bool {
    let code = match answer {
        Answer::Result(segment) if segment.status == Status::Success => return true,
        Answer::Compiled { .. } | Answer::Checked { .. } => return true,
        Answer::Result(segment) => segment.code(),
        Answer::Error(error) => error.code,
        _ => return false,
    };
    [ErrorCode::Timeout, ErrorCode::CompilationError, ErrorCode::ResourceLimit, ErrorCode::MemoryLimit].contains(&code)
}

#[test]
fn the_same_slow_source_many_times_ends_nobody() {
    let _w = Watchdog::seconds(300);
    let mut sidecar = Options::new().listen();
    let mut other = sidecar.connect();
    for (name, source) in slow_sources() {
        let mut client = sidecar.connect();
        client.set_patience(Duration::from_secs(120));
        let ids: Vec<u32> = (0..10)
            .map(|n| match n % 5 {
                0..=2 => client.start(&*source),
                3 => client.send(&ClientMessage::Check(Check { source: &source })),
                _ => client.send(&ClientMessage::Precompile(Precompile {
                    source: &source,
                    handler_name: None,
                    suspend_mode: None,
                })),
            })
            .collect();
        for _ in &ids {
            let Some(Reply { id, answer }) = client.next_reply() else {
                alive(&mut sidecar, name);
                panic!("{name}: the connection ended");
            };
            assert!(ids.contains(&id) && is_bounded(&answer), "{name}: {answer:?}");
            other.ping();
        }
        alive(&mut sidecar, name);
        assert_eq!(retired(&mut other), 0, "{name}: a thread that compiles is not broken");
        other.still_works();
    }
}

/// Who waits while another compiles the same source has a time of its own and can be cancelled: both are answered while the
/// other one still compiles.
#[test]
fn who_waits_for_anothers_compile_hears_its_own_deadline_and_its_cancel() {
    let _w = Watchdog::seconds(300);
    let sidecar = Options::new().listen();
    let mut told = 0;
    for (name, source) in slow_sources() {
        // how long it takes where nobody waits, with words of its own so that the others find nothing compiled
        let mut alone = sidecar.connect();
        alone.set_patience(Duration::from_secs(120));
        let started = Instant::now();
        alone.run(format!("{source} // alone").as_str());
        let takes = started.elapsed();
        if takes < Duration::from_millis(1_500) {
            println!("{name}: {takes:?}, which is too quick for anybody to wait");
            continue;
        }
        told += 1;
        let mut client = sidecar.connect();
        client.set_patience(Duration::from_secs(120));
        let compiles = client.start(&*source);
        let hasty = client.start(Run::source(&*source).timeout_ms(150));
        let cancelled = client.start(&*source);
        assert!(client.cancel_request(cancelled), "{name}");
        let mut answers: HashMap<u32, Segment> = HashMap::new();
        let mut order = Vec::new();
        while order.len() < 3 {
            let Some(Reply { id, answer: Answer::Result(segment) }) = client.next_reply() else { panic!("{name}") };
            order.push(id);
            answers.insert(id, segment);
        }
        assert_eq!(answers[&hasty].code(), ErrorCode::Timeout, "{name}");
        assert_eq!(answers[&cancelled].code(), ErrorCode::Cancelled, "{name}");
        assert_eq!(order[2], compiles, "{name}: they were held up until the other one was done: {order:?}");
    }
    assert!(told > 0, "no source is slow enough to tell anything");
}

#[test]
fn what_was_compiled_is_on_disk_when_the_process_has_ended() {
    let _w = Watchdog::seconds(120);
    for trial in 0..3 {
        let cache = TempDir::new();
        let (mut sidecar, mut client) = Options::new().flag("cache-dir", cache.path().display()).child();
        // fewer than may wait to be written, and all of them at once
        const HANDLERS: usize = 900;
        let sources = (0..HANDLERS).map(|number| format!("return [{trial}, {number}]")).collect::<Vec<_>>();
        let ids: Vec<u32> = sources
            .iter()
            .map(|source| {
                client.send(&ClientMessage::Precompile(Precompile { source, handler_name: None, suspend_mode: None }))
            })
            .collect();
        for id in ids {
            let answer = client.wait(id);
            assert!(matches!(answer, Answer::Compiled { .. }), "{answer:?}");
        }
        sidecar.signal(Signal::SIGTERM);
        assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
        assert_eq!(handlers_on_disk(cache.path()), HANDLERS, "trial {trial}");
    }
}
