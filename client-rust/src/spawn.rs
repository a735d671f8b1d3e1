//! How a sidecar is started.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use crate::error::StartError;
use crate::options::ClientOptions;
use crate::program::Search;
use crate::restart::RestartPolicy;

/// What a sidecar, which runs untrusted code, gets of this process's environment: nothing that may hold a secret.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];
const INHERITED_PREFIXES: [&str; 5] = ["LC_", "XDG_", "NEXUS_", "WASMEDGE_", "RUST_"];

/// How to start a sidecar. Every method but [`binary`](Self::binary) and [`env`](Self::env) sets one key of its
/// configuration; what is not set is as in its environment, file or defaults.
///
/// The program is the one of [`binary`](Self::binary), else of the environment variable `NEXUS_SIDECAR_BIN`, else
/// `nexus-sidecar` on `PATH`, else where packages and archives put it (`~/.local/bin`, `/usr/local/bin`, `/usr/bin`,
/// `/opt/nexus-sidecar/bin` and the like). Its log goes to this program's logger (crate `log`), target `nexus_sidecar`, level debug; its
/// last lines are in the error that tells of its end. Of this program's environment it gets `PATH`, `HOME`, `USER`, `LANG`,
/// `LC_*`, `TZ`, `TMPDIR`, `XDG_*`, `LD_LIBRARY_PATH`, `NEXUS_*`, `WASMEDGE_*`, `RUST_*` and what [`env`](Self::env) adds.
#[derive(Clone, Debug, Default)]
pub struct SpawnOptions {
    binary: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    flags: Vec<(&'static str, OsString)>,
    client: ClientOptions,
}

/// How much a sidecar logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// Faults.
    Error,
    /// What an operator should know as well.
    Warn,
    /// What it does at large.
    Info,
    /// What it does.
    Debug,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

impl SpawnOptions {
    /// Everything as configured elsewhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program. If it is named, no other is tried.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// An environment variable for the sidecar.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A configuration file.
    #[must_use]
    pub fn config_file(self, path: impl Into<PathBuf>) -> Self {
        self.flag("--config", path.into())
    }

    /// What the client does by itself: queueing, shared memory, restarts.
    #[must_use]
    pub fn client(mut self, options: ClientOptions) -> Self {
        self.client = options;
        self
    }

    /// When the next sidecar is started after one that has ended. The same as in [`client`](Self::client).
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.client = self.client.restart(policy);
        self
    }

    pub(crate) fn client_options(&self) -> ClientOptions {
        self.client
    }

    pub(crate) fn flag(mut self, flag: &'static str, value: impl Into<OsString>) -> Self {
        // The last value counts, as everybody expects of a builder; the program refuses a flag that is there twice.
        self.flags.retain(|(set, _)| *set != flag);
        self.flags.push((flag, value.into()));
        self
    }

    /// The command line, with descriptor `fd` as the connection, and the program's path.
    pub(crate) fn command(&self, fd: i32) -> Result<(Command, PathBuf), StartError> {
        let program = Search::of_this_process(self.binary.clone()).find()?;
        let mut command = Command::new(&program);
        command.arg("serve").arg("--fd").arg(fd.to_string());
        for (flag, value) in &self.flags {
            // in one, so that a value that begins with a dash is no flag
            let mut whole = OsString::from(format!("{flag}="));
            whole.push(value);
            command.arg(whole);
        }
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok((command, program))
    }
}

fn is_inherited(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_kebab_case_flags() {
        let options = SpawnOptions::new().binary("/bin/sh").max_instances(9).max_instances(4).debug(true);
        let options = options.cache_dir("--help").log_level(LogLevel::Warn);
        let (command, _) = options.command(3).unwrap();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(
            args,
            ["serve", "--fd", "3", "--max-instances=4", "--debug=true", "--cache-dir=--help", "--log=warn"]
        );
    }

    #[test]
    fn secrets_of_the_environment_are_not_passed_on() {
        assert!(is_inherited(OsStr::new("NEXUS_TIMEOUT_MS")) && is_inherited(OsStr::new("PATH")));
        assert!(!is_inherited(OsStr::new("AWS_SECRET_ACCESS_KEY")) && !is_inherited(OsStr::new("PATHS")));
    }
}
