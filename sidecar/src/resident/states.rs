//! The resident states of all connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexus_protocol::{ErrorCode, StateId, WireError};

use super::state::ResidentState;
use crate::budget::Budget;
use crate::halt::Halt;
use crate::os;
use crate::token::StopToken;

/// Bounds, as configured.
#[derive(Clone, Copy, Debug)]
pub struct StateLimits {
    /// Of one connection.
    pub states: u64,
    pub bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug)]
struct Owner {
    budget: Arc<Budget>,
    states: HashMap<StateId, Arc<ResidentState>>,
}

/// The resident states of all connections, each known by a number.
#[derive(Debug)]
pub struct States {
    limits: StateLimits,
    total: Arc<Budget>,
    owners: Mutex<HashMap<u64, Owner>>,
}

impl States {
    pub fn new(limits: StateLimits) -> Self {
        let total = Budget::new("maxTotalStateBytes", limits.total_bytes);
        Self { limits, total, owners: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come. Before this it cannot have states.
    pub fn open(&self, owner: u64) {
        let budget = self.total.part("maxStateBytes", self.limits.bytes);
        self.lock().entry(owner).or_insert_with(|| Owner { budget, states: HashMap::new() });
    }

    /// A connection has gone: its states, which the caller disposes of.
    pub fn close(&self, owner: u64) -> impl Iterator<Item = Arc<ResidentState>> {
        let gone = self.lock().remove(&owner);
        gone.into_iter().flat_map(|owner| owner.states.into_values())
    }

    /// Keeps a state: a payload, not checked yet.
    pub fn create(&self, owner: u64, state: &[u8], token: &StopToken) -> Result<(StateId, u64), Halt> {
        let budget = match self.lock().get(&owner) {
            Some(owner) => self.room(owner).map(|()| owner.budget.clone())?,
            // nobody is left to hear this
            None => return Err(WireError::unknown_state().into()),
        };
        let state = ResidentState::new(state, &budget, token)?;
        let version = state.snapshot().version();
        let mut id = [0; nexus_protocol::limits::SUSPENSION_ID_BYTES];
        os::fill_random(&mut id)
            .map_err(|e| WireError::new(ErrorCode::InternalError, format!("no random bytes: {e}")))?;
        let id = StateId(id);
        let mut owners = self.lock();
        let owner = owners.get_mut(&owner).ok_or_else(WireError::unknown_state)?;
        self.room(owner)?;
        owner.states.insert(id, state);
        Ok((id, version))
    }

    fn room(&self, owner: &Owner) -> Result<(), WireError> {
        let count = owner.states.len() as u64 + 1;
        if count <= self.limits.states {
            return Ok(());
        }
        Err(WireError::resource_limit("maxStates", self.limits.states, count))
    }

    /// A state of this connection, by its id as it came. Anything else is unknown, whatever the reason.
    pub fn find(&self, owner: u64, id: &str) -> Result<Arc<ResidentState>, WireError> {
        let id: StateId = id.parse().map_err(|_| WireError::unknown_state())?;
        self.lock().get(&owner).and_then(|owner| owner.states.get(&id)).cloned().ok_or_else(WireError::unknown_state)
    }

    /// Whether there was one.
    pub fn dispose(&self, owner: u64, id: &str) -> bool {
        let Ok(id) = id.parse::<StateId>() else { return false };
        let state = self.lock().get_mut(&owner).and_then(|owner| owner.states.remove(&id));
        if let Some(state) = &state {
            state.dispose();
        }
        state.is_some()
    }

    /// The bytes that states take. Waits for nobody.
    pub fn bytes(&self) -> u64 {
        self.total.used()
    }

    /// States, and the bytes that they take.
    pub fn counts(&self) -> (u64, u64) {
        let states = self.lock().values().map(|owner| owner.states.len() as u64).sum();
        (states, self.total.used())
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ContextValue;

    use super::*;

    fn create(states: &States, owner: u64, state: &[u8]) -> Result<(StateId, u64), WireError> {
        states.create(owner, state, &StopToken::new()).map_err(refused)
    }

    fn refused(halt: Halt) -> WireError {
        halt.into_error(|cause| panic!("nobody has stopped it: {cause:?}"))
    }

    fn states() -> States {
        let states = States::new(StateLimits { states: 2, bytes: 10_000, total_bytes: 15_000 });
        states.open(1);
        states.open(2);
        states
    }

    #[test]
    fn a_state_is_known_to_its_owner_alone() {
        let states = states();
        let (id, version) = create(&states, 1, &[0x80]).unwrap();
        assert_eq!(version, 1);
        let id = id.to_string();
        assert!(states.find(1, &id).is_ok());
        let unknown = states.find(2, &"0".repeat(32)).unwrap_err();
        assert_eq!(states.find(2, &id).unwrap_err(), unknown);
        assert_eq!(states.find(1, "no id").unwrap_err(), unknown);
        assert!(!states.dispose(2, &id));
        assert!(states.dispose(1, &id));
        assert!(!states.dispose(1, &id));
        assert_eq!(states.counts(), (0, 0));
    }

    #[test]
    fn counts_and_bytes_are_bounded_per_owner_and_in_total() {
        let states = states();
        let large = [&[0x81, 0xa1, b'k', 0xc5, 0x1f, 0x40][..], &[0; 8000]].concat();
        create(&states, 1, &large).unwrap();
        assert_eq!(
            create(&states, 1, &large).unwrap_err().context["resource"],
            ContextValue::Text("maxStateBytes".into())
        );
        assert_eq!(
            create(&states, 2, &large).unwrap_err().context["resource"],
            ContextValue::Text("maxTotalStateBytes".into())
        );
        create(&states, 1, &[0x80]).unwrap();
        assert_eq!(
            create(&states, 1, &[0x80]).unwrap_err().context["resource"],
            ContextValue::Text("maxStates".into())
        );
        let (count, bytes) = states.counts();
        assert!(count == 2 && bytes == states.bytes() && (8_000..10_000).contains(&bytes), "{count} {bytes}");
        states.close(1).for_each(|state| state.dispose());
        assert_eq!((states.counts(), states.bytes()), ((0, 0), 0));
        assert!(create(&states, 1, &[0x80]).is_err(), "the connection is gone");
        create(&states, 2, &large).unwrap();
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let states = states();
        for bytes in [&[0x01][..], &[0x90], &[0x81, 0x01, 0x01], &[0x81, 0xa1, b'k'], &[0x80, 0x80], &[]] {
            assert_eq!(create(&states, 1, bytes).unwrap_err().code, ErrorCode::InvalidArgument);
        }
        assert_eq!(states.counts(), (0, 0));
    }
}
