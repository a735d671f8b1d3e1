//! One execution of a handler: from its first segment to its end, over any number of suspensions.
//!
//! ```text
//!   Runtime::execute --> Report + Suspended(Execution) --resume--> Report + Suspended ... --> Report + Finished
//! ```
//! An `Execution` exists only while it is suspended; it owns its instance or, parked, the image of it, and dropping it frees
//! that. It is resumed from either: `awake` gets it into an instance again.

mod calls;
mod report;
mod request;
mod segment;

pub use calls::Outstanding;
pub use report::{Arrival, Report, Totals};
pub use request::{Input, StateSource, narrow_timeout, not_a_payload, prepare};
pub use segment::{
    Answer, Awake, Execution, NotAwake, Progress, cancelled, memory_error, no_such_suspension, of_time, stopped,
    waited_too_long,
};
