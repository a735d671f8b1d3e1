// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The sidecar's settings, as methods of [`SpawnOptions`]. What is not set is as in its environment, file or defaults.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::spawn::{LogLevel, SpawnOptions};

impl SpawnOptions {
    /// Instances that may run at once; from 3 on the last free one is for connections that run nothing. What takes its
    /// time on that one while others wait goes on beside it: as many more at most.
    #[must_use]
    pub fn max_instances(self, value: u32) -> Self {
        self.flag("--max-instances", value.to_string())
    }

    /// Instances made ready at start.
    #[must_use]
    pub fn min_instances(self, value: u32) -> Self {
        self.flag("--min-instances", value.to_string())
    }

    /// Memory of one execution, strings and ArrayBuffers included.
    #[must_use]
    pub fn memory_limit_bytes(self, value: u64) -> Self {
        self.flag("--memory-limit-bytes", value.to_string())
    }

    /// Stack of one execution; overflowing it is a RangeError.
    #[must_use]
    pub fn stack_size_bytes(self, value: u64) -> Self {
        self.flag("--stack-size-bytes", value.to_string())
    }

    /// Running and queueing time of one execution, without the time it is suspended; 0 = no limit.
    #[must_use]
    pub fn timeout_ms(self, value: u64) -> Self {
        self.flag("--timeout-ms", value.to_string())
    }

    /// Time that one suspension may wait to be resumed.
    #[must_use]
    pub fn suspension_timeout_ms(self, value: u64) -> Self {
        self.flag("--suspension-timeout-ms", value.to_string())
    }

    /// Suspended executions held at once; an eighth more for connections with few.
    #[must_use]
    pub fn max_suspended(self, value: u64) -> Self {
        self.flag("--max-suspended", value.to_string())
    }

    /// Memory of suspended executions, with that of their guests or the images of these; an eighth more for connections
    /// with little of it.
    #[must_use]
    pub fn max_suspended_bytes(self, value: u64) -> Self {
        self.flag("--max-suspended-bytes", value.to_string())
    }

    /// Calls out of the sandbox per execution.
    #[must_use]
    pub fn max_host_calls(self, value: u64) -> Self {
        self.flag("--max-host-calls", value.to_string())
    }

    /// Changes of $state per execution.
    #[must_use]
    pub fn max_state_mutations(self, value: u64) -> Self {
        self.flag("--max-state-mutations", value.to_string())
    }

    /// Events emitted per execution.
    #[must_use]
    pub fn max_events(self, value: u64) -> Self {
        self.flag("--max-events", value.to_string())
    }

    /// Source of one handler.
    #[must_use]
    pub fn max_source_bytes(self, value: u64) -> Self {
        self.flag("--max-source-bytes", value.to_string())
    }

    /// Result of one execution.
    #[must_use]
    pub fn max_result_bytes(self, value: u64) -> Self {
        self.flag("--max-result-bytes", value.to_string())
    }

    /// Log text returned by one execution.
    #[must_use]
    pub fn max_log_bytes(self, value: u64) -> Self {
        self.flag("--max-log-bytes", value.to_string())
    }

    /// One frame of the protocol.
    #[must_use]
    pub fn max_frame_bytes(self, value: u64) -> Self {
        self.flag("--max-frame-bytes", value.to_string())
    }

    /// Executions that may wait for an instance, else OVERLOADED; an eighth more for connections with few.
    #[must_use]
    pub fn max_queued(self, value: u64) -> Self {
        self.flag("--max-queued", value.to_string())
    }

    /// Time that one execution may wait for an instance.
    #[must_use]
    pub fn max_queue_ms(self, value: u64) -> Self {
        self.flag("--max-queue-ms", value.to_string())
    }

    /// Resident states of one connection.
    #[must_use]
    pub fn max_states(self, value: u64) -> Self {
        self.flag("--max-states", value.to_string())
    }

    /// Resident states of one connection, in memory.
    #[must_use]
    pub fn max_state_bytes(self, value: u64) -> Self {
        self.flag("--max-state-bytes", value.to_string())
    }

    /// Resident states of all connections; an eighth more for those with little.
    #[must_use]
    pub fn max_total_state_bytes(self, value: u64) -> Self {
        self.flag("--max-total-state-bytes", value.to_string())
    }

    /// Shared memory of one connection, for large payloads; 0 = none.
    #[must_use]
    pub fn max_arena_bytes(self, value: u64) -> Self {
        self.flag("--max-arena-bytes", value.to_string())
    }

    /// Shared memory of all connections; an eighth more for those with little.
    #[must_use]
    pub fn max_total_arena_bytes(self, value: u64) -> Self {
        self.flag("--max-total-arena-bytes", value.to_string())
    }

    /// Where compiled handlers are kept; none = in memory only.
    #[must_use]
    pub fn cache_dir(self, value: impl Into<PathBuf>) -> Self {
        self.flag("--cache-dir", value.into())
    }

    /// Size of the cache of compiled handlers.
    #[must_use]
    pub fn max_cache_size_bytes(self, value: u64) -> Self {
        self.flag("--max-cache-size-bytes", value.to_string())
    }

    /// Run native code; false interprets, about 500 times slower.
    #[must_use]
    pub fn enable_aot(self, value: bool) -> Self {
        self.flag("--enable-aot", value.to_string())
    }

    /// Allow SIMD instructions in the guest module.
    #[must_use]
    pub fn enable_simd(self, value: bool) -> Self {
        self.flag("--enable-simd", value.to_string())
    }

    /// Allow bulk memory instructions in the guest module.
    #[must_use]
    pub fn enable_bulk_memory(self, value: bool) -> Self {
        self.flag("--enable-bulk-memory", value.to_string())
    }

    /// Another guest module, as trusted as this program. `None`: the guest module that was built with this sidecar.
    #[must_use]
    pub fn quickjs_module_path(self, value: impl Into<PathBuf>) -> Self {
        self.flag("--quickjs-module-path", value.into())
    }

    /// Put stacks and source snippets into errors.
    #[must_use]
    pub fn debug(self, value: bool) -> Self {
        self.flag("--debug", value.to_string())
    }

    /// Refuse a handler before it runs when its grants cannot suffice.
    #[must_use]
    pub fn strict_capabilities(self, value: bool) -> Self {
        self.flag("--strict-capabilities", value.to_string())
    }

    /// Time that a sidecar which was told to end gives what is under way; then it is cancelled.
    #[must_use]
    pub fn drain_timeout_ms(self, value: u64) -> Self {
        self.flag("--drain-timeout-ms", value.to_string())
    }

    /// Where /metrics, /healthz and /readyz are served: 127.0.0.1:PORT, the path of a socket, or none.
    #[must_use]
    pub fn http_listen(self, value: impl Into<OsString>) -> Self {
        self.flag("--http-listen", value)
    }

    /// Let httpListen be an address that other machines reach: whoever reaches it reads the metrics.
    #[must_use]
    pub fn http_allow_remote(self, value: bool) -> Self {
        self.flag("--http-allow-remote", value.to_string())
    }

    /// File that is written anew with the metrics every 15 s, for a collector of text files; none = no file.
    #[must_use]
    pub fn metrics_textfile(self, value: impl Into<PathBuf>) -> Self {
        self.flag("--metrics-textfile", value.into())
    }

    /// Where guests run: in the process that serves (none), in a sealed one (shared), or in one for each connection
    /// (connection).
    #[must_use]
    pub fn isolation(self, value: impl Into<OsString>) -> Self {
        self.flag("--isolation", value)
    }

    /// Sealed processes with a connection each, else OVERLOADED; each has an equal part of what all may have, and at
    /// least one instance and one of maxQueued and maxSuspended.
    #[must_use]
    pub fn max_workers(self, value: u64) -> Self {
        self.flag("--max-workers", value.to_string())
    }

    /// Start only where guests run in a sealed process of which no wall is missing.
    #[must_use]
    pub fn require_sandbox(self, value: bool) -> Self {
        self.flag("--require-sandbox", value.to_string())
    }

    /// Least severe log record that is written to stderr.
    #[must_use]
    pub fn log_level(self, value: LogLevel) -> Self {
        self.flag("--log", value.to_string())
    }

    /// Write each log record as one JSON object: time, level, target, pid, message.
    #[must_use]
    pub fn log_json(self, value: bool) -> Self {
        self.flag("--log-json", value.to_string())
    }
}
