/**
 * Finding the sidecar's program and running it as a child that speaks on fd 3. Knows processes, not the protocol.
 *
 * The connection is the socketpair that Node makes for an extra 'pipe': no path, nobody else can connect, and its end is
 * the sidecar's sign that this process has gone. Neither the child nor its stderr keeps Node alive.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path';

import { NexusError } from './errors.js';
import { resolvePackage } from './here.cjs';
import { DEATH_DETAIL_MS, STDERR_LINE_CHARS, STDERR_TAIL_LINES } from './limits.js';

const PROGRAM = 'nexus-sidecar';
const SIDECAR_FD = 3;

export interface Lookup {
  binaryPath?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
}

/** The path of the program; an error that lists every place when it is nowhere. */
export function findBinary({ binaryPath, env }: Lookup): string {
  // A path that was named is meant: no other program is tried in its place.
  if (binaryPath !== undefined) return namedBinary(binaryPath, 'option `binaryPath`');
  const fromEnv = env['NEXUS_SIDECAR_BIN'];
  if (fromEnv !== undefined && fromEnv !== '') return namedBinary(fromEnv, 'environment variable NEXUS_SIDECAR_BIN');

  const platformPackage = `@nexus/sidecar-${process.platform}-${process.arch}`;
  const looked = ['option `binaryPath`: not set', 'environment variable NEXUS_SIDECAR_BIN: not set'];
  const manifest = resolvePackage(`${platformPackage}/package.json`);
  if (manifest === undefined) {
    looked.push(`package ${platformPackage}: not installed`);
  } else {
    const packaged = join(dirname(manifest), 'bin', PROGRAM);
    if (isProgram(packaged)) return packaged;
    looked.push(`package ${platformPackage}: no program at ${packaged}`);
  }
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    if (!isAbsolute(folder)) continue; // a relative PATH entry would run a program of the current folder
    const candidate = join(folder, PROGRAM);
    if (isProgram(candidate)) return candidate;
  }
  looked.push(`PATH: ${env['PATH'] ?? '(empty)'}`);
  const remedy = `Install ${platformPackage}, or set NEXUS_SIDECAR_BIN or the option \`binaryPath\` to the program`;
  throw notFound(`${PROGRAM} was not found. ${remedy}. Looked at:\n  ${looked.join('\n  ')}`);
}

function namedBinary(path: string, where: string): string {
  const full = resolve(path);
  if (!isProgram(full)) throw notFound(`${where} names ${full}, which is not an executable file`);
  return full;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function notFound(message: string): NexusError {
  return new NexusError('SIDECAR_NOT_FOUND', message);
}

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
