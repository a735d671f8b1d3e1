//! Why work on a request ended without its result: it was refused, or its token said so.
//!
//! What a stopped request is told depends on what it had asked for, so whoever answers it says that; everything below
//! passes the cause on.

use nexus_protocol::WireError;
use nexus_protocol::payload::{Pace, PayloadError};

use crate::token::{StopCause, StopToken};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    Refused(WireError),
    Stopped(StopCause),
}

impl Halt {
    /// As an answer. `told`: what a stopped request hears.
    pub fn into_error(self, told: impl FnOnce(StopCause) -> WireError) -> WireError {
        match self {
            Self::Refused(error) => error,
            Self::Stopped(cause) => told(cause),
        }
    }
}

impl From<WireError> for Halt {
    fn from(error: WireError) -> Self {
        Self::Refused(error)
    }
}

impl From<StopCause> for Halt {
    fn from(cause: StopCause) -> Self {
        Self::Stopped(cause)
    }
}

/// Bytes of a payload between two looks at the token: less than a millisecond.
const LOOK_EVERY_BYTES: usize = 256 << 10;

/// Looks at a payload for as long as a token allows.
#[derive(Debug)]
pub struct PayloadPace<'t> {
    token: &'t StopToken,
    next: usize,
    stopped: Option<StopCause>,
}

impl<'t> PayloadPace<'t> {
    pub fn new(token: &'t StopToken) -> Self {
        Self { token, next: LOOK_EVERY_BYTES, stopped: None }
    }

    /// What a fault of the payload comes to. `refused`: what its sender hears.
    pub fn halt(&self, error: PayloadError, refused: impl FnOnce(PayloadError) -> WireError) -> Halt {
        match (error, self.stopped) {
            (PayloadError::Stopped, Some(cause)) => Halt::Stopped(cause),
            (error, _) => Halt::Refused(refused(error)),
        }
    }

    #[cold]
    fn look(&mut self, at: usize) -> bool {
        self.next = at.saturating_add(LOOK_EVERY_BYTES);
        self.stopped = self.token.check().err();
        self.stopped.is_none()
    }
}

impl Pace for PayloadPace<'_> {
    #[inline]
    fn goes_on(&mut self, at: usize) -> bool {
        at < self.next || self.look(at)
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ErrorCode;
    use nexus_protocol::payload;

    use super::*;

    #[test]
    fn a_payload_is_looked_at_for_as_long_as_the_token_allows() {
        let large = [&[0xdd, 0, 0x10, 0, 0][..], &vec![1; 1 << 20]].concat();
        let token = StopToken::new();
        assert_eq!(payload::validate_shape_paced(&large, &mut PayloadPace::new(&token)), Ok(()));
        token.stop(StopCause::Cancelled);
        let mut pace = PayloadPace::new(&token);
        let error = payload::validate_shape_paced(&large, &mut pace).unwrap_err();
        let refused = |e: PayloadError| WireError::new(ErrorCode::InvalidArgument, e.to_string());
        assert_eq!(pace.halt(error, refused), Halt::Stopped(StopCause::Cancelled));
        assert!(matches!(pace.halt(PayloadError::Truncated, refused), Halt::Refused(_)));
        // a small one is not worth a look
        assert_eq!(payload::validate_shape_paced(&[1], &mut PayloadPace::new(&token)), Ok(()));
    }
}
