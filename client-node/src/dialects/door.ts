/**
 * What both dialect doors have in common: they never throw when they are made, start their sidecar in the background, and may take an
 * empty list of capabilities for what the static check infers.
 */
import type { RuntimeConfig } from '../config.js';
import { Core } from '../core.js';
import { NexusError, toExtensionError } from '../errors.js';
import { MAX_LABEL_BYTES } from '../limits.js';
import { checkPlain, didYouMean } from '../names.js';
import { Recent } from '../recent.js';
import { asOfNow, type ExecuteRequest } from '../requests.js';
import type { ReadResult, Segment } from '../suspended.js';
import type { HandlerNote } from '../types.js';
import { CONTEXT_NAMES, type Outcome } from '../validate.js';
import { StatsCopy } from './stats.js';

export interface DoorConfig extends RuntimeConfig {
  /**
   * An absent or empty list of capabilities means what the static check infers from the handler. Default: whether NEXUS_INFER_CAPABILITIES is
   * `1`. For callers that hand every handler an empty list; a handler then has what its text asks for.
   */
  inferCapabilities?: boolean;
}

export class Door {
  readonly copy: StatsCopy;
  readonly #core: Core | undefined;
  /** Why there is none. */
  readonly #refused: unknown;
  readonly #infers: boolean;
  /** By source. */
  readonly #inferred = new Recent<Promise<string[]>>();

  /** A configuration that is wrong is told by each call: the callers take a throw here for "no runtime", and go on without one. */
  constructor(config: DoorConfig, change: (config: RuntimeConfig) => RuntimeConfig) {
    let infers = false;
    try {
      checkPlain('the configuration', config ?? {});
      const { inferCapabilities = process.env['NEXUS_INFER_CAPABILITIES'] === '1', ...rest } = config ?? {};
      if (typeof inferCapabilities !== 'boolean') throw new NexusError('INVALID_ARGUMENT', '`inferCapabilities` is not a boolean');
      infers = inferCapabilities;
      this.#core = new Core(change(rest));
    } catch (error) {
      this.#refused = error;
    }
    this.#infers = infers;
    this.copy = new StatsCopy(this.#core);
    // What is wrong with the program is known before the first user comes.
    queueMicrotask(() => void this.#start());
  }

  async #start(): Promise<void> {
    try {
      await this.core.ping({ background: true });
      this.copy.touch();
    } catch (error) {
      if (this.copy.isStopped) return;
      process.emitWarning(`nexus-sidecar did not start: ${(error as Error).message}`, { code: (error as NexusError).code });
    }
  }

  get core(): Core {
    if (this.#core === undefined) throw this.#refused;
    return this.#core;
  }

  /** One segment; what is said of the sidecar meanwhile is of that time. */
  async run<Result>(segment: (core: Core) => Promise<Result>): Promise<Result> {
    const { core } = this;
    this.copy.begin();
    try {
      return await segment(core);
    } finally {
      this.copy.end();
    }
  }

  /** Goes on; a value that cannot be sent is its extension's fault, whose call fails in the handler. */
  async resume<Result extends Segment>(suspension: string, outcome: Outcome, read: ReadResult<Result>): Promise<Result> {
    return this.run(async (core) => {
      try {
        return await core.resume(suspension, outcome, read);
      } catch (error) {
        const isOfValue = 'value' in outcome && error instanceof NexusError && error.code === 'SERIALIZATION_ERROR';
        if (!isOfValue) throw error;
        return core.resume(suspension, { error: toExtensionError(error) }, read);
      }
    });
  }

  /** Sends the request with what the handler is granted: its list, or what the handler needs where that is asked for. At once where it can be. */
  granted<Result>(request: ExecuteRequest, handler: string | Uint8Array, send: (request: ExecuteRequest) => Promise<Result>): Promise<Result> {
    const listed = request.capabilities;
    if (!this.#infers || (listed !== undefined && listed.length > 0)) return send(request);
    const source = typeof handler === 'string' ? handler : this.core.sourceOf(handler);
    if (source === undefined) return send(request);
    const now = asOfNow(request);
    return (this.#inferred.get(source) ?? this.#infer(source)).then((capabilities) => send({ ...now, capabilities }));
  }

  /** A source that does not parse needs nothing: its execution says what is wrong with it. */
  #infer(source: string): Promise<string[]> {
    const asked = this.core.check(source).then(
      ({ capabilities }) => capabilities,
      (error: unknown) => {
        if (error instanceof NexusError && error.code === 'COMPILATION_ERROR') return [];
        this.#inferred.delete(source);
        throw error;
      },
    );
    this.#inferred.set(source, asked, source.length);
    return asked;
  }

  async shutdown(): Promise<void> {
    this.copy.stop();
    await this.#core?.shutdown();
  }
}

/** What a context of either dialect may have, besides what is its own. */
const CONTEXT = CONTEXT_NAMES.filter((name) => name !== 'state');
/** What other calls of this package take: who writes it into a context means it. */
const OF_OTHER_CALLS = new Set(['state', 'stateSnapshot', 'timeoutMs', 'signal', 'extensions', 'onSegment', 'onLog', 'onExtensionError', 'labels']);
const warned = new Set<string>();
const MOST_WARNINGS = 100;

/**
 * Throws INVALID_ARGUMENT for a name that is surely a mistake: near a known one, or another call's. Callers have contexts of their own,
 * with more in them than is told here: of such a name Node prints a warning, once.
 */
export function checkDoorContext(context: object, state: 'state' | 'stateSnapshot'): void {
  const known = new Set<string>([...CONTEXT, state]);
  for (const name of Object.keys(context)) {
    if (known.has(name) || (context as Record<string, unknown>)[name] === undefined) continue;
    const near = name === 'state' || name === 'stateSnapshot' ? `; did you mean \`${state}\`?` : didYouMean(name, known);
    if (near !== '' || OF_OTHER_CALLS.has(name)) throw new NexusError('INVALID_ARGUMENT', `unknown field of the context \`${name}\`${near}`);
    if (warned.has(name) || warned.size >= MOST_WARNINGS) continue;
    warned.add(name);
    process.emitWarning(`a context has a field \`${name}\`, which nexus-sidecar ignores`);
  }
}

/** What is told of a segment beside what each dialect says in its own words. */
export interface Told {
  /** What the handler's author should know of its text: in the first segment, if there is something. */
  warnings?: HandlerNote[];
  /** In the first segment: limits that count although the call has asked for wider ones. Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

export function tellAs(result: Told, { warnings, limited }: Told): void {
  if (warnings !== undefined) result.warnings = warnings;
  if (limited !== undefined) result.limited = limited;
}

/** Names serve logs and metrics only; the callers have longer ones than the sidecar takes. */
export function label(name: string | undefined): string | undefined {
  if (typeof name !== 'string' || Buffer.byteLength(name) <= MAX_LABEL_BYTES) return name;
  const cut = Buffer.from(name).subarray(0, MAX_LABEL_BYTES - 3);
  // a character that was cut through is left out
  return `${new TextDecoder().decode(cut).replace(/\ufffd+$/u, '')}...`;
}
