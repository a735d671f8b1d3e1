/**
 * Statistics for dialects whose `getStats()` is synchronous: a copy that is refreshed in the background.
 *
 * It is asked for right after the first result and then, while results come, every REFRESH_MS; so it is at most that (plus a
 * round trip) behind the last result, and zero before the first. Refreshing never starts a sidecar, never holds Node alive
 * and never fails a call.
 */
import type { Core } from '../core.js';
import { noStats } from '../results.js';
import type { RuntimeStats } from '../types.js';

const REFRESH_MS = 250;

export class StatsCopy {
  stats: RuntimeStats = noStats();
  metrics = '';
  readonly #core: Core;
  #refreshing = false;
  #refreshedAt = -REFRESH_MS;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(core: Core) {
    this.#core = core;
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
    if (this.#refreshing || this.#core.existing() === undefined) return;
    this.#refreshing = true;
    this.#refreshedAt = performance.now();
    try {
      const background = { background: true };
      [this.stats, this.metrics] = await Promise.all([this.#core.stats(background), this.#core.metrics(background)]);
    } catch {
      // The sidecar has gone: the copy stays what it was until the next one answers.
    } finally {
      this.#refreshing = false;
    }
  }
}
