//! Parse, run, map to an exit code.

use std::process;

use nexus_sidecar::cli::{self, Command};
use nexus_sidecar::error::StartError;
use nexus_sidecar::exit::ExitCode;
use nexus_sidecar::lifecycle::parent;
use nexus_sidecar::os::limits;
use nexus_sidecar::{commands, engine, serve, walls};

pub fn main() {
    let code = match main_exec() {
        Ok(code) => code,
        // whoever reads the output has seen enough
        Err(StartError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::Ok,
        Err(error) => {
            // in one piece, as a supervisor and its worker have one standard error
            let mut text = format!("nexus-sidecar: {error}");
            if matches!(error, StartError::Engine(_) | StartError::Io { .. }) {
                text.push_str(&limits::in_words());
            }
            let _ = std::io::Write::write_all(&mut std::io::stderr(), (text + "\n").as_bytes());
            error.exit_code()
        }
    };
    // workers may still be running guests; nothing of theirs outlives the process
    process::exit(code as i32)
}

fn main_exec() -> Result<ExitCode, StartError> {
    limits::let_writes_fail();
    parent::end_with_caller(std::env::var(parent::STANDS_FOR_VARIABLE).ok().as_deref());
    let command = cli::parse(std::env::args_os())?;
    let starts_engine = matches!(
        command,
        Command::Serve { .. }
            | Command::Run(_)
            | Command::Check { .. }
            | Command::Worker { .. }
            | Command::Engine { .. }
    );
    if starts_engine && !limits::allow_an_engine() {
        let why = "each instance reserves 12 GiB of addresses, of which it uses only what it needs: lift the limit, and limit \
                   memory itself (MemoryMax= of a unit, a container's limit)";
        return Err(StartError::Engine(why.into()));
    }
    let env = || std::env::vars_os();
    let out = &mut std::io::stdout();
    match command {
        Command::Serve { listen, config } => serve::serve(&listen, &config, config.load(env())?),
        Command::Run(run) => commands::run(&run, &run.config.load(env())?, out, &mut std::io::stderr()),
        Command::Check { file, json, config } => commands::check(&file, json, &config.load(env())?, out),
        Command::Types { extensions, config } => commands::types(extensions.as_ref(), &config.load(env())?, out),
        Command::Stats(connect) => commands::stats(&connect, out),
        Command::Metrics(connect) => commands::metrics(&connect, out),
        Command::Top(top) => commands::top(&top, out),
        Command::Ping(connect) => commands::ping(&connect, out),
        Command::CheckConfig(config) => commands::check_config(&config, env(), out, &mut std::io::stderr()),
        Command::Worker { supervisor, channel } => walls::worker::work(supervisor, channel),
        Command::Engine { json } => engine::describe::print(json, walls::seal::possible_here(), out),
        Command::Version => engine::describe::version(out),
        Command::Help(text) => {
            use std::io::Write;
            out.write_all(text.as_bytes())?;
            Ok(ExitCode::Ok)
        }
        _ => {
            Err(StartError::Io { context: "this command", source: std::io::Error::other("is not part of this build") })
        }
    }
}
