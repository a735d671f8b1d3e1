//! Runs a program as systemd would with a `SystemCallFilter=` and `MemoryDenyWriteExecute=yes`, but stricter: a system call
//! that is not listed kills the process, so that a test cannot overlook it.
//!
//! `under-filter NAMES PROGRAM ARG...`; the file NAMES has one system call on each line. Names that this machine's
//! architecture does not have are passed over.

use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

const WRITE: u64 = 2;
const EXEC: u64 = 4;
const SHM_EXEC: u64 = 0o100_000;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let names = std::fs::read_to_string(args.next().expect("a file of names")).expect("the file can be read");
    let program = args.next().expect("a program");
    let known = names.lines().filter(|name| compile(&[json!({"syscall": name})]).is_some());
    let rules: Vec<Value> = known.flat_map(rules_of).collect();
    let filter = compile(&rules).expect("names that are known one by one are known together");
    apply_filter(&filter).expect("the filter can be installed");
    panic!("cannot run {}: {}", program.display(), Command::new(&program).args(args).exec());
}

/// Memory is never written and then executed.
fn rules_of(name: &str) -> Vec<Value> {
    let without = |index: u64, bits: u64| json!({"syscall": name, "args": [{"index": index, "type": "qword", "op": {"masked_eq": bits}, "val": 0}]});
    match name {
        "mmap" => vec![without(2, WRITE), without(2, EXEC)],
        "mprotect" | "pkey_mprotect" => vec![without(2, EXEC)],
        "shmat" => vec![without(2, SHM_EXEC)],
        _ => vec![json!({"syscall": name})],
    }
}

fn compile(rules: &[Value]) -> Option<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with filters");
    let filter = json!({"all": {"mismatch_action": "kill_process", "match_action": "allow", "filter": rules}});
    compile_from_json(filter.to_string().as_bytes(), arch).ok()?.remove("all")
}
