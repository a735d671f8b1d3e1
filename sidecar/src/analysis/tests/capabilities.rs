//! What a handler is seen to need. `?` behind a token: uncertain.

use super::understood;

fn tokens(source: &str) -> String {
    let found = understood(source).capabilities;
    let tokens: Vec<String> =
        found.iter().map(|c| format!("{}{}", c.token, if c.certain { "" } else { "?" })).collect();
    tokens.join(" ")
}

fn check(table: &[(&str, &str)]) {
    for (source, expected) in table {
        assert_eq!(tokens(source), *expected, "{source}");
    }
}

#[test]
fn keys_of_the_state() {
    check(&[
        ("", ""),
        ("return $state.a", "state:read:a"),
        ("return $state.a.b.c", "state:read:a"),
        ("return $state['a b']", "state:read:a b"),
        ("return $state[0]", "state:read:0"),
        ("return $state[`a`]", "state:read:a"),
        ("return $state?.a?.b", "state:read:a"),
        ("return ($state).a", "state:read:a"),
        ("return ($state as any).a + $state!.b", "state:read:a state:read:b"),
        ("return globalThis.$state.a", "state:read:a"),
        ("return this.$state.a", "state:read:*? state:write:*?"),
        ("const { $state: s } = globalThis; return s.a", "state:read:*? state:write:*?"),
        ("this.$emit('x')", "events:emit:*?"),
        ("return $state.a.length + $state.a.map(x => x)", "state:read:a"),
        ("$state.a", "state:read:a"),
        ("return $state['a:b']", "state:read:a:b"),
    ]);
}

#[test]
fn writes_to_the_state() {
    check(&[
        ("$state.a = 1", "state:write:a"),
        ("$state['a'] = 1", "state:write:a"),
        ("$state.a += 1", "state:read:a state:write:a"),
        ("$state.a ??= 1", "state:read:a state:write:a"),
        ("$state.a++", "state:read:a state:write:a"),
        ("--$state.a", "state:read:a state:write:a"),
        ("delete $state.a", "state:write:a"),
        ("delete $state.a.b", "state:read:a state:write:a"),
        ("$state.user.name = 'x'", "state:read:user state:write:user"),
        ("$state.user.address.city = $state.b", "state:read:b state:read:user state:write:user"),
        ("[$state.a, $state.b] = [1, 2]", "state:write:a state:write:b"),
        ("({x: $state.a, ...$state.b} = $args)", "state:write:a state:write:b"),
        ("({x: $state.a = 1} = $args)", "state:write:a"),
        ("for ($state.a of [1]) ;", "state:write:a"),
        ("for ($state.i = 0; $state.i < 3; $state.i++) ;", "state:read:i state:write:i"),
        ("($state as any).a = 1", "state:write:a"),
        ("$state.a!.b = 1", "state:read:a state:write:a"),
        ("if ($args) $state.a = 1", "state:write:a"),
        ("$state.get = 1", ""),
        ("$state.items.push(1)", "state:read:items state:write:items"),
        ("$state.items.push(...$args)", "state:read:items state:write:items?"),
        ("$state.items.sort()", "state:read:items state:write:items?"),
        ("$state.a.items.pop()", "state:read:a state:write:a?"),
        ("Object.assign($state.user, $args)", "state:read:user state:write:user?"),
        ("Object.assign($state, {a: 1, b: $state.c})", "state:read:c state:write:a state:write:b"),
        ("Object.assign($state, $args)", "state:write:*?"),
        ("Reflect.set($state, 'a', 1)", "state:write:a"),
    ]);
}

#[test]
fn methods_of_the_state() {
    check(&[
        ("return $state.get('a')", "state:read:a"),
        ("return $state.get<User>('a')", "state:read:a"),
        ("return $state.has('a')", "state:read:a"),
        ("return 'a' in $state", "state:read:a"),
        ("return $args in $state", "state:read:*?"),
        ("return Object.hasOwn($state, 'a')", "state:read:a"),
        ("$state.set('a', $state.b)", "state:read:b state:write:a"),
        ("$state.delete('a')", "state:write:a"),
        ("$state.update('n', n => n + 1)", "state:read:n state:write:n"),
        ("$state.update('n', n => n + $state.m)", "state:read:m state:read:n state:write:n"),
        ("return $state.keys()", "state:read:*"),
        ("return Object.keys($state)", "state:read:*"),
        ("return Object.entries($state)", "state:read:*"),
        ("return JSON.stringify($state)", "state:read:*"),
        ("for (const k in $state) ;", "state:read:*"),
        ("return {...$state}", "state:read:*"),
        ("return {...$state.a}", "state:read:a"),
        ("return $state.get($args)", "state:read:*?"),
        ("$state.set($args, 1)", "state:write:*?"),
        ("$state.get('*')", "state:read:*?"),
        ("$state.get('')", "state:read:*?"),
        ("const g = $state.get", "state:read:*?"),
        ("['a'].forEach($state.delete)", "state:write:*?"),
    ]);
}

#[test]
fn what_cannot_be_named_is_uncertain() {
    check(&[
        ("return $state[$args]", "state:read:*?"),
        ("$state[$args] = 1", "state:write:*?"),
        ("$state[$args].b = 1", "state:read:*? state:write:*?"),
        ("return $state[$state.k]", "state:read:*? state:read:k"),
        ("const s = $state", "state:read:*? state:write:*?"),
        ("return f($state); function f(x) { return x }", "state:read:*? state:write:*?"),
        ("return { $state }", "state:read:*? state:write:*?"),
        ("return [$state]", "state:read:*? state:write:*?"),
        ("with ($state) { a = 1 }", "state:read:*? state:write:*?"),
        ("return $state", "state:read:*? state:write:*?"),
        ("if ($state && typeof $state === 'object' && !$state) ;", ""),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("const {a, b} = $state", "state:read:a state:read:b"),
        ("const {a: x, b: {c}} = $state", "state:read:a state:read:b"),
        ("const {a = $state.z} = $state", "state:read:a state:read:z"),
        ("const {a, ...rest} = $state", "state:read:* state:read:a"),
        ("const {[$args]: x} = $state", "state:read:*?"),
        ("const {a} = $state.user", "state:read:user"),
        ("const {a}: State = $state", "state:read:a"),
        ("let a; ({a} = $state)", "state:read:a"),
        ("function f({a} = $state) {}", "state:read:a"),
        ("const [x] = $state.list", "state:read:list"),
    ]);
}

#[test]
fn events_views_and_randomness() {
    check(&[
        ("$emit('saved', {a: $state.a})", "events:emit:saved state:read:a"),
        ("$emit('system:error')", "events:emit:system:error"),
        ("$emit(`saved`)", "events:emit:saved"),
        ("$emit($args)", "events:emit:*?"),
        ("$emit.toast('hi')", "events:emit:toast"),
        ("const {toast} = $emit; toast('x')", "events:emit:toast?"),
        ("[1].forEach($emit)", "events:emit:*?"),
        ("$emit.call(null, 'a')", "events:emit:*?"),
        ("if ($emit) ;", ""),
        ("$view.setFilter('grid', 1); $view.focus('b')", "view:update:b view:update:grid"),
        ("$view.scrollTo('c', 1); $view.command('d', 'x')", "view:update:c view:update:d"),
        ("$view.focus($args)", "view:update:*?"),
        ("$view[$args]('x')", "view:update:*?"),
        ("const v = $view", "view:update:*?"),
        ("crypto.getRandomValues(new Uint8Array(1))", "crypto:random"),
        ("const c = crypto", "crypto:random?"),
        ("$log('x'); console.log($time.now(), $args, $scope)", ""),
    ]);
}

#[test]
fn extensions() {
    check(&[
        ("await $ext.http.get('u')", "ext:http.get"),
        ("await $ext['http'].get('u')", "ext:http.get"),
        ("await $ext.http?.get?.('u')", "ext:http.get"),
        ("await $ext.http[$args]('u')", "ext:http?"),
        ("await $ext[$args].get('u')", "ext:*?"),
        ("await $ext[$args]('u')", "ext:*?"),
        ("if ($ext.exists('http')) return $ext.methods('http').concat($ext.list())", ""),
        ("if ($ext.http) ;", ""),
        ("const http = $ext.http; await http.get('u')", "ext:http.get"),
        ("const {http, db: {query}} = $ext; await http.get('u'); await query('q')", "ext:db.query ext:http.get"),
        ("const e = $ext; await e.a.b()", "ext:a.b"),
        ("let http = $ext.http; await http.get('u')", "ext:http?"),
        ("f($ext.http); function f(x) {}", "ext:http?"),
        ("const get = $ext.http.get; await get('u')", "ext:http.get"),
        ("await $ext['a.b'].c()", "ext:*?"),
        ("await $ext.http.get($state.url)", "ext:http.get state:read:url"),
    ]);
}

#[test]
fn local_names_hide_globals() {
    check(&[
        ("const $state = {}; $state.a = 1", ""),
        ("{ let $state = {}; $state.a = 1 } return $state.b", "state:read:b"),
        ("function f($state) { return $state.a } return f($state.b)", "state:read:b"),
        ("($emit => $emit('x'))(() => 1)", ""),
        ("try { f() } catch ($state) { return $state.a }", ""),
        ("for (const $view of []) $view.focus('x')", ""),
        ("if (1) { var $state = 1 } return $state.a", ""),
        ("switch (1) { case 1: let $state = 1; $state.a }", ""),
        ("class $ext {} return $ext.a.b()", ""),
        ("const {$state} = $args; return $state.a", ""),
        ("const f = function $state() { return $state.a }", ""),
        ("declare const $state: { a: number }; return $state.a", "state:read:a"),
        ("const Object = {keys: x => x}; return Object.keys($state.a)", "state:read:a"),
        ("return () => { { function $emit() {} } $emit('x') }", ""),
        ("type $state = number; return $state.a", "state:read:a"),
        ("let x: typeof $state.a; return 1", ""),
    ]);
}

#[test]
fn a_token_stands_at_its_first_certain_use() {
    let found = understood("const k = $args;\n  $state[k];\n return {...$state}, $state.b, $state.b").capabilities;
    let places: Vec<_> = found.iter().map(|c| (&*c.token, c.line, c.column, c.certain)).collect();
    assert_eq!(places, [("state:read:*", 3, 13, true), ("state:read:b", 3, 22, true)]);
}

#[test]
fn columns_count_utf16_units_and_lines_end_as_in_an_editor() {
    let found = understood("'\u{1f600}é'; $state.a\r\n$state.b\u{2028}$state.c\n$state.d").capabilities;
    let places: Vec<_> = found.iter().map(|c| (c.line, c.column)).collect();
    assert_eq!(places, [(1, 8), (2, 1), (2, 10), (3, 1)]);
}

#[test]
fn needs_without_number_are_told_by_their_wildcard() {
    let many: String = (0..20_000).map(|n| format!("$state.k{n};")).collect();
    let found = understood(&many).capabilities;
    assert!(found.len() <= nexus_protocol::limits::MAX_CAPABILITIES);
    assert_eq!((&*found[0].token, found[0].certain), ("state:read:*", false));
}
