//! Executions of one request, one after another.
//!
//! A worker runs the items of an executeMany for a turn, each in an instance that was reset, and tells what came of them in parts. When
//! the turn is over and items are left, the job stands behind what else waits, with the place that it has come to; it is the same
//! request, and its frame is kept.
//!
//! Invariants: results are told in the order of the items, each once; a part is appended while the run is not given up, so that none
//! comes after the answer of whoever answers in its place; an item that is suspended is an execution of its own from then on.

use std::time::{Duration, Instant};

use nexus_protocol::limits::{LONG_RUN_MS, MANY_PART_BYTES, MANY_PART_VALUES, MANY_TURN_MS};
use nexus_protocol::message::{Execute, ExecuteMany, Results, Status};
use nexus_protocol::{ErrorCode, LargeField, Pieces, SidecarMessage, WireError};

use super::Server;
use super::hub::{About, Job};
use super::oversight::Oversight;
use super::shared::Shared;
use super::suspend::Suspended;
use super::work::{Answering, Outcome};
use crate::execution::{self, Arrival, Progress, Report, Totals};
use crate::os;
use crate::runtime::{Overseer, Ran};
use crate::token::StopCause;

const TURN: Duration = Duration::from_millis(MANY_TURN_MS);
const LONG_RUN: Duration = Duration::from_millis(LONG_RUN_MS);
/// What came of an item that took so long is told before the next one is begun.
const TELL_AFTER: Duration = Duration::from_millis(1);
/// Of a frame with results beside them: envelope, keys, the length of the list.
const BESIDE_RESULTS: usize = 64;

impl Server {
    pub(super) fn execute_many(
        &self,
        answering: Answering<'_>,
        mut job: Job,
        request: &ExecuteMany<'_>,
        oversight: &Oversight<'_>,
    ) -> Outcome {
        if let Err(error) = request.check() {
            self.answer_failure(answering, error);
            return Outcome::Answered(None);
        }
        let began = Instant::now();
        let mut part = Part::default();
        let mut arrival = answering.arrival;
        while let Some(item) = request.item(job.done) {
            let is_over = job.done > 0 && began.elapsed() >= TURN;
            if is_over && oversight.token().check() != Err(StopCause::Cancelled) {
                return self.goes_behind(answering, job, part);
            }
            let timeout = execution::narrow_timeout(self.runtime.config.timeout_ms, item.timeout_ms);
            oversight.has_time((timeout, Duration::ZERO), arrival);
            // who was cancelled while nothing ran has no item that could be told so
            if oversight.token().check() == Err(StopCause::Cancelled) {
                break;
            }
            let Some(report) = self.run_item(answering, &job, &item, arrival, oversight) else {
                return Outcome::Answered(None);
            };
            job.done += 1;
            // its calls wait for answers from now on, and whatever took its time is wanted: neither waits for the next item's end
            let at_once = report.status == Status::Suspended || arrival.since.elapsed() >= TELL_AFTER;
            let max = answering.connection.max_frame_bytes().saturating_sub(BESIDE_RESULTS);
            let one = Part::of(&report, max);
            if part.bytes() + one.bytes() > max {
                self.tell(answering, std::mem::take(&mut part), true);
            }
            part.add(one);
            if part.is_large() || at_once {
                self.tell(answering, std::mem::take(&mut part), true);
            }
            if at_once {
                self.flush(answering.connection);
            }
            arrival = Arrival::now();
        }
        let is_done = job.done >= request.len();
        self.end_many(answering, part, (!is_done).then(execution::cancelled))
    }

    /// Runs one item to its end or its first suspension. None: the worker was given up meanwhile.
    fn run_item(
        &self,
        answering: Answering<'_>,
        job: &Job,
        item: &Execute<'_>,
        arrival: Arrival,
        oversight: &Oversight<'_>,
    ) -> Option<Report> {
        let Shared { state, .. } = match self.shared(job.session, item) {
            Ok(shared) => shared,
            Err(error) => {
                self.runtime.observer.record_error(error.code);
                return Some(Totals::begun(arrival).failure(error));
            }
        };
        let Ran { mut report, progress, armed } =
            self.runtime.execute(item, state, arrival, self.client_of(job.session), oversight);
        // whoever gives way should not do it with the books in hand
        os::step_forward();
        drop(armed);
        answering.meter.add(report.totals.segment_cpu());
        let instance = match progress {
            Progress::Finished(instance) => instance,
            Progress::Suspended(execution) => {
                let now = Instant::now();
                let kept = self.suspended(answering.run, execution, |hub, execution| {
                    let about = About::new(hub.new_number(), arrival.since, item, &*execution);
                    hub.suspend_beside(answering.run, about, execution, now)
                });
                match kept {
                    Suspended::Kept(instance) => instance,
                    Suspended::Over(instance, error) => {
                        report = report.into_failure(error);
                        instance
                    }
                    Suspended::GivenUp(_) => return None,
                }
            }
        };
        self.runtime.give_back(instance);
        Some(report)
    }

    /// The turn is over: what else waits comes first.
    fn goes_behind(&self, answering: Answering<'_>, job: Job, part: Part) -> Outcome {
        self.tell(answering, part, true);
        let cpu = answering.meter.read().max(LONG_RUN);
        let Some(mut state) = self.books(answering.run) else { return Outcome::Answered(None) };
        let now = Instant::now();
        state.hub.used(answering.run, cpu, || now);
        let goes_on = state.hub.go_behind(job, answering.run, now);
        drop(state);
        if goes_on {
            return Outcome::GoesOn;
        }
        self.end_many(answering, Part::default(), Some(execution::cancelled()))
    }

    /// `error`: what the items are told that have no result.
    fn end_many(&self, answering: Answering<'_>, part: Part, error: Option<WireError>) -> Outcome {
        // somebody who was told that it is cancelled hears so
        let ending = self.lock().hub.crew.get(answering.run).and_then(|run| run.ending());
        let error = error.or_else(|| (ending == Some(StopCause::Cancelled)).then(execution::cancelled));
        match error {
            Some(error) => {
                self.tell(answering, part, true);
                self.answer_failure(answering, error);
            }
            None if self.finish(answering).is_some() => part.append(answering, false, || true),
            None => {}
        }
        Outcome::Answered(None)
    }

    /// Appends a part. Whoever gives the worker up answers after that, or before: then nothing is appended.
    fn tell(&self, answering: Answering<'_>, part: Part, more: bool) {
        if part.count > 0 {
            part.append(answering, more, || !self.lock().hub.crew.is_retired(answering.run));
        }
    }
}

/// Results that are not told yet.
#[derive(Default)]
struct Part {
    /// Their maps, one behind the other.
    maps: Pieces,
    count: u32,
    /// Control values, at the most.
    values: usize,
}

impl Part {
    /// One result. What does not fit a frame is an error that says so.
    fn of(report: &Report, max_bytes: usize) -> Self {
        let mut maps = Pieces::new();
        report.encode_map(max_bytes, &mut maps);
        Self { maps, count: 1, values: report.control_values() }
    }

    fn bytes(&self) -> usize {
        self.maps.len()
    }

    fn is_large(&self) -> bool {
        self.bytes() >= MANY_PART_BYTES || self.values >= MANY_PART_VALUES
    }

    fn add(&mut self, other: Self) {
        self.maps.append(&other.maps);
        self.count += other.count;
        self.values += other.values;
    }

    /// `may`: asked when nobody else can append to the connection any more.
    fn append(self, answering: Answering<'_>, more: bool, may: impl FnOnce() -> bool) {
        let mut list = Pieces::new();
        // writing to a Vec cannot fail
        let _ = rmp::encode::write_array_len(list.own(), self.count);
        list.append(&self.maps);
        let message = Results { results: Vec::new(), more };
        let encode = |out: &mut Pieces, max| {
            if !may() {
                return;
            }
            if let Err(e) = message.encode_with(answering.id, &[("results", LargeField::Encoded(&list))], max, out) {
                log::error!("cannot encode results: {e}");
                let error = WireError::new(ErrorCode::InternalError, "the results could not be encoded");
                let _ = SidecarMessage::Error(error.not_retryable()).encode(answering.id, max, out.own());
            }
        };
        // the last part is the answer that the request was a reason for doubt for
        if more { answering.connection.append(encode) } else { answering.connection.append_answer(encode) }
    }
}
