//! The single file: a launcher with the files of its tree behind it, and a label in it that says where they are.
//!
//! ```text
//!  launcher | LABEL in its data        written by `cargo xtask package`
//!  ---------+
//!  table    | entries of 64 bytes: a name and a length; one without a name is the last
//!  contents | of each, in that order
//! ```
//!
//! The digest of the label is that of table and contents, and names the folder that they are unpacked into: a folder is never one of
//! another version.

use sha2::{Digest as _, Sha256};

use crate::place::{PathBuffer, TooLong};

/// By what the label is found in a launcher that has none yet; with zeros behind it, it says that there is nothing.
pub const MARK: &[u8; 16] = b"nexus-parcel-1\0\0";
pub const LABEL_BYTES: usize = 64;
pub const ENTRY_BYTES: usize = 64;

/// Longer names no file of ours has.
const NAME_BYTES: usize = ENTRY_BYTES - 8;

/// More files no tree of ours has. One entry more is the end.
pub const ENTRIES: usize = 31;
pub const TABLE_BYTES: usize = ENTRY_BYTES * (ENTRIES + 1);

/// What stands in the name of a folder between that of its tree and that of who unpacks it.
pub const UNFINISHED: &[u8] = b".new-";

/// So much of the digest is in the folder's name.
const NAMED_BYTES: usize = 16;

/// What a launcher carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where the table begins in the file.
    pub at: u64,
    pub digest: [u8; 32],
}

impl Label {
    /// None: nothing is behind this launcher.
    pub fn parse(bytes: &[u8; LABEL_BYTES]) -> Option<Self> {
        let at = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?);
        let digest = bytes.get(32..)?.try_into().ok()?;
        (at != 0).then_some(Self { at, digest })
    }

    pub fn to_bytes(self) -> [u8; LABEL_BYTES] {
        let mut bytes = [0; LABEL_BYTES];
        let parts = MARK.iter().copied().chain(self.at.to_le_bytes()).chain([0; 8]).chain(self.digest);
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Adds the name of the folder to a path.
    pub fn name_folder(&self, path: &mut PathBuffer) -> Result<(), TooLong> {
        path.push(b"/tree-")?;
        for byte in self.digest.iter().take(NAMED_BYTES) {
            let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
            path.push(&[digit(byte >> 4), digit(byte & 15)])?;
        }
        Ok(())
    }
}

/// The files, as the table has them.
pub struct Table<'a> {
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table at the beginning of these bytes. None: there is none whose every name is that of a file in one folder.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut at: usize = 0;
        loop {
            let entry = bytes.get(at..at.checked_add(ENTRY_BYTES)?)?;
            at += ENTRY_BYTES;
            let name = name_of(entry);
            if name.is_empty() {
                return Some(Self { bytes: bytes.get(..at)? });
            }
            if name.contains(&b'/') || name.starts_with(b".") || name.len() == NAME_BYTES {
                return None;
            }
        }
    }

    /// With the entry that ends it.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Names and lengths, in order.
    pub fn files(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        let entries = self.bytes.chunks_exact(ENTRY_BYTES);
        entries.map(|entry| (name_of(entry), length_of(entry))).take_while(|(name, _)| !name.is_empty())
    }
}

fn name_of(entry: &[u8]) -> &[u8] {
    let name = entry.get(..NAME_BYTES).unwrap_or_default();
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn length_of(entry: &[u8]) -> u64 {
    entry.get(NAME_BYTES..).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// One entry. None: the name is too long.
pub fn entry(name: &[u8], len: u64) -> Option<[u8; ENTRY_BYTES]> {
    if name.len() >= NAME_BYTES {
        return None;
    }
    let mut bytes = [0; ENTRY_BYTES];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    bytes.get_mut(NAME_BYTES..)?.copy_from_slice(&len.to_le_bytes());
    Some(bytes)
}

/// Of table and contents, as they come.
#[derive(Default)]
pub struct Digest(Sha256);

impl Digest {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Whether a folder of that name is one that somebody unpacks into, or began to, of whatever version.
pub fn is_unfinished(name: &[u8]) -> bool {
    name.starts_with(b"tree-") && name.windows(UNFINISHED.len()).any(|part| part == UNFINISHED)
}

/// Where the folder with the trees belongs: in the user's folder for what can be made again. None: the environment names none.
pub fn cache_folder(cache: Option<&[u8]>, home: Option<&[u8]>) -> Result<Option<PathBuffer>, TooLong> {
    let absolute = |path: &&[u8]| path.first() == Some(&b'/');
    let mut path = PathBuffer::new();
    if let Some(cache) = cache.filter(absolute) {
        path.set(cache)?;
    } else if let Some(home) = home.filter(absolute) {
        path.set(home)?;
        path.push(b"/.cache")?;
    } else {
        return Ok(None);
    }
    // With a slash at its end a link would not be seen as one.
    while path.as_bytes().len() > 1 && path.as_bytes().ends_with(b"/") {
        path.filled(path.as_bytes().len() - 1)?;
    }
    Ok(Some(path))
}

/// Whether a folder or file is ours or the system's, and nobody else may change it; that others may look into it harms nothing, since
/// anybody may have what is in it. `shared`: others may add to it, but not touch
/// what is not theirs, as in `/tmp`.
pub fn is_trusted(owner: u32, mode: u32, me: u32, shared: bool) -> bool {
    let closed = mode & 0o022 == 0 || (shared && mode & 0o1000 != 0);
    (owner == me || owner == 0) && closed
}

/// Whom files belong to whose owner has no number here (a user namespace).
const NOBODY_HERE: u32 = 65_534;

/// Whether a folder may be on the way to one of ours: whoever may write to it, may put another in the place of what is below.
pub fn may_lead_to_ours(owner: u32, mode: u32, me: u32) -> bool {
    is_trusted(if owner == NOBODY_HERE { 0 } else { owner }, mode, me, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written_and_an_empty_one_is_none() {
        let label = Label { at: 12_345, digest: [7; 32] };
        assert_eq!(Label::parse(&label.to_bytes()), Some(label));
        assert!(label.to_bytes().starts_with(MARK));
        let mut empty = [0; LABEL_BYTES];
        empty[..16].copy_from_slice(MARK);
        assert_eq!(Label::parse(&empty), None);
    }

    #[test]
    fn the_folder_has_the_digest_in_its_name() {
        let mut path = PathBuffer::new();
        path.set(b"/c").unwrap();
        Label { at: 1, digest: [0x1f; 32] }.name_folder(&mut path).unwrap();
        assert_eq!(path.as_bytes(), format!("/c/tree-{}", "1f".repeat(16)).as_bytes());
    }

    #[test]
    fn a_table_is_read_up_to_its_end_and_leads_out_of_no_folder() {
        let table = |names: &[&str]| {
            let entries = names.iter().map(|name| entry(name.as_bytes(), name.len() as u64).unwrap());
            entries.chain([entry(b"", 0).unwrap()]).collect::<Vec<_>>().concat()
        };
        let mut bytes = table(&["libc.so.6", "nexus-sidecar"]);
        bytes.extend([b'x'; 100]);
        let read = Table::parse(&bytes).unwrap();
        let files: Vec<_> = read.files().collect();
        assert_eq!(files, [(b"libc.so.6".as_slice(), 9), (b"nexus-sidecar".as_slice(), 13)]);
        assert_eq!(read.as_bytes().len(), 3 * ENTRY_BYTES);
        for name in ["../x", "a/b", "/x", "..", "."] {
            assert!(Table::parse(&table(&["libc.so.6", name])).is_none(), "{name}");
        }
        for len in 0..3 * ENTRY_BYTES {
            assert!(Table::parse(&bytes[..len]).is_none(), "cut off at {len}");
        }
        assert_eq!(entry(&[b'n'; NAME_BYTES], 0), None);
        assert!(Table::parse(&[b'n'; TABLE_BYTES]).is_none(), "a name without an end");
    }

    #[test]
    fn the_cache_is_where_the_environment_says_and_relative_paths_say_nothing() {
        let folder = |cache: Option<&str>, home: Option<&str>| {
            let found = cache_folder(cache.map(str::as_bytes), home.map(str::as_bytes)).unwrap();
            found.map(|path| String::from_utf8(path.as_bytes().to_vec()).unwrap())
        };
        for cache in ["/x", "/x/", "/x//"] {
            assert_eq!(folder(Some(cache), Some("/home/a")).unwrap(), "/x");
        }
        assert_eq!(folder(Some("/"), None).unwrap(), "/");
        for cache in [None, Some(""), Some("here")] {
            assert_eq!(folder(cache, Some("/home/a")).unwrap(), "/home/a/.cache");
            assert_eq!(folder(cache, None), None);
            assert_eq!(folder(cache, Some("~")), None);
        }
        assert!(cache_folder(Some(&[b'/'; 5000]), None).is_err());
    }

    #[test]
    fn a_folder_that_somebody_unpacks_into_is_known_by_its_name() {
        assert!(is_unfinished(b"tree-00ff.new-17-a"));
        for name in ["tree-00ff", "tree-", "other.new-17-a", ".new-", "tree.new-1-a", ""] {
            assert!(!is_unfinished(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_somebody_else_owns_or_may_change_is_not_trusted() {
        for (owner, mode, shared, trusted) in [
            (1000, 0o40700, false, true),
            (0, 0o40755, false, true),
            (1001, 0o40700, false, false),
            (1000, 0o40770, false, false),
            (1000, 0o40702, false, false),
            (0, 0o41777, true, true),
            (0, 0o41777, false, false),
            (1001, 0o41777, true, false),
        ] {
            assert_eq!(is_trusted(owner, mode, 1000, shared), trusted, "{owner} {mode:o} {shared}");
        }
    }

    #[test]
    fn what_leads_to_ours_may_be_of_a_system_whose_users_have_no_numbers_here() {
        for (owner, mode, led) in [
            (0, 0o40755, true),
            (1000, 0o40755, true),
            (65_534, 0o40755, true),
            (1001, 0o40755, false),
            (0, 0o41777, true),
            (1000, 0o40777, false),
            (65_534, 0o40777, false),
            (1000, 0o40775, false),
        ] {
            assert_eq!(may_lead_to_ours(owner, mode, 1000), led, "{owner} {mode:o}");
        }
    }

    #[test]
    fn the_digest_is_sha_256_of_all_that_came() {
        let mut digest = Digest::default();
        digest.add(b"a");
        digest.add(b"bc");
        assert_eq!(digest.end()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
