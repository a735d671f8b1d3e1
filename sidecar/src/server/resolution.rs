//! What a client answers a call with, from its message to what the guest takes.
//!
//! Invariant: what comes out is one well-formed payload; anything else is refused while the call still waits.

use nexus_protocol::message::Resolution;
use nexus_protocol::{ErrorCode, WireError, payload};
use serde::Serialize;

use crate::execution::{self, Answer};

/// A client's answer to a call, as the guest takes it.
pub(super) enum ResolutionBytes<'a> {
    Value(&'a [u8]),
    Failure(Vec<u8>),
}

impl ResolutionBytes<'_> {
    pub fn as_answer(&self) -> Answer<'_> {
        match self {
            Self::Value(bytes) => Answer::Value(bytes),
            Self::Failure(bytes) => Answer::Failure(bytes),
        }
    }
}

#[derive(Serialize)]
struct FailureFields<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
}

pub(super) fn resolution_bytes<'a>(resolution: &Resolution<'a>) -> Result<ResolutionBytes<'a>, WireError> {
    match resolution {
        Resolution::Value(None) => Ok(ResolutionBytes::Value(payload::NIL)),
        Resolution::Value(Some(bytes)) => match payload::validate_shape(bytes) {
            Ok(()) => Ok(ResolutionBytes::Value(bytes)),
            Err(e) => Err(execution::not_a_payload("value", e)),
        },
        Resolution::Failure(failure) => {
            let fields = FailureFields { message: failure.message, name: failure.name, code: failure.code };
            rmp_serde::to_vec_named(&fields)
                .map(ResolutionBytes::Failure)
                .map_err(|e| WireError::new(ErrorCode::InternalError, e.to_string()))
        }
    }
}
