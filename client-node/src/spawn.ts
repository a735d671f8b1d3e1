/**
 * Running the sidecar's program as a child that speaks on fd 3. Knows processes, not the protocol.
 *
 * The connection is the socketpair that Node makes for an extra 'pipe': no path, nobody else can connect, and its end is
 * the sidecar's sign that this process has gone. Neither the child nor its stderr keeps Node alive.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';

import { DEATH_DETAIL_MS, STDERR_LINE_CHARS, STDERR_TAIL_LINES } from './limits.js';

const SIDECAR_FD = 3;

/** What a sidecar that runs untrusted code gets of this process's environment: nothing that may hold a secret. */
const INHERITED = /^(PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|XDG_.*|LD_LIBRARY_PATH|NEXUS_.*|WASMEDGE_.*|RUST_.*)$/;

export function childEnv(
  env: Readonly<Record<string, string | undefined>>,
  extra: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) if (value !== undefined && INHERITED.test(name)) kept[name] = value;
  return { ...kept, ...extra };
}

/** How a sidecar ended. */
export interface Death {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  /** When the program could not be started at all. */
  startError?: Error;
}

export interface SpawnOptions {
  binary: string;
  flags: readonly string[];
  env: Record<string, string>;
  onLog?: ((line: string) => void) | undefined;
  /** Called once, as soon as it is known how and why. */
  onDeath(death: Death, stderrTail: readonly string[]): void;
  /** Called at the first sign, up to DEATH_DETAIL_MS before `onDeath`. */
  onDying(): void;
}

export interface SidecarProcess {
  socket: Socket;
  child: ChildProcess;
}

export function spawnSidecar(options: SpawnOptions): SidecarProcess {
  const child = spawn(options.binary, ['serve', '--fd', String(SIDECAR_FD), ...options.flags], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    env: options.env,
  });
  const socket = child.stdio[SIDECAR_FD] as Socket;
  const stderr = child.stderr as Socket;
  const tail = new StderrTail(options.onLog);
  child.unref();
  stderr.unref();
  stderr.setEncoding('utf8');
  stderr.on('data', (text: string) => tail.push(text));
  stderr.on('error', () => undefined);

  let startError: Error | undefined;
  let timer: NodeJS.Timeout | undefined;
  let done = false;
  const finish = (): void => {
    if (done) return;
    done = true;
    clearTimeout(timer);
    tail.end();
    const death: Death = { exitCode: child.exitCode, signal: child.signalCode };
    if (startError !== undefined) death.startError = startError;
    options.onDeath(death, tail.lines);
  };
  // The end of the socket and the end of the process arrive in either order; the second tells the rest, so it is awaited
  // shortly. The timer holds Node alive: promises still wait to be rejected.
  const firstSign = (): void => {
    if (done || timer !== undefined) return;
    timer = setTimeout(finish, DEATH_DETAIL_MS);
    options.onDying();
  };
  child.on('error', (error) => {
    startError = error;
    firstSign();
    finish();
  });
  child.on('exit', firstSign);
  socket.on('close', firstSign);
  child.on('close', () => {
    firstSign();
    finish();
  });
  return { socket, child };
}

/** Splits stderr into lines and keeps the last ones. */
class StderrTail {
  readonly lines: string[] = [];
  #open = '';
  readonly #onLog: ((line: string) => void) | undefined;

  constructor(onLog: ((line: string) => void) | undefined) {
    this.#onLog = onLog;
  }

  push(text: string): void {
    const parts = (this.#open + text).split('\n');
    // A line without an end is cut, so that it cannot grow without bound.
    this.#open = (parts.pop() ?? '').slice(0, STDERR_LINE_CHARS);
    for (const part of parts) this.#line(part);
  }

  end(): void {
    if (this.#open !== '') this.#line(this.#open);
    this.#open = '';
  }

  #line(text: string): void {
    const line = text.slice(0, STDERR_LINE_CHARS);
    this.lines.push(line);
    if (this.lines.length > STDERR_TAIL_LINES) this.lines.shift();
    try {
      this.#onLog?.(line);
    } catch {
      // A logger that throws must not end the process that it logs.
    }
  }
}
