//! Where guests run: in the process that serves, or in sealed ones that may do nothing else.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Isolation {
    /// In the process that has the sockets, the keys and the cache.
    #[default]
    None,
    /// In a sealed worker, which all connections share.
    Shared,
    /// In a sealed worker for each connection.
    Connection,
}

impl Isolation {
    const ALL: [Self; 3] = [Self::None, Self::Shared, Self::Connection];

    /// As a setting names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Shared => "shared",
            Self::Connection => "connection",
        }
    }

    /// All of them.
    pub(super) fn words(separator: &str) -> String {
        Self::ALL.map(Self::word).join(separator)
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;

    #[test]
    fn help_names_all_of_them() {
        assert_eq!(Kind::Isolation.placeholder(), Isolation::words("|"));
    }
}
