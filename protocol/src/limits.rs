// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! Every bound of the protocol and of the configuration, and every default, with the unit in the name and the reason.
//!
//! Invariant: no other file of the repository holds a number that bounds a peer's input.

// ---- Frames --------------------------------------------------------------------------------------------------------

/// The four bytes in front of a body.
pub const FRAME_HEADER_BYTES: usize = 4;
/// Largest body that can be configured: lengths stay far from `u32::MAX`, so sums of a few of them never overflow a
/// 64-bit size and a corrupted length is nearly always refused.
pub const MAX_FRAME_BYTES_CEILING: u64 = 1 << 30;
/// Smallest configurable frame: hello, its answer and a full error must always fit.
pub const MIN_MAX_FRAME_BYTES: u64 = 128 << 10;
/// First buffer of a connection: holds the requests of small handlers, and 500 idle connections stay cheap.
pub const FRAME_BUFFER_INITIAL_BYTES: usize = 16 << 10;
/// A connection's buffer that grew beyond this is given back once it is empty.
pub const FRAME_BUFFER_KEEP_BYTES: usize = 1 << 20;
/// From this size on an owned frame takes the read buffer over instead of copying out of it.
pub const FRAME_TAKE_OVER_BYTES: usize = 64 << 10;
/// Frames that are answered by the thread that reads them: hello, ping, cancel, stats and the like. Ten times what they
/// need today; decoding one takes microseconds, whatever is in it.
pub const MAX_CONTROL_FRAME_BYTES: usize = 4 << 10;

// ---- Control values ------------------------------------------------------------------------------------------------

/// Nesting of control values, the fields map included. The deepest message known today uses 4.
pub const MAX_CONTROL_DEPTH: usize = 16;
/// Control values in one message (every key, scalar and container). A decoded string takes 16 bytes where the wire
/// needs one, so without this bound a frame could make the decoder take 16 times its size.
pub const MAX_CONTROL_VALUES: usize = 65_536;
/// hello `client`: it is written to logs.
pub const MAX_CLIENT_NAME_BYTES: usize = 128;
/// `panelId` and `handlerName`: written to logs and kept per execution.
pub const MAX_LABEL_BYTES: usize = 256;
/// One capability token: a name is a state key, event or view id; longer ones are mistakes.
pub const MAX_CAPABILITY_TOKEN_BYTES: usize = 1_024;
/// Capability tokens of one execution.
pub const MAX_CAPABILITIES: usize = 10_000;
/// Message text of an error; a handler chooses it, and it goes to logs.
pub const MAX_ERROR_MESSAGE_BYTES: usize = 8 << 10;
/// Stack text of an error, and code of a snippet.
pub const MAX_ERROR_STACK_BYTES: usize = 16 << 10;
/// Error names (`TypeError`): longer ones are attacks on log lines.
pub const MAX_ERROR_NAME_BYTES: usize = 256;
/// Message of a cause, or of an error of an AggregateError: there may be many of them.
pub const MAX_INNER_MESSAGE_BYTES: usize = 2 << 10;
/// Causes around one another. A program that wraps errors uses two or three levels.
pub const MAX_CAUSE_DEPTH: usize = 4;
/// Causes and errors of AggregateErrors within one error, in all.
pub const MAX_INNER_ERRORS: usize = 32;
/// Errors of one AggregateError.
pub const MAX_AGGREGATE_ERRORS: usize = 16;
/// Own fields of an error object, and a cause that is no Error: enough to tell errors apart, too little to carry
/// results.
pub const MAX_ERROR_PAYLOAD_BYTES: usize = 16 << 10;
/// Texts and payloads of everything inside of one error, in all; with its own texts it still fits the smallest frame.
pub const MAX_INNER_ERROR_BYTES: usize = 48 << 10;

// ---- Payloads ------------------------------------------------------------------------------------------------------

/// Containers around one another within a payload. The guest's decoder recurses, and its stack is bounded.
pub const MAX_PAYLOAD_DEPTH: usize = 64;
/// Keys of one state, wherever it is kept. Finding them takes up to 11 bytes of memory for each and less than half a
/// second for all, where a state of 64 MiB could have thirteen million.
pub const MAX_STATE_KEYS: usize = 1_000_000;

// ---- Identifiers ---------------------------------------------------------------------------------------------------

/// Random bytes in a suspension id: 128 bits cannot be guessed.
pub const SUSPENSION_ID_BYTES: usize = 16;

// ---- Configuration: defaults and bounds ----------------------------------------------------------------------------

/// Beyond each limit that connections share there is a reserve of this part of it, for those who hold little: SPEC 2.
/// Small, since the limit says what the machine can take; large enough that many find something in it.
pub const RESERVED_PART: u64 = 8;
/// A week: long enough for a suspension that waits for a human, short enough that a forgotten one ends.
pub const WAIT_MS_CEILING: u64 = 604_800_000;
/// Counters of the guest's effects; beyond this the byte limits would end the execution anyway.
pub const COUNT_CEILING: u64 = 1_000_000_000;
/// Of what is kept in memory or on disk for all: no machine that this is meant for has more to give.
pub const SIZE_BYTES_CEILING: u64 = 64 << 30;
/// Instances at most.
pub const DEFAULT_MAX_INSTANCES: u32 = 10;
/// Instances made before the first request.
pub const DEFAULT_MIN_INSTANCES: u32 = 1;
/// Fewest `maxInstances`: without an instance nothing runs.
pub const MIN_MAX_INSTANCES: u32 = 1;
/// Each instance reserves 12 GiB of address space, of which a process has 128 TiB. With the suspended executions that
/// keep their instance, this stays below it.
pub const MAX_INSTANCES_CEILING: u64 = 2_000;
/// Memory of one handler, ArrayBuffers and strings included.
pub const DEFAULT_MEMORY_LIMIT_BYTES: u64 = 32 << 20;
/// Smallest `memoryLimitBytes`: below this the built-ins themselves do not fit.
pub const MIN_MEMORY_LIMIT_BYTES: u64 = 1 << 20;
/// The guest is linked with 256 MiB of memory and 4 MiB of stack. Its own data, the request and the calls between two
/// checks of the stack need the rest.
pub const MEMORY_LIMIT_BYTES_CEILING: u64 = 128 << 20;
/// Stack of one handler; overflow is a catchable RangeError.
pub const DEFAULT_STACK_SIZE_BYTES: u64 = 1 << 20;
/// Smallest `stackSizeBytes`: below this the engine's own calls do not fit.
pub const MIN_STACK_SIZE_BYTES: u64 = 64 << 10;
/// Largest `stackSizeBytes`: what the guest is linked with has to hold more than the stack of a handler.
pub const STACK_SIZE_BYTES_CEILING: u64 = 2 << 20;
/// CPU and queue time of all segments of one execution; 0 = none.
pub const DEFAULT_TIMEOUT_MS: u64 = 5_000;
/// Time that one suspension may wait for its resume; of clients, until the hello says how long.
pub const DEFAULT_SUSPENSION_TIMEOUT_MS: u64 = 30_000;
/// For so long after `suspensionTimeoutMs` an execution is kept: who makes its calls can tell its handler that one took
/// too long. Longer than an answer is under way on a busy machine.
pub const SUSPENSION_GRACE_MS: u64 = 2_000;
/// Suspended executions held at once.
pub const DEFAULT_MAX_SUSPENDED: u64 = 1_000;
/// Suspended executions are bounded by their bytes; this many make every look for expired ones slow.
pub const MAX_SUSPENDED_CEILING: u64 = 1_000_000;
/// Memory that suspended executions may take: their state and calls, and their guests, or the images of those that are
/// parked. At 5 KB each it is reached by fifty thousand of them, or by a few with large heaps.
pub const DEFAULT_MAX_SUSPENDED_BYTES: u64 = 256 << 20;
/// Smallest that can be configured: some twenty executions that have done little.
pub const MIN_MAX_SUSPENDED_BYTES: u64 = 128 << 10;
/// Suspended executions that keep their instance as long as they do not wait long: as many as are under way in a busy
/// sidecar whose extensions answer at once. At 0.3 MB each they take less than the process itself.
pub const MAX_LIVE_SUSPENDED: usize = 32;
/// Host calls of one execution.
pub const DEFAULT_MAX_HOST_CALLS: u64 = 10_000;
/// State mutations of one execution.
pub const DEFAULT_MAX_STATE_MUTATIONS: u64 = 1_000;
/// Events of one execution.
pub const DEFAULT_MAX_EVENTS: u64 = 100;
/// Source text of a handler.
pub const DEFAULT_MAX_SOURCE_BYTES: u64 = 1 << 20;
/// Value and effects of one execution, together.
pub const DEFAULT_MAX_RESULT_BYTES: u64 = 16 << 20;
/// Log records of one execution; what is beyond is dropped and counted.
pub const DEFAULT_MAX_LOG_BYTES: u64 = 64 << 10;
/// Body of one frame, both directions.
pub const DEFAULT_MAX_FRAME_BYTES: u64 = 64 << 20;
/// Unanswered requests of one connection; a well-behaved client stays below it, and more is refused.
pub const DEFAULT_MAX_IN_FLIGHT: u64 = 1_024;
/// Executions that wait for an instance.
pub const DEFAULT_MAX_QUEUED: u64 = 1_000;
/// Beyond this a queue holds what nobody waits for any more.
pub const MAX_QUEUED_CEILING: u64 = 100_000;
/// A run that takes more processor time than this is no brief one: many of these in turn are what people notice as a
/// delay.
pub const LONG_RUN_MS: u64 = 10;
/// Items of one executeMany. The frame costs a thousandth for each then, and what they say fits the bound on control
/// values.
pub const MAX_MANY_ITEMS: usize = 1_000;
/// For so long the items of an executeMany run one after another; then what else waits has its turn. As long as a run
/// that is no brief one, so it counts as that.
pub const MANY_TURN_MS: u64 = 10;
/// From this size on the results of an executeMany that are there leave as a part: the others would gain nothing by
/// waiting, and memory would be held.
pub const MANY_PART_BYTES: usize = 1 << 20;
/// The same for control values, of which a message may have twice as many.
pub const MANY_PART_VALUES: usize = 32_768;
/// Logs of a handler that runs are told at most this often to who asks for them: often enough for people to watch.
pub const LOGS_INTERVAL_MS: u64 = 50;
/// It keeps its connection from the last free instance for so many times as long. So whoever has more than a hundredth
/// of a processor with such runs never has that instance: of those that do nothing else, a hundred for each processor.
pub const LONG_RUN_KEEPS_AWAY: u32 = 100;
/// Longest time for which a long run keeps its connection from the last free instance.
pub const LONG_RUN_KEEPS_AWAY_MS: u64 = 600_000;
/// While there are several connections, a run that has used more processor time than this goes on behind the others: at
/// a lower priority, so that what is brief is done at once. Longer than what most handlers take.
pub const IN_FRONT_MS: u64 = 2;
/// The same for a connection whose runs are known to be long.
pub const BUSY_IN_FRONT_US: u64 = 500;
/// While there are several connections, one whose runs have used more than an eighth of its equal part of the
/// processors within so long runs often until the end of the next such window. Those and the ones whose runs are known
/// to be long have together no more runs at once than there are processors, but for runs that have gone behind or go on
/// for long, and not the last free instance.
pub const USAGE_WINDOW_MS: u64 = 100;
/// While others wait for the last free instance, a run has it for so much processor time, and then goes on beside the
/// others. Longer than what most handlers take; short, since those who wait take turns.
pub const LAST_INSTANCE_TRIAL_MS: u64 = 2;
/// Time an execution may wait for an instance.
pub const DEFAULT_MAX_QUEUE_MS: u64 = 5_000;
/// What an overloaded sidecar asks its clients to wait: longer than most handlers run.
pub const RETRY_AFTER_MS: u64 = 50;
/// Bytes that one connection has sent and that are not done with: of frames that are not whole yet, that wait, that are
/// worked on, and copies out of its shared memory. Without it, `maxQueued` large frames would be as many times
/// `maxFrameBytes`.
pub const MAX_QUEUED_BYTES: u64 = 256 << 20;
/// The same, of all connections together: two can have as much as one may, and leave half of the memory of a small
/// machine.
pub const MAX_TOTAL_QUEUED_BYTES: u64 = 512 << 20;
/// What a request counts beside its frame while it waits: its place in the books.
pub const QUEUED_REQUEST_BYTES: u64 = 512;
/// What every connection may have of it without being counted, so that nobody is kept from small requests: as much as
/// its read buffer takes before a frame needs a larger one.
pub const FREE_BUFFER_BYTES: usize = FRAME_TAKE_OVER_BYTES;

// ---- Life of the process -------------------------------------------------------------------------------------------

/// Time that a sidecar which was told to end gives what is under way.
pub const DEFAULT_DRAIN_TIMEOUT_MS: u64 = 5_000;
/// Time after that for the cancelled rest to be answered.
pub const DRAIN_CANCEL_GRACE_MS: u64 = 900;
/// Time after that to tell whoever asked for the end. Together they are the second that an end may take beyond its
/// time.
pub const DRAIN_FAREWELL_MS: u64 = 100;
/// Time after its deadline at which a run that still runs means that the process does not work any more: the kill that
/// comes with the deadline takes milliseconds.
pub const STUCK_RUN_MS: u64 = 5_000;

// ---- Connections ---------------------------------------------------------------------------------------------------

/// Connections at once. Each user whom `allowUids` lists may have an equal part of them, as the sidecar's own user has.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Of these, places for looking after the sidecar: taken by its own user and root when there is no other place, and
/// good for everything but work. In a full house the one that has been there longest makes room.
pub const OPERATOR_CONNECTIONS: usize = 4;
/// While somebody who is there asks for something, so many looks at the connections go by before one more is taken.
pub const LOOKS_PER_ACCEPT: u32 = 4;
/// For how long nothing is accepted after there was no descriptor left for a connection.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Time for hello to arrive, and for each frame from its first byte to its last. Long enough for a client that is
/// stopped for some seconds; idle between frames is not limited. A parent is not limited either.
pub const FRAME_READ_TIMEOUT_MS: u64 = 10_000;
/// A connection that leaves this much unread is not read from, and nothing more is begun for it.
pub const MAX_UNREAD_BYTES: usize = 8 << 20;
/// What all connections together may leave unread before those count as ones with too much that have more than their
/// free part, and more than is theirs of the reserve. Twice the largest frame, where that is more.
pub const MAX_TOTAL_UNREAD_BYTES: u64 = 256 << 20;
/// A connection with too much unread that reads nothing of it for this long is closed, unless it is a parent's.
pub const UNREAD_TIMEOUT_MS: u64 = 30_000;
/// Time that the peer has to read why its connection is closed.
pub const LAST_WORDS_MS: u64 = 2_000;
/// Lists of executions that one connection may ask for at once: a person looks at one.
pub const MAX_PENDING_LISTS: usize = 16;
/// Executions that one look lists; a person reads no more.
pub const MAX_LISTED_EXECUTIONS: usize = 1_000;

// ---- HTTP endpoint -------------------------------------------------------------------------------------------------

/// Connections of the HTTP endpoint at once; one scraper and some probes need less.
pub const HTTP_MAX_CONNECTIONS: usize = 16;
/// Head of one HTTP request.
pub const HTTP_MAX_HEAD_BYTES: usize = 8 << 10;
/// Time for one HTTP exchange, from accept to the last byte of the answer.
pub const HTTP_TIMEOUT_MS: u64 = 5_000;
/// Between two times that the metrics are written to a file; collectors read such files about as often.
pub const METRICS_TEXTFILE_MS: u64 = 15_000;

// ---- Cache ---------------------------------------------------------------------------------------------------------

/// Both tiers of the compile cache, each.
pub const DEFAULT_MAX_CACHE_SIZE_BYTES: u64 = 64 << 20;
/// What a sidecar that ends gives its disk to take in the handlers that are queued for it: a fifth of a second is
/// enough for a queue that is full, and a disk that hangs must not keep the process.
pub const CACHE_FLUSH_MS: u64 = 1_000;
/// Time that a worker gives the supervisor to look for a handler on its disk, before it compiles without.
pub const SHELF_TIMEOUT_MS: u64 = 2_000;
/// Time that the worker which compiles has for a source whose bytecode is to be kept: as much as `timeoutMs` is by
/// default.
pub const COMPILE_AGAIN_MS: u64 = 5_000;

// ---- Processes -----------------------------------------------------------------------------------------------------

/// Workers with a connection each, where each connection has one.
pub const DEFAULT_MAX_WORKERS: u64 = 16;
/// Without one nobody is served.
pub const MIN_MAX_WORKERS: u32 = 1;
/// A worker takes some ten threads and 12 MB while it does nothing, of which a service's unit allows a few thousand
/// threads.
pub const MAX_WORKERS_CEILING: u64 = 256;
/// So many workers that are lost within `WORKER_DEATHS_WINDOW_MS` are a loop that ends the sidecar: whatever ends them
/// would end the next one.
pub const MAX_WORKER_DEATHS: usize = 5;
/// The time within which they are counted.
pub const WORKER_DEATHS_WINDOW_MS: u64 = 5_000;
/// The longest text of metrics that a worker hands to the supervisor; its labels are from fixed lists, which makes some
/// 30 KB.
pub const PAGE_TEXT_BYTES: u64 = 1 << 20;
/// Time that a worker has to answer the supervisor, beyond what it takes to see whether it moves.
pub const WORKER_ANSWER_MS: u64 = 200;
/// Time that a worker has from its start until it serves. It takes less than a second on a machine that is not busy;
/// one that takes longer than this stands still, and is lost.
pub const WORKER_START_MS: u64 = 30_000;
/// Looks at a worker of a connection, a second apart, without a sign of life from it: it stands still, and is killed. A
/// machine that is busy keeps no thread from running for that long.
pub const WORKER_STILL_LOOKS: u32 = 5;
/// Connections that have said nothing yet, where each that speaks has a worker: as many as there can be workers.
pub const MAX_SILENT_CONNECTIONS: usize = 256;
/// Time that a worker has for its end: beyond `drainTimeoutMs` when it is told to end, of which a second is its own,
/// and from where it hears nobody any more. Then it is killed.
pub const WORKER_END_MS: u64 = 5_000;

// ---- Resident states -----------------------------------------------------------------------------------------------

/// Resident states of one connection.
pub const DEFAULT_MAX_STATES: u64 = 1_000;
/// What the resident states of one connection take, versions included that a suspended execution still reads.
pub const DEFAULT_MAX_STATE_BYTES: u64 = 256 << 20;
/// What the resident states of all connections together take.
pub const DEFAULT_MAX_TOTAL_STATE_BYTES: u64 = 1 << 30;
/// What a key of a resident state counts beside its name and its value: three allocations and its place in the map.
/// Measured by the sidecar's test `state_charge`, at most 184 bytes.
pub const STATE_ENTRY_BYTES: u64 = 192;
/// What a resident state counts beside its keys; measured there as well, with the first node of its map.
pub const STATE_BYTES: u64 = 544;
/// What an old version of a state that is still read counts for each key that a change set has copied beside its own:
/// its part of a node of the map, which is at least half full. Measured there as well.
pub const STATE_COPIED_ENTRY_BYTES: u64 = 48;
/// Longest key: as long as a handler can name.
pub const MAX_STATE_KEY_BYTES: usize = 1_024;

// ---- Bytes that cross the boundary ---------------------------------------------------------------------------------

/// Bytes of one value that a host call takes or gives: a state value, an event's payload, the arguments of an extension
/// call. A quarter of a frame, so that what a segment carries fits one; checked before anything is copied.
pub const MAX_HOST_CALL_BYTES: u64 = 16 << 20;
/// Bytes that the host calls of one execution may copy, in both directions together. Ten thousand host calls of
/// [`MAX_HOST_CALL_BYTES`] would copy 160 GiB; this is a fraction of a second.
pub const MAX_COPIED_BYTES: u64 = 256 << 20;
/// Name of a key, event, view, extension or method.
pub const MAX_NAME_BYTES: usize = 1_024;
/// Random bytes of one call: what the Web's `getRandomValues` allows.
pub const MAX_RANDOM_BYTES: usize = 65_536;
/// Missing capabilities of one segment that are logged one by one; all are counted.
pub const MAX_LOGGED_VIOLATIONS: usize = 16;
/// Refusals of one execution (a capability, an extension, a method) that its error may be about: the last ones. Each
/// has at most two names, so they take 128 KiB at most, and are kept while it is suspended.
pub const MAX_REMEMBERED_REFUSALS: usize = 64;
/// Native stack that a host call must find, in bytes: a guest that comes with less has gone where no honest one comes,
/// and its run ends before the host's own frames could be what overflows.
pub const MIN_HOST_CALL_STACK_BYTES: usize = 1 << 20;
/// Stack, in bytes, on which a thread that runs guests takes the signal of a fault. WasmEdge's handler walks the stack
/// of the faulting code by the unwinder, which needs some 10 KiB; what the kernel puts on it is up to 11 KiB (AVX-512,
/// AMX).
pub const SIGNAL_STACK_BYTES: usize = 64 << 10;
/// For how long a file in memory whose pages the kernel finds in use is sealed again, in milliseconds: it does so while
/// it moves them to other places of memory.
pub const SEAL_PATIENCE_MS: u64 = 10_000;

// ---- The kill ladder: how a run that has to end is ended -----------------------------------------------------------

/// Between the interrupt word, which QuickJS polls, and taking the memory away, which stops native code.
pub const KILL_GRACE_MS: u64 = 10;
/// From the moment a run has to end to giving its thread up, when the thread has used half of it on a processor and
/// still does not come back: it is stuck in a host call or in the kernel.
pub const RETIRE_GRACE_MS: u64 = 1_000;
/// The same for a thread that stands still. Much longer: on a busy machine a healthy one may have to wait for a
/// processor.
pub const RETIRE_STANDSTILL_MS: u64 = 5_000;
/// Threads that one connection may cost before it is closed: what one client does must not use up what the process can
/// lose.
pub const MAX_RETIRED_PER_CONNECTION: u32 = 2;
/// What a request may take beside the time of its guest (decoding, parsing, encoding) before its thread is given up.
pub const HOST_GRACE_MS: u64 = 5_000;
/// Threads that were given up and have not come back. One more ends the process: each holds a stack and an instance,
/// and so many mean that something is broken that a restart repairs.
pub const MAX_RETIRED_THREADS: usize = 4;
/// For how long the books of the server or its only poller may be held by one thread before the process ends.
pub const PROCESS_GRACE_MS: u64 = 10_000;
/// What a process that gives up takes to answer what it can.
pub const FAREWELL_MS: u64 = 200;

// ---- The sidecar's own log -----------------------------------------------------------------------------------------

/// Text of one record, before escapes.
pub const MAX_LOG_RECORD_BYTES: usize = 8 << 10;
/// Records at level warn and below that are written in one second; the rest is counted and summed up.
pub const MAX_LOG_RECORDS_PER_SECOND: u32 = 50;
/// Records that may come at once after a quiet time.
pub const LOG_BURST_RECORDS: u32 = 200;

// ---- Shared memory -------------------------------------------------------------------------------------------------

/// Segment of one connection. It takes memory as it is written, not as it is made.
pub const DEFAULT_MAX_ARENA_BYTES: u64 = 64 << 20;
/// Segments of all connections together.
pub const DEFAULT_MAX_TOTAL_ARENA_BYTES: u64 = 1 << 30;
/// Smaller segments hold no payload that is worth one.
pub const MIN_ARENA_BYTES: u64 = 1 << 20;
/// Payloads from here on travel through the segment, where there is one: below it a second system call costs more than
/// the copy through the socket.
pub const ARENA_THRESHOLD_BYTES: usize = 256 << 10;
/// A segment that the client has not opened by now loses its name; the client goes on through the socket.
pub const ARENA_OPEN_TIMEOUT_MS: u64 = 10_000;

// ---- Clients -------------------------------------------------------------------------------------------------------

/// Time until a sidecar has to have said hello: it loads its engine first, on a machine that may be busy.
pub const CLIENT_HELLO_TIMEOUT_MS: u64 = 20_000;
/// Time that a sidecar whose connection has ended may take to end itself; then it is killed.
pub const CLIENT_EXIT_GRACE_MS: u64 = 3_000;
/// Of a sidecar whose connection has ended, how it ended is awaited this long before calls are told without: on a busy
/// machine a process that has closed everything may wait for its turn to end.
pub const CLIENT_DEATH_DETAIL_MS: u64 = 1_000;
/// A sidecar that dies sooner than this after its start died young: the next start waits.
pub const CLIENT_STABLE_AFTER_MS: u64 = 1_000;
/// Wait before the start after the first young death; it doubles, and a random half is taken off.
pub const CLIENT_BACKOFF_FIRST_MS: u64 = 50;
/// Longest wait before such a start.
pub const CLIENT_BACKOFF_MAX_MS: u64 = 5_000;
/// So many deaths within the window are a crash loop: calls fail at once until the cool-down is over.
pub const CLIENT_CRASH_LOOP_DEATHS: usize = 5;
/// The window of a crash loop.
pub const CLIENT_CRASH_LOOP_WINDOW_MS: u64 = 30_000;
/// Time in which nothing is started after a crash loop.
pub const CLIENT_CRASH_LOOP_COOL_DOWN_MS: u64 = 5_000;
/// Suspensions of which a client remembers who holds them.
pub const CLIENT_HELD_SUSPENSIONS: usize = 100_000;
/// Calls that a client remembers on one connection to list them again.
pub const CLIENT_LISTED_CALLS: usize = 100_000;
/// Bytes of the arguments of calls that a client remembers on one connection to list them again.
pub const CLIENT_LISTED_BYTES: usize = 256 << 20;
/// Lines of the sidecar's log that an error repeats.
pub const CLIENT_LOG_TAIL_LINES: usize = 20;
/// Length of each of those lines.
pub const CLIENT_LOG_LINE_BYTES: usize = 1_000;
/// Requests that wait in a client for the sidecar to take them; beyond these a call is OVERLOADED.
pub const CLIENT_WAITING_REQUESTS: usize = 100_000;
/// Bytes of the requests that wait in a client; beyond these a call is OVERLOADED.
pub const CLIENT_WAITING_BYTES: usize = 256 << 20;
/// After how long a call that was OVERLOADED in the client may be tried again.
pub const CLIENT_OVERLOADED_RETRY_MS: u64 = 50;
/// Of the sidecar's `maxInFlight`, what a client keeps free for cancels and figures (but at most a quarter).
pub const CLIENT_RESERVED_IN_FLIGHT: u64 = 32;
/// From this size on a client sends the contexts of one call in several frames: what waits for a frame is not copied at
/// once.
pub const CLIENT_MANY_BLOCK_BYTES: usize = 1 << 20;
/// Contexts of one call that may be suspended at once; the next ones wait, so that others have places too.
pub const CLIENT_MANY_SUSPENDED: usize = 100;
/// Extension functions that block at the same time; more of them wait.
pub const CLIENT_BLOCKING_CALLS: usize = 32;
/// Time that an idle thread for extension functions stays.
pub const CLIENT_IDLE_THREAD_MS: u64 = 5_000;
