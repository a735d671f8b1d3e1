//! Where the HTTP endpoint listens: an address, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// See the module. It has no authentication, so an address that others reach wants a setting of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    /// An absolute path, or address and port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self::Unix(text.into()));
        }
        text.parse().ok().map(Self::Tcp)
    }

    /// Whether nothing but this machine reaches it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_absolute_paths_are_taken_and_nothing_else() {
        let local = ["127.0.0.1:9090", "[::1]:80", "127.9.9.9:1", "/run/nexus/http.sock"].map(|text| (text, true));
        let remote = ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:127.0.0.1]:80"].map(|text| (text, false));
        for (text, is_local) in local.into_iter().chain(remote) {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.is_local()), (text, is_local));
        }
        for text in ["localhost:80", "127.0.0.1", ":80", "relative.sock", ""] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }
}
