//! Everything that a sidecar does for a request, without any transport: compile (cached), execute, resume.
//!
//! Calls block the thread they are made on, which needs the stack of `engine::thread_stack_bytes`. Used by the server's
//! workers, and by the `run` and `check` commands directly.

mod overseer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Code, Execute, Stats, Status, SuspendMode};
use nexus_protocol::{Capability, CapabilitySet, ErrorCode, SuspensionId, WireError};

use crate::analysis::{self, Analysis, AnalysisError};
use crate::cache::disk::DiskTier;
use crate::cache::handle::HandleKey;
use crate::cache::{
    Asker, Client, CompileCache, Concerns, Failed, Got, Handler, HandlerDigest, LowerTier, Need, Note, Origin, Warning,
};
use crate::config::{Config, LiveConfig};
use crate::engine::guest_error::{self, GuestError};
use crate::engine::host::HOST_CALLS;
use crate::engine::live_logs::LiveLogs;
use crate::engine::refusals::Refusals;
use crate::engine::{Compiled, Engine, EngineError, EngineOptions, Guests, Instance};
use crate::execution::{self, Answer, Arrival, Execution, Progress, Report, StateSource, Totals};
use crate::halt::Halt;
use crate::observe::{self, Ceilings, Observer, SegmentRecord, Snapshot, SuspensionEvent};
use crate::pools::{LeaseError, Pools};
use crate::sealed::Walls;
use crate::token::{StopCause, StopToken};
use nexus_protocol::limits::MAX_CONNECTIONS;

pub use overseer::{Armed, Overseer, Purpose};

/// See the module.
pub struct Runtime {
    pub config: LiveConfig,
    engine: Arc<Engine>,
    pools: Pools,
    cache: CompileCache,
    handles: HandleKey,
    pub observer: Observer,
}

/// What came of a segment.
pub struct Ran<'a> {
    pub report: Report,
    pub progress: Progress,
    pub armed: Armed<'a>,
}

/// A compiled handler, and how it came to be.
#[derive(Debug)]
pub struct Found {
    pub handler: Arc<Handler>,
    /// As its client is told: what it uses for the first time was not there, whoever has compiled it.
    pub cache_hit: bool,
    /// What its client is told of compiling it.
    pub told: Option<Duration>,
}

impl Found {
    fn new(got: Got) -> Self {
        let told = (got.origin != Origin::Known).then_some(got.handler.took);
        Self { handler: got.handler, cache_hit: told.is_none(), told }
    }
}

/// What the server knows of executions, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub active: u64,
    pub suspended: u64,
    /// Of those, the ones that hold no instance.
    pub parked: u64,
    pub suspended_bytes: u64,
    pub suspensions: u64,
    /// Of those, the ones of parked executions.
    pub parked_suspensions: u64,
    pub queued: u64,
    pub connections: u64,
    pub resident_states: u64,
    pub resident_state_bytes: u64,
    pub retired_threads: u64,
    pub retired_threads_total: u64,
    pub arena_bytes: u64,
    /// What stands between this process and the machine.
    pub walls: Walls,
}

/// What the configuration says of the guests.
pub fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        aot: config.enable_aot,
        mode: SuspendMode::Await,
        stack_bytes: u32::try_from(config.stack_size_bytes).unwrap_or(u32::MAX),
        simd: config.enable_simd,
        bulk_memory: config.enable_bulk_memory,
        module: config.quickjs_module_path.clone(),
    }
}

/// What outlives a runtime: where compiled handlers are kept, and the key of their handles.
pub struct Keeping {
    pub handles: HandleKey,
    /// None: they are kept in memory only.
    pub lower: Option<Box<dyn LowerTier>>,
}

impl Keeping {
    /// The directory of the configuration, or nothing.
    fn of(config: &Config, engine: [u8; 32]) -> Result<Self, EngineError> {
        let (disk, handles) = DiskTier::open_with_key(config.cache_dir.as_deref(), engine, config.max_cache_size_bytes)
            .map_err(|e| EngineError::Init(e.to_string()))?;
        Ok(Self { handles, lower: disk.map(|disk| Box::new(disk) as Box<dyn LowerTier>) })
    }
}

impl Runtime {
    pub fn new(config: Config) -> Result<Self, EngineError> {
        Self::start(config.clone(), Guests::one(engine_options(&config))?, Keeping::of)
    }

    /// A runtime that opens nothing itself.
    pub fn start(
        config: Config,
        guests: Guests,
        keeping: impl FnOnce(&Config, [u8; 32]) -> Result<Keeping, EngineError>,
    ) -> Result<Self, EngineError> {
        let engine = Engine::start_loaded(guests)?;
        let pools = Pools::new(engine.clone(), config.min_instances as usize, config.max_instances as usize)?;
        let Keeping { handles, lower } = keeping(&config, *engine.digest())?;
        Ok(Self {
            cache: CompileCache::new(config.max_cache_size_bytes, lower),
            config: LiveConfig::new(config),
            engine,
            pools,
            handles,
            observer: Observer::new(&HOST_CALLS),
        })
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    // ---- compiling ----

    /// Has compiled handlers written that wait for the disk; for the end of the process.
    pub fn flush(&self) {
        self.cache.flush();
    }

    /// A client is there from now on: what it compiles is its own.
    pub fn join(&self, client: Client) {
        self.cache.join(client);
    }

    /// And is no more.
    pub fn leave(&self, client: Client) {
        self.cache.leave(client);
    }

    /// Whether compiled handlers outlive the process: what `cacheDir` asked for may not have been possible.
    pub fn keeps_handlers(&self) -> bool {
        self.cache.is_on_disk()
    }

    /// The compiled handler, from the cache or made now. `mode` None: its text decides. The deadline is the token's.
    pub fn compile(
        &self,
        source: &str,
        mode: Option<SuspendMode>,
        client: Client,
        overseer: &dyn Overseer,
    ) -> Result<Found, WireError> {
        let asker = Asker { client, memory_limit_bytes: self.config.memory_limit_bytes, token: overseer.token() };
        self.compile_for(source, mode, asker, overseer)
            .map_err(|halt| self.public(halt.into_error(|cause| compile_stopped(cause, overseer))))
    }

    fn compile_for(
        &self,
        source: &str,
        mode: Option<SuspendMode>,
        asker: Asker<'_>,
        overseer: &dyn Overseer,
    ) -> Result<Found, Halt> {
        let limit = self.config.max_source_bytes;
        if source.len() as u64 > limit {
            return Err(WireError::resource_limit("maxSourceBytes", limit, source.len() as u64).into());
        }
        let digest = HandlerDigest::forced(self.engine.digest(), mode, source);
        let compile = || {
            overseer.compiles();
            self.compile_now(digest, source, mode, asker, overseer)
        };
        Ok(Found::new(self.cache.get_or_compile(digest, asker, compile)?))
    }

    fn compile_now(
        &self,
        digest: HandlerDigest,
        source: &str,
        mode: Option<SuspendMode>,
        asker: Asker<'_>,
        overseer: &dyn Overseer,
    ) -> Result<Handler, Failed> {
        let started = Instant::now();
        let stopped = |cause| Failed { error: compile_stopped(cause, overseer), concerns: Concerns::Nobody };
        let analysis = match analysis::analyze(source, mode, asker.token) {
            Ok(analysis) => analysis,
            Err(AnalysisError::Stopped(cause)) => return Err(stopped(cause)),
            Err(AnalysisError::Syntax(e)) => return Err(Failed::for_all(guest_error::syntax_error(&e, source))),
        };
        // both guests run its bytecode
        let mut instance = self.lease(SuspendMode::Await, asker.token).map_err(|halt| match halt {
            Halt::Refused(error) => Failed::for_all(error),
            Halt::Stopped(cause) => stopped(cause),
        })?;
        let armed = Armed::new(overseer, &instance, Purpose::Compile);
        let limit = asker.memory_limit_bytes;
        let compiled = match asker.token.check() {
            Ok(()) => {
                instance.compile(&analysis.code, u32::try_from(limit).unwrap_or(u32::MAX), asker.token.deadline())
            }
            Err(cause) => Compiled::Stopped(cause),
        };
        // nobody may stop what runs there next
        drop(armed);
        self.give_back(Some(instance));
        let bytecode = match compiled {
            Compiled::Bytecode(bytecode) => bytecode,
            Compiled::Refused(described) => {
                let error =
                    GuestError::decode(&described).to_wire(ErrorCode::CompilationError, source, &Refusals::default());
                return Err(Failed::for_all(refused_source(error, &analysis, source)));
            }
            Compiled::OutOfMemory { wanted } => {
                let mut error = execution::memory_error(limit, wanted.max(limit + 1));
                error.message = format!("compiling the handler needs more than its {limit} bytes of memory");
                return Err(Failed { error, concerns: Concerns::AtMost(limit) });
            }
            Compiled::Stopped(cause) => return Err(stopped(cause)),
            Compiled::Broken(why) => {
                log::warn!("compiling broke a guest: {why}");
                // it would do so again
                let error = WireError::new(ErrorCode::WasmError, "compiling the handler broke its instance");
                return Err(Failed::for_all(error.not_retryable()));
            }
        };
        Ok(Handler {
            digest,
            source: source.into(),
            bytecode: bytecode.into(),
            capabilities: analysis
                .capabilities
                .into_iter()
                .map(|c| Need { token: c.token.into(), line: c.line, column: c.column, certain: c.certain })
                .collect(),
            suspend_mode: analysis.suspend_mode,
            why: analysis.why.text().into(),
            warnings: analysis
                .warnings
                .into_iter()
                .map(|w| Warning {
                    note: Note { message: w.message.into(), line: w.line, column: w.column },
                    explains_until: w.explains_until,
                })
                .collect(),
            unparsed: analysis.unparsed.map(|e| Note { message: e.message.into(), line: e.line, column: e.column }),
            took: started.elapsed(),
        })
    }

    /// The handle that clients get for a handler.
    pub fn handle(&self, handler: &Handler) -> Vec<u8> {
        self.handles.sign(&handler.digest)
    }

    fn find(
        &self,
        code: Code<'_>,
        mode: Option<SuspendMode>,
        asker: Asker<'_>,
        overseer: &dyn Overseer,
    ) -> Result<Found, Halt> {
        match code {
            Code::Source(source) => self.compile_for(source, mode, asker, overseer),
            Code::Handler(handle) => {
                let digest = self.handles.verify(handle).ok_or_else(|| {
                    WireError::unknown_handler("the handle is not one that this sidecar gave out; compile again")
                })?;
                let got = self.cache.get(&digest, asker)?.ok_or_else(|| {
                    WireError::unknown_handler("the handler is no longer in the cache; compile again")
                })?;
                if mode.is_some_and(|mode| mode != got.handler.suspend_mode) {
                    let message = "suspendMode: the handler was compiled for the other one; give it to precompile";
                    return Err(WireError::new(ErrorCode::InvalidArgument, message).into());
                }
                // whoever has the handle has compiled it, or was told by who did
                Ok(Found { handler: got.handler, cache_hit: true, told: None })
            }
        }
    }

    // ---- executing ----

    /// Runs a handler up to its first suspension or its end. `state`: where its state is.
    pub fn execute<'a>(
        &self,
        request: &Execute<'_>,
        state: StateSource,
        arrival: Arrival,
        client: Client,
        overseer: &'a dyn Overseer,
    ) -> Ran<'a> {
        let mut totals = Totals::begun(arrival);
        totals.timeout = execution::narrow_timeout(self.config.timeout_ms, request.timeout_ms);
        let (report, progress, armed) = match self.begin(request, state, &mut totals, client, overseer) {
            Ok(((report, progress), armed)) => (report, progress, armed),
            Err(halt) => {
                let error = halt.into_error(|cause| execution::stopped(cause, totals.timeout, totals.spent()));
                (refused(&totals, error), Progress::Finished(None), Armed::none())
            }
        };
        let report = if report.is_cancelled() && overseer.begins_again() { report } else { self.observed(report) };
        Ran { report, progress, armed }
    }

    fn begin<'a>(
        &self,
        request: &Execute<'_>,
        state: StateSource,
        totals: &mut Totals,
        client: Client,
        overseer: &'a dyn Overseer,
    ) -> Result<((Report, Progress), Armed<'a>), Halt> {
        let token = overseer.token();
        let mut input = execution::prepare(request, &self.config, state, token)?;
        totals.timeout = input.timeout;
        totals.memory_limit_bytes = input.context.limits.memory_bytes.into();
        totals.max_frame_bytes = self.config.max_frame_bytes as usize;
        let asker = Asker { client, memory_limit_bytes: totals.memory_limit_bytes, token };
        let found = self.find(request.code, request.suspend_mode, asker, overseer)?;
        totals.cache_hit = found.cache_hit;
        totals.compilation = found.told;
        if input.strict {
            refuse_uncovered(&found.handler, &input.context.capabilities)?;
        }
        input.context.state.renew()?;
        let instance = self.lease(found.handler.suspend_mode, token)?;
        if request.stream_logs {
            let live = Arc::<LiveLogs>::default();
            overseer.logs_live(live.open());
            input.context.live_logs = Some(live);
        }
        let armed = Armed::new(overseer, &instance, Purpose::Execute);
        Ok((Execution::start(found.handler, instance, input.context, totals.clone(), token), armed))
    }

    /// Goes on with a suspended execution.
    pub fn resume<'a>(
        &self,
        mut execution: Execution,
        id: SuspensionId,
        answer: Answer<'_>,
        arrival: Arrival,
        overseer: &'a dyn Overseer,
    ) -> Ran<'a> {
        if execution.is_parked() {
            self.observer.record_suspension(SuspensionEvent::Unparked);
        }
        execution.goes_on(arrival);
        let mode = execution.mode();
        let (timeout, spent) = execution.budget();
        let token = overseer.token();
        let lease = || {
            let lease = self.lease(mode, token);
            lease.map_err(|halt| halt.into_error(|cause| execution::stopped(cause, timeout, spent)))
        };
        let (report, progress, armed) = match execution.awake(lease) {
            Ok(mut awake) => {
                if let Some(live) = awake.live_logs() {
                    overseer.logs_live(live.open());
                }
                let armed = Armed::new(overseer, awake.instance(), Purpose::Execute);
                let (report, progress) = awake.resume(id, answer, token);
                (report, progress, armed)
            }
            Err(failed) => (failed.report, Progress::Finished(failed.instance), Armed::none()),
        };
        Ran { report: self.observed(report), progress, armed }
    }

    /// Takes an instance back once its execution is answered.
    pub fn give_back(&self, instance: Option<Instance>) {
        if let Some(took) = instance.and_then(|i| self.pools.give_back(i)) {
            self.observer.record_reset(took);
        }
    }

    /// The instances, for those who look after them.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    fn lease(&self, mode: SuspendMode, token: &StopToken) -> Result<Instance, Halt> {
        self.pools.lease(mode, token).map_err(|e| match e {
            LeaseError::Stopped(cause) => Halt::Stopped(cause),
            LeaseError::Engine(e @ EngineError::NoStackStyle(_)) => {
                WireError::new(ErrorCode::InvalidHandler, e.to_string()).into()
            }
            LeaseError::Engine(e) => {
                log::error!("{e}");
                WireError::new(ErrorCode::InternalError, "no instance could be made").into()
            }
        })
    }

    /// Counts a segment, logs what the operator should know, and leaves out what clients may not see.
    fn observed(&self, mut report: Report) -> Report {
        for token in &report.violations {
            log::warn!("a handler tried to use the capability {token}, which it was not granted");
        }
        self.observer.record_segment(&SegmentRecord {
            status: match report.status {
                Status::Success => observe::Status::Success,
                Status::Suspended => observe::Status::Suspended,
                Status::Error => observe::Status::Error,
            },
            duration: report.duration(),
            host_calls: &report.new_host_calls,
            error: report.error.as_ref().map(|e| e.code),
            memory_peak_bytes: report.memory_peak_bytes(),
            capability_violations: report.denials,
        });
        report.error = report.error.take().map(|e| self.public(e));
        report
    }

    fn public(&self, error: WireError) -> WireError {
        if self.config.debug { error } else { error.without_debug_detail() }
    }

    // ---- telling ----

    fn snapshot(&self, load: Load) -> Snapshot {
        let pool = self.pools.counts();
        let cache = self.cache.counts();
        Snapshot {
            active_instances: load.active,
            available_instances: pool.available,
            suspended_instances: load.suspended,
            terminated_instances: pool.terminated,
            instances_created: pool.created,
            instances_reused: pool.reused,
            parked_executions: load.parked,
            total_memory_bytes: (load.active + pool.available) * self.engine.idle_bytes() as u64
                + load.suspended_bytes
                + cache.bytes
                + load.resident_state_bytes,
            suspended_bytes: load.suspended_bytes,
            suspensions: load.suspensions,
            parked_suspensions: load.parked_suspensions,
            queued: load.queued,
            connections: load.connections,
            limits: Ceilings {
                instances: self.config.max_instances,
                queued: self.config.max_queued,
                suspended: self.config.max_suspended,
                connections: MAX_CONNECTIONS as u64,
            },
            resident_states: load.resident_states,
            resident_state_bytes: load.resident_state_bytes,
            retired_threads: load.retired_threads,
            retired_threads_total: load.retired_threads_total,
            arena_bytes: load.arena_bytes,
            walls: load.walls,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_rejected: cache.rejected,
            cache_entries: cache.entries,
            cache_size_bytes: cache.bytes,
            cache_disk_bytes: cache.disk_bytes,
        }
    }

    pub fn stats(&self, load: Load) -> Stats {
        self.observer.stats(&self.snapshot(load))
    }

    pub fn prometheus(&self, load: Load) -> String {
        self.observer.prometheus(&self.snapshot(load))
    }
}

/// What a compilation is told that was stopped.
fn compile_stopped(cause: StopCause, overseer: &dyn Overseer) -> WireError {
    let (limit, spent) = overseer.time();
    match cause {
        StopCause::Cancelled | StopCause::Back => execution::cancelled(),
        StopCause::Deadline => execution::of_time("compiling the handler took too long".into(), limit, spent),
    }
}

/// The strict check's refusal is a violation like one of a handler that runs.
fn refused(totals: &Totals, error: WireError) -> Report {
    let missing = error.capability.as_deref().map(str::to_owned);
    let mut report = totals.failure(error);
    report.denials = u32::from(missing.is_some());
    report.violations.extend(missing);
    report
}

/// The static check: a need that is certain and not granted ends the execution before it begins.
fn refuse_uncovered(handler: &Handler, granted: &CapabilitySet) -> Result<(), WireError> {
    let missing = handler.capabilities.iter().find(|need| {
        need.certain && Capability::parse(&need.token).is_ok_and(|capability| !granted.covers(&capability))
    });
    match missing {
        Some(need) => Err(WireError::permission_denied(&*need.token).with_location(need.line, need.column)),
        None => Ok(()),
    }
}

/// What is told of a source that QuickJS refuses: the parser's words are better, where it has some.
fn refused_source(error: WireError, analysis: &Analysis<'_>, source: &str) -> WireError {
    if let Some(limit) = analysis.beyond_limit {
        let limit = u64::from(limit);
        let mut told = WireError::resource_limit("maxSourceTokens", limit, limit + 1);
        told.message = format!("{}, and is no plain JavaScript either: {}", told.message, error.message);
        return told;
    }
    if let Some(mistake) = &analysis.mistake {
        return guest_error::syntax_error(mistake, source);
    }
    let told =
        error.location.as_ref().and_then(|at| analysis::beyond_parser(source, &error.message, at.line, at.column));
    told.map_or(error, |told| guest_error::syntax_error(&told, source))
}
