//! What engine is in this binary: for `engine` and `--version`.

use std::io::Write;
use std::time::{Duration, Instant};

use nexus_protocol::message::SuspendMode;

use super::load::{BuiltIn, built_in};
use super::processor::Native;
use super::{Engine, EngineError, EngineOptions, abi};
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::sealed::Walls;

pub fn version(out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let engine = hex(&built_in(SuspendMode::Await).digest);
    writeln!(out, "nexus-sidecar {} (engine {engine})", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::Ok)
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// What there is native code for of both guests; for one of these each of them was chosen.
fn levels(one: &BuiltIn, other: &BuiltIn) -> String {
    let of_both = |native: &&Native| other.natives.iter().any(|of_other| of_other.level == native.level);
    one.natives.iter().filter(of_both).map(|native| native.level.name()).collect::<Vec<_>>().join(", ")
}

fn bytes(guest: &BuiltIn) -> usize {
    guest.native().map_or(0, |native| native.code.len())
}

/// Starts both built-in guests, self-tests included, and tells what they are. `possible`: the walls that this kernel has.
pub fn print(json: bool, possible: Walls, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let options = EngineOptions::default();
    let stack = super::thread_stack_bytes(options.stack_bytes);
    let start = move || {
        let started = Instant::now();
        let engine = Engine::start(options)?;
        let ready = started.elapsed();
        let stack_style = engine.start_stack_style()?;
        Ok::<_, EngineError>((engine, ready, stack_style, started.elapsed() - ready))
    };
    let (engine, ready, stack_style, stack_ready) = std::thread::Builder::new()
        .stack_size(stack)
        .spawn(start)
        .map_err(|source| StartError::Io { context: "cannot start a thread", source })?
        .join()
        .map_err(|_| StartError::Engine("the engine panicked".into()))?
        .map_err(|e| StartError::Engine(Box::new(e)))?;
    let milliseconds = |d: Duration| serde_json::json!(d.as_secs_f64() * 1000.0);
    let (direct, stack) = (built_in(SuspendMode::Await), built_in(SuspendMode::Stack));
    let fields = [
        ("version", serde_json::json!(env!("CARGO_PKG_VERSION"))),
        ("runtime", serde_json::json!("WasmEdge 0.17.1")),
        ("guest", serde_json::json!("QuickJS-ng 0.16.2, ahead-of-time native code")),
        ("digest", serde_json::json!(hex(engine.digest()))),
        ("stackDigest", serde_json::json!(hex(stack_style.digest()))),
        ("abi", serde_json::json!(abi::ABI_VERSION)),
        ("processor", serde_json::json!(direct.native().map_or("none", |native| native.level.name()))),
        ("levels", serde_json::json!(levels(direct, stack))),
        ("nativeBytes", serde_json::json!(bytes(direct))),
        ("wasmBytes", serde_json::json!(direct.wasm.len())),
        ("idleInstanceBytes", serde_json::json!(engine.idle_bytes())),
        ("stackNativeBytes", serde_json::json!(bytes(stack))),
        ("stackWasmBytes", serde_json::json!(stack.wasm.len())),
        ("selfTest", serde_json::json!("native code runs")),
        ("startMs", milliseconds(ready)),
        ("stackStartMs", milliseconds(stack_ready)),
        ("walls", serde_json::json!(possible.to_string())),
        ("missingWalls", serde_json::json!(possible.missing().unwrap_or_else(|| "none".to_owned()))),
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
