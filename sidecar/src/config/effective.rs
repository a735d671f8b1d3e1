//! The configuration that is in force, with the source of every value; what `--check-config` prints.

use std::fmt::{self, Write};
use std::path::PathBuf;

use super::Config;
use super::settings::SETTINGS;
use super::value::Kind;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Env(String),
    Flag(String),
    /// Of a sidecar that serves: what it was started with, whatever the sources say now.
    Start,
}

/// A whole configuration, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Beside `SETTINGS`, entry for entry.
    pub(super) origins: Vec<Origin>,
    /// For the log: nothing that keeps the sidecar from starting.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The effective configuration as a file that would give it, each value with its source behind it.
    pub fn describe(&self) -> String {
        let mut config = self.config.clone();
        let mut out = String::new();
        for (setting, origin) in SETTINGS.iter().zip(&self.origins) {
            let place = (setting.place)(&mut config);
            let (value, words) = (place.to_toml(setting.kind), place.to_words(setting.kind));
            let entry = format!("{} = {value}", setting.key);
            let words = if matches!(setting.kind, Kind::Bytes { .. }) { format!("{words}, ") } else { String::new() };
            let _ = writeln!(out, "{entry:<40} # {words}{origin}");
        }
        out
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let index = SETTINGS.iter().position(|setting| setting.key == key)?;
        self.origins.get(index)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Start => f.write_str("until the next start"),
        }
    }
}
