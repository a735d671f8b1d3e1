//! Whom the commands ask; and a blocking client of a running sidecar: one connection, one request at a time.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexus_protocol::limits::DEFAULT_MAX_FRAME_BYTES;
use nexus_protocol::message::ClientHello;
use nexus_protocol::{
    ClientMessage, DecodeError, EncodeError, FrameDecoder, FrameError, MAGIC, OwnedFrame, PayloadError, RequestId,
    SidecarMessage, VersionRange, WireError, decode_sidecar,
};

use super::place::{self, Nowhere};
use crate::error::StartError;
use crate::exit::ExitCode;

/// These requests are answered at once whatever else runs, so a longer silence means that nobody is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const NAME: &str = concat!("nexus-sidecar command ", env!("CARGO_PKG_VERSION"));

/// The sidecar could not be asked, or did not answer as the protocol says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("cannot connect to {}: {source}; is a sidecar serving there (nexus-sidecar serve --listen)?", .path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Nowhere(#[from] Nowhere),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("the sidecar closed the connection without an answer")]
    Closed,
    #[error("the answer is not of the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the answer is not of the protocol: {0}")]
    Decode(#[from] DecodeError),
    #[error("the answer holds a value that is not of the protocol: {0}")]
    Payload(#[from] PayloadError),
    #[error("the request cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    #[error("the sidecar answered with another kind of message than was asked for")]
    Unexpected,
    #[error("the sidecar refused: {0}")]
    Refused(Box<WireError>),
}

impl From<ClientError> for StartError {
    fn from(error: ClientError) -> Self {
        Self::Command { source: Box::new(error), code: ExitCode::HandlerFailed }
    }
}

/// Somebody who answers requests: a sidecar behind a socket, or one in this process.
pub(super) trait Sidecar {
    /// Sends `message` and hands its answer to `read`, which returns `None` for a kind that it did not expect. An answer
    /// of kind error is an `Err`.
    fn ask<T>(
        &mut self,
        message: &ClientMessage<'_>,
        read: impl FnOnce(SidecarMessage<'_>) -> Option<T>,
    ) -> Result<T, ClientError>;
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
    next_id: u32,
    /// The sidecar's first frame.
    hello: OwnedFrame,
}

/// What the sidecar says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub build: String,
    pub engine: String,
    pub pid: u32,
    pub protocol: u16,
}

impl Client {
    /// To the sidecar at `path`, or where one is found.
    pub(super) fn connect(path: Option<&Path>) -> Result<Self, ClientError> {
        let path = place::socket(path, |name| std::env::var_os(name))?;
        let stream = UnixStream::connect(&path).map_err(|source| ClientError::Connect { path, source })?;
        Self::over(stream, Some(ANSWER_TIMEOUT))
    }

    /// A client on the other end of `stream`; waits at most `timeout` for each answer.
    pub(super) fn over(mut stream: UnixStream, timeout: Option<Duration>) -> Result<Self, ClientError> {
        stream.set_read_timeout(timeout)?;
        stream.set_write_timeout(timeout)?;
        let mut decoder = FrameDecoder::new(max_frame_bytes());
        let VersionRange { min, max } = VersionRange::SUPPORTED;
        let hello = ClientMessage::Hello(ClientHello { magic: MAGIC, min, max, client: NAME });
        let hello = exchange(&mut stream, &mut decoder, &hello, RequestId::CONNECTION)?;
        match decode_sidecar(&hello)?.message {
            SidecarMessage::Hello(_) => {}
            SidecarMessage::Error(error) => return Err(ClientError::Refused(Box::new(error))),
            _ => return Err(ClientError::Unexpected),
        }
        Ok(Self { stream, decoder, next_id: 1, hello })
    }

    pub(super) fn identity(&self) -> Result<Identity, ClientError> {
        match decode_sidecar(&self.hello)?.message {
            SidecarMessage::Hello(hello) => Ok(Identity {
                build: hello.build.to_owned(),
                engine: hello.engine.to_owned(),
                pid: hello.pid,
                protocol: hello.version.0,
            }),
            _ => Err(ClientError::Unexpected),
        }
    }
}

impl Sidecar for Client {
    fn ask<T>(
        &mut self,
        message: &ClientMessage<'_>,
        read: impl FnOnce(SidecarMessage<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let frame = exchange(&mut self.stream, &mut self.decoder, message, id)?;
        let answer = decode_sidecar(&frame)?;
        match answer.message {
            SidecarMessage::Error(error) => Err(ClientError::Refused(Box::new(error))),
            message if answer.id == id => read(message).ok_or(ClientError::Unexpected),
            _ => Err(ClientError::Unexpected),
        }
    }
}

impl Drop for Client {
    /// Tells the sidecar that nothing more comes, even where another descriptor of the socket lives on.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Sends a message and takes what comes. A sidecar that has closed the connection may have said why before.
fn exchange(
    stream: &mut UnixStream,
    decoder: &mut FrameDecoder,
    message: &ClientMessage<'_>,
    id: RequestId,
) -> Result<OwnedFrame, ClientError> {
    match send(stream, message, id) {
        Ok(()) => receive(stream, decoder),
        Err(ClientError::Closed) => receive(stream, decoder).map_err(|_| ClientError::Closed),
        Err(error) => Err(error),
    }
}

fn send(stream: &mut UnixStream, message: &ClientMessage<'_>, id: RequestId) -> Result<(), ClientError> {
    let mut frame = Vec::new();
    message.encode(id, max_frame_bytes(), &mut frame)?;
    stream.write_all(&frame).map_err(or_silent)
}

fn receive(stream: &mut UnixStream, decoder: &mut FrameDecoder) -> Result<OwnedFrame, ClientError> {
    loop {
        if let Some(frame) = decoder.next_owned()? {
            return Ok(frame);
        }
        match stream.read(decoder.spare()) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(read_bytes) => decoder.advance(read_bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(or_silent(error)),
        }
    }
}

fn or_silent(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
        _ => ClientError::Io(error),
    }
}

fn max_frame_bytes() -> usize {
    usize::try_from(DEFAULT_MAX_FRAME_BYTES).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread::{self, JoinHandle};

    use nexus_protocol::message::{HelloLimits, SidecarHello};
    use nexus_protocol::{Envelope, ErrorCode, ProtocolVersion, decode_client};

    use super::*;

    const ENGINE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// A sidecar on the other end of a socket pair, see [`serve`].
    pub(in super::super) fn peer(answers: Vec<SidecarMessage<'static>>) -> (UnixStream, JoinHandle<usize>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, serve(theirs, answers))
    }

    /// Says hello, then gives `answers` to the requests in order, then closes. Returns how many frames it answered.
    pub(in super::super) fn serve(mut stream: UnixStream, answers: Vec<SidecarMessage<'static>>) -> JoinHandle<usize> {
        let hello = SidecarMessage::Hello(SidecarHello {
            version: ProtocolVersion::V2,
            build: "9.9.9",
            engine: ENGINE,
            pid: 42,
            debug: false,
            limits: HelloLimits::default(),
        });
        thread::spawn(move || {
            let mut decoder = FrameDecoder::new(1 << 20);
            let mut served = 0;
            for answer in std::iter::once(hello).chain(answers) {
                let Ok(frame) = receive(&mut stream, &mut decoder) else {
                    break;
                };
                let Envelope { id, .. } = decode_client(&frame).unwrap();
                let mut out = Vec::new();
                answer.encode(id, 1 << 20, &mut out).unwrap();
                stream.write_all(&out).unwrap();
                served += 1;
            }
            served
        })
    }

    fn pong(message: SidecarMessage<'_>) -> Option<()> {
        matches!(message, SidecarMessage::Pong).then_some(())
    }

    #[test]
    fn hello_tells_who_answers() {
        let (stream, _) = peer(vec![]);
        let identity = Client::over(stream, None).unwrap().identity().unwrap();
        let expected = Identity { build: "9.9.9".to_owned(), engine: ENGINE.to_owned(), pid: 42, protocol: 2 };
        assert_eq!(identity, expected);
    }

    #[test]
    fn each_request_gets_its_answer() {
        let (stream, sidecar) = peer(vec![SidecarMessage::Pong, SidecarMessage::Pong]);
        let mut client = Client::over(stream, None).unwrap();
        client.ask(&ClientMessage::Ping, pong).unwrap();
        client.ask(&ClientMessage::Ping, pong).unwrap();
        assert_eq!(sidecar.join().unwrap(), 3);
    }

    #[test]
    fn a_refusal_an_odd_answer_and_silence_are_told_apart() {
        let refusal = WireError::new(ErrorCode::InternalError, "broken");
        let (stream, _) = peer(vec![SidecarMessage::Error(refusal)]);
        let error = Client::over(stream, None).unwrap().ask(&ClientMessage::Ping, pong).unwrap_err();
        assert_eq!(error.to_string(), "the sidecar refused: INTERNAL_ERROR: broken");
        let (stream, _) = peer(vec![SidecarMessage::Stats(Default::default())]);
        let error = Client::over(stream, None).unwrap().ask(&ClientMessage::Ping, pong).unwrap_err();
        assert!(matches!(error, ClientError::Unexpected));
        let (stream, sidecar) = peer(vec![]);
        let mut client = Client::over(stream, None).unwrap();
        assert_eq!(sidecar.join().unwrap(), 1);
        let error = client.ask(&ClientMessage::Ping, pong).unwrap_err();
        assert!(matches!(error, ClientError::Closed | ClientError::Io(_)), "{error}");
    }

    #[test]
    fn what_was_said_before_the_connection_was_closed_is_told() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let refusal = SidecarMessage::Error(WireError::new(ErrorCode::Overloaded, "full"));
        let mut frame = Vec::new();
        refusal.encode(RequestId::CONNECTION, 1 << 20, &mut frame).unwrap();
        theirs.write_all(&frame).unwrap();
        drop(theirs);
        assert_eq!(Client::over(ours, None).unwrap_err().to_string(), "the sidecar refused: OVERLOADED: full");
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(Client::over(ours, None).unwrap_err(), ClientError::Closed));
    }

    #[test]
    fn a_path_where_nobody_serves_is_named() {
        let error = Client::connect(Some(Path::new("/nonexistent/s"))).unwrap_err().to_string();
        assert!(error.starts_with("cannot connect to /nonexistent/s: "), "{error}");
    }

    #[test]
    fn bytes_that_are_no_frame_end_the_conversation() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        assert!(matches!(Client::over(ours, None).unwrap_err(), ClientError::Frame(_)));
    }
}
