/**
 * AbortSignal for one segment: an abort ends the execution in the sidecar, wherever the request is by then.
 *
 * The promise rejects with CANCELLED and the signal's reason once the sidecar has said what became of the request, or at once
 * where it was not sent or the sidecar is still starting. Nothing is left running or suspended, and no listener either.
 */
import type { Connection, RequestOptions } from './connection.js';
import { abortError, NexusError } from './errors.js';
import { checkOptions } from './names.js';
import type { Suspension } from './types.js';

/** What a request can be ended by. */
export type CancelTarget = { suspension: string } | { request: number };

const SIGNAL = new Set(['signal']);

export function abortable<Result extends { suspension?: Suspension<unknown> }>(
  connection: Connection,
  signal: AbortSignal | undefined,
  resumed: string | undefined,
  /** Cancels, without waiting for what becomes of it. */
  end: (target: CancelTarget) => void,
  request: (options?: RequestOptions) => Promise<Result>,
): Promise<Result> {
  if (signal === undefined) return request();
  if (signal.aborted) return Promise.reject(aborted(signal));
  return new Promise<Result>((resolve, reject) => {
    let id = 0;
    let stopped = false;
    const onAbort = (): void => {
      stopped = true;
      if (!connection.withdraw(id, aborted(signal))) end({ request: id });
      else if (resumed !== undefined) end({ suspension: resumed });
      if (connection.info === undefined) reject(aborted(signal));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const done = (): void => signal.removeEventListener('abort', onAbort);
    const answered = request({
      onId: (given) => {
        id = given;
      },
    });
    answered.then(
      (result) => {
        done();
        if (!stopped) return resolve(result);
        // The cancel and the suspension crossed.
        if (result.suspension !== undefined) end({ suspension: result.suspension.suspensionId });
        reject(aborted(signal));
      },
      (error: unknown) => {
        done();
        reject(stopped && connection.failure === undefined ? aborted(signal) : error);
      },
    );
  });
}

function aborted(signal: AbortSignal): NexusError {
  return abortError('the call was aborted', signal);
}

/** Of the options of a call that runs one segment. */
export function signalOf(options: { signal?: AbortSignal } | undefined): AbortSignal | undefined {
  return options === undefined ? undefined : checkSignal(checkOptions('what is given as options', 'option', options, SIGNAL));
}

export function checkSignal(options: { signal?: AbortSignal }): AbortSignal | undefined {
  const { signal }: { signal?: unknown } = options;
  if (signal === undefined || isSignal(signal)) return signal;
  throw new NexusError('INVALID_ARGUMENT', '`signal` is not an AbortSignal');
}

/** Also one of a polyfill, or of another realm. */
function isSignal(signal: unknown): signal is AbortSignal {
  if (typeof signal !== 'object' || signal === null) return false;
  const { aborted, addEventListener, removeEventListener } = signal as Partial<AbortSignal>;
  return typeof aborted === 'boolean' && typeof addEventListener === 'function' && typeof removeEventListener === 'function';
}
