//! The guest's modules, byte for byte: `sidecar/guest/modules.json` says what they are, and every machine that builds them from the
//! same sources with the same tools has to come to the same. So who reads the sources can tell that a module is made of them.
//!
//! The native code is not in it: it depends on the processor that it is made for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::places::{Places, write_if_changed};
use crate::stages::{advise, note};

const FILE: &str = "sidecar/guest/modules.json";
/// Beside the other links to what was built.
const BUILT: &str = "guest/modules.json";

/// Of one build of all modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modules {
    /// The tools, by package, with their versions.
    pub tools: BTreeMap<String, String>,
    /// By file name.
    pub modules: BTreeMap<String, Module>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Digest of sources, patches and recipe.
    pub sources_sha256: String,
    pub sha256: String,
}

/// How a build compares with what is recorded.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    /// Other sources: modules whose record is out of date, or missing.
    Older(Vec<String>),
    /// Other tools, whose output may differ: what they are called.
    OtherTools(Vec<String>),
    /// The same sources and tools, and another module.
    Differs(Vec<String>),
}

fn compare(recorded: &Modules, built: &Modules) -> Comparison {
    let named = |differs: &dyn Fn(&Module, &Module) -> bool| -> Vec<String> {
        let of_built = built
            .modules
            .iter()
            .filter(|(name, now)| recorded.modules.get(*name).is_none_or(|then| differs(then, now)));
        let gone = recorded.modules.keys().filter(|name| !built.modules.contains_key(*name));
        of_built.map(|(name, _)| name).chain(gone).cloned().collect()
    };
    let older = named(&|then, now| then.sources_sha256 != now.sources_sha256);
    if !older.is_empty() {
        return Comparison::Older(older);
    }
    let others: Vec<String> = built
        .tools
        .iter()
        .filter(|(name, version)| recorded.tools.get(*name) != Some(version))
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    if !others.is_empty() {
        return Comparison::OtherTools(others);
    }
    let differs = named(&|then, now| then.sha256 != now.sha256);
    if differs.is_empty() { Comparison::Same } else { Comparison::Differs(differs) }
}

/// Leaves what was built where `check` and `record` find it.
pub fn leave(places: &Places, built: &Modules) -> Result<()> {
    write_if_changed(&places.links.join(BUILT), &text(built)?)
}

/// Compares the modules that were built last with the record. An older record is an error where `strict`.
pub fn check(places: &Places, strict: bool) -> Result<()> {
    let (recorded, built) = (read(&places.root.join(FILE))?, read(&places.links.join(BUILT))?);
    match compare(&recorded, &built) {
        Comparison::Same => note("its modules are the recorded ones, byte for byte"),
        Comparison::Older(names) if strict => {
            let what = format!("{FILE} is of other sources than these of {}", names.join(", "));
            return Err(advise(what, "run `cargo xtask guest --record`, and commit the file"));
        }
        Comparison::Older(_) => {
            note(format!("{FILE} is of other sources: `cargo xtask guest --record` writes it anew"))
        }
        Comparison::OtherTools(tools) => {
            let tools = tools.join(", ");
            note(format!(
                "its modules are not compared with the recorded ones, which other tools have made than {tools}"
            ));
        }
        Comparison::Differs(names) => bail!(
            "{} came out different from what {FILE} records of the same sources and tools: the build depends on something else, \
             or its output was changed",
            names.join(", ")
        ),
    }
    Ok(())
}

/// Makes what was built last the record.
pub fn record(places: &Places) -> Result<()> {
    write_if_changed(&places.root.join(FILE), &text(&read(&places.links.join(BUILT))?)?)?;
    note(format!("{FILE} is of this build"));
    Ok(())
}

fn text(modules: &Modules) -> Result<String> {
    Ok(serde_json::to_string_pretty(modules)? + "\n")
}

fn read(path: &Path) -> Result<Modules> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what was written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(sources: &str, sha256: &str, clang: &str) -> Modules {
        let module = Module { sources_sha256: sources.into(), sha256: sha256.into() };
        Modules {
            tools: BTreeMap::from([("clang".into(), clang.into())]),
            modules: BTreeMap::from([("a.wasm".into(), module)]),
        }
    }

    #[test]
    fn the_same_sources_and_tools_have_to_come_to_the_same_module() {
        let recorded = modules("s", "m", "16");
        assert_eq!(compare(&recorded, &recorded), Comparison::Same);
        assert_eq!(compare(&recorded, &modules("s", "other", "16")), Comparison::Differs(vec!["a.wasm".into()]));
        assert_eq!(compare(&recorded, &modules("s", "other", "17")), Comparison::OtherTools(vec!["clang 17".into()]));
        assert_eq!(compare(&recorded, &modules("s2", "m", "16")), Comparison::Older(vec!["a.wasm".into()]));
        let none = Modules { modules: BTreeMap::new(), ..recorded.clone() };
        assert_eq!(compare(&recorded, &none), Comparison::Older(vec!["a.wasm".into()]));
        assert_eq!(compare(&none, &recorded), Comparison::Older(vec!["a.wasm".into()]));
    }
}
