//! The numbers that the process ends with.

use std::process;

/// The exit status of `nexus-sidecar`. The numbers are part of the interface and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum ExitCode {
    Ok = 0,
    /// `run` and `check`: the handler failed, the sidecar did not. Client commands: the sidecar did not answer, or
    /// answered with an error.
    HandlerFailed = 1,
    /// The command line makes no sense; also what `--check-config` ends with when the configuration is refused.
    Usage = 2,
    Config = 3,
    /// Another process serves the socket.
    SocketInUse = 4,
    /// WasmEdge or the guest module cannot be brought up.
    EngineInit = 5,
    /// The guest module is not the one that this build expects.
    GuestMismatch = 6,
    Internal = 70,
    /// Threads were stuck for good, or something was lost that the process cannot do without. The log says what.
    Stuck = 71,
    ParentGone = 75,
}

impl ExitCode {
    /// What a process of ours has ended with.
    pub fn of_number(number: i32) -> Option<Self> {
        use ExitCode::*;
        let all =
            [Ok, HandlerFailed, Usage, Config, SocketInUse, EngineInit, GuestMismatch, Internal, Stuck, ParentGone];
        all.into_iter().find(|code| *code as i32 == number)
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_keep_their_numbers() {
        let numbers = [
            (ExitCode::Ok, 0),
            (ExitCode::HandlerFailed, 1),
            (ExitCode::Usage, 2),
            (ExitCode::Config, 3),
            (ExitCode::SocketInUse, 4),
            (ExitCode::EngineInit, 5),
            (ExitCode::GuestMismatch, 6),
            (ExitCode::Internal, 70),
            (ExitCode::Stuck, 71),
            (ExitCode::ParentGone, 75),
        ];
        for (code, number) in numbers {
            assert_eq!(code as u8, number);
            assert_eq!(ExitCode::of_number(number.into()), Some(code));
        }
    }
}
