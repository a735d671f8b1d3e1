//! No execution sees anything of another: one instance, canaries planted by every channel, searched for everywhere.

use std::fs;
use std::path::Path;

use nexus_protocol::message::Status;
use nexus_tests::{Client, Options, Rng, Run, Segment, Watchdog};
use serde_json::{Value, json};

const PAIRS: usize = 500;
const ALL: [&str; 6] = ["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

/// How a handler tries to leave `c` behind.
const CHANNELS: [&str; 34] = [
    "globalThis.leak = c; globalThis[c] = 1",
    "var leaked = c; globalThis.leak = () => c",
    "Object.prototype.leak = c; Array.prototype.leak = c; Function.prototype.leak = c",
    "Object.defineProperty(Object.prototype, 'leak', {get() { return c }, configurable: false})",
    "String.prototype.leak = Number.prototype.leak = Symbol.prototype.leak = BigInt.prototype.leak = c",
    "Promise.prototype.then = () => c; Promise.resolve = () => c; Promise.leak = c",
    "Object.setPrototypeOf(globalThis, {leak: c})",
    "Object.setPrototypeOf(Array.prototype, {leak: c})",
    "Symbol.for(c); globalThis[Symbol.for('leak')] = c; Object.prototype[Symbol.for('leak')] = c",
    "/(.*)-(.*)/.exec(c); c.replace(/./g, 'x'); RegExp.leak = c; RegExp.prototype.leak = c",
    "const r = /x/g; r.lastIndex = 5; r.leak = c; globalThis.r = r",
    "new Promise(() => {}).then(() => c); Promise.resolve().then(function again() { return Promise.resolve(c) })",
    "new FinalizationRegistry(held => { globalThis.leak = held }).register({}, c)",
    "globalThis.leak = new WeakRef({c}); globalThis.map = new WeakMap([[globalThis, c]])",
    "const a = new Uint8Array(1 << 20); for (let i = 0; i < a.length; i++) a[i] = c.charCodeAt(i % c.length)",
    "const all = []; for (let i = 0; i < 2000; i++) all.push(c + i)",
    "throw new Error(c)",
    "throw c",
    "Error.prepareStackTrace = () => c; Error.stackTraceLimit = 77; Error.prototype.message = c",
    "Date.now = () => c; Math.random = () => c; JSON.stringify = () => c; JSON.parse = () => c",
    "Array.prototype[Symbol.iterator] = function* () { yield c }; Array.prototype.push = () => c",
    "try { $state.__proto__ = {leak: c} } catch {} try { $state.get = () => c } catch {} try { $emit.leak = c } catch {}",
    "try { $log.leak = c } catch {} try { $time.now = () => c } catch {} try { $ext.leak = c } catch {} try { $view.leak = c } catch {}",
    "$emit = $log = $state = $view = $ext = $time = c",
    "delete globalThis.$emit; delete globalThis.Array; delete globalThis.JSON; globalThis.undefined_ = c",
    "Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.preventExtensions(globalThis); throw c",
    "$state.leak = c; $emit('leak', c); $log(c); $view.setFilter('leak', c)",
    "await $ext.leak.call(c)",
    "globalThis.leak = c; for (;;);",
    "globalThis.leak = c; return (3n ** 4000000n).toString()",
    "globalThis.leak = c; const a = []; for (;;) a.push(c + a.length)",
    "globalThis.leak = c; function f() { f() } f()",
    "function* g() { yield c; yield c } globalThis.g = g(); globalThis.g.next(); class A { static leak = c; #p = c } globalThis.A = A",
    "console.leak = c; crypto.leak = c; Reflect.leak = c; Math.leak = c; Iterator.prototype.leak = c",
];

/// Walks everything that can be reached from the global object, looks for traces of a canary, and returns them.
const SEARCH: &str = r"
const found = [], seen = new Set(), todo = [[globalThis, 'globalThis']];
const look = (text, path) => { if (typeof text === 'string' && text.includes('CANARY')) found.push(path) };
while (todo.length > 0) {
  const [value, path] = todo.pop();
  if (typeof value === 'string') look(value, path);
  if (typeof value === 'symbol') look(value.description, path);
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) continue;
  seen.add(value);
  if (typeof value === 'function') look(Function.prototype.toString.call(value), path + '()');
  todo.push([Object.getPrototypeOf(value), path + '.__proto__']);
  for (const key of Reflect.ownKeys(value)) {
    look(typeof key === 'symbol' ? key.description : key, path + '.key');
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (property === undefined) continue;
    const name = path + '.' + String(key);
    if ('value' in property) todo.push([property.value, name]);
    else todo.push([property.get, name], [property.set, name]);
  }
}
for (const name of ['$1', '$2', 'lastMatch', 'input', 'leftContext', '$_']) look(RegExp[name], 'RegExp.' + name);
look(new Error('e').stack, 'stack'); look(String(Date.now()), 'now'); look(String(Math.random()), 'random');
look(JSON.stringify([...'ab']), 'json'); look(String($state.keys()), 'state'); look(await Promise.resolve('p'), 'promise');
if (new Uint8Array(1 << 20).includes('C'.charCodeAt(0))) found.push('memory');
if (!Object.isExtensible(globalThis) || Object.isFrozen(Array.prototype) || 'leak' in {}) found.push('integrity');
const order = Reflect.ownKeys(globalThis).map(String).join();
return {found, seen: seen.size, order};
";

fn plant(client: &mut Client, number: usize, channel: &str) -> Segment {
    let canary = format!("CANARY-{number}-0123456789abcdef0123456789abcdef");
    let source = format!("const c = $args.canary;\n{channel}");
    let run =
        Run::source(source).args(&json!({"canary": canary})).state(&json!({"canary": canary})).scope(&json!(canary));
    client.run(run.grant(&ALL).timeout_ms(40))
}

#[test]
fn nothing_that_one_execution_did_is_seen_by_the_next() {
    let _w = Watchdog::seconds(150);
    let (sidecar, mut client) = Options::new().debug().flag("max-instances", 1).child();
    let search = Run::source(SEARCH).grant(&["state:read:*"]);
    let pristine = client.run(search.clone()).value();
    assert!(pristine["seen"].as_u64().unwrap() > 500, "the search sees little: {pristine}");
    let mut rng = Rng::new(0xca_4a_17);
    let mut outcomes = [0usize; 3];
    for number in 0..PAIRS {
        // every channel comes up, then they are mixed
        let channel = CHANNELS.get(number).unwrap_or_else(|| rng.pick(&CHANNELS));
        let planted = plant(&mut client, number, channel);
        outcomes[planted.status as usize % 3] += 1;
        if planted.status == Status::Suspended && rng.below(2) == 0 {
            client.cancel_suspension(&planted.call().id);
        } else if planted.status == Status::Suspended {
            client.resume(&planted.call().id, &json!("CANARY of an answer"));
        }
        let after = client.run(search.clone());
        let about = format!("pair {number}, after: {channel}");
        assert_eq!(after.value(), pristine, "{about}");
        assert!(!format!("{:?}{:?}", after.logs, after.error).contains("CANARY"), "{about}");
    }
    assert!(!sidecar.stderr().contains("CANARY"), "the log holds what handlers were given: {}", sidecar.stderr());
    assert!(outcomes.iter().filter(|n| **n > 0).count() >= 2, "the channels all end alike: {outcomes:?}");
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
