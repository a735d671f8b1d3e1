//! What a sidecar sent, owned.

use std::collections::VecDeque;

use nexus_protocol::message::{self, HelloLimits, Regions, Stats, Status, SuspendMode};
use nexus_protocol::{ErrorCode, SidecarMessage, WireError};
use serde_json::Value;

use crate::run::unpack;

/// What an absent list of effects means.
const EMPTY_LIST: &[u8] = &[0x90];

/// An outstanding extension call.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: String,
    pub extension: String,
    pub method: String,
    pub args: Value,
    pub raw_args: Vec<u8>,
}

/// The calls of one execution that wait, the oldest first: an answer tells those alone that are new.
#[derive(Debug, Default)]
pub struct Waiting(VecDeque<Call>);

impl Waiting {
    /// The call to answer next, of an execution that is suspended with this segment.
    #[track_caller]
    pub fn next(&mut self, segment: &Segment) -> Call {
        assert_eq!(segment.status, Status::Suspended, "{segment:?}");
        self.0.extend(segment.calls.iter().cloned());
        self.0.pop_front().expect("a suspended execution has a call")
    }
}

/// A result, owned.
#[derive(Clone, Debug)]
pub struct Segment {
    pub status: Status,
    pub seq: u32,
    pub value: Option<Vec<u8>>,
    pub mutations: Value,
    pub state_version: Option<u64>,
    pub regions: Regions,
    pub raw_mutations: Vec<u8>,
    pub events: Value,
    pub raw_events: Vec<u8>,
    pub view_commands: Value,
    pub logs: Value,
    pub calls: Vec<Call>,
    pub error: Option<WireError>,
    pub duration_us: u64,
    pub queue_us: u64,
    pub memory_peak_bytes: u64,
    pub host_calls: Vec<(String, u64)>,
    pub cache_hit: bool,
    pub compilation_time_us: Option<u64>,
    /// Message, line, column.
    pub warnings: Vec<Note>,
}

/// Message, line, column.
pub type Note = (String, u32, u32);

/// What check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub capabilities: Vec<String>,
    pub certain: Vec<String>,
    pub mode: SuspendMode,
    pub reason: String,
    pub warnings: Vec<Note>,
    pub unparsed: Option<Note>,
}

impl Segment {
    /// The value of a handler that succeeded.
    #[track_caller]
    pub fn value(&self) -> Value {
        assert_eq!(self.status, Status::Success, "{self:?}");
        self.value.as_deref().map_or(Value::Null, unpack)
    }

    /// As `value`, with the types that JSON lacks.
    #[track_caller]
    pub fn raw_value(&self) -> &[u8] {
        assert_eq!(self.status, Status::Success, "{self:?}");
        self.value.as_deref().unwrap_or(&[0xc0])
    }

    #[track_caller]
    pub fn error(&self) -> &WireError {
        assert_eq!(self.status, Status::Error, "{self:?}");
        self.error.as_ref().expect("status error comes with an error")
    }

    #[track_caller]
    pub fn code(&self) -> ErrorCode {
        self.error().code
    }

    /// The first call that it made.
    #[track_caller]
    pub fn call(&self) -> &Call {
        assert_eq!(self.status, Status::Suspended, "{self:?}");
        self.calls.first().expect("the segment has made a call")
    }
}

/// What a sidecar sent, owned.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "tests make few of them")]
pub enum Answer {
    Hello { version: u16, pid: u32, debug: bool, engine: String, build: String, limits: HelloLimits },
    Result(Segment),
    Results { results: Vec<Segment>, more: bool },
    Logs(Value),
    Compiled { handle: Vec<u8>, capabilities: Vec<String>, mode: SuspendMode, cache_hit: bool },
    Done { cancelled: bool },
    Checked(Checked),
    Stats(Stats),
    Metrics(String),
    Pong,
    StateCreated { id: String, version: u64 },
    StatePatched { version: u64 },
    StateSnapshot { version: u64, state: Vec<u8>, regions: Regions },
    StateDisposed { disposed: bool },
    Arena { generation: u64, bytes: u64, name: Option<String> },
    Executions(Value),
    Error(WireError),
}

/// An answer, and the request that it belongs to (0: the connection).
#[derive(Clone, Debug)]
pub struct Reply {
    pub id: u32,
    pub answer: Answer,
}

fn owned_segment(r: message::SegmentResult<'_>) -> Segment {
    let list = |bytes: Option<&[u8]>| bytes.map_or(Value::Array(Vec::new()), loose);
    Segment {
        status: r.status,
        seq: r.seq,
        value: r.value.map(<[u8]>::to_vec),
        mutations: list(r.state_mutations),
        state_version: r.state_version,
        regions: r.regions,
        raw_mutations: r.state_mutations.unwrap_or(EMPTY_LIST).to_vec(),
        events: list(r.events),
        raw_events: r.events.unwrap_or(EMPTY_LIST).to_vec(),
        view_commands: list(r.view_commands),
        logs: list(r.logs),
        calls: r
            .suspensions
            .iter()
            .map(|c| Call {
                id: c.id.to_owned(),
                extension: c.extension.to_owned(),
                method: c.method.to_owned(),
                args: loose(c.args),
                raw_args: c.args.to_vec(),
            })
            .collect(),
        error: r.error,
        duration_us: r.metrics.duration_us,
        queue_us: r.metrics.queue_us,
        memory_peak_bytes: r.metrics.memory_peak_bytes,
        host_calls: r.metrics.host_calls.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        cache_hit: r.metrics.cache_hit,
        compilation_time_us: r.metrics.compilation_time_us,
        warnings: notes(r.warnings),
    }
}

pub(crate) fn owned(message: SidecarMessage<'_>) -> Answer {
    let texts = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
    let list = |bytes: Option<&[u8]>| bytes.map_or(Value::Array(Vec::new()), loose);
    match message {
        SidecarMessage::Hello(h) => Answer::Hello {
            version: h.version.0,
            pid: h.pid,
            debug: h.debug,
            engine: h.engine.to_owned(),
            build: h.build.to_owned(),
            limits: h.limits,
        },
        SidecarMessage::Result(r) => Answer::Result(owned_segment(r)),
        SidecarMessage::Results(r) => {
            Answer::Results { results: r.results.into_iter().map(owned_segment).collect(), more: r.more }
        }
        SidecarMessage::Logs(so_far) => Answer::Logs(list(Some(so_far.logs))),
        SidecarMessage::Compiled(c) => Answer::Compiled {
            handle: c.handler.to_vec(),
            capabilities: texts(c.capabilities),
            mode: c.suspend_mode,
            cache_hit: c.cache_hit,
        },
        SidecarMessage::Done(done) => Answer::Done { cancelled: done.cancelled },
        SidecarMessage::Checked(c) => Answer::Checked(Checked {
            capabilities: texts(c.capabilities),
            certain: texts(c.certain),
            mode: c.suspend_mode,
            reason: c.suspend_reason.unwrap_or_default().to_owned(),
            warnings: notes(c.warnings),
            unparsed: notes(c.unparsed).pop(),
        }),
        SidecarMessage::Stats(stats) => Answer::Stats(stats),
        SidecarMessage::Metrics(text) => Answer::Metrics(text.text.to_owned()),
        SidecarMessage::Pong => Answer::Pong,
        SidecarMessage::StateCreated(c) => Answer::StateCreated { id: c.id.to_owned(), version: c.version },
        SidecarMessage::StatePatched(p) => Answer::StatePatched { version: p.version },
        SidecarMessage::StateSnapshot(s) => Answer::StateSnapshot {
            version: s.version,
            state: s.state.unwrap_or_default().to_vec(),
            regions: s.regions,
        },
        SidecarMessage::Arena(a) => {
            Answer::Arena { generation: a.generation, bytes: a.bytes, name: a.name.map(str::to_owned) }
        }
        SidecarMessage::StateDisposed(d) => Answer::StateDisposed { disposed: d.disposed },
        SidecarMessage::Executions(all) => Answer::Executions(serde_json::json!(all)),
        SidecarMessage::Error(error) => Answer::Error(error),
        other => panic!("a message of a newer protocol: {other:?}"),
    }
}

/// JSON of any payload; what JSON lacks becomes its bytes in words.
fn loose(bytes: &[u8]) -> Value {
    rmp_serde::from_slice(bytes).unwrap_or_else(|_| {
        let mut rest = bytes;
        Value::String(rmpv::decode::read_value(&mut rest).map_or_else(|e| e.to_string(), |v| v.to_string()))
    })
}

pub(crate) fn notes<'a>(notes: impl IntoIterator<Item = message::Note<'a>>) -> Vec<Note> {
    notes.into_iter().map(|note| (note.message.to_owned(), note.line, note.column)).collect()
}
