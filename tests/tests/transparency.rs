//! Suspending changes nothing: the same handler with answers given at once, with the stack suspended at every call, and with
//! `await` where the language allows it, has the same value, error and effects.
//!
//! Handlers are made from two tables: language constructs, in which `@{x}` is a call with the argument x, and arguments. A
//! call answers ten times a number, fails for a text that begins with "fail", and gives back anything else.

use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::{Call, Client, Options, Run, Segment, Waiting, Watchdog};
use serde_json::{Value, json};

/// What a call does, as a function of the handler's own. It stands in every variant, so that lines are the same.
const PRELUDE: &str = "const call = x => { if (typeof x === 'string' && x.startsWith('fail')) throw Object.assign(new Error(x), {extension: 'a', method: 'b'}); return typeof x === 'number' ? x * 10 : x };\n";

/// `$` is an argument of the second table.
const ARGUMENTS: [&str; 8] =
    ["3", "-1.5", "'text'", "'fail: down'", "[1, [2, 'x'], {k: null}]", "{a: 1, b: [true, null]}", "null", "true"];

/// Where calls can be awaited as well.
const ANYWHERE: &[&str] = &[
    "return [@{$}]",
    "const r = @{$}; return [r, typeof r]",
    "return [@{$}, @{1}, @{$}]",
    "return {x: @{$}, [@{'k'}]: @{2}}",
    "const n = []; for (let i = 0; i < 5; i++) n.push(@{i}, @{$}); return n",
    "let n = 0; while (@{n} < 40) n++; return [n, @{$}]",
    "let n = 0; do { n++ } while (@{n} < 30); return [n, @{$}]",
    "const r = []; for (const x of [1, 2, $]) r.push(@{x}); return r",
    "const r = []; for (const k in {p: 1, q: 2}) r.push(@{k}, @{$}); return r",
    "outer: for (let i = 0; i < 3; i++) { for (let j = 0; j < 3; j++) { if (@{j} === 10) continue outer; if (@{i} === 20) break outer } } return @{$} ?? 0",
    "try { return [@{$}] } catch (e) { return [e.message, e.extension, e.method, e instanceof Error] }",
    "try { @{$} } catch (e) { return 'caught ' + @{1} } finally { $state.n = @{2} } return 'no'",
    "try { throw @{1} } catch (e) { return [e, @{2}] } finally { $emit('done', @{$}) }",
    "try { try { @{$} } finally { $log(@{1}) } } catch { return @{2} } return 'through'",
    "for (const x of [1, 2]) { try { @{$}; continue } catch { break } finally { $state['k' + x] = @{x} } } return 'end'",
    "switch (@{$}) { case 30: return 'a'; case null: return 'b'; case true: return 'c'; default: return 'd' }",
    "return @{0} || @{$} || 'none'",
    "return [@{0} ?? 1, @{null} ?? @{$}]",
    "return @{true} ? [@{$}] : @{2}",
    "let x = 1; x += @{2}; x **= 2; x = x - @{1}; return [x, @{$}]",
    "const o = {n: 1}; o.n += @{1}; o[@{'k'}] = @{$}; return o",
    "const [a, b = @{2}, ...c] = [@{1}, undefined, @{3}, @{$}]; return [a, b, c]",
    "const {a, b: {c = @{4}} = {}, ...rest} = {a: @{$}, z: @{1}}; return [a, c, rest]",
    "return `${@{1}}-${JSON.stringify(@{$})}`",
    "return [...[@{1}, @{2}], ...[@{$}]]",
    "return Math.max(@{1}, @{5}, @{2}) + String(@{$})",
    "$state.a = @{1}; $emit('e', {x: @{2}}); $log('l', @{3}); $state.b = @{$}; return $state.a",
    "$state.list.push(@{1}); $state.list.push(@{2}); $state.deep.x.y = @{$}; return $state.list",
    "delete $state.list; $state.c = @{1}; return ['list' in $state, @{$}]",
    "const f = async x => @{x}; return [await f(1), await f($)]",
    "async function* g() { yield @{1}; yield @{$} } const r = []; for await (const x of g()) r.push(x); return r",
    "const r = await Promise.all([1, 2].map(async x => [x, @{x}])); return [r, @{$}]",
    "return new Date(@{100}).getTime() + JSON.stringify(@{$})",
    "const t = @{$}; if (t === null) return 'null'; { const t = @{1}; return [t] }",
    "return (@{1}, @{2}, [@{$}])",
    "throw new TypeError('own ' + @{1} + JSON.stringify(@{$}))",
    "throw @{$}",
    "return @{1}.missing.deeper ?? @{$}",
];

/// Inside of functions that the language calls, where nothing can be awaited.
const SYNCHRONOUS: &[&str] = &[
    "return [1, 2, 3].map(x => @{x}).concat([@{$}])",
    "return [1, $].map(x => [@{x}])",
    "return [3, 1, 2].sort((a, b) => @{a} - @{b}).concat(@{$})",
    "return [3, 1, 2].toSorted((a, b) => @{b} - @{a}).concat([@{$}])",
    "return [...new Int16Array([5, 3, 9]).sort((a, b) => @{a} - @{b})].concat([@{$}])",
    "return [1, 2, 3].filter(x => @{x} > 10).concat([@{$}])",
    "return [1, 2, 3].reduce((a, x) => a + @{x}, 0) + JSON.stringify(@{$})",
    "return [[1], [2, $]].flatMap(x => x.map(y => @{y}))",
    "return [1, 2].some(x => @{x} === 20) && [1, 2].every(x => @{x} > 0) && [@{$}]",
    "return [[1, 2].find(x => @{x} === 20), [1, 2].findLastIndex(x => @{x} === 10), @{$}]",
    "const r = []; [1, $].forEach(x => r.push(@{x})); return r",
    "return Array.from([1, 2], x => @{x}).concat([@{$}])",
    "return Object.groupBy([1, 2, 3], x => @{x} > 10 ? 'big' : 'small').big.concat([@{$}])",
    "const o = {get x() { return @{$} }}; return [o.x, o.x]",
    "const o = {set x(v) { this.y = @{v} }}; o.x = 4; o.x = $; return o.y",
    "return [new Proxy({}, {get: (_, k) => @{k.length}}).abc, @{$}]",
    "return ['x' in new Proxy({}, {has: () => @{true}}), @{$}]",
    "const p = new Proxy({}, {set: (t, k, v) => { t[k] = @{v}; return true }}); p.x = $; return [p.x]",
    "return [Object.keys(new Proxy({}, {ownKeys: () => [@{'k'}], getOwnPropertyDescriptor: () => ({value: @{1}, enumerable: true, configurable: true})})), @{$}]",
    "const p = new Proxy({x: 1}, {deleteProperty: () => @{true}}); return [delete p.x, @{$}]",
    "return [new Proxy(function () {}, {apply: () => @{1}})(), new (new Proxy(function () {}, {construct: () => ({v: @{$}})}))().v]",
    "return JSON.parse('[1, 2]', (k, v) => typeof v === 'number' ? @{v} : v).concat([@{$}])",
    "return JSON.stringify({a: 1}, (k, v) => typeof v === 'number' ? @{v} : v) + JSON.stringify(@{$})",
    "return JSON.stringify({toJSON: () => [@{$}]})",
    "return `${{toString: () => 'n' + @{5}}}` + JSON.stringify(@{$})",
    "return [+{valueOf: () => @{4}}, {[Symbol.toPrimitive]: () => @{1}} + 1, @{$}]",
    "return [[@{1}, {valueOf: () => @{2}}] + '', @{$}]",
    "return 'abc'.replace(/./g, c => @{c.charCodeAt(0) - 96}) + JSON.stringify(@{$})",
    "return 'a-b'.split({[Symbol.split]: s => [s, @{1}]}).concat([@{$}])",
    "function* g() { yield @{1}; const x = yield @{$}; return @{x} } const i = g(); return [i.next().value, i.next().value, i.next(7).value]",
    "function* g() { try { yield @{1}; yield 2 } finally { $state.closed = @{3} } } for (const x of g()) break; return @{$} ?? 0",
    "function* a() { yield @{1} } function* b() { yield* a(); yield @{$} } return [...b()]",
    "return [...{[Symbol.iterator]: () => { let n = 0; return {next: () => ({done: n++ >= 2, value: @{n}})} }}].concat([@{$}])",
    "class A { constructor(x) { this.v = @{x} } } return [new A(6).v, new A($).v]",
    "class A { constructor() { this.a = @{1} } } class B extends A { constructor() { super(); this.b = @{$} } } return {...new B()}",
    "class A { f = @{$}; #p = @{1}; static s = @{2}; get p() { return this.#p } } return [new A().f, new A().p, A.s]",
    "class A { static { A.x = @{$} } [@{'m'}]() { return @{1} } } return [A.x, new A().m()]",
    "const f = (a = @{1}, {b = @{2}} = {}) => [a, b]; return [f(), @{$}]",
    "const f = n => n ? 1 + f(n - 1) : @{1}; return [f(20), @{$}]",
    "return [Reflect.apply(x => @{x}, null, [$]), ((x, y) => @{y}).bind(null, 1)(2), (x => @{x}).call(null, 3)]",
    "const m = new Map([[1, 2], [3, 4]]), r = []; m.forEach((v, k) => r.push(@{v}, @{k})); return r.concat([@{$}])",
    "return [(() => @{1})`x`, ((s, ...v) => v.map(x => @{x}))`${2}${3}`, @{$}]",
    "return [({}) instanceof {[Symbol.hasInstance]: () => @{true}}, @{$}]",
    "return [$state.update('n', n => @{n + 1}), @{$}]",
    "const r = []; for (const x of [1, 2, 3].values().map(x => @{x}).filter(x => @{x} > 100)) r.push(x); return r.concat([@{$}])",
    "return await new Promise(resolve => resolve([@{$}]))",
    "return await Promise.resolve(1).then(x => [@{x}, @{$}])",
    "return {get late() { return @{$} }}",
    "$emit('e', {get x() { return @{$} }}); return 1",
    "$log({toJSON: () => [@{$}]}); return 1",
    "Error.prepareStackTrace = () => @{1}; const s = new Error('x').stack; Error.prepareStackTrace = undefined; return [s, @{$}]",
    "const e = []; for (const f of [() => @{$}, () => null.x, () => @{1}]) try { e.push(f()) } catch (x) { e.push(x.name) } return e",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Variant {
    AtOnce,
    Stack,
    Await,
}

/// The handler of a variant: `@{x}` filled in, braces counted.
fn handler(construct: &str, argument: &str, variant: Variant) -> String {
    let mut code = construct.replace('$', "\u{1}").replace("\u{1}state", "$state");
    for name in ["emit", "log"] {
        code = code.replace(&format!("\u{1}{name}("), &format!("${name}("));
    }
    // a template's own ${
    code = code.replace("\u{1}{", "${");
    code = fill(&code.replace('\u{1}', argument), variant);
    format!("{PRELUDE}\n{code}")
}

fn fill(code: &str, variant: Variant) -> String {
    let (before, after) = match variant {
        Variant::AtOnce => ("call(", ")"),
        Variant::Stack => ("$ext.a.b(", ")"),
        Variant::Await => ("(await $ext.a.b(", "))"),
    };
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("@{") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let mut depth = 1;
        let end = inner
            .char_indices()
            .find_map(|(i, c)| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                (depth == 0).then_some(i)
            })
            .expect("@{ is closed");
        out.push_str(before);
        out.push_str(&fill(&inner[..end], variant));
        out.push_str(after);
        rest = &inner[end + 1..];
    }
    out + rest
}

/// What a handler came to, times and places left out.
#[derive(Debug, PartialEq)]
struct Outcome {
    end: Result<Value, (String, String)>,
    mutations: Vec<Value>,
    events: Vec<Value>,
    logs: Vec<Value>,
}

fn untimed(list: &Value) -> Vec<Value> {
    let mut entries = list.as_array().cloned().unwrap_or_default();
    for entry in &mut entries {
        if let Some(fields) = entry.as_object_mut() {
            fields.retain(|key, _| !key.contains("time"));
        }
    }
    entries
}

/// Runs to the end. Also: how often it was suspended.
fn outcome(client: &mut Client, source: &str, variant: Variant) -> (Outcome, usize) {
    let mode = if variant == Variant::Stack { SuspendMode::Stack } else { SuspendMode::Await };
    let run = Run::source(source)
        .suspend_mode(mode)
        .grant(&["ext:*", "state:read:*", "state:write:*", "events:emit:*"])
        .state(&json!({"n": 1, "list": [1], "deep": {"x": {"y": 0}}}));
    let mut segment = client.run(run);
    let mut all: [Vec<Value>; 3] = Default::default();
    let (mut suspensions, mut waiting) = (0, Waiting::default());
    loop {
        for (list, of) in all.iter_mut().zip([&segment.mutations, &segment.events, &segment.logs]) {
            list.extend(untimed(of));
        }
        if segment.status != Status::Suspended {
            break;
        }
        suspensions += 1;
        segment = answer(client, &waiting.next(&segment));
    }
    let end = match &segment.error {
        None => Ok(segment.value()),
        Some(error) => Err((error.code.as_str().to_owned(), error.message.to_string())),
    };
    let [mutations, events, logs] = all;
    (Outcome { end, mutations: last_writes(mutations), events, logs }, suspensions)
}

/// The state that mutations come to. A write inside of a value is told at the end of its segment, so that the number of
/// mutations, unlike what they amount to, depends on where segments end.
fn last_writes(mutations: Vec<Value>) -> Vec<Value> {
    let mut last: Vec<Value> = Vec::new();
    for mutation in mutations {
        last.retain(|earlier| earlier["key"] != mutation["key"]);
        last.push(mutation);
    }
    last.sort_by_key(|mutation| mutation["key"].to_string());
    last
}

fn answer(client: &mut Client, call: &Call) -> Segment {
    match &call.args[0] {
        Value::String(text) if text.starts_with("fail") => client.resume_failed(&call.id, text, None, None),
        Value::Number(number) => {
            let ten_times = number.as_f64().unwrap() * 10.0;
            let whole = ten_times as i64;
            let value = if whole as f64 == ten_times { json!(whole) } else { json!(ten_times) };
            client.resume(&call.id, &value)
        }
        other => client.resume(&call.id, other),
    }
}

#[test]
fn a_handler_cannot_tell_whether_it_was_suspended() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().debug().flag("max-instances", 2).flag("timeout-ms", 30_000).listen();
    let mut client = sidecar.connect();
    let (mut handlers, mut suspended) = (0, 0);
    let mut wrong = Vec::new();
    for (constructs, variants) in
        [(ANYWHERE, &[Variant::Stack, Variant::Await][..]), (SYNCHRONOUS, &[Variant::Stack][..])]
    {
        for construct in constructs {
            for argument in ARGUMENTS {
                handlers += 1;
                let (expected, none) =
                    outcome(&mut client, &handler(construct, argument, Variant::AtOnce), Variant::AtOnce);
                assert_eq!(none, 0);
                for variant in variants {
                    let source = handler(construct, argument, *variant);
                    let (found, times) = outcome(&mut client, &source, *variant);
                    suspended += times;
                    if found != expected {
                        wrong.push(format!("{variant:?}: {source}\n  expected {expected:?}\n  found    {found:?}"));
                    }
                    assert!(times > 0, "never suspended: {source}");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {handlers}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(handlers >= 300, "{handlers}");
    println!("{handlers} handlers, {suspended} suspensions");
    client.still_works();
}

#[test]
fn depth_makes_no_difference() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().debug().flag("timeout-ms", 30_000).listen();
    let mut client = sidecar.connect();
    let recursions = [
        "const f = n => n ? f(n - 1) + 1 : @{1}",
        "const f = n => n ? [n].map(x => f(x - 1) + 1)[0] : @{1}",
        "const f = n => n ? {get x() { return f(n - 1) + 1 }}.x : @{1}",
        "const f = n => n ? new Proxy({}, {get: () => f(n - 1) + 1}).x : @{1}",
        "const f = n => n ? +{valueOf: () => f(n - 1) + 1} : @{1}",
        "function* g(n) { yield n ? [...g(n - 1)][0] + 1 : @{1} } const f = n => [...g(n)][0]",
        "class A { constructor(n) { this.v = n ? new A(n - 1).v + 1 : @{1} } } const f = n => new A(n).v",
        "const f = n => n ? JSON.parse('1', () => f(n - 1) + 1) : @{1}",
    ];
    for recursion in recursions {
        for depth in [1, 10, 100] {
            let construct = format!("{recursion}; return [f({depth}), f({depth})]");
            let (expected, _) = outcome(&mut client, &handler(&construct, "0", Variant::AtOnce), Variant::AtOnce);
            let (found, times) = outcome(&mut client, &handler(&construct, "0", Variant::Stack), Variant::Stack);
            assert_eq!((&found, times), (&expected, 2), "{construct}");
            assert_eq!(found.end, Ok(json!([10 + depth, 10 + depth])));
        }
    }
}

#[test]
fn the_stack_may_be_suspended_where_it_is_all_but_used_up() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().debug().flag("timeout-ms", 30_000).listen();
    let mut client = sidecar.connect();
    for step in ["f()", "[1].map(f)[0]", "new Proxy({}, {get: f}).x", "[...function* () { yield f() }()][0]"] {
        // the innermost frame in which there is room for a call makes it
        let construct = format!(
            "let called = false; const f = () => {{ let r; try {{ r = {step} }} catch (e) {{ if (called || !(e instanceof RangeError)) throw e; r = @{{4}}; called = true }} return r }}; return f()"
        );
        let (found, times) = outcome(&mut client, &handler(&construct, "0", Variant::Stack), Variant::Stack);
        assert_eq!((found.end, times), (Ok(json!(40)), 1), "{step}");
    }
    client.still_works();
}
