//! nexus-sidecar: a sandbox for untrusted JavaScript handlers that a program can spawn.
//!
//! # The words of the house
//! Each has one meaning everywhere in this crate.
//!
//! | word | |
//! | --- | --- |
//! | handler | the JavaScript of a client; *compiled*, it is bytecode and what is known of the text |
//! | guest | QuickJS in WebAssembly; *direct* for handlers that await, *stack* for those that do not |
//! | instance | one guest with its linear memory; pristine when it is leased, reset when it is given back |
//! | image | the memory of a guest after its start, from which every instance is restored |
//! | execution | a handler at work for one `execute`, over any number of suspensions |
//! | segment | what an execution does between two suspensions; each has one answer |
//! | suspension | one extension call that waits for its answer, known by a secret id |
//! | parked | of a suspended execution: its memory is packed and its instance serves others |
//! | session | one connection as the books know it; a *connection* is its socket |
//! | request, job | what a client asks; as a job it waits for a worker |
//! | run | one request in the hands of one worker, known by a number that is never used again |
//! | worker, crew | a thread that runs jobs, or polls; all of them, and the run that each is at |
//! | hub, books | who waits, who runs, who is suspended: all under one lock |
//! | mailbox | resumes that wait for one execution |
//! | holdings | which suspended executions keep their instance, and what all of them take |
//! | seat | the place of a suspended execution among those that keep their instance |
//! | turn | when a session may have its next job run, or its next bytes read: after the others |
//! | standing | what is known of the runs of a session: brief, or long |
//! | beside | of a run: it has its instance beside those that there may be |
//! | to give way, behind, in front | of a thread: the kernel has others go first |
//! | poller | the reading half of all connections; whoever has nothing better to do polls |
//! | watchdog | the thread on which all deadlines hang; it decides, and does nothing that takes long |
//! | errand | what the watchdog leaves to the thread that has the poller: to say or to close something |
//! | chore, housekeeper | what is left to a thread off the path of requests, and that thread |
//! | keeper | a thread that stays inside a guest so that WasmEdge's fault handlers stay installed |
//! | supervisor, engine worker | the process that has sockets, keys and names, and the sealed one in which guests run; in `walls`, a worker is that one |
//! | control, ticket | by which a guest is stopped, and the run on it that is meant |
//! | token | by which host code learns that its request has to end |
//! | budget, charge | bytes that may be used, and those that are, for as long as the charge lives |
//! | share, reserve | a limit that connections have in common, and what is kept beyond it for those who hold little |
//! | retired | of a worker: its thread does not come back, others have answered for it |
//! | arena, region | shared memory that a client has lent, and a part of it |

/// Types out, capabilities inferred, suspend mode chosen: what is known of a handler without running it.
pub mod analysis;
/// Bytes that are counted for as long as they are there.
pub mod budget;
/// Compiled handlers and the handles that name them.
pub mod cache;
/// The command line.
pub mod cli;
/// What each command does.
pub mod commands;
/// Typed configuration: defaults, bounds, and where each value came from.
pub mod config;
/// QuickJS in WasmEdge: one instance, its pristine image, its limits.
pub mod engine;
/// Errors of starting.
pub mod error;
/// One execution, from its first segment to its end.
pub mod execution;
/// The numbers that the process ends with.
pub mod exit;
/// Faults on purpose, for tests.
pub mod faults;
/// Refused, or out of time.
pub mod halt;
/// Metrics and health over HTTP.
pub mod http;
/// Signals, the parent, the service manager, the end of the process.
pub mod lifecycle;
/// Metrics, statistics, log.
pub mod observe;
/// System calls that need unsafe code.
pub mod os;
/// By which path this program can be executed again.
pub mod own_program;
/// Pristine instances, ready to run.
pub mod pool;
/// One pool for each guest.
pub mod pools;
#[cfg(test)]
mod random;
/// States that stay between executions.
pub mod resident;
/// Compile, execute, resume: everything but the transport.
pub mod runtime;
/// Shared memory for large payloads.
/// Which parts of a seal hold.
pub mod sealed;
pub mod segments;
/// The `serve` command.
pub mod serve;
/// Connections in, answers out.
pub mod server;
/// What is kept for those who hold little of what all share.
pub mod share;
/// A sort that can be left.
pub(crate) mod sort;
/// The metrics in a file that collectors read.
pub mod textfile;
/// Whether a request still has time.
pub mod token;
/// The process that serves and the one in which guests run.
pub mod walls;
