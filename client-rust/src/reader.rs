//! The reading half of a connection: hello, then one thread that turns frames into answers.
//!
//! Invariants: the thread ends when the connection does, and then tells every waiting call how it came to that; it
//! owns the child and reaps it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{CLIENT_DEATH_DETAIL_MS, CLIENT_EXIT_GRACE_MS, DEFAULT_MAX_FRAME_BYTES};
use nexus_protocol::message::{Arena, ClientHello, Region, Regions, SegmentResult, StateSnapshot};
use nexus_protocol::{
    ClientMessage, FrameDecoder, MAGIC, RequestId, SidecarMessage, VersionMismatch, VersionRange, decode_sidecar,
};

use crate::attempt::Attempt;
use crate::child::SidecarChild;
use crate::compiled::{Checked, CompiledParts};
use crate::error::{Error, Gone, GoneReason, StartError};
use crate::executions::ExecutionInfo;
use crate::link::{Answer, Greeting, Link};
use crate::many;
use crate::segment::Segment;
use crate::told::{SidecarError, Violation};

const CLIENT_NAME: &str = concat!("nexus-client/", env!("CARGO_PKG_VERSION"));
const DEATH_DETAIL: Duration = Duration::from_millis(CLIENT_DEATH_DETAIL_MS);
const EXIT_GRACE: Duration = Duration::from_millis(CLIENT_EXIT_GRACE_MS);

/// Says hello and waits for the sidecar's. The decoder may hold more than that already.
pub(crate) fn greet(
    stream: &mut UnixStream,
    child: &mut Option<SidecarChild>,
    attempt: &Attempt,
    deadline: Instant,
) -> Result<(FrameDecoder, Greeting), StartError> {
    let mut decoder = FrameDecoder::new(DEFAULT_MAX_FRAME_BYTES as usize);
    match exchange(stream, &mut decoder, deadline) {
        Ok(greeting) => Ok((decoder, greeting)),
        Err(Failure::Start(error)) => Err(error),
        Err(Failure::Io(error)) => {
            let silent = error.kind() == io::ErrorKind::WouldBlock;
            let reason = match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    GoneReason::Closed
                }
                io::ErrorKind::WouldBlock => GoneReason::Io(Arc::new(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing within the time of a start",
                ))),
                _ => GoneReason::Io(Arc::new(error)),
            };
            // One that has said nothing, or that nobody wants any more, has nothing to bring to its end.
            let grace = if silent || attempt.is_ended() { Duration::ZERO } else { EXIT_GRACE };
            Err(StartError::NoHello(gone(reason, child, grace)))
        }
    }
}

enum Failure {
    Io(io::Error),
    Start(StartError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn exchange(stream: &mut UnixStream, decoder: &mut FrameDecoder, deadline: Instant) -> Result<Greeting, Failure> {
    let versions = VersionRange::SUPPORTED;
    let hello = ClientHello { magic: MAGIC, min: versions.min, max: versions.max, client: CLIENT_NAME };
    let mut frame = Vec::new();
    ClientMessage::Hello(hello)
        .encode(RequestId::CONNECTION, DEFAULT_MAX_FRAME_BYTES as usize, &mut frame)
        .map_err(io::Error::other)?;
    stream.write_all(&frame)?;
    loop {
        if let Some(body) =
            decoder.next_frame().map_err(|error| Failure::Start(StartError::Frame(Violation::new(error))))?
        {
            let greeting = greeting(body).map_err(Failure::Start)?;
            stream.set_read_timeout(None)?;
            return Ok(greeting);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        stream.set_read_timeout(Some(left))?;
        read_more(stream, decoder)?;
    }
}

fn greeting(body: &[u8]) -> Result<Greeting, StartError> {
    let hello = match decode_sidecar(body).map_err(|_| StartError::NotHello)?.message {
        SidecarMessage::Hello(hello) => hello,
        SidecarMessage::Error(error) => return Err(StartError::Refused(Box::new(SidecarError::of(error)))),
        _ => return Err(StartError::NotHello),
    };
    let chosen = VersionRange { min: hello.version, max: hello.version };
    VersionRange::SUPPORTED
        .negotiate(chosen)
        .map_err(|_| VersionMismatch { ours: VersionRange::SUPPORTED, theirs: chosen })
        .map_err(|mismatch| StartError::Version(Violation::new(mismatch)))?;
    Ok(Greeting {
        build: hello.build.to_owned(),
        engine: hello.engine.to_owned(),
        pid: hello.pid,
        debug: hello.debug,
        limits: hello.limits,
    })
}

/// Starts the thread.
pub(crate) fn spawn(
    mut stream: UnixStream,
    mut decoder: FrameDecoder,
    link: Arc<Link>,
    mut child: Option<SidecarChild>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("nexus-reader".to_owned()).spawn(move || {
        // Wakers of callers are caught where they are woken. Whatever else may panic, everybody is told and the child reaped.
        let reason = catch_unwind(AssertUnwindSafe(|| read_answers(&mut stream, &mut decoder, &link)))
            .unwrap_or(GoneReason::Panicked);
        // Nothing is read any more, so nobody may write and wait for an answer, and the sidecar has to end.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let asked_for = link.draining.load(Ordering::Relaxed);
        let (exit, log_tail) = child
            .as_mut()
            .map(|child| if asked_for { child.end(EXIT_GRACE) } else { child.look(DEATH_DETAIL) })
            .unwrap_or_default();
        link.close(&Error::Gone(Arc::new(Gone { reason, exit, log_tail })));
        // Calls have been told; one that hangs may take its time, and is reaped all the same.
        if let Some(child) = &mut child {
            child.end(EXIT_GRACE);
        }
    })
}

fn read_answers(stream: &mut UnixStream, decoder: &mut FrameDecoder, link: &Arc<Link>) -> GoneReason {
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(body)) => {
                    if let Err(reason) = take(body, link) {
                        return reason;
                    }
                }
                Ok(None) => break,
                Err(error) => return GoneReason::Framing(Violation::new(error)),
            }
        }
        if let Err(error) = read_more(stream, decoder) {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => GoneReason::Closed,
                _ => GoneReason::Io(Arc::new(error)),
            };
        }
    }
}

fn read_more(stream: &mut UnixStream, decoder: &mut FrameDecoder) -> io::Result<()> {
    loop {
        match stream.read(decoder.spare()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                decoder.advance(length);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn take(body: &[u8], link: &Arc<Link>) -> Result<(), GoneReason> {
    let mut envelope = decode_sidecar(body).map_err(|error| GoneReason::Malformed(Violation::new(error)))?;
    if let Some((segments, more)) = many::read(&mut envelope.message) {
        if !more {
            link.complete(envelope.id, Ok(Answer::Results(segments, None)));
        } else if !link.take_part(envelope.id, segments) {
            log::warn!("the sidecar told a part of request {}, which has none", envelope.id);
        }
        return Ok(());
    }
    if let SidecarMessage::Logs(told) = &envelope.message {
        if !link.take_logs(envelope.id, told.logs) {
            log::warn!("the sidecar told what request {} logs, which nobody hears", envelope.id);
        }
        return Ok(());
    }
    let answer = match envelope.message {
        SidecarMessage::Error(error) if envelope.id == RequestId::CONNECTION => {
            return Err(GoneReason::Refused(Box::new(SidecarError::of(error))));
        }
        SidecarMessage::Error(error) => Err(Error::sidecar(error)),
        SidecarMessage::Result(result) => segment(link, envelope.id, result),
        SidecarMessage::Compiled(compiled) => Ok(Answer::Compiled(Box::new(CompiledParts::of(&compiled)))),
        SidecarMessage::Checked(checked) => Ok(Answer::Checked(Checked::of(&checked))),
        SidecarMessage::Done(done) => Ok(Answer::Done(done.cancelled)),
        SidecarMessage::Stats(stats) => Ok(Answer::Stats(Box::new(stats))),
        SidecarMessage::Metrics(metrics) => Ok(Answer::Metrics(metrics.text.to_owned())),
        SidecarMessage::Pong => Ok(Answer::Pong),
        SidecarMessage::StateCreated(created) => Ok(Answer::StateCreated(created.id.to_owned())),
        SidecarMessage::StatePatched(patched) => Ok(Answer::StatePatched(patched.version)),
        SidecarMessage::StateSnapshot(snapshot) => state(link, envelope.id, &snapshot),
        SidecarMessage::StateDisposed(done) => Ok(Answer::StateDisposed(done.disposed)),
        SidecarMessage::Executions(all) => {
            Ok(Answer::Executions(all.executions.iter().map(ExecutionInfo::of).collect(), all.total))
        }
        SidecarMessage::Arena(Arena { generation, bytes, name }) => {
            Ok(Answer::Arena { generation, bytes, name: name.map(str::to_owned) })
        }
        _ => Err(Error::protocol("an answer of a kind that no request has")),
    };
    link.complete(envelope.id, answer);
    link.note_passed(body.len());
    Ok(())
}

fn segment(link: &Arc<Link>, id: RequestId, result: SegmentResult<'_>) -> Result<Answer, Error> {
    let Regions { value, state_mutations, .. } = result.regions;
    let is_twice = value.is_some() && result.value.is_some();
    let is_twice = is_twice || state_mutations.is_some() && result.state_mutations.is_some();
    let is_shared = !result.regions.is_empty();
    let mut segment = Segment::of(result);
    if is_shared {
        segment.put_shared(shared(link, id, value, is_twice)?, shared(link, id, state_mutations, is_twice)?);
    }
    link.sharing.note_answer(segment.largest_payload());
    Ok(Answer::Segment(Box::new(segment)))
}

fn state(link: &Arc<Link>, id: RequestId, snapshot: &StateSnapshot<'_>) -> Result<Answer, Error> {
    let state = match shared(link, id, snapshot.regions.state, snapshot.state.is_some())? {
        Some(copy) => copy,
        None => snapshot.state.unwrap_or_default().to_vec(),
    };
    link.sharing.note_answer(state.len());
    Ok(Answer::StateSnapshot(snapshot.version, state))
}

/// A copy of a payload that lies in shared memory. Its place is free once the request is complete.
fn shared(link: &Link, id: RequestId, region: Option<Region>, is_twice: bool) -> Result<Option<Vec<u8>>, Error> {
    let Some(region) = region else { return Ok(None) };
    if is_twice {
        return Err(Error::protocol("a payload in the message and in shared memory"));
    }
    let reply = link.reply_of(id).ok_or(Error::protocol("a region without a place that was lent"))?;
    reply.read(&region).map(Some).map_err(Error::protocol)
}

fn gone(reason: GoneReason, child: &mut Option<SidecarChild>, grace: Duration) -> Gone {
    let (exit, log_tail) = child.as_mut().map(|child| child.end(grace)).unwrap_or_default();
    Gone { reason, exit, log_tail }
}
