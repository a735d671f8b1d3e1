/**
 * When a sidecar that has ended is started again. Pure: time comes in, decisions go out; starts nothing itself.
 *
 * One that ran well is replaced at once. One that died young is replaced after a wait that doubles, less a random half, so
 * that many clients do not start at the same moment. Too many deaths in a window are a crash loop: nothing is started until
 * the cool-down is over; then one start is tried (half-open), and its early death opens the circuit again at once.
 */
import { BACKOFF_FIRST_MS, STABLE_AFTER_MS } from './limits.js';

export interface RestartPolicy {
  /** So many within the window are a crash loop. */
  deaths: number;
  windowMs: number;
  coolDownMs: number;
  /** The longest wait after an early death. */
  maxDelayMs: number;
}

export type NextStart = { waitMs: number } | { refusedForMs: number; deaths: number };

export class Restarts {
  readonly #policy: RestartPolicy;
  readonly #random: () => number;
  /** Deaths within the window, oldest first. */
  #deaths: number[] = [];
  /** Deaths in a row without one that ran well. */
  #early = 0;
  #state: 'closed' | 'half-open' | { openUntil: number } = 'closed';

  constructor(policy: RestartPolicy, random: () => number = Math.random) {
    this.#policy = policy;
    this.#random = random;
  }

  /** What to do for a call that needs a sidecar when there is none. */
  next(now: number): NextStart {
    if (typeof this.#state === 'object') {
      const refusedForMs = this.#state.openUntil - now;
      if (refusedForMs > 0) return { refusedForMs, deaths: this.#deaths.length };
      this.#state = 'half-open';
      return { waitMs: 0 };
    }
    if (this.#early === 0) return { waitMs: 0 };
    const full = Math.min(BACKOFF_FIRST_MS * 2 ** (this.#early - 1), this.#policy.maxDelayMs);
    return { waitMs: full * (1 - this.#random() / 2) };
  }

  /** A sidecar has ended that nobody had asked to. `ready`: it had said hello. */
  died(startedAt: number, ready: boolean, now: number): void {
    const stable = ready && now - startedAt >= STABLE_AFTER_MS;
    const wasHalfOpen = this.#state === 'half-open';
    this.#early = stable ? 0 : this.#early + 1;
    this.#deaths = this.#deaths.filter((at) => now - at < this.#policy.windowMs);
    this.#deaths.push(now);
    if (wasHalfOpen && stable) {
      this.#state = 'closed';
      this.#deaths = [now];
    } else if (wasHalfOpen || this.#deaths.length >= this.#policy.deaths) {
      this.#state = { openUntil: now + this.#policy.coolDownMs };
    }
  }
}
