/**
 * The extensions that `run` was given, as the handler may see them. What no handler could call is refused before anything runs: it would
 * be found missing only when a handler needs it.
 */
import { NexusError } from './errors.js';
import type { Extensions } from './types.js';

/** Names and methods as the handler may see them in `$ext.list()`. */
export function registryOf(extensions: Extensions, capabilities: readonly string[] | undefined): Record<string, string[]> {
  const registry: Record<string, string[]> = Object.create(null) as Record<string, string[]>;
  for (const [name, extension] of Object.entries(extensions)) {
    const isObject = typeof extension === 'object' && extension !== null;
    const methods = isObject ? Object.keys(extension).filter((method) => typeof extension[method] === 'function') : [];
    if (methods.length === 0) throw noExtension(name, extension);
    checkReachable(name, methods, capabilities);
    registry[name] = methods;
  }
  return registry;
}

function noExtension(name: string, extension: unknown): NexusError {
  const example = `{ ${name}: { get: async (...args) => ... } }`;
  const is =
    typeof extension === 'function'
      ? 'is a function; an extension is an object of methods'
      : typeof extension === 'object' && extension !== null
        ? 'has no methods of its own (those of a class are its prototype\'s, which no handler reaches); wrap them'
        : 'is not an object of methods';
  return new NexusError('INVALID_ARGUMENT', `extension \`${name}\` ${is}: ${example}`);
}

/** Names that `$ext` has itself. */
const OWN_NAMES = new Set(['exists', 'methods', 'list']);
/** What JavaScript asks any object for; `$ext` and its extensions answer that they have no such thing. */
const ASKED_OF_ANY = new Set(['then', 'toJSON']);

/** Throws for what no handler could call, whatever its text. */
function checkReachable(name: string, methods: readonly string[], capabilities: readonly string[] | undefined): void {
  const why = OWN_NAMES.has(name) ? `\`$ext.${name}\` is a function of the sandbox` : unreachable(name);
  if (why !== undefined) throw uncallable(`extension \`${name}\``, why);
  if (name === '' && capabilities === undefined) throw uncallable('extension ``', 'no capability can name it; `capabilities` must hold `ext:*`');
  if (name.includes('.') && capabilities?.includes('ext:*') !== true) {
    throw uncallable(`extension \`${name}\``, 'a capability takes what is behind the dot for a method; `capabilities` must hold `ext:*`');
  }
  for (const method of methods) {
    const why = unreachable(method);
    if (why !== undefined) throw uncallable(`method \`${method}\` of extension \`${name}\``, why);
  }
}

function unreachable(name: string): string | undefined {
  if (ASKED_OF_ANY.has(name)) return `JavaScript asks every object for \`${name}\`, so that in the sandbox none has it`;
  return /\p{Surrogate}/u.test(name) ? 'its name has half a surrogate pair, which no text in the sandbox keeps' : undefined;
}

function uncallable(what: string, why: string): NexusError {
  return new NexusError('INVALID_ARGUMENT', `no handler could call ${what}: ${why}`);
}
