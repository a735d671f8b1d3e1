//! Rust client of nexus-sidecar.

#![forbid(unsafe_code)]
