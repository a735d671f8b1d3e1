//! The same programs in the sandbox and in Node: equal results, and errors of equal names.
//!
//! `NEXUS_PROPERTY_SEED` chooses other programs, `NEXUS_PROPERTY_CASES` how many.

use std::io::Write;
use std::process::{Command, Stdio};

use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::loops;
use nexus_tests::styles::{self, Style};
use nexus_tests::{Client, Options, Rng, Run, Segment, Watchdog, javascript, number};
use serde_json::json;

/// Reads a JSON array of function bodies, writes a JSON array of what they return.
const NODE: &str = "
    const AsyncFunction = (async () => {}).constructor;
    const text = require('fs').readFileSync(0, 'utf8');
    (async () => {
      const out = [];
      for (const source of JSON.parse(text)) {
        try { out.push(await new AsyncFunction(source)()) } catch (e) { out.push('throws ' + e.name) }
      }
      process.stdout.write(JSON.stringify(out));
    })()";

fn in_node(programs: &[String]) -> Vec<String> {
    let mut node = Command::new("node")
        .args(["-e", NODE])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node is there");
    let input = serde_json::to_vec(programs).expect("text is JSON");
    node.stdin.take().expect("piped").write_all(&input).expect("Node reads");
    let output = node.wait_with_output().expect("Node ends");
    serde_json::from_slice(&output.stdout).expect("Node writes JSON")
}

#[test]
fn programs_mean_what_they_mean_in_another_engine() {
    let _w = Watchdog::seconds(120);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0xd1ff), number("NEXUS_PROPERTY_CASES", 1000));
    let programs: Vec<String> =
        (0..cases).map(|case| javascript::program(&mut Rng::new(seed ^ (case << 32)))).collect();
    let expected = in_node(&programs);
    assert_eq!(expected.len(), programs.len());
    let (_sidecar, mut client) = Options::new().child();
    let mut different = Vec::new();
    for (case, (program, expected)) in programs.iter().zip(&expected).enumerate() {
        let segment = client.run(Run::source(&**program));
        let found = match (&segment.status, &segment.error) {
            (Status::Success, _) => segment.value().as_str().unwrap_or_default().to_owned(),
            (_, Some(error)) => format!("throws {}", error.name.as_deref().unwrap_or(error.code.as_str())),
            (status, None) => format!("{status:?}"),
        };
        if found != *expected {
            let lines = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
            let program = program.split("function show").next().unwrap_or_default();
            different.push(format!("seed {seed}, case {case}: {lines:?}\n{program}"));
        }
    }
    different.sort_by_key(String::len);
    assert!(
        different.is_empty(),
        "{} of {cases}; the shortest:\n{}",
        different.len(),
        different[..different.len().min(4)].join("\n")
    );
}

/// The value of each call that is outstanding, as the stub of plain JavaScript gives it, until the handler has ended.
fn with_answers(client: &mut Client, source: &str) -> Segment {
    let mut segment = client.run(Run::source(source).grant(&["ext:s"]));
    let mut waiting = std::collections::VecDeque::new();
    while segment.status == Status::Suspended {
        waiting.extend(segment.calls.clone());
        let call = waiting.pop_front().expect("a suspended handler waits for a call");
        let x = call.args[0].as_i64().expect("a number");
        segment = if x < 0 {
            client.resume_failed(&call.id, &format!("no {x}"), None, None)
        } else {
            client.resume(&call.id, &json!({"n": x * 10, "list": [x, x + 1]}))
        };
    }
    segment
}

#[test]
fn handlers_of_either_style_do_what_plain_javascript_does_with_stubs() {
    let _w = Watchdog::seconds(120);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0x57_71), number("NEXUS_PROPERTY_CASES", 1000));
    handlers_do_what_plain_javascript_does(seed, cases, styles::handler);
}

#[test]
fn each_iteration_has_variables_of_its_own_however_it_ends() {
    let _w = Watchdog::seconds(120);
    let (seed, cases) = (number("NEXUS_PROPERTY_SEED", 0x1007), number("NEXUS_PROPERTY_CASES", 1000));
    handlers_do_what_plain_javascript_does(seed, cases, loops::handler);
}

fn handlers_do_what_plain_javascript_does(seed: u64, cases: u64, handler: fn(&mut Rng, Style) -> String) {
    let handlers: Vec<(Style, String)> = (0..cases)
        .map(|case| {
            let style = if case % 2 == 0 { Style::Stack } else { Style::Promise };
            (style, handler(&mut Rng::new(seed ^ (case << 32)), style))
        })
        .collect();
    let plain: Vec<String> = handlers
        .iter()
        .map(|(style, source)| {
            let stub = if *style == Style::Stack { styles::AT_ONCE } else { styles::LATER };
            format!("{}{source}", styles::STUBS.replace("STUB", stub))
        })
        .collect();
    let expected = in_node(&plain);
    let (_sidecar, mut client) = Options::new().child();
    let mut different = Vec::new();
    for ((style, source), expected) in handlers.iter().zip(&expected) {
        let mode = client.check(source).expect("it compiles").mode;
        let wanted = if *style == Style::Stack { SuspendMode::Stack } else { SuspendMode::Await };
        let segment = with_answers(&mut client, source);
        let found = match &segment.error {
            None => segment.value().as_str().unwrap_or_default().to_owned(),
            Some(error) => error.message.clone(),
        };
        if mode != wanted || found != *expected {
            different.push(format!("{style:?}, {mode:?}:\n{source}\nis  {found}\nnot {expected}"));
        }
    }
    different.sort_by_key(String::len);
    assert!(
        different.is_empty(),
        "{} of {cases}; the shortest:\n{}",
        different.len(),
        different[..different.len().min(3)].join("\n")
    );
}
