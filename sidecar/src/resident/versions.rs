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
    version: u64,
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

/// See the module. The oldest one first.
#[derive(Debug, Default)]
pub struct Versions(Vec<Read>);

impl Versions {
    /// Somebody reads the current version.
    pub fn read(&mut self, version: u64, keys: usize, budget: &Arc<Budget>) {
        match self.0.last_mut() {
            Some(newest) if newest.version == version => newest.readers += 1,
            _ => self.0.push(Read { version, readers: 1, keys, kept: budget.nothing() }),
        }
    }

    /// And does no more.
    fn leave(&mut self, version: u64) {
        let Ok(at) = self.0.binary_search_by_key(&version, |read| read.version) else { return };
        if let Some(read) = self.0.get_mut(at).filter(|read| read.readers > 1) {
            read.readers -= 1;
            return;
        }
        let gone = self.0.remove(at);
        if let Some(before) = at.checked_sub(1).and_then(|before| self.0.get_mut(before)) {
            before.keep(gone.kept.bytes());
        }
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// A change set has made a version, and has copied so many keys beside its own.
    pub fn changed(&mut self, copied: u64) {
        if let Some(newest) = self.0.last_mut() {
            newest.keep(copied.saturating_mul(STATE_COPIED_ENTRY_BYTES));
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
