/**
 * The one error type of the client.
 *
 * A fault of the caller or of the connection rejects the promise with a NexusError; a fault of the handler is the `error`
 * of a result (`status: 'error'`), the same type, so that `throw result.error` works. `run` always throws.
 */

import { RETRYABLE_BY_CODE, type ErrorCode } from './codes.js';

export type { ErrorCode };

export interface SourceLocation {
  /** 1-based, in the handler's own source. */
  line: number;
  column: number;
}

export interface SourceSnippet {
  /** Up to five lines of the handler's source. */
  code: string;
  /** Which of them is meant, from 1. */
  highlightLine: number;
}

export interface ErrorDetails {
  retryable?: boolean;
  /** Name of the handler's own error object (`TypeError`, ...). */
  errorName?: string;
  location?: SourceLocation;
  /** Frames of the handler only; with `debug`. */
  handlerStack?: string;
  /** With `debug`. */
  snippet?: SourceSnippet;
  /** The token that was missing (PERMISSION_DENIED). */
  capability?: string;
  context?: Record<string, string | number>;
  /** The handler's error's own fields. */
  properties?: Record<string, unknown>;
  /** Of an AggregateError: each an Error, or the value that was thrown. */
  errors?: unknown[];
  cause?: unknown;
}

/** Whether there is a cause at all: `undefined` can be one. */
function causeOf(details: { cause?: unknown }): ErrorOptions | undefined {
  return Object.hasOwn(details, 'cause') ? { cause: details.cause } : undefined;
}

/** An error inside of a handler's error: its cause, or one of several. It has no stack: its frames were the sandbox's. */
export class HandlerError extends Error {
  /** The handler's own. */
  declare readonly code?: string;
  declare readonly properties?: Record<string, unknown>;
  declare readonly errors?: unknown[];

  constructor(name: string, message: string, details: Pick<ErrorDetails, 'properties' | 'errors' | 'cause'> & { code?: string }) {
    super(message, causeOf(details));
    Object.defineProperty(this, 'name', { value: name, configurable: true, writable: true });
    if (details.code !== undefined) this.code = details.code;
    if (details.properties !== undefined) this.properties = details.properties;
    if (details.errors !== undefined) this.errors = details.errors;
  }

  toJSON(): Record<string, unknown> {
    const { name, message, code, properties, cause, errors } = this;
    return { name, message, code, properties, cause, errors };
  }
}

/** The same error with other details, or more; its name and its stack stay. */
export function copyOf(error: NexusError, details: ErrorDetails): NexusError {
  const { code, message, stack, name } = error;
  const copy = new NexusError(code, message, { ...error, ...causeOf(error), ...details });
  if (name !== copy.name) Object.defineProperty(copy, 'name', { value: name, configurable: true, writable: true });
  if (stack !== undefined) Object.defineProperty(copy, 'stack', { value: stack, configurable: true, writable: true });
  return copy;
}

/** The same error of an execution of which something has happened already (SPEC 4, retryable). */
export function midway(error: NexusError): NexusError {
  return error.retryable ? copyOf(error, { retryable: false }) : error;
}

/** The same symbol in every copy of this package that a process loads (ESM and CommonJS, two versions). */
const BRAND = Symbol.for('@nexus/sidecar.NexusError');

export class NexusError extends Error {
  /** `instanceof` holds across copies of this package: `require` and `import` of it give two classes. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this !== NexusError) return Function.prototype[Symbol.hasInstance].call(this, value);
    return typeof value === 'object' && value !== null && BRAND in value;
  }

  static {
    Object.defineProperty(this.prototype, BRAND, { value: true });
    Object.defineProperty(this.prototype, 'name', { value: 'NexusError', configurable: true, writable: true });
  }
  readonly code: ErrorCode;
  readonly retryable: boolean;
  declare readonly errorName?: string;
  declare readonly location?: SourceLocation;
  declare readonly handlerStack?: string;
  declare readonly snippet?: SourceSnippet;
  declare readonly capability?: string;
  declare readonly context?: Record<string, string | number>;
  declare readonly properties?: Record<string, unknown>;
  declare readonly errors?: unknown[];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, causeOf(details));
    this.code = code;
    this.retryable = details.retryable ?? RETRYABLE_BY_CODE[code];
    // Absent fields are not own properties: printing and comparing an error shows only what is known.
    if (details.errorName !== undefined) this.errorName = details.errorName;
    if (details.location !== undefined) this.location = details.location;
    if (details.handlerStack !== undefined) this.handlerStack = details.handlerStack;
    if (details.snippet !== undefined) this.snippet = details.snippet;
    if (details.capability !== undefined) this.capability = details.capability;
    if (details.context !== undefined) this.context = details.context;
    if (details.properties !== undefined) this.properties = details.properties;
    if (details.errors !== undefined) this.errors = details.errors;
  }

  /** An Error's message is not enumerable; without this a logged result would lose it. */
  toJSON(): Record<string, unknown> {
    const { code, message, retryable, errorName, location, handlerStack, snippet, capability, context } = this;
    const { properties, cause, errors } = this;
    return {
      ...{ code, message, retryable, errorName, location, handlerStack, snippet, capability, context },
      ...{ properties, cause, errors },
    };
  }
}

/** What a call rejects with that its own signal ended: `name` is `AbortError`, as everywhere, `code` CANCELLED, `cause` the reason. */
export function abortError(message: string, signal: AbortSignal): NexusError {
  const error = new NexusError('CANCELLED', message, { cause: signal.reason });
  Object.defineProperty(error, 'name', { value: 'AbortError', configurable: true, writable: true });
  return error;
}

/** A client treats a code that it does not know as INTERNAL_ERROR (SPEC 4). */
export function knownCode(code: string): ErrorCode {
  return Object.hasOwn(RETRYABLE_BY_CODE, code) ? (code as ErrorCode) : 'INTERNAL_ERROR';
}

/**
 * An error that came over the wire. Its stack is the handler's (with `debug`) or nothing but the message: the client's own
 * frames at this point are those of the socket reader and would mislead.
 */
export function errorFromWire(code: string, message: string, details: ErrorDetails): NexusError {
  const error = withoutFrames(() => new NexusError(knownCode(code), message, details));
  if (details.handlerStack !== undefined) {
    Object.defineProperty(error, 'stack', {
      value: `NexusError: ${message}\n${details.handlerStack}`,
      configurable: true,
      writable: true,
    });
  }
  return error;
}

export function withoutFrames<E extends Error>(make: () => E): E {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return make();
  } finally {
    Error.stackTraceLimit = limit;
  }
}

/** The error with which a failed extension call fails inside the handler (SPEC 3, resume). */
export interface ExtensionError {
  message: string;
  name?: string;
  code?: string;
}

/**
 * Anything can be thrown in JavaScript, also what throws when it is looked at (a getter, a revoked Proxy); a handler gets message,
 * name and code, and never a stack of the host.
 */
export function toExtensionError(thrown: unknown): ExtensionError {
  if (typeof thrown !== 'object' || thrown === null) return { message: describe(thrown) };
  const message = field(thrown, 'message');
  const name = field(thrown, 'name');
  const code = field(thrown, 'code');
  const error: ExtensionError = { message: typeof message === 'string' ? message : describe(thrown) };
  if (typeof name === 'string') error.name = name;
  if (typeof code === 'string' || typeof code === 'number') error.code = String(code);
  return error;
}

function field(thrown: object, key: string): unknown {
  try {
    return (thrown as Record<string, unknown>)[key];
  } catch {
    return undefined;
  }
}

function describe(value: unknown): string {
  try {
    return String(value);
  } catch {
    return 'unknown error';
  }
}
