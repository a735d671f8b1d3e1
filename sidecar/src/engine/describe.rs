//! What engine is in this binary: for `engine` and `--version`.

use std::io::Write;
use std::time::Instant;

use super::load::{BUILT_IN_NATIVE, BUILT_IN_WASM};
use super::{Engine, EngineOptions, abi};
use crate::error::{ExitCode, StartError};

/// SHA-256 of the native code, as the build computed it.
pub const NATIVE_SHA256: &str = env!("NEXUS_GUEST_SHA256");

pub fn version(out: &mut dyn Write) -> Result<ExitCode, StartError> {
    writeln!(out, "nexus-sidecar {} (engine {NATIVE_SHA256})", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::Ok)
}

/// Starts the built-in engine, self-test included, and tells what it is.
pub fn print(json: bool, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let started = Instant::now();
    let options = EngineOptions::default();
    let stack = super::thread_stack_bytes(options.stack_bytes);
    let engine = std::thread::Builder::new()
        .stack_size(stack)
        .spawn(move || Engine::start(options))
        .map_err(|source| StartError::Io { context: "cannot start a thread", source })?
        .join()
        .map_err(|_| StartError::Engine("the engine panicked".into()))?
        .map_err(|e| StartError::Engine(Box::new(e)))?;
    let ready = started.elapsed();
    let digest: String = engine.digest().iter().map(|b| format!("{b:02x}")).collect();
    let fields = [
        ("version", serde_json::json!(env!("CARGO_PKG_VERSION"))),
        ("runtime", serde_json::json!("WasmEdge 0.17.1")),
        ("guest", serde_json::json!("QuickJS-ng 0.16.2, ahead-of-time native code")),
        ("digest", serde_json::json!(digest)),
        ("abi", serde_json::json!(abi::ABI_VERSION)),
        ("nativeBytes", serde_json::json!(BUILT_IN_NATIVE.len())),
        ("wasmBytes", serde_json::json!(BUILT_IN_WASM.len())),
        ("idleInstanceBytes", serde_json::json!(engine.idle_bytes())),
        ("selfTest", serde_json::json!("native code runs")),
        ("startMs", serde_json::json!(ready.as_secs_f64() * 1000.0)),
        ("rebuild", serde_json::json!("cargo xtask guest && cargo build --release")),
    ];
    if json {
        let map: serde_json::Map<String, serde_json::Value> =
            fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        writeln!(out, "{}", serde_json::Value::Object(map))?;
    } else {
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "{name:18} {text}")?;
        }
    }
    Ok(ExitCode::Ok)
}
