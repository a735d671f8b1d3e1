//! Requests over the socket from Rust, and what the process as a whole takes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nexus_protocol::message::{Resolution, Resume, SegmentResult, Status};
use nexus_protocol::{ClientMessage, FrameDecoder, RequestId, SidecarMessage, decode_sidecar};
use nexus_tests::bench::Sample;
use nexus_tests::{Options, Run};
use serde_json::{Map, Value, json};

use crate::{Scale, echo, memory, summary};

const MAX_FRAME: usize = 64 << 20;
const WIDTH: usize = 16;
const TURNS: usize = 10;

/// A connection that does as little as a client can: no table of requests, no owned copies.
pub(super) struct Lean {
    stream: UnixStream,
    decoder: FrameDecoder,
    out: Vec<u8>,
    pub(super) received_bytes: u64,
}

impl Lean {
    pub(super) fn over(stream: UnixStream) -> Self {
        let mut client = nexus_tests::Client::over(stream.try_clone().expect("a second handle"));
        client.hello();
        Self { stream, decoder: FrameDecoder::new(MAX_FRAME), out: Vec::new(), received_bytes: 0 }
    }

    pub(super) fn send(&mut self, id: u32, run: &Run) {
        self.out.clear();
        run.message().encode(RequestId(id), MAX_FRAME, &mut self.out).expect("a good message");
        self.stream.write_all(&self.out).expect("the sidecar is there");
    }

    pub(super) fn resume(&mut self, id: u32, suspension: &str, value: &[u8]) {
        self.out.clear();
        let message = ClientMessage::Resume(Resume::new(suspension, Resolution::Value(Some(value))));
        message.encode(RequestId(id), MAX_FRAME, &mut self.out).expect("a good message");
        self.stream.write_all(&self.out).expect("the sidecar is there");
    }

    pub(super) fn receive<T>(&mut self, f: impl FnOnce(u32, &SegmentResult<'_>) -> T) -> T {
        loop {
            if let Some(body) = self.decoder.next_frame().expect("a good frame") {
                let envelope = decode_sidecar(body).expect("a good message");
                let SidecarMessage::Result(result) = envelope.message else { panic!("{:?}", envelope.message) };
                return f(envelope.id.0, &result);
            }
            let n = self.stream.read(self.decoder.spare()).expect("the sidecar is there");
            assert!(n > 0, "the sidecar has gone");
            self.decoder.advance(n);
            self.received_bytes += n as u64;
        }
    }

    /// Sends, receives, and holds the value against what it has to be.
    pub(super) fn round_trip(&mut self, run: &Run, expected: &[u8]) {
        self.send(1, run);
        self.receive(|_, result| check(result, expected));
    }
}

fn check(result: &SegmentResult<'_>, expected: &[u8]) {
    assert_eq!(result.status, Status::Success, "{:?}", result.error);
    assert_eq!(result.value, Some(expected));
}

/// Round trips of one connection.
pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let server = echo::Server::start();
    let sidecar = Options::new().patient().flag("log", "error").listen();
    let mut lean = Lean::over(UnixStream::connect(sidecar.path()).expect("the sidecar is there"));
    let run = Run::source("return $args.a + 1").args(&json!({"a": 41}));
    let (mut echo, mut tiny, mut call) = (Sample::default(), Sample::default(), Sample::default());
    // in turns, so that whatever else the machine does meets all three
    for _ in 0..TURNS {
        echo.extend(&server.measure(scale.of(10_000) / TURNS));
        tiny.extend(&Sample::of(scale.of(1_000) / TURNS, scale.of(10_000) / TURNS, || lean.round_trip(&run, &[42])));
        call.extend(&calls(&mut lean, scale.of(5_000) / TURNS));
    }
    for (name, sample) in [("echo", echo), ("tiny", tiny), ("call", call)] {
        figures.insert(name.into(), summary(&sample));
    }
    pipelined(&mut lean, &run, scale.of(10_000));
    figures.insert("tiny16".into(), pipelined(&mut lean, &run, scale.of(50_000)));
    for (name, bytes) in [("state1KB", 1 << 10), ("state10MB", 10 << 20)] {
        let state = json!({"small": 7, "records": vec!["a record of sixty-four bytes, as it might be in a state of ours"; bytes / 66]});
        let run = Run::source("return $state.small").state(&state).grant(&["state:read:small"]);
        let sample = Sample::of(3, scale.of(200), || lean.round_trip(&run, &[7]));
        figures.insert(name.into(), summary(&sample));
    }
    figures
}

/// `WIDTH` requests are outstanding all the time.
pub(super) fn pipelined(lean: &mut Lean, run: &Run, total: usize) -> Value {
    let mut sent_at = Vec::with_capacity(total);
    let mut taken = Vec::with_capacity(total);
    let started = Instant::now();
    while taken.len() < total {
        while sent_at.len() < total && sent_at.len() - taken.len() < WIDTH {
            sent_at.push(Instant::now());
            lean.send(sent_at.len() as u32, run);
        }
        let id = lean.receive(|id, result| {
            check(result, &[42]);
            id
        });
        taken.push(sent_at[id as usize - 1].elapsed());
    }
    let rate = total as f64 / started.elapsed().as_secs_f64();
    let sample = Sample::from(taken);
    json!({ "p50Us": sample.p50_us(), "p99Us": sample.p99_us(), "perSecond": rate })
}

/// Execute, get the call, resume with its value.
fn calls(lean: &mut Lean, count: usize) -> Sample {
    let calling =
        Run::source("return (await $ext.math.next($args.a)) + 1").args(&json!({"a": 41})).grant(&["ext:math"]);
    Sample::of(count / 5, count, || {
        lean.send(1, &calling);
        let id = lean.receive(|_, result| {
            assert_eq!(result.status, Status::Suspended, "{:?}", result.error);
            result.suspensions[0].id.to_owned()
        });
        lean.resume(2, &id, &[41]);
        lean.receive(|_, result| check(result, &[42]));
    })
}

/// Start, memory.
pub fn process_figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let start = Sample::of(1, scale.of(10), || drop(Options::new().patient().flag("log", "error").child()));
    figures.insert("startToHello".into(), summary(&start));
    figures.extend(memory::figures(scale));
    figures
}
