//! `cargo xtask`: everything between a fresh clone and a tested, measured sidecar, as one command each.
//!
//! ```text
//!  setup:  WasmEdge -> the engine without its compiler -> guest compiler -> Binaryen -> guest -> links in .nexus -> cargo build, npm run build
//!  test, demo, bench:  setup, then their own stages
//! ```
//!
//! Costly results live in a cache outside the repository (`places.rs`), named by the digest of what they are made from.
//! A stage works in a temporary directory and renames its result into place, so an interrupted set-up is simply started
//! again. Nothing here runs at the product's run time.
#![forbid(unsafe_code)]

mod apt;
mod binaryen;
mod digest;
mod elf;
mod frames;
mod guest;
mod levels;
mod loops;
mod mutants;
mod package;
mod patches;
mod places;
mod process;
mod promises;
mod quickjs;
mod recorded;
mod release;
mod schema;
mod soak;
mod stack_gate;
mod stages;
mod standin;
mod toolchain;
mod wasmedge;
mod watched;
mod without;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::places::Places;
use crate::stages::Stages;

const HELP: &str = "\
cargo xtask COMMAND: sets up and runs the development loop of nexus-sidecar.

  setup          make this machine able to build: WasmEdge, the guest's compiler, the guest itself, then the
                 sidecar and the clients. Quick when there is nothing to do.
  guest          only what the guest artifact needs, then rebuild it if its sources changed
  guest --record the same, and its modules, byte for byte, become those that each build of these sources with these tools
                 has to come to (sidecar/guest/modules.json)
  demo           setup, then the demonstration of the Node client and of the Rust client
  test           setup, then formatting, lints, every test and a short fuzzing
  bench [--json] [--quick] [--overrun | --fairness | --peers | --calls | --start | --state | --levels | --walls]
                 setup, then the measurements; with --json as JSON on standard output; with --overrun only how late
                 deadlines are kept, with --fairness only what one connection feels of others, with --peers only a ping
                 beside work of the host, with --calls only many calls of one handler, with --start only the way to the
                 first result, with and without the engine's compiler, with --state only large states, with --levels only the guests of
                 a package beside the one for this processor (compiles what is not there yet)
  fuzz [--seconds N] [--seed S]
                 setup, then hostile input from a seed, for ten minutes if nothing is said
  soak [--executions N] [--seed S]
                 setup, then a long mixed load and what it leaves behind, 100,000 executions if nothing is said, and
                 canaries: each execution's traces searched for in the whole memory after the reset
  soak --isolation | --kills | --churn | --simulation | --races | --instances [N]
                 setup, then one part alone, longer than `test` has it: 10,000 pairs of canaries; 1,000 sidecars and
                 1,000 clients killed, and 200 parents; 100,000 executions beside connections that come and leave;
                 100,000 seeds of the server's simulation; 10,000 races for a suspension and a million guesses; 10,000
                 instances made and destroyed; or N of them
  soak --systemd setup, then the units of sidecar/deploy under a systemd that is booted for it (root, systemd-nspawn)
  mutants [FILES..]
                 changes the code that keeps tenants apart, one operator or result at a time, and runs its unit tests:
                 each change has to be noticed, or stand with a reason in tests/xtask/mutants.toml. Hours for all
                 files; parts of their names choose some, such as `mutants capability pool.rs`
  generate [--check]
                 write what protocol/schema.toml says into the protocol, the clients, the sidecar's configuration and
                 SPEC.md; with --check only look, and fail where a file is otherwise
  spec           list the promises of SPEC.md that no test shows, and fail where a test names one that is not there
  package        what users install, in target/package: a tree that runs anywhere, and of it the npm packages, the Debian
                 package, the archive and the single file, with checksums, a bill of materials and the texts of third parties
  package --try  the same, then tried out: installed, used, upgraded and removed in roots with only Node, only Debian, only
                 busybox, one that nobody may write, a machine that boots systemd, and as an image (root)
  package --tree the same tree of the sidecar that is built already, tried out in a root with nothing else (root)
  release --dry-run
                 do sources, changelog, protocol and packages agree on the version?
  patches [WORDS..]
                 builds a guest without each patch of QuickJS whose name has one of these words, all if there are none, and runs
                 the tests that the patch names on it: one has to fail
  gate FILE      list the frameless recursive cycles of a wasm file that has its names
  help           this text

Environment:
  WASMEDGE_DIR       a WasmEdge 0.17.1 of your own (include/, lib/ and bin/wasmedge)
  NEXUS_BUILD_CACHE  where costly results are kept (default: nexus-sidecar-build in the user's cache directory)
  CARGO_TARGET_DIR   as for cargo
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut stages = Stages::new();
    let result = dispatch(&args, &mut stages);
    stages.summary();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stages::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String], stages: &mut Stages) -> Result<()> {
    let mut words = args.iter().map(String::as_str);
    let command = words.next().unwrap_or("help");
    let rest: Vec<&str> = words.collect();
    let accepts = match command {
        "bench" => rest.iter().all(|word| {
            let parts = ["--overrun", "--fairness", "--peers", "--calls", "--start", "--state", "--levels", "--walls"];
            ["--json", "--quick"].iter().chain(&parts).any(|known| known == word)
        }),
        "fuzz" | "soak" | "mutants" | "patches" => true,
        "gate" => rest.len() == 1,
        "guest" => rest.is_empty() || rest == ["--record"],
        "generate" => rest.is_empty() || rest == ["--check"],
        "release" => rest == ["--dry-run"],
        "package" => rest.is_empty() || rest == ["--tree"] || rest == ["--try"],
        _ => rest.is_empty(),
    };
    if !accepts {
        anyhow::bail!("`{command}` does not take {rest:?}; see `cargo xtask help`");
    }
    match command {
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        "gate" => stack_gate::print_cycles(rest[0].as_ref()),
        "generate" if rest.is_empty() => schema::generate(&Places::open()?.root),
        "generate" => schema::check(&Places::open()?.root),
        "spec" => promises::look(&Places::open()?.root),
        "guest" => {
            let places = Places::open()?;
            if rest.is_empty() {
                return loops::guest(&places, stages).map(drop);
            }
            loops::build_guest(&places, stages)?;
            recorded::record(&places)
        }
        "release" => release::dry_run(&Places::open()?),
        "package" if rest == ["--tree"] => package::try_briefly(&Places::open()?, stages),
        "package" => package::package(&Places::open()?, stages, rest == ["--try"]),
        "setup" => loops::setup(&Places::open()?, stages),
        "demo" => loops::demo(&Places::open()?, stages),
        "test" => loops::test(&Places::open()?, stages),
        "fuzz" => loops::fuzz(&Places::open()?, stages, &rest),
        "soak" => soak::soak(&Places::open()?, stages, &rest),
        "mutants" => mutants::mutants(&Places::open()?, stages, &rest),
        "patches" => without::patches(&Places::open()?, stages, &rest),
        "bench" => loops::bench(&Places::open()?, stages, &rest),
        other => anyhow::bail!("there is no command `{other}`; see `cargo xtask help`"),
    }
}
