//! QuickJS-ng's own tests, run as handlers, against `handlers/conformance.txt`: which pass, and why others do not apply.
//!
//! The table is complete and exact: a file that it does not name fails the test, and so does a file, a function or a line
//! that it skips although it passes. Every file is run in both suspend styles: what a handler calls decides which, so the
//! second time it has a function that uses an extension's answer without awaiting it, and that nobody calls.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nexus_protocol::ErrorCode;
use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::conformance::{self, Row, TestFile, Wanted};
use nexus_tests::{Client, Options, Run, Segment, Watchdog};

/// A few files take a second, and many more where other things run.
const TIMEOUT_MS: u64 = 60_000;
const MEMORY_BYTES: u64 = 128 << 20;
/// Of files that run until they are stopped.
const STOPPED_MS: u64 = 100;

fn run(
    client: &mut Client,
    file: &TestFile,
    without: &[&str],
    assertions: &str,
    mode: SuspendMode,
) -> Result<(), String> {
    let timeout_ms = if file.wanted() == Wanted::Stopped { STOPPED_MS } else { TIMEOUT_MS };
    let segment = client.run(Run::source(file.handler(without, assertions)).timeout_ms(timeout_ms).suspend_mode(mode));
    let as_wanted = match (file.wanted(), &segment.error) {
        (Wanted::Success, _) => segment.status == Status::Success,
        (Wanted::Error(name), Some(error)) => error.name.as_deref() == Some(&*name),
        (Wanted::Stopped, Some(error)) => error.code == ErrorCode::Timeout,
        (_, None) => false,
    };
    if as_wanted { Ok(()) } else { Err(described(&segment)) }
}

fn described(segment: &Segment) -> String {
    let Some(error) = &segment.error else { return format!("{:?}", segment.status) };
    let place = error.location.map_or(String::new(), |place| format!(" at {}:{}", place.line, place.column));
    format!("{} {}: {}{place}", error.code.as_str(), error.name.as_deref().unwrap_or_default(), error.message)
}

/// What is wrong with a row, one line each.
fn check(client: &mut Client, file: &TestFile, row: &Row, assertions: &str, mode: SuspendMode) -> Vec<String> {
    let name = &file.name;
    let without: Vec<&str> = row.without.keys().map(String::as_str).collect();
    let outcome = run(client, file, &without, assertions, mode);
    if row.skipped.is_some() {
        // what only other files are made of passes by doing nothing
        let is_part = name.starts_with("fixture_") || ["assert.js", "empty.js"].contains(&name.as_str());
        return if outcome.is_ok() && !is_part { vec![format!("{name} is skipped and passes")] } else { Vec::new() };
    }
    outcome.err().map(|why| format!("{name}: {why}")).into_iter().collect()
}

/// Parts of a file that pass although the table leaves them out.
fn needless(client: &mut Client, file: &TestFile, row: &Row, assertions: &str) -> Vec<String> {
    let without: Vec<&str> = row.without.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for part in &without {
        let others: Vec<&str> = without.iter().filter(|other| *other != part).copied().collect();
        if run(client, file, &others, assertions, SuspendMode::Await).is_ok() {
            wrong.push(format!("{}#{part} is skipped and passes", file.name));
        }
    }
    wrong
}

#[test]
fn quickjs_own_tests_pass_but_for_those_that_the_table_excuses() {
    let _w = Watchdog::seconds(300);
    let directory = conformance::directory();
    let (files, assertions) = (conformance::files(&directory), conformance::assertions(&directory));
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers/conformance.txt");
    let mut rows = conformance::table(&fs::read_to_string(table).expect("the table is there"));
    let (_sidecar, mut client) =
        Options::new().debug().flag("timeout-ms", TIMEOUT_MS).flag("memory-limit-bytes", MEMORY_BYTES).child();
    client.stream().set_read_timeout(Some(Duration::from_millis(2 * TIMEOUT_MS))).unwrap();
    let (mut wrong, mut passed, mut skipped, mut parts) = (Vec::new(), 0, 0, 0);
    for file in &files {
        let row = rows.remove(&file.name).unwrap_or_else(|| {
            wrong.push(format!("{} is not in the table", file.name));
            Row::default()
        });
        wrong.extend(needless(&mut client, file, &row, &assertions));
        for mode in [SuspendMode::Await, SuspendMode::Stack] {
            let started = Instant::now();
            let found = check(&mut client, file, &row, &assertions, mode);
            wrong.extend(found.into_iter().map(|what| format!("{} style: {what}", mode.as_str())));
            if started.elapsed() > Duration::from_secs(1) {
                println!("{} style: {} took {:?}", mode.as_str(), file.name, started.elapsed());
            }
        }
        *if row.skipped.is_some() { &mut skipped } else { &mut passed } += 1;
        parts += row.without.len();
    }
    wrong.extend(rows.keys().map(|name| format!("{name} is in the table and nowhere else")));
    println!(
        "{} files: {passed} pass, {parts} functions and lines of these left out; {skipped} do not apply",
        files.len()
    );
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Many of the files are about what the collector does.
#[test]
fn the_gc_that_the_files_are_given_collects_cycles() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = Options::new().child();
    let source = "const make = () => { const cycle = {}; cycle.cycle = cycle; return new WeakRef(cycle) };
        const weak = make(), before = weak.deref() !== undefined; gc();
        const within = weak.deref() !== undefined; await null; gc(); return [before, within, weak.deref() === undefined];";
    let value = client.run(format!("{source}\n{}", conformance::SHELL).as_str()).value();
    assert_eq!(value, serde_json::json!([true, true, true]));
}
