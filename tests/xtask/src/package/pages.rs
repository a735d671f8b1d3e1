//! Manual page and completions, made of what the program itself says of its commands.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::quiet;

/// A command of the program, and the help text of it.
pub struct Page {
    pub name: String,
    help: String,
}

/// Of the program in general, with an empty name, and of each of its commands.
pub fn read(program: &Path) -> Result<Vec<Page>> {
    let help = |words: &[&str]| quiet("asking for help", Command::new(program).args(words).arg("--help"));
    let general = help(&[])?;
    let mut pages = Vec::new();
    for name in commands(&general) {
        pages.push(Page { help: help(&[&name])?, name });
    }
    pages.insert(0, Page { name: String::new(), help: general });
    Ok(pages)
}

/// The commands that a general help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let entries = listed.take_while(|line| line.starts_with("  "));
    entries
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The long flags that a help text has, in its order.
fn flags(help: &str) -> Vec<&str> {
    let mut flags = Vec::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        let words = line.split([' ', ',', '[', '=']);
        flags.extend(words.filter(|word| word.strip_prefix("--").is_some_and(|name| !name.is_empty())));
    }
    flags.dedup();
    flags
}

/// nexus-sidecar(1).
pub fn manual(pages: &[Page], version: &str) -> String {
    let mut text = format!(
        ".TH NEXUS-SIDECAR 1 \"\" \"nexus-sidecar {version}\"\n.SH NAME\nnexus-sidecar \\- a sandbox for untrusted JavaScript handlers\n"
    );
    for page in pages {
        let title = if page.name.is_empty() { "DESCRIPTION".to_owned() } else { page.name.to_uppercase() };
        text.push_str(&format!(".SH \"{title}\"\n.nf\n"));
        for line in page.help.lines() {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            // A line that begins so would be a request to the formatter.
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            text.push_str(&format!("{guard}{line}\n"));
        }
        text.push_str(".fi\n");
    }
    text
}

pub fn bash(pages: &[Page]) -> String {
    let mut cases = String::new();
    for page in pages.iter().filter(|page| !page.name.is_empty()) {
        cases.push_str(&format!("    {}) words='{}' ;;\n", page.name, flags(&page.help).join(" ")));
    }
    let general = pages.first().map(|page| words(pages, page).join(" ")).unwrap_or_default();
    format!(
        "_nexus_sidecar() {{\n  local words='{general}'\n  case \"${{COMP_WORDS[1]}}\" in\n{cases}  esac\n  \
         [ \"$COMP_CWORD\" -gt 1 ] || words='{general}'\n  \
         mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\")\n}}\n\
         complete -o default -F _nexus_sidecar nexus-sidecar\n"
    )
}

pub fn zsh(pages: &[Page]) -> String {
    let mut cases = String::new();
    for page in pages.iter().filter(|page| !page.name.is_empty()) {
        cases.push_str(&format!("  {}) compadd -- {} ;;\n", page.name, flags(&page.help).join(" ")));
    }
    let general = pages.first().map(|page| words(pages, page).join(" ")).unwrap_or_default();
    format!(
        "#compdef nexus-sidecar\nif (( CURRENT == 2 )); then\n  compadd -- {general}\n  return\nfi\ncase ${{words[2]}} in\n{cases}esac\n_files\n"
    )
}

pub fn fish(pages: &[Page]) -> String {
    let mut text = String::new();
    for page in pages {
        let (when, words) = if page.name.is_empty() {
            ("__fish_use_subcommand".to_owned(), words(pages, page))
        } else {
            (format!("__fish_seen_subcommand_from {}", page.name), flags(&page.help))
        };
        for word in words {
            let word = word.strip_prefix("--").map_or_else(|| format!("-f -a {word}"), |flag| format!("-l {flag}"));
            text.push_str(&format!("complete -c nexus-sidecar -n '{when}' {word}\n"));
        }
    }
    text
}

/// What may stand first: commands, and the flags of the program in general.
fn words<'a>(pages: &'a [Page], general: &'a Page) -> Vec<&'a str> {
    let commands = pages.iter().map(|page| page.name.as_str()).filter(|name| !name.is_empty());
    commands.chain(flags(&general.help)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERAL: &str = "A sandbox\n\nCommands:\n  serve  Serve\n  run    Run\n         longer\n  help   Help\n\nOptions:\n  -V, --version  Tell\n      --check-config[=X]\n";

    #[test]
    fn commands_and_flags_are_those_of_the_help_texts() {
        assert_eq!(commands(GENERAL), ["serve", "run"]);
        assert_eq!(flags(GENERAL), ["--version", "--check-config"]);
    }

    #[test]
    fn no_line_of_a_help_text_is_a_request_to_the_formatter() {
        let page = Page { name: String::new(), help: ".so /etc/passwd\n'x\na-b\\n\n".into() };
        let manual = manual(&[page], "1");
        assert!(manual.contains("\\&.so /etc/passwd\n\\&'x\na\\-b\\en\n"), "{manual}");
    }
}
