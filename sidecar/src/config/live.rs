//! The configuration in force, of which some settings can be replaced while requests are served.

use std::ops::Deref;

use super::Config;
use super::table::SETTINGS;
use crate::os::Replaceable;

/// Read like a `Config`, by any thread and without a lock. A replaced one stays in memory: some hundred bytes for each
/// reload that a person asks for.
#[derive(Debug)]
pub struct LiveConfig(Replaceable<Config>);

impl LiveConfig {
    pub fn new(config: Config) -> Self {
        Self(Replaceable::new(config))
    }

    pub fn replace(&self, config: Config) {
        self.0.replace(config);
    }
}

impl Deref for LiveConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        self.0.get()
    }
}

/// Keys of the settings that a reload found changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub applied: Vec<&'static str>,
    /// They need a new start.
    pub ignored: Vec<&'static str>,
}

impl Config {
    /// `old` with the settings of `new` that can change while the sidecar serves.
    pub fn reloaded(old: &Self, mut new: Self) -> (Self, Changes) {
        let (mut config, mut changes) = (old.clone(), Changes::default());
        for setting in &SETTINGS {
            let (mut to, mut from) = ((setting.place)(&mut config), (setting.place)(&mut new));
            if to.to_toml(setting.kind) == from.to_toml(setting.kind) {
                continue;
            }
            if setting.live {
                to.swap(&mut from);
                changes.applied.push(setting.key);
            } else {
                changes.ignored.push(setting.key);
            }
        }
        (config, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_takes_what_can_change_and_names_the_rest() {
        let old = Config::default();
        let new = Config { timeout_ms: 7, debug: true, max_instances: 3, allow_uids: vec![5], ..old.clone() };
        let (config, changes) = Config::reloaded(&old, new);
        assert_eq!(config, Config { timeout_ms: 7, debug: true, ..old.clone() });
        assert_eq!(changes.applied, ["timeoutMs", "debug"]);
        assert_eq!(changes.ignored, ["maxInstances", "allowUids"]);
        assert_eq!(Config::reloaded(&old, old.clone()), (old, Changes::default()));
    }

    #[test]
    fn readers_see_the_new_configuration() {
        let live = LiveConfig::new(Config::default());
        let before: &Config = &live;
        live.replace(Config { timeout_ms: 9, ..Config::default() });
        assert_eq!((before.timeout_ms, live.timeout_ms), (Config::default().timeout_ms, 9));
    }
}
