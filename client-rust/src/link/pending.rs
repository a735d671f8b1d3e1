//! What callers hold of a connection: a request that is to be answered, a place, the end that is waited for.
//!
//! Invariant: each lets go of what it stands for when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nexus_protocol::message::Cancel;

use super::{Answer, AnswerSlot, Link};
use crate::error::Error;
use crate::places::PlaceNumber;
use crate::slot::{Slot, lock};

/// A request that was sent. An execution whose answer is dropped before it was taken is cancelled.
pub(crate) struct Pending {
    pub(super) link: Arc<Link>,
    pub(super) id: u32,
    /// Whether it runs a handler.
    pub(super) cancellable: bool,
    /// `None` once the answer was taken or given up.
    pub(super) slot: Option<Arc<AnswerSlot>>,
}

impl Pending {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Gives the answer up without cancelling anything. The entry stays until the answer comes.
    pub(crate) fn forget(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.abandon();
        }
    }

    /// Takes back a request that was not written: no answer will come.
    pub(super) fn withdraw(self) {
        let link = &self.link;
        let entry = lock(&link.requests).remove(self.id, None, &link.room);
        drop(entry);
        self.forget();
    }
}

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = &self.slot else { return Poll::Pending };
        let answer = slot.poll(context);
        if answer.is_ready() {
            self.slot = None;
        }
        answer
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        match slot.abandon() {
            Some(unheard) => self.link.dispose(unheard, None),
            None if self.cancellable => self.link.cancel(Cancel::Request(self.id)),
            None => {}
        }
    }
}

/// See [`Link::place`]. It is left when nobody holds it any more: no run, and no request that is unanswered.
pub(crate) struct PlaceHeld {
    pub(super) link: Arc<Link>,
    pub(super) number: PlaceNumber,
    /// Before its request was sent.
    pub(super) was_taken: bool,
}

impl Drop for PlaceHeld {
    fn drop(&mut self) {
        let left = lock(&self.link.requests).outbox.places.leave(self.number);
        if left {
            self.link.room.notify_one();
        }
    }
}

/// See [`Link::closed`].
pub(crate) struct Closed {
    pub(super) link: Arc<Link>,
    pub(super) number: u64,
    pub(super) slot: Arc<Slot<Error>>,
}

impl Future for Closed {
    type Output = Error;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Error> {
        self.slot.poll(context)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        lock(&self.link.requests).watchers.remove(&self.number);
    }
}
