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
    let read = page.read_roll(|word| match Entry::of_word(word) {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read;
    use std::sync::atomic::Ordering;

    use nexus_protocol::decode_sidecar;

    use super::*;
    use crate::random::Random;
    use crate::server::Mark;
    use crate::server::roll::Roll;

    /// Copies by their numbers, and the clients at the other ends.
    type Ends = (HashMap<u32, Arc<UnixStream>>, HashMap<u32, UnixStream>);

    fn connections(numbers: std::ops::Range<u32>) -> Ends {
        let (mut copies, mut clients) = (HashMap::new(), HashMap::new());
        for number in numbers {
            let (client, copy) = UnixStream::pair().unwrap();
            copies.insert(number, Arc::new(copy));
            clients.insert(number, client);
        }
        (copies, clients)
    }

    /// The requests that were answered, each time that they were; every byte is of a whole answer.
    fn answered(mut client: &UnixStream) -> Vec<u32> {
        client.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes);
        let (mut rest, mut ids) = (bytes.as_slice(), Vec::new());
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (frame, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize).expect("a whole frame");
            ids.push(decode_sidecar(frame).unwrap().id.0);
            rest = behind;
        }
        assert!(rest.is_empty());
        ids
    }

    #[test]
    fn each_unanswered_request_is_answered_once_and_nothing_is_said_to_who_is_in_doubt() {
        let page = Page::new().unwrap();
        let (marks, mut roll) = (page.marks().unwrap(), Roll::over(page.roll().unwrap()));
        let (copies, clients) = connections(0..8);
        let mut expected: HashMap<u32, Vec<u32>> = HashMap::new();
        for id in 1..200 {
            let number = id % 8;
            let mark = Mark::new(marks.get(number as usize), number);
            let kind =
                [Kind::Execute, Kind::Resume, Kind::ExecuteMany, Kind::Check, Kind::CreateState][id as usize % 5];
            let slot = roll.enter(mark, nexus_protocol::RequestId(id), kind);
            if id % 3 == 0 {
                roll.begins(slot);
            }
            match id % 7 {
                0 => roll.leave(slot),
                _ => expected.entry(number).or_default().push(id),
            }
        }
        for number in [2, 5] {
            Mark::new(marks.get(number), number as u32).doubt();
        }
        let left = those_that_go_on(&page, copies);
        assert_eq!(left.len(), 6);
        for (number, client) in &clients {
            let mut ids = answered(client);
            ids.sort_unstable();
            let in_doubt = [2, 5].contains(number);
            assert_eq!(
                ids,
                if in_doubt { Vec::new() } else { expected.remove(number).unwrap_or_default() },
                "{number}"
            );
            assert_eq!(is_open(client), !in_doubt);
        }
    }

    fn is_open(mut client: &UnixStream) -> bool {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0; 8]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn whatever_a_worker_leaves_in_its_page_nobody_is_told_anything_twice_and_others_hear_nothing() {
        let page = Page::new().unwrap();
        let (marks, words) = (page.marks().unwrap(), page.roll().unwrap());
        let mut random = Random(0x1057);
        for round in 0..300 {
            words.iter().take(64).for_each(|word| word.store(0, Ordering::Relaxed));
            for mark in marks.iter().take(16) {
                mark.store(if random.below(3) == 0 { random.next() } else { 0 }, Ordering::Relaxed);
            }
            let mut said: HashMap<u32, HashSet<u32>> = HashMap::new();
            for _ in 0..random.below(64) {
                let entry = Entry {
                    connection: random.below(20) as u32,
                    id: nexus_protocol::RequestId(1 + random.below(40) as u32),
                    kind: Kind::ALL[random.below(Kind::ALL.len())],
                    progress: [Progress::Waits, Progress::Begun][random.below(2)],
                };
                let word = if round % 3 == 0 && random.below(20) == 0 { random.next() } else { entry.to_word() };
                words[random.below(64)].store(word, Ordering::Relaxed);
                said.entry(entry.connection).or_default().insert(entry.id.0);
            }
            let (copies, clients) = connections(0..16);
            let all = copies.len();
            let left = those_that_go_on(&page, copies);
            assert!(left.len() <= all);
            for (number, client) in &clients {
                let ids = answered(client);
                let once: HashSet<u32> = ids.iter().copied().collect();
                assert_eq!(once.len(), ids.len(), "twice");
                assert!(once.iter().all(|id| said.get(number).is_some_and(|said| said.contains(id))), "another's");
                assert!(ids.is_empty() || marks[*number as usize].load(Ordering::Relaxed) == 0, "in doubt");
            }
        }
    }
}
