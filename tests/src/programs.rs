//! Random programs over `$state`: handlers that run the same operations on `$state` and on a plain object in its place.
//!
//! An operation is JavaScript on `s`, within `r(() => ...)`, which notes what it returns or the name of the error that it
//! throws. The plain object stands behind a Proxy that knows nothing but the six methods and Object.prototype.

use std::fmt::Write as _;

use nexus_protocol::message::SuspendMode;
use rmpv::Value;

use crate::rng::Rng;
use crate::values;

/// Runs `program` on both and returns what each noted, and what the plain object holds at the end.
const FRAME: &str = r"
function modelOf(data) {
  const methods = {
    get: k => data[String(k)], set: (k, v) => data[String(k)] = v, has: k => Object.hasOwn(data, k), keys: () => Object.keys(data),
    delete: k => Object.hasOwn(data, k) && delete data[k], update: (k, f) => { const v = f(data[String(k)]); return data[String(k)] = v },
  };
  return new Proxy(data, {
    get: (t, k) => typeof k === 'symbol' ? undefined : Object.hasOwn(t, k) ? t[k] : Object.hasOwn(methods, k) ? methods[k] : Object.prototype[k],
    set: (t, k, v) => { if (typeof k === 'symbol') throw new TypeError(k); t[k] = v; return true },
    defineProperty: (t, k, d) => { if (!('value' in d)) throw new TypeError(k); t[k] = d.value; return true },
    deleteProperty: (t, k) => delete t[k],
  });
}
async function execute(s, pause) {
  const noted = [];
  const r = f => {
    try {
      const v = f();
      noted.push(typeof v === 'function' ? 'a function' : Array.isArray(v) ? [...v] : v);
      if (typeof v === 'object' && v !== null) noted[noted.length - 1] = copyOf(v);
    } catch (e) { noted.push('throws ' + e.name) }
  };
  await program(s, r, pause);
  return noted;
}
// as it is now: it may be changed later
function copyOf(v) {
  if (Array.isArray(v)) return Array.from(v, copyOf);
  if (v instanceof Date) return new Date(v.getTime());
  if (v instanceof Uint8Array) return v.slice();
  if (v instanceof Map) return new Map([...v].map(([k, x]) => [k, copyOf(x)]));
  if (v instanceof Set) return new Set([...v].map(copyOf));
  if (typeof v !== 'object' || v === null) return v;
  const copy = {};
  for (const k of Object.keys(v)) Object.defineProperty(copy, k, { value: copyOf(v[k]), enumerable: true, writable: true, configurable: true });
  return copy;
}
// dates, bytes, collections and wrapped texts of a state take no properties, and arrays no named ones: here none does
for (const proto of [Date.prototype, Uint8Array.prototype, Map.prototype, Set.prototype, String.prototype, Array.prototype])
  for (const k of ['a', 'name', 'tags', 'deep', 'er', 'x', 'late', 'length', 0, 1, 2, 3])
    if (!(k in proto) && (proto !== Array.prototype || typeof k === 'string'))
      Object.defineProperty(proto, k, { set() { throw new TypeError(k) } });
const data = Object.create(null);
for (const k of Object.keys($args)) data[k] = $args[k];
const onState = await execute($state, () => $ext.test.pause());
const onModel = await execute(modelOf(data), () => null);
return { onState, onModel, data };
";

const KEYS: [&str; 26] = [
    "a",
    "b",
    "c",
    "list",
    "user",
    "a",
    "b",
    "list",
    "get",
    "set",
    "keys",
    "update",
    "has",
    "delete",
    "__proto__",
    "constructor",
    "toString",
    "then",
    "toJSON",
    "length",
    "0",
    "17",
    "ключ",
    "k:x",
    "",
    "hasOwnProperty",
];

/// A program and the state that it starts from.
#[derive(Debug)]
pub struct Program {
    pub source: String,
    pub state: Value,
    pub mode: SuspendMode,
}

impl Program {
    pub fn random(rng: &mut Rng) -> Self {
        let mut body = String::new();
        for _ in 0..5 + rng.below(40) {
            let _ = writeln!(body, "  {}", operation(rng));
        }
        // a handler reads what it does as text; sloppy and strict code write differently to what is frozen
        let strict = if rng.below(2) == 0 { "'use strict'; " } else { "" };
        let mode = if rng.below(2) == 0 { SuspendMode::Stack } else { SuspendMode::Await };
        let source = format!("async function program(s, r, pause) {{ {strict}let kept = null;\n{body}}}{FRAME}");
        Self { source, state: initial(rng), mode }
    }
}

fn initial(rng: &mut Rng) -> Value {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    for _ in 0..rng.below(8) {
        entries.push(((*rng.pick(&KEYS)).into(), values::random(rng, 3)));
    }
    for (key, value) in [("list", "[3,1,2]"), ("user", r#"{"name":"Ada","tags":["x"],"deep":{"er":{"n":1}}}"#)] {
        if rng.below(3) > 0 {
            let json: serde_json::Value = serde_json::from_str(value).expect("it is JSON");
            entries.push((key.into(), values::decode(&rmp_serde::to_vec_named(&json).expect("JSON fits"))));
        }
    }
    Value::Map(entries)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

/// How a key is named: by a dot where that is possible, or by brackets.
fn place(rng: &mut Rng) -> String {
    let key = *rng.pick(&KEYS);
    let is_name = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    if is_name && rng.below(2) == 0 { format!("s.{key}") } else { format!("s[{}]", quoted(key)) }
}

/// A place within a value, which may not be there.
fn inner(rng: &mut Rng) -> String {
    let steps = ["a", "name", "tags", "deep", "er", "x"];
    let mut path = match rng.below(3) {
        0 => "s.user".to_owned(),
        1 => "s.list".to_owned(),
        _ => place(rng),
    };
    for _ in 0..1 + rng.below(3) {
        let _ =
            if rng.below(3) == 0 { write!(path, "[{}]", rng.below(4)) } else { write!(path, ".{}", rng.pick(&steps)) };
    }
    path
}

/// A new value, of which nothing else holds a part.
fn fresh(rng: &mut Rng, depth: usize) -> String {
    let leaves = [
        "1",
        "'x'",
        "null",
        "true",
        "undefined",
        "-0",
        "NaN",
        "1.5",
        "'ключ \\ud83d\\ude00'",
        "12345678901234567890n",
        "9007199254740993n",
        "new Date(86400000)",
        "new Uint8Array([1, 2, 3])",
        "''",
        "'y'.repeat(300)",
        "2 ** 40",
        "-1e300",
        "'a' + 'b'",
        "Object('boxed')",
        "new Date(NaN)",
    ];
    if depth == 0 {
        return (*rng.pick(&leaves)).to_owned();
    }
    let mut one = || fresh(rng, depth - 1);
    let (a, b) = (one(), one());
    match rng.below(8) {
        0 => format!("[{a}, {b}]"),
        1 => format!("{{ a: {a}, name: {b} }}"),
        2 => format!("{{ tags: [{a}], deep: {{ er: {b} }} }}"),
        3 => format!("new Map([['k', {a}], ['l', {b}]])"),
        4 => "new Set([1, 'two', [3]])".to_owned(),
        5 => format!("Object.freeze({{ a: {a}, x: Object.freeze([{b}]) }})"),
        6 => format!("{{ ['__proto__']: {a}, constructor: {b}, f() {{}}, s: Symbol() }}"),
        _ => a,
    }
}

fn operation(rng: &mut Rng) -> String {
    let key = quoted(rng.pick::<&str>(&KEYS));
    let (at, within) = (place(rng), inner(rng));
    let value = {
        let depth = rng.below(3);
        fresh(rng, depth)
    };
    let mutator = *rng.pick(&[
        "push(7)",
        "pop()",
        "shift()",
        "unshift('u')",
        "sort()",
        "reverse()",
        "splice(1, 1, 'sp', 'liced')",
        "fill(0)",
        "copyWithin(0, 1)",
        "push({ x: [1] })",
        "length = 1",
        "length = 5",
        "with(0, 1)",
        "toSorted()",
        "map(x => x)",
        "at(-1)",
        "indexOf(1)",
        "concat([9])",
        "flat()",
        "join()",
    ]);
    let read = match rng.below(38) {
        0..=3 => at,
        4 | 5 => within,
        6..=9 => format!("{at} = {value}"),
        10..=12 => format!("{within} = {value}"),
        13 => format!("delete {at}"),
        14 => format!("delete {within}"),
        15 | 16 => format!("s.list.{mutator}"),
        17 => format!("{at}.{mutator}"),
        18 => format!("{key} in s"),
        19 => format!("s.get({key})"),
        20 => format!("s.set({key}, {value})"),
        21 => format!("s.delete({key})"),
        22 => format!("s.has({key})"),
        23 => "s.keys()".to_owned(),
        24 => format!("s.update({key}, v => [v, {value}].at({}) ?? null)", rng.below(2)),
        25 => format!("s.update({key}, v => {{ v.x = {value}; return v }})"),
        26 => "Object.keys(s)".to_owned(),
        27 => "({ ...s })".to_owned(),
        28 => "Object.fromEntries(Object.entries(s))".to_owned(),
        29 => "JSON.parse(JSON.stringify(s))".to_owned(),
        30 => format!(
            "{{ const {{ a, user: {{ name, ...more }} = {{}}, [{key}]: z, ...rest }} = s; return [a, name, more, z, rest] }}"
        ),
        31 => "{ const seen = []; for (const k in s) seen.push(k); return seen }".to_owned(),
        32 => format!("Object.hasOwn(s, {key}) + ' ' + Object.prototype.propertyIsEnumerable.call(s, {key})"),
        33 => format!("Object.assign(s, {{ [{key}]: {value}, b: {value} }}).b"),
        34 => format!("{at} ??= {value}"),
        35 => "{ s.count = (s.count ?? 0) + 1; return s.count++ + --s.count }".to_owned(),
        36 => format!("Object.freeze({at}) === {at}"),
        _ => format!("Reflect.getOwnPropertyDescriptor(s, {key})"),
    };
    let body = if read.starts_with("{ ") { read } else { format!("{{ return {read} }}") };
    match rng.below(30) {
        // the same object under two keys, and one that was taken out before it was replaced
        0 => "r(() => { s.b = s.a; return s.b === s.a });".to_owned(),
        1 => "kept = s.user; r(() => { kept.name = 'kept'; return s.user });".to_owned(),
        2 => format!("r(() => {{ s.user = {value}; kept.late = 1; return [s.user, kept] }});"),
        3 => "r(() => { s.c = { one: s.c, two: [1] }; s.c.two.push(s.c.two.length); return s.c });".to_owned(),
        4 | 5 => "await pause();".to_owned(),
        6 => format!(
            "r(() => {{ const x = s.list; delete s.list; x?.push(5); r(() => s.list); s.list = {value}; return [x, s.list] }});"
        ),
        _ => format!("r(() => {body});"),
    }
}
