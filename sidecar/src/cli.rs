//! The command line: arguments in, one [`Command`] out. Pure: it opens no file and reads no environment.
//!
//! `grammar` describes the flags to the argument parser. Those of the configuration are made from the table of `config`; their values are checked there, not here, so that a flag,
//! a variable and a line of the file are refused in the same words.

mod grammar;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::error::ErrorKind;
use nexus_protocol::message::SuspendMode;

use crate::config::{ConfigArgs, SETTINGS};
use crate::walls::worker;

/// What to do, all of it that the command line says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Command {
    Serve {
        listen: Listen,
        config: ConfigArgs,
    },
    Run(Box<Run>),
    Check {
        file: Script,
        json: bool,
        config: ConfigArgs,
    },
    /// Print what a handler finds by name.
    Types {
        extensions: Option<JsonSource>,
        config: ConfigArgs,
    },
    Stats(Connect),
    Metrics(Connect),
    Ping(Connect),
    Top(Top),
    Engine {
        json: bool,
    },
    /// Run guests for the supervisor that has executed this.
    Worker {
        supervisor: i32,
        channel: String,
    },
    /// Print the effective configuration and end.
    CheckConfig(ConfigArgs),
    Version,
    /// The text that was asked for; goes to stdout.
    Help(String),
}

/// Where `serve` finds its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listen {
    Path(PathBuf),
    /// One connected socket that the parent made.
    Fd(RawFd),
    /// A listening socket that a service manager hands in (sd_listen_fds).
    Activated,
}

/// One handler, run in this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub file: Script,
    pub state: Option<JsonSource>,
    pub args: Option<JsonSource>,
    pub scope: Option<JsonSource>,
    pub grants: Vec<String>,
    /// Grant beside these what the handler is seen to need.
    pub grant_needs: bool,
    /// How extension calls suspend, when not as the handler's text needs it.
    pub suspend_mode: Option<SuspendMode>,
    /// Answers for extension calls.
    pub extensions: Option<JsonSource>,
    pub json: bool,
    /// Again whenever one of its files changes.
    pub watch: bool,
    pub config: ConfigArgs,
}

/// The source of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    Stdin,
    File(PathBuf),
    /// The source itself.
    Text(String),
}

/// A JSON value given on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonSource {
    Inline(serde_json::Value),
    File(PathBuf),
}

/// A command that asks a running sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Its socket; else the one that the environment names, or one at a usual place.
    pub path: Option<PathBuf>,
    pub json: bool,
}

/// What is shown of the executions of a running sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    pub connect: Connect,
    pub once: bool,
    pub interval_ms: u64,
    /// End this execution instead.
    pub kill: Option<u64>,
}

/// The command line cannot be understood; the text says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Reads the command line; `args` begins with the name of the program.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let matches = match grammar::root().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let text = error.render().to_string();
            return match error.kind() {
                ErrorKind::DisplayHelp => Ok(Command::Help(text)),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    Err(UsageError(format!("error: say what to do\n\n{}", text.trim_end())))
                }
                _ => Err(UsageError(text.trim_end().to_owned())),
            };
        }
    };
    let Some((name, sub)) = matches.subcommand() else {
        return root_flags(&matches);
    };
    if matches!(name, "serve") && sub.get_flag("check-config") {
        return Ok(Command::CheckConfig(config_args(sub)));
    }
    match name {
        "serve" => {
            let fd = sub.get_one::<i64>("fd").and_then(|fd| RawFd::try_from(*fd).ok());
            match (sub.get_one::<PathBuf>("listen"), fd) {
                (Some(path), None) => {
                    Ok(Command::Serve { listen: Listen::Path(path.clone()), config: config_args(sub) })
                }
                (None, Some(fd)) => Ok(Command::Serve { listen: Listen::Fd(fd), config: config_args(sub) }),
                (None, None) => Ok(Command::Serve { listen: Listen::Activated, config: config_args(sub) }),
                (Some(_), Some(_)) => Err(UsageError(
                    "error: serve takes one of --listen PATH and --fd N; try 'nexus-sidecar serve --help'".to_owned(),
                )),
            }
        }
        "run" => Ok(Command::Run(Box::new(Run {
            file: script(sub),
            state: sub.get_one("state").cloned(),
            args: sub.get_one("args").cloned(),
            scope: sub.get_one("scope").cloned(),
            grants: tokens(sub).filter(|token| *token != grammar::AUTO).cloned().collect(),
            grant_needs: tokens(sub).any(|token| token == grammar::AUTO),
            suspend_mode: sub.get_one::<String>("suspend-mode").map(|mode| match mode.as_str() {
                "stack" => SuspendMode::Stack,
                _ => SuspendMode::Await,
            }),
            extensions: sub.get_one("ext").cloned(),
            json: sub.get_flag("json"),
            watch: watch(sub)?,
            config: config_args(sub),
        }))),
        "check" if sub.get_flag("types") => {
            Ok(Command::Types { extensions: sub.get_one("ext").cloned(), config: config_args(sub) })
        }
        "check" if sub.contains_id("ext") => Err(UsageError(
            "error: --ext is for --types here: a check runs nothing, so that no call is answered".to_owned(),
        )),
        "check" => Ok(Command::Check { file: script(sub), json: sub.get_flag("json"), config: config_args(sub) }),
        "stats" => Ok(Command::Stats(connect(sub))),
        "metrics" => Ok(Command::Metrics(connect(sub))),
        "ping" => Ok(Command::Ping(connect(sub))),
        "top" => Ok(Command::Top(Top {
            connect: connect(sub),
            once: sub.get_flag("once"),
            interval_ms: sub.get_one("interval-ms").copied().unwrap_or(grammar::TOP_INTERVAL_MS),
            kill: sub.get_one("kill").copied(),
        })),
        "engine" => Ok(Command::Engine { json: sub.get_flag("json") }),
        worker::NAME => Ok(Command::Worker {
            supervisor: sub.get_one("supervisor").copied().unwrap_or_default(),
            channel: sub.get_one("channel").cloned().unwrap_or_default(),
        }),
        other => Err(UsageError(format!("error: the command {other} is not handled"))),
    }
}

fn root_flags(matches: &ArgMatches) -> Result<Command, UsageError> {
    if matches.get_flag("version") {
        return Ok(Command::Version);
    }
    if matches.get_flag("check-config") {
        return Ok(Command::CheckConfig(config_args(matches)));
    }
    Err(UsageError(
        "error: say what to do, for example 'nexus-sidecar run FILE'; 'nexus-sidecar --help' lists the commands"
            .to_owned(),
    ))
}

fn config_args(matches: &ArgMatches) -> ConfigArgs {
    let flags =
        SETTINGS.iter().filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())));
    ConfigArgs { file: matches.get_one::<PathBuf>("config").cloned(), flags: flags.collect() }
}

fn script(matches: &ArgMatches) -> Script {
    match (matches.get_one::<String>("eval"), matches.get_one::<PathBuf>("file")) {
        (Some(text), _) => Script::Text(text.clone()),
        (None, Some(path)) if path.as_os_str() != "-" => Script::File(path.clone()),
        (None, _) => Script::Stdin,
    }
}

fn tokens(matches: &ArgMatches) -> impl Iterator<Item = &String> {
    matches.get_many::<String>("grant").into_iter().flatten()
}

fn watch(matches: &ArgMatches) -> Result<bool, UsageError> {
    match (matches.get_flag("watch"), script(matches)) {
        (true, Script::Stdin | Script::Text(_)) => {
            Err(UsageError("error: --watch waits for changes of a file, so the handler must be one".to_owned()))
        }
        (watch, _) => Ok(watch),
    }
}

fn connect(matches: &ArgMatches) -> Connect {
    Connect { path: matches.get_one::<PathBuf>("connect").cloned(), json: matches.get_flag("json") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(line: &[&str]) -> Result<Command, UsageError> {
        parse(std::iter::once("nexus-sidecar").chain(line.iter().copied()).map(OsString::from))
    }

    fn help(line: &[&str]) -> String {
        match parsed(line) {
            Ok(Command::Help(text)) => text,
            other => panic!("not help: {other:?}"),
        }
    }

    fn refused(line: &[&str]) -> String {
        parsed(line).expect_err("a refused command line").to_string()
    }

    #[test]
    fn the_parser_is_consistent() {
        grammar::root().debug_assert();
    }

    #[test]
    fn serve_takes_a_path_or_a_descriptor() {
        let config = ConfigArgs::default;
        assert_eq!(
            parsed(&["serve", "--listen", "/x"]),
            Ok(Command::Serve { listen: Listen::Path("/x".into()), config: config() })
        );
        assert_eq!(parsed(&["serve", "--fd", "3"]), Ok(Command::Serve { listen: Listen::Fd(3), config: config() }));
    }

    #[test]
    fn serve_without_a_socket_takes_the_one_of_the_service_manager() {
        let config = ConfigArgs::default();
        assert_eq!(parsed(&["serve"]), Ok(Command::Serve { listen: Listen::Activated, config }));
    }

    #[test]
    fn serve_refuses_both_and_standard_streams() {
        assert!(refused(&["serve", "--listen", "/x", "--fd", "3"]).contains("cannot be used with"));
        for fd in ["0", "2", "-1", "x", "99999999999"] {
            assert!(refused(&["serve", "--fd", fd]).contains("--fd <N>"), "{fd}");
        }
    }

    #[test]
    fn configuration_flags_reach_every_command_that_runs_handlers() {
        let expected = ConfigArgs {
            file: Some("/c.toml".into()),
            flags: vec![
                ("maxInstances", "4".to_owned()),
                ("enableAOT", "false".to_owned()),
                ("debug", "true".to_owned()),
            ],
        };
        let flags = ["--config", "/c.toml", "--max-instances", "4", "--debug", "true", "--enable-aot", "false"];
        for command in [&["serve", "--fd", "3"][..], &["run", "h.js"], &["check", "h.js"], &["--check-config"]] {
            let line: Vec<_> = command.iter().chain(&flags).copied().collect();
            let config = match parsed(&line).unwrap() {
                Command::Serve { config, .. } | Command::Check { config, .. } | Command::CheckConfig(config) => config,
                Command::Run(run) => run.config,
                other => panic!("{other:?}"),
            };
            assert_eq!(config, expected, "{command:?}");
        }
    }

    #[test]
    fn check_config_stands_alone_or_with_serve() {
        for line in [&["--check-config"][..], &["serve", "--check-config"]] {
            assert_eq!(parsed(line), Ok(Command::CheckConfig(ConfigArgs::default())));
        }
        let message = refused(&["--max-instances", "4"]);
        assert!(message.contains("say what to do"), "{message}");
    }

    #[test]
    fn run_takes_values_grants_and_fixtures() {
        let line = [
            "run",
            "h.ts",
            "--state",
            "{\"n\": 1}",
            "--args",
            "-5",
            "--scope",
            "@scope.json",
            "--suspend-mode",
            "stack",
            "--grant",
            "state:read:*",
            "--grant",
            "ext:http",
            "--ext",
            "@fix.json",
            "--json",
            "--timeout-ms",
            "100",
        ];
        let Ok(Command::Run(run)) = parsed(&line) else { panic!("not run") };
        assert_eq!(run.file, Script::File("h.ts".into()));
        assert_eq!(run.state, Some(JsonSource::Inline(json!({"n": 1}))));
        assert_eq!(run.args, Some(JsonSource::Inline(json!(-5))));
        assert_eq!(run.scope, Some(JsonSource::File("scope.json".into())));
        assert_eq!(run.grants, ["state:read:*", "ext:http"]);
        assert_eq!(run.suspend_mode, Some(SuspendMode::Stack));
        assert_eq!(run.extensions, Some(JsonSource::File("fix.json".into())));
        assert_eq!(run.config.flags, [("timeoutMs", "100".to_owned())]);
        assert!(run.json);
    }

    #[test]
    fn a_dash_reads_the_handler_from_standard_input() {
        let Ok(Command::Run(run)) = parsed(&["run", "-"]) else { panic!("not run") };
        assert_eq!(run.file, Script::Stdin);
    }

    #[test]
    fn a_handler_may_stand_on_the_line() {
        let Ok(Command::Run(run)) = parsed(&["run", "-e", "return 1"]) else { panic!("not run") };
        assert_eq!(run.file, Script::Text("return 1".to_owned()));
        let Ok(Command::Check { file, .. }) = parsed(&["check", "--eval", "return 1"]) else { panic!("not check") };
        assert_eq!(file, Script::Text("return 1".to_owned()));
        assert!(refused(&["run", "h.js", "-e", "1"]).contains("cannot be used with"));
        for (command, usage) in [("run", "<FILE|--eval <CODE>>"), ("check", "<FILE|--eval <CODE>|--types>")] {
            let message = refused(&[command]);
            assert!(message.contains(usage), "{message}");
        }
    }

    #[test]
    fn names_are_declared_without_a_handler() {
        let Ok(Command::Types { extensions, .. }) = parsed(&["check", "--types", "--ext", "{}"]) else {
            panic!("not types")
        };
        assert_eq!(extensions, Some(JsonSource::Inline(json!({}))));
        assert!(refused(&["check", "h.js", "--types"]).contains("cannot be used with"));
        assert!(refused(&["check", "h.js", "--ext", "{}"]).contains("--types"));
    }

    #[test]
    fn what_the_handler_needs_may_be_granted_beside_other_tokens() {
        let Ok(Command::Run(run)) = parsed(&["run", "h.js", "--grant", "auto", "--grant", "ext:a"]) else {
            panic!("not run")
        };
        assert_eq!((run.grant_needs, run.grants), (true, vec!["ext:a".to_owned()]));
    }

    #[test]
    fn only_a_file_is_watched() {
        let Ok(Command::Run(run)) = parsed(&["run", "h.js", "--watch"]) else { panic!("not run") };
        assert!(run.watch);
        for line in [&["run", "-", "--watch"][..], &["run", "-e", "1", "--watch"]] {
            assert!(refused(line).contains("must be one"), "{line:?}");
        }
    }

    #[test]
    fn help_is_a_command_too() {
        assert_eq!(help(&["help"]), help(&["--help"]));
        assert_eq!(help(&["help", "run"]), help(&["run", "--help"]));
        assert!(refused(&["help", "nonsense"]).contains("nonsense"));
    }

    #[test]
    fn bad_json_is_refused_with_what_to_do() {
        let message = refused(&["run", "h.js", "--state", "{n: 1}"]);
        assert!(message.contains("no good JSON") && message.contains("@FILE reads a file"), "{message}");
        assert!(refused(&["run", "h.js", "--state", "@"]).contains("a file name must follow the @"));
    }

    #[test]
    fn client_commands_take_a_socket_or_find_one() {
        let connect = |json| Connect { path: Some("/s".into()), json };
        assert_eq!(parsed(&["stats", "--connect", "/s", "--json"]), Ok(Command::Stats(connect(true))));
        assert_eq!(parsed(&["metrics", "--connect", "/s"]), Ok(Command::Metrics(connect(false))));
        assert_eq!(parsed(&["ping", "--connect", "/s"]), Ok(Command::Ping(connect(false))));
        assert_eq!(parsed(&["ping"]), Ok(Command::Ping(Connect { path: None, json: false })));
    }

    #[test]
    fn top_refreshes_until_told_otherwise() {
        let top = |once, interval_ms, kill| {
            let connect = Connect { path: Some("/s".into()), json: false };
            Ok(Command::Top(Top { connect, once, interval_ms, kill }))
        };
        assert_eq!(parsed(&["top", "--connect", "/s"]), top(false, 1000, None));
        assert_eq!(parsed(&["top", "--connect", "/s", "--once"]), top(true, 1000, None));
        assert_eq!(parsed(&["top", "--connect", "/s", "--interval-ms", "200"]), top(false, 200, None));
        assert_eq!(parsed(&["top", "--connect", "/s", "--kill", "7"]), top(false, 1000, Some(7)));
        assert!(refused(&["top", "--connect", "/s", "--interval-ms", "1"]).contains("--interval-ms"));
    }

    #[test]
    fn wrong_usage_says_what_to_do() {
        assert!(refused(&["serv"]).contains("'serve'"));
        assert!(refused(&["run", "h.js", "--max-instance", "4"]).contains("'--max-instances'"));
        assert!(refused(&["nonsense"]).contains("unrecognized"));
        let nothing = refused(&[]);
        assert!(nothing.starts_with("error: say what to do") && nothing.contains("Commands:"), "{nothing}");
    }

    #[test]
    fn help_is_about_what_exists() {
        let text = help(&["--help"]);
        for word in
            ["serve", "run", "check", "stats", "metrics", "top", "ping", "engine", "--version", "--check-config"]
        {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        assert!(!text.contains("--max-queue-ms"), "{text}");
    }

    #[test]
    fn the_help_of_serve_lists_every_setting() {
        let text = help(&["serve", "--help"]);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in &SETTINGS {
            assert!(
                text.contains(&format!("--{} <{}>", setting.flag(), setting.kind.placeholder())),
                "{}",
                setting.key
            );
            assert!(words.contains(&format!("[env: {}]", setting.env())), "{}", setting.key);
        }
    }

    #[test]
    fn the_short_help_of_run_is_only_about_running() {
        assert!(!help(&["run", "-h"]).contains("--max-queued"));
        assert!(help(&["run", "--help"]).contains("--max-queued"));
    }

    #[test]
    fn the_fixtures_in_the_help_are_a_fixture_file() {
        let lines = grammar::RUN_EXAMPLES.lines().skip_while(|line| !line.starts_with("  { \"http.get\""));
        let lines: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).collect();
        // what is said about an answer stands apart from it
        let json: String = lines.iter().map(|line| line.trim_start().split("   ").next().unwrap_or_default()).collect();
        let fixtures =
            crate::commands::fixtures::Fixtures::from_json(serde_json::from_str(&json).expect(&json)).unwrap();
        assert!(lines.len() == 6 && fixtures.is_absent("mail") && fixtures.unused().len() == 4, "{json}");
    }

    #[test]
    fn the_version_can_be_asked_for() {
        assert_eq!(parsed(&["--version"]), Ok(Command::Version));
        assert_eq!(parsed(&["-V"]), Ok(Command::Version));
        assert_eq!(parsed(&["engine", "--json"]), Ok(Command::Engine { json: true }));
    }
}
