//! A sidecar for one person: the runtime in this process, asked by the messages of the protocol and without a socket.
//!
//! It answers what `run` and `check` need: execute, resume, check. The guest needs a deep native stack, so everything
//! happens on a thread of its own, see [`with_sidecar`].

use std::thread;
use std::time::{Duration, Instant};

use nexus_protocol::limits::FRAME_HEADER_BYTES;
use nexus_protocol::message::{Execute, Resolution, Resume};
use nexus_protocol::payload::NIL;
use nexus_protocol::{ClientMessage, Pieces, RequestId, SidecarMessage, SuspensionId, WireError, decode_sidecar};

use super::client::{ClientError, Sidecar};
use crate::cache::Client;
use crate::config::Config;
use crate::engine::thread_stack_bytes;
use crate::error::StartError;
use crate::execution::{
    Answer, Arrival, Execution, Progress, Report, StateSource, Totals, narrow_timeout, no_such_suspension,
};
use crate::runtime::Runtime;
use crate::token::StopToken;

/// Answers are copied out of one frame, which is not sent anywhere.
const REQUEST: RequestId = RequestId(1);

pub(super) struct Local {
    runtime: Runtime,
    /// The one execution, while it is suspended.
    execution: Option<Box<Execution>>,
}

/// Starts a sidecar, lets `act` ask it, and ends it.
pub(super) fn with_sidecar<T: Send>(
    config: Config,
    act: impl FnOnce(&mut Local) -> Result<T, StartError> + Send,
) -> Result<T, StartError> {
    let stack_bytes = thread_stack_bytes(u32::try_from(config.stack_size_bytes).unwrap_or(u32::MAX));
    let serve = move || {
        let runtime = Runtime::new(config).map_err(|error| StartError::Engine(Box::new(error)))?;
        act(&mut Local { runtime, execution: None })
    };
    thread::scope(|scope| {
        let spawned =
            thread::Builder::new().name("handler".to_owned()).stack_size(stack_bytes).spawn_scoped(scope, serve);
        let thread = spawned.map_err(|source| StartError::Io { context: "cannot start a thread", source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Sidecar for Local {
    fn ask<T>(
        &mut self,
        message: &ClientMessage<'_>,
        read: impl FnOnce(SidecarMessage<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let report = match message {
            ClientMessage::Execute(execute) => self.execute(execute),
            ClientMessage::Resume(resume) => self.resume(resume),
            ClientMessage::Check(check) => return self.check(check.source, read),
            _ => return Err(ClientError::Unexpected),
        };
        let mut frame = Pieces::new();
        report.encode(REQUEST, self.max_frame_bytes(), &mut frame);
        let frame = frame.to_vec();
        read(decode_sidecar(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default())?.message)
            .ok_or(ClientError::Unexpected)
    }
}

impl Local {
    fn execute(&mut self, execute: &Execute<'_>) -> Report {
        let token = self.token(narrow_timeout(self.runtime.config.timeout_ms, execute.timeout_ms));
        let ran = self.runtime.execute(execute, StateSource::Request, Arrival::now(), Client::ALONE, &token);
        self.keep(ran.progress);
        ran.report
    }

    fn resume(&mut self, resume: &Resume<'_>) -> Report {
        let found = resume.suspension.parse::<SuspensionId>().ok().zip(self.execution.take());
        let Some((id, execution)) = found else {
            return Totals::default().failure(no_such_suspension());
        };
        let described;
        let answer = match resume.resolution {
            Resolution::Value(value) => Answer::Value(value.unwrap_or(NIL)),
            Resolution::Failure(failure) => {
                described = rmp_serde::to_vec_named(&failure).unwrap_or_default();
                Answer::Failure(&described)
            }
        };
        let (timeout, spent) = execution.budget();
        let token = self.token(timeout.map(|timeout| timeout.saturating_sub(spent)));
        let ran = self.runtime.resume(*execution, id, answer, Arrival::now(), &token);
        self.keep(ran.progress);
        ran.report
    }

    fn check<T>(&mut self, source: &str, read: impl FnOnce(SidecarMessage<'_>) -> Option<T>) -> Result<T, ClientError> {
        let token = self.token(narrow_timeout(self.runtime.config.timeout_ms, None));
        let found = self.runtime.compile(source, None, Client::ALONE, &token).map_err(refused)?;
        read(SidecarMessage::Checked(found.handler.checked())).ok_or(ClientError::Unexpected)
    }

    /// Of a request that begins now and has so much time.
    fn token(&self, time: Option<Duration>) -> StopToken {
        StopToken::until(time.and_then(|time| Instant::now().checked_add(time)))
    }

    fn keep(&mut self, progress: Progress) {
        match progress {
            Progress::Suspended(execution) => self.execution = Some(execution),
            Progress::Finished(instance) => self.runtime.give_back(instance),
        }
    }

    fn max_frame_bytes(&self) -> usize {
        usize::try_from(self.runtime.config.max_frame_bytes).unwrap_or(usize::MAX)
    }
}

fn refused(error: WireError) -> ClientError {
    ClientError::Refused(Box::new(error))
}
