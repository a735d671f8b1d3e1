/** Bounds that the client applies itself. They mirror protocol/src/limits.rs; the sidecar's hello names those in force. */

/** Largest frame body until the hello says what is in force. */
export const MAX_FRAME_BYTES = 64 * 1024 * 1024;
/** Payloads from here on travel through shared memory, where there is one. */
export const ARENA_THRESHOLD_BYTES = 256 * 1024;
/** Nesting of containers in a payload; a scalar has depth 0. */
export const MAX_PAYLOAD_DEPTH = 64;
/** Nesting of containers in the fields of a message. */
export const MAX_CONTROL_DEPTH = 16;
/** `panelId` and `handlerName`. */
export const MAX_LABEL_BYTES = 256;
/** Lines of the sidecar's stderr that are kept for error messages, and how much of each. */
export const STDERR_TAIL_LINES = 20;
export const STDERR_LINE_CHARS = 2000;
/** Handles whose source is kept, so that a handle of a sidecar that has gone can be compiled again. */
export const MAX_REMEMBERED_HANDLES = 1000;
/** A batch buffer larger than this is given back after its flush. */
export const KEEP_BATCH_BYTES = 1024 * 1024;
/** Of the two signs of a dead sidecar (socket closed, process exited) the second is awaited this long: on a busy machine a
 * process that has closed everything may wait for its turn to end. */
export const DEATH_DETAIL_MS = 1000;
/** A sidecar that dies sooner than this after its start counts as a failed start. */
export const STABLE_AFTER_MS = 1000;
/** Wait before the next start after the first failed one; doubles each time, and a random half of it is taken off. */
export const BACKOFF_FIRST_MS = 50;
export const BACKOFF_MAX_MS = 5000;
/** So many deaths within the window are a crash loop: calls fail at once until the cool-down is over. */
export const CRASH_LOOP_DEATHS = 5;
export const CRASH_LOOP_WINDOW_MS = 30_000;
export const CRASH_LOOP_COOL_DOWN_MS = 5_000;
export const MAX_REMEMBERED_SOURCE_CHARS = 16 * 1024 * 1024;
/** Suspensions of which the client remembers who holds them and in which form their results come. */
export const MAX_HELD_SUSPENSIONS = 100_000;
/** Arguments of calls that the client remembers to list them again. */
export const MAX_HELD_CALL_BYTES = 256 * 1024 * 1024;
/** What may wait in the client for the sidecar to take it; beyond these a call is OVERLOADED. */
export const MAX_WAITING_REQUESTS = 100_000;
export const MAX_WAITING_BYTES = 256 * 1024 * 1024;
/** After how long an OVERLOADED call may be tried again: about what a thousand tiny handlers take. */
export const OVERLOADED_RETRY_MS = 50;
/** Control values of one message; of these a request's registry and tokens may use up to the second number. */
export const MAX_CONTROL_VALUES = 65_536;
export const MAX_LISTED_NAMES = 60_000;
/** Requests that are sent before the hello says how many may be unanswered. */
export const UNANSWERED_BEFORE_HELLO = 8;
/** Of the sidecar's `maxInFlight`, what is kept free for cancels and pings (but at most a quarter). */
export const RESERVED_IN_FLIGHT = 32;
/** For so long after `suspensionTimeoutMs` the sidecar keeps an execution, so that its handler can be told. */
export const SUSPENSION_GRACE_MS = 2_000;
/** It has noticed after half as long again. */
const LONGER = 1.5;
/** When an execution is gone that nobody has resumed, by what the sidecar says of `suspensionTimeoutMs`; 0 is never. */
export function suspensionGoneMs(suspensionTimeoutMs: number): number {
  return suspensionTimeoutMs > 0 ? (suspensionTimeoutMs + SUSPENSION_GRACE_MS) * LONGER : Infinity;
}
/** Until the sidecar says how long a suspension lasts. */
export const PLACES_EXPIRE_MS = 30_000;
