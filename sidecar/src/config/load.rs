//! Merges the sources of the configuration, in the order default, file, environment, flags: the later one wins.
//!
//! Pure but for reading the one file: the environment is handed in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::effective::{Loaded, Origin};
use super::error::{ConfigError, ConfigErrors};
use super::settings::SETTINGS;
use super::table::Setting;
use super::value::{Problem, mebibytes};
use super::{Config, file, order};
use crate::lifecycle::parent::STANDS_FOR_VARIABLE;

const ENV_PREFIX: &str = "NEXUS_";
/// Names the file where no flag does: a unit of systemd has one command line for everybody.
pub(super) const FILE_VARIABLE: &str = "NEXUS_CONFIG";
/// Names with the prefix that clients and the build read: no mistake of whoever sets them.
const OF_OTHERS: [&str; 5] =
    ["NEXUS_SIDECAR_BIN", "NEXUS_BUILD_CACHE", "NEXUS_GUEST_DIR", CONNECT_VARIABLE, STANDS_FOR_VARIABLE];
/// Names the socket of a running sidecar where no flag does.
pub const CONNECT_VARIABLE: &str = "NEXUS_CONNECT";

/// What the command line says about the configuration, not yet read as values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigArgs {
    pub file: Option<PathBuf>,
    /// Key of the setting, and the text that its flag had.
    pub flags: Vec<(&'static str, String)>,
}

struct Loader {
    config: Config,
    origins: Vec<Origin>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl ConfigArgs {
    /// Reads file, environment and flags. All that is wrong is reported, not only the first.
    pub fn load(&self, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Loaded, ConfigErrors> {
        let env: BTreeMap<OsString, OsString> = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let config = Config { cache_dir: default_cache_dir(&env), ..Config::default() };
        let origins = vec![Origin::Default; SETTINGS.len()];
        let mut loader = Loader { config, origins, errors: Vec::new(), warnings: Vec::new() };
        let of_env = env.get(OsStr::new(FILE_VARIABLE)).map(PathBuf::from);
        if let Some(path) = self.file.as_ref().or(of_env.as_ref()) {
            loader.read_file(path);
        }
        loader.read_env(&env);
        for (key, value) in &self.flags {
            loader.set_flag(key, value);
        }
        loader.finish()
    }
}

impl Loader {
    fn read_file(&mut self, path: &Path) {
        let text = match file::read(path) {
            Ok(text) => text,
            Err(error) => return self.errors.push(error),
        };
        let Self { config, origins, errors, .. } = self;
        file::entries(path, &text, errors, |setting, origin, set| {
            set(&mut (setting.place)(config))?;
            note(origins, setting, origin);
            Ok(())
        });
    }

    fn read_env(&mut self, env: &BTreeMap<OsString, OsString>) {
        let mut known = vec![FILE_VARIABLE.to_owned()];
        known.extend(OF_OTHERS.map(str::to_owned));
        for setting in &SETTINGS {
            let name = setting.env();
            let plain = env.get(OsStr::new(&name));
            let mib_name = setting.env_mebibytes;
            let mib = mib_name.and_then(|name| Some((name, env.get(OsStr::new(name))?)));
            match (plain, mib) {
                (Some(_), Some((second, _))) => {
                    self.errors.push(ConfigError::Twice { key: setting.key, first: name.clone(), second });
                }
                (Some(value), None) => self.set_text(setting, value, Origin::Env(name.clone())),
                (None, Some((name, value))) => self.set_mebibytes(setting, value, Origin::Env(name.to_owned())),
                (None, None) => {}
            }
            known.push(name);
            known.extend(mib_name.map(str::to_owned));
        }
        // Another program may use the same prefix, so a name that we do not know is no reason not to start.
        for name in env.keys().filter_map(|name| name.to_str()) {
            if name.starts_with(ENV_PREFIX) && !known.iter().any(|known| known == name) {
                let nearest = name.get(ENV_PREFIX.len()..).and_then(|rest| file::nearest(&rest.to_ascii_lowercase()));
                let setting = SETTINGS.iter().find(|setting| Some(setting.key) == nearest);
                let meant = setting.map(|setting| format!("; did you mean {}?", setting.env())).unwrap_or_default();
                self.warnings.push(format!(
                    "environment variable {name} is not a setting of the sidecar and was ignored{meant}"
                ));
            }
        }
    }

    fn set_flag(&mut self, key: &str, value: &str) {
        match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => self.set_text(setting, OsStr::new(value), Origin::Flag(setting.flag())),
            None => {
                let origin = Origin::Flag(key.to_owned());
                self.errors.push(ConfigError::UnknownKey {
                    key: key.to_owned(),
                    origin,
                    suggestion: file::nearest(key),
                });
            }
        }
    }

    fn set_text(&mut self, setting: &'static Setting, value: &OsStr, origin: Origin) {
        let result = match value.to_str() {
            Some(text) => (setting.place)(&mut self.config).set_text(setting.kind, text),
            None => Err(Problem::NotText),
        };
        self.settle(setting, value, origin, result);
    }

    fn set_mebibytes(&mut self, setting: &'static Setting, value: &OsStr, origin: Origin) {
        let result = match value.to_str().and_then(mebibytes) {
            Some(number) => (setting.place)(&mut self.config).set_number(setting.kind, number),
            None => Err(setting.kind.in_mebibytes().no_number()),
        };
        self.settle(setting, value, origin, result);
    }

    fn settle(&mut self, setting: &'static Setting, value: &OsStr, origin: Origin, result: Result<(), Problem>) {
        match result {
            Ok(()) => note(&mut self.origins, setting, origin),
            Err(problem) => {
                let value = value.to_string_lossy().into_owned();
                self.errors.push(ConfigError::Value { key: setting.key, value, origin, problem });
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigErrors> {
        // Values that were refused still have their default here, so an order between them would mislead.
        if self.errors.is_empty() {
            self.errors = order::faults(&self.config, &self.origins);
        }
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        Ok(Loaded { config: self.config, origins: self.origins, warnings: self.warnings })
    }
}

fn note(origins: &mut [Origin], setting: &'static Setting, origin: Origin) {
    let index = SETTINGS.iter().position(|other| other.key == setting.key);
    if let Some(place) = index.and_then(|index| origins.get_mut(index)) {
        *place = origin;
    }
}

/// systemd's cache directory of the unit, else the user's; none where neither is known.
/// A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
fn default_cache_dir(env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| env.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd separates several directories by colons; the first is the one that the unit named first.
    let of_unit = env.get(OsStr::new("CACHE_DIRECTORY")).and_then(|list| list.to_str()?.split(':').next());
    of_unit.map(PathBuf::from).filter(|path| path.is_absolute()).or_else(|| {
        let user = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(user.join("nexus-sidecar"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn flags(pairs: &[(&'static str, &str)]) -> ConfigArgs {
        let flags = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        ConfigArgs { file: None, flags }
    }

    /// A file of its own for one test, gone when dropped.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nexus-config-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn args(&self) -> ConfigArgs {
            ConfigArgs { file: Some(self.0.clone()), flags: Vec::new() }
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn only_error(result: Result<Loaded, ConfigErrors>) -> String {
        let errors = result.expect_err("a refused configuration");
        assert_eq!(errors.iter().len(), 1, "{errors}");
        errors.to_string()
    }

    #[test]
    fn without_any_source_the_defaults_are_in_force() {
        let loaded = ConfigArgs::default().load(env(&[])).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.origin("maxInstances"), Some(&Origin::Default));
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let file = TempFile::new("order", "maxInstances = 2\nmaxEvents = 2\nmaxQueued = 2\n");
        let mut args = file.args();
        args.flags = vec![("maxInstances", "4".to_owned())];
        let loaded = args.load(env(&[("NEXUS_MAX_INSTANCES", "3"), ("NEXUS_MAX_EVENTS", "3")])).unwrap();
        let Config { max_instances, max_events, max_queued, max_host_calls, .. } = loaded.config;
        assert_eq!((max_instances, max_events, max_queued, max_host_calls), (4, 3, 2, 10_000));
        assert_eq!(loaded.origin("maxInstances").unwrap().to_string(), "flag --max-instances");
        assert_eq!(loaded.origin("maxEvents").unwrap().to_string(), "environment variable NEXUS_MAX_EVENTS");
        assert_eq!(loaded.origin("maxQueued").unwrap().to_string(), format!("{}:3", file.0.display()));
    }

    #[test]
    fn the_environment_may_name_the_file_and_a_flag_another() {
        let (one, other) = (TempFile::new("one", "maxInstances = 2\n"), TempFile::new("other", "maxInstances = 3\n"));
        let named = [("NEXUS_CONFIG", one.0.to_str().unwrap())];
        let loaded = ConfigArgs::default().load(env(&named)).unwrap();
        assert_eq!((loaded.config.max_instances, loaded.warnings.len()), (2, 0));
        assert_eq!(other.args().load(env(&named)).unwrap().config.max_instances, 3);
    }

    #[test]
    fn every_type_of_value_can_stand_in_the_file() {
        let text = "# comment\nmemoryLimitBytes = \"8 MiB\"\nmaxLogBytes = 0x100\ndebug = true\n\
                    cacheDir = \"/var/cache/x\"\nquickjsModulePath = 'built-in'\nlog = \"debug\"\ntimeoutMs = 1_000\n";
        let config = TempFile::new("types", text).args().load(env(&[])).unwrap().config;
        assert_eq!((config.memory_limit_bytes, config.max_log_bytes, config.timeout_ms), (8 << 20, 256, 1000));
        assert!(config.debug);
        assert_eq!(config.cache_dir.as_deref(), Some(Path::new("/var/cache/x")));
        assert_eq!((config.quickjs_module_path, config.log), (None, log::LevelFilter::Debug));
    }

    #[test]
    fn a_value_of_the_wrong_type_in_the_file_is_refused_with_its_line() {
        for (text, problem) in [
            ("debug = \"true\"", "debug = \"true\" (X:2): must be true or false"),
            ("debug = 1", "debug = \"1\" (X:2): must be true or false"),
            ("maxInstances = \"4\"", "maxInstances = \"4\" (X:2): must be a whole number, 1 to 2000"),
            ("maxInstances = -4", "maxInstances = \"-4\" (X:2): must be a whole number, 1 to 2000"),
            ("maxInstances = 1.0", "maxInstances = \"1.0\" (X:2): must be a whole number, 1 to 2000"),
            ("maxInstances = 0", "maxInstances = \"0\" (X:2): must be 1 or more"),
            (
                "memoryLimitBytes = \"32MB\"",
                "memoryLimitBytes = \"32MB\" (X:2): must be a number of bytes, such as 1048576 or \"1 MiB\" (units: KiB, MiB, GiB), 1 MiB to 128 MiB",
            ),
            ("cacheDir = true", "cacheDir = \"true\" (X:2): must be a path, or \"none\""),
            ("log = \"loud\"", "log = \"loud\" (X:2): must be one of off, error, warn, info, debug, trace"),
            ("[debug]", "debug = \"[debug]\" (X:2): must be true or false"),
        ] {
            let file = TempFile::new("wrong-type", &format!("# first line\n{text}\n"));
            let message = only_error(file.args().load(env(&[])));
            assert_eq!(message.replace(&*file.0.display().to_string(), "X"), problem);
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_suggests_the_right_one() {
        for (text, suggestion) in [
            ("max_instances = 4", "; did you mean maxInstances?"),
            ("max-instances = 4", "; did you mean maxInstances?"),
            ("maxInstance = 4", "; did you mean maxInstances?"),
            ("colour = 4", ""),
        ] {
            let file = TempFile::new("unknown", text);
            let key = text.split(' ').next().unwrap();
            let message = only_error(file.args().load(env(&[])));
            assert_eq!(message, format!("{key:?} ({}:1): there is no such setting{suggestion}", file.0.display()));
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_its_line() {
        let file = TempFile::new("syntax", "maxInstances = 4\nmaxInstances 5\n");
        let message = only_error(file.args().load(env(&[])));
        assert!(message.starts_with(&format!("{}:2: not TOML: ", file.0.display())), "{message}");
        let file = TempFile::new("twice", "debug = true\ndebug = false\n");
        let message = only_error(file.args().load(env(&[])));
        assert!(message.contains(":2: not TOML: ") && message.contains("duplicate key"), "{message}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let args = ConfigArgs { file: Some("/nonexistent/x.toml".into()), flags: Vec::new() };
        let message = only_error(args.load(env(&[])));
        assert!(message.starts_with("/nonexistent/x.toml: cannot read the configuration file: "), "{message}");
        let long = TempFile::new("long", &"#\n".repeat(600_000));
        assert!(only_error(long.args().load(env(&[]))).contains("larger than 1048576 bytes"));
    }

    #[test]
    fn errors_of_flags_and_environment_name_them() {
        assert_eq!(
            only_error(flags(&[("maxInstances", "0")]).load(env(&[]))),
            "maxInstances = \"0\" (flag --max-instances): must be 1 or more"
        );
        assert_eq!(
            only_error(ConfigArgs::default().load(env(&[("NEXUS_STACK_SIZE_BYTES", "64")]))),
            "stackSizeBytes = \"64\" (environment variable NEXUS_STACK_SIZE_BYTES): must be 64 KiB or more"
        );
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors =
            flags(&[("maxInstances", "0"), ("debug", "maybe")]).load(env(&[("NEXUS_LOG", "loud")])).unwrap_err();
        assert_eq!(errors.iter().len(), 3);
        assert_eq!(errors.to_string().lines().count(), 3);
    }

    #[test]
    fn min_above_max_is_refused_and_both_sources_are_named() {
        assert_eq!(
            only_error(flags(&[("minInstances", "11")]).load(env(&[]))),
            "minInstances = 11 (flag --min-instances) must not be more than maxInstances = 10 (default)"
        );
        assert_eq!(
            only_error(flags(&[("maxFrameBytes", "1 MiB")]).load(env(&[]))),
            "maxResultBytes = 16 MiB (default) must not be more than maxFrameBytes = 1 MiB (flag --max-frame-bytes)"
        );
    }

    #[test]
    fn the_memory_limit_can_be_given_in_mebibytes_but_not_twice() {
        let loaded = ConfigArgs::default().load(env(&[("NEXUS_MEMORY_LIMIT_MB", "16")])).unwrap();
        assert_eq!(loaded.config.memory_limit_bytes, 16 << 20);
        let both = env(&[("NEXUS_MEMORY_LIMIT_MB", "16"), ("NEXUS_MEMORY_LIMIT_BYTES", "16777216")]);
        assert!(only_error(ConfigArgs::default().load(both)).contains("set the same thing"));
        assert!(ConfigArgs::default().load(env(&[("NEXUS_MEMORY_LIMIT_MB", "0")])).is_err());
        assert_eq!(
            only_error(ConfigArgs::default().load(env(&[("NEXUS_MEMORY_LIMIT_MB", "16 MiB")]))),
            "memoryLimitBytes = \"16 MiB\" (environment variable NEXUS_MEMORY_LIMIT_MB): must be a whole number, 1 to 128"
        );
    }

    #[test]
    fn foreign_variables_warn_and_empty_ones_count_as_unset() {
        let loaded = ConfigArgs::default()
            .load(env(&[
                ("NEXUS_HOME", "/x"),
                ("NEXUS_TIMEOUT_MS", ""),
                ("PATH", "/bin"),
                ("NEXUS_SIDECAR_BIN", "/bin/n"),
                ("NEXUS_STANDS_FOR", "17"),
            ]))
            .unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings.first().unwrap().contains("NEXUS_HOME"));
    }

    #[test]
    fn what_cargo_sets_in_this_repository_is_no_mistake_of_whoever_runs_it() {
        let lines = include_str!("../../../.cargo/config.toml").lines().filter(|line| line.starts_with(ENV_PREFIX));
        let set: Vec<(&str, &str)> = lines.map(|line| (line.split_once(' ').unwrap().0, "/x")).collect();
        assert!(!set.is_empty());
        assert_eq!(ConfigArgs::default().load(env(&set)).unwrap().warnings, Vec::<String>::new());
    }

    #[test]
    fn the_cache_directory_follows_systemd_then_xdg_then_home() {
        let dir = |pairs: &[(&str, &str)]| ConfigArgs::default().load(env(pairs)).unwrap().config.cache_dir;
        assert_eq!(dir(&[("HOME", "/h")]), Some("/h/.cache/nexus-sidecar".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c/nexus-sidecar".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), Some("/h/.cache/nexus-sidecar".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("CACHE_DIRECTORY", "/s:/t")]), Some("/s".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("NEXUS_CACHE_DIR", "none")]), None);
        assert_eq!(dir(&[]), None);
    }

    #[test]
    fn the_description_is_a_file_that_gives_the_same_configuration() {
        let args = flags(&[("maxInstances", "4"), ("debug", "true"), ("cacheDir", "/a \"b\""), ("log", "trace")]);
        let first = args.load(env(&[("NEXUS_MEMORY_LIMIT_MB", "16")])).unwrap();
        let text = first.describe();
        assert_eq!(text.lines().count(), SETTINGS.len());
        assert!(text.contains("# 16 MiB, environment variable NEXUS_MEMORY_LIMIT_MB"), "{text}");
        let second = TempFile::new("described", &text).args().load(env(&[])).unwrap();
        assert_eq!(second.config, first.config);
    }
}
