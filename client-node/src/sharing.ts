/**
 * Whether a connection has shared memory, and how it comes to have it.
 *
 * ```text
 *   none --a large payload, and the sidecar allows it--> opening --> open
 *                                                           \--> never
 * ```
 * Nobody waits for any of this: until it is open, and where it cannot be, payloads go through the socket.
 */
import { Arena } from './arena.js';
import type { Fields } from './fields.js';
import { ARENA_THRESHOLD_BYTES } from './limits.js';
import { string, uint } from './typed.js';

/** Sends an openArena, and gives what is read of its answer. */
export type AskArena = <T>(fields: Fields, read: (answer: Record<string, unknown>) => T) => Promise<T>;

export class Sharing {
  readonly #ask: AskArena;
  /** `none`: no payload was large enough yet. `never`: switched off, refused, or broken. */
  #state: 'none' | 'opening' | 'open' | 'never';
  /** Something large has passed. */
  #wanted = false;
  /** Of an arena at most, as the sidecar says; 0: it has not said, or there is none. */
  #maxBytes = 0;
  #arena: Arena | undefined;

  constructor(isAllowed: boolean, ask: AskArena) {
    this.#state = isAllowed ? 'none' : 'never';
    this.#ask = ask;
  }

  get arena(): Arena | undefined {
    return this.#arena;
  }

  /** The sidecar has said what it allows. */
  allow(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#consider();
  }

  /** A frame of this size has passed. */
  passed(bytes: number): void {
    if (bytes < ARENA_THRESHOLD_BYTES || this.#state !== 'none') return;
    this.#wanted = true;
    this.#consider();
  }

  close(): void {
    this.#state = 'never';
    this.#arena?.close();
    this.#arena = undefined;
  }

  #consider(): void {
    if (this.#state !== 'none' || !this.#wanted || this.#maxBytes === 0) return;
    this.#state = 'opening';
    // Not within a write or a read of a frame.
    queueMicrotask(() => void this.#open(this.#maxBytes));
  }

  async #open(bytes: number): Promise<void> {
    let arena: Arena | undefined;
    try {
      const made = await this.#ask({ bytes }, readArena);
      try {
        arena = Arena.open(made.name, made.generation, made.bytes);
      } catch {
        // Another container, another user, no /dev/shm: the socket it is.
      }
      await this.#ask({ generation: made.generation, opened: arena !== undefined }, () => undefined);
      if (this.#state !== 'opening') arena?.close();
      else if (arena === undefined) this.#state = 'never';
      else [this.#arena, this.#state] = [arena, 'open'];
    } catch {
      // Refused, or the connection has ended.
      arena?.close();
      this.#state = 'never';
    }
  }
}

function readArena(fields: Record<string, unknown>): { generation: number; bytes: number; name: string } {
  return { generation: uint(fields, 'generation'), bytes: uint(fields, 'bytes'), name: string(fields, 'name') };
}
