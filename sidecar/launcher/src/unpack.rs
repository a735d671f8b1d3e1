//! The single file at work: the tree that is packed behind this launcher is put into the user's cache once, and used from there.
//!
//! ```text
//!  CACHE/nexus-sidecar/tree-DIGEST            whole, or not there: it is renamed into place
//!  CACHE/nexus-sidecar/tree-DIGEST.new-PID-N  of somebody who is at it, or was ended
//! ```
//!
//! A folder of that name is used if it belongs to this user or the system, nobody else may change it or what it is in, and every file
//! is what it was packed as, byte for byte; whatever else is there is replaced, in one step. Two who unpack at once do so apart, and
//! either's tree is as good. Who unpacks holds its folder, so whoever starts can tell one that was left over, and removes it.

use nexus_launcher::parcel::{self, Digest, Label, TABLE_BYTES, Table, UNFINISHED};
use nexus_launcher::place::PathBuffer;

use crate::system::{self, EEXIST, ENOENT, ENOTDIR, ENOTEMPTY, Errno, File, Start, Status};
use crate::{files, give_up, or_too_long, sum_of};

const FOLDER: &[u8] = b"/nexus-sidecar";

/// Names that are tried for a new folder: each may be one that somebody left who had the same number.
const ATTEMPTS: u8 = 16;

/// Small, since it is on a stack that may be small.
const COPIED_BYTES: usize = 16 * 1024;

pub const ADVICE: &[u8] =
    b". This program unpacks itself there, once; set XDG_CACHE_HOME to a folder of your own that can be written \
and from which programs may be executed";

/// What is behind this launcher.
struct Parcel<'a> {
    file: &'a File,
    label: Label,
    table: Table<'a>,
    me: u32,
}

/// The folder with the files of the tree. A frame of its own: most launchers have no need of so much stack.
#[inline(never)]
pub fn tree(label: Label, start: &Start) -> PathBuffer {
    let file = own_file(start);
    let mut bytes = [0; TABLE_BYTES];
    let len = system::read_at(&file, &mut bytes, label.at).unwrap_or(0);
    let Some(table) = Table::parse(bytes.get(..len).unwrap_or_default()) else { cut_off() };
    let parcel = Parcel { file: &file, label, table, me: system::user() };
    let mut tree = parcel.folder(start);
    parcel.sweep(&tree);
    or_too_long(label.name_folder(&mut tree));
    if !parcel.is_whole(&tree) {
        parcel.put(&tree);
    }
    system::close(file);
    tree
}

/// This very file, also if its name leads elsewhere by now.
fn own_file(start: &Start) -> File {
    let by_name = || {
        start.started_as().map(|name| {
            let mut path = PathBuffer::new();
            or_too_long(path.set(name));
            system::open(path.with_nul())
        })
    };
    match system::open(b"/proc/self/exe\0").ok().map(Ok).or_else(by_name) {
        Some(Ok(file)) => file,
        _ => give_up(&[b"this file cannot be read, and has to be: its libraries are in it"]),
    }
}

impl Parcel<'_> {
    /// Where trees belong. What is on the way is made, and looked at: whoever may change it may change the program.
    fn folder(&self, start: &Start) -> PathBuffer {
        let cache = parcel::cache_folder(start.variable(b"XDG_CACHE_HOME"), start.variable(b"HOME"));
        let Some(mut path) = or_too_long(cache) else {
            give_up(&[b"neither XDG_CACHE_HOME nor HOME names a folder", ADVICE])
        };
        for part in [b"".as_slice(), FOLDER] {
            or_too_long(path.push(part));
            match system::make_folder(path.with_nul()) {
                Ok(()) | Err(Errno(EEXIST)) => {}
                Err(error) => cannot(&path, b" cannot be made", error),
            }
            // A link that somebody else has put there would lead elsewhere at any time.
            let foreign = |found: Status| found.is_link() && !parcel::is_trusted(found.owner, 0, self.me, true);
            match system::status(path.with_nul(), true) {
                _ if system::status(path.with_nul(), false).is_ok_and(foreign) => {
                    give_up(&[path.as_bytes(), b" is a link of another user", ADVICE])
                }
                Ok(found) if !found.is_folder() => give_up(&[path.as_bytes(), b" is no folder", ADVICE]),
                Ok(found) if parcel::is_trusted(found.owner, found.mode, self.me, true) => {}
                Ok(_) => give_up(&[path.as_bytes(), b" belongs to another user, or others may write to it", ADVICE]),
                Err(error) => cannot(&path, b" cannot be looked at", error),
            }
        }
        self.look_above(&path);
        path
    }

    /// Whoever may write to a folder above may put another in the place of ours: those of the path, and those in which they really are.
    #[inline(never)]
    fn look_above(&self, folder: &PathBuffer) {
        let mut above = folder.clone();
        while above.as_bytes().len() > 1 {
            or_too_long(above.to_parent());
            self.look_at(&above);
        }
        let place = |path: &PathBuffer| system::status(path.with_nul(), true).map(|found| (found.device, found.number));
        let mut above = folder.clone();
        loop {
            let below = place(&above);
            or_too_long(above.push(b"/.."));
            if place(&above).ok() == below.ok() {
                return;
            }
            self.look_at(&above);
        }
    }

    fn look_at(&self, above: &PathBuffer) {
        match system::status(above.with_nul(), true) {
            Ok(found) if parcel::may_lead_to_ours(found.owner, found.mode, self.me) => {}
            Ok(_) => {
                let what = b" leads to the cache, and belongs to another user, or others may write to it";
                give_up(&[above.as_bytes(), what, ADVICE])
            }
            Err(error) => cannot(above, b" cannot be looked at", error),
        }
    }

    /// Removes what others have left who were ended while they unpacked.
    #[inline(never)]
    fn sweep(&self, folder: &PathBuffer) {
        let Ok(open) = system::open(folder.with_nul()) else { return };
        system::list(&open, |name| {
            if !parcel::is_unfinished(name) {
                return;
            }
            let left = within(folder, name);
            let ours = |found: Status| found.is_folder() && found.owner == self.me;
            if !system::status(left.with_nul(), false).is_ok_and(ours) {
                return;
            }
            if let Ok(held) = system::open(left.with_nul()) {
                if system::hold(&held, false).is_ok() {
                    remove(&left);
                }
                system::close(held);
            }
        });
        system::close(open);
    }

    /// Whether all of the tree is there, and nobody else's.
    fn is_whole(&self, tree: &PathBuffer) -> bool {
        let ours = |found: &Status| parcel::is_trusted(found.owner, found.mode, self.me, false);
        let folder = system::status(tree.with_nul(), false);
        folder.is_ok_and(|found| found.is_folder() && ours(&found))
            && files().all(|(name, whole)| {
                let path = within(tree, name.as_bytes());
                // Not opened unless it is a file: what else may stand there might wait for somebody.
                let found = system::status(path.with_nul(), false);
                found.is_ok_and(|found| found.is_file() && ours(&found) && found.len == whole.len)
                    && system::open(path.with_nul()).is_ok_and(|file| {
                        let found = sum_of(&file, whole.len);
                        system::close(file);
                        found == Ok(whole)
                    })
            })
    }

    fn put(&self, tree: &PathBuffer) {
        system::let_writes_fail();
        let (new, held) = self.make_new(tree);
        if let Err(error) = self.fill(&new) {
            remove(&new);
            cannot(&new, b" cannot be written", error);
        }
        match system::rename(new.with_nul(), tree.with_nul(), false) {
            Ok(()) => return system::close(held),
            Err(Errno(EEXIST | ENOTEMPTY | ENOTDIR)) => {}
            Err(error) => {
                remove(&new);
                cannot(tree, b" cannot be put in its place", error);
            }
        }
        if !self.is_whole(tree) {
            system::say(b"nexus-sidecar: ");
            system::say(tree.as_bytes());
            system::say(b" was changed, is not whole or not of this user; it is made anew\n");
            if let Err(error) = system::rename(new.with_nul(), tree.with_nul(), true) {
                remove(&new);
                cannot(
                    tree,
                    b" was changed, is not whole or not of this user, and cannot be replaced; remove it",
                    error,
                );
            }
        }
        // Now what was there before, or what somebody else was quicker than.
        remove(&new);
        system::close(held);
    }

    /// A new folder beside the tree's place, which is nobody else's, and held.
    fn make_new(&self, tree: &PathBuffer) -> (PathBuffer, File) {
        for attempt in 0..ATTEMPTS {
            let mut path = tree.clone();
            or_too_long(path.push(UNFINISHED));
            or_too_long(path.push_number(system::process()));
            or_too_long(path.push(&[b'-', b'a' + attempt]));
            match system::make_folder(path.with_nul()) {
                Ok(()) => {}
                Err(Errno(EEXIST)) => continue,
                Err(error) => cannot(&path, b" cannot be made", error),
            }
            let held = match system::open(path.with_nul()) {
                Ok(held) => held,
                // Whoever swept between the two calls has taken it for one that was left over.
                Err(Errno(ENOENT)) => continue,
                Err(error) => {
                    remove(&path);
                    cannot(&path, b" cannot be opened", error)
                }
            };
            // A file system that cannot do it lets nobody sweep either.
            let _ = system::hold(&held, true);
            let number = |found: Result<Status, Errno>| found.map_or(0, |found| found.number);
            if number(system::status_of(&held)) == number(system::status(path.with_nul(), false)) {
                return (path, held);
            }
            system::close(held);
        }
        give_up(&[tree.as_bytes(), b".new-*: these are left over; remove them"])
    }

    /// Writes every file. What they are is known at the end, and a tree that is not what the label says is none.
    #[inline(never)]
    fn fill(&self, new: &PathBuffer) -> Result<(), Errno> {
        let mut digest = Digest::default();
        digest.add(self.table.as_bytes());
        let mut at = self.label.at + self.table.as_bytes().len() as u64;
        let mut buffer = [0; COPIED_BYTES];
        for (name, len) in self.table.files() {
            let to = system::create(within(new, name).with_nul())?;
            let end = at + len;
            while at < end {
                let wanted = (end - at).min(COPIED_BYTES as u64) as usize;
                let read = system::read_at(self.file, buffer.get_mut(..wanted).unwrap_or_default(), at).unwrap_or(0);
                let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
                    remove(new);
                    cut_off()
                };
                digest.add(part);
                system::write_all(&to, part)?;
                at += read as u64;
            }
            system::settle(&to)?;
            system::close(to);
        }
        if digest.end() != self.label.digest {
            remove(new);
            cut_off();
        }
        Ok(())
    }
}

/// Removes a folder with its files, or whatever stands in its place. A folder in it that is not empty stays, and it too.
#[inline(never)]
fn remove(folder: &PathBuffer) {
    if system::status(folder.with_nul(), false).is_ok_and(|found| found.is_folder())
        && let Ok(open) = system::open(folder.with_nul())
    {
        system::list(&open, |name| {
            if name != b"." && name != b".." {
                let inside = within(folder, name);
                system::remove(inside.with_nul(), false);
                system::remove(inside.with_nul(), true);
            }
        });
        system::close(open);
    }
    system::remove(folder.with_nul(), true);
    system::remove(folder.with_nul(), false);
}

fn within(folder: &PathBuffer, name: &[u8]) -> PathBuffer {
    let mut path = folder.clone();
    or_too_long(path.push(b"/"));
    or_too_long(path.push(name));
    path
}

fn cut_off() -> ! {
    give_up(&[b"this file is damaged or cut off; install it anew"])
}

fn cannot(path: &PathBuffer, what: &[u8], error: Errno) -> ! {
    let why: &[u8] = match error {
        Errno(ENOENT) => b": the folder that it belongs in is not there",
        Errno(ENOTDIR) => b": something on the way to it is no folder",
        Errno(system::EACCES | system::EPERM) => b": this user may not do that",
        Errno(system::EROFS) => b": its file system is read-only",
        Errno(system::ENOSPC | system::EDQUOT) => b": there is no room for it",
        Errno(system::EFBIG) => {
            give_up(&[path.as_bytes(), what, b": files may not be as large; lift that limit (ulimit -f, LimitFSIZE=)"])
        }
        Errno(system::EMFILE | system::ENFILE) => {
            give_up(&[path.as_bytes(), what, b": no more files may be open; lift that limit (ulimit -n, LimitNOFILE=)"])
        }
        Errno(system::ELOOP) => b": it is a link that leads to itself",
        Errno(system::EIO) => b": its disk fails",
        _ => b"",
    };
    give_up(&[path.as_bytes(), what, why, ADVICE])
}
