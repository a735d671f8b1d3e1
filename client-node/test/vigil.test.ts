/** When the client stays awake for an answer: with a clock of its own, so that every machine sees the same. */
import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { test } from 'node:test';

import { Vigil } from '../dist/esm/vigil.js';

import { newRuntime, WATCHDOG } from './sidecar.js';

/** One turn of the event loop. */
const TURN_MS = 0.002;

/** A client and a peer: how long an answer takes depends on whether somebody looks. */
class World {
  now = 1;
  turns = 0;
  #queue: (() => void)[] = [];
  readonly vigil: Vigil;

  constructor(enabled = true) {
    const clock = { now: () => this.now, nextTurn: (callback: () => void) => void this.#queue.push(callback) };
    this.vigil = new Vigil(true, clock, enabled);
  }

  /** Whether it was awaited by looking. */
  request(asleepMs: number, awakeMs: number): boolean {
    const started = this.now;
    this.vigil.sent();
    let looked = false;
    for (;;) {
      const [look] = this.#queue.splice(0, 1);
      if (look === undefined) break;
      looked = true;
      this.turns++;
      this.now += TURN_MS;
      look();
      if (this.now - started >= awakeMs) break;
    }
    this.now = Math.max(this.now, started + (looked ? awakeMs : asleepMs));
    this.vigil.received();
    // A turn that is left over ends by itself.
    for (const look of this.#queue.splice(0)) look();
    return looked;
  }

  share(requests: number, asleepMs: number, awakeMs: number): number {
    let looked = 0;
    for (let i = 0; i < requests; i++) looked += Number(this.request(asleepMs, awakeMs));
    return looked / requests;
  }
}

test('where looking is faster, nearly every answer is looked for', () => {
  const world = new World();
  world.share(200, 0.12, 0.04);
  assert.ok(world.share(5000, 0.12, 0.04) > 0.95);
});

test('where looking is slower, or hardly faster, nearly none is', () => {
  for (const awakeMs of [0.1, 0.055, 0.045]) {
    const world = new World();
    world.share(1000, 0.05, awakeMs);
    assert.ok(world.share(5000, 0.05, awakeMs) < 0.05, `${awakeMs}`);
  }
});

test('it changes its mind when the machine does', () => {
  const world = new World();
  for (let round = 0; round < 3; round++) {
    world.share(600, 0.12, 0.04);
    assert.ok(world.share(1000, 0.12, 0.04) > 0.9);
    world.share(600, 0.05, 0.1);
    assert.ok(world.share(1000, 0.05, 0.1) < 0.1);
  }
});

test('answers that take long are never looked for, and nobody looks longer than a moment', () => {
  const slow = new World();
  assert.equal(slow.share(5000, 5, 5), 0);
  const changing = new World();
  changing.share(1000, 0.12, 0.04);
  changing.turns = 0;
  changing.request(50, 50);
  assert.ok(changing.turns * TURN_MS < 0.16, `${changing.turns} turns`);
});

test('on one core nobody looks', () => {
  const world = new World(false);
  assert.equal(world.share(2000, 0.12, 0.04), 0);
});

test('a connection that waits for a slow handler sleeps', WATCHDOG, async () => {
  const runtime = newRuntime();
  for (let i = 0; i < 500; i++) await runtime.executeHandler('return 1');
  let turns = 0;
  const hook = createHook({ init: (_id, type) => void (turns += Number(type === 'Immediate')) }).enable();
  await runtime.executeHandler('let n = 0; for (let i = 0; i < 3e6; i++) n += i; return n');
  hook.disable();
  // It runs for tens of milliseconds: tens of thousands of turns.
  assert.ok(turns < 1000, `${turns} turns`);
  await runtime.shutdown();
});
