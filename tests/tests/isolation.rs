//! No execution sees anything of another: one instance, canaries planted by every channel, searched for everywhere.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::{Options, Rng, Run, Watchdog, isolation, number};
use serde_json::{Value, json};

const ALL: [&str; 6] = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];
const SEARCH: &str = include_str!("../handlers/isolation/search.js");
/// Of handlers that are to be stopped, as of all others.
const TIMEOUT_MS: u64 = 30;

/// Of the search, which takes a hundredth of it on a machine that does nothing else.
const SEARCH_TIMEOUT_MS: u64 = 30_000;

/// `NEXUS_ISOLATION_PAIRS` asks for more.
fn pairs() -> usize {
    number("NEXUS_ISOLATION_PAIRS", 500) as usize
}

/// 32 random characters and 32 random bytes. Both begin with what the search looks for.
struct Canary {
    text: String,
    bytes: Vec<u8>,
}

impl Canary {
    fn new(rng: &mut Rng) -> Self {
        let text = (0..26).map(|_| char::from(b'a' + rng.below(26) as u8)).collect::<String>();
        let bytes = (0..28).map(|_| rng.byte()).collect::<Vec<u8>>();
        Self { text: format!("CANARY{text}"), bytes: [b"CANA", &*bytes].concat() }
    }

    fn planted_by(&self, channel: &str, style: SuspendMode) -> Run {
        let map = vec![("text".into(), (*self.text).into()), ("bytes".into(), rmpv::Value::Binary(self.bytes.clone()))];
        let mut args = Vec::new();
        rmpv::encode::write_value(&mut args, &rmpv::Value::Map(map)).expect("a vector takes everything");
        let state = json!({"text": self.text, "nested": {"text": self.text, "list": [self.text]}});
        Run::source(format!("const c = $args.text, bytes = $args.bytes;\n{channel}"))
            .suspend_mode(style)
            .args_bytes(args)
            .state(&state)
            .scope(&json!({"text": self.text}))
            .grant(&ALL)
            .timeout_ms(TIMEOUT_MS)
            .limits(|limits| limits.max_host_calls = Some(3000))
    }
}

#[test]
fn nothing_that_one_execution_did_is_seen_by_the_next() {
    let pairs = pairs();
    let _w = Watchdog::seconds(100 + pairs as u64 / 5);
    let options = Options::new().debug().flag("max-instances", 1).flag("timeout-ms", SEARCH_TIMEOUT_MS);
    let (sidecar, mut client) = options.child();
    client.stream().set_read_timeout(Some(Duration::from_millis(2 * SEARCH_TIMEOUT_MS))).unwrap();
    let grants = ["state:read:*", "ext:*"];
    // an execution is sought in instances of its own kind
    let styles = [SuspendMode::Await, SuspendMode::Stack].map(|style| {
        let search = Run::source(SEARCH).grant(&grants).suspend_mode(style);
        let search = search.state(&json!({"text": "", "nested": {"list": []}}));
        let pristine = client.run(search.clone()).value();
        assert!(pristine["seen"].as_u64().unwrap() > 600, "the search sees little: {pristine}");
        assert_eq!(pristine["found"], json!([]));
        (style, search, pristine)
    });
    let channels = isolation::channels();
    let mut rng = Rng::new(0xca_4a_17);
    let mut outcomes = [0usize; 3];
    for number in 0..pairs {
        // every channel comes up, then they are mixed
        let channel = channels.get(number).unwrap_or_else(|| rng.pick(&channels));
        let (style, search, pristine) = rng.pick(&styles);
        let planted = client.run(Canary::new(&mut rng).planted_by(&channel.source, *style));
        outcomes[planted.status as usize % 3] += 1;
        if planted.status == Status::Suspended && rng.below(2) == 0 {
            client.cancel_suspension(&planted.call().id);
        } else if planted.status == Status::Suspended {
            client.resume(&planted.call().id, &json!("CANARY of an answer"));
        }
        let started = Instant::now();
        let after = client.run(search.clone());
        let about = format!("pair {number}, after: {}, in {:?}", channel.name, started.elapsed());
        assert_eq!(after.status, Status::Success, "{about}: {:?}", after.error);
        assert_eq!(after.value(), *pristine, "{about}");
        assert!(!format!("{:?}{:?}", after.logs, after.error).contains("CANARY"), "{about}");
        for call in planted.calls.iter().skip(1) {
            // of a suspended execution whose first call was answered; its slot is another's
            client.cancel_suspension(&call.id);
        }
    }
    assert!(!sidecar.stderr().contains("CANARY"), "the log holds what handlers were given: {}", sidecar.stderr());
    assert!(outcomes.iter().all(|n| *n > 0), "the channels all end alike: {outcomes:?}");
    println!("{pairs} pairs over {} channels; succeeded, suspended, failed: {outcomes:?}", channels.len());
}

#[test]
fn a_suspended_execution_and_others_do_not_see_each_other() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = Options::new().flag("max-instances", 1).child();
    let source = "globalThis.mine = $args; const r = await $ext.a.b(); return [globalThis.mine, r, Object.keys(globalThis).includes('theirs')]";
    let held: Vec<_> = (0..10).map(|i| client.run(Run::source(source).args(&json!(i)).grant(&["ext:*"]))).collect();
    for _ in 0..10 {
        let other = client.run("globalThis.theirs = 1; return globalThis.mine === undefined");
        assert_eq!(other.value(), true);
    }
    for (i, segment) in held.iter().enumerate() {
        assert_eq!(client.resume(&segment.call().id, &json!("r")).value(), json!([i, "r", false]));
    }
}

#[test]
fn state_of_one_client_is_not_seen_by_another() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let workers: Vec<_> = (0..4)
        .map(|who| {
            let mut client = sidecar.connect();
            std::thread::spawn(move || {
                for i in 0..200 {
                    let own = json!({"who": who, "i": i});
                    let run = Run::source(
                        "globalThis.x = (globalThis.x ?? 0) + 1; return [$state.own, $args, $scope, globalThis.x]",
                    );
                    let run = run.state(&json!({"own": own})).args(&own).scope(&own).grant(&["state:read:own"]);
                    assert_eq!(client.run(run).value(), json!([own, own, own, 1]));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

/// Names of all own properties of the global object and of what handlers are given, as the file has them.
#[test]
fn the_global_object_holds_what_the_list_says_and_nothing_else() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = Options::new().child();
    let source = "
        const list = (name, object) => Reflect.ownKeys(object).map(key => name + String(key));
        return [...list('', globalThis), ...['$emit', '$view', '$log', '$time', 'console', 'crypto'].flatMap(n => list(n + '.', globalThis[n]))].sort()";
    let value = client.run(source).value();
    let found: Vec<&str> = value.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers/golden/globals.txt");
    let listed = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}\n{}", path.display(), found.join("\n")));
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with("//") && !line.is_empty()).collect();
    let added: Vec<_> = found.iter().filter(|name| !listed.contains(name)).collect();
    let missing: Vec<_> = listed.iter().filter(|name| !found.contains(name)).collect();
    assert!(added.is_empty() && missing.is_empty(), "not in the list: {added:?}; only in the list: {missing:?}");
}
