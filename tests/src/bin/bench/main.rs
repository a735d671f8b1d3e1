//! Every figure of the README, measured in one run: `bench [--json] [--quick] [--overrun | --fairness | --peers | --calls |
//! --start | --state | --walls | --levels]`, built with `--release`.
//!
//! Times of a machine say little by themselves, so a bare echo over the same kind of socket is measured in the same run, and
//! the ratio to it is printed. Engine figures come from `cargo bench -p nexus-sidecar --bench engine`, which runs first.

mod calls;
mod client;
mod echo;
mod fairness;
mod levels;
mod memory;
mod node;
mod overrun;
mod peers;
mod socket;
mod start;
mod state;
mod walls;

use std::path::Path;
use std::process::{Command, Stdio};

use nexus_tests::bench::Sample;
use nexus_tests::process::binary;
use serde_json::{Map, Value, json};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub divide: usize,
}

impl Scale {
    pub fn of(self, full: usize) -> usize {
        (full / self.divide).max(10)
    }
}

type Part = fn(Scale) -> Map<String, Value>;

/// What is measured alone when it is named.
const PARTS: &[(&str, Part)] = &[
    ("overrun", overrun::figures),
    ("fairness", fairness::figures),
    ("peers", peers::figures),
    ("calls", calls::figures),
    ("start", start::figures),
    ("walls", walls::figures),
    ("levels", levels::figures),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, path] = &args[..]
        && command == "echo-server"
    {
        echo::serve(Path::new(path));
    }
    if let [command, preloaded, whole] = &args[..]
        && command == start::PEAK
    {
        return start::print_peak(preloaded, whole);
    }
    let parts = PARTS.iter().map(|(name, _)| *name);
    let known: Vec<String> =
        ["json", "quick", "state"].into_iter().chain(parts).map(|name| format!("--{name}")).collect();
    if let Some(unknown) = args.iter().find(|arg| !known.contains(arg)) {
        eprintln!("bench: unknown argument {unknown}; there are {}", known.join(", "));
        std::process::exit(2);
    }
    let quick = args.iter().any(|a| a == "--quick");
    let scale = Scale { divide: if quick { 10 } else { 1 } };
    let mut figures = Map::new();
    for (name, part) in PARTS {
        if args.iter().any(|a| a.strip_prefix("--") == Some(*name)) {
            figures.insert((*name).into(), Value::Object(part(scale)));
            figures.insert("machine".into(), machine());
            println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
            return;
        }
    }
    if args.iter().any(|a| a == "--state") {
        // large states alone
        let large = json!({ "state": state::figures(scale), "client": client::figures(scale) });
        println!("{}", serde_json::to_string_pretty(&large).expect("JSON"));
        return;
    }
    figures.insert("engine".into(), engine(quick));
    figures.insert("rust".into(), Value::Object(socket::figures(scale)));
    figures.insert("calls".into(), Value::Object(calls::figures(scale)));
    figures.insert("state".into(), Value::Object(state::figures(scale)));
    figures.insert("client".into(), Value::Object(client::figures(scale)));
    figures.insert("node".into(), node::figures(scale));
    figures.insert("process".into(), Value::Object(socket::process_figures(scale)));
    figures.insert("overrun".into(), Value::Object(overrun::figures(scale)));
    figures.insert("fairness".into(), Value::Object(fairness::figures(scale)));
    figures.insert("peers".into(), Value::Object(peers::figures(scale)));
    figures.insert("start".into(), Value::Object(start::figures(scale)));
    let ratios = ratios(&figures);
    figures.insert("ratios".into(), Value::Object(ratios));
    figures.insert("machine".into(), machine());
    if args.iter().any(|a| a == "--json") {
        println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
    } else {
        print(&figures);
    }
}

/// The figures of the engine bench, which links the sidecar and so is a program of its own: built now, unless
/// `NEXUS_ENGINE_BENCH` names one.
fn engine(quick: bool) -> Value {
    let mut command = match std::env::var_os("NEXUS_ENGINE_BENCH") {
        Some(built) => Command::new(built),
        None => {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["bench", "--quiet", "-p", "nexus-sidecar", "--bench", "engine", "--"]);
            cargo
        }
    };
    command.arg("--json");
    if quick {
        command.arg("--quick");
    }
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).stderr(Stdio::inherit());
    let output = command.output().expect("cargo can be run");
    assert!(output.status.success(), "the engine bench failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let document = text.lines().rev().find(|line| line.starts_with('{')).expect("the engine bench prints JSON");
    serde_json::from_str(document).expect("the engine bench prints JSON")
}

/// A sample as a figure.
fn summary(sample: &Sample) -> Value {
    json!({ "p50Us": sample.p50_us(), "p99Us": sample.p99_us() })
}

fn p50(figures: &Map<String, Value>, group: &str, name: &str) -> Option<f64> {
    figures[group][name]["p50Us"].as_f64()
}

fn ratios(figures: &Map<String, Value>) -> Map<String, Value> {
    let pairs = [
        ("rustTinyToEcho", ("rust", "tiny"), ("rust", "echo")),
        ("rustCallToEcho", ("rust", "call"), ("rust", "echo")),
        ("nodeTinyToEcho", ("node", "nodeTiny"), ("node", "nodeEcho")),
        ("nodeCallToEcho", ("node", "nodeCall"), ("node", "nodeEcho")),
        ("state10MBTo1KB", ("rust", "state10MB"), ("rust", "state1KB")),
    ];
    let ratio = |(name, above, below): (&str, (&str, &str), (&str, &str))| {
        let value = p50(figures, above.0, above.1)? / p50(figures, below.0, below.1)?;
        Some((name.to_owned(), json!((value * 100.0).round() / 100.0)))
    };
    pairs.into_iter().filter_map(ratio).collect()
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find(|l| l.starts_with("model name"))
        .and_then(|l| l.split(": ").nth(1))
        .unwrap_or("unknown")
        .to_owned();
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "loadAverageAtEnd": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        "sidecar": binary().canonicalize().unwrap_or_default(),
    })
}

fn print(figures: &Map<String, Value>) {
    for (group, title) in [
        ("engine", "inside the sidecar"),
        ("rust", "over the socket, from Rust"),
        ("calls", "2,000 calls with a kilobyte each, made together and in turn"),
        ("state", "large states, from a bare Rust test client"),
        ("client", "large payloads, from the Rust client"),
        ("node", "over the socket, from Node"),
        ("process", "process"),
        ("overrun", "beyond the deadline"),
        ("fairness", "beside other connections"),
        ("peers", "a ping beside work of the host"),
        ("ratios", "ratios"),
    ] {
        println!("\n{title}");
        let Some(rows) = figures[group].as_object() else {
            println!("  {}", figures[group].as_str().unwrap_or("nothing"));
            continue;
        };
        for (name, figure) in rows {
            match figure {
                Value::Object(fields) => {
                    let field = |key: &str| fields.get(key).and_then(Value::as_f64);
                    print!("  {name:<26}");
                    if let (Some(p50), Some(p99)) = (field("p50Us"), field("p99Us")) {
                        print!(" p50 {p50:>10.1} us   p99 {p99:>10.1} us");
                    }
                    if let Some(max) = field("maxUs") {
                        print!("   max {max:>10.1} us");
                    }
                    if let (Some(one), Some(at_once), Some(in_a_row)) =
                        (field("oneRequest"), field("inFlight"), field("inARow"))
                    {
                        print!(" one request {one:.1} ms, as many at once {at_once:.1} ms, in a row {in_a_row:.1} ms");
                    }
                    if let Some(rate) = field("perSecond") {
                        print!("   {rate:>8.0} executions/s");
                    }
                    println!();
                }
                other => println!("  {name:<26} {other}"),
            }
        }
    }
    println!("\n{}", figures["machine"]);
}
