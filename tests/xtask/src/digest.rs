//! SHA-256 over named inputs, and over files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The digest of everything that an artifact is made from. Each input is framed by its lengths, so that two lists of
/// inputs never run into the same bytes.
pub struct Inputs(Sha256);

impl Inputs {
    pub fn new(domain: &str) -> Self {
        let mut inputs = Self(Sha256::new());
        inputs.add("domain", domain.as_bytes());
        inputs
    }

    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update((name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

pub fn of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
