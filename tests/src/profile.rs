//! With which limits the sidecars of the tests run.
//!
//! | profile | what runs under it |
//! | --- | --- |
//! | `shipped` | every test, unless it says otherwise: the defaults are what users have, so they are what is tested |
//! | `patient` | a test in which something has to wait, to run or to stay suspended until the test has seen it, which on a busy machine takes longer than the defaults allow; it says so by `Options::patient`. No answer of a sidecar is judged more mildly for it |
//! | `minimum` | `--test minimum`, which drives every kind of request. The other programs need room for what they are about (ten instances, a second suspended execution, a result of some MiB), so under it they would test its refusals over and over |
//!
//! A test that is about one limit sets that one by a flag, which goes before all of these. `NEXUS_TEST_LIMITS` names the profile
//! of those that do not say one: `patient` tells a fault from a machine that is too slow, `minimum` shows what a program needs.

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The one that `NEXUS_TEST_LIMITS` names, else `Shipped`.
    #[default]
    Unsaid,
    /// What a sidecar has without any setting.
    Shipped,
    /// Times that no busy machine uses up.
    Patient,
    /// The smallest limits under which each kind of request can still succeed once.
    Minimum,
}

const PATIENT: &[(&str, &str)] = &[
    ("NEXUS_TIMEOUT_MS", "60000"),
    ("NEXUS_MAX_QUEUE_MS", "60000"),
    ("NEXUS_DRAIN_TIMEOUT_MS", "60000"),
    ("NEXUS_SUSPENSION_TIMEOUT_MS", "600000"),
];

/// What is counted is 1; bytes are the smallest that can be configured, or that one small request fits.
const MINIMUM: &[(&str, &str)] = &[
    ("NEXUS_MAX_INSTANCES", "1"),
    ("NEXUS_MIN_INSTANCES", "1"),
    ("NEXUS_MEMORY_LIMIT_BYTES", "1048576"),
    ("NEXUS_STACK_SIZE_BYTES", "65536"),
    ("NEXUS_TIMEOUT_MS", "50"),
    ("NEXUS_SUSPENSION_TIMEOUT_MS", "500"),
    ("NEXUS_MAX_SUSPENDED", "1"),
    ("NEXUS_MAX_SUSPENDED_BYTES", "131072"),
    ("NEXUS_MAX_HOST_CALLS", "1"),
    ("NEXUS_MAX_STATE_MUTATIONS", "1"),
    ("NEXUS_MAX_EVENTS", "1"),
    ("NEXUS_MAX_SOURCE_BYTES", "256"),
    ("NEXUS_MAX_RESULT_BYTES", "1024"),
    ("NEXUS_MAX_LOG_BYTES", "64"),
    ("NEXUS_MAX_FRAME_BYTES", "131072"),
    ("NEXUS_MAX_QUEUED", "1"),
    ("NEXUS_MAX_QUEUE_MS", "50"),
    ("NEXUS_MAX_STATES", "1"),
    ("NEXUS_MAX_STATE_BYTES", "1024"),
    ("NEXUS_MAX_TOTAL_STATE_BYTES", "1024"),
    ("NEXUS_MAX_ARENA_BYTES", "1048576"),
    ("NEXUS_MAX_TOTAL_ARENA_BYTES", "1048576"),
    ("NEXUS_MAX_CACHE_SIZE_BYTES", "0"),
    ("NEXUS_DRAIN_TIMEOUT_MS", "50"),
];

impl Profile {
    /// Settings, as the environment of a sidecar says them.
    pub fn variables(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let settings: &[_] = match self.said() {
            Self::Unsaid | Self::Shipped => &[],
            Self::Patient => PATIENT,
            Self::Minimum => MINIMUM,
        };
        settings.iter().copied()
    }

    fn said(self) -> Self {
        let Self::Unsaid = self else { return self };
        match std::env::var("NEXUS_TEST_LIMITS").as_deref() {
            Err(_) | Ok("shipped") => Self::Shipped,
            Ok("patient") => Self::Patient,
            Ok("minimum") => Self::Minimum,
            Ok(other) => panic!("NEXUS_TEST_LIMITS is shipped, patient or minimum, and not {other}"),
        }
    }
}
