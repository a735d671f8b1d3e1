/** The shapes that callers see: contexts in, results out. Values are plain, or Buffers of MessagePack (see HandlerContext). */
import type { NexusError } from './errors.js';
import type { ExecutionMetrics, HandlerNote, Status, SuspendMode } from './maps.js';

export type { ExecutionMetrics, HandlerCheck, HandlerNote, SuspendMode } from './maps.js';

/** What a handler is compiled for. */
export interface PrecompileOptions {
  /** Absent: the handler's text decides. */
  suspendMode?: SuspendMode;
}

/** Grants and limits of one execution. */
interface ContextBase {
  /** For logs and metrics of the sidecar. */
  panelId?: string;
  handlerName?: string;
  /** Tokens, as `state:read:count` or `ext:http.get`. Absent: none. */
  capabilities?: readonly string[];
  /** Extensions and their methods, to have unknown ones refused. Absent: every name is accepted. */
  extensionRegistry?: Readonly<Record<string, readonly string[]>>;
  /** Narrower limits: memoryLimitBytes, maxHostCalls, maxStateMutations, maxEvents, maxResultBytes, maxLogBytes. */
  limits?: Readonly<Record<string, number>>;
  /** Refuse before running what the static check shows to lack a capability. */
  strictCapabilities?: boolean;
  /**
   * Absent: the handler's text decides. One that has the keyword `await` or `async`, the name `Promise`, or a member `then`,
   * `catch` or `finally` is promise style; one that calls extensions and has none of these is stack style. A compiled handler
   * has a mode of its own.
   */
  suspendMode?: SuspendMode;
  /** For `Math.random` in the handler. */
  seed?: number | bigint;
  /** `'throw'`: a value that would not arrive as what it is (a function, an instance of a class ...) is SERIALIZATION_ERROR that names its path. Default `'drop'`. */
  lossy?: 'drop' | 'throw';
}

/** Plain values (a Buffer is bytes, what `encoded` gives is MessagePack), and for `state` a ResidentState as well. */
export interface HandlerContext extends ContextBase {
  state?: unknown;
  args?: unknown;
  scope?: unknown;
}

/** A `state` that is a Buffer is MessagePack. So are Buffers in the other two then, and all values of the result. */
export interface BufferContext extends ContextBase {
  state: Buffer;
  args?: Buffer;
  scope?: Buffer;
}

/** A change of one top-level key of `$state`. With a `State` type, each key carries its own type of value. */
export type StateMutation<State extends object = Record<string, unknown>> = {
  [Key in keyof State & string]: { op: 'set'; key: Key; value: State[Key] } | { op: 'delete'; key: Key };
}[keyof State & string];

export interface EmittedEvent {
  name: string;
  payload: unknown;
  /** Milliseconds since 1970. */
  timestamp: number;
}

export interface ViewCommand {
  viewId: string;
  /** `setFilter` (params `{value}`), `scrollTo` (`{position}`), `focus` (`{}`), or the handler's own. */
  command: string;
  params: Record<string, unknown>;
}

export interface LogRecord {
  level: 'debug' | 'info' | 'warn' | 'error';
  message: string;
  timestamp: number;
}

export interface Suspension<Args = unknown[]> {
  suspensionId: string;
  extensionName: string;
  method: string;
  args: Args;
}

interface ResultBase<Args> {
  status: Status;
  /** Number of this segment within its execution, from 0. */
  seq: number;
  /** On a resident state: its version with this segment's mutations in it. */
  stateVersion?: number;
  /** The oldest outstanding call: what a loop that handles one at a time looks at. */
  suspension?: Suspension<Args>;
  /** Every outstanding call, oldest first. */
  suspensions: Suspension<Args>[];
  error?: NexusError;
  /** What the handler's author should know of its text: in the first segment, if there is something. */
  warnings?: HandlerNote[];
  metrics: ExecutionMetrics;
  /** In the first segment: limits that count although the call has asked for wider ones. Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

/** One segment. The effects are deltas: what happened since the segment before. */
export interface ExecutionResult extends ResultBase<unknown[]> {
  returnValue?: unknown;
  stateMutations: StateMutation[];
  events: EmittedEvent[];
  viewCommands: ViewCommand[];
  logs: LogRecord[];
}

/** The same with every value as MessagePack. Effect lists are always there, empty or not. */
export interface BufferResult extends ResultBase<Buffer> {
  returnValue?: Buffer;
  stateMutations: Buffer;
  events: Buffer;
  viewCommands: Buffer;
  logs: Buffer;
}

/** What an extension call came to. `value` may be a Buffer of MessagePack when the context came in Buffers. */
export type AsyncResult =
  | { success: true; value?: unknown }
  | { success: false; error?: string | { message: string; name?: string; code?: string } };

/** Called with the handler's arguments; a promise is awaited, what it throws is thrown in the handler. */
export type ExtensionMethod = (...args: any[]) => unknown;
/** By name and method. Own properties only. */
export type Extensions = Readonly<Record<string, Readonly<Record<string, ExtensionMethod>>>>;

/** What `Exts` must look like: any interface whose members hold methods, with or without an index signature. A function is no such member. */
export type ExtensionsOf<Exts> = {
  readonly [Name in keyof Exts]: Exts[Name] extends ExtensionMethod ? never : { readonly [Method in keyof Exts[Name]]: ExtensionMethod };
};

/** What happened between two suspensions. */
export interface Segment<State extends object = Record<string, unknown>> {
  seq: number;
  status: ExecutionResult['status'];
  /** On a resident state: its version with this segment's mutations in it. */
  stateVersion?: number;
  stateMutations: StateMutation<State>[];
  events: EmittedEvent[];
  viewCommands: ViewCommand[];
  logs: LogRecord[];
  /** Calls that are outstanding after this segment, in the order in which they were made. */
  suspensions: Suspension[];
  /** What the handler's author should know of its text: in the first segment, if there is something. */
  warnings?: HandlerNote[];
  metrics: ExecutionMetrics;
  /** In the first segment: limits that count although the call has asked for wider ones. Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

// Said here, so that errors know nothing of what happened.
declare module './errors.js' {
  interface NexusError {
    /** What had happened when a `run` failed: its segments and their effects. Not enumerable. */
    readonly segments?: Segment[];
    readonly stateMutations?: StateMutation[];
    readonly events?: EmittedEvent[];
    readonly viewCommands?: ViewCommand[];
    readonly logs?: LogRecord[];
    readonly metrics?: ExecutionMetrics;
    readonly stateVersion?: number;
    readonly warnings?: HandlerNote[];
    readonly limited?: Record<string, number>;
  }
}
