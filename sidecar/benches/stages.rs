//! What the host itself may take for a request, at its worst: the analysis of sources of 1 MiB that are made for it, and the
//! index of a state of as many keys as there may be. None of it can be stopped from outside, so each looks at its token.
//!
//! `cargo bench -p nexus-sidecar --bench stages [-- --json] [-- --all] [-- --kib N] [-- --only TEXT]`. Times are CPU time of the
//! thread, the least of three. `--all` prints every source, else the ten worst; a ratio says what four times the size took.

use std::time::{Duration, Instant};

use nexus_sidecar::analysis::{AnalysisError, analyze};
use nexus_sidecar::engine::StateView;
use nexus_sidecar::os::thread_cpu_time;
use nexus_sidecar::token::StopToken;
use serde_json::{Value, json};

#[path = "../src/analysis/tests/sources.rs"]
mod sources;

const TURNS: usize = 3;

struct Row {
    name: String,
    cpu: Duration,
    /// Of this, as a multiple of a quarter of the size.
    ratio: f64,
    outcome: &'static str,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let value = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    let bytes = value("--kib").and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(1024) << 10;
    let only = value("--only").cloned().unwrap_or_default();
    let mut rows: Vec<Row> = sources::all()
        .into_iter()
        .filter(|(name, _)| name.contains(&only))
        .map(|(name, make)| {
            let (quarter, _) = taken(&make(bytes / 4));
            let (cpu, outcome) = taken(&make(bytes));
            Row { name, cpu, ratio: cpu.as_secs_f64() / quarter.as_secs_f64().max(1e-6), outcome }
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.cpu));
    let late = lateness(&rows.first().map_or_else(String::new, |row| row.name.clone()), bytes);
    let keys = keys();
    if has("--json") {
        let worst: Vec<Value> = rows.iter().take(10).map(as_json).collect();
        println!(
            "{}",
            json!({ "sourceBytes": bytes, "worst": worst, "lateMs": ms(late), "stateOfAMillionKeysMs": ms(keys) })
        );
        return;
    }
    for row in rows.iter().take(if has("--all") { rows.len() } else { 10 }) {
        let name: String = row.name.chars().take(70).collect::<String>().escape_debug().collect();
        println!("{:>9.1} ms   x{:<5.1} {:<9} {name}", ms(row.cpu), row.ratio, row.outcome);
    }
    println!("{:>9.1} ms   beyond its deadline, of the worst of them stopped half way", ms(late));
    println!("{:>9.1} ms   to check and index a state of a million keys", ms(keys));
}

fn as_json(row: &Row) -> Value {
    json!({ "source": row.name, "cpuMs": ms(row.cpu), "ratio": row.ratio, "outcome": row.outcome })
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn taken(source: &str) -> (Duration, &'static str) {
    let token = StopToken::new();
    let mut least = Duration::MAX;
    let mut outcome = "";
    for _ in 0..TURNS {
        let started = thread_cpu_time();
        let analyzed = analyze(source, None, &token);
        least = least.min(thread_cpu_time() - started);
        outcome = match analyzed {
            Ok(analysis) if analysis.unparsed.is_some() => "unparsed",
            Ok(_) => "read",
            Err(AnalysisError::Syntax(_)) => "refused",
            Err(_) => "stopped",
        };
        if least > Duration::from_secs(2) {
            break;
        }
    }
    (least, outcome)
}

/// How long after its deadline the analysis of that source comes back, when that lies in the middle of it.
fn lateness(name: &str, bytes: usize) -> Duration {
    let Some((_, make)) = sources::all().into_iter().find(|(other, _)| other == name) else { return Duration::ZERO };
    let source = make(bytes);
    let started = Instant::now();
    let _ = analyze(&source, None, &StopToken::new());
    let whole = started.elapsed();
    let late = |part| {
        let deadline = Instant::now() + whole * part / 20;
        let _ = analyze(&source, None, &StopToken::until(Some(deadline)));
        Instant::now().saturating_duration_since(deadline)
    };
    // the least of some tries: a machine that is busy makes everything late
    (1..20).filter_map(|part| (0..TURNS).map(|_| late(part)).min()).max().unwrap_or_default()
}

fn keys() -> Duration {
    let count = nexus_protocol::limits::MAX_STATE_KEYS;
    let mut state = Vec::new();
    rmp::encode::write_map_len(&mut state, count as u32).expect("writing to memory");
    for n in 0..count {
        rmp::encode::write_str(&mut state, &format!("{n:x}")).expect("writing to memory");
        rmp::encode::write_nil(&mut state).expect("writing to memory");
    }
    let token = StopToken::new();
    let times = (0..TURNS).map(|_| {
        let bytes = state.clone();
        let started = thread_cpu_time();
        let view = StateView::given(bytes, &token);
        let took = thread_cpu_time() - started;
        assert!(view.is_ok());
        took
    });
    times.min().unwrap_or_default()
}
