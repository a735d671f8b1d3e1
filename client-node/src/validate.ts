/**
 * Checks of what callers pass, before it is sent: a value of a wrong type would make the whole frame malformed, and the
 * sidecar closes a connection for that, with everybody else's requests on it.
 */
import { NexusError, toExtensionError, type ExtensionError } from './errors.js';
import { checkLossless } from './lossless.js';
import { MAX_LABEL_BYTES, MAX_LISTED_NAMES } from './limits.js';
import type { ExecuteRequest } from './requests.js';
import { checkNames, checkOptions, checkPlain } from './names.js';
import { asMessagePack, asPayload, define } from './payload.js';
import { ResidentState } from './resident.js';
import type { AsyncResult, HandlerContext, PrecompileOptions, SuspendMode } from './types.js';

const SUSPENSION_ID = /^[0-9a-f]{32}$/;

/** Half a surrogate pair: nothing that is UTF-8 keeps it. */
const HALF_PAIR = /\p{Surrogate}/u;

export function checkSource(source: unknown): string {
  if (typeof source !== 'string') throw invalid('the handler is not a string');
  const half = source.search(HALF_PAIR);
  if (half >= 0) {
    const line = source.slice(0, half).split('\n').length;
    throw invalid(`the handler has half a surrogate pair in line ${line}, which no source keeps: write it as \\u${source.charCodeAt(half).toString(16)}`);
  }
  return source;
}

export function checkHandle(handle: unknown): Uint8Array {
  if (!(handle instanceof Uint8Array) || handle.length === 0) throw invalid('the compiled handler is not a Buffer from precompile');
  return handle;
}

/** An id that no sidecar can have given is answered like any unknown one, without a round trip. */
export function checkSuspensionId(id: unknown): void {
  if (typeof id !== 'string') throw invalid('the suspension id is not a string');
  if (!SUSPENSION_ID.test(id)) throw new NexusError('SUSPENSION_ERROR', 'unknown suspension');
}

export function checkTimeout(timeoutMs: unknown): number | undefined {
  if (timeoutMs === undefined) return undefined;
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 0 && timeoutMs <= Number.MAX_SAFE_INTEGER)) {
    throw invalid('`timeoutMs` is not a number of milliseconds, 0 or more');
  }
  return Math.ceil(timeoutMs);
}

/** What a context may have. */
export const CONTEXT_NAMES = [
  'panelId', 'handlerName', 'state', 'args', 'scope', 'capabilities', 'extensionRegistry', 'limits', 'strictCapabilities', 'suspendMode', 'seed', 'lossy',
] as const satisfies readonly (keyof HandlerContext)[];

/** What a context may narrow. */
const LIMIT_NAMES = ['memoryLimitBytes', 'maxHostCalls', 'maxStateMutations', 'maxEvents', 'maxResultBytes', 'maxLogBytes'];

const CONTEXT = new Set<string>(CONTEXT_NAMES);
const LIMITS = new Set(LIMIT_NAMES);
const PRECOMPILE = new Set(['suspendMode']);
const ASYNC_RESULT = new Set(['success', 'value', 'error']);
const EXTENSION_ERROR = new Set(['message', 'name', 'code']);

export function checkIsContext(context: unknown): void {
  if (typeof context !== 'object' || context === null) throw invalid('the context is not an object');
}

/** A copy of a context with nothing in it that would be ignored. */
export function checkContext(context: HandlerContext): HandlerContext {
  return checkOptions('the context', 'field of the context', context, CONTEXT);
}

/**
 * The fields of an execute request that come from the context, which is a copy of the caller's. Lists in it are copied too.
 * `buffers`: what a Buffer in `state`, `args` and `scope` is.
 */
export function contextFields(
  context: HandlerContext,
  timeoutMs: number | undefined,
  extensionRegistry = context.extensionRegistry,
  buffers: 'messagepack' | 'bytes' = 'bytes',
): ExecuteRequest {
  const { panelId, handlerName, strictCapabilities, suspendMode, seed } = context;
  checkName('panelId', panelId);
  checkName('handlerName', handlerName);
  const capabilities = context.capabilities === undefined ? undefined : checkStrings('capabilities', context.capabilities);
  let names = capabilities?.length ?? 0;
  const extensions = extensionRegistry === undefined ? undefined : checkRegistry(extensionRegistry);
  for (const name in extensions) names += 2 + (extensions[name] as readonly string[]).length;
  if (names > MAX_LISTED_NAMES) throw invalid(`capabilities and extensions list more than ${MAX_LISTED_NAMES} names`);
  const limits = checkLimits(context.limits);
  if (strictCapabilities !== undefined && typeof strictCapabilities !== 'boolean') {
    throw invalid('`strictCapabilities` is not a boolean');
  }
  checkSuspendMode(suspendMode);
  if (seed !== undefined) checkSeed(seed);
  if (isLossless(context)) for (const name of ['state', 'args', 'scope'] as const) checkLossless(name, context[name]);
  const resident = ResidentState.use(context.state);
  if (buffers === 'bytes' && Buffer.isBuffer(context.state)) {
    throw invalid('`state` is a Buffer, which is bytes here, and a state is an object; `encoded(buffer)` says that it is MessagePack');
  }
  const payload = buffers === 'bytes' ? asPayload : asMessagePack;
  return {
    panelId,
    handlerName,
    state: resident === undefined ? payload(context.state) : undefined,
    resident,
    args: payload(context.args),
    scope: payload(context.scope),
    capabilities,
    extensions,
    timeoutMs,
    limits,
    strictCapabilities,
    suspendMode,
    seed,
  };
}

/** Whether the caller wants to be told of what would be lost. */
export function isLossless({ lossy }: HandlerContext): boolean {
  if (lossy !== undefined && lossy !== 'drop' && lossy !== 'throw') throw invalid("`lossy` is neither 'drop' nor 'throw'");
  return lossy === 'throw';
}

export function checkPrecompileOptions(options: PrecompileOptions | undefined): SuspendMode | undefined {
  if (options === undefined) return undefined;
  const { suspendMode } = checkOptions('what is given as options', 'option', options, PRECOMPILE);
  checkSuspendMode(suspendMode);
  return suspendMode;
}

function checkSuspendMode(mode: unknown): void {
  if (mode !== undefined && mode !== 'await' && mode !== 'stack') throw invalid("`suspendMode` is neither 'await' nor 'stack'");
}

function checkName(key: string, value: unknown): void {
  if (value === undefined) return;
  if (typeof value !== 'string') throw invalid(`\`${key}\` is not a string`);
  // A UTF-16 unit is at most three bytes.
  if (value.length * 3 > MAX_LABEL_BYTES && Buffer.byteLength(value) > MAX_LABEL_BYTES) {
    throw invalid(`\`${key}\` is longer than ${MAX_LABEL_BYTES} bytes`);
  }
}

function checkRegistry(registry: NonNullable<HandlerContext['extensionRegistry']>): Record<string, readonly string[]> {
  checkPlain('`extensionRegistry`', registry);
  const copy: Record<string, readonly string[]> = Object.create(null) as Record<string, readonly string[]>;
  for (const [name, methods] of Object.entries(registry)) copy[name] = checkStrings('extensionRegistry', methods);
  return copy;
}

/** A copy of the list. */
function checkStrings(key: string, value: unknown): string[] {
  if (!Array.isArray(value)) throw invalid(`\`${key}\` is not an array of strings`);
  const copy: string[] = [];
  // By index: `every` would pass over holes.
  for (let index = 0; index < value.length; index++) {
    const text: unknown = value[index];
    if (typeof text !== 'string') throw invalid(`\`${key}\` is not an array of strings`);
    if (HALF_PAIR.test(text)) throw invalid(`\`${key}\` has half a surrogate pair in ${JSON.stringify(text)}, which no name keeps`);
    copy.push(text);
  }
  return copy;
}

/** Those that are there: one that is undefined is absent. */
function checkLimits(limits: HandlerContext['limits']): Record<string, number> | undefined {
  if (limits === undefined) return undefined;
  const given: Record<string, number> = {};
  for (const [name, limit] of Object.entries<unknown>(checkOptions('`limits`', 'limit', limits, LIMITS))) {
    if (limit === undefined) continue;
    if (!Number.isSafeInteger(limit) || (limit as number) < 0) throw invalid(`limit \`${name}\` is not a whole number, 0 or more`);
    given[name] = limit as number;
  }
  return given;
}

function checkSeed(seed: number | bigint): void {
  const whole = typeof seed === 'bigint' ? seed >= 0n && seed < 2n ** 64n : Number.isSafeInteger(seed) && seed >= 0;
  if (!whole) throw invalid('`seed` is not a whole number of 64 bits');
}

/** How an extension call ended, as the wire has it. */
export type Outcome = { value: unknown } | { error: ExtensionError };

export function checkAsyncResult(given: AsyncResult | Buffer): Outcome {
  return outcomeOf(given, () => undefined);
}

/** The same, and throws for a result that says two things, or an error that would tell the handler nothing. The doors' callers may send either. */
export function checkConsistentResult(given: AsyncResult | Buffer): Outcome {
  return outcomeOf(given, checkConsistent);
}

/** As a caller gives it, whatever its type says. */
interface GivenResult {
  success?: unknown;
  value?: unknown;
  error?: unknown;
}

function outcomeOf(given: AsyncResult | Buffer, check: (result: GivenResult) => void): Outcome {
  if (Buffer.isBuffer(given)) return { value: given };
  const result: GivenResult =
    typeof given === 'object' && given !== null ? checkOptions('the result of an extension call', 'field of the result', given, ASYNC_RESULT) : {};
  check(result);
  if (result.success === true) return { value: result.value };
  if (result.success === false) return { error: extensionError(result.error) };
  throw invalid('the result of an extension call is `{success: true, value}`, `{success: false, error}` or a Buffer of MessagePack');
}

function checkConsistent({ success, value, error }: GivenResult): void {
  if (success === true && error !== undefined) throw invalid('the result of an extension call is a success, and has an `error`');
  if (success !== false) return;
  if (value !== undefined) throw invalid('the result of an extension call is none, and has a `value`');
  if (error === undefined || typeof error === 'string' || error instanceof Error) return;
  if (typeof error !== 'object' || error === null || typeof (error as { message?: unknown }).message !== 'string') {
    throw invalid('`error` of the result is neither a string nor an object with a `message`');
  }
  checkNames('field of the error', error, EXTENSION_ERROR);
}

/** A copy, as it is at the call: extensions look at it later. */
export function checkLabels(labels: unknown): Readonly<Record<string, string>> {
  checkPlain('`labels`', labels);
  const given: Record<string, string> = {};
  for (const [name, label] of Object.entries<unknown>(labels as Record<string, unknown>)) {
    if (label === undefined) continue;
    if (typeof label !== 'string') throw invalid(`label \`${name}\` is not a string`);
    define(given, name, label);
  }
  return Object.freeze(given);
}

function extensionError(error: unknown): ExtensionError {
  return error === undefined || error === null ? { message: 'the extension call failed' } : toExtensionError(error);
}

function invalid(message: string): NexusError {
  return new NexusError('INVALID_ARGUMENT', message);
}
