//! Many executions in one request: in order, each for itself, in turn with others, and whatever ends them.

use nexus_protocol::limits::MAX_MANY_ITEMS;
use nexus_protocol::message::{CallLimits, ManyItem, Status};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::run::{ALL, calling, item, many, many_on, sidecar};
use nexus_tests::{Answer, Client, Options, Run, SOON, Segment, Watchdog, eventually, isolation};
use serde_json::{Value, json};

#[track_caller]
fn run_many(client: &mut Client, message: &ClientMessage<'_>) -> Vec<Segment> {
    let id = client.send(message);
    let (results, error) = client.results(id);
    assert_eq!(error, None, "after {} results", results.len());
    client.still_works();
    results
}

fn args(bytes: &[u8]) -> ManyItem<'_> {
    ManyItem { args: Some(bytes), ..ManyItem::default() }
}

fn common(source: &str) -> ManyItem<'_> {
    ManyItem { source: Some(source), capabilities: Some(ALL.to_vec()), ..ManyItem::default() }
}

// shows P-many-in-order
// shows P-many-parts
#[test]
fn results_come_in_the_order_of_the_items_at_one_and_at_the_most() {
    let (_w, _sidecar, mut client) = sidecar();
    for count in [1, 2, MAX_MANY_ITEMS] {
        let numbers: Vec<Vec<u8>> = (0..count).map(|n| rmp_serde::to_vec(&n).unwrap()).collect();
        let message = many_on(common("return $args * 2"), numbers.iter().map(|bytes| args(bytes)));
        let results = run_many(&mut client, &message);
        let values: Vec<Value> = results.iter().map(Segment::value).collect();
        assert_eq!(values, (0..count).map(|n| json!(n * 2)).collect::<Vec<_>>());
        assert!(results.iter().all(|result| result.seq == 0));
    }
    // in order, too, by what they do to a state that all of them have
    let state = client.create_state(&json!({"all": []}));
    let appending = Run::source("$state.all = [...$state.all, $args]; return $state.all.length");
    let appending = appending.resident(&state).grant(&ALL);
    let runs: Vec<Run> = (0..50).map(|n| appending.clone().args(&json!(n))).collect();
    let lengths: Vec<Value> = run_many(&mut client, &many(&runs)).iter().map(Segment::value).collect();
    assert_eq!(lengths, (1..=50).map(|n| json!(n)).collect::<Vec<_>>());
}

#[test]
fn none_and_too_many_are_refused_and_what_makes_no_execution_is_malformed() {
    let (_w, _sidecar, mut client) = sidecar();
    let too_many = (0..=MAX_MANY_ITEMS).map(|_| ManyItem::default());
    for message in [many_on(common("return 1"), []), many_on(common("return 1"), too_many)] {
        let id = client.send(&message);
        let (results, error) = client.results(id);
        assert_eq!((results.len(), error.unwrap().code), (0, ErrorCode::InvalidArgument));
        client.still_works();
    }
    // [kind, id, {items: [{}]}]: no handler anywhere
    client.write_raw(&[&[12, 0, 0, 0, 0x93, 0x12, 7, 0x81, 0xa5][..], b"items", &[0x91, 0x80]].concat()[..]);
    assert!(matches!(client.next_reply().unwrap().answer, Answer::Error(e) if e.code == ErrorCode::ProtocolError));
    assert!(client.is_closed());
}

// shows P-many-isolated
#[test]
fn whatever_becomes_of_one_item_the_next_one_is_as_if_it_were_alone() {
    let _w = Watchdog::seconds(300);
    let (_sidecar, mut client) = Options::new().debug().flag("max-instances", 1).child();
    let look = "const own = [];
        for (let o = globalThis; o !== null; o = Object.getPrototypeOf(o)) own.push(...Reflect.ownKeys(o).map(String));
        for (const made of [{}, [], '', 0, () => 1, Promise.resolve(), new Map(), new Date(0), /x/])
            for (let o = made; o !== null; o = Object.getPrototypeOf(o)) own.push(Reflect.ownKeys(Object(o)).map(String).join());
        $log('looked'); return [own, $state.x, $args, $emit('looked', 1)]";
    let look = calling(look).state(&json!({"x": 1}));
    let told = |segment: &Segment| {
        let logs: Vec<Value> = segment.logs.as_array().unwrap().iter().map(|log| log["message"].clone()).collect();
        (segment.value(), segment.host_calls.clone(), logs, segment.mutations.clone())
    };
    let alone = told(&client.run(look.clone()));
    let spoils = [
        "globalThis.x = 1; Object.prototype.y = 1; Array.prototype.push = null; delete globalThis.Map; return 1",
        "throw new Error('no')",
        "for (;;);",
        "const all = []; for (;;) all.push(new Array(1000).fill(1))",
        "function f() { return f() } return f()",
        "for (let i = 0; i < 1e5; i++) $emit('e', i)",
        "$state.x = 2; $log('mine'); return $state.x",
        "return $state.nothing.at.all",
        "syntax error",
        "await $ext.a.b(); return 1",
        "return await new Promise(() => {})",
        "Math.random = () => 4; Date.now = () => 5; JSON.stringify = null",
        "$ext.a.b = 1; $state.x.y = 1; Object.freeze(Object.prototype)",
        "const ws = new WeakRef({}); new FinalizationRegistry(() => {}).register({}, 1); return 'x'.repeat(1e6)",
    ];
    let spoils = spoils.map(|source| calling(source).state(&json!({"x": 1})).timeout_ms(60));
    let channels = isolation::channels();
    let planted = channels.iter().map(|channel| {
        let source = format!("const c = 'CANARY', bytes = new Uint8Array(32);\n{}", channel.source);
        calling(source).state(&json!({"text": "x", "nested": {"text": "x", "list": []}})).timeout_ms(30)
    });
    let all: Vec<Run> = spoils.into_iter().chain(planted).flat_map(|spoil| [spoil, look.clone()]).collect();
    for runs in all.chunks(100) {
        let results = run_many(&mut client, &many(runs));
        assert_eq!(results.len(), runs.len());
        for (pair, at) in results.chunks(2).zip(0..) {
            assert_eq!(told(&pair[1]), alone, "after item {at}: {:?}", pair[0]);
        }
    }
}

#[test]
fn each_item_has_its_own_grants_limits_and_errors() {
    let (_w, _sidecar, mut client) = sidecar();
    let handle = client.precompile("return 'compiled'").unwrap();
    let narrow = |max_events| Some(CallLimits { max_events: Some(max_events), ..CallLimits::default() });
    let emit = "for (let i = 0; i < 3; i++) $emit('e', i)";
    let read = Run::source("return $state.x").state(&json!({"x": 1}));
    let results = run_many(
        &mut client,
        &many_on(
            ManyItem { limits: narrow(5), ..common(emit) },
            [
                ManyItem::default(),
                ManyItem { limits: narrow(2), ..ManyItem::default() },
                ManyItem { capabilities: Some(vec![]), ..ManyItem::default() },
                ManyItem { handler: Some(&handle), ..ManyItem::default() },
                ManyItem { handler: Some(&handle[1..]), ..ManyItem::default() },
                item(&read),
                item(&read.clone().grant(&["state:read:x"])),
                ManyItem { capabilities: Some(vec!["no:such"]), ..ManyItem::default() },
                ManyItem { args: Some(&[0xc1]), ..ManyItem::default() },
                ManyItem { handler_name: Some(&"x".repeat(257)), ..ManyItem::default() },
                ManyItem { resident: Some(nexus_protocol::message::Resident::new("none")), ..ManyItem::default() },
                ManyItem { source: Some("return 'last'"), ..ManyItem::default() },
            ],
        ),
    );
    let told: Vec<Result<Value, ErrorCode>> = results
        .iter()
        .map(|result| if result.status == Status::Success { Ok(result.value()) } else { Err(result.code()) })
        .collect();
    use ErrorCode::{InvalidArgument, InvalidHandler, PermissionDenied, ResourceLimit};
    let compiled = Ok(json!("compiled"));
    assert_eq!(
        told,
        [
            Ok(Value::Null),
            Err(ResourceLimit),
            Err(PermissionDenied),
            compiled,
            Err(InvalidHandler),
            Err(PermissionDenied),
            Ok(json!(1)),
            Err(InvalidArgument),
            Err(InvalidArgument),
            Err(InvalidArgument),
            Err(InvalidArgument),
            Ok(json!("last")),
        ]
    );
}

// shows P-many-time
#[test]
fn the_time_of_an_item_begins_when_the_one_before_is_done() {
    let (_w, _sidecar, mut client) = sidecar();
    // together they take far longer than each may
    let busy = "const until = Date.now; let n = 0; for (let i = 0; i < 2e5; i++) n += Math.max(i, n); return 'done'";
    let message = many_on(ManyItem { timeout_ms: Some(2_000), ..common(busy) }, vec![ManyItem::default(); 300]);
    let results = run_many(&mut client, &message);
    assert!(results.iter().all(|result| result.value() == "done"));
    let total: u64 = results.iter().map(|result| result.duration_us).sum();
    assert!(total > 2_000_000, "too short to show anything: {total} us");
}

// shows P-many-suspended
#[test]
fn an_item_that_calls_is_an_execution_of_its_own_and_those_behind_it_go_on() {
    let (_w, _sidecar, mut client) = sidecar();
    let source = "const r = await $ext.a.b($args); return [$args, r]";
    let numbers: Vec<Vec<u8>> = (0..20).map(|n: u8| vec![n]).collect();
    let results = run_many(&mut client, &many_on(common(source), numbers.iter().map(|bytes| args(bytes))));
    assert!(results.iter().all(|result| result.status == Status::Suspended && result.calls.len() == 1));
    assert_eq!(client.stats().suspended_instances, 20);
    assert!(client.cancel_suspension(&results[3].call().id));
    for (n, result) in results.iter().enumerate().rev().filter(|(n, _)| *n != 3) {
        let end = client.resume(&result.call().id, &json!(n * 10));
        assert_eq!((end.seq, end.value()), (1, json!([n, n * 10])));
    }
    assert_eq!(client.stats().suspended_instances, 0);
}

// shows P-many-ended
#[test]
fn a_cancel_ends_the_item_that_runs_and_all_behind_it() {
    let (_w, _sidecar, mut client) = sidecar();
    let runs = [Run::source("return 'first'"), Run::source("for (;;);").timeout_ms(0), Run::source("return 'never'")];
    // which of them runs nobody tells: where it was the first, or none, the next time it is the second
    let mut results = Vec::new();
    eventually("the second is cancelled", SOON, || {
        let id = client.send(&many(&runs));
        eventually("it runs", SOON, || client.executions()["executions"][0]["state"] == "running");
        // as one execution, whatever it has in it
        assert_eq!(client.executions()["total"], 1);
        assert!(client.cancel_request(id));
        let (told, error) = client.results(id);
        assert_eq!(error.unwrap().code, ErrorCode::Cancelled);
        assert!(!client.cancel_request(id) && told.len() <= 2, "{told:?}");
        results = told;
        results.len() == 2
    });
    assert_eq!((results[0].value(), results[1].code()), (json!("first"), ErrorCode::Cancelled));
    client.still_works();
}

#[test]
fn it_ends_with_its_connection_and_by_kill() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 1).listen();
    let mut watcher = sidecar.connect();
    let turns = vec![Run::source("let n = 0; for (let i = 0; i < 1e5; i++) n += Math.max(i, n)"); MAX_MANY_ITEMS];
    let mut leaver = sidecar.connect();
    leaver.send(&many(&turns));
    let is_there = |watcher: &mut Client| watcher.executions()["total"] == 1;
    eventually("it is there", SOON, || is_there(&mut watcher));
    drop(leaver);
    eventually("it is gone", SOON, || watcher.executions()["total"] == 0);
    let mut client = sidecar.connect();
    let id = client.send(&many(&turns));
    eventually("it is there", SOON, || is_there(&mut watcher));
    let number = watcher.executions()["executions"][0]["id"].as_u64().unwrap();
    assert!(watcher.kill(number));
    let (results, error) = client.results(id);
    assert_eq!(error.unwrap().code, ErrorCode::Cancelled);
    assert!(results.len() < MAX_MANY_ITEMS);
    client.still_works();
}

// shows P-many-turns
#[test]
fn what_others_ask_for_has_its_turn_between_the_items() {
    let _w = Watchdog::seconds(300);
    let sidecar = Options::new().patient().flag("max-instances", 1).listen();
    let (mut client, mut other) = (sidecar.connect(), sidecar.connect());
    let work = Run::source("let n = 0; for (let i = 0; i < 2e5; i++) n += Math.max(i, n); return n");
    let id = client.send(&many(&vec![work; 600]));
    // also of its own connection
    let own = client.start("return 'own'");
    for _ in 0..20 {
        assert_eq!(other.run("return 'served'").value(), "served");
    }
    assert_eq!(client.segment(own).value(), "own");
    assert!(client.early_replies().iter().all(|reply| reply.id == id), "its parts, which have come before");
    let is_over =
        client.early_replies().iter().any(|reply| matches!(&reply.answer, Answer::Results { more: false, .. }));
    assert!(!is_over, "it was done before anybody had a turn: too little to show anything");
    let (results, error) = client.results(id);
    assert_eq!((results.len(), error), (600, None));
}

#[test]
fn large_results_leave_in_parts_and_one_that_is_too_large_is_an_error_of_its_own() {
    let _w = Watchdog::seconds(120);
    let (_sidecar, mut client) =
        Options::new().flag("max-frame-bytes", 1 << 20).flag("max-result-bytes", 256 << 10).child();
    let large = Run::source("return 'x'.repeat(100_000)");
    let huge = Run::source("return 'x'.repeat(300_000)");
    let calls = calling("for (let i = 0; i < 4000; i++) $ext.a.b(i).catch(() => 1); await $ext.a.c()");
    let mut runs = vec![large; 30];
    runs.insert(7, huge);
    runs.push(calls.clone());
    runs.push(calls);
    let results = run_many(&mut client, &many(&runs));
    for (at, result) in results.iter().enumerate() {
        match at {
            7 => assert!(format!("{:?}", result.error()).contains("maxResultBytes"), "{result:?}"),
            31.. => assert!(result.calls.len() == 4_001 || result.code() == ErrorCode::ResourceLimit),
            _ => assert_eq!(result.value().as_str().map(str::len), Some(100_000)),
        }
    }
}

#[test]
fn an_end_of_the_sidecar_answers_it() {
    let _w = Watchdog::seconds(120);
    let (sidecar, mut client) = Options::new().flag("drain-timeout-ms", 200).child();
    let id = client.send(&many(&vec![Run::source("for (;;);").timeout_ms(100); MAX_MANY_ITEMS]));
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    let (results, error) = client.results(id);
    let code = error.unwrap().code;
    assert!(matches!(code, ErrorCode::Cancelled | ErrorCode::Overloaded), "{code:?}");
    assert!(results.len() < MAX_MANY_ITEMS);
}

#[test]
fn what_is_done_or_waits_for_an_answer_is_told_before_a_long_item_is_over() {
    let (_w, _sidecar, mut client) = sidecar();
    let runs = [
        calling("return await $ext.a.b()"),
        Run::source("const end = Date.now(); for (let i = 0; i < 3e5; i++); return 'long enough'"),
        Run::source("for (;;);").timeout_ms(4_000),
    ];
    let id = client.send(&many(&runs));
    let Answer::Results { results, more: true } = client.wait(id) else { panic!("no part comes first") };
    assert_eq!((results.len(), results[0].status), (1, Status::Suspended));
    let (answered, call) = (results[0].call().id.clone(), std::time::Instant::now());
    assert_eq!(client.resume(&answered, &json!(7)).value(), json!(7));
    assert!(call.elapsed() < SOON);
    let Answer::Results { results, more: true } = client.wait(id) else { panic!("the second one waits for the third") };
    assert_eq!((results.len(), results[0].value()), (1, json!("long enough")));
    let (rest, error) = client.results(id);
    assert_eq!((rest.len(), rest[0].code(), error), (1, ErrorCode::Timeout, None));
}
