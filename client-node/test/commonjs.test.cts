/** The CommonJS build, with its types: this file is compiled to `require`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createRuntime, encodePayload, NexusError, NexusRuntime, WasmRuntime, type RunResult } from '@nexus/sidecar';

test('everything is there by require, with types', async () => {
  for (const exported of [createRuntime, encodePayload, NexusError, NexusRuntime, WasmRuntime]) {
    assert.equal(typeof exported, 'function');
  }
  assert.match(require.resolve('@nexus/sidecar'), /dist\/cjs\/index\.js$/);
  const run: Promise<RunResult> = new NexusRuntime({ binaryPath: '/nonexistent' }).run('return 1');
  await assert.rejects(run, (error) => error instanceof NexusError && error.code === 'SIDECAR_NOT_FOUND');
});
