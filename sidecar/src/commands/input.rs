//! What the one-handler commands read: the handler, and values given as JSON.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::json;
use crate::cli::{JsonSource, Script};
use crate::error::StartError;
use crate::exit::ExitCode;

/// An input could not be read or makes no sense. `what` is the flag or argument.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    #[error("{what}: cannot read {name}: {source}")]
    Unreadable { what: &'static str, name: String, source: io::Error },
    #[error("{what}: {name} is longer than {max_bytes} bytes")]
    TooLong { what: &'static str, name: String, max_bytes: u64 },
    #[error("{what}: {} is no good JSON: {source}", .path.display())]
    NotJson { what: &'static str, path: PathBuf, source: serde_json::Error },
    #[error("{what} must be a JSON object")]
    NotAnObject { what: &'static str },
    #[error("--ext: the answers of {name:?} must be an array")]
    NotAnswers { name: String },
    #[error("--ext: {name:?} is not the name of an extension method, such as \"http.get\"")]
    NotAMethod { name: String },
    #[error("--ext: {place} {problem}")]
    BadFixture { place: String, problem: String },
    #[error("--grant {token}: {source}")]
    NotACapability { token: String, source: nexus_protocol::CapabilityError },
    #[error("{what}: {source}")]
    NotMessagePack { what: &'static str, source: rmp_serde::encode::Error },
}

impl From<InputError> for StartError {
    fn from(error: InputError) -> Self {
        Self::Command { source: Box::new(error), code: ExitCode::Usage }
    }
}

/// The source of the handler; `max_bytes` is the sidecar's own bound, so no more is ever read.
pub fn read_script(script: &Script, max_bytes: u64) -> Result<String, InputError> {
    match script {
        Script::Stdin => read("FILE", "standard input", io::stdin().lock(), max_bytes),
        Script::File(path) => read_file("FILE", path, max_bytes),
        Script::Text(text) => read("--eval", "the handler", text.as_bytes(), max_bytes),
    }
}

/// The JSON of a flag, from the line or from the file that it names.
pub fn read_json(what: &'static str, source: &JsonSource, max_bytes: u64) -> Result<Json, InputError> {
    match source {
        JsonSource::Inline(value) => Ok(value.clone()),
        JsonSource::File(path) => json::from_str(&read_file(what, path, max_bytes)?)
            .map_err(|source| InputError::NotJson { what, path: path.clone(), source }),
    }
}

/// The same as a payload.
pub fn read_payload(what: &'static str, source: &JsonSource, max_bytes: u64) -> Result<Vec<u8>, InputError> {
    let value = read_json(what, source, max_bytes)?;
    rmp_serde::to_vec(&value).map_err(|source| InputError::NotMessagePack { what, source })
}

/// The same for values that must be objects.
pub fn read_object_payload(what: &'static str, source: &JsonSource, max_bytes: u64) -> Result<Vec<u8>, InputError> {
    let value = read_json(what, source, max_bytes)?;
    if !value.is_object() {
        return Err(InputError::NotAnObject { what });
    }
    rmp_serde::to_vec(&value).map_err(|source| InputError::NotMessagePack { what, source })
}

fn read_file(what: &'static str, path: &Path, max_bytes: u64) -> Result<String, InputError> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => read(what, &name, file, max_bytes),
        Err(source) => Err(InputError::Unreadable { what, name, source }),
    }
}

fn read(what: &'static str, name: &str, from: impl Read, max_bytes: u64) -> Result<String, InputError> {
    let mut text = String::new();
    from.take(max_bytes.saturating_add(1)).read_to_string(&mut text).map_err(|source| InputError::Unreadable {
        what,
        name: name.to_owned(),
        source,
    })?;
    if text.len() as u64 > max_bytes {
        return Err(InputError::TooLong { what, name: name.to_owned(), max_bytes });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_file_is_named_with_its_flag() {
        let error = read_json("--state", &JsonSource::File("/nonexistent.json".into()), 10).unwrap_err();
        assert!(error.to_string().starts_with("--state: cannot read /nonexistent.json: "), "{error}");
    }

    #[test]
    fn no_more_than_the_bound_is_read() {
        assert_eq!(read("FILE", "x", &b"1234"[..], 4).unwrap(), "1234");
        let error = read("FILE", "x", io::repeat(b'a'), 4).unwrap_err();
        assert_eq!(error.to_string(), "FILE: x is longer than 4 bytes");
    }

    #[test]
    fn payloads_are_messagepack() {
        let source = JsonSource::Inline(json!({"a": [1, -1, 0.5, "x", null, true]}));
        let payload = read_object_payload("--state", &source, 0).unwrap();
        let back: Json = rmp_serde::from_slice(&payload).unwrap();
        assert_eq!(back, json!({"a": [1, -1, 0.5, "x", null, true]}));
        let error = read_object_payload("--state", &JsonSource::Inline(json!([])), 0).unwrap_err();
        assert_eq!(error.to_string(), "--state must be a JSON object");
    }
}
