//! Each command, from what it was given to its exit code.

use std::ffi::OsString;
use std::io::Write;

use log::LevelFilter;

use super::local::with_sidecar;
use super::watch::Watched;
use super::{input, remote, report};
use crate::cli::{Connect, JsonSource, Run, Script, Top};
use crate::config::{Config, ConfigArgs, Loaded, Origin};
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::observe::logging::{self, Layout};

/// Runs one handler. `loaded` is the configuration that `run.config` gave; `err` gets what is wrong with the fixtures.
pub fn run(run: &Run, loaded: &Loaded, out: &mut dyn Write, err: &mut dyn Write) -> Result<ExitCode, StartError> {
    let config = begin(loaded);
    if !run.watch {
        return once(run, config, out, err);
    }
    loop {
        let watched = Watched::of(run);
        if let Err(error) = once(run, config.clone(), out, err) {
            // a file that is half written, or gone for a moment, comes again
            writeln!(err, "error: {error}")?;
        }
        watched.wait(err)?;
    }
}

fn once(run: &Run, config: Config, out: &mut dyn Write, err: &mut dyn Write) -> Result<ExitCode, StartError> {
    let (name, source) = read(&run.file, &config)?;
    let mut inputs = super::run::Inputs::read(run, name, source, &config)?;
    let outcome = with_sidecar(config, |sidecar| inputs.execute(sidecar))?;
    if run.json {
        writeln!(out, "{}", report::json(&outcome))?;
    } else {
        out.write_all(report::text(&outcome, &inputs.name, &inputs.source).as_bytes())?;
    }
    out.flush()?;
    err.write_all(report::remarks(&outcome).as_bytes())?;
    Ok(if outcome.end.is_ok() { ExitCode::Ok } else { ExitCode::HandlerFailed })
}

/// Compiles one handler and says what it needs.
pub fn check(file: &Script, json: bool, loaded: &Loaded, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let config = begin(loaded);
    let (name, source) = read(file, &config)?;
    let (code, text) = with_sidecar(config, |sidecar| super::check::check(sidecar, &name, &source, json))?;
    out.write_all(text.as_bytes())?;
    Ok(code)
}

/// Prints what a handler finds by name.
pub fn types(extensions: Option<&JsonSource>, loaded: &Loaded, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    out.write_all(super::types::declarations(extensions, loaded.config.max_frame_bytes)?.as_bytes())?;
    Ok(ExitCode::Ok)
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

/// Shows the executions of a running sidecar, or ends one.
pub fn top(top: &Top, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    super::top::top(top, out)
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

/// Starts the log, says what is odd about the configuration, and returns the one to use.
fn begin(loaded: &Loaded) -> Config {
    let config = for_one_handler(loaded);
    // Fails only where there is a log already, which then is as good.
    let _ = logging::init(config.log, if config.log_json { Layout::Json } else { Layout::Plain });
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    config
}

fn read(file: &Script, config: &Config) -> Result<(String, String), StartError> {
    let name = match file {
        Script::Stdin => "standard input".to_owned(),
        Script::File(path) => path.display().to_string(),
        Script::Text(_) => "--eval".to_owned(),
    };
    Ok((name, input::read_script(file, config.max_source_bytes)?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use serde_json::{Value as Json, json};

    use super::*;

    /// A handler in a file of its own, gone when dropped.
    struct HandlerFile(PathBuf);

    impl HandlerFile {
        fn new(source: &str) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("nexus-handler-{}-{}.js", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, source).unwrap();
            Self(path)
        }
    }

    impl Drop for HandlerFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Runs `source` in a real engine, as the command would; the name of the file reads FILE in the text.
    fn ran(source: &str, change: impl FnOnce(&mut Run)) -> (ExitCode, String) {
        let file = HandlerFile::new(source);
        let mut run = super::super::run::tests::run_with(None);
        run.file = Script::File(file.0.clone());
        change(&mut run);
        let loaded = run.config.load([]).unwrap();
        let mut out = Vec::new();
        let code = super::run(&run, &loaded, &mut out, &mut Vec::new()).unwrap();
        (code, String::from_utf8(out).unwrap().replace(&*file.0.display().to_string(), "FILE"))
    }

    fn grant<'a>(tokens: &'a [&str]) -> impl FnOnce(&mut Run) + 'a {
        |run| run.grants = tokens.iter().map(|token| (*token).to_owned()).collect()
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('(')).collect()
    }

    #[test]
    fn run_shows_value_and_effects() {
        let source = "$log('hi'); $state.n = $state.n + 1; delete $state.old; $emit('saved', { id: 7 });\n\
                      $view.focus('grid'); return [$state.n, 2n ** 60n, new Date(0), new Uint8Array(2)]";
        let tokens = ["state:read:n", "state:write:*", "events:emit:saved", "view:update:grid"];
        let (code, text) = ran(source, grant(&tokens));
        assert_eq!(code, ExitCode::Ok, "{text}");
        let expected = [
            "info   hi",
            "set    n = 2",
            "delete old",
            "event  saved { id: 7 }",
            "view   grid focus {}",
            "[2, 1152921504606846976n, Date(1970-01-01T00:00:00Z), Uint8Array(2) [0, 0]]",
        ];
        assert_eq!(lines(&text), expected);
    }

    #[test]
    fn run_of_a_failed_handler_shows_the_place_and_ends_with_1() {
        let (code, text) = ran("let x = {};\n  x.f();", |_| {});
        assert_eq!(code, ExitCode::HandlerFailed);
        let lines = lines(&text);
        assert!(lines[0].starts_with("error: EXECUTION_ERROR: TypeError: "), "{text}");
        assert!(lines[1].starts_with("  --> FILE:2:"), "{text}");
        assert_eq!(lines[3], " 2 |   x.f();", "{text}");
    }

    #[test]
    fn a_missing_grant_is_named() {
        let (code, text) = ran("$state.m = 1", grant(&["state:read:*"]));
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.contains("error: PERMISSION_DENIED") && text.contains("--grant state:write:m\n"), "{text}");
    }

    #[test]
    fn what_the_handler_needs_is_granted_and_told() {
        let file = HandlerFile::new("$state.m = $state.n + 1; return $ext.a.b()");
        let mut run = super::super::run::tests::run_with(Some(json!({"a.b": [7]})));
        (run.file, run.grants, run.grant_needs) = (Script::File(file.0.clone()), vec![], true);
        let loaded = run.config.load([]).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = super::run(&run, &loaded, &mut out, &mut err).unwrap();
        assert_eq!((code, lines(&String::from_utf8(out).unwrap()).last()), (ExitCode::Ok, Some(&"7")));
        let said = String::from_utf8(err).unwrap();
        assert!(said.starts_with("granted: ") && said.contains("ext:a.b") && said.contains("state:write:m"), "{said}");
        run.json = true;
        let mut out = Vec::new();
        super::run(&run, &loaded, &mut out, &mut Vec::new()).unwrap();
        let document: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["granted"].as_array().map(Vec::len), Some(3), "{document}");
    }

    #[test]
    fn a_handler_on_the_line_is_named_by_its_flag() {
        let (code, text) = ran("", |run| run.file = Script::Text("return (".to_owned()));
        assert!(code == ExitCode::HandlerFailed && text.contains("--> --eval:1:"), "{text}");
        let (_, text) = ran("", |run| run.file = Script::Text("return 6 * 7".to_owned()));
        assert_eq!(lines(&text), ["42"]);
    }

    #[test]
    fn extension_calls_take_the_fixtures_in_order() {
        let source = "const a = await $ext.http.get('/a');\n$log(a);\n\
                      try { await $ext.http.get('/b') } catch (e) { return [a, e.message, e.extension] }";
        let (code, text) = ran(source, |run| {
            run.grants = vec!["ext:http".to_owned()];
            run.extensions = Some(JsonSource::Inline(json!({"http.get": [{"n": 1}, {"error": "down"}]})));
        });
        assert_eq!(code, ExitCode::Ok, "{text}");
        let expected = [
            "segment 0",
            "call   http.get(\"/a\") -> { n: 1 }",
            "segment 1",
            "info   { n: 1 }",
            "call   http.get(\"/b\") fails: down",
            "segment 2",
            "[{ n: 1 }, \"down\", \"http\"]",
        ];
        assert_eq!(lines(&text)[..3], expected[..3], "{text}");
        assert_eq!(lines(&text)[4..], expected[4..], "{text}");
    }

    #[test]
    fn a_call_without_a_fixture_is_named_with_its_arguments() {
        let (code, text) = ran("return await $ext.http.get('/a')", |run| run.grants = vec!["ext:http".to_owned()]);
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.contains("error: EXECUTION_ERROR: Error: --ext has no answer for http.get(\"/a\")\n"), "{text}");
    }

    #[test]
    fn an_extension_that_is_said_not_to_exist_does_not() {
        let source = "if ($ext.exists('a')) throw 1; return await $ext.http.get('/a')";
        let (code, text) = ran(source, |run| {
            run.grants = vec!["ext:http".to_owned()];
            run.extensions = Some(JsonSource::Inline(json!({"http": false, "a": false})));
        });
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.starts_with("error: EXTENSION_NOT_FOUND"), "{text}");
    }

    #[test]
    fn calls_at_once_are_answered_in_the_order_of_their_delays() {
        let source = "const order = [];\n\
                      await Promise.all(['a', 'b', 'c'].map((n) => $ext.s.get(n).then((v) => order.push(v))));\n\
                      return order.join()";
        let (code, text) = ran(source, |run| {
            run.grants = vec!["ext:s".to_owned()];
            run.extensions = Some(JsonSource::Inline(json!({"s.get": [
                {"args": ["c"], "value": 3}, {"value": 1, "delayMs": 200}, {"value": 2, "delayMs": 50},
            ]})));
        });
        assert_eq!(code, ExitCode::Ok, "{text}");
        assert!(text.contains("\n\"3,2,1\"\n"), "{text}");
    }

    #[test]
    fn the_deadline_of_a_flag_is_kept() {
        let (code, text) = ran("for (;;) ;", |run| run.config.flags = vec![("timeoutMs", "50".to_owned())]);
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.starts_with("error: TIMEOUT"), "{text}");
    }

    #[test]
    fn programs_get_one_document() {
        let (_, text) = ran("$log('a'); return $state.n", |run| run.json = true);
        let document: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(document["value"], 1);
        assert_eq!(document["segments"][0]["logs"][0]["message"], "a");
        assert_eq!(document["metrics"]["cacheHit"], false);
    }

    #[test]
    fn check_refuses_what_does_not_compile() {
        let loaded = ConfigArgs::default().load([]).unwrap();
        let checked = |source: &str| {
            let file = HandlerFile::new(source);
            let mut out = Vec::new();
            let code = check(&Script::File(file.0.clone()), false, &loaded, &mut out).unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        let (code, text) = checked("return 1");
        assert!(code == ExitCode::Ok && text.contains(": compiles\n"), "{text}");
        let (code, text) = checked("let a = 1;\nlet = ;");
        assert_eq!(code, ExitCode::HandlerFailed);
        assert!(text.starts_with("error: COMPILATION_ERROR: ") && text.contains("\n 2 | let = ;\n"), "{text}");
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
