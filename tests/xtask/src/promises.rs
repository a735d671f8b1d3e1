//! The promises of SPEC.md, and the tests that show them.
//!
//! A sentence that promises behaviour ends in its name, `[P-one-answer]`. A test that shows it has a comment above it,
//! `// shows P-one-answer, P-any-order`, in Rust and in TypeScript.
//!
//! Invariants: every promise has a name of its own; a test names no promise that is not there; the number of promises that
//! no test shows does not grow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

const SPEC: &str = "protocol/SPEC.md";

/// Where tests are.
const TESTS: [&str; 6] =
    ["protocol/src", "protocol/tests", "sidecar/src", "client-rust/tests", "client-node/test", "tests/tests"];

/// Promises that no test shows. Whoever lowers the number changes it here; nobody raises it.
const UNSHOWN: usize = 0;

/// Where in the text of which file something stands.
type Place = (PathBuf, usize);

/// Lists the promises without a test; an error when there are more than there may be, or when names do not agree.
pub fn look(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(SPEC)).with_context(|| format!("cannot read {SPEC}"))?;
    let promises = promised(&text)?;
    let mut shown: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for file in TESTS.iter().map(|folder| files(&root.join(folder))).collect::<Result<Vec<_>>>()?.concat() {
        let text = fs::read_to_string(&file)?;
        let path = file.strip_prefix(root).unwrap_or(&file).to_owned();
        for (name, line) in named(&text).with_context(|| path.display().to_string())? {
            ensure!(promises.contains_key(&name), "{}:{line}: {SPEC} has no promise {name}", path.display());
            shown.entry(name).or_default().push((path.clone(), line));
        }
    }
    let tests: usize = shown.values().map(Vec::len).sum();
    let unshown: Vec<_> = promises.iter().filter(|(name, _)| !shown.contains_key(*name)).collect();
    println!("{} promises, of which tests show {}, in {tests} places", promises.len(), shown.len());
    for (name, line) in &unshown {
        println!("{SPEC}:{line}: no test shows {name}");
    }
    match unshown.len() {
        UNSHOWN => Ok(()),
        more if more > UNSHOWN => bail!("no test shows {more} promises, and there may be {UNSHOWN} of these"),
        fewer => bail!("no test shows {fewer} promises: lower the number in tests/xtask/src/promises.rs"),
    }
}

/// The names in the specification, and the line of each.
fn promised(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut promises = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        for part in line.split("[P-").skip(1) {
            let name = part.split_once(']').map(|(name, _)| format!("P-{name}"));
            let Some(name) = name.filter(|name| is_name(name)) else {
                bail!("{SPEC}:{}: a promise is named like [P-one-answer]", at + 1);
            };
            if let Some(first) = promises.insert(name.clone(), at + 1) {
                bail!("{SPEC}:{}: {name} is promised in line {first} too", at + 1);
            }
        }
    }
    Ok(promises)
}

/// The names above tests, and the line of each.
fn named(text: &str) -> Result<Vec<(String, usize)>> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(names) = line.strip_prefix("// shows ").filter(|names| names.starts_with("P-")) else { continue };
        let above = lines[at + 1..].iter().find(|line| !line.starts_with("//") && !line.starts_with("#["));
        let is_test = above.is_some_and(|line| line.starts_with("test(") || line.contains("fn "))
            && (text.contains("#[test]") || text.contains("test(") || text.contains("proptest!"));
        ensure!(is_test, "line {}: no test is below this", at + 1);
        for name in names.split(", ") {
            ensure!(is_name(name), "line {}: `{name}` is no name of a promise", at + 1);
            found.push((name.to_owned(), at + 1));
        }
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    name.strip_prefix("P-").is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_letter))
}

/// Every Rust and TypeScript file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "ts") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_found_by_their_lines_and_each_is_made_once() {
        let promises = promised("One. [P-one]\n\nTwo [P-two], three. [P-3]").unwrap();
        assert_eq!(
            promises.into_iter().collect::<Vec<_>>(),
            [("P-3".into(), 3), ("P-one".into(), 1), ("P-two".into(), 3)]
        );
        assert!(
            promised("[P-one]\n[P-one]").unwrap_err().to_string().contains("SPEC.md:2: P-one is promised in line 1")
        );
        assert!(promised("[P-One]").is_err());
    }

    #[test]
    fn a_name_stands_above_a_test() {
        let rust = "// shows P-one, P-two\n#[test]\nfn it_is() {}";
        assert_eq!(named(rust).unwrap(), [("P-one".to_owned(), 1), ("P-two".to_owned(), 1)]);
        assert_eq!(named("// shows P-one\ntest('it is', () => {});").unwrap().len(), 1);
        assert!(named("// shows P-one\nconst X: u8 = 1;\n#[test]").is_err());
        assert!(named("// shows P-one P-two\n#[test]\nfn it_is() {}").is_err());
        assert!(named("// shows how it is\nconst X: u8 = 1;").unwrap().is_empty());
    }
}
