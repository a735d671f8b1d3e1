//! `run`: one handler, from its source to its value, with extension calls answered from fixtures.
//!
//! It is a client like any other: it asks in messages of the protocol, so what it shows is what a client would get.

use nexus_protocol::message::{
    CallFailure, Code, Execute, ExecutionMetrics, Resolution, Resume, SegmentResult, Status, SuspendMode,
};
use nexus_protocol::{Capability, ClientMessage, ErrorCode, PayloadError, SidecarMessage, WireError};
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::client::{ClientError, Sidecar};
use super::fixtures::{Answer, Fixtures};
use super::input::{InputError, read_json, read_object_payload, read_payload};
use super::notation::decode;
use super::remote::bytes_text;
use crate::cli::Run;
use crate::error::StartError;

/// What a handler is run with, read from flags and files.
#[derive(Debug)]
pub(super) struct Inputs {
    pub name: String,
    pub source: String,
    state: Option<Vec<u8>>,
    args: Option<Vec<u8>>,
    scope: Option<Vec<u8>>,
    grants: Vec<String>,
    suspend_mode: Option<SuspendMode>,
    fixtures: Fixtures,
}

/// One execution, told from its end.
#[derive(Debug)]
pub(super) struct Outcome {
    pub segments: Vec<Segment>,
    pub end: Result<Value, Box<WireError>>,
    pub metrics: Json,
    /// The metrics in one line.
    pub summary: String,
}

/// What happened up to one suspension, or up to the end.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub state_mutations: Vec<Value>,
    pub events: Vec<Value>,
    pub view_commands: Vec<Value>,
    pub logs: Vec<Value>,
    /// The extension call whose answer began the next segment.
    pub call: Option<Call>,
}

#[derive(Debug)]
pub(super) struct Call {
    pub name: String,
    pub args: Vec<Value>,
    /// The value, or the message with which the call failed.
    pub answer: Result<Value, String>,
}

/// An answer of the sidecar, copied out of its frame.
struct Reply {
    status: Status,
    segment: Segment,
    value: Value,
    error: Option<WireError>,
    /// The oldest outstanding call.
    pending: Option<Pending>,
    metrics: Json,
    summary: String,
}

struct Pending {
    id: String,
    extension: String,
    method: String,
    args: Value,
}

impl Inputs {
    /// No value is read beyond `max_frame_bytes`: it could not be sent.
    pub(super) fn read(run: &Run, name: String, source: String, max_frame_bytes: u64) -> Result<Self, StartError> {
        let max = max_frame_bytes;
        let fixtures = match &run.extensions {
            Some(json) => Fixtures::from_json(read_json("--ext", json, max)?)?,
            None => Fixtures::default(),
        };
        for token in &run.grants {
            let unknown = |source| InputError::NotACapability { token: token.clone(), source };
            Capability::parse(token).map_err(unknown)?;
        }
        Ok(Self {
            name,
            source,
            state: run.state.as_ref().map(|json| read_object_payload("--state", json, max)).transpose()?,
            args: run.args.as_ref().map(|json| read_payload("--args", json, max)).transpose()?,
            scope: run.scope.as_ref().map(|json| read_object_payload("--scope", json, max)).transpose()?,
            grants: run.grants.clone(),
            suspend_mode: run.suspend_mode,
            fixtures,
        })
    }

    /// Executes, and resumes until the execution ends. Extensions without a fixture do not exist for the handler.
    pub(super) fn execute(&mut self, sidecar: &mut impl Sidecar) -> Result<Outcome, StartError> {
        let mut execute = Execute::new(Code::Source(&self.source));
        execute.handler_name = Some(label(&self.name));
        execute.state = self.state.as_deref();
        execute.args = self.args.as_deref();
        execute.scope = self.scope.as_deref();
        execute.capabilities = self.grants.iter().map(String::as_str).collect();
        execute.suspend_mode = self.suspend_mode;
        execute.extensions = Some(self.fixtures.names().collect());
        let mut reply = ask(sidecar, &ClientMessage::Execute(execute))?;
        let mut segments = Vec::new();
        loop {
            let end = match (reply.status, reply.pending, reply.error) {
                (Status::Suspended, Some(pending), _) => {
                    let (call, next) = self.answer(sidecar, pending)?;
                    reply.segment.call = Some(call);
                    segments.push(reply.segment);
                    reply = next;
                    continue;
                }
                (Status::Success, _, _) => Ok(reply.value),
                (_, _, Some(error)) => Err(Box::new(error)),
                (_, _, None) => {
                    Err(Box::new(WireError::new(ErrorCode::InternalError, "the answer has neither value nor error")))
                }
            };
            segments.push(reply.segment);
            return Ok(Outcome { segments, end, metrics: reply.metrics, summary: reply.summary });
        }
    }

    fn answer(&mut self, sidecar: &mut impl Sidecar, pending: Pending) -> Result<(Call, Reply), StartError> {
        let name = format!("{}.{}", pending.extension, pending.method);
        let answer = self.fixtures.next(&pending.extension, &pending.method)?;
        let missing = format!("--ext has no further answer for {name}");
        let (resolution, answer) = match &answer {
            Answer::Value(payload) => (Resolution::Value(Some(payload)), Ok(decode(payload).unwrap_or(Value::Nil))),
            Answer::Error(message) => (failure(message), Err(message.clone())),
            Answer::Missing => (failure(&missing), Err(missing.clone())),
        };
        let reply = ask(sidecar, &ClientMessage::Resume(Resume::new(&pending.id, resolution)))?;
        let args = match pending.args {
            Value::Array(args) => args,
            other => vec![other],
        };
        Ok((Call { name, args, answer }, reply))
    }
}

fn failure(message: &str) -> Resolution<'_> {
    Resolution::Failure(CallFailure { message, name: None, code: None })
}

fn ask(sidecar: &mut impl Sidecar, message: &ClientMessage<'_>) -> Result<Reply, StartError> {
    let reply = sidecar.ask(message, |answer| match answer {
        SidecarMessage::Result(result) => Some(Reply::from_result(result)),
        _ => None,
    })?;
    Ok(reply.map_err(ClientError::from)?)
}

impl Reply {
    fn from_result(result: SegmentResult<'_>) -> Result<Self, PayloadError> {
        let pending = result.suspensions.first().map(|call| {
            Ok(Pending {
                id: call.id.to_owned(),
                extension: call.extension.to_owned(),
                method: call.method.to_owned(),
                args: decode(call.args)?,
            })
        });
        Ok(Self {
            status: result.status,
            segment: Segment {
                state_mutations: list(result.state_mutations)?,
                events: list(result.events)?,
                view_commands: list(result.view_commands)?,
                logs: list(result.logs)?,
                call: None,
            },
            value: decode(result.value.unwrap_or_default())?,
            error: result.error,
            pending: pending.transpose()?,
            metrics: json!(result.metrics),
            summary: summary(&result.metrics),
        })
    }
}

fn list(payload: Option<&[u8]>) -> Result<Vec<Value>, PayloadError> {
    Ok(match decode(payload.unwrap_or_default())? {
        Value::Array(items) => items,
        Value::Nil => Vec::new(),
        other => vec![other],
    })
}

fn summary(metrics: &ExecutionMetrics<'_>) -> String {
    let mut parts = vec![
        format!("{} us", metrics.duration_us),
        format!("{} us CPU", metrics.cpu_us),
        format!("{} at most", bytes_text(metrics.memory_peak_bytes)),
    ];
    match (metrics.cache_hit, metrics.compilation_time_us) {
        (true, _) => parts.push("found compiled".to_owned()),
        (false, Some(micros)) => parts.push(format!("compiled in {micros} us")),
        (false, None) => {}
    }
    let calls: Vec<String> = metrics.host_calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if !calls.is_empty() {
        parts.push(format!("host calls: {}", calls.join(", ")));
    }
    parts.join("; ")
}

/// The end of a name, as much as the protocol takes: the end of a path tells more than its beginning.
fn label(name: &str) -> &str {
    let excess = name.len().saturating_sub(nexus_protocol::limits::MAX_LABEL_BYTES);
    let start = (excess..=name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.get(start..).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use nexus_protocol::message::PendingCall;

    use super::super::client::Client;
    use super::super::client::tests::peer;
    use super::*;
    use crate::cli::{JsonSource, Script};
    use crate::config::ConfigArgs;

    pub(in super::super) fn run_with(extensions: Option<Json>) -> Run {
        Run {
            file: Script::Stdin,
            state: Some(JsonSource::Inline(json!({"n": 1}))),
            args: None,
            scope: None,
            grants: vec!["state:read:*".to_owned()],
            suspend_mode: None,
            extensions: extensions.map(JsonSource::Inline),
            json: false,
            config: ConfigArgs::default(),
        }
    }

    fn outcome(extensions: Option<Json>, answers: Vec<SidecarMessage<'static>>) -> Outcome {
        let mut inputs =
            Inputs::read(&run_with(extensions), "h.js".to_owned(), "return 1".to_owned(), 1 << 20).unwrap();
        let (stream, _) = peer(answers);
        inputs.execute(&mut Client::over(stream, None).unwrap()).unwrap()
    }

    /// `http.get("u")` is outstanding.
    fn suspended(seq: u32) -> SidecarMessage<'static> {
        let mut result = SegmentResult::new(Status::Suspended, seq);
        result.suspensions = vec![PendingCall {
            id: "00112233445566778899aabbccddeeff",
            extension: "http",
            method: "get",
            args: &[0x91, 0xa1, b'u'],
        }];
        SidecarMessage::Result(result)
    }

    fn done(seq: u32) -> SidecarMessage<'static> {
        let mut result = SegmentResult::new(Status::Success, seq);
        result.value = Some(&[42]);
        result.metrics.host_calls = vec![("state_get", 2)];
        SidecarMessage::Result(result)
    }

    #[test]
    fn a_handler_that_calls_nothing_has_one_segment() {
        let outcome = outcome(None, vec![done(0)]);
        assert_eq!(outcome.end.unwrap(), Value::from(42));
        assert_eq!(outcome.segments.len(), 1);
        assert!(outcome.summary.ends_with("host calls: state_get 2"), "{}", outcome.summary);
    }

    #[test]
    fn every_suspension_takes_the_next_fixture() {
        let fixtures = json!({"http.get": ["body", {"error": "down"}]});
        let outcome = outcome(Some(fixtures), vec![suspended(0), suspended(1), suspended(2), done(3)]);
        assert_eq!(outcome.end.unwrap(), Value::from(42));
        let answers: Vec<_> =
            outcome.segments.iter().filter_map(|segment| Some(&segment.call.as_ref()?.answer)).collect();
        let missing = "--ext has no further answer for http.get".to_owned();
        assert_eq!(answers, [&Ok(Value::from("body")), &Err("down".to_owned()), &Err(missing)]);
        assert_eq!(outcome.segments[0].call.as_ref().unwrap().args, [Value::from("u")]);
    }

    #[test]
    fn a_failed_handler_is_an_outcome_and_not_a_failure_of_the_command() {
        let mut result = SegmentResult::new(Status::Error, 0);
        result.error = Some(WireError::new(ErrorCode::ExecutionError, "x"));
        result.state_mutations = Some(&[0x91, 0x80]);
        let outcome = outcome(None, vec![SidecarMessage::Result(result)]);
        assert_eq!(outcome.end.unwrap_err().message, "x");
        assert_eq!(outcome.segments[0].state_mutations.len(), 1);
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let long = format!("{}\u{e9}/handler.js", "d".repeat(300));
        assert!(label(&long).len() <= 256 && label(&long).ends_with("/handler.js"));
        assert_eq!(label("h.js"), "h.js");
    }
}
