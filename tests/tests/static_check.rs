//! What is known of a handler before it runs: the strict refusal, TypeScript that cannot be blanked, and the operator's log.

use nexus_protocol::ErrorCode;
use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::run::{ALL, listening};
use nexus_tests::{Options, Run, SOON, eventually};
use serde_json::json;

#[test]
fn strict_refuses_a_certain_need_at_its_place() {
    let (_w, _s, mut client) = listening(&Options::new());
    for (source, token, at) in [
        ("const a = 1;\n  return $state.k", "state:read:k", (2, 10)),
        ("let n: number = 1;\n$state.k = n;", "state:write:k", (2, 1)),
        ("delete $state.k", "state:write:k", (1, 8)),
        ("return 'k' in $state", "state:read:k", (1, 15)),
        ("$state.update('k', k => k)", "state:write:k", (1, 1)),
        ("return $state.keys()", "state:read:*", (1, 8)),
        ("const { k } = $state;", "state:read:k", (1, 15)),
        ("$emit('saved', 1)", "events:emit:saved", (1, 1)),
        ("$view.focus('grid')", "view:update:grid", (1, 1)),
        ("\n\nreturn await $ext.http.get('u')", "ext:http.get", (3, 14)),
    ] {
        let refused = client.run(Run::source(format!("$log('ran');{source}")).strict());
        let shift = if at.0 == 1 { 12 } else { 0 };
        let error = refused.error();
        assert_eq!(
            (error.code, error.capability.as_deref(), &refused.logs),
            (ErrorCode::PermissionDenied, Some(token), &json!([])),
            "{source}"
        );
        let location = error.location.as_ref().map(|at| (at.line, at.column));
        assert_eq!(location, Some((at.0, at.1 + shift)), "{source}");
    }
}

#[test]
fn strict_leaves_what_is_uncertain_to_the_run() {
    let (_w, _s, mut client) = listening(&Options::new());
    for source in [
        "if ($args) return $state[$args]",
        "if ($args) $emit($args)",
        "if ($args) $view.focus($args)",
        "if ($args) return await $ext[$args].get()",
        "const $state = { k: 1 }; return $state.k - 1 || undefined",
        "function f($emit: any) { $emit('x') } f(() => 1)",
        "if ($args) { const s = $state; return s.k }",
        "if (false) $state.k = 1",
        "try { null.x; $emit('x') } catch { return 1 }",
        "try { f() } catch { $emit('failed') } function f() {}",
        "return 1; $emit('x')",
        "function never() { $emit('x') }",
        "with ({ $state: { k: 1 } }) { if ($state.k !== 1) throw 1 }",
        "class A { static { var $state = { k: 1 }; $state.k } }",
        "return $state.toString()",
        "$ext.a.b().catch(() => 1)",
        "await Promise.allSettled([$ext.a.b()])",
    ] {
        let ran = client.run(Run::source(source).strict());
        assert!(ran.error.is_none(), "{source}: {:?}", ran.error);
    }
    let denied = client.run(Run::source("return $state[$args]").args(&json!("k")).strict());
    assert_eq!(
        (denied.code(), denied.error().capability.as_deref()),
        (ErrorCode::PermissionDenied, Some("state:read:k"))
    );
}

#[test]
fn strict_lets_a_handler_read_what_it_has_written() {
    let (_w, _s, mut client) = listening(&Options::new());
    for source in [
        "$state.q = 1; return $state.q",
        "$state.q = 1; $state.q++",
        "$state.q = { a: 1 }; $state.q.c = 3",
        "$state.set('q', 1); return $state.get('q')",
        "delete $state.q; return $state.q",
    ] {
        let run = || Run::source(source).grant(&["state:write:q"]);
        assert!(client.run(run()).error.is_none(), "{source}");
        let strict = client.run(run().strict());
        assert!(strict.error.is_none(), "{source}: {:?}", strict.error);
    }
}

#[test]
fn typescript_that_does_not_parse_or_needs_generated_code_fails_where_it_stands() {
    let (_w, _s, mut client) = listening(&Options::new());
    for (source, word, at) in [
        ("let y: number = 1;\nlet x: Map<string = 1", "", (2, 19)),
        ("const a = 1;\ninterface A { b: }", "", (2, 18)),
        ("const f = (a: ) => a", "", (1, 15)),
        ("let a = 1;\n  enum A { B }", "enum", (2, 3)),
        ("const enum A { B }", "enum", (1, 1)),
        ("namespace A { export const b = 1 }", "namespace", (1, 1)),
        ("class A {\n  constructor(private x: number) {}\n}", "parameter property", (2, 15)),
        ("@a class A {}", "decorator", (1, 1)),
    ] {
        let handle = client.precompile(source).unwrap_err();
        for error in [client.run(source).error().clone(), client.check(source).unwrap_err(), handle] {
            assert_eq!(error.code, ErrorCode::CompilationError, "{source}");
            assert!(error.message.contains(word), "{source}: {}", error.message);
            assert_eq!(error.location.as_ref().map(|at| (at.line, at.column)), Some(at), "{source}: {error:?}");
        }
    }
}

#[test]
fn violations_are_logged_and_every_one_is_counted() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    let source = "for (let i = 0; i < 100; i++) try { $state['k' + i] = 1 } catch {}";
    assert!(client.run(source).error.is_none());
    assert_eq!(client.run(Run::source("$emit('x')").strict()).code(), ErrorCode::PermissionDenied);
    let logged = |token: &str| sidecar.stderr().contains(&format!("the capability {token},"));
    eventually("the log", SOON, || logged("state:write:k0") && logged("events:emit:x"));
    assert!(sidecar.stderr().matches("the capability").count() < 100, "a handler does not fill the log");
    let metrics = client.metrics();
    assert!(metrics.lines().any(|line| line == "nexus_capability_violations_total 101"), "{metrics}");
}

// shows P-style
#[test]
fn check_says_which_style_and_why_and_what_is_certain() {
    let (_w, _s, mut client) = listening(&Options::new());
    let found = client.check("if ($args) $state.n = 1;\nreturn (await $ext.a.b()).c + $state.m").unwrap();
    assert_eq!((found.mode, &*found.reason), (SuspendMode::Await, "`await` at 2:9"));
    assert_eq!(found.capabilities, ["ext:a.b", "state:read:m", "state:write:n"]);
    assert_eq!(found.certain, ["ext:a.b", "state:read:m"]);
    assert_eq!((found.warnings, found.unparsed), (vec![], None));
    let found = client.check("return $ext.a.b().c").unwrap();
    let reason = "calls extensions, and nothing in it mentions promises";
    assert_eq!((found.mode, &*found.reason), (SuspendMode::Stack, reason));
    let found = client.check("return 1").unwrap();
    assert_eq!((found.mode, &*found.reason), (SuspendMode::Await, "calls no extension"));
}

#[test]
fn a_text_that_cannot_be_analyzed_may_need_anything() {
    let (_w, _s, mut client) = listening(&Options::new());
    let source = "<!-- it's\nreturn $state.a";
    let found = client.check(source).unwrap();
    assert!(found.unparsed.is_some_and(|(message, line, _)| !message.is_empty() && line == 1));
    let mut all = ALL.to_vec();
    all.sort_unstable();
    assert_eq!((found.capabilities, found.certain), (all.iter().map(|t| (*t).to_owned()).collect(), vec![]));
    assert_eq!(client.run(Run::source(source).grant(&ALL).state(&json!({"a": 1}))).value(), json!(1));
    // nothing is certain, so nothing is refused before it runs
    assert_eq!(client.run(Run::source("<!-- it's\nreturn 1").strict()).value(), json!(1));
}

// shows P-warnings
#[test]
fn a_promise_that_is_used_as_a_value_is_told_with_the_result_and_with_the_error_that_follows() {
    let (_w, _s, mut client) = listening(&Options::new());
    let told = "`$ext.a.b()` at 2:8 is a promise here, since the handler mentions `async` at 1:1; await it";
    let source = |rest: &str| format!("async function f() {{}}\nreturn $ext.a.b({{}}){rest}");
    for (rest, fails) in [(".c.d", true), (".map(x => x)", true), (".c?.d", false), (" + 1", false)] {
        let source = source(rest);
        let handle = client.precompile(&source).unwrap();
        // told again from the cache, for text and handle
        for run in [Run::source(&source), Run::source(&source), Run::handle(&handle)] {
            let mut segment = client.run(run.grant(&["ext:a"]));
            assert_eq!(segment.warnings, [(told.to_owned(), 2, 8)], "{source}");
            while segment.status == Status::Suspended {
                segment = client.resume(&segment.call().id.clone(), &json!(1));
                assert_eq!(segment.warnings, [], "{source}: once");
            }
            assert_eq!(segment.error.is_some(), fails, "{source}: {:?}", segment.error);
            if let Some(error) = segment.error {
                assert!(error.message.ends_with(&format!("; {told}")), "{source}: {}", error.message);
            }
        }
        assert_eq!(client.check(&source).unwrap().warnings, [(told.to_owned(), 2, 8)]);
    }
    // an error elsewhere is not its doing
    let elsewhere = "async function f() {}\nconst n = $ext.a.b() + 1; null.x";
    let segment = client.run(Run::source(elsewhere).grant(&["ext:a"]));
    assert_eq!(segment.warnings.len(), 1);
    assert!(!segment.error().message.contains("promise"), "{:?}", segment.error);
    // in the other style the value is there
    let stack = client.run(Run::source(source(".c")).grant(&["ext:a"]).suspend_mode(SuspendMode::Stack));
    assert_eq!((stack.status, &*stack.warnings), (Status::Suspended, &[][..]));
    // and where promises are asked for, it is said so
    let forced = client.run(Run::source("return $ext.a.b().c.d").grant(&["ext:a"]).suspend_mode(SuspendMode::Await));
    let asked = "`$ext.a.b()` at 1:8 is a promise here, since `suspendMode` is \"await\"; await it";
    assert!(forced.error().message.ends_with(asked), "{:?}", forced.error);
}
