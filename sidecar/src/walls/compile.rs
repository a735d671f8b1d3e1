//! The life of a worker that compiles: sources in, bodies of cache entries out, one at a time.
//!
//! Its supervisor seals what comes out for everybody who has the same source. So nothing but sources reaches it: it has no client, no
//! key, no file, and runs no handler, and each source is compiled by an instance that is reset to the byte.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc::IpcReceiver;
use nexus_protocol::limits::COMPILE_AGAIN_MS;
use nexus_protocol::message::SuspendMode;

use super::compile_policy;
use super::line::Line;
use super::seal::{self, Lack};
use super::words::{Command, Said};
use crate::cache::Client;
use crate::cache::handle::HandleKey;
use crate::cache::shelf::{body_of, read_source, write_source};
use crate::config::Config;
use crate::engine::{Guests, thread_stack_bytes};
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::os;
use crate::runtime::{Keeping, Runtime, engine_options};
use crate::sealed::Walls;
use crate::token::StopToken;

/// Whoever has a request comes first.
const NICE: i32 = 10;

/// What such a worker makes ready of the configuration: one instance, and nothing that it remembers.
fn own(config: Config) -> Config {
    Config { max_instances: 1, min_instances: 1, max_cache_size_bytes: 0, ..config }
}

/// See the module. Returns when it is not needed any more.
pub fn work(
    config: Config,
    commands: IpcReceiver<Command>,
    line: &Line,
    sources: UnixStream,
) -> Result<ExitCode, StartError> {
    let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    let mut walls = Walls::default();
    let require_sandbox = config.require_sandbox;
    os::yield_to_others(NICE);
    let config = own(config);
    // a second guest has no bytecode of its own
    let guests = Guests::one(engine_options(&config)).map_err(|e| StartError::Engine(Box::new(e)))?;
    os::trim_heap();
    let put_up = |part: Result<(), Lack>| {
        if let Err((wall, why)) = part {
            log::warn!("a wall is missing around the compiler: {wall} ({why})");
        }
    };
    put_up(seal::close_paths(&mut walls));
    let stack = thread_stack_bytes(u32::try_from(config.stack_size_bytes).unwrap_or(u32::MAX));
    let keeping = Keeping { handles: HandleKey::new([0; 32]), lower: None };
    let runtime = Runtime::start(config, guests, |_, _| Ok(keeping)).map_err(|e| StartError::Engine(Box::new(e)))?;
    let (sealed, until_sealed) = mpsc::channel::<()>();
    let life = move || {
        // which ends with an error: nothing is ever sent
        let _ = until_sealed.recv();
        compile_all(&runtime, &sources)
    };
    let compiler = thread::Builder::new().name("compiler".into()).stack_size(stack).spawn(life);
    let compiler = compiler.map_err(io("cannot start a thread"))?;
    let answers = line.try_clone().map_err(io("cannot copy a descriptor"))?;
    let obey = move || obey(&commands, &answers);
    thread::Builder::new().name("commands".into()).spawn(obey).map_err(io("cannot start a thread"))?;
    put_up(seal::close_calls(&mut walls, compile_policy::compile_worker(std::process::id())));
    if let Some(missing) = walls.missing().filter(|_| require_sandbox) {
        return Err(StartError::Sandbox { missing });
    }
    line.say(&Said::Ready { walls: walls.bits() }.to_bytes()).map_err(io("cannot reach the supervisor"))?;
    drop(sealed);
    let compiled = compiler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    compiled.map_err(io("cannot hand over bytecode"))?;
    Ok(ExitCode::Ok)
}

/// Until there are no more sources.
fn compile_all(runtime: &Runtime, mut sources: &UnixStream) -> io::Result<()> {
    while let Some((mode, source)) = read_source(&mut sources, runtime.config.max_source_bytes) {
        let body = compiled(runtime, mode, &source);
        sources.write_all(&(body.len() as u64).to_le_bytes())?;
        sources.write_all(&body)?;
    }
    Ok(())
}

/// The body of the handler's entry. Empty: there is none.
fn compiled(runtime: &Runtime, mode: Option<SuspendMode>, source: &str) -> Vec<u8> {
    let token = StopToken::until(Instant::now().checked_add(Duration::from_millis(COMPILE_AGAIN_MS)));
    match runtime.compile(source, mode, Client::ALONE, &token) {
        Ok(found) => body_of(&found.handler),
        Err(error) => {
            log::debug!("a handler is not kept: {}", error.message);
            Vec::new()
        }
    }
}

/// Does what the supervisor says, for as long as there is one.
fn obey(commands: &IpcReceiver<Command>, line: &Line) {
    while let Ok(command) = commands.recv() {
        match command {
            // it is done when there are no more sources
            Command::Begin(_) | Command::Drain | Command::Prod => {}
            Command::Reload(config) => log::set_max_level(config.log),
            Command::Ask { number, .. } => {
                if line.say(&Said::Answer { number, values: [1, 0, 0] }.to_bytes()).is_err() {
                    break;
                }
            }
        }
    }
    os::exit_now(ExitCode::ParentGone as u8);
}

/// The supervisor's side: has one source compiled. None: it is no handler that could be kept. An error: whoever compiles is of no use
/// any more. The streams' own time limits hold for each part of it.
pub fn ask(
    mut compiler: &UnixStream,
    mode: Option<SuspendMode>,
    source: &str,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    write_source(&mut compiler, mode, source)?;
    let mut len = [0; 8];
    compiler.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > most {
        return Err(io::Error::other("what it made is longer than anything may be"));
    }
    let mut body = Vec::new();
    compiler.take(len).read_to_end(&mut body)?;
    if body.len() as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((len > 0).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_compiler_that_says_anything_makes_nothing_longer_than_may_be_and_keeps_nobody_waiting() {
        let mut random = Random(5);
        for _ in 0..200 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut said: Vec<u8> = (0..random.below(64)).map(|_| random.below(256) as u8).collect();
            if random.below(2) == 0 && said.len() >= 8 {
                said[..8].copy_from_slice(&(random.below(64) as u64).to_le_bytes());
            }
            (&theirs).write_all(&said).unwrap();
            match ask(&ours, None, "return 1", 32) {
                Ok(Some(body)) => assert!((1..=32).contains(&body.len()) && said[8..].starts_with(&body)),
                Ok(None) => assert_eq!(said[..8], [0; 8]),
                Err(_) => {}
            }
        }
    }
}
