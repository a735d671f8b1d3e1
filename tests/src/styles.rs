//! Random handlers that call an extension, in either style, for which plain JavaScript with a stub is the reference.

use std::fmt::Write as _;

use crate::rng::Rng;

/// What calls give: the handler's `$ext` in plain JavaScript. `STUB(x)` is replaced by what makes it synchronous or not.
pub const STUBS: &str = "
    const answer = x => { if (x < 0) throw new Error('no ' + x); return { n: x * 10, list: [x, x + 1] } };
    const $ext = { s: { f: STUB } };
";
pub const AT_ONCE: &str = "answer";
pub const LATER: &str = "async x => { await null; return answer(x) }";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Style {
    Stack,
    Promise,
}

/// The value of a call.
fn value(rng: &mut Rng, style: Style, argument: &str) -> String {
    match style {
        Style::Stack => format!("$ext.s.f({argument})"),
        Style::Promise if rng.below(4) == 0 => format!("(await get({argument}))"),
        Style::Promise => format!("(await $ext.s.f({argument}))"),
    }
}

fn statement(rng: &mut Rng, style: Style, depth: u32) -> String {
    let n = rng.below(9).to_string();
    let argument = if rng.below(8) == 0 { "-1".to_owned() } else { n };
    let call = value(rng, style, &argument);
    let other = value(rng, style, "n");
    let inner = |rng: &mut Rng| if depth == 0 { "n++".to_owned() } else { statement(rng, style, depth - 1) };
    match (style, rng.below(16)) {
        (_, 0) => format!("log.push({call}.n)"),
        (_, 1) => format!("n += {call}.n + {other}.list.length"),
        (_, 2) => format!("if ({call}.n > n) {{ {} }} else {{ {} }}", inner(rng), inner(rng)),
        (_, 3) => format!("for (const x of {call}.list) {{ log.push(x); {{ {} }} }}", inner(rng)),
        (_, 4) => format!(
            "try {{ log.push({call}.n); {{ {} }} }} catch (e) {{ log.push(e.message) }} finally {{ log.push({other}.n) }}",
            inner(rng)
        ),
        (_, 5) => format!("const {{ n: m, list: [first] }} = {call}; log.push(m, first)"),
        (_, 6) => format!("log.push(`${{{call}.n}}-${{{other}.list}}`)"),
        (_, 7) => format!("for (let i = 0; i < {call}.list[0] && i < 3; i++) log.push(i, {other}.n)"),
        (_, 8) => format!("switch ({call}.n) {{ case 10: log.push('ten'); default: log.push({other}.n) }}"),
        (_, 9) => format!("log.push([...{call}.list, ...{other}.list].length)"),
        (Style::Stack, 10) => format!("log.push([1, 2, 3].map(x => $ext.s.f(x + n).n).join())"),
        (Style::Stack, 11) => format!("log.push([3, 1, 2].sort((a, b) => $ext.s.f(a).n - $ext.s.f(b).n).join())"),
        (Style::Stack, 12) => {
            format!("const o = {{ get x() {{ return $ext.s.f({argument}).n }} }}; log.push(o.x + get(1).n)")
        }
        (Style::Stack, 13) => {
            format!("log.push([1, 2].filter(x => get(x).n > n).length, [1].reduce((sum, x) => sum + get(x).n, 0))")
        }
        (Style::Stack, 14) => format!("const kept = $ext.s.f({argument}); {{ {} }} log.push(kept.n)", inner(rng)),
        (Style::Stack, _) => {
            format!("const api = {{ read(x) {{ return $ext.s.f(x) }} }}; log.push(api.read({argument}).list.length)")
        }
        (Style::Promise, 10) => {
            format!("log.push((await Promise.all([1, 2, {argument}].map(x => $ext.s.f(x)))).map(r => r.n).join())")
        }
        (Style::Promise, 11) => format!("log.push(await $ext.s.f({argument}).then(r => r.n, e => e.message))"),
        (Style::Promise, 12) => format!(
            "log.push(await $ext.s.f({argument}).then(r => get(r.n)).then(r => r.n).catch(e => 'caught ' + e.message))"
        ),
        (Style::Promise, 13) => format!(
            "for (const r of await Promise.allSettled([$ext.s.f({argument}), get(-1), 3])) log.push(r.status, r.reason?.message ?? r.value.n ?? r.value)"
        ),
        (Style::Promise, 14) => {
            format!("const kept = $ext.s.f(2); {{ {} }} log.push((await kept).n, kept instanceof Promise)", inner(rng))
        }
        (Style::Promise, _) => format!(
            "await (async () => {{ try {{ log.push((await $ext.s.f({argument})).n) }} catch (e) {{ log.push(e.message); throw e }} }})().finally(() => log.push('done'))"
        ),
    }
}

/// The body of a handler.
pub fn handler(rng: &mut Rng, style: Style) -> String {
    let mut body = String::from("const log = [];\nlet n = 1;\nconst get = x => $ext.s.f(x);\n");
    for _ in 0..2 + rng.below(6) {
        let _ = writeln!(body, "try {{ {} }} catch (e) {{ log.push('! ' + e.message) }}", statement(rng, style, 2));
    }
    let end = if style == Style::Promise { "await null; " } else { "" };
    body + end + "return log.join('|') + n"
}
