//! What becomes of a sidecar that serves while its installation is moved, replaced or removed: workers are its own file executed once
//! more, so it needs what it was packed with again. It goes on where that is possible; where it is not, no worker of another version is
//! started beside it, and it says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bare::{PROGRAM, UNUSABLE, other_bit};
use super::root::Root;
use super::single;
use crate::places::remove;
use crate::process::quiet;
use crate::stages::note;

const SOCKET: &str = "/replaced/s";
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a start takes on a busy machine.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// One thing that can happen.
struct Happening {
    what: &'static str,
    /// Which program serves, of those in the folder.
    program: &'static str,
    /// Does it, in that folder.
    happens: fn(&Path) -> Result<()>,
    /// What is said when a worker is needed again. None: it goes on.
    told: Option<&'static str>,
}

const OF_TREE: &str = "nexus-sidecar/bin/nexus-sidecar";
const SINGLE: &str = "single";

const HAPPENINGS: [Happening; 7] = [
    Happening {
        what: "a tree is moved",
        program: OF_TREE,
        happens: |folder| Ok(fs::rename(folder.join("nexus-sidecar"), folder.join("moved"))?),
        told: None,
    },
    Happening {
        what: "the same version is put in the place of a tree, file by file",
        program: OF_TREE,
        happens: |folder| {
            replace(&folder.join(OF_TREE), |bytes| bytes)?;
            replace(&folder.join("nexus-sidecar/lib/nexus-sidecar"), |bytes| bytes)
        },
        told: None,
    },
    Happening {
        what: "another version is put in the place of a tree, file by file",
        program: OF_TREE,
        happens: |folder| {
            replace(&folder.join(OF_TREE), |bytes| bytes)?;
            replace(&folder.join("nexus-sidecar/lib/nexus-sidecar"), |bytes| other_bit(&bytes))
        },
        told: Some("lib/nexus-sidecar is not of its version; start it anew"),
    },
    Happening {
        what: "another version of a tree has not all of its files",
        program: OF_TREE,
        happens: |folder| {
            replace(&folder.join(OF_TREE), |bytes| bytes)?;
            Ok(fs::remove_file(folder.join("nexus-sidecar/lib/libfmt.so.11"))?)
        },
        told: Some("lib/libfmt.so.11 is not of its version; start it anew"),
    },
    Happening {
        what: "a tree is removed",
        program: OF_TREE,
        happens: |folder| remove(&folder.join("nexus-sidecar")),
        told: Some("the installation that this program was part of is no longer at"),
    },
    Happening {
        what: "another version is put in the place of a single file",
        program: SINGLE,
        happens: |folder| replace(&folder.join(SINGLE), |_| b"another".to_vec()),
        told: None,
    },
    Happening {
        what: "a single file and what it has unpacked are removed",
        program: SINGLE,
        happens: |folder| {
            fs::remove_file(folder.join(SINGLE))?;
            remove(&folder.join(".cache"))
        },
        told: None,
    },
];

/// Tries all of it in a root that has a tree already.
pub fn try_out(root: &Root, tree: &Path) -> Result<()> {
    // A worker's standard input.
    quiet("making /dev/null", Command::new("cp").arg("-a").arg("/dev/null").arg(root.inside("/dev/null")))?;
    for happening in &HAPPENINGS {
        let folder = root.inside("/replaced");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        root.put(tree, "/replaced/nexus-sidecar")?;
        single::write(tree, &folder.join(SINGLE))?;
        happening.try_out(root, &folder)?;
        remove(&folder)?;
    }
    remove(&root.inside("/dev/null"))?;
    note("moved, replaced and removed while it serves: it goes on, or says what to do once it needs a worker");
    Ok(())
}

impl Happening {
    fn try_out(&self, root: &Root, folder: &Path) -> Result<()> {
        let (what, told) = (self.what, folder.join("told"));
        let served = Root::of(&root.path).environment("NEXUS_CACHE_DIR", "none").environment("HOME", "/replaced");
        let words = [&format!("/replaced/{}", self.program), "serve", "--listen", SOCKET];
        let mut serves = served.environment("NEXUS_ISOLATION", "shared").start_telling(words, &told)?;
        answers(root, &mut serves, what)?;
        (self.happens)(folder)?;
        answers(root, &mut serves, what)?;
        match self.told {
            None => {
                let first = children_of(serves.id())?;
                until(what, || {
                    kill(&first)?;
                    Ok(children_of(serves.id())?.iter().any(|child| !first.contains(child)))
                })?;
                answers(root, &mut serves, what)?;
                serves.kill()?;
                serves.wait()?;
            }
            Some(wanted) => {
                until(what, || {
                    kill(&children_of(serves.id())?)?;
                    has_ended(&mut serves)
                })?;
                let (code, told) = (serves.wait()?.code(), fs::read_to_string(told)?);
                ensure!(code == Some(UNUSABLE) && told.contains(wanted), "{what}: {code:?} and {told}");
                ensure!(!told.contains("damaged"), "{what}: nothing is damaged, and yet {told}");
            }
        }
        Ok(())
    }
}

/// Waits until it answers, who serves.
fn answers(root: &Root, serves: &mut Child, what: &str) -> Result<()> {
    until(what, || {
        ensure!(serves.try_wait()?.is_none(), "{what}: it no longer serves");
        Ok(root.run([PROGRAM, "ping", "--connect", SOCKET], "")?.code == Some(0))
    })
}

/// Whether it ends, with the time that one which starts needs to say why it does not: it is not to be killed meanwhile.
fn has_ended(serves: &mut Child) -> Result<bool> {
    let end = Instant::now() + START;
    while serves.try_wait()?.is_none() {
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < end, "{what}: nothing follows");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Puts a file in the place of another in one step, as what installs packages does.
fn replace(file: &Path, by: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, by(fs::read(file)?))?;
    fs::set_permissions(&beside, fs::metadata(file)?.permissions())?;
    Ok(fs::rename(beside, file)?)
}

/// Those that are still there.
fn kill(processes: &[u32]) -> Result<()> {
    for process in processes {
        Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// The processes that one has started.
fn children_of(process: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        if after.split(' ').nth(1) == Some(&process.to_string()) {
            found.extend(before.split(' ').next().and_then(|number| number.parse::<u32>().ok()));
        }
    }
    Ok(found)
}
