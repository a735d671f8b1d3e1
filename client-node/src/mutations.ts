import { NexusError } from './errors.js';
import { checkOptions, checkPlain } from './names.js';
import { define } from './payload.js';
import type { StateMutation } from './types.js';

const MUTATION = new Set(['op', 'key', 'value']);

/** The state after the mutations, as a new object; the old one is untouched. */
export function applyMutations(
  state: Readonly<Record<string, unknown>>,
  mutations: readonly StateMutation[],
): Record<string, unknown> {
  checkPlain('the state', state);
  if (!Array.isArray(mutations)) throw new NexusError('INVALID_ARGUMENT', 'the mutations are not an array');
  const next: Record<string, unknown> = {};
  for (const key of Object.keys(state)) define(next, key, state[key]);
  for (const given of mutations as readonly StateMutation[]) {
    const mutation = checkOptions('a mutation', 'field of a mutation', given, MUTATION);
    if (typeof mutation.key !== 'string') throw new NexusError('INVALID_ARGUMENT', "a mutation's `key` is not a string");
    if (mutation.op === 'set') define(next, mutation.key, mutation.value);
    else if (mutation.op === 'delete') delete next[mutation.key];
    else throw new NexusError('INVALID_ARGUMENT', "a mutation's `op` is neither 'set' nor 'delete'");
  }
  return next;
}
