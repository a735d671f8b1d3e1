//! What becomes of the connections of a worker that is lost: each goes on, answered what it still waits for, or ends.
//!
//! What the worker has written to its page decides, and is believed for the connections that it had and for nothing else: it could have
//! told their clients anything by itself. A connection goes on when no reason for doubt was counted (see `server::mark`); then its
//! requests in the roll are all those that nobody has answered, and each gets its one answer here. Where that does not leave whole at
//! once, or where the roll makes no sense, the connection ends: nobody is answered twice, and nothing is guessed.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::MIN_MAX_FRAME_BYTES;
use nexus_protocol::message::Kind;
use nexus_protocol::{ErrorCode, Pieces, SidecarMessage, WireError};

use super::page::Page;
use crate::execution::{Arrival, Totals};
use crate::os;
use crate::server::roll::{Entry, Progress};

/// Of one connection: a worker that says more lies.
const MOST_ANSWERS: usize = crate::server::roll::ENTRIES;

/// The connections among these with which another worker can go on. All others end.
pub fn those_that_go_on(page: &Page, mut copies: HashMap<u32, Arc<UnixStream>>) -> Vec<Arc<UnixStream>> {
    copies.retain(|number, _| page.mark(*number) == 0);
    let Some(mut unanswered) = unanswered(page, &copies) else { return Vec::new() };
    let mut left = Vec::new();
    for (number, stream) in copies {
        let told = unanswered.remove(&number).is_none_or(|requests| tell(&stream, requests));
        match told {
            true => left.push(stream),
            false => os::let_go_of_rest(&stream),
        }
    }
    left
}

/// What stands in the roll, by the number of the connection. None: it makes no sense.
fn unanswered(page: &Page, copies: &HashMap<u32, Arc<UnixStream>>) -> Option<HashMap<u32, Vec<Entry>>> {
    let (mut found, mut makes_sense) = (HashMap::<u32, Vec<Entry>>::new(), true);
    let read = page.read_roll(|word, _| match Entry::of_word(word) {
        Ok(Some(entry)) if copies.contains_key(&entry.connection) => {
            found.entry(entry.connection).or_default().push(entry);
        }
        Ok(_) => {}
        Err(_) => makes_sense = false,
    });
    if read.is_err() || !makes_sense {
        log::error!("a worker that is lost has left a roll that makes no sense: all of its connections end");
        return None;
    }
    Some(found)
}

/// Answers each of them. False: not wholly, or one of them stands there twice.
fn tell(mut stream: &UnixStream, mut requests: Vec<Entry>) -> bool {
    requests.sort_unstable_by_key(|entry| entry.id.0);
    if requests.windows(2).any(|two| two[0].id == two[1].id) || requests.len() > MOST_ANSWERS {
        return false;
    }
    let mut frames = Vec::new();
    requests.iter().for_each(|entry| answer(entry, &mut frames));
    // in one piece or not at all; there is nobody to wait for
    stream.set_nonblocking(true).is_ok() && stream.write(&frames).is_ok_and(|written| written == frames.len())
}

fn answer(entry: &Entry, frames: &mut Vec<u8>) {
    let error = lost(entry);
    let max = MIN_MAX_FRAME_BYTES as usize;
    if matches!(entry.kind, Kind::Execute | Kind::Resume) {
        let report = Totals::begun(Arrival { since: Instant::now(), waited: Duration::ZERO }).failure(error);
        let mut pieces = Pieces::new();
        report.encode(entry.id, max, &mut pieces);
        frames.extend(pieces.to_vec());
    } else if let Err(e) = SidecarMessage::Error(error).encode(entry.id, max, frames) {
        log::error!("cannot encode an answer: {e}");
    }
}

fn lost(entry: &Entry) -> WireError {
    let error =
        WireError::new(ErrorCode::WorkerLost, "the process that had the request has ended before it was answered");
    let error = error.with_context_text("stage", "process");
    if may_be_sent_again(entry) { error } else { error.not_retryable() }
}

/// Whether nothing can have come of it that its client has heard of, or that is still there: what changed in the worker is gone with it,
/// as is what a resume would resume.
fn may_be_sent_again(entry: &Entry) -> bool {
    match entry.kind {
        Kind::Resume => false,
        // results of items may have been told
        Kind::ExecuteMany => entry.progress == Progress::Waits,
        _ => true,
    }
}
