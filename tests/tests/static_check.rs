//! What is known of a handler before it runs: the strict refusal, TypeScript that cannot be blanked, and the operator's log.

use nexus_protocol::ErrorCode;
use nexus_tests::run::listening;
use nexus_tests::{Options, Run, SOON, eventually};
use serde_json::json;

#[test]
fn strict_refuses_a_certain_need_at_its_place() {
    let (_w, _s, mut client) = listening(&Options::new());
    for (source, token, at) in [
        ("const a = 1;\n  return $state.k", "state:read:k", (2, 10)),
        ("let n: number = 1;\nif (n > 1) $state.k = n;", "state:write:k", (2, 12)),
        ("delete $state.k", "state:write:k", (1, 8)),
        ("return 'k' in $state", "state:read:k", (1, 15)),
        ("$state.update('k', k => k)", "state:read:k", (1, 1)),
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
