/**
 * Which connection holds which suspended execution, and in which form its results come.
 *
 * A suspension dies with its sidecar: its id is never sent to the next one. Bounded; what was never resumed has expired long
 * before so many others came, and an id that is not known here is the sidecar's to judge.
 */
import { NexusError } from './errors.js';
import { MAX_HELD_SUSPENSIONS } from './limits.js';
import type { Connection } from './connection.js';
import type { Suspension } from './types.js';

interface Held {
  /** Of the connection: not the connection itself, whose buffers would live on. */
  serial: number;
  inBuffers: boolean;
}

export class Suspended {
  readonly #held = new Map<string, Held>();

  note<Result extends { suspensions: readonly Suspension<unknown>[] }>(connection: Connection, result: Result): Result {
    const { suspensions } = result;
    for (let index = 0; index < suspensions.length; index++) {
      const { suspensionId, args } = suspensions[index] as Suspension<unknown>;
      this.#held.set(suspensionId, { serial: connection.serial, inBuffers: Buffer.isBuffer(args) });
    }
    if (this.#held.size > MAX_HELD_SUSPENSIONS) {
      for (const oldest of this.#held.keys()) {
        this.#held.delete(oldest);
        if (this.#held.size <= MAX_HELD_SUSPENSIONS) break;
      }
    }
    return result;
  }

  /** The execution's context came in Buffers. */
  inBuffers(suspension: string): boolean {
    return this.#held.get(suspension)?.inBuffers === true;
  }

  /** Forgets the suspension, which is being resumed or cancelled; throws when its sidecar is not the present one. */
  take(suspension: string, present: Connection | undefined): void {
    const held = this.#held.get(suspension);
    if (held === undefined) return;
    this.#held.delete(suspension);
    if (held.serial === present?.serial) return;
    throw new NexusError('SUSPENSION_ERROR', 'the sidecar that held this execution has gone', {
      context: { reason: 'sidecar-gone' },
    });
  }
}
