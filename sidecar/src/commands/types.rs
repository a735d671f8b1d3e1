//! `check --types`: what a handler finds by name, as TypeScript declares it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value as Json;

use super::fixtures::Fixtures;
use super::input::{InputError, read_json};
use crate::cli::JsonSource;

/// The same file that the client's package has for editors.
const NAMES: &str = include_str!("../../../client-node/handler.d.ts");

/// The declarations, with the extensions that answers are given for.
pub(super) fn declarations(extensions: Option<&JsonSource>, max_bytes: u64) -> Result<String, InputError> {
    let mut out = NAMES.to_owned();
    let Some(source) = extensions else { return Ok(out) };
    let json = read_json("--ext", source, max_bytes)?;
    let methods = methods(&json);
    // refuses what the file would be refused for when a handler is run with it
    Fixtures::from_json(json.clone())?;
    out.push_str("\n/** Of the answers that were given with --ext. */\ninterface NexusExtensions {\n");
    for (extension, methods) in methods {
        let _ = writeln!(out, "  readonly {}: {{", Json::from(extension));
        for method in methods {
            let _ = writeln!(out, "    {}(...args: any[]): any;", Json::from(method));
        }
        out.push_str("  };\n");
    }
    out.push_str("}\n");
    Ok(out)
}

/// By extension; those that are said not to exist are left out.
fn methods(json: &Json) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, answers) in json.as_object().into_iter().flatten() {
        if let (Some((extension, method)), true) = (name.split_once('.'), answers.is_array()) {
            found.entry(extension).or_default().push(method);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_declared_and_extensions_of_a_fixture_too() {
        let plain = declarations(None, 100).unwrap();
        for name in ["$state", "$args", "$scope", "$emit", "$view", "$ext", "$log", "$time"] {
            assert!(plain.contains(&format!("declare const {name}: ")), "{name}");
        }
        let fixtures = JsonSource::Inline(json!({"http.get": [1], "http.post": [2], "a\"b.c": [3], "mail": false}));
        let text = declarations(Some(&fixtures), 100).unwrap();
        let expected = "interface NexusExtensions {\n  readonly \"a\\\"b\": {\n    \"c\"(...args: any[]): any;\n  };\n  \
                        readonly \"http\": {\n    \"get\"(...args: any[]): any;\n    \"post\"(...args: any[]): any;\n  };\n}\n";
        assert!(text.starts_with(&plain) && text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_fixture_that_could_not_be_run_is_refused_here_too() {
        let error = declarations(Some(&JsonSource::Inline(json!({"http.get": 7}))), 100).unwrap_err();
        assert!(error.to_string().contains("http.get"), "{error}");
    }
}
