//! Which style a handler's extension calls have, why, and which of them are warned about.

use nexus_protocol::message::SuspendMode::{self, Await, Stack};

use super::super::Why;
use super::{analyze_as, understood};

#[test]
fn a_mention_of_promises_makes_promise_style() {
    for (source, word, line, column) in [
        ("await $ext.a.b()", "await", 1, 1),
        ("const r = $ext.a.b();\n  const s = await r; return s", "await", 2, 13),
        ("const p = $ext.a.b(); try { return await p } catch {}", "await", 1, 36),
        ("for await (const x of [$ext.a.b()]) $log(x)", "await", 1, 5),
        ("await using x = $ext.a.b()", "await", 1, 1),
        ("return [1].map(async x => $ext.a.b(x))", "async", 1, 16),
        ("return (async function () { return $ext.a.b() })()", "async", 1, 9),
        ("async function f() { return $ext.a.b() } return f()", "async", 1, 1),
        ("const o = { async f() { return $ext.a.b() } }; return o.f()", "async", 1, 13),
        ("const o = { async *f() { yield $ext.a.b() } }", "async", 1, 13),
        ("class A { static async f() { return $ext.a.b() } }", "async", 1, 18),
        ("return Promise.all([$ext.a.b(), $ext.c.d()])", "Promise", 1, 8),
        ("return new globalThis.Promise(ok => ok($ext.a.b()))", "Promise", 1, 22),
        ("const { Promise: P } = globalThis; return P.all([$ext.a.b()])", "Promise", 1, 9),
        ("let P; ({ Promise: P } = globalThis); return P.all([$ext.a.b()])", "Promise", 1, 11),
        ("const { then } = $ext.a.b(); return then", ".then", 1, 9),
        ("let c; ({ catch: c } = $ext.a.b())", ".catch", 1, 11),
        ("const f = ({ finally: f }) => f; return f($ext.a.b())", ".finally", 1, 14),
        ("const Promise = { all: x => x }; return Promise.all([$ext.a.b()])", "Promise", 1, 7),
        ("return $ext.a.b() instanceof Promise", "Promise", 1, 30),
        ("$ext.a.b().then(r => { $state.r = r })", ".then", 1, 11),
        ("$ext.a.b()?.then(r => r)", ".then", 1, 12),
        ("$ext.a.b()['then'](r => r)", ".then", 1, 12),
        ("$ext.a.b()[`then`](r => r)", ".then", 1, 12),
        ("return $ext.a.b().catch(() => null)", ".catch", 1, 18),
        ("return $ext.a.b().finally(() => $log(1))", ".finally", 1, 18),
        ("const p = $ext.a.b(); const q = p\n  .catch(e => e); return q", ".catch", 2, 3),
        // code that never runs too
        ("if (false) { await 1 } return $ext.a.b()", "await", 1, 14),
        ("function never() { x.then() } return $ext.a.b()", ".then", 1, 21),
        ("x.then = 1; return $ext.a.b()", ".then", 1, 2),
        ("f`${await 1}`; return $ext.a.b()", "await", 1, 5),
        ("function f(x = Promise) {} return $ext.a.b()", "Promise", 1, 16),
        // the first one counts
        ("$ext.a.b().then(async () => await 1)", ".then", 1, 11),
    ] {
        let found = understood(source);
        assert_eq!((found.suspend_mode, found.why), (Await, Why::Mentions(word, line, column)), "{source}");
    }
}

#[test]
fn calls_without_a_mention_are_stack_style() {
    for source in [
        "return $ext.a.b()",
        "$ext.a.b()",
        "const r = $ext.a.b(); return r.c",
        "return [1, 2].map(x => $ext.a.b(x)).filter(x => x.ok)",
        "const api = { get(x) { return $ext.a.b(x) } }; return api.get(1).name",
        "const f = $ext.a.b; return f(1)",
        "let e = $ext; return e.a.b().c",
        "const { a } = $ext; return a.b() + 1",
        "return this.$ext.a.b() + 1",
        "const g = globalThis; return g['$ext'].a.b()",
        "const { $ext: e } = globalThis; return e.a.b()",
        "let e; ({ $ext: e } = this); return e.a.b()",
        "function* g() { yield $ext.a.b() } return [...g()]",
        "return $ext.a.b`x` + 1",
        // not in strings, comments, regular expressions
        "return $ext.a.b('await async Promise .then') // await Promise.all",
        "/* async */ return $ext.a.b(/await .then/)",
        "return $ext.a.b(`x.then(${1})`)",
        // names of other properties are data
        "return $ext.jobs.start({ async: true, await: 1, Promise: 2, then: 3 })",
        "return $ext.a.b($args.async, $args.await)",
        "const o = { then() {}, catch() {} }; return $ext.a.b(o)",
        "const async = 1; return $ext.a.b(async)",
        "try { return $ext.a.b() } catch { return 1 } finally { $log(1) }",
        "Promise: for (;;) { $ext.a.b(); break Promise }",
        "return { Promise: $ext.a.b(), 'then': 1, finally() {} }",
        "class A { then() {} static Promise = 1 } return $ext.a.b(A)",
        // types are erased
        "let r: Promise<string> = $ext.a.b(); return r",
        "function f(x): Promise<number> { return $ext.a.b(x) } return f(1)",
        "return $ext.a.b() as Promise<any>",
        "interface P { then(x: number): Promise<void> } return $ext.a.b()",
        "declare function f(): Promise<void>; return $ext.a.b()",
    ] {
        let found = understood(source);
        assert_eq!((found.suspend_mode, found.why), (Stack, Why::CallsWithout), "{source}");
    }
}

#[test]
fn without_calls_it_is_promise_style_which_costs_least() {
    for source in [
        "",
        "return $state.a",
        "if ($ext.exists('a')) return $ext.list().length",
        "return $ext.methods('a')",
        "if ($ext.a) return 1",
        "return typeof $ext",
        "const $ext = { a: { b: () => 1 } }; return $ext.a.b()",
        "return ($ext => $ext.a.b())({ a: { b: () => 1 } })",
    ] {
        let found = understood(source);
        assert_eq!((found.suspend_mode, found.why), (Await, Why::CallsNone), "{source}");
    }
}

#[test]
fn a_client_may_ask_for_either() {
    for source in ["await $ext.a.b()", "return $ext.a.b()", "return 1", "`not read"] {
        for mode in [Await, Stack] {
            let found = analyze_as(source, Some(mode)).unwrap();
            assert_eq!((found.suspend_mode, found.why), (mode, Why::Asked), "{source}");
        }
    }
    assert_eq!(analyze_as("`not read", None).unwrap().why, Why::Unread);
}

#[test]
fn the_reason_is_told_in_words() {
    assert_eq!(understood("\n\n            await $ext.a.b()").why.text(), "`await` at 3:13");
    assert_eq!(understood("$ext.a.b()").why.text(), "calls extensions, and nothing in it mentions promises");
    assert_eq!(understood("return 1").why.text(), "calls no extension");
}

/// Places of what is warned about, from `from` to `until` on one line.
fn warned(source: &str, mode: Option<SuspendMode>) -> Vec<(u32, u32, u32)> {
    let found = analyze_as(source, mode).unwrap();
    let places = found.warnings.iter().map(|w| (w.line, w.column, w.explains_until.unwrap().1));
    places.collect()
}

#[test]
fn a_promise_that_is_certainly_used_as_a_value_is_warned_about() {
    for (source, column, until) in [
        ("await 1; return $ext.a.b().c", 17, 29),
        ("await 1; return $ext.a.b().c.d.e", 17, 33),
        ("await 1; return ($ext.a.b()).c", 18, 31),
        ("await 1; return $ext.a.b()!.c", 17, 30),
        ("await 1; return $ext.a.b()?.c", 17, 30),
        ("await 1; return $ext.a.b()[0]", 17, 30),
        ("await 1; return $ext.a.b().map(x => x)", 17, 39),
        ("await 1; return $ext.a.b() + 1", 17, 31),
        ("await 1; return 1 - $ext.a.b()", 21, 31),
        ("await 1; return $ext.a.b() > 3", 17, 31),
        ("await 1; return $ext.a.b() === 3", 17, 33),
        ("await 1; return -$ext.a.b()", 18, 28),
        ("await 1; return !$ext.a.b()", 18, 28),
        ("await 1; return `${$ext.a.b()}`", 20, 32),
        ("await 1; if ($ext.a.b()) return 1", 14, 24),
        ("await 1; while ($ext.a.b()) ;", 17, 27),
        ("await 1; return $ext.a.b() ? 1 : 2", 17, 35),
        ("await 1; return $ext.a.b() || 1", 17, 32),
        ("await ($ext.a.b() ?? $ext.c.d())", 8, 32),
        ("await 1; return [...$ext.a.b()]", 21, 31),
        ("await 1; f(...$ext.a.b())", 15, 25),
        ("await 1; return { ...$ext.a.b() }", 22, 32),
        ("await 1; return $args[$ext.a.b()]", 23, 34),
        ("await 1; $args[$ext.a.b()] = 1", 16, 27),
        ("await 1; $ext.a.b()()", 10, 22),
        ("await 1; new ($ext.a.b())", 15, 26),
        ("await 1; for (const x of $ext.a.b()) ;", 26, 36),
        ("await 1; const { c } = $ext.a.b()", 24, 34),
        ("await 1; const [c] = $ext.a.b()", 22, 32),
        ("await 1; let c; ({ c } = $ext.a.b())", 26, 36),
        ("await 1; switch ($ext.a.b()) { case 1: }", 18, 28),
        ("await 1; const a = $ext.a; return a.b().c", 35, 42),
        ("await 1; return 'c' in $ext.a.b()", 24, 34),
        ("await 1; for (const k in $ext.a.b()) ;", 26, 36),
        ("await 1; $ext.a.b()`x`", 10, 23),
        ("await 1; return { [$ext.a.b()]: 1 }", 20, 30),
        ("await 1; class A { [$ext.a.b()]() {} }", 21, 31),
        ("await 1; const { [$ext.a.b()]: c } = $args", 19, 29),
        ("await 1; $ext.a.b().x = 5", 10, 20),
        ("await 1; $ext.a.b().x += 5", 10, 20),
        ("await 1; $ext.a.b().x++", 10, 20),
        ("await 1; delete $ext.a.b().x", 17, 27),
        ("await 1; [$ext.a.b().x] = [1]", 11, 21),
    ] {
        assert_eq!(warned(source, None), [(1, column, until)], "{source}");
    }
}

#[test]
fn where_a_promise_is_right_or_may_be_nothing_is_said() {
    for source in [
        "await $ext.a.b()",
        "return (await $ext.a.b()).c",
        "return $ext.a.b().then(x => x.c)",
        "return $ext.a.b()['then'](x => x)",
        "const p = $ext.a.b(); return await p",
        "const { then } = $ext.a.b(); await 1",
        "await Promise.all([$ext.a.b(), ...[$ext.c.d()]])",
        "for await (const x of $ext.a.b()) ;",
        "return $ext.a.b() instanceof Promise",
        "await 1; return typeof $ext.a.b()",
        "await 1; void $ext.a.b()",
        "await ($args ? $ext.a.b() : $ext.c.d())",
        "await ($args && $ext.a.b())",
        "await 1; f($ext.a.b()); function f() {}",
        "await 1; return $ext.exists('a') ? 1 : 2",
        "await 1; return $ext.list().length",
        "await 1; return ($ext => $ext.a.b().c)($args)",
    ] {
        assert_eq!(warned(source, None), [], "{source}");
    }
    // in the other style the value is there
    assert_eq!(warned("return $ext.a.b().c", None), []);
    assert_eq!(warned("await 1; return $ext.a.b().c", Some(Stack)), []);
}

#[test]
fn what_may_be_no_promise_or_no_plain_use_is_not_warned_about() {
    for source in [
        "await 0; const k = 'then'; return $ext.a.b(1)[k](x => x + 1)",
        "await 0; return $ext.a.b(1)['th' + 'en'](x => x)",
        "await 0; with ({ $ext: { a: { b: () => 1 } } }) { return $ext.a.b(1) + 1 }",
        "await 0; return ($ext.a.then?.(1) ?? 'none') + $ext.a.toJSON?.()",
        "await 0; const { [$args]: then } = $ext.a.b(1); return then",
    ] {
        assert_eq!(warned(source, None), [], "{source}");
    }
}

#[test]
fn a_warning_says_where_and_why_it_is_a_promise() {
    let found = understood("async function f() {}\nreturn $ext.a.b().c");
    let message = "`$ext.a.b()` at 2:8 is a promise here, since the handler mentions `async` at 1:1; await it";
    assert_eq!(found.warnings[0].message, message);
    let asked = analyze_as("return $ext.a.b().c", Some(Await)).unwrap();
    let message = "`$ext.a.b()` at 1:8 is a promise here, since `suspendMode` is \"await\"; await it";
    assert_eq!(asked.warnings[0].message, message);
    let long = format!("await 1; return $ext.{}.b().c + $ext[$args].b().c", "n".repeat(100));
    let quoted: Vec<String> = understood(&long).warnings.into_iter().map(|w| w.message).collect();
    assert!(quoted[0].starts_with("`$ext...()`") && quoted[1].starts_with("`$ext[...]()`"), "{quoted:?}");
}

#[test]
fn warnings_have_a_bound() {
    let many = format!("await 1;{}", "+$ext.a.b();".repeat(1_000));
    assert_eq!(understood(&many).warnings.len(), 16);
}
