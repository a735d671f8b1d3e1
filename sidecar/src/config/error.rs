//! What can be wrong with a configuration. Every error names the key, the value and where it came from.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::effective::Origin;
use super::value::{Amount, Problem};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("{key} = {value:?} ({origin}): {problem}")]
    Value { key: &'static str, value: String, origin: Origin, problem: Problem },
    #[error("{key:?} ({origin}): there is no such setting{}", suggest(*.suggestion))]
    UnknownKey { key: String, origin: Origin, suggestion: Option<&'static str> },
    #[error("{small_key} = {small} ({small_origin}) must not be more than {large_key} = {large} ({large_origin})")]
    Order {
        small_key: &'static str,
        small: Amount,
        small_origin: Box<Origin>,
        large_key: &'static str,
        large: Amount,
        large_origin: Box<Origin>,
    },
    #[error(
        "httpListen = {endpoint} ({origin}): other machines reach this address, and whoever reaches it reads the metrics: take one of this machine, such as 127.0.0.1:9090, or set httpAllowRemote = true"
    )]
    Remote { endpoint: String, origin: Box<Origin> },
    #[error("{first} and {second} set the same thing ({key}): unset one of them")]
    Twice { key: &'static str, first: String, second: &'static str },
    #[error("{}: cannot read the configuration file: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: the configuration file is larger than {max_bytes} bytes", .path.display())]
    TooLong { path: PathBuf, max_bytes: u64 },
    #[error("{}:{line}: not TOML: {message}", .path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
}

/// Everything that is wrong with one configuration, at least one entry, in the order of the sources.
#[derive(Debug)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

fn suggest(suggestion: Option<&'static str>) -> String {
    suggestion.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}
