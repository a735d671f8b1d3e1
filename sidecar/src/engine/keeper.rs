//! Keeps WasmEdge's fault handlers installed.
//!
//! WasmEdge turns faults of native guest code into traps with process-wide signal handlers, which it installs when the first
//! thread enters a guest and removes when the last one leaves. Between the count that reaches zero and the removal another
//! thread can enter and find its handlers gone; its next fault (every hard kill is one) then ends the process. One thread that
//! has entered a guest and never leaves keeps the count above zero. It also saves the system calls of every other run.
//!
//! WasmEdge's handlers run on the stack that faulted. When that is because it is used up (a recursion that a guest with damaged
//! memory never ends), there is no room for them, and the process would end. So, once they are there for good, they are set
//! again to run on the signal stack that every thread has that enters a guest (`os.rs`): the overflow then is a trap like others.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use wasmedge_sdk::WasmValue;

use super::EngineError;
use super::abi::export;
use super::ffi::WasmInstance;
use super::host::HostData;

/// A handler whose first step is a host call: there it stays.
pub(super) const SOURCE: &str = "return Date.now()";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Entering,
    Parked,
    Released,
}

/// Where the kept thread waits, inside of a host call.
#[derive(Debug, Default)]
pub struct Park {
    stage: Mutex<Stage>,
    changed: Condvar,
}

impl Park {
    fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        self.changed.notify_all();
    }

    fn wait_for(&self, stage: Stage) {
        let guard = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(guard, |now| *now != stage && *now != Stage::Released));
    }

    /// Called by the guest's thread: returns when the keeper is dropped.
    pub fn stay(&self) {
        if *self.stage.lock().unwrap_or_else(PoisonError::into_inner) == Stage::Entering {
            self.set(Stage::Parked);
        }
        self.wait_for(Stage::Released);
    }
}

/// Owns the thread. Dropping it lets the thread leave.
pub struct Keeper {
    park: Arc<Park>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Returns once the thread is inside of the guest. `inbox`: where the guest takes its input; `bytecode`: of `SOURCE`.
    pub fn start(
        mut wasm: WasmInstance<HostData>,
        inbox: u32,
        bytecode: &[u8],
        stack_bytes: usize,
    ) -> Result<Self, EngineError> {
        let init = |e: &dyn std::fmt::Display| EngineError::Init(format!("the keeper of the fault handlers: {e}"));
        let park = Arc::new(Park::default());
        wasm.data_mut().park = Some(park.clone());
        wasm.memory().write(inbox, bytecode).map_err(|e| init(&e))?;
        let len = bytecode.len() as i32;
        let inside = park.clone();
        let thread = std::thread::Builder::new()
            .name("keeper".into())
            .stack_size(stack_bytes)
            .spawn(move || {
                let number = WasmValue::from_i32;
                let limit = number(1 << 20);
                // no arguments, no scope, no name
                let nothing = [(); 6].map(|()| number(0));
                let args = [&[number(inbox as i32), number(len)], &nothing[..]];
                let args = [&args.concat()[..], &[WasmValue::from_i64(1), limit, number(0)]].concat();
                if let Err(e) = wasm.call(export::RUN, &args) {
                    log::error!("the keeper of the fault handlers left its guest: {e}");
                }
                // whoever waits for it must not wait for ever
                inside.set(Stage::Released);
            })
            .map_err(|e| init(&e))?;
        park.wait_for(Stage::Parked);
        if *park.stage.lock().unwrap_or_else(PoisonError::into_inner) != Stage::Parked {
            return Err(init(&"it did not stay in its guest"));
        }
        let keeper = Self { park, thread: Some(thread) };
        crate::os::take_faults_on_signal_stacks().map_err(|e| init(&e))?;
        Ok(keeper)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.park.set(Stage::Released);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
