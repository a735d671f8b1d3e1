//! Every setting, once. Flag and environment variable follow from the key:
//! `maxInstances` is `--max-instances` and `NEXUS_MAX_INSTANCES`. The default is the one of [`Config::default`].

use nexus_protocol::limits;

use super::Config;
use super::value::{Kind, Place};

/// Each instance reserves 12 GiB of address space, of which a process has 128 TiB. With the suspended executions that keep
/// their instance, this stays below it.
const MAX_INSTANCES: u64 = 2_000;
/// Suspended executions are bounded by their bytes; this many make every look for expired ones slow.
const MAX_SUSPENDED: u64 = 1_000_000;
/// A week: long enough for a suspension that waits for a human, short enough that a forgotten one ends.
const MAX_WAIT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Counters of the guest's effects; beyond this the byte limits would end the execution anyway.
const MAX_COUNT: u64 = 1_000_000_000;
/// The guest is linked with 256 MiB of memory and 4 MiB of stack. Its own data, the request and the calls between two
/// checks of the stack need the rest.
const MAX_MEMORY_LIMIT_BYTES: u64 = 128 * MIB;
const MAX_STACK_SIZE_BYTES: u64 = 2 * MIB;
const MAX_QUEUED: u64 = 100_000;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// As in the file, and in messages.
    pub key: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
    /// A second environment variable that counts MiB, for callers that configure several runtimes with one set of names.
    pub(super) env_mebibytes: Option<&'static str>,
    /// Can change while the sidecar serves.
    pub(super) live: bool,
    pub(super) place: fn(&mut Config) -> Place<'_>,
}

const fn setting(key: &'static str, kind: Kind, doc: &'static str, place: fn(&mut Config) -> Place<'_>) -> Setting {
    Setting { key, kind, doc, env_mebibytes: None, live: false, place }
}

/// A setting that is looked at for each request, so that a reload can change it.
const fn live(key: &'static str, kind: Kind, doc: &'static str, place: fn(&mut Config) -> Place<'_>) -> Setting {
    Setting { live: true, ..setting(key, kind, doc, place) }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

const fn millis(min: u64) -> Kind {
    Kind::Millis { min, max: MAX_WAIT_MS }
}

pub static SETTINGS: [Setting; 36] = [
    setting(
        "maxInstances",
        count(limits::MIN_MAX_INSTANCES as u64, MAX_INSTANCES),
        "Instances that may run at once; from 3 on the last free one is for connections that run nothing",
        |c| Place::Number(&mut c.max_instances),
    ),
    setting(
        "minInstances",
        count(limits::MIN_MAX_INSTANCES as u64, MAX_INSTANCES),
        "Instances made ready at start",
        |c| Place::Number(&mut c.min_instances),
    ),
    Setting {
        env_mebibytes: Some("NEXUS_MEMORY_LIMIT_MB"),
        ..live(
            "memoryLimitBytes",
            bytes(limits::MIN_MEMORY_LIMIT_BYTES, MAX_MEMORY_LIMIT_BYTES),
            "Memory of one execution, strings and ArrayBuffers included",
            |c| Place::Number(&mut c.memory_limit_bytes),
        )
    },
    setting(
        "stackSizeBytes",
        bytes(limits::MIN_STACK_SIZE_BYTES, MAX_STACK_SIZE_BYTES),
        "Stack of one execution; overflowing it is a RangeError",
        |c| Place::Number(&mut c.stack_size_bytes),
    ),
    live(
        "timeoutMs",
        millis(0),
        "Running and queueing time of one execution, without the time it is suspended; 0 = no limit",
        |c| Place::Number(&mut c.timeout_ms),
    ),
    live("suspensionTimeoutMs", millis(1), "Time that one suspension may wait to be resumed", |c| {
        Place::Number(&mut c.suspension_timeout_ms)
    }),
    live(
        "maxSuspended",
        count(0, MAX_SUSPENDED),
        "Suspended executions held at once; an eighth more for connections with few",
        |c| Place::Number(&mut c.max_suspended),
    ),
    live(
        "maxSuspendedBytes",
        bytes(limits::MIN_MAX_SUSPENDED_BYTES, 64 * GIB),
        "Memory of suspended executions outside of instances; an eighth more for connections with little of it",
        |c| Place::Number(&mut c.max_suspended_bytes),
    ),
    live("maxHostCalls", count(0, MAX_COUNT), "Calls out of the sandbox per execution", |c| {
        Place::Number(&mut c.max_host_calls)
    }),
    live("maxStateMutations", count(0, MAX_COUNT), "Changes of $state per execution", |c| {
        Place::Number(&mut c.max_state_mutations)
    }),
    live("maxEvents", count(0, MAX_COUNT), "Events emitted per execution", |c| Place::Number(&mut c.max_events)),
    live("maxSourceBytes", bytes(1, limits::MAX_FRAME_BYTES_CEILING), "Source of one handler", |c| {
        Place::Number(&mut c.max_source_bytes)
    }),
    live("maxResultBytes", bytes(1, limits::MAX_FRAME_BYTES_CEILING), "Result of one execution", |c| {
        Place::Number(&mut c.max_result_bytes)
    }),
    live("maxLogBytes", bytes(0, limits::MAX_FRAME_BYTES_CEILING), "Log text returned by one execution", |c| {
        Place::Number(&mut c.max_log_bytes)
    }),
    setting(
        "maxFrameBytes",
        bytes(limits::MIN_MAX_FRAME_BYTES, limits::MAX_FRAME_BYTES_CEILING),
        "One frame of the protocol",
        |c| Place::Number(&mut c.max_frame_bytes),
    ),
    live(
        "maxQueued",
        count(0, MAX_QUEUED),
        "Executions that may wait for an instance, else OVERLOADED; an eighth more for connections with few",
        |c| Place::Number(&mut c.max_queued),
    ),
    live("maxQueueMs", millis(0), "Time that one execution may wait for an instance", |c| {
        Place::Number(&mut c.max_queue_ms)
    }),
    setting("maxStates", count(0, MAX_COUNT), "Resident states of one connection", |c| {
        Place::Number(&mut c.max_states)
    }),
    setting("maxStateBytes", bytes(0, 64 * GIB), "Resident states of one connection, in memory", |c| {
        Place::Number(&mut c.max_state_bytes)
    }),
    setting(
        "maxTotalStateBytes",
        bytes(0, 64 * GIB),
        "Resident states of all connections; an eighth more for those with little",
        |c| Place::Number(&mut c.max_total_state_bytes),
    ),
    setting(
        "maxArenaBytes",
        bytes(0, limits::MAX_FRAME_BYTES_CEILING),
        "Shared memory of one connection, for large payloads; 0 = none",
        |c| Place::Number(&mut c.max_arena_bytes),
    ),
    setting(
        "maxTotalArenaBytes",
        bytes(0, 64 * GIB),
        "Shared memory of all connections; an eighth more for those with little",
        |c| Place::Number(&mut c.max_total_arena_bytes),
    ),
    setting(
        "cacheDir",
        Kind::Path { absent: "none" },
        "Where compiled handlers are kept; none = in memory only",
        |c| Place::Path(&mut c.cache_dir),
    ),
    setting("maxCacheSizeBytes", bytes(0, 64 * GIB), "Size of the cache of compiled handlers", |c| {
        Place::Number(&mut c.max_cache_size_bytes)
    }),
    setting("enableAOT", Kind::Switch, "Run native code; false interprets, about 500 times slower", |c| {
        Place::Switch(&mut c.enable_aot)
    }),
    setting("enableSIMD", Kind::Switch, "Allow SIMD instructions in the guest module", |c| {
        Place::Switch(&mut c.enable_simd)
    }),
    setting("enableBulkMemory", Kind::Switch, "Allow bulk memory instructions in the guest module", |c| {
        Place::Switch(&mut c.enable_bulk_memory)
    }),
    setting(
        "quickjsModulePath",
        Kind::Path { absent: "built-in" },
        "Another guest module, as trusted as this program",
        |c| Place::Path(&mut c.quickjs_module_path),
    ),
    live("debug", Kind::Switch, "Put stacks and source snippets into errors", |c| Place::Switch(&mut c.debug)),
    live("strictCapabilities", Kind::Switch, "Refuse a handler before it runs when its grants cannot suffice", |c| {
        Place::Switch(&mut c.strict_capabilities)
    }),
    live(
        "drainTimeoutMs",
        millis(0),
        "Time that a sidecar which was told to end gives what is under way; then it is cancelled",
        |c| Place::Number(&mut c.drain_timeout_ms),
    ),
    setting("allowUids", Kind::Uids, "Users who may connect to a service, beside its own; numbers, or none", |c| {
        Place::Uids(&mut c.allow_uids)
    }),
    setting(
        "httpListen",
        Kind::Endpoint,
        "Where /metrics, /healthz and /readyz are served: 127.0.0.1:PORT, the path of a socket, or none",
        |c| Place::Endpoint(&mut c.http_listen),
    ),
    setting(
        "isolation",
        Kind::Isolation,
        "Where guests run: in the process that serves (none), or in a sealed one (shared)",
        |c| Place::Isolation(&mut c.isolation),
    ),
    setting(
        "requireSandbox",
        Kind::Switch,
        "Start only where guests run in a sealed process of which no wall is missing",
        |c| Place::Switch(&mut c.require_sandbox),
    ),
    live("log", Kind::Level, "Least severe log record that is written to stderr", |c| Place::Level(&mut c.log)),
];

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
        if self.key == "cacheDir" {
            return "nexus-sidecar in the user's cache directory".to_owned();
        }
        (self.place)(&mut Config::default()).to_words(self.kind)
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

    use super::*;

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
        let bound = format!("[default: 32 MiB; 1 MiB to {} MiB]", MAX_MEMORY_LIMIT_BYTES / MIB);
        assert!(named("memoryLimitBytes").help().contains(&bound));
    }
}
