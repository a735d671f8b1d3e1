//! Running other programs: quietly with a heartbeat (their output appears only if they fail), or in full view.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::stages::Heartbeat;

const SHOWN_LINES: usize = 40;

/// Set by `.cargo/config.toml` for this process as well, which would make a nested cargo see another environment than
/// a cargo started by hand, and rebuild for it.
const SET_BY_CONFIG: &[&str] = &["WASMEDGE_INCLUDE_DIR", "WASMEDGE_LIB_DIR", "NEXUS_GUEST_DIR"];

/// Runs it with its output kept back; returns standard output.
pub fn quiet(doing: &str, command: &mut Command) -> Result<String> {
    let heartbeat = Heartbeat::start(doing);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", line(command)))?;
    drop(heartbeat);
    if !output.status.success() {
        let all = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&all);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        bail!("{} ended with {}:\n  {tail}", line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it in full view.
pub fn shown(command: &mut Command) -> Result<()> {
    let status = shown_whatever_it_ends_with(command)?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs it in full view, and leaves it to the caller what its end means.
pub fn shown_whatever_it_ends_with(command: &mut Command) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", line(command)))
}

/// The cargo that runs us.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let of_cargo_run = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || SET_BY_CONFIG.contains(&name)
        });
        if of_cargo_run {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a program is on the search path.
pub fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// What it is called with, for an error.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut text = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    if text.len() > 400 {
        let end = (0..=400).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    format!("`{text}`")
}
