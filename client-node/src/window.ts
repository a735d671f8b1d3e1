/**
 * How many requests may be with the sidecar. It allows `maxInFlight`, but what waits there waits against its time limits; so of slow
 * handlers only so many are sent that each is soon begun. The others wait here, where no time runs.
 *
 * Invariants: between START (or what is allowed, when that is less) and what is allowed; changes with what answers tell of their wait.
 */
import { RESERVED_IN_FLIGHT, UNANSWERED_BEFORE_HELLO } from './limits.js';

/** Sent before anything is known of the handlers; as many keep two cores as busy as a thousand do. */
const START = 32;
/** Requests are to wait in the sidecar no longer than this, or than this part of their time limit. */
const WAIT_MS = 4;
const WAIT_PART = 1 / 100;

export class Window {
  #size = UNANSWERED_BEFORE_HELLO;
  #most = UNANSWERED_BEFORE_HELLO;
  #waitMs = WAIT_MS;

  get size(): number {
    return this.#size;
  }

  open(maxInFlight: number, timeoutMs: number): void {
    this.#most = Math.max(1, maxInFlight - Math.min(RESERVED_IN_FLIGHT, Math.floor(maxInFlight / 4)));
    this.#size = Math.min(START, this.#most);
    if (timeoutMs > 0) this.#waitMs = Math.min(WAIT_MS, timeoutMs * WAIT_PART);
  }

  /** Nothing is unanswered: what comes next may be of another kind. */
  rest(): void {
    this.#size = Math.min(START, this.#most);
  }

  /** An answer's request had waited in the sidecar's queue; `full`: more would have been sent. */
  answered(queueMs: number, full: boolean): void {
    if (queueMs > 2 * this.#waitMs) this.#size = Math.max(Math.min(START, this.#most), this.#size - 2);
    else if (full && queueMs < this.#waitMs && this.#size < this.#most) this.#size++;
  }
}
