//! The grammar of the command line, for the argument parser, and the texts of `--help`.

use std::os::fd::RawFd;

use clap::builder::{NonEmptyStringValueParser, PathBufValueParser};
use clap::{Arg, ArgAction, ArgGroup, value_parser};

use super::JsonSource;
use crate::commands::json;
use crate::config::SETTINGS;
use crate::walls::worker;

/// The first descriptor that is not one of the standard streams.
const FIRST_FD: i64 = 3;
pub(super) const TOP_INTERVAL_MS: u64 = 1000;
/// Grants what the handler is seen to need; no capability is called so.
pub(super) const AUTO: &str = "auto";
const CONFIG_HEADING: &str = "Configuration (flag, then environment, then file, then default)";

pub(super) fn root() -> clap::Command {
    clap::Command::new("nexus-sidecar")
        .about("Runs untrusted JavaScript handlers in WebAssembly sandboxes, for other programs.")
        .override_usage("nexus-sidecar COMMAND [OPTIONS]\n       nexus-sidecar --check-config [CONFIGURATION FLAGS]")
        .after_help(ROOT_EXAMPLES)
        .disable_version_flag(true)
        .subcommand_value_name("COMMAND")
        .arg_required_else_help(true)
        .args_conflicts_with_subcommands(true)
        .arg(switch("version", "Print the version and the digest of the engine").short('V'))
        .arg(check_config())
        .args(config_flags().into_iter().map(|arg| arg.hide(true)))
        .subcommands([serve(), run(), check(), stats(), metrics(), top(), ping(), engine(), worker()])
}

fn serve() -> clap::Command {
    command("serve", "Serve clients until told to stop")
        .after_help(SERVE_EXAMPLES)
        .arg(path("listen", "Socket to create, in a directory that only this user may enter"))
        .arg(
            Arg::new("fd")
                .long("fd")
                .value_name("N")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(i64).range(FIRST_FD..=i64::from(RawFd::MAX)))
                .help("Connected socket inherited from the parent, which is the one client; ends when the parent closes it"),
        )
        .arg(check_config())
        .group(ArgGroup::new("where").args(["listen", "fd", "check-config"]))
        .args(config_flags())
}

fn run() -> clap::Command {
    command("run", "Run one handler in this process and show what it did")
        .after_help("--help tells more: examples, the format of --ext, every setting.")
        .after_long_help(RUN_EXAMPLES)
        .args(handler_args())
        .group(handler_group())
        .arg(json_source("state", "Its $state, an object [default: {}]"))
        .arg(json_source("args", "Its $args [default: null]"))
        .arg(json_source("scope", "Its $scope, an object [default: {}]"))
        .arg(
            Arg::new("grant")
                .long("grant")
                .value_name("TOKEN")
                .action(ArgAction::Append)
                .value_parser(NonEmptyStringValueParser::new())
                .help("Capability to grant, such as state:read:*, events:emit:saved or ext:http.get; auto grants what check lists, and says so; may be repeated"),
        )
        .arg(Arg::new("suspend-mode").long("suspend-mode").value_name("MODE").value_parser(["await", "stack"]).help(
            "Make extension calls return promises (await) or values (stack) [default: as the handler's text needs]",
        ))
        .arg(json_source(
            "ext",
            "Answers for extension calls, by name; the format is at the end of --help [default: none]",
        ))
        .arg(switch("json", "Print one JSON document for programs"))
        .arg(switch("watch", "Run it again whenever it, or a file that --state, --args, --scope or --ext names, changes; Ctrl-C ends"))
        .args(config_flags().into_iter().map(|arg| arg.hide_short_help(true)))
}

fn check() -> clap::Command {
    command("check", "Compile a handler; list the capabilities that it needs and how it suspends")
        .after_help("Examples:\n  nexus-sidecar check handler.js\n  nexus-sidecar check --types --ext @fixtures.json > handler.d.ts\n\nEnds with 0 when the handler compiles, else with 1.")
        .args(handler_args())
        .arg(switch("types", "Print TypeScript declarations of what a handler finds by name, instead of a check"))
        .arg(json_source("ext", "Answers for extension calls, as run takes them: their methods are declared"))
        .group(handler_group().arg("types"))
        .arg(switch("json", "Print one JSON document for programs"))
        .args(config_flags().into_iter().map(|arg| arg.hide_short_help(true)))
}

fn stats() -> clap::Command {
    client("stats", "Show the figures of a running sidecar").arg(switch("json", "Print one JSON document for programs"))
}

fn metrics() -> clap::Command {
    client("metrics", "Print the metrics of a running sidecar in the Prometheus text format")
        .arg(switch("json", "Print the text as one JSON string"))
}

fn top() -> clap::Command {
    client("top", "Show the executions of a running sidecar, and end those that you choose")
        .after_help(
            "On a terminal:\n  \
             up/down, j/k    choose an execution; page up and down, g and G (or home and end) go further\n  \
             x, K, delete    end it, after a y to the question; its client gets CANCELLED\n  \
             s               sort by id, age, CPU, memory, state\n  \
             q, Ctrl-C       quit; Ctrl-Z stops, fg goes on\n\
             Without one on both ends (or with TERM=dumb) the list is printed again and again, or once with --once.\n\n\
             Only the sidecar's own user and root may ask. No source, state or value is shown. CPU counts the segment that \
             runs by its time; MEMORY is that of the instance while it runs, that of the handler's values while it is suspended.",
        )
        .arg(switch("once", "Print them once and end"))
        .arg(switch("json", "Print one JSON document for programs, one line each time"))
        .arg(
            Arg::new("interval-ms")
                .long("interval-ms")
                .value_name("MS")
                .value_parser(value_parser!(u64).range(100..=3_600_000))
                .help("Time between two looks [default: 1000; 100 to 3600000]"),
        )
        .arg(
            Arg::new("kill")
                .long("kill")
                .value_name("ID")
                .value_parser(value_parser!(u64))
                .help("End this execution; its client gets CANCELLED. Ends with 0 when it was there, else with 1"),
        )
}

fn ping() -> clap::Command {
    client("ping", "Ask a running sidecar for an answer and say how long it took")
        .arg(switch("json", "Print one JSON document for programs"))
}

fn engine() -> clap::Command {
    command("engine", "Show what the sandbox is built from, and its digest")
        .arg(switch("json", "Print one JSON document for programs"))
}

/// For a supervisor, which knows what to say.
fn worker() -> clap::Command {
    command(worker::NAME, "Run guests for the sidecar that has started this")
        .hide(true)
        .arg(Arg::new("supervisor").required(true).value_parser(value_parser!(i32)))
        .arg(Arg::new("channel").required(true))
}

fn command(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name).about(about).disable_version_flag(true)
}

fn client(name: &'static str, about: &'static str) -> clap::Command {
    command(name, about).arg(path(
        "connect",
        "Socket of the sidecar, as given to its serve --listen [env: NEXUS_CONNECT] [default: where the service has it]",
    ))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").value_parser(PathBufValueParser::new()).help(help)
}

fn handler_args() -> [Arg; 2] {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(PathBufValueParser::new())
        .help("The handler, JavaScript or TypeScript; - reads it from standard input");
    let eval = Arg::new("eval").short('e').long("eval").value_name("CODE").allow_hyphen_values(true);
    [file, eval.help("The handler itself, instead of a file")]
}

/// One of them, and no more than one.
fn handler_group() -> ArgGroup {
    ArgGroup::new("handler").args(["file", "eval"]).required(true)
}

fn check_config() -> Arg {
    switch(
        "check-config",
        "Print the effective configuration and where each value comes from; end with 0 or, if it is wrong, 2",
    )
}

fn json_source(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("JSON|@FILE")
        .allow_negative_numbers(true)
        .value_parser(parse_json_source)
        .help(help)
}

fn parse_json_source(text: &str) -> Result<JsonSource, String> {
    match text.strip_prefix('@') {
        Some("") => Err("a file name must follow the @".to_owned()),
        Some(path) => Ok(JsonSource::File(path.into())),
        None => json::from_str(text).map(JsonSource::Inline).map_err(|error| {
            format!("no good JSON: {error} (strings need quotes of their own: '\"text\"'; @FILE reads a file)")
        }),
    }
}

fn config_flags() -> Vec<Arg> {
    let file =
        path("config", "Configuration file, TOML; its keys are the camelCase form of these flags [env: NEXUS_CONFIG]");
    let flags = SETTINGS.iter().map(|setting| {
        Arg::new(setting.key)
            .long(setting.flag())
            .value_name(setting.kind.placeholder())
            .allow_negative_numbers(true)
            .help(setting.help())
    });
    std::iter::once(file).chain(flags).map(|arg| arg.help_heading(CONFIG_HEADING)).collect()
}

const ROOT_EXAMPLES: &str = "\
Examples:
  nexus-sidecar run -e 'return 6 * 7'
  nexus-sidecar run handler.js --state '{\"n\": 1}' --grant 'state:read:*' --grant state:write:n
  nexus-sidecar check handler.js
  nexus-sidecar serve --listen \"$XDG_RUNTIME_DIR/nexus/sidecar.sock\"
  nexus-sidecar top --connect \"$XDG_RUNTIME_DIR/nexus/sidecar.sock\"
  nexus-sidecar stats            (of the service, or of the socket that NEXUS_CONNECT names)

Configuration: 'nexus-sidecar serve --help' lists every setting. A setting is a flag (--max-instances 4), an \
environment variable (NEXUS_MAX_INSTANCES=4) or a line of the file that --config or NEXUS_CONFIG names (maxInstances = 4). An empty variable counts as unset.

Exit status:
  0   all went well
  1   the handler failed, or the sidecar that was asked did not answer
  2   wrong command line
  3   wrong configuration
  4   the socket is in use
  5   the engine cannot start
  6   the guest module is not the one that this build expects
  70  a fault of its own
  71  threads were stuck for good, or something was lost that the process needs
  75  the parent is gone";

const SERVE_EXAMPLES: &str = "\
Examples:
  nexus-sidecar serve --listen /run/user/1000/nexus/sidecar.sock --max-instances 4
  nexus-sidecar serve --fd 3
  nexus-sidecar serve            (under systemd, with a socket unit)
  nexus-sidecar serve --check-config --config sidecar.toml

Signals:
  SIGTERM  take no new work, answer what is under way for at most drainTimeoutMs, cancel and answer the rest, end with 0; \
a second one ends at once. In service mode SIGINT does the same
  SIGHUP   read the configuration again: what is marked [reload] changes for new requests and connections; a wrong \
configuration changes nothing

In child mode (--fd) it ends when the socket is closed or the parent process is gone.";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  nexus-sidecar run handler.js --grant auto --watch
  nexus-sidecar run handler.ts --state @state.json --args '[1, 2]' --grant 'state:read:*'
  nexus-sidecar run handler.js --grant ext:http --ext @fixtures.json

Answers for extension calls (--ext): an object with a list for each method.
  { \"http.get\": [
      \"body\",                                                any call; this value is what it returns
      {\"value\": {\"id\": 7}, \"args\": [\"/users/7\"]},          only a call with equal arguments
      {\"error\": \"down\", \"delayMs\": 200},                 fails, and comes after 200 ms
      {\"error\": {\"message\": \"gone\", \"name\": \"HttpError\", \"code\": \"E410\"}} ],
    \"mail\": false }                                        $ext.mail does not exist
A call takes the first answer of its list that is for it and that no call took before. An object that has one of args, value, \
error and delayMs describes an answer and may have no other key; put it under value to return it as it is. Arguments are \
compared as JSON: a Date is its text, undefined is null, bytes are a list of numbers. Calls that are outstanding together \
are answered in the order of their delays; no delay may be longer than suspensionTimeoutMs.
A call without an answer fails, and what to add is written to stderr (missingFixtures of --json); so are the answers \
that no call took (unusedFixtures). They do not change the exit status.

Ends with 0 when the handler succeeded, 1 when it failed.";
