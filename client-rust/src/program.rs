//! Finding the sidecar's program: named, on the search path, or where packages put it. A program for another kind of machine is told
//! as such before it is started.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::StartError;

const PROGRAM: &str = "nexus-sidecar";
const PROGRAM_VARIABLE: &str = "NEXUS_SIDECAR_BIN";

/// Where an archive is unpacked and a package is installed, beside the search path.
const USUAL_FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/lib/nexus-sidecar/bin", "/opt/nexus-sidecar/bin"];
const USUAL_FOLDERS_AT_HOME: [&str; 2] = [".local/bin", ".local/lib/nexus-sidecar/bin"];

/// Why a file cannot be run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// It is not there, or no file, or nobody may execute it.
    NotExecutable,
    /// It is machine code for another kind of processor; the number is that of its head (`e_machine`).
    OtherProcessor(u16),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExecutable => f.write_str("which is not an executable file"),
            Self::OtherProcessor(machine) => {
                let name = match machine {
                    62 => "x86-64".to_owned(),
                    183 => "AArch64".to_owned(),
                    number => format!("ELF machine {number}"),
                };
                write!(f, "which is a program for {name}, and this is {}", std::env::consts::ARCH)
            }
        }
    }
}

/// What there is to go by.
pub(crate) struct Search {
    pub named: Option<PathBuf>,
    pub from_env: Option<OsString>,
    pub path: Option<OsString>,
    pub home: Option<OsString>,
    /// Folders beside those.
    pub usual: &'static [&'static str],
}

impl Search {
    pub(crate) fn of_this_process(named: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            named,
            from_env: variable(PROGRAM_VARIABLE),
            path: variable("PATH"),
            home: variable("HOME"),
            usual: &USUAL_FOLDERS,
        }
    }

    /// A path that was named is meant: no other program is tried in its place.
    pub(crate) fn find(self) -> Result<PathBuf, StartError> {
        if let Some(path) = &self.named {
            return named(path, "the option `binary`");
        }
        if let Some(path) = &self.from_env {
            return named(Path::new(path), "the environment variable NEXUS_SIDECAR_BIN");
        }
        let search = self.path.unwrap_or_default();
        let at_home =
            self.home.iter().flat_map(|home| USUAL_FOLDERS_AT_HOME.map(|folder| Path::new(home).join(folder)));
        let usual: Vec<PathBuf> = at_home.chain(self.usual.iter().map(PathBuf::from)).collect();
        let mut looked_at = vec![
            "the option `binary` (not set)".to_owned(),
            format!("the environment variable {PROGRAM_VARIABLE} (not set)"),
            format!("PATH ({})", search.display()),
        ];
        // A relative entry would run a program of whatever the current folder is.
        for folder in std::env::split_paths(&search).chain(usual.iter().cloned()).filter(|folder| folder.is_absolute())
        {
            let path = folder.join(PROGRAM);
            match fitness(&path) {
                Ok(()) => return Ok(path),
                Err(Unfit::NotExecutable) => {}
                Err(unfit) => looked_at.push(format!("{}, {unfit}", path.display())),
            }
        }
        looked_at.extend(usual.iter().map(|folder| folder.display().to_string()));
        Err(StartError::NotFound { looked_at })
    }
}

fn named(path: &Path, named_by: &'static str) -> Result<PathBuf, StartError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match fitness(&path) {
        Ok(()) => Ok(path),
        Err(why) => Err(StartError::NotAProgram { named_by, path, why }),
    }
}

fn fitness(path: &Path) -> Result<(), Unfit> {
    let executable = |metadata: std::fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    if !path.metadata().is_ok_and(executable) {
        return Err(Unfit::NotExecutable);
    }
    let mut head = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    // Of the byte orders, that of the machines that there are.
    if read.is_err() || !head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let own = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => machine,
    };
    if machine == own { Ok(()) } else { Err(Unfit::OtherProcessor(machine)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn search() -> Search {
        Search { named: None, from_env: None, path: None, home: None, usual: &[] }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nexus-program-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn program(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_named_program_is_meant_and_no_other_is_tried() {
        let path = Some(OsString::from("/bin"));
        let named = Some("/nowhere/nexus-sidecar".into());
        let error = Search { named, path: path.clone(), ..search() }.find().unwrap_err();
        assert!(error.to_string().starts_with("the option `binary` names /nowhere/nexus-sidecar"));
        let error = Search { from_env: Some("/etc/passwd".into()), path, ..search() }.find().unwrap_err();
        assert!(error.to_string().contains("NEXUS_SIDECAR_BIN names /etc/passwd, which is not an executable file"));
    }

    #[test]
    fn an_installed_program_is_found_on_the_path_and_then_where_packages_put_it() {
        let home = folder("home");
        let installed = home.join(".local/bin/nexus-sidecar");
        program(&installed, b"#!/bin/sh\n");
        let on_path = home.join("path/nexus-sidecar");
        let path = || Some(on_path.parent().unwrap().into());
        assert_eq!(Search { path: path(), home: Some(home.clone().into()), ..search() }.find().unwrap(), installed);
        program(&on_path, b"#!/bin/sh\n");
        assert_eq!(Search { path: path(), home: Some(home.clone().into()), ..search() }.find().unwrap(), on_path);
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn every_place_is_listed_when_it_is_nowhere_and_how_to_get_one() {
        let path = Some("/nowhere:relative".into());
        let error =
            Search { path, home: Some("/h".into()), usual: &["/u"], ..search() }.find().unwrap_err().to_string();
        for place in
            ["`binary`", "NEXUS_SIDECAR_BIN", "PATH (/nowhere:relative)", "/h/.local/bin", "/u", "npm i @nexus/sidecar"]
        {
            assert!(error.contains(place), "{place}: {error}");
        }
    }

    #[test]
    fn a_program_for_another_processor_is_told_and_passed_over() {
        let folder = folder("foreign");
        let foreign = folder.join("nexus-sidecar");
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0);
        head[18] = 243;
        program(&foreign, &head);
        let text = "which is a program for ELF machine 243, and this is ";
        let error = Search { named: Some(foreign.clone()), ..search() }.find().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let error = Search { path: Some(folder.clone().into()), ..search() }.find().unwrap_err();
        assert!(matches!(error, StartError::NotFound { .. }) && error.to_string().contains(text), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
