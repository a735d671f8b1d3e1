//! One peer, as the poller sees it: what it sends is read and cut into frames, a bounded part at each turn.
//!
//! Whatever it has sent counts before the memory for it is taken: the read buffer as it grows, and each frame for as long as
//! anybody has it. What finds no room is skipped and answered; the connection goes on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::limits::{FREE_BUFFER_BYTES, MAX_CONTROL_FRAME_BYTES, QUEUED_REQUEST_BYTES};
use nexus_protocol::{FrameDecoder, FrameError, OwnedFrame, RequestId};
use nix::sys::epoll::EpollFlags;

use super::connection::Connection;
use super::hub::SessionId;
use super::poller::Event;
use super::session::{self, Action, Session, protocol_error};
use crate::budget::{Charge, Full};
use crate::faults::{self, Point};
use crate::os;

/// Read from one connection before the others get their turn: to copy it takes some tens of microseconds.
const READ_TURN_BYTES: usize = 128 << 10;
/// Taken of one connection before the others get their turn: a hundred kilobytes may be a thousand requests.
pub const TURN_FRAMES: usize = 32;
/// Who sends more than this at a turn has its next one after those who do not.
const LIGHT_TURN_BYTES: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub struct Peer {
    pub connection: Arc<Connection>,
    decoder: FrameDecoder,
    pub session: Session,
    max_frame_bytes: usize,
    /// What epoll is asked for.
    pub interest: EpollFlags,
    /// Something was left when its turn was over, whole frames or bytes: it has the next one without a word from epoll.
    pub has_left: bool,
    /// It stands in line for it.
    pub in_line: bool,
    /// The look at which it had its last turn.
    pub last_turn: u64,
    /// That was a long one.
    pub is_heavy: bool,
    /// Since when hello, or the rest of a frame, is waited for.
    pub incomplete_since: Option<Instant>,
    /// With too much unread: what it had read at which time; that it reads starts a new time.
    pub unread: Option<(u64, Instant)>,
    /// It is closed when it has read why, or then.
    pub dismissed_until: Option<Instant>,
    /// What it has sent was read, and is not all in the books: a reason for doubt.
    pub is_amid: bool,
    /// For the read buffer, where that is larger than every connection may have.
    buffer: Charge,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// With nothing left, or with bytes in the socket that epoll tells of.
    Done,
    /// With whole frames left.
    Left,
    /// In the middle of a frame, and more of it may be there.
    Amid,
    /// With the connection.
    Over,
}

impl Peer {
    pub fn new(connection: Arc<Connection>, max_frame_bytes: usize, now: Instant) -> Self {
        Self {
            // what comes before hello is no larger than hello
            decoder: FrameDecoder::new(MAX_CONTROL_FRAME_BYTES),
            session: Session::Handshaking,
            max_frame_bytes,
            interest: EpollFlags::EPOLLIN,
            has_left: false,
            in_line: false,
            last_turn: 0,
            is_heavy: false,
            incomplete_since: Some(now),
            unread: None,
            dismissed_until: None,
            is_amid: false,
            buffer: connection.received().nothing(),
            connection,
        }
    }

    /// One whose hello was answered before, by another process.
    pub fn greeted(connection: Arc<Connection>, max_frame_bytes: usize, now: Instant) -> Self {
        let mut peer = Self::new(connection, max_frame_bytes, now);
        peer.decoder.set_max_body_bytes(max_frame_bytes);
        (peer.session, peer.incomplete_since) = (Session::Open, None);
        peer
    }

    /// What it has sent is about to be read.
    pub fn begins_to_read(&mut self) {
        if !std::mem::replace(&mut self.is_amid, true) {
            self.connection.mark.doubt();
        }
    }

    /// All that was read was taken in.
    pub fn has_taken_in(&mut self) {
        if self.is_amid && !self.has_left && self.is_at_boundary() {
            self.is_amid = false;
            self.connection.mark.trust(1);
        }
    }

    /// Nothing of an unfinished frame is there.
    pub fn is_at_boundary(&self) -> bool {
        self.decoder.is_at_boundary()
    }

    /// Takes the frames that were left, then reads and takes more.
    pub fn turn(&mut self, session: SessionId, events: &mut Vec<Event>) -> TurnEnd {
        let mut total = 0;
        let end = self.take_turn(session, &mut total, events);
        self.is_heavy = total > LIGHT_TURN_BYTES || matches!(end, TurnEnd::Left | TurnEnd::Amid);
        end
    }

    /// `total`: what was read.
    fn take_turn(&mut self, session: SessionId, total: &mut usize, events: &mut Vec<Event>) -> TurnEnd {
        let mut frames = 0;
        loop {
            if let Some(end) = self.take_frames(&mut frames, events) {
                return end;
            }
            if *total >= READ_TURN_BYTES {
                return TurnEnd::Amid;
            }
            if let Err(refused) = self.make_room(events) {
                let closes = matches!(refused, Action::Close(..));
                events.push(Event::Frame(self.connection.clone(), refused));
                if closes {
                    return TurnEnd::Done;
                }
            }
            let spare = self.decoder.spare();
            let room = spare.len().min(READ_TURN_BYTES);
            let mut read = |room| {
                let room = spare.get_mut(..room).unwrap_or_default();
                os::read_from_peer(self.connection.stream(), room)
            };
            let got = match faults::transfer(Point::Read, room).and_then(&mut read) {
                Ok(0) => {
                    if !self.decoder.is_at_boundary() {
                        log::debug!("session {} ended within a frame", session.0);
                    }
                    return TurnEnd::Over;
                }
                Ok(got) => got,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return TurnEnd::Done,
                Err(_) => return TurnEnd::Over,
            };
            self.decoder.advance(got);
            *total += got;
            if got < room {
                // the socket is empty: one call less to learn that
                return self.take_frames(&mut frames, events).unwrap_or(TurnEnd::Done);
            }
        }
    }

    /// Takes whole frames, up to the bound of this turn. `None`: there is no whole frame any more.
    fn take_frames(&mut self, taken: &mut usize, events: &mut Vec<Event>) -> Option<TurnEnd> {
        loop {
            if *taken == TURN_FRAMES {
                return Some(TurnEnd::Left);
            }
            let action = match self.decoder.next_owned() {
                Ok(Some(frame)) => {
                    let Self { session, connection, buffer, .. } = self;
                    let charge = |frame: &OwnedFrame| charge_of(frame, connection, buffer);
                    session.on_frame(connection, frame, Instant::now(), charge)
                }
                Ok(None) => return None,
                Err(e) => framing_error(&e),
            };
            if matches!(action, Action::Welcome) {
                self.decoder.set_max_body_bytes(self.max_frame_bytes);
            }
            *taken += 1;
            let closes = matches!(action, Action::Close(..));
            events.push(Event::Frame(self.connection.clone(), action));
            if closes {
                // nothing more can be read; whoever handles the event ends the connection
                return Some(TurnEnd::Done);
            }
        }
    }

    /// Counts what the read buffer is about to take. When there is no room for it the frame is skipped: what to answer.
    fn make_room(&mut self, events: &mut Vec<Event>) -> Result<(), Action> {
        let wanted = self.decoder.next_capacity_bytes();
        if wanted <= FREE_BUFFER_BYTES {
            if self.buffer.bytes() > 0 {
                self.buffer.set(0);
            }
            return Ok(());
        }
        let refused = match session::head(self.decoder.begun()) {
            Some((Some(kind), id)) if session::is_work(kind) => match self.buffer.resize(wanted as u64) {
                Ok(()) => return Ok(()),
                Err(full) => Action::Overloaded { id, kind, full },
            },
            Some((_, id)) => Action::Refuse(id, session::too_large_for_its_kind()),
            None => Action::Close(RequestId::CONNECTION, protocol_error("the body is not [kind, id, fields]".into())),
        };
        let begun = self.decoder.skip_frame();
        if begun.capacity() > FREE_BUFFER_BYTES {
            events.push(Event::Freed(begun, self.buffer.take()));
        }
        self.buffer.set(0);
        Err(refused)
    }
}

/// Counts a frame that is work. A large one has the read buffer with it, and what was counted for that.
fn charge_of(frame: &OwnedFrame, connection: &Connection, buffer: &mut Charge) -> Result<Charge, Full> {
    let bytes = frame.capacity_bytes() as u64 + QUEUED_REQUEST_BYTES;
    if frame.capacity_bytes() < FREE_BUFFER_BYTES || buffer.bytes() == 0 {
        return connection.received().charge(bytes);
    }
    let mut charge = buffer.take();
    charge.set(bytes);
    Ok(charge)
}

fn framing_error(error: &FrameError) -> Action {
    Action::Close(RequestId::CONNECTION, protocol_error(error.to_string()))
}
