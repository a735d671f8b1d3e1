//! The sidecar's settings, as this crate names them.

mod support;

use std::path::Path;
use std::process::Command;

use support::sidecar_binary;

/// What belongs to a sidecar that listens, or that is asked for something else.
const NOT_OF_A_CHILD: [&str; 5] = ["--listen", "--fd", "--allow-uids", "--check-config", "--help"];

#[test]
fn every_setting_of_a_sidecar_can_be_made_when_it_is_spawned() {
    let output = Command::new(sidecar_binary()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let flags = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let long = line.strip_prefix("-h, ").unwrap_or(line);
        long.starts_with("--").then(|| long.split([' ', '=']).next().unwrap_or_default())
    });
    let flags: Vec<_> = flags.filter(|flag| !NOT_OF_A_CHILD.contains(flag)).collect();
    assert!(flags.len() >= 30, "{flags:?}");
    let source = ["src/settings.rs", "src/spawn.rs"]
        .map(|file| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap())
        .concat();
    let missing: Vec<_> = flags.iter().filter(|flag| !source.contains(&format!("\"{flag}\""))).collect();
    assert!(missing.is_empty(), "SpawnOptions has no methods for {missing:?}");
}
