//! Where guests run: in the process that serves, or in one that may do nothing else.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Isolation {
    /// In the process that has the sockets, the keys and the cache.
    #[default]
    None,
    /// In a sealed worker, which all connections share.
    Shared,
}

impl Isolation {
    /// As a setting names them.
    pub const WORDS: &[&str] = &["none", "shared"];

    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Shared => "shared",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Shared].into_iter().find(|one| one.word() == word)
    }
}
