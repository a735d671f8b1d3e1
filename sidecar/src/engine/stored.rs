//! How the guests lie in the program: as they are, or packed.
//!
//! A build from source has them as they are. A package has native code for several levels of processors, of which one is ever used: there
//! each is a frame of zstd, and all but the first of a guest are the difference from that one. What is not used is never
//! unpacked. The module, which is within its own native code, is not kept a second time.
//!
//! The frames are part of this binary, as trustworthy as the rest of it; one that does not unpack is a damaged binary.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use zstd_safe::DCtx;

#[allow(dead_code, reason = "a build has some of them")]
#[derive(Debug)]
pub enum Stored {
    Plain(&'static [u8]),
    Packed(&'static [u8]),
    Difference {
        frame: &'static [u8],
        from: &'static Stored,
    },
    /// A module within its native code.
    Within {
        code: &'static Stored,
        len: usize,
        digest: [u8; 32],
    },
}

/// The program's own bytes are not what they were when it was built.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged;

impl Stored {
    /// As it was before it was packed.
    pub fn bytes(&self) -> Result<Cow<'static, [u8]>, Damaged> {
        match self {
            Self::Plain(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Packed(frame) => unpack(frame, None).map(Cow::Owned),
            Self::Difference { frame, from } => unpack(frame, Some(&from.bytes()?)).map(Cow::Owned),
            Self::Within { code, len, digest } => within(&code.bytes()?, *len, digest).map(Cow::Owned),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed(frame) | Self::Difference { frame, .. } => length_of(frame).unwrap_or(0),
            Self::Within { len, .. } => *len,
        }
    }
}

/// What a frame says that it unpacks to.
fn length_of(frame: &[u8]) -> Option<usize> {
    zstd_safe::get_frame_content_size(frame).ok().flatten().and_then(|len| len.try_into().ok())
}

fn unpack(frame: &[u8], from: Option<&[u8]>) -> Result<Vec<u8>, Damaged> {
    let len = length_of(frame).ok_or(Damaged)?;
    let mut context = DCtx::try_create().ok_or(Damaged)?;
    if let Some(from) = from {
        context.ref_prefix(from).map_err(|_| Damaged)?;
    }
    let mut bytes = Vec::with_capacity(len);
    context.decompress(&mut bytes, frame).map_err(|_| Damaged)?;
    if bytes.len() == len { Ok(bytes) } else { Err(Damaged) }
}

/// The part of so many bytes that begins as a module does and has this digest.
fn within(code: &[u8], len: usize, digest: &[u8; 32]) -> Result<Vec<u8>, Damaged> {
    let modules = code.windows(len).filter(|part| part.starts_with(b"\0asm"));
    let found = modules.into_iter().find(|part| Sha256::digest(part)[..] == digest[..]);
    found.map(<[u8]>::to_vec).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaked(bytes: Vec<u8>) -> &'static [u8] {
        Box::leak(bytes.into_boxed_slice())
    }

    fn packed(bytes: &[u8], from: Option<&[u8]>) -> &'static [u8] {
        let mut context = zstd_safe::CCtx::create();
        if let Some(from) = from {
            context.ref_prefix(from).unwrap();
        }
        let mut frame = Vec::with_capacity(bytes.len() + 1000);
        context.compress2(&mut frame, bytes).unwrap();
        leaked(frame)
    }

    /// Bytes that nothing makes smaller, and some more that differ from them here and there.
    fn two() -> (Vec<u8>, Vec<u8>) {
        let mut state = 1_u32;
        let one: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut other = one.clone();
        other.iter_mut().step_by(1000).for_each(|byte| *byte = byte.wrapping_add(1));
        other.extend(b"more");
        (one, other)
    }

    #[test]
    fn a_difference_is_small_and_what_comes_of_it_is_the_same() {
        let (one, other) = two();
        let first: &Stored = Box::leak(Box::new(Stored::Packed(packed(&one, None))));
        let frame = packed(&other, Some(&one));
        assert!(frame.len() < one.len() / 10, "{}", frame.len());
        assert_eq!(first.bytes().unwrap(), one);
        let second = Stored::Difference { frame, from: first };
        assert_eq!((second.bytes().unwrap().as_ref(), second.len()), (other.as_slice(), other.len()));
    }

    #[test]
    fn a_frame_that_is_cut_off_or_of_something_else_is_damaged() {
        let (one, other) = two();
        let frame = packed(&one, None);
        for len in [0, 3, 100, frame.len() - 1] {
            assert_eq!(Stored::Packed(&frame[..len]).bytes(), Err(Damaged), "{len}");
        }
        assert_eq!(Stored::Packed(b"no frame at all").bytes(), Err(Damaged));
        let wrong: &Stored = Box::leak(Box::new(Stored::Plain(b"")));
        let frame = packed(&other, Some(&one));
        assert_eq!(Stored::Difference { frame, from: wrong }.bytes(), Err(Damaged));
    }

    #[test]
    fn a_module_is_found_in_its_code_by_its_digest() {
        let module = b"\0asm the one".to_vec();
        let code = [b"\0asm another \0asm".to_vec(), module.clone(), b" after".to_vec()].concat();
        let code: &Stored = Box::leak(Box::new(Stored::Plain(leaked(code))));
        let found = |digest: [u8; 32]| Stored::Within { code, len: module.len(), digest }.bytes();
        assert_eq!(found(Sha256::digest(&module).into()).unwrap(), module);
        assert_eq!(found([0; 32]), Err(Damaged));
    }
}
