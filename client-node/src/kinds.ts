// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** First element of a body (SPEC 3). */
export const Kind = {
  /** Client's first frame. */
  hello: 0x01,
  /** Run a handler. */
  execute: 0x02,
  /** Compile a handler. */
  precompile: 0x03,
  /** Answer an extension call. */
  resume: 0x04,
  /** Stop an execution. */
  cancel: 0x05,
  /** Compile and infer. */
  check: 0x06,
  /** Figures. */
  stats: 0x07,
  /** Prometheus text. */
  metrics: 0x08,
  /** Are you there. */
  ping: 0x09,
  /** Drain and end. */
  shutdown: 0x0a,
  /** Keep a state. */
  createState: 0x0b,
  /** Change a kept state. */
  patchState: 0x0c,
  /** Read a kept state. */
  snapshotState: 0x0d,
  /** Forget a kept state. */
  disposeState: 0x0e,
  /** Make a shared memory segment. */
  openArena: 0x0f,
  /** What is there. */
  executions: 0x10,
  /** End one of the executions. */
  kill: 0x11,
  /** Run many handlers, one after another. */
  executeMany: 0x12,
  /** Sidecar's first frame. */
  helloAnswer: 0x81,
  /** One segment of an execution. */
  result: 0x82,
  /** A handle. */
  compiled: 0x83,
  /** Cancelled, drained or killed. */
  done: 0x84,
  /** What check found. */
  checked: 0x86,
  /** The figures. */
  statsAnswer: 0x87,
  /** The Prometheus text. */
  metricsAnswer: 0x88,
  /** Yes. */
  pong: 0x89,
  /** Where a state is kept. */
  stateCreated: 0x8b,
  /** Its new version. */
  statePatched: 0x8c,
  /** Its contents. */
  stateSnapshot: 0x8d,
  /** It is gone. */
  stateDisposed: 0x8e,
  /** Where a shared memory segment is. */
  arena: 0x8f,
  /** The executions that are there. */
  executionsAnswer: 0x90,
  /** Results of executeMany, or a part of them. */
  results: 0x92,
  /** Part of an answer to execute or resume: what the handler has logged so far. */
  logs: 0x93,
  /** Failure. */
  error: 0xff,
} as const;

/** Keys of that request, in the order of the wire. */
export const EXECUTE_KEYS = [
  'source',
  'handler',
  'panelId',
  'handlerName',
  'state',
  'resident',
  'args',
  'scope',
  'capabilities',
  'extensions',
  'timeoutMs',
  'limits',
  'strictCapabilities',
  'suspendMode',
  'seed',
  'streamLogs',
] as const;

/** Keys of that request, in the order of the wire. */
export const MANY_ITEM_KEYS = [
  'source',
  'handler',
  'panelId',
  'handlerName',
  'state',
  'resident',
  'args',
  'scope',
  'capabilities',
  'extensions',
  'timeoutMs',
  'limits',
  'strictCapabilities',
  'suspendMode',
  'seed',
] as const;
