//! What the host itself does for a request has an end: reading a source, waiting for somebody else's compilation, finding the
//! keys of a state. The shipped limits and times hold, unless a test names others.

use std::time::Instant;

use nexus_protocol::limits::{DEFAULT_MAX_QUEUE_MS, DEFAULT_TIMEOUT_MS, MAX_STATE_KEYS};
use nexus_protocol::message::{Check, Precompile};
use nexus_protocol::{ClientMessage, ContextValue, ErrorCode};
use nexus_tests::leaks::{forget_peak_rss, of_guests, peak_rss_bytes};
use nexus_tests::process::handlers_on_disk;
use nexus_tests::run::slow_to_compile;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, Run, SOON, Sidecar, Watchdog};
use nix::sys::signal::Signal;

const MIB: usize = 1 << 20;
/// What compiling may take beside the memory that it is allowed: the source, some copies of it, its tree.
const BESIDE_THE_MEMORY: u64 = 24 << 20;

/// As shipped: other tests have all the time that there is.
fn shipped() -> Options {
    Options::new().flag("timeout-ms", DEFAULT_TIMEOUT_MS).flag("max-queue-ms", DEFAULT_MAX_QUEUE_MS)
}

fn precompile(source: &str) -> ClientMessage<'_> {
    ClientMessage::Precompile(Precompile { source, handler_name: None, suspend_mode: None })
}

/// The process is whole, and has given up no thread.
fn is_well(sidecar: &mut Sidecar) {
    let mut client = sidecar.connect();
    client.still_works();
    let metrics = client.metrics();
    let retired = metrics.lines().find_map(|line| line.strip_prefix("nexus_retired_threads_total "));
    assert_eq!(retired, Some("0"), "{}", sidecar.stderr());
    assert!(sidecar.is_running());
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Result(segment) => segment.error.as_ref().map(|error| error.code),
        Answer::Error(error) => Some(error.code),
        _ => None,
    }
}

#[test]
fn all_that_want_a_source_that_compiles_slowly_are_answered_and_nobody_is_given_up() {
    let _watchdog = Watchdog::seconds(240);
    let mut sidecar = shipped().listen();
    let mut clients: Vec<Client> = (0..4).map(|_| sidecar.connect()).collect();
    let source = slow_to_compile();
    let mut asked = Vec::new();
    for n in 0..100 {
        let client = &mut clients[n % 4];
        asked.push(match n % 10 {
            0 => client.send(&ClientMessage::Check(Check { source: &source })),
            1 => client.send(&precompile(&source)),
            2..6 => client.start(Run::source(&source).timeout_ms(300)),
            _ => client.start(&*source),
        });
    }
    for (n, id) in asked.into_iter().enumerate() {
        let answer = clients[n % 4].wait(id);
        let code = code(&answer);
        // whoever had the time to see it compiled has its result; the others hear why not
        assert!(
            matches!(code, None | Some(ErrorCode::Timeout | ErrorCode::Overloaded)),
            "request {n} was answered {answer:?}"
        );
    }
    is_well(&mut sidecar);
}

// shows P-compiling
#[test]
fn a_waiter_is_answered_when_its_own_time_is_up_and_not_when_the_compilation_is() {
    let _watchdog = Watchdog::seconds(240);
    let mut sidecar = Options::new().listen();
    let (mut patient, mut hasty) = (sidecar.connect(), sidecar.connect());
    let source = slow_to_compile();
    let first = patient.start(&*source);
    // it compiles: it is in nobody's queue, and has an instance
    let mut operator = sidecar.connect();
    nexus_tests::eventually("it is under way", SOON, || operator.stats().active_instances == 1);
    for _ in 0..8 {
        assert_eq!(hasty.run(Run::source(&source).timeout_ms(50)).code(), ErrorCode::Timeout);
    }
    // the compilation has not ended meanwhile, or these would have been waiting for it
    assert!(patient.early_replies().is_empty());
    assert_eq!(operator.stats().active_instances, 1);
    assert!(patient.cancel_request(first));
    assert_eq!(patient.segment(first).code(), ErrorCode::Cancelled);
    is_well(&mut sidecar);
}

#[test]
fn sources_of_many_imports_of_types_are_read_in_time() {
    let _watchdog = Watchdog::seconds(240);
    let mut sidecar = shipped().listen();
    let mut clients: Vec<Client> = (0..12).map(|_| sidecar.connect()).collect();
    let lines = [
        "import type A from 'a';\n".to_owned(),
        "import type{A}from'a';".to_owned(),
        format!("import type A from '{}';\n", "x".repeat(100)),
    ];
    let asked: Vec<(usize, u32)> = (0..clients.len())
        .map(|n| {
            // none is the other: nobody waits for somebody else's
            let source = format!("{}return {n}", lines[n % 3].repeat((MIB - 100) / lines[n % 3].len()));
            (n, clients[n].send(&ClientMessage::Check(Check { source: &source })))
        })
        .collect();
    for (n, id) in asked {
        let answer = clients[n].wait(id);
        assert!(matches!(answer, Answer::Checked { .. }), "{n}: {answer:?}");
    }
    is_well(&mut sidecar);
}

/// A map of so many keys that differ.
fn keys(count: usize) -> Vec<u8> {
    let mut out = vec![0xdf];
    out.extend_from_slice(&(count as u32).to_be_bytes());
    for n in 0..count {
        let name = format!("{n:x}");
        out.push(0xa0 | name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.push(0xc0);
    }
    out
}

#[test]
fn states_of_many_keys_end_nothing_but_their_own_requests() {
    let _watchdog = Watchdog::seconds(240);
    let mut sidecar = shipped().listen();
    let source = "return [$state.a, $state.nothing, $state.keys().length, 'zz' in $state]";
    let all = ["state:read:*"];
    let mut clients: Vec<Client> = (0..6).map(|_| sidecar.connect()).collect();
    // twenty million bytes of keys that are all alike
    let mut most = vec![0xdf];
    most.extend_from_slice(&10_000_000u32.to_be_bytes());
    most.extend_from_slice(&[0xa0, 0xc0].repeat(10_000_000));
    let too_many: Vec<u32> = clients
        .iter_mut()
        .map(|client| client.start(Run::source(source).state_bytes(most.clone()).grant(&all).timeout_ms(200)))
        .collect();
    for (client, id) in clients.iter_mut().zip(too_many) {
        let error = client.segment(id).error().clone();
        assert_eq!(error.code, ErrorCode::ResourceLimit, "{error:?}");
        assert_eq!(error.context["resource"], ContextValue::Text("maxStateKeys".into()));
        assert_eq!(error.context["limit"], ContextValue::Number(MAX_STATE_KEYS as u64));
    }
    // as many as there may be: answered in time, or told that there was none
    let full = keys(MAX_STATE_KEYS);
    let asked: Vec<u32> = clients
        .iter_mut()
        .map(|client| client.start(Run::source(source).state_bytes(full.clone()).grant(&all).timeout_ms(200)))
        .collect();
    for (client, id) in clients.iter_mut().zip(asked) {
        let segment = client.segment(id);
        let code = segment.error.as_ref().map(|error| error.code);
        assert!(
            matches!(code, None | Some(ErrorCode::Timeout | ErrorCode::MemoryLimit | ErrorCode::Overloaded)),
            "{segment:?}"
        );
    }
    let some = clients[0].run(Run::source(source).state_bytes(keys(50_000)).grant(&all));
    assert_eq!(some.value(), serde_json::json!([null, null, 50_000, false]));
    let states = [clients[0].try_create_state(&most), clients[0].try_create_state(&full)];
    assert_eq!(states[0].as_ref().unwrap_err().context["resource"], ContextValue::Text("maxStateKeys".into()));
    if let Err(error) = &states[1] {
        assert!(matches!(error.code, ErrorCode::Timeout | ErrorCode::ResourceLimit), "{error:?}");
    }
    is_well(&mut sidecar);
}

// shows P-compiling
#[test]
fn compiling_is_bound_by_the_memory_of_a_handler() {
    let _watchdog = Watchdog::seconds(120);
    let mut sidecar = shipped().listen();
    let mut client = sidecar.connect();
    client.still_works();
    // each name may be one of a thousand objects'
    let names: String = (0..1000).map(|n| format!("n{n};")).collect();
    let source = format!("{}{{{names}}}", "with(a)".repeat(1000));
    // whoever compiles what is to be kept does it once more, within the same bound
    let pid = of_guests(sidecar.pid());
    forget_peak_rss(pid);
    let before = peak_rss_bytes(pid);
    let limit = |error: &nexus_protocol::WireError| {
        assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
        assert!(!error.retryable);
        assert_eq!(error.context["resource"], ContextValue::Text("memoryLimitBytes".into()));
        error.context["limit"].clone()
    };
    let configured = ContextValue::Number(nexus_protocol::limits::DEFAULT_MEMORY_LIMIT_BYTES);
    assert_eq!(limit(&client.check(&source).unwrap_err()), configured);
    assert_eq!(limit(&client.precompile(&source).unwrap_err()), configured);
    assert_eq!(limit(client.run(&*source).error()), configured);
    let narrow = Run::source(&*source).limits(|limits| limits.memory_limit_bytes = Some(MIB as u64));
    assert_eq!(limit(client.run(narrow).error()), ContextValue::Number(MIB as u64));
    let taken = peak_rss_bytes(pid).saturating_sub(before);
    let allowed = nexus_protocol::limits::DEFAULT_MEMORY_LIMIT_BYTES + BESIDE_THE_MEMORY;
    assert!(taken < allowed, "compiling took {taken} bytes, {allowed} are allowed");
    is_well(&mut sidecar);
}

// shows P-cache-hit
#[test]
fn a_connection_is_not_told_what_others_have_compiled() {
    let _watchdog = Watchdog::seconds(120);
    let sidecar = shipped().listen();
    let (mut one, mut other) = (sidecar.connect(), sidecar.connect());
    let told = |client: &mut Client| {
        // long enough for compiling it to take more than running it and all of the way
        let source = format!("let n = 0; {} return n", "n += [1].map(x => x)[0]; ".repeat(400));
        let asked = Instant::now();
        let segment = client.run(&*source);
        let round = asked.elapsed();
        assert_eq!(segment.value(), 400);
        assert!(
            u128::from(segment.duration_us) <= round.as_micros(),
            "the answer came after {round:?}: {} us",
            segment.duration_us
        );
        (segment.cache_hit, segment.compilation_time_us.is_some())
    };
    let (new, known) = ((false, true), (true, false));
    assert_eq!([told(&mut one), told(&mut one), told(&mut other), told(&mut other)], [new, known, new, known]);
    let handle = |client: &mut Client| match client.request(&precompile("return 77")) {
        Answer::Compiled { cache_hit, .. } => cache_hit,
        answer => panic!("{answer:?}"),
    };
    assert_eq!(
        [handle(&mut one), handle(&mut one), handle(&mut other), handle(&mut other)],
        [false, true, false, true]
    );
    let stats = other.stats();
    assert_eq!(stats.cache_entries, 2, "it was compiled once all the same");
}

#[test]
fn one_connection_does_not_displace_the_handlers_of_another() {
    let _watchdog = Watchdog::seconds(240);
    let sidecar = shipped().flag("cache-dir", "none").flag("max-cache-size-bytes", 8 * MIB).listen();
    let (mut quiet, mut greedy) = (sidecar.connect(), sidecar.connect());
    let handles: Vec<Vec<u8>> = (0..20).map(|n| quiet.precompile(&format!("return {n}")).unwrap()).collect();
    // each takes some hundred kilobytes, and all of them more than there is
    for n in 0..40 {
        greedy.precompile(&format!("return [{}{n}]", ",".repeat(300_000))).unwrap();
    }
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(quiet.run(Run::handle(handle)).value(), n);
    }
    let stats = quiet.stats();
    assert!(stats.cache_size_bytes <= 8 * MIB as u64 && stats.cache_entries < 60, "{stats:?}");
}

#[test]
fn what_was_compiled_is_on_disk_at_the_end() {
    const HANDLERS: usize = 400;
    let _watchdog = Watchdog::seconds(120);
    let dir = TempDir::new();
    let cache = dir.join("cache");
    let mut sidecar = Options::new().flag("cache-dir", cache.display()).listen();
    let mut client = sidecar.connect();
    let sources: Vec<String> = (0..HANDLERS).map(|n| format!("return {n} // {}", "x".repeat(2000))).collect();
    let asked: Vec<u32> = sources.iter().map(|source| client.send(&precompile(source))).collect();
    for id in asked {
        assert!(matches!(client.wait(id), Answer::Compiled { .. }));
    }
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert_eq!(handlers_on_disk(&cache), HANDLERS);
}
