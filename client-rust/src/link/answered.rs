//! What the reader thread brings: answers, their parts, the end.
//!
//! Invariants: every request is filled once, by its answer or by the end of the connection; an answer that nobody hears leaves nothing
//! behind with the sidecar. Slots are filled, and what waited is dropped, outside of the lock.

use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Cancel, DisposeState};
use nexus_protocol::{ClientMessage, RequestId};

use super::requests::Entry;
use super::{Answer, Link, Pending, PlaceHeld};
use crate::error::Error;
use crate::listed::{Listing, Ready};
use crate::segment::Segment;
use crate::slot::{lock, wake};

impl Link {
    /// Takes an answer from the reader thread.
    pub(crate) fn complete(self: &Arc<Self>, id: RequestId, result: Result<Answer, Error>) {
        let queued = match &result {
            Ok(Answer::Segment(segment)) => Some(Duration::from_micros(segment.metrics.queue_us)),
            _ => None,
        };
        let entry = lock(&self.requests).remove(id.0, queued, &self.room);
        match entry {
            Some(mut entry) => {
                let result = entry.with_parts(result);
                let Entry { slot, lease, at, listing, parts, .. } = entry;
                // What the answer brings about finds the room free.
                drop(lease);
                let Some(listing) = listing else {
                    if let Some(unheard) = slot.fill(result) {
                        self.dispose(unheard, at);
                    }
                    drop(parts.map(|parts| parts.places));
                    return;
                };
                self.hand_out(listing.answered(slot, result));
            }
            None => log::warn!("the sidecar answered request {id}, which there is not"),
        }
    }

    /// A part of an answer has come. False: there is no request that has parts.
    pub(crate) fn take_part(&self, id: RequestId, part: Vec<Segment>) -> bool {
        let mut requests = lock(&self.requests);
        let parts = requests.waiting.get_mut(&id.0).and_then(|entry| entry.parts.as_mut());
        let Some(parts) = parts else { return false };
        parts.told.extend(part);
        let waker = parts.waker.take();
        drop(requests);
        if let Some(waker) = waker {
            wake(waker);
        }
        true
    }

    /// Takes the parts that have come. Nothing once the answer has: that has the rest.
    pub(crate) fn poll_parts(&self, id: u32, context: &Context<'_>) -> Vec<Segment> {
        // Wakers are cloned and dropped outside of the lock: they are the caller's code.
        let waker = context.waker().clone();
        let mut requests = lock(&self.requests);
        let Some(parts) = requests.waiting.get_mut(&id).and_then(|entry| entry.parts.as_mut()) else {
            return Vec::new();
        };
        let told = std::mem::take(&mut parts.told);
        let before = parts.waker.replace(waker);
        drop(requests);
        drop(before);
        told
    }

    /// Something was logged, before the answer. False: nobody has asked to hear that.
    pub(crate) fn take_logs(&self, id: RequestId, list: &[u8]) -> bool {
        // Its waker is woken without the lock.
        let ear = lock(&self.requests).waiting.get(&id.0).and_then(|entry| entry.ear.clone());
        ear.map(|ear| ear.hear(list)).is_some()
    }

    /// For an execution that is begun by another's request.
    pub(crate) fn listing(&self) -> Listing {
        self.listed.begin()
    }

    pub(crate) fn hand_out(self: &Arc<Self>, ready: impl IntoIterator<Item = Ready>) {
        for (slot, result) in ready {
            if let Some(unheard) = slot.fill(result) {
                self.dispose(unheard, None);
            }
        }
    }

    /// Ends all waiting. Called once, by the reader thread.
    pub(crate) fn close(&self, error: &Error) {
        let mut requests = lock(&self.requests);
        requests.closed = Some((error.clone(), Instant::now()));
        let waiting = std::mem::take(&mut requests.waiting);
        let watchers = std::mem::take(&mut requests.watchers);
        requests.outbox.clear();
        drop(requests);
        self.room.notify_one();
        self.wire.close();
        self.sharing.close();
        self.listed.close();
        // With the last lease the arena goes, before anybody is told.
        let told = |mut entry: Entry| {
            let end = entry.with_parts(Err(error.clone()));
            (entry.slot, end)
        };
        let ends: Vec<_> = waiting.into_values().map(told).collect();
        for (slot, end) in ends {
            slot.fill(end);
        }
        for watcher in watchers.into_values() {
            watcher.fill(error.clone());
        }
    }

    /// An answer that nobody heard: a suspended execution would wait for nothing, a state be kept for nobody.
    /// `at`: its place, which is left when the execution has been cancelled.
    pub(super) fn dispose(self: &Arc<Self>, unheard: Result<Answer, Error>, at: Option<Arc<PlaceHeld>>) {
        match unheard {
            Ok(Answer::Segment(segment)) => {
                if let Some(suspension) = segment.suspensions.first() {
                    self.cancel(Cancel::Suspension(&suspension.id));
                }
            }
            Ok(Answer::Results(segments, _)) => {
                for suspension in segments.iter().filter_map(|segment| segment.suspensions.first()) {
                    self.cancel(Cancel::Suspension(&suspension.id));
                }
            }
            Ok(Answer::StateCreated(id)) => {
                let sent = self.send(ClientMessage::DisposeState(DisposeState { id: &id }));
                sent.map(Pending::forget).unwrap_or_default();
            }
            _ => {}
        }
        drop(at);
    }
}
