//! What supervisor and worker say to each other.
//!
//! The supervisor gives [`Command`]s over `ipc-channel`, one way: from whoever is trusted to whoever is not. A worker says
//! [`Said`]s, of a fixed length, each of which may be a lie: none of them names a path, a length that is allocated, or a
//! descriptor.

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// The first one.
    Begin(Box<Beginning>),
    Reload(Box<Config>),
    Drain,
    Prod,
    /// To be answered with the number.
    Ask {
        number: u64,
        question: Question,
    },
}

/// What a worker has to know at its start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Beginning {
    pub config: Config,
    pub trade: Trade,
    /// The process that clients know.
    pub pid: u32,
    /// By which handles of compiled handlers are signed.
    pub handles: [u8; 32],
    /// Somebody keeps compiled handlers.
    pub keeps_handlers: bool,
    /// Peers may send descriptors along, which the kernel does not refuse.
    pub descriptors_come: bool,
}

/// What a worker is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trade {
    /// Serves connections.
    Connections,
    /// Serves one connection, and ends with it.
    OneConnection,
    /// Turns sources into bytecode that outlives it. It has no client, no key, and runs no handler.
    Compile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Polls, ticks of the watchdog, and whether a run is stuck.
    Pulse,
    /// Whether it moves, within a second.
    Alive,
    /// Its metrics, written to the page; how many bytes.
    Metrics,
}

/// From a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It hears commands from now on.
    Attached,
    /// It has taken connections that were handed to it; the page has how many.
    Taken,
    /// It serves. Which parts of its seal hold.
    Ready {
        walls: u64,
    },
    Answer {
        number: u64,
        values: [u64; 3],
    },
}

/// Of one message.
pub const SAID_BYTES: usize = 5 * 8;

impl Said {
    pub fn to_bytes(self) -> [u8; SAID_BYTES] {
        let words = match self {
            Self::Attached => [1, 0, 0, 0, 0],
            Self::Taken => [4, 0, 0, 0, 0],
            Self::Ready { walls } => [2, walls, 0, 0, 0],
            Self::Answer { number, values: [a, b, c] } => [3, number, a, b, c],
        };
        let mut bytes = [0; SAID_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// None: it makes no sense.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SAID_BYTES] = bytes.try_into().ok()?;
        let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let mut next = || words.next().unwrap_or_default();
        match [next(), next(), next(), next(), next()] {
            [1, 0, 0, 0, 0] => Some(Self::Attached),
            [4, 0, 0, 0, 0] => Some(Self::Taken),
            [2, walls, 0, 0, 0] => Some(Self::Ready { walls }),
            [3, number, a, b, c] => Some(Self::Answer { number, values: [a, b, c] }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_said_is_heard_and_nothing_else_is() {
        let all = [
            Said::Attached,
            Said::Taken,
            Said::Ready { walls: u64::MAX },
            Said::Answer { number: 7, values: [1, 2, u64::MAX] },
        ];
        for said in all {
            assert_eq!(Said::parse(&said.to_bytes()), Some(said));
            let whole = said.to_bytes();
            for end in 0..whole.len() {
                assert_eq!(Said::parse(&whole[..end]), None);
            }
        }
        let mut random = Random(0x5eed);
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..random.below(2 * SAID_BYTES)).map(|_| random.below(256) as u8).collect();
            if let Some(said) = Said::parse(&bytes) {
                assert_eq!(said.to_bytes()[..], bytes[..]);
            }
        }
    }
}
