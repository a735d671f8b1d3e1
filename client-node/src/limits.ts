// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** Bounds that the client applies itself, with the unit in the name. The sidecar's hello names those in force. */

// Control values

/** Nesting of control values, the fields map included. The deepest message known today uses 4. */
export const MAX_CONTROL_DEPTH = 16;
/**
 * Control values in one message (every key, scalar and container). A decoded string takes 16 bytes where the wire needs
 * one, so without this bound a frame could make the decoder take 16 times its size.
 */
export const MAX_CONTROL_VALUES = 65_536;
/** `panelId` and `handlerName`: written to logs and kept per execution. */
export const MAX_LABEL_BYTES = 256;

// Payloads

/** Containers around one another within a payload. The guest's decoder recurses, and its stack is bounded. */
export const MAX_PAYLOAD_DEPTH = 64;

// Configuration: defaults and bounds

/** Time that one suspension may wait for its resume; of clients, until the hello says how long. */
export const PLACES_EXPIRE_MS = 30_000;
/**
 * For so long after `suspensionTimeoutMs` an execution is kept: who makes its calls can tell its handler that one took
 * too long. Longer than an answer is under way on a busy machine.
 */
export const SUSPENSION_GRACE_MS = 2_000;
/** Body of one frame, both directions. */
export const MAX_FRAME_BYTES = 64 * 1024 * 1024;
/**
 * Items of one executeMany. The frame costs a thousandth for each then, and what they say fits the bound on control
 * values.
 */
export const MAX_MANY_ITEMS = 1_000;
/** Logs of a handler that runs are told at most this often to who asks for them: often enough for people to watch. */
export const LOGS_INTERVAL_MS = 50;

// Shared memory

/**
 * Payloads from here on travel through the segment, where there is one: below it a second system call costs more than
 * the copy through the socket.
 */
export const ARENA_THRESHOLD_BYTES = 256 * 1024;

// Clients

/** Time until a sidecar has to have said hello: it loads its engine first, on a machine that may be busy. */
export const START_TIMEOUT_MS = 20_000;
/**
 * Of a sidecar whose connection has ended, how it ended is awaited this long before calls are told without: on a busy
 * machine a process that has closed everything may wait for its turn to end.
 */
export const DEATH_DETAIL_MS = 1_000;
/** A sidecar that dies sooner than this after its start died young: the next start waits. */
export const STABLE_AFTER_MS = 1_000;
/** Wait before the start after the first young death; it doubles, and a random half is taken off. */
export const BACKOFF_FIRST_MS = 50;
/** Longest wait before such a start. */
export const BACKOFF_MAX_MS = 5_000;
/** So many deaths within the window are a crash loop: calls fail at once until the cool-down is over. */
export const CRASH_LOOP_DEATHS = 5;
/** The window of a crash loop. */
export const CRASH_LOOP_WINDOW_MS = 30_000;
/** Time in which nothing is started after a crash loop. */
export const CRASH_LOOP_COOL_DOWN_MS = 5_000;
/** Suspensions of which a client remembers who holds them. */
export const MAX_HELD_SUSPENSIONS = 100_000;
/** Bytes of the arguments of calls that a client remembers on one connection to list them again. */
export const MAX_HELD_CALL_BYTES = 256 * 1024 * 1024;
/** Lines of the sidecar's log that an error repeats. */
export const STDERR_TAIL_LINES = 20;
/** Length of each of those lines. */
export const STDERR_LINE_CHARS = 1_000;
/** Requests that wait in a client for the sidecar to take them; beyond these a call is OVERLOADED. */
export const MAX_WAITING_REQUESTS = 100_000;
/** Bytes of the requests that wait in a client; beyond these a call is OVERLOADED. */
export const MAX_WAITING_BYTES = 256 * 1024 * 1024;
/** After how long a call that was OVERLOADED in the client may be tried again. */
export const OVERLOADED_RETRY_MS = 50;
/** Of the sidecar's `maxInFlight`, what a client keeps free for cancels and figures (but at most a quarter). */
export const RESERVED_IN_FLIGHT = 32;
/**
 * From this size on a client sends the contexts of one call in several frames: what waits for a frame is not copied at
 * once.
 */
export const MANY_BLOCK_BYTES = 1024 * 1024;
/** Contexts of one call that may be suspended at once; the next ones wait, so that others have places too. */
export const MANY_SUSPENDED_AT_ONCE = 100;

// The Node client alone

/** Handles whose source is kept, so that a handle of a sidecar that has gone can be compiled again. */
export const MAX_REMEMBERED_HANDLES = 1_000;
/** Length of those sources, in all. */
export const MAX_REMEMBERED_SOURCE_CHARS = 16 * 1024 * 1024;
/** A batch buffer larger than this is given back after its flush. */
export const KEEP_BATCH_BYTES = 1024 * 1024;
/** Names of a request's registry and tokens: what is left of the control values of one message. */
export const MAX_LISTED_NAMES = 60_000;
/** Requests that are sent before the hello says how many may be unanswered. */
export const UNANSWERED_BEFORE_HELLO = 8;
/** Time that `shutdown` waits for the sidecar before it kills it. */
export const SHUTDOWN_TIMEOUT_MS = 5_000;
