//! The engine: the guest module, loaded and checked once, from which instances are made.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::message::SuspendMode;
use nix::sys::resource::{Resource, getrlimit};
use wasmedge_sdk::config::Config;
use wasmedge_sdk::{Module, WasmValue};

use super::abi::{Shared, Status, export};
use super::ffi::WasmInstance;
use super::host::HostData;
use super::image::Image;
use super::instance::{Compiled, Instance, SegmentEnd};
use super::keeper::Keeper;
use super::load::{self, Loaded};
use super::state::StateView;
use super::watchdog::Watchdog;
use super::{abi, context, ffi, host, keeper};

/// What the handlers may take that an engine tries itself with.
const OWN_MEMORY_BYTES: u32 = 8 << 20;

/// What an engine is made from.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Native code (true) or interpretation (false).
    pub aot: bool,
    /// How extension calls suspend.
    pub mode: SuspendMode,
    /// JavaScript stack of a handler.
    pub stack_bytes: u32,
    /// Whether the guest module may use SIMD and bulk memory instructions.
    pub simd: bool,
    pub bulk_memory: bool,
    /// Another guest module than the built-in one.
    pub module: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let stack_bytes = nexus_protocol::limits::DEFAULT_STACK_SIZE_BYTES as u32;
        Self { aot: true, mode: SuspendMode::Await, stack_bytes, simd: true, bulk_memory: true, module: None }
    }
}

impl EngineOptions {
    fn in_stack_style(&self) -> Self {
        Self { mode: SuspendMode::Stack, ..self.clone() }
    }
}

/// The engine could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error("cannot read the guest module {path}: {source}")]
    ReadModule { path: PathBuf, source: std::io::Error },
    #[error("cannot load the guest module {name}: {reason}")]
    Load { name: String, reason: String },
    #[error(
        "this processor is older than what the guest was compiled for (x86-64-v2, which is what processors have had since about \
         2009); build the sidecar on this machine, or set enableAOT to false to run interpreted"
    )]
    Processor,
    #[error("cannot create an instance: {0}")]
    Instantiate(String),
    #[error("the guest module does not fit this sidecar: {0}")]
    Mismatch(String),
    #[error("the guest could not be initialised: {0}")]
    Init(String),
    #[error(
        "the guest runs, but as interpreted code ({took:?} for the self-test, at most {allowed:?} expected); WasmEdge did not use \
         the native code. Set enableAOT to false to run interpreted on purpose"
    )]
    NotNative { took: Duration, allowed: Duration },
    #[error(
        "extension calls without await need the built-in guest, and another one is configured (quickjsModulePath = {0}): await \
         every extension call, or give suspendMode \"await\""
    )]
    NoStackStyle(PathBuf),
    #[error("cannot start the watchdog thread: {0}")]
    Watchdog(std::io::Error),
}

/// See the module.
pub struct Engine {
    pub(super) module: Module,
    pub(super) config: Config,
    pub(super) image: Image,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) digest: [u8; 32],
    pub(super) shared_at: u32,
    pub(super) inbox: u32,
    pub(super) inbox_capacity: u32,
    pub(super) options: EngineOptions,
    /// Set once, by `start`.
    pub(super) keeper: OnceLock<Keeper>,
    /// The guest in stack style, where it was loaded with this one and has not been started.
    stack_style: Mutex<Option<Loaded>>,
}

/// Guests that are loaded and not started.
pub struct Guests {
    options: EngineOptions,
    direct: Loaded,
    /// None: it is loaded when it is needed.
    stack: Option<Loaded>,
}

impl Guests {
    /// The guest of these options alone.
    pub fn one(options: EngineOptions) -> Result<Self, EngineError> {
        let direct = load::load(&options)?;
        Ok(Self { options, direct, stack: None })
    }

    /// Of the guest for handlers that await.
    pub fn digest(&self) -> &[u8; 32] {
        &self.direct.digest
    }

    /// Every guest that may be needed: from here on nothing is read, opened, or made executable.
    pub fn all(options: EngineOptions) -> Result<Self, EngineError> {
        let mut guests = Self::one(options)?;
        if guests.options.module.is_none() {
            guests.stack = Some(load::load(&guests.options.in_stack_style())?);
        }
        Ok(guests)
    }
}

/// Native stack that a thread needs to run a guest: measured use of hostile recursion, with a margin of two and more
/// (15 bytes of native stack for each byte of JavaScript stack, twice that for deep built-ins).
pub fn thread_stack_bytes(stack_bytes: u32) -> usize {
    (16 << 20) + 48 * stack_bytes as usize
}

impl Engine {
    /// Loads the module, makes the image, and checks that native code is really used.
    pub fn start(options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        Self::start_loaded(Guests::one(options)?)
    }

    /// As `start`, for guests that are loaded.
    pub fn start_loaded(guests: Guests) -> Result<Arc<Self>, EngineError> {
        let Guests { options, direct, stack } = guests;
        let watchdog = Watchdog::start().map_err(EngineError::Watchdog)?;
        Self::start_under(Arc::new(watchdog), options, direct, stack)
    }

    /// The engine that runs this one's bytecode in stack style, looked after by the same watchdog.
    pub fn start_stack_style(&self) -> Result<Arc<Self>, EngineError> {
        if let Some(module) = &self.options.module {
            return Err(EngineError::NoStackStyle(module.clone()));
        }
        let options = self.options.in_stack_style();
        let loaded = match self.stack_style.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(loaded) => loaded,
            None => load::load(&options)?,
        };
        Self::start_under(self.watchdog.clone(), options, loaded, None)
    }

    fn start_under(
        watchdog: Arc<Watchdog>,
        options: EngineOptions,
        loaded: Loaded,
        stack_style: Option<Loaded>,
    ) -> Result<Arc<Self>, EngineError> {
        let mut first = instantiate(&loaded.complete, &loaded.config)?;
        let (shared_at, shared) = initialise(&mut first, options.stack_bytes)?;
        let stack_pointer = first
            .global(export::STACK_POINTER)
            .ok_or_else(|| EngineError::Mismatch("it does not export its stack pointer".into()))?;
        let image = Image::capture(first.memory(), stack_pointer, loaded.blank)
            .map_err(|e| EngineError::Init(format!("the image: {e}")))?;
        let engine = Arc::new(Self {
            module: loaded.module,
            config: loaded.config,
            image,
            watchdog,
            digest: loaded.digest,
            shared_at,
            inbox: shared.inbox,
            inbox_capacity: shared.inbox_capacity,
            options,
            keeper: OnceLock::new(),
            stack_style: Mutex::new(stack_style),
        });
        let mut instance = Instance::new(engine.clone(), first);
        engine.self_test(&mut instance)?;
        engine.keep_fault_handlers(&mut instance)?;
        Ok(engine)
    }

    /// A pristine instance.
    pub fn instantiate(self: &Arc<Self>) -> Result<Instance, EngineError> {
        Ok(Instance::new(self.clone(), self.instantiate_wasm()?))
    }

    fn instantiate_wasm(&self) -> Result<WasmInstance<HostData>, EngineError> {
        let mut wasm = instantiate(&self.module, &self.config)?;
        self.image.install(wasm.memory()).map_err(no_instance)?;
        wasm.set_global(export::STACK_POINTER, self.image.stack_pointer()).map_err(no_instance)?;
        Ok(wasm)
    }

    /// SHA-256 of the guest module: what the compile cache and handles are bound to.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Bytes of memory that an idle instance holds.
    pub fn idle_bytes(&self) -> usize {
        self.image.resident_bytes()
    }

    fn keep_fault_handlers(&self, instance: &mut Instance) -> Result<(), EngineError> {
        instance.reset().map_err(|e| EngineError::Init(e.to_string()))?;
        let bytecode = match instance.compile(keeper::SOURCE, OWN_MEMORY_BYTES, None) {
            Compiled::Bytecode(bytecode) => bytecode,
            other => return Err(EngineError::Init(format!("{:?} does not compile: {other:?}", keeper::SOURCE))),
        };
        let wasm = self.instantiate_wasm()?;
        let keeper = Keeper::start(wasm, self.inbox, &bytecode, thread_stack_bytes(self.options.stack_bytes))?;
        let _ = self.keeper.set(keeper);
        Ok(())
    }

    /// Compiles and runs a small loop. Interpreted, QuickJS is several hundred times slower than native: the limit lies far
    /// from both.
    fn self_test(&self, instance: &mut Instance) -> Result<(), EngineError> {
        const LOOP: &str = "let n = 0; for (let i = 0; i < 3000; i++) n += i; return n";
        const EXPECTED: &[u8] = &[0xce, 0x00, 0x44, 0xa4, 0x44];
        const ALLOWED: Duration = Duration::from_millis(6);
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        let bytecode = match instance.compile(LOOP, OWN_MEMORY_BYTES, deadline) {
            Compiled::Bytecode(bytecode) => bytecode,
            other => return Err(EngineError::Init(format!("the self-test does not compile: {other:?}"))),
        };
        let mut took = Duration::MAX;
        for _ in 0..5 {
            instance.reset().map_err(|e| EngineError::Init(e.to_string()))?;
            let segment = instance.run(&bytecode, Box::new(self_test_context()), deadline);
            match segment.end {
                SegmentEnd::Done(value) if value == EXPECTED => took = took.min(segment.ran),
                other => return Err(EngineError::Init(format!("the self-test returned {other:?}"))),
            }
            if took <= ALLOWED || !self.options.aot {
                return Ok(());
            }
        }
        Err(EngineError::NotNative { took, allowed: ALLOWED })
    }
}

fn self_test_context() -> context::Context {
    let limits = context::ExecutionLimits {
        timeout: None,
        memory_bytes: OWN_MEMORY_BYTES,
        host_calls: 0,
        state_mutations: 0,
        events: 0,
        result_bytes: 1024,
        log_bytes: 0,
    };
    context::Context::new(nexus_protocol::CapabilitySet::default(), StateView::new(vec![0x80]), limits)
}

/// The engine says nothing of a limit of address space that it runs into.
fn no_instance(reason: impl std::fmt::Display) -> EngineError {
    let limit = getrlimit(Resource::RLIMIT_AS).map_or(u64::MAX, |(soft, _)| soft);
    let limited = if limit == nix::libc::RLIM_INFINITY {
        String::new()
    } else {
        format!(
            "; address space is limited to {} MiB (ulimit -v, LimitAS= of a unit), and each instance reserves 12 GiB of it, of which \
             it uses only what it needs: lift that limit, and limit memory itself (MemoryMax= of a unit, a container's limit)",
            limit >> 20
        )
    };
    EngineError::Instantiate(format!("{reason}{limited}"))
}

pub(super) fn instantiate(module: &Module, config: &Config) -> Result<WasmInstance<HostData>, EngineError> {
    let wasm = WasmInstance::new(module, config, &host::imports(), HostData::default()).map_err(no_instance)?;
    if wasm.memory().len() != abi::LINEAR_MEMORY_BYTES {
        return Err(EngineError::Mismatch(format!(
            "its memory has {} bytes, {} are expected",
            wasm.memory().len(),
            abi::LINEAR_MEMORY_BYTES
        )));
    }
    Ok(wasm)
}

/// Runs the guest's constructors; returns where its shared block is, and the block.
fn initialise(wasm: &mut WasmInstance<HostData>, stack_bytes: u32) -> Result<(u32, Shared), EngineError> {
    let init = |e: ffi::Trap| EngineError::Init(e.to_string());
    wasm.call(export::INITIALIZE, &[]).map_err(init)?;
    let shared_at = wasm.call(export::SHARED, &[]).map_err(init)? as u32;
    let status = wasm.call(export::INIT, &[WasmValue::from_i32(stack_bytes as i32)]).map_err(init)?;
    if Status::from_i32(status) != Some(Status::Done) {
        return Err(EngineError::Init(format!("nx_init returned {status}")));
    }
    let mut block = [0; abi::SHARED_BYTES];
    wasm.memory().read(shared_at, &mut block).map_err(|e| EngineError::Mismatch(e.to_string()))?;
    let shared = Shared::from_bytes(&block);
    if shared.abi_version != abi::ABI_VERSION {
        return Err(EngineError::Mismatch(format!(
            "it speaks version {} of the boundary, this sidecar {}",
            shared.abi_version,
            abi::ABI_VERSION
        )));
    }
    Ok((shared_at, shared))
}
