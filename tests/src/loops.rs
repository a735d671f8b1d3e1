//! Random nests of `for (let ...)` whose iterations closures keep, and that are left in every way.

use crate::rng::Rng;
use crate::styles::Style;

/// A handler that returns what its closures see when all loops are over, as text.
pub fn handler(rng: &mut Rng, style: Style) -> String {
    let body = nest(rng, style, &mut Vec::new(), 0);
    let body = match (rng.below(3), style) {
        (0, _) => body,
        (1, Style::Stack) => format!("function go() {{ {body} }} go();"),
        (1, Style::Promise) => format!("async function go() {{ {body} }} await go();"),
        (_, Style::Stack) => format!("function* go() {{ {body} yield 1 }} for (const x of go()) r.push(x);"),
        (_, Style::Promise) => {
            format!("async function* go() {{ {body} yield 1 }} for await (const x of go()) r.push(x);")
        }
    };
    let mark = if style == Style::Stack { "$ext.s.f(1)" } else { "await $ext.s.f(1)" };
    format!("const fs = [], r = [];\n{mark};\n{body}\nreturn JSON.stringify([r, fs.map(f => f())])")
}

fn nest(rng: &mut Rng, style: Style, around: &mut Vec<String>, depth: usize) -> String {
    let number = around.len();
    let v = format!("v{number}_{}", rng.below(1000));
    let label = format!("l{v}");
    // an iteration goes on before anything in it can end it
    let (head, first) = match rng.below(5) {
        0 => (format!("let {v} = 0; {v} < 3; {v}++"), String::new()),
        1 => (format!("let {v} = 0; {v} < 3;"), format!("{v}++;")),
        2 => (format!("let {v} = 0;; {v}++"), format!("if ({v} > 2) break;")),
        3 => (format!("let {v} = 0;;"), format!("if ({v}++ > 2) break;")),
        _ => (
            format!(
                "let {v} = 0, g = () => {v}; fs.push(() => {v}), {v} < 3; fs.push(g, () => {v}), {v} += 1, fs.push(() => {v})"
            ),
            String::new(),
        ),
    };
    around.push(v.clone());
    let body: Vec<String> = (0..=rng.below(4)).map(|_| statement(rng, style, around, depth)).collect();
    around.pop();
    format!("{label}: for ({head}) {{ {first} {} }}", body.join("; "))
}

fn statement(rng: &mut Rng, style: Style, around: &mut Vec<String>, depth: usize) -> String {
    let v = around.last().expect("within a loop").clone();
    let outer = around[rng.below(around.len())].clone();
    let n = rng.below(4);
    let call = match style {
        Style::Stack => format!("$ext.s.f({n}).n"),
        Style::Promise => format!("(await $ext.s.f({n})).n"),
    };
    match rng.below(12) {
        0 => format!("fs.push(() => {v})"),
        1 => format!("fs.push(() => [{}])", around.join(", ")),
        2 => format!("if ({v} === {n}) continue"),
        3 => format!("if ({outer} === {n}) continue l{outer}"),
        4 => format!(
            "try {{ fs.push(() => {v}); if ({v} === {n}) continue l{outer}; r.push({call}) }} finally {{ fs.push(() => -{v}) }}"
        ),
        5 => format!("switch ({v}) {{ case 1: fs.push(() => {v}); continue; default: r.push({v}) }}"),
        6 => format!("{{ let inner = {v} * 2; fs.push(() => inner += {v}); if ({v} === {n}) continue }}"),
        7 => format!("r.push({call})"),
        8 => format!("fs.push(() => {outer}++)"),
        9 => format!("for (const x of [1, 2]) {{ fs.push(() => x + {v}); if (x === {n}) continue l{outer} }}"),
        10 => format!("if ({outer} > {n}) break l{outer}"),
        _ if depth < 2 => nest(rng, style, around, depth + 1),
        _ => "continue".to_owned(),
    }
}
