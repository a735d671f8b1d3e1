//! QuickJS-ng's own tests as handlers: where they lie, how a file becomes a handler, and the table of what comes of each.
//!
//! The files are those of the package that Cargo.lock pins; none is copied into the repository. What a shell would give them
//! (assert.js, `print`, `gc`) is appended, so that lines and columns stay those of the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Function declarations, so that they are there from the first line on. `gc` leaves enough garbage that the collector runs.
pub const SHELL: &str = "
function print(...values) { console.log(...values) }
function queueMicrotask(job) { Promise.resolve().then(() => job()) }
function gc() { for (let i = 0; i < 30000; i++) { const cycle = {}; cycle.cycle = cycle } }
";

/// As which the handler stands in its own stack traces.
const HANDLER_FILE: &str = "handler.js";

/// A test file.
#[derive(Debug)]
pub struct TestFile {
    /// Relative to QuickJS's directory of tests.
    pub name: String,
    text: String,
}

/// What a file asks to happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Success,
    /// The handler fails with an error of this name.
    Error(String),
    /// It runs until it is stopped.
    Stopped,
}

/// QuickJS's directory of tests.
pub fn directory() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == "rquickjs-sys").expect("the lock file names it");
    Path::new(package["manifest_path"].as_str().expect("a path")).with_file_name("quickjs/tests")
}

/// Every test file, by name.
pub fn files(directory: &Path) -> Vec<TestFile> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.expect("a directory can be read").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "js") {
                let name = path.strip_prefix(directory).expect("below it").to_string_lossy().into_owned();
                found.push(TestFile { text: fs::read_to_string(&path).expect("a test is text"), name });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// assert.js, as the files import it.
pub fn assertions(directory: &Path) -> String {
    fs::read_to_string(directory.join("assert.js")).expect("assert.js").replace("export function", "function")
}

impl TestFile {
    pub fn wanted(&self) -> Wanted {
        let head =
            self.text.strip_prefix("/*---").and_then(|rest| rest.split_once("---*/")).map_or("", |(head, _)| head);
        let name = head.split_once("negative:").and_then(|(_, rest)| rest.split_once("type:"));
        match name.and_then(|(_, rest)| rest.split_whitespace().next()) {
            None => Wanted::Success,
            // the shell's interrupt handler ends the script at once
            Some("InternalError") if head.contains("qjs:set-interrupt-handler") => Wanted::Stopped,
            Some(name) => Wanted::Error(name.to_owned()),
        }
    }

    /// The file as a handler, without some lines: those at top level that call a function of this name, and those of these
    /// numbers.
    pub fn handler(&self, without: &[&str], assertions: &str) -> String {
        // a module is strict; the directive takes the place of the first import
        let is_module = self.text.lines().any(|line| line.starts_with("import ") || line.starts_with("export "));
        let mut handler = String::with_capacity(self.text.len() + assertions.len() + 200);
        let mut strict = if is_module { "\"use strict\";" } else { "" };
        for (line, number) in self.text.lines().zip(1..) {
            let is_left_out = called_function(line).is_some_and(|name| without.contains(&name))
                || without.iter().any(|place| holds(place, number));
            match imported(line) {
                _ if is_left_out => {}
                Some(stands_for_it) => handler.extend([std::mem::take(&mut strict), stands_for_it]),
                None => handler.push_str(line),
            }
            handler.push('\n');
        }
        handler.replace(&self.name, HANDLER_FILE) + SHELL + assertions
    }
}

/// What a handler has in place of an import. None: no import, or of a module that it cannot have, so that it fails.
fn imported(line: &str) -> Option<&'static str> {
    let import = line.strip_prefix("import ")?;
    match import.split_once("from")?.1.trim().trim_end_matches(';').trim_matches('"') {
        "./assert.js" | "../assert.js" => Some(""),
        "qjs:std" if import.starts_with("* as std ") => Some("const std = { gc };"),
        "qjs:os" if import.starts_with("* as os ") => Some("const os = { platform: 'linux' };"),
        _ => None,
    }
}

/// Whether `place` is this line, or lines that hold it (`12-14`).
fn holds(place: &str, line: u32) -> bool {
    let (first, last) = place.split_once('-').unwrap_or((place, place));
    matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&line))
}

/// The function that a line at top level calls, when it does nothing else.
fn called_function(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("await ").unwrap_or(line).split_once('(')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_call = ["", ";"].contains(&rest.strip_prefix(')')?.trim_end());
    (is_name && is_call).then_some(name)
}

/// What the table says of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Why none of it is run.
    pub skipped: Option<String>,
    /// Functions that are not called and lines that are left out, and why.
    pub without: BTreeMap<String, String>,
}

/// Reads `FILE | passes`, `FILE | skipped | REASON` and `FILE#FUNCTION_OR_LINE | skipped | REASON`.
pub fn table(text: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (file, part) = cells[0].split_once('#').map_or((cells[0], None), |(file, f)| (file, Some(f)));
        let known = rows.contains_key(file);
        let row: &mut Row = rows.entry(file.to_owned()).or_default();
        match (part, &cells[1..]) {
            (None, ["passes"]) if !known => {}
            (None, ["skipped", reason]) if !known && !reason.is_empty() => row.skipped = Some((*reason).to_owned()),
            (Some(part), ["skipped", reason]) if known && !reason.is_empty() => {
                let twice = row.without.insert(part.to_owned(), (*reason).to_owned());
                assert!(twice.is_none(), "twice: {line}");
            }
            _ => panic!("not a row, or in the wrong place: {line}"),
        }
    }
    rows
}
