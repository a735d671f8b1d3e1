//! Where a running sidecar is, when the command line does not say.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::CONNECT_VARIABLE;

/// Of the system's service, as its socket unit says.
const OF_THE_SYSTEM: &str = "/run/nexus-sidecar/sidecar.sock";
/// Of a user's own service, under the directory for what lives as long as a session.
const OF_A_USER: &str = "nexus-sidecar/sidecar.sock";

/// No socket is named, and none stands where one would be.
#[derive(Debug, thiserror::Error)]
#[error("which sidecar? There is no socket at {}; --connect PATH or {CONNECT_VARIABLE} names one", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or "))]
pub struct Nowhere(Vec<PathBuf>);

/// The socket that the flag names, else that of the environment, else the first that is there: of the user, then of the system.
pub(super) fn socket(flag: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Nowhere> {
    let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = flag.map(Path::to_owned).or_else(|| named(CONNECT_VARIABLE)) {
        return Ok(path);
    }
    let usual = named("XDG_RUNTIME_DIR").map(|dir| dir.join(OF_A_USER)).into_iter().chain([OF_THE_SYSTEM.into()]);
    let usual: Vec<PathBuf> = usual.collect();
    usual.iter().find(|path| path.exists()).cloned().ok_or(Nowhere(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flag: Option<&str>, variables: &[(&str, &Path)]) -> Result<PathBuf, Nowhere> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        socket(flag.map(Path::new), value)
    }

    #[test]
    fn the_flag_comes_before_the_variable_and_that_before_the_usual_places() {
        let dir = std::env::temp_dir().join(format!("nexus-place-{}", std::process::id()));
        let own = dir.join(OF_A_USER);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "").unwrap();
        let all: [(&str, &Path); 2] = [(CONNECT_VARIABLE, Path::new("/b")), ("XDG_RUNTIME_DIR", &dir)];
        assert_eq!(found(Some("/a"), &all).unwrap(), Path::new("/a"));
        assert_eq!(found(None, &all).unwrap(), Path::new("/b"));
        assert_eq!(found(None, &[(CONNECT_VARIABLE, Path::new("")), all[1]]).unwrap(), own);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_anywhere_is_told_with_what_to_do() {
        let said = found(None, &[("XDG_RUNTIME_DIR", Path::new("/nowhere"))]).unwrap_err().to_string();
        assert!(said.contains("/nowhere/nexus-sidecar/sidecar.sock or /run/nexus-sidecar/sidecar.sock"), "{said}");
        assert!(said.contains("--connect PATH or NEXUS_CONNECT"), "{said}");
    }
}
