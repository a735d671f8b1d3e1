//! Build-time patches of QuickJS-ng: files of `sidecar/guest/patches`, applied in the order of their names. One file is one concern.
//!
//! A patch replaces pieces of text, the anchors, each of which must occur exactly once; so it does not silently miss its place
//! when QuickJS changes. Its form, where the part from `---- anchor` on may be repeated:
//! ```text
//! file: quickjs.c
//! why: any text, over as many lines as it takes
//! test: what fails without it
//! upstream: whether QuickJS-ng has it
//! ---- anchor
//! text to find
//! ---- replacement
//! text to put there
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const ANCHOR: &str = "---- anchor\n";
const REPLACEMENT: &str = "---- replacement\n";
/// What the head of a patch tells.
const TOLD: [&str; 3] = ["why: ", "test: ", "upstream: "];

/// One patch.
#[derive(Debug)]
pub struct Patch {
    /// Its file name, for messages.
    pub name: String,
    /// The text of the patch file, for the digest.
    pub text: String,
    /// What its head tells of tests.
    pub tests: String,
    file: String,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    anchor: String,
    replacement: String,
}

/// Reads all patches of a directory.
pub fn read(directory: &Path) -> Result<Vec<Patch>> {
    let mut patches = Vec::new();
    if !directory.is_dir() {
        return Ok(patches);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path)?;
            patches.push(Patch::parse(&name, text).with_context(|| format!("the patch {name} is malformed"))?);
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(patches)
}

impl Patch {
    fn parse(name: &str, text: String) -> Result<Self> {
        let (head, rest) = text.split_once(ANCHOR).context("it has no line `---- anchor`")?;
        let file = head.lines().find_map(|line| line.strip_prefix("file: ")).context("it has no line `file: `")?;
        if let Some(missing) = TOLD.iter().find(|told| !head.lines().any(|line| line.starts_with(**told))) {
            bail!("it has no line `{missing}`");
        }
        let changes: Result<Vec<Change>> = rest.split(ANCHOR).map(Change::parse).collect();
        let tests = head.split_once("\ntest: ").and_then(|(_, rest)| Some(rest.split_once("\nupstream: ")?.0));
        let (file, tests, changes) = (file.to_owned(), tests.unwrap_or_default().to_owned(), changes?);
        Ok(Self { name: name.to_owned(), text, tests, file, changes })
    }

    /// Applies it to the source's files, or changes nothing.
    pub fn apply(&self, files: &mut BTreeMap<String, String>) -> Result<()> {
        let text = files.get_mut(&self.file).with_context(|| format!("QuickJS-ng has no file {}", self.file))?;
        let mut patched = text.clone();
        for Change { anchor, replacement } in &self.changes {
            let found = patched.matches(anchor).count();
            if found != 1 {
                bail!(
                    "the patch {} does not fit: an anchor occurs {found} times in {}, not once. \
                     QuickJS-ng has changed there; read its new code and renew the anchor:\n{anchor}",
                    self.name,
                    self.file
                );
            }
            patched = patched.replace(anchor, replacement);
        }
        *text = patched;
        Ok(())
    }
}

impl Change {
    fn parse(text: &str) -> Result<Self> {
        let (anchor, replacement) = text.split_once(REPLACEMENT).context("it has no line `---- replacement`")?;
        if anchor.trim().is_empty() {
            bail!("its anchor is empty");
        }
        Ok(Self { anchor: anchor.to_owned(), replacement: replacement.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "file: a.c\nwhy: a test\ntest: this one\nupstream: no\n";
    const CHANGE: &str = "---- anchor\nint f(void)\n{\n---- replacement\nint f(void)\n{\n    g();\n";

    fn parsed(changes: &str) -> Patch {
        Patch::parse("p", format!("{HEAD}{changes}")).unwrap()
    }

    fn source(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("a.c".to_owned(), text.to_owned())])
    }

    #[test]
    fn an_anchor_that_occurs_once_is_replaced() {
        let patch = parsed(CHANGE);
        let mut files = source("int f(void)\n{\n    return 1;\n}\n");
        patch.apply(&mut files).unwrap();
        assert_eq!(files["a.c"], "int f(void)\n{\n    g();\n    return 1;\n}\n");
    }

    #[test]
    fn an_anchor_that_is_gone_or_ambiguous_is_an_error() {
        let patch = parsed(CHANGE);
        for text in ["int h(void)\n{\n}\n", "int f(void)\n{\n}\nint f(void)\n{\n}\n"] {
            let mut files = source(text);
            assert!(patch.apply(&mut files).is_err());
            assert_eq!(files["a.c"], text, "a patch that does not fit changes nothing");
        }
    }

    #[test]
    fn all_anchors_of_a_patch_are_replaced_or_none() {
        let patch = parsed(&format!("{CHANGE}---- anchor\nreturn 1;\n---- replacement\nreturn 2;\n"));
        let mut files = source("int f(void)\n{\n    return 1;\n}\n");
        patch.apply(&mut files).unwrap();
        assert_eq!(files["a.c"], "int f(void)\n{\n    g();\n    return 2;\n}\n");
        let text = "int f(void)\n{\n    return 3;\n}\n";
        let mut files = source(text);
        assert!(patch.apply(&mut files).is_err());
        assert_eq!(files["a.c"], text);
    }

    #[test]
    fn a_patch_that_does_not_say_why_is_refused() {
        for told in TOLD {
            assert!(Patch::parse("p", format!("{HEAD}{CHANGE}").replace(told, "")).is_err(), "{told}");
        }
    }
}
