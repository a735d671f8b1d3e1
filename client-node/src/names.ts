/** Names that callers give, of options above all: one that nobody knows is a mistake, and mostly near a known one. */
import { NexusError } from './errors.js';

/** Throws INVALID_ARGUMENT for an own property that is none of the known ones; what is undefined is not there. */
export function checkNames(what: string, given: object, known: ReadonlySet<string>): void {
  for (const name of Object.keys(given)) {
    if (known.has(name) || (given as Record<string, unknown>)[name] === undefined) continue;
    throw new NexusError('INVALID_ARGUMENT', `unknown ${what} \`${name}\`${didYouMean(name, known)}`);
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
