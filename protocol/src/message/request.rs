//! What a client sends, in a form in which keys that exclude one another cannot be there together.

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{ErrorCode, WireError};
use crate::limits::MAX_LABEL_BYTES;
use crate::message::maps::{CancelFields, ExecuteFields, ResumeFields};
use crate::message::{CallFailure, ClientHello, Precompile, Regions, Resident, SuspendMode};
use crate::strict;
use crate::version::VersionRange;

impl ClientHello<'_> {
    /// The versions that the client speaks.
    pub fn versions(&self) -> VersionRange {
        VersionRange { min: self.min, max: self.max }
    }
}

/// What an execute runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code<'a> {
    /// Text of a handler.
    Source(&'a str),
    /// What precompile returned.
    Handler(&'a [u8]),
}

/// A request to run a handler. `None` and empty lists mean absent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "ExecuteFields<'a>", into = "ExecuteFields<'a>")]
pub struct Execute<'a> {
    pub code: Code<'a>,
    pub panel_id: Option<&'a str>,
    pub handler_name: Option<&'a str>,
    pub state: Option<&'a [u8]>,
    /// Instead of `state`.
    pub resident: Option<Resident<'a>>,
    pub args: Option<&'a [u8]>,
    pub scope: Option<&'a [u8]>,
    pub capabilities: Vec<&'a str>,
    /// `None`: every name is accepted.
    pub extensions: Option<Vec<(&'a str, Vec<&'a str>)>>,
    pub timeout_ms: Option<u64>,
    pub limits: CallLimits<'a>,
    pub strict_capabilities: bool,
    /// `None`: the handler's text decides.
    pub suspend_mode: Option<SuspendMode>,
    pub seed: Option<u64>,
    /// Tell what is logged while the handler runs.
    pub stream_logs: bool,
    pub regions: Regions,
}

impl<'a> Execute<'a> {
    /// An execute of `code` with everything else absent.
    pub fn new(code: Code<'a>) -> Self {
        Self {
            code,
            panel_id: None,
            handler_name: None,
            state: None,
            resident: None,
            args: None,
            scope: None,
            capabilities: Vec::new(),
            extensions: None,
            timeout_ms: None,
            limits: CallLimits::default(),
            strict_capabilities: false,
            suspend_mode: None,
            seed: None,
            stream_logs: false,
            regions: Regions::NONE,
        }
    }

    /// The values that can be judged without a configuration. Payloads and tokens are checked where they are used.
    pub fn check(&self) -> Result<(), WireError> {
        for (key, label) in [("panelId", self.panel_id), ("handlerName", self.handler_name)] {
            check_label(key, label)?;
        }
        match self.limits.unknown {
            Some(name) => Err(invalid(format!("limits: there is no limit `{name}` that a call can narrow"))),
            None => Ok(()),
        }
    }
}

/// Limits that one execution narrows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallLimits<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_host_calls: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_state_mutations: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_result_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_log_bytes: Option<u64>,
    /// A name that is none of these: refused by [`Execute::check`], because a client that believes in a limit which is
    /// not there is worse off than one that hears of it.
    #[serde(skip)]
    pub unknown: Option<&'a str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for CallLimits<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitsVisitor;

        impl<'de> Visitor<'de> for LimitsVisitor {
            type Value = CallLimits<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of limits")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut limits = CallLimits::default();
                while let Some(strict::Text(key)) = map.next_key()? {
                    let value = Some(map.next_value::<u64>()?);
                    match key {
                        "memoryLimitBytes" => limits.memory_limit_bytes = value,
                        "maxHostCalls" => limits.max_host_calls = value,
                        "maxStateMutations" => limits.max_state_mutations = value,
                        "maxEvents" => limits.max_events = value,
                        "maxResultBytes" => limits.max_result_bytes = value,
                        "maxLogBytes" => limits.max_log_bytes = value,
                        unknown => limits.unknown = Some(unknown),
                    }
                }
                Ok(limits)
            }
        }

        deserializer.deserialize_map(LimitsVisitor)
    }
}

/// A message with none or several of the keys of which it needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exactly one of {0} has to be there")]
pub(super) struct ExactlyOneOf(&'static str);

/// An execute with keys that exclude one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExecuteError {
    #[error(transparent)]
    Code(#[from] ExactlyOneOf),
    #[error("`state` and `resident` exclude one another")]
    TwoStates,
}

pub(super) fn code_of<'a>(source: Option<&'a str>, handler: Option<&'a [u8]>) -> Result<Code<'a>, ExactlyOneOf> {
    match (source, handler) {
        (Some(source), None) => Ok(Code::Source(source)),
        (None, Some(handler)) => Ok(Code::Handler(handler)),
        (None, None) | (Some(_), Some(_)) => Err(ExactlyOneOf("`source` and `handler`")),
    }
}

impl<'a> TryFrom<ExecuteFields<'a>> for Execute<'a> {
    type Error = ExecuteError;

    fn try_from(fields: ExecuteFields<'a>) -> Result<Self, ExecuteError> {
        let code = code_of(fields.source, fields.handler)?;
        if fields.state.is_some() && fields.resident.is_some() {
            return Err(ExecuteError::TwoStates);
        }
        Ok(Self {
            code,
            panel_id: fields.panel_id,
            handler_name: fields.handler_name,
            state: fields.state,
            resident: fields.resident,
            args: fields.args,
            scope: fields.scope,
            capabilities: fields.capabilities,
            extensions: fields.extensions,
            timeout_ms: fields.timeout_ms,
            limits: fields.limits.unwrap_or_default(),
            strict_capabilities: fields.strict_capabilities.unwrap_or_default(),
            suspend_mode: fields.suspend_mode,
            seed: fields.seed,
            stream_logs: fields.stream_logs.unwrap_or_default(),
            regions: fields.regions,
        })
    }
}

impl<'a> From<Execute<'a>> for ExecuteFields<'a> {
    fn from(execute: Execute<'a>) -> Self {
        let (source, handler) = match execute.code {
            Code::Source(source) => (Some(source), None),
            Code::Handler(handler) => (None, Some(handler)),
        };
        Self {
            source,
            handler,
            panel_id: execute.panel_id,
            handler_name: execute.handler_name,
            state: execute.state,
            resident: execute.resident,
            args: execute.args,
            scope: execute.scope,
            capabilities: execute.capabilities,
            extensions: execute.extensions,
            timeout_ms: execute.timeout_ms,
            limits: (execute.limits != CallLimits::default()).then_some(execute.limits),
            strict_capabilities: execute.strict_capabilities.then_some(true),
            suspend_mode: execute.suspend_mode,
            seed: execute.seed,
            stream_logs: execute.stream_logs.then_some(true),
            regions: execute.regions,
        }
    }
}

impl Precompile<'_> {
    /// The values that can be judged without a configuration.
    pub fn check(&self) -> Result<(), WireError> {
        check_label("handlerName", self.handler_name)
    }
}

/// How an extension call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution<'a> {
    /// With a payload; `None` = nil.
    Value(Option<&'a [u8]>),
    /// With an error that is thrown inside the handler.
    Failure(CallFailure<'a>),
}

/// The answer to an extension call. `suspension` is any text here: what is no id is answered as an unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "ResumeFields<'a>", into = "ResumeFields<'a>")]
pub struct Resume<'a> {
    pub suspension: &'a str,
    pub resolution: Resolution<'a>,
    pub regions: Regions,
}

impl<'a> Resume<'a> {
    /// With nothing in shared memory.
    pub const fn new(suspension: &'a str, resolution: Resolution<'a>) -> Self {
        Self { suspension, resolution, regions: Regions::NONE }
    }
}

impl<'a> TryFrom<ResumeFields<'a>> for Resume<'a> {
    type Error = ExactlyOneOf;

    fn try_from(fields: ResumeFields<'a>) -> Result<Self, ExactlyOneOf> {
        let resolution = match (fields.value, fields.error) {
            (Some(_), Some(_)) => return Err(ExactlyOneOf("`value` and `error`")),
            (value, None) => Resolution::Value(value),
            (None, Some(failure)) => Resolution::Failure(failure),
        };
        Ok(Self { suspension: fields.suspension, resolution, regions: fields.regions })
    }
}

impl<'a> From<Resume<'a>> for ResumeFields<'a> {
    fn from(resume: Resume<'a>) -> Self {
        let (value, error) = match resume.resolution {
            Resolution::Value(value) => (value, None),
            Resolution::Failure(failure) => (None, Some(failure)),
        };
        Self { suspension: resume.suspension, value, error, regions: resume.regions }
    }
}

/// A request to stop an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "CancelFields<'a>", into = "CancelFields<'a>")]
pub enum Cancel<'a> {
    /// By one of its suspensions.
    Suspension(&'a str),
    /// By the id of its execute or resume.
    Request(u32),
}

impl<'a> TryFrom<CancelFields<'a>> for Cancel<'a> {
    type Error = ExactlyOneOf;

    fn try_from(fields: CancelFields<'a>) -> Result<Self, ExactlyOneOf> {
        match (fields.suspension, fields.request) {
            (Some(suspension), None) => Ok(Self::Suspension(suspension)),
            (None, Some(request)) => Ok(Self::Request(request)),
            (None, None) | (Some(_), Some(_)) => Err(ExactlyOneOf("`suspension` and `request`")),
        }
    }
}

impl<'a> From<Cancel<'a>> for CancelFields<'a> {
    fn from(cancel: Cancel<'a>) -> Self {
        match cancel {
            Cancel::Suspension(suspension) => Self { suspension: Some(suspension), request: None },
            Cancel::Request(request) => Self { suspension: None, request: Some(request) },
        }
    }
}

fn check_label(key: &str, label: Option<&str>) -> Result<(), WireError> {
    match label {
        Some(label) if label.len() > MAX_LABEL_BYTES => {
            Err(invalid(format!("{key} has {} bytes, more than {MAX_LABEL_BYTES}", label.len())))
        }
        _ => Ok(()),
    }
}

pub(super) fn invalid(message: String) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, message)
}

impl<'a> Resident<'a> {
    /// Whatever version it has.
    pub const fn new(id: &'a str) -> Self {
        Self { id, expect_version: None, exclusive: false }
    }
}
