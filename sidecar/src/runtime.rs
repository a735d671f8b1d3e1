//! Everything that a sidecar does for a request, without any transport: compile (cached), execute, resume.
//!
//! Calls block the thread they are made on, which needs the stack of `engine::thread_stack_bytes`. Used by the server's
//! workers, and by the `run` and `check` commands directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Code, Execute, Stats, Status, SuspendMode};
use nexus_protocol::{Capability, CapabilitySet, ErrorCode, SuspensionId, WireError};

use crate::analysis;
use crate::cache::disk::DiskTier;
use crate::cache::handle::HandleKey;
use crate::cache::{CompileCache, Handler, HandlerDigest, Need};
use crate::config::{Config, LiveConfig};
use crate::engine::control::RunControl;
use crate::engine::guest_error::{self, GuestError};
use crate::engine::host::HOST_CALLS;
use crate::engine::refusals::Refusals;
use crate::engine::{Compiled, Engine, EngineError, EngineOptions};
use crate::execution::{self, Answer, Execution, Progress, Report, StateSource, Totals};
use crate::observe::{self, Observer, SegmentRecord, Snapshot, SuspensionEvent};
use crate::pools::Pools;

/// See the module.
pub struct Runtime {
    pub config: LiveConfig,
    engine: Arc<Engine>,
    pools: Pools,
    cache: CompileCache,
    handles: HandleKey,
    pub observer: Observer,
}

/// Told of every run control before the guest runs under it, so that the run can be stopped.
pub type Register<'a> = &'a mut dyn FnMut(&Arc<RunControl>);

/// A compiled handler, and how it came to be.
#[derive(Debug)]
pub struct Found {
    pub handler: Arc<Handler>,
    pub cache_hit: bool,
    /// None on a hit.
    pub took: Option<Duration>,
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
    pub resident_states: u64,
    pub resident_state_bytes: u64,
    pub retired_threads: u64,
    pub retired_threads_total: u64,
    pub arena_bytes: u64,
}

impl Runtime {
    pub fn new(config: Config) -> Result<Self, EngineError> {
        let options = EngineOptions {
            aot: config.enable_aot,
            mode: SuspendMode::Await,
            stack_bytes: u32::try_from(config.stack_size_bytes).unwrap_or(u32::MAX),
            simd: config.enable_simd,
            bulk_memory: config.enable_bulk_memory,
            module: config.quickjs_module_path.clone(),
        };
        let engine = Engine::start(options)?;
        let pools = Pools::new(engine.clone(), config.min_instances as usize, config.max_instances as usize)?;
        let max_bytes = config.max_cache_size_bytes;
        let disk = config.cache_dir.as_deref().and_then(|dir| DiskTier::open(dir, *engine.digest(), max_bytes));
        let handles = match &disk {
            Some(disk) => disk.handle_key(),
            None => HandleKey::random().map_err(|e| EngineError::Init(e.to_string()))?,
        };
        Ok(Self {
            cache: CompileCache::new(max_bytes, disk),
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

    /// Whether compiled handlers outlive the process: what `cacheDir` asked for may not have been possible.
    pub fn keeps_handlers(&self) -> bool {
        self.cache.is_on_disk()
    }

    /// The compiled handler, from the cache or made now. `mode` None: its text decides.
    pub fn compile(
        &self,
        source: &str,
        mode: Option<SuspendMode>,
        timeout: Option<Duration>,
        register: Register<'_>,
    ) -> Result<Found, WireError> {
        let limit = self.config.max_source_bytes;
        if source.len() as u64 > limit {
            return Err(WireError::resource_limit("maxSourceBytes", limit, source.len() as u64));
        }
        let digest = HandlerDigest::forced(self.engine.digest(), mode, source);
        let started = Instant::now();
        let made = self.cache.get_or_compile(digest, || self.compile_now(digest, source, mode, timeout, register));
        let (handler, cache_hit) = made.map_err(|e| self.public(e))?;
        Ok(Found { handler, cache_hit, took: (!cache_hit).then(|| started.elapsed()) })
    }

    fn compile_now(
        &self,
        digest: HandlerDigest,
        source: &str,
        mode: Option<SuspendMode>,
        timeout: Option<Duration>,
        register: Register<'_>,
    ) -> Result<Handler, WireError> {
        let analysis = analysis::analyze(source).map_err(|e| guest_error::syntax_error(&e, source))?;
        // both guests run its bytecode
        let mut instance = self.lease(SuspendMode::Await)?;
        register(instance.control());
        let compiled = instance.compile(&analysis.code, timeout.and_then(|t| Instant::now().checked_add(t)));
        self.give_back(Some(instance));
        let bytecode = match compiled {
            Compiled::Bytecode(bytecode) => bytecode,
            Compiled::Refused(described) => {
                return Err(GuestError::decode(&described).to_wire(
                    ErrorCode::CompilationError,
                    source,
                    &Refusals::default(),
                ));
            }
            Compiled::Stopped(crate::engine::control::StopCause::Cancelled) => return Err(execution::cancelled()),
            Compiled::Stopped(_) => {
                return Err(WireError::new(ErrorCode::Timeout, "compiling the handler took too long"));
            }
            Compiled::Broken(why) => {
                log::warn!("compiling broke a guest: {why}");
                return Err(WireError::new(ErrorCode::WasmError, "compiling the handler broke its instance"));
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
            suspend_mode: mode.unwrap_or(analysis.suspend_mode),
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
        timeout: Option<Duration>,
        register: Register<'_>,
    ) -> Result<Found, WireError> {
        match code {
            Code::Source(source) => self.compile(source, mode, timeout, register),
            Code::Handler(handle) => {
                let digest = self.handles.verify(handle).ok_or_else(|| {
                    WireError::unknown_handler("the handle is not one that this sidecar gave out; compile again")
                })?;
                let handler = self.cache.get(&digest).ok_or_else(|| {
                    WireError::unknown_handler("the handler is no longer in the cache; compile again")
                })?;
                if mode.is_some_and(|mode| mode != handler.suspend_mode) {
                    let message = "suspendMode: the handler was compiled for the other one; give it to precompile";
                    return Err(WireError::new(ErrorCode::InvalidArgument, message));
                }
                Ok(Found { handler, cache_hit: true, took: None })
            }
        }
    }

    // ---- executing ----

    /// Runs a handler up to its first suspension or its end. `state`: where its state is. `queued`: how long the request has waited.
    pub fn execute(
        &self,
        request: &Execute<'_>,
        state: StateSource,
        queued: Duration,
        register: Register<'_>,
    ) -> (Report, Progress) {
        let mut totals = Totals::queued(queued);
        let (report, progress) = match self.begin(request, state, &mut totals, register) {
            Ok(begun) => begun,
            Err(error) => (refused(&totals, error), Progress::Finished(None)),
        };
        (self.observed(report), progress)
    }

    fn begin(
        &self,
        request: &Execute<'_>,
        state: StateSource,
        totals: &mut Totals,
        register: Register<'_>,
    ) -> Result<(Report, Progress), WireError> {
        let mut input = execution::prepare(request, &self.config, state)?;
        totals.timeout = input.timeout;
        totals.memory_limit_bytes = input.context.limits.memory_bytes.into();
        let left = totals.timeout.map(|t| t.saturating_sub(totals.spent()));
        let asked = Instant::now();
        let found = self.find(request.code, request.suspend_mode, left, register)?;
        if found.took.is_none() {
            // it may have waited for somebody else's compilation
            totals.queued += asked.elapsed();
        }
        totals.cache_hit = found.cache_hit;
        totals.compilation = found.took;
        if input.strict {
            refuse_uncovered(&found.handler, &input.context.capabilities)?;
        }
        input.context.state.renew()?;
        let instance = self.lease(found.handler.suspend_mode)?;
        register(instance.control());
        Ok(Execution::start(found.handler, instance, input.context, totals.clone()))
    }

    /// Goes on with a suspended execution. `queued`: how long the request has waited.
    pub fn resume(
        &self,
        mut execution: Execution,
        id: SuspensionId,
        answer: Answer<'_>,
        queued: Duration,
        register: Register<'_>,
    ) -> (Report, Progress) {
        if execution.is_parked() {
            self.observer.record_suspension(SuspensionEvent::Unparked);
        }
        execution.has_waited(queued);
        let mode = execution.mode();
        let (report, progress) = match execution.awake(|| self.lease(mode)) {
            Ok(awake) => {
                register(awake.control());
                awake.resume(id, answer)
            }
            Err(failed) => (failed.report, Progress::Finished(failed.instance)),
        };
        (self.observed(report), progress)
    }

    /// Takes an instance back once its execution is answered.
    pub fn give_back(&self, instance: Option<crate::engine::Instance>) {
        if let Some(took) = instance.and_then(|i| self.pools.give_back(i)) {
            self.observer.record_reset(took);
        }
    }

    /// The instances, for those who look after them.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    fn lease(&self, mode: SuspendMode) -> Result<crate::engine::Instance, WireError> {
        self.pools.lease(mode).map_err(|e| {
            if matches!(e, EngineError::NoStackStyle(_)) {
                return WireError::new(ErrorCode::InvalidHandler, e.to_string());
            }
            log::error!("{e}");
            WireError::new(ErrorCode::InternalError, "no instance could be made")
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
            total_memory_bytes: (load.active + pool.available + load.suspended - load.parked)
                * self.engine.idle_bytes() as u64
                + load.suspended_bytes
                + cache.bytes
                + load.resident_state_bytes,
            suspended_bytes: load.suspended_bytes,
            suspensions: load.suspensions,
            parked_suspensions: load.parked_suspensions,
            queued: load.queued,
            resident_states: load.resident_states,
            resident_state_bytes: load.resident_state_bytes,
            retired_threads: load.retired_threads,
            retired_threads_total: load.retired_threads_total,
            arena_bytes: load.arena_bytes,
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
