//! Protocol versions and how two peers agree on one.
//!
//! Invariant: a version number changes only when a peer of the older one would misread a message; new optional keys
//! and new kinds do not need one (unknown keys are ignored, unknown kinds answered with an error).

use std::fmt;

use serde::{Deserialize, Serialize};

/// First value of hello: tells a stray peer from a client.
pub const MAGIC: &str = "nexus-sidecar";

/// One version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProtocolVersion(pub u16);

impl ProtocolVersion {
    /// The version of SPEC.md, whose changelog says what the ones before it were.
    pub const V2: Self = Self(2);
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that one peer speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// Oldest.
    pub min: ProtocolVersion,
    /// Newest.
    pub max: ProtocolVersion,
}

impl VersionRange {
    /// What this build speaks.
    pub const SUPPORTED: Self = Self { min: ProtocolVersion::V2, max: ProtocolVersion::V2 };

    /// The newest version that both ranges hold. An empty range (`min > max`) agrees with nothing.
    pub fn negotiate(self, peer: Self) -> Result<ProtocolVersion, VersionMismatch> {
        let newest = self.max.min(peer.max);
        let oldest = self.min.max(peer.min);
        if oldest <= newest { Ok(newest) } else { Err(VersionMismatch { ours: self, theirs: peer }) }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// No version that both peers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no common protocol version: this side speaks {ours}, the peer {theirs}")]
pub struct VersionMismatch {
    /// The range of the side that reports.
    pub ours: VersionRange,
    /// The range that the peer named.
    pub theirs: VersionRange,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: u16, max: u16) -> VersionRange {
        VersionRange { min: ProtocolVersion(min), max: ProtocolVersion(max) }
    }

    #[test]
    fn overlapping_ranges_agree_on_the_newest_common_version() {
        assert_eq!(range(1, 3).negotiate(range(2, 9)), Ok(ProtocolVersion(3)));
        assert_eq!(range(1, 3).negotiate(range(1, 1)), Ok(ProtocolVersion(1)));
    }

    #[test]
    fn disjoint_and_empty_ranges_are_refused_with_both_named() {
        let error = range(1, 1).negotiate(range(2, 3)).unwrap_err();
        assert_eq!(error.to_string(), "no common protocol version: this side speaks 1 to 1, the peer 2 to 3");
        assert!(range(1, 1).negotiate(range(3, 0)).is_err());
    }
}
