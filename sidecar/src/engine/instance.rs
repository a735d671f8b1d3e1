//! One guest: compile, run, resume, reset. Knows nothing of pools, requests or clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::MAX_HOST_CALL_BYTES;
use nexus_protocol::message::SuspendMode;
use nexus_protocol::payload;
use wasmedge_sdk::WasmValue;

use super::Engine;
use super::abi::{self, Shared, Status, export};
use super::context::{Breach, Context};
use super::control::{Ended, RunControl, StopCause};
use super::ffi::{LinearMemory, OutOfBounds, Trap, WasmInstance};
use super::host::HostData;
use super::image::{PAGE, ResetError};
use super::lease::Lease;
use super::park::{ParkError, Parked};

/// What the guest may take to find memory for an input: microseconds, and a busy machine.
const ALLOCATION_TIME: Duration = Duration::from_secs(1);

/// Bytes of memory that a guest writes to for the first time in a nanosecond of its thread, at most: the kernel has to find the
/// pages and fill them with zeros.
const WRITTEN_PER_NS: u64 = 32;
/// From this on it is worth 20 us to ask what was written to: whoever may have written so much has run for fifty times as long.
const MEASURED_BYTES: u64 = 32 << 20;

/// Bytes of bytecode that a byte of source makes at most, generously: `[,,,` and the like make about eight.
const BYTECODE_PER_SOURCE: usize = 32;

/// How a segment of an execution ended.
#[derive(Debug)]
pub enum SegmentEnd {
    /// The handler's value, a valid payload.
    Done(Vec<u8>),
    /// Extension calls are outstanding; the instance holds the execution.
    Suspended,
    /// The handler failed: the guest's description of the error.
    Failed(Vec<u8>),
    /// A limit was reached.
    Limit(Breach, Vec<u8>),
    /// The handler used up its memory; `wanted` is what it would have had with the allocation that was refused.
    OutOfMemory { described: Vec<u8>, wanted: u64 },
    /// It waits for something that cannot happen.
    Stuck,
    /// Stopped from outside, with the guest's description of where it stood, if it could still give one.
    Stopped(StopCause, Vec<u8>),
    /// The guest trapped, or broke the boundary's rules.
    Broken(String),
}

/// One segment: how it ended and what it took.
#[derive(Debug)]
pub struct Segment {
    pub end: SegmentEnd,
    /// Wall time inside the guest.
    pub ran: Duration,
    pub cpu: Duration,
    pub memory_used: u64,
    pub memory_peak: u64,
    /// Interpreter ticks since the execution began; each is about 10,000 operations.
    pub ticks: u64,
}

/// Outcome of a compilation.
#[derive(Debug)]
pub enum Compiled {
    Bytecode(Vec<u8>),
    /// The guest's description of the syntax error.
    Refused(Vec<u8>),
    /// It took all the memory that it may take; `wanted` as in [`SegmentEnd::OutOfMemory`].
    OutOfMemory {
        wanted: u64,
    },
    Stopped(StopCause),
    Broken(String),
}

/// A guest, pristine or in use. Moves between threads; one at a time uses it. Dropping it frees everything.
pub struct Instance {
    // declared before `wasm`, but harmless after it: a control of an idle run never touches memory
    control: Arc<RunControl>,
    wasm: WasmInstance<HostData>,
    engine: Arc<Engine>,
    inbox_used: u32,
    /// What of it `run` has filled: the handler may still read that. What is behind it was decoded when it came.
    inbox_of_run: u32,
    /// The most that its guest can have written to since it was pristine; the highest number: nobody knows.
    touched: u64,
    /// That is an estimate, by the time that the guest has run, and not what the kernel has told.
    estimated: bool,
    /// False once something happened that a reset is not trusted with.
    sound: bool,
    /// Whether this instance has run before: for statistics.
    pub uses: u64,
    /// While it is out of its pool.
    pub lease: Lease,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("sound", &self.sound).field("uses", &self.uses).finish_non_exhaustive()
    }
}

/// Bytecode of which no source makes more: what is copied when a damaged guest says that it has made much.
fn most_bytecode(source: &str) -> usize {
    source.len().saturating_mul(BYTECODE_PER_SOURCE).max(MAX_HOST_CALL_BYTES as usize)
}

/// How the guest was left.
enum Called {
    /// By itself, perhaps because the interrupt word told it to.
    Returned(Result<i32, Trap>, Option<StopCause>),
    Killed(StopCause),
}

/// An input that could not be put into the guest.
#[derive(Debug)]
enum NotPlaced {
    Stopped(StopCause),
    Broken(String),
}

enum CallEnd {
    Returned(Status, Shared),
    Stopped(StopCause, Option<Shared>),
    /// It went no further; what its memory says is worth little.
    Trapped(String),
    Broken(String),
}

impl Instance {
    pub(super) fn new(engine: Arc<Engine>, mut wasm: WasmInstance<HostData>) -> Self {
        let memory = wasm.memory();
        let control = RunControl::new(memory, engine.shared_at + abi::INTERRUPT_OFFSET, engine.options.aot);
        engine.watchdog.watch(&control);
        wasm.data_mut().link = Some((memory, control.clone()));
        Self {
            control,
            wasm,
            engine,
            inbox_used: 0,
            inbox_of_run: 0,
            touched: 0,
            estimated: false,
            sound: true,
            uses: 0,
            lease: Lease::default(),
        }
    }

    /// How extension calls suspend here.
    pub fn mode(&self) -> SuspendMode {
        self.engine.options.mode
    }

    /// By which others stop what runs here.
    pub fn control(&self) -> &Arc<RunControl> {
        &self.control
    }

    fn memory(&self) -> LinearMemory {
        self.wasm.memory()
    }

    /// The execution's context, while there is one.
    pub fn context_mut(&mut self) -> Option<&mut Context> {
        self.wasm.data_mut().context.as_deref_mut()
    }

    pub fn take_context(&mut self) -> Option<Box<Context>> {
        self.wasm.data_mut().context.take()
    }

    /// The most that it can take. Costs nothing: memory that was never written to takes nothing, and writing takes time.
    pub fn most_bytes(&self) -> u64 {
        let (idle, all) = (self.engine.idle_bytes() as u64, self.memory().len() as u64);
        self.touched.min(all).saturating_add(idle)
    }

    /// Asks the kernel what the guest has written to, where its time says little. Costs 20 us.
    pub fn measure(&mut self) {
        match self.memory().pages_with_content() {
            Ok(pages) => self.has_touched(pages.len() as u64 * PAGE as u64),
            Err(e) => log::debug!("cannot find out what a guest takes: {e}"),
        }
    }

    fn has_touched(&mut self, bytes: u64) {
        (self.touched, self.estimated) = (bytes, false);
    }

    /// Whether `most_bytes` is an estimate, and may be far above the truth.
    pub fn is_estimated(&self) -> bool {
        self.estimated
    }

    /// Whether it may be so far above it that it is worth to find out.
    pub fn is_to_be_measured(&self) -> bool {
        self.estimated && self.touched >= MEASURED_BYTES
    }

    /// Whether a reset makes this instance as good as new.
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    // ---- what the guest is asked to do ----

    /// Compiles source to bytecode, in as much memory as a handler may take. The instance needs a reset afterwards.
    pub fn compile(&mut self, source: &str, memory_bytes: u32, deadline: Option<Instant>) -> Compiled {
        // behind a `return` QuickJS wants the line to end, or more to follow
        let mut text = Vec::with_capacity(source.len() + 2);
        text.extend_from_slice(source.as_bytes());
        text.extend_from_slice(b"\n\0");
        let at = match self.place(&text, deadline) {
            Ok(at) => at,
            Err(NotPlaced::Stopped(cause)) => return Compiled::Stopped(cause),
            Err(NotPlaced::Broken(e)) => return Compiled::Broken(e),
        };
        let args = [at, source.len() as u32 + 1, memory_bytes].map(|n| WasmValue::from_i32(n as i32));
        match self.call(export::COMPILE, &args, deadline) {
            // QuickJS's parser does not always notice that it got no memory: the guest ends there and then, and has said so
            CallEnd::Trapped(e) => match self.shared() {
                Ok(shared) if shared.out_of_memory != 0 => {
                    Compiled::OutOfMemory { wanted: shared.memory_wanted.into() }
                }
                _ => Compiled::Broken(e),
            },
            CallEnd::Returned(Status::Done, shared) => {
                let (count, most) = (shared.out_len as usize, most_bytecode(source));
                if count > most {
                    let why = format!("it made {count} bytes of bytecode, more than the {most} that are possible");
                    return self.broken(why, Compiled::Broken);
                }
                match self.output(&shared) {
                    Ok(bytecode) => Compiled::Bytecode(bytecode),
                    Err(e) => self.broken(e.to_string(), Compiled::Broken),
                }
            }
            CallEnd::Returned(Status::Failed, shared) => Compiled::Refused(self.description(&shared)),
            CallEnd::Returned(status, _) => self.broken(format!("compiling ended with {status:?}"), Compiled::Broken),
            CallEnd::Stopped(cause, _) => Compiled::Stopped(cause),
            CallEnd::Broken(e) => Compiled::Broken(e),
        }
    }

    /// Runs a handler's first segment. The instance must be pristine.
    pub fn run(&mut self, bytecode: &[u8], mut context: Box<Context>, deadline: Option<Instant>) -> Segment {
        debug_assert_eq!(self.inbox_used, 0);
        self.uses += 1;
        context.begin_segment();
        let placed = self.place(bytecode, deadline).and_then(|code| {
            let args = self.place(&context.args, deadline)?;
            let scope = self.place(&context.scope, deadline)?;
            Ok((code, args, scope, self.place(context.frame_name().as_bytes(), deadline)?))
        });
        let (code, args, scope, name) = match placed {
            Ok(addresses) => addresses,
            Err(e) => return self.no_segment(e),
        };
        let arguments = [
            WasmValue::from_i32(code as i32),
            WasmValue::from_i32(bytecode.len() as i32),
            WasmValue::from_i32(args as i32),
            WasmValue::from_i32(context.args.len() as i32),
            WasmValue::from_i32(scope as i32),
            WasmValue::from_i32(context.scope.len() as i32),
            WasmValue::from_i32(name as i32),
            WasmValue::from_i32(context.frame_name().len() as i32),
            WasmValue::from_i64(context.seed as i64),
            WasmValue::from_i32(context.limits.memory_bytes as i32),
            WasmValue::from_i32(context.hidden_methods() as i32),
        ];
        // the guest has them now
        (context.args, context.scope) = (Vec::new(), Vec::new());
        self.wasm.data_mut().context = Some(context);
        self.inbox_of_run = self.inbox_used;
        self.segment(export::RUN, &arguments, deadline)
    }

    /// Gives a suspended handler the answer to one of its calls: Ok(payload), or Err(payload `{message, name?, code?}`).
    pub fn resume(&mut self, call: u32, answer: Result<&[u8], &[u8]>, deadline: Option<Instant>) -> Segment {
        if let Some(context) = self.context_mut() {
            context.begin_segment();
            context.note_answer(answer.err());
        }
        let (ok, bytes) = match answer {
            Ok(bytes) => (1, bytes),
            Err(bytes) => (0, bytes),
        };
        self.inbox_used = self.inbox_of_run;
        let at = match self.place(bytes, deadline) {
            Ok(at) => at,
            Err(e) => return self.no_segment(e),
        };
        let arguments = [
            WasmValue::from_i32(call as i32),
            WasmValue::from_i32(ok),
            WasmValue::from_i32(at as i32),
            WasmValue::from_i32(bytes.len() as i32),
        ];
        self.segment(export::RESUME, &arguments, deadline)
    }

    /// Takes the suspended execution out of the instance, which needs a reset then. When that fails, it stays in it.
    pub fn park(&mut self) -> Result<Parked, ParkError> {
        let context = self.take_context().ok_or(ParkError::NothingSuspended)?;
        Parked::new(&self.engine.image, self.memory(), context, self.inbox_of_run).map_err(|(e, context)| {
            self.wasm.data_mut().context = Some(context);
            e
        })
    }

    /// Takes up a parked execution, as if it had been suspended here. The instance must be pristine; when this fails, it is
    /// unsound and the execution is lost.
    pub fn unpark(&mut self, parked: Parked) -> Result<(), ParkError> {
        debug_assert_eq!(self.inbox_used, 0);
        self.uses += 1;
        if let Err(e) = parked.restore(&self.engine.image, self.memory()) {
            self.sound = false;
            return Err(e);
        }
        self.has_touched(parked.page_bytes());
        self.inbox_of_run = parked.inbox_of_run;
        self.inbox_used = parked.inbox_of_run;
        self.wasm.data_mut().context = Some(parked.context);
        Ok(())
    }

    /// Makes the instance pristine again. Every byte is restored; a failed reset leaves it unsound.
    pub fn reset(&mut self) -> Result<(), ResetError> {
        let restored = self.engine.image.restore(self.memory());
        let stack = self.wasm.set_global(export::STACK_POINTER, self.engine.image.stack_pointer());
        self.wasm.data_mut().context = None;
        self.inbox_used = 0;
        self.has_touched(0);
        // outside of the memory, and not 0 after a damaged guest: the next tenant would take the one's stack for its own
        let unwinding =
            self.mode() == SuspendMode::Stack && !matches!(self.wasm.call(export::ASYNCIFY_STATE, &[]), Ok(0));
        let outside = stack.is_ok() && !unwinding;
        self.sound = self.sound && restored.is_ok() && outside;
        restored?;
        if outside { Ok(()) } else { Err(ResetError::outside()) }
    }

    /// First address at which the memory differs from the pristine image. Slow: for tests and soaks.
    pub fn first_difference(&self) -> Option<u32> {
        self.engine.image.first_difference(self.memory())
    }

    /// Where the guest's stack pointer stands. For tests.
    pub fn stack_pointer(&self) -> Option<i32> {
        self.wasm.global(export::STACK_POINTER)
    }

    /// The whole of linear memory. For tests that look for traces of an execution.
    pub fn dump_memory(&self) -> Vec<u8> {
        self.memory().read_vec(0, self.memory().len()).unwrap_or_default()
    }

    /// Writes anywhere, as a hostile guest can.
    #[cfg(test)]
    pub(super) fn scribble(&mut self, at: u32, bytes: &[u8]) {
        self.memory().write(at, bytes).expect("within the memory");
    }

    /// Has the guest refuse its allocation of this number, from 1, in the next run. A reset takes it back.
    #[cfg(test)]
    pub(super) fn fail_allocation(&mut self, number: u32) {
        let at = self.engine.shared_at + abi::FAIL_ALLOCATION_OFFSET;
        self.memory().write(at, &number.to_le_bytes()).expect("within the memory");
    }

    /// Whether the allocation that was to be refused has been asked for.
    #[cfg(test)]
    pub(super) fn has_failed_allocation(&self) -> bool {
        let mut left = [0; 4];
        let at = self.engine.shared_at + abi::FAIL_ALLOCATION_OFFSET;
        self.memory().read(at, &mut left).expect("within the memory");
        left == [0; 4]
    }

    /// As after something that a reset is not trusted with.
    #[cfg(test)]
    pub(crate) fn distrust(&mut self) {
        self.sound = false;
    }

    #[cfg(test)]
    pub(super) fn keep_context(&mut self, context: Box<Context>) {
        self.wasm.data_mut().context = Some(context);
    }

    /// The guest's memory, for tests that do to it what nobody else may.
    #[cfg(test)]
    pub(super) fn memory_of_test(&self) -> LinearMemory {
        self.memory()
    }

    // ---- how ----

    /// Puts bytes where the guest can read them: into the inbox while they fit, else into memory that the guest allocates.
    fn place(&mut self, bytes: &[u8], deadline: Option<Instant>) -> Result<u32, NotPlaced> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let Ok(len) = u32::try_from(bytes.len()) else {
            return Err(NotPlaced::Broken("an input is larger than the guest's memory".into()));
        };
        let rounded = len.checked_next_multiple_of(16).unwrap_or(u32::MAX);
        let left = self.engine.inbox_capacity - self.inbox_used;
        let at = if rounded <= left {
            let at = self.engine.inbox + self.inbox_used;
            self.inbox_used += rounded;
            self.touched = self.touched.saturating_add(rounded.into());
            at
        } else {
            match self.allocate(len, deadline)? {
                0 => return Err(NotPlaced::Broken("an input does not fit into the guest's memory".into())),
                at => at,
            }
        };
        self.memory().write(at, bytes).map_err(|e| self.broken(e.to_string(), NotPlaced::Broken))?;
        Ok(at)
    }

    /// Memory that the guest gives. It is asked like for a run: one that is damaged may never answer, and then a request
    /// without a deadline gets one for this.
    fn allocate(&mut self, len: u32, deadline: Option<Instant>) -> Result<u32, NotPlaced> {
        // a guest that is damaged may do anything meanwhile
        (self.touched, self.estimated) = (u64::MAX, true);
        let own = Instant::now() + ALLOCATION_TIME;
        let until = deadline.map_or(own, |deadline| deadline.min(own));
        let stopped = |cause| match cause {
            StopCause::Deadline if deadline != Some(until) => {
                NotPlaced::Broken("the guest did not say where an input can go".into())
            }
            cause => NotPlaced::Stopped(cause),
        };
        match self.call_until(export::ALLOC, &[WasmValue::from_i32(len as i32)], Some(until)) {
            Called::Killed(cause) | Called::Returned(_, Some(cause)) => {
                self.sound = false;
                Err(stopped(cause))
            }
            Called::Returned(Ok(at), None) => Ok(at as u32),
            Called::Returned(Err(Trap(e)), None) => Err(self.broken(e, NotPlaced::Broken)),
        }
    }

    fn broken<T>(&mut self, why: String, wrap: impl FnOnce(String) -> T) -> T {
        self.sound = false;
        wrap(why)
    }

    fn no_segment(&mut self, why: NotPlaced) -> Segment {
        self.sound = false;
        Segment {
            end: match why {
                NotPlaced::Stopped(cause) => SegmentEnd::Stopped(cause, Vec::new()),
                NotPlaced::Broken(why) => SegmentEnd::Broken(why),
            },
            ran: Duration::ZERO,
            cpu: Duration::ZERO,
            memory_used: 0,
            memory_peak: 0,
            ticks: 0,
        }
    }

    /// Enters the guest, with the watchdog looking on.
    fn call_until(&mut self, name: &str, args: &[WasmValue], deadline: Option<Instant>) -> Called {
        self.control.begin(deadline);
        self.engine.watchdog.notify();
        let returned = self.wasm.call(name, args);
        match self.control.end() {
            Ended::Intact(cause) => Called::Returned(returned, cause),
            Ended::Abandoned => {
                log::error!("a host call faulted; its guest was discarded");
                self.sound = false;
                Called::Returned(Err(Trap("a host call faulted".into())), None)
            }
            Ended::Killed(cause) => {
                self.sound = false;
                // so that WasmEdge frees the memory in the state in which it made it
                if let Err(e) = self.memory().restore_access() {
                    log::error!("cannot give back access to the memory of a killed instance: {e}");
                }
                Called::Killed(cause)
            }
        }
    }

    fn call(&mut self, name: &str, args: &[WasmValue], deadline: Option<Instant>) -> CallEnd {
        let (returned, stopped) = match self.call_until(name, args, deadline) {
            Called::Returned(returned, stopped) => (returned, stopped),
            Called::Killed(cause) => return CallEnd::Stopped(cause, None),
        };
        let status = match returned {
            Ok(status) => status,
            Err(Trap(e)) => return self.broken(e, CallEnd::Trapped),
        };
        let shared = match self.shared() {
            Ok(shared) => shared,
            Err(e) => return self.broken(e.to_string(), CallEnd::Broken),
        };
        if shared.out_of_memory != 0 {
            self.sound = false;
        }
        match (stopped, Status::from_i32(status)) {
            (Some(cause), Some(status)) => {
                self.sound = false;
                if cause == StopCause::Deadline && status == Status::Done {
                    return CallEnd::Returned(status, shared);
                }
                CallEnd::Stopped(cause, (status == Status::Failed).then_some(shared))
            }
            (_, Some(Status::BadCall)) => self.broken("the guest does not know this call".into(), CallEnd::Broken),
            (_, Some(status)) => CallEnd::Returned(status, shared),
            (_, None) => self.broken(format!("the guest returned {status}"), CallEnd::Broken),
        }
    }

    /// The block that both sides share, as it is now.
    fn shared(&self) -> Result<Shared, OutOfBounds> {
        let mut block = [0; abi::SHARED_BYTES];
        self.memory().read(self.engine.shared_at, &mut block)?;
        Ok(Shared::from_bytes(&block))
    }

    fn output(&self, shared: &Shared) -> Result<Vec<u8>, OutOfBounds> {
        self.memory().read_vec(shared.out, shared.out_len as usize)
    }

    fn segment(&mut self, name: &str, args: &[WasmValue], deadline: Option<Instant>) -> Segment {
        let started = Instant::now();
        let cpu_started = crate::os::thread_cpu_time();
        let end = self.call(name, args, deadline);
        let cpu = crate::os::thread_cpu_time().saturating_sub(cpu_started);
        let ran = started.elapsed();
        let written = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX).saturating_mul(WRITTEN_PER_NS);
        (self.touched, self.estimated) = (self.touched.saturating_add(written), true);
        let shared = match &end {
            CallEnd::Returned(_, shared) => *shared,
            CallEnd::Stopped(_, shared) => shared.unwrap_or_default(),
            CallEnd::Trapped(_) | CallEnd::Broken(_) => Shared::default(),
        };
        let end = self.interpret(end, &shared);
        let memory_peak = u64::from(shared.memory_peak.max(shared.memory_used));
        Segment { end, ran, cpu, memory_used: shared.memory_used.into(), memory_peak, ticks: shared.ticks.into() }
    }

    fn interpret(&mut self, end: CallEnd, shared: &Shared) -> SegmentEnd {
        let status = match end {
            CallEnd::Returned(status, _) => status,
            CallEnd::Stopped(cause, described) => {
                let description = described.map(|shared| self.description(&shared)).unwrap_or_default();
                return SegmentEnd::Stopped(cause, description);
            }
            CallEnd::Trapped(why) | CallEnd::Broken(why) => return SegmentEnd::Broken(why),
        };
        if status == Status::TooDeep {
            let (limit, count) = (abi::MAX_SUSPENDED_STACK_BYTES, shared.out_len.into());
            return SegmentEnd::Limit(Breach { resource: "suspendStackBytes", limit, count }, Vec::new());
        }
        let out = match status {
            Status::Failed => self.description(shared),
            _ => match self.result_bytes(shared) {
                Ok(out) => out,
                Err(end) => return end,
            },
        };
        // the host's own count decides, not what the guest says became of it
        if let Some(breach) = self.context_mut().and_then(|c| c.breach.clone()) {
            return SegmentEnd::Limit(breach, if status == Status::Failed { out } else { Vec::new() });
        }
        match status {
            // the host's book of the calls decides as well: none is lost, and nobody waits for one that was not made
            Status::Done if self.context_mut().is_some_and(|c| !c.new_calls.is_empty()) => {
                self.broken("the guest is done with calls that nobody has heard of".into(), SegmentEnd::Broken)
            }
            Status::Done => match payload::validate(&out) {
                Ok(()) => SegmentEnd::Done(out),
                Err(e) => self.broken(format!("the guest's result is no payload: {e}"), SegmentEnd::Broken),
            },
            Status::Suspended if !self.context_mut().is_some_and(|c| c.awaits_answers()) => {
                self.broken("the guest waits for a call that it has not made".into(), SegmentEnd::Broken)
            }
            Status::Suspended => SegmentEnd::Suspended,
            // whatever the error says: the guest knows what it was thrown for
            Status::Failed | Status::Stuck if shared.for_memory != 0 => {
                SegmentEnd::OutOfMemory { described: out, wanted: shared.memory_wanted.into() }
            }
            Status::Stuck => SegmentEnd::Stuck,
            Status::Failed => SegmentEnd::Failed(out),
            Status::BadCall | Status::TooDeep => SegmentEnd::Broken("the guest does not know this call".into()),
        }
    }

    /// The guest's description of an error. It has a limit of its own: a handler that may return little can still fail well.
    fn description(&self, shared: &Shared) -> Vec<u8> {
        if shared.out_len as usize > abi::MAX_DESCRIPTION_BYTES {
            return Vec::new();
        }
        self.output(shared).unwrap_or_default()
    }

    /// What the guest left, held against the limit of a result before it is copied: the effects count as well.
    fn result_bytes(&mut self, shared: &Shared) -> Result<Vec<u8>, SegmentEnd> {
        let (limit, effects) = self.context_mut().map_or((0, 0), |c| (c.limits.result_bytes, c.effect_bytes()));
        let count = effects + u64::from(shared.out_len);
        if count > limit {
            return Err(SegmentEnd::Limit(Breach { resource: "maxResultBytes", limit, count }, Vec::new()));
        }
        self.output(shared).map_err(|e| self.broken(e.to_string(), SegmentEnd::Broken))
    }
}
