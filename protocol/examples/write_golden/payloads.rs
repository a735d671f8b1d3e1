//! Payloads: every MessagePack type with its meaning in JavaScript, and bytes that are none.

use serde_json::{Value, json};

use crate::Vector;
use crate::bytes::{bin, map, nested_arrays, text};
use crate::tagged::hex;

pub(crate) fn all() -> Vec<Vector> {
    [scalars(), strings_and_bins(), containers(), timestamps(), rejections()].into_iter().flatten().collect()
}

fn scalars() -> Vec<Vector> {
    let bigint = |value: &str| json!({ "$bigint": value });
    let number = |value: &str| json!({ "$number": value });
    vec![
        sent("nil", &[0xc0], Value::Null),
        sent("true", &[0xc3], json!(true)),
        sent("false", &[0xc2], json!(false)),
        sent("fixint-0", &[0x00], json!(0)),
        sent("fixint-127", &[0x7f], json!(127)),
        sent("fixint-minus-1", &[0xff], json!(-1)),
        sent("fixint-minus-32", &[0xe0], json!(-32)),
        sent("uint-8", &[0xcc, 0xff], json!(255)),
        sent("uint-16", &[0xcd, 0xff, 0xff], json!(65_535)),
        sent("uint-32", &[0xce, 0xff, 0xff, 0xff, 0xff], json!(4_294_967_295u32)),
        sent("uint-64-exact", &wide(0xcf, (1 << 53) - 1), json!((1u64 << 53) - 1)),
        sent("uint-64-inexact", &wide(0xcf, 1 << 53), bigint("9007199254740992")),
        sent("uint-64-max", &wide(0xcf, u64::MAX), bigint("18446744073709551615")),
        sent("int-8", &[0xd0, 0x80], json!(-128)),
        sent("int-16", &[0xd1, 0x80, 0x00], json!(-32_768)),
        sent("int-32", &[0xd2, 0x80, 0, 0, 0], json!(-2_147_483_648i64)),
        sent("int-64-exact", &wide(0xd3, (-((1i64 << 53) - 1)) as u64), json!(-((1i64 << 53) - 1))),
        sent("int-64-inexact", &wide(0xd3, (-(1i64 << 53)) as u64), bigint("-9007199254740992")),
        sent("int-64-min", &wide(0xd3, i64::MIN as u64), bigint("-9223372036854775808")),
        read("uint-64-small", &wide(0xcf, 1), json!(1)),
        read("int-64-small", &wide(0xd3, 1), json!(1)),
        read("int-8-positive", &[0xd0, 0x05], json!(5)),
        sent("float-64", &float(0.1), json!(0.1)),
        sent("float-64-max", &float(f64::MAX), json!(f64::MAX)),
        sent("float-64-min", &float(5e-324), json!(5e-324)),
        sent("float-64-minus-0", &float(-0.0), number("-0")),
        sent("float-64-nan", &float(f64::NAN), number("NaN")),
        sent("float-64-infinity", &float(f64::INFINITY), number("Infinity")),
        sent("float-64-minus-infinity", &float(f64::NEG_INFINITY), number("-Infinity")),
        sent("float-64-2-53", &float(9_007_199_254_740_992.0), json!(9_007_199_254_740_992.0)),
        read("float-64-integer", &float(5.0), json!(5)),
        read("float-32", &[0xca, 0x3f, 0xc0, 0, 0], json!(1.5)),
        read("float-32-nan", &[0xca, 0x7f, 0xc0, 0, 0], number("NaN")),
    ]
}

fn strings_and_bins() -> Vec<Vector> {
    let text_vector = |name: &str, value: &str| sent(name, &text(value), json!(value));
    let bin_vector = |name: &str, value: &[u8]| sent(name, &bin(value), json!({ "$bin": hex(value) }));
    vec![
        text_vector("str-empty", ""),
        text_vector("str-31", &"a".repeat(31)),
        text_vector("str-32", &"a".repeat(32)),
        text_vector("str-255", &"b".repeat(255)),
        text_vector("str-256", &"b".repeat(256)),
        text_vector("str-65536", &"c".repeat(65_536)),
        text_vector("str-unicode", "żółw 🐢 \u{0}\u{feff}\u{10ffff}"),
        text_vector("str-quotes", "\"'\\\n\u{2028}"),
        read("str-long-form", &[0xdb, 0, 0, 0, 1, b'x'], json!("x")),
        bin_vector("bin-empty", &[]),
        bin_vector("bin-8", &[0, 127, 128, 255]),
        bin_vector("bin-16", &[7; 256]),
        bin_vector("bin-32", &[9; 65_536]),
        read("bin-long-form", &[0xc6, 0, 0, 0, 1, 5], json!({ "$bin": "05" })),
    ]
}

fn containers() -> Vec<Vector> {
    let array_16 = [vec![0xdc, 0, 16], vec![1; 16]].concat();
    let array_32 = [vec![0xdd, 0, 1, 0, 0], vec![2; 65_536]].concat();
    let keys: Vec<String> = (0..16).map(|n| format!("k{n:02}")).collect();
    let map_16 = map(&keys.iter().map(|key| (key.as_str(), vec![0x01])).collect::<Vec<_>>());
    let map_16_value: Value = Value::Object(keys.iter().map(|key| (key.clone(), json!(1))).collect());
    let proto = map(&[("__proto__", vec![0x01]), ("constructor", vec![0x02])]);
    let mixed = map(&[("a", vec![0x93, 0xc0, 0xc3, 0x05]), ("b", map(&[("c", text("d"))])), ("", vec![0x90])]);
    vec![
        sent("array-empty", &[0x90], json!([])),
        sent("array-16", &array_16, json!(vec![1; 16])),
        sent("array-32", &array_32, json!(vec![2; 65_536])),
        read("array-long-form", &[0xdd, 0, 0, 0, 1, 0xc0], json!([null])),
        sent("map-empty", &[0x80], json!({})),
        sent("map-16", &map_16, map_16_value),
        sent("map-mixed", &mixed, json!({ "a": [null, true, 5], "b": { "c": "d" }, "": [] })),
        sent("map-proto", &proto, json!({ "$map": [["__proto__", 1], ["constructor", 2]] })),
        read("map-long-form", &[0xdf, 0, 0, 0, 1, 0xa1, b'k', 1], json!({ "k": 1 })),
        read("map-key-int", &[0x82, 5, 1, 0xff, 2], json!({ "5": 1, "-1": 2 })),
        read("map-key-float", &[&[0x81][..], &float(1.5), &[1]].concat(), json!({ "1.5": 1 })),
        read("map-key-bool", &[0x82, 0xc3, 1, 0xc2, 2], json!({ "true": 1, "false": 2 })),
        read("map-key-twice", &[0x82, 0xa1, b'k', 1, 0xa1, b'k', 2], json!({ "k": 2 })),
        sent("depth-63", &nested_arrays(63), json!({ "$nested": 63 })),
        sent("depth-64", &nested_arrays(64), json!({ "$nested": 64 })),
        sent("depth-64-empty", &[vec![0x91; 63], vec![0x90]].concat(), json!({ "$nested": 64 })),
    ]
}

fn timestamps() -> Vec<Vector> {
    let date = |ms: i64| json!({ "$date": ms });
    let t64 =
        |nanoseconds: u64, seconds: u64| [&[0xd7, 0xff][..], &((nanoseconds << 34) | seconds).to_be_bytes()].concat();
    let t96 = |nanoseconds: u32, seconds: i64| {
        [&[0xc7, 12, 0xff][..], &nanoseconds.to_be_bytes(), &seconds.to_be_bytes()].concat()
    };
    vec![
        sent("date-epoch", &[0xd6, 0xff, 0, 0, 0, 0], date(0)),
        sent("date-seconds", &[0xd6, 0xff, 0x65, 0x53, 0xf1, 0x00], date(1_700_000_000_000)),
        sent("date-2106", &[0xd6, 0xff, 0xff, 0xff, 0xff, 0xff], date(4_294_967_295_000)),
        sent("date-milliseconds", &t64(123_000_000, 1_700_000_000), date(1_700_000_000_123)),
        sent("date-before-1970", &t96(0, -1), date(-1000)),
        sent("date-before-1970-ms", &t96(500_000_000, -1), date(-500)),
        sent("date-largest", &t96(0, 8_640_000_000_000), date(8_640_000_000_000_000)),
        read("date-nanoseconds", &t64(123_456_789, 1), date(1_123)),
        read("date-ext-8-of-4", &[0xc7, 4, 0xff, 0, 0, 0, 1], date(1_000)),
        read("date-64-whole-seconds", &t64(0, 1), date(1_000)),
    ]
}

fn rejections() -> Vec<Vector> {
    let reject = |name: &str, bytes: &[u8], reason: &str| {
        let meaning = json!({ "about": format!("no payload: {name}"), "sort": "payload-rejection", "reason": reason });
        Vector::new(format!("payload-reject-{name}"), bytes.to_vec(), meaning)
    };
    vec![
        reject("nothing", &[], "truncated"),
        reject("never-used", &[0xc1], "marker"),
        reject("never-used-inside", &[0x92, 0x01, 0xc1], "marker"),
        reject("two-values", &[0xc0, 0xc0], "trailing"),
        reject("garbage-behind", &[0x80, 0xc1], "trailing"),
        reject("uint-16-cut", &[0xcd, 0x01], "truncated"),
        reject("float-cut", &[0xcb, 0, 0, 0], "truncated"),
        reject("str-cut", &[0xa3, b'a', b'b'], "truncated"),
        reject("str-8-without-length", &[0xd9], "truncated"),
        reject("str-claims-2-32", &[0xdb, 0xff, 0xff, 0xff, 0xff], "truncated"),
        reject("bin-claims-2-32", &[0xc6, 0xff, 0xff, 0xff, 0xff, 0], "truncated"),
        reject("array-cut", &[0x92, 0x01], "truncated"),
        reject("array-claims-2-32", &[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0], "truncated"),
        reject("map-claims-2-32", &[0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0], "truncated"),
        reject("map-value-missing", &[0x81, 0xa1, b'k'], "truncated"),
        reject("ext-cut", &[0xd7, 0xff, 0, 0], "truncated"),
        reject("ext-0", &[0xd4, 0x00, 0x00], "extension"),
        reject("ext-of-others", &[0xd6, 0x01, 0, 0, 0, 0], "extension"),
        reject("ext-minus-2", &[0xd6, 0xfe, 0, 0, 0, 0], "extension"),
        reject("timestamp-of-1", &[0xd4, 0xff, 0], "extension"),
        reject("timestamp-of-0", &[0xc7, 0, 0xff], "extension"),
        reject("timestamp-of-16", &[&[0xd8, 0xff][..], &[0; 16]].concat(), "extension"),
        reject(
            "timestamp-64-nanoseconds",
            &[&[0xd7, 0xff][..], &(1_000_000_000u64 << 34).to_be_bytes()].concat(),
            "timestamp",
        ),
        reject("timestamp-96-nanoseconds", &[&[0xc7, 12, 0xff][..], &[0xff; 4], &[0; 8]].concat(), "timestamp"),
        reject("key-nil", &[0x81, 0xc0, 1], "key"),
        reject("key-array", &[0x81, 0x90, 1], "key"),
        reject("key-map", &[0x81, 0x80, 1], "key"),
        reject("key-bin", &[0x81, 0xc4, 1, b'k', 1], "key"),
        reject("key-timestamp", &[0x81, 0xd6, 0xff, 0, 0, 0, 0, 1], "key"),
        reject("key-nil-inside", &[0x92, 0xc0, 0x82, 0xa1, b'k', 0x80, 0xc0, 1], "key"),
        reject("depth-65", &nested_arrays(65), "too-deep"),
        reject("depth-65-empty", &[vec![0x91; 64], vec![0x90]].concat(), "too-deep"),
        reject("depth-65-maps", &[[0x81, 0xa1, b'k'].repeat(64), vec![0x80]].concat(), "too-deep"),
        reject("depth-100000", &nested_arrays(100_000), "too-deep"),
        reject("depth-cut", &[0x92; 200], "too-deep"),
        reject("utf8-lone-continuation", &[0xa1, 0x80], "utf8"),
        reject("utf8-overlong", &[0xa2, 0xc0, 0xaf], "utf8"),
        reject("utf8-surrogate", &[0xa3, 0xed, 0xa0, 0x80], "utf8"),
        reject("utf8-key", &[0x81, 0xa1, 0xff, 0xc0], "utf8"),
    ]
}

/// A payload that a sidecar of ours also sends for that value.
fn sent(name: &str, bytes: &[u8], value: Value) -> Vector {
    payload(name, bytes, value, true)
}

/// A payload that is only read.
fn read(name: &str, bytes: &[u8], value: Value) -> Vector {
    payload(name, bytes, value, false)
}

fn payload(name: &str, bytes: &[u8], value: Value, canonical: bool) -> Vector {
    let meaning =
        json!({ "about": format!("payload: {name}"), "sort": "payload", "canonical": canonical, "value": value });
    Vector::new(format!("payload-{name}"), bytes.to_vec(), meaning)
}

fn wide(marker: u8, value: u64) -> Vec<u8> {
    [&[marker][..], &value.to_be_bytes()].concat()
}

fn float(value: f64) -> Vec<u8> {
    wide(0xcb, value.to_bits())
}
