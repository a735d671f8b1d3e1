//! What one execution may do, and what it has done: capabilities, limits, state, effects, outstanding calls.
//!
//! Lives beside the instance while the execution runs or is suspended. Effects are taken out at the end of each segment;
//! counts go on over all segments.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nexus_protocol::limits::{MAX_COPIED_BYTES, MAX_HOST_CALL_BYTES, MAX_LOGGED_VIOLATIONS};
use nexus_protocol::{Capability, CapabilitySet, EffectList, Shared, WireError};

use super::abi::STATE_METHODS;
use super::denial::Told;
use super::guest_error;
use super::host::HOST_CALLS;
use super::live_logs::LiveLogs;
use super::refusals::{Refusal, Refusals};
use super::registry::Registry;
use super::state::{StateView, Value};

/// Limits of one execution. The configured ones, or narrower ones that the request gave.
#[derive(Clone, Debug)]
pub struct ExecutionLimits {
    pub timeout: Option<Duration>,
    pub memory_bytes: u32,
    pub host_calls: u64,
    pub state_mutations: u64,
    pub events: u64,
    pub result_bytes: u64,
    pub log_bytes: u64,
}

/// A limit that was reached: the execution ends with RESOURCE_LIMIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub resource: &'static str,
    pub limit: u64,
    pub count: u64,
}

/// An extension call that the handler has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCall {
    pub extension: String,
    pub method: String,
    /// MessagePack array.
    pub args: Shared,
    /// By which the guest knows it.
    pub number: u32,
}

/// Effects of one segment.
#[derive(Debug, Default)]
pub struct Effects {
    pub state_mutations: EffectList,
    pub events: EffectList,
    pub view_commands: EffectList,
    pub logs: EffectList,
}

impl Effects {
    /// The lists, by the names that they have on the wire.
    pub fn lists(&self) -> [(&'static str, &EffectList); 4] {
        let Self { state_mutations, events, view_commands, logs } = self;
        [("stateMutations", state_mutations), ("events", events), ("viewCommands", view_commands), ("logs", logs)]
    }
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    pub capabilities: CapabilitySet,
    /// Extensions and their methods, when the client has named them.
    pub extensions: Option<Registry>,
    pub state: StateView,
    pub args: Vec<u8>,
    pub scope: Vec<u8>,
    /// What the client calls the handler; empty: nothing.
    pub handler_name: Box<str>,
    /// What the request brought beside the state that is kept while the execution lasts: capabilities, extensions.
    pub request_bytes: u64,
    pub seed: u64,
    pub limits: ExecutionLimits,
    /// The first limit that was reached.
    pub breach: Option<Breach>,
    /// Tokens of capabilities that were missing in this segment, the first of them.
    pub violations: Vec<String>,
    /// How many there were.
    pub denials: u32,
    /// Calls made in this segment.
    pub new_calls: Vec<NewCall>,
    calls: u32,
    answered: u32,
    refusals: Refusals,
    /// What the guest may ask of the call that was refused last.
    told: Option<Told>,
    counts: [u64; HOST_CALLS.len()],
    reported: [u64; HOST_CALLS.len()],
    effects: Effects,
    total_mutations: u64,
    total_events: u64,
    effect_bytes: u64,
    copied_bytes: u64,
    log_bytes: u64,
    logs_dropped: bool,
    /// Where records go while the handler runs, for who wants to hear them then.
    pub live_logs: Option<Arc<LiveLogs>>,
    now_ms: Option<f64>,
}

impl Context {
    pub fn new(capabilities: CapabilitySet, state: StateView, limits: ExecutionLimits) -> Self {
        Self {
            capabilities,
            extensions: None,
            state,
            args: Vec::new(),
            scope: Vec::new(),
            handler_name: Box::default(),
            request_bytes: 0,
            seed: 0,
            limits,
            breach: None,
            violations: Vec::new(),
            denials: 0,
            new_calls: Vec::new(),
            calls: 0,
            answered: 0,
            refusals: Refusals::default(),
            told: None,
            counts: [0; HOST_CALLS.len()],
            reported: [0; HOST_CALLS.len()],
            effects: Effects::default(),
            total_mutations: 0,
            total_events: 0,
            effect_bytes: 0,
            copied_bytes: 0,
            log_bytes: 0,
            logs_dropped: false,
            live_logs: None,
            now_ms: None,
        }
    }

    /// What frames call the handler; empty: what the guest calls every one.
    pub fn frame_name(&self) -> &str {
        if guest_error::fits_in_frames(&self.handler_name) { &self.handler_name } else { "" }
    }

    /// Memory that this takes outside of the guest.
    pub fn held_bytes(&self) -> u64 {
        let extensions = self.extensions.as_ref().map_or(0, Registry::held_bytes);
        let given = (self.args.capacity() + self.scope.capacity()) as u64;
        let told = self.told.as_ref().map_or(0, Told::held_bytes);
        let kept = self.state.held_bytes() + self.refusals.held_bytes() + self.handler_name.len() as u64 + told;
        size_of::<Self>() as u64 + self.request_bytes + given + extensions + kept
    }

    /// A new segment: the clock moves on.
    pub fn begin_segment(&mut self) {
        self.now_ms = None;
        self.new_calls.clear();
    }

    /// Milliseconds since 1970, the same throughout a segment.
    pub fn now_ms(&mut self) -> f64 {
        *self.now_ms.get_or_insert_with(wall_clock_ms)
    }

    fn limit(&mut self, resource: &'static str, limit: u64, count: u64) -> Result<(), Breach> {
        Self::check(&mut self.breach, resource, limit, count)
    }

    /// `first`: the breach that the execution is told.
    fn check(first: &mut Option<Breach>, resource: &'static str, limit: u64, count: u64) -> Result<(), Breach> {
        if count <= limit {
            return Ok(());
        }
        let breach = Breach { resource, limit, count };
        first.get_or_insert_with(|| breach.clone());
        Err(breach)
    }

    pub fn count_call(&mut self, index: usize) -> Result<(), Breach> {
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        if self.told.is_some() {
            self.told = None;
        }
        let total = self.counts.iter().sum();
        self.limit("maxHostCalls", self.limits.host_calls, total)
    }

    /// Room for one value from the guest; asked before it is copied.
    pub fn take_in(&mut self, bytes: usize) -> Result<(), Breach> {
        self.limit("maxHostCallBytes", MAX_HOST_CALL_BYTES, bytes as u64)?;
        self.copy(bytes)
    }

    /// Bytes that a host call is about to copy, either way. An instance is free of the watchdog meanwhile, so all of them
    /// together are bounded too.
    pub fn copy(&mut self, bytes: usize) -> Result<(), Breach> {
        self.copied_bytes += bytes as u64;
        self.limit("maxCopiedBytes", MAX_COPIED_BYTES, self.copied_bytes)
    }

    /// The value of a key, to be copied out: looked up once.
    pub fn read_state(&mut self, key: &str) -> Result<Option<&[u8]>, Breach> {
        let Some(value) = self.state.get(key) else { return Ok(None) };
        self.copied_bytes += value.len() as u64;
        Self::check(&mut self.breach, "maxCopiedBytes", MAX_COPIED_BYTES, self.copied_bytes)?;
        Ok(Some(value))
    }

    /// Bits of the methods of `$state` that a key hides which may be read.
    pub fn hidden_methods(&mut self) -> u32 {
        let keys = self.state.keys_like_methods();
        let readable = |(bit, name): (usize, &&str)| u32::from(self.capabilities.can_read_state(name)) << bit;
        if keys == 0 { 0 } else { keys & STATE_METHODS.iter().enumerate().map(readable).sum::<u32>() }
    }

    /// Host calls so far: name and count, those that happened.
    pub fn host_calls(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        HOST_CALLS.into_iter().zip(self.counts).filter(|(_, n)| *n > 0)
    }

    /// Host calls since this was last asked: place in the table and count.
    pub fn new_host_calls(&mut self) -> Vec<(u8, u32)> {
        let mut new = Vec::new();
        for (i, (count, reported)) in self.counts.iter().zip(&mut self.reported).enumerate() {
            let n = count - std::mem::replace(reported, *count);
            if n > 0 {
                new.push((i as u8, u32::try_from(n).unwrap_or(u32::MAX)));
            }
        }
        new
    }

    /// Notes a missing capability; the answer to the guest.
    pub fn deny(&mut self, need: &Capability<'_>) -> Result<i32, i32> {
        let told = Told::denied(need);
        let token = told.token.clone().unwrap_or_default();
        self.told = Some(told);
        log::debug!("capability violation: {token}");
        self.denials = self.denials.saturating_add(1);
        if self.violations.len() < MAX_LOGGED_VIOLATIONS {
            self.violations.push(token.clone());
        }
        self.refusals.note(Refusal::Capability(token));
        Err(super::abi::result::DENIED)
    }

    /// Notes that there is no such extension; the answer to the guest.
    pub fn no_extension(&mut self, name: String) -> Result<i32, i32> {
        self.told = Some(Told::no_extension(&name));
        self.refusals.note(Refusal::Extension(name));
        Err(super::abi::result::NOT_FOUND)
    }

    /// Notes that an extension has no such method; the answer to the guest.
    pub fn no_method(&mut self, extension: String, method: String) -> Result<i32, i32> {
        self.told = Some(Told::no_method(&extension, &method));
        self.refusals.note(Refusal::Method { extension, method });
        Err(super::abi::result::NO_METHOD)
    }

    /// Notes a name that is none; the answer to the guest.
    pub fn refuse_name(&mut self, why: Told) -> i32 {
        self.told = Some(why);
        super::abi::result::INVALID
    }

    /// What there is to say of the last call, if it was refused.
    pub fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    /// What was refused so far.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// One of the calls gets its answer; `failure`: that it failed, as its client tells it.
    pub fn note_answer(&mut self, failure: Option<&[u8]>) {
        if let Some(refusal) = failure.and_then(Refusal::of_answer) {
            self.refusals.note(refusal);
        }
        self.answered = self.answered.saturating_add(1).min(self.calls);
    }

    /// Whether there is a call that has no answer: who waits for none would wait for ever.
    pub fn awaits_answers(&self) -> bool {
        self.answered < self.calls
    }

    /// All effects of an execution share the limit of a result, since they leave in one.
    fn count_effect(&mut self, bytes: usize) -> Result<(), Breach> {
        self.effect_bytes += bytes as u64;
        self.limit("maxResultBytes", self.limits.result_bytes, self.effect_bytes)
    }

    /// Bytes of all effects so far, those included that were delivered: later reads may still find them.
    pub fn effect_bytes(&self) -> u64 {
        self.effect_bytes
    }

    fn count_mutation(&mut self, bytes: usize) -> Result<(), Breach> {
        self.total_mutations += 1;
        self.limit("maxStateMutations", self.limits.state_mutations, self.total_mutations)?;
        self.count_effect(bytes)
    }

    /// A large value is there once: the effect and what later reads find share it.
    pub fn record_set(&mut self, key: &str, value: Vec<u8>) -> Result<(), Breach> {
        self.count_mutation(key.len() + value.len())?;
        let value = Value::new(value);
        self.effects.state_mutations.push_set(key, value.as_part());
        self.state.set(key, value);
        Ok(())
    }

    /// Whether the key was there.
    pub fn record_delete(&mut self, key: &str) -> Result<bool, Breach> {
        self.count_mutation(key.len())?;
        self.effects.state_mutations.push_delete(key);
        Ok(self.state.delete(key))
    }

    pub fn record_event(&mut self, name: &str, payload: Vec<u8>) -> Result<(), Breach> {
        self.total_events += 1;
        self.limit("maxEvents", self.limits.events, self.total_events)?;
        self.count_effect(name.len() + payload.len())?;
        let now = self.now_ms();
        self.effects.events.push_event(name, Value::new(payload).as_part(), now);
        Ok(())
    }

    pub fn record_view_command(&mut self, view: &str, command: &str, params: &Shared) -> Result<(), Breach> {
        self.total_events += 1;
        self.limit("maxEvents", self.limits.events, self.total_events)?;
        self.count_effect(view.len() + command.len() + params.len())?;
        self.effects.view_commands.push_view_command(view, command, params.as_part());
        Ok(())
    }

    pub fn log_bytes_left(&self) -> usize {
        usize::try_from(self.limits.log_bytes.saturating_sub(self.log_bytes)).unwrap_or(usize::MAX)
    }

    /// Logs never end an execution: what is over the limit is dropped, and one record says so.
    pub fn record_log(&mut self, level: u32, text: &str) {
        if self.logs_dropped {
            return;
        }
        let left = self.log_bytes_left();
        let cut = text.floor_char_boundary(left.min(text.len()));
        self.log_bytes += text.len() as u64;
        self.push_log(level, &text[..cut]);
        if cut < text.len() {
            self.logs_dropped = true;
            let limit = self.limits.log_bytes;
            self.push_log(2, &format!("the log ends here: maxLogBytes is {limit}"));
        }
    }

    fn push_log(&mut self, level: u32, text: &str) {
        let now = self.now_ms();
        let level = ["debug", "info", "warn", "error"].get(level as usize).copied().unwrap_or("info");
        match &self.live_logs {
            None => self.effects.logs.push_log(level, text, now),
            Some(live) => live.push(level, text, now),
        }
    }

    /// The number of the call, which the guest expects to count up from 0.
    pub fn record_call(&mut self, mut call: NewCall) -> Result<i32, i32> {
        self.count_effect(call.extension.len() + call.method.len() + call.args.len())?;
        call.number = self.calls;
        self.calls += 1;
        let number = i32::try_from(call.number).map_err(|_| super::abi::result::INTERNAL)?;
        self.new_calls.push(call);
        Ok(number)
    }

    /// Brings the segment's mutations into the resident state, if that is what the handler has. When that fails they have
    /// not happened, and nobody is to hear of them. See [`StateView::settle`].
    pub fn settle_state(&mut self) -> Result<Option<u64>, WireError> {
        self.state.settle()
    }

    pub fn take_effects(&mut self) -> Effects {
        if let Some(live) = &self.live_logs {
            self.effects.logs = live.close();
        }
        std::mem::take(&mut self.effects)
    }
}

/// Milliseconds since 1970, by the wall clock.
fn wall_clock_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_millis() as f64)
}

#[cfg(test)]
mod tests {
    use nexus_protocol::pieces::SHARED_FROM_BYTES;

    use super::*;

    fn context() -> Context {
        let limits = ExecutionLimits {
            timeout: None,
            memory_bytes: 0,
            host_calls: 0,
            state_mutations: 10,
            events: 10,
            result_bytes: 1 << 20,
            log_bytes: 0,
        };
        Context::new(CapabilitySet::default(), StateView::new(vec![0x80]), limits)
    }

    /// A string that takes as many bytes.
    fn value(len: usize) -> Vec<u8> {
        let mut bytes = vec![b'x'; len];
        bytes[0] = 0xda;
        bytes[1..3].copy_from_slice(&(len as u16 - 3).to_be_bytes());
        bytes
    }

    #[test]
    fn a_large_value_is_there_once() {
        let mut context = context();
        for (key, len) in [("small", SHARED_FROM_BYTES - 1), ("large", SHARED_FROM_BYTES)] {
            let value = value(len);
            let at = value.as_ptr();
            context.record_set(key, value).unwrap();
            assert_eq!(context.state.get(key).unwrap().as_ptr(), at, "{key}: not copied for later reads");
        }
        let effects = context.take_effects();
        let shared = context.state.get("large").unwrap().as_ptr();
        let pieces: Vec<_> = effects.state_mutations.pieces().unwrap().iter().map(<[u8]>::as_ptr).collect();
        assert!(pieces.contains(&shared), "not copied into the effect");
        let params = Shared::new(value(SHARED_FROM_BYTES));
        context.record_view_command("v", "c", &params).unwrap();
        context.record_event("e", value(SHARED_FROM_BYTES)).unwrap();
        let effects = context.take_effects();
        for list in [&effects.view_commands, &effects.events] {
            assert_eq!(list.payload(), None);
            nexus_protocol::payload::validate(&list.pieces().unwrap().to_vec()).unwrap();
        }
    }
}
