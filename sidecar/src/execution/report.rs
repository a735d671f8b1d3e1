//! What a client is told of a segment, and the sums that go on over all segments of an execution.

use std::time::{Duration, Instant};

use nexus_protocol::message::{ExecutionMetrics, PendingCall, Regions, SegmentResult, Status};
use nexus_protocol::{RequestId, WireError};

use super::{Outstanding, deadline_in};
use crate::engine::context::Effects;
use crate::engine::{Instance, Segment};
use crate::segments::Lent;

/// About how many operations QuickJS does between two looks at the interrupt word.
const OPERATIONS_PER_TICK: u64 = 10_000;

/// Sums of one execution so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub timeout: Option<Duration>,
    pub memory_limit_bytes: u64,
    pub queued: Duration,
    pub cache_hit: bool,
    pub compilation: Option<Duration>,
    seq: u32,
    ran: Duration,
    cpu: Duration,
    memory_used: u64,
    memory_peak: u64,
    ticks: u64,
}

impl Totals {
    /// Of an execution that has waited for `queued` before it begins.
    pub fn queued(queued: Duration) -> Self {
        Self { queued, ..Self::default() }
    }

    /// Time that counts against the deadline: waiting, compiling and running, not being suspended.
    pub fn spent(&self) -> Duration {
        self.queued + self.compilation.unwrap_or_default() + self.ran
    }

    /// When the next segment has to end. The outer None: the time is used up.
    pub fn deadline(&self) -> Option<Option<Instant>> {
        deadline_in(self.timeout.map(|t| t.saturating_sub(self.spent())))
    }

    pub fn memory_peak(&self) -> u64 {
        self.memory_peak
    }

    pub(super) fn add(&mut self, segment: &Segment) {
        self.ran += segment.ran;
        self.cpu += segment.cpu;
        self.memory_used = segment.memory_used;
        self.memory_peak = self.memory_peak.max(segment.memory_peak);
        self.ticks = self.ticks.max(segment.ticks);
    }

    pub(super) fn cpu(&self) -> Duration {
        self.cpu
    }

    pub(super) fn memory_used_bytes(&self) -> u64 {
        self.memory_used
    }

    pub(super) fn next_segment(&mut self) {
        self.seq += 1;
    }

    /// Report of a segment that has just ended, its outcome still open.
    pub(super) fn report(&self, instance: &mut Instance) -> Report {
        let mut report = Report::new(self.clone());
        if let Some(context) = instance.context_mut() {
            report.effects = context.take_effects();
            report.host_calls = context.host_calls().collect();
            report.new_host_calls = context.new_host_calls();
            report.violations = std::mem::take(&mut context.violations);
            report.denials = std::mem::take(&mut context.denials);
        }
        report
    }

    /// Report of an execution that ends without a segment.
    pub fn failure(&self, error: WireError) -> Report {
        let mut report = Report::new(self.clone());
        report.error = Some(error);
        report
    }
}

/// Everything that a result message says, owned.
#[derive(Debug)]
pub struct Report {
    pub status: Status,
    pub value: Option<Vec<u8>>,
    pub effects: Effects,
    /// Of the resident state, with the mutations in it.
    pub state_version: Option<u64>,
    /// Payloads that were put into shared memory.
    pub regions: Regions,
    pub suspensions: Vec<Outstanding>,
    pub error: Option<WireError>,
    pub totals: Totals,
    pub host_calls: Vec<(&'static str, u64)>,
    /// Of this segment: place in the table of host calls, and count.
    pub new_host_calls: Vec<(u8, u32)>,
    /// Capabilities that were missing in this segment, the first of them.
    pub violations: Vec<String>,
    /// How many there were.
    pub denials: u32,
}

impl Report {
    fn new(totals: Totals) -> Self {
        Self {
            status: Status::Error,
            value: None,
            effects: Effects::default(),
            state_version: None,
            regions: Regions::NONE,
            suspensions: Vec::new(),
            error: None,
            totals,
            host_calls: Vec::new(),
            new_host_calls: Vec::new(),
            violations: Vec::new(),
            denials: 0,
        }
    }

    /// The same segment, but the execution ends with an error. Its effects stay: they have happened.
    #[must_use]
    pub fn into_failure(mut self, error: WireError) -> Self {
        self.status = Status::Error;
        self.suspensions.clear();
        self.error = Some(error);
        self
    }

    /// Puts what is large into shared memory, as far as the client has lent some.
    pub fn share(&mut self, lent: &mut Lent) {
        if let Some(region) = self.value.as_deref().and_then(|value| lent.put(value)) {
            self.value = None;
            self.regions.value = Some(region);
        }
        let mutations = &mut self.effects.state_mutations;
        if let Some(region) = mutations.payload().and_then(|mutations| lent.put(mutations)) {
            mutations.clear();
            self.regions.state_mutations = Some(region);
        }
    }

    /// Time since the execution began, without what it spent suspended.
    pub fn duration(&self) -> Duration {
        self.totals.spent()
    }

    pub fn memory_peak_bytes(&self) -> u64 {
        self.totals.memory_peak
    }

    /// Appends the result as a frame. One that does not fit a frame becomes an error that says so.
    pub fn encode(&self, id: RequestId, max_frame_bytes: usize, out: &mut Vec<u8>) {
        let ids: Vec<String> = self.suspensions.iter().map(|s| s.id.to_string()).collect();
        let message = self.message(&ids);
        let encoded = nexus_protocol::SidecarMessage::Result(message).encode(id, max_frame_bytes, out);
        if let Err(e) = encoded {
            let error = WireError::resource_limit("maxFrameBytes", max_frame_bytes as u64, self.payload_bytes())
                .with_context_text("reason", e.to_string());
            let mut message = SegmentResult::new(Status::Error, self.totals.seq);
            message.error = Some(error);
            message.metrics = self.metrics();
            if let Err(e) = nexus_protocol::SidecarMessage::Result(message).encode(id, max_frame_bytes, out) {
                log::error!("cannot encode an error: {e}");
            }
        }
    }

    /// Bytes of the values that it carries.
    fn payload_bytes(&self) -> u64 {
        let Effects { state_mutations, events, view_commands, logs } = &self.effects;
        let effects = [state_mutations, events, view_commands, logs].into_iter().filter_map(|list| list.payload());
        let calls = self.suspensions.iter().map(|s| s.call.args.as_slice());
        self.value.as_deref().into_iter().chain(effects).chain(calls).map(|bytes| bytes.len() as u64).sum()
    }

    fn message<'a>(&'a self, ids: &'a [String]) -> SegmentResult<'a> {
        let mut message = SegmentResult::new(self.status, self.totals.seq);
        message.value = self.value.as_deref();
        message.state_mutations = self.effects.state_mutations.payload();
        message.state_version = self.state_version;
        message.regions = self.regions;
        message.events = self.effects.events.payload();
        message.view_commands = self.effects.view_commands.payload();
        message.logs = self.effects.logs.payload();
        message.suspensions = self
            .suspensions
            .iter()
            .zip(ids)
            .map(|(s, id)| PendingCall { id, extension: &s.call.extension, method: &s.call.method, args: &s.call.args })
            .collect();
        message.error.clone_from(&self.error);
        message.metrics = self.metrics();
        message
    }

    fn metrics(&self) -> ExecutionMetrics<'_> {
        let totals = &self.totals;
        ExecutionMetrics {
            duration_us: micros(totals.spent()),
            cpu_us: micros(totals.cpu),
            queue_us: micros(totals.queued),
            memory_used_bytes: totals.memory_used,
            memory_peak_bytes: totals.memory_peak,
            instruction_count: totals.ticks * OPERATIONS_PER_TICK,
            host_calls: self.host_calls.clone(),
            cache_hit: totals.cache_hit,
            compilation_time_us: totals.compilation.map(micros),
        }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
