//! A blocking client that does what it is told: good requests, bad frames, half frames, nothing at all.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nexus_protocol::message::{
    CallFailure, Cancel, Check, ClientHello, CreateState, DisposeState, Kill, PatchState, Precompile, Regions,
    Resolution, Resume, SnapshotState, Stats, Status,
};
use nexus_protocol::{
    ClientMessage, ErrorCode, FrameDecoder, MAGIC, ProtocolVersion, RequestId, VersionRange, WireError, decode_sidecar,
};
use serde_json::Value;

use crate::answer::owned;
pub use crate::answer::{Answer, Call, Checked, Note, Reply, Segment, Waiting};
use crate::run::{Run, pack, unpack};

const MAX_FRAME_BYTES: usize = 64 << 20;
/// An answer that takes longer never comes.
const READ_LIMIT: Duration = Duration::from_secs(60);

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

    /// Whether a request goes with the process that had it: it is told so, or the connection ends where it cannot be told for certain.
    pub fn is_lost(&mut self, id: u32) -> bool {
        match self.next_reply() {
            None => true,
            Some(Reply { id: answered, answer: Answer::Result(segment) }) => {
                answered == id && segment.error.is_some_and(|error| error.code == ErrorCode::WorkerLost)
            }
            Some(_) => false,
        }
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

    /// The results of an executeMany, and what those are told that have none.
    #[track_caller]
    pub fn results(&mut self, id: u32) -> (Vec<Segment>, Option<WireError>) {
        let mut all = Vec::new();
        loop {
            match self.wait(id) {
                Answer::Results { results, more } => {
                    all.extend(results);
                    if !more {
                        return (all, None);
                    }
                }
                Answer::Error(error) => return (all, Some(error)),
                other => panic!("results were expected: {other:?}"),
            }
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
