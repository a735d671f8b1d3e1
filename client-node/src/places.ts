/**
 * Places for executions that may be suspended: a sidecar holds `maxSuspended` of them, and one more fails when it suspends, with its
 * effects done. So what `run` begins waits for a place, and leaves it when it is over.
 *
 * Invariants: never more are taken than there are. Runs that wait for one another (an extension that makes a run of its own) cannot
 * wait for ever: when no place has become free for as long as a suspension lasts, those that hold them have expired.
 */
import { SUSPENSION_GRACE_MS } from './limits.js';

/** The sidecar has noticed that an execution has expired after half as long again. */
const LONGER = 1.5;

/** When an execution is gone that nobody has resumed, by what the sidecar says of `suspensionTimeoutMs`; 0 is never. */
export function suspensionGoneMs(suspensionTimeoutMs: number): number {
  return suspensionTimeoutMs > 0 ? (suspensionTimeoutMs + SUSPENSION_GRACE_MS) * LONGER : Infinity;
}

export interface Place {
  /** In which round it was taken; 0: it was not. */
  round: number;
}

export class Places {
  #limit = Infinity;
  #expiryMs: number;
  readonly #onFree: () => void;
  #taken = 0;
  #round = 1;
  #timer: NodeJS.Timeout | undefined;

  constructor(expiryMs: number, onFree: () => void) {
    this.#expiryMs = expiryMs;
    this.#onFree = onFree;
  }

  /** What the sidecar has said. No limit: it is an older one, and says how many are too many when they are. */
  open(limit: number | undefined, expiryMs: number | undefined): void {
    this.#limit = limit === undefined ? Infinity : Math.max(1, limit);
    if (expiryMs !== undefined) this.#expiryMs = suspensionGoneMs(expiryMs);
  }

  /** False: there is none; `onFree` says when to ask again. */
  take(place: Place): boolean {
    if (place.round !== 0) return true;
    if (this.#taken >= this.#limit) {
      if (this.#expiryMs < Infinity) this.#timer ??= setTimeout(() => this.#expire(), this.#expiryMs).unref();
      return false;
    }
    this.#taken++;
    place.round = this.#round;
    return true;
  }

  leave(place: Place): void {
    const { round } = place;
    place.round = 0;
    if (round !== this.#round) return;
    this.#taken--;
    this.#noTimer();
    this.#onFree();
  }

  #expire(): void {
    this.#timer = undefined;
    this.#taken = 0;
    this.#round++;
    this.#onFree();
  }

  #noTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  close(): void {
    this.#noTimer();
    this.#limit = Infinity;
  }
}
