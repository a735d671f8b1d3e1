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

/** After so many have left, the room that they had is given back. */
const COMPACT_AFTER = 1024;

/**
 * One line. Not a Map alone: the first key of one from whose front many were deleted is looked for among all the gaps, so that a long
 * line would take a time that grows with its square.
 */
class Line {
  readonly #entries = new Map<number, Entry>();
  /** Ids in their order; some of them may have left already. */
  #order: number[] = [];
  #head = 0;

  get size(): number {
    return this.#entries.size;
  }

  add(id: number, entry: Entry): void {
    this.#entries.set(id, entry);
    this.#order.push(id);
  }

  first(): number | undefined {
    if (this.#entries.size === 0) {
      this.clear();
      return undefined;
    }
    while (!this.#entries.has(this.#order[this.#head] as number)) this.#head++;
    if (this.#head >= COMPACT_AFTER && this.#head * 2 >= this.#order.length) {
      this.#order = this.#order.slice(this.#head);
      this.#head = 0;
    }
    return this.#order[this.#head];
  }

  get(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  delete(id: number): void {
    this.#entries.delete(id);
  }

  clear(): void {
    this.#entries.clear();
    this.#order = [];
    this.#head = 0;
  }
}

export class Waiting {
  readonly #continuing = new Line();
  readonly #beginning = new Line();
  /** As `#beginning`, and in need of a place. */
  readonly #placed = new Line();
  readonly #lines = [this.#continuing, this.#beginning, this.#placed];
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
    line.add(id, { frame, place });
    this.bytes += frame.length;
  }

  /** The next one's frame. `mayTake`: whether there is a place; asked last, since it takes it. */
  next(mayTake: (place: Place) => boolean): Buffer | undefined {
    const continues = this.#continuing.first();
    if (continues !== undefined) return this.take(continues);
    const begins = this.#beginning.first();
    const placed = this.#placed.first();
    if (placed !== undefined && (begins === undefined || placed < begins)) {
      const place = this.#placed.get(placed)?.place;
      if (place === undefined || mayTake(place)) return this.take(placed);
    }
    return begins === undefined ? undefined : this.take(begins);
  }

  take(id: number): Buffer | undefined {
    for (const line of this.#lines) {
      const entry = line.get(id);
      if (entry === undefined) continue;
      line.delete(id);
      this.bytes -= entry.frame.length;
      return entry.frame;
    }
    return undefined;
  }

  clear(): void {
    for (const line of this.#lines) line.clear();
    this.bytes = 0;
  }
}
