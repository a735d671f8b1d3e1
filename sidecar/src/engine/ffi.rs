//! Everything of the engine that the compiler cannot check: linear memory as a raw range, and the life cycle of a
//! WasmEdge instance. Nothing else under `engine` contains unsafe code.
//!
//! Linear memory is shared with code that is hostile, and (through the watchdog) with another thread. No reference into
//! it is ever made: bytes are copied in and out, the interrupt word is stored atomically.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nexus_protocol::limits::MIN_HOST_CALL_STACK_BYTES;
use wasmedge_sdk::config::Config;
use wasmedge_sdk::error::{CoreError, CoreExecutionError};
use wasmedge_sdk::{
    AsInstance, CallingFrame, FuncType, ImportObject, ImportObjectBuilder, Instance, Module, Store, ValType,
    WasmEdgeResult, WasmValue,
};

use super::abi;
use crate::faults::{self, Point};

/// An address or length that does not lie within the linear memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {at} are outside of the linear memory")]
pub struct OutOfBounds {
    pub at: u32,
    pub len: usize,
}

/// The linear memory of one instance. A copyable handle: whoever holds one must not use it after the instance is gone
/// (`RunControl` and `WasmInstance` guarantee that for their own).
#[derive(Clone, Copy, Debug)]
pub struct LinearMemory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the range is plain memory; all access is by raw copies or atomics, and the protocol of `RunControl` decides who
// may touch it when.
unsafe impl Send for LinearMemory {}
// SAFETY: as for Send.
unsafe impl Sync for LinearMemory {}

impl LinearMemory {
    /// Pages of it that the kernel holds something for, in bytes. Looks only at the kernel's books, not at the memory.
    pub fn resident_bytes(&self) -> Option<u64> {
        let pages = crate::os::pages_in_use(self.base.as_ptr().addr(), self.len).ok()?;
        Some(pages.into_iter().filter(|used| *used).count() as u64 * 4096)
    }

    fn range(&self, at: u32, len: usize) -> Result<*mut u8, OutOfBounds> {
        match (at as usize).checked_add(len) {
            // SAFETY: at + len <= self.len, so the pointer stays within the mapping.
            Some(end) if end <= self.len => Ok(unsafe { self.base.as_ptr().add(at as usize) }),
            _ => Err(OutOfBounds { at, len }),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Fills `out` from `at`.
    pub fn read(&self, at: u32, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.range(at, out.len())?;
        // SAFETY: `from` is valid for out.len() bytes (range); `out` is ours and cannot overlap the guest's mapping.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// The bytes at `at` as a vector. The length is checked against the memory before anything is reserved.
    pub fn read_vec(&self, at: u32, len: usize) -> Result<Vec<u8>, OutOfBounds> {
        self.range(at, len)?;
        let mut out = vec![0; len];
        self.read(at, &mut out)?;
        Ok(out)
    }

    pub fn write(&self, at: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.range(at, bytes.len())?;
        // SAFETY: `to` is valid for bytes.len() bytes (range); `bytes` is ours and cannot overlap the guest's mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Whether the bytes at `at` are these.
    pub fn equals(&self, at: u32, bytes: &[u8]) -> Result<bool, OutOfBounds> {
        let from = self.range(at, bytes.len())?;
        // SAFETY: `from` is valid for bytes.len() bytes (range).
        Ok(unsafe { libc::memcmp(from.cast(), bytes.as_ptr().cast(), bytes.len()) } == 0)
    }

    /// Replaces whole pages by those of a file, privately: what is written to them stays here.
    pub fn map_private(&self, at: u32, len: usize, file: BorrowedFd<'_>) -> io::Result<()> {
        faults::io(Point::Map)?;
        let to = self.range(at, len).map_err(io::Error::other)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED);
        // SAFETY: the range lies within the mapping that WasmEdge made for this memory, and gets the protection that it has;
        // WasmEdge unmaps the whole of it, whatever it consists of.
        let mapped = unsafe { libc::mmap(to.cast(), len, protection, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn zero(&self, at: u32, len: usize) -> Result<(), OutOfBounds> {
        let to = self.range(at, len)?;
        // SAFETY: `to` is valid for len bytes (range).
        unsafe { std::ptr::write_bytes(to, 0, len) };
        Ok(())
    }

    /// For each page of 4 KiB whether it may hold anything but zeros.
    pub fn touched_pages(&self) -> io::Result<Vec<bool>> {
        crate::os::pages_in_use(self.base.as_ptr() as usize, self.len)
    }

    /// Numbers of the pages whose bytes may differ from what they are mapped from.
    pub fn pages_with_content(&self) -> io::Result<Vec<usize>> {
        crate::os::pages_with_content(self.base.as_ptr() as usize, self.len)
    }

    /// Calls the function with the number, within the range, of each page whose bytes may differ from what it is mapped from.
    pub fn for_each_own_page(&self, at: u32, len: usize, found: impl FnMut(usize)) -> io::Result<()> {
        let from = self.range(at, len).map_err(io::Error::other)?;
        crate::os::for_each_own_page(from as usize, len, found)
    }

    /// Gives whole pages back to the kernel; they read as zero afterwards.
    pub fn discard(&self, at: u32, len: usize) -> io::Result<()> {
        faults::io(Point::Discard)?;
        let to = self.range(at, len).map_err(io::Error::other)?;
        // SAFETY: the range lies within one private anonymous mapping that WasmEdge made and that only the guest uses.
        let ret = unsafe { libc::madvise(to.cast(), len, libc::MADV_DONTNEED) };
        if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Pins a page, so that the kernel refuses to take it back: a reset fails there.
    #[cfg(test)]
    pub fn pin_page(&self, at: u32) -> io::Result<()> {
        let from = self.range(at, 4096).map_err(io::Error::other)?;
        // SAFETY: the range lies within the guest's memory; pinning changes nothing that a program sees.
        let ret = unsafe { libc::mlock(from.cast(), 4096) };
        if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Stores one aligned word while the guest may be running.
    pub fn store_u32(&self, at: u32, value: u32) -> Result<(), OutOfBounds> {
        let to = self.range(at, 4)?;
        if !(to as usize).is_multiple_of(4) {
            return Err(OutOfBounds { at, len: 4 });
        }
        // SAFETY: in range and aligned; the guest reads this word with an atomic load.
        let word = unsafe { AtomicU32::from_ptr(to.cast()) };
        word.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// Takes all access away: whoever touches the memory next faults, and WasmEdge turns that into a trap.
    /// Only called by the watchdog while the guest runs outside of host calls.
    pub fn revoke(&self) -> io::Result<()> {
        // SAFETY: the mapping is WasmEdge's and stays mapped; no Rust code touches it until the instance is dropped.
        let ret = unsafe { libc::mprotect(self.base.as_ptr().cast(), self.len, libc::PROT_NONE) };
        if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Gives access back, so that WasmEdge may drop the instance as it made it.
    pub fn restore_access(&self) -> io::Result<()> {
        faults::io(Point::Restore)?;
        // SAFETY: as for revoke; this is the protection that the mapping was made with.
        let ret = unsafe { libc::mprotect(self.base.as_ptr().cast(), self.len, libc::PROT_READ | libc::PROT_WRITE) };
        if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// A host function: the instance's host data and the arguments as the guest gave them.
pub type HostFunction<D> = fn(&mut D, &[WasmValue]) -> Result<WasmValue, HostTrap>;

/// Ends the run of the guest with a trap.
#[derive(Debug)]
pub struct HostTrap;

/// One import: name, types, and a monomorphic entry that WasmEdge can call.
pub struct Import<D> {
    pub name: &'static str,
    pub params: &'static [ValType],
    pub result: ValType,
    pub entry: SyncEntry<D>,
}

type SyncEntry<D> = for<'a, 'b, 'c> fn(
    &'a mut D,
    &'b mut Instance,
    &'c mut CallingFrame,
    Vec<WasmValue>,
) -> Result<Vec<WasmValue>, CoreError>;

/// Runs a host function for WasmEdge: a panic must not cross the C++ frames below, so it becomes a trap. Where the native stack
/// is nearly used up the function is not run: an overflow in it would be a fault in the midst of Rust code.
pub fn guarded<D>(function: HostFunction<D>, data: &mut D, args: &[WasmValue]) -> Result<Vec<WasmValue>, CoreError> {
    if crate::os::native_stack_left() < MIN_HOST_CALL_STACK_BYTES {
        return Err(CoreError::Execution(CoreExecutionError::HostFuncFailed));
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(data, args)));
    match outcome {
        Ok(Ok(value)) => Ok(vec![value]),
        Ok(Err(HostTrap)) => Err(CoreError::Execution(CoreExecutionError::HostFuncFailed)),
        Err(_) => {
            log::error!("a host function panicked; the execution is ended");
            Err(CoreError::Execution(CoreExecutionError::HostFuncFailed))
        }
    }
}

/// The call into the guest did not return: a trap.
#[derive(Debug, thiserror::Error)]
#[error("the guest trapped: {0}")]
pub struct Trap(pub String);

/// One instantiated guest with its host data. May move between threads; used by one at a time.
pub struct WasmInstance<D: 'static> {
    active: Option<Instance>,
    store: Option<Store<'static, ImportObject<D>>>,
    import: NonNull<ImportObject<D>>,
    memory: LinearMemory,
}

// SAFETY: WasmEdge objects are not bound to a thread; `&mut self` on every method keeps them to one at a time.
unsafe impl<D: Send> Send for WasmInstance<D> {}

impl<D: 'static> WasmInstance<D> {
    pub fn new(module: &Module, config: &Config, imports: &[Import<D>], data: D) -> WasmEdgeResult<Self> {
        let mut builder = ImportObjectBuilder::new(abi::IMPORT_MODULE, data)?;
        for import in imports {
            let ty = FuncType::new(import.params.to_vec(), vec![import.result]);
            builder.with_func_by_type(import.name, ty, import.entry)?;
        }
        let import = NonNull::from(Box::leak(Box::new(builder.build())));
        let mut this =
            Self { active: None, store: None, import, memory: LinearMemory { base: NonNull::dangling(), len: 0 } };
        // SAFETY: the box was leaked above and is freed in Drop, after the store that borrows it.
        let borrowed: &'static mut ImportObject<D> = unsafe { &mut *import.as_ptr() };
        let mut store = Store::new(Some(config), HashMap::from([(abi::IMPORT_MODULE.to_owned(), borrowed)]))?;
        let active = store.register_active_module(module);
        this.store = Some(store);
        let mut active = active?;
        {
            let mut memory = active.get_memory_mut(abi::export::MEMORY)?;
            let len = memory.size() as usize * 65_536;
            // SAFETY: the memory is owned by `active`, never grows (initial = maximum) and never moves; `LinearMemory` is
            // used only while `self` lives.
            let base = unsafe { memory.data_pointer_mut(0, u32::try_from(len).unwrap_or(u32::MAX)) }?;
            if let Some(base) = NonNull::new(base) {
                this.memory = LinearMemory { base, len };
            }
        }
        this.active = Some(active);
        Ok(this)
    }

    pub fn memory(&self) -> LinearMemory {
        self.memory
    }

    pub fn data_mut(&mut self) -> &mut D {
        // SAFETY: the import object lives until Drop; the guest is not running (it runs only within `call`, which holds
        // `&mut self`), so nobody else refers to the data.
        unsafe { self.import.as_mut() }.get_host_data_mut()
    }

    /// Calls an export that returns at most one i32 (0 when it returns nothing).
    pub fn call(&mut self, name: &str, args: &[WasmValue]) -> Result<i32, Trap> {
        let (Some(active), Some(store)) = (self.active.as_mut(), self.store.as_mut()) else {
            return Err(Trap("no instance".into()));
        };
        crate::os::prepare_thread_for_guests().map_err(|e| Trap(format!("no signal stack: {e}")))?;
        let trap = |e: Box<wasmedge_sdk::error::WasmEdgeError>| Trap(e.to_string());
        let mut function = active.get_func_mut(name).map_err(trap)?;
        let returned = store.executor().call_func(&mut function, args.iter().copied()).map_err(trap)?;
        Ok(returned.first().map_or(0, WasmValue::to_i32))
    }

    /// Value of an exported global of type i32.
    pub fn global(&self, name: &str) -> Option<i32> {
        let global = self.active.as_ref()?.get_global(name).ok()?;
        Some(global.get_value().to_i32())
    }

    pub fn set_global(&mut self, name: &str, value: i32) -> WasmEdgeResult<()> {
        match self.active.as_mut() {
            Some(active) => active.get_global_mut(name)?.set_value(WasmValue::from_i32(value)),
            None => Ok(()),
        }
    }
}

impl<D: 'static> Drop for WasmInstance<D> {
    fn drop(&mut self) {
        // the order matters: the module instance refers to the store, the store to the import object
        self.active = None;
        self.store = None;
        // SAFETY: made by Box::leak in `new`, and nothing refers to it any more.
        drop(unsafe { Box::from_raw(self.import.as_ptr()) });
    }
}
