//! Versions of a state that somebody reads still, and what only they keep.
//!
//! Each value counts for as long as any version has it. What a change set copies of the tree around its own keys is kept by the
//! versions before it: it counts as long as one of those is read. How much that is is seen from the keys that are cloned with
//! the nodes that are copied.
//!
//! Invariant: what is kept between two versions that are read counts at the older one; when that is read no more, at the one
//! before, or nowhere. So there are no more books than readers, however many versions have come.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use nexus_protocol::limits::STATE_COPIED_ENTRY_BYTES;

use super::state::ResidentState;
use crate::budget::{Budget, Charge};

thread_local! {
    /// Keys that this thread has cloned with the nodes that they are in.
    static COPIED: Cell<u64> = const { Cell::new(0) };
}

/// A key, as it is in the tree. To clone it is to copy a node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The same one, for another tree.
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Clone for Key {
    fn clone(&self) -> Self {
        COPIED.with(|copied| copied.set(copied.get().wrapping_add(1)));
        self.share()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Keys that were copied while something was done.
pub fn copied_by<T>(f: impl FnOnce() -> T) -> (T, u64) {
    let before = COPIED.with(Cell::get);
    let done = f();
    (done, COPIED.with(Cell::get).wrapping_sub(before))
}

/// Of one version.
#[derive(Debug)]
struct Read {
    readers: usize,
    /// Keys that it has: it cannot keep more nodes than these are in.
    keys: usize,
    /// What it keeps that the next version that is read, or the current one, does not have.
    kept: Charge,
}

impl Read {
    fn keep(&mut self, bytes: u64) {
        let most = (self.keys as u64).saturating_mul(STATE_COPIED_ENTRY_BYTES);
        self.kept.set(self.kept.bytes().saturating_add(bytes).min(most));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Versions(BTreeMap<u64, Read>);

impl Versions {
    /// Somebody reads the current version.
    pub fn read(&mut self, version: u64, keys: usize, budget: &Arc<Budget>) {
        let new = || Read { readers: 0, keys, kept: budget.nothing() };
        self.0.entry(version).or_insert_with(new).readers += 1;
    }

    /// And does no more.
    fn leave(&mut self, version: u64) {
        let Some(read) = self.0.get_mut(&version) else { return };
        read.readers -= 1;
        if read.readers > 0 {
            return;
        }
        let Some(gone) = self.0.remove(&version) else { return };
        if let Some((_, before)) = self.0.range_mut(..version).next_back() {
            before.keep(gone.kept.bytes());
        }
    }

    /// A change set has made a version, and has copied so many keys beside its own.
    pub fn changed(&mut self, copied: u64) {
        if let Some(mut newest) = self.0.last_entry() {
            newest.get_mut().keep(copied.saturating_mul(STATE_COPIED_ENTRY_BYTES));
        }
    }
}

/// Whoever reads a version.
#[derive(Debug)]
pub struct Reader {
    state: Arc<ResidentState>,
    version: u64,
}

impl Reader {
    /// It has been noted with `Versions::read`.
    pub fn new(state: Arc<ResidentState>, version: u64) -> Self {
        Self { state, version }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.state.with_versions(|versions| versions.leave(self.version));
    }
}
