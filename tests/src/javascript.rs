//! Random JavaScript that means the same in every engine: no error texts, no local time, no transcendental functions, no
//! loops without an end. Each program returns one string that holds all that it noted.

use std::fmt::Write as _;

use crate::rng::Rng;

/// Written out so that both engines show -0, NaN, holes and undefined in the same way.
const SHOW: &str = r"
function show(v, depth = 0) {
  if (depth > 6) return '...';
  if (typeof v === 'bigint') return v + 'n';
  if (typeof v === 'number') return Object.is(v, -0) ? '-0' : String(v);
  if (typeof v === 'string') return JSON.stringify(v);
  if (typeof v === 'symbol') return 'symbol';
  if (typeof v === 'function') return 'function/' + v.length;
  if (v === null || typeof v !== 'object') return String(v);
  const inner = x => show(x, depth + 1);
  if (Array.isArray(v)) return '[' + Array.from(v, (x, i) => i in v ? inner(x) : '').join() + ']';
  if (v instanceof Error) return 'error/' + v.name;
  if (v instanceof Date) return 'date/' + v.getTime();
  if (v instanceof RegExp) return String(v);
  if (v instanceof Map) return 'map' + inner([...v]);
  if (v instanceof Set) return 'set' + inner([...v]);
  if (ArrayBuffer.isView(v)) return v.constructor.name + inner([...v]);
  return '{' + Object.keys(v).map(k => JSON.stringify(k) + ':' + inner(v[k])).join() + '}';
}
";

const NAMES: [&str; 6] = ["a", "b", "c", "o", "xs", "f"];

/// The body of an async function.
pub fn program(rng: &mut Rng) -> String {
    let mut body = format!(
        "Date.prototype.toString = function () {{ return 'date ' + this.getTime() }};\nconst log = [];\nlet a = {}, b = {}, c = {}, o = {{ a: {}, n: {{ m: {} }} }}, xs = [{}, {}, {}];\nlet f = (x, y = 2) => {};\n",
        leaf(rng),
        leaf(rng),
        leaf(rng),
        leaf(rng),
        leaf(rng),
        leaf(rng),
        leaf(rng),
        leaf(rng),
        expression(rng, 2).replace("f(", "String("),
    );
    for _ in 0..4 + rng.below(14) {
        let statement = statement(rng, 2);
        let _ = writeln!(body, "try {{ {statement} }} catch (e) {{ log.push(e instanceof Error ? '!' + e.name : e) }}");
    }
    body + "log.push(a, b, c, o, xs);\nreturn log.map(v => show(v)).join('\\n');" + SHOW
}

fn leaf(rng: &mut Rng) -> String {
    const LEAVES: [&str; 40] = [
        "0",
        "1",
        "-1",
        "2",
        "3.5",
        "-0",
        "NaN",
        "Infinity",
        "1e21",
        "0.1",
        "2147483648",
        "-2147483649",
        "4294967296",
        "9007199254740993",
        "''",
        "'a'",
        "'Hello'",
        "'12'",
        "' 7 '",
        "'0x1f'",
        "'a,b,c'",
        "'\\ud83d\\ude00x'",
        "'\\u00e9'",
        "true",
        "false",
        "null",
        "undefined",
        "0n",
        "5n",
        "-7n",
        "12345678901234567890n",
        "[]",
        "[1, 2, 3]",
        "[, 1]",
        "{ valueOf() { return 42 } }",
        "{ toString() { return 's' } }",
        "/a+/g",
        "new Date(86400000)",
        "Symbol.iterator",
        "1e-7",
    ];
    let leaf = *rng.pick(&LEAVES);
    if leaf.starts_with('{') { format!("({leaf})") } else { leaf.to_owned() }
}

fn expression(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return if rng.below(2) == 0 { (*rng.pick(&NAMES)).to_owned() } else { leaf(rng) };
    }
    let (x, y, z) = (expression(rng, depth - 1), expression(rng, depth - 1), expression(rng, depth - 1));
    let small = rng.below(5);
    match rng.below(34) {
        0..=3 => {
            let operator = *rng.pick(&[
                "+", "-", "*", "/", "%", "<", ">", "<=", ">=", "==", "!=", "===", "!==", "&", "|", "^", "<<", ">>",
                ">>>", "+",
            ]);
            format!("({x} {operator} {y})")
        }
        4 => format!("({x} {} {y})", rng.pick(&["&&", "||", ","])),
        5 => format!("(({x}) ?? ({y}))"),
        6 => format!("({} ({x}))", rng.pick(&["-", "+", "!", "~", "typeof", "void"])),
        7 => format!("(({x}) ? {y} : {z})"),
        8 => format!("[{x}, ...[{y}, {z}]]"),
        9 => format!("({{ k: {x}, [String({small})]: {y}, ...({z}) }})"),
        10 => format!("(({x})?.[{small}])"),
        11 => format!("({x}).length"),
        12 => format!("f({x}, {y})"),
        13 => format!("`${{{x}}}-${{{y}}}`"),
        14 => {
            let method = *rng.pick(&[
                "slice(1)",
                "slice(-2, -1)",
                "concat(9)",
                "indexOf('a')",
                "includes('l')",
                "at(-1)",
                "toString()",
                "lastIndexOf(1)",
            ]);
            format!("({x}).{method}")
        }
        15 => {
            let method = *rng.pick(&[
                "toUpperCase()",
                "split('')",
                "split(',', 2)",
                "padStart(6, 'ab')",
                "padEnd(5)",
                "trim()",
                "charCodeAt(1)",
                "codePointAt(0)",
                "repeat(2)",
                "replace(/[a-l]/g, '<$&>')",
                "replaceAll('l', (m, i) => i)",
                "search(/l/)",
                "match(/(.)(?<n>.)?/)?.slice()",
                "substring(3, 1)",
                "substr(-2, 1)",
                "localeCompare.length",
                "normalize('NFD').length",
                "matchAll(/./gu).next().value?.[0]",
                "startsWith('H')",
                "isWellFormed()",
                "toWellFormed()",
                "at(-2)",
                "concat(1, 2)",
                "[Symbol.iterator]().next().value",
            ]);
            format!("String({x}).{method}")
        }
        16 => {
            let method = *rng.pick(&[
                "map((v, i) => [i, v])",
                "filter(Boolean)",
                "reduce((p, v) => p + v)",
                "reduceRight((p, v) => [p, v], 0)",
                "flat()",
                "flatMap(v => [v, v])",
                "join('|')",
                "toSorted()",
                "toReversed()",
                "with(0, 'w')",
                "findLast(v => v > 1)",
                "some(v => v)",
                "every(v => v)",
                "entries().next().value",
                "keys().next()",
                "toSpliced(1, 1, 'x', 'y')",
                "find(v => v)",
                "sort()",
                "copyWithin(0, 1)",
                "fill(7, 1, 2)",
                "lastIndexOf(undefined)",
                "concat([[1]], 2)",
                "splice(1, 1)",
                "push(1, 2)",
                "unshift(0)",
                "pop()",
                "shift()",
            ]);
            format!("[{x}, {y}, {z}].{method}")
        }
        17 => {
            let function = *rng.pick(&["floor", "ceil", "round", "trunc", "abs", "sign", "sqrt", "fround", "clz32"]);
            format!("Math.{function}({x})")
        }
        18 => format!("Math.{}({x}, {y}, {z})", rng.pick(&["max", "min"])),
        19 => format!("Math.imul({x}, {y})"),
        20 => format!("((Math.trunc({x}) % 1000) ** {small})"),
        21 => format!("(({x}) ** 2n)"),
        22 => format!("JSON.stringify({x}, null, {})", rng.below(2)),
        23 => format!("JSON.parse(JSON.stringify([{x}]) )"),
        24 => format!(
            "Number({x}).{}",
            rng.pick(&["toFixed(2)", "toString(2).length", "toPrecision(4)", "toExponential(3)"])
        ),
        25 => format!(
            "{}({x})",
            rng.pick(&[
                "Number",
                "String",
                "Boolean",
                "BigInt",
                "parseInt",
                "parseFloat",
                "isNaN",
                "Object",
                "Array.isArray",
                "Number.isInteger",
                "encodeURIComponent"
            ])
        ),
        26 => format!(
            "Object.{}({x})",
            rng.pick(&["keys", "values", "entries", "getOwnPropertyNames", "isFrozen", "freeze"])
        ),
        27 => format!("[...new {}([{x}, {y}, {x}])]", rng.pick(&["Set", "Set", "Array"])),
        28 => format!("[...new Map([[{x}, {y}], [{z}, 1]]).keys()]"),
        29 => format!(
            "new {}([{x}, {y}, 300, -1, 2.5])",
            rng.pick(&[
                "Uint8Array",
                "Int16Array",
                "Uint8ClampedArray",
                "Float32Array",
                "Float64Array",
                "Int32Array",
                "BigInt64Array"
            ])
        ),
        30 => format!(
            "new Date(Number({x})).{}",
            rng.pick(&["getTime()", "getUTCDay()", "toISOString()", "toJSON()", "getUTCFullYear()"])
        ),
        31 => format!(
            "({x} instanceof {})",
            rng.pick(&["Object", "Array", "Function", "({ [Symbol.hasInstance]: v => !v })"])
        ),
        32 => format!("({} in Object({x}))", rng.pick(&["'length'", "0", "'a'", "'toString'"])),
        _ => format!(
            "/{}/{}.exec({x})?.slice()",
            rng.pick(&["(a)|(b)", "^(?=.*l)(h)", "(\\\\d+)-?", "(?<!e)l+", "[^]\\\\b", "(?:x|(.))\\\\1?", "\\\\p{Lu}"]),
            rng.pick(&["", "i", "u", "s", "y"])
        ),
    }
}

fn statement(rng: &mut Rng, depth: usize) -> String {
    let (x, y) = (expression(rng, 2), expression(rng, 2));
    let inner = |rng: &mut Rng| {
        if depth == 0 { format!("log.push({})", expression(rng, 1)) } else { statement(rng, depth - 1) }
    };
    match rng.below(22) {
        0..=4 => format!("log.push({x}, {y});"),
        5 => format!("{} = {x};", rng.pick(&["a", "b", "c"])),
        6 => format!("{} {} {x};", rng.pick(&["a", "b", "c", "o.a", "xs[1]"]), rng.pick(&["+=", "-=", "*=", "??=", "||=", "&&=", "|=", "%="])),
        7 => format!("log.push({}{});", rng.pick(&["a", "b", "o.a", "o.n.m"]), rng.pick(&["++", "--"])),
        8 => format!("for (let i = 0; i < {}; i++) {{ {} if (i === 2) {}; }}", rng.below(4), inner(rng), rng.pick(&["break", "continue"])),
        9 => format!("for (const k in {x}) {{ log.push(k); if (log.length > 60) break; }}"),
        10 => format!("let n = 0; for (const v of {x}) {{ log.push(v); if (n++ > 5) break; }}"),
        11 => format!("if ({x}) {{ {} }} else {{ {} }}", inner(rng), inner(rng)),
        12 => format!("switch ({x}) {{ case 1: log.push('one'); case 'a': log.push('a'); break; default: {} case {y}: log.push('last') }}", inner(rng)),
        13 => format!("try {{ {} throw {x} }} catch (e) {{ log.push(e instanceof Error ? e.name : e) }} finally {{ log.push('finally') }}", inner(rng)),
        14 => format!("const {{ a: p, n: {{ m: q = {x} }} = {{ m: 1 }}, ...rest }} = o; log.push(p, q, rest);"),
        15 => format!("const [p, , q = {x}, ...rest] = {y}; log.push(p, q, rest);"),
        16 => format!("function* g(n) {{ try {{ const sent = yield {x}; log.push(sent); yield* [1, {y}] }} finally {{ log.push('closed') }} }} const it = g(); log.push(it.next().value, it.next('sent').value, it.return(9));"),
        17 => format!("class A {{ #p = {x}; static s = 1; get p() {{ return this.#p }} set p(v) {{ this.#p = v }} m() {{ return [this.p, new.target] }} }} class B extends A {{ m() {{ return [super.m(), B.s] }} }} const it = new B(); it.p = {y}; log.push(it.m(), #q in it ? 1 : 0);").replace(", #q in it ? 1 : 0", ""),
        18 => format!("outer: for (const i of [1, 2, 3]) {{ for (const j of [1, 2]) {{ if (i * j === {}) continue outer; if (i + j > 4) break outer; log.push(i * j) }} {} }}", rng.below(5), inner(rng)),
        19 => format!("const order = []; await Promise.all([(async () => {{ order.push(1); await null; order.push(2) }})(), Promise.reject({x}).catch(e => order.push(e)), (async () => {{ await {y}; order.push(3) }})()]); log.push(order);"),
        20 => format!("const fs = []; for (let i = 0; i < 3; i++) fs.push(() => i++); log.push(fs.map(g => g()), fs.map(g => g())); f = (x = {x}, ...r) => [x, r.length]; log.push(f.length, f());"),
        _ => format!("Object.defineProperty(o, 'late', {{ get() {{ return {x} }}, enumerable: {}, configurable: true }}); log.push(Object.keys(o), o.late); delete o.late;", rng.below(2) == 0),
    }
}
