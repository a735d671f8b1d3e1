/** Sources of compiled handlers, so that a handle which its sidecar no longer knows (it restarted) can be compiled again. */
import { asBuffer } from './payload.js';
import { Recent } from './recent.js';
import type { SuspendMode } from './types.js';

export interface Remembered {
  source: string;
  /** What was asked for, not what the text decided. */
  suspendMode: SuspendMode | undefined;
  /** The handle that the present sidecar knows. */
  current: Uint8Array;
  /** One compilation at a time, however many executions ask for it. */
  recompiling?: Promise<Uint8Array>;
}

export class Handles {
  readonly #entries = new Recent<Remembered>();
  #replaced = false;

  remember(handle: Uint8Array, source: string, suspendMode?: SuspendMode): void {
    this.#entries.set(keyOf(handle), { source, suspendMode, current: handle }, source.length);
  }

  find(handle: Uint8Array): Remembered | undefined {
    return this.#entries.get(keyOf(handle));
  }

  /** The handle to send in place of `handle`. Looks nothing up as long as nothing was ever replaced. */
  current(handle: Uint8Array): Uint8Array {
    return this.#replaced ? (this.find(handle)?.current ?? handle) : handle;
  }

  replace(entry: Remembered, current: Uint8Array): void {
    entry.current = current;
    this.#replaced = true;
  }
}

function keyOf(handle: Uint8Array): string {
  return asBuffer(handle).toString('latin1');
}
