//! Where errors are placed, and what they carry: construct by construct, in JavaScript and in TypeScript, and by every way
//! in which a handler comes to run.
//!
//! Types stand between ‹ and ›: they are blanks in the JavaScript of a case, so that both have the same places.

use nexus_protocol::message::{Status, SuspendMode};
use nexus_protocol::{ErrorCode, InnerError, WireError};
use nexus_tests::process::handlers_on_disk;
use nexus_tests::run::{sidecar, unpack};
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Options, Rng, Run, SOON, Segment, Waiting, Watchdog, eventually, number};
use serde_json::json;

const TIMEOUT_MS: u64 = 150;

struct Case {
    about: &'static str,
    source: &'static str,
    code: ErrorCode,
    at: (u32, u32),
    /// Places of all frames, the innermost first.
    frames: &'static [(u32, u32)],
}

const fn case(
    about: &'static str,
    source: &'static str,
    code: ErrorCode,
    at: (u32, u32),
    frames: &'static [(u32, u32)],
) -> Case {
    Case { about, source, code, at, frames }
}

use ErrorCode::{CompilationError, ExecutionError, MemoryLimit, PermissionDenied, ResourceLimit, Timeout};

const CASES: &[Case] = &[
    case("throw", "const a‹: number› = 1;\n  throw new Error('x')", ExecutionError, (2, 13), &[(2, 13)]),
    case("throw of text", "new Error('unused');\nlet n‹: any› = 2;\n throw 'text'", ExecutionError, (3, 8), &[(3, 8)]),
    case("throw of an object", "const x = 1;\nthrow {\n  status: Math.max(404),\n}", ExecutionError, (2, 7), &[(2, 7)]),
    case("throw of null on line 1", "throw null", ExecutionError, (1, 7), &[(1, 7)]),
    case("throw in a finally", "try { throw 'a' } catch {}\nawait 0;\n  throw 'b'", ExecutionError, (3, 9), &[(3, 9)]),
    case(
        "error with a cause",
        "throw new Error('x', {\n  cause: new TypeError('y'),\n})",
        ExecutionError,
        (1, 11),
        &[(1, 11)],
    ),
    case(
        "call over several lines",
        "const o = { f(a‹: number›, b‹: number›) { return a.b.c } };\nconst p = 1, q = 2;\no\n  .f(\n    p,\n    q,\n  )",
        ExecutionError,
        (1, 50),
        &[(1, 50), (4, 4)],
    ),
    case("member over several lines", "const o = {};\nreturn o\n  .a\n  .b", ExecutionError, (4, 4), &[(4, 4)]),
    case(
        "nested functions",
        "function f() { return g() }\nconst g = () => { throw new RangeError('deep') };\n\nf()",
        ExecutionError,
        (2, 29),
        &[(2, 29), (1, 23), (4, 1)],
    ),
    case("through a built-in", "[1].map((n‹: number›) => {\n  null.x;\n})", ExecutionError, (2, 8), &[(2, 8), (1, 5)]),
    case("undefined name", "let a = 1;\n  nothing + a", ExecutionError, (2, 3), &[(2, 3)]),
    case("after an await", "await null;\nawait 0;\nthrow new Error('late')", ExecutionError, (3, 11), &[(3, 11)]),
    case(
        "in an async function",
        "async function f() {\n  await 0;\n  throw new Error('inner')\n}\nawait f()",
        ExecutionError,
        (3, 13),
        &[(3, 13)],
    ),
    case("rejection", "await Promise.reject(new Error('no'))", ExecutionError, (1, 26), &[(1, 26)]),
    case("after a resume", "const r = await $ext.a.b();\n\nthrow new Error(r)", ExecutionError, (3, 11), &[(3, 11)]),
    case("text after a resume", "await $ext.a.b();\n\nthrow 'text'", ExecutionError, (3, 7), &[(3, 7)]),
    case("after two resumes", "await $ext.a.b();\nawait $ext.a.b();\nnull.x", ExecutionError, (3, 6), &[(3, 6)]),
    case("for of", "for (const x of [1, 2])\n  x.y.z", ExecutionError, (2, 7), &[(2, 7)]),
    case(
        "throw of a number through a finally",
        "const f = () => {\n  throw 5\n};\ntry { f() } finally { Math.max(1) }",
        ExecutionError,
        (2, 9),
        &[(2, 9), (4, 7)],
    ),
    case(
        "throw of a number through a finally that catches another",
        "try {\n  throw 5\n} finally { try { throw 6 } catch {} }",
        ExecutionError,
        (2, 9),
        &[(2, 9)],
    ),
    case(
        "throw of the same number again",
        "try { throw 5 } catch (e) {\n  throw e\n}",
        ExecutionError,
        (2, 9),
        &[(2, 9)],
    ),
    case(
        "throw of an object by an async generator, through a finally",
        "async function* g() {\n  yield 1\n  throw { status: 5 }\n}\ntry {\n  for await (const v of g()) { Math.max(v) }\n} finally { await 1 }",
        ExecutionError,
        (3, 9),
        &[(3, 9), (6, 3)],
    ),
    case("a class of what is no class", "const a = 1;\nclass A extends (a) {}", ExecutionError, (2, 17), &[(2, 17)]),
    case(
        "a class of what is no class, as an expression",
        "const a = 1;\nreturn [\n  class extends a.b {},\n]",
        ExecutionError,
        (3, 17),
        &[(3, 17)],
    ),
    case("iterating null", "const a = null;\nfor (const x of a)\n  Math.max(1)", ExecutionError, (2, 17), &[(2, 17)]),
    case("beyond the BMP", "const s = '😀😀'; throw new Error('x')", ExecutionError, (1, 29), &[(1, 29)]),
    case(
        "in a class",
        "class C‹<T>› {\n  m() { this.x.y }\n}\nnew C().m()",
        ExecutionError,
        (2, 16),
        &[(2, 16), (4, 9)],
    ),
    case(
        "a getter",
        "const o = { get p() { throw new Error('g') } };\nreturn o.p",
        ExecutionError,
        (1, 33),
        &[(1, 33), (2, 10)],
    ),
    case("no capability", "const a = 1;\n  $emit('x', a)", PermissionDenied, (2, 3), &[(2, 3)]),
    case("no right to write", "\n$state.k = 1", PermissionDenied, (2, 8), &[(2, 8)]),
    case("limit of events", "let n = 0;\nfor (;;)\n  $emit.toast('x')", ResourceLimit, (3, 9), &[(3, 9)]),
    case(
        "memory",
        "const a‹: any› = [];\nfor (;;)\n  a.push('x'.repeat(1000) + a.length)",
        MemoryLimit,
        (3, 14),
        &[(3, 14)],
    ),
    case("for", "let a = 1;\nfor (;;) a++", Timeout, (2, 1), &[(2, 1)]),
    case("empty for", "\n  for (;;);", Timeout, (2, 3), &[(2, 3)]),
    case("while", "let a = 1;\n\nwhile (true) a = 2", Timeout, (3, 1), &[(3, 1)]),
    case("while on a name", "let a = 1;\n\nwhile (a) a = 2", Timeout, (3, 1), &[(3, 1)]),
    case("do while", "let a = [1].length;\n\ndo {\n  a = 1;\n} while (true)", Timeout, (3, 1), &[(3, 1)]),
    case("do while on a name", "let a = [1].length;\n\ndo a = 1; while (a)", Timeout, (3, 1), &[(3, 1)]),
    case("label", "let a = 1;\n outer: for (;;) { for (;;) continue outer }", Timeout, (2, 9), &[(2, 9)]),
    case(
        "for of without end",
        "function* g() { for (;;) yield 1 }\nfor (const x of g());",
        Timeout,
        (1, 17),
        &[(1, 17)],
    ),
    case("loop in a function", "const f = () => {\n  for (;;);\n};\nf()", Timeout, (2, 3), &[(2, 3), (4, 1)]),
    case("loop after an await", "await 0;\n\nfor (;;);", Timeout, (3, 1), &[(3, 1)]),
    case("regular expression", "const s = 'a'.repeat(60);\n  /(a+)+b/.test(s)", Timeout, (2, 12), &[(2, 12)]),
    case("syntax", "let a‹: number› = 1;\n  let a = 2", CompilationError, (2, 7), &[]),
    case("a regular expression", "const a‹: number› = 1;\n  const r = /a(/g", CompilationError, (2, 13), &[(2, 13)]),
    case("import", "const a‹: number› = 1;\n await import('x')", ExecutionError, (2, 2), &[(2, 2)]),
    case(
        "lines that end with neither LF nor CRLF",
        "'\u{2028}';\r `\r`;\u{2028}null.x;\n\rnull.y",
        ExecutionError,
        (1, 17),
        &[(1, 17)],
    ),
    case(
        "an error upon an error",
        "{\n  using a = { [Symbol.dispose]() { throw new Error('one') } };\n  throw new Error('two')\n}",
        ExecutionError,
        (3, 9),
        &[(3, 9)],
    ),
    case("the end of the text", "if (1) {\r\n", CompilationError, (2, 1), &[]),
    case("syntax of an expression", "const a = 1;\nconst b = (a + ;", CompilationError, (2, 16), &[]),
];

impl Case {
    fn text(&self, typed: bool) -> String {
        let mut text = String::new();
        let mut inside = false;
        for c in self.source.chars() {
            match c {
                '‹' => inside = true,
                '›' => inside = false,
                c => text.push(if inside && !typed { ' ' } else { c }),
            }
        }
        text
    }

    /// Whether TypeScript says something else than JavaScript.
    fn is_typed(&self) -> bool {
        self.source.contains('‹')
    }

    fn check(&self, error: &WireError, way: &str) {
        let about = format!("{} ({way}): {error:?}", self.about);
        assert_eq!(error.code, self.code, "{about}");
        let at = error.location.as_ref().map(|at| (at.line, at.column));
        // a loop is stopped anywhere in it
        let stopped = self.code == Timeout;
        assert!(at == Some(self.at) || stopped && at >= Some(self.at), "expected {:?}: {about}", self.at);
        let snippet = error.snippet.as_ref().unwrap_or_else(|| panic!("no snippet: {about}"));
        let line = snippet.code.lines().nth(snippet.highlight_line as usize - 1).unwrap_or_default();
        let source = self.text(way.starts_with("TypeScript"));
        let meant = at.map_or("", |at| source.lines().nth(at.0 as usize - 1).unwrap_or_default());
        assert_eq!(line, meant, "{about}");
        let stack = error.stack.as_deref().unwrap_or_default();
        let frames: Vec<_> = stack.lines().map(|frame| place(frame).unwrap_or_else(|| panic!("{about}"))).collect();
        let from = usize::from(stopped);
        assert_eq!(frames.get(from..), self.frames.get(from..), "expected {:?}: {about}", self.frames);
    }
}

/// `at f (handler.js:1:2)`
fn place(frame: &str) -> Option<(u32, u32)> {
    let mut numbers = frame.trim_end_matches(')').rsplit(':');
    let column = numbers.next()?.parse().ok()?;
    Some((numbers.next()?.parse().ok()?, column))
}

fn options(cache: &TempDir) -> Options {
    Options::new().debug().flag("cache-dir", cache.join("cache").display())
}

/// Runs to the end; every call is answered.
fn finish(client: &mut Client, case: &Case, run: &Run) -> Segment {
    let timeout = if case.code == Timeout { TIMEOUT_MS } else { 0 };
    let mut segment = client.run(run.clone().grant(&["ext:a.b", "events:emit:toast"]).timeout_ms(timeout));
    let mut waiting = Waiting::default();
    while segment.status == Status::Suspended {
        segment = client.resume(&waiting.next(&segment).id, &json!(1));
    }
    segment
}

/// A guest that gets no processor for a while after its deadline is killed, and cannot say where it stood: then again.
fn fail(client: &mut Client, case: &Case, run: &Run) -> Segment {
    for _ in 0..20 {
        let segment = finish(client, case, run);
        if segment.code() != Timeout || segment.error().location.is_some() {
            return segment;
        }
    }
    panic!("{}: never placed", case.about)
}

#[test]
fn every_error_has_its_place_however_the_handler_comes_to_run() {
    let _w = Watchdog::seconds(240);
    let cache = TempDir::new();
    for restarted in [false, true] {
        let (_sidecar, mut client) = options(&cache).child();
        for case in CASES {
            for typed in [false, true] {
                if typed && !case.is_typed() {
                    continue;
                }
                let source = case.text(typed);
                let language = if typed { "TypeScript" } else { "JavaScript" };
                for way in ["first", "again"] {
                    let written = handlers_on_disk(&cache.join("cache"));
                    let segment = fail(&mut client, case, &Run::source(&*source));
                    if !restarted && way == "first" && case.code != CompilationError {
                        // the next sidecar is to find it
                        eventually("it is written", SOON, || handlers_on_disk(&cache.join("cache")) > written);
                    }
                    let kept = if restarted { "restarted" } else { "fresh" };
                    let way = format!("{language}, {kept}, {way}");
                    case.check(segment.error(), &way);
                    if case.code != CompilationError {
                        assert!(segment.cache_hit || !restarted && way.ends_with("first"), "{}: {way}", case.about);
                    }
                }
                if case.code != CompilationError {
                    let handle = client.precompile(&source).unwrap();
                    let segment = fail(&mut client, case, &Run::handle(&handle));
                    case.check(segment.error(), &format!("{language}, by handle"));
                }
            }
        }
        client.still_works();
    }
}

#[test]
fn cause_and_own_fields_survive_the_way_out() {
    let (_w, _s, mut client) = sidecar();
    let source = "class HttpError extends Error {
            constructor(message, status, options) { super(message, options); this.name = 'HttpError'; this.status = status }
        }
        const root = Object.assign(new TypeError('root'), { code: 'E_ROOT' });
        throw new HttpError('top', 503, { cause: new Error('middle', { cause: root }) })";
    let segment = client.run(source);
    let error = segment.error();
    assert_eq!((error.name.as_deref(), &*error.message), (Some("HttpError"), "top"));
    assert_eq!(fields(error.properties.as_deref()), json!({"status": 503}));
    let middle = error.cause.as_deref().unwrap();
    assert_eq!((&*middle.message, middle.name.as_deref(), &middle.properties), ("middle", Some("Error"), &None));
    let root = middle.cause.as_deref().unwrap();
    assert_eq!(
        (&*root.message, root.name.as_deref(), root.code.as_deref()),
        ("root", Some("TypeError"), Some("E_ROOT"))
    );
    assert_eq!(fields(root.properties.as_deref()), json!({"code": "E_ROOT"}));
    assert_eq!(root.cause, None);
}

#[test]
fn a_cause_may_be_any_value() {
    let (_w, _s, mut client) = sidecar();
    for (text, value) in
        [("42", json!(42)), ("null", json!(null)), ("'t'", json!("t")), ("{ id: [7] }", json!({"id": [7]}))]
    {
        let segment = client.run(&*format!("throw new Error('x', {{ cause: {text} }})"));
        let cause = segment.error().cause.as_deref().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(fields(cause.value.as_deref()), value, "{text}");
    }
    assert_eq!(client.run("throw new Error('x')").error().cause, None);
    let symbol = client.run("throw new Error('x', { cause: Symbol('s') })");
    let cause = symbol.error().cause.as_deref().unwrap();
    assert_eq!((&*cause.message, &cause.value), ("a symbol was thrown", &None));
}

#[test]
fn a_thrown_object_keeps_its_fields() {
    let (_w, _s, mut client) = sidecar();
    let segment = client.run("throw { status: 404, list: [1], f() {}, message: 'gone' }");
    let error = segment.error();
    assert_eq!((&*error.message, fields(error.properties.as_deref())), ("gone", json!({"status": 404, "list": [1]})));
}

#[test]
fn an_aggregate_error_names_its_errors() {
    let (_w, _s, mut client) = sidecar();
    let segment = client.run("await Promise.any([Promise.reject(new TypeError('a')), Promise.reject(7)])");
    let error = segment.error();
    assert_eq!(error.name.as_deref(), Some("AggregateError"));
    assert_eq!(error.message, "2 errors; the first: a");
    let names: Vec<_> = error.errors.iter().map(|e| (e.name.as_deref(), &*e.message)).collect();
    assert_eq!(names, [(Some("TypeError"), "a"), (None, "7")]);
    let many =
        client.run("throw new AggregateError(Array.from({ length: 1e5 }, (_, i) => new Error(String(i))), 'many')");
    assert_eq!((&*many.error().message, many.error().errors.len()), ("many", 16));
}

#[test]
fn an_error_upon_an_error_names_both() {
    let (_w, _s, mut client) = sidecar();
    let source = "{ using a = { [Symbol.dispose]() { throw new TypeError('last') } }; throw 'first' }";
    let segment = client.run(source);
    let error = segment.error();
    assert_eq!((error.name.as_deref(), &*error.message), (Some("SuppressedError"), "2 errors; the first: last"));
    let names: Vec<_> = error.errors.iter().map(|e| (e.name.as_deref(), &*e.message)).collect();
    assert_eq!(names, [(Some("TypeError"), "last"), (None, "first")]);
}

// shows P-inner-errors-always
#[test]
fn causes_and_fields_are_shown_without_debug() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().child();
    let segment = client.run("throw Object.assign(new Error('x', { cause: new Error('y') }), { status: 1 })");
    let error = segment.error();
    assert_eq!((&error.stack, &error.snippet), (&None, &None));
    assert_eq!(error.cause.as_deref(), Some(&InnerError::new("y").with_name("Error")));
    assert_eq!(fields(error.properties.as_deref()), json!({"status": 1}));
}

// shows P-inner-errors
#[test]
fn hostile_errors_are_bounded_and_end_in_time() {
    let (_w, _s, mut client) = sidecar();
    let own = "const e = new Error('m'); const define = (o, k, get) => Object.defineProperty(o, k, { enumerable: true, get });";
    let cases = [
        ("define(e, 'p', () => { throw 1 }); e.q = 1; throw e", ExecutionError),
        ("define(e, 'p', () => { for (;;); }); throw e", Timeout),
        ("define(e, 'message', () => { for (;;); }); throw e", Timeout),
        ("define(e, 'cause', () => { for (;;); }); throw e", Timeout),
        ("define(e, 'p', () => { const a = []; for (;;) a.push(new Uint8Array(1e6)) }); throw e", MemoryLimit),
        ("for (let i = 0; i < 2e5; i++) e['k' + i] = i; throw e", ExecutionError),
        ("e.p = 'x'.repeat(1e7); e.q = 1; throw e", ExecutionError),
        ("e['x'.repeat(1e6)] = 1; throw e", ExecutionError),
        ("e.p = new Array(1e6).fill(1); throw e", ExecutionError),
        ("e.cause = e; throw e", ExecutionError),
        ("e.cause = new Error('b', { cause: e }); throw e", ExecutionError),
        ("e.p = e; e.q = [e]; throw e", ExecutionError),
        ("let c = e; for (let i = 0; i < 1e5; i++) c = new Error('c', { cause: c }); throw c", ExecutionError),
        ("e.errors = [e, e]; throw e", ExecutionError),
        ("e.errors = new Proxy([1], { get() { throw 1 } }); throw e", ExecutionError),
        ("throw new Proxy(e, { get() { throw 1 }, ownKeys() { throw 2 } })", ExecutionError),
        ("throw new Proxy(e, { ownKeys() { for (;;); } })", Timeout),
        ("throw new Proxy(e, { get(t, k) { return k === 'cause' ? new Proxy({}, this) : 'x' } })", ExecutionError),
        ("throw { get cause() { return { __proto__: this } } }", ExecutionError),
        ("const r = Proxy.revocable(e, {}); r.revoke(); throw r.proxy", ExecutionError),
        ("throw new Error('x'.repeat(1e7))", ExecutionError),
        ("throw new Error('\\ud800'.repeat(1e5))", ExecutionError),
        ("Error.prototype.cause = 1; Object.prototype.errors = [1]; throw {}", ExecutionError),
        ("Object.prototype.toString = () => { throw 1 }; throw {}", ExecutionError),
    ];
    for (source, code) in cases {
        let started = std::time::Instant::now();
        let timeout_ms = if code == Timeout { 2_000 } else { 0 };
        let segment = client.run(Run::source(format!("{own} {source}")).timeout_ms(timeout_ms));
        let error = segment.error();
        assert_eq!(error.code, code, "{source}: {error:?}");
        assert!(started.elapsed().as_secs() < 20, "{source}");
        assert!(error.properties.as_deref().is_none_or(|bytes| bytes.len() <= 16 << 10), "{source}");
        client.still_works();
    }
}

fn fields(payload: Option<&[u8]>) -> serde_json::Value {
    unpack(payload.unwrap_or_else(|| panic!("no payload")))
}

/// A fault, and where in it the place is; whether it awaits, and whether what it throws is an Error.
const FAULTS: [(&str, usize, bool, bool); 10] = [
    ("throw new Error('x')", 10, false, true),
    ("throw 5", 6, false, false),
    ("throw 'text'", 6, false, false),
    ("throw { status: 1 }", 6, false, false),
    ("null.x", 5, false, true),
    ("nothing", 0, false, true),
    ("const { a } = null", 6, false, true),
    ("class A extends 5 {}", 16, false, true),
    ("await Promise.reject(new Error('r'))", 25, true, true),
    ("await null; throw 7", 18, true, false),
];

/// What can stand around a fault and leave its place alone: in front and behind, whether it is for what awaits, or makes what does.
const AROUND: [(&str, &str, Awaits); 15] = [
    ("try {\n  ", "\n} finally { Math.max(1) }", Awaits::AsBefore),
    ("try {\n  ", "\n} finally { try { throw 1 } catch {} }", Awaits::AsBefore),
    ("for (const v of [1, 2]) {\n  ", "\n}", Awaits::AsBefore),
    ("for (const k in { a: 1 }) {\n  ", "\n}", Awaits::AsBefore),
    ("for await (const v of [1]) {\n  ", "\n}", Awaits::Always),
    ("{\n  ", "\n}", Awaits::AsBefore),
    ("switch (1) { case 1: {\n  ", "\n} }", Awaits::AsBefore),
    ("do {\n  ", "\n} while (false)", Awaits::AsBefore),
    ("await (async () => {\n  ", "\n})()", Awaits::Always),
    (";(() => {\n  ", "\n})()", Awaits::Never),
    (";[1].forEach(() => {\n  ", "\n})", Awaits::Never),
    ("{ function* g() { yield 1;\n  ", "\n}\nfor (const v of g()) { Math.max(v) } }", Awaits::Never),
    ("{ class C { static m() {\n  ", "\n} }\nC.m() }", Awaits::Never),
    ("{ async function* g() { yield 1;\n  ", "\n}\nfor await (const v of g()) { Math.max(v) } }", Awaits::Always),
    ("{ using x = { [Symbol.dispose]() { Math.max(1) } }\n  ", "\n}", Awaits::AsBefore),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    AsBefore,
    Never,
    Always,
}

#[test]
fn a_fault_has_its_place_whatever_stands_around_it() {
    let _w = Watchdog::seconds(240);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0xfa17), number("NEXUS_PROPERTY_CASES", 600));
    let (_sidecar, mut client) = Options::new().debug().child();
    for case in 0..cases {
        let rng = &mut Rng::new(seed ^ (case << 32));
        let (fault, at, mut awaits, is_error) = *rng.pick(&FAULTS);
        let (mut source, mut at) = (fault.to_owned(), at);
        for _ in 0..rng.below(5) {
            let (front, behind, does) = *rng.pick(&AROUND);
            if does == Awaits::Never && awaits {
                continue;
            }
            awaits |= does == Awaits::Always;
            at += front.len();
            source = format!("{front}{source}{behind}");
            // an Error has its place in itself, whoever throws it on
            if is_error && rng.below(4) == 0 {
                at += "try {\n".len();
                source = format!("try {{\n{source}\n}} catch (e) {{ throw e }}");
            }
        }
        let mode = if rng.below(2) == 0 { SuspendMode::Stack } else { SuspendMode::Await };
        let segment = client.run(Run::source(&*source).suspend_mode(mode));
        let place = segment.error().location.as_ref().map(|l| (l.line as usize, l.column as usize));
        let before = &source[..at];
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        assert_eq!(place, Some((line, column)), "seed {seed}, case {case}, {mode:?}: {:?}\n{source}", segment.error());
    }
}
