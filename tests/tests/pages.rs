//! The pages of `sidecar/doc`: each block of code in them is run, and prints what stands under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nexus_tests::Watchdog;
use nexus_tests::process::{binary, command};
use nexus_tests::temp::TempDir;

/// A fenced block: what follows the fence, and the lines inside.
struct Block {
    page: String,
    line: usize,
    info: String,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), is_open) {
            (Some(info), false) => {
                let page = page.file_name().unwrap().to_string_lossy().into_owned();
                found.push(Block { page, line: index + 1, info: info.to_owned(), text: String::new() });
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => found.last_mut().unwrap().text.extend([line, "\n"]),
            (None, false) => {}
        }
    }
    assert!(!is_open, "{} ends within a block", page.display());
    found
}

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/doc");
    let mut pages: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

/// A shell whose search path begins with the sidecar.
fn shell(dir: &TempDir, line: &str) -> Output {
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("/bin/sh");
    let of_the_sidecar = command(dir.path());
    shell.env_clear().envs(of_the_sidecar.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-ec", line]).env("PATH", path).current_dir(dir.path()).output().unwrap()
}

#[test]
fn every_block_of_code_does_what_its_page_says() {
    let _w = Watchdog::seconds(300);
    let (mut handlers, mut scripts) = (0, 0);
    for page in pages() {
        let blocks = blocks(&page);
        for (index, block) in blocks.iter().enumerate() {
            let dir = TempDir::new();
            let place = format!("{}:{}", block.page, block.line);
            if let Some(flags) = block.info.strip_prefix("js handler") {
                fs::write(dir.join("code"), &block.text).unwrap();
                let output = shell(&dir, &format!("nexus-sidecar run{flags} -e \"$(cat code)\""));
                let printed = String::from_utf8_lossy(&output.stdout).into_owned();
                let shown: String =
                    printed.lines().filter(|line| !line.starts_with('(')).flat_map(|l| [l, "\n"]).collect();
                let said = blocks.get(index + 1).filter(|next| next.info == "text");
                let said = said.unwrap_or_else(|| panic!("{place}: nothing says what it prints"));
                assert_eq!(shown, said.text, "{place}: {}", String::from_utf8_lossy(&output.stderr));
                handlers += 1;
            } else if block.info == "sh" {
                let output = shell(&dir, &block.text);
                assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
                scripts += 1;
            } else {
                assert_eq!(block.info, "text", "{place}: a block of a kind that nobody runs");
            }
        }
    }
    assert!(handlers >= 7 && scripts >= 2, "{handlers} handlers, {scripts} scripts");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let more = ["README.md", ".github/SECURITY.md", "sidecar/deploy/README.md"].map(|page| root.join(page));
    let mut links = 0;
    for page in pages().into_iter().chain(more) {
        let text = fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|c| *c != ')').collect();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(page.parent().unwrap().join(path).exists(), "{} links to {target}", page.display());
            links += 1;
        }
    }
    assert!(links >= 8, "{links}");
}
