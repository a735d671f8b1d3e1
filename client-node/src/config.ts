/**
 * Configuration: what the sidecar is started with (camelCase here, kebab-case flags there) and what the client
 * itself needs. Unknown keys and wrong types are INVALID_ARGUMENT; ranges are checked by the sidecar, which knows them.
 */
import { inspect } from 'node:util';

import { NexusError } from './errors.js';
import { checkPlain, didYouMean } from './names.js';
import { SIDECAR_KEYS, type SidecarConfig } from './settings.js';

export type { SidecarConfig };

export interface ClientConfig {
  /** The sidecar's program. Else NEXUS_SIDECAR_BIN, the platform package, PATH. */
  binaryPath?: string;
  /** Connect to the socket of a running sidecar instead of starting one. */
  connect?: string;
  /** Gets each line that the sidecar writes to stderr. Without it they are dropped, but for the tail in errors. */
  onLog?: (line: string) => void;
  /** Environment of the sidecar, over the few variables it gets anyway (see README). */
  env?: Record<string, string>;
  /** Large payloads through shared memory, where that is possible. Default true; what is visible is the time that they take. */
  sharedMemory?: boolean;
  /** Whether the event loop may look for an answer for up to 0.15 ms instead of sleeping, where that is faster. Default true. */
  spin?: boolean;
  /** How long a start may take until the sidecar has said hello. Default 20000. */
  startTimeoutMs?: number;
  /** How long `shutdown` waits before it kills. Default 5000. */
  shutdownTimeoutMs?: number;
  /** Requests that may wait in the client because the sidecar takes no more. Default 100000; then OVERLOADED. */
  maxWaitingRequests?: number;
  /** The same in bytes. Default 256 MiB. */
  maxWaitingBytes?: number;
  /** So many deaths of the sidecar within `crashWindowMs` and calls fail at once for `crashCoolDownMs`. Default 5. */
  maxCrashes?: number;
  /** Default 30000. */
  crashWindowMs?: number;
  /** Default 5000. Then one start is tried. */
  crashCoolDownMs?: number;
  /** Longest wait before the next start of a sidecar that died young. Default 5000; the first is 50, and they double. */
  maxRestartDelayMs?: number;
}

export interface RuntimeConfig extends SidecarConfig, ClientConfig {}

type Check = 'count' | 'boolean' | 'string' | 'function' | 'object';

const CLIENT_KEYS: Record<keyof ClientConfig, Check> = {
  binaryPath: 'string',
  connect: 'string',
  onLog: 'function',
  env: 'object',
  sharedMemory: 'boolean',
  spin: 'boolean',
  startTimeoutMs: 'count',
  shutdownTimeoutMs: 'count',
  maxWaitingRequests: 'count',
  maxWaitingBytes: 'count',
  maxCrashes: 'count',
  crashWindowMs: 'count',
  crashCoolDownMs: 'count',
  maxRestartDelayMs: 'count',
};

/** What is said of a program that the client starts itself. */
const OF_A_CHILD = ['binaryPath', 'onLog', 'env'] as const satisfies readonly (keyof ClientConfig)[];

/** A configuration that was checked: flags for the program, options for the client. */
export interface CheckedConfig extends ClientConfig {
  flags: string[];
}

export function checkConfig(config: RuntimeConfig): CheckedConfig {
  checkPlain('the configuration', config);
  const flags: string[] = [];
  const client: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config) as [string, unknown][]) {
    if (value === undefined) continue;
    if (Object.hasOwn(SIDECAR_KEYS, key)) {
      check(key, value, SIDECAR_KEYS[key as keyof SidecarConfig]);
      // in one, so that a value that begins with a dash is none
      flags.push(`${flagName(key)}=${String(value)}`);
    } else if (Object.hasOwn(CLIENT_KEYS, key)) {
      check(key, value, CLIENT_KEYS[key as keyof ClientConfig]);
      client[key] = value;
    } else {
      throw invalid(`unknown configuration key \`${key}\`${didYouMean(key, [...Object.keys(SIDECAR_KEYS), ...Object.keys(CLIENT_KEYS)])}`);
    }
  }
  if (client['connect'] !== undefined && flags.length > 0) {
    throw invalid(`\`connect\` uses a sidecar that is already configured: remove ${flags.map((flag) => flag.split('=', 1)[0]).join(', ')}`);
  }
  const ofAChild = OF_A_CHILD.filter((key) => client[key] !== undefined);
  if (client['connect'] !== undefined && ofAChild.length > 0) {
    throw invalid(`\`connect\` uses a sidecar that somebody else has started: remove ${ofAChild.join(', ')}`);
  }
  return { ...(client as ClientConfig), flags };
}

/** maxInstances -> --max-instances, enableAOT -> --enable-aot */
export function flagName(key: string): string {
  return `--${key.replace(/([a-z])([A-Z])/g, '$1-$2').toLowerCase()}`;
}

const CALLED: Record<Check, string> = {
  count: 'a whole number, 0 or more',
  string: 'a string',
  boolean: 'a boolean',
  function: 'a function',
  object: 'an object',
};

function shown(value: unknown): string {
  return inspect(value, { depth: 0, breakLength: Infinity, maxStringLength: 100, maxArrayLength: 3, customInspect: false });
}

function check(key: string, value: unknown, wanted: Check): void {
  const ok =
    wanted === 'count' ? Number.isSafeInteger(value) && (value as number) >= 0 : typeof value === wanted && value !== null;
  if (!ok) throw invalid(`\`${key}\` must be ${CALLED[wanted]}; it is ${shown(value)}`);
  if (wanted === 'object') checkEnv(key, value);
  // neither a path nor a flag can hold it
  if (wanted === 'string' && (value as string).includes('\0')) throw invalid(`\`${key}\` has a NUL`);
  if ((key === 'binaryPath' || key === 'connect') && value === '') throw invalid(`\`${key}\` is empty`);
}

/** Variables as a process can have them. */
function checkEnv(key: string, env: unknown): void {
  checkPlain(`\`${key}\``, env);
  for (const [name, text] of Object.entries<unknown>(env as Record<string, unknown>)) {
    if (text === undefined) continue;
    if (typeof text !== 'string') throw invalid(`variable \`${name}\` of \`${key}\` must be a string; it is ${shown(text)}`);
    if (name === '' || /[=\0]/.test(name) || text.includes('\0')) throw invalid(`no process can have variable ${JSON.stringify(name)} of \`${key}\``);
  }
}

const ENV_NUMBERS = [
  ['MAX_INSTANCES', 'maxInstances', 1],
  ['MIN_INSTANCES', 'minInstances', 1],
  ['MEMORY_LIMIT_MB', 'memoryLimitBytes', 1024 * 1024],
  ['TIMEOUT_MS', 'timeoutMs', 1],
  ['MAX_HOST_CALLS', 'maxHostCalls', 1],
] as const;

/** Reads MAX_INSTANCES, MIN_INSTANCES, MEMORY_LIMIT_MB, TIMEOUT_MS, MAX_HOST_CALLS and CACHE_DIR. Unset or empty: absent. */
export function configFromEnv(env: Readonly<Record<string, string | undefined>>): SidecarConfig {
  checkPlain('the environment', env);
  const config: SidecarConfig = {};
  for (const [name, key, factor] of ENV_NUMBERS) {
    const text = variable(env, name)?.trim();
    if (text === undefined || text === '') continue;
    const value = Number(text) * factor;
    // parseInt would take "10k" for 10.
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
      throw invalid(`environment variable ${name} must be a whole number, 0 or more; it is ${JSON.stringify(text)}`);
    }
    config[key] = value;
  }
  const cacheDir = variable(env, 'CACHE_DIR');
  if (cacheDir !== undefined && cacheDir !== '') {
    if (cacheDir.includes('\0')) throw invalid('environment variable CACHE_DIR must be a path');
    config.cacheDir = cacheDir;
  }
  return config;
}

function variable(env: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const text = env[name];
  if (text === undefined || typeof text === 'string') return text;
  throw invalid(`environment variable ${name} must be a string; it is ${shown(text)}`);
}

function invalid(message: string): NexusError {
  return new NexusError('INVALID_ARGUMENT', message);
}
