/**
 * How long a run waits for its extensions: `suspensionTimeoutMs` for each call, since the sidecar drops an execution soon after that.
 *
 * Invariants: a call is over once, by its answer or by being late. All calls of a run may take the same time, so the first that began
 * is the first that is late, and one timer does for all of them.
 */
import type { CurrentCall } from './current.js';

/** The longest that a timer of Node takes. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Patience {
  /** For one call; 0: for ever. */
  readonly #ms: number;
  readonly #onLate: (call: CurrentCall) => void;
  /** Calls at work, the first that began first, and when they are late. */
  readonly #atWork = new Map<CurrentCall, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(ms: number, onLate: (call: CurrentCall) => void) {
    this.#ms = ms;
    this.#onLate = onLate;
  }

  begin(call: CurrentCall): void {
    this.#atWork.set(call, performance.now() + this.#ms);
    this.#watch(this.#ms);
  }

  /** It is answered. False: it was late before. */
  end(call: CurrentCall): boolean {
    return this.#atWork.delete(call);
  }

  /** No call is late any more. Those that were at work. */
  stop(): CurrentCall[] {
    const calls = [...this.#atWork.keys()];
    this.#atWork.clear();
    clearTimeout(this.#timer);
    return calls;
  }

  #watch(ms: number): void {
    if (this.#ms === 0) return;
    // What holds Node alive is the run.
    this.#timer ??= setTimeout(() => this.#look(), Math.min(Math.max(ms, 1), LONGEST_TIMER_MS)).unref();
  }

  #look(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const [call, late] of this.#atWork) {
      if (late > now) return this.#watch(late - now);
      this.#atWork.delete(call);
      this.#onLate(call);
    }
  }
}
