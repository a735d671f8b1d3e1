//! An execution, and what its segments come to.

use std::sync::Arc;
use std::time::Duration;

use nexus_protocol::message::{Status, SuspendMode};
use nexus_protocol::{ErrorCode, SuspensionId, WireError};

use super::calls::{Calls, Outstanding};
use super::report::{Arrival, MadeCall, Report, Totals, value_in_pieces};
use crate::cache::{Handler, Note};
use crate::engine::context::Context;
use crate::engine::control::StopCause;
use crate::engine::guest_error::{GuestError, Source};
use crate::engine::live_logs::LiveLogs;
use crate::engine::refusals::Refusals;
use crate::engine::{Instance, ParkError, Parked, Segment, SegmentEnd};
use crate::os;
use crate::token::StopToken;

/// A suspended execution. It owns its instance, or the image that it was parked as.
#[derive(Debug)]
pub struct Execution {
    account: Account,
    guest: Guest,
}

/// Where a suspended handler is.
#[derive(Debug)]
enum Guest {
    Live(Instance),
    Parked(Parked),
}

/// What an execution is beside its guest.
#[derive(Debug)]
struct Account {
    handler: Arc<Handler>,
    totals: Totals,
    calls: Calls,
}

/// An execution that is in an instance, about to be resumed.
#[derive(Debug)]
pub struct Awake {
    account: Account,
    instance: Instance,
}

/// A parked execution that could not be got into an instance: it has ended.
#[derive(Debug)]
pub struct NotAwake {
    pub report: Report,
    pub instance: Option<Instance>,
}

/// What came of a segment, beside its report.
#[derive(Debug)]
pub enum Progress {
    /// It waits for its outstanding calls.
    Suspended(Box<Execution>),
    /// It has ended; the instance goes back to the pool once the report is on its way.
    Finished(Option<Instance>),
}

/// The answer of the client to one call.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A payload.
    Value(&'a [u8]),
    /// A payload: the map `{message, name?, code?}`.
    Failure(&'a [u8]),
}

impl Execution {
    /// Runs the first segment on a pristine instance.
    pub fn start(
        handler: Arc<Handler>,
        mut instance: Instance,
        context: Box<Context>,
        mut totals: Totals,
        token: &StopToken,
    ) -> (Report, Progress) {
        let deadline = match totals.deadline(token) {
            Ok(deadline) => deadline,
            Err(cause) => return (totals.stopped(cause), Progress::Finished(Some(instance))),
        };
        let segment = instance.run(&handler.bytecode, context, deadline);
        totals.add(&segment);
        Account { handler, totals, calls: Calls::default() }.finish_segment(instance, segment)
    }

    /// Its next segment begins.
    pub fn goes_on(&mut self, arrival: Arrival) {
        self.account.totals.goes_on(arrival);
    }

    /// CPU time of its segments so far.
    pub fn cpu(&self) -> Duration {
        self.account.totals.cpu()
    }

    /// What its values took at the end of its last segment.
    pub fn memory_used_bytes(&self) -> u64 {
        self.account.totals.memory_used_bytes()
    }

    /// The calls that wait for their answers, in no order.
    pub fn outstanding(&self) -> &[Outstanding] {
        self.account.calls.waiting()
    }

    /// Those of them that its last segment made.
    pub fn new_calls(&self) -> &[Outstanding] {
        self.account.calls.made_last()
    }

    /// The time that it has for all its segments, and what it used up of it.
    pub fn budget(&self) -> (Option<Duration>, Duration) {
        (self.account.totals.timeout, self.account.totals.spent())
    }

    /// Which kind of instance it needs.
    pub fn mode(&self) -> SuspendMode {
        self.account.handler.suspend_mode
    }

    /// Whether it does without an instance.
    pub fn is_parked(&self) -> bool {
        matches!(self.guest, Guest::Parked(_))
    }

    /// The most that it can take, with the memory of its guest. Exact for one that is parked.
    pub fn held_bytes(&mut self) -> u64 {
        let guest = match &mut self.guest {
            Guest::Live(instance) => {
                let most = instance.most_bytes();
                instance.context_mut().map_or(most, |c| c.held_bytes() + most)
            }
            Guest::Parked(parked) => parked.held_bytes(),
        };
        let own = size_of::<Self>() + self.account.calls.held_bytes();
        guest + own as u64 + self.account.handler_share()
    }

    /// Whether `held_bytes` is an estimate, and may be far above the truth.
    pub fn is_estimated(&self) -> bool {
        matches!(&self.guest, Guest::Live(instance) if instance.is_estimated())
    }

    /// Finds out what its guest takes where that may be far from what it can take, or where `exactly` is asked for. Whether it
    /// was an estimate, and is none now.
    pub fn measure(&mut self, exactly: bool) -> bool {
        let Guest::Live(instance) = &mut self.guest else { return false };
        let was_estimated = instance.is_estimated();
        if was_estimated && (exactly || instance.is_to_be_measured()) {
            instance.measure();
        }
        was_estimated && !instance.is_estimated()
    }

    /// Gives the instance up, for one that will be resumed: the caller resets it.
    pub fn park(&mut self) -> Result<Option<Instance>, ParkError> {
        let Guest::Live(instance) = &mut self.guest else { return Ok(None) };
        let parked = instance.park()?;
        match std::mem::replace(&mut self.guest, Guest::Parked(parked)) {
            Guest::Live(instance) => Ok(Some(instance)),
            Guest::Parked(_) => Ok(None),
        }
    }

    /// Gets it into an instance, if it is in none. `lease` gives a pristine one.
    pub fn awake(self, lease: impl FnOnce() -> Result<Instance, WireError>) -> Result<Awake, Box<NotAwake>> {
        let Self { mut account, guest } = self;
        let parked = match guest {
            Guest::Live(instance) => return Ok(Awake { account, instance }),
            Guest::Parked(parked) => parked,
        };
        let mut instance = lease().map_err(|e| Box::new(NotAwake { report: account.totals.end(e), instance: None }))?;
        match instance.unpark(parked) {
            Ok(()) => Ok(Awake { account, instance }),
            Err(e) => {
                log::error!("a parked execution cannot be resumed: {e}");
                let error = WireError::new(ErrorCode::InternalError, "the suspended execution could not be restored");
                Err(Box::new(NotAwake { report: account.totals.end(error), instance: Some(instance) }))
            }
        }
    }

    /// Gives the instance up; for an execution that will not be resumed.
    pub fn into_instance(self) -> Option<Instance> {
        match self.guest {
            Guest::Live(instance) => Some(instance),
            Guest::Parked(_) => None,
        }
    }
}

impl Awake {
    /// In which its next segment runs.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Where what it logs goes while it runs, if it does.
    pub fn live_logs(&mut self) -> Option<Arc<LiveLogs>> {
        self.instance.context_mut().and_then(|context| context.live_logs.clone())
    }

    /// Goes on with the answer to one outstanding call. The caller has found the call by its suspension id.
    pub fn resume(self, id: SuspensionId, answer: Answer<'_>, token: &StopToken) -> (Report, Progress) {
        let Self { mut account, mut instance } = self;
        let Some(call) = account.calls.take(id) else {
            let error = WireError::new(ErrorCode::InternalError, "the suspension is not one of this execution");
            return (account.totals.end(error), Progress::Finished(Some(instance)));
        };
        let deadline = match account.totals.deadline(token) {
            Ok(deadline) => deadline,
            Err(cause) => {
                let error = stopped(cause, account.totals.timeout, account.totals.spent());
                return (account.totals.end(error), Progress::Finished(Some(instance)));
            }
        };
        let (Answer::Value(bytes) | Answer::Failure(bytes)) = answer;
        let (limit, count) = (account.totals.memory_limit_bytes, bytes.len() as u64);
        if count > limit {
            return (account.totals.end(memory_error(limit, count)), Progress::Finished(Some(instance)));
        }
        let answer = match answer {
            Answer::Value(bytes) => Ok(bytes),
            Answer::Failure(bytes) => Err(bytes),
        };
        let segment = instance.resume(call.number, answer, deadline);
        account.totals.add(&segment);
        account.totals.next_segment();
        account.finish_segment(instance, segment)
    }
}

impl Account {
    /// What the client is told of the handler's text, once. Mostly nothing.
    fn warnings(&self) -> Vec<Note> {
        match (self.totals.is_first(), &*self.handler.warnings) {
            (true, warnings @ [_, ..]) => warnings.iter().map(|warning| warning.note.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Its part of the handler, which it may be the last to hold: the cache forgets.
    fn handler_share(&self) -> u64 {
        let holders = Arc::strong_count(&self.handler).saturating_sub(1).max(1);
        ((self.handler.source.len() + self.handler.bytecode.len()) / holders) as u64
    }

    fn finish_segment(mut self, mut instance: Instance, segment: Segment) -> (Report, Progress) {
        if let SegmentEnd::Stopped(cause @ StopCause::Back, _) = segment.end {
            // its state is as it was
            return (self.totals.stopped(cause), Progress::Finished(Some(instance)));
        }
        let mut report = self.totals.report(&mut instance);
        report.warnings = self.warnings();
        let outcome = match segment.end {
            SegmentEnd::Done(value) => Ok(Some(value)),
            SegmentEnd::Suspended => self.take_new_calls(&mut instance, &mut report.new_calls).map(|()| None),
            end => {
                let known = |context: &mut Context| (context.refusals().clone(), context.handler_name.clone());
                let (refusals, name) = instance.context_mut().map(known).unwrap_or_default();
                let source = Source::named(&self.handler.source, &name);
                Err(self.handler.explained(error_of(end, source, &self.totals, &refusals)))
            }
        };
        match outcome {
            Ok(Some(value)) => {
                report.status = Status::Success;
                report.value = Some(value_in_pieces(value));
            }
            Ok(None) => report.status = Status::Suspended,
            Err(error) => report = report.into_failure(error),
        }
        // what cannot be told has not happened
        if let Err(error) = report.fits() {
            report = report.without_effects().into_failure(error);
            return (report, Progress::Finished(Some(instance)));
        }
        // before the answer, after which the client counts on it
        let settled = match instance.control().claim() {
            true => instance.context_mut().map_or(Ok(None), Context::settle_state),
            false => Err(cancelled()),
        };
        let was_refused = settled.is_err();
        match settled {
            Ok(version) => report.state_version = version,
            Err(refused) => {
                report.effects.state_mutations.clear();
                // a handler that failed by itself tells more by its own error
                if report.error.is_none() {
                    report = report.into_failure(refused);
                }
            }
        }
        self.totals.effects |= report.has_effects();
        if report.status == Status::Suspended {
            let execution = Execution { account: self, guest: Guest::Live(instance) };
            return (report, Progress::Suspended(Box::new(execution)));
        }
        if !self.totals.may_be_repeated(was_refused) {
            report.error = report.error.map(WireError::not_retryable);
        }
        (report, Progress::Finished(Some(instance)))
    }

    /// Gives every call of this segment its suspension id.
    fn take_new_calls(&mut self, instance: &mut Instance, told: &mut Vec<MadeCall>) -> Result<(), WireError> {
        let new_calls = instance.context_mut().map(|c| std::mem::take(&mut c.new_calls)).unwrap_or_default();
        for call in new_calls {
            let mut id = [0; nexus_protocol::limits::SUSPENSION_ID_BYTES];
            os::fill_random(&mut id)
                .map_err(|e| WireError::new(ErrorCode::InternalError, format!("no random bytes: {e}")))?;
            let id = SuspensionId(id);
            self.calls.add(Outstanding { id, number: call.number });
            told.push(MadeCall { id, call });
        }
        Ok(())
    }
}

/// What a request is told that was stopped before it had a result. `limit`: the time that it had.
pub fn stopped(cause: StopCause, limit: Option<Duration>, spent: Duration) -> WireError {
    match cause {
        StopCause::Cancelled | StopCause::Back => cancelled(),
        StopCause::Deadline => {
            let ms = limit.map_or(0, |t| t.as_millis() as u64);
            of_time(format!("the execution used up its {ms} ms"), limit, spent)
        }
    }
}

/// A timeout in these words. No limit: it is not known.
pub fn of_time(message: String, limit: Option<Duration>, spent: Duration) -> WireError {
    let mut error = WireError::new(ErrorCode::Timeout, message).with_context_text("resource", "timeoutMs");
    if let Some(limit) = limit {
        error = error.with_context_number("limit", limit.as_millis() as u64);
    }
    error.with_context_number("count", spent.as_millis() as u64)
}

/// What a request is told whose time was over before it had an instance.
pub fn waited_too_long(limit: Duration, waited: Duration) -> WireError {
    let message = format!("the {} ms of the request were over while it waited for an instance", limit.as_millis());
    of_time(message, Some(limit), waited)
}

/// The error of an execution that needs `count` bytes of memory.
pub fn memory_error(limit: u64, count: u64) -> WireError {
    WireError::new(ErrorCode::MemoryLimit, format!("the handler needs more than its {limit} bytes of memory"))
        .with_context_text("resource", "memoryLimitBytes")
        .with_context_number("limit", limit)
        .with_context_number("count", count)
}

fn error_of(end: SegmentEnd, source: Source<'_>, totals: &Totals, refusals: &Refusals) -> WireError {
    let located = |error: WireError, described: &[u8]| GuestError::decode(described).located(error, source);
    match end {
        SegmentEnd::Failed(described) => {
            GuestError::decode(&described).to_wire(ErrorCode::ExecutionError, source, refusals)
        }
        SegmentEnd::Limit(breach, described) => {
            located(WireError::resource_limit(breach.resource, breach.limit, breach.count), &described)
        }
        SegmentEnd::OutOfMemory { described, wanted } => {
            located(memory_error(totals.memory_limit_bytes, totals.memory_peak().max(wanted)), &described)
        }
        SegmentEnd::Stuck => {
            WireError::new(ErrorCode::ExecutionError, "the handler waits for a promise that nothing can settle")
        }
        SegmentEnd::Stopped(cause, described) => located(stopped(cause, totals.timeout, totals.spent()), &described),
        SegmentEnd::Broken(why) => {
            log::warn!("a guest broke: {why}");
            WireError::new(ErrorCode::WasmError, "the guest trapped; its instance was discarded")
        }
        SegmentEnd::Done(_) | SegmentEnd::Suspended => {
            WireError::new(ErrorCode::InternalError, "a segment without an error failed")
        }
    }
}

/// What a cancelled request is answered with.
pub fn cancelled() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the execution was cancelled")
}

/// What every suspension id gets that cannot be resumed, whatever the reason.
pub fn no_such_suspension() -> WireError {
    WireError::new(
        ErrorCode::SuspensionError,
        "there is no such suspension: it is unknown, was used, has expired or belongs to somebody else",
    )
}
