//! The tree in a root that has nothing else: no libc, no shell, no loader. What works there works anywhere; and what cannot work
//! says why. Short enough for every change.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::root::{Ended, Mounted, Root};
use super::tree::{NAME, files_in};
use super::{alone, replaced};
use crate::places::remove;
use crate::process::quiet;
use crate::stages::note;

pub const HANDLER: &str = "return 6 * 7";
pub const PROGRAM: &str = "/opt/nexus-sidecar/bin/nexus-sidecar";

/// What the launcher ends with; `ExitCode::EngineInit` of the sidecar.
pub const UNUSABLE: i32 = 5;

/// Somebody whom no list of users knows.
const FOREIGN_USER: u32 = 54_321;

/// Tries all of it in `work`.
pub fn try_out(tree: &Path, work: &Path) -> Result<()> {
    let root = Root::new(&work.join("bare"))?.environment("NEXUS_CACHE_DIR", "none");
    root.put(tree, "/opt/nexus-sidecar")?;
    answers(&root, PROGRAM)?;
    is_not_seen(&root)?;
    ends_with_its_parent(&root)?;
    by_links(&root)?;
    at_odd_places(&root, tree)?;
    with_libraries_of_others(&root)?;
    replaced::try_out(&root, tree)?;
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

/// Who looks at it from outside sees this program and no other: its name, words, environment, file, what it does at a signal and how it
/// ends.
fn is_not_seen(root: &Root) -> Result<()> {
    fs::create_dir_all(root.inside("/private"))?;
    fs::set_permissions(root.inside("/private"), fs::Permissions::from_mode(0o700))?;
    let served = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").environment("NEXUS_ISOLATION", "none");
    let served = served.environment("OF_THE_USER", "a b=c");
    let words = ["nexus-sidecar", "serve", "--listen", "/private/s", "--max-instances", "2"];
    fs::create_dir_all(root.inside("/usr/bin"))?;
    symlink("../../opt/nexus-sidecar/bin/nexus-sidecar", root.inside("/usr/bin/nexus-sidecar"))?;
    let mut child = served.start(words)?;
    let until = Instant::now() + Duration::from_secs(60);
    while !root.inside("/private/s").exists() {
        ensure!(child.try_wait()?.is_none() && Instant::now() < until, "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    let of = |file: &str| fs::read(format!("/proc/{}/{file}", child.id()));
    let list = |bytes: Vec<u8>| -> Vec<String> {
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    ensure!(of("comm")? == b"nexus-sidecar\n", "ps calls it {:?}", String::from_utf8_lossy(&of("comm")?));
    ensure!(list(of("cmdline")?) == words, "its words are {:?}", list(of("cmdline")?));
    ensure!(list(of("environ")?).contains(&"OF_THE_USER=a b=c".to_owned()), "its environment is another");
    let exe = fs::read_link(format!("/proc/{}/exe", child.id()))?;
    ensure!(exe.ends_with("opt/nexus-sidecar/bin/nexus-sidecar"), "it runs {}", exe.display());
    for entry in fs::read_dir(format!("/proc/{}/fd", child.id()))? {
        let leads = fs::read_link(entry?.path()).unwrap_or_default();
        ensure!(!leads.to_string_lossy().contains("nexus-sidecar/"), "it has {} open", leads.display());
    }
    quiet("sending SIGTERM", Command::new("kill").arg("-TERM").arg(child.id().to_string()))?;
    let status = child.wait()?;
    ensure!(status.code() == Some(0), "after SIGTERM it ends with {status}");
    ensure!(!root.inside("/private/s").exists(), "it leaves its socket");
    let ended = root.run(["nexus-sidecar", "no-such-command"], "")?;
    ensure!(ended.code == Some(2), "a wrong command ends with {:?}", ended.code);
    remove(&root.inside("/usr/bin"))?;
    note("ps, argv, environment, /proc/self/exe, SIGTERM and exit code: the program's own");
    Ok(())
}

/// The wish to end with who started it, which the kernel keeps for a process and not for another that it would start.
fn ends_with_its_parent(root: &Root) -> Result<()> {
    let served = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").environment("NEXUS_ISOLATION", "none");
    let (mut shell, program) = served.start_to_end_with_shell([PROGRAM, "serve", "--listen", "/private/p"])?;
    let until = Instant::now() + Duration::from_secs(60);
    while !root.inside("/private/p").exists() {
        ensure!(shell.try_wait()?.is_none() && Instant::now() < until, "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    shell.kill()?;
    shell.wait()?;
    let lives = || fs::read_to_string(format!("/proc/{program}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while lives() {
        ensure!(Instant::now() < until, "it goes on without who started it");
        std::thread::sleep(Duration::from_millis(20));
    }
    remove(&root.inside("/private/p"))?;
    note("PR_SET_PDEATHSIG, set before it is executed: it ends with its parent");
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

/// Nothing that the environment or the machine names for other programs is loaded, whatever it is and however it is named: a second
/// libc, which would be the end of the process, shows it.
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
    let libc = fs::read(others.inside("/opt/nexus-sidecar/lib/libc.so.6"))?;
    fs::create_dir_all(others.inside("/others/glibc-hwcaps/x86-64-v2"))?;
    for (name, bytes) in [
        ("renamed.so", libc.clone()),
        ("glibc-hwcaps/x86-64-v2/found.so", libc.clone()),
        ("of-another-name.so", renamed(libc, b"libc.so.6\0", b"libd.so.6\0")),
    ] {
        fs::write(others.inside("/others").join(name), bytes)?;
    }
    fs::create_dir_all(others.inside("/etc"))?;
    let names = ["/others/renamed.so", "$ORIGIN/../../../others/renamed.so", "found.so", "/others/of-another-name.so"];
    for name in names {
        for list in ["LD_PRELOAD", "LD_AUDIT", "/etc/ld.so.preload"] {
            let mut spoiled = Root::of(&others.path).environment("LD_LIBRARY_PATH", "/others");
            spoiled = spoiled.environment("NEXUS_CACHE_DIR", "none");
            let file = others.inside(list);
            if list.starts_with('/') {
                // Behind more than anybody reads of it.
                fs::write(&file, format!("{}\n{name}\n", "#".repeat(5000)))?;
            } else {
                spoiled = spoiled.environment(list, name);
            }
            let ended = spoiled.must([PROGRAM, "run", "-"], HANDLER).with_context(|| format!("{list}: {name}"))?;
            let told = ended.err.contains("LD_PRELOAD and LD_AUDIT are for other programs");
            ensure!(ended.out.starts_with("42") && told != list.starts_with('/'), "{list}: {name}: {:?}", ended.err);
            remove(&others.inside("/etc/ld.so.preload"))?;
        }
    }
    // By hand whoever wants something all the same has it.
    let lib = |name: &str| format!("/opt/nexus-sidecar/lib/{name}");
    let by_hand =
        [lib("ld-linux-x86-64.so.2"), "--preload".into(), lib("libfmt.so.11"), lib(NAME), "run".into(), "-".into()];
    let ended = others.must(by_hand, HANDLER)?;
    ensure!(ended.out.starts_with("42"), "started by its loader it prints {:?}", ended.out);
    remove(&root.path.with_extension("others"))?;
    note(
        "LD_LIBRARY_PATH, LD_PRELOAD, LD_AUDIT and ld.so.preload: nothing of them is loaded, and the two for it say so",
    );
    Ok(())
}

fn renamed(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// What can become of a file.
type Spoil = fn(&Path, &[u8]) -> Result<()>;

/// Every file of the tree is looked at, whatever has become of it.
fn damaged(root: Root, tree: &Path) -> Result<Root> {
    let whole = files_in(&tree.join("lib"))?;
    let ways: [(&str, Spoil, &str); 11] = [
        ("missing", |_, _| Ok(()), " is missing; install the package anew"),
        (
            "for another processor",
            |file, bytes| Ok(fs::write(file, foreign(bytes))?),
            " is made for another kind of processor",
        ),
        ("half", |file, bytes| Ok(fs::write(file, &bytes[..bytes.len() / 2])?), " is damaged"),
        ("cut to 100 bytes", |file, bytes| Ok(fs::write(file, &bytes[..100])?), " is damaged"),
        ("empty", |file, _| Ok(fs::write(file, "")?), " is damaged"),
        ("of the same length but for a bit", |file, bytes| Ok(fs::write(file, other_bit(bytes))?), " is damaged"),
        ("longer by a byte", |file, bytes| Ok(fs::write(file, [bytes, b"\0"].concat())?), " is damaged"),
        (
            "a link to itself",
            |file, _| Ok(symlink(file.file_name().unwrap_or_default(), file)?),
            " is a link that leads to itself",
        ),
        ("a folder", |file, _| Ok(fs::create_dir(file)?), " is no file"),
        ("a pipe", |file, _| quiet("making a pipe", Command::new("mkfifo").arg(file)).map(drop), " is no file"),
        ("not to be read", unreadable, " may not be read by this user"),
    ];
    let other_user = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").read_only_as(FOREIGN_USER);
    for file in &whole {
        let name = file.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        let (place, aside) = (root.inside(format!("/opt/nexus-sidecar/lib/{name}")), root.inside("/aside"));
        let bytes = fs::read(&place)?;
        for (way, spoil, told) in ways {
            fs::rename(&place, &aside)?;
            spoil(&place, &bytes)?;
            // Where the program itself is missing, so may be the tree.
            let told = if name == NAME && way == "missing" { "" } else { told };
            let ended = other_user.run([PROGRAM, "--version"], "")?;
            refused(&ended, &format!("lib/{name}{told}")).with_context(|| format!("{name}: {way}"))?;
            remove(&place)?;
            fs::rename(&aside, &place)?;
        }
    }
    // Two that are whole, in each other's place.
    let (one, other) =
        (root.inside("/opt/nexus-sidecar/lib/libm.so.6"), root.inside("/opt/nexus-sidecar/lib/libfmt.so.11"));
    let exchange = || -> Result<()> {
        fs::rename(&one, root.inside("/aside"))?;
        fs::rename(&other, &one)?;
        Ok(fs::rename(root.inside("/aside"), &other)?)
    };
    exchange()?;
    refused(&other_user.run([PROGRAM, "--version"], "")?, " is damaged")?;
    exchange()?;
    fs::copy(root.inside(PROGRAM), root.inside("/copied"))?;
    refused(&root.run(["/copied", "--version"], "")?, "make a link to this program rather than a copy")?;
    answers(&root, PROGRAM)?;
    let ways = ways.map(|(way, ..)| way).join(", ");
    note(format!("each of {} files {ways}; a copied launcher: said", whole.len()));
    Ok(root)
}

pub fn other_bit(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    bytes
}

fn foreign(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[18] = 183; // AArch64
    bytes
}

fn unreadable(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o700))?)
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
    let root = root.with_proc();
    // Too little for its files; enough for them, and too little for an instance; and the other limits.
    let version: &[&str] = &[PROGRAM, "--version"];
    let run: &[&str] = &[PROGRAM, "run", "-"];
    for (limit, words, told) in [
        ("-v 30720", version, "lib cannot be mapped: there is no room for it; lift the limit of address space"),
        ("-v 61440", run, "address space to 61440 KiB (ulimit -v, LimitAS=)"),
        ("-v 102400", run, "address space to 102400 KiB (ulimit -v, LimitAS=)"),
        ("-v 1048576", version, ""),
        ("-v 1048576", run, "address space to 1048576 KiB (ulimit -v, LimitAS=)"),
        ("-v 20971520", run, "address space is limited to 20480 MiB"),
        ("-d 5000", run, "data to 5000 KiB (ulimit -d, LimitDATA=)"),
        ("-d 75000", run, "data to 75000 KiB (ulimit -d, LimitDATA=)"),
        ("-d 200000", run, "data to 200000 KiB (ulimit -d, LimitDATA=)"),
        ("-f 0", run, "size of files to 0 KiB (ulimit -f, LimitFSIZE=)"),
        ("-f 8000", run, "size of files to 4000 KiB (ulimit -f, LimitFSIZE=)"),
        ("-n 4", run, "open files to 4 (ulimit -n, LimitNOFILE=)"),
    ] {
        let limited = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").limited(limit);
        let ended = limited.run(words, HANDLER)?;
        let said = if told.is_empty() { ended.code == Some(0) } else { ended.code.is_some_and(|code| code != 0) };
        ensure!(said && ended.err.contains(told), "with ulimit {limit}: {:?} and {:?}", ended.code, ended.err);
    }
    note(
        "noexec, limits of address space, data, files and descriptors: said; no /proc: finds itself, and says why the engine does not start",
    );
    Ok(root)
}

pub fn refused(ended: &Ended, text: &str) -> Result<()> {
    if ended.code != Some(UNUSABLE) || !ended.err.contains(text) {
        bail!("expected exit code {UNUSABLE} and {text:?}, found {:?} and {:?}", ended.code, ended.err);
    }
    Ok(())
}
