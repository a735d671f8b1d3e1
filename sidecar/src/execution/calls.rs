//! The extension calls of one execution that wait for their answers.
//!
//! The client is told of a call once, in the answer to the segment that made it, with its arguments; what is kept here is only
//! what finds the call again. Invariants: `places` says of every id where it stands in `waiting`; those of the last segment are
//! its tail. Nothing here takes longer for there being many.

use std::collections::HashMap;

use nexus_protocol::SuspensionId;

/// What one waiting call takes, here and in the books of the server that find its execution by it.
const CALL_BYTES: usize = 160;

/// An extension call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    pub id: SuspensionId,
    /// By which the guest knows it.
    pub number: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Calls {
    waiting: Vec<Outstanding>,
    places: HashMap<SuspensionId, usize>,
    /// From here on those that the last segment made.
    new_from: usize,
}

impl Calls {
    /// In no order.
    pub fn waiting(&self) -> &[Outstanding] {
        &self.waiting
    }

    /// Those that the last segment made, in the order in which it did.
    pub fn made_last(&self) -> &[Outstanding] {
        self.waiting.get(self.new_from..).unwrap_or_default()
    }

    pub fn held_bytes(&self) -> usize {
        self.waiting.len() * CALL_BYTES
    }

    /// Takes out the call with which the next segment begins.
    pub fn take(&mut self, id: SuspensionId) -> Option<Outstanding> {
        let place = self.places.remove(&id)?;
        let call = self.waiting.swap_remove(place);
        if let Some(moved) = self.waiting.get(place) {
            self.places.insert(moved.id, place);
        }
        self.new_from = self.waiting.len();
        Some(call)
    }

    /// The segment has made a call.
    pub fn add(&mut self, call: Outstanding) {
        self.places.insert(call.id, self.waiting.len());
        self.waiting.push(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn call(number: u32) -> Outstanding {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_le_bytes());
        Outstanding { id: SuspensionId(id), number }
    }

    #[test]
    fn every_call_is_found_once_and_the_new_ones_are_those_of_the_last_segment() {
        for seed in 0..200 {
            let mut rng = Random(seed);
            let (mut calls, mut waiting, mut last) = (Calls::default(), Vec::new(), 0);
            for _ in 0..100 {
                if !waiting.is_empty() {
                    let id = call(waiting.remove(rng.below(waiting.len()))).id;
                    assert_eq!(calls.take(id).map(|call| call.id), Some(id));
                    assert_eq!(calls.take(id), None, "it was taken");
                }
                let made: Vec<u32> = (0..rng.below(4) as u32).map(|n| last + n).collect();
                last += 4;
                made.iter().for_each(|&number| calls.add(call(number)));
                waiting.extend(&made);
                assert_eq!(calls.made_last().iter().map(|call| call.number).collect::<Vec<_>>(), made);
                let mut all: Vec<u32> = calls.waiting().iter().map(|call| call.number).collect();
                all.sort_unstable();
                let mut wanted = waiting.clone();
                wanted.sort_unstable();
                assert_eq!((all, calls.held_bytes()), (wanted, waiting.len() * CALL_BYTES));
            }
        }
    }
}
