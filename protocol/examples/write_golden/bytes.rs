//! MessagePack and frames put together by hand.

/// A frame around a body.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).expect("vectors are small").to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// `[kind, id, fields]`, `fields` as given.
pub(crate) fn body(kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x93];
    rmp::encode::write_uint(&mut bytes, u64::from(kind)).expect("memory");
    rmp::encode::write_uint(&mut bytes, u64::from(id)).expect("memory");
    bytes.extend_from_slice(fields);
    bytes
}

/// A map of strs to encoded values.
pub(crate) fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp::encode::write_map_len(&mut bytes, entries.len() as u32).expect("memory");
    for (key, value) in entries {
        bytes.extend_from_slice(&text(key));
        bytes.extend_from_slice(value);
    }
    bytes
}

/// An array of encoded values.
pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp::encode::write_array_len(&mut bytes, items.len() as u32).expect("memory");
    bytes.extend(items.iter().flatten());
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp::encode::write_str(&mut bytes, text).expect("memory");
    bytes
}

pub(crate) fn bin(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp::encode::write_bin(&mut bytes, content).expect("memory");
    bytes
}

pub(crate) fn uint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmp::encode::write_uint(&mut bytes, value).expect("memory");
    bytes
}

pub(crate) fn nil() -> Vec<u8> {
    vec![0xc0]
}

/// `levels` arrays around one another, nil in the innermost.
pub(crate) fn nested_arrays(levels: usize) -> Vec<u8> {
    let mut bytes = vec![0x91; levels];
    bytes.push(0xc0);
    bytes
}
