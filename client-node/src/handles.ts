/**
 * Sources of compiled handlers, so that a handle which its sidecar no longer knows (it restarted) can be compiled again.
 * Bounded by number and by characters; the handle used longest ago goes first.
 */
import { MAX_REMEMBERED_HANDLES, MAX_REMEMBERED_SOURCE_CHARS } from './limits.js';
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
  readonly #entries = new Map<string, Remembered>();
  #chars = 0;
  #replaced = false;

  remember(handle: Uint8Array, source: string, suspendMode?: SuspendMode): void {
    const key = keyOf(handle);
    this.#forget(key);
    this.#entries.set(key, { source, suspendMode, current: handle });
    this.#chars += source.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= MAX_REMEMBERED_HANDLES && this.#chars <= MAX_REMEMBERED_SOURCE_CHARS) break;
      this.#forget(oldest);
    }
  }

  find(handle: Uint8Array): Remembered | undefined {
    const key = keyOf(handle);
    const entry = this.#entries.get(key);
    if (entry !== undefined) {
      this.#entries.delete(key);
      this.#entries.set(key, entry);
    }
    return entry;
  }

  /** The handle to send in place of `handle`. Looks nothing up as long as nothing was ever replaced. */
  current(handle: Uint8Array): Uint8Array {
    return this.#replaced ? (this.find(handle)?.current ?? handle) : handle;
  }

  replace(entry: Remembered, current: Uint8Array): void {
    entry.current = current;
    this.#replaced = true;
  }

  #forget(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#chars -= entry.source.length;
  }
}

function keyOf(handle: Uint8Array): string {
  return Buffer.from(handle.buffer, handle.byteOffset, handle.byteLength).toString('latin1');
}
