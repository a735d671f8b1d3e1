//! Which connection holds which suspended execution.
//!
//! A suspension dies with its sidecar: its id is never sent to the next one. Bounded; an id that is not known here is the
//! sidecar's to judge.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use nexus_protocol::limits::CLIENT_HELD_SUSPENSIONS;
use nexus_protocol::{ErrorCode, WireError};

use crate::error::Error;
use crate::link::Link;
use crate::segment::Segment;
use crate::slot::lock;

#[derive(Default)]
pub(crate) struct Held(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Id to the number of the connection: not the connection itself, which would live on.
    by_id: HashMap<String, u64>,
    oldest: VecDeque<String>,
}

impl Held {
    pub(crate) fn note(&self, link: &Link, segment: &Segment) {
        if segment.suspensions.is_empty() {
            return;
        }
        let mut known = lock(&self.0);
        let Known { by_id, oldest } = &mut *known;
        for suspension in segment.suspensions.made() {
            if by_id.insert(suspension.id.clone(), link.serial).is_none() {
                oldest.push_back(suspension.id);
            }
        }
        while oldest.len() > CLIENT_HELD_SUSPENSIONS
            && let Some(id) = oldest.pop_front()
        {
            by_id.remove(&id);
        }
    }

    /// Refuses an id that another connection than this one gave.
    pub(crate) fn check(&self, suspension: &str, present: &Arc<Link>) -> Result<(), Error> {
        match lock(&self.0).by_id.get(suspension) {
            Some(serial) if *serial != present.serial => {
                let gone = "the sidecar that held this execution has gone";
                Err(Error::sidecar(WireError::new(ErrorCode::SuspensionError, gone)))
            }
            _ => Ok(()),
        }
    }
}
