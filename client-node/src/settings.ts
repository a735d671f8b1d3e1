// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** Passed on as flags. Absent: the sidecar's own environment, file and defaults decide. */
export interface SidecarConfig {
  /**
   * Instances that may run at once; from 3 on the last free one is for connections that run nothing. What takes its
   * time on that one while others wait goes on beside it: as many more at most. Default 10.
   */
  maxInstances?: number;
  /** Instances made ready at start. Default 1. */
  minInstances?: number;
  /** Memory of one execution, strings and ArrayBuffers included. Default 32 MiB. */
  memoryLimitBytes?: number;
  /** Stack of one execution; overflowing it is a RangeError. Default 1 MiB. */
  stackSizeBytes?: number;
  /** Running and queueing time of one execution, without the time it is suspended; 0 = no limit. Default 5 s. */
  timeoutMs?: number;
  /** Time that one suspension may wait to be resumed. Default 30 s. */
  suspensionTimeoutMs?: number;
  /** Suspended executions held at once; an eighth more for connections with few. Default 1,000. */
  maxSuspended?: number;
  /**
   * Memory of suspended executions, with that of their guests or the images of these; an eighth more for connections
   * with little of it. Default 256 MiB.
   */
  maxSuspendedBytes?: number;
  /** Calls out of the sandbox per execution. Default 10,000. */
  maxHostCalls?: number;
  /** Changes of $state per execution. Default 1,000. */
  maxStateMutations?: number;
  /** Events emitted per execution. Default 100. */
  maxEvents?: number;
  /** Source of one handler. Default 1 MiB. */
  maxSourceBytes?: number;
  /** Result of one execution. Default 16 MiB. */
  maxResultBytes?: number;
  /** Log text returned by one execution. Default 64 KiB. */
  maxLogBytes?: number;
  /** One frame of the protocol. Default 64 MiB. */
  maxFrameBytes?: number;
  /**
   * Executions that may wait for an instance, else OVERLOADED; an eighth more for connections with few. Default 1,000.
   */
  maxQueued?: number;
  /** Time that one execution may wait for an instance. Default 5 s. */
  maxQueueMs?: number;
  /** Resident states of one connection. Default 1,000. */
  maxStates?: number;
  /** Resident states of one connection, in memory. Default 256 MiB. */
  maxStateBytes?: number;
  /** Resident states of all connections; an eighth more for those with little. Default 1 GiB. */
  maxTotalStateBytes?: number;
  /** Shared memory of one connection, for large payloads; 0 = none. Default 64 MiB. */
  maxArenaBytes?: number;
  /** Shared memory of all connections; an eighth more for those with little. Default 1 GiB. */
  maxTotalArenaBytes?: number;
  /** Where compiled handlers are kept; none = in memory only. Default nexus-sidecar in the user's cache directory. */
  cacheDir?: string;
  /** Size of the cache of compiled handlers. Default 64 MiB. */
  maxCacheSizeBytes?: number;
  /** Run native code; false interprets, about 500 times slower. Default true. */
  enableAOT?: boolean;
  /** Allow SIMD instructions in the guest module. Default true. */
  enableSIMD?: boolean;
  /** Allow bulk memory instructions in the guest module. Default true. */
  enableBulkMemory?: boolean;
  /** Another guest module, as trusted as this program. `None`: the guest module that was built with this sidecar. */
  quickjsModulePath?: string;
  /** Put stacks and source snippets into errors. Default false. */
  debug?: boolean;
  /** Refuse a handler before it runs when its grants cannot suffice. Default false. */
  strictCapabilities?: boolean;
  /** Time that a sidecar which was told to end gives what is under way; then it is cancelled. Default 5 s. */
  drainTimeoutMs?: number;
  /** Where /metrics, /healthz and /readyz are served: 127.0.0.1:PORT, the path of a socket, or none. */
  httpListen?: string;
  /** Let httpListen be an address that other machines reach: whoever reaches it reads the metrics. Default false. */
  httpAllowRemote?: boolean;
  /** File that is written anew with the metrics every 15 s, for a collector of text files; none = no file. */
  metricsTextfile?: string;
  /**
   * Where guests run: in the process that serves (none), in a sealed one (shared), or in one for each connection
   * (connection). Default none.
   */
  isolation?: string;
  /**
   * Sealed processes with a connection each, else OVERLOADED; each has an equal part of what all may have, and at least
   * one instance and one of maxQueued and maxSuspended. Default 16.
   */
  maxWorkers?: number;
  /** Start only where guests run in a sealed process of which no wall is missing. Default false. */
  requireSandbox?: boolean;
  /** Least severe log record that is written to stderr. Default info. */
  log?: string;
  /** Write each log record as one JSON object: time, level, target, pid, message. Default false. */
  logJson?: boolean;
}

/** What each of them has to be. Bounds are the sidecar's to check. */
export const SIDECAR_KEYS = {
  maxInstances: 'count',
  minInstances: 'count',
  memoryLimitBytes: 'count',
  stackSizeBytes: 'count',
  timeoutMs: 'count',
  suspensionTimeoutMs: 'count',
  maxSuspended: 'count',
  maxSuspendedBytes: 'count',
  maxHostCalls: 'count',
  maxStateMutations: 'count',
  maxEvents: 'count',
  maxSourceBytes: 'count',
  maxResultBytes: 'count',
  maxLogBytes: 'count',
  maxFrameBytes: 'count',
  maxQueued: 'count',
  maxQueueMs: 'count',
  maxStates: 'count',
  maxStateBytes: 'count',
  maxTotalStateBytes: 'count',
  maxArenaBytes: 'count',
  maxTotalArenaBytes: 'count',
  cacheDir: 'string',
  maxCacheSizeBytes: 'count',
  enableAOT: 'boolean',
  enableSIMD: 'boolean',
  enableBulkMemory: 'boolean',
  quickjsModulePath: 'string',
  debug: 'boolean',
  strictCapabilities: 'boolean',
  drainTimeoutMs: 'count',
  httpListen: 'string',
  httpAllowRemote: 'boolean',
  metricsTextfile: 'string',
  isolation: 'string',
  maxWorkers: 'count',
  requireSandbox: 'boolean',
  log: 'string',
  logJson: 'boolean',
} as const satisfies Record<keyof SidecarConfig, 'count' | 'boolean' | 'string'>;
