//! The host's twin of `guest/nx_abi.h`: names of exports, layout of the shared block, result codes.
//!
//! `NxShared` is read by copy, once per segment; its addresses and lengths are claims of the guest, checked where used.

/// Version of the boundary; the guest states its own in the first word of the shared block.
pub const ABI_VERSION: u32 = 6;

/// Name of the module that all imports come from.
pub const IMPORT_MODULE: &str = "nexus";

/// Size of the linear memory that the guest is linked with (initial = maximum: it never grows or moves).
pub const LINEAR_MEMORY_BYTES: usize = 256 << 20;

/// Bytes at the bottom of the linear memory that are the guest's shadow stack; it grows down from here.
pub const SHADOW_STACK_BYTES: u32 = 4 << 20;

/// What a stack may have, saved, when a call without await suspends it (`NX_UNWIND_BYTES`).
pub const MAX_SUSPENDED_STACK_BYTES: u64 = 2 << 20;

/// Bits of a `state_get` result.
pub const READ_ONLY_FLAG: i32 = 0x4000_0000;
/// Bit of the capacity that `state_get` is given: the language itself looks the key up.
pub const QUIET_FLAG: u32 = 0x8000_0000;
/// Longest value that fits beside the flag.
pub const MAX_VALUE_BYTES: usize = 0x3fff_ffff;

/// Methods of `$state`, in the order of the bits by which `nx_run` is told which of them are hidden by a key
/// (`nx_state_method_names`).
pub const STATE_METHODS: [&str; 6] = ["get", "set", "delete", "has", "keys", "update"];

/// Containers around what an effect holds: the list of effects and the map of the one (`NX_EFFECT_DEPTH`).
pub const EFFECT_DEPTH: usize = 2;

/// Longest description of an error; `NX_REPORT_BYTES` of the guest is the same.
pub const MAX_DESCRIPTION_BYTES: usize = 96 << 10;

/// Exports of the guest.
pub mod export {
    pub const INITIALIZE: &str = "_initialize";
    pub const SHARED: &str = "nx_shared";
    pub const INIT: &str = "nx_init";
    pub const ALLOC: &str = "nx_alloc";
    pub const COMPILE: &str = "nx_compile";
    pub const RUN: &str = "nx_run";
    pub const RESUME: &str = "nx_resume";
    pub const MEMORY: &str = "memory";
    /// Of the guest in stack style: 0 while it neither leaves nor re-enters its stack.
    pub const ASYNCIFY_STATE: &str = "asyncify_get_state";
    pub const STACK_POINTER: &str = "__stack_pointer";
}

/// Negative results of host calls.
pub mod result {
    pub const DENIED: i32 = -1;
    pub const LIMIT: i32 = -2;
    pub const INVALID: i32 = -3;
    pub const NOT_FOUND: i32 = -4;
    pub const INTERNAL: i32 = -5;
    pub const NO_METHOD: i32 = -6;
}

/// What `nx_compile`, `nx_run` and `nx_resume` return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Done,
    Suspended,
    Failed,
    Stuck,
    BadCall,
    /// Stack style: the stack is larger than what can be suspended. `out_len` is its size, and there is no output.
    TooDeep,
}

impl Status {
    /// None: the guest returned a number that it should not know.
    pub fn from_i32(value: i32) -> Option<Self> {
        Some(match value {
            0 => Self::Done,
            1 => Self::Suspended,
            2 => Self::Failed,
            3 => Self::Stuck,
            4 => Self::BadCall,
            5 => Self::TooDeep,
            _ => return None,
        })
    }
}

/// Copy of the guest's shared block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared {
    pub abi_version: u32,
    pub out: u32,
    pub out_len: u32,
    pub memory_used: u32,
    pub memory_peak: u32,
    pub ticks: u32,
    pub out_of_memory: u32,
    pub inbox: u32,
    pub inbox_capacity: u32,
    pub memory_wanted: u32,
    pub for_memory: u32,
}

/// Size of the block.
pub const SHARED_BYTES: usize = 52;
/// Where in the block the watchdog writes.
pub const INTERRUPT_OFFSET: u32 = 4;
/// Where tests say which allocation is refused.
#[cfg(test)]
pub const FAIL_ALLOCATION_OFFSET: u32 = 44;

impl Shared {
    pub fn from_bytes(bytes: &[u8; SHARED_BYTES]) -> Self {
        let word = |i: usize| {
            let mut w = [0; 4];
            w.copy_from_slice(&bytes[4 * i..4 * i + 4]);
            u32::from_le_bytes(w)
        };
        Self {
            abi_version: word(0),
            out: word(2),
            out_len: word(3),
            memory_used: word(4),
            memory_peak: word(5),
            ticks: word(6),
            out_of_memory: word(7),
            inbox: word(8),
            inbox_capacity: word(9),
            memory_wanted: word(10),
            for_memory: word(12),
        }
    }
}
