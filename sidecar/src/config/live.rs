//! The configuration in force, of which some settings can be replaced while requests are served.

use std::ops::Deref;

use super::effective::{Loaded, Origin};
use super::error::ConfigErrors;
use super::settings::SETTINGS;
use super::{Config, order};
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

impl Loaded {
    /// `old`, which is in force, with the settings of this one that can change while the sidecar serves: all of them, or none
    /// if what would come of it is wrong.
    pub fn over(mut self, old: &Config) -> Result<(Config, Changes), ConfigErrors> {
        let (mut config, mut changes) = (old.clone(), Changes::default());
        for (setting, origin) in SETTINGS.iter().zip(&mut self.origins) {
            let (mut to, mut from) = ((setting.place)(&mut config), (setting.place)(&mut self.config));
            let same = to.to_toml(setting.kind) == from.to_toml(setting.kind);
            if setting.live {
                to.swap(&mut from);
            } else {
                *origin = Origin::Start;
            }
            match (same, setting.live) {
                (true, _) => {}
                (false, true) => changes.applied.push(setting.key),
                (false, false) => changes.ignored.push(setting.key),
            }
        }
        let faults = order::faults(&config, &self.origins);
        if faults.is_empty() { Ok((config, changes)) } else { Err(ConfigErrors(faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reloaded(old: &Config, new: Config) -> Result<(Config, Changes), String> {
        let origins = vec![Origin::Env("NEW".to_owned()); SETTINGS.len()];
        Loaded { config: new, origins, warnings: Vec::new() }.over(old).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_reload_takes_what_can_change_and_names_the_rest() {
        let old = Config::default();
        let new = Config { timeout_ms: 7, debug: true, max_instances: 3, allow_uids: vec![5], ..old.clone() };
        let (config, changes) = reloaded(&old, new).unwrap();
        assert_eq!(config, Config { timeout_ms: 7, debug: true, ..old.clone() });
        assert_eq!(changes.applied, ["timeoutMs", "debug"]);
        assert_eq!(changes.ignored, ["maxInstances", "allowUids"]);
        assert_eq!(reloaded(&old, old.clone()), Ok((old, Changes::default())));
    }

    #[test]
    fn a_reload_that_would_break_an_order_changes_nothing() {
        let old = Config::default();
        let more = old.max_frame_bytes * 2;
        // right by itself; but the larger frames would come with the next start only
        let new = Config { max_frame_bytes: more, max_result_bytes: more, timeout_ms: 7, ..old.clone() };
        let error = reloaded(&old, new).unwrap_err();
        assert!(error.contains("maxResultBytes") && error.contains("until the next start"), "{error}");
        let source = Config { max_source_bytes: old.max_frame_bytes + 1, ..old.clone() };
        assert!(reloaded(&old, source).unwrap_err().contains("maxSourceBytes"));
    }

    #[test]
    fn readers_see_the_new_configuration() {
        let live = LiveConfig::new(Config::default());
        let before: &Config = &live;
        live.replace(Config { timeout_ms: 9, ..Config::default() });
        assert_eq!((before.timeout_ms, live.timeout_ms), (Config::default().timeout_ms, 9));
    }
}
