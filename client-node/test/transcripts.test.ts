/** What later and older sidecars say: prepared bytes of tests/conformance, which the Rust client reads too. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { NexusError, NexusRuntime } from '@nexus/sidecar';

import { newFolder, WATCHDOG } from './sidecar.js';

interface Transcript {
  name: string;
  hello: string;
  call: 'ping' | 'execute';
  answer: string | null;
  expect: { ok?: true; value?: unknown; code?: string; retryable?: boolean };
}

const transcripts = JSON.parse(
  readFileSync(new URL('../../tests/conformance/transcripts.json', import.meta.url), 'utf8'),
) as Transcript[];
const folder = newFolder('transcripts');
after(() => rmSync(folder, { recursive: true }));

test('there are transcripts', () => assert.ok(transcripts.length >= 10));

for (const [index, { name, hello, call, answer, expect }] of transcripts.entries()) {
  test(`transcript: ${name}`, WATCHDOG, async () => {
    const path = join(folder, String(index));
    const server = createServer((socket) => {
      let received = Buffer.alloc(0);
      const parts = [hello, answer];
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        while (received.length >= 4 && received.length >= 4 + received.readUInt32LE(0)) {
          received = received.subarray(4 + received.readUInt32LE(0));
          const part = parts.shift();
          if (typeof part === 'string') socket.write(Buffer.from(part, 'hex'));
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const runtime = new NexusRuntime({ connect: path, shutdownTimeoutMs: 10 });
    const made = call === 'ping' ? runtime.ping().then(() => ({ ok: true as const })) : runtime.executeHandler('return 0');
    const told = await made.catch((error: unknown) => ({ error }));
    if ('error' in told && told.error !== undefined) {
      assert.ok(told.error instanceof NexusError, String(told.error));
      assert.deepEqual({ code: told.error.code, retryable: told.error.retryable }, expect, told.error.message);
    } else if ('returnValue' in told) assert.deepEqual({ value: told.returnValue }, expect);
    else assert.deepEqual(told, expect);
    await runtime.shutdown();
    server.close();
  });
}
