//! What each command of the command line does, `serve`, `engine` and `--version` excepted. All write to an output that
//! `main` hands in.
//!
//! `run` and `check` are clients of a sidecar of their own, at the other end of a socket pair: what they show is what a
//! client would get. How such a sidecar is started is the caller's: [`OneSidecar`].

mod check;
mod client;
mod diagnostic;
pub mod fixtures;
pub mod input;
pub mod notation;
mod remote;
mod report;
mod run;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::net::UnixStream;

use log::LevelFilter;

use crate::cli::{Connect, Run, Script};
use crate::config::{Config, ConfigArgs, Loaded, Origin};
use crate::error::{ExitCode, StartError};

use client::Client;
pub use client::ClientError;
pub use input::InputError;

/// Starts a sidecar for one client. Whatever it returns is dropped when that client has gone, and ends it.
pub trait OneSidecar {
    type Running;

    fn start(self, config: Config, stream: UnixStream) -> Result<Self::Running, StartError>;
}

impl<R, F: FnOnce(Config, UnixStream) -> Result<R, StartError>> OneSidecar for F {
    type Running = R;

    fn start(self, config: Config, stream: UnixStream) -> Result<R, StartError> {
        self(config, stream)
    }
}

/// Runs one handler. `loaded` is the configuration that `run.config` gave.
pub fn run(run: &Run, loaded: &Loaded, sidecar: impl OneSidecar, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let config = for_one_handler(loaded);
    let (name, source) = read(&run.file, &config)?;
    let mut inputs = run::Inputs::read(run, name, source, config.max_frame_bytes)?;
    let outcome = with_client(sidecar, config, |client| inputs.execute(client))?;
    if run.json {
        writeln!(out, "{}", report::json(&outcome))?;
    } else {
        out.write_all(report::text(&outcome, &inputs.name, &inputs.source).as_bytes())?;
    }
    Ok(if outcome.end.is_ok() { ExitCode::Ok } else { ExitCode::HandlerFailed })
}

/// Compiles one handler and says what it needs.
pub fn check(
    file: &Script,
    json: bool,
    loaded: &Loaded,
    sidecar: impl OneSidecar,
    out: &mut dyn Write,
) -> Result<ExitCode, StartError> {
    let config = for_one_handler(loaded);
    let (name, source) = read(file, &config)?;
    with_client(sidecar, config, |client| check::check(client, &name, &source, json, out))
}

pub fn stats(connect: &Connect, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    remote::stats(connect, out).map(|()| ExitCode::Ok)
}

pub fn metrics(connect: &Connect, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    remote::metrics(connect, out).map(|()| ExitCode::Ok)
}

pub fn ping(connect: &Connect, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    remote::ping(connect, out).map(|()| ExitCode::Ok)
}

/// Prints the effective configuration; ends with [`ExitCode::Usage`] when there is none.
pub fn check_config(
    args: &ConfigArgs,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ExitCode, StartError> {
    match args.load(env) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            out.write_all(loaded.describe().as_bytes())?;
            Ok(ExitCode::Ok)
        }
        Err(errors) => {
            for error in errors.iter() {
                writeln!(err, "error: {error}")?;
            }
            Ok(ExitCode::Usage)
        }
    }
}

/// The configuration for one handler of the person who asked: what nobody set is set for looking at it closely.
pub fn for_one_handler(loaded: &Loaded) -> Config {
    let mut config = loaded.config.clone();
    let unset = |key: &str| loaded.origin(key) == Some(&Origin::Default);
    if unset("debug") {
        config.debug = true;
    }
    if unset("log") {
        config.log = LevelFilter::Warn;
    }
    if unset("minInstances") && unset("maxInstances") {
        (config.min_instances, config.max_instances) = (1, 1);
    }
    config
}

fn read(file: &Script, config: &Config) -> Result<(String, String), StartError> {
    let name = match file {
        Script::Stdin => "standard input".to_owned(),
        Script::File(path) => path.display().to_string(),
    };
    Ok((name, input::read_script(file, config.max_source_bytes)?))
}

fn with_client<T>(
    sidecar: impl OneSidecar,
    config: Config,
    act: impl FnOnce(&mut Client) -> Result<T, StartError>,
) -> Result<T, StartError> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|source| StartError::Io { context: "cannot make a socket pair", source })?;
    let running = sidecar.start(config, theirs)?;
    // The handler may take as long as its deadline allows, so the client sets none of its own.
    let result = Client::over(ours, None).map_err(StartError::from).and_then(|mut client| act(&mut client));
    drop(running);
    result
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::{SegmentResult, Status};
    use nexus_protocol::{ErrorCode, SidecarMessage, WireError};

    use super::client::tests::serve;
    use super::*;

    /// Runs a handler file against a sidecar that gives these answers.
    fn ran(json: bool, answer: SidecarMessage<'static>) -> (ExitCode, String) {
        let path =
            std::env::temp_dir().join(format!("nexus-run-{}-{:?}.js", std::process::id(), std::thread::current().id()));
        std::fs::write(&path, "return 42").unwrap();
        let mut command = run::tests::run_with(None);
        command.file = Script::File(path.clone());
        command.json = json;
        let loaded = ConfigArgs::default().load([]).unwrap();
        let mut out = Vec::new();
        let sidecar = |_: Config, stream: UnixStream| Ok(serve(stream, vec![answer]));
        let code = super::run(&command, &loaded, sidecar, &mut out);
        std::fs::remove_file(path).unwrap();
        (code.unwrap(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn run_prints_the_value_and_ends_with_0() {
        let mut result = SegmentResult::new(Status::Success, 0);
        result.value = Some(&[42]);
        let (code, text) = ran(false, SidecarMessage::Result(result.clone()));
        assert_eq!(code, ExitCode::Ok);
        assert!(text.starts_with("42\n("), "{text}");
        let (_, document) = ran(true, SidecarMessage::Result(result));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).unwrap()["value"], 42);
    }

    #[test]
    fn run_of_a_failed_handler_ends_with_1() {
        let mut result = SegmentResult::new(Status::Error, 0);
        result.error = Some(WireError::new(ErrorCode::Timeout, "too long"));
        let (code, text) = ran(false, SidecarMessage::Result(result));
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.starts_with("error: TIMEOUT: too long\n"), "{text}");
    }

    #[test]
    fn one_handler_runs_with_debug_unless_told_otherwise() {
        let loaded = |flags: &[(&'static str, &str)]| {
            let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            ConfigArgs { file: None, flags }.load([]).unwrap()
        };
        let config = for_one_handler(&loaded(&[]));
        assert_eq!((config.debug, config.max_instances, config.log), (true, 1, LevelFilter::Warn));
        let config = for_one_handler(&loaded(&[("debug", "false"), ("maxInstances", "3"), ("log", "info")]));
        assert_eq!((config.debug, config.max_instances, config.log), (false, 3, LevelFilter::Info));
    }

    fn checked(flags: &[(&'static str, &str)]) -> (ExitCode, String, String) {
        let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let env = [("NEXUS_FOREIGN".into(), "1".into())];
        let code = check_config(&ConfigArgs { file: None, flags }, env, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_configuration_is_printed_and_ends_with_0() {
        let (code, out, err) = checked(&[("debug", "true")]);
        assert_eq!(code, ExitCode::Ok);
        assert!(out.contains("debug = true") && out.contains("# flag --debug"), "{out}");
        assert!(err.starts_with("warning: environment variable NEXUS_FOREIGN "), "{err}");
    }

    #[test]
    fn a_bad_configuration_prints_every_error_and_ends_with_2() {
        let (code, out, err) = checked(&[("debug", "maybe"), ("maxInstances", "0")]);
        assert_eq!((code as u8, out.as_str()), (2, ""));
        assert_eq!(err.lines().filter(|line| line.starts_with("error: ")).count(), 2);
    }
}
