//! The configuration of a sidecar: one typed value, made at start and then only read; `live.rs` replaces it when it is
//! asked for again.
//!
//! The numbers are in `nexus_protocol::limits`. `settings.rs`, which is written from `protocol/schema.toml`, lists every
//! setting; the flags, the environment variables, the keys of the file, the help text, the bounds and the output of
//! `--check-config` are all derived from that list, so none can drift from another.
//! `load.rs` merges the sources (flag, then environment, then file, then default) into a [`Loaded`].
//!
//! What this does not do: touch the directories and modules that the settings name, or know what a flag looks like to
//! the argument parser (`cli.rs`).

mod effective;
mod endpoint;
mod error;
mod file;
mod isolation;
mod live;
mod load;
mod order;
mod settings;
mod table;
mod value;

pub use effective::{Loaded, Origin};
pub use endpoint::Endpoint;
pub use error::{ConfigError, ConfigErrors};
pub use isolation::Isolation;
pub use live::{Changes, LiveConfig};
pub use load::{CONNECT_VARIABLE, ConfigArgs};
pub use settings::{Config, SETTINGS};
pub use table::Setting;
pub use value::Kind;
