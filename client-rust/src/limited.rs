//! What a call asked for and does not get: the sidecar's own limit is narrower, and counts (SPEC 3, execute).

use nexus_protocol::message::HelloLimits;

use crate::context::Context;
use crate::segment::Segment;

impl Context {
    /// Tells with the first segment which limits count instead of these. `in_force`: by the sidecar's hello, which does not tell
    /// `maxLogBytes`.
    pub(crate) fn tell_limited(&self, segment: &mut Segment, in_force: &HelloLimits) {
        if segment.seq != 0 {
            return;
        }
        let (asked, timeout) = (self.asked_limits(), self.asked_timeout_ms());
        let timeout_in_force = Some(in_force.timeout_ms).filter(|ms| *ms > 0);
        let each = [
            ("timeoutMs", timeout, timeout_in_force),
            ("memoryLimitBytes", asked.memory_limit_bytes, Some(in_force.memory_limit_bytes)),
            ("maxHostCalls", asked.max_host_calls, Some(in_force.max_host_calls)),
            ("maxStateMutations", asked.max_state_mutations, Some(in_force.max_state_mutations)),
            ("maxEvents", asked.max_events, Some(in_force.max_events)),
            ("maxResultBytes", asked.max_result_bytes, Some(in_force.max_result_bytes)),
        ];
        for (name, asked, counts) in each {
            if let (Some(asked), Some(counts)) = (asked, counts)
                && asked > counts
            {
                segment.limited.insert(name, counts);
            }
        }
    }
}
