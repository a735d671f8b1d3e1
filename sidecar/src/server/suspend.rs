//! A segment has ended in a suspension: the books keep the execution if they have room for all that it takes.
//!
//! What finds no room is made smaller first, outside of the lock: the kernel is asked what the guest has really written to, and
//! then the execution gives up its instance. That costs whoever suspends it up to some tens of milliseconds, and nobody else.
//! With what is only estimated no more than half of the room is taken.

use std::sync::Arc;

use nexus_protocol::WireError;

use super::Server;
use super::connection::Connection;
use super::crew::RunId;
use super::hub::{Hub, NotKept};
use crate::engine::Instance;
use crate::execution::{self, Execution};
use crate::observe::SuspensionEvent;

/// What became of a suspended execution.
pub(super) enum Suspended {
    /// Its run is answered where it was the last thing of it. The instance that it has given up, if it had to.
    Kept(Option<Instance>),
    /// It is over, for this reason, and its instance can serve others.
    Over(Option<Instance>, WireError),
    /// The worker was given up meanwhile: others have answered.
    GivenUp(Option<Instance>),
}

impl Server {
    /// `keep`: asks the books. It may be called several times.
    pub(super) fn suspended(
        &self,
        run: RunId,
        mut execution: Box<Execution>,
        mut keep: impl FnMut(&mut Hub<Execution, Arc<Connection>>, Box<Execution>) -> Result<(), NotKept>,
    ) -> Suspended {
        let mut given_up = None;
        // a thread that gives way should not do it with the books in hand, and this may take a while
        execution.measure(false);
        loop {
            let Some(mut state) = self.books(run) else {
                return Suspended::GivenUp(execution.into_instance().or(given_up));
            };
            let kept = keep(&mut state.hub, execution);
            drop(state);
            let full = match kept {
                Ok(()) => {
                    self.runtime.observer.record_suspension(SuspensionEvent::Created);
                    if given_up.is_some() {
                        self.runtime.observer.record_suspension(SuspensionEvent::Parked);
                    }
                    return Suspended::Kept(given_up);
                }
                Err(NotKept::Gone(execution)) => {
                    return Suspended::Over(execution.into_instance().or(given_up), execution::cancelled());
                }
                Err(NotKept::Limit { execution, full }) => {
                    return Suspended::Over(execution.into_instance().or(given_up), full.into());
                }
                Err(NotKept::NoRoom { execution: refused, full }) => {
                    execution = refused;
                    full
                }
            };
            if execution.measure(true) {
                continue;
            }
            match execution.park() {
                Ok(instance) => given_up = instance,
                Err(e) => {
                    log::warn!("a suspended execution that has no room in its instance cannot be parked: {e}");
                    return Suspended::Over(execution.into_instance(), full.into());
                }
            }
        }
    }
}
