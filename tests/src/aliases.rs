//! Random programs that change what is in `$state` under every name that an object can have: handlers that do the same to `$state`
//! and to plain objects in its place, but for what `$state` refuses.
//!
//! A change either arrives or is refused where it is made, or at the end of the segment; there is no fourth way.

use std::fmt::Write as _;

use nexus_protocol::message::SuspendMode;
use serde_json::json;

use crate::rng::Rng;

/// Does each change in the world of `$state` first, and in the other if it was not refused there.
const FRAME: &str = r"
const plain = { a: { deep: { m: [1, { k: 2 }] }, n: 1 }, b: { list: [3], n: 2 }, list: [1, { x: 1 }, [2]], user: { name: 'Ada', tags: ['t'] } };
const worlds = [{ s: $state, v: [] }, { s: plain, v: [] }];
let refused = 0, done = 0;
// where b may only be read, what is put elsewhere is a copy of it: at once under a key, at the end of the segment within a value
const ofB = new Set(whole ? [] : [plain.b, plain.b.list]);
const copyOf = v => JSON.parse(JSON.stringify(v));
const takeOver = (v, seen = new Set()) => {
  if (!Array.isArray(v) && Object.prototype.toString.call(v) !== '[object Object]' || seen.has(v)) return;
  seen.add(v);
  for (const k of Object.keys(v)) {
    const { value, writable } = Object.getOwnPropertyDescriptor(v, k);
    if (!ofB.has(value)) takeOver(value, seen);
    else if (writable) v[k] = copyOf(value);
  }
};
const both = (change, key) => {
  try { change(worlds[0]) } catch { refused++; return }
  done++;
  try { change(worlds[1]) } catch (e) { throw new Error('only the plain object refuses: ' + e.message + ' ' + change) }
  if (key && ofB.has(plain[key])) plain[key] = copyOf(plain[key]);
  else if (key) takeOver(plain[key]);
};
const pause = () => {
  for (const key of Object.keys(plain)) if (key !== 'b') takeOver(plain[key]);
  return $ext.test.pause();
};
// what the encoding of a plain object leaves out would be lost in the state as well, and nobody would see it
const ofMatch = ['index', 'input', 'groups', 'indices'];
const seen = new Set();
const lossless = (v, at) => {
  if (typeof v !== 'object' || v === null || seen.has(v)) return;
  seen.add(v);
  const isPlain = !(v instanceof Map || v instanceof Set || v instanceof Date || v instanceof ArrayBuffer || ArrayBuffer.isView(v) || v instanceof Number);
  for (const k of Object.keys(v)) {
    const isIndex = (Array.isArray(v) || ArrayBuffer.isView(v)) && /^\d+$/.test(k);
    if (!isIndex && (!isPlain || Array.isArray(v)) && !ofMatch.includes(k)) throw new Error('lost: ' + at + '.' + k);
    if (!ArrayBuffer.isView(v)) lossless(v[k], at + '.' + k);
  }
  if (v instanceof Map) for (const [k, x] of v) lossless(x, at + '.' + k);
};
await program(both, pause);
// what is refused at the end of a segment is told there
await pause();
lossless(plain, '');
return { plain, refused, done };
";

/// The state that a program begins with: what the plain objects are.
pub fn initial() -> serde_json::Value {
    json!({
        "a": {"n": 1, "deep": {"m": [1, {"k": 2}]}},
        "b": {"n": 2, "list": [3]},
        "list": [1, {"x": 1}, [2]],
        "user": {"name": "Ada", "tags": ["t"]},
    })
}

#[derive(Debug)]
pub struct Program {
    pub source: String,
    pub mode: SuspendMode,
}

impl Program {
    /// `whole`: every key may be written; else `b` may only be read.
    pub fn random(rng: &mut Rng, whole: bool) -> Self {
        let mut body = String::new();
        for _ in 0..4 + rng.below(16) {
            let _ = match rng.below(20) {
                0 => writeln!(body, "  await pause();"),
                _ => {
                    let (change, key) = change(rng);
                    writeln!(
                        body,
                        "  both(w => {{ {change} }}, {});",
                        key.map_or("null".to_owned(), |key| format!("'{key}'"))
                    )
                }
            };
        }
        let mode = if rng.below(2) == 0 { SuspendMode::Stack } else { SuspendMode::Await };
        Self {
            source: format!("async function program(both, pause) {{\n{body}}}\nconst whole = {whole};{FRAME}"),
            mode,
        }
    }
}

fn key(rng: &mut Rng) -> &'static str {
    rng.pick::<&'static str>(&["a", "b", "list", "user", "q", "r"])
}

/// Something within the state, or a variable that holds something which may be.
fn place(rng: &mut Rng) -> String {
    match rng.below(8) {
        0..=3 => format!("w.v[{}]", rng.below(3)),
        4 => format!("w.s.{}", key(rng)),
        5 => "w.s.a.deep".to_owned(),
        6 => "w.s.list[1]".to_owned(),
        _ => "w.s.user.tags".to_owned(),
    }
}

fn fresh(rng: &mut Rng) -> &'static str {
    rng.pick::<&'static str>(&[
        "{ a: 1, z: 2 }",
        "[1, 2]",
        "[1, , 3]",
        "new Map([['a', { n: 1 }]])",
        "new Set([1])",
        "new Date(5)",
        "new Uint8Array([1, 2, 3])",
        "new Float64Array(2)",
        "new ArrayBuffer(4)",
        "new Error('e')",
        "(function () { return arguments })(1, { n: 2 })",
        "Object(5)",
        "/b/.exec('abc')",
        "new (class P { n = 1; deep = { m: 1 } })()",
        "Object.assign(Object.create(null), { n: 1 })",
    ])
}

/// A change, and the key that it sets.
fn change(rng: &mut Rng) -> (String, Option<&'static str>) {
    let key = key(rng);
    let mut sets = None;
    let change = one(rng, key, &mut sets);
    (change, sets)
}

fn one(rng: &mut Rng, key: &'static str, sets: &mut Option<&'static str>) -> String {
    let (at, other, of) = (place(rng), place(rng), rng.below(3));
    let name = *rng.pick(&["c", "n", "x", "deep", "name", "0", "1", "zz"]);
    match rng.below(34) {
        0..=3 => format!("w.v[{of}] = {other}"),
        4..=6 => format!("w.v[{of}] = {}", fresh(rng)),
        7..=11 => {
            *sets = Some(key);
            match rng.below(5) {
                0 | 1 => format!("w.s.{key} = {other}"),
                2 | 3 => format!("const o = {{ z: {other}, n: 1 }}; w.s.{key} = o; w.v[{of}] = o"),
                _ => format!("const o = [{other}, 2]; w.s.{key} = o; w.v[{of}] = o"),
            }
        }
        12..=14 => format!("{at}['{name}'] = 3"),
        15 => format!("{at}['{name}'] = {}", fresh(rng)),
        16 => format!("const o = {{ part: {other} }}; {at}.{name2} = o; w.v[{of}] = o", name2 = "held"),
        17 => format!("delete {at}['{name}']"),
        18 => format!("{at}.push(7, {{ n: 1 }})"),
        19 => format!("{at}.length = 1"),
        20 => format!("{at}.set('a', 9)"),
        21 => format!("{at}.add(4)"),
        22 => format!("{at}.setTime(86400000)"),
        23 => format!("{at}.fill(7)"),
        24 => format!("{at}[Symbol.for('s')] = 1"),
        25 => format!("Object.defineProperty({at}, 'hidden', {{ value: 1 }})"),
        26 => format!("Object.defineProperty({at}, 'given', {{ get() {{ return 1 }}, enumerable: true }})"),
        27 => format!(
            "Object.defineProperty({at}, '{name}', {{ value: 8, enumerable: true, writable: true, configurable: true }})"
        ),
        28 => format!("const o = {at}, was = o.n; delete o.n; o.n = was"),
        29 => format!("{at}.message = 'changed'"),
        30 => format!("{at}.reverse()"),
        31 => format!("Object.assign({at}, {{ q: 2, {name3}: [1] }})", name3 = "w"),
        32 => format!("Object.defineProperty({at}, 'n', {{ enumerable: false }})"),
        _ => format!("Object.freeze({at})"),
    }
}
