/**
 * Which request is sent when: the window of those that are with the sidecar, the places of what may be suspended, and the lines of
 * those that wait. Requests and answers come in, decisions go out; knows neither sockets nor what a request means.
 *
 * Invariants: no more counted requests are with the sidecar than the window says; nothing overtakes within its line; what waits is
 * bounded in number and in bytes. What is urgent (a cancel, a ping) is sent at once and is not told here. The Rust client decides
 * alike: both are held to tests/conformance/scheduling.json.
 */
import { NexusError } from './errors.js';
import { OVERLOADED_RETRY_MS, PLACES_EXPIRE_MS, UNANSWERED_BEFORE_HELLO } from './limits.js';
import { Places, type Place } from './places.js';
import { Waiting, type Turn } from './waiting.js';
import { Window } from './window.js';

/** What may wait. */
export interface Bounds {
  requests: number;
  bytes: number;
}

export class Scheduler {
  readonly #bounds: Bounds;
  readonly #window = new Window();
  readonly #places: Places;
  readonly #waiting = new Waiting();
  /** Counted requests that are with the sidecar. */
  #sent = 0;

  /** `onFree`: a place has become free, so that `next` may have something to give. */
  constructor(bounds: Bounds, onFree: () => void) {
    this.#bounds = bounds;
    this.#places = new Places(PLACES_EXPIRE_MS, onFree);
  }

  /** What the sidecar's hello says. */
  open(limits: Readonly<Record<string, number>>): void {
    this.#window.open(limits['maxInFlight'] ?? UNANSWERED_BEFORE_HELLO, limits['timeoutMs'] ?? 0);
    this.#places.open(limits['maxSuspended'], limits['suspensionTimeoutMs']);
  }

  get isIdle(): boolean {
    return this.#waiting.size === 0;
  }

  /** Counts a request that is to be written now. False: it must wait. */
  passes({ place }: Turn): boolean {
    if (!this.#hasRoom()) return false;
    if (place !== undefined && (this.#waiting.forPlaces || !this.#places.take(place))) return false;
    this.#sent++;
    return true;
  }

  /** Puts a request behind the others of its line; `frame` makes it, if there is room. Throws OVERLOADED. */
  wait(id: number, frame: () => Buffer, turn: Turn): void {
    const { requests, bytes } = this.#bounds;
    if (this.#waiting.size >= requests) throw overloaded('waitingRequests', requests, this.#waiting.size);
    const made = frame();
    const waiting = this.#waiting.bytes + made.length;
    // One alone may be as large as a frame can be.
    if (waiting > bytes && this.#waiting.size > 0) throw overloaded('waitingBytes', bytes, waiting);
    this.#waiting.add(id, made, turn);
  }

  /** The next one to be written, counted. */
  next(): Buffer | undefined {
    if (this.#waiting.size === 0 || !this.#hasRoom()) return undefined;
    const frame = this.#waiting.next((place) => this.#places.take(place));
    if (frame !== undefined) this.#sent++;
    return frame;
  }

  /** A counted request was answered, or not written after all. `queueMs`: how long an execution had waited in the sidecar. */
  done(queueMs?: number): void {
    this.#sent--;
    if (queueMs !== undefined) this.#window.answered(queueMs, !this.isIdle);
    if (this.isIdle && this.#sent === 0) this.#window.rest();
  }

  /** Takes a request back that waits. */
  withdraw(id: number): boolean {
    return this.#waiting.take(id) !== undefined;
  }

  /** Takes a place for what is begun by another's request. False: there is none now. */
  takePlace(place: Place): boolean {
    return !this.#waiting.forPlaces && this.#places.take(place);
  }

  /** What was begun at this place is over. */
  leave(place: Place): void {
    this.#places.leave(place);
  }

  close(): void {
    this.#waiting.clear();
    this.#places.close();
  }

  #hasRoom(): boolean {
    return this.#sent < this.#window.size;
  }
}

function overloaded(resource: string, limit: number, count: number): NexusError {
  return new NexusError('OVERLOADED', `too much waits for the sidecar already: ${count} of ${limit} (${resource})`, {
    context: { resource, limit, count, retryAfterMs: OVERLOADED_RETRY_MS },
  });
}
