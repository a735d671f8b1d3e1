//! `protocol/schema.toml` and what is written from it.
//!
//! ```text
//!  schema.toml -> model (read, checked) -> rust, typescript, spec (text) -> files, or a list of those that differ
//! ```
//!
//! Invariants: what is written depends on the schema alone; a file is either written whole, with a head that says so, or
//! is SPEC.md, in which only what stands between two marks is written.

mod model;
mod rust;
mod rust_maps;
mod spec;
mod typescript;
mod typescript_maps;
mod wire;
mod words;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::model::Schema;
use crate::stages::note;

const SCHEMA: &str = "protocol/schema.toml";

/// The text of a file as it should be.
struct Output {
    path: &'static str,
    text: String,
}

/// Writes what differs.
pub fn generate(root: &Path) -> Result<()> {
    for output in differing(root)? {
        fs::write(root.join(output.path), output.text).with_context(|| format!("cannot write {}", output.path))?;
        note(format!("wrote {}", output.path));
    }
    Ok(())
}

/// Fails if a file is not as the schema says, and names each.
pub fn check(root: &Path) -> Result<()> {
    let differing = differing(root)?;
    if differing.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for output in differing {
        let found = fs::read_to_string(root.join(output.path)).unwrap_or_default();
        let line = first_difference(&found, &output.text);
        text.push_str(&format!("\n  {}:{line}", output.path));
    }
    bail!("not as {SCHEMA} says, from these lines on; run `cargo xtask generate`:{text}");
}

fn differing(root: &Path) -> Result<Vec<Output>> {
    let text = fs::read_to_string(root.join(SCHEMA)).with_context(|| format!("cannot read {SCHEMA}"))?;
    let schema = Schema::read(&text).map_err(|problem| anyhow::anyhow!("{SCHEMA}:{problem}"))?;
    let mut outputs = rust::files(&schema, root)?;
    outputs.extend(typescript::files(&schema));
    outputs.push(spec::file(&schema, root)?);
    outputs.retain(|output| fs::read_to_string(root.join(output.path)).ok().as_deref() != Some(&output.text));
    Ok(outputs)
}

/// The first line, from 1, in which two texts differ.
fn first_difference(left: &str, right: &str) -> usize {
    1 + left.lines().zip(right.lines()).take_while(|(left, right)| left == right).count()
}
