//! What a setting is; `settings.rs` lists them. Flag and environment variable follow from the key:
//! `maxInstances` is `--max-instances` and `NEXUS_MAX_INSTANCES`. The default is the one of [`Config::default`].

use super::Config;
use super::value::{Kind, Place};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// As in the file, and in messages.
    pub key: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
    /// A second environment variable that counts MiB, for callers that configure several runtimes with one set of names.
    pub(super) env_mebibytes: Option<&'static str>,
    /// The default in words, where the environment decides.
    pub(super) default_words: Option<&'static str>,
    /// Can change while the sidecar serves.
    pub(super) live: bool,
    pub(super) place: fn(&mut Config) -> Place<'_>,
}

pub(super) const fn setting(
    key: &'static str,
    kind: Kind,
    doc: &'static str,
    place: fn(&mut Config) -> Place<'_>,
) -> Setting {
    Setting { key, kind, doc, env_mebibytes: None, default_words: None, live: false, place }
}

/// A setting that is looked at for each request, so that a reload can change it.
pub(super) const fn live(
    key: &'static str,
    kind: Kind,
    doc: &'static str,
    place: fn(&mut Config) -> Place<'_>,
) -> Setting {
    Setting { live: true, ..setting(key, kind, doc, place) }
}

pub(super) const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

pub(super) const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

pub(super) const fn millis(min: u64, max: u64) -> Kind {
    Kind::Millis { min, max }
}

impl Setting {
    /// `max-instances`: the long flag without its dashes.
    pub fn flag(&self) -> String {
        self.words('-')
    }

    pub fn env(&self) -> String {
        format!("NEXUS_{}", self.words('_').to_ascii_uppercase())
    }

    /// The line of the help text.
    pub fn help(&self) -> String {
        let bound = self.kind.bound().map(|bound| format!("; {bound}")).unwrap_or_default();
        let reload = if self.live { " [reload]" } else { "" };
        format!("{} [default: {}{bound}] [env: {}]{reload}", self.doc, self.default_in_words(), self.env())
    }

    fn default_in_words(&self) -> String {
        let of_config = || (self.place)(&mut Config::default()).to_words(self.kind);
        self.default_words.map_or_else(of_config, str::to_owned)
    }

    /// Splits before a capital that follows a small letter, so `enableAOT` is two words.
    fn words(&self, separator: char) -> String {
        let mut out = String::with_capacity(self.key.len() + 4);
        let mut after_small = false;
        for ch in self.key.chars() {
            if ch.is_ascii_uppercase() && after_small {
                out.push(separator);
            }
            after_small = ch.is_ascii_lowercase();
            out.push(ch.to_ascii_lowercase());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use log::LevelFilter;
    use nexus_protocol::limits::MEMORY_LIMIT_BYTES_CEILING;

    use super::*;
    use crate::config::SETTINGS;

    fn named(key: &str) -> &'static Setting {
        SETTINGS.iter().find(|setting| setting.key == key).expect("a setting of the table")
    }

    #[test]
    fn flag_and_variable_follow_from_the_key() {
        assert_eq!(named("maxInstances").flag(), "max-instances");
        assert_eq!(named("maxInstances").env(), "NEXUS_MAX_INSTANCES");
        assert_eq!(named("enableAOT").flag(), "enable-aot");
        assert_eq!(named("enableSIMD").env(), "NEXUS_ENABLE_SIMD");
        assert_eq!(named("quickjsModulePath").flag(), "quickjs-module-path");
        assert_eq!(named("log").env(), "NEXUS_LOG");
    }

    #[test]
    fn no_two_settings_share_a_name() {
        let names = |name: fn(&Setting) -> String| SETTINGS.iter().map(name).collect::<BTreeSet<_>>().len();
        assert_eq!(names(Setting::flag), SETTINGS.len());
        assert_eq!(names(Setting::env), SETTINGS.len());
    }

    #[test]
    fn every_field_of_the_configuration_has_a_setting_of_its_own() {
        let default = Config::default();
        let mut changed = BTreeSet::new();
        for setting in &SETTINGS {
            let mut config = default.clone();
            match (setting.place)(&mut config) {
                Place::Number(value) => *value = value.wrapping_add(1),
                Place::Switch(value) => *value = !*value,
                Place::Path(value) => *value = Some("/elsewhere".into()),
                Place::Uids(value) => value.push(7),
                Place::Endpoint(value) => *value = Some(crate::config::Endpoint::Unix("/elsewhere".into())),
                Place::Level(value) => *value = LevelFilter::Trace,
                Place::Isolation(value) => *value = crate::config::Isolation::Shared,
            }
            assert_ne!(config, default, "{} sets nothing", setting.key);
            assert!(changed.insert(format!("{config:?}")), "{} sets another setting's field", setting.key);
        }
        let fields = format!("{default:#?}")
            .lines()
            .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
            .count();
        assert_eq!(fields, SETTINGS.len());
    }

    #[test]
    fn every_default_is_within_its_bound_and_of_its_kind() {
        for setting in &SETTINGS {
            let mut config = Config::default();
            let text = (setting.place)(&mut config).to_toml(setting.kind);
            let text = text.trim_matches('"');
            (setting.place)(&mut config).set_text(setting.kind, text).expect(setting.key);
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }

    #[test]
    fn help_states_default_bound_and_variable() {
        assert_eq!(
            named("minInstances").help(),
            "Instances made ready at start [default: 1; 1 to 2000] [env: NEXUS_MIN_INSTANCES]"
        );
        let bound = format!("[default: 32 MiB; 1 MiB to {} MiB]", MEMORY_LIMIT_BYTES_CEILING >> 20);
        assert!(named("memoryLimitBytes").help().contains(&bound));
    }
}
