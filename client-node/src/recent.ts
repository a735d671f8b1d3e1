/** What was used last, bounded by number and by characters; what was used longest ago goes first. */
import { MAX_REMEMBERED_HANDLES, MAX_REMEMBERED_SOURCE_CHARS } from './limits.js';

export class Recent<Value> {
  readonly #entries = new Map<string, { value: Value; chars: number }>();
  #chars = 0;

  /** `chars`: what it holds. One that holds more than there may be is not kept. */
  set(key: string, value: Value, chars: number): void {
    this.delete(key);
    this.#entries.set(key, { value, chars });
    this.#chars += chars;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= MAX_REMEMBERED_HANDLES && this.#chars <= MAX_REMEMBERED_SOURCE_CHARS) break;
      this.delete(oldest);
    }
  }

  get(key: string): Value | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#chars -= entry.chars;
  }
}
