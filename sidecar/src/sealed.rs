//! Which parts of a worker's seal hold: what `walls` puts up, and statistics and the description of a build tell.

use std::fmt;

/// The parts, each with the name of its metric and its words.
const PARTS: [(u64, &str, &str); 4] = [
    (1, "no_new_privs", "no new privileges"),
    (1 << 1, "landlock", "landlock"),
    (1 << 2, "seccomp", "seccomp"),
    (1 << 3, "undumpable", "no core dumps and no debugger"),
];
pub const NO_NEW_PRIVS: u64 = PARTS[0].0;
const LANDLOCK: u64 = PARTS[1].0;
pub const SECCOMP: u64 = PARTS[2].0;
pub const UNDUMPABLE: u64 = PARTS[3].0;
/// Where the version of landlock stands.
const ABI_SHIFT: u32 = 8;

/// Which parts of a seal hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    bits: u64,
}

impl Walls {
    /// Of what a worker has said: bits that mean nothing are passed over.
    pub fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    pub fn bits(self) -> u64 {
        self.bits
    }

    /// Each part by the name of its metric, and whether it holds.
    pub fn parts(self) -> impl Iterator<Item = (&'static str, bool)> {
        PARTS.into_iter().map(move |(bit, name, _)| (name, self.bits & bit != 0))
    }

    /// What is not there, in words. None: nothing.
    pub fn missing(self) -> Option<String> {
        let missing: Vec<&str> =
            PARTS.into_iter().filter(|(bit, ..)| self.bits & bit == 0).map(|(.., words)| words).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// The version of landlock that is in force; 0: none.
    pub fn landlock_version(self) -> u64 {
        self.bits >> ABI_SHIFT & 0xff
    }

    pub fn hold(&mut self, part: u64) {
        self.bits |= part;
    }

    pub fn hold_landlock(&mut self, version: u64) {
        self.bits |= LANDLOCK | version << ABI_SHIFT;
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, _, words) in PARTS.into_iter().filter(|(bit, ..)| self.bits & bit != 0) {
            write!(f, "{separator}{words}")?;
            if bit == LANDLOCK {
                write!(f, " {}", self.landlock_version())?;
            }
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}
