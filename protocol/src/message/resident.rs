//! States that stay with the sidecar: what is said about them. A field is named here as in SPEC.md (`expect_version` =
//! `expectVersion`), and described there.

use serde::{Deserialize, Serialize};

use crate::message::region::{self, Regions};
use crate::strict::{self, bins};

/// A request to keep a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateState<'a> {
    /// Payload, a map; `None` = empty.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state: Option<&'a [u8]>,
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// The state that an execute runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resident<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_version: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "strict::flag")]
    pub exclusive: bool,
}

impl<'a> Resident<'a> {
    /// Whatever version it has.
    pub const fn new(id: &'a str) -> Self {
        Self { id, expect_version: None, exclusive: false }
    }
}

/// A request to change a kept state. Keys are deleted first, then set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchState<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Payload, a map; `None` = empty.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub set: Option<&'a [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::texts")]
    pub delete: Vec<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_version: Option<u64>,
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A request to read a kept state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Only these; `None` = all.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_texts")]
    pub keys: Option<Vec<&'a str>>,
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A request to forget a kept state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisposeState<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
}

/// A state that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCreated<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    pub version: u64,
}

/// A state that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePatched {
    pub version: u64,
}

/// What a kept state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSnapshot<'a> {
    pub version: u64,
    /// `None`: it is in a region.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state: Option<&'a [u8]>,
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A state that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDisposed {
    /// Whether there was one.
    pub disposed: bool,
}
