//! Causes, errors of AggregateErrors and own fields of an error, as the guest describes them, turned into those of the
//! protocol.
//!
//! Invariant: whatever the guest claims, depth, number and bytes stay within the limits of the protocol, and every payload
//! is one. What is too much or malformed is left out; the error itself is never lost over it.

use nexus_protocol::limits::{
    MAX_AGGREGATE_ERRORS, MAX_CAUSE_DEPTH, MAX_ERROR_PAYLOAD_BYTES, MAX_INNER_ERROR_BYTES, MAX_INNER_ERRORS,
};
use nexus_protocol::{InnerError, WireError, payload};
use serde::Deserialize;

/// What every described error may have inside of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Inside {
    #[serde(with = "serde_bytes")]
    properties: Option<Vec<u8>>,
    cause: Option<Box<Described>>,
    errors: Vec<Described>,
}

/// An error inside of another.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Described {
    message: String,
    name: Option<String>,
    code: Option<String>,
    #[serde(with = "serde_bytes")]
    value: Option<Vec<u8>>,
    #[serde(with = "serde_bytes")]
    properties: Option<Vec<u8>>,
    cause: Option<Box<Described>>,
    errors: Vec<Described>,
}

impl Inside {
    /// How many errors there are, and the message of the first: what `Promise.any` rejects with has no message of its own.
    pub fn first_of_several(&self) -> Option<(usize, &str)> {
        self.errors.first().map(|first| (self.errors.len(), first.message.as_str()))
    }

    /// Adds what there is to the error.
    pub fn add_to(self, mut error: WireError) -> WireError {
        let mut budget = Budget { errors: MAX_INNER_ERRORS, bytes: MAX_INNER_ERROR_BYTES };
        if let Some(properties) = budget.map(self.properties) {
            error = error.with_properties(properties);
        }
        if let Some(cause) = self.cause.and_then(|cause| budget.error(*cause, 1)) {
            error = error.with_cause(cause);
        }
        error.with_errors(budget.errors(self.errors, 1))
    }
}

/// What one error may still carry.
struct Budget {
    errors: usize,
    bytes: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.bytes;
        if fits {
            self.bytes -= bytes;
        }
        fits
    }

    fn map(&mut self, claimed: Option<Vec<u8>>) -> Option<Vec<u8>> {
        claimed.filter(|bytes| payload::map_entries(bytes).is_ok()).and_then(|bytes| self.payload(bytes))
    }

    fn payload(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let is_one = bytes.len() <= MAX_ERROR_PAYLOAD_BYTES && payload::validate(&bytes).is_ok();
        (is_one && self.take(bytes.len())).then_some(bytes)
    }

    /// `depth`: 1 for what stands right inside of the outermost error.
    fn error(&mut self, described: Described, depth: usize) -> Option<InnerError> {
        if depth > MAX_CAUSE_DEPTH || self.errors == 0 {
            return None;
        }
        self.errors -= 1;
        let mut error = InnerError::new(described.message);
        if let Some(name) = described.name {
            error = error.with_name(name);
        }
        if let Some(code) = described.code {
            error = error.with_code(code);
        }
        let texts = [Some(error.message.as_str()), error.name.as_deref(), error.code.as_deref()];
        if !self.take(texts.into_iter().flatten().map(str::len).sum()) {
            return None;
        }
        if let Some(value) = described.value.and_then(|value| self.payload(value)) {
            error = error.with_value(value);
        }
        if let Some(properties) = self.map(described.properties) {
            error = error.with_properties(properties);
        }
        if let Some(cause) = described.cause.and_then(|cause| self.error(*cause, depth + 1)) {
            error = error.with_cause(cause);
        }
        error.errors = self.errors(described.errors, depth + 1);
        Some(error)
    }

    fn errors(&mut self, described: Vec<Described>, depth: usize) -> Vec<InnerError> {
        described.into_iter().take(MAX_AGGREGATE_ERRORS).map_while(|item| self.error(item, depth)).collect()
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ErrorCode;
    use rmpv::Value;

    use super::*;

    fn decode(value: &Value) -> WireError {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        super::super::guest_error::GuestError::decode(&bytes).to_wire(
            ErrorCode::ExecutionError,
            "",
            &Default::default(),
        )
    }

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    #[test]
    fn deeper_causes_than_the_limit_are_left_out() {
        let mut value = map(&[("message", "innermost".into())]);
        for _ in 0..9 {
            value = map(&[("message", "m".into()), ("cause", value)]);
        }
        let error = decode(&value);
        let (mut depth, mut inner) = (0, error.cause.as_deref());
        while let Some(cause) = inner {
            depth += 1;
            inner = cause.cause.as_deref();
        }
        assert_eq!((depth, &*error.message), (MAX_CAUSE_DEPTH, "m"));
    }

    #[test]
    fn a_bush_of_errors_is_cut_and_fits_a_frame() {
        let leaf = map(&[("message", "x".repeat(5000).into()), ("name", "n".repeat(5000).into())]);
        let mut value = leaf;
        for _ in 0..3 {
            value = map(&[("message", "m".into()), ("errors", Value::Array(vec![value; 20]))]);
        }
        let error = decode(&value);
        assert!(error.errors.len() <= MAX_AGGREGATE_ERRORS);
        let mut frame = Vec::new();
        nexus_protocol::SidecarMessage::Error(error)
            .encode(nexus_protocol::RequestId(1), nexus_protocol::limits::MIN_MAX_FRAME_BYTES as usize, &mut frame)
            .unwrap();
    }

    #[test]
    fn payloads_that_are_none_are_left_out() {
        for bytes in [vec![], vec![0xc1], vec![0x90], vec![0x81, 0xa1, b'a'], vec![0; MAX_ERROR_PAYLOAD_BYTES + 1]] {
            let error = decode(&map(&[("message", "m".into()), ("properties", Value::Binary(bytes))]));
            assert_eq!((&*error.message, error.properties), ("m", None));
        }
        let value = map(&[("message", "m".into()), ("value", Value::Binary(vec![0xc1]))]);
        let error = decode(&map(&[("message", "m".into()), ("cause", value)]));
        assert_eq!(error.cause.unwrap().value, None);
    }
}
