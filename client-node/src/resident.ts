/**
 * States that stay with the sidecar (SPEC 6): left there once, then used by handle, so that an execution costs what the keys
 * cost that it touches.
 *
 * Invariant: a handle belongs to the connection that it was made on. When that has ended the state is gone with it, and every
 * use of the handle rejects with SIDECAR_GONE (retryable: create the state again), never reaching another sidecar's state.
 */
import type { Connection } from './connection.js';
import { NexusError } from './errors.js';
import type { Fields } from './fields.js';
import { Kind } from './kinds.js';
import { writeCreateState, writePatchState, writeRequest, writeSnapshotState, type ExecuteRequest } from './requests.js';
import { checkCount, checkOptions } from './names.js';
import { bin, boolean, string, uint } from './typed.js';
import { decodeBin, markStandIn, standsFor } from './payload.js';

declare const STATE: unique symbol;

/** What an execution runs on: a resident state, and what the execution demands of it. */
export class ResidentUse<State extends object = Record<string, unknown>> {
  static {
    markStandIn(this.prototype, 'resident');
  }

  /** For the compiler alone, which takes a state for no wider and no narrower one: no such property exists. */
  declare readonly [STATE]?: (state: State) => State;

  /** @internal */
  readonly connection: Connection;
  /** As the wire has it. */
  readonly fields: { id: string; expectVersion?: number; exclusive?: true };

  /** @internal */
  constructor(connection: Connection, fields: ResidentUse['fields']) {
    this.connection = connection;
    this.fields = fields;
  }
}

/** What the keys of a state are to the compiler. */
type Key<State> = Extract<keyof State, string>;

export interface StatePatch<State extends object = Record<string, unknown>> {
  /** Keys and their new values; or a Buffer of MessagePack. */
  set?: Readonly<Partial<State>> | Buffer;
  /** Keys to delete. Deleted first: a key in both is set. */
  delete?: readonly Key<State>[];
  /** Refuse (INVALID_ARGUMENT, `context.reason` 'stale-version', retryable) unless the state has this version. */
  expectVersion?: number;
}

const PATCH = new Set<keyof StatePatch>(['set', 'delete', 'expectVersion']);

export interface StateSnapshot<State extends object = Record<string, unknown>> {
  version: number;
  /** Its type is what the caller of `createState` said: nothing checks it at run time. */
  state: State;
}

/** A handle that nobody has any more: its state is let go, if there is a sidecar left to tell. */
const forgotten = new FinalizationRegistry<ResidentUse<any>>((use) => {
  if (use.connection.failure === undefined) dispose(use, true).catch(() => undefined);
});

/** A resident state. Give it as `state` to `run`, `executeHandler` and `executeCompiledHandler`. */
export class ResidentState<State extends object = Record<string, unknown>> {
  static {
    markStandIn(this.prototype, 'resident');
  }

  readonly #use: ResidentUse<State>;

  /** @internal Made by `NexusRuntime.createState`. */
  constructor(use: ResidentUse<State>) {
    this.#use = use;
    forgotten.register(this, use, this);
  }

  get id(): string {
    return this.#use.fields.id;
  }

  /** For the `state` of a context: the execution is refused unless the state has this version, and as `exclusive()`. */
  expect(version: number): ResidentUse<State> {
    checkVersion(version);
    return new ResidentUse(this.#use.connection, { id: this.id, expectVersion: version });
  }

  /** For the `state` of a context: the execution ends with an error if anybody else changes the state meanwhile. */
  exclusive(): ResidentUse<State> {
    return new ResidentUse(this.#use.connection, { id: this.id, exclusive: true });
  }

  /** Changes keys, all at once. The new version. */
  async patch(patch: StatePatch<State>): Promise<number> {
    checkCount('patch', arguments, 1);
    const { set, expectVersion, delete: deleted } = checkOptions('the patch', 'field of the patch', patch, PATCH);
    if (deleted !== undefined) checkKeys('delete', deleted);
    if (expectVersion !== undefined) checkVersion(expectVersion);
    if (set !== undefined && (typeof set !== 'object' || set === null)) throw invalid('`set` is not an object');
    const { id } = this;
    const connection = live(this.#use);
    return connection.request(
      Kind.statePatched,
      (writer, request) =>
        writePatchState(writer, request, { id, set, delete: deleted, expectVersion }, connection.arena),
      (fields) => uint(fields, 'version'),
    );
  }

  /** What it holds: all of it, or some keys (those that are there). */
  snapshot(): Promise<StateSnapshot<State>>;
  snapshot(keys: readonly Key<State>[] | undefined): Promise<StateSnapshot<Partial<State>>>;
  async snapshot(keys?: readonly string[]): Promise<StateSnapshot<Partial<State>>> {
    checkCount('snapshot', arguments, 1);
    if (keys !== undefined) checkKeys('keys', keys);
    const fields: { [key: string]: Fields } = keys === undefined ? { id: this.id } : { id: this.id, keys };
    const connection = live(this.#use);
    return connection.request(
      Kind.stateSnapshot,
      (writer, request) => writeSnapshotState(writer, request, fields, connection.arena),
      (answer) => readSnapshot(answer) as StateSnapshot<Partial<State>>,
    );
  }

  /** Lets the state go. False when it was gone already. Executions that run on it go on with what they see. */
  async dispose(): Promise<boolean> {
    forgotten.unregister(this);
    return this.#use.connection.failure !== undefined ? false : dispose(this.#use, false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  /** @internal */
  static use(state: unknown): ResidentUse<any> | undefined {
    if (state instanceof ResidentUse) return state;
    if (state instanceof ResidentState) return state.#use;
    if (standsFor(state) !== 'resident') return undefined;
    throw invalid('the resident state belongs to a runtime of the other build of this package (one was imported, one required)');
  }
}

export async function createState<State extends object>(connection: Connection, state: unknown): Promise<ResidentState<State>> {
  const use = await connection.request(
    Kind.stateCreated,
    (writer, id) => writeCreateState(writer, id, state, connection.arena),
    (fields) => new ResidentUse<State>(connection, { id: readCreated(fields).id }),
  );
  return new ResidentState(use);
}

export function readCreated(fields: Record<string, unknown>): { id: string; version: number } {
  return { id: string(fields, 'id'), version: uint(fields, 'version') };
}

export function readSnapshot(fields: Record<string, unknown>): StateSnapshot {
  return { version: uint(fields, 'version'), state: decodeBin(bin(fields, 'state')) as Record<string, unknown> };
}

export function readDisposed(fields: Record<string, unknown>): boolean {
  return boolean(fields, 'disposed');
}

/** Throws unless an execution on `connection` can run on the state. */
export function checkUse(use: ExecuteRequest['resident'], connection: Connection): void {
  if (use instanceof ResidentUse && live(use) !== connection) {
    throw invalid('the resident state belongs to another runtime');
  }
}

function dispose({ connection, fields: { id } }: ResidentUse<any>, background: boolean): Promise<boolean> {
  return connection.request(
    Kind.stateDisposed,
    (writer, request) => writeRequest(writer, request, Kind.disposeState, { id }),
    readDisposed,
    { background },
  );
}

function live({ connection }: ResidentUse<any>): Connection {
  const cause = connection.failure;
  if (cause === undefined) return connection;
  throw new NexusError('SIDECAR_GONE', 'the sidecar that kept this state has gone, and the state with it: create it again', {
    cause,
    context: { reason: 'unknown-state' },
    retryable: true,
  });
}

function checkKeys(name: string, keys: unknown): void {
  const ok = Array.isArray(keys) && Array.from(keys as unknown[]).every((key) => typeof key === 'string');
  if (!ok) throw invalid(`\`${name}\` is not an array of strings`);
}

function checkVersion(version: unknown): void {
  if (!Number.isSafeInteger(version) || (version as number) < 0) throw invalid('a version is a whole number, 0 or more');
}

function invalid(message: string): NexusError {
  return new NexusError('INVALID_ARGUMENT', message);
}
