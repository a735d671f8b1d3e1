//! What comes back from an execution, owned.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexus_protocol::effects::{Effect, effects};
use nexus_protocol::message::{ExecutionMetrics, PendingCall, SegmentResult};
use nexus_protocol::payload;
use nexus_protocol::payload::PayloadError as Malformed;
use serde::de::DeserializeOwned;

use crate::calls::Suspensions;
use crate::compiled::Note;
use crate::error::Error;
use crate::payload::{Payload, PayloadError};
use crate::told::{SidecarError, Status};

/// What happened from the start of an execution, or a resume, to its next suspension or its end. Effects are deltas.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Segment {
    /// How it ended.
    pub status: Status,
    /// Its number within the execution, from 0.
    pub seq: u32,
    /// On a resident state: its version with this segment's mutations in it.
    pub state_version: Option<u64>,
    /// What the handler returned; nil unless `status` is `Success`.
    pub value: Payload,
    /// Every call that is outstanding after it, in the order in which the handler made them.
    pub suspensions: Suspensions,
    /// Why it failed, when `status` is `Error`.
    pub error: Option<SidecarError>,
    /// What the handler's author should know of its text: in the first segment, and mostly nothing.
    pub warnings: Vec<Note>,
    /// Figures of the whole execution so far.
    pub metrics: Metrics,
    /// Limits that count although the call has asked for wider ones (`timeoutMs` too), by their names: in the first segment. Empty: it
    /// has what it asked for.
    pub limited: BTreeMap<&'static str, u64>,
    /// Shared by clones.
    effects: Arc<EffectPayloads>,
}

#[derive(Clone, Debug, Default)]
struct EffectPayloads {
    state_mutations: Vec<u8>,
    events: Vec<u8>,
    view_commands: Vec<u8>,
    /// Lists, in order: those that came while the handler ran, and the segment's own.
    logs: Vec<Vec<u8>>,
}

/// An extension call that waits for its answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Suspension {
    /// To resume or cancel it with. Whoever knows it can; so it does not belong into logs.
    pub id: String,
    /// Extension.
    pub extension: String,
    /// Method.
    pub method: String,
    /// An array: the arguments.
    pub args: Payload,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StateMutation {
    /// The key now has that value.
    Set {
        /// Key.
        key: String,
        /// Value.
        value: Payload,
    },
    /// The key is no more.
    Delete {
        /// Key.
        key: String,
    },
}

/// An event that the handler emitted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// Name.
    pub name: String,
    /// Payload.
    pub payload: Payload,
    /// Milliseconds since 1970.
    pub timestamp_ms: f64,
}

/// A command to a view.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ViewCommand {
    /// View.
    pub view_id: String,
    /// `setFilter`, `scrollTo`, `focus`, or the handler's own.
    pub command: String,
    /// Parameters.
    pub params: Payload,
}

/// A log record of the handler.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// `debug`, `info`, `warn`, `error`.
    pub level: String,
    /// Text, as the handler wrote it: escape it before it goes to a terminal.
    pub message: String,
    /// Milliseconds since 1970.
    pub timestamp_ms: f64,
}

/// Figures of an execution, all segments so far.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Time from the request to the answer, suspended time not counted.
    pub duration_us: u64,
    /// Time on a CPU.
    pub cpu_us: u64,
    /// Time in the queue.
    pub queue_us: u64,
    /// Memory in use at the end.
    pub memory_used_bytes: u64,
    /// Most memory in use.
    pub memory_peak_bytes: u64,
    /// Interpreter ticks, about.
    pub instruction_count: u64,
    /// Host calls by function.
    pub host_calls: BTreeMap<String, u64>,
    /// Whether the compiled form was there already.
    pub cache_hit: bool,
    /// Time to compile, if it was not.
    pub compilation_time_us: Option<u64>,
}

impl Segment {
    /// What the handler returned, as a type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        self.value.decode()
    }

    /// The first outstanding call, for a loop that answers one at a time.
    pub fn suspension(&self) -> Option<&Suspension> {
        self.suspensions.first()
    }

    /// Puts in what came apart from the message.
    pub(crate) fn put_shared(&mut self, value: Option<Vec<u8>>, state_mutations: Option<Vec<u8>>) {
        if let Some(value) = value {
            self.value = Payload::from_bytes(value);
        }
        if let Some(mutations) = state_mutations {
            Arc::make_mut(&mut self.effects).state_mutations = mutations;
        }
    }

    /// Bytes of the largest payload that may come apart from the message.
    pub(crate) fn largest_payload(&self) -> usize {
        self.value.as_bytes().len().max(self.effects.state_mutations.len())
    }

    /// The segment, or the error that it ended in.
    pub fn into_result(self) -> Result<Self, Error> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }

    /// Changes of state, in order.
    pub fn state_mutations(&self) -> Result<Vec<StateMutation>, PayloadError> {
        each(&self.effects.state_mutations, |effect| {
            let key = text(effect, "key")?;
            match effect.text("op") {
                Some("set") => Ok(StateMutation::Set { key, value: value(effect, "value")? }),
                Some("delete") => Ok(StateMutation::Delete { key }),
                _ => Err(Malformed::NotAMap),
            }
        })
    }

    /// Events, in order.
    pub fn events(&self) -> Result<Vec<Event>, PayloadError> {
        each(&self.effects.events, |effect| {
            let (name, payload) = (text(effect, "name")?, value(effect, "payload")?);
            Ok(Event { name, payload, timestamp_ms: timestamp(effect) })
        })
    }

    /// View commands, in order.
    pub fn view_commands(&self) -> Result<Vec<ViewCommand>, PayloadError> {
        each(&self.effects.view_commands, |effect| {
            let (view_id, command) = (text(effect, "viewId")?, text(effect, "command")?);
            Ok(ViewCommand { view_id, command, params: value(effect, "params")? })
        })
    }

    /// Log records, in order.
    pub fn logs(&self) -> Result<Vec<Log>, PayloadError> {
        let mut all = Vec::new();
        for list in &self.effects.logs {
            all.extend(logs_of(list)?);
        }
        Ok(all)
    }

    /// Those that came with it.
    pub(crate) fn last_logs(&self) -> &[u8] {
        self.effects.logs.last().map_or(&[], Vec::as_slice)
    }

    /// Puts in front what came while the handler ran.
    pub(crate) fn put_logs_before(&mut self, mut lists: Vec<Vec<u8>>) {
        if lists.is_empty() {
            return;
        }
        let effects = Arc::make_mut(&mut self.effects);
        lists.append(&mut effects.logs);
        effects.logs = lists;
    }
}

impl Segment {
    pub(crate) fn of(result: SegmentResult<'_>) -> Self {
        let owned = |payload: Option<&[u8]>| payload.unwrap_or_default().to_vec();
        Self {
            status: Status::of(result.status),
            seq: result.seq,
            state_version: result.state_version,
            value: Payload::from_bytes(result.value.unwrap_or(payload::NIL).to_vec()),
            suspensions: result.suspensions.iter().map(Suspension::of).collect::<Vec<_>>().into(),
            error: result.error.map(SidecarError::of),
            warnings: result.warnings.iter().map(Note::of).collect(),
            metrics: Metrics::of(&result.metrics),
            limited: BTreeMap::new(),
            effects: Arc::new(EffectPayloads {
                state_mutations: owned(result.state_mutations),
                events: owned(result.events),
                view_commands: owned(result.view_commands),
                logs: result.logs.map(<[u8]>::to_vec).into_iter().collect(),
            }),
        }
    }
}

impl Suspension {
    fn of(call: &PendingCall<'_>) -> Self {
        Self {
            id: call.id.to_owned(),
            extension: call.extension.to_owned(),
            method: call.method.to_owned(),
            args: Payload::from_bytes(call.args.to_vec()),
        }
    }
}

impl Metrics {
    fn of(metrics: &ExecutionMetrics<'_>) -> Self {
        Self {
            duration_us: metrics.duration_us,
            cpu_us: metrics.cpu_us,
            queue_us: metrics.queue_us,
            memory_used_bytes: metrics.memory_used_bytes,
            memory_peak_bytes: metrics.memory_peak_bytes,
            instruction_count: metrics.instruction_count,
            host_calls: metrics.host_calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            cache_hit: metrics.cache_hit,
            compilation_time_us: metrics.compilation_time_us,
        }
    }
}

/// Reads a list of records.
pub(crate) fn logs_of(list: &[u8]) -> Result<Vec<Log>, PayloadError> {
    each(list, |effect| {
        let (level, message) = (text(effect, "level")?, text(effect, "message")?);
        Ok(Log { level, message, timestamp_ms: timestamp(effect) })
    })
}

/// Reads a list; no bytes = no effects.
fn each<T>(list: &[u8], read: impl Fn(Effect<'_>) -> Result<T, Malformed>) -> Result<Vec<T>, PayloadError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let read_all = || effects(list)?.map(|effect| read(effect?)).collect::<Result<_, Malformed>>();
    read_all().map_err(PayloadError::malformed)
}

fn text(effect: Effect<'_>, key: &str) -> Result<String, Malformed> {
    effect.text(key).map(str::to_owned).ok_or(Malformed::NotAMap)
}

fn value(effect: Effect<'_>, key: &str) -> Result<Payload, Malformed> {
    effect.field(key).map(|bytes| Payload::from_bytes(bytes.to_vec())).ok_or(Malformed::NotAMap)
}

fn timestamp(effect: Effect<'_>) -> f64 {
    effect.field("timestamp").and_then(|bytes| rmp_serde::from_slice(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexus_protocol::EffectList;
    use nexus_protocol::message::Status;

    #[test]
    fn effects_are_read_in_order() {
        let mut mutations = EffectList::new();
        mutations.push_set("n", &[2]);
        mutations.push_delete("m");
        let mut logs = EffectList::new();
        logs.push_log("warn", "careful", 12.0);
        let mut result = SegmentResult::new(Status::Success, 0);
        result.state_mutations = mutations.payload();
        result.logs = logs.payload();
        let segment = Segment::of(result);
        assert_eq!(
            segment.state_mutations().unwrap(),
            [
                StateMutation::Set { key: "n".into(), value: Payload::from_bytes(vec![2]) },
                StateMutation::Delete { key: "m".into() }
            ]
        );
        assert_eq!(
            segment.logs().unwrap(),
            [Log { level: "warn".into(), message: "careful".into(), timestamp_ms: 12.0 }]
        );
        assert!(segment.events().unwrap().is_empty());
        assert_eq!(segment.value::<Option<u8>>().unwrap(), None);
    }
}
