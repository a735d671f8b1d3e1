//! The whole loop of one execution: execute, deliver each segment, call extensions, resume, until it ends.
//!
//! Invariants: segments are delivered in the order of their `seq`, whatever order the answers arrive in; each
//! suspension's extension is called once; a run that is dropped or cancelled leaves no execution behind.
//! Several resumes may be under way; the sidecar takes them one after another.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use nexus_protocol::ErrorCode;
use nexus_protocol::message::{Cancel, Status};
use serde::de::DeserializeOwned;

use crate::client::{Resolution, resume_message, segment, start_execution};
use crate::compiled::Handler;
use crate::context::Context;
use crate::error::Error;
use crate::extensions::{Args, CallError, CallFuture};
use crate::link::{Closed, Link, PlaceHeld};
use crate::payload::{Payload, PayloadError};
use crate::run_options::RunOptions;
use crate::segment::{Metrics, Segment};
use crate::slot::lock;
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
    /// Executes and resumes that are not answered.
    requests: Vec<Request>,
    /// Extension calls that are not answered.
    calls: Vec<(String, CallFuture)>,
    /// Suspensions whose extension was called.
    called: HashSet<String>,
    /// Segments that came before one with a lower `seq`.
    early: BTreeMap<u32, Segment>,
    segments: Vec<Segment>,
    /// A suspension of the execution while it is suspended, to cancel it by.
    suspended_by: Option<String>,
    /// Whether the token was seen cancelled.
    cancelled: bool,
    result: Option<Result<Outcome, Error>>,
    /// Where it may be suspended. The last one to be dropped: behind the cancels.
    place: Option<Arc<PlaceHeld>>,
}

struct Request {
    /// Its id, which changes when an execute is sent again.
    id: Arc<Mutex<u32>>,
    is_resume: bool,
    answer: Pin<Box<dyn Future<Output = Result<Segment, Error>> + Send>>,
}

impl Run {
    pub(crate) fn start(
        link: Arc<Link>,
        workers: Arc<Workers>,
        handler: Handler,
        context: Context,
        options: RunOptions,
    ) -> Result<Self, Error> {
        if options.cancel.as_ref().is_some_and(|token| token.is_cancelled()) {
            return Err(Error::Cancelled);
        }
        let context = context.extension_registry(options.extensions.registry());
        let id = Arc::<Mutex<u32>>::default();
        let place = (!options.extensions.is_empty()).then(|| link.place());
        let answer = Box::pin(start_execution(&link, handler, context, Arc::clone(&id), place.clone())?);
        Ok(Self {
            closed: link.closed(),
            link,
            workers,
            options,
            requests: vec![Request { id, is_resume: false, answer }],
            calls: Vec::new(),
            called: HashSet::new(),
            early: BTreeMap::new(),
            segments: Vec::new(),
            suspended_by: None,
            cancelled: false,
            result: None,
            place,
        })
    }

    /// Takes the answers that are there. Whether there were any.
    fn poll_requests(&mut self, context: &mut TaskContext<'_>) -> bool {
        let mut answers = Vec::new();
        self.requests.retain_mut(|request| match request.answer.as_mut().poll(context) {
            Poll::Ready(answer) => {
                answers.push((request.is_resume, answer));
                false
            }
            Poll::Pending => true,
        });
        let any = !answers.is_empty();
        for (is_resume, answer) in answers {
            match answer {
                Ok(segment) => self.take(segment, is_resume),
                Err(error) => self.end(Err(error)),
            }
        }
        if any && self.result.is_none() && self.requests.is_empty() && !self.early.is_empty() {
            self.end(Err(Error::protocol("a segment of the execution is missing")));
        }
        any
    }

    /// Resumes with what extension calls have answered. Whether any had.
    fn poll_calls(&mut self, context: &mut TaskContext<'_>) -> bool {
        let mut answers = Vec::new();
        self.calls.retain_mut(|(suspension, call)| match call.as_mut().poll(context) {
            Poll::Ready(answer) => {
                answers.push((std::mem::take(suspension), answer));
                false
            }
            Poll::Pending => true,
        });
        let any = !answers.is_empty();
        for (suspension, answer) in answers {
            self.resume(&suspension, answer.map_or_else(Resolution::Failure, Resolution::Value));
        }
        any
    }

    fn resume(&mut self, suspension: &str, resolution: Resolution) {
        if self.result.is_some() || self.cancelled {
            return;
        }
        let sent = match self.link.send_at(resume_message(suspension, &resolution), self.place.as_ref()) {
            // An answer that is too large for a frame is the extension's fault: its call fails in the handler.
            Err(error @ Error::Request(_)) => {
                let failure = Resolution::Failure(CallError::from(error).with_code("SERIALIZATION_ERROR"));
                self.link.send_at(resume_message(suspension, &failure), self.place.as_ref())
            }
            sent => sent,
        };
        match sent {
            Ok(pending) => self.requests.push(Request {
                id: Arc::new(Mutex::new(pending.id())),
                is_resume: true,
                answer: Box::pin(async move { segment(pending.await?) }),
            }),
            Err(error) => self.end(Err(error)),
        }
    }

    fn take(&mut self, segment: Segment, is_resume: bool) {
        let lost = segment.error.as_ref().is_some_and(|error| error.code == ErrorCode::SuspensionError);
        if is_resume && lost {
            // The execution ended before this resume got there. Another answer tells how; without one, it expired.
            if self.requests.is_empty()
                && self.early.is_empty()
                && let Some(error) = segment.error
            {
                self.end(Err(error.into()));
            }
            return;
        }
        self.early.insert(segment.seq, segment);
        while self.result.is_none()
            && let Some(next) = self.early.remove(&(self.segments.len() as u32))
        {
            self.deliver(next);
        }
    }

    fn deliver(&mut self, segment: Segment) {
        if let Some(callback) = &mut self.options.on_segment {
            callback(&segment);
        }
        self.suspended_by = None;
        if let Some(error) = &segment.error {
            self.end(Err(error.clone().into()));
        } else {
            match segment.status {
                Status::Success => self.succeed(segment),
                Status::Suspended => self.suspend(segment),
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

    fn suspend(&mut self, segment: Segment) {
        self.suspended_by = segment.suspensions.first().map(|suspension| suspension.id.clone());
        if self.cancelled {
            self.cancel_suspended();
        } else {
            for suspension in &segment.suspensions {
                if self.called.insert(suspension.id.clone()) {
                    let args = Args::new(suspension.args.clone());
                    let call =
                        self.options.extensions.call(&self.workers, &suspension.extension, &suspension.method, args);
                    self.calls.push((suspension.id.clone(), call));
                }
            }
        }
        self.segments.push(segment);
    }

    /// Ends the execution. The run is over when the sidecar has said what became of it.
    fn cancel(&mut self) {
        self.cancelled = true;
        self.calls.clear();
        for request in &self.requests {
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

    fn end(&mut self, result: Result<Outcome, Error>) {
        let by_token = self.cancelled && result.as_ref().is_err_and(|error| error.code() == ErrorCode::Cancelled);
        self.result.get_or_insert(if by_token { Err(Error::Cancelled) } else { result });
    }
}

impl Future for Run {
    type Output = Result<Outcome, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let run = self.get_mut();
        loop {
            if !run.cancelled && run.options.cancel.as_ref().is_some_and(|token| token.poll(context)) {
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
                return Poll::Ready(result);
            }
            progress |= run.poll_calls(context);
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
