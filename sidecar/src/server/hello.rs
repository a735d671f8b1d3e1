//! What a client is told when it has said hello.

use nexus_protocol::message::{HelloLimits, SidecarHello};
use nexus_protocol::{ProtocolVersion, RequestId, SidecarMessage, limits};

use super::Server;
use super::connection::Connection;
use crate::config::Config;

impl Server {
    pub(super) fn welcome(&self, connection: &Connection) {
        let config = &self.runtime.config;
        let limits = HelloLimits {
            max_frame_bytes: config.max_frame_bytes,
            max_source_bytes: config.max_source_bytes,
            max_result_bytes: config.max_result_bytes,
            timeout_ms: config.timeout_ms,
            memory_limit_bytes: config.memory_limit_bytes,
            stack_size_bytes: config.stack_size_bytes,
            suspension_timeout_ms: config.suspension_timeout_ms,
            max_host_calls: config.max_host_calls,
            max_state_mutations: config.max_state_mutations,
            max_events: config.max_events,
            max_in_flight: max_in_flight(config),
            max_states: config.max_states,
            max_state_bytes: config.max_state_bytes,
            max_arena_bytes: config.max_arena_bytes,
            max_suspended: Some(config.max_suspended),
        };
        let hello = SidecarHello {
            version: ProtocolVersion::V2,
            build: env!("CARGO_PKG_VERSION"),
            engine: &self.engine_digest,
            pid: self.pid,
            debug: config.debug,
            limits,
        };
        connection.send(RequestId::CONNECTION, &SidecarMessage::Hello(hello));
    }
}

/// What one connection may have unanswered: no more than there is room for, so that one that keeps to it while it is alone is
/// not refused.
pub(super) fn max_in_flight(config: &Config) -> u64 {
    config.max_queued.saturating_add(config.max_instances).min(limits::DEFAULT_MAX_IN_FLIGHT)
}
