//! The format of a cache entry: a handler in, bytes out, and back. No I/O.
//!
//! ```text
//! offset  bytes
//!      0      4  magic "NXQC"
//!      4      4  version of this format, little-endian
//!      8     32  digest of the engine that made the bytecode
//!     40     32  digest of the handler
//!     72      8  length of the body, little-endian
//!     80      n  body: MessagePack [source, bytecode, [[token, line, column, certain]..], suspend mode, us, why,
//!                [[message, line, column, end or nil]..], unparsed: [message, line, column] or nil]
//!   80+n     32  HMAC-SHA-256 over all that is before
//! ```
//!
//! QuickJS trusts bytecode as it trusts its own code, so nothing of a body is looked at before its tag is verified.

use std::time::Duration;

use hmac::Mac;
use nexus_protocol::message::SuspendMode;
use serde::{Deserialize, Serialize};

use super::key::Signer;
use super::{Handler, HandlerDigest, Need, Note, Warning};

/// To be raised when the layout or the meaning of a body changes.
const VERSION: u32 = 3;
const MAGIC: &[u8; 4] = b"NXQC";
pub(super) const HEADER_BYTES: usize = 80;
const TAG_BYTES: usize = 32;
/// A body, its list of needs, and a need are nested; with one more each for rmp-serde's own count.
const MAX_DEPTH: usize = 6;

/// Why bytes are no entry for a handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum EntryError {
    #[error("it is no cache entry")]
    Magic,
    #[error("its format is version {0}, not {VERSION}")]
    Version(u32),
    #[error("another engine made it")]
    Engine,
    #[error("it is another handler's")]
    Handler,
    #[error("its length is not the one that it says")]
    Length,
    #[error("its tag is wrong")]
    Tag,
    #[error("its body makes no sense")]
    Body,
}

/// Makes and verifies the entries of one engine under one key.
pub(super) struct Sealer {
    signer: Signer,
    engine: [u8; 32],
}

/// Message, line, column, and where what it explains ends.
type SealedWarning<'a> = (&'a str, u32, u32, Option<(u32, u32)>);

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    source: &'a str,
    #[serde(borrow, with = "serde_bytes")]
    bytecode: &'a [u8],
    #[serde(borrow)]
    needs: Vec<(&'a str, u32, u32, bool)>,
    suspend_mode: SuspendMode,
    /// What compiling took.
    took_us: u64,
    #[serde(borrow)]
    why: &'a str,
    #[serde(borrow)]
    warnings: Vec<SealedWarning<'a>>,
    #[serde(borrow)]
    unparsed: Option<(&'a str, u32, u32)>,
}

impl Sealer {
    pub fn new(signer: Signer, engine: [u8; 32]) -> Self {
        Self { signer, engine }
    }

    pub fn seal(&self, handler: &Handler) -> Vec<u8> {
        let mut entry = Vec::with_capacity(HEADER_BYTES + handler.source.len() + handler.bytecode.len() + 256);
        entry.extend_from_slice(MAGIC);
        entry.extend_from_slice(&VERSION.to_le_bytes());
        entry.extend_from_slice(&self.engine);
        entry.extend_from_slice(&handler.digest.0);
        entry.extend_from_slice(&[0; 8]);
        write_body(handler, &mut entry);
        let body_bytes = (entry.len() - HEADER_BYTES) as u64;
        entry[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
        let tag = self.signer.clone().chain_update(&entry).finalize().into_bytes();
        entry.extend_from_slice(&tag);
        entry
    }

    /// Whether a file that begins like this and has that length can be the entry of a handler. Not yet whether it is:
    /// this only saves reading the rest.
    pub fn check_header(&self, digest: &HandlerDigest, header: &[u8], len: u64) -> Result<(), EntryError> {
        let (magic, rest) = header.split_first_chunk::<4>().ok_or(EntryError::Length)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(EntryError::Length)?;
        let (engine, rest) = rest.split_first_chunk::<32>().ok_or(EntryError::Length)?;
        let (handler, rest) = rest.split_first_chunk::<32>().ok_or(EntryError::Length)?;
        let (body_bytes, _) = rest.split_first_chunk::<8>().ok_or(EntryError::Length)?;
        if magic != MAGIC {
            return Err(EntryError::Magic);
        }
        match u32::from_le_bytes(*version) {
            VERSION => {}
            other => return Err(EntryError::Version(other)),
        }
        if engine != &self.engine {
            return Err(EntryError::Engine);
        }
        if handler != &digest.0 {
            return Err(EntryError::Handler);
        }
        let around = (HEADER_BYTES + TAG_BYTES) as u64;
        if u64::from_le_bytes(*body_bytes).checked_add(around) != Some(len) {
            return Err(EntryError::Length);
        }
        Ok(())
    }

    /// The handler that an entry holds, if the entry is wholly ours and that handler's.
    pub fn unseal(&self, digest: &HandlerDigest, entry: &[u8]) -> Result<Handler, EntryError> {
        self.check_header(digest, entry, entry.len() as u64)?;
        let (signed, tag) = entry.split_last_chunk::<TAG_BYTES>().ok_or(EntryError::Length)?;
        self.signer.clone().chain_update(signed).verify_slice(tag).map_err(|_| EntryError::Tag)?;
        let body = signed.get(HEADER_BYTES..).ok_or(EntryError::Length)?;
        read_body(&self.engine, digest, body)
    }
}

/// Appends the body of a handler's entry.
pub(super) fn write_body(handler: &Handler, out: &mut Vec<u8>) {
    let needs = handler.capabilities.iter().map(|n| (&*n.token, n.line, n.column, n.certain)).collect();
    let body = Body {
        source: &handler.source,
        bytecode: &handler.bytecode,
        needs,
        suspend_mode: handler.suspend_mode,
        took_us: u64::try_from(handler.took.as_micros()).unwrap_or(u64::MAX),
        why: &handler.why,
        warnings: handler
            .warnings
            .iter()
            .map(|w| (&*w.note.message, w.note.line, w.note.column, w.explains_until))
            .collect(),
        unparsed: handler.unparsed.as_ref().map(|note| (&*note.message, note.line, note.column)),
    };
    // into memory it cannot fail; an entry cut short by a failure would be refused
    let _ = rmp_serde::encode::write(out, &body);
}

/// The handler of a body, if it is the body of that one. Whether its bytecode is what its source says is not to be seen here.
pub(super) fn read_body(engine: &[u8; 32], digest: &HandlerDigest, body: &[u8]) -> Result<Handler, EntryError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    decoder.set_max_depth(MAX_DEPTH);
    let body = Body::deserialize(&mut decoder).map_err(|_| EntryError::Body)?;
    // also holds back an entry that a sidecar made which derives digests, and maybe handlers, in another way
    let digests = [None, Some(body.suspend_mode)].map(|mode| HandlerDigest::forced(engine, mode, body.source));
    if !digests.contains(digest) {
        return Err(EntryError::Handler);
    }
    let need =
        |(token, line, column, certain): (&str, u32, u32, bool)| Need { token: token.into(), line, column, certain };
    let note = |(message, line, column): (&str, u32, u32)| Note { message: message.into(), line, column };
    Ok(Handler {
        digest: *digest,
        source: body.source.into(),
        bytecode: body.bytecode.into(),
        capabilities: body.needs.into_iter().map(need).collect(),
        suspend_mode: body.suspend_mode,
        why: body.why.into(),
        warnings: body
            .warnings
            .into_iter()
            .map(|(message, line, column, explains_until)| Warning {
                note: note((message, line, column)),
                explains_until,
            })
            .collect(),
        unparsed: body.unparsed.map(note),
        took: Duration::from_micros(body.took_us),
    })
}

#[cfg(test)]
mod tests {
    use super::super::key::signer;
    use super::*;

    const ENGINE: [u8; 32] = [4; 32];

    fn sealer() -> Sealer {
        Sealer::new(signer(&[9; 32]), ENGINE)
    }

    fn handler(source: &str) -> Handler {
        Handler {
            digest: HandlerDigest::new(&ENGINE, source),
            source: source.into(),
            bytecode: (0..=255).collect(),
            capabilities: vec![
                Need { token: "state:read:k".into(), line: 1, column: 9, certain: true },
                Need { token: "ext:*".into(), line: u32::MAX, column: 0, certain: false },
            ],
            suspend_mode: SuspendMode::Stack,
            why: "calls extensions".into(),
            warnings: [Some((1, 9)), None]
                .map(|explains_until| Warning {
                    note: Note { message: "w".into(), line: 1, column: 2 },
                    explains_until,
                })
                .into(),
            unparsed: Some(Note { message: "u".into(), line: 2, column: 1 }),
            took: Duration::from_micros(1234),
        }
    }

    fn same(a: &Handler, b: &Handler) -> bool {
        a.digest == b.digest
            && a.source == b.source
            && a.bytecode == b.bytecode
            && a.capabilities == b.capabilities
            && a.suspend_mode == b.suspend_mode
            && a.why == b.why
            && a.warnings == b.warnings
            && a.unparsed == b.unparsed
            && a.took == b.took
    }

    #[test]
    fn a_handler_comes_back_as_it_was() {
        let (sealer, bare) = (sealer(), handler(""));
        let full = handler("return $state.k // \u{1f600}");
        let bare =
            Handler { capabilities: Vec::new(), bytecode: [].into(), warnings: [].into(), unparsed: None, ..bare };
        for handler in [full, bare] {
            let back = sealer.unseal(&handler.digest, &sealer.seal(&handler)).unwrap();
            assert!(same(&back, &handler), "{back:?}");
        }
    }

    #[test]
    fn no_bit_of_an_entry_may_differ() {
        let (sealer, handler) = (sealer(), handler("return 1"));
        let mut entry = sealer.seal(&handler);
        for at in 0..entry.len() {
            for bit in 0..8 {
                entry[at] ^= 1 << bit;
                assert!(sealer.unseal(&handler.digest, &entry).is_err(), "byte {at} bit {bit}");
                entry[at] ^= 1 << bit;
            }
        }
        assert!(sealer.unseal(&handler.digest, &entry).is_ok());
    }

    #[test]
    fn an_entry_has_one_length() {
        let (sealer, handler) = (sealer(), handler("return 1"));
        let entry = sealer.seal(&handler);
        for len in 0..entry.len() {
            assert_eq!(sealer.unseal(&handler.digest, &entry[..len]).err(), Some(EntryError::Length), "length {len}");
        }
        let longer = [entry.as_slice(), &[0]].concat();
        assert_eq!(sealer.unseal(&handler.digest, &longer).err(), Some(EntryError::Length));
    }

    #[test]
    fn a_length_that_overflows_is_refused() {
        let (sealer, handler) = (sealer(), handler("return 1"));
        let mut entry = sealer.seal(&handler);
        for len in [u64::MAX, u64::MAX - 111, 0] {
            entry[72..80].copy_from_slice(&len.to_le_bytes());
            assert_eq!(sealer.unseal(&handler.digest, &entry).err(), Some(EntryError::Length));
        }
    }

    #[test]
    fn an_entry_counts_for_its_handler_engine_and_key_only() {
        let (ours, a, b) = (sealer(), handler("a"), handler("b"));
        let entry = ours.seal(&a);
        assert_eq!(ours.unseal(&b.digest, &entry).err(), Some(EntryError::Handler));
        let other_engine = Sealer::new(signer(&[9; 32]), [5; 32]);
        assert_eq!(other_engine.unseal(&a.digest, &entry).err(), Some(EntryError::Engine));
        let other_key = Sealer::new(signer(&[8; 32]), ENGINE);
        assert_eq!(other_key.unseal(&a.digest, &entry).err(), Some(EntryError::Tag));
    }

    #[test]
    fn a_source_that_is_not_the_digests_is_refused_even_when_signed() {
        let (sealer, a) = (sealer(), handler("a"));
        let lie = Handler { source: "b".into(), ..handler("a") };
        assert_eq!(sealer.unseal(&a.digest, &sealer.seal(&lie)).err(), Some(EntryError::Handler));
    }

    #[test]
    fn a_signed_body_of_another_shape_is_refused() {
        let (sealer, handler) = (sealer(), handler("a"));
        let sealed = sealer.seal(&handler);
        let claims_4_gib = |before: &[u8]| [before, &[0xff; 4]].concat();
        let bodies = [
            vec![],
            vec![0xc0],
            vec![0x94],
            // an array in an array, and so on
            vec![0x91; 4096],
            [&[0x94, 0xa0, 0xc4, 0][..], &[0x91; 4096]].concat(),
            // lengths that nothing follows: of the body, the source, the bytecode, the needs, a token
            claims_4_gib(&[0xdd]),
            claims_4_gib(&[0x94, 0xdb]),
            claims_4_gib(&[0x94, 0xa0, 0xc6]),
            claims_4_gib(&[0x94, 0xa0, 0xc4, 0, 0xdd]),
            claims_4_gib(&[0x94, 0xa0, 0xc4, 0, 0x91, 0x94, 0xdb]),
        ];
        for body in bodies {
            let mut entry = sealed[..HEADER_BYTES - 8].to_vec();
            entry.extend_from_slice(&(body.len() as u64).to_le_bytes());
            entry.extend_from_slice(&body);
            let tag = sealer.signer.clone().chain_update(&entry).finalize().into_bytes();
            entry.extend_from_slice(&tag);
            assert_eq!(sealer.unseal(&handler.digest, &entry).err(), Some(EntryError::Body), "{body:?}");
        }
    }
}
