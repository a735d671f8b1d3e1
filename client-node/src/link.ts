/**
 * The sidecar behind a runtime: starts one when there is none, starts the next one after a death, ends it at shutdown.
 *
 * `connection()` is synchronous: requests go out with the hello, so the first call costs one round trip, not two. When a
 * sidecar is started again, and when not, is the business of restarts.ts.
 */
import { createConnection } from 'node:net';
import type { ChildProcess } from 'node:child_process';

import type { CheckedConfig } from './config.js';
import { Connection } from './connection.js';
import { NexusError } from './errors.js';
import {
  BACKOFF_MAX_MS,
  CRASH_LOOP_COOL_DOWN_MS,
  CRASH_LOOP_DEATHS,
  CRASH_LOOP_WINDOW_MS,
  MAX_WAITING_BYTES,
  MAX_WAITING_REQUESTS,
  SHUTDOWN_TIMEOUT_MS,
  START_TIMEOUT_MS,
} from './limits.js';
import { Kind } from './kinds.js';
import { LONGEST_TIMER_MS } from './patience.js';
import { writeRequest } from './requests.js';
import { Restarts } from './restarts.js';
import { findBinary } from './program.js';
import { childEnv, spawnSidecar, type Death } from './spawn.js';

/** One sidecar from its start to its end. */
interface Life {
  connection: Connection;
  startedAt: number;
  child?: ChildProcess;
  /** Runs until the hello, or until a start that has to wait. */
  timer?: NodeJS.Timeout;
  ended: Promise<void>;
  end(): void;
}

export class Link {
  readonly #config: CheckedConfig;
  readonly #restarts: Restarts;
  #life: Life | undefined;
  /** How the last sidecar ended: what calls are told while none is started. */
  #lastEnd: NexusError | undefined;
  #shutdown: Promise<void> | undefined;

  constructor(config: CheckedConfig) {
    this.#config = config;
    this.#restarts = new Restarts({
      deaths: config.maxCrashes ?? CRASH_LOOP_DEATHS,
      windowMs: config.crashWindowMs ?? CRASH_LOOP_WINDOW_MS,
      coolDownMs: config.crashCoolDownMs ?? CRASH_LOOP_COOL_DOWN_MS,
      maxDelayMs: config.maxRestartDelayMs ?? BACKOFF_MAX_MS,
    });
  }

  /** A connection that requests can be made on at once. Throws when there can be none. */
  connection(): Connection {
    if (this.#life !== undefined) return this.#life.connection;
    if (this.#shutdown !== undefined) throw shutDownError();
    return this.#begin().connection;
  }

  /** The connection when there is one. */
  existing(): Connection | undefined {
    return this.#life?.connection;
  }

  #begin(): Life {
    const { connect, maxWaitingRequests, maxWaitingBytes } = this.#config;
    const next = this.#restarts.next(performance.now());
    if ('refusedForMs' in next) throw crashLoopError(next, this.#lastEnd);
    // Looked up before anything is set up: a missing program is the caller's error, not a death.
    const binary = connect === undefined ? findBinary({ binaryPath: this.#config.binaryPath, env: process.env }) : '';
    let end!: () => void;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const connection = new Connection({
      requests: maxWaitingRequests ?? MAX_WAITING_REQUESTS,
      bytes: maxWaitingBytes ?? MAX_WAITING_BYTES,
      sharedMemory: this.#config.sharedMemory !== false,
      spin: this.#config.spin !== false,
    });
    const life: Life = { connection, startedAt: performance.now(), ended, end };
    this.#life = life;
    const start = (): void => {
      life.startedAt = performance.now();
      try {
        if (connect === undefined) this.#spawn(life, binary);
        else this.#connect(life, connect);
      } catch (error) {
        // Out of memory or of descriptors: a rejection of what waits, never an exception out of a timer.
        life.connection.fail(new NexusError('SIDECAR_GONE', 'the sidecar could not be started', { cause: error }));
      }
    };
    // A connection that fails by itself (broken protocol) takes its sidecar along.
    connection.onFailure((error) => {
      this.#lastEnd = error;
      this.#drop(life);
    });
    if (next.waitMs === 0) start();
    else life.timer = setTimeout(start, Math.min(next.waitMs, LONGEST_TIMER_MS));
    return life;
  }

  /** The first sign of an end: the next request starts the next sidecar, with a wait when this one died young. */
  #lost(life: Life): void {
    if (this.#life !== life) return;
    this.#life = undefined;
    if (this.#shutdown === undefined) this.#restarts.died(life.startedAt, life.connection.info !== undefined, performance.now());
  }

  #spawn(life: Life, binary: string): void {
    const { socket, child } = spawnSidecar({
      binary,
      flags: this.#config.flags,
      env: childEnv(process.env, this.#config.env),
      onLog: this.#config.onLog,
      onDying: () => this.#lost(life),
      onDeath: (death, tail) => {
        life.connection.fail(goneError(death, tail));
        life.end();
      },
    });
    life.child = child;
    this.#awaitHello(life);
    life.connection.attach(socket);
  }

  #connect(life: Life, path: string): void {
    const socket = createConnection(path);
    let reason = '';
    socket.on('error', (error) => {
      reason = `: ${error.message}`;
    });
    socket.on('close', () => {
      this.#lost(life);
      life.connection.fail(new NexusError('SIDECAR_GONE', `the connection to ${path} ended${reason}`));
      life.end();
    });
    this.#awaitHello(life);
    life.connection.attach(socket);
  }

  #awaitHello(life: Life): void {
    const limit = this.#config.startTimeoutMs ?? START_TIMEOUT_MS;
    const timer = setTimeout(() => {
      life.connection.fail(new NexusError('SIDECAR_GONE', `the sidecar did not answer the hello within ${limit} ms`));
    }, Math.min(limit, LONGEST_TIMER_MS));
    timer.unref(); // a pending request holds the socket, and so Node, alive
    life.timer = timer;
    life.connection.hello.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    );
  }

  #drop(life: Life): void {
    clearTimeout(life.timer);
    this.#lost(life);
    if (life.child === undefined) life.end();
    else if (life.child.exitCode === null && life.child.signalCode === null) life.child.kill('SIGKILL');
  }

  /** Ends the sidecar: it drains; what takes longer than the limit is killed. Never rejects. */
  shutdown(): Promise<void> {
    this.#shutdown ??= this.#end();
    return this.#shutdown;
  }

  async #end(): Promise<void> {
    const life = this.#life;
    if (life === undefined) return;
    const limit = this.#config.shutdownTimeoutMs ?? SHUTDOWN_TIMEOUT_MS;
    life.child?.ref(); // its end is awaited now
    const deadline = setTimeout(() => life.connection.fail(shutDownError()), Math.min(limit, LONGEST_TIMER_MS));
    const drained = life.connection.request(
      Kind.done,
      (writer, id) => writeRequest(writer, id, Kind.shutdown, {}),
      () => undefined,
    );
    try {
      await drained;
      // A child ends by itself; a connection to a running sidecar is closed by us once it has drained.
      if (life.child === undefined) life.connection.fail(shutDownError());
    } catch {
      // It died, which is what was asked for.
    }
    await life.ended;
    clearTimeout(deadline);
    life.connection.fail(shutDownError());
  }
}

function shutDownError(): NexusError {
  return new NexusError('SIDECAR_GONE', 'the runtime has been shut down', { retryable: false });
}

function crashLoopError(refusal: { deaths: number; refusedForMs: number }, last: NexusError | undefined): NexusError {
  const retryAfterMs = Math.ceil(refusal.refusedForMs);
  const how = last === undefined ? '' : `; the last time: ${last.message}`;
  return new NexusError('SIDECAR_GONE', `the sidecar keeps ending (${refusal.deaths} times); next try in ${retryAfterMs} ms${how}`, {
    context: { ...last?.context, reason: 'crash-loop', retryAfterMs },
    cause: last,
  });
}

function goneError({ exitCode, signal, startError }: Death, tail: readonly string[]): NexusError {
  const how =
    startError !== undefined
      ? `could not be started: ${startError.message}`
      : signal !== null
        ? `was ended by ${signal}`
        : exitCode !== null
          ? `exited with code ${exitCode}`
          : 'closed its connection';
  const context: Record<string, string | number> = {};
  if (exitCode !== null) context['exitCode'] = exitCode;
  if (signal !== null) context['signal'] = signal;
  if (tail.length > 0) context['stderr'] = tail.join('\n');
  const said = tail.length === 0 ? '' : `; its last words:\n  ${tail.join('\n  ')}`;
  return new NexusError('SIDECAR_GONE', `the sidecar ${how}${said}`, { context });
}
