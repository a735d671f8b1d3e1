//! Random MessagePack values, and what JavaScript makes of them by section 5 of protocol/SPEC.md: written anew from that
//! page, on another implementation of MessagePack than the guest's.

use std::collections::BTreeMap;

use rmpv::Value;

use crate::rng::Rng;

/// Largest magnitude at which every integer is a Number.
const MAX_SAFE: i64 = (1 << 53) - 1;
/// Of a Date, in milliseconds.
const MAX_DATE_MS: f64 = 8.64e15;

/// Any value that a payload may hold, nested at most `depth` levels.
pub fn random(rng: &mut Rng, depth: usize) -> Value {
    let kinds = if depth == 0 { 10 } else { 13 };
    match rng.below(kinds) {
        0 => Value::Nil,
        1 => Value::Boolean(rng.below(2) == 0),
        2 | 3 => integer(rng),
        4 => Value::F64(float(rng)),
        5 => Value::F32(float(rng) as f32),
        6 | 7 => Value::String(text(rng).into()),
        8 => {
            let len = *rng.pick(&[0, 1, 31, 255, 256, 300]);
            Value::Binary((0..len).map(|_| rng.byte()).collect())
        }
        9 => timestamp(rng),
        10 => {
            let len = length(rng);
            Value::Array((0..len).map(|_| random(rng, depth - 1)).collect())
        }
        _ => {
            let len = length(rng);
            Value::Map((0..len).map(|_| (key(rng), random(rng, depth - 1))).collect())
        }
    }
}

fn length(rng: &mut Rng) -> usize {
    if rng.below(40) == 0 { *rng.pick(&[15, 16, 17, 31, 32, 200]) } else { rng.below(5) }
}

fn integer(rng: &mut Rng) -> Value {
    let edges: [i64; 12] =
        [0, 31, 127, 255, 65_535, u32::MAX as i64, MAX_SAFE, MAX_SAFE + 1, i64::MAX, i32::MAX as i64, 9, 1 << 40];
    let edge = *rng.pick(&edges);
    let near = edge.saturating_add(rng.below(5) as i64 - 2);
    match rng.below(4) {
        0 => Value::from(near),
        1 => Value::from(-near),
        2 => Value::from(u64::MAX - rng.below(3) as u64),
        _ => Value::from(i64::MIN + rng.below(3) as i64),
    }
}

fn float(rng: &mut Rng) -> f64 {
    let edges = [
        0.0,
        -0.0,
        1.5,
        -1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e300,
        5e-324,
        MAX_SAFE as f64,
        (1u64 << 53) as f64,
        3.0,
        0.1,
    ];
    if rng.below(2) == 0 { *rng.pick(&edges) } else { f64::from_bits(rng.next_u64()) }
}

fn text(rng: &mut Rng) -> String {
    let pieces = [
        "",
        "a",
        "key",
        "\0",
        "\u{7f}",
        "\u{80}",
        "é",
        "\u{ff}",
        "\u{100}",
        "漢字",
        "\u{ffff}",
        "😀",
        "\u{d7ff}",
        "\u{e000}",
        "__proto__",
        "\n",
        "x'\"\\",
    ];
    (0..rng.below(4)).map(|_| *rng.pick(&pieces)).collect::<String>().repeat(if rng.below(30) == 0 { 60 } else { 1 })
}

/// Of every type that may be one.
fn key(rng: &mut Rng) -> Value {
    match rng.below(12) {
        0 => integer(rng),
        1 => Value::Boolean(rng.below(2) == 0),
        2 => Value::F64(*rng.pick(&[1.5, -0.0, 2.0, -7.25, 1e21, f64::NAN, f64::INFINITY, 0.5])),
        3 => Value::String(rng.below(20).to_string().into()),
        4 => Value::String(
            (*rng.pick(&["length", "constructor", "toJSON", "then", "toString", "4294967295", "-0", "01"])).into(),
        ),
        _ => Value::String(text(rng).into()),
    }
}

fn timestamp(rng: &mut Rng) -> Value {
    let nanoseconds = *rng.pick(&[0u32, 1, 999_999, 1_000_000, 123_000_000, 999_999_999]);
    let bytes = match rng.below(3) {
        0 => (rng.next_u64() as u32).to_be_bytes().to_vec(),
        1 => (u64::from(nanoseconds) << 34 | (rng.next_u64() >> 30)).to_be_bytes().to_vec(),
        _ => {
            let edges = [
                0,
                -1,
                1,
                8_640_000_000_000,
                -8_640_000_000_000,
                8_640_000_000_001,
                i64::MAX,
                i64::MIN,
                -62_135_596_800,
            ];
            [&nanoseconds.to_be_bytes()[..], &rng.pick(&edges).to_be_bytes()[..]].concat()
        }
    };
    Value::Ext(-1, bytes)
}

/// What comes back of a value that went through a handler unchanged, with its maps in order.
pub fn through_javascript(value: &Value) -> Value {
    match value {
        Value::F32(f) => number(f64::from(*f)),
        Value::F64(f) => number(*f),
        Value::Ext(-1, bytes) => date(bytes),
        Value::Array(items) => Value::Array(items.iter().map(through_javascript).collect()),
        Value::Map(entries) => {
            // equal keys: the last one counts
            let map: BTreeMap<String, Value> =
                entries.iter().map(|(key, value)| (key_text(key), through_javascript(value))).collect();
            Value::Map(map.into_iter().map(|(key, value)| (key.into(), value)).collect())
        }
        other => other.clone(),
    }
}

fn number(f: f64) -> Value {
    let is_whole = f.fract() == 0.0 && f.abs() <= MAX_SAFE as f64 && !(f == 0.0 && f.is_sign_negative());
    if is_whole { Value::from(f as i64) } else { Value::F64(f) }
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.as_str().expect("it is UTF-8").to_owned(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::F64(f) if *f == 0.0 => "0".to_owned(),
        Value::F64(f) if f.is_nan() => "NaN".to_owned(),
        Value::F64(f) if f.is_infinite() => if *f > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::F64(f) if *f == 1e21 => "1e+21".to_owned(),
        Value::F64(f) => f.to_string(),
        other => panic!("no key: {other}"),
    }
}

/// A Date has milliseconds; what is finer is cut off, what is out of its range is no date.
fn date(bytes: &[u8]) -> Value {
    let (seconds, nanoseconds) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().expect("4 bytes"))), 0),
        8 => {
            let packed = u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
            ((packed & 0x3_ffff_ffff) as i64, packed >> 34)
        }
        _ => {
            let (n, s) = bytes.split_at(4);
            (
                i64::from_be_bytes(s.try_into().expect("8 bytes")),
                u64::from(u32::from_be_bytes(n.try_into().expect("4"))),
            )
        }
    };
    let ms = (seconds as f64 * 1000.0 + nanoseconds as f64 / 1e6).trunc();
    if ms.abs() > MAX_DATE_MS {
        return Value::Nil;
    }
    let (seconds, nanoseconds) = ((ms as i64).div_euclid(1000), (ms as i64).rem_euclid(1000) as u64 * 1_000_000);
    let packed = nanoseconds << 34 | seconds as u64;
    Value::Ext(
        -1,
        match seconds {
            0..=0xffff_ffff if nanoseconds == 0 => (seconds as u32).to_be_bytes().to_vec(),
            0..=0x3_ffff_ffff => packed.to_be_bytes().to_vec(),
            _ => [&(nanoseconds as u32).to_be_bytes()[..], &seconds.to_be_bytes()[..]].concat(),
        },
    )
}

/// The same with every map in the order of its keys.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by_key(|(key, _)| key.to_string());
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a vector takes everything");
    bytes
}

/// The value that the whole of `bytes` is.
pub fn decode(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).unwrap_or_else(|e| panic!("{e}: {bytes:02x?}"));
    assert!(rest.is_empty(), "{} bytes behind the value", rest.len());
    value
}

/// Whether two values are one, NaN being itself, whatever the order of maps.
pub fn same(a: &Value, b: &Value) -> bool {
    encode(&ordered(a)) == encode(&ordered(b))
}

fn ordered(value: &Value) -> Value {
    match sorted(value) {
        // one NaN stands for all of them
        Value::F64(f) if f.is_nan() => Value::F64(f64::NAN),
        Value::Array(items) => Value::Array(items.iter().map(ordered).collect()),
        Value::Map(entries) => Value::Map(entries.iter().map(|(key, value)| (key.clone(), ordered(value))).collect()),
        other => other,
    }
}
