/**
 * Statistics for dialects whose `getStats()` is synchronous: a copy that is refreshed in the background.
 *
 * It is asked for when a call begins, when one ends, when it is read, and every REFRESH_MS while calls are under way: so it is at most
 * that (plus a round trip) old, as long as anything happens or anybody looks twice, and zero before the first answer. Refreshing
 * never starts a sidecar, never holds Node alive and never fails a call.
 */
import type { Core } from '../core.js';
import { noStats } from '../results.js';
import type { RuntimeStats } from '../statistics.js';

const REFRESH_MS = 250;

export class StatsCopy {
  #stats: RuntimeStats = noStats();
  #metrics = '';
  readonly #core: Core | undefined;
  /** Calls under way. */
  #calls = 0;
  #refreshing = false;
  #refreshedAt = -REFRESH_MS;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(core: Core | undefined) {
    this.#core = core;
  }

  get isStopped(): boolean {
    return this.#stopped;
  }

  /** Whoever reads it may read it again. */
  get stats(): RuntimeStats {
    this.touch();
    return { ...this.#stats };
  }

  get metrics(): string {
    this.touch();
    return this.#metrics;
  }

  begin(): void {
    this.#calls++;
    this.touch();
  }

  end(): void {
    this.#calls--;
    this.touch();
  }

  /** Something has changed. */
  touch(): void {
    if (this.#timer !== undefined || this.#stopped) return;
    const wait = this.#refreshedAt + REFRESH_MS - performance.now();
    if (wait <= 0 && !this.#refreshing) return void this.#refresh();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#refresh();
    }, Math.max(wait, 1));
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #refresh(): Promise<void> {
    const core = this.#core;
    if (this.#refreshing || core?.existing() === undefined) return;
    this.#refreshing = true;
    this.#refreshedAt = performance.now();
    try {
      const background = { background: true };
      [this.#stats, this.#metrics] = await Promise.all([core.stats(background), core.metrics(background)]);
    } catch {
      // The sidecar has gone: the copy stays what it was until the next one answers.
    } finally {
      this.#refreshing = false;
      if (this.#calls > 0) this.touch();
    }
  }
}
