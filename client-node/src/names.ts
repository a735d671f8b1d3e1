/**
 * Objects whose properties are looked up by name, options above all. A name that nobody knows is a mistake, and mostly near a known
 * one; and an object that keeps what it holds elsewhere (a Map, an instance of a class) would be taken for an empty one.
 */
import { NexusError } from './errors.js';
import { isPlainPrototype } from './payload.js';

/**
 * A copy of a plain object, each of whose properties is read this once: a getter, or a caller who changes it later, has no second say.
 * Throws INVALID_ARGUMENT unless all of them are known. `what`: a property, as `option`; `whole`: the object.
 */
export function checkOptions<Options>(whole: string, what: string, given: Options, known: ReadonlySet<string>): Options {
  checkPlain(whole, given);
  const copy = { ...given };
  checkNames(what, copy, known);
  return copy;
}

/** Throws INVALID_ARGUMENT unless all that the value holds are its own properties. `what`: what it is called. */
export function checkPlain(what: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null) throw new NexusError('INVALID_ARGUMENT', `${what} is not an object`);
  const prototype: unknown = Object.getPrototypeOf(value);
  // Node's own environment is of a class of its own.
  if (prototype === null || isPlainPrototype(prototype as object) || value === process.env) return;
  throw new NexusError('INVALID_ARGUMENT', `${what} is ${kindOf(value, prototype as object)}; a plain object is needed`);
}

function kindOf(value: object, prototype: object): string {
  if (Array.isArray(value)) return 'an array';
  const { constructor } = prototype as { constructor?: unknown };
  const name = typeof constructor === 'function' ? constructor.name : '';
  return name === '' || name === 'Object' ? 'an object that inherits from another' : `an instance of ${name}`;
}

/** Throws INVALID_ARGUMENT for an own property that is none of the known ones; what is undefined is not there. */
export function checkNames(what: string, given: object, known: ReadonlySet<string>): void {
  for (const name of Object.keys(given)) {
    if (known.has(name) || (given as Record<string, unknown>)[name] === undefined) continue;
    throw new NexusError('INVALID_ARGUMENT', `unknown ${what} \`${name}\`${didYouMean(name, known)}`);
  }
}

/** Throws INVALID_ARGUMENT for an argument that the function does not take: who gives one means something by it. */
export function checkCount(name: string, given: ArrayLike<unknown>, most: number): void {
  for (let index = most; index < given.length; index++) {
    if (given[index] !== undefined) throw new NexusError('INVALID_ARGUMENT', `\`${name}\` takes ${most} argument${most === 1 ? '' : 's'} at the most, and would ignore the next`);
  }
}

/** `; did you mean ...?`, or nothing. */
export function didYouMean(name: string, known: Iterable<string>): string {
  const most = Math.max(1, Math.floor(name.length / 3));
  let best: string | undefined;
  let least = most + 1;
  for (const other of known) {
    if (Math.abs(other.length - name.length) >= least) continue;
    const edits = distance(name.toLowerCase(), other.toLowerCase(), least);
    if (edits < least) [best, least] = [other, edits];
  }
  return best === undefined ? '' : `; did you mean \`${best}\`?`;
}

/** Letters to add, remove, change or swap with their neighbour (optimal string alignment); `most` if there are as many or more. */
function distance(a: string, b: string, most: number): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const next = [row];
    for (let column = 1; column <= b.length; column++) {
      const change = (last[column - 1] as number) + (a[row - 1] === b[column - 1] ? 0 : 1);
      let least = Math.min(change, (last[column] as number) + 1, (next[column - 1] as number) + 1);
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) least = Math.min(least, (before[column - 2] as number) + 1);
      next.push(least);
    }
    [before, last] = [last, next];
    if (Math.min(...next) >= most) return most;
  }
  return Math.min(last[b.length] as number, most);
}
