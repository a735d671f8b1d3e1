//! The tree in a root that has nothing else: no libc, no shell, no loader. What works there works anywhere; and what cannot work
//! says why. Short enough for every change.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::alone;
use super::root::{Ended, Mounted, Root};
use super::tree::{NAME, files_in};
use crate::places::remove;
use crate::stages::note;

pub const HANDLER: &str = "return 6 * 7";
const PROGRAM: &str = "/opt/nexus-sidecar/bin/nexus-sidecar";

/// What the launcher ends with; `ExitCode::EngineInit` of the sidecar.
const UNUSABLE: i32 = 5;

/// Tries all of it in `work`.
pub fn try_out(tree: &Path, work: &Path) -> Result<()> {
    let root = Root::new(&work.join("bare"))?.environment("NEXUS_CACHE_DIR", "none");
    root.put(tree, "/opt/nexus-sidecar")?;
    answers(&root, PROGRAM)?;
    by_links(&root)?;
    at_odd_places(&root, tree)?;
    with_libraries_of_others(&root)?;
    let root = damaged(root, tree)?;
    let root = misused(root)?;
    remove(&root.path)?;
    alone::try_out(tree, work)
}

/// It runs a handler.
pub fn answers(root: &Root, program: impl AsRef<OsStr>) -> Result<()> {
    let ended = root.must([program.as_ref(), "run".as_ref(), "-".as_ref()], HANDLER)?;
    ensure!(ended.out.starts_with("42"), "the handler returned {:?}", ended.out);
    Ok(())
}

/// A link to the launcher is as good as the launcher, however it is found.
fn by_links(root: &Root) -> Result<()> {
    fs::create_dir_all(root.inside("/usr/bin"))?;
    symlink("../../opt/nexus-sidecar/bin/nexus-sidecar", root.inside("/usr/bin/nexus-sidecar"))?;
    symlink("usr/bin/nexus-sidecar", root.inside("/other-name"))?;
    // By the search path, whose entry is a link to a folder.
    symlink("/opt/nexus-sidecar/bin", root.inside("/bin"))?;
    for program in ["/usr/bin/nexus-sidecar", "/other-name", "/bin/nexus-sidecar", "nexus-sidecar"] {
        answers(root, program)?;
    }
    note("links: found from any of them");
    Ok(())
}

/// Paths that a shell, a list of paths or a format would read as something else.
fn at_odd_places(root: &Root, tree: &Path) -> Result<()> {
    let long = format!("/{}", vec!["n".repeat(200); 15].join("/"));
    let names = [
        b"/a b".to_vec(),
        b"/a:b;c".to_vec(),
        b"/$ORIGIN".to_vec(),
        b"/%s\n\"'".to_vec(),
        b"/\xff\xfe".to_vec(),
        long.into_bytes(),
    ];
    for name in names {
        let place = OsString::from_vec(name);
        root.put(tree, &place)?;
        let program = Path::new(&place).join("bin").join(NAME);
        answers(root, &program).with_context(|| format!("at {}", program.display()))?;
        remove(&root.inside(&place))?;
    }
    remove(&root.inside(format!("/{}", "n".repeat(200))))?;
    note("paths with spaces, colons, dollar signs, line feeds, no UTF-8, and of 3,000 bytes: works");
    Ok(())
}

/// Neither what the environment names for other programs nor what stands beside the tree is loaded.
fn with_libraries_of_others(root: &Root) -> Result<()> {
    fs::create_dir_all(root.inside("/others"))?;
    for name in ["libstdc++.so.6", "libz.so.1", "libc.so.6", "libLLVM.so.21.1"] {
        fs::write(root.inside("/others").join(name), "not a library")?;
    }
    let others = Root::new(&root.path.with_extension("others"))?.environment("LD_LIBRARY_PATH", "/others");
    let others = others.environment("NEXUS_CACHE_DIR", "none");
    others.put(&root.inside("/opt/nexus-sidecar"), "/opt/nexus-sidecar")?;
    others.put(&root.inside("/others"), "/others")?;
    answers(&others, PROGRAM)?;
    for (list, value) in [
        ("LD_PRELOAD", "/others/x.so:/others/libc.so.6"),
        ("LD_PRELOAD", "/others/libstdc++.so.6"),
        ("LD_AUDIT", "/others/libc.so.6"),
    ] {
        let name = value.rsplit(':').next().unwrap_or(value);
        let spoiled = Root::of(&others.path).environment(list, value);
        refused(&spoiled.run([PROGRAM, "--version"], "")?, &format!("{list} names {name}"))?;
    }
    remove(&others.path)?;
    note("LD_LIBRARY_PATH: nothing of it is loaded; a library of ours in LD_PRELOAD or LD_AUDIT: said");
    Ok(())
}

/// Every file of the tree is missed, and one that is not what it should be is told.
fn damaged(root: Root, tree: &Path) -> Result<Root> {
    let whole = files_in(&tree.join("lib"))?;
    for file in &whole {
        let name = file.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        let (place, aside) = (root.inside(format!("/opt/nexus-sidecar/lib/{name}")), root.inside("/aside"));
        fs::rename(&place, &aside)?;
        refused(&root.run([PROGRAM, "--version"], "")?, &format!("lib/{name}"))?;
        fs::rename(&aside, &place)?;
    }
    for name in [NAME, "ld-linux-x86-64.so.2"] {
        let place = root.inside(format!("/opt/nexus-sidecar/lib/{name}"));
        let bytes = fs::read(&place)?;
        let mut foreign = bytes.clone();
        foreign[18] = 183; // AArch64
        fs::write(&place, &foreign)?;
        refused(&root.run([PROGRAM, "--version"], "")?, "is made for another kind of processor")?;
        fs::write(&place, &bytes[..100])?;
        refused(&root.run([PROGRAM, "--version"], "")?, "is damaged")?;
        fs::write(&place, bytes)?;
    }
    fs::copy(root.inside(PROGRAM), root.inside("/copied"))?;
    refused(&root.run(["/copied", "--version"], "")?, "make a link to this program rather than a copy")?;
    answers(&root, PROGRAM)?;
    note(format!("each of {} files missing, two of them foreign or cut off, a copied launcher: said", whole.len()));
    Ok(root)
}

/// A machine that does not let it.
fn misused(root: Root) -> Result<Root> {
    let root = root.mounted("/opt/nexus-sidecar/lib", Mounted::NoExec);
    refused(&root.run([PROGRAM, "--version"], "")?, "its file system is mounted noexec")?;
    let root = root.without_mount().without_proc();
    for program in [PROGRAM, "/usr/bin/nexus-sidecar", "/other-name", "nexus-sidecar"] {
        root.must([program, "--version"], "").context("without /proc")?;
    }
    refused(&root.run([PROGRAM, "run", "-"], HANDLER)?, "/proc, by which it is loaded, is not mounted here")?;
    note("noexec: said; no /proc: finds itself, and says why the engine does not start");
    Ok(root.with_proc())
}

pub fn refused(ended: &Ended, text: &str) -> Result<()> {
    if ended.code != Some(UNUSABLE) || !ended.err.contains(text) {
        bail!("expected exit code {UNUSABLE} and {text:?}, found {:?} and {:?}", ended.code, ended.err);
    }
    Ok(())
}
