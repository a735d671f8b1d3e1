//! What a handler may do is what it was granted, token by token.

use nexus_protocol::ErrorCode;
use nexus_tests::Run;
use nexus_tests::run::{run, sidecar};
use serde_json::json;

// shows P-no-token
#[test]
fn what_needs_no_token_is_there_without_one() {
    let (_w, _s, mut client) = sidecar();
    let source = "$log.info('x'); console.log('y');
        return [$args, $scope.s, typeof $time.now(), $ext.exists('a'), $ext.methods('a'), $ext.list()]";
    let run = Run::source(source).args(&json!(1)).scope(&json!({"s": 2})).extension("a", &["b"]);
    let segment = client.run(run);
    assert_eq!(segment.value(), json!([1, 2, "number", true, ["b"], ["a"]]));
    assert_eq!(segment.logs.as_array().map(Vec::len), Some(2));
}

// shows P-denied
#[test]
fn what_is_not_granted_is_denied_and_named() {
    let (_w, _s, mut client) = sidecar();
    let cases = [
        ("return $state.a", "state:read:a"),
        ("$state.a = 1", "state:write:a"),
        ("delete $state.a", "state:write:a"),
        ("return 'a' in $state", "state:read:a"),
        ("return $state.keys()", "state:read:*"),
        ("$emit('saved', 1)", "events:emit:saved"),
        ("$view.focus('grid')", "view:update:grid"),
    ];
    for (source, token) in cases {
        let segment = run(&mut client, Run::source(source).state(&json!({"a": 1})).grant(&["state:read:other"]));
        assert_eq!(segment.code(), ErrorCode::PermissionDenied, "{source}");
        assert_eq!(segment.error().capability.as_deref(), Some(token), "{source}");
        assert!(segment.error().location.is_some(), "{source}");
        assert_eq!((&segment.mutations, &segment.events), (&json!([]), &json!([])), "{source}");
    }
    let extension = run(&mut client, "await $ext.http.get('u')");
    assert_eq!(extension.code(), ErrorCode::PermissionDenied);
    assert!(
        extension.error().capability.as_deref().is_some_and(|c| c.starts_with("ext:http")),
        "{:?}",
        extension.error()
    );
}

#[test]
fn a_denial_can_be_caught_at_its_line() {
    let (_w, _s, mut client) = sidecar();
    let source = "try { $state.secret; return 'read' } catch (e) { return [e instanceof Error, e.code, e.capability] }";
    let segment = run(&mut client, Run::source(source).state(&json!({"secret": 1})));
    assert_eq!(segment.value(), json!([true, "PERMISSION_DENIED", "state:read:secret"]));
}

#[test]
fn an_inner_write_needs_the_write_capability() {
    let (_w, _s, mut client) = sidecar();
    for source in [
        "$state.user.name = 'x'",
        "Object.getOwnPropertyDescriptor($state.user, 'in').value.name = 'x'",
        "Object.getOwnPropertyDescriptors($state.user).list.value.push(1)",
    ] {
        let state = json!({"user": {"in": {}, "list": []}});
        let segment = run(&mut client, Run::source(source).state(&state).grant(&["state:read:*"]));
        let token = segment.error().capability.as_deref();
        assert_eq!((segment.code(), token), (ErrorCode::PermissionDenied, Some("state:write:user")), "{source}");
        assert_eq!(segment.mutations, json!([]), "{source}");
    }
}

#[test]
fn names_with_colons_are_whole_names() {
    let (_w, _s, mut client) = sidecar();
    let granted = Run::source("$emit('system:error', 1)").grant(&["events:emit:system:error"]);
    assert_eq!(run(&mut client, granted).events[0]["name"], "system:error");
    let other = Run::source("$emit('system', 1)").grant(&["events:emit:system:error"]);
    assert_eq!(run(&mut client, other).code(), ErrorCode::PermissionDenied);
}

#[test]
fn an_unknown_token_is_refused_by_name() {
    let (_w, _s, mut client) = sidecar();
    for token in ["fs:read:*", "state:", "state:read:", "ext:", "events:emit", "crypto:all", ""] {
        let segment = run(&mut client, Run::source("return 1").grant(&["state:read:a", token]));
        assert_eq!(segment.code(), ErrorCode::InvalidArgument, "{token}");
        assert!(segment.error().message.contains(token), "{}", segment.error().message);
    }
}

#[test]
fn strict_refuses_before_anything_runs() {
    let (_w, _s, mut client) = sidecar();
    let source = "$log('ran');\n$state.a = 1;";
    let lenient = run(&mut client, source);
    assert_eq!(lenient.logs.as_array().unwrap().len(), 1);
    let strict = run(&mut client, Run::source(source).strict());
    assert_eq!((strict.code(), &strict.logs), (ErrorCode::PermissionDenied, &json!([])));
    assert_eq!(strict.error().capability.as_deref(), Some("state:write:a"));
    assert_eq!(strict.error().location.as_ref().unwrap().line, 2);
    assert_eq!(
        run(&mut client, Run::source(source).strict().grant(&["state:write:*"])).mutations.as_array().unwrap().len(),
        1
    );
}

#[test]
fn check_infers_the_capabilities_that_a_handler_needs() {
    let (_w, _s, mut client) = sidecar();
    let source =
        "const k = $args; $state.n = $state.m; $emit('done', $state[k]); $view.focus('grid'); await $ext.http.get('u')";
    let mut found = client.check(source).unwrap().capabilities;
    found.sort();
    for needed in ["state:write:n", "events:emit:done", "view:update:grid", "state:read:*"] {
        assert!(found.iter().any(|f| f == needed), "{needed} is not among {found:?}");
    }
    assert!(found.iter().any(|f| f.starts_with("ext:http")), "{found:?}");
    client.still_works();
}
