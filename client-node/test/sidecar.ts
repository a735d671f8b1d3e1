/** The real sidecar for integration tests. There is no other: without the program these tests fail. */
import assert from 'node:assert/strict';
import { accessSync, constants, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { NexusError, NexusRuntime, type RuntimeConfig } from '@nexus/sidecar';

const built = fileURLToPath(new URL('../../target/release/nexus-sidecar', import.meta.url));

export function sidecarBinary(): string {
  const path = process.env['NEXUS_SIDECAR_BIN'] ?? built;
  try {
    accessSync(path, constants.X_OK);
  } catch {
    throw new Error(`the integration tests need the sidecar: ${path} is not there. Build it (cargo build --release) or set NEXUS_SIDECAR_BIN`);
  }
  return path;
}

/** Times that no test is about are long: a machine that is busy makes nothing end before it would have been done. */
const PATIENCE = { timeoutMs: 50_000, maxQueueMs: 50_000, shutdownTimeoutMs: 50_000 };

export function newRuntime(config: RuntimeConfig = {}): NexusRuntime {
  return new NexusRuntime({ binaryPath: sidecarBinary(), ...PATIENCE, ...config });
}

export const ALL = ['state:read:*', 'state:write:*', 'events:emit:*', 'view:update:*', 'ext:*', 'crypto:random'];

/** The NexusError with which the promise rejects. */
export async function failure(promise: Promise<unknown>): Promise<NexusError> {
  const error: unknown = await promise.then(
    (value) => assert.fail(`it did not reject but gave ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof NexusError, String(error));
  return error;
}

/** A folder of the test's own. With a longer name before it that of a socket, of which a kernel takes 107 bytes, has no room. */
export function newFolder(name: string): string {
  const base = tmpdir();
  return mkdtempSync(join(base.length <= 50 ? base : '/tmp', `nexus-${name}-`));
}

/** A promise to be settled from outside. */
export function deferred<T>(): { promise: Promise<T>; resolve(value: T): void; reject(error: unknown): void } {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
}

/**
 * Waits until the process has gone. A child of this process has gone when Node has taken note of its end; whose child another one
 * became may never do that, so its end is enough.
 */
export async function ended(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      if (/^State:\s+Z/m.test(status) && !status.includes(`PPid:\t${process.pid}\n`)) return;
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** For tests that could hang. They take a second or two on a machine that does little else. */
export const WATCHDOG = { timeout: 300_000 };
