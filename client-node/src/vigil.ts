/**
 * Staying awake for an answer that comes at once. A process that sleeps in the kernel is woken tens of microseconds late,
 * which is more than a small handler takes; so the event loop may go round instead, for a moment, looking for input.
 *
 * Whether that pays is measured, not assumed: where cores are scarce it keeps the sidecar off the one that it would run on. So
 * requests come in blocks that go one way, now and then a block goes the other way, and the faster way is kept. Blocks,
 * because the sidecar looks for requests in the same manner, and is awake for the next one only if this one was quick.
 *
 * Invariants: only while one request alone is unanswered, only where answers come within the moment, never longer than it, and
 * not at all on one core. Everything else in the event loop gets its turn as ever.
 */
import { availableParallelism } from 'node:os';

/** The moment, in milliseconds. */
const MOMENT_MS = 0.15;
/** A later answer counts as no more than this; where most are as late, nothing is tried. */
const LATE_MS = 0.3;
/** Requests of a block; the first of them still meet what the block before has left, and don't count. */
const BLOCK = 16;
const UNCOUNTED = 4;
/** One block of so many is a trial of the other way: of more and more, as long as that changes nothing. */
const TRIAL_EVERY_AT_FIRST = 4;
const TRIAL_EVERY_AT_LAST = 32;
/** Staying awake has to be so much faster, since it costs processor time. */
const WORTH = 0.8;
/** A block so much slower or faster than the one before is of other requests, or under another load. */
const CHANGED = 1.4;

const spareCore = availableParallelism() > 1;

export interface Clock {
  now(): number;
  /** Calls back when the event loop has gone round. */
  nextTurn(callback: () => void): void;
}

const realClock: Clock = {
  now: () => performance.now(),
  nextTurn: (callback) => void setImmediate(callback),
};

export class Vigil {
  readonly #clock: Clock;
  readonly #enabled: boolean;
  /** When the request was sent whose answer is awaited; 0: none is. */
  #sentAt = 0;
  #looking = false;

  /** How this block waits. */
  #awake = false;
  #answers = 0;
  #sumMs = 0;
  #tillTrial = TRIAL_EVERY_AT_FIRST;
  #trialEvery = TRIAL_EVERY_AT_FIRST;
  /** The way that was kept at the last trial. */
  #pays = false;
  /** How long answers took, either way, in its last block. */
  #asleepMs = 0;
  #awakeMs = 0;

  readonly #look = (): void => {
    const awaited = this.#awake && this.#sentAt !== 0;
    if (awaited && this.#clock.now() - this.#sentAt < MOMENT_MS) this.#clock.nextTurn(this.#look);
    else this.#looking = false;
  };

  /** `allowed`: by the caller. On one core it never pays. */
  constructor(allowed: boolean, clock: Clock = realClock, hasSpareCore = spareCore) {
    this.#clock = clock;
    this.#enabled = allowed && hasSpareCore;
  }

  /** A request has been written, and it is the only one. */
  sent(): void {
    if (!this.#enabled) return;
    this.#sentAt = this.#clock.now();
    if (!this.#awake || this.#looking) return;
    this.#looking = true;
    this.#clock.nextTurn(this.#look);
  }

  /** Something has come in. */
  received(): void {
    if (this.#sentAt === 0) return;
    if (this.#answers++ >= UNCOUNTED) this.#sumMs += Math.min(this.#clock.now() - this.#sentAt, LATE_MS);
    this.#sentAt = 0;
    if (this.#answers === BLOCK) this.#nextBlock(this.#sumMs / (BLOCK - UNCOUNTED));
  }

  #nextBlock(meanMs: number): void {
    const before = this.#awake ? this.#awakeMs : this.#asleepMs;
    if (this.#awake) this.#awakeMs = meanMs;
    else this.#asleepMs = meanMs;
    this.#answers = 0;
    this.#sumMs = 0;
    const wasTrial = this.#awake !== this.#pays;
    if (wasTrial) {
      const pays = this.#awakeMs < MOMENT_MS && this.#awakeMs < this.#asleepMs * WORTH;
      this.#trialEvery = pays === this.#pays ? Math.min(this.#trialEvery * 2, TRIAL_EVERY_AT_LAST) : TRIAL_EVERY_AT_FIRST;
      this.#tillTrial = this.#trialEvery;
      this.#pays = pays;
      this.#awake = pays;
      return;
    }
    // Other requests, or another load: what was found out holds no more.
    if (meanMs > before * CHANGED || meanMs * CHANGED < before) this.#trialEvery = TRIAL_EVERY_AT_FIRST;
    this.#tillTrial = Math.min(this.#tillTrial, this.#trialEvery) - 1;
    if (this.#tillTrial > 0) return;
    if (this.#pays || meanMs < LATE_MS * WORTH) this.#awake = !this.#pays;
    else this.#tillTrial = this.#trialEvery;
  }

  /** Nothing is awaited any more, or too much to look for. */
  off(): void {
    this.#sentAt = 0;
  }
}
