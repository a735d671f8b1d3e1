// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! What is told in figures, as this crate's own types: the wire's may grow without the programs that use this crate.

use nexus_protocol::message;

/// The limits in force, in hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SidecarLimits {
    /// Body of one frame.
    pub max_frame_bytes: u64,
    /// Source of one handler.
    pub max_source_bytes: u64,
    /// Value, effects and arguments of calls of one execution.
    pub max_result_bytes: u64,
    /// Running and queueing time of one execution; 0: no limit.
    pub timeout_ms: u64,
    /// Memory of one execution.
    pub memory_limit_bytes: u64,
    /// Stack of one execution.
    pub stack_size_bytes: u64,
    /// Time that one suspension may wait; 0: no limit.
    pub suspension_timeout_ms: u64,
    /// Host calls of one execution.
    pub max_host_calls: u64,
    /// State mutations of one execution.
    pub max_state_mutations: u64,
    /// Events of one execution.
    pub max_events: u64,
    /// Requests of one connection without an answer.
    pub max_in_flight: u64,
    /// Resident states of one connection. 0: the sidecar keeps none.
    pub max_states: u64,
    /// Bytes of the resident states of one connection.
    pub max_state_bytes: u64,
    /// Shared memory of one connection. 0: everything travels through the socket.
    pub max_arena_bytes: u64,
    /// Suspended executions that the sidecar holds. Absent: it does not say; a client that begins more executions at
    /// once than may be suspended keeps the others back.
    pub max_suspended: Option<u64>,
}

impl SidecarLimits {
    pub(crate) fn of(told: &message::HelloLimits) -> Self {
        Self {
            max_frame_bytes: told.max_frame_bytes,
            max_source_bytes: told.max_source_bytes,
            max_result_bytes: told.max_result_bytes,
            timeout_ms: told.timeout_ms,
            memory_limit_bytes: told.memory_limit_bytes,
            stack_size_bytes: told.stack_size_bytes,
            suspension_timeout_ms: told.suspension_timeout_ms,
            max_host_calls: told.max_host_calls,
            max_state_mutations: told.max_state_mutations,
            max_events: told.max_events,
            max_in_flight: told.max_in_flight,
            max_states: told.max_states,
            max_state_bytes: told.max_state_bytes,
            max_arena_bytes: told.max_arena_bytes,
            max_suspended: told.max_suspended,
        }
    }
}
