//! The vectors of `golden/`, read as files: what each of them says holds for this crate.

use std::path::Path;

use nexus_protocol::error::ErrorCode;
use nexus_protocol::{
    CapabilitySet, ClientMessage, FrameDecoder, FrameError, PayloadError, RequestId, SuspensionId, VersionRange,
    WireError, decode_client, decode_sidecar, payload,
};
use rmpv::Value as Pack;
use serde_json::{Value, json};

struct Vector {
    name: String,
    bytes: Vec<u8>,
    meaning: Value,
}

fn vectors(sort: &str) -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    names.sort();
    let read = |path: &std::path::PathBuf| Vector {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        bytes: from_hex(&std::fs::read_to_string(path.with_extension("hex")).unwrap()),
        meaning: serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
    };
    let vectors: Vec<_> = names.iter().map(read).filter(|vector| vector.meaning["sort"] == sort).collect();
    assert!(!vectors.is_empty(), "no vectors of sort {sort}");
    vectors
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn body(vector: &Vector) -> Vec<u8> {
    let mut decoder = FrameDecoder::new(64 << 20);
    decoder.push(&vector.bytes);
    let body = decoder.next_frame().unwrap().unwrap_or_else(|| panic!("{}: no whole frame", vector.name)).to_vec();
    assert!(decoder.is_at_boundary(), "{}: more than a frame", vector.name);
    body
}

/// Every fault of a client's message that is found before an engine is needed, as the sidecar would answer it.
#[allow(clippy::result_large_err, reason = "a test may copy a few bytes")]
fn answer(body: &[u8]) -> Result<(), (WireError, RequestId, bool)> {
    let envelope = decode_client(body).map_err(|error| (error.to_wire(), error.id, error.ends_connection()))?;
    let goes_on = |error| (error, envelope.id, false);
    let invalid = |message: String| goes_on(WireError::new(ErrorCode::InvalidArgument, message));
    match &envelope.message {
        ClientMessage::Hello(hello) => {
            VersionRange::SUPPORTED
                .negotiate(hello.versions())
                .map_err(|error| (WireError::new(ErrorCode::ProtocolError, error.to_string()), envelope.id, true))?;
        }
        ClientMessage::Execute(execute) => {
            execute.check().map_err(goes_on)?;
            CapabilitySet::parse(&execute.capabilities).map_err(|error| invalid(error.to_string()))?;
            let faulty =
                |key: &str, error: PayloadError| goes_on(WireError::new(error.code(), format!("{key}: {error}")));
            let entries = payload::map_entries(execute.state.unwrap_or(payload::EMPTY_MAP));
            for entry in entries.map_err(|error| faulty("state", error))? {
                entry.map_err(|error| faulty("state", error))?;
            }
            payload::validate(execute.args.unwrap_or(payload::NIL)).map_err(|error| faulty("args", error))?;
            payload::validate(execute.scope.unwrap_or(payload::EMPTY_MAP)).map_err(|error| faulty("scope", error))?;
        }
        ClientMessage::Resume(resume) => {
            // No suspension exists here, so an id and a text that is none end alike.
            let text = resume.suspension.parse::<SuspensionId>().map(|id| id.to_string());
            assert!(text.is_err() || text.as_deref() == Ok(resume.suspension));
            return Err(goes_on(WireError::new(ErrorCode::SuspensionError, "no such suspension")));
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn messages_decode_to_what_they_say_and_canonical_ones_encode_to_the_same_bytes() {
    for vector in vectors("message") {
        let (name, body) = (&vector.name, body(&vector));
        let raw = tagged(&rmpv::decode::read_value(&mut &body[..]).unwrap());
        assert_eq!(raw, json!([vector.meaning["kind"], vector.meaning["id"], vector.meaning["fields"]]), "{name}");
        let mut again = Vec::new();
        if vector.meaning["direction"] == "client" {
            let envelope = decode_client(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(json!(envelope.message.kind().number()), vector.meaning["kind"], "{name}");
            envelope.message.encode(envelope.id, 1 << 20, &mut again).unwrap();
        } else {
            let envelope = decode_sidecar(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(json!(envelope.message.kind().number()), vector.meaning["kind"], "{name}");
            envelope.message.encode(envelope.id, 1 << 20, &mut again).unwrap();
        }
        if vector.meaning["canonical"] == true {
            assert_eq!(again, vector.bytes, "{name}");
        }
    }
}

#[test]
fn every_kind_and_every_code_has_a_vector() {
    let vectors = vectors("message");
    for kind in nexus_protocol::Kind::ALL {
        assert!(vectors.iter().any(|vector| vector.meaning["kind"] == kind.number()), "{kind:?}");
    }
    for code in ErrorCode::ALL.iter().filter(|code| !code.is_of_clients()) {
        let has_it = |vector: &Vector| vector.meaning["fields"]["error"]["code"] == code.as_str();
        assert!(vectors.iter().any(has_it), "{code}");
    }
}

// shows P-malformed
#[test]
fn rejections_are_answered_as_they_say() {
    let vectors = vectors("rejection");
    assert!(vectors.len() >= 60);
    for vector in vectors {
        let name = &vector.name;
        let (error, id, closes) = answer(&body(&vector)).expect_err(name);
        let expected = &vector.meaning["error"];
        assert_eq!(error.code.as_str(), expected["code"], "{name}: {error}");
        assert_eq!(json!(id.0), expected["id"], "{name}: {error}");
        assert_eq!(json!(closes), expected["closes"], "{name}: {error}");
        let contains = expected["contains"].as_str().unwrap();
        assert!(error.message.contains(contains), "{name}: `{}` does not contain `{contains}`", error.message);
    }
}

#[test]
fn accepted_messages_are_not_answered_with_an_error() {
    for vector in vectors("message").iter().filter(|vector| vector.meaning["direction"] == "client") {
        let result = answer(&body(vector));
        assert!(result.is_ok() || vector.name.starts_with("message-resume"), "{}: {result:?}", vector.name);
    }
}

#[test]
fn streams_end_as_they_say_however_they_are_split() {
    for vector in vectors("stream") {
        let max = vector.meaning["maxFrameBytes"].as_u64().unwrap() as usize;
        for part_bytes in [1, 3, 4096, usize::MAX] {
            let mut decoder = FrameDecoder::new(max);
            let mut frames = Vec::new();
            let mut failure = None;
            for part in vector.bytes.chunks(part_bytes.min(vector.bytes.len().max(1))) {
                decoder.push(part);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(body)) => frames.push(body.len()),
                        Ok(None) => break,
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
            }
            let end = match failure {
                None if decoder.is_at_boundary() => "boundary",
                None => "incomplete",
                Some(FrameError::Empty) => "empty",
                Some(FrameError::TooLarge { .. }) => "too-large",
                Some(other) => panic!("{}: {other}", vector.name),
            };
            assert_eq!(json!(frames), vector.meaning["frames"], "{}", vector.name);
            assert_eq!(end, vector.meaning["end"], "{}", vector.name);
        }
    }
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for vector in vectors("message") {
        let body = body(&vector);
        for cut in 0..body.len() {
            assert!(decode_client(&body[..cut]).is_err(), "{} cut at {cut}", vector.name);
            assert!(decode_sidecar(&body[..cut]).is_err(), "{} cut at {cut}", vector.name);
        }
    }
}

#[test]
fn payloads_are_valid_and_mean_what_they_say() {
    for vector in vectors("payload") {
        assert_eq!(payload::validate(&vector.bytes), Ok(()), "{}", vector.name);
        assert_eq!(payload::scan(&vector.bytes), Ok(vector.bytes.len()), "{}", vector.name);
        let value = rmpv::decode::read_value(&mut &vector.bytes[..]).unwrap();
        assert_eq!(nested_or(&value, javascript(&value)), vector.meaning["value"], "{}", vector.name);
    }
}

#[test]
fn payload_rejections_are_refused_for_the_reason_that_they_say() {
    for vector in vectors("payload-rejection") {
        let reason = match payload::validate(&vector.bytes) {
            Err(PayloadError::Truncated) => "truncated",
            Err(PayloadError::TrailingBytes { .. }) => "trailing",
            Err(PayloadError::TooDeep) => "too-deep",
            Err(PayloadError::BadMarker { .. }) => "marker",
            Err(PayloadError::BadExtension { .. }) => "extension",
            Err(PayloadError::BadTimestamp { .. }) => "timestamp",
            Err(PayloadError::BadKey { .. }) => "key",
            Err(PayloadError::BadUtf8 { .. }) => "utf8",
            other => panic!("{}: {other:?}", vector.name),
        };
        assert_eq!(reason, vector.meaning["reason"], "{}", vector.name);
    }
}

/// Control values as the vectors write them.
fn tagged(value: &Pack) -> Value {
    match value {
        Pack::Integer(integer) => match integer.as_u64() {
            Some(large) if large >= 1 << 53 => json!({ "$int": large.to_string() }),
            _ => json!(integer.as_i64().unwrap()),
        },
        Pack::Array(items) => items.iter().map(tagged).collect(),
        Pack::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), tagged(value))).collect(),
        ),
        other => javascript(other),
    }
}

/// A payload as the handler sees it (SPEC 5).
fn javascript(value: &Pack) -> Value {
    match value {
        Pack::Nil => Value::Null,
        Pack::Boolean(value) => json!(value),
        Pack::Integer(integer) => {
            let exact = integer.as_i64().is_some_and(|value| value.unsigned_abs() < 1 << 53);
            if exact { json!(integer.as_i64()) } else { json!({ "$bigint": integer.to_string() }) }
        }
        Pack::F32(value) => number(f64::from(*value)),
        Pack::F64(value) => number(*value),
        Pack::String(text) => json!(text.as_str().unwrap()),
        Pack::Binary(bytes) => {
            json!({ "$bin": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
        Pack::Array(items) => items.iter().map(javascript).collect(),
        Pack::Map(entries) => map(entries),
        Pack::Ext(kind, bytes) => {
            assert_eq!(*kind, -1);
            json!({ "$date": milliseconds(bytes) })
        }
    }
}

fn map(entries: &[(Pack, Pack)]) -> Value {
    let key = |key: &Pack| match key {
        Pack::String(text) => text.as_str().unwrap().to_owned(),
        other => other.to_string(),
    };
    let entries: Vec<_> = entries.iter().map(|(name, value)| (key(name), javascript(value))).collect();
    if entries.iter().any(|(key, _)| key == "__proto__" || key.starts_with('$')) {
        return json!({ "$map": entries });
    }
    Value::Object(entries.into_iter().collect())
}

fn number(value: f64) -> Value {
    if value.is_nan() {
        json!({ "$number": "NaN" })
    } else if value.is_infinite() {
        json!({ "$number": if value > 0.0 { "Infinity" } else { "-Infinity" } })
    } else if value == 0.0 && value.is_sign_negative() {
        json!({ "$number": "-0" })
    } else if value.fract() == 0.0 && value.abs() < (1u64 << 53) as f64 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn milliseconds(bytes: &[u8]) -> i64 {
    let (nanoseconds, seconds) = match bytes.len() {
        4 => (0, i64::from(u32::from_be_bytes(bytes.try_into().unwrap()))),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().unwrap());
            (both >> 34, (both & ((1 << 34) - 1)) as i64)
        }
        12 => {
            let (nanoseconds, seconds) = bytes.split_at(4);
            (
                u64::from(u32::from_be_bytes(nanoseconds.try_into().unwrap())),
                i64::from_be_bytes(seconds.try_into().unwrap()),
            )
        }
        other => panic!("a timestamp of {other} bytes"),
    };
    seconds * 1000 + (nanoseconds / 1_000_000) as i64
}

fn nested_or(value: &Pack, otherwise: Value) -> Value {
    let mut levels = 0;
    let mut inner = value;
    while let Pack::Array(items) = inner {
        levels += 1;
        match items.as_slice() {
            [] => break,
            [one] => inner = one,
            _ => return otherwise,
        }
    }
    if levels >= 63 { json!({ "$nested": levels }) } else { otherwise }
}
