//! What a handler is seen to need. `?` behind a token: uncertain.

use super::understood;

fn tokens(source: &str) -> String {
    let found = understood(source).capabilities;
    let tokens: Vec<String> =
        found.iter().map(|c| format!("{}{}", c.token, if c.certain { "" } else { "?" })).collect();
    tokens.join(" ")
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter(|(source, expected)| tokens(source) != *expected)
        .map(|(source, expected)| format!("{source}\n  is {}\n not {expected}", tokens(source)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
        ("$state.a += 1", "state:read:a? state:write:a"),
        ("$state.a ??= 1", "state:read:a? state:write:a?"),
        ("$state.a++", "state:read:a? state:write:a"),
        ("--$state.a", "state:read:a? state:write:a"),
        ("delete $state.a", "state:write:a"),
        ("delete $state.a.b", "state:read:a? state:write:a"),
        ("$state.user.name = 'x'", "state:read:user? state:write:user"),
        ("$state.user.address.city = $state.b", "state:read:b? state:read:user? state:write:b? state:write:user"),
        ("[$state.a, $state.b] = [1, 2]", "state:write:a state:write:b"),
        ("({x: $state.a, ...$state.b} = $args)", "state:write:a state:write:b"),
        ("({x: $state.a = 1} = $args)", "state:write:a"),
        ("for ($state.a of [1]) ;", "state:write:a?"),
        ("for ($state.i = 0; $state.i < 3; $state.i++) ;", "state:read:i? state:write:i"),
        ("($state as any).a = 1", "state:write:a"),
        ("$state.a!.b = 1", "state:read:a? state:write:a"),
        ("if ($args) $state.a = 1", "state:write:a?"),
        ("$state.get = 1", "state:write:get?"),
        ("$state.items.push(1)", "state:read:items? state:write:items"),
        ("$state.items.push(...$args)", "state:read:items? state:write:items?"),
        ("$state.items.sort()", "state:read:items? state:write:items?"),
        ("$state.a.items.pop()", "state:read:a? state:write:a?"),
        ("Object.assign($state.user, $args)", "state:read:user? state:write:user?"),
        ("Object.assign($state, {a: 1, b: $state.c})", "state:read:c state:write:a state:write:b"),
        ("Object.assign($state, $args)", "state:write:*?"),
        ("Reflect.set($state, 'a', 1)", "state:write:a"),
    ]);
}

#[test]
fn methods_of_the_state() {
    check(&[
        ("return $state.get('a')", "state:read:a"),
        ("return $state.get<User>('a') as User", "state:read:a"),
        ("return $state.has('a')", "state:read:a"),
        ("return 'a' in $state", "state:read:a"),
        ("return $args in $state", "state:read:*?"),
        ("return Object.hasOwn($state, 'a')", "state:read:a"),
        ("$state.set('a', $state.b)", "state:read:b state:write:a"),
        ("$state.delete('a')", "state:write:a"),
        ("$state.update('n', n => n + 1)", "state:read:n? state:write:n"),
        ("$state.update('n', n => n + $state.m)", "state:read:m? state:read:n? state:write:n"),
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
        ("const g = $state.get", "state:read:*? state:read:get?"),
        ("['a'].forEach($state.delete)", "state:read:delete? state:write:*?"),
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
        ("return { $state }", "state:read:*?"),
        ("return [$state]", "state:read:*?"),
        ("with ($state) { a = 1 }", "state:read:*? state:write:*?"),
        ("return $state", "state:read:*?"),
        ("if ($state && typeof $state === 'object' && !$state) ;", ""),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("const {a, b} = $state", "state:read:a state:read:b"),
        ("const {a: x, b: {c}} = $state", "state:read:a state:read:b"),
        ("const {a = $state.z} = $state", "state:read:a state:read:z?"),
        ("const {a, ...rest} = $state", "state:read:* state:read:a"),
        ("const {[$args]: x} = $state", "state:read:*?"),
        ("const {a} = $state.user", "state:read:user"),
        ("const {a}: State = $state", "state:read:a"),
        ("let a; ({a} = $state)", "state:read:a"),
        ("function f({a} = $state) {}", "state:read:a?"),
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
        ("await $ext.http?.get?.('u')", "ext:http.get?"),
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
        ("return () => { { function $emit() {} } $emit('x') }", "events:emit:x?"),
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

const ALL: &str = "crypto:random? events:emit:*? ext:*? state:read:*? state:write:*? view:update:*?";

#[test]
fn writes_through_variables_are_seen() {
    check(&[
        ("const u = $state.user; u.name = 'x'", "state:read:user? state:write:user?"),
        ("let u; u = $state.user; u.a.b = 1", "state:read:user? state:write:user?"),
        ("const u = $state.user, v = u; v.name = 'x'", "state:read:user? state:write:user?"),
        ("const { address } = $state.user; address.city = 'x'", "state:read:user? state:write:user?"),
        ("const { user: { address } } = $state; delete address.city", "state:read:user? state:write:user?"),
        ("let a; ({ a } = $state.user); a.n++", "state:read:user? state:write:user?"),
        ("const [first] = $state.items; first.done = true", "state:read:items? state:write:items?"),
        ("const u = $args ? $state.a : $state.b; u.x = 1", "state:read:a? state:read:b? state:write:a? state:write:b?"),
        ("const u = $state.a ?? {}; u.x = 1", "state:read:a? state:write:a?"),
        ("const u = $state.get('user'); u.name = 'x'", "state:read:user? state:write:user?"),
        ("$state.get('user').name = 'x'", "state:read:user? state:write:user?"),
        ("$state.get($args).name = 'x'", "state:read:*? state:write:*?"),
        ("const o = { u: $state.user }; o.u.name = 'x'", "state:read:user? state:write:user?"),
        ("const o = {}; o.u = $state.user; o.u.name = 'x'", "state:read:user? state:write:user?"),
        ("const list = [$state.user]; list[0].name = 'x'", "state:read:user? state:write:user?"),
        ("const c = { ...$state.user }; c.address.city = 'x'", "state:read:user? state:write:user?"),
        ("const all = { ...$state }; all.user.name = 'x'", "state:read:* state:write:*?"),
        ("for (const u of Object.values($state)) u.x = 1", "state:read:* state:write:*?"),
        ("const { ...rest } = $state; rest.user.name = 'x'", "state:read:* state:write:*?"),
        ("let u = $args; try { throw $state.user } catch (e) { e.name = 'x' }", "state:read:user? state:write:user?"),
        ("globalThis.u = $state.user; u.name = 'x'", "state:read:user? state:write:user?"),
        ("u = $state.user; u.name = 'x'", "state:read:user? state:write:user?"),
        (
            "$state.copy = $state.user; $state.copy.name = 'x'",
            "state:read:copy? state:read:user? state:write:copy state:write:user?",
        ),
        ("Object.assign($state.get('user'), $args)", "state:read:user? state:write:user?"),
        ("const u = $state.user; Object.assign(u, $args)", "state:read:user? state:write:user?"),
        ("const u = $state.user; Reflect.set(u, 'a', 1)", "state:read:user? state:write:user?"),
        ("const u = $state.user; Object.defineProperty(u, 'a', { value: 1 })", "state:read:user? state:write:user?"),
        ("const d = $state.due; d.setTime(5)", "state:read:due? state:write:due?"),
        ("$state.due.setTime(5)", "state:read:due? state:write:due?"),
        ("$state.bytes.set([9]); $state.bytes[0] = 9", "state:read:bytes? state:write:bytes"),
        ("new Uint8Array($state.bytes.buffer)[0] = 9", "state:read:bytes? state:write:bytes?"),
        ("crypto.getRandomValues($state.bytes)", "crypto:random state:read:bytes? state:write:bytes?"),
        ("[].push.call($state.items, 1)", "state:read:items? state:write:items?"),
        ("Array.prototype.sort.apply($state.items)", "state:read:items? state:write:items?"),
        ("Reflect.apply([].pop, $state.items, [])", "state:read:items? state:write:items?"),
        ("const { push } = Array.prototype; push.call($state.items, 1)", "state:read:items? state:write:items?"),
        ("const p = [].push.bind($state.items); p(1)", "state:read:items? state:write:items?"),
        ("$state.items[$args](1)", "state:read:items? state:write:items?"),
        ("const items = $state.items; items[$args](1)", "state:read:items? state:write:items?"),
        (
            "const items = $state.items; [items[0], items[1]] = [items[1], items[0]]",
            "state:read:items? state:write:items?",
        ),
        ("const u = $state.user; for (u.n of [1, 2]) ;", "state:read:user? state:write:user?"),
        ("const u = $state.user; u.n ||= 1", "state:read:user? state:write:user?"),
        ("with ($state.user) { name = 'x' }", "state:read:user? state:write:user?"),
        ("const o = { get u() { return $state.user } }; o.u.name = 'x'", "state:read:user? state:write:user?"),
        ("const o = { set u(v) { v.name = 'x' } }; o.u = $state.user", "state:read:user? state:write:user?"),
        ("const m = new Map([['u', $state.user]]); m.get('u').name = 'x'", "state:read:user? state:write:user?"),
    ]);
}

#[test]
fn writes_in_callbacks_and_functions_are_seen() {
    check(&[
        ("for (const i of $state.items) i.done = true", "state:read:items? state:write:items?"),
        ("for (const [k, v] of Object.entries($state.items)) v.done = k", "state:read:items? state:write:items?"),
        ("for (const { tags } of $state.items) tags.push(1)", "state:read:items? state:write:items?"),
        ("$state.items.forEach(i => { i.done = true })", "state:read:items? state:write:items?"),
        ("$state.items.forEach(function (i) { i.done = true })", "state:read:items? state:write:items?"),
        ("$state.items.find(i => i.id === 1).done = true", "state:read:items? state:write:items?"),
        ("const i = $state.items.find(i => i.id); i.done = true", "state:read:items? state:write:items?"),
        ("return $state.items.map(i => { i.n++; return i })", "state:read:items? state:write:items?"),
        ("$state.items.filter(i => i.on)[0].done = true", "state:read:items? state:write:items?"),
        ("$state.items.filter(i => i.on).forEach(i => { i.done = true })", "state:read:items? state:write:items?"),
        ("$state.items.at(-1).done = true", "state:read:items? state:write:items?"),
        ("[...$state.items].sort()[0].done = true", "state:read:items? state:write:items?"),
        ("function mark(i) { i.done = true } mark($state.items[0])", "state:read:items? state:write:items?"),
        ("function mark(i) { i.done = true } $state.items.forEach(mark)", "state:read:items? state:write:items?"),
        ("const mark = i => { i.done = true }; mark($state.user)", "state:read:user? state:write:user?"),
        ("function user() { return $state.user } user().name = 'x'", "state:read:user? state:write:user?"),
        ("const user = () => $state.user; const u = user(); u.name = 'x'", "state:read:user? state:write:user?"),
        ("function f({ a }) { a.b = 1 } f($state.user)", "state:read:user? state:write:user?"),
        ("function f() { arguments[0].b = 1 } f($state.user)", "state:read:user? state:write:user?"),
        ("function f(...all) { all[0].b = 1 } f($state.user)", "state:read:user? state:write:user?"),
        ("function f(u = $state.user) { u.name = 'x' } f()", "state:read:user? state:write:user?"),
        ("'use strict'; function f() { this.name = 'x' } f.call($state.user)", "state:read:user? state:write:user?"),
        (
            "class A { constructor(u) { this.u = u } set(n) { this.u.name = n } } new A($state.user).set(1)",
            "state:read:user? state:write:user?",
        ),
        ("class A { #u = $state.user; f() { this.#u.name = 'x' } } new A().f()", "state:read:user? state:write:user?"),
        ("const api = { rename(u) { u.name = 'x' } }; api.rename($state.user)", "state:read:user? state:write:user?"),
        ("function* g() { yield $state.user } for (const u of g()) u.name = 'x'", "state:read:user? state:write:user?"),
        ("await Promise.resolve($state.user).then(u => { u.name = 'x' })", "state:read:user? state:write:user?"),
        ("const o = { map: () => $state.user }; const u = o.map(); u.name = 'x'", "state:read:user? state:write:user?"),
        (
            "Array.prototype.first = function () { return this[0] }; $state.items.first().done = 1",
            "state:read:items? state:write:items?",
        ),
        ("{ function f(u) { u.x = 1 } } f($state.user)", "state:read:user? state:write:user?"),
        ("setTimeout(u => { u.x = 1 }, 0, $state.user)", "state:read:user? state:write:user?"),
        ("f`${$state.user}`; function f(texts, u) { u.x = 1 }", "state:read:user? state:write:user?"),
        ("new Proxy($state.user, {}).name = 'x'", "state:read:user? state:write:user?"),
    ]);
}

#[test]
fn what_only_reads_needs_no_write() {
    check(&[
        ("return $state.user", "state:read:user"),
        ("const n = $state.n; return n + 1", "state:read:n"),
        ("const { name, tags } = $state.user; return `${name}: ${tags.join()}`", "state:read:user"),
        ("const out = []; for (const i of $state.items) out.push(i.name); return out", "state:read:items"),
        ("const out = {}; $state.items.forEach(i => { out[i.id] = i }); return out", "state:read:items"),
        (
            "const sums = {}; for (const i of $state.items) sums[i.k] = (sums[i.k] || 0) + i.n; return sums",
            "state:read:items",
        ),
        (
            "const open = $state.items.filter(i => i.open); open.sort((a, b) => a.n - b.n); return open",
            "state:read:items",
        ),
        ("return [...$state.items].reverse()", "state:read:items"),
        ("return Object.entries($state.m).map(([k, v]) => k + v.n)", "state:read:m"),
        ("const r = await $ext.a.b($state.user); r.seen = true; return r", "ext:a.b state:read:user"),
        ("const u = structuredClone($state.user); u.name = 'x'; return u", "state:read:user"),
        ("const u = { ...$state.user, name: 'x' }; u.n = 1; return u", "state:read:user"),
        ("const u = Object.assign({}, $state.user); u.n = 1; return u", "state:read:user"),
        ("const m = new Map(); for (const i of $state.items) m.set(i.id, i); return m.size", "state:read:items"),
        ("$log($state.user); console.log($state.items)", "state:read:items state:read:user"),
        ("$emit('e', { u: $state.user })", "events:emit:e state:read:user"),
        ("if ($state.a) return 1; return $state.b === 2", "state:read:a state:read:b?"),
        ("throw new Error($state.user.name)", "state:read:user"),
        ("$args.seen = true; return $state.user", "state:read:user"),
    ]);
}

/// A value of the state that is put into another one is changed there, and has to be what may be written.
#[test]
fn what_is_put_into_a_value_of_the_state_is_found_there() {
    for put in [
        "$state.q.push($state.b)",
        "$state.q.push(...[$state.b])",
        "$state.q['push']($state.b)",
        "$state.q[$args]($state.b)",
        "$state.q.unshift($state.b)",
        "$state.q.splice(0, 0, { b: $state.b })",
        "$state.q.fill($state.b)",
        "$state.q.set('b', $state.b)",
        "$state.q.add($state.b)",
        "$state.q.in.push($state.b)",
        "$state.q[0] = $state.b",
        "$state.q.in.b = $state.b",
        "[$state.b].forEach(b => $state.q.push(b))",
        "[$state.b].forEach($state.q.push, $state.q)",
        "const p = $state.q.push.bind($state.q); p($state.b)",
        "$state.q.push.call($state.q, $state.b)",
        "const q = $state.q; q.push($state.b)",
        "Reflect.set($state.q, 'b', $state.b)",
        "Object.assign($state.q, { b: $state.b })",
        "Object.defineProperty($state.q, 'b', { value: $state.b })",
        "const v = $state.b; $state.q.push(v)",
    ] {
        for change in [
            "$state.q[0].n = 1",
            "$state.q.in.list.push(1)",
            "delete $state.q.in.n",
            "$state.q.at(0).n = 1",
            "for (const x of $state.q) x.n = 1",
            "const { q: [x] } = $state; x.n = 1",
            "$state.get('q')[0].n = 1",
            "$state.q.pop().n++",
            "$state.q.forEach(x => { x.n = 1 })",
            "Object.assign($state.q[0], { n: 1 })",
        ] {
            let source = format!("{put}; {change}");
            let found = tokens(&source);
            assert!(found.split(' ').any(|token| token.starts_with("state:write:b")), "{source}: {found}");
        }
    }
    // what nobody changes there is only read
    check(&[
        ("$state.log.push({ user: $state.user.name, at: 1 })", "state:read:log? state:read:user state:write:log"),
        ("$state.list.push($state.n); return $state.list.length", "state:read:list? state:read:n state:write:list"),
        ("$state.list.push($state.n); const own = []; own[0] = 1", "state:read:list? state:read:n state:write:list"),
    ]);
}

/// What writes goes by another name, or is called in another way, than it was made for.
#[test]
fn a_write_by_another_name_is_listed() {
    let user = "state:read:user? state:write:user?";
    let list = "state:read:list? state:write:list?";
    check(&[
        ("const { assign } = Object; assign($state.user, { z: 1 })", user),
        ("const a = Object.assign; a($state.user, { z: 1 })", user),
        ("const O = Object; O.assign($state.user, { z: 1 })", user),
        ("const { deleteProperty: d } = Reflect; d($state.user, 'x')", user),
        ("(function () { this.z = 1 }).call($state.user)", user),
        ("$state.list.push.bind($state.list)(1)", list),
        ("[1, 2].forEach($state.list.push, $state.list)", list),
        ("let u = {}; u.q ??= $state.user; u.q.z = 1", "state:read:user? state:write:user?"),
        ("const m = $args; $state[m]('k', 1)", "state:read:*? state:write:*?"),
        ("const { crypto } = globalThis; crypto.getRandomValues(new Uint8Array(1))", "crypto:random?"),
    ]);
}

#[test]
fn the_global_object_has_everything() {
    check(&[
        ("this['$emit']('x')", "events:emit:*?"),
        ("this['$emit'].toast('x')", "events:emit:*?"),
        ("let e; ({ $emit: e } = this); e('x')", "events:emit:*?"),
        ("let e; ({ $emit: e } = globalThis); e('x')", "events:emit:*?"),
        ("const { $view: v } = this; v.focus('x')", "view:update:*?"),
        ("return self.$state.a + global.$state.b", "state:read:a state:read:b"),
        ("return this.$args", ""),
        ("return globalThis.Math.max(1, 2)", ""),
        ("if (this) return typeof globalThis", ""),
        ("function f({ $emit }) { $emit('x') } f(globalThis)", ALL),
        ("const g = globalThis; g.$emit('x')", ALL),
        ("return this[$args]", ALL),
        ("this[$args]('x')", ALL),
        ("const { [$args]: x } = this", ALL),
        ("const { Math, ...rest } = globalThis", ALL),
        ("return (function () { return this })().$state.a", ALL),
        ("const o = { f() { return this } }; const { f } = o; f().$emit('x')", ALL),
        ("return Object.keys(this)", ALL),
        ("with (globalThis) { x }", ALL),
        ("return (() => this)()", ALL),
        // in strict code a function has no other `this` than it is given
        ("class A { f() { return this } } return new A().f().x", ""),
        ("'use strict'; function f() { return this } return f()", ""),
        ("const $ = { $emit: 1 }; return $.$emit", ""),
    ]);
}

#[test]
fn what_hides_a_global_is_what_the_language_says() {
    check(&[
        // functions in blocks: strict code, async functions and generators keep them there
        ("'use strict'; { function $emit() {} } $emit('x')", "events:emit:x"),
        ("{ async function $emit() {} } $emit('x')", "events:emit:x"),
        ("{ function* $emit() {} } $emit('x')", "events:emit:x"),
        ("class A { static { { function $emit() {} } $emit('x') } }", "events:emit:x?"),
        // others are hoisted, unless something is in their way
        ("{ function $emit() {} } $emit('x')", "events:emit:x?"),
        ("{ let $emit; { function $emit() {} } } $emit('x')", "events:emit:x?"),
        ("{ function $emit() {} $emit('x') }", ""),
        ("function $emit() {} $emit('x')", ""),
        ("async function $emit() {} $emit('x')", ""),
        // a default value does not see what the body declares
        ("function f(a = $state.x) { var $state = {}; return $state.y } return f()", "state:read:x?"),
        ("function f($state, a = $state.x) { var $state; return $state.y } return f({})", ""),
        // not the other way round
        ("with ({ $state: {} }) { $state.a }", "state:read:a?"),
        ("with ($args) { $emit('x') }", "events:emit:x?"),
        ("class A { static { var $state = { a: 1 }; $state.a } }", ""),
        ("class A { static { var $state = { a: 1 } } } return $state.a", "state:read:a"),
    ]);
}

#[test]
fn certain_is_only_what_surely_runs() {
    check(&[
        ("if (false) $state.a = 1", "state:write:a?"),
        ("return $args ? $state.a : 1", "state:read:a?"),
        ("return $args && $state.a", "state:read:a?"),
        ("return $args?.[$state.a]", "state:read:a?"),
        ("return $args?.b($state.a)", "state:read:a?"),
        ("return $args?.b($state.a).c", "state:read:a?"),
        ("return $args.b?.($state.a)", "state:read:a?"),
        ("for (const x of $args) $state.a = x", "state:write:a?"),
        ("while ($state.a) $state.b = 1", "state:read:a state:write:b?"),
        ("for (let i = $state.a; i < $state.b; i += $state.c) ;", "state:read:a state:read:b state:read:c?"),
        ("do { $state.a = 1 } while ($state.b)", "state:read:b? state:write:a?"),
        ("try { $state.a } catch {}", "state:read:a?"),
        ("try { f() } catch { $emit('failed') } function f() {}", "events:emit:failed?"),
        ("try { f() } finally { $emit('done') } function f() {}", "events:emit:done?"),
        ("function never() { $emit('x') }", "events:emit:x?"),
        ("const never = () => $state.a", "state:read:a?"),
        ("class A { f() { $emit('x') } }", "events:emit:x?"),
        ("switch ($state.a) { case 1: $state.b = 1 }", "state:read:a state:write:b?"),
        ("if ($args) return; $state.a = 1", "state:write:a?"),
        ("if ($args) throw 1; $state.a = 1", "state:write:a?"),
        ("return $state.b; $state.a = 1", "state:read:b state:write:a?"),
        ("for (;;) { if ($args) break } $state.a = 1", "state:write:a?"),
        ("while (true) ; $state.a = 1", "state:write:a?"),
        ("out: { if ($args) break out; } $state.a = 1", "state:write:a?"),
        ("for (const x of $args) { if (x) break } $state.a = 1", "state:write:a"),
        ("function f(a = $state.x) {} f(1)", "state:read:x?"),
        ("$state.a ||= $state.b", "state:read:a? state:read:b? state:write:a?"),
        ("let a; a ??= $state.b", "state:read:b?"),
        ("return $state.hasOwnProperty('a')", "state:read:a? state:read:hasOwnProperty?"),
        ("return $state.toString()", "state:read:toString?"),
        ("return typeof $state.then", "state:read:then?"),
        ("return $state.keys", "state:read:*? state:read:keys?"),
        ("$state.get = 1", "state:write:get?"),
        // in promise style only a call that somebody waits for fails the handler
        ("await $ext.a.b()", "ext:a.b"),
        ("return await $ext.a.b()", "ext:a.b"),
        ("await 1; return $ext.a.b()", "ext:a.b"),
        ("await 1; $ext.a.b()", "ext:a.b?"),
        ("$ext.a.b().catch(() => null)", "ext:a.b?"),
        ("await Promise.allSettled([$ext.a.b()])", "ext:a.b?"),
        ("await ($args || $ext.a.b())", "ext:a.b?"),
        ("$ext.a.b()", "ext:a.b"),
        ("const x = [$ext.a.b()]", "ext:a.b"),
    ]);
}

#[test]
fn what_cannot_be_read_may_need_everything() {
    let found = super::analyze("return `").unwrap();
    let tokens: Vec<String> =
        found.capabilities.iter().map(|c| format!("{}{}", c.token, if c.certain { "" } else { "?" })).collect();
    assert_eq!(tokens.join(" "), ALL);
    assert!(found.unparsed.is_some());
}

#[test]
fn values_that_go_where_no_name_says_are_seen() {
    check(&[
        // a method of the state under another name
        ("const { ['s' + 'et']: q } = $state; q('x', 1)", "state:read:*? state:write:*?"),
        ("let q; ({ [$args]: q } = $state); q('x', 1)", "state:read:*? state:write:*?"),
        ("const q = $state[$args]; q('x', 1)", "state:read:*? state:write:*?"),
        ("const o = { q: $state[$args] }; o.q('x', 1)", "state:read:*? state:write:*?"),
        ("for (const q of [$state[$args]]) q('x')", "state:read:*? state:write:*?"),
        ("f($state[$args]); function f(q) { q('x') }", "state:read:*? state:write:*?"),
        ("const item = $state[$args]; return item.list.map(x => x.n).filter(Boolean).forEach($log)", "state:read:*?"),
        ("return $state[$args].toFixed(2)", "state:read:*?"),
        // a constructor may give what it likes, to whose fields the next one writes
        (
            "class A { constructor() { return $state.o } } class B extends A { x = 1 } new B()",
            "state:read:o? state:write:o?",
        ),
        ("class A { constructor() { return $state.o } } new A().x = 1", "state:read:o? state:write:o?"),
        ("class A { constructor() { return $state.o } } return new A().x", "state:read:o?"),
        ("class A {} class B extends A { x = $state.o } return new B()", "state:read:o? state:write:o?"),
        ("class B { x = $state.o } return new B()", "state:read:o?"),
        // what is thrown
        (
            "function* g() { try { yield } catch (e) { e.x = 1 } } const i = g(); i.next(); i.throw($state.o)",
            "state:read:o? state:write:o?",
        ),
        ("try { await Promise.reject($state.o) } catch (e) { e.x = 1 }", "state:read:o? state:write:o?"),
        (
            "const f = async () => { throw $state.o }; try { await f() } catch (e) { e.x = 1 }",
            "state:read:o? state:write:o?",
        ),
        ("try { const r = await $ext.a.b($state.o); return r } catch (e) { e.x = 1 }", "ext:a.b? state:read:o?"),
        (
            "const [a, b] = await Promise.all([$state.a, $state.b]); a.x = 1; try { await b } catch (e) { $log(e) }",
            "state:read:a? state:read:b? state:write:a? state:write:b?",
        ),
        ("const a = await $state.a; const b = await $state.b; a.x = 1", "state:read:a? state:read:b state:write:a?"),
    ]);
}

#[test]
fn what_comes_behind_a_name_that_nothing_declares_is_not_certain() {
    check(&[
        ("undefinedFn(); return $state.x", "state:read:x?"),
        ("$state.y; undefinedFn($state.z); $emit('e')", "events:emit:e? state:read:y state:read:z?"),
        ("undefinedName; return $state.x", "state:read:x?"),
        ("x = undefinedName.y; return $state.x", "state:read:x?"),
        ("const f = () => undefinedFn(); return $state.x", "state:read:x"),
        ("console.log(1); Math.max(parseInt('1')); return $state.x", "state:read:x"),
    ]);
}
