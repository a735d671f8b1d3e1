//! Random handlers that use what they may be granted in every way that comes to mind: through variables, callbacks, functions,
//! patterns. They fail for nothing but a grant that is missing: `grants` gives them whatever they ask for.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rng::Rng;

/// Values of the state that the handlers expect.
pub fn state() -> Value {
    let item = || json!({"n": 1, "tags": ["x"], "deep": {"er": {"n": 1}}});
    json!({"a": item(), "b": item(), "c": item(), "items": [item(), item()], "more": [item()], "n": 1, "text": "x"})
}

const OBJECTS: [&str; 3] = ["a", "b", "c"];
const LISTS: [&str; 2] = ["items", "more"];

/// An object of the state, as an expression.
fn object(rng: &mut Rng, depth: u32) -> String {
    let key = *rng.pick(&OBJECTS);
    let list = *rng.pick(&LISTS);
    if depth == 0 {
        return format!("$state.{key}");
    }
    let inner = object(rng, depth - 1);
    match rng.below(22) {
        0 => format!("$state['{key}']"),
        1 => format!("$state.get('{key}')"),
        2 => format!("$state.{list}[0]"),
        3 => format!("$state.{list}.find(x => x.n)"),
        4 => format!("$state.{list}.filter(x => x.n).at(-1)"),
        5 => format!("[...$state.{list}].reverse()[0]"),
        6 => format!("Object.values($state.{list})[0]"),
        7 => format!("({inner} ?? null)"),
        8 => format!("($args.x ? {inner} : {})", object(rng, depth - 1)),
        9 => format!("(() => {inner})()"),
        10 => format!("[{inner}][0]"),
        11 => format!("({{ x: {inner} }}).x"),
        12 => format!("({{ ...{{ x: {inner} }} }}).x"),
        13 => format!("new Map([['x', {inner}]]).get('x')"),
        14 => format!("id({inner})"),
        15 => format!("(0, {inner})"),
        16 => format!("[{inner}].map(x => x)[0]"),
        17 => format!("new Box({inner}).value"),
        18 => format!("({{ get x() {{ return {inner} }} }}).x"),
        19 => format!("[...(function* () {{ yield {inner} }})()][0]"),
        20 => format!("(function (x) {{ return arguments[0] }})({inner})"),
        _ => format!("Reflect.get({{ x: {inner} }}, 'x')"),
    }
}

/// Something that writes to an object.
fn write(rng: &mut Rng, target: &str) -> String {
    match rng.below(12) {
        0 => format!("{target}.n = 2"),
        1 => format!("{target}.deep.er.n++"),
        2 => format!("{target}.tags.push('y')"),
        3 => format!("delete {target}.n"),
        4 => format!("Object.assign({target}, {{ n: 3 }})"),
        5 => format!("Reflect.set({target}.deep, 'n', 4)"),
        6 => format!("[{target}.n] = [5]"),
        7 => format!("({{ n: {target}.n }} = {{ n: 6 }})"),
        8 => format!("for ({target}.n of [7, 8]) ;"),
        9 => format!("[].push.call({target}.tags, 'z')"),
        10 => format!("{target}.tags['po' + 'p']()"),
        _ => format!("{target}.n ??= 9"),
    }
}

/// Something that makes a value the last of a list of the state.
fn put_into_the_state(rng: &mut Rng, list: &str, value: &str) -> String {
    let list = format!("$state.{list}");
    match rng.below(12) {
        0 => format!("{list}.push({value})"),
        1 => format!("{list}.push(...[{value}])"),
        2 => format!("{list}.unshift({value}); {list}.reverse()"),
        3 => format!("{list}.splice({list}.length, 0, {value})"),
        4 => format!("{list}.fill({value})"),
        5 => format!("{list}['push']({value})"),
        6 => format!("[{value}].forEach(x => {list}.push(x))"),
        7 => format!("Reflect.set({list}, {list}.length, {value})"),
        8 => format!("Object.assign({list}, {{ [{list}.length]: {value} }})"),
        9 => format!("(p => p({value}))({list}.push.bind({list}))"),
        10 => format!("[].push.call({list}, {value})"),
        _ => format!("{list}[{list}.length] = {value}"),
    }
}

/// The global object, in one of its spellings.
fn global(rng: &mut Rng) -> String {
    let mut spelled = (*rng.pick(&["globalThis", "this"])).to_owned();
    for _ in 0..rng.below(5) {
        spelled += *rng.pick(&[".globalThis", "['globalThis']", "[`globalThis`]", "?.globalThis", ".valueOf()"]);
    }
    spelled
}

fn statement(rng: &mut Rng, at: usize) -> String {
    let key = *rng.pick(&OBJECTS);
    let list = *rng.pick(&LISTS);
    let object = object(rng, 2);
    match rng.below(52) {
        0 => format!("const v{at} = {object}; {}", write(rng, &format!("v{at}"))),
        1 => format!("let v{at}; v{at} = {object}; const w{at} = v{at}; {}", write(rng, &format!("w{at}"))),
        2 => format!("const {{ deep: d{at} }} = {object}; d{at}.er.n = {at}"),
        3 => format!("for (const x of $state.{list}) {}", write(rng, "x")),
        4 => format!("$state.{list}.forEach(x => {{ {} }})", write(rng, "x")),
        5 => format!("$state.{list}.forEach(function (x) {{ {} }})", write(rng, "x")),
        6 => format!("{};", write(rng, &object)),
        7 => format!("function f{at}(x) {{ {} }} f{at}({object})", write(rng, "x")),
        8 => format!("const o{at} = {{ set x(v) {{ {} }} }}; o{at}.x = {object}", write(rng, "v")),
        9 => format!("try {{ throw {object} }} catch (e) {{ {} }}", write(rng, "e")),
        10 => format!("const all{at} = []; all{at}.push({object}); {}", write(rng, &format!("all{at}[0]"))),
        11 => format!("$state.n = $state.n + {at}"),
        12 => "$state['n'] += 1; 'text' in $state".to_owned(),
        13 => format!("$emit('e{at}', {object})"),
        14 => "$emit.toast($state.text)".to_owned(),
        15 => format!("const e{at} = $emit; e{at}('x')"),
        16 => format!("$view.focus('v{at}'); this['$view'].focus('w{at}')"),
        17 => format!("let g{at}; ({{ $emit: g{at} }} = this); g{at}('y')"),
        18 => "(g => g['$em' + 'it']('z'))(globalThis)".to_owned(),
        19 => format!("noted.push(JSON.stringify({object}))"),
        20 => format!("const c{at} = {{ ...$state }}; {}", write(rng, &format!("c{at}.{key}"))),
        21 => "for (const k in $state) noted.push(k); noted.push(Object.keys($state).length)".to_owned(),
        22 => "crypto.getRandomValues(new Uint8Array(1))".to_owned(),
        23 => format!("$state.update('n', n => n + $state.{key}.n)"),
        24 => format!("{{ async function $emit() {{}} }} $emit('b{at}', 1)"),
        25 => format!("function d{at}(x = $state.{key}) {{ var $state = 1; {} }} d{at}()", write(rng, "x")),
        26 => format!("with ({object}) {{ n = {at} }}"),
        27 => format!("$state.k{at} = {object}; {}", write(rng, &format!("$state.k{at}"))),
        28 => format!("setX({object}, {at})"),
        29 => format!("const {{ ['s' + 'et']: q{at} }} = $state; q{at}('k{at}', {at})"),
        30 => format!("const m{at} = $state[['update'][0]]; m{at}('n', n => n + {at})"),
        31 => format!("for (const q of [$state[`de${{'lete'}}`]]) q('k{at}')"),
        32 => format!(
            "class K{at} {{ constructor(o) {{ return o }} }} class L{at} extends K{at} {{ extra = 1 }} new L{at}({object})"
        ),
        33 => format!(
            "function* t{at}() {{ try {{ yield }} catch (e) {{ {} }} }} const i{at} = t{at}(); i{at}.next(); i{at}.throw({object})",
            write(rng, "e")
        ),
        34 => format!("const p{at} = {{ __proto__: {object} }}; {}", write(rng, &format!("p{at}"))),
        35 => format!("const p{at} = Object.create({object}); {}", write(rng, &format!("p{at}"))),
        36 => format!("try {{ await Promise.reject({object}) }} catch (e) {{ {} }}", write(rng, "e")),
        37 => format!("await new Promise((_, no) => no({object})).catch(e => {{ {} }})", write(rng, "e")),
        38 => format!("{}.$emit('t{at}'); {}.$view.focus('u{at}')", global(rng), global(rng)),
        39 => format!(
            "noted.push({}.$state.{key}.n, {}.crypto.getRandomValues(new Uint8Array(1)).length)",
            global(rng),
            global(rng)
        ),
        40 => format!("const {{ globalThis: g{at} }} = {}; noted.push(g{at}.$state.{key}.n)", global(rng)),
        41 => format!("noted.push($state.valueOf().{key}.n, $state.__lookupGetter__?.('{key}'))"),
        42 => format!("noted.push(JSON.stringify(Object.assign($state, {{ n: {at} }}).{key}))"),
        43 => format!(
            "(() => {{ const s = Object.assign($state, {{ n: {at} }}); {} }})()",
            write(rng, &format!("s.{key}"))
        ),
        44 => {
            let arrow = *rng.pick(&["() => {", "async () => {"]);
            format!("await (function () {{ return ({arrow} 'use strict'; noted.push(this.$state.{key}.n) }})() }})()")
        }
        45 => format!("$state.{list}.forEach(function () {{ {} }}, {object})", write(rng, "this")),
        46 => format!("$state.{list}.forEach(function () {{ const {{ deep }} = this; deep.er.n = {at} }}, {object})"),
        47 => format!("try {{ throw new AggregateError([{object}]) }} catch (e) {{ {} }}", write(rng, "e.errors[0]")),
        48 => format!(
            "class OwnError {{ constructor(o) {{ this.o = o }} }} try {{ throw new OwnError({object}) }} catch (e) {{ {} }}",
            write(rng, "e.o")
        ),
        50 => {
            let put = put_into_the_state(rng, &format!("q{at}"), &object);
            format!("$state.q{at} = [0]; {put}; {}", write(rng, &format!("$state.q{at}.at(-1)")))
        }
        51 => {
            let put = put_into_the_state(rng, list, &object);
            format!("{put}; for (const x of $state.{list}) {}", write(rng, "x"))
        }
        49 => format!("(function () {{ class K {{ [this.$state.{key}.n]() {{}} }} }})()"),
        _ => format!("if ($args.x) {{ {} }}", write(rng, &format!("$state.{key}"))),
    }
}

/// A handler; statements that come too late for what earlier ones left do no harm.
pub fn handler(rng: &mut Rng) -> String {
    let mut body = String::from(
        "const noted = [];\nfunction id(x) { return x }\nclass Box { constructor(value) { this.value = value } }\n\
         const setX = (o, x) => { o.x = x };\n",
    );
    for at in 0..1 + rng.below(5) {
        let statement = statement(rng, at);
        // what an earlier statement has made of the state may not suit a later one: that is not what is looked for
        let _ = writeln!(body, "try {{ {statement} }} catch (e) {{ if (e.code === 'PERMISSION_DENIED') throw e }}");
    }
    body + "return noted"
}

/// A handler of statements that run one after the other, with nothing around them.
pub fn straight(rng: &mut Rng) -> String {
    const PLAIN: [&str; 23] = [
        "$state.a",
        "$state.b = 1",
        "$state.c.n = 2",
        "$emit('x', $state.n)",
        "$view.focus('v')",
        "const { items } = $state",
        "return $state.text",
        "if ($args.x) $state.a = 1",
        "if ($args.x) return 1",
        "try { $state.a } catch {}",
        "$state.toString()",
        "crypto.getRandomValues(new Uint8Array(1))",
        "for (const x of $args.xs ?? []) $emit('y')",
        "{ function $view() {} }",
        "notDeclared($args.x)",
        "if ($args.x) notDeclared.x",
        "$state.b",
        "$state.n++",
        "$state.text = 'y'",
        "$state.c = {}",
        "delete $state.a",
        "await $ext.x.then?.(() => 1)",
        "$ext.x.then?.(() => 1)",
    ];
    let mut body = String::new();
    for at in 0..1 + rng.below(5) {
        let statement = (*rng.pick(&PLAIN)).replace("const { items }", &format!("const {{ items: v{at} }}"));
        let _ = writeln!(body, "{statement};");
    }
    body
}
