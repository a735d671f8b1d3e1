//! Bodies to messages and back.
//!
//! Reading goes in three steps, each of which can only fail: the envelope (kind, id), the rules for control values
//! (`control`), the fields by their types (rmp-serde, one value at a time, so that an error names its key).
//!
//! Invariants: nothing is decoded that `control` did not accept; an error carries the request's id as soon as that was
//! readable; messages of the peer's other direction are unknown kinds. What it does not do: the order of messages.

use rmp::decode::{read_array_len, read_int};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::control::{self, ControlError};
use crate::encode::{EncodeError, LargeField, encode_frame, encode_frame_with, encode_map_with};
use crate::error::{ErrorCode, WireError};
use crate::ids::RequestId;
use crate::limits::{MAX_CLIENT_NAME_BYTES, MAX_CONTROL_DEPTH};
use crate::message::{
    ClientMessage, ErrorFields, Kind, NoFields, Results, SegmentResult, SidecarMessage, StateSnapshot,
};
use crate::payload::{MapEntries, map_entries};
use crate::pieces::Pieces;
use crate::version::MAGIC;

/// A message and the request that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<M> {
    /// Id.
    pub id: RequestId,
    /// Message.
    pub message: M,
}

/// A body that is no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    /// The request's id, or 0 where it could not be read.
    pub id: RequestId,
    /// What is wrong.
    #[source]
    pub reason: DecodeReason,
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeReason {
    /// Not an array of three with a kind and an id.
    #[error("the body is not [kind, id, fields]")]
    Envelope,
    /// Id 0 on a request, or another one on hello.
    #[error("id {id} with kind {kind:#04x}")]
    Id {
        /// Kind.
        kind: u8,
        /// Id.
        id: u32,
    },
    /// The fields break a rule for control values.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A field is missing, or its value is not what the key needs.
    #[error(transparent)]
    Fields(#[from] FieldsError),
    /// Hello of something else.
    #[error("hello without the magic \"{MAGIC}\"")]
    Magic,
    /// Hello with a name that is too long.
    #[error("hello with a client name of more than {MAX_CLIENT_NAME_BYTES} bytes")]
    ClientName,
    /// A kind that this build does not know, in a frame that is otherwise in order: the connection goes on.
    #[error("unknown kind {kind:#04x}")]
    UnknownKind {
        /// Kind.
        kind: u8,
    },
}

impl DecodeError {
    /// Whether the connection ends after the answer (SPEC 1).
    pub fn ends_connection(&self) -> bool {
        !matches!(self.reason, DecodeReason::UnknownKind { .. })
    }

    /// The answer.
    pub fn to_wire(&self) -> WireError {
        WireError::new(ErrorCode::ProtocolError, self.to_string())
    }
}

/// Why fields could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldsError {
    /// The top-level key, where one is to blame.
    key: Option<String>,
    message: String,
}

impl std::fmt::Display for FieldsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            Some(key) => write!(f, "`{key}`: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for FieldsError {}

impl serde::de::Error for FieldsError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self { key: None, message: message.to_string() }
    }
}

/// Reads what a client sent.
pub fn decode_client(body: &[u8]) -> Result<Envelope<ClientMessage<'_>>, DecodeError> {
    let raw = RawBody::read(body)?;
    let message = match raw.kind().filter(|kind| kind.is_from_client()) {
        Some(Kind::Hello) => {
            let hello: crate::message::ClientHello<'_> = raw.fields()?;
            if hello.magic != MAGIC {
                return Err(raw.error(DecodeReason::Magic));
            }
            if hello.client.len() > MAX_CLIENT_NAME_BYTES {
                return Err(raw.error(DecodeReason::ClientName));
            }
            ClientMessage::Hello(hello)
        }
        Some(Kind::Execute) => ClientMessage::Execute(raw.fields()?),
        Some(Kind::Precompile) => ClientMessage::Precompile(raw.fields()?),
        Some(Kind::Resume) => ClientMessage::Resume(raw.fields()?),
        Some(Kind::Cancel) => ClientMessage::Cancel(raw.fields()?),
        Some(Kind::Check) => ClientMessage::Check(raw.fields()?),
        Some(Kind::Stats) => raw.no_fields(ClientMessage::Stats)?,
        Some(Kind::Metrics) => raw.no_fields(ClientMessage::Metrics)?,
        Some(Kind::Ping) => raw.no_fields(ClientMessage::Ping)?,
        Some(Kind::Shutdown) => raw.no_fields(ClientMessage::Shutdown)?,
        Some(Kind::CreateState) => ClientMessage::CreateState(raw.fields()?),
        Some(Kind::PatchState) => ClientMessage::PatchState(raw.fields()?),
        Some(Kind::SnapshotState) => ClientMessage::SnapshotState(raw.fields()?),
        Some(Kind::DisposeState) => ClientMessage::DisposeState(raw.fields()?),
        Some(Kind::OpenArena) => ClientMessage::OpenArena(raw.fields()?),
        Some(Kind::Executions) => raw.no_fields(ClientMessage::Executions)?,
        Some(Kind::Kill) => ClientMessage::Kill(raw.fields()?),
        Some(Kind::ExecuteMany) => ClientMessage::ExecuteMany(raw.fields()?),
        _ => return Err(raw.error(DecodeReason::UnknownKind { kind: raw.kind_number })),
    };
    if raw.id.is_request() == matches!(message, ClientMessage::Hello(_)) {
        return Err(raw.error(DecodeReason::Id { kind: raw.kind_number, id: raw.id.0 }));
    }
    Ok(Envelope { id: raw.id, message })
}

/// Reads what a sidecar sent.
pub fn decode_sidecar(body: &[u8]) -> Result<Envelope<SidecarMessage<'_>>, DecodeError> {
    let raw = RawBody::read(body)?;
    let message = match raw.kind() {
        Some(Kind::HelloAnswer) => SidecarMessage::Hello(raw.fields()?),
        Some(Kind::Result) => SidecarMessage::Result(raw.fields()?),
        Some(Kind::Compiled) => SidecarMessage::Compiled(raw.fields()?),
        Some(Kind::Done) => SidecarMessage::Done(raw.fields()?),
        Some(Kind::Checked) => SidecarMessage::Checked(raw.fields()?),
        Some(Kind::StatsAnswer) => SidecarMessage::Stats(raw.fields()?),
        Some(Kind::MetricsAnswer) => SidecarMessage::Metrics(raw.fields()?),
        Some(Kind::Pong) => raw.no_fields(SidecarMessage::Pong)?,
        Some(Kind::StateCreated) => SidecarMessage::StateCreated(raw.fields()?),
        Some(Kind::StatePatched) => SidecarMessage::StatePatched(raw.fields()?),
        Some(Kind::StateSnapshot) => SidecarMessage::StateSnapshot(raw.fields()?),
        Some(Kind::StateDisposed) => SidecarMessage::StateDisposed(raw.fields()?),
        Some(Kind::Arena) => SidecarMessage::Arena(raw.fields()?),
        Some(Kind::ExecutionsAnswer) => SidecarMessage::Executions(raw.fields()?),
        Some(Kind::Results) => SidecarMessage::Results(raw.fields()?),
        Some(Kind::Logs) => SidecarMessage::Logs(raw.fields()?),
        Some(Kind::Error) => SidecarMessage::Error(raw.fields::<ErrorFields<WireError>>()?.error),
        _ => return Err(raw.error(DecodeReason::UnknownKind { kind: raw.kind_number })),
    };
    let id_is_wrong = match message {
        SidecarMessage::Hello(_) => raw.id.is_request(),
        SidecarMessage::Error(_) => false,
        _ => !raw.id.is_request(),
    };
    if id_is_wrong {
        return Err(raw.error(DecodeReason::Id { kind: raw.kind_number, id: raw.id.0 }));
    }
    Ok(Envelope { id: raw.id, message })
}

impl ClientMessage<'_> {
    /// The kind on the wire.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Execute(_) => Kind::Execute,
            Self::Precompile(_) => Kind::Precompile,
            Self::Resume(_) => Kind::Resume,
            Self::Cancel(_) => Kind::Cancel,
            Self::Check(_) => Kind::Check,
            Self::Stats => Kind::Stats,
            Self::Metrics => Kind::Metrics,
            Self::Ping => Kind::Ping,
            Self::Shutdown => Kind::Shutdown,
            Self::CreateState(_) => Kind::CreateState,
            Self::PatchState(_) => Kind::PatchState,
            Self::SnapshotState(_) => Kind::SnapshotState,
            Self::DisposeState(_) => Kind::DisposeState,
            Self::OpenArena(_) => Kind::OpenArena,
            Self::Executions => Kind::Executions,
            Self::Kill(_) => Kind::Kill,
            Self::ExecuteMany(_) => Kind::ExecuteMany,
        }
    }

    /// Appends the whole frame to `out`, as [`encode_frame`] does.
    pub fn encode(&self, id: RequestId, max_body_bytes: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = self.kind();
        match self {
            Self::Hello(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Execute(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Precompile(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Resume(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Cancel(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Check(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::CreateState(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::PatchState(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::SnapshotState(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::DisposeState(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::OpenArena(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Kill(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::ExecuteMany(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Stats | Self::Metrics | Self::Ping | Self::Shutdown | Self::Executions => {
                encode_frame(kind, id, &NoFields {}, max_body_bytes, out)
            }
        }
    }
}

impl SidecarMessage<'_> {
    /// The kind on the wire.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::HelloAnswer,
            Self::Result(_) => Kind::Result,
            Self::Compiled(_) => Kind::Compiled,
            Self::Done(_) => Kind::Done,
            Self::Checked(_) => Kind::Checked,
            Self::Stats(_) => Kind::StatsAnswer,
            Self::Metrics(_) => Kind::MetricsAnswer,
            Self::Pong => Kind::Pong,
            Self::StateCreated(_) => Kind::StateCreated,
            Self::StatePatched(_) => Kind::StatePatched,
            Self::StateSnapshot(_) => Kind::StateSnapshot,
            Self::StateDisposed(_) => Kind::StateDisposed,
            Self::Arena(_) => Kind::Arena,
            Self::Executions(_) => Kind::ExecutionsAnswer,
            Self::Results(_) => Kind::Results,
            Self::Logs(_) => Kind::Logs,
            Self::Error(_) => Kind::Error,
        }
    }

    /// Appends the whole frame to `out`, as [`encode_frame`] does.
    pub fn encode(&self, id: RequestId, max_body_bytes: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = self.kind();
        match self {
            Self::Hello(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Result(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Compiled(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Done(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Checked(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Stats(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Metrics(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Pong => encode_frame(kind, id, &NoFields {}, max_body_bytes, out),
            Self::StateCreated(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::StatePatched(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::StateSnapshot(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::StateDisposed(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Arena(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Executions(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Results(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Logs(fields) => encode_frame(kind, id, fields, max_body_bytes, out),
            Self::Error(error) => encode_frame(kind, id, &ErrorFields { error }, max_body_bytes, out),
        }
    }
}

impl SegmentResult<'_> {
    /// Appends the whole frame to `out`, with `large` as further fields, as [`encode_frame_with`] does.
    pub fn encode_with(
        &self,
        id: RequestId,
        large: &[(&str, LargeField<'_>)],
        max_body_bytes: usize,
        out: &mut Pieces,
    ) -> Result<(), EncodeError> {
        encode_frame_with(Kind::Result, id, self, large, max_body_bytes, out)
    }

    /// Appends its map alone, for a message that tells of several.
    pub fn encode_map_with(
        &self,
        large: &[(&str, LargeField<'_>)],
        max_bytes: usize,
        out: &mut Pieces,
    ) -> Result<(), EncodeError> {
        encode_map_with(self, large, max_bytes, out)
    }
}

impl Results<'_> {
    /// As [`SegmentResult::encode_with`].
    pub fn encode_with(
        &self,
        id: RequestId,
        large: &[(&str, LargeField<'_>)],
        max_body_bytes: usize,
        out: &mut Pieces,
    ) -> Result<(), EncodeError> {
        encode_frame_with(Kind::Results, id, self, large, max_body_bytes, out)
    }
}

impl StateSnapshot<'_> {
    /// As [`SegmentResult::encode_with`].
    pub fn encode_with(
        &self,
        id: RequestId,
        large: &[(&str, LargeField<'_>)],
        max_body_bytes: usize,
        out: &mut Pieces,
    ) -> Result<(), EncodeError> {
        encode_frame_with(Kind::StateSnapshot, id, self, large, max_body_bytes, out)
    }
}

/// A body of which the envelope was read and the fields obey the rules.
struct RawBody<'a> {
    kind_number: u8,
    id: RequestId,
    fields: &'a [u8],
}

impl<'a> RawBody<'a> {
    fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = body;
        let envelope = DecodeError { id: RequestId::CONNECTION, reason: DecodeReason::Envelope };
        let length = read_array_len(&mut rest).map_err(|_| envelope.clone())?;
        let kind_number: u8 = read_int(&mut rest).map_err(|_| envelope.clone())?;
        let id = RequestId(read_int(&mut rest).map_err(|_| envelope)?);
        if length != 3 {
            return Err(DecodeError { id, reason: DecodeReason::Envelope });
        }
        control::check(rest).map_err(|error| DecodeError { id, reason: error.into() })?;
        Ok(Self { kind_number, id, fields: rest })
    }

    fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind_number)
    }

    fn error(&self, reason: DecodeReason) -> DecodeError {
        DecodeError { id: self.id, reason }
    }

    fn fields<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        let fields = map_entries(self.fields)
            .map_err(|error| self.error(ControlError::from(error).into()))
            .map(|entries| Fields { entries, value: None })?;
        T::deserialize(fields).map_err(|error| self.error(error.into()))
    }

    fn no_fields<M>(&self, message: M) -> Result<M, DecodeError> {
        self.fields::<NoFields>().map(|NoFields {}| message)
    }
}

/// The fields map as a serde map whose values rmp-serde decodes one by one.
struct Fields<'a> {
    entries: MapEntries<'a>,
    value: Option<(&'a str, &'a [u8])>,
}

impl<'de> Deserializer<'de> for Fields<'de> {
    type Error = FieldsError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldsError> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = FieldsError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldsError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        let (key, value) = entry.map_err(serde::de::Error::custom)?;
        self.value = Some((key, value));
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FieldsError> {
        let (key, value) = self.value.take().unwrap_or_default();
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(value);
        // The depth is known to be in bounds; this is the belt to that pair of braces. rmp-serde counts an optional
        // value as a level of its own, hence the factor.
        deserializer.set_max_depth(MAX_CONTROL_DEPTH.saturating_mul(2));
        seed.deserialize(&mut deserializer)
            .map_err(|error| FieldsError { key: Some(key.to_owned()), message: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CallLimits, Cancel, Code, Execute, Resolution, Resume, Status};
    use crate::pieces::Shared;

    fn body(kind: u8, id: u8, fields: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x93];
        rmp::encode::write_uint(&mut bytes, u64::from(kind)).unwrap();
        bytes.push(id);
        bytes.extend_from_slice(fields);
        bytes
    }

    fn reason(body: &[u8]) -> String {
        decode_client(body).unwrap_err().to_string()
    }

    fn round_trip(message: &ClientMessage<'_>) {
        let mut frame = Vec::new();
        let id = RequestId(u32::from(!matches!(message, ClientMessage::Hello(_))));
        message.encode(id, 1 << 20, &mut frame).unwrap();
        assert_eq!(decode_client(&frame[4..]).as_ref().map(|envelope| &envelope.message), Ok(message));
    }

    #[test]
    fn requests_round_trip() {
        let mut execute = Execute::new(Code::Source("return 1"));
        round_trip(&ClientMessage::Execute(execute.clone()));
        execute.code = Code::Handler(&[1, 2]);
        execute.state = Some(&[0x80]);
        execute.capabilities = vec!["state:read:*", "ext:http"];
        execute.extensions = Some(vec![("http", vec!["get", "post"]), ("none", vec![])]);
        execute.limits = CallLimits { max_events: Some(3), ..CallLimits::default() };
        execute.strict_capabilities = true;
        execute.seed = Some(u64::MAX);
        round_trip(&ClientMessage::Execute(execute));
        for resolution in [Resolution::Value(None), Resolution::Value(Some(&[0xc3]))] {
            round_trip(&ClientMessage::Resume(Resume::new("x", resolution)));
        }
        round_trip(&ClientMessage::Cancel(Cancel::Request(7)));
        round_trip(&ClientMessage::Ping);
    }

    #[test]
    fn errors_name_the_key() {
        assert_eq!(reason(&body(6, 1, &[0x80])), "missing field `source`");
        let number = [b"\x81\xa6source".as_slice(), &[5]].concat();
        assert_eq!(reason(&body(6, 1, &number)), "`source`: invalid type: integer `5`, expected a str");
        let bin = [b"\x81\xa6source".as_slice(), &[0xc4, 1, b'x']].concat();
        assert_eq!(reason(&body(6, 1, &bin)), "`source`: invalid type: byte array, expected a str");
        let text_for_bin = [b"\x82\xa6source\xa0\xa5state".as_slice(), &[0xa1, b'x']].concat();
        assert_eq!(reason(&body(2, 1, &text_for_bin)), "`state`: invalid type: string \"x\", expected a bin");
        assert_eq!(reason(&body(2, 1, &[0x80])), "exactly one of `source` and `handler` has to be there");
    }

    #[test]
    fn an_error_carries_the_id_once_it_was_read() {
        assert_eq!(decode_client(&body(6, 9, &[0x80])).unwrap_err().id, RequestId(9));
        assert_eq!(decode_client(&[0x93, 6]).unwrap_err().id, RequestId::CONNECTION);
        assert_eq!(
            decode_client(&[0x92, 6, 9]).unwrap_err(),
            DecodeError { id: RequestId(9), reason: DecodeReason::Envelope }
        );
    }

    // shows P-unknown-keys
    #[test]
    fn unknown_keys_are_ignored_and_unknown_kinds_do_not_end_the_connection() {
        assert!(decode_client(&body(9, 1, &[0x81, 0xa3, b'n', b'e', b'w', 0x91, 1])).is_ok());
        let error = decode_client(&body(0x7f, 1, &[0x80])).unwrap_err();
        assert!(!error.ends_connection());
        assert!(!decode_client(&body(0x82, 1, &[0x80])).unwrap_err().ends_connection());
        assert!(decode_client(&body(0x7f, 1, &[0xc0])).unwrap_err().ends_connection());
    }

    #[test]
    fn structs_are_maps_and_never_arrays() {
        let limits_as_array = [b"\x82\xa6source\xa0\xa6limits".as_slice(), &[0x91, 1]].concat();
        assert!(reason(&body(2, 1, &limits_as_array)).starts_with("`limits`: invalid type: sequence"));
        assert_eq!(reason(&body(9, 1, &[0x90])), "the fields are not a map");
    }

    #[test]
    fn id_0_is_for_hello_alone() {
        assert!(matches!(decode_client(&body(9, 0, &[0x80])).unwrap_err().reason, DecodeReason::Id { .. }));
    }

    #[test]
    fn an_unknown_limit_is_well_formed_and_wrong() {
        let fields = [b"\x82\xa6source\xa0\xa6limits\x81\xa3max".as_slice(), &[1]].concat();
        let body = body(2, 1, &fields);
        let ClientMessage::Execute(execute) = decode_client(&body).unwrap().message else { panic!() };
        assert_eq!(execute.check().unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn large_fields_are_fields_like_the_others() {
        let mut value = Pieces::new();
        value.push(Shared::new(vec![0xc4, 2, 1]).into());
        value.own().push(2);
        let mut calls = Pieces::new();
        let calls_value =
            [b"\x91\x84\xa2id\xa1x\xa9extension\xa1e\xa6method\xa1m\xa4args\xc4\x01".as_slice(), &[0x90]].concat();
        calls.push(Shared::new(calls_value).into());
        let large = [("value", LargeField::Bin(&value)), ("suspensions", LargeField::Encoded(&calls))];
        for id in [1, 0x7f, 0x80, 0x100, 0x1_0000, u32::MAX] {
            let mut out = Pieces::new();
            out.own().push(7);
            let message = SegmentResult::new(Status::Suspended, 3);
            message.encode_with(RequestId(id), &large, 1000, &mut out).unwrap();
            let frame = out.to_vec();
            assert_eq!(frame[1..5], (frame.len() as u32 - 5).to_le_bytes());
            let read = decode_sidecar(&frame[5..]).unwrap();
            let SidecarMessage::Result(result) = read.message else { panic!() };
            assert_eq!((read.id.0, result.seq, result.value), (id, 3, Some(&[0xc4, 2, 1, 2][..])));
            assert_eq!((result.suspensions[0].id, result.suspensions[0].args), ("x", &[0x90][..]));
            // one byte too few, and nothing was written
            let mut out = Pieces::new();
            let most =
                (1..1000).find(|max| message.encode_with(RequestId(id), &large, *max, &mut out).is_ok()).unwrap();
            assert!(most >= frame.len() - 5 && most < frame.len() + 25);
            assert_eq!(out.to_vec(), frame[1..]);
        }
    }
}
