//! From nothing to the first result: `run` of one line, with the libraries as they are shipped and with the compiler that
//! libwasmedge links, in turn. Peak memory, processor time, and the bytes of the libraries beside the program.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nexus_tests::process::binary;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Map, Value, json};

use crate::Scale;

const RUNS: usize = 200;

pub fn figures(scale: Scale) -> Map<String, Value> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.nexus/wasmedge");
    let whole = libraries.join("whole").canonicalize().expect("set-up has left the whole WasmEdge");
    let shipped = libraries.join("lib").canonicalize().expect("set-up has left the engine");
    let ways = [("standIn", None, &shipped), ("compiler", compiler(&whole), &whole)];
    let mut figures = Map::new();
    let mut taken = ways.each_ref().map(|_| (Vec::new(), Duration::ZERO, 0));
    for (way, taken) in ways.iter().zip(&mut taken) {
        taken.2 = peak(way.1.as_deref(), &whole);
    }
    for _ in 0..scale.of(RUNS) {
        for (way, taken) in ways.iter().zip(&mut taken) {
            let (before, started) = (processor_time(), Instant::now());
            run(way.1.as_deref(), &whole);
            taken.0.push(started.elapsed());
            taken.1 += processor_time() - before;
        }
    }
    for ((name, _, directory), (mut times, processor, peak)) in ways.iter().zip(taken) {
        let processor = processor / u32::try_from(times.len()).expect("a few");
        times.sort();
        figures.insert(
            (*name).into(),
            json!({
                "runMsP50": times[times.len() / 2].as_secs_f64() * 1000.0,
                "processorMs": processor.as_secs_f64() * 1000.0,
                "peakMB": peak as f64 * 1024.0 / 1e6,
                "librariesMB": bytes(directory) as f64 / 1e6,
            }),
        );
    }
    figures
}

/// The command by which this program is executed to print how much memory one `run` takes at most.
pub const PEAK: &str = "peak-of-run";

/// In KiB. The peak of a process's children is one number that only grows, and this process has it from whatever it was executed by: so
/// another one looks, which has had no children.
fn peak(preloaded: Option<&Path>, whole: &Path) -> u64 {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.arg(PEAK).arg(preloaded.unwrap_or(Path::new(""))).arg(whole);
    let printed = command.output().expect("this program starts").stdout;
    String::from_utf8_lossy(&printed).trim().parse().expect("a number")
}

pub fn print_peak(preloaded: &str, whole: &str) {
    run(Some(Path::new(preloaded)).filter(|path| !path.as_os_str().is_empty()), Path::new(whole));
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).expect("a usage").max_rss());
}

/// One `run`, of which only the end matters.
fn run(preloaded: Option<&Path>, whole: &Path) {
    let mut command = Command::new(binary());
    command.args(["run", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("NEXUS_CACHE_DIR", "none");
    if let Some(compiler) = preloaded {
        // What is there under that name already is not looked for.
        command.env("LD_PRELOAD", compiler).env("LD_LIBRARY_PATH", whole);
    }
    let mut child = command.spawn().expect("the sidecar starts");
    child.stdin.take().expect("a pipe").write_all(b"return 1 + 1").expect("it reads");
    assert!(child.wait().expect("it ends").success());
}

fn compiler(whole: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(whole).expect("it can be listed").map(|entry| entry.expect("an entry").path());
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so."))).min()
}

/// Of the files in a directory; links count for nothing.
fn bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("it can be listed").map(|entry| entry.expect("an entry"));
    entries.map(|entry| entry.metadata().expect("a file")).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a usage");
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.try_into().expect("time goes forward"))
}
