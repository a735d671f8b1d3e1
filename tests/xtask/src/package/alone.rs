//! The single file in a root that has nothing else: it unpacks itself once, is not fooled by what stands in the place of what it
//! unpacked, and says why where it cannot.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::bare::{HANDLER, answers, refused};
use super::root::{Mounted, Root};
use super::single;
use super::tree::files_in;
use crate::places::remove;
use crate::process::quiet;
use crate::stages::note;

const PROGRAM: &str = "/bin/nexus-sidecar";
const CACHE: &str = "/home/.cache/nexus-sidecar";

/// Starts at the same time, of which each finds nothing unpacked.
const AT_ONCE: usize = 8;

/// Somebody else than who starts it.
const FOREIGN_USER: u32 = 54_321;

/// Tries all of it in `work`.
pub fn try_out(tree: &Path, work: &Path) -> Result<()> {
    let root = Root::new(&work.join("alone"))?.environment("NEXUS_CACHE_DIR", "none").environment("HOME", "/home");
    fs::create_dir(root.inside("/home"))?;
    single::write(tree, &root.inside(PROGRAM))?;
    let (first, again) = unpacks_once(&root)?;
    note(format!("single file: first result {:.2} s, again {:.2} s", first.as_secs_f64(), again.as_secs_f64()));
    passes_on(&root)?;
    starts_itself_again(&root)?;
    many_at_once(&root)?;
    replaces_what_is_not_whole(&root)?;
    sweeps(&root)?;
    trusts_only_its_own(&root)?;
    let root = says_why_not(root)?;
    cut_off(&root)?;
    remove(&root.path)
}

/// The folder that it unpacked itself into, of which there has to be one and nothing beside it.
fn unpacked(root: &Root) -> Result<PathBuf> {
    let mut found = fs::read_dir(root.inside(CACHE))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    match (found.pop(), found.len()) {
        (Some(tree), 0) => Ok(tree),
        (last, _) => bail!("in the cache are {last:?} and {found:?}"),
    }
}

fn unpacks_once(root: &Root) -> Result<(Duration, Duration)> {
    let first = root.must([PROGRAM, "run", "-"], HANDLER)?;
    let tree = unpacked(root)?;
    ensure!(fs::metadata(&tree)?.mode() & 0o7777 == 0o700, "others may look into {}", tree.display());
    let which = fs::metadata(&tree)?.ino();
    let again = root.must([PROGRAM, "run", "-"], HANDLER)?;
    for ended in [&first, &again] {
        ensure!(ended.out.starts_with("42") && ended.err.is_empty(), "{:?} {:?}", ended.out, ended.err);
    }
    ensure!(fs::metadata(unpacked(root)?)?.ino() == which, "it was unpacked a second time");
    // A copy and a link are the same program, and use the same tree.
    fs::copy(root.inside(PROGRAM), root.inside("/bin/copied"))?;
    symlink("copied", root.inside("/bin/linked"))?;
    for program in ["/bin/copied", "linked"] {
        answers(root, program)?;
    }
    ensure!(fs::metadata(unpacked(root)?)?.ino() == which, "a copy was unpacked anew");
    Ok((first.took, again.took))
}

/// Arguments and exit code are the program's.
fn passes_on(root: &Root) -> Result<()> {
    let ended = root.run([PROGRAM, "run", "-", "--args", "[1, 2]"], "return $args[1]")?;
    ensure!(ended.code == Some(0) && ended.out.starts_with('2'), "{:?} {:?}", ended.out, ended.err);
    let ended = root.run([PROGRAM, "no-such-command"], "")?;
    ensure!(ended.code == Some(2), "a wrong command ends with {:?}", ended.code);
    Ok(())
}

/// A worker behind walls is this very file once more, with an environment of its own.
fn starts_itself_again(root: &Root) -> Result<()> {
    // What a worker's standard input is, and where nobody else reaches the socket.
    quiet("making /dev/null", Command::new("mknod").arg(root.inside("/dev/null")).args(["c", "1", "3"]))?;
    fs::create_dir(root.inside("/private"))?;
    fs::set_permissions(root.inside("/private"), fs::Permissions::from_mode(0o700))?;
    let walled = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").environment("HOME", "/home");
    let mut serving =
        walled.environment("NEXUS_ISOLATION", "shared").start([PROGRAM, "serve", "--listen", "/private/s"])?;
    let until = Instant::now() + Duration::from_secs(60);
    let answered = loop {
        let ended = root.run([PROGRAM, "ping", "--connect", "/private/s"], "")?;
        let gone = serving.try_wait()?;
        if ended.code == Some(0) || gone.is_some() || Instant::now() > until {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    serving.kill()?;
    serving.wait()?;
    ensure!(answered.code == Some(0), "with a worker behind walls: {:?}", answered.err);
    note("a worker behind walls: it starts itself again");
    Ok(())
}

fn many_at_once(root: &Root) -> Result<()> {
    remove(&root.inside(CACHE))?;
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| answers(root, PROGRAM))).collect();
        starts.into_iter().try_for_each(|start| start.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
    })?;
    unpacked(root)?;
    note(format!("{AT_ONCE} first starts at once: one tree, and nothing beside it"));
    Ok(())
}

/// Does something to what was unpacked.
type Spoil<'a> = &'a dyn Fn() -> Result<()>;

fn replaces_what_is_not_whole(root: &Root) -> Result<()> {
    let tree = unpacked(root)?;
    let library = tree.join("libc.so.6");
    let spoil: [(&str, Spoil<'_>); 9] = [
        ("a file is missing", &|| Ok(fs::remove_file(&library)?)),
        ("a file is cut off", &|| {
            fs::set_permissions(&library, fs::Permissions::from_mode(0o600))?;
            Ok(fs::OpenOptions::new().write(true).open(&library)?.set_len(100)?)
        }),
        ("a byte of a file is another", &|| {
            fs::set_permissions(&library, fs::Permissions::from_mode(0o600))?;
            let file = fs::OpenOptions::new().read(true).write(true).open(&library)?;
            let before = file.metadata()?.modified()?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, 5000)?;
            file.write_all_at(&[!byte[0]], 5000)?;
            file.set_modified(before)?;
            Ok(fs::set_permissions(&library, fs::Permissions::from_mode(0o400))?)
        }),
        ("a file is a folder", &|| {
            fs::remove_file(&library)?;
            Ok(fs::create_dir(&library)?)
        }),
        ("a file is somebody else's", &|| Ok(chown(&library, Some(FOREIGN_USER), None)?)),
        ("a file is a link", &|| {
            fs::rename(&library, root.inside("/aside"))?;
            Ok(symlink("/aside", &library)?)
        }),
        ("the folder is somebody else's", &|| Ok(chown(&tree, Some(FOREIGN_USER), None)?)),
        ("others may write to the folder", &|| Ok(fs::set_permissions(&tree, fs::Permissions::from_mode(0o777))?)),
        ("there is a file in its place", &|| {
            remove(&tree)?;
            Ok(fs::write(&tree, "x")?)
        }),
    ];
    for (what, spoil) in spoil {
        spoil()?;
        let ended = root.must([PROGRAM, "run", "-"], HANDLER).context(what)?;
        let told = ended.err.contains("it is made anew");
        ensure!(ended.out.starts_with("42") && told, "{what}: {:?} {:?}", ended.out, ended.err);
        unpacked(root).context(what)?;
        ensure!(root.must([PROGRAM, "--version"], "")?.err.is_empty(), "{what}: it is told again");
    }
    note("nine ways not to be whole, one of the same length: told, and made anew");
    Ok(())
}

/// What somebody left who was ended while unpacking is removed by whoever starts next, and nobody else's.
fn sweeps(root: &Root) -> Result<()> {
    let cache = root.inside(CACHE);
    let kept = cache.join("tree-kept-by-the-user");
    fs::create_dir(&kept)?;
    let left: Vec<_> = ["tree-0123.new-77-a", "tree-4567.new-1-b"].map(|name| cache.join(name)).into();
    for folder in &left {
        fs::create_dir(folder)?;
        fs::write(folder.join("libc.so.6"), "half a lib")?;
    }
    // As whoever is still at it.
    let held = fs::File::open(&left[1])?;
    held.lock()?;
    ensure!(root.must([PROGRAM, "--version"], "")?.err.is_empty(), "it tells of what it sweeps");
    ensure!(!left[0].exists(), "what was left over stays");
    ensure!(left[1].join("libc.so.6").exists(), "what somebody is unpacking is taken away");
    drop(held);
    root.must([PROGRAM, "--version"], "")?;
    ensure!(!left[1].exists() && kept.exists(), "what was left over stays, or what was not goes");
    remove(&kept)?;
    unpacked(root)?;
    note("what was left over of an unpacking: swept, unless somebody is at it");
    Ok(())
}

/// The folder in the cache may be looked into by others, and neither be theirs nor led elsewhere by them.
fn trusts_only_its_own(root: &Root) -> Result<()> {
    let cache = root.inside(CACHE);
    let advice = "set XDG_CACHE_HOME to a folder of your own";
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755))?;
    answers(root, PROGRAM).context("a folder that others may look into")?;
    let ways: [(&str, Spoil<'_>, &str); 4] = [
        ("a group's", &|| Ok(fs::set_permissions(&cache, fs::Permissions::from_mode(0o775))?), OTHERS),
        ("everybody's", &|| Ok(fs::set_permissions(&cache, fs::Permissions::from_mode(0o757))?), OTHERS),
        ("somebody else's", &|| Ok(chown(&cache, Some(FOREIGN_USER), None)?), OTHERS),
        (
            "somebody else's link",
            &|| {
                fs::rename(&cache, root.inside("/aside-cache"))?;
                symlink("/aside-cache", &cache)?;
                Ok(lchown(&cache, Some(FOREIGN_USER), None)?)
            },
            "is a link of another user",
        ),
    ];
    for (what, spoil, told) in ways {
        spoil()?;
        let ended = root.run([PROGRAM, "--version"], "")?;
        refused(&ended, told).context(what)?;
        refused(&ended, advice).context(what)?;
        if cache.is_symlink() {
            fs::remove_file(&cache)?;
            fs::rename(root.inside("/aside-cache"), &cache)?;
        }
        chown(&cache, Some(0), None)?;
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o700))?;
    }
    // Whoever may write to what it is in may put another in its place.
    fs::set_permissions(root.inside("/home"), fs::Permissions::from_mode(0o777))?;
    let ended = root.run([PROGRAM, "--version"], "")?;
    refused(&ended, "/home leads to the cache, and belongs to another user, or others may write to it")?;
    refused(&ended, advice)?;
    fs::set_permissions(root.inside("/home"), fs::Permissions::from_mode(0o755))?;
    answers(root, PROGRAM)?;
    note("a folder in the cache that others may write to, own or lead elsewhere: said; look into: used");
    Ok(())
}

/// What is said of a folder that is not to be trusted.
const OTHERS: &str = "belongs to another user, or others may write to it";

fn says_why_not(root: Root) -> Result<Root> {
    let version = [PROGRAM, "--version"];
    let advice = "set XDG_CACHE_HOME to a folder of your own";
    for folder in ["/foreign", "/open", "/with:colon"] {
        fs::create_dir(root.inside(folder))?;
    }
    chown(root.inside("/foreign"), Some(FOREIGN_USER), None)?;
    fs::set_permissions(root.inside("/open"), fs::Permissions::from_mode(0o777))?;
    let mut root = root.environment("HOME", "");
    for (cache, why) in [
        ("", "neither XDG_CACHE_HOME nor HOME names a folder"),
        ("/no/such/folder", "/no/such/folder cannot be made: the folder that it belongs in is not there"),
        ("/bin/copied", "/bin/copied is no folder"),
        ("/foreign", "/foreign belongs to another user, or others may write to it"),
        ("/open", "/open belongs to another user, or others may write to it"),
        ("/with:colon", "has a colon or a dollar sign"),
    ] {
        root = root.environment("XDG_CACHE_HOME", cache);
        let ended = root.run(version, "")?;
        refused(&ended, why)?;
        refused(&ended, advice)?;
    }
    let root = root.environment("XDG_CACHE_HOME", "/limited");
    fs::create_dir(root.inside("/limited"))?;
    for (limit, why) in [
        ("-n 4", "no more files may be open; lift that limit (ulimit -n, LimitNOFILE=)"),
        ("-f 0", "files may not be as large; lift that limit (ulimit -f, LimitFSIZE=)"),
    ] {
        let limited = Root::of(&root.path).environment("XDG_CACHE_HOME", "/limited").limited(limit);
        refused(&limited.run(version, "")?, why).with_context(|| format!("ulimit {limit}"))?;
        let left = fs::read_dir(root.inside("/limited/nexus-sidecar"))?.count();
        ensure!(left == 0, "ulimit {limit} leaves {left}");
    }
    let mut root = root.environment("XDG_CACHE_HOME", "/home");
    for (how, why) in [
        (Mounted::Small, "cannot be written: there is no room for it"),
        (Mounted::NoExec, "may not be executed: its file system is mounted noexec"),
    ] {
        root = root.mounted("/home", how);
        let ended = root.run(version, "")?;
        refused(&ended, why)?;
        refused(&ended, advice)?;
    }
    let root = root.without_mount();
    let read_only = Root::of(&root.path).environment("HOME", "/").read_only_as(FOREIGN_USER);
    refused(&read_only.run(version, "")?, "its file system is read-only")?;
    note(
        "no HOME, no folder, a foreign or open one, a full, a noexec and a read-only file system: said, with what to do",
    );
    Ok(root)
}

fn cut_off(root: &Root) -> Result<()> {
    let bytes = fs::read(root.inside(PROGRAM))?;
    fs::create_dir(root.inside("/last"))?;
    let last = Root::of(&root.path).environment("XDG_CACHE_HOME", "/last");
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for spoiled in [&bytes[..bytes.len() - 1], &bytes[..middle], &changed] {
        fs::write(root.inside("/bin/copied"), spoiled)?;
        refused(&last.run(["/bin/copied", "--version"], "")?, "this file is damaged or cut off")?;
    }
    let left = files_in(&root.inside("/last"))?;
    ensure!(left.is_empty(), "it leaves {left:?}");
    note("a file that is cut off or changed: said, and nothing is left of it");
    Ok(())
}
