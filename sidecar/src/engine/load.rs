//! From bytes to a validated module.
//!
//! The native code is part of this binary, so it is exactly as trustworthy as the binary. It is loaded through a sealed
//! memory file, since WasmEdge loads native code by path only: nothing on disk can be exchanged under it. WasmEdge's loader uses
//! what it has not opened, which ends the process; so it works where opening cannot be refused for want of descriptors.

use std::borrow::Cow;
use std::{fs, io};

use nexus_protocol::message::SuspendMode;
use sha2::{Digest, Sha256};
use wasmedge_sdk::config::{CommonConfigOptions, Config, ConfigBuilder, RuntimeConfigOptions};
use wasmedge_sdk::{LogManager, Module, RunMode};

use super::dataless::remove_data;
use super::processor::{self, Level, Native};
use super::stored::{Damaged, Stored};
use super::{EngineError, EngineOptions, abi};
use crate::os::{self, BlankFile};

/// One built-in guest.
pub(super) struct BuiltIn {
    /// For one processor or several, the most demanding first.
    pub natives: &'static [Native],
    pub wasm: Stored,
    /// SHA-256 of the module, which is the engine's identity whatever native code of it runs.
    pub digest: [u8; 32],
}

impl BuiltIn {
    /// The native code for this processor.
    pub fn native(&self) -> Option<&'static Native> {
        processor::choose(self.natives, Level::is_met)
    }
}

// DIRECT and STACK, of what the build was given.
include!(concat!(env!("OUT_DIR"), "/guests.rs"));

pub(super) fn built_in(mode: SuspendMode) -> &'static BuiltIn {
    match mode {
        SuspendMode::Await => &DIRECT,
        SuspendMode::Stack => &STACK,
    }
}

/// First bytes of a native module.
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// A guest that is loaded and not started: all that needs files, or makes memory executable, is done.
pub struct Loaded {
    /// Makes the first instance.
    pub complete: Module,
    /// Makes all others, into which the image is put.
    pub module: Module,
    pub config: Config,
    /// Of the WebAssembly module, or of the file that was given instead.
    pub digest: [u8; 32],
    /// For the image.
    pub blank: BlankFile,
}

/// The digest of the guest that these options name, without loading it.
pub fn digest_of(options: &EngineOptions) -> Result<[u8; 32], EngineError> {
    match &options.module {
        Some(path) => {
            let bytes = fs::read(path).map_err(|source| EngineError::ReadModule { path: path.clone(), source })?;
            Ok(Sha256::digest(bytes).into())
        }
        None => Ok(built_in(options.mode).digest),
    }
}

pub fn load(options: &EngineOptions) -> Result<Loaded, EngineError> {
    // WasmEdge writes every trap to stdout, which belongs to nobody but the user
    LogManager::log_off();
    let name = options.module.as_ref().map_or_else(|| "(built in)".into(), |path| path.display().to_string());
    let fail = |reason: String| EngineError::Load { name: name.clone(), reason };
    let damaged = |Damaged| fail("this program is damaged; install it anew".into());
    let bytes: Cow<'static, [u8]> = match &options.module {
        Some(path) => fs::read(path).map_err(|source| EngineError::ReadModule { path: path.clone(), source })?.into(),
        None if options.aot => {
            let native = built_in(options.mode).native().ok_or(EngineError::Processor)?;
            native.code.bytes().map_err(damaged)?
        }
        None => built_in(options.mode).wasm.bytes().map_err(damaged)?,
    };
    let config = config(options).map_err(|e| fail(e.to_string()))?;
    let native = bytes.starts_with(ELF_MAGIC);
    if native && !options.aot {
        return Err(fail("it is native code, and enableAOT is false; give the .wasm file instead".into()));
    }
    let load = |bytes: &[u8]| {
        if native {
            os::with_own_descriptors(|| native_module(&config, bytes)).map_err(|e| e.to_string())?
        } else {
            Module::from_bytes(Some(&config), bytes).map_err(|e| e.to_string())
        }
    };
    let complete = load(&bytes).map_err(&fail)?;
    if let Some(foreign) = complete.imports().iter().find(|i| i.module_name() != abi::IMPORT_MODULE) {
        let what = format!("{}.{}", foreign.module_name(), foreign.name());
        return Err(fail(format!("it imports {what}, which no guest of ours needs")));
    }
    let digest = if options.module.is_some() { Sha256::digest(&bytes).into() } else { built_in(options.mode).digest };
    let mut bytes = bytes.into_owned();
    let module = match remove_data(&mut bytes).then(|| load(&bytes)) {
        Some(Ok(module)) => module,
        Some(Err(e)) => {
            log::debug!("instances keep the data segments of the guest: {e}");
            complete.clone()
        }
        None => complete.clone(),
    };
    let blank = BlankFile::new("nexus-image", abi::LINEAR_MEMORY_BYTES).map_err(|e| fail(e.to_string()))?;
    Ok(Loaded { complete, module, config, digest, blank })
}

fn native_module(config: &Config, bytes: &[u8]) -> Result<Module, String> {
    let sealed = os::sealed_memory_file("nexus-guest", bytes).map_err(|e| e.to_string())?;
    // what it cannot open is told here
    match fs::File::open(sealed.path()) {
        Ok(file) => drop(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(format!("/proc, by which it is loaded, is not mounted here ({e})"));
        }
        Err(e) => return Err(e.to_string()),
    }
    Module::from_file(Some(config), sealed.path()).map_err(|e| e.to_string())
}

/// Only what the guest is compiled with; every proposal that is off is code that an attacker cannot reach.
fn config(options: &EngineOptions) -> wasmedge_sdk::WasmEdgeResult<Config> {
    let common = CommonConfigOptions::default()
        .mutable_globals(true)
        .non_trap_conversions(true)
        .sign_extension_operators(true)
        .multi_value(true)
        .bulk_memory_operations(options.bulk_memory)
        .reference_types(true)
        .simd(options.simd)
        .tail_call(false)
        .multi_memories(false)
        .threads(false)
        .run_mode(if options.aot { RunMode::Aot } else { RunMode::Interpreter });
    let runtime = RuntimeConfigOptions::default().max_memory_pages((abi::LINEAR_MEMORY_BYTES / 65_536) as u32);
    ConfigBuilder::new(common).with_runtime_config(runtime).build()
}

#[cfg(test)]
mod tests {
    use super::super::start::instantiate;
    use super::*;

    /// Behind the stack.
    const WHERE_DATA_IS: usize = 8 << 20;

    #[test]
    fn an_engine_is_known_by_its_module_whatever_code_of_it_runs() {
        for mode in [SuspendMode::Await, SuspendMode::Stack] {
            let of = |aot| load(&EngineOptions { mode, aot, ..EngineOptions::default() }).unwrap().digest;
            let module: [u8; 32] = Sha256::digest(built_in(mode).wasm.bytes().unwrap()).into();
            assert_eq!((of(true), of(false)), (module, module));
        }
    }

    #[test]
    fn instances_after_the_first_are_made_from_a_module_without_data() {
        for mode in [SuspendMode::Await, SuspendMode::Stack] {
            let loaded = load(&EngineOptions { mode, ..EngineOptions::default() }).unwrap();
            let has_data = |module: &Module| {
                let instance = instantiate(module, &loaded.config).unwrap();
                let mut bytes = vec![0; WHERE_DATA_IS];
                instance.memory().read(0, &mut bytes).unwrap();
                bytes.iter().any(|byte| *byte != 0)
            };
            assert!(has_data(&loaded.complete) && !has_data(&loaded.module), "{mode:?}");
        }
    }
}
