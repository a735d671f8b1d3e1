//! What a client is told of a segment, and the sums that go on over all segments of an execution.

use std::time::{Duration, Instant};

use nexus_protocol::message::{ExecutionMetrics, PendingCall, Regions, SegmentResult, Status};
use nexus_protocol::{EncodeError, LargeField, Pieces, RequestId, Shared, SuspensionId, WireError};

use super::stopped;
use crate::cache::Note;
use crate::engine::context::{Effects, NewCall};
use crate::engine::{Instance, Segment};
use crate::segments::Lent;
use crate::token::{StopCause, StopToken};

/// From this size on values and arguments of calls are not copied into the answer. Below, a copy costs less than a write of
/// several pieces.
const LARGE_FROM_BYTES: usize = 16 << 10;

/// What is told of a call beside its names and arguments: its id, the keys, lengths.
const BESIDE_ARGUMENTS: usize = 96;
/// What an answer has beside values, effects and arguments of calls, at the most: an error with all its details, the names
/// of host calls, figures.
const MOST_BESIDE_PAYLOADS: u64 = 1 << 20;

/// About how many operations QuickJS does between two looks at the interrupt word.
const OPERATIONS_PER_TICK: u64 = 10_000;

/// When a segment could have begun, and how long it has waited since for an instance.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub since: Instant,
    pub waited: Duration,
}

impl Arrival {
    /// Of one that does not wait.
    pub fn now() -> Self {
        Self { since: Instant::now(), waited: Duration::ZERO }
    }
}

/// Sums of one execution so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub timeout: Option<Duration>,
    pub memory_limit_bytes: u64,
    /// Of the answer to each segment.
    pub max_frame_bytes: usize,
    pub cache_hit: bool,
    /// What its client is told of compiling it: of a handler that others had compiled, what that took.
    pub compilation: Option<Duration>,
    /// While a segment goes on: since when it could.
    since: Option<Instant>,
    /// By the segments before.
    used: Duration,
    queued: Duration,
    seq: u32,
    /// Whether its segments had effects.
    pub(super) effects: bool,
    cpu: Duration,
    /// Of the last segment.
    segment_cpu: Duration,
    memory_used: u64,
    memory_peak: u64,
    ticks: u64,
}

impl Totals {
    /// Of an execution that begins.
    pub fn begun(arrival: Arrival) -> Self {
        let mut totals = Self::default();
        totals.goes_on(arrival);
        totals
    }

    /// A segment begins.
    pub(super) fn goes_on(&mut self, arrival: Arrival) {
        self.since = Some(arrival.since);
        self.queued += arrival.waited;
        self.segment_cpu = Duration::ZERO;
    }

    /// A segment has ended.
    fn pause(&mut self) {
        self.used += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Time that counts against the deadline: from the moment at which a segment could begin to its end, whatever it is spent
    /// with; not being suspended.
    pub fn spent(&self) -> Duration {
        self.used + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// When the segment that goes on has to end: when the execution's own time is used up, or its request's.
    pub fn deadline(&self, token: &StopToken) -> Result<Option<Instant>, StopCause> {
        token.check()?;
        let began = self.since.unwrap_or_else(Instant::now);
        let own = self.timeout.and_then(|timeout| began.checked_add(timeout.saturating_sub(self.used)));
        if own.is_some_and(|end| end <= Instant::now()) {
            return Err(StopCause::Deadline);
        }
        Ok([own, token.deadline()].into_iter().flatten().min())
    }

    /// Report of an execution that ends for want of time, or because it was cancelled.
    pub fn stopped(&self, cause: StopCause) -> Report {
        self.failure(stopped(cause, self.timeout, self.spent()))
    }

    pub fn memory_peak(&self) -> u64 {
        self.memory_peak
    }

    pub(super) fn add(&mut self, segment: &Segment) {
        self.pause();
        self.cpu += segment.cpu;
        self.segment_cpu = segment.cpu;
        self.memory_used = segment.memory_used;
        self.memory_peak = self.memory_peak.max(segment.memory_peak);
        self.ticks = self.ticks.max(segment.ticks);
    }

    pub(super) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// What its guest has taken since it last went on.
    pub fn segment_cpu(&self) -> Duration {
        self.segment_cpu
    }

    pub(super) fn memory_used_bytes(&self) -> u64 {
        self.memory_used
    }

    /// Whether the request of the last segment may be sent again, for an error of which that is true otherwise. Not where
    /// effects have happened; nor where a call was answered, for that is used up. What was refused at the end of a segment left
    /// no trace, and is for the caller of the whole execution to begin anew.
    pub(super) fn may_be_repeated(&self, was_refused: bool) -> bool {
        !self.effects && (was_refused || self.seq == 0)
    }

    pub(super) fn is_first(&self) -> bool {
        self.seq == 0
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

    /// Report of a resume that ends its execution before the guest has run again. It is a segment like any other: the client
    /// has those before it.
    pub(super) fn end(&mut self, error: WireError) -> Report {
        self.next_segment();
        self.failure(error.not_retryable())
    }

    /// Report of a request that is no segment of any execution, or the first one of an execution that never ran.
    pub fn failure(&self, error: WireError) -> Report {
        let mut totals = self.clone();
        totals.pause();
        let mut report = Report::new(totals);
        report.error = Some(error);
        report
    }
}

/// A handler's value: a large one is not copied into the answer.
pub(super) fn value_in_pieces(bytes: Vec<u8>) -> Pieces {
    if bytes.len() < LARGE_FROM_BYTES {
        return bytes.into();
    }
    let mut pieces = Pieces::new();
    pieces.push(Shared::new(bytes).into());
    pieces
}

/// An extension call as the client is told of it, once.
#[derive(Debug)]
pub struct MadeCall {
    pub id: SuspensionId,
    pub call: NewCall,
}

/// Everything that a result message says, owned.
#[derive(Debug)]
pub struct Report {
    pub status: Status,
    pub value: Option<Pieces>,
    pub effects: Effects,
    /// Of the resident state, with the mutations in it.
    pub state_version: Option<u64>,
    /// Payloads that were put into shared memory.
    pub regions: Regions,
    /// Calls that the segment made. Others may wait too, of which the client knows.
    pub new_calls: Vec<MadeCall>,
    pub error: Option<WireError>,
    /// Of the handler's text, where the execution begins.
    pub warnings: Vec<Note>,
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
            new_calls: Vec::new(),
            error: None,
            warnings: Vec::new(),
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
        self.value = None;
        self.new_calls.clear();
        self.error = Some(error);
        self
    }

    /// The same segment, none of whose effects have happened.
    #[must_use]
    pub(super) fn without_effects(mut self) -> Self {
        self.effects = Effects::default();
        self
    }

    /// Whether the answer fits a frame, whatever version the state gets; else the limit that it breaks.
    pub(super) fn fits(&mut self) -> Result<(), WireError> {
        let max = self.totals.max_frame_bytes;
        if self.payload_bytes() + MOST_BESIDE_PAYLOADS <= max as u64 {
            return Ok(());
        }
        // it is close: it has to be tried
        let ids: Vec<String> = self.new_calls.iter().map(|s| s.id.to_string()).collect();
        self.state_version = Some(u64::MAX);
        let tried = self.encode_whole(RequestId(u32::MAX), &ids, max, &mut Pieces::new());
        self.state_version = None;
        tried.map_err(|e| self.too_large(&e, max))
    }

    fn too_large(&self, error: &EncodeError, max_frame_bytes: usize) -> WireError {
        let (limit, count) = (max_frame_bytes as u64, self.payload_bytes());
        WireError::resource_limit("maxFrameBytes", limit, count.max(limit + 1))
            .with_context_text("reason", error.to_string())
    }

    /// Whether the segment did something that would be done twice if it ran again. To log twice does no harm.
    pub(super) fn has_effects(&self) -> bool {
        let Effects { state_mutations, events, view_commands, logs: _ } = &self.effects;
        [state_mutations, events, view_commands].into_iter().any(|list| !list.is_empty())
    }

    /// Puts what is large into shared memory, as far as the client has lent some.
    pub fn share(&mut self, lent: &mut Lent) {
        let region = self.value.as_ref().and_then(|pieces| lent.put(pieces.iter()));
        if region.is_some() {
            self.value = None;
            self.regions.value = region;
        }
        let mutations = &mut self.effects.state_mutations;
        let region = mutations.pieces().and_then(|pieces| lent.put(pieces.iter()));
        if region.is_some() {
            mutations.clear();
            self.regions.state_mutations = region;
        }
    }

    /// Time since the execution began, without what it spent suspended.
    pub fn duration(&self) -> Duration {
        self.totals.spent()
    }

    pub fn is_cancelled(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.code == nexus_protocol::ErrorCode::Cancelled)
    }

    pub fn memory_peak_bytes(&self) -> u64 {
        self.totals.memory_peak
    }

    /// Appends the result as a frame, which shares what is large. One that does not fit a frame becomes an error that says so.
    pub fn encode(&self, id: RequestId, max_frame_bytes: usize, out: &mut Pieces) {
        let ids: Vec<String> = self.new_calls.iter().map(|s| s.id.to_string()).collect();
        if let Err(e) = self.encode_whole(id, &ids, max_frame_bytes, out) {
            let message = self.refused(&e, max_frame_bytes);
            if let Err(e) = message.encode_with(id, &[], max_frame_bytes, out) {
                log::error!("cannot encode an error: {e}");
            }
        }
    }

    /// As `encode`, but the map alone, for a message that tells of several.
    pub fn encode_map(&self, max_bytes: usize, out: &mut Pieces) {
        let ids: Vec<String> = self.new_calls.iter().map(|s| s.id.to_string()).collect();
        let whole = self.with_message(&ids, |message, large| message.encode_map_with(large, max_bytes, out));
        if let Err(e) = whole
            && let Err(e) = self.refused(&e, max_bytes).encode_map_with(&[], max_bytes, out)
        {
            log::error!("cannot encode an error: {e}");
        }
    }

    /// Of what is told of it, at the most: keys, scalars and containers.
    pub fn control_values(&self) -> usize {
        const OF_A_RESULT: usize = 48;
        const OF_A_CALL: usize = 9;
        const OF_A_WARNING: usize = 7;
        const OF_AN_ERROR: usize = 1_024;
        let error = if self.error.is_some() { OF_AN_ERROR } else { 0 };
        let lists =
            [(self.new_calls.len(), OF_A_CALL), (self.warnings.len(), OF_A_WARNING), (self.host_calls.len(), 2)];
        OF_A_RESULT + error + lists.into_iter().map(|(count, each)| count * each).sum::<usize>()
    }

    fn encode_whole(&self, id: RequestId, ids: &[String], max: usize, out: &mut Pieces) -> Result<(), EncodeError> {
        self.with_message(ids, |message, large| message.encode_with(id, large, max, out))
    }

    /// What is told instead of one that does not fit.
    fn refused(&self, error: &EncodeError, max_bytes: usize) -> SegmentResult<'_> {
        let mut message = SegmentResult::new(Status::Error, self.totals.seq);
        message.error = Some(self.too_large(error, max_bytes));
        message.metrics = self.metrics();
        message
    }

    fn with_message(
        &self,
        ids: &[String],
        encode: impl FnOnce(&SegmentResult<'_>, &[(&str, LargeField<'_>)]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut message = self.message(ids);
        let calls = self.has_large_calls().then(|| encoded_calls(&message.suspensions, &self.new_calls));
        if calls.is_some() {
            message.suspensions.clear();
        }
        let payloads = self.effects.lists().map(|(name, list)| (name, list.pieces()));
        let payloads = [("value", self.value.as_ref())].into_iter().chain(payloads);
        // what is in one place is in the message
        let in_pieces = payloads.filter_map(|(name, payload)| {
            let pieces = payload.filter(|pieces| pieces.as_slice().is_none())?;
            Some((name, LargeField::Bin(pieces)))
        });
        let calls = calls.as_ref().map(|calls| ("suspensions", LargeField::Encoded(calls)));
        // mostly none, and then nothing is allocated
        let large: Vec<_> = in_pieces.chain(calls).collect();
        encode(&message, &large)
    }

    fn has_large_calls(&self) -> bool {
        self.new_calls.iter().any(|s| s.call.args.len() >= LARGE_FROM_BYTES)
    }

    /// Bytes of the values that it carries.
    fn payload_bytes(&self) -> u64 {
        let effects = self.effects.lists().map(|(_, list)| list.len_bytes());
        let calls = self
            .new_calls
            .iter()
            .map(|MadeCall { call, .. }| call.args.len() + call.extension.len() + call.method.len() + BESIDE_ARGUMENTS);
        self.value.as_ref().map(Pieces::len).into_iter().chain(effects).chain(calls).map(|bytes| bytes as u64).sum()
    }

    fn message<'a>(&'a self, ids: &'a [String]) -> SegmentResult<'a> {
        let mut message = SegmentResult::new(self.status, self.totals.seq);
        message.value = self.value.as_ref().and_then(Pieces::as_slice);
        message.state_mutations = self.effects.state_mutations.payload();
        message.state_version = self.state_version;
        message.regions = self.regions;
        message.events = self.effects.events.payload();
        message.view_commands = self.effects.view_commands.payload();
        message.logs = self.effects.logs.payload();
        message.suspensions = self
            .new_calls
            .iter()
            .zip(ids)
            .map(|(s, id)| PendingCall { id, extension: &s.call.extension, method: &s.call.method, args: &s.call.args })
            .collect();
        message.error.clone_from(&self.error);
        message.warnings = self.warnings.iter().map(Note::told).collect();
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

/// The list of calls as it is on the wire, their arguments shared.
fn encoded_calls(calls: &[PendingCall<'_>], made: &[MadeCall]) -> Pieces {
    let mut out = Pieces::new();
    // writing to a Vec cannot fail
    let _ = rmp::encode::write_array_len(out.own(), calls.len() as u32);
    for (call, made) in calls.iter().zip(made) {
        let _ = rmp::encode::write_map_len(out.own(), 4);
        for (key, text) in [("id", call.id), ("extension", call.extension), ("method", call.method)] {
            let _ = rmp::encode::write_str(out.own(), key);
            let _ = rmp::encode::write_str(out.own(), text);
        }
        let _ = rmp::encode::write_str(out.own(), "args");
        let _ = rmp::encode::write_bin_len(out.own(), call.args.len() as u32);
        out.push(made.call.args.as_part());
    }
    out
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
