//! `run`: one handler, from its source to its value, with extension calls answered from fixtures.
//!
//! It is a client like any other: it asks in messages of the protocol, so what it shows is what a client would get. Who
//! answers the extension calls is in `replay`.

use nexus_protocol::message::{
    CallFailure, Check, Code, Execute, ExecutionMetrics, PendingCall, Resolution, Resume, SegmentResult, Status,
    SuspendMode,
};
use nexus_protocol::{Capability, ClientMessage, ErrorCode, PayloadError, SidecarMessage, WireError};
use rmpv::Value;
use serde_json::{Value as Json, json};

use super::client::{ClientError, Sidecar};
use super::fixtures::{Answer, Failure, Fixtures, Method, Unused};
use super::input::{InputError, read_json, read_object_payload, read_payload};
use super::notation::decode;
use super::remote::bytes_text;
use super::replay::{Missing, Pending, Replay};
use crate::cli::Run;
use crate::config::Config;
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
    grant_needs: bool,
    suspend_mode: Option<SuspendMode>,
    replay: Replay,
}

/// One execution, told from its end.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What was granted because the handler is seen to need it, where that was asked for.
    pub granted: Option<Vec<String>>,
    pub segments: Vec<Segment>,
    pub end: Result<Value, Box<WireError>>,
    pub metrics: Json,
    /// The metrics in one line.
    pub summary: String,
    /// Calls that `--ext` had no answer for.
    pub missing: Vec<Missing>,
    /// Answers of `--ext` that no call took.
    pub unused: Vec<Unused>,
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
    /// Calls that the segment made.
    new_calls: Vec<Pending>,
    metrics: Json,
    summary: String,
}

impl Inputs {
    /// No value is read beyond `maxFrameBytes`: it could not be sent.
    pub(super) fn read(run: &Run, name: String, source: String, config: &Config) -> Result<Self, StartError> {
        let max = config.max_frame_bytes;
        let fixtures = match &run.extensions {
            Some(json) => Fixtures::from_json(read_json("--ext", json, max)?)?,
            None => Fixtures::default(),
        };
        let replay = Replay::new(fixtures, &source, config.suspension_timeout_ms)?;
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
            grant_needs: run.grant_needs,
            suspend_mode: run.suspend_mode,
            replay,
        })
    }

    /// Executes, and resumes until the execution ends.
    pub(super) fn execute(&mut self, sidecar: &mut impl Sidecar) -> Result<Outcome, StartError> {
        let granted = if self.grant_needs { needs(sidecar, &self.source)? } else { None };
        self.grants.extend(granted.iter().flatten().cloned());
        let mut execute = Execute::new(Code::Source(&self.source));
        execute.handler_name = Some(label(&self.name));
        execute.state = self.state.as_deref();
        execute.args = self.args.as_deref();
        execute.scope = self.scope.as_deref();
        execute.capabilities = self.grants.iter().map(String::as_str).collect();
        execute.suspend_mode = self.suspend_mode;
        execute.extensions = Some(self.replay.names());
        let mut reply = ask(sidecar, &ClientMessage::Execute(execute))?;
        let mut segments = Vec::new();
        loop {
            let end = match (reply.status, reply.error) {
                (Status::Suspended, _) => match self.replay.wait(reply.new_calls) {
                    Some((pending, answer)) => {
                        let (call, next) = resume(sidecar, pending, &answer)?;
                        reply.segment.call = Some(call);
                        segments.push(reply.segment);
                        reply = next;
                        continue;
                    }
                    None => Err(broken("it is suspended, and no call of it waits")),
                },
                (Status::Success, _) => Ok(reply.value),
                (_, Some(error)) => Err(Box::new(error)),
                (_, None) => Err(broken("the answer has neither value nor error")),
            };
            segments.push(reply.segment);
            let (missing, unused) = self.replay.finish();
            let Reply { metrics, summary, .. } = reply;
            return Ok(Outcome { granted, segments, end, metrics, summary, missing, unused });
        }
    }
}

/// What a check lists; nothing of a handler that does not compile, which running it tells better.
fn needs(sidecar: &mut impl Sidecar, source: &str) -> Result<Option<Vec<String>>, StartError> {
    let listed = sidecar.ask(&ClientMessage::Check(Check { source }), |answer| match answer {
        SidecarMessage::Checked(checked) => Some(checked.capabilities.iter().map(|&token| token.to_owned()).collect()),
        _ => None,
    });
    match listed {
        Ok(tokens) => Ok(Some(tokens)),
        Err(ClientError::Refused(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn broken(why: &str) -> Box<WireError> {
    Box::new(WireError::new(ErrorCode::InternalError, why))
}

fn resume(sidecar: &mut impl Sidecar, pending: Pending, answer: &Answer) -> Result<(Call, Reply), StartError> {
    let (resolution, shown) = match answer {
        Answer::Value(payload) => (Resolution::Value(Some(payload)), Ok(decode(payload).unwrap_or(Value::Nil))),
        Answer::Error(failure) => (failed(failure), Err(failure.message.clone())),
    };
    let reply = ask(sidecar, &ClientMessage::Resume(Resume::new(&pending.id, resolution)))?;
    Ok((Call { name: pending.method.to_string(), args: pending.args, answer: shown }, reply))
}

fn failed(failure: &Failure) -> Resolution<'_> {
    let Failure { message, name, code } = failure;
    Resolution::Failure(CallFailure { message, name: name.as_deref(), code: code.as_deref() })
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
        let new_calls = result.suspensions.iter().map(read_call).collect::<Result<_, _>>()?;
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
            new_calls,
            metrics: json!(result.metrics),
            summary: summary(&result.metrics),
        })
    }
}

fn read_call(call: &PendingCall<'_>) -> Result<Pending, PayloadError> {
    let method = Method { extension: call.extension.to_owned(), method: call.method.to_owned() };
    let args = match decode(call.args)? {
        Value::Array(args) => args,
        other => vec![other],
    };
    Ok(Pending { id: call.id.to_owned(), method, args })
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
            grant_needs: false,
            suspend_mode: None,
            extensions: extensions.map(JsonSource::Inline),
            json: false,
            watch: false,
            config: ConfigArgs::default(),
        }
    }

    fn outcome(extensions: Option<Json>, answers: Vec<SidecarMessage<'static>>) -> Outcome {
        let mut inputs =
            Inputs::read(&run_with(extensions), "h.js".to_owned(), "return 1".to_owned(), &Config::default()).unwrap();
        let (stream, _) = peer(answers);
        inputs.execute(&mut Client::over(stream, None).unwrap()).unwrap()
    }

    /// `http.get("u")` is outstanding; `seq` is in its id, for a call is answered once.
    fn suspended(seq: u32) -> SidecarMessage<'static> {
        let mut result = SegmentResult::new(Status::Suspended, seq);
        result.suspensions = vec![PendingCall {
            id: ["a", "b", "c", "d"][seq as usize],
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
        let missing = "--ext has no further answer for http.get(\"u\")".to_owned();
        assert_eq!(answers, [&Ok(Value::from("body")), &Err("down".to_owned()), &Err(missing)]);
        assert_eq!((outcome.missing.len(), outcome.unused.len()), (1, 0));
        assert_eq!(outcome.segments[0].call.as_ref().unwrap().args, [Value::from("u")]);
    }

    #[test]
    fn calls_that_were_told_once_are_answered_though_later_segments_do_not_name_them() {
        let call = |id, method| PendingCall { id, extension: "http", method, args: &[0x90] };
        let mut two = SegmentResult::new(Status::Suspended, 0);
        two.suspensions = vec![call("a", "slow"), call("b", "get")];
        let none = SegmentResult::new(Status::Suspended, 1);
        let mut one = SegmentResult::new(Status::Suspended, 2);
        one.suspensions = vec![call("c", "get")];
        let fixtures = json!({"http.get": [1, 2], "http.slow": [{"value": 3, "delayMs": 20}]});
        let answers = vec![two, none, one].into_iter().map(SidecarMessage::Result).chain([done(3)]).collect();
        let outcome = outcome(Some(fixtures), answers);
        let answers = outcome.segments.iter().filter_map(|segment| segment.call.as_ref());
        let answers: Vec<_> = answers.map(|call| (&*call.name, call.answer.clone().unwrap())).collect();
        let (get, slow) = ("http.get", "http.slow");
        assert_eq!(answers, [(get, Value::from(1)), (slow, Value::from(3)), (get, Value::from(2))]);
        let stuck = super::tests::outcome(None, vec![SidecarMessage::Result(SegmentResult::new(Status::Suspended, 0))]);
        assert_eq!(stuck.end.unwrap_err().code, ErrorCode::InternalError);
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
