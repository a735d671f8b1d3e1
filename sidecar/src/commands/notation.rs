//! Payloads (MessagePack) as text: in JavaScript's notation for people, and as JSON for programs.
//!
//! The text is safe for a terminal: characters that could drive it are escaped. Payloads come from handlers, but through
//! the sidecar, which guarantees one well-formed value of at most 64 levels; anything else is an error, not a panic.

use std::fmt::Write;

use nexus_protocol::PayloadError;
use nexus_protocol::limits::MAX_PAYLOAD_DEPTH;
use rmpv::Value;
use rmpv::decode::read_value_with_max_depth;
use serde_json::{Value as Json, json};

use crate::observe::logging::escape;

/// What fits in one line stays in one line.
const LINE_WIDTH: usize = 88;
/// Bytes of a Uint8Array that are shown.
const SHOWN_BYTES: usize = 32;
/// The largest integer that a JavaScript number holds exactly.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
const TIMESTAMP_EXT: i8 = -1;

/// Reads the one value of a payload; an empty payload is nil.
pub fn decode(payload: &[u8]) -> Result<Value, PayloadError> {
    if payload.is_empty() {
        return Ok(Value::Nil);
    }
    nexus_protocol::payload::validate_shape(payload)?;
    let mut rest = payload;
    // Shape and depth are known to be right. rmpv counts two levels for one of ours, so its own limit cannot be met.
    Ok(read_value_with_max_depth(&mut rest, 2 * MAX_PAYLOAD_DEPTH + 2).unwrap_or(Value::Nil))
}

/// `value` as JavaScript would write it, lines after the first indented by `indent` spaces.
pub fn notation(value: &Value, indent: usize) -> String {
    let mut line = String::new();
    if write_inline(&mut line, value, LINE_WIDTH.saturating_sub(indent)) {
        return line;
    }
    let inner = indent + 2;
    let mut out = String::new();
    match value {
        Value::Array(items) => {
            out.push_str("[\n");
            for item in items {
                let _ = writeln!(out, "{:inner$}{},", "", notation(item, inner));
            }
            let _ = write!(out, "{:indent$}]", "");
        }
        Value::Map(entries) => {
            out.push_str("{\n");
            for (key, item) in entries {
                let _ = writeln!(out, "{:inner$}{}: {},", "", property(key), notation(item, inner));
            }
            let _ = write!(out, "{:indent$}}}", "");
        }
        _ => {
            let _ = write_inline(&mut out, value, usize::MAX);
        }
    }
    out
}

/// `value` as JSON, by the rules of `JSON.stringify` where it has one; bytes become an array of numbers.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Integer(number) => number.as_u64().map_or_else(|| json!(number.as_i64()), |number| json!(number)),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::String(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        Value::Binary(bytes) => json!(bytes),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key_text(key), to_json(value))).collect(),
        Value::Ext(kind, bytes) => timestamp(*kind, bytes).map_or(Json::Null, |time| json!(time)),
    }
}

/// Writes `value` in one line, or gives up as soon as it is longer than `width`.
fn write_inline(out: &mut String, value: &Value, width: usize) -> bool {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Integer(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs)).unwrap_or(0);
            let suffix = if magnitude > MAX_SAFE_INTEGER { "n" } else { "" };
            let _ = write!(out, "{number}{suffix}");
        }
        Value::F32(number) => write_float(out, f64::from(*number)),
        Value::F64(number) => write_float(out, *number),
        Value::String(text) => out.push_str(&quoted(&String::from_utf8_lossy(text.as_bytes()))),
        Value::Binary(bytes) => {
            let shown: Vec<String> = bytes.iter().take(SHOWN_BYTES).map(u8::to_string).collect();
            let more = if bytes.len() > SHOWN_BYTES { ", ..." } else { "" };
            let _ = write!(out, "Uint8Array({}) [{}{more}]", bytes.len(), shown.join(", "));
        }
        Value::Ext(kind, bytes) => match timestamp(*kind, bytes) {
            Some(time) => {
                let _ = write!(out, "Date({time})");
            }
            None => {
                let _ = write!(out, "Ext({kind}, {} bytes)", bytes.len());
            }
        },
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                if !write_inline(out, item, width) {
                    return false;
                }
            }
            out.push(']');
        }
        Value::Map(entries) if entries.is_empty() => out.push_str("{}"),
        Value::Map(entries) => {
            for (index, (key, item)) in entries.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "{ " });
                let _ = write!(out, "{}: ", property(key));
                if !write_inline(out, item, width) {
                    return false;
                }
            }
            out.push_str(" }");
        }
    }
    out.len() <= width
}

/// As JavaScript's Number.toString does, for the ranges where it differs from Rust's.
fn write_float(out: &mut String, number: f64) {
    let magnitude = number.abs();
    let _ = if number.is_infinite() {
        write!(out, "{}Infinity", if number < 0.0 { "-" } else { "" })
    } else if magnitude >= 1e21 {
        write!(out, "{}", format!("{number:e}").replace('e', "e+"))
    } else if magnitude != 0.0 && magnitude < 1e-6 {
        write!(out, "{number:e}")
    } else {
        write!(out, "{number}")
    };
}

/// A string literal. JSON escapes are JavaScript's too; what they leave and a terminal minds is escaped after them.
fn quoted(text: &str) -> String {
    escape(&Json::from(text).to_string())
}

fn property(key: &Value) -> String {
    let text = key_text(key);
    let mut chars = text.chars();
    let starts = chars.next().is_some_and(|ch| ch.is_ascii_alphabetic() || ch == '_' || ch == '$');
    let plain = starts && chars.all(|ch| ch.is_ascii_alphanumeric() || ch == '_' || ch == '$');
    if plain { text } else { quoted(&text) }
}

/// Keys are strings in every payload that the sidecar makes.
fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => other.to_string(),
    }
}

/// The three forms of MessagePack's timestamp, in RFC 3339.
fn timestamp(kind: i8, bytes: &[u8]) -> Option<String> {
    const SECONDS_MASK: u64 = (1 << 34) - 1;
    if kind != TIMESTAMP_EXT {
        return None;
    }
    let (seconds, nanos) = if let Ok(seconds) = <[u8; 4]>::try_from(bytes) {
        (i64::from(u32::from_be_bytes(seconds)), 0)
    } else if let Ok(both) = <[u8; 8]>::try_from(bytes) {
        let both = u64::from_be_bytes(both);
        ((both & SECONDS_MASK) as i64, (both >> 34) as i32)
    } else {
        let (nanos, seconds) = bytes.split_at_checked(4)?;
        let nanos = u32::from_be_bytes(nanos.try_into().ok()?);
        (i64::from_be_bytes(seconds.try_into().ok()?), i32::try_from(nanos).ok()?)
    };
    Some(jiff::Timestamp::new(seconds, nanos).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    fn text(value: &Value) -> String {
        notation(value, 0)
    }

    #[test]
    fn scalars_look_like_javascript() {
        for (value, expected) in [
            (Value::Nil, "null"),
            (Value::from(true), "true"),
            (Value::from(-5), "-5"),
            (Value::from(MAX_SAFE_INTEGER), "9007199254740991"),
            (Value::from(MAX_SAFE_INTEGER + 1), "9007199254740992n"),
            (Value::from(i64::MIN), "-9223372036854775808n"),
            (Value::from(0.1), "0.1"),
            (Value::from(-0.0), "-0"),
            (Value::from(f64::NAN), "NaN"),
            (Value::from(f64::NEG_INFINITY), "-Infinity"),
            (Value::from(1e21), "1e+21"),
            (Value::from(1.5e-7), "1.5e-7"),
            (Value::from("a\"b\nc"), r#""a\"b\nc""#),
            (Value::Binary(vec![1, 2]), "Uint8Array(2) [1, 2]"),
            (Value::Ext(-1, vec![0, 0, 0, 1]), "Date(1970-01-01T00:00:01Z)"),
            (Value::Array(vec![]), "[]"),
            (map(&[]), "{}"),
        ] {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn a_timestamp_of_every_form_is_a_date() {
        let half = ((500_000_000_u64 << 34) | 1).to_be_bytes().to_vec();
        let before = [&0_u32.to_be_bytes()[..], &(-1_i64).to_be_bytes()].concat();
        assert_eq!(text(&Value::Ext(-1, half)), "Date(1970-01-01T00:00:01.5Z)");
        assert_eq!(text(&Value::Ext(-1, before)), "Date(1969-12-31T23:59:59Z)");
        assert_eq!(text(&Value::Ext(-1, vec![0; 3])), "Ext(-1, 3 bytes)");
        assert_eq!(text(&Value::Ext(5, vec![0; 4])), "Ext(5, 4 bytes)");
    }

    #[test]
    fn keys_are_quoted_only_where_they_must_be() {
        let value = map(&[
            ("a", Value::from(1)),
            ("$b_2", Value::Nil),
            ("2c", Value::Nil),
            ("d e", Value::Nil),
            ("", Value::Nil),
        ]);
        assert_eq!(text(&value), r#"{ a: 1, $b_2: null, "2c": null, "d e": null, "": null }"#);
    }

    #[test]
    fn what_does_not_fit_a_line_is_broken_and_indented() {
        let long = Value::from("x".repeat(60));
        let value = map(&[("first", Value::Array(vec![long.clone(), Value::from(2)])), ("second", long)]);
        let x = "x".repeat(60);
        assert_eq!(text(&value), format!("{{\n  first: [\"{x}\", 2],\n  second: \"{x}\",\n}}"));
    }

    #[test]
    fn text_cannot_drive_the_terminal() {
        let value = map(&[("k\u{1b}", Value::from("\u{1b}[2J\u{202e}\u{9b}"))]);
        assert_eq!(text(&value), r#"{ "k\u001b": "\u001b[2J\u{202e}\u{9b}" }"#);
    }

    #[test]
    fn json_follows_stringify() {
        let value = map(&[
            ("n", Value::from(f64::NAN)),
            ("big", Value::from(u64::MAX)),
            ("bytes", Value::Binary(vec![1])),
            ("date", Value::Ext(-1, vec![0, 0, 0, 0])),
        ]);
        assert_eq!(to_json(&value), json!({"n": null, "big": u64::MAX, "bytes": [1], "date": "1970-01-01T00:00:00Z"}));
    }

    #[test]
    fn bytes_that_are_not_one_value_are_refused() {
        assert_eq!(decode(&[]), Ok(Value::Nil));
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        for bad in [&[0xc1][..], &[0x01, 0x02], &[0x92, 0x01], &nested(100_000)] {
            assert!(decode(bad).is_err());
        }
        assert!(matches!(decode(&nested(MAX_PAYLOAD_DEPTH)), Ok(Value::Array(_))));
    }
}
