//! The whole loop of one execution: execute, deliver each segment, call extensions, resume, until it ends.
//!
//! Invariants: segments are delivered in the order of their `seq`, whatever order the answers arrive in; each
//! suspension's extension is called once and answered for once, at the latest after `suspensionTimeoutMs`; a run that is dropped
//! or cancelled leaves no execution behind.
//! Several resumes may be under way; the sidecar takes them one after another.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use nexus_protocol::message::Cancel;
use serde::de::DeserializeOwned;

use crate::calls::Calls;
use crate::compiled::Handler;
use crate::context::Context;
use crate::current::{Awaited, CurrentCall, Origin};
use crate::error::Error;
use crate::execution::{Resolution, Sending, resume_message, segment, start_execution};
use crate::extensions::{Args, CallError, CallResult};
use crate::failed_run::{AllThrown, ExtensionError, FailedRun};
use crate::gather::Gathered;
use crate::link::{Closed, Link, PlaceHeld};
use crate::live_logs::{Heard, LiveLogs};
use crate::patience::{Begun, Patience};
use crate::payload::{Payload, PayloadError};
use crate::run_options::RunOptions;
use crate::segment::{Metrics, Segment, Suspension};
use crate::slot::lock;
use crate::token::{CancelToken, Cancelled};
use crate::told::{ErrorCode, SidecarError, Status};
use crate::workers::Workers;

/// What a run that succeeded leaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What the handler returned.
    pub value: Payload,
    /// Every segment, with its effects, in order.
    pub segments: Vec<Segment>,
    /// Figures of the whole execution.
    pub metrics: Metrics,
}

impl Outcome {
    /// Limits that count although the call has asked for wider ones (`timeoutMs` too), by their names. Empty: it has what it asked for. A run
    /// that failed has this in its first segment.
    pub fn limited(&self) -> BTreeMap<&'static str, u64> {
        self.segments.first().map(|first| first.limited.clone()).unwrap_or_default()
    }

    /// What the handler returned, as a type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        self.value.decode()
    }
}

/// See the module. A future that is done when the execution is.
pub(crate) struct Run {
    link: Arc<Link>,
    /// A run that is suspended has no request that would fail with the connection.
    closed: Closed,
    workers: Arc<Workers>,
    options: RunOptions,
    /// Told to extensions.
    origin: Arc<Origin>,
    /// Executes and resumes that are not answered.
    requests: Gathered<Request, AnswerFuture>,
    /// Extension calls that are not answered, by their suspensions.
    calls: Gathered<Call, dyn Future<Output = CallResult> + Send>,
    /// For those.
    patience: Patience,
    /// What the handler was told of the last call that was late.
    late: Option<String>,
    /// What extensions threw.
    thrown: AllThrown,
    /// Where somebody wants to hear what is logged.
    logs: Option<LiveLogs>,
    /// Which of its calls are outstanding.
    outstanding: Calls,
    /// Segments that came before one with a lower `seq`, and what they answer.
    early: BTreeMap<u32, (Segment, Asked)>,
    segments: Vec<Segment>,
    /// A suspension of the execution while it is suspended, to cancel it by.
    suspended_by: Option<String>,
    cancelled_by: Option<Cancelled>,
    /// Whether the token was seen cancelled.
    cancelled: bool,
    result: Option<Result<Outcome, Error>>,
    /// Where it may be suspended. The last one to be dropped: behind the cancels.
    place: Option<Arc<PlaceHeld>>,
}

/// Of an execution that one segment was enough for.
pub(crate) fn outcome_of(segment: Segment) -> Result<Outcome, Error> {
    match (segment.error.clone(), segment.status) {
        (Some(error), _) => Err(FailedRun::of(error.into(), vec![segment], None)),
        (None, Status::Success) => {
            let (value, metrics) = (segment.value.clone(), segment.metrics.clone());
            Ok(Outcome { value, segments: vec![segment], metrics })
        }
        (None, _) => Err(Error::protocol("a failed segment without an error")),
    }
}

type AnswerFuture = dyn Future<Output = Result<Segment, Error>> + Send;

struct Call {
    awaited: Awaited,
    /// Of [`Patience`].
    number: u64,
}

struct Request {
    /// Its id, which changes when an execute is sent again.
    id: Arc<Mutex<u32>>,
    asked: Asked,
}

/// What a request was for.
struct Asked {
    /// The call that a resume answers, and whether with a value.
    resumes: Option<(String, bool)>,
    /// What is logged is heard by this.
    heard: Option<Heard>,
}

impl Run {
    pub(crate) fn start(
        link: Arc<Link>,
        workers: Arc<Workers>,
        handler: Handler,
        context: Context,
        options: RunOptions,
    ) -> Result<Self, Error> {
        let place = (!options.extensions.is_empty()).then(|| link.place());
        Self::start_at(link, workers, handler, context, options, place)
    }

    /// [`start`](Self::start) where it may be suspended.
    pub(crate) fn start_at(
        link: Arc<Link>,
        workers: Arc<Workers>,
        handler: Handler,
        context: Context,
        options: RunOptions,
        place: Option<Arc<PlaceHeld>>,
    ) -> Result<Self, Error> {
        if options.cancel.as_ref().is_some_and(|token| token.is_cancelled()) {
            return Err(Error::Cancelled);
        }
        let context = context.with_extensions(options.extensions.registry());
        let mut run = Self::new(link, workers, context.names(), options, place);
        let id = Arc::<Mutex<u32>>::default();
        let (heard, ear) = run.logs.as_mut().map(LiveLogs::ear).unzip();
        let sending = Sending::Of { place: run.place.clone(), ear };
        let answer = Box::pin(start_execution(&run.link, handler, context, Arc::clone(&id), sending)?);
        run.requests.add(Request { id, asked: Asked { resumes: None, heard } }, answer);
        Ok(run)
    }

    /// The rest of a loop whose execute was part of another request: `first` is its answer, `place` where it is suspended.
    pub(crate) fn go_on(
        link: Arc<Link>,
        workers: Arc<Workers>,
        names: (Option<String>, Option<String>),
        first: Segment,
        options: RunOptions,
        place: Option<Arc<PlaceHeld>>,
    ) -> Self {
        let mut run = Self::new(link, workers, names, options, place);
        run.take(first, Asked { resumes: None, heard: None });
        run
    }

    /// `names`: of the handler and of the panel.
    fn new(
        link: Arc<Link>,
        workers: Arc<Workers>,
        (handler_name, panel_id): (Option<String>, Option<String>),
        mut options: RunOptions,
        place: Option<Arc<PlaceHeld>>,
    ) -> Self {
        let origin = Arc::new(Origin { handler_name, panel_id, labels: std::mem::take(&mut options.labels) });
        let logs = options.on_log.take().map(|on_log| LiveLogs::new(on_log, link.max_body_bytes()));
        Self {
            patience: Patience::new(link.greeting.limits.suspension_timeout_ms),
            late: None,
            closed: link.closed(),
            link,
            workers,
            cancelled_by: options.cancel.as_ref().map(CancelToken::cancelled),
            options,
            origin,
            requests: Gathered::new(),
            calls: Gathered::new(),
            thrown: AllThrown::default(),
            logs,
            outstanding: Calls::default(),
            early: BTreeMap::new(),
            segments: Vec::new(),
            suspended_by: None,
            cancelled: false,
            result: None,
            place,
        }
    }

    /// Takes the answers that are there. Whether there were any.
    fn poll_requests(&mut self, context: &mut TaskContext<'_>) -> bool {
        let answers = self.requests.poll(context);
        let any = !answers.is_empty();
        let heard = self.logs.as_mut().map_or(Ok(()), |logs| logs.take(context));
        for (request, answer) in answers {
            match answer {
                Ok(segment) => self.take(segment, request.asked),
                Err(error) => self.end(Err(error)),
            }
        }
        if let Err(error) = heard.and_then(|()| self.tell_logs()) {
            self.end(Err(error));
        }
        if any && self.result.is_none() && self.requests.is_empty() && !self.early.is_empty() {
            self.end(Err(Error::protocol("a segment of the execution is missing")));
        }
        any
    }

    /// Tells what has been logged meanwhile, where it is known to be next.
    fn tell_logs(&mut self) -> Result<(), Error> {
        let Self { logs: Some(logs), requests, result: None, .. } = self else { return Ok(()) };
        match (requests.len(), requests.iter().next()) {
            (1, Some(Request { asked: Asked { heard: Some(heard), .. }, .. })) => Ok(logs.tell_of(*heard)?),
            _ => Ok(()),
        }
    }

    /// Resumes with what extension calls have answered. Whether any had.
    fn poll_calls(&mut self, context: &mut TaskContext<'_>) -> bool {
        let answers = self.calls.poll(context);
        let any = !answers.is_empty();
        for (Call { awaited, .. }, answer) in answers {
            let Some(call) = awaited.answered() else { continue };
            let resolution = match answer {
                Ok(value) => Resolution::Value(value),
                Err(error) => Resolution::Failure(self.seen_by_handler(error, &call)),
            };
            self.resume(call.suspension_id().to_owned(), resolution);
        }
        any
    }

    /// What an extension's error is in the handler. The extension's own is remembered: the handler may let it through.
    fn seen_by_handler(&mut self, error: CallError, call: &CurrentCall) -> CallError {
        let seen = match &mut self.options.on_extension_error {
            Some(callback) => callback(error.clone(), call),
            None => error.clone(),
        };
        self.thrown.add(ExtensionError::new(call, error), seen.message());
        seen
    }

    /// Fails calls in the handler that take too long, and gives their futures up. Whether there were any.
    fn poll_patience(&mut self, context: &mut TaskContext<'_>) -> bool {
        let Self { patience, calls, .. } = self;
        let late =
            patience.poll(context, |begun| calls.at(begun.place).is_some_and(|call| call.number == begun.number));
        let any = !late.is_empty();
        for begun in late {
            let Some(Call { awaited, .. }) = self.calls.remove(begun.place) else { continue };
            let Some(call) = awaited.given_up() else { continue };
            let (extension, method) = (call.extension(), call.method());
            let ms = self.link.greeting.limits.suspension_timeout_ms;
            let message = format!("$ext.{extension}.{method}() was not answered within suspensionTimeoutMs ({ms} ms)");
            self.late = Some(message.clone());
            let failure = CallError::new(message).with_code("TIMEOUT");
            self.resume(call.suspension_id().to_owned(), Resolution::Failure(failure));
        }
        any
    }

    fn resume(&mut self, suspension: String, resolution: Resolution) {
        if self.result.is_some() || self.cancelled {
            return;
        }
        let is_value = matches!(resolution, Resolution::Value(_));
        let (heard, ear) = self.logs.as_mut().map(LiveLogs::ear).unzip();
        match self.link.send_of(resume_message(&suspension, &resolution), self.place.clone(), ear) {
            Ok(pending) => {
                let asked = Asked { resumes: Some((suspension, is_value)), heard };
                let about = Request { id: Arc::new(Mutex::new(pending.id())), asked };
                self.requests.add(about, Box::pin(async move { segment(pending.await?) }));
            }
            // An answer that is too large for a frame is the extension's fault: its call fails in the handler.
            Err(error @ Error::Request(_)) if is_value => {
                let failure = CallError::from(error).with_code("SERIALIZATION_ERROR");
                self.resume(suspension, Resolution::Failure(failure));
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn take(&mut self, segment: Segment, asked: Asked) {
        match asked.resumes {
            Some((suspension, is_value)) if segment.seq == 0 => return self.refused(segment, suspension, is_value),
            _ => self.early.insert(segment.seq, (segment, asked)),
        };
        while self.result.is_none()
            && let Some((next, asked)) = self.early.remove(&(self.segments.len() as u32))
        {
            self.deliver(next, asked);
        }
    }

    /// A resume was answered without a segment of the execution.
    fn refused(&mut self, segment: Segment, suspension: String, is_value: bool) {
        let Some(error) = segment.error else {
            return self.end(Err(Error::protocol("a resume was answered with segment 0")));
        };
        match error.code {
            // The execution ended before this resume got there. Another answer tells how; without one, it expired.
            ErrorCode::SuspensionError if !self.requests.is_empty() || !self.early.is_empty() => {}
            ErrorCode::SuspensionError if let Some(late) = &self.late => {
                let message = format!("{late}, and the sidecar has dropped the execution");
                self.end(Err(SidecarError { message, ..error }.into()));
            }
            // What the extension gave is no value for a handler, which is its fault too.
            ErrorCode::SerializationError | ErrorCode::InvalidArgument if is_value => {
                let failure = CallError::new(error.message).with_code("SERIALIZATION_ERROR");
                self.resume(suspension, Resolution::Failure(failure));
            }
            _ => self.end(Err(error.into())),
        }
    }

    fn deliver(&mut self, mut segment: Segment, asked: Asked) {
        self.suspended_by = None;
        if let (Some(logs), Some(heard)) = (&mut self.logs, asked.heard)
            && let Err(error) = logs.tell_rest(heard, &mut segment)
        {
            return self.end(Err(error.into()));
        }
        let answered = asked.resumes.as_ref().map(|(suspension, _)| suspension.as_str());
        let made = match segment.status {
            Status::Suspended => self.outstanding.segment(&mut segment, answered),
            Status::Success | Status::Error => Vec::new(),
        };
        if let Some(callback) = &mut self.options.on_segment {
            callback(&segment);
        }
        if let Some(error) = &segment.error {
            let error = self.midway(error.clone().into());
            // What happened in it belongs to what the error tells.
            self.segments.push(segment);
            self.end(Err(error));
        } else {
            match segment.status {
                Status::Success => self.succeed(segment),
                Status::Suspended => self.suspend(segment, made),
                Status::Error => self.end(Err(Error::protocol("a failed segment without an error"))),
            }
        }
    }

    fn succeed(&mut self, segment: Segment) {
        let (value, metrics) = (segment.value.clone(), segment.metrics.clone());
        let mut segments = std::mem::take(&mut self.segments);
        segments.push(segment);
        self.end(Ok(Outcome { value, segments, metrics }));
    }

    /// `made`: the calls that it made.
    fn suspend(&mut self, segment: Segment, made: Vec<Suspension>) {
        self.suspended_by = segment.suspensions.first().map(|suspension| suspension.id.clone());
        if self.suspended_by.is_none() {
            self.end(Err(Error::protocol("the execution is suspended, and no call waits")));
        } else if self.cancelled {
            self.cancel_suspended();
        } else {
            for suspension in made {
                let (call, args) = CurrentCall::new(suspension, &self.origin, self.patience.deadline());
                let args = Args::new(args, self.link.max_body_bytes(), call.clone());
                let answer = self.options.extensions.call(&self.workers, args);
                let number = self.patience.next();
                let place = self.calls.add(Call { awaited: Awaited::new(call), number }, answer);
                self.patience.begin(Begun { number, place });
            }
        }
        self.segments.push(segment);
    }

    /// Ends the execution. The run is over when the sidecar has said what became of it.
    fn cancel(&mut self) {
        self.cancelled = true;
        self.calls.clear();
        for request in self.requests.iter() {
            self.link.cancel(Cancel::Request(*lock(&request.id)));
        }
        self.cancel_suspended();
    }

    /// With requests under way, those bring the end of the execution.
    fn cancel_suspended(&mut self) {
        if self.requests.is_empty()
            && let Some(suspension) = self.suspended_by.take()
        {
            self.link.cancel(Cancel::Suspension(&suspension));
            self.end(Err(Error::Cancelled));
        }
    }

    /// Of an execution that has begun: whoever repeats it has its effects twice.
    fn midway(&self, error: Error) -> Error {
        if self.segments.is_empty() { error } else { error.midway() }
    }

    fn end(&mut self, result: Result<Outcome, Error>) {
        if self.result.is_some() {
            return;
        }
        self.result = Some(result.map_err(|error| {
            let by_token = self.cancelled && error.code() == ErrorCode::Cancelled;
            let error = if by_token { Error::Cancelled } else { self.midway(error) };
            let thrown = self.thrown.let_through(&error);
            FailedRun::of(error, std::mem::take(&mut self.segments), thrown)
        }));
    }
}

impl Future for Run {
    type Output = Result<Outcome, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let run = self.get_mut();
        loop {
            if !run.cancelled
                && let Some(cancelled) = &mut run.cancelled_by
                && Pin::new(cancelled).poll(context).is_ready()
            {
                run.cancel();
            }
            let mut progress = run.poll_requests(context);
            // Looked at behind the answers: one that came before the end counts.
            if run.requests.is_empty()
                && run.result.is_none()
                && let Poll::Ready(error) = Pin::new(&mut run.closed).poll(context)
            {
                run.end(Err(error));
            }
            if let Some(result) = run.result.take() {
                run.place = None;
                // Nobody waits for their answers.
                run.calls.clear();
                return Poll::Ready(result);
            }
            progress |= run.poll_calls(context);
            progress |= run.poll_patience(context);
            if !progress {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Requests under way cancel themselves when they are dropped. A suspension that is left here was not the end.
        if let Some(suspension) = &self.suspended_by {
            self.link.cancel(Cancel::Suspension(suspension));
        }
    }
}
