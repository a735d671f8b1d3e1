//! What native code may be made for, and whether this processor has it.
//!
//! A build from source has code for the processor that built it; a package has code for levels of the x86-64 psABI. Which of them
//! runs changes nothing but the speed: an engine's identity is that of its WebAssembly module.

use super::stored::Stored;

/// What some native code needs of a processor.
#[allow(dead_code, reason = "a build has code for some of them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It was made where the program was built, for what is there.
    OfTheBuild,
    /// x86-64-v2: processors since about 2009.
    V2,
    /// x86-64-v3: since about 2013.
    V3,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::OfTheBuild => "the processor of the build",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
        }
    }

    /// Whether it runs here.
    pub fn is_met(self) -> bool {
        match self {
            Self::OfTheBuild => true,
            Self::V2 => has_v2(),
            Self::V3 => has_v2() && has_v3(),
        }
    }
}

/// Native code of one guest.
pub struct Native {
    pub level: Level,
    pub code: &'static Stored,
}

/// The first that runs here; the list has the most demanding first.
pub fn choose(natives: &'static [Native], is_met: impl Fn(Level) -> bool) -> Option<&'static Native> {
    natives.iter().find(|native| is_met(native.level))
}

#[cfg(target_arch = "x86_64")]
fn has_v2() -> bool {
    is_x86_feature_detected!("cmpxchg16b")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("sse3")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("sse4.2")
}

/// Beyond the level before. What the system does not save and restore of a processor counts as not there.
#[cfg(target_arch = "x86_64")]
fn has_v3() -> bool {
    is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("xsave")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_v2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_v3() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOTH: [Native; 2] = [
        Native { level: Level::V3, code: &Stored::Plain(b"3") },
        Native { level: Level::V2, code: &Stored::Plain(b"2") },
    ];

    #[test]
    fn the_most_demanding_code_that_runs_is_chosen() {
        assert_eq!(choose(&BOTH, |_| true).unwrap().level, Level::V3);
        assert_eq!(choose(&BOTH, |level| level == Level::V2).unwrap().level, Level::V2);
        assert!(choose(&BOTH, |_| false).is_none());
    }

    #[test]
    fn what_the_kernel_tells_of_the_processor_is_what_is_found() {
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags: Vec<&str> =
            told.lines().find(|line| line.starts_with("flags")).unwrap().split_whitespace().collect();
        let has = |names: &str| names.split(' ').all(|name| flags.contains(&name));
        assert_eq!(Level::V2.is_met(), has("cx16 popcnt pni ssse3 sse4_1 sse4_2"));
        assert_eq!(Level::V3.is_met(), Level::V2.is_met() && has("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"));
    }
}
