//! What is kept for those who hold little of something that all connections share.
//!
//! **The rule.** Up to the configured limit anybody may take. Beyond it there is a reserve, an eighth of the limit more and at
//! least 1, from which a connection may take as long as what it then holds, as a part of the reserve, is no more than the square
//! of the part that is then left: a quarter while a half is left. The first one may always be taken while there is one.
//!
//! So a connection that is alone has exactly the limit, since it holds more than any part of the reserve. Those that take all
//! they can shrink against each other: however many have come before, and in whatever order, `n` of them leave at least one part
//! in `n + 1` of the reserve, and whoever holds nothing finds something.
//!
//! It is a dynamic threshold, as in switches whose queues share a memory (A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length
//! Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998). There a queue may have as much
//! as is left, and what it has drains. What a peer has here may stay, and of as much as is left each would leave only half to the
//! next one; with the square it is as if all of them had come at once.

use std::fmt::{self, Display, Formatter};

use nexus_protocol::limits::RESERVED_PART;

/// A limit that connections share, and the reserve beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    limit: u64,
    reserve: u64,
}

/// Whose limit it is that leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of the connection alone.
    Own,
    /// Of all of them together.
    All,
}

impl Share {
    /// Where nothing is allowed there is no reserve either.
    pub const fn of(limit: u64) -> Self {
        let part = limit / RESERVED_PART;
        let reserve = if part == 0 && limit > 0 { 1 } else { part };
        Self { limit, reserve }
    }

    /// With a reserve of that size, for limits that are no settings.
    pub const fn with_reserve(limit: u64, reserve: u64) -> Self {
        Self { limit, reserve }
    }

    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// The same reserve beyond a limit that is higher by so much at this moment.
    pub const fn raised_by(self, more: u64) -> Self {
        Self { limit: self.limit.saturating_add(more), reserve: self.reserve }
    }

    /// Whether a connection may take something after which it holds `own`, and all connections together hold `total`.
    pub fn allows(self, own: u64, total: u64) -> bool {
        let Some(beyond) = total.checked_sub(self.limit).filter(|beyond| *beyond > 0) else { return true };
        let Some(left) = self.reserve.checked_sub(beyond) else { return false };
        own <= 1 || u128::from(own) * u128::from(self.reserve) <= u128::from(left) * u128::from(left)
    }
}

/// The end of a sentence that names a limit.
impl Display for Whose {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str(" for one connection"),
            Self::All => f.write_str(", and the reserve beyond it is for connections that hold less"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Connections, and what each of them holds.
    struct Peers {
        share: Share,
        held: Vec<u64>,
    }

    impl Peers {
        fn new(share: Share) -> Self {
            Self { share, held: Vec::new() }
        }

        fn total(&self) -> u64 {
            self.held.iter().sum()
        }

        fn left(&self) -> u64 {
            self.share.reserve - self.total().saturating_sub(self.share.limit)
        }

        fn take(&mut self, peer: usize, units: u64) -> bool {
            let allowed = self.share.allows(self.held[peer] + units, self.total() + units);
            self.held[peer] += if allowed { units } else { 0 };
            allowed
        }

        /// A connection takes all that it gets, in pieces.
        fn take_all(&mut self, peer: usize, pieces: &[u64]) {
            for piece in pieces {
                while self.take(peer, *piece) {}
            }
        }

        fn newcomer(&mut self) -> usize {
            self.held.push(0);
            self.held.len() - 1
        }
    }

    #[test]
    fn who_is_alone_has_exactly_the_limit() {
        for limit in (0..300).chain([1_000, 1 << 20, 1 << 40, u64::MAX / 2]) {
            let share = Share::of(limit);
            assert!(share.allows(limit, limit) && !share.allows(limit + 1, limit + 1), "{limit}");
            assert!(!share.raised_by(1).allows(limit + 2, limit.saturating_add(2)), "{limit}");
        }
    }

    #[test]
    fn who_holds_nothing_has_the_last_one() {
        assert!(!Share::of(0).allows(1, 1), "nothing is nothing");
        for limit in 1..300 {
            let share = Share::of(limit);
            let most = limit + share.reserve;
            assert!(share.allows(1, most) && !share.allows(1, most + 1) && !share.allows(2, most), "{limit}");
        }
    }

    #[test]
    fn one_after_the_other_leaves_to_the_next_what_all_at_once_would() {
        for limit in [80, 1_000, 8_000, 1 << 20, 512 << 20] {
            let mut peers = Peers::new(Share::of(limit));
            let reserve = peers.share.reserve;
            let first = peers.newcomer();
            peers.take_all(first, &[limit, 1]);
            assert_eq!(peers.held, [limit]);
            for greedy in 1_u64.. {
                let peer = peers.newcomer();
                peers.take_all(peer, &[reserve >> 2, reserve >> 4, reserve >> 8, reserve >> 12, 1].map(|n| n.max(1)));
                assert!(peers.held[peer] > 0, "{limit}: the newcomer after {greedy} found nothing");
                if (greedy + 2) * (greedy + 2) > reserve {
                    break;
                }
                assert!(peers.left() >= reserve / (greedy + 1), "{limit}: {greedy} left {}", peers.left());
            }
        }
    }

    #[test]
    fn whatever_peers_do_a_newcomer_finds_its_part() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let limit = 8 << random.below(30);
            let mut peers = Peers::new(Share::of(limit));
            let (limit, reserve) = (peers.share.limit, peers.share.reserve);
            let most = 1 + random.below(40);
            for _ in 0..200 {
                if peers.held.len() < most && random.chance(20) {
                    peers.newcomer();
                }
                let Some(peer) = peers.held.len().checked_sub(1).map(|last| random.below(last + 1)) else { continue };
                if random.chance(25) {
                    let some = random.next() % (peers.held[peer] + 1);
                    peers.held[peer] -= if random.chance(50) { peers.held[peer] } else { some };
                } else {
                    let piece = 1 + random.next() % (limit >> random.below(6)).max(1);
                    let pieces = [piece, 1 + (piece >> 3), 1 + (piece >> 7)];
                    peers.take_all(peer, &pieces[..=random.below(pieces.len())]);
                }
                assert!(peers.total() <= limit + reserve, "{seed}");
                let holders = peers.held.iter().filter(|held| **held > 0).count() as u64;
                if (holders + 1) * (holders + 1) <= reserve {
                    assert!(peers.left() >= reserve / (holders + 1), "{seed}: {holders} left {}", peers.left());
                    let newcomer = peers.newcomer();
                    assert!(peers.take(newcomer, 1), "{seed}: nothing is left behind {holders}");
                    peers.held.pop();
                }
            }
        }
    }
}
