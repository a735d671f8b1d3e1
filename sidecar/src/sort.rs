//! A sort that can be left: what it sorts may be as much as a client likes, and who waits for it may have no time left.

/// Keys that are sorted in one go, or merged between two questions whether to go on.
pub(crate) const RUN: usize = 4096;

/// Sorts, in pieces, as long as it may go on: a sort of the library could not be left.
pub fn sort<T: Ord + Copy>(items: &mut Vec<T>, goes_on: &mut dyn FnMut() -> bool) -> bool {
    for run in items.chunks_mut(RUN) {
        if !goes_on() {
            return false;
        }
        run.sort_unstable();
    }
    let mut merged: Vec<T> = Vec::with_capacity(if items.len() > RUN { items.len() } else { 0 });
    let mut width = RUN;
    while width < items.len() {
        merged.clear();
        for pair in items.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let ([l, left_rest @ ..], [r, right_rest @ ..]) = (left, right) {
                if merged.len().is_multiple_of(RUN) && !goes_on() {
                    return false;
                }
                if r < l {
                    merged.push(*r);
                    right = right_rest;
                } else {
                    merged.push(*l);
                    left = left_rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(items, &mut merged);
        width *= 2;
    }
    true
}
