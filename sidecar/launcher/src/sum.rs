//! What a file of the tree has to be, byte for byte: its length and a sum. The sum finds damage and exchange, not intent: who may
//! write into the tree may write into the launcher.

/// What one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    pub len: u64,
    pub sum: u64,
}

/// Of the bytes that came so far. Four lanes, each of which a processor takes on without waiting for the others. Every step gives
/// another result for another word, and another for another result before: one changed word is always seen.
pub struct Sum([u64; LANES]);

const LANES: usize = 4;
const WORD: usize = 8;

/// What is added at once has to be a multiple of this, unless it is the last.
pub const BLOCK: usize = LANES * WORD;

const SEEDS: [u64; LANES] =
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

/// Odd, so that no two products are the same.
const FACTOR: u64 = 0xff51_afd7_ed55_8ccd;

impl Sum {
    #[allow(clippy::new_without_default, reason = "there is one way to make it")]
    pub const fn new() -> Self {
        Self(SEEDS)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.add_block(block);
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.add_block(&last);
        }
    }

    /// `len`: how many bytes there were, which zeros at the end do not tell.
    pub fn end(self, len: u64) -> u64 {
        self.0.into_iter().fold(step(FACTOR, len), step)
    }

    fn add_block(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<WORD>();
        for (lane, word) in self.0.iter_mut().zip(words) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
}

const fn step(before: u64, word: u64) -> u64 {
    (before ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

/// One line of what the launcher is built with: `NAME LENGTH SUM`, the sum in sixteen digits.
pub fn parse(line: &str) -> Option<(&str, Whole)> {
    let mut words = line.split(' ');
    let (name, len, sum) = (words.next()?, words.next()?, words.next()?);
    Some((name, Whole { len: len.parse().ok()?, sum: u64::from_str_radix(sum, 16).ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        let mut sum = Sum::new();
        sum.add(bytes);
        sum.end(bytes.len() as u64)
    }

    #[test]
    fn one_changed_bit_is_seen_wherever_it_is() {
        let bytes: Vec<u8> = (0..200_u8).map(|at| at.wrapping_mul(37)).collect();
        let whole = sum(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(sum(&changed), whole, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_exchanged_moved_or_longer_by_zeros_is_seen() {
        let bytes: Vec<u8> = (0..128).collect();
        for (one, other) in [(0, 32), (0, 8), (8, 96), (64, 72)] {
            let mut changed = bytes.clone();
            (0..8).for_each(|at| changed.swap(one + at, other + at));
            assert_ne!(sum(&changed), sum(&bytes), "{one} and {other}");
        }
        let zeros = [0; 100];
        let sums: std::collections::HashSet<u64> = (0..=100).map(|len| sum(&zeros[..len])).collect();
        assert_eq!(sums.len(), 101);
    }

    #[test]
    fn it_is_the_same_in_pieces() {
        let bytes = [7; 1000];
        let mut pieces = Sum::new();
        bytes.chunks(BLOCK * 3).for_each(|piece| pieces.add(piece));
        assert_eq!(pieces.end(1000), sum(&bytes));
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let whole = Whole { len: 1234, sum: 0xfeed };
        assert_eq!(parse(&format!("libc.so.6 {} {:016x}", whole.len, whole.sum)), Some(("libc.so.6", whole)));
        for line in ["", "libc.so.6", "libc.so.6 1", "libc.so.6 x 1", "libc.so.6 1 x"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
