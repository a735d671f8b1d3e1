//! Paths, as bytes with a NUL at their end: where the launcher stands, and the files beside it.

/// Longer paths the kernel does not take; its end is the NUL.
pub const PATH_BYTES: usize = 4096;

/// What the kernel puts behind the path of a program whose file has been removed or replaced.
const DELETED: &[u8] = b" (deleted)";

/// A path that is built in place. One that would be too long stays as it was, and says so.
#[derive(Clone)]
pub struct PathBuffer {
    bytes: [u8; PATH_BYTES],
    len: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl PathBuffer {
    #[allow(clippy::new_without_default, reason = "there is one way to make it")]
    pub const fn new() -> Self {
        Self { bytes: [0; PATH_BYTES], len: 0 }
    }

    /// Without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// With it.
    pub fn with_nul(&self) -> &[u8] {
        self.bytes.get(..=self.len).unwrap_or(b"\0")
    }

    /// All of it, for somebody who fills it and then tells by [`Self::filled`] how far.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub fn filled(&mut self, len: usize) -> Result<(), TooLong> {
        let end = self.bytes.get_mut(len).ok_or(TooLong)?;
        *end = 0;
        self.len = len;
        Ok(())
    }

    pub fn set(&mut self, path: &[u8]) -> Result<(), TooLong> {
        self.bytes.get_mut(..path.len()).ok_or(TooLong)?.copy_from_slice(path);
        self.filled(path.len())
    }

    pub fn push(&mut self, more: &[u8]) -> Result<(), TooLong> {
        let end = self.len.checked_add(more.len()).ok_or(TooLong)?;
        self.bytes.get_mut(self.len..end).ok_or(TooLong)?.copy_from_slice(more);
        self.filled(end)
    }

    /// In decimal digits.
    pub fn push_number(&mut self, number: usize) -> Result<(), TooLong> {
        if number > 9 {
            self.push_number(number / 10)?;
        }
        self.push(&[b'0' + (number % 10) as u8])
    }

    /// Takes away what follows the last slash; of a name without one everything, which leaves the current folder.
    pub fn to_parent(&mut self) -> Result<(), TooLong> {
        match self.as_bytes().iter().rposition(|byte| *byte == b'/') {
            Some(0) => self.filled(1),
            Some(slash) => self.filled(slash),
            None => self.set(b"."),
        }
    }

    /// The kernel's mark is no part of the name, unless a file is called so.
    pub fn without_mark(&mut self) -> Result<bool, TooLong> {
        let Some(path) = self.as_bytes().strip_suffix(DELETED) else { return Ok(false) };
        let len = path.len();
        self.filled(len)?;
        Ok(true)
    }

    /// Goes where a link points that stands at this path.
    pub fn follow(&mut self, target: &[u8]) -> Result<(), TooLong> {
        if target.first() == Some(&b'/') {
            return self.set(target);
        }
        self.to_parent()?;
        self.push(b"/")?;
        self.push(target)
    }
}

/// Whether the loader would read something else from this path than its letters, where it is in a list of paths.
pub fn means_something_in_a_list(path: &[u8]) -> bool {
    path.iter().any(|byte| b":$".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &[u8]) -> PathBuffer {
        let mut path = PathBuffer::new();
        path.set(text).unwrap();
        path
    }

    #[test]
    fn the_parent_of_a_path_is_what_stands_before_its_last_slash() {
        for (of, parent) in
            [("/a/b/c", "/a/b"), ("/a", "/"), ("a/b", "a"), ("a", "."), ("./a", "."), ("/a b:c/$d", "/a b:c")]
        {
            let mut path = path(of.as_bytes());
            path.to_parent().unwrap();
            assert_eq!(path.as_bytes(), parent.as_bytes(), "{of}");
            assert_eq!(path.with_nul().last(), Some(&0));
        }
    }

    #[test]
    fn a_link_leads_on_from_where_it_stands() {
        for (at, target, to) in
            [("/usr/bin/n", "../lib/n", "/usr/bin/../lib/n"), ("n", "m", "./m"), ("/usr/bin/n", "/opt/n", "/opt/n")]
        {
            let mut path = path(at.as_bytes());
            path.follow(target.as_bytes()).unwrap();
            assert_eq!(path.as_bytes(), to.as_bytes());
        }
    }

    #[test]
    fn a_number_is_written_in_decimal_digits() {
        for number in [0, 9, 10, 4_194_304, usize::MAX] {
            let mut path = path(b"/n-");
            path.push_number(number).unwrap();
            assert_eq!(path.as_bytes(), format!("/n-{number}").as_bytes());
        }
    }

    #[test]
    fn what_is_too_long_is_refused_and_never_cut() {
        let mut path = path(&[b'a'; PATH_BYTES - 3]);
        assert_eq!(path.push(b"/"), Ok(()));
        assert_eq!(path.push(b"bc"), Err(TooLong));
        assert_eq!(path.as_bytes().len(), PATH_BYTES - 2);
        assert_eq!(path.push(b"b"), Ok(()));
        assert_eq!(path.with_nul().len(), PATH_BYTES);
        assert_eq!(path.filled(PATH_BYTES), Err(TooLong));
    }

    #[test]
    fn the_kernels_mark_of_a_replaced_file_is_taken_away() {
        let mut marked = path(b"/opt/n/bin/nexus-sidecar (deleted)");
        assert_eq!(marked.without_mark(), Ok(true));
        assert_eq!(marked.as_bytes(), b"/opt/n/bin/nexus-sidecar");
        assert_eq!(marked.without_mark(), Ok(false));
    }
}
