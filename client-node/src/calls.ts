/**
 * The extension calls of one execution. The sidecar tells of a call once, in the answer of the segment that made it (SPEC 3); which
 * calls are outstanding after a segment is known here.
 *
 * Invariants: segments come in the order of their `seq`; calls stand in the order in which they were made. A segment costs what it
 * made, however many calls wait: the list of them all is made when somebody looks at it.
 */
import type { Suspension } from './types.js';

interface Call<Args> {
  readonly suspension: Suspension<Args>;
  /** The segment that made it. */
  readonly made: number;
  /** The segment that its answer began. */
  answered: number;
}

/** What a segment says of calls: those that it made, until `Calls.segment` has seen it; then all that are outstanding. */
interface OfSegment<Args> {
  seq: number;
  suspensions: Suspension<Args>[];
}

export class Calls<Args = unknown> {
  /** All calls since none was outstanding: what lists of segments since then may have to show. */
  #history: Call<Args>[] = [];
  readonly #waiting = new Map<string, Call<Args>>();
  /** None before this place in the history waits. */
  #first = 0;

  /** How many wait. */
  get size(): number {
    return this.#waiting.size;
  }

  has(id: string): boolean {
    return this.#waiting.has(id);
  }

  /** Of those that wait. */
  ids(): string[] {
    return [...this.#waiting.keys()];
  }

  /** The first call that waits. */
  get oldest(): Suspension<Args> | undefined {
    for (; this.#first < this.#history.length; this.#first++) {
      const call = this.#history[this.#first] as Call<Args>;
      if (call.answered === Infinity) return call.suspension;
    }
    return undefined;
  }

  /** A segment that began with the answer to the call `answered` is suspended. */
  segment(segment: OfSegment<Args>, answered: string | undefined): void {
    const { seq, suspensions: made } = segment;
    const call = answered === undefined ? undefined : this.#waiting.get(answered);
    if (call !== undefined) {
      call.answered = seq;
      this.#waiting.delete(call.suspension.suspensionId);
    }
    const alone = this.#waiting.size === 0;
    if (alone) {
      // Lists of earlier segments keep the history that they were made for.
      this.#history = [];
      this.#first = 0;
    }
    for (const suspension of made) {
      const call = { suspension, made: seq, answered: Infinity };
      this.#history.push(call);
      this.#waiting.set(suspension.suspensionId, call);
    }
    if (alone) return;
    const history = this.#history;
    const count = history.length;
    lazily(segment, 'suspensions', () => {
      const list: Suspension<Args>[] = [];
      for (let index = 0; index < count; index++) {
        const call = history[index] as Call<Args>;
        if (call.answered > seq) list.push(call.suspension);
      }
      return list;
    });
  }
}

/** A property that is made when it is first looked at, and is like any other from then on. */
function lazily<Target extends object, Key extends keyof Target>(target: Target, key: Key, make: () => Target[Key]): void {
  const become = (value: Target[Key]): void => {
    Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
  };
  Object.defineProperty(target, key, {
    get: () => {
      const value = make();
      become(value);
      return value;
    },
    set: become,
    enumerable: true,
    configurable: true,
  });
}
