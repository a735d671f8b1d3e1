//! From an execute request to what the engine needs: every value of the request is checked here, and none is trusted after.

use std::sync::Arc;
use std::time::Duration;

use nexus_protocol::message::{CallLimits, Execute};
use nexus_protocol::payload::{self, PayloadError};
use nexus_protocol::{CapabilitySet, ErrorCode, WireError};

use crate::config::Config;
use crate::engine::StateView;
use crate::engine::context::{Context, ExecutionLimits};
use crate::engine::registry::Registry;
use crate::halt::{Halt, PayloadPace};
use crate::os;
use crate::resident::ResidentState;
use crate::token::StopToken;

/// A request whose values are good.
#[derive(Debug)]
pub struct Input {
    pub context: Box<Context>,
    pub timeout: Option<Duration>,
    pub strict: bool,
}

fn invalid(what: &str, why: impl std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::InvalidArgument, format!("{what}: {why}"))
}

/// The error for bytes that are no payload.
pub fn not_a_payload(what: &str, error: PayloadError) -> WireError {
    WireError::new(error.code(), format!("{what}: {error}"))
}

/// Where the state of an execution is.
#[derive(Debug)]
pub enum StateSource {
    /// In the request; or nowhere, if that names a resident state.
    Request,
    /// Copied out of shared memory.
    Read(Vec<u8>),
    /// The resident state that the request names.
    Resident(Arc<ResidentState>),
}

/// Checks a request against the configuration, as long as the token allows.
pub fn prepare(request: &Execute<'_>, config: &Config, state: StateSource, token: &StopToken) -> Result<Input, Halt> {
    request.check()?;
    let capabilities = CapabilitySet::parse(&request.capabilities).map_err(|e| invalid("capabilities", e))?;
    let state = match (request.resident, state) {
        (None, StateSource::Read(state)) => StateView::given(state, token)?,
        (None, _) => StateView::given(request.state.unwrap_or(payload::EMPTY_MAP).to_vec(), token)?,
        (Some(wanted), StateSource::Resident(state)) => {
            StateView::resident(state, wanted.expect_version, wanted.exclusive)?
        }
        (Some(_), _) => return Err(WireError::unknown_state().into()),
    };
    for (what, bytes) in [("args", request.args), ("scope", request.scope)] {
        let Some(bytes) = bytes else { continue };
        let mut pace = PayloadPace::new(token);
        payload::validate_shape_paced(bytes, &mut pace).map_err(|e| pace.halt(e, |e| not_a_payload(what, e)))?;
    }
    let timeout = narrow_timeout(config.timeout_ms, request.timeout_ms);
    let limits = limits(config, &request.limits, timeout);
    // what does not fit anyway is not brought into an instance
    let given = request.args.map_or(0, <[u8]>::len) + request.scope.map_or(0, <[u8]>::len);
    if given as u64 > u64::from(limits.memory_bytes) {
        return Err(super::segment::memory_error(limits.memory_bytes.into(), given as u64).into());
    }
    let mut context = Context::new(capabilities, state, limits);
    context.args = request.args.unwrap_or_default().to_vec();
    context.scope = request.scope.unwrap_or_default().to_vec();
    context.handler_name = request.handler_name.map(Into::into).unwrap_or_default();
    context.seed = match request.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    context.extensions =
        request.extensions.as_ref().map(|named| Registry::new(named.iter().map(|(name, its)| (*name, &**its))));
    context.request_bytes = request_bytes(request);
    Ok(Input { context: Box::new(context), timeout, strict: config.strict_capabilities || request.strict_capabilities })
}

/// Of the capabilities, which stay outside of the guest for as long as the execution lasts.
fn request_bytes(request: &Execute<'_>) -> u64 {
    // a name is kept as a string of its own
    const NAME_BYTES: usize = 48;
    request.capabilities.iter().map(|name| name.len() + NAME_BYTES).sum::<usize>() as u64
}

/// The smaller of the two; 0 means: none (configured), the configured one (asked for).
pub fn narrow_timeout(configured_ms: u64, asked_ms: Option<u64>) -> Option<Duration> {
    let ms = match (configured_ms, asked_ms.unwrap_or(0)) {
        (configured, 0) => configured,
        (0, asked) => asked,
        (configured, asked) => configured.min(asked),
    };
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn limits(config: &Config, asked: &CallLimits<'_>, timeout: Option<Duration>) -> ExecutionLimits {
    let narrow = |configured: u64, asked: Option<u64>| asked.map_or(configured, |a| a.min(configured));
    let memory = narrow(config.memory_limit_bytes, asked.memory_limit_bytes);
    ExecutionLimits {
        timeout,
        memory_bytes: u32::try_from(memory).unwrap_or(u32::MAX),
        host_calls: narrow(config.max_host_calls, asked.max_host_calls),
        state_mutations: narrow(config.max_state_mutations, asked.max_state_mutations),
        events: narrow(config.max_events, asked.max_events),
        result_bytes: narrow(config.max_result_bytes, asked.max_result_bytes),
        log_bytes: narrow(config.max_log_bytes, asked.max_log_bytes),
    }
}

fn random_seed() -> Result<u64, WireError> {
    let mut seed = [0; 8];
    os::fill_random(&mut seed)
        .map_err(|e| WireError::new(ErrorCode::InternalError, format!("no random bytes: {e}")))?;
    Ok(u64::from_le_bytes(seed))
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::Code;

    use super::*;
    use crate::token::StopCause;

    fn request<'a>() -> Execute<'a> {
        Execute::new(Code::Source("return 1"))
    }

    #[test]
    fn limits_of_a_call_only_narrow() {
        let config = Config::default();
        let mut wide = request();
        wide.timeout_ms = Some(config.timeout_ms * 2);
        wide.limits.max_events = Some(config.max_events + 1);
        let input = prepare(&wide, &config, StateSource::Request, &StopToken::new()).unwrap();
        assert_eq!(input.timeout, Some(Duration::from_millis(config.timeout_ms)));
        assert_eq!(input.context.limits.events, config.max_events);
        let mut narrow = request();
        narrow.timeout_ms = Some(7);
        narrow.limits.max_events = Some(0);
        let input = prepare(&narrow, &config, StateSource::Request, &StopToken::new()).unwrap();
        assert_eq!(input.timeout, Some(Duration::from_millis(7)));
        assert_eq!(input.context.limits.events, 0);
    }

    fn refused(request: &Execute<'_>) -> WireError {
        let prepared = prepare(request, &Config::default(), StateSource::Request, &StopToken::new());
        prepared.unwrap_err().into_error(|cause| panic!("nobody has stopped it: {cause:?}"))
    }

    #[test]
    fn large_payloads_are_looked_at_for_as_long_as_there_is_time() {
        let large = [&[0xdd, 0, 0x10, 0, 0][..], &vec![1; 1 << 20]].concat();
        let state = [&[0x81, 0xa1, b'k'][..], &large].concat();
        let token = StopToken::new();
        token.stop(StopCause::Cancelled);
        let mut requests = [request(), request(), request()];
        requests[0].state = Some(&state);
        requests[1].args = Some(&large);
        requests[2].scope = Some(&large);
        for request in &requests {
            let prepare = |token| prepare(request, &Config::default(), StateSource::Request, token).map(|_| ());
            assert_eq!(prepare(&token), Err(Halt::Stopped(StopCause::Cancelled)));
            assert_eq!(prepare(&StopToken::new()), Ok(()));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut bad = request();
        bad.capabilities = vec!["state:read:a", "fs:write:*"];
        assert!(refused(&bad).message.contains("fs:write:*"));
        let mut bad = request();
        bad.state = Some(b"\x01");
        assert!(refused(&bad).message.starts_with("state: "));
        let mut bad = request();
        bad.args = Some(b"\x92\x01");
        assert!(refused(&bad).message.starts_with("args: "));
    }
}
