#!/usr/bin/env node
/**
 * `npx nexus-sidecar`: runs the program of the package with what this was given, and ends as that ends. The program is told for
 * whom it stands, and ends with this even if nobody can pass anything on any more. What npm starts above this is not looked at.
 */
import { spawn } from 'node:child_process';

import { findBinary } from './program.js';

const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'] as const;
/** A command that cannot be found, as shells have it. */
const NOT_FOUND = 127;

function main(): void {
  let program: string;
  try {
    program = findBinary({ env: process.env });
  } catch (error) {
    console.error(`nexus-sidecar: ${(error as Error).message}`);
    process.exitCode = NOT_FOUND;
    return;
  }
  const child = spawn(program, process.argv.slice(2), { stdio: 'inherit', env: { ...process.env, NEXUS_STANDS_FOR: String(process.pid) } });
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
