//! Where the HTTP endpoint listens: a loopback address, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// See the module. It has no authentication, so no address of a network is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Loopback(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    /// An absolute path, or address and port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Unix(text.into()));
        }
        let address: SocketAddr = text.parse().ok()?;
        address.ip().is_loopback().then_some(Self::Loopback(address))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_and_absolute_paths_are_taken_and_nothing_else() {
        for text in ["127.0.0.1:9090", "[::1]:80", "127.9.9.9:1", "/run/nexus/http.sock"] {
            assert_eq!(Endpoint::parse(text).map(|e| e.to_string()).as_deref(), Some(text));
        }
        for text in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "localhost:80", "127.0.0.1", ":80", "relative.sock", ""] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }
}
