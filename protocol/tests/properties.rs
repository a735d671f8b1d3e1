//! Properties of the codec: round trips, arbitrary bytes, arbitrary splits, agreement with other decoders.

use nexus_protocol::message::{
    CallFailure, CallLimits, Cancel, Code, Execute, ExecutionMetrics, PendingCall, Resolution, Resume, SegmentResult,
    Status,
};
use nexus_protocol::{
    Capability, CapabilitySet, ClientMessage, EffectList, ErrorCode, FrameDecoder, PayloadError, RequestId,
    SidecarMessage, WireError, decode_client, decode_sidecar, effects, limits, payload,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use rmpv::Value as Pack;

const MAX_BODY_BYTES: usize = 1 << 20;

/// What a map key may be.
fn keys() -> impl Strategy<Value = Pack> {
    prop_oneof![
        any::<bool>().prop_map(Pack::from),
        any::<i64>().prop_map(Pack::from),
        any::<u64>().prop_map(Pack::from),
        any::<f32>().prop_map(Pack::from),
        any::<f64>().prop_map(Pack::from),
        ".{0,40}".prop_map(Pack::from),
    ]
}

fn packs() -> impl Strategy<Value = Pack> {
    let leaf = prop_oneof![
        Just(Pack::Nil),
        any::<bool>().prop_map(Pack::from),
        any::<i64>().prop_map(Pack::from),
        any::<u64>().prop_map(Pack::from),
        (-40i64..300).prop_map(Pack::from),
        any::<f32>().prop_map(Pack::from),
        any::<f64>().prop_map(Pack::from),
        ".{0,40}".prop_map(Pack::from),
        vec(any::<u8>(), 0..300).prop_map(Pack::from),
        prop_oneof![Just(4usize), Just(8), Just(12)].prop_map(|length| Pack::Ext(-1, vec![0; length])),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![vec(inner.clone(), 0..8).prop_map(Pack::Array), vec((keys(), inner), 0..8).prop_map(Pack::Map),]
    })
}

fn encoded(value: &Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// What messages borrow from.
#[derive(Clone, Debug)]
struct Parts {
    texts: Vec<String>,
    bytes: Vec<Vec<u8>>,
    numbers: Vec<u64>,
    flag: bool,
    choice: usize,
}

fn parts() -> impl Strategy<Value = Parts> {
    (vec(".{0,30}", 8), vec(vec(any::<u8>(), 0..70), 5), vec(any::<u64>(), 8), any::<bool>(), 0usize..6)
        .prop_map(|(texts, bytes, numbers, flag, choice)| Parts { texts, bytes, numbers, flag, choice })
}

impl Parts {
    fn optional(&self, bit: u32) -> Option<u64> {
        (self.numbers[0] >> bit & 1 == 1).then_some(self.numbers[1])
    }

    fn client(&self) -> ClientMessage<'_> {
        let Self { texts, bytes, .. } = self;
        match self.choice {
            0 => ClientMessage::Ping,
            1 => ClientMessage::Cancel(Cancel::Suspension(&texts[0])),
            2 => ClientMessage::Resume(Resume::new(&texts[0], Resolution::Value(self.flag.then_some(&bytes[0])))),
            3 => {
                let failure = CallFailure { message: &texts[1], name: self.flag.then_some(&texts[2]), code: None };
                ClientMessage::Resume(Resume::new(&texts[0], Resolution::Failure(failure)))
            }
            _ => {
                let mut execute =
                    Execute::new(if self.flag { Code::Source(&texts[0]) } else { Code::Handler(&bytes[0]) });
                execute.panel_id = self.optional(0).map(|_| texts[1].as_str());
                execute.state = self.optional(1).map(|_| bytes[1].as_slice());
                execute.args = self.optional(2).map(|_| bytes[2].as_slice());
                execute.scope = self.optional(3).map(|_| bytes[3].as_slice());
                execute.capabilities = texts.iter().map(String::as_str).collect();
                execute.extensions = self.optional(4).map(|_| vec![(texts[3].as_str(), vec![texts[4].as_str()])]);
                execute.timeout_ms = self.optional(5);
                execute.limits = CallLimits {
                    max_events: self.optional(6),
                    max_log_bytes: self.optional(7),
                    ..CallLimits::default()
                };
                execute.strict_capabilities = self.flag;
                execute.seed = self.optional(8);
                ClientMessage::Execute(execute)
            }
        }
    }

    fn sidecar(&self) -> SidecarMessage<'_> {
        let Self { texts, bytes, numbers, .. } = self;
        let mut error =
            WireError::new(ErrorCode::ALL[self.choice], texts[0].as_str()).with_context_number("n", numbers[0]);
        if self.flag {
            error = error.with_name(texts[1].as_str()).with_location(3, 4).with_snippet(texts[2].as_str(), 1);
        }
        if self.choice == 0 {
            return SidecarMessage::Error(error);
        }
        let mut result = SegmentResult::new(Status::Suspended, self.choice as u32);
        result.value = self.optional(0).map(|_| bytes[0].as_slice());
        result.events = self.optional(1).map(|_| bytes[1].as_slice());
        result.logs = self.optional(2).map(|_| bytes[2].as_slice());
        let call = PendingCall { id: &texts[0], extension: &texts[1], method: &texts[2], args: &bytes[3] };
        result.suspensions = vec![call; self.choice];
        result.error = self.flag.then_some(error);
        result.metrics = ExecutionMetrics {
            duration_us: numbers[3],
            host_calls: vec![("a", numbers[4]), ("b", numbers[5])],
            compilation_time_us: self.optional(3),
            ..ExecutionMetrics::default()
        };
        SidecarMessage::Result(result)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_round_trip(parts in parts(), id in 1u32..) {
        let mut stream = Vec::new();
        parts.client().encode(RequestId(id), MAX_BODY_BYTES, &mut stream).unwrap();
        parts.sidecar().encode(RequestId(id), MAX_BODY_BYTES, &mut stream).unwrap();
        let mut decoder = FrameDecoder::new(MAX_BODY_BYTES);
        decoder.push(&stream);
        let envelope = decode_client(decoder.next_frame().unwrap().unwrap()).unwrap();
        prop_assert_eq!((envelope.id, envelope.message), (RequestId(id), parts.client()));
        let envelope = decode_sidecar(decoder.next_frame().unwrap().unwrap()).unwrap();
        prop_assert_eq!((envelope.id, envelope.message), (RequestId(id), parts.sidecar()));
    }

    /// What a changed byte makes of a message is refused, or is another message that round-trips.
    #[test]
    fn a_changed_message_is_refused_or_another_message(parts in parts(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut frame = Vec::new();
        parts.client().encode(RequestId(1), MAX_BODY_BYTES, &mut frame).unwrap();
        let mut body = frame.split_off(limits::FRAME_HEADER_BYTES);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = decode_sidecar(&body);
        if let Ok(envelope) = decode_client(&body) {
            let mut again = Vec::new();
            envelope.message.encode(envelope.id, MAX_BODY_BYTES, &mut again).unwrap();
            let read = decode_client(&again[limits::FRAME_HEADER_BYTES..]).unwrap();
            let same = read.message == envelope.message || format!("{:?}", read.message).contains("unknown: Some")
                || format!("{:?}", envelope.message).contains("unknown: Some");
            prop_assert!(same);
        }
    }

    #[test]
    fn arbitrary_bytes_panic_nobody(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode_client(&bytes);
        let _ = decode_sidecar(&bytes);
        let _ = payload::validate(&bytes);
        let _ = payload::as_str(&bytes);
        for entry in payload::map_entries(&bytes).into_iter().flatten() { let _ = entry; }
        for effect in effects::effects(&bytes).into_iter().flatten().flatten() { let _ = effect.text("op"); }
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&bytes);
        while let Ok(Some(body)) = decoder.next_frame() { let _ = decode_client(body); }
    }

    #[test]
    fn any_split_yields_the_same_frames(
        bodies in vec(vec(any::<u8>(), 1..2000), 0..8), cuts in vec(any::<prop::sample::Index>(), 0..12), owned in any::<bool>()
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            stream.extend_from_slice(&(body.len() as u32).to_le_bytes());
            stream.extend_from_slice(body);
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::new(MAX_BODY_BYTES);
        let mut read = Vec::new();
        for part in cuts.windows(2) {
            decoder.push(&stream[part[0]..part[1]]);
            if owned {
                while let Some(body) = decoder.next_owned().unwrap() { read.push(body.to_vec()); }
            } else {
                while let Some(body) = decoder.next_frame().unwrap() { read.push(body.to_vec()); }
            }
        }
        prop_assert_eq!(read, bodies);
        prop_assert!(decoder.is_at_boundary());
    }

    #[test]
    fn the_scanner_agrees_with_a_decoder_on_values(value in packs(), tail in vec(any::<u8>(), 0..4)) {
        let mut bytes = encoded(&value);
        let length = bytes.len();
        prop_assert_eq!(payload::validate(&bytes), Ok(()));
        for cut in (0..length).step_by(1 + length / 64) {
            prop_assert!(payload::scan(&bytes[..cut]).is_err());
        }
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(payload::scan(&bytes), Ok(length));
        prop_assert_eq!(payload::validate(&bytes).is_ok(), tail.is_empty());
    }

    /// Whatever `validate` accepts, rmpv and rmp-serde decode, to its last byte.
    #[test]
    fn what_the_scanner_accepts_can_be_decoded(value in packs(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut bytes = encoded(&value);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut rest = &bytes[..];
        let decoded = rmpv::decode::read_value_with_max_depth(&mut rest, 1024);
        match payload::validate(&bytes) {
            Ok(()) => {
                prop_assert!(decoded.is_ok());
                prop_assert!(rest.is_empty());
                prop_assert!(rmp_serde::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
            }
            // rmpv takes the marker that there is not for nil.
            Err(PayloadError::BadMarker { .. }) => {}
            // Refused although it can be decoded: something follows, or what SPEC 5 does not allow.
            Err(_) => {
                let allowed = decoded.is_ok_and(|value| rest.is_empty() && !is_outside_the_specification(&value));
                prop_assert!(!allowed);
            }
        }
    }

    #[test]
    fn entries_are_those_that_a_decoder_finds(map in btree_map(".{0,40}", packs(), 0..20)) {
        let entries: Vec<_> = map.iter().map(|(key, value)| (Pack::from(key.as_str()), value.clone())).collect();
        let bytes = encoded(&Pack::Map(entries));
        let found: Vec<_> = payload::map_entries(&bytes).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), encoded(value))).collect();
        let found: Vec<_> = found.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn effects_are_read_as_they_were_pushed(effects in vec((".{0,20}", packs(), option::of(any::<f64>())), 1..12)) {
        let mut list = EffectList::new();
        for (name, value, timestamp) in &effects {
            match timestamp {
                Some(timestamp) => list.push_event(name, &encoded(value), *timestamp),
                None => list.push_set(name, &encoded(value)),
            }
        }
        let bytes = list.payload().unwrap();
        prop_assert_eq!(payload::validate(bytes), Ok(()));
        for (read, (name, value, timestamp)) in effects::effects(bytes).unwrap().zip(&effects) {
            let read = read.unwrap();
            let (name_key, value_key) = if timestamp.is_some() { ("name", "payload") } else { ("key", "value") };
            prop_assert_eq!(read.text(name_key), Some(name.as_str()));
            prop_assert_eq!(read.field(value_key), Some(&encoded(value)[..]));
        }
    }

    // shows P-tokens
    #[test]
    fn a_token_grants_exactly_what_it_names(name in "[a-z:.*]{1,6}", other in "[a-z:.*]{1,6}") {
        let token = format!("state:read:{name}");
        let set = CapabilitySet::parse([token.as_str()]).unwrap();
        prop_assert_eq!(set.can_read_state(&other), name == "*" || name == other);
        prop_assert!(!set.can_write_state(&name) && !set.can_emit(&name));
        let parsed = Capability::parse(&token).unwrap();
        prop_assert_eq!(parsed.to_string(), token.as_str());
        prop_assert!(set.covers(&parsed));
    }
}

fn is_outside_the_specification(value: &Pack) -> bool {
    match value {
        Pack::String(text) => text.is_err(),
        Pack::Ext(-1, bytes) => {
            let first = bytes.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
            match bytes.len() {
                4 => false,
                8 => first >> 2 >= 1_000_000_000,
                12 => first >= 1_000_000_000,
                _ => true,
            }
        }
        Pack::Ext(..) => true,
        Pack::Array(items) => items.iter().any(is_outside_the_specification),
        Pack::Map(entries) => entries.iter().any(|(key, value)| {
            matches!(key, Pack::Nil | Pack::Binary(_) | Pack::Array(_) | Pack::Map(_) | Pack::Ext(..))
                || is_outside_the_specification(key)
                || is_outside_the_specification(value)
        }),
        _ => false,
    }
}
