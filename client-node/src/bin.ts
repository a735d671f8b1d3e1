#!/usr/bin/env node
/**
 * `npx nexus-sidecar`: runs the program of the package with what this was given, and ends as that ends. The program is told for
 * whom it stands, and ends with this even if nobody can pass anything on any more; and with `npx`, which waits for nothing else.
 */
import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync, realpathSync } from 'node:fs';

import { findBinary, STANDS_FOR } from './program.js';

const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'] as const;
/** A command that cannot be found, as shells have it. */
const NOT_FOUND = 127;

/** Between npx and this is at most a shell. */
const ABOVE = 2;
/** How often npx is looked for, in milliseconds: the kernel tells a process of its parent's end alone. */
const LOOK_EVERY = 250;

/** What the kernel tells of a process. */
interface Process {
  pid: number;
  state: string;
  parent: number;
  began: string;
}

function told(pid: number): Process {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid, state: fields[0] ?? '', parent: Number(fields[1]), began: fields[19] ?? '' };
}

/** The process of the `npx` (`npm exec`) that this runs in: the nearest above that runs npm's Node. What a script of a package starts may outlive npm. */
function npx(): Process | undefined {
  const { npm_command: command, npm_node_execpath: node } = process.env;
  if (command !== 'exec' || node === undefined) return undefined;
  try {
    for (let [pid, up] = [process.ppid, 0]; up < ABOVE && pid > 1; up++) {
      if (readlinkSync(`/proc/${pid}/exe`) === realpathSync(node)) return told(pid);
      pid = told(pid).parent;
    }
  } catch {
    // it has ended, or is not ours to look at
  }
  return undefined;
}

function hasEnded({ pid, began }: Process): boolean {
  try {
    const now = told(pid);
    return now.began !== began || 'ZX'.includes(now.state);
  } catch {
    return true;
  }
}

function main(): void {
  let program: string;
  try {
    program = findBinary({ env: process.env });
  } catch (error) {
    console.error(`nexus-sidecar: ${(error as Error).message}`);
    process.exitCode = NOT_FOUND;
    return;
  }
  const above = npx();
  const child = spawn(program, process.argv.slice(2), { stdio: 'inherit', env: { ...process.env, [STANDS_FOR]: String(process.pid) } });
  const looking = setInterval(() => {
    if (above !== undefined && !hasEnded(above)) return;
    clearInterval(looking); // a second signal would mean more than the first
    if (above !== undefined) child.kill('SIGTERM');
  }, LOOK_EVERY);
  looking.unref();
  // The terminal's own signals reach the program by themselves; to it a second one would mean more than the first.
  const ofTerminal = new Set<string>(process.stdin.isTTY ? ['SIGINT', 'SIGQUIT', 'SIGWINCH'] : []);
  for (const signal of PASSED_ON) process.on(signal, () => void (ofTerminal.has(signal) || child.kill(signal)));
  child.on('error', (error) => {
    console.error(`nexus-sidecar: ${program} cannot be started: ${error.message}`);
    process.exitCode = NOT_FOUND;
  });
  child.on('exit', (code, signal) => {
    if (signal === null) {
      process.exitCode = code ?? 1;
      return;
    }
    for (const one of PASSED_ON) process.removeAllListeners(one);
    process.kill(process.pid, signal);
  });
}

main();
