//! The guest as a package has it, for levels of processors, beside the one that is compiled for this very processor: processor time of
//! the same handlers, in turn. A handler whose loop fits a cache line in one build and not in another is told apart by the others.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nexus_tests::process::binary;
use serde_json::{Map, Value, json};

use crate::Scale;

const ROUNDS: usize = 15;

/// Where each level's native code is: `LEVEL=PATH`, with colons between them.
const LEVELS: &str = "NEXUS_LEVELS";

const HANDLERS: [(&str, &str); 8] = [
    ("calls", "const f = n => n < 2 ? n : f(n - 1) + f(n - 2); return f(24)"),
    (
        "sort",
        "const a = []; let s = 1; for (let i = 0; i < 40000; i++) { s = (s * 1103515245 + 12345) & 0x7fffffff; a.push(s) } a.sort((x, y) => x - y); return a[7]",
    ),
    ("remainders", "let t = 0; for (let i = 0; i < 1500000; i++) { t = (t + i * 3) % 1000003 } return t"),
    (
        "json",
        "const o = []; for (let i = 0; i < 4000; i++) o.push({ id: i, name: 'n' + i, tags: ['a', 'b'] }); let n = 0; for (let i = 0; i < 4; i++) n += JSON.parse(JSON.stringify(o)).length; return n",
    ),
    (
        "patterns",
        "let n = 0; const s = 'the quick brown fox jumps over the lazy dog '.repeat(4000); for (let i = 0; i < 5; i++) n += s.match(/\\b[a-z]+o[a-z]*\\b/g).length; return n",
    ),
    ("floats", "let x = 0.5; for (let i = 0; i < 800000; i++) { x = Math.sqrt(x * x + 1.1) - Math.floor(x) } return x"),
    (
        "arrays",
        "const a = Array.from({ length: 60000 }, (_, i) => i); return a.map(x => x * 2).filter(x => x % 3).reduce((p, q) => p + q, 0)",
    ),
    (
        "objects",
        "const o = {}; for (let i = 0; i < 20000; i++) o['k' + i % 500] = (o['k' + i % 500] ?? 0) + i; return Object.keys(o).length",
    ),
];

pub fn figures(scale: Scale) -> Map<String, Value> {
    let named = std::env::var(LEVELS).unwrap_or_default();
    let levels = named.split(':').filter_map(|entry| entry.split_once('='));
    let mut ways = vec![("native", None)];
    ways.extend(levels.map(|(name, path)| (name, Some(PathBuf::from(path)))));
    assert!(ways.len() > 1, "{LEVELS} names no level; use `cargo xtask bench --levels`");
    let mut best = vec![[f64::INFINITY; HANDLERS.len()]; ways.len()];
    for _ in 0..scale.of(ROUNDS) {
        for (at, (_, handler)) in HANDLERS.iter().enumerate() {
            for ((_, module), best) in ways.iter().zip(&mut best) {
                best[at] = best[at].min(processor_us(handler, module.as_ref()));
            }
        }
    }
    let native = best[0];
    let mut figures = Map::new();
    for ((name, _), taken) in ways.iter().zip(&best) {
        let ratios: Vec<f64> = taken.iter().zip(native).map(|(one, native)| one / native).collect();
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let each: Map<String, Value> = HANDLERS
            .iter()
            .zip(taken.iter().zip(&ratios))
            .map(|((handler, _), (us, ratio))| ((*handler).to_owned(), json!({ "cpuUs": us, "ofNative": ratio })))
            .collect();
        figures.insert((*name).into(), json!({ "ofNative": mean, "handlers": each }));
    }
    figures
}

/// The handler's own, as its result tells it.
fn processor_us(handler: &str, module: Option<&PathBuf>) -> f64 {
    let mut command = Command::new(binary());
    command.args(["run", "-", "--json"]).env("NEXUS_CACHE_DIR", "none").env_remove(LEVELS);
    if let Some(module) = module {
        command.env("NEXUS_QUICKJS_MODULE_PATH", module);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the sidecar starts");
    child.stdin.take().expect("a pipe").write_all(handler.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let result: Value = serde_json::from_slice(&output.stdout).expect("a result");
    assert_eq!(result["status"], "success", "{handler}");
    result["metrics"]["cpuUs"].as_f64().expect("a number")
}
