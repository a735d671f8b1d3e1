/**
 * Requests that wait in the client, encoded, for their turn with the sidecar. Knows neither sockets nor what they mean.
 *
 * Invariants: what goes on with an execution goes first, since that is what sets others free; what begins one goes in the order of
 * the calls; what needs a place (places.ts) and has none is passed over. Bounded in number and in bytes.
 */
import type { Place } from './places.js';

/** How a request takes its turn. */
export interface Turn {
  /** Goes on with what has begun already. */
  continues?: boolean;
  /** What it begins may be suspended: it needs a place. */
  place?: Place;
}

interface Entry {
  frame: Buffer;
  place: Place | undefined;
}

export class Waiting {
  readonly #continuing = new Map<number, Entry>();
  readonly #beginning = new Map<number, Entry>();
  /** As `#beginning`, and in need of a place. */
  readonly #placed = new Map<number, Entry>();
  /** Of the frames. */
  bytes = 0;

  get size(): number {
    return this.#continuing.size + this.#beginning.size + this.#placed.size;
  }

  /** Whether somebody waits for a place. */
  get forPlaces(): boolean {
    return this.#placed.size > 0;
  }

  add(id: number, frame: Buffer, { continues, place }: Turn): void {
    const line = continues === true ? this.#continuing : place !== undefined ? this.#placed : this.#beginning;
    line.set(id, { frame, place });
    this.bytes += frame.length;
  }

  /** The next one's frame. `mayTake`: whether there is a place; asked last, since it takes it. */
  next(mayTake: (place: Place) => boolean): Buffer | undefined {
    for (const id of this.#continuing.keys()) return this.take(id);
    const [begins] = this.#beginning.keys();
    for (const [id, { place }] of this.#placed) {
      if (begins !== undefined && begins < id) break;
      if (place === undefined || mayTake(place)) return this.take(id);
      break;
    }
    return begins === undefined ? undefined : this.take(begins);
  }

  take(id: number): Buffer | undefined {
    for (const line of [this.#continuing, this.#beginning, this.#placed]) {
      const entry = line.get(id);
      if (entry === undefined) continue;
      line.delete(id);
      this.bytes -= entry.frame.length;
      return entry.frame;
    }
    return undefined;
  }

  clear(): void {
    this.#continuing.clear();
    this.#beginning.clear();
    this.#placed.clear();
    this.bytes = 0;
  }
}
