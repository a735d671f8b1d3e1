/** The table of tests/conformance/scheduling.json, which the Rust client runs too. Its README says what the keys mean. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mock, test } from 'node:test';

import { NexusError } from '@nexus/sidecar';
import type { Place } from '../dist/esm/places.js';
import { Restarts, type NextStart } from '../dist/esm/restarts.js';
import { Scheduler } from '../dist/esm/scheduler.js';

interface Step {
  at?: number;
  request?: number;
  requests?: [number, number];
  bytes?: number;
  continues?: boolean;
  place?: string;
  answered?: number | [number, number];
  queueMs?: number;
  withdraw?: number;
  leave?: string;
  out?: unknown;
  sends?: number[];
}

interface Case {
  name: string;
  hello: Record<string, number>;
  bounds?: { requests: number; bytes: number };
  steps: Step[];
}

interface RestartCase {
  name: string;
  policy: { deaths: number; windowMs: number; coolDownMs: number; maxDelayMs: number };
  steps: { at: number; died?: { readySince?: number }; next?: NextStart }[];
}

const table = JSON.parse(readFileSync(new URL('../../tests/conformance/scheduling.json', import.meta.url), 'utf8')) as {
  scheduling: Case[];
  restarts: RestartCase[];
};

function run({ hello, bounds, steps }: Case): void {
  const sent: number[] = [];
  const numbers = new Map<Buffer, number>();
  const places = new Map<string, Place>();
  const place = (name: string): Place => places.get(name) ?? places.set(name, { round: 0 }).get(name)!;
  const pump = (): void => {
    for (let frame = scheduler.next(); frame !== undefined; frame = scheduler.next()) sent.push(numbers.get(frame)!);
  };
  const scheduler = new Scheduler(bounds ?? { requests: 1000, bytes: 1_000_000 }, pump);
  scheduler.open({ timeoutMs: 5000, suspensionTimeoutMs: 30_000, ...hello });
  const request = (id: number, step: Step): unknown => {
    const turn = { continues: step.continues === true, ...(step.place === undefined ? {} : { place: place(step.place) }) };
    if (scheduler.passes(turn)) return 'sent';
    const frame = Buffer.alloc(step.bytes ?? 10);
    numbers.set(frame, id);
    try {
      scheduler.wait(id, () => frame, turn);
      return 'waits';
    } catch (error) {
      assert.ok(error instanceof NexusError && error.code === 'OVERLOADED');
      const { resource, limit, count } = error.context ?? {};
      return { resource, limit, count };
    }
  };
  let now = 0;
  for (const step of steps) {
    const about = JSON.stringify(step);
    sent.length = 0;
    if (step.at !== undefined) mock.timers.tick(step.at - now);
    now = step.at ?? now;
    const [first, last] = step.requests ?? [step.request, step.request];
    if (first !== undefined) for (let id = first; id <= last!; id++) assert.deepEqual(request(id, step), step.out, about);
    if (step.withdraw !== undefined) assert.equal(scheduler.withdraw(step.withdraw), step.out, about);
    if (step.leave !== undefined) scheduler.leave(place(step.leave));
    if (step.answered !== undefined) {
      const [from, to] = Array.isArray(step.answered) ? step.answered : [step.answered, step.answered];
      for (let id = from; id <= to; id++) scheduler.done(step.queueMs);
      pump();
    }
    assert.deepEqual(sent, step.sends ?? [], about);
  }
  scheduler.close();
}

for (const item of table.scheduling) {
  test(`scheduling: ${item.name}`, () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      run(item);
    } finally {
      mock.timers.reset();
    }
  });
}

for (const { name, policy, steps } of table.restarts) {
  test(`restarts: ${name}`, () => {
    const restarts = new Restarts(policy, () => 0);
    for (const step of steps) {
      const { at, died } = step;
      if (died !== undefined) restarts.died(died.readySince ?? at, died.readySince !== undefined, at);
      if (step.next !== undefined) assert.deepEqual(restarts.next(at), step.next, JSON.stringify(step));
    }
  });
}
