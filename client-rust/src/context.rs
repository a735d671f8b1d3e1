//! What a handler is given: values, grants, bounds.

use std::sync::Arc;
use std::time::Duration;

use nexus_protocol::message::{CallLimits, Code, Execute, Resident};
use serde::Serialize;

use crate::error::Error;
use crate::link::Link;
use crate::payload::Payload;
use crate::resident::{ResidentState, ResidentUse};
use crate::told::SuspendMode;

/// What a handler is given. Cheap to clone: the values are shared.
///
/// ```
/// # use nexus_client::Context;
/// # use std::time::Duration;
/// let context = Context::new()
///     .state(&serde_json::json!({ "count": 1 }))
///     .grants(["state:read:count", "state:write:count"])
///     .timeout(Duration::from_millis(250));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    panel_id: Option<String>,
    handler_name: Option<String>,
    state: Option<Payload>,
    resident: Option<ResidentUse>,
    args: Option<Payload>,
    scope: Option<Payload>,
    /// None: none was named.
    capabilities: Option<Vec<String>>,
    extensions: Option<Vec<(String, Vec<String>)>>,
    timeout: Option<Duration>,
    limits: Limits,
    strict_capabilities: bool,
    suspend_mode: Option<SuspendMode>,
    seed: Option<u64>,
    /// The first value that could not be encoded: told when the context is used, so that building stays a chain.
    fault: Option<Error>,
}

/// Limits of one execution; each can only be narrower than the sidecar's own: [`Outcome::limited`](crate::Outcome::limited) says which were
/// not, and what counts instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory.
    pub memory_limit_bytes: Option<u64>,
    /// Host calls.
    pub max_host_calls: Option<u64>,
    /// State mutations.
    pub max_state_mutations: Option<u64>,
    /// Events.
    pub max_events: Option<u64>,
    /// Value and effects of a segment.
    pub max_result_bytes: Option<u64>,
    /// Log records.
    pub max_log_bytes: Option<u64>,
}

impl Limits {
    /// As configured.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory.
    #[must_use]
    pub fn memory_limit_bytes(mut self, limit: u64) -> Self {
        self.memory_limit_bytes = Some(limit);
        self
    }

    /// Host calls.
    #[must_use]
    pub fn max_host_calls(mut self, limit: u64) -> Self {
        self.max_host_calls = Some(limit);
        self
    }

    /// State mutations.
    #[must_use]
    pub fn max_state_mutations(mut self, limit: u64) -> Self {
        self.max_state_mutations = Some(limit);
        self
    }

    /// Events.
    #[must_use]
    pub fn max_events(mut self, limit: u64) -> Self {
        self.max_events = Some(limit);
        self
    }

    /// Value and effects of a segment.
    #[must_use]
    pub fn max_result_bytes(mut self, limit: u64) -> Self {
        self.max_result_bytes = Some(limit);
        self
    }

    /// Log records.
    #[must_use]
    pub fn max_log_bytes(mut self, limit: u64) -> Self {
        self.max_log_bytes = Some(limit);
        self
    }
}

impl Context {
    /// Nothing: no state, no arguments, no grants.
    pub fn new() -> Self {
        Self::default()
    }

    /// For logs and metrics.
    #[must_use]
    pub fn panel_id(mut self, id: impl Into<String>) -> Self {
        self.panel_id = Some(id.into());
        self
    }

    /// For logs and metrics.
    #[must_use]
    pub fn handler_name(mut self, name: impl Into<String>) -> Self {
        self.handler_name = Some(name.into());
        self
    }

    /// `$state`: a map or struct. What the grants do not cover never reaches the handler.
    #[must_use]
    pub fn state<T: Serialize + ?Sized>(mut self, state: &T) -> Self {
        self.state = self.encoded(state);
        self.resident = None;
        self
    }

    /// `$state`, as MessagePack.
    #[must_use]
    pub fn state_payload(mut self, state: Payload) -> Self {
        self.state = Some(state);
        self.resident = None;
        self
    }

    /// `$state`: a state that stays with the sidecar. Mutations are applied to it.
    #[must_use]
    pub fn resident(self, state: &ResidentState) -> Self {
        self.on_resident(state, None, false)
    }

    /// [`resident`](Self::resident), but the execution ends with an error if anybody else changes the state meanwhile.
    #[must_use]
    pub fn resident_exclusive(self, state: &ResidentState) -> Self {
        self.on_resident(state, None, true)
    }

    /// [`resident_exclusive`](Self::resident_exclusive), and only if the state has this version when it begins.
    #[must_use]
    pub fn resident_at(self, state: &ResidentState, version: u64) -> Self {
        self.on_resident(state, Some(version), true)
    }

    fn on_resident(mut self, state: &ResidentState, expect_version: Option<u64>, exclusive: bool) -> Self {
        self.state = None;
        self.resident = Some(ResidentUse::new(state, expect_version, exclusive));
        self
    }

    /// `$args`.
    #[must_use]
    pub fn args<T: Serialize + ?Sized>(mut self, args: &T) -> Self {
        self.args = self.encoded(args);
        self
    }

    /// `$args`, as MessagePack.
    #[must_use]
    pub fn args_payload(mut self, args: Payload) -> Self {
        self.args = Some(args);
        self
    }

    /// `$scope`.
    #[must_use]
    pub fn scope<T: Serialize + ?Sized>(mut self, scope: &T) -> Self {
        self.scope = self.encoded(scope);
        self
    }

    /// `$scope`, as MessagePack.
    #[must_use]
    pub fn scope_payload(mut self, scope: Payload) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Adds a capability token, `state:read:count` for example.
    #[must_use]
    pub fn grant(mut self, token: impl Into<String>) -> Self {
        self.capabilities.get_or_insert_default().push(token.into());
        self
    }

    /// Adds capability tokens. With none of them nothing is granted, whatever [`run`](crate::Client::run) is handed.
    #[must_use]
    pub fn grants<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.capabilities.get_or_insert_default().extend(tokens.into_iter().map(Into::into));
        self
    }

    /// The extensions that there are, and their methods: calls of others are refused. `run` fills this in.
    #[must_use]
    pub fn extension_registry(mut self, extensions: Vec<(String, Vec<String>)>) -> Self {
        self.extensions = Some(extensions);
        self
    }

    /// Of a run: where no capability was named, the extensions that it is handed are granted.
    #[must_use]
    pub(crate) fn with_extensions(mut self, registry: Vec<(String, Vec<String>)>) -> Self {
        self.capabilities.get_or_insert_with(|| registry.iter().map(|(name, _)| format!("ext:{name}")).collect());
        self.extension_registry(registry)
    }

    /// Running and queueing time of the whole execution; counted in whole milliseconds, at least one.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Narrower limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Refuses the handler before it runs when the grants cannot suffice.
    #[must_use]
    pub fn strict_capabilities(mut self, strict: bool) -> Self {
        self.strict_capabilities = strict;
        self
    }

    /// How extension calls suspend. Without this, the handler's text decides.
    #[must_use]
    pub fn suspend_mode(mut self, mode: SuspendMode) -> Self {
        self.suspend_mode = Some(mode);
        self
    }

    /// Seed of `Math.random`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// What it says of a resident state, for a request on `link`.
    pub(crate) fn resident_on(&self, link: &Arc<Link>) -> Result<Option<Resident<'_>>, Error> {
        self.resident.as_ref().map(|used| used.on(link)).transpose()
    }

    /// The request for `code` in this context, without the resident state.
    pub(crate) fn request<'a>(&'a self, code: Code<'a>) -> Result<Execute<'a>, Error> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut execute = Execute::new(code);
        execute.panel_id = self.panel_id.as_deref();
        execute.handler_name = self.handler_name.as_deref();
        execute.state = self.state.as_ref().map(Payload::as_bytes);
        execute.args = self.args.as_ref().map(Payload::as_bytes);
        execute.scope = self.scope.as_ref().map(Payload::as_bytes);
        execute.capabilities = self.capabilities.iter().flatten().map(String::as_str).collect();
        execute.extensions = self.extensions.as_ref().map(|extensions| {
            let methods = |methods: &'a [String]| methods.iter().map(String::as_str).collect();
            extensions.iter().map(|(name, of)| (name.as_str(), methods(of))).collect()
        });
        execute.timeout_ms = self.asked_timeout_ms();
        execute.limits = CallLimits {
            memory_limit_bytes: self.limits.memory_limit_bytes,
            max_host_calls: self.limits.max_host_calls,
            max_state_mutations: self.limits.max_state_mutations,
            max_events: self.limits.max_events,
            max_result_bytes: self.limits.max_result_bytes,
            max_log_bytes: self.limits.max_log_bytes,
            unknown: None,
        };
        execute.strict_capabilities = self.strict_capabilities;
        execute.suspend_mode = self.suspend_mode.map(SuspendMode::wire);
        execute.seed = self.seed;
        Ok(execute)
    }

    /// 0 would mean "as configured"; a timeout that rounds to nothing is meant to be short.
    pub(crate) fn asked_timeout_ms(&self) -> Option<u64> {
        self.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    pub(crate) fn asked_limits(&self) -> Limits {
        self.limits
    }

    /// Of its values, as they are sent.
    pub(crate) fn payload_bytes(&self) -> usize {
        let payloads = [&self.state, &self.args, &self.scope];
        payloads.into_iter().flatten().map(|payload| payload.as_bytes().len()).sum()
    }

    /// Capabilities.
    pub(crate) fn names_listed(&self) -> usize {
        self.capabilities.as_ref().map_or(0, Vec::len)
    }

    /// Of the handler and of the panel.
    pub(crate) fn names(&self) -> (Option<String>, Option<String>) {
        (self.handler_name.clone(), self.panel_id.clone())
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.handler_name.as_deref()
    }

    fn encoded<T: Serialize + ?Sized>(&mut self, value: &T) -> Option<Payload> {
        match Payload::encode(value) {
            Ok(payload) => Some(payload),
            Err(error) => {
                self.fault.get_or_insert(error.into());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_value_that_cannot_be_encoded_is_told_when_the_context_is_used() {
        struct Never;
        impl Serialize for Never {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let context = Context::new().args(&Never).args(&1);
        let error = context.request(Code::Source("")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SerializationError);
    }

    #[test]
    fn the_shortest_timeout_is_a_millisecond_and_not_none() {
        let context = Context::new().timeout(Duration::from_nanos(1));
        assert_eq!(context.request(Code::Source("")).unwrap().timeout_ms, Some(1));
        assert_eq!(Context::new().request(Code::Source("")).unwrap().timeout_ms, None);
    }
}
