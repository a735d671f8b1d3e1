//! One execution as it goes over a connection: what is sent for it, and what its answers are.
//!
//! Invariant: a compiled handler that the sidecar does not know is compiled again, once for each execution, and whoever cancels
//! reaches the request that is under way.

use std::sync::{Arc, Mutex};

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{self, CallFailure, Precompile, Resume};

use crate::compiled::{CompiledParts, Handler, says_unknown_handler};
use crate::context::Context;
use crate::error::Error;
use crate::extensions::CallError;
use crate::link::{Answer, Link, Pending, PlaceHeld, answered};
use crate::live_logs::Ear;
use crate::payload::Payload;
use crate::segment::Segment;
use crate::slot::lock;
use crate::told::SuspendMode;

/// How an extension call ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Resolution {
    /// With a value.
    Value(Payload),
    /// With an error, which is thrown inside the handler.
    Failure(CallError),
}

pub(crate) fn segment(answer: Answer) -> Result<Segment, Error> {
    answered!(answer, Answer::Segment(segment) => *segment)
}

pub(crate) fn compiled(answer: Answer) -> Result<CompiledParts, Error> {
    answered!(answer, Answer::Compiled(parts) => *parts)
}

pub(crate) fn resume_message<'a>(suspension: &'a str, resolution: &'a Resolution) -> ClientMessage<'a> {
    let resolution = match resolution {
        Resolution::Value(value) => message::Resolution::Value(Some(value.as_bytes())),
        Resolution::Failure(error) => message::Resolution::Failure(CallFailure {
            message: error.message(),
            name: error.name(),
            code: error.code(),
        }),
    };
    ClientMessage::Resume(Resume::new(suspension, resolution))
}

pub(crate) fn send_precompile(
    link: &Arc<Link>,
    source: &str,
    handler_name: Option<&str>,
    suspend_mode: Option<SuspendMode>,
) -> Result<Pending, Error> {
    link.send(ClientMessage::Precompile(Precompile {
        source,
        handler_name,
        suspend_mode: suspend_mode.map(SuspendMode::wire),
    }))
}

fn send_execute(link: &Arc<Link>, handler: &Handler, context: &Context, sending: &Sending) -> Result<Pending, Error> {
    let code = handler.to_send();
    let mut request = context.request(code.code())?;
    request.resident = context.resident_on(link)?;
    match sending {
        Sending::Listed => link.send_listed(ClientMessage::Execute(request)),
        Sending::Of { place, ear } => {
            request.stream_logs = ear.is_some();
            link.send_of(ClientMessage::Execute(request), place.clone(), ear.clone())
        }
    }
}

/// Who keeps the list of an execution's calls.
pub(crate) enum Sending {
    /// The connection, since its segments go to a caller each.
    Listed,
    /// A run.
    Of {
        /// It may have to wait for it.
        place: Option<Arc<PlaceHeld>>,
        /// It hears what is logged.
        ear: Option<Ear>,
    },
}

/// Sends an execute at once, and its answer later. A compiled handler that the sidecar does not know is compiled again,
/// once. `request_id` follows the request that is under way, so that it can be cancelled.
pub(crate) fn start_execution(
    link: &Arc<Link>,
    handler: Handler,
    context: Context,
    request_id: Arc<Mutex<u32>>,
    sending: Sending,
) -> Result<impl Future<Output = Result<Segment, Error>> + Send + use<>, Error> {
    let link = Arc::clone(link);
    let first = send_execute(&link, &handler, &context, &sending)?;
    *lock(&request_id) = first.id();
    Ok(async move {
        let told = |answer: Result<Answer, Error>| {
            let mut segment = answer.and_then(segment)?;
            context.tell_limited(&mut segment, &link.greeting.limits);
            Ok(segment)
        };
        let answer = told(first.await);
        let Handler::Compiled(compiled_handler) = &handler else { return answer };
        if !says_unknown_handler(&answer) {
            return answer;
        }
        let name = compiled_handler.name().or(context.label());
        let asked = compiled_handler.asked_mode();
        let parts = compiled(send_precompile(&link, compiled_handler.source(), name, asked)?.await?)?;
        compiled_handler.replace(parts);
        let second = send_execute(&link, &handler, &context, &sending)?;
        *lock(&request_id) = second.id();
        told(second.await)
    })
}
