//! A worker: a server without a place to listen, without files, and without a way out.
//!
//! ```text
//!   executed -> bound to its supervisor -> attached -> told what to serve -> guests loaded -> sealed, and serving
//! ```
//! What it needs of the machine it takes before the seal; nothing of a client has reached it by then. From there on it has the
//! descriptors below and those of its clients, and does nothing with any path.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};

use super::handover::Intake;
use super::line::Line;
use super::names::AskedSegments;
use super::page::Page;
use super::seal::{self, Lack};
use super::words::{Beginning, Command, Question, Said, Trade};
use super::{compile, policy};
use crate::cache::handle::HandleKey;
use crate::cache::{LowerTier, shelf::Shelf};
use crate::engine::Guests;
use crate::error::StartError;
use crate::exit::ExitCode;
use crate::lifecycle::Exit;
use crate::observe::logging::{self, Layout};
use crate::os;
use crate::runtime::{Keeping, Runtime, engine_options};
use crate::sealed::Walls;
use crate::server::door::Source;
use crate::server::{Mode, Server, Surroundings};

/// The command by which this program is executed as a worker. It is in no help: only a supervisor can use it.
pub const NAME: &str = "worker";

/// Of the line, reads and writes of the shelf, names, and the page.
pub const DESCRIPTORS: [RawFd; 5] = [3, 4, 5, 6, 7];

/// Up to 1000, where the kernel ends a process before all others when memory is short.
const OOM_SCORE: &str = "500";

/// As the allocator has it by itself.
const HEAP_PARTS_PER_PROCESSOR: usize = 8;

/// How long a server may take to show that it moves.
const PATIENCE: Duration = Duration::from_secs(1);

/// Until the supervisor wants its end. `supervisor`: its process; `channel`: where it waits for this one.
pub fn work(supervisor: i32, channel: String) -> Result<ExitCode, StartError> {
    let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| StartError::Io { context: "no signal", source: e.into() })?;
    // had it ended before that line, this tells
    if getppid() != Pid::from_raw(supervisor) {
        return Ok(ExitCode::ParentGone);
    }
    let _ = prctl::set_name(c"nexus-worker");
    // the supervisor decides when it ends, whatever a terminal or a service manager sends to all
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGUSR2] {
        ignored.add(signal);
    }
    let _ = ignored.thread_block();
    os::close_inherited(&DESCRIPTORS);
    crate::serve::settle_process();
    let descriptor = |number| os::inherited(number).map_err(io("a worker is started by serve, and by nobody else"));
    let [line, reads, writes, names, page] = DESCRIPTORS;
    let line = Line::from(descriptor(line)?);
    let (reads, writes) = (UnixStream::from(descriptor(reads)?), UnixStream::from(descriptor(writes)?));
    let (names, page) = (Line::from(descriptor(names)?), Page::from(descriptor(page)?));
    let commands = attach(channel).map_err(io("cannot reach the supervisor"))?;
    line.say(&Said::Attached.to_bytes()).map_err(io("cannot reach the supervisor"))?;
    let Ok(Command::Begin(beginning)) = commands.recv() else { return Ok(ExitCode::ParentGone) };
    let Beginning { config, trade, pid, handles, keeps_handlers, descriptors_come } = *beginning;
    let _ = logging::init(config.log, Layout::detect(config.log_json));
    if descriptors_come {
        os::expect_descriptors();
    }
    // of all processes, this one is the first that the machine can do without
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        log::debug!("cannot change what the kernel thinks of this process when memory is short: {e}");
    }
    // what is found out by opening files, while that is possible
    os::bound_parts_of_heap(HEAP_PARTS_PER_PROCESSOR * os::processors());
    match os::page_map() {
        Ok(_) => {}
        Err(e) if os::is_for_good(&e) => log::warn!("suspended executions keep their instances: no page map: {e}"),
        // later it cannot be had
        Err(e) => return Err(StartError::Io { context: "cannot open the page map", source: e }),
    }
    // the bounds of the first thread's stack are in a file
    os::prepare_thread_for_guests().map_err(|e| StartError::Engine(Box::new(e)))?;
    let mode = match trade {
        Trade::Connections => Mode::Service,
        Trade::OneConnection => Mode::Child,
        Trade::Compile => {
            drop((writes, names));
            return compile::work(config, commands, &line, reads);
        }
    };
    let require_sandbox = config.require_sandbox;
    let mut walls = Walls::default();
    let put_up = |part: Result<(), Lack>| {
        if let Err((wall, why)) = part {
            log::warn!("a wall is missing around guests: {wall} ({why})");
        }
    };
    let guests = Guests::all(engine_options(&config)).map_err(|e| StartError::Engine(Box::new(e)))?;
    // what loading them took on the way
    os::trim_heap();
    // no other thread is there yet
    put_up(seal::close_paths(&mut walls));
    let lower: Option<Box<dyn LowerTier>> = match keeps_handlers {
        true => {
            let page = page.try_clone().map_err(io("cannot copy a descriptor"))?;
            let counts = Box::new(move || page.counts());
            let shelf = Shelf::start(*guests.digest(), reads, writes, counts);
            Some(Box::new(shelf.map_err(io("cannot start a thread"))?))
        }
        false => None,
    };
    let keeping = Keeping { handles: HandleKey::new(handles), lower };
    let runtime = Runtime::start(config, guests, |_, _| Ok(keeping)).map_err(|e| StartError::Engine(Box::new(e)))?;
    let (runtime, exit) = (Arc::new(runtime), Arc::new(Exit::new().map_err(io("cannot make a socket pair"))?));
    let holding = Arc::new(OnceLock::new());
    let surroundings =
        Surroundings { pid, segments: Box::new(AskedSegments::over(names)), walls: Some(holding.clone()) };
    let server = Server::new(runtime.clone(), mode, exit.clone(), surroundings);
    let server = server.map_err(io("cannot make the server"))?;
    server.keep_roll(page.roll().map_err(io("cannot map the roll"))?);
    let copy = io("cannot copy a descriptor");
    let source = Source::Line(line.try_clone().and_then(|line| Intake::new(line, page.try_clone()?)).map_err(copy)?);
    server.with_poller(|poller| poller.listen(source)).map_err(io("cannot listen"))?;
    put_up(seal::close_calls(&mut walls, policy::engine_worker(std::process::id())));
    let _ = holding.set(walls);
    if let Some(missing) = walls.missing().filter(|_| require_sandbox) {
        return Err(StartError::Sandbox { missing });
    }
    // from here on clients reach it
    server.start().map_err(io("cannot start the threads of the server"))?;
    let obey = {
        let (server, runtime, line) = (server.clone(), runtime.clone(), line.try_clone());
        let line = line.map_err(io("cannot copy a descriptor"))?;
        move || obey(&commands, &runtime, &server, &line, &page)
    };
    thread::Builder::new().name("commands".into()).spawn(obey).map_err(io("cannot start a thread"))?;
    line.say(&Said::Ready { walls: walls.bits() }.to_bytes()).map_err(io("cannot reach the supervisor"))?;
    let code = exit.wait();
    server.remove_segment_names();
    runtime.flush();
    Ok(code)
}

/// Tells the supervisor where it can be commanded: the one message that goes that way.
fn attach(channel: String) -> io::Result<IpcReceiver<Command>> {
    let supervisor = IpcSender::<IpcSender<Command>>::connect(channel)?;
    let (sender, commands) = ipc::channel()?;
    supervisor.send(sender).map_err(io::Error::other)?;
    Ok(commands)
}

/// Does what the supervisor says, for as long as there is one.
fn obey(commands: &IpcReceiver<Command>, runtime: &Runtime, server: &Server, line: &Line, page: &Page) {
    while let Ok(command) = commands.recv() {
        match command {
            // the first one, which is over
            Command::Begin(_) => {}
            Command::Reload(config) => {
                log::set_max_level(config.log);
                runtime.config.replace(*config);
                server.reconfigure();
            }
            Command::Drain => server.drain(),
            Command::Prod => server.prod(),
            Command::Ask { number, question } => {
                let values = answer(question, server, page);
                if line.say(&Said::Answer { number, values }.to_bytes()).is_err() {
                    break;
                }
            }
        }
    }
    // what it was there for is gone
    os::exit_now(ExitCode::ParentGone as u8);
}

fn answer(question: Question, server: &Server, page: &Page) -> [u64; 3] {
    match question {
        Question::Pulse => match server.pulse() {
            Some(pulse) => [pulse.polls, pulse.ticks, server.has_stuck_run().into()],
            // the same as before, whatever that was, would be no progress; nor is this
            None => [0, 0, 1],
        },
        Question::Alive => [server.is_alive(PATIENCE).into(), 0, 0],
        Question::Metrics => [page.write_text(&server.prometheus()).unwrap_or(0), 0, 0],
    }
}
