//! Private directories for tests, gone when dropped.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::os;

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let mut random = [0; 16];
        os::fill_random(&mut random).unwrap();
        let path = std::env::temp_dir().join(format!("nexus-cache-{:032x}", u128::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
