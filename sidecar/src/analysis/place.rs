//! Offsets to lines and columns: 1-based, columns in UTF-16 units, as editors and JavaScript count.
//!
//! Lines end as the patched QuickJS and editors end them: with LF, or CRLF.

/// The places of offsets, in the order given; one pass over the text.
pub(super) fn places(source: &str, offsets: &[usize]) -> Vec<(u32, u32)> {
    let mut order: Vec<usize> = (0..offsets.len()).collect();
    order.sort_unstable_by_key(|index| offsets.get(*index));
    let mut found = vec![(1, 1); offsets.len()];
    let (mut line, mut column) = (1u32, 1u32);
    let mut characters = source.char_indices().peekable();
    for index in order {
        let offset = offsets.get(index).copied().unwrap_or_default();
        while let Some((_, character)) = characters.next_if(|(at, _)| *at < offset) {
            if character == '\n' {
                (line, column) = (line + 1, 1);
            } else {
                column += character.len_utf16() as u32;
            }
        }
        if let Some(place) = found.get_mut(index) {
            *place = (line, column);
        }
    }
    found
}

/// The place of one offset.
pub(super) fn place(source: &str, offset: usize) -> (u32, u32) {
    places(source, &[offset]).first().copied().unwrap_or((1, 1))
}

/// The offset of a place, within the text.
pub(super) fn offset(source: &str, line: u32, column: u32) -> usize {
    let begins: usize = source.split_inclusive('\n').take(line.saturating_sub(1) as usize).map(str::len).sum();
    let rest = source.get(begins..).unwrap_or_default();
    let mut units = 0;
    let wanted = column.saturating_sub(1) as usize;
    let on_line = rest.char_indices().find(|(_, character)| {
        let found = units >= wanted || *character == '\n';
        units += character.len_utf16();
        found
    });
    begins + on_line.map_or(rest.len(), |(at, _)| at)
}
