//! Build-time patches of QuickJS-ng: files of `sidecar/guest/patches`, applied in the order of their names.
//!
//! A patch replaces one piece of text, the anchor, that must occur exactly once; so it does not silently miss its place when
//! QuickJS changes. Its form:
//! ```text
//! file: quickjs.c
//! why: any text, over as many lines as it takes
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

/// One patch.
#[derive(Debug)]
pub struct Patch {
    /// Its file name, for messages.
    pub name: String,
    /// The text of the patch file, for the digest.
    pub text: String,
    file: String,
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
        let (anchor, replacement) = rest.split_once(REPLACEMENT).context("it has no line `---- replacement`")?;
        let file = head.lines().find_map(|line| line.strip_prefix("file: ")).context("it has no line `file: `")?;
        if !head.lines().any(|line| line.starts_with("why: ")) {
            bail!("it has no line `why: `");
        }
        if anchor.trim().is_empty() {
            bail!("its anchor is empty");
        }
        let (file, anchor, replacement) = (file.to_owned(), anchor.to_owned(), replacement.to_owned());
        Ok(Self { name: name.to_owned(), text, file, anchor, replacement })
    }

    /// Applies it to the source's files.
    pub fn apply(&self, files: &mut BTreeMap<String, String>) -> Result<()> {
        let text = files.get_mut(&self.file).with_context(|| format!("QuickJS-ng has no file {}", self.file))?;
        let found = text.matches(&self.anchor).count();
        if found != 1 {
            bail!(
                "the patch {} does not fit: its anchor occurs {found} times in {}, not once. \
                 QuickJS-ng has changed there; read its new code and renew the anchor",
                self.name,
                self.file
            );
        }
        *text = text.replace(&self.anchor, &self.replacement);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "file: a.c\nwhy: a test\n---- anchor\nint f(void)\n{\n---- replacement\nint f(void)\n{\n    g();\n";

    fn source(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("a.c".to_owned(), text.to_owned())])
    }

    #[test]
    fn an_anchor_that_occurs_once_is_replaced() {
        let patch = Patch::parse("p", TEXT.to_owned()).unwrap();
        let mut files = source("int f(void)\n{\n    return 1;\n}\n");
        patch.apply(&mut files).unwrap();
        assert_eq!(files["a.c"], "int f(void)\n{\n    g();\n    return 1;\n}\n");
    }

    #[test]
    fn an_anchor_that_is_gone_or_ambiguous_is_an_error() {
        let patch = Patch::parse("p", TEXT.to_owned()).unwrap();
        for text in ["int h(void)\n{\n}\n", "int f(void)\n{\n}\nint f(void)\n{\n}\n"] {
            let mut files = source(text);
            assert!(patch.apply(&mut files).is_err());
            assert_eq!(files["a.c"], text, "a patch that does not fit changes nothing");
        }
    }

    #[test]
    fn a_patch_without_a_reason_is_refused() {
        assert!(Patch::parse("p", TEXT.replace("why: ", "")).is_err());
    }
}
