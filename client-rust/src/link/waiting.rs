//! What is not written at once: the outbox and the thread that empties it, and taking back.
//!
//! Invariants: the thread is there only while something waits; a request leaves the outbox under the wire's lock only, so that its cancel
//! is written behind it.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Instant;

use nexus_protocol::limits::FRAME_BUFFER_KEEP_BYTES;
use nexus_protocol::message::Cancel;
use nexus_protocol::{ClientMessage, RequestId};

use super::requests::{Entry, Place};
use super::{Link, Pending};
use crate::error::{Error, StartError};
use crate::outbox::{Turn, Waiting};
use crate::slot::lock;

impl Link {
    /// Leaves a request in the outbox, encoded as it is now.
    pub(super) fn enqueue(self: &Arc<Self>, message: &ClientMessage<'_>, id: u32, turn: Turn) -> Result<(), Error> {
        let mut frame = Vec::new();
        message.encode(RequestId(id), self.max_body_bytes, &mut frame).map_err(Error::request)?;
        let suspension = match message {
            ClientMessage::Resume(resume) => Some(resume.suspension.to_owned()),
            _ => None,
        };
        let always = matches!(message, ClientMessage::DisposeState(_) | ClientMessage::Shutdown);
        let mut requests = lock(&self.requests);
        if let Some((error, _)) = &requests.closed {
            return Err(error.clone());
        }
        let ticket = requests.outbox.push(Waiting { id, frame, turn, suspension }, always)?;
        if !requests.pumping {
            let link = Arc::clone(self);
            match thread::Builder::new().name("nexus-outbox".to_owned()).spawn(move || link.pump()) {
                Ok(_) => requests.pumping = true,
                Err(source) => {
                    requests.outbox.remove(ticket);
                    return Err(StartError::Spawn { path: "a thread".into(), source }.into());
                }
            }
        }
        if let Some(entry) = requests.waiting.get_mut(&id) {
            entry.place = Place::Waiting(ticket);
        }
        drop(requests);
        // There may be room again since it was looked for.
        self.room.notify_one();
        Ok(())
    }

    /// Writes what waits as soon as there is room for it, until nothing waits.
    fn pump(&self) {
        loop {
            let mut requests = lock(&self.requests);
            loop {
                let now = Instant::now();
                if requests.outbox.is_empty() || requests.outbox.is_ready(now) {
                    break;
                }
                requests = match requests.outbox.places.ask_again_in(now) {
                    Some(time) => self.room.wait_timeout(requests, time).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.room.wait(requests).unwrap_or_else(PoisonError::into_inner),
                };
            }
            if requests.outbox.is_empty() {
                requests.pumping = false;
                return;
            }
            drop(requests);
            self.wire.wait_until_free();
            let filled: Result<(), Infallible> = self.wire.write(|buffer| {
                let mut requests = lock(&self.requests);
                let now = Instant::now();
                while buffer.len() < FRAME_BUFFER_KEEP_BYTES
                    && let Some(Waiting { id, frame, .. }) = requests.outbox.take(now)
                {
                    if let Some(entry) = requests.waiting.get_mut(&id) {
                        entry.place = Place::Sent;
                    }
                    buffer.extend_from_slice(&frame);
                }
                Ok(())
            });
            let Ok(()) = filled;
        }
    }

    /// Takes a request back that was not written yet, as one that was cancelled.
    fn take_back(self: &Arc<Self>, id: u32) -> bool {
        let mut requests = lock(&self.requests);
        let Some(&Entry { place: Place::Waiting(ticket), .. }) = requests.waiting.get(&id) else { return false };
        let waiting = requests.outbox.remove(ticket);
        let entry = requests.waiting.remove(&id);
        drop(requests);
        self.room.notify_one();
        if let Some(suspension) = waiting.and_then(|waiting| waiting.suspension) {
            self.cancel(Cancel::Suspension(&suspension));
        }
        if let Some(entry) = entry {
            entry.slot.fill(Err(Error::Cancelled));
        }
        true
    }

    /// Cancels an execution, to hear whether there was one.
    pub(crate) fn send_cancel(self: &Arc<Self>, suspension: &str) -> Result<Pending, Error> {
        self.listed.cancelled(suspension);
        self.send(ClientMessage::Cancel(Cancel::Suspension(suspension)))
    }

    /// Cancels, without waiting for what becomes of it.
    pub(crate) fn cancel(self: &Arc<Self>, target: Cancel<'_>) {
        match target {
            Cancel::Request(id) if self.take_back(id) => return,
            Cancel::Request(_) => {}
            Cancel::Suspension(suspension) => self.listed.cancelled(suspension),
        }
        // An error means that the connection is gone, and with it the execution.
        if let Ok(pending) = self.send(ClientMessage::Cancel(target)) {
            pending.forget();
        }
    }
}
