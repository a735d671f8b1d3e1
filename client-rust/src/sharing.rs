//! Shared memory as a connection uses it (SPEC 7): when there is an arena, which payloads lie in it, and when answers are lent
//! a place.
//!
//! Invariants: an arena is asked for once per connection, when the first large payload has passed, never before; whatever
//! fails, payloads go through the socket and nobody is told. A small request takes no lock here.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nexus_protocol::ClientMessage;
use nexus_protocol::limits::{ARENA_THRESHOLD_BYTES, MIN_ARENA_BYTES};
use nexus_protocol::message::{Region, Resolution};

use crate::arena::{Arena, Lease};
use crate::slot::lock;

/// After a large answer, so many requests lend a place for theirs.
const LEND_REQUESTS: u32 = 64;

/// No payload was large enough yet.
const NONE: u8 = 0;
const OPENING: u8 = 1;
const OPEN: u8 = 2;
/// Switched off, refused, or the connection has ended.
const NEVER: u8 = 3;

/// See the module.
pub(crate) struct Sharing {
    state: AtomicU8,
    /// Payloads from here on.
    threshold: usize,
    /// A larger one cannot be sent in any way.
    max_bytes: usize,
    arena: Mutex<Option<Arc<Arena>>>,
    /// Requests that will lend a place.
    lend: AtomicU32,
    lent_bytes: AtomicU64,
}

impl Sharing {
    /// `threshold`: none switches it off.
    pub(crate) fn new(threshold: Option<usize>, max_arena_bytes: u64, max_bytes: usize) -> Self {
        let possible = max_arena_bytes > 0 && threshold.is_some();
        Self {
            state: AtomicU8::new(if possible { NONE } else { NEVER }),
            threshold: threshold.unwrap_or(usize::MAX),
            max_bytes,
            arena: Mutex::new(None),
            lend: AtomicU32::new(0),
            lent_bytes: AtomicU64::new(MIN_ARENA_BYTES),
        }
    }

    /// Takes note of bytes that passed through the socket. True, once: an arena is to be opened.
    pub(crate) fn wants_arena(&self, bytes: usize) -> bool {
        bytes >= self.threshold
            && self.state.compare_exchange(NONE, OPENING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What became of the opening.
    pub(crate) fn opened(&self, arena: Option<Arc<Arena>>) {
        let state = if arena.is_some() { OPEN } else { NEVER };
        *lock(&self.arena) = arena;
        self.state.store(state, Ordering::Release);
    }

    /// The connection has ended. The file goes with the last request that has a place in it.
    pub(crate) fn close(&self) {
        self.opened(None);
    }

    /// Moves the large payloads of a request into the arena. What has no room there stays in the message.
    pub(crate) fn place(&self, message: &mut ClientMessage<'_>) -> Option<Box<Lease>> {
        if self.state.load(Ordering::Acquire) != OPEN {
            return None;
        }
        let lends = match message {
            ClientMessage::SnapshotState(_) => true,
            ClientMessage::Execute(_) | ClientMessage::Resume(_) => self.lend.load(Ordering::Relaxed) > 0,
            _ => false,
        };
        if !lends && largest_payload(message) < self.threshold {
            return None;
        }
        let arena = Arc::clone(lock(&self.arena).as_ref()?);
        let mut lease = Box::new(Lease::new(arena));
        self.fill(message, &mut lease);
        if lends && let Some(reply) = reply_of(message) {
            *reply = lease.lend(self.lent_bytes.load(Ordering::Relaxed));
        }
        (!lease.is_empty()).then_some(lease)
    }

    fn fill(&self, message: &mut ClientMessage<'_>, lease: &mut Lease) {
        let mut put = |field: &mut Option<&[u8]>, region: &mut Option<Region>| {
            let fits = |bytes: &&[u8]| bytes.len() >= self.threshold && bytes.len() <= self.max_bytes;
            *region = field.filter(fits).and_then(|bytes| lease.put(bytes));
            if region.is_some() {
                *field = None;
            }
        };
        match message {
            ClientMessage::Execute(execute) => {
                put(&mut execute.state, &mut execute.regions.state);
                put(&mut execute.args, &mut execute.regions.args);
                put(&mut execute.scope, &mut execute.regions.scope);
            }
            ClientMessage::Resume(resume) => {
                if let Resolution::Value(value) = &mut resume.resolution {
                    put(value, &mut resume.regions.value);
                }
            }
            ClientMessage::CreateState(create) => put(&mut create.state, &mut create.regions.state),
            ClientMessage::PatchState(patch) => put(&mut patch.set, &mut patch.regions.set),
            _ => {}
        }
    }

    /// Takes note of the largest payload of an answer: what is large once is likely to be so again.
    pub(crate) fn note_answer(&self, bytes: usize) {
        if bytes >= ARENA_THRESHOLD_BYTES {
            self.lend.store(LEND_REQUESTS, Ordering::Relaxed);
            self.lent_bytes.fetch_max((bytes + bytes / 4) as u64, Ordering::Relaxed);
        } else if self.lend.load(Ordering::Relaxed) > 0 {
            // Only the reader thread counts down, and up.
            self.lend.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The place in a request that says where its answer may lie.
fn reply_of<'m>(message: &'m mut ClientMessage<'_>) -> Option<&'m mut Option<Region>> {
    match message {
        ClientMessage::Execute(execute) => Some(&mut execute.regions.reply),
        ClientMessage::Resume(resume) => Some(&mut resume.regions.reply),
        ClientMessage::SnapshotState(snapshot) => Some(&mut snapshot.regions.reply),
        _ => None,
    }
}

/// Bytes of the largest payload of a request.
pub(crate) fn largest_payload(message: &ClientMessage<'_>) -> usize {
    let length = |payload: Option<&[u8]>| payload.map_or(0, <[u8]>::len);
    match message {
        ClientMessage::Execute(execute) => length(execute.state).max(length(execute.args)).max(length(execute.scope)),
        ClientMessage::Resume(resume) => match resume.resolution {
            Resolution::Value(value) => length(value),
            Resolution::Failure(_) => 0,
        },
        ClientMessage::CreateState(create) => length(create.state),
        ClientMessage::PatchState(patch) => length(patch.set),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::{Code, Execute};

    use super::*;

    #[test]
    fn an_arena_is_wanted_once_and_only_for_something_large() {
        let sharing = Sharing::new(Some(100), 1 << 20, usize::MAX);
        assert!(!sharing.wants_arena(99));
        assert!(sharing.wants_arena(100));
        assert!(!sharing.wants_arena(100), "it is asked for already");
        sharing.opened(None);
        assert!(!sharing.wants_arena(100), "it was refused");
        assert!(!Sharing::new(None, 1 << 20, usize::MAX).wants_arena(usize::MAX), "switched off here");
        assert!(!Sharing::new(Some(100), 0, usize::MAX).wants_arena(100), "switched off there");
    }

    #[test]
    fn without_an_arena_a_message_stays_as_it_is() {
        let sharing = Sharing::new(Some(1), 1 << 20, usize::MAX);
        let mut execute = Execute::new(Code::Source(""));
        execute.args = Some(&[0xc0]);
        let before = ClientMessage::Execute(execute);
        let mut message = before.clone();
        assert!(sharing.place(&mut message).is_none());
        assert_eq!(message, before);
    }
}
