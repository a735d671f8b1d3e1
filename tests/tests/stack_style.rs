//! Stack style: extension calls that return their values without await.

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::run::{BUILTIN, calling, listening, suspended, suspension_error};
use nexus_tests::{Client, Options, SOON, Segment, eventually};
use serde_json::json;

/// Runs to the end; every call is answered with ten times its first argument.
#[track_caller]
fn run_times_ten(client: &mut Client, source: &str) -> (Segment, usize) {
    let mut segment = client.run(calling(source));
    let mut calls = 0;
    while segment.status == Status::Suspended {
        let call = segment.call().clone();
        segment = client.resume(&call.id, &json!(call.args[0].as_i64().unwrap_or_default() * 10));
        calls += 1;
    }
    (segment, calls)
}

#[test]
fn a_call_without_await_works_wherever_javascript_runs() {
    let (_w, _s, mut client) = listening(&Options::new().debug());
    let cases = [
        ("const x = $ext.a.b(1) + $ext.a.b(2); return x", json!(30), 2),
        ("let n = 0; for (let i = 0; i < 20; i++) n += $ext.a.b(i); return n", json!(1900), 20),
        ("return [1, 2, 3].map(i => $ext.a.b(i))", json!([10, 20, 30]), 3),
        ("return [3, 1, 2].sort((a, b) => $ext.a.b(a) - $ext.a.b(b))", json!([1, 2, 3]), 6),
        ("const o = {get x() { return $ext.a.b(4) }}; return o.x + o.x", json!(80), 2),
        ("return new Proxy({}, {get: (_, k) => $ext.a.b(k.length)}).abc", json!(30), 1),
        ("return JSON.parse('[1, 2]', (k, v) => typeof v === 'number' ? $ext.a.b(v) : v)", json!([10, 20]), 2),
        ("return `${{toString() { return 'n' + $ext.a.b(5) }}}`", json!("n50"), 1),
        ("function* g() { yield $ext.a.b(1); yield $ext.a.b(2) } return [...g()]", json!([10, 20]), 2),
        ("class A { constructor() { this.v = $ext.a.b(6) } } return new A().v", json!(60), 1),
        ("try { throw $ext.a.b(1) } catch (e) { return e + $ext.a.b(2) } finally { $ext.a.b(3) }", json!(30), 3),
        ("const f = n => n ? 1 + f(n - 1) : $ext.a.b(1); return f(200)", json!(210), 1),
        ("const v = $ext.a.b(1); return await Promise.resolve(v) + await $ext.a.b(2)", json!(30), 2),
        ("return [..._ => 1, 'abc'.replace(/./g, c => $ext.a.b(c.charCodeAt(0) - 96))]", json!(null), 0),
        ("return 'abc'.replace(/./g, c => $ext.a.b(c.charCodeAt(0) - 96))", json!("102030"), 3),
    ];
    for (source, expected, least) in cases {
        let (segment, calls) = run_times_ten(&mut client, source);
        if expected.is_null() {
            // spreading a function is the handler's own mistake
            assert_eq!(segment.code(), ErrorCode::ExecutionError, "{source}");
            continue;
        }
        assert_eq!(segment.status, Status::Success, "{source}: {:?}", segment.error);
        assert_eq!(segment.value(), expected, "{source}");
        assert!(calls >= least.min(1) && (least == 6 || calls == least), "{source}: {calls} calls");
    }
    client.still_works();
}

#[test]
fn a_failed_call_without_await_is_thrown_where_it_stands() {
    let (_w, _s, mut client) = listening(&Options::new().debug());
    let first = suspended(
        &mut client,
        "let r;\ntry { r = $ext.a.b(1); r.x() } catch (e) { return [e.message, e.extension, e.method] }",
    );
    assert_eq!(client.resume_failed(&first.call().id, "down", None, None).value(), json!(["down", "a", "b"]));
    let first = suspended(
        &mut client,
        "const deep = () => {\n  const r = $ext.a.b(1);\n  return r.x;\n};\nreturn [1].map(deep)",
    );
    let failed = client.resume_failed(&first.call().id, "down", None, None);
    assert_eq!(
        (failed.code(), failed.error().location.as_ref().unwrap().line),
        (ErrorCode::ExecutionError, 2),
        "{failed:?}"
    );
    client.still_works();
}

#[test]
fn a_suspended_stack_is_cancelled_and_expires_like_any_other() {
    let (_w, _s, mut client) = listening(&Options::new().flag("suspension-timeout-ms", 3_000).flag("max-instances", 1));
    let source = "const r = [1, 2].map(i => $ext.a.b(i)); return r";
    let cancelled = suspended(&mut client, source);
    let expiring = suspended(&mut client, source);
    assert!(client.cancel_suspension(&cancelled.call().id));
    eventually("the other expires", SOON, || client.stats().suspended_instances == 0);
    suspension_error(&client.resume(&expiring.call().id, &json!(1)));
    for _ in 0..50 {
        let (segment, _) = run_times_ten(&mut client, source);
        assert_eq!(segment.value(), json!([10, 20]));
        client.still_works();
    }
}

#[test]
fn a_loop_after_a_resumed_stack_is_stopped_at_the_deadline() {
    let (_w, _s, mut client) = listening(&Options::new());
    for then in ["for (;;) r + 1", &format!("{BUILTIN} + r")] {
        let source = format!("const r = $ext.a.b(1); {then}");
        let first = client.run(calling(&*source).timeout_ms(1_000));
        assert_eq!(client.resume(&first.call().id, &json!(1)).code(), ErrorCode::Timeout, "{source}");
        client.still_works();
    }
}

#[test]
fn a_getter_of_an_error_that_calls_an_extension_is_not_waited_for() {
    let (_w, _s, mut client) = listening(&Options::new().debug());
    let getter = "get() { return $ext.a.b(2).x }";
    let cases = [
        format!("const e = new Error('original'); Object.defineProperty(e, 'p', {{ enumerable: true, {getter} }});"),
        format!("const e = new Error('original'); Object.defineProperty(e, 'cause', {{ {getter} }});"),
        format!("const e = new Error('original'); Object.defineProperty(e, 'stack', {{ {getter} }});"),
        format!("const e = new Error('original'); Object.defineProperty(e, 'name', {{ {getter} }});"),
    ];
    for error in cases {
        // the first call makes it stack style, and shows that the style works there
        let source = format!("const r = $ext.a.b(1); if (r.none) return r;\n{error}\nthrow e");
        let first = suspended(&mut client, &source);
        assert_eq!(first.call().args, json!([1]), "{error}");
        let ended = client.resume(&first.call().id, &json!(5));
        assert_eq!((ended.status, ended.code()), (Status::Error, ErrorCode::ExecutionError), "{error}: {ended:?}");
        assert_eq!(ended.error().message, "original", "{error}");
        assert_eq!(client.stats().suspended_instances, 0, "{error}");
        client.still_works();
    }
}
