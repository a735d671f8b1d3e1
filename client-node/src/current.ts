/**
 * What an extension can ask about the call that it answers: `currentCall()`, also behind an await.
 *
 * Invariants: a call's signal aborts once, when nobody waits for its answer any more: the call was late, the run was aborted or is over
 * although this call was not answered. It is made when it is asked for: most extensions never do.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';

import { NexusError } from './errors.js';
import type { Suspension } from './types.js';

/** Of which run a call is. */
export class CallOrigin {
  readonly handlerName: string | undefined;
  readonly panelId: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  #executionId: string | undefined;

  constructor(handlerName: string | undefined, panelId: string | undefined, labels: Readonly<Record<string, string>>) {
    this.handlerName = handlerName;
    this.panelId = panelId;
    this.labels = labels;
  }

  get executionId(): string {
    return (this.#executionId ??= randomUUID());
  }
}

/** The extension call that is being answered. */
export class CurrentCall {
  readonly suspensionId: string;
  readonly extensionName: string;
  readonly method: string;
  readonly handlerName: string | undefined;
  readonly panelId: string | undefined;
  /** As `run` was given them. */
  readonly labels: Readonly<Record<string, string>>;
  /** Milliseconds since 1970 after which the answer comes too late. Infinity: it never does. */
  readonly deadline: number;
  readonly #origin: CallOrigin;
  /** Why nobody waits any more, once that is so. */
  #over: { reason: unknown } | undefined;
  #controller: AbortController | undefined;

  /** @internal */
  constructor({ suspensionId, extensionName, method }: Suspension, origin: CallOrigin, ms: number) {
    this.suspensionId = suspensionId;
    this.extensionName = extensionName;
    this.method = method;
    this.handlerName = origin.handlerName;
    this.panelId = origin.panelId;
    this.labels = origin.labels;
    this.#origin = origin;
    this.deadline = ms > 0 ? Date.now() + ms : Infinity;
  }

  /** The same for all calls of one run, and of no other: for logs. The client's own; `executions` has the sidecar's numbers. */
  get executionId(): string {
    return this.#origin.executionId;
  }

  /** Aborts when nobody waits for the answer any more; `fetch(url, { signal })` ends then. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#over !== undefined) this.#controller.abort(this.#over.reason);
    }
    return this.#controller.signal;
  }

  /** @internal */
  end(reason: unknown): void {
    this.#over ??= { reason };
    this.#controller?.abort(reason);
  }
}

const calls = new AsyncLocalStorage<CurrentCall>();

/** @internal */
export function answering<Answer>(call: CurrentCall, answer: () => Answer): Answer {
  return calls.run(call, answer);
}

/** The call that the code answers which asks. Outside of an extension method there is none: INVALID_ARGUMENT. */
export function currentCall(): CurrentCall {
  const call = calls.getStore();
  if (call !== undefined) return call;
  throw new NexusError('INVALID_ARGUMENT', 'currentCall() was asked outside of an extension method that `run` has called');
}
