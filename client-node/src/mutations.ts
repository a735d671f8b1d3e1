import { NexusError } from './errors.js';
import { checkPlain } from './names.js';
import { define } from './payload.js';
import type { StateMutation } from './types.js';

/** The state after the mutations, as a new object; the old one is untouched. */
export function applyMutations(
  state: Readonly<Record<string, unknown>>,
  mutations: readonly StateMutation[],
): Record<string, unknown> {
  checkPlain('the state', state);
  const next: Record<string, unknown> = {};
  for (const key of Object.keys(state)) define(next, key, state[key]);
  for (const mutation of mutations) {
    if (mutation.op === 'set') define(next, mutation.key, mutation.value);
    else if (mutation.op === 'delete') delete next[mutation.key];
    else throw new NexusError('INVALID_ARGUMENT', "a mutation's `op` is neither 'set' nor 'delete'");
  }
  return next;
}
