//! The part of the hub that says which suspended execution gives its instance up, and what came of it.

use std::time::Instant;

use super::{Entry, Held, Holder, Hub, ParkingEnd, Peer};

impl<E: Held, P: Peer> Hub<E, P> {
    /// Whether `next_to_park` would give one.
    pub fn has_to_park(&self, now: Instant) -> bool {
        self.holdings.due(now).is_some()
    }

    /// Whether whoever can should park one, since too many keep their instances.
    pub fn has_to_park_now(&self) -> bool {
        self.holdings.is_pressing()
    }

    /// A suspended execution that is to give its instance up; it is the caller's until `parked` or `stay_live`.
    pub fn next_to_park(&mut self, now: Instant) -> Option<(u64, Box<E>)> {
        let key = self.holdings.due(now)?;
        let entry = self.entries.get_mut(&key)?;
        match std::mem::replace(&mut entry.holder, Holder::Parking { ended: false }) {
            Holder::Suspended(execution) => {
                if let Some(seat) = entry.seat.take() {
                    self.holdings.remove_live(seat);
                }
                self.parking += 1;
                let announced = std::mem::take(&mut entry.announced).then_some(entry.session);
                // its mail waits for the parking now
                if let Some(session) = announced {
                    self.unqueue(session, key);
                }
                Some((key, execution))
            }
            other => {
                entry.holder = other;
                None
            }
        }
    }

    /// The execution holds no instance any more.
    pub fn parked(&mut self, key: u64, mut execution: Box<E>, now: Instant) -> ParkingEnd<E> {
        let Some(Entry { holder: Holder::Parking { ended: false }, charge, .. }) = self.entries.get_mut(&key) else {
            return ParkingEnd::Ended(self.end_of_parking(key, execution));
        };
        // less than in its instance; where nothing of it could be packed, some hundredths more, which are there now
        charge.set(execution.held_bytes());
        self.holdings.add_parked();
        self.parked_suspensions += execution.outstanding();
        self.suspended_again(key, execution, now);
        ParkingEnd::Parked
    }

    /// The execution could not be parked: it is as it was. Given back when it has ended meanwhile.
    pub fn stay_live(&mut self, key: u64, execution: Box<E>, now: Instant) -> Option<Box<E>> {
        let Some(Entry { holder: Holder::Parking { ended: false }, seat, .. }) = self.entries.get_mut(&key) else {
            return Some(self.end_of_parking(key, execution));
        };
        *seat = Some(self.holdings.add_live(key, now));
        self.suspended_again(key, execution, now);
        None
    }

    /// Nothing can be parked before that time; None: on this system.
    pub fn pause_parking(&mut self, until: Option<Instant>) {
        self.holdings.pause_parking(until);
    }

    fn suspended_again(&mut self, key: u64, execution: Box<E>, now: Instant) {
        self.parking -= 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.holder = Holder::Suspended(execution);
        }
        self.is_free(key, now);
    }

    fn end_of_parking(&mut self, key: u64, execution: Box<E>) -> Box<E> {
        self.parking -= 1;
        self.suspended -= 1;
        self.forget_entry(key);
        execution
    }
}
