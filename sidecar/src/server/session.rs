//! What a connection's peer may send next, and what happens with it: a machine over frames, without I/O.

use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::limits::MAX_CONTROL_FRAME_BYTES;
use nexus_protocol::message::{Cancel, ClientMessage, Kind};
use nexus_protocol::{
    DecodeError, ErrorCode, OwnedFrame, RequestId, SuspensionId, VersionRange, WireError, decode_client,
};

use super::connection::Connection;
use super::hub::{Due, Job};
use super::incoming::Incoming;
use crate::budget::{Charge, Full};

/// State of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Hello has not come yet.
    Handshaking,
    Open,
}

/// What to do with a frame.
#[derive(Debug)]
pub enum Action {
    /// Answer hello; the session is open.
    Welcome,
    /// Give it to a worker.
    Work(Job),
    CancelRequest {
        id: RequestId,
        target: RequestId,
    },
    CancelSuspension {
        id: RequestId,
        suspension: String,
    },
    Stats(RequestId),
    Metrics(RequestId),
    Pong(RequestId),
    Executions(RequestId),
    Kill {
        id: RequestId,
        execution: u64,
    },
    Shutdown(RequestId),
    /// Answer that there is no room for it; the connection goes on.
    Overloaded {
        id: RequestId,
        kind: Kind,
        full: Full,
    },
    /// Answer with an error; the connection goes on.
    Refuse(RequestId, WireError),
    /// Answer with an error and close.
    Close(RequestId, WireError),
}

impl Session {
    /// Takes one frame in. `charge`: counts one that is work.
    pub fn on_frame(
        &mut self,
        connection: &Arc<Connection>,
        frame: OwnedFrame,
        now: Instant,
        charge: impl FnOnce(&OwnedFrame) -> Result<Charge, Full>,
    ) -> Action {
        let begun = head(&frame);
        // requests for a worker are decoded there; here it is enough to know what they are
        if let (Self::Open, Some((Some(kind), id))) = (*self, begun)
            && is_work(kind)
        {
            let connection = connection.clone();
            let frame = match charge(&frame) {
                Ok(charge) => Incoming::new(frame, charge),
                Err(full) => return Action::Overloaded { id, kind, full },
            };
            return Action::Work(Job {
                number: 0,
                session: connection.session,
                id,
                kind,
                suspension: (kind == Kind::Resume).then(|| suspension_of(&frame)).flatten(),
                frame,
                enqueued: now,
                due: Due::Unread,
                done: 0,
                connection,
            });
        }
        if frame.len() > MAX_CONTROL_FRAME_BYTES {
            return match begun {
                Some((_, id)) => Action::Refuse(id, too_large_for_its_kind()),
                None => Action::Close(RequestId::CONNECTION, too_large_for_its_kind()),
            };
        }
        let envelope = match decode_client(&frame) {
            Ok(envelope) => envelope,
            Err(e) => return refuse(&e),
        };
        let id = envelope.id;
        match (*self, envelope.message) {
            (Self::Handshaking, ClientMessage::Hello(hello)) => {
                match VersionRange::SUPPORTED.negotiate(hello.versions()) {
                    Ok(_) => {
                        log::debug!("session {} is {:?}", connection.session.0, hello.client);
                        connection.introduce(hello.client);
                        *self = Self::Open;
                        Action::Welcome
                    }
                    Err(mismatch) => Action::Close(RequestId::CONNECTION, protocol_error(mismatch.to_string())),
                }
            }
            (Self::Handshaking, _) => Action::Close(
                RequestId::CONNECTION,
                protocol_error("the first frame of a connection has to be hello".into()),
            ),
            (Self::Open, ClientMessage::Hello(_)) => {
                Action::Close(RequestId::CONNECTION, protocol_error("hello comes once per connection".into()))
            }
            (Self::Open, ClientMessage::Cancel(Cancel::Request(target))) => {
                Action::CancelRequest { id, target: RequestId(target) }
            }
            (Self::Open, ClientMessage::Cancel(Cancel::Suspension(s))) => {
                Action::CancelSuspension { id, suspension: s.to_owned() }
            }
            (Self::Open, ClientMessage::Stats) => Action::Stats(id),
            (Self::Open, ClientMessage::Metrics) => Action::Metrics(id),
            (Self::Open, ClientMessage::Executions) => Action::Executions(id),
            (Self::Open, ClientMessage::Kill(kill)) => Action::Kill { id, execution: kill.execution },
            (Self::Open, ClientMessage::Ping) => Action::Pong(id),
            (Self::Open, ClientMessage::Shutdown) => Action::Shutdown(id),
            (Self::Open, _) => Action::Refuse(id, protocol_error("this kind of request is not known here".into())),
        }
    }
}

/// Of a frame that is answered where it is read.
pub fn too_large_for_its_kind() -> WireError {
    protocol_error(format!("a frame of this kind has at most {MAX_CONTROL_FRAME_BYTES} bytes"))
}

pub fn protocol_error(message: String) -> WireError {
    WireError::new(ErrorCode::ProtocolError, message)
}

/// The answer to a frame that could not be decoded.
pub fn refuse(error: &DecodeError) -> Action {
    let wire = error.to_wire();
    if error.ends_connection() { Action::Close(error.id, wire) } else { Action::Refuse(error.id, wire) }
}

/// Whether a worker does it: everything whose cost depends on what the client sent.
pub fn is_work(kind: Kind) -> bool {
    use Kind::{
        Check, CreateState, DisposeState, Execute, ExecuteMany, OpenArena, PatchState, Precompile, Resume,
        SnapshotState,
    };
    let runs = matches!(kind, Execute | ExecuteMany | Precompile | Check | Resume);
    runs || matches!(kind, CreateState | PatchState | SnapshotState | DisposeState | OpenArena)
}

/// Fields of a resume that are looked at for its suspension, before a worker reads all of it.
const FIELDS_LOOKED_AT: u32 = 4;
/// A key or a suspension id is shorter than this.
const MAX_TEXT_BYTES: u32 = 64;

/// The suspension that a resume is for, where its first fields say so; else whoever reads the frame finds it. Looks at a few
/// bytes, whatever the frame says of its size: text is short, and everything else a peer may put in front is not skipped.
fn suspension_of(body: &[u8]) -> Option<SuspensionId> {
    let mut rest = body;
    rmp::decode::read_array_len(&mut rest).ok()?;
    let _kind: u8 = rmp::decode::read_int(&mut rest).ok()?;
    let _id: u32 = rmp::decode::read_int(&mut rest).ok()?;
    let fields = rmp::decode::read_map_len(&mut rest).ok()?;
    for _ in 0..fields.min(FIELDS_LOOKED_AT) {
        if text(&mut rest)? == b"suspension" {
            return std::str::from_utf8(text(&mut rest)?).ok()?.parse().ok();
        }
        // the value of an answer, or its place in shared memory, may stand in front
        let len = rmp::decode::read_bin_len(&mut rest).ok()?;
        rest = rest.get(len as usize..)?;
    }
    None
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = rmp::decode::read_str_len(rest).ok().filter(|len| *len <= MAX_TEXT_BYTES)?;
    let (text, behind) = rest.split_at_checked(len as usize)?;
    *rest = behind;
    Some(text)
}

/// Kind (where it is known) and id of a frame, where its head is well-formed: `[kind, id, ...`.
pub fn head(body: &[u8]) -> Option<(Option<Kind>, RequestId)> {
    let mut rest = body;
    let elements = rmp::decode::read_array_len(&mut rest).ok()?;
    let kind: u8 = rmp::decode::read_int(&mut rest).ok()?;
    let id: u32 = rmp::decode::read_int(&mut rest).ok()?;
    (elements == 3 && id != 0).then_some((Kind::from_number(kind), RequestId(id)))
}
