// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** The sidecar's figures. */
export interface RuntimeStats {
  /** Executions since the start of the sidecar. */
  totalExecutions: number;
  /** Instances that run something. */
  activeInstances: number;
  /** Instances that wait for something to run. */
  availableInstances: number;
  /** Executions that wait for extension calls, whether they hold an instance or are parked. */
  suspendedInstances: number;
  /** Part of the handlers that were compiled already, in memory or on disk: 0 to 1. */
  cacheHitRate: number;
  /** Time of an execution on average, in microseconds as the next three. */
  avgExecutionTimeUs: number;
  /** Half of the executions took no longer. */
  p50ExecutionTimeUs: number;
  /** 95 of 100 took no longer. */
  p95ExecutionTimeUs: number;
  /** 99 of 100 took no longer. */
  p99ExecutionTimeUs: number;
  /**
   * Memory of suspended executions with their guests, of resident states and of the compile cache; an instance that is
   * idle or at work counts as what an idle one takes.
   */
  totalMemoryBytes: number;
  /** Instances made. */
  instancesCreated: number;
  /** Executions in an instance that had run something before. */
  instancesReused: number;
  /** Compiled handlers in memory. */
  cacheEntries: number;
  /** Bytes of the compiled handlers in memory. */
  cacheSizeBytes: number;
  /** Executions that wait for an instance. */
  queued: number;
  /** Time since the start of the sidecar. */
  uptimeMs: number;
  /** Resident states. */
  residentStates: number;
  /** Bytes of the resident states. */
  residentStateBytes: number;
  /** Bytes of the memory that is shared with clients. */
  arenaBytes: number;
  /** Bytes of the compile cache on disk, as far as its writer knows. */
  cacheDiskBytes: number;
  /** Entries of the compile cache on disk that were damaged, foreign or old. */
  cacheRejected: number;
}

/** Of which type each is on the wire, and whether a sidecar may leave it out, which is 0. */
export const STATISTICS = {
  totalExecutions: 'uint',
  activeInstances: 'uint',
  availableInstances: 'uint',
  suspendedInstances: 'uint',
  cacheHitRate: 'float',
  avgExecutionTimeUs: 'float',
  p50ExecutionTimeUs: 'uint',
  p95ExecutionTimeUs: 'uint',
  p99ExecutionTimeUs: 'uint',
  totalMemoryBytes: 'uint',
  instancesCreated: 'uint',
  instancesReused: 'uint',
  cacheEntries: 'uint',
  cacheSizeBytes: 'uint',
  queued: 'uint',
  uptimeMs: 'uint',
  residentStates: 'uint?',
  residentStateBytes: 'uint?',
  arenaBytes: 'uint?',
  cacheDiskBytes: 'uint?',
  cacheRejected: 'uint?',
} as const satisfies Record<keyof RuntimeStats, 'uint' | 'uint?' | 'float' | 'float?'>;
