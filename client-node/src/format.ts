/** An error as text for people: what went wrong, where, and the lines of the handler around it. */
import { inspect } from 'node:util';

import { NexusError } from './errors.js';
import { checkOptions } from './names.js';

export interface FormatOptions {
  /** The handler's source. Without it the lines that the error brought (with `debug`), or none. */
  source?: string;
  /** Escape sequences of terminals. Default false. */
  color?: boolean;
  /** What the place is called. Default: `handler.js`. */
  handlerName?: string;
}

const TYPES: Record<keyof FormatOptions, string> = { source: 'string', color: 'boolean', handlerName: 'string' };
const OPTIONS = new Set(Object.keys(TYPES));

/** Lines before and behind the one that is meant. */
const AROUND = 2;
/** A longer line is cut: some handlers are one line. */
const MAX_LINE_CHARS = 160;

/** Several lines, without an end of line behind the last. What is no NexusError has its name, its message and its causes. */
export function formatError(error: unknown, given: FormatOptions = {}): string {
  const options = checkOptions('what is given as options', 'option', given, OPTIONS);
  for (const [name, type] of Object.entries(TYPES) as [keyof FormatOptions, string][]) {
    if (options[name] !== undefined && typeof options[name] !== type) throw new NexusError('INVALID_ARGUMENT', `\`${name}\` is not a ${type}`);
  }
  if (!(error instanceof NexusError)) return [described(error), ...(error instanceof Error ? causes(error) : [])].join('\n');
  const paint = options.color === true ? (code: number, text: string): string => `\u001b[${code}m${text}\u001b[0m` : (_: number, text: string): string => text;
  const { code, errorName, message, location } = error;
  const name = errorName === undefined || errorName === 'Error' ? '' : `${errorName}: `;
  const parts = [`${paint(31, code)}: ${harmless(name + message)}`];
  if (location !== undefined) {
    parts.push(paint(36, `  at ${harmless(options.handlerName ?? 'handler.js')}:${location.line}:${location.column}`));
    parts.push(...frame(linesOf(error, options), location.line, location.column, paint));
  }
  return [...parts, ...causes(error)].join('\n');
}

/** By their numbers, from 1. */
function linesOf({ location, snippet }: NexusError, { source }: FormatOptions): Map<number, string> {
  const lines = (source ?? snippet?.code ?? '').split(/\r\n|[\n\r\u2028\u2029]/);
  const first = source === undefined && snippet !== undefined ? (location?.line ?? 1) - snippet.highlightLine + 1 : 1;
  return new Map(source === undefined && snippet === undefined ? [] : lines.map((line, index) => [first + index, harmless(line)]));
}

function frame(lines: Map<number, string>, meant: number, column: number, paint: (code: number, text: string) => string): string[] {
  if (!lines.has(meant)) return [];
  const width = String(meant + AROUND).length;
  const shown: string[] = [];
  for (let number = meant - AROUND; number <= meant + AROUND; number++) {
    const line = lines.get(number);
    if (line === undefined) continue;
    const isMeant = number === meant;
    const gutter = `${isMeant ? '>' : ' '} ${String(number).padStart(width)} | `;
    const from = isMeant ? Math.max(0, column - 1 - MAX_LINE_CHARS / 2) : 0;
    shown.push((isMeant ? paint(31, gutter) : paint(90, gutter)) + line.slice(from, from + MAX_LINE_CHARS));
    // Tabs stay tabs, so that the mark stands below its place whatever their width is.
    if (isMeant) shown.push(`${paint(90, `  ${' '.repeat(width)} | `)}${line.slice(from, column - 1).replace(/[^\t]/g, ' ')}${paint(31, '^')}`);
  }
  return shown;
}

/** Text of a handler is its author's: what would steer a terminal is shown as a replacement character. */
function harmless(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** What is behind the error, as `name: message`; a cause that is no error as itself. */
function causes(error: Error): string[] {
  const found: string[] = [];
  for (let next: unknown = error.cause; next !== undefined && found.length < 5; next = next instanceof Error ? next.cause : undefined) {
    found.push(`${'  '.repeat(found.length + 1)}caused by ${described(next)}`);
  }
  return found;
}

function described(thrown: unknown): string {
  if (thrown instanceof Error) return harmless(`${thrown.name}: ${thrown.message}`);
  return harmless(typeof thrown === 'string' ? thrown : inspect(thrown, { depth: 1, customInspect: false }));
}
