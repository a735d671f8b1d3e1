//! The single file at work: the tree that is packed behind this launcher is put into the user's cache once, and used from there.
//!
//! ```text
//!  CACHE/nexus-sidecar/tree-DIGEST            whole, or not there: it is renamed into place
//!  CACHE/nexus-sidecar/tree-DIGEST.new-PID-N  of somebody who is at it, or was ended
//! ```
//!
//! A folder of that name is used if it belongs to this user or the system, nobody else may change it, and every file has its length;
//! whatever else is there is replaced, in one step. Two who unpack at once do so apart, and either's tree is as good.

use nexus_launcher::parcel::{self, Digest, Label, TABLE_BYTES, Table};
use nexus_launcher::place::PathBuffer;

use crate::system::{self, EEXIST, ENOENT, ENOTDIR, ENOTEMPTY, Errno, File, Start, Status};
use crate::{give_up, or_too_long};

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
    let tree = parcel.folder(start);
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
    /// Where the tree belongs. What is on the way is made, and looked at: whoever may change it may change the program.
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
            match system::status(path.with_nul(), true) {
                Ok(found) if !found.is_folder() => give_up(&[path.as_bytes(), b" is no folder", ADVICE]),
                Ok(found) if parcel::is_trusted(found.owner, found.mode, self.me, true) => {}
                Ok(_) => give_up(&[path.as_bytes(), b" belongs to another user, or others may write to it", ADVICE]),
                Err(error) => cannot(&path, b" cannot be looked at", error),
            }
        }
        or_too_long(self.label.name_folder(&mut path));
        path
    }

    /// Whether all of the tree is there, and nobody else's.
    fn is_whole(&self, tree: &PathBuffer) -> bool {
        let ours = |found: &Status| parcel::is_trusted(found.owner, found.mode, self.me, false);
        let folder = system::status(tree.with_nul(), false);
        folder.is_ok_and(|found| found.is_folder() && ours(&found))
            && self.table.files().all(|(name, len)| {
                let found = system::status(within(tree, name).with_nul(), false);
                found.is_ok_and(|found| found.is_file() && ours(&found) && found.len == len)
            })
    }

    fn put(&self, tree: &PathBuffer) {
        let new = self.make_new(tree);
        if let Err(error) = self.fill(&new) {
            self.remove(&new);
            cannot(&new, b" cannot be written", error);
        }
        match system::rename(new.with_nul(), tree.with_nul(), false) {
            Ok(()) => return,
            Err(Errno(EEXIST | ENOTEMPTY | ENOTDIR)) => {}
            Err(error) => {
                self.remove(&new);
                cannot(tree, b" cannot be put in its place", error);
            }
        }
        if !self.is_whole(tree) {
            system::say(b"nexus-sidecar: ");
            system::say(tree.as_bytes());
            system::say(b" is damaged or not of this user; it is made anew\n");
            if let Err(error) = system::rename(new.with_nul(), tree.with_nul(), true) {
                self.remove(&new);
                cannot(tree, b" is damaged or not of this user, and cannot be replaced; remove it", error);
            }
        }
        // Now what was there before, or what somebody else was quicker than.
        self.remove(&new);
    }

    /// A new folder beside the tree's place, which is nobody else's.
    fn make_new(&self, tree: &PathBuffer) -> PathBuffer {
        for attempt in 0..ATTEMPTS {
            let mut path = tree.clone();
            or_too_long(path.push(b".new-"));
            or_too_long(path.push_number(system::process()));
            or_too_long(path.push(&[b'-', b'a' + attempt]));
            match system::make_folder(path.with_nul()) {
                Ok(()) => return path,
                Err(Errno(EEXIST)) => {}
                Err(error) => cannot(&path, b" cannot be made", error),
            }
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
                    self.remove(new);
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
            self.remove(new);
            cut_off();
        }
        Ok(())
    }

    /// Removes a folder with what ours have in it. What else is in it stays, and the folder with it.
    fn remove(&self, folder: &PathBuffer) {
        for (name, _) in self.table.files() {
            system::remove(within(folder, name).with_nul(), false);
        }
        system::remove(folder.with_nul(), true);
        system::remove(folder.with_nul(), false);
    }
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
        _ => b"",
    };
    give_up(&[path.as_bytes(), what, why, ADVICE])
}
