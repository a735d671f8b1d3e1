//! Handles of compiled handlers: what `precompile` gives out, opaque to clients and signed, so that nobody can make one up.
//!
//! A handle is no bytecode: it names an entry of the cache. The entry may be gone; then the client compiles again.

use std::io;

use hmac::Mac;

use super::HandlerDigest;
use super::key::{Signer, signer};
use crate::os;

const MAGIC: &[u8; 4] = b"NXH1";
const TAG_BYTES: usize = 32;
/// Length of a handle.
pub const HANDLE_BYTES: usize = 4 + 32 + TAG_BYTES;

/// Key under which handles are signed: the cache directory's, so that handles live as long as what they name, or one of this
/// process where there is no such directory.
#[derive(Clone)]
pub struct HandleKey([u8; 32]);

impl HandleKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// One that nobody else has.
    pub fn random() -> io::Result<Self> {
        let mut key = [0; 32];
        os::fill_random(&mut key)?;
        Ok(Self(key))
    }

    /// For another process that may sign as well.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    fn signer(&self, digest: &HandlerDigest) -> Signer {
        signer(&self.0).chain_update(MAGIC).chain_update(digest.0)
    }

    pub fn sign(&self, digest: &HandlerDigest) -> Vec<u8> {
        let mut handle = Vec::with_capacity(HANDLE_BYTES);
        handle.extend_from_slice(MAGIC);
        handle.extend_from_slice(&digest.0);
        handle.extend_from_slice(&self.signer(digest).finalize().into_bytes());
        handle
    }

    /// The digest that a handle names, if it is one of ours.
    pub fn verify(&self, handle: &[u8]) -> Option<HandlerDigest> {
        let (magic, rest) = handle.split_first_chunk::<4>()?;
        let (digest, tag) = rest.split_first_chunk::<32>()?;
        if magic != MAGIC {
            return None;
        }
        let digest = HandlerDigest(*digest);
        self.signer(&digest).verify_slice(tag).ok()?;
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_valid_until_any_byte_changes() {
        let key = HandleKey::new([7; 32]);
        let digest = HandlerDigest([3; 32]);
        let handle = key.sign(&digest);
        assert_eq!(handle.len(), HANDLE_BYTES);
        assert_eq!(key.verify(&handle), Some(digest));
        assert_eq!(HandleKey::new([8; 32]).verify(&handle), None);
        assert_eq!(HandleKey::new(key.bytes()).verify(&handle), Some(digest));
        for i in 0..handle.len() {
            let mut forged = handle.clone();
            forged[i] ^= 1;
            assert_eq!(key.verify(&forged), None, "byte {i}");
            assert_eq!(key.verify(&handle[..i]), None, "length {i}");
        }
    }
}
