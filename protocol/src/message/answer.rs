//! What the fields of a sidecar's messages mean together, and how such a message is begun.

use crate::limits::SUSPENSION_GRACE_MS;
use crate::message::{ExecutionMetrics, HelloLimits, Regions, SegmentResult, Status};

impl HelloLimits {
    /// How long the sidecar keeps an execution that nobody resumes; 0: for ever.
    pub fn suspension_kept_ms(&self) -> u64 {
        suspension_kept_ms(self.suspension_timeout_ms)
    }
}

/// How long an execution is kept that nobody resumes, by `suspensionTimeoutMs`; 0: for ever.
pub const fn suspension_kept_ms(suspension_timeout_ms: u64) -> u64 {
    match suspension_timeout_ms {
        0 => 0,
        ms => ms.saturating_add(SUSPENSION_GRACE_MS),
    }
}

impl SegmentResult<'_> {
    /// A segment of which nothing is known yet but how it ended.
    pub fn new(status: Status, seq: u32) -> Self {
        Self {
            status,
            seq,
            value: None,
            state_mutations: None,
            state_version: None,
            events: None,
            view_commands: None,
            logs: None,
            suspensions: Vec::new(),
            error: None,
            warnings: Vec::new(),
            regions: Regions::NONE,
            metrics: ExecutionMetrics::default(),
        }
    }
}
