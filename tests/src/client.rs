//! A blocking client that does what it is told: good requests, bad frames, half frames, nothing at all.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nexus_protocol::message::{
    self, CallFailure, Cancel, Check, ClientHello, CreateState, DisposeState, HelloLimits, Kill, PatchState,
    Precompile, Regions, Resolution, Resume, SnapshotState, Stats, Status, SuspendMode,
};
use nexus_protocol::{
    ClientMessage, ErrorCode, FrameDecoder, MAGIC, ProtocolVersion, RequestId, SidecarMessage, VersionRange, WireError,
    decode_sidecar,
};
use serde_json::Value;

use crate::run::{Run, pack, unpack};

const MAX_FRAME_BYTES: usize = 64 << 20;
/// What an absent list of effects means.
const EMPTY_LIST: &[u8] = &[0x90];
/// An answer that takes longer never comes.
const READ_LIMIT: Duration = Duration::from_secs(60);

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

/// See the module.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
    next_id: u32,
    /// Answers that came while another was waited for.
    early: VecDeque<Reply>,
    out: Vec<u8>,
}

impl Client {
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(READ_LIMIT)).expect("a timeout can be set");
        stream.set_write_timeout(Some(READ_LIMIT)).expect("a timeout can be set");
        Self {
            stream,
            decoder: FrameDecoder::new(MAX_FRAME_BYTES),
            next_id: 1,
            early: VecDeque::new(),
            out: Vec::new(),
        }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// How long an answer may take before the test fails.
    pub fn set_patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a timeout can be set");
    }

    // ---- writing ----

    /// Writes bytes as they are. False: the peer has closed.
    pub fn write_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a message and returns its id.
    pub fn send(&mut self, message: &ClientMessage<'_>) -> u32 {
        let id = if matches!(message, ClientMessage::Hello(_)) { 0 } else { self.take_id() };
        self.send_as(id, message);
        id
    }

    pub fn send_as(&mut self, id: u32, message: &ClientMessage<'_>) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        message.encode(RequestId(id), MAX_FRAME_BYTES, &mut out).expect("the message can be encoded");
        assert!(self.write_raw(&out), "the sidecar has closed the connection");
        self.out = out;
    }

    fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    // ---- reading ----

    /// The next frame; None: the sidecar has closed the connection.
    pub fn next_reply(&mut self) -> Option<Reply> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        self.read_reply()
    }

    fn read_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(body) = self.decoder.next_frame().expect("a sidecar sends good frames") {
                let envelope =
                    decode_sidecar(body).unwrap_or_else(|e| panic!("the sidecar sent a bad message: {e}: {body:02x?}"));
                return Some(Reply { id: envelope.id.0, answer: owned(envelope.message) });
            }
            match self.stream.read(self.decoder.spare()) {
                Ok(0) => return None,
                Ok(n) => self.decoder.advance(n),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                // a test beside this one that changes its user has every thread of the process take part
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("no answer within {READ_LIMIT:?}: {e}"),
            }
        }
    }

    /// Answers that nobody has waited for so far.
    pub fn early_replies(&self) -> &VecDeque<Reply> {
        &self.early
    }

    /// The answer to one request; others are kept.
    #[track_caller]
    pub fn wait(&mut self, id: u32) -> Answer {
        if let Some(at) = self.early.iter().position(|reply| reply.id == id) {
            return self.early.remove(at).expect("it is there").answer;
        }
        loop {
            let reply =
                self.read_reply().unwrap_or_else(|| panic!("the connection ended before request {id} was answered"));
            if reply.id == id {
                return reply.answer;
            }
            self.early.push_back(reply);
        }
    }

    /// As `wait`, but nothing that comes is taken: all answers are still there for `next_reply`.
    #[track_caller]
    pub fn wait_keeping(&mut self, id: u32) {
        let answer = self.wait(id);
        self.early.push_back(Reply { id, answer });
    }

    /// As `start`, with a sidecar that may be gone.
    pub fn try_start(&mut self, run: impl Into<Run>) -> Option<u32> {
        let (id, mut out) = (self.take_id(), Vec::new());
        run.into().message().encode(RequestId(id), MAX_FRAME_BYTES, &mut out).expect("the message can be encoded");
        self.write_raw(&out).then_some(id)
    }

    /// Whether nothing but the end of the stream is left.
    pub fn is_closed(&mut self) -> bool {
        self.next_reply().is_none()
    }

    // ---- whole conversations ----

    pub fn request(&mut self, message: &ClientMessage<'_>) -> Answer {
        let id = self.send(message);
        self.wait(id)
    }

    pub fn hello(&mut self) -> Answer {
        self.request(&ClientMessage::Hello(good_hello()))
    }

    pub fn hello_with(&mut self, magic: &str, min: u16, max: u16) -> Answer {
        self.request(&ClientMessage::Hello(hello(magic, min, max)))
    }

    /// As `hello`, with a sidecar that may not have taken the connection.
    pub fn try_hello(&mut self) -> bool {
        let mut out = Vec::new();
        let hello = ClientMessage::Hello(good_hello());
        hello.encode(RequestId(0), MAX_FRAME_BYTES, &mut out).expect("the message can be encoded");
        self.write_raw(&out) && matches!(self.next_reply(), Some(Reply { answer: Answer::Hello { .. }, .. }))
    }

    /// Sends without waiting.
    pub fn start(&mut self, run: impl Into<Run>) -> u32 {
        self.send(&run.into().message())
    }

    #[track_caller]
    pub fn run(&mut self, run: impl Into<Run>) -> Segment {
        let id = self.start(run);
        self.segment(id)
    }

    /// Runs it up to its first calls.
    #[track_caller]
    pub fn run_suspended(&mut self, run: Run) -> Segment {
        let segment = self.run(run);
        assert_eq!(segment.status, Status::Suspended, "{segment:?}");
        segment
    }

    #[track_caller]
    pub fn segment(&mut self, id: u32) -> Segment {
        match self.wait(id) {
            Answer::Result(segment) => segment,
            other => panic!("a result was expected: {other:?}"),
        }
    }

    /// Sends a resume with a value.
    pub fn start_resume(&mut self, suspension: &str, value: &Value) -> u32 {
        self.start_resume_bytes(suspension, &pack(value))
    }

    pub fn start_resume_bytes(&mut self, suspension: &str, value: &[u8]) -> u32 {
        self.send(&ClientMessage::Resume(Resume::new(suspension, Resolution::Value(Some(value)))))
    }

    #[track_caller]
    pub fn resume(&mut self, suspension: &str, value: &Value) -> Segment {
        let id = self.start_resume(suspension, value);
        self.segment(id)
    }

    #[track_caller]
    pub fn resume_failed(
        &mut self,
        suspension: &str,
        message: &str,
        name: Option<&str>,
        code: Option<&str>,
    ) -> Segment {
        let resolution = Resolution::Failure(CallFailure { message, name, code });
        let id = self.send(&ClientMessage::Resume(Resume::new(suspension, resolution)));
        self.segment(id)
    }

    #[track_caller]
    pub fn precompile(&mut self, source: &str) -> Result<Vec<u8>, WireError> {
        match self.request(&ClientMessage::Precompile(Precompile { source, handler_name: None, suspend_mode: None })) {
            Answer::Compiled { handle, .. } => Ok(handle),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn check(&mut self, source: &str) -> Result<Checked, WireError> {
        match self.request(&ClientMessage::Check(Check { source })) {
            Answer::Checked(checked) => Ok(checked),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn cancel_suspension(&mut self, suspension: &str) -> bool {
        self.done(&ClientMessage::Cancel(Cancel::Suspension(suspension)))
    }

    #[track_caller]
    pub fn cancel_request(&mut self, request: u32) -> bool {
        self.done(&ClientMessage::Cancel(Cancel::Request(request)))
    }

    #[track_caller]
    fn done(&mut self, message: &ClientMessage<'_>) -> bool {
        match self.request(message) {
            Answer::Done { cancelled } => cancelled,
            other => panic!("{other:?}"),
        }
    }

    /// The id of a state that was at its first version.
    #[track_caller]
    pub fn create_state(&mut self, state: &Value) -> String {
        match self.try_create_state(&pack(state)) {
            Ok((id, 1)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn try_create_state(&mut self, state: &[u8]) -> Result<(String, u64), WireError> {
        match self.request(&ClientMessage::CreateState(CreateState { state: Some(state), regions: Regions::NONE })) {
            Answer::StateCreated { id, version } => Ok((id, version)),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn patch_state(
        &mut self,
        id: &str,
        set: &Value,
        delete: &[&str],
        expect_version: Option<u64>,
    ) -> Result<u64, WireError> {
        let set = pack(set);
        let patch = PatchState { id, set: Some(&set), delete: delete.to_vec(), expect_version, regions: Regions::NONE };
        match self.request(&ClientMessage::PatchState(patch)) {
            Answer::StatePatched { version } => Ok(version),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn snapshot_state(&mut self, id: &str, keys: Option<&[&str]>) -> Result<(u64, Value), WireError> {
        let keys = keys.map(<[&str]>::to_vec);
        match self.request(&ClientMessage::SnapshotState(SnapshotState { id, keys, regions: Regions::NONE })) {
            Answer::StateSnapshot { version, state, .. } => Ok((version, unpack(&state))),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn dispose_state(&mut self, id: &str) -> bool {
        match self.request(&ClientMessage::DisposeState(DisposeState { id })) {
            Answer::StateDisposed { disposed } => disposed,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn stats(&mut self) -> Stats {
        match self.request(&ClientMessage::Stats) {
            Answer::Stats(stats) => stats,
            other => panic!("{other:?}"),
        }
    }

    /// What is there, as JSON: `executions` and `total`.
    #[track_caller]
    pub fn executions(&mut self) -> Value {
        match self.request(&ClientMessage::Executions) {
            Answer::Executions(all) => all,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn kill(&mut self, execution: u64) -> bool {
        self.done(&ClientMessage::Kill(Kill { execution }))
    }

    #[track_caller]
    pub fn metrics(&mut self) -> String {
        match self.request(&ClientMessage::Metrics) {
            Answer::Metrics(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn ping(&mut self) {
        let answer = self.request(&ClientMessage::Ping);
        assert!(matches!(answer, Answer::Pong), "{answer:?}");
    }

    /// A good request on this connection succeeds: whatever came before has broken nothing.
    #[track_caller]
    pub fn still_works(&mut self) {
        let run = Run::source("return $args.a + 1").args(&serde_json::json!({"a": 41}));
        assert_eq!(self.run(run).value(), 42);
    }
}

fn good_hello() -> ClientHello<'static> {
    let VersionRange { min, max } = VersionRange::SUPPORTED;
    hello(MAGIC, min.0, max.0)
}

fn hello(magic: &str, min: u16, max: u16) -> ClientHello<'_> {
    ClientHello { magic, min: ProtocolVersion(min), max: ProtocolVersion(max), client: "nexus-tests" }
}

fn owned(message: SidecarMessage<'_>) -> Answer {
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
        SidecarMessage::Result(r) => Answer::Result(Segment {
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
        }),
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

fn notes<'a>(notes: impl IntoIterator<Item = message::Note<'a>>) -> Vec<Note> {
    notes.into_iter().map(|note| (note.message.to_owned(), note.line, note.column)).collect()
}
