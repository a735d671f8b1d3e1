// What a handler finds by name, for editors: `/// <reference types="@nexus/sidecar/handler" />` at the head of its file, or
// "types": ["@nexus/sidecar/handler"] in the tsconfig.json of a folder of handlers. `nexus-sidecar check --types --ext @fixtures.json`
// prints the same with the extensions of a fixture.
//
// A handler is a script with `await` and `return` at its top, which TypeScript knows of modules and functions alone: an editor may mark
// those two words, and the sidecar does not mind.

/** State of the embedding program: a plain object, of which each key is granted for itself (`state:read:KEY`, `state:write:KEY`). */
interface NexusState {
  [key: string]: any;
}

/** What `$state` can do beside being an object. A key of the same name is data, and hides the method. */
interface NexusStateMethods {
  get(key: string): any;
  set(key: string, value: unknown): void;
  /** Whether it was there. */
  delete(key: string): boolean;
  has(key: string): boolean;
  /** Wants `state:read:*`. */
  keys(): string[];
  update(key: string, change: (value: any) => unknown): any;
}

/** Extensions that the embedding program lends. Declare yours: `interface NexusExtensions { http: { get(url: string): any } }`. */
interface NexusExtensions {}

/** Of extensions that nobody has declared. A call gives a promise where the handler uses promises by name, else the value itself. */
interface NexusOtherExtensions {
  readonly [name: string]: { readonly [method: string]: (...args: any[]) => any };
}

interface NexusExtensionRegistry {
  exists(name: string): boolean;
  methods(name: string): string[];
  list(): string[];
}

interface NexusLog {
  (...values: unknown[]): void;
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
}

/** Events for the embedding program; each name wants `events:emit:NAME`. */
interface NexusEmit {
  (name: string, payload?: unknown): void;
  toast(message: string, level?: string): void;
}

/** Commands for a view; each id wants `view:update:ID`. */
interface NexusView {
  setFilter(id: string, filter?: unknown): void;
  scrollTo(id: string, position?: unknown): void;
  focus(id: string): void;
  command(id: string, command: string, params?: unknown): void;
}

declare const $state: NexusState & NexusStateMethods;
/** What the handler was called with. */
declare const $args: any;
/** Values that surround the call. */
declare const $scope: { readonly [name: string]: any };
declare const $emit: NexusEmit;
declare const $view: NexusView;
/** Each call wants `ext:NAME` or `ext:NAME.METHOD`, and suspends the handler until it is answered. */
declare const $ext: NexusExtensions & NexusOtherExtensions & NexusExtensionRegistry;
declare const $log: NexusLog;
/** Time stands still while a segment runs; `Date` agrees with it. */
declare const $time: { now(): number };
