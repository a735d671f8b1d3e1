//! Which style a handler's extension calls need.

use nexus_protocol::message::SuspendMode::{Await, Stack};

use super::understood;

#[test]
fn promise_style() {
    for source in [
        "",
        "return $state.a",
        "await $ext.a.b()",
        "const r = await $ext.a.b(); return r",
        "return (await $ext.a.b()).c",
        "return $ext.a.b()",
        "await ($args ? $ext.a.b() : $ext.c.d())",
        "await ($args && $ext.a.b())",
        "await ($args ?? $ext.a.b())",
        "await (1, $ext.a.b())",
        "await ($ext.a.b() as Promise<number>)",
        "await $ext.a.b()!",
        "await $ext.a?.b?.()",
        "await Promise.all([$ext.a.b(), $ext.c.d()])",
        "await Promise.allSettled([$ext.a.b(), ...[$ext.c.d()]])",
        "await Promise.race([$ext.a.b(), 1])",
        "return Promise.any([$args ? $ext.a.b() : 1])",
        "await Promise.resolve($ext.a.b())",
        "await Promise.all([1, 2].map(x => $ext.a.b(x)))",
        "await Promise.all([1, 2].filter(x => x).map(x => { return $ext.a.b(x) }))",
        "await Promise.all([1, 2].map($ext.a.b))",
        "await Promise.all([1].concat([$ext.a.b()]))",
        "await Promise.all(Array.from($args, x => $ext.a.b(x)))",
        "await Promise.all([...$args.map(x => $ext.a.b(x)), $ext.c.d()])",
        "const all = $args.map(x => $ext.a.b(x)); const rs = await Promise.all(all); return rs",
        "$ext.a.b().then(r => $state.r = r)",
        "await $ext.a.b().then(r => $ext.c.d(r)).catch(e => null).finally(() => 1)",
        "const f = async x => $ext.a.b(x); const r = await f(1); return r",
        "const f = x => $ext.a.b(x); const r = await f(1); return r",
        "function f(x) { return $ext.a.b(x) } return await f(1)",
        "const f = x => $ext.a.b(x); const g = x => f(x); await g(1)",
        "const f = x => $ext.a.b(x); await Promise.all($args.map(f))",
        "const api = { get: u => $ext.a.b(u) }; await api.get(1)",
        "class Api { get(u) { return $ext.a.b(u) } } await new Api().get(1)",
        "await (() => $ext.a.b())()",
        "await (async () => { return $ext.a.b() })()",
        "for await (const x of [$ext.a.b(), $ext.c.d()]) $state.x = x",
        "async function* g() { yield $ext.a.b() }",
        "void $ext.a.b()",
        "if ($ext.exists('a')) return $ext.list().length",
        "if ($ext.a) await $ext.a.b()",
        "const {a} = $ext; await a.b()",
        "const a = $ext.a; await Promise.all([a.b(), a.c()])",
        "for (const u of $args) { try { await $ext.a.b(u) } catch (e) { $log(e) } finally { $log(1) } }",
        "const $ext = {a: {b: () => 1}}; const r = $ext.a.b(); return r",
        "return new Promise(ok => ok(1))",
        "await retry(() => $ext.a.b()); function retry(f) { return f() }",
    ] {
        assert_eq!(understood(source).suspend_mode, Await, "{source}");
    }
}

#[test]
fn stack_style() {
    for source in [
        "const r = $ext.a.b(); return r",
        "const p = $ext.a.b(); return await p",
        "$ext.a.b()",
        "$ext.a.b(), 1",
        "return $ext.a.b().c",
        "return $ext.a.b() + 1",
        "return [$ext.a.b()]",
        "return {a: $ext.a.b()}",
        "return `${$ext.a.b()}`",
        "f($ext.a.b()); function f() {}",
        "$state.a = $ext.a.b()",
        "if ($ext.a.b()) return 1",
        "await ($ext.a.b() || 1)",
        "await ($ext.a.b() ?? 1)",
        "await [$ext.a.b()]",
        "await $ext.a.b().c",
        "await $ext.a.b(); const r = $ext.c.d()",
        "await $ext.a.b($ext.c.d())",
        "await Promise.all($ext.a.b())",
        "for (const x of $ext.a.list()) ;",
        "return $args.map(x => $ext.a.b(x))",
        "const rs = $args.map(x => $ext.a.b(x)); return rs.length",
        "const rs = $args.map(x => $ext.a.b(x)); $log(rs[0]); await Promise.all(rs)",
        "$args.sort((a, b) => $ext.a.compare(a, b))",
        "return $args.filter(x => $ext.a.b(x))",
        "$args.forEach(x => $ext.a.b(x))",
        "return $args.reduce((sum, x) => $ext.a.b(sum, x))",
        "return 'a'.replace(/a/, m => $ext.a.b(m))",
        "return JSON.parse('1', (k, v) => $ext.a.b(k))",
        "$state.update('n', n => $ext.a.b(n))",
        "const o = { get x() { return $ext.a.b() } }; return o.x",
        "const o = { toString() { return $ext.a.b() } }; return `${o}`",
        "return new Proxy({}, { get: (t, k) => $ext.a.b(k) }).x",
        "return new Proxy({}, { get(t, k) { return $ext.a.b(k) } }).x",
        "class A { get x() { return $ext.a.b() } } return new A().x",
        "const f = x => $ext.a.b(x); return f(1).c",
        "const f = x => $ext.a.b(x); const r = f(1); return r",
        "function f(x) { return $ext.a.b(x) } return [1].filter(f)",
        "const f = x => $ext.a.b(x); const g = x => f(x); return g(1) + 1",
        "const r = (() => $ext.a.b())(); return r",
        "function* g() { yield $ext.a.b() } return [...g()]",
        "let e = $ext; const r = await e.a.b()",
        "const get = $ext.a.get.bind($ext.a); return get(1)",
        "f($ext.a.get); function f() {}",
        "const get = $ext.a.get; const r = get(1); return r",
        "const {a} = $ext; return a.b().c",
        "return $ext.a.b.call(null, 1) + 1",
        "return globalThis.$ext.a.b() + 1",
        "return this.$ext.a.b() + 1",
        "const g = globalThis; return g.$ext.a.b() + 1",
        "const g = globalThis; return g['$ext'].a.b().c",
        "const { $ext: e } = globalThis; return e.a.b() + 1",
        "const { $ext } = this; return $ext.a.b() + 1",
        "return new Promise(ok => ok($ext.a.b()))",
        "const Promise = {all: x => x}; return Promise.all([$ext.a.b()])",
        "return $ext.a.b`x` + 1",
    ] {
        assert_eq!(understood(source).suspend_mode, Stack, "{source}");
    }
}

#[test]
fn questions_about_extensions_are_no_calls() {
    assert!(!understood("return $ext.exists('a') && $ext.list()").extension_calls);
    assert!(understood("await $ext.a.b()").extension_calls);
    assert!(understood("const e = [$ext]").extension_calls);
}
