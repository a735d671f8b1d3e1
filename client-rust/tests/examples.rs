//! The examples run, print what they should, and are short. `cargo test` builds them before this; with `--test examples` alone,
//! `cargo build --examples` does.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{scratch, sidecar_binary, watched};

/// Lines, apart from the head, imports and empty ones.
const MAX_LINES: usize = 20;

/// Each with what it prints.
const EXAMPLES: [(&str, &str); 7] = [
    (
        "agent",
        "22\nEXECUTION_ERROR: no weather of Atlantis\n  at handler.js:1:27\n\
         > 1 | return await $ext.weather.at('Atlantis')\n    |                           ^\n  \
         caused by Error: no weather of Atlantis\n",
    ),
    (
        "errors",
        "EXECUTION_ERROR: TypeError: cannot read property 'name' of undefined\n  at greet.js:4:13\n  \
         2 | const user = $args.users.find((user) => user.id === 7)\n  3 | \n> 4 | return user.name\n    |             ^\n\
         it had logged: starting\nworth another try: false\n",
    ),
    (
        "formulas",
        "50\n20\n\
         EXECUTION_ERROR: TypeError: cannot read property 'bar' of undefined\n  at handler.js:1:25\n\
         > 1 | return $scope.price.foo.bar\n    |                         ^\n",
    ),
    ("logs", "info one: 3\ninfo three: 5\n2 files\n"),
    ("plugins", "title = Some(\"DRAFT\")\nevent saved\n"),
    ("rules", "{\"total\":120}: 6 off\n{\"total\":20}: nothing off\n"),
    ("stop", "stopped: true\n"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

#[test]
fn every_example_prints_what_it_should() {
    watched(|| {
        let programs = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
        for (name, printed) in EXAMPLES {
            let program = programs.join(name);
            assert!(program.is_file(), "there is no {}: cargo build --examples", program.display());
            let mut command = Command::new(program);
            command.env("NEXUS_SIDECAR_BIN", sidecar_binary()).env("NEXUS_CACHE_DIR", scratch("cache"));
            let output = command.output().unwrap();
            let (told, failed) = (String::from_utf8(output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name}: {failed}");
            assert_eq!(told.unwrap(), printed, "{name}");
        }
    });
}

#[test]
fn every_example_is_short_and_is_run_here_and_shown_in_the_readme() {
    let readme = std::fs::read_to_string(folder().join("../README.md")).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        // The tour is what `cargo xtask demo` runs.
        .filter(|name| name != "demo")
        .collect();
    names.sort();
    assert_eq!(names, EXAMPLES.map(|(name, _)| name));
    for name in names {
        let text = std::fs::read_to_string(folder().join(&name).with_extension("rs")).unwrap();
        let is_counted = |line: &&str| !line.is_empty() && !line.starts_with("//!") && !line.starts_with("use ");
        let lines = text.lines().filter(is_counted).count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines");
        assert!(readme.contains(&format!("(examples/{name}.rs)")), "the README does not show {name}");
    }
}
