//! Ways to a capability that are no plain path to it, and reads that a handler's own writes allow.

use super::understood;

/// The needs of a text, and which of them are certain.
fn needs(source: &str) -> (Vec<String>, Vec<String>) {
    let found = understood(source).capabilities;
    let certain = found.iter().filter(|need| need.certain).map(|need| need.token.clone()).collect();
    (found.into_iter().map(|need| need.token).collect(), certain)
}

fn assert_listed(source: &str, tokens: &[&str]) {
    let (listed, _) = needs(source);
    let missing: Vec<_> = tokens.iter().filter(|token| !listed.iter().any(|known| known == *token)).collect();
    assert!(missing.is_empty(), "{source} lists {listed:?}, not {missing:?}");
}

#[test]
fn the_global_object_is_a_property_of_itself() {
    for own in [
        ".globalThis",
        "['globalThis']",
        "[`globalThis`]",
        "?.globalThis",
        ".globalThis.globalThis.globalThis.globalThis",
    ] {
        for (then, token) in [
            (".$state.a.b.c.d", "state:read:a"),
            (".$emit('e')", "events:emit:e"),
            (".$view.focus('v')", "view:update:v"),
            (".crypto.getRandomValues(new Uint8Array(1))", "crypto:random"),
            (".$ext.a.b()", "ext:a.b"),
        ] {
            let source = format!("return globalThis{own}{then}");
            assert_eq!(needs(&source).0, [token], "{source}");
        }
        for source in [
            format!("return this{own}.$state.a"),
            format!("const g = globalThis{own}; return g.$state.a"),
            format!("const {{ $state: s }} = globalThis{own}; return s.a"),
            format!("return [globalThis{own}][0].$state.a"),
            format!("return globalThis{own}.valueOf().$state.a"),
        ] {
            assert_listed(&source, &["state:read:*"]);
        }
    }
    assert_listed("const { globalThis: g } = globalThis; return g.$emit('e')", &["events:emit:*"]);
    assert_listed("let g; ({ globalThis: g } = this); g.$view.focus('v')", &["view:update:*"]);
    assert_listed("return this.valueOf().crypto.randomUUID()", &["crypto:random"]);
}

#[test]
fn calls_that_give_the_state_itself_are_seen() {
    for source in [
        "return $state.valueOf().zz",
        "return $state?.valueOf?.().zz",
        "return Object.assign($state, { a: 3 })",
        "return Object.assign($state, { a: 1 }).zz",
        "const s = Object.assign($state, $args); return s.zz",
    ] {
        assert_listed(source, &["state:read:*"]);
    }
    assert_listed("Object.assign($state, {}).zz.y = 1", &["state:read:*", "state:write:*"]);
    assert_listed("$state.valueOf().zz = 1", &["state:write:*"]);
    assert_listed("return $state.__lookupGetter__?.('a')", &["state:read:a"]);
    assert_listed("return $state.__lookupSetter__('a')", &["state:read:a"]);
    // nobody looks at what it gives
    assert_eq!(needs("Object.assign($state, { a: 3 })").0, ["state:write:a"]);
}

#[test]
fn this_follows_the_function_that_it_belongs_to() {
    for body in [
        "return (() => { 'use strict'; return this.$state.a })()",
        "return (async () => { 'use strict'; return this.$state.a })()",
        "const f = () => { 'use strict'; return this }; return f().$state.a",
        "class K { [this.$state.a]() {} }",
        "class K { static [this.$state.a] = 1 }",
        "class K extends (this.$state.a, Object) {}",
    ] {
        assert_listed(&format!("return (function () {{ {body} }})()"), &["state:read:*"]);
    }
    assert_eq!(needs("return (function () { 'use strict'; return (() => this.$state)() })()").0, [""; 0]);
    // and may be any other object than the global one
    for body in [
        "this.k = 3",
        "this.list.push(3)",
        "this.push(3)",
        "const { k } = this; k.d = 1",
        "delete this.k",
        "this[$args]()",
    ] {
        let source = format!("$state.m.forEach(function () {{ {body} }}, $state.o)");
        assert_listed(&source, &["state:write:o"]);
    }
}

#[test]
fn what_an_error_holds_is_thrown_with_it() {
    for thrown in [
        "new AggregateError([$state.b])",
        "new Error(...['x', { cause: $state.b }])",
        "new Error('x', { cause: $state.b })",
        "new OwnError($state.b)",
    ] {
        let source = format!(
            "class OwnError {{ constructor(o) {{ this.o = o }} }} try {{ throw {thrown} }} catch (e) {{ e[$args][0].c = 4 }}"
        );
        assert_listed(&source, &["state:write:b"]);
    }
}

#[test]
fn a_name_is_built_in_when_it_is_one_and_not_when_it_sounds_like_one() {
    // what nothing declares may be there all the same: `this.OwnError = ...` makes it a name
    for source in [
        "this.OwnError = function () { $state.b = 1 }; new OwnError()",
        "globalThis['OwnArray'] = class { constructor() { $state.b = 1 } }; new OwnArray()",
        "Object.assign(globalThis, { MyError: o => { o.c = 1 } }); MyError($state.b)",
        "Object.assign(globalThis, { MyError: o => o }); const e = new MyError($state.b); e.c = 1",
    ] {
        let (_, certain) = needs(source);
        assert_listed(source, &["state:write:b"]);
        assert!(certain.is_empty() || !certain.iter().any(|t| t == "state:write:b"), "{source}: {certain:?}");
    }
}

#[test]
fn a_read_of_what_the_handler_may_have_written_is_not_certain() {
    for source in [
        "$state.q = 1; return $state.q",
        "$state.q = 1; $state.q++",
        "$state.q = { a: 1 }; $state.q.c = 3",
        "delete $state.q; return $state.q",
        "f(); return $state.q; function f() { $state.q = 1 }",
        "$state[$args] = 1; return $state.q",
        "$state.set('q', 1); return $state.get('q')",
    ] {
        let (listed, certain) = needs(source);
        assert!(listed.iter().any(|token| token == "state:read:q"), "{source}: {listed:?}");
        assert!(!certain.iter().any(|token| token == "state:read:q"), "{source}: {certain:?}");
    }
    assert_eq!(needs("$state.p = 1; return $state.q").1, ["state:read:q", "state:write:p"]);
    // of all keys together only some can be its own
    assert_eq!(needs("$state.p = 1; return Object.keys($state)").1, ["state:read:*", "state:write:p"]);
}

#[test]
fn an_optional_call_is_never_certain() {
    for source in [
        "await $ext.x.then?.(() => 1)",
        "await $ext.x?.f('u')",
        "await $ext.x.f?.()",
        "$emit?.('e')",
        "$view.focus?.('v')",
    ] {
        assert_eq!(needs(source).1, [""; 0], "{source}");
    }
}
