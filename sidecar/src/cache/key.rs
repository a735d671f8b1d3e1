//! The secret of a cache directory: 32 random bytes in its file `key`, made by the first sidecar that uses the directory.
//!
//! Whoever can read the key can make the sidecar run bytecode of theirs, so a key file that others could have read or
//! written is not used: a new one takes its place, and what was made under the old one is void. A file of that name that is
//! no key is somebody's who uses the directory for something else: it stays, and the directory is not used.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::dir::{Dir, DirError, OpenError};
use crate::os;

const FILE: &str = "key";
const KEY_BYTES: usize = 32;
const KEY_LEN: u64 = KEY_BYTES as u64;

pub(super) type Signer = Hmac<Sha256>;

/// The content of a key file. Keys for single purposes are derived from it.
pub(super) struct CacheKey([u8; KEY_BYTES]);

impl CacheKey {
    /// The directory's key, made if there is none.
    pub fn of(dir: &Dir) -> Result<Self, DirError> {
        if let Ok(key) = Self::read(dir) {
            return Ok(key);
        }
        // one sidecar at a time from here; those that waited find the winner's key
        let _lock = dir.lock()?;
        match Self::read(dir) {
            Ok(key) => return Ok(key),
            Err(OpenError::Missing) => {}
            Err(OpenError::Foreign(why)) => match dir.len_of_own(FILE) {
                // ours, but not as we have made it; or what a power failure has left of it
                Some(0 | KEY_LEN) => {
                    log::warn!("the key of the cache in {} is replaced: {why}", dir.path().display());
                    dir.remove(FILE);
                }
                _ => return Err(DirError::Taken { name: FILE, why }),
            },
            Err(OpenError::Io(error)) => return Err(error.into()),
        }
        let mut key = [0; KEY_BYTES];
        os::fill_random(&mut key)?;
        dir.write_synced(FILE, &key)?;
        Ok(Self(key))
    }

    fn read(dir: &Dir) -> Result<Self, OpenError> {
        let mut file = dir.open_file(FILE)?;
        if file.len() != KEY_LEN {
            return Err(OpenError::Foreign("it has not the length of a key"));
        }
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// The key for one purpose. Knowing it tells nothing of the keys for others.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        signer(&self.0).chain_update(purpose).finalize().into_bytes().into()
    }
}

/// HMAC-SHA-256 under `key`.
pub(super) fn signer(key: &[u8; 32]) -> Signer {
    // HMAC fills a key up to its block with zeros; handing in a whole block leaves no way to fail
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    Signer::new(&block.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::scratch::Scratch;
    use super::*;

    fn key(scratch: &Scratch) -> [u8; 32] {
        CacheKey::of(&Dir::open(scratch.path()).unwrap()).unwrap().0
    }

    #[test]
    fn a_block_filled_up_with_zeros_is_the_same_key() {
        let key = [7; 32];
        let other = <Signer as Mac>::new_from_slice(&key).unwrap().chain_update("x").finalize().into_bytes();
        assert_eq!(signer(&key).chain_update("x").finalize().into_bytes(), other);
    }

    #[test]
    fn the_key_of_a_directory_stays_and_is_private() {
        let (one, other) = (Scratch::new(), Scratch::new());
        let first = key(&one);
        assert_eq!(key(&one), first);
        assert_ne!(key(&other), first);
        let file = fs::metadata(one.path().join(FILE)).unwrap();
        assert_eq!((file.permissions().mode() & 0o7777, file.len()), (0o600, 32));
    }

    #[test]
    fn sidecars_that_start_together_have_one_key() {
        let scratch = Scratch::new();
        let barrier = std::sync::Barrier::new(8);
        let start = || {
            barrier.wait();
            key(&scratch)
        };
        let keys: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|k| k == &keys[0]));
    }

    #[test]
    fn what_is_no_key_stays_and_the_directory_is_not_used() {
        let scratch = Scratch::new();
        let (file, elsewhere) = (scratch.path().join(FILE), scratch.path().join("elsewhere"));
        let others: [&dyn Fn(); 5] = [
            &|| fs::write(&file, [1; 31]).unwrap(),
            &|| fs::write(&file, [1; 33]).unwrap(),
            &|| fs::write(&file, "-----BEGIN PRIVATE KEY-----").unwrap(),
            &|| {
                fs::write(&elsewhere, [1; KEY_BYTES]).unwrap();
                symlink(&elsewhere, &file).unwrap();
            },
            &|| fs::create_dir(&file).unwrap(),
        ];
        for put in others {
            let _ = fs::remove_file(&file);
            put();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            let before = fs::symlink_metadata(&file).unwrap();
            let key = CacheKey::of(&Dir::open(scratch.path()).unwrap()).map(|key| key.0);
            assert!(matches!(key, Err(DirError::Taken { .. })), "{key:?}");
            let after = fs::symlink_metadata(&file).unwrap();
            assert_eq!((after.ino(), after.len()), (before.ino(), before.len()));
        }
    }

    #[test]
    fn a_key_that_is_not_private_or_not_whole_is_replaced() {
        let scratch = Scratch::new();
        let file = scratch.path().join(FILE);
        let spoils: [&dyn Fn(); 4] = [
            &|| fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap(),
            &|| fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap(),
            &|| fs::hard_link(&file, scratch.path().join("second")).unwrap(),
            &|| fs::write(&file, []).unwrap(),
        ];
        for spoil in spoils {
            let before = key(&scratch);
            spoil();
            let after = key(&scratch);
            assert_ne!(before, after);
            assert_eq!(key(&scratch), after);
        }
    }
}
